"""Every setting: its unit, its default and the reason for it, once.

Functions that take these as arguments point here.
A setting that cannot work is refused where it is given: ``TypeError`` for a wrong type,
``ValueError`` for a wrong value.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import math
import os
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict, cast
from urllib.parse import unquote, urlsplit

import attrs

from ._discretion import made_forgetful
from ._version import __version__

if TYPE_CHECKING:
    import ssl

__all__ = [
    "ApplicationPing",
    "Compression",
    "ConnectionOptions",
    "DeliveryOptions",
    "Headers",
    "HeartbeatOptions",
    "Limits",
    "OverflowPolicy",
    "RetryBudget",
    "RetryPolicy",
    "SendRate",
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

MAX_HEAD_SIZE: Final = 16 * 1024
"""Bytes of an answer's status line and headers; h11 and most servers have the same bound."""

MAX_HEADERS: Final = 128
"""Headers of an answer; as many as websockets takes."""

USER_AGENT: Final = f"wsclient/{__version__}"
"""Who we say we are: who runs a server should be able to tell its clients apart."""

PROXY_PORTS: Final = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
"""The schemes of a proxy's URL, and their default ports."""

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
        if not name or not _TOKEN.issuperset(name):
            # Not quoted: what stands in the wrong place may be the token.
            raise ValueError("not a header's name: it has a character that no token has")
        value = _ascii(pair[1], f"the value of header {pair[0]!r}")
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
    # None is quoted: some services take a token for one.
    for number, name in enumerate(given, 1):
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol must be str, not {type(name).__name__}")
        if not name or not name.isascii() or not _TOKEN.issuperset(name.encode("ascii")):
            raise ValueError(f"subprotocol {number} is not a subprotocol's name (RFC 6455 §4.1)")
        if name in checked:
            raise ValueError(f"subprotocol {number} is offered twice (RFC 6455 §4.1)")
        checked.append(name)
    return tuple(checked)


def check_host(host: object, name: str = "host") -> str:
    """Return ``host`` in ASCII (IDNA where it must be) if it can name a server.

    Raises:
        TypeError: It is not ``str``.
        ValueError: It is empty, too long, or holds what no host name holds.
    """
    if not isinstance(host, str):
        raise TypeError(f"{name} must be str, not {type(host).__name__}")
    if not host:
        raise ValueError(f"{name} must not be empty")
    # Before anything is computed: encoding a very long name takes very long.
    if len(host) > 253:
        raise ValueError(f"{name} must not be longer than 253 characters (RFC 1035)")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError(f"{name} is not a valid internationalised name") from None
    if any(character <= " " or character in '\x7f/?#@\\"<>^`{|}' for character in host):
        raise ValueError(f"{name} must not contain spaces, control characters or URL delimiters")
    # An address of IPv6, or a port behind the name, has colons and no such labels.
    labels = [] if ":" in host else host.removesuffix(".").split(".")
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(
            f"{name} has a label that is empty or longer than 63 characters (RFC 1035)"
        )
    return host


def _host_or_none(given: object, name: str) -> str | None:
    # Some write an address of IPv6 as it stands in a URL.
    return None if given is None else unbracketed(check_host(given, name))


def unbracketed(host: str) -> str:
    """An address of IPv6 without the brackets that it has in a URL; any other host as it is."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _connect_host(given: object) -> str | None:
    return _host_or_none(given, "connect_host")


def _server_hostname(given: object) -> str | None:
    return _host_or_none(given, "server_hostname")


def _local_address(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise TypeError(f"local_address must be str, not {type(given).__name__}")
    try:
        return str(ipaddress.ip_address(given))
    except ValueError:
        raise ValueError(f"local_address must be an IP address, not {given!r}") from None


def _unix_socket(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"unix_socket must be a path, not {type(given).__name__}")
    path = os.fspath(given)
    if not isinstance(path, str):
        raise TypeError(f"unix_socket must be a path of str, not of {type(path).__name__}")
    if not path:
        raise ValueError("unix_socket must not be empty")
    return path


def _user_agent(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise TypeError(f"user_agent must be str or None, not {type(given).__name__}")
    if not given.strip() or not given.isascii() or not given.isprintable():
        raise ValueError("user_agent must be printable ASCII; None sends none")
    return given.strip()


def check_proxy(url: str) -> str:
    """Return a proxy's URL if it can be used.

    Raises:
        ValueError: It cannot; the text never quotes the URL, which may hold a password.
        ImportError: It needs a package that is not installed.
    """
    if any(character <= " " or character == "\x7f" for character in url) or "\\" in url:
        raise ValueError("proxy must not contain spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # urllib's text may quote what it took for a port: a part of a password, say.
        raise ValueError(
            "proxy is malformed: its host or port is not valid"
            " (percent-encode '/', '?', '#', '@' in a user name or password)"
        ) from None
    if parts.scheme not in PROXY_PORTS or "://" not in url:
        raise ValueError(f"proxy must begin with {'://, '.join(PROXY_PORTS)}://")
    check_host(host or "", "proxy's host")
    if port == 0:
        raise ValueError("proxy's port must not be 0")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("proxy must have nothing behind its host and port")
    _check_credentials(parts.scheme, unquote(parts.username or ""), unquote(parts.password or ""))
    if parts.scheme.startswith("socks") and importlib.util.find_spec("python_socks") is None:
        raise ImportError(
            f"a {parts.scheme} proxy needs python-socks: pip install 'wsclient-trio[proxy]'",
            name="python_socks",
        )
    return url


def _check_credentials(scheme: str, user: str, password: str) -> None:
    """What a proxy of this kind could not be told is refused (RFC 1929 §2, RFC 7617 §2)."""
    if any(character < " " or character == "\x7f" for character in user + password):
        raise ValueError("proxy's user name and password must not contain control characters")
    if not scheme.startswith("socks"):
        if ":" in user:
            raise ValueError("proxy's user name must not contain a colon")
        return
    if not (user + password).isascii() or max(len(user), len(password)) > 255:
        raise ValueError(
            "user name and password of a SOCKS proxy must be ASCII, of 255 characters at most"
        )
    if scheme.startswith("socks4"):
        if password:
            raise ValueError("SOCKS4 knows a user name and no password")
    elif bool(user) != bool(password):
        raise ValueError("SOCKS5 needs a user name and a password, or neither")


def _proxy(given: object) -> str | bool | None:
    if given is None or given is False:
        return None
    if given is True:
        return True
    if not isinstance(given, str):
        raise TypeError(f"proxy must be a URL, True or None, not {type(given).__name__}")
    return check_proxy(given)


def _shown_proxy(proxy: str | bool | None) -> str:
    return repr(proxy_origin(proxy) if isinstance(proxy, str) else proxy)


def proxy_origin(url: str) -> str:
    """Scheme, host and port of a proxy: safe to print."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _tls_context(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    # By what it can do: this floor does not know `ssl`.
    if value is not None and not hasattr(value, "wrap_bio"):
        raise TypeError(
            f"{attribute.name} must be ssl.SSLContext or None, not {type(value).__name__}"
        )


def _number(
    value: object, name: str, *, minimum: float, whole: bool, infinite: bool = True
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if whole and not isinstance(value, int) and (value != math.inf or not infinite):
        raise TypeError(f"{name} must be an int{' or math.inf' * infinite}, not {value!r}")
    if math.isnan(value) or value < minimum:
        raise ValueError(f"{name} must be at least {minimum:g}, not {value!r}")


_LONGEST_USER_TIMEOUT: Final = 2_000_000
"""Seconds: in milliseconds, it must be a C int."""


def file_path(given: object) -> str:
    """The path of a file, as text.

    Raises:
        TypeError, ValueError: It is none.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"path must be str or os.PathLike, not {type(given).__name__}")
    path = os.fspath(given)
    if not isinstance(path, str):
        raise TypeError(f"path must be of str, not of {type(path).__name__}")
    try:
        is_name = bool(path) and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise ValueError("path must name a file")
    return path


def _at_least(minimum: float, *, whole: bool = False, optional: bool = False) -> Any:
    def validate(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        _number(value, attribute.name, minimum=minimum, whole=whole, infinite=not optional)

    return validate


def _between(low: float, high: float, *, whole: bool = False, optional: bool = False) -> Any:
    def validate(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        _number(value, attribute.name, minimum=low, whole=whole)
        if value > high:
            raise ValueError(f"{attribute.name} must be at most {high:g}, not {value!r}")

    return validate


def _user_timeout(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, str) and value != "heartbeat":
        raise TypeError(
            f'{attribute.name} must be a number, not str; or "heartbeat", and not {value!r}'
        )
    if value != "heartbeat":
        _between(0.001, _LONGEST_USER_TIMEOUT, optional=True)(instance, attribute, value)


def _callable_or_none(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{attribute.name} must be callable, not {type(value).__name__}")


def _callable(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        raise TypeError(f"{attribute.name} must be callable, not None")
    _callable_or_none(instance, attribute, value)


def _is_a(kind: type, *, optional: bool = False) -> Any:
    def validate(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not (isinstance(value, kind) or (optional and value is None)):
            given = type(value).__name__
            raise TypeError(f"{attribute.name} must be {kind.__name__}, not {given}")

    return validate


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


@made_forgetful
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

    ``Host``, ``User-Agent`` and ``Authorization`` replace ours; the headers that make the
    handshake are refused.
    Values are never printed.
    """

    user_agent: str | None = attrs.field(default=USER_AGENT, converter=_user_agent)
    """The ``User-Agent`` header; ``None`` sends none.

    Sent by default, so that who runs the server can tell its clients apart.
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

    trace: Callable[[Any], object] | None = attrs.field(default=None, validator=_callable_or_none)
    """Called with a :class:`TracedFrame` for each frame that is sent or received: kinds and sizes,
    never contents; ``trace=print`` shows what goes over the wire.

    It must not block.
    What it raises ends the tracing, with a warning, and not the connection.
    """

    receive_buffer_size: int | None = attrs.field(
        default=None, validator=_at_least(1, whole=True, optional=True)
    )
    """Bytes per read at most; ``None``: 256 KiB from a socket that we have opened, and what the
    stream chooses otherwise (64 KiB, most of them).

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

    proxy: str | bool | None = attrs.field(default=None, converter=_proxy, repr=_shown_proxy)
    """The proxy to connect through: a URL, or ``True`` for what the environment names.

    ``http://`` and ``https://`` (with TLS to the proxy) ask it to ``CONNECT``; ``socks5://``,
    ``socks5h://``, ``socks4a://`` and ``socks4://`` need ``wsclient-trio[proxy]``.
    ``user:password@`` before the host authenticates at the proxy, and is never printed.
    Names are looked up by the proxy, except with ``socks4://``, which cannot.

    ``True`` reads ``ws_proxy`` or ``wss_proxy``, then ``socks_proxy``, ``all_proxy``,
    ``https_proxy`` and ``http_proxy``, and leaves out what ``no_proxy`` lists.
    ``None``, the default, reads nothing: what somebody else has put into the environment should
    not decide who sees the traffic.
    """

    proxy_ssl_context: ssl.SSLContext | None = attrs.field(
        default=None, validator=_tls_context, repr=False
    )
    """TLS to an ``https://`` proxy; ``None`` is the default context."""

    redirects: int = attrs.field(default=0, validator=_between(0, 100, whole=True))
    """Redirects (HTTP 301, 302, 303, 307, 308) that are followed at most; none by default.

    Following one means to go where the server's answer says, which may be inside your network.
    Never from ``wss:`` to ``ws:``; what looks like a credential stays behind when scheme, host
    or port change.
    """

    connect_host: str | None = attrs.field(default=None, converter=_connect_host)
    """The host to connect to, if not the URL's; what is asked for and verified stays the URL's."""

    connect_port: int | None = attrs.field(
        default=None, validator=_between(1, 65535, whole=True, optional=True)
    )
    """The port to connect to, if not the URL's."""

    unix_socket: str | None = attrs.field(default=None, converter=_unix_socket)
    """The path of a Unix socket to connect to, instead of the URL's host and port."""

    server_hostname: str | None = attrs.field(default=None, converter=_server_hostname)
    """The name that TLS asks for (SNI) and verifies, if not the URL's host."""

    local_address: str | None = attrs.field(default=None, converter=_local_address)
    """The IP address to connect from; ``None`` leaves it to the system."""

    happy_eyeballs_delay: float = attrs.field(default=0.25, validator=_at_least(0))
    """Seconds until the next address of a host is tried beside one that has not answered.

    A quarter, as RFC 8305 §8 recommends; ``math.inf`` tries one after the other.
    """

    tcp_keepalive: int | None = attrs.field(
        default=20, validator=_between(1, 32767, whole=True, optional=True)
    )
    """Seconds of silence after which the kernel asks whether the peer is there, and again
    after as many; three questions without an answer end the connection.

    For a channel as often as its heartbeat, which asks the program and not the kernel; where the
    heartbeat is off, this is what remains.
    ``None`` leaves it to the system, and so does the default of ``open_websocket`` and its kin.
    """

    tcp_user_timeout: float | Literal["heartbeat"] | None = attrs.field(
        default="heartbeat", validator=_user_timeout
    )
    """Seconds for which written bytes may stay unacknowledged before the kernel gives up
    (RFC 5482); where the platform has it.

    ``"heartbeat"`` is as long as a channel's heartbeat takes: its interval and its timeout together
    (40 s by default, also where it is off).
    Without it, a dead path is noticed after the kernel's fifteen minutes.
    A peer that lives and reads nothing for as long is cut, too.
    ``None`` leaves it to the system, and so does the default of ``open_websocket`` and its kin.
    """

    max_head_size: int = attrs.field(
        default=MAX_HEAD_SIZE, validator=_between(1, 2**20, whole=True)
    )
    """Bytes of the status line and headers of the server's answer (16 KiB), or of a proxy's."""

    max_headers: int = attrs.field(default=MAX_HEADERS, validator=_between(1, 10_000, whole=True))
    """Headers of the server's answer, or of a proxy's."""

    def __attrs_post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.unix_socket is not None:
            for name in ("proxy", "connect_host", "connect_port", "local_address"):
                if getattr(self, name) is not None:
                    raise ValueError(f"unix_socket and {name} exclude each other")
        if self.proxy_ssl_context is not None and not (
            self.proxy is True or str(self.proxy).startswith("https:")
        ):
            raise ValueError("proxy_ssl_context needs an https:// proxy")


class StreamOptions(TypedDict, total=False):
    """Fields of :class:`ConnectionOptions` that ``wrap_client_stream`` takes, too.

    Beside trio-websocket's arguments, which stand in its signature.
    An option of a connection is a field there, and a line here or below.
    """

    user_agent: str | None
    max_head_size: int
    max_headers: int
    max_frame_size: float
    max_fragments: float
    compression: Compression | bool | None
    trace: Callable[[Any], object] | None


class OpeningOptions(StreamOptions, total=False):
    """Likewise, of the functions that open a stream of their own."""

    proxy: str | bool | None
    proxy_ssl_context: ssl.SSLContext | None
    redirects: int
    connect_host: str | None
    connect_port: int | None
    unix_socket: str | os.PathLike[str] | None
    server_hostname: str | None
    local_address: str | None
    happy_eyeballs_delay: float
    tcp_keepalive: int | None
    tcp_user_timeout: float | None


SINGLE_CONNECTION: Final[OpeningOptions] = {"tcp_keepalive": None, "tcp_user_timeout": None}
"""Where the defaults of ``open_websocket`` and its kin are not a channel's: the system's."""


def opening_options(options: ConnectionOptions) -> OpeningOptions:
    """What of ``options`` goes by :class:`OpeningOptions`."""
    names = OpeningOptions.__optional_keys__
    return cast(OpeningOptions, {name: getattr(options, name) for name in names})


def connection_options(
    more: StreamOptions, names: Collection[str], **given: Any
) -> ConnectionOptions:
    """The options of a single connection, from trio-websocket's arguments and ours.

    Args:
        more: Ours.
        names: Which of them have a meaning to the function that was called.
        given: trio-websocket's.

    Raises:
        TypeError: An option is unknown, or has the wrong type.
        ValueError: An option cannot work.
    """
    for name in more:
        if name not in names:
            raise TypeError(f"got an unexpected keyword argument {name!r}")
    options = ConnectionOptions(**{**SINGLE_CONNECTION, **more, **given})
    if options.tcp_user_timeout == "heartbeat":
        raise ValueError("tcp_user_timeout must be seconds or None: here is no heartbeat to follow")
    return options


@attrs.frozen(kw_only=True)
class ApplicationPing:
    """A ping that the service's own protocol has, and that the application answers.

    A protocol ping is answered by the peer's WebSocket endpoint, which may be a proxy, or a server
    that hangs; this one proves that somebody is at work behind it.
    It goes ahead of all messages that wait.
    """

    build: Callable[[], Any] = attrs.field(validator=_callable)
    """Makes the message, ``str`` or ``bytes``: a new one each time, where it carries an id."""

    match: Callable[[Any], bool] | None = attrs.field(default=None, validator=_callable_or_none)
    """Says whether a message is the answer, which then is not received from the channel.

    ``None``: nothing is expected, for a service that only wants to be pinged.
    Called for each message, in the task that reads; it must not block.
    """

    interval: float = attrs.field(default=20.0, validator=_at_least(0.01))
    """Seconds between them, varied by the heartbeat's jitter; ``math.inf`` sends one only where
    ``max_silence`` is over."""

    timeout: float = attrs.field(default=20.0, validator=_at_least(0.01))
    """Seconds within which the answer must come; other messages are none."""


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

    application: ApplicationPing | None = attrs.field(
        default=None, validator=_is_a(ApplicationPing, optional=True)
    )
    """A ping of the service's own protocol, beside the protocol's; off by default."""

    max_silence: float = attrs.field(default=math.inf, validator=_at_least(0.01))
    """Seconds without a message after which the peer is asked, from the moment on which the
    channel is ready; off by default.

    Only for a stream that always says something: an answer to the ``application`` ping saves a
    connection, and so does any message.
    Without such a ping a protocol ping is sent, and when its pong comes first, nothing was on its
    way: the connection is left, although the peer lives.
    """


def _wait_or_fail(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("wait", "fail"):
        raise ValueError(f'{attribute.name} must be "wait" or "fail", not {value!r}')


def with_user_timeout(options: ConnectionOptions, heartbeat: HeartbeatOptions) -> ConnectionOptions:
    """The same, where ``tcp_user_timeout`` is a number: as long as ``heartbeat`` takes."""
    if options.tcp_user_timeout != "heartbeat":
        return options
    if math.isinf(heartbeat.interval):
        heartbeat = HeartbeatOptions()
    seconds = heartbeat.interval + heartbeat.timeout
    # A round trip takes its time, however impatient the heartbeat is.
    seconds = min(max(seconds, 1.0), _LONGEST_USER_TIMEOUT)
    return attrs.evolve(options, tcp_user_timeout=seconds)


@attrs.frozen(kw_only=True, eq=False)
class RetryBudget:
    """How many attempts at a connection may be made in a while.

    Channels that are given the same budget spend it together.
    """

    attempts: float = attrs.field(default=60, validator=_at_least(1, whole=True))
    """Attempts, the first one included, that may begin within ``seconds``.

    Sixty in ten minutes: twice as many as the default waits come to where nothing ever succeeds,
    so that a single channel meets it only where a policy, or several endpoints, want more.
    ``math.inf`` is no limit.
    """

    seconds: float = attrs.field(default=600.0, validator=_at_least(0.001))
    """Seconds, any that follow one another: an attempt is forgotten after so long."""

    when_spent: Literal["wait", "fail"] = attrs.field(default="wait", validator=_wait_or_fail)
    """``"wait"`` until an attempt may be made again, or ``"fail"``, which is final."""


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

    Attempts and seconds count from the last stable connection, on trio's clock; where there are
    several endpoints, a round through all of them counts as one attempt.
    ``None`` never stops by itself: only what :func:`wsclient.classify` calls fatal does.
    """

    budget: RetryBudget | None = attrs.field(
        default=None, validator=_is_a(RetryBudget, optional=True)
    )
    """Bounds the attempts, whatever the waits say; one that several channels are given is shared.

    ``None``: each channel has one of its own, as :class:`RetryBudget` makes it.
    """

    stable_after: float = attrs.field(default=15.0, validator=_at_least(0))
    """Seconds a connection must have been ready before failures are counted anew.

    Without it a server that accepts and closes at once would see a hot loop.
    """

    classify: Callable[[Any, Any], Any] | None = attrs.field(
        default=None, validator=_callable_or_none
    )
    """Decides what a loss means; ``None`` is :func:`wsclient.classify`."""


class OverflowPolicy(Enum):
    """What happens to a message for which a full outbox, or inbox, has no room."""

    BLOCK = "block"
    """Its sender waits."""
    ERROR = "error"
    """Its sender is told; an inbox, whose sender is the peer, has no such policy."""
    DROP_OLDEST = "drop oldest"
    """The oldest message (of which nothing was written) makes room."""
    DROP_NEWEST = "drop newest"
    """It is dropped itself."""
    CONFLATE = "conflate"
    """It replaces what waits with the same key; where that makes no room, its sender waits."""


def _inbox_policy(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    _is_a(OverflowPolicy)(instance, attribute, value)
    if value is OverflowPolicy.ERROR:
        raise ValueError(f"{attribute.name} cannot be OverflowPolicy.ERROR: whom should it tell?")


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

    inbox_overflow: OverflowPolicy = attrs.field(
        default=OverflowPolicy.BLOCK, validator=_inbox_policy
    )
    """What happens when more comes.

    ``BLOCK`` stops reading: nothing is lost, the peer feels it, and its pings go unanswered.
    The others never stop, and what they drop is told by :class:`~wsclient.Overflow`;
    only ``CONFLATE`` blocks where too many different keys wait.
    """

    inbox_key: Callable[[Any], Hashable] | None = attrs.field(
        default=None, validator=_callable_or_none
    )
    """For ``CONFLATE``: the key of a message, whose newest message is all that matters.

    ``None`` as a key is no key: nothing replaces that message.
    Called in the task that reads; it must not block.
    """

    inbox_overrun: int = attrs.field(default=4 * 2**20, validator=_at_least(0, whole=True))
    """Bytes (4 MiB, with 64 more for each message) that are read beyond the bound while a task
    waits for an answer: for a receipt, inside of the loop that takes the messages, say.

    When they are used up, that task gets :class:`~wsclient.InboxFull`: it would wait for ever.
    """

    def __attrs_post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.inbox_overflow is OverflowPolicy.CONFLATE) != (self.inbox_key is not None):
            raise ValueError("OverflowPolicy.CONFLATE and inbox_key need each other")


@attrs.frozen(kw_only=True)
class SendRate:
    """How fast a channel may send: a limit that many services have."""

    messages: int = attrs.field(validator=_at_least(1, whole=True))
    """Messages that may go out in ``seconds``; as many may go at once after a pause."""

    seconds: float = attrs.field(default=1.0, validator=_at_least(0.001))
    """The length of the period."""

    reserve: float = attrs.field(default=0.1, validator=_between(0, 0.9))
    """The share of it that messages leave to pings, which count towards the limit of many
    services: a burst of messages must not silence the heartbeat."""


@attrs.frozen(kw_only=True)
class SubscriptionOptions:
    """How a channel asks for what is wanted, on each new connection and later."""

    timeout: float = attrs.field(default=15.0, validator=_at_least(0.01))
    """Seconds in which the server must confirm a subscription, counted anew whenever it has
    confirmed another one.

    One that it does not confirm is asked for again later, and is in nobody's way; but if it
    confirms none at all on a new connection, that is given up."""

    in_flight: int = attrs.field(default=64, validator=_at_least(1, whole=True))
    """Subscriptions that may wait for the server's confirmation at once."""

    rate: SendRate | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(SendRate))
    )
    """How fast they are asked for; ``None`` is ``DeliveryOptions.rate``."""

    hook_timeout: float = attrs.field(default=30.0, validator=_at_least(0.01))
    """Seconds that ``backfill`` and ``snapshot`` may take."""


def _methods(*names: str) -> Any:
    def validate(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value is None:
            return
        if isinstance(value, type):
            raise TypeError(f"{attribute.name} must be an object, as {value.__name__}(…) makes one")
        if not all(callable(getattr(value, name, None)) for name in names):
            raise TypeError(
                f"{attribute.name} must have the methods {' and '.join(names)},"
                f" as wsclient has some, not be {type(value).__name__}"
            )

    return validate


@attrs.frozen(kw_only=True)
class DeliveryOptions:
    """What is promised for the messages that a channel sends, and how it is kept."""

    fence: bool = attrs.field(default=True, validator=_flag)
    """Prove by pings what the peer has read; off, no receipt says more than ``WRITTEN``.

    On, since a reconnecting client that cannot tell what arrived tells little.
    Off is for a server that counts pings, or that is slow to answer them.
    """

    fence_every: int = attrs.field(default=256, validator=_at_least(1, whole=True))
    """Messages after which such a ping goes out: a pong for so many costs next to nothing."""

    fence_interval: float = attrs.field(default=1.0, validator=_at_least(0))
    """Seconds after a message within which one goes out: about how long a person waits."""

    fence_timeout: float = attrs.field(default=60.0, validator=_at_least(0.01))
    """Seconds for which a peer may say other things and answer no ping: then nothing can be proven
    on this connection, and no more is asked."""

    acknowledgement: Any = attrs.field(default=None, validator=_methods("mark", "recognise"))
    """How messages carry an id and how the peer acknowledges them, for ``Delivery.ACKED``:
    a :class:`JsonAcknowledgement`, a :class:`FunctionAcknowledgement`, or what has their
    methods."""

    correlation: Any = attrs.field(default=None, validator=_methods("mark", "recognise"))
    """How a request carries its number and how the reply to it is known, for ``request()``:
    a :class:`JsonCorrelation`, a :class:`JsonRpcCorrelation`, a :class:`FunctionCorrelation`, or
    what has their methods."""

    max_attempts: float = attrs.field(default=math.inf, validator=_at_least(1, whole=True))
    """Connections to which one message is written at most, if it goes again at all (``ACKED``, or
    with ``resend_unknown``); then it is lost, unknown."""

    resend_unknown: bool = attrs.field(default=False, validator=_flag)
    """Write a ``QUEUED`` message again whose connection died before its reading was proven.

    Off: it could arrive twice, and only the user knows whether that does harm.
    """

    overflow: OverflowPolicy = attrs.field(
        default=OverflowPolicy.BLOCK, validator=_is_a(OverflowPolicy)
    )
    """What happens to a message for which the outbox has no room; by default its sender waits."""

    rate: SendRate | None = attrs.field(default=None, validator=_is_a(SendRate, optional=True))
    """How fast messages may go out; ``None`` is as fast as the peer reads."""

    dead_letter: Callable[[Any], object] | None = attrs.field(
        default=None, validator=_callable_or_none
    )
    """Called with a :class:`DeadLetter` for each message that is quarantined.

    It must not block; what it raises is reported, and goes no further.
    """
