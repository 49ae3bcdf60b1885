"""Who reads: the reader's task, or a taker in its place."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from wsclient.codes import CloseReason
from wsclient.connection import Mailbox, attach, open_websocket
from wsclient.connection._transport import SocketTransport
from wsclient.errors import ConnectionClosed

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def sockets():
    pair = trio.socket.socketpair()
    return tuple(trio.SocketStream(end) for end in pair)


@pytest.fixture
async def talking(network, nursery, monkeypatch):
    """``async with talking() as (connection, peer, readers)``, over a socket.

    ``readers`` are the tasks that have read from it since the opening handshake.
    """
    network.make_pair = sockets
    readers = []
    receive_nowait = SocketTransport.receive_nowait

    def noting(transport, get_buffer):
        received = receive_nowait(transport, get_buffer)
        if received is not None:
            readers.append(trio.lowlevel.current_task())
        return received

    monkeypatch.setattr(SocketTransport, "receive_nowait", noting)

    @asynccontextmanager
    async def talking(**options):
        peers = []

        @nursery.start_soon
        async def accept():
            peers.append(await network.accept())
            await peers[0].accept()

        with trio.fail_after(20):
            async with open_websocket(
                "test.example", 80, "/", use_ssl=False, **options
            ) as connection:
                readers.clear()
                try:
                    yield connection, peers[0], readers
                finally:
                    connection.abort()
                    await trio.aclose_forcefully(peers[0].stream)

    return talking


async def take_second(connection):
    """Take a message, and wait for the next one without letting other tasks run in between."""
    assert "first" == await connection.get_message()
    return await connection.get_message()


async def say_first(connection, peer):
    """Say what makes who waits in :func:`take_second` read itself; return once it does."""
    await trio.testing.wait_all_tasks_blocked()
    await peer.send_frame(TEXT, b"first")
    await trio.testing.wait_all_tasks_blocked()

    assert connection._relief.is_on


async def test_who_waits_for_an_answer_reads_it_itself(talking):
    async with talking() as (connection, peer, readers):

        async def echo():
            for _ in range(6):
                await peer.send_frame(*await peer.receive_frame())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            for number in range(6):
                await connection.send_message(str(number))

                assert str(number) == await connection.get_message()

        assert [trio.lowlevel.current_task()] * 5 == readers[1:]


async def test_pings_are_answered_while_a_taker_is_busy_with_something_else(talking, nursery):
    async with talking() as (connection, peer, readers):
        nursery.start_soon(say_then, connection, peer, peer.send_frame, TEXT, b"second")

        assert "second" == await take_second(connection)

        await trio.testing.wait_all_tasks_blocked()
        readers.clear()
        await peer.send_frame(PING, b"there?")

        assert (PONG, b"there?") == await peer.receive_frame()
        assert trio.lowlevel.current_task() not in readers


async def say_then(connection, peer, deed, *args):
    await say_first(connection, peer)
    await deed(*args)


async def test_pings_are_answered_while_a_taker_waits(talking, nursery):
    async with talking() as (connection, peer, _):

        @nursery.start_soon
        async def ask():
            await say_first(connection, peer)
            await peer.send_frame(PING, b"there?")

            assert (PONG, b"there?") == await peer.receive_frame()

            await peer.send_frame(TEXT, b"second")

        assert "second" == await take_second(connection)


async def test_who_waits_longest_gets_the_next_message(talking, nursery):
    async with talking() as (connection, peer, _):
        got = []

        async def take(name):
            while True:
                got.append((name, await connection.get_message()))

        nursery.start_soon(take, "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take, "b")
        for number in range(6):
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_frame(TEXT, b"%d" % number)
        await trio.testing.wait_all_tasks_blocked()

        # Each comes back for more long before the next one comes.
        assert [(name, str(number)) for number, name in enumerate("ababab")] == got
        nursery.cancel_scope.cancel()


async def test_a_taker_that_reads_does_not_get_ahead_of_those_that_have_come_since(
    talking, nursery
):
    async with talking() as (connection, peer, _):
        got = []

        async def take(name):
            while True:
                got.append((name, await connection.get_message()))

        nursery.start_soon(take, "a")
        await say_first(connection, peer)
        nursery.start_soon(take, "b")
        for number in range(4):
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_frame(TEXT, b"%d" % number)
        await trio.testing.wait_all_tasks_blocked()

        assert [("a", "first"), ("a", "0"), ("b", "1"), ("a", "2"), ("b", "3")] == got
        nursery.cancel_scope.cancel()


async def test_a_taker_that_reads_wakes_others_for_what_it_leaves(talking, nursery, frame):
    async with talking() as (connection, peer, readers):
        got = []

        async def take():
            got.append(await connection.get_message())

        @nursery.start_soon
        async def say():
            await say_first(connection, peer)
            for _ in range(2):
                nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            readers.clear()
            await peer.send(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(TEXT, b"c"))

        assert "a" == await take_second(connection)
        assert [trio.lowlevel.current_task()] == readers

        await trio.testing.wait_all_tasks_blocked()

        assert ["b", "c"] == sorted(got)


async def test_a_cancelled_taker_takes_nothing_with_it(talking, nursery):
    async with talking() as (connection, peer, _):
        with trio.CancelScope() as scope:

            @nursery.start_soon
            async def cancel():
                await say_first(connection, peer)
                scope.cancel()

            await take_second(connection)
        await peer.send_frame(TEXT, b"for the next")

        assert scope.cancelled_caught
        assert "for the next" == await connection.get_message()


async def test_a_message_in_pieces_is_waited_for_by_the_same_task(talking, nursery, frame):
    async with talking() as (connection, peer, readers):

        @nursery.start_soon
        async def say():
            await say_first(connection, peer)
            readers.clear()
            for byte in frame(TEXT, b"piece by piece"):
                await peer.send(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()

        assert "piece by piece" == await take_second(connection)
        assert {trio.lowlevel.current_task()} == set(readers)


async def test_a_full_mailbox_stops_reading_whoever_filled_it(talking, nursery, frame):
    async with talking(message_queue_size=2) as (connection, peer, readers):
        nursery.start_soon(say_then, connection, peer, peer.send, frame(TEXT, b"x") * 10)

        assert "x" == await take_second(connection)

        await trio.testing.wait_all_tasks_blocked()
        await peer.send_frame(TEXT, b"last")
        await trio.testing.wait_all_tasks_blocked()
        count = len(readers)
        for _ in range(9):
            assert "x" == await connection.get_message()

        assert "last" == await connection.get_message()
        assert count + 1 == len(readers)


async def test_who_takes_more_than_there_was_room_for_reads_on_itself(talking, nursery, frame):
    async with talking(message_queue_size=1) as (connection, peer, _):

        @nursery.start_soon
        async def say():
            for _ in range(2):  # The first time, others are let run after a few messages.
                await trio.testing.wait_all_tasks_blocked()
                await peer.send(frame(TEXT, b"x") * 10)
            await trio.testing.wait_all_tasks_blocked()

            assert connection._relief.is_on

            await peer.send_frame(TEXT, b"last")

        for _ in range(20):
            assert "x" == await connection.get_message()

        assert "last" == await connection.get_message()


async def test_what_is_more_than_a_batch_is_gone_on_with(talking, nursery, frame):
    count = 8_000  # In two fragments each, which count for more than their bytes.
    data = (frame(TEXT, b"x", fin=False) + frame(CONT, b"y")) * count
    async with talking() as (connection, peer, _):
        nursery.start_soon(say_then, connection, peer, peer.send, data)

        assert "xy" == await take_second(connection)

        # Not one that waits as the first did: that would be given what comes next.
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(count - 1):
            assert "xy" == await connection.get_message()


async def test_the_peers_close_is_answered_while_a_taker_waits(talking, nursery):
    async with talking() as (connection, peer, _):
        nursery.start_soon(say_then, connection, peer, peer.send_frame, CLOSE, b"\x03\xe9")
        with pytest.raises(ConnectionClosed):
            await take_second(connection)

        assert (CLOSE, b"\x03\xe9") == await peer.receive_frame()
        assert CloseReason(1001, None) == connection.closed


async def test_the_end_of_the_stream_is_noticed_while_a_taker_waits(talking, nursery):
    async with talking() as (connection, peer, _):
        nursery.start_soon(say_then, connection, peer, peer.stream.aclose)
        with pytest.raises(ConnectionClosed):
            await take_second(connection)

        assert CloseReason(1006, None) == await connection.wait_closed()


async def test_closing_wakes_a_taker_and_hears_the_peers_answer(talking, nursery):
    async with talking() as (connection, peer, _):
        nursery.start_soon(say_then, connection, peer, connection.aclose)
        with pytest.raises(ConnectionClosed):
            await take_second(connection)
        await peer.answer_close()
        await connection.wait_closed()

        assert CloseReason(1000, None) == connection.closed


async def test_giving_up_wakes_a_taker(talking, nursery):
    async with talking() as (connection, peer, _):

        @nursery.start_soon
        async def give_up():
            await say_first(connection, peer)
            connection.abort()

        with pytest.raises(ConnectionClosed):
            await take_second(connection)


async def test_to_wake_a_taker_does_not_disturb_a_write(talking, nursery):
    async with talking() as (connection, peer, _):
        message = b"x" * 2**20

        @nursery.start_soon
        async def close_while_writing():
            await say_first(connection, peer)
            nursery.start_soon(connection.send_message, message)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(connection.aclose)

        with pytest.raises(ConnectionClosed):
            await take_second(connection)
        await trio.testing.wait_all_tasks_blocked()

        assert (BINARY, message) == await peer.receive_frame()
        assert CLOSE == (await peer.answer_close())[0]


async def test_messages_go_where_a_session_wants_them_from_then_on(talking, nursery):
    async with talking() as (connection, peer, _):
        nursery.start_soon(take_second, connection)  # A hook's task that was left behind.
        await say_first(connection, peer)
        inbox = Mailbox(100)
        attach(connection, inbox, NothingToSend())
        for number in range(3):
            await peer.send_frame(TEXT, b"%d" % number)

            assert str(number) == await inbox.take()

        nursery.cancel_scope.cancel()


class NothingToSend:
    def pull(self):
        return None


async def test_the_reader_can_be_cancelled_while_a_taker_waits(talking, nursery):
    async with talking() as (connection, peer, _):

        @nursery.start_soon
        async def cancel():
            await say_first(connection, peer)
            connection._nursery.cancel_scope.cancel()

        with pytest.raises(ConnectionClosed):
            await take_second(connection)

        assert CloseReason(1006, None) == await connection.wait_closed()
        assert (CLOSE, b"\x03\xe8") == await peer.receive_frame()
