"""How a connection's bytes travel: over any stream, and over a socket of its own."""

from __future__ import annotations

import functools
import socket
import struct

import pytest
import trio
import trio.testing

from wsclient.connection._transport import (
    AHEAD_SIZE,
    READ_SIZE,
    WRITE_SLICE,
    SocketTransport,
    StreamTransport,
)

BUFFER = 2**18
"""Bytes: small enough to be filled soon, and more than loopback's segments of 64 KiB: a window that
is smaller than a segment opens again only when a timer of the kernel's says so."""


@pytest.fixture
async def sockets():
    """Opens the two ends of a TCP connection over loopback, ours as a transport."""
    opened = []

    async def sockets(read_size=None, **options):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            if "receive_buffer" in options:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_buffer"])
            stream = await trio.open_tcp_stream("127.0.0.1", listening.getsockname()[1])
            peer, _ = listening.accept()
        peer.setblocking(False)
        transport = SocketTransport(stream, read_size)
        transport.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        theirs = trio.SocketStream(trio.socket.from_stdlib_socket(peer))
        opened.extend([transport.stream, theirs])
        return transport, theirs

    yield sockets
    for stream in opened:
        await trio.aclose_forcefully(stream)


def received(result):
    data, size = result
    return bytes(data[:size])


async def receive_exactly(stream, size):
    data = bytearray()
    while len(data) < size:
        data += await stream.receive_some(size - len(data))
    return bytes(data)


def reset(stream):
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def fill(transport):
    """Send until the socket takes no more; return what it took."""
    sent = 0
    while size := transport.send_nowait(bytearray(b"x" * 2**16), 0):
        sent += size
        await trio.lowlevel.checkpoint()
    return sent


# --- any stream ---------------------------------------------------------------------------------


async def test_a_stream_is_read_as_it_comes_to_its_end():
    ours, theirs = trio.testing.memory_stream_pair()
    transport = StreamTransport(ours, None)
    await theirs.send_all(b"hello")

    assert (b"hello", 5) == await transport.receive()

    await theirs.aclose()

    assert (b"", 0) == await transport.receive()


async def test_a_stream_is_read_in_pieces_of_the_size_asked_for():
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"abcdef")

    assert (b"abc", 3) == await StreamTransport(ours, 3).receive()


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_a_broken_or_closed_stream_has_ended(error, monkeypatch):
    async def receive_some(max_bytes):
        raise error

    ours, _ = trio.testing.memory_stream_pair()
    monkeypatch.setattr(ours, "receive_some", receive_some)

    assert (b"", 0) == await StreamTransport(ours, None).receive()


async def test_a_stream_takes_nothing_at_once_and_a_slice_at_a_time():
    ours, theirs = trio.testing.memory_stream_pair()
    transport = StreamTransport(ours, None)
    data = bytearray(b"x" * (WRITE_SLICE + 1))

    assert not transport.takes_at_once
    assert 0 == transport.send_nowait(data, 0)
    assert WRITE_SLICE == await transport.send(data, 0)
    assert WRITE_SLICE + 1 == len(data)
    assert b"x" * WRITE_SLICE == await theirs.receive_some()
    assert not transport.is_torn


async def test_what_is_being_sent_may_be_added_to(nursery):
    """A bytearray that somebody looks at cannot grow."""
    send, receive = trio.testing.lockstep_stream_one_way_pair()
    transport = StreamTransport(trio.StapledStream(send, receive), None)
    data = bytearray(b"first")
    nursery.start_soon(transport.send, data, 0)
    await trio.testing.wait_all_tasks_blocked()
    data += b"second"

    assert b"first" == await receive.receive_some()


@pytest.mark.parametrize("how", ["cancelled", "broken", "closed"])
async def test_a_write_that_was_cut_short_has_torn_the_stream(autojump_clock, how):
    ours, theirs = trio.testing.lockstep_stream_pair()
    transport = StreamTransport(ours, None)
    if how == "cancelled":
        with trio.move_on_after(1):
            await transport.send(bytearray(b"x"), 0)
    else:
        await (ours if how == "closed" else theirs).aclose()
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await transport.send(bytearray(b"x"), 0)

    assert transport.is_torn


async def test_a_write_that_was_cancelled_before_it_began_has_torn_nothing():
    ours, _ = trio.testing.lockstep_stream_pair()
    transport = StreamTransport(ours, None)
    with trio.move_on_after(0):
        await transport.send(bytearray(b"x"), 0)

    assert not transport.is_torn


async def test_a_stream_makes_bytes_of_its_own():
    ours, theirs = trio.testing.memory_stream_pair()
    transport = StreamTransport(ours, None)
    place = memoryview(bytearray(3))
    await theirs.send_all(b"hello")

    assert (b"hello", 5) == await transport.receive_into(lambda: place)
    assert bytes(3) == place


# --- a socket -----------------------------------------------------------------------------------


async def test_a_socket_is_read_as_it_comes_to_its_end(sockets):
    transport, theirs = await sockets()
    await theirs.send_all(b"hello")

    assert b"hello" == received(await transport.receive())

    await theirs.send_eof()

    assert b"" == received(await transport.receive())
    assert b"" == received(await transport.receive())


async def test_what_waits_to_be_read_can_be_known_without_reading_it(sockets):
    transport, peer = await sockets()

    assert not transport.has_unread()
    await peer.send_all(b"x")
    await trio.lowlevel.wait_readable(transport.stream.socket)

    assert (True, True) == (transport.has_unread(), transport.has_unread())
    assert b"x" == received(await transport.receive())
    assert not transport.has_unread()


@pytest.mark.parametrize("end", [reset, None])
async def test_an_end_waits_to_be_read_too(sockets, end):
    transport, peer = await sockets()
    if end is not None:
        end(peer)
    await peer.aclose()
    await trio.lowlevel.wait_readable(transport.stream.socket)

    assert transport.has_unread()
    assert b"" == received(await transport.receive())


def test_of_a_stream_nobody_can_tell_whether_something_waits():
    ours, _ = trio.testing.memory_stream_pair()
    assert not StreamTransport(ours, None).has_unread()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="no TCP_USER_TIMEOUT here")
@pytest.mark.parametrize("who", ["reader", "writer"])
async def test_s5_3_a_peer_that_takes_nothing_until_the_system_gives_it_up_is_deaf(sockets, who):
    transport, _ = await sockets(receive_buffer=BUFFER)
    transport.stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    await fill(transport)

    assert not transport.is_peer_deaf
    with trio.fail_after(20):
        if who == "reader":
            assert b"" == received(await transport.receive())
        else:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await transport.send(bytearray(b"x" * 2**20), 0)
    assert transport.is_peer_deaf


async def test_s5_3_a_peer_that_resets_is_not_deaf(sockets):
    transport, peer = await sockets(receive_buffer=BUFFER)
    await fill(transport)
    reset(peer)
    await transport.receive()

    assert not transport.is_peer_deaf


async def test_reading_waits_until_something_comes(sockets, nursery):
    transport, theirs = await sockets()
    reads = []

    async def read():
        reads.append(received(await transport.receive()))

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()

    assert [] == reads

    await theirs.send_all(b"late")
    while not reads:
        await trio.lowlevel.checkpoint()

    assert [b"late"] == reads


@pytest.mark.parametrize(
    ("asked", "size"), [(None, READ_SIZE), (3, 3), (READ_SIZE, READ_SIZE), (2**30, READ_SIZE)]
)
async def test_a_read_is_no_larger_than_asked_for(sockets, asked, size):
    transport, theirs = await sockets(asked)
    sent = 0
    with trio.move_on_after(5) as scope:
        while sent < min(size, 2**16) + 1:
            await theirs.send_all(b"x" * 100)
            sent += 100
    sizes = []
    while sum(sizes) < sent:
        sizes.append(len(received(await transport.receive())))

    assert not scope.cancelled_caught
    assert max(sizes) <= size
    if asked == 3:
        assert {3, *sizes} == {*sizes}


async def test_connections_of_one_run_share_a_buffer_and_those_of_another_do_not(sockets):
    (first, their_first), (second, their_second) = await sockets(), await sockets()
    await their_first.send_all(b"first")
    await their_second.send_all(b"second!")
    data, size = await first.receive()

    assert b"first" == data[:size]

    # Nothing came in between: it belongs to the connection until its next checkpoint.
    other, _ = await second.receive()

    assert other is data


def test_every_run_has_a_buffer_of_its_own():
    async def run():
        ours, theirs = socket.socketpair()
        with theirs:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            transport = SocketTransport(stream, None)
            theirs.send(b"x")
            data, _ = await transport.receive()
            await trio.aclose_forcefully(transport.stream)
            return data

    assert trio.run(run) is not trio.run(run)


async def test_a_stream_whose_socket_was_taken_is_of_no_use_any_more():
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    transport = SocketTransport(stream, None)
    with theirs:
        assert -1 == stream.socket.fileno()
        assert not transport.stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        await transport.stream.aclose()

        assert b"" == theirs.recv(1)


async def test_a_peer_that_sends_without_end_does_not_keep_others_from_running(sockets, nursery):
    transport, theirs = await sockets(1)
    await theirs.send_all(b"x" * 100)
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    place = memoryview(bytearray(1))
    for number in range(100):
        if number % 2:
            await transport.receive()
        else:
            await transport.receive_into(lambda: place)
    nursery.cancel_scope.cancel()

    assert turns >= 90


async def test_a_read_that_waits_can_be_cancelled_and_loses_nothing(sockets):
    transport, theirs = await sockets()
    with trio.move_on_after(0.001) as scope:
        await transport.receive()

    assert scope.cancelled_caught

    await theirs.send_all(b"later")

    assert b"later" == received(await transport.receive())

    await theirs.send_all(b"more")
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.receive()

    assert scope.cancelled_caught

    place = memoryview(bytearray(4))
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.receive_into(lambda: place)

    assert scope.cancelled_caught
    assert bytes(4) == place
    assert b"more" == received(await transport.receive())


async def receive_all(transport, size, get_buffer):
    """The sizes of the reads that bring ``size`` bytes, and where they went."""
    reads = []
    while size:
        data, read = await transport.receive_into(get_buffer)
        assert read
        size -= read
        reads.append(("place" if data is None else "shared", read))
    return reads


async def test_bytes_go_where_they_belong_or_into_the_shared_buffer(sockets):
    transport, theirs = await sockets()
    place = bytearray(5)
    await theirs.send_all(b"helloworld")

    assert (None, 5) == await transport.receive_into(lambda: memoryview(place))
    assert b"hello" == place
    assert b"world" == received(await transport.receive_into(lambda: None))

    await theirs.send_eof()

    assert 0 == (await transport.receive_into(lambda: memoryview(place)))[1]
    assert b"" == received(await transport.receive_into(lambda: None))
    assert b"hello" == place


async def test_where_they_belong_is_asked_when_they_have_come(sockets, nursery):
    transport, theirs = await sockets()
    old, new = bytearray(5), bytearray(5)
    places = [memoryview(old)]
    results = []

    async def read():
        results.append(await transport.receive_into(lambda: places[-1]))

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()
    places[0].release()
    places.append(memoryview(new))
    await theirs.send_all(b"hello")
    while not results:
        await trio.lowlevel.checkpoint()

    assert [(None, 5)] == results
    assert (bytes(5), b"hello") == (old, new)


@pytest.mark.parametrize(("asked", "size"), [(None, READ_SIZE), (7, 7)])
async def test_a_place_does_not_make_a_read_larger(sockets, nursery, asked, size):
    transport, theirs = await sockets(asked)
    place = bytearray(READ_SIZE + 1 if asked is None else 100)
    nursery.start_soon(theirs.send_all, b"x" * len(place))
    rest = memoryview(place)
    while rest:
        _, read = await transport.receive_into(functools.partial(memoryview, rest))
        assert 0 < read <= size
        rest = rest[read:]

    assert b"x" * len(place) == place


async def test_little_is_read_ahead_behind_a_place_that_was_filled(sockets, nursery):
    transport, theirs = await sockets()
    places = [memoryview(bytearray(100))]
    size = 4 * AHEAD_SIZE
    await theirs.send_all(b"x" * (100 + size))
    await wait_readable(transport, 100 + size)
    reads = await receive_all(transport, 100 + size, lambda: places.pop() if places else None)

    assert [
        ("place", 100),
        ("shared", AHEAD_SIZE),
        ("shared", 3 * AHEAD_SIZE),
    ] == reads

    # What is less than that shows that nothing more has come.
    for reading in (100, AHEAD_SIZE - 1):
        places.append(memoryview(bytearray(100)))
        await theirs.send_all(b"x" * (100 + reading))
        await wait_readable(transport, 100 + reading)
        reads = await receive_all(
            transport, 100 + reading, lambda: places.pop() if places else None
        )

        assert [("place", 100), ("shared", reading)] == reads


async def wait_readable(transport, size):
    """Wait until so many bytes have come."""
    peeking = socket.socket(fileno=socket.dup(transport._socket.fileno()))
    with peeking:
        peeking.setblocking(False)
        await trio.lowlevel.wait_readable(peeking)
        while len(peeking.recv(size, socket.MSG_PEEK)) < size:
            await trio.lowlevel.checkpoint()


async def test_a_reset_is_an_end(sockets):
    transport, theirs = await sockets()
    reset(theirs)

    assert b"" == received(await transport.receive())


@pytest.mark.parametrize("waits", [True, False])
async def test_a_socket_that_another_task_closes_has_ended(sockets, nursery, waits):
    transport, _ = await sockets()
    reads = []

    async def read():
        reads.append(received(await transport.receive()))

    if waits:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
    await transport.stream.aclose()
    if not waits:
        await read()
    await trio.testing.wait_all_tasks_blocked()

    assert [b""] == reads


async def test_what_a_socket_takes_it_takes_at_once(sockets):
    transport, theirs = await sockets()

    assert transport.takes_at_once
    assert 5 == transport.send_nowait(bytearray(b"hello"), 0)
    assert b"hello" == await theirs.receive_some()


async def test_what_a_full_socket_does_not_take_is_left(sockets, nursery):
    transport, theirs = await sockets(receive_buffer=BUFFER)
    sent = await fill(transport)
    results = []

    async def send():
        results.append(await transport.send(bytearray(b"y" * 10), 0))

    assert 0 == transport.send_nowait(bytearray(b"y"), 0)

    nursery.start_soon(send)
    await trio.testing.wait_all_tasks_blocked()

    assert [] == results

    data = await receive_exactly(theirs, sent + 10)

    assert b"x" * sent + b"y" * 10 == data
    assert [10] == results


async def test_a_socket_that_proves_full_is_waited_for(sockets, nursery):
    transport, theirs = await sockets(receive_buffer=BUFFER)
    filled = 0
    with pytest.raises(BlockingIOError):
        while True:
            filled += transport._socket.send(b"x" * 2**16)
    results = []

    async def send():
        results.append(await transport.send(bytearray(b"y" * 10), 0))

    nursery.start_soon(send)
    await trio.testing.wait_all_tasks_blocked()

    assert [] == results
    assert b"x" * filled + b"y" * 10 == await receive_exactly(theirs, filled + 10)
    assert [10] == results


async def test_a_part_of_a_large_buffer_is_taken(sockets):
    transport, theirs = await sockets(receive_buffer=BUFFER)
    data = bytearray(b"x" * 2**24)
    sent = await transport.send(data, 0)

    assert 0 < sent < len(data) == 2**24
    assert b"x" * sent == await receive_exactly(theirs, sent)


async def test_a_send_that_waits_can_be_cancelled_and_has_sent_nothing(sockets):
    transport, theirs = await sockets(receive_buffer=BUFFER)
    sent = await fill(transport)
    with trio.move_on_after(0.001) as scope:
        await transport.send(bytearray(b"y"), 0)

    assert scope.cancelled_caught
    assert not transport.is_torn
    assert b"x" * sent == await receive_exactly(theirs, sent)
    assert 1 == transport.send_nowait(bytearray(b"z"), 0)
    assert b"z" == await theirs.receive_some()


async def test_a_send_that_was_cancelled_before_it_began_has_sent_nothing(sockets):
    transport, theirs = await sockets()
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.send(bytearray(b"x"), 0)

    assert scope.cancelled_caught
    assert 1 == await transport.send(bytearray(b"y"), 0)
    assert b"y" == await theirs.receive_some()


async def test_what_was_taken_already_is_left_out(sockets):
    transport, theirs = await sockets()

    assert 2 == transport.send_nowait(bytearray(b"abcd"), 2)
    assert 1 == await transport.send(bytearray(b"abcde"), 4)
    assert b"cde" == await receive_exactly(theirs, 3)

    ours, theirs = trio.testing.memory_stream_pair()

    assert 3 == await StreamTransport(ours, None).send(bytearray(b"abcde"), 2)
    assert b"cde" == await theirs.receive_some()


async def test_a_buffer_can_grow_once_a_send_has_returned(sockets):
    transport, _ = await sockets()
    data = bytearray(b"x")
    transport.send_nowait(data, 0)
    await transport.send(data, 0)
    data += b"y"

    assert b"xy" == data


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
async def test_a_socket_need_not_be_tcps():
    ours, theirs = socket.socketpair()
    transport = SocketTransport(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), None)
    with theirs:
        transport.send_nowait(bytearray(b"x"), 0)

        assert b"x" == theirs.recv(1)

        await transport.stream.aclose()


async def test_a_peer_that_reads_without_end_does_not_keep_others_from_running(sockets, nursery):
    transport, _ = await sockets()
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    for _ in range(100):
        await transport.send(bytearray(b"x"), 0)
    nursery.cancel_scope.cancel()

    assert turns >= 90


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_socket_that_is_gone_takes_nothing_and_says_so(sockets, how):
    transport, theirs = await sockets()
    if how == "closed":
        await transport.stream.aclose()
    else:
        reset(theirs)
        await transport.receive()
    with pytest.raises(trio.BrokenResourceError) as caught:
        transport.send_nowait(bytearray(b"x"), 0)

    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(trio.BrokenResourceError):
        await transport.send(bytearray(b"x"), 0)


async def test_a_send_that_waits_ends_when_another_task_closes_the_socket(sockets, nursery):
    transport, _ = await sockets(receive_buffer=BUFFER)
    await fill(transport)
    ended = trio.Event()

    async def send():
        with pytest.raises(trio.ClosedResourceError):
            await transport.send(bytearray(b"y"), 0)
        ended.set()

    nursery.start_soon(send)
    await trio.testing.wait_all_tasks_blocked()
    await transport.stream.aclose()
    await ended.wait()


# --- waiting for bytes without taking them ------------------------------------------------------


async def test_who_waits_for_bytes_is_told_that_they_are_there(sockets, nursery):
    transport, theirs = await sockets()
    read = []

    @nursery.start_soon
    async def wait():
        await transport.wait_readable()
        read.append(received(transport.receive_nowait(lambda: None)))

    await trio.testing.wait_all_tasks_blocked()

    assert transport.receive_nowait(lambda: None) is None

    await theirs.send_all(b"hello")
    while not read:
        await trio.lowlevel.checkpoint()

    assert [b"hello"] == read


async def test_who_waits_for_bytes_can_be_interrupted_and_nothing_else_changes(sockets, nursery):
    transport, theirs = await sockets()
    woken = trio.Event()

    @nursery.start_soon
    async def wait():
        await transport.wait_readable()
        woken.set()

    await trio.testing.wait_all_tasks_blocked()
    transport.interrupt()
    await woken.wait()
    await theirs.send_all(b"hello")

    assert b"hello" == received(await transport.receive())


async def test_an_interrupted_read_disturbs_no_write(sockets, nursery):
    transport, theirs = await sockets(receive_buffer=BUFFER)
    size = await fill(transport)
    sent = []

    @nursery.start_soon
    async def send():
        sent.append(await transport.send(bytearray(b"last"), 0))

    await trio.testing.wait_all_tasks_blocked()
    transport.interrupt()
    await trio.testing.wait_all_tasks_blocked()

    assert [] == sent

    data = await receive_exactly(theirs, size + 4)

    assert data.endswith(b"last")


async def test_to_interrupt_what_is_closed_does_nothing(sockets):
    transport, _ = await sockets()
    await transport.stream.aclose()
    transport.interrupt()

    assert 0 == (await transport.receive())[1]


async def test_after_a_short_read_the_socket_is_not_asked_in_vain(sockets, monkeypatch):
    transport, theirs = await sockets()
    asked = []
    receive_nowait = transport.receive_nowait
    monkeypatch.setattr(
        transport, "receive_nowait", lambda get: asked.append(get) or receive_nowait(get)
    )
    await theirs.send_all(b"hello")
    await wait_readable(transport, 5)

    assert b"hello" == received(await transport.receive())

    await theirs.send_all(b"world")
    await wait_readable(transport, 5)

    assert b"world" == received(await transport.receive())

    with trio.move_on_after(0.01):
        await transport.receive()

    assert 2 == len(asked)
