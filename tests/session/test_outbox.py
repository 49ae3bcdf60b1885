"""Accepting, drawing and settling: at most once, in order, within bounds."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from wsclient.events import Outcome, Truth
from wsclient.options import Limits
from wsclient.session._outbox import Outbox
from wsclient.session._tap import Tap


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
