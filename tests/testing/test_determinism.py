"""The same each time."""

import random

import pytest
import trio

from wsclient.testing import run_deterministic
from wsclient.testing._determinism import deterministic


async def race():
    """Who comes first is the scheduler's choice, and what is drawn is chance."""
    order = []

    async def run(number):
        for _ in range(3):
            await trio.sleep(1)
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(run, number)
    return order, random.random(), trio.current_time()


def test_run_is_the_same_for_the_same_seed_and_another_for_another():
    runs = [run_deterministic(seed, race) for seed in (1, 1, 2)]

    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert 3 == runs[0][2]


def test_chance_is_as_before_afterwards():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    with pytest.raises(LookupError), deterministic(1):
        random.random()
        raise LookupError

    assert expected == random.random()


def test_instruments_see_the_run():
    class Count(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task):
            self.steps += 1

    count = Count()
    run_deterministic(1, race, instruments=[count])

    assert 24 < count.steps
