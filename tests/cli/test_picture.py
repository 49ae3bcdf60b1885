"""The picture tells the truth of the moment, and fits the terminal."""

from __future__ import annotations

import io

import pytest
import trio

import wsclient
from wsclient.cli._progress import Passage, Progress

rich_console = pytest.importorskip("rich.console")

from wsclient.cli._picture import HEIGHT, draw  # noqa: E402  # It needs rich.

PLACE = {"channel": "feed", "endpoint": "ws://h", "attempt": 1}


def rendered(picture, width=80):
    console = rich_console.Console(file=io.StringIO(), width=width, height=24)
    console.print(picture)
    return console.file.getvalue().splitlines()


@pytest.fixture
async def progress():
    """Half of a story of ten seconds."""
    titles = ["restart", "reset", "end", "half a frame", "silence", "outage", "overload"]
    passages = [
        Passage(number=number, title=title, sentence=f"does what {title} means, and " + "more " * 9)
        for number, title in enumerate(titles, 1)
    ]
    progress = Progress(passages, seconds=10, feed_pause=0.1)
    progress.observe(wsclient.ConnectionReady(**PLACE, epoch=1, outage=None))
    for _ in range(20):
        progress.fed += 1
        progress.receive(str(progress.fed))
        await trio.sleep(0.1)
    progress.strike(passages[0])
    await trio.sleep(1)
    progress.observe(wsclient.ConnectionReady(**PLACE, epoch=2, outage=1.0))
    progress.receive(wsclient.Gap(after=1, before=2, since=0.0, until=1.0, reason="1006"))
    progress.fed = 40
    for number in range(31, 41):
        progress.receive(str(number))
        await trio.sleep(0.1)
    progress.strike(passages[1])
    await trio.sleep(1)
    for number in range(30):
        delay = wsclient.RetryScheduled(**PLACE, delay=number, rule="…" * 100)
        progress.observe(delay)
    return progress


@pytest.mark.parametrize("width", [80, 72, 100, 200])
async def test_it_fits_the_terminal_now_and_at_the_end(progress, width, autojump_clock):
    for summary in (None, progress.summary([])):
        lines = rendered(draw(progress, summary, width - 1), width)

        assert len(lines) <= HEIGHT
        assert max(map(len, lines)) < width


async def test_it_shows_what_is_and_what_was(progress, autojump_clock):
    lines = rendered(draw(progress, None, 79))
    text = "\n".join(lines)

    assert lines[0].endswith("5.0 s")
    assert "● connecting" in text
    assert "connection 2" in text
    assert "✓ back after 1.00 s" in text
    assert "▸ 1.00 s" in text
    assert "30 of 40 numbers; 10 missed, inside 1 announced gap" in text
    assert lines[-1].endswith("connecting again in 29.0 s")


async def test_the_timeline_shows_peace_and_outages_in_their_place(progress, autojump_clock):
    lines = rendered(draw(progress, None, 79))
    feed = next(line for line in lines if line.startswith("  feed"))
    faults = next(line for line in lines if line.startswith("  faults"))
    shown = feed.removeprefix("  feed").lstrip()
    start = feed.index(shown)
    cells = 79 - start
    down = [index for index, cell in enumerate(shown) if cell == "·"]

    # Half of the time is over; of this, two fifths were outages.
    assert cells // 2 <= len(shown) <= cells // 2 + 3
    assert abs(len(down) - 0.2 * cells) <= 3
    assert abs(faults.index("1") - start - 0.2 * cells) <= 2
    assert abs(faults.index("2") - start - 0.4 * cells) <= 2


async def test_the_end_says_what_was_not_accounted_for(progress, autojump_clock):
    assert "✓ done   2 faults   2 connections" in "\n".join(
        rendered(draw(progress, progress.summary([]), 79))
    )

    progress.failures.append("the story did not come to its end")
    lines = rendered(draw(progress, progress.summary([]), 79))

    assert "✗ failed" in lines[2]
    assert lines[-2].split() == ["unaccounted", "1"]
    assert "the story did not come to its end" == lines[-1].strip()
