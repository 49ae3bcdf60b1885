"""Where received messages wait for whoever wants them.

The unit that comes in is the batch that one read brought, which is never refused: the reader asks
for room *before* it reads again.  The unit that goes out is an item, or all there is.

Taking an item that waits is the innermost step of ``async for message in channel``, and costs less
than a checkpoint by two orders of magnitude.  So :meth:`Mailbox.poll` takes it without one, as long
as nobody is hurt: the taker is not cancelled, and other tasks have run a short while ago.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar, cast

import trio

from ._batches import Batches
from ._cancellation import is_cancelled
from ._signal import Lot

T = TypeVar("T")

_STRETCH: Final = 0.01
"""Seconds that a taker may run, about, before it lets other tasks run: they would notice 50 ms."""

_GROWTH: Final = 8
"""How many times as large a budget may be as the last one: a taker may become slower, too."""

_MAX_BUDGET: Final = 1024
"""Items: where a taker needs a µs for each, a checkpoint is a hundredth of it."""


class Mailbox(Generic[T]):
    """A queue from one reader to any number of takers, bounded by count and by size.

    Nothing is lost when a taker is cancelled: an item leaves the queue in the same step in which
    its taker returns.

    Args:
        max_items: Items that may wait before :meth:`wait_for_room` waits.
        max_size: Likewise, in bytes.
    """

    def __init__(self, max_items: float, max_size: float = math.inf) -> None:
        self.max_items = max_items
        self.max_size = max_size
        self.batches: Batches = Batches(self._took)
        """What waits: for a :class:`MessageIterator`."""
        self._ended = False
        self._takers = Lot()
        self._room = Lot()
        # How many items the present budget was, and since when it is being spent.
        self._budget = 1
        self._budget_since = -math.inf
        self.wait: Callable[[], Awaitable[None]] | None = None
        """What a taker awaits that finds nothing, if it shall not :meth:`park` at once."""
        self.peak: int = 0
        """The largest number of items that have waited."""

    def __len__(self) -> int:
        return self.batches.count

    @property
    def size(self) -> int:
        """Bytes that wait; those of a batch count until its last item is taken."""
        return self.batches.size

    @property
    def taken(self) -> int:
        """Items that were taken."""
        return self.batches.taken

    @property
    def has_room(self) -> bool:
        """Whether the reader may read on."""
        return self._ended or (len(self) <= self.max_items and self.size <= self.max_size)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    @property
    def tasks_waiting(self) -> int:
        """Tasks that wait for an item."""
        return len(self._takers)

    # The reader's side.

    def put(self, items: list[T], size: int) -> None:
        """Add items of ``size`` bytes together, and take over the list.

        After :meth:`end` they are dropped.
        """
        if self._ended or not items:
            return
        self.batches.append(items, size)
        self._note_added(len(items))

    def bring(self, items: list[T], size: int) -> None:
        """As :meth:`put`, by a taker that takes the first of them in this same step."""
        if self._ended or not items:
            return
        self.batches.append(items, size)
        self._note_added(len(items) - 1)

    def _note_added(self, items: int) -> None:
        """Wake as many takers as there are new items for."""
        count = self.batches.count
        if count > self.peak:
            self.peak = count
        if items and self._takers:
            self._takers.unpark(items)

    async def wait_for_room(self) -> None:
        """Wait until the takers have made room; return at once if there is some."""
        while not self.has_room:
            self._wake_at(self.max_items)
            await self._room.park()

    async def wait_empty(self) -> None:
        """Wait until the takers have taken everything."""
        while len(self):
            self._wake_at(0)
            await self._room.park()

    async def wait_wanted(self) -> None:
        """Wait until everything was taken, and a taker has come back for more."""
        while (len(self) or not self._takers) and not self._ended:
            await self._room.park()

    def _wake_at(self, items: float) -> None:
        # Of the two that may wait, whoever waits for more items is woken, and looks for itself.
        self.batches.wake_at = max(self.batches.wake_at, int(min(items, sys.maxsize)))

    def end(self, *, discard: bool = False) -> None:
        """Let takers have what waits (or, with ``discard``, nothing), and then no more."""
        self._ended = True
        if discard:
            self.batches.clear()
        self._takers.unpark_all()
        self._room.unpark_all()

    # The takers' side.

    def poll(self) -> T | None:
        """The next item, if one waits and may be taken without a checkpoint; else ``None``."""
        if self.batches.budget and len(self) and not is_cancelled():
            self.batches.budget -= 1
            return cast("T", self.batches.pop())
        return None

    def peek(self) -> T | None:
        """The next item, which is left where it is; ``None`` if none waits."""
        return cast("T", self.batches.first()) if len(self) else None

    async def take(self) -> T:
        """Wait for the next item.

        Always a point of cancellation; a checkpoint where it has to wait, or when other tasks
        should run.

        Raises:
            trio.EndOfChannel: Nothing waits, and nothing more will come.
        """
        item = self.poll()
        if item is None:
            await self._rest()
            item = cast("T", self.batches.pop())
        return item

    async def take_many(self) -> list[T]:
        """Wait until something is there, and take all of it: at least one item.

        Raises:
            trio.EndOfChannel: Nothing waits, and nothing more will come.
        """
        await self._rest()
        return self.batches.pop_all()

    def take_all(self) -> tuple[list[T], int]:
        """Take all there is, perhaps nothing; and its size in bytes."""
        size = self.size
        return self.batches.pop_all(), size

    def take_nowait(self) -> T:
        """Take the next item.

        Raises:
            trio.WouldBlock: Nothing waits.
            trio.EndOfChannel: Nothing waits, and nothing more will come.
        """
        if not len(self):
            raise trio.EndOfChannel if self._ended else trio.WouldBlock
        return cast("T", self.batches.pop())

    def _took(self) -> None:
        """Wake whoever waits for room; called where :meth:`_wake_at` has asked for it."""
        if self.has_room or not len(self):
            self.batches.wake_at = -1
            self._room.unpark_all()

    def park(self) -> Awaitable[None]:
        """Wait for the next item that no taker before us takes, or the end."""
        return self._takers.park()

    async def _rest(self) -> None:
        """Let other tasks run, until there is an item."""
        if len(self) or self._ended:
            self._adapt_budget()
            await trio.lowlevel.checkpoint()
        # In a loop: another taker may have been faster than the one that was woken.
        while not len(self) and not self._ended:
            self._room.unpark_all()
            await (self.park() if self.wait is None else self.wait())
        if not len(self):
            raise trio.EndOfChannel
        self.batches.budget = self._budget - 1  # The next one is taken at once.
        self._budget_since = trio.current_time()

    def _adapt_budget(self) -> None:
        """Make the next stretch about as long as it should be, judging by this one."""
        spent = trio.current_time() - self._budget_since
        taken = self._budget - self.batches.budget
        if taken and spent < math.inf:
            fitting = taken * _STRETCH / spent if spent > 0 else _MAX_BUDGET
            self._budget = max(1, min(_MAX_BUDGET, self._budget * _GROWTH, int(fitting)))
