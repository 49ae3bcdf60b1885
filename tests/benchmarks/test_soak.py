"""The soak keeps its bars in little, and tells what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for the memory"),
    pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="only in the source tree"),
]


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    # The program's modules lie beside it; the package is the installed one all the same.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, ROOT / "benchmarks/soak.py", "--reconnects=100", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mode", ["sockets", "memory"])
def test_nothing_stays_behind(mode: str) -> None:
    done = soak(f"--only={mode}", "--json")

    (told,) = json.loads(done.stdout or done.stderr)
    assert told["reconnects"] >= 100
    assert told["before"]["tasks"] == told["after"]["tasks"]
    assert told["before"]["descriptors"] == told["after"]["descriptors"]
    assert {"received", "acknowledged", "lost: unknown"} <= told["outcomes"].keys()
    assert 0 == told["unsettled"]
    assert [] == told["missed"]
    assert 0 == done.returncode


def test_people_get_a_table() -> None:
    lines = soak("--only=memory").stdout.splitlines()

    assert lines[0].startswith("over ")
    assert lines[1].startswith("memory ")


def test_what_stays_behind_is_told() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import soak;"
        "held = soak.Held;"
        "marks = [held(500, 2**24, 1, 5, 9, 0), held(10_000, 2**25, 4_000, 5, 9, 2**21)];"
        "before, after = held(0, 0, 0, 5, 3, 0), held(0, 0, 0, 6, 4, 0);"
        "result = soak.Result(soak.MODES[0], marks, before, after, soak.Counter(), 2, 0);"
        "print(*result.missed, sep='\\n')"
    )
    command = [sys.executable, "-c", code, str(ROOT / "benchmarks")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert [
        "sockets: 16.0 MiB more",
        "sockets: 2.0 MiB more allocated",
        "sockets: 3,999 objects more",
        "sockets: 5 descriptors before, 6 after",
        "sockets: 3 tasks before, 4 after",
        "sockets: 2 receipts without an outcome",
    ] == done.stdout.splitlines()
