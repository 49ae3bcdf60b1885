"""Everything can be had as JSON, one object a line."""

from __future__ import annotations

import json

import pytest

import wsclient
from wsclient.cli._objects import event_object, json_line, message_object


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("hi\n", {"event": "message", "text": "hi\n"}),
        (b"hi", {"event": "message", "base64": "aGk="}),
        (b"", {"event": "message", "base64": ""}),
    ],
)
def test_a_message_is_text_or_base64(message, expected):
    assert expected == message_object(message)


def test_an_event_has_its_name_and_its_fields():
    event = wsclient.StateChanged(
        channel="feed",
        previous=wsclient.ChannelState.CONNECTING,
        state=wsclient.ChannelState.ESTABLISHING,
        cause="the connection is open",
    )

    assert {
        "event": "state_changed",
        "channel": "feed",
        "previous": "connecting",
        "state": "establishing",
        "cause": "the connection is open",
    } == event_object(event)


@pytest.mark.parametrize(("subprotocol", "shown"), [("secret", "…"), (None, None)])
def test_what_an_event_does_not_show_is_not_shown_here(subprotocol, shown):
    event = wsclient.ConnectionOpened(
        channel="feed",
        endpoint="ws://h",
        attempt=1,
        epoch=1,
        duration=0.5,
        subprotocol=subprotocol,
    )

    assert shown == event_object(event)["subprotocol"]


def test_a_gap_is_an_object_of_its_own():
    gap = wsclient.Gap(
        after=1,
        before=2,
        since=1.5,
        until=2.123456789,
        reason="1006",
        subscription=("trades", "EUR"),
        after_position=7,
    )

    assert {
        "event": "gap_detected",
        "channel": "feed",
        "gap": {
            "after": 1,
            "before": 2,
            "since": 1.5,
            "until": 2.123457,
            "reason": "1006",
            "subscription": "('trades', 'EUR')",
            "after_position": 7,
            "before_position": None,
        },
    } == event_object(wsclient.GapDetected(channel="feed", gap=gap))


def test_an_error_is_its_type_and_its_text():
    event = wsclient.ObserverFailed(channel="feed", observer="f", error=ValueError("no"))

    assert "ValueError: no" == event_object(event)["error"]


def test_a_line_is_ascii_and_has_no_control_characters():
    text = "".join(map(chr, range(0x3000))) + "\u202e\U0001f680"
    line = json_line(message_object(text))

    assert line.isascii()
    assert line.isprintable()
    assert text == json.loads(line)["text"]
