"""What the demo has lived through so far; lines and pictures are made of it."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

import attrs
import trio

import wsclient

from ._accounting import Feed, Finding, Report, account
from ._sentences import sentence_for

SLOTS: Final = 3000
"""Into which the expected time is cut, to count what arrives: finer than any terminal shows."""

LOG_SIZE: Final = 20
"""Sentences kept; no terminal shows more."""


@attrs.define(kw_only=True)
class Passage:
    """One of the faults, and how the channel came through it."""

    number: int
    title: str
    sentence: str
    """What the server does, as a sentence whose subject is the server."""
    struck_at: float | None = None
    """When it happened (seconds since the beginning); ``None`` if it did not."""
    outage: float | None = None
    """Seconds that it cost the channel, from the last sign of life until messages flowed again."""


@attrs.frozen(kw_only=True)
class Summary:
    """What is left to say at the end."""

    duration: float
    """Seconds."""
    faults: int
    connections: int
    outages: tuple[float, ...]
    """Seconds, from the last sign of life on one connection until the next was ready."""
    report: Report

    @property
    def recovery(self) -> tuple[float, float, float] | None:
        """The shortest, the median and the longest outage; ``None`` if there was none."""
        if not self.outages:
            return None
        return min(self.outages), statistics.median(self.outages), max(self.outages)


class Progress:
    """Collects what happens; an observer of the channel.

    Args:
        passages: The faults to come.
        seconds: How long it will take, about.
        feed_pause: Seconds between two numbers of the feed.
    """

    def __init__(self, passages: list[Passage], *, seconds: float, feed_pause: float) -> None:
        self.passages = passages
        self.seconds = seconds
        self.feed_pause = feed_pause
        self.began = trio.current_time()
        self.channel: wsclient.DurableChannel | None = None
        self.state = wsclient.ChannelState.CONNECTING
        self.states: list[tuple[float, wsclient.ChannelState]] = [(0.0, self.state)]
        """Since when (seconds since the beginning) the channel is in which state."""
        self.connections = 0
        self.outages: list[float] = []
        self.log: deque[tuple[float, str]] = deque(maxlen=LOG_SIZE)
        self.feed = Feed()
        self.arrivals: Counter[int] = Counter()
        """How many numbers of the feed came in which slot."""
        self.fed = 0
        """The last number that the feed sent."""
        self.receipts: list[wsclient.Receipt] = []
        """Of message 1, 2, …"""
        self.heard: Sequence[str | bytes] = ()
        """Messages that the server heard."""
        self.failures: list[str] = []
        """What went wrong as a whole."""

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return trio.current_time() - self.began

    @property
    def struck(self) -> int:
        """How many faults have happened."""
        return sum(passage.struck_at is not None for passage in self.passages)

    def observe(self, event: wsclient.Event) -> None:
        """The channel tells what happened to it."""
        match event:
            case wsclient.StateChanged():
                self.state = event.state
                self.states.append((self.now, event.state))
            case wsclient.ConnectionReady():
                self.connections += 1
                if event.outage is not None:
                    self._recovered(event.outage)
            case wsclient.ChannelGaveUp():
                self.failures.append(event.reason)
        if sentence := sentence_for(event):
            self.log.append((self.now, sentence))

    def _recovered(self, outage: float) -> None:
        self.outages.append(outage)
        for passage in self.passages:
            if passage.struck_at is not None and passage.outage is None:
                passage.outage = outage

    def strike(self, passage: Passage) -> None:
        """The server does what the passage says."""
        passage.struck_at = self.now

    def receive(self, item: str | bytes | wsclient.Gap | wsclient.Overflow) -> None:
        """The channel received this."""
        if isinstance(item, wsclient.Gap):
            self.feed.gap()
        elif isinstance(item, (str, bytes)):
            self.feed.receive(int(item))
            self.arrivals[int(self.now / self.seconds * SLOTS)] += 1

    def summary(self, heard: list[list[int]]) -> Summary:
        """Settle the accounts.

        Args:
            heard: The messages that the server heard, in order, connection by connection.
        """
        report = account(
            self.feed,
            fed=self.fed,
            outcomes=[receipt.outcome for receipt in self.receipts],
            heard=heard,
        )
        findings = (*report.findings, *(Finding(1, failure) for failure in self.failures))
        return Summary(
            duration=self.now,
            faults=self.struck,
            connections=self.connections,
            outages=tuple(self.outages),
            report=attrs.evolve(report, findings=findings),
        )
