"""What keeping a message on disk costs: durable messages a second, latency, and syncs.

    python benchmarks/outbox.py                     every row
    python benchmarks/outbox.py --only '100*'       some; --list names them
    python benchmarks/outbox.py --sync 5            a disk that takes 5 ms longer for each commit
    python benchmarks/outbox.py --folder /data      on another disk than that of the temporary files

What is timed is `send()` of a channel that sends to a server process: each message is added, which
its sender waits for, marked as about to be written, sent, and removed when the peer has read it.
The rows of the journal do the same to the disk without a channel.  Each row is a process of its
own, and a second, shorter one under strace, if there is one, counts the fsyncs.
Exit status 1: a row that has bars misses them: 1,000 messages a second, p99 at most 10 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeAlias

from compare import Progress, machine, print_table

HERE: Final = Path(__file__).parent

Send: TypeAlias = Callable[[int], Awaitable[object]]
"""Keeps the message of that number, until it is durable."""
RATE: Final = 1000.0  # messages a second, at least
LATENCY: Final = 0.010  # seconds, at most, for 99 of 100 messages


@dataclass(frozen=True)
class Row:
    senders: int
    rate: float = 0.0
    """Messages that arrive in a second, at random; 0: each sender sends one after the other."""
    shared: bool = True
    """Whether messages share commits."""
    channel: bool = True
    """Whether they are sent by a channel, or only kept by its journal."""
    has_bars: bool = False


ROWS: Final = {
    "1 sender": Row(1),
    "16 senders": Row(16),
    "100 senders": Row(100, has_bars=True),
    "400 senders": Row(400),
    "1,000 arrive a second": Row(400, rate=1000, has_bars=True),
    "100 senders, a commit each": Row(100, shared=False),
    "journal: 100 senders": Row(100, channel=False, has_bars=True),
    "journal: 1,000 arrive a second": Row(400, rate=1000, channel=False, has_bars=True),
}


@dataclass(frozen=True)
class Result:
    row: str
    messages: int
    rate: float
    """Messages a second."""
    p50: float
    """Seconds."""
    p99: float
    commits: int
    """All: for adding, marking and removing."""
    syncs: float | None
    """For each commit, where they could be counted."""
    sync: float
    """Seconds that one fsync takes on this disk, the median; measured before and after."""
    slow: float
    """Seconds that 99 of 100 take at most: a disk that others use is slow at times."""

    @property
    def reached(self) -> bool | None:
        if not ROWS[self.row].has_bars:
            return None
        # Arrivals at random are a little more or fewer than their rate.
        return self.rate >= 0.95 * RATE and self.p99 <= LATENCY


def measure(row: Row, messages: int, size: int, path: Path, delay: float) -> dict[str, Any]:
    """Run one row here."""
    import trio

    import wsclient
    from wsclient.session._journal import Journal
    from wsclient.session._storage import Change, SqliteStorage, Stored

    class Disk(SqliteStorage):
        commits = 0

        def commit(self, changes: Sequence[Change]) -> None:
            for part in [changes] if row.shared else [[change] for change in changes]:
                time.sleep(delay)
                super().commit(part)
                self.commits += 1

    disk = Disk(str(path))

    class Outbox(wsclient.SqliteOutbox):
        def storage(self) -> Disk:
            return disk

    latencies: list[float] = []
    payload = "x" * size
    pending = iter(range(messages))

    @asynccontextmanager
    async def a_channel() -> AsyncGenerator[Send, None]:
        with serving() as port:
            async with wsclient.open_channel(
                f"ws://127.0.0.1:{port}/heed/{messages}", outbox=Outbox(path), observers=()
            ) as channel:
                await channel.wait_ready()
                yield lambda _: channel.send(payload)
                if not await channel.flush():
                    raise AssertionError("not every message has arrived")

    @asynccontextmanager
    async def a_journal() -> AsyncGenerator[Send, None]:
        journal = Journal(disk)
        await journal.open()

        async def send(number: int) -> None:
            id = f"message-{number:010}"
            await journal.add(Stored(id=id, message=payload, delivery=wsclient.Delivery.QUEUED))
            journal.mark_soon([id], lambda: journal.remove_soon(id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            yield send
            await journal.aclose(60)

    async def main() -> float:
        async with a_channel() if row.channel else a_journal() as keep:
            return await send_all(keep)

    async def send_all(keep: Send) -> float:
        room = trio.CapacityLimiter(row.senders)

        async def send(number: int, since: float) -> None:
            await keep(number)
            latencies.append(trio.current_time() - since)

        async def send_one_after_the_other() -> None:
            for number in pending:
                await send(number, trio.current_time())

        async def send_in_turn(number: int, since: float) -> None:
            async with room:
                await send(number, since)

        began = trio.current_time()
        async with trio.open_nursery() as senders:
            if not row.rate:
                for _ in range(row.senders):
                    senders.start_soon(send_one_after_the_other)
            at = began
            for number in pending if row.rate else ():
                at += random.expovariate(row.rate)
                # Also where nothing is waited for: whoever is late must not starve the others.
                await trio.sleep_until(at)
                senders.start_soon(send_in_turn, number, at)
        return trio.current_time() - began

    seconds = trio.run(main)
    quantiles = statistics.quantiles(latencies, n=100)
    return {
        "messages": messages,
        "rate": messages / seconds,
        "p50": quantiles[49],
        "p99": quantiles[98],
        "commits": disk.commits,
    }


@contextmanager
def serving() -> Iterator[int]:
    """A server process; gives its port."""
    command = [sys.executable, str(HERE / "_server.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def time_syncs(folder: Path) -> list[float]:
    """Seconds that an fsync takes, again and again."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(300):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return times


def run(name: str, options: argparse.Namespace, folder: Path) -> Result:
    """Run one row in a process of its own, and again to count."""

    def here(messages: int, *prefix: str) -> dict[str, Any]:
        command = [*prefix, sys.executable, __file__, "--row", name, f"--messages={messages}"]
        command += [f"--size={options.size}", f"--sync={options.sync}"]
        with tempfile.TemporaryDirectory(dir=folder) as own:
            done = subprocess.run(
                [*command, f"--folder={own}"], capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise SystemExit(done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    syncs = None
    if strace := shutil.which("strace"):
        counts = []
        # What opening and closing need is in both.
        for messages in (2, max(20 * ROWS[name].senders, options.messages // 5)):
            with tempfile.NamedTemporaryFile("r") as trace:
                command = (strace, "-f", "-o", trace.name, "-e", "trace=fsync,fdatasync")
                commits = here(messages, *command)["commits"]
                counts.append((commits, trace.read().count("sync(")))
        (few, base), (many, total) = counts
        syncs = (total - base) / (many - few)
    times = time_syncs(folder)
    measured = here(options.messages)
    quantiles = statistics.quantiles(times + time_syncs(folder), n=100)
    return Result(row=name, syncs=syncs, sync=quantiles[49], slow=quantiles[98], **measured)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="PATTERN", help="rows to measure")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--messages", type=int, default=20_000, help="for each row")
    parser.add_argument("--size", type=int, default=200, help="characters of a message")
    parser.add_argument("--sync", type=float, default=0.0, help="ms that a commit takes longer")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print("\n".join(ROWS))
        return 0
    if options.row:
        path = options.folder / "outbox.db"
        row = ROWS[options.row]
        print(json.dumps(measure(row, options.messages, options.size, path, options.sync / 1000)))
        return 0
    patterns = options.only or ["*"]
    progress = Progress()
    results = []
    for name in ROWS:
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            progress(name)
            results.append(run(name, options, options.folder))
    progress.end()
    if options.json:
        print(json.dumps([{**asdict(one), "reached": one.reached} for one in results], indent=2))
    else:
        print_table(
            (
                "row",
                "messages/s",
                "p50",
                "p99",
                "messages/commit",
                "fsyncs/commit",
                "one fsync",
                "",
            ),
            [
                (
                    one.row,
                    f"{one.rate:,.0f}",
                    f"{one.p50 * 1000:.2f} ms",
                    f"{one.p99 * 1000:.2f} ms",
                    f"{one.messages / one.commits:.1f}",
                    "–" if one.syncs is None else f"{one.syncs:.2f}",
                    f"{one.sync * 1000:.2f} ms (p99 {one.slow * 1000:.2f})",
                    {None: "", True: "reached", False: "missed"}[one.reached],
                )
                for one in results
            ],
        )
        print(machine())
    return int(any(one.reached is False for one in results))


if __name__ == "__main__":
    sys.exit(main())
