"""A server process that is faster than any client: plain blocking sockets, ready-made frames.

Prints its two ports, without and with TLS, and serves until it is killed.
What it does is in the path:

/feed/KIND/COUNT/SIZE   sends messages; KIND is ``text``, ``json``, ``binary`` or
                        ``deflate``
/talk/KIND/COUNT/SIZE   likewise, and answers pings meanwhile
/sink/COUNT/SIZE        counts what it receives, and says so in a message
/echo                   sends back what it receives
/heed/COUNT             answers pings, acknowledges messages that begin with ``#`` by their first
                        word, and says so when it has COUNT messages
/idle                   answers the handshake and nothing more
/many/PEERS/COUNT/SIZE  waits for all peers, then sends each of them one text after another
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import select
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import _wire as wire

PIECE = 2**18  # bytes that one send takes
QUOTES = 2_000  # different messages; twenty times what a window holds, and still made at once
STACK = 2**18  # bytes for a thread: there may be thousands

gathered: dict[str, list[socket.socket]] = {}
gathering = threading.Lock()


class Park:
    """Keeps connections on which nothing happens until their clients leave, in one thread."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._peers: dict[int, socket.socket] = {}

    def put(self, peer: socket.socket) -> None:
        self._peers[peer.fileno()] = peer
        self._poll.register(peer, select.EPOLLIN)

    def run(self) -> None:
        while True:
            for number, _ in self._poll.poll():
                peer = self._peers.pop(number)
                self._poll.unregister(number)
                # With a reset: otherwise thousands of ports would have to wait for a minute.
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()


park = Park()


@cache
def frames(kind: str, size: int) -> tuple[bytes, ...]:
    """Frames to send in turn, again and again."""
    if kind == "deflate":
        return tuple(wire.deflated_quotes(QUOTES))
    if kind == "json":
        return tuple(wire.frame(wire.TEXT, quote.encode()) for quote in wire.quotes(QUOTES))
    if kind == "binary":
        return (wire.frame(wire.BINARY, wire.binary(size)),)
    return (wire.frame(wire.TEXT, wire.text(size).encode()),)


@cache
def piece(kind: str, size: int) -> tuple[bytes, int]:
    """Frames for one send, and how many they are."""
    once = b"".join(frames(kind, size))
    times = max(1, PIECE // len(once))
    return once * times, times * len(frames(kind, size))


def pieces(kind: str, count: int, size: int) -> Iterator[bytes]:
    data, held = piece(kind, size)
    for _ in range(count // held):
        yield data
    turn = frames(kind, size)
    yield b"".join(turn[number % len(turn)] for number in range(count % held))


def feed(peer: socket.socket, kind: str, count: int, size: int) -> None:
    for data in pieces(kind, count, size):
        peer.sendall(data)
    close(peer)


def talk(peer: socket.socket, kind: str, count: int, size: int) -> None:
    received = bytearray()
    for data in pieces(kind, count, size):
        peer.sendall(data)
        with contextlib.suppress(BlockingIOError):
            received += peer.recv(PIECE, socket.MSG_DONTWAIT)
        peer.sendall(b"".join(answers(received)))
    heed(peer, math.inf, received)


def sink(peer: socket.socket, count: int, size: int) -> None:
    buffer = bytearray(2**20)
    left = count * wire.masked_size(size)
    first = bytearray()
    while left > 0:
        received = peer.recv_into(buffer)
        if not received:
            return
        if len(first) < wire.masked_size(size):
            first += buffer[:received]
        left -= received
    opcode, payload = wire.take_client_frame(first) or (0, b"")
    good = payload in (wire.text(size).encode(), wire.binary(size)) and opcode in (1, 2)
    verdict = str(count) if good else "this is not what was to be sent"
    peer.sendall(wire.frame(wire.TEXT, verdict.encode()))
    close(peer)


def echo(peer: socket.socket) -> None:
    received = bytearray()
    while data := peer.recv(65536):
        received += data
        while (taken := wire.take_client_frame(received)) is not None:
            peer.sendall(wire.frame(*taken))
            if taken[0] == wire.CLOSE:
                return


def heed(peer: socket.socket, count: float, received: bytearray) -> None:
    left = itertools.count(count, -1)
    while data := peer.recv(2**18):
        received += data
        found = list(answers(received, left))
        if found:
            peer.sendall(b"".join(found))


def answers(received: bytearray, left: Iterator[float] | None = None) -> Iterator[bytes]:
    """What whole frames are answered with; ``left`` counts the messages that are still to come."""
    while (taken := wire.take_client_frame(received)) is not None:
        opcode, payload = taken
        if opcode == wire.PING:
            yield wire.frame(wire.PONG, payload)
        elif opcode == wire.CLOSE:
            yield wire.CLOSE_1000
        else:
            if payload.startswith(b"#"):
                yield wire.frame(wire.TEXT, payload.partition(b" ")[0])
            if left is not None and next(left) == 1:
                yield wire.frame(wire.TEXT, b"all")


def close(peer: socket.socket) -> None:
    """Wait for the client's close frame, and answer it."""
    if peer.recv(4096):
        peer.sendall(wire.CLOSE_1000)


def gather(peer: socket.socket, path: str, peers: int, count: int, size: int) -> None:
    with gathering:
        here = gathered.setdefault(path, [])
        here.append(peer)
        if len(here) < peers:
            return
        del gathered[path]
    sweep(here, count, wire.frame(wire.TEXT, wire.text(size).encode()))
    for peer in here:
        park.put(peer)


def sweep(peers: Iterable[socket.socket], count: int, data: bytes) -> None:
    """Send to one after another; who has no room has to wait, and the others need not."""
    left = {}
    poll = select.epoll()
    everything = memoryview(data * count)
    for peer in peers:
        peer.setblocking(False)
        left[peer.fileno()] = (peer, everything, len(data))
        poll.register(peer, select.EPOLLOUT)
    while left:
        for number, _ in poll.poll():
            peer, rest, size = left[number]
            with contextlib.suppress(BlockingIOError):
                rest = rest[peer.send(rest[:size]) :]
            # The rest of a frame first, should one ever be cut.
            left[number] = (peer, rest, len(rest) % len(data) or len(data))
            if not rest:
                poll.unregister(peer)
                del left[number]


def serve(peer: socket.socket, context: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            peer = context.wrap_socket(peer, server_side=True)
        request = wire.read_request(peer)
        path = wire.path_of(request)
        kind, *words = path.strip("/").split("/")
        numbers = [int(word) for word in words if word.isdecimal()]
        extension = [wire.DEFLATE] if "deflate" in words else []
        peer.sendall(wire.answer(request, *extension))
        match kind:
            case "feed":
                feed(peer, words[0], *numbers)
            case "talk":
                talk(peer, words[0], *numbers)
            case "sink":
                sink(peer, *numbers)
            case "echo":
                echo(peer)
            case "heed":
                heed(peer, numbers[0], bytearray())
            case "many":
                gather(peer, path, *numbers)
                return
            case _:
                park.put(peer)
                return
    peer.close()


def listen(context: ssl.SSLContext | None, port: int = 0) -> int:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)

    def accept() -> None:
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=serve, args=(peer, context), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", type=Path, help="folder with server.pem and server.key")
    parser.add_argument("--port", type=int, default=0, help="listen here; 0 is any")
    parser.add_argument("--when-told", action="store_true", help="wait for a line on stdin first")
    parser.add_argument("--core", type=int, help="run on this core only")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    threading.stack_size(STACK)
    if arguments.when_told:
        sys.stdin.readline()
    ports = [listen(None, arguments.port)]
    if arguments.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            arguments.certificate / "server.pem", arguments.certificate / "server.key"
        )
        ports.append(listen(context))
    print(*ports, flush=True)
    park.run()


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    main()
