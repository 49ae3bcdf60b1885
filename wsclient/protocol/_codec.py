"""Frames (RFC 6455 §5): bytes in and facts out, messages in and bytes out.

This file runs as it is, and is compiled by Cython where a compiler is at hand when the package is
built; ``_codec.pxd`` beside it says which names are C's then.  What it does for speed:

1. *One read, one call, one list.*  There is no object for a frame.  The common one, a whole message
   in one short frame, is understood in the loop of ``Decoder._decode`` itself, and its payload is
   copied once: text is decoded straight from the buffer that the socket filled.
2. *A long message is read where it stays.*  While nothing but the rest of a long binary message can
   come, ``Decoder.get_buffer`` gives the place for it, and the socket fills that.
3. *Many sends, one buffer.*  A frame is written at the end of the buffer that goes to the socket,
   and masked there.

And for safety:

4. *Numbers before bytes.*  A declared length that breaks a limit ends the connection before a byte
   of it is kept; what inflates gets the room of the limit and one byte more.
5. *One bytearray, no list of pieces.*  A million pieces of one byte take a megabyte.
"""

from __future__ import annotations

import codecs
import math
import os
import sys
from types import FunctionType
from typing import Final, cast

from wsclient.codes import CloseCode, is_sendable

from ._deflate import Deflater, Inflater, InvalidDeflate
from ._events import (
    CloseReceived,
    Fact,
    MessagePart,
    PingReceived,
    PongReceived,
    ProtocolViolated,
)

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN: Final = 0x80
RSV1: Final = 0x40
"""On a message's first frame: the message is compressed (RFC 7692 §6)."""
MASKED: Final = 0x80

BATCH_SIZE: Final = 2**20
"""Bytes of messages (1 MiB) after which the rest of a read waits undecoded: a small read that
inflates must not become a heap of messages."""

MESSAGE_OVERHEAD: Final = 64
"""Bytes that each fact counts for beyond its own: an object is not free, and takes time."""

FRAME_OVERHEAD: Final = 128
"""Bytes that each frame counts for beyond that, if it is a fragment, or compressed: it takes
longer, and a message may have any number of them."""

PART_SIZE: Final = 64 * 1024
"""Bytes that a part inflates to at most."""

MIN_TARGET_SIZE: Final = 128 * 1024
"""Bytes that must be missing of a message to be read where they stay: one more read for the next
message takes as long as copying them."""

MAX_TARGET_SIZE: Final = 16 * 2**20
"""Bytes of such a message at most: whoever declares them gets the memory before they have come."""

MAX_PROMISE: Final = 64
"""Times as much as has come that may be missing then: a header alone must not take megabytes.  The
first 16 KiB are enough for 1 MiB."""

BURST_SIZE: Final = 64 * 1024
"""Bytes in the buffer to which no message of a burst is added."""

_DEFLATE_TAIL: Final = b"\x00\x00\xff\xff"
"""What the sender cut from a compressed message's end (RFC 7692 §7.2.2)."""

_KEYS_SIZE: Final = 256
"""Bytes of entropy that are fetched at a time: 64 keys for one call of the system."""


# The same numbers as C's, for the shortest ways.
_TEXT_FRAME: Final = FIN | TEXT
_BINARY_FRAME: Final = FIN | BINARY
_MASKED: Final = MASKED
_BURST_SIZE: Final = BURST_SIZE


class _Violation(Exception):
    """The peer broke a rule or a limit; becomes a :class:`ProtocolViolated`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Decoder:
    """Understands what a server sends.

    Args:
        max_message_size: Bytes of one message, inflated; parts are not counted.
        max_frame_size: Bytes of one frame's payload, as they come.
        max_fragments: Frames of one message.
        inflater: Where compression was agreed on: what inflates.
    """

    def __init__(
        self,
        max_message_size: float,
        max_frame_size: float = math.inf,
        max_fragments: float = math.inf,
        inflater: Inflater | None = None,
    ) -> None:
        self._max_message_size = _as_int(max_message_size)
        self._max_frame_size = _as_int(max_frame_size)
        self._max_fragments = _as_int(max_fragments)
        self._inflater = inflater
        self.size: int = 0
        """Bytes of the messages, and parts, of the last batch."""
        self.controls: int = 0
        """How many facts of the last batch are neither messages nor parts."""
        self.has_more: bool = False
        """Whether a part of what came waits undecoded, because the batch is full."""
        self.in_parts: bool = False
        """Whether a message that is not whole in one read is given in parts."""
        self._rest = b""
        # The message that is being received; its opcode is 0 between messages.
        self._opcode = 0
        self._is_compressed = False
        self._fragments = 0
        self._received = 0
        self._payload: bytearray | bytes = bytearray()
        # Once the whole of a message has its place in _payload: the part that is not filled.
        self._target: memoryview | None = None
        self._utf8: codecs.IncrementalDecoder | None = None
        self._is_in_parts = False
        # Its frame whose payload is being received.
        self._in_frame = False
        self._is_last = False
        self._missing = 0
        self._is_inflating = False
        # The header that was read last.
        self._length = 0
        self._header_size = 0

    def receive(self, data: bytes | bytearray, size: int) -> list[Fact]:
        """Take the first ``size`` bytes of ``data``; return what they amount to, in order.

        While :attr:`has_more` is true, ``receive(b"", 0)`` goes on.
        The last fact of a connection is a :class:`CloseReceived` or a :class:`ProtocolViolated`:
        after it nothing may follow.
        """
        if self._rest:
            data = self._rest + data[:size]
            size = len(data)
            self._rest = b""
        facts: list[Fact] = []
        self.size = 0
        self.controls = 0
        self.has_more = False
        try:
            position = self._decode(data, size, facts)
            if position < size:
                self._rest = bytes(data[position:size])
            return facts
        except (UnicodeDecodeError, InvalidDeflate) as error:
            facts.append(ProtocolViolated(CloseCode.INVALID_FRAME_PAYLOAD_DATA, str(error)))
        except _Violation as violation:
            facts.append(ProtocolViolated(violation.code, violation.reason))
        self.controls += 1
        return facts

    def get_buffer(self) -> memoryview | None:
        """The place for what comes next, if that can only be more of one long message.

        Its first bytes may be filled until any other method is called; :meth:`buffer_updated` tells
        how many were.  No part of it may be kept.
        """
        if self._streams():
            return None
        if self._target is None and self._deserves_target():
            self._open_target()
        return self._target

    def buffer_updated(self, size: int) -> list[Fact]:
        """Take ``size`` bytes that are where :meth:`get_buffer` said; as :meth:`receive` does."""
        facts: list[Fact] = []
        self.size = 0
        self.controls = 0
        self.has_more = False
        self._fill_target(size)
        self._received += size
        self._missing -= size
        if self._streams():  # Parts are wanted since it was given.
            self._is_in_parts = True
            self._give_collected(facts)
        if not self._missing:
            self._end_message(facts)
        return facts

    def _decode(self, data: bytes | bytearray, end: int, facts: list[Fact]) -> int:
        """Decode ``data[:end]`` as far as the batch has room; return how far that was."""
        view = data
        whole_text = FIN | TEXT
        whole_binary = FIN | BINARY
        overhead = MESSAGE_OVERHEAD
        room = BATCH_SIZE
        frames = 0
        position = 0
        while room > 0:
            if self._in_frame:
                # What still inflates comes before what follows it.
                stop = position
                if not self._is_inflating:
                    # Not the other way round: their sum need not be a number of C's.
                    stop += min(end - position, self._missing)
                if stop == position and self._missing and not self._is_inflating:
                    return position
                self._continue_frame(data, position, stop, facts)
                position = stop
                room = BATCH_SIZE - self.size - overhead * len(facts) - frames
                continue
            if end - position < 2:
                return position
            first = view[position]
            length = view[position + 1]
            # The common frame: a whole message, neither long nor compressed, wholly here.
            if length < 127 and (first == whole_text or first == whole_binary):  # noqa: SIM109 (slower)
                start = position + 2
                if length == 126:
                    start += 2
                    length = view[position + 2] << 8 | view[position + 3] if start <= end else 0
                stop = start + length
                if (
                    stop <= end
                    and self._opcode == 0
                    and length <= self._max_message_size
                    and length <= self._max_frame_size
                    and (length > 125 or start == position + 2)
                ):
                    if first == whole_text:
                        facts.append(view[start:stop].decode("utf-8"))
                    else:
                        facts.append(bytes(view[start:stop]))
                    self.size += length
                    room -= length + overhead
                    position = stop
                    continue
            if not self._read_header(data, position, end):
                return position
            start = position + self._header_size
            if not first & 0x08:
                self._begin_frame(first)
                # Counts from where the frame ends, or the data: else an empty one would wait.
                frames += FRAME_OVERHEAD
                position = start
                continue
            stop = start + self._length
            if stop > end:
                return position
            facts.append(self._control(first & 0x0F, bytes(data[start:stop])))
            self.controls += 1
            if first & 0x0F == CLOSE:
                return end  # Whatever follows it is not part of the conversation.
            room -= overhead
            position = stop
        self.has_more = position < end or self._is_inflating
        return position

    def _read_header(self, data: bytes | bytearray, position: int, end: int) -> bool:
        """Read a frame's header (RFC 6455 §5.2); whether it is whole."""
        first = data[position]
        second = data[position + 1]
        if first & 0x30 or (first & RSV1 and (self._inflater is None or not 0 < first & 0x0F < 8)):
            raise _Violation(CloseCode.PROTOCOL_ERROR, "Reserved bit set that nobody agreed on")
        if first & 0x0F not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise _Violation(CloseCode.PROTOCOL_ERROR, f"Invalid opcode {first & 0x0F:#x}")
        if second & MASKED:
            raise _Violation(CloseCode.PROTOCOL_ERROR, "A server's frames must not be masked")
        if first & 0x08:
            if not first & FIN:
                raise _Violation(CloseCode.PROTOCOL_ERROR, "A control frame must be no fragment")
            if second > 125:
                raise _Violation(CloseCode.PROTOCOL_ERROR, "A control frame with payload > 125")
        extended = 0 if second < 126 else 2 if second == 126 else 8
        if end - position < 2 + extended:
            return False
        self._header_size = 2 + extended
        if not extended:
            self._length = second
            return True
        length = int.from_bytes(data[position + 2 : position + 2 + extended], "big")
        if length >= 2**63:
            raise _Violation(CloseCode.PROTOCOL_ERROR, "Payload length with its MSB set")
        if length < (126 if extended == 2 else 2**16):
            raise _Violation(CloseCode.PROTOCOL_ERROR, "Payload length not in its shortest form")
        self._length = length
        return True

    def _control(self, opcode: int, payload: bytes) -> Fact:
        if opcode == PING:
            return PingReceived(payload)
        if opcode == PONG:
            return PongReceived(payload)
        if not payload:
            return CloseReceived(CloseCode.NO_STATUS_RCVD, None)
        if len(payload) == 1:
            raise _Violation(CloseCode.PROTOCOL_ERROR, "CLOSE with a payload of 1 byte")
        code = int.from_bytes(payload[:2], "big")
        if not is_sendable(code):
            raise _Violation(CloseCode.PROTOCOL_ERROR, f"CLOSE with the invalid code {code}")
        try:
            reason = payload[2:].decode("utf-8")
        except UnicodeDecodeError:
            raise _Violation(
                CloseCode.INVALID_FRAME_PAYLOAD_DATA, "CLOSE reason that is not UTF-8"
            ) from None
        return CloseReceived(code, reason or None)

    # A data frame that the fast path of _decode leaves to us.

    def _begin_frame(self, first: int) -> None:
        """Check the header that was read, before a byte of the payload is kept."""
        opcode = first & 0x0F
        if opcode == CONTINUATION:
            if self._opcode == 0:
                raise _Violation(CloseCode.PROTOCOL_ERROR, "CONTINUATION of no message")
        else:
            if self._opcode != 0:
                raise _Violation(CloseCode.PROTOCOL_ERROR, "Expected CONTINUATION of a message")
            self._opcode = opcode
            self._is_compressed = bool(first & RSV1)
        self._fragments += 1
        if self._fragments > self._max_fragments:
            raise _Violation(
                CloseCode.MESSAGE_TOO_BIG,
                f"Exceeded maximum number of fragments: {self._max_fragments}",
            )
        if self._length > self._max_frame_size:
            raise _Violation(
                CloseCode.MESSAGE_TOO_BIG,
                f"Exceeded maximum frame size: {self._max_frame_size} bytes",
            )
        if not self._is_compressed:
            self._check_size(self._length)
        self._in_frame = True
        self._is_last = bool(first & FIN)
        self._missing = self._length

    def _check_size(self, size: int) -> None:
        if size > self._max_message_size - self._received and not self._streams():
            raise _Violation(
                CloseCode.MESSAGE_TOO_BIG,
                f"Exceeded maximum message size: {self._max_message_size} bytes",
            )

    def _streams(self) -> bool:
        # A message that goes in parts can only go on so.
        return self.in_parts or self._is_in_parts

    def _continue_frame(
        self, data: bytes | bytearray, start: int, stop: int, facts: list[Fact]
    ) -> None:
        """Take what is here of the payload; end the frame, and perhaps the message."""
        self._missing -= stop - start
        is_whole = self._is_last and not self._missing
        if self._is_compressed:
            chunk = bytes(data[start:stop])
            # A frame that still inflates has had it.
            if is_whole and not self._is_inflating:
                chunk += _DEFLATE_TAIL
            self._inflate(chunk, facts, is_whole)
        elif is_whole and not self._received:
            # Wholly here: copied once, as in the fast path.
            whole = memoryview(data)[start:stop]
            self._give_whole(str(whole, "utf-8") if self._opcode == TEXT else bytes(whole), facts)
            self.size += stop - start
        else:
            self._take(memoryview(data)[start:stop], facts)
        if self._missing or self._is_inflating or not self._in_frame:
            return
        self._in_frame = False
        if self._is_last:
            self._end_message(facts)

    def _inflate(self, chunk: bytes, facts: list[Fact], is_whole: bool) -> None:
        inflater = self._inflater
        assert inflater is not None
        while True:
            size = PART_SIZE
            if not self._streams():
                # One byte more than there is room for shows that there is more.
                size = min(self._max_message_size - self._received, sys.maxsize - 1) + 1
            piece = inflater.inflate(chunk, size)
            self._check_size(len(piece))
            self._is_inflating = inflater.has_more
            if is_whole and not self._is_inflating and not self._received:
                self.size += len(piece)
                self._give_whole(piece.decode("utf-8") if self._opcode == TEXT else piece, facts)
                return
            self._take(memoryview(piece), facts)
            if not self._is_inflating or self.size >= BATCH_SIZE:
                return
            chunk = b""

    def _give_whole(self, message: str | bytes, facts: list[Fact]) -> None:
        facts.append(message)
        self._end_compression()
        self._reset()

    def _take(self, chunk: memoryview, facts: list[Fact]) -> None:
        """Take a part of the message, as it was before compression."""
        if not chunk:
            return
        # Fails at the first wrong byte, wherever frames and reads end (RFC 6455 §8.1).
        text = self._decode_text(chunk) if self._opcode == TEXT else ""
        if self._streams():
            self._is_in_parts = True
            if self._payload:
                self._give_collected(facts)
            self._give(text if self._opcode == TEXT else bytes(chunk), facts)
            self.size += len(chunk)
        else:
            self._collect(chunk)
        self._received += len(chunk)

    def _decode_text(self, chunk: bytes | memoryview, is_last: bool = False) -> str:
        if self._utf8 is None:
            self._utf8 = codecs.getincrementaldecoder("utf-8")()
        return self._utf8.decode(chunk, is_last)

    def _collect(self, chunk: memoryview) -> None:
        if self._target is not None:
            self._target[: len(chunk)] = chunk
            self._fill_target(len(chunk))
            return
        if not self._received and _scratch:
            self._payload = _scratch.pop()
        end = self._received + len(chunk)
        payload = cast("bytearray", self._payload)
        if end > len(payload):
            del payload[self._received :]
            payload += chunk
        else:
            payload[self._received : end] = chunk

    def _deserves_target(self) -> bool:
        """Whether what is missing belongs to one message, and is worth a read of its own."""
        return (
            self._in_frame
            and self._is_last
            and self._fragments == 1
            and self._opcode == BINARY
            and not self._is_compressed
            and self._missing >= MIN_TARGET_SIZE
            and self._length <= MAX_TARGET_SIZE
            and self._missing <= MAX_PROMISE * self._received
        )

    def _open_target(self) -> None:
        """Make the place for the whole message, and move there what was collected."""
        collected = self._payload
        if COMPILED:
            # The message itself, which nobody sees before it is filled.
            self._payload = new_bytes(self._length)  # type: ignore[name-defined]  # noqa: F821
            self._target = writable(self._payload)  # type: ignore[name-defined]  # noqa: F821
        else:
            self._payload = bytearray(self._length)
            self._target = memoryview(self._payload)
        with memoryview(collected)[: self._received] as begun:
            self._target[: self._received] = begun
        self._fill_target(self._received)
        _keep(collected)

    def _fill_target(self, size: int) -> None:
        """Go on behind the next ``size`` bytes; who holds what was given can write no more."""
        assert self._target is not None
        rest = self._target[size:]
        self._target.release()
        self._target = rest

    def _give_collected(self, facts: list[Fact]) -> None:
        """Give what was collected before parts were wanted; of text, up to its last character."""
        self._give(self._collected(), facts)
        self.size += self._received
        self._release()

    def _collected(self) -> str | bytes:
        """What was collected of the message; of text, up to its last whole character."""
        if COMPILED and isinstance(self._payload, bytes) and self._received == len(self._payload):
            return self._payload
        with memoryview(self._payload)[: self._received] as payload:
            if self._opcode == TEXT:
                return codecs.utf_8_decode(payload)[0]
            return bytes(payload)

    def _release(self) -> None:
        """Leave the buffer in which the message was collected to the next one."""
        if self._target is not None:
            self._target.release()
            self._target = None
        if self._payload:
            _keep(self._payload)
            self._payload = bytearray()

    def _give(self, data: str | bytes, facts: list[Fact]) -> None:
        if data:  # Of a character that is not whole yet there is nothing to give.
            facts.append(MessagePart(data, False))

    def _end_message(self, facts: list[Fact]) -> None:
        if self._opcode == TEXT:
            self._decode_text(b"", True)
        if self._is_in_parts:
            facts.append(MessagePart("" if self._opcode == TEXT else b"", True))
        else:
            facts.append(self._collected())
            self.size += self._received
        self._end_compression()
        self._reset()

    def _end_compression(self) -> None:
        if self._inflater is not None and self._is_compressed:
            self._inflater.end_message()

    def _reset(self) -> None:
        """Between messages."""
        self._opcode = 0
        self._fragments = 0
        self._received = 0
        self._is_in_parts = False
        self._in_frame = False
        self._release()


class Encoder:
    """Writes frames at the end of a buffer, masked (RFC 6455 §5.3).

    Args:
        buffer: Where to.
        deflater: Where compression was agreed on: what compresses.
    """

    def __init__(self, buffer: bytearray, deflater: Deflater | None = None) -> None:
        self._buffer = buffer
        self._deflater = deflater
        self.burst: int = 0
        """How many messages :meth:`join` may write."""
        self._keys = b""
        self._keys_used = 0
        self._forks = _forks

    def join(self, message: object) -> bool:
        """Write a whole message, if it is one, :attr:`burst` allows it, and the buffer is not full.

        Returns:
            Whether it was written.
        """
        if self.burst <= 0 or len(self._buffer) >= _BURST_SIZE:
            return False
        if not isinstance(message, (str, bytes)):
            return False
        if self._deflater is not None and len(message) >= self._deflater.threshold:
            return False  # It takes its time, and a burst is blind to that.
        self.message(message)
        self.burst -= 1
        return True

    def message(self, message: str | bytes) -> None:
        """Write a whole message as one frame: ``str`` as text, ``bytes`` as binary."""
        if isinstance(message, str):
            first = _TEXT_FRAME
            payload = message.encode()
        else:
            first = _BINARY_FRAME
            payload = bytes(message)
        if self._deflater is not None and len(payload) >= self._deflater.threshold:
            first |= RSV1
            payload = self._deflater.deflate(payload)
        self.frame(first, payload)

    def part(self, part: str | bytes, *, is_first: bool, is_last: bool) -> None:
        """Write a part of a message as one frame (RFC 6455 §5.4), uncompressed."""
        first = CONTINUATION if not is_first else TEXT if isinstance(part, str) else BINARY
        payload = part.encode() if isinstance(part, str) else bytes(part)
        self.frame(first | (FIN if is_last else 0), payload)

    def frame(self, first: int, payload: bytes) -> None:
        """Write one frame, of which ``first`` is the first byte."""
        buffer = self._buffer
        size = len(payload)
        key = self._next_key()
        if COMPILED and size < 126:
            start = len(buffer)
            resize(buffer, start + 6 + size)  # type: ignore[name-defined]  # noqa: F821  # See the .pxd.
            _write_short(buffer, start, first, payload, key)
            return
        if size < 126:
            buffer += bytes((first, MASKED | size))
        elif size < 2**16:
            buffer += bytes((first, MASKED | 126, size >> 8, size & 0xFF))
        else:
            buffer += bytes((first, MASKED | 127)) + size.to_bytes(8, "big")
        buffer += key
        if COMPILED:
            start = len(buffer)
            resize(buffer, start + size)  # type: ignore[name-defined]  # noqa: F821
            _mask(buffer, start, payload, key)
        else:
            buffer += _masked(payload, key)

    def _next_key(self) -> bytes:
        """A fresh key that nobody can predict (RFC 6455 §10.3)."""
        if self._keys_used >= len(self._keys) or self._forks != _forks:
            # Also in a child of this process, which would use its parent's keys again.
            self._forks = _forks
            self._keys = os.urandom(_KEYS_SIZE)
            self._keys_used = 0
        self._keys_used += 4
        return self._keys[self._keys_used - 4 : self._keys_used]


def _write_short(buffer: bytearray, start: int, first: int, payload: bytes, key: bytes) -> None:
    """Put a frame of at most 125 bytes into ``buffer[start:]``, in one go."""
    target = buffer
    source = payload
    mask = key
    size = len(payload)
    target[start] = first
    target[start + 1] = _MASKED | size
    for index in range(4):
        target[start + 2 + index] = mask[index]
    start += 6
    done = 0
    while done + 4 <= size:
        for index in range(4):
            target[start + done + index] = source[done + index] ^ mask[index]
        done += 4
    for index in range(size - done):
        target[start + done + index] = source[done + index] ^ mask[index]


def _mask(buffer: bytearray, start: int, payload: bytes, key: bytes) -> None:
    """Put the masked payload into ``buffer[start:]``, in loops that a C compiler makes wide."""
    target = buffer
    source = payload
    long_key = key * 16
    mask = long_key
    size = len(payload)
    done = 0
    while done + 64 <= size:
        for index in range(64):
            target[start + index] = source[done + index] ^ mask[index]
        start += 64
        done += 64
    for index in range(size - done):
        target[start + index] = source[done + index] ^ mask[index]


def _masked(payload: bytes, key: bytes) -> bytes:
    """The masked payload: as numbers, which is the fastest that plain Python knows."""
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, sys.byteorder) ^ int.from_bytes(mask, sys.byteorder)
    return number.to_bytes(size, sys.byteorder)


def encoded_size(message: str | bytes) -> int:
    """Bytes of a message on the wire, without its frame's header; text counts as UTF-8."""
    if isinstance(message, bytes) or message.isascii():
        return len(message)
    return len(message.encode())


def _keep(buffer: bytearray | bytes) -> None:
    """Keep a buffer for the next long message, if it is one and none is kept."""
    if not _scratch and isinstance(buffer, bytearray) and len(buffer) <= _MAX_SCRATCH_SIZE:
        _scratch.append(buffer)


def _as_int(limit: float) -> int:
    return int(min(limit, sys.maxsize))


COMPILED: Final = not isinstance(_masked, FunctionType)
"""Whether this file was compiled."""

_scratch: Final[list[bytearray]] = []
"""One buffer, at most, in which the last long message was collected, for the next one: fresh memory
costs more than all the copying, since the system clears it page by page."""

_MAX_SCRATCH_SIZE: Final = 4 * 2**20
"""Bytes of it that are kept."""

_forks = 0
"""How many forks lie between the first process and this one."""


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # Windows knows no fork.
    os.register_at_fork(after_in_child=_count_fork)
