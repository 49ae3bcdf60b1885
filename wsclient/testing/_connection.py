"""One connection, from the server's side: its life, and what a fault does to it.

Three tasks at most: one reads, one runs the handler, one waits to strike.
The reader decides what happens *at* a message, in the step in which it hears it: a fault that
comes after the third message comes before the fourth.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import Final, TypeAlias

import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from wsclient.codes import CloseCode, CloseReason
from wsclient.connection import open_background_nursery

from . import _frames
from ._faults import FaultKind
from ._handshake import BadRequest, Request, http_answer, read_request, with_wrong_accept
from ._network import MemoryStream
from ._streams import hang_up, reset, transport_of
from ._visits import Heard, Log, Visit

LINGER: Final = 1.0
"""Seconds that the client has to end the stream after we have."""

LINGER_SIZE: Final = 2**20
"""Bytes that it may send meanwhile: on virtual time a busy client can make a second endless."""

GRACE: Final = 1.0
"""Seconds that a handler has to return after its connection is over."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that the client has to answer our close frame: it may have much to read before."""

_UNKNOWN_TO_WSPROTO: Final = "CLOSE with unknown reserved code"

_FLOOD: Final = bytes(64 * 1024)

# Faults after which messages are not heard any more, as by a program that has died.
_DEADLY: Final = frozenset({FaultKind.CLOSE, FaultKind.RESET, FaultKind.EOF, FaultKind.HALF_FRAME})

# Faults that leave it to the client to end the stream, even after its close frame.
_MUTE: Final = frozenset(
    {FaultKind.MUTE_CLOSE, FaultKind.SILENCE, FaultKind.HALF_FRAME_THEN_SILENCE}
)


class _Gone(trio.BrokenResourceError):
    """The client is gone; the handler's caller knows."""


class _Ended(trio.EndOfChannel):
    """The client will say nothing more; the handler's caller knows."""


class _Stage(Enum):
    OPENING = "opening"
    HEALTHY = "healthy"
    STRUCK = "struck"
    """The fault has befallen the connection."""
    OVER = "over"


class ServerConnection:
    """A client's connection, as a handler sees it.

    Pings are answered and closes too, without the handler.
    ``async for message in connection`` ends when the client closes or is lost.
    """

    def __init__(self, stream: trio.abc.Stream, visit: Visit, log: Log) -> None:
        self.visit: Final = visit
        """What was heard on this connection so far."""
        self._stream = stream
        self._log = log
        self._fault: Final = visit.fault
        self._frames = Connection(ConnectionType.SERVER)
        self._text: list[str] = []
        self._binary: list[bytes] = []
        self._stage = _Stage.OPENING
        self._taken = 0
        self._has_left = False
        """Whether the handler has closed: what it sends then is its mistake."""
        self._is_closing = False
        """Whether our close frame is written, or being written."""
        self._is_torn = False
        """Whether a frame is being written, or was cut short."""
        self._turn = trio.StrictFIFOLock()
        self._heard = trio.lowlevel.ParkingLot()
        self._due = trio.Event()
        self._over = trio.Event()
        self._scope = trio.CancelScope()
        self._reading_scope = trio.CancelScope()
        self._handler_scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} {self._fault} {self._stage.value}>"

    @property
    def number(self) -> int:
        """Counts the server's connections from 1: the epoch, where one client comes back."""
        return self.visit.number

    @property
    def path(self) -> str:
        """Path and query that were asked for."""
        assert self.visit.path is not None
        return self.visit.path

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The request's headers, in order, names in lower case."""
        return self.visit.headers

    @property
    def subprotocol(self) -> str | None:
        """What the server chose of the subprotocols offered."""
        return self.visit.subprotocol

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        if self._is_closing or self.visit.close is not None:
            return False
        return self._stage is _Stage.HEALTHY or (
            self._stage is _Stage.STRUCK and self._may_send_when_struck
        )

    @property
    def _may_send_when_struck(self) -> bool:
        return self._fault.kind is FaultKind.NEVER_READS

    @property
    def _is_dead(self) -> bool:
        """Whether the fault has ended the server's part: messages are not heard any more."""
        return self._stage is _Stage.STRUCK and self._fault.kind in _DEADLY

    # What a handler does.

    async def send(self, message: str | bytes) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary.

        Cancelled in the middle, it breaks the connection.

        Raises:
            trio.BrokenResourceError: The client is gone; a handler may let it pass.
            trio.ClosedResourceError: The handler has closed the connection.
        """
        await self._send_frame(_frames.encode_message(message))

    async def ping(self, payload: bytes = b"") -> None:
        """Send a ping; the pong will be among ``visit.pongs``.

        Raises:
            trio.BrokenResourceError: As :meth:`send`.
        """
        await self._send_frame(_frames.encode_control(_frames.PING, payload))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are: for a fault that has no name yet.

        Raises:
            trio.BrokenResourceError: As :meth:`send`.
        """
        await self._send_frame(data)

    async def receive(self) -> str | bytes:
        """Wait for the next message.

        Raises:
            trio.EndOfChannel: There is none and will be none; a handler may let it pass.
        """
        await trio.lowlevel.checkpoint()
        messages = self.visit.messages
        while self._taken == len(messages):
            if self._stage is _Stage.OVER or self.visit.close is not None:
                raise _Ended
            await self._heard.park()
        self._taken += 1
        return messages[self._taken - 1]

    def __aiter__(self) -> ServerConnection:
        return self

    async def __anext__(self) -> str | bytes:
        """The next message; the end where :meth:`receive` raises."""
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame, without waiting for the answer; the handler may return then.

        On a connection that is closing or gone it does nothing.
        """
        self._has_left = True
        with suppress(_Gone):
            await self._send_close(code, reason)

    def reset(self) -> None:
        """Reset the connection at once."""
        self._end(reset)

    async def wait_over(self) -> None:
        """Wait until the connection is over."""
        await self._over.wait()

    # Writing.

    async def _send_frame(self, frame: bytes) -> None:
        if self._has_left:
            raise trio.ClosedResourceError("this handler has closed the connection")
        if self._is_closing or self.visit.close is not None:
            await trio.lowlevel.checkpoint()
            raise _Gone("the connection is closing")
        await self._write(frame, in_health=True)

    async def _send_close(self, code: int, reason: str) -> None:
        if self._is_closing:
            await trio.lowlevel.checkpoint()
            return
        self._is_closing = True
        await self._write(_frames.encode_close(code, reason))

    async def _write(self, data: bytes, *, in_health: bool = False) -> None:
        async with self._turn:
            # Asked when it is our turn: the fault may have struck while we waited.
            if in_health and self._stage is _Stage.STRUCK and not self._may_send_when_struck:
                raise _Gone("the fault has struck")
            if self._is_torn:
                # Half a frame is on the wire: whatever followed would be read as its other half.
                self._end(reset)
            if self._stage is _Stage.OVER:
                raise _Gone("the connection is over")
            self._is_torn = True
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise _Gone("the client is gone") from error
            self._is_torn = False

    # Its life.

    async def _serve(
        self,
        handler: Handler,
        subprotocols: tuple[str, ...],
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        """Run the connection until it is over; end its stream on every way out."""
        try:
            with self._scope:
                if await self._open(subprotocols, ssl_context):
                    await self._live(handler)
        finally:
            self._end(reset)

    def _cut(self) -> None:
        """Reset the connection, unless it is over, and cancel everything about it."""
        if self._stage is not _Stage.OVER:
            self._end(reset)
            self._scope.cancel()

    def _end(self, how: Callable[[trio.abc.Stream], None]) -> None:
        if self._stage is _Stage.OVER:
            return
        self._stage = _Stage.OVER
        how(self._stream)
        self.visit.ended_at = trio.current_time()
        self._handler_scope.deadline = trio.current_time() + GRACE
        self._over.set()
        self._heard.unpark_all()
        self._log.changed.unpark_all()

    async def _open(
        self, subprotocols: tuple[str, ...], ssl_context: ssl.SSLContext | None
    ) -> bool:
        """The opening handshake, as far as the fault lets it; whether the connection is open."""
        kind = self._fault.kind
        if kind is FaultKind.RESET_ON_ACCEPT:
            return False
        try:
            if kind is FaultKind.SILENT_HANDSHAKE:
                await self._drain()
                self._end(hang_up)
                return False
            if ssl_context is not None:
                self._stream = trio.SSLStream(
                    self._stream, ssl_context, server_side=True, https_compatible=True
                )
                await self._stream.do_handshake()
            try:
                request = await read_request(self._stream)
            except BadRequest as error:
                self.visit.violation = str(error)
                await self._answer(http_answer(400, (), str(error).encode()))
                return False
            if request is None:
                self._end(hang_up)
                return False
            self.visit.path = request.path
            self.visit.headers = request.headers
            return await self._upgrade(request, subprotocols)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False

    async def _upgrade(self, request: Request, subprotocols: tuple[str, ...]) -> bool:
        fault, visit = self._fault, self.visit
        subprotocol = request.choose(subprotocols)
        acceptance = request.accept(subprotocol)
        match fault.kind:
            case FaultKind.GARBAGE_ANSWER:
                await self._answer(fault.data)
                return False
            case FaultKind.EOF_IN_HANDSHAKE:
                await self._answer(acceptance[: len(acceptance) // 2])
                return False
            case FaultKind.BAD_ACCEPT:
                await self._answer(with_wrong_accept(acceptance))
                return False
            case FaultKind.REJECT:
                await self._answer(http_answer(fault.status, fault.headers, fault.body))
                return False
            case FaultKind.DELAYED_HANDSHAKE:
                await trio.sleep(fault.seconds)
        async with self._turn:
            # Before the answer: a client that has it can be broadcast to.
            visit.subprotocol = subprotocol
            visit.handshake_completed = True
            self._stage = _Stage.STRUCK if fault.strikes_at_once else _Stage.HEALTHY
            self._log.changed.unpark_all()
            await self._stream.send_all(acceptance)
        if fault.kind is FaultKind.RESET and fault.strikes_at_once:
            await self._let_it_open()
        self._frames.receive_data(request.trailing)
        return True

    async def _let_it_open(self) -> None:
        # A reset destroys what was not read: the answer too, and the client would never be open.
        # Where a kernel holds the answer, Linux' at least, it is read before the reset is felt.
        transport = transport_of(self._stream)
        if isinstance(transport, MemoryStream):
            await transport.wait_received()

    async def _answer(self, data: bytes) -> None:
        """Answer a request, and end the stream behind the answer."""
        await self._stream.send_all(data)
        await self._send_eof()
        with trio.move_on_after(LINGER):
            await self._drain(LINGER_SIZE)
        self._end(hang_up)

    async def _drain(self, limit: float = math.inf) -> None:
        while limit > 0 and (data := await self._stream.receive_some()):
            limit -= len(data)

    async def _send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        else:  # TLS has no half-closed streams.
            self._end(hang_up)

    async def _live(self, handler: Handler) -> None:
        if self._fault.strikes_at_once:
            self._become_struck()
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._read)
            if self._fault.strikes:
                nursery.start_soon(self._strike)
            if self._stage is not _Stage.STRUCK or self.is_open:
                await self._handle(handler)
            await self._over.wait()

    async def _handle(self, handler: Handler) -> None:
        with self._handler_scope:
            try:
                await handler(self)
            except* (_Gone, _Ended):
                pass
        if self._stage is _Stage.HEALTHY and self._fault.kind is not FaultKind.MUTE_CLOSE:
            await self.close()
            with trio.move_on_after(CLOSE_TIMEOUT):
                await self._over.wait()
            self._end(reset)

    # Striking.

    async def _strike(self) -> None:
        fault = self._fault
        if not fault.after_messages:
            self._due.set()
        await self._due.wait()
        if fault.after:
            await trio.sleep(fault.after)
        self._become_struck()
        try:
            match fault.kind:
                case FaultKind.CLOSE:
                    await self._send_close(fault.code, fault.reason)
                    await self._finish()
                case FaultKind.EOF:
                    await self._finish()
                case FaultKind.HALF_FRAME:
                    await self._write(fault.data)
                    await self._finish()
                case FaultKind.HALF_FRAME_THEN_SILENCE | FaultKind.VIOLATION:
                    await self._write(fault.data)
                case FaultKind.OVERSIZED:
                    await self._write(fault.data)
                    while True:
                        await self._write(_FLOOD)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end(reset)

    def _become_struck(self) -> None:
        if self._stage is _Stage.OVER:
            return
        self._stage = _Stage.STRUCK
        if self._fault.kind is FaultKind.NEVER_READS:
            self._reading_scope.cancel()
            return
        self._handler_scope.cancel()
        if self._fault.kind is FaultKind.RESET:
            self._end(reset)

    async def _finish(self) -> None:
        """End the stream; what was sent arrives before its end."""
        async with self._turn:
            await self._send_eof()
        with trio.move_on_after(LINGER):
            await self._over.wait()
        self._end(hang_up)

    # Reading.

    async def _read(self) -> None:
        with self._reading_scope:
            try:
                await self._read_on()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._end(reset)

    async def _read_on(self) -> None:
        speed = self._fault.bytes_per_second
        # A tenth of a second's worth at a time.
        size = None if speed is None else max(1, int(speed / 10))
        await self._hear()
        discarded = 0
        while self._stage is not _Stage.OVER and discarded < LINGER_SIZE:
            data = await self._stream.receive_some(size)
            if not data:
                self._end(hang_up)
                return
            if speed is not None:
                await trio.sleep(len(data) / speed)
            if self._is_dead:
                discarded += len(data)
            if self.visit.close is None and self.visit.violation is None:
                self._frames.receive_data(bytes(data))
                await self._hear()

    async def _hear(self) -> None:
        """Act on what was received; the connection may be over then."""
        for event in self._frames.events():
            match event:
                case TextMessage() | BytesMessage():
                    self._hear_piece(event)
                case Ping(payload=payload):
                    self.visit.pings.append(Heard(bytes(payload), trio.current_time()))
                    self._log.changed.unpark_all()
                    if self.is_open:
                        await self._write(
                            _frames.encode_control(_frames.PONG, bytes(payload)), in_health=True
                        )
                case Pong(payload=payload):
                    self.visit.pongs.append(Heard(bytes(payload), trio.current_time()))
                    self._log.changed.unpark_all()
                case CloseConnection(code=code, reason=reason):
                    await self._hear_close(int(code), reason or "")
                    return
            if self._stage is _Stage.OVER or self._reading_scope.cancel_called:
                return

    def _hear_piece(self, event: TextMessage | BytesMessage) -> None:
        if isinstance(event, TextMessage):
            self._text.append(event.data)
        else:
            self._binary.append(bytes(event.data))
        if not event.message_finished:
            return
        message = "".join(self._text) if isinstance(event, TextMessage) else b"".join(self._binary)
        self._text.clear()
        self._binary.clear()
        fault = self._fault
        if self._is_dead:
            return
        self._log.add_message(self.visit, message)
        self._heard.unpark_all()
        if fault.strikes and len(self.visit.messages) == fault.after_messages:
            self._due.set()
            if not fault.after:
                self._become_struck()

    async def _hear_close(self, code: int, reason: str) -> None:
        if self._frames.state is not ConnectionState.OPEN:
            self.visit.close = CloseReason(code, reason)
        elif self._fault.code == CloseCode.BAD_GATEWAY and reason == _UNKNOWN_TO_WSPROTO:
            # The answer to our own 1014, which came to IANA's registry later than to wsproto.
            self.visit.close = CloseReason(CloseCode.BAD_GATEWAY)
        else:
            # wsproto's parser failed: no close frame came.
            self.visit.violation = reason
        self._heard.unpark_all()
        self._log.changed.unpark_all()
        kind = self._fault.kind
        if kind in _MUTE and (self._stage is _Stage.STRUCK or kind is FaultKind.MUTE_CLOSE):
            return
        if self._stage is _Stage.HEALTHY:
            await self._send_close(code, reason)
        self._end(hang_up)


Handler: TypeAlias = Callable[[ServerConnection], Awaitable[object]]
"""What a server does with a healthy connection; when it returns, the connection is closed."""
