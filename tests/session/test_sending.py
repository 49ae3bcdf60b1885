"""How messages go out on one connection: drawn, proven, paced, and told about."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from wsclient.events import (
    Delivery,
)
from wsclient.options import DeliveryOptions, Limits, SendRate
from wsclient.session._acks import FunctionAcknowledgement
from wsclient.session._inbox import Inbox
from wsclient.session._outbox import Outbox
from wsclient.session._rate import Bucket
from wsclient.session._sending import Sending

PING, PONG = 9, 10
MARKS = FunctionAcknowledgement(lambda message, *_: message, lambda _: None)


def make_outbox(**options):
    return Outbox(Limits(), DeliveryOptions(**{"acknowledgement": MARKS, **options}))


def accept(outbox, *messages, delivery=Delivery.QUEUED):
    offers = [outbox.offer(message, delivery, math.inf, None) for message in messages]
    return [outbox.accept_nowait(offer).receipt for offer in offers]


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


async def test_s1_4_the_pings_that_fence_count_too(autojump_clock, live):
    rate = SendRate(messages=10, seconds=10, reserve=0)
    async with live(rate=rate, fence_interval=1) as life:
        life.send(*map(str, range(100)))
        await trio.sleep(60)

    # What goes at once, and one in each second: pings and messages together.
    assert pytest.approx(10 + 60, abs=2) == len(life.heard)
    assert len(life.messages) < 50


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


class Undertaker:
    def __call__(self, letter):
        raise RuntimeError("no")


def bury(letter):
    raise RuntimeError("no")
