"""A server whose script is the test."""

import pytest
import trio

import wsclient
from wsclient.testing import NONE, REJECT_503, ScriptedServer


@pytest.fixture
async def server(network):
    async with ScriptedServer(network=network) as server:
        yield server


async def test_script_goes_line_by_line_and_over_connections(server, autojump_clock):
    async with wsclient.open_channel(server.url) as channel:
        await channel.send('{"op": "subscribe"}')
        await channel.send("text")
        await channel.send(b"bytes")

        assert '{"op": "subscribe"}' == await server.expect({"op": "subscribe"})
        assert "text" == await server.expect("text")
        assert b"bytes" == await server.expect(lambda message: message[:1] == b"b")

        await server.send({"price": 7})
        await server.send("as it is")

        assert '{"price": 7}' == await channel.receive()
        assert "as it is" == await channel.receive()

        await server.close(1012, "restart")
        second = await server.accept(within=60)

        assert 2 == second.number

        await server.send([1])

        assert "[1]" == await channel.receive()

        await server.reset()
        third = await server.accept(within=60)

        assert 3 == third.number


async def test_script_goes_on_a_real_socket_too():
    async with ScriptedServer() as server, wsclient.open_channel(server.url) as channel:
        await channel.send("hello")
        await server.expect("hello")


async def test_faults_befall_the_connections_beside_the_script(network, autojump_clock):
    async with (
        ScriptedServer([REJECT_503, NONE], network=network) as server,
        wsclient.open_channel(server.url),
    ):
        connection = await server.accept()

    assert 2 == connection.number


@pytest.mark.parametrize("expected", ["b", b"a", {"a": 1}, lambda message: message == "b"])
async def test_wrong_line_fails_and_says_what_came(server, autojump_clock, expected):
    async with wsclient.open_channel(server.url) as channel:
        await channel.send("a")
        with pytest.raises(AssertionError, match=r"^expected .*, and 'a' came$"):
            await server.expect(expected)


async def test_missing_line_fails_after_its_time(server, autojump_clock):
    async with wsclient.open_channel(server.url) as channel:
        await channel.wait_ready()
        began = trio.current_time()
        with pytest.raises(AssertionError, match=r"^expected 'a', and nothing came within 3 s$"):
            await server.expect("a", within=3)

    assert 3 == trio.current_time() - began


async def test_client_that_has_left_fails_the_next_line(server, autojump_clock):
    async with wsclient.open_channel(server.url):
        await server.accept()
    with pytest.raises(AssertionError, match=r"^expected 'a', and the client has closed: .*1000"):
        await server.expect("a")

    async with wsclient.open_channel(server.url):
        await server.accept()
        await server.reset()
        with pytest.raises(AssertionError, match=r"^expected 'a', and the client is gone$"):
            await server.expect("a")


async def test_nobody_comes(server, autojump_clock):
    with pytest.raises(AssertionError, match=r"^expected a client, and none came within 5 s$"):
        await server.send("a")
