"""The hostile servers still are what they were, and a few of them in little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for the memory"),
    pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="only in the source tree"),
]


def hostile(*options: str) -> subprocess.CompletedProcess[str]:
    # The program's modules lie beside it; the package is the installed one all the same.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, ROOT / "benchmarks/hostile.py", "--here", "--scale=0.1"]
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        ("declared-2^40", "1009"),
        ("garbage-after-error", "1002"),
        ("header-line", "HandshakeError"),
        ("reject-body", "HandshakeError"),
    ],
)
def test_mode_ends_as_it_should_within_the_bars(mode: str, outcome: str) -> None:
    done = hostile(f"--only={mode}", "--json")

    (told,) = json.loads(done.stdout or done.stderr)
    assert outcome == told["wsclient"]["outcome"]
    assert [] == told["faults"]
    assert 0 == done.returncode


def test_missed_bar_is_told_and_fails(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import hostile; from _evil import MODES;"
        "bad = hostile.Result('1006', peak=2**24, cpu=3.0); good = hostile.Result('1009');"
        "print('; '.join(hostile.faults(MODES['tiny-fragments'], bad, good)))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "benchmarks")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert [
        "1006 instead of 1009",
        "memory",
        "CPU",
        "more memory than websockets",
        "more CPU than websockets",
    ] == done.stdout.strip().split("; ")


def test_list_tells_what_each_mode_sends() -> None:
    lines = hostile("--list").stdout.splitlines()

    told: Any = {line.split()[0]: line for line in lines}
    assert "600,000 pings whose pongs nobody reads" in told["ping-flood"]
    assert 17 == len(lines)
