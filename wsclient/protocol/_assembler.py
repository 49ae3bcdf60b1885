"""Pieces of messages become messages, within a limit."""

from __future__ import annotations

from typing import Generic, TypeVar

_Payload = TypeVar("_Payload", str, bytes)


def encoded_size(message: str | bytes) -> int:
    """Bytes of a message on the wire, without its frame's header; text counts as UTF-8."""
    if isinstance(message, bytes) or message.isascii():
        return len(message)
    return len(message.encode())


class MessageTooBig(Exception):
    """The pieces add up to more than the limit."""


class Assembler(Generic[_Payload]):
    """Collects the pieces of one message at a time.

    Args:
        empty: ``""`` for text, ``b""`` for binary messages.
        max_size: Bytes that one message may have.
    """

    def __init__(self, empty: _Payload, max_size: float) -> None:
        self._empty: _Payload = empty
        self._max_size = max_size
        self._pieces: list[_Payload] = []
        self._size = 0

    def add(self, piece: _Payload, *, finished: bool) -> _Payload | None:
        """Take the next piece; return the message if it was the last one.

        Raises:
            MessageTooBig: Before the piece is kept.
        """
        self._size += encoded_size(piece)
        if self._size > self._max_size:
            raise MessageTooBig
        if finished and not self._pieces:
            self._size = 0
            return piece
        if piece:  # Empty fragments without an end would fill the memory all the same.
            self._pieces.append(piece)
        if not finished:
            return None
        message: _Payload = self._empty.join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return message
