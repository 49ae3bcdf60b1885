"""Whether the next value of a stream follows the last one, or something may be missing between.

Three things are known of a value: its position, if its stream has positions; the position of the
last one; and whether there is a *doubt*, since the subscription was lost between the two and the
server has not said that it goes on where it was.

A position decides a doubt where it can: what is next to the last one proves that nothing is
missing, and the doubt was none.  So a doubt is told when the next value comes, and not before.
Without positions there is no such proof, and it is told at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from wsclient.events import Gap

Order = Callable[[Any, Any], bool | None]
"""Whether nothing can be between two positions; ``None`` if they do not tell."""


@attrs.frozen
class Repeated:
    """A value has come before."""


class Continuity:
    """What one feed knows of its stream.

    Args:
        is_next: Says of two positions whether nothing can be between.
        repeats: Whether a new subscription begins with values that have come before.
        last: The position of the last value that is known; ``None`` where there is none.
    """

    def __init__(self, is_next: Order, *, repeats: bool = False, last: Any = None) -> None:
        self._is_next = is_next
        self._repeats = repeats
        self.last = last
        """The position of the last value."""
        self.doubt: Gap | None = None
        """What may be missing behind it."""
        # Where the stream was when the doubt arose; until the first value behind it.
        self._floor: Any = None

    def raise_doubt(self, gap: Gap) -> None:
        """The stream was interrupted, and goes on somewhere."""
        if self.doubt is not None:
            before = self.doubt
            gap = attrs.evolve(gap, after=before.after, since=before.since, reason=before.reason)
        self.doubt = attrs.evolve(gap, after_position=self.last)
        if not self._repeats:
            self._floor = self.last

    def settle(self) -> None:
        """What was missing is here: the doubt is none any more."""
        self.doubt = None

    def follow(self, position: Any, hole: Callable[[], Gap]) -> Gap | Repeated | None:
        """What is between the last value and one that is live.

        Args:
            position: Of the new one.
            hole: Makes a gap for what was left out while nothing was interrupted.

        Returns:
            What may be missing before it; ``Repeated()`` if it came before, and ``None`` if nothing
            is the matter.

        Raises:
            Exception: The positions, or the user's function, cannot be compared.
        """
        if position is None or self.last is None:
            return self.doubt
        if self._floor is not None and position < self._floor:
            # Of the interrupted subscription's values none comes again on the new one; the service
            # has lost its count.  To drop what it says from now on would be to lose it.
            gap = self.doubt or hole()
            return attrs.evolve(
                gap,
                reason=f"{gap.reason}; the stream began anew",
                after_position=self.last,
                before_position=position,
            )
        if position <= self.last:
            return Repeated()
        is_next = self._is_next(self.last, position)
        if is_next or (is_next is None and self.doubt is None):
            return None
        return attrs.evolve(
            self.doubt or hole(), after_position=self.last, before_position=position
        )

    def move(self, position: Any) -> None:
        """A value was received; whatever was to be told before it was told."""
        self.doubt = None
        self._floor = None
        if position is not None:
            self.last = position

    def recover(self, position: Any) -> bool:
        """A value of the past was brought; whether it is a new one.

        Raises:
            Exception: The positions cannot be compared.
        """
        if position is None:
            return True
        if self.last is not None and position <= self.last:
            return False
        self.last = position
        return True
