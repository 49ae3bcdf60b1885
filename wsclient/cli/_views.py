"""How the demo is shown: as lines, as JSON; ``_picture.py`` has the picture."""

from __future__ import annotations

from typing import Protocol

import trio

import wsclient

from ._objects import event_object, json_line
from ._printer import Printer
from ._progress import Passage, Progress, Summary
from ._sentences import sentence_for
from ._summary import summary_object, summary_rows
from ._text import count, seconds


class View(Protocol):
    """Shows what happens, when it happens."""

    def begin(self, progress: Progress, url: str) -> None:
        """The server listens there; the channel is about to connect."""

    def tell(self, event: wsclient.Event) -> None:
        """Something happened to the channel."""

    def strike(self, passage: Passage) -> None:
        """The server does what the passage says."""

    async def run(self) -> None:
        """Whatever takes time, until cancelled."""

    def end(self, summary: Summary) -> None:
        """It is over."""


class Lines:
    """One line for everything that happens."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._progress: Progress | None = None

    def begin(self, progress: Progress, url: str) -> None:
        """Say what is about to happen."""
        self._progress = progress
        self._printer.print(
            f"A feed at {url}, {count(len(progress.passages), 'fault')},"
            f" and one channel that lives through them: about {progress.seconds:g} s."
        )

    def tell(self, event: wsclient.Event) -> None:
        """Say it in a sentence."""
        if sentence := sentence_for(event):
            self._line(sentence)

    def strike(self, passage: Passage) -> None:
        """Say it, so that it stands out."""
        self._line(f"FAULT {passage.number}, {passage.title}: the server {passage.sentence}")

    def _line(self, text: str) -> None:
        assert self._progress is not None
        self._printer.print(f"{self._progress.now:7.2f}  {text}")

    async def run(self) -> None:
        """Nothing takes time."""
        await trio.lowlevel.checkpoint()

    def end(self, summary: Summary) -> None:
        """Print the summary."""
        self._printer.print("")
        self._printer.print(
            f"{seconds(summary.duration)}, {count(summary.faults, 'fault')},"
            f" {count(summary.connections, 'connection')}"
        )
        for title, text in summary_rows(summary):
            self._printer.print(f"  {title:<12} {text}")


class Objects:
    """One JSON object for everything that happens."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def begin(self, progress: Progress, url: str) -> None:
        """Print what is about to happen."""
        faults = [passage.title for passage in progress.passages]
        values = {"event": "demo_began", "url": url, "seconds": progress.seconds, "faults": faults}
        self._printer.print(json_line(values))

    def tell(self, event: wsclient.Event) -> None:
        """Print the event."""
        self._printer.print(json_line(event_object(event)))

    def strike(self, passage: Passage) -> None:
        """Print which fault it is."""
        assert passage.struck_at is not None
        values = {"number": passage.number, "title": passage.title}
        at = round(passage.struck_at, 6)
        self._printer.print(json_line({"event": "fault", **values, "at": at}))

    async def run(self) -> None:
        """Nothing takes time."""
        await trio.lowlevel.checkpoint()

    def end(self, summary: Summary) -> None:
        """Print the summary."""
        self._printer.print(json_line(summary_object(summary)))
