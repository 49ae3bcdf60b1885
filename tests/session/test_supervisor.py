"""Many connections as one: what ends a connection, what follows, and when."""

from __future__ import annotations

import itertools
import time
from email.utils import formatdate

import pytest
import tenacity
import trio
import trio.testing

import wsclient
from wsclient.errors import (
    ChannelFailed,
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    EstablishError,
    HandshakeError,
    InvalidUpgrade,
)
from wsclient.events import (
    ChannelClosed,
    ChannelGaveUp,
    ChannelState,
    ConnectionAttempted,
    ConnectionFailed,
    ConnectionLost,
    ConnectionOpened,
    ConnectionReady,
    LossKind,
    RetryScheduled,
    StateChanged,
)
from wsclient.options import ConnectionOptions, RetryPolicy
from wsclient.session import Fatal, NextEndpoint, Phase, Retry, RetryFreshAuth, classify
from wsclient.testing import (
    ACCEPT_THEN_CLOSE,
    ANSWER_200,
    BAD_ACCEPT,
    BAD_OPCODE,
    BAD_UTF8,
    DELAYED_HANDSHAKE,
    EOF_AFTER_OPEN,
    EOF_IN_HANDSHAKE,
    GARBAGE_ANSWER,
    HALF_FRAME,
    HALF_FRAME_THEN_SILENCE,
    MASKED_FRAME,
    MUTE_CLOSE,
    NEVER_READS,
    NONE,
    OVERSIZED,
    REFUSE,
    REJECT_401,
    REJECT_403,
    REJECT_404,
    REJECT_500,
    REJECT_503,
    RESET_AFTER_OPEN,
    RESET_ON_ACCEPT,
    SILENCE,
    SILENT_HANDSHAKE,
    Fault,
    FaultServer,
)

BEFORE_OPEN = [
    REFUSE,
    RESET_ON_ACCEPT,
    SILENT_HANDSHAKE,
    DELAYED_HANDSHAKE(11),
    EOF_IN_HANDSHAKE,
    GARBAGE_ANSWER,
    BAD_ACCEPT,
    REJECT_401,
    REJECT_403,
    REJECT_404,
    REJECT_500,
    REJECT_503,
    Fault.reject(429, retry_after=7),
    ANSWER_200,
]
AFTER_OPEN = [
    ACCEPT_THEN_CLOSE,
    RESET_AFTER_OPEN,
    EOF_AFTER_OPEN,
    SILENCE,
    NEVER_READS,
    HALF_FRAME,
    HALF_FRAME_THEN_SILENCE,
    MASKED_FRAME,
    BAD_OPCODE,
    BAD_UTF8,
    OVERSIZED,
    *(
        Fault.close(code)
        for code in (1001, 1002, 1003, 1005, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)
    ),
    *(Fault.close(code) for code in (1006, 1015, 3000, 4000, 4999)),
]
AT_ONCE = RetryPolicy(wait=tenacity.wait_none())


async def fail(server, recorder=None, **options):
    """Open a channel that gives up by itself; return why."""
    with pytest.raises(ChannelFailed) as caught:
        async with wsclient.open_channel(
            server.url, observers=() if recorder is None else [recorder], **options
        ):
            await trio.sleep_forever()
    return caught.value


# --- coming back --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", BEFORE_OPEN + AFTER_OPEN, ids=repr)
async def test_s4_4_a_steady_channel_comes_back_after_any_one_fault(
    autojump_clock, network, recorder, fault
):
    story = [Fault.reset(after_messages=1), fault, NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.send("before")
        await server.wait_connections(3)
        await recorder.wait_for(ConnectionReady, count=2 + (fault in AFTER_OPEN))
        await channel.send("after")
        await server.wait_messages(2)

    assert ["before", "after"] == server.messages
    assert 3 == len(server.connections)
    assert [None] * 3 == [visit.violation for visit in server.connections]


@pytest.mark.parametrize("fault", AFTER_OPEN, ids=repr)
async def test_a_channel_comes_back_also_if_its_first_connection_is_struck(
    autojump_clock, network, fault
):
    async with (
        FaultServer([fault, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await server.wait_connections(2)
        await channel.send("after")
        assert ["after"] == await server.wait_messages(1)


@pytest.mark.parametrize(
    "fault",
    [
        REFUSE,
        RESET_ON_ACCEPT,
        SILENT_HANDSHAKE,
        EOF_IN_HANDSHAKE,
        REJECT_401,
        REJECT_500,
        REJECT_503,
        *(Fault.reject(status) for status in (408, 425, 429, 502, 504)),
    ],
    ids=repr,
)
async def test_s4_4_a_channel_that_was_never_ready_tries_again_where_it_may_help(
    autojump_clock, network, fault
):
    async with (
        FaultServer([fault, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.send("hello")
        assert ["hello"] == await server.wait_messages(1)


async def test_a_name_that_is_not_known_yet_is_looked_up_again(autojump_clock, network, recorder):
    async with wsclient.open_channel("ws://later.test", observers=[recorder]) as channel:
        failed = await recorder.wait_for(ConnectionFailed, count=3)

        assert "cannot connect to ws://later.test: Name or service not known" == failed.cause
        async with FaultServer(network=network, host="later.test") as server:
            await channel.send("hello")
            await server.wait_messages(1)


async def test_an_outage_of_hours_is_ridden_out(autojump_clock, network):
    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()
        await server.stop()
        await trio.sleep(5 * 3600)

        assert ChannelState.WAITING is channel.state
        await server.start()
        came_back_at = trio.current_time()
        await channel.wait_ready()

        # A feed that is back is noticed within half a minute.
        assert trio.current_time() - came_back_at <= 30.25


async def test_the_events_tell_the_whole_story(autojump_clock, network, recorder):
    policy = RetryPolicy(wait=tenacity.wait_fixed(3))
    story = [REJECT_503, Fault.close(1001, "bye", after=20), NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, name="feed", retry=policy, observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionReady, count=2)

    assert [
        "ConnectionAttempted",
        "ConnectionFailed",
        "StateChanged",
        "RetryScheduled",
        "StateChanged",
        "ConnectionAttempted",
        "StateChanged",
        "ConnectionOpened",
        "StateChanged",
        "ConnectionReady",
        "ConnectionLost",
        "StateChanged",
        "RetryScheduled",
        "StateChanged",
        "ConnectionAttempted",
        "StateChanged",
        "ConnectionOpened",
        "GapDetected",
        "StateChanged",
        "ConnectionReady",
        "StateChanged",
        "ChannelClosed",
    ] == recorder.names()
    place = {"channel": "feed", "endpoint": "ws://server.test"}

    assert [
        ConnectionFailed(
            **place,
            attempt=1,
            cause="the server refused the upgrade: HTTP 503",
            duration=0.0,
            kind=LossKind.REJECTED,
            status=503,
        )
    ] == recorder.of(ConnectionFailed)
    assert [
        ConnectionLost(
            **place,
            attempt=2,
            epoch=1,
            cause="the connection is closed: 1001 GOING_AWAY 'bye'",
            code=1001,
            duration=20.0,
            ready=True,
        )
    ] == recorder.of(ConnectionLost)
    # Numbered anew: the connection was stable.
    assert [
        RetryScheduled(**place, attempt=2, delay=3.0, rule="HTTP 408, 425, 429 or 5xx"),
        RetryScheduled(**place, attempt=2, delay=3.0, rule="close code"),
    ] == recorder.of(RetryScheduled)
    assert [
        ConnectionReady(**place, attempt=2, epoch=1, outage=None),
        ConnectionReady(**place, attempt=2, epoch=2, outage=3.0, resumed=False, outage_attempts=1),
    ] == recorder.of(ConnectionReady)
    assert [ChannelClosed(channel="feed", cancelled=0, lost_unknown=0)] == recorder.of(
        ChannelClosed
    )


async def test_every_change_of_state_begins_where_the_last_one_ended(
    autojump_clock, network, recorder
):
    story = [REFUSE, RESET_AFTER_OPEN, REJECT_503, SILENCE, Fault.close(1012), NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await server.wait_connections(6)
        await channel.wait_ready()
    changes = recorder.of(StateChanged)

    assert ChannelState.CONNECTING is changes[0].previous
    assert all(before.state is after.previous for before, after in itertools.pairwise(changes))
    assert ChannelState.CLOSED is changes[-1].state


async def test_the_wait_lasts_exactly_as_long_as_was_told(autojump_clock, network, recorder):
    at = []

    def watch(event):
        if isinstance(event, (RetryScheduled, ConnectionAttempted)):
            at.append((trio.current_time(), getattr(event, "delay", None)))

    async with FaultServer([REFUSE], network=network) as server:
        with trio.move_on_after(600):
            async with wsclient.open_channel(server.url, observers=[watch]):
                await trio.sleep_forever()
    waits = list(itertools.pairwise(at[1:]))[::2]

    assert len(waits) > 20
    assert all(later == pytest.approx(told + delay) for (told, delay), (later, _) in waits)


async def test_the_connect_timeout_holds_for_all_of_the_connecting(
    autojump_clock, network, recorder
):
    story = [SILENT_HANDSHAKE, DELAYED_HANDSHAKE(9.9)]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()

        assert 19.9 == trio.current_time()
    failed = recorder.of(ConnectionFailed)

    assert [("ws://server.test was not connected within 10 s", 10.0)] == [
        (event.cause, event.duration) for event in failed
    ]


async def test_the_connect_timeout_can_be_chosen(autojump_clock, network, recorder):
    async with (
        FaultServer([SILENT_HANDSHAKE], network=network) as server,
        wsclient.open_channel(
            server.url, connection=ConnectionOptions(connect_timeout=0.5), observers=[recorder]
        ),
    ):
        await recorder.wait_for(ConnectionFailed)

        assert 0.5 == trio.current_time()


# --- storms -------------------------------------------------------------------------------------

STORMS = [
    *(Fault.close(code) for code in (1000, 1001, 1005, 1011, 1012, 1013, 4000)),
    EOF_AFTER_OPEN,  # 1006
    RESET_AFTER_OPEN,  # 1006
    # Up for a while each time, but never stable.
    Fault.close(1012, after=1),
    Fault.close(1000, after=1),
    REFUSE,
    REJECT_503,
]


@pytest.mark.parametrize("fault", STORMS, ids=repr)
async def test_i11_a_server_that_fails_at_once_sees_at_most_40_connections_in_10_minutes(
    autojump_clock, network, fault
):
    counts = []
    for _ in range(3):
        async with FaultServer([fault], network=network) as server:
            with trio.move_on_after(600):
                async with wsclient.open_channel(server.url, observers=()):
                    await trio.sleep_forever()
        counts.append(len(server.connections))

    assert max(counts) <= 40
    # It is tried again all the same.
    assert min(counts) >= 20


async def test_i11_a_server_that_takes_turns_in_failing_sees_no_more(autojump_clock, network):
    story = [Fault.close(code) for code in (1012, 1000, 1012, 1001, 1013, 4000)] * 20
    async with FaultServer(story, network=network) as server:
        with trio.move_on_after(600):
            async with wsclient.open_channel(server.url, observers=()):
                await trio.sleep_forever()

    assert len(server.connections) <= 40


async def test_a_crowd_that_fell_together_comes_back_apart(autojump_clock, network):
    async with FaultServer(network=network) as server, trio.open_nursery() as nursery:
        for _ in range(60):
            await wsclient.connect_channel(nursery, server.url, observers=())
        await server.wait_connections(60)
        await trio.sleep(20)
        await server.stop()
        await trio.sleep(120)
        server.clear()
        await server.start()
        began = trio.current_time()
        await server.wait_connections(60)
        seconds = [int(visit.opened_at - began) for visit in server.connections]
        nursery.cancel_scope.cancel()

    # No second sees a third of them.
    assert max(seconds) <= 31
    assert max(seconds.count(second) for second in seconds) < 20


# --- counting anew ------------------------------------------------------------------------------


async def test_s3_2_a_connection_that_was_not_stable_does_not_reset_the_count(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([Fault.close(1000, after=14.99)], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionLost, count=8)
        await recorder.wait_for(RetryScheduled, count=8)

    assert list(range(1, 9)) == [lost.attempt for lost in recorder.of(ConnectionLost)]
    assert recorder.of(RetryScheduled)[-1].delay >= 15.25


async def test_s3_2_a_connection_that_was_stable_resets_the_count(
    autojump_clock, network, recorder
):
    async with (
        FaultServer([Fault.close(1000, after=15.01)], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]),
    ):
        await recorder.wait_for(RetryScheduled, count=8)

    assert [1] + [2] * 7 == [lost.attempt for lost in recorder.of(ConnectionLost)]
    assert all(retry.delay <= 1 for retry in recorder.of(RetryScheduled))


async def test_s3_2_opening_alone_resets_nothing(autojump_clock, network, recorder):
    # Refused, refused, open for a moment, refused: the fourth failure in a row.
    story = [REFUSE, REFUSE, RESET_AFTER_OPEN, REFUSE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]),
    ):
        await recorder.wait_for(RetryScheduled, count=4)

    assert [2, 3, 4, 5] == [retry.attempt for retry in recorder.of(RetryScheduled)]
    assert recorder.of(RetryScheduled)[3].delay >= 2.25


async def test_s3_2_the_time_in_the_hook_does_not_count_as_stable(
    autojump_clock, network, recorder
):
    async def slow(connection):
        await trio.sleep(10)

    async with (
        FaultServer([Fault.close(1000, after=20)], network=network) as server,
        wsclient.open_channel(server.url, on_connect=slow, observers=[recorder]),
    ):
        await recorder.wait_for(RetryScheduled, count=3)

    assert [2, 3, 4] == [retry.attempt for retry in recorder.of(RetryScheduled)]


async def test_s3_2_how_long_is_stable_can_be_chosen(autojump_clock, network, recorder):
    policy = RetryPolicy(stable_after=0.5)
    async with (
        FaultServer([Fault.close(1000, after=0.51)], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=[recorder]),
    ):
        await recorder.wait_for(RetryScheduled, count=5)

    assert {2} == {retry.attempt for retry in recorder.of(RetryScheduled)}


async def test_s4_4_a_row_of_refusals_is_counted_anew_after_a_stable_connection(
    autojump_clock, network
):
    # Twice 1008 is borne in steady state.  The third one ends a connection that was stable: it is
    # the first of a new count.
    at_once, stable = Fault.close(1008), Fault.close(1008, after=16)
    story = [at_once, at_once, stable, at_once, NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await server.wait_connections(5)
        await channel.send("still there")
        await server.wait_messages(1)


# --- Retry-After --------------------------------------------------------------------------------


def in_a_minute_and_a_half():
    return formatdate(time.time() + 90, usegmt=True)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        (90, 90, 100),
        ("90", 90, 100),
        ("0", 0, 1),
        (3600, 3600, 3961),
        # Clamped to an hour.
        (86_400, 3600, 3961),
        (1e300, 3600, 3961),
        # Not understood: as if it had not been there.
        ("soon", 0, 1),
        ("-5", 0, 1),
        ("inf", 0, 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_s4_3_retry_after_is_honoured_and_clamped_to_an_hour(
    autojump_clock, network, recorder, status, asked, least, most
):
    fault = Fault.reject(status, retry_after=asked)
    async with (
        FaultServer([fault, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()

    assert least <= server.connections[1].opened_at <= most
    assert least <= recorder.of(RetryScheduled)[0].delay <= most


async def test_s4_3_retry_after_may_be_a_date(autojump_clock, network):
    fault = Fault.reject(503, retry_after=in_a_minute_and_a_half())
    async with (
        FaultServer([fault, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()

        # A date has whole seconds, and the wall clock goes on.
        assert 85 <= trio.current_time() <= 100


async def test_s4_3_retry_after_may_be_a_unix_time(autojump_clock, network):
    fault = Fault.reject(503, retry_after=int(time.time()) + 90)
    async with (
        FaultServer([fault, NONE], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        await channel.wait_ready()

        assert 85 <= trio.current_time() <= 100


async def test_s4_3_clients_that_were_told_the_same_do_not_come_back_together(
    autojump_clock, network
):
    story = [Fault.reject(503, retry_after=60)] * 100 + [NONE]
    async with FaultServer(story, network=network) as server, trio.open_nursery() as nursery:
        for _ in range(100):
            await wsclient.connect_channel(nursery, server.url, observers=())
        await server.wait_connections(200)
        again = [visit.opened_at for visit in server.connections[100:]]
        nursery.cancel_scope.cancel()

    assert 60 <= min(again)
    assert max(again) <= 67
    assert len(set(again)) == 100
    assert max(again) - min(again) > 4


async def test_s4_3_a_short_retry_after_does_not_undercut_the_backoff(
    autojump_clock, network, recorder
):
    story = [REFUSE] * 8 + [Fault.reject(503, retry_after=1)]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]),
    ):
        retry = await recorder.wait_for(RetryScheduled, count=9)

    assert 15.25 <= retry.delay <= 30.25


# --- giving up ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "connections", "kind", "text"),
    [
        (REJECT_403, 1, ConnectionRejected, "HTTP status, fatal at startup"),
        (REJECT_404, 1, ConnectionRejected, "HTTP status, fatal at startup"),
        (Fault.reject(400), 1, ConnectionRejected, "HTTP 400"),
        (Fault.reject(426), 1, ConnectionRejected, "HTTP 426"),
        (Fault.reject(301, headers={"Location": "/x"}), 1, ConnectionRejected, "HTTP 3xx"),
        (ANSWER_200, 1, ConnectionRejected, "not a WebSocket server"),
        (GARBAGE_ANSWER, 1, InvalidUpgrade, "not a WebSocket server"),
        (BAD_ACCEPT, 1, InvalidUpgrade, "not a WebSocket server"),
        (REJECT_401, 2, ConnectionRejected, "HTTP 401, fatal after 1 retry at startup"),
        # Without a hook a connection that opens is ready: what follows is steady state.
        (Fault.close(1008, "who are you?"), 3, ConnectionClosed, "fatal after 2 retries at steady"),
        (Fault.close(3000), 3, ConnectionClosed, "3000"),
        (Fault.close(3003), 1, ConnectionClosed, "close 3003"),
        *(
            (Fault.close(code), 3, ConnectionClosed, str(code))
            for code in (1002, 1003, 1007, 1009, 1010)
        ),
        # We closed: as if the peer had.
        (MASKED_FRAME, 3, ConnectionClosed, "1002"),
        (BAD_OPCODE, 3, ConnectionClosed, "1002"),
        (BAD_UTF8, 3, ConnectionClosed, "1007"),
        (OVERSIZED, 3, ConnectionClosed, "1009"),
    ],
    ids=lambda value: repr(value) if isinstance(value, Fault) else None,
)
async def test_s4_4_a_channel_gives_up_where_retrying_would_not_help(
    autojump_clock, network, recorder, fault, connections, kind, text
):
    async with FaultServer([fault], network=network) as server:
        failed = await fail(server, recorder)

    assert text in str(failed)
    assert str(failed).startswith("gave up on ws://server.test: ")
    assert connections == len(server.connections)
    assert kind is type(failed.__cause__)
    assert connections == len(failed.history)
    assert failed.history[-1] is failed.__cause__
    assert {kind} == {type(error) for error in failed.history}
    assert [
        ChannelGaveUp(channel="ws://server.test", reason=str(failed), cancelled=0, lost_unknown=0)
    ] == recorder.of(ChannelGaveUp)
    assert ChannelState.FAILED is recorder.of(StateChanged)[-1].state


@pytest.mark.parametrize(
    "fault",
    [REJECT_403, REJECT_404, Fault.reject(400), ANSWER_200, GARBAGE_ANSWER, BAD_ACCEPT],
    ids=repr,
)
async def test_s4_4_in_steady_state_a_refusal_is_borne_for_five_minutes(
    autojump_clock, network, recorder, fault
):
    async with FaultServer([Fault.reset(after=20), fault], network=network) as server:
        failed = await fail(server, recorder)
    refused_at = server.connections[1].opened_at
    given_up_at = server.connections[-1].opened_at

    assert 300 < given_up_at - refused_at <= 300 + 30.25
    assert server.connections[-2].opened_at - refused_at <= 300
    assert "fatal after 300 s at steady" in str(failed)


async def test_s4_4_a_blip_of_four_minutes_is_ridden_out(autojump_clock, network, recorder):
    async with (
        FaultServer([Fault.reset(after=20), REJECT_404], network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        await recorder.wait_for(ConnectionFailed)
        await trio.sleep(240)
        await server.stop()
        async with FaultServer(network=network) as deployed:
            await channel.send("hello")
            await deployed.wait_messages(1)


async def test_s4_4_a_bad_certificate_is_fatal_at_startup(autojump_clock, network, tls):
    options = {"network": network, "host": "localhost", "ssl_context": tls.server}
    async with FaultServer(**options) as server:
        failed = await fail(server, ssl_context=tls.stranger)

    assert "TLS certificate not verified, fatal at startup" in str(failed)
    assert 1 == len(server.connections)
    assert HandshakeError is type(failed.__cause__)


async def test_s4_4_a_bad_certificate_is_looked_at_three_times_more_in_steady_state(
    autojump_clock, network, recorder, tls
):
    async with FaultServer(network=network, host="localhost", ssl_context=tls.server) as good:
        with pytest.raises(ChannelFailed, match="not verified, fatal after 3 retries at steady"):
            async with wsclient.open_channel(
                good.url, ssl_context=tls.client, observers=[recorder]
            ) as channel:
                await channel.wait_ready()
                await good.stop()
                async with FaultServer(
                    network=network, host="localhost", ssl_context=tls.other_server
                ) as bad:
                    await trio.sleep_forever()

    assert 4 == len(bad.connections)


async def test_a_server_that_speaks_no_tls_is_fatal_at_startup(autojump_clock, network, tls):
    async def answer_in_plain_text(stream):
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listener = network.listen("localhost", 443)
        nursery.start_soon(trio.serve_listeners, answer_in_plain_text, [listener])
        with pytest.raises(ChannelFailed, match="TLS failed, fatal at startup"):
            async with wsclient.open_channel(
                "wss://localhost", ssl_context=tls.client, observers=()
            ):
                await trio.sleep_forever()
        nursery.cancel_scope.cancel()


async def test_s4_1_the_policys_stop_gives_up_after_so_many_attempts(
    autojump_clock, network, recorder
):
    policy = RetryPolicy(stop=tenacity.stop_after_attempt(4))
    async with FaultServer([REFUSE], network=network) as server:
        failed = await fail(server, recorder, retry=policy)

    assert 4 == len(server.connections)
    assert "RetryPolicy.stop after 4 failures: cannot connect to ws://server.test" in str(failed)
    assert "Connection refused" in str(failed)


async def test_s4_1_the_policys_stop_gives_up_after_so_many_virtual_seconds(
    autojump_clock, network
):
    policy = RetryPolicy(wait=tenacity.wait_fixed(7), stop=tenacity.stop_after_delay(30))
    async with FaultServer([REFUSE], network=network) as server:
        failed = await fail(server, retry=policy)

        assert 35 == trio.current_time()
    assert 6 == len(failed.history)


async def test_the_history_keeps_the_last_endings(autojump_clock, network):
    policy = RetryPolicy(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_attempt(25))
    story = [REFUSE] * 20 + [REJECT_503] * 5
    async with FaultServer(story, network=network) as server:
        failed = await fail(server, retry=policy)

    assert [HandshakeError] * 5 + [ConnectionRejected] * 5 == [
        type(error) for error in failed.history
    ]


# --- hooks --------------------------------------------------------------------------------------


async def test_s3_6_the_hook_is_first_on_the_wire_of_every_connection(autojump_clock, network):
    numbers = itertools.count(1)

    async def subscribe(connection):
        await connection.send_message(f"subscribe {next(numbers)}")
        await trio.sleep(0.1)
        await connection.send_message("and more")

    async with (
        FaultServer([Fault.reset(after_messages=3), NONE], network=network) as server,
        wsclient.open_channel(server.url, on_connect=subscribe, observers=()) as channel,
    ):
        await channel.send("one")
        await server.wait_over(1)
        await channel.send("two")
        await server.wait_messages(6)

    assert [["subscribe 1", "and more", "one"], ["subscribe 2", "and more", "two"]] == [
        visit.messages for visit in server.connections
    ]


async def test_s3_6_the_outbox_flows_only_when_the_hook_is_done(autojump_clock, network):
    async def slow(connection):
        await trio.sleep(5)

    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, on_connect=slow, observers=()) as channel,
    ):
        receipt = await channel.send("waits")
        await channel.wait_state(ChannelState.ESTABLISHING)
        await trio.sleep(4.9)

        assert ChannelState.ESTABLISHING is channel.state
        assert [] == server.messages
        assert None is receipt.outcome
        await server.wait_messages(1)

        assert 5 == trio.current_time()


async def test_s3_6_a_hook_talks_with_the_server_directly(autojump_clock, network):
    async def serve(connection):
        assert "who?" == await connection.receive()
        await connection.send("me!")
        await connection.send("news")
        await trio.sleep_forever()

    heard = []

    async def authenticate(connection):
        await connection.send_message("who?")
        heard.append(await connection.get_message())

    async with (
        FaultServer(network=network, handler=serve) as server,
        wsclient.open_channel(server.url, on_connect=authenticate, observers=()) as channel,
    ):
        assert "news" == await channel.receive()
    assert ["me!"] == heard


async def test_s3_6_messages_that_the_hook_does_not_take_go_to_the_inbox_in_order(
    autojump_clock, network
):
    async def serve(connection):
        for number in range(20):
            await connection.send(str(number))
        await trio.sleep_forever()

    async def take_two(connection):
        assert ["0", "1"] == [await connection.get_message() for _ in range(2)]
        await trio.sleep(1)

    async with (
        FaultServer(network=network, handler=serve) as server,
        wsclient.open_channel(server.url, on_connect=take_two, observers=()) as channel,
    ):
        assert [str(number) for number in range(2, 20)] == [
            await channel.receive() for _ in range(18)
        ]


async def test_s3_6_a_hook_that_raises_at_startup_is_fatal_with_its_cause(
    autojump_clock, network, recorder
):
    mine = LookupError("no such subscription")

    async def hook(connection):
        raise mine

    async with FaultServer(network=network) as server:
        failed = await fail(server, recorder, on_connect=hook)

    assert mine is failed.__cause__.__cause__
    assert EstablishError is type(failed.__cause__)
    assert (
        "gave up on ws://server.test: not established, fatal at startup:"
        " the on_connect hook raised LookupError: no such subscription"
    ) == str(failed)
    assert 1 == len(server.connections)
    # The peer is told, politely.
    assert 1000 == server.connections[0].close.code
    assert [False] == [lost.ready for lost in recorder.of(ConnectionLost)]


async def test_s3_6_a_hook_that_raises_in_steady_state_is_retried(
    autojump_clock, network, recorder
):
    calls = itertools.count(1)

    async def hook(connection):
        if next(calls) in (2, 3):
            raise LookupError("not now")

    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network) as server,
        wsclient.open_channel(server.url, on_connect=hook, observers=[recorder]) as channel,
    ):
        await recorder.wait_for(ConnectionReady, count=2)
        await channel.send("hello")
        await server.wait_messages(1)

    assert [1, 4] == [ready.epoch for ready in recorder.of(ConnectionReady)]
    assert [True, False, False] == [lost.ready for lost in recorder.of(ConnectionLost)]
    assert "the on_connect hook raised LookupError: not now" == recorder.of(ConnectionLost)[1].cause


async def test_s3_6_a_late_hook_is_fatal_at_startup(autojump_clock, network):
    async def hook(connection):
        await trio.sleep_forever()

    async with FaultServer(network=network) as server:
        failed = await fail(server, on_connect=hook)

    assert "the on_connect hook took longer than 15 s" in str(failed)
    assert EstablishError is type(failed.__cause__)
    assert 15 == server.connections[0].ended_at


async def test_s3_6_a_late_hook_is_retried_in_steady_state(autojump_clock, network, recorder):
    calls = itertools.count(1)

    async def hook(connection):
        if next(calls) == 2:
            await trio.sleep_forever()

    options = ConnectionOptions(establish_timeout=3)
    async with (
        FaultServer([Fault.reset(after=1), NONE], network=network) as server,
        wsclient.open_channel(
            server.url, on_connect=hook, connection=options, retry=AT_ONCE, observers=[recorder]
        ),
    ):
        await recorder.wait_for(ConnectionReady, count=2)

        assert 4 == trio.current_time()
    assert "the on_connect hook took longer than 3 s" == recorder.of(ConnectionLost)[1].cause


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.close(1011, after=1), 1011),
        (Fault.reset(after=1), 1006),
        (Fault.close(1008, after=1), 1008),
        (MASKED_FRAME.later(after=1), 1002),
    ],
    ids=repr,
)
async def test_s3_6_a_connection_that_dies_under_its_hook_cancels_it(
    autojump_clock, network, recorder, fault, code
):
    ended_at = []

    async def hook(connection):
        try:
            await trio.sleep(10)
        finally:
            ended_at.append(trio.current_time())

    async with (
        FaultServer([fault, NONE], network=network) as server,
        wsclient.open_channel(
            server.url, on_connect=hook, retry=AT_ONCE, observers=[recorder]
        ) as channel,
    ):
        # That is what happened: not a failure of the hook, which would be fatal.
        await channel.wait_ready()

    assert [1, 11] == ended_at
    assert [(code, False)] == [(lost.code, lost.ready) for lost in recorder.of(ConnectionLost)]


async def test_s3_6_whatever_a_hook_makes_of_the_death_of_its_connection_it_is_the_connections(
    autojump_clock, network, recorder
):
    async def hook(connection):
        try:
            await connection.get_message()
        except ConnectionClosed:
            raise LookupError("the hook's own words") from None

    async with (
        FaultServer([Fault.close(1011, after=1), NONE], network=network) as server,
        wsclient.open_channel(server.url, on_connect=hook, observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionOpened, count=2)

    assert ["the connection is closed: 1011 INTERNAL_ERROR"] == [
        lost.cause for lost in recorder.of(ConnectionLost)
    ]


async def test_s3_6_a_hook_may_raise_a_group(autojump_clock, network):
    async def hook(connection):
        raise ExceptionGroup("several", [ValueError("a"), LookupError("b")])

    async with FaultServer(network=network) as server:
        failed = await fail(server, on_connect=hook)

    assert ExceptionGroup is type(failed.__cause__.__cause__)


async def test_s3_6_a_hook_may_close_the_connection_and_the_channel_comes_back(
    autojump_clock, network, recorder
):
    calls = itertools.count(1)

    async def hook(connection):
        if next(calls) == 1:
            await connection.aclose(4000, "not this one")

    async with (
        FaultServer(network=network) as server,
        wsclient.open_channel(server.url, on_connect=hook, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()

    assert 4000 == server.connections[0].close.code
    assert 2 == len(server.connections)


async def test_s7_1_what_is_no_exception_leaves_a_hook_as_itself(autojump_clock, network):
    class Interrupt(BaseException):
        pass

    mine = Interrupt()

    async def hook(connection):
        raise mine

    async with FaultServer(network=network) as server:
        with pytest.raises(Interrupt) as caught:
            async with wsclient.open_channel(server.url, on_connect=hook, observers=()):
                await trio.sleep_forever()

    assert mine is caught.value


async def test_a_hook_that_is_not_asynchronous_is_told_so(autojump_clock, network):
    async with FaultServer(network=network) as server:
        failed = await fail(server, on_connect=lambda connection: None)

    assert "the on_connect hook raised TypeError" in str(failed)


async def test_the_hook_runs_also_while_the_channel_drains(autojump_clock, network):
    async def subscribe(connection):
        await connection.send_message("subscribe")

    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        wsclient.open_channel(server.url, on_connect=subscribe, observers=()) as channel,
    ):
        await channel.send("last words")

    assert ["subscribe", "last words"] == server.messages


# --- the old connection does not hold up the new one --------------------------------------------


async def test_the_closing_of_an_old_connection_never_delays_the_next_attempt(
    autojump_clock, network, recorder
):
    calls = itertools.count(1)

    async def hook(connection):
        if next(calls) == 2:
            raise LookupError("not now")

    story = [Fault.reset(after=1), MUTE_CLOSE, NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(
            server.url, on_connect=hook, retry=AT_ONCE, observers=[recorder]
        ) as channel,
    ):
        await recorder.wait_for(ConnectionReady, count=2)

        assert 1 == trio.current_time()
        assert not server.connections[1].is_over
        # Told in peace all the same, and cut when it did not answer.
        await channel.send("hello")
        await server.wait_over(2)

        assert (1000, 2.0) == (server.connections[1].close.code, server.connections[1].ended_at)


async def test_a_peer_that_does_not_end_the_stream_after_its_close_delays_nothing(
    autojump_clock, network, recorder
):
    async def close_and_stay(connection):
        await connection.send_raw(b"\x88\x02\x03\xe9")  # 1001
        await trio.sleep_forever()

    async with (
        FaultServer([NEVER_READS, NONE], network=network, handler=close_and_stay) as server,
        wsclient.open_channel(server.url, retry=AT_ONCE, observers=[recorder]),
    ):
        await server.wait_connections(2)

        assert 0 == trio.current_time()


# --- deciding otherwise -------------------------------------------------------------------------


async def test_s4_4_classify_can_be_overridden_and_may_ask_the_default(
    autojump_clock, network, recorder
):
    seen = []

    def decide(loss, phase):
        seen.append((loss.kind, loss.status, loss.code, loss.repeated, phase))
        if loss.status == 404:
            return Retry("it is being deployed", delay=(7, 7))
        return classify(loss, phase)

    story = [REJECT_404, REJECT_404, ACCEPT_THEN_CLOSE, NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, retry=RetryPolicy(classify=decide), observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionReady, count=2)

        assert [
            (LossKind.REJECTED, 404, None, 1, Phase.STARTUP),
            (LossKind.REJECTED, 404, None, 2, Phase.STARTUP),
            (LossKind.CLOSED, None, 1000, 1, Phase.STEADY),
        ] == seen
        assert [0, 7, 14] == [visit.opened_at for visit in server.connections[:3]]
    retries = recorder.of(RetryScheduled)

    assert ["it is being deployed"] * 2 + ["close code"] == [retry.rule for retry in retries]
    # The backoff has counted all of them.
    assert 1.25 <= retries[2].delay <= 2.25


@pytest.mark.parametrize("decision", [RetryFreshAuth("mine"), NextEndpoint("mine"), Retry("mine")])
async def test_every_kind_of_retry_retries(autojump_clock, network, recorder, decision):
    policy = RetryPolicy(classify=lambda loss, phase: decision)
    async with (
        FaultServer([REJECT_404, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()

    assert ["mine"] == [retry.rule for retry in recorder.of(RetryScheduled)]


async def test_ones_own_fatal_decision_is_final(autojump_clock, network):
    policy = RetryPolicy(classify=lambda loss, phase: Fatal("enough of it"))
    async with FaultServer([ACCEPT_THEN_CLOSE], network=network) as server:
        failed = await fail(server, retry=policy)

    assert "gave up on ws://server.test: enough of it" == str(failed)
    assert 1 == len(server.connections)


@pytest.mark.parametrize("decision", [None, True, "retry", Retry])
async def test_what_is_no_decision_is_told_so(autojump_clock, network, decision):
    policy = RetryPolicy(classify=lambda loss, phase: decision)
    async with FaultServer([REFUSE], network=network) as server:
        with pytest.raises(TypeError, match=r"RetryPolicy\.classify must return"):
            async with wsclient.open_channel(server.url, retry=policy, observers=()):
                await trio.sleep_forever()


@pytest.mark.parametrize("where", ["classify", "wait", "stop"])
async def test_s7_1_what_a_users_function_raises_leaves_as_itself(
    autojump_clock, network, recorder, where
):
    mine = LookupError("mine")

    def function(*_):
        raise mine

    async with FaultServer([REFUSE], network=network) as server:
        with pytest.raises(LookupError) as caught:
            async with wsclient.open_channel(
                server.url, retry=RetryPolicy(**{where: function}), observers=[recorder]
            ) as channel:
                receipt = await channel.send("waits")
                # Not a quiet end, as after closing.
                with pytest.raises(wsclient.ChannelFailed) as failed:
                    await channel.receive()
                raise failed.value

    assert mine is caught.value
    assert mine is failed.value.__cause__
    assert wsclient.Outcome.CANCELLED is receipt.outcome
    assert ChannelState.FAILED is channel.state
    assert 1 == len(recorder.of(wsclient.ChannelGaveUp))


async def test_a_wait_that_is_no_number_is_told_so(autojump_clock, network):
    policy = RetryPolicy(wait=lambda state: None)
    async with FaultServer([REFUSE], network=network) as server:
        with pytest.raises(ValueError, match="must give seconds, not None"):
            async with wsclient.open_channel(server.url, retry=policy, observers=()):
                await trio.sleep_forever()


# --- what it counts -----------------------------------------------------------------------------


async def test_epochs_and_attempts_are_counted(autojump_clock, network, recorder):
    story = [REFUSE, RESET_AFTER_OPEN, REFUSE, RESET_AFTER_OPEN, NONE]
    async with (
        FaultServer(story, network=network) as server,
        wsclient.open_channel(server.url, observers=[recorder]) as channel,
    ):
        assert (0, 0) == (channel.epoch, channel.statistics().epoch)
        await recorder.wait_for(ConnectionReady, count=3)

        assert 3 == channel.epoch
        assert (3, 5) == (channel.statistics().epoch, channel.statistics().attempts)
    assert [1, 2, 3] == [opened.epoch for opened in recorder.of(ConnectionOpened)]


async def test_a_timeout_while_connecting_is_told_by_its_kind(autojump_clock, network):
    policy = RetryPolicy(stop=tenacity.stop_after_attempt(1))
    async with FaultServer([SILENT_HANDSHAKE], network=network) as server:
        failed = await fail(server, retry=policy)

    assert ConnectionTimeout is type(failed.__cause__)
