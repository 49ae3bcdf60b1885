"""A network in memory: streams, listeners and names, without sockets and without threads.

It stands in for TCP where a test runs on virtual time: ``trio.testing.MockClock`` jumps as soon as
every task waits, and real sockets and resolver threads are waits that it does not see.

The streams keep TCP's manners where tests notice them: a bounded buffer for each direction (a
sender waits for its reader), an end that comes after all data, a reset that destroys data.
"""

from __future__ import annotations

import errno
import operator
import os
import socket
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from wsclient.connection import stream_opener

if TYPE_CHECKING:
    from types import TracebackType

BUFFER_SIZE: Final = 64 * 1024
"""Bytes that one direction holds before its sender waits: a small socket buffer, so that tests
feel backpressure soon."""


class _Turn:
    """Lets one task in at a time; a second one is a mistake, as trio's streams have it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError(self._text)
        self._taken = True

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._taken = False


class _Pipe:
    """One direction of a connection."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.data: bytearray = bytearray()
        self.ended = False
        """Nothing more will be sent."""
        self.abandoned = False
        """Nobody will receive any more."""
        self.is_reset = False
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    @property
    def room(self) -> int:
        return self.size - len(self.data)


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, name: str) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._name = name
        self._closed = False
        self._sending = _Turn("another task is currently sending data on this stream")
        self._receiving = _Turn("another task is already receiving data from this stream")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; wait for the reader where the buffer is full.

        Raises:
            trio.BrokenResourceError: The other end is closed, or the connection was reset.
            trio.ClosedResourceError: This end is closed.
            trio.BusyResourceError: Another task is sending.
        """
        with self._sending, memoryview(data) as rest:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            sent = 0
            while sent < len(rest):
                if room := self._outgoing.room:
                    self._outgoing.data += rest[sent : sent + room]
                    sent += room
                    self._outgoing.changed.unpark_all()
                else:
                    await self._outgoing.changed.park()
                    self._check_sendable()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the buffer.

        Raises:
            trio.BrokenResourceError: As :meth:`send_all`, and the others too.
        """
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            while not self._outgoing.room:
                await self._outgoing.changed.park()
                self._check_sendable()

    async def send_eof(self) -> None:
        """Send nothing more; receiving goes on.

        Raises:
            trio.BrokenResourceError: As :meth:`send_all`, and the others too.
        """
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._outgoing.ended and not self._closed:
                return
            self._check_sendable()
            self._outgoing.ended = True
            self._outgoing.changed.unpark_all()

    def _check_sendable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._outgoing.ended:
            raise trio.ClosedResourceError("this stream's sending side is closed")
        if self._outgoing.is_reset:
            raise trio.BrokenResourceError("the connection was reset")
        if self._outgoing.abandoned:
            raise trio.BrokenResourceError("the other end is closed")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for data; return what is there, at most ``max_bytes``, or nothing at the end.

        Raises:
            trio.BrokenResourceError: The connection was reset.
            trio.ClosedResourceError: This end is closed.
            trio.BusyResourceError: Another task is receiving.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be >= 1")
        incoming = self._incoming
        with self._receiving:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this stream is closed")
                if incoming.is_reset:
                    raise trio.BrokenResourceError("the connection was reset")
                if incoming.data or incoming.ended:
                    break
                await incoming.changed.park()
            data = bytes(incoming.data[:max_bytes])
            del incoming.data[:max_bytes]
            incoming.changed.unpark_all()
            return data

    async def wait_received(self) -> None:
        """Wait until the other end has received all that was sent, or never will."""
        await trio.lowlevel.checkpoint()
        outgoing = self._outgoing
        while outgoing.data and not outgoing.abandoned:
            await outgoing.changed.park()

    def close(self) -> None:
        """Close this end: the other one receives what was sent, and then the end."""
        if self._closed:
            return
        self._closed = True
        self._outgoing.ended = True
        self._incoming.abandoned = True
        self._incoming.data.clear()
        self._wake()

    async def aclose(self) -> None:
        """Close this end, as :meth:`close` does."""
        self.close()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Break the connection: what was not received is lost, both ends are broken.

        On an end that is closed already it does nothing.
        """
        if self._closed:
            return
        for pipe in (self._incoming, self._outgoing):
            pipe.is_reset = True
            pipe.data.clear()
        self._wake()

    def _wake(self) -> None:
        self._incoming.changed.unpark_all()
        self._outgoing.changed.unpark_all()


def memory_stream_pair(
    buffer_size: int = BUFFER_SIZE, *, name: str = "memory"
) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of one connection.

    Args:
        buffer_size: Bytes that each direction holds before its sender waits.
        name: Names the connection where a stream is printed.
    """
    if buffer_size < 1:
        raise ValueError(f"buffer_size must be at least 1, not {buffer_size!r}")
    there, back = _Pipe(buffer_size), _Pipe(buffer_size)
    return MemoryStream(back, there, f"to {name}"), MemoryStream(there, back, f"of {name}")


class MemoryAttempt:
    """Somebody wants to connect."""

    def __init__(self, buffer_size: int, name: str) -> None:
        self._client, self._server = memory_stream_pair(buffer_size, name=name)
        self._decided = trio.Event()
        self._is_accepted = False

    def accept(self) -> MemoryStream:
        """Let the client in; return the server's end."""
        self._is_accepted = True
        self._decided.set()
        return self._server

    def refuse(self) -> None:
        """Turn the client away: it gets a ``ConnectionRefusedError``."""
        self._decided.set()

    async def _wait(self) -> MemoryStream:
        try:
            await self._decided.wait()
        except BaseException:
            # Accepted or not: nobody will use it.
            self._client.close()
            raise
        if not self._is_accepted:
            raise _refused()
        return self._client


class MemoryListener(trio.abc.Listener[MemoryStream]):
    """Where a host listens on a port; :func:`trio.serve_listeners` can serve it, too."""

    def __init__(self, network: MemoryNetwork, host: str, port: int) -> None:
        self.host = host
        """The name that it listens under."""
        self.port = port
        """The port that it listens on."""
        self._network = network
        self._waiting: deque[MemoryAttempt] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.host}:{self.port}>"

    async def accept(self) -> MemoryStream:
        """Wait for a client and let it in.

        Raises:
            trio.ClosedResourceError: The listener is closed.
        """
        return (await self.wait_attempt()).accept()

    async def wait_attempt(self) -> MemoryAttempt:
        """Wait for a client, which waits in turn until it is accepted or refused.

        Raises:
            trio.ClosedResourceError: The listener is closed.
        """
        await trio.lowlevel.checkpoint()
        while not self._closed:
            if self._waiting:
                return self._waiting.popleft()
            await self._changed.park()
        raise trio.ClosedResourceError("this listener is closed")

    async def _connect(self, buffer_size: int) -> MemoryStream:
        attempt = MemoryAttempt(buffer_size, f"{self.host}:{self.port}")
        self._waiting.append(attempt)
        self._changed.unpark()
        try:
            return await attempt._wait()
        finally:
            if attempt in self._waiting:
                self._waiting.remove(attempt)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Stop to listen; who waits to be let in is refused."""
        if self._closed:
            return
        self._closed = True
        self._network._forget(self)
        for attempt in self._waiting:
            attempt.refuse()
        self._changed.unpark_all()

    async def aclose(self) -> None:
        """Stop to listen, as :meth:`close` does."""
        self.close()
        await trio.lowlevel.checkpoint()


class MemoryNetwork:
    """Named hosts that listen on ports, and streams to them."""

    def __init__(self, buffer_size: int = BUFFER_SIZE) -> None:
        self._buffer_size = buffer_size
        self._hosts: set[str] = set()
        self._listeners: dict[tuple[str, int], MemoryListener] = {}

    def add_host(self, host: str) -> None:
        """Let the name be known, as :meth:`listen` does too, though nothing listens there."""
        self._hosts.add(host.lower())

    def listen(self, host: str, port: int) -> MemoryListener:
        """Listen at ``host`` and ``port``.

        Raises:
            OSError: Something listens there already (``EADDRINUSE``).
        """
        self.add_host(host)
        address = (host.lower(), port)
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        listener = self._listeners[address] = MemoryListener(self, *address)
        return listener

    async def connect(self, host: str, port: int) -> MemoryStream:
        """Open a stream; wait until the listener accepts it.

        Raises:
            socket.gaierror: The network does not know the host.
            ConnectionRefusedError: Nothing listens there, or it does not want the connection.
        """
        await trio.lowlevel.checkpoint()
        if host.lower() not in self._hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        listener = self._listeners.get((host.lower(), port))
        if listener is None:
            raise _refused()
        return await listener._connect(self._buffer_size)

    def _forget(self, listener: MemoryListener) -> None:
        del self._listeners[listener.host, listener.port]


def _refused() -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


@contextmanager
def memory_network(*, buffer_size: int = BUFFER_SIZE) -> Generator[MemoryNetwork, None, None]:
    """Let every connection that wsclient opens in this trio run go through memory.

    Args:
        buffer_size: Bytes that each direction of a connection holds before its sender waits.

    Resource handling:
        A context manager, to be used inside a trio run; at its end connections are opened as
        before.
    """
    network = MemoryNetwork(buffer_size)
    token = stream_opener.set(network.connect)
    try:
        yield network
    finally:
        stream_opener.reset(token)
