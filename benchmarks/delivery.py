"""What a receipt, a fence, an acknowledgement and a disk cost a message.

    python benchmarks/delivery.py            the wsclient of this interpreter
    python benchmarks/delivery.py --docs     … and write what the documentation shows

Sends the same messages in different ways to one server process, and tells the CPU time that each
takes in this one: medians of rounds in which the ways take turns, and what each adds to another.
The server answers pings and acknowledges at once, on another core if there is one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from compare import machine, print_table

import wsclient
from wsclient import Ack, Delivery, DeliveryOptions, FunctionAcknowledgement

HERE: Final = Path(__file__).parent
DOCS: Final = HERE.parent / "docs/explanation"
SENDERS: Final = 100  # tasks that send to a disk, and share its commits
TEXT: Final = "x" * 100


def mark(message: str | bytes, id: str, redelivered: bool) -> str:
    return f"#{id} {message!s}"


def recognise(message: str | bytes) -> Ack | None:
    return Ack(message[1:]) if isinstance(message, str) and message[0] == "#" else None


ACKNOWLEDGED: Final = DeliveryOptions(acknowledgement=FunctionAcknowledgement(mark, recognise))


async def on_connection(url: str, count: int) -> float:
    """CPU seconds for ``count`` messages on a bare connection."""
    async with wsclient.open_websocket_url(url) as connection:
        began = time.process_time()
        for _ in range(count):
            await connection.send_message(TEXT)
        while await connection.get_message() != "all":
            pass
        return time.process_time() - began


def on_channel(
    options: DeliveryOptions, delivery: Delivery = Delivery.QUEUED, **more: Any
) -> Callable[[str, int], Awaitable[float]]:
    """The same on a channel, until each message has its outcome."""

    async def measure(url: str, count: int, senders: int = 1) -> float:
        async def send(messages: Iterator[int]) -> None:
            for _ in messages:
                await channel.send(TEXT, delivery=delivery)

        async with wsclient.open_channel(url, delivery=options, observers=(), **more) as channel:
            await channel.wait_ready()
            began = time.process_time()
            pending = iter(range(count))
            async with trio.open_nursery() as nursery:
                for _ in range(senders):
                    nursery.start_soon(send, pending)
            if not await channel.flush():
                raise AssertionError("not every message has arrived")
            return time.process_time() - began

    return measure


async def on_disk(url: str, count: int) -> float:
    """The default with an outbox on disk, by as many tasks as share a commit."""
    with tempfile.TemporaryDirectory() as folder:
        outbox = wsclient.SqliteOutbox(Path(folder, "outbox"))
        return await on_channel(DeliveryOptions(), outbox=outbox)(url, count, SENDERS)


@attrs.frozen
class Way:
    """A way to send."""

    name: str
    run: Callable[[str, int], Awaitable[float]]
    base: str | None = None
    """The way to which it adds something."""
    share: int = 1
    """Of so many messages it sends one: it is slower."""


WAYS: Final = (
    Way("a connection's send_message", on_connection),
    Way(
        "a receipt (fence=False)",
        on_channel(DeliveryOptions(fence=False)),
        "a connection's send_message",
    ),
    Way("and a fence (the default)", on_channel(DeliveryOptions()), "a receipt (fence=False)"),
    Way(
        "and an acknowledgement",
        on_channel(ACKNOWLEDGED, Delivery.ACKED),
        "and a fence (the default)",
    ),
    Way(f"the default on disk, {SENDERS} tasks", on_disk, "and a fence (the default)", share=10),
)


@attrs.frozen
class Cost:
    """What one way costs."""

    way: str
    microseconds: float
    """CPU time a message: the median of the rounds."""
    lowest: float
    highest: float
    more: float | None
    """Than the way to which it adds something."""


@contextmanager
def serving() -> Iterator[int]:
    """A server process; gives its port."""
    command = [sys.executable, str(HERE / "_server.py")]
    if sys.platform == "linux" and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {0})
        command.append("--core=1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def measure(rounds: int, count: int) -> list[Cost]:
    """Measure every way, in turns."""
    taken: dict[str, list[float]] = {way.name: [] for way in WAYS}
    with serving() as port:
        for number in range(rounds + 1):
            print(f"\rround {number} of {rounds} ", end="", file=sys.stderr, flush=True)
            for way in WAYS:
                few = max(count // way.share, 1)
                seconds = trio.run(way.run, f"ws://127.0.0.1:{port}/heed/{few}", few)
                if number:  # The first one warms up.
                    taken[way.name].append(seconds / few * 1e6)
    print(file=sys.stderr)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    return [
        Cost(
            way.name,
            medians[way.name],
            min(taken[way.name]),
            max(taken[way.name]),
            None if way.base is None else medians[way.name] - medians[way.base],
        )
        for way in WAYS
    ]


HEADER: Final = ("a message", "µs", "spread", "more than")


def table(costs: Iterable[Cost]) -> list[tuple[str, ...]]:
    """The rows for people."""
    bases = {way.name: way.base for way in WAYS}
    return [
        (
            cost.way,
            f"{cost.microseconds:.2f}",
            f"{cost.lowest:.2f}–{cost.highest:.2f}",
            "" if cost.more is None else f"{bases[cost.way]}: {cost.more:+.2f}",
        )
        for cost in costs
    ]


def write_docs(costs: Iterable[Cost], about: str) -> None:
    """Write the table that docs/explanation/delivery.md shows."""
    with (DOCS / "delivery-costs.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *table(costs)])
    (DOCS / "delivery-costs.txt").write_text(f"{about}.\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="5 if not given")
    parser.add_argument("--messages", type=int, default=50_000, metavar="N", help="in each round")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/explanation/delivery-costs*"
    )
    parser.add_argument("--json", action="store_true", help="for other programs")
    arguments = parser.parse_args()
    costs = measure(arguments.rounds, arguments.messages)
    kind = "compiled" if wsclient.__compiled__ else "not compiled"
    about = (
        f"{machine()}; medians of {arguments.rounds} rounds with {arguments.messages:,} messages"
        f" of {len(TEXT)} bytes; wsclient {wsclient.__version__} ({kind})"
    )
    if arguments.docs:
        write_docs(costs, about)
    if arguments.json:
        told: dict[str, Any] = {
            "compiled": wsclient.__compiled__,
            "messages": arguments.messages,
            "costs": [attrs.asdict(cost) for cost in costs],
        }
        print(json.dumps(told, indent=2))
        return
    print_table(HEADER, table(costs))
    print(f"\n{about}")


if __name__ == "__main__":
    main()
