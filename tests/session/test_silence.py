"""Whether anybody is at work behind the endpoint: application pings, and silent streams."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

import wsclient
from wsclient.connection import start_ping
from wsclient.events import ConnectionLost, HandlerFailed, LocalStallDetected
from wsclient.options import ApplicationPing, ConnectionOptions, HeartbeatOptions, Limits
from wsclient.session._heartbeat import Judge
from wsclient.session._silence import ApplicationHeartbeat, Ear, SilenceWatch
from wsclient.testing import NEVER_READS, NONE, SILENCE, Fault, FaultServer, echo


def heartbeat(**options):
    """No protocol pings, unless asked for, and no jitter."""
    return HeartbeatOptions(**{"interval": math.inf, "timeout": 20, "jitter": 0, **options})


def ping(**options):
    return ApplicationPing(**{"build": lambda: "ping", "match": lambda m: m == "pong", **options})


def answer(*, times=math.inf, after=0.0):
    """A handler that answers so many pings, each so late."""

    async def serve(connection):
        answered = 0
        async for message in connection:
            if message == "ping" and answered < times:
                answered += 1
                await trio.sleep(after)
                await connection.send("pong")

    return serve


async def lost_at(network, recorder, handler, options, *, faults=(NONE,), **more):
    async with (
        FaultServer([*faults, NONE], network=network, handler=handler) as server,
        wsclient.open_channel(
            server.url, heartbeat=options, observers=[recorder], **more
        ) as channel,
    ):
        await channel.wait_ready()
        ready_at = trio.current_time()
        lost = await recorder.wait_for(ConnectionLost)
        return trio.current_time() - ready_at, lost.cause


# --- application pings --------------------------------------------------------------------------


async def test_s5_2_an_application_that_answers_is_kept_and_its_answers_are_no_messages(
    autojump_clock, network, recorder
):
    async with (
        FaultServer(network=network, handler=answer()) as server,
        wsclient.open_channel(
            server.url, heartbeat=heartbeat(application=ping(interval=10)), observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(95)

        assert ["ping"] * 9 == server.messages
        assert 0 == channel.statistics().inbox_messages
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_an_application_that_hangs_is_left_although_its_endpoint_answers(
    autojump_clock, network, recorder
):
    options = heartbeat(interval=5, application=ping(interval=10, timeout=7))
    after, cause = await lost_at(network, recorder, answer(times=3), options)

    assert 47 == after
    assert "the application did not answer a ping within 7 s" == cause


async def test_s5_2_other_messages_are_no_answer(autojump_clock, network, recorder):
    async def talk(connection):
        while True:
            await connection.send("news")
            await trio.sleep(1)

    options = heartbeat(application=ping(interval=10, timeout=7))
    after, _ = await lost_at(network, recorder, talk, options)

    assert 17 == after


async def test_s5_2_an_answer_within_the_timeout_is_in_time(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network, handler=answer(after=6.9)) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(application=ping(interval=10, timeout=7)),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(1000)
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_where_no_answer_is_expected_none_is_missed(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(application=ping(match=None, interval=10)),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(1000.5)

        assert 100 == len(server.messages)
        await server.broadcast("pong")

        assert "pong" == await channel.receive()
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_an_application_ping_goes_ahead_of_messages_that_wait(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([Fault.slow_reads(10_000)], network=network, handler=answer()) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(application=ping(interval=10, timeout=300)),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        for _ in range(100):
            await channel.send("x" * 10_000)
        await server.wait_messages(100)
        at = server.messages.index("ping")

        # Behind what is on its way, and ahead of what is not.
        assert at < 40
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_a_peer_that_takes_no_application_ping_is_left(
    autojump_clock, network, recorder
):
    async def flood(channel):
        for _ in range(40):
            await channel.send(bytes(64 * 1024))

    async with (
        FaultServer([NEVER_READS, NONE], network=network) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(application=ping(interval=10, timeout=7)),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        await flood(channel)
        await recorder.wait_for(ConnectionLost)

        assert 17 == trio.current_time()


async def test_s5_2_a_ping_behind_a_large_message_that_is_taken_slowly_asks_nothing_yet(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([Fault.slow_reads(2000)], network=network, handler=answer()) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(application=ping(interval=10, timeout=40)),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        await channel.send(bytes(400_000))
        await server.wait_messages(2)

        assert 200 < trio.current_time()
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_a_slow_consumer_does_not_make_an_application_hang(
    autojump_clock, network, recorder
):
    async def serve(connection):
        async for _ in connection:
            for number in range(50):
                await connection.send(f"{number:0100}")
            await connection.send("pong")

    async with (
        FaultServer(network=network, handler=serve) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(application=ping(interval=10, timeout=7)),
            limits=Limits(inbox_messages=1),
            connection=ConnectionOptions(receive_buffer_size=64),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        for _ in range(200):
            await channel.receive()
            await trio.sleep(3)

        assert 600 <= trio.current_time()
    assert [] == recorder.of(ConnectionLost)


def broken(*_):
    raise ZeroDivisionError("broken")


@pytest.mark.parametrize(
    ("build", "kind"),
    [(broken, ZeroDivisionError), (lambda: 1, TypeError), (lambda: "\ud800", UnicodeEncodeError)],
    ids=["raises", "no message", "no text"],
)
async def test_s5_2_a_ping_that_cannot_be_built_is_told_and_costs_no_connection(
    autojump_clock, network, recorder, build, kind
):
    async with (
        FaultServer(network=network, handler=answer()) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(application=ping(build=build, interval=10)),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(25)

        assert [] == server.messages
    failed = recorder.of(HandlerFailed)

    assert [kind, kind] == [type(event.error) for event in failed]
    assert "an application ping" == failed[0].subject
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_a_match_that_raises_is_told_and_the_message_is_received(
    autojump_clock, network, recorder
):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(
            server.url, heartbeat=heartbeat(application=ping(match=broken)), observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        await server.broadcast("news")

        assert "news" == await channel.receive()
    assert isinstance(recorder.of(HandlerFailed)[0].error, ZeroDivisionError)


async def test_s5_4_our_own_stall_does_not_make_an_application_hang(
    autojump_clock, network, recorder
):
    async with (
        FaultServer(network=network, handler=answer(after=10)) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(application=ping(interval=10, timeout=7)),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(11)
        autojump_clock.jump(8)
        await trio.sleep(3)

        assert 1 == len(recorder.of(LocalStallDetected))
        assert [] == recorder.of(ConnectionLost)


async def test_s5_2_a_connection_that_ends_while_an_answer_is_waited_for_is_lost_as_it_ends(
    autojump_clock, network, recorder
):
    options = heartbeat(application=ping(interval=10, timeout=7))
    after, cause = await lost_at(
        network, recorder, answer(times=0), options, faults=[Fault.close(1012, after=12)]
    )

    assert 12 == after
    assert "1012" in cause


async def test_s5_2_an_application_ping_may_be_binary(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network, handler=echo) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(
                application=ping(build=lambda: b"\x00", match=lambda m: m == b"\x00")
            ),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(30)

        assert [b"\x00"] == server.messages
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_a_connection_that_is_closing_takes_no_ping(autojump_clock, connected):
    async with connected() as (connection, _):
        judge = Judge(connection, pytest.fail)
        application = ApplicationHeartbeat(
            connection, ping(timeout=7), heartbeat(), judge, Ear(None, pytest.fail), pytest.fail
        )
        connection.abort()

        assert not await application.ask()


async def test_s5_2_a_probe_that_ends_with_its_connection_does_not_spin(autojump_clock, connected):
    async with connected() as (connection, _):
        watch = SilenceWatch(
            connection,
            heartbeat(max_silence=30),
            Judge(connection, pytest.fail),
            Ear(None, pytest.fail),
            None,
            lambda: start_ping(connection),
        )
        with trio.move_on_after(45):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run)
                await trio.sleep(31)
                connection._pings.give_up()
                await trio.testing.wait_all_tasks_blocked()  # Never, where something spins.
                await trio.sleep_forever()


# --- silence ------------------------------------------------------------------------------------


def talk(times, every=10.0):
    async def serve(connection):
        for number in range(times):
            await trio.sleep(every)
            await connection.send(str(number))
        await trio.sleep_forever()

    return serve


async def test_s5_2_a_stream_that_falls_silent_is_left_although_its_endpoint_answers(
    autojump_clock, network, recorder
):
    after, cause = await lost_at(network, recorder, talk(3), heartbeat(interval=5, max_silence=30))

    assert 60 == after
    assert "no message came for 30 s, and the peer answers pings" == cause


async def test_s5_2_the_watchdog_is_armed_when_the_channel_is_ready(
    autojump_clock, network, recorder
):
    async def slow_hook(connection):
        await trio.sleep(14)

    after, _ = await lost_at(
        network, recorder, talk(0), heartbeat(max_silence=30), on_connect=slow_hook
    )

    assert 30 == after


async def test_s5_2_it_probes_before_it_kills(autojump_clock, network, recorder):
    async with (
        FaultServer([NONE, NONE], network=network, handler=talk(0)) as server,
        wsclient.open_channel(
            server.url, heartbeat=heartbeat(max_silence=30), observers=[recorder]
        ),
    ):
        await recorder.wait_for(ConnectionLost)

        assert [30] == [ping.at for ping in server.connections[0].pings]


async def test_s5_2_an_endpoint_that_does_not_answer_the_probe_gets_its_time(
    autojump_clock, network, recorder
):
    after, cause = await lost_at(
        network, recorder, talk(0), heartbeat(max_silence=30), faults=[SILENCE]
    )

    assert 50 == after
    assert "no message came for 30 s, and the peer did not answer a ping" == cause


async def test_s5_2_a_message_that_was_on_its_way_saves_the_connection(
    autojump_clock, network, recorder
):
    # It reads no pings; what it says at last says enough.
    async with (
        FaultServer([NEVER_READS], network=network, handler=talk(5, every=40)) as server,
        wsclient.open_channel(
            server.url, heartbeat=heartbeat(max_silence=30), observers=[recorder]
        ) as channel,
    ):
        for number in range(5):
            assert str(number) == await channel.receive()

        assert 200 == trio.current_time()
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_an_application_that_answers_may_be_silent(autojump_clock, network, recorder):
    options = heartbeat(max_silence=30, application=ping(interval=math.inf))
    async with (
        FaultServer(network=network, handler=answer(times=3)) as server,
        wsclient.open_channel(server.url, heartbeat=options, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        lost = await recorder.wait_for(ConnectionLost)

        assert 4 * 30 + 20 == trio.current_time()
        assert "no message came for 30 s, and the application did not answer a ping" == lost.cause
        assert [[], ["ping"] * 4] == [server.connections[0].pings, server.messages]


async def test_s5_2_while_messages_come_nobody_is_asked(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network, handler=talk(100)) as server,
        wsclient.open_channel(
            server.url, heartbeat=heartbeat(max_silence=10.5), observers=[recorder]
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(1000)

        assert [] == server.connections[0].pings
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_what_a_slow_consumer_leaves_unread_is_no_silence(
    autojump_clock, network, recorder
):
    async with (
        FaultServer(network=network, handler=talk(30, every=1)) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=heartbeat(max_silence=30),
            limits=Limits(inbox_messages=0),
            connection=ConnectionOptions(receive_buffer_size=3),
            observers=[recorder],
        ) as channel,
    ):
        for number in range(29):
            assert str(number) == await channel.receive()
            await trio.sleep(100)

        assert [] == server.connections[0].pings
    assert [] == recorder.of(ConnectionLost)


async def test_s5_2_it_is_off_by_default(autojump_clock, network, recorder):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(80_000)

        assert [] == server.messages
    assert [] == recorder.of(ConnectionLost)
