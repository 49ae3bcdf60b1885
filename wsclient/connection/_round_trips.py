"""How long pings and pongs take."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs

WINDOW: Final = 100
"""Round trips that the 95th percentile is of: half an hour of pings every 20 s."""

_GAIN: Final = 1 / 8
"""How much a new round trip counts in the smoothed one (RFC 6298 §2.3)."""


@attrs.define
class RoundTrips:
    """Round trips of one connection, in seconds; at least one."""

    last: float
    smoothed: float = attrs.field(init=False)
    minimum: float = attrs.field(init=False)
    _window: deque[float] = attrs.field(init=False, factory=lambda: deque(maxlen=WINDOW))

    def __attrs_post_init__(self) -> None:
        self.smoothed = self.minimum = self.last
        self._window.append(self.last)

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.last = seconds
        self.smoothed += _GAIN * (seconds - self.smoothed)
        self.minimum = min(self.minimum, seconds)
        self._window.append(seconds)

    @property
    def p95(self) -> float:
        """Of the last hundred, 95 in a hundred took no longer."""
        ordered = sorted(self._window)
        return ordered[math.ceil(0.95 * len(ordered)) - 1]
