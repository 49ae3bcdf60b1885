"""Compressed messages (RFC 7692): what is offered and agreed on, and the two ends of it."""

from __future__ import annotations

import re
import zlib
from typing import Final

import attrs

from wsclient.options import Compression

NAME: Final = "permessage-deflate"

_PARAMETERS: Final = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)
_PARAMETER: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:\s*=\s*(\"?)([0-9A-Za-z]+)\2)?")
_MAX_STREAMS: Final = 16
"""How often one piece may begin anew: each time costs a copy of what is left of it."""

_WINDOW_BITS: Final = {str(bits): bits for bits in range(8, 16)}


class InvalidDeflate(Exception):
    """What the peer says about compression, or sends compressed, is not valid."""


@attrs.frozen(kw_only=True)
class Deflate:
    """What was agreed on (RFC 7692 §7.1)."""

    compression: Compression
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15

    def __str__(self) -> str:
        """As a header has it, with everything that is not as it would be without a word."""
        parts = [NAME]
        if self.server_no_context_takeover:
            parts.append("server_no_context_takeover")
        if self.client_no_context_takeover:
            parts.append("client_no_context_takeover")
        if self.server_max_window_bits != 15:
            parts.append(f"server_max_window_bits={self.server_max_window_bits}")
        if self.client_max_window_bits != 15:
            parts.append(f"client_max_window_bits={self.client_max_window_bits}")
        return "; ".join(parts)

    def make_inflater(self) -> Inflater:
        """What inflates the server's messages."""
        return Inflater(
            self.server_max_window_bits, keeps_context=not self.server_no_context_takeover
        )

    def make_deflater(self) -> Deflater | None:
        """What compresses ours; ``None`` where we must send them as they are."""
        # zlib's deflate has no window of 2^8, and one of 2^9 would look back too far.
        if self.client_max_window_bits == 8:
            return None
        return Deflater(
            self.client_max_window_bits,
            self.compression,
            keeps_context=not self.client_no_context_takeover,
        )


def offer(compression: Compression) -> str:
    """The parameters of our offer (RFC 7692 §7.1), as the header has them behind the name."""
    parameters = []
    if compression.server_no_context_takeover:
        parameters.append("server_no_context_takeover")
    if compression.client_no_context_takeover:
        parameters.append("client_no_context_takeover")
    if compression.server_max_window_bits is not None:
        parameters.append(f"server_max_window_bits={compression.server_max_window_bits}")
    # Without a value it says that we can do what the server asks for.
    bits = compression.client_max_window_bits
    parameters.append("client_max_window_bits" + ("" if bits is None else f"={bits}"))
    return "; ".join(parameters)


def agree(compression: Compression, answer: str) -> Deflate:
    """What the server's answer to our offer makes of it (RFC 7692 §7.1).

    Args:
        compression: What we have offered.
        answer: The server's parameters, as the header has them behind the name.

    Raises:
        InvalidDeflate: A parameter that is unknown, repeated, out of its range, or beyond what was
            offered.
    """
    given: dict[str, str | None] = {}
    for text in filter(None, (part.strip() for part in answer.split(";"))):
        parameter = _PARAMETER.fullmatch(text)
        if parameter is None:
            raise InvalidDeflate(f"{NAME}: malformed parameter {text!r}")
        if parameter[1] not in _PARAMETERS:
            raise InvalidDeflate(f"{NAME}: unknown parameter {parameter[1]!r}")
        if parameter[1] in given:
            raise InvalidDeflate(f"{NAME}: repeated parameter {parameter[1]!r}")
        given[parameter[1]] = parameter[3]
    agreed = Deflate(
        compression=compression,
        server_no_context_takeover=_flag(given, "server_no_context_takeover"),
        client_no_context_takeover=_flag(given, "client_no_context_takeover")
        or compression.client_no_context_takeover,
        server_max_window_bits=_bits(
            given, "server_max_window_bits", compression.server_max_window_bits or 15
        ),
        client_max_window_bits=_bits(
            given, "client_max_window_bits", compression.client_max_window_bits or 15
        ),
    )
    if compression.server_no_context_takeover and not agreed.server_no_context_takeover:
        raise InvalidDeflate(f"{NAME}: the server did not agree to server_no_context_takeover")
    if compression.server_max_window_bits and "server_max_window_bits" not in given:
        raise InvalidDeflate(f"{NAME}: the server did not agree to server_max_window_bits")
    return agreed


def _flag(given: dict[str, str | None], name: str) -> bool:
    if given.get(name) is not None:
        raise InvalidDeflate(f"{NAME}: {name} has no value")
    return name in given


def _bits(given: dict[str, str | None], name: str, most: int) -> int:
    if name not in given:
        return most
    bits = _WINDOW_BITS.get(given[name] or "")
    if bits is None:
        raise InvalidDeflate(f"{NAME}: {name} must be a number from 8 to 15")
    if bits > most:
        raise InvalidDeflate(f"{NAME}: {name} is more than was offered")
    return bits


class Inflater:
    """Inflates messages, never to more than it is given room for.

    Args:
        window_bits: The base-2 logarithm of the sender's window.
        keeps_context: Whether a message may refer to the ones before it.
    """

    def __init__(self, window_bits: int, *, keeps_context: bool) -> None:
        self._window_bits = window_bits
        self._keeps_context = keeps_context
        self._zlib = zlib.decompressobj(-window_bits)
        self._rest = b""
        self.has_more: bool = False
        """Whether the room was too small: ``inflate(b"", …)`` goes on."""

    def inflate(self, data: bytes, max_size: int) -> bytes:
        """Inflate ``data``, behind what is left of what came before, to ``max_size`` bytes at most.

        Raises:
            InvalidDeflate: It is not deflate's format.
        """
        try:
            piece = self._zlib.decompress(self._rest + data, max_size)
            self._rest = self._zlib.unconsumed_tail
            streams = 1
            while self._zlib.eof:
                # A block was marked as the last (RFC 7692 §7.2.3.4): begin anew behind it.
                self._rest = self._zlib.unused_data
                self._zlib = zlib.decompressobj(-self._window_bits)
                if not self._rest or len(piece) >= max_size:
                    break
                streams += 1
                if streams > _MAX_STREAMS:
                    raise InvalidDeflate("compressed message that ends again and again")
                piece += self._zlib.decompress(self._rest, max_size - len(piece))
                self._rest = self._zlib.unconsumed_tail
        except zlib.error as error:
            raise InvalidDeflate(f"message that cannot be inflated: {error}") from None
        # zlib may hold back a little of a full piece without a rest to show for it.
        self.has_more = len(piece) >= max_size
        return piece

    def end_message(self) -> None:
        """Say that a message is whole."""
        if not self._keeps_context:
            self._zlib = zlib.decompressobj(-self._window_bits)


class Deflater:
    """Compresses messages.

    Args:
        window_bits: The base-2 logarithm of our window.
        compression: How hard to try, and from which size on.
        keeps_context: Whether a message may refer to the ones before it.
    """

    def __init__(self, window_bits: int, compression: Compression, *, keeps_context: bool) -> None:
        self.threshold: int = compression.threshold
        """Bytes below which a message is better sent as it is."""
        self._zlib = zlib.compressobj(
            compression.level, zlib.DEFLATED, -window_bits, compression.memory_level
        )
        # A full flush forgets the context: like a new object for each message, but cheaper.
        self._flush = zlib.Z_SYNC_FLUSH if keeps_context else zlib.Z_FULL_FLUSH

    def deflate(self, payload: bytes) -> bytes:
        """Compress a whole message."""
        # The flush ends in the four bytes that the receiver puts back (RFC 7692 §7.2.1).
        return (self._zlib.compress(payload) + self._zlib.flush(self._flush))[:-4]
