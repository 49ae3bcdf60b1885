"""What is counted of each event: words and numbers, and only so many of them."""

from __future__ import annotations

import inspect
from collections import Counter

import pytest

from wsclient import events
from wsclient.events import ChannelState, Event, Gap, LossKind
from wsclient.observers._measures import (
    ATTEMPTS,
    CONNECTIONS,
    EVENTS,
    FAILURES,
    GAPS,
    LEFT,
    LOSSES,
    MEASURES,
    OTHER,
    OUTAGE_LENGTH,
    OUTAGES,
    READY,
    TIME_TO_READY,
    TIME_TO_RESTORE,
    Counting,
    Kind,
    cause_of,
)

PLACE = {"channel": "feed", "endpoint": "ws://server.test", "attempt": 2}
AT = {"channel": "feed", "endpoint": "ws://server.test"}
HERE = {"channel": "feed"}
GAP = Gap(after=1, before=2, since=1.0, until=3.25, reason="1006")


def changed(previous, state):
    return events.StateChanged(channel="feed", previous=previous, state=state, cause="c")


def failed(kind=LossKind.UNREACHABLE, status=None):
    return events.ConnectionFailed(**PLACE, cause="c", duration=1, kind=kind, status=status)


def lost(kind=LossKind.CLOSED, code=None):
    return events.ConnectionLost(
        **PLACE, epoch=1, cause="c", code=code, duration=1, ready=True, kind=kind
    )


def ready(outage=None):
    return events.ConnectionReady(**PLACE, epoch=1, outage=outage, duration=0.5)


def counted(*happened, **options):
    """What is counted of events, but for the count of all events."""
    counting = Counting(**options)
    return [
        (measure, labels, amount)
        for event in happened
        for measure, labels, amount in counting(event)
        if measure is not EVENTS
    ]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (events.ConnectionAttempted(**PLACE), [(ATTEMPTS, AT, 1)]),
        (failed(), [(FAILURES, {**AT, "cause": "unreachable"}, 1)]),
        (
            events.ConnectionOpened(**PLACE, epoch=1, duration=0.5, subprotocol=None),
            [(CONNECTIONS, AT, 1)],
        ),
        (ready(), [(TIME_TO_READY, AT, 0.5)]),
        (ready(60.0), [(TIME_TO_READY, AT, 0.5), (OUTAGE_LENGTH, HERE, 60.0)]),
        (lost(), [(LOSSES, {**AT, "cause": "closed"}, 1)]),
        (events.ConnectionLeft(**PLACE, epoch=1, reason="r", duration=1.0), [(LEFT, AT, 1)]),
        (events.GapDetected(channel="feed", gap=GAP), [(GAPS, HERE, 1)]),
        (
            events.SubscriptionsRestored(
                channel="feed", epoch=1, subscriptions=3, resumed=1, delayed=0, duration=1.5
            ),
            [(TIME_TO_RESTORE, HERE, 1.5)],
        ),
        (changed(ChannelState.WAITING, ChannelState.CONNECTING), [(READY, HERE, 0)]),
        (changed(ChannelState.ESTABLISHING, ChannelState.READY), [(READY, HERE, 1)]),
        (
            changed(ChannelState.READY, ChannelState.WAITING),
            [(READY, HERE, -1), (OUTAGES, HERE, 1)],
        ),
        (
            changed(ChannelState.READY, ChannelState.CONNECTING),
            [(READY, HERE, -1), (OUTAGES, HERE, 1)],
        ),
        # Whoever leaves has no outage.
        (changed(ChannelState.READY, ChannelState.DRAINING), [(READY, HERE, -1)]),
        (changed(ChannelState.READY, ChannelState.CLOSED), [(READY, HERE, -1)]),
        (events.SuspendDetected(channel="feed", duration=1.0), []),
    ],
)
def test_of_each_event_this_is_counted(event, expected):
    assert expected == counted(event)


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (failed(LossKind.REJECTED, 503), "rejected_503"),
        (failed(LossKind.REJECTED), "rejected"),
        (failed(LossKind.TLS_UNVERIFIED), "tls_unverified"),
        (failed(LossKind.NOT_PROVIDED), "not_provided"),
        (lost(code=1006), "closed_1006"),
        (lost(code=4001), "closed_4001"),
        (lost(LossKind.SILENT, code=1006), "silent"),
        (lost(LossKind.NOT_ESTABLISHED), "not_established"),
    ],
)
def test_a_cause_is_a_word_and_a_number_and_no_sentence(event, cause):
    assert cause == cause_of(event)


def test_every_event_is_counted_by_its_name():
    kinds = [
        kind
        for _, kind in inspect.getmembers(events, inspect.isclass)
        if issubclass(kind, Event) and kind not in (Event, events.ConnectionEvent)
    ]
    counting = Counting()
    happened = [events.OutboxRecovered(channel="feed"), events.ConnectionAttempted(**PLACE)]
    found = [
        (labels, amount)
        for event in happened
        for measure, labels, amount in counting(event)
        if measure is EVENTS
    ]

    assert [
        ({"channel": "feed", "event": "OutboxRecovered"}, 1),
        ({"channel": "feed", "event": "ConnectionAttempted"}, 1),
    ] == found
    # A label for each: they fit.
    assert len(kinds) < 100


def test_a_label_has_only_so_many_values():
    found = counted(*(lost(code=code) for code in range(4000, 5000)), max_values=10)
    causes = Counter(labels["cause"] for _, labels, _ in found)

    assert 11 == len(causes)
    assert 990 == causes[OTHER]
    assert 1 == causes["closed_4009"]


def test_the_values_of_one_label_take_no_room_from_another_one():
    happened = [
        events.ConnectionAttempted(channel=f"c{n}", endpoint="ws://x", attempt=1) for n in range(5)
    ]
    found = counted(*happened, max_values=2)

    assert ["c0", "c1", OTHER, OTHER, OTHER] == [labels["channel"] for _, labels, _ in found]
    assert {"ws://x"} == {labels["endpoint"] for _, labels, _ in found}
    # What was known stays known.
    assert "c1" == counted(*happened, happened[1], max_values=2)[-1][1]["channel"]


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (True, TypeError), ("9", TypeError)])
def test_a_limit_that_is_none_is_refused(limit, error):
    with pytest.raises(error, match="max_label_values must be"):
        Counting(limit)


def test_every_measure_is_of_one_name_and_says_what_it_is():
    assert len(MEASURES) == len({measure.name for measure in MEASURES})
    assert all(measure.help.endswith(".") for measure in MEASURES)
    assert all((measure.kind is Kind.HISTOGRAM) == bool(measure.buckets) for measure in MEASURES)
    assert all(
        set(measure.labels) <= {"channel", "endpoint", "cause", "event"} for measure in MEASURES
    )
