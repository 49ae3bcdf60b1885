"""Proxies: which one is asked, how it is asked, and what it may do wrong."""

from __future__ import annotations

import base64
import importlib.util
import math
import socket
import ssl
import struct
import traceback

import attrs
import pytest
import trio
import trio.testing

from wsclient.connection import find_proxy, open_websocket_url, stream_opener
from wsclient.connection._proxy import Proxy, is_bypassed, parse_proxy
from wsclient.errors import ConnectionTimeout, HandshakeError, ProxyError
from wsclient.options import ConnectionOptions

TEXT, CLOSE = 1, 8

HTTP = "http://proxy.test:3128"
SECRET_HTTP = "http://user:canary@proxy.test:3128"
SOCKS5 = "socks5://proxy.test"
# Not written where a traceback would quote it.
SECRET_URL = "ws://server.test/canary?canary"
SECRET_SOCKS5 = "socks5h://user:canary@proxy.test"

# --- which one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "name"),
    [
        ("http://proxy.test", "http", "proxy.test", 80, "http://proxy.test"),
        ("http://proxy.test:3128/", "http", "proxy.test", 3128, "http://proxy.test:3128"),
        ("https://u:p@proxy.test", "https", "proxy.test", 443, "https://proxy.test"),
        ("SOCKS5://u:p@Proxy.test", "socks5", "proxy.test", 1080, "socks5://Proxy.test"),
        ("socks5h://[::1]:9050", "socks5h", "::1", 9050, "socks5h://[::1]:9050"),
        ("socks4a://u@proxy.test", "socks4a", "proxy.test", 1080, "socks4a://proxy.test"),
    ],
)
def test_a_proxy_s_url_is_taken_apart(url, scheme, host, port, name):
    proxy = parse_proxy(url)

    assert (scheme, host, port, name) == (proxy.scheme, proxy.host, proxy.port, proxy.name)


def test_a_proxy_s_credentials_are_not_printed():
    assert "canary" not in repr(parse_proxy("http://canary:canary@proxy.test"))


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables of proxies, and no others."""
    for name in ("ws", "wss", "socks", "all", "http", "https", "no", "ftp"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


def found(host="server.test", port=443, *, secure=True, proxy=True):
    found = find_proxy(ConnectionOptions(proxy=proxy), host, port, secure=secure)
    return found and found.name


EVERYTHING = {
    "ws_proxy": "http://ws.test",
    "wss_proxy": "http://wss.test",
    "socks_proxy": "socks5://socks.test",
    "all_proxy": "http://all.test",
    "https_proxy": "http://https.test",
    "http_proxy": "http://http.test",
}


@pytest.mark.parametrize("secure", [True, False])
def test_the_environment_s_proxies_have_an_order(environment, secure, monkeypatch):
    environment(**EVERYTHING)
    order = []
    for name in ("wss" if secure else "ws", "socks", "all", "https", "http"):
        order.append((name, found(secure=secure)))
        monkeypatch.delenv(f"{name}_proxy")

    assert all(name in proxy for name, proxy in order), order
    assert found(secure=secure) is None


def test_the_environment_is_read_only_when_it_is_asked_for(environment):
    environment(**EVERYTHING)

    assert found(proxy=None) is None
    assert found(proxy=False) is None
    assert "http://mine.test" == found(proxy="http://mine.test")
    assert "http://wss.test" == found(proxy=True)


def test_names_in_capitals_and_urls_without_a_scheme_are_understood(environment):
    environment(HTTPS_PROXY="user:pw@proxy.test:3128")

    assert "http://proxy.test:3128" == found()


def test_no_proxy_goes_directly(environment):
    environment(http_proxy="http://proxy.test", no_proxy="server.test")

    assert found() is None
    assert "http://proxy.test" == found("other.test")


def test_the_systems_settings_stand_in_for_an_empty_environment(environment, monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"http": "http://system.test"})
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: host == "server.test")

    assert found() is None
    assert "http://system.test" == found("other.test")
    environment(http_proxy="http://proxy.test")
    assert "http://proxy.test" == found()


def test_an_empty_environment_means_no_proxy(environment):
    assert found() is None


def test_a_variable_that_cannot_be_used_is_named_and_not_quoted(environment):
    environment(all_proxy="gopher://user:canary@proxy.test")
    with pytest.raises(ValueError, match=r"^all_proxy in the environment: proxy must") as caught:
        found()

    assert "canary" not in str(caught.value)


async def test_a_variable_that_cannot_be_used_is_an_error_of_opening(environment):
    environment(all_proxy="gopher://user:canary@proxy.test")
    with pytest.raises(ProxyError, match=r"^all_proxy in the environment: proxy must"):
        async with open_websocket_url("ws://server.test", proxy=True):
            pass


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "bypassed"),
    [
        ("", "server.test", 80, False),
        (" , ,", "server.test", 80, False),
        ("*", "server.test", 80, True),
        ("*", "10.0.0.1", 80, True),
        ("other.test, *", "server.test", 80, True),
        ("server.test", "server.test", 80, True),
        ("SERVER.test", "server.TEST", 80, True),
        ("server.test", "server.test.", 80, True),
        ("server.test", "a.server.test", 80, True),
        (".server.test", "a.server.test", 80, True),
        (".server.test", "server.test", 80, True),
        ("*.server.test", "a.server.test", 80, True),
        ("server.test", "myserver.test", 80, False),
        ("server.test", "server.test.evil", 80, False),
        ("a.server.test", "server.test", 80, False),
        ("test", "server.test", 80, True),
        (".", "server.test", 80, False),
        ("other.test,server.test", "server.test", 80, True),
        (" other.test , server.test ", "server.test", 80, True),
        ("server.test:80", "server.test", 80, True),
        ("server.test:81", "server.test", 80, False),
        ("*:81", "server.test", 80, False),
        ("*:80", "server.test", 80, True),
        ("10.0.0.1", "10.0.0.1", 80, True),
        ("10.0.0.1", "10.0.0.2", 80, False),
        ("10.0.0.1:80", "10.0.0.1", 80, True),
        ("10.0.0.1:81", "10.0.0.1", 80, False),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.1.2.3/8", "10.9.9.9", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("10.0.0.0/8", "ten.test", 80, False),
        ("10.0.0.0/99", "10.0.0.0", 80, False),
        ("0.0.0.1", "10.0.0.0.1.test", 80, False),
        ("1", "10.0.0.1", 80, False),
        ("::1", "::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:81", "::1", 80, False),
        ("0:0:0:0:0:0:0:1", "::1", 80, True),
        ("fd00::/8", "fd12::1", 80, True),
        ("fd00::/8", "fe80::1", 80, False),
        ("fe80::/10", "fe80::1%eth0", 80, True),
        ("10.0.0.0/8", "::1", 80, False),
        ("server.test", "::1", 80, False),
    ],
)
def test_no_proxy_lists_names_networks_and_ports(no_proxy, host, port, bypassed):
    assert bypassed is is_bypassed(host, port, no_proxy)


# --- proxies that the test plays ----------------------------------------------------------------


async def take(peer, size):
    while len(peer.received) < size:
        data = await peer.stream.receive_some()
        assert data, "the client went away"
        peer.received += data
    taken = bytes(peer.received[:size])
    del peer.received[:size]
    return taken


async def take_until_nul(peer):
    taken = bytearray()
    while (byte := await take(peer, 1)) != b"\0":
        taken += byte
    return bytes(taken)


@attrs.define
class Asked:
    """What a proxy was asked for."""

    host: str
    port: int
    credentials: tuple[str, str] | None = None


async def http_proxy(peer):
    line, *lines = (await peer.read_request()).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    method, authority, version = line.split()
    assert ("CONNECT", "HTTP/1.1", authority) == (method, version, headers["host"])
    asked = Asked(authority.rpartition(":")[0], int(authority.rpartition(":")[2]))
    for line in lines:
        if line.startswith("Proxy-Authorization: Basic "):
            user, _, password = base64.b64decode(line.split()[2]).decode().partition(":")
            asked.credentials = (user, password)
    await peer.send(b"HTTP/1.1 200 Connection ")
    await trio.testing.wait_all_tasks_blocked()
    await peer.send(b"established\r\nX: 1\r\n\r\n")
    return asked


async def socks4_proxy(peer):
    version, command, port = struct.unpack("!BBH", await take(peer, 4))
    assert (4, 1) == (version, command)
    address = await take(peer, 4)
    user = (await take_until_nul(peer)).decode()
    host = socket.inet_ntoa(address)
    if address == b"\0\0\0\1":
        host = (await take_until_nul(peer)).decode()
    await peer.send(b"\0\x5a\0\0\0\0\0\0")
    return Asked(host, port, (user, "") if user else None)


async def socks5_proxy(peer):
    version, count = await take(peer, 2)
    assert 5 == version
    methods = await take(peer, count)
    asked = Asked("", 0)
    if 2 in methods:
        await peer.send(b"\5\2")
        assert b"\1" == await take(peer, 1)
        user = await take(peer, (await take(peer, 1))[0])
        password = await take(peer, (await take(peer, 1))[0])
        asked.credentials = (user.decode(), password.decode())
        await peer.send(b"\1\0")
    else:
        await peer.send(b"\5\0")
    version, command, reserved, kind = await take(peer, 4)
    assert (5, 1, 0) == (version, command, reserved)
    if kind == 1:
        asked.host = socket.inet_ntop(socket.AF_INET, await take(peer, 4))
    elif kind == 4:
        asked.host = socket.inet_ntop(socket.AF_INET6, await take(peer, 16))
    else:
        asked.host = "name:" + (await take(peer, (await take(peer, 1))[0])).decode()
    asked.port = int.from_bytes(await take(peer, 2))
    await peer.send(b"\5\0\0\1\0\0\0")
    await trio.testing.wait_all_tasks_blocked()
    await peer.send(b"\0\0\0")
    return asked


@pytest.fixture
async def no_lookups():
    """Whoever looks up a name here gives away where we go."""

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args, **kwargs):
            raise AssertionError("a name was looked up")

        getnameinfo = getaddrinfo

    trio.socket.set_custom_hostname_resolver(Resolver())


@pytest.mark.parametrize(
    ("proxy", "script", "url", "asked"),
    [
        (HTTP, http_proxy, "ws://server.test", Asked("server.test", 80)),
        (HTTP, http_proxy, "ws://bücher.test", Asked("xn--bcher-kva.test", 80)),
        (HTTP, http_proxy, "ws://[::1]:81/", Asked("[::1]", 81)),
        (HTTP, http_proxy, "ws://[fe80::1%25eth0]:81/", Asked("[fe80::1]", 81)),
        (SECRET_HTTP, http_proxy, "ws://server.test", Asked("server.test", 80, ("user", "canary"))),
        (
            "http://us%C3%A9r:p%3A%40%2Fw@proxy.test",
            http_proxy,
            "ws://server.test",
            Asked("server.test", 80, ("usér", "p:@/w")),
        ),
        ("http://user@proxy.test", http_proxy, "ws://a.test", Asked("a.test", 80, ("user", ""))),
        ("http://:pw@proxy.test", http_proxy, "ws://a.test", Asked("a.test", 80, ("", "pw"))),
        (SOCKS5, socks5_proxy, "ws://server.test", Asked("name:server.test", 80)),
        (
            SECRET_SOCKS5,
            socks5_proxy,
            "ws://server.test",
            Asked("name:server.test", 80, ("user", "canary")),
        ),
        (
            "socks5://u%20s:p%40w@proxy.test",
            socks5_proxy,
            "ws://bücher.test:81",
            Asked("name:xn--bcher-kva.test", 81, ("u s", "p@w")),
        ),
        (SOCKS5, socks5_proxy, "ws://10.0.0.1", Asked("10.0.0.1", 80)),
        (SOCKS5, socks5_proxy, "ws://[::1]", Asked("::1", 80)),
        (SOCKS5, socks5_proxy, "ws://[fe80::1%25eth0]", Asked("fe80::1", 80)),
        ("socks4a://proxy.test", socks4_proxy, "ws://server.test", Asked("server.test", 80)),
        ("socks4a://me@proxy.test", socks4_proxy, "ws://a.test", Asked("a.test", 80, ("me", ""))),
        ("socks4://proxy.test", socks4_proxy, "ws://10.0.0.1:81", Asked("10.0.0.1", 81)),
    ],
)
async def test_a_connection_goes_through_the_proxy(
    network, nursery, no_lookups, proxy, script, url, asked
):
    seen = []

    async def serve():
        peer = await network.accept()
        seen.append(await script(peer))
        seen.append(await peer.accept())
        await peer.send_frame(TEXT, b"hello")
        await peer.answer_close()

    nursery.start_soon(serve)
    async with open_websocket_url(url, proxy=proxy) as connection:
        assert "hello" == await connection.get_message()

    assert asked == seen[0]
    # What is for the proxy does not reach the server.
    assert b"canary" not in seen[1]
    assert b"roxy" not in seen[1]


async def test_the_proxy_is_where_the_stream_goes(network, nursery):
    opened = []

    async def open_stream(host, port):
        opened.append((host, port))
        return await network.open(host, port)

    stream_opener.set(open_stream)

    async def serve():
        peer = await network.accept()
        await http_proxy(peer)
        await peer.accept()
        await peer.answer_close()

    nursery.start_soon(serve)
    async with open_websocket_url("ws://server.test", proxy=HTTP):
        pass

    assert [("proxy.test", 3128)] == opened


async def test_socks4_has_no_names_so_they_are_looked_up_here(network, nursery):
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
            await trio.lowlevel.checkpoint()
            if host != b"server.test":  # trio has encoded it.
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.7", 0))]

        async def getnameinfo(self, *args):
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Resolver())
    asked = []

    async def serve():
        peer = await network.accept()
        asked.append(await socks4_proxy(peer))
        await peer.accept()
        await peer.answer_close()
        peer = await network.accept()
        assert b"" == await peer.receive_rest()

    nursery.start_soon(serve)
    async with open_websocket_url("ws://server.test", proxy="socks4://proxy.test"):
        pass

    assert [Asked("192.0.2.7", 80)] == asked

    with pytest.raises(HandshakeError, match=r"^cannot look up other.test: no such name$"):
        async with open_websocket_url("ws://other.test", proxy="socks4://proxy.test"):
            pass


async def test_another_host_and_port_are_asked_of_the_proxy(network, nursery):
    seen = []

    async def serve():
        peer = await network.accept()
        seen.append(await http_proxy(peer))
        seen.append(await peer.accept())
        await peer.answer_close()

    nursery.start_soon(serve)
    async with open_websocket_url(
        "ws://server.test", proxy=HTTP, connect_host="10.0.0.1", connect_port=81
    ):
        pass

    assert Asked("10.0.0.1", 81) == seen[0]
    assert b"\r\nHost: server.test\r\n" in seen[1]


# --- TLS ----------------------------------------------------------------------------------------


def over_tls(peer, context):
    peer.stream = trio.SSLStream(peer.stream, context, server_side=True, https_compatible=True)


@pytest.mark.parametrize(
    ("proxy", "script"),
    [("http://localhost", http_proxy), ("https://localhost", http_proxy), (SOCKS5, socks5_proxy)],
)
@pytest.mark.parametrize("url", ["ws://localhost", "wss://localhost"])
async def test_tls_goes_to_the_server_and_to_the_proxy(network, nursery, tls, proxy, script, url):
    async def serve():
        peer = await network.accept()
        if proxy.startswith("https"):
            over_tls(peer, tls.server)
        await script(peer)
        if url.startswith("wss"):
            over_tls(peer, tls.server)
        await peer.accept()
        await peer.send_frame(TEXT, b"x" * 100_000)
        await peer.answer_close()

    nursery.start_soon(serve)
    async with open_websocket_url(
        url,
        tls.client if url.startswith("wss") else None,
        proxy=proxy,
        proxy_ssl_context=tls.client if proxy.startswith("https") else None,
    ) as connection:
        assert "x" * 100_000 == await connection.get_message()


async def test_the_server_s_certificate_is_verified_through_a_proxy(network, nursery, tls):
    async def serve():
        peer = await network.accept()
        await http_proxy(peer)
        over_tls(peer, tls.other_server)
        with pytest.raises(trio.BrokenResourceError):
            await peer.stream.do_handshake()

    nursery.start_soon(serve)
    with pytest.raises(HandshakeError, match=r"^TLS with wss://localhost failed") as caught:
        async with open_websocket_url("wss://localhost", tls.client, proxy=HTTP):
            pass

    assert HandshakeError is type(caught.value)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_the_proxy_s_certificate_is_verified_before_it_gets_credentials(
    network, nursery, tls
):
    async def serve():
        peer = await network.accept()
        over_tls(peer, tls.other_server)
        with pytest.raises(trio.BrokenResourceError):
            await peer.stream.do_handshake()

    nursery.start_soon(serve)
    with pytest.raises(
        ProxyError, match=r"^TLS with the proxy https://localhost failed: "
    ) as caught:
        async with open_websocket_url(
            "ws://server.test", proxy="https://user:pw@localhost", proxy_ssl_context=tls.client
        ):
            pass

    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


# --- what proxies do wrong ----------------------------------------------------------------------


@attrs.frozen
class Wrong:
    """What a proxy answers to each thing that it reads, and what the client should say."""

    name: str
    proxy: str
    answers: tuple[bytes, ...]
    text: str
    status: int | None = None
    hang_up: bool = True


METHOD_NONE, METHOD_PASSWORD = b"\5\0", b"\5\2"

WRONGS = [
    Wrong(
        "407", SECRET_HTTP, (b"HTTP/1.1 407 canary\r\n\r\n",), "refused to connect: HTTP 407", 407
    ),
    Wrong("403", SECRET_HTTP, (b"HTTP/1.1 403 No\r\n\r\nno",), "refused to connect: HTTP 403", 403),
    Wrong("502", HTTP, (b"HTTP/1.1 502 No\r\n\r\n",), "refused to connect: HTTP 502", 502),
    Wrong("302", HTTP, (b"HTTP/1.1 302 No\r\nLocation: /\r\n\r\n",), "HTTP 302", 302),
    Wrong("endless body", HTTP, (b"HTTP/1.1 500 X\r\n\r\n" + b"x" * 10**6,), "HTTP 500", 500),
    Wrong("no HTTP", HTTP, (b"SSH-2.0\r\n",), "not HTTP/1.1"),
    Wrong("SOCKS", HTTP, (b"\5\0",), "not HTTP/1.1"),
    Wrong("huge head", HTTP, (b"HTTP/1.1 200 X\r\nX: " + b"x" * 20_000,), "exceeds 16 KiB"),
    Wrong("many headers", HTTP, (b"HTTP/1.1 200 X\r\n" + b"X: 1\r\n" * 200 + b"\r\n",), "128"),
    Wrong("data behind", HTTP, (b"HTTP/1.1 200 X\r\n\r\nHTTP/1.1 101 X\r\n\r\n",), "sent data"),
    Wrong("EOF", HTTP, (b"",), "closed the connection before it answered"),
    Wrong("EOF inside", HTTP, (b"HTTP/1.1 200 X\r\n",), "closed the connection inside its answer"),
    Wrong("password", SECRET_SOCKS5, (METHOD_PASSWORD, b"\1\1"), "authentication failure", 407),
    Wrong("none accepted", SECRET_SOCKS5, (b"\5\xff",), "authentication methods", 407),
    Wrong("password needed", SOCKS5, (METHOD_PASSWORD,), "authentication method", 407),
    Wrong("method GSSAPI", SOCKS5, (b"\5\1",), "authentication method", 407),
    Wrong("method 0x42", SOCKS5, (b"\5\x42",), "authentication method", 407),
    Wrong("general failure", SOCKS5, (METHOD_NONE, b"\5\1\0\1" + b"\0" * 6), "General SOCKS"),
    Wrong("not allowed", SOCKS5, (METHOD_NONE, b"\5\2\0\1" + b"\0" * 6), "not allowed", 403),
    Wrong("network", SOCKS5, (METHOD_NONE, b"\5\3\0\1" + b"\0" * 6), "Network unreachable"),
    Wrong("host", SOCKS5, (METHOD_NONE, b"\5\4\0\1" + b"\0" * 6), "Host unreachable"),
    Wrong("refused", SOCKS5, (METHOD_NONE, b"\5\5\0\1" + b"\0" * 6), "Connection refused"),
    Wrong("TTL", SOCKS5, (METHOD_NONE, b"\5\6\0\1" + b"\0" * 6), "TTL expired"),
    Wrong("reply 0x99", SOCKS5, (METHOD_NONE, b"\5\x99\0\1" + b"\0" * 6), "Invalid reply code"),
    Wrong("version", SOCKS5, (b"\4\0",), "version"),
    Wrong("later version", SOCKS5, (METHOD_NONE, b"\4\0\0\1" + b"\0" * 6), "version"),
    Wrong("reserved", SOCKS5, (METHOD_NONE, b"\5\0\1\1" + b"\0" * 6), "reserved"),
    Wrong("address type", SOCKS5, (METHOD_NONE, b"\5\0\0\7" + b"\0" * 6), "."),
    Wrong("HTTP", SOCKS5, (b"HTTP/1.1 400 X\r\n\r\n",), "version"),
    Wrong("SOCKS EOF", SOCKS5, (b"",), "closed the connection before it connected us"),
    Wrong("EOF after method", SOCKS5, (METHOD_NONE, b""), "closed the connection before"),
    Wrong("EOF in reply", SOCKS5, (METHOD_NONE, b"\5\0\0\3\x10abc"), "closed the connection"),
    Wrong("name not UTF-8", SOCKS5, (METHOD_NONE, b"\5\0\0\3\1\xff\0\0"), "cannot be read"),
    Wrong("SOCKS4", "socks4a://proxy.test", (b"\0\x5b" + b"\0" * 6,), "rejected or failed"),
    Wrong("SOCKS4 identd", "socks4a://canary@proxy.test", (b"\0\x5c" + b"\0" * 6,), "identd", 407),
    Wrong("SOCKS4 user", "socks4a://canary@proxy.test", (b"\0\x5d" + b"\0" * 6,), "user-ids", 407),
    Wrong("SOCKS4 garbage", "socks4a://proxy.test", (b"\7\x5a" + b"\0" * 6,), "version"),
    Wrong("SOCKS4 EOF", "socks4a://proxy.test", (b"\0\x5a",), "closed the connection"),
]


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.name)
async def test_a_proxy_that_does_not_connect_us_is_an_error_at_once_and_closes_the_stream(
    network, nursery, autojump_clock, wrong
):
    ended = trio.Event()

    async def serve():
        peer = await network.accept()
        try:
            for answer in wrong.answers:
                assert await peer.stream.receive_some()
                await peer.send(answer)
            await peer.stream.send_eof()
            await peer.receive_rest()
        except trio.BrokenResourceError:
            pass  # The client did not wait for all of it.
        ended.set()

    nursery.start_soon(serve)
    start = trio.current_time()
    with pytest.raises(ProxyError, match=wrong.text) as caught:
        async with open_websocket_url(SECRET_URL, proxy=wrong.proxy):
            pass
    await ended.wait()

    assert 0 == trio.current_time() - start
    assert wrong.status == caught.value.status_code
    assert parse_proxy(wrong.proxy).name in str(caught.value)
    assert str(caught.value).isprintable()
    told = "".join(traceback.format_exception(caught.value))
    assert "canary" not in told
    assert base64.b64encode(b"user:canary").decode() not in told


@pytest.mark.parametrize("proxy", [HTTP, SOCKS5, "socks4a://proxy.test"])
async def test_a_proxy_that_breaks_off_is_an_error(network, nursery, proxy):
    async def serve():
        peer = await network.accept()
        await peer.stream.aclose()

    nursery.start_soon(serve)
    with pytest.raises(ProxyError, match=r"^the (connection to the )?proxy .*proxy.test"):
        async with open_websocket_url("ws://server.test", proxy=proxy):
            pass


async def test_a_proxy_that_cannot_be_reached_is_named():
    async def fail(host, port):
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError(111, "refused")

    stream_opener.set(fail)
    with pytest.raises(
        ProxyError, match=r"^cannot connect to the proxy http://proxy.test:3128: .*refused"
    ) as caught:
        async with open_websocket_url("ws://server.test", proxy=SECRET_HTTP):
            pass

    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert "canary" not in str(caught.value)


# --- deadlines and cancellation -----------------------------------------------------------------


async def says_nothing(peer):
    pass


async def drips(peer):
    await peer.send(b"HTTP/1.1 200 X\r\n")
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await peer.send(b"x")
            await trio.sleep(1)


async def stops_after_the_method(peer):
    await peer.send(METHOD_NONE)


async def connects_us_to_nobody(peer):
    await http_proxy(peer)


@pytest.mark.parametrize(
    ("proxy", "script"),
    [
        (HTTP, says_nothing),
        ("https://proxy.test", says_nothing),
        (SOCKS5, says_nothing),
        ("socks4a://proxy.test", says_nothing),
        (HTTP, drips),
        (SOCKS5, stops_after_the_method),
        (HTTP, connects_us_to_nobody),
    ],
)
@pytest.mark.parametrize("url", ["ws://server.test", "wss://server.test"])
async def test_one_deadline_covers_the_proxy_too(
    network, nursery, autojump_clock, proxy, script, url
):
    ended = trio.Event()

    async def serve():
        peer = await network.accept()
        await script(peer)
        await peer.receive_rest()
        ended.set()

    nursery.start_soon(serve)
    start = trio.current_time()
    with pytest.raises(ConnectionTimeout, match=r"server\.test was not connected within 5 s"):
        async with open_websocket_url(url, proxy=proxy, connect_timeout=5):
            pass

    assert 5 == trio.current_time() - start
    await ended.wait()


class CancelAtStep(trio.abc.Instrument):
    """Cancels before the step of a given number."""

    def __init__(self, step):
        self.step = step
        self.count = 0
        self.scope = None
        self.acted = False

    def before_task_step(self, task):
        if self.scope is not None:
            self.count += 1
            if self.count == self.step:
                self.acted = True
                self.scope.cancel()


@pytest.mark.parametrize(
    ("proxy", "script"),
    [
        (SECRET_HTTP, http_proxy),
        ("https://localhost", http_proxy),
        (SECRET_SOCKS5, socks5_proxy),
        ("socks4a://proxy.test", socks4_proxy),
    ],
)
def test_cancelled_at_any_step_nothing_is_left_open(proxy, script, tls, make_peer):
    async def story(instrument):
        clients, ended = [], trio.Event()

        async def open_stream(host, port):
            await trio.lowlevel.checkpoint()
            client, server = trio.testing.memory_stream_pair()
            clients.append(client)
            nursery.start_soon(serve, make_peer(server))
            return client

        async def serve(peer):
            try:
                if proxy.startswith("https"):
                    over_tls(peer, tls.server)
                await script(peer)
                over_tls(peer, tls.server)
                await peer.accept()
                await peer.answer_close()
            except (trio.BrokenResourceError, AssertionError):
                pass  # Where the client was cancelled.
            await trio.aclose_forcefully(peer.stream)
            ended.set()

        stream_opener.set(open_stream)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                instrument.scope = scope
                async with open_websocket_url(
                    "wss://localhost",
                    tls.client,
                    proxy=proxy,
                    proxy_ssl_context=tls.client if proxy.startswith("https") else None,
                    disconnect_timeout=1,
                ):
                    pass
            instrument.scope = None
            if clients:
                await ended.wait()
        for client in clients:
            with pytest.raises(trio.ClosedResourceError):
                await client.send_all(b"x")

    step = ended_before = 0
    while ended_before < 3:
        step += 1
        instrument = CancelAtStep(step)
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(story, instrument, clock=clock, instruments=[instrument])
        ended_before = 0 if instrument.acted else ended_before + 1

    assert step > 20


# --- what is not installed ----------------------------------------------------------------------


def test_socks_without_its_package_is_refused_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert Proxy is type(parse_proxy(HTTP))
    with pytest.raises(ImportError, match=r"^a socks5 proxy needs python-socks: .*\[proxy\]"):
        ConnectionOptions(proxy=SOCKS5)
    with pytest.raises(ImportError, match=r"pip install 'wsclient-trio\[proxy\]'"):
        open_websocket_url("ws://server.test", proxy="socks4a://user@proxy.test")


async def test_socks_of_the_environment_without_its_package_is_an_error_of_opening(
    monkeypatch, environment
):
    environment(all_proxy=SOCKS5)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ProxyError, match=r"^all_proxy in the environment: a socks5 proxy needs python-socks"
    ) as caught:
        async with open_websocket_url("ws://server.test", proxy=True, connect_timeout=math.inf):
            pass

    assert isinstance(caught.value.__cause__, ImportError)
