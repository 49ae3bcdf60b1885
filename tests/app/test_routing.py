"""Which handler a message goes to, and how it is called."""

from __future__ import annotations

import functools

import pytest

from wsclient.app._routing import Routes, route


class Called(list):
    """Handlers of every shape, which note how they were called."""

    def plain(self, message):
        self.append(("plain", message))

    async def asynchronous(self, message):
        self.append(("asynchronous", message))

    def with_context(self, message, context):
        self.append(("with context", message, context))

    async def with_context_by_name(self, message, *, context):
        self.append(("with context by name", message, context))

    def with_optional_context(self, message, context=None):
        self.append(("with optional context", message, context))

    def with_defaults(self, message, more=1):
        self.append(("with defaults", message, more))

    def with_rest(self, *args, **options):
        self.append(("with rest", *args, *options))

    def context_first(self, context, message):
        self.append(("context first", context, message))


@pytest.fixture
def called():
    return Called()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", ("plain", "m")),
        ("asynchronous", ("asynchronous", "m")),
        ("with_context", ("with context", "m", "c")),
        ("with_context_by_name", ("with context by name", "m", "c")),
        ("with_optional_context", ("with optional context", "m", "c")),
        ("with_defaults", ("with defaults", "m", 1)),
        ("with_rest", ("with rest", "m")),
    ],
)
async def test_a_handler_is_called_as_it_wants_to_be(called, name, expected):
    await route(getattr(called, name), takes=1)("m", context="c")

    assert [expected] == called


async def test_a_handler_without_a_message_may_want_the_context(called):
    await route(lambda: called.append("nothing"), takes=0)(context="c")
    await route(lambda context: called.append(context), takes=0)(context="c")

    assert ["nothing", "c"] == called


async def test_whatever_can_be_awaited_is_awaited(called):
    await route(functools.partial(called.asynchronous), takes=1)("m", context="c")
    await route(lambda message: called.asynchronous(message), takes=1)("m", context="c")

    assert [("asynchronous", "m")] * 2 == called


async def test_a_builtin_function_is_a_handler_too(called):
    await route(called.append, takes=1)("m", context="c")
    await route(str, takes=1)("m", context="c")

    assert ["m"] == called


class Callable:
    def __call__(self, message):
        pass


@pytest.mark.parametrize(
    ("handler", "takes", "text"),
    [
        (None, 1, "a handler must be callable, not NoneType"),
        ("handler", 1, "a handler must be callable, not str"),
        (lambda: None, 1, "must take one argument, and may take one called 'context'"),
        (lambda one, two: None, 1, "must take one argument"),
        (lambda *, message: None, 1, "must take one argument"),
        (lambda context: None, 1, "must take one argument"),
        (Called().context_first, 1, r"Called\.context_first must take one argument"),
        (lambda message, context, /: None, 1, "must take one argument"),
        (lambda message: None, 0, "must take no argument"),
        (Callable(), 0, "must take no argument"),
    ],
)
def test_a_handler_that_cannot_be_called_so_is_refused_when_it_is_registered(handler, takes, text):
    with pytest.raises(TypeError, match=text):
        route(handler, takes=takes)


def test_a_route_is_called_as_its_handler():
    def handler(message):
        pass

    assert handler.__qualname__ == route(handler, takes=1).name
    assert "Called.plain" == route(Called().plain, takes=1).name
    assert "partial" in route(functools.partial(handler), takes=1).name
    assert "Callable" in route(Callable(), takes=1).name


def test_messages_go_to_the_handlers_of_their_type_in_order_of_registration():
    def first(message):
        pass

    def second(message):
        pass

    routes = Routes()
    routes.add("a", second)
    routes.add("b", first)
    routes.add("a", first)
    routes.add("a", first)

    assert [second, first, first] == [found.handler for found in routes.find("a")]
    assert [first] == [found.handler for found in routes.find("b")]
    assert () == routes.find("c")
