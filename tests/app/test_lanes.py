"""Several messages at work at once, in order where it matters, and no more than there is room."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from wsclient.app._lanes import Lanes
from wsclient.app._work import Work


class Handler:
    """Takes a second for each message, and notes what was at work."""

    def __init__(self):
        self.now = 0
        self.peak = 0
        self.began = []
        self.ended = []

    async def handle(self, message, seconds=1.0):
        self.began.append(message)
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await trio.sleep(seconds)
            self.ended.append(message)
        finally:
            self.now -= 1


@pytest.fixture
def handler():
    return Handler()


async def test_as_many_are_at_work_as_there_may_be(autojump_clock, handler):
    work = Work()
    lanes = Lanes(3, work)
    async with trio.open_nursery() as nursery:
        for number in range(9):
            await lanes.put(object(), partial(handler.handle, number), nursery)

        # The last three were taken in when the three before them were done.
        assert 2 == trio.current_time()

    assert 3 == trio.current_time()
    assert 3 == handler.peak
    assert list(range(9)) == sorted(handler.ended)
    assert 0 == work.count


async def test_those_of_one_key_are_in_order_one_after_the_other(autojump_clock, handler):
    lanes = Lanes(4, Work())
    async with trio.open_nursery() as nursery:
        for number in range(4):
            for key in "ab":
                job = partial(handler.handle, (key, number), seconds=1 / (number + 1))
                await lanes.put(key, job, nursery)

    assert 2 == handler.peak
    for key in "ab":
        own = [message for message in handler.began if message[0] == key]

        assert [(key, number) for number in range(4)] == own
        assert own == [message for message in handler.ended if message[0] == key]


async def test_a_key_that_is_slow_leaves_others_their_room_until_as_many_wait(
    autojump_clock, handler
):
    work = Work()
    lanes = Lanes(2, work)
    async with trio.open_nursery() as nursery:
        for number in range(3):
            await lanes.put("slow", partial(handler.handle, number, seconds=10), nursery)
        await lanes.put("quick", partial(handler.handle, "quick", seconds=0), nursery)

        assert 0 == trio.current_time()
        assert 4 == work.count
        # One is at work, and two wait: that is as many as may.
        await lanes.put("slow", partial(handler.handle, 3, seconds=0), nursery)

        assert 10 == trio.current_time()
        assert [0, "quick"] == sorted(handler.ended, key=str)

    assert 0 == work.count


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
async def test_nothing_counts_any_more_once_one_has_ended_it_all(autojump_clock, handler, how):
    async def fail():
        await trio.sleep(1)
        if how == "raises":
            raise LookupError("mine")
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    work = Work()
    lanes = Lanes(3, work)
    caught = None
    try:
        async with trio.open_nursery() as nursery:
            await lanes.put("a", fail, nursery)
            for _ in range(3):
                await lanes.put("a", partial(handler.handle, "never"), nursery)
            await lanes.put("b", partial(handler.handle, "cut", seconds=5), nursery)
    except* LookupError as group:
        caught = group

    assert (how == "raises") == (caught is not None)
    assert [] == handler.ended
    assert ["cut"] == handler.began
    assert 0 == work.count
    # And there is room again, for who serves once more.
    async with trio.open_nursery() as nursery:
        with trio.fail_after(0.5):
            for number in range(5):
                await lanes.put("ab"[number % 2], partial(handler.handle, number), nursery)
    assert list(range(5)) == sorted(handler.ended)


async def test_who_waits_for_room_can_be_cancelled(autojump_clock, handler):
    work = Work()
    lanes = Lanes(1, work)
    async with trio.open_nursery() as nursery:
        await lanes.put("a", partial(handler.handle, "a", seconds=5), nursery)
        with trio.move_on_after(1) as scope:
            await lanes.put("b", partial(handler.handle, "b"), nursery)

        assert scope.cancelled_caught
        assert 1 == work.count

    assert ["a"] == handler.ended
