"""Requests that wait for their reply, on whichever connection they went out.

A reply is known by the number that its request carried, and taken out of what is received before
it reaches the inbox, so that an inbox that is full is not in its way (``_inbox.py``).
It can only come on the connection that its request was written to: once that one has ended, the
request is lost, and what its truth is, its receipt says.  Nothing of an older connection gets
here, so that no number is ever taken for that of another life.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio

from wsclient.errors import (
    ChannelFailed,
    DeliveryError,
    OutboxError,
    OutboxFull,
    RequestLost,
    RequestTimeout,
)
from wsclient.events import Outcome, Truth

from ._correlation import Reply
from ._receipt import Progress, Receipt

REMEMBERED: Final = 4096
"""Requests that are over of which a late reply, or a second one, is still known for what it is."""

LAST_REPLY: Final = 1.0
"""Seconds for which we do not leave a connection that owes replies; nothing is sent meanwhile."""

_UNDER_WAY: Final = (None, Outcome.WRITTEN, Outcome.RECEIVED, Outcome.ACKED)
"""Outcomes of a request to which a reply may come."""

_REFUSALS: Final = (ChannelFailed, DeliveryError, OutboxError, OutboxFull)
"""Why a message is not accepted."""

_CERTAINTY: Final = (Truth.CERTAINLY_NOT, Truth.UNKNOWN, Truth.CERTAIN)


class Sendable(Protocol):
    """What can be sent: an entry of an outbox."""

    @property
    def receipt(self) -> Receipt:
        """What becomes of it."""


class _Request:
    """One that waits."""

    __slots__ = ("is_accepted", "is_lost", "known", "receipt", "reply")

    def __init__(self) -> None:
        self.receipt: Receipt | None = None
        """Of its message, sent last."""
        self.is_accepted = False
        """Whether that was accepted; then it can be taken back."""
        self.reply: Reply | None = None
        self.known = Truth.CERTAINLY_NOT
        """Whether the peer can have what was sent before it."""
        self.is_lost = False
        """Whether the connection has ended that it was written to."""

    @property
    def is_over(self) -> bool:
        return (
            self.reply is not None
            or self.is_lost
            or (self.receipt is not None and self.receipt.outcome not in _UNDER_WAY)
        )

    @property
    def was_taken(self) -> bool:
        """Whether a connection has ended with it, and not we have dropped it."""
        assert self.receipt is not None
        return self.is_lost or self.receipt.outcome is Outcome.LOST_UNKNOWN

    @property
    def is_written(self) -> bool:
        """Whether a byte of it may be on the wire."""
        return self.receipt is not None and self.receipt._progress is not Progress.ACCEPTED

    @property
    def truth(self) -> Truth:
        """Whether the peer can have it, whichever time it was sent."""
        assert self.receipt is not None
        return max(self.known, self.receipt.truth, key=_CERTAINTY.index)

    def wake(self) -> None:
        if self.receipt is not None:
            self.receipt._wake()


class Requests:
    """The requests of one channel.

    Args:
        first: The number of the first one.
    """

    def __init__(self, first: int = 1) -> None:
        self._numbers = itertools.count(first)
        self._waiting: dict[int, _Request] = {}
        self._over: OrderedDict[int, None] = OrderedDict()
        self._changed = trio.lowlevel.ParkingLot()
        self.late = 0
        """Replies that came when nobody waited for them any more."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def may_be_answered(self) -> bool:
        """Whether a reply would be known as one."""
        return bool(self._waiting or self._over)

    async def ask(
        self,
        offer: Callable[[int], Sendable],
        accept: Callable[[Any], Awaitable[object]],
        *,
        within: float,
        is_idempotent: bool,
    ) -> Any:
        """Send a request, and wait for its reply.

        Args:
            offer: Makes the message to send of the request's number; each time that it is sent.
            accept: Sends it.
            within: Seconds.
            is_idempotent: Whether it may be sent again if it is lost.

        Raises:
            RequestTimeout: No reply came in time.
            RequestLost: None can come any more.
            InboxFull: None can be read.
        """
        number = next(self._numbers)
        request = self._waiting[number] = _Request()
        try:
            with trio.move_on_after(within) as patience:
                while request.reply is None:
                    await self._send(request, offer(number), accept)
                    assert request.receipt is not None
                    await request.receipt._wait_until(lambda: request.is_over)
                    if not (is_idempotent and request.was_taken):
                        break
        finally:
            del self._waiting[number]
            self._put_aside(number, request)
        # Also where the time was over in the same moment.
        if request.reply is not None:
            return _value(request.reply)
        assert request.receipt is not None
        outcome, truth = request.receipt.outcome, request.truth
        # It may be sent for as long as its reply is waited for, and no longer.
        if patience.cancelled_caught or outcome is Outcome.EXPIRED:
            raise RequestTimeout(outcome, truth)
        raise RequestLost(outcome, truth)

    @staticmethod
    async def _send(
        request: _Request, message: Sendable, accept: Callable[[Any], Awaitable[object]]
    ) -> None:
        before = request.receipt
        if before is not None:
            request.known = request.truth
        request.receipt = message.receipt
        request.is_accepted = request.is_lost = False
        try:
            await accept(message)
            request.is_accepted = True
        except (trio.ClosedResourceError, *_REFUSALS) as error:
            if before is None:
                raise
            raise RequestLost(before.outcome, request.known) from error

    def _put_aside(self, number: int, request: _Request) -> None:
        self._changed.unpark_all()
        if request.receipt is None:
            return
        if request.is_accepted:
            request.receipt.cancel()
        if request.truth is not Truth.CERTAINLY_NOT:
            self._over[number] = None
            if len(self._over) > REMEMBERED:
                self._over.popitem(last=False)

    def answer(self, reply: Reply) -> bool:
        """A reply has come; whether it is to one of these requests, waiting or over."""
        request = self._waiting.get(reply.number)
        if request is not None and request.reply is None:
            request.reply = reply
            request.wake()
            return True
        # A request that has gone again may be replied to twice.
        is_late = request is not None or reply.number in self._over
        self.late += is_late
        return is_late

    async def finish(self) -> None:
        """Wait for replies to what was written: a second at most."""
        with trio.move_on_after(LAST_REPLY):
            while any(request.is_written for request in self._waiting.values()):
                await self._changed.park()

    def part(self) -> None:
        """The connection has ended that messages flowed over; every message knows by now."""
        for request in self._waiting.values():
            # What has no outcome goes again by itself, and waits on.
            receipt = request.receipt
            if request.is_written and receipt is not None and receipt.outcome is not None:
                request.is_lost = True
                request.wake()


def _value(reply: Reply) -> Any:
    if reply.error is not None:
        raise reply.error
    return reply.value
