"""The protocol ``graphql-transport-ws``, of the package graphql-ws for Node.

Its text is https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md.  It is not the older
``graphql-ws`` of subscriptions-transport-ws, whose messages are called otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs
import trio

from wsclient._discretion import made_forgetful
from wsclient.app._codec import JsonCodec
from wsclient.connection import WebSocketConnection
from wsclient.errors import CodecError, EstablishError, ProviderError, ReplyError
from wsclient.events import LossKind
from wsclient.options import ApplicationPing
from wsclient.session import (
    PRESETS,
    Answer,
    Correlation,
    Decision,
    Fatal,
    Loss,
    Phase,
    Protocol,
    Published,
    Reply,
    Signal,
    SubscriptionEnded,
    Wish,
    classify,
)

from ._objects import name_number, read_number, read_object

SUBPROTOCOL: Final = "graphql-transport-ws"

# One space of ids for all operations of a connection.
_SUBSCRIPTION: Final = "s"
_QUERY: Final = "q"

_OF_THE_CLIENT: Final = range(4400, 4500)
# "Probably because the socket froze", as graphql-ws' own client says, which sends it.
_TERMINATED: Final = 4499
_SERVER_ERROR: Final = 4500
_PATIENCE: Final = 2
"""As after 1002 and its like."""

_PING_OR_NONE: Final[Any] = attrs.validators.optional(attrs.validators.instance_of(ApplicationPing))

Payload: TypeAlias = Mapping[str, Any] | None
PayloadProvider: TypeAlias = Callable[[], Payload | Awaitable[Payload]]


_JSON: Final = JsonCodec()

_PONG: Final = "pong"


class _Queries:
    """Requests are operations with a single result: queries and mutations."""

    def mark(self, message: Mapping[str, Any] | str, number: int) -> str:
        """Make an operation of a query, or of an object that has one.

        Raises:
            TypeError: The message is neither.
            ValueError: It has no query.
        """
        return _JSON.encode(_operation(name_number(_QUERY, number), message))

    def recognise(self, message: str | bytes) -> Reply | None:
        """The result or the errors of such an operation."""
        content = read_object(_JSON.decode, message)
        number = read_number(content.get("id"), _QUERY)
        if number is None:
            return None
        match content:
            case {"type": "error", "payload": errors}:
                return Reply(number, error=ReplyError(errors))
            case {"type": "next", "payload": {**result}}:
                # Errors beside data are about a part of it, and the caller's to judge.
                if result.get("data") is None and result.get("errors"):
                    return Reply(number, error=ReplyError(result["errors"]))
                return Reply(number, result)
        return None


def _is_pong(message: str | bytes) -> bool:
    return read_object(_JSON.decode, message).get("type") == _PONG


def _check_payload(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not (value is None or callable(value) or isinstance(value, Mapping)):
        raise TypeError(
            f"{attribute.name} must be a mapping or a function, not {type(value).__name__}"
        )


class _GraphqlTransportWs(Protocol):
    """What is no option, and can be overridden."""

    subprotocols: Sequence[str] = (SUBPROTOCOL,)
    named_by: Literal["key", "number"] = "number"
    confirms: bool = False
    correlation: Correlation | None = _Queries()


@made_forgetful
@attrs.frozen(kw_only=True)
class GraphqlTransportWs(_GraphqlTransportWs):
    """``graphql-transport-ws``: GraphQL subscriptions, queries and mutations over one connection.

    ``channel.subscribe("prices", "subscription { price }")`` subscribes; an object with ``query``,
    ``variables``, ``operationName`` and ``extensions`` is taken in place of the text, and without
    parameters the key is the text.
    What is received is the execution result: ``{"data": …}``, with ``"errors"`` if a part failed.

    ``channel.request("{ price }")`` is a query or a mutation, and returns its execution result; if
    it has errors and no data, they are raised as :class:`ReplyError`.
    """

    payload: Payload | PayloadProvider = attrs.field(
        default=None, validator=_check_payload, repr=False
    )
    """What the server wants to know first: an object, often with a token, or a function, async or
    not, that gives one; it is asked on every new connection."""
    ack_timeout: float = attrs.field(
        default=10.0, validator=[attrs.validators.instance_of((int, float)), attrs.validators.gt(0)]
    )
    """Seconds within which the server must answer that.

    Below ``ConnectionOptions.establish_timeout``, so that the failure says what was missing."""

    heartbeat: ApplicationPing | None = attrs.field(
        default=ApplicationPing(build=lambda: _JSON.encode({"type": "ping"}), match=_is_pong),
        validator=_PING_OR_NONE,
    )
    """Every 20 s the protocol's own ping, which proves that somebody is at work there; ``None`` for
    a server that does not answer it, against the protocol."""

    async def establish(self, connection: WebSocketConnection) -> None:
        """Say ``connection_init``, and wait for ``connection_ack``.

        Raises:
            EstablishError: It did not come, or something else did.
            ProviderError: The function for the payload has failed.
        """
        if connection.subprotocol != SUBPROTOCOL:
            raise EstablishError(f"the server does not speak {SUBPROTOCOL}")
        payload = await self._give_payload()
        more = {} if payload is None else {"payload": dict(payload)}
        await connection.send_message(self.encode({"type": "connection_init", **more}))
        with trio.move_on_after(self.ack_timeout):
            while True:
                content = read_object(self.decode, await connection.get_message())
                kind = content.get("type")
                if kind == "connection_ack":
                    return
                if kind == "ping":
                    await connection.send_message(self._pong(content))
                elif kind != _PONG:
                    raise EstablishError(
                        "the server began with another message than connection_ack"
                    )
        raise EstablishError(f"no connection_ack came within {self.ack_timeout:g} s")

    async def _give_payload(self) -> Payload:
        if not callable(self.payload):
            return self.payload
        # Neither its exception nor what it gives is quoted: there may be a secret in it.
        try:
            given = self.payload()
            payload = await given if inspect.isawaitable(given) else given
        except Exception as error:
            raise ProviderError(
                f"the function for the payload raised {type(error).__name__}"
            ) from error
        if payload is None or isinstance(payload, Mapping):
            return payload
        raise ProviderError(
            f"the function for the payload must give a mapping, not {type(payload).__name__}"
        )

    def _pong(self, ping: dict[str, Any]) -> str | bytes:
        payload = ping.get("payload")
        more = {"payload": payload} if isinstance(payload, dict) else {}
        try:
            return self.encode({"type": _PONG, **more})
        except CodecError:
            # What can be read need not be writable: 1e999 is an infinity, which JSON has not.
            return self.encode({"type": _PONG})

    def subscribe(self, wish: Wish) -> str | bytes:
        """A ``subscribe`` message, with an id that no other has on this connection.

        Raises:
            TypeError: The parameters, or else the key, are no text and no mapping.
            ValueError: They have no query.
            CodecError: They are not made of what JSON knows.
        """
        # An id that is in use is answered by 4409, and that ends the connection.
        asked = wish.key if wish.parameters is None else wish.parameters
        return self.encode(_operation(name_number(_SUBSCRIPTION, wish.number), asked))

    def unsubscribe(self, wish: Wish, token: Hashable) -> str | bytes | None:
        """A ``complete`` message; the server says nothing to it."""
        return self.encode({"id": name_number(_SUBSCRIPTION, wish.number), "type": "complete"})

    def recognise(self, message: str | bytes) -> Signal | None:
        """A result, the end of an operation, or a ping."""
        content = read_object(self.decode, message)
        match content:
            case {"type": "ping"}:
                return Answer(self._pong(content))
            case {"type": "pong"}:
                return Answer()
            case {"type": "complete", "id": str(name)} if read_number(name, _QUERY) is not None:
                # Its only result has come before.
                return Answer()
        number = read_number(content.get("id"), _SUBSCRIPTION)
        if number is None:
            return None
        match content:
            case {"type": "next", "payload": {**result}}:
                return Published(number, result)
            case {"type": "error", "payload": errors}:
                return SubscriptionEnded(number, ReplyError(errors))
            case {"type": "complete"}:
                return SubscriptionEnded(number)
        return None

    def classify(self, loss: Loss, phase: Phase) -> Decision:
        """As ``PRESETS["graphql-transport-ws"]``; other 44xx, a client's mistake, are fatal.

        So is 4500, a fault of the server's, when it comes a third time in a row.
        """
        decision = PRESETS[SUBPROTOCOL](loss, phase)
        if loss.kind is not LossKind.CLOSED or decision != classify(loss, phase):
            return decision
        # A fault may pass.  But graphql-ws says this, too, to a query that cannot be parsed, and
        # with that subscription every connection would end; its own client never retries it.
        if loss.code == _SERVER_ERROR and loss.repeated > _PATIENCE:
            return Fatal(f"{SUBPROTOCOL}: fatal after {_PATIENCE} retries: {loss.error}")
        if loss.code in _OF_THE_CLIENT and loss.code != _TERMINATED:
            return Fatal(f"{SUBPROTOCOL}: {loss.code}, which blames the client: {loss.error}")
        return decision


def _operation(name: str, asked: object) -> dict[str, Any]:
    payload = {"query": asked} if isinstance(asked, str) else asked
    if not isinstance(payload, Mapping):
        raise TypeError(
            f"an operation is a text or a mapping with a query, not {type(asked).__name__}"
        )
    if not isinstance(payload.get("query"), str):
        raise ValueError('an operation must have a "query", a text')
    return {"id": name, "type": "subscribe", "payload": dict(payload)}
