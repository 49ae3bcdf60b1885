import socket

import pytest
import trio
from trio.testing import check_half_closeable_stream, check_two_way_stream, wait_all_tasks_blocked

import wsclient.connection
from wsclient.connection import stream_opener
from wsclient.testing import MemoryStream, memory_network, memory_stream_pair


async def make_pair():
    return memory_stream_pair()


async def make_clogged_pair():
    client, server = memory_stream_pair(buffer_size=10)
    await client.send_all(bytes(10))
    await server.send_all(bytes(10))
    return client, server


async def connect(network, host="server.test", port=80):
    """Both ends of a connection to a host that listens."""
    listener = network.listen(host, port)
    async with trio.open_nursery() as nursery:
        ends = []

        async def accept():
            ends.append(await listener.accept())

        nursery.start_soon(accept)
        ends.append(await network.connect(host, port))
    listener.close()
    server, client = sorted(ends, key=lambda end: "to" in repr(end))
    return client, server


# The stream keeps trio's contract.


async def test_stream_is_a_half_closeable_stream():
    await check_half_closeable_stream(make_pair, make_clogged_pair)


async def test_stream_is_a_two_way_stream_with_a_small_buffer():
    async def make_small_pair():
        return memory_stream_pair(buffer_size=1000)

    await check_two_way_stream(make_small_pair, None)


async def test_sender_waits_for_its_reader():
    client, server = memory_stream_pair(buffer_size=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(101))
        await wait_all_tasks_blocked()

        assert 1 == len(nursery.child_tasks)

        received = [await server.receive_some(), await server.receive_some()]

    assert [bytes(100), bytes(1)] == received


async def test_directions_do_not_wait_for_each_other(autojump_clock):
    client, _ = await make_clogged_pair()
    with trio.move_on_after(1) as scope:
        await client.send_all(b"x")

    assert scope.cancelled_caught
    assert bytes(10) == await client.receive_some()


async def test_received_is_no_more_than_asked_for():
    client, server = memory_stream_pair()
    await client.send_all(b"abcdef")

    assert [b"ab", b"cdef"] == [await server.receive_some(2), await server.receive_some(100)]


async def test_cancelled_receive_loses_nothing(autojump_clock):
    client, server = memory_stream_pair()
    with trio.move_on_after(1):
        await server.receive_some()
    await client.send_all(b"x")
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.receive_some()

    assert b"x" == await server.receive_some()


async def test_end_comes_after_all_data():
    client, server = memory_stream_pair()
    await client.send_all(b"last words")
    client.close()

    assert [b"last words", b""] == [await server.receive_some(), await server.receive_some()]


async def test_reset_breaks_both_ends_and_loses_what_was_not_read():
    client, server = memory_stream_pair()
    await client.send_all(b"lost")
    server.reset()
    for end in (client, server):
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await end.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await end.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await end.wait_send_all_might_not_block()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await end.send_eof()


async def test_reset_wakes_who_sends_and_who_receives():
    client, server = memory_stream_pair(buffer_size=1)

    async def send():
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"xx")

    async def receive():
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        server.reset()


async def test_reset_of_a_closed_end_spares_what_it_sent():
    client, server = memory_stream_pair()
    await client.send_all(b"last words")
    client.close()
    client.reset()

    assert b"last words" == await server.receive_some()


async def test_closing_wakes_who_sends_from_either_end():
    for closing in (0, 1):
        ends = memory_stream_pair(buffer_size=1)
        expected = (trio.ClosedResourceError, trio.BrokenResourceError)[closing]
        async with trio.open_nursery() as nursery:

            async def send(ends=ends, expected=expected):
                with pytest.raises(expected):
                    await ends[0].send_all(b"xx")

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            ends[closing].close()


async def test_wait_received_waits_for_the_reader_or_its_end():
    for leave in (MemoryStream.receive_some, MemoryStream.aclose):
        client, server = memory_stream_pair()
        await client.send_all(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.wait_received)
            await wait_all_tasks_blocked()

            assert 1 == len(nursery.child_tasks)

            await leave(server)


async def test_buffer_must_hold_something():
    with pytest.raises(ValueError, match="buffer_size"):
        memory_stream_pair(buffer_size=0)


# The network.


async def test_connection_joins_both_ends(network, autojump_clock):
    client, server = await connect(network)
    await client.send_all(b"ping")
    await server.send_all(b"pong")

    assert [b"pong", b"ping"] == [await client.receive_some(), await server.receive_some()]
    assert "<MemoryStream to server.test:80>" == repr(client)


async def test_unknown_host_has_no_address(network, autojump_clock):
    with pytest.raises(socket.gaierror) as caught:
        await network.connect("nowhere.test", 80)

    assert socket.EAI_NONAME == caught.value.errno


async def test_known_host_refuses_where_nothing_listens(network, autojump_clock):
    network.add_host("known.test")
    network.listen("server.test", 80).close()
    for host, port in [("known.test", 80), ("server.test", 80), ("SERVER.test", 81)]:
        with pytest.raises(ConnectionRefusedError):
            await network.connect(host, port)


async def test_listener_refuses_who_waits_when_it_closes(network, autojump_clock):
    listener = network.listen("server.test", 80)
    async with trio.open_nursery() as nursery:

        async def refused():
            with pytest.raises(ConnectionRefusedError):
                await network.connect("server.test", 80)

        nursery.start_soon(refused)
        await wait_all_tasks_blocked()
        await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_closing_a_listener_wakes_who_accepts(network, autojump_clock):
    listener = network.listen("server.test", 80)
    async with trio.open_nursery() as nursery:

        async def accept():
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        listener.close()


async def test_cancelled_attempt_is_not_offered_to_the_listener(network, autojump_clock):
    listener = network.listen("server.test", 80)
    with trio.move_on_after(1):
        await network.connect("server.test", 80)
    with trio.move_on_after(1) as scope:
        await listener.accept()

    assert scope.cancelled_caught


async def test_attempt_cancelled_before_it_is_accepted_is_accepted_as_a_stream_at_its_end(
    network, autojump_clock
):
    listener = network.listen("server.test", 80)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.connect, "server.test", 80)
            with trio.CancelScope(shield=True):
                attempt = await listener.wait_attempt()
                scope.cancel()
                await wait_all_tasks_blocked()
                server = attempt.accept()

    assert b"" == await server.receive_some()


async def test_address_can_be_listened_at_once_at_a_time(network, autojump_clock):
    listener = network.listen("server.test", 80)
    with pytest.raises(OSError, match="in use"):
        network.listen("Server.Test", 80)
    listener.close()

    assert not network.listen("server.test", 80).is_closed


async def test_listener_can_be_served_by_trio(network, autojump_clock):
    async def shout(stream):
        await stream.send_all((await stream.receive_some()).upper())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, shout, [network.listen("server.test", 80)])
        client = await network.connect("server.test", 80)
        await client.send_all(b"hello")

        assert b"HELLO" == await client.receive_some()

        nursery.cancel_scope.cancel()


async def test_connections_go_through_memory_until_the_block_ends():
    with memory_network() as outer:
        with memory_network() as inner:
            assert inner.connect == stream_opener.get()

        assert outer.connect == stream_opener.get()

    assert stream_opener.get() is None


async def test_open_websocket_names_the_failure_of_the_network(network, autojump_clock):
    with pytest.raises(wsclient.errors.HandshakeError, match=r"nowhere\.test") as caught:
        async with wsclient.connection.open_websocket_url("ws://nowhere.test"):
            pass

    assert isinstance(caught.value.__cause__, socket.gaierror)
