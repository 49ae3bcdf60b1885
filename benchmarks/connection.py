"""One connection, side by side with its peers: µs a message, medians of interleaved rounds.

    python benchmarks/connection.py [--rounds 5] [--json]

``feed`` counts the client's CPU time, ``echo`` the wall time of a round trip.
Read the ratios: the machine's own speed drops out of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
import trio_websocket
import websockets.trio.client

import wsclient

FEED = 5_000  # messages
ECHOES = 1_000  # round trips
SIZE = 100  # bytes


@attrs.frozen
class Client:
    """How one library connects, sends and receives."""

    connect: Callable[[str], AbstractAsyncContextManager[Any]]
    send: Callable[[Any, str], Awaitable[Any]]
    receive: Callable[[Any], Awaitable[Any]]


@asynccontextmanager
async def open_channel(url: str) -> AsyncIterator[wsclient.DurableChannel]:
    async with wsclient.open_channel(url, observers=(), ready_timeout=10) as channel:
        yield channel


CLIENTS = {
    "wsclient connection": Client(
        wsclient.open_websocket_url,
        lambda connection, text: connection.send_message(text),
        lambda connection: connection.get_message(),
    ),
    "wsclient channel": Client(
        open_channel,
        lambda channel, text: channel.send(text),
        lambda channel: channel.receive(),
    ),
    "trio-websocket": Client(
        trio_websocket.open_websocket_url,
        lambda connection, text: connection.send_message(text),
        lambda connection: connection.get_message(),
    ),
    "websockets.trio": Client(
        lambda url: websockets.trio.client.connect(url, compression=None),
        lambda connection, text: connection.send(text),
        lambda connection: connection.recv(),
    ),
}


async def feed(client: Client, url: str) -> float:
    async with client.connect(f"{url}/feed/{FEED}/{SIZE}") as connection:
        began = time.process_time()
        for _ in range(FEED):
            await client.receive(connection)
        return (time.process_time() - began) / FEED


async def echo(client: Client, url: str) -> float:
    async with client.connect(f"{url}/echo") as connection:
        began = time.perf_counter()
        for _ in range(ECHOES):
            await client.send(connection, "x" * SIZE)
            await client.receive(connection)
        return (time.perf_counter() - began) / ECHOES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("_server.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = f"ws://127.0.0.1:{int(server.stdout.readline())}"
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(arguments.rounds):
            for name, client in CLIENTS.items():
                for measure in (feed, echo):
                    spent = trio.run(measure, client, url)
                    seconds.setdefault((name, measure.__name__), []).append(spent)
    finally:
        server.kill()
        server.wait()
    medians = {key: statistics.median(values) * 1e6 for key, values in seconds.items()}
    if arguments.json:
        print(
            json.dumps({name: {m: medians[name, m] for m in ("feed", "echo")} for name in CLIENTS})
        )
        return
    print(f"{'µs a message, ' + str(SIZE) + ' B':24}{'feed':>8}{'echo':>8}")
    for name in CLIENTS:
        print(f"{name:24}{medians[name, 'feed']:8.1f}{medians[name, 'echo']:8.1f}")


if __name__ == "__main__":
    main()
