"""The opening handshake, from the server's side (RFC 6455 §4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import attrs
import trio
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection
from wsproto.events import Request as UpgradeRequest
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

_MAX_HEAD_SIZE: Final = 64 * 1024
"""Bytes of a request: what a client that never ends its headers may send."""


class BadRequest(Exception):
    """What came is no upgrade request."""


@attrs.frozen
class Request:
    """A client's upgrade request."""

    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    subprotocols: tuple[str, ...]
    trailing: bytes
    """What came behind it: a client's first frames, if it cannot wait."""
    _handshake: H11Handshake

    def choose(self, subprotocols: Iterable[str]) -> str | None:
        """The first of ours that the client offers."""
        return next((name for name in subprotocols if name in self.subprotocols), None)

    def accept(self, subprotocol: str | None) -> bytes:
        """The answer that switches protocols."""
        return self._handshake.send(AcceptConnection(subprotocol=subprotocol))


async def read_request(stream: trio.abc.Stream) -> Request | None:
    """Read an upgrade request; ``None`` if the stream ends before.

    Raises:
        BadRequest: It is none.
        trio.BrokenResourceError: The stream is broken.
    """
    received = bytearray()
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some()
        if not data:
            return None
        received += data
        if len(received) > _MAX_HEAD_SIZE:
            raise BadRequest("the request is too long")
    head, _, trailing = bytes(received).partition(b"\r\n\r\n")
    handshake = H11Handshake(ConnectionType.SERVER)
    try:
        handshake.receive_data(head + b"\r\n\r\n")
    except (RemoteProtocolError, UnicodeError) as error:
        raise BadRequest(str(error)) from error
    request = next(handshake.events())
    assert isinstance(request, UpgradeRequest)
    # wsproto keeps some headers to itself, so they are read once more.
    pairs = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    return Request(request.target, headers, tuple(request.subprotocols), trailing, handshake)


def http_answer(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """A whole answer other than 101."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unheard Of"
    lines = [f"HTTP/1.1 {status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def with_wrong_accept(answer: bytes) -> bytes:
    """The same answer for another request's key."""
    head, name, rest = answer.partition(b"Sec-WebSocket-Accept: ")
    # The example of RFC 6455 §1.3.
    return head + name + b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" + rest[rest.index(b"\r\n") :]
