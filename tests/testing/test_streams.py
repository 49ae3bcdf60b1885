"""How streams are ended."""

import pytest
import trio

from wsclient.testing import memory_stream_pair
from wsclient.testing._streams import hang_up, reset, transport_of


async def tcp_stream_pair():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    server = await listener.accept()
    await listener.aclose()
    return client, server


async def memory_pair():
    return memory_stream_pair()


def with_tls(make_pair):
    async def make(tls):
        client, server = await make_pair()
        client = trio.SSLStream(
            client, tls.client, server_hostname="localhost", https_compatible=True
        )
        server = trio.SSLStream(server, tls.server, server_side=True, https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        return client, server

    return make


def without_tls(make_pair):
    async def make(tls):
        return await make_pair()

    return make


ALL = pytest.mark.parametrize(
    "make_pair",
    [
        without_tls(memory_pair),
        without_tls(tcp_stream_pair),
        with_tls(memory_pair),
        with_tls(tcp_stream_pair),
    ],
    ids=["memory", "tcp", "tls over memory", "tls over tcp"],
)


@ALL
async def test_hanging_up_lets_arrive_what_was_sent(make_pair, tls):
    client, server = await make_pair(tls)
    await server.send_all(b"last words")
    hang_up(server)
    hang_up(server)
    received = b""
    while data := await client.receive_some():
        received += data
    await client.aclose()

    assert b"last words" == received


@ALL
async def test_reset_breaks_the_stream(make_pair, tls):
    client, server = await make_pair(tls)
    reset(server)
    reset(server)
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    await trio.aclose_forcefully(client)


@ALL
async def test_transport_is_what_tls_runs_over(make_pair, tls):
    ends = await make_pair(tls)
    for end in ends:
        assert not isinstance(transport_of(end), trio.SSLStream)

        await trio.aclose_forcefully(end)
