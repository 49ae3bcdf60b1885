"""Faults are data: what a server does to one connection, as a value with a name.

``FaultServer([REJECT_503, RESET_AFTER_OPEN, NONE])`` reads as the story it tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

import attrs

from . import _frames

__all__ = [
    "ACCEPT_THEN_CLOSE",
    "ANSWER_200",
    "BAD_ACCEPT",
    "BAD_OPCODE",
    "BAD_UTF8",
    "DELAYED_HANDSHAKE",
    "EOF_AFTER_OPEN",
    "EOF_IN_HANDSHAKE",
    "GARBAGE_ANSWER",
    "HALF_FRAME",
    "HALF_FRAME_THEN_SILENCE",
    "MASKED_FRAME",
    "MUTE_CLOSE",
    "NEVER_READS",
    "NONE",
    "OVERSIZED",
    "REFUSE",
    "REJECT_401",
    "REJECT_403",
    "REJECT_404",
    "REJECT_500",
    "REJECT_503",
    "RESET_AFTER_OPEN",
    "RESET_ON_ACCEPT",
    "SILENCE",
    "SILENT_HANDSHAKE",
    "Fault",
    "FaultKind",
]


class FaultKind(Enum):
    """What a server can do to a connection."""

    NONE = "none"
    REFUSE = "refuse"
    RESET_ON_ACCEPT = "reset on accept"
    SILENT_HANDSHAKE = "silent handshake"
    DELAYED_HANDSHAKE = "delayed handshake"
    EOF_IN_HANDSHAKE = "eof in handshake"
    GARBAGE_ANSWER = "garbage answer"
    BAD_ACCEPT = "bad accept"
    REJECT = "reject"
    SLOW_READS = "slow reads"
    MUTE_CLOSE = "mute close"
    CLOSE = "close"
    RESET = "reset"
    EOF = "eof"
    SILENCE = "silence"
    NEVER_READS = "never reads"
    HALF_FRAME = "half frame"
    HALF_FRAME_THEN_SILENCE = "half frame, then silence"
    VIOLATION = "violation"
    OVERSIZED = "oversized"


_STRIKING: Final = frozenset(
    {
        FaultKind.CLOSE,
        FaultKind.RESET,
        FaultKind.EOF,
        FaultKind.SILENCE,
        FaultKind.NEVER_READS,
        FaultKind.HALF_FRAME,
        FaultKind.HALF_FRAME_THEN_SILENCE,
        FaultKind.VIOLATION,
        FaultKind.OVERSIZED,
    }
)


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative: {value!r}")


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(headers.items() if isinstance(headers, Mapping) else headers)


@attrs.frozen(kw_only=True, repr=False)
class Fault:
    """What a server does to one connection.

    Made by the constructors below or taken from the constants of :mod:`wsclient.testing`; printed
    as it is written there.
    """

    kind: FaultKind
    """What happens."""
    name: str = attrs.field(eq=False)
    """How it is called."""
    after_messages: int = attrs.field(default=0, validator=_not_negative)
    """Messages that the server hears in good health before it happens."""
    after: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds that it stays in good health after the last of those (with none: after opening)."""
    seconds: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds that the handshake is delayed."""
    bytes_per_second: float | None = None
    """How fast the server reads; ``None`` is as fast as it can."""
    status: int = 0
    """The HTTP status of a refusal."""
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)
    """The headers of a refusal."""
    body: bytes = b""
    """The body of a refusal."""
    code: int = 1000
    """The close code; 1005 is a close frame without one."""
    reason: str = ""
    """The text of the close frame."""
    data: bytes = b""
    """What is sent as it is: an answer, or a part of a frame."""

    def __repr__(self) -> str:
        return self.name

    @property
    def strikes(self) -> bool:
        """Whether it befalls a connection that is open and in good health until then."""
        return self.kind in _STRIKING

    @property
    def strikes_at_once(self) -> bool:
        """Whether it does so as soon as the connection is open."""
        return self.strikes and not self.after_messages and not self.after

    def later(self, *, after_messages: int = 0, after: float = 0.0) -> Fault:
        """The same fault, after a while in good health: ``SILENCE.later(after_messages=3)``.

        Args:
            after_messages: Messages that the server hears first.
            after: Seconds after the last of those, or after opening.

        Raises:
            ValueError: The fault is not one that befalls an open connection.
        """
        if not self.strikes:
            raise ValueError(f"{self} does not befall an open connection")
        return attrs.evolve(
            self,
            after_messages=after_messages,
            after=after,
            name=_call(f"{self}.later", after_messages=after_messages, after=after),
        )

    @classmethod
    def reject(
        cls,
        status: int,
        *,
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Fault:
        """Answer the upgrade request with another status than 101.

        Args:
            status: The HTTP status.
            retry_after: The ``Retry-After`` header: seconds, or a date as it is written there.
            headers: Further headers.
            body: The answer's body.
        """
        if not 200 <= status <= 999:
            raise ValueError(f"not the status of a final answer: {status!r}")
        extra = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls(
            kind=FaultKind.REJECT,
            name=_call("Fault.reject", status, retry_after=retry_after),
            status=status,
            headers=(*extra.items(), *_pairs(headers)),
            body=body,
        )

    @classmethod
    def delayed_handshake(cls, seconds: float) -> Fault:
        """Answer the upgrade request after so many seconds; then be healthy."""
        return cls(
            kind=FaultKind.DELAYED_HANDSHAKE,
            name=_call("DELAYED_HANDSHAKE", seconds),
            seconds=seconds,
        )

    @classmethod
    def close(
        cls, code: int, reason: str = "", *, after_messages: int = 0, after: float = 0.0
    ) -> Fault:
        """Send a close frame and end the stream, without waiting for an answer.

        Args:
            code: Any code, also one that may not be sent; 1005 sends a frame without one.
            reason: At most 123 bytes of UTF-8.
            after_messages: Messages that the server hears first.
            after: Seconds after the last of those, or after opening.
        """
        if not 0 <= code < 2**16:
            raise ValueError(f"a close code has two bytes: {code!r}")
        if len(reason.encode()) > 123:
            raise ValueError("a close frame's reason has at most 123 bytes")
        name = _call(
            "Fault.close", code, *filter(None, [reason]), after_messages=after_messages, after=after
        )
        return cls(
            kind=FaultKind.CLOSE,
            name=name,
            code=code,
            reason=reason,
            after_messages=after_messages,
            after=after,
        )

    @classmethod
    def reset(cls, *, after_messages: int = 0, after: float = 0.0) -> Fault:
        """Reset the connection: what the client has not read yet is lost.

        Args:
            after_messages: Messages that the server hears first.
            after: Seconds after the last of those, or after opening.
        """
        return cls(
            kind=FaultKind.RESET,
            name=_call("Fault.reset", after_messages=after_messages, after=after),
            after_messages=after_messages,
            after=after,
        )

    @classmethod
    def slow_reads(cls, bytes_per_second: float) -> Fault:
        """Work, but read no faster than this."""
        if not bytes_per_second > 0:
            raise ValueError(f"bytes_per_second must be positive: {bytes_per_second!r}")
        return cls(
            kind=FaultKind.SLOW_READS,
            name=_call("Fault.slow_reads", bytes_per_second),
            bytes_per_second=bytes_per_second,
        )


def _call(function: str, *arguments: object, **options: object) -> str:
    """A call as it is written, without the options that are not set."""
    written = [repr(argument) for argument in arguments]
    written += [f"{name}={value!r}" for name, value in options.items() if value]
    return f"{function}({', '.join(written)})"


def _plain(name: str, kind: FaultKind, data: bytes = b"") -> Fault:
    return Fault(kind=kind, name=name, data=data)


NONE: Final = _plain("NONE", FaultKind.NONE)
"""A healthy server."""

REFUSE: Final = _plain("REFUSE", FaultKind.REFUSE)
"""The connection is refused.

So it is in memory.
On a real socket the kernel has accepted before the server is asked: there it is reset at once, as
by ``RESET_ON_ACCEPT``; for a refusal use ``FaultServer.stop()``.
"""

RESET_ON_ACCEPT: Final = _plain("RESET_ON_ACCEPT", FaultKind.RESET_ON_ACCEPT)
"""The connection is accepted and reset."""

SILENT_HANDSHAKE: Final = _plain("SILENT_HANDSHAKE", FaultKind.SILENT_HANDSHAKE)
"""The connection is accepted, and nothing is ever answered, not even TLS."""

DELAYED_HANDSHAKE: Final = Fault.delayed_handshake
"""``DELAYED_HANDSHAKE(seconds)``: the upgrade request is answered late; then all is well."""

EOF_IN_HANDSHAKE: Final = _plain("EOF_IN_HANDSHAKE", FaultKind.EOF_IN_HANDSHAKE)
"""The stream ends in the middle of the server's answer."""

GARBAGE_ANSWER: Final = _plain(
    "GARBAGE_ANSWER", FaultKind.GARBAGE_ANSWER, b"220 mail.example ESMTP ready\r\n"
)
"""What listens there speaks another protocol."""

BAD_ACCEPT: Final = _plain("BAD_ACCEPT", FaultKind.BAD_ACCEPT)
"""The answer's ``Sec-WebSocket-Accept`` belongs to another request (RFC 6455 §4.1)."""

REJECT_401: Final = attrs.evolve(Fault.reject(401), name="REJECT_401")
"""HTTP 401 (not authenticated)."""

REJECT_403: Final = attrs.evolve(Fault.reject(403), name="REJECT_403")
"""HTTP 403 (forbidden)."""

REJECT_404: Final = attrs.evolve(Fault.reject(404), name="REJECT_404")
"""HTTP 404 (not found)."""

REJECT_500: Final = attrs.evolve(Fault.reject(500), name="REJECT_500")
"""HTTP 500 (internal error)."""

REJECT_503: Final = attrs.evolve(Fault.reject(503), name="REJECT_503")
"""HTTP 503 (unavailable), without a ``Retry-After``."""

ANSWER_200: Final = attrs.evolve(
    Fault.reject(200, headers={"Content-Type": "text/html"}, body=b"<h1>Welcome!</h1>"),
    name="ANSWER_200",
)
"""HTTP 200 and a page: a plain web server."""

ACCEPT_THEN_CLOSE: Final = attrs.evolve(Fault.close(1000), name="ACCEPT_THEN_CLOSE")
"""The connection opens, and is closed with 1000 and ended at once."""

RESET_AFTER_OPEN: Final = attrs.evolve(Fault.reset(), name="RESET_AFTER_OPEN")
"""The connection opens, and is reset at once."""

EOF_AFTER_OPEN: Final = _plain("EOF_AFTER_OPEN", FaultKind.EOF)
"""The connection opens, and its stream ends without a close frame."""

SILENCE: Final = _plain("SILENCE", FaultKind.SILENCE)
"""The connection is open; all is read, nothing is ever answered: no pong, no close frame."""

NEVER_READS: Final = _plain("NEVER_READS", FaultKind.NEVER_READS)
"""The connection is open; the handler may send, but nothing is read any more.

The client's writes wait once the buffers on the way are full: 64 KiB in memory, some megabytes on
a real socket.
Who does not read does not see the client leave, either: such a connection ends with the server.
"""

HALF_FRAME: Final = _plain("HALF_FRAME", FaultKind.HALF_FRAME, _frames.HALF_FRAME)
"""The stream ends in the middle of a message's frame."""

HALF_FRAME_THEN_SILENCE: Final = _plain(
    "HALF_FRAME_THEN_SILENCE", FaultKind.HALF_FRAME_THEN_SILENCE, _frames.HALF_FRAME
)
"""Half of a message's frame is sent, then as ``SILENCE``."""

MUTE_CLOSE: Final = _plain("MUTE_CLOSE", FaultKind.MUTE_CLOSE)
"""All is well, but a close frame is never answered, and the stream never ended."""

MASKED_FRAME: Final = _plain("MASKED_FRAME", FaultKind.VIOLATION, _frames.MASKED_FRAME)
"""A frame is masked, as only a client's may be (RFC 6455 §5.1)."""

BAD_OPCODE: Final = _plain("BAD_OPCODE", FaultKind.VIOLATION, _frames.BAD_OPCODE)
"""A frame has a reserved opcode (RFC 6455 §5.2)."""

BAD_UTF8: Final = _plain("BAD_UTF8", FaultKind.VIOLATION, _frames.BAD_UTF8)
"""A text message is not UTF-8 (RFC 6455 §8.1)."""

OVERSIZED: Final = _plain("OVERSIZED", FaultKind.OVERSIZED, _frames.OVERSIZED_HEADER)
"""A frame declares 4 EiB, and its bytes flow for as long as the client takes them."""
