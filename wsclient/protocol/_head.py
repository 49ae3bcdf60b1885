"""The head of an HTTP answer: found, bounded and looked at before anything else reads it.

Both answers of an opening have one, the server's and that of an HTTP proxy, and a hostile one may
come byte by byte, never end, or be no HTTP at all.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from wsclient.errors import InvalidUpgrade
from wsclient.options import MAX_HEAD_SIZE, MAX_HEADERS

MAX_INTERIM_ANSWERS: Final = 16
"""Answers such as 103 before the final one."""

_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/(\d)\.(\d) (\d{3})(?: .*)?")


@attrs.frozen
class Head:
    """The head of one answer."""

    status: int
    version: bytes
    """``b"1.1"``, say."""
    data: bytes
    """All of it, with the empty line."""


class HeadReader:
    """Cuts heads off what one stream brings.

    Args:
        sender: How whoever answers is called in errors.
        max_size: Bytes of one head.
        max_headers: Headers of one head.
    """

    def __init__(
        self, sender: str, *, max_size: int = MAX_HEAD_SIZE, max_headers: int = MAX_HEADERS
    ) -> None:
        self._sender = sender
        self._max_size = max_size
        self._max_headers = max_headers
        self._data = bytearray()
        self._searched = 0
        self._interim_answers = 0

    @property
    def is_inside(self) -> bool:
        """Whether a head has begun and not ended."""
        return bool(self._data)

    def receive_data(self, data: bytes) -> None:
        """Take what one read brought."""
        self._data += data

    def take_head(self) -> Head | None:
        """The next head, if it is whole.

        Raises:
            InvalidUpgrade: It is no head of HTTP/1, or too large.
        """
        end = self._find_end()
        if end is None:
            return None
        data = bytes(self._data[:end])
        del self._data[:end]
        self._searched = 0
        return self._parsed(data)

    def count_interim(self) -> None:
        """Count an interim answer (RFC 9110 §15.2).

        Raises:
            InvalidUpgrade: There were too many.
        """
        self._interim_answers += 1
        if self._interim_answers > MAX_INTERIM_ANSWERS:
            raise InvalidUpgrade(f"{self._sender} sent too many interim answers (HTTP 1xx)")

    def take_rest(self) -> bytes:
        """What came behind the last head."""
        rest = bytes(self._data)
        self._data.clear()
        return rest

    def _find_end(self) -> int | None:
        # From where the last search ended, less the three bytes that could begin a line end.
        found = _HEAD_END.search(self._data, max(0, self._searched - 3))
        self._searched = len(self._data)
        end = found.end() if found else None
        if (end or len(self._data)) > self._max_size:
            raise InvalidUpgrade(
                f"the head of {self._sender}'s answer exceeds {_size(self._max_size)}"
            )
        if not b"HTTP/1".startswith(self._data[:6]):
            raise InvalidUpgrade(f"{self._sender}'s answer is not HTTP/1.1")
        return end

    def _parsed(self, data: bytes) -> Head:
        lines = head_lines(data)
        line = _STATUS_LINE.fullmatch(lines[0])
        if line is None:
            raise InvalidUpgrade(f"{self._sender}'s answer has no valid status line")
        if len(lines) - 1 > self._max_headers:
            raise InvalidUpgrade(
                f"{self._sender}'s answer has more than {self._max_headers} headers"
            )
        status = int(line[3])
        if status < 100:
            raise InvalidUpgrade(f"{self._sender} answered with the invalid status {line[3]!r}")
        return Head(status, line[1] + b"." + line[2], data)


def head_lines(head: bytes) -> list[bytes]:
    """The lines of a head, without their ends and without the empty last one."""
    return head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")


def _size(size: int) -> str:
    return f"{size} bytes" if size % 1024 else f"{size // 1024} KiB"
