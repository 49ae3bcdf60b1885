"""What goes over the wire, for servers that are no WebSocket library (RFC 6455 §5.2, RFC 7692)."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import socket
import zlib
from typing import Final

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

CLOSE_1000: Final = b"\x88\x02\x03\xe8"
DEFLATE: Final = b"Sec-WebSocket-Extensions: permessage-deflate"

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def head(opcode: int, length: int, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """The head of a server's frame; its length may be a lie."""
    first = fin << 7 | rsv1 << 6 | opcode
    if length < 126:
        return bytes([first, length])
    if length < 2**16:
        return bytes([first, 126]) + length.to_bytes(2)
    return bytes([first, 127]) + length.to_bytes(8)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    return head(opcode, len(payload), fin=fin, rsv1=rsv1) + payload


def masked_frame(opcode: int, payload: bytes, key: bytes = b"\x12\x34\x56\x78") -> bytes:
    """The frame of a client that has nothing to hide: its key is no secret."""
    start = bytearray(head(opcode, len(payload)))
    start[1] |= 0x80
    return bytes(start) + key + unmask(payload, key)


def masked_size(size: int) -> int:
    """Bytes of a client's frame around ``size`` bytes, if the client wastes none."""
    return len(head(BINARY, size)) + 4 + size


def unmask(data: bytes, key: bytes) -> bytes:
    size = len(data)
    long_key = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(long_key)).to_bytes(size)


def take_client_frame(data: bytearray) -> tuple[int, bytes] | None:
    """Take the opcode and the payload of a whole frame from the head of ``data``."""
    if len(data) < 6:
        return None
    length, start = data[1] & 0x7F, 2
    if length > 125:
        start = 4 if length == 126 else 10
        length = int.from_bytes(data[2:start])
    end = start + 4 + length
    if len(data) < end:
        return None
    payload = unmask(bytes(data[start + 4 : end]), bytes(data[start : start + 4]))
    opcode = data[0] & 0x0F
    del data[:end]
    return opcode, payload


# --- what is in the messages ----------------------------------------------------------------------


def text(size: int) -> str:
    """A text of ``size`` bytes: ASCII, as most feeds are."""
    return ('{"symbol":"BTCUSDT","price":"64123.50","quantity":"0.0125"}' * (size // 50 + 1))[:size]


def binary(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def quotes(count: int) -> list[str]:
    """Texts of about 100 B that differ, so that their compression is neither perfect nor vain."""
    return [
        json.dumps(
            {
                "type": "trade",
                "symbol": ("BTCUSDT", "ETHUSDT", "SOLUSDT")[number % 3],
                "price": f"{60_000 + number * 7919 % 10_007 / 100:.2f}",
                "quantity": f"{number * 104_729 % 9_973 / 1000:.3f}",
                "sequence": 1_000_000 + number,
            },
            separators=(",", ":"),
        )
        for number in range(count)
    ]


def deflated_quotes(count: int) -> list[bytes]:
    """The frames of :func:`quotes`, compressed with context takeover (RFC 7692 §7.2.1).

    They may be sent again and again: the first refers to nothing before it, and so nothing ever
    refers to what the receiver's window held before the latest beginning.
    """
    compressor = zlib.compressobj(wbits=-15)
    frames = []
    for quote in quotes(count):
        data = compressor.compress(quote.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        frames.append(frame(TEXT, data.removesuffix(b"\0\0\xff\xff"), rsv1=True))
    return frames


def bomb(size: int) -> bytes:
    """A compressed message that inflates to ``size`` zeros: about a thousandth of it."""
    compressor = zlib.compressobj(9, wbits=-15)
    piece = bytes(2**20)
    parts = [compressor.compress(piece) for _ in itertools.repeat(None, size // len(piece))]
    data = b"".join(parts) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(BINARY, data.removesuffix(b"\0\0\xff\xff"), rsv1=True)


# --- the opening handshake ------------------------------------------------------------------------

REQUEST: Final = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""A client's request that asks for a path."""


def read_request(peer: socket.socket) -> bytes:
    """A client's request, which nothing follows before the answer; empty if there is none."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        data = peer.recv(65536)
        if not data:
            return b""
        request += data
    return request


def path_of(request: bytes) -> str:
    return request.split(b" ", 2)[1].decode()


def answer(request: bytes, *headers: bytes) -> bytes:
    """The 101 to a request (RFC 6455 §4.2.2), with more header lines."""
    key = next(
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept,
        *headers,
    ]
    return b"\r\n".join([*lines, b"", b""])
