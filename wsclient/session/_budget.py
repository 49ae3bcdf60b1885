"""How many attempts are left, of a budget that channels may share.

What was spent is kept beside the budget and not in it: a ``RetryBudget`` is a setting, which may be
made before trio runs, and outlive a run whose clock means nothing to the next one.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakKeyDictionary

import trio

from wsclient.options import RetryBudget

_Spent: TypeAlias = WeakKeyDictionary[RetryBudget, deque[float]]

_spent: trio.lowlevel.RunVar[_Spent] = trio.lowlevel.RunVar("spent")
"""When attempts began, by the budget that they were charged to."""


class Budget:
    """What one channel sees of a budget.

    Args:
        settings: The budget.
        spent: When attempts began, where that is kept elsewhere than in trio's run.
        clock: Tells the time.
    """

    def __init__(
        self,
        settings: RetryBudget,
        spent: deque[float] | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.settings = settings
        self._own = spent
        self._clock = clock

    def take(self) -> None:
        """Charge an attempt that begins now, also where nothing is left."""
        if math.isinf(self.settings.attempts):
            # In a loop without waits ten minutes are a million attempts to remember.
            return
        now = self._clock()
        self._taken(now).append(now)

    @property
    def left(self) -> float:
        """Attempts that may begin now."""
        return max(0, self.settings.attempts - len(self._taken(self._clock())))

    def wait_at(self, time: float) -> float:
        """Seconds from ``time`` on until an attempt may begin, if none begins before."""
        if math.isinf(self.settings.attempts):
            return 0.0
        taken = self._taken(self._clock())
        surplus = len(taken) - int(self.settings.attempts)
        return max(0.0, taken[surplus] + self.settings.seconds - time) if surplus >= 0 else 0.0

    def delay(self, delay: float) -> float | None:
        """Seconds to wait, at least ``delay``, until an attempt may begin.

        ``None`` if there is to be none, because the budget is spent by then.
        """
        spent = self.wait_at(self._clock() + delay)
        if not spent:
            return delay
        if self.settings.when_spent == "fail":
            return None
        # Whoever shares it should not come all at once.
        return delay + spent + random.uniform(0, 1)

    def _taken(self, now: float) -> deque[float]:
        taken = _shared(self.settings) if self._own is None else self._own
        while taken and taken[0] + self.settings.seconds <= now:
            taken.popleft()
        return taken


def _shared(settings: RetryBudget) -> deque[float]:
    """What was spent of it in this run of trio, by whoever was given it."""
    try:
        spent = _spent.get()
    except LookupError:
        spent = WeakKeyDictionary()
        _spent.set(spent)
    return spent.setdefault(settings, deque())
