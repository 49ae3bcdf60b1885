"""Sockets to connect over: TCP with its options, and Unix sockets."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from errno import ECONNREFUSED, ENETUNREACH
from pathlib import Path

import pytest
import trio
import trio.testing

from wsclient.connection import _socket, open_websocket_url
from wsclient.connection._socket import (
    has_answered,
    open_tcp,
    open_unix,
    reason,
    socket_options,
)
from wsclient.errors import HandshakeError
from wsclient.options import (
    SINGLE_CONNECTION,
    ConnectionOptions,
    HeartbeatOptions,
    with_user_timeout,
)

LINUX = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this platform has no TCP_USER_TIMEOUT"
)
UNIX = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="this platform has no Unix sockets"
)


@pytest.fixture
async def listener():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield listener


@pytest.fixture
def folder():
    # pytest's own are too long for the path of a socket.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def port_of(listener):
    return listener.socket.getsockname()[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=repr)
async def test_s7_1_what_interrupts_connecting_leaves_as_itself(error):
    class Interrupted:
        async def connect(self, address):
            raise error

        def close(self):
            pass

    class Factory(trio.abc.SocketFactory):
        def socket(self, *_):
            return Interrupted()

    trio.socket.set_custom_socket_factory(Factory())
    with pytest.raises(type(error)) as caught:
        await open_tcp("127.0.0.1", 1, ConnectionOptions())

    assert caught.value is error
    assert error.__context__ is None


@LINUX
async def test_socket_options_are_set(listener):
    options = ConnectionOptions(tcp_keepalive=7, tcp_user_timeout=2.5)
    async with await open_tcp("127.0.0.1", port_of(listener), options) as stream:
        get = stream.socket.getsockopt

        assert 1 == get(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert (7, 7, 3, 2500) == (
            get(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            get(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            get(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            get(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        )


@LINUX
async def test_a_single_connection_leaves_them_to_the_system(listener):
    options = ConnectionOptions(**SINGLE_CONNECTION)
    async with await open_tcp("127.0.0.1", port_of(listener), options) as stream:
        get = stream.socket.getsockopt

        assert 0 == get(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert 0 == get(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


@LINUX
def test_s5_3_a_channel_sets_them_by_default():
    options = with_user_timeout(ConnectionOptions(), HeartbeatOptions())
    values = {name: value for _, name, value in socket_options(options)}

    assert 20 == values[socket.TCP_KEEPIDLE]
    assert 40_000 == values[socket.TCP_USER_TIMEOUT]


def test_s5_3_without_a_heartbeat_to_follow_the_user_timeout_is_left_to_the_system():
    names = [name for _, name, _ in socket_options(ConnectionOptions(tcp_keepalive=None))]

    assert [] == names


def test_a_platform_that_has_none_of_them_goes_without(monkeypatch):
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(trio.socket, name, raising=False)
    monkeypatch.delattr(trio.socket, "TCP_USER_TIMEOUT", raising=False)

    assert [(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1)] == [
        *socket_options(ConnectionOptions())
    ]


async def test_an_option_that_the_system_refuses_closes_the_socket(listener, monkeypatch):
    monkeypatch.setattr(
        "wsclient.connection._socket.socket_options", lambda options: [(1 << 20, 1, 1)]
    )
    with pytest.raises(OSError, match=r"."):
        await open_tcp("127.0.0.1", port_of(listener), ConnectionOptions())

    async with await listener.accept() as stream:
        assert b"" == await stream.receive_some()


async def test_a_connection_comes_from_the_local_address(listener):
    options = ConnectionOptions(local_address="127.0.0.1")
    async with await open_tcp("localhost", port_of(listener), options) as stream:
        assert "127.0.0.1" == stream.socket.getsockname()[0]


async def test_a_local_address_that_is_not_ours_is_an_error(listener):
    with pytest.raises(OSError, match=r"."):
        await open_tcp("127.0.0.1", port_of(listener), ConnectionOptions(local_address="192.0.2.1"))


async def test_an_opener_of_the_run_s_takes_the_place_of_tcp(network):
    stream = await open_tcp("server.test", 80, ConnectionOptions())

    assert network.client_streams[-1] is stream


def caused(cause):
    error = OSError("all attempts failed")
    error.__cause__ = cause
    return error


REFUSED, UNREACHABLE = os.strerror(ECONNREFUSED), os.strerror(ENETUNREACH)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(ECONNREFUSED, "at 10.0.0.1"), REFUSED),
        (caused(OSError(ECONNREFUSED, "at 10.0.0.1")), REFUSED),
        (
            caused(
                ExceptionGroup(
                    "attempts",
                    [
                        OSError(ENETUNREACH, "1"),
                        OSError(ECONNREFUSED, "2"),
                        OSError(ENETUNREACH, "3"),
                    ],
                )
            ),
            f"{UNREACHABLE}, {REFUSED}",
        ),
        (caused(ValueError("not the system's")), "all attempts failed"),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), "no such name"),
    ],
)
def test_a_reason_is_what_the_system_says_once(error, text):
    assert text == reason(error)


class Sockets(trio.abc.SocketFactory):
    """Sockets of which no connection is ever answered."""

    def __init__(self):
        self.tried = []

    def socket(self, family=socket.AF_INET, type=socket.SOCK_STREAM, proto=0):
        made = trio.socket.from_stdlib_socket(socket.socket(family, type, proto))

        async def connect(address):
            self.tried.append((address[0], trio.current_time()))
            await trio.sleep_forever()

        made.connect = connect
        return made


class Resolver(trio.abc.HostnameResolver):
    """Every name has three addresses."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        await trio.lowlevel.checkpoint()
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"192.0.2.{number}", port))
            for number in range(3)
        ]

    async def getnameinfo(self, *args):
        raise NotImplementedError


@pytest.mark.parametrize("delay", [0.25, 2.0])
async def test_the_next_address_is_tried_after_the_delay(autojump_clock, delay):
    sockets = Sockets()
    trio.socket.set_custom_hostname_resolver(Resolver())
    trio.socket.set_custom_socket_factory(sockets)
    with trio.move_on_after(10):
        await open_tcp("many.test", 80, ConnectionOptions(happy_eyeballs_delay=delay))

    start = sockets.tried[0][1]
    assert [0, delay, 2 * delay] == [at - start for _, at in sockets.tried]


# --- Unix sockets -------------------------------------------------------------------------------


@UNIX
async def test_a_connection_goes_through_a_unix_socket(folder, nursery, make_peer):
    path = folder / "socket"
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    requests = []
    with listening:
        await listening.bind(str(path))
        listening.listen()

        async def serve():
            stream = trio.SocketStream((await listening.accept())[0])
            peer = make_peer(stream)
            requests.append(await peer.accept())
            await peer.answer_close()

        nursery.start_soon(serve)
        async with open_websocket_url("ws://server.test/path", unix_socket=path) as connection:
            assert isinstance(connection.remote, str)

    assert requests[0].startswith(b"GET /path HTTP/1.1\r\nHost: server.test\r\n")


@UNIX
async def test_a_unix_socket_that_is_not_there_is_an_error(folder):
    with pytest.raises(
        HandshakeError, match=r"^cannot connect to ws://server.test: No such file"
    ) as caught:
        async with open_websocket_url("ws://server.test/", unix_socket=folder / "none"):
            pass

    assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_a_platform_without_unix_sockets_says_so(monkeypatch):
    async def fail(path):
        await trio.lowlevel.checkpoint()
        raise RuntimeError("Unix sockets are not supported on this platform")

    monkeypatch.setattr(trio, "open_unix_socket", fail)
    with pytest.raises(OSError, match="not supported on this platform"):
        await open_unix("/tmp/socket")


# --- a peer that answers and takes nothing ------------------------------------------------------


class Told:
    """A socket of which the system tells when data was last sent, and last acknowledged."""

    def __init__(self, sent, acknowledged):
        self.info = struct.pack("=8x9I4I", *range(9), sent, 0, 0, acknowledged)

    def getsockopt(self, level, name, size):
        return self.info[:size]


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this platform has no TCP_INFO")
@pytest.mark.parametrize(
    ("sent", "acknowledged", "expected"), [(3000, 1700, True), (700, 2600, False), (5, 5, False)]
)
def test_s5_3_a_peer_that_has_answered_since_is_no_dead_path(sent, acknowledged, expected):
    assert expected is has_answered(Told(sent, acknowledged))


def test_s5_3_of_what_is_no_tcp_socket_nobody_tells():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        assert not has_answered(other)


def test_s5_3_where_the_platform_does_not_tell_no_peer_has_answered(monkeypatch):
    monkeypatch.setattr(_socket, "_TCP_INFO", None)

    assert not has_answered(Told(3000, 1700))
