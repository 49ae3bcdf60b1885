"""What a receipt, a fence and an acknowledgement cost a message.

Sends the same messages in different ways to one server process, and tells the CPU time that each
takes in this one: medians of rounds in which the ways take turns, and what each adds to the one
before.  The server answers pings and acknowledges at once, on another core if there
is one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

import wsclient
from wsclient import Ack, Delivery, DeliveryOptions, FunctionAcknowledgement

HERE: Final = Path(__file__).parent
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
    options: DeliveryOptions, delivery: Delivery = Delivery.QUEUED
) -> Callable[[str, int], Awaitable[float]]:
    """The same on a channel, until each message has its outcome."""

    async def measure(url: str, count: int) -> float:
        async with wsclient.open_channel(url, delivery=options, observers=()) as channel:
            await channel.wait_ready()
            began = time.process_time()
            for _ in range(count):
                await channel.send(TEXT, delivery=delivery)
            if not await channel.flush():
                raise AssertionError("not every message has arrived")
            return time.process_time() - began

    return measure


WAYS: Final[dict[str, Callable[[str, int], Awaitable[float]]]] = {
    "a connection's send_message": on_connection,
    "a receipt (fence=False)": on_channel(DeliveryOptions(fence=False)),
    "and a fence (the default)": on_channel(DeliveryOptions()),
    "and an acknowledgement": on_channel(ACKNOWLEDGED, Delivery.ACKED),
}


@attrs.frozen
class Cost:
    """What one way costs."""

    way: str
    microseconds: float
    """CPU time a message: the median of the rounds."""
    lowest: float
    highest: float


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
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    with serving() as port:
        for number in range(rounds + 1):
            print(f"\rround {number} of {rounds} ", end="", file=sys.stderr, flush=True)
            for way, run in WAYS.items():
                seconds = trio.run(run, f"ws://127.0.0.1:{port}/heed/{count}", count)
                if number:  # The first one warms up.
                    taken[way].append(seconds / count * 1e6)
    print(file=sys.stderr)
    return [Cost(way, statistics.median(each), min(each), max(each)) for way, each in taken.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="5 if not given")
    parser.add_argument("--messages", type=int, default=50_000, metavar="N", help="in each round")
    parser.add_argument("--json", action="store_true", help="for other programs")
    arguments = parser.parse_args()
    costs = measure(arguments.rounds, arguments.messages)
    if arguments.json:
        told: dict[str, Any] = {
            "compiled": wsclient.__compiled__,
            "messages": arguments.messages,
            "costs": [attrs.asdict(cost) for cost in costs],
        }
        print(json.dumps(told, indent=2))
        return
    kind = "compiled" if wsclient.__compiled__ else "not compiled"
    print(f"CPU time a message of {len(TEXT)} bytes (wsclient {wsclient.__version__}, {kind}):\n")
    before = 0.0
    for cost in costs:
        more = f"  +{cost.microseconds - before:.2f}" if before else ""
        spread = f"{cost.lowest:.2f} to {cost.highest:.2f}"
        print(f"{cost.way:30}{cost.microseconds:8.2f} µs  ({spread}){more}")
        before = cost.microseconds


if __name__ == "__main__":
    main()
