"""What became of one message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from typing import Final

import trio

from wsclient.errors import DeliveryError
from wsclient.events import Delivery, Outcome, Truth

_RECEIVED: Final = (Outcome.RECEIVED, Outcome.ACKED)


class Progress(IntEnum):
    """How far a message has come; what became of it is its outcome."""

    ACCEPTED = 0
    """Not a byte of it was written, on any connection."""
    BEGUN = 1
    """It was handed to a connection's writer: a byte of it may be on the wire."""
    WRITTEN = 2
    """Its last byte was handed to the transport."""
    FENCED = 3
    """A pong for a later ping has proven that the peer's endpoint has read it."""


class Receipt:
    """What became of one accepted message.

    It gets exactly one outcome, once.
    Keeping it costs little, and dropping it nothing.

    Args:
        withdraw: Takes the message back, as far as nothing of it was written.
        delivery: What was promised.
        key: The id with which it can be acknowledged.
        wait_scope: What whoever waits for the peer's word stands in: that word comes the way of
            the inbox, which must not be closed to it.
    """

    __slots__ = (
        "_key",
        "_outcome",
        "_progress",
        "_wait_scope",
        "_waiters",
        "_withdraw",
        "delivery",
    )

    def __init__(
        self,
        withdraw: Callable[[], None],
        delivery: Delivery = Delivery.QUEUED,
        key: str | None = None,
        wait_scope: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._withdraw: Callable[[], None] | None = withdraw
        self.delivery: Delivery = delivery
        """What was promised for the message."""
        self._key = key
        self._wait_scope = wait_scope
        self._progress = Progress.ACCEPTED
        self._outcome: Outcome | None = None
        self._waiters: trio.lowlevel.ParkingLot | None = None

    @property
    def id(self) -> str | None:
        """What the peer acknowledges the message by; ``None`` if it was not sent as ``ACKED``."""
        return self._key

    @property
    def outcome(self) -> Outcome | None:
        """What became of the message; ``None`` while that is open."""
        return self._outcome

    @property
    def truth(self) -> Truth:
        """Whether the peer has it, as far as is known now.

        Computed, never declared: *certain* if its reading or its acknowledgement came, *certainly
        not* if never a byte of it was written, and *unknown* in all other cases.
        """
        if self._outcome in _RECEIVED or self._progress is Progress.FENCED:
            return Truth.CERTAIN
        return Truth.CERTAINLY_NOT if self._progress is Progress.ACCEPTED else Truth.UNKNOWN

    async def wait(self) -> Outcome:
        """Wait for the outcome; cancelling this unsends nothing.

        Raises:
            InboxFull: The outcome cannot come: so much waits to be received that reading stopped.
        """
        await self._wait_for(None)
        assert self._outcome is not None
        return self._outcome

    async def received(self) -> None:
        """Wait until the peer's WebSocket endpoint has read the message; see ``Outcome.RECEIVED``.

        Cancelling this unsends nothing.

        Raises:
            DeliveryError: Another outcome came, and nothing proves that it was read.
            InboxFull: As :meth:`wait`.
        """
        await self._wait_for(Progress.FENCED)
        if self._progress is not Progress.FENCED and self._outcome not in _RECEIVED:
            raise DeliveryError(self._outcome, self.truth)

    async def acked(self) -> None:
        """Wait until the peer has acknowledged the message; cancelling this unsends nothing.

        Raises:
            DeliveryError: Another outcome came.
            ValueError: It was not sent as ``Delivery.ACKED``: no acknowledgement can come.
            InboxFull: As :meth:`wait`.
        """
        if self.delivery is not Delivery.ACKED:
            raise ValueError(
                f"a message sent as {self.delivery} is not acknowledged: use Delivery.ACKED,"
                " or await received()"
            )
        await self._wait_for(None)
        if self._outcome is not Outcome.ACKED:
            raise DeliveryError(self._outcome, self.truth)

    async def _wait_for(self, progress: Progress | None) -> None:
        """Wait for the outcome, or until the message has come so far."""
        await self._wait_until(lambda: self._is_past(progress))

    async def _wait_until(self, is_over: Callable[[], bool]) -> None:
        """Wait until that is so; asked whenever something has happened to the message."""
        await trio.lowlevel.checkpoint()
        if is_over():
            return
        with self._wait_scope():
            while not is_over():
                if self._waiters is None:
                    self._waiters = trio.lowlevel.ParkingLot()
                await self._waiters.park()

    def _is_past(self, progress: Progress | None) -> bool:
        return self._outcome is not None or (progress is not None and self._progress >= progress)

    def cancel(self) -> bool:
        """Take the message back.

        Returns:
            True if it was not, and never will be, written: not a byte of it.
        """
        if self._withdraw is not None and self._progress is Progress.ACCEPTED:
            self._withdraw()
        return self._outcome is Outcome.CANCELLED and self._progress is Progress.ACCEPTED

    def __repr__(self) -> str:
        state = self._progress.name.lower() if self._outcome is None else self._outcome.value
        return f"<{type(self).__name__} {state}>"

    # The outbox's side.

    def _advance(self, progress: Progress) -> None:
        """Note how far it has come; written again, it stays as far as it was."""
        if progress <= self._progress:
            return
        self._progress = progress
        self._wake()

    def _resolve(self, outcome: Outcome) -> bool:
        """Set the outcome; false if there is one already, which then stands."""
        if self._outcome is not None:
            return False
        self._outcome = outcome
        self._withdraw = None
        self._wake()
        return True

    def _wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiters is not None:
            self._waiters.unpark_all()
