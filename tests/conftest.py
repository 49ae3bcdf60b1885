"""What the tests share.

Test modules cannot import one another (import mode ``importlib``), so helpers are fixtures that
return functions and classes.
"""

from __future__ import annotations

import base64
import functools
import gc
import hashlib
import math
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import coverage
import pytest
import trio
import trio.testing
import trio_websocket
import trustme

from wsclient.connection import WebSocketConnection, stream_opener, wrap_client_stream

# A shell's background job ignores these, and so would every program that a test starts and stops.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGQUIT") and signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Real servers are waited for, and other tests have the processor meanwhile; at the end there
    # would be none.
    items.sort(key=lambda item: item.get_closest_marker("servers") is None)


def pytest_sessionfinish() -> None:
    # Else coverage saves at exit, and pytest-xdist kills a process that takes long to exit.
    if measured := coverage.Coverage.current():
        measured.save()


# --- nothing is left behind ---------------------------------------------------------------------


def _open_files() -> dict[str, str]:
    """The open files of this process, by descriptor; nothing where the system does not tell."""
    found = {}
    try:
        names = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        return {}
    for name in names:
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # The listing's own.
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """After every test: no socket, no pipe.

    Tasks cannot outlive a trio run, and what is only collected as garbage warns (which is an
    error); trio's own descriptors are opened and closed between the two looks.
    """
    before = _open_files()
    yield
    left = _left(before)
    if left:
        # What a garbage collection closes warns that it was left open.
        gc.collect()
        left = _left(before)

    assert [] == left


def _left(before: dict[str, str]) -> list[str]:
    return [
        what
        for descriptor, what in _open_files().items()
        if before.get(descriptor) != what
        and what.startswith(("socket:", "pipe:", "anon_inode:[eventpoll]"))
    ]


# --- frames and answers, by hand ----------------------------------------------------------------


def make_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """One frame, right or wrong (RFC 6455 §5.2).

    Args:
        length: What the header says, if not the truth.
        length_bytes: 0, 2 or 8 bytes for the extended length, if not the shortest.
    """
    said = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if said < 126 else 2 if said < 2**16 else 8
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    second = {0: said, 2: 126, 8: 127}[length_bytes] | (0x80 if mask else 0)
    head = bytes([first, second]) + (said.to_bytes(length_bytes) if length_bytes else b"")
    return head + (mask + apply_mask(payload, mask) if mask else payload)


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


def take_client_frame(data: bytearray) -> tuple[int, bytes] | None:
    """Take one whole frame of a client from the head of ``data``; ``None`` if there is none.

    Frames of clients are masked and, here, never fragmented.
    """
    if len(data) < 2:
        return None
    assert data[0] & 0xF0 == 0x80, "FIN, and no reserved bit"
    assert data[1] & 0x80, "a client masks"
    length, head = data[1] & 0x7F, 2
    if length > 125:
        head = 4 if length == 126 else 10
        length = int.from_bytes(data[2:head])
    end = head + 4 + length
    if len(data) < end:
        return None
    payload = apply_mask(bytes(data[head + 4 : end]), bytes(data[head : head + 4]))
    opcode = data[0] & 0x0F
    del data[:end]
    return opcode, payload


def make_answer(request: bytes, *headers: bytes) -> bytes:
    """The 101 answer to a request, with more header lines."""
    key = next(
        line.split(b":", 1)[1].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return b"\r\n".join(
        [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
            *headers,
            b"",
            b"",
        ]
    )


@pytest.fixture
def frame() -> Callable[..., bytes]:
    return make_frame


@pytest.fixture
def take_frame() -> Callable[[bytearray], tuple[int, bytes] | None]:
    return take_client_frame


@pytest.fixture
def answer() -> Callable[..., bytes]:
    return make_answer


# --- a server that the test plays ---------------------------------------------------------------


class Peer:
    """The server's end of a connection; after :meth:`accept` the test says every byte."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = bytearray()

    async def read_request(self) -> bytes:
        while b"\r\n\r\n" not in self.received:
            data = await self.stream.receive_some()
            assert data, "the client went away inside its request"
            self.received += data
        request, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        self.received[:] = rest
        return request

    async def accept(self, *headers: bytes, trailing: bytes = b"") -> bytes:
        """Accept the upgrade; return the request."""
        request = await self.read_request()
        await self.send(make_answer(request, *headers) + trailing)
        return request

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send_frame(self, opcode: int, payload: bytes = b"") -> None:
        await self.send(make_frame(opcode, payload))

    def take_frame(self) -> tuple[int, bytes] | None:
        """The next frame, if it was received already."""
        return take_client_frame(self.received)

    async def receive_frame(self) -> tuple[int, bytes] | None:
        """The next frame; ``None`` at the end of the stream, which must not cut a frame."""
        while (found := self.take_frame()) is None:
            data = await self.stream.receive_some()
            if not data:
                assert not self.received, "the stream ended inside a frame"
                return None
            self.received += data
        return found

    async def receive_frames(self) -> list[tuple[int, bytes]]:
        """All that comes until the end of the stream."""
        frames = []
        while (found := await self.receive_frame()) is not None:
            frames.append(found)
        return frames

    async def receive_rest(self) -> bytes:
        """Every byte until the end of the stream."""
        while data := await self.stream.receive_some():
            self.received += data
        rest = bytes(self.received)
        self.received.clear()
        return rest

    async def answer_close(self) -> tuple[int, bytes] | None:
        """Wait for the client's close frame, echo it and end the stream, as a good server does."""
        while (found := await self.receive_frame()) is not None and found[0] != 8:
            pass
        if found is not None:
            await self.send_frame(*found)
        await self.stream.aclose()
        return found


@pytest.fixture
def make_peer() -> type[Peer]:
    return Peer


Connected = Callable[..., AbstractAsyncContextManager[tuple[WebSocketConnection, Peer]]]


@pytest.fixture
def connected() -> Connected:
    """Opens a connection over memory whose server is the test.

    ``async with connected(…) as (connection, peer)``; what is left is cancelled in the end.
    ``streams`` are the client's and the server's end; other options are wrap_client_stream's.
    """

    @asynccontextmanager
    async def connected(
        *headers: bytes,
        trailing: bytes = b"",
        streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
        **options: Any,
    ) -> AsyncGenerator[tuple[WebSocketConnection, Peer], None]:
        client, server = streams or trio.testing.memory_stream_pair()
        peer = Peer(server)
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(functools.partial(peer.accept, *headers, trailing=trailing))
                connection = await wrap_client_stream(
                    nursery, client, "test.example", "/", **options
                )
            yield connection, peer
            nursery.cancel_scope.cancel()

    return connected


class Network:
    """Every stream of this trio run leads here: the test accepts its other end.

    Attributes:
        client_streams: The clients' ends, in the order in which they were opened.
        make_pair: Makes the two ends of a stream.
    """

    def __init__(self) -> None:
        self.client_streams: list[trio.abc.Stream] = []
        self.make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = (
            trio.testing.memory_stream_pair
        )
        self._opened, self._accepted = trio.open_memory_channel[Peer](math.inf)

    async def open(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        client, server = self.make_pair()
        self.client_streams.append(client)
        self._opened.send_nowait(Peer(server))
        return client

    async def accept(self) -> Peer:
        return await self._accepted.receive()


@pytest.fixture
async def network() -> Network:
    """An in-memory network that ``open_websocket`` and its kin use."""
    network = Network()
    stream_opener.set(network.open)
    return network


# --- examples -----------------------------------------------------------------------------------

EXAMPLES = Path(__file__).parents[1] / "examples"


class Program:
    """An example that runs."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.errors = ""
        """What it wrote to stderr; whole once it has ended."""
        self._received = bytearray()

    async def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        # Below pytest's own limit, which would leave the process behind.
        with trio.fail_after(30):
            while b"\n" not in self._received:
                data = await self.process.stdout.receive_some()
                assert data, f"the program has ended after {self._received!r}:\n{self.errors}"
                self._received += data
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received[:] = rest
        return line.decode()

    async def rest(self) -> list[str]:
        """What is left of its output when it ends."""
        assert self.process.stdout is not None
        with trio.fail_after(30):
            async for data in self.process.stdout:
                self._received += data
            await self.process.wait()
        return bytes(self._received).decode().splitlines()

    async def type(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def end_input(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def read_errors(self) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.errors += data.decode()


@pytest.fixture
def run_example() -> Callable[..., AbstractAsyncContextManager[Program]]:
    """``async with run_example("bot.py", url) as program``; a warning in it is an error."""

    @asynccontextmanager
    async def run(name: str, *arguments: str) -> AsyncGenerator[Program, None]:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        program = Program(process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program.read_errors)
                try:
                    yield program
                    await process.wait()
                except BaseException:
                    process.kill()
                    nursery.cancel_scope.cancel()
                    raise
        finally:
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                await trio.aclose_forcefully(stream)

    return run


@pytest.fixture
def make_program() -> type[Program]:
    return Program


# --- ports --------------------------------------------------------------------------------------


@pytest.fixture
def take_port() -> Iterator[Callable[[], int]]:
    """Gives free ports, which stay ours: a server can die and listen again.

    A socket that is bound and does not listen keeps the system from giving the port to others, and
    does not keep a server from it (both have ``SO_REUSEADDR``).
    """
    with ExitStack() as held:

        def take() -> int:
            holder = held.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            port: int = holder.getsockname()[1]
            return port

        yield take


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tls() -> SimpleNamespace:
    """``server`` and ``client``: contexts that trust each other for localhost and 127.0.0.1.

    ``other_server``: for another name.  ``stranger``: a client that trusts nobody.
    """
    authority = trustme.CA()
    contexts = SimpleNamespace()
    for attribute, names in [
        ("server", ("localhost", "127.0.0.1")),
        ("other_server", ("other.example",)),
    ]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(context)
        setattr(contexts, attribute, context)
    contexts.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(contexts.client)
    contexts.stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return contexts


# --- a server of independent make, on loopback --------------------------------------------------


async def _serve(request: trio_websocket.WebSocketRequest) -> None:
    """What a server does is in the path: ``/echo``, ``/close?code=…&reason=…``, ``/reject`` …"""
    asked = urlsplit(request.path)
    query = {name: values[0] for name, values in parse_qs(asked.query).items()}
    if asked.path == "/reject":
        headers = [(b"X-Why", b"because"), (b"Content-Length", b"5")]
        await request.reject(int(query.get("status", 403)), extra_headers=headers, body=b"no, \xff")
        return
    connection = await request.accept(
        subprotocol=next(iter(request.proposed_subprotocols), None),
        extra_headers=[(b"X-Test-Header", b"My test header")],
    )
    try:
        if asked.path == "/close":
            await connection.aclose(int(query.get("code", 1000)), query.get("reason"))
        elif asked.path == "/headers":
            for name, value in request.headers:
                await connection.send_message(f"{name.decode()}: {value.decode()}")
            await connection.aclose()
        else:
            while True:
                await connection.send_message(await connection.get_message())
    except trio_websocket.ConnectionClosed:
        pass


@pytest.fixture
async def server(tls: SimpleNamespace) -> AsyncIterator[SimpleNamespace]:
    """trio-websocket's server on 127.0.0.1, ``port`` without and ``tls_port`` with TLS."""
    async with trio.open_nursery() as nursery:
        ports = []
        for context in (None, tls.server):
            serve = functools.partial(
                trio_websocket.serve_websocket, _serve, "127.0.0.1", 0, context
            )
            ports.append((await nursery.start(serve)).port)
        yield SimpleNamespace(host="127.0.0.1", port=ports[0], tls_port=ports[1])
        nursery.cancel_scope.cancel()
