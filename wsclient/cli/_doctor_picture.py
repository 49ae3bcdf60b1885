"""The doctor's steps, as they are made, drawn with rich."""

from __future__ import annotations

from typing import Final

import trio
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ._diagnosis import Diagnosis
from ._doctor import conclusion_rows
from ._steps import Goal, Step
from ._text import escape, milliseconds

FRAME: Final = 0.1
"""Seconds between two pictures."""

WIDTHS: Final = (60, 110)
"""Columns: at least, and at most."""

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def open_picture(goal: Goal) -> Picture | None:
    """A picture; ``None`` where the terminal cannot show one."""
    console = Console()
    is_able = not console.is_dumb_terminal and console.encoding.startswith("utf")
    return Picture(goal, console) if is_able and console.width > WIDTHS[0] else None


class Picture:
    """Draws what is known, ten times a second."""

    def __init__(self, goal: Goal, console: Console) -> None:
        self._console = console
        self._width = min(console.width - 1, WIDTHS[1])
        self._goal = goal
        self._steps: list[Step] = []
        self._running: tuple[str, float] | None = None

    def begin(self, name: str) -> None:
        """It will be in the next picture."""
        self._running = (name, trio.current_time())

    def end(self, step: Step) -> None:
        """Likewise."""
        self._running = None
        self._steps.append(step)

    async def run(self) -> None:
        """Draw, until cancelled; then leave the terminal as it was."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._draw(), refresh=True)
                await trio.sleep(FRAME)

    def _draw(self) -> Padding:
        running = None
        if self._running is not None:
            name, began = self._running
            running = (name, trio.current_time() - began)
        return draw(self._goal, self._steps, running, self._width)

    def conclude(self, diagnosis: Diagnosis | None) -> None:
        """Draw the last picture, with what follows in it."""
        self._console.print(self._draw())
        self._console.print(draw_conclusion(diagnosis, self._width))


def draw(goal: Goal, steps: list[Step], running: tuple[str, float] | None, width: int) -> Padding:
    """The steps: those that were made, the one that is being made (for so long), and the rest."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(width=8)
    table.add_column(width=10, justify="right")
    table.add_column(ratio=1, overflow="fold")
    table.width = width - 4
    for step in steps:
        mark, colour = ("✓", "green") if step.is_ok else ("✗", "bold red")
        text = Text(escape(step.text), "" if step.is_ok else "bold red")
        for note in step.notes:
            text.append(f"\n{escape(note)}", "dim")
        time = Text(milliseconds(step.seconds), "dim")
        table.add_row(Text(mark, colour), Text(step.name, "bold"), time, text)
    if running is not None:
        name, duration = running
        mark = _SPINNER[int(duration / FRAME) % len(_SPINNER)]
        table.add_row(Text(mark, "yellow"), Text(name, "bold"), Text(milliseconds(duration), "dim"))
    made = {step.name for step in steps} | ({running[0]} if running is not None else set())
    for name in goal.names:
        if name not in made:
            table.add_row(Text("·", "dim"), Text(name, "dim"))
    headline = Text("wsclient doctor", "bold").append(f"   {goal.endpoint}", "not bold dim")
    return Padding(Group(headline, Text(), table), (0, 2), expand=False)


def draw_conclusion(diagnosis: Diagnosis | None, width: int) -> Padding:
    """What follows."""
    if diagnosis is None:
        return Padding(Text("\n✓ all is well", "bold green"), (0, 2))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=16)
    table.add_column(ratio=1, overflow="fold")
    table.width = width - 4
    for title, text in conclusion_rows(diagnosis):
        table.add_row(Text(title, "bold"), Text(escape(text)))
    return Padding(Group(Text(), table), (0, 2), expand=False)
