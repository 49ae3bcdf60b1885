"""One connection's life, by itself: opened, established, watched, closed."""

from __future__ import annotations

import itertools
import math

import pytest
import trio

from wsclient.codes import CloseReason
from wsclient.errors import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    EstablishError,
    HeartbeatTimeout,
    ProviderError,
)
from wsclient.events import (
    ConnectionAttempted,
    ConnectionFailed,
    ConnectionLeft,
    ConnectionLost,
    ConnectionOpened,
    ConnectionReady,
    LossKind,
)
from wsclient.options import ConnectionOptions, HeartbeatOptions, RetryPolicy
from wsclient.session._access import Access, Address
from wsclient.session._line import Settings, call_hook, open_line
from wsclient.testing import (
    DELAYED_HANDSHAKE,
    MUTE_CLOSE,
    NONE,
    REJECT_503,
    SILENCE,
    SILENT_HANDSHAKE,
    Fault,
    FaultServer,
    echo,
)

PLACE = {"channel": "feed", "endpoint": "ws://server.test", "attempt": 3}


@pytest.fixture
def open_a_line(nursery, recorder):
    """Opens a line to a server; the lines of one test share their epochs and their recorder."""
    epochs = itertools.count(1)

    async def open_a_line(server, *, on_connect=None, headers=None, connection=ConnectionOptions()):  # noqa: B008
        settings = Settings(
            name="feed",
            addresses=(Address(server.url, None),),
            ssl_context=None,
            headers=headers,
            credentials=None,
            on_connect=on_connect,
            startup_timeout=math.inf,
            connection=connection,
            heartbeat=HeartbeatOptions(),
            retry=RetryPolicy(),
        )
        return await open_line(
            nursery,
            settings,
            settings.addresses[0],
            Access(headers, None, connection),
            attempt=3,
            epochs=epochs,
            queue_size=10,
            observe=recorder,
        )

    return open_a_line


async def test_a_line_tells_its_life_step_by_step(autojump_clock, network, recorder, open_a_line):
    async with FaultServer([Fault.close(1001, after=7)], network=network) as server:
        line = await open_a_line(server)
        line.tell_opened()

        assert None is await line.establish()
        line.tell_ready(2.5, 3, resumed=True)
        lost = await line.watch()
        line.tell_lost(str(lost), 1001, LossKind.SILENT)
        await line.close()

    assert (ConnectionClosed, CloseReason(1001)) == (type(lost), lost.reason)
    assert [
        ConnectionAttempted(**PLACE),
        ConnectionOpened(**PLACE, epoch=1, duration=0.0, subprotocol=None),
        ConnectionReady(**PLACE, epoch=1, outage=2.5, outage_attempts=3, resumed=True),
        ConnectionLost(
            **PLACE,
            epoch=1,
            cause=str(lost),
            code=1001,
            duration=7.0,
            ready=True,
            kind=LossKind.SILENT,
        ),
    ] == recorder.events


async def test_how_long_it_took_to_be_ready_ends_with_the_hook_and_not_with_its_turn(
    autojump_clock, network, recorder, open_a_line
):
    async def subscribe(connection):
        await trio.sleep(2)

    async with FaultServer([DELAYED_HANDSHAKE(1)], network=network) as server:
        line = await open_a_line(server, on_connect=subscribe)
        assert None is await line.establish()
        # As the second of two connections does, until the first one is lost.
        await trio.sleep(3600)
        line.tell_ready(None, resumed=False)
        await line.close()

    [ready] = recorder.of(ConnectionReady)

    assert 3.0 == ready.duration


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        (
            REJECT_503,
            ConnectionRejected,
            {"duration": 0.0, "kind": LossKind.REJECTED, "status": 503},
        ),
        (SILENT_HANDSHAKE, ConnectionTimeout, {"duration": 10.0, "kind": LossKind.UNREACHABLE}),
    ],
)
async def test_an_attempt_that_fails_is_told_and_returned_and_numbers_nothing(
    autojump_clock, network, recorder, open_a_line, fault, kind, told
):
    async with FaultServer([fault, NONE], network=network) as server:
        failed = await open_a_line(server)

        assert kind is type(failed)
        # Frames hold the URL and the headers.
        assert None is failed.__traceback__
        line = await open_a_line(server)
        await line.close()

    assert 1 == line.epoch
    assert [
        ConnectionAttempted(**PLACE),
        ConnectionFailed(**PLACE, cause=str(failed), **told),
        ConnectionAttempted(**PLACE),
    ] == recorder.events


async def test_two_lines_live_at_once_and_either_can_end_alone(
    autojump_clock, network, open_a_line
):
    async with FaultServer(network=network, handler=echo) as server:
        first = await open_a_line(server)
        second = await open_a_line(server)
        ends = {}

        async def watch(line):
            ends[line.epoch] = str(await line.watch())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, first)
            nursery.start_soon(watch, second)
            # Longer than a heartbeat's interval and timeout: both are asked for signs of life.
            await trio.sleep(100)
            await first.close()
            await trio.sleep(100)

            assert [1] == list(ends)
            await second.connection.send_message("still here")

            assert "still here" == await second.connection.get_message()
            await second.close()

    assert [1, 2] == list(ends)
    assert [1000, 1000] == [visit.close.code for visit in server.connections]


async def test_a_line_that_falls_silent_is_given_up_without_a_farewell(
    autojump_clock, network, open_a_line
):
    async with FaultServer([SILENCE], network=network) as server:
        line = await open_a_line(server)
        lost = await line.watch()

        assert HeartbeatTimeout is type(lost)
        assert 38 <= trio.current_time() <= 42
        await line.close()

    assert None is server.connections[0].close


async def test_a_close_takes_a_second_at_most(autojump_clock, network, open_a_line):
    options = ConnectionOptions(disconnect_timeout=30)
    async with FaultServer([MUTE_CLOSE], network=network) as server:
        line = await open_a_line(server, connection=options)
        await line.close()

        assert 1 == trio.current_time()
        await server.wait_over(1)


async def test_a_hook_that_is_late_or_raises_is_told_apart(autojump_clock, network, open_a_line):
    mine = LookupError("mine")

    async def late(connection):
        await trio.sleep_forever()

    async def wrong(connection):
        raise mine

    async with FaultServer(network=network) as server:
        first = await open_a_line(server, on_connect=late)
        lost = await first.establish()

        assert (EstablishError, "the on_connect hook took longer than 15 s") == (
            type(lost),
            str(lost),
        )
        second = await open_a_line(server, on_connect=wrong)
        lost = await second.establish()

        assert (EstablishError, mine) == (type(lost), lost.__cause__)
        await first.close()
        await second.close()


async def test_a_connection_that_dies_under_its_hook_is_lost_as_itself(
    autojump_clock, network, open_a_line
):
    async def hook(connection):
        await trio.sleep_forever()

    async with FaultServer([Fault.close(1011, after=1)], network=network) as server:
        line = await open_a_line(server, on_connect=hook)
        lost = await line.establish()

        assert (ConnectionClosed, 1011) == (type(lost), lost.reason.code)
        assert 1 == trio.current_time()


async def test_s7_2_a_hook_that_fails_while_it_is_cancelled_has_failed(
    autojump_clock, network, open_a_line
):
    async def give_back():
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("mine")

    async def hook(connection):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            nursery.start_soon(trio.sleep_forever)

    async with FaultServer(network=network) as server:
        line = await open_a_line(server, on_connect=hook)
        with trio.move_on_after(1):
            lost = await line.establish()

        assert isinstance(lost, EstablishError)
        assert [LookupError] == [type(error) for error in lost.__cause__.exceptions]
        await line.close()


async def test_a_hook_that_is_no_async_function_is_a_type_error():
    with pytest.raises(TypeError, match="on_connect must be an async function"):
        await call_hook(lambda connection: None, None)


async def test_a_line_that_is_left_is_closed_with_1001_and_told_as_left(
    autojump_clock, network, recorder, open_a_line
):
    async with FaultServer(network=network) as server:
        line = await open_a_line(server)
        ends = []

        async def watch():
            ends.append(await line.watch())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.sleep(5)
            line.leave("because")

        assert ([None], "because", None) == (ends, line.left, line.connection.closed)
        line.tell_left()
        await line.close()

    assert 1001 == server.connections[0].close.code
    assert [ConnectionLeft(**PLACE, epoch=1, reason="because", duration=5.0)] == recorder.of(
        ConnectionLeft
    )


async def test_a_line_is_left_also_before_it_is_watched(autojump_clock, network, open_a_line):
    async with FaultServer(network=network) as server:
        line = await open_a_line(server)
        line.leave("because")

        assert None is await line.watch()
        await line.close()


async def test_what_a_function_raised_fails_the_attempt_and_keeps_its_frames(
    autojump_clock, network, recorder, open_a_line
):
    mine = LookupError("mine")

    async def headers():
        raise mine

    async with FaultServer(network=network) as server:
        failed = await open_a_line(server, headers=headers)

    assert (ProviderError, None, mine) == (type(failed), failed.__traceback__, failed.__cause__)
    assert "headers" == mine.__traceback__.tb_next.tb_frame.f_code.co_name
    assert [
        ConnectionAttempted(**PLACE),
        ConnectionFailed(**PLACE, cause=str(failed), duration=0.0, kind=LossKind.NOT_PROVIDED),
    ] == recorder.events


async def test_asking_and_connecting_have_one_deadline(autojump_clock, network, open_a_line):
    async def headers():
        await trio.sleep(7)
        return ()

    async def late():
        await trio.sleep_forever()

    async with FaultServer([SILENT_HANDSHAKE], network=network) as server:
        failed = await open_a_line(server, headers=headers)

        assert (ConnectionTimeout, 10) == (type(failed), trio.current_time())
        failed = await open_a_line(server, headers=late)

        assert (ConnectionTimeout, 20) == (type(failed), trio.current_time())
        assert "was not given within 10 s" in str(failed)
