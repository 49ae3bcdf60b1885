"""What can go wrong, as a tree.

.. code-block:: text

    WebSocketError                 everything that wsclient raises of its own
    ├── HandshakeError             the connection could not be opened (or closed) as asked
    │   ├── ConnectionTimeout      … within ``connect_timeout``
    │   ├── DisconnectionTimeout   … closed within ``disconnect_timeout``
    │   ├── ConnectionRejected     the server answered, and its answer was no
    │   ├── InvalidUpgrade         the server's answer is not a WebSocket handshake
    │   └── ProxyError             the proxy cannot be reached, or does not connect us
    ├── ConnectionClosed           the connection is closed; ``reason`` says why
    ├── HeartbeatTimeout           the peer sent nothing for too long
    ├── ProviderError              the function for the URL, headers or credentials failed
    ├── EstablishError             what comes first (a hook, a subscription) failed or was late
    ├── ChannelFailed              the channel gave up; its cause is the last failure
    ├── OutboxError                the outbox on disk cannot be used, or cannot keep a message
    │   ├── OutboxCorrupt          the file is damaged, or is no database at all
    │   ├── OutboxDiskFull         there is no room for it
    │   ├── OutboxIncompatible     it is another program's, or a later version's
    │   ├── OutboxIOError          the disk failed, or did not answer
    │   └── OutboxLocked           another channel or process has it
    ├── DeliveryError              a message did not get as far as was waited for
    │   ├── NotConnected           … it needed a connection, and there was none
    │   ├── SendUnknown            … its connection died while it was being written
    │   ├── RequestLost            … it was a request, and no reply can come any more
    │   └── RequestTimeout         … it was a request, and no reply came in time
    ├── ReplyError                 the peer has replied that it does not do what was requested
    │   └── JsonRpcError           … with a code, as JSON-RPC has it
    ├── SubscriptionFailed         the server does not take a subscription, or has ended it
    ├── OutboxFull                 there is no room for a message, and waiting was not asked for
    ├── InboxFull                  an answer was waited for, and too much came before it
    └── CodecError                 a message cannot be encoded or decoded

Where trio has the right exception it is raised as it is:
``trio.ClosedResourceError`` (you closed it), ``trio.EndOfChannel`` (nothing more will come),
``trio.WouldBlock`` (the ``nowait`` variants), ``trio.BusyResourceError``.
A wrong argument is a ``TypeError`` or a ``ValueError`` at the call.

No text of these exceptions contains a URL's path, query or user information, a header's value, or
a proxy's credentials: an endpoint is named by scheme, host and port.
Each survives ``copy`` and ``pickle``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsclient.codes import CloseReason
    from wsclient.events import Outcome, Truth

__all__ = [
    "ChannelFailed",
    "CodecError",
    "ConnectionClosed",
    "ConnectionRejected",
    "ConnectionTimeout",
    "DeliveryError",
    "DisconnectionTimeout",
    "EstablishError",
    "HandshakeError",
    "HeartbeatTimeout",
    "InboxFull",
    "InvalidUpgrade",
    "JsonRpcError",
    "NotConnected",
    "OutboxCorrupt",
    "OutboxDiskFull",
    "OutboxError",
    "OutboxFull",
    "OutboxIOError",
    "OutboxIncompatible",
    "OutboxLocked",
    "ProviderError",
    "ProxyError",
    "ReplyError",
    "RequestLost",
    "RequestTimeout",
    "SendUnknown",
    "SubscriptionFailed",
    "WebSocketError",
]


class WebSocketError(Exception):
    """The base of everything that wsclient raises of its own."""


class HandshakeError(WebSocketError):
    """The connection could not be opened; the text says what failed, ``__cause__`` why."""


class ConnectionTimeout(HandshakeError):
    """The connection was not open in time: name lookup, TCP, TLS and upgrade together."""


class DisconnectionTimeout(HandshakeError):
    """The peer did not answer our close frame within ``disconnect_timeout``.

    The socket is closed all the same.
    """


class ConnectionRejected(HandshakeError):
    """The server answered the upgrade request with another status than 101.

    Args:
        status_code: The HTTP status.
        headers: The answer's headers, names in lower case, in the server's order.
        body: The answer's body, at most 64 KiB of it; ``None`` for a 1xx answer.
    """

    def __init__(
        self,
        status_code: int,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        body: bytes | None = None,
    ) -> None:
        super().__init__(status_code, headers, body)
        self.status_code = status_code
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"{type(self).__name__}<status_code={self.status_code}>"

    def __str__(self) -> str:
        # Not the headers and not the body: they may hold cookies.
        return f"the server refused the upgrade: HTTP {self.status_code}"


class InvalidUpgrade(HandshakeError):
    """The server's answer breaks the rules of the opening handshake (RFC 6455 §4.1)."""


class ProxyError(HandshakeError):
    """The proxy cannot be reached, or does not connect us to the server.

    Args:
        text: What failed.
        status_code: The HTTP status with which the proxy refused; for SOCKS, the one that means
            the same: 407 for credentials that it does not take, 403 for what its rules forbid.
            ``None`` if it did not refuse.
    """

    def __init__(self, text: str, status_code: int | None = None) -> None:
        super().__init__(text, status_code)
        self.status_code = status_code

    def __str__(self) -> str:
        return str(self.args[0])


class ConnectionClosed(WebSocketError):
    """The connection is closed.

    Args:
        reason: Why, or ``None`` if it was never open.
    """

    def __init__(self, reason: CloseReason | None) -> None:
        super().__init__(reason)
        self.reason = reason

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self.reason!r}>"

    def __str__(self) -> str:
        return f"the connection is closed: {self.reason}"


class HeartbeatTimeout(WebSocketError):
    """Nothing came from the peer, not even a pong, for the heartbeat's interval and timeout."""


class ProviderError(WebSocketError):
    """A function that gives a channel its URL, headers or credentials has failed.

    It raised, and its exception is the cause; or what it gave cannot be used.
    The text never quotes either: they may hold a secret.
    """


class EstablishError(WebSocketError):
    """What comes first on a connection has failed.

    An ``on_connect`` hook raised (its exception is the cause) or missed its deadline, or the server
    did not greet as the protocol has it, or confirmed no subscription.
    """


class ChannelFailed(WebSocketError):
    """The channel has given up, because retrying would not help.

    Args:
        reason: What was decided, and by which rule.
        history: How the last attempts and connections ended, oldest first.
    """

    def __init__(self, reason: str, history: tuple[BaseException, ...] = ()) -> None:
        super().__init__(reason, history)
        self.reason = reason
        self.history = history

    def __str__(self) -> str:
        return self.reason


class DeliveryError(WebSocketError):
    """A message did not get as far as was waited for.

    Args:
        outcome: What became of it; ``None`` if that is open.
        truth: What is known of it: whether the peer can have it.
    """

    def __init__(self, outcome: Outcome | None, truth: Truth) -> None:
        super().__init__(outcome, truth)
        self.outcome = outcome
        self.truth = truth

    def __str__(self) -> str:
        known = {"certain": "does", "certainly not": "does certainly not"}.get(self.truth.value)
        has_it = f"{known} have it" if known else "may or may not have it"
        return f"{self._happened()}; the peer {has_it}"

    def _happened(self) -> str:
        return "its outcome is open" if self.outcome is None else f"it is {self.outcome.value}"


class NotConnected(DeliveryError):
    """A message sent as ``Delivery.DIRECT`` had no connection: it was certainly not sent."""

    def _happened(self) -> str:
        return "a message sent as DIRECT needs a connection that is ready, and there was none"


class SendUnknown(DeliveryError):
    """The connection died while a message sent as ``Delivery.DIRECT`` was being written."""

    def _happened(self) -> str:
        return "the connection died while the message was being written"


class RequestLost(DeliveryError):
    """The connection has ended that a request went out on, or the request was never sent.

    No reply can come any more; ``truth`` says whether the peer can have it.
    """

    def __str__(self) -> str:
        return f"no reply can come: {super().__str__()}"


class RequestTimeout(DeliveryError):
    """No reply has come in time; ``truth`` says whether the peer can have the request."""

    def __str__(self) -> str:
        return f"no reply came in time: {super().__str__()}"


def _quoted(text: str) -> str:
    """A peer's text, quoted where it could look like a line of ours, or command a terminal."""
    return text if text.isprintable() else repr(text)


class ReplyError(WebSocketError):
    """The peer has replied, and its reply is that it does not do what was requested.

    Args:
        error: What it says.
    """

    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error: object = error

    def __str__(self) -> str:
        return f"the peer refuses: {_quoted(str(self.error))}"


class JsonRpcError(ReplyError):
    """The error object of a JSON-RPC response (JSON-RPC 2.0 §5.1).

    Args:
        code: Which kind of error.
        message: A sentence of the peer's.
        data: What else it says.
    """

    def __init__(self, code: int, message: str, data: object = None) -> None:
        # What it is made of, and copied by, is not what the peer's error is as one value.
        Exception.__init__(self, code, message, data)
        self.error: object = {"code": code, "message": message, "data": data}
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return f"the peer refuses: {_quoted(self.message)} ({self.code})"


class OutboxFull(WebSocketError):
    """The outbox has no room, and its policy is ``OverflowPolicy.ERROR``.

    Args:
        messages: Messages that it holds.
        size: Bytes of them.
    """

    def __init__(self, messages: int, size: int) -> None:
        super().__init__(messages, size)
        self.messages = messages
        self.size = size

    def __str__(self) -> str:
        return f"the outbox is full: {self.messages} messages, {self.size} bytes"


class OutboxError(WebSocketError):
    """The outbox on disk cannot be used, or cannot keep a message.

    Where ``send()`` raises it, the message was not accepted.
    The text names the file, and never what is in it.
    """


class OutboxCorrupt(OutboxError):
    """The outbox's file is damaged, or is no database at all; it is left as it was found."""


class OutboxDiskFull(OutboxError):
    """There is no room on the disk for a change of the outbox, which did not take place."""


class OutboxIncompatible(OutboxError):
    """The file is a database of another program, or of a later version of wsclient."""


class OutboxIOError(OutboxError):
    """The disk failed, or did not answer in time; ``__cause__`` says what is known.

    Whether a message whose ``send()`` raised this is on the disk is unknown until the disk works
    again: this channel never sends it, but after a crash a later process may find it.
    """


class OutboxLocked(OutboxError):
    """Another channel or another process has the outbox open."""


class InboxFull(WebSocketError):
    """An answer was waited for, and nothing more can be read: nobody takes what came before it.

    Args:
        messages: Messages that wait to be taken.
        size: Bytes of them.
    """

    def __init__(self, messages: int, size: int) -> None:
        super().__init__(messages, size)
        self.messages = messages
        self.size = size

    def __str__(self) -> str:
        return (
            f"nothing more is read: {self.messages} messages, {self.size} bytes"
            " wait to be taken from the channel"
        )


class SubscriptionFailed(WebSocketError):
    """A subscription is over: the server does not take it, or has ended it with an error.

    Its cause says why.

    Args:
        key: The subscription's.
        reason: Why, as text.
    """

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"subscription {self.key!r}: {self.reason}"


class CodecError(WebSocketError):
    """A message cannot be encoded or decoded.

    The text names types and fields, and quotes nothing of the message.

    Args:
        text: What is wrong.
        path: Where in the message, such as ``"$.trades[0].price"``; ``"$"`` is the whole of it.
            ``None`` if it is not known, or if the message could not be read at all.
    """

    def __init__(self, text: str, path: str | None = None) -> None:
        super().__init__(text)
        self.path = path

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.path is None else f"{text} (at {self.path})"
