"""Logs every message that was read, acknowledges those that carry an id, and says the time.

The log is written without a buffer, before the acknowledgement: what was read before SIGKILL is
there. Several processes may share it.

Whichever process it is, what it says is one stream: the ticks of the clock that they share
(``CLOCK_MONOTONIC``, where that is one for all processes, as on Linux).
A connection begins with the last tick, or with the last few (``/channel?remembered=10``), as with
a feed that remembers a little.  Without that, a tick that falls between the answer to the handshake
and the start of the handler is on no new connection; and of two processes the busier one may still
owe a tick, on a connection that is being left, which the other one had said before it was asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

Read: TypeAlias = Callable[[], Awaitable[str | bytes | None]]
Write: TypeAlias = Callable[[str], Awaitable[object]]

INTERVAL = 0.02
"""Seconds from one tick to the next."""


class Ledger:
    """A log in ``folder/ledger``: channel, connection, ``heard`` or ``said``, and the number.

    What was said is a number of that connection's alone; its tick stands behind it.
    """

    def __init__(self, folder: Path) -> None:
        # That a peer is gone is no news here.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        self._log = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def serve(self, target: str, read: Read, write: Write) -> None:
        """Serve one connection, to ``/channel``, until ``read`` gives nothing more."""
        asked = urlsplit(target)
        remembered = int(parse_qs(asked.query).get("remembered", ["1"])[0])
        # The clock of all processes: connections are numbered in their order.
        page = f"{asked.path.strip('/')} {time.monotonic_ns()}"
        outgoing: asyncio.Queue[str | int] = asyncio.Queue()
        writing = asyncio.create_task(self._write_all(page, outgoing, write, remembered))
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
        self, page: str, outgoing: asyncio.Queue[str | int], write: Write, remembered: int
    ) -> None:
        """Write what is put, and ticks; a peer that is gone is the reader's matter."""
        ticking = asyncio.create_task(self._tick(outgoing, remembered))
        number = page.partition(" ")[2]
        said = 0
        try:
            while True:
                what = await outgoing.get()
                if isinstance(what, int):
                    key = f"{number}.{said}"
                    said += 1
                    self._note(page, "said", f"{key} {what}")
                    what = json.dumps({"said": key, "tick": what})
                await write(what)
        except Exception:
            return
        finally:
            ticking.cancel()

    async def _tick(self, outgoing: asyncio.Queue[str | int], remembered: int) -> None:
        tick = math.floor(time.monotonic() / INTERVAL) - remembered
        while True:
            tick += 1
            await asyncio.sleep(tick * INTERVAL - time.monotonic())
            outgoing.put_nowait(tick)

    def _note(self, page: str, what: str, key: str) -> None:
        os.write(self._log, f"{page} {what} {key}\n".encode())
