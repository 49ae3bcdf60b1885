"""Who runs a bot: its own program, or whoever imports that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

_left: Final[ContextVar[list[Any] | None]] = ContextVar("_left", default=None)


@contextmanager
def leave_running() -> Iterator[list[Any]]:
    """Let ``Bot.run`` do nothing inside of the block: a program is imported for its bot.

    A bot that served as it is imported would have been served once already.

    Yields:
        The bots that would have run.
    """
    left: list[Any] = []
    token = _left.set(left)
    try:
        yield left
    finally:
        _left.reset(token)


def is_left(bot: object) -> bool:
    """Whether to run a bot is left to whoever imports it."""
    left = _left.get()
    if left is None:
        return False
    left.append(bot)
    return True
