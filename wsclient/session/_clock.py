"""The clocks beside trio's, which times everything else.

The wall clock is for what the world dates.  The other one tells how long the machine has slept,
which trio's clock, as most systems have it, does not notice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, TypeAlias

WallClock: TypeAlias = Callable[[], float]
"""Gives Unix time, in seconds."""

wall_clock: Final[WallClock] = time.time

SuspendClock: TypeAlias = Callable[[], float]
"""Gives the seconds for which the machine has been suspended so far."""


def suspend_clock() -> SuspendClock | None:
    """The system's; ``None`` where it has none."""
    boot: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is None:
        return None
    # In this order: interrupted in between, it may tell too little once, and never too much.
    return lambda: time.clock_gettime(boot) - time.clock_gettime(time.CLOCK_MONOTONIC)


_UNIX_TIME: Final = 10**9
"""Seconds.  Nobody asks for a wait of thirty years; some services send the time itself."""


def retry_after_seconds(value: bytes, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110 §10.2.3).

    Args:
        value: Seconds, an HTTP date, or (not in the RFC, but seen) a Unix time.
        now: Unix time.

    Returns:
        At least 0; ``None`` if it means none of these.
    """
    text = value.decode("latin-1").strip()
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(seconds):
            return None
        return max(0.0, seconds - now if seconds >= _UNIX_TIME else seconds)
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - now)
    except (ValueError, OverflowError):
        return None
