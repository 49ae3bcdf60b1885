"""Where received messages wait."""

from __future__ import annotations

import itertools
import math

import pytest
import trio
import trio.testing

from wsclient.connection import Mailbox, MessageIterator


def batch(*items):
    return list(items), sum(map(len, items))


async def test_items_leave_in_the_order_in_which_they_came():
    mailbox = Mailbox(1)
    mailbox.put(*batch("a", "b"))
    mailbox.put(*batch("c"))

    assert ["a", "b", "c"] == [await mailbox.take(), mailbox.take_nowait(), await mailbox.take()]


async def test_a_batch_is_never_refused():
    mailbox = Mailbox(0)
    mailbox.put(*batch("a", "b", "c"))

    assert 3 == len(mailbox)
    assert ["a", "b", "c"] == await mailbox.take_many()


@pytest.mark.parametrize(
    ("max_items", "max_size", "put", "has_room"),
    [
        (0, math.inf, 0, True),
        (0, math.inf, 1, False),
        (1, math.inf, 1, True),
        (1, math.inf, 2, False),
        (math.inf, math.inf, 10_000, True),
        (math.inf, 10, 1, True),
        (math.inf, 10, 2, False),
        (math.inf, 9, 1, False),
    ],
)
def test_there_is_room_up_to_the_bounds(max_items, max_size, put, has_room):
    mailbox = Mailbox(max_items, max_size)
    mailbox.put(*batch(*["x" * 10] * put))

    assert has_room is mailbox.has_room
    assert (put, put * 10) == (len(mailbox), mailbox.size)


async def test_the_reader_waits_until_there_is_room(nursery):
    mailbox = Mailbox(1)
    mailbox.put(*batch("a", "b", "c"))
    went_on = trio.Event()

    async def read():
        await mailbox.wait_for_room()
        went_on.set()

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()
    mailbox.take_nowait()
    await trio.testing.wait_all_tasks_blocked()

    assert not went_on.is_set()

    mailbox.take_nowait()
    await trio.testing.wait_all_tasks_blocked()

    assert went_on.is_set()


@pytest.mark.parametrize("make_room", [Mailbox.take_all, Mailbox.end])
async def test_taking_all_or_ending_lets_a_waiting_reader_go_on(nursery, make_room):
    mailbox = Mailbox(0)
    mailbox.put(*batch("a"))
    nursery.start_soon(mailbox.wait_for_room)
    await trio.testing.wait_all_tasks_blocked()

    assert 1 == len(nursery.child_tasks)

    make_room(mailbox)
    await trio.testing.wait_all_tasks_blocked()

    assert 0 == len(nursery.child_tasks)


@pytest.mark.parametrize("max_items", [0, 1, math.inf])
async def test_whoever_waits_for_emptiness_is_woken_by_the_last_item(nursery, max_items):
    mailbox = Mailbox(max_items)
    await mailbox.wait_empty()
    mailbox.put(*batch("a", "b", "c"))
    nursery.start_soon(mailbox.wait_empty)
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked()

        assert 1 == len(nursery.child_tasks)

        mailbox.take_nowait()
    await trio.testing.wait_all_tasks_blocked()

    assert 0 == len(nursery.child_tasks)


async def test_whoever_asks_learns_when_a_taker_has_come_back_for_more(nursery):
    mailbox = Mailbox(math.inf)
    mailbox.put(*batch("a", "b"))
    wanted = []

    async def wait():
        await mailbox.wait_wanted()
        wanted.append(len(mailbox))

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(2):
        await mailbox.take()
        await trio.testing.wait_all_tasks_blocked()

        assert [] == wanted

    nursery.start_soon(mailbox.take)
    await trio.testing.wait_all_tasks_blocked()

    assert [0] == wanted

    # While it waits, that is so.
    await mailbox.wait_wanted()


async def test_a_second_taker_does_not_stand_for_the_first(nursery):
    mailbox = Mailbox(math.inf)
    for _ in range(2):
        nursery.start_soon(mailbox.take)
    await trio.testing.wait_all_tasks_blocked()
    mailbox.put(*batch("a"))

    assert 1 == len(mailbox)

    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.wait_wanted()

    assert scope.cancelled_caught

    nursery.cancel_scope.cancel()


async def test_nobody_comes_back_after_the_end(nursery):
    mailbox = Mailbox(math.inf)
    nursery.start_soon(mailbox.wait_wanted)
    await trio.testing.wait_all_tasks_blocked()
    mailbox.end()
    await mailbox.wait_wanted()


async def test_what_an_end_leaves_to_be_taken_keeps_the_mailbox_from_being_empty(nursery):
    mailbox = Mailbox(0)
    mailbox.put(*batch("a"))
    nursery.start_soon(mailbox.wait_empty)
    await trio.testing.wait_all_tasks_blocked()
    mailbox.end()
    await trio.testing.wait_all_tasks_blocked()

    assert 1 == len(nursery.child_tasks)

    mailbox.end(discard=True)
    await trio.testing.wait_all_tasks_blocked()

    assert 0 == len(nursery.child_tasks)


def test_the_peak_is_the_most_that_ever_waited():
    mailbox = Mailbox(0)
    mailbox.put(*batch("a", "b"))
    mailbox.take_all()
    mailbox.put(*batch("c"))

    assert 2 == mailbox.peak


def test_what_was_taken_is_counted():
    mailbox = Mailbox(math.inf)
    mailbox.put(*batch("a", "b", "c"))
    mailbox.take_nowait()

    assert 1 == mailbox.taken

    mailbox.take_all()

    assert 3 == mailbox.taken


def test_the_next_item_can_be_seen_and_stays():
    mailbox = Mailbox(math.inf)

    assert mailbox.peek() is None

    mailbox.put(*batch("a", "b"))

    assert ("a", "a", 2) == (mailbox.peek(), mailbox.peek(), len(mailbox))


async def test_an_item_that_waits_can_be_polled_for_while_the_budget_lasts():
    mailbox = Mailbox(math.inf)
    mailbox.put(*batch(*"abcdef"))

    # Nobody has let other tasks run yet.
    assert mailbox.poll() is None

    await mailbox.take()
    mailbox.batches.budget = 2

    assert ["b", "c", None] == [mailbox.poll(), mailbox.poll(), mailbox.poll()]

    mailbox.batches.budget = 2
    with trio.CancelScope() as scope:
        scope.cancel()

        assert mailbox.poll() is None

        await trio.lowlevel.checkpoint()
    mailbox.take_all()

    assert mailbox.poll() is None


async def test_the_reader_waits_until_few_enough_bytes_are_left(nursery):
    mailbox = Mailbox(math.inf, max_size=10)
    for _ in range(3):
        mailbox.put(*batch("x" * 8))
    woken = []

    async def wait():
        await mailbox.wait_for_room()
        woken.append(mailbox.size)

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(2):
        assert [] == woken

        mailbox.take_nowait()
        await trio.testing.wait_all_tasks_blocked()

    assert [8] == woken


async def test_the_size_that_is_taken_is_told():
    mailbox = Mailbox(math.inf)
    mailbox.put(*batch("ab", "c"))

    assert (["ab", "c"], 3) == mailbox.take_all()
    assert ([], 0) == mailbox.take_all()


async def test_the_reader_that_waits_for_room_and_who_waits_for_emptiness_are_both_woken(nursery):
    mailbox = Mailbox(2)
    mailbox.put(*batch(*"abcde"))
    woken = []

    async def wait(name, waiting):
        await waiting()
        woken.append((name, len(mailbox)))

    nursery.start_soon(wait, "empty", mailbox.wait_empty)
    nursery.start_soon(wait, "room", mailbox.wait_for_room)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(5):
        mailbox.take_nowait()
        await trio.testing.wait_all_tasks_blocked()

    assert [("room", 2), ("empty", 0)] == woken


async def test_the_loop_that_iterates_takes_what_waits_here():
    mailbox = Mailbox(math.inf)
    mailbox.put(*batch(*"abc"))
    mailbox.end()
    seen = []
    with pytest.raises(trio.EndOfChannel):
        async for item in MessageIterator(mailbox.batches, mailbox.take, mailbox.take):
            seen += [item]

    assert ["a", "b", "c"] == seen


async def test_each_item_goes_to_one_of_the_takers(nursery):
    mailbox = Mailbox(1)
    taken = []

    async def take():
        taken.append(await mailbox.take())

    for _ in range(3):
        nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()

    assert 3 == mailbox.tasks_waiting

    mailbox.put(*batch("a", "b"))
    await trio.testing.wait_all_tasks_blocked()

    assert ["a", "b"] == sorted(taken)
    assert 1 == mailbox.tasks_waiting

    mailbox.put(*batch("c"))
    await trio.testing.wait_all_tasks_blocked()

    assert ["a", "b", "c"] == sorted(taken)


async def test_nothing_is_lost_when_a_taker_is_cancelled(nursery):
    mailbox = Mailbox(1)
    taken = []

    async def take(scope):
        with scope:
            taken.append(await mailbox.take())

    for cancel_first in (True, False):
        scope = trio.CancelScope()
        nursery.start_soon(take, scope)
        await trio.testing.wait_all_tasks_blocked()
        # Both in one step: the taker has the item, or the mailbox has it still.
        if cancel_first:
            scope.cancel()
        mailbox.put(*batch("a"))
        if not cancel_first:
            scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

        assert ["a"] == taken + mailbox.take_all()[0]
        taken.clear()


async def test_a_wake_up_is_not_lost_with_a_cancelled_taker(nursery):
    mailbox = Mailbox(1)
    taken = []

    async def take(scope):
        with scope:
            taken.append(await mailbox.take())

    scopes = [trio.CancelScope(), trio.CancelScope()]
    for scope in scopes:
        nursery.start_soon(take, scope)
        await trio.testing.wait_all_tasks_blocked()
    mailbox.put(*batch("a", "b"))
    scopes[0].cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert ["a", "b"] == sorted(taken + mailbox.take_all()[0])
    assert 0 == mailbox.tasks_waiting


async def test_taking_is_always_a_point_of_cancellation():
    mailbox = Mailbox(math.inf)
    mailbox.put(*batch(*"abcdef"))
    for take in (mailbox.take, mailbox.take, mailbox.take_many):
        with trio.CancelScope() as scope:
            scope.cancel()
            await take()

        assert scope.cancelled_caught
    assert 6 == len(mailbox)


@pytest.mark.parametrize("seconds", [0.0, 0.00001, 0.001, 0.02])
async def test_a_loop_over_a_full_mailbox_lets_others_run(mock_clock, nursery, seconds):
    """However long the loop's own work on an item takes."""
    mailbox = Mailbox(math.inf)
    mailbox.put(*batch(*"x" * 3000))
    turns = []

    async def other():
        while True:
            turns.append(trio.current_time())
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    for _ in range(3000):
        await mailbox.take()
        mock_clock.jump(seconds)
    await trio.lowlevel.checkpoint()
    longest = max(after - before for before, after in itertools.pairwise(turns))

    assert len(turns) >= 3
    # Two stretches: which of two tasks goes first in a step is chance.
    assert longest <= max(0.03, 3 * seconds)
    nursery.cancel_scope.cancel()


async def test_take_many_takes_all_there_is_and_at_least_one(nursery):
    mailbox = Mailbox(math.inf)
    taken = []

    async def take():
        taken.append(await mailbox.take_many())

    nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()

    assert [] == taken

    mailbox.put(*batch("a", "b", "c"))
    await trio.testing.wait_all_tasks_blocked()

    assert [["a", "b", "c"]] == taken
    assert (0, 0) == (len(mailbox), mailbox.size)


def test_taking_without_waiting_tells_empty_from_ended():
    mailbox = Mailbox(1)
    with pytest.raises(trio.WouldBlock):
        mailbox.take_nowait()
    mailbox.end()
    with pytest.raises(trio.EndOfChannel):
        mailbox.take_nowait()


async def test_what_waits_at_the_end_can_still_be_taken():
    mailbox = Mailbox(1)
    mailbox.put(*batch("a", "b"))
    mailbox.end()

    assert ["a", "b"] == [await mailbox.take(), await mailbox.take()]
    for take in (mailbox.take, mailbox.take_many):
        with pytest.raises(trio.EndOfChannel):
            await take()


async def test_an_end_that_discards_leaves_nothing():
    mailbox = Mailbox(1)
    mailbox.put(*batch("a", "b"))
    mailbox.end(discard=True)

    assert (0, 0) == (len(mailbox), mailbox.size)
    with pytest.raises(trio.EndOfChannel):
        await mailbox.take()


def test_nothing_gets_in_after_the_end():
    mailbox = Mailbox(0)
    mailbox.end()
    mailbox.put(*batch("a"))

    assert 0 == len(mailbox)
    assert mailbox.has_room


async def test_the_end_wakes_everyone(nursery):
    mailbox = Mailbox(1)

    async def take(taking):
        with pytest.raises(trio.EndOfChannel):
            await taking()

    for taking in (mailbox.take, mailbox.take_many, mailbox.take):
        nursery.start_soon(take, taking)
    await trio.testing.wait_all_tasks_blocked()
    mailbox.end()
    await trio.testing.wait_all_tasks_blocked()

    assert 0 == len(nursery.child_tasks)
