"""An open WebSocket connection as a state machine (RFC 6455 §5–7).

The rules:

1. What may happen in a state, and what state follows, stands in ``TRANSITIONS`` and nowhere else.
2. Something *sent* that has no row is the caller's mistake: :class:`NotAllowed`.
3. Something *received* that has no row is ignored: the peer's last word has been said.
4. A violation is a fact, not an exception: what was understood before it in the same read stands.

wsproto knows the frames.  Two of its habits end here: its own parse failures look like a close
frame from the peer, and its sizes of text are characters.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason as FrameCloseReason

from wsclient.codes import CloseCode

from ._assembler import Assembler, MessageTooBig
from ._events import CloseReceived, Fact, PingReceived, PongReceived, ProtocolViolated


class State(Enum):
    """Where an open connection stands in its closing handshake."""

    OPEN = "open"
    CLOSING = "closing"
    """Our close frame is out; the peer's has not come."""
    ANSWERING = "answering"
    """The peer's last word is said, well or badly; our close frame is owed."""
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
        Input.RECEIVE_VIOLATION: State.ANSWERING,
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

    Args:
        max_message_size: Bytes of one message.
    """

    def __init__(self, *, max_message_size: float) -> None:
        self._frames = Connection(ConnectionType.CLIENT)
        self._max_message_size = max_message_size
        self._text = Assembler("", max_message_size)
        self._binary = Assembler(b"", max_message_size)
        self._state = State.OPEN

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._state

    def allows(self, what: Input) -> bool:
        """Whether ``what`` may happen now."""
        return what in TRANSITIONS[self._state]

    # What is sent: each returns the bytes of one frame, or raises NotAllowed.

    def send_message(self, message: str | bytes) -> bytes:
        """One whole message as one frame."""
        self._sending(Input.SEND_MESSAGE)
        if isinstance(message, str):
            return self._frames.send(TextMessage(data=message))
        return self._frames.send(BytesMessage(data=message))

    def send_ping(self, payload: bytes) -> bytes:
        """A ping; ``payload`` of at most 125 bytes."""
        self._sending(Input.SEND_PING)
        return self._frames.send(Ping(payload=payload))

    def send_pong(self, payload: bytes) -> bytes:
        """A pong; ``payload`` of at most 125 bytes."""
        self._sending(Input.SEND_PONG)
        return self._frames.send(Pong(payload=payload))

    def send_close(self, code: int, reason: str | None) -> bytes:
        """Our close frame.

        A reason is cut to 123 bytes at a character's end; code 1005 makes an empty frame, which is
        how an empty one is answered.
        """
        self._sending(Input.SEND_CLOSE)
        if code == CloseCode.NO_STATUS_RCVD:
            # wsproto knows this one by identity; by value it would make a 1000 of it.
            return self._frames.send(CloseConnection(code=FrameCloseReason.NO_STATUS_RCVD))
        return self._frames.send(CloseConnection(code=code, reason=reason or None))

    def _sending(self, what: Input) -> None:
        following = TRANSITIONS[self._state].get(what)
        if following is None:
            raise NotAllowed(f"cannot {what.value}: the connection is {self._state.value}")
        self._state = following

    # What is received.

    def receive_data(self, data: bytes) -> list[Fact]:
        """Take what one read brought; return what it amounts to, in order."""
        if not self.allows(Input.RECEIVE_MESSAGE):
            return []
        self._frames.receive_data(data)
        facts: list[Fact] = []
        for event in self._frames.events():
            fact = self._understand(event)
            if fact is None:
                continue
            facts.append(fact)
            if isinstance(fact, (CloseReceived, ProtocolViolated)):
                break  # The rest of this read is discarded (rule 3).
        return facts

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        self._receiving(Input.RECEIVE_EOF)

    def _receiving(self, what: Input) -> None:
        self._state = TRANSITIONS[self._state].get(what, self._state)

    def _understand(self, event: object) -> Fact | None:
        match event:
            case TextMessage() | BytesMessage():
                return self._assemble(event)
            case Ping(payload=payload):
                self._receiving(Input.RECEIVE_PING)
                return PingReceived(bytes(payload))
            case Pong(payload=payload):
                self._receiving(Input.RECEIVE_PONG)
                return PongReceived(bytes(payload))
            case CloseConnection(code=code, reason=reason):
                if self._frames.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
                    self._receiving(Input.RECEIVE_CLOSE)
                    return CloseReceived(int(code), reason or None)
                # wsproto's parser failed: the state tells that no close frame came.
                return self._violated(int(code), reason or "")
        return None  # pragma: no cover  # wsproto has no other events.

    def _assemble(self, event: TextMessage | BytesMessage) -> Fact | None:
        message: str | bytes | None
        try:
            if isinstance(event, TextMessage):
                message = self._text.add(event.data, finished=event.message_finished)
            else:
                message = self._binary.add(bytes(event.data), finished=event.message_finished)
        except MessageTooBig:
            return self._violated(
                CloseCode.MESSAGE_TOO_BIG,
                f"Exceeded maximum message size: {self._max_message_size} bytes",
            )
        if message is not None:
            self._receiving(Input.RECEIVE_MESSAGE)
        return message

    def _violated(self, code: int, reason: str) -> ProtocolViolated:
        self._receiving(Input.RECEIVE_VIOLATION)
        return ProtocolViolated(code, reason)
