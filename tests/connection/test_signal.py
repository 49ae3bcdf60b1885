"""What tasks wait for, and what takes no memory until one does."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wsclient.connection._signal import Lot, Signal


async def test_setting_it_wakes_all_who_wait_and_who_wait_later(nursery):
    signal = Signal()
    woken = []

    async def wait(name):
        await signal.wait()
        woken.append(name)

    nursery.start_soon(wait, "first")
    nursery.start_soon(wait, "second")
    await trio.testing.wait_all_tasks_blocked()

    assert [] == woken
    assert not signal.is_set()

    signal.set()
    await trio.testing.wait_all_tasks_blocked()
    await wait("late")

    assert ["first", "second", "late"] == sorted(woken, key=["first", "second", "late"].index)
    assert signal.is_set()


@pytest.mark.parametrize("is_set", [False, True])
async def test_waiting_is_a_point_of_cancellation(is_set):
    signal = Signal()
    if is_set:
        signal.set()
    with trio.CancelScope() as scope:
        scope.cancel()
        await signal.wait()

    assert scope.cancelled_caught


async def test_a_lot_wakes_as_many_as_are_wanted_in_their_order(nursery):
    lot = Lot()
    woken = []

    async def wait(name):
        await lot.park()
        woken.append(name)

    for name in ("first", "second", "third"):
        nursery.start_soon(wait, name)
        await trio.testing.wait_all_tasks_blocked()

    assert 3 == len(lot)

    lot.unpark()
    await trio.testing.wait_all_tasks_blocked()

    assert ["first"] == woken

    lot.unpark_all()
    await trio.testing.wait_all_tasks_blocked()

    assert ["first", "second", "third"] == sorted(woken, key=["first", "second", "third"].index)
    assert not lot


def test_a_lot_where_nobody_has_waited_has_nobody_to_wake():
    lot = Lot()
    lot.unpark(3)
    lot.unpark_all()

    assert 0 == len(lot)
