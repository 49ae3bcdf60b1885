"""A small service with subscriptions, for tests: its protocol, and its server."""

from __future__ import annotations

import json
from collections import defaultdict

import trio
import trio.testing

import wsclient
from wsclient import ChannelState, Protocol, Published, Subscribed, SubscriptionEnded, Unsubscribed
from wsclient.errors import ReplyError


class PubSub(Protocol):
    """``{"op": "subscribe", "key": …}`` is confirmed, and brings ``{"key": …, "n": …}``."""

    def subscribe(self, wish):
        return json.dumps({"op": "subscribe", "key": wish.key, "after": wish.after})

    def unsubscribe(self, wish, token):
        return json.dumps({"op": "unsubscribe", "key": wish.key})

    def recognise(self, message):
        match json.loads(message):
            case {"op": "subscribed", "key": key, **more}:
                return Subscribed(key, resumed=more.get("resumed", False))
            case {"op": "unsubscribed", "key": key}:
                return Unsubscribed(key)
            case {"op": "refused", "key": key, **more}:
                error = ReplyError(more["why"]) if "why" in more else None
                return SubscriptionEnded(key, error, may_retry=more.get("later", False))
            case {"key": key, "n": n}:
                return Published(key, n)
        return None


class Positioned(PubSub):
    """Likewise, and the numbers are positions, one next to the other."""

    def position(self, value):
        return value

    def is_next(self, before, after):
        return after == before + 1


class Growing(PubSub):
    """Positions only grow: they do not tell whether something is between two of them."""

    def position(self, value):
        return value


class Service:
    """The server's side: who has subscribed to what, on which connection.

    ``handler`` is for a ``FaultServer``; ``sets`` has one set for each connection, in order.
    """

    def __init__(self, cut_after=None):
        self.sets = []
        self.asked = []
        self.cut_after = cut_after or {}
        """Of which connection (from 0) how many messages are read before it is cut."""
        self.connections = []

    async def handler(self, connection):
        number = len(self.sets)
        subscribed = set()
        self.sets.append(subscribed)
        self.connections.append(connection)
        heard = 0
        async for message in connection:
            if heard == self.cut_after.get(number):
                connection.reset()
                return
            heard += 1
            match json.loads(message):
                case {"op": "subscribe", "key": key, **more}:
                    self.asked.append((number, key, more.get("after")))
                    subscribed.add(key)
                    await connection.send(json.dumps({"op": "subscribed", "key": key}))
                case {"op": "unsubscribe", "key": key}:
                    subscribed.discard(key)
                    await connection.send(json.dumps({"op": "unsubscribed", "key": key}))


async def settle():
    """Let everything that can happen now happen."""
    await trio.testing.wait_all_tasks_blocked()


def by_connection(asked):
    """What was asked for, by connection."""
    found = defaultdict(list)
    for number, key, _ in asked:
        found[number].append(key)
    return dict(found)


async def confirm(server, key="a", **more):
    """Play the server that is asked for a subscription."""
    await server.expect(
        lambda message: f'"{key}"' in message and '"subscribe"' in message, within=60
    )
    await server.send({"op": "subscribed", "key": key, **more})


async def cut(server, channel):
    """Cut the connection, and let the next one come."""
    await settle()
    await server.reset()
    await channel.wait_state(ChannelState.WAITING)
    await server.accept(within=60)


async def cut_and_confirm(server, channel, **more):
    """Cut the connection, and confirm the subscription on the next one."""
    await cut(server, channel)
    await confirm(server, **more)
    await channel.wait_ready()


async def publish(server, *numbers, key="a"):
    for number in numbers:
        await server.send({"key": key, "n": number})


async def take(feed, count):
    """The next values, and what is missing between them."""
    items = feed.items()
    return [await anext(items) for _ in range(count)]


class Two:
    """A server of which the test says every word, on each connection."""

    def __init__(self, by_hand):
        self.by_hand = by_hand

    def open(self, protocol, **options):
        return wsclient.open_channel(
            "ws://hand.test",
            protocol=protocol,
            retry=wsclient.RetryPolicy(wait=lambda _: 1),
            heartbeat=wsclient.HeartbeatOptions(interval=1000, timeout=1000),
            **{"observers": [], **options},
        )

    async def accept(self, nursery, *, confirm=True):
        """Let one more connection come, which asks for `a`."""
        heard = await self.by_hand.accept()
        await heard.hear(1)
        nursery.start_soon(self._listen, heard)
        if confirm:
            await heard.say('{"op": "subscribed", "key": "a"}')
            await settle()
        return heard

    async def _listen(self, heard):
        while await heard.listen():
            pass

    async def cover(self, first):
        """Let the first connection answer, so that the second one is read."""
        await settle()
        await first.pong()
        await settle()


async def say(heard, *numbers):
    for n in numbers:
        await heard.say(f'{{"key": "a", "n": {n}}}')
    await settle()
