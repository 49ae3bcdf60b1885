"""A second connection beside the first: rotation (S6.3) and redundant lines."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import pytest
import trio
import trio.testing

import wsclient
from wsclient import Gap, HeartbeatOptions, Outcome
from wsclient.events import ConnectionLeft, ConnectionLost, ConnectionReady, GapDetected
from wsclient.testing import NONE, REJECT_503, Fault, FaultServer

from .test_channel import AT_ONCE


def key_of(message):
    return json.loads(message).get("n")


class Feed:
    """One stream of numbered messages, for everyone who is connected, on any of its servers."""

    def __init__(self):
        self.connections = set()
        self.published = 0
        self.lost_on = set()

    async def publish(self):
        while True:
            await trio.sleep(0.01)
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
        wsclient.open_channel(server.url, dedupe=key_of, rotate_every=5, observers=()) as channel,
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
        taken = await take(channel, 9)

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


async def test_s6_3_where_no_pong_comes_rotation_goes_on_and_tells_a_gap(
    autojump_clock, network, nursery, make_peer, recorder
):
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
    async with wsclient.open_channel(
        "ws://mute.test",
        dedupe=key_of,
        rotate_every=10,
        heartbeat=HeartbeatOptions(interval=math.inf),
        observers=[recorder],
    ) as channel:
        await channel.wait_ready()
        await take(channel, 40)

        assert 2 == channel.epoch
        assert 1 == channel.statistics().gaps


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
def test_what_cannot_work_is_refused(options, error, match):
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
