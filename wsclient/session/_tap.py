"""What one connection draws messages through, and what it knows of those that it drew.

A tap knows the messages in flight: drawn, and neither proven to be read nor lost.  A *fence*, a
ping that went out behind them, moves the proof forward (``_fences.py``); the connection's end moves
everything that is left out of the tap, each message by what was promised for it (S1.7).

*Poison.*  A message that the peer cannot bear is written again on every new connection if it was
sent as ``ACKED``, and would kill every one of them.  So when a connection was closed in a way that
speaks of a message (1003, 1007, 1009), or three in a row died with the same message in flight, the
messages in flight are suspects: they go again one at a time, each fenced, and the one that is in
flight at the next such end is put aside (S1.6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from wsclient.codes import CloseCode
from wsclient.events import Delivery, Outcome

from ._outbox import Entry, Outbox
from ._receipt import Progress

WINDOW: Final = 65_536
"""Messages in flight at most: of a peer that reads and answers no ping, the oldest ones are taken
for written, and no more is known of them."""

SUSPICIOUS: Final = (
    CloseCode.UNSUPPORTED_DATA,
    CloseCode.INVALID_FRAME_PAYLOAD_DATA,
    CloseCode.MESSAGE_TOO_BIG,
)

_LOSSES: Final = 3
"""Connections lost in a row with the same message in flight: a third time is not chance."""


class Tap:
    """Draws from ``outbox`` for one connection.

    Args:
        outbox: Where from.
        is_fenced: Whether the peer's reading can be proven.
        may_draw: Asked before one is, where the rate of sending is limited.
        quarantine: Told which message is put aside, and why.
        resume: Called when a message may be drawn that had to wait for the writing of another.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        is_fenced: bool = False,
        may_draw: Callable[[], bool] | None = None,
        quarantine: Callable[[Entry, str], object] = lambda *_: None,
        resume: Callable[[], object] = lambda: None,
    ) -> None:
        self._outbox = outbox
        self._is_fenced = is_fenced
        self._may_draw = may_draw
        self._quarantine = quarantine
        self._resume = resume
        self._in_flight: deque[Entry] = deque()
        self._is_open = True
        self._is_paused = False
        self.settled = trio.Event()
        """Set once nothing is in flight, after :meth:`pause`."""
        self._written = 0
        self._trial: Entry | None = None
        self.is_held = False
        """Whether a message was not drawn because one before it is on trial."""
        self.begun: Callable[[], object] | None = None
        """Called when a message is drawn."""
        self.drawn = 0
        """How many messages were drawn."""
        self.fenced = 0
        """How many of them, from the first one, are no longer in flight."""

    @property
    def has_trial(self) -> bool:
        """Whether a message is on its way alone, that may be poison, and nothing is heard of it."""
        trial = self._trial
        return trial is not None and trial.is_open and trial.is_suspect

    @property
    def _has_in_flight(self) -> bool:
        return any(entry.is_open for entry in self._in_flight)

    def pull(self) -> Entry | None:
        """The next message to write; ``None`` if none waits, or none may be written now."""
        while self._is_open and not self._is_paused:
            entry = self._outbox.peek()
            if entry is None or not self._may_begin(entry):
                return None
            try:
                self._outbox.draw(entry)
            except Exception as error:  # A user's function, which has marked it once before.
                self._put_aside(entry, f"marking it as redelivered raised {type(error).__name__}")
                continue
            self._note_drawn(entry)
            return entry
        return None

    def _may_begin(self, entry: Entry) -> bool:
        # One suspect at a time, and nothing else beside it.
        if self._trial is not None or entry.is_suspect:
            self.is_held = self.has_trial or (entry.is_suspect and self._has_in_flight)
            if self.is_held:
                return False
        return self._may_draw is None or self._may_draw()

    def _note_drawn(self, entry: Entry) -> None:
        entry.tap = self
        self._in_flight.append(entry)
        self.drawn += 1
        if entry.is_suspect:
            self._trial = entry
        if len(self._in_flight) > WINDOW:
            self._pass(self.fenced + 1, Outcome.WRITTEN)
        if self.begun is not None:
            self.begun()

    def _put_aside(self, entry: Entry, cause: str) -> None:
        self._quarantine(entry, cause)
        self._outbox.resolve(entry, Outcome.QUARANTINED)

    def written(self, entry: Entry) -> None:
        """Note that the last byte of ``entry`` was handed over."""
        # Written in the order of the drawing.
        self._written += 1
        if entry.receipt._outcome is None:
            entry.receipt._advance(Progress.WRITTEN)
            if not entry.goes_again:
                self._outbox.release(entry)
        if not self._is_fenced:
            self._pass(self._written, Outcome.WRITTEN)
            if self.is_held:
                self._resume()

    def pause(self) -> None:
        """Draw nothing more: the connection is about to be left."""
        self._is_paused = True
        self._look_settled()

    def _look_settled(self) -> None:
        if self._is_paused and not self._in_flight:
            self.settled.set()

    def read_up_to(self, count: int) -> None:
        """A pong has proven that the peer has read the first ``count`` messages drawn."""
        self._pass(count, Outcome.RECEIVED)

    def lift_fence(self) -> int:
        """Fences prove nothing here: from now on a message that was written has its outcome.

        Returns:
            Messages that were waiting for their proof.
        """
        self._is_fenced = False
        waiting = max(0, self._written - self.fenced)
        self._pass(self._written, Outcome.WRITTEN)
        self.acquit()
        return waiting

    def acquit(self) -> None:
        """The connection has lived on long enough with the message that is on trial."""
        if self._trial is not None:
            self._trial.is_suspect = False
            self._trial.losses = 0
            self._trial = None
            self.is_held = False

    def _pass(self, count: int, outcome: Outcome) -> None:
        """The first ``count`` messages drawn are no longer in flight."""
        while self.fenced < count and self._in_flight:
            entry = self._in_flight.popleft()
            self.fenced += 1
            if outcome is Outcome.RECEIVED:
                entry.is_suspect = False
                entry.losses = 0
                if entry.receipt._outcome is None:
                    entry.receipt._advance(Progress.FENCED)
            # What is to be acknowledged stays open: no fence is an acknowledgement.
            if entry.delivery is not Delivery.ACKED:
                self._outbox.resolve(entry, outcome)
        self._look_settled()

    def entries(self) -> list[Entry]:
        """What is in flight."""
        return [entry for entry in self._in_flight if entry.is_open]

    def close(self, code: int | None = None, *, is_lost: bool = True) -> None:
        """Draw nothing more, and settle what is in flight.

        Args:
            code: The code with which the connection was closed, if it was.
            is_lost: Whether a message may be to blame: not if it is we who leave.
        """
        if not self._is_open:
            return
        self._is_open = False
        drawn = list(self._in_flight)
        if not self._is_fenced:
            # What was written is not in flight here; that it was read is no better known.
            drawn += [
                entry
                for entry in self._outbox.unacknowledged
                if entry.tap is self and entry.receipt._progress is not Progress.FENCED
            ]
        again = []
        for entry in dict.fromkeys(drawn):
            if not entry.is_open:
                continue
            if not entry.goes_again:
                self._outbox.resolve(entry, Outcome.LOST_UNKNOWN)
                continue
            entry.losses += is_lost
            if is_lost and (code in SUSPICIOUS or entry.losses >= _LOSSES):
                if entry.is_suspect:
                    self._put_aside(
                        entry,
                        f"{entry.losses} connections in a row ended with it in flight,"
                        " the last one alone",
                    )
                    continue
                entry.is_suspect = True
            again.append(entry)
        self._in_flight.clear()
        self._outbox.put_back(again)
        self._outbox.end_direct()
