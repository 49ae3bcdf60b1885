"""All that watches over one connection that is ready: three questions, and one verdict."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from wsclient import events
from wsclient.connection import (
    Ping,
    WebSocketConnection,
    open_background_nursery,
    start_ping,
)
from wsclient.errors import HeartbeatTimeout
from wsclient.events import Event
from wsclient.options import HeartbeatOptions

from ._heartbeat import Heartbeat, Judge
from ._inbox import Inlet, Way
from ._silence import ApplicationHeartbeat, Ear, SilenceWatch


class Liveness:
    """Watches over ``connection``, from now on.

    Args:
        connection: Which; it is ready.
        options: What is asked, and how often.
        place: What every event about the connection tells, its epoch included.
        observe: Told what happens.
        send_ping: Sends a protocol ping; ``None`` sends a plain one.
        spend: Told that a ping of the application's goes out.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        options: HeartbeatOptions,
        *,
        place: dict[str, Any],
        observe: Callable[[Event], None],
        send_ping: Callable[[], Ping] | None = None,
        spend: Callable[[], object] = lambda: None,
    ) -> None:
        self._options = options
        self._place = place
        self._observe = observe
        send_ping = send_ping or (lambda: start_ping(connection))
        judge = Judge(connection, self._stalled)
        ping = options.application
        self._heartbeat = Heartbeat(connection, options, judge, send_ping)
        self._ear = Ear(None if ping is None else ping.match, self._failed)
        self._application = (
            None
            if ping is None
            else ApplicationHeartbeat(
                connection, ping, options, judge, self._ear, self._failed, spend
            )
        )
        self._silence = SilenceWatch(
            connection, options, judge, self._ear, self._application, send_ping
        )

    def way_into(self, way: Way) -> Way:
        """Where the connection shall put its messages so that they are heard here.

        That is ``way`` itself if nobody wants to hear them.
        """
        if self._options.application is None and self._options.max_silence == math.inf:
            return way
        return Inlet(way, self._ear.hear)

    def probe(self) -> None:
        """Ask the peer at once, if it may be asked at all: the machine has slept."""
        if self._options.interval < math.inf:
            self._heartbeat.probe()

    async def run(self) -> HeartbeatTimeout:
        """Watch until the peer is gone.

        Returns:
            How that was noticed.
        """
        found: list[HeartbeatTimeout] = []
        is_found = trio.Event()

        async def watch(run: Callable[[], Awaitable[HeartbeatTimeout]]) -> None:
            found.append(await run())
            is_found.set()

        async with open_background_nursery() as nursery:
            nursery.start_soon(watch, self._heartbeat.run)
            if self._application is not None:
                nursery.start_soon(watch, self._application.run)
            if self._options.max_silence < math.inf:
                nursery.start_soon(watch, self._silence.run)
            await is_found.wait()
        if self._heartbeat.is_blocked:
            self.tell_deaf()
        return found[0]

    def tell_deaf(self) -> None:
        """Tell the observers that the peer reads nothing."""
        self._observe(events.PeerStoppedReading(**self._place))

    def _stalled(self, late: float) -> None:
        self._observe(events.LocalStallDetected(**self._place, late=max(0.0, late)))

    def _failed(self, error: Exception) -> None:
        self._observe(
            events.HandlerFailed(
                channel=self._place["channel"],
                handler=type(self._options.application).__qualname__,
                subject="an application ping",
                error=error,
            )
        )
