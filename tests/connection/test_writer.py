"""The writer: the only one that writes."""

from __future__ import annotations

import itertools
import math
from contextlib import aclosing

import attrs
import pytest
import trio
import trio.testing

from wsclient.connection._pings import Pings
from wsclient.connection._transport import Transport
from wsclient.connection._writer import BURST, STRETCH, WRITE_SIZE, Writer
from wsclient.protocol import ClientProtocol

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Wire(Transport):
    """A transport that keeps each write; can be held up, take little, or fail.

    Attributes:
        room: Bytes that it takes before it waits for ``may_write``.
        slice_size: Bytes that it takes at a time.
    """

    stream = None

    def __init__(self, *, takes_at_once):
        self.takes_at_once = takes_at_once
        self.writes = []
        self.by_the_task = []
        self.room = math.inf
        self.slice_size = math.inf
        self.fails_with = None
        self.may_write = trio.Event()
        self.may_write.set()

    async def receive(self):
        raise NotImplementedError

    def send_nowait(self, data, start):
        return self.take(data[start:]) if self.takes_at_once else 0

    async def send(self, data, start):
        await self.may_write.wait()
        await trio.lowlevel.checkpoint()
        size = self.take(data[start:])
        self.by_the_task.append(size)
        if self.slice_size < math.inf:
            self.may_write = trio.Event()
        return size

    def take(self, data):
        if self.fails_with is not None:
            raise self.fails_with
        size = int(min(len(data), self.room, self.slice_size))
        self.room -= size
        if size:
            self.writes.append(bytes(data[:size]))
        return size

    def hold_up(self, room=0):
        """Take only so many bytes before :meth:`go_on`."""
        self.room = room
        self.may_write = trio.Event()

    def go_on(self):
        """Take all again; or the next slice, where there are slices."""
        self.room = math.inf
        self.may_write.set()


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


@attrs.define
class Rig:
    """A writer over a wire, as a connection has it."""

    wire: Wire
    protocol: ClientProtocol
    writer: Writer

    def begin(self, nursery):
        self.writer.begin(lambda: nursery.start_soon(self.writer.run))

    async def send(self, message):
        """As a connection does: one of a burst is not even looked at by the writer."""
        return self.protocol.join_burst(message) or await self.post(message)

    async def post(self, message):
        return await self.writer.post(self.protocol.send_message, message)

    async def ping(self, payload):
        return await self.writer.post(self.protocol.send_ping, payload)


@pytest.fixture
async def make_rig():
    def make_rig(*, takes_at_once=False):
        wire = Wire(takes_at_once=takes_at_once)
        protocol = ClientProtocol(max_message_size=100)
        return Rig(wire, protocol, Writer(wire, protocol))

    return make_rig


@pytest.fixture(params=[False, True], ids=["stream", "socket"])
async def rig(make_rig, request):
    """Over a stream and over a socket."""
    return make_rig(takes_at_once=request.param)


@pytest.fixture
async def stream_rig(make_rig):
    return make_rig()


@pytest.fixture
async def socket_rig(make_rig):
    return make_rig(takes_at_once=True)


@pytest.fixture
def frames_of(take_frame):
    """The frames of some writes; parts have their FIN put back, and their opcode told."""

    def frames_of(*writes):
        data = bytearray(b"".join(writes))
        frames = []
        while data:
            is_last, data[0] = data[0] & 0x80, data[0] | 0x80
            opcode, payload = take_frame(data)
            frames.append((opcode, payload) if is_last else (opcode, payload, "…"))
        return frames

    return frames_of


async def settle():
    await trio.testing.wait_all_tasks_blocked()


def each(*parts):
    async def each():
        for part in parts:
            yield part

    return each()


class Outcome:
    """Starts something in ``nursery``, keeps what it returns, and can cancel it."""

    def __init__(self, nursery, act, *arguments):
        self.result = None
        self.scope = trio.CancelScope()

        async def run():
            with self.scope:
                self.result = await act(*arguments)

        nursery.start_soon(run)


# --- what goes before what ----------------------------------------------------------------------


async def test_what_waits_is_written_together_in_order(rig, nursery, frames_of):
    rig.wire.hold_up()
    rig.begin(nursery)
    await settle()
    outcomes = []
    for act, payload in ((rig.send, "a"), (rig.ping, b"p"), (rig.send, b"b")):
        outcomes.append(Outcome(nursery, act, payload))
        await settle()
    rig.wire.go_on()
    await settle()

    assert [(TEXT, b"a"), (PING, b"p"), (BINARY, b"b")] == frames_of(*rig.wire.writes)
    assert [True] * 3 == [outcome.result for outcome in outcomes]
    assert len(rig.wire.writes) <= 2


async def test_control_frames_go_first_and_the_source_last(rig, nursery, frames_of):
    rig.wire.hold_up()
    rig.begin(nursery)
    await settle()
    Outcome(nursery, rig.send, "x" * WRITE_SIZE)
    await settle()
    rig.writer.source = Source(Message("source"))
    Outcome(nursery, rig.send, "caller")
    await settle()
    ping = Pings().register(b"2")
    rig.writer.post_pong(b"1")
    rig.writer.post_ping(ping)

    assert ping.written_at is None

    rig.wire.go_on()
    await settle()

    assert [(PONG, b"1"), (PING, b"2"), (TEXT, b"caller"), (TEXT, b"source")] == frames_of(
        *rig.wire.writes
    )[1:]
    assert ping.written_at is not None


async def test_one_write_has_a_bounded_size(rig, nursery, frames_of):
    source = rig.writer.source = Source(*(Message("x" * 10_000) for _ in range(20)))
    rig.wire.hold_up()
    rig.begin(nursery)
    await settle()

    # What the writer has not pulled was certainly not written.
    assert 13 == len(source.waiting)
    assert WRITE_SIZE <= 7 * 10_000
    assert not any(message.was_written for message in source.pulled)

    rig.wire.go_on()
    await settle()

    assert [(TEXT, b"x" * 10_000)] * 20 == frames_of(*rig.wire.writes)
    assert all(message.was_written for message in source.pulled)


async def test_a_message_is_written_when_its_last_byte_was_handed_over(stream_rig, nursery):
    source = stream_rig.writer.source = Source(Message("a" * 10), Message("b" * 10))
    stream_rig.wire.slice_size = 15
    stream_rig.wire.hold_up()
    stream_rig.begin(nursery)
    await settle()
    # Two frames of 16 bytes, in slices of 15.
    for slices, expected in (
        ([], [False, False]),
        ([15], [False, False]),
        ([15, 15], [True, False]),
        ([15, 15, 2], [True, True]),
    ):
        assert slices == stream_rig.wire.by_the_task
        assert expected == [message.was_written for message in source.pulled]

        stream_rig.wire.go_on()
        await settle()


async def test_a_large_message_leaves_bit_by_bit_and_others_join_behind_it(
    stream_rig, nursery, frames_of
):
    stream_rig.wire.slice_size = 50_000
    stream_rig.wire.hold_up()
    stream_rig.begin(nursery)
    await settle()
    large = Outcome(nursery, stream_rig.send, "x" * 500_000)
    await settle()
    others = [Outcome(nursery, stream_rig.send, f"{number}") for number in range(3)]
    sizes = []
    while not all(outcome.result for outcome in others):
        stream_rig.wire.go_on()
        await settle()
        sizes.append(len(stream_rig.protocol.outgoing))

    assert large.result
    frames = frames_of(*stream_rig.wire.writes)
    assert (TEXT, b"x" * 500_000) == frames[0]
    assert [b"0", b"1", b"2"] == sorted(payload for _, payload in frames[1:])
    # What was taken is not held until the end.
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) == 0
    assert any(0 < size <= 250_000 for size in sizes)


async def test_a_source_is_pulled_when_the_writer_is_told(rig, nursery, frames_of):
    source = rig.writer.source = Source()
    rig.begin(nursery)
    await settle()
    source.waiting.append(Message("late"))
    await settle()

    assert [] == rig.wire.writes

    rig.writer.flush()
    await settle()

    assert [(TEXT, b"late")] == frames_of(*rig.wire.writes)


async def test_a_flood_of_pings_is_answered_with_the_newest_pongs(stream_rig, nursery, frames_of):
    for number in range(10_000):
        stream_rig.writer.post_pong(b"%d" % number)
    stream_rig.begin(nursery)
    await settle()

    assert [(PONG, b"%d" % number) for number in range(10_000 - 256, 10_000)] == frames_of(
        *stream_rig.wire.writes
    )


# --- at once, or by the task --------------------------------------------------------------------


async def test_a_message_that_stands_alone_is_written_at_once(socket_rig, nursery, frames_of):
    socket_rig.begin(nursery)
    await settle()
    await socket_rig.send("alone")

    assert [(TEXT, b"alone")] == frames_of(*socket_rig.wire.writes)
    assert [] == socket_rig.wire.by_the_task


async def test_one_of_a_burst_waits_for_company(socket_rig, nursery, mock_clock, frames_of):
    socket_rig.begin(nursery)
    await settle()
    mock_clock.jump(1)
    for number in range(100):
        assert await socket_rig.send(str(number))
        mock_clock.jump(BURST / 200)

    # The first stood alone, as far as anybody knew.
    assert 1 == len(socket_rig.wire.writes)

    await settle()

    assert 2 == len(socket_rig.wire.writes)
    assert [(TEXT, b"%d" % number) for number in range(100)] == frames_of(*socket_rig.wire.writes)


async def test_what_answers_something_is_written_at_once(socket_rig, nursery, mock_clock):
    socket_rig.begin(nursery)
    await settle()
    mock_clock.jump(1)
    await socket_rig.send("question")
    socket_rig.writer.end_burst()
    await socket_rig.send("answer")

    assert 2 == len(socket_rig.wire.writes)
    assert [] == socket_rig.wire.by_the_task


async def test_a_burst_ends_when_the_buffer_is_full(socket_rig, nursery, mock_clock):
    socket_rig.begin(nursery)
    await settle()
    mock_clock.jump(1)
    sent = 0
    for _ in range(2):
        await socket_rig.post("x")
    while await socket_rig.send("x" * 10_000) and len(socket_rig.protocol.outgoing) < WRITE_SIZE:
        sent += 1

    assert WRITE_SIZE // 10_100 == sent
    assert not socket_rig.protocol.join_burst("x")

    # Whoever comes now waits for the writer, and the next burst has room again.
    assert await socket_rig.send("x")
    await settle()
    for _ in range(2):
        await socket_rig.post("x")

    assert socket_rig.protocol.join_burst("x")


@pytest.mark.parametrize("end", ["close", "give up"])
async def test_a_burst_ends_with_the_connection(socket_rig, nursery, mock_clock, end):
    socket_rig.begin(nursery)
    await settle()
    mock_clock.jump(1)
    for _ in range(2):
        await socket_rig.post("x")

    assert socket_rig.protocol.join_burst("y")

    if end == "close":
        socket_rig.writer.post_close(1000, None)
    else:
        socket_rig.writer.give_up()

    assert not socket_rig.protocol.join_burst("z")


async def test_a_burst_does_not_overtake_a_message_in_parts(make_rig, mock_clock, frames_of):
    async def tell():
        async def parts():
            order.append(b"4")
            yield "4"

        async def then_send():
            order.append(b"5")
            await rig.send("5")

        rig = make_rig(takes_at_once=True)
        order = []
        async with trio.open_nursery() as nursery:
            rig.begin(nursery)
            await settle()
            mock_clock.jump(1)
            for text in ("1", "2", "3"):
                await rig.send(text)
            Outcome(nursery, rig.writer.post_parts, parts())
            nursery.start_soon(then_send)
            await settle()
            nursery.cancel_scope.cancel()
        payloads = [frame[1] for frame in frames_of(*rig.wire.writes)]

        assert [b"1", b"2", b"3"] == payloads[:3]
        assert order == [payload for payload in payloads[3:] if payload]
        return tuple(order)

    # Which of two tasks runs first, and whether the writer does, is chance.
    assert 2 == len({await tell() for _ in range(50)})


async def test_messages_that_are_no_burst_are_each_written_at_once(socket_rig, nursery, mock_clock):
    socket_rig.begin(nursery)
    await settle()
    for _ in range(10):
        mock_clock.jump(BURST * 1.01)
        await socket_rig.send("x")

    assert 10 == len(socket_rig.wire.writes)
    assert [] == socket_rig.wire.by_the_task


async def test_what_a_socket_does_not_take_at_once_is_the_tasks(socket_rig, nursery, frames_of):
    socket_rig.begin(nursery)
    await settle()
    socket_rig.wire.hold_up(room=3)

    assert await socket_rig.send("begun")
    assert 1 == len(socket_rig.wire.writes)

    await settle()
    # While the task waits, nobody writes past it.
    assert await socket_rig.send("next")
    assert 1 == len(socket_rig.wire.writes)

    socket_rig.wire.go_on()
    await settle()

    assert [(TEXT, b"begun"), (TEXT, b"next")] == frames_of(*socket_rig.wire.writes)


async def test_senders_wait_where_the_buffer_is_full(socket_rig, nursery, frames_of):
    socket_rig.begin(nursery)
    await settle()
    socket_rig.wire.hold_up()
    outcomes = []
    for number in range(20):
        outcomes.append(Outcome(nursery, socket_rig.send, f"{number:02}" + "x" * 10_000))
        await settle()

    assert [True] * 7 + [None] * 13 == [outcome.result for outcome in outcomes]

    # What did not get in can be withdrawn.
    outcomes[10].scope.cancel()
    await settle()
    socket_rig.wire.go_on()
    await settle()

    assert [True] * 10 + [None] + [True] * 9 == [outcome.result for outcome in outcomes]
    assert [b"%02d" % number for number in range(20) if number != 10] == [
        payload[:2] for _, payload in frames_of(*socket_rig.wire.writes)
    ]


async def test_a_message_does_not_overtake_one_that_waits(socket_rig, nursery, frames_of):
    socket_rig.begin(nursery)
    await settle()
    socket_rig.wire.hold_up()
    await socket_rig.send("first" + "x" * WRITE_SIZE)
    await settle()
    second = Outcome(nursery, socket_rig.send, "second")
    await settle()
    # The buffer empties, but the queue does not yet.
    socket_rig.wire.go_on()
    third = Outcome(nursery, socket_rig.send, "third")
    await settle()

    assert (True, True) == (second.result, third.result)
    assert [b"first", b"second", b"third"] == [
        payload.rstrip(b"x") for _, payload in frames_of(*socket_rig.wire.writes)
    ]


async def test_a_sender_lets_others_run_now_and_then(socket_rig, nursery, mock_clock):
    socket_rig.begin(nursery)
    turns = []

    async def other():
        while True:
            turns.append(trio.current_time())
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    for _ in range(1000):
        await socket_rig.send("x")
        mock_clock.jump(BURST)
    gaps = [after - before for before, after in itertools.pairwise(turns)]

    assert len(turns) >= 1000 * BURST / STRETCH / 2
    assert max(gaps) <= 2 * (STRETCH + 40 * BURST)


async def test_a_cancelled_sender_sends_nothing(rig, nursery, frames_of):
    rig.begin(nursery)
    await settle()
    await rig.send("before")
    async with aclosing(each("cancelled")) as parts:
        for send, what in ((rig.post, "cancelled"), (rig.writer.post_parts, parts)):
            with trio.CancelScope() as scope:
                scope.cancel()
                await send(what)

            assert scope.cancelled_caught
    await settle()

    assert [(TEXT, b"before")] == frames_of(*rig.wire.writes)


async def test_a_frame_that_cannot_be_made_is_its_senders_mistake(socket_rig, nursery, frames_of):
    socket_rig.begin(nursery)
    await settle()
    with pytest.raises(UnicodeEncodeError):
        await socket_rig.send("\ud800")
    await socket_rig.send("good")
    await settle()

    assert [(TEXT, b"good")] == frames_of(*socket_rig.wire.writes)


async def test_what_was_withdrawn_in_time_is_never_written(stream_rig, nursery, frames_of):
    stream_rig.wire.hold_up()
    stream_rig.begin(nursery)
    await settle()
    first, second, third = (
        Outcome(nursery, stream_rig.send, text + "x" * WRITE_SIZE) for text in ("1", "2", "3")
    )
    await settle()
    # One of them is being written: too late for that one, which is written as a whole.
    begun = frames_of(bytes(stream_rig.protocol.outgoing))[0][1][:1]
    outcomes = {b"1": first, b"2": second, b"3": third}
    outcomes.pop(begun).scope.cancel()
    kept, cancelled = outcomes
    outcomes[cancelled].scope.cancel()
    await settle()
    stream_rig.wire.go_on()
    await settle()

    assert [begun, kept] == [payload[:1] for _, payload in frames_of(*stream_rig.wire.writes)]
    assert outcomes[kept].result


# --- messages in parts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "frames"),
    [
        (("a", "b"), [(TEXT, b"a", "…"), (CONT, b"b", "…"), (CONT, b"")]),
        ((b"a",), [(BINARY, b"a", "…"), (CONT, b"")]),
        (("", "é"), [(TEXT, b"", "…"), (CONT, "é".encode(), "…"), (CONT, b"")]),
        ((), [(TEXT, b"")]),
    ],
)
async def test_each_part_is_a_frame_and_the_end_one_of_its_own(
    rig, nursery, frames_of, parts, frames
):
    rig.begin(nursery)
    await settle()

    assert await rig.writer.post_parts(each(*parts))
    assert frames == frames_of(*rig.wire.writes)
    assert rig.writer.parts is None


async def test_other_messages_wait_until_the_parts_are_whole(rig, nursery, frames_of):
    send, receive = trio.open_memory_channel(0)
    rig.begin(nursery)
    await settle()
    in_parts = Outcome(nursery, rig.writer.post_parts, receive)
    await send.send("a")
    await settle()
    other = Outcome(nursery, rig.send, "other")
    await settle()
    others_parts = Outcome(nursery, rig.writer.post_parts, each("other parts"))
    rig.writer.source = Source(Message("source"))
    rig.writer.post_pong(b"pong")
    await settle()

    assert rig.writer.parts is receive
    assert (None, None) == (other.result, others_parts.result)

    await send.send("b")
    await send.aclose()
    await settle()

    assert [
        (TEXT, b"a", "…"),
        (PONG, b"pong"),
        (CONT, b"b", "…"),
        (CONT, b""),
        (TEXT, b"other"),
        (TEXT, b"other parts", "…"),
        (CONT, b""),
        (TEXT, b"source"),
    ] == frames_of(*rig.wire.writes)
    assert (True, True, True) == (in_parts.result, other.result, others_parts.result)


@pytest.mark.parametrize(
    ("parts", "error", "is_begun"),
    [
        ((1,), TypeError, False),
        (("a", 1), TypeError, True),
        (("a", b"b"), TypeError, True),
        ((b"a", "b"), TypeError, True),
        (("\ud800",), UnicodeEncodeError, False),
        (("a", "\ud800"), UnicodeEncodeError, True),
    ],
)
async def test_a_part_that_cannot_be_sent_is_its_senders_mistake(
    rig, nursery, parts, error, is_begun
):
    rig.begin(nursery)
    await settle()
    iterator = each(*parts)
    with pytest.raises(error):
        await rig.writer.post_parts(iterator)
    await iterator.aclose()

    assert is_begun is (rig.writer.parts is iterator)


async def test_a_part_that_was_withdrawn_is_not_written(stream_rig, nursery, frames_of):
    stream_rig.begin(nursery)
    send, receive = trio.open_memory_channel(0)
    outcome = Outcome(nursery, stream_rig.writer.post_parts, receive)
    await send.send("begun")
    await settle()
    stream_rig.wire.hold_up()
    stream_rig.writer.post_pong(b"x" * 125)
    await settle()
    await send.send("withdrawn")
    await settle()
    outcome.scope.cancel()
    await settle()
    stream_rig.wire.go_on()
    await settle()

    assert [(TEXT, b"begun", "…"), (PONG, b"x" * 125)] == frames_of(*stream_rig.wire.writes)
    assert stream_rig.writer.parts is receive


async def test_a_close_ends_a_message_in_parts(rig, nursery, frames_of):
    rig.begin(nursery)
    send, receive = trio.open_memory_channel(1)
    outcome = Outcome(nursery, rig.writer.post_parts, receive)
    await send.send("begun")
    await settle()
    rig.wire.hold_up()
    # Both may wait at the same time: a part, and the close frame that takes its place.
    rig.writer.post_pong(b"x" * 125)
    await settle()
    await send.send("too late")
    await settle()
    rig.writer.post_close(1011, None)
    rig.wire.go_on()
    await settle()

    assert outcome.result is False
    assert [(TEXT, b"begun", "…"), (PONG, b"x" * 125), (CLOSE, b"\x03\xf3")] == frames_of(
        *rig.wire.writes
    )
    async with aclosing(each("nothing")) as parts:
        assert not await rig.writer.post_parts(parts)


# --- the end ------------------------------------------------------------------------------------


async def test_the_close_frame_is_the_last_and_what_waits_fails(rig, nursery, frames_of):
    rig.wire.hold_up()
    rig.begin(nursery)
    await settle()
    begun = Outcome(nursery, rig.send, "x" * WRITE_SIZE)
    await settle()
    waiting = Outcome(nursery, rig.send, "waiting")
    await settle()
    source = rig.writer.source = Source(Message("source"))
    rig.writer.post_pong(b"1")
    rig.writer.post_close(4000, "bye")
    rig.writer.post_close(1000, None)
    await settle()

    assert waiting.result is False
    assert not rig.writer.close_written.is_set()

    rig.wire.go_on()
    await rig.writer.close_written.wait()
    await settle()

    assert begun.result
    assert not await rig.send("after")
    assert [] == source.pulled
    assert [(PONG, b"1"), (CLOSE, b"\x0f\xa0bye")] == frames_of(*rig.wire.writes)[1:]


async def test_after_a_close_frame_of_the_peer_no_pong_is_written(rig, frame, frames_of):
    rig.protocol.receive_data(frame(PING, b"1") + frame(CLOSE))
    rig.writer.post_pong(b"1")
    rig.writer.post_close(1005, None)
    await rig.writer.run()

    assert [(CLOSE, b"")] == frames_of(*rig.wire.writes)


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_a_failed_write_ends_the_writer_with_its_error(rig, nursery, error):
    rig.wire.fails_with = error()
    outcome = Outcome(nursery, rig.send, "a")
    await settle()
    with pytest.raises(error):
        await rig.writer.run()
    await rig.writer.write_close(1000, None)
    rig.writer.give_up()
    await settle()

    assert [] == rig.wire.writes
    # A socket's sender has left its message in the buffer.
    assert rig.wire.takes_at_once is outcome.result


async def test_an_error_of_a_write_at_once_is_the_tasks(socket_rig, nursery):
    errors = []

    async def run():
        try:
            await socket_rig.writer.run()
        except trio.BrokenResourceError as error:
            errors.append(error)

    socket_rig.writer.begin(lambda: nursery.start_soon(run))
    await settle()
    error = socket_rig.wire.fails_with = trio.BrokenResourceError()

    assert await socket_rig.send("a")
    assert [] == errors

    await settle()

    assert [error] == errors


async def test_after_a_write_that_was_cut_short_nothing_is_written(rig, nursery, frames_of):
    rig.wire.hold_up()
    rig.writer.source = Source(Message("a"))
    with trio.move_on_after(0):
        await rig.writer.run()
    rig.wire.go_on()
    rig.wire.is_torn = True
    await rig.writer.write_close(1000, None)

    assert [] == rig.wire.writes


async def test_a_writer_that_was_cancelled_has_its_begun_frames_finished(rig, frames_of):
    """Whole frames are on the wire, as far as the transport knows what it took."""
    rig.wire.hold_up()
    source = rig.writer.source = Source(Message("begun"))
    with trio.move_on_after(0):
        await rig.writer.run()
    source.waiting.append(Message("not begun"))
    rig.wire.go_on()
    await rig.writer.write_close(1000, None)
    await rig.writer.write_close(1000, None)

    assert [(TEXT, b"begun"), (CLOSE, b"\x03\xe8")] == frames_of(*rig.wire.writes)


async def test_a_close_frame_follows_a_long_message_that_has_begun(rig, frames_of):
    rig.wire.hold_up(room=WRITE_SIZE)
    rig.writer.source = Source(Message("x" * 3 * WRITE_SIZE))
    with trio.move_on_after(0):
        await rig.writer.run()
    rig.wire.go_on()
    await rig.writer.write_close(1000, None)

    assert [(TEXT, b"x" * 3 * WRITE_SIZE), (CLOSE, b"\x03\xe8")] == frames_of(*rig.wire.writes)


async def test_a_close_frame_that_was_asked_for_is_the_one_that_is_written(rig, frames_of):
    rig.writer.post_close(4000, "bye")
    await rig.writer.write_close(1000, None)

    assert [(CLOSE, b"\x0f\xa0bye")] == frames_of(*rig.wire.writes)


async def test_nobody_takes_the_close_frame_from_the_transport_that_is_about_to_write_it(
    socket_rig, nursery, frames_of
):
    socket_rig.begin(nursery)
    await settle()
    socket_rig.wire.may_write = trio.Event()
    nursery.start_soon(socket_rig.writer.write_close, 1000, None)
    await settle()
    # As a session does that has something to send.
    socket_rig.writer.flush()
    socket_rig.wire.go_on()
    await settle()

    assert [sum(map(len, socket_rig.wire.writes))] == socket_rig.wire.by_the_task
    assert [(CLOSE, b"\x03\xe8")] == frames_of(*socket_rig.wire.writes)


async def test_a_close_frame_that_cannot_be_written_is_nobodys_error(rig):
    rig.wire.fails_with = trio.BrokenResourceError()
    await rig.writer.write_close(1000, None)

    assert [] == rig.wire.writes


async def test_giving_up_wakes_everyone_who_waits(stream_rig, nursery):
    stream_rig.wire.hold_up()
    source = stream_rig.writer.source = Source(Message("pulled"))
    begun = Outcome(nursery, stream_rig.send, "begun")
    await settle()
    stream_rig.begin(nursery)
    await settle()
    waiting = Outcome(nursery, stream_rig.send, "waiting")
    ping = Pings().register(None)
    stream_rig.writer.post_ping(ping)
    await settle()
    stream_rig.writer.give_up()
    await settle()

    assert (False, False) == (begun.result, waiting.result)
    assert [Message("pulled")] == source.pulled
    assert stream_rig.writer.source is None
    assert not await stream_rig.send("after")
    # And nothing more is written by whoever comes late.
    stream_rig.writer.post_pong(b"late")


async def test_a_writer_that_has_ended_starts_no_task(stream_rig, nursery):
    stream_rig.begin(nursery)
    await settle()
    stream_rig.writer.end()
    stream_rig.writer.post_pong(b"nobody hears it")
    await settle()

    assert [] == stream_rig.wire.writes


async def test_a_task_runs_only_while_something_waits(rig, nursery):
    rig.begin(nursery)
    for _ in range(2):
        await settle()

        assert 0 == len(nursery.child_tasks)

        rig.wire.hold_up()
        outcome = Outcome(nursery, rig.send, "x")
        await settle()

        assert nursery.child_tasks

        rig.wire.go_on()
        await settle()

        assert outcome.result


async def test_progress_is_when_the_transport_has_taken_something(rig, nursery, mock_clock):
    rig.begin(nursery)
    await settle()
    mock_clock.jump(5)

    assert rig.writer.progressed_at < 5

    rig.wire.hold_up(room=0)
    Outcome(nursery, rig.send, "x")
    await settle()

    assert rig.writer.progressed_at < 5

    mock_clock.jump(2)
    rig.wire.go_on()
    await settle()

    assert 7 == rig.writer.progressed_at
