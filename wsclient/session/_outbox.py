"""Messages that were accepted and are not written yet.

Three things make the promise of ``Delivery.QUEUED``, at most once:

- accepting is one step without a checkpoint: cancelled means that it is not here and never will be;
- a connection draws through a :class:`Tap` of its own, and what it has drawn is never drawn again;
- closing the tap settles what was drawn and not written whole: *lost, unknown*.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import trio

from wsclient.events import Outcome
from wsclient.options import Limits
from wsclient.protocol import encoded_size

from ._receipt import Receipt


class Entry:
    """One message in the outbox, or on its way out of it."""

    __slots__ = ("_outbox", "message", "receipt", "size")

    def __init__(self, outbox: Outbox, message: str | bytes, size: int) -> None:
        self._outbox = outbox
        self.message = message
        self.size = size
        self.receipt = Receipt(self.withdraw, outbox.waiting)

    def withdraw(self) -> None:
        self._outbox.withdraw(self)

    def written(self) -> None:
        self._outbox.resolve(self, Outcome.WRITTEN)


class _Waiter:
    """A sender that waits for room, with what it wants to send."""

    __slots__ = ("error", "message", "receipt", "size")

    def __init__(self, message: str | bytes, size: int) -> None:
        self.message = message
        self.size = size
        self.receipt: Receipt | None = None
        self.error: BaseException | None = None


class Outbox:
    """Accepted messages, in order, within the bounds of ``limits``.

    Args:
        limits: How much may wait.
        waiting: What whoever waits for an outcome stands in; see :class:`Receipt`.
    """

    def __init__(
        self,
        limits: Limits,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._limits = limits
        self.waiting = waiting
        self._waiting: deque[Entry] = deque()
        self._senders: OrderedDict[trio.lowlevel.Task, _Waiter] = OrderedDict()
        self._refusal: Callable[[], BaseException] | None = None
        self._emptied = trio.lowlevel.ParkingLot()
        self.messages = 0
        """Accepted and without an outcome."""
        self.size = 0
        """Bytes of them."""
        self.outcomes: Counter[Outcome] = Counter()

    @property
    def senders_waiting(self) -> int:
        """Tasks that wait for room."""
        return len(self._senders)

    # Senders.

    async def accept(self, message: str | bytes) -> Receipt:
        """Accept a message, waiting for room if there is none; senders wait in turn.

        Raises:
            BaseException: What :meth:`refuse` was told to raise.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return self.accept_nowait(message)
        except trio.WouldBlock:
            pass
        waiter = _Waiter(message, encoded_size(message))
        task = trio.lowlevel.current_task()
        self._senders[task] = waiter

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._senders[task]
            # Whoever waited behind may want less room.
            self._admit()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        # Whoever woke us has accepted the message or refused it: no step lies between.
        if waiter.receipt is None:
            assert waiter.error is not None
            raise waiter.error
        return waiter.receipt

    def accept_nowait(self, message: str | bytes) -> Receipt:
        """Accept a message if there is room.

        Raises:
            trio.WouldBlock: There is none, or others wait for it.
            BaseException: What :meth:`refuse` was told to raise.
        """
        if self._refusal is not None:
            raise self._refusal()
        size = encoded_size(message)
        if self._senders or not self._has_room(size):
            raise trio.WouldBlock
        return self._add(message, size)

    def _has_room(self, size: int) -> bool:
        # A message larger than the whole bound goes alone, rather than never.
        return self.messages == 0 or (
            self.messages < self._limits.outbox_messages
            and self.size + size <= self._limits.outbox_size
        )

    def _add(self, message: str | bytes, size: int) -> Receipt:
        entry = Entry(self, message, size)
        self._waiting.append(entry)
        self.messages += 1
        self.size += size
        return entry.receipt

    def refuse(self, make_error: Callable[[], BaseException]) -> None:
        """Accept nothing from now on; each sender gets what ``make_error`` gives."""
        self._refusal = make_error
        for task, waiter in self._senders.items():
            waiter.error = make_error()
            trio.lowlevel.reschedule(task)
        self._senders.clear()

    # Outcomes.

    def resolve(self, entry: Entry, outcome: Outcome) -> None:
        """Give ``entry`` its outcome, and its room to the next sender; the first outcome stands."""
        if not entry.receipt._resolve(outcome):
            return
        self.outcomes[outcome] += 1
        self.messages -= 1
        self.size -= entry.size
        self._admit()
        if not self.messages:
            self._emptied.unpark_all()

    def _admit(self) -> None:
        """Accept what waiting senders bring, in turn, as far as there is room."""
        while self._senders:
            task, waiter = next(iter(self._senders.items()))
            if not self._has_room(waiter.size):
                break
            del self._senders[task]
            waiter.receipt = self._add(waiter.message, waiter.size)
            trio.lowlevel.reschedule(task)

    def withdraw(self, entry: Entry) -> None:
        """Take back a message of which nothing was written."""
        self._waiting.remove(entry)
        self.resolve(entry, Outcome.CANCELLED)

    def cancel_all(self) -> None:
        """Take back all that waits."""
        while self._waiting:
            self.resolve(self._waiting.popleft(), Outcome.CANCELLED)

    async def wait_empty(self) -> None:
        """Wait until every accepted message has its outcome."""
        await trio.lowlevel.checkpoint()
        while self.messages:
            await self._emptied.park()

    def draw(self) -> Entry | None:
        """The next message, as being written from now on."""
        if not self._waiting:
            return None
        entry = self._waiting.popleft()
        entry.receipt._begin()
        return entry


class Tap:
    """What one connection draws messages through."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._drawn: deque[Entry] = deque()
        self._is_open = True

    def pull(self) -> Entry | None:
        """The next message to write; ``None`` if none waits, or the tap is closed."""
        if not self._is_open:
            return None
        while self._drawn and self._drawn[0].receipt.outcome is not None:
            self._drawn.popleft()
        entry = self._outbox.draw()
        if entry is not None:
            self._drawn.append(entry)
        return entry

    def close(self) -> None:
        """Draw nothing more; what was drawn and is not written whole is lost, unknown."""
        self._is_open = False
        for entry in self._drawn:
            self._outbox.resolve(entry, Outcome.LOST_UNKNOWN)
        self._drawn.clear()
