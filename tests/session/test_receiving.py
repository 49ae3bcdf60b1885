"""The receiving side of a channel, clause by clause (S2): overflow, overruns, what is stale."""

from __future__ import annotations

import json
import math

import pytest
import trio
import trio.testing

import wsclient
from wsclient.connection import attach, detach
from wsclient.errors import InboxFull
from wsclient.events import (
    ConnectionLost,
    ConnectionReady,
    Gap,
    GapDetected,
    HandlerFailed,
    InboxOverflowed,
    Outcome,
    Overflow,
)
from wsclient.options import ConnectionOptions, HeartbeatOptions, Limits, OverflowPolicy
from wsclient.testing import NEVER_READS, NONE, Fault, FaultServer

SMALL_READS = ConnectionOptions(receive_buffer_size=64)

EXACT = HeartbeatOptions(interval=20, timeout=20, jitter=0)


def one_a_second(count):
    """A handler that says a number each second, 50 characters long."""

    async def say(connection):
        for number in range(count):
            await connection.send(f"{number:050}")
            await trio.sleep(1)
        await trio.sleep_forever()

    return say


async def take(channel, count):
    items = channel.items()
    taken = [await anext(items) for _ in range(count)]
    return [item if isinstance(item, (Gap, Overflow)) else int(item) for item in taken]


# --- overflow -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (OverflowPolicy.DROP_OLDEST, [Overflow(97), 97, 98, 99]),
        (OverflowPolicy.DROP_NEWEST, [0, 1, 2, Overflow(97)]),
    ],
)
async def test_s2_3_what_was_dropped_is_told_in_band_and_to_the_observers(
    autojump_clock, network, recorder, policy, expected
):
    async with (
        FaultServer(network=network, handler=one_a_second(100)) as server,
        wsclient.open_channel(
            server.url,
            limits=Limits(inbox_messages=3, inbox_overflow=policy),
            observers=[recorder],
        ) as channel,
    ):
        await trio.sleep(150)

        assert 97 == channel.statistics().messages_dropped
        assert [1] == [event.dropped for event in recorder.of(InboxOverflowed)]
        assert expected == await take(channel, 4)
        await server.broadcast("100")
        await trio.sleep(1)

        assert [1, 97] == [event.dropped for event in recorder.of(InboxOverflowed)]
        assert 4 == len(expected)
        assert (3, 1) == (
            channel.statistics().messages_received,
            channel.statistics().inbox_messages,
        )


async def test_s2_3_conflate_keeps_the_last_price_of_each(autojump_clock, network):
    async def quote(connection):
        for price in range(50):
            for name in ("one", "two"):
                await connection.send(json.dumps({"name": name, "price": price}))
        await trio.sleep_forever()

    limits = Limits(
        inbox_messages=10,
        inbox_overflow=OverflowPolicy.CONFLATE,
        inbox_key=lambda message: json.loads(message)["name"],
    )
    async with (
        FaultServer(network=network, handler=quote) as server,
        wsclient.open_channel(
            server.url, limits=limits, connection=SMALL_READS, observers=()
        ) as channel,
    ):
        await trio.sleep(10)
        last = {}
        for message in await channel.receive_many():
            quoted = json.loads(message)
            last[quoted["name"]] = quoted["price"]

        assert {"one": 49, "two": 49} == last
        statistics = channel.statistics()

        assert 100 == statistics.messages_dropped + statistics.messages_received


async def test_s2_3_a_key_that_fails_is_told_and_costs_nothing(autojump_clock, network, recorder):
    def symbol(message):
        raise KeyError("s")

    limits = Limits(inbox_messages=1, inbox_overflow=OverflowPolicy.CONFLATE, inbox_key=symbol)
    async with (
        FaultServer(network=network, handler=one_a_second(3)) as server,
        wsclient.open_channel(server.url, limits=limits, observers=[recorder]) as channel,
    ):
        await trio.sleep(10)

        assert [0, 1, 2] == await take(channel, 3)
    failed = recorder.of(HandlerFailed)[0]

    assert (f"{symbol.__qualname__}", "a message's key") == (failed.handler, failed.subject)
    assert isinstance(failed.error, KeyError)


@pytest.mark.parametrize("policy", [OverflowPolicy.DROP_OLDEST, OverflowPolicy.DROP_NEWEST])
async def test_s2_3_where_messages_are_dropped_reading_never_stops(
    autojump_clock, network, recorder, policy
):
    async with (
        FaultServer(network=network, handler=one_a_second(1000)) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=EXACT,
            limits=Limits(inbox_messages=1, inbox_overflow=policy),
            connection=SMALL_READS,
            observers=[recorder],
        ) as channel,
    ):
        await trio.sleep(999.5)

        assert 999 == channel.statistics().messages_dropped
        assert 49 == len(server.connections[0].pings)
    assert [] == recorder.of(ConnectionLost)


async def test_s2_2_items_gives_gaps_and_overflows_in_order_and_observers_get_both(
    autojump_clock, network, recorder
):
    story = [Fault.reset(after=10.5), NONE]
    limits = Limits(inbox_messages=3, inbox_overflow=OverflowPolicy.DROP_NEWEST)
    async with (
        FaultServer(story, network=network, handler=one_a_second(10)) as server,
        wsclient.open_channel(server.url, limits=limits, observers=[recorder]) as channel,
    ):
        await recorder.wait_for(ConnectionReady, count=2)
        await trio.sleep(5.5)
        first = await take(channel, 5)
        await trio.sleep(2)

        assert [0, 1, 2, Overflow(13)] == first[:4]
        assert [gap.gap for gap in recorder.of(GapDetected)] == first[4:]
        assert [6, 7] == await take(channel, 2)
    assert len(recorder.of(InboxOverflowed)) >= 1


async def test_s2_2_a_loop_gives_messages_only_also_where_some_were_dropped(
    autojump_clock, network
):
    limits = Limits(inbox_messages=2, inbox_overflow=OverflowPolicy.DROP_OLDEST)
    async with (
        FaultServer(network=network, handler=one_a_second(10)) as server,
        wsclient.open_channel(server.url, limits=limits, observers=()) as channel,
    ):
        await trio.sleep(20)
        received = []
        async for message in channel:
            received.append(int(message))
            if len(received) == 2:
                break

        assert [8, 9] == received
        await server.broadcast("1")

        assert "1" == await channel.receive()


# --- no deadlock of our own ----------------------------------------------------------------------


def flood(count, size=50):
    async def say(connection):
        for number in range(count):
            await connection.send(f"{number:0{size}}")
        await trio.sleep_forever()

    return say


async def test_s2_6_a_pong_can_be_waited_for_inside_of_the_loop_that_takes(autojump_clock, network):
    async with (
        FaultServer(network=network, handler=flood(1000)) as server,
        wsclient.open_channel(
            server.url, limits=Limits(inbox_messages=1), connection=SMALL_READS, observers=()
        ) as channel,
    ):
        received = []
        async for message in channel:
            received.append(int(message))
            if len(received) == 1:
                with channel._inbox.overrun():
                    await channel._supervisor.connection.ping()
            if len(received) == 1000:
                break

        assert list(range(1000)) == received


async def test_s2_6_without_an_overrun_the_same_would_hang(autojump_clock, network):
    async with (
        FaultServer(network=network, handler=flood(1000)) as server,
        wsclient.open_channel(
            server.url, limits=Limits(inbox_messages=1), connection=SMALL_READS, observers=()
        ) as channel,
    ):
        await channel.receive()
        with trio.move_on_after(3600) as scope:
            await channel._supervisor.connection.ping()

        assert scope.cancelled_caught


async def talk_then_listen(listener, make_peer, count):
    """A peer that reads nothing before it has said everything."""
    peer = make_peer(await listener.accept())
    await peer.accept()
    for number in range(count):
        await peer.send_frame(0x1, f"{number:050}".encode())
    while (frame := await peer.receive_frame()) is not None:
        opcode, payload = frame
        if opcode == 0x9:
            await peer.send_frame(0xA, payload)


async def test_s2_6_an_outcome_can_be_waited_for_inside_of_the_loop_that_takes(
    autojump_clock, network, nursery, make_peer
):
    nursery.start_soon(talk_then_listen, network.listen("talker.test", 80), make_peer, 10_000)
    async with wsclient.open_channel(
        "ws://talker.test",
        limits=Limits(inbox_messages=1),
        connection=SMALL_READS,
        heartbeat=HeartbeatOptions(interval=math.inf),
        observers=(),
    ) as channel:
        async for _ in channel:
            receipt = await channel.send("x" * 900_000)

            assert Outcome.RECEIVED is await receipt.wait()
            break

        assert list(range(1, 10_000)) == await take(channel, 9_999)


async def test_s2_6_an_outcome_that_cannot_come_is_no_reason_to_wait(
    autojump_clock, network, nursery, make_peer
):
    nursery.start_soon(talk_then_listen, network.listen("talker.test", 80), make_peer, 10_000)
    async with wsclient.open_channel(
        "ws://talker.test",
        limits=Limits(inbox_messages=1, inbox_overrun=10_000),
        connection=SMALL_READS,
        heartbeat=HeartbeatOptions(interval=math.inf),
        observers=(),
    ) as channel:
        await channel.receive()
        receipt = await channel.send("x" * 900_000)
        with pytest.raises(InboxFull):
            await receipt.wait()

        assert None is receipt.outcome
        # Where the messages are taken, it comes.
        assert list(range(1, 10_000)) == await take(channel, 9_999)
        assert Outcome.RECEIVED is await receipt.wait()


async def test_s2_6_beyond_the_overrun_whoever_waits_is_told(autojump_clock, network, recorder):
    limits = Limits(inbox_messages=1, inbox_overrun=10_000)
    async with (
        FaultServer([NEVER_READS], network=network, handler=flood(10_000)) as server,
        wsclient.open_channel(
            server.url, limits=limits, connection=SMALL_READS, observers=[recorder]
        ) as channel,
    ):
        await channel.receive()
        with pytest.raises(InboxFull), channel._inbox.overrun():
            await channel._supervisor.connection.ping()
        statistics = channel.statistics()

        # 50 bytes, and 64 for each.
        assert 10_000 // 114 - 3 <= statistics.inbox_messages <= 10_000 // 114 + 5
        # What was read is there, and the rest comes.
        assert list(range(1, 10_000)) == await take(channel, 9_999)
    assert [] == recorder.of(ConnectionLost)


async def test_s2_6_answers_are_matched_before_the_inbox(autojump_clock, network):
    answered = trio.Event()

    async def serve(connection):
        for _ in range(100):
            await connection.send("news")
        await connection.send("ack")
        await trio.sleep_forever()

    async with (
        FaultServer(network=network, handler=serve) as server,
        wsclient.open_channel(
            server.url, limits=Limits(inbox_messages=1), connection=SMALL_READS, observers=()
        ) as channel,
    ):
        channel._inbox.recognise = lambda message: message == "ack" and not answered.set()
        async for _ in channel:
            with channel._inbox.overrun():
                await answered.wait()
            break

        assert ["news"] * 99 == await channel.receive_many()


# --- what belongs to an older connection ---------------------------------------------------------


async def test_s2_5_what_still_comes_on_a_connection_that_was_left_is_ignored_and_counted(
    autojump_clock, network, connected
):
    async with (
        FaultServer(network=network, handler=one_a_second(0)) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
        connected() as (old, peer),
    ):
        await channel.wait_ready()
        inbox = channel._inbox
        attach(old, inbox, channel._supervisor._sending._tap)
        await peer.stream.send_all(b"\x81\x03new")

        assert "new" == await channel.receive()
        detach(old, inbox.stale)
        await peer.stream.send_all(b"\x81\x03old")
        await server.broadcast("news")

        assert "news" == await channel.receive()
        await trio.sleep(1)
        statistics = channel.statistics()

        assert (1, 0) == (statistics.messages_stale, statistics.inbox_messages)


async def test_s2_5_a_connection_that_was_lost_feeds_the_inbox_no_more(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([Fault.close(1012, after=1), NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        old = channel._supervisor.connection
        await recorder.wait_for(ConnectionLost)

        assert channel._inbox.stale is old._inbox


async def test_s2_5_a_reader_that_waits_for_room_is_not_left_waiting_when_its_connection_is(
    autojump_clock, network, connected
):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, limits=Limits(inbox_messages=0), observers=()) as channel,
        connected() as (old, peer),
    ):
        await channel.wait_ready()
        attach(old, channel._inbox, channel._supervisor._sending._tap)
        await peer.stream.send_all(b"\x81\x01a")
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(b"\x81\x01b")
        await trio.testing.wait_all_tasks_blocked()

        assert 0 == channel.statistics().messages_stale
        detach(old, channel._inbox.stale)
        channel._inbox.wake_readers()
        await trio.testing.wait_all_tasks_blocked()

        assert 1 == channel.statistics().messages_stale
        assert "a" == channel.receive_nowait()
