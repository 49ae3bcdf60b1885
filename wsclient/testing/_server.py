"""A server that plays faults, one connection after the other."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from contextlib import suppress

import trio

from wsclient.connection._endpoint import origin

from ._connection import GRACE, Handler, ServerConnection
from ._doors import Attempt, door_at
from ._faults import NONE, Fault, FaultKind
from ._listening import Listening
from ._network import MemoryNetwork
from ._visits import Log, Visit


async def listen(connection: ServerConnection) -> None:
    """The default handler: read, and record, until the client is done."""
    async for _ in connection:
        pass


async def echo(connection: ServerConnection) -> None:
    """A handler that sends every message back."""
    async for message in connection:
        await connection.send(message)


class FaultServer(Listening):
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
        super().__init__(door_at(network, host, port, secure=ssl_context is not None))
        self._log = Log()
        self._count = 0
        # In order: what happens to all of them happens in the same order each time.
        self._serving: dict[ServerConnection, None] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {list(self._faults)}>"

    # What it is.

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

    @property
    def open_connections(self) -> list[ServerConnection]:
        """The connections to which messages can be sent now, oldest first."""
        return [connection for connection in self._serving if connection.is_open]

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
        connections = self.open_connections
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(_send_or_miss, connection, message)
        return len(connections)

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

    def _cut_all(self) -> None:
        for connection in self._serving:
            connection._cut()

    async def _welcome(self, attempt: Attempt, nursery: trio.Nursery) -> None:
        visit = self._admit()
        if visit.fault.kind is FaultKind.REFUSE:
            attempt.refuse()
            visit.ended_at = visit.opened_at
            self._log.changed.unpark_all()
        else:
            connection = ServerConnection(attempt.accept(), visit, self._log)
            self._serving[connection] = None
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
            del self._serving[connection]


async def _send_or_miss(connection: ServerConnection, message: str | bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await connection.send(message)


async def _dismiss(connection: ServerConnection) -> None:
    if connection.is_open:
        with suppress(trio.BrokenResourceError):
            await connection._send_close(1001, "")
        await connection.wait_over()
