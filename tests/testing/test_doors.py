"""Where the server listens."""

import socket

import pytest
import trio

from wsclient.connection import open_websocket_url
from wsclient.testing import FaultServer
from wsclient.testing._doors import SocketDoor


async def test_addresses_are_as_expected(network, autojump_clock, tls):
    async with FaultServer(network=network) as server:
        assert "ws://server.test" == server.url

    async with FaultServer(network=network, ssl_context=tls.server) as server:
        assert "wss://server.test" == server.url

    async with FaultServer(network=network, host="other.test", port=81) as server:
        assert "ws://other.test:81" == server.url

    async with FaultServer() as server:
        assert f"ws://127.0.0.1:{server.port}" == server.url
        assert 0 < server.port
        assert f"<FaultServer {server.url} [NONE]>" == repr(server)


async def test_address_in_use_is_an_error_of_the_block(network, autojump_clock):
    async with FaultServer(network=network):
        with pytest.raises(OSError, match="in use"):
            async with FaultServer(network=network):
                pass

    async with FaultServer() as server:
        with pytest.raises(OSError, match="in use"):
            async with FaultServer(port=server.port):
                pass


async def test_closed_door_keeps_its_port_and_refuses():
    door = SocketDoor("127.0.0.1", 0)
    await door.prepare()
    port = door.port
    for _ in range(3):
        listener = door.open()
        client = await trio.open_tcp_stream("127.0.0.1", port)
        listener.close()
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await client.aclose()

        assert listener.is_closed

        with pytest.raises(trio.ClosedResourceError):
            await listener.wait_attempt()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port)
    door.give_up()
    door.give_up()

    assert port == door.port


async def test_door_may_have_an_ipv6_address():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    server = FaultServer(host="::1")
    try:
        await server.__aenter__()
    except OSError:
        pytest.skip("no IPv6 here")
    async with open_websocket_url(server.url) as connection:
        pass
    await server.__aexit__(None, None, None)

    assert f"ws://[::1]:{server.port}" == server.url
    assert 1000 == connection.closed.code


async def test_address_that_cannot_be_bound_is_an_error_that_leaves_nothing_behind():
    with pytest.raises(OSError, match="address"):
        async with FaultServer(host="192.0.2.1"):  # RFC 5737: nobody's.
            pass
