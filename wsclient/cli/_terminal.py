"""The user's terminal, key by key.

The terminal's own line editing is switched off while this is at work, and its signals are left on:
Ctrl-C interrupts and Ctrl-Z stops, as everywhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

if sys.platform != "win32":  # pragma: no branch
    import termios
    import tty

_BRACKETED_PASTE: Final = "\x1b[?2004h", "\x1b[?2004l"
"""On and off: what is pasted can be told from what is typed."""


def open_terminal() -> Terminal | None:
    """The terminal that this process has for its input and its output; ``None`` without one."""
    if sys.platform == "win32" or os.environ.get("TERM", "dumb") in ("dumb", ""):
        return None
    if sys.stdin is None or sys.stdout is None:
        return None
    if not sys.stdout.encoding.lower().startswith("utf"):
        return None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    return Terminal(sys.stdin.fileno())


class Terminal:
    """A terminal.

    Args:
        descriptor: Where its keys come from.
    """

    begin: Final = _BRACKETED_PASTE[0]
    """What is to be written to it first."""
    end: Final = _BRACKETED_PASTE[1]
    """What is to be written to it at the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def width(self) -> int:
        """Columns, at present."""
        return shutil.get_terminal_size().columns

    @property
    def has_colours(self) -> bool:
        """Whether the user wants colours (https://no-color.org)."""
        return not os.environ.get("NO_COLOR")

    @contextmanager
    def keys_come_at_once(self) -> Iterator[None]:
        """Let keys through one by one, unechoed, for the length of a block."""
        before = termios.tcgetattr(self._descriptor)
        self._let_through()
        try:
            yield
        finally:
            # It may be gone.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)

    def _let_through(self) -> None:
        with contextlib.suppress(termios.error):
            tty.setcbreak(self._descriptor)

    async def keys(self) -> bytes:
        """What was typed since; empty when the terminal is gone."""
        await trio.lowlevel.wait_readable(self._descriptor)
        try:
            return os.read(self._descriptor, 4096)
        except OSError:
            return b""

    async def watch(self, redraw: Callable[[], object]) -> None:
        """Set all up again and call ``redraw`` after a stop (Ctrl-Z) and at a new size."""
        with trio.open_signal_receiver(signal.SIGCONT, signal.SIGWINCH) as signals:
            async for number in signals:
                if number == signal.SIGCONT:
                    self._let_through()
                redraw()
