"""A proxy that is the bad network between a client and any server.

A :class:`FaultServer` misbehaves as programs do; this misbehaves as paths do: slow, narrow, cut in
the middle of a frame, silent in one direction or in both.
It forwards bytes and understands none of them, so TLS goes through it, too.

Each direction of a connection has two tasks: one that reads, and one that lets what was read out
again when it is due.
News of an end (the end of a stream, a reset) travel like data, behind it: on a silent way they do
not arrive, either, which is what makes a connection half-open.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, cast

import attrs
import trio

from wsclient.connection import open_background_nursery, parse_url, stream_opener
from wsclient.connection._endpoint import origin

from ._doors import Attempt, door_at
from ._listening import Listening
from ._network import MemoryNetwork, MemoryStream
from ._streams import hang_up, reset

MEMORY_PROXY_HOST: Final = "proxy.test"
"""Where a proxy on an in-memory network listens, unless told otherwise."""

CAPACITY: Final = 2**20
"""Bytes that one direction of a connection holds; then its sender feels that it must wait."""

READ_SIZE: Final = 64 * 1024
"""Bytes read at a time."""

LAST_BYTES: Final = 1.0
"""Seconds that a receiver has to take what came before a cut (in memory, where a reset would
destroy it)."""


Stream: TypeAlias = trio.abc.HalfCloseableStream
"""What is opened and accepted here: TCP, or memory."""


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative: {value!r}")


def _positive(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{attribute.name} must be positive: {value!r}")


class _Data:
    """Prints what is not as usual, as it is written."""

    def __repr__(self) -> str:
        written = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in attrs.fields(type(self))  # type: ignore[arg-type]
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(written)})"


@attrs.frozen(kw_only=True, repr=False)
class Way(_Data):
    """What happens to the bytes of one direction."""

    latency: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds that a byte is on its way."""
    bandwidth: float | None = attrs.field(default=None, validator=_positive)
    """Bytes a second that go through; ``None`` is no bound."""
    slice_size: int | None = attrs.field(default=None, validator=_positive)
    """Bytes that arrive together at most; ``None`` is no bound.

    On a real socket the kernel may join again what has come apart.
    """
    cut_after: int | None = attrs.field(default=None, validator=_not_negative)
    """Bytes that go through on each connection; then it is cut. 0 cuts it as soon as it is there.

    So many arrive, if their receiver takes them within a second.
    """
    silent: bool = False
    """Whether nothing goes through, not even the news that an end has gone.

    The connection stays; what waits goes on once the way is not silent any more.
    """


AS_USUAL: Final = Way()


@attrs.frozen(kw_only=True, repr=False)
class Conditions(_Data):
    """What happens to a connection on its way through a :class:`FaultProxy`.

    ``Conditions(up=Way(latency=0.1))``, or the constants of :mod:`wsclient.testing`.
    """

    up: Way = AS_USUAL
    """From the client to the server."""
    down: Way = AS_USUAL
    """From the server to the client."""
    refuse: bool = False
    """Whether new connections are refused (in memory) or reset at once (on a real socket, where the
    kernel has accepted already: use ``FaultProxy.stop()`` for a refusal there)."""
    cut: Literal["reset", "end"] = attrs.field(
        default="reset", validator=attrs.validators.in_(["reset", "end"])
    )
    """How ``cut_after`` cuts: by a reset, or by the end of both streams."""

    @classmethod
    def both(
        cls,
        *,
        latency: float = 0.0,
        bandwidth: float | None = None,
        slice_size: int | None = None,
        silent: bool = False,
    ) -> Conditions:
        """The same in both directions: see :class:`Way`."""
        way = Way(latency=latency, bandwidth=bandwidth, slice_size=slice_size, silent=silent)
        return cls(up=way, down=way)


CLEAR: Final = Conditions()
"""Everything goes through at once."""

BLACKOUT: Final = Conditions.both(silent=True)
"""Connections stay, and nothing goes through: an unplugged cable, a firewall that forgot."""

HALF_OPEN_UP: Final = Conditions(up=Way(silent=True))
"""The client hears the server, and the server does not hear the client."""

HALF_OPEN_DOWN: Final = Conditions(down=Way(silent=True))
"""The server hears the client, and the client does not hear the server."""

REFUSING: Final = Conditions(refuse=True)
"""Nobody new gets through; connections that are there stay."""


class _News(Enum):
    """What can come behind the last byte."""

    END = "end"
    RESET = "reset"


@attrs.frozen
class _Item:
    due: float
    what: bytes | _News


class _Lane:
    """One direction of one connection."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.delivered = 0
        self.changed = trio.lowlevel.ParkingLot()
        self._items: deque[_Item] = deque()
        self._size = 0

    def change(self, way: Way) -> None:
        self.way = way
        self.changed.unpark_all()

    def add(self, what: bytes | _News) -> None:
        self._items.append(_Item(trio.current_time() + self.way.latency, what))
        self._size += 0 if isinstance(what, _News) else len(what)
        self.changed.unpark_all()

    async def wait_audible(self) -> None:
        while self.way.silent:
            await self.changed.park()

    async def read(self, source: Stream) -> None:
        """Let what comes from ``source`` onto the way, to its end."""
        try:
            while True:
                while self.way.silent or self._size >= CAPACITY:
                    await self.changed.park()
                data = await source.receive_some(READ_SIZE)
                self.add(bytes(data) or _News.END)
                if not data:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.add(_News.RESET)

    @property
    def is_due_for_cut(self) -> bool:
        return self.way.cut_after is not None and self.delivered >= self.way.cut_after

    async def deliver(self, sink: Stream) -> _News | None:
        """Let out at ``sink`` what is due.

        Returns:
            The news that has arrived; ``None`` if the connection is to be cut.

        Raises:
            trio.BrokenResourceError: Whoever should receive it is gone.
        """
        while not self.is_due_for_cut:
            if self.way.silent or not self._items:
                await self.changed.park()
                continue
            item = self._items[0]
            if item.due > trio.current_time():
                await trio.sleep_until(item.due)
                continue
            self._items.popleft()
            if isinstance(item.what, _News):
                if item.what is _News.END:
                    await sink.send_eof()
                return item.what
            await self._deliver_pieces(item.what, sink)
            self._size -= len(item.what)
            self.changed.unpark_all()
        if isinstance(sink, MemoryStream):
            with trio.move_on_after(LAST_BYTES):
                await sink.wait_received()
        return None

    async def _deliver_pieces(self, data: bytes, sink: Stream) -> None:
        rest = memoryview(data)
        while rest and not self.is_due_for_cut:
            await self.wait_audible()
            way = self.way
            left = math.inf if way.cut_after is None else way.cut_after - self.delivered
            # A tenth of a second's worth at a time.
            share = math.inf if way.bandwidth is None else max(1, int(way.bandwidth / 10))
            size = min(len(rest), left, share, way.slice_size or math.inf)
            piece, rest = rest[: int(size)], rest[int(size) :]
            if way.bandwidth is not None:
                await trio.sleep(len(piece) / way.bandwidth)
            await sink.send_all(piece)
            self.delivered += len(piece)
            if way.slice_size is not None and isinstance(sink, MemoryStream):
                await sink.wait_received()


class ProxiedConnection:
    """One connection through a :class:`FaultProxy`."""

    def __init__(self, number: int, conditions: Conditions) -> None:
        self.number: Final[int] = number
        """Counts the proxy's connections from 1."""
        self.opened_at: Final[float] = trio.current_time()
        """When it came (trio's clock, seconds)."""
        self.ended_at: float | None = None
        """When it ended; ``None`` while it lasts."""
        self.refused: bool = False
        """Whether it was refused: by the conditions, or by the server."""
        self._conditions = conditions
        self._up = _Lane(conditions.up)
        self._down = _Lane(conditions.down)
        self._streams: tuple[()] | tuple[Stream, Stream] = ()
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        state = "refused" if self.refused else "over" if self.is_over else "open"
        return (
            f"<{type(self).__name__} {self.number} {state}"
            f" up={self.bytes_up} down={self.bytes_down}>"
        )

    @property
    def conditions(self) -> Conditions:
        """What happens to it now."""
        return self._conditions

    @property
    def bytes_up(self) -> int:
        """Bytes that were let through to the server."""
        return self._up.delivered

    @property
    def bytes_down(self) -> int:
        """Bytes that were let through to the client."""
        return self._down.delivered

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    def change(self, conditions: Conditions) -> None:
        """From now on let this happen to it."""
        self._conditions = conditions
        self._up.change(conditions.up)
        self._down.change(conditions.down)

    def reset(self) -> None:
        """Reset both its ends at once: what is on the way is lost."""
        self._end(reset)

    def hang_up(self) -> None:
        """End both its streams at once: what was let out arrives, what is on the way is lost."""
        self._end(hang_up)

    def _end(self, how: Callable[[Stream], None]) -> None:
        if self.is_over:
            return
        self.ended_at = trio.current_time()
        for stream in self._streams:
            how(stream)
        self._scope.cancel()

    async def _serve(self, attempt: Attempt, host: str, port: int) -> None:
        try:
            with self._scope:
                # What opens a connection goes there and back.
                await self._up.wait_audible()
                await trio.sleep(self._up.way.latency + self._down.way.latency)
                await self._down.wait_audible()
                try:
                    if self._conditions.refuse:
                        raise ConnectionRefusedError
                    server = await (stream_opener.get() or trio.open_tcp_stream)(host, port)
                except OSError:
                    self.refused = True
                    return
                client = cast("Stream", attempt.accept())
                self._streams = (client, cast("Stream", server))
                await self._forward(*self._streams)
        finally:
            if not self._streams:
                attempt.refuse()
            self._end(reset)

    async def _forward(self, client: Stream, server: Stream) -> None:
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._up.read, client)
            nursery.start_soon(self._down.read, server)
            async with trio.open_nursery() as deliveries:
                deliveries.start_soon(self._deliver, self._up, server, self._down)
                deliveries.start_soon(self._deliver, self._down, client, self._up)
        # Both have said their last.
        self.hang_up()

    async def _deliver(self, lane: _Lane, sink: Stream, other: _Lane) -> None:
        try:
            news = await lane.deliver(sink)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The other end will hear of it if the way to it is open.
            other.add(_News.RESET)
            return
        if news is _News.RESET:
            self.reset()
        elif news is None:
            self._end(reset if self._conditions.cut == "reset" else hang_up)


class FaultProxy(Listening):
    """A proxy between a client and any server, whose faults are data and can change at any time.

    Args:
        target: The URL of the server, ``ws:`` or ``wss:``.
        conditions: What happens to the first connection, the second, …; the last one repeats.
            One value is for all, and nothing means that everything goes through.
        network: The in-memory network on which both are; ``None`` uses real sockets.
        host: Where to listen; ``None`` is ``proxy.test`` in memory and ``127.0.0.1`` otherwise.
        port: A port; ``None`` is the scheme's own (80 or 443) in memory, otherwise one that the
            system chooses.

    Resource handling:
        An ``async with`` block; at its end all connections are reset and all tasks end.
    """

    def __init__(
        self,
        target: str,
        conditions: Conditions | Iterable[Conditions] = (),
        *,
        network: MemoryNetwork | None = None,
        host: str | None = None,
        port: int | None = None,
    ) -> None:
        self._target = parse_url(target)
        self._is_secure = self._target.ssl_context is not False
        story = (conditions,) if isinstance(conditions, Conditions) else tuple(conditions)
        for each in story:
            if not isinstance(each, Conditions):
                raise TypeError(f"not Conditions: {each!r}")
        self._story = story or (CLEAR,)
        super().__init__(
            door_at(network, host, port, secure=self._is_secure, memory_host=MEMORY_PROXY_HOST)
        )
        self._changed = trio.lowlevel.ParkingLot()
        self.connections: list[ProxiedConnection] = []
        """All connections, in the order in which they came; those that were refused, too."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} to {self._target.endpoint}>"

    @property
    def url(self) -> str:
        """What the client connects to: the target's URL with the proxy's host and port."""
        return origin(self.host, self.port, secure=self._is_secure) + self._target.resource

    # What went through.

    @property
    def refused(self) -> int:
        """How many connections were refused, by the conditions or by the server."""
        return sum(connection.refused for connection in self.connections)

    @property
    def bytes_up(self) -> int:
        """Bytes that were let through to the server, on all connections together."""
        return sum(connection.bytes_up for connection in self.connections)

    @property
    def bytes_down(self) -> int:
        """Bytes that were let through to clients, on all connections together."""
        return sum(connection.bytes_down for connection in self.connections)

    async def wait_connections(self, count: int) -> ProxiedConnection:
        """Wait until so many connections have come; return the last of these."""
        await trio.lowlevel.checkpoint()
        while len(self.connections) < count:
            await self._changed.park()
        return self.connections[count - 1]

    # What it does.

    def change(self, conditions: Conditions) -> None:
        """From now on let this happen to all connections, those that are there and those to come.

        The story, if there was one, is over.
        """
        self._story = (conditions,)
        for connection in self.connections:
            if not connection.is_over:
                connection.change(conditions)

    def reset(self) -> None:
        """Reset all connections that are there; new ones can come."""
        for connection in self.connections:
            connection.reset()

    def hang_up(self) -> None:
        """End the streams of all connections that are there; new ones can come."""
        for connection in self.connections:
            connection.hang_up()

    def _cut_all(self) -> None:
        self.reset()

    async def _welcome(self, attempt: Attempt, nursery: trio.Nursery) -> None:
        number = len(self.connections) + 1
        conditions = self._story[min(number, len(self._story)) - 1]
        connection = ProxiedConnection(number, conditions)
        self.connections.append(connection)
        self._changed.unpark_all()
        nursery.start_soon(connection._serve, attempt, self._target.host, self._target.port)
