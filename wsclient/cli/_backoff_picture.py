"""What a retry policy makes of an outage, as a picture, drawn with rich."""

from __future__ import annotations

import math
from typing import Final

from rich.console import Console, Group
from rich.text import Text

import wsclient

from ._backoff import backoff_rows, headline
from ._text import seconds

WIDTHS: Final = (60, 100)
"""Columns: at least, so that time has room; at most, so that the eye finds back."""

HEIGHT: Final = 6
"""Lines of the histogram."""

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_TITLE_WIDTH: Final = 14
_CLIENTS: Final = 3
_WAITS: Final = 12


def picture(rehearsal: wsclient.Rehearsal, seed: int) -> list[str] | None:
    """The lines of a picture, with their colours; ``None`` if the terminal cannot show one."""
    console = Console()
    if (
        console.width <= WIDTHS[0]
        or console.is_dumb_terminal
        or not console.encoding.startswith("utf")
    ):
        return None
    # The last column stays empty: some terminals wrap after it.
    width = min(console.width - 1, WIDTHS[1])
    with console.capture() as captured:
        console.print(draw(rehearsal, seed, width))
    return captured.get().splitlines()


def draw(rehearsal: wsclient.Rehearsal, seed: int, width: int) -> Group:
    """The picture."""
    cells = width - _TITLE_WIDTH - 4
    axis = _Axis(_span(rehearsal), cells)
    is_one = rehearsal.clients == 1
    lines = [
        _headline(rehearsal, seed, width),
        Text(),
        *([] if is_one else _histogram(rehearsal, axis)),
        *([] if is_one else [_back(rehearsal, axis)]),
        *(_client(rehearsal, number, axis) for number in range(min(_CLIENTS, rehearsal.clients))),
        _ticks(axis),
        Text(),
        *(_row(title, text) for title, text in backoff_rows(rehearsal)),
    ]
    if is_one:
        lines += [Text(), *_waits(rehearsal, cells)]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


class _Axis:
    """Time, in cells."""

    def __init__(self, span: float, cells: int) -> None:
        self.span = span
        self.cells = cells

    @property
    def step(self) -> float:
        """Seconds of a cell."""
        return self.span / self.cells

    def cell(self, time: float) -> int:
        return min(self.cells - 1, int(time / self.step))


def _span(rehearsal: wsclient.Rehearsal) -> float:
    """Seconds until nothing more happens; a server that nobody comes back to is shown, too."""
    last = rehearsal.attempts[-1] if rehearsal.attempts else 0.0
    return max(last, rehearsal.outage * 1.1, 1.0)


def _headline(rehearsal: wsclient.Rehearsal, seed: int, width: int) -> Text:
    line = Text("  wsclient backoff", "bold")
    line.append(f"   {headline(rehearsal)}", "not bold dim")
    chance = f"seed {seed}"
    return line.append(chance.rjust(width - line.cell_len - 2), "not bold dim")


def _histogram(rehearsal: wsclient.Rehearsal, axis: _Axis) -> list[Text]:
    """Attempts over time: refused while the server is away, connected once it is back."""
    refused, connected = [0] * axis.cells, [0] * axis.cells
    for time in rehearsal.attempts:
        (connected if time >= rehearsal.outage else refused)[axis.cell(time)] += 1
    most = max(*refused, *connected, 1)
    titles = [f"{most:,} ┤", *[""] * (HEIGHT - 3), "attempts in", f"each {seconds(axis.step)}"]
    lines = []
    for row, title in zip(range(HEIGHT - 1, -1, -1), titles, strict=True):
        line = Text(f"  {title:>{_TITLE_WIDTH}}  ", "dim")
        for bad, good in zip(refused, connected, strict=True):
            # Where both lie in one cell, it has the colour of those that connected.
            level = math.ceil((bad + good) / most * HEIGHT * 8) - 8 * row
            line.append(_BLOCKS[min(8, max(0, level))], "not dim green" if good else "not dim red")
        lines.append(line)
    return lines


def _back(rehearsal: wsclient.Rehearsal, axis: _Axis) -> Text:
    """Which share of the clients is connected, over time."""
    line = Text(f"  {'connected':>{_TITLE_WIDTH}}  ", "dim")
    came = [0] * axis.cells
    for time in rehearsal.back:
        came[axis.cell(time)] += 1
    there = 0
    for number in came:
        there += number
        if there:
            level = max(1, there * 8 // rehearsal.clients)
            line.append(_BLOCKS[level], "not dim green")
        else:
            line.append("·", "not dim red")
    return line


def _client(rehearsal: wsclient.Rehearsal, number: int, axis: _Axis) -> Text:
    """When one of them tries."""
    times = rehearsal.attempts_of[number]
    cells = {axis.cell(time): time >= rehearsal.outage for time in times}
    line = Text(f"  {f'client {number + 1}':>{_TITLE_WIDTH}}  ", "dim")
    for cell in range(axis.cells):
        if cell in cells:
            is_back = cells[cell]
            line.append("✓" if is_back else "✗", f"not dim {'green' if is_back else 'red'}")
        else:
            line.append(" ")
    return line


def _ticks(axis: _Axis) -> Text:
    """Seconds, at round numbers."""
    step = 1.0
    while step / axis.step < 8:
        step *= 2.5 if f"{step:g}".startswith("2") else 2
    marks = [" "] * (axis.cells + 8)
    for number in range(int(axis.span / step) + 1):
        text = f"{number * step:g}"
        cell = round(number * step / axis.step)
        if cell + len(text) <= axis.cells:
            marks[cell : cell + len(text)] = text
    return Text(f"  {'seconds':>{_TITLE_WIDTH}}  {''.join(marks).rstrip()}", "dim")


def _waits(rehearsal: wsclient.Rehearsal, cells: int) -> list[Text]:
    """Every wait of the one client, as a bar."""
    delays = rehearsal.delays(0)
    longest = max((*delays, 0.001))
    lines = []
    for number, delay in enumerate(delays[:_WAITS], 1):
        title = f"{number}: {seconds(delay)}"
        bar = "█" * max(1, round(delay / longest * (cells - 2)))
        lines.append(Text(f"  {title:>{_TITLE_WIDTH}}  ").append(bar, "cyan"))
    if len(delays) > _WAITS:
        lines.append(Text(f"  {'':>{_TITLE_WIDTH}}  and {len(delays) - _WAITS} more", "dim"))
    return lines


def _row(title: str, text: str) -> Text:
    return Text(f"  {title:>{_TITLE_WIDTH}}  {text}")
