"""How a WebSocket connection says why it ends (RFC 6455 §7.4)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import attrs

__all__ = ["CloseCode", "CloseReason", "is_sendable"]


class CloseCode(IntEnum):
    """The close codes that have a registered meaning (RFC 6455 §7.4.1 and IANA's registry)."""

    NORMAL_CLOSURE = 1000
    """The purpose of the connection is fulfilled."""
    GOING_AWAY = 1001
    """The server is going down, or a browser has left the page."""
    PROTOCOL_ERROR = 1002
    """A rule of the protocol was broken."""
    UNSUPPORTED_DATA = 1003
    """A message of a kind that the endpoint cannot accept."""
    NO_STATUS_RCVD = 1005
    """Never sent: the close frame carried no code."""
    ABNORMAL_CLOSURE = 1006
    """Never sent: the connection ended without a close frame."""
    INVALID_FRAME_PAYLOAD_DATA = 1007
    """Text that is not UTF-8, or a message that contradicts its kind."""
    POLICY_VIOLATION = 1008
    """A message that breaks the endpoint's policy; often: not authorised."""
    MESSAGE_TOO_BIG = 1009
    """A message larger than the endpoint is willing to process."""
    MANDATORY_EXT = 1010
    """The server did not negotiate an extension that the client needs."""
    INTERNAL_ERROR = 1011
    """The server met a condition that it did not expect."""
    SERVICE_RESTART = 1012
    """The server restarts."""
    TRY_AGAIN_LATER = 1013
    """The server is overloaded."""
    BAD_GATEWAY = 1014
    """A gateway got an invalid answer from its upstream."""
    TLS_HANDSHAKE_FAILED = 1015
    """Never sent: TLS could not be established."""


_LOCAL_ONLY: Final = frozenset({1004, 1005, 1006, 1015})


def is_sendable(code: int) -> bool:
    """Whether ``code`` may stand in a close frame (RFC 6455 §7.4.1 and §7.4.2)."""
    return (1000 <= code <= 1014 and code not in _LOCAL_ONLY) or 3000 <= code <= 4999


def _name(code: int) -> str:
    try:
        return CloseCode(code).name
    except ValueError:
        pass
    if 1000 <= code <= 2999:
        return "RFC_RESERVED"
    if 3000 <= code <= 3999:
        return "IANA_RESERVED"
    if 4000 <= code <= 4999:
        return "PRIVATE_RESERVED"
    return "INVALID_CODE"


def _text(reason: str | None) -> str | None:
    return reason or None


@attrs.frozen(repr=False)
class CloseReason:
    """Why a connection was closed."""

    code: int = attrs.field(converter=int)
    """The close code (RFC 6455 §7.4); a number, also where it has a name."""
    reason: str | None = attrs.field(default=None, converter=_text)
    """The text that came with it, at most 123 bytes of UTF-8; ``None`` if there was none."""

    @property
    def name(self) -> str:
        """The code's registered name, or the name of the range that it lies in."""
        return _name(self.code)

    def __repr__(self) -> str:
        reason = self.reason
        if reason is not None and not reason.isprintable():
            reason = repr(reason)[1:-1]  # Nothing of the peer's moves a terminal's cursor.
        return f"CloseReason<code={self.code}, name={self.name}, reason={reason}>"

    def __str__(self) -> str:
        # The text is the peer's: quoted, so that it cannot pretend to be ours.
        return f"{self.code} {self.name}" + (f" {self.reason!r}" if self.reason else "")
