"""Subscriptions survive the restarts of the servers that they were made for."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio

import wsclient
import wsclient.testing
from wsclient import ChannelState, Gap, GraphqlTransportWs, JsonRpc, RetryBudget, RetryPolicy
from wsclient.errors import ChannelFailed
from wsclient.events import RetryScheduled

RESTARTS = 10
NAMES = "abc"

BLOCKS = JsonRpc(
    position=lambda head: int(head["number"], 16),
    is_next=lambda before, after: after == before + 1,
)
PATIENT = RetryPolicy(wait=lambda state: 0.2, budget=RetryBudget(attempts=10_000))

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


def number_of(head: dict[str, str]) -> int:
    return int(head["number"], 16)


async def restart_under(channel: wsclient.DurableChannel, server: Any, how: signal.Signals) -> None:
    """Restart the server, and wait until the channel is there again."""
    epoch = channel.epoch
    await server.restart(how)
    while channel.epoch == epoch or channel.state is not ChannelState.READY:
        await channel.wait_state(*ChannelState)
        await trio.sleep(0.01)


@pytest.mark.parametrize("brings", [True, False], ids=["backfill", "gaps"])
async def test_every_block_is_received_once_or_inside_of_a_gap_however_often_the_node_restarts(
    start_anvil: Any, nursery: trio.Nursery, brings: bool
) -> None:
    anvil = await start_anvil()
    received: list[Any] = []
    arrived = trio.lowlevel.ParkingLot()

    async def take(feed: wsclient.Feed) -> None:
        async for item in feed.items():
            received.append(item if isinstance(item, Gap) else number_of(item))
            arrived.unpark_all()

    async def wait_for(number: int) -> None:
        with trio.fail_after(20):
            while number not in received:
                await arrived.park()

    async with wsclient.open_channel(
        anvil.url, protocol=BLOCKS, retry=PATIENT, observers=()
    ) as channel:

        async def past(gap: Gap) -> list[Any]:
            heads = []
            while True:
                number = gap.after_position + 1 + len(heads)
                head = await channel.request(
                    {"method": "eth_getBlockByNumber", "params": [hex(number), False]}
                )
                if head is None:
                    return heads
                heads.append(head)

        async with channel.subscribe("newHeads", backfill=past if brings else None) as feed:
            await feed.wait_live()
            nursery.start_soon(take, feed)
            last = await anvil.mine(2)
            await wait_for(last)
            for _ in range(RESTARTS):
                await anvil.die(signal.SIGTERM)
                await channel.wait_state(ChannelState.WAITING, ChannelState.CONNECTING)
                await anvil.start()
                # Perhaps before the channel is back: these it can only have by asking.
                await anvil.mine(3)
                await feed.wait_live()
                await channel.wait_ready()
                last = await anvil.mine(1)
                await wait_for(last)
            nursery.cancel_scope.cancel()

    blocks = [item for item in received if not isinstance(item, Gap)]
    gaps = [item for item in received if isinstance(item, Gap)]
    missing = {
        number for gap in gaps for number in range(gap.after_position + 1, gap.before_position)
    }
    assert sorted(set(blocks)) == blocks
    assert set(range(1, last + 1)) == {*blocks, *missing}
    assert not missing & {*blocks}
    if brings:
        assert gaps == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["leaves", "is killed"])
async def test_three_subscriptions_are_back_after_each_restart_of_a_graphql_server(
    start_graphql: Any, how: signal.Signals
) -> None:
    server = await start_graphql()
    values: dict[str, list[int]] = {name: [] for name in NAMES}

    async def take(name: str, feed: wsclient.Feed) -> None:
        async for result in feed:
            values[name].append(result["data"][name])

    async with (
        wsclient.open_channel(
            server.url, protocol=GraphqlTransportWs(), retry=PATIENT, observers=()
        ) as channel,
        channel.subscribe("a", "subscription { a }") as a,
        channel.subscribe("b", "subscription { b }") as b,
        channel.subscribe("c", "subscription { c }") as c,
        trio.open_nursery() as nursery,
    ):
        for name, feed in zip(NAMES, (a, b, c), strict=True):
            nursery.start_soon(take, name, feed)
        for _ in range(RESTARTS):
            await channel.wait_ready()
            seen = {name: len(values[name]) for name in NAMES}
            await restart_under(channel, server, how)

            (wanted,) = await server.control()
            assert sorted(f"subscription {{ {name} }}" for name in NAMES) == sorted(wanted.values())
            with trio.fail_after(10):
                while any(len(values[name]) <= seen[name] + 1 for name in NAMES):  # noqa: ASYNC110
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert all(sorted(set(found)) == found for found in values.values())


@pytest.mark.parametrize("code", [4400, 4401, 4406, 4409, 4429])
async def test_a_close_code_that_blames_the_client_is_not_retried(
    start_graphql: Any, code: int
) -> None:
    server = await start_graphql()
    recorder = wsclient.testing.EventRecorder()
    with pytest.raises(ChannelFailed):
        async with wsclient.open_channel(
            server.url, protocol=GraphqlTransportWs(), observers=[recorder]
        ) as channel:
            async with channel.subscribe("a", "subscription { a }") as feed:
                await feed.receive()
                await server.control(do="close", code=code)
                async for _ in feed:
                    pass
    assert recorder.of(RetryScheduled) == []
