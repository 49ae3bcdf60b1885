"""Where a connection ends."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
import trio
import trio.testing

from wsclient.connection import Endpoint
from wsclient.connection._endpoint import authority, host_header, origin, stream_endpoint


@pytest.mark.parametrize(
    ("address", "port", "is_ssl", "url"),
    [
        ("10.0.0.1", 80, False, "ws://10.0.0.1"),
        ("10.0.0.1", 443, False, "ws://10.0.0.1:443"),
        ("10.0.0.1", 443, True, "wss://10.0.0.1"),
        ("10.0.0.1", 80, True, "wss://10.0.0.1:80"),
        ("::1", 80, False, "ws://[::1]"),
        ("::1", 8000, True, "wss://[::1]:8000"),
    ],
)
def test_an_endpoints_url_leaves_the_default_port_out_and_brackets_ipv6(address, port, is_ssl, url):
    assert url == Endpoint(address, port, is_ssl).url


def test_an_endpoint_has_an_address_a_port_and_a_repr():
    endpoint = Endpoint("10.0.0.1", 80, is_ssl=False)

    assert (IPv4Address("10.0.0.1"), 80, False) == (
        endpoint.address,
        endpoint.port,
        endpoint.is_ssl,
    )
    assert 'Endpoint(address="10.0.0.1", port=80, is_ssl=False)' == repr(endpoint)
    assert IPv6Address("::1") == Endpoint("::1", 80, is_ssl=True).address


def test_an_endpoint_is_an_ip_address():
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        Endpoint("localhost", 80, is_ssl=False)


@pytest.mark.parametrize(
    ("host", "port", "secure", "header"),
    [
        ("h", 80, False, "h"),
        ("h", 443, True, "h"),
        # The other scheme's default is no default.
        ("h", 443, False, "h:443"),
        ("h", 80, True, "h:80"),
        ("::1", 80, False, "[::1]"),
        ("::1", 8000, False, "[::1]:8000"),
        ("[::1]", 8000, False, "[::1]:8000"),
        # What a zone means only this machine knows.
        ("fe80::1%eth0", 80, False, "[fe80::1]"),
        ("fe80::1%eth0", 8000, False, "[fe80::1]:8000"),
        ("x" * 63, 65535, False, "x" * 63 + ":65535"),
    ],
)
def test_the_host_header_brackets_ipv6_and_leaves_only_the_schemes_port_out(
    host, port, secure, header
):
    assert header == host_header(host, port, secure=secure)
    assert ("wss://" if secure else "ws://") + header == origin(host, port, secure=secure)


async def test_a_stream_that_is_no_socket_is_described():
    stream, _ = trio.testing.memory_stream_pair()

    assert repr(stream) == stream_endpoint(stream, local=True)


async def test_a_tls_stream_over_no_socket_is_described(tls):
    transport, _ = trio.testing.memory_stream_pair()
    stream = trio.SSLStream(transport, tls.client, server_hostname="localhost")

    assert repr(stream) == stream_endpoint(stream, local=False)


async def test_a_unix_socket_is_described():
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        stream = trio.SocketStream(ours)

        assert repr(stream) == stream_endpoint(stream, local=True)
        assert repr(stream) == stream_endpoint(stream, local=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_tcp_stream_has_two_endpoints(address):
    try:
        (listener,) = await trio.open_tcp_listeners(0, host=address)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with listener:
        port = listener.socket.getsockname()[1]
        async with await trio.open_tcp_stream(address, port) as stream:
            local = stream_endpoint(stream, local=True)
            remote = stream_endpoint(stream, local=False)

            assert stream.socket.getsockname()[1] == local.port
            assert (address, port, False) == (str(remote.address), remote.port, remote.is_ssl)
            await (await listener.accept()).aclose()


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [("h", 80, "h:80"), ("::1", 443, "[::1]:443"), ("fe80::1%eth0", 80, "[fe80::1]:80")],
)
def test_an_authority_always_has_its_port(host, port, text):
    assert text == authority(host, port)


async def test_tls_within_tls_has_the_endpoints_of_its_socket(tls):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            outer = trio.SSLStream(stream, tls.client, server_hostname="localhost")
            inner = trio.SSLStream(outer, tls.client, server_hostname="localhost")

            remote = stream_endpoint(inner, local=False)
            assert ("127.0.0.1", port, True) == (str(remote.address), remote.port, remote.is_ssl)
            await (await listener.accept()).aclose()
