"""Recording what a channel receives, and playing it again.

The loop must not wait for a disk, nor for JSON.  So what comes is put on a list in the reader's
task, as the batches in which it came, with the time; a task takes what has gathered and has a
thread encode, redact and write it.  What waits is bounded: where the disk cannot follow, messages
are missing in the journal, which says how many, and the session feels nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import attrs
import trio

from wsclient import events
from wsclient._discretion import forget_all_locals
from wsclient.connection import open_background_nursery
from wsclient.events import Event, Gap, Overflow
from wsclient.options import file_path

from ._clock import WallClock, wall_clock
from ._inbox import MESSAGE_COST, Message, Way
from ._records import JournalFiles, JournalRecord, encode, read_records

LINGER: Final = 0.1
"""Seconds in which records gather before they are written: as much as a crash may cost."""

RETRY_AFTER: Final = 1.0
"""Seconds after which a disk that failed is tried again."""

MAX_WAITING: Final = 16 * 2**20
"""Bytes that may wait to be written: the inbox' own bound, for a disk that is as slow."""

LAST_WRITE: Final = 0.5
"""Seconds that the last records may take to be written when the channel ends."""

MIN_SIZE: Final = 4096


def _at_least(minimum: int) -> Callable[[Any, attrs.Attribute[int], object], None]:
    def check(_: Any, field: attrs.Attribute[int], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{field.name} must be int, not {type(value).__name__}")
        if value < minimum:
            raise ValueError(f"{field.name} must be at least {minimum}, not {value!r}")

    return check


@attrs.frozen
class Journal:
    """Records on disk what a channel receives: ``open_channel(…, journal=Journal("feed"))``.

    Every message is in it, and every gap, each with its time and epoch: also what goes to feeds,
    replies, acknowledgements, and what has come before (``dedupe``).
    It does not hold what an ``on_connect`` hook reads itself, nor the answers to application pings.

    It is bounded: ``files`` of ``max_size`` each, of which the oldest is removed.
    It never stops or slows the session: writing happens in a thread, and a disk that is full or
    slow is told as :class:`~wsclient.JournalFailed`.
    A crash of the process may cost the last tenth of a second, one of the machine more.

    One channel at a time writes to it.
    Messages may hold secrets: its files have mode 0600, and ``redact`` may take out what should not
    be kept.
    """

    path: str = attrs.field(converter=file_path)
    """The file; older ones have ``.1``, ``.2``… behind its name.  The folder must exist."""
    max_size: int = attrs.field(default=16 * 2**20, kw_only=True, validator=_at_least(MIN_SIZE))
    """Bytes of each file: 16 MiB is what an editor opens.  A message that does not fit is not
    recorded."""
    files: int = attrs.field(default=4, kw_only=True, validator=_at_least(1))
    """How many files there are at most."""
    redact: Callable[[str | bytes], str | bytes | None] | None = attrs.field(
        default=None, kw_only=True
    )
    """Called with each message before it is written, in a thread: gives what to write instead, or
    ``None`` to leave it out.  What it raises on is not written."""

    @redact.validator
    def _check_redact(self, _: object, redact: object) -> None:
        if redact is not None and not callable(redact):
            raise TypeError(f"redact must be a function, not {type(redact).__name__}")

    def records(self) -> Iterator[JournalRecord]:
        """Everything that the files hold, oldest first; also while a channel writes to them.

        A line that is torn or damaged is an :class:`Overflow` of one message, or, at the very end,
        nothing.

        Raises:
            FileNotFoundError: There is no such journal.
            ValueError: A file is no journal, or one of a later version.
            OSError: A file cannot be read.
        """
        return read_records(self.path)

    def replay(self, *, speed: float = math.inf) -> Replay:
        """Give again what was received: ``async for item in journal.replay()``.

        Messages and gaps, in the order in which they came, and an :class:`Overflow` where messages
        could not be recorded.

        Args:
            speed: 1 takes the time that it took, by trio's clock, 60 a minute for an hour;
                infinity does not wait.

        Raises:
            TypeError, ValueError: ``speed`` is no number above 0.
        """
        if isinstance(speed, bool) or not isinstance(speed, (int, float)):
            raise TypeError(f"speed must be a number, not {type(speed).__name__}")
        if not speed > 0:
            raise ValueError(f"speed must be above 0, not {speed!r}")
        return Replay(self.records(), speed)


class Replay:
    """An iterator over what a journal holds, at its pace; ends with the journal.

    Raises what :meth:`Journal.records` raises.
    """

    def __init__(self, records: Iterator[JournalRecord], speed: float) -> None:
        self._records = records
        self._speed = speed
        self._began: tuple[float, float] | None = None
        self._next: JournalRecord | None = None

    def __aiter__(self) -> Replay:
        return self

    async def __anext__(self) -> str | bytes | Gap | Overflow:
        """The next message, gap or overflow; cancelling this loses nothing."""
        # Kept until its time has come: whoever gives up waiting for it has not taken it.
        self._next = self._next or next(self._records, None)
        if self._next is None:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        await self._wait_until(self._next.time)
        record, self._next = self._next, None
        return record.item

    async def _wait_until(self, time: float) -> None:
        now = trio.current_time()
        if self._began is None:
            self._began = (now, time)
        began, first = self._began
        # A wall clock that was set back is no reason to wait.
        await trio.sleep_until(max(now, began + (time - first) / self._speed))


@attrs.define
class _Batch:
    """What came at one moment; or a gap; or how many messages found no room."""

    time: float
    epoch: int
    messages: Sequence[Message] = ()
    gap: Gap | None = None
    lost: int = 0


class Recorder:
    """Writes a journal for one channel.

    Args:
        journal: Where to, and how.
        channel: The channel's name.
        now: The wall clock.
        run_sync: Runs what waits for the disk.
    """

    def __init__(
        self,
        journal: Journal,
        channel: str,
        *,
        now: WallClock = wall_clock,
        run_sync: Callable[..., Awaitable[Any]] = trio.to_thread.run_sync,
    ) -> None:
        self._journal = journal
        self._channel = channel
        self._observe: Callable[[Event], object] = lambda _: None
        self._now = now
        self._run_sync = run_sync
        # Of its own: a disk that hangs must not take the threads of name lookups.
        self._limiter = trio.CapacityLimiter(1)
        self._waiting: list[_Batch] = []
        self._stirred = trio.Event()
        # Bytes that wait, here and in the thread's hands.
        self._size = 0
        self._cause: str | None = None
        self._is_failing = False
        # The thread's own.
        self._files = JournalFiles(journal.path, journal.max_size, journal.files)
        self._lines: list[bytes] = []
        self._missing = 0
        self._told_missing = b"", 0
        self._time = 0.0
        self._redact_failed = False

    # What comes.

    def way_into(self, way: Way, epoch: int) -> Way:
        """The way of the connection of that number into ``way``, on which it is recorded."""
        return RecordedWay(self, way, epoch)

    def put(self, messages: Iterable[Message], count: int, size: int, epoch: int) -> None:
        """Record messages, ``size`` bytes together."""
        cost = size + count * MESSAGE_COST
        if self._size + cost > MAX_WAITING:
            self._lose(count, epoch)
        elif count:
            self._size += cost
            self._add_batch(_Batch(self._now(), epoch, tuple(messages)))

    def beside(self, observe: Callable[[Event], object]) -> Callable[[Event], None]:
        """What tells ``observe`` of an event, and records the gaps among them.

        From now on ``observe`` is told how the journal is, too.
        """
        self._observe = observe

        def told(event: Event) -> None:
            if isinstance(event, events.GapDetected):
                self._put_gap(event.gap)
            observe(event)

        return told

    def _put_gap(self, gap: Gap) -> None:
        # A server that leaves positions out can make as many as there are messages.
        if self._size + MESSAGE_COST > MAX_WAITING:
            self._lose(1, gap.before)
        else:
            self._size += MESSAGE_COST
            self._add_batch(_Batch(self._now(), gap.before, gap=gap))

    def _lose(self, messages: int, epoch: int) -> None:
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.lost:
            last.lost += messages
        else:
            self._add_batch(_Batch(self._now(), epoch, lost=messages))
        # If it has failed, that is why, and is told already.
        if not self._is_failing:
            self._tell("the disk is too slow: messages are missing in the journal")

    def _add_batch(self, batch: _Batch) -> None:
        self._waiting.append(batch)
        self._stirred.set()

    # The disk.

    async def run_beside(self, run: Callable[[], Awaitable[None]]) -> None:
        """Write while ``run`` runs, and what is left when it has ended."""
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._write_on)
                await run()
        finally:
            with trio.move_on_after(LAST_WRITE, shield=True) as scope:
                await self._write()
                await self._in_thread(self._files.close)
            if scope.cancelled_caught:
                self._tell("the disk did not answer in time: the last messages may be missing")

    async def _write_on(self) -> None:
        while True:
            await self._stirred.wait()
            await trio.sleep(RETRY_AFTER if self._is_failing else LINGER)
            self._stirred = trio.Event()
            await self._write()

    async def _write(self) -> None:
        batches, self._waiting = self._waiting, []
        size = self._size
        error, failed = await self._in_thread(self._work, batches)
        if failed is not None:
            self._observe(
                events.HandlerFailed(
                    channel=self._channel,
                    handler=getattr(
                        self._journal.redact,
                        "__qualname__",
                        type(self._journal.redact).__qualname__,
                    ),
                    subject="a message for the journal",
                    error=failed,
                )
            )
        self._is_failing = error is not None
        if error is None:
            self._size -= size
            self._tell(None)
        else:
            self._stirred.set()
            self._tell(f"{error.filename or self._journal.path}: {error.strerror}")

    def _tell(self, cause: str | None) -> None:
        if cause == self._cause:
            return
        self._cause = cause
        self._observe(
            events.JournalRecovered(channel=self._channel)
            if cause is None
            else events.JournalFailed(channel=self._channel, cause=cause)
        )

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._run_sync(function, *args, abandon_on_cancel=True, limiter=self._limiter)

    # In the thread.

    def _work(self, batches: list[_Batch]) -> tuple[OSError | None, Exception | None]:
        """Encode and write; what could not be written is kept for the next time.

        Returns:
            What the disk said, and what the user's ``redact`` has raised.
        """
        failed = self._encode(batches)
        try:
            self._files.write(self._lines, self._time)
        except OSError as error:
            return error, failed
        return None, failed

    def _encode(self, batches: list[_Batch]) -> Exception | None:
        failed: Exception | None = None
        for batch in batches:
            self._time = batch.time
            place: dict[str, Any] = {"time": batch.time, "epoch": batch.epoch}
            self._missing += batch.lost
            if batch.gap is not None:
                self._add(JournalRecord(item=batch.gap, **place))
            for message in batch.messages:
                try:
                    item = self._redacted(message)
                except Exception as error:  # A user's function may raise anything.
                    # What was to be redacted is in there.
                    forget_all_locals(error)
                    failed = error
                    self._missing += 1
                else:
                    if item is not None:
                        self._add(JournalRecord(item=item, **place))
            self._add_missing(**place)
        is_news = failed is not None and not self._redact_failed
        if batches:
            self._redact_failed = failed is not None
        return failed if is_news else None

    def _add(self, record: JournalRecord) -> None:
        self._add_missing(record.time, record.epoch)
        self._lines.append(encode(record))

    def _add_missing(self, time: float, epoch: int) -> None:
        if self._missing:
            line, told = self._told_missing
            if self._lines and self._lines[-1] is line:
                # A disk that stays full must not make a line each time that it is tried.
                self._lines.pop()
                self._missing += told
            missing, self._missing = self._missing, 0
            line = encode(JournalRecord(time=time, epoch=epoch, item=Overflow(missing)))
            self._lines.append(line)
            self._told_missing = line, missing

    def _redacted(self, message: Message) -> Message | None:
        if self._journal.redact is None:
            return message
        item: object = self._journal.redact(message)
        if item is not None and not isinstance(item, (str, bytes)):
            raise TypeError(f"redact must return str, bytes or None, not {type(item).__name__}")
        return item


class RecordedWay:
    """The way of one connection, on which its messages are recorded."""

    def __init__(self, recorder: Recorder, way: Way, epoch: int) -> None:
        self._recorder = recorder
        self._way = way
        self._epoch = epoch
        self.wait_for_room = way.wait_for_room
        self.wait_wanted = way.wait_wanted

    @property
    def has_room(self) -> bool:
        """Whether the reader may read on."""
        return self._way.has_room

    def put(self, items: list[Any], size: int) -> None:
        """Add messages of ``size`` bytes together."""
        # Before: whoever gets the list may empty it.
        self._recorder.put(items, len(items), size, self._epoch)
        self._way.put(items, size)
