"""The benchmark of delivery runs, and says what it is about."""

from __future__ import annotations

import csv
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
    assert 5 == len(told["costs"])
    assert all(cost["lowest"] <= cost["microseconds"] <= cost["highest"] for cost in told["costs"])


def test_people_get_a_table() -> None:
    header, *rows, _, about = delivery().splitlines()

    assert header.startswith("a message")
    assert 5 == len(rows)
    assert "300 messages of 100 bytes" in about


def test_documentation_shows_every_way() -> None:
    shown = [line.partition("  ")[0] for line in delivery().splitlines()[1:-2]]
    with (ROOT / "docs/explanation/delivery-costs.csv").open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)

    assert shown == [line[0] for line in lines]
