"""A numbered feed that goes on where it was killed, and a log of what was sent to it.

Both live in files that are written without a buffer: what was written before SIGKILL is there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path


class Feed:
    """Counts in ``folder/counter``, logs in ``folder/heard``."""

    def __init__(self, folder: Path) -> None:
        self._counter = os.open(folder / "counter", os.O_RDWR | os.O_CREAT)
        self._heard = os.open(folder / "heard", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._subscribers: set[asyncio.Queue[str]] = set()

    async def run(self) -> None:
        number = int(os.pread(self._counter, 20, 0) or b"0")
        while True:
            await asyncio.sleep(0.01)
            number += 1
            # Counted before it is sent: a number is never sent twice.
            os.pwrite(self._counter, f"{number:020}".encode(), 0)
            for queue in self._subscribers:
                queue.put_nowait(str(number))

    async def send_to(self, send: Callable[[str], Awaitable[None]]) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            while True:
                await send(await queue.get())
        finally:
            self._subscribers.discard(queue)

    def hear(self, message: str) -> None:
        os.write(self._heard, message.encode() + b"\n")


async def wait_for_go() -> None:
    """Wait for a line on standard input, everything being imported: the outage ends then."""
    print("loaded", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
