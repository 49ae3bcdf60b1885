"""The command line: arguments and printing, on top of the public names.

``wsclient listen`` listens to a server, or replays what a journal has kept of one, and ``wsclient
repl`` talks to one, ``wsclient run`` runs a bot, ``wsclient demo`` shows what a channel lives
through and ``wsclient backoff`` when clients come back after an outage, and ``wsclient doctor``
says what runs here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ._arguments import (
    Arguments,
    BackoffArguments,
    DemoArguments,
    DoctorArguments,
    ListenArguments,
    ReplArguments,
    RunArguments,
    complain,
    parse,
)
from ._backoff import prepare_backoff
from ._doctor import prepare_doctor
from ._importing import BrokenError, NotFoundError
from ._listen import prepare
from ._printer import Printer
from ._repl import prepare_repl
from ._replay import prepare_replay
from ._run import run_bot
from ._running import FAILED, INTERRUPTED, Command, run
from ._text import escape_lines

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        argv: The arguments without the program's name; ``None`` takes the process's.

    Returns:
        0 for a command that did its work or was asked to stop (SIGTERM, or nobody reads its output
        any more), 1 for one that failed, 2 for wrong usage, 130 after SIGINT.
    """
    try:
        return _main(argv)
    except KeyboardInterrupt:  # Before anything had begun.
        return INTERRUPTED


def _main(argv: Sequence[str] | None) -> int:
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
    except SystemExit as done:  # argparse has printed the help, or what is wrong.
        return done.code if isinstance(done.code, int) else 2
    if isinstance(arguments, RunArguments):
        return run_bot(arguments)  # It runs trio by itself.
    printer = Printer(sys.stdout, sys.stderr)
    name = type(arguments).__name__.removesuffix("Arguments").lower()
    try:
        command = _prepare(arguments, printer)
    except (TypeError, ValueError, NotFoundError) as error:
        return complain(name, str(error))
    except BrokenError as error:
        print(escape_lines(str(error)), file=sys.stderr)
        return FAILED
    return run(command, printer)


def _prepare(arguments: Arguments, printer: Printer) -> Command:
    assert not isinstance(arguments, RunArguments)
    match arguments:
        case ListenArguments(replay=str()):
            return prepare_replay(arguments, printer)
        case ListenArguments():
            return prepare(arguments, printer)
        case ReplArguments():
            return prepare_repl(arguments, printer)
        case BackoffArguments():
            return prepare_backoff(arguments, printer)
        case DemoArguments():
            # Only here: listening needs no test kit.
            from ._demo import prepare_demo

            return prepare_demo(arguments, printer)
        case DoctorArguments():
            return prepare_doctor(arguments, printer)
