"""What the protocols share: reading what a server sends, whatever it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from wsclient.errors import CodecError

# As long as a channel's numbers can become; `int` refuses thousands of digits, and takes those of
# other scripts.
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,18}")


def read_object(decode: Callable[[str | bytes], Any], message: str | bytes) -> dict[str, Any]:
    """The object that a message is; empty if it is none."""
    try:
        content = decode(message)
    except CodecError:
        return {}
    return content if isinstance(content, dict) else {}


def read_number(name: object, prefix: str) -> int | None:
    """The number in what :func:`name_number` made with this prefix; ``None`` if it did not."""
    if not isinstance(name, str) or not name.startswith(prefix):
        return None
    digits = name[len(prefix) :]
    return int(digits) if _NUMBER.fullmatch(digits) else None


def name_number(prefix: str, number: int) -> str:
    """What a number is called on the wire.

    A text, where the numbers of requests are numbers: no reply is taken for another's.
    """
    return f"{prefix}{number}"
