"""Streams to connect over: TCP, and TLS over it."""

from __future__ import annotations

import os
import ssl
from errno import ECONNREFUSED, ENETUNREACH

import pytest
import trio
import trio.testing
import trustme

from wsclient.connection import stream_opener
from wsclient.connection._stream import default_ssl_context, open_transport, ssl_context_for
from wsclient.errors import HandshakeError, ProxyError
from wsclient.options import ConnectionOptions

# --- contexts -----------------------------------------------------------------------------------


async def open_stream(*arguments):
    return (await open_transport(*arguments)).stream


def test_use_ssl_is_a_bool_or_a_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    assert ssl_context_for(False) is None
    assert ssl_context_for(context) is context
    assert ssl.SSLContext is type(ssl_context_for(True))
    for wrong in (1, 0, None, "yes", "context"):
        with pytest.raises(TypeError, match=r"^`use_ssl` argument must be bool or ssl.SSLContext$"):
            ssl_context_for(wrong)


def test_the_default_context_verifies_and_is_made_once():
    context = default_ssl_context()

    assert default_ssl_context() is context
    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


# --- streams of the test's ----------------------------------------------------------------------


async def test_a_stream_opener_opens_the_streams_of_this_run(network):
    stream = await open_stream("test.example", 80, None)

    assert network.client_streams[-1] is stream


def test_another_run_opens_tcp_again():
    async def set_opener():
        async def open_nothing(host, port):
            raise OSError("memory only")

        stream_opener.set(open_nothing)

    async def get_opener():
        return stream_opener.get()

    trio.run(set_opener)

    assert trio.run(get_opener) is None


async def test_tls_works_over_any_stream(network, tls, nursery):
    received = []

    async def serve():
        stream = trio.SSLStream((await network.accept()).stream, tls.server, server_side=True)
        await stream.do_handshake()
        received.append(await stream.receive_some())

    nursery.start_soon(serve)
    stream = await open_stream("localhost", 443, tls.client)
    await stream.send_all(b"secret")
    await trio.testing.wait_all_tasks_blocked()

    assert [b"secret"] == received
    await trio.aclose_forcefully(stream)


# --- another place, another name ----------------------------------------------------------------


async def test_the_stream_goes_to_another_host_and_port_if_asked(network):
    opened = []

    async def open_stream_to(host, port):
        opened.append((host, port))
        return await network.open(host, port)

    stream_opener.set(open_stream_to)
    for options in (
        ConnectionOptions(),
        ConnectionOptions(connect_host="10.0.0.1"),
        ConnectionOptions(connect_port=81),
        ConnectionOptions(connect_host="[::1]", connect_port=81),
    ):
        await open_stream("server.test", 80, None, options)

    assert [
        ("server.test", 80),
        ("10.0.0.1", 80),
        ("server.test", 81),
        ("::1", 81),
    ] == opened


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_stream_may_go_through_a_proxy(network, nursery, tls, scheme):
    lines = []

    async def serve():
        peer = await network.accept()
        if scheme == "https":
            peer.stream = trio.SSLStream(peer.stream, tls.server, server_side=True)
        lines.append((await peer.read_request()).split(b"\r\n")[0])
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        lines.append(await peer.stream.receive_some())

    nursery.start_soon(serve)
    options = ConnectionOptions(
        proxy=f"{scheme}://localhost", proxy_ssl_context=tls.client if scheme == "https" else None
    )
    stream = await open_stream("server.test", 81, None, options)
    await stream.send_all(b"hello")
    await trio.testing.wait_all_tasks_blocked()

    assert [b"CONNECT server.test:81 HTTP/1.1", b"hello"] == lines
    await trio.aclose_forcefully(stream)


async def test_a_proxy_that_fails_is_told_apart_and_its_stream_closed(network, nursery, tls):
    async def refuse():
        peer = await network.accept()
        await peer.read_request()
        await peer.send(b"HTTP/1.1 403 No\r\n\r\n")
        assert b"" == await peer.receive_rest()

    nursery.start_soon(refuse)
    with pytest.raises(ProxyError, match="HTTP 403"):
        await open_stream("h", 80, None, ConnectionOptions(proxy="http://proxy.test"))

    async def fail(host, port):
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError(ECONNREFUSED, "refused")

    stream_opener.set(fail)
    with pytest.raises(ProxyError, match=r"^cannot connect to the proxy http://proxy.test: "):
        await open_stream("h", 80, None, ConnectionOptions(proxy="http://proxy.test"))


async def test_a_proxy_of_the_environment_that_cannot_be_used_is_an_error(monkeypatch):
    monkeypatch.setenv("ws_proxy", "gopher://proxy.test")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ProxyError, match=r"^ws_proxy in the environment: ") as caught:
        await open_stream("server.test", 80, None, ConnectionOptions(proxy=True))

    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_unix_socket_takes_the_place_of_tcp(tmp_path):
    options = ConnectionOptions(unix_socket=tmp_path / "none")
    with pytest.raises(HandshakeError, match=r"^cannot connect to ws://h: ") as caught:
        await open_stream("h", 80, None, options)

    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("host", "options", "name"),
    [
        ("localhost", {}, "localhost"),
        ("localhost.", {}, "localhost"),
        ("other.test", {"server_hostname": "localhost"}, "localhost"),
        ("10.0.0.1", {"server_hostname": "localhost"}, "localhost"),
        ("localhost", {"connect_host": "10.0.0.1"}, "localhost"),
        # Addresses are verified and not asked for (RFC 6066 §3).
        ("127.0.0.1", {}, None),
        ("::1", {}, None),
        ("::1%lo", {}, None),
    ],
)
async def test_tls_asks_for_the_host_or_for_another_name(network, nursery, host, options, name):
    authority = trustme.CA()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    authority.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(server)
    asked = []
    server.sni_callback = lambda socket, asked_for, context: asked.append(asked_for)

    async def serve():
        stream = trio.SSLStream((await network.accept()).stream, server, server_side=True)
        await stream.do_handshake()

    nursery.start_soon(serve)
    stream = await open_stream(host, 443, client, ConnectionOptions(**options))

    assert [name] == asked
    await trio.aclose_forcefully(stream)


# --- failures -----------------------------------------------------------------------------------


async def test_a_refused_connection_says_where_and_why(take_port):
    port = take_port()
    with pytest.raises(
        HandshakeError, match=f"^cannot connect to ws://127.0.0.1:{port}: "
    ) as caught:
        await open_stream("127.0.0.1", port, None)

    assert HandshakeError is type(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


REFUSED = os.strerror(ECONNREFUSED)


@pytest.mark.parametrize(
    ("error", "cause", "text"),
    [
        (ConnectionRefusedError(ECONNREFUSED, "refused"), None, REFUSED),
        (OSError("all attempts failed"), OSError(ECONNREFUSED, "Error connecting to x"), REFUSED),
        (
            OSError("all attempts failed"),
            ExceptionGroup(
                "attempts",
                [OSError(ENETUNREACH, "1"), OSError(ECONNREFUSED, "2"), OSError(ENETUNREACH, "3")],
            ),
            f"{os.strerror(ENETUNREACH)}, {REFUSED}",
        ),
        (OSError("something"), None, "something"),
        (OSError("something"), ValueError("not of the system"), "something"),
    ],
)
async def test_a_failed_connection_says_each_reason_once(network, error, cause, text):
    async def fail(host, port):
        await trio.lowlevel.checkpoint()
        raise error from cause

    stream_opener.set(fail)
    with pytest.raises(HandshakeError) as caught:
        await open_stream("test.example", 80, None)

    assert f"cannot connect to ws://test.example: {text}" == str(caught.value)
    assert caught.value.__cause__ is error


async def test_a_failed_name_lookup_says_so():
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args, **kwargs):
            await trio.lowlevel.checkpoint()
            raise trio.socket.gaierror(trio.socket.EAI_NONAME, "no such name")

        async def getnameinfo(self, *args, **kwargs):
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Resolver())
    with pytest.raises(HandshakeError, match=r"ws://nx.test: .*no such name") as caught:
        await open_stream("nx.test", 80, None)

    assert isinstance(caught.value.__cause__, trio.socket.gaierror)


async def test_a_server_that_nobody_vouches_for_is_refused_at_once(network, tls, nursery):
    ended = []

    async def serve():
        peer = await network.accept()
        stream = trio.SSLStream(peer.stream, tls.server, server_side=True)
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        ended.append(await peer.receive_rest())

    nursery.start_soon(serve)
    with pytest.raises(HandshakeError, match=r"^TLS with wss://localhost failed: ") as caught:
        await open_stream("localhost", 443, tls.stranger)
    await trio.testing.wait_all_tasks_blocked()

    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert [b""] == ended


async def test_a_certificate_for_another_name_is_refused_at_once(network, tls, nursery):
    async def serve():
        stream = trio.SSLStream((await network.accept()).stream, tls.other_server, server_side=True)
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()

    nursery.start_soon(serve)
    with pytest.raises(HandshakeError, match=r"other.example|localhost") as caught:
        await open_stream("localhost", 443, tls.client)

    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_plain_server_on_wss_is_refused_at_once(network, tls, nursery):
    ended = []

    async def serve():
        peer = await network.accept()
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        ended.append(await peer.receive_rest())

    nursery.start_soon(serve)
    with pytest.raises(HandshakeError, match=r"^TLS with wss://localhost failed: ") as caught:
        await open_stream("localhost", 443, tls.client)
    await trio.testing.wait_all_tasks_blocked()

    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert 1 == len(ended)


async def test_a_server_that_hangs_up_inside_tls_is_an_error_at_once(network, tls, nursery):
    async def serve():
        peer = await network.accept()
        await peer.stream.receive_some()
        await peer.stream.aclose()

    nursery.start_soon(serve)
    with pytest.raises(HandshakeError, match=r"^TLS with wss://localhost failed: .") as caught:
        await open_stream("localhost", 443, tls.client)

    assert isinstance(caught.value.__cause__, Exception)


async def test_a_cancelled_tls_handshake_closes_the_stream(network, tls, autojump_clock):
    with trio.move_on_after(5) as scope:
        await open_stream("localhost", 443, tls.client)

    assert scope.cancelled_caught
    peer = await network.accept()
    # A client's hello, and then the end.
    assert (await peer.receive_rest()).startswith(b"\x16\x03")


async def test_a_context_that_cannot_be_used_closes_the_stream(network, tls):
    with pytest.raises(HandshakeError, match=r"^TLS with wss://localhost failed: ") as caught:
        await open_stream("localhost", 443, tls.server)

    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert b"" == await (await network.accept()).receive_rest()


async def test_a_name_that_tls_cannot_ask_for_closes_the_stream(network, tls):
    # The functions that open connections refuse such a host before they get here.
    with pytest.raises(ValueError, match="server_hostname"):
        await open_stream(".localhost", 443, tls.client)

    assert b"" == await (await network.accept()).receive_rest()
