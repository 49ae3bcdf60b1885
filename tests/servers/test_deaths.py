"""Servers that this project did not write die and come back under one channel."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

import wsclient

PROGRAMS = Path(__file__).parent / "programs"
DEATHS = [signal.SIGTERM, signal.SIGKILL] * 5
LONGEST_OUTAGE = 1.9
READY_AGAIN_WITHIN = 3.0

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


class ServerProcess:
    """One life of a server; everything is imported before it is told to listen."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def listen(self) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(b"go\n")
        await self._wait_for(b"listening")

    async def wait_loaded(self) -> None:
        await self._wait_for(b"loaded")

    async def _wait_for(self, line: bytes) -> None:
        assert self._process.stdout is not None
        said = b""
        while line not in said:
            chunk = await self._process.stdout.receive_some()
            assert chunk, f"the server ended before it said {line!r}"
            said += chunk

    async def die(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        with trio.move_on_after(3):  # A server that is asked politely may take its time.
            await self._process.wait()
            return
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def server_process(
    program: str, port: int, folder: Path
) -> AsyncGenerator[ServerProcess, None]:
    process = await trio.lowlevel.open_process(
        [sys.executable, str(PROGRAMS / program), str(port), str(folder)],
        # The programs share a module that lies beside them.
        env=os.environ | {"PYTHONPATH": str(PROGRAMS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    server = ServerProcess(process)
    try:
        await server.wait_loaded()
        yield server
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()


@attrs.define
class Report:
    """What one channel lived through."""

    items: list[int | wsclient.Gap] = attrs.Factory(list)
    sent: list[wsclient.Receipt] = attrs.Factory(list)
    recoveries: list[float] = attrs.Factory(list)
    gaps: int = 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def live_through_deaths(program: str, folder: Path, chance: random.Random) -> Report:
    port = free_port()
    report = Report()

    async def receive(channel: wsclient.DurableChannel) -> None:
        async for item in channel.items():
            report.items.append(item if isinstance(item, wsclient.Gap) else int(item))

    async def send(channel: wsclient.DurableChannel) -> None:
        for number in itertools.count():
            report.sent.append(await channel.send(str(number)))
            await trio.sleep(0.01)

    async with AsyncExitStack() as processes:

        async def load() -> ServerProcess:
            return await processes.enter_async_context(server_process(program, port, folder))

        server = await load()
        await server.listen()
        async with (
            wsclient.open_channel(
                f"ws://127.0.0.1:{port}/", retry=wsclient.RetryPolicy(stable_after=0.5)
            ) as channel,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(receive, channel)
            nursery.start_soon(send, channel)
            await channel.wait_ready()
            for how in DEATHS:
                following = await load()
                # Stable by now, so that the next death begins with the first delay.
                await trio.sleep(0.6)
                epoch = channel.epoch
                died_at = trio.current_time()
                await server.die(how)
                await trio.sleep_until(died_at + chance.uniform(0, LONGEST_OUTAGE))
                await following.listen()
                restarted_at = trio.current_time()
                await wait_ready_again(channel, epoch)
                report.recoveries.append(trio.current_time() - restarted_at)
                server = following
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
    program: str, tmp_path: Path
) -> None:
    report = await live_through_deaths(program, tmp_path, random.Random(program))

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
