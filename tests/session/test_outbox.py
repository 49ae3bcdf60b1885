"""Accepting, drawing and settling: at most once, in order, within bounds."""

from __future__ import annotations

import math
import random

import pytest
import trio
import trio.testing

from wsclient.errors import OutboxFull
from wsclient.events import Delivery, Outcome, Truth
from wsclient.options import DeliveryOptions, Limits, OverflowPolicy
from wsclient.session._acks import FunctionAcknowledgement, JsonAcknowledgement
from wsclient.session._outbox import KNOWN_IDS, Outbox
from wsclient.session._tap import Tap

DIRECT, QUEUED, ACKED = Delivery.DIRECT, Delivery.QUEUED, Delivery.ACKED

MARKS = FunctionAcknowledgement(
    lambda message, _, redelivered: f"{message} again" if redelivered else message, lambda _: None
)


def make(*, told=None, limits=None, **options):
    return Outbox(
        limits or Limits(outbox_messages=2),
        DeliveryOptions(acknowledgement=MARKS, **options),
        overflowed=(lambda _: None) if told is None else told.append,
    )


def offer(outbox, message, delivery=QUEUED, *, key=None, expires_at=math.inf):
    return outbox.offer(message, delivery, expires_at=expires_at, key=key)


def put(outbox, message, delivery=QUEUED, *, key=None, expires_at=math.inf):
    return outbox.accept_nowait(offer(outbox, message, delivery, key=key, expires_at=expires_at))


def outcomes(receipts):
    return [receipt.outcome for receipt in receipts]


async def accept(outbox, message):
    return await outbox.accept(outbox.offer(message))


def accept_nowait(outbox, message):
    return outbox.accept_nowait(outbox.offer(message))


@pytest.fixture
def outbox():
    return Outbox(Limits())


@pytest.fixture
def small():
    """Room for two messages."""
    return Outbox(Limits(outbox_messages=2))


def drain(outbox):
    """Draw everything through one tap, and hand it over."""
    tap, drawn = Tap(outbox), []
    while (entry := tap.pull()) is not None:
        drawn.append(entry.message)
        entry.written()
    return drawn


# --- accepting ----------------------------------------------------------------------------------


async def test_messages_are_drawn_in_the_order_in_which_they_were_accepted(outbox):
    for number in range(100):
        await accept(outbox, str(number))

    assert [str(number) for number in range(100)] == drain(outbox)


async def test_accepting_counts_messages_and_bytes(outbox):
    await accept(outbox, "größe")
    await accept(outbox, b"\x00" * 10)

    assert (2, 17) == (outbox.messages, outbox.size)
    drain(outbox)

    assert (0, 0) == (outbox.messages, outbox.size)
    assert {Outcome.WRITTEN: 2} == outbox.outcomes


async def test_what_is_being_written_counts_until_it_has_its_outcome(small):
    await accept(small, "a")
    tap = Tap(small)
    entry = tap.pull()

    assert 1 == small.messages
    entry.written()

    assert 0 == small.messages


@pytest.mark.parametrize(
    ("limits", "sizes", "accepted"),
    [
        (Limits(outbox_messages=3), [1, 1, 1, 1], 3),
        (Limits(outbox_messages=1), [1, 1], 1),
        (Limits(outbox_size=10), [5, 5, 1], 2),
        (Limits(outbox_size=10), [5, 6], 1),
        (Limits(outbox_size=10), [10, 1], 1),
        (Limits(outbox_size=10), [0] * 5, 5),
        # One that is larger than the whole bound goes alone, rather than never.
        (Limits(outbox_size=10), [11, 1], 1),
        (Limits(outbox_size=10), [1, 11], 1),
        (Limits(outbox_size=10), [11, 0], 1),
    ],
)
async def test_s1_4_accepting_ends_at_the_bounds(limits, sizes, accepted):
    outbox = Outbox(limits)
    for size in sizes[:accepted]:
        accept_nowait(outbox, "x" * size)
    for size in sizes[accepted:]:
        with pytest.raises(trio.WouldBlock):
            accept_nowait(outbox, "x" * size)

    assert accepted == outbox.messages


async def test_s1_4_size_is_counted_in_bytes_not_in_characters():
    outbox = Outbox(Limits(outbox_size=10))
    accept_nowait(outbox, "ö" * 5)
    with pytest.raises(trio.WouldBlock):
        accept_nowait(outbox, "x")


async def test_s1_4_a_sender_waits_for_room_and_gets_it(small, autojump_clock, nursery):
    first, _ = accept_nowait(small, "a"), accept_nowait(small, "b")
    accepted_at = []

    async def send():
        await accept(small, "c")
        accepted_at.append(trio.current_time())

    nursery.start_soon(send)
    await trio.sleep(3)

    assert 1 == small.senders_waiting
    first.cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert [3.0] == accepted_at
    assert 0 == small.senders_waiting
    assert ["b", "c"] == drain(small)


async def test_s1_4_an_oversized_message_waits_until_nothing_else_does(nursery):
    outbox = Outbox(Limits(outbox_size=10))
    receipts = [
        accept_nowait(outbox, "aaa"),
        accept_nowait(outbox, "bbb"),
    ]
    accepted = []

    async def send(message):
        await accept(outbox, message)
        accepted.append(message)

    nursery.start_soon(send, "x" * 1000)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(send, "after")
    await trio.testing.wait_all_tasks_blocked()
    receipts[0].cancel()
    await trio.testing.wait_all_tasks_blocked()

    # Small ones do not overtake it: it would wait for ever.
    assert [] == accepted
    receipts[1].cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert ["x" * 1000] == accepted


async def test_senders_that_wait_are_served_in_the_order_in_which_they_came(small, nursery):
    accept_nowait(small, "0")
    accept_nowait(small, "1")
    for number in range(2, 30):
        nursery.start_soon(accept, small, str(number))
        await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.WouldBlock):
        accept_nowait(small, "whoever comes now waits behind them")
    drawn = []
    tap = Tap(small)
    while (entry := tap.pull()) is not None:
        drawn.append(entry.message)
        entry.written()

    assert [str(number) for number in range(30)] == drawn


async def test_nobody_overtakes_senders_that_wait_even_where_there_is_room():
    outbox = Outbox(Limits(outbox_size=10))
    accept_nowait(outbox, "x" * 6)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept, outbox, "y" * 6)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            accept_nowait(outbox, "z")
        nursery.cancel_scope.cancel()

    accept_nowait(outbox, "z")

    assert ["x" * 6, "z"] == drain(outbox)


async def test_a_sender_that_gave_up_does_not_hold_up_the_next(small, nursery):
    first = accept_nowait(small, "a")
    accept_nowait(small, "b")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as senders:
            senders.start_soon(accept, small, "given up")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(accept, small, "next")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    first.cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert ["b", "next"] == drain(small)


# --- refusing -----------------------------------------------------------------------------------


async def test_s2_7_refusing_wakes_whoever_waits_for_room(small, nursery):
    accept_nowait(small, "a")
    accept_nowait(small, "b")
    error = trio.ClosedResourceError("closed")
    raised = []

    async def send():
        try:
            await accept(small, "c")
        except trio.ClosedResourceError as caught:
            raised.append(caught)

    for _ in range(3):
        nursery.start_soon(send)
    await trio.testing.wait_all_tasks_blocked()
    small.refuse(lambda: error)
    await trio.testing.wait_all_tasks_blocked()

    assert [error] * 3 == raised
    assert 0 == small.senders_waiting
    assert 2 == small.messages


async def test_the_last_refusal_counts_and_each_sender_gets_an_exception_of_its_own(outbox):
    outbox.refuse(lambda: trio.ClosedResourceError("first"))
    outbox.refuse(lambda: trio.ClosedResourceError("second"))
    with pytest.raises(trio.ClosedResourceError, match="second") as one:
        await accept(outbox, "a")
    with pytest.raises(trio.ClosedResourceError, match="second") as other:
        accept_nowait(outbox, "a")

    assert one.value is not other.value


async def test_a_sender_that_goes_lets_a_smaller_message_behind_it_in(autojump_clock):
    outbox = Outbox(Limits(outbox_size=100))
    accept_nowait(outbox, "x" * 60)
    async with trio.open_nursery() as nursery:
        accepted = []

        async def send(size, scope):
            with scope:
                await accept(outbox, "x" * size)
                accepted.append(size)

        large = trio.CancelScope()
        nursery.start_soon(send, 80, large)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(send, 30, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        assert [] == accepted

        large.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert [30] == accepted


async def test_what_was_accepted_before_a_refusal_still_flows_out(outbox):
    accept_nowait(outbox, "a")
    outbox.refuse(trio.ClosedResourceError)

    assert ["a"] == drain(outbox)


# --- atomic under cancellation ------------------------------------------------------------------


async def test_s1_3_a_cancelled_caller_does_not_send(outbox):
    with trio.CancelScope() as scope:
        scope.cancel()
        await accept(outbox, "a")

    assert scope.cancelled_caught
    assert 0 == outbox.messages


async def test_s1_3_no_step_of_the_scheduler_lies_between_accepting_and_returning(outbox, nursery):
    ran = []

    async def another():
        ran.append(True)

    nursery.start_soon(another)
    await accept(outbox, "a")

    assert [] == ran


def test_s1_3_cancelled_at_any_step_a_message_is_in_the_outbox_or_never_will_be(
    cancel_at_every_step,
):
    async def scenario(cancellation):
        outbox = Outbox(Limits(outbox_messages=1))
        sent, heard = [], []

        async def send():
            with cancellation.scope:
                for number in range(4):
                    await accept(outbox, number_text(number))
                    sent.append(number_text(number))

        async def hand_over():
            tap = Tap(outbox)
            while len(heard) < 4 and not (cancellation.at is not None and outbox.messages == 0):
                await trio.sleep(0.5)
                if (entry := tap.pull()) is not None:
                    heard.append(entry.message)
                    entry.written()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(hand_over)

        # Returning means accepted; Cancelled means never.
        assert sent == heard
        assert 0 == outbox.senders_waiting

    def number_text(number):
        return f"message {number}"

    assert cancel_at_every_step(scenario) > 10


def test_s1_3_a_cancelled_wait_for_an_outcome_unsends_nothing(cancel_at_every_step):
    async def scenario(cancellation):
        outbox = Outbox(Limits())

        async def wait():
            with cancellation.scope:
                receipt = await accept(outbox, "a")
                await receipt.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(1)
            accepted = outbox.messages

            assert accepted == len(drain(outbox))

    assert cancel_at_every_step(scenario) > 3


# --- one outcome --------------------------------------------------------------------------------


async def test_s1_7_what_a_closed_tap_had_drawn_and_not_written_is_lost_unknown(outbox):
    receipts = [accept_nowait(outbox, text) for text in "abcd"]
    tap = Tap(outbox)
    first, _second = tap.pull(), tap.pull()
    first.written()
    tap.close()

    assert [Outcome.WRITTEN, Outcome.LOST_UNKNOWN, None, None] == [
        receipt.outcome for receipt in receipts
    ]
    assert [Truth.UNKNOWN, Truth.UNKNOWN, Truth.CERTAINLY_NOT, Truth.CERTAINLY_NOT] == [
        receipt.truth for receipt in receipts
    ]
    # The next connection goes on behind it, and never writes it again.
    assert ["c", "d"] == drain(outbox)


async def test_a_closed_tap_gives_nothing(outbox):
    accept_nowait(outbox, "a")
    tap = Tap(outbox)
    tap.close()

    assert None is tap.pull()
    assert ["a"] == drain(outbox)


async def test_a_report_that_comes_after_the_tap_was_closed_changes_nothing(outbox):
    receipt = accept_nowait(outbox, "a")
    tap = Tap(outbox)
    entry = tap.pull()
    tap.close()
    entry.written()

    assert Outcome.LOST_UNKNOWN is receipt.outcome
    assert {Outcome.LOST_UNKNOWN: 1} == outbox.outcomes
    assert (0, 0) == (outbox.messages, outbox.size)


async def test_closing_a_tap_twice_changes_nothing(outbox):
    accept_nowait(outbox, "a")
    tap = Tap(outbox)
    tap.pull()
    tap.close()
    tap.close()

    assert {Outcome.LOST_UNKNOWN: 1} == outbox.outcomes


async def test_closing_a_tap_lets_senders_that_wait_in(small, nursery):
    accept_nowait(small, "a")
    accept_nowait(small, "b")
    nursery.start_soon(accept, small, "c")
    await trio.testing.wait_all_tasks_blocked()
    tap = Tap(small)
    tap.pull()
    tap.close()

    assert ["b", "c"] == drain(small)


async def test_s3_3_what_is_left_at_the_end_is_cancelled(outbox):
    receipts = [accept_nowait(outbox, text) for text in "abc"]
    tap = Tap(outbox)
    tap.pull()
    outbox.refuse(trio.ClosedResourceError)
    tap.close()
    outbox.settle()

    assert [Outcome.LOST_UNKNOWN, Outcome.CANCELLED, Outcome.CANCELLED] == [
        receipt.outcome for receipt in receipts
    ]
    assert (0, 0) == (outbox.messages, outbox.size)


async def test_waiting_until_it_is_empty_ends_with_the_last_outcome(
    outbox, autojump_clock, nursery
):
    receipts = [accept_nowait(outbox, text) for text in "ab"]
    empty_at = []

    async def wait():
        await outbox.wait_empty()
        empty_at.append(trio.current_time())

    nursery.start_soon(wait)
    await trio.sleep(1)
    receipts[0].cancel()
    await trio.sleep(1)
    receipts[1].cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert [2.0] == empty_at
    await outbox.wait_empty()

    assert 2.0 == trio.current_time()


@pytest.mark.parametrize("seed", range(50))
async def test_i1_whatever_happens_each_message_gets_one_outcome_and_is_drawn_once(seed):
    chance = random.Random(seed)
    outbox = Outbox(Limits(outbox_messages=chance.choice([1, 2, 5, 100])))
    tap, in_flight, drawn, receipts = Tap(outbox), [], [], {}
    outcomes = {}

    def look():
        for number, receipt in receipts.items():
            if receipt.outcome is not None:
                # Set once: whatever it was, it stays.
                assert outcomes.setdefault(number, receipt.outcome) is receipt.outcome

    async with trio.open_nursery() as nursery:

        async def send(number):
            receipts[number] = await accept(outbox, str(number))

        for number in range(60):
            match chance.randrange(7):
                case 0 | 1 | 2:
                    nursery.start_soon(send, number)
                    await trio.testing.wait_all_tasks_blocked()
                case 3 if (entry := tap.pull()) is not None:
                    drawn.append(int(entry.message))
                    in_flight.append(entry)
                case 4 if in_flight:
                    in_flight.pop(0).written()
                case 5 if chance.random() < 0.3:
                    tap.close()
                    tap, in_flight = Tap(outbox), in_flight if chance.random() < 0.5 else []
                case 6 if receipts:
                    chance.choice(list(receipts.values())).cancel()
            look()
        await trio.testing.wait_all_tasks_blocked()
        outbox.settle()
        nursery.cancel_scope.cancel()
    tap.close()
    look()

    assert set(receipts) == set(outcomes)
    assert sorted(drawn) == drawn
    assert len(set(drawn)) == len(drawn)
    never = {number for number, outcome in outcomes.items() if outcome is Outcome.CANCELLED}

    assert set() == never & set(drawn)
    assert (0, 0) == (outbox.messages, outbox.size)
    assert len(outcomes) == sum(outbox.outcomes.values())


# --- offers -------------------------------------------------------------------------------------


def test_what_is_to_be_acknowledged_gets_an_id_and_nothing_else_does():
    outbox = Outbox(Limits(), DeliveryOptions(acknowledgement=JsonAcknowledgement()))
    acked, another = (offer(outbox, "{}", ACKED) for _ in range(2))

    assert len(acked.id) == 16
    assert acked.id != another.id
    assert f'{{"id": "{acked.id}"}}' == acked.message
    assert "{}" == acked.plain
    assert len(acked.message) == acked.size
    for delivery in (DIRECT, QUEUED):
        assert None is offer(outbox, "{}", delivery).id
        assert "{}" == offer(outbox, "{}", delivery).message


def test_an_offer_counts_the_bytes_that_go_out(outbox):
    assert 7 == outbox.offer("größe").size


async def test_a_receipt_knows_the_id_of_its_message():
    outbox = make()
    wish = offer(outbox, "a", ACKED)
    receipt = outbox.accept_nowait(wish)

    assert wish.id == receipt.id
    assert (ACKED, QUEUED) == (receipt.delivery, put(outbox, "b").delivery)


def test_a_strategy_that_raises_at_acceptance_leaves_nothing_accepted():
    outbox = Outbox(Limits(), DeliveryOptions(acknowledgement=JsonAcknowledgement()))
    with pytest.raises(ValueError, match="must be a JSON object"):
        offer(outbox, "no object", ACKED)

    assert (0, 0, 0, 0) == (outbox.accepted, outbox.open, outbox.messages, outbox.size)
    assert not outbox.has_waiting


async def test_a_strategy_is_asked_once_for_each_write_and_with_the_same_id():
    asked = []

    def mark(message, key, redelivered):
        asked.append((message, key, redelivered))
        return f"{message}{len(asked)}"

    outbox = Outbox(
        Limits(),
        DeliveryOptions(acknowledgement=FunctionAcknowledgement(mark, lambda _: None)),
    )
    receipt = put(outbox, "a", ACKED)
    for expected in ("a1", "a2", "a3"):
        tap = Tap(outbox)

        assert expected == tap.pull().message
        tap.close()
    assert [("a", receipt.id, False), ("a", receipt.id, True), ("a", receipt.id, True)] == asked


async def test_the_size_of_what_goes_again_is_that_of_what_is_written():
    outbox = make()
    put(outbox, "a", ACKED)
    tap = Tap(outbox)
    tap.pull()
    tap.close()
    tap = Tap(outbox)
    tap.pull()

    assert (1, len("a again")) == (outbox.messages, outbox.size)
    tap.close()
    outbox.settle()

    assert (0, 0) == (outbox.messages, outbox.size)


# --- overflow -----------------------------------------------------------------------------------


async def test_s1_4_error_says_at_once_how_full_it_is(autojump_clock):
    outbox = make(overflow=OverflowPolicy.ERROR)
    put(outbox, "a")
    put(outbox, "bc")
    for accepting in (accept_nowait, accept):
        with pytest.raises(OutboxFull, match="2 messages") as caught:
            await accepting(outbox, "d")  # The first raises before there is anything to await.

        assert (2, 3) == (caught.value.messages, caught.value.size)
    assert ["a", "bc"] == drain(outbox)


async def test_s1_4_drop_newest_drops_what_comes_and_tells():
    told = []
    outbox = make(overflow=OverflowPolicy.DROP_NEWEST, told=told)
    receipts = [put(outbox, text) for text in "abcd"]

    assert [None, None, Outcome.DROPPED, Outcome.DROPPED] == outcomes(receipts)
    assert Truth.CERTAINLY_NOT is receipts[2].truth
    # At the first one, and with the count when it is over.
    assert [1] == told
    assert ["a", "b"] == drain(outbox)
    put(outbox, "e")

    assert [1, 2] == told
    assert ["e"] == drain(outbox)
    put(outbox, "f")

    assert [1, 2] == told
    assert {Outcome.WRITTEN: 3, Outcome.DROPPED: 2} == outbox.outcomes


async def test_s1_4_an_overflow_is_not_over_while_what_waited_is_still_there():
    told = []
    outbox = make(overflow=OverflowPolicy.DROP_NEWEST, told=told)
    for text in "abc":
        put(outbox, text)
    Tap(outbox).pull().written()
    put(outbox, "d")

    assert [1] == told


async def test_s1_4_drop_oldest_drops_what_has_waited_longest_and_tells():
    told = []
    outbox = make(overflow=OverflowPolicy.DROP_OLDEST, told=told)
    receipts = [put(outbox, text) for text in "abcd"]

    assert [Outcome.DROPPED, Outcome.DROPPED, None, None] == outcomes(receipts)
    assert [1] == told
    assert ["c", "d"] == drain(outbox)


async def test_s1_4_drop_oldest_makes_no_more_room_than_is_needed():
    outbox = make(overflow=OverflowPolicy.DROP_OLDEST, limits=Limits(outbox_size=10))
    receipts = [put(outbox, text * 3) for text in "abc"]
    receipts.append(put(outbox, "d" * 5))

    assert [Outcome.DROPPED, Outcome.DROPPED, None, None] == outcomes(receipts)
    put(outbox, "e" * 1000)

    # Larger than the bound: alone, rather than never.
    assert ["e" * 1000] == drain(outbox)


async def test_s1_4_only_what_was_not_begun_is_ever_dropped():
    outbox = make(overflow=OverflowPolicy.DROP_OLDEST, limits=Limits(outbox_messages=4))
    again = put(outbox, "again", ACKED)
    tap = Tap(outbox)
    tap.pull()
    tap.close()
    direct, queued = put(outbox, "direct", DIRECT), put(outbox, "queued")
    begun = put(outbox, "last")
    put(outbox, "new")

    assert [None, None, Outcome.DROPPED, None] == outcomes([again, direct, queued, begun])


@pytest.mark.parametrize("begun", [1, 2])
async def test_s1_4_drop_oldest_drops_nothing_where_that_would_make_no_room(begun):
    outbox = make(overflow=OverflowPolicy.DROP_OLDEST, limits=Limits(outbox_size=10))
    receipts = [put(outbox, "x" * 8), put(outbox, "y" * 1)]
    tap = Tap(outbox, is_fenced=True)
    for _ in range(begun):
        tap.pull()
    with pytest.raises(trio.WouldBlock):
        put(outbox, "z" * 5)

    assert [None, None] == outcomes(receipts)


async def test_s1_4_drop_oldest_drops_nothing_for_one_who_must_wait_behind_others(nursery):
    outbox = make(overflow=OverflowPolicy.DROP_OLDEST, limits=Limits(outbox_size=10))
    receipts = [put(outbox, "x" * 6), put(outbox, "y" * 1)]
    tap = Tap(outbox, is_fenced=True)
    tap.pull()
    nursery.start_soon(accept, outbox, "w" * 5)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.WouldBlock):
        put(outbox, "z")

    assert [None, None] == outcomes(receipts)
    nursery.cancel_scope.cancel()


async def test_s1_4_conflate_lets_the_newest_of_a_key_take_the_place_of_the_last():
    told = []
    outbox = make(overflow=OverflowPolicy.CONFLATE, told=told)
    first, other = put(outbox, "price 1", key="price"), put(outbox, "size 1", key="size")
    put(outbox, "price 2", key="price")

    assert [Outcome.DROPPED, None] == outcomes([first, other])
    assert Truth.CERTAINLY_NOT is first.truth
    assert [1] == told
    assert 2 == outbox.messages
    put(outbox, "price 3", key="price")

    assert ["size 1", "price 3"] == drain(outbox)


async def test_s1_4_conflate_replaces_nothing_by_what_was_not_accepted(autojump_clock):
    outbox = make(overflow=OverflowPolicy.CONFLATE, limits=Limits(outbox_size=10))
    first, _ = put(outbox, "a", key="k"), put(outbox, "x" * 8)
    with pytest.raises(trio.WouldBlock):
        put(outbox, "a" * 3, key="k")
    with trio.move_on_after(1):
        await outbox.accept(offer(outbox, "a" * 3, key="k"))

    assert None is first.outcome
    assert ["a", "x" * 8] == drain(outbox)


async def test_s1_4_conflate_lets_others_wait_for_room(nursery):
    outbox = make(overflow=OverflowPolicy.CONFLATE)
    put(outbox, "a", key="a")
    put(outbox, "b")
    for key in (None, "c"):
        with pytest.raises(trio.WouldBlock):
            put(outbox, "c", key=key)
    nursery.start_soon(outbox.accept, offer(outbox, "c", key="c"))
    await trio.testing.wait_all_tasks_blocked()
    # Who takes the place of another needs none from those who wait.
    put(outbox, "a again", key="a")

    assert 1 == outbox.senders_waiting
    assert ["b", "a again", "c"] == drain(outbox)


async def test_s1_4_conflate_never_replaces_what_was_begun():
    outbox = make(overflow=OverflowPolicy.CONFLATE, limits=Limits())
    begun = put(outbox, "a", ACKED, key="k")
    tap = Tap(outbox, is_fenced=True)
    tap.pull()
    put(outbox, "b", key="k")

    assert None is begun.outcome
    tap.close()
    put(outbox, "c", key="k")

    # Begun on another connection counts, too.
    assert ["a again", "c"] == drain(outbox)


async def test_s1_4_a_key_means_nothing_where_nothing_is_conflated():
    outbox = make()
    put(outbox, "a", key="k")
    put(outbox, "b", key="k")

    assert ["a", "b"] == drain(outbox)


async def test_s1_4_an_older_value_that_waited_for_room_does_not_replace_a_newer_one(nursery):
    outbox = make(overflow=OverflowPolicy.CONFLATE, limits=Limits(outbox_size=10))
    put(outbox, "1", key="k")
    other = put(outbox, "x" * 8)
    nursery.start_soon(outbox.accept, offer(outbox, "2 longer", key="k"))
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(outbox.accept, offer(outbox, "3", key="k"))
    await trio.testing.wait_all_tasks_blocked()
    other.cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert "3" == drain(outbox)[-1]


async def test_s1_4_a_direct_message_replaces_nothing_and_is_not_replaced():
    outbox = make(overflow=OverflowPolicy.CONFLATE, limits=Limits())
    put(outbox, "queued", key="k")
    put(outbox, "direct", DIRECT, key="k")
    put(outbox, "newer", key="k")

    assert ["direct", "newer"] == drain(outbox)
    put(outbox, "queued", key="k")
    direct = put(outbox, "direct", DIRECT, key="k")
    direct.cancel()

    assert ["queued"] == drain(outbox)


# --- direct -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", OverflowPolicy)
async def test_s1_8_a_direct_message_needs_no_room_and_waits_behind_nobody_who_does(
    policy, nursery
):
    outbox = make(overflow=policy)
    receipts = [put(outbox, "a", key="a"), put(outbox, "b", key="b")]
    if policy in (OverflowPolicy.BLOCK, OverflowPolicy.CONFLATE):
        nursery.start_soon(accept, outbox, "waits")
        await trio.testing.wait_all_tasks_blocked()
    put(outbox, "direct", DIRECT)

    # Behind what waits for the transport already.
    assert [None, None] == outcomes(receipts)
    assert ["a", "b", "direct"] == drain(outbox)[:3]


async def test_s1_8_a_direct_message_is_refused_when_nothing_more_is_accepted(outbox):
    outbox.refuse(trio.ClosedResourceError)
    with pytest.raises(trio.ClosedResourceError):
        put(outbox, "direct", DIRECT)


# --- time to live -------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", [DIRECT, QUEUED, ACKED])
async def test_s1_5_what_waits_when_its_time_is_over_is_expired_then(
    autojump_clock, nursery, delivery
):
    outbox = make(limits=Limits())
    nursery.start_soon(outbox.expire)
    late, early = put(outbox, "a", delivery, expires_at=7), put(outbox, "b", expires_at=5)
    never = put(outbox, "c")
    with trio.fail_after(6):
        assert Outcome.EXPIRED is await early.wait()

    assert 5 == trio.current_time()
    assert Outcome.EXPIRED is await late.wait()
    assert 7 == trio.current_time()
    assert Truth.CERTAINLY_NOT is late.truth
    await trio.sleep(1000)

    assert None is never.outcome
    # It is as if it had just begun.
    again = put(outbox, "d", expires_at=trio.current_time() + 3)
    assert Outcome.EXPIRED is await again.wait()
    assert 1010 == trio.current_time()
    nursery.cancel_scope.cancel()


async def test_s1_5_what_has_expired_is_not_written_even_if_nobody_has_looked(autojump_clock):
    outbox = make(limits=Limits())
    receipts = [put(outbox, text, expires_at=5) for text in "ab"]
    put(outbox, "c")
    await trio.sleep(5)

    assert ["c"] == drain(outbox)
    assert [Outcome.EXPIRED] * 2 == outcomes(receipts)
    assert (0, 0) == (outbox.messages, outbox.size)
    put(outbox, "d")

    assert outbox.has_waiting


@pytest.mark.parametrize("delivery", [QUEUED, ACKED])
async def test_s1_5_the_time_bounds_the_writing_and_not_the_wait_for_an_answer(
    autojump_clock, nursery, delivery
):
    outbox = make(limits=Limits())
    nursery.start_soon(outbox.expire)
    receipt = put(outbox, "a", delivery, expires_at=5)
    tap = Tap(outbox, is_fenced=True)
    tap.pull().written()
    await trio.sleep(100)

    assert None is receipt.outcome
    if delivery is ACKED:
        outbox.acknowledge(receipt.id, accepted=True)
    else:
        tap.read_up_to(1)

    assert (Outcome.ACKED if delivery is ACKED else Outcome.RECEIVED) is receipt.outcome
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("looks", [True, False])
async def test_s1_5_an_acked_message_is_written_again_only_within_its_time(
    autojump_clock, nursery, looks
):
    outbox = make(limits=Limits())
    if looks:
        nursery.start_soon(outbox.expire)
    receipt = put(outbox, "a", ACKED, expires_at=5)
    tap = Tap(outbox)
    tap.pull().written()
    await trio.sleep(3)
    tap.close()
    tap = Tap(outbox)

    assert "a again" == tap.pull().message
    await trio.sleep(3)
    tap.close()
    if looks:
        assert Outcome.EXPIRED is await receipt.wait()
    assert [] == drain(outbox)
    assert (Outcome.EXPIRED, Truth.UNKNOWN) == (receipt.outcome, receipt.truth)
    nursery.cancel_scope.cancel()


async def test_s1_5_what_expires_makes_room_for_who_waits_for_it(autojump_clock, nursery):
    outbox = make()
    put(outbox, "a", expires_at=5)
    put(outbox, "b")
    nursery.start_soon(outbox.expire)
    await outbox.accept(offer(outbox, "c"))

    assert 5 == trio.current_time()
    assert ["b", "c"] == drain(outbox)
    nursery.cancel_scope.cancel()


# --- acknowledgements ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "expected", "truth"),
    [(True, Outcome.ACKED, Truth.CERTAIN), (False, Outcome.REJECTED, Truth.UNKNOWN)],
)
async def test_s1_1_the_peers_word_is_the_outcome(accepted, expected, truth):
    outbox = make()
    receipt = put(outbox, "a", ACKED)
    Tap(outbox).pull().written()

    assert outbox.acknowledge(receipt.id, accepted=accepted)
    assert (expected, truth) == (receipt.outcome, receipt.truth)
    assert (0, 0, []) == (outbox.messages, outbox.size, outbox.unacknowledged)
    # Once.
    assert not outbox.acknowledge(receipt.id, accepted=not accepted)
    assert expected is receipt.outcome


async def test_s1_1_an_id_that_nothing_was_written_with_acknowledges_nothing():
    outbox = make()
    receipt = put(outbox, "a", ACKED)

    assert not outbox.acknowledge("nobody's", accepted=True)
    assert not outbox.acknowledge(receipt.id, accepted=True)
    assert None is receipt.outcome


async def test_s2_6_an_id_is_known_from_the_first_write_on_and_for_a_while_after_its_outcome():
    outbox = make(limits=Limits(outbox_messages=math.inf))
    receipts = [put(outbox, "a", ACKED) for _ in range(KNOWN_IDS + 1)]

    assert not outbox.has_given(receipts[0].id)
    tap = Tap(outbox)
    for receipt in receipts:
        tap.pull().written()

        assert outbox.has_given(receipt.id)
        outbox.acknowledge(receipt.id, accepted=True)

        assert outbox.has_given(receipt.id)
    # Not for ever: a channel may live for years.
    assert [False, True, True] == [outbox.has_given(receipts[at].id) for at in (0, 1, -1)]
    assert not outbox.has_given("nobody's")


async def test_s2_5_an_acknowledgement_counts_while_the_message_waits_to_go_again():
    outbox = make()
    receipt = put(outbox, "a", ACKED)
    put(outbox, "b")
    tap = Tap(outbox)
    tap.pull().written()
    tap.close()

    assert outbox.acknowledge(receipt.id, accepted=True)
    assert ["b"] == drain(outbox)


async def test_what_waits_to_be_acknowledged_is_listed_in_the_order_of_the_writes():
    outbox = make(limits=Limits())
    receipts = [put(outbox, text, ACKED) for text in "abc"]
    tap = Tap(outbox)
    for _ in range(2):
        tap.pull()

    assert receipts[:2] == [entry.receipt for entry in outbox.unacknowledged]
    assert receipts == [entry.receipt for entry in outbox.entries()]
    tap.close()

    assert [] == outbox.unacknowledged
    assert receipts == [entry.receipt for entry in outbox.entries()]


# --- connections --------------------------------------------------------------------------------


async def test_s1_7_what_is_put_back_goes_in_its_order_and_before_what_was_never_drawn():
    outbox = make(limits=Limits())
    for text in "abcde":
        put(outbox, text, ACKED)
    tap = Tap(outbox)
    entries = [tap.pull() for _ in range(3)]
    outbox.put_back(reversed(entries))

    assert ["a again", "b again", "c again", "d", "e"] == drain(outbox)


async def test_s1_7_what_was_put_back_once_is_not_doubled():
    outbox = make(limits=Limits())
    put(outbox, "a", ACKED)
    tap = Tap(outbox)
    entry = tap.pull()
    outbox.put_back([entry, entry])
    outbox.put_back([entry])
    outbox.put_back([])

    assert ["a again"] == drain(outbox)


async def test_s1_7_out_of_attempts_a_message_is_lost_and_nobody_knows_how():
    outbox = make(limits=Limits(), max_attempts=3)
    receipt = put(outbox, "a", ACKED)
    for expected in (["a"], ["a again"], ["a again"], []):
        assert expected == drain(outbox)
        outbox.put_back([])

    assert (Outcome.LOST_UNKNOWN, Truth.UNKNOWN) == (receipt.outcome, receipt.truth)


async def test_s1_7_out_of_attempts_lets_in_who_waits_for_room(nursery):
    outbox = make(limits=Limits(outbox_messages=1), max_attempts=1)
    put(outbox, "a", ACKED)
    nursery.start_soon(accept, outbox, "b")
    await trio.testing.wait_all_tasks_blocked()

    assert ["a"] == drain(outbox)
    outbox.put_back([])

    assert ["b"] == drain(outbox)


async def test_s1_8_the_end_of_a_connection_ends_what_was_to_go_over_it():
    outbox = make(limits=Limits())
    receipts = [put(outbox, "a"), put(outbox, "b", DIRECT), put(outbox, "c", DIRECT)]
    receipts[2].cancel()
    outbox.end_direct()

    assert [None, Outcome.CANCELLED, Outcome.CANCELLED] == outcomes(receipts)
    assert {Outcome.CANCELLED: 2} == outbox.outcomes
    assert ["a"] == drain(outbox)


async def test_s3_3_at_the_end_what_was_ever_begun_is_lost_unknown():
    outbox = make(limits=Limits(outbox_messages=3))
    receipts = [put(outbox, text, ACKED) for text in "abc"]
    tap = Tap(outbox)
    tap.pull()
    tap.close()
    tap = Tap(outbox)
    tap.pull()
    tap.pull()
    outbox.settle()

    assert [Outcome.LOST_UNKNOWN, Outcome.LOST_UNKNOWN, Outcome.CANCELLED] == outcomes(receipts)
    assert 0 == outbox.open


async def test_s3_3_at_the_end_nobody_is_let_in_and_left_behind(nursery):
    outbox = make()
    put(outbox, "a")
    put(outbox, "b")
    seen = []

    async def send():
        seen.append(await accept(outbox, "c"))

    nursery.start_soon(send)
    await trio.testing.wait_all_tasks_blocked()
    outbox.settle()
    await trio.testing.wait_all_tasks_blocked()

    assert [Outcome.CANCELLED] == outcomes(seen)
    assert 0 == outbox.open


async def test_an_outbox_says_what_it_has_seen():
    outbox = make(limits=Limits())

    assert (0, False, False) == (outbox.accepted, outbox.has_waiting, outbox.is_leaving)
    receipts = [put(outbox, text) for text in "ab"]

    assert (2, True) == (outbox.accepted, outbox.has_waiting)
    receipts[0].cancel()

    assert outbox.has_waiting
    drain(outbox)

    assert (2, False) == (outbox.accepted, outbox.has_waiting)
    put(outbox, "c")

    assert (3, True) == (outbox.accepted, outbox.has_waiting)
    outbox.refuse(trio.ClosedResourceError)

    assert outbox.is_leaving


async def test_i1_the_first_outcome_stands():
    outbox = make(limits=Limits())
    entry = offer(outbox, "a")
    outbox.accept_nowait(entry)
    outbox.resolve(entry, Outcome.DROPPED)
    outbox.resolve(entry, Outcome.EXPIRED)

    assert Outcome.DROPPED is entry.receipt.outcome
    assert {Outcome.DROPPED: 1} == outbox.outcomes
    assert (0, 0, 0) == (outbox.open, outbox.messages, outbox.size)


async def test_thousands_that_were_cancelled_take_no_memory_and_no_time():
    outbox = make(limits=Limits(outbox_messages=10_000))
    for _ in range(20):
        receipts = [put(outbox, "", key=str(number)) for number in range(1000)]
        for receipt in receipts:
            receipt.cancel()

        assert len(outbox._waiting) <= 200
        assert {} == outbox._by_key
        assert not outbox.has_waiting
    put(outbox, "last")

    assert outbox.has_waiting
    assert ["last"] == drain(outbox)


async def test_what_is_swept_out_while_something_expires_is_counted_once(autojump_clock, nursery):
    outbox = make(overflow=OverflowPolicy.CONFLATE, limits=Limits(outbox_size=100))
    put(outbox, "x" * 50, expires_at=5)
    put(outbox, "old", key="k")
    for receipt in [put(outbox, "") for _ in range(64)]:
        receipt.cancel()
    # It takes the place of the old one when the first is out of its way.
    nursery.start_soon(outbox.accept, offer(outbox, "y" * 60, key="k"))
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(5)

    assert ["y" * 60] == drain(outbox)
    assert not outbox.has_waiting
    nursery.cancel_scope.cancel()


async def test_s1_4_what_an_overflow_has_cost_is_told_at_the_end_too():
    told = []
    outbox = make(told=told, overflow=OverflowPolicy.DROP_NEWEST)
    for text in "abcde":
        put(outbox, text)
    outbox.settle()
    outbox.settle()

    assert [1, 3] == told
