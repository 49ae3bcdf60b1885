"""How many attempts are left, of a budget that channels may share.

What was spent is kept beside the budget and not in it: a ``RetryBudget`` is a setting, which may be
made before trio runs, and outlive a run whose clock means nothing to the next one.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TypeAlias
from weakref import WeakKeyDictionary

import trio

from wsclient.options import RetryBudget

_Spent: TypeAlias = WeakKeyDictionary[RetryBudget, deque[float]]

_spent: trio.lowlevel.RunVar[_Spent] = trio.lowlevel.RunVar("spent")
"""When attempts began, by the budget that they were charged to."""


class Budget:
    """What one channel sees of a budget."""

    def __init__(self, settings: RetryBudget) -> None:
        self.settings = settings

    def take(self) -> None:
        """Charge an attempt that begins now, also where nothing is left."""
        self._taken(trio.current_time()).append(trio.current_time())

    @property
    def left(self) -> float:
        """Attempts that may begin now."""
        return max(0, self.settings.attempts - len(self._taken(trio.current_time())))

    def wait_at(self, time: float) -> float:
        """Seconds from ``time`` on until an attempt may begin, if none begins before."""
        if math.isinf(self.settings.attempts):
            return 0.0
        taken = self._taken(trio.current_time())
        surplus = len(taken) - int(self.settings.attempts)
        return max(0.0, taken[surplus] + self.settings.seconds - time) if surplus >= 0 else 0.0

    def _taken(self, now: float) -> deque[float]:
        try:
            spent = _spent.get()
        except LookupError:
            spent = WeakKeyDictionary()
            _spent.set(spent)
        taken = spent.setdefault(self.settings, deque())
        while taken and taken[0] + self.settings.seconds <= now:
            taken.popleft()
        return taken
