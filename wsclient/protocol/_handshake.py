"""The opening handshake, from the client's side (RFC 6455 §4.1).

wsproto writes the request and judges the answer; this wrapper stands between it and a hostile
server.  It takes the answer's head apart before wsproto sees it, because wsproto

- counts any 1xx other than 101 as a refusal (here 102 and 103 are skipped, RFC 9110 §15.2),
- accepts a switch of protocols under HTTP/1.0, which has none (RFC 9110 §7.8),
- keeps only the last of repeated headers (they are joined, or refused where only one may be),
- raises what a caller would not expect for bytes that are not ASCII,
- keeps a refusal's body without a limit, and waits for an end that a server may never send.
"""

from __future__ import annotations

from typing import Final

import attrs
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request
from wsproto.extensions import Extension
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from wsclient.errors import ConnectionRejected, HandshakeError, InvalidUpgrade
from wsclient.options import MAX_HEAD_SIZE, MAX_HEADERS, Compression

from . import _deflate
from ._deflate import Deflate, InvalidDeflate
from ._head import Head, HeadReader, head_lines

MAX_BODY_SIZE: Final = 64 * 1024
"""Bytes of a refusal's body that are kept: enough to say why."""

_ONLY_ONCE: Final = (b"sec-websocket-accept", b"sec-websocket-protocol")
_JOINED: Final = (b"connection", b"upgrade", b"sec-websocket-extensions")


@attrs.frozen
class Accepted:
    """The server switched protocols."""

    subprotocol: str | None
    headers: tuple[tuple[bytes, bytes], ...]
    """Names in lower case, in the server's order, without the handshake's own."""
    trailing: bytes
    """What came behind the head: the first frames."""
    deflate: Deflate | None = None
    """What was agreed on about compression, if anything."""


class _VerbatimHost(str):
    """A host that is ASCII already.

    wsproto encodes ``host:port`` as one IDNA name, and fails where the port makes the last label
    longer than 63 characters.
    """

    __slots__ = ()

    def encode(self, encoding: str = "ascii", errors: str = "strict") -> bytes:
        return super().encode("ascii", errors)


class _Offer(Extension):
    """Our offer of permessage-deflate, as wsproto negotiates it."""

    name = _deflate.NAME

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self.agreed: Deflate | None = None

    def offer(self) -> str:
        return _deflate.offer(self._compression)

    def finalize(self, offer: str) -> None:
        if self.agreed is not None:
            raise InvalidDeflate(f"{self.name} stands there twice")
        self.agreed = _deflate.agree(self._compression, offer.partition(";")[2])


def check_resource(resource: object) -> str:
    """Return ``resource`` if it can stand in a request line: an ASCII path and query.

    Raises:
        TypeError: It is not ``str``.
        ValueError: It does not start with ``/``, or holds spaces, control characters, or
            characters that are not ASCII and must be percent-encoded.
    """
    if not isinstance(resource, str):
        raise TypeError(f"resource must be str, not {type(resource).__name__}")
    # The resource itself stays out of the texts: a query often carries a token.
    if not resource.startswith("/"):
        raise ValueError("resource must start with '/'")
    if not resource.isascii():
        raise ValueError("resource must be ASCII; percent-encode other characters")
    if any(character <= " " or character == "\x7f" for character in resource):
        raise ValueError(
            "resource must not contain spaces or control characters (CR, LF, NUL, …);"
            " percent-encode them"
        )
    if "#" in resource:
        raise ValueError("resource must not contain a fragment ('#'); percent-encode it")
    return resource


class ClientHandshake:
    """One opening handshake: send the request, feed the answer until it is accepted.

    Args:
        host: The ``Host`` header, ASCII, with the port where it is not the default.
        resource: Path and query, as :func:`check_resource` returns them.
        subprotocols: Offered, in order of preference.
        headers: Sent after the handshake's own; ``Host`` replaces ``host``, and ``User-Agent``
            the next one.
        user_agent: The ``User-Agent`` header; ``None`` sends none.
        max_head_size: Bytes of the answer's head.
        max_headers: Headers of the answer.
        compression: Offered, if any.
    """

    def __init__(
        self,
        host: str,
        resource: str,
        *,
        subprotocols: tuple[str, ...] = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
        user_agent: str | None = None,
        max_head_size: int = MAX_HEAD_SIZE,
        max_headers: int = MAX_HEADERS,
        compression: Compression | None = None,
    ) -> None:
        extra: list[tuple[bytes, bytes]] = []
        for name, value in headers:
            if name.lower() == b"host":
                host = value.decode("ascii")
            else:
                extra.append((name, value))
        self._offers = [] if compression is None else [_Offer(compression)]
        if user_agent is not None and not any(name.lower() == b"user-agent" for name, _ in extra):
            extra.insert(0, (b"User-Agent", user_agent.encode("ascii")))
        self._request = Request(
            host=_VerbatimHost(host),
            target=resource,
            subprotocols=list(subprotocols),
            extensions=self._offers,
            extra_headers=extra,
        )
        self._wsproto = H11Handshake(ConnectionType.CLIENT)
        self._reader = HeadReader("the server", max_size=max_head_size, max_headers=max_headers)
        self._rejected: RejectConnection | None = None
        self._body = bytearray()

    def send_request(self) -> bytes:
        """The upgrade request."""
        return self._wsproto.send(self._request)

    def receive_data(self, data: bytes) -> Accepted | None:
        """Take what one read brought; return the acceptance once it is whole.

        Raises:
            ConnectionRejected: The server refused, and its answer is whole or long enough.
            InvalidUpgrade: The answer breaks the rules.
        """
        if self._rejected is not None:
            self._feed(data)
            return None
        self._reader.receive_data(data)
        while (head := self._reader.take_head()) is not None:
            if head.status == 101:
                return self._accept(head)
            if head.status in (100, *range(200, 1000)):
                self._feed(head.data)
                self._feed(self._reader.take_rest())
                return None
            self._reader.count_interim()
        return None

    def receive_eof(self) -> None:
        """Take the end of the stream.

        Raises:
            ConnectionRejected: The end completes, or cuts short, the body of a refusal.
            HandshakeError: The answer is not whole.
        """
        if self._rejected is not None:
            raise self._rejection()
        where = "inside its answer" if self._reader.is_inside else "before it answered"
        raise HandshakeError(f"the server closed the connection {where}") from EOFError(
            "end of stream in the opening handshake"
        )

    def _accept(self, head: Head) -> Accepted:
        if head.version != b"1.1":
            raise InvalidUpgrade("the server switched protocols under another HTTP than 1.1")
        self._deliver(_normalised(head.data))
        # The head is whole, and was found valid.
        event = next(self._wsproto.events())
        assert isinstance(event, AcceptConnection)
        headers = tuple((bytes(name), bytes(value)) for name, value in event.extra_headers)
        agreed = self._offers[0].agreed if self._offers else None
        return Accepted(event.subprotocol, headers, self._reader.take_rest(), agreed)

    def _feed(self, data: bytes) -> None:
        broken: InvalidUpgrade | None = None
        if data:
            try:
                self._deliver(data)
            except InvalidUpgrade as error:
                broken = error  # What was understood before it in the same read stands.
        for event in self._wsproto.events():
            if isinstance(event, RejectConnection):
                self._rejected = event
                if not event.has_body:
                    raise self._rejection()
            else:
                assert isinstance(event, RejectData)
                self._body += event.data
                if event.body_finished or len(self._body) >= MAX_BODY_SIZE:
                    raise self._rejection()
        if broken is not None:
            if self._rejected is None:
                raise broken
            # The status is what matters: a broken body ends it.
            raise self._rejection() from None

    def _deliver(self, data: bytes) -> None:
        try:
            self._wsproto.receive_data(data)
        except (RemoteProtocolError, InvalidDeflate) as error:
            # Their texts may quote the server's answer: made printable.
            raise InvalidUpgrade(f"the server's answer is not valid: {str(error)!r}") from error

    def _rejection(self) -> ConnectionRejected:
        assert self._rejected is not None
        return ConnectionRejected(
            self._rejected.status_code,
            tuple((bytes(name), bytes(value)) for name, value in self._rejected.headers),
            bytes(self._body[:MAX_BODY_SIZE]) if self._rejected.has_body else None,
        )


def _normalised(head: bytes) -> bytes:
    """The head of a 101 answer such that wsproto reads it as RFC 6455 means it."""
    if not head.isascii():
        raise InvalidUpgrade("the server's answer has headers that are not ASCII")
    status_line, *lines = head_lines(head)
    kept: list[bytes] = []
    joined: dict[bytes, list[bytes]] = {}
    seen: set[bytes] = set()
    for line in lines:
        name, colon, value = line.partition(b":")
        key = name.lower()
        if not colon or name != name.strip() or b"\r" in line:
            raise InvalidUpgrade("the server's answer has a malformed header")
        if key in _JOINED:
            if value.strip():
                joined.setdefault(key, []).append(value.strip())
            continue
        if key in _ONLY_ONCE and key in seen:
            raise InvalidUpgrade(f"the server's answer repeats {name.decode('ascii')!r}")
        seen.add(key)
        kept.append(line)
    kept += [name + b": " + b", ".join(values) for name, values in joined.items()]
    return b"\r\n".join([status_line, *kept, b"", b""])
