"""A small service with subscriptions, for tests: its protocol, and its server."""

from __future__ import annotations

import json
from collections import defaultdict

import trio

from wsclient import Protocol, Published, Subscribed, SubscriptionEnded, Unsubscribed
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
