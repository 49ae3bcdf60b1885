"""What a budget lets through, and who shares it."""

from __future__ import annotations

import gc
import math
from collections import deque

import trio

from wsclient.options import RetryBudget
from wsclient.session import _budget
from wsclient.session._budget import Budget


async def test_s4_2_sixty_attempts_in_ten_minutes_are_the_default(autojump_clock):
    budget = Budget(RetryBudget())
    for _ in range(60):
        assert 0 == budget.wait_at(trio.current_time())
        budget.take()
        await trio.sleep(1)

    assert 0 == budget.left
    # The first attempt is forgotten ten minutes after it began.
    assert 540 == budget.wait_at(trio.current_time())
    await trio.sleep(540)

    assert (1, 0) == (budget.left, budget.wait_at(trio.current_time()))


async def test_s4_2_a_wait_that_is_planned_anyway_counts(autojump_clock):
    budget = Budget(RetryBudget(attempts=2, seconds=10))
    budget.take()
    await trio.sleep(4)
    budget.take()

    assert 6 == budget.wait_at(4)
    assert 1 == budget.wait_at(9)
    assert 0 == budget.wait_at(10)
    assert 0 == budget.wait_at(11)


async def test_an_attempt_that_was_wanted_all_the_same_is_paid_for(autojump_clock):
    budget = Budget(RetryBudget(attempts=1, seconds=10))
    budget.take()
    await trio.sleep(1)
    budget.take()

    assert 0 == budget.left
    # Not when the first is forgotten: the second is not, then.
    assert 10 == budget.wait_at(1)


async def test_s4_2_who_is_given_the_same_budget_shares_it():
    shared = RetryBudget(attempts=3)
    first, second, other = Budget(shared), Budget(shared), Budget(RetryBudget(attempts=3))
    first.take()
    second.take()

    assert (1, 1, 3) == (first.left, second.left, other.left)


async def test_a_budget_without_a_limit_remembers_no_attempt():
    unlimited = RetryBudget(attempts=math.inf)
    budget = Budget(unlimited)
    for _ in range(1000):
        budget.take()

    assert unlimited not in _budget._spent.get({})


async def test_a_budget_without_a_limit_never_waits():
    budget = Budget(RetryBudget(attempts=math.inf))
    for _ in range(1000):
        budget.take()

    assert (math.inf, 0) == (budget.left, budget.wait_at(trio.current_time()))


def test_what_was_spent_in_one_run_does_not_count_in_the_next(run_on_virtual_time):
    settings = RetryBudget(attempts=1)

    async def spend():
        budget = Budget(settings)
        left = budget.left
        budget.take()
        return left

    assert [1, 1] == [run_on_virtual_time(spend) for _ in range(2)]


async def test_nothing_is_kept_of_a_budget_that_nobody_has_any_more():
    Budget(RetryBudget()).take()
    gc.collect()

    assert 0 == len(_budget._spent.get())


# --- how long to wait -----------------------------------------------------------------------------


def test_s4_2_a_delay_grows_until_an_attempt_may_begin_and_a_little_more():
    budget = Budget(RetryBudget(attempts=2, seconds=10), deque([0.0, 1.0]), lambda: 2.0)

    assert 9 == budget.delay(9)
    assert {8 <= budget.delay(1) <= 9 for _ in range(100)} == {True}


def test_s4_2_a_budget_that_fails_gives_no_delay_when_it_is_spent():
    settings = RetryBudget(attempts=2, seconds=10, when_spent="fail")
    budget = Budget(settings, deque([0.0, 1.0]), lambda: 2.0)

    assert (9, None) == (budget.delay(9), budget.delay(1))
