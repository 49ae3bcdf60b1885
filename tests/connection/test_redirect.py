"""Redirects: followed as far as allowed, and without what belongs to another origin."""

from __future__ import annotations

import ssl
import traceback

import pytest
import trio

from wsclient.connection import open_websocket, open_websocket_url
from wsclient.connection._redirect import Request, redirected
from wsclient.connection._stream import default_ssl_context
from wsclient.errors import ConnectionRejected, ConnectionTimeout, HandshakeError
from wsclient.options import ConnectionOptions

FOLLOW = ConnectionOptions(redirects=3)
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

SECRETS = (
    (b"Authorization", b"canary"),
    (b"AUTHORIZATION", b"canary"),
    (b"authorization", b"canary"),
    (b"Proxy-Authorization", b"canary"),
    (b"X-Amz-Authorization", b"canary"),
    (b"Cookie", b"canary"),
    (b"cOOkie", b"canary"),
    (b"Cookie2", b"canary"),
    (b"X-Api-Key", b"canary"),
    (b"x-apikey", b"canary"),
    (b"API_KEY", b"canary"),
    (b"Ocp-Apim-Subscription-Key", b"canary"),
    (b"X-Auth-Token", b"canary"),
    (b"PRIVATE-TOKEN", b"canary"),
    (b"X-CSRF-Token", b"canary"),
    (b"X-XSRF", b"canary"),
    (b"X-Client-Secret", b"canary"),
    (b"X-Password", b"canary"),
    (b"X-Session-Id", b"canary"),
    (b"X-Signature", b"canary"),
    (b"X-JWT-Assertion", b"canary"),
    (b"X-Client-Cert", b"canary"),
    (b"X-Credentials", b"canary"),
    (b"X-Whatever", b"Bearer canary"),
    (b"X-Whatever", b"basic canary"),
    (b"Host", b"canary.test"),
)
HARMLESS = ((b"Origin", b"https://app.test"), (b"X-Trace", b"1"), (b"User-Agent", b"mine/1"))


def a_request(url="ws://a.test/dir/page?q=1", headers=()):
    scheme, _, rest = url.partition("://")
    authority, _, resource = rest.partition("/")
    host, _, port = authority.partition(":")
    context = CONTEXT if scheme == "wss" else None
    return Request(host, int(port or (443 if context else 80)), f"/{resource}", context, headers)


def a_refusal(location, status=302):
    values = [location] if isinstance(location, (str, bytes)) else location
    return ConnectionRejected(
        status,
        tuple(
            (b"location", value.encode() if isinstance(value, str) else value) for value in values
        ),
        b"",
    )


# --- where it leads -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "endpoint", "resource"),
    [
        ("ws://b.test/x", "ws://b.test", "/x"),
        ("wss://b.test:8443/x", "wss://b.test:8443", "/x"),
        ("http://b.test/x", "ws://b.test", "/x"),
        ("https://b.test/x", "wss://b.test", "/x"),
        ("HTTPS://B.test/x", "wss://b.test", "/x"),
        ("//b.test/x", "ws://b.test", "/x"),
        ("/x?y", "ws://a.test", "/x?y"),
        ("x", "ws://a.test", "/dir/x"),
        ("../x", "ws://a.test", "/x"),
        ("?y", "ws://a.test", "/dir/page?y"),
        ("", "ws://a.test", "/dir/page?q=1"),
        ("/x#fragment", "ws://a.test", "/x"),
        ("ws://a.test:80/x", "ws://a.test", "/x"),
        ("ws://user:canary@a.test/x", "ws://a.test", "/x"),
        ("ws://[::1]:81/x", "ws://[::1]:81", "/x"),
    ],
)
def test_a_location_may_be_absolute_or_relative(location, endpoint, resource):
    following = redirected(a_request(), a_refusal(location), FOLLOW, 0)

    assert (endpoint, resource) == (following.endpoint, following.resource)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_these_statuses_redirect(status):
    assert redirected(a_request(), a_refusal("/x", status), FOLLOW, 0) is not None


@pytest.mark.parametrize("status", [200, 300, 304, 305, 306, 399, 401, 404, 503])
def test_no_other_status_redirects(status):
    assert redirected(a_request(), a_refusal("/x", status), FOLLOW, 0) is None


def test_a_redirect_to_nowhere_is_a_refusal():
    assert redirected(a_request(), a_refusal([]), FOLLOW, 0) is None


def test_none_is_followed_by_default():
    assert redirected(a_request(), a_refusal("/x"), ConnectionOptions(), 0) is None


@pytest.mark.parametrize(
    ("location", "text"),
    [
        (["/x", "/y"], "several places"),
        ("ftp://canary.test/", "must lead to ws:"),
        ("javascript:canary", "must lead to ws:"),
        ("ws://canary test/", "must be ASCII without"),
        ("/canary\tx", "must be ASCII without"),
        ("/\x7fcanary", "must be ASCII without"),
        ("/canary\u00e9", "must be ASCII without"),
        (b"/canary\xff", "must be ASCII without"),
        ("/canary\\x", "backslash"),
        ("ws://b.test:canary/", "malformed"),
        ("ws://b.test:0/", "port must not be 0"),
        ("ws:///canary", "host"),
        ("ws://[canary/", "no WebSocket URL"),
        ("ws://" + "x" * 300, "host must not be longer"),
        ("ws://a|canary/", "host must not contain"),
    ],
)
def test_a_location_that_leads_nowhere_is_an_error_that_does_not_quote_it(location, text):
    refusal = a_refusal(location)
    with pytest.raises(HandshakeError, match=text) as caught:
        redirected(a_request(), refusal, FOLLOW, 0)

    assert caught.value.__cause__ is refusal
    assert "canary" not in "".join(traceback.format_exception_only(caught.value))


def test_tls_is_never_given_up():
    with pytest.raises(
        HandshakeError, match=r"^wss://a.test redirected to ws://b.test, which has no TLS"
    ):
        redirected(a_request("wss://a.test/"), a_refusal("ws://b.test/canary"), FOLLOW, 0)


def test_tls_goes_on_with_the_same_context_and_begins_with_the_default_one():
    kept = redirected(a_request("wss://a.test/"), a_refusal("wss://b.test/"), FOLLOW, 0)
    begun = redirected(a_request("ws://a.test/"), a_refusal("wss://a.test/"), FOLLOW, 0)

    assert kept.ssl_context is CONTEXT
    assert begun.ssl_context is default_ssl_context()


# --- what goes along ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location", ["/x", "ws://a.test/x", "ws://A.TEST:80/x", "http://a.test/x", "//a.test"]
)
def test_everything_goes_along_within_an_origin(location):
    headers = SECRETS + HARMLESS
    request = a_request(headers=headers)

    assert headers == redirected(request, a_refusal(location), FOLLOW, 0).headers


@pytest.mark.parametrize(
    "location",
    [
        "ws://b.test/",
        "ws://a.test:81/",
        "wss://a.test/",
        "wss://a.test:80/",
        "ws://www.a.test/",
        "ws://a.test.b.test/",
        "ws://a.test@b.test/",
        "//b.test",
    ],
)
def test_no_secret_goes_to_another_origin(location):
    request = a_request(headers=SECRETS + HARMLESS)

    assert HARMLESS == redirected(request, a_refusal(location), FOLLOW, 0).headers


def test_secrets_do_not_come_back():
    away = redirected(a_request(headers=SECRETS), a_refusal("ws://b.test/"), FOLLOW, 0)

    assert () == redirected(away, a_refusal("ws://a.test/"), FOLLOW, 1).headers


@pytest.mark.parametrize(
    "options",
    [
        {"unix_socket": "/run/socket"},
        {"connect_host": "10.0.0.1"},
        {"connect_port": 81},
        {"server_hostname": "other.test"},
    ],
)
def test_what_is_given_for_one_origin_is_not_used_for_another(options):
    options = ConnectionOptions(redirects=3, **options)

    assert redirected(a_request(), a_refusal("/x"), options, 0) is not None
    with pytest.raises(HandshakeError, match=r"is given for ws://a\.test"):
        redirected(a_request(), a_refusal("ws://b.test/x"), options, 0)


def test_a_request_shows_scheme_host_and_port_and_no_more():
    assert "canary" not in repr(a_request("ws://a.test/canary", headers=SECRETS))


# --- two servers --------------------------------------------------------------------------------


async def redirect(peer, location, status=302):
    request = await peer.read_request()
    await peer.send(
        f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert b"" == await peer.receive_rest()
    return request


def lines_of(request):
    return dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:])


async def test_a_redirect_is_followed_to_another_server_without_the_credentials(network, nursery):
    requests = []

    async def serve():
        requests.append(await redirect(await network.accept(), "ws://b.test:81/there?key"))
        peer = await network.accept()
        requests.append(await peer.accept())
        await peer.answer_close()

    nursery.start_soon(serve)
    async with open_websocket_url(
        "ws://user:canary@a.test/here",
        redirects=1,
        extra_headers=[("X-Api-Key", "canary"), ("X-Trace", "1")],
    ) as connection:
        assert "/there?key" == connection.path

    first, second = requests
    assert first.startswith(b"GET /here HTTP/1.1\r\nHost: a.test\r\n")
    assert {b"Authorization", b"X-Api-Key", b"X-Trace"} < lines_of(first).keys()
    assert second.startswith(b"GET /there?key HTTP/1.1\r\nHost: b.test:81\r\n")
    assert not {b"Authorization", b"X-Api-Key"} & lines_of(second).keys()
    assert b"1" == lines_of(second)[b"X-Trace"]
    assert lines_of(first)[b"Sec-WebSocket-Key"] != lines_of(second)[b"Sec-WebSocket-Key"]


async def test_the_proxys_credentials_go_to_the_proxy_on_every_hop_and_nowhere_else(
    network, nursery, monkeypatch
):
    for name in ("wss", "socks", "all", "https", "http", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    monkeypatch.setenv("ws_proxy", "http://user:canary@proxy.test")
    tunnels, requests = [], []

    async def tunnel():
        peer = await network.accept()
        tunnels.append(await peer.read_request())
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        return peer

    async def serve():
        requests.append(await redirect(await tunnel(), "ws://b.test/"))
        requests.append(await redirect(await tunnel(), "ws://direct.test/"))
        peer = await network.accept()
        requests.append(await peer.accept())
        await peer.answer_close()

    monkeypatch.setenv("no_proxy", "direct.test")
    nursery.start_soon(serve)
    async with open_websocket_url("ws://a.test/", redirects=2, proxy=True):
        pass

    secret = b"Basic dXNlcjpjYW5hcnk="
    assert [b"CONNECT a.test:80 HTTP/1.1", b"CONNECT b.test:80 HTTP/1.1"] == [
        each.split(b"\r\n")[0] for each in tunnels
    ]
    assert all(secret in each for each in tunnels)
    assert not any(b"Proxy" in each or secret in each for each in requests)


@pytest.mark.parametrize("redirects", [1, 2, 5])
async def test_a_loop_ends_at_the_limit(network, nursery, redirects):
    async def serve():
        for _ in range(redirects + 1):
            await redirect(await network.accept(), "/again")

    nursery.start_soon(serve)
    with pytest.raises(
        HandshakeError,
        match=f"^ws://a.test redirected to ws://a.test: not followed, after {redirects} others$",
    ) as caught:
        async with open_websocket("a.test", 80, "/", use_ssl=False, redirects=redirects):
            pass

    assert 302 == caught.value.__cause__.status_code
    assert redirects + 1 == len(network.client_streams)


async def test_without_the_option_a_redirect_is_a_rejection(network, nursery):
    async def serve():
        await redirect(await network.accept(), "/there", 307)

    nursery.start_soon(serve)
    with pytest.raises(ConnectionRejected) as caught:
        async with open_websocket_url("ws://a.test/"):
            pass

    assert (307, b"/there") == (caught.value.status_code, dict(caught.value.headers)[b"location"])
    assert 1 == len(network.client_streams)


async def test_a_refusal_after_a_redirect_is_a_rejection(network, nursery):
    async def serve():
        await redirect(await network.accept(), "/there")
        await redirect(await network.accept(), "/there", 403)

    nursery.start_soon(serve)
    with pytest.raises(ConnectionRejected, match="HTTP 403"):
        async with open_websocket_url("ws://a.test/", redirects=3):
            pass


async def test_every_hop_is_under_the_same_deadline(network, nursery, autojump_clock):
    async def serve():
        peer = await network.accept()
        await trio.sleep(2)
        await redirect(peer, "ws://b.test/")
        peer = await network.accept()
        await peer.receive_rest()

    nursery.start_soon(serve)
    start = trio.current_time()
    with pytest.raises(ConnectionTimeout, match=r"^ws://a.test was not connected within 5 s$"):
        async with open_websocket_url("ws://a.test/", redirects=3, connect_timeout=5):
            pass

    assert 5 == trio.current_time() - start


async def test_from_plain_to_tls_and_no_way_back(network, nursery, tls, monkeypatch):
    monkeypatch.setattr("wsclient.connection._redirect.default_ssl_context", lambda: tls.client)

    async def serve():
        await redirect(await network.accept(), "wss://localhost/")
        peer = await network.accept()
        peer.stream = trio.SSLStream(
            peer.stream, tls.server, server_side=True, https_compatible=True
        )
        await redirect(peer, "ws://localhost/")

    nursery.start_soon(serve)
    with pytest.raises(HandshakeError, match="no TLS: not followed"):
        async with open_websocket_url("ws://localhost/", redirects=3):
            pass

    assert 2 == len(network.client_streams)
