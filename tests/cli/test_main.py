"""``wsclient`` and ``python -m wsclient`` are one program."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import wsclient
from wsclient import cli
from wsclient.cli import main

VERSION = f"wsclient {wsclient.__version__} ({'' if wsclient.__compiled__ else 'not '}compiled)\n"


@pytest.mark.parametrize(
    ("argv", "status"),
    [(["--version"], 0), (["--help"], 0), (["listen", "--help"], 0), ([], 2), (["listen"], 2)],
)
def test_main_returns_the_exit_status(argv, status, capsys):
    assert status == main(argv)
    assert "wsclient" in "".join(capsys.readouterr())


def test_main_reads_the_arguments_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["wsclient", "--version"])

    assert 0 == main()
    assert VERSION == capsys.readouterr().out


def test_main_runs_in_a_process_whose_streams_are_in_memory(capsys):
    assert 0 == main(["demo", "--seconds", "1"])
    assert "unaccounted  0" in capsys.readouterr().out


def test_an_interrupt_before_anything_has_begun_is_no_traceback(monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parse", interrupted)

    assert 130 == main([])


def test_python_m_wsclient_is_the_program():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "wsclient", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert (VERSION, "") == (done.stdout, done.stderr)


def test_the_console_script_is_the_program():
    try:
        distribution = metadata.distribution("wsclient-trio")
    except metadata.PackageNotFoundError:
        pytest.skip("runs from the source tree")
    scripts = distribution.entry_points.select(group="console_scripts", name="wsclient")

    assert [main] == [script.load() for script in scripts]


def test_listening_loads_neither_the_test_kit_nor_the_picture():
    script = (
        "import sys, wsclient.cli as cli;"
        " assert cli.main(['listen', 'http://not/']) == 2;"
        " print([name for name in ('wsclient.testing', 'wsclient.cli._picture')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "[]\n" == done.stdout
