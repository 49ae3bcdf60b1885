"""Draws the pictures of the command line that these pages show.

    python docs/pictures.py

Each is what the command prints on a terminal, as SVG, without anybody's fonts.
"""

from __future__ import annotations

import io
import random
import re
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio.testing
from rich.console import Console, Group, RenderableType
from rich.text import Text

import wsclient
from wsclient.cli import _demo
from wsclient.cli._arguments import parse
from wsclient.cli._backoff_picture import draw as draw_backoff
from wsclient.cli._diagnosis import diagnose
from wsclient.cli._doctor_picture import draw as draw_steps
from wsclient.cli._doctor_picture import draw_conclusion
from wsclient.cli._listen import prepare
from wsclient.cli._picture import draw as draw_progress
from wsclient.cli._progress import Progress, Summary
from wsclient.cli._steps import Step, goal_from
from wsclient.testing import NONE, Fault, FaultServer, ServerConnection, memory_network

HERE = Path(__file__).parent

WIDTH = 90

PAUSE = 0.4
"""Seconds between two trades."""


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


class Moment:
    """Watches the demo, and keeps the picture of one moment."""

    def __init__(self, at: float) -> None:
        self._at = at
        self.picture: RenderableType = ""

    def begin(self, progress: Progress, url: str) -> None:
        """The story is known now."""
        self._progress = progress

    def tell(self, event: wsclient.Event) -> None:
        """It is in the progress."""

    def strike(self, passage: object) -> None:
        """Likewise."""

    async def run(self) -> None:
        """Wait for the moment."""
        await trio.sleep(self._at)
        self.picture = draw_progress(self._progress, None, WIDTH - 1)

    def end(self, summary: Summary) -> None:
        """The moment has passed."""


async def demo() -> RenderableType:
    """The demo while the server is gone."""
    moment = Moment(at=10.3)
    with memory_network() as network:
        _demo.FaultServer = partial(FaultServer, network=network, host="127.0.0.1", port=8765)
        await _demo.Demo(_demo.Pace(15, random.Random(4)), moment).run()
    return moment.picture


class Transcript:
    """Takes the lines of both streams, as a terminal shows them."""

    def __init__(self, command: str) -> None:
        self.text = Text(f"$ {command}\n", "bold")

    def print(self, line: str) -> None:
        """A message."""
        self.text.append(f"{line}\n", "not bold")

    def tell(self, line: str) -> None:
        """Something of the story."""
        self.text.append(f"{line}\n", "not bold dim")

    async def wait_room(self) -> None:
        """There is."""
        await trio.lowlevel.checkpoint()


async def listen() -> RenderableType:
    """A feed whose server is restarted."""

    async def serve(connection: ServerConnection) -> None:
        # Trades are numbered, so that a reader sees which are missing.
        while True:
            number = round(trio.current_time() / PAUSE)
            price = f"{101 + number % 7 / 4:.2f}"
            await connection.send(f'{{"trade": {number}, "price": "{price}"}}')
            await trio.sleep(PAUSE)

    story = [Fault.close(1012, "back soon", after=1.2), Fault.reject(503), NONE]
    url = "ws://feed.example/ws"
    transcript: Any = Transcript(f"wsclient listen {url} --journal feed.journal")
    command = prepare(parse(["listen", url]), transcript)
    with memory_network() as network:
        async with FaultServer(story, network=network, host="feed.example", handler=serve):
            with trio.move_on_after(5):
                await command()
    return transcript.text


def on_virtual_time(draw: Callable[[], Any]) -> RenderableType:
    """What is drawn of something that happens, which happens the same way each time."""
    random.seed(7)
    picture: RenderableType = trio.run(draw, clock=trio.testing.MockClock(autojump_threshold=0))
    return picture


def main() -> None:
    """Draw them all."""
    write("demo", "wsclient demo", on_virtual_time(demo))
    write("listen", "wsclient listen", on_virtual_time(listen))
    rehearsal = wsclient.rehearse(outage=60, clients=1000, seed=1)
    write("backoff", "wsclient backoff", draw_backoff(rehearsal, 1, WIDTH - 1))
    write("doctor", "wsclient doctor", doctor())


if __name__ == "__main__":
    main()
