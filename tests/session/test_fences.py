"""Fences: when the peer is asked, what its answers prove, and what their absence says."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from wsclient.connection import attach, forget_ping
from wsclient.events import Delivery, Outcome
from wsclient.options import DeliveryOptions, Limits
from wsclient.session._acks import FunctionAcknowledgement
from wsclient.session._fences import Fences
from wsclient.session._inbox import Inbox
from wsclient.session._outbox import Outbox
from wsclient.session._tap import Tap

TEXT, PING, PONG = 1, 9, 10
MARKS = FunctionAcknowledgement(lambda message, *_: message, lambda _: None)


class Life:
    """A connection with its fences, and a peer that notes when which frame came.

    Attributes:
        heard: ``(seconds, "message")`` or ``(seconds, "?")`` for a ping.
        pings: What the pings carried.
        answers: Whether the peer answers pings.
        lifted: Told when fences were lifted, and of how many messages.
        is_leaving: Whether the channel wants its outcomes at once.
    """

    def __init__(self, connection, peer, outbox, inbox):
        self.connection, self.peer, self.outbox, self.inbox = connection, peer, outbox, inbox
        self.heard, self.pings, self.answers = [], [], True
        self.lifted, self.is_leaving = [], False
        self.tap = Tap(outbox, is_fenced=outbox.options.fence, begun=lambda: self.fences.begun())
        self.fences = Fences(
            connection,
            self.tap,
            outbox.options,
            is_leaving=lambda: self.is_leaving,
            lifted=lambda messages: self.lifted.append((trio.current_time(), messages)),
            resume=lambda: self.flush(),
        )
        self.flush = attach(connection, inbox, self.tap)

    def send(self, *messages, delivery=Delivery.QUEUED):
        offers = [self.outbox.offer(message, delivery, math.inf, None) for message in messages]
        receipts = [self.outbox.accept_nowait(offer).receipt for offer in offers]
        self.flush()
        return receipts

    async def read(self):
        while (frame := await self.peer.receive_frame()) is not None:
            opcode, payload = frame
            if opcode != PING:
                self.heard.append((trio.current_time(), payload.decode()))
                continue
            self.heard.append((trio.current_time(), "?"))
            self.pings.append(payload)
            if self.answers:
                await self.peer.send_frame(PONG, payload)

    async def answer(self, payload):
        await self.peer.send_frame(PONG, payload)
        await trio.testing.wait_all_tasks_blocked()

    async def fill(self):
        """Say so much that nothing more is read."""
        await self.say(*"abcd")

    def take(self):
        """Take all that was received."""
        with suppress(trio.WouldBlock):
            while True:
                self.inbox.take_nowait()

    async def say(self, *texts):
        for text in texts:
            await self.peer.send_frame(TEXT, text.encode())
        await trio.testing.wait_all_tasks_blocked()

    async def talk(self, seconds):
        """Say something every second."""
        for _ in range(seconds):
            await trio.sleep(1)
            await self.say("news")

    @property
    def asked_at(self):
        return [at for at, what in self.heard if what == "?"]


@pytest.fixture
def live(connected):
    @asynccontextmanager
    async def live(*, outbox=None, streams=None, answers=True, inbox_messages=1024, **options):
        if outbox is None:
            outbox = Outbox(Limits(), DeliveryOptions(acknowledgement=MARKS, **options))
        inbox = Inbox(Limits(inbox_messages=inbox_messages))
        async with connected(streams=streams) as (connection, peer), trio.open_nursery() as nursery:
            life = Life(connection, peer, outbox, inbox)
            life.answers = answers
            if streams is None:
                nursery.start_soon(life.read)
            nursery.start_soon(life.fences.run)
            await trio.testing.wait_all_tasks_blocked()
            yield life
            nursery.cancel_scope.cancel()

    return live


def outcomes(receipts):
    return [receipt.outcome for receipt in receipts]


async def test_s1_2_a_pong_proves_also_when_the_heartbeat_waits_for_it_no_more(
    autojump_clock, live
):
    async with live(fence_interval=5, answers=False) as life:
        receipts = life.send("a")
        await trio.testing.wait_all_tasks_blocked()
        ping = life.fences.ping()
        await trio.testing.wait_all_tasks_blocked()
        # Some other byte was sign of life enough.
        forget_ping(life.connection, ping)
        await trio.sleep(30)
        await life.answer(life.pings[0])

        assert [0] == life.asked_at
        assert [Outcome.RECEIVED] == outcomes(receipts)


async def test_s1_2_an_answer_that_is_read_as_soon_as_there_is_room_counts(
    autojump_clock, live, frame
):
    async with live(fence_interval=1, fence_timeout=10, inbox_messages=2, answers=False) as life:
        life.send("a")
        await trio.sleep(2)
        # One read brings so much that it is decoded in parts.
        await life.peer.send(frame(TEXT) * 20_000 + frame(PONG, life.pings[0]))
        await trio.sleep(100)
        for _ in range(50):
            life.take()
            await trio.sleep(1)
            await life.say("news")

        assert [] == life.lifted


async def test_s1_2_a_pong_that_comes_after_the_fences_were_lifted_begins_nothing(
    autojump_clock, live
):
    async with live(fence_every=1, fence_timeout=10, answers=False) as life:
        for text in "abc":
            life.send(text)
            await trio.testing.wait_all_tasks_blocked()
        await life.talk(20)

        assert [(10, 3)] == life.lifted
        await life.answer(life.pings[0])
        life.fences.hurry()
        await life.talk(100)

        assert [(10, 3)] == life.lifted


async def test_s1_2_a_ping_that_is_written_after_the_fences_were_lifted_begins_nothing(
    autojump_clock, live
):
    streams = trio.testing.lockstep_stream_pair()
    async with live(streams=streams, fence_every=1, fence_timeout=10) as life:
        life.send("a")
        frames = [await life.peer.receive_frame() for _ in range(2)]
        # It waits behind a message that the peer does not take.
        life.send("x" * 1_000_000)
        await life.talk(20)

        assert [(10, 1)] == life.lifted
        frames += [await life.peer.receive_frame() for _ in range(2)]

        assert [TEXT, PING, TEXT, PING] == [opcode for opcode, _ in frames]
        await life.talk(100)

        assert [(10, 1)] == life.lifted


@pytest.fixture
def poisoned():
    """An outbox with two suspects."""

    def poisoned(**options):
        outbox = Outbox(Limits(), DeliveryOptions(acknowledgement=MARKS, **options))
        offers = [outbox.offer(text, Delivery.ACKED, math.inf, None) for text in "ab"]
        receipts = [outbox.accept_nowait(offer).receipt for offer in offers]
        tap = Tap(outbox, is_fenced=outbox.options.fence)
        while (entry := tap.pull()) is not None:
            entry.written()
        tap.close(1009)
        return outbox, receipts

    return poisoned
