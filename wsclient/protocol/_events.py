"""The facts that received bytes amount to; and a wish that is an object."""

from __future__ import annotations

from typing import TypeAlias

import attrs
from wsproto.events import CloseConnection


@attrs.frozen
class PingReceived:
    """The peer asks for a pong with the same payload (RFC 6455 §5.5.2)."""

    payload: bytes


@attrs.frozen
class PongReceived:
    """The peer answered a ping, or sent a pong unasked (RFC 6455 §5.5.3)."""

    payload: bytes


@attrs.frozen
class CloseReceived:
    """The peer sent a close frame (RFC 6455 §5.5.1); a frame without a code is code 1005."""

    code: int
    reason: str | None


@attrs.frozen
class ProtocolViolated:
    """The peer broke a rule or a limit; ``code`` is what to close with (RFC 6455 §7.1.7)."""

    code: int
    reason: str


@attrs.frozen(slots=True)
class MessagePart:
    """A part of a message, where parts were asked for; the last part is empty."""

    data: str | bytes
    is_last: bool


class SendClose(CloseConnection):
    """The wish to send a close frame with a code and a reason.

    One of wsproto's events: what stands between a connection and its close frame was written for
    trio-websocket, and looks for that.
    """


Fact: TypeAlias = (
    str | bytes | MessagePart | PingReceived | PongReceived | CloseReceived | ProtocolViolated
)
"""A whole message is itself; everything else has a name."""
