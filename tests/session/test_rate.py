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


@pytest.mark.parametrize("messages", [1, 2, 10])
@pytest.mark.parametrize("reserve", [0, 0.1, 0.9])
def test_s1_4_pings_that_use_up_the_whole_rate_slow_messages_down_and_do_not_silence_them(
    messages, reserve
):
    bucket = Bucket(SendRate(messages=messages, seconds=60, reserve=reserve))
    sent = send(bucket, 3600, ping_every=60 / messages / 3)

    assert len(sent) >= 3600 / 60 / 2
    assert max(sent) > NOW + 3400


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
