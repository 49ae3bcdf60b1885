"""Cancelled, cut or disturbed at every single step of a story, a connection ends cleanly.

A *step* is one that trio's scheduler takes, in any task.  Over memory streams and on virtual time
a story takes the same few hundred of them each time, so each can be tried.
"""

from __future__ import annotations

import functools
import itertools
import math
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import attrs
import pytest
import trio
import trio.testing

from wsclient.connection import _cancellation, open_websocket, stream_opener, wrap_client_stream
from wsclient.connection._cancellation import cancel_status, is_cancelled
from wsclient.errors import ConnectionClosed, HandshakeError

TEXT, CLOSE = 1, 8
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


def every_step(story):
    """Run ``story`` once for each of its steps, with a disturbance before that step.

    ``story`` is an async function of the instrument, which it arms.  How long it is varies a
    little, since trio schedules at random: three in a row must have ended before their step.
    """
    step = ended_before = 0
    while ended_before < 3:
        step += 1
        instrument = AtStep(step)
        trio.run(
            story,
            instrument,
            clock=trio.testing.MockClock(autojump_threshold=0),
            instruments=[instrument],
        )
        ended_before = 0 if instrument.acted else ended_before + 1
    return step - ended_before


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
