"""What a retry policy makes of an outage, before there is one.

The clock is a number, and nothing connects.  All else is what a channel goes by: the same losses,
judged by the same function, with the same waits, stops and budget.  So a thousand clients take a
fraction of a second, and what is seen here is what a server will see.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import attrs

from wsclient.codes import CloseCode, CloseReason
from wsclient.errors import ConnectionClosed, HandshakeError
from wsclient.events import LossKind
from wsclient.options import ConnectionOptions, RetryBudget, RetryPolicy

from ._access import Access, Address
from ._budget import Budget
from ._endpoints import Endpoints
from ._losses import GiveUp, Losses
from ._policy import Loss, Phase

MOST_ATTEMPTS: Final = 10_000
"""Of one client: waits that never add up to the outage would keep us for ever."""


def busiest(times: Sequence[float], window: float) -> int:
    """How many of ``times``, which are in order, lie within less than ``window`` seconds."""
    ends = (bisect_left(times, time + window) for time in times)
    return max((end - start for start, end in enumerate(ends)), default=0)


def reached(times: Sequence[float], whole: int, share: float) -> float:
    """When ``share`` of ``whole`` was reached, of ``times`` in order; infinity if it was not."""
    number = max(1, math.ceil(share * whole))
    return times[number - 1] if number <= len(times) else math.inf


@attrs.frozen(kw_only=True)
class Rehearsal:
    """What clients make of an outage; times are seconds since it began."""

    outage: float
    """When the server is back."""
    attempts_of: tuple[tuple[float, ...], ...] = attrs.field(repr=False)
    """When each client tries, in order; its last attempt succeeds, unless it gives up before."""

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self.attempts_of)

    @property
    def attempts(self) -> tuple[float, ...]:
        """When anybody tries, in order."""
        return tuple(sorted(time for attempts in self.attempts_of for time in attempts))

    @property
    def back(self) -> tuple[float, ...]:
        """When clients are connected again, in order."""
        lasts = (attempts[-1] for attempts in self.attempts_of if attempts)
        return tuple(sorted(last for last in lasts if last >= self.outage))

    @property
    def gave_up(self) -> int:
        """How many clients gave up."""
        return self.clients - len(self.back)

    def busiest(self, window: float) -> int:
        """Attempts in the busiest ``window`` seconds, refused ones included."""
        return busiest(self.attempts, window)

    def busiest_back(self, window: float) -> int:
        """Clients that the server gets in the busiest ``window`` seconds after its return."""
        return busiest(self.back, window)

    def back_within(self, share: float) -> float:
        """Seconds after the server's return, within which so many are back.

        Args:
            share: Of the clients, from 0 to 1.

        Returns:
            ``math.inf`` if too many give up.
        """
        return reached(self.back, self.clients, share) - self.outage

    def delays(self, client: int) -> tuple[float, ...]:
        """Seconds that a client (counted from 0) waits before each of its attempts."""
        times = self.attempts_of[client]
        return tuple(time - before for before, time in zip((0.0, *times), times, strict=False))


def rehearse(
    policy: RetryPolicy | None = None,
    *,
    outage: float,
    clients: int = 1,
    seed: int | None = None,
) -> Rehearsal:
    """Say what clients with this policy would make of an outage; takes none of its time.

    All were connected for a while, lose their connection in the same moment, and are refused at
    once until the server is back.
    Each has one endpoint, and a budget of its own.

    Args:
        policy: What each goes by; the default one if not given.
        outage: Seconds.
        clients: How many there are.
        seed: The same one draws the same waits again, where they are drawn from Python's
            ``random``, as the default's are; afterwards that is as it was before.

    Raises:
        ValueError: An argument cannot be used, or a client makes 10,000 attempts and the outage is
            not over; or the policy's wait gave something else than seconds.
        TypeError: The policy's ``classify`` gave something else than a decision.
    """
    if not 0 <= outage < math.inf:
        raise ValueError(f"outage must be a number of seconds, not {outage!r}")
    if clients < 1:
        raise ValueError(f"clients must be at least 1, not {clients!r}")
    policy = RetryPolicy() if policy is None else policy
    with _chance(seed):
        attempts = tuple(tuple(_attempts(policy, outage)) for _ in range(clients))
    return Rehearsal(outage=outage, attempts_of=attempts)


@contextmanager
def _chance(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _attempts(policy: RetryPolicy, outage: float) -> Iterator[float]:
    """When one client tries."""
    now = 0.0
    clock = lambda: now  # noqa: E731  # The clock is a number.
    access = Access(None, None, ConnectionOptions())
    endpoints = Endpoints([Address("ws://server.example/", None)])
    losses = Losses(policy, endpoints, access, clock)
    losses.phase = Phase.STEADY
    # The connection that is lost was stable.
    losses.begin_anew()
    budget = Budget(policy.budget or RetryBudget(), deque(), clock)
    cut = ConnectionClosed(CloseReason(CloseCode.ABNORMAL_CLOSURE, None))
    loss = Loss(kind=LossKind.CLOSED, error=cut, code=CloseCode.ABNORMAL_CLOSURE)
    for _ in range(MOST_ATTEMPTS):
        verdict = losses.delay_after(loss)
        delay = None if isinstance(verdict, GiveUp) else budget.delay(verdict)
        if delay is None:
            return
        now += delay
        yield now
        if now >= outage:
            return
        losses.begin_attempt()
        budget.take()
        loss = Loss(kind=LossKind.UNREACHABLE, error=HandshakeError("cannot connect: refused"))
    raise ValueError(
        f"{MOST_ATTEMPTS:,} attempts of one client come to {now:g} s, and the outage is longer"
    )
