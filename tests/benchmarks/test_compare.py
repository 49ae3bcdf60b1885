"""The comparison runs, with a tenth of its messages and the peers that are installed."""

from __future__ import annotations

import csv
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
    pytest.mark.skipif(sys.platform != "linux", reason="the server uses epoll"),
    pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="only in the source tree"),
]


def compare(*options: str) -> subprocess.CompletedProcess[str]:
    # The program's modules lie beside it; the package is the installed one all the same.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, ROOT / "benchmarks/compare.py", "--here", "--quick", "--rounds=1"]
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=True
    )


def test_row_is_measured_and_a_row_whose_peer_is_missing_is_skipped(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    done = compare("--only=feed-pure", "--only=feed-deflate", "--json", f"--svg={plot}")

    rows: dict[str, Any] = {row["row"]["name"]: row for row in json.loads(done.stdout)["rows"]}
    measured = rows["feed-pure"]
    assert "" == measured["skipped"]
    assert measured["ratio"] == measured["ours"]["median"] / measured["peer"]["median"]
    assert 0 < measured["ours"]["median"] < 0.001
    assert "" != rows["feed-deflate"]["skipped"]
    assert "receive 100 B texts, uncompiled / websockets" in "".join(
        ElementTree.parse(plot).getroot().itertext()
    )


@pytest.mark.parametrize("name", ["feed-channel-fenced", "send-1MiB", "echo", "idle"])
def test_every_kind_of_measurement_of_wsclient_runs(name: str) -> None:
    done = compare(f"--only={name}")

    assert done.stdout.splitlines()[0].startswith("workload")
    assert 2 <= len(done.stdout.splitlines())


def test_documentation_shows_every_row() -> None:
    listed = compare("--list").stdout.splitlines()[1:]
    with (ROOT / "docs/explanation/speed.csv").open(encoding="utf-8", newline="") as file:
        shown = [line[0] for line in csv.reader(file)][1:]

    assert len(listed) == len(shown)
    assert all(title in line for title, line in zip(shown, listed, strict=True))
