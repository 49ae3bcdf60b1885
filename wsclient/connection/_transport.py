"""How a connection's bytes travel.

trio's streams are made for any caller: each call looks out for others, is a checkpoint, and takes
care of one buffer.  A connection has one reader, one writer and checkpoints of its own.  So over a
TCP socket that is its own it uses the socket itself: it reads into one buffer that all connections
of a trio run share (nothing waits between filling and decoding it), or to where a long message will
stay, and writes without waiting what the socket takes.  Over a stream that someone else has made,
it is content with the stream's interface.
"""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

import trio

from ._socket import has_answered

READ_SIZE: Final = 256 * 1024
"""Bytes per read at most: more no longer fits a processor's cache."""

AHEAD_SIZE: Final = 16 * 1024
"""Bytes that are read behind a long message: of the next one, they have to be copied."""

SMALL_SIZE: Final = 4 * 1024
"""Bytes of a read that has probably emptied the socket: the next one would bring nothing."""

WRITE_SLICE: Final = 16 * 1024
"""Bytes that are handed to a stream at a time: each time shows that the peer still reads."""

_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)

_TCP: Final = (socket.AF_INET, socket.AF_INET6)

GetBuffer: TypeAlias = Callable[[], memoryview | None]
"""Says where what comes next belongs; ``None`` is nowhere in particular."""

Buffer: TypeAlias = trio.lowlevel.RunVar[bytearray | None]

_read_buffer: Final[Buffer] = trio.lowlevel.RunVar("wsclient.connection.read_buffer", default=None)


def shared_buffer(which: Buffer) -> bytearray:
    """The one buffer of this trio run that all its connections read into."""
    buffer = which.get()
    if buffer is None:
        buffer = bytearray(READ_SIZE)
        which.set(buffer)
    return buffer


def _nowhere() -> None:
    """A :data:`GetBuffer`: in particular nowhere."""


class Transport(ABC):
    """A connection's way to its peer."""

    stream: trio.abc.Stream
    """What to close in the end."""

    is_ssl = False
    """Whether it goes over TLS, other than by a stream that does."""

    takes_at_once: bool
    """Whether :meth:`send_nowait` can hand over anything."""

    is_torn = False
    """Whether a write was cut short, so that nobody knows where: nothing may follow it."""

    is_peer_deaf = False
    """Whether the system has given the peer up, although the peer's system still answered: it
    lives, and its program reads nothing."""

    def has_unread(self) -> bool:
        """Whether bytes, or the end, wait to be received; false where nobody can tell."""
        return False

    @abstractmethod
    async def receive(self) -> tuple[bytes | bytearray, int]:
        """Wait for bytes.

        Returns:
            A buffer, and how many bytes in it are new; 0 at the end, however it came.
            The buffer is the caller's until its next checkpoint.
        """

    async def receive_into(self, get_buffer: GetBuffer) -> tuple[bytes | bytearray | None, int]:
        """Wait for bytes, to be where ``get_buffer`` says, if the transport knows how.

        Returns:
            As :meth:`receive`, with ``None`` for that place.
        """
        return await self.receive()

    @abstractmethod
    def send_nowait(self, data: bytearray, start: int) -> int:
        """Hand over what of ``data[start:]`` can be without waiting; return how many bytes.

        Raises:
            trio.BrokenResourceError: Nothing can be sent any more.
        """

    @abstractmethod
    async def send(self, data: bytearray, start: int) -> int:
        """Hand over some of ``data[start:]``, waiting as long as it takes; return how many bytes.

        A checkpoint.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: Nothing can be sent any more.
        """


class StreamTransport(Transport):
    """Any stream.

    Args:
        stream: What to read from and write to.
        read_size: Bytes per read at most; ``None`` leaves it to the stream.
    """

    takes_at_once = False

    def __init__(self, stream: trio.abc.Stream, read_size: int | None) -> None:
        self.stream = stream
        self._read_size = read_size

    async def receive(self) -> tuple[bytes | bytearray, int]:
        try:
            data = bytes(await self.stream.receive_some(self._read_size))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b"", 0
        return data, len(data)

    def send_nowait(self, data: bytearray, start: int) -> int:
        return 0

    async def send(self, data: bytearray, start: int) -> int:
        # Cancelled here, not a byte is written, and a farewell can be.
        await trio.lowlevel.checkpoint_if_cancelled()
        # A copy: messages are added behind it meanwhile.
        piece = bytes(data[start : start + WRITE_SLICE])
        self.is_torn = True
        await self.stream.send_all(piece)
        self.is_torn = False
        return len(piece)


class SocketTransport(Transport):
    """A socket that nobody else uses.

    Args:
        stream: Gives its socket away, and must not be used any more.
        read_size: Bytes per read at most; ``None`` is :data:`READ_SIZE`, which is the most.
    """

    takes_at_once = True

    def __init__(self, stream: trio.SocketStream, read_size: int | None) -> None:
        # The same socket once more, as one that we may call without awaiting.
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))
        if _NOTSENT_LOWAT is not None and self._socket.family in _TCP:
            # The system's own choice again: with trio's 16 KiB, a large message takes a fifth more
            # time, in smaller pieces.
            self._socket.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, 0)
        self._read_size = self._next_size = min(read_size or READ_SIZE, READ_SIZE)
        self._buffer = shared_buffer(_read_buffer)
        self._has_waited = True
        self._is_drained = False
        self._is_full = False

    def has_unread(self) -> bool:
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True  # What has happened waits to be learned.
        return True

    async def receive(self) -> tuple[bytes | bytearray, int]:
        _, size = await self.receive_into(_nowhere)
        return self._buffer, size

    async def receive_into(self, get_buffer: GetBuffer) -> tuple[bytes | bytearray | None, int]:
        # A connection waits here most of its life: what this holds, each idle one holds.
        if not self._has_waited:
            # A peer that sends without end leaves nothing to wait for: others run all the same.
            await trio.lowlevel.checkpoint()
        self._has_waited = False
        received = None if self._is_drained else self.receive_nowait(get_buffer)
        while received is None:
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except trio.ClosedResourceError:
                return None, 0
            self._has_waited = True
            received = self.receive_nowait(get_buffer)
        return received

    async def wait_readable(self) -> None:
        """Wait until :meth:`receive_nowait` may bring something, or :meth:`interrupt` is called."""
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except trio.ClosedResourceError:
            return

    def interrupt(self) -> None:
        """End a :meth:`wait_readable`, whether or not anything came."""
        with suppress(OSError):  # It may be closed already.
            trio.lowlevel.notify_closing(self._socket)

    def receive_nowait(self, get_buffer: GetBuffer) -> tuple[bytearray | None, int] | None:
        """What :meth:`receive_into` returns, or ``None`` if there is nothing to return."""
        # Asked for behind the checkpoint, and anew behind a wait: it may have become another one,
        # and whoever runs meanwhile may give memory back that it takes.
        target = get_buffer()
        if target is None:
            size = self._read(self._buffer, self._next_size)
            self._is_drained = size < min(self._next_size, SMALL_SIZE)
            if size == self._next_size:  # It was not much that was read ahead: there is more.
                self._next_size = self._read_size
        else:
            self._is_drained = False
            size = self._read(target, min(len(target), self._read_size))
            self._next_size = min(AHEAD_SIZE, self._read_size)
        return None if size < 0 else (self._buffer if target is None else None, size)

    def _read(self, target: bytearray | memoryview, most: int) -> int:
        """Fill the beginning of ``target``; return of how many bytes, 0 at the end, -1 if none."""
        try:
            return self._socket.recv_into(target, most)
        except BlockingIOError:
            return -1
        except OSError as error:
            self._note(error)
            return 0

    def send_nowait(self, data: bytearray, start: int) -> int:
        # The view is gone before anyone can add to the buffer.
        with memoryview(data)[start:] as rest:
            return self._send_nowait(rest)

    def _send_nowait(self, data: memoryview | bytes) -> int:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._note(error)
            raise trio.BrokenResourceError from error
        self._is_full = sent < len(data)
        return sent

    def _note(self, error: OSError) -> None:
        # Now: whoever reads or writes first gets it, and nobody gets it twice.
        if error.errno == errno.ETIMEDOUT and self._is_full and has_answered(self._socket):
            self.is_peer_deaf = True

    async def send(self, data: bytearray, start: int) -> int:
        if not self._is_full:
            # A peer that reads as fast as we write leaves nothing to wait for: others run, too.
            await trio.lowlevel.checkpoint()
        while True:
            if self._is_full:
                await self._wait_writable()
            sent = self.send_nowait(data, start)
            if sent:
                return sent

    async def _wait_writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except trio.ClosedResourceError:
            if self._socket.fileno() < 0:
                raise
            # It was a reader that should be interrupted, and trio cannot tell the two apart.
