"""What a bot costs: its handlers side by side with the callback of picows, in one run.

    python benchmarks/bot.py                                 every row
    python benchmarks/bot.py --only str --rounds 3 --wsclient-from .venv/bin/python

Measures as ``compare.py`` does: medians of interleaved rounds, each measurement a process of its
own.  The peer is given the same messages, and makes texts of them and nothing more.
The exit status is 1 if a row that has a bar is above it.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from _environments import COMPILED, Environments, default_cache
from compare import HEADER, QUICK, Bench, Progress, Row, machine, print_table, table

NO_BAR: Final = 10.0  # of the peer; nothing that was promised

ROWS: Final = (
    Row("str", "handler of str", "picows", 1.5, library="wsclient bot, str"),
    Row(
        "async", "asynchronous handler of str", "picows", NO_BAR, library="wsclient bot, async str"
    ),
    Row(
        "typed",
        "handler of a Struct, by its type",
        "picows",
        2.5,
        kind="json",
        library="wsclient bot, typed",
    ),
    Row(
        "every-typed",
        "handler of a Struct, for every message",
        "picows",
        2.5,
        kind="json",
        library="wsclient bot, every typed",
    ),
    Row(
        "dict",
        "handler of a dict, by its type",
        "picows",
        NO_BAR,
        kind="json",
        library="wsclient bot, dict",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="PATTERN", help="rows to measure")
    parser.add_argument("--rounds", type=int, default=5, help="pairs a row (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--wsclient-from",
        type=Path,
        metavar="PYTHON",
        help="measure the wsclient of this interpreter, and build none",
    )
    parser.add_argument("--here", action="store_true", help="use this interpreter for everything")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    arguments = parser.parse_args()
    patterns = arguments.only or ["*"]
    rows = [row for row in ROWS if any(fnmatchcase(row.name, pattern) for pattern in patterns)]
    if not rows:
        parser.error(f"no row is called {' or '.join(patterns)}: {', '.join(r.name for r in ROWS)}")
    given: dict[str | None, Path] = {None: Path(sys.executable)} if arguments.here else {}
    if arguments.wsclient_from is not None:
        given[COMPILED] = arguments.wsclient_from.absolute()
    say = Progress()
    with ExitStack() as stack:
        environments = Environments(arguments.cache.absolute(), say, given)
        bench = Bench(environments, stack, QUICK if arguments.quick else 1)
        results = [bench.compare(row, arguments.rounds, say) for row in rows]
    say.end()
    if arguments.json:
        print(json.dumps([result.as_json() for result in results], indent=2))
    else:
        print_table(HEADER, table(results))
        versions = ", ".join(f"{name} {bench.versions[name]}" for name in sorted(bench.versions))
        print(f"\n{machine()}; medians of {arguments.rounds}; {versions}")
    sys.exit(not all(result.skipped or result.reached for result in results))


if __name__ == "__main__":
    main()
