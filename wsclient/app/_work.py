"""What is at work, so that who stops waits for it."""

from __future__ import annotations

import trio


class Work:
    """Counts what has begun and is not done."""

    def __init__(self) -> None:
        self.count = 0
        """How much is at work."""
        self._done = trio.lowlevel.ParkingLot()

    def begin(self) -> None:
        """One more is at work."""
        self.count += 1

    def end(self) -> None:
        """One of them is done."""
        self.count -= 1
        if not self.count:
            self._done.unpark_all()

    async def wait_done(self) -> None:
        """Wait until nothing is at work."""
        while self.count:
            await self._done.park()
