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
from typing import Any, Final

import attrs

from wsclient.events import Gap

Order = Callable[[Any, Any], bool | None]
"""Whether nothing can be between two positions; ``None`` if they do not tell."""


_LEFT_OUT: Final = "the server left positions out"
_WENT_BACK: Final = "the stream has gone back"


@attrs.frozen
class Repeated:
    """A value has come before."""


@attrs.frozen
class WentBack:
    """A stream has gone back."""

    gap: Gap
    """What is told of it."""


class Continuity:
    """What one feed knows of its stream.

    *Going back.*  A position that is not greater than the last one may be a repetition: of what two
    connections bring, of what a backfill or a snapshot has brought already, or of what a server
    says to each new subscription.  Where none of that can be, the stream has gone back: a chain
    has taken back its last block, or a service that was restarted counts anew.  To drop what it
    says from then on would be to lose it.

    Args:
        is_next: Says of two positions whether nothing can be between.
        repeats: Whether values may come again at any time.
        last: The position of the last value that is known; ``None`` where there is none.
    """

    def __init__(self, is_next: Order, *, repeats: bool = False, last: Any = None) -> None:
        self._is_next = is_next
        self._repeats = repeats
        self.last = last
        """The position of the last value."""
        self.doubt: Gap | None = None
        """What may be missing behind it."""
        self.overlaps = False
        """Whether several connections bring the same: values may come again at any time."""
        # Before what they bring nothing overlaps, and these values do not come again.
        self._origin: Any = None
        self._goes_back = False
        # Values behind this position, and up to the last one, may come again: `None` for none.
        self._floor: Any = None
        self._expects_repeats = False

    def raise_doubt(self, gap: Gap, *, waited: bool = False) -> None:
        """The stream was interrupted, and goes on somewhere.

        Args:
            gap: What may be missing.
            waited: Whether that was while something before it was brought.
        """
        if self.doubt is not None:
            before = self.doubt
            gap = attrs.evolve(gap, after=before.after, since=before.since, reason=before.reason)
        elif not waited or self._floor is None:
            # Of an earlier doubt, some may have been brought, and come live as well.
            self._floor = self.last
        self.doubt = attrs.evolve(gap, after_position=self.last)

    def begin(self, *, overlaps: bool, resumes: bool) -> None:
        """The stream goes on, on a connection that overlaps with the one before or does not."""
        self.overlaps = overlaps
        if not (resumes or overlaps):
            self._origin = self.last

    def widen(self, *, resumes: bool) -> None:
        """Another connection brings the same, perhaps from an earlier position on."""
        self.overlaps = True
        if resumes:
            self._origin = None

    def settle(self) -> None:
        """What was missing is here: the doubt is none any more."""
        self.doubt = None

    def expect_repeats(self) -> None:
        """Until the next new value, old ones may come again."""
        self._expects_repeats = True
        self._floor = None

    def follow(self, position: Any, hole: Callable[[str], Gap]) -> Gap | WentBack | Repeated | None:
        """What is between the last value and one that is live.

        Args:
            position: Of the new one.
            hole: Makes a gap, for a reason, where nothing was interrupted.

        Returns:
            What may be missing before it; ``Repeated()`` if it came before, and ``None`` if nothing
            is the matter.

        Raises:
            Exception: The positions, or the user's function, cannot be compared.
        """
        self._goes_back = False
        if position is None or self.last is None:
            return self.doubt
        if position <= self.last:
            if (
                self._repeats
                or (self.overlaps and (self._origin is None or position > self._origin))
                or (self._expects_repeats and (self._floor is None or position > self._floor))
            ):
                return Repeated()
            self._goes_back = True
            gap = hole(_WENT_BACK)
            if self.doubt is not None:
                gap = attrs.evolve(self.doubt, reason=f"{self.doubt.reason}; {_WENT_BACK}")
            return WentBack(attrs.evolve(gap, after_position=self.last, before_position=position))
        is_next = self._is_next(self.last, position)
        if is_next or (is_next is None and self.doubt is None):
            return None
        return attrs.evolve(
            self.doubt or hole(_LEFT_OUT), after_position=self.last, before_position=position
        )

    def move(self, position: Any) -> None:
        """A value was received; whatever was to be told before it was told."""
        self.doubt = None
        self._floor = None
        self._expects_repeats = False
        if position is not None:
            if self._goes_back:
                # It counts anew.
                self._origin = None
            self.last = position

    def recover(self, position: Any) -> Gap | Repeated | None:
        """What is between the last value and one of the past that is brought.

        Raises:
            Exception: The positions, or the user's function, cannot be compared.
        """
        self._expects_repeats = True
        if position is None:
            return None
        gap: Gap | None = None
        if self.last is not None:
            if position <= self.last:
                return Repeated()
            if self.doubt is not None:
                if self._is_next(self.last, position) is False:
                    gap = attrs.evolve(
                        self.doubt, after_position=self.last, before_position=position
                    )
                # What is still missing is missing behind it.
                self.doubt = attrs.evolve(self.doubt, after_position=position, before_position=None)
        self.last = position
        return gap
