"""The summary says all that counts, to people and to machines."""

from __future__ import annotations

import json

import attrs
import pytest

from wsclient import Outcome
from wsclient.cli._accounting import Finding, Report
from wsclient.cli._progress import Summary
from wsclient.cli._summary import summary_object, summary_rows


@pytest.fixture
def summary():
    return Summary(
        duration=14.2,
        faults=7,
        connections=8,
        outages=(0.25, 0.5, 2.0),
        report=Report(
            fed=1700,
            received=1500,
            missed=200,
            gaps=3,
            sent=140,
            heard=138,
            lost=2,
            outcomes={Outcome.RECEIVED: 138, Outcome.LOST_UNKNOWN: 2},
            findings=(),
        ),
    )


def test_people_read_it_in_five_lines(summary):
    assert [
        ("received", "1,500 of 1,700 numbers; 200 missed, inside 3 announced gaps"),
        ("sent", "140 messages; the server heard 138, 2 lost with their connection"),
        ("receipts", "138 received, 2 lost: unknown"),
        ("outages", "3; back after 0.25 s (min), 0.50 s (median), 2.00 s (max)"),
        ("unaccounted", "0"),
    ] == summary_rows(summary)


def test_each_finding_has_a_line(summary):
    findings = (Finding(3, "three are missing"), Finding(1, "one came twice"))
    report = attrs.evolve(summary.report, findings=findings)

    assert [
        ("unaccounted", "4"),
        ("", "three are missing"),
        ("", "one came twice"),
    ] == summary_rows(attrs.evolve(summary, report=report))[-3:]


def test_an_hour_of_peace_is_said_shortly(summary):
    report = attrs.evolve(summary.report, missed=0, gaps=0, lost=0, received=1700, heard=140)
    rows = dict(summary_rows(attrs.evolve(summary, outages=(), report=report)))

    assert "1,700 of 1,700 numbers" == rows["received"]
    assert "140 messages; the server heard 140" == rows["sent"]
    assert "0" == rows["outages"]


def test_machines_read_every_number(summary):
    values = summary_object(summary)

    assert values == json.loads(json.dumps(values))
    assert {
        "event": "summary",
        "seconds": 14.2,
        "faults": 7,
        "connections": 8,
        "fed": 1700,
        "received": 1500,
        "missed_in_gaps": 200,
        "gaps": 3,
        "sent": 140,
        "heard": 138,
        "lost_with_connection": 2,
        "receipts": {
            outcome.value: {Outcome.RECEIVED: 138, Outcome.LOST_UNKNOWN: 2}.get(outcome, 0)
            for outcome in Outcome
        },
        "outages": 3,
        "recovery": {"min": 0.25, "median": 0.5, "max": 2.0},
        "unaccounted": 0,
        "findings": [],
    } == values
