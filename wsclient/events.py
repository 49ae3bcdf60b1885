"""What happened to a session: facts, in the past tense, and the words they use.

Observers are told, never asked: ``observer(event)`` is called at once, must not block, and what it
raises does not reach the session.
No event holds a URL's path or query, a header or a message, and none shows a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, TypeAlias

import attrs

__all__ = [
    "ChannelClosed",
    "ChannelGaveUp",
    "ChannelState",
    "ConnectionAttempted",
    "ConnectionFailed",
    "ConnectionLeft",
    "ConnectionLost",
    "ConnectionOpened",
    "ConnectionReady",
    "DeadLetter",
    "Delivery",
    "Event",
    "FencesLifted",
    "Gap",
    "GapDetected",
    "HandlerFailed",
    "InboxOverflowed",
    "JournalFailed",
    "JournalRecovered",
    "LocalStallDetected",
    "LossKind",
    "MessageQuarantined",
    "MessageUndecoded",
    "Observer",
    "ObserverFailed",
    "OutboxFailed",
    "OutboxOverflowed",
    "OutboxRecovered",
    "OutboxRestored",
    "Outcome",
    "Overflow",
    "PeerStoppedReading",
    "RetryScheduled",
    "StateChanged",
    "SubscriptionRefused",
    "SubscriptionsRestored",
    "SuspendDetected",
    "Truth",
]


class ChannelState(Enum):
    """Where a channel is; which may follow which is the table in ``session/_states.py``."""

    CONNECTING = "connecting"
    """Name lookup, TCP, TLS and upgrade are under way."""
    ESTABLISHING = "establishing"
    """Connected; the ``on_connect`` hook authenticates, resumes, subscribes."""
    READY = "ready"
    """Messages flow."""
    WAITING = "waiting"
    """Between a failure and the next attempt."""
    DRAINING = "draining"
    """Leaving: nothing more is accepted, what was accepted flows out."""
    CLOSED = "closed"
    """Closed as asked; final."""
    FAILED = "failed"
    """Given up; final. :class:`~wsclient.ChannelFailed` says why."""

    @property
    def is_final(self) -> bool:
        """Whether nothing follows this state."""
        return self in (ChannelState.CLOSED, ChannelState.FAILED)


class Delivery(Enum):
    """What is promised for a message that is sent."""

    DIRECT = "direct"
    """Written to the present connection, or an error; never buffered, never repeated."""
    QUEUED = "queued"
    """At most once.

    Held in a bounded outbox while there is no connection, then written to *one* connection; once a
    byte of it was handed to the transport it is never written again.
    """
    ACKED = "acked"
    """At least once, until acknowledged, expired, cancelled or out of attempts.

    Carries an id that stays the same; after a reconnect the unacknowledged ones go again, in their
    order, before any newer one.
    Effectively once if the peer drops repeated ids.
    """


class Truth(Enum):
    """What is known of a message: whether the peer can have it."""

    CERTAIN = "certain"
    """The peer has it."""
    CERTAINLY_NOT = "certainly not"
    """Not a byte of it was ever written."""
    UNKNOWN = "unknown"
    """It was written, or a part of it was; whether it arrived cannot be told."""


class Outcome(Enum):
    """What became of a message: each that was accepted gets exactly one, once."""

    RECEIVED = "received"
    """The peer's WebSocket endpoint has read it whole: a pong for a later ping proves that
    (RFC 6455 §5.5.3).

    That says nothing about the application behind it; a proxy that ends WebSocket is an endpoint.
    """
    ACKED = "acknowledged"
    """The peer has acknowledged it."""
    WRITTEN = "written"
    """Its last byte was handed to the transport; whether the peer read it is not known: fences are
    off, or the peer does not answer them."""
    LOST_UNKNOWN = "lost: unknown"
    """Its connection died before the peer's reading was proven; it is not written again."""
    EXPIRED = "expired"
    """Its ``ttl`` was over."""
    DROPPED = "dropped"
    """The outbox was full, or a newer message with the same key replaced it, or (``send_nowait``)
    the disk could not keep it, before a byte of it was written."""
    CANCELLED = "cancelled"
    """Taken back, or the channel ended, before a byte of it was written."""
    REJECTED = "rejected"
    """The peer has said that it does not take it."""
    QUARANTINED = "quarantined"
    """It was the only message in flight when a connection that may have died of it died again; or
    its id could not be put into it once more."""
    STORED = "stored"
    """Left in an outbox on disk when the channel ended: the next channel that has it sends it."""


# One is counted for each message, and the hash that an Enum has is a function in Python.
Outcome.__hash__ = object.__hash__  # type: ignore[method-assign]


class LossKind(Enum):
    """In which way a connection, or an attempt at one, ended."""

    UNREACHABLE = "unreachable"
    """Name lookup, TCP or the handshake broke off or took too long."""
    TLS_UNVERIFIED = "TLS certificate not verified"
    """The server's certificate is not one to trust."""
    TLS_FAILED = "TLS failed"
    """TLS could not be agreed on for another reason; often the server speaks none."""
    REJECTED = "rejected"
    """The server answered with another HTTP status than 101, or a proxy with a refusal:
    ``status``."""
    INVALID_UPGRADE = "invalid upgrade"
    """The server's answer is not a WebSocket handshake."""
    CLOSED = "closed"
    """The connection was closed, by either side: ``code``."""
    SILENT = "silent"
    """The heartbeat found no sign of life."""
    NOT_PROVIDED = "not provided"
    """The function for the URL, the headers or the credentials failed."""
    NOT_ESTABLISHED = "not established"
    """The ``on_connect`` hook failed or was late, or no subscription was confirmed."""


@attrs.frozen(kw_only=True)
class Gap:
    """An interval in which messages may have been missed.

    In a channel, it stands between the last message of one connection and the first of a later one.
    In a feed, it may also stand where positions were left out on one connection.
    """

    after: int
    """The epoch of the connection before it."""
    before: int
    """The epoch of the connection after it."""
    since: float
    """When the last byte came on the connection before (Unix time, seconds)."""
    until: float
    """When the connection after was ready (Unix time, seconds)."""
    reason: str
    """How the connection before it ended."""
    subscription: Hashable = attrs.field(default=None, kw_only=True)
    """The key of the subscription whose values may be missing; ``None`` for a channel's gap."""
    after_position: Any = attrs.field(default=None, kw_only=True)
    """The position of the last value before it; ``None`` where there is none."""
    before_position: Any = attrs.field(default=None, kw_only=True)
    """The position of the first value after it; ``None`` where that is not known."""


@attrs.frozen
class Overflow:
    """Messages that came and were dropped, because nobody took them in time.

    It stands where they are missing.
    """

    messages: int
    """How many."""


@attrs.frozen(kw_only=True)
class Event:
    """Something happened to the channel called ``channel``."""

    channel: str
    """The channel's name."""


@attrs.frozen(kw_only=True)
class StateChanged(Event):
    """The channel went from one state to another."""

    previous: ChannelState
    state: ChannelState
    cause: str
    """What made it change, as a sentence."""


@attrs.frozen(kw_only=True)
class ConnectionEvent(Event):
    """Something happened to one of the channel's connections, or to an attempt at one."""

    endpoint: str
    """Scheme, host and port."""
    attempt: int
    """Counts from 1 since the last stable connection."""


@attrs.frozen(kw_only=True)
class ConnectionAttempted(ConnectionEvent):
    """An attempt at a connection began."""


@attrs.frozen(kw_only=True)
class ConnectionFailed(ConnectionEvent):
    """An attempt at a connection ended without one."""

    cause: str
    """What failed, as a sentence."""
    duration: float
    """Seconds that the attempt took."""
    kind: LossKind = LossKind.UNREACHABLE
    """In which way it failed."""
    status: int | None = None
    """The HTTP status of a refusal."""


def _whether(value: object) -> str:
    """Shows whether there is a value, and not which."""
    return "None" if value is None else "…"


@attrs.frozen(kw_only=True)
class ConnectionOpened(ConnectionEvent):
    """The opening handshake succeeded."""

    epoch: int
    """Numbers the channel's connections from 1."""
    duration: float
    """Seconds that the attempt took."""
    subprotocol: str | None = attrs.field(repr=_whether)
    """What the server chose of the subprotocols offered.

    Printed as ``…``, and so in logs: some services take a token for one."""


@attrs.frozen(kw_only=True)
class ConnectionReady(ConnectionEvent):
    """The hook is done: messages flow."""

    epoch: int
    outage: float | None
    """Seconds since the last proof of life on the connection before; ``None`` for the first."""
    resumed: bool | None = None
    """Whether nothing was missed since then: a second connection had it, or the server resumed
    every subscription where it was; ``None`` for the first."""
    outage_attempts: int | None = None
    """Attempts at a connection in the outage that this ends, this one included; ``None`` where it
    ends none."""
    duration: float = 0.0
    """Seconds from the beginning of the attempt until the hook was done."""


@attrs.frozen(kw_only=True)
class ConnectionLost(ConnectionEvent):
    """A connection ended that the channel did not mean to end."""

    epoch: int
    cause: str
    """What ended it, as a sentence."""
    code: int | None
    """The close code, where there was one."""
    duration: float
    """Seconds that it was open."""
    ready: bool
    """Whether messages had flowed, or the hook had still been at work."""
    kind: LossKind = LossKind.CLOSED
    """In which way it ended."""


@attrs.frozen(kw_only=True)
class ConnectionLeft(ConnectionEvent):
    """The channel left a connection that was good, for another one."""

    epoch: int
    reason: str
    """What was given to :meth:`DurableChannel.reconnect` or :meth:`DurableChannel.rotate`; or how
    old it was (``rotate_every``), or that it was a second one that is not needed any more."""
    duration: float
    """Seconds that it was open."""


@attrs.frozen(kw_only=True)
class PeerStoppedReading(ConnectionEvent):
    """The connection is about to be lost because the peer reads nothing, though it may live."""

    epoch: int


@attrs.frozen(kw_only=True)
class LocalStallDetected(ConnectionEvent):
    """The peer's time was over, and we were late ourselves: it gets that time once more."""

    epoch: int
    late: float
    """Seconds by which we were late; 0 where only its bytes had not been read yet."""


@attrs.frozen(kw_only=True)
class RetryScheduled(ConnectionEvent):
    """The next attempt will come after ``delay``."""

    delay: float
    """Seconds."""
    rule: str
    """What decided so."""


@attrs.frozen(kw_only=True)
class GapDetected(Event):
    """Messages may have been missed."""

    gap: Gap


@attrs.frozen(kw_only=True)
class SubscriptionsRestored(Event):
    """A new connection has the subscriptions that are wanted."""

    epoch: int
    subscriptions: int
    """How many the server has."""
    resumed: int
    """How many of them go on right where they were."""
    delayed: int
    """How many were refused, and are asked for again later."""
    duration: float
    """Seconds that it took."""


@attrs.frozen(kw_only=True)
class SubscriptionRefused(Event):
    """The server does not take a subscription, or has ended it for a reason of its own."""

    epoch: int
    subscription: str
    """Its key, as text."""
    error: Exception
    retry_in: float | None
    """Seconds until it is asked for again; ``None``: never, and its feed fails."""


@attrs.frozen(kw_only=True)
class FencesLifted(Event):
    """The peer answers no ping, though it says other things.

    What it has read cannot be proven on this connection, and receipts end as ``WRITTEN``.
    """

    epoch: int
    messages: int
    """Messages that were waiting for their proof."""


@attrs.frozen(kw_only=True)
class OutboxOverflowed(Event):
    """Messages were dropped because the outbox was full, or newer ones with their keys came.

    Told at the first one, and again when what waited behind it has gone, or the channel ends.
    """

    dropped: int
    """Messages dropped so far, since nothing had waited."""


@attrs.frozen(kw_only=True)
class OutboxRestored(Event):
    """The outbox on disk had messages in it, of an earlier process or channel."""

    messages: int
    """Messages that are to be sent now."""
    lost_unknown: int
    """Messages that may have been written before, and are not written again."""
    expired: int
    """Messages whose ``ttl`` was over."""


@attrs.frozen(kw_only=True)
class OutboxFailed(Event):
    """The outbox on disk cannot keep what it was given; told once until that changes."""

    error: BaseException
    """What the senders get: an ``OutboxError``."""


@attrs.frozen(kw_only=True)
class OutboxRecovered(Event):
    """The outbox on disk works again."""


@attrs.frozen(kw_only=True)
class DeadLetter:
    """A message that was given up."""

    message: str | bytes
    """As it was sent."""
    id: str | None
    """The id that it carried."""
    attempts: int
    """Connections to which it was written."""
    cause: str
    """Why it was given up, as a sentence."""


@attrs.frozen(kw_only=True)
class MessageQuarantined(Event):
    """A message was given up, because connections died of it.

    Or because its id could not be put into it once more, when it was to go again.
    """

    id: str | None
    attempts: int
    cause: str


@attrs.frozen(kw_only=True)
class InboxOverflowed(Event):
    """Messages were dropped because nobody took them.

    Told when an overflow begins, and when it is over.
    """

    dropped: int
    """Messages that it has cost so far."""


@attrs.frozen(kw_only=True)
class JournalFailed(Event):
    """The journal cannot record what is received; told once until that changes.

    What comes meanwhile waits, and some of it is missing in the journal if that takes too long.
    """

    cause: str
    """Why, as a sentence."""


@attrs.frozen(kw_only=True)
class JournalRecovered(Event):
    """The journal records again."""


@attrs.frozen(kw_only=True)
class SuspendDetected(Event):
    """The machine has slept: the peer is asked at once, and waits begin anew."""

    duration: float
    """Seconds."""


@attrs.frozen(kw_only=True)
class ChannelClosed(Event):
    """The channel was closed as asked."""

    cancelled: int
    """Messages that were accepted and never written."""
    lost_unknown: int
    """Messages whose write was cut short by this end."""
    stored: int = 0
    """Messages that are left in an outbox on disk."""


@attrs.frozen(kw_only=True)
class ChannelGaveUp(Event):
    """The policy called the last failure fatal."""

    reason: str
    """What was decided, and by which rule."""
    cancelled: int
    """Messages that were accepted and never written."""
    lost_unknown: int
    """Messages whose write was cut short by this end."""
    stored: int = 0
    """Messages that are left in an outbox on disk."""


@attrs.frozen(kw_only=True)
class HandlerFailed(Event):
    """A bot's handler raised; the connection lives on."""

    handler: str
    """The handler's qualified name."""
    subject: str
    """What it was called for: a message's type, a timer, a hook."""
    error: BaseException


@attrs.frozen(kw_only=True)
class MessageUndecoded(Event):
    """A message could not be decoded, or names no type; it was skipped."""

    size: int
    """Bytes."""
    error: BaseException


@attrs.frozen(kw_only=True)
class ObserverFailed(Event):
    """An observer raised; the others and the session go on."""

    observer: str
    error: BaseException


Observer: TypeAlias = Callable[[Event], object]
"""Whoever wants to be told: a function of one event."""
