"""Servers that mean harm, as data; and the process that plays one of them.

A mode is what the server answers to the handshake, what it sends then, and how often.
``python _evil.py MODE SCALE`` prints a port and plays the mode there; SCALE shortens it (0.1 sends
a tenth as often).  On the path ``/harmless`` it plays a good server, for the client to warm up.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import _wire as wire

PIECE: Final = 2**16  # bytes in one send, about
MIB: Final = 2**20

Step = tuple[bytes, int]
"""Bytes, and how often they are sent."""

ONCE: Final = 1
"""Never scaled: what has to be there once."""


@dataclass(frozen=True)
class Bomb:
    """A compressed message that inflates to so many bytes."""

    size: int

    def armed(self, scale: float) -> Step:
        return wire.bomb(max(MIB, int(self.size * scale))), ONCE


@dataclass(frozen=True)
class Mode:
    """One way to do harm.

    Attributes:
        story: What the server does, for a person.
        expected: Outcomes that are right: a close code, an error's name, or what ``_victim.py``
            calls it.
        steps: What follows the handshake's answer.
        answer: Sent instead of a 101.
        extension: A header line of the 101.
        app: What the client's program does: ``receive`` until something happens, ``sleep`` for
            some seconds without receiving, or ``close`` at once.
        on_close: The steps wait for the client's close frame.
        deaf: The server's kernel takes as little as it can, and the server reads nothing.
        stays: The server keeps the connection when it has sent everything.
        compressed: Means something only to a client that offers permessage-deflate.
    """

    story: str
    expected: tuple[str, ...]
    steps: tuple[Step | Bomb, ...] = ()
    answer: tuple[Step, ...] = ()
    extension: bytes = b""
    app: str = "receive"
    on_close: bool = False
    deaf: bool = False
    stays: bool = False
    compressed: bool = False


def _fragment(payload: bytes) -> bytes:
    return wire.frame(0, payload, fin=False)


OK: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
FORBIDDEN: Final = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 104857600\r\n\r\n"
GARBAGE: Final = wire.frame(wire.BINARY, bytes(PIECE))

MODES: Final = {
    "bomb-64": Mode(
        "64 KiB that inflate to 64 MiB",
        expected=("1009",),
        extension=wire.DEFLATE,
        steps=(Bomb(64 * MIB),),
        compressed=True,
    ),
    "bomb-512": Mode(
        "512 KiB that inflate to 512 MiB",
        expected=("1009",),
        extension=wire.DEFLATE,
        steps=(Bomb(512 * MIB),),
        compressed=True,
    ),
    "tiny-fragments": Mode(
        "800,000 fragments of one byte, and never the last",
        expected=("1009",),
        steps=((wire.frame(wire.TEXT, b"x", fin=False), ONCE), (_fragment(b"x"), 800_000)),
    ),
    "empty-fragments": Mode(
        "800,000 empty fragments, and never the last",
        expected=("1009",),
        steps=((wire.frame(wire.TEXT, b"", fin=False), ONCE), (_fragment(b""), 800_000)),
    ),
    "ping-flood": Mode(
        "600,000 pings whose pongs nobody reads, then a message",
        expected=("delivered",),
        steps=(
            (wire.frame(wire.PING, b"are you there?"), 600_000),
            (wire.frame(wire.TEXT, b"the end"), ONCE),
        ),
        deaf=True,
        stays=True,
    ),
    "declared-2^40": Mode(
        "a frame that says it has 2^40 bytes, and 64 MiB of them",
        expected=("1009",),
        steps=((wire.head(wire.BINARY, 2**40), ONCE), (bytes(PIECE), 1024)),
    ),
    "never-read": Mode(
        "300 MiB of messages for a program that takes none",
        expected=("open",),
        steps=((GARBAGE, 4800),),
        app="sleep",
    ),
    "garbage-after-error": Mode(
        "200 MiB of messages behind a reserved opcode",
        expected=("1002",),
        steps=((wire.frame(3, b"?"), ONCE), (GARBAGE, 3200)),
    ),
    "garbage-after-error-unread": Mode(
        "the same for a program that receives nothing for a while",
        expected=("1002",),
        steps=((wire.frame(3, b"?"), ONCE), (GARBAGE, 3200)),
        app="sleep",
    ),
    "header-line": Mode(
        "an answer with a header line of 100 MiB",
        expected=("HandshakeError",),
        answer=((OK + b"X-Long: ", ONCE), (b"x" * PIECE, 1600)),
    ),
    "headers": Mode(
        "an answer with a million headers",
        expected=("HandshakeError",),
        answer=((OK, ONCE), (b"X-Many: of them\r\n", 1_000_000)),
    ),
    "reject-body": Mode(
        "403 with a body of 100 MiB",
        expected=("HandshakeError",),
        answer=((FORBIDDEN, ONCE), (b"no, " * (PIECE // 4), 1600)),
    ),
    "window-bits": Mode(
        "permessage-deflate with server_max_window_bits=99",
        expected=("HandshakeError",),
        extension=wire.DEFLATE + b"; server_max_window_bits=99",
    ),
    "no-close-reply": Mode(
        "no answer to our close frame",
        expected=("DisconnectionTimeout",),
        app="close",
        stays=True,
    ),
    "garbage-for-close": Mode(
        "200 MiB of messages for an answer to our close frame",
        expected=("DisconnectionTimeout",),
        steps=((GARBAGE, 3200),),
        app="close",
        on_close=True,
        stays=True,
    ),
    "long-length": Mode(
        "a length of 5 in eight bytes",
        expected=("1002",),
        steps=((b"\x82\x7f" + (5).to_bytes(8) + b"hello", ONCE),),
    ),
}


def pieces(steps: Iterable[Step], scale: float) -> Iterator[bytes]:
    """The bytes of the steps, in sends of a decent size."""
    for data, times in steps:
        times = times if times == ONCE else max(1, int(times * scale))
        held = max(1, PIECE // len(data))
        for _ in range(times // held):
            yield data * held
        yield data * (times % held)


def play(peer: socket.socket, mode: Mode, steps: Iterable[Step], scale: float) -> None:
    """Play a mode to one client."""
    request = wire.read_request(peer)
    if not request:
        return
    if wire.path_of(request) == "/harmless":
        peer.sendall(wire.answer(request))
        if peer.recv(4096):
            peer.sendall(wire.CLOSE_1000)
        return
    if mode.answer:
        for data in pieces(mode.answer, scale):
            peer.sendall(data)
    else:
        peer.sendall(wire.answer(request, *filter(None, [mode.extension])))
    if mode.on_close:
        peer.recv(4096)
    for data in pieces(steps, scale):
        peer.sendall(data)
    if mode.stays:
        threading.Event().wait()
    # Not at once: what the client has sent would turn the end into a reset.
    peer.shutdown(socket.SHUT_WR)
    while peer.recv(65536):
        pass


def serve(name: str, scale: float) -> None:
    mode = MODES[name]
    # Before the client comes: to make a bomb takes seconds.
    steps = [step.armed(scale) if isinstance(step, Bomb) else step for step in mode.steps]
    listener = socket.socket()
    if mode.deaf:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(listener.getsockname()[1], flush=True)

    def client(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            play(peer, mode, steps, scale)

    while True:
        peer, _ = listener.accept()
        threading.Thread(target=client, args=(peer,), daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))
