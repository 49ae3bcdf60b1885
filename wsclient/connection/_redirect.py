"""Redirects: where a refusal sends us, and what we take along.

Whoever answers a request may send its sender anywhere.  So the credentials stay with the origin
that they were given for (scheme, host and port; RFC 6454), TLS is never given up, and what the
caller has said of the way to one origin is not used for another.
"""

from __future__ import annotations

import re
import ssl
from typing import Final
from urllib.parse import urljoin, urlsplit

import attrs

from wsclient.errors import ConnectionRejected, HandshakeError
from wsclient.options import ConnectionOptions

from ._endpoint import host_header, origin
from ._stream import default_ssl_context
from ._url import Target, parse_url

_STATUSES: Final = (301, 302, 303, 307, 308)

# Nobody knows all the names that services give to their keys: rather one header too few.
_SECRET: Final = re.compile(
    rb"auth|cookie|token|secret|passw|credential|session|signature|key|jwt|cert|csrf|xsrf"
)
_SECRET_VALUE: Final = re.compile(rb"(?:basic|bearer|digest|negotiate|token)\s", re.IGNORECASE)

_WAYS: Final = ("unix_socket", "connect_host", "connect_port", "server_hostname")

_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@attrs.frozen
class Request:
    """Where to connect, and what to ask for."""

    host: str
    port: int
    resource: str = attrs.field(repr=False)
    ssl_context: ssl.SSLContext | None
    headers: tuple[tuple[bytes, bytes], ...] = attrs.field(repr=False)

    @property
    def secure(self) -> bool:
        """Whether it goes over TLS."""
        return self.ssl_context is not None

    @property
    def endpoint(self) -> str:
        """Scheme, host and port: safe to print."""
        return origin(self.host, self.port, secure=self.secure)


def redirected(
    request: Request,
    rejected: ConnectionRejected,
    options: ConnectionOptions,
    followed: int,
) -> Request | None:
    """The request that a refusal redirects to; ``None`` if it does not, or none are followed.

    Args:
        request: What was refused.
        rejected: How.
        options: Whether and how far redirects are followed.
        followed: Redirects so far.

    Raises:
        HandshakeError: It leads where we do not follow.
    """
    location = _location(request, rejected) if options.redirects else None
    if location is None:
        return None
    target = _target(request, location, rejected)
    where = f"{request.endpoint} redirected to {target.endpoint}"
    if followed == options.redirects:
        raise HandshakeError(f"{where}: not followed, after {followed} others") from rejected
    secure = target.ssl_context is not False
    if request.secure and not secure:
        raise HandshakeError(f"{where}, which has no TLS: not followed") from rejected
    headers = request.headers
    if (secure, target.host, target.port) != (request.secure, request.host.lower(), request.port):
        for name in _WAYS:
            if getattr(options, name) is not None:
                raise HandshakeError(
                    f"{where}: not followed, since {name} is given for {request.endpoint}"
                ) from rejected
        headers = tuple(header for header in headers if _may_leave(*header))
    return Request(
        host=target.host,
        port=target.port,
        resource=target.resource,
        ssl_context=(request.ssl_context or default_ssl_context()) if secure else None,
        headers=headers,
    )


def _location(request: Request, rejected: ConnectionRejected) -> str | None:
    if rejected.status_code not in _STATUSES:
        return None
    locations = {value for name, value in rejected.headers if name == b"location"}
    if len(locations) > 1:
        raise HandshakeError(
            f"{request.endpoint} redirected to several places at once"
        ) from rejected
    for location in locations:
        return location.decode("latin-1")
    return None


def _target(request: Request, location: str, rejected: ConnectionRejected) -> Target:
    authority = host_header(request.host, request.port, secure=request.secure)
    # As HTTP, because urljoin knows how a relative reference goes on from there.
    base = f"{'https' if request.secure else 'http'}://{authority}{request.resource}"
    try:
        # urljoin would drop these without a word.
        if not location.isascii() or any(c <= " " or c == "\x7f" for c in location):
            raise ValueError("Location must be ASCII without spaces and control characters")
        url = urljoin(base, location)
        scheme = urlsplit(url).scheme
        if scheme not in _SCHEMES:
            raise ValueError("Location must lead to ws:, wss:, http: or https:")
        # What a server writes before the host is nobody's password: parse_url takes it off.
        return parse_url(_SCHEMES[scheme] + url[len(scheme) :])
    except ValueError as error:
        # Errors about a URL never quote it; urllib's do.
        text = str(error) if error.__suppress_context__ or not error.__context__ else ""
        raise HandshakeError(
            f"{request.endpoint} redirected to a place that is no WebSocket URL: {text}"
        ) from rejected


def _may_leave(name: bytes, value: bytes) -> bool:
    """Whether a header may go to another origin than the one that it was given for."""
    lower = name.lower()
    return lower != b"host" and not _SECRET.search(lower) and not _SECRET_VALUE.match(value)
