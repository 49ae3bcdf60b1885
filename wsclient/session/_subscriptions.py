"""What is wanted: the subscriptions of a channel, whether there is a connection or not.

The set is the user's, and changes at once.  What the server has of it is a matter of each
connection (``_enrolment.py``), which is brought in line with the set: now, or when there is a
connection again.  So nothing is replayed that was said and taken back during an outage.

Several feeds of one key share what is on the wire.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import attrs
import trio

from wsclient import events
from wsclient.connection import WebSocketConnection
from wsclient.errors import WebSocketError
from wsclient.events import Event, Gap
from wsclient.options import RetryPolicy, SubscriptionOptions

from ._backoff import Backoff
from ._clock import WallClock, wall_clock
from ._enrolment import Enrolment
from ._feed import Feed, Item
from ._inbox import Inbox, Message
from ._protocol import Protocol
from ._rate import Bucket


@attrs.frozen
class _Break:
    """Where a subscription was lost."""

    epoch: int
    last_received: float
    reason: str


class Subscription:
    """What is wanted of one key.

    Args:
        first: The feed that wants it first.
        order: Tells it from those of the same priority.
        retry: How long to wait when the server does not take it.
    """

    def __init__(self, first: Feed, order: int, retry: RetryPolicy) -> None:
        self.key: Hashable = first.key
        self.parameters: Any = first.parameters
        self.order = order
        # In order: the oldest first.
        self.feeds: dict[Feed, None] = {first: None}
        self._backoff = Backoff(retry)
        self._stable_after = retry.stable_after
        self.not_before = -math.inf
        """When it may be asked for again (trio's clock)."""
        self.there: dict[Enrolment, float] = {}
        """On which connections the server has it, and since when."""
        self.taken = 0
        """How often a connection was asked for it, and had it."""
        self.overlaps = False
        """Whether several connections have brought the same since it was there again."""
        self.broken: _Break | None = None
        """Where it was lost last."""

    @property
    def rank(self) -> tuple[float, int]:
        """Which comes first, when many are asked for."""
        return (-max(feed.priority for feed in self.feeds), self.order)

    @property
    def after(self) -> Any:
        """The position behind which all of its feeds can go on.

        A feed that has none yet has missed nothing that the others have.
        """
        positions = [feed._after for feed in self.feeds if feed._after is not None]
        try:
            return min(positions, default=None)
        except Exception:  # They have no order: the oldest feed's will do.
            return positions[0]

    def publish(self, item: Item) -> None:
        """Something was published."""
        # An observer that is told of it may leave one.
        for feed in tuple(self.feeds):
            feed._publish(item)

    def take_up(
        self,
        enrolment: Enrolment,
        gap_of: Callable[[Feed], Gap | None],
        *,
        resumes: bool,
        meets: bool,
    ) -> None:
        """The server has it on one more connection.

        Args:
            enrolment: The connection.
            gap_of: What a feed may have missed, where there was no other one.
            resumes: Whether it goes on where it was asked to.
            meets: Whether all that came before what it brings was received.
        """
        is_back = not self.there
        self.taken += 1
        self.there[enrolment] = trio.current_time()
        if is_back:
            for feed in self.feeds:
                feed._begin(gap_of(feed), enrolment, overlaps=self.overlaps)
            return
        self.overlaps = True
        for feed in self.feeds:
            feed._widen(enrolment, resumes=resumes, meets=meets)

    def part_from(self, enrolment: Enrolment, broken: _Break) -> None:
        """The server has it no more on a connection, if it had it."""
        since = self.there.pop(enrolment, None)
        if since is None:
            return
        if trio.current_time() - since >= self._stable_after:
            self._backoff.reset()
        for feed in self.feeds:
            feed._part_from(enrolment)
        if not self.there:
            self.broken = broken
            for feed in self.feeds:
                feed._interrupt()

    def back_off(self, error: Exception) -> float:
        """The server does not take it: ask later; returns in how many seconds."""
        seconds = self._backoff.next_pause(error)
        self.not_before = trio.current_time() + seconds
        return seconds


class Subscriptions:
    """The subscriptions that a channel wants.

    Args:
        protocol: How the service spells them.
        options: How they are asked for.
        retry: How long to wait for one that the server does not take.
        inbox: The channel's, which the same readers fill.
        bucket: How fast messages may go.
        name: The channel's name, for events.
        observe: Told what happens.
        is_repeated: Says whether a message has come over another connection.
        end: What a taker gets when the channel has ended.
        now: The wall clock.
    """

    def __init__(
        self,
        protocol: Protocol,
        options: SubscriptionOptions,
        retry: RetryPolicy,
        inbox: Inbox,
        bucket: Bucket | None,
        *,
        name: str,
        observe: Callable[[Event], None],
        is_repeated: Callable[[Message], bool] | None,
        end: Callable[[], BaseException],
        now: WallClock = wall_clock,
    ) -> None:
        self.protocol = protocol
        self.options = options
        self.retry = retry
        self.inbox = inbox
        self.bucket = bucket if options.rate is None else Bucket(options.rate)
        self.hook_timeout = options.hook_timeout
        self.name = name
        self.observe = observe
        self.is_repeated = is_repeated
        self.end = end
        self.numbers: Iterator[int] = itertools.count(1)
        """Tells every time that something is asked for from every other."""
        self._now = now
        self._orders = itertools.count()
        self._wanted: dict[Hashable, Subscription] = {}
        self._enrolments: dict[Enrolment, None] = {}
        self._epoch = 0
        """Of the connection that was lost last."""
        self._joining: dict[Feed, None] = {}
        self._has_ended = False
        self.moved = trio.Event()
        """Set, and replaced, when the server has one more on a connection, or one less."""

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._wanted.values())

    def __contains__(self, subscription: Subscription) -> bool:
        return self._wanted.get(subscription.key) is subscription

    @property
    def there(self) -> int:
        """How many the server has."""
        return sum(bool(subscription.there) for subscription in self)

    # The user's side.

    def add(self, feed: Feed) -> None:
        """Want what ``feed`` is for.

        Raises:
            ValueError: It is wanted already, with other parameters.
            trio.ClosedResourceError, ChannelFailed: The channel has ended.
        """
        if self._has_ended:
            raise self.end()
        subscription = self._wanted.get(feed.key)
        if subscription is None:
            subscription = Subscription(feed, next(self._orders), self.retry)
            self._wanted[feed.key] = subscription
            self._want(subscription)
            return
        if subscription.parameters != feed.parameters:
            raise ValueError(
                f"{feed.key!r} is subscribed to with other parameters: give it another key"
            )
        subscription.feeds[feed] = None
        if subscription.there:
            # The others have gone on since the position that this one begins at.
            gap = self.hole(feed.key, "it has begun later than others of its key")
            feed._begin(
                None if feed._after is None else gap,
                *subscription.there,
                overlaps=subscription.overlaps,
                joins_late=True,
            )
        else:
            # It may matter more than the others.
            self._want(subscription)

    def remove(self, feed: Feed) -> None:
        """Want it no more."""
        subscription = self._wanted.get(feed.key)
        if subscription is None or feed not in subscription.feeds:
            return
        del subscription.feeds[feed]
        if not subscription.feeds:
            self._drop(subscription)

    def _want(self, subscription: Subscription) -> None:
        for enrolment in self._enrolments:
            enrolment.want(subscription)

    def _drop(self, subscription: Subscription) -> None:
        del self._wanted[subscription.key]
        for enrolment in self._enrolments:
            enrolment.drop(subscription)
        self._tell_moved()

    def _tell_moved(self) -> None:
        self.moved.set()
        self.moved = trio.Event()

    def finish(self, *, discard: bool) -> None:
        """The channel has ended: nothing more will come."""
        self._has_ended = True
        # An observer that is told what was missing may leave a feed.
        wanted, self._wanted = self._wanted, {}
        for subscription in wanted.values():
            for feed in subscription.feeds:
                feed._end(None, discard=discard)
        self._enrolments.clear()

    # What a feed needs.

    @property
    def repeats(self) -> bool:
        """Whether values may come again at any time."""
        return self.protocol.repeats

    def position_of(self, value: Any) -> Any:
        """Where a value stands in its stream."""
        try:
            return self.protocol.position(value)
        except Exception as error:  # A user's function; the value is worth having all the same.
            self.tell_failed(self.protocol, "a position", error)
            return None

    def is_next(self, before: Any, after: Any) -> bool | None:
        """Whether nothing can be between two positions."""
        return self.protocol.is_next(before, after)

    def hole(self, key: Hashable, reason: str) -> Gap:
        """A gap on the present connection, or the last one."""
        epoch = max((enrolment.epoch for enrolment in self._enrolments), default=self._epoch)
        now = self._now()
        return Gap(
            after=epoch,
            before=epoch,
            since=now,
            until=now,
            reason=reason,
            subscription=key,
        )

    def needs_join(self, feed: Feed) -> None:
        """Let a feed join on a connection that is ready."""
        self._joining[feed] = None
        self.changed()

    def tell_gap(self, gap: Gap) -> None:
        """Tell the observers of values that may be missing.

        Where no position shows it, it is the channel's gap once more, and that was told.
        """
        if gap.after_position is not None:
            self.observe(events.GapDetected(channel=self.name, gap=gap))

    def tell_overflow(self, dropped: int) -> None:
        """Tell the observers of values that nobody took in time."""
        self.observe(events.InboxOverflowed(channel=self.name, dropped=dropped))

    def tell_failed(self, handler: object, subject: str, error: Exception) -> None:
        """Tell the observers what a user's function has raised."""
        name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
        self.observe(
            events.HandlerFailed(channel=self.name, handler=name, subject=subject, error=error)
        )

    # The connections' side.

    def enrol(self, connection: WebSocketConnection, epoch: int) -> Enrolment:
        """What the server has on a new connection: nothing yet."""
        enrolment = Enrolment(self, connection, epoch)
        self._enrolments[enrolment] = None
        return enrolment

    def leave(self, enrolment: Enrolment, reason: str) -> None:
        """A connection is over, or nobody listens to it any more."""
        self._enrolments.pop(enrolment, None)
        self._epoch = enrolment.epoch
        broken = _Break(enrolment.epoch, enrolment.connection.last_received, reason)
        for subscription in self:
            subscription.part_from(enrolment, broken)
        self._tell_moved()

    def changed(self) -> None:
        """Bring every connection in line with the set."""
        for enrolment in self._enrolments:
            enrolment.wake()

    def joins(self) -> list[Feed]:
        """The feeds that are to join now; each is given once."""
        feeds, self._joining = self._joining, {}
        return [feed for feed in feeds if feed._joins]

    def of(self, key: Hashable) -> Subscription | None:
        """What is wanted of a key, if something is."""
        return self._wanted.get(key)

    def taken(
        self,
        subscription: Subscription,
        enrolment: Enrolment,
        *,
        asked_after: Any,
        resumed: bool,
        overlaps: bool,
        meets: bool,
    ) -> None:
        """The server has a subscription on a connection.

        Args:
            subscription: Which.
            enrolment: On which.
            asked_after: Behind which position it was asked to go on.
            resumed: Whether it does so.
            overlaps: Whether another connection had it when it was asked.
            meets: Whether all that came before what this one brings was received.
        """
        broken = subscription.broken

        def gap_of(feed: Feed) -> Gap | None:
            if resumed and _reaches_to(asked_after, feed._after):
                return None
            if feed._is_new:
                if feed._after is None:
                    return None
                # It begins where another process has left it.
                return self.hole(feed.key, "the server did not go on where it was asked to")
            assert broken is not None
            until = self._now()
            return Gap(
                after=broken.epoch,
                before=enrolment.epoch,
                since=until - (trio.current_time() - broken.last_received),
                until=until,
                reason=broken.reason,
                subscription=feed.key,
            )

        subscription.overlaps = overlaps
        subscription.take_up(enrolment, gap_of, resumes=resumed, meets=meets)
        self._tell_moved()

    def refused(
        self,
        subscription: Subscription,
        enrolment: Enrolment,
        error: Exception | None,
        *,
        may_retry: bool,
        was_there: bool = True,
    ) -> None:
        """The server does not take a subscription, or has ended it."""
        if not was_there and subscription.there:
            # It is good on another connection, until that one is lost.
            may_retry = True
        reason = "the server has ended it" if error is None else str(error)
        broken = _Break(enrolment.epoch, enrolment.connection.last_received, reason)
        subscription.part_from(enrolment, broken)
        self._tell_moved()
        retry_in: float | None = None
        if may_retry:
            retry_in = subscription.back_off(error or WebSocketError(reason))
        else:
            self._drop(subscription)
        if error is not None:
            self.observe(
                events.SubscriptionRefused(
                    channel=self.name,
                    epoch=enrolment.epoch,
                    subscription=str(subscription.key),
                    error=error,
                    retry_in=retry_in,
                )
            )
        if not may_retry:
            for feed in subscription.feeds:
                feed._end(error)


def _reaches_to(asked_after: Any, last: Any) -> bool:
    """Whether a stream that goes on behind one position has all that is missing behind another."""
    if last is None:
        return True
    try:
        return asked_after is not None and bool(asked_after <= last)
    except Exception:  # They have no order.
        return bool(asked_after == last)
