"""The supervisor: an accept loop turned inside out.

For each connection: connect, establish, let it live; when it ends, ask the policy, wait, repeat.
It owns the nursery in which the connections' tasks run, and never waits for a dead one to finish
closing: that happens in the nursery, while the next one is being opened.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from wsclient import events
from wsclient.connection import (
    WebSocketConnection,
    attach,
    detach,
    open_background_nursery,
    take_untaken,
)
from wsclient.errors import ChannelFailed, EstablishError, InboxFull, WebSocketError
from wsclient.events import ChannelState, Event, Gap, Outcome
from wsclient.options import RetryBudget

from ._access import Access, Address
from ._budget import Budget
from ._clock import SuspendClock, WallClock, suspend_clock, wall_clock
from ._endpoints import Endpoints
from ._inbox import Inbox
from ._line import Line, Settings, open_line
from ._losses import GiveUp, Losses
from ._outages import Outages
from ._outbox import Outbox
from ._policy import (
    Loss,
    Phase,
    loss_from,
)
from ._rate import Bucket
from ._receipt import Receipt
from ._requests import Requests
from ._sending import Sending
from ._standby import NOTHING, Standby
from ._states import States, Step
from ._subscriptions import Subscriptions
from ._suspend import watch_for_suspend

_SPENT: Final = "the retry budget is spent"


@attrs.frozen
class _Past:
    """A connection that was ready, and is no more."""

    epoch: int
    last_received: float
    ended: str


class Supervisor:
    """Keeps a channel connected.

    Args:
        settings: What to connect to, and how.
        inbox: Where every connection's messages go, and the gaps between them.
        outbox: Where every connection's messages come from.
        bucket: How fast they may go; ``None``: as fast as the peer reads.
        states: The channel's state.
        requests: Told when no reply can come any more.
        subscriptions: What is wanted; ``None`` if the channel can have none.
        observe: Told what happens.
        now: The wall clock.
        suspended: Tells how long the machine has slept; ``None`` asks the system.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        inbox: Inbox,
        outbox: Outbox,
        states: States,
        requests: Requests,
        subscriptions: Subscriptions | None = None,
        bucket: Bucket | None = None,
        observe: Callable[[Event], None],
        now: WallClock = wall_clock,
        suspended: SuspendClock | None = None,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._outbox = outbox
        self._states = states
        self._requests = requests
        self._subscriptions = subscriptions
        self._observe = observe
        self._now = now
        self._suspend_clock = suspended or suspend_clock()
        self._scope = trio.CancelScope()
        self._bucket = bucket
        self._startup = trio.CancelScope()
        self._waiting: trio.CancelScope | None = None
        self._cut_by = ""
        self._endpoints = Endpoints(settings.addresses)
        self._access = Access(settings.headers, settings.credentials, settings.connection)
        self.losses = Losses(settings.retry, self._endpoints, self._access)
        """What followed from each loss so far."""
        self.budget = Budget(settings.retry.budget or RetryBudget())
        """What bounds the attempts."""
        self.outages = Outages(lambda: outbox.outcomes, lambda: outbox.unsent, now)
        """The times between two lives."""
        self.next_attempt_at: float | None = None
        """When the next attempt comes, while waiting for it (trio's clock)."""
        self._past: _Past | None = None
        self._outage: float | None = None
        self.is_resumed = False
        """Whether nothing was missed between the present connection and the one before."""
        self._sending: Sending | None = None
        """How the present connection's messages go out."""
        self._line: Line | None = None
        self._epochs = itertools.count(1)
        self._standby = Standby(
            open_line=self._open_beside,
            enrol=self._enrol_beside,
            part_from=self._part_from_second,
            inbox=inbox,
            retry=settings.retry,
            is_wanted=settings.overlaps,
            is_redundant=settings.redundancy > 1,
            rotate_every=settings.rotate_every,
        )
        self.epoch = 0
        """How many connections there were, the present one included."""
        self.attempts = 0
        """How many attempts there were."""
        self.gaps = 0
        """How many gaps were announced."""
        self.failure: ChannelFailed | None = None
        """Why the channel is ``FAILED``."""
        self.cut_off = 0
        """Messages that the session's end has left unwritten."""
        self.crash: Exception | None = None
        """What has made the session fail otherwise than by a decision; it leaves as itself."""
        self.ended = trio.Event()
        """Set when nothing of the session runs any more."""

    @property
    def is_sending(self) -> bool:
        """Whether messages flow.

        The state says so a moment longer: until the observers were told that the connection is
        lost.
        """
        return self._sending is not None

    def wake_writer(self) -> None:
        """The outbox has something to write."""
        if self._sending is not None:
            self._sending.wake()

    def hurry(self) -> None:
        """Prove at once what can be proven of what was written."""
        if self._sending is not None:
            self._sending.hurry()

    def acknowledged(self) -> None:
        """The peer has acknowledged something."""
        if self._sending is not None:
            self._sending.acknowledged()

    def open_receipts(self) -> list[Receipt]:
        """Of everything that was accepted and has no outcome."""
        in_flight = self._sending.receipts() if self._sending is not None else []
        return in_flight + [entry.receipt for entry in self._outbox.entries()]

    def abort(self) -> None:
        """Cut the present connection: half a message may be on it."""
        if self.connection is not None:
            self.connection.abort()

    def end(self) -> BaseException:
        """What a sender gets once the session is over."""
        if self.failure is None:
            return trio.ClosedResourceError("the channel is closed")
        # One exception for everyone: without the frames of whoever got it before.
        return self.failure.with_traceback(None)

    @property
    def endpoint(self) -> str:
        """Where the connection is, or the next attempt goes: scheme, host and port."""
        return self._endpoints.current.endpoint

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All of them, in the order in which they are tried."""
        return tuple(address.endpoint for address in self._endpoints.addresses)

    @property
    def connection(self) -> WebSocketConnection | None:
        """The connection that lives now."""
        return None if self._line is None else self._line.connection

    def leave(self, *, within: float = 0.0) -> None:
        """Stop connecting and close what is connected: now, or so many seconds from now at last."""
        if within:
            deadline = trio.current_time() + within
            self._scope.deadline = min(self._scope.deadline, deadline)
        else:
            self._scope.cancel()

    def retry_now(self, cause: str = "retry_now() was called") -> bool:
        """Make the next attempt now, if it is being waited for; whether it was."""
        if self._waiting is None:
            return self._standby.hurry()
        self._cut_by = cause
        self._waiting.cancel()
        return True

    @property
    def ready_line(self) -> Line | None:
        """The connection over which messages flow now."""
        line = self._line
        return line if line is not None and line.is_ready else None

    @property
    def is_rotating(self) -> bool:
        """Whether the present connection is to be left once there is a second one."""
        return self._standby.is_rotating

    @property
    def has_standby(self) -> bool:
        """Whether a second connection could take over now, and nothing would be missing."""
        return self._standby.line is not None and self._standby.covers

    def rotate(self, reason: str) -> bool:
        """Leave a ready connection once there is a second one; whether there was one to leave."""
        return self._standby.rotate(reason)

    def reconnect(self, reason: str) -> bool:
        """Leave a ready connection for a new one; whether there was one."""
        if self._line is None or self._states.state is not ChannelState.READY:
            return False
        self._line.leave(reason)
        return True

    async def run(self) -> None:
        """Keep the channel connected until it fails, or is asked to leave."""
        try:
            # It goes on until everything has its outcome.
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._keep_outbox)
                try:
                    await self._keep_session()
                finally:
                    await self._settle()
        finally:
            self.ended.set()

    async def _keep_outbox(self) -> None:
        try:
            await self._outbox.run()
        except Exception as error:
            # What it keeps its messages on is of no use any more, or a bug of ours.
            await self._crash(error)
            raise

    async def _keep_session(self) -> None:
        async with open_background_nursery() as self._nursery:
            if self._suspend_clock is not None:
                self._nursery.start_soon(watch_for_suspend, self._suspend_clock, self._resumed)
            with self._scope:
                try:
                    await self._keep_connected()
                except Exception as error:
                    # A function of the user's (a wait, a classify), or a bug of ours.
                    await self._crash(error)
                    raise
            second = self._standby.take()
            if second is not None:
                self._nursery.start_soon(second.close)
            if self._line is not None:
                await self._line.close()

    async def _keep_connected(self) -> None:
        timeout = self._settings.startup_timeout
        with self._startup:
            self._startup.deadline = trio.current_time() + timeout
            await self._live_on()
        if self._startup.cancelled_caught:
            self._give_up(f"not ready within {timeout:g} s, which is startup_timeout")
        await self._settle()

    async def _live_on(self) -> None:
        """Connect, live, decide, wait, again and again, until a decision is fatal."""
        # Whoever shares the budget may have spent it.
        if self._is_spent() and not await self._wait(0.0, _SPENT):
            return
        while True:
            self.budget.take()
            loss = await self._connect_and_live()
            if loss is None and not self._is_spent():
                self._states.advance(Step.MOVED)
                continue
            delay, cause = 0.0, Step.MOVED.value
            if loss is not None:
                verdict = self.losses.delay_after(loss)
                if isinstance(verdict, GiveUp):
                    self._give_up(verdict.reason)
                    return
                delay, cause = verdict, str(loss.error)
            if not await self._wait(delay, cause):
                return

    def _is_spent(self) -> bool:
        return self.budget.wait_at(trio.current_time()) > 0

    async def _wait(self, delay: float, cause: str) -> bool:
        """Be ``WAITING``, because of ``cause``; false if the channel fails then."""
        may_go_on = True
        try:
            # Before anybody is told of it: whoever is may call retry_now().
            with trio.CancelScope() as self._waiting:
                self._states.advance(Step.LOST, cause)
                may_go_on = await self._sleep(delay)
            was_cut = self._waiting.cancelled_caught
        finally:
            self._waiting = self.next_attempt_at = None
        if may_go_on:
            self._states.advance(Step.WAITED, self._cut_by if was_cut else None)
        else:
            limits = self.budget.settings
            self._give_up(f"{_SPENT}: {limits.attempts:g} attempts in {limits.seconds:g} s")
        return may_go_on

    async def _sleep(self, delay: float) -> bool:
        """Sleep, longer than ``delay`` if the budget is spent; false if the channel fails then."""
        while True:
            allowed = self.budget.delay(delay)
            if allowed is None:
                return False
            rule = self.losses.rule if allowed == delay else _SPENT
            delay = allowed
            self.next_attempt_at = trio.current_time() + delay
            self._observe(events.RetryScheduled(**self._place(), delay=delay, rule=rule))
            await trio.sleep(delay)
            # Others may have been faster.
            if not self._is_spent():
                return True
            delay = 0.0

    def _resumed(self, suspended: float) -> None:
        """The machine has slept: what was known of the path to the peer is old."""
        name = self._settings.name
        self._observe(events.SuspendDetected(channel=name, duration=suspended))
        self.losses.hurry()
        self._standby.begin_anew()
        self.retry_now("the machine was suspended")
        for line in (self._line, self._standby.line):
            if line is not None and line.liveness is not None:
                line.liveness.probe()

    # One connection's life.

    async def _connect_and_live(self) -> Loss | None:
        """Connect, establish, live; return how it ended, ``None`` if the connection was left."""
        self.attempts += 1
        self.outages.add_attempt()
        self.losses.begin_attempt()
        line = await self._open(self._endpoints.current, self.losses.failures + 1)
        if isinstance(line, WebSocketError):
            self.outages.add_failure(str(line))
            return loss_from(line, self._now())
        self._line = line
        self.epoch = line.epoch
        self._states.advance(Step.OPENED)
        line.tell_opened()
        lost = await line.establish()
        if lost is not None:
            self._keep_untaken(line, lost)
        else:
            lost = await self._enrol(line)
        if lost is not None:
            self.outages.add_failure(str(lost))
            return self._part_from(line, lost)
        covers = False
        while True:
            lost = await self._live(line, is_covered=covers)
            loss = self._part_from(line, lost)
            covers = self._standby.covers
            following = self._standby.take()
            if following is None:
                break
            if loss is not None:
                self.losses.note(loss.error)
                self.losses.heed(loss, line.address)
            if covers:
                self._past = None
            self._line = line = following
            self._endpoints.move_to(line.address)
            self.epoch = line.epoch
        assert self._past is not None
        ago = trio.current_time() - self._past.last_received
        self.outages.begin(self._now() - ago, self._past.ended)
        return loss

    async def _enrol(self, line: Line) -> BaseException | None:
        """Let a new connection have the subscriptions that are wanted; return what went wrong."""
        if self._subscriptions is None:
            return None
        line.enrolment = self._subscriptions.enrol(line.connection, line.epoch)
        if not self._subscriptions:
            return None
        self._announce_gap()
        attach(line.connection, line.way_into(self._inbox), NOTHING)
        lost: BaseException | None
        try:
            # What confirms a subscription may stand behind what nobody takes yet.
            with self._inbox.overrun():
                lost = await line.enrolment.restore()
        except InboxFull as error:
            lost = EstablishError("the subscriptions could not be restored: the inbox is full")
            lost.__cause__ = error
        if lost is not None:
            self._past = _Past(line.epoch, line.connection.last_received, str(lost))
        return lost

    async def _enrol_beside(self, line: Line) -> BaseException | None:
        """Likewise, for a second connection: what it brings waits."""
        if self._subscriptions is None:
            return None
        line.enrolment = self._subscriptions.enrol(line.connection, line.epoch)
        if not self._subscriptions:
            return None
        line.enrolment.hold(self._inbox)
        attach(line.connection, line.recorded(line.enrolment.way_aside()), NOTHING)
        return await line.enrolment.restore()

    async def _open(self, address: Address, attempt: int) -> Line | WebSocketError:
        return await open_line(
            self._nursery,
            self._settings,
            address,
            self._access,
            attempt=attempt,
            epochs=self._epochs,
            queue_size=self._inbox.max_items,
            observe=self._observe,
        )

    async def _open_beside(self, failures: int) -> Line | WebSocketError:
        """Open a second connection, once the budget allows it."""
        while True:
            now = trio.current_time()
            address, pause = self._endpoints.beside(failures, now)
            if spent := self.budget.wait_at(now + pause):
                pause += spent + random.uniform(0, 1)
            if not pause:
                break
            # Others may be faster.
            await trio.sleep(pause)
        self.budget.take()
        self.attempts += 1
        line = await self._open(address, failures + 1)
        if isinstance(line, WebSocketError):
            self.losses.heed(loss_from(line, self._now()), address)
        return line

    def _part_from(self, line: Line, lost: BaseException | None) -> Loss | None:
        """Turn away from a connection that was lost (``None``: that is left), and tell so."""
        if self._line is line:
            self._line = None
        detach(line.connection, self._inbox.stale)
        self._inbox.wake_readers()
        if self._subscriptions is not None and line.enrolment is not None:
            reason = f"left: {line.left}" if lost is None else str(lost)
            self._subscriptions.leave(line.enrolment, reason)
        self._nursery.start_soon(line.close)
        if lost is None:
            line.tell_left()
            return None
        loss = loss_from(lost, self._now())
        line.tell_lost(str(lost), loss.code, loss.kind)
        return loss

    def _part_from_second(self, line: Line, lost: BaseException | None) -> None:
        loss = self._part_from(line, lost)
        if loss is not None:
            self.losses.heed(loss, line.address)

    async def _live(self, line: Line, *, is_covered: bool) -> BaseException | None:
        """Let messages flow until the connection is lost; return how, ``None`` if it was left.

        Args:
            line: The connection.
            is_covered: Whether it has brought all that the one before has not.
        """
        ready_at = trio.current_time()
        is_first = self.losses.phase is Phase.STARTUP
        self._announce_gap()
        outage, self._outage = self._outage, None
        if line.enrolment is not None:
            line.enrolment.release(self._inbox)
            line.enrolment.is_ready = True
        self.is_resumed = is_covered or (line.enrolment is not None and line.enrolment.resumed_all)
        self.losses.phase = Phase.STEADY
        self._startup.deadline = math.inf
        over = self.outages.end()
        sending = self._sending = Sending(
            line.connection,
            self._outbox,
            self._bucket,
            channel=self._settings.name,
            epoch=line.epoch,
            observe=self._observe,
        )
        liveness = line.watch_over(sending.ping, sending.spend)
        sending.begin(liveness.way_into(line.way_into(self._inbox)))
        self._standby.begin(line)
        self._states.advance(Step.ESTABLISHED)
        line.tell_ready(
            outage,
            None if over is None else over.attempts,
            resumed=None if is_first else self.is_resumed,
        )
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(sending.run)
                if self._standby.is_wanted:
                    nursery.start_soon(self._standby.run, line)
                lost = await line.watch()
                if lost is None:
                    # It is good: what it has written need not end as unknown.
                    await sending.finish()
                    await self._requests.finish()
        finally:
            line.release()
        code = None if lost is None else loss_from(lost, self._now()).code
        sending.close(code, is_lost=lost is not None, is_followed=self._standby.is_ready)
        self._requests.part()
        self._sending = None
        ended = f"left: {line.left}" if lost is None else str(lost)
        last_received = line.connection.last_received
        self._past = _Past(line.epoch, last_received, ended)
        if trio.current_time() - ready_at >= self._settings.retry.stable_after:
            self.losses.begin_anew()
            self._standby.begin_anew()
        if lost is not None:
            self._standby.back_off(lost)
        return lost

    def _keep_untaken(self, line: Line, lost: BaseException) -> None:
        """Keep what came while the hook was at work: it was received, and a gap follows it.

        Where nobody reads and the inbox is full, it is covered by the gap instead.
        """
        messages, size = take_untaken(line.connection)
        if messages and self._inbox.has_room:
            self._announce_gap()
            line.recorded(self._inbox).put(messages, size)
            self._past = _Past(line.epoch, line.connection.last_received, str(lost))

    def _announce_gap(self) -> None:
        """Put a gap between the last connection's messages and this one's, if there are some."""
        past, self._past = self._past, None
        if past is None:
            return
        outage = self._outage = trio.current_time() - past.last_received
        until = self._now()
        gap = Gap(
            after=past.epoch,
            before=self.epoch,
            since=until - outage,
            until=until,
            reason=past.ended,
        )
        self.gaps += 1
        self.outages.add_gap(gap)
        self._inbox.mark(gap)
        self._observe(events.GapDetected(channel=self._settings.name, gap=gap))

    def _give_up(self, reason: str) -> None:
        """Fail, because of ``reason`` and of the last loss."""
        self.failure = ChannelFailed(f"gave up on {self.endpoint}: {reason}", self.losses.history)
        self.failure.__cause__ = self.losses.last_error

    async def _crash(self, error: Exception) -> None:
        self.losses.note(error)
        self.crash = error
        self._give_up(f"{type(error).__name__}: {error}")
        await self._settle()

    async def _settle(self) -> None:
        """Enter the final state: every message gets its outcome, every waiter wakes."""
        before = self._outbox.outcomes.copy()
        self._outbox.refuse(self.end)
        if self._sending is not None:
            self._sending.close(is_lost=False)
            self._sending = None
        await self._outbox.aclose()
        # Once: meanwhile the outbox itself may have failed, or it has happened before.
        if not self._states.state.is_final:
            self._conclude(before)

    def _conclude(self, before: Counter[Outcome]) -> None:
        self._outbox.settle()
        self._requests.part()
        counts = {
            name: self._outbox.outcomes[outcome] - before[outcome]
            for name, outcome in (
                ("cancelled", Outcome.CANCELLED),
                ("lost_unknown", Outcome.LOST_UNKNOWN),
                ("stored", Outcome.STORED),
            )
        }
        self.cut_off = sum(counts.values())
        name = self._settings.name
        self._inbox.end(discard=self.failure is None)
        if self._subscriptions is not None:
            self._subscriptions.finish(discard=self.failure is None)
        if self.failure is None:
            self._states.advance(Step.CLOSED)
            self._observe(events.ChannelClosed(channel=name, **counts))
        else:
            self._states.advance(Step.GAVE_UP, self.failure.reason)
            self._observe(events.ChannelGaveUp(channel=name, reason=self.failure.reason, **counts))

    def _place(self) -> dict[str, Any]:
        """What every event about an attempt that is to come tells."""
        return {
            "channel": self._settings.name,
            "endpoint": self.endpoint,
            "attempt": self.losses.failures + 1,
        }
