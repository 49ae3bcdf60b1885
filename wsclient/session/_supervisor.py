"""The supervisor: an accept loop turned inside out.

For each connection: connect, establish, let it live; when it ends, ask the policy, wait, repeat.
It owns the nursery in which the connections' tasks run, and never waits for a dead one to finish
closing: that happens in the nursery, while the next one is being opened.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from wsclient import events
from wsclient.connection import (
    WebSocketConnection,
    detach,
    open_background_nursery,
    take_untaken,
)
from wsclient.errors import ChannelFailed, HandshakeError
from wsclient.events import Event, Gap, Outcome

from ._backoff import Backoff
from ._clock import SuspendClock, WallClock, suspend_clock, wall_clock
from ._inbox import Inbox
from ._line import Line, Settings, open_line
from ._outbox import Outbox
from ._policy import Decision, Fatal, Loss, Phase, Retry, classify, loss_from, rule_for
from ._rate import Bucket
from ._receipt import Receipt
from ._sending import Sending
from ._states import States, Step
from ._suspend import watch_for_suspend

HISTORY_SIZE: Final = 10
"""Endings that a failure tells of."""

LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds: a server that asks for more is asked again after an hour."""


@attrs.define
class _Streak:
    """Losses in a row that fell under one rule."""

    rule: str
    since: float
    count: int = 0


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
        states: The channel's state.
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
        observe: Callable[[Event], None],
        now: WallClock = wall_clock,
        suspended: SuspendClock | None = None,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._outbox = outbox
        self._states = states
        self._observe = observe
        self._now = now
        self._suspend_clock = suspended or suspend_clock()
        self._wait = trio.CancelScope()
        self._scope = trio.CancelScope()
        rate = outbox.options.rate
        self._bucket = Bucket(rate) if rate is not None else None
        self._backoff = Backoff(settings.retry)
        self._streak: _Streak | None = None
        self._history: deque[BaseException] = deque(maxlen=HISTORY_SIZE)
        self._phase = Phase.STARTUP
        self._past: _Past | None = None
        self._sending: Sending | None = None
        """How the present connection's messages go out."""
        self._line: Line | None = None
        self._epochs = itertools.count(1)
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
    def connection(self) -> WebSocketConnection | None:
        """The connection that lives now."""
        return None if self._line is None else self._line.connection

    @property
    def last_error(self) -> BaseException | None:
        """How the last connection, or attempt at one, ended."""
        return self._history[-1] if self._history else None

    def leave(self, *, within: float = 0.0) -> None:
        """Stop connecting and close what is connected: now, or so many seconds from now at last."""
        if within:
            deadline = trio.current_time() + within
            self._scope.deadline = min(self._scope.deadline, deadline)
        else:
            self._scope.cancel()

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
            if self._line is not None:
                await self._line.close()

    async def _keep_connected(self) -> None:
        decide = self._settings.retry.classify or classify
        while True:
            loss = self._count(await self._connect_and_live())
            decision: Decision = decide(loss, self._phase)
            delay = self._delay(loss, decision)
            if delay is None:
                await self._fail(loss, decision)
                return
            self._states.advance(Step.LOST, str(loss.error))
            self._observe(events.RetryScheduled(**self._place(), delay=delay, rule=decision.reason))
            with trio.move_on_after(delay) as self._wait:
                await trio.sleep_forever()
            self._states.advance(Step.WAITED)

    def _resumed(self, suspended: float) -> None:
        """The machine has slept: what was known of the path to the peer is old."""
        name = self._settings.name
        self._observe(events.SuspendDetected(channel=name, duration=suspended))
        self._backoff.reset()
        self._wait.cancel()
        if self._line is not None and self._line.liveness is not None:
            self._line.liveness.probe()

    # One connection's life.

    async def _connect_and_live(self) -> Loss:
        """Connect, establish, live; return how it ended."""
        self.attempts += 1
        line = await open_line(
            self._nursery,
            self._settings,
            self._place(),
            epochs=self._epochs,
            queue_size=self._inbox.max_items,
            observe=self._observe,
        )
        if isinstance(line, HandshakeError):
            return loss_from(line, self._now())
        self._line = line
        self.epoch = line.epoch
        self._states.advance(Step.OPENED)
        line.tell_opened()
        lost = await line.establish()
        ready = lost is None
        if lost is None:
            lost = await self._live(line)
        else:
            self._keep_untaken(line, lost)
        self._line = None
        detach(line.connection, self._inbox.stale)
        self._inbox.wake_readers()
        self._nursery.start_soon(line.close)
        loss = loss_from(lost, self._now())
        line.tell_lost(str(lost), loss.code, ready=ready)
        return loss

    async def _live(self, line: Line) -> BaseException:
        """Let messages flow until the connection is lost; return how."""
        ready_at = trio.current_time()
        outage = self._announce_gap()
        self._phase = Phase.STEADY
        sending = self._sending = Sending(
            line.connection,
            self._outbox,
            self._bucket,
            channel=self._settings.name,
            epoch=line.epoch,
            observe=self._observe,
        )
        sending.begin(line.watch_over(sending.ping).way_into(self._inbox))
        self._states.advance(Step.ESTABLISHED)
        line.tell_ready(outage)
        async with open_background_nursery() as nursery:
            nursery.start_soon(sending.run)
            lost = await line.watch()
        sending.close(loss_from(lost, self._now()).code)
        self._past = _Past(line.epoch, line.connection.last_received, str(lost))
        if trio.current_time() - ready_at >= self._settings.retry.stable_after:
            self._backoff.reset()
            self._streak = None
        return lost

    def _keep_untaken(self, line: Line, lost: BaseException) -> None:
        """Keep what came while the hook was at work: it was received, and a gap follows it.

        Where nobody reads and the inbox is full, it is covered by the gap instead.
        """
        messages, size = take_untaken(line.connection)
        if messages and self._inbox.has_room:
            self._announce_gap()
            self._inbox.put(messages, size)
            self._past = _Past(line.epoch, line.connection.last_received, str(lost))

    def _announce_gap(self) -> float | None:
        """Put a gap between the last connection's messages and this one's; return its length."""
        past = self._past
        if past is None:
            return None
        outage = trio.current_time() - past.last_received
        until = self._now()
        gap = Gap(
            after=past.epoch,
            before=self.epoch,
            since=until - outage,
            until=until,
            reason=past.ended,
        )
        self.gaps += 1
        self._inbox.mark(gap)
        self._observe(events.GapDetected(channel=self._settings.name, gap=gap))
        return outage

    # What a loss means.

    def _count(self, loss: Loss) -> Loss:
        """Say how often in a row its rule has been met."""
        self._history.append(loss.error)
        rule = rule_for(loss).name
        now = trio.current_time()
        if self._streak is None or self._streak.rule != rule:
            self._streak = _Streak(rule, now)
        self._streak.count += 1
        return attrs.evolve(
            loss, repeated=self._streak.count, repeated_for=now - self._streak.since
        )

    def _delay(self, loss: Loss, decision: Decision) -> float | None:
        """Seconds until the next attempt; ``None`` for none."""
        if isinstance(decision, Fatal):
            return None
        if not isinstance(decision, Retry):
            raise TypeError(
                "RetryPolicy.classify must return Retry, RetryFreshAuth, NextEndpoint or Fatal,"
                f" not {decision!r}"
            )
        delay = self._backoff.next_delay(loss.error)
        if delay is None:
            return None
        if decision.delay is not None:
            delay = random.uniform(*decision.delay)
        if loss.retry_after is not None:
            asked = min(loss.retry_after, LONGEST_RETRY_AFTER)
            # Never earlier than asked, and not all clients at once.
            delay = max(delay, asked + random.uniform(0, 1 + asked / 10))
        return delay

    async def _fail(self, loss: Loss, decision: Decision) -> None:
        reason = (
            decision.reason
            if isinstance(decision, Fatal)
            else f"RetryPolicy.stop after {self._backoff.failures} failures: {loss.error}"
        )
        self.failure = ChannelFailed(
            f"gave up on {self._settings.endpoint}: {reason}", tuple(self._history)
        )
        self.failure.__cause__ = loss.error
        await self._settle()

    async def _crash(self, error: Exception) -> None:
        self._history.append(error)
        self.failure = ChannelFailed(
            f"gave up on {self._settings.endpoint}: {type(error).__name__}: {error}",
            tuple(self._history),
        )
        self.failure.__cause__ = self.crash = error
        await self._settle()

    async def _settle(self) -> None:
        """Enter the final state: every message gets its outcome, every waiter wakes."""
        before = self._outbox.outcomes.copy()
        self._outbox.refuse(self.end)
        if self._sending is not None:
            self._sending.close(None)
        await self._outbox.aclose()
        # Once: meanwhile the outbox itself may have failed, or it has happened before.
        if not self._states.state.is_final:
            self._conclude(before)

    def _conclude(self, before: Counter[Outcome]) -> None:
        self._outbox.settle()
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
        if self.failure is None:
            self._states.advance(Step.CLOSED)
            self._observe(events.ChannelClosed(channel=name, **counts))
        else:
            self._states.advance(Step.GAVE_UP, self.failure.reason)
            self._observe(events.ChannelGaveUp(channel=name, reason=self.failure.reason, **counts))

    def _place(self) -> dict[str, Any]:
        """What every event about a connection tells."""
        return {
            "channel": self._settings.name,
            "endpoint": self._settings.endpoint,
            "attempt": self._backoff.failures + 1,
        }
