"""What one server has of the subscriptions that are wanted, and how it gets there."""

from __future__ import annotations

import contextlib
import json
import os
import random

import pytest
import trio
import trio.testing

import wsclient
from wsclient import (
    Answer,
    ChannelState,
    DeliveryOptions,
    Limits,
    Protocol,
    Published,
    RetryBudget,
    RetryPolicy,
    SendRate,
    Subscribed,
    SubscriptionOptions,
)
from wsclient.errors import SubscriptionFailed
from wsclient.events import (
    ConnectionLeft,
    ConnectionLost,
    HandlerFailed,
    SubscriptionRefused,
    SubscriptionsRestored,
)
from wsclient.session._inbox import MESSAGE_COST
from wsclient.testing import SILENCE, FaultServer, ScriptedServer, _frames

from .subscribing import (
    Growing,
    Positioned,
    PubSub,
    Service,
    by_connection,
    confirm,
    cut,
    publish,
    say,
    settle,
    take,
)

IS_FULL = os.environ.get("WSCLIENT_SERVERS") == "all"

PATIENT = RetryPolicy(budget=RetryBudget(attempts=100_000))


class Keep:
    """Keeps feeds for keys as long as its block lasts."""

    def __init__(self, nursery, channel, keys):
        self._nursery = nursery
        self._channel = channel
        self._keys = list(keys)

    async def __aenter__(self):
        for key in self._keys:
            await self._nursery.start(self._keep, key)
        return self

    async def _keep(self, key, task_status):
        async with self._channel.subscribe(key):
            task_status.started()
            await trio.sleep_forever()

    async def __aexit__(self, *_):
        self._nursery.cancel_scope.cancel()


def keys(count):
    return {str(number) for number in range(count)}


@pytest.mark.once
@pytest.mark.parametrize("first", range(0, 31, 3))
async def test_i12_the_servers_set_is_what_is_wanted_wherever_restoring_was_cut_off(
    autojump_clock, network, first
):
    # Of the second connection `first` messages are read, of the third each number there can be.
    for second in range(31):
        service = Service({1: first, 2: second})
        async with (
            FaultServer(handler=service.handler, network=network) as server,
            wsclient.open_channel(
                server.url, protocol=PubSub(), observers=[], retry=PATIENT
            ) as channel,
            trio.open_nursery() as nursery,
            Keep(nursery, channel, keys(30)),
        ):
            await channel.wait_ready()
            await settle()
            service.connections[0].reset()
            await channel.wait_state(ChannelState.WAITING)
            # One cut after the last message finds the channel ready already.
            while len(service.sets) < 4:
                await channel.wait_ready()
                if len(service.sets) < 4:
                    service.connections[-1].reset()
                    await channel.wait_state(ChannelState.WAITING)
            await channel.wait_ready()

            assert keys(30) == service.sets[-1]


@pytest.mark.once
@pytest.mark.timeout(1200)
async def test_i12_a_thousand_subscriptions_come_back_wherever_restoring_is_cut_off(
    autojump_clock, network
):
    # Every second connection is cut after so many messages; and the one before was whole.
    points = range(1001) if IS_FULL else sorted(random.Random(12).sample(range(1001), 20))
    service = Service({2 * turn + 1: point for turn, point in enumerate(points)})
    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(
            server.url, protocol=PubSub(), observers=[], retry=PATIENT
        ) as channel,
        trio.open_nursery() as nursery,
    ):
        async with Keep(nursery, channel, keys(1000)):
            for turn in range(len(points)):
                await channel.wait_ready()
                await settle()
                assert keys(1000) == service.sets[-1]
                assert len(service.sets) == 2 * turn + 1
                service.connections[-1].reset()
                await channel.wait_state(ChannelState.WAITING)
                await channel.wait_state(ChannelState.ESTABLISHING)
                server.clear()
                if points[turn] == 1000:
                    # It was cut behind the last one, when it was ready.
                    await channel.wait_ready()
                    service.connections[-1].reset()
                await channel.wait_state(ChannelState.WAITING)
            await channel.wait_ready()

            assert keys(1000) == service.sets[-1]


async def test_i12_what_changes_while_it_is_restored_is_what_the_server_has_in_the_end(
    autojump_clock, network
):
    dice = random.Random(7)
    service = Service()
    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(
            server.url, protocol=PubSub(), observers=[], retry=PATIENT
        ) as channel,
        trio.open_nursery() as nursery,
    ):
        wanted = {}

        async def keep(key, task_status):
            with trio.CancelScope() as scope:
                async with channel.subscribe(key):
                    task_status.started(scope)
                    await trio.sleep_forever()

        for _ in range(2000):
            key = str(dice.randrange(40))
            if key in wanted:
                wanted.pop(key).cancel()
            else:
                wanted[key] = await nursery.start(keep, key)
            if dice.random() < 0.05 and service.connections:
                service.connections[-1].reset()
            if dice.random() < 0.3:
                await trio.sleep(dice.random())
        await trio.sleep(1)
        await channel.wait_ready()
        await trio.sleep(1)

        assert set(wanted) == service.sets[-1]
        nursery.cancel_scope.cancel()


async def test_so_many_wait_for_their_confirmation_at_once_and_no_more(
    autojump_clock, server, open_channel, nursery
):
    options = SubscriptionOptions(in_flight=5)
    async with open_channel(subscriptions=options) as channel, Keep(nursery, channel, "abcdefgh"):
        await server.accept()
        await settle()
        assert len(server.messages) == 5
        for key in "abc":
            await server.send({"op": "subscribed", "key": key})
            await settle()

        assert len(server.messages) == 8


@pytest.mark.parametrize("where", ["subscriptions", "delivery"])
async def test_s6_1_they_are_asked_for_no_faster_than_the_service_allows(
    autojump_clock, network, where
):
    rate = SendRate(messages=10, reserve=0)
    options = {
        "subscriptions": {"subscriptions": SubscriptionOptions(rate=rate)},
        "delivery": {"delivery": DeliveryOptions(rate=rate)},
    }[where]
    service = Service()
    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(server.url, protocol=PubSub(), observers=[], **options) as channel,
        trio.open_nursery() as nursery,
        Keep(nursery, channel, keys(60)),
    ):
        began_at = trio.current_time()
        await trio.sleep(4)
        assert 40 <= len(service.asked) <= 52
        await trio.sleep(2)
        assert keys(60) == service.sets[0]
        assert trio.current_time() - began_at < 7


@pytest.fixture
async def server(network):
    async with ScriptedServer(network=network) as server:
        yield server


@pytest.fixture
def open_channel(server, recorder):
    def open_channel(protocol=None, **options):
        return wsclient.open_channel(
            server.url, protocol=protocol or PubSub(), observers=[recorder], **options
        )

    return open_channel


async def is_asked(server, key, within=60):
    await server.expect(
        lambda message: f'"{key}"' in message and '"subscribe"' in message, within=within
    )


async def restore(server, channel):
    """Cut the connection that has the subscriptions a and b, and wait until they are asked for."""
    for key in "ab":
        await is_asked(server, key)
        await server.send({"op": "subscribed", "key": key})
    await channel.wait_ready()
    await server.reset()
    await channel.wait_state(ChannelState.WAITING)
    await server.accept(within=60)
    await is_asked(server, "a")
    await is_asked(server, "b")


async def test_s6_1_a_server_that_confirms_nothing_is_given_up_for_another_attempt(
    autojump_clock, server, open_channel, recorder
):
    options = SubscriptionOptions(timeout=3)
    async with open_channel(subscriptions=options) as channel:
        async with channel.subscribe("a"), channel.subscribe("b"):
            await restore(server, channel)
            began_at = trio.current_time()
            await server.accept(within=60)
            # Each backs off alone: either may be the first.
            await server.expect(lambda message: '"subscribe"' in message)

            assert 3 <= trio.current_time() - began_at <= 6
    lost = recorder.of(ConnectionLost)[-1]
    assert (lost.cause, lost.ready) == ("the server confirmed no subscription within 3 s", False)


async def test_s6_1_a_server_that_confirms_nothing_at_startup_is_told_and_no_hook_is_blamed(
    autojump_clock, server, open_channel
):
    with pytest.raises(wsclient.ChannelFailed) as failed:
        async with (
            open_channel(subscriptions=SubscriptionOptions(timeout=3)) as channel,
            channel.subscribe("a") as feed,
        ):
            await feed.receive()

    assert str(failed.value).endswith(
        ": not established, fatal at startup: the server confirmed no subscription within 3 s"
    )


async def test_s6_1_a_subscription_that_is_not_confirmed_is_in_nobodys_way(
    autojump_clock, server, open_channel, recorder
):
    options = SubscriptionOptions(timeout=3)
    async with open_channel(subscriptions=options) as channel:
        async with channel.subscribe("a") as a, channel.subscribe("b") as b:
            await restore(server, channel)
            await server.send({"op": "subscribed", "key": "b"})
            await channel.wait_ready()

            assert (a.is_live, b.is_live) == (False, True)
            await is_asked(server, "a")
            await server.send({"op": "subscribed", "key": "a"})
            await a.wait_live()
    refused = recorder.of(SubscriptionRefused)
    assert ["not confirmed within 3 s"] == [str(event.error) for event in refused]
    assert [1] == [event.delayed for event in recorder.of(SubscriptionsRestored)[-1:]]


async def test_s6_1_the_time_for_restoring_begins_anew_with_each_that_is_restored(
    autojump_clock, server, open_channel, recorder
):
    options = SubscriptionOptions(timeout=3)
    async with open_channel(subscriptions=options) as channel:
        async with channel.subscribe("a"), channel.subscribe("b"):
            await restore(server, channel)
            for key in "ab":
                await trio.sleep(2.5)
                await server.send({"op": "subscribed", "key": key})
            await channel.wait_ready()
    assert recorder.of(SubscriptionRefused) == []
    assert recorder.of(SubscriptionsRestored)[-1].duration == pytest.approx(5, abs=0.5)


async def test_a_confirmation_that_comes_too_late_counts_all_the_same(
    autojump_clock, server, open_channel
):
    options = SubscriptionOptions(timeout=3)
    async with (
        open_channel(subscriptions=options, retry=RetryPolicy(wait=lambda state: 20)) as channel,
        channel.subscribe("a") as a,
        channel.subscribe("b"),
    ):
        await restore(server, channel)
        await server.send({"op": "subscribed", "key": "b"})
        await channel.wait_ready()
        await server.send({"op": "subscribed", "key": "a"})
        await settle()

        assert a.is_live


async def test_a_late_confirmation_of_what_is_not_wanted_any_more_is_taken_back(
    autojump_clock, server, open_channel
):
    options = SubscriptionOptions(timeout=3)
    async with (
        open_channel(subscriptions=options, retry=RetryPolicy(wait=lambda state: 20)) as channel,
        channel.subscribe("a"),
    ):
        async with channel.subscribe("b"):
            await restore(server, channel)
            await server.send({"op": "subscribed", "key": "a"})
            await channel.wait_ready()
        await server.send({"op": "subscribed", "key": "b"})

        await server.expect({"op": "unsubscribe", "key": "b"})


async def test_restoring_ends_at_once_where_the_connection_does(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a"), channel.subscribe("b"):
        await restore(server, channel)
        began_at = trio.current_time()
        await server.reset()
        await channel.wait_state(ChannelState.WAITING)

        assert trio.current_time() == began_at


async def test_the_channel_can_be_left_while_it_restores(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        async with channel.subscribe("a"), channel.subscribe("b"):
            await restore(server, channel)
        began_at = trio.current_time()

    assert trio.current_time() - began_at <= 2


async def test_a_full_inbox_does_not_keep_the_confirmations_from_coming(
    autojump_clock, server, open_channel
):
    async with open_channel(limits=wsclient.Limits(inbox_messages=5)) as channel:
        async with channel.subscribe("a"), channel.subscribe("b"):
            await restore(server, channel)
            for number in range(200):
                await server.send(f"number {number}")
            for key in "ab":
                await server.send({"op": "subscribed", "key": key})

            await channel.wait_ready()


async def test_what_is_too_much_to_read_behind_a_full_inbox_is_another_attempt(
    autojump_clock, server, open_channel, recorder
):
    limits = wsclient.Limits(inbox_messages=5, inbox_overrun=1000)
    async with open_channel(limits=limits) as channel:
        async with channel.subscribe("a"), channel.subscribe("b"):
            await restore(server, channel)
            with contextlib.suppress(trio.BrokenResourceError):
                for number in range(200):
                    await server.send(f"number {number}")
            await channel.wait_state(ChannelState.WAITING)
    assert "the inbox is full" in recorder.of(ConnectionLost)[-1].cause


# Protocols of other kinds.


class ByNumber(Protocol):
    """A server that has names of its own for subscriptions, and tells them when it is asked."""

    named_by = "number"

    def subscribe(self, wish):
        return json.dumps({"call": wish.number})

    def unsubscribe(self, wish, token):
        return json.dumps({"end": token})

    def recognise(self, message):
        match json.loads(message):
            case {"reply": int(number), "token": token}:
                return Subscribed(number, token=token)
            case {"token": token, "n": n}:
                return Published(token, n)
            case {"ping": ping}:
                return Answer(json.dumps({"pong": ping}))
        return None


async def test_a_server_may_call_a_subscription_by_a_name_of_its_own(
    autojump_clock, server, open_channel
):
    async with open_channel(ByNumber()) as channel:
        async with channel.subscribe("a") as feed:
            await server.expect({"call": 1})
            await server.send({"reply": 1, "token": "0x1"})
            await server.send({"token": "0x1", "n": 7})
            assert await feed.receive() == 7
            await settle()
            await server.reset()
            await channel.wait_state(ChannelState.WAITING)
            await server.accept(within=60)
            await server.expect({"call": 2})
            await server.send({"reply": 2, "token": "0x9"})
            # The name of an earlier connection means nothing on this one.
            await server.send({"token": "0x1", "n": 8})
            await server.send({"token": "0x9", "n": 9})

            assert [await anext(feed.items()) for _ in range(2)][1] == 9
            assert await channel.receive() == '{"token": "0x1", "n": 8}'
        await server.expect({"end": "0x9"})
        # What comes late is known by the name, too.
        await server.send({"token": "0x9", "n": 10})
        await server.send("the channel's")
        assert await channel.receive() == "the channel's"


async def test_a_service_is_answered_at_once(autojump_clock, server, open_channel):
    async with open_channel(ByNumber()) as channel:
        await server.accept()
        await channel.wait_ready()
        await server.send({"ping": 1})

        await server.expect({"pong": 1})


async def test_a_tag_that_cannot_be_one_is_nobodys(autojump_clock, server, open_channel):
    async with open_channel(ByNumber()) as channel, channel.subscribe("a"):
        await server.expect({"call": 1})
        await server.send({"token": [], "n": 7})

        assert await channel.receive() == '{"token": [], "n": 7}'


class Unconfirmed(PubSub):
    confirms = False


async def test_where_nothing_is_confirmed_a_pong_tells_that_the_server_has_read_it(
    autojump_clock, server, open_channel
):
    async with open_channel(Unconfirmed()) as channel, channel.subscribe("a") as feed:
        await is_asked(server, "a")
        await feed.wait_live()
        await server.send({"key": "a", "n": 1})

        assert await feed.receive() == 1


async def test_where_nothing_is_confirmed_and_no_ping_is_answered_it_is_believed_after_a_while(
    autojump_clock, network, recorder
):
    options = SubscriptionOptions(timeout=3)
    async with (
        FaultServer([SILENCE], network=network) as server,
        wsclient.open_channel(
            server.url, protocol=Unconfirmed(), observers=[recorder], subscriptions=options
        ) as channel,
        channel.subscribe("a") as feed,
    ):
        await feed.wait_live()
    assert recorder.of(SubscriptionRefused) == []


@pytest.mark.parametrize("protocol", [PubSub, Unconfirmed])
async def test_a_stream_that_ends_before_it_counts_as_there_loses_nothing(
    autojump_clock, server, open_channel, protocol
):
    async with open_channel(protocol()) as channel, channel.subscribe("a") as feed:
        await is_asked(server, "a")
        client = server._on_stage
        frames = [
            _frames.encode_message(json.dumps(message))
            for message in (
                {"key": "a", "n": 1},
                {"key": "a", "n": 2},
                {"op": "refused", "key": "a"},
            )
        ]
        await client.send_raw(b"".join(frames))

        assert [value async for value in feed] == [1, 2]


async def test_what_came_before_a_refusal_comes_before_its_failure(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await is_asked(server, "a")
        await publish(server, 1)
        await server.send({"op": "refused", "key": "a", "why": "no more"})

        assert await feed.receive() == 1
        with pytest.raises(SubscriptionFailed, match="no more"):
            await feed.receive()


async def test_a_second_confirmation_changes_nothing(autojump_clock, server, open_channel):
    async with open_channel(Positioned()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await server.send({"op": "subscribed", "key": "a"})
        await publish(server, 100, 1)

        hundred, gap, one = await take(feed, 3)
        assert (hundred, one) == (100, 1)
        assert "gone back" in gap.reason


@pytest.mark.parametrize("came", [0, 1])
async def test_a_late_confirmation_that_resumes_has_missed_what_came_before_it_and_was_dropped(
    autojump_clock, server, open_channel, came
):
    options = SubscriptionOptions(timeout=3)
    patient = RetryPolicy(wait=lambda state: 20)
    async with (
        open_channel(Growing(), subscriptions=options, retry=patient) as channel,
        channel.subscribe("a") as feed,
        channel.subscribe("b"),
    ):
        await is_asked(server, "a")
        await server.send({"op": "subscribed", "key": "a"})
        await publish(server, 1)
        await is_asked(server, "b")
        await server.send({"op": "subscribed", "key": "b"})
        await channel.wait_ready()
        await cut(server, channel)
        await is_asked(server, "a")
        await server.send({"op": "subscribed", "key": "b"})
        await publish(server, *range(2, 2 + came))
        await channel.wait_ready()
        await server.send({"op": "subscribed", "key": "a", "resumed": True})
        await publish(server, 2 + came)

        if came:
            one, gap, three = await take(feed, 3)
            assert (one, gap.after_position, gap.before_position, three) == (1, 1, 3, 3)
        else:
            assert [1, 2] == await take(feed, 2)


async def test_a_subscriptions_name_may_be_the_number_of_another(
    autojump_clock, server, open_channel
):
    async with open_channel(ByNumber()) as channel:
        async with channel.subscribe("a") as a, channel.subscribe("b") as b:
            await server.expect({"call": 1})
            await server.send({"reply": 1, "token": 2})
            await server.expect({"call": 2})
            await server.send({"reply": 2, "token": 1})
            await b.wait_live()
            await server.send({"token": 1, "n": "b's"})
            await server.send({"token": 2, "n": "a's"})

            assert ("a's", "b's") == (await a.receive(), await b.receive())


async def test_what_is_confirmed_twice_is_unsubscribed_once(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        async with channel.subscribe("a"):
            await confirm(server)
            await channel.wait_ready()
        await server.expect({"op": "unsubscribe", "key": "a"})
        await server.send({"op": "subscribed", "key": "a"})
        await settle()
        assert channel.statistics().subscriptions_live == 0
        async with channel.subscribe("b"):
            await confirm(server, "b")
    assert ["a", "a", "b"] == [json.loads(message)["key"] for message in server.messages][:3]
    assert len(server.messages) <= 4


async def test_a_refusal_that_comes_when_it_was_given_up_changes_nothing(
    autojump_clock, server, open_channel, recorder
):
    options = SubscriptionOptions(timeout=3)
    async with open_channel(subscriptions=options, retry=RetryPolicy(wait=lambda _: 20)) as channel:
        async with channel.subscribe("a") as feed, channel.subscribe("b"):
            await is_asked(server, "a")
            await confirm(server, "b")
            await channel.wait_ready()
            await server.send({"op": "refused", "key": "a", "why": "too slow"})
            await confirm(server)
            await publish(server, 1)

            assert await feed.receive() == 1
            assert channel.statistics().subscriptions_live == 2
    assert ["not confirmed within 3 s"] == [
        str(event.error) for event in recorder.of(SubscriptionRefused)
    ]


async def test_the_order_of_asking_is_the_same_on_each_connection(autojump_clock, network):
    service = Service()
    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(
            server.url, protocol=PubSub(), observers=[], retry=PATIENT
        ) as channel,
        trio.open_nursery() as nursery,
        Keep(nursery, channel, "cab"),
    ):
        await channel.wait_ready()
        await settle()
        service.connections[0].reset()
        await channel.wait_state(ChannelState.WAITING)
        await channel.wait_ready()

        assert {0: ["c", "a", "b"], 1: ["c", "a", "b"]} == by_connection(service.asked)


# What was broken once.


async def test_i12_a_key_that_is_wanted_anew_is_asked_for_behind_its_end_whatever_is_being_said(
    autojump_clock, server, recorder
):
    class Meddling(PubSub):
        """While one subscription is being ended, another is left, and wanted again."""

        def __init__(self):
            self.meddle = lambda: None

        def unsubscribe(self, wish, token):
            if wish.key == "a":
                self.meddle()
            return super().unsubscribe(wish, token)

    protocol = Meddling()
    async with wsclient.open_channel(server.url, protocol=protocol, observers=[]) as channel:
        b, again = channel.subscribe("b"), channel.subscribe("b")

        def meddle():
            b.close()
            channel._subscriptions.add(again)

        async with b:
            async with channel.subscribe("a"):
                for key in "ba":
                    await is_asked(server, key)
                    await server.send({"op": "subscribed", "key": key})
                await channel.wait_ready()
                await settle()
                protocol.meddle = meddle
            for key in "ab":
                await server.expect({"op": "unsubscribe", "key": key})
                await server.send({"op": "unsubscribed", "key": key})
            await is_asked(server, "b")
        again.close()


async def test_what_a_subscription_brings_that_has_ended_is_not_the_next_ones(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        async with channel.subscribe("a"):
            await is_asked(server, "a")
            await server.send({"op": "subscribed", "key": "a"})
            await channel.wait_ready()
        async with channel.subscribe("a") as feed:
            await server.expect({"op": "unsubscribe", "key": "a"})
            await is_asked(server, "a")
            # It was on its way when the first one ended; what follows it is nobody's.
            await server.send({"key": "a", "n": 5})
            await server.send({"op": "unsubscribed", "key": "a"})
            await server.send({"op": "subscribed", "key": "a"})
            await server.send({"key": "a", "n": 7})

            assert await feed.receive() == 7


async def test_what_came_before_it_was_given_up_does_not_come_behind_a_late_confirmation(
    autojump_clock, server, open_channel
):
    options = SubscriptionOptions(timeout=3)
    async with (
        open_channel(subscriptions=options, retry=RetryPolicy(wait=lambda state: 20)) as channel,
        channel.subscribe("a") as feed,
        channel.subscribe("b"),
    ):
        await restore(server, channel)
        await server.send({"op": "subscribed", "key": "b"})
        await server.send({"key": "a", "n": 1})
        await channel.wait_ready()
        # It is given up by now, and this one is dropped.
        await server.send({"key": "a", "n": 2})
        await server.send({"op": "subscribed", "key": "a"})
        await server.send({"key": "a", "n": 3})

        assert await feed.receive() == 3


async def test_where_nothing_is_confirmed_what_was_left_at_once_is_unsubscribed_with_the_pong(
    autojump_clock, server, open_channel
):
    async with open_channel(Unconfirmed()) as channel:
        await server.accept()
        await channel.wait_ready()
        began_at = trio.current_time()
        feed = channel.subscribe("a")
        channel._subscriptions.add(feed)
        await is_asked(server, "a")
        channel._subscriptions.remove(feed)
        await server.expect({"op": "unsubscribe", "key": "a"})

        assert trio.current_time() - began_at < 1


async def test_i12_what_is_confirmed_late_and_was_asked_for_again_is_ended_once(
    autojump_clock, server, recorder
):
    class Tagged(ByNumber):
        def recognise(self, message):
            match json.loads(message):
                case {"reply": int(number)}:
                    return Subscribed(number)
            return None

        def unsubscribe(self, wish, token):
            return json.dumps({"end": token or wish.number})

    for protocol, ended, token in ((ByNumber(), "0x1", "0x1"), (Tagged(), 1, None)):
        async with wsclient.open_channel(
            server.url,
            protocol=protocol,
            observers=[recorder],
            subscriptions=SubscriptionOptions(timeout=3),
        ) as channel:
            await server.accept()
            await channel.wait_ready()
            async with channel.subscribe("a") as feed:
                await server.expect({"call": 1})
                await server.expect({"call": 2}, within=60)
                await server.send({"reply": 2, "token": token and "0x2"})
                await feed.wait_live()
                await server.send({"reply": 1, "token": token})

                await server.expect({"end": ended})
                # What it brings until then is nobody's.
                await server.send({"token": "0x1", "n": 1})
                await server.send({"token": "0x2", "n": 2})
                if token:
                    assert await feed.receive() == 2
                await settle()
                assert feed.is_live
            assert [1, 2] == [
                call for message in server.messages if (call := json.loads(message).get("call"))
            ]
            server.messages.clear()


@pytest.mark.parametrize("made", [7, "\ud800"])
async def test_what_a_protocol_makes_and_is_no_message_fails_its_feed_alone(
    autojump_clock, server, open_channel, recorder, made
):
    class Odd(PubSub):
        def subscribe(self, wish):
            return made if wish.key == "a" else super().subscribe(wish)

        def unsubscribe(self, wish, token):
            return made

    async with open_channel(Odd()) as channel, channel.subscribe("a") as feed:
        with pytest.raises(wsclient.SubscriptionFailed):
            await feed.receive()
        async with channel.subscribe("b"):
            await is_asked(server, "b")
            await server.send({"op": "subscribed", "key": "b"})
            await channel.wait_ready()
            await settle()
        await settle()

        assert channel.state is ChannelState.READY
    assert ["unsubscribing"] == [event.subject for event in recorder.of(HandlerFailed)]


async def test_a_feed_that_is_left_while_it_is_asked_for_with_no_message_is_left(
    autojump_clock, server, recorder
):
    feeds = []

    class Odd(PubSub):
        def subscribe(self, wish):
            feeds[0].close()
            return 7

    async with wsclient.open_channel(server.url, protocol=Odd(), observers=[recorder]) as channel:
        feeds.append(channel.subscribe("a"))
        async with feeds[0]:
            await channel.wait_ready()
            await settle()
    assert recorder.of(SubscriptionRefused) == []


async def test_what_recognise_gives_and_is_no_signal_is_told(
    autojump_clock, server, open_channel, recorder
):
    class Sure(PubSub):
        def recognise(self, message):
            return True

    async with open_channel(Sure()) as channel:
        await server.send("whatever")

        assert await channel.receive() == "whatever"
    told = recorder.of(HandlerFailed)[0]
    assert str(told.error) == "recognise must give a signal or None, not bool"


async def test_those_that_wait_for_their_turn_are_asked_for_once_there_is_room(
    autojump_clock, network
):
    """One backs off, while another one is waited for and no more may be asked for."""
    heard = []

    async def handler(connection):
        async for message in connection:
            key = json.loads(message)["key"]
            heard.append(key)
            if heard == ["a"]:
                await connection.send(
                    json.dumps({"op": "refused", "key": "a", "why": "busy", "later": True})
                )
            else:
                await trio.sleep(10)
                await connection.send(json.dumps({"op": "subscribed", "key": key}))

    options = SubscriptionOptions(in_flight=1)
    async with (
        FaultServer(handler=handler, network=network) as server,
        wsclient.open_channel(
            server.url,
            protocol=PubSub(),
            observers=[],
            subscriptions=options,
            retry=RetryPolicy(wait=lambda _: 5),
        ) as channel,
        channel.subscribe("a") as a,
        channel.subscribe("b"),
    ):
        await a.wait_live()

        assert heard == ["a", "b", "a"]


async def test_a_service_is_answered_before_what_is_still_to_be_asked_for(autojump_clock, network):
    heard = []

    async def handler(connection):
        async for message in connection:
            heard.append(json.loads(message))
            if len(heard) == 1:
                await connection.send(json.dumps({"ping": 1}))

    class Slow(ByNumber):
        pass

    options = SubscriptionOptions(rate=SendRate(messages=1, reserve=0))
    async with (
        FaultServer(handler=handler, network=network) as server,
        wsclient.open_channel(
            server.url, protocol=Slow(), observers=[], subscriptions=options
        ) as channel,
        trio.open_nursery() as nursery,
        Keep(nursery, channel, "abc"),
    ):
        await trio.sleep(1.5)

        assert [{"call": 1}, {"pong": 1}, {"call": 2}] == heard


async def test_s6_2_what_came_while_it_was_given_up_is_missing_also_where_the_server_resumes(
    autojump_clock, server, recorder
):
    class Growing(PubSub):
        def position(self, value):
            return value

    async with wsclient.open_channel(
        server.url,
        protocol=Growing(),
        observers=[recorder],
        subscriptions=SubscriptionOptions(timeout=3),
        retry=RetryPolicy(wait=lambda state: 20),
    ) as channel:
        async with channel.subscribe("a", after=5) as feed, channel.subscribe("b"):
            await is_asked(server, "a")
            await is_asked(server, "b")
            await server.send({"op": "subscribed", "key": "b"})
            await channel.wait_ready()
            await server.send({"key": "a", "n": 6})
            await server.send({"op": "subscribed", "key": "a", "resumed": True})
            await server.send({"key": "a", "n": 7})

            gap = await anext(feed.items())
            assert (gap.after_position, gap.before_position) == (5, 7)


@pytest.mark.parametrize("confirms", [True, False])
async def test_a_subscription_that_the_protocol_cannot_spell_fails_its_feed(
    autojump_clock, server, open_channel, confirms
):
    class Strict(PubSub):
        def subscribe(self, wish):
            raise ValueError("parameters must be a mapping")

    Strict.confirms = confirms
    async with open_channel(Strict()) as channel, channel.subscribe("a") as feed:
        with pytest.raises(SubscriptionFailed, match="parameters must be a mapping"):
            await feed.receive()
        await channel.wait_ready()


async def test_a_subscription_that_is_left_while_it_backs_off_is_asked_for_no_more(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("b"):
        await confirm(server, "b")
        async with channel.subscribe("a"):
            await server.expect(lambda message: '"a"' in message)
            await server.send({"op": "refused", "key": "a", "why": "busy", "later": True})
            await settle()
        await trio.sleep(60)

        assert len(server.messages) == 2


async def test_what_mattered_more_as_long_as_another_feed_wanted_it_is_asked_for_in_its_turn(
    autojump_clock, network
):
    service = Service()
    options = wsclient.SubscriptionOptions(rate=wsclient.SendRate(messages=1, reserve=0))
    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(
            server.url, protocol=PubSub(), observers=[], subscriptions=options
        ) as channel,
        channel.subscribe("x"),
        channel.subscribe("y"),
    ):
        async with channel.subscribe("z", priority=9):
            async with channel.subscribe("y", priority=7):
                pass
            await channel.wait_ready()

        assert ["z", "x", "y"] == [key for _, key, _ in service.asked]


async def test_what_matters_more_since_another_feed_wants_it_is_asked_for_first(
    autojump_clock, network
):
    service = Service()
    options = SubscriptionOptions(rate=SendRate(messages=1, reserve=0))
    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(
            server.url, protocol=PubSub(), observers=[], subscriptions=options
        ) as channel,
        trio.open_nursery() as nursery,
        Keep(nursery, channel, "xyz"),
    ):
        await trio.sleep(0.5)
        async with channel.subscribe("z", priority=7):
            await trio.sleep(3)

            assert ["x", "z", "y"] == [key for _, key, _ in service.asked]


async def test_a_service_is_answered_in_the_midst_of_what_can_be_asked_at_once(
    autojump_clock, network
):
    heard = []

    async def handler(connection):
        async for message in connection:
            heard.append(json.loads(message))
            if len(heard) == 1:
                await connection.send(json.dumps({"ping": 1}))

    async with (
        FaultServer(handler=handler, network=network) as server,
        wsclient.open_channel(server.url, protocol=ByNumber(), observers=[]) as channel,
        trio.open_nursery() as nursery,
        Keep(nursery, channel, keys(40)),
    ):
        await trio.sleep(1)

        assert 1 <= heard.index({"pong": 1}) < 40


async def test_what_a_service_wants_no_answer_to_goes_no_further(
    autojump_clock, server, open_channel, recorder
):
    class Chatty(PubSub):
        def recognise(self, message):
            return Answer(None) if message == "hm" else super().recognise(message)

    async with open_channel(Chatty()) as channel:
        await server.accept()
        await server.send("hm")
        await server.send({"for": "the channel"})

        assert await channel.receive() == '{"for": "the channel"}'
        await settle()
    assert server.messages == []
    assert recorder.of(HandlerFailed) == []


async def test_a_position_may_stand_beside_a_value(autojump_clock, server, open_channel):
    class Beside(PubSub):
        def recognise(self, message):
            signal = super().recognise(message)
            if isinstance(signal, Published):
                return Published(signal.tag, "value", position=signal.value)
            return signal

    async with open_channel(Beside()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 7)
        assert await feed.receive() == "value"
        await cut(server, channel)

        await server.expect({"op": "subscribe", "key": "a", "after": 7})


async def test_a_protocol_whose_service_needs_no_unsubscribing_says_nothing(
    autojump_clock, server, open_channel
):
    class Silent(PubSub):
        def unsubscribe(self, wish, token):
            return None

    async with open_channel(Silent()) as channel:
        for _ in range(2):
            async with channel.subscribe("a"):
                await confirm(server)
                await channel.wait_ready()
                await settle()
            await settle()
    assert ["subscribe", "subscribe"] == [
        message["op"] for message in map(json.loads, server.messages)
    ]


async def test_what_is_left_while_it_waits_for_its_confirmation_is_given_up_untold(
    autojump_clock, server, open_channel, recorder
):
    options = SubscriptionOptions(timeout=3)
    async with open_channel(subscriptions=options) as channel, channel.subscribe("b"):
        await confirm(server, "b")
        await channel.wait_ready()
        async with channel.subscribe("a"):
            await is_asked(server, "a")
        await trio.sleep(10)

        assert channel.state is ChannelState.READY
    assert recorder.of(SubscriptionRefused) == []


async def test_late_values_of_what_was_left_long_ago_go_to_the_channel(
    autojump_clock, server, open_channel, monkeypatch
):
    monkeypatch.setattr("wsclient.session._enrolment.REMEMBERED", 2)
    async with open_channel() as channel:
        for key in "abc":
            async with channel.subscribe(key):
                await confirm(server, key)
                await channel.wait_ready()
            await server.expect({"op": "unsubscribe", "key": key})
        for key in "cba":
            await publish(server, 1, key=key)

        assert await channel.receive() == '{"key": "a", "n": 1}'
        assert channel.statistics().messages_received == 1


async def test_what_mattered_more_for_a_while_is_asked_for_in_its_turn(autojump_clock, network):
    service = Service()
    options = SubscriptionOptions(rate=SendRate(messages=1, reserve=0))
    async with (
        FaultServer(handler=service.handler, network=network) as server,
        wsclient.open_channel(
            server.url, protocol=PubSub(), observers=[], subscriptions=options
        ) as channel,
        trio.open_nursery() as nursery,
        Keep(nursery, channel, "xyz"),
    ):
        await trio.sleep(0.5)
        async with channel.subscribe("z", priority=7):
            pass
        await trio.sleep(3)

        assert ["x", "y", "z"] == [key for _, key, _ in service.asked]


async def test_what_was_missed_is_asked_for_once_the_channel_is_ready_and_not_before(
    autojump_clock, server, open_channel
):
    asked = []

    async def past(gap):
        asked.append(channel.state)
        return [2]

    async with (
        open_channel(Positioned()) as channel,
        channel.subscribe("a", backfill=past) as feed,
        channel.subscribe("b"),
    ):
        await confirm(server, "a")
        await confirm(server, "b")
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server, "a")
        await settle()
        assert asked == []

        await confirm(server, "b")
        await publish(server, 3)
        assert [1, 2, 3] == await take(feed, 3)
    assert asked == [ChannelState.READY]


async def test_a_protocol_that_cannot_spell_unsubscribing_is_told_and_the_rest_goes_on(
    autojump_clock, server, open_channel, recorder
):
    class Broken(PubSub):
        def unsubscribe(self, wish, token):
            raise KeyError("token")

    async with open_channel(Broken()) as channel:
        async with channel.subscribe("a"):
            await confirm(server)
            await channel.wait_ready()
        async with channel.subscribe("b") as feed:
            await confirm(server, "b")
            await publish(server, 1, key="b")
            assert await feed.receive() == 1
    failed = recorder.of(HandlerFailed)
    assert ["unsubscribing"] * 2 == [event.subject for event in failed]
    assert isinstance(failed[0].error, KeyError)


# Two connections.


async def test_s6_3_what_is_refused_twice_while_it_waits_backs_off_once(
    autojump_clock, two, nursery, recorder
):
    later = '{"op": "refused", "key": "a", "why": "busy", "later": true}'
    async with two.open(Positioned(), redundancy=2, observers=[recorder]) as channel:
        async with channel.subscribe("a"):
            first = await two.accept(nursery)
            second = await two.accept(nursery)
            for _ in range(2):
                await second.say(later)
            await settle()
            await two.cover(first)

            assert len(recorder.of(SubscriptionRefused)) == 1


async def test_s6_3_a_stream_that_waits_for_its_end_ends_once(autojump_clock, two, nursery):
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await say(second, 1)
        for _ in range(2):
            await second.say('{"op": "refused", "key": "a"}')
        await settle()
        await two.cover(first)

        assert [1] == [value async for value in feed]


async def test_s6_3_a_stream_that_ends_on_the_second_connection_ends_behind_what_it_has_brought(
    autojump_clock, two, nursery
):
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery)
        await say(first, 1)
        second = await two.accept(nursery)
        await say(second, 2, 3)
        await second.say('{"op": "refused", "key": "a"}')
        await settle()
        assert await feed.receive() == 1
        await say(first, 2)
        await two.cover(first)

        assert [2, 3] == [value async for value in feed]


async def test_a_subscription_that_is_taken_back_while_its_end_waits_is_gone_and_no_more(
    autojump_clock, two, nursery
):
    async with two.open(Positioned(), redundancy=2) as channel:
        async with channel.subscribe("a"):
            first = await two.accept(nursery)
            second = await two.accept(nursery)
            await second.say('{"op": "refused", "key": "a"}')
            await settle()
        await two.cover(first)

        assert channel.statistics().subscriptions_wanted == 0


async def test_s6_3_messages_that_both_bring_are_known_by_their_key_before_and_after_the_pong(
    autojump_clock, two, nursery
):
    async with (
        two.open(PubSub(), redundancy=2, dedupe=lambda message: message) as channel,
        channel.subscribe("a") as feed,
    ):
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await say(first, 1)
        # They wait.
        await say(second, 1, 2)
        await two.cover(first)
        await say(first, 2, 3)
        await say(second, 3, 4)

        assert [1, 2, 3, 4] == await take(feed, 4)


async def test_s6_3_what_the_second_connection_has_still_to_confirm_is_taken_up_when_it_does(
    autojump_clock, two, nursery
):
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery)
        second = await two.by_hand.accept()
        nursery.start_soon(two._listen, second)
        await settle()
        await second.say('{"op": "subscribed", "key": "a"}')
        await settle()
        async with channel.subscribe("b"):
            await settle()
            # Only then the pong: b is on its way still.
            await two.cover(first)
            await say(first, 1)
            await say(second, 1, 2)

            assert [1, 2] == await take(feed, 2)


async def test_s6_3_the_end_of_what_is_wanted_anew_meanwhile_is_not_the_new_ones(
    autojump_clock, two, nursery
):
    async with two.open(Positioned(), redundancy=2) as channel:
        async with channel.subscribe("a"):
            first = await two.accept(nursery)
            second = await two.accept(nursery)
            await second.say('{"op": "refused", "key": "a"}')
            await settle()
        await first.say('{"op": "unsubscribed", "key": "a"}')
        await second.say('{"op": "unsubscribed", "key": "a"}')
        async with channel.subscribe("a") as feed:
            await settle()
            await two.cover(first)
            for heard in (first, second):
                await heard.say('{"op": "subscribed", "key": "a"}')
                await settle()
            await say(first, 1)
            await say(second, 1, 2)

            assert [1, 2] == await take(feed, 2)


async def test_s6_3_a_connection_that_rotates_waits_for_what_the_new_one_has_not_yet(
    autojump_clock, two, nursery, recorder
):
    async with (
        two.open(Positioned(), rotate_every=1000, observers=[recorder]) as channel,
        channel.subscribe("a") as feed,
    ):
        first = await two.accept(nursery)
        channel.rotate("the test")
        second = await two.accept(nursery, confirm=False)
        await second.say('{"op": "refused", "key": "a", "why": "busy", "later": true}')
        await two.cover(first)
        await say(first, 1)
        await trio.sleep(2)
        assert recorder.of(ConnectionLeft) == []
        await say(first, 2)
        await second.say('{"op": "subscribed", "key": "a"}')
        with trio.fail_after(1):
            await recorder.wait_for(ConnectionLeft)
        await say(second, 3)

        assert [1, 2, 3] == await take(feed, 3)


async def test_s6_3_a_connection_that_rotates_waits_for_nothing_that_it_has_lost_itself(
    autojump_clock, two, nursery, recorder
):
    later = '{"op": "refused", "key": "a", "why": "busy", "later": true}'
    async with (
        two.open(Positioned(), rotate_every=1000, observers=[recorder]) as channel,
        channel.subscribe("a"),
    ):
        first = await two.accept(nursery)
        channel.rotate("the test")
        second = await two.accept(nursery, confirm=False)
        await second.say(later)
        await two.cover(first)
        assert recorder.of(ConnectionLeft) == []

        await first.say(later)
        with trio.fail_after(1):
            await recorder.wait_for(ConnectionLeft)


async def test_s3_what_was_left_meanwhile_is_not_missed_where_the_second_connection_takes_over(
    autojump_clock, two, nursery
):
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a"):
        first = await two.accept(nursery)
        async with channel.subscribe("b"):
            await settle()
            await first.say('{"op": "subscribed", "key": "b"}')
            second = await two.by_hand.accept()
            nursery.start_soon(two._listen, second)
            await settle()
            for key in "ab":
                await second.say(f'{{"op": "subscribed", "key": "{key}", "resumed": true}}')
            await settle()
        first.die()
        await settle()

        assert channel.is_resumed


@pytest.mark.parametrize("resumed", [False, True])
async def test_s6_2_what_comes_before_the_confirmation_is_bounded_and_what_is_dropped_is_a_gap(
    autojump_clock, open_channel, server, recorder, resumed
):
    limits = Limits(inbox_size=6_000, inbox_overrun=4_000)
    async with (
        open_channel(Positioned(), limits=limits) as channel,
        channel.subscribe("a", after=0) as feed,
    ):
        await is_asked(server, "a")
        for n in range(1, 1000):
            await server.send({"key": "a", "n": n})
        [enrolment] = channel._subscriptions._enrolments
        [entry] = enrolment._entries.values()

        assert [] == entry.early
        assert ["InboxOverflowed"] == [each for each in recorder.names() if "Over" in each]
        await server.send({"op": "subscribed", "key": "a", "resumed": resumed})
        await server.send({"key": "a", "n": 1000})

        gap = await anext(feed.items())
        assert (gap.after_position, gap.before_position) == (0, 1000)
        assert 1000 == await feed.receive()


async def test_what_comes_before_the_confirmation_is_bounded_for_all_together(
    autojump_clock, open_channel, server
):
    limits = Limits(inbox_size=6_000, inbox_overrun=4_000)
    async with open_channel(limits=limits) as channel, trio.open_nursery() as nursery:
        wanted = [str(number) for number in range(60)]
        async with Keep(nursery, channel, wanted):
            for key in wanted:
                await is_asked(server, key)
            for key in wanted:
                for n in range(10):
                    await server.send({"key": key, "n": n})
            [enrolment] = channel._subscriptions._enrolments
            waiting = [item for entry in enrolment._entries.values() for item in entry.early]
            for key in wanted:
                await server.send({"op": "subscribed", "key": key})
            await channel.wait_ready()

            assert 0 < len(waiting) <= 10_000 // MESSAGE_COST
            assert 0 == enrolment._early_size


async def test_what_its_forerunner_has_brought_too_much_of_is_not_missing(
    autojump_clock, open_channel, server, recorder
):
    limits = Limits(inbox_size=6_000, inbox_overrun=4_000)
    async with open_channel(Positioned(), limits=limits) as channel:
        async with channel.subscribe("a"):
            await is_asked(server, "a")
            await server.send({"op": "subscribed", "key": "a"})
            await channel.wait_ready()
        async with channel.subscribe("a", after=4) as feed:
            await server.expect(lambda message: "unsubscribe" in message)
            await is_asked(server, "a")
            for n in range(1, 1000):
                await server.send({"key": "a", "n": n})
            await server.send({"op": "unsubscribed", "key": "a"})
            await server.send({"op": "subscribed", "key": "a", "resumed": True})
            await server.send({"key": "a", "n": 5})

            assert 5 == await anext(feed.items())


async def test_where_nothing_is_confirmed_a_value_shows_that_it_is_there(
    autojump_clock, two, nursery
):
    async with two.open(Unconfirmed()) as channel, channel.subscribe("a") as feed:
        # No ping is answered.
        first = await two.accept(nursery, confirm=False)
        with trio.fail_after(1):
            await say(first, 1)
            assert await feed.receive() == 1


async def test_s6_3_messages_that_are_about_no_subscription_wait_as_values_do(
    autojump_clock, two, nursery
):
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a"):
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await second.say('{"second": 1}')
        with trio.move_on_after(1) as patience:
            await channel.receive()
        assert patience.cancelled_caught
        await first.say('{"first": 1}')
        await two.cover(first)

        assert ['{"first": 1}', '{"second": 1}'] == [
            await channel.receive(),
            await channel.receive(),
        ]
