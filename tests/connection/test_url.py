"""``ws:`` and ``wss:`` URLs (RFC 6455 §3)."""

from __future__ import annotations

import ssl
import traceback

import pytest

from wsclient.connection import Target, mistake_in, parse_url


@pytest.mark.parametrize(
    ("url", "host", "port", "resource", "secure"),
    [
        ("ws://example.com", "example.com", 80, "/", False),
        ("ws://example.com/", "example.com", 80, "/", False),
        ("wss://example.com", "example.com", 443, "/", True),
        ("WSS://EXAMPLE.com/Path", "example.com", 443, "/Path", True),
        ("ws://example.com:443/", "example.com", 443, "/", False),
        ("wss://example.com:80/", "example.com", 80, "/", True),
        ("ws://example.com:8000/a/b", "example.com", 8000, "/a/b", False),
        ("ws://example.com:/", "example.com", 80, "/", False),
        ("ws://example.com/a?b=c&d=e", "example.com", 80, "/a?b=c&d=e", False),
        ("ws://example.com?b=c", "example.com", 80, "/?b=c", False),
        ("ws://example.com/a?", "example.com", 80, "/a?", False),
        ("ws://example.com?", "example.com", 80, "/?", False),
        ("ws://example.com/a?b?c", "example.com", 80, "/a?b?c", False),
        ("ws://example.com/a#fragment", "example.com", 80, "/a", False),
        ("ws://example.com/a#fragment?b", "example.com", 80, "/a", False),
        ("ws://example.com/a?b#fragment", "example.com", 80, "/a?b", False),
        ("ws://example.com/%2F%C3%A9%20", "example.com", 80, "/%2F%C3%A9%20", False),
        ("ws://127.0.0.1:1/", "127.0.0.1", 1, "/", False),
        ("ws://[::1]:65535/", "::1", 65535, "/", False),
        ("ws://[::1]/", "::1", 80, "/", False),
        ("ws://[fe80::1%25eth0]:81/", "fe80::1%eth0", 81, "/", False),
        ("ws://a%25b.example/", "a%25b.example", 80, "/", False),
        ("ws://bücher.example/", "xn--bcher-kva.example", 80, "/", False),
        ("ws://user:pass@example.com/", "example.com", 80, "/", False),
        ("ws://example.com//double", "example.com", 80, "//double", False),
    ],
)
def test_a_url_is_taken_apart(url, host, port, resource, secure):
    target = parse_url(url)

    assert (host, port, resource, secure) == (
        target.host,
        target.port,
        target.resource,
        target.ssl_context,
    )


def test_anything_that_prints_as_a_url_is_one():
    class Url:
        def __str__(self):
            return "ws://example.com/a"

    assert parse_url("ws://example.com/a") == parse_url(Url())


def test_a_context_is_used_for_wss_and_refused_for_ws():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    assert parse_url("wss://example.com", context).ssl_context is context
    with pytest.raises(ValueError, match=r"^SSL context must be None for ws: URL scheme$"):
        parse_url("ws://example.com", context)


@pytest.mark.parametrize(
    ("url", "authorization"),
    [
        ("ws://h/", None),
        ("ws://@h/", None),
        ("ws://:@h/", None),
        ("ws://Aladdin:open%20sesame@h/", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("ws://user@h/", b"Basic dXNlcjo="),
        ("ws://:password@h/", b"Basic OnBhc3N3b3Jk"),
        ("ws://a%3Ab:c%40d@h/", b"Basic YTpiOmNAZA=="),
        ("ws://%C3%A9:%FF@h/", b"Basic w6k6/w=="),
    ],
)
def test_user_and_password_become_an_authorization_header(url, authorization):
    assert authorization == parse_url(url).authorization


SCHEME = '^WebSocket URL scheme must be "ws:" or "wss:"$'


@pytest.mark.parametrize(
    ("url", "error", "text"),
    [
        (None, TypeError, "URL must be str, not NoneType"),
        (b"ws://h/", TypeError, "URL must be str, not bytes"),
        (1, TypeError, "URL must be str, not int"),
        ("", ValueError, SCHEME),
        ("http://h/canary", ValueError, SCHEME),
        ("https://user:canary@h/", ValueError, SCHEME),
        ("h/canary", ValueError, SCHEME),
        ("//h/canary", ValueError, SCHEME),
        ("h:80", ValueError, SCHEME),
        ("ws", ValueError, SCHEME),
        ("ws:", ValueError, "^URL host must not be None$"),
        ("ws:///canary", ValueError, "^URL host must not be None$"),
        ("ws://:80/canary", ValueError, "^URL host must not be None$"),
        ("ws://user:canary@/", ValueError, "^URL host must not be None$"),
        ("ws:h/canary", ValueError, "^URL host must not be None$"),
        ("ws://h:0/", ValueError, "port must not be 0"),
        ("ws://h:65536/", ValueError, "host or port is not valid"),
        ("ws://h:-1/", ValueError, "host or port is not valid"),
        ("ws://h:canary/", ValueError, "host or port is not valid"),
        ("ws://user:canary/x@h/", ValueError, "host or port is not valid"),
        ("ws://[::1/", ValueError, "host or port is not valid"),
        ("ws://[canary]/", ValueError, "host or port is not valid"),
        ("ws://h/canary x", ValueError, "spaces or control characters"),
        (" ws://h/", ValueError, "spaces or control characters"),
        ("ws://h/\r\nX-A: canary", ValueError, "spaces or control characters"),
        ("ws://h\n/canary", ValueError, "spaces or control characters"),
        ("ws://h/canary\0", ValueError, "spaces or control characters"),
        ("w\ts://h/canary", ValueError, "spaces or control characters"),
        ("ws://h/canary\x7f", ValueError, "spaces or control characters"),
        ("ws://h\\canary", ValueError, "must not contain a backslash"),
        ("ws://h/canary-é", ValueError, "must be ASCII; percent-encode"),
        ("ws://h/?q=canary-é", ValueError, "must be ASCII; percent-encode"),
        ("ws://a|b/canary", ValueError, "host must not contain"),
        ("ws://" + "x" * 300 + "/canary", ValueError, "host must not be longer"),
        ("ws://a..b/canary", ValueError, "label that is empty"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_url_that_cannot_be_used_is_refused_and_never_quoted(url, error, text):
    with pytest.raises(error, match=text) as caught:
        parse_url(url)

    assert error is type(caught.value)
    told = "".join(traceback.format_exception_only(caught.value))
    assert "canary" not in told
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("context", [True, False, "context", 1])
def test_a_context_is_a_context_or_none(context):
    with pytest.raises(TypeError, match=r"ssl_context must be ssl.SSLContext or None, not"):
        parse_url("wss://h/", context)


def test_a_target_shows_scheme_host_and_port_and_no_more():
    target = parse_url("wss://user:canary@h:8443/canary?canary")

    assert "wss://h:8443" == target.endpoint
    assert "canary" not in repr(target)
    assert "Y2FuYXJ5" not in repr(target)  # "canary" in base 64
    assert Target is type(target)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("ws://h/a", "ws://h"),
        ("wss://h/a", "wss://h"),
        ("ws://h:443/a", "ws://h:443"),
        ("wss://h:80/a", "wss://h:80"),
        ("ws://[::1]:80/a", "ws://[::1]"),
        ("ws://[::1]:81/a", "ws://[::1]:81"),
    ],
)
def test_an_endpoint_is_named_without_its_default_port(url, endpoint):
    assert endpoint == parse_url(url).endpoint


# --- what is meant --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown", "meant"),
    [
        ("http://127.0.0.1:8765/", "http://127.0.0.1:8765/", "ws://127.0.0.1:8765/"),
        ("HTTPS://Feed.example", "https://Feed.example", "wss://Feed.example"),
        ("http://[::1]:81/", "http://[::1]:81/", "ws://[::1]:81/"),
        ("127.0.0.1:8765", "127.0.0.1:8765", "ws://127.0.0.1:8765"),
        ("127.0.0.1:8765/", "127.0.0.1:8765/", "ws://127.0.0.1:8765/"),
        ("localhost:8765", "localhost:8765", "ws://localhost:8765"),
        ("[::1]:8765", "[::1]:8765", "ws://[::1]:8765"),
        ("feed.example:443", "feed.example:443", "wss://feed.example:443"),
        ("http://user:canary@h/", "http://h/", "ws://h/"),
        ("http://h/canary", "http://h/…", "ws://h/…"),
        ("http://h/?canary", "http://h/…", "ws://h/…"),
        ("http://h#canary", "http://h/…", "ws://h/…"),
        ("feed.example:80/canary", "feed.example:80/…", "ws://feed.example:80/…"),
        ("localhost:80?canary", "localhost:80/…", "ws://localhost:80/…"),
    ],
)
def test_a_url_of_another_scheme_is_told_with_the_one_that_may_be_meant(url, shown, meant):
    assert f"{shown!r} is no WebSocket URL: try {meant}" == mistake_in(url)


@pytest.mark.parametrize("url", ["ws://", "wss:", "ws:///canary", "ws://:80/", "ws://canary@/"])
def test_a_url_without_a_host_is_told(url):
    assert "the URL has no host" == mistake_in(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "canary",
        "canary:80",  # A user name and a password, perhaps.
        "user:canary@h:80",
        "feed.example:80/canary@h",
        "localhost:canary",
        "localhost:123456",
        "http://user:12/canary@h/",  # The password has a slash in it.
        "http://h:canary/",
        "http://[canary/",
        "http://canary /",
        "http:///canary",
        "http:canary",
        "ftp://canary/",
        "//canary/",
        "ws://h/canary é",
        None,
        b"http://h/",
    ],
)
def test_what_may_be_something_else_than_a_host_is_not_shown(url):
    assert mistake_in(url) is None
