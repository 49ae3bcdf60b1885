"""Three servers behind haproxy are restarted, one after the other, again and again.

What a user of a channel loses by that is nothing that was to be acknowledged, and little time.
Where channels rotate, and a server is drained before it is restarted, it is nothing at all.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import random
import shutil
import signal
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
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
IS_FULL = os.environ.get("WSCLIENT_SERVERS") == "all"
DEPLOYMENTS = 20 if IS_FULL else 3
DRAINED_DEPLOYMENTS = 20 if IS_FULL else 1
"""They take longer: every backend waits for its channels to go."""
CHANNELS = 4
INTERVAL = 0.02
"""Seconds between the messages of one channel, as between the ticks that the server says to it:
with four channels, 200 messages a second in either direction."""
INTERRUPTED_AT_MOST = 2.0
"""Seconds, for 99 interruptions in a hundred."""
ROTATE_EVERY = 1.5
"""Seconds: for so long a backend is drained at most."""
REMEMBERED = 25
"""Ticks with which a new connection begins: for half a second one server may lag behind another."""
PAUSED_AT_MOST = 1.0
"""Seconds without a message that are no interruption: fifty times the usual, on a busy machine."""

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

    async def roll(self, chance: random.Random, *, pause: float = 0.0, drain: bool = False) -> None:
        """Restart one backend after the other.

        Args:
            chance: Draws for how long nobody listens.
            pause: Seconds before each, that everything may settle.
            drain: Whether each gets no new connections before, until the last one has gone.
        """
        for number, backend in enumerate(self.backends):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.load)
                if drain:
                    await self._ask(f"set server back/backend{number} state drain")
                    await self._wait_until(number, "scur", "0")
                await trio.sleep(pause)
            await backend.die(signal.SIGTERM)
            await trio.sleep(chance.uniform(0, 0.5))
            await backend.listen()
            if drain:
                await self._ask(f"set server back/backend{number} state ready")
            await self._wait_until(number, "status", "UP")

    async def _wait_until(self, number: int, column: str, value: str) -> None:
        """Wait until haproxy's statistics say so of a backend."""
        while value != (await self._ask_statistics(f"backend{number}"))[column]:  # noqa: ASYNC110  # haproxy does not call.
            await trio.sleep(0.1)

    async def _ask_statistics(self, name: str) -> dict[str, str]:
        rows = csv.DictReader((await self._ask("show stat")).splitlines())
        return next(row for row in rows if row["svname"] == name)

    async def _ask(self, command: str) -> str:
        async with await trio.open_unix_socket(f"{self.folder}/admin") as stream:
            await stream.send_all(f"{command}\n".encode())
            return b"".join([data async for data in stream]).decode()


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
    deliveries: Sequence[wsclient.Delivery]
    """How its messages are sent, in turn."""
    remembered: int
    """Ticks with which each of its connections begins."""
    sent: list[tuple[wsclient.Delivery, wsclient.Receipt]] = attrs.Factory(list)
    received: list[str | wsclient.Gap] = attrs.Factory(list)
    ticks: list[int] = attrs.Factory(list)
    """The same messages: where they stand in the stream that all servers say."""
    longest_pause: float = 0.0
    """Seconds without a message, at most."""
    interruptions: list[float] = attrs.Factory(list)
    """Seconds between the last message of a connection and the first one of the next."""
    acknowledged_after: list[float] = attrs.Factory(list)
    """Seconds from sending a message to its acknowledgement."""
    events: list[wsclient.Event] = attrs.Factory(list)
    outages: Sequence[wsclient.Outage] = ()
    statistics: wsclient.ChannelStatistics | None = None
    is_sending: bool = True

    async def run(
        self, url: str, options: dict[str, Any], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Send and receive until told to stop sending; then let everything arrive, and leave."""
        async with (
            wsclient.open_channel(
                f"{url}/{self.name}?remembered={self.remembered}",
                retry=RETRY,
                delivery=wsclient.DeliveryOptions(acknowledgement=wsclient.JsonAcknowledgement()),
                observers=[self.events.append],
                **options,
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
            self.outages = channel.outages
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
                delivery = self.deliveries[number % len(self.deliveries)]
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
            message = json.loads(item)
            self.received.append(message["said"])
            self.ticks.append(message["tick"])
            now = trio.current_time()
            self.longest_pause = max(self.longest_pause, now - last)
            if is_interrupted:
                self.interruptions.append(now - last)
            last, is_interrupted = now, False
        self.longest_pause = max(self.longest_pause, trio.current_time() - last)

    def count(self, kind: type[wsclient.Event]) -> int:
        """How many events of a kind the channel has told."""
        return sum(isinstance(event, kind) for event in self.events)


def percentile(figures: list[float], share: float) -> float:
    """The least figure that ``share`` of all do not exceed."""
    return sorted(figures)[math.ceil(share * len(figures)) - 1]


async def live_through_deployments(
    deployment: Deployment,
    count: int,
    deliveries: Sequence[wsclient.Delivery],
    *,
    remembered: int = 1,
    pause: float = 0.0,
    drain: bool = False,
    **options: Any,
) -> list[User]:
    """Let channels with these options send and receive while everything is restarted."""
    chance = random.Random(1)
    users = [User(f"user{number}", deliveries, remembered) for number in range(CHANNELS)]
    async with trio.open_nursery() as nursery:
        for user in users:
            await nursery.start(user.run, deployment.url, options)
        for _ in range(count):
            await deployment.roll(chance, pause=pause, drain=drain)
        for user in users:
            user.is_sending = False
    return users


async def test_s1_rolling_deployment_loses_nothing_acked_and_interrupts_two_seconds_at_most(
    deployment: Deployment, judge: Callable[..., list[str]], show: Callable[..., None]
) -> None:
    began = trio.current_time()
    users = await live_through_deployments(
        deployment, DEPLOYMENTS, [wsclient.Delivery.ACKED], pause=1.2
    )
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


async def test_s6_3_rolling_deployment_of_drained_servers_does_not_interrupt_rotating_channels(
    deployment: Deployment, judge: Callable[..., list[str]], show: Callable[..., None]
) -> None:
    began = trio.current_time()
    users = await live_through_deployments(
        deployment,
        DRAINED_DEPLOYMENTS,
        [wsclient.Delivery.QUEUED, wsclient.Delivery.ACKED],
        remembered=REMEMBERED,
        drain=True,
        dedupe=lambda message: json.loads(message).get("tick"),
        rotate_every=ROTATE_EVERY,
    )
    took = trio.current_time() - began
    # I7 and I8 are about streams that begin anew with each connection; this one does not.
    judged = ["I1", "I2", "I3", "I4", "I5", "I6", "I13"]
    breaches = [
        breach
        for user in users
        for breach in judge(user.name, user.sent, user.received, user.statistics, judged)
    ]
    outcomes = Counter(
        (delivery.name, receipt.outcome) for user in users for delivery, receipt in user.sent
    )
    received = sum(len(user.ticks) for user in users)
    rotations = [user.count(wsclient.ConnectionLeft) for user in users]
    longest_pause = max(user.longest_pause for user in users)
    show(
        f"{DRAINED_DEPLOYMENTS} rolling deployments of {BACKENDS} drained backends in {took:.0f} s",
        {
            "messages sent": outcomes.total(),
            "sent per second": round(outcomes.total() / took),
            "acknowledged": outcomes["ACKED", wsclient.Outcome.ACKED],
            "read by the server": outcomes["QUEUED", wsclient.Outcome.RECEIVED],
            "received per second": round(received / took),
            "received over both connections": sum(
                user.statistics.messages_repeated for user in users if user.statistics
            ),
            "rotations": sum(rotations),
            "pause between two messages, longest (s)": round(longest_pause, 3),
        },
    )

    assert [] == breaches
    assert {("ACKED", wsclient.Outcome.ACKED), ("QUEUED", wsclient.Outcome.RECEIVED)} == set(
        outcomes
    )
    for user in users:
        # Every tick once, in order, and no gap among them.
        assert list(range(user.ticks[0], user.ticks[-1] + 1)) == user.ticks
        assert [] == [item for item in user.received if isinstance(item, wsclient.Gap)]
        assert 0 == user.count(wsclient.ConnectionLost)
        assert () == user.outages
    assert longest_pause <= PAUSED_AT_MOST
    # Each channel is on one of the backends when they begin to be drained, and has to leave it.
    assert min(rotations) >= DRAINED_DEPLOYMENTS
