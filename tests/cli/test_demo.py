"""``wsclient demo``: seven deaths, and nothing unaccounted for."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from random import Random

import attrs
import pytest

import wsclient
from wsclient.cli import _demo
from wsclient.cli._arguments import DemoArguments
from wsclient.cli._demo import Chapter, Demo, Pace, prepare_demo, story
from wsclient.cli._printer import Printer
from wsclient.cli._views import Lines
from wsclient.testing import REJECT_404, FaultServer, memory_network

posix = pytest.mark.skipif(os.name == "nt", reason="no such signals there")

TITLES = ["restart", "reset", "end", "half a frame", "silence", "outage", "overload"]


async def test_the_demo_accounts_for_everything(start):
    async with start("demo", "--seconds", "4") as program:
        code, out, err = await program.end()

    faults = [line.split("FAULT ")[1].split(":")[0] for line in out if "FAULT" in line]

    assert [] == err
    assert 0 == code
    assert "unaccounted  0" == out[-1].strip()
    assert [f"{number}, {title}" for number, title in enumerate(TITLES, 1)] == faults
    assert any("closed: 1012 SERVICE_RESTART 'back soon'" in line for line in out)
    assert any("nothing came from the peer" in line for line in out)
    assert any("HTTP 503" in line for line in out)
    assert any("attempt 2 failed: cannot connect" in line for line in out)


async def test_the_demo_speaks_json(start):
    async with start("demo", "--seconds", "2", "--json") as program:
        code, out, err = await program.end()
    objects = [json.loads(line) for line in out]
    summary = objects[-1]

    assert (0, []) == (code, err)
    assert TITLES == objects[0]["faults"]
    assert set(TITLES) >= {item["title"] for item in objects if item["event"] == "fault"}
    assert "summary" == summary["event"]
    assert (0, []) == (summary["unaccounted"], summary["findings"])
    assert summary["fed"] == summary["received"] + summary["missed_in_gaps"]
    receipts = summary["receipts"]
    assert summary["sent"] == sum(receipts.values())
    assert (
        summary["sent"]
        == summary["heard"] + summary["lost_with_connection"] + receipts["cancelled"]
    )
    assert summary["gaps"] == summary["outages"] == summary["connections"] - 1
    assert summary["recovery"]["min"] <= summary["recovery"]["median"]


async def test_a_seed_repeats_the_waits(start):
    delays = set()
    for _ in range(2):
        async with start("demo", "--seconds", "1", "--json", "--seed", "5") as program:
            delays.add(json.loads(await program.out.wait_for("retry_scheduled"))["delay"])

    assert 1 == len(delays)


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_a_signal_ends_it_at_once(start, number, status):
    async with start("demo") as program:
        await program.out.wait_for("connected")
        program.process.send_signal(number)
        code, out, err = await program.end()

    assert (status, []) == (code, err)
    assert "  closed" in out[-1]


async def test_a_reader_that_has_seen_enough_ends_it_without_an_error(start):
    async with start("demo") as program:
        await program.out.line()
        await program.out.aclose()

        assert [] == await program.err.rest()
        assert 0 == await program.process.wait()


# On a terminal.

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


async def test_on_a_terminal_it_is_a_picture_that_ends_with_the_summary(open_terminal):
    pytest.importorskip("rich")
    async with open_terminal("demo", "--seconds", "2") as terminal:
        assert 0 == await terminal.end()

    text = terminal.text

    assert HIDE_CURSOR in text
    assert SHOW_CURSOR in text.rpartition(HIDE_CURSOR)[2]
    assert "● ready" in text
    assert "▸" in text
    assert 7 == text.rpartition("✓ done")[2].count("✓ back after")
    assert "unaccounted     0" in text
    assert "Traceback" not in text
    # No screen of its own, and no mode that would have to be taken back.
    assert "\x1b[?1049" not in text


@posix
async def test_ctrl_c_on_a_terminal_gives_it_back_as_it_was(open_terminal):
    pytest.importorskip("rich")
    async with open_terminal("demo") as terminal:
        await terminal.wait_for("● ready")
        terminal.type(b"\x03")

        assert 130 == await terminal.end()

    assert SHOW_CURSOR in terminal.text.rpartition(HIDE_CURSOR)[2]
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--plain"], {}),
        ([], {"term": "dumb"}),
        ([], {"size": (20, 80)}),
        ([], {"size": (24, 60)}),
    ],
)
async def test_a_terminal_that_cannot_or_shall_not_show_a_picture_gets_lines(
    open_terminal, arguments, options
):
    async with open_terminal("demo", "--seconds", "1", *arguments, **options) as terminal:
        await terminal.wait_for("0.0")
        await terminal.wait_for("connected")
        terminal.process.terminate()

        assert 0 == await terminal.end()

    assert HIDE_CURSOR not in terminal.text


async def test_without_rich_it_is_lines_and_a_hint(open_terminal):
    script = (
        "import sys; sys.modules['rich'] = None;"
        " from wsclient.cli import main; sys.exit(main(['demo', '--seconds', '1']))"
    )
    async with open_terminal(command=[sys.executable, "-c", script]) as terminal:
        assert 0 == await terminal.end()

    assert "pip install 'wsclient-trio[cli]'" in terminal.text
    assert "unaccounted  0" in terminal.text
    assert HIDE_CURSOR not in terminal.text


# When something is wrong.

NOTHING = Printer(None, None)


async def test_on_virtual_time_every_fault_strikes_too(autojump_clock, monkeypatch):
    """Times that are added up and subtracted are not to the last digit what they were."""
    with memory_network() as network:
        monkeypatch.setattr(_demo, "FaultServer", partial(FaultServer, network=network))
        summary = await Demo(Pace(15, Random(4)), Lines(Printer(None, None))).run()

    assert 7 == summary.faults
    assert 0 == summary.report.unaccounted


async def test_a_channel_that_gives_up_is_a_failure(monkeypatch):
    monkeypatch.setattr(_demo, "story", lambda _: [Chapter("refusal", "…", (REJECT_404,))])
    summary = await Demo(Pace(1), Lines(NOTHING)).run()

    assert 1 == summary.report.unaccounted
    assert "HTTP 404" in summary.report.findings[0].what


async def test_a_story_without_an_end_is_a_failure(monkeypatch):
    monkeypatch.setattr(Pace, "limit", 0.3)
    summary = await Demo(Pace(60), Lines(NOTHING)).run()

    assert "the story did not come to its end" in [
        finding.what for finding in summary.report.findings
    ]


@pytest.mark.parametrize(("failures", "status"), [([], 0), (["something is missing"], 1)])
async def test_the_exit_status_says_whether_all_is_accounted_for(monkeypatch, failures, status):
    async def run(self):
        self._progress.failures += failures
        return self._progress.summary([])

    monkeypatch.setattr(Demo, "run", run)
    monkeypatch.setattr(Lines, "end", lambda *_: None)
    command = prepare_demo(DemoArguments(seconds=1, seed=None, json=False, plain=True), NOTHING)

    assert status == await command()


# The pace.


@pytest.mark.parametrize("seconds", [1, 4, 15, 60, 3600])
def test_every_pace_is_one_that_the_channel_can_keep(seconds):
    pace = Pace(seconds)
    chapters = story(pace)

    assert TITLES == [chapter.title for chapter in chapters]
    assert pace.heartbeat.interval + pace.heartbeat.timeout <= 1
    assert pace.peace >= 0.2
    assert pace.limit > seconds


@pytest.mark.parametrize("failures", [1, 2, 3, 10])
def test_waits_are_short_and_never_none(failures):
    @attrs.frozen
    class State:
        attempt_number: int

    wait = Pace(15).retry.wait
    delays = [wait(State(failures)) for _ in range(100)]

    assert min(delays) >= 0.2
    assert max(delays) <= 0.8


def test_the_names_that_the_demo_needs_are_public():
    assert {"open_channel", "Gap", "Outcome", "ChannelFailed"} <= set(wsclient.__all__)
