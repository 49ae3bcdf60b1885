"""Servers that this project did not write die and come back under one channel."""

from __future__ import annotations

import itertools
import random
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import wsclient

DEATHS = [signal.SIGTERM, signal.SIGKILL] * 5
LONGEST_OUTAGE = 1.9
READY_AGAIN_WITHIN = 3.0

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


@attrs.define
class Report:
    """What one channel lived through."""

    items: list[int | wsclient.Gap] = attrs.Factory(list)
    sent: list[wsclient.Receipt] = attrs.Factory(list)
    recoveries: list[float] = attrs.Factory(list)
    gaps: int = 0


async def live_through_deaths(server: Any, chance: random.Random) -> Report:
    report = Report()

    async def receive(channel: wsclient.DurableChannel) -> None:
        async for item in channel.items():
            report.items.append(item if isinstance(item, wsclient.Gap) else int(item))

    async def send(channel: wsclient.DurableChannel) -> None:
        for number in itertools.count():
            report.sent.append(await channel.send(str(number)))
            await trio.sleep(0.01)

    async with (
        wsclient.open_channel(
            f"ws://127.0.0.1:{server.port}/", retry=wsclient.RetryPolicy(stable_after=0.5)
        ) as channel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(receive, channel)
        nursery.start_soon(send, channel)
        await channel.wait_ready()
        for how in DEATHS:
            await server.load()
            # Stable by now, so that the next death begins with the first delay.
            await trio.sleep(0.6)
            epoch = channel.epoch
            died_at = trio.current_time()
            await server.die(how)
            await trio.sleep_until(died_at + chance.uniform(0, LONGEST_OUTAGE))
            await server.listen()
            restarted_at = trio.current_time()
            await wait_ready_again(channel, epoch)
            report.recoveries.append(trio.current_time() - restarted_at)
        # What is on its way arrives.
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    report.gaps = channel.statistics().gaps
    return report


async def wait_ready_again(channel: wsclient.DurableChannel, epoch: int) -> None:
    """Wait until a connection after ``epoch`` is ready."""
    while channel.epoch <= epoch or channel.state is not wsclient.ChannelState.READY:
        await channel.wait_state(wsclient.ChannelState.WAITING, wsclient.ChannelState.CONNECTING)
        await channel.wait_ready()


@pytest.mark.parametrize("program", ["websockets_server.py", "uvicorn_server.py"])
async def test_a_channel_rides_out_ten_deaths_of_a_real_server(
    program: str, start_backend: Any, tmp_path: Path
) -> None:
    report = await live_through_deaths(await start_backend(program), random.Random(program))

    heard = (tmp_path / "heard").read_text().split()
    numbers = [item for item in report.items if not isinstance(item, wsclient.Gap)]
    outcomes = [receipt.outcome for receipt in report.sent]
    never_written = [
        str(number)
        for number, receipt in enumerate(report.sent)
        if receipt.truth is wsclient.Truth.CERTAINLY_NOT
    ]
    assert len(DEATHS) == len(report.recoveries)
    assert max(report.recoveries) <= READY_AGAIN_WITHIN

    # Received: nothing twice, and whatever is missing lies inside a gap.
    assert sorted(set(numbers)) == numbers
    assert len(numbers) > 500
    assert [] == missing_outside_gaps(report.items)
    assert report.gaps == sum(isinstance(item, wsclient.Gap) for item in report.items)
    assert report.gaps >= len(DEATHS)

    # Sent: an outcome each; nothing twice, nothing out of order, nothing that was never written.
    assert None not in outcomes
    assert sorted(set(heard), key=int) == heard
    assert set() == set(never_written) & set(heard)
    assert len(heard) > 500


def missing_outside_gaps(items: list[int | wsclient.Gap]) -> list[int]:
    """Numbers that were skipped although nothing said that messages may have been missed."""
    missing: list[int] = []
    last: int | None = None
    for item in items:
        if isinstance(item, wsclient.Gap):
            last = None
        else:
            if last is not None:
                missing += range(last + 1, item)
            last = item
    return missing
