"""The picture of the steps shows which were made, which is being made, and which are left."""

from __future__ import annotations

import io

import pytest
import trio

from wsclient.cli._diagnosis import Diagnosis
from wsclient.cli._steps import Step, goal_from

rich_console = pytest.importorskip("rich.console")

from wsclient.cli import _doctor_picture  # noqa: E402  # It needs rich.
from wsclient.cli._doctor_picture import Picture, draw, draw_conclusion, open_picture  # noqa: E402

GOAL = goal_from("wss://feed.example/", (), ())
STEPS = [
    Step(name="resolve", seconds=0.002, is_ok=True, text="192.0.2.1"),
    Step(name="connect", seconds=0.02, is_ok=True, text="192.0.2.1, port 443", notes=("a\x1b",)),
]
FAILED = Step(name="TLS", seconds=1.5, is_ok=False, text="not to be trusted: " + "because " * 15)
DIAGNOSIS = Diagnosis(
    error="no",
    kind="rejected",
    rule="HTTP status",
    startup="gives up at once",
    steady="tries again",
    advice="see that " + "more " * 40,
)


def rendered(picture, width=80):
    console = rich_console.Console(file=io.StringIO(), width=width, height=24)
    console.print(picture)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_what_was_made_is_being_made_and_is_left_is_told_apart():
    assert [
        "  wsclient doctor   wss://feed.example:443",
        "",
        "  ✓  resolve       2.0 ms  192.0.2.1",
        "  ✓  connect      20.0 ms  192.0.2.1, port 443",
        "                           a\\x1b",
        "  ⠹  TLS         200.0 ms",
        "  ·  upgrade",
        "  ·  ping",
        "  ·  close",
    ] == rendered(draw(GOAL, STEPS, ("TLS", 0.2), 79))


@pytest.mark.parametrize("width", [61, 80, 111])
def test_it_fits_the_terminal(width):
    lines = [
        *rendered(draw(GOAL, [*STEPS, FAILED], None, width - 1), width),
        *rendered(draw_conclusion(DIAGNOSIS, width - 1), width),
    ]

    assert max(map(len, lines)) < width
    assert "✗  TLS           1.50 s  not to be" in "\n".join(lines)
    assert len(lines) < 24


def test_the_conclusion_says_what_follows():
    assert ["", "  ✓ all is well"] == rendered(draw_conclusion(None, 79))
    lines = rendered(draw_conclusion(DIAGNOSIS, 79))

    assert "  at startup        a channel gives up at once" in lines


async def test_it_is_drawn_again_and_again_and_then_once_more(autojump_clock):
    console = rich_console.Console(
        file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None
    )
    picture = Picture(GOAL, console)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(picture.run)
        await trio.sleep(0.05)
        picture.begin("resolve")
        await trio.sleep(1)
        picture.end(STEPS[0])
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    drawn = console.file.getvalue()
    picture.conclude(None)
    last = console.file.getvalue().removeprefix(drawn)

    assert len({mark for mark in _doctor_picture._SPINNER if mark in drawn}) > 3
    assert "✓  resolve" in drawn
    assert "✓  resolve" in last
    assert "all is well" in last


@pytest.mark.parametrize(
    ("width", "encoding", "term", "is_shown"),
    [
        (80, "utf-8", "xterm", True),
        (50, "utf-8", "xterm", False),
        (80, "latin-1", "xterm", False),
        (80, "utf-8", "dumb", False),
    ],
)
def test_where_it_cannot_be_drawn_there_is_none(monkeypatch, width, encoding, term, is_shown):
    monkeypatch.setenv("TERM", term)
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = rich_console.Console(file=file, width=width, height=24, force_terminal=True)
    monkeypatch.setattr(_doctor_picture, "Console", lambda: console)

    assert is_shown == (open_picture(GOAL) is not None)
