"""What the tests of the test kit share."""

import functools

import pytest
import trio

from wsclient.connection import open_websocket_url, stream_opener
from wsclient.errors import ConnectionRejected, HandshakeError
from wsclient.testing import FaultServer, memory_network


@pytest.fixture
async def network():
    """An in-memory network.

    On virtual time only where the test itself asks for ``autojump_clock``: pytest-trio does not see
    a clock that a fixture asks for.
    """
    with memory_network() as network:
        yield network


@pytest.fixture(params=["memory", "socket"])
async def serve(request):
    """Makes servers; a test that uses it runs twice: in memory, and on a real socket."""
    if request.param == "socket":
        yield FaultServer
        return
    with memory_network() as network:
        yield functools.partial(FaultServer, network=network)


@pytest.fixture
def open_stream():
    """Opens a stream to a server, without a handshake."""

    async def open_stream(server):
        return await (stream_opener.get() or trio.open_tcp_stream)(server.host, server.port)

    return open_stream


@pytest.fixture
def outcome():
    """Tells how one client fares: its status, its close code, or that it was not answered."""

    async def outcome(server):
        try:
            async with open_websocket_url(server.url) as connection:
                with trio.move_on_after(0.2):
                    await connection.wait_closed()
            return connection.closed.code
        except ConnectionRejected as error:
            return error.status_code
        except HandshakeError:
            return None

    return outcome
