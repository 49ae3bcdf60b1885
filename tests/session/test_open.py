"""Opening channels: what is refused, by the call and with a clear text; what is passed on."""

from __future__ import annotations

import ssl

import pytest
import trio

import wsclient
from wsclient.connection import stream_opener
from wsclient.options import ConnectionOptions, HeartbeatOptions, Limits, RetryPolicy
from wsclient.testing import FaultServer

URL = "ws://server.test"


class YarlLike:
    """An object whose text is a URL, as those of URL libraries are."""

    def __str__(self):
        return "ws://server.test/path?key=1"


async def observe(event):
    """An observer must not be asynchronous: nobody would await it."""


BAD_URLS = [
    (None, TypeError, "URL must be str, not NoneType"),
    (b"ws://server.test", TypeError, "URL must be str, not bytes"),
    (42, TypeError, "URL must be str, not int"),
    ("", ValueError, 'scheme must be "ws:" or "wss:"'),
    ("server.test", ValueError, "scheme must be"),
    ("//server.test", ValueError, "scheme must be"),
    ("http://server.test", ValueError, "'http://server.test' is no WebSocket URL: try ws://server"),
    ("https://server.test", ValueError, "try wss://server.test"),
    ("server.test:80", ValueError, "try ws://server.test:80"),
    ("ws:", ValueError, "the URL has no host"),
    ("ws://", ValueError, "the URL has no host"),
    ("ws:///path", ValueError, "host"),
    ("ws://:80", ValueError, "host"),
    ("ws://server.test:0", ValueError, "port"),
    ("ws://server.test:65536", ValueError, "port"),
    ("ws://server.test:http", ValueError, "port"),
    ("ws://user:pa/ss@server.test", ValueError, "percent-encode"),
    ("ws://[::1", ValueError, "malformed"),
    ("ws://server.test/a b", ValueError, "spaces or control characters"),
    ("ws://server.test/\r\nX-Injected: 1", ValueError, "control characters"),
    ("ws://server.test/\0", ValueError, "control characters"),
    ("ws://server.test/\x7f", ValueError, "control characters"),
    ("ws://server.test/größe", ValueError, "ASCII"),
    ("ws://" + "a" * 64 + ".test", ValueError, "host"),
    ("ws://a..test", ValueError, "host"),
    (" ws://server.test", ValueError, "spaces"),
]
BAD_OPTIONS = [
    ({"ssl_context": True}, TypeError, r"ssl_context must be ssl\.SSLContext or None, not bool"),
    ({"ssl_context": ssl.create_default_context()}, ValueError, "must be None for ws:"),
    ({"on_connect": 1}, TypeError, "on_connect must be an async function, not int"),
    ({"on_connect": "hook"}, TypeError, "on_connect must be an async function, not str"),
    ({"name": 1}, TypeError, "name must be str, not int"),
    ({"name": b"feed"}, TypeError, "name must be str, not bytes"),
    ({"connection": {}}, TypeError, "connection must be ConnectionOptions, not dict"),
    ({"connection": RetryPolicy()}, TypeError, "connection must be ConnectionOptions, not Retry"),
    ({"connection": ConnectionOptions}, TypeError, "connection must be ConnectionOptions, not"),
    ({"heartbeat": 20}, TypeError, "heartbeat must be HeartbeatOptions, not int"),
    ({"retry": 3}, TypeError, "retry must be RetryPolicy, not int"),
    ({"retry": False}, TypeError, "retry must be RetryPolicy, not bool"),
    ({"limits": 1024}, TypeError, "limits must be Limits, not int"),
    ({"observers": 1}, TypeError, "observers"),
    ({"observers": print}, TypeError, "observers"),
    ({"observers": [None]}, TypeError, "an observer must be callable, not NoneType"),
    ({"observers": [print, "log"]}, TypeError, "an observer must be callable, not str"),
    ({"observers": [observe]}, TypeError, "an observer must not be asynchronous"),
    ({"timeout": 3}, TypeError, "timeout"),
    ({"subprotocols": ["chat"]}, TypeError, "subprotocols"),
]
BAD_TIMEOUTS = [
    ("5", TypeError, "ready_timeout must be a number, not str"),
    (True, TypeError, "ready_timeout must be a number, not bool"),
    (-1, ValueError, "ready_timeout must be at least 0, not -1"),
    (float("nan"), ValueError, "ready_timeout must be at least 0, not nan"),
]


@pytest.mark.parametrize(("url", "error", "text"), BAD_URLS)
async def test_a_url_that_cannot_work_is_refused_by_the_call(url, error, text):
    with pytest.raises(error, match=text):
        wsclient.open_channel(url)
    async with trio.open_nursery() as nursery:
        with pytest.raises(error, match=text):
            await wsclient.connect_channel(nursery, url)

        assert not nursery.child_tasks


@pytest.mark.parametrize(("options", "error", "text"), BAD_OPTIONS)
async def test_an_option_that_cannot_work_is_refused_by_the_call(options, error, text):
    with pytest.raises(error, match=text):
        wsclient.open_channel(URL, **options)
    async with trio.open_nursery() as nursery:
        with pytest.raises(error, match=text):
            await wsclient.connect_channel(nursery, URL, **options)

        assert not nursery.child_tasks


@pytest.mark.parametrize(("seconds", "error", "text"), BAD_TIMEOUTS)
def test_a_ready_timeout_that_cannot_work_is_refused_by_the_call(seconds, error, text):
    with pytest.raises(error, match=text):
        wsclient.open_channel(URL, ready_timeout=seconds)


@pytest.mark.parametrize("given", [None, 1, "nursery"])
async def test_what_is_no_nursery_is_refused(given):
    with pytest.raises(TypeError, match=r"nursery must be trio\.Nursery, not"):
        await wsclient.connect_channel(given, URL)


@pytest.mark.parametrize("url", [url for url, error, _ in BAD_URLS if error is ValueError and url])
def test_a_refusal_shows_no_more_of_a_url_than_scheme_host_and_port(url):
    with pytest.raises((TypeError, ValueError)) as caught:
        wsclient.open_channel(f"{url}/canary?canary")

    assert "Injected" not in str(caught.value)
    assert "pa/ss" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_options_are_given_by_name():
    with pytest.raises(TypeError):
        wsclient.open_channel(URL, None)


# --- what is passed on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("ws://server.test", "/"),
        ("ws://server.test/", "/"),
        ("WS://SERVER.test/Path", "/Path"),
        ("ws://server.test/path?key=1&x=%20#fragment", "/path?key=1&x=%20"),
        ("ws://server.test?key=1", "/?key=1"),
        ("ws://server.test:80/path", "/path"),
        (YarlLike(), "/path?key=1"),
    ],
)
async def test_the_url_is_asked_for_on_every_connection(autojump_clock, network, url, path):
    async with (
        FaultServer([wsclient.testing.Fault.reset(after=1)], network=network) as server,
        wsclient.open_channel(url, observers=()) as channel,
    ):
        await server.wait_connections(3)

        assert "ws://server.test" == channel.endpoint
        assert [path] * 2 == [visit.path for visit in server.connections[:2]]


async def test_headers_subprotocols_and_credentials_go_with_every_connection(
    autojump_clock, network
):
    options = ConnectionOptions(subprotocols=["chat.2", "chat"], extra_headers={"X-Key": "1"})
    async with (
        FaultServer(
            [wsclient.testing.Fault.reset(after=1)], network=network, subprotocols=["chat"]
        ) as server,
        wsclient.open_channel(
            "ws://user:pass@server.test", connection=options, observers=()
        ) as channel,
    ):
        await server.wait_connections(3)
        for visit in server.connections[:2]:
            headers = dict(visit.headers)

            assert b"1" == headers[b"x-key"]
            assert b"Basic dXNlcjpwYXNz" == headers[b"authorization"]
            assert "chat" == visit.subprotocol
        assert "ws://server.test" == channel.name


async def test_every_option_of_opening_goes_with_every_connection(autojump_clock, network):
    """Through a proxy, to another place, under another name, and on to where it is redirected."""
    asked, opened = [], []
    original = stream_opener.get()

    class Proxied:
        """Takes the CONNECT off, as if the proxy were in the cable."""

        async def __call__(self, host, port):
            opened.append((host, port))
            return Tunnel(await original("server.test", 80), asked)

    stream_opener.set(Proxied())
    options = ConnectionOptions(
        proxy="http://user:pw@proxy.test:3128",
        connect_host="10.0.0.1",
        connect_port=8080,
        user_agent="mine/1",
        redirects=1,
    )
    script = [
        wsclient.testing.Fault.reject(307, headers={"Location": "/there"}),
        *[wsclient.testing.Fault.reset(after=1)] * 2,
    ]
    async with (
        FaultServer(script, network=network, host="server.test") as server,
        wsclient.open_channel("ws://server.test/here", connection=options, observers=()),
    ):
        await server.wait_connections(4)
        visits = server.connections[:3]

    assert ["/here", "/there", "/here"] == [visit.path for visit in visits]
    assert {b"mine/1"} == {dict(visit.headers)[b"user-agent"] for visit in visits}
    assert {("proxy.test", 3128)} == set(opened)
    assert {b"CONNECT 10.0.0.1:8080 HTTP/1.1"} == set(asked)


class Tunnel(trio.abc.Stream):
    """A stream whose proxy answers at once; what follows goes through."""

    def __init__(self, stream, asked):
        self._stream = stream
        self._asked = asked
        self._answer = None

    async def send_all(self, data):
        if self._answer is None:
            await trio.lowlevel.checkpoint()
            self._asked.append(bytes(data).split(b"\r\n")[0])
            self._answer = b"HTTP/1.1 200 OK\r\n\r\n"
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        if self._answer:
            await trio.lowlevel.checkpoint()
            answer, self._answer = self._answer, b""
            return answer
        return await self._stream.receive_some(max_bytes)

    async def aclose(self):
        await self._stream.aclose()


def test_a_proxy_of_the_environment_that_cannot_be_used_is_refused_by_the_call(monkeypatch):
    monkeypatch.setenv("ws_proxy", "gopher://user:canary@proxy.test")
    options = ConnectionOptions(proxy=True)
    with pytest.raises(ValueError, match=r"^ws_proxy in the environment: ") as caught:
        wsclient.open_channel(URL, connection=options)

    assert "canary" not in str(caught.value)


async def test_a_proxy_that_wants_other_credentials_is_a_failure_at_startup(
    autojump_clock, network
):
    async def refuse():
        stream = await listener.accept()
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 407 Who\r\n\r\n")

    listener = network.listen("proxy.test", 3128)
    options = ConnectionOptions(proxy="http://user:canary@proxy.test:3128")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(wsclient.ChannelFailed, match="HTTP 407") as caught:
            async with wsclient.open_channel(URL, connection=options, observers=()):
                await trio.sleep_forever()

    assert isinstance(caught.value.__cause__, wsclient.ProxyError)
    assert "canary" not in str(caught.value)


async def test_a_channel_over_tls_works_as_one_without(autojump_clock, network, tls):
    async with (
        FaultServer(network=network, host="localhost", ssl_context=tls.server) as server,
        wsclient.open_channel(server.url, ssl_context=tls.client, observers=()) as channel,
    ):
        await channel.send("hello")

        assert ["hello"] == await server.wait_messages(1)
        assert "wss://localhost" == channel.endpoint


async def test_the_limit_on_the_size_of_messages_is_the_connections(autojump_clock, network):
    async def speak(connection):
        await connection.send("x" * 101)
        await trio.sleep_forever()

    options = ConnectionOptions(max_message_size=100)
    async with FaultServer(network=network, handler=speak) as server:
        with pytest.raises(wsclient.ChannelFailed, match="1009"):
            async with wsclient.open_channel(server.url, connection=options, observers=()):
                await trio.sleep_forever()


async def test_the_block_begins_at_once(autojump_clock, network):
    async with wsclient.open_channel("ws://nobody.test", observers=()) as channel:
        assert wsclient.ChannelState.CONNECTING is channel.state
        assert 0 == trio.current_time()


async def test_all_options_can_be_given(autojump_clock, network):
    async def hook(connection):
        pass

    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(
            server.url,
            ssl_context=None,
            on_connect=hook,
            name="feed",
            connection=ConnectionOptions(),
            heartbeat=HeartbeatOptions(),
            retry=RetryPolicy(),
            limits=Limits(),
            observers=(),
            ready_timeout=1,
        ) as channel,
    ):
        assert "feed" == channel.name


async def test_a_context_that_is_entered_twice_is_told_so(autojump_clock, network):
    opening = wsclient.open_channel("ws://nobody.test", observers=())
    async with opening:
        pass
    with pytest.raises((RuntimeError, AttributeError)):
        await opening.__aenter__()
