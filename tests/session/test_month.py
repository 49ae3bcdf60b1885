"""A month in the life of a subscription: tokens that expire, rotations, and a bad network.

Two days of it, unless ``WSCLIENT_SERVERS=all``: a month takes the better part of a minute.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time

import pytest
import trio
import trio.testing

import wsclient
from wsclient.events import ConnectionLeft, ConnectionLost
from wsclient.testing import FaultServer, memory_network

from .subscribing import Positioned

pytestmark = pytest.mark.once

HOUR = 3600.0
DAY = 24 * HOUR
DAYS = 30 if os.environ.get("WSCLIENT_SERVERS") == "all" else 2
DROPS = 10 * DAYS
EVERY = 60.0
"""Seconds between two values."""


class Feed:
    """The service: publishes to who has a token that is valid, and keeps all it has published."""

    def __init__(self, dice):
        self.published = 0
        self.connections = {}
        self.tokens = {}
        self._dice = dice

    def give_token(self):
        token = f"token {len(self.tokens)}"
        self.tokens[token] = trio.current_time() + HOUR
        return token

    async def handler(self, connection):
        headers = dict(connection.visit.headers)
        expires_at = self.tokens.get(headers.get(b"authorization", b"").decode(), 0)
        if expires_at <= trio.current_time():
            await connection.close(3000, "the token has expired")
            return
        with trio.move_on_at(expires_at):
            async for message in connection:
                match json.loads(message):
                    case {"op": "subscribe", "key": key}:
                        await connection.send(json.dumps({"op": "subscribed", "key": key}))
                        self.connections[connection] = key
        self.connections.pop(connection, None)
        await connection.close(3000, "the token has expired")

    async def publish(self):
        while True:
            await trio.sleep(EVERY)
            self.published += 1
            for connection, key in tuple(self.connections.items()):
                try:
                    await connection.send(json.dumps({"key": key, "n": self.published}))
                except trio.BrokenResourceError:
                    self.connections.pop(connection, None)

    async def drop(self):
        while True:
            await trio.sleep(self._dice.expovariate(DROPS / (DAYS * DAY)))
            for connection in tuple(self.connections):
                connection.reset()
                self.connections.pop(connection, None)


@pytest.mark.timeout(300)
def test_a_month_of_drops_rotations_and_tokens_misses_nothing_and_keeps_no_memory():
    seen = {"blocks": []}

    async def main():
        dice = random.Random(30)
        service = Feed(dice)
        kinds = {"lost": 0, "left": 0}

        def count(event):
            kinds["lost"] += isinstance(event, ConnectionLost)
            kinds["left"] += isinstance(event, ConnectionLeft)

        async def credentials(*, fresh):
            return service.give_token()

        async def past(gap):
            return range(gap.after_position + 1, service.published + 1)

        with memory_network() as network:
            async with (
                FaultServer(handler=service.handler, network=network) as server,
                trio.open_nursery() as nursery,
                wsclient.open_channel(
                    server.url,
                    protocol=Positioned(),
                    credentials=credentials,
                    rotate_every=DAY,
                    observers=[count],
                ) as channel,
                channel.subscribe("a", after=0, backfill=past) as feed,
            ):
                nursery.start_soon(service.publish)
                nursery.start_soon(service.drop)
                expected = 0
                next_look = DAYS * DAY / 4
                with trio.move_on_after(DAYS * DAY):
                    async for item in feed.items():
                        expected += 1
                        assert expected == item
                        if trio.current_time() >= next_look:
                            next_look += DAYS * DAY / 30
                            server.clear()
                            gc.collect()
                            seen["blocks"].append(sys.getallocatedblocks())
                nursery.cancel_scope.cancel()
        seen.update(kinds)
        seen["values"] = expected
        seen["published"] = service.published

    # Not the wall clock: other tests run meanwhile.
    began = time.process_time()
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, clock=clock)
    took = time.process_time() - began

    assert seen["published"] - 2 <= seen["values"] <= seen["published"]
    assert seen["lost"] > DROPS
    blocks = seen["blocks"]
    assert max(blocks[-5:]) < 1.02 * max(blocks[:5])
    assert took < 60, f"{took:.0f} s"
