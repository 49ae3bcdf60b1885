"""How fast messages may be sent: exactly on the virtual clock, and always at last."""

from __future__ import annotations

import itertools
import random

import pytest

from wsclient.options import SendRate
from wsclient.session._rate import Bucket

# Where trio's clock begins.
NOW = 654_321.25


def send(bucket, seconds, *, now=NOW, ping_every=None):
    """When messages go, if there are always more and each goes as soon as it may."""
    end, sent = now + seconds, []
    pings = itertools.count(now + ping_every, ping_every) if ping_every else iter(())
    next_ping = next(pings, end)
    for _ in range(100_000):
        if now >= end:
            break
        if now >= next_ping:
            bucket.spend(now)
            next_ping = next(pings)
        if bucket.take(now):
            sent.append(now)
        else:
            now = min(bucket.free_at(now), next_ping)
    else:
        raise AssertionError("it asks again and again")
    return sent


@pytest.mark.parametrize(("messages", "seconds"), [(1, 1), (10, 1), (5, 60), (1000, 0.5)])
def test_s1_4_after_a_pause_as_many_go_at_once_as_one_period_allows_but_for_the_reserve(
    messages, seconds
):
    bucket = Bucket(SendRate(messages=messages, seconds=seconds, reserve=0))

    assert [True] * messages + [False] == [bucket.take(NOW) for _ in range(messages + 1)]

    bucket = Bucket(SendRate(messages=messages * 10, seconds=seconds, reserve=0.3))

    assert messages * 7 == sum(bucket.take(NOW) for _ in range(messages * 10))


@pytest.mark.parametrize("reserve", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("messages", "seconds"), [(1, 1), (2, 1), (3, 7), (10, 1), (1000, 1)])
def test_s1_4_in_the_long_run_the_rate_is_what_was_asked_for(messages, seconds, reserve):
    sent = send(Bucket(SendRate(messages=messages, seconds=seconds, reserve=reserve)), seconds * 10)

    # The first period is generous: a full bucket, and what flows in meanwhile.
    assert messages * 9 <= len(sent) <= messages * 11
    after_the_first = [at for at in sent if at >= NOW + seconds]

    assert pytest.approx(messages * 9, abs=1) == len(after_the_first)


@pytest.mark.parametrize("reserve", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("messages", [1, 2, 3])
def test_s1_4_the_smallest_rate_still_sends_whatever_is_reserved(messages, reserve):
    bucket = Bucket(SendRate(messages=messages, seconds=60, reserve=reserve))

    assert bucket.take(NOW)
    assert NOW + 600 > max(send(bucket, 600)) > NOW + 500


def test_s1_4_what_is_reserved_is_there_for_a_ping_after_a_burst():
    bucket = Bucket(SendRate(messages=10, seconds=10, reserve=0.2))
    while bucket.take(NOW):
        pass

    # Two pings cost nothing that messages could have had; the third has to be earned again.
    free_at = NOW + 1
    assert pytest.approx(free_at) == bucket.free_at(NOW)
    bucket.spend(NOW)

    assert pytest.approx(free_at + 1) == bucket.free_at(NOW)


def test_s1_4_messages_and_pings_together_keep_the_rate():
    sent = send(Bucket(SendRate(messages=10, seconds=1, reserve=0.1)), 100, ping_every=0.5)

    assert pytest.approx(1000 - 200, abs=12) == len(sent)


@pytest.mark.parametrize("messages", [1, 2, 10])
@pytest.mark.parametrize("reserve", [0, 0.1, 0.9])
def test_s1_4_pings_that_use_up_the_whole_rate_slow_messages_down_and_do_not_silence_them(
    messages, reserve
):
    bucket = Bucket(SendRate(messages=messages, seconds=60, reserve=reserve))
    sent = send(bucket, 3600, ping_every=60 / messages / 3)

    assert len(sent) >= 3600 / 60 / 2
    assert max(sent) > NOW + 3400


def test_what_was_not_sent_is_not_saved_up_beyond_a_period():
    bucket = Bucket(SendRate(messages=3, seconds=1, reserve=0))
    while bucket.take(NOW):
        pass

    assert 3 == sum(bucket.take(NOW + 1000) for _ in range(10))


@pytest.mark.parametrize("seed", range(20))
def test_a_message_that_waited_for_its_time_goes_then(seed):
    chance = random.Random(seed)
    rate = SendRate(messages=chance.randint(1, 3000), seconds=chance.uniform(0.5, 5), reserve=0.1)
    bucket, now = Bucket(rate), NOW
    for _ in range(5000):
        if not bucket.take(now):
            now = bucket.free_at(now)

            assert bucket.take(now)
        now += chance.uniform(0, rate.seconds / rate.messages)


def test_when_the_next_may_go_is_neither_too_early_nor_later_than_needed():
    bucket = Bucket(SendRate(messages=4, seconds=2, reserve=0))

    assert NOW == bucket.free_at(NOW)
    while bucket.take(NOW):
        pass

    assert NOW + 0.5 == bucket.free_at(NOW)
    assert NOW + 0.5 == bucket.free_at(NOW + 0.25)
    assert not bucket.take(NOW + 0.4999)
    assert bucket.take(bucket.free_at(NOW + 0.4999))
    assert NOW + 1 == bucket.free_at(NOW + 0.5)
