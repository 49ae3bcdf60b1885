"""What the messages of a service look like, as far as a channel has to know.

A channel keeps connections, subscriptions and requests; a :class:`Protocol` says how a service
spells them.  It is asked for messages, and what messages mean; it keeps nothing, for one protocol
serves many connections, two of them at once perhaps.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from wsclient.connection import WebSocketConnection
from wsclient.errors import CodecError
from wsclient.options import ApplicationPing

from ._correlation import Correlation
from ._policy import Decision, Loss, Phase, classify


@attrs.frozen(kw_only=True)
class Wish:
    """One subscription, as it is asked for on one connection."""

    key: Hashable
    """What it is called by the program, and (often) by the service."""
    parameters: Any = attrs.field(default=None, repr=False)
    """Whatever else the service wants to know; not printed, for it may be a secret."""
    number: int
    """Tells it from every other that this channel has asked for, on whichever connection."""
    after: Any = None
    """The position behind which to go on; ``None`` for a stream without, or from now on."""


@attrs.frozen
class Subscribed:
    """The server has taken a subscription."""

    tag: Hashable
    """Which: its key or its number, as ``Protocol.named_by`` says."""
    token: Hashable = attrs.field(default=None, kw_only=True)
    """What the server calls it from now on, if that is something else."""
    resumed: bool = attrs.field(default=False, kw_only=True)
    """Whether it goes on right behind ``Wish.after``: nothing is missing."""
    position: Any = attrs.field(default=None, kw_only=True)
    """Where the stream stands, if the server says so: at ``Wish.after``, nothing is missing."""


@attrs.frozen
class Published:
    """Something was published to a subscription."""

    tag: Hashable
    """Which: its token if it has one, else as in :class:`Subscribed`."""
    value: Any
    """What is received from the feed."""
    position: Any = attrs.field(default=None, kw_only=True)
    """Where it stands in its stream, if the message says so beside the value.

    ``None``: :meth:`Protocol.position` is asked."""


@attrs.frozen
class Unsubscribed:
    """The server has confirmed that a subscription is over, as we asked."""

    tag: Hashable
    """Which: its token if it has one, else as in :class:`Subscribed`."""


@attrs.frozen
class SubscriptionEnded:
    """The server does not take a subscription, or has ended it."""

    tag: Hashable
    """Which: its token if it has one, else as in :class:`Subscribed`."""
    error: Exception | None = None
    """Why; ``None`` if the stream has come to its end."""
    may_retry: bool = attrs.field(default=False, kw_only=True)
    """Whether it may be asked for again, after a while; then its feed waits."""


@attrs.frozen
class Answer:
    """A message is about the connection itself: the service's own ping or pong, say."""

    message: str | bytes | None = None
    """What is to be sent back at once, ahead of what waits; ``None`` for nothing."""


Signal: TypeAlias = Subscribed | Published | Unsubscribed | SubscriptionEnded | Answer
"""What a message says of a subscription, or of the connection."""


class Protocol:
    """A service's protocol above WebSocket; subclass it, and override what the service has.

    What is not overridden is as if the service did not have it.
    """

    subprotocols: Sequence[str] = ()
    """Names offered in the opening handshake (RFC 6455 §1.9), if ``ConnectionOptions`` has none."""
    named_by: Literal["key", "number"] = "key"
    """What the server calls a subscription, until it gives it a token: ``Wish.key``, or
    ``Wish.number``."""
    confirms: bool = True
    """Whether the server confirms a subscription (:class:`Subscribed`).

    If not, it is taken to be there once the server has read it, which a pong tells."""
    repeats: bool = False
    """Whether the server sends to a new subscription what it has said lately.

    Then a position that has come before is a repetition; if not, the stream has gone back: the
    service has begun to count anew, or has taken back what it had said."""
    correlation: Correlation | None = None
    """How the reply to a request is known, if ``DeliveryOptions`` does not say."""
    heartbeat: ApplicationPing | None = None
    """The service's own ping, if ``HeartbeatOptions`` has none."""

    async def establish(self, connection: WebSocketConnection) -> None:
        """Begin on a new connection, first of all: log in, say hello.

        As an ``on_connect`` hook, and before it.

        Raises:
            Exception: The connection cannot be used.
        """

    def encode(self, value: Any) -> str | bytes:
        """A message from a value; JSON if not overridden.

        Raises:
            CodecError: The value has no such form.
        """
        try:
            return json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"cannot be encoded as JSON: {error}") from error

    def decode(self, message: str | bytes) -> Any:
        """A value from a message; JSON if not overridden.

        Raises:
            CodecError: The message is not of this form.
        """
        try:
            return json.loads(message)
        except (ValueError, RecursionError) as error:
            raise CodecError(f"not JSON: {type(error).__name__}") from error

    def subscribe(self, wish: Wish) -> str | bytes:
        """The message that asks for a subscription.

        Raises:
            Exception: It cannot be asked for so: its feed fails with it.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no subscriptions")

    def unsubscribe(self, wish: Wish, token: Hashable) -> str | bytes | None:
        """The message that ends a subscription; ``None`` if there is none.

        Args:
            wish: As it was asked for.
            token: What the server calls it, if it has said so; else ``None``.
        """
        return None

    def recognise(self, message: str | bytes) -> Signal | None:
        """What a message says of a subscription; ``None`` if it is about something else.

        Called for each message in the task that reads: it must not block.
        A message that it recognises goes no further.
        """
        return None

    @property
    def has_positions(self) -> bool:
        """Whether values have positions, so that one is known that comes over two connections."""
        return type(self).position is not Protocol.position

    def position(self, value: Any) -> Any:
        """Where a published value stands in its stream; ``None`` if streams have no positions.

        Later values have greater positions, or the stream has gone back.
        """
        return None

    def is_next(self, before: Any, after: Any) -> bool | None:
        """Whether nothing can be between two positions; ``None`` if positions do not tell.

        ``False`` tells a gap between the two, on one connection as well.
        ``True`` says that there is none, also where a connection was lost between them.
        """
        return None

    def classify(self, loss: Loss, phase: Phase) -> Decision:
        """What a loss means, if ``RetryPolicy.classify`` is not given."""
        return classify(loss, phase)
