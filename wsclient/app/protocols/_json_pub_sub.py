"""Publish and subscribe in plain JSON: what many services have made up, each with other names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import attrs

from wsclient.errors import ReplyError
from wsclient.session import (
    Answer,
    Protocol,
    Published,
    Signal,
    Subscribed,
    SubscriptionEnded,
    Unsubscribed,
    Wish,
    check_name,
)

from ._objects import read_object


def _name(default: str) -> Any:
    return attrs.field(default=default, validator=check_name)


def _name_or_none(default: str | None) -> Any:
    return attrs.field(default=default, validator=attrs.validators.optional(check_name))


@attrs.frozen(kw_only=True)
class JsonPubSub(Protocol):
    """Publish and subscribe in plain JSON, whose names are as you say.

    With the defaults, ``channel.subscribe("trades")`` sends
    ``{"op": "subscribe", "channel": "trades"}``, parameters (a mapping) beside it, and after a loss
    ``"after": 41``, the number of the last value.

    The server says ``{"op": "subscribed", "channel": "trades"}``, with ``"resumed": true`` if it
    goes on right behind that number; then
    ``{"channel": "trades", "seq": 42, "data": …}``, of which the ``data`` is received; and
    ``{"op": "error", "channel": "trades", "error": …}`` if it does not take the subscription, or
    has ended it, with ``"retry": true`` if it may be asked for again.

    A number that is missing becomes a ``Gap``.
    """

    op_field: str = _name("op")
    """The field that says what a message of ours wants."""
    event_field: str = _name("op")
    """Likewise, what a message of the server's is; what it publishes need not have it."""
    channel_field: str = _name("channel")
    """The field that names the subscription, in both directions: its key, a text."""
    subscribe_op: str = _name("subscribe")
    unsubscribe_op: str | None = _name_or_none("unsubscribe")
    """``None`` if there is no way to unsubscribe."""
    subscribed_event: str | None = _name_or_none("subscribed")
    """The confirmation; ``None`` if the server does not confirm."""
    unsubscribed_event: str = _name("unsubscribed")
    ended_event: str = _name("ended")
    """The server has come to the end of a stream."""
    error_event: str = _name("error")
    publish_event: str | None = _name_or_none(None)
    """What published messages are; ``None``: whatever has the channel and the data."""
    ping_event: str | None = _name_or_none("ping")
    """The server's own ping; ``None`` if it has none."""
    pong_op: str = _name("pong")
    """The answer to it."""
    data_field: str | None = _name_or_none("data")
    """The field of what is published; ``None``: the whole message is received."""
    error_field: str = _name("error")
    """The field of an error that says which."""
    retry_field: str = _name("retry")
    """The field of an error that is ``true`` if the subscription may be asked for again."""
    position_field: str | None = _name_or_none("seq")
    """The field of what is published that numbers it within its channel, in a growing order;
    ``None`` if nothing is numbered."""
    consecutive: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    """Whether the numbers leave none out: then one that is missing is a gap."""
    after_field: str | None = _name_or_none("after")
    """The field of a subscription that says behind which number to go on; ``None`` if the server
    cannot resume."""
    resumed_field: str = _name("resumed")
    """The field of the confirmation that is ``true`` if it goes on there."""

    confirms: bool = attrs.field(init=False, repr=False)
    """Whether there is a ``subscribed_event``."""

    @confirms.default
    def _has_confirmation(self) -> bool:
        return self.subscribed_event is not None

    def subscribe(self, wish: Wish) -> str | bytes:
        """A message with the channel, the parameters, and the position to go on behind.

        Raises:
            TypeError: The key is no text, or the parameters are no mapping.
            ValueError: The parameters have a field that is ours.
            CodecError: They are not made of what JSON knows.
        """
        content = self._about(self.subscribe_op, wish)
        if self.after_field is not None and wish.after is not None:
            content[self.after_field] = wish.after
        parameters = {} if wish.parameters is None else wish.parameters
        if not isinstance(parameters, Mapping):
            raise TypeError(f"the parameters are a mapping, not {type(parameters).__name__}")
        if taken := {self.op_field, self.channel_field, self.after_field} & {*parameters}:
            raise ValueError(f"the parameters must not have the fields {sorted(map(str, taken))}")
        return self.encode(content | dict(parameters))

    def unsubscribe(self, wish: Wish, token: Hashable) -> str | bytes | None:
        """A message with the channel."""
        if self.unsubscribe_op is None:
            return None
        return self.encode(self._about(self.unsubscribe_op, wish))

    def _about(self, op: str, wish: Wish) -> dict[str, Any]:
        if not isinstance(wish.key, str):
            raise TypeError(f"the key is the channel, a text, not {type(wish.key).__name__}")
        return {self.op_field: op, self.channel_field: wish.key}

    def recognise(self, message: str | bytes) -> Signal | None:
        """Something published, a confirmation, an end, or a ping."""
        content = read_object(self.decode, message)
        event = content.get(self.event_field)
        # What a name is compared with may be None: no event is none of these.
        if event is not None and event == self.ping_event:
            return Answer(self.encode({self.op_field: self.pong_op}))
        channel = content.get(self.channel_field)
        if not isinstance(channel, str):
            return None
        if event is not None:
            if event == self.subscribed_event:
                return Subscribed(channel, resumed=content.get(self.resumed_field) is True)
            if event == self.unsubscribed_event:
                return Unsubscribed(channel)
            if event == self.ended_event:
                return SubscriptionEnded(channel)
            if event == self.error_event:
                return SubscriptionEnded(
                    channel,
                    ReplyError(content.get(self.error_field)),
                    may_retry=content.get(self.retry_field) is True,
                )
        return self._published(channel, event, content)

    def _published(self, channel: str, event: object, content: dict[str, Any]) -> Signal | None:
        if self.publish_event is not None and event != self.publish_event:
            return None
        if self.data_field is None:
            value: Any = content
        elif self.data_field in content:
            value = content[self.data_field]
        else:
            return None
        return Published(channel, value, position=self._position(content))

    def _position(self, content: Mapping[str, Any]) -> int | None:
        # Not a bool, which is an int, and nothing that cannot be compared with the others.
        found = None if self.position_field is None else content.get(self.position_field)
        return found if type(found) is int else None

    @property
    def has_positions(self) -> bool:
        """Whether there is a ``position_field``."""
        return self.position_field is not None

    def position(self, value: Any) -> Any:
        """The number in a value that is a whole message; ``None`` in others, which have none."""
        whole = self.data_field is None and isinstance(value, Mapping)
        return self._position(value) if whole else None

    def is_next(self, before: Any, after: Any) -> bool | None:
        """Whether the numbers follow one another; ``None`` if they are not ``consecutive``."""
        return bool(after == before + 1) if self.consecutive else None
