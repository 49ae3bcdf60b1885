"""What a bot does with a message, worked out when something is registered and not for each one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from typing import Any, Final, TypeAlias, Union

import attrs

from ._context import Context
from ._lanes import Lanes
from ._router import Middleware, Registered, Registration, Role, Wanted
from ._routing import Handler, Match, Route
from ._typed import plain_types

Decode: TypeAlias = Callable[[str | bytes], Any]
Around: TypeAlias = Callable[[tuple[Any, ...], Context], Awaitable[Any]]

_TEXT: Final[frozenset[type]] = frozenset({str})
_BINARY: Final[frozenset[type]] = frozenset({bytes})
_BOTH: Final[frozenset[type]] = frozenset({str, bytes})

_REMEMBERED: Final = 1024
"""Types of message that matched a pattern, for which it is remembered what they matched: a peer may
invent ever more."""

_REMEMBERED_LENGTH: Final = 128
"""Characters of such a type, at most: a peer may also invent long ones."""


@attrs.frozen(eq=False, kw_only=True)
class Call:
    """A handler, ready to be called."""

    route: Route
    name: str
    match: Match
    annotation: Any
    decode: Decode | None
    """Makes the handler's argument of the message; ``None`` where it gets the codec's value, or the
    message as it came."""
    plain: tuple[type, ...]
    """Of which types the codec's value must be, where the handler gets that; none for any."""
    takes: frozenset[type]
    """The types of message as it came, of which it gets any."""
    around: Around | None
    """The middleware around it, down to it itself."""
    lanes: Lanes | None
    ordered_by: Callable[[Any], Hashable] | None
    straight: Handler | None
    """The handler itself, where there is nothing to be done but to call it with a message."""
    seconds: float
    """Of a timer."""
    wanted: Wanted | None
    """Of a subscription."""


@attrs.frozen(eq=False)
class Found:
    """Who may want a message."""

    calls: tuple[Call, ...]
    """In the order of registration."""
    is_typed: bool
    """Whether all of them decode it themselves, so that nobody needs what the codec makes of it."""


class Plan:
    """Who is to be called for what.

    Args:
        registered: All that is registered, in order.
        decoder: Gives what makes messages into what an annotation says.
        kinds: Gives the types of message that a Python type names.
        converter: Gives what makes values into what an annotation says.
        key: The field of a message in which its type is.
        lanes: Gives the lanes of a handler that is to be called concurrently; always the same.
    """

    def __init__(
        self,
        registered: Iterable[Registered],
        *,
        decoder: Callable[[Any], Decode],
        kinds: Callable[[Any], frozenset[str]],
        converter: Callable[[Any], Decode],
        key: str,
        lanes: Callable[[Registration], Lanes],
    ) -> None:
        calls: dict[Role, list[Call]] = {role: [] for role in Role}
        for one in registered:
            call = _call(one, decoder, kinds, converter, lanes)
            calls[one.registration.role].append(call)
        self.connect: tuple[Call, ...] = tuple(calls[Role.CONNECT])
        self.disconnect: tuple[Call, ...] = tuple(calls[Role.DISCONNECT])
        self.connected: tuple[Call, ...] = tuple(calls[Role.CONNECTED])
        self.subscriptions: tuple[Call, ...] = tuple(calls[Role.SUBSCRIPTION])
        self.timers: tuple[Call, ...] = tuple(calls[Role.TIMER])
        self.gaps: tuple[Call, ...] = tuple(calls[Role.GAP])
        self.errors: tuple[Call, ...] = tuple(calls[Role.ERROR])
        self.every_message: tuple[Call, ...] = tuple(calls[Role.EVERY_MESSAGE])
        self.unhandled: tuple[Call, ...] = tuple(calls[Role.UNHANDLED])
        self._messages = tuple(calls[Role.MESSAGES])
        self.is_typed: bool = any(call.decode is not None for call in self._messages)
        """Whether some of those who are told apart decode their messages themselves."""
        self.straight_decode: Decode | None = None
        """Decodes messages into Structs that name their types, if handlers want such and nothing
        else; raises for messages that are none of them."""
        self.is_sorting: bool = bool(self._messages or self.unhandled or not self.every_message)
        """Whether messages have to be told apart by their types."""
        self._found: dict[str, Found] = {
            kind: self._match(kind) for call in self._messages for kind in call.match.kinds
        }
        # Without patterns, what is not among them is nobody's, or for predicates to tell.
        self._has_patterns = any(call.match.pattern is not None for call in self._messages)
        self.others: Found = self._match(None)
        """Who may want a message of a type that nobody names."""
        self._exact = len(self._found)
        self.by_struct: dict[type, tuple[str, tuple[Call, ...]]] = {}
        """By what that gives: the type of the message, and who is called with it."""
        if self._messages and not self._has_patterns and not self.others.calls:
            self._look_for_structs(decoder, key)

    def _look_for_structs(self, decoder: Callable[[Any], Decode], key: str) -> None:
        for kind, found in self._found.items():
            struct = found.calls[0].annotation
            if not _is_struct(struct, kind, key):
                return
            if not all(call.annotation is struct for call in found.calls):
                return
            self.by_struct[struct] = (kind, found.calls)
        # One step of msgspec's, instead of a look at the type and then at the rest.
        with suppress(TypeError):  # A codec that knows each of them need not know all together.
            self.straight_decode = decoder(Union[tuple(self.by_struct)])  # noqa: UP007

    def _match(self, kind: str | None) -> Found:
        calls = tuple(call for call in self._messages if call.match.takes(kind))
        is_typed = all(call.decode is not None and call.match.predicate is None for call in calls)
        return Found(calls, is_typed=is_typed and bool(calls))

    def find(self, kind: str) -> Found:
        """Who may want messages of this type."""
        found = self._found.get(kind)
        if found is not None:
            return found
        if not self._has_patterns:
            return self.others
        found = self._match(kind)
        if len(kind) <= _REMEMBERED_LENGTH and len(self._found) < self._exact + _REMEMBERED:
            self._found[kind] = found
        return found


def _is_struct(annotation: Any, kind: str, key: str) -> bool:
    """Whether it is a Struct of msgspec's that is tagged with this type of message."""
    config = getattr(annotation, "__struct_config__", None)
    return (
        isinstance(annotation, type)
        and config is not None
        and not config.array_like
        and ((key, kind) == (config.tag_field, config.tag))
    )


def _match_of(
    registration: Registration, prefix: str, kinds: Callable[[Any], frozenset[str]]
) -> Match:
    """Which messages a handler is for.

    Raises:
        TypeError: Its Python type does not say what it is called on the wire.
    """
    if registration.match is not None:
        return registration.match(prefix)
    return Match() if registration.named_by is None else Match(kinds=kinds(registration.named_by))


def _call(
    one: Registered,
    decoder: Callable[[Any], Decode],
    kinds: Callable[[Any], frozenset[str]],
    converter: Callable[[Any], Decode],
    lanes: Callable[[Registration], Lanes],
) -> Call:
    registration = one.registration
    route = registration.route
    takes: frozenset[type] = _BOTH
    decode: Decode | None = None
    plain: tuple[type, ...] = ()
    if registration.role is Role.EVERY_MESSAGE:
        takes, decode = _wanted(registration.annotation, decoder)
    elif registration.role in (Role.MESSAGES, Role.UNHANDLED):
        plain, decode = _form(registration.annotation, decoder)
    elif registration.role is Role.SUBSCRIPTION and registration.annotation is not None:
        decode = converter(registration.annotation)
    is_around = registration.role not in (Role.CONNECT, Role.CONNECTED, Role.ERROR)
    around = _around(one.middlewares, route) if is_around and one.middlewares else None
    is_straight = around is None and not route.wants and registration.concurrency == 1
    return Call(
        route=route,
        name=route.name,
        annotation=registration.annotation,
        match=_match_of(registration, one.prefix, kinds),
        decode=decode,
        plain=plain,
        takes=takes,
        around=around,
        lanes=lanes(registration) if registration.concurrency > 1 else None,
        ordered_by=registration.ordered_by,
        straight=route.handler if is_straight else None,
        seconds=registration.seconds,
        wanted=registration.wanted,
    )


def _form(
    annotation: Any, decoder: Callable[[Any], Decode]
) -> tuple[tuple[type, ...], Decode | None]:
    """Of which types the codec's value must be, or what the message is decoded by instead."""
    plain = (object,) if annotation is None else plain_types(annotation)
    if plain is None:
        return (), decoder(annotation)
    return (() if plain == (object,) else plain), None


def _wanted(
    annotation: Any, decoder: Callable[[Any], Decode]
) -> tuple[frozenset[type], Decode | None]:
    """Of the messages as they come, which; and how they are decoded, if they are."""
    if annotation is str:
        return _TEXT, None
    if annotation is bytes:
        return _BINARY, None
    if annotation in (None, Any, object, str | bytes):
        return _BOTH, None
    return _BOTH, decoder(annotation)


def _around(middlewares: tuple[Middleware, ...], route: Route) -> Around:
    async def innermost(args: tuple[Any, ...], context: Context) -> Any:
        return await route(*args, context=context)

    around: Around = innermost
    for middleware in reversed(middlewares):
        around = _wrapped(middleware, around)
    return around


def _wrapped(middleware: Middleware, inner: Around) -> Around:
    async def outer(args: tuple[Any, ...], context: Context) -> Any:
        async def call_next() -> Any:
            return await inner(args, context)

        return await middleware(context, call_next)

    return outer
