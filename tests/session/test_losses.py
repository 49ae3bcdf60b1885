"""What follows from a loss, and from those before it."""

from __future__ import annotations

import pytest
import tenacity
import trio

from wsclient.codes import CloseReason
from wsclient.errors import ConnectionClosed, ConnectionRejected, HeartbeatTimeout
from wsclient.options import ConnectionOptions, RetryPolicy
from wsclient.session._access import Access, Address
from wsclient.session._endpoints import Endpoints
from wsclient.session._losses import HISTORY_SIZE, LONGEST_RETRY_AFTER, GiveUp, Losses
from wsclient.session._policy import Fatal, NextEndpoint, Phase, Retry, RetryFreshAuth, loss_from

ADDRESSES = tuple(Address(f"ws://{name}.test", None) for name in "abc")


class Kept:
    """Losses, and what they share with the supervisor."""

    def __init__(self, *, endpoints=1, **policy):
        self.endpoints = Endpoints(ADDRESSES[:endpoints])
        self.access = Access(None, None, ConnectionOptions())
        policy.setdefault("wait", tenacity.wait_fixed(7))
        self.losses = Losses(RetryPolicy(**policy), self.endpoints, self.access)

    @property
    def at(self):
        return self.endpoints.current.endpoint.removeprefix("ws://").removesuffix(".test")

    def lose(self, code=1006, error=None):
        error = error or ConnectionClosed(CloseReason(code))
        return self.losses.delay_after(loss_from(error, now=0.0))


def rejected(status, *headers):
    return ConnectionRejected(status, tuple(headers), b"")


async def test_s4_1_a_loss_is_followed_by_the_delay_of_the_policy(autojump_clock):
    assert 7 == Kept().lose()


async def test_s4_4_what_a_rule_is_told_of_the_losses_before(autojump_clock):
    told = []

    def classify(loss, phase):
        told.append((loss.repeated, loss.repeated_for, loss.since_stable, phase))
        return Retry("mine")

    kept = Kept(classify=classify)
    kept.lose(1012)
    await trio.sleep(3)
    kept.lose(1012)
    kept.lose(1013)
    kept.losses.phase = Phase.STEADY
    kept.lose(1012)
    kept.losses.begin_anew()
    kept.lose(1012)

    assert (1, 0, 1, Phase.STARTUP) == told[0]
    assert (2, 3, 2, Phase.STARTUP) == told[1]
    assert (1, 0, 1, Phase.STARTUP) == told[2]
    assert (1, 0, 3, Phase.STEADY) == told[3]
    assert (1, 0, 1, Phase.STEADY) == told[4]
    assert "mine" == kept.losses.rule


async def test_s4_4_a_fatal_decision_gives_up_with_its_reason(autojump_clock):
    assert GiveUp("no more") == Kept(classify=lambda loss, phase: Fatal("no more")).lose()


async def test_s4_1_the_policys_stop_gives_up_and_says_after_how_many_failures(autojump_clock):
    kept = Kept(stop=tenacity.stop_after_attempt(2))

    assert 7 == kept.lose()
    assert "RetryPolicy.stop after 2 failures: the connection is closed" in kept.lose().reason


async def test_what_is_no_decision_is_told_so(autojump_clock):
    kept = Kept(classify=lambda loss, phase: "retry")

    with pytest.raises(TypeError, match="must return Retry, RetryFreshAuth, NextEndpoint or Fatal"):
        kept.lose()
    with pytest.raises(TypeError, match="not 'retry'"):
        kept.losses.heed(loss_from(ConnectionClosed(CloseReason(1006)), 0.0), ADDRESSES[0])


async def test_s4_5_the_next_endpoint_is_tried_at_once_and_the_delay_comes_after_the_last(
    autojump_clock,
):
    kept = Kept(endpoints=3)

    assert (0, "b") == (kept.lose(), kept.at)
    assert (0, "c") == (kept.lose(), kept.at)
    assert (7, "a") == (kept.lose(), kept.at)


@pytest.mark.parametrize(
    ("error", "at"),
    [
        pytest.param(None, "a", id="closed"),
        pytest.param(HeartbeatTimeout("no pong"), "b", id="silent"),
    ],
)
async def test_s4_1_an_endpoint_that_was_stable_is_tried_again_unless_it_fell_silent(
    autojump_clock, error, at
):
    kept = Kept(endpoints=2)
    kept.losses.begin_anew()

    assert (7 if at == "a" else 0) == kept.lose(error=error)
    assert at == kept.at


async def test_s4_5_an_attempt_that_fails_after_a_stable_connection_moves_on(autojump_clock):
    kept = Kept(endpoints=2)
    kept.losses.begin_anew()
    kept.lose()
    kept.losses.begin_attempt()

    assert (0, "b") == (kept.lose(), kept.at)


async def test_s4_4_one_may_be_sent_elsewhere_also_from_an_endpoint_that_was_stable(autojump_clock):
    kept = Kept(endpoints=2, classify=lambda loss, phase: NextEndpoint("elsewhere"))
    kept.losses.begin_anew()

    assert (0, "b") == (kept.lose(), kept.at)


async def test_s4_4_fresh_credentials_are_for_the_same_endpoint(autojump_clock):
    kept = Kept(endpoints=2, classify=lambda loss, phase: RetryFreshAuth("fresh"))

    assert (7, "a") == (kept.lose(), kept.at)
    assert kept.access.must_be_fresh


async def test_s4_4_a_delay_of_the_decision_takes_the_place_of_the_policys(autojump_clock):
    assert 20 <= Kept(classify=lambda loss, phase: Retry("late", delay=(20, 30))).lose() <= 30


@pytest.mark.parametrize(
    ("asked", "least"), [(60, 60), (10 * LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER)]
)
async def test_s4_3_retry_after_is_kept_to_and_clamped(autojump_clock, asked, least):
    kept = Kept()
    delay = kept.lose(error=rejected(503, (b"Retry-After", b"%d" % asked)))

    assert least <= delay <= least * 1.1 + 1


async def test_s4_3_what_the_loss_of_a_second_connection_asks_for_is_for_its_endpoint(
    autojump_clock,
):
    kept = Kept(endpoints=2)
    error = rejected(503, (b"Retry-After", b"60"))
    kept.losses.heed(loss_from(error, 0.0), ADDRESSES[1])

    # Not counted, and not moved.
    assert (0, (), "a") == (kept.losses.failures, kept.losses.history, kept.at)
    # The other one may not be tried yet.
    assert (7, "a") == (kept.lose(), kept.at)


async def test_a_decision_to_give_up_on_a_second_connection_changes_nothing(autojump_clock):
    kept = Kept(classify=lambda loss, phase: Fatal("no more"))
    kept.losses.heed(loss_from(ConnectionClosed(CloseReason(1006)), 0.0), ADDRESSES[0])

    assert "" == kept.losses.rule


async def test_failures_are_counted_and_the_last_endings_kept(autojump_clock):
    kept = Kept()

    assert kept.losses.last_error is None
    for _ in range(HISTORY_SIZE + 2):
        kept.lose()
    last = OSError("the last one")
    kept.losses.note(last)

    assert HISTORY_SIZE + 2 == kept.losses.failures
    assert HISTORY_SIZE == len(kept.losses.history)
    assert last is kept.losses.last_error is kept.losses.history[-1]


async def test_s5_5_hurry_begins_with_the_short_delays_again(autojump_clock):
    kept = Kept(wait=tenacity.wait_incrementing(1, 1))
    delays = [kept.lose(), kept.lose()]
    kept.losses.hurry()

    assert [1, 2, 1] == [*delays, kept.lose()]
    assert 1 == kept.losses.failures
