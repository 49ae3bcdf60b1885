"""What the losses of a channel lead to: when and where it tries again, or that it gives up.

A loss is judged by a pure function (``_policy.py``, or the user's).  What that function is told of
the losses before, and what follows from its decision, is here: how often a rule was met, which
endpoint is to be left alone, whose turn it is, and how long to wait.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import attrs
import trio

from wsclient.events import LossKind
from wsclient.options import RetryPolicy

from ._access import Access, Address
from ._backoff import Backoff
from ._endpoints import Endpoints
from ._policy import (
    Decision,
    Fatal,
    Loss,
    NextEndpoint,
    Phase,
    Retry,
    RetryFreshAuth,
    classify,
    counted_as,
)

HISTORY_SIZE: Final = 10
"""Endings that a failure tells of."""

LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds: a server that asks for more is asked again after an hour."""


@attrs.define
class _Streak:
    """Losses in a row that fell under one rule."""

    rule: str
    since: float
    count: int = 0


@attrs.frozen
class GiveUp:
    """There is to be no next attempt."""

    reason: str
    """What the failure tells."""


class Losses:
    """The losses of one channel, and what follows from each.

    Args:
        retry: The policy.
        endpoints: Moved on to where the next attempt goes.
        access: Told when the server has refused the credentials.
        clock: Tells the time.
    """

    def __init__(
        self,
        retry: RetryPolicy,
        endpoints: Endpoints,
        access: Access,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._clock = clock
        self._user_classify = retry.classify
        self._endpoints = endpoints
        self._access = access
        self._backoff = Backoff(retry, clock)
        self._streak: _Streak | None = None
        self._by_rule: Counter[str] = Counter()
        self._was_stable = False
        self._history: deque[BaseException] = deque(maxlen=HISTORY_SIZE)
        self.failures = 0
        """Attempts and connections that have failed since the last stable connection."""
        self.phase = Phase.STARTUP
        """Whether the channel was ever ready."""
        self.rule = ""
        """Which rule decided what followed the last loss; empty before the first."""

    @property
    def history(self) -> tuple[BaseException, ...]:
        """How the last attempts and connections ended, oldest first."""
        return tuple(self._history)

    @property
    def last_error(self) -> BaseException | None:
        """How the last connection, or attempt at one, ended."""
        return self._history[-1] if self._history else None

    def note(self, error: BaseException) -> None:
        """Keep how something ended from which nothing follows."""
        self._history.append(error)

    def begin_attempt(self) -> None:
        """What comes next has not been stable yet."""
        self._was_stable = False

    def begin_anew(self) -> None:
        """Count anew: the connection was stable."""
        self._was_stable = True
        self.hurry()
        self._streak = None
        self._by_rule.clear()
        self._endpoints.begin_round()

    def hurry(self) -> None:
        """Begin with the short delays again."""
        self.failures = 0
        self._backoff.reset()

    def delay_after(self, loss: Loss) -> float | GiveUp:
        """Seconds until the next attempt, at the endpoint that is current then.

        Raises:
            TypeError: The user's function gave something else than a decision.
            ValueError: The user's wait gave something else than seconds.
        """
        decision = self._decide(loss)
        if isinstance(decision, Fatal):
            return GiveUp(decision.reason)
        now = self._clock()
        asked, retry_after = self._prepare(loss, decision, self._endpoints.current)
        if isinstance(decision, RetryFreshAuth):
            stays = True  # What was refused was not the endpoint's fault.
        elif isinstance(decision, NextEndpoint) or asked is not None:
            stays = False
        else:
            # It was good, and did not fall silent: most likely it is good again in a moment.
            stays = self._was_stable and loss.kind is LossKind.CLOSED
        if not stays and self._endpoints.advance(now):
            return 0.0
        delay = self._backoff.next_delay(loss.error)
        if delay is None:
            return GiveUp(f"RetryPolicy.stop after {self.failures} failures: {loss.error}")
        here = max(delay if asked is None else asked, retry_after)
        return here if stays else self._endpoints.advance_later(now, delay, here)

    def heed(self, loss: Loss, address: Address) -> None:
        """Do what the loss of one of two connections asks for; the other one lives on.

        Raises:
            TypeError: The user's function gave something else than a decision.
        """
        decision = self._classify(loss)
        if isinstance(decision, Retry):
            self._prepare(loss, decision, address)

    def _decide(self, loss: Loss) -> Decision:
        """Say how often the rule of ``loss`` has been met, and ask what it means."""
        self._history.append(loss.error)
        self.failures += 1
        rule = counted_as(loss)
        now = self._clock()
        if self._streak is None or self._streak.rule != rule:
            self._streak = _Streak(rule, now)
        self._streak.count += 1
        self._by_rule[rule] += 1
        loss = attrs.evolve(
            loss,
            repeated=self._streak.count,
            repeated_for=now - self._streak.since,
            since_stable=self._by_rule[rule],
        )
        decision = self._classify(loss)
        self.rule = decision.reason
        return decision

    def _classify(self, loss: Loss) -> Decision:
        decision: object = (self._user_classify or classify)(loss, self.phase)
        if not isinstance(decision, (Retry, Fatal)):
            raise TypeError(
                "RetryPolicy.classify must return Retry, RetryFreshAuth, NextEndpoint or Fatal,"
                f" not {decision!r}"
            )
        return decision

    def _prepare(self, loss: Loss, decision: Retry, address: Address) -> tuple[float | None, float]:
        """Note what the next attempts are to regard.

        Returns:
            Seconds for which ``address`` is to be left alone, by the decision (``None``: it does
            not say) and by what the server has said.
        """
        asked: float | None = None
        if decision.delay is not None:
            asked = random.uniform(*decision.delay)
        retry_after = 0.0
        if loss.retry_after is not None:
            retry_after = min(loss.retry_after, LONGEST_RETRY_AFTER)
            # Never earlier than asked, and not all clients at once.
            retry_after += random.uniform(0, 1 + retry_after / 10)
        if asked is not None or retry_after:
            until = self._clock() + max(asked or 0.0, retry_after)
            self._endpoints.leave_alone(until, address)
        if isinstance(decision, RetryFreshAuth):
            self._access.must_be_fresh = True
        return asked, retry_after
