"""The command line of the simulator."""

import io
import json
import re
import subprocess
import sys

import pytest

from wsclient.testing import Breach, _simulation, simulate
from wsclient.testing.simulate import Progress, main


@pytest.fixture
def _broken(monkeypatch):
    """Every schedule breaks a promise."""
    breaches = [Breach("I4", "1 was read twice")]
    monkeypatch.setattr(_simulation._Simulation, "judge", lambda self, history: breaches)


def test_clean_schedules_exit_with_0_and_are_summed_up(capsys):
    code = main(["--schedules", "3", "--messages", "5", "--seed", "7"])
    output = capsys.readouterr()

    assert 0 == code
    assert re.match(
        r"3 schedules in \d+\.\d s, \d+ a second: [\d,]+ messages sent, [\d,]+ received"
        r" and [\d,]+ dropped, \d+ attempts at a connection, \d+ gaps, \d+ processes killed\n",
        output.out,
    )
    assert output.out.endswith("\nall invariants hold\n")
    assert "" == output.err


@pytest.mark.usefixtures("_broken")
def test_broken_schedules_exit_with_1_and_print_seed_invariant_and_trace(capsys):
    code = main(["--schedules", "5", "--messages", "3", "--seed", "7"])
    lines = capsys.readouterr().out.splitlines()

    assert 1 == code
    assert "schedule 7 breaks I4: 1 was read twice" == lines[0]
    replay = "  replay: python -m wsclient.testing.simulate --replay 7 --messages 3"
    assert replay == lines[1]
    assert "schedule 7:" == lines[2]
    assert 3 == lines.count("BROKEN I4: 1 was read twice"), "the whole trace of the first three"
    assert 5 == sum("breaks I4" in line for line in lines)
    assert "5 schedules are broken" == lines[-1]


def test_json_is_one_object(capsys):
    code = main(["--schedules", "4", "--messages", "5", "--json"])
    found = json.loads(capsys.readouterr().out)

    assert 0 == code
    assert 4 == found["schedules"]
    assert [] == found["broken"]
    assert 0 < found["totals"]["attempts"]
    assert 0 < found["schedules_per_second"]


@pytest.mark.usefixtures("_broken")
def test_json_names_what_is_broken(capsys):
    code = main(["--schedules", "1", "--messages", "5", "--seed", "3", "--json"])
    found = json.loads(capsys.readouterr().out)

    assert 1 == code
    breaches = [{"invariant": "I4", "text": "1 was read twice"}]
    assert [{"seed": 3, "breaches": breaches}] == found["broken"]


def test_replay_prints_the_trace_of_one_schedule(capsys):
    code = main(["--replay", "5", "--messages", "3"])
    output = capsys.readouterr().out

    assert 0 == code
    assert _simulation.simulate(5, 3).trace == output


@pytest.mark.usefixtures("_broken")
def test_replay_as_json_has_the_breaches(capsys):
    code = main(["--replay", "5", "--messages", "3", "--json"])
    found = json.loads(capsys.readouterr().out)

    assert 1 == code
    assert 5 == found["seed"]
    assert [{"invariant": "I4", "text": "1 was read twice"}] == found["breaches"]
    assert "schedule 5:" == found["trace"][0]


@pytest.mark.parametrize("arguments", [["--schedules", "0"], ["--messages", "x"], ["--what"]])
def test_wrong_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert 2 == caught.value.code
    assert "simulate: error:" in capsys.readouterr().err


def test_processes_give_the_same_verdicts():
    one, two = (list(simulate._judge_all(range(1, 5), 5, jobs)) for jobs in (1, 2))

    assert one == two


def test_module_runs():
    done = subprocess.run(
        [sys.executable, "-m", "wsclient.testing.simulate", "--schedules=2", "--messages=3"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.endswith("all invariants hold\n")
    assert "" == done.stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_ten_times_a_second():
    terminal = Terminal()
    times = iter([0.0, 0.05, 60.0, 100.0])
    progress = Progress(1200, terminal, clock=lambda: next(times))
    progress.tell(1, 0)
    progress.tell(600, 2)
    progress.tell(1200, 3)
    progress.end()
    shown = terminal.getvalue().split("\r")

    assert [
        "",
        "████████████░░░░░░░░░░░░ 600/1,200  10/s  2 broken  1:00 left\x1b[K",
        "████████████████████████ 1,200/1,200  12/s  3 broken  0:00 left\x1b[K",
        "\x1b[K",
    ] == shown


def test_progress_is_not_shown_elsewhere():
    stream = io.StringIO()
    progress = Progress(2, stream, clock=lambda: 0.0)
    progress.tell(2, 0)
    progress.end()

    assert "" == stream.getvalue()
