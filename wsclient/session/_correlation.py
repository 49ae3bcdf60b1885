"""How a request carries its number, and how the reply to it is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import attrs

from wsclient.errors import JsonRpcError, ReplyError

from ._acks import check_function, check_name, names


@attrs.frozen
class Reply:
    """The peer's reply to one request."""

    number: int = attrs.field(validator=attrs.validators.instance_of(int))
    """Which request: the number that it carried."""
    value: Any = None
    """What ``request()`` returns."""
    error: Exception | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(Exception))
    )
    """What ``request()`` raises instead."""
    is_last: bool = attrs.field(default=True, kw_only=True)
    """Whether no more replies to this request follow: see ``DurableChannel.stream``."""
    is_empty: bool = attrs.field(default=False, kw_only=True)
    """Whether it says nothing but that it is the last."""


class Correlation(Protocol):
    """A strategy of matching replies to requests: what ``DeliveryOptions.correlation`` takes."""

    def mark(self, message: Any, number: int) -> str | bytes:
        """Put the number of a request into it, and say how it is written.

        Args:
            message: What the user asks.
            number: Counts the channel's requests from 1.
        """

    def recognise(self, message: str | bytes) -> Reply | None:
        """What a received message replies to; ``None`` if it is no reply.

        The reply to a request that still waits goes no further: it does not reach who receives
        from the channel.
        """


_ID: Final = "id"
_TYPES: Final[Any] = (int, str)


@attrs.frozen(kw_only=True)
class JsonCorrelation:
    """Requests are JSON objects that carry their number in a field; so do the replies.

    With the defaults, ``{"op": "balance"}`` goes out as ``{"op": "balance", "id": 1}``, and
    ``{"id": 1, "balance": 7}`` is the reply, which ``request()`` returns as a ``dict``.
    """

    id_field: str = attrs.field(default=_ID, validator=check_name)
    """The field of a request that carries its number."""
    reply_field: str = attrs.field(default=_ID, validator=check_name)
    """The field of a reply that carries the number of the request.

    A message with this field and the number of a request that waits is taken for its reply."""
    number_type: type[int] | type[str] = attrs.field(
        default=int, validator=attrs.validators.in_(_TYPES)
    )
    """How the number is written: ``1``, or ``"1"`` for a peer whose ids are texts."""
    error_field: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(check_name)
    )
    """A field that only a refusal has: what it holds is raised as :class:`ReplyError`."""
    more_field: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(check_name)
    )
    """A field that is ``true`` in a reply if more replies to the same request follow."""

    def mark(self, message: Mapping[str, Any] | str | bytes, number: int) -> str:
        """Add the number to a JSON object, which is given as a mapping or as text.

        Raises:
            ValueError: The message is none, or has a field of that name, or a number that JSON does
                not know.
        """
        content = _object(message, without=self.id_field)
        return _written(content | {self.id_field: self.number_type(number)})

    def recognise(self, message: str | bytes) -> Reply | None:
        """The reply that a JSON object is, if it is one."""
        content = _object_with(self.reply_field, message)
        number = _number(content.get(self.reply_field), self.number_type)
        if number is None:
            return None
        if self.error_field is not None and content.get(self.error_field) is not None:
            return Reply(number, error=ReplyError(content[self.error_field]))
        has_more = self.more_field is not None and content.get(self.more_field) is True
        return Reply(number, content, is_last=not has_more)


@attrs.frozen
class JsonRpcCorrelation:
    """JSON-RPC 2.0: ``{"method": "sum", "params": [1, 2]}`` is answered by its ``result``.

    ``request()`` returns the result, or raises :class:`JsonRpcError`.
    Notifications (without an id) go to whoever receives from the channel.
    """

    def mark(self, message: Mapping[str, Any] | str | bytes, number: int) -> str:
        """Make a request object of a method and its parameters (JSON-RPC 2.0 §4).

        Raises:
            ValueError: The message names no method, or has an id, or a number that JSON does not
                know.
        """
        content = _object(message, without=_ID)
        if not isinstance(content.get("method"), str):
            raise ValueError('a JSON-RPC request must name its "method", a text')
        return _written({"jsonrpc": "2.0"} | content | {_ID: number})

    def recognise(self, message: str | bytes) -> Reply | None:
        """The reply that a response object is (JSON-RPC 2.0 §5), if the message is one."""
        content = _object_with(_ID, message)
        number = _number(content.get(_ID), int)
        if number is None:
            return None
        match content:
            case {"error": {"code": int(code), "message": str(text), **more}}:
                return Reply(number, error=JsonRpcError(code, text, more.get("data")))
            case {"error": error} if error is not None:
                return Reply(number, error=ReplyError(error))
            case {"result": result}:
                return Reply(number, result)
        # A request of the peer's, say.
        return None


@attrs.frozen
class FunctionCorrelation:
    """A strategy from two functions."""

    mark_with: Callable[[Any, int], str | bytes] = attrs.field(validator=check_function)
    """Puts a number into a request: ``(message, number)``."""
    recognise_with: Callable[[str | bytes], Reply | None] = attrs.field(validator=check_function)
    """Says what a received message replies to."""

    def mark(self, message: Any, number: int) -> str | bytes:
        """As ``mark_with`` does it."""
        return self.mark_with(message, number)

    def recognise(self, message: str | bytes) -> Reply | None:
        """As ``recognise_with`` does it."""
        return self.recognise_with(message)


def _object(message: object, *, without: str) -> dict[str, Any]:
    if isinstance(message, (str, bytes)):
        try:
            message = json.loads(message)
        except (ValueError, RecursionError):
            message = None
    if not isinstance(message, Mapping):
        raise ValueError("a request must be a JSON object, to carry its number")
    if without in message:
        raise ValueError(f"a request must not have the field {without!r} already: it is numbered")
    return dict(message)


def _written(content: dict[str, Any]) -> str:
    try:
        return json.dumps(content, allow_nan=False)
    except (ValueError, RecursionError) as error:
        # NaN, say; which the peer could not read.
        raise ValueError(f"a request must be made of what is in JSON: {error}") from error


def _object_with(field: str, message: str | bytes) -> dict[str, Any]:
    """A JSON object that has a field; empty if the message is none."""
    # Most messages have no such field, and need not be parsed to see that.
    if not names(message, field):
        return {}
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(found: object, kind: type[int] | type[str]) -> int | None:
    if type(found) is not kind:
        return None
    try:
        number = int(found)
    except ValueError:
        return None
    # "012" is read as 12, and yet it is not what we have written.
    return number if kind(number) == found else None
