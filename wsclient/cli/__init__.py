"""The command line: arguments and printing, on top of the public names.

``wsclient listen`` listens to a server, ``wsclient demo`` shows what a channel lives through, and
``wsclient doctor`` says what runs here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ._arguments import DemoArguments, DoctorArguments, complain, parse
from ._doctor import prepare_doctor
from ._listen import prepare
from ._printer import Printer
from ._running import run

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
        arguments = parse(sys.argv[1:] if argv is None else argv)
    except SystemExit as done:  # argparse has printed the help, or what is wrong.
        return done.code if isinstance(done.code, int) else 2
    printer = Printer(sys.stdout, sys.stderr)
    if isinstance(arguments, DemoArguments):
        # Only here: listening needs no test kit.
        from ._demo import prepare_demo

        return run(prepare_demo(arguments, printer), printer)
    if isinstance(arguments, DoctorArguments):
        return run(prepare_doctor(arguments, printer), printer)
    try:
        command = prepare(arguments, printer)
    except (TypeError, ValueError) as error:
        return complain("listen", str(error))
    return run(command, printer)
