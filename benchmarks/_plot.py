"""Plots as SVG, without a library: ratios with their bars, curves, and counts over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 860
TEXT: Final = "#24292f"
FAINT: Final = "#d0d7de"
SHADE: Final = "#f3f4f6"
GOOD: Final = "#1a7f37"
BAD: Final = "#bc4c00"
COLOURS: Final = ("#0969da", "#bc4c00", "#8250df")


@dataclass(frozen=True)
class Mark:
    """A ratio, its smallest and largest, and what it may be at most."""

    title: str
    ratio: float
    low: float
    high: float
    bar: float


class Drawing:
    def __init__(self, height: int) -> None:
        self._height = height
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> None:
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
            f' stroke="{colour}" stroke-width="{width}"/>'
        )

    def box(self, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
        self._parts.append(
            f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
            f' fill="{colour}"/>'
        )

    def dot(self, x: float, y: float, colour: str, radius: float = 5) -> None:
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>')

    def text(
        self, x: float, y: float, text: str, anchor: str = "start", colour: str = TEXT
    ) -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
            f"{escape(text)}</text>"
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )

    def done(self) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self._height}"'
                ' font-family="system-ui, sans-serif" font-size="13">',
                '<rect width="100%" height="100%" rx="6" fill="#ffffff"/>',
                *self._parts,
                "</svg>\n",
            ]
        )


class Scale:
    """A logarithmic axis from ``low`` to ``high``, drawn from ``start`` to ``end``."""

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        values = list(values)
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    @property
    def ticks(self) -> list[float]:
        return [float(f"1e{power}") for power in range(self._low, self._high + 1)]


def ratios(marks: Sequence[Mark]) -> str:
    """One line a ratio: a dot, its spread, and a tick at what it may be; left is faster."""
    left, top, step = 330, 52, 30
    drawing = Drawing(top + step * len(marks) + 52)
    drawing.text(16, 26, "wsclient's time (or memory) as a multiple of the peer's; left is better")
    if not marks:
        return drawing.done()
    bottom = top + step * len(marks)
    values = [value for mark in marks for value in (mark.low, mark.high, mark.bar, 1.0)]
    scale = Scale(values, left, WIDTH - 80)
    for tick in scale.ticks:
        one = tick == 1
        drawing.line(scale(tick), top - 8, scale(tick), bottom, TEXT if one else FAINT, 1)
        drawing.text(scale(tick), bottom + 18, f"{tick:g}×", "middle")
    for number, mark in enumerate(marks):
        y = top + step * (number + 0.5)
        colour = GOOD if mark.ratio <= mark.bar else BAD
        drawing.text(16, y + 4, mark.title)
        drawing.line(scale(mark.low), y, scale(mark.high), y, colour, 3)
        drawing.dot(scale(mark.ratio), y, colour)
        drawing.line(scale(mark.bar), y - 9, scale(mark.bar), y + 9, TEXT, 2)
        drawing.text(WIDTH - 16, y + 4, f"{mark.ratio:.2f}", "end", colour)
    drawing.text(16, bottom + 40, "The upright ticks are what is to be reached.")
    return drawing.done()


def curves(data: Mapping[str, Sequence[tuple[float, float]]], x_title: str, y_title: str) -> str:
    """Curves on two logarithmic axes."""
    left, top, bottom, height = 110, 40, 340, 400
    drawing = Drawing(height)
    drawing.text(16, 24, y_title)
    points = [point for line in data.values() for point in line]
    if not points:
        return drawing.done()
    across = Scale([x for x, _ in points], left, WIDTH - 120)
    up = Scale([y for _, y in points], bottom, top)
    for tick in across.ticks:
        drawing.line(across(tick), top, across(tick), bottom, FAINT, 1)
        drawing.text(across(tick), bottom + 18, f"{tick:,.0f}", "middle")
    for tick in up.ticks:
        drawing.line(left, up(tick), WIDTH - 120, up(tick), FAINT, 1)
        drawing.text(left - 8, up(tick) + 4, f"{tick:,.0f}", "end")
    for (name, line), colour in zip(data.items(), COLOURS, strict=False):
        if not line:
            continue
        placed = [(across(x), up(y)) for x, y in line]
        drawing.path(placed, colour)
        for x, y in placed:
            drawing.dot(x, y, colour, 3.5)
        drawing.text(placed[-1][0] + 10, placed[-1][1] + 4, name, colour=colour)
    drawing.text((left + WIDTH - 120) / 2, height - 16, x_title, "middle")
    return drawing.done()


def histograms(
    data: Mapping[str, Sequence[int]],
    width: float,
    shaded: tuple[float, float],
    y_title: str,
    x_title: str,
) -> str:
    """Counts over time, one panel below the other, all on the same axes.

    Args:
        data: Counts in bins from time zero on, by the panel's title; each has as many.
        width: Seconds of a bin.
        shaded: When something was otherwise than usual.
        y_title: What is counted.
        x_title: What the time is.
    """
    left, right, top, panel, gap = 70, WIDTH - 30, 64, 150, 44
    bins = max(len(counts) for counts in data.values())
    most = max(max(counts) for counts in data.values())
    colours = (BAD, GOOD)
    drawing = Drawing(top + len(data) * (panel + gap) + 16)
    drawing.text(16, 26, y_title)

    def across(seconds: float) -> float:
        return left + seconds / width / bins * (right - left)

    bottom = top
    for number, (title, counts) in enumerate(data.items()):
        bottom = top + number * (panel + gap) + panel
        colour = colours[number % len(colours)]
        drawing.box(across(shaded[0]), bottom - panel, across(shaded[1]), bottom, SHADE)
        for share in (0, 0.5, 1):
            y = bottom - share * panel
            drawing.line(left, y, right, y, FAINT, 1)
            drawing.text(left - 8, y + 4, f"{share * most:,.0f}", "end")
        for index, count in enumerate(counts):
            if count:
                x = across(index * width)
                # Wide enough to be seen.
                end = x + max(1.5, across((index + 1) * width) - x)
                drawing.box(x, bottom - count / most * panel, end, bottom, colour)
        drawing.text(right, bottom - panel - 8, title, "end", colour)
        step = max(1, round(bins * width / 15))
        for second in range(0, math.floor(bins * width) + 1, step):
            drawing.text(across(second), bottom + 18, f"{second}", "middle")
    drawing.text((left + right) / 2, bottom + 40, x_title, "middle")
    return drawing.done()
