"""What was received and not taken yet, from all connections of a channel.

A :class:`~wsclient.connection.Mailbox` that knows what it holds:

- *marks* (:class:`~wsclient.Gap`, :class:`~wsclient.Overflow`) stand between the messages.  They
  need no room, and between two messages there is at most one of each kind, so that a channel that
  nobody reads from does not fill with them;
- an *overflow policy* may say that messages are dropped rather than waited for.  What is dropped is
  told twice: by a mark where it is missing, and to the observers;
- an *overrun*: while somebody waits for a pong, an acknowledgement or a reply, the reader must not
  stand still because nobody takes messages, for whoever should take them may be the one who waits
  (``await receipt.received()`` inside of ``async for``).  So it reads on beyond the bound, as far
  as ``inbox_overrun`` allows;
- what is *recognised* as the answer to something is matched here, before it could get stuck.

The loop that takes messages knows nothing of all this, and pays nothing for it: it is done when a
read brings a batch, and with the defaults that is two comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias, cast

import attrs
import trio

from wsclient.connection import Mailbox
from wsclient.errors import InboxFull
from wsclient.events import Gap, Overflow
from wsclient.options import Limits, OverflowPolicy
from wsclient.protocol import encoded_size

Message: TypeAlias = str | bytes
Mark: TypeAlias = Gap | Overflow

MESSAGE_COST: Final = 64
"""Bytes that a message costs beyond its own: without them, short messages could overrun an inbox by
many times its bound, and empty ones without an end."""


class Inbox(Mailbox[Message | Mark]):
    """The messages of a channel, and what is missing between them.

    Args:
        limits: How much may wait, and what happens then.
        overflowed: Told how many messages an overflow has cost so far: at its first one, and when
            it is over.
        failed: Told what the user's ``inbox_key`` has raised.
        size_of: The size of what it holds, in bytes.
        beside: An inbox that the same reader fills.
            Where one of the two is full it stops, and who waits for an answer waits in both.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        overflowed: Callable[[int], object] = lambda _: None,
        failed: Callable[[Exception], object] = lambda _: None,
        size_of: Callable[[Any], int] = encoded_size,
        beside: Inbox | None = None,
    ) -> None:
        super().__init__(limits.inbox_messages, limits.inbox_size)
        self._size_of = size_of
        self.overrun_size: float = limits.inbox_overrun
        self._policy = limits.inbox_overflow
        self._drops = self._policy in (OverflowPolicy.DROP_OLDEST, OverflowPolicy.DROP_NEWEST)
        self._is_plain = self._policy is OverflowPolicy.BLOCK
        self._key_of = limits.inbox_key
        # The keys of what was there at the last look: each message is asked for its key once.
        self._keys: dict[Message, Hashable] = {}
        self._overflowed = overflowed
        self._failed = failed
        self._dropped_lately = 0
        self._marks = 0
        # How much waited when the bound was passed; 0 where the last put was within it.
        self._edge: float = 0
        # Who waits for something that is read.
        self._waits: set[trio.CancelScope] = set()
        self._beside = beside
        # Those beside this one that were full when it was last looked.
        self._full: dict[Inbox, None] = {}
        if beside is not None:
            self._waits, self._room = beside._waits, beside._room
        self.recognise: Callable[[Message], bool] | None = None
        """Asked for each message before it gets in, in the reader's task: whether it is the answer
        to something, and now with whom it belongs.  It must not raise."""
        self.dropped: int = 0
        """Messages that were dropped."""
        self.marks_taken: int = 0
        """Marks that were taken."""
        self.stale: Stale = Stale()
        """Where a connection that is no longer the channel's puts what it still reads."""

    # What it holds.

    @property
    def messages(self) -> int:
        """Messages that wait, without the marks between them."""
        return self.batches.count - self._marks

    @property
    def messages_taken(self) -> int:
        """Messages that were taken."""
        return self.batches.taken - self.marks_taken

    @property
    def _is_within(self) -> bool:
        batches = self.batches
        return batches.count - self._marks <= self.max_items and batches.size <= self.max_size

    @property
    def _cost(self) -> int:
        return self.batches.size + self.batches.count * MESSAGE_COST

    @property
    def has_room(self) -> bool:
        """Whether the reader may read on."""
        # Asked at each read: where nothing is full, two looks are all.
        return (not self._edge or self._fits) and not (self._full and self._find_full())

    @property
    def _fits(self) -> bool:
        return (
            self._is_within
            or self._drops
            or self._ended
            or (len(self._waits) > 0 and self._cost <= self._edge + self.overrun_size)
        )

    def _find_full(self) -> Inbox | None:
        for inbox in tuple(self._full):
            if not inbox.has_room:
                return inbox
            del self._full[inbox]
        return None

    # The reader's side.

    def put(self, items: list[Any], size: int) -> None:
        """Add messages of ``size`` bytes together, and take over the list."""
        if self.recognise is not None:
            items, size = _without(items, size, self.recognise)
        if self._is_plain:
            super().put(items, size)
        elif not self._ended:
            self._put_each(items)
        if self._is_within:
            self._edge = 0
        elif not self._edge:
            self._edge = self._cost
        if self._beside is not None and self._edge:
            self._beside._full[self] = None

    def mark(self, mark: Mark) -> None:
        """Put a mark behind all that waits; with others that stand there it becomes one."""
        if self._ended:
            return
        marks = [mark]
        while self._marks and isinstance(self.batches.last(), Mark):
            marks.append(self._unmark(self.batches.pop_last()))
        for joined in _join(reversed(marks)):
            self._append(joined, 0)
            self._marks += 1

    async def wait_for_room(self) -> None:
        """Wait until there may be room; those who wait for an answer give up.

        Whoever calls it asks again: its connection may feed another inbox meanwhile.
        """
        if not self.has_room:
            for scope in self._waits:
                scope.cancel()
            await (self._find_full() or self).wait_taken()

    async def wait_taken(self) -> None:
        """Wait until so much was taken that there may be room; nobody gives up."""
        self._wake_at(self.max_items + self._marks)
        await self._room.park()

    def wake_readers(self) -> None:
        """Let readers look again whether they may read on."""
        self._room.unpark_all()

    @contextmanager
    def overrun(self) -> Iterator[None]:
        """While the block waits for what must be read, reading goes on beyond the bound.

        Raises:
            InboxFull: Out of the block, which is cancelled: even ``inbox_overrun`` is used up.
        """
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            self.wake_readers()
            try:
                yield
            finally:
                self._waits.discard(scope)
        if scope.cancelled_caught:
            raise InboxFull(self.messages, self.size)

    def end(self, *, discard: bool = False) -> None:
        """Let takers have what waits (or, with ``discard``, nothing), and then no more."""
        super().end(discard=discard)
        if discard:
            self._marks = 0
        self._tell_overflow()

    # The takers' side.

    def sort(self, items: Iterable[Message | Mark]) -> list[Message]:
        """The messages among what was taken just now."""
        return [cast("Message", item) for item in items if not self.is_mark(item)]

    def is_mark(self, item: Message | Mark) -> bool:
        """Whether what was taken just now is no message; to be asked once for each item."""
        if not isinstance(item, Mark):
            return False
        self._unmark(item)
        self.marks_taken += 1
        return True

    def _unmark(self, mark: Any) -> Mark:
        self._marks -= 1
        return cast("Mark", mark)

    # Policies.

    def _append(self, item: Message | Mark, size: int) -> None:
        self.batches.append([item], size)
        self._note_added(1)

    def _put_each(self, items: list[Message]) -> None:
        """Add messages one by one, each with its own size, and do what the policy says."""
        dropped = self.dropped
        match self._policy:
            case OverflowPolicy.DROP_NEWEST:
                for item in items:
                    self._put_or_drop(item, self._size_of(item))
            case OverflowPolicy.DROP_OLDEST:
                for item in items:
                    self._append(item, self._size_of(item))
                self._drop_oldest()
            case _:
                for item in items:
                    self._append(item, self._size_of(item))
                if not self._is_within:
                    self._conflate()
        if self.dropped > dropped:
            if not self._dropped_lately:
                self._overflowed(self.dropped - dropped)
            self._dropped_lately += self.dropped - dropped
        elif self.messages <= self.max_items / 2 and self.size <= self.max_size / 2:
            # Not as soon as one fits: a taker that is a little too slow would be told of each.
            self._tell_overflow()

    def _tell_overflow(self) -> None:
        if self._dropped_lately:
            dropped, self._dropped_lately = self._dropped_lately, 0
            self._overflowed(dropped)

    def _is_too_full(self) -> bool:
        # One message may be larger than the bound: then it waits alone, rather than never.
        return self.messages > 1 and not self._is_within

    def _put_or_drop(self, item: Message, size: int) -> None:
        if self.messages and not (
            self.messages < self.max_items and self.size + size <= self.max_size
        ):
            self.dropped += 1
            self.mark(Overflow(1))
        else:
            self._append(item, size)

    def _drop_oldest(self) -> None:
        if not self._is_too_full():
            return
        marks: list[Mark] = []
        while self._is_too_full() or isinstance(self.batches.first(), Mark):
            item: Message | Mark = self.batches.drop_first()
            if isinstance(item, Mark):
                marks.append(self._unmark(item))
            else:
                self.dropped += 1
                marks.append(Overflow(1))
        for mark in reversed(_join(marks)):
            self.batches.push_first(mark)
            self._marks += 1

    def _conflate(self) -> None:
        """Of messages with the same key, keep the newest."""
        items: list[Message | Mark] = []
        while self.batches.count:
            items.append(cast("Message | Mark", self.batches.drop_first()))
        keys: dict[Message, Hashable] = {}
        newest: set[Hashable] = set()
        kept: list[Message | Mark] = []
        for item in reversed(items):
            if not isinstance(item, Mark):
                key = keys[item] = self._keys[item] if item in self._keys else self._ask_key(item)
                if key in newest:
                    self.dropped += 1
                    kept.append(Overflow(1))
                    continue
                if key is not None:
                    newest.add(key)
            kept.append(item)
        self._keys = keys
        self._marks = 0
        for item in reversed(kept):
            if isinstance(item, Mark):
                self.mark(item)
            else:
                self._append(item, self._size_of(item))

    def _ask_key(self, item: Message) -> Hashable:
        assert self._key_of is not None
        try:
            key = self._key_of(item)
            hash(key)
        except Exception as error:  # A user's function may raise anything.
            self._failed(error)
            return None  # It replaces nothing, and nothing replaces it.
        return key


class Way(Protocol):
    """Where a connection puts what it has read."""

    @property
    def has_room(self) -> bool:
        """Whether the reader may read on."""

    def put(self, items: list[Any], size: int) -> None:
        """Add messages of ``size`` bytes together, and take over the list."""

    async def wait_for_room(self) -> None:
        """Wait until there may be room."""

    async def wait_wanted(self) -> None:
        """Wait until everything was taken, and more is wanted."""


class Inlet:
    """The way of one connection, where somebody listens to its messages alone.

    Args:
        way: Where they go.
        hear: Asked for each, in the reader's task: whether it goes no further.
    """

    def __init__(self, way: Way, hear: Callable[[Message], bool]) -> None:
        self._way = way
        self._hear = hear
        self.wait_for_room = way.wait_for_room
        self.wait_wanted = way.wait_wanted

    @property
    def has_room(self) -> bool:
        """Whether the reader may read on."""
        return self._way.has_room

    def put(self, items: list[Any], size: int) -> None:
        """Add messages of ``size`` bytes together."""
        self._way.put(*_without(items, size, self._hear))


class Stale:
    """Where messages go that nobody wants any more: they are counted."""

    has_room: bool = True

    def __init__(self) -> None:
        self.messages: int = 0

    def put(self, items: list[Any], size: int) -> None:
        """Count messages."""
        self.messages += len(items)

    async def wait_for_room(self) -> None:
        """There is always room."""
        await trio.lowlevel.checkpoint()

    async def wait_wanted(self) -> None:
        """They never are."""
        await trio.lowlevel.checkpoint()


def _without(
    items: list[Message], size: int, is_answer: Callable[[Message], bool]
) -> tuple[list[Message], int]:
    """What ``is_answer`` leaves, and its size."""
    rest = []
    for item in items:
        if is_answer(item):
            size -= encoded_size(item)
        else:
            rest.append(item)
    return rest, size


def _join(marks: Iterable[Mark]) -> list[Mark]:
    """The same with one of each kind at most; they stand next to each other, oldest first."""
    joined: dict[type, Mark] = {}
    for mark in marks:
        before = joined.get(type(mark))
        if isinstance(mark, Overflow) and isinstance(before, Overflow):
            mark = Overflow(before.messages + mark.messages)
        elif isinstance(mark, Gap) and isinstance(before, Gap):
            mark = attrs.evolve(
                mark,
                after=before.after,
                since=before.since,
                reason=before.reason,
                after_position=before.after_position,
            )
        joined[type(mark)] = mark
    return list(joined.values())
