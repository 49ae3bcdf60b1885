"""A second connection beside the first: rotation (S6.3) and redundant lines."""

from __future__ import annotations

import itertools
import json
import math
from contextlib import suppress

import pytest
import tenacity
import trio
import trio.testing

import wsclient
from wsclient import Gap, HeartbeatOptions, Outcome
from wsclient.events import (
    ConnectionLeft,
    ConnectionLost,
    ConnectionReady,
    GapDetected,
    SubscriptionsRestored,
)
from wsclient.session._standby import LONGEST_COVER
from wsclient.testing import (
    CLEAR,
    HALF_OPEN_DOWN,
    NONE,
    REJECT_503,
    Conditions,
    Fault,
    FaultProxy,
    FaultServer,
    Way,
)

from .subscribing import Positioned
from .test_channel import AT_ONCE

NO_PINGS = HeartbeatOptions(interval=math.inf)


def key_of(message):
    return json.loads(message).get("n")


class Feed:
    """One stream of numbered messages, for everyone who is connected, on any of its servers."""

    def __init__(self):
        self.connections = set()
        self.published = 0
        self.interval = 0.01
        """Seconds from one message to the next."""
        self.lost_on = set()

    async def publish(self):
        while True:
            await trio.sleep(self.interval)
            self.published += 1
            for connection in list(self.connections):
                if (connection, self.published) in self.lost_on:
                    continue
                try:
                    await connection.send(json.dumps({"n": self.published}))
                except (
                    trio.BrokenResourceError,
                    trio.ClosedResourceError,
                    wsclient.WebSocketError,
                ):
                    self.connections.discard(connection)

    async def handle(self, connection):
        self.connections.add(connection)
        try:
            while True:
                await connection.receive()
        finally:
            self.connections.discard(connection)


@pytest.fixture
async def feed(nursery):
    feed = Feed()
    nursery.start_soon(feed.publish)
    return feed


async def take(channel, seconds):
    """What is received in so many seconds: numbers, and gaps."""
    items = []
    with trio.move_on_after(seconds):
        async for item in channel.items():
            items.append(item)  # noqa: PERF401  # What was taken before the end is kept.
    return [item if isinstance(item, Gap) else key_of(item) for item in items]


def are_consecutive(numbers):
    return list(numbers) == list(range(numbers[0], numbers[-1] + 1))


async def test_s6_3_rotation_loses_nothing_and_repeats_nothing(
    autojump_clock, network, feed, recorder
):
    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url, dedupe=key_of, rotate_every=10, observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        taken = await take(channel, 60)

        assert are_consecutive(taken)
        assert len(taken) > 5_900
        assert channel.epoch in (6, 7)
        assert 0 == channel.statistics().gaps
    assert [] == recorder.of(ConnectionLost)
    assert [] == recorder.of(GapDetected)
    assert all("it was open for" in event.reason for event in recorder.of(ConnectionLeft))
    # Never a moment without a connection.
    assert len(server.connections) == channel.epoch


async def test_s6_3_the_new_connection_is_established_before_the_old_one_is_left(
    autojump_clock, network, feed, recorder
):
    established = []

    async def on_connect(connection):
        await trio.sleep(2)
        established.append(trio.current_time())

    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url, dedupe=key_of, on_connect=on_connect, observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        began = trio.current_time()

        assert channel.rotate("the server said so")
        await recorder.wait_for(ConnectionReady, count=2)

        assert 2 == len(established)
        assert 2 <= trio.current_time() - began < 2.3
        assert wsclient.ChannelState.READY is channel.state
        await trio.sleep(1)
        first, second = server.connections
        assert first.ended_at >= established[1] > second.opened_at


async def test_s6_3_messages_that_are_sent_move_when_the_new_connection_is_ready(
    autojump_clock, network, feed
):
    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url,
            dedupe=key_of,
            rotate_every=5,
            observers=(),
            # Nobody takes what the feed says.
            limits=wsclient.Limits(inbox_messages=10_000),
        ) as channel,
    ):
        receipts = []
        for number in range(2_000):
            receipts.append(await channel.send(str(number)))
            await trio.sleep(0.01)

        assert await channel.flush()
        assert {Outcome.RECEIVED} == {receipt.outcome for receipt in receipts}
        assert channel.epoch > 3
    heard = [int(message) for each in server.connections for message in each.messages]
    assert list(range(2_000)) == heard


async def test_s6_3_a_rotation_that_fails_is_tried_again_and_the_old_connection_lives_on(
    autojump_clock, network, feed
):
    async with (
        FaultServer(
            [NONE, REJECT_503, REJECT_503, NONE], network=network, handler=feed.handle
        ) as server,
        wsclient.open_channel(server.url, dedupe=key_of, rotate_every=5, observers=()) as channel,
    ):
        await channel.wait_ready()
        assert not channel.is_rotating
        taken = await take(channel, 5)
        assert channel.is_rotating  # The first attempt has failed, and the next one waits.
        taken += await take(channel, 4)

        assert not channel.is_rotating
        assert are_consecutive(taken)
        assert 0 == channel.statistics().gaps
        assert 4 == len(server.connections)


async def test_s6_3_a_connection_that_dies_before_its_successor_covers_it_leaves_a_gap(
    autojump_clock, network, feed, recorder
):
    async def never_ready(connection):
        if len(server.connections) == 2:
            await trio.sleep(10)

    dies = Fault.reset(after=7)
    async with (
        FaultServer([dies, NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url,
            dedupe=key_of,
            rotate_every=5,
            on_connect=never_ready,
            retry=AT_ONCE,
            observers=[recorder],
        ) as channel,
    ):
        await recorder.wait_for(ConnectionReady, count=2)

        assert 1 == channel.statistics().gaps
        assert 3 == channel.epoch


@pytest.mark.parametrize("fault", [NONE, Fault.reset(after=5)])
async def test_s1_8_a_direct_message_goes_over_the_connection_that_takes_over(
    autojump_clock, network, feed, fault
):
    async with (
        FaultServer([fault, NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url,
            redundancy=2,
            dedupe=key_of,
            delivery=wsclient.DeliveryOptions(rate=wsclient.SendRate(messages=1, seconds=10)),
            observers=(),
        ) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 4)
        await channel.send("before")
        if fault is NONE:
            channel.rotate("the server said so")
        # It has to wait until as much may be sent again.
        await channel.send("direct", delivery=wsclient.Delivery.DIRECT)

        assert 2 == channel.epoch
        await channel.flush()
        assert [["before"], ["direct"]] == [each.messages for each in server.connections[:2]]


@pytest.fixture
async def mute(network, nursery, make_peer):
    """A server that says a number twice a second on each connection, and answers no ping."""
    listener = network.listen("mute.test", 80)

    async def serve(stream):
        peer = make_peer(stream)
        await peer.accept()
        with suppress(trio.BrokenResourceError):
            for number in range(10_000):
                await peer.send_frame(0x1, json.dumps({"n": number}).encode())
                await trio.sleep(0.5)

    async def accept():
        while True:
            nursery.start_soon(serve, await listener.accept())

    nursery.start_soon(accept)


async def test_s6_3_where_no_pong_comes_rotation_goes_on_and_tells_a_gap(
    autojump_clock, mute, recorder
):
    async with wsclient.open_channel(
        "ws://mute.test",
        dedupe=key_of,
        rotate_every=10,
        heartbeat=NO_PINGS,
        observers=[recorder],
    ) as channel:
        await channel.wait_ready()
        await take(channel, 40)

        assert 2 == channel.epoch
        assert 1 == channel.statistics().gaps


@pytest.mark.parametrize(("redundancy", "is_asked"), [(1, True), (2, True), (2, False)])
async def test_s6_3_where_a_silent_path_is_left_the_gap_stands_where_messages_are_missing(
    autojump_clock, network, feed, redundancy, is_asked
):
    # A second one comes only when the first has fallen silent.
    story = [NONE, *[REJECT_503] * (redundancy > 1), NONE]
    async with (
        FaultServer(story, network=network, handler=feed.handle) as server,
        FaultProxy(server.url, network=network) as proxy,
        wsclient.open_channel(
            proxy.url,
            dedupe=key_of,
            redundancy=redundancy,
            heartbeat=NO_PINGS,
            retry=wsclient.RetryPolicy(wait=tenacity.wait_fixed(5)),
            observers=(),
        ) as channel,
    ):
        await channel.wait_ready()
        taken = await take(channel, 3)
        proxy.connections[0].change(HALF_OPEN_DOWN)
        taken += await take(channel, 1)
        if is_asked:
            channel.rotate("the server said so")
        taken += await take(channel, 2 * LONGEST_COVER)
        (gap,) = [item for item in taken if isinstance(item, Gap)]
        before, after = taken[: taken.index(gap)], taken[taken.index(gap) + 1 :]

        assert are_consecutive(before)
        assert are_consecutive(after)
        assert after[0] > before[-1] + 1
        assert (1, 2) == (gap.after, gap.before)
        # It is left in either case: what it may still bring would come too late.
        assert 2 == channel.epoch


LAGGING = Way(latency=LONGEST_COVER + 5)
"""What the server says comes, and much later than the time that a pong is given."""


async def lag(channel, proxy, *, answers_pings):
    """What is received until the first connection lags; before, it answers a ping or does not."""
    await channel.wait_ready()
    if answers_pings:
        await channel.send("hello")
        assert await channel.flush()
    proxy.connections[0].change(Conditions(up=Way(silent=not answers_pings), down=LAGGING))
    return await take(channel, LONGEST_COVER + 10)


def lagging_options(redundancy):
    # A second one comes when the first one lags, and not before.
    return {
        "dedupe": key_of,
        "redundancy": redundancy,
        "heartbeat": NO_PINGS,
        "retry": wsclient.RetryPolicy(wait=tenacity.wait_fixed(LONGEST_COVER + 5)),
        "observers": (),
    }


@pytest.mark.parametrize(("redundancy", "is_asked"), [(1, True), (2, True), (2, False)])
async def test_s6_3_a_pong_that_stands_behind_much_is_waited_for(
    autojump_clock, network, feed, redundancy, is_asked
):
    feed.interval = 0.1
    story = [NONE, *[REJECT_503] * (redundancy > 1), NONE]
    async with (
        FaultServer(story, network=network, handler=feed.handle) as server,
        FaultProxy(server.url, network=network) as proxy,
        wsclient.open_channel(proxy.url, **lagging_options(redundancy)) as channel,
    ):
        taken = await lag(channel, proxy, answers_pings=True)
        if is_asked:
            channel.rotate("the server said so")
        taken += await take(channel, 3 * LONGEST_COVER)

        assert are_consecutive(taken)
        assert (2 if is_asked else 1) == channel.epoch
        assert channel.has_standby is (redundancy == 2)
        assert taken[-1] == pytest.approx(feed.published, abs=1)


@pytest.mark.parametrize(("redundancy", "is_asked"), [(1, True), (2, True), (2, False)])
async def test_s6_3_where_the_rest_of_much_does_not_come_the_gap_stands_where_it_is_missing(
    autojump_clock, network, feed, redundancy, is_asked
):
    feed.interval = 0.1
    story = [NONE, *[REJECT_503] * (redundancy > 1), NONE]
    async with (
        FaultServer(story, network=network, handler=feed.handle) as server,
        FaultProxy(server.url, network=network) as proxy,
        wsclient.open_channel(proxy.url, **lagging_options(redundancy)) as channel,
    ):
        taken = await lag(channel, proxy, answers_pings=True)
        if is_asked:
            channel.rotate("the server said so")
        taken += await take(channel, 10)
        proxy.connections[0].change(HALF_OPEN_DOWN)
        taken += await take(channel, 2 * LONGEST_COVER)
        (gap,) = [item for item in taken if isinstance(item, Gap)]
        before, after = taken[: taken.index(gap)], taken[taken.index(gap) + 1 :]

        assert are_consecutive(before)
        assert are_consecutive(after)
        assert after[0] > before[-1] + 1
        assert (1, 2) == (gap.after, gap.before)
        assert 2 == channel.epoch


async def test_s6_3_where_no_pong_ever_came_rotation_tells_the_gap_where_messages_are_missing(
    autojump_clock, network, feed
):
    feed.interval = 0.1
    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        FaultProxy(server.url, network=network) as proxy,
        wsclient.open_channel(proxy.url, **lagging_options(1)) as channel,
    ):
        taken = await lag(channel, proxy, answers_pings=False)
        channel.rotate("the server said so")
        taken += await take(channel, 2 * LONGEST_COVER)
        (gap,) = [item for item in taken if isinstance(item, Gap)]
        before, after = taken[: taken.index(gap)], taken[taken.index(gap) + 1 :]

        assert are_consecutive(before)
        assert are_consecutive(after)
        assert after[0] > before[-1] + 1
        assert (1, 2) == (gap.after, gap.before)


async def test_s6_3_redundant_lines_rotate_where_no_pong_comes(autojump_clock, mute, recorder):
    async with wsclient.open_channel(
        "ws://mute.test", dedupe=key_of, redundancy=2, heartbeat=NO_PINGS, observers=[recorder]
    ) as channel:
        await channel.wait_ready()
        await take(channel, 30)

        assert channel.rotate("the server said so")
        await recorder.wait_for(ConnectionLeft)
        await recorder.wait_for(ConnectionReady, count=2)
        assert 2 == channel.epoch


async def test_s6_3_rotation_waits_for_whoever_takes_messages_slowly(autojump_clock, network, feed):
    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url,
            dedupe=key_of,
            limits=wsclient.Limits(inbox_messages=10),
            heartbeat=NO_PINGS,
            observers=(),
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(1)
        channel.rotate("the server said so")
        await trio.sleep(10 * LONGEST_COVER)

        assert 1 == channel.epoch
        taken = await take(channel, 30)
        assert 2 == channel.epoch
        assert are_consecutive(taken)


async def test_s6_3_what_the_old_connection_still_has_to_bring_comes_first(
    autojump_clock, network, feed
):
    slow = Conditions(down=Way(latency=1.0))
    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        FaultProxy(server.url, [slow, CLEAR], network=network) as proxy,
        wsclient.open_channel(proxy.url, dedupe=key_of, observers=()) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(3)
        channel.rotate("the server said so")
        taken = await take(channel, 20)

        assert 2 == channel.epoch
        assert are_consecutive(taken)


async def test_s6_3_a_second_connection_may_die_before_it_covers_the_first(
    autojump_clock, network, feed, recorder
):
    slow = Conditions(down=Way(latency=1.0))
    dies = Fault.reset(after=0.2)
    async with (
        FaultServer([NONE, dies, NONE], network=network, handler=feed.handle) as server,
        FaultProxy(server.url, [slow, CLEAR], network=network) as proxy,
        wsclient.open_channel(
            proxy.url, dedupe=key_of, retry=AT_ONCE, observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(3)
        channel.rotate("the server said so")
        taken = await take(channel, 20)

        assert [2] == [event.epoch for event in recorder.of(ConnectionLost)]
        assert (3, 0) == (channel.epoch, channel.statistics().gaps)
        assert are_consecutive(taken)


async def test_s7_4_a_hook_on_a_second_connection_that_fails_leaves_the_first_alone(
    autojump_clock, network, feed, recorder
):
    calls = itertools.count()

    async def on_connect(connection):
        if next(calls) == 1:
            raise LookupError("mine")

    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url, dedupe=key_of, redundancy=2, on_connect=on_connect, observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        taken = await take(channel, 5)

        assert [(2, False)] == [(event.epoch, event.ready) for event in recorder.of(ConnectionLost)]
        assert channel.has_standby
        assert are_consecutive(taken)


async def test_s6_3_a_second_connection_that_is_being_established_goes_with_the_first(
    autojump_clock, network, feed, recorder
):
    calls = itertools.count()

    async def on_connect(connection):
        if next(calls) == 1:
            await trio.sleep_forever()

    async with (
        FaultServer([Fault.reset(after=3), NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url, dedupe=key_of, redundancy=2, on_connect=on_connect, observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 10)

        assert [1] == [event.epoch for event in recorder.of(ConnectionLost)]
        assert ["it is not needed any more"] == [
            event.reason for event in recorder.of(ConnectionLeft)
        ]
        assert (3, 1) == (channel.epoch, channel.statistics().gaps)


async def test_s6_3_a_gap_stands_where_something_is_missing(autojump_clock, network, feed):
    slow = Conditions(down=Way(latency=1.0))
    async with (
        FaultServer([Fault.reset(after=3), NONE], network=network, handler=feed.handle) as server,
        FaultProxy(server.url, [slow, CLEAR], network=network) as proxy,
        wsclient.open_channel(proxy.url, dedupe=key_of, retry=AT_ONCE, observers=()) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(2.4)
        channel.rotate("the server said so")
        taken = await take(channel, 10)
        (gap,) = [item for item in taken if isinstance(item, Gap)]
        before, after = taken[: taken.index(gap)], taken[taken.index(gap) + 1 :]

        assert are_consecutive(before)
        assert are_consecutive(after)
        assert after[0] > before[-1] + 1
        assert (1, 2) == (gap.after, gap.before)


async def test_s6_3_a_hint_without_a_ready_connection_changes_nothing(
    autojump_clock, network, feed
):
    async with (
        FaultServer([REJECT_503], network=network, handler=feed.handle) as server,
        wsclient.open_channel(server.url, dedupe=key_of, observers=()) as channel,
    ):
        assert not channel.rotate("too early")


async def test_redundant_lines_survive_the_loss_of_either_without_a_gap(
    autojump_clock, network, feed, recorder
):
    first_dies = Fault.reset(after=10)
    second_dies = Fault.reset(after=25)
    async with (
        FaultServer([first_dies, NONE], network=network, handler=feed.handle, port=81) as first,
        FaultServer([second_dies, NONE], network=network, handler=feed.handle, port=82) as second,
        wsclient.open_channel(
            [first.url, second.url], redundancy=2, dedupe=key_of, observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        taken = await take(channel, 60)

        assert are_consecutive(taken)
        assert len(taken) > 5_900
        assert 0 == channel.statistics().gaps
        assert (2, 2) == (len(first.connections), len(second.connections))
        assert channel.has_standby
        assert () == channel.outages
    assert 2 == len(recorder.of(ConnectionLost))


async def test_s3_2_redundant_lines_make_no_hot_loop_where_connections_are_accepted_and_cut(
    autojump_clock, network, feed
):
    hooks = itertools.count()

    async def on_connect(connection):
        # So that the first ones do not die together, but by turns.
        await trio.sleep(0.1 if next(hooks) else 0.5)

    cut = Fault.reset(after=1)
    async with (
        FaultServer([cut], network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url, redundancy=2, dedupe=key_of, on_connect=on_connect, observers=()
        ) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 30)

        # For each of two, what the default delays allow at most.
        assert len(server.connections) <= 2 * 9


async def test_s4_1_a_second_connection_that_was_stable_is_soon_replaced(
    autojump_clock, network, feed
):
    feed.interval = 0.1
    cut = Fault.reset(after=60)
    async with (
        FaultServer(network=network, handler=feed.handle, port=81) as first,
        FaultServer([cut], network=network, handler=feed.handle, port=82) as second,
        wsclient.open_channel(
            [first.url, second.url], redundancy=2, dedupe=key_of, observers=()
        ) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 400)
        opened = [each.opened_at for each in second.connections]

        assert len(opened) > 5
        assert all(after - before < 61.1 for before, after in itertools.pairwise(opened))


@pytest.mark.parametrize("stop", [None, tenacity.stop_after_attempt(1)])
async def test_a_second_connection_is_tried_again_whatever_the_policy_says(
    autojump_clock, network, feed, stop
):
    story = [NONE, REJECT_503, NONE]
    retry = wsclient.RetryPolicy(wait=tenacity.wait_fixed(30), stop=stop)
    async with (
        FaultServer(story, network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url, redundancy=2, dedupe=key_of, retry=retry, observers=()
        ) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 29)
        assert not channel.has_standby
        assert 2 == channel.statistics().attempts

        await take(channel, 2)
        assert channel.has_standby


async def test_s3_7_an_attempt_at_a_second_connection_can_be_made_now(
    autojump_clock, network, feed
):
    async with (
        FaultServer([NONE, REJECT_503, NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url,
            redundancy=2,
            dedupe=key_of,
            retry=wsclient.RetryPolicy(wait=tenacity.wait_fixed(3600)),
            observers=(),
        ) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 10)
        assert channel.retry_now()
        await take(channel, 1)

        assert channel.has_standby
        assert not channel.retry_now()


async def test_s4_3_a_second_connection_stays_away_for_as_long_as_the_server_asks(
    autojump_clock, network, feed
):
    feed.interval = 0.1
    busy = Fault.reject(503, retry_after=120)
    async with (
        FaultServer([NONE, busy, NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(server.url, redundancy=2, dedupe=key_of, observers=()) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 119)
        assert 2 == channel.statistics().attempts

        await take(channel, 20)
        assert channel.has_standby


async def test_s4_4_after_a_takeover_the_endpoint_that_asked_for_it_is_left_alone(
    autojump_clock, network, feed
):
    busy = Fault.close(1013, after=20)
    async with (
        FaultServer([busy, NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(server.url, redundancy=2, dedupe=key_of, observers=()) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 34)
        assert (2, False) == (channel.epoch, channel.has_standby)

        await take(channel, 20)
        assert channel.has_standby


@pytest.mark.parametrize("refusal", [Fault.reject(401), Fault.close(3000, after=5)])
async def test_s4_4_a_second_connection_that_is_refused_asks_for_fresh_credentials(
    autojump_clock, network, feed, refusal
):
    asked = []

    async def credentials(*, fresh):
        asked.append(fresh)

    async with (
        FaultServer([NONE, refusal, NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url, redundancy=2, dedupe=key_of, credentials=credentials, observers=()
        ) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 10)

        assert channel.has_standby
        assert [False, False, True] == asked


async def test_s4_4_the_loss_of_a_second_connection_is_no_reason_to_give_up(
    autojump_clock, network, feed
):
    async with (
        FaultServer(
            [NONE, Fault.close(3003, after=5), NONE], network=network, handler=feed.handle
        ) as server,
        wsclient.open_channel(server.url, redundancy=2, dedupe=key_of, observers=()) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 10)

        assert channel.has_standby
        assert (1, 3) == (channel.epoch, len(server.connections))


async def test_s4_4_the_users_function_is_asked_what_the_loss_of_a_second_connection_means(
    autojump_clock, network, feed
):
    def classify(loss, phase):
        return wsclient.Retry("as I say", (60, 60))

    feed.interval = 0.1
    async with (
        FaultServer(
            [NONE, Fault.close(4000, after=5), NONE], network=network, handler=feed.handle
        ) as server,
        wsclient.open_channel(
            server.url,
            redundancy=2,
            dedupe=key_of,
            retry=wsclient.RetryPolicy(classify=classify),
            observers=(),
        ) as channel,
    ):
        await channel.wait_ready()
        await take(channel, 64)
        assert 2 == len(server.connections)

        await take(channel, 3)
        assert channel.has_standby


async def test_redundant_lines_give_what_came_first_once(autojump_clock, network, feed):
    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        wsclient.open_channel(server.url, redundancy=2, dedupe=key_of, observers=()) as channel,
    ):
        await channel.wait_ready()
        taken = await take(channel, 10)

        assert are_consecutive(taken)
        assert 2 == len(server.connections)
        assert len(taken) == pytest.approx(channel.statistics().messages_repeated, abs=50)


async def test_redundant_lines_tell_a_gap_where_both_missed_something(
    autojump_clock, network, feed, recorder
):
    dies = Fault.reset(after=10)
    async with (
        FaultServer([dies, dies, NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url, redundancy=2, dedupe=key_of, observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        taken = await take(channel, 30)
        gaps = [item for item in taken if isinstance(item, Gap)]

        assert 1 == len(gaps)
        assert 1 == channel.statistics().gaps
        assert 1 == len(channel.outages)


async def test_redundant_lines_send_over_one_of_them(autojump_clock, network, feed):
    dies = Fault.reset(after=10)
    async with (
        FaultServer([dies, NONE], network=network, handler=feed.handle) as server,
        wsclient.open_channel(
            server.url,
            redundancy=2,
            dedupe=key_of,
            observers=(),
            limits=wsclient.Limits(inbox_messages=10_000),
            delivery=wsclient.DeliveryOptions(resend_unknown=True),
        ) as channel,
    ):
        receipts = []
        for number in range(2_000):
            receipts.append(await channel.send(str(number)))
            await trio.sleep(0.01)
        await channel.flush()

        assert {Outcome.RECEIVED} == {receipt.outcome for receipt in receipts}
    heard = [int(message) for each in server.connections for message in each.messages]
    assert set(range(2_000)) == set(heard)
    firsts = list(dict.fromkeys(heard))
    assert sorted(firsts) == firsts


async def test_s3_3_leaving_takes_no_longer_with_two_connections(autojump_clock, network, feed):
    mute = wsclient.testing.MUTE_CLOSE
    async with FaultServer([mute, mute], network=network, handler=feed.handle) as server:
        async with wsclient.open_channel(
            server.url, redundancy=2, dedupe=key_of, observers=()
        ) as channel:
            await channel.wait_ready()
            await trio.sleep(5)
            began = trio.current_time()
            await channel.aclose()

            assert trio.current_time() - began <= 2
        assert all(each.ended_at is not None for each in server.connections)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"rotate_every": 5}, ValueError, "say with dedupe"),
        ({"redundancy": 2}, ValueError, "say with dedupe"),
        ({"redundancy": 3, "dedupe": key_of}, ValueError, "must be 1 or 2"),
        ({"redundancy": True, "dedupe": key_of}, TypeError, "must be 1 or 2"),
        ({"rotate_every": 0, "dedupe": key_of}, ValueError, "more than 0"),
        ({"rotate_every": "1 h", "dedupe": key_of}, TypeError, "must be a number"),
        ({"dedupe": "n"}, TypeError, "must be a function"),
    ],
)
def test_s6_3_what_cannot_work_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        wsclient.open_channel("ws://nowhere.test", **options)


async def test_rotation_by_hand_needs_to_know_repeated_messages(autojump_clock, network, feed):
    async with (
        FaultServer(network=network, handler=feed.handle) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        with pytest.raises(ValueError, match="dedupe"):
            channel.rotate("why not")
        with pytest.raises(TypeError, match="reason must be str"):
            channel.rotate(1)


# --- subscriptions ------------------------------------------------------------------------------


async def rotating(by_hand, nursery, **options):
    """A channel that rotates, whose second connection confirms one of two subscriptions."""
    heards = []

    async def play(heard):
        """Confirm everything; of the second connection, ``a`` after that many attempts."""
        attempts = 0
        while await heard.listen():
            if heard.pings:
                heard.pings, pings = [], heard.pings
                await heard.peer.send_frame(0xA, pings[-1])
            messages, heard.messages = heard.messages, []
            for message in map(json.loads, messages):
                key = message["key"]
                attempts += key == "a"
                if key == "a" and len(heards) == 2 and attempts <= options["refusals"]:
                    answer = {"op": "refused", "key": key, "why": "busy", "later": True}
                else:
                    answer = {"op": "subscribed", "key": key}
                await heard.say(json.dumps(answer))

    async def accept():
        while True:
            heard = await by_hand.accept()
            heards.append(heard)
            nursery.start_soon(play, heard)

    nursery.start_soon(accept)
    return wsclient.open_channel(
        "ws://hand.test",
        protocol=Positioned(),
        rotate_every=100,
        retry=wsclient.RetryPolicy(wait=lambda _: 7),
        heartbeat=HeartbeatOptions(interval=math.inf),
        observers=options["observers"],
    )


@pytest.mark.parametrize(("refusals", "least", "most"), [(2, 14, 20), (1000, 60, 65)])
async def test_s6_3_a_connection_is_left_once_the_new_one_has_all_its_subscriptions_or_never_will(
    autojump_clock, by_hand, nursery, recorder, refusals, least, most
):
    open_channel = rotating(by_hand, nursery, refusals=refusals, observers=[recorder])
    async with await open_channel as channel, channel.subscribe("a") as a, channel.subscribe("b"):
        await recorder.wait_for(ConnectionReady)
        await recorder.wait_for(ConnectionLeft)
        restored = recorder.of(SubscriptionsRestored)[-1]
        lived = recorder.of(ConnectionLeft)[0].duration

        assert restored.delayed == 1
        assert 90 + least <= lived <= 100 + most
        assert a.is_live is (refusals < 1000)


async def test_s6_3_a_subscription_that_is_left_is_not_waited_for(
    autojump_clock, by_hand, nursery, recorder
):
    open_channel = rotating(by_hand, nursery, refusals=1000, observers=[recorder])
    async with await open_channel as channel, channel.subscribe("b"):
        async with channel.subscribe("a"):
            await recorder.wait_for(SubscriptionsRestored, count=2)
            left_at = trio.current_time()
        await recorder.wait_for(ConnectionLeft)

        assert trio.current_time() - left_at < 1
