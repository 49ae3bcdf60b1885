"""How messages go out on one connection: what it draws, what is proven, and how fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from wsclient import events
from wsclient.connection import (
    Inbox,
    Ping,
    WebSocketConnection,
    attach,
    open_background_nursery,
)
from wsclient.events import DeadLetter, Event
from wsclient.options import DeliveryOptions

from ._fences import Fences
from ._outbox import Entry, Outbox
from ._rate import Bucket
from ._receipt import Receipt
from ._tap import Tap

LAST_PROOF: Final = 1.0
"""Seconds for which a connection that is left may owe the proof of what was written to it."""


class Sending:
    """Lets ``connection`` write what waits in ``outbox``, from :meth:`begin` to :meth:`close`.

    Args:
        connection: What is written to.
        outbox: Where messages wait.
        bucket: Says how fast they may go; ``None``: as fast as the peer reads.
        channel: The channel's name, for events.
        epoch: The connection's number.
        observe: Told what happens.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        outbox: Outbox,
        bucket: Bucket | None,
        *,
        channel: str,
        epoch: int,
        observe: Callable[[Event], None],
    ) -> None:
        self._connection = connection
        self._outbox = outbox
        self._bucket = bucket
        self._channel = channel
        self._epoch = epoch
        self._observe = observe
        self._options: DeliveryOptions = outbox.options
        self._paused = trio.Event()
        self._is_finishing = False
        self.wake: Callable[[], None] = _nothing
        """To be called when the outbox has something to write."""
        self._tap = Tap(
            outbox,
            is_fenced=self._options.fence,
            may_draw=None if bucket is None else lambda: self._may_draw(bucket),
            quarantine=self._quarantine,
            resume=lambda: self.wake(),
        )
        self._fences = Fences(
            connection,
            self._tap,
            self._options,
            is_leaving=lambda: self._is_finishing or outbox.is_leaving or outbox.hurried > 0,
            lifted=self._lifted,
            resume=lambda: self.wake(),
            spend=self.spend,
        )

    def begin(self, inbox: Inbox) -> None:
        """Let messages flow, both ways."""
        self.wake = attach(self._connection, inbox, self._tap)
        if self._tap.is_held:
            # What was before it may have been written there and then.
            self.wake()

    def receipts(self) -> list[Receipt]:
        """Of what is in flight."""
        return [entry.receipt for entry in self._tap.entries()]

    def hurry(self) -> None:
        """Prove at once what can be proven of what was written."""
        self._fences.hurry()

    def acknowledged(self) -> None:
        """The peer has spoken on a message: one that had to wait for that may go now."""
        if self._tap.is_held:
            self.wake()

    def ping(self) -> Ping:
        """Send a ping for the heartbeat; where there are fences, it is one."""
        return self._fences.ping()

    def spend(self) -> None:
        """Note that a ping goes out, which counts towards the rate."""
        if self._bucket is not None:
            self._bucket.spend(trio.current_time())

    async def run(self) -> None:
        """Ask for proofs, and keep the rate; runs until cancelled."""
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._fences.run)
            if self._bucket is not None:
                nursery.start_soon(self._pace, self._bucket)
            await trio.sleep_forever()

    async def finish(self) -> None:
        """Write nothing more, and wait for the proof of what was written: a second at most."""
        self._tap.pause()
        self._is_finishing = True
        self._fences.hurry()
        with trio.move_on_after(LAST_PROOF):
            await self._tap.settled.wait()

    def close(
        self, code: int | None = None, *, is_lost: bool = True, is_followed: bool = False
    ) -> None:
        """Write nothing more, and settle what was written; see :meth:`Tap.close`."""
        self.wake = _nothing
        self._tap.close(code, is_lost=is_lost, is_followed=is_followed)

    def _may_draw(self, bucket: Bucket) -> bool:
        if bucket.take(trio.current_time()):
            return True
        self._paused.set()
        return False

    async def _pace(self, bucket: Bucket) -> None:
        while True:
            await self._paused.wait()
            await trio.sleep_until(bucket.free_at(trio.current_time()))
            self._paused = trio.Event()
            self.wake()

    def _lifted(self, messages: int) -> None:
        self._observe(
            events.FencesLifted(channel=self._channel, epoch=self._epoch, messages=messages)
        )

    def _quarantine(self, entry: Entry, cause: str) -> None:
        self._observe(
            events.MessageQuarantined(
                channel=self._channel, id=entry.id, attempts=entry.attempts, cause=cause
            )
        )
        hook = self._options.dead_letter
        if hook is None:
            return
        letter = DeadLetter(message=entry.plain, id=entry.id, attempts=entry.attempts, cause=cause)
        try:
            hook(letter)
        except Exception as error:  # A user's function may raise anything.
            self._observe(
                events.HandlerFailed(
                    channel=self._channel,
                    handler=getattr(hook, "__qualname__", type(hook).__qualname__),
                    subject="dead letter",
                    error=error,
                )
            )


def _nothing() -> None:
    """There is no writer to wake."""
