"""How a message carries its id, and how the peer's acknowledgement is known."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs


@attrs.frozen
class Ack:
    """The peer's word on one message."""

    id: str = attrs.field(validator=attrs.validators.instance_of(str))
    """Which message: the id that it carried."""
    accepted: bool = True
    """Whether the peer takes it; if not, its outcome is ``Outcome.REJECTED``."""


class Acknowledgement(Protocol):
    """A strategy of acknowledging: what ``DeliveryOptions.acknowledgement`` takes."""

    def mark(self, message: str | bytes, key: str, *, redelivered: bool) -> str | bytes:
        """Put the id ``key`` into a message.

        Args:
            message: What the user sends.
            key: The id, 16 hexadecimal digits; the same each time the message is written.
            redelivered: Whether it was written before.
        """

    def recognise(self, message: str | bytes) -> Ack | None:
        """What a received message acknowledges; ``None`` if it is no acknowledgement.

        An acknowledgement goes no further: it does not reach who receives from the channel.
        One of an id that the channel has not given, or not lately, is a message like any other.
        """


_ID: Final = "id"
_ACK: Final = "ack"


def check_name(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse what is no name of a field."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{attribute.name} must not be empty")


def check_function(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise TypeError(f"{attribute.name} must be callable, not {type(value).__name__}")


@attrs.frozen(kw_only=True)
class JsonAcknowledgement:
    """Messages are JSON objects that carry their id in a field; so do acknowledgements.

    With the defaults, ``{"op": "buy"}`` goes out as ``{"op": "buy", "id": "5f0c…"}``, and is
    acknowledged by ``{"ack": "5f0c…"}``.
    """

    id_field: str = attrs.field(default=_ID, validator=check_name)
    """The field of a sent message that carries the id."""
    ack_field: str = attrs.field(default=_ACK, validator=check_name)
    """The field of a received message that carries the id of the one that it acknowledges."""
    nack_field: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(check_name)
    )
    """Likewise, of the one that the peer does not take; ``None``: it never says so."""
    redelivered_field: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(check_name)
    )
    """A field that is ``true`` in a message that was written before; ``None`` adds none."""

    def __attrs_post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.nack_field == self.ack_field:
            raise ValueError("nack_field and ack_field must differ: a refusal would acknowledge")
        if self.redelivered_field == self.id_field:
            raise ValueError("redelivered_field and id_field must differ")

    def mark(self, message: str | bytes, key: str, *, redelivered: bool) -> str | bytes:
        """Add the id to a JSON object.

        Raises:
            ValueError: The message is none, or has a field of that name.
        """
        try:
            content = json.loads(message)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise ValueError("a message sent as ACKED must be a JSON object, to carry its id")
        # Both, and at the first time: later nobody could be told.
        for field in (self.id_field, self.redelivered_field):
            if field in content:
                raise ValueError(
                    f"a message sent as ACKED must not have the field {field!r} already:"
                    " leave it out, or name another in JsonAcknowledgement"
                )
        content[self.id_field] = key
        if redelivered and self.redelivered_field is not None:
            content[self.redelivered_field] = True
        text = json.dumps(content, ensure_ascii=False)
        try:
            encoded = text.encode()
        except UnicodeEncodeError:
            # A lone surrogate: only an escape can say it.
            text = json.dumps(content)
            encoded = text.encode()
        return text if isinstance(message, str) else encoded

    def recognise(self, message: str | bytes) -> Ack | None:
        """The acknowledgement that a JSON object is, if it is one."""
        # Most messages are none, and need not be parsed to see that.
        for field, accepted in ((self.ack_field, True), (self.nack_field, False)):
            if field is None or not names(message, field):
                continue
            try:
                content = json.loads(message)
            except (ValueError, RecursionError):
                return None
            if isinstance(content, dict) and isinstance(content.get(field), str):
                return Ack(content[field], accepted)
        return None


def names(message: str | bytes, field: str) -> bool:
    """Whether ``field`` may be a name in a message."""
    if isinstance(message, str):
        return any(name in message for name in _spellings(field))
    return any(name.encode() in message for name in _spellings(field))


@functools.cache
def _spellings(field: str) -> set[str]:
    """How JSON writes a name: as it is, or escaped."""
    return {json.dumps(field, ensure_ascii=ensure_ascii) for ensure_ascii in (False, True)}


@attrs.frozen
class FunctionAcknowledgement:
    """A strategy from two functions."""

    mark_with: Callable[[str | bytes, str, bool], str | bytes] = attrs.field(
        validator=check_function
    )
    """Puts an id into a message: ``(message, id, redelivered)``."""
    recognise_with: Callable[[str | bytes], Ack | None] = attrs.field(validator=check_function)
    """Says what a received message acknowledges."""

    def mark(self, message: str | bytes, key: str, *, redelivered: bool) -> str | bytes:
        """As ``mark_with`` does it."""
        return self.mark_with(message, key, redelivered)

    def recognise(self, message: str | bytes) -> Ack | None:
        """As ``recognise_with`` does it."""
        return self.recognise_with(message)
