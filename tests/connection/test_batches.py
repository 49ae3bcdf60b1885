"""What waits to be taken, and the loop that takes it."""

from __future__ import annotations

import pytest
import trio

from wsclient.connection import _batches
from wsclient.connection._batches import COMPILED, Batches, MessageIterator


class Owner:
    """Counts how often it was told that something was taken."""

    def __init__(self):
        self.told = 0

    def taken(self):
        self.told += 1


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture
def batches(owner):
    return Batches(owner.taken)


def state(batches):
    return batches.count, batches.size, batches.taken


# --- what waits ---------------------------------------------------------------------------------


def test_items_leave_in_the_order_in_which_they_came(batches):
    batches.append(["a", "b"], 2)
    batches.append(["c"], 1)
    batches.append(["d", "e"], 2)

    assert list("abcde") == [batches.pop() for _ in range(5)]
    assert (0, 0, 5) == state(batches)

    batches.append(["f"], 1)

    assert "f" == batches.pop()


def test_the_bytes_of_a_batch_count_until_its_last_item_is_taken(batches):
    batches.append(["a", "bc"], 3)
    batches.append(["def"], 3)

    assert (3, 6, 0) == state(batches)

    batches.pop()

    assert (2, 6, 1) == state(batches)

    batches.pop()

    assert (1, 3, 2) == state(batches)

    batches.pop()

    assert (0, 0, 3) == state(batches)


def test_the_oldest_and_the_newest_can_be_seen(batches):
    batches.append(["a", "b", "c"], 3)
    batches.pop()

    assert ("b", "c") == (batches.first(), batches.last())

    batches.append(["d", "e"], 2)

    assert ("b", "e") == (batches.first(), batches.last())
    assert 4 == batches.count


def test_the_newest_can_be_taken_back(batches):
    batches.append(["a", "b"], 2)
    batches.append(["c", "d"], 2)

    assert ["d", "c"] == [batches.pop_last(), batches.pop_last()]
    assert (2, 2, 0) == state(batches)

    batches.append(["e"], 1)

    assert ["e", "b"] == [batches.pop_last(), batches.pop_last()]
    assert "a" == batches.first() == batches.pop_last()
    assert (0, 0, 0) == state(batches)

    batches.append(["f"], 1)

    assert "f" == batches.pop()
    assert (0, 0, 1) == state(batches)


def test_of_a_batch_that_is_half_taken_the_newest_can_be_taken_back(batches):
    batches.append(["a", "b"], 2)
    batches.pop()

    assert "b" == batches.pop_last()
    assert (0, 0, 1) == state(batches)


def test_an_item_can_be_put_before_all_that_waits(batches):
    batches.push_first("only")

    assert (1, 0, 0) == state(batches)

    batches.append(["a", "b"], 2)
    batches.push_first("before")

    assert ["before", "only", "a"] == [batches.pop() for _ in range(3)]

    batches.push_first("between")
    batches.push_first("first")

    assert ["first", "between", "b"] == [batches.pop() for _ in range(3)]
    assert (0, 0, 6) == state(batches)


def test_what_is_put_before_a_batch_leaves_its_size(batches):
    batches.append(["a"], 5)
    batches.push_first("x")
    batches.push_first("y")

    assert ["y", "x"] == [batches.pop(), batches.pop()]
    assert (1, 5, 2) == state(batches)


def test_what_is_dropped_by_itself_was_not_taken(batches):
    batches.append(["a", "b"], 2)

    assert "a" == batches.drop_first()
    assert (1, 2, 0) == state(batches)


def test_all_can_be_taken_at_once(batches):
    assert [] == batches.pop_all()

    batches.append(["a", "b"], 2)
    batches.append(["c"], 1)
    batches.pop()

    assert ["b", "c"] == batches.pop_all()
    assert (0, 0, 3) == state(batches)

    batches.append(["d"], 1)

    assert ["d"] == batches.pop_all()


def test_what_is_dropped_was_not_taken(batches):
    batches.append(["a", "b"], 2)
    batches.append(["c"], 1)
    batches.clear()

    assert (0, 0, 0) == state(batches)

    batches.append(["d"], 1)

    assert "d" == batches.pop()


def test_nothing_that_was_taken_is_held(batches):
    items = ["a", "b"]
    batches.append(items, 2)
    batches.pop()

    assert [None, "b"] == items


def test_nobody_is_told_who_did_not_ask(batches, owner):
    batches.append(["a", "b"], 2)
    batches.append(["c"], 1)
    for _ in range(3):
        batches.pop()
    batches.pop_all()
    batches.clear()

    assert 0 == owner.told


@pytest.mark.parametrize(
    ("wake_at", "told"),
    # After each of five items, in batches of two and three.
    [(0, [0, 1, 1, 1, 2]), (2, [0, 1, 2, 3, 4]), (4, [1, 2, 3, 4, 5])],
)
def test_whoever_asked_is_told_at_a_count_and_at_a_batchs_end(batches, owner, wake_at, told):
    batches.append(["a", "b"], 2)
    batches.append(["c", "d", "e"], 3)
    batches.wake_at = wake_at
    seen = []
    for _ in range(5):
        batches.pop()
        seen.append(owner.told)

    assert told == seen


@pytest.mark.parametrize("empty", [Batches.pop_all, Batches.clear])
def test_whoever_asked_is_told_when_all_is_gone(batches, owner, empty):
    batches.append(["a", "b"], 2)
    batches.wake_at = 0
    empty(batches)

    assert 1 == owner.told


# --- the loop -----------------------------------------------------------------------------------


class Reading:
    """Gives batches as a connection does; the iterator's way to wait."""

    def __init__(self, *waves, budget=1000):
        self.waves = list(waves)
        self.budget = budget
        self.batches = Batches(lambda: None)
        self.waits = 0
        self.followed = []

    async def receive(self):
        self.waits += 1
        await trio.lowlevel.checkpoint()
        if not self.batches.count:
            if not self.waves:
                raise StopAsyncIteration
            wave = self.waves.pop(0)
            self.batches.append(list(wave), len(wave))
        self.batches.budget = self.budget
        return self.batches.pop()

    async def follow(self, item):
        self.followed.append(item)
        await trio.lowlevel.checkpoint()
        return f"message of {item}"

    def __aiter__(self):
        return MessageIterator(self.batches, self.receive, self.follow)


async def test_all_messages_come_in_order_and_one_wait_brings_many():
    reading = Reading(["a", b"b", "", b""], ["c"], ["d", "e"])

    assert ["a", b"b", "", b"", "c", "d", "e"] == [message async for message in reading]
    # One for each wave, and one for the end.
    assert 4 == reading.waits


async def test_an_iterator_iterates_over_itself():
    iterator = aiter(Reading(["a", "b"]))

    assert iterator is aiter(iterator)
    assert ["a", "b"] == [message async for message in iterator]


async def test_when_the_budget_is_spent_it_waits():
    reading = Reading(["x"] * 10, budget=3)

    assert ["x"] * 10 == [message async for message in reading]
    # Each wait brings one message, and three may follow; and one wait is for the end.
    assert 4 == reading.waits


async def test_what_is_no_message_is_followed_by_one():
    reading = Reading(["a", 1, "b", None, ("c",)])

    assert ["a", "message of 1", "b", "message of None", "message of ('c',)"] == [
        message async for message in reading
    ]
    assert [1, None, ("c",)] == reading.followed
    assert 0 == reading.batches.count


async def test_messages_can_be_taken_one_by_one():
    iterator = aiter(Reading(["a", "b", "c", "d", "e"]))

    assert "a" == await anext(iterator)
    assert "b" == await anext(iterator)
    assert "c" == await anext(iterator, "default")
    assert "d" == await iterator.__anext__()
    assert "e" == await anext(iterator, "default")
    assert "default" == await anext(iterator, "default")
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


async def test_a_loop_can_be_left_and_begun_again():
    reading = Reading(["a", "b", "c", "d"])
    seen = []
    for _ in range(2):
        async for message in reading:
            seen.append(message)
            if message in "bd":
                break

    assert list("abcd") == seen


async def test_a_cancelled_loop_ends_before_its_next_message():
    reading = Reading(["a", "b", "c", "d"])
    seen = []
    with trio.CancelScope() as scope:
        async for message in reading:
            seen.append(message)
            if message == "b":
                scope.cancel()

    assert scope.cancelled_caught
    assert ["a", "b"] == seen
    assert 2 == reading.batches.count


async def test_a_shielded_loop_goes_on():
    with trio.CancelScope() as outer:
        outer.cancel()
        with trio.CancelScope(shield=True):
            assert ["a", "b"] == [message async for message in Reading(["a", "b"])]


async def test_an_error_of_waiting_is_the_loops():
    async def fail():
        raise KeyError

    with pytest.raises(KeyError):
        async for _ in MessageIterator(Batches(lambda: None), fail, fail):
            pass


async def test_an_error_of_following_is_the_loops():
    async def fail(item):
        raise KeyError(item)

    reading = Reading(["a", 1])
    with pytest.raises(KeyError, match="1"):
        async for _ in MessageIterator(reading.batches, reading.receive, fail):
            pass


def test_the_build_is_told():
    assert COMPILED is not _batches.__file__.endswith(".py")
