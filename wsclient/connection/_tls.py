"""TLS over a socket that nobody else uses.

trio's ``SSLStream`` reads 16 KiB at a time and takes two locks and a checkpoint for each.  Here the
cipher text of one read, up to 256 KiB, is deciphered into one buffer, as a plain socket's bytes
would be; Python's ``ssl`` module does the rest, between two buffers of its own (``MemoryBIO``).
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Final, cast

import trio

from ._transport import READ_SIZE, Buffer, GetBuffer, SocketTransport, shared_buffer

RECORD_SIZE: Final = 16 * 1024
"""Bytes of plain text in a record at most (RFC 8446 §5.1)."""

_cipher_buffer: Final[Buffer] = trio.lowlevel.RunVar(
    "wsclient.connection.cipher_buffer", default=None
)


class TlsTransport(SocketTransport):
    """TLS, from the client's side; :meth:`do_handshake` comes first.

    Args:
        stream: As for :class:`SocketTransport`.
        read_size: Likewise.
        context: Whom to trust, and how.
        name: Whom the certificate has to name.
    """

    is_ssl = True

    def __init__(
        self,
        stream: trio.SocketStream,
        read_size: int | None,
        context: ssl.SSLContext,
        name: str,
    ) -> None:
        self._received, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._received, self._outgoing, server_hostname=name)
        super().__init__(stream, read_size)
        self._cipher_buffer = shared_buffer(_cipher_buffer)
        self._has_ended = False
        self._has_text = False  # Perhaps: the last read left no room for it.
        # Cipher text on its way, and of how many bytes of plain text.
        self._unsent: memoryview = memoryview(b"")
        self._sending = 0

    async def do_handshake(self) -> None:
        """Open TLS.

        Raises:
            ssl.SSLError: The peer is not who it should be, or does not speak TLS.
            trio.BrokenResourceError: It has closed the connection.
        """
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_all()
                while (size := self._receive_cipher_text()) < 0:
                    await trio.lowlevel.wait_readable(self._socket)
                if not size:
                    raise trio.BrokenResourceError from None
            except ssl.SSLError:
                self._send_waiting()  # The alert that says why.
                raise
            else:
                await self._send_all()
                return

    def receive_nowait(self, get_buffer: GetBuffer) -> tuple[bytearray | None, int] | None:
        while True:
            target = get_buffer()
            size = self._decipher(self._buffer if target is None else target)
            if not size and not self._has_ended:
                cipher_size = self._receive_cipher_text()
                if cipher_size < 0:
                    return None
                if cipher_size:
                    continue
            return (self._buffer if target is None else None), size

    async def wait_readable(self) -> None:
        if self._has_ended or self._has_text:
            # The socket need not become readable for what is here already.
            await trio.lowlevel.checkpoint()
        else:
            await super().wait_readable()

    def _decipher(self, buffer: bytearray | memoryview) -> int:
        """Fill ``buffer`` with plain text; return its size, 0 if there is none."""
        size = 0
        with memoryview(buffer) as target:
            try:
                while size < len(target):
                    with target[size:] as rest:
                        read = cast("int", self._ssl.read(RECORD_SIZE, rest))  # With a buffer.
                    if not read:
                        self._end()
                        break
                    size += read
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                # A violation: what came before it stands, and nothing follows.
                self._has_ended = True
        self._has_text = size == len(buffer)
        if self._outgoing.pending:
            try:
                self._send_waiting()  # An answer to the peer's TLS: new keys, an alert.
            except trio.BrokenResourceError:
                self._has_ended = True  # Nor does this make unsaid what came before.
        return size

    def _end(self) -> None:
        """Answer the peer's farewell (RFC 8446 §6.1): it may wait for that with its socket open."""
        self._has_ended = True
        with suppress(ssl.SSLError):
            self._ssl.unwrap()

    def _receive_cipher_text(self) -> int:
        """Take what cipher text is there; its size, 0 at the end of the stream, -1 if none is."""
        size = self._read(self._cipher_buffer, self._read_size)
        if size > 0:
            with memoryview(self._cipher_buffer)[:size] as data:
                self._received.write(data)
        return size

    def send_nowait(self, data: bytearray, start: int) -> int:
        # Also what an answer to the peer's TLS has pushed out meanwhile is still to be told of.
        if not self._sending:
            with memoryview(data)[start : start + READ_SIZE] as plain:
                try:
                    self._sending = self._ssl.write(plain)
                except ssl.SSLError as error:
                    raise trio.BrokenResourceError from error
        # Bytes count as handed over when all of the cipher text that holds them is.
        self._send_waiting()
        if self._unsent:
            return 0
        sent, self._sending = self._sending, 0
        return sent

    def _send_waiting(self) -> None:
        """Send what cipher text there is, as far as the socket takes it."""
        if self._outgoing.pending:
            self._unsent = memoryview(self._unsent.tobytes() + self._outgoing.read())
        if self._unsent:
            self._unsent = self._unsent[self._send_nowait(self._unsent) :]

    async def _send_all(self) -> None:
        self._send_waiting()
        while self._unsent:
            await trio.lowlevel.wait_writable(self._socket)
            self._send_waiting()
