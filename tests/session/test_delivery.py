"""What becomes of a message, through a whole channel (S1): the table, the order, taking back.

Fences, acknowledgements, poison and the bounds have files of their own beside this one.
"""

from __future__ import annotations

import functools
import json
import random

import pytest
import tenacity
import trio
import trio.testing

import wsclient
from wsclient.errors import DeliveryError, NotConnected, SendUnknown
from wsclient.events import (
    ChannelState,
    ConnectionLost,
    Delivery,
    Outcome,
    StateChanged,
    Truth,
)
from wsclient.options import DeliveryOptions, Limits, RetryPolicy
from wsclient.testing import (
    NONE,
    REFUSE,
    Fault,
    FaultServer,
    memory_network,
)

AT_ONCE = RetryPolicy(wait=tenacity.wait_none())
LARGE = "x" * 200_000
"""More than the network holds, so that a part of it is written and the rest waits."""

ONE_AT_MOST = Limits(outbox_messages=1)


async def settle_down():
    await trio.testing.wait_all_tasks_blocked()


# --- S1.7, when a connection dies: cell by cell --------------------------------------------------


@pytest.mark.parametrize("delivery", [Delivery.QUEUED, Delivery.ACKED])
async def test_s1_7_a_caller_that_waits_for_room_keeps_waiting(
    autojump_clock, by_hand, nursery, said, delivery
):
    accepted = []

    async def send():
        accepted.append(await channel.send("waits", delivery=delivery))

    async with by_hand.open_channel(limits=ONE_AT_MOST) as channel:
        first = await by_hand.accept()
        await channel.send("acked", delivery=Delivery.ACKED)
        await first.hear(1)
        nursery.start_soon(send)
        await settle_down()
        first.die()
        second = await by_hand.accept()
        await settle_down()

        assert [] == accepted
        await second.hear(1)
        await second.acknowledge(second.messages[0])
        await second.hear(2)

        assert ["acked", "waits"] == said(second.messages)
        assert 1 == len(accepted)
        nursery.start_soon(second.serve)


@pytest.mark.parametrize("delivery", [Delivery.QUEUED, Delivery.ACKED])
async def test_s1_7_accepted_and_not_written_is_kept(
    autojump_clock, by_hand, nursery, said, delivery
):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        kept = await channel.send("kept", delivery=delivery)
        await settle_down()
        first.die()
        second = await by_hand.accept()
        nursery.start_soon(second.serve)
        await kept.received()

        assert ["kept"] == said(second.messages)
        # Not "kept#id!": it is no repetition.
        assert not second.messages[0].endswith("!")


async def test_s1_7_direct_accepted_and_not_written_is_not_connected(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        later = channel.send_nowait("not written", delivery=Delivery.DIRECT)
        nursery.start_soon(_die_later, first)
        with pytest.raises(NotConnected) as caught:
            await channel.send("never", delivery=Delivery.DIRECT)

        assert Truth.CERTAINLY_NOT is caught.value.truth
        assert (Outcome.CANCELLED, Truth.CERTAINLY_NOT) == (later.outcome, later.truth)
        second = await by_hand.accept()
        await channel.send("last")

        assert ["last"] == await second.hear(1)
        nursery.start_soon(second.serve)


async def _die_later(heard):
    await settle_down()
    heard.die()


async def test_s1_7_direct_written_in_part_raises_send_unknown(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        nursery.start_soon(_die_later, first)
        with pytest.raises(SendUnknown) as caught:
            await channel.send(LARGE, delivery=Delivery.DIRECT)

        assert (Outcome.LOST_UNKNOWN, Truth.UNKNOWN) == (caught.value.outcome, caught.value.truth)
        second = await by_hand.accept()
        await channel.send("last")

        assert ["last"] == await second.hear(1)
        nursery.start_soon(second.serve)


async def test_s1_7_queued_written_in_part_is_lost_unknown(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        receipt = await channel.send(LARGE)
        await settle_down()
        first.die()
        second = await by_hand.accept()
        await channel.send("last")

        assert ["last"] == await second.hear(1)
        assert (Outcome.LOST_UNKNOWN, Truth.UNKNOWN) == (receipt.outcome, receipt.truth)
        nursery.start_soon(second.serve)


async def test_s1_7_acked_written_in_part_goes_again_at_the_head_with_the_same_id(
    autojump_clock, by_hand, nursery, said
):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        receipt = await channel.send(LARGE, delivery=Delivery.ACKED)
        await settle_down()
        first.die()
        await channel.send("newer")
        second = await by_hand.accept()
        await second.hear(2)

        assert [LARGE, "newer"] == said(second.messages)
        assert f"{LARGE}#{receipt.id}!" == second.messages[0]
        nursery.start_soon(second.serve)
        await second.acknowledge(second.messages[0])
        await receipt.acked()


@pytest.mark.parametrize("delivery", [Delivery.DIRECT, Delivery.QUEUED])
async def test_s1_7_direct_and_queued_written_and_not_fenced_are_lost_unknown(
    autojump_clock, by_hand, nursery, delivery
):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        receipt = await channel.send("read", delivery=delivery)
        await first.hear(1)
        first.die()

        # The peer has read it; nobody has told us so.
        assert Outcome.LOST_UNKNOWN is await receipt.wait()
        assert Truth.UNKNOWN is receipt.truth
        second = await by_hand.accept()
        await channel.send("last")

        assert ["last"] == await second.hear(1)
        nursery.start_soon(second.serve)


async def test_s1_7_queued_written_and_not_fenced_goes_again_where_that_is_asked_for(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel(resend_unknown=True) as channel:
        first = await by_hand.accept()
        fenced = await channel.send("fenced")
        await first.hear_pings(1)
        await first.pong()
        await fenced.received()
        receipts = [await channel.send(message) for message in ("one", "two")]
        await first.hear(3)
        first.die()
        second = await by_hand.accept()
        nursery.start_soon(second.serve)

        assert [Outcome.RECEIVED] * 2 == [await receipt.wait() for receipt in receipts]
        assert ["one", "two"] == second.messages


async def test_s1_7_acked_written_and_not_fenced_goes_again_in_order(
    autojump_clock, by_hand, nursery, said
):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        receipts = [await channel.send(str(n), delivery=Delivery.ACKED) for n in range(5)]
        await first.hear(5)
        await first.acknowledge(first.messages[2])
        await receipts[2].acked()
        first.die()
        await channel.send("newer", delivery=Delivery.ACKED)
        second = await by_hand.accept()
        nursery.start_soon(second.serve)
        for receipt in receipts:
            await receipt.acked()

        assert ["0", "1", "3", "4", "newer"] == said(second.messages)
        again = [f"{n}#{receipts[n].id}!" for n in (0, 1, 3, 4)]

        assert again == second.messages[:4]


@pytest.mark.parametrize("delivery", [Delivery.DIRECT, Delivery.QUEUED])
async def test_s1_7_direct_and_queued_written_and_fenced_are_received(
    autojump_clock, by_hand, nursery, delivery
):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        receipt = await channel.send("read", delivery=delivery)
        await first.hear_pings(1)
        await first.pong()
        await settle_down()
        first.die()
        second = await by_hand.accept()
        await channel.send("last")

        assert ["last"] == await second.hear(1)
        assert (Outcome.RECEIVED, Truth.CERTAIN) == (receipt.outcome, receipt.truth)
        nursery.start_soon(second.serve)


async def test_s1_7_acked_written_and_fenced_goes_again(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel() as channel:
        first = await by_hand.accept()
        receipt = await channel.send("read", delivery=Delivery.ACKED)
        await first.hear_pings(1)
        await first.pong()
        await receipt.received()

        # A fence is no acknowledgement.
        assert (None, Truth.CERTAIN) == (receipt.outcome, receipt.truth)
        first.die()
        second = await by_hand.accept()

        assert [f"read#{receipt.id}!"] == await second.hear(1)
        nursery.start_soon(second.serve)
        await second.acknowledge(second.messages[0])

        assert Outcome.ACKED is await receipt.wait()


# --- S1.1, outcomes and truth --------------------------------------------------------------------


async def test_s1_1_a_receipt_says_how_far_its_message_has_come(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel() as channel:
        receipt = await channel.send("message")

        assert (None, Truth.CERTAINLY_NOT) == (receipt.outcome, receipt.truth)
        peer = await by_hand.accept()
        await peer.hear(1)

        assert (None, Truth.UNKNOWN) == (receipt.outcome, receipt.truth)
        await peer.hear_pings(1)
        await peer.pong()
        await receipt.received()

        assert (Outcome.RECEIVED, Truth.CERTAIN) == (receipt.outcome, receipt.truth)


async def test_s1_1_what_the_end_leaves_is_cancelled_or_lost_unknown(autojump_clock, by_hand):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        read = await channel.send("read")
        acked = await channel.send("acked", delivery=Delivery.ACKED)
        await peer.hear(2)
        cut = await channel.send(LARGE)
        unwritten = await channel.send("unwritten", delivery=Delivery.ACKED)
        await settle_down()
        await channel.aclose()
    left = [(receipt.outcome, receipt.truth) for receipt in (read, acked, cut, unwritten)]

    assert [
        (Outcome.LOST_UNKNOWN, Truth.UNKNOWN),
        (Outcome.LOST_UNKNOWN, Truth.UNKNOWN),
        (Outcome.LOST_UNKNOWN, Truth.UNKNOWN),
        (Outcome.CANCELLED, Truth.CERTAINLY_NOT),
    ] == left


async def test_s1_1_received_and_acked_raise_where_that_cannot_come(autojump_clock, by_hand):
    async with by_hand.open_channel() as channel:
        receipt = await channel.send("never", delivery=Delivery.ACKED)
        queued = await channel.send("never")
        await channel.aclose()
    with pytest.raises(DeliveryError) as received:
        await receipt.received()
    with pytest.raises(DeliveryError) as acked:
        await receipt.acked()

    for caught in (received, acked):
        assert Outcome.CANCELLED is caught.value.outcome
        assert Truth.CERTAINLY_NOT is caught.value.truth
    with pytest.raises(ValueError, match="is not acknowledged"):
        await queued.acked()


# --- S1.3, sending and taking back ---------------------------------------------------------------


@pytest.mark.parametrize("delivery", [Delivery.QUEUED, Delivery.ACKED])
def test_s1_3_cancelled_at_any_step_a_message_is_sent_or_never_will_be(
    cancel_at_every_step, delivery
):
    """Lossless: what was returned arrives, and what was not returned does not."""
    options = DeliveryOptions(acknowledgement=wsclient.JsonAcknowledgement())

    async def scenario(cancellation):
        with memory_network() as network:
            async with (
                FaultServer([REFUSE, NONE], network=network) as server,
                wsclient.open_channel(
                    server.url, limits=ONE_AT_MOST, delivery=options, retry=AT_ONCE, observers=()
                ) as channel,
            ):
                await channel.send('"before"')
                returned = None
                with cancellation.scope:
                    returned = await channel.send('{"op": 1}', delivery=delivery)
                if returned is None:
                    await trio.sleep(30)
                else:
                    await returned.received()
                await channel.aclose()
                heard = [message for message in server.messages if "op" in message]

                assert (returned is not None) == len(heard)

    assert cancel_at_every_step(scenario) > 10


async def test_s1_3_a_cancelled_caller_sends_nothing_though_there_is_room(autojump_clock, by_hand):
    async with by_hand.open_channel() as channel:
        for delivery in Delivery:
            with trio.CancelScope() as scope:
                scope.cancel()
                await channel.send("never", delivery=delivery)

            assert scope.cancelled_caught
        assert 0 == channel.statistics().messages_accepted


@pytest.mark.parametrize("wait", ["wait", "received", "acked"])
async def test_s1_3_waiting_for_an_outcome_can_be_cancelled_and_unsends_nothing(
    autojump_clock, by_hand, nursery, wait
):
    async with by_hand.open_channel() as channel:
        receipt = await channel.send("message", delivery=Delivery.ACKED)
        with trio.move_on_after(1) as scope:
            await getattr(receipt, wait)()

        assert scope.cancelled_caught
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await receipt.acked()


async def test_s1_3_a_message_is_taken_back_before_its_first_byte_and_not_after(
    autojump_clock, by_hand, nursery, said
):
    async with by_hand.open_channel() as channel:
        unwritten = await channel.send("unwritten", delivery=Delivery.ACKED)

        assert (True, True) == (unwritten.cancel(), unwritten.cancel())
        assert (Outcome.CANCELLED, Truth.CERTAINLY_NOT) == (unwritten.outcome, unwritten.truth)
        first = await by_hand.accept()
        acked = await channel.send("acked", delivery=Delivery.ACKED)
        written = await channel.send("written")
        await first.hear(2)

        assert (False, False) == (acked.cancel(), written.cancel())
        await first.hear_pings(1)
        await first.pong()
        await acked.received()

        assert (False, False) == (acked.cancel(), written.cancel())
        cut = await channel.send(LARGE, delivery=Delivery.ACKED)
        behind = await channel.send("behind")
        await settle_down()

        assert (False, True) == (cut.cancel(), behind.cancel())
        first.die()
        await channel.wait_state(ChannelState.CONNECTING)
        await settle_down()

        # These wait to go again: a byte of them was written before.
        assert (False, False) == (acked.cancel(), cut.cancel())
        second = await by_hand.accept()
        nursery.start_soon(second.serve)
        await cut.acked()

        assert (False, Outcome.ACKED) == (cut.cancel(), cut.outcome)
        assert ["acked", LARGE] == said(second.messages)


@pytest.mark.parametrize("delivery", list(Delivery))
async def test_send_nowait_promises_the_same_of_each_delivery(
    autojump_clock, by_hand, nursery, delivery
):
    outcomes = {Delivery.ACKED: Outcome.ACKED}
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        receipt = channel.send_nowait("message", delivery=delivery)
        nursery.start_soon(peer.serve)

        assert outcomes.get(delivery, Outcome.RECEIVED) is await receipt.wait()
        assert delivery is receipt.delivery
        assert (delivery is Delivery.ACKED) == (receipt.id is not None)


@pytest.mark.parametrize("delivery", list(Delivery))
async def test_a_draining_channel_refuses_each_delivery(autojump_clock, by_hand, nursery, delivery):
    async with by_hand.open_channel() as channel:
        await by_hand.accept()
        await channel.send("owed")
        nursery.start_soon(channel.drain)
        await channel.wait_state(ChannelState.DRAINING)
        with pytest.raises(trio.ClosedResourceError):
            channel.send_nowait("late", delivery=delivery)
        with pytest.raises(trio.ClosedResourceError):
            await channel.send("late", delivery=delivery)


async def test_acked_without_a_strategy_is_a_mistake_at_the_call(autojump_clock, network):
    async with wsclient.open_channel("ws://hand.test", observers=()) as channel:
        with pytest.raises(ValueError, match="how messages are acknowledged"):
            await channel.send("message", delivery=Delivery.ACKED)


# --- S1.8, DIRECT --------------------------------------------------------------------------------


async def test_s1_8_direct_without_a_connection_is_not_connected_at_once(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel() as channel:
        for _ in range(2):
            began = trio.current_time()
            with pytest.raises(NotConnected) as caught:
                await channel.send("never", delivery=Delivery.DIRECT)
            with pytest.raises(NotConnected):
                channel.send_nowait("never", delivery=Delivery.DIRECT)

            assert (None, Truth.CERTAINLY_NOT) == (caught.value.outcome, caught.value.truth)
            assert began == trio.current_time()
            peer = await by_hand.accept()
            await channel.wait_ready()
            await channel.send("now", delivery=Delivery.DIRECT)
            peer.die()
            await channel.wait_state(ChannelState.WAITING)
        assert 2 == channel.statistics().messages_accepted
        peer = await by_hand.accept()
        await channel.send("last")

        assert ["last"] == await peer.hear(1)
        nursery.start_soon(peer.serve)


async def test_s1_8_direct_returns_when_its_last_byte_was_handed_over(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        nursery.start_soon(_hear_after, 5, peer)
        receipt = await channel.send(LARGE, delivery=Delivery.DIRECT)

        assert (5, None, Truth.UNKNOWN) == (trio.current_time(), receipt.outcome, receipt.truth)
        nursery.start_soon(peer.serve)
        await receipt.received()


async def _hear_after(seconds, heard):
    await trio.sleep(seconds)
    await heard.hear(1)


async def test_s1_8_direct_goes_behind_what_waits_and_needs_no_room(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel(limits=ONE_AT_MOST) as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        nursery.start_soon(channel.send, "waits for room")
        await settle_down()
        direct = channel.send_nowait("direct", delivery=Delivery.DIRECT)
        nursery.start_soon(functools.partial(channel.send, "two", delivery=Delivery.DIRECT))
        await settle_down()
        with pytest.raises(trio.WouldBlock):
            channel.send_nowait("queued")
        await peer.hear(4)

        assert [LARGE, "direct", "two", "waits for room"] == peer.messages
        nursery.start_soon(peer.serve)
        await direct.received()


async def test_s1_8_direct_cancelled_before_its_first_byte_is_gone(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_after, 3, scope)
            await channel.send("gone", delivery=Delivery.DIRECT)

        assert scope.cancelled_caught
        assert 3 == trio.current_time()
        await channel.send("last")

        assert [LARGE, "last"] == await peer.hear(2)
        assert 1 == channel.epoch
        nursery.start_soon(peer.serve)


async def _cancel_after(seconds, scope):
    await trio.sleep(seconds)
    scope.cancel()


async def test_s1_8_direct_whose_callers_time_is_over_before_its_first_byte_is_gone(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        # The deadline is its time to live, too: chance decides which of the two is noticed first.
        for _ in range(20):
            with trio.move_on_after(3) as scope:
                await channel.send("gone", delivery=Delivery.DIRECT)

            assert scope.cancelled_caught
        await channel.send("last")

        assert [LARGE, "last"] == await peer.hear(2)
        nursery.start_soon(peer.serve)


async def test_s1_8_direct_that_has_to_wait_longer_than_it_may_live_is_an_error(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        with pytest.raises(DeliveryError) as caught:
            await channel.send("gone", delivery=Delivery.DIRECT, ttl=3)

        assert 3 == trio.current_time()
        assert Outcome.EXPIRED is caught.value.outcome
        assert Truth.CERTAINLY_NOT is caught.value.truth
        await channel.send("last")

        assert [LARGE, "last"] == await peer.hear(2)
        nursery.start_soon(peer.serve)


async def test_s1_8_direct_cancelled_after_its_first_byte_is_written_all_the_same(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        nursery.start_soon(_hear_after, 3.5, peer)
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_after, 3, scope)
            receipt = await channel.send(LARGE, delivery=Delivery.DIRECT)

        assert 3.5 == trio.current_time()
        await settle_down()

        assert [LARGE] == peer.messages
        nursery.start_soon(peer.serve)
        await receipt.received()

        assert 1 == channel.epoch


async def test_s1_8_direct_that_cannot_be_finished_within_a_second_ends_the_connection(
    autojump_clock, by_hand, nursery
):
    async with by_hand.open_channel() as channel:
        await by_hand.accept()
        await channel.wait_ready()
        with pytest.raises(SendUnknown) as caught, trio.CancelScope() as scope:
            nursery.start_soon(_cancel_after, 3, scope)
            await channel.send(LARGE, delivery=Delivery.DIRECT)

        assert 4 == trio.current_time()
        assert Truth.UNKNOWN is caught.value.truth
        peer = await by_hand.accept()
        await channel.send("last")

        assert ["last"] == await peer.hear(1)
        assert 2 == channel.epoch
        nursery.start_soon(peer.serve)


def test_s1_8_direct_cancelled_at_any_step_is_written_whole_or_not_at_all(cancel_at_every_step):
    async def scenario(cancellation):
        with memory_network(buffer_size=1000) as network:
            async with (
                FaultServer(network=network) as server,
                wsclient.open_channel(server.url, observers=()) as channel,
            ):
                await channel.wait_ready()
                await channel.send("x" * 5000)
                returned = None
                with cancellation.scope:
                    returned = await channel.send("y" * 5000, delivery=Delivery.DIRECT)
                await channel.send("z")
                await channel.flush()

                heard = "".join(message[0] for message in server.messages)

                assert ("xz" if returned is None else "xyz") == heard
                assert 1 == channel.epoch
                await channel.aclose()

    assert cancel_at_every_step(scenario) > 5


# --- order ---------------------------------------------------------------------------------------


async def test_i6_no_newer_message_overtakes_a_replay(autojump_clock, by_hand, nursery, said):
    sent = []

    async with by_hand.open_channel() as channel:

        async def send(count):
            for _ in range(count):
                message = str(len(sent))
                sent.append(message)
                await channel.send(message, delivery=Delivery.ACKED)

        await send(3)
        # A third loss would make suspects of them (S1.6).
        for _ in range(2):
            peer = await by_hand.accept()
            await peer.hear(1)
            await send(3)
            await peer.hear(len(sent))

            assert sent == said(peer.messages)
            peer.die()
            await channel.wait_state(ChannelState.WAITING)
            await send(2)
        peer = await by_hand.accept()
        await peer.hear(len(sent))

        assert sent == said(peer.messages)
        again = [message.endswith("!") for message in peer.messages]

        # Those of the last outage are new.
        assert [True] * (len(sent) - 2) + [False] * 2 == again
        for message in peer.messages:
            await peer.acknowledge(message)
        nursery.start_soon(peer.serve)


async def test_i6_deliveries_of_all_kinds_go_in_one_order(autojump_clock, by_hand, nursery, said):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        await channel.send(LARGE)
        for number in range(12):
            delivery = list(Delivery)[number % 3]
            channel.send_nowait(str(number), delivery=delivery)
        await peer.hear(13)

        assert [LARGE, *map(str, range(12))] == said(peer.messages)
        await peer.acknowledge(peer.messages[3])
        for message in peer.messages[1:]:
            if "#" in message:
                await peer.acknowledge(message)
        nursery.start_soon(peer.serve)


# --- sending from within -------------------------------------------------------------------------


async def test_an_observer_may_send_and_what_it_sends_is_kept(autojump_clock, by_hand, nursery):
    receipts = []
    is_told = False

    def observe(event):
        if is_told and isinstance(event, (ConnectionLost, StateChanged)):
            receipts.append(channel.send_nowait(type(event).__name__))

    async with by_hand.open_channel(observers=[observe]) as channel:
        first = await by_hand.accept()
        await channel.wait_ready()
        is_told = True
        first.die()
        second = await by_hand.accept()
        await second.hear(5)
        is_told = False

        # WAITING, CONNECTING, ESTABLISHING, READY.
        assert ["ConnectionLost", *["StateChanged"] * 4] == second.messages
        nursery.start_soon(second.serve)
        for receipt in receipts:
            await receipt.received()


async def test_s1_8_direct_sent_by_an_observer_of_the_loss_has_no_connection(
    autojump_clock, network
):
    caught = []

    def observe(event):
        if isinstance(event, ConnectionLost):
            try:
                channel.send_nowait("direct", delivery=Delivery.DIRECT)
            except NotConnected as error:
                caught.append(error.truth)

    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=[observe]) as channel,
    ):
        await server.wait_connections(2)
        receipt = await channel.send("last")
        await receipt.received()
    assert [Truth.CERTAINLY_NOT] == caught
    assert ["last"] == server.messages


# --- at the mercy of chance ----------------------------------------------------------------------


class Cuts:
    """One channel under random cuts: the server goes away at any byte, again and again."""

    def __init__(self, seed, deliveries):
        self.chance = random.Random(seed)
        self.deliveries = deliveries
        self.receipts = {}

    async def send(self, channel):
        for number in range(30):
            size = self.chance.choice([0, 10, 3_000, 60_000])
            message = f'{{"number": {number}, "fill": "{"x" * size}"}}'
            delivery = self.chance.choice(self.deliveries)
            try:
                self.receipts[number] = channel.send_nowait(message, delivery=delivery)
            except NotConnected:
                continue
            except trio.WouldBlock:
                self.receipts[number] = await channel.send(message, delivery=delivery)
            if self.chance.random() < 0.1:
                self.receipts[number].cancel()
            await trio.sleep(self.chance.choice([0, 0, 0.01, 0.3]))

    async def cut(self, server):
        while True:
            await trio.sleep(self.chance.choice([0.01, 0.1, 0.5, 1]) * self.chance.random())
            await server.stop()
            if self.chance.random() < 0.5:
                await trio.sleep(self.chance.random())
            await server.start()

    async def acknowledge(self, connection):
        async for message in connection:
            order = json.loads(message)
            if "id" in order and self.chance.random() < 0.8:
                await trio.sleep(self.chance.choice([0, 0, 0.1]))
                await connection.send(json.dumps({"ack": order["id"]}))

    async def run(self):
        chance = self.chance
        slow = [Fault.slow_reads(chance.choice([10_000, 100_000, 1_000_000])) for _ in range(5)]
        options = DeliveryOptions(
            fence_interval=chance.choice([0, 0.05, 1]),
            acknowledgement=wsclient.JsonAcknowledgement(redelivered_field="again"),
        )
        with memory_network(buffer_size=chance.choice([100, 5_000, 64 * 1024])) as network:
            async with (
                FaultServer([*slow, NONE], network=network, handler=self.acknowledge) as server,
                wsclient.open_channel(
                    server.url,
                    retry=RetryPolicy(wait=tenacity.wait_fixed(0.05)),
                    limits=Limits(outbox_messages=chance.choice([1, 5, 1024])),
                    delivery=options,
                    observers=(),
                ) as channel,
            ):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.cut, server)
                    with trio.move_on_after(20):
                        await self.send(channel)
                    await trio.sleep(1)
                    nursery.cancel_scope.cancel()
                await server.start()
                await channel.drain(60)
                self.check(server, channel)

    def check(self, server, channel):
        orders = [json.loads(m) for visit in server.connections for m in visit.messages]
        heard = [order["number"] for order in orders]
        first_heard = list(dict.fromkeys(heard))
        truths = {number: receipt.truth for number, receipt in self.receipts.items()}

        assert None not in {receipt.outcome for receipt in self.receipts.values()}, "I1"
        statistics = channel.statistics()

        assert statistics.messages_accepted == sum(statistics.outcomes.values()), "I1"
        certain = {number for number in truths if truths[number] is Truth.CERTAIN}

        assert certain <= set(heard), "I2"
        not_sent = set(range(30)) - {n for n in truths if truths[n] is not Truth.CERTAINLY_NOT}

        assert set() == not_sent & set(heard), "I3"
        once = [order["number"] for order in orders if "id" not in order]

        assert len(set(once)) == len(once), "I4: never twice"
        repeated = [order["number"] for order in orders if "again" in order]

        assert len(heard) - len(first_heard) <= len(repeated), "I5: what comes again says so"
        assert sorted(first_heard) == first_heard, "I6: in order"
        assert {None} == {visit.violation for visit in server.connections}, "I13"


@pytest.mark.parametrize("seed", range(200))
def test_i4_whatever_is_cut_a_queued_message_is_never_heard_twice(run_on_virtual_time, seed):
    random.seed(seed)
    run_on_virtual_time(Cuts(seed, [Delivery.QUEUED, Delivery.QUEUED, Delivery.DIRECT]).run)


@pytest.mark.parametrize("seed", range(100))
def test_i6_whatever_is_cut_repetitions_say_so_and_nothing_is_overtaken(run_on_virtual_time, seed):
    random.seed(seed)
    run_on_virtual_time(Cuts(seed, list(Delivery)).run)
