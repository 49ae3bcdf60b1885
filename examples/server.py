"""A server for the other examples: a feed, and an echo on every other path.

It is the test kit's, so there is nothing more to install::

    python examples/server.py

Stop it with Ctrl-C and start it again while an example runs: that is what wsclient is for.
"""

import argparse
import itertools
import json
import sys
import time
from typing import Any

import trio

from wsclient.testing import FaultServer, ServerConnection, echo

MEMORY = 10  # seconds


async def feed(connection: ServerConnection) -> None:
    """Publish to each topic once a second; the messages are numbered by the clock.

    So there is nothing to keep for whoever comes back: what was published within the last ten
    seconds can be told again, and what is older is forgotten, as with most feeds.
    """
    async with trio.open_nursery() as nursery:
        async for message in connection:
            asked = json.loads(message)
            if asked["op"] == "subscribe":  # Whoever unsubscribes here does so by leaving.
                topic, now = asked["channel"], int(time.time())
                after = asked.get("after", now)
                resumed = now - MEMORY <= after <= now
                await say(connection, op="subscribed", channel=topic, resumed=resumed)
                nursery.start_soon(publish, connection, topic, after if resumed else now)
        nursery.cancel_scope.cancel()


async def publish(connection: ServerConnection, topic: str, after: int) -> None:
    for number in itertools.count(after + 1):
        await trio.sleep(max(0, number - time.time()))
        at = time.strftime("%H:%M:%S", time.localtime(number))
        await say(connection, channel=topic, seq=number, data={"at": at})


async def say(connection: ServerConnection, **message: Any) -> None:
    await connection.send(json.dumps(message))


async def serve(connection: ServerConnection) -> None:
    await (feed if connection.path == "/feed" else echo)(connection)


async def main(port: int) -> None:
    async with FaultServer(handler=serve, port=port) as server:
        for path in ("/feed", "/"):
            print(f"{server.url}{path}", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server for the examples, on the loopback.")
    parser.add_argument("--port", type=int, default=8765, help="0: the system chooses one")
    try:
        trio.run(main, parser.parse_args().port)
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"{parser.prog}: {error}")
