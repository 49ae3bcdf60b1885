"""An open WebSocket connection as a state machine (RFC 6455 §5–7).

The rules:

1. What may happen in a state, and what state follows, stands in ``TRANSITIONS`` and nowhere else.
2. Something *sent* that has no row is the caller's mistake: :class:`NotAllowed`.
3. Something *received* that has no row is ignored: the peer's last word has been said.
4. A violation is a fact, not an exception: what was understood before it in the same read stands.

The frames themselves are ``_codec.py``'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Final

from wsclient.codes import CloseCode

from ._codec import CLOSE, FIN, PING, PONG, Decoder, Encoder
from ._deflate import Deflate
from ._events import CloseReceived, Fact, ProtocolViolated

_MAX_REASON_SIZE: Final = 123
"""Bytes: a control frame holds 125, and two are the code's (RFC 6455 §5.5)."""


class State(Enum):
    """Where an open connection stands in its closing handshake."""

    OPEN = "open"
    CLOSING = "closing"
    """Our close frame is out; the peer's has not come."""
    VIOLATED = "violated"
    """The peer has broken a rule; our close frame is owed, and what it said before may be answered
    first."""
    ANSWERING = "answering"
    """The peer has said its last word; our close frame is owed."""
    CLOSED = "closed"


class Input(Enum):
    """What can happen to a connection."""

    SEND_MESSAGE = "send a message"
    SEND_PING = "send a ping"
    SEND_PONG = "send a pong"
    SEND_CLOSE = "send a close frame"
    RECEIVE_MESSAGE = "receive a message"
    RECEIVE_PING = "receive a ping"
    RECEIVE_PONG = "receive a pong"
    RECEIVE_CLOSE = "receive a close frame"
    RECEIVE_VIOLATION = "receive a violation of the protocol"
    RECEIVE_EOF = "receive the end of the stream"


# In C: they are looked up for each read, and an Enum's own is written in Python.
State.__hash__ = Input.__hash__ = object.__hash__  # type: ignore[method-assign]

TRANSITIONS: Final[dict[State, dict[Input, State]]] = {
    State.OPEN: {
        Input.SEND_MESSAGE: State.OPEN,
        Input.SEND_PING: State.OPEN,
        Input.SEND_PONG: State.OPEN,
        Input.SEND_CLOSE: State.CLOSING,
        Input.RECEIVE_MESSAGE: State.OPEN,
        Input.RECEIVE_PING: State.OPEN,
        Input.RECEIVE_PONG: State.OPEN,
        Input.RECEIVE_CLOSE: State.ANSWERING,
        Input.RECEIVE_VIOLATION: State.VIOLATED,
        Input.RECEIVE_EOF: State.CLOSED,
    },
    # After our close frame nothing more is sent, not even pongs (RFC 6455 §5.5.1).
    State.CLOSING: {
        Input.RECEIVE_MESSAGE: State.CLOSING,
        Input.RECEIVE_PING: State.CLOSING,
        Input.RECEIVE_PONG: State.CLOSING,
        Input.RECEIVE_CLOSE: State.CLOSED,
        Input.RECEIVE_VIOLATION: State.CLOSED,
        Input.RECEIVE_EOF: State.CLOSED,
    },
    State.VIOLATED: {
        Input.SEND_MESSAGE: State.VIOLATED,
        Input.SEND_PING: State.VIOLATED,
        Input.SEND_PONG: State.VIOLATED,
        Input.SEND_CLOSE: State.CLOSED,
        Input.RECEIVE_EOF: State.CLOSED,
    },
    # Whatever follows a close frame is not part of the conversation (RFC 6455 §1.4).
    State.ANSWERING: {
        Input.SEND_CLOSE: State.CLOSED,
        Input.RECEIVE_EOF: State.CLOSED,
    },
    State.CLOSED: {},
}


class NotAllowed(Exception):
    """The connection's state does not allow to send this."""


class ClientProtocol:
    """The client's end of an open connection.

    What is sent is written at the end of :attr:`outgoing`; whoever has handed bytes of that to the
    transport deletes them.

    Args:
        max_message_size: Bytes of one message.
        max_frame_size: Bytes of one frame's payload.
        max_fragments: Frames of one message.
        deflate: What was agreed on about compression; ``None`` is: nothing.
    """

    def __init__(
        self,
        *,
        max_message_size: float,
        max_frame_size: float = math.inf,
        max_fragments: float = math.inf,
        deflate: Deflate | None = None,
    ) -> None:
        self._decoder = Decoder(
            max_message_size,
            max_frame_size,
            max_fragments,
            deflate.make_inflater() if deflate else None,
        )
        self.outgoing: bytearray = bytearray()
        """Whole frames, and perhaps the rest of one, that the transport has not taken yet."""
        self._encoder = Encoder(self.outgoing, deflate.make_deflater() if deflate else None)
        self._state = State.OPEN
        self.join_burst: Callable[[object], bool] = self._encoder.join
        """``send_message`` for one of many, if :attr:`burst` allows it; whether it did."""

    @property
    def burst(self) -> int:
        """How many messages may join; none once a close frame went either way."""
        return self._encoder.burst

    @burst.setter
    def burst(self, messages: int) -> None:
        self._encoder.burst = messages if self._state is State.OPEN else 0

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._state

    def allows(self, what: Input) -> bool:
        """Whether ``what`` may happen now."""
        return what in TRANSITIONS[self._state]

    # What is sent: each writes one frame, or raises NotAllowed.

    def send_message(self, message: str | bytes) -> None:
        """One whole message as one frame.

        Raises:
            UnicodeEncodeError: The text cannot be encoded as UTF-8.
        """
        # The state that lets messages pass is left as it is: looked up by identity, since this is
        # the one that has to be fast.
        if self._state is not State.OPEN:
            self._sending(Input.SEND_MESSAGE)
        self._encoder.message(message)

    def send_part(self, part: str | bytes, *, is_first: bool, is_last: bool) -> None:
        """A part of a message, as one frame."""
        self._sending(Input.SEND_MESSAGE)
        self._encoder.part(part, is_first=is_first, is_last=is_last)

    def send_ping(self, payload: bytes) -> None:
        """A ping; ``payload`` of at most 125 bytes."""
        self._sending(Input.SEND_PING)
        self._encoder.frame(FIN | PING, bytes(payload))

    def send_pong(self, payload: bytes) -> None:
        """A pong; ``payload`` of at most 125 bytes."""
        self._sending(Input.SEND_PONG)
        self._encoder.frame(FIN | PONG, bytes(payload))

    def send_close(self, code: int, reason: str | None) -> None:
        """Our close frame.

        A reason is cut to 123 bytes at a character's end; code 1005 makes an empty frame, which is
        how an empty one is answered.
        """
        self._sending(Input.SEND_CLOSE)
        self.burst = 0
        payload = b""
        if code != CloseCode.NO_STATUS_RCVD:
            text = (reason or "").encode()[:_MAX_REASON_SIZE].decode(errors="ignore").encode()
            payload = code.to_bytes(2, "big") + text
        self._encoder.frame(FIN | CLOSE, payload)

    def _sending(self, what: Input) -> None:
        following = TRANSITIONS[self._state].get(what)
        if following is None:
            raise NotAllowed(f"cannot {what.value}: the connection is {self._state.value}")
        self._state = following

    # What is received.

    def receive_data(self, data: bytes | bytearray, size: int | None = None) -> list[Fact]:
        """Take what one read brought, the first ``size`` bytes of ``data``, or all of it.

        Returns:
            What it amounts to, in order.
            While :attr:`has_more` is true afterwards, ``receive_data(b"")`` goes on.
        """
        if not self.allows(Input.RECEIVE_MESSAGE):
            return []
        facts = self._decoder.receive(data, len(data) if size is None else size)
        if self._decoder.controls:
            match facts[-1]:
                case CloseReceived():
                    self._receiving(Input.RECEIVE_CLOSE)
                    self.burst = 0
                case ProtocolViolated():
                    self._receiving(Input.RECEIVE_VIOLATION)
        return facts

    def get_buffer(self) -> memoryview | None:
        """The place for what comes next, if that can only be more of one long message.

        Whoever has filled its first bytes calls :meth:`buffer_updated` then, and nothing else
        before; else ``receive_data`` takes these bytes as well.
        """
        return self._decoder.get_buffer() if self.allows(Input.RECEIVE_MESSAGE) else None

    def buffer_updated(self, size: int) -> list[Fact]:
        """Take what one read brought to where :meth:`get_buffer` said, ``size`` bytes.

        Returns:
            As ``receive_data``; no more than the message, or a part of it.
        """
        return self._decoder.buffer_updated(size)

    @property
    def has_more(self) -> bool:
        """Whether a part of what came is not understood yet: what was is a full batch."""
        return self._decoder.has_more and self.allows(Input.RECEIVE_MESSAGE)

    @property
    def batch_size(self) -> int:
        """Bytes of the messages that the last call of ``receive_data`` gave."""
        return self._decoder.size

    @property
    def batch_controls(self) -> int:
        """How many of the facts that it gave are no messages."""
        return self._decoder.controls

    @property
    def in_parts(self) -> bool:
        """Whether a message that is not whole in one read is given in parts."""
        return self._decoder.in_parts

    @in_parts.setter
    def in_parts(self, in_parts: bool) -> None:
        self._decoder.in_parts = in_parts

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        self._receiving(Input.RECEIVE_EOF)

    def _receiving(self, what: Input) -> None:
        self._state = TRANSITIONS[self._state].get(what, self._state)
