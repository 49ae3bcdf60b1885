"""Fences: when the peer is asked, what its answers prove, and what their absence says."""

from __future__ import annotations

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
        self.tap = Tap(outbox, is_fenced=outbox.options.fence)
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
        offers = [self.outbox.offer(message, delivery) for message in messages]
        receipts = [self.outbox.accept_nowait(offer) for offer in offers]
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


# --- when the peer is asked ---------------------------------------------------------------------


async def test_s1_2_the_peer_is_asked_an_interval_after_the_first_message_that_was_not_followed(
    autojump_clock, live
):
    async with live(fence_interval=2) as life:
        life.send("a")
        await trio.sleep(1.5)
        receipts = life.send("b")
        await trio.sleep(10)

        assert [(0, "a"), (1.5, "b"), (2, "?")] == life.heard
        assert [Outcome.RECEIVED] == outcomes(receipts)
        life.send("c")
        await trio.sleep(10)

        assert [2, 13.5] == life.asked_at


async def test_s1_2_the_peer_is_asked_at_once_after_so_many_messages(autojump_clock, live):
    async with live(fence_every=3, fence_interval=5) as life:
        life.send("a", "b")
        await trio.sleep(1)

        assert [] == life.asked_at
        life.send("c")
        await trio.testing.wait_all_tasks_blocked()

        assert [1] == life.asked_at
        life.send("d")
        await trio.sleep(10)

        # It counts, and waits, from there.
        assert [1, 6] == life.asked_at


async def test_s1_2_where_nothing_was_written_nothing_is_asked(autojump_clock, live):
    async with live(fence_interval=0) as life:
        await trio.sleep(100)

        assert [] == life.heard
        life.send("a")
        await trio.sleep(100)

        assert [(100, "a"), (100, "?")] == life.heard


async def test_s1_2_a_ping_of_the_heartbeat_is_a_fence(autojump_clock, live):
    async with live(fence_interval=5) as life:
        receipts = life.send("a")
        await trio.sleep(1)
        life.fences.ping()
        await trio.sleep(20)

        assert [1] == life.asked_at
        assert [Outcome.RECEIVED] == outcomes(receipts)


async def test_who_leaves_is_told_at_once_what_arrived(autojump_clock, live):
    async with live(fence_interval=5) as life:
        first = life.send("a")
        await trio.sleep(1)
        life.is_leaving = True
        life.fences.hurry()
        await trio.testing.wait_all_tasks_blocked()

        assert [1] == life.asked_at
        second = life.send("b")
        await trio.testing.wait_all_tasks_blocked()

        assert [1, 1] == life.asked_at
        assert [Outcome.RECEIVED] * 2 == outcomes(first + second)


async def test_looking_early_asks_nothing_that_can_wait(autojump_clock, live):
    async with live(fence_interval=5) as life:
        life.send("a")
        await trio.sleep(1)
        life.fences.hurry()
        await trio.sleep(10)

        assert [5] == life.asked_at


async def test_s1_2_while_a_ping_waits_to_be_written_no_other_is_asked_for(autojump_clock, live):
    streams = trio.testing.lockstep_stream_pair()
    async with live(streams=streams, fence_every=1) as life:
        # It is taken bit by bit.
        large = life.send("x" * 1_000_000)
        for _ in range(10):
            life.is_leaving = True
            life.fences.hurry()
            await trio.testing.wait_all_tasks_blocked()
        frames = [await life.peer.receive_frame() for _ in range(2)]
        with trio.move_on_after(10):
            frames.append(await life.peer.receive_frame())

        assert [TEXT, PING] == [opcode for opcode, _ in frames]
        await life.peer.send_frame(PONG, frames[1][1])
        assert Outcome.RECEIVED is await large[0].wait()


# --- what an answer proves ----------------------------------------------------------------------


async def test_s1_2_a_fence_covers_only_what_was_drawn_before_its_ping_was_written(
    autojump_clock, live
):
    async with live(fence_interval=1, fence_every=2, answers=False) as life:
        receipts = life.send("a", "b")
        await trio.testing.wait_all_tasks_blocked()
        receipts += life.send("c")
        await trio.testing.wait_all_tasks_blocked()

        assert [(0, "a"), (0, "b"), (0, "?"), (0, "c")] == life.heard
        await life.answer(life.pings[0])

        assert [Outcome.RECEIVED, Outcome.RECEIVED, None] == outcomes(receipts)
        await trio.sleep(2)
        await life.answer(life.pings[1])

        assert [Outcome.RECEIVED] * 3 == outcomes(receipts)


async def test_s1_2_what_is_drawn_while_the_ping_waits_to_be_written_is_covered(
    autojump_clock, live
):
    streams = trio.testing.lockstep_stream_pair()
    async with live(streams=streams, fence_every=1) as life:
        receipts = life.send("x" * 1_000_000)
        await trio.testing.wait_all_tasks_blocked()
        # It cannot overtake what was drawn; the next message cannot overtake it.
        receipts += life.send("next")
        await trio.testing.wait_all_tasks_blocked()
        frames = [await life.peer.receive_frame() for _ in range(2)]
        await life.peer.send_frame(PONG, frames[1][1])
        assert Outcome.RECEIVED is await receipts[0].wait()

        assert [Outcome.RECEIVED, None] == outcomes(receipts)


async def test_s1_2_a_pong_proves_everything_before_its_ping(autojump_clock, live):
    async with live(fence_every=1, answers=False) as life:
        receipts = []
        for text in "abcd":
            receipts += life.send(text)
            await trio.testing.wait_all_tasks_blocked()

        assert 4 == len(life.pings)
        await life.answer(life.pings[2])

        assert [Outcome.RECEIVED] * 3 + [None] == outcomes(receipts)
        await life.answer(life.pings[1])
        await life.answer(life.pings[3])

        assert [Outcome.RECEIVED] * 4 == outcomes(receipts)


async def test_s1_2_a_pong_that_nobody_asked_for_proves_nothing(autojump_clock, live):
    async with live(fence_every=1, answers=False) as life:
        receipts = life.send("a")
        await trio.testing.wait_all_tasks_blocked()
        await life.answer(b"unasked")

        assert [None] == outcomes(receipts)


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


# --- where nothing is asked ---------------------------------------------------------------------


async def test_s1_2_without_fences_nothing_is_asked_and_the_heartbeats_pings_prove_nothing(
    autojump_clock, live
):
    async with live(fence=False, fence_every=1, fence_interval=0) as life:
        queued = life.send("a")
        acked = life.send("b", delivery=Delivery.ACKED)
        life.is_leaving = True
        life.fences.hurry()
        await trio.sleep(10)

        assert [] == life.asked_at
        assert [Outcome.WRITTEN, None] == outcomes(queued + acked)
        ping = life.fences.ping()
        await trio.sleep(100)

        assert ping.answered
        assert [10] == life.asked_at
        assert [] == life.lifted
        assert "<Receipt written>" == repr(acked[0])


# --- lifting ------------------------------------------------------------------------------------


async def test_s1_2_fences_are_lifted_when_only_pongs_are_missing(autojump_clock, live):
    async with live(fence_interval=1, fence_timeout=60, answers=False) as life:
        receipts = life.send("a", "b")
        await life.talk(100)

        # Since the ping, not since the message.
        assert [(61, 2)] == life.lifted
        assert [Outcome.WRITTEN] * 2 == outcomes(receipts)
        more = life.send("c")
        await trio.testing.wait_all_tasks_blocked()

        assert [Outcome.WRITTEN] == outcomes(more)
        await life.talk(100)

        assert 1 == len(life.lifted)
        assert [1] == life.asked_at


async def test_s1_2_fences_are_not_lifted_while_pongs_come_in_time(autojump_clock, live):
    async with live(fence_interval=1, fence_timeout=10, answers=False) as life:
        receipts = []
        for number in range(20):
            receipts += life.send(str(number))
            await life.talk(4)
            # One behind for ever, and each in time.
            for payload in life.pings[-2:-1]:
                await life.answer(payload)

        assert [] == life.lifted
        assert [Outcome.RECEIVED] * 19 + [None] == outcomes(receipts)


async def test_s1_2_the_next_ping_gives_the_last_no_more_time(autojump_clock, live):
    async with live(fence_every=1, fence_timeout=10, answers=False) as life:
        for number in range(20):
            life.send(str(number))
            await life.talk(1)

        assert [10] == [at for at, _ in life.lifted]


async def test_s1_2_an_answer_to_an_earlier_ping_gives_the_next_its_full_time(autojump_clock, live):
    async with live(fence_every=1, fence_timeout=10, answers=False) as life:
        life.send("a")
        await life.talk(1)
        life.send("b")
        await life.talk(4)
        await life.answer(life.pings[0])
        await life.talk(100)

        assert [(15, 1)] == life.lifted


async def test_no_ping_is_kept_in_mind_where_its_answer_proves_nothing(autojump_clock, live):
    async with live(fence_every=1, fence_timeout=10, answers=False) as life:
        life.send("a")
        await life.talk(20)
        kept = len(life.connection._pings)
        for _ in range(10):
            forget_ping(life.connection, life.fences.ping())

        assert kept == len(life.connection._pings)


async def test_s1_2_an_answer_to_the_last_ping_ends_the_wait(autojump_clock, live):
    async with live(fence_interval=1, fence_timeout=10, answers=False) as life:
        life.send("a")
        await life.talk(10)
        await life.answer(life.pings[0])
        await life.talk(100)

        assert [] == life.lifted


async def test_s1_2_silence_is_for_the_heartbeat_to_judge(autojump_clock, live):
    async with live(fence_interval=1, fence_timeout=10, answers=False) as life:
        receipts = life.send("a")
        await trio.sleep(1000)

        assert [] == life.lifted
        assert [None] == outcomes(receipts)
        # Only when it speaks, it could have answered.
        await life.talk(20)

        assert 1 == len(life.lifted)
        assert [Outcome.WRITTEN] == outcomes(receipts)


async def test_s1_2_what_we_do_not_read_lifts_no_fence(autojump_clock, live):
    async with live(fence_interval=1, fence_timeout=10, inbox_messages=2, answers=False) as life:
        receipts = life.send("a")
        await trio.sleep(2)
        # Bytes come after the ping, and its answer is not read.
        await life.fill()
        await life.answer(life.pings[0])
        await trio.sleep(1000)

        assert [] == life.lifted
        assert [None] == outcomes(receipts)
        life.take()
        await trio.testing.wait_all_tasks_blocked()
        life.take()
        await trio.testing.wait_all_tasks_blocked()

        assert [Outcome.RECEIVED] == outcomes(receipts)
        assert [] == life.lifted


async def test_s1_2_when_we_read_again_the_peer_gets_its_full_time(autojump_clock, live):
    async with live(fence_interval=1, fence_timeout=10, inbox_messages=2, answers=False) as life:
        life.send("a")
        await life.fill()
        await trio.sleep(100)
        for _ in range(20):
            life.take()
            await trio.sleep(1)
            await life.say("news")

        assert [(110, 1)] == life.lifted


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


# --- trials -------------------------------------------------------------------------------------


@pytest.fixture
def poisoned():
    """An outbox with two suspects."""

    def poisoned(**options):
        outbox = Outbox(Limits(), DeliveryOptions(acknowledgement=MARKS, **options))
        offers = [outbox.offer(text, Delivery.ACKED) for text in "ab"]
        receipts = [outbox.accept_nowait(offer) for offer in offers]
        tap = Tap(outbox, is_fenced=outbox.options.fence)
        while (entry := tap.pull()) is not None:
            entry.written()
        tap.close(1009)
        return outbox, receipts

    return poisoned


async def test_s1_6_each_suspect_is_fenced_at_once_and_the_next_goes_with_the_answer(
    autojump_clock, live, poisoned
):
    outbox, _ = poisoned(fence_interval=5)
    async with live(outbox=outbox) as life:
        life.send("c")
        await trio.testing.wait_all_tasks_blocked()

        assert ["a", "?", "b", "?", "c"] == [what for _, what in life.heard]
        assert {0} == {at for at, _ in life.heard}


async def test_s1_6_while_a_suspect_is_on_trial_nothing_else_goes(autojump_clock, live, poisoned):
    outbox, _ = poisoned(fence_interval=5)
    async with live(outbox=outbox, answers=False) as life:
        life.send("c")
        await trio.sleep(30)

        assert ["a", "?"] == [what for _, what in life.heard]
        await life.answer(life.pings[0])

        assert ["a", "?", "b", "?"] == [what for _, what in life.heard]


async def test_s1_6_lifted_fences_let_suspects_go_on(autojump_clock, live, poisoned):
    outbox, _ = poisoned(fence_timeout=10)
    async with live(outbox=outbox, answers=False) as life:
        life.send("c")
        await life.talk(40)

        # From there on a connection that lives is what acquits.
        assert [(10, 1)] == life.lifted
        assert [(0, "a"), (0, "?"), (10, "b"), (20, "c")] == life.heard


async def test_s1_6_without_fences_a_suspect_is_acquitted_by_a_connection_that_lives_on(
    autojump_clock, live, poisoned
):
    outbox, receipts = poisoned(fence=False, fence_timeout=10)
    async with live(outbox=outbox) as life:
        life.send("c")
        await trio.sleep(100)

        assert [(0, "a"), (10, "b"), (20, "c")] == life.heard
        assert [None, None] == outcomes(receipts)
    assert [False, False] == [entry.is_suspect for entry in outbox.unacknowledged]


async def test_s1_6_without_fences_an_acknowledgement_does_not_shorten_the_next_trial(
    autojump_clock, live, poisoned
):
    outbox, receipts = poisoned(fence=False, fence_timeout=10)
    async with live(outbox=outbox) as life:
        life.send("c")
        await trio.sleep(9)
        outbox.acknowledge(receipts[0].id, accepted=True)
        life.flush()
        await trio.sleep(100)

        assert [(0, "a"), (9, "b"), (19, "c")] == life.heard
