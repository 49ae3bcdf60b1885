"""Ten thousand reconnects of one channel: does anything stay behind?

    python benchmarks/soak.py                       over real sockets, then in memory
    python benchmarks/soak.py --only memory --reconnects 1000
    python benchmarks/soak.py --trace               and look at every allocation

A channel sends in all three ways, and receives, while the server ends every connection in another
way: ``_flaky.py`` says how.
Over real sockets the server is a process of its own, and there is no wait before an attempt.
In memory, on virtual time, it is in this process, and the channel waits as its policy says: days.

Exit status 1: more than 1 MiB of memory, or some thousand objects, more than after the first 500
reconnects; a descriptor, a trio task or a receipt without an outcome is left at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from _flaky import flaky_server
from compare import Progress, print_table

import wsclient
from wsclient import (
    Delivery,
    DeliveryOptions,
    DurableChannel,
    JsonAcknowledgement,
    Receipt,
    RetryBudget,
    RetryPolicy,
    events,
)
from wsclient.testing import memory_network, run_deterministic

HERE: Final = Path(__file__).parent

WARM: Final = 500  # reconnects until every bounded history is full
MARKS: Final = 20  # how often memory is looked at, at most
APART: Final = 50  # reconnects between two looks, at least
MEMORY: Final = 2**20  # bytes that may be more at the end than when it was warm
WAYS: Final = (Delivery.QUEUED, Delivery.ACKED, Delivery.DIRECT, Delivery.QUEUED)
"""What is sent on each connection."""


@attrs.frozen
class Mode:
    """Where a channel is soaked, and with what patience."""

    name: str
    retry: RetryPolicy
    fence_interval: float
    lull: float
    """Seconds after which a connection that lasts is left for a new one."""
    objects: int
    """Objects that may be more at the end than when it was warm."""
    rest: float
    """Seconds before memory is looked at, in which what ends in the background is over: the
    connections before (a second at most), and the server's side of them where it is here, too."""


MODES: Final = (
    Mode(
        "sockets",
        RetryPolicy(wait=lambda _: 0.0, budget=RetryBudget(attempts=math.inf)),
        fence_interval=0.005,
        lull=0.02,
        # trio forgets deadlines that came to nothing a thousand at a time, each with its scope.
        objects=3_000,
        rest=1.5,
    ),
    # Virtual time passes every deadline.
    Mode("memory", RetryPolicy(), fence_interval=1.0, lull=60.0, objects=1_000, rest=15.0),
)


@attrs.frozen
class Held:
    """What the process holds at one moment."""

    reconnects: int
    memory: int
    """Bytes, resident."""
    objects: int
    """Those that the garbage collector knows."""
    descriptors: int
    tasks: int
    traced: int
    """Bytes that Python has allocated; 0 if they are not traced."""


def held(reconnects: int = 0) -> Held:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return Held(
        reconnects,
        pages * os.sysconf("SC_PAGE_SIZE"),
        len(gc.get_objects()),
        len(os.listdir("/proc/self/fd")),
        trio.lowlevel.current_statistics().tasks_living,
        tracemalloc.get_traced_memory()[0],
    )


@attrs.frozen
class Result:
    """What a soaked channel has left behind."""

    mode: Mode
    marks: list[Held]
    """While it was connected."""
    before: Held
    after: Held
    outcomes: Counter[str]
    """Of all receipts."""
    unsettled: int
    """Receipts without an outcome."""
    received: int

    @property
    def warm(self) -> Held:
        return next(mark for mark in self.marks if mark.reconnects >= self._warm)

    @property
    def _warm(self) -> int:
        # Of few reconnects, the first half.
        return min(WARM, self.marks[-1].reconnects // 2)

    @property
    def growth(self) -> Held:
        """How much more there is at the end than when it was warm."""
        first, last = attrs.astuple(self.warm), attrs.astuple(self.marks[-1])
        return Held(*(end - start for start, end in zip(first, last, strict=True)))

    @property
    def missed(self) -> list[str]:
        growth, missed = self.growth, []
        if growth.memory > MEMORY:
            missed.append(f"{growth.memory / 2**20:.1f} MiB more")
        if growth.traced > MEMORY:
            missed.append(f"{growth.traced / 2**20:.1f} MiB more allocated")
        if growth.objects > self.mode.objects:
            missed.append(f"{growth.objects:,} objects more")
        for what in ("descriptors", "tasks"):
            had, has = getattr(self.before, what), getattr(self.after, what)
            if had != has:
                missed.append(f"{had} {what} before, {has} after")
        if self.unsettled:
            missed.append(f"{self.unsettled} receipts without an outcome")
        return [f"{self.mode.name}: {text}" for text in missed]


class Soak:
    """One channel that is cut again and again."""

    def __init__(self, mode: Mode, reconnects: int, say: Callable[[str], None]) -> None:
        self._mode = mode
        self._reconnects = reconnects
        self._say = say
        self._over = trio.Event()
        self._receipts: list[Receipt] = []
        self.marks: list[Held] = []
        self.outcomes: Counter[str] = Counter()
        self.received = 0

    async def run(self, url: str, forget: Callable[[], object]) -> Result:
        """Soak a channel.

        Args:
            url: Where the flaky server is.
            forget: Lets it forget what it has heard.
        """
        before = held()
        async with (
            wsclient.open_channel(
                url,
                retry=self._mode.retry,
                delivery=DeliveryOptions(
                    acknowledgement=JsonAcknowledgement(), fence_interval=self._mode.fence_interval
                ),
                observers=[self._watch],
            ) as channel,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._receive, channel)
            await self._send(channel, forget)
            nursery.cancel_scope.cancel()
        self._settle()
        if self._mode.name == "memory":
            # The server's side is in this process.
            await trio.sleep(self._mode.rest)
        forget()
        return Result(
            self._mode,
            self.marks,
            before,
            held(),
            self.outcomes,
            len(self._receipts),
            self.received,
        )

    def _watch(self, event: wsclient.Event) -> None:
        match event:
            case events.ConnectionOpened():
                self._over = trio.Event()
            case events.ConnectionLost() | events.ConnectionLeft():
                self._over.set()

    async def _receive(self, channel: DurableChannel) -> None:
        async for _ in channel.items():
            self.received += 1

    async def _send(self, channel: DurableChannel, forget: Callable[[], object]) -> None:
        every = max(APART, self._reconnects // MARKS)
        due = min(every, WARM)
        while True:
            await channel.wait_ready()
            reconnects, over = channel.epoch - 1, self._over
            self._say(f"{self._mode.name}: {reconnects:,} of {self._reconnects:,} reconnects")
            if reconnects >= due:
                await trio.sleep(self._mode.rest)
                forget()
                self.marks.append(held(reconnects))
                due = min(reconnects - reconnects % every + every, self._reconnects)
            if reconnects >= self._reconnects:
                return
            for number, delivery in enumerate(WAYS):
                try:
                    self._receipts.append(
                        await channel.send(f'{{"number": {number}}}', delivery=delivery)
                    )
                except (wsclient.NotConnected, wsclient.SendUnknown):
                    self.outcomes["refused"] += 1
            with trio.move_on_after(self._mode.lull):
                await over.wait()
            if not over.is_set():
                channel.reconnect("it has lasted")
                await over.wait()
            self._settle()

    def _settle(self) -> None:
        """Count the receipts that have their outcome, and forget them."""
        open_receipts = []
        for receipt in self._receipts:
            if receipt.outcome is None:
                open_receipts.append(receipt)
            else:
                self.outcomes[receipt.outcome.value] += 1
        self._receipts = open_receipts


def over_sockets(soak: Soak, reconnects: int) -> Result:
    command = [sys.executable, str(HERE / "_flaky.py"), str(2 * reconnects)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            return trio.run(soak.run, f"ws://127.0.0.1:{server.stdout.readline().strip()}", int)
        finally:
            server.kill()


def in_memory(soak: Soak, reconnects: int) -> Result:
    async def main() -> Result:
        with memory_network() as network:
            async with flaky_server(2 * reconnects, network) as server:
                return await soak.run(server.url, server.clear)

    return run_deterministic(1, main)


def run(mode: Mode, reconnects: int, say: Callable[[str], None]) -> Result:
    """Soak a channel in one mode."""
    way = in_memory if mode.name == "memory" else over_sockets
    return way(Soak(mode, reconnects, say), reconnects)


HEADER: Final = ("over", "reconnects", "memory", "objects", "descriptors", "tasks", "receipts")


def line(result: Result) -> tuple[str, ...]:
    """One row for people."""
    growth, before, after = result.growth, result.before, result.after
    return (
        result.mode.name,
        f"{result.marks[-1].reconnects:,}",
        f"{growth.memory / 1024:+,.0f} KiB",
        f"{growth.objects:+,}",
        f"{before.descriptors} → {after.descriptors}",
        f"{before.tasks} → {after.tasks}",
        f"{result.outcomes.total():,} settled, {result.unsettled} not",
    )


def as_json(result: Result) -> dict[str, Any]:
    return {
        "mode": result.mode.name,
        "reconnects": result.marks[-1].reconnects,
        "received": result.received,
        "outcomes": result.outcomes,
        "unsettled": result.unsettled,
        "before": attrs.asdict(result.before),
        "marks": [attrs.asdict(mark) for mark in result.marks],
        "after": attrs.asdict(result.after),
        "growth": attrs.asdict(result.growth),
        "missed": result.missed,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[mode.name for mode in MODES], help="one of the two")
    parser.add_argument(
        "--reconnects", type=int, default=10_000, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--trace", action="store_true", help="trace every allocation; takes longer")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    if arguments.reconnects < 2 * APART:
        parser.error(f"--reconnects must be at least {2 * APART}")
    say = Progress()
    if arguments.trace:
        tracemalloc.start()
    chosen = [mode for mode in MODES if arguments.only in (None, mode.name)]
    results = [run(mode, arguments.reconnects, say) for mode in chosen]
    say.end()
    missed = [text for result in results for text in result.missed]
    if arguments.json:
        print(json.dumps([as_json(result) for result in results], indent=2))
    else:
        print_table(HEADER, [line(result) for result in results])
        print(*missed, sep="\n", end="\n" if missed else "")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
