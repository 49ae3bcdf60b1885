"""Opening connections, and what happens when that fails."""

from __future__ import annotations

import math
import ssl
import traceback
from contextlib import suppress

import attrs
import pytest
import trio
import trio.testing

import wsclient
from wsclient.codes import CloseReason
from wsclient.connection import (
    connect_websocket,
    connect_websocket_url,
    open_websocket,
    open_websocket_url,
    stream_opener,
    wrap_client_stream,
)
from wsclient.errors import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    InvalidUpgrade,
)

TEXT, CLOSE = 1, 8

# What must not be told; not written where a traceback would quote it.
SECRET = "/canary?canary"
SECRET_URL = f"ws://user:canary@test.example{SECRET}#canary"


@pytest.fixture
def dial(network, tls, nursery):
    """Opens one connection over memory in each of the ways there are; closes it again."""

    async def manager(manager):
        async with manager:
            pass

    async def connected(connecting):
        async with await connecting:
            pass

    async def wrapped():
        stream = await network.open("test.example", 80)
        async with await wrap_client_stream(nursery, stream, "test.example", SECRET):
            pass

    return {
        "open_websocket": lambda: manager(
            open_websocket("test.example", 80, SECRET, use_ssl=False)
        ),
        "open_websocket_url": lambda: manager(open_websocket_url(SECRET_URL)),
        "connect_websocket": lambda: connected(
            connect_websocket(nursery, "test.example", 80, SECRET, use_ssl=False)
        ),
        "connect_websocket_url": lambda: connected(connect_websocket_url(nursery, SECRET_URL)),
        "wrap_client_stream": wrapped,
    }


EVERY_WAY = pytest.mark.parametrize(
    "way",
    [
        "open_websocket",
        "open_websocket_url",
        "connect_websocket",
        "connect_websocket_url",
        "wrap_client_stream",
    ],
)


# --- it opens -----------------------------------------------------------------------------------


@EVERY_WAY
async def test_a_connection_opens_and_closes_in_every_way(network, dial, nursery, way):
    seen = []

    async def serve():
        peer = await network.accept()
        seen.append((await peer.accept()).split(b"\r\n")[0])
        seen.append(await peer.answer_close())

    nursery.start_soon(serve)
    await dial[way]()

    assert b"GET /canary?canary HTTP/1.1" == seen[0]
    assert (CLOSE, b"\x03\xe8") == seen[1]
    await trio.testing.wait_all_tasks_blocked()
    assert 0 == len(nursery.child_tasks)


async def ask(network, nursery, manager):
    """The header lines of the request that entering ``manager`` makes."""
    requests = []

    async def serve():
        peer = await network.accept()
        requests.append(await peer.accept(b"Sec-WebSocket-Protocol: chat"))
        await peer.answer_close()

    nursery.start_soon(serve)
    async with manager as connection:
        assert "chat" == connection.subprotocol
    return requests[0].split(b"\r\n")[1:]


@pytest.mark.parametrize(
    ("host", "port", "secure", "header"),
    [
        ("test.example", 80, False, b"Host: test.example"),
        ("test.example", 443, False, b"Host: test.example:443"),
        ("TEST.example", 8000, False, b"Host: TEST.example:8000"),
        ("::1", 80, False, b"Host: [::1]"),
        ("::1", 8000, False, b"Host: [::1]:8000"),
        ("[::1]", 8000, False, b"Host: [::1]:8000"),
        ("fe80::1%eth0", 80, False, b"Host: [fe80::1]"),
        ("bücher.example", 80, False, b"Host: xn--bcher-kva.example"),
        ("x" * 63, 8000, False, b"Host: " + b"x" * 63 + b":8000"),
    ],
)
async def test_the_host_header_names_host_and_port(network, nursery, host, port, secure, header):
    manager = open_websocket(host, port, "/", use_ssl=secure, subprotocols=["chat"])

    assert header == (await ask(network, nursery, manager))[0]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, [b"Authorization: Basic dXNlcjpwYXNz"]),
        ([("X-A", "1")], [b"X-A: 1", b"Authorization: Basic dXNlcjpwYXNz"]),
        # Whoever gives a header means it.
        ([("authorization", "Bearer x")], [b"authorization: Bearer x"]),
    ],
)
async def test_a_url_s_user_and_password_authorize_unless_a_header_does(
    network, nursery, headers, expected
):
    manager = open_websocket_url(
        "ws://user:pass@test.example/", subprotocols=["chat"], extra_headers=headers
    )

    assert expected == (await ask(network, nursery, manager))[7:]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [f"User-Agent: wsclient/{wsclient.__version__}".encode()]),
        ({"user_agent": "mine/2"}, [b"User-Agent: mine/2"]),
        ({"user_agent": None}, []),
        ({"extra_headers": [("user-agent", "mine/3")]}, [b"user-agent: mine/3"]),
        (
            {"extra_headers": [("X-A", "1"), ("Host", "other.test"), ("USER-AGENT", "mine/4")]},
            [b"X-A: 1", b"USER-AGENT: mine/4"],
        ),
    ],
)
async def test_a_user_agent_is_sent_replaced_or_left_out(network, nursery, options, expected):
    manager = open_websocket_url("ws://test.example/", subprotocols=["chat"], **options)

    assert expected == (await ask(network, nursery, manager))[6:]


@pytest.mark.parametrize(
    "way", ["open_websocket", "open_websocket_url", "connect_websocket", "connect_websocket_url"]
)
async def test_redirects_are_followed_by_all_that_open_their_stream(network, nursery, way):
    paths = []

    async def serve():
        peer = await network.accept()
        await peer.read_request()
        await peer.send(b"HTTP/1.1 302 X\r\nLocation: there\r\nContent-Length: 0\r\n\r\n")
        peer = await network.accept()
        paths.append((await peer.accept()).split()[1])
        await peer.answer_close()

    nursery.start_soon(serve)
    arguments = ["ws://test.example/a/here"]
    options = {"redirects": 1}
    if not way.endswith("_url"):
        arguments = ["test.example", 80, "/a/here"]
        options["use_ssl"] = False
    function = getattr(wsclient, way)
    if way.startswith("open"):
        async with function(*arguments, **options) as connection:
            assert "/a/there" == connection.path
    else:
        async with await function(nursery, *arguments, **options) as connection:
            assert "/a/there" == connection.path

    assert [b"/a/there"] == paths


async def test_the_limits_of_the_answer_s_head_are_options(network, nursery):
    async def serve():
        for _ in range(3):
            await (await network.accept()).accept(*[b"X-A: " + b"x" * 100] * 200)

    nursery.start_soon(serve)
    for options, text in [
        ({}, "exceeds 16 KiB"),
        ({"max_head_size": 2**20}, "more than 128 headers"),
    ]:
        with pytest.raises(InvalidUpgrade, match=text):
            async with open_websocket_url("ws://test.example/", **options):
                pass
    connection = await connect_websocket_url(
        nursery, "ws://test.example/", max_head_size=2**20, max_headers=1000
    )

    assert 200 == len(connection.handshake_headers)
    connection.abort()


async def test_a_url_s_password_goes_nowhere_but_into_its_header(network, nursery):
    manager = open_websocket_url("ws://user:pass@test.example/a#b", subprotocols=["chat"])
    lines = await ask(network, nursery, manager)

    assert b"Host: test.example" == lines[0]
    assert not any(b"pass" in line for line in lines)


async def test_all_options_of_a_url_function_are_passed_on(network, nursery):
    options = {
        "subprotocols": ["chat"],
        "extra_headers": {"X-A": "1"},
        "message_queue_size": 2,
        "max_message_size": 3,
        "receive_buffer_size": 4,
        "connect_timeout": 5,
        "disconnect_timeout": 6,
        "user_agent": "mine/1",
        "max_head_size": 7000,
        "max_headers": 80,
        "redirects": 9,
        "connect_host": "10.0.0.1",
        "connect_port": 81,
        "server_hostname": "other.example",
        "local_address": "127.0.0.1",
        "happy_eyeballs_delay": 1.5,
        "tcp_keepalive": 11,
        "tcp_user_timeout": 12.5,
    }
    kept = []

    async def serve():
        for _ in range(2):
            peer = await network.accept()
            await peer.accept(b"Sec-WebSocket-Protocol: chat")
            await peer.answer_close()

    nursery.start_soon(serve)
    async with open_websocket_url("ws://test.example/", **options) as connection:
        kept.append(attrs.asdict(connection._options))
    del options["connect_timeout"], options["disconnect_timeout"]
    async with await connect_websocket_url(nursery, "ws://test.example/", **options) as connection:
        kept.append(attrs.asdict(connection._options))

    for name, value in options.items():
        value = {"subprotocols": ("chat",), "extra_headers": ((b"X-A", b"1"),)}.get(name, value)
        assert [value, value] == [each[name] for each in kept]
    assert (5, 6) == (kept[0]["connect_timeout"], kept[0]["disconnect_timeout"])


async def test_a_stream_is_wrapped_under_the_host_that_is_given(connected):
    async with connected() as (connection, peer):
        assert repr(connection._stream) == connection.local == connection.remote
        await connection.send_message("hello")

        assert (TEXT, b"hello") == await peer.receive_frame()


# --- bad arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"host": ""}, ValueError, "host must not be empty"),
        ({"host": None}, TypeError, "host must be str, not NoneType"),
        ({"host": "a b"}, ValueError, "host must not contain"),
        ({"host": "a\r\nX-A: 1"}, ValueError, "host must not contain"),
        ({"host": "a..b"}, ValueError, "host has a label that is empty"),
        ({"port": "80"}, TypeError, "port must be int, not str"),
        ({"port": True}, TypeError, "port must be int, not bool"),
        ({"port": None}, TypeError, "port must be int, not NoneType"),
        ({"port": 65536}, ValueError, "port must be between 0 and 65535, not 65536"),
        ({"port": -1}, ValueError, "port must be between 0 and 65535, not -1"),
        ({"resource": None}, TypeError, "resource must be str, not NoneType"),
        ({"resource": "x"}, ValueError, "resource must start with '/'"),
        ({"resource": "/ x"}, ValueError, "resource must not contain spaces"),
        ({"resource": "/\r\nX-A: 1"}, ValueError, "resource must not contain spaces"),
        ({"resource": "/ü"}, ValueError, "resource must be ASCII"),
        ({"use_ssl": 1}, TypeError, "`use_ssl` argument must be bool or ssl.SSLContext"),
        ({"use_ssl": None}, TypeError, "`use_ssl` argument must be bool or ssl.SSLContext"),
        ({"subprotocols": "chat"}, TypeError, "subprotocols must be an iterable of str"),
        ({"extra_headers": [("X-A", "\n")]}, ValueError, "must not contain control characters"),
        ({"message_queue_size": -1}, ValueError, "message_queue_size must be at least 0"),
        ({"message_queue_size": 1.5}, TypeError, "message_queue_size must be an int"),
        ({"message_queue_size": "1"}, TypeError, "message_queue_size must be a number"),
        ({"max_message_size": -1}, ValueError, "max_message_size must be at least 0"),
        ({"receive_buffer_size": 0}, ValueError, "receive_buffer_size must be at least 1"),
        ({"connect_timeout": -1}, ValueError, "connect_timeout must be at least 0"),
        ({"connect_timeout": "1"}, TypeError, "connect_timeout must be a number"),
        ({"disconnect_timeout": math.nan}, ValueError, "disconnect_timeout must be at least 0"),
        ({"colour": None}, TypeError, "unexpected keyword argument 'colour'"),
        ({"establish_timeout": 1}, TypeError, "unexpected keyword argument 'establish_timeout'"),
        ({"proxy": "ftp://h"}, ValueError, "proxy must begin with http://"),
        ({"redirects": -1}, ValueError, "redirects must be at least 0"),
        ({"unix_socket": "/s", "proxy": True}, ValueError, "exclude each other"),
    ],
    ids=repr,
)
async def test_an_argument_that_cannot_be_used_is_refused(network, nursery, arguments, error, text):
    given = {"host": "h", "port": 80, "resource": "/", "use_ssl": False, **arguments}
    with pytest.raises(error, match=text) as caught:
        async with open_websocket(**given):
            pass

    assert error is type(caught.value)

    if arguments.keys() & {"connect_timeout", "disconnect_timeout"}:
        return
    with pytest.raises(error, match=text) as caught:
        await connect_websocket(nursery, **given)

    assert error is type(caught.value)
    assert [] == network.client_streams
    assert 0 == len(nursery.child_tasks)


@pytest.mark.parametrize("name", ["colour", "proxy", "redirects", "unix_socket", "tcp_keepalive"])
async def test_a_stream_of_one_s_own_takes_no_option_for_opening_one(nursery, name):
    stream, _ = trio.testing.memory_stream_pair()
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        await wrap_client_stream(nursery, stream, "h", "/", **{name: None})


async def test_a_single_connection_leaves_the_sockets_options_to_the_system(network, nursery):
    async def serve():
        await (await network.accept()).accept()

    nursery.start_soon(serve)
    connection = await connect_websocket_url(nursery, "ws://test.example/")

    assert (None, None) == (
        connection._options.tcp_keepalive,
        connection._options.tcp_user_timeout,
    )
    connection.abort()


async def test_port_0_is_refused_by_the_system():
    with pytest.raises(HandshakeError, match=r"cannot connect to ws://127.0.0.1:0: ") as caught:
        async with open_websocket("127.0.0.1", 0, "/", use_ssl=False):
            pass

    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    "nursery", [None, object(), "nursery"], ids=lambda value: type(value).__name__
)
async def test_a_nursery_is_a_nursery(nursery):
    stream, _ = trio.testing.memory_stream_pair()
    for connecting in (
        connect_websocket(nursery, "h", 80, "/", use_ssl=False),
        connect_websocket_url(nursery, "ws://h/"),
        wrap_client_stream(nursery, stream, "h", "/"),
    ):
        with pytest.raises(TypeError, match=r"nursery must be trio.Nursery, not "):
            await connecting


@pytest.mark.parametrize(
    "stream", [None, object(), "stream"], ids=lambda value: type(value).__name__
)
async def test_a_stream_is_a_stream(nursery, stream):
    with pytest.raises(TypeError, match=r"stream must be trio.abc.Stream, not "):
        await wrap_client_stream(nursery, stream, "h", "/")


def test_a_bad_url_is_refused_by_the_call_and_not_by_the_block():
    with pytest.raises(ValueError, match='scheme must be "ws:" or "wss:"'):
        open_websocket_url("http://h/")
    with pytest.raises(ValueError, match="SSL context must be None for ws: URL scheme"):
        open_websocket_url("ws://h/", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


# --- one deadline for all of it -----------------------------------------------------------------


async def never_answers(peer):
    await peer.read_request()


async def drips(peer):
    await peer.read_request()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await peer.send(b"HTTP/1.1 101 X\r\n" if trio.current_time() < 1 else b"x")
            await trio.sleep(1)


async def stalls_in_its_error(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nbusy")


async def drips_its_error(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.1 503 Busy\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await peer.send(b"x")
            await trio.sleep(1)


@pytest.mark.parametrize("script", [never_answers, drips, stalls_in_its_error, drips_its_error])
async def test_a_server_that_does_not_answer_in_time_is_left_on_time(
    network, autojump_clock, nursery, script
):
    ended = trio.Event()

    async def serve():
        peer = await network.accept()
        await script(peer)
        await peer.receive_rest()
        ended.set()

    nursery.start_soon(serve)
    start = trio.current_time()
    with pytest.raises(
        ConnectionTimeout, match=r"^ws://test.example:81 was not connected within 7.5 s$"
    ) as caught:
        async with open_websocket("test.example", 81, "/", use_ssl=False, connect_timeout=7.5):
            pass

    assert 7.5 == trio.current_time() - start
    assert isinstance(caught.value.__cause__, trio.TooSlowError)
    await ended.wait()


async def test_tls_that_never_completes_is_left_on_time(network, tls, autojump_clock):
    start = trio.current_time()
    with pytest.raises(ConnectionTimeout, match=r"^wss://localhost was not connected"):
        async with open_websocket("localhost", 443, "/", use_ssl=tls.client, connect_timeout=3):
            pass

    assert 3 == trio.current_time() - start
    await (await network.accept()).receive_rest()


async def test_a_name_lookup_or_connect_that_hangs_is_left_on_time(network, autojump_clock):
    async def hang(host, port):
        await trio.sleep_forever()

    stream_opener.set(hang)
    start = trio.current_time()
    with pytest.raises(ConnectionTimeout):
        async with open_websocket("test.example", 80, "/", use_ssl=False, connect_timeout=3):
            pass

    assert 3 == trio.current_time() - start


async def test_one_deadline_covers_the_stream_tls_and_the_answer_together(
    network, tls, autojump_clock, nursery
):
    open_at_once = network.open

    async def open_slowly(host, port):
        await trio.sleep(2)
        return await open_at_once(host, port)

    stream_opener.set(open_slowly)

    async def serve():
        peer = await network.accept()
        await trio.sleep(2)
        peer.stream = trio.SSLStream(peer.stream, tls.server, server_side=True)
        await peer.stream.do_handshake()
        await peer.read_request()
        await trio.sleep(2)
        with pytest.raises(trio.BrokenResourceError):
            await peer.send(b"HTTP/1.1 101 Too late\r\n\r\n")
            await peer.receive_rest()

    nursery.start_soon(serve)
    start = trio.current_time()
    with pytest.raises(ConnectionTimeout):
        async with open_websocket("localhost", 443, "/", use_ssl=tls.client, connect_timeout=5):
            pass

    assert 5 == trio.current_time() - start


async def test_without_a_deadline_the_caller_sets_one(network, autojump_clock, nursery):
    with trio.move_on_after(1000) as scope:
        await connect_websocket(nursery, "test.example", 80, "/", use_ssl=False)

    assert scope.cancelled_caught
    assert 0 == len(nursery.child_tasks)
    await (await network.accept()).receive_rest()


async def test_an_infinite_deadline_waits(network, autojump_clock, nursery):
    async def serve():
        peer = await network.accept()
        await trio.sleep(10_000)
        await peer.accept()
        await peer.answer_close()

    nursery.start_soon(serve)
    async with open_websocket(
        "test.example", 80, "/", use_ssl=False, connect_timeout=math.inf
    ) as connection:
        assert connection.closed is None


# --- failures come at once, with a text, and leave nothing open ---------------------------------


async def closes_at_once(peer):
    await peer.stream.send_eof()


async def closes_after_the_request(peer):
    await peer.read_request()
    await peer.stream.send_eof()


async def closes_inside_its_answer(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.1 101 Switching")
    await peer.stream.send_eof()


async def closes_inside_its_error(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nbusy")
    await peer.stream.send_eof()


async def ends_its_error_with_the_stream(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.0 503 Busy\r\nRetry-After: 3\r\n\r\nbusy")
    await peer.stream.send_eof()


async def refuses(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.1 403 No\r\nSet-Cookie: canary\r\nContent-Length: 6\r\n\r\ncanary")


async def redirects(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.1 302 Found\r\nLocation: /canary\r\nContent-Length: 0\r\n\r\n")


async def sends_an_endless_error(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.1 500 X\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await peer.send(b"x" * 10_000)


async def is_no_http_server(peer):
    await peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")


async def gives_a_wrong_accept_token(peer):
    await peer.read_request()
    await peer.send(
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: canary\r\n\r\n"
    )


async def chooses_what_was_not_offered(peer):
    await peer.accept(b"Sec-WebSocket-Protocol: other")


async def turns_an_extension_on(peer):
    await peer.accept(b"Sec-WebSocket-Extensions: permessage-deflate")


async def sends_huge_headers(peer):
    await peer.accept(b"X-A: " + b"x" * 20_000)


async def breaks_the_stream(peer):
    await peer.stream.aclose()


FAILURES = [
    (closes_at_once, HandshakeError, "closed the connection before it answered"),
    (closes_after_the_request, HandshakeError, "closed the connection before it answered"),
    (closes_inside_its_answer, HandshakeError, "closed the connection inside its answer"),
    (closes_inside_its_error, ConnectionRejected, "HTTP 503"),
    (ends_its_error_with_the_stream, ConnectionRejected, "HTTP 503"),
    (refuses, ConnectionRejected, "HTTP 403"),
    (redirects, ConnectionRejected, "HTTP 302"),
    (sends_an_endless_error, ConnectionRejected, "HTTP 500"),
    (is_no_http_server, InvalidUpgrade, "not HTTP/1.1"),
    (gives_a_wrong_accept_token, InvalidUpgrade, "not valid"),
    (chooses_what_was_not_offered, InvalidUpgrade, "not valid"),
    (turns_an_extension_on, InvalidUpgrade, "not valid"),
    (sends_huge_headers, InvalidUpgrade, "16 KiB"),
    (breaks_the_stream, HandshakeError, "."),
]


@EVERY_WAY
@pytest.mark.parametrize(
    ("script", "error", "text"), FAILURES, ids=lambda v: getattr(v, "__name__", "")
)
async def test_a_failed_handshake_is_raised_to_the_caller_at_once_and_closes_the_stream(
    network, dial, autojump_clock, nursery, way, script, error, text
):
    ended = trio.Event()

    async def serve():
        peer = await network.accept()
        await script(peer)
        if script is not breaks_the_stream:
            await peer.receive_rest()
        ended.set()

    nursery.start_soon(serve)
    start = trio.current_time()
    with pytest.raises(error, match=text) as caught:
        await dial[way]()
    await ended.wait()

    assert error is type(caught.value)
    assert 0 == trio.current_time() - start
    assert str(caught.value)
    with pytest.raises(trio.ClosedResourceError):
        await network.client_streams[-1].send_all(b"x")
    # Not in the nursery: nothing runs there.
    await trio.testing.wait_all_tasks_blocked()
    assert 0 == len(nursery.child_tasks)
    told = "".join(traceback.format_exception(caught.value))
    assert "canary" not in told
    assert "Y2FuYXJ5" not in told


async def test_the_error_of_a_server_that_runs_beside_us_goes_before_ours(network, autojump_clock):
    error = ValueError("the server's")

    async def serve(depth):
        async with trio.open_nursery() as nursery:
            if depth:
                nursery.start_soon(serve, depth - 1)
            else:
                peer = await network.accept()
                await peer.read_request()
                await peer.stream.aclose()
                raise error

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, 4)
            await connect_websocket(nursery, "test.example", 80, "/", use_ssl=False)

    found = caught.value
    while isinstance(found, ExceptionGroup):
        (found,) = found.exceptions
    assert error is found


@EVERY_WAY
async def test_a_cancelled_handshake_closes_the_stream(network, dial, autojump_clock, nursery, way):
    with trio.move_on_after(1) as scope:
        await dial[way]()

    assert scope.cancelled_caught
    assert 1 == trio.current_time()
    peer = await network.accept()
    await peer.receive_rest()
    assert 0 == len(nursery.child_tasks)


async def test_a_rejection_carries_status_headers_and_body(network, nursery):
    async def serve():
        await ends_its_error_with_the_stream(await network.accept())

    nursery.start_soon(serve)
    with pytest.raises(ConnectionRejected) as caught:
        async with open_websocket("test.example", 80, "/", use_ssl=False):
            pass

    assert (503, ((b"retry-after", b"3"),), b"busy") == (
        caught.value.status_code,
        caught.value.headers,
        caught.value.body,
    )


async def test_an_endless_error_is_read_no_further_than_its_first_64_kib(network, nursery):
    async def serve():
        await sends_an_endless_error(await network.accept())

    nursery.start_soon(serve)
    with pytest.raises(ConnectionRejected) as caught:
        async with open_websocket("test.example", 80, "/", use_ssl=False):
            pass

    assert b"x" * 65536 == caught.value.body


async def test_an_opener_that_fails_is_a_handshake_error(network):
    async def fail(host, port):
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError(111, "refused")

    stream_opener.set(fail)
    with pytest.raises(
        HandshakeError, match=r"^cannot connect to ws://test.example: .*refused"
    ) as caught:
        async with open_websocket("test.example", 80, "/canary", use_ssl=False):
            pass

    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_a_host_header_that_cannot_be_sent_closes_the_stream(network, nursery):
    with pytest.raises(ValueError, match=r"ascii|ASCII"):
        async with open_websocket(
            "test.example", 80, "/", use_ssl=False, extra_headers=[(b"Host", b"\xff")]
        ):
            pass

    for stream in network.client_streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_real_sockets_are_closed_after_a_failure():
    """Loopback: the server sees the end, whatever failed."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    ended = []

    async def serve(script):
        async with await listener.accept() as stream:
            await script(stream)
            ended.append(await stream.receive_some())

    async def refuse(stream):
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")

    async def say_nothing(stream):
        await stream.receive_some()

    with trio.fail_after(10):
        async with listener:
            for script, error in [(refuse, ConnectionRejected), (say_nothing, ConnectionTimeout)]:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve, script)
                    with pytest.raises(error):
                        async with open_websocket(
                            "127.0.0.1", port, "/", use_ssl=False, connect_timeout=0.2
                        ):
                            pass

    assert [b"", b""] == ended


async def test_a_real_plain_server_on_wss_is_a_handshake_error(server, tls):
    with pytest.raises(HandshakeError, match=r"^TLS with ") as caught, trio.fail_after(10):
        async with open_websocket(server.host, server.port, "/", use_ssl=tls.client):
            pass

    assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_a_real_certificate_of_a_stranger_is_a_handshake_error(server, tls):
    with pytest.raises(HandshakeError, match=r"^TLS with ") as caught, trio.fail_after(10):
        async with open_websocket(server.host, server.tls_port, "/", use_ssl=tls.stranger):
            pass

    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


# --- a nursery of the caller's ------------------------------------------------------------------


async def test_the_end_of_the_nursery_tells_the_peer_and_closes_the_stream(network, autojump_clock):
    peers = []

    async def serve():
        peers.append(await network.accept())
        await peers[0].accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        connection = await connect_websocket(nursery, "test.example", 80, "/", use_ssl=False)
        nursery.cancel_scope.cancel()

    assert [(CLOSE, b"\x03\xe8")] == await peers[0].receive_frames()
    assert CloseReason(1006) == connection.closed
    assert 0 == trio.current_time()
    with pytest.raises(ConnectionClosed):
        await connection.send_message("too late")
    await connection.aclose()


async def test_a_nursery_that_closed_meanwhile_leaves_no_stream_open(network, autojump_clock):
    async with trio.open_nursery() as theirs:
        pass

    async def serve():
        peer = await network.accept()
        await peer.accept()
        await peer.receive_rest()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(RuntimeError, match=r"[Nn]ursery"):
            await connect_websocket(theirs, "test.example", 80, "/", use_ssl=False)


# --- leaving the block --------------------------------------------------------------------------


async def test_a_peer_that_does_not_answer_our_close_frame_is_left_on_time(
    network, autojump_clock, nursery
):
    async def serve():
        peer = await network.accept()
        await peer.accept()
        assert [(CLOSE, b"\x03\xe8")] == await peer.receive_frames()

    nursery.start_soon(serve)
    with pytest.raises(
        DisconnectionTimeout,
        match=r"^ws://test.example did not answer our close frame within 2.5 s$",
    ):
        async with open_websocket("test.example", 80, "/", use_ssl=False, disconnect_timeout=2.5):
            pass

    assert 2.5 == trio.current_time()
    await trio.testing.wait_all_tasks_blocked()
    assert 0 == len(nursery.child_tasks)


async def mute(network, read=True):
    peer = await network.accept()
    await peer.accept()
    if read:
        await peer.receive_rest()


async def test_a_body_that_raised_is_left_within_a_second_of_a_mute_peer(
    network, autojump_clock, nursery
):
    error = ValueError("user")
    cause = error.__cause__ = LookupError()
    nursery.start_soon(mute, network)
    with pytest.raises(ValueError, match="user") as caught:
        async with open_websocket("test.example", 80, "/", use_ssl=False):
            raise error

    assert caught.value is error
    assert cause is error.__cause__
    assert error.__context__ is None
    assert trio.current_time() <= 1


async def test_a_cancelled_body_is_left_within_a_second_of_a_mute_peer(
    network, autojump_clock, nursery
):
    nursery.start_soon(mute, network)
    with trio.move_on_after(10) as scope:
        async with open_websocket("test.example", 80, "/", use_ssl=False):
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert 10 <= trio.current_time() <= 11


async def test_a_body_that_raised_still_says_goodbye(network, autojump_clock, nursery):
    said = []

    async def serve():
        peer = await network.accept()
        await peer.accept()
        said.append(await peer.answer_close())

    nursery.start_soon(serve)
    with pytest.raises(ValueError, match="user"):
        async with open_websocket("test.example", 80, "/", use_ssl=False):
            raise ValueError("user")

    assert [(CLOSE, b"\x03\xe8")] == said
    assert 0 == trio.current_time()


async def test_an_exception_of_a_finally_block_survives_cancellation(
    network, autojump_clock, nursery
):
    nursery.start_soon(mute, network)
    with pytest.raises(ValueError, match="in finally"), trio.move_on_after(1):
        async with open_websocket("test.example", 80, "/", use_ssl=False):
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in finally")


@pytest.mark.parametrize("disconnect_timeout", [0, 0.5, 1, 60, math.inf])
async def test_no_close_timeout_hides_the_users_exception(
    network, autojump_clock, nursery, disconnect_timeout
):
    nursery.start_soon(mute, network)
    with pytest.raises(ValueError, match="user"):
        async with open_websocket(
            "test.example", 80, "/", use_ssl=False, disconnect_timeout=disconnect_timeout
        ):
            raise ValueError("user")

    assert trio.current_time() <= min(1, disconnect_timeout)


class Faulty(trio.abc.Stream):
    """A stream that raises what no stream should."""

    def __init__(self, stream, *, receive=None, send=None, close=None):
        self.stream = stream
        self.receive = receive
        self.send = send
        self.close = close
        self.is_closed = False
        self.is_open = False

    async def send_all(self, data):
        if self.send is not None and self.is_open:
            raise self.send
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        if self.receive is not None and self.is_open:
            raise self.receive
        self.is_open = True
        return await self.stream.receive_some(max_bytes)

    async def aclose(self):
        self.is_closed = True
        try:
            await self.stream.aclose()
        finally:
            if self.close is not None:
                raise self.close


@pytest.fixture
def faulty(network):
    """Lets the network open streams that raise what no stream should."""
    streams = []

    def faulty(**faults):
        def make_pair():
            client, server = trio.testing.memory_stream_pair()
            streams.append(Faulty(client, **faults))
            return streams[-1], server

        network.make_pair = make_pair
        return streams

    return faulty


async def answering(network):
    peer = await network.accept()
    await peer.accept()
    with suppress(trio.BrokenResourceError):
        await peer.answer_close()


@pytest.mark.parametrize("where", ["receive", "close"])
async def test_an_internal_error_leaves_as_itself_and_nobody_hangs(
    network, faulty, autojump_clock, nursery, where
):
    error = RuntimeError("internal")
    streams = faulty(**{where: error})
    nursery.start_soon(answering, network)
    with pytest.raises(RuntimeError, match="internal") as caught:
        async with open_websocket("test.example", 80, "/", use_ssl=False) as connection:
            await trio.sleep(5)

    assert caught.value is error
    assert streams[0].is_closed
    assert connection.closed is not None
    await connection.aclose()
    with pytest.raises(ConnectionClosed):
        await connection.get_message()
    nursery.cancel_scope.cancel()


async def test_a_sender_learns_of_an_internal_error_and_its_cause_is_kept(
    network, faulty, autojump_clock, nursery
):
    error = RuntimeError("internal")
    streams = faulty(send=error)
    nursery.start_soon(answering, network)
    with pytest.raises((ConnectionClosed, RuntimeError)) as caught:
        async with open_websocket("test.example", 80, "/", use_ssl=False) as connection:
            await connection.send_message("x")

    assert streams[0].is_closed
    assert "RuntimeError: internal" in "".join(traceback.format_exception(caught.value))
    nursery.cancel_scope.cancel()


async def test_next_to_an_internal_error_the_users_own_is_raised(
    network, faulty, autojump_clock, nursery
):
    internal, user = RuntimeError("internal"), ValueError("user")
    faulty(close=internal)
    nursery.start_soon(answering, network)
    with pytest.raises(ValueError, match="user") as caught:
        async with open_websocket("test.example", 80, "/", use_ssl=False):
            raise user

    assert caught.value is user
    assert (internal,) == user.__context__.exceptions
