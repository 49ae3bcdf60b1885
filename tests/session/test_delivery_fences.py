"""What is proven of a message, and when (S1.2): fences, flush, drain; and the rate of sending."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import trio
import trio.testing

import wsclient
from wsclient.errors import DeliveryError
from wsclient.events import ConnectionLost, Delivery, FencesLifted, Outcome, Truth
from wsclient.options import DeliveryOptions, HeartbeatOptions, SendRate
from wsclient.testing import NONE, REFUSE, Fault, FaultServer

EVERY_20 = HeartbeatOptions(interval=20, timeout=20, jitter=0)
EVERY_5 = HeartbeatOptions(interval=5, timeout=5, jitter=0)


async def settle_down():
    await trio.testing.wait_all_tasks_blocked()


async def listen(heard):
    while await heard.listen():
        pass


# --- S1.2, the fence -----------------------------------------------------------------------------


async def test_s1_2_a_fence_is_asked_for_after_so_many_messages(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(fence_every=10, fence_interval=1e6) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(listen, peer)
        for number in range(9):
            await channel.send(str(number))
        await trio.sleep(500)

        assert [] == peer.pings
        for number in range(9, 35):
            await channel.send(str(number))
            await settle_down()
        assert 3 == len(peer.pings)
        await peer.pong()
        await settle_down()

        assert {Outcome.RECEIVED: 30} == channel.statistics().outcomes
        await channel.aclose()


async def test_s1_2_a_fence_is_asked_for_after_so_many_seconds(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(fence_interval=3) as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        for _ in range(2):
            for number in range(50):
                await channel.send(str(number))
            began = trio.current_time()
            await trio.sleep(1)
            receipt = await channel.send("last")
            nursery.start_soon(_answer_next_ping, peer)

            assert Outcome.RECEIVED is await receipt.wait()
            assert began + 3 == trio.current_time()
            await trio.sleep(100)
        assert 2 == len(peer.pings)


async def _answer_next_ping(heard):
    await heard.hear_pings(len(heard.pings) + 1)
    await heard.pong()


async def test_s1_2_the_heartbeats_ping_is_a_fence(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(fence_interval=1e6, heartbeat=EVERY_20) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        receipt = await channel.send("message")

        assert Outcome.RECEIVED is await receipt.wait()
        assert 20 == trio.current_time()


async def test_s1_2_a_pong_proves_what_went_before_its_ping_and_no_more(autojump_clock, by_hand):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        receipts = []
        for number in range(1, 4):
            receipts.append(await channel.send(str(number)))
            await peer.hear_pings(number)
        await peer.peer.send_frame(0xA, peer.pings[1])
        await settle_down()

        # The second pong answers the first ping, too.
        assert [Outcome.RECEIVED] * 2 + [None] == [receipt.outcome for receipt in receipts]
        await peer.peer.send_frame(0xA, peer.pings[0])
        await peer.peer.send_frame(0xA, b"unasked")
        await settle_down()

        assert None is receipts[2].outcome
        await peer.pong()
        await receipts[2].received()


async def test_s1_2_without_fences_nothing_is_asked_and_written_is_all_that_is_known(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel(fence=False) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(listen, peer)
        receipt = await channel.send("message")

        assert Outcome.WRITTEN is await receipt.wait()
        assert Truth.UNKNOWN is receipt.truth
        with pytest.raises(DeliveryError):
            await receipt.received()
        await trio.sleep(1000)
        acked = await channel.send("message", delivery=Delivery.ACKED)
        await trio.sleep(1000)

        assert None is acked.outcome
        assert [] == peer.pings
        await peer.acknowledge(peer.messages[-1])
        await acked.acked()


async def test_s1_2_fences_are_lifted_where_no_pong_comes_and_other_bytes_do(
    autojump_clock, by_hand, nursery, recorder
):
    async def talk(heard):
        while True:
            await heard.say("news")
            await trio.sleep(10)

    async with by_hand.open_channel(observers=[recorder]) as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        nursery.start_soon(listen, first)
        async with trio.open_nursery() as talking:
            talking.start_soon(talk, first)
            receipts = [await channel.send(str(number)) for number in range(3)]
            acked = await channel.send("acked", delivery=Delivery.ACKED)
            outcomes = {await receipt.wait() for receipt in receipts}

            # Asked at 1.
            assert 61 == trio.current_time()
            assert {Outcome.WRITTEN} == outcomes
            lifted = recorder.of(FencesLifted)

            assert [(1, 4)] == [(event.epoch, event.messages) for event in lifted]
            assert None is acked.outcome
            late = await channel.send("late")

            assert Outcome.WRITTEN is await late.wait()
            assert 61 == trio.current_time()
            pings = len(first.pings)
            await trio.sleep(1000)

            assert (pings, 1) == (len(first.pings), len(recorder.of(FencesLifted)))
            talking.cancel_scope.cancel()
        first.die()
        second = await by_hand.accept()
        nursery.start_soon(second.serve)
        proven = await channel.send("proven")

        assert Outcome.RECEIVED is await proven.wait()
        await acked.acked()


async def test_s1_2_a_peer_that_says_nothing_at_all_is_the_heartbeats_to_judge(
    autojump_clock, by_hand, nursery, recorder
):
    async with by_hand.open_channel(observers=[recorder]) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(listen, peer)
        receipt = await channel.send("message")
        await trio.sleep(1000)

        assert [] == recorder.of(FencesLifted)
        assert None is receipt.outcome
        await peer.pong()
        await receipt.received()


async def test_s1_2_a_message_is_received_as_soon_as_a_whole_server_has_read_it(
    autojump_clock, network
):
    """The same with a real server: RECEIVED means that its log has it."""
    async with (
        FaultServer([Fault.slow_reads(1000)], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        for number in range(5):
            message = f"{number} {'x' * 900}"
            receipt = await channel.send(message)
            await receipt.received()

            assert message == server.messages[-1]
        assert trio.current_time() > 4


# --- flush ---------------------------------------------------------------------------------------


async def test_flush_asks_at_once_and_tells_that_all_is_well(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(fence_interval=1e6) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        for delivery in Delivery:
            await channel.wait_ready() if delivery is Delivery.DIRECT else None
            for number in range(10):
                await channel.send(str(number), delivery=delivery)

        assert await channel.flush() is True
        assert 0 == trio.current_time()
        assert 30 == len(peer.messages)
        assert {Outcome.RECEIVED: 20, Outcome.ACKED: 10} == channel.statistics().outcomes
        # It is over: the next message waits for its fence again.
        receipt = await channel.send("later")
        await trio.sleep(100)

        assert None is receipt.outcome
        assert await channel.flush() is True


async def test_flush_waits_for_what_was_accepted_before_and_for_nothing_else(
    autojump_clock, by_hand, nursery
):
    flushed = []

    async def flush():
        flushed.append(await channel.flush())

    async with by_hand.open_channel() as channel:
        assert await channel.flush() is True
        await channel.send("before", delivery=Delivery.ACKED)
        nursery.start_soon(flush)
        await settle_down()
        after = await channel.send("after", delivery=Delivery.ACKED)
        peer = await by_hand.accept()
        nursery.start_soon(functools.partial(peer.serve, acknowledge=False))
        await trio.sleep(100)

        assert [] == flushed
        await peer.acknowledge(peer.messages[0])
        await settle_down()

        assert [True] == flushed
        assert None is after.outcome
        await peer.acknowledge(peer.messages[1])


@pytest.mark.parametrize("ending", ["lost", "rejected", "cancelled", "expired"])
async def test_flush_tells_that_not_all_is_well(autojump_clock, by_hand, nursery, ending):
    async def end():
        await trio.sleep(3)
        if ending == "cancelled":
            acked.cancel()
        peer = await by_hand.accept()
        if ending == "lost":
            await peer.hear(2)
            peer.die()
            peer = await by_hand.accept()
        if ending == "rejected":
            await peer.hear(2)
            await peer.say(f"nack {acked.id}")
        await peer.serve()

    async with by_hand.open_channel() as channel:
        ttl = 2 if ending == "expired" else None
        acked = await channel.send("acked", delivery=Delivery.ACKED, ttl=ttl)
        await channel.send("queued")
        nursery.start_soon(end)

        assert await channel.flush() is False


async def test_a_flush_that_was_cancelled_hurries_no_longer(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(fence_interval=50) as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        nursery.start_soon(listen, peer)
        await channel.send("one")
        with trio.move_on_after(5) as scope:
            await channel.flush()

        assert (True, 1) == (scope.cancelled_caught, len(peer.pings))
        await channel.send("two")
        await trio.sleep(49)

        assert 1 == len(peer.pings)
        await trio.sleep(1)
        await settle_down()

        assert 2 == len(peer.pings)
        await peer.pong()


# --- S3.3, drain ---------------------------------------------------------------------------------


async def test_s3_3_drain_waits_for_proofs_and_acknowledgements_and_is_true(
    autojump_clock, by_hand, nursery
):
    async def serve():
        await peer.hear_pings(1)
        await trio.sleep(1)
        await peer.pong()
        await trio.sleep(2)
        await peer.acknowledge(peer.messages[1])
        await peer.serve()

    async with by_hand.open_channel(fence_interval=1e6) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(serve)
        queued = await channel.send("queued")
        acked = await channel.send("acked", delivery=Delivery.ACKED)

        assert await channel.drain() is True
        assert (Outcome.RECEIVED, Outcome.ACKED) == (queued.outcome, acked.outcome)
        assert 3 == trio.current_time()


async def test_s3_3_drain_connects_again_for_what_is_not_acknowledged(
    autojump_clock, by_hand, nursery
):
    async def serve():
        first = await by_hand.accept()
        await first.hear(1)
        first.die()
        second = await by_hand.accept()
        await second.serve()

    async with by_hand.open_channel() as channel:
        nursery.start_soon(serve)
        await channel.send("acked", delivery=Delivery.ACKED)

        assert await channel.drain() is True


@pytest.mark.parametrize("answer", ["nothing", "nack", "pong"])
async def test_s3_3_drain_is_not_true_where_something_has_not_arrived(
    autojump_clock, by_hand, nursery, answer
):
    async def serve():
        if answer == "nothing":
            await listen(peer)
        elif answer == "pong":
            await peer.serve(acknowledge=False)
        else:
            await peer.hear(1)
            await peer.say(f"nack {receipt.id}")
            await peer.serve()

    outcome = Outcome.REJECTED if answer == "nack" else Outcome.LOST_UNKNOWN
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        receipt = await channel.send("message", delivery=Delivery.ACKED)
        nursery.start_soon(serve)

        assert await channel.drain(4) is False
        assert outcome is receipt.outcome
        assert trio.current_time() <= 6


async def test_s3_3_without_fences_drain_waits_until_all_is_written(
    autojump_clock, by_hand, nursery
):
    async def serve():
        await trio.sleep(3)
        await peer.serve()

    async with by_hand.open_channel(fence=False) as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        await channel.send("x" * 200_000)
        nursery.start_soon(serve)

        assert await channel.drain() is True
        assert 3 == trio.current_time()
        assert [] == peer.pings
        assert 1 == len(peer.messages)


# --- S1.4, the rate of sending -------------------------------------------------------------------


async def test_s1_4_a_rate_of_sending_is_kept_and_the_heartbeat_lives(
    autojump_clock, by_hand, nursery, recorder
):
    heard_at = []

    async def serve(heard):
        while await heard.listen():
            if len(heard.messages) > len(heard_at):
                heard_at.append(trio.current_time())
            else:
                await heard.pong()

    async with by_hand.open_channel(
        observers=[recorder],
        heartbeat=EVERY_5,
        rate=SendRate(messages=10, seconds=10),
        fence_interval=1e6,
        fence_every=10**6,
    ) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(serve, peer)
        receipts = [await channel.send(str(number)) for number in range(200)]
        await receipts[-1].received()

        # A tenth is left to pings, so nine go at once; then a message a second, but for the pings.
        assert [0] * 9 == [at for at in heard_at if at == 0]
        pings = len(peer.pings)

        assert 200 + pings <= 10 + trio.current_time() + 1
        assert math.floor(trio.current_time() / 5) == pings
        for start in heard_at[9:]:
            assert len([at for at in heard_at if start <= at < start + 10]) <= 11
        assert all(late - early < 3 for early, late in itertools.pairwise(heard_at))
        assert [str(number) for number in range(200)] == peer.messages
    assert [] == recorder.of(ConnectionLost)


async def test_s1_4_fences_count_towards_the_rate(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(
        rate=SendRate(messages=10, seconds=10), fence_interval=0, fence_every=1
    ) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        for number in range(200):
            await channel.send(str(number))
        await trio.sleep(90)

        assert len(peer.messages) + len(peer.pings) <= 10 + 90
        assert 40 <= len(peer.messages)
        await channel.aclose()


async def test_s1_4_a_rate_delays_nothing_below_it(autojump_clock, network):
    rate = DeliveryOptions(rate=SendRate(messages=10, seconds=10))
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, delivery=rate, observers=()) as channel,
    ):
        await channel.wait_ready()
        for number in range(20):
            began = trio.current_time()
            await channel.send(str(number))
            await server.wait_messages(number + 1)

            assert began == trio.current_time()
            await trio.sleep(2.5)
