"""Floor 0: every setting is checked where it is given, and the error says what was wrong.

How URLs and arguments of the five functions are refused is in ``connection/test_url.py`` and
``connection/test_open.py``.
"""

from __future__ import annotations

import importlib.util
import math
import os
import ssl
import time
from pathlib import Path

import attrs
import pytest

from wsclient.options import (
    SINGLE_CONNECTION,
    ApplicationPing,
    ConnectionOptions,
    DeliveryOptions,
    HeartbeatOptions,
    Limits,
    OpeningOptions,
    OverflowPolicy,
    RetryBudget,
    RetryPolicy,
    StreamOptions,
    connection_options,
    opening_options,
    with_user_timeout,
)

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class BytesPath(os.PathLike):
    """A path that is not text."""

    def __fspath__(self):
        return b"/run/socket"


SETTINGS = [
    ConnectionOptions,
    DeliveryOptions,
    HeartbeatOptions,
    RetryBudget,
    RetryPolicy,
    Limits,
]


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
        ([""], ValueError, "subprotocol 1 is not a subprotocol's name"),
        (["a", "b b"], ValueError, "subprotocol 2 is not a subprotocol's name"),
        (["a,b"], ValueError, "not a subprotocol's name"),
        (["a\r\nX-B: 2"], ValueError, "not a subprotocol's name"),
        (["a\0"], ValueError, "not a subprotocol's name"),
        (["plauderei-ä"], ValueError, "not a subprotocol's name"),
        (["a", "b", "a"], ValueError, "subprotocol 3 is offered twice"),
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
    (ConnectionOptions, "happy_eyeballs_delay", 0, False),
    (HeartbeatOptions, "interval", 0.01, False),
    (HeartbeatOptions, "timeout", 0.01, False),
    (RetryBudget, "attempts", 1, True),
    (RetryBudget, "seconds", 0.001, False),
    (HeartbeatOptions, "max_silence", 0.01, False),
    (RetryPolicy, "stable_after", 0, False),
    (Limits, "outbox_messages", 1, True),
    (Limits, "outbox_size", 1, True),
    (Limits, "inbox_messages", 0, True),
    (Limits, "inbox_size", 0, True),
    (Limits, "inbox_overrun", 0, True),
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
@pytest.mark.parametrize(
    "value", ["1", b"1", [1], True, object()], ids=lambda value: type(value).__name__
)
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


BOUNDED = [
    # field, the smallest value, the largest, whether it must be whole, whether it may be None
    ("redirects", 0, 100, True, False),
    ("connect_port", 1, 65535, True, True),
    ("tcp_keepalive", 1, 32767, True, True),
    ("tcp_user_timeout", 0.001, 2_000_000, False, True),
    ("max_head_size", 1, 2**20, True, False),
    ("max_headers", 1, 10_000, True, False),
]


@pytest.mark.parametrize(("name", "low", "high", "whole", "optional"), BOUNDED)
def test_a_number_may_be_between_its_bounds(name, low, high, whole, optional):
    for value in (low, high, *([None] if optional else [])):
        assert value == getattr(ConnectionOptions(**{name: value}), name)
    for value in (low - 1, high + 1, -1, -math.inf, math.inf, math.nan):
        with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
            ConnectionOptions(**{name: value})
    for value in ("1", b"1", [1], True, object(), *([] if optional else [None])):
        with pytest.raises(TypeError, match=f"^{name} must be a number, not"):
            ConnectionOptions(**{name: value})
    if whole:
        with pytest.raises(TypeError, match=f"^{name} must be an int"):
            ConnectionOptions(**{name: 1.5})


# --- where to connect, and by which way ---------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (False, None),
        (True, True),
        *[
            (url, url)
            for url in (
                "http://proxy.test",
                "http://proxy.test:3128/",
                "https://user:p%40w@proxy.test",
                "http://us%C3%A9r@proxy.test",
                "HTTP://proxy.test",
                "socks4://proxy.test",
                "socks4a://user@proxy.test",
                "socks5://user:pw@[::1]:9050",
                "socks5h://proxy.test:9050",
                "socks5://:@proxy.test",
            )
        ],
    ],
)
def test_a_proxy_is_a_url_or_the_environments(given, kept):
    assert kept == ConnectionOptions(proxy=given).proxy


LONG = "x" * 256


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (1, TypeError, "proxy must be a URL, True or None, not int"),
        (b"http://proxy.test", TypeError, "proxy must be a URL, True or None, not bytes"),
        ("", ValueError, "proxy must begin with http://, https://, socks4://"),
        ("proxy.test:3128", ValueError, "proxy must begin with"),
        ("ftp://canary@proxy.test", ValueError, "proxy must begin with"),
        ("ws://canary@proxy.test", ValueError, "proxy must begin with"),
        ("socks://canary@proxy.test", ValueError, "proxy must begin with"),
        ("http:canary", ValueError, "proxy must begin with"),
        ("http://", ValueError, "proxy's host must not be empty"),
        ("http://canary@", ValueError, "proxy's host must not be empty"),
        ("http://canary@a..b", ValueError, "proxy's host has a label that is empty"),
        ("http://canary@a|b", ValueError, "proxy's host must not contain"),
        ("http://" + "x" * 300, ValueError, "proxy's host must not be longer"),
        ("http://canary:0@proxy.test:0", ValueError, "proxy's port must not be 0"),
        ("http://canary@proxy.test:65536", ValueError, "its host or port is not valid"),
        ("http://user:canary/x@proxy.test", ValueError, "percent-encode"),
        ("http://[canary]", ValueError, "its host or port is not valid"),
        ("http://proxy.test/canary", ValueError, "nothing behind its host and port"),
        ("http://proxy.test?canary", ValueError, "nothing behind its host and port"),
        ("http://proxy.test#canary", ValueError, "nothing behind its host and port"),
        ("http://proxy.test\r\nX: canary", ValueError, "must not contain spaces, control"),
        ("http://ca nary@proxy.test", ValueError, "must not contain spaces, control"),
        ("http://canary\0@proxy.test", ValueError, "must not contain spaces, control"),
        ("http://canary\\@proxy.test", ValueError, "must not contain spaces, control"),
        ("http://canary%0d%0aX:y@proxy.test", ValueError, "must not contain control characters"),
        ("http://u:canary%00@proxy.test", ValueError, "must not contain control characters"),
        ("socks5://u:canary%7f@proxy.test", ValueError, "must not contain control characters"),
        ("http://can%3Aary:pw@proxy.test", ValueError, "must not contain a colon"),
        ("socks5://canary@proxy.test", ValueError, "a user name and a password, or neither"),
        ("socks5h://:canary@proxy.test", ValueError, "a user name and a password, or neither"),
        ("socks4://u:canary@proxy.test", ValueError, "a user name and no password"),
        ("socks4a://u:canary@proxy.test", ValueError, "a user name and no password"),
        ("socks5://us%C3%A9r:canary@proxy.test", ValueError, "must be ASCII, of 255"),
        (f"socks5://{LONG}:canary@proxy.test", ValueError, "must be ASCII, of 255"),
        (f"socks5://canary:{LONG}@proxy.test", ValueError, "must be ASCII, of 255"),
        (f"socks4://{LONG}@proxy.test", ValueError, "must be ASCII, of 255"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_proxy_that_cannot_be_used_is_refused_and_never_quoted(given, error, text):
    with pytest.raises(error, match=text) as caught:
        ConnectionOptions(proxy=given)

    assert error is type(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_proxys_credentials_are_never_printed():
    options = ConnectionOptions(proxy="http://canary:canary@proxy.test:3128")

    assert "canary" not in repr(options)
    assert "proxy='http://proxy.test:3128'" in repr(options)
    assert "proxy=True" in repr(ConnectionOptions(proxy=True))


def test_a_socks_proxy_needs_its_package_where_it_is_given(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'wsclient-trio\[proxy\]'$"):
        ConnectionOptions(proxy="socks5://proxy.test")

    assert ConnectionOptions(proxy="http://proxy.test").proxy is not None


OPENING = [
    # field, value, what is kept
    ("connect_host", None, None),
    ("connect_host", "server.test", "server.test"),
    ("connect_host", "bücher.test", "xn--bcher-kva.test"),
    ("connect_host", "[::1]", "::1"),
    ("connect_host", "fe80::1%eth0", "fe80::1%eth0"),
    ("server_hostname", None, None),
    ("server_hostname", "server.test", "server.test"),
    ("local_address", None, None),
    ("local_address", "127.0.0.1", "127.0.0.1"),
    ("local_address", "0:0:0:0:0:0:0:1", "::1"),
    ("unix_socket", None, None),
    ("unix_socket", "/run/socket", "/run/socket"),
    ("unix_socket", Path("/run/socket"), "/run/socket"),
    ("user_agent", None, None),
    ("user_agent", " mine/1 (x) ", "mine/1 (x)"),
]


@pytest.mark.parametrize(("name", "given", "kept"), OPENING)
def test_an_option_of_opening_is_kept_as_it_is_used(name, given, kept):
    assert kept == getattr(ConnectionOptions(**{name: given}), name)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"connect_host": 1}, TypeError, "connect_host must be str, not int"),
        ({"connect_host": ""}, ValueError, "connect_host must not be empty"),
        ({"connect_host": "a b"}, ValueError, "connect_host must not contain spaces"),
        ({"connect_host": "a\r\n"}, ValueError, "connect_host must not contain spaces"),
        ({"connect_host": "x" * 254}, ValueError, "connect_host must not be longer"),
        ({"connect_host": "ü" * 250}, ValueError, "connect_host is not a valid internat"),
        ({"connect_host": "a..b"}, ValueError, "connect_host has a label"),
        ({"server_hostname": 1}, TypeError, "server_hostname must be str, not int"),
        ({"server_hostname": "a/b"}, ValueError, "server_hostname must not contain"),
        ({"local_address": 1}, TypeError, "local_address must be str, not int"),
        ({"local_address": "localhost"}, ValueError, "local_address must be an IP address"),
        ({"local_address": "127.0.0.1:80"}, ValueError, "local_address must be an IP address"),
        ({"unix_socket": 1}, TypeError, "unix_socket must be a path, not int"),
        ({"unix_socket": b"/run/s"}, TypeError, "unix_socket must be a path, not bytes"),
        ({"unix_socket": BytesPath()}, TypeError, "unix_socket must be a path of str"),
        ({"unix_socket": ""}, ValueError, "unix_socket must not be empty"),
        ({"user_agent": 1}, TypeError, "user_agent must be str or None, not int"),
        ({"user_agent": b"x"}, TypeError, "user_agent must be str or None, not bytes"),
        ({"user_agent": ""}, ValueError, "user_agent must be printable ASCII"),
        ({"user_agent": "  "}, ValueError, "user_agent must be printable ASCII"),
        ({"user_agent": "x\r\nX: y"}, ValueError, "user_agent must be printable ASCII"),
        ({"user_agent": "größe"}, ValueError, "user_agent must be printable ASCII"),
        ({"proxy_ssl_context": True}, TypeError, "proxy_ssl_context must be ssl.SSLContext"),
        ({"proxy_ssl_context": CONTEXT}, ValueError, "needs an https:// proxy"),
        (
            {"proxy_ssl_context": CONTEXT, "proxy": "http://p.test"},
            ValueError,
            "needs an https:// proxy",
        ),
        ({"unix_socket": "/s", "proxy": True}, ValueError, "unix_socket and proxy exclude"),
        ({"unix_socket": "/s", "proxy": "http://p"}, ValueError, "unix_socket and proxy exclude"),
        ({"unix_socket": "/s", "connect_host": "h"}, ValueError, "and connect_host exclude"),
        ({"unix_socket": "/s", "connect_port": 1}, ValueError, "and connect_port exclude"),
        ({"unix_socket": "/s", "local_address": "::1"}, ValueError, "and local_address exclude"),
    ],
)
def test_an_option_of_opening_that_cannot_work_is_refused(options, error, text):
    with pytest.raises(error, match=text) as caught:
        ConnectionOptions(**options)

    assert error is type(caught.value)


@pytest.mark.parametrize("proxy", [True, "https://proxy.test"])
def test_a_context_for_the_proxy_goes_with_a_proxy_over_tls(proxy):
    options = ConnectionOptions(proxy=proxy, proxy_ssl_context=CONTEXT)

    assert options.proxy_ssl_context is CONTEXT


def test_a_host_that_is_far_too_long_is_refused_at_once():
    start = time.perf_counter()
    with pytest.raises(ValueError, match="must not be longer"):
        ConnectionOptions(connect_host="ü" * 100_000)

    assert time.perf_counter() - start < 0.01


# --- the options of the five functions ----------------------------------------------------------

# trio-websocket's arguments, which stand in the functions' signatures, and what is a channel's.
CLASSICAL = {
    "subprotocols",
    "extra_headers",
    "message_queue_size",
    "max_message_size",
    "receive_buffer_size",
    "connect_timeout",
    "disconnect_timeout",
}
OF_A_CHANNEL = {"establish_timeout"}


def test_every_field_is_an_option_of_the_functions():
    fields = {field.name for field in attrs.fields(ConnectionOptions)}

    assert fields - CLASSICAL - OF_A_CHANNEL == OpeningOptions.__optional_keys__
    assert StreamOptions.__optional_keys__ < OpeningOptions.__optional_keys__


def test_options_go_on_by_name():
    options = ConnectionOptions(redirects=3, user_agent="mine/1")
    passed = opening_options(options)

    assert OpeningOptions.__optional_keys__ == passed.keys()
    assert (3, "mine/1", 20) == (
        passed["redirects"],
        passed["user_agent"],
        passed["tcp_keepalive"],
    )
    assert options == ConnectionOptions(**passed)


def test_a_single_connection_has_the_systems_defaults():
    options = connection_options({"redirects": 1}, OpeningOptions.__optional_keys__)

    assert ConnectionOptions(**SINGLE_CONNECTION, redirects=1) == options
    assert (None, None) == (options.tcp_keepalive, options.tcp_user_timeout)


@pytest.mark.parametrize("name", ["colour", "establish_timeout", "max_message_size"])
def test_what_is_no_option_of_the_functions_is_refused(name):
    with pytest.raises(TypeError, match=f"^got an unexpected keyword argument '{name}'$"):
        connection_options({name: 1}, OpeningOptions.__optional_keys__)


# --- functions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wait", "stop", "classify"])
def test_a_policy_is_made_of_functions(name):
    assert getattr(RetryPolicy(**{name: max}), name) is max
    assert getattr(RetryPolicy(), name) is None
    with pytest.raises(TypeError, match=f"^{name} must be callable, not int"):
        RetryPolicy(**{name: 3})


def test_s4_2_a_budget_is_sixty_attempts_in_ten_minutes_and_waits():
    budget = RetryBudget()

    assert (60, 600.0, "wait") == (budget.attempts, budget.seconds, budget.when_spent)
    with pytest.raises(ValueError, match=r'^when_spent must be "wait" or "fail", not'):
        RetryBudget(when_spent="cry")


def test_a_policys_budget_is_a_budget():
    budget = RetryBudget()

    assert budget is RetryPolicy(budget=budget).budget
    assert None is RetryPolicy().budget
    with pytest.raises(TypeError, match=r"^budget must be RetryBudget, not int"):
        RetryPolicy(budget=60)


# --- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_an_unknown_option_is_refused(kind):
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        kind(colour="red")


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_settings_are_frozen_values_with_defaults_that_hold(kind):
    settings = kind()

    assert attrs.astuple(kind()) == attrs.astuple(settings)
    assert attrs.astuple(settings) == attrs.astuple(attrs.evolve(settings))
    # Two budgets are two, also if they are alike.
    assert (kind() == settings) is (kind is not RetryBudget)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(settings, attrs.fields(kind)[0].name, 1)
    with pytest.raises(TypeError):
        kind(1)


# What the contract says of numbers; a table in the documentation is made from the fields.
DEFAULTS = [
    ("s1_2", DeliveryOptions, {"fence": True, "fence_timeout": 60}),
    (
        "s1_4",
        DeliveryOptions,
        {"fence_every": 256, "fence_interval": 1, "overflow": OverflowPolicy.BLOCK, "rate": None},
    ),
    (
        "s1_4",
        Limits,
        {
            "outbox_messages": 1024,
            "outbox_size": 4 * 2**20,
            "inbox_messages": 1024,
            "inbox_size": 16 * 2**20,
        },
    ),
    ("s1_7", DeliveryOptions, {"resend_unknown": False}),
    ("s2_6", Limits, {"inbox_overrun": 4 * 2**20}),
    ("s3", ConnectionOptions, {"connect_timeout": 10, "establish_timeout": 15}),
    ("s3_2", RetryPolicy, {"stable_after": 15}),
    (
        "s5_1",
        HeartbeatOptions,
        {"interval": 20, "timeout": 20, "jitter": 0.1},
    ),
    ("s5_2", HeartbeatOptions, {"application": None, "max_silence": math.inf}),
    ("s5_3", ConnectionOptions, {"tcp_user_timeout": "heartbeat"}),
]


@pytest.mark.parametrize(
    ("kind", "expected"), [row[1:] for row in DEFAULTS], ids=[row[0] for row in DEFAULTS]
)
def test_s1_to_s5_defaults_are_those_of_the_contract(kind, expected):
    settings = kind()

    assert expected == {name: getattr(settings, name) for name in expected}


class Strategy:
    """How messages carry their ids, and are acknowledged."""

    def mark(self, message, key, *, redelivered):
        return message

    def recognise(self, message):
        return None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"overflow": "block"}, "overflow must be OverflowPolicy, not str"),
        ({"overflow": None}, "overflow must be OverflowPolicy, not NoneType"),
        ({"rate": 5}, "rate must be SendRate, not int"),
        ({"dead_letter": "x"}, "dead_letter must be callable, not str"),
        ({"acknowledgement": "id"}, "acknowledgement must have the methods mark and recognise"),
        (
            {"acknowledgement": Strategy},
            r"acknowledgement must be an object, as Strategy\(…\) makes one",
        ),
    ],
    ids=repr,
)
def test_what_delivery_is_made_of_is_of_its_type(options, text):
    with pytest.raises(TypeError, match=f"^{text}") as caught:
        DeliveryOptions(**options)

    # One sentence, and nothing of the tools that it was made with.
    assert 1 == len(caught.value.args)


def test_leaving_a_channel_stays_within_two_seconds_by_default():
    assert 1.0 == ConnectionOptions().disconnect_timeout


# --- what happens to what an inbox has no room for ----------------------------------------------


@pytest.mark.parametrize("policy", ["block", None, 1])
def test_a_policy_of_another_type_is_refused(policy):
    with pytest.raises(TypeError, match="inbox_overflow must be OverflowPolicy, not"):
        Limits(inbox_overflow=policy)


def test_an_inbox_has_nobody_to_tell_an_error():
    with pytest.raises(ValueError, match=r"inbox_overflow cannot be OverflowPolicy\.ERROR"):
        Limits(inbox_overflow=OverflowPolicy.ERROR)


@pytest.mark.parametrize(
    "given", [{"inbox_overflow": OverflowPolicy.CONFLATE}, {"inbox_key": len}], ids=repr
)
def test_conflating_needs_a_key_and_a_key_needs_conflating(given):
    with pytest.raises(ValueError, match="need each other"):
        Limits(**given)
    both = Limits(inbox_overflow=OverflowPolicy.CONFLATE, inbox_key=len)

    assert len is both.inbox_key
    assert (OverflowPolicy.BLOCK, None) == (Limits().inbox_overflow, Limits().inbox_key)


def test_a_key_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="inbox_key must be"):
        Limits(inbox_overflow=OverflowPolicy.CONFLATE, inbox_key="symbol")


# --- a ping of the application's -----------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [{"build": "ping"}, {"build": None}, {"build": str, "match": "pong"}], ids=repr
)
def test_what_makes_and_knows_an_application_ping_are_functions(given):
    with pytest.raises(TypeError, match=r"^(build|match) must be callable, not (str|None)$"):
        ApplicationPing(**given)


@pytest.mark.parametrize("name", ["interval", "timeout"])
def test_the_times_of_an_application_ping_are_seconds(name):
    with pytest.raises(ValueError, match=name):
        ApplicationPing(build=str, **{name: 0})

    assert 20.0 == getattr(ApplicationPing(build=str), name)


def test_an_application_ping_is_an_application_ping():
    ping = ApplicationPing(build=str)

    assert ping is HeartbeatOptions(application=ping).application
    with pytest.raises(TypeError, match="application must be ApplicationPing, not str"):
        HeartbeatOptions(application="ping")


@pytest.mark.parametrize(
    ("heartbeat", "seconds"),
    [
        ({}, 40),
        ({"interval": 60, "timeout": 120}, 180),
        ({"interval": 0.1, "timeout": 0.1}, 1),
        ({"interval": math.inf}, 40),
        ({"timeout": math.inf}, 2_000_000),
    ],
)
def test_s5_3_the_kernel_is_as_patient_as_the_heartbeat(heartbeat, seconds):
    options = with_user_timeout(ConnectionOptions(), HeartbeatOptions(**heartbeat))

    assert seconds == options.tcp_user_timeout


@pytest.mark.parametrize("given", [7.5, None])
def test_s5_3_a_user_timeout_of_ones_own_stays(given):
    options = ConnectionOptions(tcp_user_timeout=given)

    assert options is with_user_timeout(options, HeartbeatOptions())


def test_a_text_that_is_no_user_timeout_is_told_so():
    with pytest.raises(TypeError, match="or \"heartbeat\", and not '40'"):
        ConnectionOptions(tcp_user_timeout="40")


def test_a_single_connection_has_no_heartbeat_to_follow():
    with pytest.raises(ValueError, match="here is no heartbeat to follow"):
        connection_options({"tcp_user_timeout": "heartbeat"}, ["tcp_user_timeout"])
