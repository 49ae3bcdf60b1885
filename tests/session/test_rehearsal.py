"""What is rehearsed is what channels do."""

from __future__ import annotations

import math
import random
import time

import pytest
import tenacity
import trio

import wsclient
from wsclient.options import RetryBudget, RetryPolicy
from wsclient.session._rehearsal import Rehearsal, busiest, reached, rehearse
from wsclient.testing import FaultServer, memory_network

# --- it is what a channel does --------------------------------------------------------------------


async def lived_through(policy, outage):
    """When a channel tries, in a real outage on virtual time."""
    attempts = []
    began = math.inf

    def observe(event):
        if isinstance(event, wsclient.ConnectionAttempted):
            attempts.append(trio.current_time() - began)

    with memory_network() as network:
        async with FaultServer(network=network) as server:
            opening = wsclient.open_channel(
                server.url, retry=policy, observers=[observe], ready_timeout=5
            )
            async with opening as channel:
                # Until the first attempt is forgotten by every budget.
                await trio.sleep(3600)
                attempts.clear()
                began = trio.current_time()
                with trio.CancelScope() as story:
                    await server.stop()
                    await trio.sleep(outage)
                    await server.start()
                    await channel.wait_ready()
                assert not story.cancelled_caught
    return attempts


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(wait=lambda state: 1.5**state.attempt_number),
        RetryPolicy(wait=lambda state: 7.3),
        RetryPolicy(wait=lambda state: 0.7, budget=RetryBudget(attempts=math.inf)),
    ],
    ids=["growing", "constant", "often"],
)
async def test_a_channel_in_a_real_outage_tries_when_the_rehearsal_says(policy, autojump_clock):
    told = rehearse(policy, outage=40)
    lived = await lived_through(policy, 40)

    assert pytest.approx(lived, abs=1e-3) == told.attempts


async def test_what_the_budget_says_is_regarded(autojump_clock, monkeypatch):
    # Chance is what is left to it when a budget is spent.
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    policy = RetryPolicy(wait=lambda _: 1.0, budget=RetryBudget(attempts=3, seconds=20))
    told = rehearse(policy, outage=50)
    lived = await lived_through(policy, 50)

    assert [1, 2, 3, 21.5] == [round(time, 3) for time in told.attempts[:4]]
    assert pytest.approx(lived, abs=1e-3) == told.attempts


# --- a policy -------------------------------------------------------------------------------------


def test_s4_1_the_default_comes_back_spread():
    told = rehearse(outage=60, clients=500, seed=1)

    assert (500, 500, 0) == (told.clients, len(told.back), told.gave_up)
    assert told.busiest(0.05) < 60
    assert told.busiest_back(0.05) <= told.busiest_back(1) < 60
    assert 60 <= told.back[0] <= told.back[-1] <= 60 + 30.25
    assert told.back_within(0.5) < told.back_within(0.99) <= told.back_within(1) <= 30.25


def test_the_delays_of_a_client_add_up_to_its_attempts():
    told = rehearse(RetryPolicy(wait=tenacity.wait_fixed(4)), outage=10, clients=2)

    assert ((4, 8, 12), (4, 8, 12)) == told.attempts_of
    assert (4, 4, 8, 8, 12, 12) == told.attempts
    assert (4, 4, 4) == told.delays(1)
    assert (12, 12) == told.back
    assert 2 == told.busiest_back(0.05)


def test_who_gives_up_is_counted_and_never_back():
    policy = RetryPolicy(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_attempt(3))
    told = rehearse(policy, outage=10, clients=4)

    assert (4, ()) == (told.gave_up, told.back)
    assert ((1, 2),) * 4 == told.attempts_of
    assert math.inf == told.back_within(0.5)


def test_a_fatal_decision_at_once_makes_no_attempt():
    policy = RetryPolicy(classify=lambda *_: wsclient.Fatal("no"))
    told = rehearse(policy, outage=10)

    assert (((),), (), 1, 0) == (told.attempts_of, told.back, told.gave_up, told.busiest(1))


def test_a_budget_that_fails_when_spent_gives_up():
    budget = RetryBudget(attempts=2, when_spent="fail")
    told = rehearse(RetryPolicy(wait=lambda _: 1, budget=budget), outage=10, clients=2)

    # Each client has a budget of its own.
    assert (((1, 2),) * 2, 2) == (told.attempts_of, told.gave_up)


def test_without_an_outage_each_comes_back_at_its_first_attempt():
    told = rehearse(outage=0, clients=3)

    assert {1} == {len(attempts) for attempts in told.attempts_of}
    assert 3 == len(told.back)


# --- chance ---------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_again_and_leaves_chance_as_it_was():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    first = rehearse(outage=60, clients=5, seed=3)

    assert expected == random.random()
    assert first == rehearse(outage=60, clients=5, seed=3)
    assert first != rehearse(outage=60, clients=5, seed=4)
    assert rehearse(outage=60) != rehearse(outage=60)


def test_a_thousand_clients_and_ten_minutes_take_a_moment():
    began = time.process_time()
    told = rehearse(outage=600, clients=1000)

    assert len(told.attempts) > 20_000
    assert time.process_time() - began < 20


# --- what cannot be used --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"outage": -1}, "outage must be a number of seconds"),
        ({"outage": math.nan}, "outage must be a number of seconds"),
        ({"outage": math.inf}, "outage must be a number of seconds"),
        ({"outage": 1, "clients": 0}, "clients must be at least 1"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        rehearse(**arguments)


def test_waits_that_never_end_the_outage_are_refused():
    policy = RetryPolicy(wait=lambda _: 0, budget=RetryBudget(attempts=math.inf))
    with pytest.raises(ValueError, match=r"10,000 attempts of one client come to 0 s"):
        rehearse(policy, outage=1)


# --- counting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "window", "most"),
    [([], 1, 0), ([1], 1, 1), ([1, 1.5, 2, 2.1], 0.5, 2), ([1, 1.5, 2, 2.1], 1, 3)],
)
def test_the_busiest_window_is_found(times, window, most):
    assert most == busiest(times, window)


@pytest.mark.parametrize(("share", "time"), [(0, 1), (0.5, 2), (0.51, 3), (0.75, 3), (1, math.inf)])
def test_the_time_of_a_share_is_when_its_last_one_came(share, time):
    assert time == reached([1, 2, 3], 4, share)


def test_the_text_of_a_rehearsal_does_not_list_every_attempt():
    assert "Rehearsal(outage=1)" == repr(Rehearsal(outage=1, attempts_of=((1,),)))
