"""Floor 0: every setting is checked where it is given, and the error says what was wrong.

How URLs and arguments of the five functions are refused is in ``connection/test_url.py`` and
``connection/test_open.py``.
"""

from __future__ import annotations

import math

import attrs
import pytest

from wsclient.options import ConnectionOptions, HeartbeatOptions, Limits, RetryPolicy

SETTINGS = [ConnectionOptions, HeartbeatOptions, RetryPolicy, Limits]


# --- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, ()),
        ([], ()),
        ([("X-A", "1")], ((b"X-A", b"1"),)),
        ([(b"X-A", b"1")], ((b"X-A", b"1"),)),
        ((["X-A", "1"],), ((b"X-A", b"1"),)),
        ({"X-A": "1", "X-B": "2"}, ((b"X-A", b"1"), (b"X-B", b"2"))),
        ({b"X-A": b"1"}, ((b"X-A", b"1"),)),
        ((pair for pair in [("X-A", "1")]), ((b"X-A", b"1"),)),
        ([("X-A", "1"), ("X-A", "2")], ((b"X-A", b"1"), (b"X-A", b"2"))),
        ([("X-A", "")], ((b"X-A", b""),)),
        ([("X-A", " \t1 2\t ")], ((b"X-A", b"1 2"),)),
        ([("Host", "other.example")], ((b"Host", b"other.example"),)),
    ],
)
def test_headers_may_be_a_mapping_or_pairs(given, kept):
    assert kept == ConnectionOptions(extra_headers=given).extra_headers


CONTROL = "must not contain control characters"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        # Whoever can smuggle a line end into a header writes headers of his own.
        ([("X-A", "1\r\nX-B: 2")], ValueError, CONTROL),
        ([("X-A", "1\rX-B: 2")], ValueError, CONTROL),
        ([("X-A", "1\nX-B: 2")], ValueError, CONTROL),
        ([("X-A", "1\r\n folded")], ValueError, CONTROL),
        ([("X-A", "1\r\n")], ValueError, CONTROL),
        ([("X-A", "1\0")], ValueError, CONTROL),
        ([("X-A", "1\x0b")], ValueError, CONTROL),
        ([("X-A", "1\x7f")], ValueError, CONTROL),
        ([("X-A", b"1\r\nX-B: 2")], ValueError, CONTROL),
        ([("Host", "a\r\nX-B: 2")], ValueError, CONTROL),
        ([("X-A\r\nX-B", "1")], ValueError, "not a header's name"),
        ([("X-A\0", "1")], ValueError, "not a header's name"),
        ([("X A", "1")], ValueError, "not a header's name"),
        ([("X-A:", "1")], ValueError, "not a header's name"),
        ([("", "1")], ValueError, "not a header's name"),
        ([("Größe", "1")], ValueError, "a header's name must be ASCII"),
        ([("X-A", "größer")], ValueError, "the value of header 'X-A' must be ASCII"),
        # The handshake's own.
        ([("Connection", "close")], ValueError, "'Connection' is set by the handshake"),
        ([("Content-Length", "0")], ValueError, "'Content-Length' must not be sent"),
        ([("Transfer-Encoding", "x")], ValueError, "'Transfer-Encoding' must not be sent"),
        ([("X", b"\xff")], ValueError, "the value of header 'X' must be ASCII"),
        ([(b"\xff", "x")], ValueError, "a header's name must be ASCII"),
        ([("UPGRADE", "h2c")], ValueError, "'UPGRADE' is set by the handshake"),
        ([(b"sec-websocket-key", b"x")], ValueError, "is set by the handshake"),
        ([("Sec-WebSocket-Version", "8")], ValueError, "is set by the handshake"),
        ([("Sec-WebSocket-Accept", "x")], ValueError, "is set by the handshake"),
        ([("Sec-WebSocket-Extensions", "x")], ValueError, "is set by the handshake"),
        ([("Sec-WebSocket-Protocol", "x")], ValueError, "use subprotocols="),
        # Wrong shapes.
        ("X-A: 1", TypeError, "mapping or pairs"),
        (b"X-A: 1", TypeError, "mapping or pairs"),
        (1, TypeError, "mapping or pairs"),
        ([1], TypeError, "mapping or pairs"),
        (["X-A"], ValueError, "pairs of name and value"),
        ([("X-A",)], ValueError, "pairs of name and value"),
        ([("X-A", "1", "2")], ValueError, "pairs of name and value"),
        ([(1, "1")], TypeError, "a header's name must be str or bytes, not int"),
        ([("X-A", 1)], TypeError, "the value of header 'X-A' must be str or bytes, not int"),
        ([("X-A", None)], TypeError, "must be str or bytes, not NoneType"),
        ({"X-A": ["1"]}, TypeError, "must be str or bytes, not list"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(given, error, text):
    with pytest.raises(error, match=text) as caught:
        ConnectionOptions(extra_headers=given)

    assert error is type(caught.value)


def test_a_headers_value_is_never_printed():
    options = ConnectionOptions(extra_headers=[("Authorization", "Bearer canary")])

    assert "canary" not in repr(options)
    assert "['Authorization']" in repr(options)
    for value in ("canary\r\n", "canary-ü", b"canary\0"):
        with pytest.raises(ValueError, match="Authorization") as caught:
            ConnectionOptions(extra_headers=[("Authorization", value)])
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


# --- subprotocols -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, ()),
        ([], ()),
        (["chat"], ("chat",)),
        (("v2.chat", "v1.chat"), ("v2.chat", "v1.chat")),
        ((name for name in ["a", "b"]), ("a", "b")),
        ({"chat": 1}, ("chat",)),
    ],
)
def test_subprotocols_are_offered_in_their_order(given, kept):
    assert kept == ConnectionOptions(subprotocols=given).subprotocols


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("chat", TypeError, "subprotocols must be an iterable of str"),
        (b"chat", TypeError, "subprotocols must be an iterable of str"),
        (1, TypeError, "subprotocols must be an iterable of str"),
        ([b"chat"], TypeError, "a subprotocol must be str, not bytes"),
        ([None], TypeError, "a subprotocol must be str, not NoneType"),
        ([""], ValueError, "not a subprotocol's name: ''"),
        (["a b"], ValueError, "not a subprotocol's name"),
        (["a,b"], ValueError, "not a subprotocol's name"),
        (["a\r\nX-B: 2"], ValueError, "not a subprotocol's name"),
        (["a\0"], ValueError, "not a subprotocol's name"),
        (["plauderei-ä"], ValueError, "not a subprotocol's name"),
        (["a", "b", "a"], ValueError, "'a' is offered twice"),
    ],
)
def test_subprotocols_that_cannot_be_offered_are_refused(given, error, text):
    with pytest.raises(error, match=text) as caught:
        ConnectionOptions(subprotocols=given)

    assert error is type(caught.value)


# --- numbers ------------------------------------------------------------------------------------

NUMBERS = [
    # options, field, the smallest value, whether it must be whole
    (ConnectionOptions, "message_queue_size", 0, True),
    (ConnectionOptions, "max_message_size", 0, True),
    (ConnectionOptions, "receive_buffer_size", 1, True),
    (ConnectionOptions, "connect_timeout", 0, False),
    (ConnectionOptions, "establish_timeout", 0, False),
    (ConnectionOptions, "disconnect_timeout", 0, False),
    (HeartbeatOptions, "interval", 0.01, False),
    (HeartbeatOptions, "timeout", 0.01, False),
    (RetryPolicy, "stable_after", 0, False),
    (Limits, "outbox_messages", 1, True),
    (Limits, "outbox_size", 1, True),
    (Limits, "inbox_messages", 0, True),
    (Limits, "inbox_size", 0, True),
]
NAMES = [name for _, name, _, _ in NUMBERS]


@pytest.mark.parametrize(("kind", "name", "smallest", "whole"), NUMBERS, ids=NAMES)
def test_a_number_may_be_as_small_as_its_minimum(kind, name, smallest, whole):
    assert smallest == getattr(kind(**{name: smallest}), name)


@pytest.mark.parametrize(("kind", "name", "smallest", "whole"), NUMBERS, ids=NAMES)
def test_a_number_below_its_minimum_is_refused(kind, name, smallest, whole):
    for value in (smallest - 1, -1, -math.inf, math.nan):
        with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
            kind(**{name: value})


@pytest.mark.parametrize(("kind", "name", "smallest", "whole"), NUMBERS, ids=NAMES)
@pytest.mark.parametrize("value", ["1", b"1", [1], True, object()], ids=repr)
def test_a_setting_that_must_be_a_number_takes_nothing_else(kind, name, smallest, whole, value):
    with pytest.raises(TypeError, match=f"^{name} must be a number, not {type(value).__name__}"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "smallest", "whole"),
    [row for row in NUMBERS if row[3]],
    ids=[row[1] for row in NUMBERS if row[3]],
)
def test_a_count_takes_no_fraction(kind, name, smallest, whole):
    with pytest.raises(TypeError, match=f"^{name} must be an int"):
        kind(**{name: 1.5})


@pytest.mark.parametrize(
    ("kind", "name"), [row[:2] for row in NUMBERS if row[1] != "receive_buffer_size"]
)
def test_infinity_lifts_a_limit(kind, name):
    assert math.inf == getattr(kind(**{name: math.inf}), name)


def test_a_read_has_an_end():
    with pytest.raises(TypeError, match=r"^receive_buffer_size must be an int, not inf"):
        ConnectionOptions(receive_buffer_size=math.inf)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.inf, math.nan])
def test_jitter_is_a_share_of_the_interval(value):
    assert 0 == HeartbeatOptions(jitter=0).jitter
    assert 1 == HeartbeatOptions(jitter=1).jitter
    with pytest.raises(ValueError, match=r"^jitter must be at"):
        HeartbeatOptions(jitter=value)


# --- functions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wait", "stop", "classify"])
def test_a_policy_is_made_of_functions(name):
    assert getattr(RetryPolicy(**{name: max}), name) is max
    assert getattr(RetryPolicy(), name) is None
    with pytest.raises(TypeError, match=f"^{name} must be callable, not int"):
        RetryPolicy(**{name: 3})


# --- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_an_unknown_option_is_refused(kind):
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        kind(colour="red")


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_settings_are_frozen_values_with_defaults_that_hold(kind):
    settings = kind()

    assert kind() == settings
    assert settings == attrs.evolve(settings)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(settings, attrs.fields(kind)[0].name, 1)
    with pytest.raises(TypeError):
        kind(1)


def test_leaving_a_channel_stays_within_two_seconds_by_default():
    assert 1.0 == ConnectionOptions().disconnect_timeout
