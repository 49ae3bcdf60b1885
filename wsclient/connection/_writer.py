"""The writer: the only one that writes to a connection's stream.

A caller's cancel scope must never enclose a write: half a frame may be on the wire, and whatever
followed it would be read as its other half.  So what is sent becomes a frame in one buffer, in one
step that nothing can interrupt, and the buffer leaves in one of two ways:

- *at once*, as far as the transport takes it without waiting: a message that stands alone need not
  wait for another task;
- *by the writer's task*, which takes all that has come together: right for a burst of messages, and
  the only one that waits for a transport.

What goes before what:

1. what is in the buffer: it has begun;
2. pongs and heartbeats: the peer waits for them;
3. messages, pings and pongs of the connection's own callers, in the order of their calls: where
   they cannot go into the buffer at once, they wait in a queue, and can be withdrawn;
4. messages from the *source* that a session has attached, pulled one by one as there is room:
   what was not pulled was certainly not written.

After :meth:`Writer.post_close`, what has not begun is not written any more; our close frame is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol, TypeVar

import trio

from wsclient.protocol import BURST_SIZE, ClientProtocol
from wsclient.protocol._machine import Input

from ._cancellation import is_cancelled
from ._pings import Ping
from ._signal import Signal
from ._transport import Transport

WRITE_SIZE: Final = BURST_SIZE
"""Bytes (64 KiB) in the buffer beyond which nothing joins them: what a cut may leave unknown."""

BURST: Final = 50e-6
"""Seconds since the last write within which a message is one of many: it then waits for company,
until the sender lets other tasks run, since a write costs as much as five messages."""

STRETCH: Final = 0.005
"""Seconds for which a sender may go on without a checkpoint, where each of its messages goes out at
once."""

BURST_LENGTH: Final = 32
"""Messages that join a burst before anyone looks at the clock again: each may have taken its sender
a while to make."""

_PONG_QUEUE_SIZE: Final = 256
"""Frames; a peer that floods us with pings gets the newest answers only (RFC 6455 §5.5.3)."""


T = TypeVar("T")


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

    __slots__ = ("_is_begun", "_payload", "_resolved", "_write", "is_withdrawn", "is_written")

    def __init__(self, write: Callable[[Any], None], payload: Any) -> None:
        self._write = write
        self._payload = payload
        self._is_begun = False
        self.is_withdrawn = False
        self.is_written = False
        self._resolved = trio.Event()

    def begin(self) -> None:
        """Add its frame to the buffer."""
        self._is_begun = True
        self._write(self._payload)

    def written(self) -> None:
        self.is_written = True
        self._resolved.set()

    def failed(self) -> None:
        self._resolved.set()

    async def wait(self) -> bool:
        """Wait until it is written (true) or never will be, as a whole (false).

        Cancelled before it has begun, it is never written; after, it is written all the same.
        """
        try:
            await self._resolved.wait()
        except trio.Cancelled:
            self.is_withdrawn = not self._is_begun
            if self.is_withdrawn:
                self._payload = None  # The queue keeps the entry, but not what it holds.
            raise
        return self.is_written


class Writer:
    """Writes to ``transport`` what is sent; see the top of this file."""

    def __init__(self, transport: Transport, protocol: ClientProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._buffer = protocol.outgoing
        # Most connections are idle most of the time, and an empty deque takes 760 bytes: the long
        # queues are made when there is something to put into them.
        self._pongs: list[bytes] = []
        self._pings: list[Ping] = []
        self._queue: deque[Posted] | None = None
        self.parts: AsyncIterator[str | bytes] | None = None
        """The parts of the message that has begun and is not whole: no other can begin."""
        self._part: Posted | None = None  # The next one of them.
        self.source: Source | None = None
        self._close: tuple[int, str | None] | None = None
        # What is in the buffer, and how many bytes will have been handed over with it.
        self._begun: deque[tuple[int, Outgoing | Posted | Ping]] | None = None
        self._handed_over = 0
        # How many bytes at the front of the buffer the transport has taken already.
        self._taken = 0
        self.progressed_at: float = trio.current_time()
        """When the transport last took something (trio's clock, seconds)."""
        self._flushed_at = self._rested_at = -math.inf
        self._start_task: Callable[[], object] | None = None
        self._is_awake = True
        self._is_over = False
        self.close_written: Signal = Signal()

    def begin(self, start_task: Callable[[], object]) -> None:
        """Write what waits, from now on.

        Args:
            start_task: Starts a task that does :meth:`run`; called when there is something to
                write that has to wait, and none runs.
        """
        self._start_task = start_task
        self._is_awake = False
        self._wake()

    def end(self) -> None:
        """Start no task any more."""
        self._start_task = None

    # What callers wait for.

    async def post(self, write: Callable[[T], None], payload: T) -> bool:
        """Let ``write`` add a frame to the buffer, after everything that was posted before.

        Returns at once where the transport takes bytes at once, and otherwise when the frame was
        handed over.
        Cancelled before it has begun, it is never written; after, it is written all the same.

        Returns:
            Whether it is on its way: false once the connection is closed.
        """
        now = trio.current_time()
        if now - self._rested_at > STRETCH or is_cancelled():
            self._rested_at = now
            await trio.lowlevel.checkpoint()
        if not self._accepts:
            return False
        if (
            self._transport.takes_at_once
            and self._waiting < WRITE_SIZE
            and not self._queue
            and self.parts is None
        ):
            write(payload)
            self._flush(now)
            if self._is_awake:
                # The next ones need not even be looked at here, until the writer runs.
                self._protocol.burst = BURST_LENGTH
            return True
        return await self._enqueue(Posted(write, payload))

    async def _enqueue(self, posted: Posted) -> bool:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(posted)
        self._wake()
        return await posted.wait()

    async def post_parts(self, parts: AsyncIterator[str | bytes]) -> bool:
        """Write one message in parts, each as it comes (RFC 6455 §5.4).

        Other messages wait until it is whole; pongs and heartbeats do not.
        Ended by an exception between its first part and its last, it leaves :attr:`parts` set: no
        message can follow it.

        Returns:
            Whether it was written: false once the connection is closed.
        """
        kind: type = str
        is_first = True
        async for part in parts:
            if not isinstance(part, (str, bytes)):
                raise TypeError(f"a part must be str or bytes, not {type(part).__name__}")
            if is_first:
                kind = type(part)
            elif not isinstance(part, kind):
                raise TypeError("the parts of a message must be all str or all bytes")
            if isinstance(part, str) and not part.isascii():
                part.encode()  # A lone surrogate is the caller's mistake, not the writer's.
            if not await self._post_part(parts, part, is_first=is_first, is_last=False):
                return False
            is_first = False
        # The end is a part of its own: nobody knew that there would be no more.
        return await self._post_part(parts, kind(), is_first=is_first, is_last=True)

    async def _post_part(
        self,
        parts: AsyncIterator[str | bytes],
        part: str | bytes,
        *,
        is_first: bool,
        is_last: bool,
    ) -> bool:
        def write(part: str | bytes) -> None:
            self._protocol.send_part(part, is_first=is_first, is_last=is_last)
            self.parts = None if is_last else parts

        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._accepts:
            return False
        posted = Posted(write, part)
        if is_first:
            self._protocol.burst = 0  # Nothing overtakes it.
            return await self._enqueue(posted)
        self._part = posted
        self._wake()
        return await posted.wait()

    # What nobody waits for.

    def end_burst(self) -> None:
        """Let what comes next go out at once: it may be an answer, and the first of many."""
        self._flushed_at = -math.inf

    def post_pong(self, payload: bytes) -> None:
        """Write a pong before any message that has not begun."""
        if len(self._pongs) == _PONG_QUEUE_SIZE:
            del self._pongs[0]
        self._pongs.append(payload)
        self.flush()

    def post_ping(self, ping: Ping) -> None:
        """Write a ping before any message that has not begun, and note when it was written."""
        self._pings.append(ping)
        self.flush()

    def post_close(self, code: int, reason: str | None) -> None:
        """Write a close frame, and nothing more: what has not begun never will be."""
        if self._close is None:
            self._close = (code, reason)
            self._protocol.burst = 0
            self._drop_queue()
            self._wake()

    def give_up(self) -> None:
        """Nothing more will be written: wake everyone who waits."""
        self._is_over = True
        self._protocol.burst = 0
        self._drop_queue()
        for _, begun in self._begun or ():
            if isinstance(begun, Posted):
                begun.failed()

    def _drop_queue(self) -> None:
        self.source = None
        if self._part is not None:
            self._part.failed()
            self._part = None
        for posted in self._queue or ():
            posted.failed()
        self._queue = None

    @property
    def _waiting(self) -> int:
        """Bytes in the buffer that the transport has not taken."""
        return len(self._buffer) - self._taken

    @property
    def _accepts(self) -> bool:
        return self._close is None and not self._is_over

    # How it leaves.

    def flush(self) -> None:
        """Write what waits: what can be at once, and the rest by the writer's task."""
        self._flush(trio.current_time())

    def _flush(self, now: float) -> None:
        if self._is_awake or self._is_over:
            return
        if self._transport.takes_at_once and now - self._flushed_at >= BURST:
            self._gather()
            try:
                self._took(self._transport.send_nowait(self._buffer, self._taken))
            except trio.BrokenResourceError:
                self._wake()  # It will meet the same error, where it can be told.
                return
            if not self._buffer:
                return
        self._wake()

    def _wake(self) -> None:
        if not self._is_awake and self._start_task is not None:
            self._is_awake = True
            self._start_task()

    async def run(self) -> None:
        """Write until nothing waits to be written.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: The transport is broken.
        """
        has_written = False
        while True:
            self._protocol.burst = 0
            self._gather()
            if not self._buffer:
                if self._has_closed:
                    self.close_written.set()
                else:
                    self._is_awake = False
                return
            if has_written:
                # A peer that reads as fast as we write leaves nothing to wait for: others run, too.
                await trio.lowlevel.checkpoint()
            taken = self._transport.send_nowait(self._buffer, self._taken)
            self._took(taken or await self._transport.send(self._buffer, self._taken))
            has_written = True

    async def write_close(self, code: int, reason: str | None) -> None:
        """Write what has begun and a close frame, in the place of a writer that was cancelled."""
        if self._transport.is_torn:
            return
        self._drop_queue()
        self._close = self._close or (code, reason)
        # Whoever flushes meanwhile leaves it to us: a transport that waits with bytes in hand must
        # not find the buffer empty.
        self._is_awake = True
        try:
            while True:
                # Behind a long message there is no room for the close frame at first.
                self._gather()
                if not self._buffer:
                    return
                self._took(await self._transport.send(self._buffer, self._taken))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    @property
    def _has_closed(self) -> bool:
        return self._close is not None and not self._protocol.allows(Input.SEND_CLOSE)

    def _gather(self) -> None:
        """Add to the buffer what waits outside it, as far as there is room."""
        protocol = self._protocol
        if self._waiting >= WRITE_SIZE:
            return
        if self._pongs or self._pings:
            # Once a close frame went either way there is nobody to answer, or to ask.
            if protocol.allows(Input.SEND_PONG):
                for payload in self._pongs:
                    protocol.send_pong(payload)
                for ping in self._pings:
                    protocol.send_ping(ping.payload)
                    self._note(ping)
                    ping.begun()
            self._pongs.clear()
            self._pings.clear()
        if self._close is not None:
            if protocol.allows(Input.SEND_CLOSE):
                protocol.send_close(*self._close)
            return
        while self._waiting < WRITE_SIZE:
            posted = self._next_posted()
            if posted is None:
                break
            posted.begin()
            self._note(posted)
        while self.source is not None and self.parts is None and self._waiting < WRITE_SIZE:
            outgoing = self.source.pull()
            if outgoing is None:
                break
            protocol.send_message(outgoing.message)
            self._note(outgoing)

    def _note(self, begun: Outgoing | Posted | Ping) -> None:
        """Let it be told when all that is in the buffer now was handed over."""
        if self._begun is None:
            self._begun = deque()
        self._begun.append((self._handed_over + self._waiting, begun))

    def _next_posted(self) -> Posted | None:
        if self.parts is not None:
            posted, self._part = self._part, None
            return None if posted is None or posted.is_withdrawn else posted
        while self._queue:
            posted = self._queue.popleft()
            if not posted.is_withdrawn:
                return posted
        return None

    def _took(self, size: int) -> None:
        """Note that the transport has taken ``size`` bytes of the buffer."""
        if not size:
            return
        self._taken += size
        if self._taken == len(self._buffer):
            self._buffer.clear()
            self._taken = 0
        elif self._taken >= WRITE_SIZE and self._taken * 2 > len(self._buffer):
            # Not each time: what is left moves to the front.
            del self._buffer[: self._taken]
            self._taken = 0
        self._handed_over += size
        self.progressed_at = self._flushed_at = trio.current_time()
        while self._begun and self._begun[0][0] <= self._handed_over:
            self._begun.popleft()[1].written()
