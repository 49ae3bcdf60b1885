"""The journal: commits shared, nobody held up, and everybody told the truth."""

from __future__ import annotations

import functools
import threading

import pytest
import trio
import trio.testing

from wsclient import errors
from wsclient.events import Delivery
from wsclient.session._journal import CLOSING, LINGER, PATIENCE, RETRY_AFTER, Journal
from wsclient.session._storage import Add, Mark, Remove, SqliteOutbox, Stored, Unmark


def message(id):
    return Stored(id=id, message="hello", delivery=Delivery.QUEUED)


class Disk:
    """A storage in memory, and what stands for its thread: it can hang, and it can fail."""

    def __init__(self):
        self.commits = []
        """The commits that succeeded, as tuples of changes."""
        self.tries = 0
        self.failures = []
        """What the next commits raise; ``None`` for one that does not."""
        self.broken = None
        """What every commit raises."""
        self.is_closed = False
        self._answers = trio.Event()
        self._answers.set()

    def hang(self):
        self._answers = trio.Event()

    def answer(self):
        self._answers.set()

    async def run_sync(self, function, *args, abandon_on_cancel, limiter):
        assert abandon_on_cancel
        async with limiter:
            await self._answers.wait()
        return function(*args)

    def open(self):
        if self.broken is not None:
            raise self.broken
        return [message("old")]

    def commit(self, changes):
        self.tries += 1
        failure = self.failures.pop(0) if self.failures else self.broken
        if failure is not None:
            raise failure
        self.commits.append(tuple(changes))

    def close(self):
        self.is_closed = True

    @property
    def added(self):
        """The ids of the messages that it has."""
        ids = []
        for change in (change for commit in self.commits for change in commit):
            if isinstance(change, Add):
                ids.append(change.stored.id)
            elif isinstance(change, Remove) and change.id in ids:
                ids.remove(change.id)
        return ids


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def told():
    """What the journal told."""
    return []


@pytest.fixture
async def journal(disk, told, autojump_clock, nursery):
    """A journal that runs, on virtual time."""
    # pytest-trio looks for a clock among a test's own arguments only.
    assert autojump_clock is trio.lowlevel.current_clock(), "the test must ask for autojump_clock"
    journal = Journal(disk, tell=told.append, run_sync=disk.run_sync)
    nursery.start_soon(journal.run)
    await trio.testing.wait_all_tasks_blocked()
    return journal


class Sender:
    """Adds a message in a task of its own."""

    def __init__(self, journal, nursery, id):
        self.scope = trio.CancelScope()
        self.outcome = None
        """``"added"``, ``"cancelled"`` or the exception."""
        self.at = None
        nursery.start_soon(self._add, journal, id)

    async def _add(self, journal, id):
        with self.scope:
            try:
                await journal.add(message(id))
                self.outcome = "added"
            except Exception as error:
                self.outcome = error
        self.outcome = self.outcome or "cancelled"
        self.at = trio.current_time()


@pytest.fixture
def send(journal, nursery):
    return functools.partial(Sender, journal, nursery)


settled = trio.testing.wait_all_tasks_blocked


# --- commits ------------------------------------------------------------------------------------


async def test_what_was_stored_is_returned_when_opening(journal, autojump_clock):
    assert [message("old")] == await journal.open()


async def test_s1_9_adding_returns_when_the_message_is_on_the_disk(journal, disk, autojump_clock):
    await journal.add(message("a"))

    assert [(Add(message("a")),)] == disk.commits


async def test_what_comes_during_a_commit_shares_the_next_one(journal, disk, send, autojump_clock):
    disk.hang()
    first = send("first")
    await settled()
    others = [send(str(number)) for number in range(100)]
    journal.mark_soon(["first"])
    journal.remove_soon("first")
    await settled()

    assert not any(sender.outcome for sender in (first, *others))
    disk.answer()
    await settled()

    assert [1, 102] == [len(commit) for commit in disk.commits]
    assert (2, 103) == (journal.commits, journal.changes)
    assert {"added"} == {sender.outcome for sender in others}


async def test_changes_are_committed_in_the_order_in_which_they_came(journal, disk, autojump_clock):
    disk.hang()
    journal.mark_soon(["x"])
    await settled()
    journal.mark_soon(["b", "a"])
    journal.remove_soon("b")
    journal.mark_soon(["a"])
    disk.answer()
    await settled()

    assert [(Mark("x"),), (Mark("b"), Mark("a"), Remove("b"), Mark("a"))] == disk.commits


async def test_who_waits_is_called_in_the_order_of_the_disk(journal, disk, nursery, autojump_clock):
    called = []
    disk.hang()
    journal.mark_soon(["x"])
    await settled()
    for number in range(20):
        id = str(number)
        nursery.start_soon(journal.add, message(id), functools.partial(called.append, id))
    await settled()
    journal.mark_soon(["m"], lambda: called.append("m"))

    assert [] == called
    disk.answer()
    await settled()

    assert [*disk.added, "m"] == called


async def test_s1_9_a_mark_is_told_once_when_it_is_on_the_disk(journal, disk, autojump_clock):
    told = []
    journal.mark_soon(["a"], lambda: told.append(list(disk.commits)))
    await settled()

    assert [[(Mark("a"),)]] == told


async def test_marks_are_taken_back_behind_what_marks(journal, disk, autojump_clock):
    told = []
    journal.mark_soon(["a"], lambda: told.append("marked"))
    journal.unmark_soon(["a"], lambda: told.append("unmarked"))
    await settled()

    assert [(Mark("a"), Unmark("a"))] == disk.commits
    assert ["marked", "unmarked"] == told


async def test_a_message_for_which_nobody_waits_is_told_of_all_the_same(
    journal, disk, autojump_clock
):
    told = []
    disk.failures = [errors.OutboxDiskFull("full"), None]
    for id in "ab":
        item = journal.add_soon(
            message(id), lambda id=id: told.append(id), lambda error: told.append(type(error))
        )
        await settled()

    assert [errors.OutboxDiskFull, "b"] == told
    assert item.is_answered


async def test_a_journal_that_is_closed_says_at_once_that_it_takes_nothing_more(
    journal, disk, autojump_clock
):
    await journal.aclose()
    item = journal.add_soon(message("a"))

    assert isinstance(item.error, trio.ClosedResourceError)
    with pytest.raises(trio.ClosedResourceError):
        await journal.wait(item)


async def test_closing_commits_messages_for_which_nobody_waits(disk, autojump_clock):
    journal = Journal(disk, run_sync=disk.run_sync)
    await journal.open()
    journal.add_soon(message("a"))
    await journal.aclose()

    assert ["a"] == disk.added


async def test_a_removal_goes_with_the_next_commit_or_soon_alone(journal, disk, autojump_clock):
    journal.remove_soon("a")
    await trio.sleep(LINGER / 2)
    journal.remove_soon("b")
    await settled()

    assert [] == disk.commits
    await journal.add(message("c"))
    journal.remove_soon("d")
    await trio.sleep(1.5 * LINGER)

    assert [(Remove("a"), Remove("b"), Add(message("c"))), (Remove("d"),)] == disk.commits


# --- cancellation -------------------------------------------------------------------------------


async def test_s1_3_cancelled_before_its_commit_begins_a_message_is_taken_back(
    journal, disk, send, autojump_clock
):
    disk.hang()
    send("first")
    await settled()
    second, third = send("second"), send("third")
    await settled()
    second.scope.cancel()
    await settled()

    assert "cancelled" == second.outcome
    disk.answer()
    await settled()

    assert "added" == third.outcome
    assert ["first", "third"] == disk.added


async def test_s1_3_cancelled_before_it_begins_adding_accepts_nothing(
    journal, disk, autojump_clock
):
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.add(message("a"))

    assert scope.cancelled_caught
    assert 0 == disk.tries


async def test_s1_3_cancelled_during_its_commit_a_message_is_accepted(
    journal, disk, send, autojump_clock
):
    disk.hang()
    sender = send("a")
    await settled()
    sender.scope.cancel()
    await settled()

    assert sender.outcome is None
    disk.answer()
    await settled()

    assert "added" == sender.outcome
    assert ["a"] == disk.added


async def test_s1_3_cancelled_during_a_commit_that_fails_the_failure_is_told(
    journal, disk, send, autojump_clock
):
    disk.hang()
    disk.failures = [errors.OutboxDiskFull("full")]
    sender = send("a")
    await settled()
    sender.scope.cancel()
    disk.answer()
    await settled()

    assert isinstance(sender.outcome, errors.OutboxDiskFull)


async def test_a_disk_that_hangs_holds_a_cancelled_sender_for_a_second_at_most(
    journal, disk, send, autojump_clock
):
    disk.hang()
    sender = send("a")
    await settled()
    sender.scope.cancel()
    await trio.sleep(PATIENCE + 1)

    assert PATIENCE == sender.at
    assert isinstance(sender.outcome, errors.OutboxIOError)
    # What was not accepted does not stay.
    disk.answer()
    await trio.sleep(2 * LINGER)

    assert [(Add(message("a")),), (Remove("a"),)] == disk.commits


async def test_what_nobody_waits_for_any_more_is_not_called(journal, disk, nursery, autojump_clock):
    called = []
    disk.hang()
    scope = trio.CancelScope()

    async def add():
        with scope, pytest.raises(errors.OutboxIOError):
            await journal.add(message("a"), lambda: called.append("a"))

    nursery.start_soon(add)
    await settled()
    scope.cancel()
    await trio.sleep(PATIENCE + 1)
    disk.answer()
    await settled()

    assert [] == called


async def test_a_message_that_nobody_waits_for_and_that_failed_is_not_removed(
    journal, disk, send, autojump_clock
):
    disk.hang()
    disk.failures = [errors.OutboxIOError("failed")]
    sender = send("a")
    await settled()
    sender.scope.cancel()
    await trio.sleep(PATIENCE + 1)
    disk.answer()
    await settled()

    assert [] == disk.commits


def test_s1_3_wherever_it_is_cancelled_adding_is_all_or_nothing(cancel_at_every_step):
    async def scenario(cancellation):
        disk = Disk()
        journal = Journal(disk, run_sync=disk.run_sync)
        returned = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            nursery.start_soon(journal.add, message("other"))
            with cancellation.scope:
                for id in "abc":
                    await journal.add(message(id))
                    returned.append(id)
            await settled()

            assert returned == [id for id in disk.added if id != "other"]
            await journal.aclose()

    assert cancel_at_every_step(scenario) > 5


# --- failures -----------------------------------------------------------------------------------


async def test_each_message_of_a_commit_that_fails_has_an_error_of_its_own(
    journal, disk, send, autojump_clock
):
    disk.hang()
    send("first")
    await settled()
    senders = [send("a"), send("b")]
    await settled()
    disk.failures = [None, errors.OutboxDiskFull("full")]
    disk.failures[1].__cause__ = cause = ValueError("the disk's own words")
    disk.answer()
    await settled()
    outcomes = [sender.outcome for sender in senders]

    assert [errors.OutboxDiskFull] * 2 == [type(outcome) for outcome in outcomes]
    assert outcomes[0] is not outcomes[1]
    assert [cause, cause] == [outcome.__cause__ for outcome in outcomes]
    assert ["full", "full"] == [str(outcome) for outcome in outcomes]


async def test_a_message_that_failed_is_not_tried_again(journal, disk, send, autojump_clock):
    disk.failures = [errors.OutboxDiskFull("full")]
    sender = send("a")
    await trio.sleep(10 * RETRY_AFTER)

    assert isinstance(sender.outcome, errors.OutboxDiskFull)
    assert ([], 1) == (disk.commits, disk.tries)


async def test_the_next_message_is_tried_although_the_last_one_failed(
    journal, disk, send, autojump_clock
):
    disk.failures = [errors.OutboxDiskFull("full")]
    send("a")
    await settled()
    sender = send("b")
    await settled()

    assert "added" == sender.outcome


async def test_s1_9_a_mark_that_fails_is_tried_every_second_and_called_when_it_succeeds(
    journal, disk, autojump_clock
):
    called = []
    disk.failures = [errors.OutboxIOError("failed")] * 3
    journal.mark_soon(["a"], lambda: called.append(trio.current_time()))
    await trio.sleep(10 * RETRY_AFTER)

    assert [3 * RETRY_AFTER] == called
    assert ([(Mark("a"),)], 4) == (disk.commits, disk.tries)


async def test_what_comes_after_a_mark_that_failed_follows_it_at_once(
    journal, disk, send, autojump_clock
):
    disk.failures = [errors.OutboxIOError("failed")]
    journal.mark_soon(["a"])
    await settled()
    journal.remove_soon("a")
    sender = send("b")
    await settled()

    assert [(Mark("a"), Remove("a"), Add(message("b")))] == disk.commits
    assert 0 == sender.at


async def test_what_failed_goes_again_before_what_came_meanwhile(journal, disk, autojump_clock):
    disk.hang()
    disk.failures = [errors.OutboxIOError("failed")]
    journal.mark_soon(["a"])
    await settled()
    journal.mark_soon(["b"])
    disk.answer()
    await settled()

    assert [(Mark("a"), Mark("b"))] == disk.commits


async def test_what_there_is_no_room_for_does_not_hold_up_what_makes_room(
    journal, disk, send, autojump_clock
):
    disk.hang()
    send("first")
    await settled()
    sender = send("large")
    await settled()
    journal.remove_soon("first")
    disk.failures = [None, errors.OutboxDiskFull("full")]
    disk.answer()
    await settled()

    assert isinstance(sender.outcome, errors.OutboxDiskFull)
    assert (Remove("first"),) == disk.commits[-1]
    assert 0 == trio.current_time()


async def test_trouble_is_told_when_it_begins_changes_and_ends(journal, disk, told, autojump_clock):
    full, failed = errors.OutboxDiskFull("full"), errors.OutboxIOError("failed")
    disk.failures = [full, full, failed, full]
    journal.mark_soon(["a"])
    await trio.sleep(2.5 * RETRY_AFTER)

    assert failed is journal.trouble
    await trio.sleep(10 * RETRY_AFTER)

    assert [full, failed, full, None] == told
    assert journal.trouble is None


async def test_s1_9_damage_ends_the_journal_and_is_told_to_everybody(disk, autojump_clock):
    journal = Journal(disk, run_sync=disk.run_sync)
    called = []
    disk.hang()
    async with trio.open_nursery() as outer:
        senders = [Sender(journal, outer, "begun")]
        with pytest.RaisesGroup(errors.OutboxCorrupt) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run)
                await settled()
                senders.append(Sender(journal, outer, "waiting"))
                await settled()
                journal.mark_soon(["a"], lambda: called.append("a"))
                disk.broken = errors.OutboxCorrupt("damaged")
                disk.answer()
    with pytest.raises(errors.OutboxCorrupt) as later:
        await journal.add(message("later"))
    await journal.aclose()
    told = [sender.outcome for sender in senders]

    assert [errors.OutboxCorrupt] * 2 == [type(outcome) for outcome in told]
    assert 4 == len({id(error) for error in (*told, later.value, *caught.value.exceptions)})
    assert [] == called
    assert disk.is_closed


async def test_a_bug_in_a_storage_crashes_the_journal_and_leaves_nobody_waiting(
    disk, autojump_clock
):
    journal = Journal(disk, run_sync=disk.run_sync)
    disk.broken = ZeroDivisionError()
    async with trio.open_nursery() as outer:
        sender = Sender(journal, outer, "a")
        with pytest.RaisesGroup(ZeroDivisionError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run)

    assert isinstance(sender.outcome, trio.ClosedResourceError)


# --- leaving ------------------------------------------------------------------------------------


async def test_closing_commits_marks_and_removals_and_gives_messages_back(
    journal, disk, send, autojump_clock
):
    disk.hang()
    first = send("first")
    await settled()
    second = send("second")
    await settled()
    journal.mark_soon(["first"])
    journal.remove_soon("first")
    disk.answer()
    await journal.aclose()

    assert [(Add(message("first")),), (Mark("first"), Remove("first"))] == disk.commits
    assert disk.is_closed
    await settled()

    assert "added" == first.outcome
    assert isinstance(second.outcome, trio.ClosedResourceError)
    with pytest.raises(trio.ClosedResourceError):
        await journal.add(message("third"))


async def test_what_a_mark_leads_to_is_committed_before_closing(journal, disk, autojump_clock):
    disk.hang()
    journal.mark_soon(["x"])
    await settled()
    journal.mark_soon(["a"], lambda: journal.mark_soon(["a"], lambda: journal.remove_soon("a")))
    disk.answer()
    await journal.aclose()

    assert [(Mark("x"),), (Mark("a"),), (Mark("a"),), (Remove("a"),)] == disk.commits


async def test_nothing_is_committed_once_closing_has_begun_to_close(journal, disk, autojump_clock):
    commits = []
    disk.close = lambda: commits.extend(disk.commits)
    disk.hang()
    journal.mark_soon(["a"])
    await settled()
    # The pump has more to do, and waits for its turn behind the one who closes.
    journal.mark_soon(["b"], lambda: journal.remove_soon("b"))
    disk.answer()
    await journal.aclose()
    journal.mark_soon(["c"])
    await settled()

    assert commits == disk.commits


async def test_a_sender_that_is_cancelled_as_it_is_refused_is_cancelled(
    journal, disk, send, autojump_clock
):
    disk.hang()
    send("first")
    await settled()
    sender = send("second")
    await settled()
    sender.scope.cancel()
    disk.answer()
    await journal.aclose()

    assert "cancelled" == sender.outcome


async def test_closing_waits_for_a_disk_that_hangs_no_longer_than_it_may(
    journal, disk, send, told, autojump_clock
):
    disk.hang()
    sender = send("first")
    await settled()
    journal.remove_soon("x")
    await journal.aclose(1.5)

    assert 1.5 + CLOSING == trio.current_time()
    await settled()

    assert 1.5 == sender.at
    assert isinstance(sender.outcome, errors.OutboxIOError)
    assert [errors.OutboxIOError] == [type(error) for error in told]


async def test_closing_is_not_cut_short_by_a_cancellation(journal, disk, autojump_clock):
    journal.remove_soon("a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.aclose()

    assert [(Remove("a"),)] == disk.commits
    assert disk.is_closed


async def test_closing_tries_once_more_what_failed_and_raises_nothing(
    journal, disk, told, autojump_clock
):
    disk.broken = errors.OutboxDiskFull("full")
    journal.mark_soon(["a"])
    await settled()
    await journal.aclose()
    await settled()

    assert 2 == disk.tries
    assert disk.is_closed
    assert [disk.broken] == told


async def test_closing_ends_the_journals_task_at_once(disk, autojump_clock):
    journal = Journal(disk, run_sync=disk.run_sync)
    disk.failures = [errors.OutboxDiskFull("full")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        journal.mark_soon(["a"])
        await settled()
        await journal.aclose()

    assert 0 == trio.current_time()


async def test_closing_raises_nothing_where_closing_the_file_fails(journal, disk, autojump_clock):
    def close():
        raise errors.OutboxIOError("failed")

    disk.close = close
    await journal.aclose()
    await journal.aclose()


async def test_a_journal_that_could_not_be_opened_can_be_closed(disk, autojump_clock):
    journal = Journal(disk, run_sync=disk.run_sync)
    disk.broken = errors.OutboxLocked("locked")
    with pytest.raises(errors.OutboxLocked):
        await journal.open()
    await journal.aclose()

    assert 0 == disk.tries


async def test_closing_closes_what_a_cancelled_opening_opens(tmp_path):
    storage = SqliteOutbox(tmp_path / "outbox.db").storage()
    entered, may_go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def open(self):
            entered.set()
            may_go_on.wait()
            return storage.open()

        def close(self):
            storage.close()
            closed.set()

    journal = Journal(Slow())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.open)
        await trio.to_thread.run_sync(entered.wait)
        nursery.cancel_scope.cancel()
    await journal.aclose(0)

    assert not closed.is_set()
    may_go_on.set()
    await trio.to_thread.run_sync(closed.wait)
    storage.open()
    storage.close()


async def test_a_journal_whose_task_is_cancelled_ends_its_commit_and_refuses_messages(
    disk, autojump_clock, nursery
):
    journal = Journal(disk, run_sync=disk.run_sync)
    scope = trio.CancelScope()

    async def run():
        with scope:
            await journal.run()

    disk.hang()
    nursery.start_soon(run)
    begun = Sender(journal, nursery, "begun")
    await settled()
    waiting = Sender(journal, nursery, "waiting")
    await settled()
    journal.remove_soon("x")
    scope.cancel()
    await settled()
    disk.answer()
    await settled()

    assert ["begun"] == disk.added
    assert "added" == begun.outcome
    assert isinstance(waiting.outcome, trio.ClosedResourceError)
    await journal.aclose()

    assert (Remove("x"),) == disk.commits[-1]


# --- real threads and a real file ---------------------------------------------------------------


async def test_a_disk_that_hangs_does_not_hold_up_the_loop(nursery):
    entered, may_go_on = threading.Event(), threading.Event()

    class Slow:
        def commit(self, changes):
            entered.set()
            may_go_on.wait()

        def close(self):
            pass

    journal = Journal(Slow())
    nursery.start_soon(journal.run)
    sender = Sender(journal, nursery, "a")
    await trio.to_thread.run_sync(entered.wait)
    # The thread waits for this task, so this task runs.
    for _ in range(1000):
        await trio.lowlevel.checkpoint()
        journal.remove_soon("x")

    assert sender.outcome is None
    may_go_on.set()
    while sender.outcome is None:
        await trio.lowlevel.checkpoint()

    assert "added" == sender.outcome
    await journal.aclose()


async def test_a_thread_that_hangs_closes_the_file_when_it_comes_back(tmp_path, nursery):
    path = tmp_path / "outbox.db"
    storage = SqliteOutbox(path).storage()
    entered, may_go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        open = storage.open

        def commit(self, changes):
            entered.set()
            may_go_on.wait()
            storage.commit(changes)

        def close(self):
            storage.close()
            closed.set()

    journal = Journal(Slow())
    await journal.open()
    nursery.start_soon(journal.run)
    sender = Sender(journal, nursery, "a")
    await trio.to_thread.run_sync(entered.wait)
    await journal.aclose(0.01)
    await settled()

    assert isinstance(sender.outcome, errors.OutboxIOError)
    assert not closed.is_set()
    may_go_on.set()
    await trio.to_thread.run_sync(closed.wait)
    later = SqliteOutbox(path).storage()

    # As the error says: unknown then, and found by the next one.
    assert [message("a")] == later.open()
    later.close()


async def test_many_senders_share_the_commits_of_a_file(tmp_path, nursery):
    journal = Journal(SqliteOutbox(tmp_path / "outbox.db").storage())

    assert [] == await journal.open()
    nursery.start_soon(journal.run)
    async with trio.open_nursery() as senders:
        for number in range(200):
            senders.start_soon(journal.add, message(str(number)))
    journal.mark_soon(["7"])
    journal.remove_soon("8")
    await journal.aclose()

    assert journal.commits < 20
    assert 202 == journal.changes
    again = SqliteOutbox(tmp_path / "outbox.db").storage()
    stored = {stored.id: stored.attempts for stored in again.open()}
    again.close()

    assert {str(number): int(number == 7) for number in range(200) if number != 8} == stored
