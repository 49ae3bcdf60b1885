"""Three servers behind haproxy are restarted, one after the other, again and again.

What a user of a channel loses by that is nothing that was to be acknowledged, and little time.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
import signal
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import tenacity
import trio

import wsclient

# Debian has it where only root looks.
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
BACKENDS = 3
DEPLOYMENTS = 20 if os.environ.get("WSCLIENT_SERVERS") == "all" else 3
CHANNELS = 4
INTERVAL = 0.02
"""Seconds between the messages of one channel, as between the numbers that the server says to it:
with four channels, 200 messages a second in either direction."""
INTERRUPTED_AT_MOST = 2.0
"""Seconds, for 99 interruptions in a hundred."""

RETRY = wsclient.RetryPolicy(
    # Behind a load balancer somebody else is there already.
    wait=tenacity.wait_random_exponential(multiplier=0.25, max=30),
    # So close do the restarts follow one another here.
    stable_after=1,
    budget=wsclient.RetryBudget(attempts=math.inf),
)

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(60 + 30 * DEPLOYMENTS),
    pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed"),
]

CONFIGURATION = """\
global
    stats socket {folder}/admin level admin
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
    retries 3
    option redispatch 1
frontend front
    bind fd@{listening}
    default_backend back
backend back
    balance roundrobin
    option httpchk GET /health
    default-server check inter 100ms fall 1 rise 1
"""


@attrs.frozen
class Deployment:
    """Servers behind a load balancer."""

    url: str
    backends: list[Any]
    folder: Path

    async def roll(self, chance: random.Random, pause: float) -> None:
        """Restart one backend after the other; each time ``pause`` seconds, that it may settle."""
        for number, backend in enumerate(self.backends):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.load)
                await trio.sleep(pause)
            await backend.die(signal.SIGTERM)
            await trio.sleep(chance.uniform(0, 0.5))
            await backend.listen()
            await self._wait_up(number)

    async def _wait_up(self, number: int) -> None:
        while f"backend{number} UP" not in await self._ask_health():  # noqa: ASYNC110  # haproxy does not call.
            await trio.sleep(0.1)

    async def _ask_health(self) -> list[str]:
        async with await trio.open_unix_socket(f"{self.folder}/admin") as stream:
            await stream.send_all(b"show stat\n")
            lines = b"".join([data async for data in stream]).decode().splitlines()
        names, *rows = [line.split(",") for line in lines if line]
        status = names.index("status")
        return [f"{row[1]} {row[status]}" for row in rows]


@pytest.fixture
async def deployment(
    start_backend: Callable[[str], Any], tmp_path: Path
) -> AsyncGenerator[Deployment, None]:
    backends = [await start_backend("ledger_websockets.py") for _ in range(BACKENDS)]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(
            CONFIGURATION.format(folder=tmp_path, listening=listening.fileno())
            + "".join(
                f"    server backend{number} 127.0.0.1:{backend.port}\n"
                for number, backend in enumerate(backends)
            )
        )
        process = await trio.lowlevel.open_process(
            [str(HAPROXY), "-db", "-q", "-f", str(configuration)], pass_fds=[listening.fileno()]
        )
        try:
            yield Deployment(f"ws://127.0.0.1:{listening.getsockname()[1]}", backends, tmp_path)
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()


@attrs.define
class User:
    """One channel, what is sent by it, and what is received."""

    name: str
    sent: list[tuple[wsclient.Delivery, wsclient.Receipt]] = attrs.Factory(list)
    received: list[str | wsclient.Gap] = attrs.Factory(list)
    interruptions: list[float] = attrs.Factory(list)
    """Seconds between the last message of a connection and the first one of the next."""
    acknowledged_after: list[float] = attrs.Factory(list)
    """Seconds from sending a message to its acknowledgement."""
    statistics: wsclient.ChannelStatistics | None = None
    is_sending: bool = True

    async def run(
        self, url: str, options: dict[str, Any], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Send and receive until told to stop sending; then let everything arrive, and leave."""
        async with (
            wsclient.open_channel(
                f"{url}/{self.name}",
                retry=RETRY,
                delivery=wsclient.DeliveryOptions(acknowledgement=wsclient.JsonAcknowledgement()),
            ) as channel,
            trio.open_nursery() as nursery,
        ):
            await channel.wait_ready()
            task_status.started()
            nursery.start_soon(self._receive, channel)
            sent, to_watch = trio.open_memory_channel[tuple[float, wsclient.Receipt]](math.inf)
            nursery.start_soon(self._watch, to_watch)
            await self._send(channel, sent)
            await channel.drain(30)
            self.statistics = channel.statistics()

    async def _send(
        self,
        channel: wsclient.DurableChannel,
        sent: trio.MemorySendChannel[tuple[float, wsclient.Receipt]],
    ) -> None:
        started = trio.current_time()
        with sent:
            for number in itertools.count():
                await trio.sleep_until(started + number * INTERVAL)
                if not self.is_sending:
                    return
                at = trio.current_time()
                delivery = wsclient.Delivery.ACKED
                receipt = await channel.send(json.dumps({"number": number}), delivery=delivery)
                self.sent.append((delivery, receipt))
                sent.send_nowait((at, receipt))

    async def _watch(
        self, to_watch: trio.MemoryReceiveChannel[tuple[float, wsclient.Receipt]]
    ) -> None:
        async for at, receipt in to_watch:
            await receipt.wait()
            self.acknowledged_after.append(trio.current_time() - at)

    async def _receive(self, channel: wsclient.DurableChannel) -> None:
        last, is_interrupted = trio.current_time(), False
        async for item in channel.items():
            assert not isinstance(item, wsclient.Overflow)
            if isinstance(item, wsclient.Gap):
                self.received.append(item)
                is_interrupted = True
                continue
            self.received.append(json.loads(item)["said"])
            now = trio.current_time()
            if is_interrupted:
                self.interruptions.append(now - last)
            last, is_interrupted = now, False


def percentile(figures: list[float], share: float) -> float:
    """The least figure that ``share`` of all do not exceed."""
    return sorted(figures)[math.ceil(share * len(figures)) - 1]


async def live_through_deployments(deployment: Deployment, **options: Any) -> list[User]:
    """Let channels with these options send and receive while everything is restarted."""
    chance = random.Random(1)
    users = [User(f"user{number}") for number in range(CHANNELS)]
    async with trio.open_nursery() as nursery:
        for user in users:
            await nursery.start(user.run, deployment.url, options)
        for _ in range(DEPLOYMENTS):
            await deployment.roll(chance, pause=1.2)
        for user in users:
            user.is_sending = False
    return users


async def test_s1_rolling_deployment_loses_nothing_acked_and_interrupts_two_seconds_at_most(
    deployment: Deployment, judge: Callable[..., list[str]], show: Callable[..., None]
) -> None:
    began = trio.current_time()
    users = await live_through_deployments(deployment, retry=RETRY)
    took = trio.current_time() - began
    breaches = [
        breach
        for user in users
        for breach in judge(user.name, user.sent, user.received, user.statistics)
    ]
    outcomes = Counter(receipt.outcome for user in users for _, receipt in user.sent)
    received = sum(isinstance(item, str) for user in users for item in user.received)
    interruptions = [seconds for user in users for seconds in user.interruptions]
    acknowledged_after = [seconds for user in users for seconds in user.acknowledged_after]
    show(
        f"{DEPLOYMENTS} rolling deployments of {BACKENDS} backends in {took:.0f} s",
        {
            "messages sent": outcomes.total(),
            "sent per second": round(outcomes.total() / took),
            "acknowledged": outcomes[wsclient.Outcome.ACKED],
            "received per second": round(received / took),
            "interruptions": len(interruptions),
            "interruption, median (s)": round(percentile(interruptions, 0.5), 3),
            "interruption, p99 (s)": round(percentile(interruptions, 0.99), 3),
            "interruption, longest (s)": round(max(interruptions), 3),
            "acknowledged after, p99 (s)": round(percentile(acknowledged_after, 0.99), 3),
            "acknowledged after, longest (s)": round(max(acknowledged_after), 3),
        },
    )

    assert [] == breaches
    assert {wsclient.Outcome.ACKED} == set(outcomes)
    assert percentile(interruptions, 0.99) <= INTERRUPTED_AT_MOST
    # Each channel is on one of the backends when they begin to be restarted.
    assert len(interruptions) >= DEPLOYMENTS * CHANNELS
