"""What an outbox holds at most (S1.4), and for how long (S1.5), through a whole channel."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from wsclient.errors import OutboxFull
from wsclient.events import ChannelState, Delivery, OutboxOverflowed, Outcome, Truth
from wsclient.options import Limits, OverflowPolicy, SendRate

THREE = Limits(outbox_messages=3)
LARGE = "x" * 200_000
"""More than the network holds."""


async def settle_down():
    await trio.testing.wait_all_tasks_blocked()


# --- S1.4, overflow ------------------------------------------------------------------------------


async def test_s1_4_error_tells_the_sender_and_accepts_nothing(
    autojump_clock, by_hand, nursery, recorder
):
    async with by_hand.open_channel(
        limits=THREE, overflow=OverflowPolicy.ERROR, observers=[recorder]
    ) as channel:
        receipts = [await channel.send(str(number)) for number in range(3)]
        with pytest.raises(OutboxFull):
            await channel.send("never")
        with pytest.raises(OutboxFull):
            channel.send_nowait("never")

        assert 3 == channel.statistics().messages_accepted
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await receipts[-1].received()
        await channel.send("3")
        await channel.flush()

        assert ["0", "1", "2", "3"] == peer.messages
    assert [] == recorder.of(OutboxOverflowed)


async def test_s1_4_drop_oldest_makes_room_and_never_silently(
    autojump_clock, by_hand, nursery, recorder
):
    async with by_hand.open_channel(
        limits=THREE, overflow=OverflowPolicy.DROP_OLDEST, observers=[recorder]
    ) as channel:
        receipts = [await channel.send(str(number)) for number in range(5)]
        receipts += [channel.send_nowait(str(number)) for number in range(5, 10)]

        assert [Outcome.DROPPED] * 7 + [None] * 3 == [receipt.outcome for receipt in receipts]
        assert {Truth.CERTAINLY_NOT} == {receipt.truth for receipt in receipts}
        assert [1] == [event.dropped for event in recorder.of(OutboxOverflowed)]
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await channel.send("10")

        # It is over when what waited has gone, and somebody sends again.
        assert [1] == [event.dropped for event in recorder.of(OutboxOverflowed)]
        await channel.flush()
        await channel.send("11")

        assert [1, 8] == [event.dropped for event in recorder.of(OutboxOverflowed)]
        await channel.flush()

        assert ["8", "9", "10", "11"] == peer.messages
        assert {Outcome.DROPPED: 8, Outcome.RECEIVED: 4} == channel.statistics().outcomes


async def test_s1_4_drop_newest_keeps_what_waits(autojump_clock, by_hand, nursery, recorder):
    async with by_hand.open_channel(
        limits=THREE, overflow=OverflowPolicy.DROP_NEWEST, observers=[recorder]
    ) as channel:
        receipts = [await channel.send(str(number)) for number in range(10)]

        assert [None] * 3 + [Outcome.DROPPED] * 7 == [receipt.outcome for receipt in receipts]
        assert Truth.CERTAINLY_NOT is receipts[-1].truth
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await channel.flush()
        await channel.send("10")
        await channel.flush()

        assert ["0", "1", "2", "10"] == peer.messages
        assert [1, 7] == [event.dropped for event in recorder.of(OutboxOverflowed)]


async def test_s1_4_conflate_replaces_what_waits_with_the_same_key(
    autojump_clock, by_hand, nursery, recorder
):
    async with by_hand.open_channel(
        limits=THREE, overflow=OverflowPolicy.CONFLATE, observers=[recorder]
    ) as channel:
        plain = await channel.send("plain")
        old = await channel.send("a1", key="a")
        await channel.send("b1", key="b")
        for number in range(2, 10):
            await channel.send(f"a{number}", key="a")

        assert (Outcome.DROPPED, None) == (old.outcome, plain.outcome)
        with pytest.raises(trio.WouldBlock):
            channel.send_nowait("c1", key="c")
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await channel.flush()
        await channel.send("a10", key="a")
        await channel.flush()

        assert ["plain", "b1", "a9", "a10"] == peer.messages
        assert [1, 8] == [event.dropped for event in recorder.of(OutboxOverflowed)]


async def test_s1_4_a_key_replaces_nothing_of_which_a_byte_was_written(
    autojump_clock, by_hand, nursery, said
):
    async with by_hand.open_channel(overflow=OverflowPolicy.CONFLATE) as channel:
        first = await by_hand.accept()
        await channel.send("a1", key="a", delivery=Delivery.ACKED)
        await first.hear(1)
        await channel.send(LARGE, key="large")
        await channel.send("a2", key="a", delivery=Delivery.ACKED)
        await channel.send("a3", key="a", delivery=Delivery.ACKED)
        await settle_down()
        first.die()
        await channel.wait_state(ChannelState.WAITING)
        await channel.send("a4", key="a", delivery=Delivery.ACKED)
        second = await by_hand.accept()
        nursery.start_soon(second.serve)
        await channel.flush()

        assert ["a1", "a4"] == said(second.messages)


async def test_s1_4_a_direct_message_replaces_nothing_that_was_to_be_kept(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel(overflow=OverflowPolicy.CONFLATE) as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        kept = await channel.send("kept", key="key")
        direct = channel.send_nowait("direct", delivery=Delivery.DIRECT, key="key")
        await settle_down()
        first.die()
        second = await by_hand.accept()
        nursery.start_soon(second.serve)
        await kept.received()

        assert (["kept"], Outcome.CANCELLED) == (second.messages, direct.outcome)


@pytest.mark.parametrize("policy", list(OverflowPolicy))
async def test_s1_4_what_is_unacknowledged_counts_and_is_never_dropped(
    autojump_clock, by_hand, nursery, said, policy
):
    async with by_hand.open_channel(limits=THREE, overflow=policy) as channel:

        async def overflow():
            if policy is OverflowPolicy.ERROR:
                with pytest.raises(OutboxFull):
                    channel.send_nowait("more", key="key")
            elif policy is OverflowPolicy.DROP_NEWEST:
                assert Outcome.DROPPED is channel.send_nowait("more", key="key").outcome
            else:
                with pytest.raises(trio.WouldBlock):
                    channel.send_nowait("more", key="key")

        first = await by_hand.accept()
        receipts = [
            await channel.send(
                str(number), delivery=Delivery.ACKED, key="key" if number == 2 else None
            )
            for number in range(3)
        ]
        await first.hear(3)
        await overflow()
        first.die()
        await channel.wait_state(ChannelState.WAITING)
        await overflow()

        assert [None] * 3 == [receipt.outcome for receipt in receipts]
        second = await by_hand.accept()
        nursery.start_soon(second.serve)
        for receipt in receipts:
            await receipt.acked()
        await channel.send("room")
        await channel.flush()

        assert ["0", "1", "2", "room"] == said(second.messages)


async def test_s1_4_drop_oldest_drops_nothing_where_that_makes_no_room(
    autojump_clock, by_hand, nursery, recorder
):
    async with by_hand.open_channel(
        limits=Limits(outbox_size=250_000),
        overflow=OverflowPolicy.DROP_OLDEST,
        observers=[recorder],
    ) as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        waiting = await channel.send("waiting")
        await settle_down()
        with pytest.raises(trio.WouldBlock):
            channel.send_nowait(LARGE)

        assert None is waiting.outcome
        nursery.start_soon(channel.send, LARGE)
        await settle_down()
        with pytest.raises(trio.WouldBlock):
            channel.send_nowait("behind the one that waits")

        assert None is waiting.outcome
        nursery.start_soon(peer.serve)
        await waiting.received()
    assert [] == recorder.of(OutboxOverflowed)


async def test_s1_4_an_observer_may_send_when_it_is_told_of_an_overflow(autojump_clock, by_hand):
    told = []

    def observe(event):
        if isinstance(event, OutboxOverflowed):
            told.append(event.dropped)
            if len(told) == 1:
                channel.send_nowait("overflow!")

    async with by_hand.open_channel(
        limits=THREE, overflow=OverflowPolicy.DROP_OLDEST, observers=[observe]
    ) as channel:
        for number in range(4):
            await channel.send(str(number))

        assert {Outcome.DROPPED: 2} == channel.statistics().outcomes
        peer = await by_hand.accept()
        await peer.hear(3)
        await channel.send("last")

        assert [1, 2] == told
        assert ["2", "3", "overflow!", "last"] == await peer.hear(4)
        await channel.aclose()


async def test_s1_4_bytes_are_bounded_as_they_are_written(autojump_clock, by_hand):
    """With the id in it, and in UTF-8."""
    async with by_hand.open_channel(
        limits=Limits(outbox_size=100), overflow=OverflowPolicy.ERROR
    ) as channel:
        await channel.send("\N{EURO SIGN}" * 10, delivery=Delivery.ACKED)

        assert 30 + 1 + 16 == channel.statistics().outbox_size
        with pytest.raises(OutboxFull):
            await channel.send("x" * 54)
        await channel.send("x" * 53)
        await channel.aclose()


# --- S1.5, time to live --------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", [Delivery.QUEUED, Delivery.ACKED])
async def test_s1_5_an_order_whose_caller_gave_up_is_not_sent_after_the_outage(
    autojump_clock, by_hand, nursery, delivery
):
    async with by_hand.open_channel() as channel:
        with trio.move_on_after(5) as scope:
            receipt = await channel.send("order", delivery=delivery)
            await receipt.wait()

        assert scope.cancelled_caught
        await settle_down()

        assert (Outcome.EXPIRED, Truth.CERTAINLY_NOT) == (receipt.outcome, receipt.truth)
        assert 5 == trio.current_time()
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await channel.send("last")
        await channel.flush()

        assert ["last"] == peer.messages


async def test_s1_5_the_deadline_is_read_at_acceptance_and_bounds_the_first_write_alone(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel(fence_interval=8) as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        with trio.move_on_after(5) as scope:
            receipt = await channel.send("order")
            acked = await channel.send("order", delivery=Delivery.ACKED)
            scope.deadline = math.inf
        await trio.sleep(10)
        nursery.start_soon(peer.serve)

        # Written in time: what comes later is an answer.
        assert Outcome.RECEIVED is await receipt.wait()
        assert Outcome.ACKED is await acked.wait()


@pytest.mark.parametrize("shield", [False, True])
async def test_s1_5_infinite_means_none_and_so_does_no_deadline(
    autojump_clock, by_hand, nursery, shield
):
    async with by_hand.open_channel() as channel:
        with trio.move_on_after(5):
            await channel.send("infinite", ttl=math.inf)
            with trio.CancelScope(shield=shield):
                await channel.send("shielded")
        await channel.send("no deadline")
        await trio.sleep(3600)
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await channel.flush()

        assert ["infinite", *["shielded"] * shield, "no deadline"] == peer.messages


async def test_s1_5_each_message_expires_at_its_own_time(autojump_clock, by_hand):
    ended = {}

    async def watch(ttl, receipt):
        ended[ttl] = (await receipt.wait(), trio.current_time())

    async with by_hand.open_channel() as channel, trio.open_nursery() as nursery:
        for ttl in (7, 3, 5.5, 3.25):
            nursery.start_soon(watch, ttl, await channel.send("message", ttl=ttl))
    assert {ttl: (Outcome.EXPIRED, ttl) for ttl in (7, 3, 5.5, 3.25)} == ended


async def test_s1_5_time_goes_on_while_a_sender_waits_for_room(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(limits=Limits(outbox_messages=1)) as channel:
        await channel.send("first", ttl=4)
        receipt = await channel.send("second", ttl=6)

        assert 4 == trio.current_time()
        assert Outcome.EXPIRED is await receipt.wait()
        assert 6 == trio.current_time()


async def test_s1_5_for_acked_every_write_is_bounded(autojump_clock, by_hand, nursery, said):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        short = await channel.send("short", delivery=Delivery.ACKED, ttl=5)
        long = await channel.send("long", delivery=Delivery.ACKED, ttl=15)
        await first.hear(2)
        first.die()
        await trio.sleep(10)

        # A byte of it was written once.
        assert (Outcome.EXPIRED, Truth.UNKNOWN) == (short.outcome, short.truth)
        second = await by_hand.accept()
        await second.hear(1)
        await second.say(f"ack {short.id}")
        await trio.sleep(10)

        assert None is long.outcome
        nursery.start_soon(second.serve)
        await second.acknowledge(second.messages[0])
        await long.acked()

        assert Outcome.EXPIRED is short.outcome
        assert ["long"] == said(second.messages)


async def test_s1_5_a_message_that_waits_for_its_turn_expires_too(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(rate=SendRate(messages=1, seconds=10), fence=False) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await channel.send("first")
        old = await channel.send("old", ttl=9)
        young = await channel.send("young", ttl=11)

        assert Outcome.WRITTEN is await young.wait()
        assert Outcome.EXPIRED is old.outcome
        await settle_down()

        assert ["first", "young"] == peer.messages


@pytest.mark.parametrize(
    ("ttl", "error"),
    [("5", TypeError), (True, TypeError), (-1, ValueError), (math.nan, ValueError)],
)
async def test_a_time_to_live_that_cannot_be_is_refused_at_the_call(
    autojump_clock, by_hand, ttl, error
):
    async with by_hand.open_channel() as channel:
        with pytest.raises(error, match="ttl"):
            await channel.send("message", ttl=ttl)
        with pytest.raises(TypeError, match="key"):
            await channel.send("message", key=5)

        assert 0 == channel.statistics().messages_accepted
