"""What was received and not taken yet: bounds, policies, marks, overruns."""

from __future__ import annotations

import math

import attrs
import pytest
import trio
import trio.testing

from wsclient.errors import InboxFull
from wsclient.events import Gap, Overflow
from wsclient.options import Limits, OverflowPolicy
from wsclient.protocol import encoded_size
from wsclient.session._inbox import MESSAGE_COST, Inbox, Inlet, Stale


def gap(after, before=None):
    return Gap(
        after=after,
        before=after + 1 if before is None else before,
        since=float(after),
        until=float(after) + 0.5,
        reason=f"the end of {after}",
    )


def make(policy=OverflowPolicy.BLOCK, key=None, *, told=None, **limits):
    limits = {"inbox_messages": 3, **limits}
    return Inbox(
        Limits(inbox_overflow=policy, inbox_key=key, **limits),
        overflowed=(lambda _: None) if told is None else told.append,
    )


def put(inbox, *messages):
    inbox.put(list(messages), sum(map(encoded_size, messages)))


def take_all(inbox):
    items, _ = inbox.take_all()
    inbox.sort(items)
    return items


# --- marks --------------------------------------------------------------------------------------


def test_s2_3_a_mark_stands_where_it_was_put():
    inbox = make()
    put(inbox, "a")
    inbox.mark(gap(1))
    put(inbox, "b")
    inbox.mark(Overflow(2))

    assert ["a", gap(1), "b", Overflow(2)] == take_all(inbox)


def test_s2_3_adjacent_marks_of_a_kind_are_one():
    inbox = make()
    put(inbox, "a")
    for mark in (gap(1), gap(2), Overflow(1), gap(3), Overflow(4), Overflow(5)):
        inbox.mark(mark)
    joined = Gap(after=1, before=4, since=1.0, until=3.5, reason="the end of 1")

    assert ["a", joined, Overflow(10)] == take_all(inbox)


def test_s2_3_gaps_that_are_joined_begin_behind_the_first_position_and_end_before_the_last():
    inbox = make()
    inbox.mark(attrs.evolve(gap(1), after_position=10, before_position=20))
    inbox.mark(attrs.evolve(gap(2), after_position=25, before_position=30))

    joined = attrs.evolve(gap(1), before=3, until=2.5, after_position=10, before_position=30)
    assert [joined] == take_all(inbox)


def test_s2_3_a_mark_that_was_taken_is_not_joined_any_more():
    inbox = make()
    inbox.mark(gap(1))

    assert inbox.is_mark(inbox.take_nowait())
    inbox.mark(gap(2))

    assert [gap(2)] == take_all(inbox)


def test_s2_3_marks_need_no_room():
    inbox = make()
    for number in range(3):
        put(inbox, str(number))
        inbox.mark(gap(number))
        inbox.mark(Overflow(1))

    assert inbox.has_room
    assert (9, 3) == (len(inbox), inbox.messages)
    put(inbox, "beyond")

    assert not inbox.has_room


def test_marks_are_told_from_messages_and_counted():
    inbox = make()
    put(inbox, "a", "b")
    inbox.mark(gap(1))

    assert ["a", "b"] == inbox.sort(inbox.take_all()[0])
    assert (0, 1, 2) == (inbox.messages, inbox.marks_taken, inbox.messages_taken)


def test_after_the_end_nothing_is_marked():
    inbox = make()
    inbox.mark(gap(1))
    inbox.end()
    inbox.mark(gap(2))

    assert [gap(1)] == take_all(inbox)


def test_an_end_that_discards_leaves_no_marks():
    inbox = make()
    inbox.mark(gap(1))
    inbox.end(discard=True)

    assert (0, 0) == (len(inbox), inbox.messages)


async def test_a_mark_wakes_a_taker(nursery, autojump_clock):
    inbox = make()
    taken = []

    async def take():
        taken.append(await inbox.take())

    nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()
    inbox.mark(gap(1))
    await trio.testing.wait_all_tasks_blocked()

    assert [gap(1)] == taken


# --- block --------------------------------------------------------------------------------------


async def test_s2_3_block_makes_the_reader_wait_until_there_is_room(nursery, autojump_clock):
    inbox = make()
    put(inbox, *"abcd")
    inbox.mark(gap(1))
    read_on = []

    async def read():
        await inbox.wait_for_room()
        read_on.append(inbox.messages)

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()

    assert ([], 0) == (read_on, inbox.dropped)
    inbox.take_nowait()
    await trio.testing.wait_all_tasks_blocked()

    assert [3] == read_on


# --- drop_oldest --------------------------------------------------------------------------------


def test_s2_3_drop_oldest_keeps_the_newest_and_says_how_many_are_missing():
    inbox = make(OverflowPolicy.DROP_OLDEST)
    put(inbox, *"ab")
    put(inbox, *"cdef")

    assert inbox.has_room
    assert [Overflow(3), "d", "e", "f"] == take_all(inbox)
    assert 3 == inbox.dropped


def test_s2_3_drop_oldest_adds_to_the_overflow_that_stands_there():
    inbox = make(OverflowPolicy.DROP_OLDEST)
    for number in range(100):
        put(inbox, str(number))

    assert [Overflow(97), "97", "98", "99"] == take_all(inbox)


def test_s2_3_drop_oldest_joins_the_gaps_that_come_to_stand_together():
    inbox = make(OverflowPolicy.DROP_OLDEST)
    for number in range(20):
        put(inbox, f"{number}a", f"{number}b")
        inbox.mark(gap(number))
    joined = Gap(after=0, before=18, since=0.0, until=17.5, reason="the end of 0")

    assert [Overflow(37), joined, "18b", gap(18), "19a", "19b", gap(19)] == take_all(inbox)


def test_s2_3_drop_oldest_joins_the_gap_behind_what_it_drops():
    inbox = make(OverflowPolicy.DROP_OLDEST)
    inbox.mark(gap(1))
    put(inbox, "a")
    inbox.mark(gap(2))
    put(inbox, *"bcd")
    joined = Gap(after=1, before=3, since=1.0, until=2.5, reason="the end of 1")

    assert [joined, Overflow(1), "b", "c", "d"] == take_all(inbox)


def test_s2_3_drop_oldest_after_a_part_was_taken():
    inbox = make(OverflowPolicy.DROP_OLDEST)
    put(inbox, *"abcd")

    assert inbox.is_mark(inbox.take_nowait())
    assert "b" == inbox.take_nowait()
    put(inbox, *"efg")

    assert [Overflow(2), "e", "f", "g"] == take_all(inbox)
    assert (3, 4) == (inbox.dropped, inbox.messages_taken)


def test_s2_3_drop_oldest_keeps_to_the_bytes():
    inbox = make(OverflowPolicy.DROP_OLDEST, inbox_messages=math.inf, inbox_size=10)
    put(inbox, "aaaa", "bbbb", "cc")

    assert ["aaaa", "bbbb", "cc"] == inbox.batches.pop_all()
    put(inbox, "aaaa", "bbbb", "ccc")

    assert 7 == inbox.size
    assert [Overflow(1), "bbbb", "ccc"] == take_all(inbox)


@pytest.mark.parametrize("policy", [OverflowPolicy.DROP_OLDEST, OverflowPolicy.DROP_NEWEST])
@pytest.mark.parametrize("bounds", [{"inbox_messages": 0}, {"inbox_size": 2}])
def test_s2_3_one_message_waits_also_where_it_is_larger_than_the_bound(policy, bounds):
    inbox = make(policy, **bounds)
    put(inbox, "large")

    assert inbox.has_room
    assert ["large"] == take_all(inbox)
    assert 0 == inbox.dropped


# --- drop_newest --------------------------------------------------------------------------------


def test_s2_3_drop_newest_keeps_the_oldest_and_says_how_many_are_missing():
    inbox = make(OverflowPolicy.DROP_NEWEST)
    put(inbox, *"ab")
    put(inbox, *"cdef")
    put(inbox, "g")

    assert inbox.has_room
    assert ["a", "b", "c", Overflow(4)] == take_all(inbox)
    assert 4 == inbox.dropped


def test_s2_3_drop_newest_says_where_messages_are_missing():
    inbox = make(OverflowPolicy.DROP_NEWEST, inbox_messages=2)
    put(inbox, *"abc")

    assert "a" == inbox.take_nowait()
    put(inbox, *"def")

    assert ["b", Overflow(1), "d", Overflow(2)] == take_all(inbox)


def test_s2_3_drop_newest_keeps_to_the_bytes():
    inbox = make(OverflowPolicy.DROP_NEWEST, inbox_size=10)
    put(inbox, "aaaa", "bbbbbb", "c")

    assert ["aaaa", "bbbbbb", Overflow(1)] == take_all(inbox)


def test_s2_3_drop_newest_over_outages_does_not_fill_with_marks():
    inbox = make(OverflowPolicy.DROP_NEWEST)
    put(inbox, *"abc")
    for number in range(50):
        put(inbox, "dropped")
        inbox.mark(gap(number))
    joined = Gap(after=0, before=50, since=0.0, until=49.5, reason="the end of 0")

    assert ["a", "b", "c", Overflow(50), joined] == take_all(inbox)


# --- conflate -----------------------------------------------------------------------------------


def conflating(**limits):
    return make(OverflowPolicy.CONFLATE, lambda message: message[:1] or None, **limits)


def test_s2_3_conflate_keeps_all_while_there_is_room():
    inbox = conflating()
    put(inbox, "a1", "a2", "a3")

    assert ["a1", "a2", "a3"] == take_all(inbox)


def test_s2_3_conflate_keeps_the_newest_of_each_key():
    inbox = conflating()
    put(inbox, "a1", "b1", "a2", "c1", "a3", "b2")

    assert inbox.has_room
    assert [Overflow(3), "c1", "a3", "b2"] == take_all(inbox)
    assert 3 == inbox.dropped


def test_s2_3_conflate_says_where_messages_are_missing():
    inbox = conflating(inbox_messages=3)
    put(inbox, "a1", "b1", "a2", "b2")
    put(inbox, "c1")
    inbox.mark(gap(1))
    put(inbox, "a3", "d1")

    assert ["b2", "c1", gap(1), "a3", "d1"] == [
        item for item in take_all(inbox) if not isinstance(item, Overflow)
    ]
    assert 3 == inbox.dropped


def test_s2_3_conflate_blocks_where_too_many_keys_wait():
    inbox = conflating()
    put(inbox, "a1", "b1", "c1", "d1")

    assert not inbox.has_room
    assert ["a1", "b1", "c1", "d1"] == take_all(inbox)
    assert inbox.has_room


def test_s2_3_conflate_never_replaces_a_message_without_a_key():
    inbox = conflating()
    put(inbox, "", "a1", "", "a2", "")

    assert ["", Overflow(1), "", "a2", ""] == take_all(inbox)


def test_s2_3_conflate_asks_each_message_for_its_key_once():
    asked = []

    def key(message):
        asked.append(message)
        return message[:1]

    inbox = make(OverflowPolicy.CONFLATE, key)
    for number in range(10):
        put(inbox, f"a{number}", f"b{number}", f"c{number}")

    assert sorted({*asked}) == sorted(asked)
    assert [Overflow(27), "a9", "b9", "c9"] == take_all(inbox)


@pytest.mark.parametrize("answer", [[], ZeroDivisionError()], ids=["unhashable", "raises"])
def test_s2_3_a_key_that_fails_is_no_key_and_told(answer):
    def key(message):
        if isinstance(answer, Exception):
            raise answer
        return answer

    errors = []
    inbox = Inbox(
        Limits(inbox_messages=1, inbox_overflow=OverflowPolicy.CONFLATE, inbox_key=key),
        failed=errors.append,
    )
    put(inbox, "a", "b")

    assert ["a", "b"] == take_all(inbox)
    assert [ZeroDivisionError if isinstance(answer, Exception) else TypeError] * 2 == [
        *map(type, errors)
    ]


# --- telling ------------------------------------------------------------------------------------


def test_s2_3_an_overflow_is_told_when_it_begins_and_when_it_is_over():
    told = []
    inbox = make(OverflowPolicy.DROP_OLDEST, told=told, inbox_messages=4)
    for _ in range(20):
        put(inbox, *"abc")

    assert [2] == told
    inbox.take_nowait()
    inbox.take_nowait()
    put(inbox, "d")

    assert [2] == told
    take_all(inbox)
    put(inbox, "e")

    assert [2, 56] == told
    put(inbox, "f")

    assert [2, 56] == told


def test_s2_3_the_end_tells_of_an_overflow_that_is_not_over():
    told = []
    inbox = make(OverflowPolicy.DROP_NEWEST, told=told)
    put(inbox, *"abcde")
    inbox.end()

    assert [2, 2] == told
    put(inbox, "late")

    assert ["a", "b", "c", Overflow(2)] == take_all(inbox)


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [OverflowPolicy.BLOCK, OverflowPolicy.DROP_OLDEST])
def test_s2_6_what_is_recognised_does_not_get_in(policy):
    inbox = make(policy)
    answers = []

    def recognise(message):
        if message.startswith("ack"):
            answers.append(message)
            return True
        return False

    inbox.recognise = recognise
    put(inbox, "a", "ack 1", "ack 2", "b")
    put(inbox, "ack 3")

    assert ["ack 1", "ack 2", "ack 3"] == answers
    assert 2 == inbox.size
    assert ["a", "b"] == take_all(inbox)


# --- overruns -----------------------------------------------------------------------------------


class Reader:
    """Reads ``size`` bytes at a time for as long as it may."""

    def __init__(self, inbox, size=100):
        self.inbox = inbox
        self.message = "x" * size
        self.read = 0

    async def run(self):
        while True:
            while not self.inbox.has_room:
                await self.inbox.wait_for_room()
            put(self.inbox, self.message)
            self.read += 1
            await trio.lowlevel.checkpoint()


@pytest.fixture
async def reader(nursery, autojump_clock):
    inbox = make(inbox_overrun=20 * (100 + MESSAGE_COST))
    reader = Reader(inbox)
    nursery.start_soon(reader.run)
    await trio.testing.wait_all_tasks_blocked()

    assert 4 == reader.read
    return reader


async def test_s2_6_while_somebody_waits_reading_goes_on_beyond_the_bound(nursery, autojump_clock):
    inbox = make()
    answered = trio.Event()
    inbox.recognise = lambda message: message == "answer" and not answered.set()

    async def read():
        for message in ["x"] * 100 + ["answer"]:
            await inbox.wait_for_room()
            put(inbox, message)

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()

    assert (4, False) == (len(inbox), answered.is_set())
    with inbox.overrun():
        await answered.wait()

    assert 100 == len(inbox)
    assert not inbox.has_room


async def test_s2_6_an_overrun_that_is_used_up_makes_those_who_wait_give_up(reader):
    with pytest.raises(InboxFull) as caught, reader.inbox.overrun():
        await trio.sleep_forever()

    assert "25 messages, 2500 bytes wait to be taken" in str(caught.value)
    assert (25, 2500) == (caught.value.messages, caught.value.size)
    assert 25 == reader.read


async def test_s2_6_whoever_waits_where_nothing_is_left_gives_up_at_once(reader):
    for _ in range(3):
        with pytest.raises(InboxFull), reader.inbox.overrun():
            await trio.sleep_forever()

    # One more wait is no more room.
    assert 25 == reader.read


async def test_s2_6_all_who_wait_give_up(reader, nursery):
    given_up = []

    async def wait():
        with pytest.raises(InboxFull), reader.inbox.overrun():
            await trio.sleep_forever()
        given_up.append(True)

    for _ in range(3):
        nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()

    assert [True] * 3 == given_up


async def test_s2_6_the_wait_is_over_when_the_last_one_is(reader):
    with reader.inbox.overrun():
        with reader.inbox.overrun():
            pass

        assert reader.inbox.has_room
    assert not reader.inbox.has_room
    await trio.testing.wait_all_tasks_blocked()

    assert 4 == reader.read


async def test_s2_6_what_was_taken_can_be_overrun_again(reader):
    with pytest.raises(InboxFull), reader.inbox.overrun():
        await trio.sleep_forever()
    # Not below the bound: it is still the same overrun.
    for _ in range(10):
        reader.inbox.take_nowait()
    with pytest.raises(InboxFull), reader.inbox.overrun():
        await trio.sleep_forever()

    assert (25, 35) == (len(reader.inbox), reader.read)
    reader.inbox.take_all()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(InboxFull), reader.inbox.overrun():
        await trio.sleep_forever()

    assert 25 == len(reader.inbox)


async def test_s2_6_empty_messages_use_an_overrun_up_too(nursery, autojump_clock):
    inbox = make(inbox_overrun=100 * MESSAGE_COST)
    reader = Reader(inbox, size=0)
    nursery.start_soon(reader.run)
    with pytest.raises(InboxFull), inbox.overrun():
        await trio.sleep_forever()

    assert 105 == reader.read


async def test_s2_6_an_answer_that_comes_last_is_in_time(reader):
    # What ended the wait ends it, also where the reader has given the wait up in the same step.
    with reader.inbox.overrun() as nothing:
        for scope in reader.inbox._waits:
            scope.cancel()

    assert None is nothing


async def test_another_cancellation_is_no_full_inbox(reader):
    with trio.CancelScope() as scope, reader.inbox.overrun():
        scope.cancel()
        await trio.sleep_forever()

    assert scope.cancelled_caught
    assert not reader.inbox.has_room


# --- one connection's way in --------------------------------------------------------------------


async def test_an_inlet_listens_to_what_comes_by_its_connection(nursery, autojump_clock):
    inbox = make()
    heard = []

    def hear(message):
        heard.append(message)
        return message == "pong"

    inlet = Inlet(inbox, hear)
    inlet.put(["a", "pong", "b"], 6)
    put(inbox, "pong")

    assert ["a", "pong", "b"] == heard
    assert inlet.has_room
    assert ["a", "b", "pong"] == inbox.batches.pop_all()
    await inlet.wait_for_room()
    with trio.move_on_after(1) as scope:
        await inlet.wait_wanted()

    assert scope.cancelled_caught


async def test_s2_5_what_comes_from_a_connection_that_was_left_is_counted():
    stale = Stale()
    stale.put(["a", "b"], 2)
    stale.put([], 0)
    await stale.wait_for_room()
    await stale.wait_wanted()

    assert (True, 2) == (stale.has_room, stale.messages)
