"""Messages that were accepted and have no outcome yet.

What makes the promises (S1):

- accepting is one step without a checkpoint: cancelled means that it is not here and never will be;
- a connection draws through a :class:`~._tap.Tap` of its own, in order, and what it has drawn is
  drawn by another only if that was promised (``Delivery.ACKED``, ``resend_unknown``);
- what goes again goes to the head of the queue, in its old order: no newer one overtakes it;
- a message leaves in the same step in which its receipt gets its outcome.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

import trio

from wsclient.errors import OutboxError, OutboxFull
from wsclient.events import Delivery, Outcome
from wsclient.options import DeliveryOptions, Limits, OverflowPolicy
from wsclient.protocol import encoded_size

from ._receipt import Progress, Receipt

if TYPE_CHECKING:
    from ._disk_outbox import Record
    from ._tap import Tap

KNOWN_IDS: Final = 4096
"""Ids of messages that have their outcome: an acknowledgement that comes late, or once more, is
known for one.  Four times as many as may wait by default."""


class Entry:
    """One message in the outbox, or on its way out of it."""

    __slots__ = (
        "_outbox",
        "attempts",
        "delivery",
        "expires_at",
        "id",
        "is_queued",
        "is_suspect",
        "key",
        "losses",
        "message",
        "number",
        "plain",
        "receipt",
        "record",
        "size",
        "tap",
    )

    def __init__(
        self,
        outbox: Outbox,
        message: str | bytes,
        delivery: Delivery,
        expires_at: float,
        key: str | None,
        id: str | None,
        plain: str | bytes,
    ) -> None:
        self._outbox = outbox
        self.number = -1
        """Its place among all that were accepted; negative before that."""
        self.message = message
        """What is written."""
        self.plain = plain
        """What was to be sent: the same, without the id."""
        self.size = encoded_size(message)
        """Bytes; negative once it counts no more."""
        self.delivery = delivery
        self.key = key
        """What it has in common with those that it replaces, or that replace it."""
        self.id = id
        """What it is acknowledged by."""
        self.expires_at = expires_at
        """On trio's clock, in seconds."""
        self.attempts = 0
        """How many connections have drawn it."""
        self.losses = 0
        """How many of them in a row were lost with it in flight and unfenced."""
        self.is_suspect = False
        """Whether it may be what those connections died of."""
        self.is_queued = False
        """Whether it stands in the queue, and is not drawn."""
        self.tap: Tap | None = None
        self.record: Record | None = None
        """What a disk has of it."""
        self.receipt = Receipt(self.withdraw, delivery, id, outbox.wait_scope)

    @property
    def is_open(self) -> bool:
        """Whether it has no outcome yet."""
        return self.receipt.outcome is None

    @property
    def goes_again(self) -> bool:
        """Whether another connection may write it once this one has."""
        return self.delivery is Delivery.ACKED or (
            self.delivery is Delivery.QUEUED and self._outbox.options.resend_unknown
        )

    def withdraw(self) -> None:
        self._outbox.resolve(self, Outcome.CANCELLED)

    def written(self) -> None:
        """Note that its last byte was handed to the transport."""
        assert self.tap is not None
        self.tap.written(self)


class Outbox:
    """Accepted messages, in order, within the bounds of ``limits``.

    Args:
        limits: How many messages, and bytes, may wait to be written or acknowledged.
        options: What is promised, and how it is kept.
        overflowed: Told how many messages an overflow has cost so far: at its first one, and when
            it is over.
        wait_scope: As for :class:`Receipt`.
    """

    def __init__(
        self,
        limits: Limits,
        options: DeliveryOptions | None = None,
        *,
        overflowed: Callable[[int], object] = lambda _: None,
        wait_scope: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.options = options or DeliveryOptions()
        self.wait_scope = wait_scope
        self._limits = limits
        self._overflowed = overflowed
        # In order.  Those that have got an outcome there are passed over when their turn comes, or
        # swept out when they are too many.
        self._waiting: deque[Entry] = deque()
        self._dead = 0
        self._by_key: dict[str, Entry] = {}
        self._unacked: dict[str, Entry] = {}
        self._closed_ids: OrderedDict[str, None] = OrderedDict()
        self._senders: OrderedDict[trio.lowlevel.Task, Entry] = OrderedDict()
        self._refusal: Callable[[], BaseException] | None = None
        self._emptied = trio.lowlevel.ParkingLot()
        self._next_expiry = math.inf
        self._expiry_changed = trio.Event()
        self._dropped = 0
        self.accepted = 0
        """How many messages were ever accepted."""
        self.open = 0
        """Messages accepted and without an outcome."""
        self.messages = 0
        """Of these, what counts towards the bound: to be written, being written, unacknowledged."""
        self.size = 0
        """Bytes of them."""
        self.outcomes: Counter[Outcome] = Counter()
        self.unsent = 0
        """Messages that have their outcome, and of which not a byte was written."""
        self.hurried = 0
        """How many wait for the outcome of everything: a proof is asked for at once."""

    @property
    def senders_waiting(self) -> int:
        """Tasks that wait for room."""
        return len(self._senders)

    @property
    def is_leaving(self) -> bool:
        """Whether nothing more is accepted."""
        return self._refusal is not None

    @property
    def has_waiting(self) -> bool:
        """Whether a message waits to be drawn."""
        return len(self._waiting) > self._dead

    # What one on disk needs, and one in memory does not.

    @property
    def trouble(self) -> OutboxError | None:
        """What is wrong with what the messages are kept on."""
        return None

    async def load(self) -> None:
        """Find what an earlier process has left."""

    async def run(self) -> None:
        """Do what is to be done meanwhile; runs until cancelled."""
        await self.expire()

    async def aclose(self) -> None:
        """Keep what is to be kept, before :meth:`settle`; from now on nothing is drawn."""

    # Senders.

    def offer(
        self,
        message: str | bytes,
        delivery: Delivery = Delivery.QUEUED,
        *,
        expires_at: float = math.inf,
        key: str | None = None,
    ) -> Entry:
        """Make what :meth:`accept` takes; one that is to be acknowledged gets its id.

        Args:
            message: What to send.
            delivery: What is promised for it.
            expires_at: Until when it may be written (trio's clock, seconds).
            key: See :attr:`Entry.key`.

        Raises:
            BaseException: What the user's strategy of acknowledging raises.
        """
        strategy = self.options.acknowledgement
        if delivery is not Delivery.ACKED or strategy is None:
            return Entry(self, message, delivery, expires_at, key, None, message)
        id = secrets.token_hex(8)
        marked = strategy.mark(message, id, redelivered=False)
        return Entry(self, marked, delivery, expires_at, key, id, message)

    async def accept(self, entry: Entry) -> Receipt:
        """Accept a message, waiting for room if there is none; senders wait in turn.

        Raises:
            OutboxFull: There is none, and the policy is not to wait.
            BaseException: What :meth:`refuse` was told to raise.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return self.accept_nowait(entry)
        except trio.WouldBlock:
            pass
        task = trio.lowlevel.current_task()
        self._senders[task] = entry

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._senders[task]
            # Whoever waited behind may want less room.
            self._admit()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        # Whoever woke us has accepted the message, or refuses all: no step lies between.
        if entry.number < 0:
            assert self._refusal is not None
            raise self._refusal()
        return entry.receipt

    def accept_nowait(self, entry: Entry) -> Receipt:
        """Accept a message if there is room, or if the policy makes some.

        Raises:
            trio.WouldBlock: There is none, or others wait for it.
            OutboxFull, BaseException: As :meth:`accept`.
        """
        if self._refusal is not None:
            raise self._refusal()
        replaced = None if entry.key is None else self._replaced_by(entry)
        # Who waits for a connection to take the message needs no bound but itself.
        if entry.delivery is Delivery.DIRECT or (
            self._is_next(entry, replaced) and self._has_room(entry, replaced)
        ):
            is_over = self._dropped > 0 and not self.has_waiting
            self._add(entry, replaced)
            if is_over:
                self._tell_dropped()
            return entry.receipt
        match self.options.overflow:
            case OverflowPolicy.ERROR:
                raise OutboxFull(self.messages, self.size)
            case OverflowPolicy.DROP_NEWEST:
                self._count(entry)
                self._drop(entry)
            case OverflowPolicy.DROP_OLDEST if oldest := self._in_the_way_of(entry):
                for older in oldest:
                    self.resolve(older, Outcome.DROPPED)
                self._add(entry)
                self._count_dropped(len(oldest))
            case _:
                raise trio.WouldBlock
        return entry.receipt

    def _replaced_by(self, entry: Entry) -> Entry | None:
        """What ``entry`` would take the place of."""
        if entry.key is None or self.options.overflow is not OverflowPolicy.CONFLATE:
            return None
        if entry.delivery is Delivery.DIRECT:
            return None  # It may come to nothing, and what waits is promised to be kept.
        older = self._by_key.get(entry.key)
        is_untouched = older is not None and older.receipt._progress is Progress.ACCEPTED
        return older if is_untouched else None

    def _has_room(self, entry: Entry, replaced: Entry | None = None) -> bool:
        messages, size = self.messages, self.size
        if replaced is not None:
            messages, size = messages - 1, size - replaced.size
        return self._fits(entry, messages, size)

    def _fits(self, entry: Entry, messages: int, size: int) -> bool:
        """Whether there is room beside so many messages, of so many bytes."""
        # A message larger than the whole bound goes alone, rather than never.
        return messages == 0 or (
            messages < self._limits.outbox_messages
            and size + entry.size <= self._limits.outbox_size
        )

    def _is_next(self, entry: Entry, replaced: Entry | None) -> bool:
        """Whether ``entry`` overtakes nobody who waits for room."""
        if not self._senders:
            return True
        # What takes the place of another needs no room, but must not come before an older value.
        return replaced is not None and all(
            other.key != entry.key for other in self._senders.values()
        )

    def _in_the_way_of(self, entry: Entry) -> list[Entry]:
        """The oldest messages of which nothing was written, as many as have to go.

        None if that would not make room, or if whoever waits for some would get it.
        """
        oldest = []
        messages, size = self.messages, self.size
        for older in () if self._senders else self._waiting:
            is_droppable = older.is_open and older.receipt._progress is Progress.ACCEPTED
            if is_droppable and older.delivery is not Delivery.DIRECT:
                oldest.append(older)
                messages -= 1
                size -= older.size
                if self._fits(entry, messages, size):
                    return oldest
        return []

    def _drop(self, entry: Entry) -> None:
        self.resolve(entry, Outcome.DROPPED)
        self._count_dropped(1)

    def _count_dropped(self, count: int) -> None:
        """Tell at the first one: when all is done, since an observer may send."""
        self._dropped += count
        if self._dropped == count:
            self._overflowed(count)

    def _tell_dropped(self) -> None:
        """Say what was dropped: what waited behind it has gone."""
        dropped, self._dropped = self._dropped, 0
        self._overflowed(dropped)

    def _count(self, entry: Entry) -> None:
        entry.number = self.accepted
        self.accepted += 1
        self.open += 1
        self.messages += 1
        self.size += entry.size

    def _add(self, entry: Entry, replaced: Entry | None = None) -> None:
        self._count(entry)
        self._waiting.append(entry)
        self._note_queued(entry)
        if entry.key is not None and entry.delivery is not Delivery.DIRECT:
            self._by_key[entry.key] = entry
        if replaced is not None:
            self._drop(replaced)

    def _note_queued(self, entry: Entry) -> None:
        entry.is_queued = True
        if entry.expires_at < self._next_expiry:
            self._next_expiry = entry.expires_at
            self._expiry_changed.set()

    def refuse(self, make_error: Callable[[], BaseException]) -> None:
        """Accept nothing from now on; each sender gets what ``make_error`` gives."""
        self._refusal = make_error
        for task in self._senders:
            trio.lowlevel.reschedule(task)
        self._senders.clear()

    def _admit(self) -> None:
        """Accept what waiting senders bring, in turn, as far as there is room."""
        while self._senders:
            task, entry = next(iter(self._senders.items()))
            replaced = self._replaced_by(entry)
            if not self._has_room(entry, replaced):
                break
            del self._senders[task]
            self._add(entry, replaced)
            trio.lowlevel.reschedule(task)

    # Outcomes.

    def resolve(self, entry: Entry, outcome: Outcome) -> None:
        """Give ``entry`` its outcome, and its room to the next sender; the first outcome stands."""
        if self._take_out(entry, outcome):
            self.outcomes[outcome] += 1
            self.unsent += entry.receipt._progress is Progress.ACCEPTED

    def _take_out(self, entry: Entry, outcome: Outcome) -> bool:
        if not entry.receipt._resolve(outcome):
            return False
        self.open -= 1
        if entry.is_queued:
            self._bury()
        if entry.id is not None and self._unacked.pop(entry.id, None) is not None:
            self._closed_ids[entry.id] = None
            if len(self._closed_ids) > KNOWN_IDS:
                self._closed_ids.popitem(last=False)
        if entry.key is not None and self._by_key.get(entry.key) is entry:
            del self._by_key[entry.key]
        self.release(entry)
        if not self.open:
            self._emptied.unpark_all()
        return True

    def _bury(self) -> None:
        """One more in the queue has its outcome: make room when these are most of it."""
        self._dead += 1
        if self._dead > 64 and self._dead * 2 > len(self._waiting):
            self._waiting = deque(entry for entry in self._waiting if entry.is_open)
            self._dead = 0

    def release(self, entry: Entry) -> None:
        """Let ``entry`` count no more towards the bound, and forget what it says."""
        if entry.size < 0:
            return
        self.messages -= 1
        self.size -= entry.size
        entry.size = -1
        entry.message = entry.plain = ""
        self._admit()

    async def wait_empty(self) -> None:
        """Wait until every accepted message has its outcome."""
        await trio.lowlevel.checkpoint()
        while self.open:
            await self._emptied.park()

    @property
    def unacknowledged(self) -> list[Entry]:
        """What was drawn and waits to be acknowledged, in the order of the writes."""
        return [entry for entry in self._unacked.values() if not entry.is_queued]

    def entries(self) -> list[Entry]:
        """What waits to be drawn, and what waits to be acknowledged; not what is in flight else."""
        return self.unacknowledged + [entry for entry in self._waiting if entry.is_open]

    def settle(self) -> None:
        """The end: give everything that has no outcome one."""
        if self._dropped:
            self._tell_dropped()
        # In a loop: each that leaves may let a sender in that waits for room.
        while entries := self.entries():
            for entry in entries:
                self.resolve(entry, self._left_as(entry))

    def _left_as(self, entry: Entry) -> Outcome:
        """The outcome of what is left at the end."""
        begun = entry.receipt._progress is not Progress.ACCEPTED
        return Outcome.LOST_UNKNOWN if begun else Outcome.CANCELLED

    # Time to live.

    async def expire(self) -> None:
        """Give each message whose time is over its outcome, when it is; runs until cancelled."""
        while True:
            if trio.current_time() < self._next_expiry:
                self._expiry_changed = trio.Event()
                with trio.move_on_at(self._next_expiry):
                    await self._expiry_changed.wait()
                continue
            self._expire_now()
            await trio.lowlevel.checkpoint()

    def _expire_now(self) -> None:
        now = trio.current_time()
        self._next_expiry = math.inf
        # Not what the present connection has: the time bounds the writing, and it is written.
        for entry in [entry for entry in self._waiting if entry.is_open]:
            if entry.expires_at <= now:
                self.resolve(entry, Outcome.EXPIRED)
            else:
                self._next_expiry = min(self._next_expiry, entry.expires_at)

    # Acknowledgements.

    def acknowledge(self, key: str, *, accepted: bool) -> bool:
        """Take the peer's word on a message; false if no message of that id waits for it.

        It may come before the pong, and while the message waits to go again: the id says enough.
        """
        entry = self._unacked.get(key)
        if entry is None:
            return False
        self.resolve(entry, Outcome.ACKED if accepted else Outcome.REJECTED)
        return True

    def has_given(self, key: str) -> bool:
        """Whether a message has gone out with this id, as far as is remembered."""
        return key in self._unacked or key in self._closed_ids

    # Connections.

    def peek(self) -> Entry | None:
        """The next message to write; ``None`` if none waits."""
        # Whatever leaves may let others in, and have the queue swept.
        while self._waiting:
            entry = self._waiting[0]
            if entry.receipt._outcome is not None:
                self._dead -= 1
            elif entry.expires_at == math.inf or entry.expires_at > trio.current_time():
                return entry
            self._waiting.popleft()
            entry.is_queued = False
            self.resolve(entry, Outcome.EXPIRED)
        return None

    def draw(self, entry: Entry) -> None:
        """Take ``entry``, which :meth:`peek` gave, as being written from now on.

        Raises:
            BaseException: What the user's strategy of acknowledging raises, if it goes again; it is
                out of the queue then, and nothing holds it.
        """
        self._waiting.popleft()
        entry.is_queued = False
        if entry.id is not None:
            if entry.attempts:
                self._mark_again(entry, entry.id)
            # Where it was, if it goes again: in the order of the writes, as ever.
            self._unacked[entry.id] = entry
        entry.attempts += 1
        entry.receipt._advance(Progress.BEGUN)

    def _mark_again(self, entry: Entry, id: str) -> None:
        strategy = self.options.acknowledgement
        assert strategy is not None
        message = strategy.mark(entry.plain, id, redelivered=True)
        size = encoded_size(message)
        self.size += size - entry.size
        entry.message, entry.size = message, size

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Let drawn messages, and all that are unacknowledged, be drawn again before all others."""
        drawn = [*entries, *self._unacked.values()]
        again = {entry.number: entry for entry in drawn if entry.is_open and not entry.is_queued}
        for number in sorted(again, reverse=True):
            entry = again[number]
            if entry.attempts >= self.options.max_attempts:
                self.resolve(entry, Outcome.LOST_UNKNOWN)
            else:
                self._waiting.appendleft(entry)
                self._note_queued(entry)

    def end_direct(self) -> None:
        """There is no connection any more: what was to go over it never does."""
        for entry in list(self._waiting):
            if entry.is_open and entry.delivery is Delivery.DIRECT:
                self.resolve(entry, Outcome.CANCELLED)
