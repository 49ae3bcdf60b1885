"""What waits to be taken, and the loop that takes it.

``async for message in channel`` is why this file exists.  It is compiled as ``protocol/_codec.py``
is (see there), since between two messages that one read has brought there is nothing to do but to
hand out the next element of a list; a coroutine of plain Python takes longer than all else that
happens to a short message.  So:

- a batch stays the list as which the decoder has made it, and is taken by its index;
- no checkpoint, as long as nobody is hurt: the taker is not cancelled, and its budget (see
  ``_mailbox.py``) says that other tasks have run a short while ago.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any, Final

from ._cancellation import CancelStatus, cancel_status


class Batches:
    """Items in the order in which they came.

    Args:
        taken: Called when what waits is down to :attr:`wake_at` items, or a batch was taken wholly.
    """

    def __init__(self, taken: Callable[[], None]) -> None:
        self.count: int = 0
        """Items that wait."""
        self.taken: int = 0
        """Items that were taken."""
        self.size: int = 0
        """Bytes that wait; those of a batch count until its last item is taken."""
        self.budget: int = 0
        """Items that may be taken before the next checkpoint."""
        self.wake_at: int = -1
        """At how many items ``taken`` is to be called; -1 for not at all."""
        self._taken = taken
        self._current: list[Any] = []
        self._position = 0
        self._current_size = 0
        self._following: deque[tuple[list[Any], int]] | None = None

    def append(self, items: list[Any], size: int) -> None:
        """Add ``items``, at least one, of ``size`` bytes together; the list is given away."""
        if self.count:
            if self._following is None:
                self._following = deque()
            self._following.append((items, size))
        else:
            self._current = items
            self._position = 0
            self._current_size = size
        self.count += len(items)
        self.size += size

    def last(self) -> Any:
        """The newest item, of at least one."""
        return self._following[-1][0][-1] if self._following else self._current[-1]

    def pop_last(self) -> Any:
        """Take back the newest item, of at least one; it does not count as taken."""
        self.count -= 1
        if not self._following:
            item = self._current.pop()
            if self._position == len(self._current):
                self._end_batch()
            return item
        batch, size = self._following[-1]
        item = batch.pop()
        if not batch:
            self._following.pop()
            self.size -= size
        return item

    def push_first(self, item: Any) -> None:
        """Put an item of no bytes before all that waits."""
        if self._position:
            self._position -= 1
            self._current[self._position] = item
        else:
            if self.count:
                if self._following is None:
                    self._following = deque()
                self._following.appendleft((self._current, self._current_size))
            self._current = [item]
            self._current_size = 0
        self.count += 1

    def drop_first(self) -> Any:
        """Take the oldest item, of at least one; it does not count as taken."""
        item = self.pop()
        self.taken -= 1
        return item

    def first(self) -> Any:
        """The oldest item, of at least one; it stays."""
        return self._current[self._position]

    def pop(self) -> Any:
        """Take the oldest item, of at least one."""
        current = self._current
        position = self._position
        item = current[position]
        current[position] = None
        self._position = position + 1
        self.count -= 1
        self.taken += 1
        if position + 1 == len(current):
            self._end_batch()
        elif self.count <= self.wake_at:
            self._taken()
        return item

    def _end_batch(self) -> None:
        self.size -= self._current_size
        self._current = []
        self._current_size = 0
        self._position = 0
        if self._following:
            self._current, self._current_size = self._following.popleft()
        if self.wake_at >= 0:
            self._taken()

    def pop_all(self) -> list[Any]:
        """Take everything there is, perhaps nothing."""
        items = self._current[self._position :]
        for batch, _ in self._following or ():
            items += batch
        self.taken += len(items)
        self.clear()
        return items

    def clear(self) -> None:
        """Drop everything there is."""
        self._following = None
        self._current = []
        self._position = self._current_size = self.count = self.size = 0
        if self.wake_at >= 0:
            self._taken()


class MessageIterator:
    """``async for message in …``: the messages, until there will be no more.

    Args:
        batches: What waits.
        receive: Waits for the next message; raises ``StopAsyncIteration`` in the end.
        follow: Given an item that is no message, waits for the message that follows from it.
    """

    def __init__(
        self,
        batches: Batches,
        receive: Callable[[], Awaitable[str | bytes]],
        follow: Callable[[Any], Awaitable[str | bytes]],
    ) -> None:
        self._batches = batches
        self._receive = receive
        self._follow = follow
        # Of the task that iterates, since its last checkpoint here.
        self._status: CancelStatus | None = None

    def __aiter__(self) -> MessageIterator:
        return self

    async def __anext__(self) -> str | bytes:
        batches = self._batches
        if batches.budget > 0 and batches.count > 0:
            status = self._status
            if status is not None and not status.effectively_cancelled:
                batches.budget -= 1
                item = batches.pop()
                if type(item) is str or type(item) is bytes:
                    return item
                return await self._follow(item)
        message = await self._receive()
        self._status = cancel_status()
        return message


COMPILED: Final = not isinstance(Batches.last, FunctionType)
"""Whether this file was compiled."""

if COMPILED:
    # The way without a coroutine for each message: in the .pxd, since it has no Python.
    shorten(MessageIterator)  # type: ignore[name-defined]  # noqa: F821
