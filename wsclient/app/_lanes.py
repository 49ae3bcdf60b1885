"""Several messages of one handler at work at once, and yet in order where it matters.

Messages of the same key go through one *lane*, one after the other; different keys have lanes of
their own, which are tasks.  Both what is at work and what waits in its lane are bounded by the
same number, so that a handler that is slow is felt by who receives, and in the end by the peer:
nothing grows here.  A key that is much busier than others, and slower than its messages come, will
hold up the others for that reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeAlias

import trio

from ._work import Work

Job: TypeAlias = Callable[[], Awaitable[object]]


class Lanes:
    """The lanes of one handler.

    Args:
        concurrency: How many messages may be at work, and how many more may wait in their lanes.
        work: Where what is put here counts until it is done.
    """

    def __init__(self, concurrency: int, work: Work) -> None:
        self._concurrency = concurrency
        self._work = work
        self._lanes: dict[Hashable, deque[Job]] = {}
        self._waiting = 0
        self._freed = trio.lowlevel.ParkingLot()

    async def put(self, key: Hashable, job: Job, nursery: trio.Nursery) -> None:
        """Wait for room, and let ``job`` be done behind all that have the same key.

        Not a checkpoint where there is room: then the caller has a task less to wait for.
        """
        while not self._has_room(key):
            await self._freed.park()
        self._work.begin()
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque()
            nursery.start_soon(self._run, key, job)
        else:
            lane.append(job)
            self._waiting += 1

    def _has_room(self, key: Hashable) -> bool:
        if key in self._lanes:
            return self._waiting < self._concurrency
        return len(self._lanes) < self._concurrency

    async def _run(self, key: Hashable, job: Job) -> None:
        lane = self._lanes[key]
        try:
            while True:
                try:
                    await job()
                finally:
                    self._work.end()
                if not lane:
                    return
                job = lane.popleft()
                self._waiting -= 1
                self._freed.unpark_all()
        finally:
            # What is left of it, where it was cancelled or a job has raised, is not done any more.
            for _ in lane:
                self._waiting -= 1
                self._work.end()
            del self._lanes[key]
            self._freed.unpark_all()
