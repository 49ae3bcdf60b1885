"""Who stops waits for what is at work."""

from __future__ import annotations

import trio

from wsclient.app._work import Work


async def test_waiting_ends_when_the_last_of_it_is_done(autojump_clock):
    work = Work()
    await work.wait_done()
    work.begin()
    work.begin()
    waited = []

    async def wait():
        await work.wait_done()
        waited.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        work.end()
        await trio.sleep(1)

        assert [] == waited
        work.end()

    assert [2] == waited
    assert 0 == work.count


async def test_waiting_goes_on_where_something_has_begun_meanwhile(autojump_clock):
    work = Work()
    work.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.wait_done)
        await trio.testing.wait_all_tasks_blocked()
        work.end()
        work.begin()
        await trio.sleep(3)
        work.end()

    assert 3 == trio.current_time()
