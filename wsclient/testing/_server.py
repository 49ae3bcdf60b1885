"""A server that plays faults, one connection after the other."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

import trio

from wsclient.connection import open_background_nursery
from wsclient.connection._endpoint import origin

from ._connection import GRACE, Handler, ServerConnection
from ._doors import Door, Listener, MemoryDoor, SocketDoor
from ._faults import NONE, Fault, FaultKind
from ._network import MemoryNetwork
from ._visits import Log, Visit

if TYPE_CHECKING:
    from types import TracebackType

MEMORY_HOST: Final = "server.test"
"""Where a server on an in-memory network listens, unless told otherwise (RFC 6761 §6.2)."""

LOOPBACK: Final = "127.0.0.1"
"""Where a server with a real socket does."""


async def listen(connection: ServerConnection) -> None:
    """The default handler: read, and record, until the client is done."""
    async for _ in connection:
        pass


async def echo(connection: ServerConnection) -> None:
    """A handler that sends every message back."""
    async for message in connection:
        await connection.send(message)


class FaultServer:
    """A WebSocket server for tests, which plays a story of faults and records what it hears.

    Args:
        faults: What befalls the first connection, the second, …; the last one repeats.
            Empty: all are healthy.
        handler: Run for each connection while it is healthy; when it returns, the connection is
            closed with 1000.  What it raises leaves the server's ``async with`` block.
            ``None`` reads until the client is done.
        network: The in-memory network to serve; ``None`` serves a real socket.
        host: Where to listen; ``None`` is ``server.test`` in memory and ``127.0.0.1`` otherwise.
        port: A port; ``None`` is the scheme's own (80 or 443) in memory, otherwise one that the
            system chooses.
        ssl_context: Serve TLS.
        subprotocols: Those that the server knows, the preferred first.

    Resource handling:
        An ``async with`` block; at its end all connections are reset and all tasks end.
    """

    def __init__(
        self,
        faults: Iterable[Fault] = (),
        *,
        handler: Handler | None = None,
        network: MemoryNetwork | None = None,
        host: str | None = None,
        port: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        subprotocols: Iterable[str] = (),
    ) -> None:
        if isinstance(faults, Fault):
            raise TypeError("faults must be an iterable of Fault, such as [REJECT_503, NONE]")
        self._faults = tuple(faults) or (NONE,)
        for fault in self._faults:
            if not isinstance(fault, Fault):
                raise TypeError(f"not a Fault: {fault!r}")
        self._handler = handler or listen
        self._ssl_context = ssl_context
        self._subprotocols = tuple(subprotocols)
        self._door: Door
        if network is None:
            self._door = SocketDoor(host or LOOPBACK, port or 0)
        else:
            own_port = 80 if ssl_context is None else 443
            self._door = MemoryDoor(network, host or MEMORY_HOST, port or own_port)
        self._log = Log()
        self._count = 0
        self._serving: set[ServerConnection] = set()
        self._listener: Listener | None = None
        self._nursery: trio.Nursery | None = None
        self._running: AbstractAsyncContextManager[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {list(self._faults)}>"

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("a FaultServer can be entered once")
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._running is not None
        return await self._running.__aexit__(exc_type, exc_value, traceback)

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None, None]:
        await self._door.prepare()
        try:
            async with open_background_nursery() as self._nursery:
                try:
                    await self.start()
                    yield
                finally:
                    self._stop()
        finally:
            self._nursery = None
            self._door.give_up()

    # What it is.

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._door.host

    @property
    def port(self) -> int:
        """On which port; 0 while the system has not chosen one."""
        return self._door.port

    @property
    def url(self) -> str:
        """Its URL, without a path."""
        return origin(self.host, self.port, secure=self._ssl_context is not None)

    # What it heard.

    @property
    def connections(self) -> list[Visit]:
        """All connections, in the order in which they came; those that were refused, too."""
        return self._log.visits

    @property
    def messages(self) -> list[str | bytes]:
        """All messages of all connections, in the order in which they were heard."""
        return self._log.messages

    def clear(self) -> None:
        """Forget the messages, and the connections that are over; the story of faults goes on."""
        self._log.clear()

    async def wait_connections(self, count: int) -> Visit:
        """Wait until so many connections have come; return the last of these.

        They need not be open: see :attr:`Visit.handshake_completed`.
        """
        await trio.lowlevel.checkpoint()
        while len(self._log.visits) < count:
            await self._log.changed.park()
        return self._log.visits[count - 1]

    async def wait_messages(self, count: int) -> list[str | bytes]:
        """Wait until so many messages were heard; return these."""
        await trio.lowlevel.checkpoint()
        while len(self._log.messages) < count:
            await self._log.changed.park()
        return self._log.messages[:count]

    async def wait_over(self, count: int) -> Visit:
        """Wait until so many connections are over; return the one that came last of these."""
        await trio.lowlevel.checkpoint()
        while len(over := [visit for visit in self._log.visits if visit.is_over]) < count:
            await self._log.changed.park()
        return over[count - 1]

    # What it does.

    async def broadcast(self, message: str | bytes) -> int:
        """Send a message to every connection that is open and in good health.

        Returns:
            How many there are.
        """
        await trio.lowlevel.checkpoint()
        connections = [connection for connection in self._serving if connection.is_open]
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(_send_or_miss, connection, message)
        return len(connections)

    async def start(self) -> None:
        """Listen (again), at the same address; does nothing if it listens.

        Raises:
            RuntimeError: The server's block is over or not yet entered.
        """
        if self._nursery is None:
            raise RuntimeError("the server runs inside its `async with` block only")
        await trio.lowlevel.checkpoint()
        if self._listener is None:
            self._listener = self._door.open()
            self._nursery.start_soon(self._accept, self._nursery, self._listener)

    async def stop(self, *, graceful: bool = False) -> None:
        """Stop to listen, and end all connections: an outage, until :meth:`start`.

        Args:
            graceful: Close them with 1001 and wait one second for the clients' answers, as at a
                deployment; otherwise reset them at once.
        """
        self._stop_listening()
        if graceful:
            with trio.move_on_after(GRACE):
                async with trio.open_nursery() as nursery:
                    for connection in self._serving:
                        nursery.start_soon(_dismiss, connection)
        self._stop()
        await trio.lowlevel.checkpoint()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _stop(self) -> None:
        self._stop_listening()
        for connection in self._serving:
            connection._cut()

    async def _accept(self, nursery: trio.Nursery, listener: Listener) -> None:
        with suppress(trio.ClosedResourceError):
            while True:
                attempt = await listener.wait_attempt()
                if listener.is_closed:
                    # It came in the last moment.
                    attempt.refuse()
                    return
                visit = self._admit()
                if visit.fault.kind is FaultKind.REFUSE:
                    attempt.refuse()
                    visit.ended_at = visit.opened_at
                    self._log.changed.unpark_all()
                else:
                    connection = ServerConnection(attempt.accept(), visit, self._log)
                    self._serving.add(connection)
                    nursery.start_soon(self._serve, connection)

    def _admit(self) -> Visit:
        fault = self._faults[min(self._count, len(self._faults) - 1)]
        self._count += 1
        visit = Visit(number=self._count, fault=fault, opened_at=trio.current_time())
        self._log.add_visit(visit)
        return visit

    async def _serve(self, connection: ServerConnection) -> None:
        try:
            await connection._serve(self._handler, self._subprotocols, self._ssl_context)
        finally:
            self._serving.discard(connection)


async def _send_or_miss(connection: ServerConnection, message: str | bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await connection.send(message)


async def _dismiss(connection: ServerConnection) -> None:
    if connection.is_open:
        with suppress(trio.BrokenResourceError):
            await connection._send_close(1001, "")
        await connection.wait_over()
