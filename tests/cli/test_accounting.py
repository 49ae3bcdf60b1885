"""What is accounted for, and what is not: every promise that could be broken has its row."""

from __future__ import annotations

import pytest

from wsclient import Outcome
from wsclient.cli._accounting import Feed, account

WRITTEN, CANCELLED, LOST = Outcome.WRITTEN, Outcome.CANCELLED, Outcome.LOST_UNKNOWN
GAP = None


def make_feed(*items):
    feed = Feed()
    for item in items:
        if item is GAP:
            feed.gap()
        else:
            feed.receive(item)
    return feed


def settle(items=(), fed=None, outcomes=(), heard=()):
    numbers = [item for item in items if item is not GAP]
    fed = max(numbers, default=0) if fed is None else fed
    return account(make_feed(*items), fed=fed, outcomes=outcomes, heard=heard)


def what(report):
    return [finding.what for finding in report.findings]


# The feed.


@pytest.mark.parametrize(
    ("items", "received", "missed", "gaps"),
    [
        ([], 0, 0, 0),
        ([1, 2, 3], 3, 0, 0),
        ([1, GAP, 2], 2, 0, 1),
        ([1, 2, GAP, 5, 6], 4, 2, 1),
        ([1, GAP, GAP, 5], 2, 3, 2),
        ([GAP, 3], 1, 2, 1),
        ([1, GAP, 3, GAP, 5], 3, 2, 2),
        ([1, GAP], 1, 0, 1),
    ],
)
def test_what_is_missing_inside_announced_gaps_is_accounted_for(items, received, missed, gaps):
    report = settle(items)

    assert [] == what(report)
    assert (received, missed, gaps) == (report.received, report.missed, report.gaps)


@pytest.mark.parametrize(
    ("items", "fed", "unaccounted", "finding"),
    [
        ([1, 3], 3, 1, "number 2 is missing outside of any gap"),
        ([1, 5], 5, 3, "3 numbers (2 to 4) are missing outside of any gap"),
        ([2], 2, 1, "number 1 is missing outside of any gap"),
        ([1, GAP, 2, 4], 4, 1, "number 3 is missing outside of any gap"),
        ([1, GAP, 3, 2], 3, 1, "number 2 came again, or late"),
        ([1, 1], 1, 1, "number 1 came again, or late"),
        ([1, GAP, 1], 1, 1, "number 1 came again, or late"),
        ([1, 2], 4, 2, "2 numbers (3 to 4) are missing outside of any gap"),
        ([1, GAP], 2, 1, "number 2 is missing outside of any gap"),
        ([1, 2, 3], 2, 1, "numbers came that were never sent"),
    ],
)
def test_every_other_number_is_unaccounted_for(items, fed, unaccounted, finding):
    report = settle(items, fed=fed)

    assert [finding] == what(report)
    assert unaccounted == report.unaccounted


def test_each_number_fed_is_received_or_missed_or_found():
    report = settle([1, 2, GAP, 6, 8, GAP, 10], fed=12)

    assert report.fed == report.received + report.missed + report.unaccounted


# Messages.


@pytest.mark.parametrize(
    ("outcomes", "heard", "heard_count", "lost"),
    [
        ([], [], 0, 0),
        ([WRITTEN, WRITTEN], [[1, 2]], 2, 0),
        ([WRITTEN, WRITTEN], [[1], [], [2]], 2, 0),
        # Written, and lost with the connection.
        ([WRITTEN] * 4, [[1, 2], [4]], 3, 1),
        ([WRITTEN] * 4, [[], [3, 4]], 2, 2),
        ([WRITTEN] * 5, [[1], [3], [5]], 3, 2),
        # Cut short, and either heard or not.
        ([WRITTEN, LOST, WRITTEN], [[1], [3]], 2, 1),
        ([WRITTEN, LOST, WRITTEN], [[1, 2], [3]], 3, 0),
        ([WRITTEN, LOST], [[1]], 1, 1),
        # Never written, and not heard.
        ([WRITTEN, CANCELLED, WRITTEN], [[1, 3]], 2, 0),
        ([CANCELLED], [], 0, 0),
    ],
)
def test_every_message_whose_fate_is_as_told_is_accounted_for(outcomes, heard, heard_count, lost):
    report = settle(outcomes=outcomes, heard=heard)

    assert [] == what(report)
    assert (len(outcomes), heard_count, lost) == (report.sent, report.heard, report.lost)
    assert report.sent == report.heard + report.lost + outcomes.count(CANCELLED)


@pytest.mark.parametrize(
    ("outcomes", "heard", "findings"),
    [
        ([None], [], ["message 1 has no outcome"]),
        ([None], [[1]], ["message 1 has no outcome"]),
        ([WRITTEN], [[1, 1]], ["message 1 was heard twice"]),
        ([WRITTEN], [[1], [1]], ["message 1 was heard twice"]),
        ([LOST, WRITTEN], [[1], [1, 2]], ["message 1 was heard twice"]),
        ([WRITTEN, WRITTEN], [[2, 1]], ["message 1 was heard after 2"]),
        ([WRITTEN, WRITTEN], [[2], [1]], ["message 1 was heard after 2"]),
        ([WRITTEN], [[1, 2]], ["message 2 was heard and never sent"]),
        ([CANCELLED], [[1]], ["message 1 was cancelled and heard"]),
        # A hole inside of one connection.
        ([WRITTEN] * 3, [[1, 3]], ["message 2 was written and not heard"]),
        ([WRITTEN] * 2, [[2]], ["message 1 was written and not heard"]),
        # Nothing explains that the last one was not heard.
        ([WRITTEN] * 2, [[1]], ["message 2 was written and not heard"]),
        ([WRITTEN], [], ["message 1 was written and not heard"]),
    ],
)
def test_every_other_message_is_unaccounted_for(outcomes, heard, findings):
    report = settle(outcomes=outcomes, heard=heard)

    assert findings == what(report)
    assert len(findings) == report.unaccounted


def test_receipts_are_counted_by_their_outcome():
    report = settle(outcomes=[WRITTEN, CANCELLED, LOST, WRITTEN, None], heard=[[1], [4]])

    assert {WRITTEN: 2, CANCELLED: 1, LOST: 1} == report.outcomes
    assert 1 == report.unaccounted
