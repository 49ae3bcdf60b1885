"""What goes over the wire, frame by frame, for a person to read: kinds and sizes, never contents.

The codec makes no object for a frame, so this reads the headers once more, from the same bytes, and
only where someone wants to see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import attrs

from wsclient.codes import CloseReason

from ._codec import CLOSE, FIN, MASKED, RSV1

_KINDS: Final = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}


@attrs.frozen(kw_only=True)
class TracedFrame:
    """One frame, as its header tells it; ``print`` it."""

    sent: bool
    """Whether we sent it; else it was received."""
    kind: str
    """``text``, ``binary``, ``continuation``, ``close``, ``ping``, ``pong`` or ``opcode 0x…``."""
    size: int
    """Bytes of its payload, as they went over the wire."""
    is_final: bool
    """Whether it ends its message."""
    is_compressed: bool
    """Whether a compressed message begins with it."""
    code: int | None
    """Of a close frame: its code, if it has one; never the reason, which may say anything."""

    def __str__(self) -> str:
        words = [self.kind, f"{self.size} bytes"]
        if self.code is not None:
            words.append(f"{self.code} {CloseReason(self.code).name}")
        if self.is_compressed:
            words.append("compressed")
        if not self.is_final:
            words.append("to be continued")
        return f"{'→' if self.sent else '←'} {', '.join(words)}"


Trace: TypeAlias = Callable[[TracedFrame], object]
"""Told of each frame once its header, and of a close frame the code, has passed."""


class FrameTracer:
    """Finds the frames in what goes one way.

    Args:
        sent: Whether that is from us.
    """

    def __init__(self, *, sent: bool) -> None:
        self._sent = sent
        self._header = bytearray()
        self._skip = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[TracedFrame]:
        """Take bytes; yield the frames whose headers end in them."""
        position = 0
        while position < len(data):
            if self._skip:
                skipped = min(self._skip, len(data) - position)
                self._skip -= skipped
                position += skipped
                continue
            self._header.append(data[position])
            position += 1
            frame = self._read()
            if frame is not None:
                yield frame
                self._header.clear()

    def _read(self) -> TracedFrame | None:
        """The frame that the header describes, if it is whole; what follows of it is skipped."""
        header = self._header
        if len(header) < 2:
            return None
        opcode = header[0] & 0x0F
        length = header[1] & 0x7F
        extended = 0 if length < 126 else 2 if length == 126 else 8
        start = 2 + extended + (4 if header[1] & MASKED else 0)
        if len(header) < start:
            return None
        if extended:
            length = int.from_bytes(header[2 : 2 + extended], "big")
        has_code = opcode == CLOSE and length >= 2
        if has_code and len(header) < start + 2:
            return None
        code = None
        if has_code:
            mask = header[start - 4 : start - 2] if header[1] & MASKED else bytes(2)
            code = (header[start] ^ mask[0]) << 8 | header[start + 1] ^ mask[1]
        self._skip = length - 2 * has_code
        return TracedFrame(
            sent=self._sent,
            kind=_KINDS.get(opcode, f"opcode {opcode:#x}"),
            size=length,
            is_final=bool(header[0] & FIN),
            is_compressed=bool(header[0] & RSV1),
            code=code,
        )
