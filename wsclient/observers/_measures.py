"""Events → what to count, for whichever sink counts: names, labels and amounts, without a library.

A label costs memory for each value that it ever has, in the program and in whatever collects, and
some values are not ours to choose: an endpoint that a function gives, a close code that a server
picks.  So a label has only so many values (:class:`Label`); those that come later are ``other``.
No label has a sentence: what happened is a word, and a code or a status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final, TypeAlias

import attrs

from wsclient import events
from wsclient.events import ChannelState, Event, LossKind

MAX_VALUES: Final = 100
"""Values of one label: more than a program has channels and servers that a person looks at."""

OTHER: Final = "other"
"""The value of a label that has too many."""


class Kind(Enum):
    """What a measure does."""

    COUNTER = "counter"
    """It only grows."""
    GAUGE = "gauge"
    """It goes up and down."""
    HISTOGRAM = "histogram"
    """It keeps how its values are distributed."""


@attrs.frozen(kw_only=True)
class Measure:
    """Something that is counted."""

    name: str
    """In words with dots between them."""
    kind: Kind
    labels: tuple[str, ...]
    unit: str = ""
    """``"s"`` for seconds; empty for a number of things."""
    help: str
    """What it is, as a sentence."""
    buckets: tuple[float, ...] = ()
    """Of a histogram: the upper bounds."""


_PLACE: Final = ("channel", "endpoint")

_SHORT: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0)
"""Seconds: up to both deadlines of an attempt (10 and 15 s by default)."""

_LONG: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Seconds: from a server's restart to what somebody was called for."""

EVENTS: Final = Measure(
    name="events",
    kind=Kind.COUNTER,
    labels=("channel", "event"),
    help="Everything that observers are told, by the event's name.",
)
READY: Final = Measure(
    name="channels.ready",
    kind=Kind.GAUGE,
    labels=("channel",),
    help="Channels of this name over which messages flow.",
)
ATTEMPTS: Final = Measure(
    name="connection.attempts",
    kind=Kind.COUNTER,
    labels=_PLACE,
    help="Attempts at a connection.",
)
FAILURES: Final = Measure(
    name="connection.failures",
    kind=Kind.COUNTER,
    labels=(*_PLACE, "cause"),
    help="Attempts that ended without a connection.",
)
CONNECTIONS: Final = Measure(
    name="connections",
    kind=Kind.COUNTER,
    labels=_PLACE,
    help="Opening handshakes that succeeded.",
)
TIME_TO_READY: Final = Measure(
    name="connection.time_to_ready",
    kind=Kind.HISTOGRAM,
    labels=_PLACE,
    unit="s",
    help="From the beginning of an attempt until its on_connect hook was done.",
    buckets=_SHORT,
)
LOSSES: Final = Measure(
    name="connection.losses",
    kind=Kind.COUNTER,
    labels=(*_PLACE, "cause"),
    help="Connections that ended and were not meant to.",
)
LEFT: Final = Measure(
    name="connections.left",
    kind=Kind.COUNTER,
    labels=_PLACE,
    help="Good connections that were left for another one.",
)
OUTAGES: Final = Measure(
    name="outages",
    kind=Kind.COUNTER,
    labels=("channel",),
    help="Times in which a channel that had been ready was not: counted as they begin.",
)
OUTAGE_LENGTH: Final = Measure(
    name="outage.duration",
    kind=Kind.HISTOGRAM,
    labels=("channel",),
    unit="s",
    help="How long outages were, from the last proof of life on: counted as they end.",
    buckets=_LONG,
)
TIME_TO_RESTORE: Final = Measure(
    name="subscriptions.time_to_restore",
    kind=Kind.HISTOGRAM,
    labels=("channel",),
    unit="s",
    help="How long it took until a new connection had the subscriptions that are wanted.",
    buckets=_SHORT,
)
GAPS: Final = Measure(
    name="gaps",
    kind=Kind.COUNTER,
    labels=("channel",),
    help="Gaps announced: times in which messages may have been missed.",
)

MEASURES: Final = (
    READY,
    ATTEMPTS,
    FAILURES,
    CONNECTIONS,
    TIME_TO_READY,
    LOSSES,
    LEFT,
    OUTAGES,
    OUTAGE_LENGTH,
    TIME_TO_RESTORE,
    GAPS,
    EVENTS,
)
"""All of them, in the order in which a table shows them."""

Labels: TypeAlias = Mapping[str, str]


class Label:
    """One label's values: the first ``limit`` are kept apart, and all others are one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value to use."""
        if value not in self._values:
            if len(self._values) >= self._limit:
                return OTHER
            self._values.add(value)
        return value


class Counting:
    """Says what to count of each event.

    Args:
        max_values: Values that a label may have.
    """

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        if isinstance(max_values, bool) or not isinstance(max_values, int):
            raise TypeError(f"max_label_values must be int, not {type(max_values).__name__}")
        if max_values < 1:
            raise ValueError(f"max_label_values must be at least 1, not {max_values!r}")
        names = {name for measure in MEASURES for name in measure.labels}
        self._labels = {name: Label(max_values) for name in names}

    def __call__(self, event: Event) -> Iterator[tuple[Measure, Labels, float]]:
        """What to add to which measure, with which labels."""
        for measure, amount, more in _measured(event):
            values = {"channel": event.channel, **more}
            if isinstance(event, events.ConnectionEvent):
                values["endpoint"] = event.endpoint
            yield (
                measure,
                {name: self._labels[name](values[name]) for name in measure.labels},
                amount,
            )


def _measured(event: Event) -> Iterator[tuple[Measure, float, Labels]]:
    yield EVENTS, 1, {"event": type(event).__name__}
    match event:
        case events.StateChanged(previous=previous, state=state):
            is_ready, was_ready = state is ChannelState.READY, previous is ChannelState.READY
            # Nothing is added most of the time: then the series is there, and says 0.
            yield READY, is_ready - was_ready, {}
            if was_ready and state in (ChannelState.WAITING, ChannelState.CONNECTING):
                yield OUTAGES, 1, {}
        case events.ConnectionAttempted():
            yield ATTEMPTS, 1, {}
        case events.ConnectionFailed():
            yield FAILURES, 1, {"cause": cause_of(event)}
        case events.ConnectionOpened():
            yield CONNECTIONS, 1, {}
        case events.ConnectionReady():
            yield TIME_TO_READY, event.duration, {}
            if event.outage is not None:
                yield OUTAGE_LENGTH, event.outage, {}
        case events.ConnectionLost():
            yield LOSSES, 1, {"cause": cause_of(event)}
        case events.ConnectionLeft():
            yield LEFT, 1, {}
        case events.SubscriptionsRestored(duration=duration):
            yield TIME_TO_RESTORE, duration, {}
        case events.GapDetected():
            yield GAPS, 1, {}


def cause_of(event: events.ConnectionFailed | events.ConnectionLost) -> str:
    """In which way it ended, in a word or two: ``rejected_503``, ``closed_1006``, ``silent``."""
    number = event.status if isinstance(event, events.ConnectionFailed) else event.code
    # Of a dead path that we have cut, there is a code as well, which says nothing.
    says = event.kind in (LossKind.REJECTED, LossKind.CLOSED) and number is not None
    word = event.kind.name.lower()
    return f"{word}_{number}" if says else word
