"""What a handler may want to know, and how it sends."""

from __future__ import annotations

import json

import trio

import wsclient
from wsclient import Delivery
from wsclient.testing import FaultServer


async def test_a_context_says_what_is_handled_and_by_whom(autojump_clock, network, nursery):
    bot = wsclient.Bot("ws://server.test", observers=())
    contexts = []

    @bot.on("x")
    def handle(message, context):
        contexts.append(context)

    @bot.every(5)
    def tick(context):
        contexts.append(context)

    async def speak(connection):
        await connection.send('{"type": "x", "n": 1}')
        async for _ in connection:
            pass

    async with FaultServer(network=network, handler=speak):
        channel = await nursery.start(bot.serve)
        await trio.sleep(6)
        bot.stop()
        await channel.wait_state(wsclient.ChannelState.CLOSED)

    assert [
        wsclient.Context(
            bot,
            channel,
            '{"type": "x", "n": 1}',
            value={"type": "x", "n": 1},
            subject="x",
            handler=handle.__qualname__,
        ),
        wsclient.Context(bot, channel, subject="every 5 s", handler=tick.__qualname__),
    ] == contexts


async def test_a_context_sends_with_every_option_of_a_channel(autojump_clock):
    sent = []

    class Bot:
        async def send(self, value, **options):
            sent.append((value, options))
            return "a receipt"

    context = wsclient.Context(Bot(), None)

    assert "a receipt" == await context.send(1)
    assert "a receipt" == await context.send(2, delivery=Delivery.DIRECT, ttl=3, key="k")
    assert [
        (1, {"delivery": Delivery.QUEUED, "ttl": None, "key": None}),
        (2, {"delivery": Delivery.DIRECT, "ttl": 3, "key": "k"}),
    ] == sent


async def test_a_reply_is_sent_and_gives_its_receipt(autojump_clock, network):
    bot = wsclient.Bot("ws://server.test", observers=())
    receipts = []

    @bot.on("ask")
    async def answer(message, reply):
        receipts.append(await reply({"type": "answer", "to": message["n"]}, ttl=10))
        bot.stop()

    async def speak(connection):
        await connection.send('{"type": "ask", "n": 1}')
        async for _ in connection:
            pass

    async with FaultServer(network=network, handler=speak) as server:
        await bot.serve()

        assert {"type": "answer", "to": 1} == json.loads(server.messages[0])

    assert [wsclient.Outcome.RECEIVED] == [receipt.outcome for receipt in receipts]
