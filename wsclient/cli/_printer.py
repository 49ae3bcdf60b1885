"""Printing without ever holding up the connection.

A terminal that is paused, or a pager that has seen enough for now, makes a write wait, and a write
that waits on trio's own thread would leave pings unanswered and Ctrl-C unheard.  So lines join a
queue, and one task takes all that waits and writes it in a thread.  Both streams share the queue:
what happened first is seen first.

The streams are written to below Python's own buffers.  A thread that is stuck in such a write can
be left behind at the end of the process, and there is nothing left to flush then that could fail.
"""

from __future__ import annotations

import io
import os
from collections import deque
from itertools import groupby
from typing import IO, Final, TextIO

import trio

ROOM: Final = 64 * 1024
"""Characters that may wait before whoever prints messages has to wait.

As much as a pipe holds: batches are then large enough to be worth a thread.
"""


class Sink:
    """A standard stream; writes all that waits at once.

    Args:
        stream: ``None``, as Python has it for a stream that is closed, swallows everything.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._encoding = "utf-8" if stream is None else stream.encoding
        self._raw = None if stream is None else _raw(stream)
        self.failure: OSError | None = None
        """Why nothing can be written any more."""

    def write(self, text: str) -> None:
        """Write text; sets :attr:`failure` rather than raise."""
        if self._raw is None or self.failure is not None:
            return
        data = memoryview(text.encode(self._encoding, "backslashreplace"))
        try:
            while data:
                written = self._raw.write(data)
                if written is None:
                    raise BlockingIOError("it is non-blocking, and full")
                data = data[written:]
        except OSError as error:
            self.failure = error


def _raw(stream: TextIO) -> IO[bytes]:
    """What lies below a stream's buffers."""
    stream.flush()
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # It is in memory, as in a test.
        return stream.buffer
    return open(descriptor, "wb", buffering=0, closefd=False)


class Printer:
    """Writes lines to the standard streams, in the order in which they come."""

    def __init__(self, out: TextIO | None, err: TextIO | None) -> None:
        self._out = Sink(out)
        self._err = Sink(err)
        self._queue: deque[tuple[Sink, str]] = deque()
        self._size = 0
        self._is_writing = False
        self._work = trio.lowlevel.ParkingLot()
        self._progress = trio.lowlevel.ParkingLot()

    def print(self, line: str) -> None:
        """Print a line to the standard output, soon."""
        self._add(self._out, line + os.linesep)

    def draw(self, text: str) -> None:
        """Write to the standard output, soon, as it is: for a terminal that is drawn on."""
        self._add(self._out, text)

    def tell(self, line: str) -> None:
        """Print a line to the standard error, soon."""
        self._add(self._err, line + os.linesep)

    def _add(self, sink: Sink, text: str) -> None:
        self._queue.append((sink, text))
        self._size += len(text)
        self._work.unpark()

    async def wait_room(self) -> None:
        """Wait until there is room for another line; for messages, which can be many."""
        while self._size >= ROOM:
            await self._progress.park()

    async def wait_written(self) -> None:
        """Wait until everything is written."""
        while self._queue or self._is_writing:
            await self._progress.park()

    async def wait_failed(self) -> OSError:
        """Wait until the standard output takes nothing more."""
        while self._out.failure is None:
            await self._progress.park()
        return self._out.failure

    async def run(self) -> None:
        """Write what is printed, until cancelled."""
        while True:
            while not self._queue:
                await self._work.park()
            texts = list(self._queue)
            self._queue.clear()
            self._size = 0
            self._is_writing = True
            await trio.to_thread.run_sync(_write, texts, abandon_on_cancel=True)
            self._is_writing = False
            self._progress.unpark_all()


def _write(texts: list[tuple[Sink, str]]) -> None:
    for sink, group in groupby(texts, key=lambda item: item[0]):
        sink.write("".join(text for _, text in group))
