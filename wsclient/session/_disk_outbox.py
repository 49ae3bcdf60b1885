"""The outbox whose messages are on a disk as well (S1.9).

Everything is in memory as it is without a disk, and drawn from there; the disk is for the next
process.  What is added is the order of things:

- **Accepted when it is on the disk.**  A message takes its place in memory first, so that order
  and bounds are known at once, and is drawn by nobody until its commit has succeeded.  Whoever
  sends it waits for that, and gets the error where it fails; then it was never accepted.
- **Marked before it is written.**  What a crash leaves behind with a mark may have been written,
  and without one it was not.  A mark costs a commit, so :data:`AHEAD` messages get theirs together
  when a connection wants them; and one that is accepted while a connection waits for it is added
  with its mark, in one commit.
- **Removed when it has its outcome**, soon: nobody waits for that.
- **What is left at the end stays**, and is ``STORED``.  Marks of what was not written are taken
  back; where the disk does not answer any more, the next process takes those messages for written,
  and so they are ``LOST_UNKNOWN`` here, too.

Room is made before the disk is asked: what ``DROP_OLDEST`` or ``CONFLATE`` has dropped for a
message stays dropped where the disk then refuses that message.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import trio

from wsclient.connection import open_background_nursery
from wsclient.errors import OutboxError, OutboxIOError
from wsclient.events import Delivery, Outcome
from wsclient.options import DeliveryOptions, Limits

from ._journal import Item, Journal
from ._outbox import Entry, Outbox
from ._receipt import Progress, Receipt
from ._storage import Storage, Stored

AHEAD: Final = 256
"""Messages that share the commit of their marks; and that may be added with one and not drawn.
Twice as many, at most, does a crash make unknown that were not written."""

LEAVING: Final = 0.4
"""Seconds that the disk has in the end: with a cancelled sender's patience, the connection's last
word, and closing the file, leaving takes two."""

_NEVER_WRITTEN: Final = (Outcome.CANCELLED, Outcome.DROPPED, Outcome.EXPIRED)


class Record:
    """What the disk has of an entry."""

    __slots__ = ("id", "is_awaited", "is_kept", "is_marked", "item")

    def __init__(self, id: str, *, is_kept: bool = False, is_marked: bool = False) -> None:
        self.id = id
        self.item: Item | None = None
        """Its way there, if this process has sent it."""
        self.is_awaited = True
        """Whether its sender waits for the disk."""
        self.is_kept = is_kept
        self.is_marked = is_marked


class DiskOutbox(Outbox):
    """An :class:`Outbox` that a later process finds again.

    Resource handling: whoever has called :meth:`load`, and got no error, calls :meth:`aclose`.

    Args:
        storage: The disk.
        limits: As for :class:`Outbox`; they count what is found, too.
        options: As for :class:`Outbox`.
        overflowed: As for :class:`Outbox`.
        wait_scope: As for :class:`Outbox`.
        restored: Told how many messages were found that are to be sent, that may have been written,
            and whose time was over; if there were any.
        troubled: Told what is wrong with the disk, and by ``None`` that it works again.
        wake: Called when there is something to draw.
    """

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        options: DeliveryOptions,
        *,
        overflowed: Callable[[int], object],
        restored: Callable[[int, int, int], object],
        troubled: Callable[[OutboxError | None], object],
        wake: Callable[[], object],
        wait_scope: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__(limits, options, overflowed=overflowed, wait_scope=wait_scope)
        self._journal = Journal(storage, tell=troubled, run_sync=storage.run_sync)
        self._restored = restored
        self._wake = wake
        self._now = storage.now
        self._ahead: dict[Entry, Record] = {}
        """What has its mark, or will have it, and was not drawn."""
        self._is_wanted = False
        """Whether a connection has drawn all that it could."""
        self._numbers = itertools.count()
        self._closing = trio.Lock()
        self._is_closed = False

    @property
    def trouble(self) -> OutboxError | None:
        """Why the last commit failed; ``None`` if it did not."""
        return self._journal.trouble

    # From one process to the next.

    async def load(self) -> None:
        """Find what an earlier process has left.

        Raises:
            OutboxError: It cannot be had.
            ValueError: Some of it is to be acknowledged, and it is not known how.
        """
        try:
            self._restore(await self._journal.open())
        except BaseException:
            await self._journal.aclose(LEAVING)
            raise

    def _restore(self, found: list[Stored]) -> None:
        if self.options.acknowledgement is None and any(
            stored.delivery is Delivery.ACKED for stored in found
        ):
            raise ValueError(
                "the outbox on disk holds messages sent as Delivery.ACKED: open the channel with"
                " delivery=DeliveryOptions(acknowledgement=…), as the one that sent them"
            )
        # Whatever a strategy raises comes before the first change.
        for stored, entry in [(stored, self._entry_of(stored)) for stored in found]:
            self._count(entry)
            entry.record = Record(stored.id, is_kept=True, is_marked=stored.begun)
            if stored.begun:
                entry.attempts = stored.attempts
                entry.receipt._advance(Progress.BEGUN)
                if not entry.goes_again:
                    self.resolve(entry, Outcome.LOST_UNKNOWN)
                    continue
            if entry.expires_at <= trio.current_time():
                self.resolve(entry, Outcome.EXPIRED)
                continue
            self._waiting.append(entry)
            self._note_queued(entry)
            if entry.key is not None:
                self._by_key[entry.key] = entry
            if entry.id is not None and stored.begun:
                # Its acknowledgement may come before it goes again.
                self._unacked[entry.id] = entry
        if found:
            lost, expired = self.outcomes[Outcome.LOST_UNKNOWN], self.outcomes[Outcome.EXPIRED]
            self._restored(self.open, lost, expired)

    def _entry_of(self, stored: Stored) -> Entry:
        message, id = stored.message, None
        if stored.delivery is Delivery.ACKED:
            id = stored.id
            strategy = self.options.acknowledgement
            message = strategy.mark(message, id, redelivered=stored.begun)
        expires_at = math.inf
        if stored.expires_at is not None:
            expires_at = trio.current_time() + stored.expires_at - self._now()
        return Entry(self, message, stored.delivery, expires_at, stored.key, id, stored.message)

    async def run(self) -> None:
        """Bring to the disk what is to go there; runs until cancelled.

        Raises:
            OutboxError: The disk is of no use any more.
        """
        async with open_background_nursery() as nursery:
            nursery.start_soon(self.expire)
            await self._journal.run()

    async def aclose(self) -> None:
        """Bring the disk to what is known, and close it; from now on nothing is drawn.

        Not cut short by a cancellation, and bounded.
        """
        with trio.CancelScope(shield=True):
            async with self._closing:  # Who comes second waits as long.
                if not self._is_closed:
                    self._is_closed = True
                    for entry, record in list(self._ahead.items()):
                        self._unmark(entry, record)
                    await self._journal.aclose(LEAVING)

    def _unmark(self, entry: Entry, record: Record) -> None:
        if record.is_kept:
            self._journal.unmark_soon([record.id], lambda: self._ahead.pop(entry, None))

    def _left_as(self, entry: Entry) -> Outcome:
        record = entry.record
        if record is None or not record.is_kept:
            return super()._left_as(entry)
        if not entry.goes_again and entry in self._ahead:
            # Its mark is there, or may be.
            entry.receipt._advance(Progress.BEGUN)
        if not entry.goes_again and entry.receipt._progress is not Progress.ACCEPTED:
            return Outcome.LOST_UNKNOWN
        return Outcome.STORED

    # Senders.

    async def accept(self, entry: Entry) -> Receipt:
        """Accept a message, and return when it is on the disk; see :meth:`Outbox.accept`.

        Raises:
            OutboxIOError: It was not accepted, though a later process may find it.
            OutboxError: It was not accepted.
            OutboxFull, BaseException: As :meth:`Outbox.accept`.
        """
        receipt = await super().accept(entry)
        record = entry.record
        if record is None or record.item is None:
            return receipt
        record.is_awaited = True
        try:
            await self._journal.wait(record.item)
        except BaseException as error:
            self._retract(entry)
            if isinstance(error, trio.ClosedResourceError) and self._refusal is not None:
                raise self._refusal() from None  # It says why.
            raise
        return receipt

    def accept_nowait(self, entry: Entry) -> Receipt:
        """Accept a message; it goes to the disk soon, and is written after that.

        If the disk refuses it, its outcome is ``DROPPED``, or ``LOST_UNKNOWN`` where a later
        process may find it.

        Raises:
            trio.WouldBlock, OutboxFull, BaseException: As :meth:`Outbox.accept_nowait`.
            OutboxError: The disk takes nothing more.
        """
        receipt = super().accept_nowait(entry)
        record = entry.record
        if record is not None and record.item is not None:
            if record.item.error is not None:
                self._retract(entry)
                raise record.item.error
            record.is_awaited = False
        return receipt

    def _count(self, entry: Entry) -> None:
        super()._count(entry)
        # What is retracted counts no more; its number is not given again.
        entry.number = next(self._numbers)

    def _add(self, entry: Entry, replaced: Entry | None = None) -> None:
        super()._add(entry)
        # Before whoever gets the room of another: the order is the disk's, too.
        if entry.delivery is not Delivery.DIRECT:
            self._put_on_disk(entry)
        if replaced is not None:
            self._drop(replaced)

    def _put_on_disk(self, entry: Entry) -> None:
        record = entry.record = Record(entry.id or secrets.token_hex(8))
        if self._is_wanted and len(self._ahead) < AHEAD:
            record.is_marked = True
            self._ahead[entry] = record
        expires_at = None
        if entry.expires_at < math.inf:
            expires_at = self._now() + entry.expires_at - trio.current_time()
        stored = Stored(
            id=record.id,
            message=entry.plain,
            delivery=entry.delivery,
            key=entry.key,
            expires_at=expires_at,
            attempts=int(record.is_marked),
        )
        record.item = self._journal.add_soon(
            stored,
            lambda: self._kept(entry, record),
            lambda error: self._not_kept(entry, record, error),
        )

    def _kept(self, entry: Entry, record: Record) -> None:
        record.is_kept = True
        record.item = None
        if not entry.is_open:
            self._journal.remove_soon(record.id, is_urgent=True)
        elif self._is_closed and record.is_marked:
            self._unmark(entry, record)
        self._wake()

    def _not_kept(self, entry: Entry, record: Record, error: Exception) -> None:
        if record.is_awaited:
            self._retract(entry)
        elif isinstance(error, OutboxIOError):
            entry.receipt._advance(Progress.BEGUN)
            self.resolve(entry, Outcome.LOST_UNKNOWN)
        else:
            self.resolve(entry, Outcome.DROPPED)
        self._wake()

    def _retract(self, entry: Entry) -> None:
        """It was never accepted."""
        if self._take_out(entry, Outcome.CANCELLED):
            self.accepted -= 1
            self._wake()

    # Outcomes.

    def _take_out(self, entry: Entry, outcome: Outcome) -> bool:
        if not super()._take_out(entry, outcome):
            return False
        self._ahead.pop(entry, None)
        record = entry.record
        if record is not None and record.is_kept and outcome is not Outcome.STORED:
            # A later process must not send what was taken back.
            self._journal.remove_soon(record.id, is_urgent=outcome in _NEVER_WRITTEN)
        return True

    # Connections.

    def peek(self) -> Entry | None:
        """The next message that may be written: that has its mark."""
        entry = None if self._is_closed else super().peek()
        record = None if entry is None else entry.record
        if record is not None and not (record.is_kept and record.is_marked):
            self._mark_more()
            entry = None
        self._is_wanted = entry is None
        return entry

    def draw(self, entry: Entry) -> None:
        """Take ``entry`` as being written from now on; see :meth:`Outbox.draw`."""
        super().draw(entry)
        self._ahead.pop(entry, None)
        if entry.record is not None and entry.attempts > 1:
            # Counted there, too; its first mark says what matters.
            self._journal.mark_soon([entry.record.id])

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Let drawn messages be drawn again; see :meth:`Outbox.put_back`."""
        super().put_back(entries)
        self._is_wanted = False

    def _mark_more(self) -> None:
        """Mark what is next in the queue, as far as it is on the disk."""
        fresh = []
        for entry in itertools.islice(self._waiting, AHEAD):
            record = entry.record
            # What has its outcome is passed over in the queue, and may be off the disk.
            if record is None or not entry.is_open or entry in self._ahead or record.is_marked:
                continue
            if not record.is_kept:
                break
            self._ahead[entry] = record
            fresh.append(record)
        if fresh:
            self._journal.mark_soon([record.id for record in fresh], lambda: self._marked(fresh))

    def _marked(self, records: list[Record]) -> None:
        for record in records:
            record.is_marked = True
        self._wake()
