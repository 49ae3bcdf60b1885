"""``wsclient demo``: a server that dies in different ways, under one channel.

The server is the test kit's, on a real socket.  It sends a feed of numbers, whether anybody is
connected or not, and keeps the numbered messages that it hears.  Its faults are data: the story is
the same each time, and only the waits between attempts are left to chance.
"""

from __future__ import annotations

import random
import sys
from typing import Any, Final

import attrs
import trio

import wsclient
from wsclient.testing import (
    EOF_AFTER_OPEN,
    HALF_FRAME,
    NONE,
    SILENCE,
    Fault,
    FaultServer,
    ServerConnection,
)

from ._arguments import DemoArguments
from ._printer import Printer
from ._progress import Passage, Progress, Summary
from ._running import FAILED, OK, Command
from ._views import Lines, Objects, View

FEED_PAUSE: Final = 0.02
"""Seconds between two numbers of the feed: enough of them for a curve."""

SEND_PAUSE: Final = 0.1
"""Seconds between two messages to the server."""

_INSTANT: Final = 0.001
"""Seconds; less does not count, for times are added up and subtracted."""

SETTLE: Final = 1.0
"""Seconds in which each end hears the other's last word, before one more is said."""


@attrs.frozen
class Pace:
    """How long everything takes, so that the story fits the time.

    A short demo hurries; a long one has longer peace between the faults, and the same faults.
    """

    seconds: float
    chance: random.Random = attrs.field(factory=random.Random, repr=False)
    """Draws the waits between attempts."""

    @property
    def _scale(self) -> float:
        return self.seconds / 15

    @property
    def peace(self) -> float:
        """Seconds in good health before each fault."""
        return max(0.2, 1.1 * self._scale)

    @property
    def limit(self) -> float:
        """Seconds after which something must be wrong."""
        return 30 + 3 * self.seconds

    @property
    def outage(self) -> float:
        """Seconds that the server is gone."""
        return 1.5 * self._scale

    @property
    def retry_after(self) -> int:
        """Seconds that an overloaded server asks for; HTTP knows whole ones only."""
        return round(min(1, self._scale))

    @property
    def heartbeat(self) -> wsclient.HeartbeatOptions:
        """Far faster than a real one, so that silence is noticed while we look."""
        seconds = max(0.2, 0.5 * min(1, self._scale))
        return wsclient.HeartbeatOptions(interval=seconds, timeout=seconds)

    @property
    def retry(self) -> wsclient.RetryPolicy:
        """Likewise."""
        haste = min(1, self._scale)

        def wait(state: Any) -> float:
            growing: float = min(0.8, 0.2 * 2**state.attempt_number)
            return self.chance.uniform(0.5, 1) * growing * haste

        return wsclient.RetryPolicy(wait=wait, stable_after=0.5 * haste)


@attrs.frozen
class Chapter:
    """One way to die."""

    title: str
    sentence: str
    """What the server does."""
    faults: tuple[Fault, ...]
    """What befalls its next connections."""
    outage: float = 0.0
    """Seconds that it does not listen, after the time of peace."""


def story(pace: Pace) -> list[Chapter]:
    """The ways to die, in order."""
    peace = pace.peace
    return [
        Chapter(
            "restart",
            "closes with 1012, as before a restart",
            (Fault.close(1012, "back soon", after=peace),),
        ),
        Chapter("reset", "resets the connection", (Fault.reset(after=peace),)),
        Chapter(
            "end",
            "ends the stream, without a close frame",
            (EOF_AFTER_OPEN.later(after=peace),),
        ),
        Chapter(
            "half a frame",
            "ends the stream inside a message",
            (HALF_FRAME.later(after=peace),),
        ),
        Chapter(
            "silence",
            "says nothing any more, answers no ping",
            (SILENCE.later(after=peace),),
        ),
        Chapter(
            "outage",
            f"is gone for {pace.outage:.1f} s: refuses connections",
            (NONE,),
            pace.outage,
        ),
        Chapter(
            "overload",
            f"hangs up, then says 503, Retry-After: {pace.retry_after}",
            (Fault.reset(after=peace), Fault.reject(503, retry_after=pace.retry_after)),
        ),
    ]


class Demo:
    """The story, told once."""

    def __init__(self, pace: Pace, view: View) -> None:
        self._pace = pace
        self._view = view
        self._chapters = story(pace)
        passages = [
            Passage(number=number, title=chapter.title, sentence=chapter.sentence)
            for number, chapter in enumerate(self._chapters, 1)
        ]
        self._progress = Progress(passages, seconds=pace.seconds, feed_pause=FEED_PAUSE)
        # Which connection of the server is the first of which passage, counted from 1.
        self._first: dict[int, Passage] = {}
        faults: list[Fault] = []
        for chapter, passage in zip(self._chapters, passages, strict=True):
            self._first[len(faults) + 1] = passage
            faults += chapter.faults
        self._last_connection = len(faults) + 1
        self._server = FaultServer([*faults, NONE], handler=self._serve)
        self._fed = trio.lowlevel.ParkingLot()
        self._received = trio.lowlevel.ParkingLot()
        self._is_ending = False

    async def run(self) -> Summary:
        """Tell it, and settle the accounts."""
        with trio.move_on_after(self._pace.limit) as limit:
            try:
                await self._tell()
            except* wsclient.ChannelFailed:
                pass  # The progress has been told, and why.
        if limit.cancelled_caught:
            self._progress.failures.append("the story did not come to its end")
        return self._progress.summary(
            [[int(message) for message in visit.messages] for visit in self._server.connections]
        )

    async def _tell(self) -> None:
        async with self._server as server:
            self._progress.heard = server.messages
            self._view.begin(self._progress, server.url)
            async with (
                wsclient.open_channel(
                    server.url,
                    heartbeat=self._pace.heartbeat,
                    retry=self._pace.retry,
                    observers=[self._progress.observe, self._view.tell],
                ) as channel,
                trio.open_nursery() as nursery,
            ):
                self._progress.channel = channel
                nursery.start_soon(self._view.run)
                nursery.start_soon(self._receive, channel)
                await channel.wait_ready()
                async with trio.open_nursery() as talk:
                    talk.start_soon(self._feed)
                    talk.start_soon(self._send, channel)
                    await self._play()
                    self._is_ending = True
                await self._settle(channel)
                nursery.cancel_scope.cancel()

    # The channel's side.

    async def _receive(self, channel: wsclient.DurableChannel) -> None:
        async for item in channel.items():
            self._progress.receive(item)
            self._received.unpark_all()

    async def _send(self, channel: wsclient.DurableChannel) -> None:
        while not self._is_ending:
            await self._send_one(channel)
            await trio.sleep(SEND_PAUSE)

    async def _send_one(self, channel: wsclient.DurableChannel) -> None:
        receipts = self._progress.receipts
        receipts.append(await channel.send(str(len(receipts) + 1)))

    # The server's side.

    async def _feed(self) -> None:
        while not self._is_ending:
            self._feed_one()
            await trio.sleep(FEED_PAUSE)

    def _feed_one(self) -> None:
        self._progress.fed += 1
        self._fed.unpark_all()

    async def _serve(self, connection: ServerConnection) -> None:
        """Send the feed until the fault strikes; see that it does."""
        number = self._progress.fed
        try:
            while True:
                while number < self._progress.fed:
                    number += 1
                    await connection.send(str(number))
                await self._fed.park()
        finally:
            fault = connection.visit.fault
            age = trio.current_time() - connection.visit.opened_at
            # Otherwise the client has left before: then it was not the fault.
            if fault.after and age > fault.after - _INSTANT:
                self._strike(self._first[connection.number])

    def _strike(self, passage: Passage) -> None:
        self._progress.strike(passage)
        self._view.strike(passage)

    async def _play(self) -> None:
        """Wait until all faults have struck, and the last peace is over."""
        server, pace = self._server, self._pace
        for number, passage in self._first.items():
            await server.wait_connections(number)
            outage = self._chapters[passage.number - 1].outage
            if outage:
                await trio.sleep(pace.peace)
                self._strike(passage)
                await server.stop()
                await trio.sleep(outage)
                await server.start()
        await server.wait_connections(self._last_connection)
        await trio.sleep(pace.peace)

    async def _settle(self, channel: wsclient.DurableChannel) -> None:
        """Go on until each end has heard the other's last word.

        A last word can be lost like any other: then a later one stands behind the gap.
        """
        while True:
            self._feed_one()
            await self._send_one(channel)
            with trio.move_on_after(SETTLE):
                async with trio.open_nursery() as both:
                    both.start_soon(self._wait_received)
                    both.start_soon(self._wait_heard)
                return

    async def _wait_received(self) -> None:
        while self._progress.feed.last < self._progress.fed:
            await self._received.park()

    async def _wait_heard(self) -> None:
        messages = self._server.messages
        while not messages or messages[-1] != str(len(self._progress.receipts)):
            await self._server.wait_messages(len(messages) + 1)


def prepare_demo(arguments: DemoArguments, printer: Printer) -> Command:
    """What to run."""

    async def demo() -> int:
        pace = Pace(arguments.seconds, random.Random(arguments.seed))
        view = _view(arguments, printer)
        summary = await Demo(pace, view).run()
        view.end(summary)
        return FAILED if summary.report.unaccounted else OK

    return demo


def _view(arguments: DemoArguments, printer: Printer) -> View:
    if arguments.json:
        return Objects(printer)
    if arguments.plain or sys.stdout is None or not sys.stdout.isatty():
        return Lines(printer)
    try:
        from ._picture import open_picture
    except ImportError:
        printer.tell("(With rich installed this is a picture: pip install 'wsclient-trio[cli]')")
        return Lines(printer)
    return open_picture() or Lines(printer)
