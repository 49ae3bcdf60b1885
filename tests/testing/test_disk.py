"""The disk of the simulator: it takes its time, fails, and outlives whoever writes to it."""

import pytest
import trio

from wsclient.errors import OutboxDiskFull, OutboxIOError, OutboxLocked
from wsclient.events import Delivery
from wsclient.session._storage import Add, Mark, Remove, Stored, Unmark
from wsclient.testing._disk import Disk, DiskOutbox, Failing


def message(id):
    return Stored(id=id, message="hello", delivery=Delivery.QUEUED)


@pytest.fixture
def disk(nursery):
    return Disk(2.0, nursery)


class Process:
    """Has a disk open."""

    def __init__(self, disk):
        self.storage = DiskOutbox("outbox.db", disk=disk).storage()
        self.limiter = trio.CapacityLimiter(1)

    async def call(self, function, *args):
        return await self.storage.run_sync(
            function, *args, abandon_on_cancel=True, limiter=self.limiter
        )

    async def open(self):
        return await self.call(self.storage.open)

    async def commit(self, *changes):
        await self.call(self.storage.commit, changes)

    async def close(self):
        await self.call(self.storage.close)


@pytest.fixture
def process(disk):
    return Process(disk)


async def test_what_was_committed_is_found_by_the_next_process_in_its_order(
    autojump_clock, disk, process
):
    assert [] == await process.open()
    await process.commit(Add(message("a")), Add(message("b")), Add(message("c")))
    await process.commit(Mark("a"), Mark("b"), Mark("b"), Unmark("a"), Remove("c"))
    await process.close()
    found = await Process(disk).open()

    assert [("a", 0), ("b", 2)] == [(stored.id, stored.attempts) for stored in found]
    assert 2 == disk.commits


async def test_a_commit_takes_its_time_and_happens_in_the_middle_of_it(
    autojump_clock, disk, process, nursery
):
    began = trio.current_time()
    nursery.start_soon(process.commit, Add(message("a")))
    await trio.sleep(0.9)

    assert {} == disk.messages
    await trio.sleep(0.2)

    assert ["a"] == list(disk.messages)
    async with process.limiter:
        assert began + 2.0 == trio.current_time()


async def test_a_process_has_the_disk_alone(autojump_clock, disk, process):
    await process.open()
    another = Process(disk)
    with pytest.raises(OutboxLocked):
        await another.open()
    await another.close()
    with pytest.raises(OutboxLocked):
        await another.open()
    await process.close()

    assert [] == await another.open()


@pytest.mark.parametrize("failing", Failing)
async def test_a_disk_fails_and_recovers(autojump_clock, disk, process, failing):
    await process.open()
    await process.commit(Add(message("a")))
    kind = OutboxIOError if failing is Failing.BROKEN else OutboxDiskFull
    disk.change(failing=failing)
    with pytest.raises(kind, match=failing.value):
        await process.commit(Add(message("b")))
    if failing is Failing.FULL:
        await process.commit(Remove("a"))
    else:
        with pytest.raises(kind):
            await process.commit(Remove("a"))
        with pytest.raises(kind):
            disk.read()

    assert not disk.is_well
    disk.change()
    await process.commit(Add(message("b")))

    assert disk.is_well
    assert "b" in disk.messages


@pytest.mark.parametrize("is_late", [False, True])
async def test_of_a_commit_under_way_a_crash_leaves_everything_or_nothing(
    autojump_clock, disk, process, nursery, is_late
):
    errors = []

    async def commit():
        try:
            await process.commit(Add(message("a")), Add(message("b")))
        except OutboxIOError as error:
            errors.append(error)

    await process.open()
    nursery.start_soon(commit)
    await trio.sleep(1.5 if is_late else 0.5)
    disk.kill(brings_back=True)
    await trio.sleep(3)

    assert (["a", "b"] if is_late else []) == list(disk.messages)
    assert 1 == len(errors), "whoever waits is not left waiting"
    assert (2 if is_late else 0) == len(await Process(disk).open())


async def test_a_process_that_was_killed_writes_no_more(autojump_clock, disk, process):
    await process.open()
    disk.kill(brings_back=False)
    with pytest.raises(OutboxIOError):
        await process.commit(Add(message("a")))
    with pytest.raises(OutboxIOError):
        await process.commit(Add(message("a")))

    assert {} == disk.messages


async def test_a_disk_that_nobody_has_can_lose_its_process(autojump_clock, disk):
    disk.kill(brings_back=True)

    assert {} == disk.messages


@pytest.mark.parametrize(
    ("brings_back", "is_followed", "expected"),
    [(True, False, ["a"]), (False, False, []), (True, True, ["b"])],
)
async def test_what_a_failed_commit_has_left_may_come_back_unless_another_has_succeeded(
    autojump_clock, disk, process, brings_back, is_followed, expected
):
    await process.open()
    disk.change(failing=Failing.BROKEN)
    with pytest.raises(OutboxIOError):
        await process.commit(Add(message("a")))
    disk.change()
    if is_followed:
        await process.commit(Add(message("b")))
    disk.kill(brings_back=brings_back)

    assert expected == list(disk.messages)


async def test_what_hangs_goes_on_once_all_is_well_although_nobody_waits(
    autojump_clock, disk, process
):
    await process.open()
    disk.change(hangs=True)
    with trio.move_on_after(10) as patience:
        await process.commit(Add(message("a")))

    assert patience.cancelled_caught
    assert {} == disk.messages
    disk.change()

    assert not disk.is_well, "work is under way that began when it was not"
    # In its turn, as one thread after the other.
    await process.close()

    assert ["a"] == list(disk.messages)
    assert disk.is_well


async def test_a_slow_disk_is_slow(autojump_clock, disk, process):
    disk.change(latency=5.0)
    began = trio.current_time()
    await process.open()

    assert 5.0 == trio.current_time() - began


async def test_whoever_waits_is_told_that_work_begins(autojump_clock, disk, process, nursery):
    nursery.start_soon(process.open)
    await disk.stirred.park()
    await trio.sleep(1.5)

    assert disk.owner is process.storage


async def test_its_clock_is_that_of_every_process(autojump_clock, disk, process):
    await trio.sleep(7)

    assert trio.current_time() == process.storage.now() == Process(disk).storage.now()
