"""TLS over a socket of our own: against Python's own server side, over loopback."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import struct

import pytest
import trio
import trio.testing

from wsclient.connection._tls import RECORD_SIZE, TlsTransport
from wsclient.connection._transport import READ_SIZE


@pytest.fixture
async def pair(tls):
    """Opens a connection; gives our end, and the server's stream whose TLS has not begun."""
    opened = []

    async def pair(context=tls.client, name="localhost", read_size=None):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            stream = await trio.open_tcp_stream("127.0.0.1", listening.getsockname()[1])
            peer, _ = listening.accept()
        peer.setblocking(False)
        theirs = trio.SocketStream(trio.socket.from_stdlib_socket(peer))
        opened.append(theirs)
        ours = TlsTransport(stream, read_size, context, name)
        opened.append(ours.stream)
        return ours, theirs

    yield pair
    for stream in opened:
        await trio.aclose_forcefully(stream)


@pytest.fixture
async def secured(pair, tls):
    """Likewise, with TLS open; ``plain`` is the socket's own stream below the server's TLS."""

    async def secured(**options):
        ours, plain = await pair(**options)
        theirs = trio.SSLStream(plain, tls.server, server_side=True, https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.do_handshake)
            nursery.start_soon(theirs.do_handshake)
        return ours, theirs, plain

    return secured


async def receive_exactly(transport, size):
    data = bytearray()
    while len(data) < size:
        piece, count = await transport.receive()
        assert count
        data += piece[:count]
    return bytes(data)


async def send_all(transport, data):
    data = bytearray(data)
    sent = 0
    while sent < len(data):
        sent += await transport.send(data, sent)


@pytest.mark.parametrize("size", [1, RECORD_SIZE, RECORD_SIZE + 1, READ_SIZE, 2**20 + 1])
async def test_what_goes_in_at_one_end_comes_out_at_the_other(secured, nursery, size):
    ours, theirs, _ = await secured()
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    nursery.start_soon(theirs.send_all, data)

    assert data == await receive_exactly(ours, size)

    nursery.start_soon(send_all, ours, data)
    received = bytearray()
    while len(received) < size:
        received += await theirs.receive_some()

    assert data == received


@pytest.mark.parametrize("size", [1, RECORD_SIZE, RECORD_SIZE + 1, 2**20 + 1])
async def test_plain_text_goes_where_it_belongs_and_no_further(secured, nursery, size):
    ours, theirs, _ = await secured()
    place = bytearray(size)
    rest = memoryview(place)
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    nursery.start_soon(theirs.send_all, data + b"behind")
    while rest:
        buffer, count = await ours.receive_into(functools.partial(memoryview, rest))

        assert buffer is None
        assert count
        rest = rest[count:]

    assert data == place

    data, count = await ours.receive_into(lambda: None)

    assert b"behind"[:count] == data[:count]
    assert b"behind"[count:] == await receive_exactly(ours, 6 - count)

    nursery.start_soon(trio.SSLStream.aclose, theirs)

    assert (None, 0) == await ours.receive_into(lambda: memoryview(place))


async def test_where_plain_text_belongs_is_asked_when_it_has_come(secured, nursery):
    ours, theirs, _ = await secured()
    old, new = bytearray(5), bytearray(5)
    places = [memoryview(old)]
    results = []

    async def read():
        results.append(await ours.receive_into(lambda: places[-1]))

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()
    places[0].release()
    places.append(memoryview(new))
    await theirs.send_all(b"hello")
    while not results:
        await trio.lowlevel.checkpoint()

    assert [(None, 5)] == results
    assert (bytes(5), b"hello") == (old, new)


async def test_small_reads_of_cipher_text_are_put_together(secured, nursery):
    ours, theirs, _ = await secured(read_size=7)
    nursery.start_soon(theirs.send_all, b"x" * 1000)

    assert b"x" * 1000 == await receive_exactly(ours, 1000)


async def test_many_records_of_one_read_are_one_batch(secured):
    ours, theirs, _ = await secured()
    for number in range(1000):
        await theirs.send_all(b"%03d" % number)
    received, reads = bytearray(), 0
    while len(received) < 3000:
        data, size = await ours.receive()
        received += data[:size]
        reads += 1

    assert b"".join(b"%03d" % number for number in range(1000)) == received
    assert reads < 500


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_the_end_of_the_stream_is_the_end(secured, nursery, says_goodbye):
    ours, theirs, plain = await secured()
    await theirs.send_all(b"last")
    if says_goodbye:
        nursery.start_soon(trio.SSLStream.aclose, theirs)
    else:
        await plain.aclose()

    assert b"last" == await receive_exactly(ours, 4)
    assert 0 == (await ours.receive())[1]
    assert 0 == (await ours.receive())[1]


async def test_a_farewell_is_the_end_and_is_answered(secured, nursery):
    ours, theirs, _ = await secured()
    await theirs.send_all(b"last")
    unwrapped = trio.Event()

    @nursery.start_soon
    async def say_goodbye():
        # The socket stays open; who says goodbye waits for the answer.
        await theirs.unwrap()
        unwrapped.set()

    assert b"last" == await receive_exactly(ours, 4)
    assert 0 == (await ours.receive())[1]
    with trio.fail_after(5):
        await unwrapped.wait()
    with pytest.raises(trio.BrokenResourceError) as caught:
        ours.send_nowait(bytearray(b"too late"), 0)
    assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_an_answer_that_cannot_be_sent_makes_nothing_unsaid(secured):
    ours, theirs, plain = await secured()
    await theirs.send_all(b"good")
    # Broken cipher text, which is answered with an alert, and a reset before that can be sent.
    await plain.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    while ours._received.pending < 50:
        await trio.lowlevel.wait_readable(ours._socket)
        ours._receive_cipher_text()
    plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.socket.close()

    assert b"good" == await receive_exactly(ours, 4)
    assert 0 == (await ours.receive())[1]


async def test_a_reset_is_the_end_and_breaks_what_is_sent(secured):
    ours, _, plain = await secured()
    plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.socket.close()

    assert 0 == (await ours.receive())[1]
    with pytest.raises(trio.BrokenResourceError):
        await send_all(ours, b"x" * 2**22)


async def test_what_came_before_broken_cipher_text_still_counts(secured):
    ours, theirs, plain = await secured()
    await theirs.send_all(b"good")
    await plain.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    await trio.testing.wait_all_tasks_blocked()

    assert b"good" == await receive_exactly(ours, 4)
    assert 0 == (await ours.receive())[1]


async def test_a_peer_that_does_not_read_makes_us_wait_and_loses_nothing(secured, nursery):
    ours, theirs, _ = await secured()
    data = bytearray(b"x" * 2**24)
    sent = 0
    while taken := ours.send_nowait(data, sent):
        sent += taken

    assert 0 < sent < len(data)

    with trio.move_on_after(0.01) as scope:
        await ours.send(data, sent)

    assert scope.cancelled_caught
    assert not ours.is_torn

    async def send_rest():
        at = sent
        while at < len(data):
            at += await ours.send(data, at)

    nursery.start_soon(send_rest)
    received = 0
    while received < len(data):
        piece = await theirs.receive_some()
        assert set(piece) == {ord("x")}
        received += len(piece)


async def test_what_is_on_its_way_is_not_sent_again_when_the_rest_went_out_with_an_answer(
    secured, nursery
):
    """The peer's TLS may want an answer at any time, new keys say, and that pushes what waits."""
    ours, theirs, _ = await secured()
    data = bytearray(os.urandom(2**24))
    sent = 0
    while taken := ours.send_nowait(data, sent):
        sent += taken

    assert ours._unsent

    received = bytearray()

    @nursery.start_soon
    async def receive():
        while len(received) < len(data):
            received.extend(await theirs.receive_some())

    while ours._unsent:
        await trio.lowlevel.wait_writable(ours._socket)
        ours._send_waiting()
    while sent < len(data):
        sent += await ours.send(data, sent)
    while len(received) < len(data):
        await trio.lowlevel.checkpoint()

    assert data == received


async def test_a_handshake_goes_out_in_whatever_pieces_the_socket_takes(pair, tls, monkeypatch):
    ours, plain = await pair()
    send_nowait = ours._send_nowait
    monkeypatch.setattr(ours, "_send_nowait", lambda data: send_nowait(data[:100]))
    theirs = trio.SSLStream(plain, tls.server, server_side=True, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    await theirs.send_all(b"hello")

    assert b"hello" == await receive_exactly(ours, 5)


async def test_a_certificate_that_is_not_trusted_is_an_error_and_the_peer_is_told(pair, tls):
    ours, plain = await pair(context=tls.stranger)
    theirs = trio.SSLStream(plain, tls.server, server_side=True)

    async def fail():
        with pytest.raises(trio.BrokenResourceError) as caught:
            await theirs.do_handshake()
            await theirs.receive_some()
        assert "ALERT_UNKNOWN_CA" in str(caught.value.__cause__).upper().replace(" ", "_")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        with pytest.raises(ssl.SSLCertVerificationError):
            await ours.do_handshake()


async def test_a_peer_that_hangs_up_in_the_handshake_breaks_it(pair):
    ours, plain = await pair()
    await plain.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await ours.do_handshake()


async def test_a_peer_that_speaks_no_tls_is_an_error(pair):
    ours, plain = await pair()
    await plain.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version"):
        await ours.do_handshake()


async def test_a_handshake_can_be_cancelled(pair):
    ours, _ = await pair()
    with trio.move_on_after(0.01) as scope:
        await ours.do_handshake()

    assert scope.cancelled_caught


async def test_it_knows_that_it_is_secure(secured):
    ours, _, _ = await secured()

    assert ours.is_ssl
    assert ours.takes_at_once


async def test_text_that_is_here_already_is_not_waited_for(secured):
    ours, theirs, _ = await secured()
    data = bytes(range(256)) * 64
    await theirs.send_all(data)
    place = bytearray(100)
    _, size = await ours.receive_into(lambda: memoryview(place))

    assert 100 == size

    # The socket is empty; the rest of the record was read with its beginning.
    with trio.fail_after(5):
        await ours.wait_readable()
    rest, size = ours.receive_nowait(lambda: None)

    assert data == bytes(place) + rest[:size]


async def test_an_end_that_was_read_with_what_came_before_is_not_waited_for(secured, nursery):
    ours, theirs, _ = await secured()
    await theirs.send_all(b"last")
    with trio.move_on_after(0.01):
        await theirs.unwrap()  # The socket stays open.
    await trio.lowlevel.wait_readable(ours._socket)

    assert b"last" == await receive_exactly(ours, 4)

    with trio.fail_after(5):
        await ours.wait_readable()

    assert 0 == ours.receive_nowait(lambda: None)[1]


async def test_text_that_is_not_here_is_waited_for(secured, nursery):
    ours, theirs, _ = await secured()
    await theirs.send_all(b"first")

    assert b"first" == await receive_exactly(ours, 5)

    read = []

    @nursery.start_soon
    async def wait():
        await ours.wait_readable()
        read.append(ours.receive_nowait(lambda: None))

    await trio.testing.wait_all_tasks_blocked()

    assert [] == read

    await theirs.send_all(b"next")
    while not read:
        await trio.lowlevel.checkpoint()

    assert b"next" == bytes(read[0][0][: read[0][1]])
