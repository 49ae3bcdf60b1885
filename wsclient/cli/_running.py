"""Running a command until it is done, or told to end.

What ends it, besides itself:

- SIGINT (Ctrl-C): status 130, as shells have it for whoever was interrupted;
- SIGTERM: status 0.  Whoever runs us asked us to stop, and we did;
- nobody reads the standard output any more (``| head``): status 0, for the same reason.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

import trio

from ._printer import Printer

OK: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130

LAST_WORDS: Final = 1.0
"""Seconds that a slow reader has for what was printed and not yet read, at the end."""

Command: TypeAlias = Callable[[], Awaitable[int]]
"""What is to be run; returns the exit status."""

_STATUSES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: OK}


def run(command: Command, printer: Printer) -> int:
    """Run a command that prints to ``printer``; return the exit status of the process."""
    status = INTERRUPTED
    try:
        status = trio.run(_run, command, printer)
    except* KeyboardInterrupt:
        pass  # Before we listened for it, or again, while we were on our way out.
    return status


async def _run(command: Command, printer: Printer) -> int:
    with trio.open_signal_receiver(*_STATUSES) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            status = await _run_until_told(command, printer, signals)
            with trio.move_on_after(LAST_WORDS):
                await printer.wait_written()
            nursery.cancel_scope.cancel()
    return status


async def _run_until_told(command: Command, printer: Printer, signals: AsyncIterator[int]) -> int:
    status = OK

    async def end_at_signal() -> None:
        nonlocal status
        async for number in signals:
            status = _STATUSES[signal.Signals(number)]
            nursery.cancel_scope.cancel()

    async def end_with_output() -> None:
        nonlocal status
        error = await printer.wait_failed()
        if not isinstance(error, BrokenPipeError):
            printer.tell(f"wsclient: cannot write to stdout: {error.strerror or error}")
            status = FAILED
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_at_signal)
        nursery.start_soon(end_with_output)
        status = await command()
        nursery.cancel_scope.cancel()
    return status
