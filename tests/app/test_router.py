"""What is registered, how it is included, and what is refused at once."""

from __future__ import annotations

import functools
import operator
from typing import Annotated, Any

import pytest

import wsclient
from wsclient.app._router import Role, Router, is_type


class Trade:
    pass


async def hook(connection):
    pass


def handle(message):
    pass


@pytest.fixture
def router():
    return Router()


def registered(router):
    return [(one.registration.role, one.prefix) for one in router._walk()]


def test_registering_gives_the_function_back(router):
    for register in (
        router.on("x"),
        router.on("x.*", concurrency=2, ordered_by=len),
        router.on(lambda message: True),
        router.on(Trade),
        router.on_message,
        router.on_message(concurrency=2),
        router.on_disconnect,
        router.on_gap,
    ):
        assert handle is register(handle)
    for register in (router.on_connect, router.while_connected):
        assert hook is register(hook)

    async def around(context, call_next):
        pass

    def tick():
        pass

    assert around is router.middleware(around)
    assert tick is router.every(1)(tick)
    assert [Role.MESSAGES] * 4 + [Role.EVERY_MESSAGE] * 2 == [
        role for role, _ in registered(router)
    ][:6]


# --- which messages -----------------------------------------------------------------------------


def by_annotation(message: Trade):
    pass


async def by_annotation_later(message: Trade | None):
    pass


def is_large(message: Trade) -> bool:
    return True


@pytest.mark.parametrize("handler", [by_annotation, by_annotation_later])
@pytest.mark.parametrize("how", ["bare", "called", "with options"])
def test_a_handler_may_say_by_its_annotation_what_it_is_for(router, handler, how):
    if how == "bare":
        assert handler is router.on(handler)
    else:
        options = {} if how == "called" else {"concurrency": 3}
        assert handler is router.on(**options)(handler)
    (one,) = router._walk()

    assert None is one.registration.match
    assert one.registration.annotation == one.registration.named_by
    assert (3 if how == "with options" else 1) == one.registration.concurrency


def test_a_type_that_is_given_is_what_an_unannotated_handler_gets(router):
    router.on(Trade)(handle)
    router.on(Trade)(by_annotation_later)
    first, second = router._walk()

    assert (Trade, Trade) == (first.registration.named_by, first.registration.annotation)
    assert (Trade, Trade | None) == (second.registration.named_by, second.registration.annotation)


@pytest.mark.parametrize(
    "predicate",
    [lambda message: True, is_large, functools.partial(is_large), operator.itemgetter("urgent")],
    ids=["lambda", "function", "partial", "object"],
)
def test_a_function_that_cannot_be_a_handler_is_a_predicate(router, predicate):
    assert handle is router.on(predicate)(handle)
    (one,) = router._walk()

    assert predicate is one.registration.match("").predicate
    assert predicate is one.registration.match("prefix").predicate


@pytest.mark.parametrize("handler", [handle, hook, functools.partial(hook), len])
def test_a_handler_that_does_not_say_what_it_is_for_is_no_predicate(router, handler):
    with pytest.raises(TypeError, match="needs to know which messages"):
        router.on(handler)
    with pytest.raises(TypeError, match="needs to know which messages"):
        router.on()(handler)

    assert [] == registered(router)


@pytest.mark.parametrize("given", [1, b"x", ["x"], object()])
def test_what_names_no_messages_is_refused(router, given):
    with pytest.raises(TypeError, match=f"which messages.*; not {type(given).__name__}"):
        router.on(given)


type_alias = getattr(__import__("typing"), "TypeAliasType", lambda name, value: value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Trade, True),
        (Trade | int, True),
        (Annotated[Trade, "x"], True),
        (dict[str, Any], True),
        (Any, True),
        (type_alias("Alias", Trade), True),
        (None, False),
        ("Trade", False),
        (handle, False),
        (Trade(), False),
    ],
)
def test_a_type_is_told_from_a_function(value, expected):
    assert expected == is_type(value)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"concurrency": 0}, ValueError, "at least 1, not 0"),
        ({"concurrency": "2"}, TypeError, "must be int, not str"),
        ({"concurrency": True}, TypeError, "must be int, not bool"),
        ({"concurrency": 2, "ordered_by": "key"}, TypeError, "a function of a message, not str"),
        ({"ordered_by": len}, ValueError, "all messages are in order already"),
        ({"concurrency": 2, "ordered_by": hook}, TypeError, "must not be asynchronous: hook"),
    ],
)
def test_a_concurrency_that_makes_no_sense_is_refused(router, options, error, text):
    with pytest.raises(error, match=text):
        router.on("x", **options)
    with pytest.raises(error, match=text):
        router.on_message(**options)


@pytest.mark.parametrize(
    "register",
    [
        lambda router: router.on("x"),
        lambda router: router.on_message(),
        lambda router: router.on_connect,
        lambda router: router.on_disconnect,
        lambda router: router.on_gap,
        lambda router: router.while_connected,
        lambda router: router.middleware,
        lambda router: router.every(1),
    ],
)
@pytest.mark.parametrize("function", [None, "x", lambda one, two, three, four: None])
def test_what_cannot_be_called_so_is_refused_when_it_is_registered(router, register, function):
    with pytest.raises(TypeError, match=r"must be callable|must take"):
        register(router)(function)

    assert [] == registered(router)


def test_what_has_to_be_asynchronous_is(router):
    class Around:
        async def __call__(self, context, call_next):
            pass

    around = Around()

    assert around is router.middleware(around)
    with pytest.raises(TypeError, match=r"middleware must be an async function: .*lambda> is not"):
        router.middleware(lambda context, call_next: None)
    with pytest.raises(TypeError, match="a task must be an async function: handle is not"):
        router.while_connected(handle)


# --- including ----------------------------------------------------------------------------------


def test_an_included_router_stands_where_it_was_included_with_its_prefix(router):
    inner, innermost = Router(), Router()
    router.on_gap(handle)
    router.include(inner, prefix="a.")
    router.on_disconnect(handle)
    inner.include(innermost, prefix="b.")
    # Also what is registered later.
    innermost.on("x")(handle)
    inner.on_message(handle)

    assert [
        (Role.GAP, ""),
        (Role.MESSAGES, "a.b."),
        (Role.EVERY_MESSAGE, "a."),
        (Role.DISCONNECT, ""),
    ] == registered(router)
    (_, messages, _, _) = router._walk()

    assert messages.registration.match("a.b.").takes("a.b.x")


def test_a_bot_knows_what_its_routers_get_later():
    bot, router = wsclient.Bot("ws://server.test"), wsclient.Router()
    bot.include(router)

    assert () == bot._plan.find("x").calls
    router.on("x")(handle)

    assert ["handle"] == [call.name for call in bot._plan.find("x").calls]


@pytest.mark.parametrize(
    ("given", "prefix", "text"),
    [
        (None, "", "only a Router can be included, not NoneType"),
        (wsclient.Bot("ws://server.test"), "", "only a Router can be included, not Bot"),
        (Router(), None, "prefix must be str, not NoneType"),
    ],
    ids=["nothing", "bot", "prefix"],
)
def test_what_is_no_router_cannot_be_included(router, given, prefix, text):
    with pytest.raises(TypeError, match=text):
        router.include(given, prefix=prefix)


def test_a_router_does_not_include_itself(router):
    inner, innermost = Router(), Router()
    router.include(inner)
    inner.include(innermost)
    for outer, included in [(router, router), (innermost, router), (innermost, inner)]:
        with pytest.raises(ValueError, match="cannot include itself"):
            outer.include(included)


def test_a_subscription_that_cannot_be_asked_for_is_refused_where_it_is_registered(router):
    with pytest.raises(TypeError, match="key must be hashable, not list"):
        router.subscribe(["trades"])
    with pytest.raises(ValueError, match='commit must be "after" or "before"'):
        router.subscribe("trades", commit="never")


@pytest.mark.parametrize("seconds", [None, "1", True])
def test_an_interval_is_a_number(router, seconds):
    with pytest.raises(TypeError, match="needs seconds"):
        router.every(seconds)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_interval_is_above_zero(router, seconds):
    with pytest.raises(ValueError, match="above 0"):
        router.every(seconds)


def test_what_a_bot_cannot_serve_is_refused_where_it_is_registered_or_included():
    class Refusing(Router):
        def _check(self, registration):
            super()._check(registration)
            if registration.annotation is Trade:
                raise TypeError("no way into Trade")

    outer, router, late = Refusing(), Router(), Router()
    outer.include(router)
    with pytest.raises(TypeError, match="no way into Trade"):
        router.on("x")(by_annotation)
    late.on("y")(handle)
    late.on("x")(by_annotation)
    with pytest.raises(TypeError, match="no way into Trade"):
        outer.include(late)

    assert [] == registered(outer)


def test_an_object_that_is_called_is_a_predicate(router):
    class Predicate:
        def __call__(self, message):
            return True

    predicate = Predicate()
    router.on(predicate)(handle)
    (one,) = router._walk()

    assert predicate is one.registration.match("").predicate


def test_an_object_that_is_asynchronous_is_a_handler(router):
    class Handler:
        async def __call__(self, message: Trade):
            pass

    handler = Handler()

    assert handler is router.on(handler)
    assert [(Role.MESSAGES, "")] == registered(router)
