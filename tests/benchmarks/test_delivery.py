"""The benchmark of delivery runs, and says what it is about."""

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


def delivery(*options: str) -> str:
    # The program's modules lie beside it; the package is the installed one all the same.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, ROOT / "benchmarks/delivery.py", "--rounds=1", "--messages=300"]
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_each_way_of_sending_is_measured() -> None:
    told = json.loads(delivery("--json"))

    assert 300 == told["messages"]
    assert 4 == len(told["costs"])
    assert all(cost["lowest"] <= cost["microseconds"] <= cost["highest"] for cost in told["costs"])


def test_people_get_a_table() -> None:
    lines = delivery().splitlines()

    assert lines[0].startswith("CPU time a message of 100 bytes")
    assert 4 == sum(" µs  (" in line for line in lines)
