"""Is anybody at work behind the peer's endpoint?

A pong comes from the peer's WebSocket endpoint, and that may be a proxy, or a server whose
application hangs.  Two things tell more, for a service that has them: a ping of its own protocol,
and a stream that always says something.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from wsclient.connection import (
    Ping,
    WebSocketConnection,
    asked_at,
    forget_ping,
    open_background_nursery,
    progressed_at,
    wait_reading,
)
from wsclient.errors import ConnectionClosed, HeartbeatTimeout
from wsclient.options import ApplicationPing, HeartbeatOptions

from ._heartbeat import Judge, interval


class Ear:
    """Hears every message of a connection, in its reader's task.

    Args:
        match: Whether a message is the answer to a ping; ``None``: none is.
        failed: Told what the user's function has raised.
    """

    def __init__(
        self, match: Callable[[str | bytes], bool] | None, failed: Callable[[Exception], object]
    ) -> None:
        self._match = match
        self._failed = failed
        self.heard_at = trio.current_time()
        """When the last message came, or this began (trio's clock, seconds)."""
        self.messages = 0
        self.answers = 0
        self.changed = trio.Event()
        """Set, and replaced, at every message."""

    def hear(self, message: str | bytes) -> bool:
        """Hear a message; whether it goes no further."""
        self.heard_at = trio.current_time()
        self.messages += 1
        is_answer = self._match is not None and self._is_answer(message, self._match)
        self.answers += is_answer
        self.changed.set()
        self.changed = trio.Event()
        return is_answer

    def _is_answer(self, message: str | bytes, match: Callable[[str | bytes], bool]) -> bool:
        try:
            return bool(match(message))
        except Exception as error:  # A user's function may raise anything.
            self._failed(error)
            return False


class ApplicationHeartbeat:
    """Sends the application's pings, and waits for their answers.

    Args:
        connection: On which.
        ping: What to send, and how often.
        options: How the interval varies.
        judge: Says whether an answer came in time.
        ear: Hears it.
        failed: Told what the user's function has raised.
        spend: Told that a ping goes out, which counts where the rate of sending is limited.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        ping: ApplicationPing,
        options: HeartbeatOptions,
        judge: Judge,
        ear: Ear,
        failed: Callable[[Exception], object],
        spend: Callable[[], object] = lambda: None,
    ) -> None:
        self._connection = connection
        self._ping = ping
        self._options = options
        self._judge = judge
        self._ear = ear
        self._failed = failed
        self._spend = spend

    async def run(self) -> HeartbeatTimeout:
        """Ask until no answer comes in time.

        Returns:
            What to say about it.
        """
        while True:
            await trio.sleep(interval(self._ping.interval, self._options))
            if not await self.ask():
                return HeartbeatTimeout(
                    f"the application did not answer a ping within {self._ping.timeout:g} s"
                )

    async def ask(self) -> bool:
        """Ask once; whether it was answered, or no answer is expected."""
        try:
            message = self._ping.build()
            if not isinstance(message, (str, bytes)):
                raise TypeError(f"a ping must be str or bytes, not {type(message).__name__}")
            if isinstance(message, str):
                message.encode()  # A lone surrogate is a mistake of the function's, too.
        except Exception as error:  # A user's function may raise anything.
            self._failed(error)
            return True  # Nobody was asked.
        self._spend()
        ear = self._ear
        answers = ear.answers
        sent_at: float | None = None

        async def send() -> None:
            nonlocal sent_at
            try:
                await self._connection.send_message(message)
            except ConnectionClosed:
                return  # Whoever waits for that is told.
            sent_at = trio.current_time()

        if self._ping.match is None:
            await send()
            return True
        async with open_background_nursery() as nursery:
            nursery.start_soon(send)
            await self._judge.hears(
                lambda: ear.answers > answers,
                asked_at=lambda: progressed_at(self._connection) if sent_at is None else sent_at,
                timeout=self._ping.timeout,
                look_at=math.inf,
                wait=lambda: ear.changed.wait(),
            )
        return ear.answers > answers


class SilenceWatch:
    """Leaves a connection on which no message comes for too long, if nobody answers for it.

    Args:
        connection: Which.
        options: How long is too long.
        judge: Says whether an answer came in time.
        ear: Hears messages.
        application: Asks the application; ``None``: only its endpoint can be asked.
        send_ping: Asks that.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        options: HeartbeatOptions,
        judge: Judge,
        ear: Ear,
        application: ApplicationHeartbeat | None,
        send_ping: Callable[[], Ping],
    ) -> None:
        self._connection = connection
        self._options = options
        self._judge = judge
        self._ear = ear
        self._application = application
        self._send_ping = send_ping

    async def run(self) -> HeartbeatTimeout:
        """Wait until there was no message for too long, and nobody had a good word for that.

        Returns:
            What to say about it.
        """
        limit = self._options.max_silence
        since = self._ear.heard_at
        while True:
            await trio.sleep_until(since + limit)
            # What lies unread may be a message.
            since = max(since, self._ear.heard_at, await wait_reading(self._connection))
            if trio.current_time() < since + limit:
                continue
            found = await self._probe()
            if found is not None:
                return HeartbeatTimeout(f"no message came for {limit:g} s, and {found}")
            since = max(trio.current_time(), self._ear.heard_at)

    async def _probe(self) -> str | None:
        """Ask; return what speaks against the peer."""
        ear = self._ear
        messages = ear.messages
        if self._application is not None:
            answered = await self._application.ask()
            if answered or ear.messages > messages:
                return None
            return "the application did not answer a ping"
        ping = self._send_ping()

        async def wait() -> None:
            await ping.resolved.wait()
            if not ping.answered:
                await trio.sleep_forever()  # The connection ends: there is nothing to look at.

        try:
            answered = await self._judge.hears(
                lambda: ping.answered or ear.messages > messages,
                asked_at=lambda: asked_at(self._connection, ping),
                timeout=self._options.timeout,
                look_at=math.inf,
                wait=wait,
            )
        finally:
            forget_ping(self._connection, ping)
        if ear.messages > messages:
            return None
        return "the peer answers pings" if answered else "the peer did not answer a ping"
