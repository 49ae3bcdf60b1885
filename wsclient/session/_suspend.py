"""Has the machine slept?

Then the peer has not, and the path to it may be gone, but every timer here believes that no time
has passed: a ping that was due in ten seconds is still due in ten seconds.  The clock that goes on
in a suspend tells, if somebody looks at it now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from ._clock import SuspendClock

LOOK_EVERY: Final = 5.0
"""Seconds between two looks: soon after a wake-up, and rarely enough to cost nothing."""

SHORTEST: Final = 1.0
"""Seconds of sleep that matter: no connection dies of less."""


async def watch_for_suspend(clock: SuspendClock, resumed: Callable[[float], object]) -> None:
    """Call ``resumed`` with the length of each suspend, soon after it; runs until cancelled."""
    known = clock()
    while True:
        await trio.sleep(LOOK_EVERY)
        suspended = clock()
        if suspended - known >= SHORTEST:
            resumed(suspended - known)
        known = max(known, suspended)
