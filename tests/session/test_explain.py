"""Why is it not ready?  The sentences."""

from __future__ import annotations

import math

import attrs

from wsclient.events import ChannelState
from wsclient.session._explain import Explanation
from wsclient.session._policy import Phase

WAITING = Explanation(
    channel="feed",
    state=ChannelState.WAITING,
    cause="the server refused the upgrade: HTTP 503",
    since=3.25,
    phase=Phase.STEADY,
    endpoint="wss://b.test",
    endpoints=("wss://a.test", "wss://b.test"),
    epoch=2,
    failures=4,
    next_attempt=6.5,
    rule="HTTP 408, 425, 429 or 5xx",
    outcomes=("closed", "the server refused the upgrade: HTTP 503"),
    budget_left=56,
    budget_attempts=60,
    budget_seconds=600,
)


def test_s3_4_a_channel_that_waits_says_for_what_and_why():
    assert (
        "feed has been WAITING for 3.2 s: the server refused the upgrade: HTTP 503."
        " The next attempt comes in 6.5 s, at wss://b.test; retry_now() makes it at once."
        " Failures since the last stable connection: 4."
        " The last loss fell under the rule 'HTTP 408, 425, 429 or 5xx'."
        " The last of 2 endings kept: the server refused the upgrade: HTTP 503."
        " Endpoints: wss://a.test, wss://b.test."
        " At most 60 attempts in 600 s; 56 are left, then it waits."
    ) == str(WAITING)


def test_s3_4_a_channel_that_would_give_up_without_a_budget_says_so():
    mortal = attrs.evolve(WAITING, budget_when_spent="fail")

    assert str(mortal).endswith(" At most 60 attempts in 600 s; 56 are left, then it gives up.")


def test_s3_4_a_channel_that_is_ready_says_so():
    ready = attrs.evolve(
        WAITING,
        state=ChannelState.READY,
        cause="the connection is established",
        since=60.0,
        endpoint="wss://a.test",
        endpoints=("wss://a.test",),
        failures=0,
        next_attempt=None,
        rule=None,
        outcomes=(),
        budget_attempts=math.inf,
        budget_left=math.inf,
    )

    assert (
        "feed has been READY for 60.0 s: the connection is established."
        " It is connected to wss://a.test, its connection number 2."
    ) == str(ready)


def test_s3_4_a_channel_that_was_never_ready_says_so():
    connecting = attrs.evolve(
        WAITING,
        state=ChannelState.CONNECTING,
        phase=Phase.STARTUP,
        cause="it was opened",
        next_attempt=None,
        failures=0,
        rule=None,
        outcomes=(),
        endpoints=("wss://b.test",),
    )

    assert (
        "feed has been CONNECTING for 3.2 s: it was opened."
        " It has never been ready."
        " An attempt at wss://b.test is under way."
        " At most 60 attempts in 600 s; 56 are left, then it waits."
    ) == str(connecting)


def test_s3_4_a_channel_that_failed_speaks_of_nothing_to_come():
    failed = attrs.evolve(WAITING, state=ChannelState.FAILED, cause="gave up", next_attempt=None)

    assert "left" not in str(failed)
    assert "under way" not in str(failed)
    assert "Failures since the last stable connection: 4." in str(failed)
