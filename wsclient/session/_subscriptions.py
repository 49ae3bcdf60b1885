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

_LONGEST_PAUSE = 30.0
"""Seconds between two attempts where the retry policy would give up."""


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
        self.feeds = [first]
        self._backoff = Backoff(retry)
        self._stable_after = retry.stable_after
        self.not_before = -math.inf
        """When it may be asked for again (trio's clock)."""
        self.there: dict[Enrolment, float] = {}
        """On which connections the server has it, and since when."""
        self.broken: _Break | None = None

    @property
    def rank(self) -> tuple[float, int]:
        """Which comes first, when many are asked for."""
        return (-max(feed.priority for feed in self.feeds), self.order)

    @property
    def after(self) -> Any:
        """The position behind which all of its feeds can go on."""
        positions = [feed.after for feed in self.feeds]
        if any(position is None for position in positions):
            return None
        try:
            return min(positions)
        except Exception:  # They have no order: the oldest feed's will do.
            return positions[0]

    def publish(self, item: Item) -> None:
        """Something was published."""
        for feed in self.feeds:
            feed.publish(item)

    def take_up(self, enrolment: Enrolment, gap: Gap | None) -> None:
        """The server has it on one more connection."""
        is_back = not self.there
        self.there[enrolment] = trio.current_time()
        if is_back:
            self.broken = None
            for feed in self.feeds:
                feed.begin(gap)

    def part_from(self, enrolment: Enrolment, broken: _Break) -> None:
        """The server has it no more on a connection, if it had it."""
        since = self.there.pop(enrolment, None)
        if since is None:
            return
        if trio.current_time() - since >= self._stable_after:
            self._backoff.reset()
        if not self.there:
            self.broken = broken
            for feed in self.feeds:
                feed.interrupt()

    def back_off(self, error: Exception) -> float:
        """The server does not take it: ask later; returns in how many seconds."""
        delay = self._backoff.next_delay(error)
        seconds = _LONGEST_PAUSE if delay is None else delay
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
        overlaps: Whether two connections may bring the same.
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
        overlaps: bool,
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
        self._overlaps = overlaps
        self.end = end
        self.numbers: Iterator[int] = itertools.count(1)
        """Tells every time that something is asked for from every other."""
        self._now = now
        self._orders = itertools.count()
        self._wanted: dict[Hashable, Subscription] = {}
        self._enrolments: list[Enrolment] = []
        self._joining: list[Feed] = []
        self._has_ended = False

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
            self.changed()
            return
        if subscription.parameters != feed.parameters:
            raise ValueError(
                f"{feed.key!r} is subscribed to with other parameters: give it another key"
            )
        subscription.feeds.append(feed)
        if subscription.there:
            # The others have gone on since the position that this one begins at.
            gap = self.hole(feed.key, "it has begun later than others of its key")
            feed.begin(None if feed.after is None else gap)

    def remove(self, feed: Feed) -> None:
        """Want it no more."""
        subscription = self._wanted.get(feed.key)
        if subscription is None or feed not in subscription.feeds:
            return
        subscription.feeds.remove(feed)
        if not subscription.feeds:
            del self._wanted[feed.key]
            self.changed()

    def finish(self, *, discard: bool) -> None:
        """The channel has ended: nothing more will come."""
        self._has_ended = True
        for subscription in self:
            for feed in subscription.feeds:
                feed.end(None, discard=discard)

    # What a feed needs.

    @property
    def repeats(self) -> bool:
        """Whether values may come again at any time."""
        return self.protocol.repeats or self._overlaps

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
        """A gap on the present connection."""
        epoch = max((enrolment.epoch for enrolment in self._enrolments), default=0)
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
        if feed not in self._joining:
            self._joining.append(feed)
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
        self._enrolments.append(enrolment)
        return enrolment

    def leave(self, enrolment: Enrolment, reason: str) -> None:
        """A connection is over, or nobody listens to it any more."""
        if enrolment not in self._enrolments:
            return
        self._enrolments.remove(enrolment)
        broken = _Break(enrolment.epoch, enrolment.connection.last_received, reason)
        for subscription in tuple(self):
            subscription.part_from(enrolment, broken)

    def changed(self) -> None:
        """Bring every connection in line with the set."""
        for enrolment in self._enrolments:
            enrolment.wake()

    def joins(self) -> list[Feed]:
        """The feeds that are to join now; each is given once."""
        feeds, self._joining = self._joining, []
        return [feed for feed in feeds if feed.joins]

    def due(self, now: float, enrolled: Callable[[Subscription], bool]) -> list[Subscription]:
        """What is to be asked for on a connection, most important first."""
        due = [
            subscription
            for subscription in self
            if subscription.not_before <= now and not enrolled(subscription)
        ]
        due.sort(key=lambda subscription: subscription.rank)
        return due

    def next_due(self, now: float, enrolled: Callable[[Subscription], bool]) -> float:
        """When the next of those that have to wait is due."""
        return min(
            (
                subscription.not_before
                for subscription in self
                if subscription.not_before > now and not enrolled(subscription)
            ),
            default=math.inf,
        )

    def taken(self, subscription: Subscription, enrolment: Enrolment, *, resumed: bool) -> None:
        """The server has a subscription on a connection."""
        broken = subscription.broken
        gap: Gap | None = None
        if broken is not None and not resumed:
            until = self._now()
            gap = Gap(
                after=broken.epoch,
                before=enrolment.epoch,
                since=until - (trio.current_time() - broken.last_received),
                until=until,
                reason=broken.reason,
                subscription=subscription.key,
            )
        elif not resumed and subscription.after is not None and not subscription.there:
            # It begins where another process has left it.
            gap = self.hole(subscription.key, "the server did not go on where it was asked to")
        subscription.take_up(enrolment, gap)

    def refused(
        self,
        subscription: Subscription,
        enrolment: Enrolment,
        error: Exception | None,
        *,
        may_retry: bool,
    ) -> None:
        """The server does not take a subscription, or has ended it."""
        reason = "the server has ended it" if error is None else str(error)
        broken = _Break(enrolment.epoch, enrolment.connection.last_received, reason)
        subscription.part_from(enrolment, broken)
        retry_in: float | None = None
        if may_retry:
            retry_in = subscription.back_off(error or WebSocketError(reason))
        elif subscription in self:
            del self._wanted[subscription.key]
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
                feed.end(error)
        self.changed()
