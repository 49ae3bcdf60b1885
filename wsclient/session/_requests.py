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
from typing import Any, Final, Protocol, Self

import trio

from wsclient._discretion import forgetful
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
from ._inbox import Inbox
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

    __slots__ = ("is_accepted", "is_lost", "known", "receipt", "replies", "reply")

    def __init__(self, replies: Inbox | None = None) -> None:
        self.replies: Inbox | None = replies
        """Where replies wait, if there may be many; ``reply`` is the last of them."""
        self.receipt: Receipt | None = None
        """Of its message, sent last."""
        self.is_accepted: bool = False
        """Whether that was accepted; then it can be taken back."""
        self.reply: Reply | None = None
        self.known: Truth = Truth.CERTAINLY_NOT
        """Whether the peer can have what was sent before it."""
        self.is_lost: bool = False
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
        why_ended: Why the channel has ended, if it has given up.
    """

    def __init__(
        self, first: int = 1, why_ended: Callable[[], BaseException | None] = lambda: None
    ) -> None:
        self._why_ended = why_ended
        self._numbers = itertools.count(first)
        self._waiting: dict[int, _Request] = {}
        self._over: OrderedDict[int, None] = OrderedDict()
        self._changed = trio.lowlevel.ParkingLot()
        self.late: int = 0
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
        request = _Request()
        number = self.begin(request)
        try:
            with trio.move_on_after(within) as patience:
                while request.reply is None:
                    await send(request, offer(number), accept)
                    assert request.receipt is not None
                    await request.receipt._wait_until(lambda: request.is_over)
                    if not (is_idempotent and request.was_taken):
                        break
        finally:
            self.end(number, request)
        # Also where the time was over in the same moment.
        if request.reply is not None:
            return _value(request.reply)
        raise self.failure(request, is_late=patience.cancelled_caught)

    def failure(self, request: _Request, *, is_late: bool) -> RequestLost | RequestTimeout:
        """Why there is no reply."""
        assert request.receipt is not None
        outcome = request.receipt.outcome
        # It may be sent for as long as its reply is waited for, and no longer.
        if is_late or outcome is Outcome.EXPIRED:
            return RequestTimeout(outcome, request.truth)
        lost = RequestLost(outcome, request.truth)
        lost.__cause__ = self._why_ended()
        return lost

    def stream(
        self,
        offer: Callable[[int], Sendable],
        accept: Callable[[Any], Awaitable[object]],
        *,
        within: float,
        inbox: Inbox,
    ) -> Replies:
        """Ask for many replies.

        Args:
            offer: As for :meth:`ask`.
            accept: As for :meth:`ask`.
            within: Seconds, for each reply.
            inbox: Where they wait.
        """
        return Replies(self, offer, accept, within=within, inbox=inbox)

    def begin(self, request: _Request) -> int:
        """Let replies come to a request; returns its number."""
        number = next(self._numbers)
        self._waiting[number] = request
        return number

    def end(self, number: int, request: _Request) -> None:
        """Nobody waits for replies to it any more."""
        del self._waiting[number]
        self._put_aside(number, request)

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

    def answer(self, reply: Reply, size: int) -> bool:
        """A reply of ``size`` bytes has come; whether it is to a request that waits, or is over."""
        request = self._waiting.get(reply.number)
        if request is not None and request.reply is None:
            if request.replies is None:
                request.reply = reply
            else:
                if reply.error is None and not reply.is_empty:
                    request.replies.put([reply.value], size)
                if reply.error is not None or reply.is_last:
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


async def send(
    request: _Request, message: Sendable, accept: Callable[[Any], Awaitable[object]]
) -> None:
    """Send a request, once more perhaps.

    Raises:
        RequestLost: It was sent before, and cannot be again.
        Exception: It was not accepted.
    """
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


class Replies:
    """The replies to one request; ``channel.stream`` makes it.

    ``async with`` it, which sends the request, and take: ``async for reply in replies``.
    """

    def __init__(
        self,
        requests: Requests,
        offer: Callable[[int], Sendable],
        accept: Callable[[Any], Awaitable[object]],
        *,
        within: float,
        inbox: Inbox,
    ) -> None:
        self._requests = requests
        self._offer = offer
        self._accept = accept
        self._within = within
        self._inbox = inbox
        self._request = _Request(inbox)
        self._number = 0

    @forgetful
    async def __aenter__(self) -> Self:
        if self._number:
            raise RuntimeError("a request is sent once: ask again")
        self._number = self._requests.begin(self._request)
        try:
            with trio.move_on_after(self._within) as patience:
                await send(self._request, self._offer(self._number), self._accept)
            if patience.cancelled_caught:
                raise self._requests.failure(self._request, is_late=True)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._inbox.end(discard=True)
        self._requests.end(self._number, self._request)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next reply; cancelling this loses nothing.

        Raises:
            RequestTimeout: It did not come in time.
            RequestLost: It cannot come any more; those that have come were taken.
            ReplyError: The peer refuses, and the correlation knows how it says so.
            InboxFull: It cannot be read: so much waits to be received that reading stopped.
        """
        request = self._request
        if request.receipt is None or self._inbox.has_ended:
            raise RuntimeError("replies are received inside of their `async with` block")
        with trio.move_on_after(self._within) as patience:
            await request.receipt._wait_until(lambda: len(self._inbox) > 0 or request.is_over)
        # Also where the time was over in the same moment.
        if len(self._inbox):
            return self._inbox.take_nowait()
        if request.reply is None:
            raise self._requests.failure(request, is_late=patience.cancelled_caught)
        if request.reply.error is not None:
            raise request.reply.error
        raise StopAsyncIteration


def _value(reply: Reply) -> Any:
    if reply.error is not None:
        raise reply.error
    return reply.value
