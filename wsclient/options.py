"""Every setting: its unit, its default and the reason for it, once.

Functions that take these as arguments point here.
A setting that cannot work is refused where it is given: ``TypeError`` for a wrong type,
``ValueError`` for a wrong value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs

__all__ = [
    "Compression",
    "ConnectionOptions",
    "Headers",
    "HeartbeatOptions",
    "Limits",
    "RetryPolicy",
]

Headers: TypeAlias = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str | bytes, str | bytes]]
)
"""What is accepted as headers: a mapping, or pairs of name and value (ASCII)."""

CONNECT_TIMEOUT: Final = 60.0
"""Seconds. The default of ``open_websocket`` and its kin, which is trio-websocket's."""

DISCONNECT_TIMEOUT: Final = 60.0
"""Seconds. Likewise, for the closing handshake."""

MESSAGE_QUEUE_SIZE: Final = 1
"""Messages. Small, so that a slow consumer slows its peer down and not the memory up."""

MAX_MESSAGE_SIZE: Final = 2**20
"""Bytes (1 MiB). What trio-websocket and websockets refuse beyond, too."""

# RFC 9110 §5.6.2: the characters of a header's name and of a subprotocol.
_TOKEN: Final = frozenset(
    b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

# The handshake sets these; a second one would contradict it (RFC 6455 §4.1).  The request has no
# body, and must not announce one.
_BY_HANDSHAKE: Final = "is set by the handshake"
_RESERVED: Final = {
    b"connection": _BY_HANDSHAKE,
    b"content-length": "must not be sent: the request has no body",
    b"sec-websocket-accept": _BY_HANDSHAKE,
    b"sec-websocket-extensions": _BY_HANDSHAKE,
    b"sec-websocket-key": _BY_HANDSHAKE,
    b"sec-websocket-protocol": f"{_BY_HANDSHAKE}; use subprotocols=",
    b"sec-websocket-version": _BY_HANDSHAKE,
    b"transfer-encoding": "must not be sent: the request has no body",
    b"upgrade": _BY_HANDSHAKE,
}


def _ascii(value: object, what: str) -> bytes:
    if isinstance(value, str):
        try:
            value = value.encode("ascii")
        except UnicodeEncodeError:
            # The value stays out of the text and out of the context: it may be a secret.
            raise ValueError(f"{what} must be ASCII") from None
    if not isinstance(value, bytes):
        raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")
    if not value.isascii():
        raise ValueError(f"{what} must be ASCII")
    return value


def _headers(given: object) -> tuple[tuple[bytes, bytes], ...]:
    if given is None:
        return ()
    if isinstance(given, (str, bytes)):
        raise TypeError("extra_headers must be a mapping or pairs of name and value, not one str")
    pairs: Any = given.items() if isinstance(given, Mapping) else given
    checked: list[tuple[bytes, bytes]] = []
    try:
        pairs = [tuple(pair) for pair in pairs]
    except TypeError:
        raise TypeError("extra_headers must be a mapping or pairs of name and value") from None
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError("extra_headers must be pairs of name and value")
        name = _ascii(pair[0], "a header's name")
        value = _ascii(pair[1], f"the value of header {pair[0]!r}")
        if not name or not _TOKEN.issuperset(name):
            raise ValueError(f"not a header's name: {pair[0]!r}")
        if name.lower() in _RESERVED:
            raise ValueError(f"header {pair[0]!r} {_RESERVED[name.lower()]}")
        # Whoever can smuggle a line end into a header writes headers of his own.
        if any(byte < 0x20 and byte != 0x09 for byte in value) or 0x7F in value:
            raise ValueError(
                f"the value of header {pair[0]!r} must not contain control characters"
                " (CR, LF, NUL, …)"
            )
        checked.append((name, value.strip(b" \t")))
    return tuple(checked)


def _header_names(headers: tuple[tuple[bytes, bytes], ...]) -> str:
    # Only the names: the values are where the tokens are.
    return repr([name.decode("ascii") for name, _ in headers])


def _subprotocols(given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError("subprotocols must be an iterable of str, such as ['chat']")
    checked: list[str] = []
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol must be str, not {type(name).__name__}")
        if not name or not name.isascii() or not _TOKEN.issuperset(name.encode("ascii")):
            raise ValueError(f"not a subprotocol's name: {name!r} (RFC 6455 §4.1)")
        if name in checked:
            raise ValueError(f"subprotocol {name!r} is offered twice (RFC 6455 §4.1)")
        checked.append(name)
    return tuple(checked)


def _number(
    value: object, name: str, *, minimum: float, whole: bool, infinite: bool = True
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if whole and not isinstance(value, int) and (value != math.inf or not infinite):
        raise TypeError(f"{name} must be an int{' or math.inf' * infinite}, not {value!r}")
    if math.isnan(value) or value < minimum:
        raise ValueError(f"{name} must be at least {minimum:g}, not {value!r}")


def _at_least(minimum: float, *, whole: bool = False, optional: bool = False) -> Any:
    def validate(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        _number(value, attribute.name, minimum=minimum, whole=whole, infinite=not optional)

    return validate


def _between(low: float, high: float, *, whole: bool = False) -> Any:
    def validate(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        _number(value, attribute.name, minimum=low, whole=whole)
        if value > high:
            raise ValueError(f"{attribute.name} must be at most {high:g}, not {value!r}")

    return validate


def _callable_or_none(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{attribute.name} must be callable, not {type(value).__name__}")


def _bits(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{attribute.name} must be int or None, not {type(value).__name__}")
    if value is not None and not 9 <= value <= 15:
        raise ValueError(f"{attribute.name} must be from 9 to 15, not {value!r}")


def _flag(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be bool, not {type(value).__name__}")


@attrs.frozen(kw_only=True)
class Compression:
    """How messages are compressed, where the server agrees (permessage-deflate, RFC 7692).

    The four parameters are what is offered to the server (§7.1); the rest is ours alone.
    """

    server_no_context_takeover: bool = attrs.field(default=False, validator=_flag)
    """Demand that the server compresses each message by itself: less memory, larger messages."""

    client_no_context_takeover: bool = attrs.field(default=False, validator=_flag)
    """Compress each of our messages by itself."""

    server_max_window_bits: int | None = attrs.field(default=None, validator=_bits)
    """Base-2 logarithm of the server's window, 9 to 15; ``None`` leaves it to the server.

    Our end needs as many bytes to inflate.
    """

    client_max_window_bits: int | None = attrs.field(default=None, validator=_bits)
    """Likewise of our window; ``None`` does what the server asks for.

    8 cannot be had: zlib has no such window.
    """

    level: int = attrs.field(default=6, validator=_between(0, 9, whole=True))
    """How hard zlib tries, 1 (fast) to 9 (small); 0 stores. 6 is zlib's own default."""

    memory_level: int = attrs.field(default=8, validator=_between(1, 9, whole=True))
    """zlib's ``memLevel``, 1 to 9: 2^(this + 9) bytes to compress with; 8 is its default."""

    threshold: int = attrs.field(default=128, validator=_at_least(0, whole=True, optional=False))
    """Bytes below which a message goes uncompressed: for so few it is not worth the time."""


def _compression(value: object) -> Any:
    """``True`` is the default way, ``False`` none."""
    if value is True:
        return Compression()
    return None if value is False else value


def _compression_or_none(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Compression):
        raise TypeError(
            f"{attribute.name} must be a bool, a Compression or None, not {type(value).__name__}"
        )


@attrs.frozen(kw_only=True)
class ConnectionOptions:
    """How one connection is opened, limited and closed.

    For a channel: how each of its connections is.
    """

    subprotocols: tuple[str, ...] = attrs.field(
        default=(), converter=_subprotocols, repr=lambda names: f"<{len(names)}>"
    )
    """Offered to the server, the preferred first (RFC 6455 §1.9).

    Printed as a number only: some services take a token for one.
    """

    extra_headers: tuple[tuple[bytes, bytes], ...] = attrs.field(
        default=(), converter=_headers, repr=_header_names
    )
    """Sent with the upgrade request, after the handshake's own.

    ``Host`` replaces ours; the handshake's other headers are refused.
    Values are never printed.
    """

    message_queue_size: float = attrs.field(
        default=MESSAGE_QUEUE_SIZE, validator=_at_least(0, whole=True)
    )
    """Messages that may wait for ``get_message``, beyond those of one read, before reading stops.

    Reading stops for pings, too: the peer feels a slow consumer.
    ``math.inf`` never stops.
    """

    max_message_size: float = attrs.field(
        default=MAX_MESSAGE_SIZE, validator=_at_least(0, whole=True)
    )
    """Bytes of one message, text counted as UTF-8; a larger one closes with 1009.

    ``math.inf`` is no limit, and lets a peer fill the memory.
    """

    max_frame_size: float = attrs.field(default=math.inf, validator=_at_least(1, whole=True))
    """Bytes of one frame's payload, as it comes; a larger one closes with 1009.

    No limit, since ``max_message_size`` is one; a limit where messages are received in parts.
    """

    max_fragments: float = attrs.field(default=4096, validator=_at_least(1, whole=True))
    """Frames of one message; more close with 1009, lest a message of nothing never ends."""

    compression: Compression | None = attrs.field(
        default=None, converter=_compression, validator=_compression_or_none
    )
    """Offer to compress messages (``True``, or how); ``None`` does not.

    Off, since it costs some 300 KiB of memory and several µs a message on either side.
    """

    receive_buffer_size: int | None = attrs.field(
        default=None, validator=_at_least(1, whole=True, optional=True)
    )
    """Bytes per read; ``None`` leaves it to the stream, which takes 64 KiB.

    Smaller reads cost more: each is a system call and a checkpoint.
    """

    connect_timeout: float = attrs.field(default=10.0, validator=_at_least(0))
    """Seconds for name lookup, TCP, TLS and upgrade together.

    Ten, as other clients have it: a server that takes longer is better tried again.
    """

    establish_timeout: float = attrs.field(default=15.0, validator=_at_least(0))
    """Seconds for a channel's ``on_connect`` hook, on each connection.

    More than the connect timeout, since authenticating and subscribing take several round trips.
    """

    disconnect_timeout: float = attrs.field(default=1.0, validator=_at_least(0))
    """Seconds that closing waits for the peer's close frame before the socket is cut.

    One, so that leaving a channel stays within two seconds whatever the peer does.
    """


@attrs.frozen(kw_only=True)
class HeartbeatOptions:
    """How a channel notices that its peer is gone: pings, and any byte counts as an answer."""

    interval: float = attrs.field(default=20.0, validator=_at_least(0.01))
    """Seconds between protocol pings; ``math.inf`` sends none.

    Below the 30 s and 60 s after which common proxies cut a silent connection.
    """

    timeout: float = attrs.field(default=20.0, validator=_at_least(0.01))
    """Seconds after a ping within which a byte, any byte, must come."""

    jitter: float = attrs.field(default=0.1, validator=_between(0, 1))
    """Share of the interval by which it varies both ways, so that clients fall out of step."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """When a channel connects again, and when it gives up."""

    wait: Callable[[Any], float] | None = attrs.field(default=None, validator=_callable_or_none)
    """Seconds to wait: a tenacity wait (they add up: ``wait_fixed(1) + wait_random(0, 1)``), or
    any function of a ``tenacity.RetryCallState``, of which ``attempt_number`` counts the failures
    since the last stable connection.

    ``None``: first ``U(0, 1)``, then ``0.25 + U(0.5, 1) · min(30, 0.5 · 2^k)``: never near zero,
    never in lockstep, and two to four connections a minute to a server that keeps failing.
    """

    stop: Callable[[Any], bool] | None = attrs.field(default=None, validator=_callable_or_none)
    """When to give up: a tenacity stop such as ``stop_after_attempt(10)``, or any function of the
    same state.

    Attempts and seconds count from the last stable connection, on trio's clock.
    ``None`` never stops by itself: only what :func:`wsclient.classify` calls fatal does.
    """

    stable_after: float = attrs.field(default=15.0, validator=_at_least(0))
    """Seconds a connection must have been ready before failures are counted anew.

    Without it a server that accepts and closes at once would see a hot loop.
    """

    classify: Callable[[Any, Any], Any] | None = attrs.field(
        default=None, validator=_callable_or_none
    )
    """Decides what a loss means; ``None`` is :func:`wsclient.classify`."""


@attrs.frozen(kw_only=True)
class Limits:
    """What a channel holds at most; when it is full, senders and the peer wait."""

    outbox_messages: float = attrs.field(default=1024, validator=_at_least(1, whole=True))
    """Messages accepted and not yet written."""

    outbox_size: float = attrs.field(default=4 * 2**20, validator=_at_least(1, whole=True))
    """Bytes of them (4 MiB); one message that is larger is accepted when nothing else waits."""

    inbox_messages: float = attrs.field(default=1024, validator=_at_least(0, whole=True))
    """Messages received and not yet taken, beyond those of one read."""

    inbox_size: float = attrs.field(default=16 * 2**20, validator=_at_least(0, whole=True))
    """Bytes of them (16 MiB)."""
