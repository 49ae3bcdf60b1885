"""A machine that sleeps: noticed once, and answered at once."""

from __future__ import annotations

import math
import time

import pytest
import tenacity
import trio

import wsclient
from wsclient.events import (
    ConnectionAttempted,
    ConnectionLost,
    ConnectionReady,
    RetryScheduled,
    StateChanged,
    SuspendDetected,
)
from wsclient.options import HeartbeatOptions, RetryPolicy
from wsclient.session import _supervisor
from wsclient.session._clock import suspend_clock
from wsclient.session._suspend import watch_for_suspend
from wsclient.testing import NONE, REFUSE, SILENCE, FaultServer

EXACT = HeartbeatOptions(interval=20, timeout=20, jitter=0)


class Sleep:
    """A clock that tells how long the machine has slept: as long as the test says."""

    def __init__(self):
        self.slept = 100.0

    def __call__(self):
        return self.slept


@pytest.fixture
def sleep(monkeypatch):
    sleep = Sleep()
    monkeypatch.setattr(_supervisor, "suspend_clock", lambda: sleep)
    return sleep


# --- the clock ----------------------------------------------------------------------------------


def test_s5_5_the_clock_stands_still_while_the_machine_is_awake():
    clock = suspend_clock()
    if clock is None:
        pytest.skip("this platform has no clock that goes on in a suspend")
    before = clock()
    time.sleep(0.05)

    assert pytest.approx(before, abs=0.02) == clock()


def test_s5_5_where_the_platform_has_no_such_clock_there_is_none(monkeypatch):
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)

    assert None is suspend_clock()


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([5, 5, 5], []),
        ([5, 65, 65], [60]),
        ([5, 5.9, 6.8], []),  # Less than a second each: read in two steps, it may be off.
        ([5, 4.5, 5.5, 5.5], []),
        ([0, 10, 30], [10, 20]),
    ],
)
async def test_s5_5_each_suspend_is_told_once(autojump_clock, readings, expected):
    told = []
    rest = iter(readings)
    with trio.move_on_after(5 * len(readings) - 1):
        await watch_for_suspend(lambda: next(rest), told.append)

    assert expected == told


# --- what a channel makes of it ------------------------------------------------------------------


async def test_s5_5_a_peer_that_is_gone_after_a_suspend_is_left_in_seconds(
    autojump_clock, network, recorder, sleep
):
    async with (
        FaultServer([SILENCE.later(after=101), NONE], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(101.5)
        sleep.slept += 3600
        lost = await recorder.wait_for(ConnectionLost)

        # Seen at 105; without it, the ping of 120 would wait until 140.
        assert 110 == trio.current_time()
        assert "nothing came from the peer for 5 s after a ping" == lost.cause
        assert [3600] == [event.duration for event in recorder.of(SuspendDetected)]


async def test_s5_5_a_peer_that_lives_after_a_suspend_is_asked_at_once_and_kept(
    autojump_clock, network, recorder, sleep
):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(31)
        sleep.slept += 3600
        await trio.sleep(1000)

        assert [20, 35, 55, 75] == [ping.at for ping in server.connections[0].pings][:4]
    assert [] == recorder.of(ConnectionLost)


async def test_s5_5_after_a_suspend_a_peer_has_its_usual_time_again(
    autojump_clock, network, recorder, sleep
):
    async with (
        FaultServer([SILENCE.later(after=41), NONE], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(31)
        sleep.slept += 3600
        await recorder.wait_for(ConnectionLost)

        assert 75 == trio.current_time()


async def test_s5_5_where_pings_are_off_none_is_sent_after_a_suspend(
    autojump_clock, network, recorder, sleep
):
    async with (
        FaultServer([SILENCE], network=network) as server,
        wsclient.open_channel(
            server.url, heartbeat=HeartbeatOptions(interval=math.inf), observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        sleep.slept += 3600
        await trio.sleep(1000)

        assert [] == server.connections[0].pings
    assert 1 == len(recorder.of(SuspendDetected))


async def test_s5_5_a_wait_ends_with_a_suspend_and_the_backoff_begins_anew(
    autojump_clock, network, recorder, sleep
):
    policy = RetryPolicy(wait=tenacity.wait_incrementing(start=100, increment=100))
    async with (
        FaultServer([REFUSE] * 3 + [NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=[recorder]),
    ):
        await recorder.wait_for(RetryScheduled, count=2)
        await trio.sleep(31)

        assert [100, 200] == [event.delay for event in recorder.of(RetryScheduled)]
        sleep.slept += 3600
        await recorder.wait_for(RetryScheduled, count=3)

        # At the next look, and as after the first failure.
        assert 135 == trio.current_time()
        assert 100 == recorder.of(RetryScheduled)[-1].delay
        assert [1, 2, 1] == [event.attempt for event in recorder.of(ConnectionAttempted)]
        assert "the machine was suspended" in {event.cause for event in recorder.of(StateChanged)}
        await recorder.wait_for(ConnectionReady)

        assert 235 == trio.current_time()


async def test_s5_5_a_suspend_while_a_connection_is_established_changes_nothing(
    autojump_clock, network, recorder, sleep
):
    async def slow_hook(connection):
        await trio.sleep(12)

    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(
            server.url, heartbeat=EXACT, on_connect=slow_hook, observers=[recorder]
        ) as channel,
    ):
        await trio.sleep(1)
        sleep.slept += 3600
        await channel.wait_ready()

        assert 12 == trio.current_time()
    assert 1 == len(recorder.of(SuspendDetected))
