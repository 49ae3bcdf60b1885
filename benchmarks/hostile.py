"""What a hostile server can do to wsclient and to websockets, mode by mode.

    python benchmarks/hostile.py                    every mode
    python benchmarks/hostile.py --only 'bomb*'     some; --list names them
    python benchmarks/hostile.py --scale 0.1        a tenth of each attack

Server and client are fresh processes for each mode.
Exit status 1: wsclient needs more than 8 MiB above its baseline or more than 2 s of CPU, ends
otherwise than it should, or does worse than websockets in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from _environments import COMPILED, PEERS, Environments, default_cache
from _evil import MODES, Mode
from compare import Progress, print_table

HERE: Final = Path(__file__).parent
OURS: Final = "wsclient"
PEER: Final = "websockets"

MEMORY: Final = 8 * 2**20  # bytes over the baseline
CPU: Final = 2.0  # seconds
MEMORY_NOISE: Final = 3 * 2**20  # bytes; no difference between two clients
CPU_NOISE: Final = 0.2  # seconds
TIMEOUT: Final = 60.0  # seconds after which a client hangs


@dataclass(frozen=True)
class Result:
    """What came of one client in one mode; a client that could not take part was skipped."""

    outcome: str = ""
    peak: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    skipped: str = ""

    def __str__(self) -> str:
        if self.skipped:
            return "–"
        return f"{self.peak / 2**20:.1f} MiB, {self.cpu:.2f} s CPU, {self.wall:.1f} s"


def run(python: Path, library: str, mode: str, scale: float = 1.0) -> Result:
    """Let one client meet one mode."""
    server = subprocess.Popen(
        [sys.executable, HERE / "_evil.py", mode, str(scale)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = f"ws://127.0.0.1:{int(server.stdout.readline())}"
        done = subprocess.run(
            [python, HERE / "_victim.py", library, mode, url],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            cwd=HERE,
        )
    except subprocess.TimeoutExpired:
        return Result("hangs", wall=TIMEOUT)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]
    if done.returncode:
        return Result(f"dies: {(done.stderr.splitlines() or ['without a word'])[-1]}")
    return Result(**json.loads(done.stdout))


def faults(mode: Mode, ours: Result, peer: Result) -> list[str]:
    """What is wrong with how wsclient took it; empty if nothing is."""
    if ours.skipped:
        return []
    found = []
    if ours.outcome not in mode.expected:
        found.append(f"{ours.outcome} instead of {' or '.join(mode.expected)}")
    if ours.peak > MEMORY:
        found.append("memory")
    if ours.cpu > CPU:
        found.append("CPU")
    if not peer.skipped:
        if ours.peak > peer.peak + MEMORY_NOISE:
            found.append(f"more memory than {PEER}")
        # A peer that stalls or hangs spends no time on what it does not do.
        if peer.outcome in mode.expected and ours.cpu > peer.cpu + CPU_NOISE:
            found.append(f"more CPU than {PEER}")
    return found


HEADER: Final = ("mode", "wsclient", "", "websockets", "", "verdict")


def table(results: Iterable[tuple[str, Result, Result]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for name, ours, peer in results:
        verdict = ours.skipped or "; ".join(faults(MODES[name], ours, peer)) or "good"
        lines.append((name, ours.outcome, str(ours), peer.outcome, str(peer), verdict))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="PATTERN", help="modes to run")
    parser.add_argument("--list", action="store_true", help="name the modes and stop")
    parser.add_argument("--scale", type=float, default=1.0, help="share of each attack")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--wsclient-from", type=Path, metavar="PYTHON", help="try this interpreter's wsclient"
    )
    parser.add_argument("--here", action="store_true", help="use this interpreter for both clients")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    arguments = parser.parse_args()
    patterns = arguments.only or ["*"]
    names = [name for name in MODES if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if arguments.list:
        print_table(("mode", "the server sends"), [(name, MODES[name].story) for name in names])
        return 0
    if not names:
        parser.error(f"no mode is called {' or '.join(patterns)}; see --list")
    given: dict[str | None, Path] = {None: Path(sys.executable)} if arguments.here else {}
    if arguments.wsclient_from is not None:
        given[COMPILED] = arguments.wsclient_from.absolute()
    say = Progress()
    environments = Environments(arguments.cache.absolute(), say, given)
    results = []
    for name in names:
        found = {}
        for library, environment in ((OURS, COMPILED), (PEER, PEERS)):
            say(f"{name}: {library}")
            python = environments.python(environment)
            found[library] = run(python, library, name, arguments.scale)
        results.append((name, found[OURS], found[PEER]))
    say.end()
    if arguments.json:
        print(json.dumps([as_json(*result) for result in results], indent=2))
    else:
        print_table(HEADER, table(results))
    return int(any(faults(MODES[name], ours, peer) for name, ours, peer in results))


def as_json(name: str, ours: Result, peer: Result) -> dict[str, Any]:
    mode = MODES[name]
    return {
        "mode": name,
        "story": mode.story,
        "expected": mode.expected,
        OURS: asdict(ours),
        PEER: asdict(peer),
        "faults": faults(mode, ours, peer),
    }


if __name__ == "__main__":
    sys.exit(main())
