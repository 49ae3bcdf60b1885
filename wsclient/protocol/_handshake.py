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

import re
from typing import Final

import attrs
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from wsclient.errors import ConnectionRejected, HandshakeError, InvalidUpgrade

MAX_HEAD_SIZE: Final = 16 * 1024
"""Bytes of an answer's status line and headers; h11 has the same bound."""

MAX_HEADERS: Final = 128
"""Headers of an answer; as many as websockets takes."""

MAX_BODY_SIZE: Final = 64 * 1024
"""Bytes of a refusal's body that are kept: enough to say why."""

MAX_INTERIM_ANSWERS: Final = 16
"""Answers such as 103 before the final one."""

_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/(\d)\.(\d) (\d{3})(?: .*)?")
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


class _VerbatimHost(str):
    """A host that is ASCII already.

    wsproto encodes ``host:port`` as one IDNA name, and fails where the port makes the last label
    longer than 63 characters.
    """

    __slots__ = ()

    def encode(self, encoding: str = "ascii", errors: str = "strict") -> bytes:
        return super().encode("ascii", errors)


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


def check_host(host: object) -> str:
    """Return ``host`` in ASCII (IDNA where it must be) if it can name a server.

    Raises:
        TypeError: It is not ``str``.
        ValueError: It is empty, too long, or holds what no host name holds.
    """
    if not isinstance(host, str):
        raise TypeError(f"host must be str, not {type(host).__name__}")
    if not host:
        raise ValueError("host must not be empty")
    # Before anything is computed: encoding a very long name takes very long.
    if len(host) > 253:
        raise ValueError("host must not be longer than 253 characters (RFC 1035)")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("host is not a valid internationalised name") from None
    if any(character <= " " or character in '\x7f/?#@\\"<>^`{|}' for character in host):
        raise ValueError("host must not contain spaces, control characters or URL delimiters")
    # An address of IPv6, or a port behind the name, has colons and no such labels.
    labels = [] if ":" in host else host.removesuffix(".").split(".")
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError("host has a label that is empty or longer than 63 characters (RFC 1035)")
    return host


class ClientHandshake:
    """One opening handshake: send the request, feed the answer until it is accepted.

    Args:
        host: The ``Host`` header, ASCII, with the port where it is not the default.
        resource: Path and query, as :func:`check_resource` returns them.
        subprotocols: Offered, in order of preference.
        headers: Sent after the handshake's own; ``Host`` replaces ``host``.
    """

    def __init__(
        self,
        host: str,
        resource: str,
        *,
        subprotocols: tuple[str, ...] = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        extra: list[tuple[bytes, bytes]] = []
        for name, value in headers:
            if name.lower() == b"host":
                host = value.decode("ascii")
            else:
                extra.append((name, value))
        self._request = Request(
            host=_VerbatimHost(host),
            target=resource,
            subprotocols=list(subprotocols),
            extra_headers=extra,
        )
        self._wsproto = H11Handshake(ConnectionType.CLIENT)
        self._head = bytearray()
        self._searched = 0
        self._interim_answers = 0
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
        self._head += data
        while (end := self._find_head_end()) is not None:
            head, rest = bytes(self._head[:end]), bytes(self._head[end:])
            self._head.clear()
            self._searched = 0
            status = self._check_status_line(head)
            if status == 101:
                return self._accept(head, rest)
            if status in (100, *range(200, 1000)):
                self._feed(head)
                self._feed(rest)
                return None
            self._interim_answers += 1
            if self._interim_answers > MAX_INTERIM_ANSWERS:
                raise InvalidUpgrade("the server sent too many interim answers (HTTP 1xx)")
            self._head += rest
        return None

    def receive_eof(self) -> None:
        """Take the end of the stream.

        Raises:
            ConnectionRejected: The end completes, or cuts short, the body of a refusal.
            HandshakeError: The answer is not whole.
        """
        if self._rejected is not None:
            raise self._rejection()
        where = "inside its answer" if self._head else "before it answered"
        raise HandshakeError(f"the server closed the connection {where}") from EOFError(
            "end of stream in the opening handshake"
        )

    def _find_head_end(self) -> int | None:
        # From where the last search ended, less the three bytes that could begin a line end.
        found = _HEAD_END.search(self._head, max(0, self._searched - 3))
        self._searched = len(self._head)
        end = found.end() if found else None
        if (end or len(self._head)) > MAX_HEAD_SIZE:
            raise InvalidUpgrade(
                f"the head of the server's answer exceeds {MAX_HEAD_SIZE // 1024} KiB"
            )
        if not b"HTTP/1".startswith(self._head[:6]):
            raise InvalidUpgrade("the server's answer is not HTTP/1.1")
        return end

    def _check_status_line(self, head: bytes) -> int:
        lines = _lines(head)
        line = _STATUS_LINE.fullmatch(lines[0])
        if line is None:
            raise InvalidUpgrade("the server's answer has no valid status line")
        if len(lines) - 1 > MAX_HEADERS:
            raise InvalidUpgrade(f"the server's answer has more than {MAX_HEADERS} headers")
        status = int(line[3])
        if status == 101 and line[1] + line[2] != b"11":
            raise InvalidUpgrade("the server switched protocols under another HTTP than 1.1")
        if status < 100:
            raise InvalidUpgrade(f"the server answered with the invalid status {line[3]!r}")
        return status

    def _accept(self, head: bytes, rest: bytes) -> Accepted:
        self._deliver(_normalised(head))
        for event in self._wsproto.events():
            if isinstance(event, AcceptConnection):
                headers = tuple((bytes(name), bytes(value)) for name, value in event.extra_headers)
                return Accepted(event.subprotocol, headers, rest)
        raise InvalidUpgrade("the server's answer is incomplete")

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
            elif isinstance(event, RejectData):
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
        except RemoteProtocolError as error:
            # wsproto's texts may quote the server's answer: made printable.
            raise InvalidUpgrade(f"the server's answer is not valid: {str(error)!r}") from error

    def _rejection(self) -> ConnectionRejected:
        assert self._rejected is not None
        return ConnectionRejected(
            self._rejected.status_code,
            tuple((bytes(name), bytes(value)) for name, value in self._rejected.headers),
            bytes(self._body[:MAX_BODY_SIZE]) if self._rejected.has_body else None,
        )


def _lines(head: bytes) -> list[bytes]:
    """The lines of a head, without their ends and without the empty last one."""
    return head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")


def _normalised(head: bytes) -> bytes:
    """The head of a 101 answer such that wsproto reads it as RFC 6455 means it."""
    if not head.isascii():
        raise InvalidUpgrade("the server's answer has headers that are not ASCII")
    status_line, *lines = _lines(head)
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
