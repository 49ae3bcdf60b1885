"""A server goes away and comes back: how do a thousand clients take it?

    python benchmarks/storm.py                      in memory on virtual time, then on real sockets
    python benchmarks/storm.py --only virtual --seeds 10
    python benchmarks/storm.py --only virtual --outage 300

On virtual time the clients meet the same outage twice: with the default policy, and with one that
waits the mean of it and leaves nothing to chance.
On real sockets the server is a process that is killed, and started anew at the same port.

Exit status 1: more than a fifth as many attempts in the busiest 50 ms as without chance, or less
than 99 % back within 30 s of the server's return; on sockets, one not back within 6 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Protocol

import _plot
import attrs
import trio
from compare import Progress, print_table

import wsclient
from wsclient import RetryPolicy, events
from wsclient.session._rehearsal import busiest, reached
from wsclient.testing import FaultServer, memory_network, run_deterministic

HERE: Final = Path(__file__).parent

WINDOW: Final = 0.05  # seconds: what a server feels as one moment
LARGEST_SHARE: Final = 0.2  # of the attempts in the busiest window without chance
MOST: Final = 0.99  # of the clients
MOST_WITHIN: Final = 30.0  # seconds after the server's return, in which most are back
ALL_WITHIN: Final = 6.0  # seconds; likewise all, on real sockets after a short outage
SOCKETS_OUTAGE: Final = 3.0  # seconds
CALM: Final = 20.0  # seconds of virtual time: every connection is stable before the outage
SOCKETS_CALM: Final = 1.0
PATIENCE: Final = 120.0  # seconds after the server's return, after which nobody waits any more
SOCKETS_PATIENCE: Final = 30.0
SHOWN: Final = 15.0  # seconds in the plot


@cache
def mean_wait(failures: int) -> float:
    """The mean of what the default policy waits after so many failures."""
    before = random.getstate()
    random.seed(failures)
    state: Any = SimpleNamespace(attempt_number=failures)
    wait = wsclient.default_wait()
    try:
        return statistics.fmean(wait(state) for _ in range(2_000))
    finally:
        random.setstate(before)


POLICIES: Final = {
    "default": RetryPolicy(),
    "without chance": RetryPolicy(wait=lambda state: mean_wait(state.attempt_number)),
}


@attrs.frozen
class Outage:
    """What the clients did; times are seconds since the outage began."""

    clients: int
    until: float
    """When the server was back."""
    attempts: Sequence[float]
    """When attempts were made, in order."""
    back: Sequence[float]
    """When clients were ready again, in order."""

    @property
    def busiest(self) -> int:
        """Attempts in the busiest window."""
        return busiest(self.attempts, WINDOW)

    def back_within(self, share: float) -> float:
        """Seconds after the server's return, in which this share of the clients was ready."""
        return reached(self.back, self.clients, share) - self.until


class Watch:
    """Told what the clients do."""

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self.attempts: list[float] = []
        self.ready: dict[str, float] = {}
        self.all_ready = trio.Event()

    def __call__(self, event: wsclient.Event) -> None:
        now = trio.current_time()
        match event:
            case events.ConnectionAttempted():
                self.attempts.append(now)
            case events.ConnectionReady():
                self.ready[event.channel] = now
                if len(self.ready) == self._clients:
                    self.all_ready.set()
            case events.ConnectionLost():
                self.ready.pop(event.channel, None)
                self.all_ready = trio.Event()


class Server(Protocol):
    """What can be away for a while."""

    async def start(self) -> None:
        """Listen, at the same address each time."""

    async def stop(self) -> None:
        """Be away."""


async def ride_out(
    server: Server,
    url: str,
    clients: int,
    policy: RetryPolicy,
    *,
    calm: float,
    outage: float,
    patience: float,
) -> Outage:
    """Let so many clients meet an outage."""
    watch = Watch(clients)
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            await wsclient.connect_channel(
                nursery, url, name=str(number), retry=policy, observers=[watch]
            )
        await watch.all_ready.wait()
        await trio.sleep(calm)
        watch.attempts.clear()
        began = trio.current_time()
        await server.stop()
        await trio.sleep(outage)
        await server.start()
        until = trio.current_time()
        with trio.move_on_after(patience):
            await watch.all_ready.wait()
        nursery.cancel_scope.cancel()
        return Outage(
            clients,
            until - began,
            [time - began for time in watch.attempts],
            sorted(time - began for time in watch.ready.values() if time > began),
        )


# --- on virtual time ------------------------------------------------------------------------------


def in_memory(seed: int, clients: int, policy: RetryPolicy, outage: float) -> Outage:
    """An outage on virtual time, the same each time for the same seed."""

    async def main() -> Outage:
        with memory_network() as network:
            async with FaultServer(network=network) as server:
                return await ride_out(
                    server,
                    server.url,
                    clients,
                    policy,
                    calm=CALM,
                    outage=outage,
                    patience=PATIENCE,
                )

    return run_deterministic(seed, main)


@attrs.frozen
class Comparison:
    """The same outage with the default policy and with one that leaves nothing to chance."""

    seed: int
    ours: Outage
    without_chance: Outage

    @property
    def share(self) -> float:
        return self.ours.busiest / self.without_chance.busiest

    @property
    def missed(self) -> list[str]:
        missed = []
        if self.share > LARGEST_SHARE:
            missed.append(f"seed {self.seed}: {self.share:.2f} of the attempts without chance")
        if self.ours.back_within(MOST) > MOST_WITHIN:
            missed.append(f"seed {self.seed}: {MOST:.0%} not back within {MOST_WITHIN:g} s")
        return missed


# --- on real sockets ------------------------------------------------------------------------------


class ServerProcess:
    """A server in a process of its own, which dies in an outage.

    The next process is there before it is to listen: how long Python takes to start is not to make
    the outage longer.
    """

    def __init__(self, port: int) -> None:
        command = [sys.executable, str(HERE / "_server.py"), f"--port={port}", "--when-told"]
        self._spawn = partial(
            subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process: subprocess.Popen[str] = self._spawn()

    async def start(self) -> None:
        await trio.to_thread.run_sync(self._listen)

    def _listen(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        if not self._process.stdout.readline():
            raise AssertionError("the server does not listen")

    async def stop(self) -> None:
        await trio.lowlevel.checkpoint()
        self.kill()
        self._process = self._spawn()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def reserved_port() -> Generator[int, None, None]:
    """A port that nobody else gets while the server is away, no client for its own end either."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def allow_descriptors(count: int) -> None:
    """Let this process, and its children, have so many descriptors, where that can be had."""
    with contextlib.suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < count:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def on_sockets(clients: int) -> Outage:
    """A short outage in real time."""
    allow_descriptors(2 * clients + 100)

    async def main() -> Outage:
        with reserved_port() as port:
            server = ServerProcess(port)
            try:
                await server.start()
                return await ride_out(
                    server,
                    f"ws://127.0.0.1:{port}/heed/1",
                    clients,
                    POLICIES["default"],
                    calm=SOCKETS_CALM,
                    outage=SOCKETS_OUTAGE,
                    patience=SOCKETS_PATIENCE,
                )
            finally:
                server.kill()

    return trio.run(main)


def missed_on_sockets(outage: Outage) -> list[str]:
    """What is to be reached on sockets, and was not."""
    if outage.back_within(1) <= ALL_WITHIN:
        return []
    return [f"sockets: {len(outage.back)} of {outage.clients} back, not all in {ALL_WITHIN:g} s"]


# --- what is told ---------------------------------------------------------------------------------


def seconds(value: float) -> str:
    return f"{value:.1f} s" if math.isfinite(value) else "never"


HEADER: Final = ("clients", "attempts", "in 50 ms", "without chance", "share", "99 % back", "all")


def line(name: str, outage: Outage, without_chance: Outage | None = None) -> tuple[str, ...]:
    """One row for people."""
    other = share = "–"
    if without_chance is not None:
        other = f"{without_chance.busiest:,}"
        share = f"{outage.busiest / without_chance.busiest:.3f}"
    return (
        f"{outage.clients:,} {name}",
        f"{len(outage.attempts):,}",
        f"{outage.busiest:,}",
        other,
        share,
        seconds(outage.back_within(MOST)),
        seconds(outage.back_within(1)),
    )


def as_json(outage: Outage) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "clients": outage.clients,
        "outage": outage.until,
        "attempts": len(outage.attempts),
        "busiest": outage.busiest,
        "back": len(outage.back),
        "most_back_within": finite(outage.back_within(MOST)),
        "all_back_within": finite(outage.back_within(1)),
    }


def picture(comparison: Comparison) -> str:
    """Attempts over time, without chance and with it."""

    def counted(outage: Outage) -> list[int]:
        counts = [0] * round(max(SHOWN, 1.5 * outage.until) / WINDOW)
        for time in outage.attempts:
            if time < len(counts) * WINDOW:
                counts[int(time / WINDOW)] += 1
        return counts

    return _plot.histograms(
        {
            "The same waits, without chance": counted(comparison.without_chance),
            "RetryPolicy()": counted(comparison.ours),
        },
        WINDOW,
        (0, comparison.ours.until),
        f"attempts of {comparison.ours.clients:,} clients in each 50 ms",
        "seconds since the server went away; it is back where the shade ends",
    )


def whole_number(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if (number := int(text)) < least:
            raise ValueError
        return number

    return convert


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("virtual", "sockets"), help="one of the two")
    parser.add_argument(
        "--clients", type=whole_number(1), default=1_000, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--seeds", type=whole_number(1), default=5, metavar="N", help="runs on virtual time"
    )
    parser.add_argument(
        "--outage", type=float, default=10.0, metavar="SECONDS", help="of virtual time"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the first run as SVG")
    arguments = parser.parse_args()
    if arguments.plot is not None and arguments.only == "sockets":
        parser.error("--plot shows a run on virtual time")
    say = Progress()
    lines: list[tuple[str, ...]] = []
    told: dict[str, Any] = {}
    missed: list[str] = []
    if arguments.only != "sockets":
        comparisons = []
        for seed in range(1, arguments.seeds + 1):
            outages = []
            for name, policy in POLICIES.items():
                say(f"virtual time: seed {seed} of {arguments.seeds}, {name}")
                outages.append(in_memory(seed, arguments.clients, policy, arguments.outage))
            comparisons.append(Comparison(seed, *outages))
        if arguments.plot is not None:
            arguments.plot.write_text(picture(comparisons[0]), encoding="utf-8")
        told["virtual"] = [
            {
                "seed": each.seed,
                "default": as_json(each.ours),
                "without_chance": as_json(each.without_chance),
                "share": each.share,
            }
            for each in comparisons
        ]
        for each in comparisons:
            missed += each.missed
            lines.append(line(f"in memory, seed {each.seed}", each.ours, each.without_chance))
    if arguments.only != "virtual":
        say("sockets: real time")
        outage = on_sockets(arguments.clients)
        told["sockets"] = as_json(outage)
        missed += missed_on_sockets(outage)
        lines.append(line("on sockets", outage))
    say.end()
    if arguments.json:
        print(json.dumps({**told, "missed": missed}, indent=2))
    else:
        print_table(HEADER, lines)
        print(*missed, sep="\n", end="\n" if missed else "")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
