"""The benchmark of typed messages runs, and says what it is about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").exists(), reason="only in the source tree"
)


def typed(*options: str) -> str:
    # The program's modules lie beside it; the package is the installed one all the same.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, ROOT / "benchmarks/typed.py", "--rounds=1", "--messages=100"]
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_each_decoder_is_measured_beside_what_it_stands_on() -> None:
    told = json.loads(typed("--json"))

    assert 8 == len(told)
    assert all(cost["ratio"] == cost["ours"] / cost["alone"] for cost in told)


def test_people_get_a_table() -> None:
    header, *rows, _, about = typed().splitlines()

    assert header.split() == ["into", "ns", "alone", "ratio"]
    assert 8 == len(rows)
    assert "100 messages of" in about
