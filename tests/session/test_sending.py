"""How messages go out on one connection: drawn, proven, paced, and told about."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import wsclient
from wsclient.events import (
    DeadLetter,
    Delivery,
    FencesLifted,
    HandlerFailed,
    MessageQuarantined,
    Outcome,
)
from wsclient.options import DeliveryOptions, HeartbeatOptions, Limits, SendRate
from wsclient.session._acks import FunctionAcknowledgement
from wsclient.session._inbox import Inbox
from wsclient.session._outbox import Outbox
from wsclient.session._rate import Bucket
from wsclient.session._sending import Sending
from wsclient.testing import NONE, Fault, FaultServer

PING, PONG = 9, 10
MARKS = FunctionAcknowledgement(lambda message, *_: message, lambda _: None)


def make_outbox(**options):
    return Outbox(Limits(), DeliveryOptions(**{"acknowledgement": MARKS, **options}))


def accept(outbox, *messages, delivery=Delivery.QUEUED):
    offers = [outbox.offer(message, delivery) for message in messages]
    return [outbox.accept_nowait(offer) for offer in offers]


class Life:
    """A connection on which messages go out, and a peer that notes when they come.

    Attributes:
        heard: ``(seconds, message)``, or ``(seconds, "?")`` for a ping.
        answers: Whether the peer answers pings.
        told: The events.
    """

    def __init__(self, connection, peer, outbox, bucket):
        self.peer, self.outbox = peer, outbox
        self.heard, self.answers, self.told = [], True, []
        self.sending = Sending(
            connection, outbox, bucket, channel="news", epoch=7, observe=self.told.append
        )

    def send(self, *messages, delivery=Delivery.QUEUED):
        receipts = accept(self.outbox, *messages, delivery=delivery)
        self.sending.wake()
        return receipts

    async def read(self):
        while (frame := await self.peer.receive_frame()) is not None:
            opcode, payload = frame
            self.heard.append((trio.current_time(), "?" if opcode == PING else payload.decode()))
            if opcode == PING and self.answers:
                await self.peer.send_frame(PONG, payload)

    @property
    def messages(self):
        return [what for _, what in self.heard if what != "?"]

    @property
    def sent_at(self):
        return [at for at, what in self.heard if what != "?"]


@pytest.fixture
def live(connected):
    @asynccontextmanager
    async def live(outbox=None, bucket=None, *, answers=True, **options):
        outbox = outbox or make_outbox(**options)
        if bucket is None and outbox.options.rate is not None:
            bucket = Bucket(outbox.options.rate)
        async with connected() as (connection, peer), trio.open_nursery() as nursery:
            life = Life(connection, peer, outbox, bucket)
            life.answers = answers
            nursery.start_soon(life.read)
            nursery.start_soon(life.sending.run)
            life.sending.begin(Inbox(Limits()))
            await trio.testing.wait_all_tasks_blocked()
            yield life
            nursery.cancel_scope.cancel()

    return live


@pytest.fixture
def poisoned():
    """An outbox with messages whose connection died of one of them."""

    def poisoned(*messages, **options):
        outbox = make_outbox(**options)
        receipts = accept(outbox, *messages, delivery=Delivery.ACKED)
        sending = Sending(None, outbox, None, channel="news", epoch=6, observe=[].append)
        while (entry := sending._tap.pull()) is not None:
            entry.written()
        sending.close(1009)
        return outbox, receipts

    return poisoned


# --- what goes out ------------------------------------------------------------------------------


async def test_s1_2_what_waits_when_a_connection_begins_goes_out_and_what_comes_after(
    autojump_clock, live
):
    outbox = make_outbox()
    receipts = accept(outbox, "a", "b")
    async with live(outbox) as life:
        receipts += life.send("c")
        await trio.sleep(2)

        assert ["a", "b", "c"] == life.messages
        assert [Outcome.RECEIVED] * 3 == [receipt.outcome for receipt in receipts]


async def test_what_is_in_flight_has_receipts_until_it_is_proven(autojump_clock, live):
    async with live(fence_interval=5) as life:
        receipts = life.send("a", "b")
        await trio.testing.wait_all_tasks_blocked()

        assert receipts == life.sending.receipts()
        life.outbox.hurried = 1
        life.sending.hurry()
        await trio.testing.wait_all_tasks_blocked()

        assert [] == life.sending.receipts()
        assert [(0, "a"), (0, "b"), (0, "?")] == life.heard


async def test_who_leaves_is_told_at_once_what_arrived(autojump_clock, live):
    async with live(fence_interval=5) as life:
        receipts = life.send("a")
        await trio.testing.wait_all_tasks_blocked()
        life.outbox.refuse(trio.ClosedResourceError)
        life.sending.hurry()
        await trio.testing.wait_all_tasks_blocked()

        assert Outcome.RECEIVED is receipts[0].outcome


async def test_s1_2_a_ping_of_the_heartbeat_is_a_fence(autojump_clock, live):
    async with live(fence_interval=5) as life:
        receipts = life.send("a")
        await trio.testing.wait_all_tasks_blocked()
        life.sending.ping()
        await trio.sleep(1)

        assert Outcome.RECEIVED is receipts[0].outcome


async def test_s1_7_after_its_end_a_connection_draws_nothing(autojump_clock, live):
    async with live(fence_interval=5) as life:
        receipts = life.send("a")
        await trio.testing.wait_all_tasks_blocked()
        life.sending.close(1006)
        receipts += life.send("b")
        life.sending.acknowledged()
        life.sending.close()
        await trio.sleep(10)

        assert ["a"] == life.messages
        assert [Outcome.LOST_UNKNOWN, None] == [receipt.outcome for receipt in receipts]


# --- how fast -----------------------------------------------------------------------------------


async def test_s1_4_messages_go_as_fast_as_is_allowed_and_no_faster(autojump_clock, live):
    rate = SendRate(messages=4, seconds=2, reserve=0)
    async with live(rate=rate, fence=False) as life:
        life.send(*"abcdefg")
        await trio.sleep(10)

        assert [0, 0, 0, 0, 0.5, 1, 1.5] == life.sent_at
        life.send(*"hijkl")
        await trio.sleep(10)

        assert [10, 10, 10, 10, 10.5] == life.sent_at[7:]
        assert list("abcdefghijkl") == life.messages


async def test_s1_4_the_pings_that_fence_count_too(autojump_clock, live):
    rate = SendRate(messages=10, seconds=10, reserve=0)
    async with live(rate=rate, fence_interval=1) as life:
        life.send(*map(str, range(100)))
        await trio.sleep(60)

    # What goes at once, and one in each second: pings and messages together.
    assert pytest.approx(10 + 60, abs=2) == len(life.heard)
    assert len(life.messages) < 50


async def test_s1_4_a_ping_goes_at_once_and_messages_wait_for_it(autojump_clock, live):
    rate = SendRate(messages=2, seconds=2, reserve=0)
    async with live(rate=rate, fence=False) as life:
        life.send(*"abc")
        await trio.sleep(0.5)
        life.sending.ping()
        await trio.sleep(10)

        assert [(0, "a"), (0, "b"), (0.5, "?"), (2, "c")] == life.heard


@pytest.mark.parametrize("reserve", [0, 0.1, 0.9])
async def test_s1_4_one_message_in_a_period_goes_whatever_is_reserved(
    autojump_clock, live, reserve
):
    rate = SendRate(messages=1, seconds=60, reserve=reserve)
    async with live(rate=rate, fence=False) as life:
        life.send(*"abc")
        await trio.sleep(200)

        assert pytest.approx([0, 60, 120]) == life.sent_at


async def test_s1_4_the_rate_is_the_channels_and_not_each_connections(autojump_clock, live):
    bucket = Bucket(SendRate(messages=2, seconds=2, reserve=0))
    outbox = make_outbox(fence=False)
    async with live(outbox, bucket) as life:
        life.send(*"abcd")
        await trio.testing.wait_all_tasks_blocked()
        life.sending.close(1006)

        assert ["a", "b"] == life.messages
    async with live(outbox, bucket) as life:
        await trio.sleep(10)

        assert [(1, "c"), (2, "d")] == life.heard


async def test_s1_4_heartbeats_do_not_silence_a_channel_that_may_send_little(
    autojump_clock, network
):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=HeartbeatOptions(interval=20, jitter=0),
            delivery=DeliveryOptions(rate=SendRate(messages=1, seconds=60)),
            observers=(),
        ) as channel,
    ):
        for number in range(4):
            await channel.send(str(number))
        await trio.sleep(600)

        assert ["0", "1", "2", "3"] == server.messages


# --- poison -------------------------------------------------------------------------------------


async def test_s1_6_suspects_go_one_at_a_time_each_as_soon_as_the_last_is_proven(
    autojump_clock, live, poisoned
):
    outbox, _ = poisoned("a", "b", fence_interval=5)
    async with live(outbox) as life:
        life.send("c")
        await trio.sleep(1)

        assert [(0, "a"), (0, "?"), (0, "b"), (0, "?"), (0, "c")] == life.heard


@pytest.mark.parametrize("fence", [True, False])
@pytest.mark.parametrize("accepted", [True, False])
async def test_s1_6_the_peers_word_on_a_suspect_lets_the_next_go(
    autojump_clock, live, poisoned, fence, accepted
):
    outbox, receipts = poisoned("a", "b", fence=fence)
    async with live(outbox, answers=False) as life:
        life.sending.acknowledged()
        await trio.testing.wait_all_tasks_blocked()

        assert ["a"] == life.messages
        outbox.acknowledge(receipts[0].id, accepted=accepted)
        life.sending.acknowledged()
        await trio.testing.wait_all_tasks_blocked()

        assert ["a", "b"] == life.messages


async def test_s1_6_a_quarantined_message_is_told_of_and_handed_on(autojump_clock, live, poisoned):
    letters = []
    marks = FunctionAcknowledgement(lambda message, *_: f"{message} with its id", lambda _: None)
    outbox, receipts = poisoned("a", "b", dead_letter=letters.append, acknowledgement=marks)
    async with live(outbox, answers=False) as life:
        await trio.testing.wait_all_tasks_blocked()
        life.sending.close(1009)

        cause = "2 connections in a row ended with it in flight, the last one alone"
        assert [
            MessageQuarantined(channel="news", id=receipts[0].id, attempts=2, cause=cause)
        ] == life.told
        assert [DeadLetter(message="a", id=receipts[0].id, attempts=2, cause=cause)] == letters
        assert [Outcome.QUARANTINED, None] == [receipt.outcome for receipt in receipts]


async def test_s1_6_a_quarantined_message_is_told_of_where_nobody_wants_it(
    autojump_clock, live, poisoned
):
    outbox, receipts = poisoned("a")
    async with live(outbox, answers=False) as life:
        life.sending.close(1009)

        assert [MessageQuarantined] == [type(event) for event in life.told]
        assert Outcome.QUARANTINED is receipts[0].outcome


class Undertaker:
    def __call__(self, letter):
        raise RuntimeError("no")


def bury(letter):
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("hook", "name"), [(bury, "bury"), (Undertaker(), "Undertaker")], ids=["function", "object"]
)
async def test_s1_6_a_hook_that_raises_is_reported_and_stops_nothing(
    autojump_clock, live, poisoned, hook, name
):
    outbox, receipts = poisoned("a", dead_letter=hook)
    async with live(outbox, answers=False) as life:
        life.sending.close(1009)

        failed = life.told[1]
        assert isinstance(failed, HandlerFailed)
        assert (name, "dead letter") == (failed.handler, failed.subject)
        assert isinstance(failed.error, RuntimeError)
        assert Outcome.QUARANTINED is receipts[0].outcome


async def test_s1_6_leaving_while_a_suspect_is_on_trial_quarantines_nothing(
    autojump_clock, network, recorder
):
    story = [Fault.reset(after_messages=1)] * 3 + [NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(
            server.url,
            delivery=DeliveryOptions(acknowledgement=MARKS, fence=False),
            observers=[recorder],
        ) as channel,
    ):
        receipt = await channel.send("a", delivery=Delivery.ACKED)
        await server.wait_messages(4)
        await channel.aclose()

        assert Outcome.LOST_UNKNOWN is receipt.outcome
        assert [] == recorder.of(MessageQuarantined)


async def test_s1_6_a_message_that_cannot_be_marked_again_is_told_of(
    autojump_clock, network, recorder
):
    def mark(message, key, redelivered):
        if redelivered:
            raise ValueError("a secret")
        return message

    letters = []
    async with (
        FaultServer([Fault.reset(after_messages=1), NONE], network=network) as server,
        wsclient.open_channel(
            server.url,
            delivery=DeliveryOptions(
                acknowledgement=FunctionAcknowledgement(mark, lambda _: None),
                dead_letter=letters.append,
            ),
            observers=[recorder],
        ) as channel,
    ):
        receipt = await channel.send("a", delivery=Delivery.ACKED)

        assert Outcome.QUARANTINED is await receipt.wait()
        told = await recorder.wait_for(MessageQuarantined)

        assert "marking it as redelivered raised ValueError" == told.cause
        assert ["a"] == [letter.message for letter in letters]


# --- what is told -------------------------------------------------------------------------------


async def test_s1_2_lifted_fences_are_told(autojump_clock, live):
    async with live(fence_interval=1, fence_timeout=10, answers=False) as life:
        life.send("a", "b")
        for _ in range(20):
            await trio.sleep(1)
            await life.peer.send_frame(1, b"news")

        assert [FencesLifted(channel="news", epoch=7, messages=2)] == life.told
