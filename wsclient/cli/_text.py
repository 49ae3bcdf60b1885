"""Text that is safe and plain to print.

What a peer sends must not move the cursor, ring the bell, end the line, or turn the reading
direction around: whoever reads a terminal or a log sees one line for one message, and nothing else
happens.
"""

from __future__ import annotations

import unicodedata
from typing import Final

# C0 and C1 controls, format characters (bidi overrides, invisible tags), lone surrogates, and the
# separators that some programs take for the end of a line.
_ESCAPED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# Format characters, too, but Persian, Hindi and many emoji cannot be written without them.
JOINERS: Final = "\u200c\u200d"
"""Not escaped, and no column wide."""

_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    r"""Replace control characters by ``\n``, ``\x1b``, ``\u202e`` and the like.

    Backslashes stay as they are, so that JSON passes unharmed; ``--json`` tells the two apart.
    """
    if text.isprintable():
        return text
    return "".join(
        _escaped(character)
        if unicodedata.category(character) in _ESCAPED and character not in JOINERS
        else character
        for character in text
    )


def escape_lines(text: str) -> str:
    """The same for a text of several lines, such as a traceback; they stay lines."""
    return "\n".join(map(escape, text.split("\n")))


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def message_text(message: str | bytes) -> str:
    """A message as one line; a binary one as its size and its bytes in hexadecimal."""
    if isinstance(message, str):
        return escape(message)
    return f"[binary, {count(len(message), 'byte')}] {message.hex()}".rstrip()


def seconds(duration: float) -> str:
    """A duration, as precise as people need it."""
    if duration < 10:
        return f"{duration:.2f} s"
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def milliseconds(duration: float) -> str:
    """A short duration, such as a round trip; a long one as :func:`seconds` has it."""
    return f"{duration * 1000:.1f} ms" if duration < 1 else seconds(duration)


def count(number: int, noun: str) -> str:
    """``1 byte``, ``2 bytes``, ``12,345 bytes``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
