"""The writer: the only one that writes."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from wsclient.connection._pings import Ping
from wsclient.connection._writer import SLICE_SIZE, WRITE_SIZE, Posted, Writer
from wsclient.protocol import ClientProtocol
from wsclient.protocol._machine import Input

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Stream(trio.abc.Stream):
    """Keeps each write; can hold one up, or fail."""

    def __init__(self):
        self.writes = []
        self.fails_with = None
        self.may_write = trio.Event()
        self.may_write.set()

    async def send_all(self, data):
        self.writes.append(bytes(data))
        await self.may_write.wait()
        if self.fails_with is not None:
            raise self.fails_with

    async def wait_send_all_might_not_block(self):
        raise NotImplementedError

    async def receive_some(self, max_bytes=None):
        raise NotImplementedError

    async def aclose(self):
        raise NotImplementedError


@attrs.define
class Message:
    """A message that a session sends."""

    message: str
    was_written: bool = False

    def written(self):
        self.was_written = True


class Source:
    def __init__(self, *messages):
        self.waiting = list(messages)
        self.pulled = []

    def pull(self):
        if not self.waiting:
            return None
        self.pulled.append(self.waiting.pop(0))
        return self.pulled[-1]


@pytest.fixture
async def stream():
    return Stream()


@pytest.fixture
async def writer(stream):
    return Writer(stream, ClientProtocol(max_message_size=100))


@pytest.fixture
def frames_of(take_frame):
    def frames_of(*writes):
        data = bytearray(b"".join(writes))
        frames = []
        while data:
            frames.append(take_frame(data))
        return frames

    return frames_of


def text(message):
    return Posted(Input.SEND_MESSAGE, message)


async def test_what_waits_is_written_at_once_in_order(stream, writer, nursery, frames_of):
    for posted in (
        text("a"),
        Posted(Input.SEND_PING, b"p"),
        Posted(Input.SEND_PONG, b""),
        text("b"),
    ):
        writer.post(posted)
    nursery.start_soon(writer.run)
    await trio.testing.wait_all_tasks_blocked()

    assert 1 == len(stream.writes)
    assert [(TEXT, b"a"), (PING, b"p"), (PONG, b""), (TEXT, b"b")] == frames_of(*stream.writes)


async def test_control_frames_go_first_and_the_source_last(stream, writer, nursery, frames_of):
    writer.source = Source(Message("source"))
    writer.post(text("caller"))
    writer.post_pong(b"1")
    writer.post_ping(Ping(b"2", 0))
    nursery.start_soon(writer.run)
    await trio.testing.wait_all_tasks_blocked()

    assert [(PONG, b"1"), (PING, b"2"), (TEXT, b"caller"), (TEXT, b"source")] == frames_of(
        *stream.writes
    )


async def test_a_poster_learns_when_its_last_byte_was_handed_over(stream, writer, nursery):
    stream.may_write = trio.Event()
    posted = text("a")
    writer.post(posted)
    nursery.start_soon(writer.run)
    await trio.testing.wait_all_tasks_blocked()

    assert (True, False) == (posted.begun, posted.is_written)

    stream.may_write.set()

    assert await posted.wait()


async def test_one_write_has_a_bounded_size(stream, writer, nursery, frames_of):
    source = writer.source = Source(*(Message("x" * 10_000) for _ in range(20)))
    stream.may_write = trio.Event()
    nursery.start_soon(writer.run)
    await trio.testing.wait_all_tasks_blocked()

    # What the writer has not pulled was certainly not written.
    assert 13 == len(source.waiting)
    assert WRITE_SIZE <= 7 * 10_000
    assert SLICE_SIZE == len(stream.writes[0])
    assert not any(message.was_written for message in source.pulled)

    stream.may_write.set()
    await trio.testing.wait_all_tasks_blocked()

    assert [(TEXT, b"x" * 10_000)] * 20 == frames_of(*stream.writes)
    assert all(message.was_written for message in source.pulled)


async def test_what_was_withdrawn_in_time_is_never_written(stream, writer, nursery, frames_of):
    stream.may_write = trio.Event()
    nursery.start_soon(writer.run)
    first, second, third = text("first"), text("second"), text("third")
    scopes = {}

    async def wait(posted):
        with trio.CancelScope() as scopes[posted]:
            await posted.wait()

    for posted in (first, second, third):
        writer.post(posted)
        nursery.start_soon(wait, posted)
        await trio.testing.wait_all_tasks_blocked()
    # The first is being written: too late for that one, which is written as a whole.
    scopes[first].cancel()
    scopes[second].cancel()
    await trio.testing.wait_all_tasks_blocked()
    stream.may_write.set()
    await trio.testing.wait_all_tasks_blocked()

    assert [(TEXT, b"first"), (TEXT, b"third")] == frames_of(*stream.writes)
    assert [False, True, False] == [posted.withdrawn for posted in (first, second, third)]


async def test_the_close_frame_is_the_last_and_what_waits_fails(stream, writer, nursery, frames_of):
    source = writer.source = Source(Message("source"))
    posted = text("waits")
    writer.post(posted)
    writer.post_pong(b"1")
    writer.post_close(4000, "bye")
    writer.post_close(1000, None)
    await writer.run()

    assert not await posted.wait()
    assert [] == source.pulled
    assert [(PONG, b"1"), (CLOSE, b"\x0f\xa0bye")] == frames_of(*stream.writes)
    assert writer.close_written.is_set()


async def test_the_close_frame_waits_for_the_write_under_way(stream, writer, nursery, frames_of):
    stream.may_write = trio.Event()
    posted = text("begun")
    writer.post(posted)
    nursery.start_soon(writer.run)
    await trio.testing.wait_all_tasks_blocked()
    writer.post_close(1000, None)
    await trio.testing.wait_all_tasks_blocked()

    assert [(TEXT, b"begun")] == frames_of(*stream.writes)

    stream.may_write.set()
    await writer.close_written.wait()

    assert await posted.wait()
    assert [(TEXT, b"begun"), (CLOSE, b"\x03\xe8")] == frames_of(*stream.writes)


async def test_after_a_close_frame_of_the_peer_no_pong_is_written(stream, frame, frames_of):
    protocol = ClientProtocol(max_message_size=100)
    writer = Writer(stream, protocol)
    protocol.receive_data(frame(PING, b"1") + frame(CLOSE))
    writer.post_pong(b"1")
    writer.post_close(1005, None)
    await writer.run()

    assert [(CLOSE, b"")] == frames_of(*stream.writes)


async def test_a_flood_of_pings_is_answered_with_the_newest_pongs(
    stream, writer, nursery, frames_of
):
    for number in range(10_000):
        writer.post_pong(b"%d" % number)
    nursery.start_soon(writer.run)
    await trio.testing.wait_all_tasks_blocked()

    assert [(PONG, b"%d" % number) for number in range(10_000 - 256, 10_000)] == frames_of(
        *stream.writes
    )


@pytest.mark.parametrize(
    "error", [trio.BrokenResourceError(), trio.ClosedResourceError()], ids=repr
)
async def test_a_failed_write_ends_the_writer_and_nothing_follows(stream, writer, error):
    stream.fails_with = error
    posted = text("a")
    writer.post(posted)
    await writer.run()
    await writer.write_close(1000, None)

    assert writer.is_broken
    assert 1 == len(stream.writes)
    writer.give_up()
    assert not await posted.wait()


async def test_after_a_write_that_was_cut_short_nothing_is_written(stream, writer, nursery):
    stream.may_write = trio.Event()
    writer.post(text("a"))
    with trio.move_on_after(0):
        await writer.run()
    await writer.write_close(1000, None)

    assert writer.is_broken
    assert 1 == len(stream.writes)


async def test_an_idle_writer_that_was_cancelled_leaves_room_for_a_close_frame(
    stream, writer, frames_of
):
    with trio.move_on_after(0):
        await writer.run()
    await writer.write_close(1000, None)
    await writer.write_close(1000, None)

    assert not writer.is_broken
    assert [(CLOSE, b"\x03\xe8")] == frames_of(*stream.writes)


async def test_a_close_frame_that_cannot_be_written_is_nobodys_error(stream, writer):
    stream.fails_with = trio.BrokenResourceError()
    await writer.write_close(1000, None)

    assert 1 == len(stream.writes)


async def test_giving_up_wakes_everyone_who_waits(stream, writer, nursery):
    stream.may_write = trio.Event()
    source = writer.source = Source()
    begun, waiting = text("begun"), text("waiting")
    nursery.start_soon(writer.run)
    for posted in (begun, waiting):
        writer.post(posted)
        await trio.testing.wait_all_tasks_blocked()
    writer.give_up()

    assert [False, False] == [await begun.wait(), await waiting.wait()]
    assert writer.source is not source
    nursery.cancel_scope.cancel()


async def test_a_source_is_pulled_when_the_writer_is_woken(stream, writer, nursery, frames_of):
    source = writer.source = Source()
    nursery.start_soon(writer.run)
    await trio.testing.wait_all_tasks_blocked()
    source.waiting.append(Message("late"))
    await trio.testing.wait_all_tasks_blocked()

    assert [] == stream.writes

    writer.wake()
    await trio.testing.wait_all_tasks_blocked()

    assert [(TEXT, b"late")] == frames_of(*stream.writes)
