"""JSON-RPC 2.0 with subscriptions, as Ethereum's nodes have them.

The specification has calls and notifications (https://www.jsonrpc.org/specification), and nothing
that lasts.  What grew on top is much the same everywhere: a call subscribes, its result names the
subscription, and notifications carry that name and a value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Literal

import attrs

from wsclient.errors import CodecError, JsonRpcError, ReplyError
from wsclient.session import (
    Correlation,
    JsonRpcCorrelation,
    Protocol,
    Published,
    Signal,
    Subscribed,
    SubscriptionEnded,
    Unsubscribed,
    Wish,
    check_function,
    check_name,
)

from ._objects import name_number, read_number, read_object

# Requests have numbers for ids (`JsonRpcCorrelation`).
_SUBSCRIBE: Final = "s"
_UNSUBSCRIBE: Final = "u"

# -32603 is the server's own trouble (§5.1), -32002 and -32005 are a resource that is not there now
# and a limit on the rate (EIP-1474); -32000 may be anything, and most often is a mistake of ours.
_PASSING: Final = frozenset({-32603, -32002, -32005})

_NAME_OR_NONE: Final[Any] = attrs.validators.optional(check_name)
_FUNCTION_OR_NONE: Final[Any] = attrs.validators.optional(check_function)


@attrs.frozen
class _Token:
    """What the server calls a subscription.

    A class of its own: some servers count their subscriptions, and 7 must not be taken for the
    number 7 of another.
    """

    value: str | int


class _JsonRpc(Protocol):
    """What is no option, and can be overridden."""

    named_by: Literal["key", "number"] = "number"
    correlation: Correlation | None = JsonRpcCorrelation()


@attrs.frozen(kw_only=True)
class JsonRpc(_JsonRpc):
    """JSON-RPC 2.0: requests, and subscriptions in the manner of ``eth_subscribe``.

    ``channel.subscribe("newHeads")`` calls ``eth_subscribe`` with ``["newHeads"]``; other
    parameters than the key are given as such: ``channel.subscribe("transfers", ["logs", {…}])``.
    What is received is the ``result`` of the notifications.

    ``channel.request({"method": …, "params": […]})`` is a call of any other method.

    Args:
        position: Takes a value, and says where it stands in its stream, such as
            ``lambda head: int(head["number"], 16)``.
        is_next: Takes two positions, and says whether nothing can be between them, such as
            ``lambda before, after: after == before + 1``.
    """

    subscribe_method: str = attrs.field(default="eth_subscribe", validator=check_name)
    """The method that subscribes; its result, a text or a number, names the subscription."""
    unsubscribe_method: str | None = attrs.field(default="eth_unsubscribe", validator=_NAME_OR_NONE)
    """The method that takes such a name and unsubscribes; ``None`` if there is none."""
    notification_method: str = attrs.field(default="eth_subscription", validator=check_name)
    """The method of notifications; they have the parameters ``subscription`` and ``result``."""
    retry_codes: frozenset[int] = attrs.field(default=_PASSING, converter=frozenset)
    """Codes of errors after which a subscription may be asked for again, after a while."""
    _position: Callable[[Any], Any] | None = attrs.field(default=None, validator=_FUNCTION_OR_NONE)
    _is_next: Callable[[Any, Any], bool | None] | None = attrs.field(
        default=None, validator=_FUNCTION_OR_NONE
    )

    def subscribe(self, wish: Wish) -> str | bytes:
        """A call of ``subscribe_method``.

        Raises:
            TypeError: The parameters are no array and no object (JSON-RPC 2.0 §4.2).
            CodecError: They are not made of what JSON knows.
        """
        parameters = [wish.key] if wish.parameters is None else wish.parameters
        if not isinstance(parameters, (list, tuple, Mapping)):
            raise TypeError(
                "the parameters of a JSON-RPC call are a list or a mapping,"
                f" not {type(parameters).__name__}"
            )
        return self._call(_SUBSCRIBE, wish.number, self.subscribe_method, parameters)

    def unsubscribe(self, wish: Wish, token: Hashable) -> str | bytes | None:
        """A call of ``unsubscribe_method``; ``None`` as long as the server has not named it."""
        if self.unsubscribe_method is None or not isinstance(token, _Token):
            return None
        return self._call(_UNSUBSCRIBE, wish.number, self.unsubscribe_method, [token.value])

    def _call(self, prefix: str, number: int, method: str, parameters: Any) -> str | bytes:
        return self.encode(
            {
                "jsonrpc": "2.0",
                "id": name_number(prefix, number),
                "method": method,
                "params": dict(parameters) if isinstance(parameters, Mapping) else parameters,
            }
        )

    def recognise(self, message: str | bytes) -> Signal | None:
        """A notification, or the response to a call of one of the two methods."""
        content = read_object(self.decode, message)
        match content:
            case {"method": method}:
                return self._notification(content) if method == self.notification_method else None
            case {"id": str(called)}:
                if (number := read_number(called, _SUBSCRIBE)) is not None:
                    return self._subscribed(number, content)
                if (number := read_number(called, _UNSUBSCRIBE)) is not None:
                    return self._unsubscribed(number, content)
        return None

    def _notification(self, content: dict[str, Any]) -> Signal | None:
        match content.get("params"):
            case {"subscription": name, **said} if (token := _token(name)) is not None:
                if "result" in said:
                    return Published(token, said["result"])
                if "error" in said:
                    return self._ended(token, said["error"])
        return None

    def _subscribed(self, number: int, content: dict[str, Any]) -> Signal | None:
        if content.get("error") is not None:
            return self._ended(number, content["error"])
        if "result" not in content:
            return None
        token = _token(content["result"])
        if token is None:
            # It may be there, and nothing that it publishes could be known as its own.
            unnamed = CodecError("the server's name of the subscription is no text and no number")
            return SubscriptionEnded(number, unnamed)
        return Subscribed(number, token=token)

    def _unsubscribed(self, number: int, content: dict[str, Any]) -> Signal | None:
        if content.get("error") is not None:
            return self._ended(number, content["error"])
        # `false`: it knows of none, which comes to the same.
        return Unsubscribed(number) if "result" in content else None

    def _ended(self, tag: Hashable, error: object) -> SubscriptionEnded:
        match error:
            case {"code": int(code), "message": str(text), **more}:
                reply = JsonRpcError(code, text, more.get("data"))
                return SubscriptionEnded(tag, reply, may_retry=code in self.retry_codes)
        return SubscriptionEnded(tag, ReplyError(error))

    @property
    def has_positions(self) -> bool:
        """Whether there is a function ``position``."""
        return self._position is not None

    def position(self, value: Any) -> Any:
        """As the function ``position`` says."""
        return None if self._position is None else self._position(value)

    def is_next(self, before: Any, after: Any) -> bool | None:
        """As the function ``is_next`` says."""
        return None if self._is_next is None else self._is_next(before, after)


def _token(name: object) -> _Token | None:
    # Not a bool, which is an int: that is no name, and the result of other calls.
    return _Token(name) if isinstance(name, str) or type(name) is int else None
