"""The durable end that a user holds, across any number of connections."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar, cast

import attrs
import trio

from wsclient import events
from wsclient._discretion import forget_locals, forgetful
from wsclient.connection import MessageIterator, WebSocketConnection, round_trips
from wsclient.errors import (
    ChannelFailed,
    ConnectionClosed,
    DeliveryError,
    NotConnected,
    OutboxError,
    SendUnknown,
)
from wsclient.events import ChannelState, Delivery, Gap, Observer, Outcome, Overflow, Truth
from wsclient.options import DeliveryOptions, Limits, OverflowPolicy, SubscriptionOptions
from wsclient.protocol import encoded_size

from ._acks import Ack
from ._correlation import Correlation, Reply
from ._dedupe import Dedupe
from ._disk_outbox import DiskOutbox
from ._ends import DurableReceiveChannel, DurableSendChannel, Handles
from ._explain import Explanation
from ._feed import Backfill, Commit, Feed, TakeSnapshot, check_wish
from ._inbox import Inbox, Mark, Message
from ._line import Line, Settings
from ._observing import Observers
from ._outages import Outage
from ._outbox import Entry, Outbox
from ._protocol import Protocol
from ._rate import Bucket
from ._receipt import Progress, Receipt
from ._requests import Replies, Requests
from ._states import States, Step
from ._storage import Storage
from ._subscriptions import Subscriptions
from ._supervisor import Supervisor
from ._transitions import Followers, Transitions

T = TypeVar("T")

_STATES_THAT_ACCEPT = (
    ChannelState.CONNECTING,
    ChannelState.ESTABLISHING,
    ChannelState.READY,
    ChannelState.WAITING,
)

_WELL = {Outcome.RECEIVED, Outcome.ACKED, Outcome.WRITTEN}

LAST_WRITE = 1.0
"""Seconds in which the rest of a message is written whose sender was cancelled."""

LAST_READ = 1.0
"""Seconds that a body has to take what was received before a failed channel cancels it."""


@attrs.frozen(kw_only=True)
class ChannelStatistics:
    """Counts of a channel, at one moment."""

    state: ChannelState
    epoch: int
    """Connections so far, the present one included."""
    attempts: int
    """Attempts at a connection so far."""
    gaps: int
    """Gaps announced so far."""
    messages_accepted: int
    """Messages that ``send`` accepted."""
    messages_received: int
    """Messages that were taken from the channel."""
    outcomes: Mapping[Outcome, int]
    """How many receipts ended how."""
    outbox_messages: int
    """Messages accepted and without an outcome."""
    outbox_size: int
    """Bytes of them."""
    messages_dropped: int
    """Messages that came and were dropped, as ``Limits.inbox_overflow`` says."""
    messages_repeated: int
    """Messages that came over two connections, and were dropped the second time (``dedupe``)."""
    requests_waiting: int
    """Requests whose reply is waited for."""
    replies_late: int
    """Replies that came when nobody waited for them any more."""
    subscriptions_wanted: int
    """Subscriptions that are wanted."""
    subscriptions_live: int
    """Those that the server has on the present connection."""
    messages_stale: int
    """Messages that came on a connection that had been left."""
    inbox_messages: int
    """Messages received and not taken, gaps and overflows included."""
    inbox_size: int
    """Bytes of them."""
    latency: float | None
    """Seconds of the last ping's round trip on the present connection."""
    latency_smoothed: float | None
    """Likewise, smoothed: each new one counts an eighth."""
    latency_minimum: float | None
    """Likewise, of the shortest."""
    latency_p50: float | None
    """Likewise: half of the last hundred took no longer."""
    latency_p95: float | None
    """Likewise: 95 in a hundred of the last hundred took no longer."""
    latency_p99: float | None
    """Likewise: 99 in a hundred of the last hundred took no longer."""


class DurableChannel:
    """One channel across many connections; ``open_channel`` and ``connect_channel`` make it.

    Receiving: ``async for message in channel``, :meth:`receive`, :meth:`receive_many`;
    :meth:`items` shows the gaps between them, too.
    In order within a connection; between connections stands a gap, because messages may have been
    missed.

    Sending: :meth:`send` accepts a message also while there is no connection, and returns a
    :class:`Receipt` that tells what became of it.

    Any number of tasks may use it at once, all on trio's thread.
    """

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        delivery: DeliveryOptions,
        dedupe: Callable[[Message], Hashable] | None,
        observers: Iterable[Observer] | None,
        storage: Storage | None = None,
        protocol: Protocol | None = None,
        subscriptions: SubscriptionOptions | None = None,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._observe: Callable[[events.Event], None] = Observers(observers)
        if settings.recorder is not None:
            self._observe = settings.recorder.beside(self._observe)
        self._states = States(self._state_changed)
        self._followers = Followers()
        self._inbox = Inbox(
            limits, overflowed=self._inbox_overflowed, failed=self._inbox_key_failed
        )
        self._outbox = self._make_outbox(delivery, storage)
        self._dedupe = None if dedupe is None else Dedupe(dedupe, self._dedupe_failed)
        # What an earlier process has asked may go out, and be replied to, in this one; its numbers
        # must be none of ours.  There are enough of nine digits, and 32 bits hold them.
        self._requests = Requests(
            1 if storage is None else random.randrange(10**8, 10**9),
            lambda: self._supervisor.failure,
        )
        if (
            dedupe is not None
            or delivery.acknowledgement is not None
            or delivery.correlation is not None
        ):
            self._inbox.recognise = self._recognised
        rate = delivery.rate
        bucket = None if rate is None else Bucket(rate)
        self._subscriptions: Subscriptions | None = None
        if protocol is not None:
            self._subscriptions = Subscriptions(
                protocol,
                subscriptions or SubscriptionOptions(),
                settings.retry,
                self._inbox,
                bucket,
                name=settings.name,
                observe=self._observe,
                is_repeated=None if self._dedupe is None else self._dedupe.is_repeated,
                end=lambda: self._supervisor.end(),
            )
        self._supervisor = Supervisor(
            settings,
            inbox=self._inbox,
            outbox=self._outbox,
            states=self._states,
            requests=self._requests,
            subscriptions=self._subscriptions,
            bucket=bucket,
            observe=self._observe,
        )
        self._entered: tuple[str, float] = ("it was opened", math.inf)
        handles = Handles()
        self._receive_channel = DurableReceiveChannel(
            self.receive, self.receive_nowait, handles, lambda: self._memory_statistics(handles)
        )
        self._send_channel = DurableSendChannel(
            self.send, self.send_nowait, handles, lambda: self._memory_statistics(handles)
        )

    def _make_outbox(self, delivery: DeliveryOptions, storage: Storage | None) -> Outbox:
        if storage is None:
            return Outbox(
                self._limits,
                delivery,
                overflowed=self._outbox_overflowed,
                wait_scope=self._inbox.overrun,
            )
        return DiskOutbox(
            storage,
            self._limits,
            delivery,
            overflowed=self._outbox_overflowed,
            restored=self._outbox_restored,
            troubled=self._outbox_troubled,
            wake=lambda: self._supervisor.wake_writer(),
            wait_scope=self._inbox.overrun,
        )

    # What it is.

    @property
    def name(self) -> str:
        """How the channel is called in events and logs."""
        return self._settings.name

    @property
    def endpoint(self) -> str:
        """Scheme, host and port of where it is connected, or goes next."""
        return self._supervisor.endpoint

    @property
    def state(self) -> ChannelState:
        """Where the channel is."""
        return self._states.state

    @property
    def epoch(self) -> int:
        """Numbers the present connection, or the last one, from 1; 0 before the first."""
        return self._supervisor.epoch

    def statistics(self) -> ChannelStatistics:
        """Counts, at this moment."""
        connection = self._supervisor.connection
        trips = None if connection is None else round_trips(connection)
        return ChannelStatistics(
            state=self.state,
            epoch=self.epoch,
            attempts=self._supervisor.attempts,
            gaps=self._supervisor.gaps,
            messages_accepted=self._outbox.accepted,
            messages_received=self._inbox.messages_taken,
            outcomes=MappingProxyType(dict(self._outbox.outcomes)),
            outbox_messages=self._outbox.messages,
            outbox_size=self._outbox.size,
            messages_dropped=self._inbox.dropped,
            messages_repeated=0 if self._dedupe is None else self._dedupe.repeated,
            requests_waiting=len(self._requests),
            replies_late=self._requests.late,
            subscriptions_wanted=0 if self._subscriptions is None else len(self._subscriptions),
            subscriptions_live=0 if self._subscriptions is None else self._subscriptions.there,
            messages_stale=self._inbox.stale.messages,
            inbox_messages=len(self._inbox),
            inbox_size=self._inbox.size,
            latency=None if trips is None else trips.last,
            latency_smoothed=None if trips is None else trips.smoothed,
            latency_minimum=None if trips is None else trips.minimum,
            latency_p50=None if trips is None else trips.percentile(50),
            latency_p95=None if trips is None else trips.percentile(95),
            latency_p99=None if trips is None else trips.percentile(99),
        )

    def explain(self) -> Explanation:
        """Why is it not ready?  Where the channel is, why, what was decided, and what comes next.

        ``print(channel.explain())`` says it in sentences.
        """
        supervisor = self._supervisor
        now = trio.current_time()
        cause, entered_at = self._entered
        at = supervisor.next_attempt_at
        return Explanation(
            channel=self.name,
            state=self.state,
            cause=cause,
            since=max(0.0, now - entered_at),
            phase=supervisor.losses.phase,
            endpoint=supervisor.endpoint,
            endpoints=supervisor.endpoints,
            epoch=self.epoch,
            failures=supervisor.losses.failures,
            next_attempt=None if at is None else max(0.0, at - now),
            rule=supervisor.losses.rule or None,
            outcomes=tuple(str(error) for error in supervisor.losses.history),
            budget_left=supervisor.budget.left,
            budget_attempts=supervisor.budget.settings.attempts,
            budget_seconds=supervisor.budget.settings.seconds,
            budget_when_spent=supervisor.budget.settings.when_spent,
            outbox_trouble=None if self._outbox.trouble is None else str(self._outbox.trouble),
        )

    @property
    def outages(self) -> tuple[Outage, ...]:
        """The times since the first connection in which the channel was not ready, oldest first.

        The newest hundred; the last of them may last.
        """
        return self._supervisor.outages()

    # Connecting again.

    def retry_now(self) -> bool:
        """Make the next attempt now instead of waiting for it.

        For whoever knows better than a clock: the network is back, the server was restarted.
        While the channel is ready, that is an attempt at a second connection.

        Returns:
            Whether an attempt was being waited for; if not, nothing happens.
        """
        return self._supervisor.retry_now()

    def reconnect(self, reason: str) -> bool:
        """Leave the present connection for a new one to the same endpoint, at once.

        What it has written is proven first, for a second at most; what cannot be is treated as when
        a connection is lost, and a gap follows its messages.
        The old one is closed in the background with 1001.

        Args:
            reason: Why; for the events, and not for the server.

        Returns:
            Whether the channel was ready; if not, nothing happens.

        Raises:
            TypeError: ``reason`` is not ``str``.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason must be str, not {type(reason).__name__}")
        return self._supervisor.reconnect(reason)

    def rotate(self, reason: str) -> bool:
        """Move to a new connection, and leave the present one once the new one is established.

        For a server that announces that it will close the connection.
        Nothing is missed: both are read, until what the server had said on the old one is here.
        See ``rotate_every`` of :func:`open_channel`.

        Args:
            reason: Why; for the events, and not for the server.

        Returns:
            Whether the channel was ready; if not, nothing happens.

        Raises:
            TypeError: ``reason`` is not ``str``.
            ValueError: The channel was opened without ``dedupe``.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason must be str, not {type(reason).__name__}")
        if not self._settings.overlaps:
            raise ValueError(
                "rotate() needs to know repeated messages: open with dedupe=…, or a protocol with"
                " positions"
            )
        return self._supervisor.rotate(reason)

    @property
    def is_rotating(self) -> bool:
        """Whether the present connection is about to be left for another one, which is not there.

        Because of :meth:`rotate`, or of ``rotate_every``.
        """
        return self._supervisor.is_rotating

    @property
    def is_resumed(self) -> bool:
        """Whether nothing was missed between the present connection and the one before.

        A second connection had it (``redundancy``, ``rotate_every``), or the server goes on right
        where it was with every subscription.
        """
        return self._supervisor.is_resumed

    @property
    def has_standby(self) -> bool:
        """Whether a second connection would take over if the present one were lost now.

        Nothing would be missed: it is established and read.
        """
        return self._supervisor.has_standby

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.state.value}, epoch {self.epoch}>"

    # Waiting for states.

    async def wait_ready(self) -> None:
        """Wait until the channel is ready, or has been ready since the call.

        Raises:
            ChannelFailed: It has given up.
            trio.ClosedResourceError: It is draining or closed.
        """
        state = await self.wait_state(ChannelState.READY, ChannelState.DRAINING)
        if state is ChannelState.FAILED:
            raise self._failure()
        if state is not ChannelState.READY:
            raise trio.ClosedResourceError("the channel is closed")

    async def wait_state(self, *states: ChannelState) -> ChannelState:
        """Wait until one of ``states`` is entered, or was since the call; or a final one.

        Returns:
            The state that ended the wait.

        Raises:
            TypeError: One of ``states`` is not a :class:`ChannelState`.
        """
        for state in states:
            if not isinstance(state, ChannelState):
                raise TypeError(f"a state must be ChannelState, not {type(state).__name__}")
        return await self._states.wait_for(*states)

    def transitions(self) -> Transitions:
        """Follow the state: an async iterator over its changes from now on, each with its cause.

        The last 64 wait for whoever iterates; of more, the oldest are dropped, and counted in its
        attribute ``dropped``.
        Ends behind the final state.
        """
        return self._followers.add(is_over=self.state.is_final)

    # What lives as long as one connection.

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[WebSocketConnection, None]:
        """A block that lives as long as one connection: ``async with channel.connection() as …``.

        Waits until the channel is ready; the block is cancelled when that connection is lost or
        left, before messages flow over another one.
        The block gets the connection to ask it (its subprotocol, a ping); messages are sent and
        received by the channel.

        Raises:
            ConnectionClosed: Out of the block: the connection is lost or left.
            ChannelFailed: The channel has given up.
            trio.ClosedResourceError: It is draining or closed.
        """
        while (line := self._supervisor.ready_line) is None:
            await self.wait_ready()
        with line.life() as scope:
            yield line.connection
        if scope.cancelled_caught:
            raise ConnectionClosed(line.close_reason)

    async def while_connected(
        self, task: Callable[[WebSocketConnection], Awaitable[object]]
    ) -> None:
        """Run ``task`` on each connection, for as long as that lives, until the channel is closed.

        Give it to a nursery: ``nursery.start_soon(channel.while_connected, task)``.
        The task is cancelled when its connection is lost or left, and begins anew on the next one;
        one that returns has done its work for this connection, and so has one that notices first
        that its connection is closed, and raises :class:`ConnectionClosed`.

        Args:
            task: An async function; see :meth:`connection` for what it gets.

        Raises:
            ChannelFailed: The channel has given up.
            BaseException: What ``task`` raises.
        """
        last: Line | None = None
        while True:
            try:
                await self.wait_ready()
            except trio.ClosedResourceError:
                return
            line = self._supervisor.ready_line
            if line is None:
                continue
            try:
                with line.life():
                    if line is not last:
                        last = line
                        await task(line.connection)
                    await trio.sleep_forever()
            except Exception as error:
                if line.connection.closed is None or not _says_closed(error):
                    raise

    # Receiving.

    def __aiter__(self) -> MessageIterator:
        """The messages, across any number of connections, until the channel is closed.

        Raises:
            ChannelFailed: By the iterator, as :meth:`receive`.
        """
        return MessageIterator(self._inbox.batches, self._next_message, self._after_mark)

    async def __anext__(self) -> str | bytes:
        """The next message; a loop takes the faster way of the iterator."""
        return await self._next_message()

    async def _next_message(self) -> str | bytes:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def _after_mark(self, mark: Mark) -> Message:
        self._inbox.is_mark(mark)
        return await self._next_message()

    async def receive(self) -> str | bytes:
        """Wait for the next message; cancelling this loses nothing.

        Raises:
            trio.EndOfChannel: The channel is closed.
            ChannelFailed: It has given up, and everything received was taken.
        """
        while True:
            item = await self._take(self._inbox.take)
            if not self._inbox.is_mark(item):
                return cast("Message", item)

    def receive_nowait(self) -> str | bytes:
        """Take the next message if there is one.

        Raises:
            trio.WouldBlock: There is none.
            trio.EndOfChannel, ChannelFailed: As :meth:`receive`.
        """
        while True:
            try:
                item = self._inbox.take_nowait()
            except trio.EndOfChannel:
                self._raise_end()
            if not self._inbox.is_mark(item):
                return cast("Message", item)

    async def receive_many(self) -> list[str | bytes]:
        """Wait for messages and take all that are there: at least one.

        Raises:
            trio.EndOfChannel, ChannelFailed: As :meth:`receive`.
        """
        while True:
            messages = self._inbox.sort(await self._take(self._inbox.take_many))
            if messages:
                return messages

    def items(self) -> Items:
        """Messages and, in order between them, what is missing: ``async for … in channel.items()``.

        A :class:`Gap` stands for what may have been missed between two connections, an
        :class:`Overflow` for what came and was dropped.
        Whoever mixes this with the other ways of receiving sees what it takes itself.
        """
        return Items(self._next_item)

    async def _next_item(self) -> Message | Mark:
        item = await self._take(self._inbox.take)
        self._inbox.is_mark(item)
        return item

    async def _take(self, take: Callable[[], Awaitable[T]]) -> T:
        try:
            return await take()
        except trio.EndOfChannel:
            self._raise_end()

    def _raise_end(self) -> NoReturn:
        if self.state is ChannelState.FAILED:
            failure = self._failure()
            raise failure.with_traceback(None) from failure.__cause__
        raise trio.EndOfChannel from None

    def _failure(self) -> ChannelFailed:
        assert self._supervisor.failure is not None
        return self._supervisor.failure

    @property
    def receive_channel(self) -> DurableReceiveChannel:
        """The receiving end alone, as a ``trio.abc.ReceiveChannel``; clone it to hand it on."""
        return self._receive_channel

    # Sending.

    async def send(
        self,
        message: str | bytes,
        *,
        delivery: Delivery = Delivery.QUEUED,
        ttl: float | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Let the channel accept a message: ``str`` as text, ``bytes`` as binary.

        It is kept while there is no connection, and written in order once there is one.
        Waits while the outbox is full, if that is what ``DeliveryOptions.overflow`` says, and until
        an outbox on disk has the message.
        Cancelled, the message is not in the outbox and never will be; returning means accepted.

        Sent as ``Delivery.DIRECT`` it is not kept: this returns when its last byte was handed to
        the present connection.
        Cancelled before its first byte, it is gone; after, the rest is written all the same, within
        a second.

        Args:
            message: What to send.
            delivery: What is promised for it.
            ttl: Seconds within which it must be written (each time, for ``Delivery.ACKED``), or its
                outcome is ``Outcome.EXPIRED``.
                ``None`` is the caller's own deadline, if it has one: what nobody waits for any more
                is not sent after the outage.  ``math.inf`` is no limit.
            key: What it has in common with older messages that it replaces
                (``OverflowPolicy.CONFLATE``).

        Raises:
            trio.ClosedResourceError: The channel is draining or closed.
            ChannelFailed: It has given up.
            OutboxFull: There is no room, and the policy is ``OverflowPolicy.ERROR``.
            OutboxIOError: The disk failed, or did not answer soon after the call was cancelled: the
                message was not accepted, though a later process may find it.
            OutboxError: The disk cannot keep the message: it was not accepted.
            NotConnected: ``Delivery.DIRECT``, and there is no connection: certainly not sent.
            SendUnknown: ``Delivery.DIRECT``, and the connection died while it was being written.
            DeliveryError: ``Delivery.DIRECT``, and its time was over before its first byte.
            TypeError: The message is neither ``str`` nor ``bytes``.
            UnicodeEncodeError: The text cannot be encoded as UTF-8.
            ValueError: ``Delivery.ACKED`` without a strategy of acknowledging, or a message that
                cannot carry its id.
        """
        try:
            return await self._accept(self._offer(message, delivery, ttl, key))
        except BaseException as error:
            forget_locals(error)
            raise

    async def _accept(self, entry: Entry) -> Receipt:
        if entry.delivery is Delivery.DIRECT:
            return await self._send_direct(entry)
        receipt = await self._outbox.accept(entry)
        self._supervisor.wake_writer()
        return receipt

    def send_nowait(
        self,
        message: str | bytes,
        *,
        delivery: Delivery = Delivery.QUEUED,
        ttl: float | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Let the channel accept a message if there is room; see :meth:`send`.

        Sent as ``Delivery.DIRECT``, its receipt tells whether it was written.
        In a scope that is cancelled, give a ``ttl``: the caller's own deadline is over there.

        This does not wait for an outbox on disk: the message goes there next, and is written only
        after that, but a crash before loses it.
        If the disk cannot keep it, its outcome is ``Outcome.DROPPED``; and ``LOST_UNKNOWN`` where a
        later process may find it all the same.

        Raises:
            trio.WouldBlock: There is none, or others wait for it.
            OutboxError: The disk takes nothing more.
            trio.ClosedResourceError, ChannelFailed, OutboxFull, NotConnected, TypeError,
                UnicodeEncodeError, ValueError: As :meth:`send`.
        """
        try:
            entry = self._offer(message, delivery, ttl, key)
            if delivery is Delivery.DIRECT:
                self._check_connected()
            receipt = self._outbox.accept_nowait(entry)
        except BaseException as error:
            forget_locals(error)
            raise
        self._supervisor.wake_writer()
        return receipt

    def _offer(
        self, message: str | bytes, delivery: Delivery, ttl: float | None, key: str | None
    ) -> Entry:
        _check_message(message, delivery)
        if delivery is Delivery.ACKED and self._outbox.options.acknowledgement is None:
            raise ValueError(
                "Delivery.ACKED needs to know how messages are acknowledged:"
                " open the channel with delivery=DeliveryOptions(acknowledgement=…)"
            )
        if key is not None and not isinstance(key, str):
            raise TypeError(f"key must be str or None, not {type(key).__name__}")
        if ttl is None:
            expires_at = trio.current_effective_deadline()
        else:
            _check_seconds(ttl, "ttl")
            expires_at = trio.current_time() + ttl
        return self._outbox.offer(message, delivery, expires_at=expires_at, key=key)

    def _check_connected(self) -> None:
        if self.state in _STATES_THAT_ACCEPT and not self._supervisor.is_sending:
            raise NotConnected(None, Truth.CERTAINLY_NOT)

    async def _send_direct(self, entry: Entry) -> Receipt:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_connected()
        receipt = self._outbox.accept_nowait(entry)
        self._supervisor.wake_writer()
        try:
            await receipt._wait_for(Progress.WRITTEN)
        except trio.Cancelled:
            receipt.cancel()
            if receipt._progress is Progress.ACCEPTED:
                raise  # Gone, and be it because its time was over in the same moment.
            # A byte of it may be on the wire.
            with trio.move_on_after(LAST_WRITE, shield=True):
                await receipt._wait_for(Progress.WRITTEN)
            if receipt._progress < Progress.WRITTEN:
                self._supervisor.abort()
                raise SendUnknown(receipt.outcome, receipt.truth) from None
        if receipt._progress is Progress.ACCEPTED:
            error = DeliveryError if receipt.outcome is Outcome.EXPIRED else NotConnected
            raise error(receipt.outcome, receipt.truth)
        if receipt._progress is Progress.BEGUN:
            raise SendUnknown(receipt.outcome, receipt.truth)
        return receipt

    @forgetful
    async def request(
        self,
        message: Any,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109  # The reply's, and not only this call's.
        delivery: Delivery = Delivery.QUEUED,
        idempotent: bool = False,
    ) -> Any:
        """Ask something of the peer, and wait for its reply.

        ``DeliveryOptions.correlation`` says how the two belong together.
        The reply goes to this call, and not to who receives from the channel; also inside of the
        loop that does.

        While there is no connection the request is kept, as :meth:`send` does it; once this call
        has ended, cancelled or late, what was not written of it never will be.

        Args:
            message: What to ask, as the correlation takes it: a ``dict``, say.
            timeout: Seconds within which the reply must come; ``math.inf`` is no limit.
            delivery: What is promised for the request.
            idempotent: Whether it does no harm if the peer gets it twice.
                Then it is sent again where its connection ends before the reply came.

        Returns:
            What the correlation makes of the reply.

        Raises:
            RequestTimeout: No reply came in time.
            RequestLost: The connection has ended on which it would have come, or the request was
                dropped before it was written.
            ReplyError: The peer refuses, and the correlation knows how it says so.
            InboxFull: The reply cannot be read: so much waits to be received that reading stopped.
            ValueError: The channel has no correlation, or it cannot number this message.
            trio.ClosedResourceError, ChannelFailed, OutboxFull, OutboxError, NotConnected,
                SendUnknown, TypeError: As :meth:`send`.
        """
        correlation = self._correlation()
        _check_seconds(timeout, "timeout")
        return await self._requests.ask(
            lambda number: self._offer(correlation.mark(message, number), delivery, None, None),
            self._accept,
            within=timeout,
            is_idempotent=idempotent,
        )

    # Subscribing.

    @forgetful
    def subscribe(
        self,
        key: Hashable,
        parameters: Any = None,
        *,
        priority: float = 0,
        after: Any = None,
        backfill: Backfill | None = None,
        snapshot: TakeSnapshot | None = None,
        commit: Commit = "after",
        limits: Limits | None = None,
    ) -> Feed:
        """Subscribe to what the service publishes: ``async with channel.subscribe(…) as feed``.

        The wish is kept across connections until the block ends: on each new one the service is
        asked again, behind the last position where its protocol has positions, and the channel is
        ready once it has what is wanted.

        Several feeds of one key share one subscription on the wire; each gets every value.

        Args:
            key: What it is called: what the protocol makes a subscription of.
            parameters: Whatever else the service is to be told.
            priority: Among those that are asked for, the greatest comes first.
            after: The position behind which to begin: ``feed.position`` of an earlier process.
            backfill: An async function, or an async generator, that is given a
                :class:`~wsclient.Gap` and gives the values that are missing there, oldest first;
                as :class:`~wsclient.Published` where a position stands beside its value.
                Live values wait meanwhile, and what comes twice is dropped by its position.
            snapshot: An async function that gives a :class:`~wsclient.Snapshot`: the state that
                makes what came before it irrelevant.
                It is called once the subscription is there, and again behind a gap that
                ``backfill`` does not fill.
            commit: When ``feed.position`` moves: ``"after"`` a value was handled, so that what was
                not is received again by who begins there; or ``"before"``.
            limits: How much may wait in the feed, and what happens then (the ``inbox_…`` fields).

        Raises:
            ValueError: The channel was opened without ``protocol``.
            TypeError: An argument cannot be used.
        """
        if self._subscriptions is None:
            raise ValueError(
                "subscribe() needs to know how the service spells subscriptions:"
                " open the channel with protocol=…"
            )
        check_wish(key, priority, backfill, snapshot, commit, limits)
        return Feed(
            self._subscriptions,
            key,
            parameters,
            priority=priority,
            after=after,
            backfill=backfill,
            snapshot=snapshot,
            commit=commit,
            limits=Limits() if limits is None else limits,
        )

    @forgetful
    def stream(
        self,
        message: Any,
        *,
        timeout: float = 30.0,
        delivery: Delivery = Delivery.QUEUED,
    ) -> Replies:
        """Ask for something that has many replies: ``async with channel.stream(…) as replies``.

        As :meth:`request`; the block begins when the request was accepted, and
        ``async for reply in replies`` ends behind the last one, which the correlation knows
        (``Reply.is_last``).
        Replies that nobody takes wait, as many as the channel's own messages may, and stop the
        reading then.
        A block that ends earlier does not tell the peer; what still comes is dropped, and counted.

        Args:
            message: What to ask, as the correlation takes it: a ``dict``, say.
            timeout: Seconds within which the request must be accepted, and each reply come.
            delivery: What is promised for the request.

        Raises:
            RequestTimeout, RequestLost, ReplyError: By the block and its loop, as :meth:`request`.
            ValueError: The channel has no correlation.
        """
        correlation = self._correlation()
        _check_seconds(timeout, "timeout")
        limits = attrs.evolve(self._limits, inbox_overflow=OverflowPolicy.BLOCK, inbox_key=None)
        return self._requests.stream(
            lambda number: self._offer(correlation.mark(message, number), delivery, None, None),
            self._accept,
            within=timeout,
            inbox=Inbox(limits, beside=self._inbox),
        )

    def _correlation(self) -> Correlation:
        correlation: Correlation | None = self._outbox.options.correlation
        if correlation is None:
            raise ValueError(
                "request() needs to know which reply is whose:"
                " open the channel with delivery=DeliveryOptions(correlation=…)"
            )
        return correlation

    async def flush(self) -> bool:
        """Wait until everything that was accepted before has its outcome.

        Asks the peer for a proof at once, rather than after ``fence_interval``.

        Returns:
            Whether all of it went well: read or acknowledged by the peer, or (without fences)
            written.

        Raises:
            InboxFull: As :meth:`Receipt.wait`.
        """
        receipts = self._supervisor.open_receipts()
        self._outbox.hurried += 1
        self._supervisor.hurry()
        try:
            await trio.lowlevel.checkpoint()
            return {await receipt.wait() for receipt in receipts} <= _WELL
        finally:
            self._outbox.hurried -= 1

    @property
    def send_channel(self) -> DurableSendChannel:
        """The sending end alone, as a ``trio.abc.SendChannel``; clone it to hand it on."""
        return self._send_channel

    def _memory_statistics(self, handles: Handles) -> trio.MemoryChannelStatistics:
        return trio.MemoryChannelStatistics(
            current_buffer_used=len(self._inbox),
            max_buffer_size=self._limits.inbox_messages,
            open_send_channels=handles.senders,
            open_receive_channels=handles.receivers,
            tasks_waiting_send=self._outbox.senders_waiting,
            tasks_waiting_receive=self._inbox.tasks_waiting,
            peak_buffer_used=self._inbox.peak,
        )

    # Leaving.

    async def drain(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109  # It returns, not raises.
        """Accept nothing more, wait until what was accepted has arrived, and close the channel.

        What arriving means is what was promised: read by the peer, acknowledged by it, or (without
        fences) written.

        If the connection is lost meanwhile, the channel connects again.
        Messages can be received until it is closed.

        Args:
            timeout: Seconds; then the channel is closed all the same, also where this call was
                cancelled meanwhile.

        Returns:
            Whether everything has arrived.

        Raises:
            TypeError, ValueError: ``timeout`` is not a number of seconds.
        """
        _check_seconds(timeout, "timeout")
        if self.state in _STATES_THAT_ACCEPT:
            self._outbox.refuse(lambda: trio.ClosedResourceError("the channel is draining"))
            self._states.advance(Step.LEFT)
        unwritten = self._unwritten()
        self._supervisor.hurry()
        self._supervisor.leave(within=timeout)
        # At the deadline every message gets its outcome, too.
        await self._outbox.wait_empty()
        await self.aclose()
        return not self._supervisor.cut_off and unwritten == self._unwritten()

    def _unwritten(self) -> int:
        """How many messages ended otherwise than well."""
        outcomes = self._outbox.outcomes
        return outcomes.total() - sum(outcomes[outcome] for outcome in _WELL)

    async def aclose(self) -> None:
        """Close the channel now: what is not written is cancelled, what was received discarded.

        Takes two seconds at most, whatever the peer does.
        """
        self._outbox.refuse(self._supervisor.end)
        if self._supervisor.failure is None:
            self._inbox.end(discard=True)
        self._supervisor.leave()
        await self._supervisor.ended.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _leave_well(self) -> None:
        """What the end of a body that ended well does."""
        if self._outbox.open or self._outbox.senders_waiting:
            # Nobody will take what comes: a peer that waits for us to read would not read, either.
            self._inbox.end(discard=True)
            await self.drain()
        await self.aclose()

    async def _run(self, failed: Callable[[ChannelFailed], None]) -> None:
        """The session's task; calls ``failed`` once whoever receives had time to finish."""
        self._entered = (self._entered[0], trio.current_time())
        if self._settings.recorder is None:
            await self._supervisor.run()
        else:
            await self._settings.recorder.run_beside(self._supervisor.run)
        if self._supervisor.failure is not None:
            with trio.move_on_after(LAST_READ):
                await self._inbox.wait_empty()
            failed(self._supervisor.failure)

    def _recognised(self, message: Message) -> bool:
        """Whether a received message goes no further."""
        if self._outbox.options.acknowledgement is not None and self._acknowledged(message):
            return True
        if self._requests.may_be_answered and self._is_reply(message):
            return True
        return self._dedupe is not None and self._dedupe.is_repeated(message)

    def _dedupe_failed(self, error: Exception) -> None:
        self._observe(
            events.HandlerFailed(
                channel=self.name, handler="dedupe", subject="a message's key", error=error
            )
        )

    def _acknowledged(self, message: Message) -> bool:
        """Whether a received message is an acknowledgement; then it is no one else's."""
        try:
            ack = _checked(self._outbox.options.acknowledgement.recognise(message))
        except Exception as error:  # A user's function; the message may be for someone.
            self._observe(
                events.HandlerFailed(
                    channel=self.name,
                    handler=type(self._outbox.options.acknowledgement).__qualname__,
                    subject="acknowledgement",
                    error=error,
                )
            )
            return False
        if ack is None:
            return False
        if self._outbox.acknowledge(ack.id, accepted=ack.accepted):
            self._supervisor.acknowledged()
            return True
        # One of our ids is late, and says nothing new.  Any other is the peer's own, in a message
        # that only looks like an acknowledgement: nobody else would ever see it.
        return self._outbox.has_given(ack.id)

    def _is_reply(self, message: Message) -> bool:
        """Whether a received message replies to a request; then it is no one else's."""
        correlation = self._outbox.options.correlation
        try:
            reply = correlation.recognise(message)
            if reply is not None and not isinstance(reply, Reply):
                raise TypeError(f"recognise must return Reply or None, not {type(reply).__name__}")
        except Exception as error:  # A user's function; the message may be for someone.
            self._observe(
                events.HandlerFailed(
                    channel=self.name,
                    handler=type(correlation).__qualname__,
                    subject="reply",
                    error=error,
                )
            )
            return False
        return reply is not None and self._requests.answer(reply, encoded_size(message))

    def _outbox_overflowed(self, dropped: int) -> None:
        self._observe(events.OutboxOverflowed(channel=self.name, dropped=dropped))

    def _outbox_restored(self, messages: int, lost_unknown: int, expired: int) -> None:
        self._observe(
            events.OutboxRestored(
                channel=self.name, messages=messages, lost_unknown=lost_unknown, expired=expired
            )
        )

    def _outbox_troubled(self, error: OutboxError | None) -> None:
        self._observe(
            events.OutboxRecovered(channel=self.name)
            if error is None
            else events.OutboxFailed(channel=self.name, error=error)
        )

    def _state_changed(self, previous: ChannelState, state: ChannelState, cause: str) -> None:
        self._entered = (cause, trio.current_time())
        change = events.StateChanged(channel=self.name, previous=previous, state=state, cause=cause)
        self._followers.tell(change)
        self._observe(change)

    def _inbox_overflowed(self, dropped: int) -> None:
        self._observe(events.InboxOverflowed(channel=self.name, dropped=dropped))

    def _inbox_key_failed(self, error: Exception) -> None:
        key = self._limits.inbox_key
        self._observe(
            events.HandlerFailed(
                channel=self.name,
                handler=getattr(key, "__qualname__", type(key).__qualname__),
                subject="a message's key",
                error=error,
            )
        )


class Items:
    """An iterator over a channel's messages, and what is missing between them."""

    def __init__(self, take: Callable[[], Awaitable[str | bytes | Gap | Overflow]]) -> None:
        self._take = take

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> str | bytes | Gap | Overflow:
        """The next message, gap or overflow.

        Raises:
            ChannelFailed: The channel has given up, and everything received was taken.
        """
        try:
            return await self._take()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


def follow(
    channel: DurableChannel,
    receive: Callable[[Callable[[], Awaitable[Message | Mark]]], Awaitable[Message | Mark]],
    between: Callable[[Mark], Awaitable[object]],
) -> MessageIterator:
    """The messages of ``channel``, as fast as ``async for``, for who has a say in the loop.

    Args:
        channel: Whose messages.
        receive: Called where there may be something to wait for, with what waits for it and gives
            the next message or mark; raises ``StopAsyncIteration`` to end the loop.
        between: Called for what is missing between two messages, and awaited before the second.
    """

    async def next_message() -> Message:
        while True:
            try:
                item = await receive(channel._next_item)
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            if not isinstance(item, Mark):
                return item
            await between(item)

    async def after_mark(mark: Mark) -> Message:
        channel._inbox.is_mark(mark)
        await between(mark)
        return await next_message()

    return MessageIterator(channel._inbox.batches, next_message, after_mark)


def _says_closed(error: Exception) -> bool:
    """Whether it says only that a connection is closed; also where several tasks say so."""
    if isinstance(error, ExceptionGroup):
        return all(_says_closed(each) for each in error.exceptions)
    return isinstance(error, ConnectionClosed)


def _checked(ack: object) -> Ack | None:
    if ack is not None and not isinstance(ack, Ack):
        raise TypeError(f"recognise must return Ack or None, not {type(ack).__name__}")
    return ack


def _check_seconds(given: object, name: str) -> None:
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"{name} must be seconds, not {type(given).__name__}")
    if not given >= 0:
        raise ValueError(f"{name} must be at least 0 seconds, not {given!r}")


def _check_message(message: object, delivery: object) -> None:
    if isinstance(message, str):
        if not message.isascii():
            message.encode()  # A lone surrogate is the caller's mistake: tell the caller.
    elif not isinstance(message, bytes):
        raise TypeError(f"message must be str or bytes, not {type(message).__name__}")
    if not isinstance(delivery, Delivery):
        raise TypeError(f"delivery must be wsclient.Delivery, not {type(delivery).__name__}")
