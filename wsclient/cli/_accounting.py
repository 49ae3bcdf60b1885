"""Is everything accounted for?  Pure computation over what both ends saw.

Two streams of numbers from 1 run against each other, the *feed* from the server to the channel, and
*messages* from the channel to the server.  What the channel promises, and what would break it:

- the feed arrives in order, each number at most once; a number that is missing lies inside a gap
  that was announced, in its place.  So what is unaccounted for is a number that is missing between
  two others with no gap between them, and one that comes again or late, or was never sent;
- each message has exactly one outcome, and none is written twice.  So what is unaccounted for is a
  message without an outcome, one that the server heard twice, out of order, or though its outcome
  says that it was certainly never written, and one that was never sent.

The hard case is a message that was written and that the server did not hear.  That is no broken
promise if its connection died: *written* says that the transport took it, not that anybody read
it.  But a connection delivers in order and without holes.  So where the server heard an earlier
*and* a later message on one connection, it must have heard everything between them; and at the end
of the story, when the last connection is in good health, there must be a later one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import attrs

import wsclient

from ._text import count


@attrs.frozen
class Finding:
    """Something that breaks a promise."""

    count: int
    """How many numbers it concerns."""
    what: str
    """Which, and how, as a sentence."""


@attrs.frozen(kw_only=True)
class Report:
    """The accounts, once everything is over."""

    fed: int
    """Numbers that the feed sent, also while nobody was connected."""
    received: int
    """Numbers that the channel received, each counted once."""
    missed: int
    """Numbers that are missing, inside announced gaps."""
    gaps: int
    """Gaps announced."""
    sent: int
    """Messages that the channel accepted."""
    heard: int
    """Messages that the server heard, each counted once."""
    lost: int
    """Messages that were written, whole or in part, and lost together with their connection."""
    outcomes: Mapping[wsclient.Outcome, int]
    """How many receipts ended how."""
    findings: tuple[Finding, ...]
    """What breaks a promise."""

    @property
    def unaccounted(self) -> int:
        """How many numbers and messages are unaccounted for: must be 0."""
        return sum(finding.count for finding in self.findings)


class Feed:
    """What the channel received of the feed, number by number."""

    def __init__(self) -> None:
        self.last = 0
        """The highest number received."""
        self.received = 0
        self.missed = 0
        self.gaps = 0
        self.findings: list[Finding] = []
        self._in_gap = False

    def gap(self) -> None:
        """A gap was announced, here."""
        self.gaps += 1
        self._in_gap = True

    def receive(self, number: int) -> None:
        """A number came."""
        if number <= self.last:
            self.findings.append(Finding(1, f"number {number} came again, or late"))
            return
        self._miss(number - 1)
        self.received += 1
        self.last = number
        self._in_gap = False

    def end(self, fed: int) -> None:
        """Nothing more will come; the feed sent numbers up to ``fed``."""
        if self.last > fed:
            self.findings.append(Finding(self.last - fed, "numbers came that were never sent"))
        # Behind a gap stands a connection; what it did not deliver lies outside the gap.
        self._in_gap = False
        self._miss(fed)

    def _miss(self, until: int) -> None:
        """Numbers after the last one up to ``until`` are missing, perhaps none."""
        missing = until - self.last
        if missing <= 0:
            return
        if self._in_gap:
            self.missed += missing
        else:
            which = _range(self.last + 1, until)
            self.findings.append(Finding(missing, f"{which} missing outside of any gap"))


def account(
    feed: Feed,
    *,
    fed: int,
    outcomes: Sequence[wsclient.Outcome | None],
    heard: Sequence[Sequence[int]],
) -> Report:
    """Settle the accounts.

    Args:
        feed: What the channel received.
        fed: The last number that the feed sent.
        outcomes: What became of message 1, 2, …; ``None`` for a receipt without an outcome.
        heard: The messages that the server heard, in order, connection by connection; on the last
            of these that heard any, nothing may be missing at the end.
    """
    feed.end(fed)
    findings = list(feed.findings)
    places: dict[int, int] = {}
    previous = 0
    for connection, numbers in enumerate(heard):
        for number in numbers:
            if number in places:
                findings.append(Finding(1, f"message {number} was heard twice"))
                continue
            places[number] = connection
            if not 1 <= number <= len(outcomes):
                findings.append(Finding(1, f"message {number} was heard and never sent"))
            elif number < previous:
                findings.append(Finding(1, f"message {number} was heard after {previous}"))
            previous = max(previous, number)
    lost = 0
    for number, outcome in enumerate(outcomes, 1):
        match outcome:
            case None:
                findings.append(Finding(1, f"message {number} has no outcome"))
            case wsclient.Outcome.CANCELLED if number in places:
                findings.append(Finding(1, f"message {number} was cancelled and heard"))
            case wsclient.Outcome.LOST_UNKNOWN if number not in places:
                lost += 1
            case wsclient.Outcome.RECEIVED | wsclient.Outcome.ACKED if number not in places:
                findings.append(Finding(1, f"message {number} was certified and not heard"))
            case wsclient.Outcome.WRITTEN if number not in places:
                if _is_hole(number, places):
                    findings.append(Finding(1, f"message {number} was written and not heard"))
                else:
                    lost += 1
    return Report(
        fed=fed,
        received=feed.received,
        missed=feed.missed,
        gaps=feed.gaps,
        sent=len(outcomes),
        heard=sum(1 <= number <= len(outcomes) for number in places),
        lost=lost,
        outcomes=Counter(outcome for outcome in outcomes if outcome is not None),
        findings=tuple(findings),
    )


def _is_hole(number: int, places: Mapping[int, int]) -> bool:
    """Whether no connection's end explains why the server did not hear ``number``."""
    earlier = max((other for other in places if other < number), default=None)
    later = min((other for other in places if other > number), default=None)
    if later is None:
        return True
    return places[later] == (0 if earlier is None else places[earlier])


def _range(first: int, last: int) -> str:
    if first == last:
        return f"number {first} is"
    return f"{count(last - first + 1, 'number')} ({first} to {last}) are"
