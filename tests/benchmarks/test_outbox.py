"""The benchmark of the outbox on disk runs, in little."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").exists(), reason="only in the source tree"
)


def outbox(*options: str) -> subprocess.CompletedProcess[str]:
    # The program's modules lie beside it; the package is the installed one all the same.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, ROOT / "benchmarks/outbox.py", "--messages=500", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_commits_are_shared_and_each_is_one_sync(tmp_path: Path) -> None:
    done = outbox("--only=16 senders", f"--folder={tmp_path}", "--json")

    assert 0 == done.returncode, done.stderr
    (told,) = json.loads(done.stdout)
    assert 500 == told["messages"]
    assert told["commits"] < 500
    assert told["p50"] <= told["p99"]
    assert None is told["reached"]
    if shutil.which("strace"):
        assert 0.9 < told["syncs"] < 1.2


def test_the_journal_alone_is_measured_too(tmp_path: Path) -> None:
    done = outbox("--only=journal: 100*", f"--folder={tmp_path}", "--json")

    assert done.returncode in (0, 1), done.stderr
    (told,) = json.loads(done.stdout)
    assert told["commits"] < 500


def test_missed_bar_is_told_and_fails(tmp_path: Path) -> None:
    done = outbox("--only=100 senders", f"--folder={tmp_path}", "--sync=20")

    assert 1 == done.returncode, done.stderr
    assert "missed" in done.stdout
