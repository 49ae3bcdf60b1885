"""What the tests of the session share: virtual time, an in-memory network, and sweeps."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import trio
import trio.testing

import wsclient
from wsclient.options import DeliveryOptions, HeartbeatOptions, RetryPolicy
from wsclient.testing import EventRecorder, memory_network

from .subscribing import Two

A_DAY = 24 * 3600.0


async def _end_a_hang():
    # Virtual time flies: whoever waits for what never comes is found in no time.
    await trio.sleep(A_DAY)
    raise AssertionError("the test waits for something that does not come")


@pytest.fixture
async def network(autojump_clock, nursery):
    """An in-memory network, on virtual time."""
    # pytest-trio looks for a clock among a test's own arguments only.
    assert autojump_clock is trio.lowlevel.current_clock(), "the test must ask for autojump_clock"
    nursery.start_soon(_end_a_hang)
    with memory_network() as network:
        yield network


@pytest.fixture
def recorder():
    return EventRecorder()


class Cancellation(trio.abc.Instrument):
    """Cancels ``scope`` before the scheduler's n-th step (from 1), or as soon as it is entered."""

    def __init__(self, step):
        self.scope = trio.CancelScope()
        self.at = None
        """When it happened, in virtual seconds."""
        self._step = step
        self._steps = 0

    def before_task_step(self, task):
        self._steps += 1
        is_entered = self.scope._cancel_status is not None
        if self.at is None and self._steps >= self._step and is_entered:
            self.at = trio.current_time()
            self.scope.cancel()


@pytest.fixture
def cancel_at_every_step():
    """Runs a scenario again and again, cancelled at its first step, at its second, and so on.

    ``await scenario(cancellation)`` enters ``cancellation.scope`` around what is to be cancelled,
    and makes its own checks after.  It ends when a run was over before its step came; returns how
    many runs there were.
    """

    def sweep(scenario):
        for step in itertools.count(1):
            cancellation = Cancellation(step)
            try:
                trio.run(
                    scenario,
                    cancellation,
                    clock=trio.testing.MockClock(autojump_threshold=0),
                    instruments=[cancellation],
                )
            except BaseException as error:
                error.add_note(f"cancelled at step {step}")
                raise
            if cancellation.at is None:
                break
        return step

    return sweep


@pytest.fixture
def run_on_virtual_time():
    """``trio.run`` for tests that are many runs in one."""

    def run(function, *args, **options):
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(functools.partial(function, *args, **options), clock=clock)

    return run


# --- sending, to a peer of which the test says every word ----------------------------------------


class Heard:
    """What the peer of one connection has heard, and how it answers."""

    def __init__(self, peer):
        self.peer = peer
        self.messages = []
        """All messages, as ``str`` or ``bytes``."""
        self.pings = []
        """The payloads of all pings."""

    async def listen(self):
        """Take one frame; false at the end of the stream, and at a close frame."""
        try:
            frame = await self.peer.receive_frame()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        if frame is None or frame[0] == 0x8:
            return False
        opcode, payload = frame
        if opcode == 0x1:
            self.messages.append(payload.decode())
        elif opcode == 0x2:
            self.messages.append(payload)
        elif opcode == 0x9:
            self.pings.append(payload)
        return True

    async def hear(self, count):
        """Listen until so many messages have come on this connection; return these."""
        while len(self.messages) < count:
            assert await self.listen()
        return self.messages

    async def hear_pings(self, count):
        """Listen until so many pings have come on this connection."""
        while len(self.pings) < count:
            assert await self.listen()

    async def pong(self):
        """Answer the last ping, and so all before it."""
        await self.peer.send_frame(0xA, self.pings[-1])

    async def say(self, text):
        await self.peer.send_frame(0x1, text.encode())

    async def acknowledge(self, message):
        await self.say(f"ack {id_of(message)}")

    async def serve(self, *, acknowledge=True):
        """Answer every ping, acknowledge what carries an id, until the client goes."""
        pings = len(self.pings)
        messages = len(self.messages)
        while await self.listen():
            if len(self.pings) > pings:
                pings += 1
                await self.pong()
            if len(self.messages) > messages:
                message = self.messages[messages]
                messages += 1
                if acknowledge and id_of(message):
                    await self.acknowledge(message)
        await self.peer.stream.aclose()

    async def leave(self, code):
        """Close the connection with ``code``, without waiting for an answer."""
        await self.peer.send_frame(0x8, code.to_bytes(2))
        await self.peer.stream.aclose()

    def die(self):
        """Reset the connection."""
        self.peer.stream.reset()


def id_of(message):
    """The id that ``ByHand.acknowledged`` has put into a message, if one is there."""
    return message.partition("#")[2].rstrip("!") if isinstance(message, str) else ""


def _mark(message, key, redelivered):
    return f"{message}#{key}{'!' if redelivered else ''}"


def _recognise(message):
    word, _, key = message.partition(" ")
    return wsclient.Ack(key, word == "ack") if word in ("ack", "nack") else None


class ByHand:
    """A server that does nothing by itself; and a channel to it that does little, either.

    On the wire, a message sent as ``ACKED`` is ``message#id``, and ``message#id!`` when it goes
    again; ``ack id`` and ``nack id`` answer it.
    """

    acknowledgement = wsclient.FunctionAcknowledgement(_mark, _recognise)

    def __init__(self, listener, make_peer):
        self._listener = listener
        self._make_peer = make_peer

    def open_channel(
        self,
        *,
        observers=(),
        limits=None,
        heartbeat=None,
        retry=None,
        connection=None,
        on_connect=None,
        **delivery,
    ):
        return wsclient.open_channel(
            "ws://hand.test",
            heartbeat=heartbeat or HeartbeatOptions(interval=math.inf),
            retry=retry or RetryPolicy(wait=lambda _: 0),
            delivery=DeliveryOptions(acknowledgement=self.acknowledgement, **delivery),
            limits=limits,
            connection=connection,
            on_connect=on_connect,
            observers=observers,
        )

    async def accept(self):
        """Let the channel connect; return what is heard."""
        peer = self._make_peer(await self._listener.accept())
        await peer.accept()
        return Heard(peer)

    def refuse(self):
        """Have nobody listen any more."""
        self._listener.close()


@pytest.fixture
def by_hand(network, make_peer):
    """A server that the test plays, and the channel to it."""
    return ByHand(network.listen("hand.test", 80), make_peer)


@pytest.fixture
def two(by_hand):
    return Two(by_hand)


@pytest.fixture
def said():
    """What of a list of heard messages the user said: without ids and marks."""
    return lambda messages: [message.partition("#")[0] for message in messages]
