"""Where received messages wait for whoever wants them.

The unit that comes in is the batch that one read brought, which is never refused: the reader asks
for room *before* it reads again.  The unit that goes out is a message, or all there is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

# Messages between two full checkpoints of a loop that never has to wait: a checkpoint costs about
# 9 µs, as much as everything else that is done for a message; 64 of them stay well below the time
# that other tasks would notice.
_CHECKPOINT_EVERY = 64


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
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._ended = False
        self._takers = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._until_checkpoint = 0
        self.peak: int = 0
        """The largest number of items that have waited."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    @property
    def has_room(self) -> bool:
        """Whether the reader may read on."""
        return self._ended or (len(self._items) <= self.max_items and self._size <= self.max_size)

    @property
    def tasks_waiting(self) -> int:
        """Tasks that wait for an item."""
        return len(self._takers)

    # The reader's side.

    def put(self, items: Sequence[tuple[T, int]]) -> None:
        """Add items, each with its size in bytes; after :meth:`end` they are dropped."""
        if self._ended or not items:
            return
        self._items.extend(items)
        self.peak = max(self.peak, len(self._items))
        self._size += sum(size for _, size in items)
        self._takers.unpark(count=len(items))

    def amend(self, amend: Callable[[T], T | None]) -> bool:
        """Let ``amend`` replace the newest item that waits, if it gives another; whether it did."""
        if self._ended or not self._items:
            return False
        item, size = self._items[-1]
        amended = amend(item)
        if amended is None:
            return False
        self._items[-1] = (amended, size)
        return True

    async def wait_for_room(self) -> None:
        """Wait until the takers have made room; return at once if there is some."""
        while not self.has_room:
            await self._room.park()

    async def wait_empty(self) -> None:
        """Wait until the takers have taken everything."""
        while self._items:
            await self._room.park()

    def end(self, *, discard: bool = False) -> None:
        """Let takers have what waits (or, with ``discard``, nothing), and then no more."""
        self._ended = True
        if discard:
            self._items.clear()
            self._size = 0
        self._takers.unpark_all()
        self._room.unpark_all()

    # The takers' side.

    async def take(self) -> T:
        """Wait for the next item.

        Always a point of cancellation; a full checkpoint where it has to wait, and every so many
        items.

        Raises:
            trio.EndOfChannel: Nothing waits, and nothing more will come.
        """
        if self._until_checkpoint:
            self._until_checkpoint -= 1
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._until_checkpoint = _CHECKPOINT_EVERY
            await trio.lowlevel.checkpoint()
        await self._wait_for_items()
        return self.take_nowait()

    async def take_many(self) -> list[T]:
        """Wait until something is there, and take all of it: at least one item.

        Raises:
            trio.EndOfChannel: Nothing waits, and nothing more will come.
        """
        await trio.lowlevel.checkpoint()
        await self._wait_for_items()
        return [item for item, _ in self.take_all()]

    def take_all(self) -> list[tuple[T, int]]:
        """Take all there is, perhaps nothing, with the sizes."""
        items = list(self._items)
        self._items.clear()
        self._took(self._size)
        return items

    def take_nowait(self) -> T:
        """Take the next item.

        Raises:
            trio.WouldBlock: Nothing waits.
            trio.EndOfChannel: Nothing waits, and nothing more will come.
        """
        if not self._items:
            raise trio.EndOfChannel if self._ended else trio.WouldBlock
        item, size = self._items.popleft()
        self._took(size)
        return item

    async def _wait_for_items(self) -> None:
        # In a loop: another taker may have been faster than the one that was woken.
        while not self._items and not self._ended:
            await self._takers.park()
        if not self._items:
            raise trio.EndOfChannel

    def _took(self, size: int) -> None:
        self._size -= size
        if self._room and self.has_room:
            self._room.unpark_all()
