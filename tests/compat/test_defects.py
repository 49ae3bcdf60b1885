"""What goes wrong in trio-websocket 0.12.2, B1 to B16, and what happens here instead.

One test each, by way of the public functions; the details are tested where the code is.
"""

from __future__ import annotations

import functools
import ssl
import struct
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

import wsclient
from wsclient.connection import _stream
from wsclient.connection._connection import LINGER
from wsclient.connection._stream import default_ssl_context

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


@pytest.fixture
def meet(network):
    """``async with meet(script, …)``: a connection to a server that follows the script.

    What leaves the block leaves it alone; and the server sees the end of the stream by then.
    """

    @asynccontextmanager
    async def meet(script, **options):
        raised = None
        seen_end = trio.Event()

        async def serve():
            peer = await network.accept()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await script(peer)
                await peer.receive_rest()
            seen_end.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                async with wsclient.open_websocket(
                    "localhost", 80, "/", **{"use_ssl": False, **options}
                ) as connection:
                    yield connection
            except Exception as error:
                raised = error
            with trio.fail_after(5):
                await seen_end.wait()
        if raised is not None:
            raise raised

    return meet


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_b1_a_server_that_never_answers_is_left_after_connect_timeout(
    meet, autojump_clock, tls, secure
):
    async def script(peer):
        await peer.stream.receive_some()

    with pytest.raises(wsclient.ConnectionTimeout):
        async with meet(script, connect_timeout=7, use_ssl=tls.client if secure else False):
            pass

    assert 7 == trio.current_time()


async def test_b2_a_stream_that_ends_within_the_answer_is_told_at_once(meet, autojump_clock):
    async def before(peer):
        await peer.stream.send_eof()

    async def within_an_error(peer):
        await peer.read_request()
        await peer.send(b"HTTP/1.1 503 Busy\r\n\r\ncome back")
        await peer.stream.send_eof()

    with pytest.raises(wsclient.HandshakeError):
        async with meet(before):
            pass
    with pytest.raises(wsclient.ConnectionRejected) as caught:
        async with meet(within_an_error):
            pass

    assert (503, b"come back") == (caught.value.status_code, caught.value.body)
    assert 0 == trio.current_time()


async def test_b3_a_failure_of_tls_is_told_at_once_with_its_error(meet, autojump_clock, tls):
    async def stranger(peer):
        peer.stream = trio.SSLStream(peer.stream, tls.server, server_side=True)
        await peer.stream.do_handshake()

    async def plain(peer):
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    for script, context, cause in (
        (stranger, tls.stranger, "CERTIFICATE_VERIFY_FAILED"),
        (plain, tls.client, "WRONG_VERSION_NUMBER"),
    ):
        with pytest.raises(wsclient.HandshakeError) as caught:
            async with meet(script, use_ssl=context):
                pass

        assert cause in str(caught.value.__cause__)
    assert 0 == trio.current_time()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00\xff" * 100,
        b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
    ids=["accept", "other protocol", "garbage", "large"],
)
async def test_b4_an_answer_that_is_none_is_a_handshake_error(meet, autojump_clock, answer):
    async def script(peer):
        await peer.read_request()
        await peer.send(answer)

    with pytest.raises(wsclient.HandshakeError) as caught:
        async with meet(script):
            pass

    assert str(caught.value)
    assert 0 == trio.current_time()


@pytest.mark.parametrize("header", [b"Sec-WebSocket-Protocol: x", b"Sec-WebSocket-Extensions: x"])
async def test_b4_a_choice_that_was_not_offered_is_a_handshake_error(meet, autojump_clock, header):
    with pytest.raises(wsclient.HandshakeError):
        async with meet(lambda peer: peer.accept(header)):
            pass


@pytest.mark.parametrize("by", ["the peer", "our limit"])
async def test_b5_a_peer_that_leaves_its_stream_open_after_the_close_is_left(
    meet, autojump_clock, frame, by
):
    async def script(peer):
        await peer.accept()
        await peer.send(
            frame(CLOSE, close_payload(1000)) if by == "the peer" else frame(TEXT, b"x" * 11)
        )

    async with meet(script, max_message_size=10) as connection:
        with pytest.raises(wsclient.ConnectionClosed) as caught:
            await connection.get_message()

    assert (1000 if by == "the peer" else 1009) == caught.value.reason.code
    assert trio.current_time() <= LINGER


async def test_b6_a_send_that_is_cancelled_leaves_the_stream_whole(make_peer, autojump_clock):
    client_send, server_receive = trio.testing.lockstep_stream_one_way_pair()
    server_send, client_receive = trio.testing.memory_stream_one_way_pair()
    peer = make_peer(trio.StapledStream(server_send, server_receive))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        connection = await wsclient.wrap_client_stream(
            nursery, trio.StapledStream(client_send, client_receive), "localhost", "/"
        )
        with trio.move_on_after(1):
            await connection.send_message("begun " * 100)
        with trio.move_on_after(1):
            await connection.send_message("withdrawn")
        nursery.start_soon(connection.send_message, "next")

        assert (TEXT, b"begun " * 100) == await peer.receive_frame()
        assert (TEXT, b"next") == await peer.receive_frame()

        nursery.start_soon(peer.answer_close)
        await connection.aclose()


async def test_b7_a_ping_after_our_close_frame_is_no_error(meet, autojump_clock, frame):
    async def script(peer):
        await peer.accept()
        assert (CLOSE, close_payload(1000)) == await peer.receive_frame()
        await peer.send_frame(PING, b"late")
        await peer.send_frame(CLOSE, close_payload(1000))

        assert None is await peer.receive_frame()

    async with meet(script) as connection:
        pass

    assert 1000 == connection.closed.code


@pytest.mark.parametrize(("wrong", "code"), [((0xF,), 1002), ((TEXT, b"\xff"), 1007)])
async def test_b8_a_peer_that_breaks_the_protocol_is_told_and_left(
    meet, autojump_clock, frame, wrong, code
):
    heard = []

    async def script(peer):
        await peer.accept()
        await peer.send(frame(*wrong))
        heard.append(await peer.receive_frame())
        while True:  # For ever, if nobody stops it.
            await peer.send(b"x" * 100_000)

    async with meet(script) as connection:
        with pytest.raises(wsclient.ConnectionClosed) as caught:
            await connection.get_message()

    assert code == caught.value.reason.code
    assert [(CLOSE, code)] == [(opcode, *struct.unpack("!H", data[:2])) for opcode, data in heard]
    assert trio.current_time() <= LINGER


async def test_b9_two_oversized_messages_in_one_segment_are_one_close(meet, autojump_clock, frame):
    heard = []

    async def script(peer):
        await peer.accept()
        await peer.send(frame(TEXT, b"x" * 11) * 2)
        heard.append(await peer.receive_frame())
        await peer.stream.send_eof()
        heard.append(await peer.receive_frame())

    async with meet(script, max_message_size=10) as connection:
        with pytest.raises(wsclient.ConnectionClosed):
            await connection.get_message()

    assert 1009 == connection.closed.code
    assert [(CLOSE, close_payload(1009, b"Exceeded maximum message size: 10 bytes")), None] == heard


@pytest.mark.parametrize("who", ["we", "the peer"])
async def test_b10_a_ping_that_waits_ends_with_the_connection(meet, autojump_clock, who):
    async def script(peer):
        await peer.accept()
        assert PING == (await peer.receive_frame())[0]
        if who == "the peer":
            await peer.send_frame(CLOSE, close_payload(1000))
        await peer.answer_close()

    async with meet(script) as connection, trio.open_nursery() as nursery:
        if who == "we":
            nursery.start_soon(close_once_all_wait, connection)
        with pytest.raises(wsclient.ConnectionClosed):
            await connection.ping()


async def close_once_all_wait(connection):
    await trio.testing.wait_all_tasks_blocked()
    await connection.aclose()


async def rejects(peer):
    await peer.read_request()
    await peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")


async def is_silent(peer):
    await peer.read_request()


async def closes(peer):
    await peer.accept()
    await peer.send_frame(CLOSE, close_payload(1000))


async def ends(peer):
    await peer.accept()
    await peer.stream.send_eof()


@pytest.mark.parametrize("script", [rejects, is_silent, closes, ends])
async def test_b11_a_socket_is_closed_whatever_happens(make_peer, script):
    """On a real one: the peer sees the end of the stream before we are collected as garbage."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def serve():
        async with listener:
            peer = make_peer(await listener.accept())
        async with peer.stream:
            await script(peer)
            await peer.receive_rest()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            errors = (wsclient.HandshakeError, wsclient.ConnectionClosed)
            with suppress(*errors):
                async with wsclient.open_websocket(
                    "127.0.0.1", port, "/", use_ssl=False, connect_timeout=0.2
                ) as connection:
                    await connection.get_message()
            # The nursery ends once the server has seen the end.


async def test_b12_the_payload_of_a_cancelled_ping_can_be_used_again(meet, autojump_clock):
    async def script(peer):
        await peer.accept()
        pings = [await peer.receive_frame() for _ in range(51)]
        await peer.send_frame(PONG, pings[-1][1])
        await peer.answer_close()

    async with meet(script) as connection:
        for _ in range(50):
            with trio.move_on_after(1):
                await connection.ping(b"same")
        await connection.ping(b"same")

        assert 0 == len(connection._pings)


async def test_b13_close_code_1014_is_one(meet, autojump_clock):
    async def script(peer):
        await peer.accept()
        await peer.send_frame(CLOSE, close_payload(1014, b"bad gateway"))

    async with meet(script) as connection:
        with pytest.raises(wsclient.ConnectionClosed) as caught:
            await connection.get_message()

    assert wsclient.CloseReason(1014, "bad gateway") == caught.value.reason


async def test_b14_early_hints_are_skipped(meet, autojump_clock):
    async def script(peer):
        peer.send, send = functools.partial(send_after_hints, peer.send), peer.send
        await peer.accept()
        peer.send = send
        await peer.answer_close()

    async with meet(script) as connection:
        assert None is connection.closed


async def send_after_hints(send, data):
    await send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + data)


async def test_b15_the_body_of_a_refusal_has_a_limit(meet, autojump_clock):
    async def script(peer):
        await peer.read_request()
        await peer.send(b"HTTP/1.1 500 X\r\n\r\n")
        while True:
            await peer.send(b"x" * 10_000)

    with pytest.raises(wsclient.ConnectionRejected) as caught:
        async with meet(script):
            pass

    assert 64 * 1024 == len(caught.value.body)
    assert 0 == trio.current_time()


async def test_b16_the_default_context_is_made_once(network, monkeypatch):
    made = []

    def make():
        made.append(ssl.create_default_context)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(_stream.ssl, "create_default_context", make)
    default_ssl_context.cache_clear()
    try:
        for _ in range(3):
            with trio.move_on_after(0):
                async with wsclient.open_websocket("localhost", 443, "/", use_ssl=True):
                    pass
    finally:
        default_ssl_context.cache_clear()

    assert 1 == len(made)
