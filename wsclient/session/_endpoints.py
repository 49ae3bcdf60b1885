"""Where to go next, of several endpoints.

After a failure comes the next endpoint, at once; only when all were tried does the channel wait as
its policy says, and then a new round begins.  An endpoint that asked to be left alone (1012, 1013,
``Retry-After``) is left out meanwhile.  The endpoint of a connection that was stable is tried
first again, as if it were the only one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ._access import Address


class Endpoints:
    """The endpoints of one channel, and which of them is to be tried now."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self.addresses = tuple(addresses)
        self._index = 0
        self._tried: set[int] = set()
        self._not_before = [-math.inf] * len(self.addresses)

    @property
    def current(self) -> Address:
        """Where the connection is, or the next attempt will go."""
        return self.addresses[self._index]

    def move_to(self, address: Address) -> None:
        """A connection to ``address`` is the one in use now."""
        self._index = self.addresses.index(address)

    def beside(self, turn: int) -> Address:
        """Where a second connection goes: to another endpoint than the first, each in its turn."""
        others = self._others() or [self._index]
        return self.addresses[others[turn % len(others)]]

    def begin_round(self) -> None:
        """Nothing counts as tried."""
        self._tried.clear()

    def leave_alone(self, until: float) -> None:
        """The current endpoint asks not to be tried before ``until`` (trio's clock)."""
        self._not_before[self._index] = until

    def advance(self, now: float) -> bool:
        """Go to the next endpoint that may be tried at once; false if the round is over."""
        self._tried.add(self._index)
        for index in self._others():
            if index not in self._tried and self._not_before[index] <= now:
                self._index = index
                return True
        return False

    def advance_later(self, now: float, next_round: float, here: float) -> float:
        """Go to the endpoint that may be tried first, where none may be tried at once.

        Args:
            now: The time.
            next_round: Seconds until those that were tried may be tried again.
            here: Seconds until the current one may be.

        Returns:
            Seconds until it is to be tried.
        """
        waits = {index: self._not_before[index] - now for index in self._others()}
        for index in waits.keys() & self._tried:
            waits[index] = max(next_round, waits[index])
        waits[self._index] = here
        # Of several that may be tried at the same time, the next in turn.
        self._index = min(waits, key=lambda index: waits[index])
        if self._index in self._tried:
            self.begin_round()
        return waits[self._index]

    def _others(self) -> list[int]:
        """All but the current one, in the order in which their turns come."""
        count = len(self.addresses)
        return [(self._index + step) % count for step in range(1, count)]
