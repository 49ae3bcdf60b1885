"""Publish and subscribe in plain JSON: wishes in, messages out; messages in, signals out."""

from __future__ import annotations

import json

import pytest

from wsclient.app.protocols import JsonPubSub
from wsclient.errors import CodecError, ReplyError
from wsclient.session import (
    Answer,
    Published,
    Subscribed,
    SubscriptionEnded,
    Unsubscribed,
    Wish,
)

PLAIN = JsonPubSub()
TRADES = Wish(key="trades", number=7)


def recognise(content, protocol=PLAIN):
    return protocol.recognise(json.dumps(content))


# --- wishes in, messages out ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (TRADES, {"op": "subscribe", "channel": "trades"}),
        (
            Wish(key="trades", parameters={"depth": 5}, number=7),
            {"op": "subscribe", "channel": "trades", "depth": 5},
        ),
        (
            Wish(key="trades", number=7, after=0),
            {"op": "subscribe", "channel": "trades", "after": 0},
        ),
        (
            Wish(key="trades", parameters={"depth": 5}, number=7, after=41),
            {"op": "subscribe", "channel": "trades", "depth": 5, "after": 41},
        ),
    ],
)
def test_a_wish_is_a_message(wish, message):
    assert message == json.loads(PLAIN.subscribe(wish))


def test_a_subscription_is_left_by_its_channel():
    assert {"op": "unsubscribe", "channel": "trades"} == json.loads(PLAIN.unsubscribe(TRADES, None))


def test_there_may_be_no_way_to_leave():
    assert None is JsonPubSub(unsubscribe_op=None).unsubscribe(TRADES, None)


def test_a_server_that_cannot_resume_is_not_asked_to():
    assert "after" not in json.loads(
        JsonPubSub(after_field=None).subscribe(Wish(key="trades", number=7, after=41))
    )


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (Wish(key=7, number=7), TypeError),
        (Wish(key=("trades", "EUR"), number=7), TypeError),
        (Wish(key="trades", parameters=["depth"], number=7), TypeError),
        (Wish(key="trades", parameters="depth", number=7), TypeError),
        (Wish(key="trades", parameters={"op": "publish"}, number=7), ValueError),
        (Wish(key="trades", parameters={"channel": "orders"}, number=7), ValueError),
        (Wish(key="trades", parameters={"after": 1}, number=7), ValueError),
        (Wish(key="trades", parameters={"depth": object()}, number=7), CodecError),
    ],
    ids=repr,
)
def test_what_cannot_be_said_is_refused(wish, error):
    with pytest.raises(error):
        PLAIN.subscribe(wish)


# --- messages in, signals out ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "signal"),
    [
        ({"op": "subscribed", "channel": "trades"}, Subscribed("trades")),
        (
            {"op": "subscribed", "channel": "trades", "resumed": True},
            Subscribed("trades", resumed=True),
        ),
        ({"op": "subscribed", "channel": "trades", "resumed": False}, Subscribed("trades")),
        # Whatever is not plainly true is not.
        ({"op": "subscribed", "channel": "trades", "resumed": 1}, Subscribed("trades")),
        ({"op": "subscribed", "channel": "trades", "resumed": "true"}, Subscribed("trades")),
        ({"op": "unsubscribed", "channel": "trades"}, Unsubscribed("trades")),
        ({"op": "ended", "channel": "trades"}, SubscriptionEnded("trades")),
        ({"channel": "trades", "data": 5}, Published("trades", 5)),
        ({"channel": "trades", "data": None}, Published("trades", None)),
        ({"channel": "trades", "seq": 42, "data": {}}, Published("trades", {}, position=42)),
        ({"op": "trade", "channel": "trades", "data": 5}, Published("trades", 5)),
        ({"op": None, "channel": "trades", "data": 5}, Published("trades", 5)),
        ({"op": "ping"}, Answer('{"op": "pong"}')),
        ({"op": "ping", "channel": "trades", "data": 5}, Answer('{"op": "pong"}')),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_message_is_a_signal(content, signal):
    assert signal == recognise(content)


@pytest.mark.parametrize("retry", [True, False])
def test_an_error_is_the_end(retry):
    ended = recognise({"op": "error", "channel": "trades", "error": "busy", "retry": retry})

    assert ("trades", retry) == (ended.tag, ended.may_retry)
    assert isinstance(ended.error, ReplyError)
    assert "busy" == ended.error.error


def test_an_error_without_a_word_is_the_end_too():
    ended = recognise({"op": "error", "channel": "trades"})

    assert (None, False) == (ended.error.error, ended.may_retry)


@pytest.mark.parametrize("number", ["42", 4.2, True, None, [42], {"n": 42}], ids=repr)
def test_only_a_number_is_a_position(number):
    published = recognise({"channel": "trades", "seq": number, "data": 5})

    assert Published("trades", 5) == published


@pytest.mark.parametrize(
    "content",
    [
        {"op": "pong"},
        {"op": "error", "error": "not about a channel"},
        {"op": "subscribed"},
        {"channel": "trades"},
        {"channel": "trades", "seq": 42},
        {"channel": 7, "data": 5},
        {"channel": None, "data": 5},
        {"channel": ["trades"], "data": 5},
        {"data": 5},
        {"op": ["subscribed"], "channel": "trades"},
        {"op": {"a": 1}, "channel": "trades"},
    ],
    ids=json.dumps,
)
def test_everything_else_is_not_ours(content):
    assert None is recognise(content)


def test_nothing_that_a_server_sends_hurts(hostile):
    assert None is PLAIN.recognise(hostile)


# --- other names ----------------------------------------------------------------------------------

OTHER = JsonPubSub(
    op_field="action",
    event_field="event",
    channel_field="topic",
    subscribe_op="sub",
    unsubscribe_op="unsub",
    subscribed_event="sub-ok",
    unsubscribed_event="unsub-ok",
    ended_event="eof",
    error_event="fault",
    publish_event="message",
    ping_event="are-you-there",
    pong_op="i-am",
    data_field="body",
    error_field="why",
    retry_field="again",
    position_field="offset",
    after_field="since",
    resumed_field="recovered",
)


def test_everything_has_the_names_that_one_gives():
    wish = Wish(key="trades", number=7, after=41)
    fault = {"event": "fault", "topic": "trades", "why": "busy", "again": True}
    message = {"event": "message", "topic": "trades", "offset": 42, "body": 5}
    confirmation = {"event": "sub-ok", "topic": "trades", "recovered": True}

    assert {"action": "sub", "topic": "trades", "since": 41} == json.loads(OTHER.subscribe(wish))
    assert {"action": "unsub", "topic": "trades"} == json.loads(OTHER.unsubscribe(wish, None))
    assert Subscribed("trades", resumed=True) == recognise(confirmation, OTHER)
    assert Unsubscribed("trades") == recognise({"event": "unsub-ok", "topic": "trades"}, OTHER)
    assert SubscriptionEnded("trades") == recognise({"event": "eof", "topic": "trades"}, OTHER)
    assert ("busy", True) == ((ended := recognise(fault, OTHER)).error.error, ended.may_retry)
    assert Published("trades", 5, position=42) == recognise(message, OTHER)
    assert Answer('{"action": "i-am"}') == recognise({"event": "are-you-there"}, OTHER)


def test_what_is_published_may_have_to_say_so():
    assert None is recognise({"topic": "trades", "offset": 42, "body": 5}, OTHER)


def test_the_whole_message_may_be_what_is_received():
    whole = JsonPubSub(data_field=None)
    message = {"channel": "trades", "seq": 42, "price": 5}

    assert Published("trades", message, position=42) == recognise(message, whole)
    assert 42 == whole.position(message)
    assert None is whole.position("a value of another kind")
    assert None is PLAIN.position({"seq": 42})


@pytest.mark.parametrize("content", [{"op": "ping"}, {"op": None}, {}], ids=json.dumps)
def test_a_server_may_have_no_ping_of_its_own(content):
    assert None is recognise(content, JsonPubSub(ping_event=None))


def test_nothing_may_be_numbered():
    unnumbered = JsonPubSub(position_field=None)

    assert PLAIN.has_positions
    assert not unnumbered.has_positions

    assert Published("trades", 5) == recognise(
        {"channel": "trades", "seq": 42, "data": 5}, unnumbered
    )


def test_a_server_confirms_if_there_is_a_name_for_it():
    silent = JsonPubSub(subscribed_event=None)

    assert PLAIN.confirms
    assert not silent.confirms
    assert None is recognise({"op": "subscribed", "channel": "trades"}, silent)


@pytest.mark.parametrize(("after", "expected"), [(42, True), (43, False), (100, False)])
def test_a_number_that_is_missing_is_missing(after, expected):
    assert expected == PLAIN.is_next(41, after)


def test_numbers_that_only_grow_tell_nothing():
    assert None is JsonPubSub(consecutive=False).is_next(41, 43)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"channel_field": ""}, ValueError),
        ({"op_field": None}, TypeError),
        ({"ping_event": 7}, TypeError),
        ({"consecutive": "yes"}, TypeError),
        ({"confirms": False}, TypeError),
    ],
)
def test_a_setting_that_cannot_work_is_refused(options, error):
    with pytest.raises(error):
        JsonPubSub(**options)
