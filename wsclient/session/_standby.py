"""A second connection beside the one over which messages flow.

It is there for one of two reasons: to take over at once when the first one is lost (redundancy), or
so that the first one can be left (rotation).  Either way it is established and read before it is
needed, and what comes over both connections is dropped the second time (``_dedupe.py``).

When can the first one go, and nothing is missing?  What the server says once the second one is
established comes over that one.  What it had said before may still be on its way over the first.
So a ping goes out on the first: the server's pong stands behind all of that (RFC 6455 §5.5.3).
Once it is here, the second one *covers* the first.

Until then, what the second one brings waits in it: it is younger than what the first one still has
to bring.  So the order stays that of the server, and where the first one is lost before its pong
has come, the gap stands where something may be missing.

How long is the pong worth waiting for?  Where the first one has answered a ping before, for as long
as it brings anything at all: the pong may stand behind much, and to go on without it would be to go
on without that.  Where it never has, it may be a server that answers none, and we cannot tell: so
not for ever.

And without it?  Where the first one says nothing else either, what it still had to bring may never
come, or too late: it is left, and the gap goes before what the second one brings.  So it does where
the first one is to be left anyway.  Only where it is to stay, and nothing but pongs is missing, are
both read: what it then brings late comes late.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from wsclient.connection import (
    Ping,
    WebSocketConnection,
    asked_at,
    attach,
    forget_ping,
    open_background_nursery,
    round_trips,
    start_ping,
    wait_reading,
)
from wsclient.errors import ConnectionClosed, WebSocketError
from wsclient.options import RetryPolicy

from ._backoff import Backoff
from ._inbox import Inbox
from ._line import Line, cancel_when_closed

LONGEST_COVER: Final = 20.0
"""Seconds after which things go on although the pong has not come: then a gap is told.

Where pings are answered, seconds in which nothing came that it may stand behind.
The time in which we read nothing does not count: the pong may wait behind what nobody takes."""

LONGEST_WAIT: Final = 60.0
"""Seconds after which the first one is left although it has subscriptions that the second one has
not: as long as a subscription that failed once, or a few times, takes to be there."""


class Standby:
    """Keeps a second connection, as long as there is a first one.

    Args:
        open_line: Opens it; is given how many attempts have failed before.
        enrol: Lets it have the subscriptions that are wanted; returns what went wrong.
        part_from: Told of one that was lost, and how; it closes it.
        inbox: Where its messages go.
        retry: How long to wait after a failure.
        is_wanted: Whether it has anything to do, ever.
        is_redundant: Whether there shall be one at all times.
        rotate_every: Seconds after which a connection is left for a younger one.
    """

    def __init__(
        self,
        *,
        open_line: Callable[[int], Awaitable[Line | WebSocketError]],
        enrol: Callable[[Line], Awaitable[BaseException | None]],
        part_from: Callable[[Line, BaseException | None], object],
        inbox: Inbox,
        retry: RetryPolicy,
        is_wanted: bool,
        is_redundant: bool,
        rotate_every: float,
    ) -> None:
        self._open_line = open_line
        self._enrol = enrol
        self._part_from = part_from
        self._inbox = inbox
        self._stable_after = retry.stable_after
        # It outlives the first one: a server that accepts and closes must not see a hot loop.
        self._backoff = Backoff(retry)
        self._not_before = -math.inf
        self._pause: trio.CancelScope | None = None
        self._is_redundant = is_redundant
        self._rotate_every = rotate_every
        self.is_wanted: Final = is_wanted
        self._first: Line | None = None
        self._reason = ""
        self._rotates = trio.Event()
        self._wanted = trio.Event()
        self._ping: Ping | None = None
        self.line: Line | None = None
        """The second connection, once it is established."""

    @property
    def is_rotating(self) -> bool:
        """Whether the first one is to be left."""
        return self._first is not None and self._rotates.is_set()

    @property
    def covers(self) -> bool:
        """Whether nothing is missing if the first one goes now."""
        return self.line is not None and self._ping is not None and self._ping.answered

    @property
    def is_ready(self) -> bool:
        """Whether there is one to :meth:`take`."""
        return self.line is not None and self.line.connection.closed is None

    def rotate(self, reason: str) -> bool:
        """Leave the first connection as soon as there is a second; whether there is a first."""
        if self._first is None:
            return False
        self._reason = reason
        self._rotates.set()
        self._wanted.set()
        return True

    def back_off(self, error: BaseException) -> None:
        """A connection, or an attempt at a second one, was lost: leave time before the next."""
        self._not_before = trio.current_time() + self._backoff.next_pause(error)

    def begin_anew(self) -> None:
        """Count anew: a connection was stable."""
        self._backoff.reset()

    def hurry(self) -> bool:
        """Make the next attempt now, if it is being waited for; whether it was."""
        if self._pause is None:
            return False
        self._pause.cancel()
        return True

    def take(self) -> Line | None:
        """Hand over the second connection, if there is one; it is the first one from now on."""
        line, self.line = self.line, None
        if line is not None and line.connection.closed is not None:
            self._part_from(line, ConnectionClosed(line.connection.closed))
            return None
        return line

    def begin(self, first: Line) -> None:
        """Messages flow over ``first``, from now on."""
        self._first = first
        self._reason = ""
        self._rotates = trio.Event()
        self._wanted = trio.Event()
        if self._is_redundant:
            self._wanted.set()

    async def run(self, first: Line) -> None:
        """Stand by ``first``; until cancelled."""
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._watch_age, first)
                await self._stand_by(first)
        finally:
            self._first = None

    async def _watch_age(self, first: Line) -> None:
        # The clients of a server that was restarted should not rotate in step.
        age = self._rotate_every * random.uniform(0.9, 1.0)
        await trio.sleep_until(first.opened_at + age)
        self.rotate(f"it was open for {trio.current_time() - first.opened_at:.0f} s")

    async def _stand_by(self, first: Line) -> None:
        while True:
            await self._wanted.wait()
            try:
                with trio.CancelScope() as self._pause:
                    await trio.sleep_until(self._not_before)
            finally:
                self._pause = None
            self.back_off(await self._hold(first))

    async def _hold(self, first: Line) -> BaseException:
        """Open a second connection, and keep it until it is lost; return how."""
        line = await self._open_line(self._backoff.failures)
        if isinstance(line, WebSocketError):
            return line
        line.tell_opened()
        lost: BaseException | None = None
        try:
            lost = await line.establish()
            if lost is None:
                lost = await self._enrol(line)
            if lost is None:
                lost = await self._live_beside(first, line)
            assert lost is not None
            return lost
        finally:
            # Cancelled once it is established: the first one is gone, and this one is wanted.
            if self.line is not line or lost is not None:
                if lost is None:
                    line.leave("it is not needed any more")
                self.line = None
                self._part_from(line, lost)

    async def _live_beside(self, first: Line, line: Line) -> BaseException | None:
        self.line = line
        established_at = trio.current_time()
        ping = self._ping = start_ping(first.connection)
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(cancel_when_closed, line.connection, nursery.cancel_scope)
                await _wait_answered(first.connection, ping)
                if first.connection.closed is not None:
                    # This is about to be cancelled, and a gap goes first.
                    await trio.sleep_forever()
            if line.connection.closed is not None:
                return ConnectionClosed(line.connection.closed)
            heard_at = first.connection.last_received
            is_silent = trio.current_time() >= heard_at + LONGEST_COVER
            if not ping.answered and (is_silent or self.is_rotating):
                # The gap goes before what this one brings, and this is about to be cancelled.
                silent_for = trio.current_time() - heard_at
                first.leave(self._reason or f"nothing came on it for {silent_for:.0f} s")
                await trio.sleep_forever()
            if line.enrolment is not None:
                line.enrolment.release(self._inbox, covers=ping.answered)
            way = line.watch_over().way_into(line.way_into(self._inbox))
            attach(line.connection, way, NOTHING)
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._give_way, first, line, ping)
                lost = await line.watch()
            if trio.current_time() - established_at >= self._stable_after:
                self.begin_anew()
            return lost
        finally:
            forget_ping(first.connection, ping)

    async def _give_way(self, first: Line, line: Line, ping: Ping) -> None:
        await self._rotates.wait()
        await _wait_answered(first.connection, ping)
        if first.enrolment is not None and line.enrolment is not None:
            # What the server did not take for a while would be lost with the first one.
            with trio.move_on_after(LONGEST_WAIT):
                await line.enrolment.wait_has_all_of(first.enrolment)
        first.leave(self._reason)


async def _wait_answered(connection: WebSocketConnection, ping: Ping) -> None:
    """Wait for the pong, for as long as it is worth it."""
    while not ping.resolved.is_set():
        read_since = await wait_reading(connection)
        since = max(read_since, ping.sent_at, asked_at(connection, ping))
        if round_trips(connection) is not None:
            # It answers pings: what it brings stands before the pong.
            since = max(since, connection.last_received)
        if trio.current_time() >= since + LONGEST_COVER:
            return
        with trio.move_on_at(since + LONGEST_COVER):
            await ping.resolved.wait()


class _Nothing:
    def pull(self) -> None:
        """There is nothing."""


NOTHING: Final = _Nothing()
"""What a connection draws from that does not carry what is sent."""
