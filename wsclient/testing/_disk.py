"""A disk on virtual time, which outlives the processes that write to it.

What is on it is what was committed: :meth:`Disk.kill` ends a process at any instant, and leaves of
a commit that was under way everything or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final

import attrs
import trio

from wsclient.errors import OutboxDiskFull, OutboxError, OutboxIOError, OutboxLocked
from wsclient.session._clock import WallClock
from wsclient.session._storage import (
    Add,
    Change,
    Mark,
    Remove,
    SqliteOutbox,
    Storage,
    Stored,
)


class Failing(Enum):
    """How a disk fails."""

    FULL = "there is no room for messages"
    PACKED = "there is no room for anything"
    BROKEN = "nothing can be read or written"


class Disk:
    """Keeps messages, and takes its time.

    Args:
        latency: Seconds that a commit takes as long as all is well.
        threads: Where its work is done.
    """

    def __init__(self, latency: float, threads: trio.Nursery) -> None:
        self.messages: dict[str, Stored] = {}
        """What is on it, by id, in the order in which it came."""
        self.commits = 0
        """How many commits have succeeded."""
        self.stirred = trio.lowlevel.ParkingLot()
        """Whoever waits here goes on when work on it begins."""
        self.owner: _DiskStorage | None = None
        """Who has it open."""
        self._usual = latency
        self._threads = threads
        self._works: dict[_Work, None] = {}
        self._resumed = trio.Event()
        self._doubtful: Sequence[Change] = ()
        """What a commit has left that failed: it may come back."""
        self.change()

    def change(
        self,
        *,
        latency: float | None = None,
        failing: Failing | None = None,
        hangs: bool = False,
    ) -> None:
        """Let it be so from now on; nothing given, all is well.

        Args:
            latency: Seconds that work on it takes.
            failing: How it fails.
            hangs: Whether work that begins makes no headway until the next change.
        """
        self._resumed.set()
        self._resumed = trio.Event()
        if not hangs:
            self._resumed.set()
        self._latency = self._usual if latency is None else latency
        self.failing = failing
        self._is_well = latency is None and failing is None and not hangs

    @property
    def is_well(self) -> bool:
        """Whether all is well, and with the work under way, too."""
        return self._is_well and all(work.is_well for work in self._works)

    def kill(self, *, brings_back: bool) -> None:
        """End the process that has it open.

        Args:
            brings_back: Whether the next process finds what a commit has left that failed with
                ``OutboxIOError``, if none has succeeded since.
        """
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.is_dead = True
        for work in self._works:
            work.scope.cancel()
        if brings_back:
            self._apply(self._doubtful)
        self._doubtful = ()

    def commit(self, changes: Sequence[Change]) -> None:
        """As :meth:`Storage.commit`."""
        self._fail(Failing.PACKED, OutboxDiskFull)
        if any(isinstance(change, Add) for change in changes):
            self._fail(Failing.FULL, OutboxDiskFull)
        if self.failing is Failing.BROKEN:
            self._doubtful = tuple(changes)
        self._fail(Failing.BROKEN, OutboxIOError)
        self._apply(changes)
        self._doubtful = ()
        self.commits += 1

    def read(self) -> list[Stored]:
        """What is on it."""
        self._fail(Failing.PACKED, OutboxDiskFull)
        self._fail(Failing.BROKEN, OutboxIOError)
        # Whoever opens it writes to it, over what was left.
        self._doubtful = ()
        return list(self.messages.values())

    def _fail(self, how: Failing, kind: type[OutboxError]) -> None:
        if self.failing is how:
            raise kind(how.value)

    def _apply(self, changes: Sequence[Change]) -> None:
        messages = self.messages
        for change in changes:
            if isinstance(change, Add):
                assert change.stored.id not in messages, "a message is added once"
                messages[change.stored.id] = change.stored
            elif isinstance(change, Remove):
                del messages[change.id]
            else:
                stored = messages[change.id]
                attempts = stored.attempts + (1 if isinstance(change, Mark) else -1)
                messages[change.id] = attrs.evolve(stored, attempts=attempts)

    # Its work.

    def begin(self, work: _Work) -> None:
        """Let ``work`` be done, whoever waits for it."""
        self._works[work] = None
        self._threads.start_soon(self._do, work)
        self.stirred.unpark_all()

    async def _do(self, work: _Work) -> None:
        try:
            with work.scope:
                async with work.turn:
                    work.is_well, resumed, latency = self._is_well, self._resumed, self._latency
                    if not resumed.is_set():
                        await resumed.wait()
                    # On both sides of what happens: a process may end before and after.
                    await trio.sleep(latency / 2)
                    work.do()
                    await trio.sleep(latency / 2)
                    work.is_answered = True
        finally:
            del self._works[work]
            work.limiter.release_on_behalf_of(work)
            work.is_over.set()


@attrs.define(eq=False)
class _Work:
    """A call that a thread would make."""

    call: Callable[[], Any]
    turn: trio.Lock
    limiter: trio.CapacityLimiter
    is_well: bool = True
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    is_over: trio.Event = attrs.field(factory=trio.Event)
    is_answered: bool = False
    value: Any = None
    error: Exception | None = None

    def do(self) -> None:
        try:
            self.value = self.call()
        except Exception as error:  # For whoever waits.
            self.error = error

    def result(self) -> Any:
        if not self.is_answered:
            raise OutboxIOError(_DEAD)
        if self.error is not None:
            raise self.error
        return self.value


_DEAD: Final = "the process that asked is over"


@attrs.frozen
class DiskOutbox(SqliteOutbox):
    """What stands for a file on a :class:`Disk`, for ``open_channel(outbox=…)``."""

    disk: Disk = attrs.field(kw_only=True)

    def storage(self) -> Storage:
        """What one process has of it."""
        return _DiskStorage(self.disk)


class _DiskStorage:
    """What one process has of a disk; see :class:`Storage`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._turn = trio.Lock()
        self.now: WallClock = trio.current_time
        """It goes on from one process to the next."""
        self.is_dead = False
        """Whether its process is over, though its tasks may not have noticed."""

    async def run_sync(
        self,
        function: Callable[..., Any],
        *args: object,
        abandon_on_cancel: bool,
        limiter: trio.CapacityLimiter,
    ) -> Any:
        """As ``trio.to_thread.run_sync``: what is abandoned is done all the same."""
        assert abandon_on_cancel, "the disk may hang"
        work = _Work(partial(function, *args), self._turn, limiter)
        await limiter.acquire_on_behalf_of(work)
        if self.is_dead:
            limiter.release_on_behalf_of(work)
            raise OutboxIOError(_DEAD)
        self._disk.begin(work)
        await work.is_over.wait()
        return work.result()

    def open(self) -> list[Stored]:
        """Take the disk, and read it."""
        if self._disk.owner is not None:
            raise OutboxLocked("another process has the disk")
        stored = self._disk.read()
        self._disk.owner = self
        return stored

    def commit(self, changes: Sequence[Change]) -> None:
        """Make changes, all or none."""
        self._disk.commit(changes)

    def close(self) -> None:
        """Let go of the disk."""
        if self._disk.owner is self:
            self._disk.owner = None
