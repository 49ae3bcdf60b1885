"""Logs every message that was read, acknowledges those that carry an id, and says numbers.

The log is written without a buffer, before the acknowledgement: what was read before SIGKILL is
there. Several processes may share it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

Read: TypeAlias = Callable[[], Awaitable[str | bytes | None]]
Write: TypeAlias = Callable[[str], Awaitable[object]]

INTERVAL = 0.02
"""Seconds between the numbers that a connection says."""


class Ledger:
    """A log in ``folder/ledger``: channel, connection, ``heard`` or ``said``, and the number."""

    def __init__(self, folder: Path) -> None:
        # That a peer is gone is no news here.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        self._log = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def serve(self, channel: str, read: Read, write: Write) -> None:
        """Serve one connection until ``read`` gives nothing more."""
        # The clock of all processes: connections are numbered in their order.
        page = f"{channel} {time.monotonic_ns()}"
        outgoing: asyncio.Queue[str | None] = asyncio.Queue()
        writing = asyncio.create_task(self._write_all(page, outgoing, write))
        try:
            while (message := await read()) is not None:
                try:
                    content = json.loads(message)
                except ValueError:
                    content = {"number": "garbled"}
                self._note(page, "heard", content["number"])
                if "id" in content:
                    outgoing.put_nowait(json.dumps({"ack": content["id"]}))
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    async def _write_all(
        self, page: str, outgoing: asyncio.Queue[str | None], write: Write
    ) -> None:
        """Write what is put, and numbers; a peer that is gone is the reader's matter."""
        counting = asyncio.create_task(self._count(outgoing))
        number = page.partition(" ")[2]
        said = 0
        try:
            while True:
                text = await outgoing.get()
                if text is None:
                    self._note(page, "said", f"{number}.{said}")
                    text = json.dumps({"said": f"{number}.{said}"})
                    said += 1
                await write(text)
        except Exception:
            return
        finally:
            counting.cancel()

    async def _count(self, outgoing: asyncio.Queue[str | None]) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            outgoing.put_nowait(None)
            due += INTERVAL
            await asyncio.sleep(due - clock())

    def _note(self, page: str, what: str, key: str) -> None:
        os.write(self._log, f"{page} {what} {key}\n".encode())
