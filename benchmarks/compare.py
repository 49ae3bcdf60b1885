"""wsclient side by side with its peers: one command, one run, medians of interleaved rounds.

    python benchmarks/compare.py                    every row of the table
    python benchmarks/compare.py --only feed        one row; 'feed*' is several, --list names them
    python benchmarks/compare.py --growth           … and how cost grows with size and connections
    python benchmarks/compare.py --docs             … and write what the documentation shows

Each measurement is a process of its own, in the environment of its library; environments are made
in a cache folder when they are needed.  The server is one more process, on another core.
Read the ratios: the machine's own speed drops out of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import _plot
from _environments import COMPILED, PEERS, PURE, ROOT, Environments, default_cache

HERE: Final = Path(__file__).parent
DOCS: Final = ROOT / "docs/explanation"
TIMEOUT: Final = 600.0  # seconds for one measurement; the slowest here takes a minute
GROWTH_ROUNDS: Final = 3  # at most; to open 5,000 connections takes long
QUICK: Final = 10  # a tenth of the messages


@dataclass(frozen=True)
class Row:
    """One workload, wsclient and a peer, and the ratio to reach."""

    name: str
    title: str
    peer: str
    bar: float
    measure: str = "feed"
    kind: str = "text"
    size: int = 100
    count: int = 500_000
    library: str = "wsclient"
    environment: str = COMPILED
    tls: bool = False
    unit: str = "cpu"


MIB: Final = 2**20

ROWS: Final = (
    Row("feed", "receive 100 B texts, connection", "picows", 0.6),
    Row("feed-channel", "receive 100 B texts, channel", "picows", 0.75, library="wsclient channel"),
    Row(
        "feed-channel-fenced",
        "receive 100 B texts, channel that sends",
        "picows",
        0.75,
        count=2_000_000,
        library="wsclient channel, sending",
    ),
    Row("feed-1MiB", "receive 1 MiB binary", "raw trio", 1.0, kind="binary", size=MIB, count=400),
    Row("send", "send 100 B texts", "picows", 0.35, measure="send", count=100_000),
    Row(
        "send-1MiB",
        "send 1 MiB binary",
        "picows",
        1.1,
        measure="send",
        kind="binary",
        size=MIB,
        count=400,
    ),
    Row(
        "echo",
        "echo 100 B, wall time",
        "raw trio",
        1.0,
        measure="echo",
        count=10_000,
        unit="wall",
    ),
    Row("feed-tls", "receive 100 B texts, TLS", "picows", 1.0, tls=True),
    Row("feed-deflate", "receive 100 B JSON, deflate", "aiohttp", 1.0, kind="deflate"),
    Row("feed-pure", "receive 100 B texts, uncompiled", "websockets", 0.1, environment=PURE),
    Row(
        "idle",
        "memory of an idle connection",
        "websockets",
        0.7,
        measure="idle",
        count=1_000,
        unit="bytes",
    ),
    Row(
        "idle-channel",
        "memory of an idle channel",
        "websockets",
        4.5,
        measure="idle",
        count=1_000,
        library="wsclient channel",
        unit="bytes",
    ),
)

ALIKE: Final = ("wsclient", "picows", "websockets")
SIZES: Final = tuple(16 * 16**power for power in range(6))
CONNECTIONS: Final = (1, 10, 100, 1_000, 5_000)


@dataclass
class Result:
    """What came of a row."""

    row: Row
    ours: list[float] = field(default_factory=list)
    peers: list[float] = field(default_factory=list)
    our_walls: list[float] = field(default_factory=list)
    peer_walls: list[float] = field(default_factory=list)
    server_share: float = 0.0
    skipped: str = ""

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.peers)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest ratio of a pair."""
        ratios = [ours / peer for ours, peer in zip(self.ours, self.peers, strict=True)]
        return min(ratios), max(ratios)

    @property
    def reached(self) -> bool:
        return self.ratio <= self.row.bar

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"row": asdict(self.row), "skipped": self.skipped}
        if self.skipped:
            return told
        return told | {
            "ours": {
                "median": statistics.median(self.ours),
                "rounds": self.ours,
                "wall": self.our_walls,
            },
            "peer": {
                "median": statistics.median(self.peers),
                "rounds": self.peers,
                "wall": self.peer_walls,
            },
            "ratio": self.ratio,
            "spread": self.spread,
            "reached": self.reached,
            "server_share": self.server_share,
        }


class Skipped(Exception):
    """A client cannot do that; the reason is its text."""


# --- measuring ------------------------------------------------------------------------------------


class Bench:
    """Runs measurements against one server.

    Attributes:
        versions: Of everything that was measured.
    """

    def __init__(self, environments: Environments, stack: ExitStack, divisor: int) -> None:
        self.environments = environments
        self.versions: dict[str, str] = {}
        self._stack = stack
        self._divisor = divisor
        self._server: subprocess.Popen[str] | None = None
        self._urls: dict[bool, str] = {}
        self._core: int | None = None

    def _serve(self, *, tls: bool) -> str:
        """The server's URL; the server starts when it is first needed."""
        if tls in self._urls:
            return self._urls[tls]
        command: list[Any] = [sys.executable, HERE / "_server.py"]
        if tls:
            command += ["--certificate", self.environments.certificate()]
        if hasattr(os, "sched_getaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) > 1:
                self._core = cores[0]
                command += ["--core", str(cores[-1])]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._stack.callback(_end, server)
        assert server.stdout is not None
        ports = server.stdout.readline().split()
        self._urls[tls] = f"{'wss' if tls else 'ws'}://127.0.0.1:{ports[tls]}"
        self._server = server
        return self._urls[tls]

    def measure(self, row: Row, library: str, environment: str) -> tuple[float, float, float]:
        """One measurement: what the row counts a message (seconds) or a connection (bytes).

        Also the wall time of a message, and the server's share of that.

        Raises:
            Skipped: The client cannot do that.
        """
        url = self._serve(tls=row.tls)
        count = max(row.count // self._divisor, 1)
        task: dict[str, Any] = {
            "measure": row.measure,
            "library": library,
            "url": url,
            "count": count,
            "warm_up": max(count // 10, 1),
            "size": row.size,
            "kind": row.kind,
            "core": self._core,
        }
        if row.tls:
            task["authority"] = str(self.environments.certificate() / "client.pem")
        command = [self.environments.python(environment), HERE / "_client.py", json.dumps(task)]
        assert self._server is not None
        spent = -_cpu_of(self._server.pid)
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd=HERE
        )
        spent += _cpu_of(self._server.pid)
        if done.returncode:
            raise SystemExit(f"{library} failed at {row.name}:\n{done.stdout}{done.stderr}")
        told = json.loads(done.stdout)
        if "skipped" in told:
            raise Skipped(told["skipped"])
        self.versions.update(told["versions"])
        wall = told.get("wall", math.inf)
        return told[row.unit], wall, spent / (wall * (count + task["warm_up"]))

    def compare(self, row: Row, rounds: int, say: Progress) -> Result:
        result = Result(row)
        shares = []
        try:
            for number in range(rounds):
                for library, environment, values, walls in (
                    (row.library, row.environment, result.ours, result.our_walls),
                    (row.peer, PEERS, result.peers, result.peer_walls),
                ):
                    say(f"{row.name}: {library}, round {number + 1} of {rounds}")
                    value, wall, share = self.measure(row, library, environment)
                    values.append(value)
                    walls.append(wall)
                    shares.append(share)
        except Skipped as reason:
            result.skipped = str(reason)
        else:
            result.server_share = max(shares)
        return result

    def grow(self, rows: Iterable[tuple[float, Row]], rounds: int, say: Progress) -> Curves:
        """Messages a CPU second of each client, by what the rows are numbered with."""
        curves: Curves = {library: [] for library in ALIKE}
        for at, row in rows:
            values: dict[str, list[float]] = {library: [] for library in ALIKE}
            for number in range(rounds):
                for library in ALIKE:
                    say(f"{row.name}: {library}, round {number + 1} of {rounds}")
                    environment = COMPILED if library == "wsclient" else PEERS
                    try:
                        value, _, _ = self.measure(row, library, environment)
                    except Skipped:
                        continue
                    values[library].append(1 / value)
            for library, found in values.items():
                if found:
                    curves[library].append((at, statistics.median(found)))
        return curves


Curves = dict[str, list[tuple[float, float]]]


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process; zero where the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def growing_sizes() -> Iterable[tuple[float, Row]]:
    for size in SIZES:
        count = max(10, min(200_000, 2**28 // size))
        yield (
            size,
            Row(f"size-{size}", "", "", 0, kind="binary", size=size, count=count),
        )


def growing_connections() -> Iterable[tuple[float, Row]]:
    for peers in CONNECTIONS:
        yield (
            peers,
            Row(f"connections-{peers}", "", "", 0, measure=f"many {peers}", count=100_000),
        )


# --- telling --------------------------------------------------------------------------------------


class Progress:
    """One line about what is going on, on stderr; rewritten in place on a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._last = ""

    def __call__(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        if self._on_terminal:
            print(f"\r\x1b[K{seconds:5.0f} s  {text}", end="", file=sys.stderr, flush=True)
        elif text.partition(":")[0] != self._last:
            self._last = text.partition(":")[0]
            print(f"{seconds:5.0f} s  {text}", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def quantity(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1024:.1f} KiB"
    return f"{value * 1e6:.3g} µs" if value < 1e-3 else f"{value * 1e3:.3g} ms"


HEADER: Final = ("workload", "wsclient", "peer", "", "ratio", "spread", "at most", "")


def table(results: Iterable[Result]) -> list[tuple[str, ...]]:
    """The rows for people; a skipped one says why."""
    lines: list[tuple[str, ...]] = []
    for result in results:
        row = result.row
        if result.skipped:
            lines.append((row.title, "–", row.peer, "–", "–", "–", f"{row.bar:g}", result.skipped))
            continue
        low, high = result.spread
        verdict = "reached" if result.reached else "missed"
        if result.server_share > 0.8:
            verdict += f" (the server was busy {result.server_share:.0%} of the time)"
        lines.append(
            (
                row.title,
                quantity(statistics.median(result.ours), row.unit),
                row.peer,
                quantity(statistics.median(result.peers), row.unit),
                f"{result.ratio:.2f}",
                f"{low:.2f}–{high:.2f}",
                f"{row.bar:g}",
                verdict,
            )
        )
    return lines


def print_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    lines = [header, *lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        print("  ".join(text.ljust(width) for text, width in cells).rstrip())


def growth_table(first: str, curves: Curves) -> tuple[list[str], list[list[str]]]:
    rates = {library: dict(points) for library, points in curves.items()}
    numbers = sorted({at for points in rates.values() for at in points})
    lines = [
        [f"{at:,.0f}", *(f"{rate[at]:,.0f}" if at in rate else "–" for rate in rates.values())]
        for at in numbers
    ]
    return [first, *curves], lines


def machine() -> str:
    return (
        f"{platform.python_implementation()} {platform.python_version()},"
        f" {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )


def marks(results: Iterable[Result]) -> list[_plot.Mark]:
    """What the plot shows."""
    return [
        _plot.Mark(
            f"{result.row.title} / {result.row.peer}", result.ratio, *result.spread, result.row.bar
        )
        for result in results
        if not result.skipped
    ]


def write_docs(results: Sequence[Result], about: str, growth: dict[str, Curves]) -> None:
    """Write the tables and plots that docs/explanation/speed.md shows."""

    def write_csv(name: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
        with (DOCS / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *lines])

    write_csv("speed.csv", HEADER, table(results))
    (DOCS / "speed.txt").write_text(f"{about}.\n", encoding="utf-8")
    (DOCS / "speed.svg").write_text(_plot.ratios(marks(results)), encoding="utf-8")
    for name, curves in growth.items():
        write_csv(f"speed-{name}.csv", *growth_table(GROWTH[name], curves))
        picture = _plot.curves(curves, GROWTH[name], "messages a CPU second")
        (DOCS / f"speed-{name}.svg").write_text(picture, encoding="utf-8")


GROWTH: Final = {"sizes": "bytes of a message", "connections": "connections"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="PATTERN", help="rows to measure")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--rounds", type=int, default=5, help="pairs a row (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    parser.add_argument("--growth", action="store_true", help="measure how cost grows, too")
    parser.add_argument("--docs", action="store_true", help="write docs/explanation/speed*")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the plot of the ratios")
    parser.add_argument(
        "--wsclient-from",
        type=Path,
        metavar="PYTHON",
        help="measure the wsclient of this interpreter, and build none (except for feed-pure)",
    )
    parser.add_argument(
        "--here",
        action="store_true",
        help="use this interpreter for everything; what it does not have is skipped",
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    arguments = parser.parse_args()
    patterns = arguments.only or ["*"]
    rows = [row for row in ROWS if any(fnmatchcase(row.name, pattern) for pattern in patterns)]
    if arguments.list:
        print_table(("name", "workload", "peer"), [(row.name, row.title, row.peer) for row in rows])
        return
    if not rows and not arguments.growth:
        parser.error(f"no row is called {' or '.join(patterns)}; see --list")
    given: dict[str | None, Path] = {None: Path(sys.executable)} if arguments.here else {}
    if arguments.wsclient_from is not None:
        given[COMPILED] = arguments.wsclient_from.absolute()

    say = Progress()
    environments = Environments(arguments.cache.absolute(), say, given)
    growth: dict[str, Curves] = {}
    with ExitStack() as stack:
        bench = Bench(environments, stack, QUICK if arguments.quick else 1)
        results = [bench.compare(row, arguments.rounds, say) for row in rows]
        if arguments.growth:
            rounds = min(arguments.rounds, GROWTH_ROUNDS)
            growth["sizes"] = bench.grow(growing_sizes(), rounds, say)
            growth["connections"] = bench.grow(growing_connections(), rounds, say)
    say.end()
    versions = ", ".join(f"{name} {bench.versions[name]}" for name in sorted(bench.versions))
    about = f"{machine()}; medians of {arguments.rounds}; {versions}"

    if arguments.docs:
        write_docs(results, about, growth)
    if arguments.svg is not None:
        arguments.svg.write_text(_plot.ratios(marks(results)), encoding="utf-8")
    if arguments.json:
        told = {
            "machine": machine(),
            "versions": bench.versions,
            "rounds": arguments.rounds,
            "rows": [result.as_json() for result in results],
            "growth": growth,
        }
        print(json.dumps(told, indent=2))
        return
    if results:
        print_table(HEADER, table(results))
    for name, curves in growth.items():
        print()
        print_table(*growth_table(GROWTH[name], curves))
    print(f"\n{about}")


if __name__ == "__main__":
    main()
