"""What became of one message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import trio

from wsclient.events import Outcome, Truth


class Receipt:
    """What became of one accepted message.

    It gets exactly one outcome, once.
    Keeping it costs little, and dropping it nothing.

    Args:
        withdraw: Takes the message back.
        waiting: What whoever waits for the outcome stands in: it may be the one who should take
            what the channel receives.
    """

    __slots__ = ("_begun", "_outcome", "_waiters", "_waiting", "_withdraw")

    def __init__(
        self,
        withdraw: Callable[[], None],
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._withdraw: Callable[[], None] | None = withdraw
        self._waiting = waiting
        self._begun = False
        self._outcome: Outcome | None = None
        self._waiters: trio.lowlevel.ParkingLot | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What became of the message; ``None`` while that is open."""
        return self._outcome

    @property
    def truth(self) -> Truth:
        """What is known now: computed from the outcome, and from whether writing has begun."""
        if self._outcome is not None:
            return self._outcome.truth
        return Truth.UNKNOWN if self._begun else Truth.CERTAINLY_NOT

    async def wait(self) -> Outcome:
        """Wait for the outcome; cancelling this unsends nothing.

        Meanwhile the channel reads on, by ``Limits.inbox_overrun`` beyond the bounds of its inbox.

        Raises:
            InboxFull: Even that is used up: the outcome may not come before messages are taken.
        """
        await trio.lowlevel.checkpoint()
        if self._outcome is None:
            with self._waiting():
                while self._outcome is None:
                    if self._waiters is None:
                        self._waiters = trio.lowlevel.ParkingLot()
                    await self._waiters.park()
        return self._outcome

    def cancel(self) -> bool:
        """Take the message back.

        Returns:
            True if it was not, and never will be, written: not a byte of it.
        """
        if self._withdraw is not None and not self._begun:
            self._withdraw()
        return self._outcome is Outcome.CANCELLED

    def __repr__(self) -> str:
        pending = "being written" if self._begun else "waiting"
        state = pending if self._outcome is None else self._outcome.value
        return f"<{type(self).__name__} {state}>"

    # The outbox's side.

    def _begin(self) -> None:
        self._begun = True

    def _resolve(self, outcome: Outcome) -> bool:
        """Set the outcome; false if there is one already, which then stands."""
        if self._outcome is not None:
            return False
        self._outcome = outcome
        self._withdraw = None
        if self._waiters is not None:
            self._waiters.unpark_all()
        return True
