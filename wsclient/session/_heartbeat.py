"""Is the peer still there?

Liveness is bytes, not pongs.  A ping asks for a sign of life, and whatever comes after it is one: a
pong may queue behind a large message that is itself the best proof that the peer lives.

Whose fault is it if nothing comes?  Ours, in three cases, and then nobody is condemned:

- the reader waits for a slow consumer: what would prove the peer alive lies unread in the socket.
  When reading goes on, the peer gets its full time again;
- the ping is not written: it may wait behind a large message that the peer takes slowly, and as
  long as it takes more of it, it lives;
- we are late ourselves (something has kept the event loop, or the process was stopped), or bytes
  wait to be read.  Then the peer gets its time once more, once.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from wsclient.connection import (
    Ping,
    WebSocketConnection,
    asked_at,
    forget_ping,
    has_unread,
    start_ping,
    wait_reading,
)
from wsclient.errors import HeartbeatTimeout
from wsclient.options import HeartbeatOptions

STALL: Final = 0.5
"""Seconds by which a timer of ours may be late before its judgement counts for nothing."""

PROBE_TIMEOUT: Final = 5.0
"""Seconds within which a peer must answer that is asked because the machine has slept: more than a
network needs to come back, and less than anyone wants to look at a dead screen."""


class Judge:
    """Says whether a peer has answered in time, and is fair.

    Args:
        connection: The peer's.
        stalled: Told by how many seconds we were late, where that has saved the peer.
    """

    def __init__(self, connection: WebSocketConnection, stalled: Callable[[float], object]) -> None:
        self._connection = connection
        self._stalled = stalled

    async def hears(
        self,
        has_answered: Callable[[], bool],
        *,
        asked_at: Callable[[], float],
        timeout: float,  # noqa: ASYNC109  # It returns, not raises.
        look_at: float,
        wait: Callable[[], Awaitable[object]] = trio.sleep_forever,
    ) -> bool:
        """Wait for an answer, as long as is fair; whether it came.

        Args:
            has_answered: Whether it has come.
            asked_at: Since when the peer could answer.
            timeout: Seconds that it has for that.
            look_at: When to look first.
            wait: Returns when it is worth to look again.
        """
        deadline = trio.current_time() + timeout
        look_at = min(look_at, deadline)
        was_late = False
        while True:
            with trio.move_on_at(look_at):
                await wait()
            if has_answered():
                return True
            late = trio.current_time() - deadline
            if late < 0:
                look_at = deadline
                continue
            # Whoever was woken together with us may have the answer in hand.
            await trio.lowlevel.checkpoint()
            since = max(await wait_reading(self._connection), asked_at())
            look_at = deadline = max(deadline, since + timeout)
            if has_answered():
                return True
            if trio.current_time() < deadline:
                continue
            if was_late or not (late > STALL or has_unread(self._connection)):
                return False
            was_late = True
            look_at = deadline = trio.current_time() + timeout
            self._stalled(late)


class Heartbeat:
    """Pings a peer again and again.

    Args:
        connection: The peer's.
        options: How often, and how long to wait.
        judge: Says whether it answers.
        send_ping: Sends a ping.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        options: HeartbeatOptions,
        judge: Judge,
        send_ping: Callable[[], Ping] | None = None,
    ) -> None:
        self._connection = connection
        self._options = options
        self._judge = judge
        self._send_ping = send_ping or (lambda: start_ping(connection))
        self._scope = trio.CancelScope()
        self._timeout = options.timeout
        self.is_blocked = False
        """Whether the last ping could not even be written: the peer takes nothing."""

    def probe(self) -> None:
        """Ask at once, with less patience: it is likely that nobody is there."""
        self._timeout = min(self._options.timeout, PROBE_TIMEOUT)
        self._scope.cancel()

    async def run(self) -> HeartbeatTimeout:
        """Ask until the peer gives no sign of life in time.

        Returns:
            What to say about it.
        """
        with self._scope:
            await trio.sleep(interval(self._options.interval, self._options))
        while True:
            self._scope = trio.CancelScope()
            with self._scope:
                if not await self._ask(self._timeout):
                    break
        return HeartbeatTimeout(f"nothing came from the peer for {self._timeout:g} s after a ping")

    async def _ask(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Ask once, and wait until it is time for the next; whether the peer lives."""
        connection = self._connection
        ping = self._send_ping()
        try:
            began = trio.current_time()
            next_ping = began + interval(self._options.interval, self._options)
            lives = await self._judge.hears(
                lambda: connection.last_received >= began,
                asked_at=lambda: asked_at(connection, ping),
                timeout=timeout,
                look_at=next_ping,
            )
            self.is_blocked = ping.written_at is None
            if lives:
                self._timeout = self._options.timeout
                await trio.sleep_until(next_ping)
        finally:
            forget_ping(connection, ping)
        return lives


def interval(seconds: float, options: HeartbeatOptions) -> float:
    """Seconds until the next ping."""
    # The clients of a server that has come back should not ping in step.
    return seconds * random.uniform(1 - options.jitter, 1 + options.jitter)
