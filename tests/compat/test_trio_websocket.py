"""What trio-websocket documents, one promise a test: a program that uses its client finds it here.

Where both packages can be asked, both are.
"""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import ssl

import pytest
import trio
import trio.testing
import trio_websocket

import wsclient

# --- names and signatures -----------------------------------------------------------------------

NAMES = [
    "CloseReason",
    "ConnectionClosed",
    "ConnectionRejected",
    "ConnectionTimeout",
    "DisconnectionTimeout",
    "Endpoint",
    "HandshakeError",
    "WebSocketConnection",
    "__version__",
    "connect_websocket",
    "connect_websocket_url",
    "open_websocket",
    "open_websocket_url",
    "wrap_client_stream",
]
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
FUNCTIONS = [
    "open_websocket",
    "open_websocket_url",
    "connect_websocket",
    "connect_websocket_url",
    "wrap_client_stream",
]
METHODS = ["aclose", "get_message", "send_message", "ping", "pong"]
ATTRIBUTES = [
    "closed",
    "handshake_headers",
    "is_client",
    "is_server",
    "local",
    "path",
    "remote",
    "subprotocol",
    "CONNECTION_ID",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_clients_names_are_here(name):
    assert hasattr(trio_websocket, name)
    assert hasattr(wsclient, name)


def parameters(function):
    """Name, kind and default of each: the positional ones in order, the others by name."""
    return sorted(
        (
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(function).parameters.values()
        ),
        key=lambda parameter: parameter[0] if parameter[1] is KEYWORD_ONLY else "",
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_functions_take_the_same_arguments(name):
    theirs = parameters(getattr(trio_websocket, name))
    function = getattr(wsclient, name)
    # Beside theirs, there are options of our own; "more" takes them.
    ours = [each for each in parameters(function) if each[0] != "more"]

    # Ours leaves the size of a read to the stream: 4 KiB was slow.
    assert ("receive_buffer_size", None) in [(name, default) for name, _, default in ours]
    assert [
        (name, kind, None if name == "receive_buffer_size" else default)
        for name, kind, default in theirs
    ] == ours


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_connecting_functions_are_coroutines_and_the_opening_ones_are_not(name):
    assert name.startswith(("connect", "wrap")) is inspect.iscoroutinefunction(
        getattr(wsclient, name)
    )


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_take_the_same_arguments(name):
    theirs = getattr(trio_websocket.WebSocketConnection, name)
    ours = getattr(wsclient.WebSocketConnection, name)

    assert parameters(theirs) == parameters(ours)
    assert inspect.iscoroutinefunction(ours)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_the_attributes_are_here(name):
    assert hasattr(trio_websocket.WebSocketConnection, name)
    assert hasattr(wsclient.WebSocketConnection, name)


def test_a_connection_is_a_resource_of_trios():
    assert issubclass(wsclient.WebSocketConnection, trio.abc.AsyncResource)


# --- values -------------------------------------------------------------------------------------

CODES = [
    *range(990, 1020),
    *(0, 2999, 3000, 3999, 4000, 4999, 5000, 65535),
]


@pytest.mark.parametrize("code", CODES)
def test_close_codes_have_the_same_names(code):
    ours = wsclient.CloseReason(code, None).name

    if code == 1014:
        # Registered since; trio-websocket calls it reserved.
        assert "BAD_GATEWAY" == ours
    else:
        assert trio_websocket.CloseReason(code, None).name == ours


@pytest.mark.parametrize(("code", "reason"), [(1000, None), (1001, "bye"), (4444, "ü")])
def test_close_reasons_look_the_same(code, reason):
    theirs = trio_websocket.CloseReason(code, reason)
    ours = wsclient.CloseReason(code, reason)

    assert repr(theirs) == repr(ours)
    assert (theirs.code, theirs.name, theirs.reason) == (ours.code, ours.name, ours.reason)
    for name in ("code", "name", "reason"):
        with pytest.raises(AttributeError):
            setattr(ours, name, 1)


@pytest.mark.parametrize("address", ["10.0.0.1", "::1"])
@pytest.mark.parametrize("port", [80, 443, 8000])
@pytest.mark.parametrize("is_ssl", [False, True])
def test_endpoints_look_the_same(address, port, is_ssl):
    theirs = trio_websocket.Endpoint(address, port, is_ssl)
    ours = wsclient.Endpoint(address, port, is_ssl)

    assert (theirs.url, str(theirs), repr(theirs)) == (ours.url, str(ours), repr(ours))
    assert (theirs.address, theirs.port, theirs.is_ssl) == (ours.address, ours.port, ours.is_ssl)


# --- exceptions ---------------------------------------------------------------------------------

HEADERS = ((b"a", b"b"),)


def test_the_exceptions_have_the_same_relatives():
    assert issubclass(wsclient.ConnectionTimeout, wsclient.HandshakeError)
    assert issubclass(wsclient.DisconnectionTimeout, wsclient.HandshakeError)
    assert issubclass(wsclient.ConnectionRejected, wsclient.HandshakeError)
    assert not issubclass(wsclient.ConnectionClosed, wsclient.HandshakeError)
    assert not issubclass(wsclient.HandshakeError, OSError)


def test_the_exceptions_look_the_same():
    for package in (trio_websocket, wsclient):
        reason = package.CloseReason(1000, None)

        assert "ConnectionClosed<CloseReason<code=1000, name=NORMAL_CLOSURE, reason=None>>" == repr(
            package.ConnectionClosed(reason)
        )
        assert "ConnectionClosed<None>" == repr(package.ConnectionClosed(None))
        assert "ConnectionRejected<status_code=404>" == repr(
            package.ConnectionRejected(404, HEADERS, b"body")
        )


@pytest.mark.parametrize("duplicate", [copy.copy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (wsclient.HandshakeError(), []),
        (wsclient.ConnectionTimeout(), []),
        (wsclient.DisconnectionTimeout(), []),
        (wsclient.ConnectionClosed(wsclient.CloseReason(1000, "foo")), ["reason"]),
        (
            wsclient.ConnectionRejected(404, HEADERS, b"body"),
            ["status_code", "headers", "body"],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exceptions_can_be_copied_and_pickled(error, attributes, duplicate):
    again = duplicate(error)

    assert type(error) is type(again)
    assert error.args == again.args
    for name in attributes:
        assert getattr(error, name) == getattr(again, name)


# --- texts --------------------------------------------------------------------------------------


def test_a_url_of_another_scheme_is_a_value_error_of_the_call():
    for package in (trio_websocket, wsclient):
        with pytest.raises(ValueError, match=r'^WebSocket URL scheme must be "ws:" or "wss:"$'):
            package.open_websocket_url("http://test.example/")


def test_a_context_with_a_plain_url_is_a_value_error_of_the_call():
    context = ssl.create_default_context()
    for package in (trio_websocket, wsclient):
        with pytest.raises(ValueError, match=r"^SSL context must be None for ws: URL scheme$"):
            package.open_websocket_url("ws://test.example/", context)


def test_a_url_without_a_host_is_a_value_error_of_the_call():
    for package in (trio_websocket, wsclient):
        with pytest.raises(ValueError, match=r"^URL host must not be None$"):
            package.open_websocket_url("ws:///path")


async def test_use_ssl_that_is_neither_bool_nor_context_is_a_type_error_of_the_block():
    for package in (trio_websocket, wsclient):
        manager = package.open_websocket("test.example", 80, "/", use_ssl=1)
        with pytest.raises(
            TypeError, match=r"^`use_ssl` argument must be bool or ssl\.SSLContext$"
        ):
            await manager.__aenter__()


# --- connections, against trio-websocket's own server -------------------------------------------


@pytest.fixture
def open_here(server):
    """Opens a connection to a path of the server."""

    def open_here(path="/echo", **options):
        return wsclient.open_websocket(server.host, server.port, path, use_ssl=False, **options)

    return open_here


async def test_a_connection_is_called_client_and_a_number(open_here):
    async with open_here() as connection:
        assert str(connection).startswith("client-")
        assert (None, True, False) == (
            connection.closed,
            connection.is_client,
            connection.is_server,
        )


async def test_a_block_opens_one_nursery(open_here):
    task = trio.lowlevel.current_task()
    before = len(task.child_nurseries)
    async with open_here():
        assert before + 1 == len(task.child_nurseries)
    assert before == len(task.child_nurseries)


@pytest.mark.parametrize(
    ("path", "resource"), [("", "/"), ("/", "/"), ("/a/b", "/a/b"), ("/a?b=c", "/a?b=c")]
)
async def test_the_path_is_path_and_query_of_the_url(server, path, resource):
    url = f"ws://{server.host}:{server.port}{path}"
    async with wsclient.open_websocket_url(url) as connection:
        assert resource == connection.path


async def test_a_connection_can_live_in_a_nursery_of_the_callers(server, nursery):
    url = f"ws://{server.host}:{server.port}/echo"
    for connecting in (
        wsclient.connect_websocket(nursery, server.host, server.port, "/echo", use_ssl=False),
        wsclient.connect_websocket_url(nursery, url),
    ):
        connection = await connecting
        await connection.send_message("hello")

        assert "hello" == await connection.get_message()

        await connection.aclose()


async def test_the_endpoints_are_those_of_the_sockets(open_here, server):
    async with open_here() as connection:
        assert isinstance(connection.local, wsclient.Endpoint)
        assert f"ws://127.0.0.1:{server.port}" == connection.remote.url


async def test_tls_is_shown_by_the_endpoints(server, tls):
    url = f"wss://localhost:{server.tls_port}/echo"
    async with wsclient.open_websocket_url(url, ssl_context=tls.client) as connection:
        assert connection.local.is_ssl
        assert f"wss://127.0.0.1:{server.tls_port}" == connection.remote.url


async def test_a_subprotocol_is_negotiated(open_here):
    async with open_here(subprotocols=["chat", "superchat"]) as connection:
        assert "chat" == connection.subprotocol


async def test_headers_go_both_ways(open_here):
    async with open_here("/headers", extra_headers=[(b"X-Test-Header", b"mine")]) as connection:
        name, value = connection.handshake_headers[0]
        assert (b"x-test-header", b"My test header") == (name, value)
        lines = [line async for line in connection]

    assert "X-Test-Header: mine".lower() in [line.lower() for line in lines]


async def test_messages_are_echoed(open_here):
    async with open_here() as connection:
        for message in ("text", b"binary"):
            await connection.send_message(message)

            assert message == await connection.get_message()


async def test_what_is_no_message_is_a_value_error(open_here):
    async with open_here() as connection:
        with pytest.raises(ValueError, match=r"^message must be str or bytes$"):
            await connection.send_message(object())


async def test_pings_are_answered_until_the_connection_is_closed(open_here):
    async with open_here() as connection:
        await connection.ping(b"A")
        await connection.ping()
        await connection.pong(b"B")
        await connection.pong()
    for use in (connection.ping, connection.pong):
        with pytest.raises(wsclient.ConnectionClosed):
            await use(b"C")


async def test_of_two_pings_with_one_payload_one_is_a_value_error(open_here):
    async with open_here() as connection:
        failed = 0

        async def ping():
            nonlocal failed
            try:
                await connection.ping(b"A")
            except ValueError:
                failed += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping)
            nursery.start_soon(ping)

        assert 1 == failed


async def test_leaving_the_block_closes_with_1000(open_here):
    async with open_here() as connection:
        assert connection.closed is None

    assert "CloseReason<code=1000, name=NORMAL_CLOSURE, reason=None>" == repr(connection.closed)


async def test_a_code_and_a_reason_come_back_from_the_peer(open_here):
    async with open_here() as connection:
        await connection.aclose(code=1001, reason="test reason")

        assert (1001, "test reason") == (connection.closed.code, connection.closed.reason)


async def test_closing_twice_is_harmless(open_here):
    async with open_here() as connection:
        await connection.aclose()
        await connection.aclose()


async def test_what_was_sent_before_the_peers_close_can_be_read_after_it(open_here):
    async with open_here("/headers", message_queue_size=math.inf) as connection:
        await connection.wait_closed()

        assert await connection.get_message()
        with pytest.raises(wsclient.ConnectionClosed):
            await connection.send_message("too late")


async def test_nothing_is_received_after_the_block(open_here):
    async with open_here() as connection:
        await connection.send_message("never read")
    for use in (connection.get_message, connection.pong):
        with pytest.raises(wsclient.ConnectionClosed) as caught:
            await use()
        assert 1000 == caught.value.reason.code


async def test_an_unread_message_does_not_hold_the_block_up(open_here):
    with trio.fail_after(5):
        async with open_here(message_queue_size=0) as connection:
            for _ in range(3):
                await connection.send_message("never read")


async def test_the_limit_on_messages_lets_exactly_its_size_pass(open_here):
    async with open_here(max_message_size=100) as connection:
        await connection.send_message("x" * 100)

        assert "x" * 100 == await connection.get_message()

        await connection.send_message("x" * 101)
        with pytest.raises(wsclient.ConnectionClosed):
            await connection.get_message()

        assert (1009, "Exceeded maximum message size: 100 bytes") == (
            connection.closed.code,
            connection.closed.reason,
        )


async def test_a_rejection_has_status_headers_and_body(open_here):
    with pytest.raises(wsclient.ConnectionRejected) as caught:
        async with open_here("/reject?status=403"):
            pass

    assert (403, b"no, \xff") == (caught.value.status_code, caught.value.body)
    assert (b"x-why", b"because") in caught.value.headers


async def test_100_instead_of_an_answer_is_a_rejection_without_a_body(make_peer, nursery):
    client, server = trio.testing.memory_stream_pair()

    async def serve():
        await make_peer(server).read_request()
        await server.send_all(b"HTTP/1.1 100 CONTINUE\r\n\r\n")

    nursery.start_soon(serve)
    with pytest.raises(wsclient.ConnectionRejected) as caught:
        await wsclient.wrap_client_stream(nursery, client, "test.example", "/")

    assert "ConnectionRejected<status_code=100>" == repr(caught.value)
    assert caught.value.body is None


async def test_a_network_error_is_a_handshake_error_with_the_error_as_its_cause(take_port):
    with pytest.raises(wsclient.HandshakeError) as caught:
        async with wsclient.open_websocket("127.0.0.1", take_port(), "/", use_ssl=False):
            pass

    assert isinstance(caught.value.__cause__, OSError)


async def test_any_stream_can_be_wrapped(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        assert isinstance(connection.local, str)
        assert connection.local.startswith("StapledStream(")
        nursery.start_soon(peer.answer_close)
        async with connection:
            assert connection.closed is None
        assert connection.closed


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
async def test_the_users_exception_leaves_the_block_as_itself(open_here, error):
    cause = error.__cause__ = LookupError()
    with pytest.raises(type(error)) as caught:
        async with open_here():
            raise error

    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is None


async def test_a_timeout_of_the_users_own_stays_one(open_here):
    with pytest.raises(trio.TooSlowError):
        async with open_here() as connection:
            with trio.fail_after(0):
                await connection.get_message()


async def test_a_closed_connection_does_not_hide_itself_in_a_group(open_here):
    with pytest.raises(wsclient.ConnectionClosed) as caught:
        async with open_here("/close?code=4000") as connection:
            await connection.get_message()

    assert 4000 == caught.value.reason.code


async def test_a_mute_server_is_left_after_the_disconnect_timeout(
    make_peer, network, autojump_clock, nursery
):
    async def serve():
        peer = await network.accept()
        await peer.accept()
        await peer.receive_rest()

    nursery.start_soon(serve)
    with pytest.raises(wsclient.DisconnectionTimeout):
        async with wsclient.open_websocket(
            "test.example", 80, "/", use_ssl=False, disconnect_timeout=2
        ):
            pass

    assert 2 == trio.current_time()


async def test_a_mute_server_is_left_after_the_connect_timeout(network, autojump_clock):
    with pytest.raises(wsclient.ConnectionTimeout):
        async with wsclient.open_websocket(
            "test.example", 80, "/", use_ssl=False, connect_timeout=2
        ):
            pass

    assert 2 == trio.current_time()


async def test_both_timeouts_are_a_minute_by_default(network, autojump_clock, nursery):
    with pytest.raises(wsclient.ConnectionTimeout):
        async with wsclient.open_websocket("test.example", 80, "/", use_ssl=False):
            pass

    assert 60 == trio.current_time()
    await network.accept()

    async def serve():
        await (await network.accept()).accept()

    nursery.start_soon(serve)
    with pytest.raises(wsclient.DisconnectionTimeout):
        async with wsclient.open_websocket("test.example", 80, "/", use_ssl=False):
            pass

    assert 120 == trio.current_time()
