"""Retrying as a whole: budgets, endpoints, functions that are asked, and what a user can do."""

from __future__ import annotations

import itertools
import math

import pytest
import tenacity
import trio
import trio.testing

import wsclient
from wsclient.errors import ChannelFailed, ConnectionTimeout, ProviderError
from wsclient.events import (
    ChannelState,
    ConnectionAttempted,
    ConnectionFailed,
    ConnectionLeft,
    ConnectionLost,
    ConnectionOpened,
    ConnectionReady,
    Gap,
    Outcome,
    RetryScheduled,
    StateChanged,
)
from wsclient.options import ConnectionOptions, Limits, RetryBudget, RetryPolicy
from wsclient.session import NextEndpoint, Phase, Retry
from wsclient.testing import (
    MUTE_CLOSE,
    NEVER_READS,
    NONE,
    REFUSE,
    REJECT_401,
    REJECT_404,
    REJECT_503,
    SILENCE,
    SILENT_HANDSHAKE,
    Fault,
    FaultServer,
)

AT_ONCE = tenacity.wait_none()
A, B, C = (f"ws://{name}.test" for name in "abc")


def servers(network, **stories):
    """Servers of these names, each with a story."""
    return [
        FaultServer(story, network=network, host=f"{name}.test") for name, story in stories.items()
    ]


def attempts(recorder):
    """Where the attempts went."""
    return [event.endpoint for event in recorder.of(ConnectionAttempted)]


async def fail(*args, **options):
    """Open a channel that gives up by itself; return why."""
    with pytest.raises(ChannelFailed) as caught:
        async with wsclient.open_channel(*args, **options):
            await trio.sleep_forever()
    return caught.value


# --- the budget ---------------------------------------------------------------------------------


async def test_s4_2_a_channel_makes_sixty_attempts_in_ten_minutes_at_most(
    autojump_clock, network, recorder
):
    policy = RetryPolicy(wait=AT_ONCE)
    async with FaultServer([REFUSE], network=network) as server:
        with trio.move_on_after(599):
            async with wsclient.open_channel(server.url, retry=policy, observers=[recorder]):
                await trio.sleep_forever()

        assert 60 == len(server.connections)
        rules = [retry.rule for retry in recorder.of(RetryScheduled)]

        assert ["unreachable"] * 59 + ["the retry budget is spent"] == rules
        assert 600 <= recorder.of(RetryScheduled)[-1].delay <= 601


async def test_s4_2_a_channel_that_waited_for_its_budget_goes_on(autojump_clock, network):
    policy = RetryPolicy(wait=AT_ONCE, budget=RetryBudget(attempts=3, seconds=10))
    async with (
        FaultServer([REFUSE] * 8 + [NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as channel,
    ):
        await channel.wait_ready()

    opened = [visit.opened_at for visit in server.connections]

    assert [0] * 3 == opened[:3]
    # Never more than three in ten seconds.
    assert all(later - earlier >= 10 for earlier, later in zip(opened, opened[3:], strict=False))
    assert 20 <= opened[8] <= 26


async def test_s4_2_a_spent_budget_can_be_fatal(autojump_clock, network):
    budget = RetryBudget(attempts=3, seconds=60, when_spent="fail")
    async with FaultServer([REFUSE], network=network) as server:
        failed = await fail(
            server.url, retry=RetryPolicy(wait=AT_ONCE, budget=budget), observers=()
        )

    assert 3 == len(server.connections)
    assert "gave up on ws://server.test: the retry budget is spent: 3 attempts in 60 s" == str(
        failed
    )
    assert "Connection refused" in str(failed.__cause__)


async def test_s4_2_a_budget_that_is_not_spent_by_the_time_of_the_attempt_is_not_spent(
    autojump_clock, network
):
    budget = RetryBudget(attempts=1, seconds=5, when_spent="fail")
    policy = RetryPolicy(wait=tenacity.wait_fixed(5), budget=budget)
    async with (
        FaultServer([REFUSE, REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as channel,
    ):
        await channel.wait_ready()


async def test_s4_2_channels_share_a_budget(autojump_clock, network):
    policy = RetryPolicy(wait=AT_ONCE, budget=RetryBudget(attempts=10, seconds=60))
    async with FaultServer([REFUSE], network=network) as server, trio.open_nursery() as nursery:
        for _ in range(4):
            await wsclient.connect_channel(nursery, server.url, retry=policy, observers=())
        await trio.sleep(299)
        nursery.cancel_scope.cancel()
    opened = [visit.opened_at for visit in server.connections]

    assert all(later - earlier >= 60 for earlier, later in zip(opened, opened[10:], strict=False))
    assert 40 <= len(opened) <= 50


async def test_s4_2_a_first_attempt_waits_for_a_budget_that_others_have_spent(
    autojump_clock, network, recorder
):
    policy = RetryPolicy(wait=AT_ONCE, budget=RetryBudget(attempts=1, seconds=60))
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as first,
    ):
        await first.wait_ready()
        async with wsclient.open_channel(server.url, retry=policy, observers=[recorder]) as channel:
            assert ChannelState.WAITING is await channel.wait_state(ChannelState.WAITING)
            await channel.wait_ready()

            assert 60 <= trio.current_time() <= 61
    assert "the retry budget is spent" == recorder.of(RetryScheduled)[0].rule


async def test_s4_2_a_first_attempt_fails_if_the_shared_budget_says_so(autojump_clock, network):
    policy = RetryPolicy(budget=RetryBudget(attempts=1, when_spent="fail"))
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as first,
    ):
        await first.wait_ready()
        failed = await fail(server.url, retry=policy, observers=())

    assert "the retry budget is spent" in str(failed)
    assert None is failed.__cause__


@pytest.mark.parametrize("when_spent", ["wait", "fail"])
async def test_s4_2_who_reconnects_again_and_again_meets_the_budget(
    autojump_clock, network, when_spent
):
    budget = RetryBudget(attempts=5, seconds=100, when_spent=when_spent)
    async with FaultServer(network=network) as server:
        with trio.move_on_after(99):
            try:
                async with wsclient.open_channel(
                    server.url, retry=RetryPolicy(budget=budget), observers=()
                ) as channel:
                    while True:
                        await channel.wait_ready()
                        channel.reconnect("restless")
                        await trio.sleep(1)
            except ChannelFailed:
                assert "fail" == when_spent
                assert "the retry budget is spent" in str(channel._supervisor.failure)

    assert 5 == len(server.connections)


# --- several endpoints --------------------------------------------------------------------------


async def test_s4_5_after_a_failure_the_next_endpoint_and_the_delay_once_all_were_tried(
    autojump_clock, network, recorder
):
    policy = RetryPolicy(wait=tenacity.wait_fixed(5))
    a, b, c = servers(network, a=[REFUSE], b=[REJECT_503], c=[REFUSE, NONE])
    async with a, b, c, wsclient.open_channel([A, B, C], retry=policy, observers=[recorder]) as it:
        await it.wait_ready()

        assert C == it.endpoint
    assert [A, B, C, A, B, C] == attempts(recorder)
    assert [0, 0, 5, 0, 0] == [retry.delay for retry in recorder.of(RetryScheduled)]
    # Each event names the endpoint of its attempt.
    assert [A, B, C, A, B] == [event.endpoint for event in recorder.of(ConnectionFailed)]
    assert [B, C, A, B, C] == [event.endpoint for event in recorder.of(RetryScheduled)]
    assert [C] == [event.endpoint for event in recorder.of(ConnectionReady)]
    assert list(range(1, 7)) == [event.attempt for event in recorder.of(ConnectionAttempted)]


async def test_s4_5_a_stop_on_attempts_counts_rounds(autojump_clock, network):
    policy = RetryPolicy(wait=AT_ONCE, stop=tenacity.stop_after_attempt(2))
    a, b = servers(network, a=[REFUSE], b=[REFUSE])
    async with a, b:
        failed = await fail([A, B], retry=policy, observers=())

    assert [2, 2] == [len(server.connections) for server in (a, b)]
    assert "RetryPolicy.stop after 4 failures" in str(failed)


async def test_s4_1_the_endpoint_of_a_stable_connection_is_tried_first_again(
    autojump_clock, network, recorder
):
    a, b = servers(network, a=[Fault.close(1001, after=60), NONE], b=[NONE])
    async with a, b, wsclient.open_channel([A, B], observers=[recorder]):
        await recorder.wait_for(ConnectionReady, count=2)

    assert [A, A] == attempts(recorder)
    # Not all of its clients at once.
    assert 0 < recorder.of(RetryScheduled)[0].delay <= 1


async def test_s4_5_a_stable_connection_begins_a_new_round(autojump_clock, network, recorder):
    policy = RetryPolicy(wait=tenacity.wait_fixed(5))
    a, b = servers(network, a=[REFUSE, NONE], b=[Fault.close(1001, after=60), REFUSE])
    async with a, b, wsclient.open_channel([A, B], retry=policy, observers=[recorder]):
        await recorder.wait_for(ConnectionReady, count=2)

    assert [A, B, B, A] == attempts(recorder)
    assert [0, 5, 0] == [retry.delay for retry in recorder.of(RetryScheduled)]


async def test_s4_5_the_endpoint_of_a_connection_that_was_not_stable_is_left(
    autojump_clock, network, recorder
):
    a, b = servers(network, a=[Fault.close(1001, after=10)], b=[NONE])
    async with a, b, wsclient.open_channel([A, B], observers=[recorder]):
        await recorder.wait_for(ConnectionReady, count=2)

    assert [A, B] == attempts(recorder)
    assert [0.0] == [retry.delay for retry in recorder.of(RetryScheduled)]


async def test_s4_5_an_endpoint_that_fell_silent_is_left_also_if_it_was_stable(
    autojump_clock, network, recorder
):
    a, b = servers(network, a=[SILENCE.later(after=60)], b=[NONE])
    async with a, b, wsclient.open_channel([A, B], observers=[recorder]):
        await recorder.wait_for(ConnectionReady, count=2)

    assert [A, B] == attempts(recorder)


async def test_s4_4_after_1013_the_next_endpoint_is_tried_at_once_and_this_one_at_the_cap(
    autojump_clock, network, recorder
):
    a, b = servers(network, a=[Fault.close(1013, after=60), NONE], b=[REFUSE])
    async with a, b, wsclient.open_channel([A, B], observers=[recorder]):
        await recorder.wait_for(ConnectionReady, count=2)

    first, *others = attempts(recorder)

    assert (A, A) == (first, others[-1])
    assert {B} == set(others[:-1])
    assert 75.25 <= a.connections[1].opened_at <= 90.25


async def test_s4_4_after_1013_a_single_endpoint_is_tried_at_the_cap(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([Fault.close(1013), NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionReady, count=2)

    assert 15.25 <= recorder.of(RetryScheduled)[0].delay <= 30.25


async def test_s4_4_a_second_1012_waits_at_its_endpoint_and_not_at_another(
    autojump_clock, network, recorder
):
    a, b = servers(
        network,
        a=[Fault.close(1012, after=60), Fault.close(1012, after=1), NONE],
        b=[REFUSE],
    )
    async with a, b, wsclient.open_channel([A, B], observers=[recorder]):
        await recorder.wait_for(ConnectionReady, count=3)

    # The first 1012 ended a stable connection: the same endpoint, within a second.
    assert [A, A, B] == attempts(recorder)[:3]
    left_at = a.connections[1].ended_at

    assert left_at == b.connections[0].opened_at
    assert left_at + 5 <= a.connections[2].opened_at <= left_at + 30


async def test_s4_4_a_second_1012_with_a_refusal_between_waits_from_five_to_thirty_seconds(
    autojump_clock, network, recorder
):
    story = [Fault.close(1012), REFUSE, Fault.close(1012), NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionReady, count=3)
    delays = [retry.delay for retry in recorder.of(RetryScheduled)]

    assert delays[0] <= 1
    assert 5 <= delays[2] <= 30


async def test_s4_4_a_1012_after_a_stable_connection_is_a_first_one(
    autojump_clock, network, recorder
):
    story = [Fault.close(1012), Fault.close(1012, after=60), NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionReady, count=3)

    assert all(retry.delay <= 1 for retry in recorder.of(RetryScheduled))


async def test_s4_3_an_endpoint_that_asks_for_time_gets_it_and_the_others_are_tried(
    autojump_clock, network, recorder
):
    a, b = servers(network, a=[Fault.reject(503, retry_after=300), NONE], b=[REFUSE])
    async with a, b, wsclient.open_channel([A, B], observers=[recorder]) as channel:
        await channel.wait_ready()

    assert 300 <= a.connections[1].opened_at <= 331
    assert len(b.connections) > 8


async def test_s4_4_401_is_answered_with_fresh_credentials_at_the_same_endpoint(
    autojump_clock, network, recorder
):
    told = []

    async def credentials(fresh):
        told.append(fresh)
        return "Bearer " + ("new" if fresh else "old")

    a, b = servers(network, a=[REJECT_401, NONE], b=[NONE])
    async with (
        a,
        b,
        wsclient.open_channel([A, B], credentials=credentials, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()

    assert [A, A] == attempts(recorder)
    assert [False, True] == told
    assert [b"Bearer old", b"Bearer new"] == [
        dict(visit.headers)[b"authorization"] for visit in a.connections
    ]


async def test_s4_4_401_with_fresh_credentials_is_fatal(autojump_clock, network):
    told = []

    async def credentials(fresh):
        told.append(fresh)
        return "Bearer abc"

    async with FaultServer([REJECT_401], network=network) as server:
        failed = await fail(server.url, credentials=credentials, observers=())

    assert [False, True] == told
    assert "HTTP 401, fatal after 1 retry at startup" in str(failed)


async def test_s4_4_ones_own_decision_may_send_the_channel_elsewhere(
    autojump_clock, network, recorder
):
    policy = RetryPolicy(classify=lambda loss, phase: NextEndpoint("mine"))
    a, b = servers(network, a=[Fault.close(1000, after=60)], b=[NONE])
    async with a, b, wsclient.open_channel([A, B], retry=policy, observers=[recorder]):
        await recorder.wait_for(ConnectionReady, count=2)

    assert [A, B] == attempts(recorder)


async def test_s4_4_a_delay_of_ones_own_is_for_this_endpoint_only(
    autojump_clock, network, recorder
):
    policy = RetryPolicy(classify=lambda loss, phase: Retry("mine", (100, 100)))
    a, b = servers(network, a=[Fault.close(1000, after=60), NONE], b=[Fault.close(1000), NONE])
    async with a, b, wsclient.open_channel([A, B], retry=policy, observers=[recorder]):
        await recorder.wait_for(ConnectionReady, count=3)

    assert [A, B, A] == attempts(recorder)
    assert [0.0, 100.0] == [retry.delay for retry in recorder.of(RetryScheduled)]


async def test_i11_several_endpoints_that_all_accept_and_close_meet_the_budget(
    autojump_clock, network
):
    stories = {name: [Fault.close(1000)] for name in "abc"}
    a, b, c = servers(network, **stories)
    async with a, b, c:
        with trio.move_on_after(599):
            async with wsclient.open_channel([A, B, C], observers=()):
                await trio.sleep_forever()

        assert 40 <= sum(len(server.connections) for server in (a, b, c)) <= 60


# --- functions that are asked at every attempt --------------------------------------------------


async def test_s4_5_the_url_is_asked_for_at_every_attempt(autojump_clock, network, recorder):
    urls = iter([A + "/?ticket=1", A + "/?ticket=2", B + "/?ticket=3"])

    async def url():
        return next(urls)

    a, b = servers(network, a=[REFUSE, Fault.close(1000)], b=[NONE])
    async with a, b, wsclient.open_channel(url, observers=[recorder]) as channel:
        assert channel.name.endswith("url()")
        await recorder.wait_for(ConnectionReady, count=2)

        assert B == channel.endpoint
    assert [A, A, B] == attempts(recorder)
    assert "/?ticket=2" == a.connections[1].path
    assert "/?ticket=3" == b.connections[0].path


async def test_s4_5_headers_are_asked_for_at_every_attempt(autojump_clock, network):
    numbers = itertools.count(1)

    async def headers():
        return {"X-Number": str(next(numbers))}

    async with (
        FaultServer([REJECT_503, NONE], network=network) as server,
        wsclient.open_channel(server.url, headers=headers, observers=()) as channel,
    ):
        await channel.wait_ready()

    assert [b"1", b"2"] == [dict(visit.headers)[b"x-number"] for visit in server.connections]


async def test_s4_5_asking_and_connecting_share_one_deadline(autojump_clock, network, recorder):
    async def slow():
        await trio.sleep(6)
        return {}

    async with (
        FaultServer([SILENT_HANDSHAKE], network=network) as server,
        wsclient.open_channel(server.url, headers=slow, observers=[recorder]),
    ):
        failed = await recorder.wait_for(ConnectionFailed)

        assert 10 == trio.current_time() == failed.duration
        assert 6 == server.connections[0].opened_at
    assert "ws://server.test was not connected within 10 s" == failed.cause


async def test_s4_5_a_function_that_is_late_is_a_timeout_and_retried(
    autojump_clock, network, recorder
):
    calls = itertools.count(1)

    async def headers():
        if next(calls) == 1:
            await trio.sleep_forever()
        return {}

    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(
            server.url,
            headers=headers,
            connection=ConnectionOptions(connect_timeout=2),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()

    assert ["what is needed to connect to ws://server.test was not given within 2 s"] == [
        failed.cause for failed in recorder.of(ConnectionFailed)
    ]
    assert [2.0] == [failed.duration for failed in recorder.of(ConnectionFailed)]


@pytest.mark.parametrize("what", ["url", "headers", "credentials"])
async def test_s4_5_what_a_function_raises_is_fatal_at_startup_with_its_cause(
    autojump_clock, network, recorder, what
):
    mine = LookupError("no token in the vault")

    async def function(**_):
        raise mine

    options = {"url": "ws://server.test", what: function}
    async with FaultServer(network=network) as server:
        failed = await fail(options.pop("url"), **options, observers=[recorder])

    assert ProviderError is type(failed.__cause__)
    assert mine is failed.__cause__.__cause__
    # The user finds the line.
    assert None is not mine.__traceback__
    assert f"the {what} function raised LookupError" in str(failed)
    assert "vault" not in str(failed)
    assert [] == server.connections
    assert 1 == len(recorder.of(ConnectionAttempted)) == len(recorder.of(ConnectionFailed))


@pytest.mark.parametrize("what", ["url", "headers", "credentials"])
async def test_s4_5_what_a_function_raises_in_steady_state_is_retried(
    autojump_clock, network, recorder, what
):
    calls = itertools.count(1)

    async def function(**_):
        if next(calls) in (2, 3):
            raise LookupError("not now")
        return {"url": "ws://server.test", "headers": {}, "credentials": None}[what]

    options = {"url": "ws://server.test", what: function}
    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network),
        wsclient.open_channel(options.pop("url"), **options, observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionReady, count=2)

    assert [f"the {what} function raised LookupError"] * 2 == [
        failed.cause for failed in recorder.of(ConnectionFailed)
    ]


# --- retry_now ----------------------------------------------------------------------------------


async def test_s3_7_retry_now_cuts_a_wait_short(autojump_clock, network, recorder):
    policy = RetryPolicy(wait=tenacity.wait_fixed(1000))
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=[recorder]) as channel,
    ):
        assert not channel.retry_now()
        await channel.wait_state(ChannelState.WAITING)
        await trio.sleep(3)

        assert channel.retry_now()
        await channel.wait_ready()

        assert 3 == trio.current_time()
        assert not channel.retry_now()
    assert "retry_now() was called" == recorder.of(StateChanged)[1].cause


async def test_s3_7_retry_now_does_not_wait_for_the_budget_and_is_charged_to_it(
    autojump_clock, network
):
    policy = RetryPolicy(wait=AT_ONCE, budget=RetryBudget(attempts=1, seconds=1000))
    async with (
        FaultServer([REFUSE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as channel,
    ):
        await channel.wait_state(ChannelState.WAITING)
        await trio.sleep(500)

        assert channel.retry_now()
        await server.wait_connections(2)
        await trio.sleep(510)

        # 1000 s after the second one, and not after the first.
        assert 2 == len(server.connections)


async def test_s3_7_retry_now_works_while_the_channel_drains(autojump_clock, network):
    policy = RetryPolicy(wait=tenacity.wait_fixed(1000))
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as channel,
    ):
        await channel.send("last words")
        await channel.wait_state(ChannelState.WAITING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.drain)
            await trio.testing.wait_all_tasks_blocked()

            assert channel.retry_now()

    assert ["last words"] == server.messages
    assert trio.current_time() < 1


@pytest.mark.parametrize("kind", [StateChanged, RetryScheduled])
async def test_s3_7_an_observer_may_end_the_wait_that_it_is_told_of(
    autojump_clock, network, recorder, kind
):
    cut = []

    def at_once(event):
        if isinstance(event, kind) and channel.state is ChannelState.WAITING:
            cut.append(channel.retry_now())

    policy = RetryPolicy(wait=tenacity.wait_fixed(1000))
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=[recorder, at_once]) as channel,
    ):
        await channel.wait_ready()

    assert [True] == cut
    assert 0 == trio.current_time()


async def test_s3_7_once_a_channel_is_closed_no_attempt_is_waited_for(autojump_clock, network):
    policy = RetryPolicy(wait=tenacity.wait_fixed(1000))
    async with (
        FaultServer([REFUSE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as channel,
    ):
        await channel.wait_state(ChannelState.WAITING)

    assert not channel.retry_now()
    assert None is channel.explain().next_attempt


# --- reconnect ----------------------------------------------------------------------------------


async def test_s3_7_reconnect_leaves_a_ready_connection_for_a_new_one_at_once(
    autojump_clock, network, recorder
):
    async def serve(connection):
        await connection.send(f"from {connection.number}")
        await trio.sleep_forever()

    async with (
        FaultServer(network=network, handler=serve) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        items = channel.items()

        assert "from 1" == await anext(items)
        await trio.sleep(3)

        assert channel.reconnect("the session is about to expire")
        gap = await anext(items)
        message = await anext(items)

        assert (Gap, 1, 2, "from 2") == (type(gap), gap.after, gap.before, message)
        assert "left: the session is about to expire" == gap.reason
        assert 3 == trio.current_time()
        await server.wait_over(1)
    # The server is told, and not why.
    assert (1001, "") == (
        server.connections[0].close.code,
        server.connections[0].close.reason or "",
    )
    assert [
        ConnectionLeft(
            channel="ws://server.test",
            endpoint="ws://server.test",
            attempt=1,
            epoch=1,
            reason="the session is about to expire",
            duration=3.0,
        )
    ] == recorder.of(ConnectionLeft)
    assert [] == recorder.of(ConnectionLost) + recorder.of(RetryScheduled)
    states = [change.state for change in recorder.of(StateChanged)]

    assert ChannelState.WAITING not in states
    assert "asked to reconnect" == recorder.of(StateChanged)[2].cause


async def test_s3_7_a_wanted_loss_is_no_failure(autojump_clock, network, recorder):
    story = [NONE, REFUSE, NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        channel.reconnect("because")
        await recorder.wait_for(ConnectionReady, count=2)

        assert 1 == channel.explain().failures
    # The first retry is due within a second.
    assert [1, 1, 2] == [event.attempt for event in recorder.of(ConnectionAttempted)]
    assert recorder.of(RetryScheduled)[0].delay <= 1


@pytest.mark.parametrize("fault", [MUTE_CLOSE, NEVER_READS], ids=repr)
async def test_s3_7_the_old_connection_does_not_hold_up_the_new_one(
    autojump_clock, network, recorder, fault
):
    async with (
        FaultServer([fault, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        channel.reconnect("because")
        await recorder.wait_for(ConnectionReady, count=2)

        assert 0 == trio.current_time()
        await channel.send("hello")
        await server.wait_messages(1)


async def test_i7_nothing_comes_from_a_connection_that_was_left(autojump_clock, network):
    async def serve(connection):
        text = "old" if connection.number == 1 else "new"
        for _ in range(100):
            await connection.send(text)
        await trio.sleep_forever()

    async with (
        FaultServer(network=network, handler=serve) as server,
        wsclient.open_channel(
            server.url,
            # Its reader waits for room, with much of what was sent still unread.
            limits=Limits(inbox_messages=1),
            connection=ConnectionOptions(receive_buffer_size=20),
            observers=(),
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(1)
        channel.reconnect("because")
        items = channel.items()
        while not isinstance(item := await anext(items), Gap):
            assert "old" == item
        taken = [await anext(items) for _ in range(100)]

    assert ["new"] * 100 == taken


async def test_s3_7_a_connection_that_was_left_is_closed_at_once_though_the_inbox_is_full(
    autojump_clock, network
):
    async def serve(connection):
        for _ in range(100):
            await connection.send("message")
        await trio.sleep_forever()

    async with (
        FaultServer(network=network, handler=serve) as server,
        wsclient.open_channel(
            server.url,
            limits=Limits(inbox_messages=1),
            connection=ConnectionOptions(receive_buffer_size=20),
            observers=(),
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(1)
        channel.reconnect("because")
        await server.wait_over(1)

        # The server's answer came behind messages, which nobody wants any more.
        assert 1 == trio.current_time()
        assert channel.statistics().messages_stale > 0
    assert 1001 == server.connections[0].close.code


async def test_s3_7_what_a_connection_that_was_left_had_in_flight_has_an_outcome(
    autojump_clock, network
):
    async with (
        FaultServer([NEVER_READS, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        stuck = await channel.send(bytes(2**18))
        waits = await channel.send("waits")
        await trio.sleep(1)
        channel.reconnect("because")

        assert Outcome.LOST_UNKNOWN is await stuck.wait()
        await waits.wait()
        await server.wait_messages(1)

    assert ["waits"] == server.messages


async def test_s3_7_only_a_ready_channel_reconnects(autojump_clock, network):
    policy = RetryPolicy(wait=tenacity.wait_fixed(5))
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as channel,
    ):
        assert not channel.reconnect("while connecting")
        await channel.wait_state(ChannelState.WAITING)

        assert not channel.reconnect("while waiting")
        await channel.wait_ready()
        with pytest.raises(TypeError, match="reason must be str, not NoneType"):
            channel.reconnect(None)
    assert not channel.reconnect("when closed")
    assert 2 == len(server.connections)


async def test_s3_7_an_observer_may_reconnect_from_within_the_event(
    autojump_clock, network, recorder
):
    def once(event):
        if isinstance(event, ConnectionReady) and event.epoch == 1:
            assert channel.reconnect("not this one")

    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder, once]) as channel,
    ):
        await recorder.wait_for(ConnectionReady, count=2)

    assert 2 == len(server.connections)


async def test_s3_7_a_stable_connection_that_was_left_resets_the_count(
    autojump_clock, network, recorder
):
    story = [REFUSE, REFUSE, NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()

        assert 2 == channel.explain().failures
        channel.reconnect("too early")
        await recorder.wait_for(ConnectionReady, count=2)

        assert 2 == channel.explain().failures
        await trio.sleep(16)
        channel.reconnect("late enough")
        await recorder.wait_for(ConnectionReady, count=3)

        assert 0 == channel.explain().failures


# --- startup_timeout ----------------------------------------------------------------------------


async def test_s3_5_a_host_that_never_answers_is_fatal_after_startup_timeout(
    autojump_clock, network
):
    async with FaultServer([SILENT_HANDSHAKE], network=network) as server:
        failed = await fail(server.url, startup_timeout=25, observers=())

        assert 25 == trio.current_time()
    assert "gave up on ws://server.test: not ready within 25 s, which is startup_timeout" == str(
        failed
    )
    assert ConnectionTimeout is type(failed.__cause__)


async def test_s3_5_startup_timeout_ends_a_hook_and_tells_the_peer(autojump_clock, network):
    async def hook(connection):
        await trio.sleep_forever()

    async with FaultServer(network=network) as server:
        failed = await fail(server.url, startup_timeout=3, on_connect=hook, observers=())

        assert 3 == trio.current_time()
        await server.wait_over(1)
    assert None is failed.__cause__
    assert 1000 == server.connections[0].close.code


async def test_s3_5_a_channel_that_was_ready_in_time_is_not_ended_by_startup_timeout(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([REFUSE, Fault.reset(after=1), REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, startup_timeout=2, observers=[recorder]) as channel,
    ):
        await recorder.wait_for(ConnectionReady, count=2)
        await trio.sleep(10)

        assert ChannelState.READY is channel.state
        assert 4 == len(server.connections)


async def test_s3_5_startup_timeout_leaves_through_the_nursery_of_connect_channel(
    autojump_clock, network
):
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await wsclient.connect_channel(
                nursery, "ws://nowhere.test", startup_timeout=1, observers=()
            )

    assert ChannelFailed is type(caught.value.exceptions[0])


async def test_s3_5_off_by_default(autojump_clock, network):
    with trio.move_on_after(24 * 3600 - 1):
        async with wsclient.open_channel("ws://nowhere.test", observers=()) as channel:
            await trio.sleep_forever()

    assert ChannelState.CLOSED is channel.state


# --- explain and outages ------------------------------------------------------------------------


async def test_s3_4_explain_says_why_a_channel_is_not_ready(autojump_clock, network):
    policy = RetryPolicy(wait=tenacity.wait_fixed(7))
    async with (
        FaultServer([REJECT_503], network=network) as server,
        wsclient.open_channel(server.url, name="feed", retry=policy, observers=()) as channel,
    ):
        assert "feed has been CONNECTING for 0.0 s: it was opened." in str(channel.explain())
        await channel.wait_state(ChannelState.WAITING)
        await trio.sleep(2)
        explanation = channel.explain()

    refusal = "the server refused the upgrade: HTTP 503"

    assert (
        wsclient.Explanation(
            channel="feed",
            state=ChannelState.WAITING,
            cause=refusal,
            since=2.0,
            phase=Phase.STARTUP,
            endpoint="ws://server.test",
            endpoints=("ws://server.test",),
            epoch=0,
            failures=1,
            next_attempt=5.0,
            rule="HTTP 408, 425, 429 or 5xx",
            outcomes=(refusal,),
            budget_left=59,
            budget_attempts=60,
            budget_seconds=600.0,
        )
        == explanation
    )


@pytest.mark.parametrize(
    ("when_spent", "then"), [("wait", "then it waits"), ("fail", "then it gives up")]
)
async def test_s3_4_explain_says_what_follows_the_last_attempt_of_the_budget(
    autojump_clock, network, when_spent, then
):
    policy = RetryPolicy(budget=RetryBudget(attempts=9, seconds=60, when_spent=when_spent))
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=()) as channel,
    ):
        assert f"At most 9 attempts in 60 s; 9 are left, {then}." in str(channel.explain())


async def test_s3_4_explain_can_be_asked_in_every_state(autojump_clock, network):
    seen = []

    def ask(event):
        if isinstance(event, StateChanged):
            seen.append((event.state, channel.explain().state, str(channel.explain())))

    story = [REFUSE, Fault.reset(after=1), NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[ask]) as channel,
    ):
        await server.wait_connections(3)
        await channel.wait_ready()
        await channel.send("hello")
        await channel.drain()

    assert set(ChannelState) - {ChannelState.FAILED} == {state for state, *_ in seen}
    assert all(state is told for state, told, _ in seen)
    assert "It is connected to ws://server.test, its connection number 2." in seen[-3][2]


async def test_s3_4_outages_tell_when_why_and_what_was_lost(autojump_clock, network, recorder):
    policy = RetryPolicy(wait=tenacity.wait_fixed(5))
    story = [Fault.reset(after=10), REFUSE, REJECT_503, NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()

        assert () == channel.outages
        await channel.wait_state(ChannelState.WAITING)
        receipt = await channel.send("taken back")
        await trio.sleep(1)
        receipt.cancel()
        [lasting] = channel.outages

        assert (None, None, 0, 1) == (
            lasting.until,
            lasting.duration,
            lasting.attempts,
            lasting.unsent,
        )
        await channel.wait_ready()
        [outage] = channel.outages

    [ready] = recorder.of(ConnectionReady)[1:]

    assert (3, 1, 0) == (outage.attempts, outage.unsent, outage.lost_unknown)
    assert [gap.gap for gap in recorder.of(wsclient.GapDetected)] == list(outage.gaps)
    assert math.isclose(outage.since, outage.gaps[0].since, abs_tol=20)
    assert 25.0 == ready.outage
    assert [
        "the connection is closed: 1006 ABNORMAL_CLOSURE",
        "cannot connect to ws://server.test: Connection refused",
        "the server refused the upgrade: HTTP 503",
    ] == [cause.partition(" (")[0] for cause in outage.causes]


async def test_s3_4_a_connection_that_was_not_established_is_a_cause_of_the_outage(
    autojump_clock, network, recorder
):
    calls = itertools.count(1)

    async def hook(connection):
        if next(calls) == 2:
            raise LookupError("not now")

    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network) as server,
        wsclient.open_channel(server.url, on_connect=hook, observers=[recorder]) as channel,
    ):
        await recorder.wait_for(ConnectionReady, count=2)
        [outage] = channel.outages

    assert "the on_connect hook raised LookupError: not now" == outage.causes[1]
    assert (2, 3) == (outage.attempts, len(recorder.of(ConnectionOpened)))
    assert 3 == len(server.connections)


async def test_s3_4_leaving_a_connection_is_an_outage_too(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        channel.reconnect("because")
        await recorder.wait_for(ConnectionReady, count=2)
        [outage] = channel.outages

    assert (("left: because",), 1) == (outage.causes, outage.attempts)


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"url": []}, ValueError, "url must not be an empty sequence"),
        ({"url": [A, "http://b.test"]}, ValueError, "try ws://b.test"),
        ({"url": [A, 3]}, TypeError, "URL must be str, not int"),
        ({"url": b"ws://a.test"}, TypeError, "URL must be str, not bytes"),
        (
            {"headers": {"X": "1"}},
            TypeError,
            "headers must be an async function, not dict: what stays the same goes into"
            " connection=ConnectionOptions",
        ),
        (
            {"credentials": "x"},
            TypeError,
            "credentials must be an async function, not str: what stays the same",
        ),
        ({"startup_timeout": "x"}, TypeError, "startup_timeout must be a number, not str"),
        ({"startup_timeout": True}, TypeError, "startup_timeout must be a number, not bool"),
        ({"startup_timeout": -1}, ValueError, "startup_timeout must be at least 0, not -1"),
        ({"startup_timeout": math.nan}, ValueError, "startup_timeout must be at least 0, not nan"),
    ],
)
def test_s4_5_an_argument_that_cannot_be_used_is_refused_at_the_call(options, error, text):
    with pytest.raises(error, match=text):
        wsclient.open_channel(**{"url": A, **options})


async def test_a_refusal_at_startup_is_fatal_also_where_there_are_other_endpoints(
    autojump_clock, network
):
    a, b = servers(network, a=[REJECT_404], b=[NONE])
    async with a, b:
        failed = await fail([A, B], observers=())

    assert "gave up on ws://a.test: HTTP status, fatal at startup" in str(failed)
