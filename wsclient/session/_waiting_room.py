"""What a second connection has brought, while the first one has still to say what comes before it.

Values wait apart from messages that are about no subscription: each goes its own way in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from wsclient.protocol import encoded_size

from ._feed import Item
from ._inbox import MESSAGE_COST, Message
from ._protocol import SubscriptionEnded

if TYPE_CHECKING:
    from ._enrolment import Entry


class WaitingRoom:
    """What a second connection has brought, and the first one may have to bring before it.

    Args:
        max_size: Bytes that may wait.
    """

    def __init__(self, max_size: float) -> None:
        self._max_size = max_size
        self._messages: list[Any] = []
        self._size = self._size_of_values = 0
        self._ended = trio.Event()
        self.values: list[tuple[Entry, Item | SubscriptionEnded, Message]] = []

    def hold(self, message: Message, entry: Entry, item: Item | SubscriptionEnded) -> None:
        """Let a value wait, or the end of its stream."""
        self.values.append((entry, item, message))
        self._size_of_values += encoded_size(message) + MESSAGE_COST

    def put(self, items: list[Any], size: int) -> None:
        """Let messages wait."""
        self._messages += items
        self._size += size

    @property
    def has_room(self) -> bool:
        """Whether the reader may read on."""
        size = self._size + self._size_of_values + len(self._messages) * MESSAGE_COST
        return size <= self._max_size or self._ended.is_set()

    async def wait_for_room(self) -> None:
        """Wait until nothing waits any more."""
        await self._ended.wait()

    async def wait_wanted(self) -> None:
        """As :meth:`wait_for_room`."""
        await self._ended.wait()

    def end(self) -> tuple[list[Any], int]:
        """The messages that have waited, and their size."""
        self._ended.set()
        return self._messages, self._size
