"""How long to wait before the next attempt, in tenacity's algebra of waits and stops.

tenacity computes, and nothing more: its own loop sleeps on a clock of its own, knows no connection
that was stable for a while, and could not be told to wait less.  So the supervisor drives the
loop, and fills the state that tenacity's waits and stops look at, with times from trio's clock:
``stop_after_delay`` then obeys a test's ``MockClock``, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import tenacity
import trio
from tenacity.wait import wait_base, wait_chain, wait_fixed, wait_random

from wsclient.options import RetryPolicy

CAP: Final = 30.0
"""Seconds.  A feed that is back should be noticed within half a minute."""

FLOOR: Final = 0.25
"""Seconds.  No delay is near zero, whatever chance says."""

_LONGEST: Final = 7 * 24 * 3600.0
"""Seconds.  A wait of a week is long enough for any policy; infinity would be a hang."""

_BASE: Final = 0.5
_LARGEST_EXPONENT: Final = 16  # 2^16 · 0.5 s is far above any cap, and far below any overflow.


class wait_equal_jitter(wait_base):  # noqa: N801  # Named as tenacity names its waits.
    """``U(0.5, 1) · min(cap, base · 2^k)``, where ``k`` counts the failures before the last.

    Half of it is certain, half is chance: clients that fell together come back apart, at the cap,
    too, where jitter that is added before the cap has no effect.
    """

    def __init__(self, base: float, cap: float) -> None:
        self._base = base
        self._cap = cap

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        exponent = min(retry_state.attempt_number - 1, _LARGEST_EXPONENT)
        return random.uniform(0.5, 1) * min(self._cap, self._base * 2.0**exponent)


def default_wait(cap: float = CAP) -> Callable[[Any], float]:
    """What ``RetryPolicy.wait`` is by default, or the same with another cap.

    ``U(0, 1)`` after the first failure, so that a blip costs little; then
    ``0.25 + U(0.5, 1) · min(cap, 0.5 · 2^k)``, growing to the cap.

    Args:
        cap: Seconds; no wait is longer, but for the 0.25 s.

    Raises:
        ValueError: ``cap`` is not above 0.
    """
    if not cap > 0:
        raise ValueError(f"cap must be above 0, not {cap!r}")
    wait: Callable[[Any], float] = wait_chain(
        wait_random(0, 1), wait_fixed(FLOOR) + wait_equal_jitter(_BASE, cap)
    )
    return wait


_DEFAULT_WAIT: Final = default_wait()


_LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts where the policy would give up, and something else lives on."""


class Backoff:
    """The delays of one channel, by its policy.

    Args:
        policy: What to go by.
        clock: Tells the time.
    """

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._wait = _DEFAULT_WAIT if policy.wait is None else policy.wait
        self._stop = policy.stop
        self._state: tenacity.RetryCallState | None = None

    @property
    def failures(self) -> int:
        """How many there were since the last stable connection."""
        return 0 if self._state is None else self._state.attempt_number

    def reset(self) -> None:
        """A connection was stable: count anew."""
        self._state = None

    def next_pause(self, error: BaseException) -> float:
        """Seconds to wait after a failure, where giving up is no choice."""
        delay = self.next_delay(error)
        return _LONGEST_PAUSE if delay is None else delay

    def next_delay(self, error: BaseException) -> float | None:
        """Seconds to wait after a failure; ``None`` to give up.

        Raises:
            ValueError: The user's wait gave something else than seconds.
        """
        now = self._clock()
        state = self._state
        if state is None:
            # tenacity's own loop would pass itself and the function that it retries.
            unused: Any = None
            state = self._state = tenacity.RetryCallState(unused, None, (), {})
            state.start_time = now
        else:
            state.prepare_for_next_attempt()
        state.set_exception((type(error), error, error.__traceback__))
        state.outcome_timestamp = now
        delay: object = self._wait(state)
        if not isinstance(delay, (int, float)) or not delay >= 0:
            raise ValueError(f"RetryPolicy.wait must give seconds, not {delay!r}")
        state.upcoming_sleep = seconds = min(float(delay), _LONGEST)
        if self._stop is not None and self._stop(state):
            return None
        state.idle_for += seconds
        return seconds
