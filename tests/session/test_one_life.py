"""S7.4, S3.7: what lives as long as one connection, and how a good one is left."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

import wsclient
from wsclient import ConnectionClosed, HeartbeatOptions, Outcome
from wsclient.events import ConnectionReady
from wsclient.session import _fences
from wsclient.testing import NEVER_READS, NONE, Fault, FaultServer, echo

from .test_channel import AT_ONCE

CUT = Fault.reset(after=1)


async def say_and_listen(connection):
    await connection.send("hello")
    await echo(connection)


@pytest.fixture
async def two_lives(autojump_clock, network):
    """A server that cuts its first connection after ten seconds."""
    fault = Fault.close(1012, after=10)
    async with FaultServer([fault, NONE], network=network, handler=say_and_listen) as server:
        yield server


async def test_s7_4_a_block_lives_exactly_as_long_as_one_connection(autojump_clock, two_lives):
    async with wsclient.open_channel(two_lives.url, retry=AT_ONCE, observers=()) as channel:
        with pytest.raises(ConnectionClosed) as caught:
            async with channel.connection() as connection:
                assert trio.current_time() < 1
                await connection.ping()
                await trio.sleep_forever()

        assert 1012 == caught.value.reason.code
        assert 9 < trio.current_time() < 12
        async with channel.connection() as connection:
            await connection.ping()

            assert 2 == channel.epoch


async def test_s7_4_a_block_whose_connection_is_left_is_told_why(autojump_clock, two_lives):
    async with wsclient.open_channel(two_lives.url, observers=()) as channel:
        with pytest.raises(ConnectionClosed) as caught:
            async with channel.connection():
                channel.reconnect("to see")
                await trio.sleep_forever()

        assert wsclient.CloseReason(1001, "to see") == caught.value.reason


async def test_s7_4_a_block_whose_channel_is_closed_is_told_so(autojump_clock, two_lives):
    async with wsclient.open_channel(two_lives.url, observers=()) as channel:
        async with trio.open_nursery() as nursery:
            with pytest.raises(ConnectionClosed) as caught:
                async with channel.connection():
                    nursery.start_soon(channel.aclose)
                    await trio.sleep_forever()

        assert 1000 == caught.value.reason.code


async def test_s7_4_a_block_that_ends_lets_the_connection_live(autojump_clock, two_lives):
    async with wsclient.open_channel(two_lives.url, observers=()) as channel:
        async with channel.connection():
            await trio.sleep(1)
        await trio.sleep(1)

        assert 1 == channel.epoch
        assert not channel._supervisor.ready_line._tied


async def test_s7_1_an_exception_leaves_the_block_as_itself(autojump_clock, two_lives):
    async with wsclient.open_channel(two_lives.url, observers=()) as channel:
        error = LookupError("mine")
        with pytest.raises(LookupError) as caught:
            async with channel.connection():
                raise error

        assert error is caught.value


async def test_s7_4_a_block_waits_for_no_channel_that_is_closed(autojump_clock, two_lives):
    async with wsclient.open_channel(two_lives.url, observers=()) as channel:
        await channel.aclose()
        with pytest.raises(trio.ClosedResourceError):
            async with channel.connection():
                pytest.fail("there is no connection")


async def test_s7_4_a_task_begins_anew_on_each_connection(autojump_clock, two_lives):
    lives = []

    async def task(connection):
        began = trio.current_time()
        try:
            await trio.sleep(15)
        finally:
            lives.append((connection, trio.current_time() - began))

    async with (
        wsclient.open_channel(two_lives.url, retry=AT_ONCE, observers=()) as channel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(channel.while_connected, task)
        await trio.sleep(40)
        # The second has returned, and its connection lives on: it is not run again there.
        assert 2 == len(lives)
        await channel.aclose()

    (first, cut_after), (second, done_after) = lives
    assert first is not second
    assert 9 < cut_after < 11
    assert 15 == done_after


async def test_s7_1_what_such_a_task_raises_leaves_through_its_nursery(autojump_clock, two_lives):
    async def task(connection):
        raise LookupError("mine")

    async with wsclient.open_channel(two_lives.url, observers=()) as channel:
        with pytest.RaisesGroup(LookupError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.while_connected, task)

        assert wsclient.ChannelState.READY is channel.state


@pytest.mark.parametrize("how", ["alone", "in a nursery"])
@pytest.mark.parametrize("end", ["closed", "cut"])
async def test_s7_4_a_task_that_notices_the_end_of_its_connection_has_raised_nothing(
    autojump_clock, network, how, end
):
    lives = []

    async def ask(connection):
        while True:
            await connection.ping()

    async def task(connection):
        lives.append(connection)
        if how == "alone":
            await ask(connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, connection)
            nursery.start_soon(ask, connection)

    async def hang_up(connection):
        for _ in range(20):  # Pings are under way.
            await trio.lowlevel.checkpoint()
        if end == "closed":
            await connection.close(1012)
        connection.reset()

    async with (
        FaultServer(network=network, handler=hang_up) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=()) as channel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(channel.while_connected, task)
        await server.wait_connections(3)
        await channel.aclose()

    # Once on each: also on one that is gone, and that the channel has not left yet.
    assert len(set(lives)) == len(lives)
    assert 2 <= len(lives)


async def test_s7_4_what_a_task_raises_beside_the_end_of_its_connection_is_not_hidden(
    autojump_clock, two_lives
):
    async def ask(connection):
        await trio.sleep(5)
        while True:
            await connection.ping()
            await trio.sleep(0.01)

    async def fail(connection):
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("mine")

    async def task(connection):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, connection)
            nursery.start_soon(fail, connection)

    async with wsclient.open_channel(two_lives.url, observers=()) as channel:
        with pytest.RaisesGroup(LookupError):
            await channel.while_connected(task)


async def test_s7_4_a_task_ends_with_the_failure_of_its_channel(autojump_clock, network):
    async def task(connection):
        await trio.sleep_forever()

    fault = Fault.close(3003, after=1)
    async with FaultServer([fault], network=network, handler=say_and_listen) as server:
        with pytest.raises(wsclient.ChannelFailed):
            async with wsclient.open_channel(server.url, observers=()) as channel:
                await channel.while_connected(task)


async def test_s3_7_what_was_written_is_proven_before_a_good_connection_is_left(
    autojump_clock, network, recorder
):
    async with (
        FaultServer(network=network, handler=say_and_listen) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        receipts = [await channel.send(str(number)) for number in range(10)]
        await trio.testing.wait_all_tasks_blocked()
        channel.reconnect("to see")
        await recorder.wait_for(ConnectionReady, count=2)
        await (await channel.send("late")).received()

        assert [Outcome.RECEIVED] * 10 == [await receipt.wait() for receipt in receipts]

    assert [[str(number) for number in range(10)], ["late"]] == [
        each.messages for each in server.connections
    ]


async def test_s3_7_a_peer_that_answers_nothing_delays_the_leaving_by_a_second(
    autojump_clock, network, recorder
):
    silent = NEVER_READS
    async with (
        FaultServer([silent, NONE], network=network, handler=say_and_listen) as server,
        wsclient.open_channel(
            server.url, observers=[recorder], heartbeat=HeartbeatOptions(interval=math.inf)
        ) as channel,
    ):
        await channel.receive()
        receipt = await channel.send("lost")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        channel.reconnect("to see")

        assert Outcome.LOST_UNKNOWN is await receipt.wait()
        assert 1 == pytest.approx(trio.current_time() - began, abs=0.01)


async def test_s7_5_a_thread_sends_by_way_of_trio_and_not_otherwise(autojump_clock, two_lives):
    def work(channel):
        with pytest.raises(RuntimeError, match="must be called from async context"):
            channel.send_nowait("by itself")
        return trio.from_thread.run(channel.send, "by way of trio")

    async with wsclient.open_channel(two_lives.url, observers=()) as channel:
        await channel.wait_ready()
        receipt = await trio.to_thread.run_sync(work, channel)
        await receipt.received()

        assert 1 == channel.statistics().messages_accepted


async def test_s7_1_what_interrupts_the_asking_for_proofs_leaves_as_itself(
    autojump_clock, two_lives, monkeypatch
):
    async def run(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(_fences.Fences, "run", run)
    with pytest.raises(KeyboardInterrupt):
        async with wsclient.open_channel(two_lives.url, observers=()):
            await trio.sleep_forever()
