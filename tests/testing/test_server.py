"""The server itself: its story, its outages, its end."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from wsclient.connection import open_websocket_url
from wsclient.errors import ConnectionRejected, HandshakeError
from wsclient.testing import (
    NONE,
    REFUSE,
    REJECT_404,
    REJECT_503,
    RESET_AFTER_OPEN,
    SILENCE,
    FaultServer,
    echo,
)


async def test_connections_get_their_faults_in_order_and_the_last_one_repeats(
    network, autojump_clock, outcome
):
    story = [REJECT_503, RESET_AFTER_OPEN, REFUSE, REJECT_404]
    async with FaultServer(story, network=network) as server:
        outcomes = [await outcome(server) for _ in range(5)]

    assert [503, 1006, None, 404, 404] == outcomes
    assert [*story, REJECT_404] == [visit.fault for visit in server.connections]
    assert [1, 2, 3, 4, 5] == [visit.number for visit in server.connections]


async def test_server_without_faults_is_healthy(network, autojump_clock, outcome):
    async with FaultServer(network=network) as server:
        assert [1000, 1000] == [await outcome(server) for _ in range(2)]

    assert [NONE, NONE] == [visit.fault for visit in server.connections]


@pytest.mark.parametrize("faults", [NONE, ["NONE"], [None]])
def test_server_wants_faults_and_nothing_else(faults):
    with pytest.raises(TypeError, match="Fault"):
        FaultServer(faults)


async def test_waits_end_when_so_much_has_happened(network, autojump_clock, outcome):
    async with FaultServer(network=network) as server:
        waited = []

        async def wait():
            visit = await server.wait_connections(2)
            waited.append(visit.number)
            waited.append(await server.wait_messages(2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await outcome(server)
            await wait_all_tasks_blocked()

            assert [] == waited

            async with open_websocket_url(server.url) as connection:
                await connection.send_message("a")
                await wait_all_tasks_blocked()

                assert [2] == waited

                await connection.send_message("b")

    assert [2, ["a", "b"]] == waited


async def test_handlers_exception_leaves_the_block_as_itself(serve):
    async def fail(connection):
        raise LookupError("the handler's")

    with pytest.raises(LookupError, match="the handler's") as caught:
        async with serve(handler=fail) as server, open_websocket_url(server.url):
            await trio.sleep_forever()

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_bodys_exception_leaves_the_block_as_itself(network, autojump_clock):
    with pytest.raises(LookupError, match="the body's"):
        async with FaultServer(network=network) as server, open_websocket_url(server.url):
            raise LookupError("the body's")


async def test_outage_resets_and_refuses_until_the_server_starts_again(serve, outcome):
    async with serve(handler=echo) as server:
        url = server.url
        async with open_websocket_url(url) as connection:
            await connection.send_message("x")

            assert "x" == await connection.get_message()

            await server.stop()

            assert 1006 == (await connection.wait_closed()).code

        for _ in range(2):
            with pytest.raises(HandshakeError) as caught:
                async with open_websocket_url(url):
                    pass

            assert "refused" in str(caught.value)

        await server.stop()
        await server.start()
        await server.start()

        assert url == server.url
        assert 1000 == await outcome(server)

    assert 2 == len(server.connections)
    assert all(visit.is_over for visit in server.connections)


async def test_graceful_outage_says_goodbye(serve):
    async with serve() as server, open_websocket_url(server.url) as connection:
        await server.stop(graceful=True)

        assert 1001 == (await connection.wait_closed()).code

    assert [1001] == [visit.close.code for visit in server.connections]


async def test_graceful_outage_does_not_wait_for_the_mute(network, autojump_clock):
    async with FaultServer([NONE, SILENCE], network=network) as server:
        await network.connect("server.test", 80)
        silent = await network.connect("server.test", 80)
        await silent.send_all(b"GET")
        started = trio.current_time()
        await server.stop(graceful=True)

        assert 1 >= trio.current_time() - started

        with pytest.raises(trio.BrokenResourceError):
            await silent.receive_some()


async def test_handler_may_start_an_outage(network, autojump_clock):
    async def pull_the_plug(connection):
        await connection.receive()
        await server.stop()
        await trio.sleep_forever()

    async with (
        FaultServer(network=network, handler=pull_the_plug) as server,
        open_websocket_url(server.url) as connection,
    ):
        await connection.send_message("bye")

        assert 1006 == (await connection.wait_closed()).code


async def test_outages_can_be_many():
    async with FaultServer(handler=echo) as server:
        for _ in range(20):
            async with open_websocket_url(server.url) as connection:
                await connection.send_message("x")
                await connection.get_message()
                await server.stop()
            await server.start()

    assert 20 == len(server.connections)


async def test_server_runs_in_its_block_only(network, autojump_clock):
    server = FaultServer(network=network)
    with pytest.raises(RuntimeError):
        await server.start()
    async with server:
        pass
    with pytest.raises(RuntimeError):
        await server.start()
    with pytest.raises(RuntimeError):
        async with server:
            pass


async def test_leaving_the_block_ends_everything_at_once(serve):
    started = trio.current_time()
    async with trio.open_nursery() as nursery, serve([SILENCE, NONE]) as server:
        connections = []

        async def stay():
            async with open_websocket_url(server.url) as connection:
                connections.append(connection)
                await connection.wait_closed()

        for _ in range(3):
            nursery.start_soon(stay)
        await server.wait_connections(3)
        with trio.move_on_after(0.2):
            await trio.sleep_forever()  # Let them open.
    assert 3 > trio.current_time() - started
    assert [1006] * 3 == [connection.closed.code for connection in connections]
    assert all(visit.is_over for visit in server.connections)


async def test_broadcast_reaches_every_healthy_connection(network, autojump_clock):
    async with FaultServer([NONE, SILENCE, NONE], network=network) as server:
        async with (
            open_websocket_url(server.url) as first,
            open_websocket_url(server.url, disconnect_timeout=0.1) as silent,
            open_websocket_url(server.url) as third,
        ):
            assert 2 == await server.broadcast("news")
            assert ["news", "news"] == [await first.get_message(), await third.get_message()]

            silent.abort()

        assert 0 == await server.broadcast("nobody hears")


async def test_broadcast_misses_who_leaves_meanwhile(network, autojump_clock):
    async with FaultServer(network=network) as server:
        async with (
            open_websocket_url(server.url, max_message_size=10**9) as connection,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(server.broadcast, bytes(10**6))
            nursery.start_soon(server.broadcast, "second")
            connection.abort()

        await server.wait_over(1)


async def test_tls_is_served_on_both_roads(serve, tls):
    async with serve(handler=echo, host="localhost", ssl_context=tls.server) as server:
        async with open_websocket_url(server.url, tls.client) as connection:
            await connection.send_message("secret")

            assert "secret" == await connection.get_message()

        await server.wait_over(1)

    assert [1000] == [visit.close.code for visit in server.connections]


async def test_client_that_does_not_trust_the_server_ends_its_own_connection_only(serve, tls):
    async with serve(host="localhost", ssl_context=tls.server) as server:
        with pytest.raises(HandshakeError):
            async with open_websocket_url(server.url, tls.stranger):
                pass
        visit = await server.wait_over(1)

    assert visit.path is None


async def test_faults_are_the_same_over_tls(network, autojump_clock, tls):
    story = [REJECT_503, RESET_AFTER_OPEN, NONE]
    async with FaultServer(
        story, network=network, host="localhost", ssl_context=tls.server
    ) as server:
        with pytest.raises(ConnectionRejected):
            async with open_websocket_url(server.url, tls.client):
                pass
        async with open_websocket_url(server.url, tls.client) as connection:
            assert 1006 == (await connection.wait_closed()).code


async def test_independent_client_agrees():
    from websockets.sync.client import connect

    def talk(url):
        with connect(url, subprotocols=["chat"], compression=None) as client:
            client.send("hello")
            answers = [client.recv()]
            client.send(b"\x00\x01")
            answers.append(client.recv())
            client.ping(b"p").wait(5)
        return answers, client.subprotocol, client.close_code

    async with FaultServer(handler=echo, subprotocols=["chat"]) as server:
        answers, subprotocol, code = await trio.to_thread.run_sync(talk, server.url)
        visit = await server.wait_over(1)

    assert (["hello", b"\x00\x01"], "chat", 1000) == (answers, subprotocol, code)
    assert ["hello", b"\x00\x01"] == visit.messages
    assert [b"p"] == [heard.payload for heard in visit.pings]
    assert (1000, None) == (visit.close.code, visit.violation)
