"""Liveness: exactly on the virtual clock, and fair to peers that live."""

from __future__ import annotations

import itertools
import math

import pytest
import trio
import trio.lowlevel

import wsclient
from wsclient.events import (
    ConnectionLost,
    ConnectionReady,
    LocalStallDetected,
    PeerStoppedReading,
)
from wsclient.options import ConnectionOptions, HeartbeatOptions, Limits
from wsclient.session._heartbeat import Heartbeat, Judge
from wsclient.testing import (
    HALF_FRAME_THEN_SILENCE,
    NEVER_READS,
    NONE,
    SILENCE,
    Fault,
    FaultServer,
)

EXACT = HeartbeatOptions(interval=20, timeout=20, jitter=0)


async def lost_at(network, recorder, faults, *, handler=None, heartbeat=EXACT, **options):
    """When the first connection was lost, in seconds after it was ready; and how."""
    async with (
        FaultServer(faults, network=network, handler=handler) as server,
        wsclient.open_channel(
            server.url, heartbeat=heartbeat, observers=[recorder], **options
        ) as channel,
    ):
        await channel.wait_ready()
        ready_at = trio.current_time()
        lost = await recorder.wait_for(ConnectionLost)
        return trio.current_time() - ready_at, lost


# --- silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "patience", "expected"),
    [(20, 20, 40), (20, 5, 25), (5, 20, 25), (0.5, 0.25, 0.75), (7, 7, 14)],
)
async def test_s5_1_a_silent_peer_is_left_exactly_when_the_interval_and_the_timeout_are_over(
    autojump_clock, network, recorder, interval, patience, expected
):
    heartbeat = HeartbeatOptions(interval=interval, timeout=patience, jitter=0)
    after, lost = await lost_at(network, recorder, [SILENCE, NONE], heartbeat=heartbeat)

    assert expected == after
    assert f"nothing came from the peer for {patience:g} s after a ping" == lost.cause
    assert None is lost.code


@pytest.mark.parametrize("fault", [SILENCE, HALF_FRAME_THEN_SILENCE], ids=repr)
@pytest.mark.parametrize(
    ("healthy_for", "expected"),
    [(0, 40), (1, 40), (19.9, 40), (20.1, 60), (39.9, 60), (40.1, 80), (1000.1, 1040)],
)
async def test_s5_1_silence_is_noticed_at_the_first_ping_after_it_began(
    autojump_clock, network, recorder, fault, healthy_for, expected
):
    after, _ = await lost_at(network, recorder, [fault.later(after=healthy_for), NONE])

    assert expected == after


async def test_s5_1_a_peer_that_reads_nothing_and_says_nothing_is_left(
    autojump_clock, network, recorder
):
    after, _ = await lost_at(network, recorder, [NEVER_READS, NONE])

    assert 40 == after


async def test_s5_1_a_blocked_writer_does_not_hide_silence(autojump_clock, network, recorder):
    async with (
        FaultServer([NEVER_READS, NONE], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        for _ in range(40):  # 2.5 MiB: far more than the buffers on the way.
            await channel.send(bytes(64 * 1024))
        await recorder.wait_for(ConnectionLost)

        assert 40 == trio.current_time()


async def test_a_dead_path_is_not_worth_a_close_frame(autojump_clock, network, recorder):
    async with FaultServer([SILENCE, NONE], network=network) as server:
        async with wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]):
            await recorder.wait_for(ConnectionLost)
            first = await server.wait_over(1)

        assert 40 == first.ended_at
        assert None is first.close


# --- signs of life ------------------------------------------------------------------------------


async def test_a_peer_that_answers_pings_is_kept_for_ever(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]),
    ):
        await trio.sleep(3600.5)

        assert [20.0 * count for count in range(1, 181)] == [
            ping.at for ping in server.connections[0].pings
        ]
    assert [] == recorder.of(ConnectionLost)


@pytest.mark.parametrize("interval", [5, 20])
async def test_s5_1_any_byte_is_life(autojump_clock, network, recorder, interval):
    heartbeat = HeartbeatOptions(interval=interval, timeout=20, jitter=0)

    async def talk(connection):
        while True:
            await trio.sleep(15)
            await connection.send("tick")

    # It never reads our pings: what it says is all there is.
    async with (
        FaultServer([NEVER_READS], network=network, handler=talk) as server,
        wsclient.open_channel(server.url, heartbeat=heartbeat, observers=[recorder]) as channel,
    ):
        for _ in range(100):
            await channel.receive()

        assert 1500 == trio.current_time()
        assert [] == server.connections[0].pings
    assert [] == recorder.of(ConnectionLost)


async def test_s5_1_a_message_that_takes_minutes_to_come_is_life_all_the_while(
    autojump_clock, network, recorder
):
    size = 100_000
    header = b"\x82\x7f" + size.to_bytes(8, "big")

    async def trickle(connection):
        await connection.send_raw(header)
        for _ in range(100):
            await trio.sleep(10)
            await connection.send_raw(bytes(size // 100))

    async with (
        FaultServer([NEVER_READS], network=network, handler=trickle) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        assert bytes(size) == await channel.receive()
        assert 1000 == trio.current_time()
    assert [] == recorder.of(ConnectionLost)


async def test_life_that_ends_is_noticed_at_the_ping_after_the_last_byte(
    autojump_clock, network, recorder
):
    async def talk(connection):
        for _ in range(10):
            await trio.sleep(15)
            await connection.send("tick")

    # The last byte comes at 150, after the ping of 140; that of 160 has no answer until 180.
    after, _ = await lost_at(network, recorder, [NEVER_READS, NONE], handler=talk)

    assert 180 == after


async def test_a_late_answer_within_the_timeout_is_in_time(autojump_clock, network, recorder):
    # A ping is a frame of 14 bytes: read in 14 s, answered then.
    async with (
        FaultServer([Fault.slow_reads(1)], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(1000)

        assert channel.statistics().latency == pytest.approx(14)
    assert [] == recorder.of(ConnectionLost)


async def test_an_answer_after_the_timeout_is_too_late(autojump_clock, network, recorder):
    heartbeat = HeartbeatOptions(interval=20, timeout=13, jitter=0)
    after, _ = await lost_at(network, recorder, [Fault.slow_reads(1), NONE], heartbeat=heartbeat)

    assert 33 == after


async def test_an_unanswered_ping_is_not_followed_by_another_before_its_deadline(
    autojump_clock, network, recorder
):
    heartbeat = HeartbeatOptions(interval=1, timeout=30, jitter=0)
    async with FaultServer([SILENCE.later(after=0.5), NONE], network=network) as server:
        async with wsclient.open_channel(server.url, heartbeat=heartbeat, observers=[recorder]):
            await recorder.wait_for(ConnectionLost)

        assert [1.0] == [ping.at for ping in server.connections[0].pings]


# --- slow consumers -----------------------------------------------------------------------------


SMALL = {
    "limits": Limits(inbox_messages=1, inbox_size=100),
    "connection": ConnectionOptions(receive_buffer_size=64),
}


async def test_slow_consumer_does_not_make_a_healthy_peer_dead(autojump_clock, network, recorder):
    async def flood(connection):
        for number in range(2000):
            await connection.send(f"{number:0100}")
        await trio.sleep_forever()

    async with (
        FaultServer(network=network, handler=flood) as server,
        wsclient.open_channel(
            server.url, heartbeat=EXACT, observers=[recorder], **SMALL
        ) as channel,
    ):
        for number in range(2000):
            assert f"{number:0100}" == await channel.receive()
            if number % 100 == 0:
                await trio.sleep(300)  # Fifteen heartbeats.
    assert [] == recorder.of(ConnectionLost)
    assert 6000 == trio.current_time()


async def test_after_a_slow_consumer_a_peer_gets_its_full_time_again(
    autojump_clock, network, recorder
):
    async def say_two_things(connection):
        await connection.send("x" * 200)
        await connection.send("y" * 200)
        await trio.sleep_forever()

    # All that it said is read at once, and nothing comes after; but until the consumer makes room
    # nobody looks.
    async with (
        FaultServer([NEVER_READS, NONE], network=network, handler=say_two_things) as server,
        wsclient.open_channel(
            server.url, heartbeat=EXACT, observers=[recorder], limits=Limits(inbox_messages=1)
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(300)

        assert [] == recorder.of(ConnectionLost)
        await channel.receive_many()
        await recorder.wait_for(ConnectionLost)

        assert 320 == trio.current_time()


async def test_a_peer_that_died_while_the_consumer_slept_is_left_all_the_same(
    autojump_clock, network, recorder
):
    async def flood(connection):
        for _ in range(100):
            await connection.send("x" * 100)
        connection.reset()
        await trio.sleep_forever()

    async with (
        FaultServer([NEVER_READS, NONE], network=network, handler=flood) as server,
        wsclient.open_channel(
            server.url, heartbeat=EXACT, observers=[recorder], **SMALL
        ) as channel,
    ):
        await channel.receive()
        await trio.sleep(300)
        await channel.receive()
        lost = await recorder.wait_for(ConnectionLost)

        assert 1006 == lost.code
        assert 300 == trio.current_time()


# --- the ping's times ---------------------------------------------------------------------------


async def test_s5_1_latency_is_that_of_the_last_ping_on_the_present_connection(
    autojump_clock, network, recorder
):
    # 14 bytes at 28 bytes a second.
    story = [Fault.slow_reads(28), Fault.slow_reads(14)]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()

        assert None is channel.statistics().latency
        await trio.sleep(30)

        assert 0.5 == pytest.approx(channel.statistics().latency)
        await server.stop()
        await recorder.wait_for(ConnectionLost)

        assert None is channel.statistics().latency
        await server.start()
        await recorder.wait_for(ConnectionReady, count=2)

        assert None is channel.statistics().latency
        await trio.sleep(30)

        assert 1 == pytest.approx(channel.statistics().latency)


async def test_s5_1_pings_vary_within_a_tenth_of_the_interval(autojump_clock, network):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        ready_at = trio.current_time()
        await trio.sleep(20 * 500)
        times = [ready_at, *(ping.at for ping in server.connections[0].pings)]
    intervals = [after - before for before, after in itertools.pairwise(times)]

    assert len(intervals) > 450
    assert 18 <= min(intervals) < 18.2
    assert 21.8 < max(intervals) <= 22
    assert 19.8 < sum(intervals) / len(intervals) < 20.2


async def test_channels_of_one_server_do_not_ping_in_step(autojump_clock, network):
    async with FaultServer(network=network) as server, trio.open_nursery() as nursery:
        for _ in range(50):
            await wsclient.connect_channel(nursery, server.url, observers=())
        await trio.sleep(25)
        first = {visit.pings[0].at for visit in server.connections}
        nursery.cancel_scope.cancel()

    assert len(first) > 45


async def test_an_infinite_interval_sends_no_ping_and_never_leaves(
    autojump_clock, network, recorder
):
    heartbeat = HeartbeatOptions(interval=math.inf)
    async with (
        FaultServer([SILENCE], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=heartbeat, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(80_000)

        assert [] == server.connections[0].pings
    assert [] == recorder.of(ConnectionLost)


async def test_the_heartbeat_begins_when_the_hook_is_done(autojump_clock, network, recorder):
    async def slow_hook(connection):
        await trio.sleep(14)

    async with FaultServer([SILENCE, NONE], network=network) as server:
        async with wsclient.open_channel(
            server.url, heartbeat=EXACT, on_connect=slow_hook, observers=[recorder]
        ):
            await recorder.wait_for(ConnectionLost)

        assert [34.0] == [ping.at for ping in server.connections[0].pings]
        assert 54 == server.connections[0].ended_at


async def test_s5_1_round_trips_are_last_smoothed_minimum_and_p95(
    autojump_clock, network, recorder
):
    # A ping is a frame of 14 bytes; the later ones are read twice as slowly.
    async with (
        FaultServer([Fault.slow_reads(7)], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        statistics = channel.statistics()

        assert (None, None, None) == (
            statistics.latency_smoothed,
            statistics.latency_minimum,
            statistics.latency_p95,
        )
        await trio.sleep(100)
        statistics = channel.statistics()

        assert [2, 2, 2, 2] == pytest.approx(
            [
                statistics.latency,
                statistics.latency_smoothed,
                statistics.latency_minimum,
                statistics.latency_p95,
            ]
        )


async def test_s5_1_a_ping_is_registered_before_it_is_written(autojump_clock, network, connected):
    async with connected() as (connection, _):
        registered = []
        original = connection._writer.post_ping

        def post_ping(ping):
            registered.append(len(connection._pings))
            original(ping)

        connection._writer.post_ping = post_ping
        heartbeat = Heartbeat(connection, EXACT, Judge(connection, pytest.fail))
        with trio.move_on_after(25):
            await heartbeat.run()

    assert [1] == registered


# --- our own fault ------------------------------------------------------------------------------


async def test_s5_4_where_we_were_late_the_peer_gets_its_time_once_more(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([SILENCE, NONE], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(35)
        autojump_clock.jump(12.5)  # The loop was kept: until 47.5, and 40 was the deadline.
        await trio.lowlevel.checkpoint()
        lost = await recorder.wait_for(ConnectionLost)

        assert 67.5 == trio.current_time()
    assert [(7.5, 1)] == [(event.late, event.epoch) for event in recorder.of(LocalStallDetected)]
    assert "nothing came from the peer for 20 s after a ping" == lost.cause


async def test_s5_4_there_is_one_cycle_of_grace_and_no_second(autojump_clock, network, recorder):
    async with (
        FaultServer([SILENCE, NONE], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(35)
        for _ in range(10):
            autojump_clock.jump(12)
            await trio.sleep(0.01)
        await recorder.wait_for(ConnectionLost)
    assert 1 == len(recorder.of(LocalStallDetected))


async def test_s5_4_a_peer_that_answers_after_our_stall_is_kept(autojump_clock, network, recorder):
    # It reads at last when we have been away: its pong comes in the time of grace.
    async with (
        FaultServer([Fault.slow_reads(0.5)], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(35)
        autojump_clock.jump(10)
        await trio.sleep(30)

        assert 1 == len(recorder.of(LocalStallDetected))
    assert [] == recorder.of(ConnectionLost)


async def test_s5_4_a_timer_that_is_a_little_late_is_no_stall(autojump_clock, network, recorder):
    async with (
        FaultServer([SILENCE, NONE], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(39.9)
        autojump_clock.jump(0.5)
        await recorder.wait_for(ConnectionLost)

        assert pytest.approx(40.4) == trio.current_time()
    assert [] == recorder.of(LocalStallDetected)


class Unread:
    """A connection of which nothing was read, though something may be there."""

    def __init__(self, *, waits):
        self._transport = self
        self._reads = trio.Event()
        self._reads.set()
        self._reading_since = trio.current_time()
        self.waits = waits

    def has_unread(self):
        return self.waits


@pytest.mark.parametrize(("waits", "expected", "told"), [(True, 40, [0]), (False, 20, [])])
async def test_s5_4_bytes_that_wait_to_be_read_are_a_reason_for_grace(
    autojump_clock, waits, expected, told
):
    stalls = []
    judge = Judge(Unread(waits=waits), stalls.append)
    heard = await judge.hears(lambda: False, asked_at=lambda: 0, timeout=20, look_at=math.inf)

    assert (False, expected, told) == (heard, trio.current_time(), stalls)


async def test_s5_4_an_answer_that_is_being_read_in_the_same_step_counts(autojump_clock):
    answered = []

    async def read():
        await trio.sleep(20)
        answered.append(True)

    judge = Judge(Unread(waits=False), pytest.fail)
    for _ in range(50):  # trio runs what is due in any order.
        answered.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)

            assert await judge.hears(
                lambda: bool(answered), asked_at=lambda: 0, timeout=20, look_at=math.inf
            )


async def test_s5_4_the_wait_can_be_cut_short_by_the_answer(autojump_clock):
    came = trio.Event()
    answered = []

    async def answer():
        await trio.sleep(3)
        answered.append(True)
        came.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        judge = Judge(Unread(waits=False), pytest.fail)
        heard = await judge.hears(
            lambda: bool(answered), asked_at=lambda: 0, timeout=20, look_at=math.inf, wait=came.wait
        )

        assert (True, 3) == (heard, trio.current_time())


# --- a peer that reads nothing ------------------------------------------------------------------


async def test_s5_3_a_peer_that_reads_nothing_is_told_from_one_that_is_gone(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([NEVER_READS, SILENCE, NONE], network=network) as server,
        wsclient.open_channel(server.url, heartbeat=EXACT, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        for _ in range(40):  # 2.5 MiB: far more than the buffers on the way.
            await channel.send(bytes(64 * 1024))
        await recorder.wait_for(ConnectionLost)

        assert [1] == [event.epoch for event in recorder.of(PeerStoppedReading)]
        await recorder.wait_for(ConnectionLost, count=2)
    kinds = [type(event) for event in recorder.events]

    assert kinds.index(PeerStoppedReading) + 1 == kinds.index(ConnectionLost)
    assert 1 == len(recorder.of(PeerStoppedReading))


# --- asking at once -----------------------------------------------------------------------------


async def test_s5_5_a_probe_asks_at_once_and_with_less_patience(autojump_clock, connected):
    async with connected() as (connection, _), trio.open_nursery() as nursery:
        heartbeat = Heartbeat(connection, EXACT, Judge(connection, pytest.fail))
        found = []

        async def run():
            found.append(await heartbeat.run())

        nursery.start_soon(run)
        await trio.sleep(3)
        heartbeat.probe()
        await trio.sleep(4.9)

        assert [] == found
        await trio.sleep(0.2)

        assert ["nothing came from the peer for 5 s after a ping"] == [*map(str, found)]


async def test_s5_5_a_probe_in_the_middle_of_a_wait_begins_it_anew(autojump_clock, connected):
    async with connected() as (connection, _), trio.open_nursery() as nursery:
        heartbeat = Heartbeat(connection, EXACT, Judge(connection, pytest.fail))
        nursery.start_soon(heartbeat.run)
        await trio.sleep(39)
        heartbeat.probe()
        await trio.sleep(4.9)

        assert 1 == len(connection._pings)
        await trio.sleep(0.2)

        assert 0 == len(connection._pings)
