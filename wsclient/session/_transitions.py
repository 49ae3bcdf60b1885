"""The changes of a channel's state, one after the other, for whoever follows them.

An observer is told of each as it happens, and must not wait.  Who iterates may take its time:
changes wait for it, the last :data:`KEPT` of them, and the oldest is dropped.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Final

import trio

from wsclient.events import StateChanged

KEPT: Final = 64
"""Changes that wait: more than a channel makes in a quarter of an hour without a peer."""


class Transitions:
    """An async iterator over changes of state; ends behind the final one."""

    def __init__(self) -> None:
        self._waiting: deque[StateChanged] = deque(maxlen=KEPT)
        self._added = trio.lowlevel.ParkingLot()
        self._is_over = False
        self.dropped: int = 0
        """Changes that were dropped, the oldest first."""

    def __aiter__(self) -> Transitions:
        return self

    async def __anext__(self) -> StateChanged:
        """The next change; cancelling this loses nothing."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._is_over:
                raise StopAsyncIteration
            await self._added.park()
        return self._waiting.popleft()

    def _add(self, change: StateChanged) -> None:
        self.dropped += len(self._waiting) == KEPT
        self._waiting.append(change)
        self._is_over = change.state.is_final
        self._added.unpark_all()


class Followers:
    """Those who follow one channel's changes; one that nobody holds any more is forgotten."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Transitions] = weakref.WeakSet()

    def add(self, *, is_over: bool) -> Transitions:
        """One more, from the next change on."""
        transitions = Transitions()
        transitions._is_over = is_over
        self._all.add(transitions)
        return transitions

    def tell(self, change: StateChanged) -> None:
        """Let them know."""
        for transitions in self._all:
            transitions._add(change)
