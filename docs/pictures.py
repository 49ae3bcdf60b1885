"""Draws the pictures of the command line that these pages show.

    python docs/pictures.py

Each is what the command prints on a terminal, as SVG, without anybody's fonts.
"""

from __future__ import annotations

import io
import re
import ssl
from pathlib import Path

from rich.console import Console, Group, RenderableType

import wsclient
from wsclient.cli._backoff_picture import draw as draw_backoff
from wsclient.cli._diagnosis import diagnose
from wsclient.cli._doctor_picture import draw as draw_steps
from wsclient.cli._doctor_picture import draw_conclusion
from wsclient.cli._steps import Step, goal_from

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


def doctor() -> RenderableType:
    """A server whose certificate has expired."""
    error = wsclient.HandshakeError("the certificate is not to be trusted: it has expired")
    error.__cause__ = ssl.SSLCertVerificationError()
    steps = [
        Step(name="resolve", seconds=0.0182, is_ok=True, text="2001:db8::7, 192.0.2.7"),
        Step(
            name="connect",
            seconds=0.0314,
            is_ok=True,
            text="192.0.2.7, port 443",
            notes=("2001:db8::7: Network is unreachable",),
        ),
        Step(name="TLS", seconds=0.0271, is_ok=False, text=str(error)),
    ]
    picture = draw_steps(goal_from("wss://feed.example/ws", (), ()), steps, None, WIDTH - 1)
    diagnosis = diagnose(error, step="TLS", is_secure=True)
    return Group(picture, draw_conclusion(diagnosis, WIDTH - 1))


def main() -> None:
    """Draw them all."""
    rehearsal = wsclient.rehearse(outage=60, clients=1000, seed=1)
    write("backoff", "wsclient backoff", draw_backoff(rehearsal, 1, WIDTH - 1))
    write("doctor", "wsclient doctor", doctor())


if __name__ == "__main__":
    main()
