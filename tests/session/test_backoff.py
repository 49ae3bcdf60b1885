"""How long to wait: the default's bounds, tenacity's algebra, trio's clock."""

from __future__ import annotations

import datetime
import math

import pytest
import tenacity
import trio

from wsclient.errors import HandshakeError
from wsclient.options import RetryPolicy
from wsclient.session._backoff import CAP, Backoff, default_wait

ERROR = HandshakeError("refused")
DRAWS = 2000


def delays(backoff, count):
    return [backoff.next_delay(ERROR) for _ in range(count)]


def bounds_after(failures):
    """S4.1: the least and the most that may follow so many failures in a row."""
    if failures == 1:
        return 0.0, 1.0
    step = min(30.0, 0.5 * 2 ** min(failures - 1, 16))
    return 0.25 + 0.5 * step, 0.25 + step


# --- the default --------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", range(1, 10))
async def test_s4_1_every_draw_lies_within_the_bounds_and_the_draws_fill_them(failures):
    drawn = [delays(Backoff(RetryPolicy()), failures)[-1] for _ in range(DRAWS)]
    low, high = bounds_after(failures)

    assert low <= min(drawn)
    assert max(drawn) <= high
    # Each tenth of the interval is hit: it is spread, not a point.
    tenths = {int(10 * (delay - low) / (high - low)) for delay in drawn}

    assert set(range(10)) <= tenths


async def test_s4_1_the_first_retry_after_a_stable_connection_comes_within_a_second():
    drawn = [Backoff(RetryPolicy()).next_delay(ERROR) for _ in range(DRAWS)]

    assert 0 <= min(drawn) < 0.01
    assert 0.99 < max(drawn) <= 1
    assert 0.45 < sum(drawn) / DRAWS < 0.55


async def test_s4_1_no_later_delay_is_near_zero_and_none_is_in_lockstep_at_the_cap():
    later = delays(Backoff(RetryPolicy()), DRAWS)[1:]

    assert 0.75 <= min(later)
    at_the_cap = later[8:]

    assert 0.25 + CAP / 2 <= min(at_the_cap)
    assert max(at_the_cap) <= 0.25 + CAP
    assert len(set(at_the_cap)) > 0.99 * len(at_the_cap)


async def test_s4_1_five_thousand_failures_do_not_overflow():
    backoff = Backoff(RetryPolicy())
    last = delays(backoff, 5000)[-1]

    assert 5000 == backoff.failures
    assert 15.25 <= last <= 30.25


async def test_after_a_reset_failures_count_anew():
    backoff = Backoff(RetryPolicy())
    delays(backoff, 50)
    backoff.reset()

    assert 0 == backoff.failures
    assert backoff.next_delay(ERROR) <= 1
    assert 1 == backoff.failures


# --- tenacity's algebra -------------------------------------------------------------------------


async def test_waits_of_tenacity_add_up():
    policy = RetryPolicy(wait=tenacity.wait_fixed(3) + tenacity.wait_random(0, 1))
    drawn = delays(Backoff(policy), 500)

    assert 3 <= min(drawn)
    assert max(drawn) <= 4
    assert max(drawn) - min(drawn) > 0.9


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (tenacity.wait_none(), [0, 0, 0, 0]),
        (tenacity.wait_exponential(multiplier=1, max=5), [1, 2, 4, 5]),
        (tenacity.wait_incrementing(start=1, increment=2), [1, 3, 5, 7]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9)), [1, 9, 9, 9]),
        (tenacity.wait_combine(tenacity.wait_fixed(1), tenacity.wait_fixed(2)), [3, 3, 3, 3]),
        (lambda state: state.attempt_number, [1, 2, 3, 4]),
        (tenacity.wait_exception(lambda error: len(str(error))), [7, 7, 7, 7]),
    ],
)
async def test_any_wait_of_tenacity_or_any_function_of_its_state_will_do(wait, expected):
    assert expected == delays(Backoff(RetryPolicy(wait=wait)), 4)


async def test_a_wait_sees_how_the_last_attempt_failed():
    states = []
    backoff = Backoff(RetryPolicy(wait=lambda state: states.append(state) or 0))
    backoff.next_delay(ERROR)

    assert ERROR is states[0].outcome.exception()


async def test_a_wait_sees_how_long_it_has_waited_so_far(autojump_clock):
    idle = []
    backoff = Backoff(RetryPolicy(wait=lambda state: idle.append(state.idle_for) or 2))
    delays(backoff, 3)

    assert [0, 2, 4] == idle


async def test_an_endless_wait_is_cut_to_a_week():
    assert 7 * 24 * 3600 == Backoff(RetryPolicy(wait=lambda _: math.inf)).next_delay(ERROR)


@pytest.mark.parametrize(
    "given", [-1, -math.inf, math.nan, None, "1", [1], datetime.timedelta(seconds=1)]
)
async def test_a_wait_that_gives_something_else_than_seconds_is_told_so(given):
    backoff = Backoff(RetryPolicy(wait=lambda _: given))
    with pytest.raises(ValueError, match=r"RetryPolicy\.wait must give seconds, not"):
        backoff.next_delay(ERROR)


async def test_s7_1_what_a_wait_raises_keeps_its_identity():
    mine = LookupError("mine")

    def wait(_):
        raise mine

    with pytest.raises(LookupError) as caught:
        Backoff(RetryPolicy(wait=wait)).next_delay(ERROR)

    assert mine is caught.value


# --- stops --------------------------------------------------------------------------------------


async def test_stop_after_attempt_counts_failures():
    backoff = Backoff(RetryPolicy(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_attempt(3)))

    assert [1, 1, None] == delays(backoff, 3)


async def test_stop_after_attempt_counts_anew_after_a_stable_connection():
    backoff = Backoff(RetryPolicy(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_attempt(3)))
    delays(backoff, 2)
    backoff.reset()

    assert [1, 1, None] == delays(backoff, 3)


async def test_stop_after_delay_obeys_trios_clock(autojump_clock):
    backoff = Backoff(RetryPolicy(wait=tenacity.wait_fixed(4), stop=tenacity.stop_after_delay(10)))
    given_up_at = None
    while given_up_at is None:
        if (delay := backoff.next_delay(ERROR)) is None:
            given_up_at = trio.current_time()
        else:
            await trio.sleep(delay)

    assert 12 == given_up_at


async def test_stop_before_delay_looks_at_the_wait_that_is_to_come(autojump_clock):
    backoff = Backoff(RetryPolicy(wait=tenacity.wait_fixed(4), stop=tenacity.stop_before_delay(10)))
    given = []
    while (delay := backoff.next_delay(ERROR)) is not None:
        given.append(delay)
        await trio.sleep(delay)

    assert [4, 4] == given
    assert 8 == trio.current_time()


async def test_stops_compose(autojump_clock):
    stop = tenacity.stop_after_attempt(100) | tenacity.stop_after_delay(10)
    backoff = Backoff(RetryPolicy(wait=tenacity.wait_fixed(5), stop=stop))
    for _ in range(2):
        await trio.sleep(backoff.next_delay(ERROR))

    assert None is backoff.next_delay(ERROR)

    assert 3 == backoff.failures
    assert 10 == trio.current_time()


async def test_stop_after_delay_counts_anew_after_a_stable_connection(autojump_clock):
    backoff = Backoff(RetryPolicy(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_delay(10)))
    backoff.next_delay(ERROR)
    await trio.sleep(100)
    backoff.reset()

    assert 1 == backoff.next_delay(ERROR)


# --- the default with another cap -----------------------------------------------------------------


async def test_s4_1_the_default_with_another_cap_stays_below_it():
    drawn = delays(Backoff(RetryPolicy(wait=default_wait(cap=4))), DRAWS)[5:]

    assert 2.25 <= min(drawn) < 2.3
    assert 4.2 < max(drawn) <= 4.25


@pytest.mark.parametrize("cap", [0, -1, math.nan])
def test_a_cap_that_is_no_time_is_refused(cap):
    with pytest.raises(ValueError, match="cap must be above 0"):
        default_wait(cap)


async def test_where_giving_up_is_no_choice_a_policy_that_gives_up_is_a_long_pause(autojump_clock):
    backoff = Backoff(RetryPolicy(wait=tenacity.wait_fixed(2), stop=tenacity.stop_after_attempt(2)))

    assert [2, 30, 30] == [backoff.next_pause(OSError()) for _ in range(3)]
