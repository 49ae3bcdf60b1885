"""The command line: arguments and printing, on top of the public names.

``wsclient listen`` listens to a server, ``wsclient run`` runs a bot, ``wsclient demo`` shows what a
channel lives through, ``wsclient backoff`` when clients come back after an outage, and ``wsclient
doctor`` says what runs here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from ._arguments import (
    BackoffArguments,
    DemoArguments,
    DoctorArguments,
    RunArguments,
    complain,
    parse,
)
from ._backoff import prepare_backoff
from ._doctor import prepare_doctor
from ._importing import BrokenError, NotFoundError
from ._listen import prepare
from ._printer import Printer
from ._run import run_bot
from ._running import FAILED, INTERRUPTED, run
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
        return run_bot(arguments)
    printer = Printer(sys.stdout, sys.stderr)
    if isinstance(arguments, DemoArguments):
        # Only here: listening needs no test kit.
        from ._demo import prepare_demo

        return run(prepare_demo(arguments, printer), printer)
    if isinstance(arguments, DoctorArguments):
        return run(prepare_doctor(arguments, printer), printer)
    if isinstance(arguments, BackoffArguments):
        name, prepare_command = "backoff", partial(prepare_backoff, arguments, printer)
    else:
        name, prepare_command = "listen", partial(prepare, arguments, printer)
    try:
        command = prepare_command()
    except (TypeError, ValueError, NotFoundError) as error:
        return complain(name, str(error))
    except BrokenError as error:
        print(escape_lines(str(error)), file=sys.stderr)
        return FAILED
    return run(command, printer)
