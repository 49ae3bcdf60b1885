"""Connections are cut at random bytes, over real sockets: no receipt says what is not so.

The server is a process that this project did not write, and logs what it reads.
What the channels claim is compared with that log, by the invariants of the test kit.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import pytest
import tenacity
import trio

import wsclient
from wsclient.testing import (
    BLACKOUT,
    CLEAR,
    HALF_OPEN_DOWN,
    HALF_OPEN_UP,
    Conditions,
    FaultProxy,
    ProxiedConnection,
    Way,
)

CHANNELS = 15
CUTS = 300 if os.environ.get("WSCLIENT_SERVERS") == "all" else 100
INTERVAL = 0.005
"""Seconds between the messages of one channel, on average."""

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@attrs.frozen
class Cut:
    """How one connection ends."""

    conditions: Conditions
    silence: Conditions | None = None
    """What the path turns into after a while, if it is not cut at a byte."""
    after: float = 0.0
    """Seconds until then."""
    lasts: float = 0.0
    """Seconds that the silence lasts."""
    recovers: bool = False
    """Whether what has waited meanwhile arrives after all; else it is lost."""

    async def fall_silent(self, connection: ProxiedConnection) -> None:
        assert self.silence is not None
        await trio.sleep(self.after)
        connection.change(self.silence)
        await trio.sleep(self.lasts)
        if self.recovers:
            connection.change(CLEAR)
            await trio.sleep(self.lasts)
        connection.reset()


def draw_cut(chance: random.Random) -> Cut:
    if chance.random() < 0.75:
        # One in eight within the handshake; the other connections carry up to some 20 messages.
        least, most = (0, 400) if chance.random() < 0.125 else (400, 6_000)
        up, down = chance.choice(
            [
                (Way(cut_after=chance.randint(least, most)), Way()),
                # Less comes down than goes up.
                (Way(), Way(cut_after=chance.randint(least, most) // 4)),
            ]
        )
        return Cut(Conditions(up=up, down=down, cut=chance.choice(["reset", "reset", "end"])))
    # The server goes on speaking, and so it seems to be alive; or the heartbeat notices.
    silence, lasts = chance.choice([(HALF_OPEN_UP, 0.5), (BLACKOUT, 2.0), (HALF_OPEN_DOWN, 2.0)])
    return Cut(
        # Slow and sliced, so that the silence falls into the midst of a frame.
        Conditions.both(bandwidth=60_000, slice_size=chance.randint(1, 200)),
        silence=silence,
        after=chance.uniform(0, 0.3),
        lasts=lasts,
        recovers=chance.random() < 0.4,
    )


@attrs.define
class User:
    """One channel, what is sent by it, and what is received."""

    name: str
    chance: random.Random
    sent: list[tuple[wsclient.Delivery, wsclient.Receipt | wsclient.DeliveryError]] = attrs.Factory(
        list
    )
    received: list[str | wsclient.Gap] = attrs.Factory(list)
    events: list[wsclient.Event] = attrs.Factory(list)
    statistics: wsclient.ChannelStatistics | None = None
    is_sending: bool = True

    async def run(self, port: int, cuts: list[Cut]) -> None:
        """Send until all cuts have struck; then let everything arrive, and leave."""
        story = [*(cut.conditions for cut in cuts), CLEAR]
        target = f"ws://127.0.0.1:{port}/{self.name}"
        async with FaultProxy(target, story) as proxy, trio.open_nursery() as nursery:
            nursery.start_soon(silence, proxy, cuts)
            async with self._open(proxy.url) as channel, trio.open_nursery() as using:
                using.start_soon(self._receive, channel)
                using.start_soon(self._send, channel)
                # After the last cut comes a connection that holds.
                await proxy.wait_connections(len(story))
                self.is_sending = False
                await channel.drain(60)
                self.statistics = channel.statistics()
            nursery.cancel_scope.cancel()

    def _open(self, url: str) -> AbstractAsyncContextManager[wsclient.DurableChannel]:
        return wsclient.open_channel(
            url,
            connection=wsclient.ConnectionOptions(
                compression=self.chance.random() < 0.3, connect_timeout=1
            ),
            heartbeat=wsclient.HeartbeatOptions(interval=0.25, timeout=0.25),
            retry=wsclient.RetryPolicy(
                wait=tenacity.wait_random(0, 0.05),
                budget=wsclient.RetryBudget(attempts=math.inf),
            ),
            delivery=wsclient.DeliveryOptions(
                acknowledgement=wsclient.JsonAcknowledgement(),
                fence_interval=self.chance.choice([0.0, 0.02, 0.1]),
            ),
            observers=[self.events.append],
        )

    async def _send(self, channel: wsclient.DurableChannel) -> None:
        for number in itertools.count():
            await trio.sleep(self.chance.expovariate(1 / INTERVAL))
            if not self.is_sending:
                return
            size = self.chance.choice([0, 20, 20, 200, 2000])
            text = json.dumps({"number": number, "more": "x" * size})
            message = text.encode() if self.chance.random() < 0.2 else text
            delivery = self.chance.choice(list(wsclient.Delivery))
            # Some that have to wait are too late.
            ttl = 0.02 if self.chance.random() < 0.1 else math.inf
            try:
                receipt = await channel.send(message, delivery=delivery, ttl=ttl)
            except wsclient.DeliveryError as error:
                self.sent.append((delivery, error))
                continue
            self.sent.append((delivery, receipt))
            if self.chance.random() < 0.05:
                receipt.cancel()

    async def _receive(self, channel: wsclient.DurableChannel) -> None:
        async for item in channel.items():
            assert not isinstance(item, wsclient.Overflow)
            self.received.append(
                item if isinstance(item, wsclient.Gap) else json.loads(item)["said"]
            )

    def not_acked(self) -> list[int]:
        """What was promised until acknowledged, and neither was it nor does anybody know why."""
        told = (
            wsclient.Outcome.ACKED,
            wsclient.Outcome.CANCELLED,
            wsclient.Outcome.EXPIRED,
            wsclient.Outcome.QUARANTINED,
        )
        return [
            number
            for number, (delivery, said) in enumerate(self.sent)
            if delivery is wsclient.Delivery.ACKED and said.outcome not in told
        ]

    def violations(self) -> list[str]:
        """Connections that ended because somebody was not understood."""
        return [
            event.cause
            for event in self.events
            if isinstance(event, wsclient.ConnectionLost) and event.code in (1002, 1003, 1007, 1009)
        ]


async def silence(proxy: FaultProxy, cuts: list[Cut]) -> None:
    """Let those connections fall silent whose turn it is."""
    async with trio.open_nursery() as nursery:
        for number, cut in enumerate(cuts, 1):
            connection = await proxy.wait_connections(number)
            if cut.silence is not None:
                nursery.start_soon(cut.fall_silent, connection)


def count(users: list[User], cuts: int) -> dict[str, int]:
    """What the receipts claim, and of how many messages and connections."""
    said = [said for user in users for _, said in user.sent]
    truths = Counter(each.truth for each in said)
    outcomes = Counter(each.outcome for each in said)
    kinds = Counter(type(event) for user in users for event in user.events)
    return {
        "cuts": cuts,
        "cuts of a ready connection": kinds[wsclient.ConnectionLost],
        "cuts within a handshake": kinds[wsclient.ConnectionFailed],
        "messages": len(said),
        "certified": truths[wsclient.Truth.CERTAIN],
        "of which acknowledged": outcomes[wsclient.Outcome.ACKED],
        "unknown": truths[wsclient.Truth.UNKNOWN],
        "not sent": truths[wsclient.Truth.CERTAINLY_NOT],
        "of which quarantined": kinds[wsclient.MessageQuarantined],
    }


@pytest.mark.parametrize("program", ["ledger_websockets.py", "ledger_uvicorn.py"])
async def test_s1_no_receipt_claims_what_is_not_so_however_connections_are_cut(
    program: str,
    start_backend: Any,
    judge: Callable[..., list[str]],
    show: Callable[..., None],
) -> None:
    # Where it was cut can be drawn again, by --randomly-seed; what was on its way then cannot.
    chance = random.Random(random.random())
    cuts = [draw_cut(chance) for _ in range(CUTS)]
    users = [User(f"user{number}", random.Random(chance.random())) for number in range(CHANNELS)]
    backend = await start_backend(program)
    async with trio.open_nursery() as nursery:
        for number, user in enumerate(users):
            nursery.start_soon(user.run, backend.port, cuts[number::CHANNELS])
    await backend.die()
    breaches = [
        breach
        for user in users
        for breach in judge(user.name, user.sent, user.received, user.statistics)
    ]
    figures = count(users, len(cuts))
    show(program, figures)

    assert [] == breaches
    assert [] == [(user.name, number) for user in users for number in user.not_acked()]
    assert [] == [(user.name, cause) for user in users for cause in user.violations()]
    # It was no walk in the park.
    assert figures["cuts of a ready connection"] > len(cuts) / 2
    assert figures["certified"] > 0
    assert figures["unknown"] > 0
    assert figures["not sent"] > 0
