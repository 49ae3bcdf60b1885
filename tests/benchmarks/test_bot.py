"""The benchmark of bots runs, with a tenth of its messages and without its peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the server uses epoll"),
    pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="only in the source tree"),
]


def bot(*options: str) -> subprocess.CompletedProcess[str]:
    # The program's modules lie beside it; the package is the installed one all the same.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, ROOT / "benchmarks/bot.py", "--here", "--quick", "--rounds=1"]
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("row", ["str", "async", "typed", "every-typed", "dict"])
def test_every_kind_of_handler_is_measured(row: str) -> None:
    done = bot(f"--only={row}", "--json")

    # What is missing is the peer, and not the bot; a bar is for whoever has both.
    assert "" == done.stderr.partition("Traceback")[2]
    (told,) = json.loads(done.stdout)
    assert row == told["row"]["name"]
    assert told["skipped"] in ("", "No module named 'uvloop'", "No module named 'picows'")


def test_people_get_a_table_and_an_unknown_row_is_refused() -> None:
    assert bot("--only=str").stdout.startswith("workload")
    assert "no row is called nothing: str, async," in bot("--only=nothing").stderr
