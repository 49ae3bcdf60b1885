"""One connection, as a handler sees it."""

import pytest
import trio

from wsclient.connection import open_websocket_url
from wsclient.testing import SILENCE, FaultServer

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: server.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_handler_speaks_and_hears(network, autojump_clock):
    async def greet(connection):
        await connection.send(f"hello {connection.number} at {connection.path}")
        await connection.send(b"\x00")
        await connection.ping(b"p")
        heard.append(await connection.receive())
        heard.append([message async for message in connection])
        heard.append(dict(connection.headers)[b"host"])
        heard.append(connection.subprotocol)

    heard = []
    async with (
        FaultServer(network=network, handler=greet) as server,
        open_websocket_url(server.url + "/x") as connection,
    ):
        assert "hello 1 at /x" == await connection.get_message()
        assert b"\x00" == await connection.get_message()

        for message in ("a", "b", "c"):
            await connection.send_message(message)

    assert ["a", ["b", "c"], b"server.test", None] == heard
    assert [b"p"] == [pong.payload for pong in server.connections[0].pongs]


async def test_connection_is_closed_when_its_handler_returns(network, autojump_clock):
    async def greet(connection):
        await connection.send("hello")

    async with (
        FaultServer(network=network, handler=greet) as server,
        open_websocket_url(server.url) as connection,
    ):
        assert ["hello"] == [message async for message in connection]

        await server.wait_over(1)

    assert (1000, 1000) == (connection.closed.code, server.connections[0].close.code)


async def test_handler_closes_with_its_own_code(network, autojump_clock):
    async def leave(connection):
        await connection.close(4001, "tired")
        await connection.close(4002, "again")
        with pytest.raises(trio.ClosedResourceError):
            await connection.send("more")

    async with (
        FaultServer(network=network, handler=leave) as server,
        open_websocket_url(server.url) as connection,
    ):
        reason = await connection.wait_closed()

    assert (4001, "tired") == (reason.code, reason.reason)


async def test_handler_resets(network, autojump_clock):
    async def cut(connection):
        await connection.receive()
        connection.reset()

    async with (
        FaultServer(network=network, handler=cut) as server,
        open_websocket_url(server.url) as connection,
    ):
        await connection.send_message("x")
        reason = await connection.wait_closed()

    assert 1006 == reason.code


async def test_handler_sends_what_has_no_name_yet(network, autojump_clock):
    async def say(connection):
        await connection.send_raw(b"\x01\x01a\x80\x01b")
        await connection.receive()

    async with (
        FaultServer(network=network, handler=say) as server,
        open_websocket_url(server.url) as connection,
    ):
        assert "ab" == await connection.get_message()


async def test_client_that_does_not_answer_a_close_frame_is_cut(network, autojump_clock):
    async def leave(connection):
        await connection.close()

    async with FaultServer(network=network, handler=leave) as server:
        stream = await network.connect("server.test", 80)
        started = trio.current_time()
        await stream.send_all(REQUEST)
        visit = await server.wait_over(1)

    assert 10 == visit.ended_at - started


@pytest.mark.parametrize("method", ["send", "receive"])
async def test_handler_that_meets_the_clients_end_may_let_it_pass(serve, method):
    async def talk(connection):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk_on, connection)

    async def talk_on(connection):
        while True:
            await (connection.send("x" * 1000) if method == "send" else connection.receive())

    async with serve(handler=talk) as server:
        for _ in range(2):
            async with open_websocket_url(server.url):
                pass
        await server.wait_over(2)


async def test_handler_that_lingers_is_cancelled_soon_after_its_connection(
    network, autojump_clock, outcome
):
    async def linger(connection):
        await connection.wait_over()
        over.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            over.append(trio.current_time())

    over = []
    async with FaultServer(network=network, handler=linger) as server:
        await outcome(server)
        await trio.sleep(100)

    assert 1 == over[1] - over[0]


async def test_client_that_breaks_a_rule_is_told_and_recorded(network, autojump_clock):
    async with FaultServer(network=network) as server:
        stream = await network.connect("server.test", 80)
        await stream.send_all(REQUEST + b"\x81\x01x")  # Not masked.
        received = b""
        while data := await stream.receive_some():
            received += data

    assert received.startswith(b"HTTP/1.1 101")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in received
    assert b"\x88" in received.partition(b"\r\n\r\n")[2][:1]
    assert "mask" in server.connections[0].violation
    assert server.connections[0].close is None


async def test_send_that_was_cut_short_is_not_followed_by_another(network, autojump_clock):
    async def impatient(connection):
        with trio.move_on_after(1):
            await connection.send(bytes(10**6))
        await connection.send("more")

    async with FaultServer(network=network, handler=impatient) as server:
        stream = await network.connect("server.test", 80)
        await stream.send_all(REQUEST)
        visit = await server.wait_over(1)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    assert 1 == visit.ended_at - visit.opened_at


async def test_fault_silences_the_handler(network, autojump_clock):
    async def tick(connection):
        while True:
            await trio.sleep(1)
            await connection.send("tick")

    async with (
        FaultServer([SILENCE.later(after=3.5)], network=network, handler=tick) as server,
        open_websocket_url(server.url) as connection,
    ):
        heard = []
        with trio.move_on_after(100):
            while True:
                heard.append(await connection.get_message())
        connection.abort()

    assert ["tick"] * 3 == heard
