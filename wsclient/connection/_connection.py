"""One connection, from open to closed.

Three parts, each the only one of its kind: a *reader* (the loop in ``_read``), a *writer*
(``_writer.py``) and a *mailbox* between the reader and whoever wants the messages.  One task runs
reader and writer and closes the stream on every way out; how the bytes travel is the transport's
(``_transport.py``).  Who waits for a message may relieve the reader meanwhile (``_relief.py``).

How a connection ends: ``closed`` is set once a close begins, from either side; it is the peer's
reason where the peer gave one.  Every wait ends then: nobody waits on a closed connection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import suppress
from types import NoneType, TracebackType
from typing import Any, ClassVar, Final, NoReturn, Protocol

import trio

from wsclient._discretion import forget_locals, forgetful
from wsclient.codes import CloseCode, CloseReason, is_sendable
from wsclient.errors import ConnectionClosed, DisconnectionTimeout
from wsclient.options import ConnectionOptions
from wsclient.protocol import (
    Accepted,
    ClientProtocol,
    CloseReceived,
    Fact,
    MessagePart,
    PingReceived,
    PongReceived,
    ProtocolViolated,
    SendClose,
    State,
    encoded_size,
)

from ._batches import MessageIterator
from ._cancellation import is_cancelled
from ._endpoint import Endpoint, stream_endpoint
from ._mailbox import Mailbox
from ._nursery import open_background_nursery
from ._pings import Ping, Pings, check_control_payload
from ._relief import Relief
from ._round_trips import RoundTrips
from ._signal import Signal
from ._transport import SocketTransport, Transport
from ._writer import Source, T, Writer

LINGER: Final = 2.0
"""Seconds that we wait for the peer to end the stream after the last close frame.

RFC 6455 §7.1.1 wants the server to close first; it does not say what to do if it never does.
"""

LINGER_SIZE: Final = 2**20
"""Bytes that we read and discard meanwhile: closing on unread bytes would reset the connection and
may destroy our close frame on its way; reading without an end would let a peer keep us busy."""

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

    def put(self, items: list[Any], size: int) -> None:
        """Add messages of ``size`` bytes together."""

    async def wait_for_room(self) -> None:
        """Wait until it does."""

    async def wait_wanted(self) -> None:
        """Wait until all messages were taken, and someone has come back for more."""


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

    _for_testing_peer_closed_connection: trio.Event | None = None
    """Put an event here, by this name of trio-websocket's, and it is set once the peer's close
    frame has come, before that is answered."""

    def __init__(
        self,
        transport: Transport,
        accepted: Accepted,
        options: ConnectionOptions,
        *,
        path: str,
        endpoint: str,
    ) -> None:
        self._id = next(self.CONNECTION_ID)
        self._transport = transport
        self._stream = transport.stream
        self._options = options
        self._accepted = accepted
        self._path = path
        self._endpoint = endpoint
        self._closed: CloseReason | None = None
        self._protocol = ClientProtocol(
            max_message_size=options.max_message_size,
            max_frame_size=options.max_frame_size,
            max_fragments=options.max_fragments,
            deflate=accepted.deflate,
        )
        self._join_burst = self._protocol.join_burst
        self._writer = Writer(transport, self._protocol)
        self._mailbox: Mailbox[str | bytes | MessagePart] = Mailbox(options.message_queue_size)
        self._inbox: Inbox = self._mailbox
        self._relief: Relief | None = None
        if isinstance(transport, SocketTransport):
            self._relief = Relief(transport, self._protocol, self._mailbox, self._received)
        self._pieces: list[str | bytes] = []
        self._pieces_size = 0
        self._uses_parts = False
        self._has_received = False
        self._pings = Pings()
        # Of the task, once it runs; and what is wanted of it before.
        self._nursery: trio.Nursery | None = None
        self._deadline = math.inf
        self._over = Signal()
        self._answered = Signal()
        self._answered.set()
        self._stream_closed = Signal()
        self._wants_last_word = True
        self._last_received = self._reading_since = trio.current_time()
        self._reads = Signal()
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
            return stream_endpoint(self._stream, local=local, is_ssl=self._transport.is_ssl)
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
    def extensions(self) -> tuple[str, ...]:
        """What was agreed on beside the protocol itself, as a header has it.

        ``("permessage-deflate; server_no_context_takeover",)``, or nothing.
        """
        deflate = self._accepted.deflate
        return () if deflate is None else (str(deflate),)

    @property
    def handshake_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of the server's answer, without the handshake's own; names in lower case."""
        return self._accepted.headers

    @property
    def latency(self) -> float | None:
        """Seconds of the last ping's round trip; ``None`` before the first pong."""
        trips = self._pings.round_trips
        return None if trips is None else trips.last

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
            return await self._whole(await self._mailbox.take())
        except trio.EndOfChannel:
            raise ConnectionClosed(self._closed) from None

    async def receive_many(self) -> list[str | bytes]:
        """Wait for messages, and take all that are there: at least one.

        Raises:
            ConnectionClosed: There is none and will be none.
        """
        messages = [await self.get_message()]
        while not isinstance(message := self._mailbox.peek(), (MessagePart, NoneType)):
            messages.append(message)
            self._mailbox.take_nowait()
        return messages

    def __aiter__(self) -> MessageIterator:
        """The messages, until close codes 1000, 1001 and 1005.

        Raises:
            ConnectionClosed: By the iterator: the connection ended with any other code.
        """
        return MessageIterator(self._mailbox.batches, self._next_message, self._whole_or_end)

    async def __anext__(self) -> str | bytes:
        """The next message; a loop takes the faster way of the iterator."""
        return await self._next_message()

    async def _next_message(self) -> str | bytes:
        try:
            return await self._whole(await self._mailbox.take())
        except trio.EndOfChannel:
            self._raise_end()

    async def _whole_or_end(self, part: MessagePart) -> str | bytes:
        try:
            return await self._whole(part)
        except trio.EndOfChannel:
            self._raise_end()

    def _raise_end(self) -> NoReturn:
        if self._closed is not None and self._closed.code in _DONE_WELL:
            raise StopAsyncIteration from None
        raise ConnectionClosed(self._closed) from None

    def receive_parts(self) -> MessageParts:
        """The next message in parts, as they come: ``async for part in …receive_parts()``.

        Parts are ``str`` of a text, ``bytes`` of a binary message, and never empty; a short message
        is one part, and an empty one none.
        From the first call on, messages that are not whole in one read are kept in parts, which
        count as messages in ``message_queue_size`` and are not limited by ``max_message_size``.

        Take all of them before the next message: what is left would begin it.

        Raises:
            ConnectionClosed: By the iterator: the message, or its rest, will not come.
        """
        self._protocol.in_parts = self._uses_parts = True
        return MessageParts(self._next_part)

    async def _next_part(self) -> str | bytes | MessagePart:
        try:
            part = await self._mailbox.take()
        except trio.EndOfChannel:
            raise ConnectionClosed(self._closed) from None
        if isinstance(part, MessagePart):
            # Perhaps behind what a get_message has taken that was cancelled.
            part = MessagePart(self._join(part), part.is_last)
        return part

    async def _whole(self, item: str | bytes | MessagePart) -> str | bytes:
        """Make one message of the part that was taken and those that follow it."""
        # What was taken stays in _pieces while this waits: cancelled, the next call goes on.  Of
        # two that wait, either may get the last part; the other one then gets another message.
        while isinstance(item, MessagePart):
            if item.is_last:
                return self._join(item)
            if not self._keep(item):
                raise ConnectionClosed(self._closed)
            item = await self._mailbox.take()
        return item

    def _keep(self, part: MessagePart) -> bool:
        """Keep a part of a message that shall be whole; false if it is too large for that."""
        self._pieces_size += encoded_size(part.data)
        limit = self._options.max_message_size
        if self._pieces_size > limit:
            # The size stays: whatever the peer sends until it is cut, nothing of it is kept.
            self._pieces.clear()
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"Exceeded maximum message size: {limit} bytes")
            return False
        self._pieces.append(part.data)
        return True

    def _join(self, part: MessagePart) -> str | bytes:
        pieces = [*self._pieces, part.data]
        self._pieces = []
        self._pieces_size = 0
        return type(part.data)().join(pieces)  # type: ignore[arg-type]

    async def send_message(self, message: str | bytes) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary; return when it was handed over.

        On a TCP socket, one of a burst of messages is handed over to our own buffer, which takes
        64 KiB, and goes out when the sender lets other tasks run.
        Cancelled before its first byte was written, it is not sent at all; after, it is sent as a
        whole.

        Raises:
            ConnectionClosed: The connection is closed or closing.
            ValueError: ``message`` is of another type, or cannot be encoded as UTF-8.
        """
        try:
            if not is_cancelled() and self._join_burst(message):
                return
            self._check_open()
            if isinstance(message, str):
                if not message.isascii():
                    message.encode()  # A lone surrogate is the caller's mistake, not the writer's.
            elif not isinstance(message, bytes):
                raise ValueError("message must be str or bytes")
            if not await self._writer.post(self._protocol.send_message, message):
                raise ConnectionClosed(self._closed)
        except BaseException as error:
            forget_locals(error)
            raise

    @forgetful
    async def send_parts(self, parts: AsyncIterable[str | bytes] | Iterable[str | bytes]) -> None:
        """Send one message in parts, each as it comes, without ever having it whole.

        Other messages wait until it is whole; pings and pongs go between the parts (RFC 6455 §5.4).
        A message that cannot be finished ends the connection (close code 1011), since none can
        follow it: also where this call is cancelled, or ``parts`` raises.

        Args:
            parts: All ``str``, for a text, or all ``bytes``; none at all is an empty text.

        Raises:
            ConnectionClosed: The connection is closed or closing.
            TypeError: ``parts`` is no iterable of ``str`` or of ``bytes``.
            ValueError: A part cannot be encoded as UTF-8.
        """
        if isinstance(parts, (str, bytes)) or not isinstance(parts, (AsyncIterable, Iterable)):
            raise TypeError(
                f"parts must be an iterable of str or bytes, not {type(parts).__name__}"
            )
        self._check_open()
        iterator = parts.__aiter__() if isinstance(parts, AsyncIterable) else _each(parts)
        try:
            sent = await self._writer.post_parts(iterator)
        finally:
            if self._writer.parts is iterator:
                self._fail(CloseCode.INTERNAL_ERROR, "a message was not finished")
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()  # Its clean-up must not wait for a garbage collection.
        if not sent:
            raise ConnectionClosed(self._closed)

    def _fail(self, code: CloseCode, reason: str) -> None:
        """End the connection for a reason of ours, without waiting."""
        if self._closed is None:
            self._closed = CloseReason(code, reason)
            self._end_messages()
            self._writer.post_close(code, reason)
            # Nobody waits for the peer's answer with a time limit.
            self._end_within(LINGER)

    def _end_within(self, seconds: float) -> None:
        """Let the task be cancelled so many seconds from now, if it has not ended before."""
        self._deadline = min(self._deadline, trio.current_time() + seconds)
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = self._deadline

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
            await self._post(self._write_ping, ping)
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
        await self._post(self._protocol.send_pong, payload)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise ConnectionClosed(self._closed)

    def _write_ping(self, ping: Ping) -> None:
        self._protocol.send_ping(ping.payload)
        ping.begun()

    async def _post(self, write: Callable[[T], None], payload: T) -> None:
        if not await self._writer.post(write, payload):
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
        self._end_messages(discard=True)
        timeout = self._options.disconnect_timeout
        with trio.move_on_after(timeout):
            try:
                await self._send(SendClose(code, reason))
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

    async def _send(self, event: SendClose) -> None:
        """Send the close frame; async, and by this name, for who replaces it in trio-websocket."""
        self._writer.post_close(event.code, event.reason)

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
        self._end_within(-math.inf)

    async def wait_closed(self) -> CloseReason:
        """Wait until the connection is closed, from whichever side; return why."""
        await self._over.wait()
        assert self._closed is not None
        return self._closed

    def _end_messages(self, *, discard: bool = False) -> None:
        """Let nobody wait for a message, or for a pong, any more."""
        self._mailbox.end(discard=discard)
        if self._relief is not None:
            self._relief.interrupt()
        self._pings.give_up()

    def _conclude(self) -> None:
        """Nothing more will be received or sent: wake everyone who waits."""
        if self._closed is None:
            self._closed = CloseReason(CloseCode.ABNORMAL_CLOSURE)
        self._end_messages()
        self._writer.give_up()
        self._reads.set()
        self._over.set()

    # The task.

    async def _run(self) -> None:
        """Read and write until the connection is over, and close its stream on every way out."""
        try:
            async with open_background_nursery() as nursery:
                self._nursery = nursery
                nursery.cancel_scope.deadline = self._deadline
                self._writer.begin(self._start_writing)
                try:
                    await self._read()
                finally:
                    self._writer.end()
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

    def _start_writing(self) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._write)

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The peer may have said why before it cut us: let the reader find it.
            self._end_within(LAST_WORD)

    async def _read(self) -> None:
        facts = self._understand(self._accepted.trailing, len(self._accepted.trailing))
        while not await self._act(facts):
            handed = None if self._relief is None else await self._relief.rest()
            if handed is not None:
                facts = handed
                continue
            # Not before it has rested: who was woken takes all of it, and comes back.
            if not self._inbox.has_room:
                await self._wait_for_room()
            data, size = await self._transport.receive_into(self._protocol.get_buffer)
            if not size:
                self._protocol.receive_eof()
                # In the same step: what is sent from here on would meet a protocol that is closed.
                self._conclude()
                return
            facts = self._received(data, size)
        # The peer's last word is said.  Where it answers ours, there is nothing left to wait for.
        answers = self._protocol.state is State.CLOSED
        self._conclude()
        with trio.move_on_after(LINGER):
            await self._writer.close_written.wait()
            self._answered.set()
            discarded = 0
            while not answers and discarded < LINGER_SIZE:
                _, size = await self._transport.receive()
                if not size:
                    return
                discarded += size

    def _received(self, data: bytes | bytearray | None, size: int) -> list[Fact]:
        """What one read amounts to; ``data`` is ``None`` if it went where the protocol wanted it.

        Called before anything waits: the transport fills ``data`` again.
        """
        self._last_received = trio.current_time()
        self._writer.end_burst()
        return self._understand(data, size)

    def _understand(self, data: bytes | bytearray | None, size: int) -> list[Fact]:
        protocol = self._protocol
        facts = protocol.buffer_updated(size) if data is None else protocol.receive_data(data, size)
        if len(facts) > protocol.batch_controls:
            self._has_received = True
        return facts

    async def _act(self, facts: list[Fact]) -> bool:
        """Act on what one read brought, a batch at a time; true if it holds the last word."""
        protocol = self._protocol
        while True:
            last_word = None
            if protocol.batch_controls:
                facts, last_word = await self._answer(facts)
            if self._uses_parts and self._inbox is not self._mailbox:
                facts = self._without_parts(facts)
            self._inbox.put(facts, protocol.batch_size)
            if last_word is not None:
                if self._has_received and protocol.state is State.VIOLATED:
                    # What came before it was right, and may be answered before we close; also if
                    # it came in a read of its own, and its taker is at work.
                    with trio.move_on_after(LAST_WORD):
                        await self._inbox.wait_wanted()
                self._end(last_word)
                return True
            if not protocol.has_more:
                return False
            if self._inbox.has_room:
                await trio.lowlevel.checkpoint()
            else:
                await self._wait_for_room()
            facts = self._understand(b"", 0)

    def _without_parts(self, facts: list[Any]) -> list[Any]:
        """Whole messages only: a hook has received in parts, and a session does not."""
        whole = []
        for fact in facts:
            if not isinstance(fact, MessagePart):
                whole.append(fact)
            elif not self._keep(fact):
                break  # Neither its end nor what follows it is a message of this connection.
            elif fact.is_last:
                whole.append(self._join(MessagePart(fact.data[:0], True)))
        return whole

    async def _answer(
        self, facts: list[Fact]
    ) -> tuple[list[Fact], CloseReceived | ProtocolViolated | None]:
        """Answer the facts that are no messages; return those that are, and the last word."""
        messages: list[Fact] = []
        for fact in facts:
            match fact:
                case PingReceived():
                    await self._handle_ping_event(fact)
                case PongReceived(payload):
                    self._pings.received(payload)
                case CloseReceived() | ProtocolViolated():
                    return messages, fact
                case _:
                    messages.append(fact)
        return messages, None

    async def _handle_ping_event(self, event: PingReceived) -> None:
        """Answer a ping; async, and by this name, for who replaces it in trio-websocket."""
        self._writer.post_pong(event.payload)

    def _end(self, last_word: CloseReceived | ProtocolViolated) -> None:
        self._closed = CloseReason(last_word.code, last_word.reason)
        if self._for_testing_peer_closed_connection is not None and isinstance(
            last_word, CloseReceived
        ):
            self._for_testing_peer_closed_connection.set()
        if self._protocol.state is not State.CLOSED:
            self._answered = Signal()
        # A close frame is answered with its own code and reason (RFC 6455 §5.5.1).
        self._writer.post_close(last_word.code, last_word.reason)

    async def _wait_for_room(self) -> None:
        self._reads = Signal()
        try:
            # Another inbox may have taken the place of the one that has room now.
            while not self._inbox.has_room:
                await self._inbox.wait_for_room()
        finally:
            self._reading_since = trio.current_time()
            self._reads.set()


class MessageParts:
    """An iterator over the parts of one message."""

    def __init__(self, take: Callable[[], Awaitable[str | bytes | MessagePart]]) -> None:
        self._take = take
        self._is_over = False

    def __aiter__(self) -> MessageParts:
        return self

    async def __anext__(self) -> str | bytes:
        """The next part.

        Raises:
            ConnectionClosed: It will not come.
        """
        if self._is_over:
            raise StopAsyncIteration
        part = await self._take()
        if isinstance(part, MessagePart):
            self._is_over = part.is_last
            part = part.data
        else:
            self._is_over = True
        if not part:
            raise StopAsyncIteration
        return part


async def _each(parts: Iterable[str | bytes]) -> AsyncGenerator[str | bytes]:
    for part in parts:
        yield part


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
    connection._protocol.in_parts = False
    inbox.put(*take_untaken(connection))
    connection._inbox = inbox
    if connection._relief is not None:
        connection._relief.is_wanted = False
    if connection.closed is None:
        connection._writer.source = source
    connection._writer.flush()
    return connection._writer.flush


def detach(connection: WebSocketConnection, inbox: Inbox) -> None:
    """Let ``connection``, which is being left, feed ``inbox`` instead."""
    connection._inbox = inbox


def take_untaken(connection: WebSocketConnection) -> tuple[list[Any], int]:
    """Take the messages that nobody took; and their size in bytes."""
    messages, size = connection._mailbox.take_all()
    return connection._without_parts(messages), size


def start_ping(
    connection: WebSocketConnection,
    *,
    begun: Callable[[], object] | None = None,
    answered: Callable[[], object] | None = None,
) -> Ping:
    """Send a ping ahead of all messages, without waiting; its pong updates the latency.

    :func:`forget_ping` it, unless it shall be answered as long as the connection lives.

    Args:
        connection: On which.
        begun: Called when it is written, behind all that was pulled from a source before.
        answered: Called when its pong comes, or that of a later ping.
    """
    ping = connection._pings.register(None)
    ping.on_begin = begun
    ping.on_answer = answered
    connection._writer.post_ping(ping)
    return ping


def round_trips(connection: WebSocketConnection) -> RoundTrips | None:
    """How long its pings took; ``None`` before the first pong."""
    return connection._pings.round_trips


def forget_ping(connection: WebSocketConnection, ping: Ping) -> None:
    """Stop to listen for the pong, unless someone was to be called when it comes."""
    connection._pings.forget(ping)


def asked_at(connection: WebSocketConnection, ping: Ping) -> float:
    """Since when the peer could answer ``ping`` (trio's clock, seconds).

    While it waits behind a large message: since the peer last made room for more of that.
    """
    return progressed_at(connection) if ping.written_at is None else ping.written_at


def progressed_at(connection: WebSocketConnection) -> float:
    """When the peer last made room for something that we wrote (trio's clock, seconds)."""
    return connection._writer.progressed_at


def is_deaf(connection: WebSocketConnection) -> bool:
    """Whether the peer's system answered and took nothing, until ours gave it up."""
    return connection._transport.is_peer_deaf


def has_unread(connection: WebSocketConnection) -> bool:
    """Whether bytes wait to be read, as far as that can be told without waiting."""
    return connection._transport.has_unread()


async def wait_reading(connection: WebSocketConnection) -> float:
    """Wait until the reader reads, and is not waiting for a slow consumer.

    Returns:
        Since when it reads (trio's clock, seconds): before, the peer cannot be judged by what came.
    """
    while not connection._reads.is_set():
        await connection._reads.wait()
    return connection._reading_since
