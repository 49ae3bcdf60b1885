"""What the tests of the session share: virtual time, an in-memory network, and sweeps."""

from __future__ import annotations

import functools
import itertools

import pytest
import trio
import trio.testing

from wsclient.testing import EventRecorder, memory_network

A_DAY = 24 * 3600.0


async def _end_a_hang():
    # Virtual time flies: whoever waits for what never comes is found in no time.
    await trio.sleep(A_DAY)
    raise AssertionError("the test waits for something that does not come")


@pytest.fixture
async def network(autojump_clock, nursery):
    """An in-memory network, on virtual time."""
    # pytest-trio looks for a clock among a test's own arguments only.
    assert autojump_clock is trio.lowlevel.current_clock(), "the test must ask for autojump_clock"
    nursery.start_soon(_end_a_hang)
    with memory_network() as network:
        yield network


@pytest.fixture
def recorder():
    return EventRecorder()


class Cancellation(trio.abc.Instrument):
    """Cancels ``scope`` before the scheduler's n-th step (from 1), or as soon as it is entered."""

    def __init__(self, step):
        self.scope = trio.CancelScope()
        self.at = None
        """When it happened, in virtual seconds."""
        self._step = step
        self._steps = 0

    def before_task_step(self, task):
        self._steps += 1
        is_entered = self.scope._cancel_status is not None
        if self.at is None and self._steps >= self._step and is_entered:
            self.at = trio.current_time()
            self.scope.cancel()


@pytest.fixture
def cancel_at_every_step():
    """Runs a scenario again and again, cancelled at its first step, at its second, and so on.

    ``await scenario(cancellation)`` enters ``cancellation.scope`` around what is to be cancelled,
    and makes its own checks after.  It ends when a run was over before its step came; returns how
    many runs there were.
    """

    def sweep(scenario):
        for step in itertools.count(1):
            cancellation = Cancellation(step)
            try:
                trio.run(
                    scenario,
                    cancellation,
                    clock=trio.testing.MockClock(autojump_threshold=0),
                    instruments=[cancellation],
                )
            except BaseException as error:
                error.add_note(f"cancelled at step {step}")
                raise
            if cancellation.at is None:
                break
        return step

    return sweep


@pytest.fixture
def run_on_virtual_time():
    """``trio.run`` for tests that are many runs in one."""

    def run(function, *args, **options):
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(functools.partial(function, *args, **options), clock=clock)

    return run
