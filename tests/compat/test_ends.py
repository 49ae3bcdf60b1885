"""How a connection and its block end: the states of closing, and which exception comes out."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
import trio
import trio.testing

import wsclient
from wsclient import CloseReason, ConnectionClosed, WebSocketConnection

TEXT, CLOSE, PING = 1, 8, 9


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


# --- the states of closing ----------------------------------------------------------------------


async def test_our_close_counts_at_once_and_the_peers_code_in_the_end(
    connected, frame, autojump_clock
):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        woken = []

        async def receive():
            with pytest.raises(ConnectionClosed) as caught:
                await connection.get_message()
            woken.append(caught.value.reason)

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(connection.aclose, 4000, "ours")
        await trio.testing.wait_all_tasks_blocked()

        # Whatever code was passed, until the peer has answered.
        assert CloseReason(1000) == connection.closed
        assert [CloseReason(1000)] == woken
        for use in (connection.send_message, connection.ping, connection.pong):
            with pytest.raises(ConnectionClosed):
                await use(b"x")

        assert (CLOSE, close_payload(4000, b"ours")) == await peer.receive_frame()

        await peer.send(frame(CLOSE, close_payload(4444, b"theirs")))
        await connection.wait_closed()
    assert CloseReason(4444, "theirs") == connection.closed


async def test_a_peer_that_just_hangs_up_after_our_close_leaves_1000(connected):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.aclose, 4000)
        assert (CLOSE, close_payload(4000)) == await peer.receive_frame()
        await peer.stream.aclose()
    assert CloseReason(1000) == connection.closed


async def test_closing_again_or_after_the_peer_returns_at_once(connected, autojump_clock):
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer_close)
        await connection.aclose()
        await connection.aclose(4000)
        assert CloseReason(1000) == connection.closed
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        await peer.send_frame(CLOSE, close_payload(1001))
        await connection.wait_closed()
        await connection.aclose(4000)
        assert (CLOSE, close_payload(1001)) == await peer.receive_frame()
        assert CloseReason(1001) == connection.closed
    assert 0 == trio.current_time()


async def test_a_close_frame_without_a_code_is_1005(connected):
    async with connected() as (connection, peer):
        await peer.send_frame(CLOSE)

        assert CloseReason(1005) == await connection.wait_closed()


async def test_a_stream_that_just_ends_is_1006_and_what_came_can_be_read(connected, frame):
    async with connected(message_queue_size=2) as (connection, peer):
        await peer.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        await peer.stream.aclose()

        assert CloseReason(1006) == await connection.wait_closed()
        assert ["1", "2"] == [await connection.get_message() for _ in "12"]
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert CloseReason(1006) == caught.value.reason


@pytest.mark.parametrize("body", [b"", b"gone"])
@pytest.mark.parametrize("status", [302, 404, 500])
async def test_a_rejections_body_is_bytes_even_if_empty(network, nursery, status, body):
    async def serve():
        peer = await network.accept()
        await peer.read_request()
        await peer.send(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    nursery.start_soon(serve)
    with pytest.raises(wsclient.ConnectionRejected) as caught:
        async with wsclient.open_websocket("localhost", 80, "/", use_ssl=False):
            pass

    assert (status, body) == (caught.value.status_code, caught.value.body)


# --- which exception comes out of the block -----------------------------------------------------


@pytest.fixture
def open_pinged(network, nursery, monkeypatch):
    """Opens a connection whose reader does ``handle`` for the peer's ping, which comes at once."""

    def open_pinged(handle):
        async def handle_ping(connection, event):
            await handle()

        async def serve():
            peer = await network.accept()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await peer.accept()
                await peer.send_frame(PING, b"a")
                await peer.answer_close()

        monkeypatch.setattr(WebSocketConnection, "_handle_ping_event", handle_ping)
        nursery.start_soon(serve)
        return wsclient.open_websocket("localhost", 80, "/", use_ssl=False)

    return open_pinged


def raising(error):
    async def handle():
        raise error

    return handle


async def let_it_fail():
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
async def test_the_readers_exception_leaves_as_itself(open_pinged, error, autojump_clock):
    cause, context = LookupError(), TypeError()
    error.__cause__, error.__context__ = cause, context
    with pytest.raises(type(error)) as caught:
        async with open_pinged(raising(error)):
            await trio.sleep_forever()

    assert caught.value is error
    assert (cause, context) == (error.__cause__, error.__context__)


@pytest.mark.parametrize("whose", ["the reader's", "the user's"])
async def test_an_interrupt_next_to_another_exception_is_a_new_one_with_all_as_its_cause(
    open_pinged, whose, autojump_clock
):
    interrupt, other = KeyboardInterrupt(), ValueError()
    internal, user = (interrupt, other) if whose == "the reader's" else (other, interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        async with open_pinged(raising(internal)):
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            raise user

    assert caught.value is not interrupt
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)
    assert {internal, user} == set(caught.value.__cause__.exceptions)


@pytest.mark.parametrize("suppress_context", [False, True])
async def test_of_two_the_users_leaves_and_has_the_other_in_its_context(
    open_pinged, suppress_context, autojump_clock
):
    internal, user, context = ValueError(), NameError(), KeyError()
    with pytest.raises(NameError) as caught:
        async with open_pinged(raising(internal)):
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            user.__context__ = context
            user.__suppress_context__ = suppress_context
            raise user

    group = caught.value.__context__
    assert caught.value is user
    assert user.__suppress_context__ is False
    text = (
        "Both internal and user exceptions encountered."
        " This group contains the internal exception(s)"
    )
    if suppress_context:
        assert (text + ".", (internal,)) == (group.message, group.exceptions)
    else:
        text += " and the context for the user exception."
        assert (text, (internal, context)) == (group.message, group.exceptions)


async def test_of_two_cancellations_the_users_leaves_as_it_was(open_pinged, autojump_clock):
    with trio.move_on_after(2) as scope:
        with pytest.raises(trio.Cancelled) as caught:
            async with open_pinged(trio.sleep_forever):
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as error:
                    users = error
                    cause, context = error.__cause__, error.__context__
                    raise

        assert caught.value is users
        assert caught.value.__cause__ is cause
        assert caught.value.__context__ is context
        raise caught.value
    assert scope.cancelled_caught


async def test_next_to_a_cancellation_an_exception_leaves_alone(open_pinged, autojump_clock):
    error = ValueError()
    with pytest.raises(ValueError, match=r"^$") as caught, trio.move_on_after(2):
        async with open_pinged(trio.sleep_forever):
            try:
                await trio.sleep_forever()
            finally:
                raise error

    assert caught.value is error


async def test_a_group_of_the_users_leaves_unchanged(open_pinged, autojump_clock):
    group = ExceptionGroup("mine", [ValueError(), TypeError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pinged(let_it_fail):
            raise group

    # A copy: trio takes every group apart that passes a cancel scope.
    assert ("mine", group.exceptions) == (caught.value.message, caught.value.exceptions)


async def test_a_timeout_of_closing_has_the_limit_on_it_and_no_group(network, nursery, mock_clock):
    mock_clock.autojump_threshold = 0

    async def serve():
        await (await network.accept()).accept()

    nursery.start_soon(serve)
    with pytest.raises(wsclient.DisconnectionTimeout):
        async with wsclient.open_websocket(
            "localhost", 80, "/", use_ssl=False, disconnect_timeout=3
        ):
            pass

    assert 3 == trio.current_time()
