"""Which handler a message goes to, and how it is called."""

from __future__ import annotations

import functools

import pytest

from wsclient.app._routing import (
    FOR_OTHERS,
    Match,
    is_pattern,
    match_text,
    message_annotation,
    returns_bool,
    route,
)


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
        (
            lambda: None,
            1,
            "must take one argument, and may ask for channel, context and reply by name",
        ),
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


class Generator:
    def __call__(self, message):
        yield

    async def asynchronous(self, message):
        yield


@pytest.mark.parametrize(
    "handler",
    [
        Generator(),
        Generator().asynchronous,
        functools.partial(Generator().asynchronous),
        Generator.__call__.__get__(Generator()),
    ],
    ids=["object", "method", "partial", "function"],
)
def test_a_generator_is_refused_since_calling_it_does_nothing(handler):
    with pytest.raises(TypeError, match="a handler must not be a generator, which only begins"):
        route(handler, takes=1)


def test_a_route_is_called_as_its_handler():
    def handler(message):
        pass

    assert handler.__qualname__ == route(handler, takes=1).name
    assert "Called.plain" == route(Called().plain, takes=1).name
    assert "partial" in route(functools.partial(handler), takes=1).name
    assert "Callable" in route(Callable(), takes=1).name


# --- what is asked for by name ------------------------------------------------------------------


async def test_a_handler_gets_by_name_what_it_has_a_parameter_for():
    class Context:
        channel = "the channel"
        send = "how to send"

    calls = []

    def handler(message, *, reply, channel, context):
        calls.append((message, reply, channel, context))

    context = Context()
    await route(handler, takes=1)("m", context=context)

    assert [("m", "how to send", "the channel", context)] == calls


async def test_a_call_gives_what_the_handler_returns():
    async def later(message):
        return message

    assert "m" == await route(later, takes=1)("m", context=None)
    assert "m" == await route(lambda message: message, takes=1)("m", context=None)


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (lambda message, database: None, "missing a required .*argument: 'database'"),
        (lambda message, *, database: None, "missing a required .*argument: 'database'"),
        (lambda channel: None, "multiple values for argument 'channel'"),
    ],
)
def test_what_nobody_knows_is_refused_by_its_name(handler, text):
    with pytest.raises(TypeError, match=f"may ask for channel, context and reply by name: {text}"):
        route(handler, takes=1)


def test_what_is_not_offered_is_not_given():
    with pytest.raises(
        TypeError, match=r"may ask for channel and context by name: missing .*reply"
    ):
        route(lambda gap, reply: None, takes=1, may_ask=FOR_OTHERS)
    with pytest.raises(TypeError, match=r"must take two arguments: missing a required .*'more'"):
        route(lambda context, call_next, more: None, takes=2, may_ask=())
    with pytest.raises(TypeError, match="middleware must be callable, not str"):
        route("m", takes=2, what="middleware")


# --- annotations --------------------------------------------------------------------------------


class Trade:
    def handle(self, message: Trade) -> None:
        pass

    def __call__(self, message: Trade) -> None:
        pass


def annotated(message: Trade, context: Nowhere) -> bool:  # noqa: F821
    return True


def lost(message: Nowhere) -> None:  # noqa: F821
    pass


def optional(message: Trade | None = None) -> None:
    pass


@functools.wraps(annotated)
def wrapper(*args):
    pass


@pytest.mark.parametrize(
    ("handler", "annotation"),
    [
        (annotated, Trade),
        (functools.partial(annotated), Trade),
        (Trade().handle, Trade),
        (Trade(), Trade),
        (wrapper, Trade),
        (optional, Trade | None),
        (lambda message: None, None),
        (lambda: None, None),
        (print, None),
        (str, None),
    ],
    ids=[
        "function",
        "partial",
        "method",
        "object",
        "wrapper",
        "union",
        "bare",
        "no",
        "print",
        "str",
    ],
)
def test_the_message_annotation_the_first_parameter_is_found(handler, annotation):
    assert annotation == message_annotation(handler)


def test_an_annotation_that_is_no_text_is_taken_as_it_is():
    def handler(message):
        pass

    handler.__annotations__["message"] = dict[str, int]

    assert dict[str, int] == message_annotation(handler)


def test_an_annotation_that_names_nothing_is_refused():
    with pytest.raises(
        TypeError, match=r"'Nowhere' of lost's parameter 'message' cannot be resolved"
    ):
        message_annotation(lost)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(annotated, True), (lost, False), (lambda message: True, False), (str, False)],
)
def test_a_predicate_says_that_it_returns_a_bool(function, expected):
    assert expected == returns_bool(function)


# --- which messages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "takes", "leaves"),
    [
        ("trade", ["trade"], ["trade.new", "trad", "Trade", None]),
        (
            "trade.*",
            ["trade.new", "trade.", "trade.a.b", "trade.\n"],
            ["trade", "xtrade.new", None],
        ),
        ("*", ["", "x", "x\ny"], [None]),
        ("v?", ["v1", "v2"], ["v", "v10", None]),
        # Brackets are letters, unlike in a shell.
        ("ticker[BTC]", ["ticker[BTC]"], ["tickerB", None]),
        ("ticker[*]", ["ticker[BTC]", "ticker[]"], ["tickerB", "ticker*", None]),
        ("a*a", ["aa", "aba", "aaa"], ["a", "ab", "ba", None]),
        ("*ab*?b", ["abab", "ababb", "xabxb", "ababxb"], ["ab", "abb", "abba", None]),
        ("**", ["", "x"], [None]),
        ("a**b", ["ab", "axb"], ["a", "b", "abx", None]),
    ],
)
def test_a_text_names_types(text, takes, leaves):
    match = match_text(text)

    assert takes == [kind for kind in [*takes, *leaves] if match.takes(kind)]
    assert ("*" in text or "?" in text) == is_pattern(text)


def test_a_peer_cannot_make_a_pattern_slow():
    # Tried in every way, this would take longer than anybody waits.
    match = match_text("*a*a*?a*a*a*a*b")

    assert match.takes("a" * 20_000 + "b")
    assert not match.takes("a" * 20_000)


def test_a_predicate_may_want_any_type_and_who_names_none_gets_none():
    assert Match(predicate=bool).takes("x")
    assert Match(predicate=bool).takes(None)
    assert not Match().takes("x")
