"""The writer: the only one that writes to a connection's stream.

Why a task of its own?  A caller's cancel scope must never enclose a write: half a frame may be on
the wire, and whatever followed it would be read as its other half.  So callers leave what they
want written in a queue, and the writer takes all that waits and writes it at once:

1. pongs and heartbeats, ahead of everything: the peer waits for them;
2. messages, pings and pongs of the connection's own callers, in the order of their calls;
3. messages from the *source* that a session has attached, pulled one by one: what the writer has
   not pulled was certainly not written.

After :meth:`Writer.post_close`, what has not begun is not written any more; our close frame is.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

import trio

from wsclient.protocol import ClientProtocol
from wsclient.protocol._machine import Input

from ._pings import Ping

WRITE_SIZE: Final = 64 * 1024
"""Bytes after which no further message joins a write: one write is lost or delivered as a whole,
as far as anyone can tell, and this bounds what a cut leaves unknown."""

SLICE_SIZE: Final = 16 * 1024
"""Bytes that are handed to the transport at a time: each time shows that the peer still reads."""

_PONG_QUEUE_SIZE: Final = 256
"""Frames; a peer that floods us with pings gets the newest answers only (RFC 6455 §5.5.3)."""


class Outgoing(Protocol):
    """A message on its way out."""

    @property
    def message(self) -> str | bytes:
        """What to write."""

    def written(self) -> None:
        """Called when its last byte was handed to the transport."""


class Source(Protocol):
    """Where the writer pulls messages from when it has nothing else to write."""

    def pull(self) -> Outgoing | None:
        """The next message, from now on being written; ``None`` if none waits."""


class Posted:
    """Something that a caller waits for to be written."""

    __slots__ = ("_resolved", "begun", "is_written", "kind", "payload", "withdrawn")

    def __init__(self, kind: Input, payload: str | bytes) -> None:
        self.kind = kind
        self.payload = payload
        self.begun = False
        self.withdrawn = False
        self.is_written = False
        self._resolved = trio.Event()

    @property
    def message(self) -> str | bytes:
        return self.payload

    def written(self) -> None:
        self.is_written = True
        self._resolved.set()

    def failed(self) -> None:
        self._resolved.set()

    async def wait(self) -> bool:
        """Wait until it is written (true) or never will be, as a whole (false).

        Cancelled before its first byte, it is never written; after, it is written all the same.
        """
        try:
            await self._resolved.wait()
        except trio.Cancelled:
            self.withdrawn = not self.begun
            if self.withdrawn:
                self.payload = b""  # The queue keeps the entry, but not what it holds.
            raise
        return self.is_written


class Writer:
    """Writes to ``stream`` what is posted; see the top of this file."""

    def __init__(self, stream: trio.abc.Stream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._pongs: deque[bytes] = deque(maxlen=_PONG_QUEUE_SIZE)
        self._pings: deque[Ping] = deque()
        self._pinging: list[Ping] = []
        self.progressed_at: float = trio.current_time()
        """When the transport last took something (trio's clock, seconds)."""
        self._queue: deque[Posted] = deque()
        self._writing: list[Outgoing] = []
        self._close: tuple[int, str | None] | None = None
        self._work = trio.lowlevel.ParkingLot()
        self.source: Source | None = None
        self.close_written = trio.Event()
        self.is_broken = False
        """Whether a write failed or was cut short: nothing may follow it."""

    def wake(self) -> None:
        """There is something to write."""
        self._work.unpark()

    def post(self, posted: Posted) -> None:
        """Write this after everything posted before."""
        self._queue.append(posted)
        self.wake()

    def post_pong(self, payload: bytes) -> None:
        """Write a pong before any message that has not begun."""
        self._pongs.append(payload)
        self.wake()

    def post_ping(self, ping: Ping) -> None:
        """Write a ping before any message that has not begun, and note when it was written."""
        self._pings.append(ping)
        self.wake()

    def post_close(self, code: int, reason: str | None) -> None:
        """Write a close frame, and nothing more: what has not begun never will be."""
        if self._close is None:
            self._close = (code, reason)
            self.source = None
            self._fail_queue()
            self.wake()

    def give_up(self) -> None:
        """Nothing more will be written: wake everyone who waits."""
        self.source = None
        self._fail_queue()
        for outgoing in self._writing:
            if isinstance(outgoing, Posted):
                outgoing.failed()

    def _fail_queue(self) -> None:
        for posted in self._queue:
            posted.failed()
        self._queue.clear()

    async def run(self) -> None:
        """Write until our close frame is written, the stream breaks, or cancelled."""
        while not self.close_written.is_set():
            data, closes = self._gather()
            if not data:
                await self._work.park()
                continue
            # Whatever interrupts the write, cancellation too, leaves half a frame on the wire.
            self.is_broken = True
            try:
                await self._send(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            self.is_broken = False
            for ping in self._pinging:
                ping.written_at = self.progressed_at
            self._pinging.clear()
            for outgoing in self._writing:
                outgoing.written()
            self._writing.clear()
            if closes:
                self.close_written.set()

    async def _send(self, data: bytes) -> None:
        if len(data) <= SLICE_SIZE:
            await self._stream.send_all(data)
            self.progressed_at = trio.current_time()
            return
        view = memoryview(data)
        for start in range(0, len(data), SLICE_SIZE):
            await self._stream.send_all(view[start : start + SLICE_SIZE])
            self.progressed_at = trio.current_time()

    async def write_close(self, code: int, reason: str | None) -> None:
        """Write a close frame in the place of a writer that was cancelled while idle."""
        if self.is_broken or not self._protocol.allows(Input.SEND_CLOSE):
            return
        data = self._protocol.send_close(*(self._close or (code, reason)))
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def _gather(self) -> tuple[bytes, bool]:
        """All that waits, as one buffer; whether our close frame is its end."""
        frames: list[bytes] = []
        protocol = self._protocol
        # Once a close frame went either way there is nobody to answer, or to ask.
        if protocol.allows(Input.SEND_PONG):
            frames += [protocol.send_pong(payload) for payload in self._pongs]
            frames += [protocol.send_ping(ping.payload) for ping in self._pings]
            self._pinging += self._pings
        self._pongs.clear()
        self._pings.clear()
        if self._close is not None:
            if protocol.allows(Input.SEND_CLOSE):
                frames.append(protocol.send_close(*self._close))
            return b"".join(frames), True
        size = 0
        while size < WRITE_SIZE and (frame := self._next()) is not None:
            frames.append(frame)
            size += len(frame)
        return b"".join(frames), False

    def _next(self) -> bytes | None:
        while self._queue:
            posted = self._queue.popleft()
            if not posted.withdrawn:
                posted.begun = True
                self._writing.append(posted)
                return _frame(self._protocol, posted.kind, posted.payload)
        if self.source is None or (outgoing := self.source.pull()) is None:
            return None
        self._writing.append(outgoing)
        return self._protocol.send_message(outgoing.message)


def _frame(protocol: ClientProtocol, kind: Input, payload: str | bytes) -> bytes:
    if kind is Input.SEND_MESSAGE:
        return protocol.send_message(payload)
    assert isinstance(payload, bytes)
    return protocol.send_ping(payload) if kind is Input.SEND_PING else protocol.send_pong(payload)
