"""``ws:`` and ``wss:`` URLs (RFC 6455 §3)."""

from __future__ import annotations

import base64
import re
import ssl
from urllib.parse import unquote_to_bytes, urlsplit

import attrs

from wsclient.protocol import check_host, check_resource

from ._endpoint import origin

# Types that have a text of their own, which is no URL.
_OTHER_TEXTS = (bytes.__str__, bytearray.__str__, int.__str__, float.__str__, type(None).__str__)

# What is mistaken for a WebSocket URL, and what is meant.
_MEANT = {"http": "ws", "https": "wss"}

# A host and a port.  Without a dot it might be anybody's name and password.
_PLACE = re.compile(
    r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})(?=[/?#]|$)"
)


@attrs.frozen
class Target:
    """What a URL asks for."""

    host: str
    """ASCII, in lower case; IPv6 without brackets."""
    port: int
    resource: str = attrs.field(repr=False)
    """Path and query."""
    ssl_context: ssl.SSLContext | bool
    """``False`` for ``ws``; for ``wss`` the context given, or ``True`` for the default one."""
    authorization: bytes | None = attrs.field(repr=False)
    """The ``Authorization`` header that the URL's user and password make (RFC 7617)."""

    @property
    def endpoint(self) -> str:
        """Scheme, host and port: safe to print."""
        return origin(self.host, self.port, secure=self.ssl_context is not False)


def parse_url(url: object, ssl_context: ssl.SSLContext | None = None) -> Target:
    """Take a URL apart.

    Args:
        url: A ``str``, or an object such as yarl's whose ``str()`` is the URL.
        ssl_context: For ``wss`` only; ``None`` means the default context.

    Raises:
        TypeError: The arguments are of the wrong type.
        ValueError: The URL cannot be used; the text says why, and never quotes the URL, which may
            hold a password or a token.
    """
    if not isinstance(url, str) and type(url).__str__ in (object.__str__, *_OTHER_TEXTS):
        raise TypeError(f"URL must be str, not {type(url).__name__}")
    if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
        raise TypeError(
            f"ssl_context must be ssl.SSLContext or None, not {type(ssl_context).__name__}"
        )
    text = str(url)
    # Browsers take it for a slash, urlsplit for a part of the host.
    if "\\" in text:
        raise ValueError("URL must not contain a backslash; percent-encode it")
    # urlsplit would drop these without a word.
    if any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("URL must not contain spaces or control characters (CR, LF, NUL, …)")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        # urllib's text may quote what it took for a port: a part of a password, say.
        raise ValueError(
            "URL is malformed: its host or port is not valid"
            " (percent-encode '/', '?', '#', '@' in a user name or password)"
        ) from None
    if parts.scheme not in ("ws", "wss"):
        raise ValueError('WebSocket URL scheme must be "ws:" or "wss:"')
    if parts.scheme == "ws" and ssl_context is not None:
        raise ValueError("SSL context must be None for ws: URL scheme")
    if not host:
        raise ValueError("URL host must not be None")
    if port == 0:
        raise ValueError("URL port must not be 0")
    # The zone of an address, whose % is written as one of a URL (RFC 6874 §2).
    host = host.replace("%25", "%") if ":" in host else host
    resource = (parts.path or "/") + ("?" + parts.query if _has_query(text) else "")
    return Target(
        host=check_host(host).lower(),
        port=port or (80 if parts.scheme == "ws" else 443),
        resource=check_resource(resource),
        ssl_context=False if parts.scheme == "ws" else (ssl_context or True),
        authorization=_authorization(parts.username, parts.password),
    )


def mistake_in(url: object) -> str | None:
    """What is wrong with a URL that is meant for another scheme, or for none, in words.

    Shows no more of it than scheme, host and port, and nothing where these are not beyond doubt.

    Returns:
        ``None`` if nothing is, or if :func:`parse_url` says all that may be said.
    """
    text = str(url) if isinstance(url, str) else ""
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        return None
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme in ("ws", "wss"):
        return None if host else "the URL has no host"
    if parts.scheme in _MEANT and host:
        begin, place = f"{parts.scheme}://", parts.netloc.rpartition("@")[2]
        rest = text.partition("://")[2].removeprefix(parts.netloc)
        meant = _MEANT[parts.scheme]
    elif found := _PLACE.match(text):
        begin, place, rest = "", found[0], text[found.end() :]
        meant = "wss" if found["port"] == "443" else "ws"
    else:
        return None
    # A password with a slash in it looks like a port and a path.
    if "@" in rest:
        return None
    place += rest if rest in ("", "/") else "/…"
    return f"{begin + place!r} is no WebSocket URL: try {meant}://{place}"


def _has_query(url: str) -> bool:
    # urlsplit does not tell an empty query from none.
    return "?" in url.partition("#")[0]


def _authorization(username: str | None, password: str | None) -> bytes | None:
    if not username and not password:
        return None
    credentials = unquote_to_bytes(username or "") + b":" + unquote_to_bytes(password or "")
    return b"Basic " + base64.b64encode(credentials)
