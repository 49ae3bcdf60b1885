"""The benchmark of an outage keeps its bars in little, and tells a bar that is missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the server polls as Linux has it"),
    pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="only in the source tree"),
]


def storm(*options: str) -> subprocess.CompletedProcess[str]:
    # The program's modules lie beside it; the package is the installed one all the same.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, ROOT / "benchmarks/storm.py", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def evaluate(code: str) -> Any:
    program = f"import sys; sys.path.insert(0, sys.argv[1]); import json, storm; {code}"
    command = [sys.executable, "-c", program, str(ROOT / "benchmarks")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_chance_spreads_the_attempts_of_many_clients(tmp_path: Path) -> None:
    plot = tmp_path / "storm.svg"
    done = storm("--only=virtual", "--clients=100", "--seeds=1", "--json", f"--plot={plot}")

    told = json.loads(done.stdout or done.stderr)
    (run,) = told["virtual"]
    assert run["without_chance"]["busiest"] == 100
    assert run["share"] <= 0.2
    assert run["default"]["back"] == 100
    assert [] == told["missed"]
    assert 0 == done.returncode
    assert "svg" in ElementTree.parse(plot).getroot().tag


def test_all_clients_come_back_to_a_server_process_that_was_killed() -> None:
    done = storm("--only=sockets", "--clients=20", "--json")

    told = json.loads(done.stdout or done.stderr)
    assert told["sockets"]["back"] == 20
    assert told["sockets"]["attempts"] >= 20
    assert [] == told["missed"]
    assert 0 == done.returncode


def test_people_get_a_table() -> None:
    lines = storm("--only=virtual", "--clients=20", "--seeds=2").stdout.splitlines()

    assert lines[0].startswith("clients ")
    assert lines[1].startswith("20 in memory, seed 1 ")
    assert lines[2].startswith("20 in memory, seed 2 ")


def test_missed_bars_are_told() -> None:
    missed = evaluate(
        "late = storm.Outage(100, 10.0, [1.0] * 25, [50.0] * 100);"
        "without = storm.Outage(100, 10.0, [1.0] * 100, [12.0] * 100);"
        "few = storm.Outage(100, 3.0, [], [4.0] * 99);"
        "told = storm.Comparison(7, late, without).missed + storm.missed_on_sockets(few);"
        "print(json.dumps(told))"
    )

    assert [
        "seed 7: 0.25 of the attempts without chance",
        "seed 7: 99% not back within 30 s",
        "sockets: 99 of 100 back, not all in 6 s",
    ] == missed


def test_busiest_moment_is_the_one_with_most_attempts() -> None:
    attempts = "[0.0, 0.04, 0.05, 0.09, 0.0999, 0.2]"
    busiest = evaluate(f"print(storm.Outage(1, 1.0, {attempts}, []).busiest)")

    assert 3 == busiest


def test_waits_without_chance_have_the_means_of_the_default_ones() -> None:
    means = evaluate("print([storm.mean_wait(failures) for failures in (1, 2, 4, 30)])")

    assert pytest.approx([0.5, 1.0, 3.25, 22.75], rel=0.03) == means
