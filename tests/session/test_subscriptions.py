"""Subscriptions through a whole channel: a wish that is kept across connections."""

from __future__ import annotations

import contextlib
import math

import pytest
import trio
import trio.testing

import wsclient
from wsclient import ChannelState, Gap, Limits, OverflowPolicy
from wsclient.errors import ChannelFailed, ReplyError, SubscriptionFailed
from wsclient.events import (
    ConnectionReady,
    GapDetected,
    HandlerFailed,
    InboxOverflowed,
    SubscriptionRefused,
    SubscriptionsRestored,
)
from wsclient.testing import FaultServer, ScriptedServer

from .subscribing import (
    Growing,
    Positioned,
    PubSub,
    Service,
    confirm,
    cut,
    cut_and_confirm,
    publish,
    say,
    settle,
    take,
)


@pytest.fixture
async def server(network):
    async with ScriptedServer(network=network) as server:
        yield server


@pytest.fixture
def open_channel(server, recorder):
    def open_channel(protocol=None, **options):
        options.setdefault("observers", [recorder])
        return wsclient.open_channel(server.url, protocol=protocol or PubSub(), **options)

    return open_channel


async def test_what_is_published_comes_out_of_its_feed_and_no_other(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        async with channel.subscribe("a") as a, channel.subscribe("b") as b:
            await confirm(server, "a")
            await confirm(server, "b")
            await publish(server, 1, 2)
            await publish(server, 3, key="b")
            await server.send("for nobody")

            assert [1, 2] == [await a.receive(), await a.receive()]
            assert await b.receive() == 3
            assert await channel.receive() == "for nobody"


async def test_s6_1_a_wish_is_kept_across_connections_and_the_channel_is_ready_once_it_is_there(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)
        await feed.wait_live()
        await settle()
        await server.reset()
        await channel.wait_state(ChannelState.WAITING)
        assert not feed.is_live
        await server.accept(within=60)
        await server.expect(lambda message: '"a"' in message)
        await settle()

        assert channel.state is ChannelState.ESTABLISHING

        await server.send({"op": "subscribed", "key": "a"})
        await channel.wait_ready()
        await publish(server, 2)
        items = feed.items()

        assert await anext(items) == 1
        gap = await anext(items)
        assert (gap.subscription, gap.after, gap.before) == ("a", 1, 2)
        assert await anext(items) == 2
    restored = recorder.of(SubscriptionsRestored)[-1]
    assert (restored.epoch, restored.subscriptions, restored.resumed, restored.delayed) == (
        2,
        1,
        0,
        0,
    )
    # The feed's gap says no more than the channel's, which was told.
    assert [None] == [event.gap.subscription for event in recorder.of(GapDetected)]


async def test_s6_1_unsubscribing_while_offline_only_edits_the_set(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("b"):
        async with channel.subscribe("a"):
            await confirm(server, "b")
            await confirm(server, "a")
            await channel.wait_ready()
            await server.reset()
            await channel.wait_state(ChannelState.WAITING)
        await server.accept(within=60)
        await confirm(server, "b")
        await channel.wait_ready()
        await settle()

        # Nothing was said of the other one: neither that it is wanted, nor that it is not.
        assert len(server.connections[-1].messages) == 1


async def test_s6_1_what_is_subscribed_and_unsubscribed_during_an_outage_is_never_mentioned(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        await server.accept()
        await channel.wait_ready()
        await server.reset()
        await channel.wait_state(ChannelState.WAITING)
        async with channel.subscribe("a"):
            pass
        await server.accept(within=60)
        await channel.wait_ready()
        await settle()

        assert server.messages == []


async def test_unsubscribing_tells_the_server(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        async with channel.subscribe("a"):
            await confirm(server)
        await server.expect({"op": "unsubscribe", "key": "a"})
        # What was on its way is nobody's, and is not the channel's.
        await publish(server, 1)
        await server.send({"op": "unsubscribed", "key": "a"})
        await server.send("next")

        assert await channel.receive() == "next"
        assert channel.statistics().subscriptions_wanted == 0


async def test_what_is_not_wanted_any_more_is_unsubscribed_once_the_server_has_confirmed_it(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        await server.accept()
        await channel.wait_ready()
        async with channel.subscribe("a"):
            await server.expect(lambda message: '"subscribe"' in message)
        await settle()
        await server.send({"op": "subscribed", "key": "a"})

        await server.expect({"op": "unsubscribe", "key": "a"})


async def test_a_key_that_is_wanted_again_is_asked_for_behind_its_end(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        async with channel.subscribe("a"):
            await confirm(server)
            await channel.wait_ready()
        async with channel.subscribe("a") as feed:
            await server.expect({"op": "unsubscribe", "key": "a"})
            await server.send({"op": "unsubscribed", "key": "a"})
            await confirm(server)
            await publish(server, 1)

            assert await feed.receive() == 1


async def test_many_feeds_of_one_key_share_one_subscription_and_each_gets_every_value(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        async with channel.subscribe("a") as one:
            async with channel.subscribe("a") as other:
                await confirm(server)
                await publish(server, 1)

                assert (await one.receive(), await other.receive()) == (1, 1)
            await publish(server, 2)

            assert await one.receive() == 2
            assert len(server.messages) == 1
        await server.expect({"op": "unsubscribe", "key": "a"})


async def test_one_key_has_one_meaning(autojump_clock, server, open_channel):
    async with open_channel() as channel, channel.subscribe("a", {"depth": 5}):
        with pytest.raises(ValueError, match="'a' is subscribed to with other parameters"):
            async with channel.subscribe("a", {"depth": 7}):
                pass


async def test_what_matters_most_is_asked_for_first(autojump_clock, network, recorder):
    service = Service()
    async with FaultServer(handler=service.handler, network=network) as server:
        async with wsclient.open_channel(server.url, protocol=PubSub(), observers=[]) as channel:
            async with (
                channel.subscribe("low", priority=-1),
                channel.subscribe("first"),
                channel.subscribe("second"),
                channel.subscribe("high", priority=5),
            ):
                await channel.wait_ready()

                assert ["high", "first", "second", "low"] == [key for _, key, _ in service.asked]


# Positions.


async def test_s6_2_a_stream_with_positions_goes_on_behind_the_last_one(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel(Positioned()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1, 2)
        await settle()
        await server.reset()
        await channel.wait_state(ChannelState.WAITING)
        await server.accept(within=60)
        await server.expect({"op": "subscribe", "key": "a", "after": 2})
        await server.send({"op": "subscribed", "key": "a", "resumed": True})
        await publish(server, 2, 3)
        await channel.wait_ready()

        items = feed.items()
        assert [1, 2, 3] == [await anext(items) for _ in range(3)]
        assert channel.is_resumed
        assert feed.repeated == 1
    assert [None, True] == [event.resumed for event in recorder.of(ConnectionReady)]


async def test_another_process_goes_on_where_the_last_one_was(autojump_clock, server, open_channel):
    async with open_channel(Positioned()) as channel, channel.subscribe("a", after=41) as feed:
        await server.expect({"op": "subscribe", "key": "a", "after": 41})
        await server.send({"op": "subscribed", "key": "a", "resumed": True})
        assert feed.position == 41
        await publish(server, 42)

        assert await anext(feed.items()) == 42


async def test_another_process_is_told_if_the_server_cannot_go_on_there(
    autojump_clock, server, open_channel
):
    async with open_channel(Positioned()) as channel, channel.subscribe("a", after=41) as feed:
        await confirm(server)
        await publish(server, 50)

        gap = await anext(feed.items())
        assert (gap.after_position, gap.before_position) == (41, 50)
        assert "did not go on" in gap.reason


async def test_the_feed_that_is_farthest_behind_says_where_to_go_on(
    autojump_clock, server, open_channel
):
    async with open_channel(Positioned()) as channel:
        async with channel.subscribe("a", after=5), channel.subscribe("a", after=3):
            await server.expect({"op": "subscribe", "key": "a", "after": 3})


async def test_a_feed_that_comes_later_is_told_what_the_others_have_had(
    autojump_clock, server, open_channel
):
    async with open_channel(Growing()) as channel, channel.subscribe("a") as first:
        await confirm(server)
        await publish(server, 7)
        await first.receive()
        async with channel.subscribe("a", after=4) as second, channel.subscribe("a") as third:
            await publish(server, 8)

            gap = await anext(second.items())
            assert (gap.after_position, gap.before_position) == (4, 8)
            assert gap.reason == "it has begun later than others of its key"
            assert await anext(third.items()) == 8


async def test_where_values_may_come_again_at_any_time_they_are_dropped(
    autojump_clock, server, open_channel
):
    class Repeating(Positioned):
        repeats = True

    async with open_channel(Repeating()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1, 2, 1, 2, 3)

        assert [1, 2, 3] == await take(feed, 3)
        assert feed.repeated == 2


async def test_what_is_left_out_of_what_waits_when_the_channel_gives_up_lies_on_the_last_connection(
    autojump_clock, server, open_channel
):
    async def past(gap):
        await trio.sleep_forever()

    with pytest.raises(ChannelFailed):
        async with open_channel(Positioned()) as channel:
            async with channel.subscribe("a", backfill=past) as feed:
                await confirm(server)
                await channel.wait_ready()
                await publish(server, 1, 3, 7)
                await server.close(3003)
                told = await take(feed, 5)
                await feed.receive()

    assert [1, 3, 7] == told[::2]
    assert [(1, 1, 1, 3), (1, 1, 3, 7)] == [
        (gap.after, gap.before, gap.after_position, gap.before_position) for gap in told[1::2]
    ]


async def test_a_gap_begins_when_the_last_was_heard_and_ends_when_the_subscription_is_there(
    autojump_clock, server, open_channel
):
    silent = wsclient.HeartbeatOptions(interval=math.inf)
    async with open_channel(heartbeat=silent) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await trio.sleep(7)
        await publish(server, 1)
        assert await feed.receive() == 1
        began_at = trio.current_time()
        await trio.sleep(30)
        await cut_and_confirm(server, channel)

        gap = await anext(feed.items())
        assert gap.until - gap.since == pytest.approx(trio.current_time() - began_at)


# The server's refusals.


async def test_a_subscription_that_the_server_refuses_fails_its_feed_alone(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await server.expect(lambda message: '"a"' in message)
        await server.send({"op": "refused", "key": "a", "why": "no such stream"})

        with pytest.raises(
            SubscriptionFailed, match="'a': ReplyError: the peer refuses: no such"
        ) as caught:
            await feed.receive()
        assert isinstance(caught.value.__cause__, ReplyError)
        with pytest.raises(SubscriptionFailed):
            await feed.wait_live()
        await channel.wait_ready()
        assert channel.statistics().subscriptions_wanted == 0
    refused = recorder.of(SubscriptionRefused)[0]
    assert (refused.subscription, refused.retry_in) == ("a", None)


async def test_a_stream_that_the_server_ends_ends_its_feed(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)
        await server.send({"op": "refused", "key": "a"})

        assert [1] == [value async for value in feed]
    assert recorder.of(SubscriptionRefused) == []


async def test_s6_1_a_failing_subscription_backs_off_alone(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel() as channel:
        async with channel.subscribe("a") as a, channel.subscribe("b") as b:
            await server.expect(lambda message: '"a"' in message)
            await server.send({"op": "refused", "key": "a", "why": "too busy", "later": True})
            await confirm(server, "b")
            await channel.wait_ready()
            await publish(server, 1, key="b")

            assert await b.receive() == 1
            assert not a.is_live
            assert recorder.of(SubscriptionRefused)[0].retry_in <= 1

            await confirm(server, "a")
            await publish(server, 2)

            assert await a.receive() == 2
    assert [1] == [event.delayed for event in recorder.of(SubscriptionsRestored)]


async def test_a_subscription_that_is_taken_and_ended_at_once_sees_no_hot_loop(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a"):
        await channel.wait_state(ChannelState.ESTABLISHING)
        began_at = trio.current_time()
        for _ in range(8):
            await server.expect(lambda message: '"a"' in message, within=60)
            await server.send({"op": "subscribed", "key": "a"})
            await server.send({"op": "refused", "key": "a", "why": "busy", "later": True})

        assert trio.current_time() - began_at > 20


async def test_a_protocol_without_subscriptions_says_so(autojump_clock, server, open_channel):
    async with open_channel(wsclient.Protocol()) as channel, channel.subscribe("a") as feed:
        with pytest.raises(SubscriptionFailed, match="Protocol has no subscriptions"):
            await feed.receive()


async def test_a_message_that_the_protocol_cannot_read_goes_to_the_channel(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel() as channel:
        await server.send("not JSON")

        assert await channel.receive() == "not JSON"
    assert recorder.of(HandlerFailed)[0].handler == "PubSub.recognise"


async def test_what_the_user_subscribed_to_by_hand_stays_the_users(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel() as channel:
        await publish(server, 1)
        await server.send({"nothing": "of the protocol"})

        assert await channel.receive() == '{"key": "a", "n": 1}'
        assert await channel.receive() == '{"nothing": "of the protocol"}'
    assert recorder.of(HandlerFailed) == []


async def test_values_that_come_before_the_confirmation_come_behind_its_gap(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await settle()
        await server.reset()
        await channel.wait_state(ChannelState.WAITING)
        await server.accept(within=60)
        await server.expect(lambda message: '"a"' in message)
        await publish(server, 1)
        await settle()
        await server.send({"op": "subscribed", "key": "a"})

        items = feed.items()
        assert isinstance(await anext(items), Gap)
        assert await anext(items) == 1


@pytest.mark.parametrize(
    ("why", "reason"),
    [({}, "the server has ended it"), ({"why": "busy"}, "the peer refuses: busy")],
)
async def test_a_subscription_that_the_server_ends_for_a_while_goes_on_behind_a_gap(
    autojump_clock, server, open_channel, why, reason
):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)
        await server.send({"op": "refused", "key": "a", "later": True, **why})
        await confirm(server)
        await publish(server, 2)

        one, gap, two = await take(feed, 3)
        assert (one, gap.reason, gap.after, gap.before, two) == (1, reason, 1, 1, 2)


async def test_a_subscription_that_was_there_for_long_backs_off_anew(
    autojump_clock, server, open_channel, recorder
):
    retry = wsclient.RetryPolicy(wait=lambda state: 10.0 * state.attempt_number, stable_after=60)
    async with open_channel(retry=retry) as channel, channel.subscribe("a"):
        for seconds in (0, 59, 61, 60):
            await confirm(server)
            await trio.sleep(seconds)
            await server.send({"op": "refused", "key": "a", "why": "busy", "later": True})
        await confirm(server)
    refused = recorder.of(SubscriptionRefused)
    assert [10, 20, 10, 10] == [event.retry_in for event in refused]


async def test_observers_are_told_of_values_that_nobody_took_in_time(
    autojump_clock, server, open_channel, recorder
):
    limits = Limits(inbox_messages=10, inbox_overflow=OverflowPolicy.DROP_OLDEST)
    async with open_channel() as channel, channel.subscribe("a", limits=limits):
        await confirm(server)
        await publish(server, *range(200))
        await settle()
    assert [1, 190] == [event.dropped for event in recorder.of(InboxOverflowed)]


# The ends.


async def test_a_channel_that_has_ended_subscribes_to_nothing(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        await channel.aclose()
        with pytest.raises(trio.ClosedResourceError):
            async with channel.subscribe("a"):
                pass


async def test_s2_7_the_channels_end_ends_its_feeds(autojump_clock, server, open_channel):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)
        await settle()
        await channel.aclose()

        assert [] == [value async for value in feed]
        with pytest.raises(trio.ClosedResourceError):
            await feed.wait_live()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"key": []}, TypeError, "key must be hashable, not list"),
        ({"key": "a", "backfill": 7}, TypeError, "backfill must be an async function, not int"),
        ({"key": "a", "snapshot": 7}, TypeError, "snapshot must be an async function, not int"),
        ({"key": "a", "commit": "never"}, ValueError, 'commit must be "after" or "before"'),
        ({"key": "a", "priority": "high"}, TypeError, "priority must be a number, not str"),
        ({"key": "a", "limits": 7}, TypeError, "limits must be Limits, not int"),
    ],
)
async def test_what_cannot_be_subscribed_to_is_said_at_once(
    autojump_clock, server, open_channel, arguments, error, text
):
    async with open_channel() as channel:
        with pytest.raises(error, match=text):
            channel.subscribe(**arguments)


async def test_a_channel_without_a_protocol_says_what_subscribing_needs(
    autojump_clock, server, recorder
):
    async with wsclient.open_channel(server.url, observers=[recorder]) as channel:
        with pytest.raises(ValueError, match="open the channel with protocol="):
            channel.subscribe("a")


# Two connections.


@pytest.mark.parametrize("redundancy", [1, 2])
async def test_s6_3_moving_to_a_new_connection_misses_nothing_and_repeats_nothing(
    autojump_clock, network, recorder, redundancy
):
    service = Service()

    async def say(n):
        for connection, subscribed in zip(service.connections, service.sets, strict=True):
            if "a" in subscribed and connection.visit.close is None:
                await connection.send(f'{{"key": "a", "n": {n}}}')

    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(
            server.url,
            protocol=Positioned(),
            observers=[recorder],
            rotate_every=10,
            redundancy=redundancy,
        ) as channel,
        channel.subscribe("a") as feed,
    ):
        await channel.wait_ready()
        items = feed.items()
        for n in range(100):
            with trio.move_on_after(0.5):
                await trio.sleep_forever()
            with contextlib.suppress(trio.BrokenResourceError):
                await say(n)
            assert await anext(items) == n

        assert len(service.sets) > 4
        assert channel.statistics().gaps == 0


async def test_s6_3_what_the_second_connection_is_refused_goes_on_on_the_first(
    autojump_clock, two, nursery
):
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery)
        second = await two.accept(nursery, confirm=False)
        await second.say('{"op": "refused", "key": "a", "why": "one is enough"}')
        await settle()
        await say(first, 1)

        assert await feed.receive() == 1
        assert feed.is_live


@pytest.mark.parametrize("redundancy", [1, 2])
async def test_s3_ready_says_whether_anything_was_missed_since_the_connection_before(
    autojump_clock, network, recorder, redundancy
):
    service = Service()
    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(
            server.url, protocol=Positioned(), observers=[recorder], redundancy=redundancy
        ) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(5)
        assert channel.has_standby == (redundancy == 2)
        service.connections[0].reset()
        await trio.sleep(5)

        assert channel.is_resumed == (redundancy == 2)
    assert [None, redundancy == 2] == [event.resumed for event in recorder.of(ConnectionReady)]


async def test_rotation_needs_positions_or_dedupe(autojump_clock, server, open_channel):
    with pytest.raises(ValueError, match="a protocol with positions"):
        open_channel(PubSub(), rotate_every=10)
    open_channel(Positioned(), rotate_every=10)


# What was broken once.


async def test_s6_2_a_feed_that_has_received_nothing_does_not_keep_the_others_from_resuming(
    autojump_clock, server, open_channel
):
    async with open_channel(Positioned()) as channel, channel.subscribe("a") as first:
        await confirm(server)
        await publish(server, 7)
        assert await first.receive() == 7
        async with channel.subscribe("a") as second:
            await cut(server, channel)
            await server.expect({"op": "subscribe", "key": "a", "after": 7})
            await server.send({"op": "subscribed", "key": "a", "resumed": True})
            await publish(server, 8)

            assert [8, 8] == [await anext(feed.items()) for feed in (first, second)]


async def test_a_feed_that_begins_during_an_outage_has_missed_nothing(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a") as first:
        await confirm(server)
        await settle()
        await server.reset()
        await channel.wait_state(ChannelState.WAITING)
        async with channel.subscribe("a") as second:
            await server.accept(within=60)
            await confirm(server)
            await publish(server, 1)

            assert isinstance(await anext(first.items()), Gap)
            assert await anext(second.items()) == 1


@pytest.mark.parametrize("ordered", [True, False])
async def test_s6_2_a_feed_that_begins_farther_back_than_was_asked_for_is_told_so(
    autojump_clock, server, open_channel, ordered
):
    early = 3 if ordered else "three"
    async with open_channel(Growing()) as channel, channel.subscribe("a", after=7) as first:
        await server.expect({"op": "subscribe", "key": "a", "after": 7})
        async with channel.subscribe("a", after=early) as second:
            await server.send({"op": "subscribed", "key": "a", "resumed": True})
            await publish(server, 8)

            assert await anext(first.items()) == 8
            gap = await anext(second.items())
            assert isinstance(gap, Gap)
            assert gap.after_position == early


async def test_a_feed_that_is_left_by_an_observer_is_in_nobodys_way(
    autojump_clock, server, open_channel
):
    feeds = []

    def leave(event):
        if isinstance(event, GapDetected):
            feeds[0].close()

    async with open_channel(Positioned(), observers=[leave]) as channel:
        async with channel.subscribe("a") as first, channel.subscribe("a") as second:
            feeds.append(first)
            await confirm(server)
            await publish(server, 1, 3)

            assert [1, 3] == [await second.receive(), await second.receive()]


async def test_i10_a_channel_that_has_ended_holds_no_connection_and_no_feed(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a"):
        await confirm(server)
        await channel.wait_ready()
    subscriptions = channel._subscriptions

    assert (len(subscriptions), list(subscriptions._enrolments)) == (0, [])


async def test_positions_without_an_order_are_asked_for_as_the_oldest_feed_has_them(
    autojump_clock, server, open_channel
):
    async with open_channel(Growing()) as channel:
        async with channel.subscribe("a", after="one"), channel.subscribe("a", after=2):
            await server.expect({"op": "subscribe", "key": "a", "after": "one"})


async def test_a_position_that_cannot_be_found_is_told_and_its_value_received(
    autojump_clock, server, open_channel, recorder
):
    class Broken(PubSub):
        def position(self, value):
            raise KeyError("seq")

    async with open_channel(Broken()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)

        assert await feed.receive() == 1
    failed = recorder.of(HandlerFailed)[0]
    assert failed.subject == "a position"
    assert failed.handler.endswith(".Broken")


async def test_a_backfill_can_ask_the_server_itself(autojump_clock, server, open_channel):
    async with open_channel(
        Positioned(), delivery=wsclient.DeliveryOptions(correlation=wsclient.JsonCorrelation())
    ) as channel:

        async def past(gap):
            reply = await channel.request({"op": "history", "after": gap.after_position})
            return reply["values"]

        async with channel.subscribe("a", backfill=past) as feed:
            await confirm(server)
            await publish(server, 1)
            await cut(server, channel)
            await confirm(server)
            await publish(server, 4)
            await server.expect({"op": "history", "after": 1, "id": 1})
            await server.send({"id": 1, "values": [2, 3]})

            assert await take(feed, 4) == [1, 2, 3, 4]


async def test_a_feed_that_was_refused_is_left_although_another_has_its_key(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        async with channel.subscribe("a"):
            await server.expect(lambda message: '"a"' in message)
            await server.send({"op": "refused", "key": "a", "why": "no such stream"})
            await settle()
            second = channel.subscribe("a")
            await second.__aenter__()
        await confirm(server)
        await publish(server, 1)

        assert await second.receive() == 1


async def test_s6_3_what_was_asked_for_before_another_connection_had_it_may_repeat_that_one(
    autojump_clock, two, nursery
):
    later = '{"op": "refused", "key": "a", "why": "busy", "later": true}'
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery, confirm=False)
        await first.say(later)
        second = await two.by_hand.accept()
        nursery.start_soon(two._listen, second)
        await two.cover(first)
        await trio.sleep(2)
        # Both are asked now.
        await first.say('{"op": "subscribed", "key": "a"}')
        await say(first, 1, 2)
        await first.say(later)
        await second.say('{"op": "subscribed", "key": "a"}')
        await say(second, 2, 3)

        assert [1, 2, 3] == await take(feed, 3)
        assert feed.repeated == 1


async def test_s6_3_what_was_asked_for_while_another_connection_had_it_may_repeat_that_one(
    autojump_clock, two, nursery
):
    later = '{"op": "refused", "key": "a", "why": "busy", "later": true}'
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery)
        second = await two.accept(nursery, confirm=False)
        await second.say(later)
        await two.cover(first)
        await trio.sleep(2)
        # The second one is asked again.
        await say(first, 1, 2)
        await first.say(later)
        await second.say('{"op": "subscribed", "key": "a"}')
        await say(second, 2, 3)

        assert [1, 2, 3] == await take(feed, 3)
        assert feed.repeated == 1
