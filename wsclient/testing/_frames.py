"""A server's frames (RFC 6455 §5.2), right and wrong.

Written by hand, and not by a library that would refuse what a fault is made of.
"""

from __future__ import annotations

from typing import Final

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80


def encode_header(opcode: int, size: int) -> bytes:
    """The header of an unmasked frame, the only one of its message."""
    first = bytes([_FIN | opcode])
    if size < 126:
        return first + bytes([size])
    if size < 2**16:
        return first + b"\x7e" + size.to_bytes(2, "big")
    return first + b"\x7f" + size.to_bytes(8, "big")


def encode_message(message: str | bytes) -> bytes:
    """A message as one frame."""
    if isinstance(message, str):
        payload = message.encode()
        return encode_header(TEXT, len(payload)) + payload
    return encode_header(BINARY, len(message)) + message


def encode_control(opcode: int, payload: bytes) -> bytes:
    """A ping or a pong."""
    return encode_header(opcode, len(payload)) + payload


def encode_close(code: int, reason: str) -> bytes:
    """A close frame; code 1005 makes an empty one."""
    payload = b"" if code == 1005 else code.to_bytes(2, "big") + reason.encode()
    return encode_control(CLOSE, payload)


HALF_FRAME: Final = encode_message("half of a message, the other half of which never comes")[:28]
"""The beginning of a text message."""

MASKED_FRAME: Final = b"\x81\x85\x00\x00\x00\x00hello"
"""A server must not mask (RFC 6455 §5.1)."""

BAD_OPCODE: Final = encode_header(0x3, 0)
"""An opcode that is reserved (RFC 6455 §5.2)."""

BAD_UTF8: Final = encode_header(TEXT, 2) + b"\xc3\x28"
"""Text that is not UTF-8 (RFC 6455 §8.1)."""

OVERSIZED_HEADER: Final = encode_header(BINARY, 2**62)
"""The header of a message of 4 EiB."""
