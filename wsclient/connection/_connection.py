"""One connection, from open to closed.

Three parts, each the only one of its kind: a *reader* (the loop in ``_read``), a *writer*
(``_writer.py``) and a *mailbox* between the reader and whoever wants the messages.  One task runs
reader and writer and closes the stream on every way out.

How a connection ends: ``closed`` is set once a close begins, from either side; it is the peer's
reason where the peer gave one.  Every wait ends then: nobody waits on a closed connection.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import ClassVar, Final, Protocol

import trio

from wsclient.codes import CloseCode, CloseReason, is_sendable
from wsclient.errors import ConnectionClosed, DisconnectionTimeout
from wsclient.options import ConnectionOptions
from wsclient.protocol import (
    Accepted,
    ClientProtocol,
    CloseReceived,
    PingReceived,
    PongReceived,
    ProtocolViolated,
    State,
    encoded_size,
)
from wsclient.protocol._machine import Input

from ._endpoint import Endpoint, stream_endpoint
from ._mailbox import Mailbox
from ._nursery import open_background_nursery
from ._pings import Ping, Pings, check_control_payload
from ._writer import Posted, Source, Writer

LINGER: Final = 2.0
"""Seconds that we wait for the peer to end the stream after the last close frame.

RFC 6455 §7.1.1 wants the server to close first; it does not say what to do if it never does.
"""

LINGER_SIZE: Final = 2**20
"""Bytes that we read and discard meanwhile: closing on unread bytes would reset the connection and
may destroy our close frame on its way; reading without an end would let a peer keep us busy."""

SLICE_SIZE: Final = 2048
"""Bytes that are understood in one step: of empty frames, they take about 20 ms."""

LAST_WORD: Final = 1.0
"""Seconds that a cancelled connection may take to write its close frame.

In practice none: the frame fits the socket's buffer, or the path is dead.
"""

_DONE_WELL: Final = (
    CloseCode.NORMAL_CLOSURE,
    CloseCode.GOING_AWAY,
    CloseCode.NO_STATUS_RCVD,
)


class Inbox(Protocol):
    """Where the reader puts messages."""

    @property
    def has_room(self) -> bool:
        """Whether it makes sense to read on."""

    def put(self, items: Sequence[tuple[str | bytes, int]]) -> None:
        """Add messages, each with its size in bytes."""

    async def wait_for_room(self) -> None:
        """Wait until it does."""


class WebSocketConnection(trio.abc.AsyncResource):
    """A WebSocket connection, as the functions ``open_websocket…`` and ``connect_websocket…`` make.

    Any number of tasks may send, and any number receive: each message goes to one of them.
    Sends are written in the order of the calls.
    Cancelling any call is safe: no message is lost, and none is written in part.

    Resource handling:
        Close it with :meth:`aclose`, or leave an ``async with`` block; its nursery's end closes it
        too.
    """

    CONNECTION_ID: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(
        self,
        stream: trio.abc.Stream,
        accepted: Accepted,
        options: ConnectionOptions,
        *,
        path: str,
        endpoint: str,
    ) -> None:
        self._id = next(self.CONNECTION_ID)
        self._stream = stream
        self._options = options
        self._accepted = accepted
        self._path = path
        self._endpoint = endpoint
        self._closed: CloseReason | None = None
        self._protocol = ClientProtocol(max_message_size=options.max_message_size)
        self._writer = Writer(stream, self._protocol)
        self._mailbox: Mailbox[str | bytes] = Mailbox(options.message_queue_size)
        self._inbox: Inbox = self._mailbox
        self._pings = Pings()
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._answered = trio.Event()
        self._answered.set()
        self._stream_closed = trio.Event()
        self._wants_last_word = True
        self._last_received = self._reading_since = trio.current_time()
        self._reads = trio.Event()
        self._reads.set()

    # What it is.

    @property
    def closed(self) -> CloseReason | None:
        """Why the connection is closed, or closing; ``None`` while it is open."""
        return self._closed

    @property
    def is_client(self) -> bool:
        """True: this package has no server."""
        return True

    @property
    def is_server(self) -> bool:
        """False."""
        return False

    @property
    def local(self) -> Endpoint | str:
        """Our end of the connection; a description where the stream is not TCP or is closed."""
        return self._stream_endpoint(local=True)

    @property
    def remote(self) -> Endpoint | str:
        """The peer's end of the connection; a description where the stream is not TCP or closed."""
        return self._stream_endpoint(local=False)

    def _stream_endpoint(self, *, local: bool) -> Endpoint | str:
        try:
            return stream_endpoint(self._stream, local=local)
        except OSError:
            return repr(self._stream)

    @property
    def path(self) -> str:
        """The resource that was asked for: path and query."""
        return self._path

    @property
    def subprotocol(self) -> str | None:
        """What the server chose of the subprotocols offered."""
        return self._accepted.subprotocol

    @property
    def handshake_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of the server's answer, without the handshake's own; names in lower case."""
        return self._accepted.headers

    @property
    def latency(self) -> float | None:
        """Seconds of the last ping's round trip; ``None`` before the first pong."""
        return self._pings.latency

    @property
    def last_received(self) -> float:
        """When the last byte came (trio's clock, seconds); the opening counts as one."""
        return self._last_received

    def __str__(self) -> str:
        return f"client-{self._id}"

    def __repr__(self) -> str:
        state = "open" if self._closed is None else f"closed: {self._closed}"
        return f"<{type(self).__name__} {self} {self._endpoint} {state}>"

    # Messages.

    async def get_message(self) -> str | bytes:
        """Wait for the next message.

        Messages that came before the peer closed can still be read afterwards.

        Raises:
            ConnectionClosed: There is none and will be none.
        """
        try:
            return await self._mailbox.take()
        except trio.EndOfChannel:
            raise ConnectionClosed(self._closed) from None

    def __aiter__(self) -> WebSocketConnection:
        return self

    async def __anext__(self) -> str | bytes:
        """The next message; the end after close codes 1000, 1001 and 1005.

        Raises:
            ConnectionClosed: The connection ended with any other code.
        """
        try:
            return await self._mailbox.take()
        except trio.EndOfChannel:
            if self._closed is not None and self._closed.code in _DONE_WELL:
                raise StopAsyncIteration from None
            raise ConnectionClosed(self._closed) from None

    async def send_message(self, message: str | bytes) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary; return when it was handed over.

        Cancelled before its first byte was written, it is not sent at all; after, it is sent as a
        whole.

        Raises:
            ConnectionClosed: The connection is closed or closing.
            ValueError: ``message`` is of another type, or cannot be encoded as UTF-8.
        """
        self._check_open()
        if isinstance(message, str):
            if not message.isascii():
                message.encode()  # A lone surrogate is the caller's mistake, not the writer's.
        elif not isinstance(message, bytes):
            raise ValueError("message must be str or bytes")
        await self._post(Input.SEND_MESSAGE, message)

    async def ping(self, payload: bytes | None = None) -> None:
        """Send a ping and wait for its pong, without a time limit; see ``trio.fail_after``.

        Args:
            payload: At most 125 bytes, unlike that of any ping in flight; ``None`` picks one.

        Raises:
            ConnectionClosed: The connection is closed, or ends before the pong.
            TypeError: The payload is not bytes.
            ValueError: The payload is too long or in flight.
        """
        self._check_open()
        # Listening before asking: the pong may come while we still write.
        ping = self._pings.register(payload)
        try:
            await self._post(Input.SEND_PING, ping.payload)
            await ping.resolved.wait()
        finally:
            self._pings.forget(ping)
        if not ping.answered:
            raise ConnectionClosed(self._closed)

    async def pong(self, payload: bytes | None = None) -> None:
        """Send a pong that nobody asked for (RFC 6455 §5.5.3).

        Args:
            payload: At most 125 bytes; ``None`` is empty.

        Raises:
            ConnectionClosed: The connection is closed or closing.
            TypeError: The payload is not bytes.
            ValueError: The payload is too long.
        """
        self._check_open()
        payload = b"" if payload is None else payload
        check_control_payload(payload)
        await self._post(Input.SEND_PONG, payload)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise ConnectionClosed(self._closed)

    async def _post(self, kind: Input, payload: str | bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        posted = Posted(kind, payload)
        self._writer.post(posted)
        if not await posted.wait():
            raise ConnectionClosed(self._closed)

    # Closing.

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection: send a close frame, wait for the peer's, close the stream.

        Messages that were not taken are discarded.
        Cancelled, it closes the stream at once; the same after ``disconnect_timeout``.
        On a connection that the peer has closed it waits only until that is answered.

        Args:
            code: A code that may be sent (RFC 6455 §7.4).
            reason: A text for the peer; cut to 123 bytes of UTF-8.

        Raises:
            DisconnectionTimeout: The peer's close frame did not come in time.
            TypeError: The arguments are of the wrong type.
            ValueError: The code may not be sent.
        """
        _check_close(code, reason)
        if self._closed is not None:
            with trio.move_on_after(LINGER):
                await self._answered.wait()
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        self._closed = CloseReason(CloseCode.NORMAL_CLOSURE)
        self._mailbox.end(discard=True)
        self._pings.give_up()
        self._writer.post_close(code, reason)
        timeout = self._options.disconnect_timeout
        with trio.move_on_after(timeout):
            try:
                await self._stream_closed.wait()
            except trio.Cancelled:
                self.abort()
                raise
        if not self._stream_closed.is_set():
            with trio.CancelScope(shield=True):
                await self._stream_closed.wait()
            self._closed = CloseReason(CloseCode.ABNORMAL_CLOSURE)
            raise DisconnectionTimeout(
                f"{self._endpoint} did not answer our close frame within {timeout:g} s"
            )
        await trio.lowlevel.checkpoint_if_cancelled()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection; an exception that leaves the block does not wait for the peer."""
        if error is None:
            await self.aclose()
            return
        with trio.move_on_after(min(LAST_WORD, self._options.disconnect_timeout), shield=True):
            with suppress(DisconnectionTimeout):
                await self.aclose()

    def abort(self) -> None:
        """Give the connection up at once, without a close frame: for a path that is dead."""
        if self._closed is None:
            self._closed = CloseReason(CloseCode.ABNORMAL_CLOSURE)
        self._wants_last_word = False
        self._conclude()
        self._scope.cancel()

    async def wait_closed(self) -> CloseReason:
        """Wait until the connection is closed, from whichever side; return why."""
        await self._over.wait()
        assert self._closed is not None
        return self._closed

    def _conclude(self) -> None:
        """Nothing more will be received or sent: wake everyone who waits."""
        if self._closed is None:
            self._closed = CloseReason(CloseCode.ABNORMAL_CLOSURE)
        self._mailbox.end()
        self._pings.give_up()
        self._writer.give_up()
        self._reads.set()
        self._over.set()

    # The task.

    async def _run(self) -> None:
        """Read and write until the connection is over, and close its stream on every way out."""
        try:
            with self._scope:
                async with open_background_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    if self._wants_last_word:
                        with trio.move_on_after(LAST_WORD):
                            await self._writer.write_close(CloseCode.NORMAL_CLOSURE, None)
                finally:
                    try:
                        await trio.aclose_forcefully(self._stream)
                    finally:
                        # A stream of the user's may raise anything: nobody waits for ever then.
                        self._conclude()
                        self._answered.set()
                        self._stream_closed.set()

    async def _write(self) -> None:
        await self._writer.run()
        if self._writer.is_broken:
            # The peer may have said why before it cut us: let the reader find it.
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + LAST_WORD)

    async def _read(self) -> None:
        data = self._accepted.trailing
        while not await self._receive_slices(data):
            data = await self._receive_some()
            if not data:
                self._protocol.receive_eof()
                # In the same step: what is sent from here on would meet a protocol that is closed.
                self._conclude()
                return
            self._last_received = trio.current_time()
        # The peer's last word is said.  Where it answers ours, there is nothing left to wait for.
        answers = self._protocol.state is State.CLOSED
        self._conclude()
        with trio.move_on_after(LINGER):
            await self._writer.close_written.wait()
            self._answered.set()
            discarded = 0
            while not answers and discarded < LINGER_SIZE:
                data = await self._receive_some()
                if not data:
                    return
                discarded += len(data)

    async def _receive_slices(self, data: bytes) -> bool:
        """Act on what one read brought, bit by bit; true if it holds the peer's last word.

        A read of tiny frames takes long to understand: other tasks run between its slices, and a
        full inbox stops us there.
        """
        for start in range(0, len(data), SLICE_SIZE):
            if start:
                await trio.lowlevel.checkpoint()
            if not self._inbox.has_room:
                await self._wait_for_room()
            if self._receive(data[start : start + SLICE_SIZE]):
                return True
        if not self._inbox.has_room:
            await self._wait_for_room()
        return False

    async def _receive_some(self) -> bytes:
        """One read; empty at the end of the stream, however it came."""
        try:
            return bytes(await self._stream.receive_some(self._options.receive_buffer_size))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _wait_for_room(self) -> None:
        self._reads = trio.Event()
        try:
            await self._inbox.wait_for_room()
        finally:
            self._reading_since = trio.current_time()
            self._reads.set()

    def _receive(self, data: bytes) -> bool:
        """Act on what one read brought; true if it holds the peer's last word."""
        messages: list[tuple[str | bytes, int]] = []
        last_word: CloseReceived | ProtocolViolated | None = None
        for fact in self._protocol.receive_data(data):
            match fact:
                case str() | bytes():
                    messages.append((fact, encoded_size(fact)))
                case PingReceived(payload):
                    self._writer.post_pong(payload)
                case PongReceived(payload):
                    self._pings.received(payload)
                case CloseReceived() | ProtocolViolated():
                    last_word = fact
        self._inbox.put(messages)
        if last_word is None:
            return False
        self._closed = CloseReason(last_word.code, last_word.reason)
        if self._protocol.state is State.ANSWERING:
            self._answered = trio.Event()
        # A close frame is answered with its own code and reason (RFC 6455 §5.5.1).
        self._writer.post_close(last_word.code, last_word.reason)
        return True


def _check_close(code: object, reason: object) -> None:
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"a close code must be int, not {type(code).__name__}")
    if not is_sendable(code):
        raise ValueError(
            f"close code {code} cannot be sent: use 1000-1003, 1007-1014 or 3000-4999"
            " (RFC 6455 §7.4)"
        )
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f"a close reason must be str or None, not {type(reason).__name__}")
    if reason is not None:
        reason.encode()


# For the session floor: a connection that is one of many.


def attach(connection: WebSocketConnection, inbox: Inbox, source: Source) -> Callable[[], None]:
    """Let ``connection`` feed ``inbox`` and write what it pulls from ``source``.

    Messages that nobody took from the connection itself go first.

    Returns:
        What to call when ``source`` has something to pull.
    """
    inbox.put(take_untaken(connection))
    connection._inbox = inbox
    if connection.closed is None:
        connection._writer.source = source
    connection._writer.wake()
    return connection._writer.wake


def take_untaken(connection: WebSocketConnection) -> list[tuple[str | bytes, int]]:
    """Take the messages that nobody took, each with its size in bytes."""
    return connection._mailbox.take_all()


def start_ping(connection: WebSocketConnection) -> Ping:
    """Send a ping ahead of all messages, without waiting; its pong updates the latency.

    :func:`forget_ping` it in the end.
    """
    ping = connection._pings.register(None)
    connection._writer.post_ping(ping)
    return ping


def forget_ping(connection: WebSocketConnection, ping: Ping) -> None:
    """Stop to listen for the pong."""
    connection._pings.forget(ping)


def asked_at(connection: WebSocketConnection, ping: Ping) -> float:
    """Since when the peer could answer ``ping`` (trio's clock, seconds).

    While it waits behind a large message: since the peer last made room for more of that.
    """
    return connection._writer.progressed_at if ping.written_at is None else ping.written_at


async def wait_reading(connection: WebSocketConnection) -> float:
    """Wait until the reader reads, and is not waiting for a slow consumer.

    Returns:
        Since when it reads (trio's clock, seconds): before, the peer cannot be judged by what came.
    """
    while not connection._reads.is_set():
        await connection._reads.wait()
    return connection._reading_since
