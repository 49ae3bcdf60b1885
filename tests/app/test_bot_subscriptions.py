"""Handlers for what is published to a subscription."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

import wsclient
from wsclient import (
    ChannelState,
    DurableChannel,
    HandlerErrors,
    JsonPubSub,
    ReplyError,
    SubscriptionFailed,
)
from wsclient.errors import ChannelFailed, CodecError
from wsclient.events import HandlerFailed
from wsclient.testing import ScriptedServer


@attrs.frozen
class Trade:
    price: float


@pytest.fixture
async def server(network):
    async with ScriptedServer(network=network) as server:
        yield server


@pytest.fixture
def bot(server, recorder):
    return make(server, recorder)


def make(server, recorder, **options):
    options.setdefault("protocol", JsonPubSub())
    return wsclient.Bot(server.url, observers=[recorder], **options)


async def confirm(server, channel="trades", **more):
    await server.expect(
        lambda message: '"subscribe"' in message and f'"{channel}"' in message, within=60
    )
    await server.send({"op": "subscribed", "channel": channel, **more})


async def publish(server, seq, data, channel="trades"):
    await server.send({"channel": channel, "seq": seq, "data": data})


async def test_a_handler_gets_what_is_published_in_order(autojump_clock, server, bot, nursery):
    seen = []

    @bot.subscribe("trades")
    async def trade(value):
        seen.append(value)
        if len(seen) == 2:
            bot.stop()

    nursery.start_soon(bot.serve)
    await confirm(server)
    await publish(server, 1, {"price": 7})
    await publish(server, 2, {"price": 8})
    await server.expect({"op": "unsubscribe", "channel": "trades"})

    assert [{"price": 7}, {"price": 8}] == seen


async def test_a_value_becomes_what_the_handlers_parameter_is_annotated_with(
    autojump_clock, server, bot, nursery
):
    seen = []

    @bot.subscribe("trades")
    def trade(value: Trade):
        seen.append(value)

    nursery.start_soon(bot.serve)
    await confirm(server)
    await publish(server, 1, {"price": 7})
    await trio.testing.wait_all_tasks_blocked()
    bot.stop()

    assert [Trade(7.0)] == seen


async def test_a_value_that_is_nothing_of_the_kind_goes_to_the_dead_letter_with_its_path(
    autojump_clock, server, recorder, nursery
):
    dead = []
    bot = make(server, recorder, handler_errors=dead.append)

    @bot.subscribe("trades")
    def trade(value: Trade):
        raise AssertionError("it is no trade")

    nursery.start_soon(bot.serve)
    await confirm(server)
    await publish(server, 1, {"price": "high"})
    await trio.testing.wait_all_tasks_blocked()
    bot.stop()

    (failed,) = dead
    assert (failed.value, failed.path) == ({"price": "high"}, "$.price")
    assert type(failed.error) is CodecError
    assert "subscription 'trades'" == failed.subject


async def test_s7_2_a_handler_that_raises_does_not_touch_the_subscription(
    autojump_clock, server, recorder, nursery
):
    dead, seen = [], []
    bot = make(server, recorder, handler_errors=dead.append)

    @bot.subscribe("trades")
    def trade(value):
        if value == 1:
            raise LookupError("no")
        seen.append(value)

    nursery.start_soon(bot.serve)
    await confirm(server)
    await publish(server, 1, 1)
    await publish(server, 2, 2)
    await trio.testing.wait_all_tasks_blocked()
    bot.stop()

    assert [2] == seen
    assert [1] == [failed.value for failed in dead]


async def test_s7_2_or_ends_the_bot_where_that_is_chosen(autojump_clock, server, recorder, nursery):
    bot = make(server, recorder, handler_errors=HandlerErrors.RAISE)

    @bot.subscribe("trades")
    def trade(value):
        raise LookupError("no")

    async def play():
        await confirm(server)
        await publish(server, 1, 1)

    nursery.start_soon(play)
    with pytest.raises(LookupError):
        await bot.serve()


async def test_a_subscription_comes_back_and_the_gap_goes_to_its_hook(
    autojump_clock, server, bot, nursery
):
    told = []

    @bot.subscribe("trades")
    def trade(value):
        told.append(value)

    @bot.on_gap
    def gap(gap):
        told.append((gap.subscription, gap.after_position, gap.before_position))

    channel: DurableChannel = await nursery.start(bot.serve)
    await confirm(server)
    await publish(server, 1, "one")
    await trio.testing.wait_all_tasks_blocked()
    await server.reset()
    await channel.wait_state(ChannelState.WAITING)
    await server.accept(within=60)
    await confirm(server)
    await publish(server, 5, "five")
    await trio.testing.wait_all_tasks_blocked()
    bot.stop()

    # The channel's own gap is told as well, whenever its own messages are looked at.
    assert ["one", ("trades", 1, 5), "five"] == [told for told in told if told != (None,) * 3]


async def test_a_slow_subscription_is_not_in_the_way_of_another(
    autojump_clock, server, bot, nursery
):
    seen = []

    @bot.subscribe("slow")
    async def slow(value):
        await trio.sleep(10)
        seen.append(("slow", trio.current_time()))

    @bot.subscribe("trades")
    async def trade(value):
        seen.append(("fast", trio.current_time()))

    nursery.start_soon(bot.serve)
    await confirm(server, "slow")
    await confirm(server)
    await publish(server, 1, 1, "slow")
    await publish(server, 1, 1)
    await trio.sleep(20)
    bot.stop()

    assert ["fast", "slow"] == [name for name, _ in seen]


async def test_stopping_lets_the_handler_at_work_finish(autojump_clock, server, bot, nursery):
    seen = []

    @bot.subscribe("trades")
    async def trade(value):
        bot.stop()
        await trio.sleep(3)
        seen.append(value)

    nursery.start_soon(bot.serve)
    await confirm(server)
    await publish(server, 1, 1)
    await publish(server, 2, 2)
    await trio.sleep(10)

    assert [1] == seen


async def test_a_subscription_that_is_refused_is_a_failure_of_its_handler(
    autojump_clock, server, recorder, nursery
):
    dead = []
    bot = make(server, recorder, handler_errors=dead.append)

    @bot.subscribe("trades")
    def trade(value):
        raise AssertionError("nothing is published")

    nursery.start_soon(bot.serve)
    await server.expect(lambda message: '"subscribe"' in message)
    await server.send({"op": "error", "channel": "trades", "error": "no such channel"})
    await trio.testing.wait_all_tasks_blocked()
    bot.stop()

    (failed,) = dead
    assert type(failed.error) is SubscriptionFailed
    assert type(failed.error.__cause__) is ReplyError
    assert recorder.of(HandlerFailed)[0].handler.endswith("trade")


async def test_a_bot_goes_on_where_the_last_one_was(autojump_clock, server, bot, nursery):
    seen = []

    @bot.subscribe("trades", after=lambda: 41)
    def trade(value):
        seen.append(value)

    nursery.start_soon(bot.serve)
    await server.expect({"op": "subscribe", "channel": "trades", "after": 41})
    await server.send({"op": "subscribed", "channel": "trades", "resumed": True})
    await publish(server, 42, "next")
    await trio.testing.wait_all_tasks_blocked()
    bot.stop()

    assert ["next"] == seen


async def test_middleware_is_around_what_is_published_too(autojump_clock, server, bot, nursery):
    seen = []

    @bot.middleware
    async def watch(context, call_next):
        seen.append((context.subject, context.value))
        await call_next()

    @bot.subscribe("trades")
    async def trade(value, context, reply):
        await reply({"got": value})

    nursery.start_soon(bot.serve)
    await confirm(server)
    await publish(server, 1, 7)
    await server.expect({"got": 7})
    bot.stop()

    assert [("subscription 'trades'", 7)] == seen


async def test_a_channel_that_gives_up_ends_its_subscriptions_once(
    autojump_clock, server, bot, nursery
):
    @bot.subscribe("trades")
    def trade(value):
        raise AssertionError("nothing is published")

    async def play():
        await confirm(server)
        await server.close(3003)

    nursery.start_soon(play)
    with pytest.raises(ChannelFailed):
        await bot.serve()


async def test_a_router_may_subscribe_for_its_bot(autojump_clock, server, bot, nursery):
    seen = []
    router = wsclient.Router()

    @router.subscribe("trades")
    def trade(value):
        seen.append(value)

    bot.include(router)
    nursery.start_soon(bot.serve)
    await confirm(server)
    await publish(server, 1, 7)
    await trio.testing.wait_all_tasks_blocked()
    bot.stop()

    assert [7] == seen


def test_a_bot_without_a_protocol_says_what_subscribing_needs():
    bot = wsclient.Bot("ws://server.test")

    with pytest.raises(TypeError, match="trade: a bot that subscribes needs to know how"):

        @bot.subscribe("trades")
        def trade(value): ...


def test_a_handler_whose_value_cannot_be_made_is_said_at_once():
    bot = wsclient.Bot("ws://server.test", protocol=JsonPubSub())

    with pytest.raises(TypeError):

        @bot.subscribe("trades")
        def trade(value: threading_lock): ...


def test_the_protocol_is_the_codec_where_there_is_none():
    bot = wsclient.Bot("ws://server.test", protocol=JsonPubSub())

    assert isinstance(bot._codec, JsonPubSub)


class threading_lock:  # noqa: N801  A type that nothing can be converted to.
    def __init__(self, value, /): ...
