"""Pings on their way, and the pongs that answer them."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Final

import trio

from ._round_trips import RoundTrips

_ORDER: Final = itertools.count()


class Ping:
    """One ping that waits for its pong."""

    __slots__ = (
        "answered",
        "on_answer",
        "on_begin",
        "order",
        "payload",
        "resolved",
        "sent_at",
        "written_at",
    )

    def __init__(self, payload: bytes, sent_at: float) -> None:
        self.payload: bytes = payload
        self.sent_at: float = sent_at
        self.written_at: float | None = None
        """When it was handed to the transport, where that was asked for."""
        self.resolved: trio.Event = trio.Event()
        self.answered: bool = False
        self.order: int | None = None
        """Its place among all that are on their way: a pong for it answers those before it."""
        self.on_begin: Callable[[], object] | None = None
        """Called when it stands in the buffer, behind everything that was begun before it."""
        self.on_answer: Callable[[], object] | None = None
        """Called when its pong has come, or that of a later one."""

    def begun(self) -> None:
        """Note that it is on its way: it stands in the buffer, behind those that did before."""
        self.order = next(_ORDER)
        if self.on_begin is not None:
            self.on_begin()

    def written(self) -> None:
        """Note that it was handed to the transport just now."""
        self.written_at = trio.current_time()


class Pings:
    """The pings in flight, oldest first."""

    def __init__(self) -> None:
        self._in_flight: dict[bytes, Ping] = {}
        self.round_trips: RoundTrips | None = None
        """How long they took; ``None`` before the first pong."""

    def __len__(self) -> int:
        return len(self._in_flight)

    def register(self, payload: bytes | None) -> Ping:
        """Begin to listen for a pong: before the ping is written, or the pong may come first.

        Args:
            payload: At most 125 bytes, unlike that of any other ping in flight; ``None`` picks one.

        Raises:
            TypeError: It is not bytes.
            ValueError: It is too long, or in flight.
        """
        if payload is None:
            payload = secrets.token_bytes(8)
        check_control_payload(payload)
        if payload in self._in_flight:
            raise ValueError(f"Payload value {payload!r} is already in flight.")
        ping = self._in_flight[payload] = Ping(payload, trio.current_time())
        return ping

    def forget(self, ping: Ping) -> None:
        """Stop to listen for this one, if nobody else wants to hear that it was answered."""
        if ping.on_answer is None and self._in_flight.get(ping.payload) is ping:
            del self._in_flight[ping.payload]

    def received(self, payload: bytes) -> None:
        """Take a pong; one that nobody asked for is no error (RFC 6455 §5.5.3)."""
        asked = self._in_flight.get(payload)
        if asked is None or asked.order is None:
            return
        # It may have waited behind a large message: that is not on the way.
        began = asked.sent_at if asked.written_at is None else asked.written_at
        took = trio.current_time() - began
        if self.round_trips is None:
            self.round_trips = RoundTrips(took)
        else:
            self.round_trips.add(took)
        # A pong also answers every ping sent before it (RFC 6455 §5.5.3).
        for earlier, ping in list(self._in_flight.items()):
            if ping.order is None or ping.order > asked.order:
                continue
            del self._in_flight[earlier]
            ping.answered = True
            ping.resolved.set()
            if ping.on_answer is not None:
                ping.on_answer()

    def give_up(self) -> None:
        """No pong will come any more: wake everyone."""
        for ping in self._in_flight.values():
            ping.resolved.set()
        self._in_flight.clear()


def check_control_payload(payload: object) -> None:
    """Check what a ping or pong is to carry (RFC 6455 §5.5).

    Raises:
        TypeError: It is not bytes.
        ValueError: It is longer than 125 bytes.
    """
    if not isinstance(payload, bytes):
        raise TypeError(f"payload must be bytes, not {type(payload).__name__}")
    if len(payload) > 125:
        raise ValueError("payload too long for control frame: at most 125 bytes (RFC 6455 §5.5)")
