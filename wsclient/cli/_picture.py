"""The demo as a picture that moves, drawn with rich.

It is drawn where the cursor is, not on a screen of its own: what is left at the end is the whole
story with its summary, and the prompt below.
"""

from __future__ import annotations

import math
from typing import Final

import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

import wsclient

from ._progress import SLOTS, Passage, Progress, Summary
from ._summary import summary_rows
from ._text import count, seconds

FRAME: Final = 0.1
"""Seconds between two pictures: smooth enough, and calm."""

HEIGHT: Final = 22
"""Lines of the picture."""

WIDTHS: Final = (72, 100)
"""Columns: at least, so that sentences fit; at most, so that the eye finds back."""

_EVENTS: Final = 4
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_TITLE_WIDTH: Final = 14
_ENDING_WIDTH: Final = 19

_COLOURS: Final = {
    wsclient.ChannelState.CONNECTING: "yellow",
    wsclient.ChannelState.ESTABLISHING: "yellow",
    wsclient.ChannelState.READY: "green",
    wsclient.ChannelState.WAITING: "red",
    wsclient.ChannelState.DRAINING: "cyan",
    wsclient.ChannelState.CLOSED: "cyan",
    wsclient.ChannelState.FAILED: "red",
}


def open_picture() -> Picture | None:
    """A picture; ``None`` where the terminal cannot show one."""
    console = Console()
    fits = console.height > HEIGHT and console.width >= WIDTHS[0]
    if not fits or console.is_dumb_terminal or not console.encoding.startswith("utf"):
        return None
    return Picture(console)


class Picture:
    """Draws what is known, ten times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # The last column stays empty: some terminals wrap after it.
        self._width = min(console.width - 1, WIDTHS[1])
        self._progress: Progress | None = None

    def begin(self, progress: Progress, url: str) -> None:
        """Nothing moves yet."""
        self._progress = progress

    def tell(self, event: wsclient.Event) -> None:
        """It will be in the next picture."""

    def strike(self, passage: Passage) -> None:
        """Likewise."""

    async def run(self) -> None:
        """Draw, until cancelled; then leave the terminal as it was."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._draw(None), refresh=True)
                await trio.sleep(FRAME)

    def end(self, summary: Summary) -> None:
        """Draw the last picture, with the summary in it."""
        self._console.print(self._draw(summary))

    def _draw(self, summary: Summary | None) -> Group:
        assert self._progress is not None
        return draw(self._progress, summary, self._width)


def draw(progress: Progress, summary: Summary | None, width: int) -> Group:
    """The picture of a moment, or of the end."""
    lines = [
        _headline(progress, summary, width),
        Text(),
        _state(progress, summary),
        Text(),
        *_timeline(progress, summary, width),
        Text(),
        *(_passage(passage, progress.now, width) for passage in progress.passages),
        Text(),
        *(_counters(progress) if summary is None else _summary(summary)),
    ]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def _headline(progress: Progress, summary: Summary | None, width: int) -> Text:
    line = Text("  wsclient demo", "bold")
    line.append("   one channel, and a server that keeps dying under it", "not bold dim")
    clock = f"{progress.now if summary is None else summary.duration:.1f} s"
    line.append(clock.rjust(width - line.cell_len - 2), "not bold")
    return line


def _state(progress: Progress, summary: Summary | None) -> Text:
    if summary is not None:
        line = Text("  ")
        line.append("✓ done" if summary.report.unaccounted == 0 else "✗ failed", "bold")
        line.append(f"   {count(summary.faults, 'fault')}")
        line.append(f"   {count(summary.connections, 'connection')}")
        return line
    line = Text("  ")
    line.append(f"● {progress.state.value:<14}", f"bold {_COLOURS[progress.state]}")
    line.append(f"connection {max(1, progress.connections)}")
    if progress.channel is not None:
        statistics = progress.channel.statistics()
        waiting = statistics.outbox_messages
        line.append("   outbox ", "dim").append(f"{waiting} waiting" if waiting else "empty")
        if statistics.latency is not None:
            line.append("   ping ", "dim").append(f"{statistics.latency * 1000:.1f} ms")
    return line


def _timeline(progress: Progress, summary: Summary | None, width: int) -> list[Text]:
    """What arrived, moment by moment, and under it where the faults struck."""
    cells = width - _TITLE_WIDTH - 4
    span = max(progress.seconds, progress.now) if summary is None else summary.duration
    seen = min(cells, int(progress.now / span * cells) + 1)
    # The cell in which a slot begins: all slots of a cell together are what came in it.
    counts = [0] * cells
    for slot, arrived in progress.arrivals.items():
        counts[min(cells - 1, int(slot / SLOTS * progress.seconds / span * cells))] += arrived
    full = span / cells / progress.feed_pause
    feed = Text(f"  {'feed':<{_TITLE_WIDTH}}  ", "dim")
    for arrived in counts[:seen]:
        if arrived:
            level = min(len(_BLOCKS), math.ceil(arrived / full * len(_BLOCKS)))
            feed.append(_BLOCKS[level - 1], "not dim green")
        else:
            feed.append("·", "not dim red")
    marks = [" "] * cells
    for passage in progress.passages:
        if passage.struck_at is not None:
            marks[min(cells - 1, int(passage.struck_at / span * cells))] = str(passage.number)
    faults = Text(f"  {'faults':<{_TITLE_WIDTH}}  ", "dim")
    faults.append("".join(marks), "not dim red")
    return [feed, faults]


def _passage(passage: Passage, now: float, width: int) -> Text:
    """One fault: what the server does, and what became of it."""
    if passage.struck_at is None:
        style, ending, colour = "dim", "", ""
    elif passage.outage is None:
        style, ending, colour = "bold", f"▸ {seconds(now - passage.struck_at)}", "bold red"
    else:
        style, ending, colour = "", f"✓ back after {seconds(passage.outage)}", "green"
    line = Text(f"  {passage.number} {passage.title:<{_TITLE_WIDTH - 2}}  ", style)
    room = max(0, width - line.cell_len - _ENDING_WIDTH - 2)
    sentence = Text(passage.sentence, style)
    sentence.truncate(room, overflow="ellipsis", pad=True)
    return Text.assemble(line, sentence, "  ", (ending, colour))


def _counters(progress: Progress) -> list[Text]:
    feed = progress.feed
    received = f"{feed.received:,} of {count(progress.fed, 'number')}"
    if feed.missed:
        received += f"; {feed.missed:,} missed, inside {count(feed.gaps, 'announced gap')}"
    sent = f"{count(len(progress.receipts), 'message')}; the server heard {len(progress.heard):,}"
    lines = [_row("received", received), _row("sent", sent), Text()]
    for at, sentence in list(progress.log)[-_EVENTS:]:
        lines.append(Text(f"  {f'{at:6.2f}':<{_TITLE_WIDTH}}  {sentence}", "dim"))
    return lines


def _summary(summary: Summary) -> list[Text]:
    lines = [_row(title, text) for title, text in summary_rows(summary)]
    for line, (title, _) in zip(lines, summary_rows(summary), strict=True):
        if title in ("unaccounted", ""):
            line.style = "bold red" if summary.report.unaccounted else "bold green"
    return lines


def _row(title: str, text: str) -> Text:
    return Text(f"  {title:<{_TITLE_WIDTH}}  {text}")
