"""Changes of the outbox on their way to the disk.

A disk takes its time, and the loop has none.  So one task, :meth:`Journal.run`, hands what waits to
a thread, all of it as one commit, and while that is under way the next ones gather: the slower the
disk, the larger the commits, and each costs one ``fsync`` (group commit).  A removal, for which
nobody waits, goes with the next of the others, or alone after ``LINGER`` seconds.

Who is told what:

- :meth:`Journal.wait` returns when a message is on the disk, and raises when it could not be kept.
  It is not tried again: whoever sends decides that.  Nobody needs to wait: ``then`` or ``failed``
  is called all the same.
- A mark or a removal has nobody who could decide.  It is kept, in order, and tried again with
  whatever comes next, and every ``RETRY_AFTER`` seconds.  Meanwhile a message that waits for its
  mark is not written.  One that waits for its removal would, after a crash, be found again: a
  QUEUED one as marked, so that it is never repeated; an ACKED one is sent again, as promised.
- Where a commit of both fails, marks and removals go once more without the messages: what there is
  no room for must not hold up what makes room.
- Damage is final: :meth:`Journal.run` raises it.

*Cancellation.*  Until its commit begins, a message is taken back.  After that it is too late: a
thread has it, and ``wait`` waits for the answer, ``PATIENCE`` seconds at most.  A disk that has not
answered by then leaves the truth open, which ``OutboxIOError`` says; a message that turns out to be
on the disk after all is removed again.

*Leaving.*  :meth:`Journal.aclose` commits what waits and closes the file, in the time that it was
given.  A thread that hangs in the disk is then left to itself, and so is the one that closes the
file after it.
"""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import trio

from wsclient.errors import OutboxDiskFull, OutboxError, OutboxIOError

from ._storage import Add, Change, Mark, Remove, RunSync, Storage, Stored, Unmark

LINGER: Final = 0.1
"""Seconds.  Saves a third of the commits where messages are few; after a crash a message whose
removal lingered is found again, and longer than this would be noticed."""

RETRY_AFTER: Final = 1.0
"""Seconds.  Somebody may have made room, and asking costs one write that fails."""

PATIENCE: Final = 0.5
"""Seconds that a cancelled sender waits for the disk: a quarter of what leaving a channel may take;
the connection's last word takes half of that, and the disk's the rest."""

CLOSING: Final = 0.1
"""Seconds that closing the file gets at least; usually it takes a few milliseconds."""


def _nothing(*_: object) -> None:
    pass


class Item:
    """Changes that belong together."""

    __slots__ = ("changes", "done", "error", "failed", "is_add", "is_answered", "is_begun", "then")

    def __init__(
        self,
        changes: Sequence[Change],
        then: Callable[[], object],
        failed: Callable[[Exception], object] = _nothing,
        *,
        is_add: bool = False,
    ) -> None:
        self.changes = changes
        self.then = then
        self.failed = failed
        self.is_add = is_add
        """Whether it is a message, for which there is one try."""
        self.done: trio.Event | None = None
        """What whoever waits for it waits for."""
        self.error: Exception | None = None
        self.is_begun = False
        self.is_answered = False

    def answer(self, error: Exception | None) -> None:
        if self.is_answered:
            return
        self.is_answered = True
        self.error = error
        if error is None:
            self.then()
        else:
            self.failed(error)
        if self.done is not None:
            self.done.set()


class Journal:
    """Brings changes to a storage, many at once, without holding up the loop.

    Resource handling: whoever has called :meth:`open`, with whatever result, calls :meth:`aclose`.

    Args:
        storage: Where they go.
        tell: Called with the error when commits begin to fail, or fail for another reason, and
            with ``None`` when one succeeds again.
        run_sync: Runs what may wait for the disk.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        tell: Callable[[OutboxError | None], object] = _nothing,
        run_sync: RunSync = trio.to_thread.run_sync,
    ) -> None:
        self._storage = storage
        self._tell = tell
        self._run_sync = run_sync
        # Of its own: a disk that hangs must not take the threads of name lookups.
        self._limiter = trio.CapacityLimiter(1)
        # Between threads: one may have been left to itself.
        self._in_use = threading.Lock()
        # Between tasks: the pump's commit and the last one.
        self._committing = trio.Lock()
        self._waiting: list[Item] = []
        self._stirred = trio.Event()
        """Something waits."""
        self._urgent = trio.Event()
        """Somebody waits for it."""
        self._refusal: Callable[[], Exception] | None = None
        self._is_closed = False
        self._deadline = math.inf
        self._commit_scope = trio.CancelScope()
        self._trouble: OutboxError | None = None
        self.commits = 0
        """Commits that succeeded."""
        self.changes = 0
        """Changes that they held."""

    @property
    def trouble(self) -> OutboxError | None:
        """Why the last commit failed; ``None`` if it did not."""
        return self._trouble

    async def open(self) -> list[Stored]:
        """Open the storage, and return the messages in it, in the order of their acceptance.

        Raises:
            OutboxError: They cannot be had.
        """
        stored: list[Stored] = await self._in_thread(self._storage.open)
        return stored

    async def run(self) -> None:
        """Commit what comes, until :meth:`aclose`; cancelled, it ends after the commit under way.

        Raises:
            OutboxError: No later commit can succeed.
        """
        try:
            while not self._is_closed:
                await self._stirred.wait()
                with trio.move_on_after(LINGER if self._trouble is None else RETRY_AFTER):
                    await self._urgent.wait()
                async with self._committing:
                    # Or the storage may be closed by now.
                    if not self._is_closed:
                        self._stirred, self._urgent = trio.Event(), trio.Event()
                        await self._commit()
        finally:
            self._refuse(trio.ClosedResourceError)

    # What comes.

    def add_soon(
        self,
        stored: Stored,
        then: Callable[[], object] = _nothing,
        failed: Callable[[Exception], object] = _nothing,
    ) -> Item:
        """Add a message: behind everything that was given before.

        Args:
            stored: The message.
            then: Called when it is on the disk, and for all messages in the order that they have
                there: the tasks that wait for them wake up in any order.
            failed: Called with why it is not there, unless that is known now; :meth:`wait` says
                what that means.

        Returns:
            What to :meth:`wait` for; its ``error`` says now if the journal takes nothing more.
        """
        item = Item((Add(stored),), then, failed, is_add=True)
        if self._refusal is None:
            self._put(item)
        else:
            item.is_answered = True
            item.error = self._refusal()
        return item

    async def wait(self, item: Item) -> None:
        """Return when a message is on the disk.

        Raises:
            trio.Cancelled: It is not on the disk, and never will be.
            OutboxIOError: Whether it is there is unknown until the disk works again, and then it is
                not; a process that starts before may find it.
            OutboxError: It is not on the disk.
            trio.ClosedResourceError: Likewise: the journal was closed, or nobody runs it any more.
        """
        if not item.is_answered:
            await self._wait(item)
        if item.error is not None:
            raise item.error

    async def _wait(self, item: Item) -> None:
        item.done = done = trio.Event()
        try:
            await done.wait()
        except trio.Cancelled:
            if not item.is_begun:
                # It may have been refused in the meantime.
                with contextlib.suppress(ValueError):
                    self._waiting.remove(item)
                raise
            with trio.move_on_after(PATIENCE, shield=True):
                await done.wait()
            if not done.is_set():
                (change,) = item.changes
                assert isinstance(change, Add)
                item.then = lambda: self.remove_soon(change.stored.id)
                raise _unanswered() from None

    async def add(self, stored: Stored, then: Callable[[], object] = _nothing) -> None:
        """Add a message, and :meth:`wait` for it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.wait(self.add_soon(stored, then))

    def mark_soon(self, ids: Iterable[str], then: Callable[[], object] = _nothing) -> None:
        """Mark messages as about to be written; ``then`` is called when that is on the disk.

        It is never called if the journal is closed before.
        """
        self._put(Item([Mark(id) for id in ids], then))

    def unmark_soon(self, ids: Iterable[str], then: Callable[[], object] = _nothing) -> None:
        """Take marks back; as :meth:`mark_soon`."""
        self._put(Item([Unmark(id) for id in ids], then))

    def remove_soon(self, id: str, *, is_urgent: bool = False) -> None:
        """Remove a message that has its outcome: with the next commit, or soon."""
        self._put(Item((Remove(id),), _nothing), is_urgent=is_urgent)

    def _put(self, item: Item, *, is_urgent: bool = True) -> None:
        self._waiting.append(item)
        self._stirred.set()
        if is_urgent:
            self._urgent.set()

    def _refuse(self, refusal: Callable[[], Exception]) -> None:
        """Take no more messages, and give back those for which somebody waits.

        The first refusal stands.
        """
        self._refusal = self._refusal or refusal
        waited_for = [item for item in self._waiting if item.done is not None]
        self._waiting = [item for item in self._waiting if item.done is None]
        for item in waited_for:
            item.answer(self._refusal())

    # The disk.

    async def _commit(self) -> None:
        """Commit all that waits; for whoever holds the lock."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        for item in batch:
            item.is_begun = True
        try:
            await self._settle(batch)
        finally:
            # Whatever went wrong: nobody waits for ever.
            for item in batch:
                if item.is_add:
                    item.answer((self._refusal or trio.ClosedResourceError)())

    async def _settle(self, batch: list[Item]) -> None:
        error = await self._store(batch)
        if error is not None:
            kept = [item for item in batch if not item.is_add]
            for item in batch:
                if item.is_add:
                    item.answer(_copy(error))
            if 0 < len(kept) < len(batch):
                error = await self._store(kept)
            batch = kept
        if error is None:
            for item in batch:
                item.answer(None)
        elif _may_pass(error):
            self._waiting = batch + self._waiting
            self._stirred.set()
        else:
            final = error
            self._refuse(lambda: _copy(final))
            raise error

    async def _store(self, items: Iterable[Item]) -> OutboxError | None:
        """One commit; returns why it failed."""
        changes = [change for item in items for change in item.changes]
        error: OutboxError | None = _unanswered()
        # A commit that was begun is waited for, unless the time for leaving is over.
        with trio.CancelScope(shield=True, deadline=self._deadline) as self._commit_scope:
            try:
                await self._in_thread(self._storage.commit, changes)
            except OutboxError as failure:
                error = failure
            else:
                error = None
                self.commits += 1
                self.changes += len(changes)
        is_news = type(error) is not type(self._trouble)
        self._trouble = error
        if is_news:
            self._tell(error)
        return error

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._run_sync(
            self._alone, function, *args, abandon_on_cancel=True, limiter=self._limiter
        )

    def _alone(self, function: Callable[..., Any], *args: Any) -> Any:
        with self._in_use:
            return function(*args)

    # The end.

    async def aclose(self, timeout: float = 1.0) -> None:  # noqa: ASYNC109  # It returns, not raises.
        """Commit what waits and nobody waits for, and close the storage.

        Nothing is raised for what could not be committed: ``tell`` was told, and the next process
        finds it as after a crash.

        Args:
            timeout: Seconds that it takes at most, and ``CLOSING`` beyond.
        """
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        self._refuse(trio.ClosedResourceError)
        self._stirred.set()
        self._urgent.set()
        self._deadline = self._commit_scope.deadline = trio.current_time() + timeout
        with trio.CancelScope(shield=True):
            async with self._committing:
                with contextlib.suppress(OutboxError):
                    await self._commit()
                    # A mark that was told of may have ended in a removal.
                    while self._waiting and self._trouble is None:
                        await self._commit()
            with trio.move_on_at(max(self._deadline, trio.current_time() + CLOSING)):
                # In a thread of its own, which waits for one that hangs.
                with contextlib.suppress(OutboxError):
                    await self._run_sync(
                        self._alone,
                        self._storage.close,
                        abandon_on_cancel=True,
                        limiter=trio.CapacityLimiter(1),
                    )


def _copy(error: OutboxError) -> OutboxError:
    """Each task raises an exception of its own: a traceback grows where it is raised."""
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another


def _may_pass(error: OutboxError) -> bool:
    return isinstance(error, (OutboxDiskFull, OutboxIOError))


def _unanswered() -> OutboxIOError:
    return OutboxIOError("the outbox's disk did not answer in time")
