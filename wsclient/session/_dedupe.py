"""The same message over two connections: whoever takes messages sees it once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

WINDOW: Final = 65_536
"""Keys that are remembered: two connections to one service are seconds apart, and not hours."""


class Dedupe:
    """Knows messages by their keys, whichever connection they came over.

    Args:
        key_of: A user's function: the key of a message; ``None`` for one that is never dropped.
        failed: Told what it has raised; such a message is not dropped.
    """

    def __init__(
        self,
        key_of: Callable[[str | bytes], Hashable],
        failed: Callable[[Exception], object],
    ) -> None:
        self._key_of = key_of
        self._failed = failed
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self.repeated = 0
        """Messages that had come before."""

    def is_repeated(self, message: str | bytes) -> bool:
        """Whether a message with its key has come before, among the last ones."""
        try:
            key = self._key_of(message)
            if key is None:
                return False
            if key in self._seen:
                self.repeated += 1
                return True
        except Exception as error:  # A user's function may raise anything, and a key hash nothing.
            self._failed(error)
            return False
        self._seen[key] = None
        if len(self._seen) > WINDOW:
            self._seen.popitem(last=False)
        return False
