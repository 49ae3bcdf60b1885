"""The durable end: sending and receiving over outages, and leaving in every state."""

from __future__ import annotations

import itertools
import math
import time
from contextlib import suppress

import pytest
import tenacity
import trio
import trio.testing

import wsclient
from wsclient.errors import ChannelFailed, ConnectionRejected, ConnectionTimeout
from wsclient.events import (
    ChannelClosed,
    ChannelGaveUp,
    ChannelState,
    ConnectionLost,
    ConnectionReady,
    Delivery,
    Gap,
    GapDetected,
    Outcome,
    StateChanged,
    Truth,
)
from wsclient.options import ConnectionOptions, HeartbeatOptions, Limits, RetryPolicy
from wsclient.session import follow
from wsclient.testing import (
    ACCEPT_THEN_CLOSE,
    HALF_FRAME,
    HALF_FRAME_THEN_SILENCE,
    MUTE_CLOSE,
    NEVER_READS,
    NONE,
    REFUSE,
    REJECT_404,
    REJECT_503,
    RESET_AFTER_OPEN,
    SILENCE,
    SILENT_HANDSHAKE,
    Fault,
    FaultServer,
    echo,
    memory_network,
)

AT_ONCE = RetryPolicy(wait=tenacity.wait_none())
EVERY_SECOND = RetryPolicy(wait=tenacity.wait_fixed(1))


async def say_who(connection):
    """A handler that says its number three times, and then nothing."""
    for count in range(3):
        await connection.send(f"{connection.number}.{count}")
    await trio.sleep_forever()


# --- sending ------------------------------------------------------------------------------------


async def test_s1_what_is_sent_before_the_first_connection_arrives_in_order(
    autojump_clock, network
):
    async with (
        FaultServer([REFUSE, REJECT_503, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        receipts = [await channel.send(str(number)) for number in range(100)]

        assert {None} == {receipt.outcome for receipt in receipts}
        await server.wait_messages(100)

        assert {Outcome.RECEIVED} == {await receipt.wait() for receipt in receipts}
    assert [str(number) for number in range(100)] == server.messages


async def test_s1_text_and_binary_arrive_as_what_they_are(autojump_clock, network):
    messages = ["text", b"bytes", "", b"", "größe", "\N{PILE OF POO}", b"\x00\xff" * 1000]
    async with (
        FaultServer(network=network, handler=echo) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        for message in messages:
            await channel.send(message)

        assert messages == [await channel.receive() for _ in messages]


@pytest.mark.parametrize("story_of", [1, 2, 7, 50])
async def test_s1_over_outages_nothing_is_sent_twice_or_out_of_order(
    autojump_clock, network, story_of
):
    story = [Fault.reset(after_messages=story_of)] * 12 + [NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=()) as channel,
    ):
        receipts = []
        for number in range(600):
            receipts.append(await channel.send(str(number)))
            if number % 3 == 0:
                await trio.sleep(0.01)
        await receipts[-1].wait()
        await channel.drain()
    heard = [int(message) for message in server.messages]

    assert sorted(set(heard)) == heard
    outcomes = [receipt.outcome for receipt in receipts]

    assert {Outcome.RECEIVED, Outcome.LOST_UNKNOWN} >= set(outcomes)
    # What was certified was read; what is missing was written to a connection that died.
    certain = {number for number, receipt in enumerate(receipts) if receipt.truth is Truth.CERTAIN}

    assert certain <= set(heard)
    assert {Truth.UNKNOWN, Truth.CERTAIN} >= {receipt.truth for receipt in receipts}
    assert [599] == heard[-1:]
    assert [None] * len(server.connections) == [visit.violation for visit in server.connections]


async def test_i13_a_message_that_was_cut_is_not_continued_on_the_next_connection(
    autojump_clock, network
):
    large = bytes(3 * 2**20)
    # Read slowly: the connection dies in the middle of the message.
    async with (
        FaultServer([NEVER_READS, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=()) as channel,
    ):
        await channel.wait_ready()
        cut, after = await channel.send(large), await channel.send("after")
        await trio.testing.wait_all_tasks_blocked()

        assert Truth.UNKNOWN is cut.truth
        assert Truth.CERTAINLY_NOT is after.truth
        assert not cut.cancel()
        await server.stop()
        await server.start()
        await server.wait_messages(1)

        assert Outcome.LOST_UNKNOWN is await cut.wait()
        assert Outcome.RECEIVED is await after.wait()
    assert ["after"] == server.messages
    assert [None, None] == [visit.violation for visit in server.connections]


async def test_s1_a_full_outbox_makes_senders_wait_until_the_outage_is_over(
    autojump_clock, network
):
    async with (
        FaultServer([REFUSE] * 3 + [NONE], network=network) as server,
        wsclient.open_channel(
            server.url,
            retry=EVERY_SECOND,
            limits=Limits(outbox_messages=2),
            observers=(),
        ) as channel,
    ):
        sent_at = []
        for number in range(5):
            await channel.send(str(number))
            sent_at.append(trio.current_time())

        assert [0, 0, 3, 3, 3] == sent_at
        await server.wait_messages(5)
    assert ["0", "1", "2", "3", "4"] == server.messages


async def test_s1_a_message_that_was_taken_back_is_never_heard(autojump_clock, network):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.send("kept")
        taken_back = await channel.send("taken back")
        await channel.send("kept, too")

        assert taken_back.cancel()
        await server.wait_messages(2)
        await trio.sleep(10)
    assert ["kept", "kept, too"] == server.messages


async def test_send_nowait_accepts_while_there_is_room(autojump_clock, network):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(
            server.url, limits=Limits(outbox_messages=1), observers=()
        ) as channel,
    ):
        receipt = channel.send_nowait("one")
        with pytest.raises(trio.WouldBlock):
            channel.send_nowait("two")

        assert Outcome.RECEIVED is await receipt.wait()
        channel.send_nowait("three")
        await server.wait_messages(2)
    assert ["one", "three"] == server.messages


@pytest.mark.parametrize("message", [None, 1, bytearray(b"x"), memoryview(b"x"), ["x"], object()])
async def test_what_is_neither_str_nor_bytes_is_refused_at_the_call(
    autojump_clock, network, message
):
    async with wsclient.open_channel("ws://nobody.test", observers=()) as channel:
        with pytest.raises(TypeError, match="message must be str or bytes, not"):
            await channel.send(message)
        with pytest.raises(TypeError, match="message must be str or bytes, not"):
            channel.send_nowait(message)

        assert 0 == channel.statistics().messages_accepted


async def test_a_text_that_cannot_be_encoded_is_refused_at_the_call(autojump_clock, network):
    async with wsclient.open_channel("ws://nobody.test", observers=()) as channel:
        with pytest.raises(UnicodeEncodeError):
            await channel.send("\ud800")
        with pytest.raises(UnicodeEncodeError):
            channel.send_nowait("\ud800")

        assert 0 == channel.statistics().messages_accepted


@pytest.mark.parametrize("delivery", ["queued", None, 1])
async def test_an_unknown_delivery_is_refused_at_the_call(autojump_clock, network, delivery):
    async with wsclient.open_channel("ws://nobody.test", observers=()) as channel:
        with pytest.raises(TypeError, match=r"delivery must be wsclient\.Delivery"):
            await channel.send("x", delivery=delivery)


async def test_s1_3_a_cancelled_sender_that_waited_for_room_sends_nothing(autojump_clock, network):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(
            server.url, retry=EVERY_SECOND, limits=Limits(outbox_messages=1), observers=()
        ) as channel,
    ):
        await channel.send("one")
        with trio.move_on_after(0.5) as scope:
            await channel.send("given up")

        assert scope.cancelled_caught
        await channel.send("two")
        await server.wait_messages(2)
    assert ["one", "two"] == server.messages


# --- receiving ----------------------------------------------------------------------------------


async def test_messages_come_in_order(autojump_clock, network):
    async def count(connection):
        for number in range(1500):
            await connection.send(str(number))
        await trio.sleep_forever()

    async with (
        FaultServer(network=network, handler=count) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        received = []
        async for message in channel:
            received.append(message)
            if len(received) == 1500:
                break
    assert [str(number) for number in range(1500)] == received


async def test_receive_many_takes_all_there_is_and_at_least_one(autojump_clock, network):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def speak():
                await trio.sleep(1)
                for number in range(3):
                    await server.broadcast(str(number))

            received = await channel.receive_many()

            assert 1 == trio.current_time()
        await trio.sleep(1)
        received += await channel.receive_many()

    assert ["0", "1", "2"] == received


async def test_receive_nowait_takes_what_is_there(autojump_clock, network):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        with pytest.raises(trio.WouldBlock):
            channel.receive_nowait()
        await channel.wait_ready()
        await server.broadcast("news")
        await trio.testing.wait_all_tasks_blocked()

        assert "news" == channel.receive_nowait()
        with pytest.raises(trio.WouldBlock):
            channel.receive_nowait()


async def test_several_receivers_share_the_messages(autojump_clock, network):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        received = []

        async def take():
            received.append(await channel.receive())

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(10):
                await server.broadcast(str(number))

    assert [str(number) for number in range(10)] == sorted(received)


async def test_s2_3_a_full_inbox_makes_the_peer_wait(autojump_clock, network):
    async def flood(connection):
        for number in itertools.count():
            await connection.send(f"{number:01000}")
            sent.append(number)

    sent = []
    async with (
        FaultServer(network=network, handler=flood) as server,
        wsclient.open_channel(
            server.url,
            limits=Limits(inbox_messages=10),
            connection=ConnectionOptions(receive_buffer_size=4096),
            observers=(),
        ) as channel,
    ):
        await trio.sleep(10)
        statistics = channel.statistics()

        # What is beyond the bound came with one read; the rest waits in the network.
        assert 10 < statistics.inbox_messages <= 15
        assert len(sent) < 90
        for number in range(200):
            assert f"{number:01000}" == await channel.receive()


async def test_s2_3_the_inbox_is_bounded_in_bytes_too(autojump_clock, network):
    async def flood(connection):
        for _ in itertools.count():
            await connection.send(bytes(50_000))

    async with (
        FaultServer(network=network, handler=flood) as server,
        wsclient.open_channel(
            server.url, limits=Limits(inbox_size=100_000), observers=()
        ) as channel,
    ):
        await trio.sleep(10)

        assert 100_000 < channel.statistics().inbox_size <= 150_000 + 65_536


def test_s2_4_cancelled_at_any_step_receive_loses_nothing(cancel_at_every_step):
    async def serve(connection):
        for number in range(6):
            await connection.send(str(number))
            if number % 2:
                await trio.sleep(0.1)
        await trio.sleep_forever()

    async def scenario(cancellation):
        received = []
        with memory_network() as network:
            async with (
                FaultServer(network=network, handler=serve) as server,
                wsclient.open_channel(server.url, observers=()) as channel,
            ):
                await channel.wait_ready()
                with cancellation.scope:
                    for _ in range(3):
                        received.append(await channel.receive())  # noqa: PERF401  # One by one: what comes after may raise.
                    for _ in range(2):
                        received += await channel.receive_many()
                while len(received) < 6:
                    received.append(await channel.receive())

        assert ["0", "1", "2", "3", "4", "5"] == received

    assert cancel_at_every_step(scenario) > 10


async def _take_six(channel, way, received):
    with channel.receive_channel.clone() as handle:
        for_others = follow(channel, lambda receive: receive(), lambda mark: received.append)
        ways = {"loop": channel, "items": channel.items(), "handle": handle, "follow": for_others}
        async for message in ways[way]:
            received.append(message)
            if len(received) == 6:
                break


@pytest.mark.parametrize("way", ["loop", "items", "handle", "follow"])
def test_s2_4_cancelled_at_any_step_no_way_of_taking_loses_a_message(cancel_at_every_step, way):
    async def serve(connection):
        for number in range(6):
            await connection.send(str(number))
            if number % 2:
                await trio.sleep(0.1)
        await trio.sleep_forever()

    async def scenario(cancellation):
        received = []
        with memory_network() as network:
            async with (
                FaultServer(network=network, handler=serve) as server,
                wsclient.open_channel(server.url, observers=()) as channel,
            ):
                await channel.wait_ready()
                with cancellation.scope:
                    await _take_six(channel, way, received)
                while len(received) < 6:
                    received.append(await channel.receive())

        assert ["0", "1", "2", "3", "4", "5"] == received

    assert cancel_at_every_step(scenario) > 5


async def test_s2_2_who_follows_is_told_in_between_and_says_when_it_is_over(
    autojump_clock, network
):
    told = []

    async def receive(wait):
        if len(told) > 7:
            raise StopAsyncIteration
        return await wait()

    async def between(mark):
        await trio.sleep(1)
        told.append((mark.after, mark.before))

    async with (
        FaultServer(
            [Fault.reset(after=1), Fault.reset(after=20), NONE], network=network, handler=say_who
        ) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=()) as channel,
    ):
        async for message in follow(channel, receive, between):
            told.append(message)
            # What waits next is a gap, with messages behind it; and one that is waited for.
            await trio.sleep(10 if message == "1.2" else 0)

        assert ["1.0", "1.1", "1.2", (1, 2), "2.0", "2.1", "2.2", (2, 3)] == told
        # What comes after the end of the loop is left where it is.
        assert 6 == channel.statistics().messages_received
        await channel.aclose()

        assert [] == [message async for message in follow(channel, lambda wait: wait(), between)]


# --- gaps ---------------------------------------------------------------------------------------


async def take_items(channel, count):
    items = channel.items()
    return [await anext(items) for _ in range(count)]


def epochs(items):
    """Messages as they are, gaps as their epochs."""
    return [(item.after, item.before) if isinstance(item, Gap) else item for item in items]


async def test_s2_1_there_is_no_gap_before_the_first_connection(autojump_clock, network, recorder):
    async with (
        FaultServer([REFUSE, REJECT_503, NONE], network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        assert ["3.0", "3.1", "3.2"] == await take_items(channel, 3)
        assert 0 == channel.statistics().gaps
    assert [] == recorder.of(GapDetected)


async def test_s2_2_each_discontinuity_is_one_gap_between_the_messages_of_its_connections(
    autojump_clock, network, recorder
):
    story = [Fault.reset(after=1), REFUSE, REJECT_503, Fault.close(1001, after=1), NONE]
    async with (
        FaultServer(story, network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        items = await take_items(channel, 11)

        assert [
            *("1.0", "1.1", "1.2", (1, 2)),
            *("4.0", "4.1", "4.2", (2, 3)),
            *("5.0", "5.1", "5.2"),
        ] == epochs(items)
        assert 2 == channel.statistics().gaps
    assert [item for item in items if isinstance(item, Gap)] == [
        event.gap for event in recorder.of(GapDetected)
    ]


async def test_s2_1_messages_from_before_a_loss_stay_readable_ahead_of_the_gap(
    autojump_clock, network, recorder
):
    story = [Fault.close(1011, after=1), NONE]
    async with (
        FaultServer(story, network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        # Nobody looks until the second connection has spoken.
        await recorder.wait_for(ConnectionReady, count=2)
        await trio.sleep(1)

        assert ["1.0", "1.1", "1.2", (1, 2), "2.0", "2.1", "2.2"] == epochs(
            await take_items(channel, 7)
        )


async def test_s2_1_half_a_message_is_discarded_and_covered_by_the_gap(autojump_clock, network):
    async def serve(connection):
        await connection.send(f"whole {connection.number}")
        await trio.sleep_forever()

    async with (
        FaultServer([HALF_FRAME.later(after=1), NONE], network=network, handler=serve) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        assert ["whole 1", (1, 2), "whole 2"] == epochs(await take_items(channel, 3))


async def test_s2_messages_only_are_received_outside_of_items(autojump_clock, network):
    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        assert ["1.0", "1.1"] == [await channel.receive() for _ in range(2)]
        await trio.sleep(10)

        assert ["1.2", "2.0", "2.1", "2.2"] == await channel.receive_many()


async def test_s2_receive_nowait_passes_over_a_gap(autojump_clock, network):
    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await trio.sleep(10)
        with pytest.raises(trio.WouldBlock):
            channel.receive_nowait()
        await server.broadcast("news")
        await trio.testing.wait_all_tasks_blocked()

        assert "news" == channel.receive_nowait()


async def test_a_gap_says_from_when_to_when_and_why(autojump_clock, network, recorder):
    async with (
        FaultServer(
            [Fault.close(1012, "restart", after=100), REFUSE, NONE],
            network=network,
            handler=say_who,
        ) as server,
        wsclient.open_channel(server.url, retry=EVERY_SECOND, observers=[recorder]) as channel,
    ):
        began = time.time()
        gap = (await take_items(channel, 4))[3]
        ended = time.time()

        assert 102 == trio.current_time()
    # The close frame was the last sign of life: two seconds before.
    assert 2 == pytest.approx(gap.until - gap.since)
    assert began <= gap.until <= ended
    assert (1, 2) == (gap.after, gap.before)
    assert "the connection is closed: 1012 SERVICE_RESTART 'restart'" == gap.reason
    assert [None, 2.0] == [event.outage for event in recorder.of(ConnectionReady)]


async def test_a_gap_begins_with_the_last_byte_not_with_the_loss(autojump_clock, network, recorder):
    async with (
        FaultServer([SILENCE.later(after=1), NONE], network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=[recorder]) as channel,
    ):
        gap = (await take_items(channel, 4))[3]
        lost = recorder.of(ConnectionLost)[0]

        assert lost.duration == pytest.approx(gap.until - gap.since)
        assert gap.until - gap.since > 30


async def test_s2_1_what_came_while_the_hook_was_at_work_stays_readable(
    autojump_clock, network, recorder
):
    calls = itertools.count(1)

    async def hook(connection):
        if next(calls) == 2:
            await trio.sleep(1)
            raise LookupError("not now")

    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, on_connect=hook, observers=[recorder]) as channel,
    ):
        first = await take_items(channel, 3)
        others = await take_items(channel, 8)

        assert ["1.0", "1.1", "1.2"] == epochs(first)
        assert [(1, 2), "2.0", "2.1", "2.2", (2, 3), "3.0", "3.1", "3.2"] == epochs(others)
    assert 2 == len(recorder.of(GapDetected))


async def test_s2_1_what_came_with_a_close_during_the_first_hook_is_not_lost(
    autojump_clock, network
):
    async def serve(connection):
        assert "subscribe" == await connection.receive()
        await connection.send("granted")
        await connection.send(f"{connection.number}.0")
        await connection.close(1001)

    async def subscribe(connection):
        await connection.send_message("subscribe")
        assert "granted" == await connection.get_message()
        await trio.sleep(1)

    async with (
        FaultServer(network=network, handler=serve) as server,
        wsclient.open_channel(server.url, on_connect=subscribe, observers=()) as channel,
    ):
        assert ["1.0", (1, 2), "2.0", (2, 3), "3.0"] == epochs(await take_items(channel, 5))


async def test_s2_3_adjacent_gaps_are_one(autojump_clock, network, recorder):
    async def serve(connection):
        if connection.number in (1, 5):
            await connection.send(str(connection.number))
        await trio.sleep_forever()

    story = [
        *(Fault.close(1000 + number, after=1) for number in range(2)),
        *(Fault.close(1011 + number, after=1) for number in range(2)),
        NONE,
    ]
    async with (
        FaultServer(story, network=network, handler=serve) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await recorder.wait_for(ConnectionReady, count=5)
        await trio.sleep(1)

        assert 3 == channel.statistics().inbox_messages
        first, gap, last = await take_items(channel, 3)
    told = [event.gap for event in recorder.of(GapDetected)]

    assert ("1", "5") == (first, last)
    # Observers were told each when it happened; whoever reads is told what they amount to.
    assert [(1, 2), (2, 3), (3, 4), (4, 5)] == epochs(told)
    assert (
        Gap(after=1, before=5, since=told[0].since, until=told[3].until, reason=told[0].reason)
        == gap
    )


async def test_s2_3_a_channel_that_nobody_reads_from_does_not_fill_with_gaps(
    autojump_clock, network
):
    async with (
        FaultServer([Fault.reset(after=0.5)] * 60 + [NONE], network=network) as server,
        wsclient.open_channel(
            server.url, retry=AT_ONCE, limits=Limits(inbox_messages=10), observers=()
        ) as channel,
    ):
        await server.wait_connections(61)
        await channel.wait_ready()

        assert 1 == channel.statistics().inbox_messages
        assert 60 == channel.statistics().gaps
        await channel.send("still there")
        await server.wait_messages(1)


# --- waiting for states -------------------------------------------------------------------------


async def test_wait_ready_waits_until_messages_flow(autojump_clock, network):
    async with (
        FaultServer([REFUSE, REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=EVERY_SECOND, observers=()) as channel,
    ):
        assert ChannelState.CONNECTING is channel.state
        await channel.wait_ready()

        assert 2 == trio.current_time()
        assert ChannelState.READY is channel.state
        await channel.wait_ready()

        assert 2 == trio.current_time()


async def test_wait_ready_also_sees_a_connection_that_was_ready_for_a_moment(
    autojump_clock, network
):
    async with (
        FaultServer([REFUSE, ACCEPT_THEN_CLOSE, SILENT_HANDSHAKE], network=network) as server,
        wsclient.open_channel(server.url, retry=EVERY_SECOND, observers=()) as channel,
    ):
        await channel.wait_ready()

        assert 1 == trio.current_time()


async def test_wait_state_tells_which_state_came(autojump_clock, network):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=EVERY_SECOND, observers=()) as channel,
    ):
        assert ChannelState.WAITING is await channel.wait_state(
            ChannelState.WAITING, ChannelState.READY
        )
        assert ChannelState.READY is await channel.wait_state(ChannelState.READY)
        await channel.aclose()
        assert ChannelState.CLOSED is await channel.wait_state(ChannelState.READY)


async def test_s7_3_whoever_waits_is_woken_by_the_end(autojump_clock, network):
    ends = []

    async def wait(name, function, *args):
        try:
            ends.append((name, await function(*args)))
        except (trio.ClosedResourceError, trio.EndOfChannel) as error:
            ends.append((name, type(error)))

    async with (
        FaultServer([SILENT_HANDSHAKE], network=network) as server,
        wsclient.open_channel(
            server.url, limits=Limits(outbox_messages=1), observers=()
        ) as channel,
        trio.open_nursery() as nursery,
    ):
        receipt = await channel.send("fills the outbox")
        nursery.start_soon(wait, "ready", channel.wait_ready)
        nursery.start_soon(wait, "state", channel.wait_state, ChannelState.WAITING)
        nursery.start_soon(wait, "receive", channel.receive)
        nursery.start_soon(wait, "many", channel.receive_many)
        nursery.start_soon(wait, "send", channel.send, "no room")
        nursery.start_soon(wait, "receipt", receipt.wait)
        nursery.start_soon(wait, "clone", channel.receive_channel.clone().receive)
        await trio.testing.wait_all_tasks_blocked()

        assert [] == ends
        await channel.aclose()
        await trio.testing.wait_all_tasks_blocked()

        assert {
            "ready": trio.ClosedResourceError,
            "state": ChannelState.CLOSED,
            "receive": trio.EndOfChannel,
            "many": trio.EndOfChannel,
            "send": trio.ClosedResourceError,
            "receipt": Outcome.CANCELLED,
            "clone": trio.EndOfChannel,
        } == dict(ends)


@pytest.mark.parametrize("end", ["closing", "cancelling", "failing"])
async def test_s7_3_no_waiter_of_any_kind_survives_the_end(autojump_clock, network, nursery, end):
    ended = []

    async def wait(name, function, *args):
        with suppress(Exception):
            await function(*args)
        ended.append(name)

    async def hold(channel):
        async with channel.connection():
            await trio.sleep_forever()

    async def stay(connection):
        await trio.sleep_forever()

    async def loop(messages):
        async for _ in messages:
            pass

    acks = wsclient.DeliveryOptions(
        acknowledgement=wsclient.FunctionAcknowledgement(
            lambda message, *_: message, lambda _: None
        )
    )
    policy = RetryPolicy(classify=lambda *_: wsclient.Fatal("enough"))
    async with FaultServer([NEVER_READS], network=network) as server:
        with suppress(ExceptionGroup):  # What has failed goes through the nursery.
            async with trio.open_nursery() as own:
                channel = await wsclient.connect_channel(
                    own,
                    server.url,
                    retry=policy,
                    delivery=acks,
                    limits=Limits(outbox_messages=2),
                    heartbeat=HeartbeatOptions(interval=math.inf),
                    observers=(),
                )
                await channel.wait_ready()
                receipt = await channel.send(b"x" * 2**20)
                acked = await channel.send("waits for its turn", delivery=Delivery.ACKED)
                waits = {
                    "ready": (channel.wait_state, ChannelState.WAITING),
                    "receive": (channel.receive,),
                    "many": (channel.receive_many,),
                    "loop": (loop, channel),
                    "items": (loop, channel.items()),
                    "clone": (channel.receive_channel.clone().receive,),
                    "send": (channel.send, "no room"),
                    "send end": (channel.send_channel.clone().send, "no room"),
                    "wait": (receipt.wait,),
                    "received": (receipt.received,),
                    "acked": (acked.acked,),
                    "flush": (channel.flush,),
                    "connection": (hold, channel),
                    "while connected": (channel.while_connected, stay),
                }
                for name, call in waits.items():
                    nursery.start_soon(wait, name, *call)
                # Last, since it would wait for all that is sent.
                nursery.start_soon(
                    wait, "direct", lambda: channel.send("direct", delivery=Delivery.DIRECT)
                )
                await trio.testing.wait_all_tasks_blocked()

                assert [] == ended
                match end:
                    case "closing":
                        nursery.start_soon(wait, "drain", channel.drain, 100)
                        await trio.testing.wait_all_tasks_blocked()
                        await channel.aclose()
                    case "cancelling":
                        own.cancel_scope.cancel()
                    case "failing":
                        server.open_connections[0].reset()
    await trio.testing.wait_all_tasks_blocked()

    assert {*waits, "direct"} | ({"drain"} if end == "closing" else set()) == set(ended)
    assert channel.state.is_final


# --- the channel's own end ----------------------------------------------------------------------


async def test_s2_7_after_its_own_end_a_channel_receives_and_sends_nothing(autojump_clock, network):
    async with (
        FaultServer(network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(1)
        await channel.aclose()

        # What was received is discarded.
        assert 0 == channel.statistics().inbox_messages
        assert [] == [message async for message in channel]
        assert [] == [item async for item in channel.items()]
        for receive in (channel.receive, channel.receive_many):
            with pytest.raises(trio.EndOfChannel):
                await receive()
        with pytest.raises(trio.EndOfChannel):
            channel.receive_nowait()
        with pytest.raises(trio.ClosedResourceError):
            await channel.send("late")
        with pytest.raises(trio.ClosedResourceError):
            channel.send_nowait("late")
        with pytest.raises(trio.ClosedResourceError):
            await channel.wait_ready()
        assert ChannelState.CLOSED is channel.state
    assert 1000 == server.connections[0].close.code


async def test_closing_twice_is_as_good_as_once(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.aclose()
        await channel.aclose()
    assert 1 == len(recorder.of(ChannelClosed))


async def test_several_tasks_may_close_it_at_once(autojump_clock, network, recorder):
    async with (
        FaultServer([MUTE_CLOSE], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(channel.aclose)

        assert ChannelState.CLOSED is channel.state
    assert 1 == len(recorder.of(ChannelClosed))


async def test_a_close_that_is_cancelled_goes_on_by_itself(autojump_clock, network):
    async with (
        FaultServer([MUTE_CLOSE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        with trio.move_on_after(0.1) as scope:
            await channel.aclose()

        assert scope.cancelled_caught
        assert ChannelState.CLOSED is await channel.wait_state(ChannelState.CLOSED)
        assert trio.current_time() <= 2


async def test_an_empty_body_is_enough(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]),
    ):
        pass
    assert ["ChannelClosed"] == recorder.names()[-1:]
    assert 0 == trio.current_time()


async def test_what_a_closed_channel_cost_is_told(autojump_clock, network, recorder):
    async with (
        FaultServer([NEVER_READS], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        for _ in range(8):
            await channel.send(bytes(100_000))
        await trio.testing.wait_all_tasks_blocked()
        await channel.aclose()
        outcomes = channel.statistics().outcomes

        assert {Outcome.LOST_UNKNOWN, Outcome.CANCELLED} == set(outcomes)
        assert [
            ChannelClosed(
                channel=channel.name,
                cancelled=outcomes[Outcome.CANCELLED],
                lost_unknown=outcomes[Outcome.LOST_UNKNOWN],
            )
        ] == recorder.of(ChannelClosed)


# --- leaving in every state, whatever the peer does ---------------------------------------------


async def sleepy_hook(connection):
    await trio.sleep(10)


async def flood(connection):
    while True:
        await connection.send(bytes(10_000))
        await trio.sleep(0.001)  # Virtual time has to pass somewhere.


async def fill(channel):
    for _ in range(30):
        await channel.send(bytes(100_000))


async def nothing(channel):
    pass


async def send_one(channel):
    await channel.send("owed")


# State to leave from: what the server does, how the channel is opened, what the user does.
STATES = {
    "connecting": (ChannelState.CONNECTING, [SILENT_HANDSHAKE], {}, nothing),
    "connecting, owing": (ChannelState.CONNECTING, [SILENT_HANDSHAKE], {}, send_one),
    "establishing": (ChannelState.ESTABLISHING, [NONE], {"on_connect": sleepy_hook}, send_one),
    "establishing, mute peer": (
        ChannelState.ESTABLISHING,
        [MUTE_CLOSE],
        {"on_connect": sleepy_hook},
        send_one,
    ),
    "establishing, silent peer": (
        ChannelState.ESTABLISHING,
        [SILENCE],
        {"on_connect": sleepy_hook},
        send_one,
    ),
    "ready": (ChannelState.READY, [NONE], {}, nothing),
    "ready, mute peer": (ChannelState.READY, [MUTE_CLOSE], {}, nothing),
    "ready, silent peer": (ChannelState.READY, [SILENCE], {}, nothing),
    "ready, blocked writer": (ChannelState.READY, [NEVER_READS], {}, fill),
    "ready, slow peer": (ChannelState.READY, [Fault.slow_reads(100)], {}, fill),
    "ready, blocked reader": (
        ChannelState.READY,
        [NONE],
        {"limits": Limits(inbox_messages=1), "handler": flood},
        nothing,
    ),
    "ready, blocked both": (
        ChannelState.READY,
        [NEVER_READS],
        {"limits": Limits(inbox_messages=1), "handler": flood},
        fill,
    ),
    "ready, flooding peer": (ChannelState.READY, [NEVER_READS], {"handler": flood}, nothing),
    "ready, half a frame": (ChannelState.READY, [HALF_FRAME_THEN_SILENCE], {}, nothing),
    "waiting": (ChannelState.WAITING, [REFUSE], {"retry": EVERY_SECOND}, nothing),
    "waiting, owing": (ChannelState.WAITING, [RESET_AFTER_OPEN], {"retry": EVERY_SECOND}, send_one),
}


WAYS = ["closing", "raising", "cancelling", "closing while draining", "cancelling while draining"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", STATES)
async def test_s3_3_leaving_takes_two_seconds_at_most_from_every_state(
    autojump_clock, network, recorder, where, way
):
    state, story, options, act = STATES[where]
    options = dict(options)
    handler = options.pop("handler", None)
    async with FaultServer(story, network=network, handler=handler) as server:
        left_at = math.inf
        with trio.CancelScope() as scope:
            try:
                async with wsclient.open_channel(
                    server.url, observers=[recorder], **options
                ) as channel:
                    await channel.wait_state(state)
                    await act(channel)
                    await trio.testing.wait_all_tasks_blocked()

                    assert state is channel.state
                    receipts = [channel.send_nowait("late")]
                    async with trio.open_nursery() as nursery:
                        if "draining" in way:
                            nursery.start_soon(channel.drain, 100)
                            await trio.testing.wait_all_tasks_blocked()

                            # Where it can, it drains within the same moment.
                            assert channel.state in (ChannelState.DRAINING, ChannelState.CLOSED)
                        left_at = trio.current_time()
                        if "closing" in way:
                            await channel.aclose()
                        elif "cancelling" in way:
                            scope.cancel()
                            await trio.sleep_forever()
                        else:
                            raise LookupError("mine")
            except* LookupError:
                assert "raising" == way

        assert trio.current_time() - left_at <= 2
        assert scope.cancelled_caught is ("cancelling" in way)
    assert ChannelState.CLOSED is channel.state
    assert {Outcome.RECEIVED, Outcome.LOST_UNKNOWN, Outcome.CANCELLED} >= {
        receipt.outcome for receipt in receipts
    }
    assert 0 == channel.statistics().outbox_messages
    assert 1 == len(recorder.of(ChannelClosed))


EVERY_FAULT = [
    *(fault for fault in vars(wsclient.testing).values() if isinstance(fault, Fault)),
    wsclient.testing.DELAYED_HANDSHAKE(3),
    Fault.slow_reads(10),
    Fault.reject(503, retry_after=100),
    *(Fault.close(code) for code in (1001, 1002, 1008, 1012, 1013, 3003)),
    *(
        fault.later(after_messages=2)
        for fault in vars(wsclient.testing).values()
        if isinstance(fault, Fault) and fault.strikes
    ),
]


@pytest.mark.parametrize("fault", EVERY_FAULT, ids=repr)
async def test_i9_leaving_takes_two_seconds_at_most_under_every_fault(
    autojump_clock, network, fault
):
    for way, after in itertools.product(("closing", "raising", "cancelling"), (0, 0.3, 7, 41.5)):
        async with FaultServer([fault], network=network) as server:
            left_at, has_cancelled = math.inf, False
            with trio.CancelScope() as scope:
                try:
                    async with wsclient.open_channel(server.url, observers=()) as channel:
                        for number in range(5):
                            await channel.send(str(number) * 30_000)
                        await trio.sleep(after)
                        left_at = trio.current_time()
                        match way:
                            case "closing":
                                await channel.aclose()
                            case "raising":
                                raise LookupError("mine")
                            case "cancelling":
                                has_cancelled = True
                                scope.cancel()
                                await trio.sleep_forever()
                except LookupError:
                    assert "raising" == way
                except ChannelFailed:
                    pass

            assert trio.current_time() - left_at <= 2, (way, after)
            assert channel.state.is_final
            assert 0 == channel.statistics().outbox_messages
            assert scope.cancelled_caught <= has_cancelled


async def test_s3_3_a_nursery_that_is_cancelled_closes_its_channels_within_two_seconds(
    autojump_clock, network
):
    stories = {"a.test": [MUTE_CLOSE], "b.test": [NEVER_READS], "c.test": [SILENT_HANDSHAKE]}
    async with trio.open_nursery() as servers:
        for host, story in stories.items():
            server = FaultServer(story, network=network, host=host)
            await servers.start(_serve, server)
        channels = []
        async with trio.open_nursery() as nursery:
            for host in stories:
                channel = await wsclient.connect_channel(nursery, f"ws://{host}", observers=())
                await fill(channel)
                channels.append(channel)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()

        assert 5 <= trio.current_time() <= 7
        assert {ChannelState.CLOSED} == {channel.state for channel in channels}
        servers.cancel_scope.cancel()


async def _serve(server, task_status):
    async with server:
        task_status.started()
        await trio.sleep_forever()


async def test_s3_3_leaving_in_peace_tells_the_peer(autojump_clock, network):
    async with FaultServer(network=network) as server:
        async with wsclient.open_channel(server.url, observers=()) as channel:
            await channel.wait_ready()

        assert 1000 == server.connections[0].close.code
        assert 0 == trio.current_time()


@pytest.mark.parametrize("way", ["raising", "cancelling"])
async def test_s3_3_leaving_in_trouble_tells_the_peer_too_and_does_not_drain(
    autojump_clock, network, way
):
    async with FaultServer([Fault.slow_reads(1000)], network=network) as server:
        with trio.CancelScope() as scope:
            try:
                async with wsclient.open_channel(server.url, observers=()) as channel:
                    await channel.wait_ready()
                    await trio.sleep(1)
                    if way == "raising":
                        raise LookupError("mine")
                    scope.cancel()
                    await trio.sleep_forever()
            except LookupError:
                pass
        left_at = trio.current_time()
        visit = await server.wait_over(1)

        assert left_at <= 2
        assert 1000 == visit.close.code


async def test_s7_1_what_the_body_raises_leaves_as_itself(autojump_clock, network):
    cause, context, mine = ValueError("cause"), ValueError("context"), LookupError("mine")
    async with FaultServer(network=network) as server:
        with pytest.raises(LookupError) as caught:
            async with wsclient.open_channel(server.url, observers=()) as channel:
                await channel.wait_ready()
                try:
                    raise context
                except ValueError:
                    raise mine from cause

    assert mine is caught.value
    assert cause is mine.__cause__
    assert context is mine.__context__


async def test_s7_1_a_group_that_the_body_raises_is_not_wrapped(autojump_clock, network):
    mine = ExceptionGroup("several", [LookupError("a"), ValueError("b")])
    async with FaultServer(network=network) as server:
        with pytest.raises(ExceptionGroup) as caught:
            async with wsclient.open_channel(server.url, observers=()):
                raise mine

    # trio copies groups where it takes cancellations out of them.
    assert ("several", mine.exceptions) == (caught.value.message, caught.value.exceptions)


# --- draining -----------------------------------------------------------------------------------


async def test_s3_3_a_body_that_ended_well_writes_what_it_owes(autojump_clock, network, recorder):
    story = [REFUSE, Fault.reset(after_messages=1), NONE]
    async with FaultServer(story, network=network) as server:
        async with wsclient.open_channel(
            server.url, retry=EVERY_SECOND, observers=[recorder]
        ) as channel:
            receipts = [await channel.send(str(number)) for number in range(3)]

        assert 1 <= trio.current_time() <= 2
    assert {Outcome.RECEIVED, Outcome.LOST_UNKNOWN} >= {receipt.outcome for receipt in receipts}
    assert [ChannelState.DRAINING, ChannelState.CLOSED] == [
        change.state for change in recorder.of(StateChanged)[-2:]
    ]


async def test_s3_3_draining_connects_again_if_it_must(autojump_clock, network):
    async with FaultServer([REFUSE] * 3 + [NONE], network=network) as server:
        async with wsclient.open_channel(server.url, retry=EVERY_SECOND, observers=()) as channel:
            receipt = await channel.send("owed")

        assert 3 == trio.current_time()
    assert ["owed"] == server.messages
    assert Outcome.RECEIVED is receipt.outcome


async def test_s3_3_draining_is_skipped_when_nothing_is_owed(autojump_clock, network, recorder):
    async with FaultServer([REFUSE], network=network) as server:
        async with wsclient.open_channel(server.url, observers=[recorder]) as channel:
            (await channel.send("taken back")).cancel()

        assert 0 == trio.current_time()
    assert ChannelState.DRAINING not in [change.state for change in recorder.of(StateChanged)]


async def test_s3_3_draining_ends_after_five_seconds_and_the_rest_is_cancelled(
    autojump_clock, network, recorder
):
    async with FaultServer([REFUSE], network=network) as server:
        async with wsclient.open_channel(server.url, observers=[recorder]) as channel:
            receipts = [await channel.send(str(number)) for number in range(3)]

        assert 5 == trio.current_time()
    assert [Outcome.CANCELLED] * 3 == [receipt.outcome for receipt in receipts]
    assert [ChannelClosed(channel=channel.name, cancelled=3, lost_unknown=0)] == recorder.of(
        ChannelClosed
    )


async def test_s3_3_what_is_being_written_when_the_drain_ends_is_lost_unknown(
    autojump_clock, network
):
    async with FaultServer([NEVER_READS], network=network) as server:
        async with wsclient.open_channel(server.url, observers=()) as channel:
            await channel.wait_ready()
            large = await channel.send(bytes(2**20))
            small = await channel.send("behind it")

        assert 5 <= trio.current_time() <= 7
    assert (Outcome.LOST_UNKNOWN, Outcome.CANCELLED) == (large.outcome, small.outcome)


async def test_drain_tells_whether_everything_was_written(autojump_clock, network):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=EVERY_SECOND, observers=()) as channel,
    ):
        await channel.send("owed")

        assert await channel.drain()
        assert 1 == trio.current_time()
        assert ChannelState.CLOSED is channel.state
        assert await channel.drain()
        assert ["owed"] == await server.wait_messages(1)


async def test_s3_1_the_time_given_to_drain_ends_draining(autojump_clock, network):
    async with (
        FaultServer([REFUSE], network=network) as server,
        wsclient.open_channel(server.url, retry=EVERY_SECOND, observers=()) as channel,
    ):
        receipt = await channel.send("owed")
        with trio.move_on_after(0.25):
            await channel.drain(0.5)

        assert 0.25 == trio.current_time()
        assert ChannelState.CLOSED is await channel.wait_state(ChannelState.CLOSED)
        assert 0.5 == trio.current_time()
        assert Outcome.CANCELLED is receipt.outcome
        assert not await channel.drain()


@pytest.mark.parametrize(
    ("seconds", "error"), [("5", TypeError), (True, TypeError), (-1, ValueError)]
)
async def test_a_time_to_drain_that_cannot_be_is_refused_by_the_call(
    autojump_clock, network, seconds, error
):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        with pytest.raises(error, match="timeout must be"):
            await channel.drain(seconds)
        with pytest.raises(TypeError, match="a state must be ChannelState, not str"):
            await channel.wait_state("ready")

        assert ChannelState.READY is channel.state


async def test_drain_is_not_pleased_with_a_message_that_was_lost_meanwhile(autojump_clock, network):
    async with (
        FaultServer([NEVER_READS, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
        trio.open_nursery() as nursery,
    ):
        await channel.wait_ready()
        receipt = await channel.send(bytes(2**20))

        @nursery.start_soon
        async def cut():
            await trio.sleep(1)
            await server.stop()
            await server.start()

        assert not await channel.drain()
        assert 1 <= trio.current_time() < 3
        assert Outcome.LOST_UNKNOWN is receipt.outcome


async def test_drain_ends_when_the_channel_is_closed(autojump_clock, network):
    async with (
        FaultServer([REFUSE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
        trio.open_nursery() as nursery,
    ):
        await channel.send("owed")

        @nursery.start_soon
        async def close():
            await trio.sleep(1)
            await channel.aclose()

        assert not await channel.drain(100)
        assert 1 == trio.current_time()


async def test_s2_7_a_draining_channel_accepts_nothing_and_still_receives(autojump_clock, network):
    async with (
        FaultServer([REFUSE, NONE], network=network, handler=say_who) as server,
        wsclient.open_channel(
            server.url, retry=EVERY_SECOND, limits=Limits(outbox_messages=1), observers=()
        ) as channel,
        trio.open_nursery() as nursery,
    ):
        await channel.send("owed")
        refused = []

        @nursery.start_soon
        async def wait_for_room():
            try:
                await channel.send("waits for room")
            except trio.ClosedResourceError as error:
                refused.append(str(error))

        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(channel.drain)
        await trio.testing.wait_all_tasks_blocked()

        assert ["the channel is draining"] == refused
        with pytest.raises(trio.ClosedResourceError, match="draining"):
            await channel.send("late")
        with pytest.raises(trio.ClosedResourceError, match="draining"):
            channel.send_nowait("late")
        with pytest.raises(trio.ClosedResourceError):
            await channel.wait_ready()
    assert ["owed"] == server.messages


# --- failing ------------------------------------------------------------------------------------


async def test_s3_5_a_fatal_decision_cancels_the_body_and_is_raised_once(
    autojump_clock, network, recorder
):
    was_cancelled = False
    async with FaultServer([REJECT_404], network=network) as server:
        with pytest.raises(ChannelFailed) as caught:
            async with wsclient.open_channel(server.url, observers=[recorder]) as channel:
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    was_cancelled = True
                    raise

        assert 0 == trio.current_time()
    assert was_cancelled
    assert ChannelState.FAILED is channel.state
    assert ConnectionRejected is type(caught.value.__cause__)
    assert 1 == len(recorder.of(ChannelGaveUp))
    assert [] == recorder.of(ChannelClosed)


async def test_s3_5_the_body_may_first_take_what_was_received(autojump_clock, network):
    story = [Fault.close(3003, after=1)]
    received = []
    async with FaultServer(story, network=network, handler=say_who) as server:
        with pytest.raises(ChannelFailed):
            async with wsclient.open_channel(server.url, observers=()) as channel:
                await trio.sleep(1.5)

                assert ChannelState.FAILED is channel.state
                async for message in channel:
                    received.append(message)  # noqa: PERF401  # One by one: what comes after may raise.

        assert 1.5 == trio.current_time()
    assert ["1.0", "1.1", "1.2"] == received


async def test_s3_5_the_body_is_cancelled_when_the_inbox_is_empty(autojump_clock, network):
    story = [Fault.close(3003, after=1)]
    async with FaultServer(story, network=network, handler=say_who) as server:
        with pytest.raises(ChannelFailed):
            async with wsclient.open_channel(server.url, observers=()) as channel:
                await trio.sleep(1.5)
                for _ in range(3):
                    await channel.receive()
                await trio.sleep_forever()

        assert 1.5 == trio.current_time()


async def test_s3_5_the_body_is_cancelled_after_a_second_though_it_has_not_read_all(
    autojump_clock, network
):
    story = [Fault.close(3003, after=1)]
    async with FaultServer(story, network=network, handler=say_who) as server:
        with pytest.raises(ChannelFailed):
            async with wsclient.open_channel(server.url, observers=()):
                await trio.sleep_forever()

        assert 2 == trio.current_time()


@pytest.mark.parametrize("fault", [MUTE_CLOSE, NEVER_READS, SILENCE], ids=repr)
async def test_s3_5_a_peer_that_does_not_close_delays_nothing(autojump_clock, network, fault):
    async def hook(connection):
        await trio.sleep(1)
        raise LookupError("mine")

    async with FaultServer([fault], network=network) as server:
        cancelled_at = math.inf
        with pytest.raises(ChannelFailed):
            async with wsclient.open_channel(server.url, on_connect=hook, observers=()):
                try:
                    await trio.sleep_forever()
                finally:
                    cancelled_at = trio.current_time()

        assert 1 == cancelled_at
        assert trio.current_time() <= 3


async def test_s3_5_a_body_that_waits_for_a_message_gets_the_failure_there(autojump_clock, network):
    async with FaultServer([REFUSE, REJECT_404], network=network) as server:
        inner = None
        with pytest.raises(ChannelFailed) as caught:
            async with wsclient.open_channel(server.url, observers=()) as channel:
                try:
                    await channel.receive()
                except ChannelFailed as error:
                    inner = error
                    raise

    assert inner is caught.value


async def test_s2_7_all_receivers_and_senders_of_a_failed_channel_raise_the_same(
    autojump_clock, network
):
    raised = []

    async def note(function, *args):
        try:
            await function(*args)
        except ChannelFailed as error:
            raised.append(error)

    async def note_iteration(iterator):
        try:
            async for _ in iterator:
                pass
        except ChannelFailed as error:
            raised.append(error)

    async with FaultServer([REFUSE, REJECT_404], network=network) as server:
        with pytest.raises(ChannelFailed) as caught:
            async with wsclient.open_channel(
                server.url, limits=Limits(outbox_messages=1), observers=()
            ) as channel:
                receipt = await channel.send("fills it")
                with trio.CancelScope(shield=True):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(note, channel.receive)
                        nursery.start_soon(note, channel.receive)
                        nursery.start_soon(note, channel.receive_many)
                        nursery.start_soon(note_iteration, channel)
                        nursery.start_soon(note_iteration, channel.items())
                        nursery.start_soon(note, channel.receive_channel.clone().receive)
                        nursery.start_soon(note, channel.wait_ready)
                        nursery.start_soon(note, channel.send, "waits for room")
                    await note(channel.receive)
                    await note(channel.send, "late")
                    with pytest.raises(ChannelFailed) as nowait:
                        channel.receive_nowait()
                    with pytest.raises(ChannelFailed):
                        channel.send_nowait("late")
                    assert ChannelState.FAILED is await channel.wait_state(ChannelState.READY)

    assert [caught.value] * 10 == raised
    assert caught.value is nowait.value
    assert Outcome.CANCELLED is receipt.outcome
    assert ConnectionRejected is type(caught.value.__cause__)


async def test_s3_5_the_bodys_own_exception_is_stronger(autojump_clock, network):
    mine = LookupError("mine")
    async with FaultServer([REJECT_404], network=network) as server:
        with pytest.raises(LookupError) as caught:
            async with wsclient.open_channel(server.url, observers=()):
                try:
                    await trio.sleep_forever()
                finally:
                    raise mine

    assert mine is caught.value


async def test_s3_5_a_failure_while_draining_is_raised(autojump_clock, network):
    async with FaultServer([REFUSE, REJECT_404], network=network) as server:
        with pytest.raises(ChannelFailed):
            async with wsclient.open_channel(
                server.url, retry=EVERY_SECOND, observers=()
            ) as channel:
                receipt = await channel.send("owed")

        assert 1 == trio.current_time()
    assert Outcome.CANCELLED is receipt.outcome


async def test_a_failed_channel_can_be_closed_and_drained_all_the_same(autojump_clock, network):
    async with FaultServer([REJECT_404], network=network) as server:
        with pytest.raises(ChannelFailed):
            async with wsclient.open_channel(server.url, observers=()) as channel:
                with trio.CancelScope(shield=True):
                    await channel.wait_state(ChannelState.FAILED)
                    await channel.drain()
                    await channel.aclose()
                assert ChannelState.FAILED is channel.state


async def test_what_a_failed_channel_cost_is_told(autojump_clock, network, recorder):
    async with FaultServer([REFUSE, REJECT_404], network=network) as server:
        with pytest.raises(ChannelFailed) as caught:
            async with wsclient.open_channel(server.url, observers=[recorder]) as channel:
                for number in range(3):
                    await channel.send(str(number))
                await trio.sleep_forever()

    assert [
        ChannelGaveUp(channel=channel.name, reason=str(caught.value), cancelled=3, lost_unknown=0)
    ] == recorder.of(ChannelGaveUp)


async def test_s3_5_in_a_nursery_of_ones_own_the_failure_goes_through_it(autojump_clock, network):
    async with FaultServer([REJECT_404], network=network) as server:
        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                channel = await wsclient.connect_channel(nursery, server.url, observers=())

                assert ChannelState.CONNECTING is channel.state
                await trio.sleep_forever()

    assert [ChannelFailed] == [type(error) for error in caught.value.exceptions]
    assert ChannelState.FAILED is channel.state


async def test_in_a_nursery_of_ones_own_the_caller_closes(autojump_clock, network):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        trio.open_nursery() as nursery,
    ):
        channel = await wsclient.connect_channel(nursery, server.url, observers=())
        await channel.send("owed")

        assert await channel.drain()
        await channel.aclose()

        assert ChannelState.CLOSED is channel.state
        assert not nursery.child_tasks
    assert ["owed"] == server.messages


# --- ready_timeout ------------------------------------------------------------------------------


async def test_s3_5_ready_timeout_waits_until_the_channel_is_ready(autojump_clock, network):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(
            server.url, retry=EVERY_SECOND, ready_timeout=5, observers=()
        ) as channel,
    ):
        assert ChannelState.READY is channel.state
        assert 1 == trio.current_time()


async def test_s3_5_ready_timeout_tells_the_last_failure(autojump_clock, network):
    async with FaultServer([REJECT_503], network=network) as server:
        with pytest.raises(ConnectionTimeout, match="was not ready within 5 s") as caught:
            async with wsclient.open_channel(server.url, ready_timeout=5, observers=()):
                pytest.fail("the block must not begin")

        assert 5 == trio.current_time()
    assert 503 == caught.value.__cause__.status_code


async def test_s3_5_ready_timeout_has_no_cause_where_nothing_has_failed(autojump_clock, network):
    async with FaultServer([SILENT_HANDSHAKE], network=network) as server:
        with pytest.raises(ConnectionTimeout) as caught:
            async with wsclient.open_channel(server.url, ready_timeout=5, observers=()):
                pytest.fail("the block must not begin")

        assert 5 == trio.current_time()
    assert None is caught.value.__cause__


async def test_s3_5_a_fatal_decision_ends_the_wait_for_readiness(autojump_clock, network):
    async with FaultServer([REJECT_404], network=network) as server:
        with pytest.raises(ChannelFailed):
            async with wsclient.open_channel(server.url, ready_timeout=5, observers=()):
                pytest.fail("the block must not begin")

        assert 0 == trio.current_time()


# --- what it is ---------------------------------------------------------------------------------


async def test_statistics_count_what_happened(autojump_clock, network, recorder):
    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=[recorder]) as channel,
    ):
        statistics = channel.statistics()

        assert (ChannelState.CONNECTING, 0, 0) == (
            statistics.state,
            statistics.epoch,
            statistics.messages_accepted,
        )
        (await channel.send("taken back")).cancel()
        await channel.send("größe")
        statistics = channel.statistics()

        assert (2, 1, 7) == (
            statistics.messages_accepted,
            statistics.outbox_messages,
            statistics.outbox_size,
        )
        await recorder.wait_for(ConnectionReady, count=2)
        await trio.sleep(1.5)
        await channel.receive()
        statistics = channel.statistics()

        assert (
            wsclient.ChannelStatistics(
                state=ChannelState.READY,
                epoch=2,
                attempts=2,
                gaps=1,
                messages_accepted=2,
                messages_received=1,
                outcomes={Outcome.CANCELLED: 1, Outcome.LOST_UNKNOWN: 1},
                outbox_messages=0,
                outbox_size=0,
                messages_dropped=0,
                messages_repeated=0,
                requests_waiting=0,
                replies_late=0,
                subscriptions_wanted=0,
                subscriptions_live=0,
                messages_stale=0,
                inbox_messages=6,
                inbox_size=15,
                latency=None,
                latency_smoothed=None,
                latency_minimum=None,
                latency_p50=None,
                latency_p95=None,
                latency_p99=None,
            )
            == statistics
        )
        with pytest.raises(TypeError):
            statistics.outcomes[Outcome.WRITTEN] = 5
        await channel.receive_many()

        assert 6 == channel.statistics().messages_received


async def test_a_channel_is_called_as_asked_or_by_its_endpoint(autojump_clock, network):
    url = "ws://user:pass@nobody.test:8080/secret?key=1"
    async with wsclient.open_channel(url, observers=()) as channel:
        assert ("ws://nobody.test:8080",) * 2 == (channel.name, channel.endpoint)
        assert "<DurableChannel ws://nobody.test:8080 connecting, epoch 0>" == repr(channel)
    async with wsclient.open_channel(url, name="feed", observers=()) as channel:
        assert ("feed", "ws://nobody.test:8080") == (channel.name, channel.endpoint)


async def test_a_channel_may_be_used_by_many_tasks(autojump_clock, network):
    received = []
    async with (
        FaultServer(
            [Fault.reset(after_messages=30), NONE], network=network, handler=echo
        ) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=()) as channel,
        trio.open_nursery() as nursery,
    ):

        async def receive():
            async for message in channel:
                received.append(message)  # noqa: PERF401  # One by one: what comes after may raise.

        async with trio.open_nursery() as senders:
            for sender in range(10):

                @senders.start_soon
                async def send(sender=sender):
                    for number in range(10):
                        await channel.send(f"{sender} {number}")
                        await trio.sleep(0.01)

        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(set(server.messages)) == len(server.messages)
    for sender in range(10):
        own = [message for message in server.messages if message.startswith(f"{sender} ")]

        assert sorted(own) == own
    assert set(received) <= set(server.messages)
