"""Without a picture, each thing that happens is a line, or a JSON object."""

from __future__ import annotations

import json

import pytest

import wsclient
from wsclient.cli._printer import Printer
from wsclient.cli._progress import Passage, Progress
from wsclient.cli._views import Lines, Objects

GAVE_UP = wsclient.ChannelGaveUp(channel="feed", reason="enough", cancelled=0, lost_unknown=0)


async def tell(view, tmp_path, nursery):
    """Let the view tell a short story; return its lines."""
    passage = Passage(number=1, title="reset", sentence="resets the connection")
    progress = Progress([passage], seconds=15, feed_pause=0.02)
    path = tmp_path / "out"
    with path.open("w") as out:
        printer = Printer(out, None)
        nursery.start_soon(printer.run)
        shown = view(printer)
        shown.begin(progress, "ws://h:1")
        progress.strike(passage)
        shown.strike(passage)
        shown.tell(GAVE_UP)
        shown.tell(
            wsclient.StateChanged(
                channel="feed", previous=progress.state, state=progress.state, cause="…"
            )
        )
        await shown.run()
        shown.end(progress.summary([]))
        await printer.wait_written()
    return path.read_text().splitlines()


async def test_lines_tell_what_matters(tmp_path, nursery, autojump_clock):
    assert [
        "A feed at ws://h:1, 1 fault, and one channel that lives through them: about 15 s.",
        "   0.00  FAULT 1, reset: the server resets the connection",
        "   0.00  enough",
        "",
        "0.00 s, 1 fault, 0 connections",
        "  received     0 of 0 numbers",
        "  sent         0 messages; the server heard 0",
        "  receipts     none",
        "  outages      0",
        "  unaccounted  0",
    ] == await tell(Lines, tmp_path, nursery)


async def test_objects_tell_everything(tmp_path, nursery, autojump_clock):
    objects = [json.loads(line) for line in await tell(Objects, tmp_path, nursery)]

    assert ["demo_began", "fault", "channel_gave_up", "state_changed", "summary"] == [
        item["event"] for item in objects
    ]
    assert {
        "event": "demo_began",
        "url": "ws://h:1",
        "seconds": 15,
        "faults": ["reset"],
    } == objects[0]
    assert {"event": "fault", "number": 1, "title": "reset", "at": 0.0} == objects[1]


@pytest.mark.parametrize("view", [Lines, Objects])
async def test_nothing_in_it_commands_the_terminal(view, tmp_path, nursery):
    assert all(
        line.isascii() and line.isprintable() for line in await tell(view, tmp_path, nursery)
    )
