"""A second connection beside the one over which messages flow.

It is there for one of two reasons: to take over at once when the first one is lost (redundancy), or
so that the first one can be left (rotation).  Either way it is established and read before it is
needed, and what comes over both connections is dropped the second time (``_dedupe.py``).

When can the first one go, and nothing is missing?  What the server says once the second one is
established comes over that one.  What it had said before may still be on its way over the first.
So a ping goes out on the first: the server's pong stands behind all of that (RFC 6455 §5.5.3).
Once it is here, the second one *covers* the first.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from wsclient.connection import (
    attach,
    forget_ping,
    open_background_nursery,
    start_ping,
)
from wsclient.errors import ConnectionClosed, WebSocketError
from wsclient.options import RetryPolicy

from ._backoff import Backoff
from ._inbox import Inbox
from ._line import Line

LONGEST_COVER: Final = 20.0
"""Seconds after which a rotation goes on although the pong has not come: then a gap is told."""

_LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts where the retry policy would give up: the first one lives on."""


class Standby:
    """Keeps a second connection, as long as there is a first one.

    Args:
        open_line: Opens it; is given how many attempts have failed before.
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
        part_from: Callable[[Line, BaseException | None], object],
        inbox: Inbox,
        retry: RetryPolicy,
        is_wanted: bool,
        is_redundant: bool,
        rotate_every: float,
    ) -> None:
        self._open_line = open_line
        self._part_from = part_from
        self._inbox = inbox
        self._retry = retry
        self._is_redundant = is_redundant
        self._rotate_every = rotate_every
        self.is_wanted: Final = is_wanted
        self._first: Line | None = None
        self._reason: str | None = None
        self._wanted = trio.Event()
        self.line: Line | None = None
        """The second connection, once it is established."""
        self.covers = False
        """Whether nothing is missing if the first one goes now."""

    def rotate(self, reason: str) -> bool:
        """Leave the first connection as soon as there is a second; whether there is a first."""
        if self._first is None:
            return False
        self._reason = reason
        self._wanted.set()
        if self.covers:
            self._first.leave(reason)
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
        self._reason = None
        self._wanted = trio.Event()
        self.covers = False
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
        backoff = Backoff(self._retry)
        while True:
            await self._wanted.wait()
            error = await self._hold(first, backoff.failures)
            delay = backoff.next_delay(error)
            await trio.sleep(_LONGEST_PAUSE if delay is None else delay)

    async def _hold(self, first: Line, failures: int) -> BaseException:
        """Open a second connection, and keep it until it is lost; return how."""
        line = await self._open_line(failures)
        if isinstance(line, WebSocketError):
            return line
        line.tell_opened()
        lost: BaseException | None = None
        try:
            lost = await line.establish()
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
                self.covers = False
                self._part_from(line, lost)

    async def _live_beside(self, first: Line, line: Line) -> BaseException | None:
        attach(line.connection, line.watch_over().way_into(self._inbox), _Nothing())
        self.line = line
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._cover, first)
            lost = await line.watch()
        return lost  # noqa: RET504  # The nursery might, for all that mypy knows, end otherwise.

    async def _cover(self, first: Line) -> None:
        ping = start_ping(first.connection)
        try:
            with trio.move_on_after(LONGEST_COVER):
                await ping.resolved.wait()
        finally:
            forget_ping(first.connection, ping)
        self.covers = ping.answered
        if self._reason is not None:
            first.leave(self._reason)


class _Nothing:
    """What a connection draws from that does not carry what is sent."""

    def pull(self) -> None:
        """There is nothing."""
