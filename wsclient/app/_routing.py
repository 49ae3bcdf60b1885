"""Which handler a message goes to, and how a handler is called."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

Handler = Callable[..., Any]


@attrs.frozen
class Route:
    """A handler, and how it wants to be called."""

    handler: Handler
    wants_context: bool

    @property
    def name(self) -> str:
        """The handler's qualified name."""
        # Not its repr: a partial's shows its arguments.
        return getattr(self.handler, "__qualname__", None) or type(self.handler).__qualname__

    async def __call__(self, *args: Any, context: Any) -> None:
        """Call the handler, and await it if it is asynchronous."""
        result = self.handler(*args, context=context) if self.wants_context else self.handler(*args)
        if inspect.isawaitable(result):
            awaitable: Awaitable[Any] = result
            await awaitable


def route(handler: Handler, *, takes: int) -> Route:
    """Look at how ``handler`` can be called.

    Args:
        handler: Takes so many arguments, and perhaps one called ``context``.
        takes: How many positional arguments it gets.

    Raises:
        TypeError: It cannot be called so; said when it is registered, not when a message comes.
    """
    if not callable(handler):
        raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
    try:
        signature = inspect.signature(handler)
    except ValueError:  # Some of the builtin functions do not tell.
        return Route(handler, wants_context=False)
    wants_context = "context" in signature.parameters
    try:
        signature.bind(*[None] * takes, **({"context": None} if wants_context else {}))
    except TypeError as error:
        what = "no argument" if takes == 0 else "one argument"
        raise TypeError(
            f"{getattr(handler, '__qualname__', type(handler).__qualname__)} must take {what}"
            f", and may take one called 'context': {error}"
        ) from None
    return Route(handler, wants_context)


class Routes:
    """Handlers by the type of message that they are for, in the order of their registration."""

    def __init__(self) -> None:
        self._routes: dict[str, list[Route]] = {}

    def add(self, kind: str, handler: Handler) -> None:
        """Send messages of type ``kind`` to ``handler``, too."""
        self._routes.setdefault(kind, []).append(route(handler, takes=1))

    def find(self, kind: str) -> tuple[Route, ...]:
        """The handlers for messages of type ``kind``."""
        return tuple(self._routes.get(kind, ()))
