"""An observer that remembers."""

from __future__ import annotations

from typing import TypeVar

import trio

from wsclient.events import Event

_EventT = TypeVar("_EventT", bound=Event)


class EventRecorder:
    """Keeps the events that it is called with: an observer for tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        """All of them, oldest first."""
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.names()}>"

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)
        self._changed.unpark_all()

    def of(self, kind: type[_EventT]) -> list[_EventT]:
        """The events of one type, oldest first."""
        return [event for event in self.events if isinstance(event, kind)]

    def names(self) -> list[str]:
        """The names of the events' types, oldest first."""
        return [type(event).__name__ for event in self.events]

    async def wait_for(self, kind: type[_EventT], *, count: int = 1) -> _EventT:
        """Wait until so many events of a type are there; return the last of these.

        Events that came before the call count.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        await trio.lowlevel.checkpoint()
        while len(found := self.of(kind)) < count:
            await self._changed.park()
        return found[count - 1]

    def clear(self) -> None:
        """Forget all events."""
        self.events.clear()
