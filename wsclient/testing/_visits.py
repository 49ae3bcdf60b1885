"""What a server heard, connection by connection."""

from __future__ import annotations

import attrs
import trio

from wsclient.codes import CloseReason

from ._faults import Fault


@attrs.frozen
class Heard:
    """A ping or a pong that came."""

    payload: bytes
    at: float
    """When it came (trio's clock, seconds)."""


@attrs.define(kw_only=True, eq=False)
class Visit:
    """One connection, as the server saw it."""

    number: int
    """Counts the server's connections from 1."""
    fault: Fault
    """What the server does to it."""
    opened_at: float
    """When it came (trio's clock, seconds)."""
    ended_at: float | None = None
    """When its stream ended; ``None`` while it lasts."""
    path: str | None = attrs.field(default=None, repr=False)
    """Path and query that were asked for; ``None`` if no request came."""
    headers: tuple[tuple[bytes, bytes], ...] = attrs.field(default=(), repr=False)
    """The request's headers, in order, names in lower case."""
    subprotocol: str | None = None
    """What the server chose of the subprotocols offered."""
    handshake_completed: bool = False
    """Whether the server accepted the upgrade."""
    messages: list[str | bytes] = attrs.field(factory=list)
    """The messages that it heard, in order."""
    pings: list[Heard] = attrs.field(factory=list)
    """The pings that it heard."""
    pongs: list[Heard] = attrs.field(factory=list)
    """The pongs that it heard."""
    close: CloseReason | None = None
    """The close frame that it heard; code 1005 for one without a code."""
    violation: str | None = None
    """Which rule the client broke, if it did."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None


class Log:
    """All visits, and whoever waits for news of them."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.messages: list[str | bytes] = []
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def add_visit(self, visit: Visit) -> None:
        """Somebody came."""
        self.visits.append(visit)
        self.changed.unpark_all()

    def add_message(self, visit: Visit, message: str | bytes) -> None:
        """Somebody said something."""
        visit.messages.append(message)
        self.messages.append(message)
        self.changed.unpark_all()

    def clear(self) -> None:
        """Forget all messages, and the visits that are over."""
        self.visits[:] = [visit for visit in self.visits if not visit.is_over]
        self.messages.clear()
