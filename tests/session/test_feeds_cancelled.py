"""Feeds that are cancelled before every step of the scheduler: nothing is lost, nothing is left."""

from __future__ import annotations

import pytest
import trio

import wsclient
from wsclient import Gap, Snapshot
from wsclient.testing import FaultServer, memory_network

from .subscribing import Positioned, Service

pytestmark = pytest.mark.once

ALL = list(range(1, 13))


class Numbers(Service):
    """Publishes 1, 2, 3, … to whoever has subscribed, and is cut off in between."""

    def __init__(self):
        super().__init__()
        self.said = 0

    async def publish(self):
        for n in ALL:
            await trio.sleep(1)
            self.said = n
            for connection, keys in zip(self.connections, self.sets, strict=True):
                if "a" in keys and connection.is_open:
                    await connection.send(f'{{"key": "a", "n": {n}}}')
            if n in (3, 6):
                self.connections[-1].reset()


async def past_one_by_one(gap):
    for n in range(gap.after_position + 1, gap.before_position or 6):
        await trio.sleep(0.1)
        yield n


async def past(gap):
    await trio.sleep(0.5)
    return list(range(gap.after_position + 1, gap.before_position or 6))


def check(items):
    """In order, once, and a gap where something is missing."""
    last = None
    for item in items:
        if isinstance(item, Gap):
            assert last in (None, item.after_position)
            last = None
            continue
        assert last is None or item == last + 1, items
        last = item


@pytest.mark.parametrize("how", ["plain", "backfill", "generator", "snapshot"])
def test_i9_i10_a_feed_can_be_cancelled_at_every_step_and_the_channel_goes_on(
    cancel_at_every_step, how
):
    async def scenario(cancellation):
        service, items = Numbers(), []

        async def snapshot():
            await trio.sleep(0.5)
            return Snapshot(service.said, service.said)

        options = {
            "plain": {},
            "backfill": {"backfill": past},
            "generator": {"backfill": past_one_by_one},
            "snapshot": {"snapshot": snapshot},
        }[how]
        with memory_network() as network:
            async with (
                FaultServer(handler=service.handler, network=network) as server,
                trio.open_nursery() as nursery,
                wsclient.open_channel(
                    server.url,
                    protocol=Positioned(),
                    observers=[],
                    retry=wsclient.RetryPolicy(wait=lambda _: 0.7),
                ) as channel,
            ):
                nursery.start_soon(service.publish)
                with cancellation.scope:
                    async with channel.subscribe("a", **options) as feed:
                        async for item in feed.items():
                            items.append(item)
                            if item == ALL[-1]:
                                break
                if cancellation.at is not None:
                    assert trio.current_time() == cancellation.at
                # The channel is as good as before: one more feed, and the server has what it wants.
                async with channel.subscribe("b") as other:
                    with trio.fail_after(30):
                        await other.wait_live()
                    await trio.sleep(1)
                    assert service.sets[-1] == {"b"}
                await trio.sleep(1)
                assert service.sets[-1] == set()
                subscriptions = channel._subscriptions
                assert (len(subscriptions), subscriptions.joins()) == (0, [])
                assert not channel._inbox._full or channel._inbox.has_room
                nursery.cancel_scope.cancel()
        if how != "snapshot":
            check(items)

    assert cancel_at_every_step(scenario) > 60


def test_s2_4_a_taker_that_is_cancelled_at_every_step_loses_nothing(cancel_at_every_step):
    async def scenario(cancellation):
        service, items = Numbers(), []
        with memory_network() as network:
            async with (
                FaultServer(handler=service.handler, network=network) as server,
                trio.open_nursery() as nursery,
                wsclient.open_channel(
                    server.url,
                    protocol=Positioned(),
                    observers=[],
                    retry=wsclient.RetryPolicy(wait=lambda _: 0.7),
                ) as channel,
                channel.subscribe("a", backfill=past) as feed,
            ):
                await feed.wait_live()
                nursery.start_soon(service.publish)
                with cancellation.scope:
                    async for item in feed.items():
                        items.append(item)
                        if item == ALL[-1]:
                            break
                while ALL[-1] not in items:
                    items.append(await anext(feed.items()))
                nursery.cancel_scope.cancel()
        check(items)

    assert cancel_at_every_step(scenario) > 40
