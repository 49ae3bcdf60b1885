"""``wsclient run``: a bot from a module, and the same again when its source changes.

To load a module anew is to have two of everything that it has registered, opened or patched.  So
what starts anew is the whole process, and it stays the same process to whoever started it: the
shell's job, the debugger's terminal, the service manager's main process.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

import trio

import wsclient

from ._arguments import RunArguments, complain
from ._importing import BrokenError, NotFoundError, find, traceback_text
from ._printer import Printer
from ._running import FAILED, INTERRUPTED, OK, run
from ._sources import Sources
from ._text import escape, escape_lines

POLL: Final = 0.25
"""Seconds between two looks at the files: soon enough after a save, and next to no work."""

_CHANGED: Final = -1


def run_bot(arguments: RunArguments) -> int:
    """Import the bot and let it serve; return the exit status."""
    if not arguments.reload:
        return _Once(arguments.bot).run()
    return run_reloading(arguments.bot, _replace_process)


class _Once:
    """A bot that is imported and served once.

    Args:
        place: Where it is.
    """

    def __init__(self, place: str) -> None:
        self._place = place

    def run(self) -> int:
        """Return the exit status."""
        try:
            return self.serve(self._find())
        except NotFoundError as error:
            return complain("run", str(error))
        except BrokenError as error:
            _say(escape_lines(str(error)))
            return FAILED
        except KeyboardInterrupt:  # While importing, or a second signal.
            return INTERRUPTED

    def _find(self) -> wsclient.Bot:
        found = find(self._place, default="bot")
        if isinstance(found, wsclient.Bot):
            return found
        kind = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise NotFoundError(f"{self._place} is no Bot: it is {kind}")

    def serve(self, bot: wsclient.Bot) -> int:
        """Let it run; return the exit status."""
        _show_log()
        try:
            bot.run()
        except wsclient.ChannelFailed as failure:
            _say(f"wsclient: {escape(str(failure))}")
            return FAILED
        except Exception as error:
            _say(escape_lines(traceback_text(error)))
            return FAILED
        return OK


def run_reloading(place: str, restart: Callable[[], int]) -> int:
    """The same, again and again; return the exit status.

    Args:
        place: Where the bot is.
        restart: Starts this process anew; that it returns is for tests.
    """
    # Before anything is imported: what is saved meanwhile is a change, too.
    once = _Reloading(place, Sources(os.getcwd()))
    with_signal = signal.signal(signal.SIGTERM, once.obey)
    try:
        status = once.run()
        # Whoever asked it to stop does not want it again.
        if once.changed is None and status not in (OK, INTERRUPTED):
            _say("* waiting for a change")
            status = run(once.wait_changed, Printer(sys.stdout, sys.stderr))
    finally:
        signal.signal(signal.SIGTERM, with_signal)
    if once.changed is None:
        return status
    _say(f"* {escape(once.changed)} has changed: starting anew")
    return restart()


class _Reloading(_Once):
    """A bot that stops when its source changes.

    Args:
        place: Where it is.
        sources: The files, as they were.
    """

    def __init__(self, place: str, sources: Sources) -> None:
        super().__init__(place)
        self._sources = sources
        self._is_over = threading.Event()
        self._came_early = threading.Event()
        self.changed: str | None = None
        """The file that has changed."""

    def serve(self, bot: wsclient.Bot) -> int:
        """Let it run while its files stay as they are; return the exit status."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            return super().serve(bot)
        finally:
            self._is_over.set()
            watcher.join()

    def obey(self, number: int, _frame: object) -> None:
        """A SIGTERM has come while the bot does not listen for it: not yet, or not any more."""
        if self.changed is None:
            sys.exit(OK)
        self._came_early.set()

    def _watch(self) -> None:
        while not self._is_over.wait(POLL):
            self.changed = self._sources.changed(is_any=False)
            if self.changed is not None:
                self._stop_bot()
                return

    def _stop_bot(self) -> None:
        """Tell the bot to finish, as whoever runs a bot does; once, for twice would cut it off."""
        while not self._is_over.is_set():
            self._came_early.clear()
            signal.raise_signal(signal.SIGTERM)
            if not self._came_early.wait(POLL):
                return

    async def wait_changed(self) -> int:
        """Wait until any file has changed."""
        while self.changed is None:
            await trio.sleep(POLL)
            self.changed = self._sources.changed(is_any=True)
        return _CHANGED


def _replace_process() -> int:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _show_log() -> None:
    """Show what becomes of the connection, unless the program has said what its log looks like."""
    logger = logging.getLogger("wsclient")
    is_heard = any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    if is_heard or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
