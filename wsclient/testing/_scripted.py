"""A server that says its lines when the test says so.

A handler of :class:`FaultServer` plays its part beside the test; here the test itself is the
script, line after line, with the client's lines between them.
"""

from __future__ import annotations

import json
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import trio

from ._connection import ServerConnection
from ._faults import Fault
from ._network import MemoryNetwork
from ._server import FaultServer

WITHIN: Final = 5.0
"""Seconds that a script waits for the client, unless told otherwise."""

Line: TypeAlias = "str | bytes | dict[str, Any] | list[Any]"
"""A message: as it is, or what it is in JSON."""


class ScriptedServer(FaultServer):
    """A server whose script is the test.

    ::

        async with ScriptedServer(network=network) as server:
            async with wsclient.open_channel(server.url) as channel:
                await channel.send('{"op": "subscribe"}')
                await server.expect({"op": "subscribe"})
                await server.send({"price": 7})
                await server.close(1012)
                await server.accept()  # the client is back

    Args:
        faults: As for :class:`FaultServer`: what befalls the connections beside the script.
        network: As for :class:`FaultServer`, and all that follow.
        host: …
        port: …
        ssl_context: …
        subprotocols: …

    Resource handling:
        As :class:`FaultServer`.
    """

    def __init__(
        self,
        faults: Iterable[Fault] = (),
        *,
        network: MemoryNetwork | None = None,
        host: str | None = None,
        port: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        subprotocols: Iterable[str] = (),
    ) -> None:
        super().__init__(
            faults,
            handler=self._enter,
            network=network,
            host=host,
            port=port,
            ssl_context=ssl_context,
            subprotocols=subprotocols,
        )
        self._entered: deque[ServerConnection] = deque()
        self._on_stage: ServerConnection | None = None
        self._changed = trio.lowlevel.ParkingLot()

    async def _enter(self, connection: ServerConnection) -> None:
        self._entered.append(connection)
        self._changed.unpark_all()
        await connection.wait_over()

    async def accept(self, *, within: float = WITHIN) -> ServerConnection:
        """Wait for the next client; from now on the script's lines are with this one.

        Raises:
            AssertionError: None came within so many seconds.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(within):
            while not self._entered:
                await self._changed.park()
        if not self._entered:
            raise AssertionError(f"expected a client, and none came within {within:g} s")
        self._on_stage = self._entered.popleft()
        return self._on_stage

    async def _client(self) -> ServerConnection:
        return self._on_stage or await self.accept()

    async def expect(
        self, expected: Line | Callable[[str | bytes], object], *, within: float = WITHIN
    ) -> str | bytes:
        """Wait for the client's next message, which must be this one.

        The first line of a script waits for the first client, too.

        Args:
            expected: The message, or what it is in JSON, or a function that says whether it is
                the right one.
            within: Seconds to wait.

        Returns:
            The message.

        Raises:
            AssertionError: Another one came, or none, or the client has left.
        """
        client = await self._client()
        with trio.move_on_after(within):
            try:
                message = await client.receive()
            except trio.EndOfChannel:
                close = client.visit.close
                left = "is gone" if close is None else f"has closed: {close}"
                raise AssertionError(f"expected {expected!r}, and the client {left}") from None
            if not _is(message, expected):
                raise AssertionError(f"expected {expected!r}, and {message!r} came")
            return message
        raise AssertionError(f"expected {expected!r}, and nothing came within {within:g} s")

    async def send(self, message: Line) -> None:
        """Send a message to the client.

        Raises:
            trio.BrokenResourceError: The client is gone.
        """
        client = await self._client()
        await client.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send the client a close frame, without waiting for the answer."""
        client = await self._client()
        await client.close(code, reason)

    async def reset(self) -> None:
        """Reset the client's connection."""
        client = await self._client()
        client.reset()


def _is(message: str | bytes, expected: object) -> bool:
    if callable(expected):
        return bool(expected(message))
    if isinstance(expected, (str, bytes)):
        return message == expected
    try:
        return bool(json.loads(message) == expected)
    except ValueError:
        return False
