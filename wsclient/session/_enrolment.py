"""What the server of one connection has of the subscriptions that are wanted.

One loop brings the two in line: it looks for the difference, says what the server must be told, and
waits until something has changed.  It keeps no plan, so it can be cut off anywhere: on the next
connection it begins with nothing, and finds the same difference.  That is all there is to restoring
subscriptions, to a change of the user's while they are being restored, and to a second outage in
the middle of it.

A subscription that the server does not confirm, or refuses for a while, backs off alone.

What the connection brings is heard here before anybody else gets it.  While a first connection has
still to say what comes before (``_standby.py``), values wait here.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from wsclient import events
from wsclient.connection import WebSocketConnection, open_background_nursery, start_ping
from wsclient.errors import ConnectionClosed, EstablishError, WebSocketError
from wsclient.protocol import encoded_size

from ._feed import Item
from ._inbox import MESSAGE_COST, Inbox, Inlet, Message
from ._protocol import (
    Answer,
    Published,
    Subscribed,
    SubscriptionEnded,
    Unsubscribed,
    Wish,
)
from ._waiting_room import WaitingRoom

if TYPE_CHECKING:
    from ._subscriptions import Subscription, Subscriptions

REMEMBERED: Final = 4096
"""Subscriptions that are over whose late values are still known for what they are."""

_Named: TypeAlias = Published | Subscribed | SubscriptionEnded | Unsubscribed
_NAMED: Final = (Published, Subscribed, SubscriptionEnded, Unsubscribed)

_TOKEN: Final = object()
"""Tells a token from a key or number that is equal to it."""

_ANSWERS: Final = 64
"""What a service wants to hear at most at once; of more, the oldest are not said."""


class Entry:
    """One subscription, as the server of this connection has it, or is asked for it."""

    __slots__ = (
        "_taken_before",
        "_was_there",
        "asked_at",
        "early",
        "has_missed",
        "is_there",
        "resumed",
        "subscription",
        "tags",
        "token",
        "wish",
    )

    def __init__(self, subscription: Subscription, wish: Wish, now: float) -> None:
        self.subscription = subscription
        self.wish = wish
        self.asked_at = now
        self.token: Hashable = None
        self.tags: list[Hashable] = []
        self.is_there = False
        self.resumed = False
        # If another connection has it then, or has had it since, both bring the same.
        self._was_there = bool(subscription.there)
        self._taken_before = subscription.taken
        self.early: list[Item] = []
        """What came before the confirmation."""
        self.has_missed = False
        """Whether something came while it was given up, or more than there is room for."""

    @property
    def overlaps(self) -> bool:
        """Whether another connection has brought some of what this one brings."""
        return self._was_there or self.subscription.taken > self._taken_before


class _Queue:
    """What is still to be asked for, the most important first.

    Nothing is taken out where it is: what is not to be asked for any more, or not yet, is found out
    when its turn comes.  So a change costs as little among ten thousand as among ten.
    """

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self._ready = [(subscription.rank, subscription) for subscription in subscriptions]
        heapify(self._ready)
        self._waiting: list[tuple[float, int, Subscription]] = []

    def add(self, subscription: Subscription) -> None:
        heappush(self._ready, (subscription.rank, subscription))

    def first(self, now: float, is_due: Callable[[Subscription], bool]) -> Subscription | None:
        """The first that is due; it is taken out once it is due no more: when it was asked for."""
        while self._waiting and self._waiting[0][0] <= now:
            subscription = heappop(self._waiting)[-1]
            if is_due(subscription):
                self.add(subscription)
        while self._ready:
            rank, subscription = self._ready[0]
            if not is_due(subscription):
                heappop(self._ready)
            elif subscription.not_before > now:
                heappop(self._ready)
                entry = (subscription.not_before, subscription.order, subscription)
                heappush(self._waiting, entry)
            elif rank != subscription.rank:
                heapreplace(self._ready, (subscription.rank, subscription))
            else:
                return subscription
        return None

    @property
    def wake_at(self) -> float:
        """When the next of those that have to wait may be due."""
        return self._waiting[0][0] if self._waiting else math.inf


class Enrolment:
    """What the server has on one connection.

    Args:
        wanted: What is wanted.
        connection: The connection.
        epoch: Its number.
    """

    def __init__(self, wanted: Subscriptions, connection: WebSocketConnection, epoch: int) -> None:
        self._wanted = wanted
        self._protocol = wanted.protocol
        self._options = wanted.options
        self.connection: Final = connection
        self.epoch: Final = epoch
        # By key, those too that are not wanted any more: what is wanted anew is asked for behind
        # the end of what it was before.
        self._entries: dict[Hashable, Entry] = {}
        self._by_tag: dict[Hashable, Entry] = {}
        self._queue = _Queue(wanted)
        # In the order in which they were asked for.
        self._pending: dict[Entry, None] = {}
        # Not wanted any more: the server is told once it has confirmed them.
        self._leaving: dict[Entry, None] = {}
        self._late: OrderedDict[Hashable, Entry] = OrderedDict()
        self._answers: deque[str | bytes] = deque(maxlen=_ANSWERS)
        self._changed = trio.Event()
        self._confirmed_at = -math.inf
        self._confirmed = 0
        self._early_size = 0
        self._room: WaitingRoom | None = None
        self._restored: set[Entry] = set()
        self.is_ready: bool = False
        """Whether messages flow over the connection, for the channel."""

    @property
    def resumed_all(self) -> bool:
        """Whether the server goes on right where it was, with all that is wanted."""
        return 0 < self._resumed == len(self._wanted)

    @property
    def _resumed(self) -> int:
        return sum(
            entry.resumed and entry.subscription in self._wanted for entry in self._entries.values()
        )

    # The reader's side.

    def way_into(self, inbox: Inbox) -> Inlet:
        """Where the connection shall put its messages."""
        return Inlet(inbox, self.hear)

    def way_aside(self) -> Inlet:
        """Likewise, while everything waits."""
        assert self._room is not None
        return Inlet(self._room, self.hear)

    def hear(self, message: Message) -> bool:
        """Whether a message goes no further, since it is about subscriptions."""
        try:
            signal = self._protocol.recognise(message)
        except Exception as error:  # A user's function; the message may be for someone.
            self._wanted.tell_failed(self._protocol.recognise, "a message", error)
            return False
        return signal is not None and self._heed(signal, message)

    def _heed(self, signal: object, message: Message) -> bool:
        if isinstance(signal, Answer):
            if signal.message is not None:
                self._answers.append(signal.message)
                self.wake()
            return True
        if not isinstance(signal, _NAMED):
            error = TypeError(f"recognise must give a signal or None, not {type(signal).__name__}")
            self._wanted.tell_failed(self._protocol.recognise, "a message", error)
            return False
        entry = self._find(signal, self._by_tag)
        if entry is None:
            return self._heed_late(signal)
        if isinstance(signal, Published):
            self._publish(entry, signal, message)
        elif isinstance(signal, Subscribed):
            self._confirm(entry, signal)
        elif isinstance(signal, SubscriptionEnded):
            self._heed_end(entry, signal)
        else:
            # The end of what had its name before.
            self._take_early(entry)
            entry.has_missed = False
        return True

    def _heed_end(self, entry: Entry, signal: SubscriptionEnded) -> None:
        if signal.error is None or entry.early:
            # It was there, and what it has brought is worth having.
            self._confirm(entry, _implied(entry))
        if entry.is_there and self._room is not None:
            # What came before it waits.
            self._room.hold("", entry, signal)
            return
        self._forget(entry)
        if entry.subscription in self._wanted:
            self._wanted.refused(
                entry.subscription,
                self,
                signal.error,
                may_retry=signal.may_retry,
                was_there=entry.is_there,
            )
        self.wake()

    @staticmethod
    def _find(signal: _Named, among: Mapping[Hashable, Entry]) -> Entry | None:
        try:
            if not isinstance(signal, Subscribed):
                entry = among.get((_TOKEN, signal.tag))
                if entry is not None:
                    return entry
            return among.get(signal.tag)
        except TypeError:  # It cannot be hashed.
            return None

    def _heed_late(self, signal: _Named) -> bool:
        """Heed what is about no subscription that is there; whether it was one of ours."""
        entry = self._find(signal, self._late)
        if entry is None:
            return False
        if isinstance(signal, Published):
            entry.has_missed = True
        elif isinstance(signal, Subscribed) and not entry.is_there:
            # It was given up too early.
            if entry.wish.key not in self._entries:
                self._enter(entry)
                self._confirm(entry, signal)
            else:
                # It was asked for again, and once is enough.
                entry.is_there = True
                entry.token = signal.token
                if signal.token is not None:
                    entry.tags.append((_TOKEN, signal.token))
                    self._late[_TOKEN, signal.token] = entry
                self._leaving[entry] = None
                self.wake()
        return True

    def _publish(self, entry: Entry, signal: Published, message: Message) -> None:
        position = signal.position
        if position is None:
            position = self._wanted.position_of(signal.value)
        item = Item(signal.value, position, encoded_size(message), self)
        if not self._protocol.confirms:
            self._confirm(entry, _implied(entry))
        if self._room is not None:
            self._room.hold(message, entry, item)
        elif not self._is_repeated(message):
            self._bring(entry, item)

    def _is_repeated(self, message: Message) -> bool:
        return self._wanted.is_repeated is not None and self._wanted.is_repeated(message)

    def _bring(self, entry: Entry, item: Item) -> None:
        if entry.is_there:
            entry.subscription.publish(item)
        elif not entry.has_missed:
            self._early_size += item.size + MESSAGE_COST
            entry.early.append(item)
            inbox = self._wanted.inbox
            if self._early_size > inbox.max_size + inbox.overrun_size:
                # Nobody can take it yet, and to read on is how the confirmation comes.
                self._wanted.tell_overflow(len(self._take_early(entry)))
                entry.has_missed = True

    def _take_early(self, entry: Entry) -> list[Item]:
        early, entry.early = entry.early, []
        self._early_size -= sum(item.size + MESSAGE_COST for item in early)
        return early

    def _confirm(self, entry: Entry, signal: Subscribed) -> None:
        if entry.is_there:
            return
        entry.is_there = True
        entry.resumed = not entry.has_missed and (
            signal.resumed
            or (signal.position is not None and signal.position == entry.subscription.after)
        )
        self._pending.pop(entry, None)
        if signal.token is not None:
            entry.token = signal.token
            entry.tags.append((_TOKEN, signal.token))
            self._by_tag[_TOKEN, signal.token] = entry
        self._confirmed += 1
        self._confirmed_at = trio.current_time()
        if self._room is None:
            self._take_up(entry)
        self.wake()

    def _take_up(self, entry: Entry, *, meets: bool = False) -> None:
        if entry.subscription in self._wanted:
            self._wanted.taken(
                entry.subscription,
                self,
                asked_after=entry.wish.after,
                resumed=entry.resumed,
                overlaps=entry.overlaps,
                meets=meets,
            )
        for item in self._take_early(entry):
            entry.subscription.publish(item)

    # What the server has.

    def want(self, subscription: Subscription) -> None:
        """Something is wanted that was not, or matters more than before."""
        self._queue.add(subscription)
        self.wake()

    def drop(self, subscription: Subscription) -> None:
        """Something is not wanted any more."""
        entry = self._entries.get(subscription.key)
        if entry is not None and entry.subscription is subscription:
            self._leaving[entry] = None
        self.wake()

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.wish.key] = entry
        self._pending[entry] = None
        if entry.subscription not in self._wanted:
            self._leaving[entry] = None
        for tag in entry.tags:
            self._by_tag[tag] = entry
            self._late.pop(tag, None)

    def _forget(self, entry: Entry) -> None:
        if self._take_early(entry):
            # What follows it is nobody's, also if the confirmation should come after all.
            entry.has_missed = True
        self._pending.pop(entry, None)
        self._leaving.pop(entry, None)
        key = entry.wish.key
        if self._entries.get(key) is entry:
            del self._entries[key]
            wanted = self._wanted.of(key)
            if wanted is not None:
                self._queue.add(wanted)
        for tag in entry.tags:
            if self._by_tag.get(tag) is entry:
                del self._by_tag[tag]
                self._late[tag] = entry
        while len(self._late) > REMEMBERED:
            self._late.popitem(last=False)

    def _is_due(self, subscription: Subscription) -> bool:
        return subscription in self._wanted and subscription.key not in self._entries

    def wake(self) -> None:
        """Look for a difference."""
        self._changed.set()

    # The loop.

    async def restore(self) -> WebSocketError | None:
        """Ask for what is wanted until the server has it all; return what went wrong."""
        began_at = trio.current_time()
        failed: WebSocketError | None = None
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._cancel_when_closed, nursery.cancel_scope)
            failed = await self._keep(until_settled=True)
        if self.connection.closed is not None:
            return ConnectionClosed(self.connection.closed)
        if failed is None:
            if self._room is not None:
                self._restored = set(self._entries.values())
            self._wanted.observe(
                events.SubscriptionsRestored(
                    channel=self._wanted.name,
                    epoch=self.epoch,
                    subscriptions=len(self._entries),
                    resumed=self._resumed,
                    delayed=len(self._wanted) - len(self._entries),
                    duration=trio.current_time() - began_at,
                )
            )
        return failed

    async def run(self) -> None:
        """Keep the server's set in line with what is wanted; until cancelled."""
        async with open_background_nursery() as nursery:
            await self._keep(joins=nursery)

    async def _cancel_when_closed(self, scope: trio.CancelScope) -> None:
        await self.connection.wait_closed()
        scope.cancel()

    async def _keep(
        self, *, until_settled: bool = False, joins: trio.Nursery | None = None
    ) -> WebSocketError | None:
        while True:
            self._changed = trio.Event()
            if self.is_ready and joins is not None:
                for feed in self._wanted.joins():
                    joins.start_soon(feed._join)
            try:
                wake_at = await self._catch_up()
            except ConnectionClosed:
                # Whoever waits for that is told.
                await trio.sleep_forever()
            if until_settled and self._is_settled():
                return None
            # What came meanwhile is a difference of its own.
            with trio.move_on_at(wake_at):
                await self._changed.wait()
            if self._give_up_late() and until_settled and not self._confirmed:
                return EstablishError(
                    f"the server confirmed no subscription within {self._options.timeout:g} s"
                )

    def _is_settled(self) -> bool:
        return (
            not self._pending
            and not self._leaving
            and not self._answers
            and self._queue.first(trio.current_time(), self._is_due) is None
        )

    async def _catch_up(self) -> float:
        """Say what is to be said now; return when there is something to do next."""
        while self._answers:
            await self._say(self._protocol.recognise, "an answer", self._answers.popleft())
        await self._unsubscribe()
        wake_at = math.inf
        asked: list[Entry] = []
        bucket = self._wanted.bucket
        while len(self._pending) < self._options.in_flight:
            now = trio.current_time()
            subscription = self._queue.first(now, self._is_due)
            if subscription is None:
                wake_at = self._queue.wake_at
                break
            if bucket is not None and not bucket.take(now):
                wake_at = bucket.free_at(now)
                break
            entry = await self._ask(subscription)
            if entry is not None:
                asked.append(entry)
            if self._answers:
                # They go first: what has brought one has woken this loop.
                break
        if asked and not self._protocol.confirms:
            start_ping(self.connection, answered=lambda: self._confirm_all(asked))
        return min(wake_at, self._give_up_at())

    async def _say(self, of: object, subject: str, message: str | bytes) -> None:
        try:
            await self.connection.send_message(message)
        except ValueError as error:  # What a user's function has made is no message.
            self._wanted.tell_failed(of, subject, error)

    async def _ask(self, subscription: Subscription) -> Entry | None:
        """Ask for one subscription, unless it cannot be spelled."""
        wish = Wish(
            key=subscription.key,
            parameters=subscription.parameters,
            number=next(self._wanted.numbers),
            after=subscription.after,
        )
        try:
            message = self._protocol.subscribe(wish)
        except Exception as error:  # A user's function, or parameters that it cannot use.
            self._refuse(subscription, error)
            return None
        entry = Entry(subscription, wish, trio.current_time())
        entry.tags = [wish.key if self._protocol.named_by == "key" else wish.number]
        # Listening before asking: the confirmation may come while we still write.
        self._enter(entry)
        try:
            await self.connection.send_message(message)
        except ValueError as error:  # It is no message.
            self._forget(entry)
            self._refuse(subscription, error)
            return None
        return entry

    def _refuse(self, subscription: Subscription, error: Exception) -> None:
        if subscription in self._wanted:
            self._wanted.refused(subscription, self, error, may_retry=False)

    def _confirm_all(self, asked: list[Entry]) -> None:
        for entry in asked:
            if self._entries.get(entry.wish.key) is entry:
                self._confirm(entry, _implied(entry))

    async def _unsubscribe(self) -> None:
        for entry in [entry for entry in self._leaving if entry.is_there]:
            try:
                message = self._protocol.unsubscribe(entry.wish, entry.token)
            except Exception as error:  # A user's function.
                self._wanted.tell_failed(self._protocol.unsubscribe, "unsubscribing", error)
                message = None
            if message is not None:
                await self._say(self._protocol.unsubscribe, "unsubscribing", message)
            self._forget(entry)

    def _give_up_at(self) -> float:
        """When the one that was asked for first has been waited for long enough."""
        for entry in self._pending:
            return max(entry.asked_at, self._confirmed_at) + self._options.timeout
        return math.inf

    def _give_up_late(self) -> bool:
        """Let those back off that were waited for long enough; whether there are some."""
        now = trio.current_time()
        late = []
        for entry in self._pending:
            if max(entry.asked_at, self._confirmed_at) + self._options.timeout > now:
                break
            late.append(entry)
        for entry in late:
            if not self._protocol.confirms:
                # It answers no pings, and has said nothing against it.
                self._confirm(entry, _implied(entry))
                continue
            self._forget(entry)
            if entry.subscription in self._wanted:
                error = WebSocketError(f"not confirmed within {self._options.timeout:g} s")
                self._wanted.refused(
                    entry.subscription, self, error, may_retry=True, was_there=False
                )
        return bool(late)

    async def wait_has_all_of(self, other: Enrolment) -> None:
        """Wait until the server has on this connection whatever it has on another one."""
        while any(
            other in subscription.there and self not in subscription.there
            for subscription in self._wanted
        ):
            await self._wanted.moved.wait()

    # What waits for another connection.

    def hold(self, inbox: Inbox) -> None:
        """Let everything wait: another connection has still to bring what comes before it."""
        self._room = WaitingRoom(inbox.max_size)

    def release(self, inbox: Inbox, *, covers: bool = False) -> None:
        """Let what has waited go its way.

        Args:
            inbox: Where the messages go that are about no subscription.
            covers: Whether the other connection has brought all that comes before.
        """
        if self._room is None:
            return
        room, self._room = self._room, None
        # They are all there: nothing was asked for since the others were restored.
        for entry in tuple(self._entries.values()):
            # The pong says nothing of what was taken after its ping.
            self._take_up(entry, meets=covers and entry in self._restored)
        for entry, item, message in room.values:
            if isinstance(item, SubscriptionEnded):
                # A server may say it twice.
                if self._entries.get(entry.wish.key) is entry:
                    self._heed_end(entry, item)
            elif not self._is_repeated(message):
                self._bring(entry, item)
        inbox.put(*room.end())


def _implied(entry: Entry) -> Subscribed:
    """The confirmation of a server that shows it otherwise."""
    return Subscribed(entry.wish.key)
