"""Cancelled, cut or disturbed at every single step of a story, a connection ends cleanly.

A *step* is one that trio's scheduler takes, in any task.  Over memory streams and on virtual time
a story takes the same few hundred of them each time, so each can be tried.
"""

from __future__ import annotations

import functools
import itertools
import math
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import attrs
import pytest
import trio
import trio.testing

from wsclient.connection import _cancellation, open_websocket, stream_opener, wrap_client_stream
from wsclient.connection._cancellation import cancel_status, is_cancelled
from wsclient.errors import ConnectionClosed, HandshakeError

CONT, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9
MESSAGES = ["first", "second" * 20, "third"]


# --- whether the running task is cancelled ------------------------------------------------------


async def truth():
    """What trio's own checkpoint does."""
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
    except trio.Cancelled:
        return True
    return False


@contextmanager
def scopes(*how):
    """Scopes within one another; each is open, cancelled, shielded, or has a deadline."""
    with ExitStack() as stack:
        for what in how:
            scope = stack.enter_context(trio.CancelScope(shield="shield" in what))
            if "cancel" in what:
                scope.cancel()
            if "future" in what:
                scope.deadline = trio.current_time() + 1000
        yield


KINDS = ["open", "cancel", "shield", "cancel, shield", "future", "future, shield"]


@pytest.fixture(params=["private", "public"])
def _a_trio_with_and_without_the_attribute(request, monkeypatch):
    if request.param == "public":
        monkeypatch.setattr(_cancellation, "current_task", object)


@pytest.mark.usefixtures("_a_trio_with_and_without_the_attribute")
async def test_whether_a_task_is_cancelled_is_what_a_checkpoint_would_say():
    for how in itertools.product(KINDS, repeat=3):
        with scopes(*how):
            # Nothing is awaited in between.
            asked, public = is_cancelled(), trio.current_effective_deadline() == -math.inf

            assert (how, public) == (how, asked)
            assert (how, await truth()) == (how, asked)
            assert asked is cancel_status().effectively_cancelled


@pytest.mark.usefixtures("_a_trio_with_and_without_the_attribute")
async def test_a_deadline_counts_once_trio_has_noticed_it(mock_clock):
    with trio.CancelScope(deadline=1):
        assert not is_cancelled()

        mock_clock.jump(2)

        assert not is_cancelled()
        with pytest.raises(trio.Cancelled):
            await trio.sleep_forever()
        assert is_cancelled()
        assert await truth()
    assert not is_cancelled()


@pytest.mark.usefixtures("_a_trio_with_and_without_the_attribute")
async def test_a_nursery_that_is_cancelled_cancels_its_children_and_nobody_else():
    asked = []
    may_ask = trio.Event()

    async def child():
        with trio.CancelScope(shield=True):
            await may_ask.wait()
            asked.append(is_cancelled())
        asked.append(is_cancelled())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.cancel_scope.cancel()
        asked.append(is_cancelled())
        may_ask.set()
    asked.append(is_cancelled())

    assert [True, False, True, False] == asked


@pytest.mark.usefixtures("_a_trio_with_and_without_the_attribute")
async def test_a_status_follows_its_task_until_a_scope_is_entered_or_left():
    with trio.CancelScope() as scope:
        status = cancel_status()
        seen = [status.effectively_cancelled]
        scope.cancel()
        seen.append(status.effectively_cancelled)

        assert await truth()
    assert [False, True] == seen


async def test_this_trio_has_the_attribute():
    """Should it go, nothing breaks; but every message costs more."""
    assert cancel_status() is trio.lowlevel.current_task()._cancel_status


# --- a story, disturbed at every step -----------------------------------------------------------


class AtStep(trio.abc.Instrument):
    """Does something before the step of a given number."""

    def __init__(self, step):
        self.step = step
        self.count = 0
        self.act = None
        self.acted = False

    def before_task_step(self, task):
        if self.act is None:
            return
        self.count += 1
        if self.count == self.step:
            self.acted = True
            self.act()


def every_step(story, *, is_real=False):
    """Run ``story`` once for each of its steps, with a disturbance before that step.

    ``story`` is an async function of the instrument, which it arms.  How long it is varies a
    little, since trio schedules at random: three in a row must have ended before their step.
    Beyond a hundred, where a long message goes round and round, each seventh is enough.
    """
    step = ended_before = 0
    while ended_before < 3:
        step += 1 if step < 100 else 7
        instrument = AtStep(step)
        trio.run(
            story,
            instrument,
            clock=None if is_real else trio.testing.MockClock(autojump_threshold=0),
            instruments=[instrument],
        )
        ended_before = 0 if instrument.acted else ended_before + 1
    return step


@attrs.define
class Server:
    """What a server of the story heard."""

    received: list = attrs.field(factory=list)
    ended: trio.Event = attrs.field(factory=trio.Event)


async def echo(peer, server):
    """Accept, echo, answer a close frame; whatever comes is whole frames."""
    try:
        request = bytearray()
        while b"\r\n\r\n" not in request:
            data = await peer.stream.receive_some()
            if not data:
                return
            request += data
        peer.received += request
        await peer.accept()
        while (found := await peer.receive_frame()) is not None:
            opcode, payload = found
            if opcode == TEXT:
                server.received.append(payload.decode())
            if opcode in (TEXT, CLOSE):
                await peer.send_frame(opcode, payload)
            if opcode == CLOSE:
                break
        while await peer.stream.receive_some():
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await trio.aclose_forcefully(peer.stream)
        server.ended.set()


async def tell(use_ssl=False):
    """Open, send three times, receive three times, close."""
    async with open_websocket("localhost", 443, "/", use_ssl=use_ssl) as connection:
        for message in MESSAGES:
            await connection.send_message(message)
        for message in MESSAGES:
            assert message == await connection.get_message()


async def tell_in_a_nursery():
    """The same with a nursery of one's own, the caller closing."""
    async with trio.open_nursery() as nursery:
        client = await stream_opener.get()("localhost", 80)
        connection = await wrap_client_stream(nursery, client, "localhost", "/")
        for message in MESSAGES:
            await connection.send_message(message)
        for message in MESSAGES:
            assert message == await connection.get_message()
        await connection.aclose(4000, "done")


async def tell_with_many_tasks():
    """All sends and receives at the same time."""

    async def receive():
        received.append(await connection.get_message())

    received = []
    async with (
        open_websocket("localhost", 80, "/", use_ssl=False) as connection,
        trio.open_nursery() as nursery,
    ):
        for message in MESSAGES:
            nursery.start_soon(connection.send_message, message)
            nursery.start_soon(receive)
    assert sorted(MESSAGES) == sorted(received)


@pytest.fixture
def stage(make_peer, tls):
    """``async with stage(secure) as (server, client_streams)``: a network with an echo server."""

    @asynccontextmanager
    async def stage(*, secure=False):
        server = Server()
        client_streams = []
        async with trio.open_nursery() as nursery:

            async def open_stream(host, port):
                await trio.lowlevel.checkpoint()
                client, theirs = trio.testing.memory_stream_pair()
                client_streams.append(client)
                if secure:
                    theirs = trio.SSLStream(
                        theirs, tls.server, server_side=True, https_compatible=True
                    )
                nursery.start_soon(echo, make_peer(theirs), server)
                return client

            stream_opener.set(open_stream)
            yield server, client_streams

    return stage


STORIES = {
    "open_websocket": tell,
    "wrap_client_stream": tell_in_a_nursery,
    "many tasks": tell_with_many_tasks,
}


async def closed(stream):
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")


@pytest.mark.parametrize("name", [*STORIES, "TLS"])
def test_a_story_can_be_cancelled_at_every_step(stage, tls, name):
    secure = name == "TLS"
    tell_story = STORIES.get(name) or functools.partial(tell, tls.client)

    async def story(instrument):
        async with stage(secure=secure) as (server, client_streams):
            with trio.CancelScope() as scope:
                instrument.act = scope.cancel
                await tell_story()
            instrument.act = None
            # The peer answers at once: so does everything else.
            assert 0 == trio.current_time()
            for stream in client_streams:
                await closed(stream)
        # The server heard whole messages only, and none that was not sent.
        assert set(server.received) <= set(MESSAGES)
        assert len(set(server.received)) == len(server.received)
        if not instrument.acted:
            assert sorted(MESSAGES) == sorted(server.received)

    assert every_step(story) > 50


def cut(client):
    client.receive_stream.put_eof()


def say(data):
    def say(client):
        with suppress(trio.ClosedResourceError):  # The client has left.
            client.receive_stream.put_data(data)

    return say


@pytest.mark.parametrize(
    "disturb",
    [cut, say(b"\x88\x02\x03\xe9"), say(b"\x88\x00"), say(b"\x8f\x00"), say(b"\x89\x00")],
    ids=["eof", "close", "empty close", "violation", "ping"],
)
@pytest.mark.parametrize("tell_story", STORIES.values(), ids=STORIES)
def test_a_story_can_be_disturbed_by_the_peer_at_every_step(stage, tell_story, disturb):
    async def story(instrument):
        async with stage() as (server, client_streams):
            instrument.act = lambda: [disturb(stream) for stream in client_streams]
            try:
                await tell_story()
            except* (ConnectionClosed, HandshakeError):
                pass
            instrument.act = None
            assert trio.current_time() <= 2
            for stream in client_streams:
                await closed(stream)
            await server.ended.wait()
        assert set(server.received) <= set(MESSAGES)

    assert every_step(story) > 50


def test_a_send_to_a_slow_reader_can_be_cancelled_at_every_step(make_peer):
    """What the peer reads always parses; a message that was withdrawn never appears."""

    async def story(instrument):
        client_send, server_receive = trio.testing.lockstep_stream_one_way_pair()
        server_send, client_receive = trio.testing.memory_stream_one_way_pair()
        client = trio.StapledStream(client_send, client_receive)
        peer = make_peer(trio.StapledStream(server_send, server_receive))
        received = []
        sent = {}

        async def read_slowly():
            while (found := peer.take_frame()) is None or found[0] != CLOSE:
                if found is not None:
                    received.append(found[1].decode())
                data = await peer.stream.receive_some(7)
                assert data
                peer.received += data
            await peer.send_frame(*found)

        async def send(message, scope):
            with scope:
                await connection.send_message(message)
                sent[message] = True

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(peer.accept)
                connection = await wrap_client_stream(nursery, client, "test.example", "/")
            first, disturbed, last = "first" * 5, "disturbed" * 5, "last" * 5
            scope = trio.CancelScope()
            async with trio.open_nursery() as sending:
                sending.start_soon(send, first, trio.CancelScope())
                await trio.testing.wait_all_tasks_blocked()
                sending.start_soon(send, disturbed, scope)
                await trio.testing.wait_all_tasks_blocked()
                sending.start_soon(send, last, trio.CancelScope())
                await trio.testing.wait_all_tasks_blocked()
                instrument.act = scope.cancel
                nursery.start_soon(read_slowly)
            instrument.act = None
            await connection.aclose()

        assert {first, last} <= sent.keys()
        # In order; the one that was cancelled is there as a whole or not at all.
        assert received in ([first, disturbed, last], [first, last])
        if disturbed in sent:
            assert disturbed in received
        seen.add((disturbed in sent, disturbed in received))

    seen = set()

    assert every_step(story) > 30
    # All three happened: withdrawn in time, too late, not cancelled.
    assert {(False, False), (False, True), (True, True)} == seen


# --- each call, over every way, cancelled at every step -----------------------------------------

MIB = 2**20
MARKER = "marker"
BUFFERS = 2**17
"""Bytes of each of the system's buffers on a slow way: a long message does not fit into them, but a
segment of loopback's, 64 KiB, does: else a timer of the kernel's has to open the window again."""
LIMIT = 5
"""Seconds for a story and all that follows: hundredths, a last word, and a slow machine."""


@attrs.define
class Way:
    """How the bytes travel."""

    is_real: bool = False
    """Over loopback sockets and in real time."""
    is_secure: bool = False
    is_slow: bool = False
    """The server takes 16 KiB at a time, and what it did not take, the client's end keeps.

    Over sockets, beyond what fits into the system's buffers.
    """


WAYS = {
    "memory": Way(),
    "memory, slow": Way(is_slow=True),
    "TLS over memory": Way(is_secure=True),
    "TCP": Way(is_real=True),
    "TCP, slow": Way(is_real=True, is_slow=True),
    "TLS": Way(is_real=True, is_secure=True),
    "TLS, slow": Way(is_real=True, is_secure=True, is_slow=True),
}


class Ear:
    """A server that hears whole frames, and asserts that they are right.

    Attributes:
        messages: What came whole; fragments are joined.
        fragments: Those of a message that is not whole.
        close: The payload of the close frame that came.
        is_cut: Whether the stream ended inside a frame.
        violation: What was wrong with the cipher text.
    """

    def __init__(self, way, says):
        self.messages = []
        self.fragments = []
        self.close = None
        self.is_cut = False
        self.violation = None
        self.is_met = False
        self.marked = trio.Event()
        self._waiting = trio.lowlevel.ParkingLot()
        self.may_speak = trio.Event()
        self.ended = trio.Event()
        self._says = says
        self._read_size = 2**14 if way.is_slow else 2**18
        self._speaking = trio.Lock()

    async def serve(self, peer):
        self.is_met = True
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if not await self._accept(peer):
                    return
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._speak, peer)
                    await self._listen(peer)
                    nursery.cancel_scope.cancel()
        finally:
            self.is_cut = bool(peer.received)
            await trio.aclose_forcefully(peer.stream)
            self.ended.set()

    async def wait_heard(self, messages):
        """Wait until so many messages have come whole."""
        while len(self.messages) < messages:
            await self._waiting.park()

    async def _accept(self, peer):
        request = bytearray()
        while b"\r\n\r\n" not in request:
            data = await peer.stream.receive_some()
            if not data:
                return False
            request += data
        peer.received += request
        await peer.accept()
        return True

    async def _speak(self, peer):
        await self.may_speak.wait()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for data in self._says:
                await self._say(peer, data)

    async def _say(self, peer, data):
        async with self._speaking:
            await peer.send(data)

    async def _listen(self, peer):
        try:
            while data := await peer.stream.receive_some(self._read_size):
                peer.received += data
                while (found := take_fragment(peer.received)) is not None:
                    await self._hear(peer, *found)
        except trio.ClosedResourceError:
            pass
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                self.violation = error.__cause__

    async def _hear(self, peer, is_last, opcode, payload):
        if opcode in (CLOSE, PING):
            answer = bytes([0x88 if opcode == CLOSE else 0x8A, len(payload)])
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._say(peer, answer + payload)
        if opcode == CLOSE:
            self.close = payload
        elif opcode < CLOSE:
            assert (opcode == CONT) is bool(self.fragments)
            self.fragments.append(payload)
            if is_last:
                self.messages.append(b"".join(self.fragments).decode())
                self.fragments = []
                self._waiting.unpark_all()
                if self.messages[-1] == MARKER:
                    self.marked.set()


def take_fragment(data):
    """Take one whole frame of a client from the head of ``data``: whether it is its message's last,
    opcode and payload; ``None`` if there is none.
    """
    if len(data) < 2:
        return None
    assert not data[0] & 0x70, "no reserved bit"
    assert data[1] & 0x80, "a client masks"
    length, head = data[1] & 0x7F, 2
    if length > 125:
        head = 4 if length == 126 else 10
        length = int.from_bytes(data[2:head])
    end = head + 4 + length
    if len(data) < end:
        return None
    masked, key = data[head + 4 : end], (data[head : head + 4] * (length // 4 + 1))[:length]
    payload = (int.from_bytes(masked) ^ int.from_bytes(key)).to_bytes(length)
    found = bool(data[0] & 0x80), data[0] & 0x0F, payload
    del data[:end]
    return found


@pytest.fixture
def every_way(make_peer, tls):
    """``async with every_way(way, ear) as connect``: a server, and what opens a connection."""

    @asynccontextmanager
    async def every_way(way, ear):
        async def meet(stream):
            if way.is_secure:
                stream = trio.SSLStream(stream, tls.server, server_side=True, https_compatible=True)
            await ear.serve(make_peer(stream))

        async def accept(listener):
            async with listener:
                stream = await listener.accept()
            await meet(stream)

        async def open_stream(host, port):
            await trio.lowlevel.checkpoint()
            if way.is_slow:
                ours, theirs = trio.testing.lockstep_stream_pair()
            else:
                ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(meet, theirs)
            return ours

        async with trio.open_nursery() as nursery:
            port = 443
            if way.is_real:
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                if way.is_slow:
                    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFERS)
                port = listener.socket.getsockname()[1]
                nursery.start_soon(accept, listener)
            else:
                stream_opener.set(open_stream)

            @asynccontextmanager
            async def connect():
                use_ssl = way.is_secure and tls.client
                async with open_websocket("127.0.0.1", port, "/", use_ssl=use_ssl) as connection:
                    if way.is_real and way.is_slow:
                        connection._stream.socket.setsockopt(
                            socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFERS
                        )
                    yield connection

            yield connect
            nursery.cancel_scope.cancel()

    return every_way


SHORT = ["first", "second" * 20, "third"]
LONG = ["x" * MIB]
LONG_COMING = ["first", b"x" * 300_000, "between", b"y" * 150_000]
COMING = ["first", "", "second" * 20_000, "third", "é" * 300, "last"]


@attrs.define
class Call:
    """A call of a connection's, and what must hold however it ended."""

    do: object
    """Makes the calls; what came of each goes into a list that it is given."""
    sends: list = attrs.field(factory=list)
    """The messages that they send, one after the other."""
    receives: list = attrs.field(factory=list)
    """Those that the server sends meanwhile."""
    ends: bool = False
    """Whether the connection may have ended with it."""


async def send(connection, done, messages):
    for message in messages:
        await connection.send_message(message)
        done.append(message)


async def send_at_the_same_time(connection, done, messages):
    async with trio.open_nursery() as nursery:
        for message in messages:
            nursery.start_soon(send, connection, done, [message])


async def send_parts(connection, done, messages):
    async def parts():
        for start in range(0, len(message), 2**15):
            await trio.lowlevel.checkpoint()
            yield message[start : start + 2**15]

    for message in messages:
        await connection.send_parts(parts())
        done.append(message)


async def get(connection, done, messages):
    while len(done) < len(COMING):
        done.append(await connection.get_message())


async def get_long(connection, done, messages):
    while len(done) < len(LONG_COMING):
        done.append(await connection.get_message())


async def iterate(connection, done, messages):
    async for message in connection:
        done.append(message)
        if len(done) == len(COMING):
            break


async def receive_many(connection, done, messages):
    while len(done) < len(COMING):
        done += await connection.receive_many()


async def receive_in_parts(connection, done, messages):
    for _ in COMING:
        done.append("")
        async for part in connection.receive_parts():
            done[-1] += part


async def ping(connection, done, messages):
    for _ in range(3):
        await connection.ping()


async def pong(connection, done, messages):
    for _ in range(3):
        await connection.pong(b"unasked")


async def close(connection, done, messages):
    await connection.aclose(4000, "why")


async def leave(connection, done, messages):
    async with connection:
        await send(connection, done, messages)


CALLS = {
    "send": Call(send, SHORT),
    "send 1 MiB": Call(send, LONG),
    "send at the same time": Call(send_at_the_same_time, ["a" * 70_000, "b", "c" * 70_000, "d"]),
    "send_parts": Call(send_parts, ["x" * 100_000, "y"], ends=True),
    "get_message": Call(get, receives=COMING),
    "get_message, long": Call(get_long, receives=LONG_COMING),
    "async for": Call(iterate, receives=COMING),
    "receive_many": Call(receive_many, receives=COMING),
    "receive_parts": Call(receive_in_parts, receives=COMING),
    "ping": Call(ping),
    "pong": Call(pong),
    "aclose": Call(close, ends=True),
    "async with": Call(leave, SHORT, ends=True),
}


def says_of(frame, call):
    """What the server sends, in pieces that end anywhere."""
    says = b"".join(
        frame(TEXT, message.encode()) if isinstance(message, str) else frame(BINARY, message)
        for message in call.receives
    )
    return [says[start : start + 50_001] for start in range(0, len(says), 50_001)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_can_be_cancelled_at_every_step(every_way, frame, way, name):
    way, call = WAYS[way], CALLS[name]
    says = says_of(frame, call)

    async def story(instrument):
        ear = Ear(way, says)
        began_at = trio.current_time()
        async with every_way(way, ear) as connect, connect() as connection:
            done = []
            scope = trio.CancelScope()
            with scope:
                ear.may_speak.set()
                instrument.act = scope.cancel
                await call.do(connection, done, call.sends)
            instrument.act = None
            with trio.fail_after(LIMIT):
                if connection.closed is None:
                    if name == "receive_parts":
                        # The rest of a message begins with what was not taken of it.
                        while "".join(done) != "".join(COMING):
                            done.append(await connection.get_message())
                    else:
                        while len(done) < len(call.receives):
                            done.append(await connection.get_message())
                        assert call.receives in ([], done)
                    await connection.send_message(MARKER)
                    await ear.marked.wait()
                else:
                    assert call.ends
                assert 0 == len(connection._pings)
                is_alive = connection.closed is None
                await connection.aclose()
                await ear.ended.wait()
            heard = [message for message in ear.messages if message != MARKER]
            if call.sends:
                assert set(done) <= set(heard) <= set(call.sends)
                assert len(heard) == len(set(heard))
            if "same time" not in name:
                assert call.sends[: len(heard)] == heard
            if is_alive:
                assert b"\x03\xe8" == ear.close
                assert [] == ear.fragments
                assert not ear.is_cut
            elif name == "send_parts":
                assert 1011 == connection.closed.code
            if not scope.cancelled_caught:
                assert sorted(call.sends) == sorted(heard)
            assert ear.violation is None
            await closed(connection._stream)
            assert trio.current_time() - began_at < LIMIT

    assert every_step(story, is_real=way.is_real) > 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CALLS)
def test_a_connection_can_be_cancelled_at_every_step_of_a_call(every_way, frame, way, name):
    """Reader and writer too, in the midst of what they do."""
    way, call = WAYS[way], CALLS[name]
    says = says_of(frame, call)

    async def story(instrument):
        ear = Ear(way, says)
        began_at = trio.current_time()
        async with every_way(way, ear) as connect:
            has_closed = call.ends
            with trio.CancelScope() as scope:
                async with connect() as connection:
                    ear.may_speak.set()
                    instrument.act = scope.cancel
                    await call.do(connection, [], call.sends)
                    # The writer may still be at it.
                    await ear.wait_heard(len(call.sends))
                    has_closed = True
                    await connection.aclose()
            instrument.act = None
            with trio.fail_after(LIMIT):
                await ear.ended.wait()
                assert connection.closed is not None
                with pytest.raises(ConnectionClosed):
                    await connection.send_message("too late")
            assert set(ear.messages) <= set(call.sends)
            assert len(ear.messages) == len(set(ear.messages))
            if "same time" not in name:
                assert call.sends[: len(ear.messages)] == ear.messages
            if way.is_real and not has_closed:
                # What had begun to be written has gone out, and a close frame behind it.
                assert not ear.is_cut
                assert ear.close is not None
            if not scope.cancelled_caught:
                assert sorted(call.sends) == sorted(ear.messages)
                assert not ear.is_cut
            assert ear.violation is None
            await closed(connection._stream)
            assert trio.current_time() - began_at < LIMIT

    assert every_step(story, is_real=way.is_real) > 5


@pytest.mark.parametrize("way", WAYS)
def test_opening_can_be_cancelled_at_every_step(every_way, way):
    way = WAYS[way]

    async def story(instrument):
        ear = Ear(way, [])
        began_at = trio.current_time()
        async with every_way(way, ear) as connect:
            scope = trio.CancelScope()
            with scope:
                instrument.act = scope.cancel
                async with connect() as connection:
                    await connection.send_message("hello")
            instrument.act = None
            if ear.is_met:
                with trio.fail_after(LIMIT):
                    await ear.ended.wait()
            assert trio.current_time() - began_at < LIMIT
            assert ear.messages in ([], ["hello"])
            if not scope.cancelled_caught:
                assert ["hello"] == ear.messages

    assert every_step(story, is_real=way.is_real) > 10
