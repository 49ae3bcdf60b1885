"""All that watches over one connection: who hears its messages, and who is told."""

from __future__ import annotations

import math

import pytest
import trio

from wsclient.connection import start_ping
from wsclient.errors import HeartbeatTimeout
from wsclient.events import LocalStallDetected, PeerStoppedReading
from wsclient.options import ApplicationPing, HeartbeatOptions, Limits
from wsclient.session._inbox import Inbox, Inlet
from wsclient.session._liveness import Liveness

PLACE = {"channel": "feed", "endpoint": "ws://server.test", "attempt": 1, "epoch": 3}


def watch(connection, recorder, send_ping=None, **options):
    return Liveness(
        connection,
        HeartbeatOptions(jitter=0, **options),
        place=PLACE,
        observe=recorder,
        send_ping=send_ping,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Inbox),
        ({"max_silence": 60}, Inlet),
        ({"application": ApplicationPing(build=str)}, Inlet),
    ],
    ids=repr,
)
async def test_nothing_stands_before_an_inbox_to_which_nobody_listens(
    connected, recorder, options, expected
):
    async with connected() as (connection, _):
        way = watch(connection, recorder, **options).way_into(Inbox(Limits()))

        assert expected is type(way)


async def test_the_ping_can_be_somebody_elses(autojump_clock, connected, recorder):
    async with connected() as (connection, _):
        sent = []

        def send_ping():
            sent.append(trio.current_time())
            return start_ping(connection)

        liveness = watch(connection, recorder, send_ping, max_silence=30, timeout=25)
        found = await liveness.run()

        # The heartbeat's, and the probe's.
        assert [20, 30] == sent
        assert isinstance(found, HeartbeatTimeout)
        assert 45 == trio.current_time()


async def test_the_observers_are_told_of_a_peer_that_reads_nothing(connected, recorder):
    async with connected() as (connection, _):
        watch(connection, recorder).tell_deaf()

    assert [PeerStoppedReading(**PLACE)] == recorder.events


async def test_without_pings_there_is_no_probe(autojump_clock, connected, recorder):
    async with connected() as (connection, _):
        liveness = watch(connection, recorder, send_ping=pytest.fail, interval=math.inf)
        with trio.move_on_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(liveness.run)
                liveness.probe()
                await trio.sleep_forever()


async def test_the_first_verdict_counts(autojump_clock, connected, recorder):
    async with connected() as (connection, _):
        ping = ApplicationPing(build=str, match=bool, interval=10, timeout=5)
        found = await watch(connection, recorder, application=ping, max_silence=14).run()

        assert "the application did not answer a ping within 5 s" == str(found)
        assert 15 == trio.current_time()


async def test_with_pings_a_probe_is_one(autojump_clock, connected, recorder):
    async with connected() as (connection, _), trio.open_nursery() as nursery:
        liveness = watch(connection, recorder)
        nursery.start_soon(liveness.run)
        await trio.sleep(1)
        liveness.probe()
        await trio.sleep(1)

        assert 1 == len(connection._pings)
        nursery.cancel_scope.cancel()


async def test_s5_3_a_ping_that_cannot_even_be_written_shows_that_the_peer_reads_nothing(
    autojump_clock, connected, recorder
):
    async with connected() as (connection, _), trio.open_nursery() as nursery:
        connection._writer.post_ping = lambda _: None
        found = await watch(connection, recorder).run()

        assert "nothing came from the peer for 20 s after a ping" == str(found)
        assert [PeerStoppedReading(**PLACE)] == recorder.events
        nursery.cancel_scope.cancel()


async def test_s5_4_the_observers_are_told_of_a_stall(autojump_clock, connected, recorder):
    async with connected() as (connection, _), trio.open_nursery() as nursery:
        nursery.start_soon(watch(connection, recorder).run)
        await trio.sleep(30)
        autojump_clock.jump(11)
        await trio.sleep(0.1)

        assert [LocalStallDetected(**PLACE, late=1.0)] == recorder.events
        nursery.cancel_scope.cancel()


async def test_the_observers_are_told_of_a_function_that_fails(autojump_clock, connected, recorder):
    def build():
        raise KeyError("id")

    async with connected() as (connection, _), trio.open_nursery() as nursery:
        liveness = watch(connection, recorder, application=ApplicationPing(build=build))
        nursery.start_soon(liveness.run)
        await trio.sleep(21)
        nursery.cancel_scope.cancel()
    [event] = recorder.events

    assert ("feed", "an application ping") == (event.channel, event.subject)
    assert isinstance(event.error, KeyError)
