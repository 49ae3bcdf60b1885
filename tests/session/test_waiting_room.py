"""What a second connection has brought waits, up to a bound, for what comes before it."""

from __future__ import annotations

import pytest
import trio

from wsclient.session._feed import Item
from wsclient.session._inbox import MESSAGE_COST
from wsclient.session._waiting_room import WaitingRoom


@pytest.mark.parametrize("kind", ["messages", "values"])
def test_what_waits_is_bounded(kind):
    room = WaitingRoom(max_size=3 * MESSAGE_COST + 21)
    waiting = 0
    while room.has_room:
        if kind == "messages":
            room.put(["message"], 7)
        else:
            room.hold("message", None, Item(1))
        waiting += 1

    assert waiting == 4


def test_messages_and_values_are_bounded_together():
    room = WaitingRoom(max_size=2 * MESSAGE_COST + 14)
    room.put(["message"], 7)
    room.hold("message", None, Item(1))
    assert room.has_room

    room.put(["m"], 1)

    assert not room.has_room


@pytest.mark.parametrize("wait", ["wait_for_room", "wait_wanted"])
async def test_there_is_room_again_once_nothing_waits_any_more(autojump_clock, nursery, wait):
    room = WaitingRoom(max_size=0)
    room.put(["one", "two"], 6)
    room.hold("message", None, Item(1))

    with trio.move_on_after(1) as patience:
        await getattr(room, wait)()
    assert patience.cancelled_caught
    assert (["one", "two"], 6) == room.end()
    await getattr(room, wait)()
    assert room.has_room
    assert [Item] == [type(item) for _, item, _ in room.values]
