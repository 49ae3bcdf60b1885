"""Fences: pings that prove what the peer has read.

A peer handles frames in the order in which they come, and its pong for a later ping answers the
earlier ones, too (RFC 6455 §5.5.2–5.5.3).  So the pong for a ping that was written behind a message
proves that the peer's WebSocket endpoint has read the message, without any help from the
application behind it.

A fence for each message would double the traffic: one is asked for when ``fence_every`` messages
went out since the last, or ``fence_interval`` seconds after the first of them, and each ping of the
heartbeat is one, too.  When the channel is leaving there is no reason to wait: then the last
message is followed by one at once.

A peer that answers no ping at all, while other bytes come from it, is not worth asking: after
``fence_timeout`` fences are lifted for this connection.

Where nothing is asked, a message on trial (``_tap.py``) is acquitted when the peer acknowledges it,
or when the connection has lived on with it for as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from wsclient.connection import Ping, WebSocketConnection, start_ping, wait_reading
from wsclient.options import DeliveryOptions

from ._tap import Tap


class Fences:
    """The fences of one connection.

    Args:
        connection: What is written to.
        tap: What was drawn for it.
        options: When a fence is asked for.
        is_leaving: Whether the channel wants its outcomes at once.
        lifted: Told of how many messages nothing can be proven, when fences are lifted.
        resume: Called when messages may be drawn that had to wait for a proof.
        spend: Called for each ping, which may count towards a limit on the rate.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        tap: Tap,
        options: DeliveryOptions,
        *,
        is_leaving: Callable[[], bool],
        lifted: Callable[[int], object],
        resume: Callable[[], object],
        spend: Callable[[], object] = lambda: None,
    ) -> None:
        self._connection = connection
        self._tap = tap
        self._options = options
        self._is_leaving = is_leaving
        self._lifted = lifted
        self._resume = resume
        self._spend = spend
        self._asks = options.fence
        self._acquit_at = math.inf
        # How many messages were followed by a ping, and when the first one was drawn that was not.
        self._asked = 0
        self._unasked_since = math.inf
        # A ping of ours that is not written yet.
        self._is_asking = False
        # Since when pings wait for an answer.
        self._unanswered_since = math.inf
        self._wake = trio.Event()
        tap.begun = self._begun

    @property
    def _unasked(self) -> int:
        return self._tap.drawn - self._asked

    def _begun(self) -> None:
        """A message was drawn."""
        if not self._asks:
            if self._tap.has_trial:
                self._acquit_at = trio.current_time() + self._options.fence_timeout
                self._wake.set()
            return
        unasked = self._tap.drawn - self._asked
        if unasked == 1:
            self._unasked_since = trio.current_time()
        if unasked in (1, self._options.fence_every) or self._is_urgent:
            self._wake.set()

    def hurry(self) -> None:
        """Look now whether there is something to ask for."""
        self._wake.set()

    def ping(self) -> Ping:
        """Send a ping; where fences are on, it is one for all that was drawn when it is written."""
        self._spend()
        if not self._asks:
            return start_ping(self._connection)
        covered = 0

        def begun() -> None:
            nonlocal covered
            covered = self._asked = self._tap.drawn
            self._is_asking = False
            self._unasked_since = math.inf
            if self._asks:
                self._unanswered_since = min(self._unanswered_since, trio.current_time())
            self._wake.set()

        def answered() -> None:
            if self._asks:
                is_last = covered == self._asked
                self._unanswered_since = math.inf if is_last else trio.current_time()
            self._tap.read_up_to(covered)
            if self._tap.is_held:
                self._resume()

        return start_ping(self._connection, begun=begun, answered=answered)

    async def run(self) -> None:
        """Ask when it is time to; runs until cancelled."""
        while True:
            now = trio.current_time()
            if now >= self._unanswered_since + self._options.fence_timeout:
                await self._judge()
            if now >= self._acquit_at:
                self._acquit_at = math.inf
                self._tap.acquit()
                self._resume()
            if self._asks and self._unasked and not self._is_asking and now >= self._due_at:
                self._is_asking = True
                self.ping()
            self._wake = trio.Event()
            with trio.move_on_at(self._next_look_at):
                await self._wake.wait()

    async def _judge(self) -> None:
        """No answer came in time: lift the fences, if that says something about the peer."""
        # What we do not read cannot be held against it.
        since = await wait_reading(self._connection)
        now = trio.current_time()
        if now < self._unanswered_since + self._options.fence_timeout:
            return  # One came with the first that was read.
        if since > self._unanswered_since:
            self._unanswered_since = since
        elif self._connection.last_received > self._unanswered_since:
            self._asks = False
            self._unanswered_since = math.inf
            self._lifted(self._tap.lift_fence())
            self._resume()
        else:
            # Nothing came at all: that is for the heartbeat to judge.
            self._unanswered_since = now

    @property
    def _is_urgent(self) -> bool:
        return self._tap.has_trial or self._is_leaving()

    @property
    def _due_at(self) -> float:
        if self._unasked >= self._options.fence_every or self._is_urgent:
            return -math.inf
        return self._unasked_since + self._options.fence_interval

    @property
    def _next_look_at(self) -> float:
        is_due = self._asks and self._unasked and not self._is_asking
        due_at = self._due_at if is_due else math.inf
        return min(due_at, self._acquit_at, self._unanswered_since + self._options.fence_timeout)
