"""The values of one subscription, across any number of connections.

A feed has a mailbox of its own, so that what one subscription brings is in nobody's way, and goes
through :class:`~._continuity.Continuity`, so that what is missing stands where it is missing.

*Joining.*  Where something may be missing, the user's ``backfill`` can bring it, and ``snapshot``
can make it irrelevant.  Both are asked once the subscription is there, and live values wait
meanwhile: so the stream is read first and the past second, what both have is dropped by its
position, and nothing can fall between the two.  A snapshot that does not reach up to the first live
value is too old, and another one is taken.

*Meeting.*  Two connections bring the same, and one of them is ahead.  A value is let in from those
only that have met the stream: that have brought what the feed had already, or what is next to it.
What another one brings is ahead of what is still to come over the first, and would hide it; so it
is left to that one, and where that one is lost before, a gap is told.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Hashable, Iterable
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeAlias

import attrs
import trio

from wsclient._discretion import forget_locals
from wsclient.connection import failure_in
from wsclient.errors import SubscriptionFailed
from wsclient.events import Gap, Overflow
from wsclient.options import Limits, OverflowPolicy, RetryPolicy

from ._backoff import Backoff
from ._continuity import Continuity, Repeated, WentBack
from ._inbox import Inbox
from ._protocol import Published

Backfill: TypeAlias = Callable[[Gap], Awaitable[Iterable[Any]] | AsyncIterable[Any]]
Commit: TypeAlias = Literal["after", "before"]

_END: Final = object()

_MET: Final = object()
"""The source of what waits, if its connection had met the stream."""

_SNAPSHOTS: Final = 5
"""How many are taken in a row that are too old, before a gap is told instead."""


@attrs.frozen
class Snapshot:
    """The whole state of a stream at one position: what ``snapshot`` gives."""

    value: Any
    """What is received from the feed."""
    position: Any = None
    """Where the stream was when it was taken."""


TakeSnapshot: TypeAlias = Callable[[], Awaitable[Snapshot]]


def check_wish(
    key: object,
    priority: object,
    backfill: object,
    snapshot: object,
    commit: object,
    limits: object,
) -> None:
    """Refuse what ``DurableChannel.subscribe`` cannot use.

    Raises:
        TypeError, ValueError: An argument cannot be used.
    """
    try:
        hash(key)
    except TypeError:
        raise TypeError(f"key must be hashable, not {type(key).__name__}") from None
    for function, name in ((backfill, "backfill"), (snapshot, "snapshot")):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be an async function, not {type(function).__name__}")
    if commit not in ("after", "before"):
        raise ValueError(f'commit must be "after" or "before", not {commit!r}')
    if isinstance(priority, bool) or not isinstance(priority, (int, float)):
        raise TypeError(f"priority must be a number, not {type(priority).__name__}")
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"limits must be Limits, not {type(limits).__name__}")


@attrs.frozen(eq=False)
class Item:
    """A value, as it waits in a feed."""

    value: Any
    position: Any = None
    size: int = 0
    source: object = None
    """Which connection has brought it; ``None`` for the past."""


class Owner(Protocol):
    """What a feed needs of the set that it belongs to."""

    inbox: Inbox
    retry: RetryPolicy
    hook_timeout: float

    def position_of(self, value: Any) -> Any:
        """Where a value stands in its stream."""

    def is_next(self, before: Any, after: Any) -> bool | None:
        """Whether nothing can be between two positions."""

    @property
    def repeats(self) -> bool:
        """Whether values may come again at any time."""

    def hole(self, key: Hashable, reason: str) -> Gap:
        """A gap on the present connection."""

    def add(self, feed: Feed) -> None:
        """Want what ``feed`` is for."""

    def remove(self, feed: Feed) -> None:
        """Want it no more."""

    def needs_join(self, feed: Feed) -> None:
        """Call ``Feed._join`` on a connection that is ready."""

    def tell_gap(self, gap: Gap) -> None:
        """Tell the observers."""

    def tell_overflow(self, dropped: int) -> None:
        """Tell the observers."""

    def tell_failed(self, handler: object, subject: str, error: Exception) -> None:
        """Tell the observers what a user's function has raised."""

    def end(self) -> BaseException:
        """What a taker gets when the channel has ended."""


class Feed:
    """The values of one subscription; ``channel.subscribe`` makes it.

    ``async with`` it, and take: ``async for value in feed``, :meth:`receive`, or :meth:`items`,
    which shows what is missing between the values.
    """

    def __init__(
        self,
        owner: Owner,
        key: Hashable,
        parameters: Any,
        *,
        priority: float,
        after: Any,
        backfill: Backfill | None,
        snapshot: TakeSnapshot | None,
        commit: Commit,
        limits: Limits,
    ) -> None:
        self.key: Final = key
        """What the subscription is called."""
        self.parameters: Final = parameters
        """Whatever else the service is told of it."""
        self.priority: Final = priority
        """Among those that are asked for, the greatest comes first."""
        self.repeated: int = 0
        """Values that came again, and were dropped."""
        self._owner = owner
        self._backfill = backfill
        self._snapshot = snapshot
        self._commits_before = commit == "before"
        self._limits = _of_values(limits)
        self._inbox = Inbox(
            self._limits,
            overflowed=owner.tell_overflow,
            failed=lambda error: owner.tell_failed(limits.inbox_key, "a value's key", error),
            size_of=_size,
            beside=owner.inbox,
        )
        self._continuity = Continuity(owner.is_next, repeats=owner.repeats, last=after)
        self._position = after
        self._taken: Any = None
        # Live values wait here while what was missing is brought.
        self._held: Inbox | None = None
        self._early: list[Any] = []
        # The last position of what waits, and up to which of these the server repeats.
        self._waiting: Any = None
        self._repeats_to: Any = None
        self._may_fill = True
        self._joining: trio.CancelScope | None = None
        # The connections that bring it, and whether they have met it.
        self._sources: dict[object, bool] = {}
        # Of those that have not, up to where they were ahead, and not let in.
        self._ahead: dict[object, Any] = {}
        self._has_begun = False
        self._is_live = False
        self._live = trio.Event()
        self._is_open = False
        self._is_over = False
        self._error: Exception | None = None

    # For who takes.

    @property
    def position(self) -> Any:
        """The position of the last value that was handled; ``None`` where there was none.

        Give it to ``subscribe(after=…)`` to go on there, in another process as well.
        With ``commit="after"`` a value is handled when the next one is asked for, or the ``async
        with`` block ends well.
        """
        return self._position

    @property
    def is_live(self) -> bool:
        """Whether the server has the subscription on the present connection."""
        return self._is_live

    async def wait_live(self) -> None:
        """Wait until the server has the subscription.

        Raises:
            SubscriptionFailed, ChannelFailed, trio.ClosedResourceError: It never will.
        """
        while not self._is_live:
            if self._is_over:
                raise self._ended() or trio.ClosedResourceError("the feed is over")
            await self._live.wait()
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Any:
        """Wait for the next value; cancelling this loses nothing.

        Raises:
            trio.EndOfChannel: The stream has come to its end, or the channel or the feed is closed.
            SubscriptionFailed: The server does not take the subscription, or has ended it.
            ChannelFailed: The channel has given up.
        """
        while True:
            item = await self._take()
            if not isinstance(item, (Gap, Overflow)):
                return item

    def items(self) -> FeedItems:
        """Values and, in order between them, what is missing: ``async for … in feed.items()``.

        A :class:`~wsclient.Gap` or an :class:`~wsclient.Overflow` stands where something is.
        """
        return FeedItems(self._take)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next value.

        Raises:
            SubscriptionFailed, ChannelFailed: As :meth:`receive`.
        """
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def _take(self) -> Any:
        if not self._is_open and not self._is_over:
            raise RuntimeError("a feed is used inside of its `async with` block")
        self._commit()
        try:
            item: Any = await self._inbox.take()
        except trio.EndOfChannel:
            error = self._ended()
            if error is None:
                raise trio.EndOfChannel from None
            raise error from error.__cause__
        if self._inbox.is_mark(item):
            return item
        self._taken = item.position
        if self._commits_before:
            self._commit()
        return item.value

    def _commit(self) -> None:
        if self._taken is not None:
            self._position, self._taken = self._taken, None

    def _ended(self) -> BaseException | None:
        if self._error is not None:
            failure = SubscriptionFailed(self.key, f"{type(self._error).__name__}: {self._error}")
            failure.__cause__ = self._error
            return failure
        if not self._is_open:
            return None
        ended = self._owner.end()
        return None if isinstance(ended, trio.ClosedResourceError) else ended

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        if self._is_open or self._is_over:
            raise RuntimeError("a feed is entered once: subscribe again")
        self._owner.add(self)
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._commit()
        self.close()

    def close(self) -> None:
        """Want the subscription no more; what waits is dropped.

        The server is told if there is a connection; if not, nobody needs to be.
        """
        self._is_open = False
        self._owner.remove(self)
        self._finish(discard=True)

    # For who brings.

    @property
    def _after(self) -> Any:
        """The position behind which the server may go on."""
        # What waits was received, and is newer than all that was let in.
        return self._continuity.last if self._waiting is None else self._waiting

    @property
    def _is_new(self) -> bool:
        """Whether the server has never had the subscription since it was wanted."""
        return not self._has_begun

    def _begin(
        self, gap: Gap | None, *sources: object, overlaps: bool, joins_late: bool = False
    ) -> None:
        """The server has the subscription, and what ``gap`` tells may be missing.

        Args:
            gap: What may be missing.
            sources: The connections that bring it from now on.
            overlaps: Whether others have brought some of it already, or do so still.
            joins_late: Whether the connections have it for longer: nobody knows where they are.
        """
        self._has_begun = True
        self._is_live = True
        self._live.set()
        self._sources = dict.fromkeys(sources, not joins_late)
        self._ahead.clear()
        # What waits may overlap, whatever comes behind it.
        overlaps = overlaps or (self._is_holding and self._continuity.overlaps)
        self._continuity.begin(overlaps=overlaps, resumes=gap is None or joins_late)
        self._repeats_to = None
        if gap is None:
            # What is repeated is what waits, if something does.
            if self._waiting is None:
                self._continuity.expect_repeats()
            self._repeats_to = self._waiting
            # Also where the first snapshot was interrupted: it is wanted still.
            if self._snapshot is not None and self._continuity.last is None:
                self._hold()
        elif self._is_holding:
            self._put_aside(gap)
        else:
            self._doubt(gap)
            if self._recovers:
                self._hold()

    def _widen(self, source: object, *, resumes: bool, meets: bool) -> None:
        """Another connection brings the same.

        Args:
            source: The connection.
            resumes: Whether it goes on where it was asked to.
            meets: Whether all that came before what it brings was received.
        """
        self._continuity.widen(resumes=resumes)
        self._sources[source] = meets and any(self._sources.values())

    def _part_from(self, source: object) -> None:
        """A connection brings it no more."""
        self._sources.pop(source, None)
        self._ahead.pop(source, None)

    def _interrupt(self) -> None:
        """The server has it no more."""
        self._is_live = False
        self._live = trio.Event()

    @property
    def _recovers(self) -> bool:
        return self._snapshot is not None or (
            self._backfill is not None and self._continuity.last is not None
        )

    def _doubt(self, gap: Gap, *, waited: bool = False) -> None:
        self._continuity.raise_doubt(gap, waited=waited)
        if self._continuity.last is None:
            # No position will ever prove that nothing is missing.
            self._tell(self._continuity.doubt)
            self._continuity.settle()

    @property
    def _is_holding(self) -> bool:
        return self._held is not None

    def _publish(self, item: Item) -> None:
        """Something was published."""
        if not self._is_holding:
            self._deliver(item, may_join=True)
        elif not self._is_behind(item):
            if self._sources.get(item.source):
                # By the time that it is let in, its connection may be lost.
                item = attrs.evolve(item, source=_MET)
            self._put_aside(item)

    def _is_behind(self, item: Item) -> bool:
        """Whether a value that is to wait is one that waits already."""
        if self._repeats_to is None or item.position is None:
            return False
        try:
            if item.position <= self._repeats_to:
                self.repeated += 1
                return True
        except Exception as error:  # Positions that have no order.
            self._owner.tell_failed(self._owner.is_next, "a position", error)
        self._repeats_to = None
        return False

    def _deliver(self, item: Item, *, may_join: bool) -> bool:
        """Let a live value in, behind what is told before it; whether it is a new one."""
        continuity = self._continuity
        try:
            if item.source is _MET or self._sources.get(item.source):
                verdict = continuity.follow(item.position, self._hole)
            else:
                verdict = self._meet(item)
        except Exception as error:  # A user's function, or positions that have no order.
            self._owner.tell_failed(self._owner.is_next, "a position", error)
            verdict = continuity.doubt
        if isinstance(verdict, Repeated):
            self.repeated += 1
            return False
        goes_back = isinstance(verdict, WentBack)
        gap = verdict.gap if isinstance(verdict, WentBack) else verdict
        if gap is not None:
            # Nothing can be brought from behind what was taken back.
            brings = self._snapshot or (None if goes_back else self._backfill)
            if may_join and brings is not None:
                self._continuity.raise_doubt(gap)
                self._may_fill = not goes_back
                self._hold()
                self._put_aside(attrs.evolve(item, source=_MET))
                return True
            self._tell(gap)
        continuity.move(item.position)
        self._inbox.put([item], item.size)
        return True

    def _meet(self, item: Item) -> Gap | WentBack | Repeated | None:
        """As ``follow``, for what a connection brings that has not met the stream."""
        continuity = self._continuity
        verdict = continuity.follow(item.position, self._hole)
        if item.position is None:
            return verdict
        if continuity.last is None or continuity.doubt is not None:
            # Here it begins, and the others have not met what is before this.
            self._sources = dict.fromkeys(self._sources, False)
            self._ahead.clear()
            self._has_met(item.source)
            return verdict
        ahead = self._ahead.get(item.source)
        if (
            isinstance(verdict, (Repeated, WentBack))
            or (ahead is not None and ahead <= continuity.last)
            or (verdict is None and self._owner.is_next(continuity.last, item.position))
        ):
            self._has_met(item.source)
            return verdict
        if any(self._sources.values()):
            # It is ahead of those that have, and they will bring it.
            if item.source in self._sources:
                self._ahead[item.source] = item.position
            return Repeated()
        self._has_met(item.source)
        hole = self._hole("the connection was lost that was to bring what is between")
        return attrs.evolve(hole, after_position=continuity.last, before_position=item.position)

    def _has_met(self, source: object) -> None:
        if source in self._sources:  # It may be lost since.
            self._sources[source] = True
            self._ahead.pop(source, None)

    def _hole(self, reason: str) -> Gap:
        return self._owner.hole(self.key, reason)

    def _tell(self, gap: Gap | None) -> None:
        assert gap is not None
        self._inbox.mark(gap)
        self._owner.tell_gap(gap)

    def _hold(self) -> None:
        if self._held is None:
            limits = self._limits
            if self._snapshot is not None and limits.inbox_overflow is OverflowPolicy.BLOCK:
                # What is dropped is older than the snapshot will be.
                limits = attrs.evolve(limits, inbox_overflow=OverflowPolicy.DROP_OLDEST)
            self._held = Inbox(limits, size_of=_size, beside=self._owner.inbox)
            self._owner.needs_join(self)

    def _end(self, error: Exception | None, *, discard: bool = False) -> None:
        """Nothing more will come."""
        if self._is_over:
            return
        forget_locals(error)
        self._error = error
        self._release(may_join=False)
        if self._continuity.doubt is not None and not discard:
            # Nothing comes any more that could remove it.
            self._tell(self._continuity.doubt)
        self._finish(discard=discard)

    def _finish(self, *, discard: bool) -> None:
        self._is_over = True
        self._is_live = False
        self._live.set()
        self._sources.clear()
        self._ahead.clear()
        if self._joining is not None:
            self._joining.cancel()
        if self._held is not None:
            # Else a full one would stop the reading for ever.
            self._held.end(discard=True)
            self._held = self._waiting = None
        self._early.clear()
        self._inbox.end(discard=discard)

    # Joining.

    @property
    def _joins(self) -> bool:
        """Whether :meth:`_join` is to be called."""
        return self._held is not None and self._joining is None

    async def _join(self) -> None:
        """Bring what is missing; cancelled, it is begun anew on the next connection."""
        if not self._joins:
            return  # It was left since.
        with trio.CancelScope() as self._joining:
            try:
                await self._bring_missing()
            finally:
                self._joining = None
                if self._held is not None:
                    # The connection is lost: on the next one it is begun anew.
                    self._owner.needs_join(self)

    async def _bring_missing(self) -> None:
        self._gather()
        gap, may_fill, self._may_fill = self._question(), self._may_fill, True
        if gap is not None and may_fill:
            told_of = len(self._early)
            if await self._fill(gap):
                self._settle(told_of)
                self._release()
                return
        if self._snapshot is not None:
            await self._join_snapshot(self._snapshot)
        self._release(fills=self._snapshot is None)

    def _question(self) -> Gap | None:
        """What is missing, and can be asked for."""
        gap = self._continuity.doubt
        if gap is None or self._backfill is None:
            return None
        later = [item for item in self._early if isinstance(item, Gap)]
        if later:
            # All that is missing in between is asked for with it.
            last = later[-1]
            gap = attrs.evolve(gap, before=last.before, until=last.until, before_position=None)
        return gap

    def _gather(self) -> None:
        """Set apart what is held."""
        assert self._held is not None
        items: list[Any] = self._held.take_all()[0]
        for item in items:
            # So that it counts its marks.
            self._held.is_mark(item)
        self._early += items

    def _settle(self, told_of: int) -> None:
        """Nothing is missing up to the first so many that were gathered."""
        self._continuity.settle()
        early = self._early[:told_of]
        self._early[:told_of] = [item for item in early if not isinstance(item, Gap)]

    async def _fill(self, gap: Gap) -> bool:
        """Ask for what is missing; whether it was brought."""
        assert self._backfill is not None
        try:
            answer = self._backfill(gap)
            if isinstance(answer, AsyncIterable):
                await self._bring_each(answer)
                return True
            with trio.fail_after(self._owner.hook_timeout):
                past = await answer
            for value in past:
                await self._bring(value)
        except BaseException as raised:  # A user's hook may raise anything.
            error = failure_in(raised)
            if error is None:
                raise
            self._owner.tell_failed(self._backfill, "backfill", error)
            return False
        return True

    async def _bring_each(self, past: AsyncIterable[Any]) -> None:
        values = aiter(past)
        try:
            while True:
                with trio.fail_after(self._owner.hook_timeout):
                    value = await anext(values, _END)
                if value is _END:
                    return
                await self._bring(value)
        finally:
            if isinstance(values, AsyncGenerator):
                await values.aclose()

    async def _bring(self, value: Any) -> None:
        if isinstance(value, Published):
            value, position = value.value, value.position
        else:
            position = self._owner.position_of(value)
        verdict = self._continuity.recover(position)
        if isinstance(verdict, Repeated):
            self.repeated += 1
            return
        if verdict is not None:
            self._tell(verdict)
        self._inbox.put([Item(value, position)], 0)
        while not self._inbox.has_room:
            await self._inbox.wait_taken()

    async def _join_snapshot(self, take: TakeSnapshot) -> None:
        backoff = Backoff(self._owner.retry)
        for _ in range(_SNAPSHOTS):
            # What is told of those that are here is older than the snapshot will be.
            self._gather()
            told_of = len(self._early)
            snapshot = await self._take_snapshot(take, backoff)
            self._gather()
            if self._reaches(snapshot.position):
                break
            await trio.sleep(backoff.next_pause(RuntimeError("the snapshot is too old")))
        if self._continuity.doubt is not None:
            self._tell(self._continuity.doubt)
        self._settle(told_of)
        self._continuity.move(snapshot.position)
        self._continuity.expect_repeats()
        self._inbox.put([Item(snapshot.value, snapshot.position)], 0)

    async def _take_snapshot(self, take: TakeSnapshot, backoff: Backoff) -> Snapshot:
        """Take one, however long it takes: the stream is of no use without."""
        while True:
            try:
                with trio.fail_after(self._owner.hook_timeout):
                    snapshot: object = await take()
                if not isinstance(snapshot, Snapshot):
                    raise TypeError(f"snapshot must give Snapshot, not {type(snapshot).__name__}")
                return snapshot
            except BaseException as raised:  # A user's hook may raise anything.
                error = failure_in(raised)
                if error is None:
                    raise
                self._owner.tell_failed(take, "snapshot", error)
                await trio.sleep(backoff.next_pause(error))

    def _reaches(self, position: Any) -> bool:
        """Whether the first live value behind a snapshot's position may be next to it."""
        if position is None:
            return True
        try:
            for item in self._early:
                follows = isinstance(item, Item) and item.position is not None
                if follows and item.position > position:
                    return self._owner.is_next(position, item.position) is not False
        except Exception as error:  # A user's function, or positions that have no order.
            self._owner.tell_failed(self._owner.is_next, "a position", error)
        return True

    def _release(self, *, may_join: bool = True, fills: bool = True) -> None:
        """Let what was held go its way.

        Args:
            may_join: Whether what is missing may be asked for, but for what is missing before the
                first of them: that was asked for just now, in vain.
            fills: Whether that may be the past, right at the beginning.
        """
        if self._held is None:
            return
        self._gather()
        early, self._early, self._held, self._waiting = self._early, [], None, None
        is_first = True
        for item in early:
            if self._is_holding:
                # One before it has begun another join.
                self._put_aside(item)
            elif isinstance(item, Overflow):
                self._inbox.mark(item)
            elif isinstance(item, Item):
                is_new = self._deliver(item, may_join=may_join and not is_first)
                is_first = is_first and not is_new
            else:
                self._doubt(item, waited=True)
                if may_join and self._recovers:
                    # A snapshot may have what comes live behind this, and the past has not.
                    self._may_fill = fills or not is_first
                    self._hold()

    def _put_aside(self, item: Item | Gap | Overflow) -> None:
        assert self._held is not None
        if isinstance(item, Item):
            if item.position is not None and item.source is _MET:
                self._waiting = item.position
            self._held.put([item], item.size)
        else:
            self._held.mark(item)


class FeedItems:
    """An iterator over a feed's values, and what is missing between them."""

    def __init__(self, take: Callable[[], Awaitable[Any]]) -> None:
        self._take = take

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next value, gap or overflow.

        Raises:
            SubscriptionFailed, ChannelFailed: As ``Feed.receive``.
        """
        try:
            return await self._take()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


def _size(item: Item) -> int:
    return item.size


def _of_values(limits: Limits) -> Limits:
    """The same for what waits in a feed."""
    key = limits.inbox_key
    if key is None:
        return limits
    return attrs.evolve(limits, inbox_key=lambda item: key(item.value))
