"""Who reads: the reader's task, or a taker in its place.

A message that one task reads for another costs a turn of the scheduler: the taker runs once the
reader waits again.  In a conversation, where each message is the answer to the last, that is a
third of the time of a round trip.  So a taker that finds nothing relieves the reader: it waits for
the socket itself, and what comes is understood in its own task, in the step in which it returns.

What keeps this safe:

1. *The reader rests only while somebody is bound to wake it*: a taker that it has just woken, or
   one that relieves it.  Whichever way such a taker leaves, by a message or cancelled, it wakes the
   reader; and if it is back before that runs, the reader goes on resting.  So nothing that comes is
   left unread while a taker is busy with something else: pings are answered.
2. *A taker takes messages only.*  A ping, a close frame, a violation, the end of the stream, more
   than a batch: all of that is handed to the reader, as what the taker has understood of it.
3. *No await lies between reading and putting what was read where it belongs*, so that there is
   nothing that cancellation could lose.
4. *Who came first is served first*: nobody relieves the reader while another taker waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from wsclient.protocol import ClientProtocol, Fact

from ._mailbox import Mailbox
from ._signal import Lot
from ._transport import SocketTransport


class Relief:
    """Takers that read in the place of a connection's reader.

    Args:
        transport: What they wait for.
        protocol: What understands it.
        mailbox: Where messages go, and where takers wait that do not relieve the reader.
        decode: Called with what was read; returns what it amounts to.
    """

    __slots__ = (
        "_decode",
        "_handed",
        "_is_resting",
        "_mailbox",
        "_protocol",
        "_rested",
        "_transport",
        "_waiting",
        "is_on",
        "is_wanted",
    )

    def __init__(
        self,
        transport: SocketTransport,
        protocol: ClientProtocol,
        mailbox: Mailbox[Any],
        decode: Callable[[bytes | bytearray | None, int], list[Fact]],
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._mailbox = mailbox
        self._decode = decode
        mailbox.wait = self.wait
        self._rested = Lot()
        self._is_resting = False
        self._waiting = 0
        self._handed: list[Fact] | None = None
        self.is_on = False
        """Whether a taker reads."""
        self.is_wanted = True
        """False once messages go elsewhere than into the mailbox."""

    # The reader's side.

    async def rest(self) -> list[Fact] | None:
        """Let takers read, if any was woken just now.

        Returns:
            What a taker has read that is the reader's to answer; ``None`` if there is no such thing
            and the reader shall read.
        """
        if self._waiting == self._mailbox.tasks_waiting:
            return None  # Nobody was.
        self._is_resting = True
        try:
            await self._rested.park()
            while self.is_on:
                await self._rested.park()
        finally:
            self._is_resting = False
        handed, self._handed = self._handed, None
        return handed

    def interrupt(self) -> None:
        """Let a taker that reads look again whether it shall."""
        if self.is_on:
            self._transport.interrupt()

    # The takers' side.

    def wait(self) -> Awaitable[None]:
        """Wait until the mailbox may have something."""
        is_free = self._is_resting and not self.is_on and not self._mailbox.tasks_waiting
        return self._read() if is_free else self._wait()

    async def _wait(self) -> None:
        self._waiting += 1
        try:
            await self._mailbox.park()
        finally:
            self._waiting -= 1
            self._rested.unpark()

    async def _read(self) -> None:
        self.is_on = True
        try:
            while not self._mailbox.has_ended:
                await self._transport.wait_readable()
                received = self._transport.receive_nowait(self._protocol.get_buffer)
                if received is not None and self._take(*received):
                    return
        finally:
            self.is_on = False
            self._rested.unpark()

    def _take(self, data: bytes | bytearray | None, size: int) -> bool:
        """Put what was read where it belongs; whether that is for anyone."""
        if not size:
            self._is_resting = False  # The reader will find the end as well.
            return True
        facts = self._decode(data, size)
        if self._protocol.batch_controls or self._protocol.has_more or not self.is_wanted:
            self._handed = facts
            self._is_resting = False
            return True
        self._mailbox.bring(facts, self._protocol.batch_size)
        return bool(facts)
