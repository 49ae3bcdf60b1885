"""How a handler is called, and which messages it is for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any, Final

import attrs

from ._annotation import annotation_of

Handler = Callable[..., Any]

# What a handler may ask for by the name of a parameter, and how it is found in the context.
_ASKED: Final[dict[str, Callable[[Any], Any]]] = {
    "channel": attrgetter("channel"),
    "context": lambda context: context,
    "reply": attrgetter("send"),
}

FOR_MESSAGES: Final = ("channel", "context", "reply")
"""What may be asked for by who handles messages."""

FOR_OTHERS: Final = ("channel", "context")
"""Likewise, by who handles what is no message: a timer, say."""


def name_of(function: object) -> str:
    """A function's qualified name."""
    # Not its repr: a partial's shows its arguments.
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def is_a(question: Callable[[Any], bool], function: object) -> bool:
    """Whether one of ``inspect``'s questions is true of a function, or of an object that is one."""
    return question(function) or question(getattr(type(function), "__call__", None))  # noqa: B004


def is_asynchronous(function: object) -> bool:
    """Whether it is an async function, or an object that is called like one."""
    return is_a(inspect.iscoroutinefunction, function)


@attrs.frozen(eq=False)
class Route:
    """A handler, and how it wants to be called."""

    handler: Handler
    wants: tuple[str, ...] = ()
    """What it asks for, beside what it is called for."""

    @property
    def name(self) -> str:
        """The handler's qualified name."""
        return name_of(self.handler)

    def start(self, args: tuple[Any, ...], context: Any) -> Any:
        """Call the handler; what it returns is to be awaited if it can be."""
        if not self.wants:
            return self.handler(*args)
        return self.handler(*args, **{name: _ASKED[name](context) for name in self.wants})

    async def __call__(self, *args: Any, context: Any) -> Any:
        """Call the handler, and await it if it is asynchronous."""
        result = self.start(args, context)
        if inspect.isawaitable(result):
            awaitable: Awaitable[Any] = result
            return await awaitable
        return result


def route(
    handler: Handler,
    *,
    takes: int,
    may_ask: tuple[str, ...] = FOR_MESSAGES,
    what: str = "a handler",
) -> Route:
    """Look at how ``handler`` can be called.

    Args:
        handler: Takes so many arguments, and perhaps some by name.
        takes: How many positional arguments it gets.
        may_ask: The names.
        what: How it is called in the text of an error.

    Raises:
        TypeError: It cannot be called so; said when it is registered, not when a message comes.
    """
    if not callable(handler):
        raise TypeError(f"{what} must be callable, not {type(handler).__name__}")
    if is_a(inspect.isgeneratorfunction, handler) or is_a(inspect.isasyncgenfunction, handler):
        raise TypeError(
            f"{what} must not be a generator, which only begins when its values are taken:"
            f" {name_of(handler)} has a `yield`"
        )
    try:
        signature = inspect.signature(handler)
    except ValueError:  # Some of the builtin functions do not tell.
        return Route(handler)
    wants = tuple(name for name in may_ask if name in signature.parameters)
    try:
        signature.bind(*[None] * takes, **dict.fromkeys(wants))
    except TypeError as error:
        number = ("no argument", "one argument", "two arguments")[takes]
        asks = f", and may ask for {_listed(may_ask)} by name" if may_ask else ""
        raise TypeError(f"{name_of(handler)} must take {number}{asks}: {error}") from None
    return Route(handler, wants)


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1]))


def message_annotation(handler: Handler) -> Any:
    """What the first parameter of ``handler`` is annotated with; ``None`` if with nothing.

    Raises:
        TypeError: The annotation names something that is not there.
    """
    try:
        parameters = inspect.signature(handler).parameters
    except ValueError:  # Some of the builtin functions do not tell.
        return None
    for name, parameter in parameters.items():
        if parameter.annotation is not inspect.Parameter.empty:
            return annotation_of(handler, name)
        break
    return None


def returns_bool(function: Handler) -> bool:
    """Whether ``function`` says that it returns a ``bool``."""
    try:
        returned = inspect.signature(function).return_annotation
    except ValueError:  # Some of the builtin functions do not tell.
        return False
    return returned in (bool, "bool")


# --- which messages a handler is for ------------------------------------------------------------


@attrs.frozen(eq=False)
class Match:
    """Which messages a handler is for: by what names their type, or by what they hold."""

    kinds: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None
    predicate: Callable[[Any], object] | None = None

    def takes(self, kind: str | None) -> bool:
        """Whether messages of this type may be meant; if there is a predicate, it decides."""
        if self.predicate is not None:
            return True
        if kind is None:
            return False
        return kind in self.kinds or (
            self.pattern is not None and self.pattern.fullmatch(kind) is not None
        )


def match_text(text: str) -> Match:
    """Messages whose type is ``text``, in which ``*`` and ``?`` stand for others."""
    if not is_pattern(text):
        return Match(kinds=frozenset({text}))
    # Not fnmatch's: its brackets are letters in the names of many a feed.
    first, *others = (re.escape(part).replace(r"\?", ".") for part in text.split("*"))
    if others:
        *between, last = others
        # Where a part was found first is as good as any other place.  Tried in all of them, with a
        # name that a peer has made for it, several stars would take for ever.
        first += "".join(f"(?>.*?{part})" for part in between) + ".*" + last
    return Match(pattern=re.compile(first, re.DOTALL))


def is_pattern(text: str) -> bool:
    """Whether ``text`` means more types than one."""
    return "*" in text or "?" in text
