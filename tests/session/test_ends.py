"""The two ends keep the contract of trio's memory channels.

Each check of the first part runs twice: on ``trio.open_memory_channel``, which says what the
contract is, and on a channel over an in-memory network.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trio
import trio.abc
import trio.testing

import wsclient
from wsclient.events import ChannelState
from wsclient.options import Limits
from wsclient.testing import NONE, REFUSE, REJECT_404, Fault, FaultServer

BOUND = 2


@asynccontextmanager
async def memory_receiving():
    send, receive = trio.open_memory_channel[str](BOUND)

    async def feed(*values):
        for value in values:
            await send.send(value)

    yield SimpleNamespace(end=receive, feed=feed, finish=send.aclose)


@asynccontextmanager
async def durable_receiving(network):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()

        async def feed(*values):
            for value in values:
                await server.broadcast(value)
            await trio.testing.wait_all_tasks_blocked()

        yield SimpleNamespace(end=channel.receive_channel, feed=feed, finish=channel.aclose)


@asynccontextmanager
async def memory_sending():
    send, receive = trio.open_memory_channel[str](BOUND)
    heard = []

    async def hear():
        async for value in receive:
            heard.append(value)  # noqa: PERF401  # One by one, as they come.

    async with trio.open_nursery() as nursery:

        async def drain():
            nursery.start_soon(hear)
            await trio.testing.wait_all_tasks_blocked()

        yield SimpleNamespace(end=send, drain=drain, heard=heard)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def durable_sending(network):
    # There is no connection until the test says so: what is sent stays in the outbox.
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(
            server.url, limits=Limits(outbox_messages=BOUND), observers=()
        ) as channel,
    ):
        await server.stop()

        async def drain():
            await server.start()
            await channel.wait_ready()
            await trio.testing.wait_all_tasks_blocked()

        yield SimpleNamespace(end=channel.send_channel, drain=drain, heard=server.messages)
        await server.start()


@pytest.fixture(params=["memory", "durable"])
def receiving(request, network):
    return memory_receiving if request.param == "memory" else lambda: durable_receiving(network)


@pytest.fixture(params=["memory", "durable"])
def sending(request, network):
    return memory_sending if request.param == "memory" else lambda: durable_sending(network)


async def wait_for_error(kind, function, *args):
    with pytest.raises(kind):
        await function(*args)


# --- receiving ----------------------------------------------------------------------------------


async def test_what_was_sent_is_received_in_order(autojump_clock, receiving):
    async with receiving() as the:
        await the.feed("a", "b")

        assert "a" == await the.end.receive()
        assert "b" == the.end.receive_nowait()


async def test_receive_nowait_would_block_where_nothing_is(autojump_clock, receiving):
    async with receiving() as the:
        with pytest.raises(trio.WouldBlock):
            the.end.receive_nowait()
        await the.feed("a")

        assert "a" == the.end.receive_nowait()
        with pytest.raises(trio.WouldBlock):
            the.end.receive_nowait()


async def test_async_for_ends_with_the_channel(autojump_clock, receiving):
    async with receiving() as the:
        await the.feed("a", "b")
        received = []
        async for value in the.end:
            received.append(value)
            if len(received) == 2:
                await the.finish()
    assert ["a", "b"] == received


async def test_after_the_end_of_the_channel_receiving_says_so(autojump_clock, receiving):
    async with receiving() as the:
        await the.finish()
        await wait_for_error(trio.EndOfChannel, the.end.receive)
        with pytest.raises(trio.EndOfChannel):
            the.end.receive_nowait()
        # The handle is open all the same.
        await wait_for_error(trio.EndOfChannel, the.end.clone().receive)


async def test_whoever_waits_learns_of_the_end_of_the_channel(autojump_clock, receiving):
    async with receiving() as the, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait_for_error, trio.EndOfChannel, the.end.receive)
        await trio.testing.wait_all_tasks_blocked()
        await the.finish()


async def test_a_closed_receiving_end_is_closed_for_everything(autojump_clock, receiving):
    async with receiving() as the:
        await the.feed("a")
        the.end.close()
        await wait_for_error(trio.ClosedResourceError, the.end.receive)
        with pytest.raises(trio.ClosedResourceError):
            the.end.receive_nowait()
        with pytest.raises(trio.ClosedResourceError):
            the.end.clone()
        with pytest.raises(trio.ClosedResourceError):
            async for _ in the.end:
                pass
        the.end.close()
        await the.end.aclose()


async def test_closing_a_receiving_end_wakes_whoever_waits_on_it(autojump_clock, receiving):
    async with receiving() as the, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait_for_error, trio.ClosedResourceError, the.end.receive)
        await trio.testing.wait_all_tasks_blocked()
        the.end.close()


async def test_closing_one_clone_leaves_the_others_open(autojump_clock, receiving):
    async with receiving() as the, trio.open_nursery() as nursery:
        clone = the.end.clone()
        received = []

        @nursery.start_soon
        async def wait():
            received.append(await clone.receive())

        nursery.start_soon(wait_for_error, trio.ClosedResourceError, the.end.receive)
        await trio.testing.wait_all_tasks_blocked()
        the.end.close()
        await trio.testing.wait_all_tasks_blocked()
        await the.feed("a")

    assert ["a"] == received


async def test_clones_share_the_messages(autojump_clock, receiving):
    async with receiving() as the:
        clone = the.end.clone()
        await the.feed("a", "b")

        assert ["a", "b"] == [await clone.receive(), await the.end.receive()]


async def test_both_kinds_of_with_close_a_receiving_end(autojump_clock, receiving):
    async with receiving() as the:
        with the.end.clone() as first:
            pass
        async with the.end.clone() as second:
            pass
        for closed in (first, second):
            with pytest.raises(trio.ClosedResourceError):
                closed.receive_nowait()


async def test_a_cancelled_receive_loses_nothing(autojump_clock, receiving):
    async with receiving() as the:
        with trio.move_on_after(1):
            await the.end.receive()
        await the.feed("a")
        with trio.CancelScope() as scope:
            scope.cancel()
            await the.end.receive()

        assert scope.cancelled_caught
        assert "a" == await the.end.receive()


async def test_receiving_is_a_checkpoint(autojump_clock, receiving):
    async with receiving() as the:
        await the.feed("a")
        with trio.testing.assert_checkpoints():
            await the.end.receive()
        with trio.testing.assert_checkpoints():
            await the.end.aclose()


async def test_statistics_count_handles_messages_and_waiters(autojump_clock, receiving):
    async with receiving() as the:
        statistics = the.end.statistics()

        assert trio.MemoryChannelStatistics is type(statistics)
        assert (0, 1, 0) == (
            statistics.current_buffer_used,
            statistics.open_receive_channels,
            statistics.tasks_waiting_receive,
        )
        clone = the.end.clone()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clone.receive)
            nursery.start_soon(the.end.receive)
            await trio.testing.wait_all_tasks_blocked()
            statistics = the.end.statistics()

            assert (2, 2) == (statistics.open_receive_channels, statistics.tasks_waiting_receive)
            await the.feed("a", "b")
        await the.feed("c")
        clone.close()
        clone.close()
        statistics = clone.statistics()

        assert (1, 1, 0) == (
            statistics.current_buffer_used,
            statistics.open_receive_channels,
            statistics.tasks_waiting_receive,
        )
        assert statistics.peak_buffer_used >= 1


# --- sending ------------------------------------------------------------------------------------


async def test_send_nowait_would_block_where_no_room_is(autojump_clock, sending):
    async with sending() as the:
        the.end.send_nowait("a")
        await the.end.send("b")
        with pytest.raises(trio.WouldBlock):
            the.end.send_nowait("c")
        await the.drain()

        assert ["a", "b"] == the.heard


async def test_send_waits_for_room_and_senders_wait_in_turn(autojump_clock, sending):
    async with sending() as the, trio.open_nursery() as nursery:
        for value in "abcdef":
            nursery.start_soon(the.end.send, value)
            await trio.testing.wait_all_tasks_blocked()

        assert 4 == the.end.statistics().tasks_waiting_send
        await the.drain()

        assert list("abcdef") == the.heard
        assert 0 == the.end.statistics().tasks_waiting_send


async def test_a_closed_sending_end_is_closed_for_everything(autojump_clock, sending):
    async with sending() as the:
        the.end.close()
        await wait_for_error(trio.ClosedResourceError, the.end.send, "a")
        with pytest.raises(trio.ClosedResourceError):
            the.end.send_nowait("a")
        with pytest.raises(trio.ClosedResourceError):
            the.end.clone()
        the.end.close()
        await the.end.aclose()
        await the.drain()

        assert [] == the.heard


async def test_closing_a_sending_end_wakes_whoever_waits_on_it(autojump_clock, sending):
    async with sending() as the:
        the.end.send_nowait("a")
        the.end.send_nowait("b")
        clone = the.end.clone()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_error, trio.ClosedResourceError, clone.send, "c")
            nursery.start_soon(wait_for_error, trio.ClosedResourceError, clone.send, "d")
            await trio.testing.wait_all_tasks_blocked()
            clone.close()
        await the.drain()

        assert ["a", "b"] == the.heard


async def test_a_cancelled_send_sends_nothing(autojump_clock, sending):
    async with sending() as the:
        with trio.CancelScope() as scope:
            scope.cancel()
            await the.end.send("cancelled")

        assert scope.cancelled_caught
        the.end.send_nowait("a")
        the.end.send_nowait("b")
        with trio.move_on_after(0.1) as scope:
            await the.end.send("cancelled, too")

        assert scope.cancelled_caught
        await the.drain()

        assert ["a", "b"] == the.heard


async def test_both_kinds_of_with_close_a_sending_end(autojump_clock, sending):
    async with sending() as the:
        with the.end.clone() as first:
            pass
        async with the.end.clone() as second:
            pass
        for closed in (first, second):
            with pytest.raises(trio.ClosedResourceError):
                closed.send_nowait("a")


async def test_sending_is_a_checkpoint(autojump_clock, sending):
    async with sending() as the:
        with trio.testing.assert_checkpoints():
            await the.end.send("a")
        with trio.testing.assert_checkpoints():
            await the.end.clone().aclose()


async def test_statistics_count_open_senders(autojump_clock, sending):
    async with sending() as the:
        clone = the.end.clone()

        assert 2 == clone.statistics().open_send_channels
        clone.close()

        assert 1 == clone.statistics().open_send_channels


# --- what only the durable ends do --------------------------------------------------------------


async def test_the_ends_are_trios(autojump_clock, network):
    async with wsclient.open_channel("ws://nobody.test", observers=()) as channel:
        assert isinstance(channel.receive_channel, trio.abc.ReceiveChannel)
        assert isinstance(channel.send_channel, trio.abc.SendChannel)
        assert channel.receive_channel is channel.receive_channel
        assert isinstance(channel.receive_channel.clone, Callable)
        statistics = channel.receive_channel.statistics()

        assert (1024, 1, 1) == (
            statistics.max_buffer_size,
            statistics.open_send_channels,
            statistics.open_receive_channels,
        )
        assert statistics == channel.send_channel.statistics()


async def test_closing_the_ends_never_ends_the_session(autojump_clock, network):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.send_channel.aclose()
        await channel.receive_channel.aclose()
        await channel.send("still there")
        await server.wait_messages(1)
        await server.broadcast("here, too")

        assert "here, too" == await channel.receive()
        assert ChannelState.READY is channel.state


async def test_the_receiving_end_gives_messages_only(autojump_clock, network):
    async def say_who(connection):
        await connection.send(str(connection.number))
        await trio.sleep_forever()

    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network, handler=say_who) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        assert ["1", "2"] == [await channel.receive_channel.receive() for _ in range(2)]
        assert 1 == channel.statistics().gaps


async def test_the_ends_of_a_failed_channel_raise_its_failure(autojump_clock, network):
    async with FaultServer([REFUSE, REJECT_404], network=network) as server:
        with pytest.raises(wsclient.ChannelFailed) as caught:
            async with wsclient.open_channel(server.url, observers=()) as channel:
                with trio.CancelScope(shield=True):
                    with pytest.raises(wsclient.ChannelFailed) as receiving:
                        await channel.receive_channel.receive()
                    with pytest.raises(wsclient.ChannelFailed) as sending:
                        await channel.send_channel.send("late")

    assert caught.value is receiving.value is sending.value


async def test_the_sending_end_of_a_closed_channel_is_closed(autojump_clock, network):
    async with wsclient.open_channel("ws://nobody.test", observers=()) as channel:
        await channel.aclose()
        await wait_for_error(trio.ClosedResourceError, channel.send_channel.send, "late")
        with pytest.raises(trio.ClosedResourceError):
            channel.send_channel.send_nowait("late")


@pytest.mark.parametrize("value", [None, 1, ["x"]])
async def test_what_cannot_be_sent_is_refused(autojump_clock, network, value):
    async with wsclient.open_channel("ws://nobody.test", observers=()) as channel:
        await wait_for_error(TypeError, channel.send_channel.send, value)
        with pytest.raises(TypeError):
            channel.send_channel.send_nowait(value)


def test_cancelled_or_closed_at_any_step_a_receiving_end_loses_nothing(cancel_at_every_step):
    async def serve(connection):
        for number in range(4):
            await connection.send(str(number))
            await trio.sleep(0.1)
        await trio.sleep_forever()

    async def scenario(cancellation):
        received = []
        with wsclient.testing.memory_network() as network:
            async with (
                FaultServer(network=network, handler=serve) as server,
                wsclient.open_channel(server.url, observers=()) as channel,
                trio.open_nursery() as nursery,
            ):
                clone = channel.receive_channel.clone()

                @nursery.start_soon
                async def close():
                    with cancellation.scope:
                        await trio.sleep(0.25)
                    clone.close()

                try:
                    while len(received) < 4:
                        received.append(await clone.receive())
                except trio.ClosedResourceError:
                    pass
                while len(received) < 4:
                    received.append(await channel.receive())

        assert ["0", "1", "2", "3"] == received

    assert cancel_at_every_step(scenario) > 10
