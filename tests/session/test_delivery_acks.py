"""Acknowledgements, through a whole channel: at least once, and effectively once with the id."""

from __future__ import annotations

import json
import re

import pytest
import trio
import trio.testing

import wsclient
from wsclient.errors import DeliveryError
from wsclient.events import (
    ChannelState,
    ConnectionLost,
    DeadLetter,
    Delivery,
    HandlerFailed,
    InboxOverflowed,
    MessageQuarantined,
    Outcome,
    Truth,
)
from wsclient.options import (
    ConnectionOptions,
    DeliveryOptions,
    Limits,
    OverflowPolicy,
    RetryPolicy,
)
from wsclient.testing import NONE, Fault, FaultServer

AT_ONCE = RetryPolicy(wait=lambda _: 0)
SMALL_READS = ConnectionOptions(receive_buffer_size=64)
JSON = DeliveryOptions(
    acknowledgement=wsclient.JsonAcknowledgement(nack_field="nack", redelivered_field="again")
)


async def settle_down():
    await trio.testing.wait_all_tasks_blocked()


# --- what an acknowledgement does ----------------------------------------------------------------


async def test_s1_acked_is_acknowledged_by_the_id_that_it_carries(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        receipts = [await channel.send("same", delivery=Delivery.ACKED) for _ in range(20)]
        await peer.hear(20)

        assert [f"same#{receipt.id}" for receipt in receipts] == peer.messages
        assert 20 == len({receipt.id for receipt in receipts})
        assert all(re.fullmatch("[0-9a-f]{16}", receipt.id) for receipt in receipts)
        # In any order.
        for message in reversed(peer.messages):
            await peer.acknowledge(message)
            await settle_down()
        # No pong has come: the acknowledgement says enough.
        assert {Outcome.ACKED: 20} == channel.statistics().outcomes
        assert {Truth.CERTAIN} == {receipt.truth for receipt in receipts}
        assert 0 == channel.statistics().outbox_messages


async def test_s1_1_nack_is_rejected(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        receipt = await channel.send("message", delivery=Delivery.ACKED)
        await peer.hear(1)
        await peer.say(f"nack {receipt.id}")
        with pytest.raises(DeliveryError) as caught:
            await receipt.acked()

        assert (Outcome.REJECTED, Truth.UNKNOWN) == (caught.value.outcome, caught.value.truth)
        peer.die()
        second = await by_hand.accept()
        await channel.send("last")

        # It is over: it does not go again.
        assert ["last"] == await second.hear(1)
        nursery.start_soon(second.serve)


async def test_late_and_repeated_acknowledgements_change_nothing(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        receipt = await channel.send("message", delivery=Delivery.ACKED)
        rejected = await channel.send("message", delivery=Delivery.ACKED)
        await peer.hear(2)
        for word in ("ack", "ack", "nack"):
            await peer.say(f"{word} {receipt.id}")
        for word in ("nack", "ack"):
            await peer.say(f"{word} {rejected.id}")
        await peer.say("news")

        assert "news" == await channel.receive()
        assert (Outcome.ACKED, Outcome.REJECTED) == (receipt.outcome, rejected.outcome)
        assert {Outcome.ACKED: 1, Outcome.REJECTED: 1} == channel.statistics().outcomes
        assert 1 == channel.epoch
        nursery.start_soon(peer.serve)


async def test_an_acknowledgement_of_what_waits_to_go_again_is_enough(
    autojump_clock, by_hand, nursery
):
    """It comes while the hook is at work, before anything may be written."""

    async def hook(connection):
        await trio.sleep(1)

    async with by_hand.open_channel(on_connect=hook) as channel:
        first = await by_hand.accept()
        receipts = [await channel.send(str(number), delivery=Delivery.ACKED) for number in range(3)]
        await first.hear(3)
        first.die()
        second = await by_hand.accept()
        await second.acknowledge(first.messages[0])
        await second.acknowledge(first.messages[2])
        await channel.wait_ready()
        await second.hear(1)
        await settle_down()

        assert [Outcome.ACKED, None, Outcome.ACKED] == [receipt.outcome for receipt in receipts]
        assert [f"1#{receipts[1].id}!"] == second.messages
        nursery.start_soon(second.serve)
        await second.acknowledge(second.messages[0])


async def test_s1_1_out_of_attempts_is_lost_unknown(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(max_attempts=2) as channel:
        receipt = await channel.send("message", delivery=Delivery.ACKED)
        for _ in range(2):
            peer = await by_hand.accept()
            await peer.hear(1)

            assert None is receipt.outcome
            peer.die()
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)

        assert Outcome.LOST_UNKNOWN is await receipt.wait()
        await channel.send("last")
        await channel.flush()

        assert ["last"] == peer.messages


async def test_s1_acked_is_effectively_once_where_the_server_drops_repeated_ids(
    autojump_clock, network
):
    done = {}

    async def work(connection):
        async for message in connection:
            order = json.loads(message)
            if order["id"] not in done:
                done[order["id"]] = order["number"]
            else:
                assert order["again"] is True
            await connection.send(json.dumps({"ack": order["id"]}))

    story = [Fault.reset(after_messages=count) for count in (3, 1, 8, 1, 5)]
    async with (
        FaultServer([*story, NONE], network=network, handler=work) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, delivery=JSON, observers=()) as channel,
    ):
        receipts = []
        for number in range(40):
            message = json.dumps({"number": number})
            receipts.append(await channel.send(message, delivery=Delivery.ACKED))
            await trio.sleep(0.01)
        for receipt in receipts:
            await receipt.acked()
    assert list(range(40)) == list(done.values())
    assert len(server.messages) > 40


# --- S2.6, whom an acknowledgement reaches -------------------------------------------------------


async def test_s2_6_acknowledgements_never_reach_receivers(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        receipts = [await channel.send(str(number), delivery=Delivery.ACKED) for number in range(8)]
        await peer.hear(8)
        for number, message in enumerate(peer.messages):
            await peer.acknowledge(message)
            await peer.say(f"news {number}")
        await settle_down()
        received = [channel.receive_nowait(), await channel.receive(), await anext(channel)]
        received.append(await anext(channel.items()))
        received += await channel.receive_many()

        assert [f"news {number}" for number in range(8)] == received
        assert 8 == channel.statistics().messages_received
        assert {Outcome.ACKED} == {receipt.outcome for receipt in receipts}
        # A batch of nothing else wakes nobody.
        last = await channel.send("last", delivery=Delivery.ACKED)
        await peer.hear(9)
        with trio.move_on_after(5) as scope:
            nursery.start_soon(peer.acknowledge, peer.messages[-1])
            await channel.receive_many()

        assert (True, Outcome.ACKED) == (scope.cancelled_caught, last.outcome)


async def test_s2_6_what_names_an_id_that_was_never_given_is_received(
    autojump_clock, by_hand, nursery
):
    # A server may use the same field for its own ids, and nobody else would ever see the message.
    async with by_hand.open_channel() as channel:
        peer = await by_hand.accept()
        receipt = await channel.send("message", delivery=Delivery.ACKED)
        await peer.hear(1)
        await peer.say("ack 0123456789abcdef")
        await peer.acknowledge(peer.messages[0])
        await peer.acknowledge(peer.messages[0])
        await peer.say("nack of all things")

        assert ["ack 0123456789abcdef", "nack of all things"] == [
            await channel.receive(),
            await channel.receive(),
        ]
        assert Outcome.ACKED is receipt.outcome
        nursery.start_soon(peer.serve)


@pytest.mark.parametrize("wait", ["acked", "wait", "received"])
async def test_s2_6_an_acknowledgement_comes_though_the_inbox_is_full(
    autojump_clock, by_hand, nursery, wait
):
    async def talk(heard):
        for number in range(10_000):
            await heard.say(f"{number:050}")
        await heard.hear(1)
        await heard.acknowledge(heard.messages[0])

    async with by_hand.open_channel(
        limits=Limits(inbox_messages=1), connection=SMALL_READS
    ) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(talk, peer)
        received = []
        async for message in channel:
            received.append(int(message))
            if len(received) == 1:
                await settle_down()
                receipt = await channel.send("message", delivery=Delivery.ACKED)
                await getattr(receipt, wait)()

                assert Outcome.ACKED is receipt.outcome
            if len(received) == 10_000:
                break
        assert list(range(10_000)) == received


@pytest.mark.parametrize("policy", [OverflowPolicy.DROP_OLDEST, OverflowPolicy.DROP_NEWEST])
async def test_s2_6_an_acknowledgement_is_never_dropped_and_takes_no_room(
    autojump_clock, by_hand, recorder, policy
):
    async with by_hand.open_channel(
        limits=Limits(inbox_messages=1, inbox_overflow=policy), observers=[recorder]
    ) as channel:
        peer = await by_hand.accept()
        await peer.say("news")
        receipts = [await channel.send(str(number), delivery=Delivery.ACKED) for number in range(8)]
        await peer.hear(8)
        for message in peer.messages:
            await peer.acknowledge(message)
        await settle_down()

        assert {Outcome.ACKED} == {receipt.outcome for receipt in receipts}
        assert 0 == channel.statistics().messages_dropped
        assert "news" == await channel.receive()
    assert [] == recorder.of(InboxOverflowed)


# --- strategies that fail ------------------------------------------------------------------------


class Fragile:
    """A strategy that does what it is told to."""

    def __init__(self, good):
        self._good = good
        self.mark_fails = self.mark_again_fails = self.recognise_fails = False

    def mark(self, message, key, *, redelivered):
        if self.mark_again_fails if redelivered else self.mark_fails:
            raise LookupError("no mark")
        return self._good.mark(message, key, redelivered=redelivered)

    def recognise(self, message):
        if self.recognise_fails:
            raise LookupError("no idea")
        return self._good.recognise(message)


@pytest.fixture
def fragile(by_hand):
    by_hand.acknowledgement = Fragile(by_hand.acknowledgement)
    return by_hand.acknowledgement


async def test_s1_a_mark_that_fails_is_the_senders_to_know(
    autojump_clock, by_hand, fragile, nursery
):
    fragile.mark_fails = True
    async with by_hand.open_channel() as channel:
        with pytest.raises(LookupError, match="no mark"):
            await channel.send("message", delivery=Delivery.ACKED)
        with pytest.raises(LookupError, match="no mark"):
            channel.send_nowait("message", delivery=Delivery.ACKED)
        # Others need none.
        queued = await channel.send("message")
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        await queued.received()

        assert 1 == channel.statistics().messages_accepted


async def test_a_mark_that_fails_when_the_message_goes_again_is_told_and_holds_up_nothing(
    autojump_clock, by_hand, fragile, nursery, recorder
):
    letters = []
    async with by_hand.open_channel(observers=[recorder], dead_letter=letters.append) as channel:
        first = await by_hand.accept()
        receipt = await channel.send("fails", delivery=Delivery.ACKED)
        await first.hear(1)
        fragile.mark_again_fails = True
        first.die()
        await channel.wait_state(ChannelState.WAITING)
        after = await channel.send("after", delivery=Delivery.ACKED)
        second = await by_hand.accept()
        nursery.start_soon(second.serve)
        await after.acked()

        assert [f"after#{after.id}"] == second.messages
        assert (Outcome.QUARANTINED, Truth.UNKNOWN) == (receipt.outcome, receipt.truth)
        assert [receipt.id] == [event.id for event in recorder.of(MessageQuarantined)]
        cause = "marking it as redelivered raised LookupError"

        assert [DeadLetter(message="fails", id=receipt.id, attempts=1, cause=cause)] == letters


async def test_what_cannot_be_recognised_is_told_and_received(
    autojump_clock, by_hand, fragile, nursery, recorder
):
    async with by_hand.open_channel(observers=[recorder]) as channel:
        peer = await by_hand.accept()
        receipt = await channel.send("message", delivery=Delivery.ACKED)
        await peer.hear(1)
        fragile.recognise_fails = True
        await peer.acknowledge(peer.messages[0])

        assert f"ack {receipt.id}" == await channel.receive()
        failed = recorder.of(HandlerFailed)

        assert [("Fragile", "acknowledgement")] == [(f.handler, f.subject) for f in failed]
        assert isinstance(failed[0].error, LookupError)
        fragile.recognise_fails = False
        await peer.acknowledge(peer.messages[0])
        await receipt.acked()
    assert [] == recorder.of(ConnectionLost)


@pytest.mark.parametrize(
    "recognise", [lambda _: True, lambda _: "0123456789abcdef", lambda _: wsclient.Ack(5)]
)
async def test_a_recognition_that_is_no_ack_is_told_and_its_message_received(
    autojump_clock, by_hand, recorder, recognise
):
    by_hand.acknowledgement = wsclient.FunctionAcknowledgement(
        lambda message, key, again: message, recognise
    )
    async with by_hand.open_channel(observers=[recorder]) as channel:
        peer = await by_hand.accept()
        await peer.say("news")

        assert "news" == await channel.receive()
        assert [TypeError] == [type(event.error) for event in recorder.of(HandlerFailed)]
    assert [] == recorder.of(ConnectionLost)
