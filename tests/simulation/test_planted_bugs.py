"""Bugs that are planted here are found within 500 schedules: the simulator can see (S8).

Each is a patch of the product; none is in it.
"""

from collections import deque

import attrs
import pytest
import trio

from wsclient.connection import _transport, _writer
from wsclient.errors import ConnectionClosed
from wsclient.events import Outcome
from wsclient.session import (
    _backoff,
    _dedupe,
    _disk_outbox,
    _journal,
    _line,
    _outbox,
    _receipt,
    _standby,
    _tap,
)
from wsclient.testing._simulation import simulate

SCHEDULES = 500
MESSAGES = 50


@pytest.fixture
def found(monkeypatch):
    """The invariants that a planted bug breaks in the first schedule that breaks one of ``these``.

    The same schedule is clean once the bug is taken out again.
    """

    def found(*these):
        for seed in range(1, SCHEDULES + 1):
            run = simulate(seed, MESSAGES)
            broken = {breach.invariant for breach in run.breaches}
            if broken & set(these):
                monkeypatch.undo()

                assert () == simulate(seed, MESSAGES).breaches

                return True
        return False

    return found


def test_s8_acknowledgement_before_the_write_is_found(monkeypatch, found):
    pull = _tap.Tap.pull

    def pull_and_certify(self):
        entry = pull(self)
        self.read_up_to(self.drawn)
        return entry

    monkeypatch.setattr(_tap.Tap, "pull", pull_and_certify)

    assert found("I2")


def test_s8_second_write_of_what_was_promised_once_is_found(monkeypatch, found):
    monkeypatch.setattr(_outbox.Entry, "goes_again", True)

    assert found("I4")


def test_s8_backoff_that_is_reset_when_tcp_connects_is_found(monkeypatch, found):
    next_delay = _backoff.Backoff.next_delay

    def reset_first(self, error):
        if isinstance(error, ConnectionClosed):  # It was connected, then.
            self.reset()
        return next_delay(self, error)

    monkeypatch.setattr(_backoff.Backoff, "next_delay", reset_first)

    assert found("I11")


def test_s8_cancelled_send_that_is_accepted_all_the_same_is_found(monkeypatch, found):
    accept = _outbox.Outbox.accept

    async def swallow(self, entry):
        try:
            return await accept(self, entry)
        except trio.Cancelled:
            self._add(entry)
            raise

    monkeypatch.setattr(_outbox.Outbox, "accept", swallow)

    assert found("I3")


def test_s8_cancellation_that_is_swallowed_on_the_way_out_is_found(monkeypatch, found):
    close = _line.Line.close

    async def close_without_haste(self):
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        await close(self)

    monkeypatch.setattr(_line.Line, "close", close_without_haste)

    assert found("I9")


def test_s8_pong_that_certifies_what_an_older_connection_wrote_is_found(monkeypatch, found):
    taps = _tap.Tap.__init__, _tap.Tap.close
    stale = deque()

    def open_with_stale(self, outbox, **options):
        taps[0](self, outbox, **options)
        while stale:
            entry = stale.popleft()
            if entry._outbox is outbox:
                entry.tap = self
                self._in_flight.append(entry)
                self.drawn += 1

    def close_without_settling(self, code=None, **how):
        stale.extend(entry for entry in self._in_flight if not entry.goes_again)
        self._in_flight = deque(entry for entry in self._in_flight if entry.goes_again)
        taps[1](self, code, **how)

    monkeypatch.setattr(_tap.Tap, "__init__", open_with_stale)
    monkeypatch.setattr(_tap.Tap, "close", close_without_settling)

    assert found("I2")


def tail_of(data):
    """The beginning of a frame with which a server's bytes end; nothing, if they end well."""
    while data:
        if len(data) < 2:
            return data
        size, head = data[1], 2
        if size > 125:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[2:head])
        if len(data) < head + size:
            return data
        data = data[head + size :]
    return data


def test_s8_part_of_a_frame_that_is_carried_over_is_found(monkeypatch, found):
    receive = _transport.StreamTransport.receive
    heard = {}
    carried = []

    async def receive_with_the_rest(self):
        data, size = await receive(self)
        data = bytes(data[:size])
        if self not in heard:
            # The answer to the opening handshake comes in one piece, or is not looked at.
            _, end, frames = data.partition(b"\r\n\r\n")
            if end:
                rest = carried.pop() if carried else b""
                data = data[: len(data) - len(frames)] + rest + frames
                heard[self] = rest + frames
        elif data:
            heard[self] += data
        else:
            carried[:] = [tail_of(heard[self])]
        return data, len(data)

    monkeypatch.setattr(_transport.StreamTransport, "receive", receive_with_the_rest)

    assert found("I13")


def test_s8_receipt_that_is_resolved_twice_is_found(monkeypatch, found):
    pull, close = _tap.Tap.pull, _tap.Tap.close
    drawn = {}

    def pull_and_remember(self):
        entry = pull(self)
        if entry is not None:
            drawn.setdefault(self, []).append(entry)
        return entry

    def close_and_settle_all(self, *code, **how):
        close(self, *code, **how)
        for entry in drawn.pop(self, ()):
            self._outbox.resolve(entry, Outcome.LOST_UNKNOWN)

    def resolve_again(self, outcome):
        self._outcome = outcome
        return True

    monkeypatch.setattr(_tap.Tap, "pull", pull_and_remember)
    monkeypatch.setattr(_tap.Tap, "close", close_and_settle_all)
    monkeypatch.setattr(_receipt.Receipt, "_resolve", resolve_again)

    assert found("I1")


def test_s8_pongs_without_bound_are_found(monkeypatch, found):
    monkeypatch.setattr(_writer, "_PONG_QUEUE_SIZE", 10**9)

    assert found("I10")


def test_s8_message_of_two_connections_that_is_given_twice_is_found(monkeypatch, found):
    monkeypatch.setattr(_dedupe.Dedupe, "is_repeated", lambda self, message: False)

    assert found("I7")


def test_s6_3_second_connection_that_proves_nothing_and_is_trusted_is_found(monkeypatch, found):
    monkeypatch.setattr(_standby.Standby, "covers", property(lambda self: self.line is not None))

    assert found("I8")


def test_s6_3_second_connection_that_does_not_wait_for_the_first_is_found(monkeypatch, found):
    async def take_it_for_answered(connection, ping):
        ping.answered = True
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(_standby, "_wait_answered", take_it_for_answered)

    assert found("I7")


def test_s1_9_message_that_is_accepted_before_it_is_on_the_disk_is_found(monkeypatch, found):
    monkeypatch.setattr(_disk_outbox.DiskOutbox, "accept", _outbox.Outbox.accept)

    assert found("I1")


def test_s1_9_message_that_is_written_before_it_is_marked_is_found(monkeypatch, found):
    peek = _disk_outbox.DiskOutbox.peek

    def peek_impatiently(self):
        for entry in self._waiting:
            if entry.record is not None and entry.record.is_kept and not entry.record.is_marked:
                self._journal.mark_soon([entry.record.id])
                entry.record.is_marked = True
        return peek(self)

    monkeypatch.setattr(_disk_outbox.DiskOutbox, "peek", peek_impatiently)

    assert found("I4")


def test_s1_9_message_that_is_written_again_after_a_crash_is_found(monkeypatch, found):
    open_ = _journal.Journal.open

    async def open_without_marks(self):
        return [attrs.evolve(stored, attempts=0) for stored in await open_(self)]

    monkeypatch.setattr(_journal.Journal, "open", open_without_marks)

    assert found("I4")


def test_s1_9_message_that_stays_on_the_disk_once_it_is_acknowledged_is_found(monkeypatch, found):
    take_out = _disk_outbox.DiskOutbox._take_out

    def take_out_of_memory(self, entry, outcome):
        if outcome is Outcome.ACKED and entry.record is not None:
            entry.record.is_kept = False
        return take_out(self, entry, outcome)

    monkeypatch.setattr(_disk_outbox.DiskOutbox, "_take_out", take_out_of_memory)

    assert found("disk")


def test_s1_9_messages_that_are_found_in_another_order_are_found(monkeypatch, found):
    open_ = _journal.Journal.open

    async def open_backwards(self):
        return list(reversed(await open_(self)))

    monkeypatch.setattr(_journal.Journal, "open", open_backwards)

    assert found("I6")


def test_s1_9_message_that_has_another_id_after_a_crash_is_found(monkeypatch, found):
    entry_of = _disk_outbox.DiskOutbox._entry_of

    def entry_of_another(self, stored):
        return entry_of(self, attrs.evolve(stored, id=stored.id[::-1]))

    monkeypatch.setattr(_disk_outbox.DiskOutbox, "_entry_of", entry_of_another)

    assert found("surprise")


def test_s1_9_commit_that_fails_and_is_taken_for_done_is_found(monkeypatch, found):
    store = _journal.Journal._store

    async def store_and_hope(self, items):
        await store(self, items)

    monkeypatch.setattr(_journal.Journal, "_store", store_and_hope)

    assert found("disk")
