"""Events are short sentences."""

from __future__ import annotations

import pytest

import wsclient
from wsclient.cli._sentences import sentence_for

PLACE = {"channel": "feed", "endpoint": "wss://feed.example", "attempt": 1}
GAP = wsclient.Gap(after=1, before=2, since=100.0, until=102.5, reason="1012 SERVICE_RESTART")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (wsclient.ConnectionAttempted(**PLACE), "connecting to wss://feed.example"),
        (wsclient.ConnectionAttempted(**{**PLACE, "attempt": 2}), None),
        (
            wsclient.ConnectionFailed(**PLACE, cause="HTTP 503", duration=0.1),
            "attempt 1 failed: HTTP 503",
        ),
        (wsclient.ConnectionOpened(**PLACE, epoch=1, duration=0.1, subprotocol=None), None),
        (
            wsclient.JournalFailed(channel="feed", cause="the disk is full"),
            "the journal is not written: the disk is full",
        ),
        (wsclient.JournalRecovered(channel="feed"), "the journal is written again"),
        (
            wsclient.ConnectionOpened(**PLACE, epoch=1, duration=0.1, subprotocol="chat"),
            "the server chose a subprotocol",
        ),
        (wsclient.ConnectionReady(**PLACE, epoch=1, outage=None), "connected"),
        (
            wsclient.ConnectionReady(**PLACE, epoch=2, outage=2.5),
            "connected again, 2.50 s after the last sign of life",
        ),
        (
            wsclient.ConnectionLost(
                **PLACE, epoch=1, cause="closed: 1012", code=1012, duration=61, ready=True
            ),
            "lost after 1 min 1 s: closed: 1012",
        ),
        (
            wsclient.ConnectionLost(
                **PLACE, epoch=1, cause="closed: 1006", code=1006, duration=1, ready=True
            ),
            "lost after 1.00 s: cut off, without a close frame",
        ),
        (
            wsclient.ConnectionLeft(**PLACE, epoch=1, reason="asked for", duration=2.0),
            "left after 2.00 s: asked for",
        ),
        (
            wsclient.PeerStoppedReading(**PLACE, epoch=1),
            "the server reads nothing of what is sent",
        ),
        (
            wsclient.FencesLifted(channel="feed", epoch=1, messages=2),
            "the server answers no ping: what it has read cannot be proven",
        ),
        (
            wsclient.SuspendDetected(channel="feed", duration=3600.0),
            "the machine has slept for 1 h 0 min",
        ),
        (
            wsclient.RetryScheduled(**PLACE, delay=0.25, rule="unreachable"),
            "connecting again in 0.25 s",
        ),
        (wsclient.GapDetected(channel="feed", gap=GAP), "messages of 2.50 s may be missing"),
        (wsclient.ChannelClosed(channel="feed", cancelled=0, lost_unknown=0), "closed"),
        (
            wsclient.ChannelClosed(channel="feed", cancelled=1, lost_unknown=2),
            "closed; 1 message never written, 2 messages perhaps lost",
        ),
        (
            wsclient.ChannelGaveUp(channel="feed", reason="gave up", cancelled=0, lost_unknown=0),
            "gave up",
        ),
        (
            wsclient.StateChanged(
                channel="feed",
                previous=wsclient.ChannelState.CONNECTING,
                state=wsclient.ChannelState.ESTABLISHING,
                cause="the connection is open",
            ),
            None,
        ),
    ],
)
def test_each_event_that_matters_is_a_sentence(event, expected):
    assert expected == sentence_for(event)


def test_a_sentence_cannot_be_used_to_command_the_terminal():
    event = wsclient.ConnectionFailed(**PLACE, cause="\x1b[2Jgone\n", duration=0.1)

    assert "attempt 1 failed: \\x1b[2Jgone\\n" == sentence_for(event)
