"""An event that takes no memory until someone waits for it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wsclient.connection._signal import Signal


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
