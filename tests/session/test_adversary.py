"""What somebody who wanted to break a channel has found, each finding once."""

from __future__ import annotations

import functools
import itertools
import math
import time
from contextlib import suppress

import pytest
import trio
import trio.testing

import wsclient
from wsclient.connection import connect_websocket_url
from wsclient.events import ChannelClosed, ConnectionLost, HandlerFailed
from wsclient.options import ConnectionOptions, Limits
from wsclient.testing import MUTE_CLOSE, NEVER_READS, NONE, Fault, FaultServer


@pytest.mark.parametrize(
    "asked", ["Mon, 01 Jan 2024 00:00:00 +9999999999999999", "9" * 400, "Mon, 99999999999999999999"]
)
async def test_s4_3_no_retry_after_ends_a_channel(autojump_clock, network, asked):
    story = [Fault.reset(after=1), Fault.reject(503, retry_after=asked), NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        await server.wait_connections(3)


async def test_s5_1_a_peer_that_reads_slowly_lives(autojump_clock, network, recorder):
    async with (
        FaultServer([Fault.slow_reads(20_000)], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        receipts = [await channel.send(bytes(900_000)) for _ in range(4)]
        for receipt in receipts:
            assert wsclient.Outcome.RECEIVED is await receipt.wait()
        assert trio.current_time() > 100

        assert [] == recorder.of(ConnectionLost)


async def test_s5_1_a_peer_that_stops_reading_is_left(autojump_clock, network, recorder):
    async with (
        FaultServer([NEVER_READS, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        receipt = await channel.send(bytes(900_000))
        await recorder.wait_for(ConnectionLost)

        assert trio.current_time() <= 22 + 20
        assert wsclient.Outcome.LOST_UNKNOWN is receipt.outcome


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_interrupted_observer_does_not_keep_the_block(autojump_clock, network, error):
    def observe(event):
        if isinstance(event, ChannelClosed):
            raise error

    async with FaultServer(network=network) as server:
        with pytest.raises(error):
            async with wsclient.open_channel(server.url, observers=[observe]) as channel:
                await channel.wait_ready()
    assert 0 == trio.current_time()


async def test_a_channel_whose_opening_was_cancelled_does_not_run(autojump_clock, network):
    async with FaultServer(network=network) as server, trio.open_nursery() as nursery:
        with trio.move_on_after(0) as scope:
            await wsclient.connect_channel(nursery, server.url, observers=())
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()

        assert set() == nursery.child_tasks
        assert [] == server.connections


async def test_a_handle_that_is_closed_during_the_first_step_waits_for_nothing(
    autojump_clock, network
):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        for _ in range(10):
            handle = channel.receive_channel.clone()
            ended = []

            async def receive(handle=handle, ended=ended):
                try:
                    await handle.receive()
                except trio.ClosedResourceError:
                    ended.append(True)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.lowlevel.checkpoint()
                handle.close()
            assert [True] == ended


async def test_s3_3_a_nursery_that_is_cancelled_while_others_send_closes_its_channel():
    # Real sockets: only these let a sender write what a connection's last word waits to write.
    async def send(channel):
        with suppress(trio.ClosedResourceError):
            while True:
                with suppress(trio.WouldBlock):
                    channel.send_nowait("x")
                await trio.lowlevel.checkpoint()

    async with FaultServer() as server:
        for _ in range(10):
            async with trio.open_nursery() as others, trio.open_nursery() as nursery:
                channel = await wsclient.connect_channel(nursery, server.url, observers=())
                await channel.wait_ready()
                others.start_soon(send, channel)
                await trio.sleep(0.01)
                began = time.monotonic()
                nursery.cancel_scope.cancel()

            assert wsclient.ChannelState.CLOSED is channel.state
            assert time.monotonic() - began < 2


async def test_s3_3_leaving_an_echo_server_well_loses_nothing(autojump_clock, network, make_peer):
    # It reads no further than it can write.
    async def echo(listener):
        peer = make_peer(await listener.accept())
        await peer.accept()
        with suppress(trio.BrokenResourceError):
            while (frame := await peer.receive_frame()) is not None:
                await peer.send_frame(*frame)

    listener = network.listen("echo.test", 80)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, listener)
        async with wsclient.open_channel(
            "ws://echo.test",
            observers=(),
            limits=Limits(inbox_messages=10, outbox_size=2**20),
        ) as channel:
            with trio.move_on_after(5) as sending:
                for number in itertools.count():
                    # What nobody waits for any more would expire.
                    await channel.send(f"{number} {'x' * 10_000}", ttl=math.inf)
        statistics = channel.statistics()
        nursery.cancel_scope.cancel()

    assert sending.cancelled_caught
    assert statistics.messages_accepted == statistics.outcomes[wsclient.Outcome.RECEIVED] > 10


async def test_s3_3_a_long_disconnect_timeout_does_not_hold_a_body_that_raises(
    autojump_clock, network
):
    async with FaultServer([MUTE_CLOSE], network=network) as server:
        with pytest.raises(LookupError):
            async with wsclient.open_channel(
                server.url, connection=ConnectionOptions(disconnect_timeout=30), observers=()
            ) as channel:
                await channel.wait_ready()
                raise LookupError
        assert trio.current_time() <= 2


async def test_s7_1_a_connections_block_gives_back_the_bodys_exception(autojump_clock, network):
    mine = LookupError()
    async with FaultServer([MUTE_CLOSE], network=network) as server:
        async with trio.open_nursery() as nursery:
            connection = await connect_websocket_url(nursery, server.url)
            with pytest.raises(LookupError) as caught:
                async with connection:
                    raise mine

        assert mine is caught.value
        assert 1 == trio.current_time()


async def test_cancelled_sends_hold_no_memory(autojump_clock, network):
    async with (
        FaultServer([NEVER_READS], network=network) as server,
        trio.open_nursery() as nursery,
    ):
        connection = await connect_websocket_url(nursery, server.url)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):
            with trio.move_on_after(1):
                await connection.send_message(bytes(100_000))

        # One is being written.
        assert 9 == len(connection._writer._queue)
        assert not any(posted._payload for posted in connection._writer._queue)
        connection.abort()


async def test_refusals_do_not_pile_up_frames(autojump_clock, network):
    async with FaultServer(network=network) as server:
        async with wsclient.open_channel(server.url, observers=()) as channel:
            await channel.wait_ready()
        depths = set()
        for _ in range(10):
            with pytest.raises(trio.ClosedResourceError) as caught:
                channel.send_nowait("late")
            depths.add(len(caught.traceback))

    assert 1 == len(depths)


@pytest.mark.parametrize("delay", [5, (-2, -1), (2, 1), (0, float("inf")), ("1", "2")])
def test_a_delay_is_two_numbers_of_seconds(delay):
    with pytest.raises(ValueError, match="delay must be two numbers of seconds"):
        wsclient.Retry("mine", delay=delay)


async def test_a_partials_arguments_are_not_told(autojump_clock, network, recorder):
    def handle(token, message):
        raise LookupError

    bot = wsclient.Bot("ws://server.test", observers=[recorder])
    bot.on("x")(functools.partial(handle, "SECRET"))

    async def say(connection):
        await connection.send('{"type": "x"}')
        await trio.sleep_forever()

    async with FaultServer(network=network, handler=say), trio.open_nursery() as nursery:
        await nursery.start(bot.serve)
        failed = await recorder.wait_for(HandlerFailed)
        bot.stop()

    assert "partial" == failed.handler
    assert "SECRET" not in str(recorder.events)


async def test_s3_6_a_hook_that_is_not_asynchronous_is_told_so(autojump_clock, network):
    async with FaultServer(network=network) as server:
        with pytest.raises(wsclient.ChannelFailed, match="on_connect must be an async function"):
            async with wsclient.open_channel(
                server.url, on_connect=lambda connection: None, observers=()
            ):
                await trio.sleep_forever()


async def test_s3_6_a_hook_may_ping_a_server_that_has_much_to_say(autojump_clock, network):
    async def talk(connection):
        for number in range(100):
            await connection.send(str(number))
        await trio.sleep_forever()

    async def ping(connection):
        await trio.testing.wait_all_tasks_blocked()
        await connection.ping()

    async with (
        FaultServer(network=network, handler=talk) as server,
        wsclient.open_channel(server.url, on_connect=ping, observers=()) as channel,
    ):
        assert list(map(str, range(100))) == [await channel.receive() for _ in range(100)]


async def test_a_codec_may_raise_anything(autojump_clock, network, recorder):
    class Codec(wsclient.JsonCodec):
        def decode(self, message):
            raise KeyError("not mine")

    bot = wsclient.Bot("ws://server.test", codec=Codec(), observers=[recorder])

    async def say(connection):
        await connection.send("x")
        await trio.sleep_forever()

    async with FaultServer(network=network, handler=say), trio.open_nursery() as nursery:
        channel = await nursery.start(bot.serve)
        await recorder.wait_for(wsclient.MessageUndecoded)

        assert wsclient.ChannelState.READY is channel.state
        bot.stop()


def test_an_observer_object_must_not_be_asynchronous():
    class Observer:
        async def __call__(self, event):
            pass

    with pytest.raises(TypeError, match="must not be asynchronous"):
        wsclient.open_channel("ws://server.test", observers=[Observer()])


@pytest.mark.parametrize(
    ("url", "error"),
    [("ws://h\\@evil.test/", ValueError), (object(), TypeError), (3, TypeError), (b"x", TypeError)],
)
def test_urls_that_lead_elsewhere_are_refused(url, error):
    with pytest.raises(error, match="URL must"):
        wsclient.open_channel(url, observers=())


@pytest.mark.parametrize("hook", [None, trio.sleep])
async def test_s2_3_reconnects_do_not_fill_an_inbox_that_nobody_reads(
    autojump_clock, network, hook
):
    async def talk(connection):
        for number in range(20):
            await connection.send(str(number))
        await connection.close(1001)

    async def linger(_):
        await trio.sleep(1)

    async with (
        FaultServer(network=network, handler=talk) as server,
        wsclient.open_channel(
            server.url,
            on_connect=hook and linger,
            limits=Limits(inbox_messages=3),
            heartbeat=wsclient.HeartbeatOptions(interval=5, timeout=5),
            observers=(),
        ) as channel,
    ):
        await trio.sleep(3600)

        assert channel.statistics().inbox_messages <= 2 * (3 + 20 + 1)
