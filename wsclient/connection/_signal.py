"""An event that takes no memory until someone waits for it."""

from __future__ import annotations

import trio


class Signal:
    """A ``trio.Event``, of which a connection needs several and hardly ever waits for one.

    An event's set of waiting tasks alone takes 216 bytes, of the 11 KiB of an idle connection.
    """

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: trio.Event | None = None

    def is_set(self) -> bool:
        """Whether :meth:`set` was called."""
        return self._is_set

    def set(self) -> None:
        """Wake all who wait, and whoever waits later."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until it is set; a checkpoint in any case."""
        if self._event is None:
            self._event = trio.Event()
            if self._is_set:
                self._event.set()
        await self._event.wait()
