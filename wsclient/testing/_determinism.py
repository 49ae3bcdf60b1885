"""The same each time: what would otherwise be left to chance in a trio run, by a seed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import trio
import trio.testing
from trio._core import _run as scheduler

T = TypeVar("T")


@contextmanager
def deterministic(seed: int) -> Generator[None, None, None]:
    """Let chance be the seed's: in here, and then as before.

    trio runs what is runnable in an order of its own choice, so that nobody relies on one; for
    Hypothesis it has a switch that makes the choice depend on one generator alone.
    The module ``random`` is what wsclient jitters with.
    Masks and the payloads of pings come from the system, and are seen in no schedule and no trace:
    their sizes do not change.
    """
    before = (scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r, random.getstate())
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r = random.Random(seed)
    random.seed(seed)
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r, state = before  # type: ignore[misc]
        random.setstate(state)


def run_deterministic(
    seed: int,
    main: Callable[[], Awaitable[T]],
    *,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    """Run ``main`` to its end on virtual time, the same each time for the same seed.

    The clock jumps as soon as every task waits, so ``main`` must not wait for sockets, threads or
    processes: see :func:`wsclient.testing.memory_network`.
    """
    with deterministic(seed):
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(main, clock=clock, instruments=instruments)
