"""The server of ``soak.py``: every connection ends, and none like the one before.

``python _flaky.py COUNT`` serves so many connections on a real socket, prints its port, and runs
until it is killed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import chain, cycle, islice
from typing import Final

import trio

from wsclient.testing import (
    ACCEPT_THEN_CLOSE,
    BAD_OPCODE,
    EOF_AFTER_OPEN,
    EOF_IN_HANDSHAKE,
    HALF_FRAME,
    MUTE_CLOSE,
    NONE,
    REFUSE,
    REJECT_503,
    RESET_ON_ACCEPT,
    SILENCE,
    Fault,
    FaultServer,
    MemoryNetwork,
    ServerConnection,
)

QUICK: Final = (
    NONE,
    Fault.close(1001, after_messages=3),
    Fault.reset(after_messages=2),
    REJECT_503,
    EOF_AFTER_OPEN.later(after_messages=4),
    ACCEPT_THEN_CLOSE,
    NONE,
    HALF_FRAME.later(after_messages=3),
    RESET_ON_ACCEPT,
    Fault.close(1011, "broken", after_messages=1),
    BAD_OPCODE.later(after_messages=5),
    EOF_IN_HANDSHAKE,
    MUTE_CLOSE,
    Fault.reset(),
)
"""What takes no time."""

SLOW: Final = (
    Fault.close(1012, after_messages=2),
    Fault.close(1013),
    SILENCE.later(after_messages=3),
    Fault.reject(429, retry_after=20),
    REFUSE,
    Fault.reset(after=50.0),
)
"""What takes a while, which virtual time has."""


async def answer(connection: ServerConnection) -> None:
    """Acknowledge what carries an id, and send back the rest."""
    async for message in connection:
        content = json.loads(message)
        if "id" in content:
            await connection.send(json.dumps({"ack": content["id"]}))
        else:
            await connection.send(message)


def flaky_server(count: int, network: MemoryNetwork | None = None) -> FaultServer:
    """A server that has so many faults in store; in memory it has time for the slow ones, too."""
    round_of: Iterable[Fault] = QUICK if network is None else chain(QUICK, SLOW)
    return FaultServer(islice(cycle(round_of), count), handler=answer, network=network)


async def main(count: int) -> None:
    async with flaky_server(count) as server:
        print(server.port, flush=True)
        while True:
            # Nobody asks what it has heard.
            server.clear()
            await trio.sleep(1)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
