"""Draws the pictures of the command line that these pages show.

    python docs/pictures.py

Each is what the command prints on a terminal, as SVG, without anybody's fonts.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType

import wsclient
from wsclient.cli._backoff_picture import draw as draw_backoff

HERE = Path(__file__).parent

WIDTH = 90


def write(name: str, title: str, picture: RenderableType) -> None:
    """Write a picture as SVG, the same bytes each time."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(picture)
    svg = console.export_svg(title=title, unique_id=name)
    # A reader's browser is not to fetch fonts from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)
    lines = (line.rstrip() for line in svg.splitlines())
    text = "\n".join(lines).strip() + "\n"
    (HERE / "reference" / f"{name}.svg").write_text(text, encoding="utf-8")


def main() -> None:
    """Draw them all."""
    rehearsal = wsclient.rehearse(outage=60, clients=1000, seed=1)
    write("backoff", "wsclient backoff", draw_backoff(rehearsal, 1, WIDTH - 1))


if __name__ == "__main__":
    main()
