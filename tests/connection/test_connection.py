"""One connection, from open to closed; the test is the server."""

from __future__ import annotations

import functools
import math
import os
import re
import struct
import tracemalloc
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
import trio.testing

from wsclient.codes import CloseReason
from wsclient.connection import (
    Endpoint,
    Mailbox,
    WebSocketConnection,
    asked_at,
    attach,
    connect_websocket,
    detach,
    forget_ping,
    has_unread,
    is_deaf,
    open_websocket,
    open_websocket_url,
    round_trips,
    start_ping,
    wait_reading,
    wrap_client_stream,
)
from wsclient.connection._connection import LAST_WORD, LINGER
from wsclient.errors import ConnectionClosed, ConnectionRejected, DisconnectionTimeout
from wsclient.options import Compression
from wsclient.testing import FaultServer, echo, memory_network

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


async def settle():
    await trio.testing.wait_all_tasks_blocked()


def slow_reader_pair():
    """Two ends of a stream: what the client sends waits until the server reads it."""
    client_send, server_receive = trio.testing.lockstep_stream_one_way_pair()
    server_send, client_receive = trio.testing.memory_stream_one_way_pair()
    return (
        trio.StapledStream(client_send, client_receive),
        trio.StapledStream(server_send, server_receive),
    )


# --- what it is ---------------------------------------------------------------------------------


async def test_a_new_connection_is_open_and_a_client(connected):
    async with connected() as (connection, _):
        assert connection.closed is None
        assert (True, False) == (connection.is_client, connection.is_server)
        assert (None, (), "/", None) == (
            connection.subprotocol,
            connection.handshake_headers,
            connection.path,
            connection.latency,
        )


async def test_the_servers_headers_and_choice_are_kept(connected):
    headers = b"X-Test: 1", b"Sec-WebSocket-Protocol: chat", b"x-test: 2"
    async with connected(*headers, subprotocols=["other", "chat"]) as (connection, _):
        assert "chat" == connection.subprotocol
        assert ((b"x-test", b"1"), (b"x-test", b"2")) == connection.handshake_headers


async def test_what_was_agreed_on_about_compression_is_told(connected):
    header = b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12"
    async with connected(header, compression=True) as (connection, _):
        assert ("permessage-deflate; server_max_window_bits=12",) == connection.extensions
    async with connected(compression=True) as (connection, _):
        assert () == connection.extensions


async def test_every_connection_has_a_name_of_its_own(connected):
    async with connected() as (first, _), connected() as (second, _):
        assert re.fullmatch(r"client-\d+", str(first))
        assert str(first) != str(second)


async def test_a_connection_shows_its_endpoint_and_state_and_no_secret(nursery, answer):
    async def serve():
        request = await server.receive_some()
        await server.send_all(answer(bytes(request), b"Set-Cookie: canary"))

    stream, server = trio.testing.memory_stream_pair()
    nursery.start_soon(serve)
    connection = await wrap_client_stream(
        nursery,
        stream,
        "test.example",
        "/canary?canary",
        extra_headers={"Authorization": "canary"},
    )

    assert f"<WebSocketConnection {connection} ws://test.example open>" == repr(connection)
    connection.abort()

    assert "closed: 1006 ABNORMAL_CLOSURE>" in repr(connection)
    assert "canary" not in repr(connection) + str(connection) + repr(connection._options)
    with pytest.raises(ConnectionClosed) as caught:
        await connection.send_message("canary")
    assert "canary" not in str(caught.value) + repr(caught.value)


async def test_an_address_that_is_gone_is_described_and_no_error(server):
    async with open_websocket(server.host, server.port, "/echo", use_ssl=False) as connection:
        remote, local = connection.remote, connection.local

        assert Endpoint is type(local) is type(remote)
        assert (server.host, server.port, False) == (
            str(remote.address),
            remote.port,
            remote.is_ssl,
        )
        assert str(local.address) == server.host
        assert local.port != remote.port
    assert str is type(connection.local) is type(connection.remote)


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "opcode", "payload"),
    [
        ("", TEXT, b""),
        (b"", BINARY, b""),
        ("aé€🙂", TEXT, "aé€🙂".encode()),
        (b"\x00\xff", BINARY, b"\x00\xff"),
        ("x" * 2**20, TEXT, b"x" * 2**20),
        (b"x" * 2**20, BINARY, b"x" * 2**20),
    ],
    ids=lambda value: repr(value)[:10],
)
async def test_a_message_arrives_as_it_was_sent(connected, message, opcode, payload):
    async with connected() as (connection, peer):
        await connection.send_message(message)

        assert (opcode, payload) == await peer.receive_frame()

        await peer.send_frame(opcode, payload)

        assert message == await connection.get_message()


@pytest.mark.parametrize(
    "message",
    [object(), None, 1, bytearray(b"x"), memoryview(b"x"), ["x"]],
    ids=lambda value: type(value).__name__,
)
async def test_a_message_is_str_or_bytes(connected, message):
    async with connected() as (connection, peer):
        with pytest.raises(ValueError, match=r"^message must be str or bytes$"):
            await connection.send_message(message)
        await connection.send_message("next")

        assert (TEXT, b"next") == await peer.receive_frame()


async def test_text_that_cannot_be_encoded_is_the_callers_mistake(connected):
    async with connected() as (connection, peer):
        with pytest.raises(UnicodeEncodeError):
            await connection.send_message("\ud800")
        await connection.send_message("next")

        assert (TEXT, b"next") == await peer.receive_frame()


async def test_frames_that_came_with_the_answer_are_received(connected, frame):
    trailing = frame(TEXT, b"first") + frame(PING, b"1") + frame(BINARY, b"second")
    async with connected(trailing=trailing) as (connection, peer):
        assert ["first", b"second"] == [await connection.get_message() for _ in range(2)]
        assert (PONG, b"1") == await peer.receive_frame()


async def test_a_close_frame_that_came_with_the_answer_is_received(connected, frame):
    trailing = frame(TEXT, b"only") + frame(CLOSE, close_payload(1001))
    async with connected(trailing=trailing) as (connection, peer):
        assert "only" == await connection.get_message()
        with pytest.raises(ConnectionClosed):
            await connection.get_message()
        assert CloseReason(1001) == connection.closed
        assert (CLOSE, close_payload(1001)) == await peer.receive_frame()


async def test_sends_are_written_in_the_order_of_the_calls(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(connection.send_message, f"{number}")
            await settle()

        assert [(TEXT, b"%d" % number) for number in range(20)] == [
            await peer.receive_frame() for _ in range(20)
        ]


async def test_each_message_goes_to_one_of_the_receivers(connected, frame, nursery):
    received = []

    async def receive():
        received.append(await connection.get_message())

    async with connected() as (connection, peer):
        for _ in range(3):
            nursery.start_soon(receive)
        await settle()
        await peer.send(b"".join(frame(TEXT, b"%d" % number) for number in range(3)))
        await settle()

    assert ["0", "1", "2"] == sorted(received)


async def test_a_cancelled_receive_loses_nothing(connected, autojump_clock):
    async with connected() as (connection, peer):
        for number in range(5):
            with trio.move_on_after(1):
                await connection.get_message()
            await peer.send_frame(TEXT, b"%d" % number)
            with trio.CancelScope() as scope:
                scope.cancel()
                await connection.get_message()

            assert scope.cancelled_caught
            assert f"{number}" == await connection.get_message()


@pytest.mark.parametrize(
    ("payload", "code"),
    [(close_payload(1000), 1000), (close_payload(1001, b"bye"), 1001), (b"", 1005)],
)
async def test_iteration_ends_when_the_peer_is_done(connected, payload, code):
    async with connected() as (connection, peer):
        await peer.send_frame(TEXT, b"first")
        await peer.send_frame(BINARY, b"second")
        await peer.send_frame(CLOSE, payload)

        assert ["first", b"second"] == [message async for message in connection]
        assert code == connection.closed.code
        assert [] == [message async for message in connection]


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999])
async def test_iteration_raises_when_the_peer_closes_in_trouble(connected, code):
    async with connected() as (connection, peer):
        await peer.send_frame(TEXT, b"first")
        await peer.send_frame(CLOSE, close_payload(code))

        assert "first" == await anext(connection)
        with pytest.raises(ConnectionClosed) as caught:
            await anext(connection)

    assert code == caught.value.reason.code


async def test_iteration_raises_when_the_stream_ends_without_a_close_frame(connected):
    async with connected() as (connection, peer):
        await peer.send_frame(TEXT, b"first")
        await peer.stream.send_eof()

        assert "first" == await anext(connection)
        with pytest.raises(ConnectionClosed) as caught:
            await anext(connection)

    assert CloseReason(1006) == caught.value.reason


async def test_iteration_ends_after_our_own_close(connected, nursery):
    received = []

    async def receive():
        received.extend([message async for message in connection])

    async with connected() as (connection, peer):
        nursery.start_soon(receive)
        nursery.start_soon(peer.answer_close)
        await settle()
        await connection.aclose()
        await settle()

        assert 0 == len(nursery.child_tasks)
        assert [] == received


# --- slow consumers -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 10])
async def test_reading_stops_when_more_messages_wait_than_the_queue_holds(
    connected, autojump_clock, size
):
    async with connected(message_queue_size=size) as (connection, peer):
        for number in range(size):
            await peer.send_frame(TEXT, b"%d" % number)
            await settle()
        await peer.send_frame(PING, b"still reading")

        assert (PONG, b"still reading") == await peer.receive_frame()

        await peer.send_frame(TEXT, b"one more")
        await settle()
        await peer.send_frame(PING, b"no longer")
        with trio.move_on_after(1) as scope:
            await peer.receive_frame()

        assert scope.cancelled_caught

        await connection.get_message()

        assert (PONG, b"no longer") == await peer.receive_frame()


async def test_an_unbounded_queue_never_stops_reading(connected):
    async with connected(message_queue_size=math.inf) as (connection, peer):
        for number in range(1000):
            await peer.send_frame(TEXT, b"%d" % number)
        await peer.send_frame(PING, b"still reading")

        assert (PONG, b"still reading") == await peer.receive_frame()
        assert [f"{number}" for number in range(1000)] == [
            await connection.get_message() for _ in range(1000)
        ]


async def test_a_peer_feels_a_slow_consumer(connected, frame, autojump_clock):
    streams = trio.testing.lockstep_stream_pair()
    async with connected(streams=streams, receive_buffer_size=100) as (connection, peer):
        sent = 0

        async def flood():
            nonlocal sent
            while True:
                await peer.send(frame(BINARY, b"x" * 50))
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await settle()

            assert sent <= 4

            for _ in range(10):
                await connection.get_message()
            await settle()

            assert 10 <= sent <= 14
            nursery.cancel_scope.cancel()


async def test_a_full_queue_does_not_keep_us_from_closing(connected, autojump_clock):
    async with connected(message_queue_size=0) as (connection, peer):
        for _ in range(3):
            await peer.send_frame(TEXT, b"nobody takes this")
            await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer_close)
            await connection.aclose()

        assert 0 == trio.current_time()


async def test_reads_are_as_small_as_asked_for(connected, frame):
    async with connected(receive_buffer_size=1) as (connection, peer):
        await peer.send(frame(TEXT, "aé€🙂".encode()))

        assert "aé€🙂" == await connection.get_message()


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "opcode"), [("x" * 100, TEXT), ("é" * 50, TEXT), (b"x" * 100, BINARY)]
)
async def test_a_message_larger_than_the_limit_closes_with_1009(connected, message, opcode):
    payload = message.encode() if isinstance(message, str) else message
    async with connected(max_message_size=100) as (connection, peer):
        await peer.send_frame(opcode, payload)

        assert message == await connection.get_message()

        await peer.send_frame(opcode, payload + b"x")
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()

        reason = CloseReason(1009, "Exceeded maximum message size: 100 bytes")
        assert reason == connection.closed == caught.value.reason
        assert (CLOSE, close_payload(1009, reason.reason.encode())) == await peer.receive_frame()


async def test_two_oversized_messages_in_one_segment_close_once(connected, frame, autojump_clock):
    async with connected(max_message_size=100) as (connection, peer):
        await peer.send(frame(TEXT, b"before") + frame(BINARY, b"x" * 101) * 2)
        frames = await peer.receive_frames()

        assert [1009] == [int.from_bytes(payload[:2]) for _, payload in frames]
        assert "before" == await connection.get_message()
        with pytest.raises(ConnectionClosed):
            await connection.get_message()


async def test_a_frame_of_any_declared_size_needs_no_more_memory_than_the_limit(connected, frame):
    async with connected(max_message_size=100) as (connection, peer):
        await peer.send(frame(BINARY, length=2**62) + b"x" * 101)
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()

        assert 1009 == caught.value.reason.code


# --- pings --------------------------------------------------------------------------------------


async def test_a_ping_waits_for_its_pong(connected, autojump_clock):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.ping, b"1")

        assert (PING, b"1") == await peer.receive_frame()

        await trio.sleep(2)

        assert 1 == len(nursery.child_tasks)

        await peer.send_frame(PONG, b"1")
        await settle()

        assert 0 == len(nursery.child_tasks)
        assert 2 == connection.latency


async def test_a_ping_without_a_payload_picks_one(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        payloads = set()
        for _ in range(2):
            nursery.start_soon(connection.ping)
            opcode, payload = await peer.receive_frame()
            payloads.add(payload)
            assert PING == opcode
        for payload in payloads:
            await peer.send_frame(PONG, payload)

    assert 2 == len(payloads)


async def test_of_two_equal_pings_in_flight_one_fails(connected):
    async with connected() as (connection, peer):
        errors = []

        async def ping():
            try:
                await connection.ping(b"same")
            except ValueError as error:
                errors.append(str(error))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ping)
            assert (PING, b"same") == await peer.receive_frame()
            await peer.send_frame(PONG, b"same")

        assert ["Payload value b'same' is already in flight."] == errors


async def test_a_pong_answers_the_earlier_pings_too(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        for payload in (b"1", b"2", b"3"):
            nursery.start_soon(connection.ping, payload)
            assert (PING, payload) == await peer.receive_frame()
        await peer.send_frame(PONG, b"unasked for")
        await peer.send_frame(PONG, b"2")
        await settle()

        assert 1 == len(nursery.child_tasks)
        await peer.send_frame(PONG, b"3")


async def test_a_pong_that_comes_while_the_ping_is_still_being_written_counts(
    connected, autojump_clock
):
    streams = slow_reader_pair()
    async with connected(streams=streams) as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.ping, b"x" * 100)
        # All but the last bytes are read: the writer still waits.
        while len(peer.received) < 100:
            peer.received += await peer.stream.receive_some(10)
        await peer.send_frame(PONG, b"x" * 100)
        await settle()

        assert 1 == len(nursery.child_tasks)
        assert (PING, b"x" * 100) == await peer.receive_frame()


async def test_cancelled_pings_leave_nothing_behind(connected):
    async with connected() as (connection, peer):
        for _ in range(50):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.ping, b"same")
                    assert (PING, b"same") == await peer.receive_frame()
                    scope.cancel()

        assert 0 == len(connection._pings)


@pytest.mark.parametrize(
    ("payload", "error", "text"),
    [
        ("x", TypeError, "payload must be bytes, not str"),
        (bytearray(b"x"), TypeError, "payload must be bytes, not bytearray"),
        (1, TypeError, "payload must be bytes, not int"),
        (b"x" * 126, ValueError, "^payload too long for control frame"),
    ],
    ids=repr,
)
async def test_a_payload_is_at_most_125_bytes(connected, payload, error, text):
    async with connected() as (connection, peer):
        for send in (connection.ping, connection.pong):
            with pytest.raises(error, match=text):
                await send(payload)
        await connection.pong(b"x" * 125)

        assert (PONG, b"x" * 125) == await peer.receive_frame()
        assert 0 == len(connection._pings)


async def test_a_pong_may_be_sent_unasked(connected):
    async with connected() as (connection, peer):
        await connection.pong()
        await connection.pong(b"1")

        assert [(PONG, b""), (PONG, b"1")] == [await peer.receive_frame() for _ in range(2)]


async def test_pings_of_the_peer_are_answered_in_order_even_inside_a_message(connected, frame):
    async with connected() as (connection, peer):
        await peer.send(
            frame(PING)
            + frame(TEXT, b"a", fin=False)
            + frame(PING, b"1")
            + frame(PING, b"2")
            + frame(0, b"b")
        )

        assert [(PONG, b""), (PONG, b"1"), (PONG, b"2")] == [
            await peer.receive_frame() for _ in range(3)
        ]
        assert "ab" == await connection.get_message()


async def test_pongs_go_ahead_of_messages_that_wait(connected, autojump_clock):
    streams = slow_reader_pair()
    async with connected(streams=streams) as (connection, peer), trio.open_nursery() as nursery:
        for message in ("first", "second"):
            nursery.start_soon(connection.send_message, message)
            await settle()
        await peer.send_frame(PING, b"1")

        assert [(TEXT, b"first"), (PONG, b"1"), (TEXT, b"second")] == [
            await peer.receive_frame() for _ in range(3)
        ]


async def test_any_byte_is_a_sign_of_life(connected, autojump_clock):
    async with connected() as (connection, peer):
        assert 0 == connection.last_received

        await trio.sleep(3)
        await peer.send(b"\x81")
        await settle()

        assert 3 == connection.last_received


# --- our close ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ((), close_payload(1000)),
        ((1000, None), close_payload(1000)),
        ((1001, "bye"), close_payload(1001, b"bye")),
        ((4999, "ü" * 100), close_payload(4999, "ü".encode() * 61)),
        ((1014,), close_payload(1014)),
    ],
    ids=repr,
)
async def test_closing_sends_a_close_frame_and_waits_for_the_peers(connected, arguments, payload):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.aclose, *arguments)

        assert (CLOSE, payload) == await peer.receive_frame()

        await settle()

        # Whatever code was passed: the peer's will win.
        assert CloseReason(1000) == connection.closed
        assert 1 == len(nursery.child_tasks)

        await peer.send_frame(CLOSE, close_payload(4444, b"see you"))
        await settle()

        assert 0 == len(nursery.child_tasks)
        assert CloseReason(4444, "see you") == connection.closed
        assert b"" == await peer.receive_rest()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        *[
            ((code,), ValueError, f"close code {code} cannot be sent")
            for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000)
        ],
        (("1000",), TypeError, "a close code must be int, not str"),
        ((None,), TypeError, "a close code must be int, not NoneType"),
        ((True,), TypeError, "a close code must be int, not bool"),
        ((1000.0,), TypeError, "a close code must be int, not float"),
        ((1000, b"bye"), TypeError, "a close reason must be str or None, not bytes"),
        ((1000, 1), TypeError, "a close reason must be str or None, not int"),
        ((1000, "\ud800"), ValueError, "surrogates not allowed"),
    ],
    ids=repr,
)
async def test_what_no_close_frame_can_carry_is_refused_and_closes_nothing(
    connected, arguments, error, text
):
    async with connected() as (connection, peer):
        with pytest.raises(error, match=text):
            await connection.aclose(*arguments)

        assert connection.closed is None
        await connection.send_message("still open")
        assert (TEXT, b"still open") == await peer.receive_frame()


async def test_closing_discards_what_was_not_taken_and_wakes_who_waits(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        reasons = []

        async def receive():
            with pytest.raises(ConnectionClosed) as caught:
                await connection.get_message()
            reasons.append(caught.value.reason)

        nursery.start_soon(receive)
        await settle()
        nursery.start_soon(connection.aclose)
        await peer.send_frame(TEXT, b"late")
        await settle()
        # Woken at once, not with the peer's answer.
        assert [CloseReason(1000)] == reasons

        await peer.send_frame(CLOSE, close_payload(1001))
        await settle()
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert CloseReason(1001) == caught.value.reason


async def test_messages_that_wait_are_discarded_by_our_close(connected):
    async with connected(message_queue_size=10) as (connection, peer):
        for _ in range(3):
            await peer.send_frame(TEXT, b"never taken")
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer_close)
            await connection.aclose()
        with pytest.raises(ConnectionClosed):
            await connection.get_message()


async def test_a_closing_connection_sends_nothing(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.aclose)
        await settle()
        for send in (
            lambda: connection.send_message("x"),
            lambda: connection.send_message(object()),
            lambda: connection.ping(b"x"),
            lambda: connection.ping("wrong too"),
            lambda: connection.pong(b"x"),
        ):
            with pytest.raises(ConnectionClosed) as caught:
                await send()
            assert CloseReason(1000) == caught.value.reason
        nursery.start_soon(peer.answer_close)


async def test_a_peer_that_only_ends_the_stream_leaves_our_reason(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.aclose, 4000)
        assert (CLOSE, close_payload(4000)) == await peer.receive_frame()
        await peer.stream.aclose()
        await settle()

        assert CloseReason(1000) == connection.closed


async def test_closing_again_returns_and_says_nothing_more(connected, autojump_clock):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(connection.aclose)
        assert (CLOSE, close_payload(1000)) == await peer.receive_frame()
        await settle()

        # All but the first have returned.
        assert 1 == len(nursery.child_tasks)

        await peer.send_frame(CLOSE, close_payload(1000))
        assert b"" == await peer.receive_rest()
        await connection.aclose(1001, "again")
        assert CloseReason(1000) == connection.closed
    assert 0 == trio.current_time()


async def test_a_ping_of_the_peer_after_our_close_frame_does_no_harm(connected, autojump_clock):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.aclose)
        assert (CLOSE, close_payload(1000)) == await peer.receive_frame()
        await peer.send_frame(PING, b"are you there?")
        await settle()
        await peer.send_frame(CLOSE, close_payload(1000))

        # After our close frame nothing is sent, not even a pong (RFC 6455 §5.5.1).
        assert b"" == await peer.receive_rest()
    assert CloseReason(1000) == connection.closed
    assert 0 == trio.current_time()


async def test_both_sides_may_close_at_once(connected, autojump_clock):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.aclose, 4000)
        await peer.send_frame(CLOSE, close_payload(4444))

        frames = await peer.receive_frames()

    assert 1 == len(frames)
    assert CloseReason(4444) == connection.closed
    assert trio.current_time() <= LINGER


async def test_a_peer_that_never_answers_our_close_frame_is_cut(network, autojump_clock, nursery):
    async def serve():
        peer = await network.accept()
        await peer.accept()
        await peer.receive_rest()

    nursery.start_soon(serve)
    connection = None
    with pytest.raises(DisconnectionTimeout):
        async with open_websocket(
            "test.example", 80, "/", use_ssl=False, disconnect_timeout=3
        ) as connection:
            pass

    assert CloseReason(1006) == connection.closed
    assert 3 == trio.current_time()


async def test_a_cancelled_close_closes_the_stream_at_once(connected, autojump_clock):
    async with connected() as (connection, peer):
        with trio.move_on_after(1) as scope:
            await connection.aclose()
        assert scope.cancelled_caught
        assert (CLOSE, close_payload(1000)) == await peer.receive_frame()
        assert b"" == await peer.receive_rest()
        assert 1 == trio.current_time()
        await connection.aclose()


async def test_a_close_that_was_cancelled_before_it_began_closes_the_stream_too(
    connected, autojump_clock
):
    async with connected() as (connection, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.aclose()

        assert scope.cancelled_caught
        await peer.receive_rest()
        assert connection.closed is not None
        assert 0 == trio.current_time()


async def test_a_blocked_send_ends_when_we_close(connected, autojump_clock):
    streams = slow_reader_pair()
    async with connected(streams=streams) as (connection, peer), trio.open_nursery() as nursery:
        failed = []

        async def send(message):
            try:
                await connection.send_message(message)
            except ConnectionClosed:
                failed.append(message)

        for message in ("begun", "waiting"):
            nursery.start_soon(send, message)
            await settle()
        nursery.start_soon(connection.aclose)
        await settle()

        assert ["waiting"] == failed

        # The one that had begun is not cut: our close frame comes behind it.
        assert [(TEXT, b"begun"), (CLOSE, close_payload(1000))] == [
            await peer.receive_frame() for _ in range(2)
        ]
        await peer.send_frame(CLOSE, close_payload(1000))
    assert ["waiting"] == failed


async def test_a_peer_that_reads_nothing_is_left_on_time(network, autojump_clock, nursery):
    network.make_pair = slow_reader_pair

    async def serve():
        peer = await network.accept()
        await peer.accept()
        await trio.sleep_forever()

    async def send():
        with pytest.raises(ConnectionClosed):
            await connection.send_message("x" * 1000)
        failed.set()

    failed = trio.Event()
    nursery.start_soon(serve)
    with pytest.raises(DisconnectionTimeout):
        async with open_websocket(
            "test.example", 80, "/", use_ssl=False, disconnect_timeout=3
        ) as connection:
            nursery.start_soon(send)
            await settle()
    await failed.wait()

    assert 3 == trio.current_time()
    nursery.cancel_scope.cancel()


async def test_leaving_a_block_of_the_connection_closes_it(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer_close)
        async with connection as same:
            assert same is connection

        assert CloseReason(1000) == connection.closed


async def test_an_exception_that_leaves_a_block_does_not_wait_for_a_mute_peer(
    connected, autojump_clock
):
    async with connected() as (connection, peer):
        with pytest.raises(KeyError):
            async with connection:
                raise KeyError

        assert LAST_WORD == trio.current_time()
        assert (CLOSE, close_payload(1000)) == await peer.receive_frame()
        assert b"" == await peer.receive_rest()

    async with connected() as (connection, _):
        connection._options = attrs.evolve(connection._options, disconnect_timeout=0.25)
        # Not the peer's silence is told, but what has happened before it.
        with pytest.raises(KeyError):
            async with connection:
                raise KeyError

        assert LAST_WORD + 0.25 == trio.current_time()


# --- the peer's close ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (close_payload(1000), CloseReason(1000)),
        (close_payload(1001, b"deploy"), CloseReason(1001, "deploy")),
        (close_payload(4999, "ü".encode()), CloseReason(4999, "ü")),
        (b"", CloseReason(1005)),
    ],
    ids=repr,
)
async def test_a_close_frame_of_the_peer_is_answered_with_itself(connected, payload, reason):
    async with connected() as (connection, peer):
        await peer.send_frame(CLOSE, payload)

        assert (CLOSE, payload) == await peer.receive_frame()
        assert reason == connection.closed
        assert reason == await connection.wait_closed()


async def test_messages_that_came_before_the_peers_close_can_still_be_read(connected, frame):
    async with connected(message_queue_size=2) as (connection, peer):
        await peer.send(
            frame(TEXT, b"1") + frame(TEXT, b"2") + frame(CLOSE, b"") + frame(TEXT, b"too late")
        )
        await settle()
        for send in (connection.send_message, connection.ping, connection.pong):
            with pytest.raises(ConnectionClosed):
                await send(b"x")

        assert ["1", "2"] == [await connection.get_message() for _ in range(2)]
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as caught:
                await connection.get_message()
            assert CloseReason(1005) == caught.value.reason


async def test_the_stream_is_left_to_the_peer_to_end(connected, autojump_clock):
    async with connected() as (_connection, peer):
        await peer.send_frame(CLOSE, close_payload(1000))
        assert (CLOSE, close_payload(1000)) == await peer.receive_frame()
        await trio.sleep(LINGER / 2)
        # Would fail if the client had closed.
        await peer.send(b"whatever")
        await peer.stream.send_eof()

        assert b"" == await peer.receive_rest()
        assert LINGER / 2 == trio.current_time()


async def test_a_peer_that_never_ends_the_stream_after_its_close_is_left_in_time(
    connected, autojump_clock
):
    async with connected() as (connection, peer):
        await peer.send_frame(CLOSE, close_payload(1000))
        assert (CLOSE, close_payload(1000)) == await peer.receive_frame()
        # The users of the connection do not wait for that.
        await connection.wait_closed()
        await connection.aclose()
        assert 0 == trio.current_time()

        assert b"" == await peer.receive_rest()
        assert LINGER == trio.current_time()


@pytest.mark.parametrize("trouble", ["close", "too big", "violation", "silence after our close"])
async def test_leaving_never_waits_for_a_peer_that_leaves_its_stream_open(
    network, autojump_clock, nursery, frame, trouble
):
    async def serve():
        peer = await network.accept()
        await peer.accept()
        if trouble == "close":
            await peer.send_frame(CLOSE, close_payload(1000))
        elif trouble == "too big":
            await peer.send(frame(TEXT, b"x" * 101))
        elif trouble == "violation":
            await peer.send(frame(0xF))
        elif trouble == "silence after our close":
            assert (CLOSE, close_payload(1000)) == await peer.receive_frame()
            await peer.send_frame(CLOSE, close_payload(1000))
        await peer.receive_rest()

    nursery.start_soon(serve)
    async with open_websocket(
        "test.example", 80, "/", use_ssl=False, max_message_size=100
    ) as connection:
        if trouble != "silence after our close":
            with pytest.raises(ConnectionClosed):
                await connection.get_message()
    await settle()

    assert 0 == trio.current_time()
    assert 0 == len(nursery.child_tasks)


async def test_close_and_end_of_stream_in_one_go_are_understood(connected, autojump_clock):
    async with connected() as (connection, peer):
        await peer.send_frame(CLOSE, close_payload(1001))
        await peer.stream.aclose()
        with pytest.raises(ConnectionClosed):
            await connection.get_message()

        assert CloseReason(1001) == connection.closed
    assert 0 == trio.current_time()


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_a_stream_that_ends_without_a_close_frame_is_1006(connected, how, autojump_clock):
    async with connected(message_queue_size=2) as (connection, peer):
        await peer.send_frame(TEXT, b"1")
        await peer.send_frame(TEXT, b"2")
        await (peer.stream.send_eof() if how == "eof" else peer.stream.aclose())

        assert CloseReason(1006) == await connection.wait_closed()
        assert ["1", "2"] == [await connection.get_message() for _ in range(2)]
        for use in (connection.get_message, connection.ping, connection.pong):
            with pytest.raises(ConnectionClosed) as caught:
                await use()
            assert CloseReason(1006) == caught.value.reason
        await connection.aclose()
    assert 0 == trio.current_time()


async def test_a_partial_message_at_the_end_is_discarded(connected, frame):
    async with connected() as (connection, peer):
        await peer.send(frame(TEXT, b"half a mess", fin=False) + frame(0, b"age")[:3])
        await peer.stream.send_eof()
        with pytest.raises(ConnectionClosed):
            await connection.get_message()

        assert CloseReason(1006) == connection.closed


async def test_a_send_in_the_very_step_in_which_the_stream_ends_fails_cleanly(connected):
    for delay in range(6):
        for _ in range(5):
            async with connected() as (connection, peer), trio.open_nursery() as nursery:

                async def send(connection=connection, delay=delay):
                    for _ in range(delay):
                        await trio.lowlevel.checkpoint()
                    with suppress(ConnectionClosed):
                        await connection.send_message("x")

                nursery.start_soon(peer.stream.send_eof)
                nursery.start_soon(send)


async def test_a_write_that_fails_lets_the_reader_find_out_why(connected, autojump_clock):
    client, server = trio.testing.memory_stream_pair()
    async with connected(streams=(client, server)) as (connection, peer):
        # The peer reads no more, but its last words are on their way.
        await server.receive_stream.aclose()
        async with trio.open_nursery() as nursery:

            async def send():
                with pytest.raises(ConnectionClosed):
                    await connection.send_message("x")

            nursery.start_soon(send)
            await trio.sleep(LAST_WORD / 2)
            assert connection.closed is None
            await peer.send_frame(CLOSE, close_payload(1008, b"go away"))

        assert CloseReason(1008, "go away") == connection.closed


async def test_a_write_that_fails_ends_a_connection_whose_reader_hears_nothing(
    connected, autojump_clock
):
    client, server = trio.testing.memory_stream_pair()
    async with connected(streams=(client, server)) as (connection, _peer):
        await server.receive_stream.aclose()
        with pytest.raises(ConnectionClosed):
            await connection.send_message("x")

        assert CloseReason(1006) == connection.closed
        assert LAST_WORD == trio.current_time()


# --- violations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda f: f(TEXT, b"x", mask=b"abcd"), 1002),
        (lambda f: f(TEXT, b"x", rsv=4), 1002),
        (lambda f: f(0xF), 1002),
        (lambda f: f(CLOSE, b"x"), 1002),
        (lambda f: f(CLOSE, close_payload(999)), 1002),
        (lambda f: f(TEXT, b"\xff"), 1007),
    ],
    ids=["mask", "rsv", "opcode", "short close", "code 999", "utf-8"],
)
async def test_a_violation_closes_with_its_code_and_reading_stops(
    connected, frame, autojump_clock, make, code
):
    async with connected() as (connection, peer):
        await peer.send(frame(TEXT, b"before") + make(frame) + frame(TEXT, b"after"))

        opcode, payload = await peer.receive_frame()

        assert (CLOSE, code) == (opcode, int.from_bytes(payload[:2]))
        assert "before" == await connection.get_message()
        with pytest.raises(ConnectionClosed):
            await connection.get_message()
        assert code == connection.closed.code
        assert b"" == await peer.receive_rest()
        # Nobody had come for the message before it.
        assert LAST_WORD + LINGER == trio.current_time()


async def test_what_came_before_a_violation_can_be_answered(connected, frame, autojump_clock):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def echo():
            with pytest.raises(ConnectionClosed):
                async for message in connection:
                    await connection.send_message(message)

        await settle()
        await peer.send(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(0xF))

        assert [(TEXT, b"1"), (TEXT, b"2")] == [await peer.receive_frame() for _ in range(2)]
        opcode, payload = await peer.receive_frame()
        assert (CLOSE, 1002) == (opcode, int.from_bytes(payload[:2]))
        assert 0 == trio.current_time()
        await peer.stream.aclose()


async def test_what_came_in_a_read_before_a_violation_can_be_answered_too(
    connected, frame, autojump_clock
):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def echo():
            with pytest.raises(ConnectionClosed):
                async for message in connection:
                    await trio.sleep(0.5)
                    await connection.send_message(message)

        await settle()
        await peer.send(frame(TEXT, b"1"))
        await settle()
        await peer.send(frame(0xF))

        assert (TEXT, b"1") == await peer.receive_frame()
        opcode, payload = await peer.receive_frame()
        assert (CLOSE, 1002) == (opcode, int.from_bytes(payload[:2]))
        assert 0.5 == trio.current_time()
        await peer.stream.aclose()


async def test_a_peer_that_goes_on_after_a_violation_is_cut(connected, frame, autojump_clock):
    streams = trio.testing.lockstep_stream_pair()
    async with connected(streams=streams) as (_connection, peer):
        sent = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.receive_rest)
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await peer.send(frame(0xF) + b"x" * 10_000)
                    sent += 10_000

    assert sent <= 2**20 + 100_000
    assert 0 == trio.current_time()


# --- every wait ends with the connection --------------------------------------------------------

ENDS = {
    "the peer closes": lambda connection, peer: peer.send_frame(CLOSE, close_payload(1000)),
    "the peer is gone": lambda connection, peer: peer.stream.aclose(),
    "the peer breaks a rule": lambda connection, peer: peer.send_frame(0xF),
    "we close": lambda connection, peer: connection.aclose(),
    "we give up": lambda connection, peer: give_up(connection),
}


async def give_up(connection):
    await trio.lowlevel.checkpoint()
    connection.abort()


@pytest.mark.parametrize("end", ENDS)
async def test_nobody_waits_on_a_connection_that_has_ended(connected, autojump_clock, end):
    streams = slow_reader_pair()
    ended = []
    async with connected(streams=streams) as (connection, peer), trio.open_nursery() as waiting:

        async def wait(name, use):
            with pytest.raises(ConnectionClosed):
                await use()
            ended.append(name)

        for name, use in {
            "get": connection.get_message,
            "iterate": connection.get_message,
            "ping": lambda: connection.ping(b"1"),
            "send": lambda: connection.send_message("x"),
            "pong": connection.pong,
        }.items():
            waiting.start_soon(wait, name, use)
            await settle()
        waiting.start_soon(connection.wait_closed)
        await settle()
        assert (PING, b"1") == await peer.receive_frame()
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ENDS[end], connection, peer)
            await settle()
            # Our own close lets what had begun be written to its end, if the peer reads it.
            begun = {"send", "pong"} if end == "we close" else set()
            assert {"get", "iterate", "ping", "send", "pong"} - begun == set(ended)
            await peer.stream.aclose()

    assert trio.current_time() <= LINGER


async def test_giving_up_closes_the_stream_without_a_close_frame(connected, autojump_clock):
    async with connected() as (connection, peer):
        await peer.send_frame(TEXT, b"1")
        await settle()
        connection.abort()

        assert CloseReason(1006) == connection.closed
        assert CloseReason(1006) == await connection.wait_closed()
        assert [] == await peer.receive_frames()
        assert "1" == await connection.get_message()
        with pytest.raises(ConnectionClosed):
            await connection.get_message()
        connection.abort()
        await connection.aclose()
    assert 0 == trio.current_time()


async def test_giving_up_keeps_the_reason_that_there_is(connected):
    async with connected() as (connection, peer):
        await peer.send_frame(CLOSE, close_payload(4444))
        await settle()
        connection.abort()

        assert CloseReason(4444) == connection.closed


# --- one writer ---------------------------------------------------------------------------------


@attrs.define(eq=False)
class Watched(trio.abc.Stream):
    """Remembers who wrote."""

    stream: trio.abc.Stream
    writers: list = attrs.field(factory=list)

    async def send_all(self, data):
        self.writers.append(trio.lowlevel.current_task())
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        return await self.stream.receive_some(max_bytes)

    async def aclose(self):
        await self.stream.aclose()


async def test_only_one_task_writes_and_it_is_no_callers(connected):
    client, server = slow_reader_pair()
    watched = Watched(client)
    async with connected(streams=(watched, server)) as (connection, peer):
        watched.writers.clear()
        callers = [trio.lowlevel.current_task()]

        async def call(use, *arguments):
            callers.append(trio.lowlevel.current_task())
            await use(*arguments)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(call, connection.send_message, f"{number}")
                nursery.start_soon(call, connection.pong, b"%d" % number)
                nursery.start_soon(peer.send_frame, PING, b"p%d" % number)
                await settle()
            frames = [await peer.receive_frame() for _ in range(15)]
            nursery.start_soon(call, connection.aclose)
            await peer.answer_close()

    assert 15 == len(set(frames))
    assert 1 == len(set(watched.writers))
    assert not set(watched.writers) & set(callers)


# --- many messages at once ----------------------------------------------------------------------


async def test_receive_many_takes_all_that_is_there_and_at_least_one(connected, frame, nursery):
    received = []

    async def receive():
        received.append(await connection.receive_many())

    async with connected() as (connection, peer):
        nursery.start_soon(receive)
        await settle()

        assert [] == received

        await peer.send(frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT))
        await settle()

        assert [["a", b"b", ""]] == received


async def test_receive_many_leaves_a_message_in_parts_to_the_next_call(connected, frame):
    async with connected(message_queue_size=math.inf) as (connection, peer):
        await peer.send(frame(TEXT, b"a") + frame(TEXT, b"b"))
        await settle()
        connection.receive_parts()
        await peer.send(frame(TEXT, b"c", fin=False))
        await peer.send(frame(CONT, b"d") + frame(TEXT, b"e"))
        await settle()

        assert ["a", "b"] == await connection.receive_many()
        assert ["cd", "e"] == await connection.receive_many()


async def test_receive_many_raises_when_nothing_will_come(connected, frame):
    async with connected() as (connection, peer):
        await peer.send(frame(TEXT, b"last") + frame(CLOSE, close_payload(1000)))
        await connection.wait_closed()

        assert ["last"] == await connection.receive_many()
        with pytest.raises(ConnectionClosed):
            await connection.receive_many()


# --- long messages, over a socket ---------------------------------------------------------------

LONG = 2**20


@pytest.fixture
def over_tcp(make_peer):
    """Opens a connection over loopback: ``async with over_tcp() as (connection, peer)``."""

    @asynccontextmanager
    async def over_tcp():
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        peers = []

        async def accept():
            peers.append(make_peer(await listener.accept()))
            await peers[0].accept()

        async with trio.open_nursery() as nursery:
            async with listener, trio.open_nursery() as accepting:
                accepting.start_soon(accept)
                connection = await connect_websocket(nursery, "127.0.0.1", port, "/", use_ssl=False)
            async with peers[0].stream:
                yield connection, peers[0]
            nursery.cancel_scope.cancel()

    return over_tcp


async def wait_received(connection, since):
    """Wait for a sign of life."""
    while connection.last_received == since:
        await trio.lowlevel.checkpoint()
    return connection.last_received


async def test_a_long_message_comes_whole_and_each_read_is_a_sign_of_life(over_tcp, frame, nursery):
    message = os.urandom(LONG)
    data = frame(TEXT, b"before") + frame(BINARY, message) + frame(PING, b"?")
    async with over_tcp() as (connection, peer):
        seen = connection.last_received
        for start in range(0, len(data), 300_000):
            await peer.send(data[start : start + 300_000])
            seen = await wait_received(connection, seen)

        assert ["before", message] == [await connection.get_message() for _ in range(2)]
        assert (PONG, b"?") == await peer.receive_frame()

        nursery.start_soon(peer.send, data * 5)
        for _ in range(5):
            assert "before" == await connection.get_message()
            assert message == await connection.get_message()


async def test_a_long_message_goes_straight_to_where_it_stays(over_tcp, frame, monkeypatch):
    async with over_tcp() as (connection, peer):
        filled = []
        updated = type(connection._protocol).buffer_updated

        def buffer_updated(protocol, size):
            filled.append(size)
            return updated(protocol, size)

        monkeypatch.setattr(type(connection._protocol), "buffer_updated", buffer_updated)
        await peer.send(frame(BINARY, bytes(LONG)))

        assert bytes(LONG) == await connection.get_message()
        # The first read, of whatever was there, takes the header and up to 256 KiB.
        assert LONG - 2**18 <= sum(filled) <= LONG


async def test_parts_may_be_wanted_in_the_middle_of_a_long_message(over_tcp, frame, nursery):
    message = os.urandom(LONG)
    data = frame(BINARY, message)
    async with over_tcp() as (connection, peer):
        seen = connection.last_received
        for piece in (data[:20], data[20:1000], data[1000:300_000]):
            await peer.send(piece)
            seen = await wait_received(connection, seen)
        parts = connection.receive_parts()
        nursery.start_soon(peer.send, data[300_000:])
        received = b""
        async for part in parts:
            received += part

        assert message == received


@pytest.mark.parametrize("sent", [10, 11, LONG // 32, LONG // 2, LONG + 9])
async def test_the_end_in_the_middle_of_a_long_message_is_an_end(over_tcp, frame, sent):
    async with over_tcp() as (connection, peer):
        await peer.send(frame(BINARY, bytes(LONG))[:sent])
        await peer.stream.aclose()
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()

        assert 1006 == caught.value.reason.code


async def test_we_may_close_in_the_middle_of_a_long_message(over_tcp, frame, nursery):
    data = frame(BINARY, bytes(LONG))
    async with over_tcp() as (connection, peer):
        seen = connection.last_received
        await peer.send(data[:300_000])
        await wait_received(connection, seen)
        nursery.start_soon(connection.aclose)

        assert (CLOSE, close_payload(1000)) == await peer.receive_frame()

        await peer.send(data[300_000:] + frame(CLOSE, close_payload(1000)))
        with trio.fail_after(5):
            assert CloseReason(1000) == await connection.wait_closed()


# --- messages in parts --------------------------------------------------------------------------


async def test_a_message_is_received_in_parts_as_they_come(connected, frame):
    async with connected() as (connection, peer):
        parts = connection.receive_parts()
        await peer.send(frame(TEXT, b"a\xc3", fin=False))

        assert "a" == await anext(parts)

        await peer.send(frame(CONT, b"\xa9b", fin=False) + frame(PING))

        assert "éb" == await anext(parts)
        assert (PONG, b"") == await peer.receive_frame()

        await peer.send(frame(CONT, b"c") + frame(BINARY, b"the next"))

        assert ["c"] == [part async for part in parts]
        with pytest.raises(StopAsyncIteration):
            await anext(parts)
        assert [b"the next"] == [part async for part in connection.receive_parts()]


@pytest.mark.parametrize(
    ("message", "parts"), [("short", ["short"]), (b"short", [b"short"]), ("", []), (b"", [])]
)
async def test_a_short_message_is_one_part_and_an_empty_one_none(connected, frame, message, parts):
    async with connected() as (connection, peer):
        opcode = TEXT if isinstance(message, str) else BINARY
        await peer.send_frame(opcode, message.encode() if isinstance(message, str) else message)

        assert parts == [part async for part in connection.receive_parts()]


async def test_a_large_message_in_parts_is_never_whole_in_memory(connected, frame):
    piece, count = b"x" * 2**16, 512
    async with connected() as (connection, peer):
        parts = connection.receive_parts()
        await peer.send(frame(BINARY, length=len(piece) * count))
        size = 0
        tracemalloc.start()
        try:
            for _ in range(count):
                await peer.send(piece)
                size += len(await anext(parts))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert [] == [part async for part in parts]
        assert len(piece) * count == size
        assert peak < 20 * len(piece)


async def test_who_takes_no_parts_keeps_the_peer_from_sending_more(connected, frame):
    streams = trio.testing.lockstep_stream_pair()
    async with connected(streams=streams, receive_buffer_size=100) as (connection, peer):
        parts = connection.receive_parts()
        sent = 0

        async def flood():
            nonlocal sent
            await peer.send(frame(BINARY, length=10_000))
            while sent < 10_000:
                await peer.send(b"x" * 100)
                sent += 100

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await settle()

            assert sent <= 400

            async for part in parts:
                assert len(part) <= 100
        assert 10_000 == sent


async def test_messages_that_came_in_parts_can_still_be_had_whole(connected, frame):
    async with connected(message_queue_size=math.inf) as (connection, peer):
        connection.receive_parts()
        for opcode, payload in ((TEXT, "é€🙂".encode()), (BINARY, b"\xff" * 5)) * 2:
            for byte in frame(opcode, payload):
                await peer.send(bytes([byte]))
                await settle()

        assert "é€🙂" == await connection.get_message()
        assert b"\xff" * 5 == await connection.get_message()
        seen = []
        async for message in connection:
            seen.append(message)
            if len(seen) == 2:
                break
        assert ["é€🙂", b"\xff" * 5] == seen


async def test_the_loop_joins_parts_too(connected, frame):
    async with connected(message_queue_size=math.inf) as (connection, peer):
        connection.receive_parts()
        await peer.send(frame(TEXT, b"a"))
        await settle()
        await peer.send(frame(TEXT, b"b", fin=False))
        await settle()
        await peer.send(frame(CONT, b"c") + frame(CLOSE, close_payload(1000)))

        assert ["a", "bc"] == [message async for message in connection]


@pytest.mark.parametrize("code", [1000, 1008])
async def test_the_end_within_parts_ends_the_loop_as_ever(connected, frame, code):
    async with connected(message_queue_size=math.inf) as (connection, peer):
        connection.receive_parts()
        await peer.send(frame(TEXT, b"whole") * 50)
        await settle()
        await peer.send(frame(TEXT, b"half", fin=False) + frame(CLOSE, close_payload(code)))
        await connection.wait_closed()
        seen = []
        if code == 1000:
            seen += [message async for message in connection]
        else:
            with pytest.raises(ConnectionClosed):
                async for message in connection:
                    seen += [message]

        assert ["whole"] * 50 == seen


@pytest.mark.parametrize("take", [WebSocketConnection.get_message, WebSocketConnection.__anext__])
async def test_a_receive_that_is_cancelled_within_a_message_loses_none_of_it(
    connected, frame, take, autojump_clock
):
    async with connected() as (connection, peer):
        connection.receive_parts()
        await peer.send(frame(TEXT, b"first ", fin=False))
        with trio.move_on_after(1) as scope:
            await take(connection)

        assert scope.cancelled_caught

        await peer.send(frame(CONT, b"second ", fin=False))
        with trio.move_on_after(1):
            await take(connection)
        await peer.send(frame(CONT, b"third"))

        assert "first second third" == await take(connection)


async def test_parts_go_on_where_a_cancelled_receive_has_stopped(connected, frame, autojump_clock):
    async with connected() as (connection, peer):
        connection.receive_parts()
        await peer.send(frame(TEXT, b"first ", fin=False))
        with trio.move_on_after(1):
            await connection.get_message()
        await peer.send(frame(CONT, b"second ", fin=False))
        parts = connection.receive_parts()

        assert "first second " == await anext(parts)

        await peer.send(frame(CONT, b"third"))

        assert ["third"] == [part async for part in parts]

        # Nothing of it is left to the next one.
        await peer.send(frame(TEXT, b"a", fin=False))
        await settle()
        await peer.send(frame(CONT, b"b"))

        assert "ab" == await connection.get_message()


async def test_two_receivers_of_messages_in_parts_get_one_each(connected, frame):
    received = []

    async def receive():
        received.append(await connection.get_message())

    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        connection.receive_parts()
        for _ in range(2):
            nursery.start_soon(receive)
            await settle()
        for payload in (b"first", b"second"):
            for byte in frame(TEXT, payload):
                await peer.send(bytes([byte]))
                await settle()
        await peer.send(frame(TEXT, b"third"))

    assert ["first", "second"] == sorted(received)


@pytest.mark.parametrize(("excess", "code"), [(0, None), (1, 1009)])
@pytest.mark.parametrize("character", ["x", "é"])
async def test_parts_that_are_joined_are_limited_as_a_message_is(
    connected, frame, excess, code, character
):
    async with connected(max_message_size=1000, message_queue_size=math.inf) as (connection, peer):
        connection.receive_parts()
        payload = character.encode() * (1000 // len(character.encode())) + b"x" * excess
        for start in range(0, len(payload), 100):
            opcode = CONT if start else TEXT
            await peer.send(frame(opcode, payload[start : start + 100], fin=False))
            await settle()
        await peer.send(frame(CONT))
        if code is None:
            assert payload.decode() == await connection.get_message()
        else:
            with pytest.raises(ConnectionClosed) as caught:
                await connection.get_message()

            assert code == caught.value.reason.code
            frames = [await peer.receive_frame()]
            assert [(CLOSE, close_payload(1009))] == [(frames[0][0], frames[0][1][:2])]


async def test_the_end_within_parts_is_told(connected, frame):
    async with connected() as (connection, peer):
        parts = connection.receive_parts()
        await peer.send(frame(TEXT, b"half", fin=False) + frame(CLOSE, close_payload(1001)))

        assert "half" == await anext(parts)
        with pytest.raises(ConnectionClosed) as caught:
            await anext(parts)

        assert 1001 == caught.value.reason.code
        for receive in (connection.get_message, connection.receive_many):
            with pytest.raises(ConnectionClosed):
                await receive()


# --- sending in parts ---------------------------------------------------------------------------


async def receive_message(peer):
    """The payloads of one message's frames, of which all but the last say that more follow."""
    frames = []
    is_last = False
    while not is_last:
        while len(peer.received) < 2:
            peer.received += await peer.stream.receive_some()
        is_last = bool(peer.received[0] & 0x80)
        peer.received[0] |= 0x80
        frames.append(await peer.receive_frame())
    return frames


def each_later(*parts):
    async def each_later():
        for part in parts:
            await trio.lowlevel.checkpoint()
            yield part

    return each_later()


@pytest.mark.parametrize(
    ("parts", "frames"),
    [
        (["a", "é", ""], [(TEXT, b"a"), (CONT, "é".encode()), (CONT, b""), (CONT, b"")]),
        ([b"a", b"b"], [(BINARY, b"a"), (CONT, b"b"), (CONT, b"")]),
        ([], [(TEXT, b"")]),
        (["x" * 2**20], [(TEXT, b"x" * 2**20), (CONT, b"")]),
    ],
    ids=["text", "binary", "empty", "long"],
)
@pytest.mark.parametrize("make", [list, iter, lambda parts: each_later(*parts)])
async def test_a_message_is_sent_in_parts(connected, parts, frames, make, nursery):
    async with connected() as (connection, peer):
        nursery.start_soon(connection.send_parts, make(parts))

        assert frames == await receive_message(peer)

        await connection.send_message("next")

        assert (TEXT, b"next") == await peer.receive_frame()


async def test_what_one_connection_receives_in_parts_another_sends_in_parts(connected, frame):
    async with connected() as (one, its_peer), connected() as (other, others_peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.send_parts, one.receive_parts())
            for piece in (b"\x01\x03a\xc3\xa9", b"\x80\x03b", b"cd"):
                await its_peer.send(piece)
                await settle()

        assert [(TEXT, "aé".encode()), (CONT, b"b"), (CONT, b"cd"), (CONT, b"")] == (
            await receive_message(others_peer)
        )


@pytest.mark.parametrize(
    "parts", ["text", b"binary", None, 5, object()], ids=lambda value: type(value).__name__
)
async def test_only_an_iterable_of_parts_is_sent_in_parts(connected, parts):
    async with connected() as (connection, peer):
        with pytest.raises(TypeError, match="parts must be an iterable of str or bytes, not"):
            await connection.send_parts(parts)
        await connection.send_message("goes on")

        assert (TEXT, b"goes on") == await peer.receive_frame()


def failing():
    yield "a"
    raise KeyError("of the caller's")


async def failing_later():
    yield "a"
    raise KeyError("of the caller's")


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        (["a", b"b"], TypeError),
        ([b"a", "b"], TypeError),
        (["a", None], TypeError),
        (["a", "\ud800"], ValueError),
        (failing(), KeyError),
        (failing_later(), KeyError),
    ],
)
async def test_a_message_that_cannot_be_finished_ends_the_connection(
    connected, parts, error, autojump_clock
):
    async with connected() as (connection, peer):
        with pytest.raises(error):
            await connection.send_parts(parts)

        assert CloseReason(1011, "a message was not finished") == connection.closed
        with pytest.raises(ConnectionClosed):
            await connection.send_message("after")
        with pytest.raises(ConnectionClosed):
            await connection.get_message()
        assert 2 == len(await receive_message_and_close(peer))


async def receive_message_and_close(peer):
    while not peer.received:
        peer.received += await peer.stream.receive_some()
    peer.received[0] |= 0x80
    begun = await peer.receive_frame()
    closing = await peer.answer_close()

    assert close_payload(1011, b"a message was not finished") == closing[1]
    return [begun, closing]


@pytest.mark.parametrize("parts", [[None], ["\ud800"]])
async def test_a_message_that_has_not_begun_ends_nothing(connected, parts):
    async with connected() as (connection, peer):
        with pytest.raises((TypeError, ValueError)):
            await connection.send_parts(parts)
        await connection.send_message("goes on")

        assert (TEXT, b"goes on") == await peer.receive_frame()


async def test_a_send_in_parts_that_is_cancelled_within_its_message_ends_the_connection(
    connected, autojump_clock
):
    cleaned_up = False

    async def parts():
        nonlocal cleaned_up
        try:
            yield "begun"
            await trio.sleep_forever()
        finally:
            cleaned_up = True

    async with connected() as (connection, peer):
        with trio.move_on_after(1) as scope:
            await connection.send_parts(parts())

        assert scope.cancelled_caught
        assert cleaned_up
        assert CloseReason(1011, "a message was not finished") == connection.closed
        await receive_message_and_close(peer)
        await connection.wait_closed()


async def test_a_connection_that_fails_does_not_wait_long_for_a_mute_peer(
    connected, autojump_clock
):
    async with connected() as (connection, peer):
        with pytest.raises(KeyError):
            await connection.send_parts(failing())
        rest = await peer.receive_rest()

        assert close_payload(1011) == apply_mask(rest)[:2]
        assert LINGER == trio.current_time()
        await connection.wait_closed()


def apply_mask(rest):
    """The payload of the last frame of ``rest``, which is a close frame with our reason."""
    start = len(rest) - 2 - len("a message was not finished")
    key = rest[start - 4 : start]
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(rest[start:]))


async def test_a_second_message_in_parts_that_is_cancelled_in_the_queue_ends_nothing(
    connected, autojump_clock
):
    send, receive = trio.open_memory_channel(0)
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.send_parts, receive)
        await send.send("first")
        await settle()
        with trio.move_on_after(1) as scope:
            await connection.send_parts(each_later("second"))

        assert scope.cancelled_caught
        with pytest.raises(TypeError):
            await connection.send_parts([None])
        await send.aclose()

        assert [(TEXT, b"first"), (CONT, b"")] == await receive_message(peer)
        assert connection.closed is None


async def test_others_wait_until_a_message_in_parts_is_whole_but_control_frames_do_not(
    connected, nursery
):
    send, receive = trio.open_memory_channel(0)
    async with connected() as (connection, peer):
        nursery.start_soon(connection.send_parts, receive)
        await send.send(b"a")
        await settle()
        nursery.start_soon(connection.send_message, "other")
        await settle()
        await peer.send_frame(PING, b"asks")
        await settle()
        start_ping(connection)
        await send.send(b"b")
        await send.aclose()
        peer.received += await peer.stream.receive_some()
        peer.received[0] |= 0x80
        frames = [await peer.receive_frame() for _ in range(3)]

        assert [(BINARY, b"a"), (PONG, b"asks"), PING] == [*frames[:2], frames[2][0]]
        assert [(CONT, b"b"), (CONT, b"")] == await receive_message(peer)
        assert (TEXT, b"other") == await peer.receive_frame()


async def test_a_closed_connection_sends_no_parts(connected, nursery, autojump_clock):
    send, receive = trio.open_memory_channel(1)
    ended = trio.Event()

    async def send_parts():
        with pytest.raises(ConnectionClosed):
            await connection.send_parts(receive)
        ended.set()

    async with connected() as (connection, _):
        nursery.start_soon(send_parts)
        await send.send("begun")
        await settle()
        connection.abort()
        await send.send("late")
        await ended.wait()
        with pytest.raises(ConnectionClosed):
            await connection.send_parts(["never"])


# --- over a socket ------------------------------------------------------------------------------


@pytest.fixture
async def listening(make_peer, nursery):
    """Opens a connection over TCP; returns it and the test's end of it."""

    async def listening(**options):
        async def accept():
            peers.append(make_peer(await listener.accept()))
            await peers[0].accept()

        peers = []
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener, trio.open_nursery() as accepting:
            accepting.start_soon(accept)
            port = listener.socket.getsockname()[1]
            connection = await connect_websocket(
                nursery, "127.0.0.1", port, "/", use_ssl=False, **options
            )
        opened.append((connection, peers[0]))
        return opened[-1]

    opened = []
    yield listening
    for connection, peer in opened:
        connection.abort()
        await trio.aclose_forcefully(peer.stream)


def count_writes(connection, monkeypatch):
    """What is handed to the socket from now on, a list that grows."""
    transport = connection._transport
    send_nowait = transport.send_nowait
    writes = []

    def counted(data, start):
        size = send_nowait(data, start)
        if size:
            writes.append(size)
        return size

    monkeypatch.setattr(transport, "send_nowait", counted)
    return writes


async def test_a_message_that_stands_alone_is_handed_over_at_once(listening, monkeypatch):
    connection, peer = await listening()
    await trio.sleep(0.001)
    writes = count_writes(connection, monkeypatch)
    await connection.send_message("alone")

    assert [6 + 5] == writes
    assert (TEXT, b"alone") == await peer.receive_frame()


async def test_a_burst_is_handed_over_in_few_writes_and_in_order(listening, monkeypatch):
    connection, peer = await listening()
    writes = count_writes(connection, monkeypatch)
    for number in range(2000):
        await connection.send_message(f"{number}")

    assert [(TEXT, b"%d" % number) for number in range(2000)] == [
        await peer.receive_frame() for _ in range(2000)
    ]
    assert len(writes) <= 200


async def test_a_burst_is_written_before_the_close_frame(listening, nursery):
    connection, peer = await listening()
    for number in range(100):
        await connection.send_message(f"{number}")
    nursery.start_soon(connection.aclose)
    frames = [await peer.receive_frame() for _ in range(101)]
    await peer.send_frame(*frames[-1])
    await peer.stream.send_eof()

    assert [
        *((TEXT, b"%d" % number) for number in range(100)),
        (CLOSE, close_payload(1000)),
    ] == frames


async def test_senders_wait_for_a_slow_reader_and_are_withdrawn_when_cancelled(listening):
    connection, peer = await listening()
    sent, cancelled = [], []
    while len(cancelled) < 20:
        number = b"%05d" % (len(sent) + len(cancelled))
        with trio.move_on_after(0.02) as scope:
            await connection.send_message(number.decode() + "x" * 2**16)
        (cancelled if scope.cancelled_caught else sent).append(number)
    received = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.send_message, "last")
        while b"last" not in received:
            received.append((await peer.receive_frame())[1][:5])

    # What was sent is there, in order; of the others those few that had begun, and were too late.
    assert sorted(received[:-1]) == received[:-1]
    assert {*sent} <= {*received}
    assert len({*cancelled} - {*received}) >= 15


async def test_a_peer_that_sends_more_than_a_batch_is_understood_bit_by_bit(listening, frame):
    connection, peer = await listening(message_queue_size=math.inf)
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        # Empty messages: a read of 256 KiB holds 128 Ki of them, which are eight batches.
        nursery.start_soon(peer.send, frame(TEXT) * 2**17 + frame(TEXT, b"last"))
        received = 0
        while "last" not in (messages := await connection.receive_many()):
            received += len(messages)
        nursery.cancel_scope.cancel()

    assert 2**17 == received + len(messages) - 1
    assert turns >= 8


# --- compression --------------------------------------------------------------------------------


@pytest.fixture
async def compressing(nursery):
    """The port of an echo server of another make, that compresses."""
    from websockets.trio.server import serve

    server = await nursery.start(functools.partial(serve, echo, 0, host="127.0.0.1"))
    yield server.listeners[0].socket.getsockname()[1]
    await server.aclose()


@pytest.mark.parametrize(
    "compression",
    [
        True,
        Compression(threshold=0),
        Compression(server_no_context_takeover=True, client_no_context_takeover=True),
        Compression(server_max_window_bits=9, client_max_window_bits=9, threshold=0),
    ],
)
async def test_it_compresses_with_a_server_of_another_make(compressing, compression):
    with trio.fail_after(10):
        async with open_websocket(
            "127.0.0.1", compressing, "/", use_ssl=False, compression=compression
        ) as connection:
            assert connection._accepted.deflate is not None
            for message in ("", "é" * 1000, b"", b"\0" * 2**19, os.urandom(2**17), "é" * 1000):
                await connection.send_message(message)

                assert message == await connection.get_message()

            await connection.send_parts(["in ", "parts"])

            assert "in parts" == await connection.get_message()

            await connection.send_message("x" * 2**20)

            assert "x" * 2**20 == "".join([part async for part in connection.receive_parts()])
    assert CloseReason(1000) == connection.closed


async def test_a_server_that_does_not_compress_is_spoken_to_as_ever(autojump_clock):
    with memory_network() as network:
        async with FaultServer(handler=echo, network=network) as server:
            async with open_websocket_url(server.url, compression=True) as connection:
                await connection.send_message("x" * 1000)

                assert "x" * 1000 == await connection.get_message()
                assert connection._accepted.deflate is None
            await server.wait_over(1)


async def test_without_compression_a_compressed_frame_is_a_violation(connected, frame):
    async with connected() as (connection, peer):
        await peer.send(frame(TEXT, b"\0", rsv=4))

        assert 1002 == (await connection.wait_closed()).code


# --- for sessions -------------------------------------------------------------------------------


@attrs.define
class Message:
    message: str
    was_written: bool = False

    def written(self):
        self.was_written = True


@attrs.define
class Source:
    waiting: list = attrs.field(factory=list)

    def pull(self):
        return self.waiting.pop(0) if self.waiting else None


async def test_an_attached_connection_feeds_the_inbox_what_came_before_first(connected):
    async with connected(message_queue_size=0) as (connection, peer):
        inbox = Mailbox(100)
        await peer.send_frame(TEXT, b"before")
        await settle()
        attach(connection, inbox, Source())
        await peer.send_frame(TEXT, b"after")
        await settle()

        assert (["before", "after"], 11) == inbox.take_all()


async def test_a_detached_connection_feeds_another_inbox_and_still_answers(connected):
    async with connected(message_queue_size=0) as (connection, peer):
        inbox, other = Mailbox(100), Mailbox(100)
        attach(connection, inbox, Source())
        await peer.send_frame(TEXT, b"before")
        await settle()
        detach(connection, other)
        await peer.send_frame(TEXT, b"after")
        await peer.send_frame(PING, b"there?")

        assert (PONG, b"there?") == await peer.receive_frame()
        assert (["before"], 6) == inbox.take_all()
        assert (["after"], 5) == other.take_all()


async def test_a_session_gets_whole_messages_also_after_a_hook_that_received_parts(
    connected, frame
):
    async with connected() as (connection, peer):
        inbox = Mailbox(100)
        parts = connection.receive_parts()
        await peer.send(frame(TEXT, b"ha", fin=False))

        assert "ha" == await anext(parts)

        await peer.send(frame(0, b"lf", fin=False))
        await settle()
        attach(connection, inbox, Source())
        await peer.send(frame(0, b" a message") + frame(TEXT, b"1", fin=False))
        await settle()
        await peer.send(frame(0, b"2", fin=False) + frame(0, b"3") + frame(TEXT, b"whole"))
        await settle()

        assert ["lf a message", "123", "whole"] == inbox.take_all()[0]


async def test_what_a_session_joins_is_limited_too(connected, frame, autojump_clock):
    async with connected(max_message_size=10) as (connection, peer):
        connection.receive_parts()
        await peer.send(frame(TEXT, b"x" * 9, fin=False))
        await settle()
        inbox = Mailbox(100)
        attach(connection, inbox, Source())
        await peer.send(frame(0, b"xx", fin=False))

        assert (CLOSE, 1009) == (
            (found := await peer.receive_frame())[0],
            int.from_bytes(found[1][:2]),
        )
        assert 1009 == connection.closed.code

        # Whatever of it still comes is neither kept nor delivered, and what follows it neither.
        await peer.send(frame(0, b"xxx", fin=False))
        await peer.send(frame(0, b"x") + frame(TEXT, b"next"))
        await settle()

        assert [] == connection._pieces
        assert 0 == len(inbox)


async def test_an_attached_connection_writes_what_it_pulls(connected):
    async with connected() as (connection, peer):
        first, second = Message("first"), Message("second")
        source = Source([first])
        wake = attach(connection, Mailbox(1), source)

        assert (TEXT, b"first") == await peer.receive_frame()

        source.waiting.append(second)
        await settle()
        assert not second.was_written

        wake()

        assert (TEXT, b"second") == await peer.receive_frame()
        assert [True, True] == [first.was_written, second.was_written]


async def test_a_closed_connection_pulls_nothing(connected):
    async with connected() as (connection, peer):
        await peer.send_frame(CLOSE)
        await connection.wait_closed()
        source = Source([Message("never")])
        attach(connection, Mailbox(1), source)()
        await settle()

        assert 1 == len(source.waiting)


async def test_an_inbox_without_room_stops_the_reading(connected):
    async with connected() as (connection, peer):
        inbox = Mailbox(0)
        attach(connection, inbox, Source())
        await peer.send_frame(TEXT, b"1")
        await settle()
        await peer.send_frame(TEXT, b"2")
        await settle()

        assert (["1"], 1) == inbox.take_all()

        await settle()

        assert (["2"], 1) == inbox.take_all()


async def test_whoever_judges_the_peer_learns_since_when_we_read(connected, autojump_clock):
    async with connected(message_queue_size=0) as (connection, peer):
        assert 0 == await wait_reading(connection)

        await peer.send_frame(TEXT, b"1")
        await settle()
        with trio.move_on_after(5) as scope:
            await wait_reading(connection)
        assert scope.cancelled_caught

        await connection.get_message()

        assert 5 == await wait_reading(connection)


async def test_whoever_waits_for_reading_is_woken_by_the_end(connected, autojump_clock):
    async with connected(message_queue_size=0) as (connection, peer):
        await peer.send_frame(TEXT, b"1")
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_reading, connection)
            await settle()
            connection.abort()


async def test_a_heartbeat_goes_ahead_and_measures(connected, autojump_clock):
    async with connected() as (connection, peer):
        ping = start_ping(connection)

        assert (PING, ping.payload) == await peer.receive_frame()
        assert not ping.resolved.is_set()

        await trio.sleep(0.5)
        await peer.send_frame(PONG, ping.payload)
        await settle()

        assert (True, True, 0.5) == (ping.resolved.is_set(), ping.answered, connection.latency)
        forget_ping(connection, ping)
        assert 0 == len(connection._pings)


async def test_a_heartbeat_is_asked_when_it_was_written(connected, autojump_clock):
    async with connected(streams=slow_reader_pair()) as (connection, peer):
        await trio.sleep(1)
        waiting = start_ping(connection)
        await settle()

        # The peer has never made any room.
        assert 0 == asked_at(connection, waiting)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.send_message, "x" * 100)
            await settle()
            behind = start_ping(connection)
            await trio.sleep(1)
            # The peer makes no room for it: it could not answer yet.
            before = asked_at(connection, behind)
            assert (PING, waiting.payload) == await peer.receive_frame()
            assert (PING, behind.payload) == await peer.receive_frame()
            assert (TEXT, b"x" * 100) == await peer.receive_frame()

        assert before < 2 == asked_at(connection, behind)
        for ping in (waiting, behind):
            forget_ping(connection, ping)


# --- over real sockets, with a server of another make -------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_it_works_with_a_server_of_another_make(server, tls, secure):
    port = server.tls_port if secure else server.port
    with trio.fail_after(20):
        async with open_websocket(
            server.host,
            port,
            "/echo?x=%C3%A9",
            use_ssl=tls.client if secure else False,
            subprotocols=["chat"],
            extra_headers=[("X-Mine", "1")],
        ) as connection:
            for message in ("", "aé€🙂", b"\x00\xff", "x" * 70_000, b"x" * 2**20):
                await connection.send_message(message)
                assert message == await connection.get_message()
            await connection.ping()
            assert connection.latency is not None
            assert ("chat", "/echo?x=%C3%A9") == (connection.subprotocol, connection.path)
            assert (b"x-test-header", b"My test header") == connection.handshake_headers[0]
            assert secure is connection.remote.is_ssl is connection.local.is_ssl
    assert CloseReason(1000) == connection.closed
    assert WebSocketConnection is type(connection)


async def test_a_server_of_another_make_hears_our_headers(server):
    with trio.fail_after(10):
        async with open_websocket(
            server.host, server.port, "/headers", use_ssl=False, extra_headers={"X-Mine": "1"}
        ) as connection:
            lines = [line async for line in connection]

    assert "x-mine: 1" in [line.lower() for line in lines]
    assert CloseReason(1000) == connection.closed


async def test_a_server_of_another_make_closes_with_a_reason(server):
    with trio.fail_after(10):
        async with open_websocket(
            server.host, server.port, "/close?code=4321&reason=enough", use_ssl=False
        ) as connection:
            with pytest.raises(ConnectionClosed):
                await connection.get_message()

    assert CloseReason(4321, "enough") == connection.closed


async def test_a_reset_of_the_socket_is_1006(make_peer):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def reset():
        stream = await listener.accept()
        peer = make_peer(stream)
        await peer.accept()
        await peer.receive_frame()
        # Closing without lingering sends RST.
        linger = struct.pack("ii", 1, 0)
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        await stream.aclose()

    with trio.fail_after(10):
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(reset)
            async with open_websocket("127.0.0.1", port, "/", use_ssl=False) as connection:
                await connection.send_message("go")
                with pytest.raises(ConnectionClosed) as caught:
                    await connection.get_message()

    assert CloseReason(1006) == caught.value.reason == connection.closed


async def test_a_server_of_another_make_refuses(server):
    with pytest.raises(ConnectionRejected) as caught, trio.fail_after(10):
        async with open_websocket(server.host, server.port, "/reject?status=403", use_ssl=False):
            pass

    assert (403, b"no, \xff") == (caught.value.status_code, caught.value.body)
    assert (b"x-why", b"because") in caught.value.headers


async def test_leaving_at_once_after_the_peers_close_still_answers_it(autojump_clock):
    async def say_good_bye(peer):
        await peer.close(1001, "good bye")

    with memory_network() as network:
        async with FaultServer(handler=say_good_bye, network=network) as server:
            for number in range(1, 21):
                async with open_websocket_url(server.url) as connection:
                    assert [] == [message async for message in connection]
                visit = await server.wait_over(number)

                assert CloseReason(1001, "good bye") == visit.close


# --- by trio-websocket's names, for those who reached into it -----------------------------------


async def test_our_close_frame_goes_through_send_once_the_connection_counts_as_closed(
    connected, nursery
):
    async with connected() as (connection, peer):
        send = connection._send
        seen = []

        async def see(event):
            seen.append((event.code, event.reason, connection.closed))
            await trio.lowlevel.checkpoint()
            await send(event)

        connection._send = see
        nursery.start_soon(peer.answer_close)
        await connection.aclose(4000, "why")

        assert [(4000, "why", CloseReason(1000))] == seen
        assert CloseReason(4000, "why") == connection.closed


async def test_a_send_that_never_ends_is_cut_by_the_limit_on_closing(
    network, autojump_clock, nursery
):
    async def serve():
        peer = await network.accept()
        await peer.accept()
        await peer.receive_rest()

    async def never(event):
        await trio.sleep_forever()

    nursery.start_soon(serve)
    with pytest.raises(DisconnectionTimeout):
        async with open_websocket(
            "test.example", 80, "/", use_ssl=False, disconnect_timeout=3
        ) as connection:
            connection._send = never

    assert 3 <= trio.current_time() <= 3 + LAST_WORD


async def test_a_close_frame_can_be_sent_by_hand(connected, nursery):
    async with connected() as (connection, peer):
        await connection._send(CloseReason(1001, "bye"))
        nursery.start_soon(peer.answer_close)

        assert CloseReason(1001, "bye") == await connection.wait_closed()


async def test_the_peers_close_frame_is_told_before_it_is_answered(connected, frame):
    async with connected() as (connection, peer):
        event = connection._for_testing_peer_closed_connection = trio.Event()
        await peer.send(frame(CLOSE, close_payload(4000)))
        await event.wait()

        assert CloseReason(4000) == connection.closed
        assert 0 == len(peer.received)
        with pytest.raises(ConnectionClosed):
            await connection.send_message("too late")
        assert (CLOSE, close_payload(4000)) == await peer.receive_frame()


async def test_a_violation_is_no_close_frame_of_the_peers(connected, frame):
    async with connected() as (connection, peer):
        event = connection._for_testing_peer_closed_connection = trio.Event()
        await peer.send(frame(0xF))
        await connection.wait_closed()

        assert not event.is_set()


async def test_whoever_handles_pings_may_wait_and_fail(connected, frame, monkeypatch):
    error = ValueError("a handler's")
    pings = []

    async def handle(connection, event):
        pings.append(event.payload)
        await trio.lowlevel.checkpoint()
        if event.payload == b"2":
            raise error

    monkeypatch.setattr(WebSocketConnection, "_handle_ping_event", handle)
    with pytest.raises(ExceptionGroup) as caught:
        async with connected() as (connection, peer):
            await peer.send(frame(PING, b"1") + frame(TEXT, b"x") + frame(PING, b"2"))
            await connection.wait_closed()
            await trio.sleep_forever()

    assert (error,) == caught.value.exceptions
    assert [b"1", b"2"] == pings


async def test_a_session_asks_how_the_peer_does(nursery):
    async with FaultServer() as server:
        connection = await connect_websocket(nursery, server.host, server.port, "/", use_ssl=False)

        assert round_trips(connection) is None
        await connection.ping()
        trips = round_trips(connection)
        assert trips is not None
        assert connection.latency == trips.last
        assert not is_deaf(connection)
        assert not has_unread(connection)
        await connection.aclose()
