"""The demo's summary, as lines and as a JSON object."""

from __future__ import annotations

from typing import Any

import wsclient

from ._progress import Summary
from ._text import count, seconds


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """What there is to say, each with what it is about."""
    report = summary.report
    rows = [
        ("received", _received(summary)),
        ("sent", _sent(summary)),
        ("receipts", _receipts(summary)),
        ("outages", _outages(summary)),
        ("unaccounted", f"{report.unaccounted:,}"),
    ]
    rows += [("", finding.what) for finding in report.findings]
    return rows


def _received(summary: Summary) -> str:
    report = summary.report
    text = f"{report.received:,} of {count(report.fed, 'number')}"
    if report.missed:
        text += f"; {report.missed:,} missed, inside {count(report.gaps, 'announced gap')}"
    return text


def _sent(summary: Summary) -> str:
    report = summary.report
    text = f"{count(report.sent, 'message')}; the server heard {report.heard:,}"
    if report.lost:
        text += f", {report.lost:,} lost with their connection"
    return text


def _receipts(summary: Summary) -> str:
    outcomes = summary.report.outcomes
    counts = [
        f"{outcomes[outcome]:,} {outcome.value}"
        for outcome in wsclient.Outcome
        if outcomes.get(outcome)
    ]
    return ", ".join(counts) or "none"


def _outages(summary: Summary) -> str:
    text = f"{len(summary.outages)}"
    if summary.recovery is not None:
        shortest, median, longest = map(seconds, summary.recovery)
        text += f"; back after {shortest} (min), {median} (median), {longest} (max)"
    return text


def summary_object(summary: Summary) -> dict[str, Any]:
    """The same for machines."""
    report = summary.report
    recovery = None
    if summary.recovery is not None:
        rounded = [round(outage, 6) for outage in summary.recovery]
        recovery = dict(zip(("min", "median", "max"), rounded, strict=True))
    return {
        "event": "summary",
        "seconds": round(summary.duration, 6),
        "faults": summary.faults,
        "connections": summary.connections,
        "fed": report.fed,
        "received": report.received,
        "missed_in_gaps": report.missed,
        "gaps": report.gaps,
        "sent": report.sent,
        "heard": report.heard,
        "lost_with_connection": report.lost,
        "receipts": {
            outcome.value: report.outcomes.get(outcome, 0) for outcome in wsclient.Outcome
        },
        "outages": len(summary.outages),
        "recovery": recovery,
        "unaccounted": report.unaccounted,
        "findings": [finding.what for finding in report.findings],
    }
