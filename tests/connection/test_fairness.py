"""However much comes or goes, no task keeps the others waiting.

The other end is a thread with a plain socket, so that all tasks of the run are ours.
What is measured is the processor time of a step, which is what a busy machine does not stretch.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import math
import socket
import sys
import threading
import time
import zlib
from contextlib import contextmanager, suppress

import pytest
import trio

from wsclient.connection import open_websocket
from wsclient.errors import ConnectionClosed
from wsclient.options import Compression

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

IS_TRACED = sys.gettrace() is not None

LONGEST = math.inf if IS_TRACED else 0.05
"""Seconds that a step may take.  One that is traced line by line takes any time."""

SHARE = 10 if IS_TRACED else 1
"""Where no step is measured, one part in so many of a flood shows as well that it gets through."""

SLACK = 4
"""Times as long others may be kept waiting: that is wall time, on a machine with other work."""

MIB = 2**20


class Steps(trio.abc.Instrument):
    """Measures every step of every task."""

    def __init__(self):
        self.longest = 0.0
        self.of = None
        self._began = math.nan

    def before_task_step(self, task):
        self._began = time.thread_time()

    def after_task_step(self, task):
        took = time.thread_time() - self._began
        if took > self.longest:
            self.longest, self.of = took, task.name


class Other:
    """Another task that wants to run every millisecond, and how long it was kept waiting."""

    def __init__(self):
        self.gaps = []

    async def run(self):
        last = time.perf_counter()
        while True:
            await trio.sleep(0.001)
            now = time.perf_counter()
            self.gaps.append(now - last)
            last = now


@contextmanager
def server(talk, *headers, context=None):
    """A thread that accepts one connection and lets ``talk(socket, is_over)`` do what it likes.

    With a ``context`` over TLS.
    """

    def serve():
        with listener, suppress(OSError):
            client, _ = listener.accept()
            with context.wrap_socket(client, server_side=True) if context else client as client:
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += client.recv(65536)
                key = request.lower().partition(b"sec-websocket-key:")[2]
                key = request[len(request) - len(key) :].partition(b"\r\n")[0].strip()
                token = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
                client.sendall(
                    b"\r\n".join(
                        [
                            b"HTTP/1.1 101 Switching Protocols",
                            b"Upgrade: websocket",
                            b"Connection: Upgrade",
                            b"Sec-WebSocket-Accept: " + base64.b64encode(token),
                            *headers,
                            b"\r\n",
                        ]
                    )
                )
                talk(client, is_over)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    is_over = threading.Event()
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        is_over.set()
        thread.join(20)
        assert not thread.is_alive()


async def measured(port, use, *, use_ssl=False, **options):
    """Open a connection, let ``use(connection)`` do something with it; return what was noticed."""
    steps, other = Steps(), Other()
    gc.collect()
    gc.freeze()  # The many objects of other tests take their time to be looked at.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.run)
        async with open_websocket("127.0.0.1", port, "/", use_ssl=use_ssl, **options) as connection:
            trio.lowlevel.add_instrument(steps)
            # So that the step in which it began, and the one in which it ended, count.
            await trio.lowlevel.checkpoint()
            try:
                await use(connection)
                await trio.lowlevel.checkpoint()
            finally:
                gc.unfreeze()
                trio.lowlevel.remove_instrument(steps)
            connection.abort()
        nursery.cancel_scope.cancel()
    return steps, other


def check(steps, other):
    assert steps.longest < LONGEST, steps.of
    assert max(other.gaps) < SLACK * LONGEST


def sends(data, times=1):
    """A talk: send, and read what comes, whatever it is."""

    def talk(client, is_over):
        reader = threading.Thread(target=reads, args=[client, is_over])
        reader.start()
        with suppress(OSError):
            for _ in range(times):
                client.sendall(data)
        reader.join()

    return talk


def sends_and_never_reads(data, times=1):
    """A talk: send, and read nothing until the client has had enough."""

    def talk(client, is_over):
        with suppress(OSError):
            for _ in range(times):
                client.sendall(data)
        is_over.wait(20)

    return talk


def reads(client, is_over):
    with suppress(OSError):
        while client.recv(MIB):
            pass


def deflated(frame, data):
    compressor = zlib.compressobj(wbits=-15)
    payload = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, payload[:-4], rsv=4)


DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"


async def iterate(connection, count):
    async for _ in connection:
        count -= 1
        if not count:
            break


async def get(connection, count):
    for _ in range(count):
        await connection.get_message()


async def take_many(connection, count):
    while count > 0:
        count -= len(await connection.receive_many())


@pytest.mark.parametrize("take", [iterate, get, take_many])
@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 100], ids=len)
async def test_a_flood_of_short_messages_lets_others_run(frame, payload, take):
    block, times = frame(TEXT, payload) * 10_000, 20 // SHARE
    with server(sends(block, times)) as port:
        steps, other = await measured(port, lambda c: take(c, 10_000 * times))
    check(steps, other)


@pytest.mark.parametrize("payload", [b"", b"x"], ids=len)
async def test_a_flood_of_fragments_lets_others_run(frame, payload):
    async def use(connection):
        with pytest.raises(ConnectionClosed):
            await connection.get_message()

    data = frame(TEXT, b"x", fin=False) + frame(CONT, payload, fin=False) * 400_000
    with server(sends(data)) as port:
        steps, other = await measured(port, use)
    check(steps, other)


async def test_a_flood_of_compressed_messages_lets_others_run(frame):
    times = 200
    with server(sends(deflated(frame, b"x" * (MIB - 1)), times), DEFLATE) as port:
        steps, other = await measured(port, lambda c: get(c, times), compression=Compression())
    check(steps, other)


async def test_a_bomb_lets_others_run(frame):
    async def use(connection):
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert 1009 == caught.value.reason.code

    with server(sends(deflated(frame, bytes(256 * MIB))), DEFLATE) as port:
        steps, other = await measured(port, use, compression=Compression())
    check(steps, other)


@pytest.mark.parametrize("size", [0, 1, 50])
async def test_a_flood_of_short_compressed_messages_lets_others_run(frame, size):
    block, times = deflated(frame, b"x" * size) * 10_000, 10 // SHARE
    with server(sends(block, times), DEFLATE) as port:
        steps, other = await measured(
            port, lambda c: iterate(c, 10_000 * times), compression=Compression()
        )
    check(steps, other)


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_a_flood_of_fragmented_messages_lets_others_run(frame, is_compressed):
    first = frame(TEXT, b"\x00" if is_compressed else b"", fin=False, rsv=4 * is_compressed)
    block, times = (first + frame(CONT, b"")) * 10_000, 10 // SHARE
    with server(sends(block, times), DEFLATE) as port:
        steps, other = await measured(
            port, lambda c: iterate(c, 10_000 * times), compression=Compression()
        )
    check(steps, other)


@pytest.mark.parametrize("talk", [sends, sends_and_never_reads])
async def test_a_flood_of_pings_starves_nobody(frame, talk):
    """Neither other tasks nor the messages among the pings."""
    block, times = frame(PING, b"x" * 125) * 1000 + frame(TEXT, b"message"), 100 // SHARE
    with server(talk(block, times)) as port:
        steps, other = await measured(port, lambda c: get(c, times))
    check(steps, other)


FLOODS_OVER_TLS = {
    # name: (one block of it, how many blocks, messages in one)
    "short messages": (lambda f: f(TEXT, b"x" * 100) * 10_000, 20, 10_000),
    "long messages": (lambda f: f(BINARY, b"x" * MIB), 50, 1),
    "long texts": (lambda f: f(TEXT, "é".encode() * (MIB // 2)), 50, 1),
    "pings": (lambda f: f(PING, b"x" * 125) * 1000 + f(TEXT, b"message"), 100, 1),
    "fragments": (lambda f: (f(TEXT, fin=False) + f(CONT)) * 10_000, 10, 10_000),
}


@pytest.mark.parametrize("take", [iterate, get, take_many])
@pytest.mark.parametrize("name", FLOODS_OVER_TLS)
async def test_a_flood_over_tls_lets_others_run(frame, tls, take, name):
    make, times, messages = FLOODS_OVER_TLS[name]
    times //= SHARE
    # It reads nothing meanwhile: two threads must not use one TLS object.
    with server(sends_and_never_reads(make(frame), times), context=tls.server) as port:
        steps, other = await measured(port, lambda c: take(c, times * messages), use_ssl=tls.client)
    check(steps, other)


@pytest.mark.parametrize("take", [iterate, get, take_many])
@pytest.mark.parametrize(("size", "times"), [(MIB, 100), (16 * MIB, 10)], ids=str)
async def test_a_flood_of_long_messages_lets_others_run(frame, size, times, take):
    with server(sends(frame(BINARY, b"x" * size), times)) as port:
        steps, other = await measured(port, lambda c: take(c, times), max_message_size=size)
    check(steps, other)


async def test_a_tight_loop_of_sends_lets_others_run():
    async def use(connection):
        for _ in range(200_000 // SHARE):
            await connection.send_message("x" * 100)

    with server(reads) as port:
        steps, other = await measured(port, use)
    check(steps, other)


@pytest.mark.parametrize(
    "message", ["x" * MIB, "é" * (MIB // 2), b"x" * MIB], ids=["text", "utf", "binary"]
)
async def test_a_tight_loop_of_long_sends_lets_others_run(message):
    async def use(connection):
        for _ in range(50):
            await connection.send_message(message)

    with server(reads) as port:
        steps, other = await measured(port, use)
    check(steps, other)


async def test_a_tight_loop_of_compressed_sends_lets_others_run():
    async def use(connection):
        for _ in range(2):
            # Two in a row make a burst of what follows.
            await connection.send_message("short")
            await connection.send_message("short")
            for _ in range(40):
                await connection.send_message("0123456789abcdef" * 65536)

    with server(reads, DEFLATE) as port:
        steps, other = await measured(port, use, compression=Compression())
    check(steps, other)


async def test_a_tight_loop_of_pongs_lets_others_run():
    async def use(connection):
        for _ in range(50_000 // SHARE):
            await connection.pong(b"x")

    with server(reads) as port:
        steps, other = await measured(port, use)
    check(steps, other)


async def test_long_messages_let_others_run(frame):
    with server(sends(frame(TEXT, "é".encode() * (MIB // 2)), 50)) as port:
        steps, other = await measured(port, lambda c: get(c, 50))
    check(steps, other)
