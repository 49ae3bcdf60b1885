"""Where handlers are registered: on a bot, or on a router that is included into one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable, Iterator
from enum import Enum
from types import UnionType
from typing import Any, ClassVar, TypeAlias, TypeVar, overload

import attrs

from wsclient.options import Limits
from wsclient.session import (
    Backfill,
    Commit,
    ConnectHook,
    DurableChannel,
    Feed,
    TakeSnapshot,
    check_wish,
)

from ._context import Context
from ._routing import (
    FOR_OTHERS,
    Handler,
    Match,
    Route,
    is_asynchronous,
    match_text,
    message_annotation,
    name_of,
    returns_bool,
    route,
)

H = TypeVar("H", bound=Handler)
C = TypeVar("C", bound=ConnectHook)
T = TypeVar("T", bound=Callable[..., Awaitable[object]])

CallNext: TypeAlias = Callable[[], Awaitable[Any]]
"""What middleware calls to let the handler be called; gives what that returns."""

Middleware: TypeAlias = Callable[[Context, CallNext], Awaitable[Any]]
"""Around every handler: ``async def middleware(context, call_next)``."""

M = TypeVar("M", bound=Middleware)

_WHICH = (
    "bot.on needs to know which messages: @bot.on('trade'), @bot.on('trade.*'),"
    " @bot.on(Trade) by type, @bot.on(lambda message: …) by what they hold;"
    " or annotate the handler's message with a type that names itself"
)


class Role(Enum):
    """What a function is registered for."""

    MESSAGES = "messages of a type"
    EVERY_MESSAGE = "every message"
    UNHANDLED = "messages for whose type there is no handler"
    CONNECT = "connect"
    DISCONNECT = "disconnect"
    GAP = "gap"
    CONNECTED = "while connected"
    TIMER = "timer"
    SUBSCRIPTION = "subscription"
    ERROR = "error"


@attrs.frozen(kw_only=True)
class Wanted:
    """A subscription that a handler is for: the arguments of ``DurableChannel.subscribe``."""

    key: Hashable
    parameters: Any
    after: Any
    """The position, or a function that gives it."""
    options: dict[str, Any]

    def feed(self, channel: DurableChannel) -> Feed:
        """Subscribe."""
        after = self.after() if callable(self.after) else self.after
        return channel.subscribe(self.key, self.parameters, after=after, **self.options)


@attrs.frozen(eq=False, kw_only=True)
class Registration:
    """A function, and what it is registered for."""

    role: Role
    route: Route
    match: Callable[[str], Match] | None = None
    """Which messages, given a prefix."""
    named_by: Any = None
    """The Python type that says which messages, where there is no ``match``."""
    annotation: Any = None
    """What its message is annotated with."""
    concurrency: int = 1
    ordered_by: Callable[[Any], Hashable] | None = None
    seconds: float = 0.0
    """Of a timer."""
    wanted: Wanted | None = None
    """Of a subscription."""


@attrs.frozen(eq=False)
class Included:
    """A router, where it was included."""

    router: Router
    prefix: str


@attrs.frozen(eq=False)
class Registered:
    """A registration as it stands in a bot: with what the routers in between add."""

    registration: Registration
    prefix: str
    middlewares: tuple[Middleware, ...]
    """The outermost first."""


class Router:
    """Handlers that are registered together, to be included into a bot or another router.

    ``@router.on("trade")`` and its siblings are those of :class:`Bot`, and what is registered later
    counts as well; while a bot serves, that is so for all but timers, tasks, and the first hook for
    connections, which have to be there when it begins.
    A router may be included into several bots.
    """

    _is_root: ClassVar[bool] = False

    def __init__(self) -> None:
        self._registered: list[Registration | Included] = []
        self._middlewares: list[Middleware] = []
        self._parents: list[Router] = []

    # Registering.

    @overload
    def on(
        self,
        messages: str | type[Any] | UnionType,
        /,
        *,
        concurrency: int = 1,
        ordered_by: Callable[[Any], Hashable] | None = None,
    ) -> Callable[[H], H]: ...
    @overload
    def on(
        self,
        messages: Callable[[Any], bool],
        /,
        *,
        concurrency: int = 1,
        ordered_by: Callable[[Any], Hashable] | None = None,
    ) -> Callable[[H], H]: ...
    @overload
    def on(
        self,
        messages: None = None,
        /,
        *,
        concurrency: int = 1,
        ordered_by: Callable[[Any], Hashable] | None = None,
    ) -> Callable[[H], H]: ...
    @overload
    def on(self, handler: H, /) -> H: ...

    def on(
        self,
        messages: Any = None,
        /,
        *,
        concurrency: int = 1,
        ordered_by: Callable[[Any], Hashable] | None = None,
    ) -> Any:
        """Register a handler for some messages.

        Which, is said by

        - their type: ``@bot.on("trade")``; in ``@bot.on("trade.*")``, ``*`` stands for any
          characters, and ``?`` for one;
        - a Python type that says what it is called on the wire: ``@bot.on(Trade)``, or
          ``@bot.on`` alone where the handler's message is annotated with such a type;
        - what they hold: ``@bot.on(lambda message: message.get("urgent"))``.
          A function with a name has to say that it is no handler: ``-> bool``.

        The handler gets the decoded message, as the annotation of its first parameter says:
        without one, what the codec makes of it.
        It gets by name what else it has a parameter for: ``context`` (a :class:`Context`),
        ``channel``, and ``reply``, a function that sends: ``receipt = await reply(value)``.
        It may be asynchronous or not.

        Every handler that a message is for is called, in the order of their registration; by
        default, one message is handled after the other.

        Args:
            messages: Which.
            concurrency: Messages that this handler may have at work at once.
                Then the next message does not wait for it, unless as many are at work; or as many
                wait for an earlier one of their key.
            ordered_by: Given the message as the handler gets it, what it must be in order with:
                messages with equal keys are handled one after the other, as they came.
                Without it, messages that are handled concurrently have no order.

        Raises:
            TypeError: This is no way to name messages, the handler cannot be called so, or its
                message cannot be decoded to what it is annotated with.
            ValueError: ``concurrency`` is below 1, or ``ordered_by`` orders what is in order.
        """
        _check_concurrency(concurrency, ordered_by)

        def register(
            handler: H, match: Callable[[str], Match] | None = None, named_by: Any = None
        ) -> H:
            how = route(handler, takes=1)
            annotation = message_annotation(handler)
            if match is None and named_by is None:
                if not is_type(annotation):
                    raise TypeError(f"{how.name}: {_WHICH}")
                named_by = annotation
            self._add(
                Registration(
                    role=Role.MESSAGES,
                    route=how,
                    match=match,
                    named_by=named_by,
                    annotation=named_by if annotation is None else annotation,
                    concurrency=concurrency,
                    ordered_by=ordered_by,
                )
            )
            return handler

        if messages is None or is_type(messages):
            return lambda handler: register(handler, named_by=messages)
        if isinstance(messages, str):
            return lambda handler: register(handler, lambda prefix: match_text(prefix + messages))
        if not callable(messages):
            raise TypeError(f"{_WHICH}; not {type(messages).__name__}")
        if _is_predicate(messages):
            found = Match(predicate=messages)
            return lambda handler: register(handler, lambda _: found)
        return register(messages)

    @overload
    def on_message(self, handler: H, /) -> H: ...
    @overload
    def on_message(
        self,
        handler: None = None,
        /,
        *,
        concurrency: int = 1,
        ordered_by: Callable[[Any], Hashable] | None = None,
    ) -> Callable[[H], H]: ...

    def on_message(
        self,
        handler: Handler | None = None,
        /,
        *,
        concurrency: int = 1,
        ordered_by: Callable[[Any], Hashable] | None = None,
    ) -> Any:
        """Register a handler for every message, whatever its type: ``@bot.on_message``.

        It gets the message as it came, or decoded, as its first parameter is annotated:

        - ``str``: text messages, and no others; ``bytes``: binary messages, and no others;
        - ``str | bytes``, or nothing: every message, as it came;
        - anything else: every message, decoded to that.

        It is called before those that :meth:`on` registers; and where there is none of these,
        nothing is decoded that nobody wants decoded, which makes it the fastest.

        Args:
            handler: The handler, where it is used without an argument.
            concurrency: As for :meth:`on`.
            ordered_by: Likewise.

        Raises:
            TypeError, ValueError: As :meth:`on`.
        """
        _check_concurrency(concurrency, ordered_by)

        def register(handler: Handler) -> Handler:
            self._add(
                Registration(
                    role=Role.EVERY_MESSAGE,
                    route=route(handler, takes=1),
                    annotation=message_annotation(handler),
                    concurrency=concurrency,
                    ordered_by=ordered_by,
                )
            )
            return handler

        return register if handler is None else register(handler)

    def on_connect(self, hook: C) -> C:
        """Register a hook that gets the raw connection of every new connection, first of all.

        Authenticate and subscribe here.
        Several hooks run in the order of their registration.

        Raises:
            TypeError: The hook cannot be called so.
        """
        how = route(hook, takes=1, may_ask=(), what="a hook")
        self._add(Registration(role=Role.CONNECT, route=how))
        return hook

    def on_disconnect(self, hook: H) -> H:
        """Register a hook that is told of each connection that was ready and is no more.

        It gets a :class:`ConnectionLost`, or a :class:`ConnectionLeft` where the channel itself has
        left the connection for another one; and ``context`` or ``channel``, if it has a parameter
        of that name.
        It may be asynchronous or not, runs beside the handlers, and is told of one connection after
        the other; of those that come while it is at work, the last 64 wait.
        The end of the bot is not told: what has to be undone then belongs into the ``finally`` of a
        task that lives :meth:`while_connected`.

        Raises:
            TypeError: The hook cannot be called so.
        """
        how = route(hook, takes=1, may_ask=FOR_OTHERS, what="a hook")
        self._add(Registration(role=Role.DISCONNECT, route=how))
        return hook

    def on_gap(self, hook: H) -> H:
        """Register a hook that gets each :class:`Gap`: messages may have been missed.

        It is called between the messages between which the gap is, and the next message waits for
        it: fetch here what is missing.
        It gets ``context`` or ``channel``, if it has a parameter of that name, and may be
        asynchronous or not.

        Raises:
            TypeError: The hook cannot be called so.
        """
        how = route(hook, takes=1, may_ask=FOR_OTHERS, what="a hook")
        self._add(Registration(role=Role.GAP, route=how))
        return hook

    def while_connected(self, task: T) -> T:
        """Run a task on each connection, for as long as that lives: ``@bot.while_connected``.

        It gets the connection, and ``context`` or ``channel``, if it has a parameter of that name.
        It is cancelled when its connection is lost or left, and begins anew on the next one; one
        that returns has done its work for this connection, and so has one that raises, after what
        ``handler_errors`` says.
        Stopping does not wait for it: it is cancelled once the handlers are done.

        Raises:
            TypeError: The task is not asynchronous, or cannot be called so.
        """
        how = route(task, takes=1, may_ask=FOR_OTHERS, what="a task")
        _check_asynchronous(task, "a task", how.name)
        self._add(Registration(role=Role.CONNECTED, route=how))
        return task

    def every(self, seconds: float) -> Callable[[H], H]:
        """Call a function every so many seconds while the bot serves: ``@bot.every(60)``.

        The first call comes after the first interval; a call that takes longer than an interval
        delays the next.
        It gets ``context`` or ``channel``, if it has a parameter of that name.

        Raises:
            TypeError: ``seconds`` is not a number, or the function needs other arguments.
            ValueError: ``seconds`` is not above 0.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(
                f"bot.every needs seconds, as in @bot.every(60), not {type(seconds).__name__}"
            )
        if not seconds > 0:
            raise ValueError(f"bot.every needs seconds above 0, not {seconds!r}")

        def register(handler: H) -> H:
            how = route(handler, takes=0, may_ask=FOR_OTHERS)
            self._add(Registration(role=Role.TIMER, route=how, seconds=seconds))
            return handler

        return register

    def subscribe(
        self,
        key: Hashable,
        parameters: Any = None,
        *,
        priority: float = 0,
        after: Any = None,
        backfill: Backfill | None = None,
        snapshot: TakeSnapshot | None = None,
        commit: Commit = "after",
        limits: Limits | None = None,
    ) -> Callable[[H], H]:
        """Register a handler for what is published to a subscription: ``@bot.subscribe("trades")``.

        The bot needs a ``protocol``, and keeps the subscription as long as it serves; see
        :meth:`DurableChannel.subscribe`.
        The handler gets each value, in order, converted to what its first parameter is annotated
        with; and by name what :meth:`on` gives by name.
        Handlers of different subscriptions do not wait for one another.

        Where something is missing, the hooks of :meth:`on_gap` are called, between the values
        between which it is.
        Stopping lets the handler at work finish.
        A subscription that the server refuses is a failure of its handler, which is not called any
        more.

        Args:
            key: As for :meth:`DurableChannel.subscribe`, and so are the others.
            parameters: …
            priority: …
            after: … or a function that gives it, called when the bot begins to serve.
            backfill: …
            snapshot: …
            commit: …
            limits: …

        Raises:
            TypeError: The handler cannot be called so, or its value cannot be converted to what it
                is annotated with; or another argument cannot be used.
            ValueError: Likewise.
        """
        check_wish(key, priority, backfill, snapshot, commit, limits)

        def register(handler: H) -> H:
            self._add(
                Registration(
                    role=Role.SUBSCRIPTION,
                    route=route(handler, takes=1),
                    annotation=message_annotation(handler),
                    wanted=Wanted(
                        key=key,
                        parameters=parameters,
                        after=after,
                        options={
                            "priority": priority,
                            "backfill": backfill,
                            "snapshot": snapshot,
                            "commit": commit,
                            "limits": limits,
                        },
                    ),
                )
            )
            return handler

        return register

    def middleware(self, middleware: M) -> M:
        """Register what is around every handler.

        It is ``async def middleware(context, call_next)``.
        ``await call_next()`` calls the handler, or the next middleware, and gives what it returns.
        What it raises comes through, and may be answered; what leaves the outermost middleware is
        the handler's failure.
        The :class:`Context` says what is about to be handled, and by whom.

        It is around the handlers of messages, timers, and the hooks ``on_gap`` and
        ``on_disconnect``, of this router and those that it includes, whenever they were registered;
        the one that was registered first is the outermost.

        Raises:
            TypeError: The middleware is not asynchronous, or cannot be called so.
        """
        how = route(middleware, takes=2, may_ask=(), what="middleware")
        _check_asynchronous(middleware, "middleware", how.name)
        self._middlewares.append(middleware)
        self._changed()
        return middleware

    def include(self, router: Router, *, prefix: str = "") -> None:
        """Let messages go to the handlers of ``router`` as if they were registered here.

        Args:
            router: Its middleware stays around its own handlers, inside of ours.
            prefix: What stands before the types of message that it names by text, as in
                ``@router.on("created")``.

        Raises:
            TypeError: This is no router, or a prefix that is not text; or a bot, which cannot be
                included.
            ValueError: The router would include itself.
        """
        given: object = router
        if not isinstance(given, Router) or given._is_root:
            raise TypeError(f"only a Router can be included, not {type(router).__name__}")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be str, not {type(prefix).__name__}")
        if router is self or self in router._descendants():
            raise ValueError("a router cannot include itself")
        for registered in router._walk():
            self._check(registered.registration)
        self._registered.append(Included(router, prefix))
        router._parents.append(self)
        self._changed()

    # What is registered.

    def _add(self, registration: Registration) -> None:
        self._check(registration)
        self._registered.append(registration)
        self._changed()

    def _check(self, registration: Registration) -> None:
        """Raise ``TypeError`` if a bot that has us cannot serve it."""
        for parent in self._parents:
            parent._check(registration)

    def _changed(self) -> None:
        """Something was added here or further down."""
        for parent in self._parents:
            parent._changed()

    def _descendants(self) -> Iterator[Router]:
        for registered in self._registered:
            if isinstance(registered, Included):
                yield registered.router
                yield from registered.router._descendants()

    def _walk(
        self, prefix: str = "", middlewares: tuple[Middleware, ...] = ()
    ) -> Iterator[Registered]:
        """All registrations in order, those of included routers in their places."""
        middlewares = (*middlewares, *self._middlewares)
        for registered in self._registered:
            if isinstance(registered, Included):
                yield from registered.router._walk(prefix + registered.prefix, middlewares)
            else:
                yield Registered(registered, prefix, middlewares)


def is_type(value: object) -> bool:
    """Whether this is a type, or a union of types, rather than something that is called."""
    if value is None or isinstance(value, str):
        return False
    return (
        isinstance(value, (type, UnionType))
        or type(value).__module__ == "typing"  # Union[…], Annotated[…], a generic alias
        or hasattr(value, "__origin__")
        or hasattr(value, "__value__")  # type X = …
    )


def _is_predicate(function: Callable[..., Any]) -> bool:
    if is_asynchronous(function):
        return False
    if not inspect.isroutine(function):
        return True  # An object that is called: operator.itemgetter("urgent"), say.
    return name_of(function).endswith("<lambda>") or returns_bool(function)


def _check_concurrency(concurrency: object, ordered_by: object) -> None:
    if isinstance(concurrency, bool) or not isinstance(concurrency, int):
        raise TypeError(f"concurrency must be int, not {type(concurrency).__name__}")
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    if ordered_by is None:
        return
    if not callable(ordered_by):
        raise TypeError(
            f"ordered_by must be a function of a message, not {type(ordered_by).__name__}"
        )
    if is_asynchronous(ordered_by):
        raise TypeError(f"ordered_by must not be asynchronous: {name_of(ordered_by)} is")
    if concurrency == 1:
        raise ValueError("ordered_by needs concurrency above 1: all messages are in order already")


def _check_asynchronous(function: object, what: str, name: str) -> None:
    if not is_asynchronous(function):
        raise TypeError(f"{what} must be an async function: {name} is not")
