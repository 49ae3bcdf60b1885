"""The times between two lives of a channel: how long, why, and what they cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from wsclient.events import Gap, Outcome

from ._clock import WallClock

KEPT: Final = 100
"""Outages, the newest ones: a list of what a day was like, not a log."""

CAUSES: Final = 20
"""Causes of one outage: its beginning, and the newest failures."""


@attrs.frozen(kw_only=True)
class Outage:
    """A time in which a channel that had been ready was not."""

    since: float
    """When the last byte came on the connection before (Unix time, seconds)."""
    until: float | None
    """When the channel was ready again (Unix time, seconds); ``None`` if it is not yet."""
    causes: tuple[str, ...]
    """How the connection ended, and then each attempt that failed: the first and the newest 19."""
    attempts: int
    """Attempts at a connection in it, the one that ended it included."""
    lost_unknown: int
    """Messages of which it is not known whether the connection before has carried them."""
    unsent: int
    """Messages that came to nothing while it lasted, and were certainly not sent."""
    gaps: tuple[Gap, ...]
    """What was put between the messages before and after."""

    @property
    def duration(self) -> float | None:
        """Seconds that it lasted; ``None`` if it lasts."""
        return None if self.until is None else self.until - self.since


class Outages:
    """Keeps the outages of one channel.

    Args:
        outcomes: How many receipts ended how, so far.
        unsent: How many of them belong to messages of which not a byte was written.
        now: The wall clock.
    """

    def __init__(
        self,
        outcomes: Callable[[], Mapping[Outcome, int]],
        unsent: Callable[[], int],
        now: WallClock,
    ) -> None:
        self._outcomes = outcomes
        self._unsent = unsent
        self._now = now
        self._past: deque[Outage] = deque(maxlen=KEPT)
        self._present: Outage | None = None
        # As the channel became ready: what was in flight is lost in the last step of a connection.
        self._unknown_before = 0
        self._unsent_before = 0

    def __call__(self) -> tuple[Outage, ...]:
        """All that are kept, oldest first; the last one may last."""
        present = () if self._present is None else (self._counted(self._present),)
        return (*self._past, *present)[-KEPT:]

    def begin(self, since: float, cause: str) -> None:
        """A connection that was ready is no more: its last byte came at ``since`` (Unix time)."""
        self._unsent_before = self._unsent()
        self._present = Outage(
            since=since,
            until=None,
            causes=(cause,),
            attempts=0,
            lost_unknown=0,
            unsent=0,
            gaps=(),
        )

    def add_attempt(self) -> None:
        """An attempt at a connection begins."""
        if self._present is not None:
            self._present = attrs.evolve(self._present, attempts=self._present.attempts + 1)

    def add_failure(self, cause: str) -> None:
        """An attempt has failed, or its connection was not ready."""
        if self._present is not None:
            first, *others = self._present.causes
            causes = (first, *others[2 - CAUSES :], cause)
            self._present = attrs.evolve(self._present, causes=causes)

    def add_gap(self, gap: Gap) -> None:
        """A gap was announced."""
        if self._present is not None:
            self._present = attrs.evolve(self._present, gaps=(*self._present.gaps, gap))

    def end(self) -> Outage | None:
        """The channel is ready; return the outage that this ends."""
        ended = None
        if self._present is not None:
            ended = attrs.evolve(self._counted(self._present), until=self._now())
            self._past.append(ended)
            self._present = None
        self._unknown_before = self._outcomes()[Outcome.LOST_UNKNOWN]
        return ended

    def _counted(self, outage: Outage) -> Outage:
        return attrs.evolve(
            outage,
            lost_unknown=self._outcomes()[Outcome.LOST_UNKNOWN] - self._unknown_before,
            unsent=self._unsent() - self._unsent_before,
        )
