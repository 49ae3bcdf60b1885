"""How long pings and pongs take."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

WINDOW: Final = 100
"""Round trips that the percentiles are of: half an hour of pings every 20 s."""

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

    def percentile(self, hundredths: int) -> float:
        """Of the last hundred, so many in a hundred took no longer."""
        ordered = sorted(self._window)
        return ordered[-(-hundredths * len(ordered) // 100) - 1]
