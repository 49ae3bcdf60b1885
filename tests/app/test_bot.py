"""A bot: handlers in order, whose failures never touch the connection."""

from __future__ import annotations

import inspect
import itertools
import json
import queue
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from typing import Any, Literal

import attrs
import msgspec
import pydantic
import pytest
import tenacity
import trio

import wsclient
from wsclient import FailedMessage
from wsclient.app import _bot as bot_module
from wsclient.events import (
    ChannelClosed,
    ChannelState,
    ConnectionLeft,
    ConnectionLost,
    ConnectionReady,
    HandlerFailed,
    MessageUndecoded,
    Outcome,
    StateChanged,
)
from wsclient.testing import NONE, REFUSE, REJECT_404, EventRecorder, Fault, FaultServer

RIGHT = (
    r"handler_errors must be HandlerErrors\.LOG, HandlerErrors\.RAISE,"
    " or a function of one FailedMessage"
)
EVERY_SECOND = wsclient.RetryPolicy(wait=tenacity.wait_fixed(1))


def says(*messages):
    """A server's handler that says this, and listens."""

    async def speak(connection):
        for message in messages:
            text = message if isinstance(message, (str, bytes)) else json.dumps(message)
            await connection.send(text)
        async for _ in connection:
            pass

    return speak


def is_itself(raised, caught):
    """Whether it is what was raised; trio makes a group anew where it is cancelled as well."""
    if isinstance(raised, ExceptionGroup):
        return (raised.message, raised.exceptions) == (caught.message, caught.exceptions)
    return raised is caught


@pytest.fixture
async def serving(autojump_clock, network, nursery):
    """``server = await serving(bot, *what the server says)``, once the bot serves."""

    async def run(server, task_status):
        async with server:
            task_status.started()
            await trio.sleep_forever()

    async def serving(bot, *messages, faults=()):
        server = FaultServer(faults, network=network, handler=says(*messages))
        await nursery.start(run, server)
        await nursery.start(bot.serve)
        await trio.testing.wait_all_tasks_blocked()
        return server

    return serving


@pytest.fixture
def bot(recorder):
    return wsclient.Bot("ws://server.test", retry=EVERY_SECOND, observers=[recorder])


# --- handlers -----------------------------------------------------------------------------------


async def test_a_message_goes_to_the_handlers_of_its_type(autojump_clock, bot, serving):
    calls = []

    @bot.on("trade")
    def trade(message):
        calls.append(("trade", message))

    @bot.on("quote")
    async def quote(message):
        await trio.sleep(0.1)
        calls.append(("quote", message))

    await serving(bot, {"type": "quote", "n": 1}, {"type": "trade", "n": 2}, {"type": "else"})
    await trio.sleep(1)

    assert [
        ("quote", {"type": "quote", "n": 1}),
        ("trade", {"type": "trade", "n": 2}),
    ] == calls
    assert 1 == bot.unhandled


async def test_messages_are_handled_in_order_one_after_the_other(autojump_clock, bot, serving):
    began, ended = [], []

    @bot.on("x")
    async def handle(message):
        began.append(message["n"])

        assert len(began) == len(ended) + 1
        await trio.sleep(1 / (message["n"] + 1))
        ended.append(message["n"])

    await serving(bot, *({"type": "x", "n": n} for n in range(20)))
    await trio.sleep(10)

    assert list(range(20)) == began == ended


async def test_several_handlers_of_one_type_are_called_in_order_of_registration(
    autojump_clock, bot, serving
):
    calls = []

    @bot.on("x")
    async def first(message):
        await trio.sleep(1)
        calls.append("first")

    @bot.on("x")
    def second(message):
        calls.append("second")

    await serving(bot, {"type": "x"}, {"type": "x"})
    await trio.sleep(5)

    assert ["first", "second"] * 2 == calls


async def test_registering_gives_the_function_back(bot):
    def handler(message):
        pass

    async def hook(connection):
        pass

    def timer():
        pass

    assert handler is bot.on("x")(handler)
    assert hook is bot.on_connect(hook)
    assert timer is bot.every(1)(timer)


async def test_the_context_has_the_bot_the_channel_and_the_message(autojump_clock, bot, serving):
    contexts = []

    @bot.on("x")
    async def handle(message, context):
        contexts.append(context)
        receipt = await context.send({"type": "reply"})

        assert Outcome.RECEIVED is await receipt.wait()

    server = await serving(bot, '{"type": "x"}', b'{"type": "x"}')
    await server.wait_messages(2)

    assert ['{"type":"reply"}'] * 2 == server.messages
    assert [bot] * 2 == [context.bot for context in contexts]
    assert [bot.channel] * 2 == [context.channel for context in contexts]
    assert ['{"type": "x"}', b'{"type": "x"}'] == [context.message for context in contexts]


async def test_the_field_of_the_type_can_be_chosen(autojump_clock, recorder, serving):
    bot, calls = wsclient.Bot("ws://server.test", key="op", observers=[recorder]), []
    bot.on("x")(calls.append)
    await serving(bot, {"op": "x"}, {"type": "x"})
    await trio.sleep(1)

    assert [{"op": "x"}] == calls
    assert ["the message has no field 'op' that names its type"] == [
        str(event.error) for event in recorder.of(MessageUndecoded)
    ]


async def test_a_codec_of_ones_own_is_used(autojump_clock, recorder, serving):
    class Lines:
        def encode(self, value):
            return value.encode()

        def decode(self, message):
            kind, _, rest = message.partition(" ")
            if not rest:
                raise wsclient.CodecError("no rest")
            return {"type": kind, "rest": rest}

    bot = wsclient.Bot("ws://server.test", codec=Lines(), observers=[recorder])
    calls = []

    @bot.on("greet")
    async def greet(message, context):
        calls.append(message["rest"])
        await context.send("hello")

    server = await serving(bot, "greet world", "alone")
    await server.wait_messages(1)

    assert ["world"] == calls
    assert [b"hello"] == server.messages
    assert ["no rest"] == [str(event.error) for event in recorder.of(MessageUndecoded)]


async def test_a_codec_of_ones_own_may_raise_anything_of_a_type_as_well(
    autojump_clock, recorder, serving
):
    class Trade(msgspec.Struct, tag="trade", tag_field="type"):
        price: float

    class Bare:
        encode = staticmethod(json.dumps)
        decode = staticmethod(json.loads)

        def decoder(self, annotation):
            return msgspec.json.Decoder(annotation).decode

    bot = wsclient.Bot("ws://server.test", codec=Bare(), observers=[recorder])
    calls = []

    @bot.on("trade")
    def trade(message: Trade):
        calls.append(message.price)

    await serving(
        bot, "[]", "no JSON", '{"type": "trade", "price": "x"}', '{"type": "trade", "price": 1}'
    )
    await trio.sleep(1)

    assert [1.0] == calls
    assert 3 == len(recorder.of(MessageUndecoded))


# --- which messages -----------------------------------------------------------------------------


async def test_patterns_and_predicates_choose_messages_in_order_of_registration(
    autojump_clock, bot, recorder, serving
):
    calls = []

    @bot.on("trade.*")
    def any_trade(message):
        calls.append(("any trade", message["n"]))

    @bot.on(lambda message: isinstance(message, dict) and message["n"] > 1)
    def large(message):
        calls.append(("large", message["n"]))

    @bot.on("trade.new")
    async def new_trade(message):
        calls.append(("new trade", message["n"]))

    await serving(
        bot, {"type": "trade.new", "n": 1}, {"type": "trade.old", "n": 2}, {"type": "x", "n": 0}
    )
    await trio.sleep(1)

    assert [("any trade", 1), ("new trade", 1), ("any trade", 2), ("large", 2)] == calls
    assert 1 == bot.unhandled
    assert [] == recorder.of(HandlerFailed)


async def test_a_predicate_sees_messages_that_name_no_type(autojump_clock, bot, recorder, serving):
    calls = []
    bot.on(lambda message: isinstance(message, list))(calls.append)
    await serving(bot, "[1]", "7", {"type": "x"})
    await trio.sleep(1)

    assert [[1]] == calls
    assert 1 == bot.unhandled
    assert 1 == len(recorder.of(MessageUndecoded))


async def test_s7_2_a_predicate_that_raises_has_not_chosen(autojump_clock, bot, recorder, serving):
    calls = []

    @bot.on(lambda message: message["price"] > 1)
    def expensive(message):
        calls.append("expensive")

    bot.on("x")(lambda message: calls.append("x"))
    await serving(bot, {"type": "x"}, {"type": "x", "price": 2})
    await trio.sleep(1)

    (event,) = recorder.of(HandlerFailed)

    assert ["x", "expensive", "x"] == calls
    assert ("x", KeyError) == (event.subject, type(event.error))
    assert "<lambda>" in event.handler


async def test_what_no_handler_is_for_goes_to_the_default_handler(
    autojump_clock, bot, recorder, serving
):
    calls = []
    bot.on("x")(calls.append)

    @bot.on_unhandled
    async def rest(message, context):
        calls.append((context.subject, message))

    await serving(bot, {"type": "x"}, {"type": "y"}, "[]")
    await trio.sleep(1)

    assert [{"type": "x"}, ("y", {"type": "y"})] == calls
    assert 0 == bot.unhandled
    # It names no type: whether it is for anybody cannot be told.
    assert 1 == len(recorder.of(MessageUndecoded))


async def test_every_message_goes_to_who_wants_all_before_others(autojump_clock, bot, serving):
    calls = []

    @bot.on("x")
    def handle(message):
        calls.append(("x", message))

    @bot.on_message
    async def everything(message):
        calls.append(("all", message))

    @bot.on_message
    def texts(message: str):
        calls.append(("text", message))

    @bot.on_message
    def binaries(message: bytes, context):
        calls.append(("binary", message, context.message))

    await serving(bot, '{"type": "x"}', b'{"type": "y"}')
    await trio.sleep(1)

    assert [
        ("all", '{"type": "x"}'),
        ("text", '{"type": "x"}'),
        ("x", {"type": "x"}),
        ("all", b'{"type": "y"}'),
        ("binary", b'{"type": "y"}', b'{"type": "y"}'),
    ] == calls
    assert 1 == bot.unhandled


async def test_messages_that_somebody_takes_as_they_are_need_not_be_decoded(
    autojump_clock, bot, recorder, serving
):
    calls = []

    @bot.on_message
    def texts(message: str):
        calls.append(message)

    await serving(bot, "no JSON", b"\xff")
    await trio.sleep(1)

    assert ["no JSON"] == calls
    assert [] == recorder.of(MessageUndecoded)
    # Nobody wants binary messages.
    assert 1 == bot.unhandled


async def test_s7_2_who_takes_every_message_may_fail(autojump_clock, bot, recorder, serving):
    @bot.on_message
    def fail(message):
        raise LookupError(message)

    @bot.on_message
    async def fail_later(message):
        await trio.sleep(1)
        raise LookupError(message)

    server = await serving(bot, "a", "b")
    await trio.sleep(5)

    assert [
        (name, "message", text)
        for text in "ab"
        for name in (fail.__qualname__, fail_later.__qualname__)
    ] == [
        (event.handler, event.subject, event.error.args[0]) for event in recorder.of(HandlerFailed)
    ]
    assert 4 == bot.failed
    assert 1 == len(server.connections)


# --- into types ---------------------------------------------------------------------------------


class Trade(msgspec.Struct, tag_field="type", tag="trade"):
    price: float


class Quote(msgspec.Struct, tag_field="type", tag="quote"):
    bid: float


@attrs.frozen
class News:
    text: str
    type: Literal["news", "alert"] = "news"


class Model(pydantic.BaseModel):
    type: Literal["model"] = "model"
    n: int


SAID = (
    {"type": "trade", "price": 7},
    {"type": "quote", "bid": 6.5},
    {"type": "alert", "text": "fire"},
    {"type": "model", "n": 1},
    {"type": "other"},
)


async def test_the_type_of_a_parameter_says_which_messages_and_in_which_form(
    autojump_clock, bot, serving
):
    calls = []

    @bot.on
    def trade(message: Trade):
        calls.append(message)

    @bot.on
    async def either(message: Quote | News, context):
        calls.append((context.subject, context.value is message, message))

    @bot.on(Model)
    def model(message):
        calls.append(message)

    @bot.on("trade")
    def plain(message: dict[str, Any]):
        calls.append(message)

    @bot.on("quote")
    def text(message: str):
        calls.append(message)

    await serving(bot, *SAID)
    await trio.sleep(1)

    assert [
        Trade(7.0),
        {"type": "trade", "price": 7},
        ("quote", True, Quote(6.5)),
        '{"type": "quote", "bid": 6.5}',
        ("alert", True, News("fire", "alert")),
        Model(n=1),
    ] == calls
    assert 1 == bot.unhandled


@pytest.mark.parametrize("how", ["straight", "with context", "concurrent", "async"])
async def test_structs_go_to_their_handlers_however_these_are_called(
    autojump_clock, bot, serving, how
):
    calls = []

    def trade(message: Trade):
        calls.append(message)

    def trade_in_context(message: Trade, context):
        calls.append(context.value)

    async def trade_later(message: Trade):
        calls.append(message)

    @bot.on
    def quote(message: Quote):
        calls.append(message)

    if how == "concurrent":
        bot.on(concurrency=2)(trade)
    else:
        bot.on({"straight": trade, "with context": trade_in_context}.get(how, trade_later))
    await serving(bot, *SAID, *SAID)
    await trio.sleep(1)

    assert [Trade(7.0)] * 2 == [message for message in calls if isinstance(message, Trade)]
    assert [Quote(6.5)] * 2 == [message for message in calls if isinstance(message, Quote)]
    assert 6 == bot.unhandled


async def test_a_predicate_sees_what_the_codec_makes_of_it_though_its_handler_is_typed(
    autojump_clock, bot, recorder, serving
):
    calls = []

    @bot.on
    def trade(message: Trade):
        calls.append("trade")

    @bot.on(lambda message: message.get("price", 0) > 7)
    def expensive(message: Trade):
        calls.append(message)

    await serving(bot, {"type": "trade", "price": 7}, {"type": "trade", "price": 8})
    await trio.sleep(1)

    assert ["trade", "trade", Trade(8.0)] == calls
    assert [] == recorder.of(HandlerFailed)


async def test_who_wants_every_message_may_want_it_decoded(autojump_clock, bot, recorder, serving):
    calls, letters = [], []
    bot.on_error(letters.append)

    @bot.on_message
    def either(message: Trade | Quote):
        calls.append(message)

    @bot.on_message
    async def in_context(message: dict, context):
        calls.append(context.value["type"])

    await serving(bot, *SAID[:3])
    await trio.sleep(1)

    assert [Trade(7.0), "trade", Quote(6.5), "quote", "alert"] == calls
    assert [(either.__qualname__, "$.type")] == [
        (letter.handler, letter.path) for letter in letters
    ]
    assert 1 == len(recorder.of(MessageUndecoded)) == bot.failed


WRONG = '{"type": "trade", "price": "high"}'


@pytest.mark.parametrize("others", [False, True], ids=["structs alone", "others too"])
async def test_s7_2_a_message_that_is_not_of_its_type_goes_to_the_dead_letter_with_its_place(
    autojump_clock, recorder, serving, others
):
    letters, calls = [], []
    bot = wsclient.Bot("ws://server.test", handler_errors=letters.append, observers=[recorder])

    @bot.on
    def trade(message: Trade):
        calls.append(message)

    if others:
        bot.on("trade")(lambda message: calls.append(message))
    server = await serving(bot, WRONG, WRONG.encode(), {"type": "trade", "price": 1})
    await trio.sleep(1)

    assert [(trade.__qualname__, "message undecoded", "$.price")] * 2 == [
        (letter.handler, letter.subject, letter.path) for letter in letters
    ]
    assert [WRONG, WRONG.encode()] == [letter.message for letter in letters]
    # Who can do without the price gets it all the same.
    assert [Trade(1.0)] == [call for call in calls if isinstance(call, Trade)]
    assert (3 if others else 0) == sum(isinstance(call, dict) for call in calls)
    assert 2 == len(recorder.of(MessageUndecoded)) == bot.failed
    assert [] == recorder.of(HandlerFailed)
    assert 1 == len(server.connections)


async def test_s7_2_a_type_whose_own_check_raises_anything_kills_nothing(
    autojump_clock, bot, recorder, serving
):
    class Picky(msgspec.Struct, tag_field="type", tag="picky"):
        n: int

        def __post_init__(self):
            raise LookupError("mine")

    calls = []
    bot.on(Picky)(calls.append)
    await serving(bot, {"type": "picky", "n": 1}, {"type": "x"})
    await trio.sleep(1)

    assert [] == calls
    assert 1 == len(recorder.of(MessageUndecoded))
    assert 1 == bot.unhandled


async def test_s7_2_what_is_no_dict_is_not_given_as_one(autojump_clock, bot, recorder, serving):
    letters, calls = [], []
    bot.on_error(letters.append)

    @bot.on(lambda message: True)
    def handle(message: dict):
        calls.append(message)

    await serving(bot, "[1]", "{}")
    await trio.sleep(1)

    assert [{}] == calls
    assert [("[1]", handle.__qualname__, "$")] == [
        (letter.message, letter.handler, letter.path) for letter in letters
    ]


@pytest.mark.parametrize("message", ["no JSON", '{"no": "type"}', '{"type": 1}', "[]"])
async def test_s7_2_nothing_is_lost_that_only_typed_handlers_want(
    autojump_clock, recorder, serving, message
):
    letters = []
    bot = wsclient.Bot("ws://server.test", handler_errors=letters.append, observers=[recorder])
    bot.on(Trade)(lambda message: None)
    bot.on("quote")(lambda message: None)
    await serving(bot, message)
    await trio.sleep(1)

    assert [(message, None, "message undecoded")] == [
        (letter.message, letter.handler, letter.subject) for letter in letters
    ]


async def test_s7_2_a_struct_whose_handler_raises_is_told_with_its_type(
    autojump_clock, bot, recorder, serving
):
    @bot.on
    def trade(message: Trade):
        raise LookupError("mine")

    await serving(bot, SAID[0])
    await trio.sleep(1)

    assert [(trade.__qualname__, "trade")] == [
        (event.handler, event.subject) for event in recorder.of(HandlerFailed)
    ]


async def test_without_msgspec_types_of_pydantic_are_decoded_as_well(
    autojump_clock, recorder, serving, without
):
    without("msgspec")
    bot, calls = wsclient.Bot("ws://server.test", observers=[recorder]), []
    bot.on(Model)(calls.append)
    bot.on("trade")(calls.append)
    await serving(bot, *SAID)
    await trio.sleep(1)

    assert [SAID[0], Model(n=1)] == calls
    assert 3 == bot.unhandled


def test_a_type_that_names_no_messages_is_refused_where_it_is_registered(bot):
    class Silent(msgspec.Struct):
        n: int

    router = wsclient.Router()
    router.on(Silent)(lambda message: None)
    for register in (lambda: bot.on(Silent)(lambda message: None), lambda: bot.include(router)):
        with pytest.raises(TypeError, match=r"Silent does not say in its field 'type' which mess"):
            register()

    assert [] == list(bot._walk())


def test_an_annotation_into_which_there_is_no_way_is_refused_where_it_is_registered(bot):
    def handle(message: threading.Thread):
        pass

    for register in (bot.on("x"), bot.on_message, bot.on_unhandled):
        with pytest.raises(TypeError, match="Thread cannot be decoded into"):
            register(handle)

    assert [] == list(bot._walk())


# --- while it serves ----------------------------------------------------------------------------


async def test_a_handler_may_be_registered_while_the_bot_serves(autojump_clock, bot, serving):
    calls = []

    @bot.on("first")
    def first(message):
        bot.on("second")(calls.append)

    await serving(bot, {"type": "second"}, {"type": "first"}, {"type": "second"})
    await trio.sleep(1)

    assert [{"type": "second"}] == calls
    assert 1 == bot.unhandled


# --- several at once ----------------------------------------------------------------------------


async def test_a_concurrent_handler_has_several_messages_at_work_and_stop_waits_for_all(
    autojump_clock, bot, network
):
    now, peak, done = 0, 0, []

    @bot.on("x", concurrency=5)
    async def handle(message, context):
        nonlocal now, peak
        now += 1
        peak = max(now, peak)
        await trio.sleep(1)
        now -= 1
        done.append(message["n"])

    @bot.on("stop")
    def stop(message):
        bot.stop()

    messages = [{"type": "x", "n": n} for n in range(7)]
    async with FaultServer(network=network, handler=says(*messages, {"type": "stop"})):
        await bot.serve()

    assert 2 == trio.current_time()
    assert 5 == peak
    assert list(range(7)) == sorted(done)


async def test_messages_of_one_key_are_handled_in_order_beside_others(autojump_clock, bot, serving):
    began, ended = [], []

    @bot.on("x", concurrency=10, ordered_by=lambda message: message["key"])
    async def handle(message):
        began.append((message["key"], message["n"]))
        await trio.sleep(1 / (message["n"] + 1))
        ended.append((message["key"], message["n"]))

    await serving(bot, *({"type": "x", "key": n % 3, "n": n} for n in range(9)))
    await trio.sleep(10)

    assert [(0, 0), (1, 1), (2, 2)] == began[:3]
    for key in range(3):
        own = [(key, n) for n in range(key, 9, 3)]

        assert own == [entry for entry in began if entry[0] == key]
        assert own == [entry for entry in ended if entry[0] == key]
    # They were not one after the other.
    assert sorted(ended, key=lambda entry: entry[1]) != ended


async def test_a_concurrent_handler_that_is_slow_is_felt_and_nothing_grows(
    autojump_clock, recorder, network
):
    limits = wsclient.Limits(inbox_messages=50)
    bot = wsclient.Bot("ws://server.test", limits=limits, observers=[recorder])
    now, peak, handled, waited, tasks = 0, 0, 0, 0, 0

    @bot.on_message(concurrency=100)
    async def handle(message: str):
        nonlocal now, peak, handled, waited, tasks
        now += 1
        peak = max(now, peak)
        waited = max(waited, bot.channel.statistics().inbox_messages)
        tasks = max(tasks, trio.lowlevel.current_statistics().tasks_living)
        await trio.sleep(0.01)
        now -= 1
        handled += 1
        if handled == 10_000:
            bot.stop()

    async def feed(connection):
        for _ in range(10_000):
            await connection.send("x" * 1_000)
        async for _ in connection:
            pass

    async with FaultServer(network=network, handler=feed):
        await bot.serve()

    assert 10_000 == handled
    assert 100 == peak
    # What one read brings, 64 KiB, may come on top of the bound.
    assert waited < 150
    assert tasks < 130


@pytest.mark.parametrize("ordered", [False, True])
async def test_s7_2_a_concurrent_handler_that_raises_is_told_like_any_other(
    autojump_clock, recorder, serving, ordered
):
    letters, calls = [], []
    bot = wsclient.Bot("ws://server.test", handler_errors=letters.append, observers=[recorder])
    options = {"ordered_by": lambda message: message["key"]} if ordered else {}

    @bot.on("x", concurrency=3, **options)
    async def handle(message):
        await trio.sleep(1)
        if message["n"] == 1:
            raise LookupError("mine")
        calls.append(message["n"])

    server = await serving(bot, *({"type": "x", "key": 0, "n": n} for n in range(4)))
    await trio.sleep(10)

    assert [0, 2, 3] == sorted(calls)
    assert [(handle.__qualname__, "x")] == [(letter.handler, letter.subject) for letter in letters]
    assert 1 == len(recorder.of(HandlerFailed)) == bot.failed
    assert 1 == len(server.connections)


@pytest.mark.parametrize("key", [lambda message: message["no"], lambda message: []])
async def test_s7_2_a_key_that_cannot_be_told_is_the_handlers_failure(
    autojump_clock, bot, recorder, serving, key
):
    calls = []
    bot.on("x", concurrency=2, ordered_by=key)(calls.append)
    await serving(bot, {"type": "x"})
    await trio.sleep(1)

    assert [] == calls
    assert ["x"] == [event.subject for event in recorder.of(HandlerFailed)]


async def test_s7_2_a_concurrent_handler_can_end_the_bot_at_once(autojump_clock, network):
    bot = wsclient.Bot(
        "ws://server.test", handler_errors=wsclient.HandlerErrors.RAISE, observers=()
    )
    mine, calls = LookupError("mine"), []

    @bot.on("x", concurrency=2)
    async def handle(message):
        await trio.sleep(message["n"])
        calls.append(message["n"])
        raise mine

    async with FaultServer(network=network, handler=says(*({"type": "x", "n": n} for n in (9, 2)))):
        with pytest.raises(LookupError) as caught:
            await bot.serve()

    assert mine is caught.value
    assert [2] == calls
    assert 2 == trio.current_time()


# --- around handlers ----------------------------------------------------------------------------


async def test_middleware_is_around_handlers_timers_and_hooks(autojump_clock, bot, serving):
    calls = []

    @bot.middleware
    async def note(context, call_next):
        calls.append((context.subject, context.handler.rpartition(".")[2]))
        await call_next()

    @bot.on("x")
    def handle(message):
        pass

    @bot.on_message(concurrency=2)
    async def everything(message):
        pass

    @bot.on_unhandled
    def rest(message):
        pass

    @bot.every(5)
    def tick():
        pass

    @bot.on_gap
    def gap(gap):
        pass

    @bot.on_disconnect
    def gone(event):
        pass

    @bot.while_connected
    async def live(connection):
        calls.append("live")

    await serving(bot, {"type": "x"}, {"type": "y"}, faults=[Fault.reset(after=1), NONE])
    await trio.sleep(6)

    assert [
        ("disconnect", "gone"),
        ("every 5 s", "tick"),
        ("gap", "gap"),
        *[("message", "everything")] * 4,
        *[("x", "handle")] * 2,
        *[("y", "rest")] * 2,
    ] == sorted(call for call in calls if call != "live")
    assert 2 == calls.count("live")


async def test_s7_2_middleware_may_answer_what_a_handler_raises_or_raise_itself(
    autojump_clock, bot, recorder, serving
):
    answered = []

    @bot.middleware
    async def answer(context, call_next):
        try:
            await call_next()
        except KeyError as error:
            answered.append(error)

    @bot.on("x")
    def handle(message):
        raise {"key": KeyError, "other": LookupError}[message["what"]]("mine")

    await serving(bot, {"type": "x", "what": "key"}, {"type": "x", "what": "other"})
    await trio.sleep(1)

    assert [KeyError] == [type(error) for error in answered]
    assert [(handle.__qualname__, LookupError)] == [
        (event.handler, type(event.error)) for event in recorder.of(HandlerFailed)
    ]


async def test_middleware_may_keep_a_message_from_its_handler(autojump_clock, bot, serving):
    calls = []

    @bot.middleware
    async def only_even(context, call_next):
        if context.value["n"] % 2 == 0:
            await call_next()

    bot.on("x")(lambda message: calls.append(message["n"]))
    await serving(bot, *({"type": "x", "n": n} for n in range(5)))
    await trio.sleep(1)

    assert [0, 2, 4] == calls


async def test_a_router_brings_handlers_hooks_and_timers_with_its_own_middleware(
    autojump_clock, bot, serving
):
    calls = []
    router = wsclient.Router()

    @router.middleware
    async def around(context, call_next):
        calls.append("around")
        await call_next()

    @router.on("created")
    def created(message):
        calls.append("created")

    @router.on_connect
    async def hello(connection):
        await connection.send_message("hello")

    @router.every(3)
    def tick():
        calls.append("tick")

    bot.on("room.created")(lambda message: calls.append("the bot's"))
    bot.include(router, prefix="room.")
    server = await serving(bot, {"type": "room.created"}, {"type": "created"})
    await trio.sleep(4)

    assert ["the bot's", "around", "created", "around", "tick"] == calls
    assert ["hello"] == server.messages
    assert 1 == bot.unhandled


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LookupError("mine"), ExceptionGroup("g", [OSError()])])
async def test_s7_2_a_handler_that_raises_is_told_and_the_connection_lives_on(
    autojump_clock, bot, recorder, serving, error
):
    calls = []

    @bot.on("bad")
    def bad(message):
        raise error

    @bot.on("bad")
    def after_it(message):
        calls.append("after it")

    @bot.on("good")
    def good(message):
        calls.append("good")

    server = await serving(bot, {"type": "bad"}, {"type": "good"})
    await trio.sleep(1)

    # The others of its type, and the messages after it.
    assert ["after it", "good"] == calls
    assert [
        HandlerFailed(
            channel="ws://server.test", handler=bad.__qualname__, subject="bad", error=error
        )
    ] == recorder.of(HandlerFailed)
    assert [] == recorder.of(ConnectionLost)
    assert 1 == len(server.connections)


async def test_s7_2_what_is_no_exception_ends_the_bot_as_itself(autojump_clock, bot, network):
    class Interrupt(BaseException):
        pass

    mine = Interrupt()

    @bot.on("x")
    def handle(message):
        raise mine

    async with FaultServer(network=network, handler=says({"type": "x"})):
        with pytest.raises(Interrupt) as caught:
            await bot.serve()

    assert mine is caught.value


async def test_s7_2_a_dead_letter_gets_what_failed_and_the_connection_lives_on(
    autojump_clock, recorder, serving
):
    told, letters, calls = [], [], []

    async def keep(failed):
        told.append(len(recorder.of(HandlerFailed)))
        await trio.sleep(1)
        letters.append(failed)

    bot = wsclient.Bot("ws://server.test", handler_errors=keep, observers=[recorder])
    error, another = LookupError("mine"), ExceptionGroup("g", [OSError()])

    @bot.on("bad")
    def bad(message):
        raise error

    @bot.on("bad")
    async def bad_too(message):
        raise another

    @bot.on("good")
    def good(message):
        calls.append((trio.current_time(), len(letters)))

    server = await serving(bot, b'{"type": "bad"}', {"type": "good"})
    await trio.sleep(5)

    assert [
        FailedMessage(message=b'{"type": "bad"}', handler=name, subject="bad", error=raised)
        for name, raised in [(bad.__qualname__, error), (bad_too.__qualname__, another)]
    ] == letters
    # The observers are told as without it, and before it; the next message waits for it.
    assert [error, another] == [event.error for event in recorder.of(HandlerFailed)]
    assert [1, 2] == told
    assert [(2, 2)] == calls
    assert [] == recorder.of(ConnectionLost)
    assert 1 == len(server.connections)


async def test_s7_2_a_dead_letter_gets_timers_that_fail(autojump_clock, recorder, serving):
    letters = []
    bot = wsclient.Bot("ws://server.test", handler_errors=letters.append, observers=[recorder])
    error = LookupError("mine")

    @bot.every(10)
    def tick():
        raise error

    await serving(bot)
    await trio.sleep(25)

    failed = FailedMessage(
        message=None, handler=tick.__qualname__, subject="every 10 s", error=error
    )

    assert [failed] * 2 == letters
    assert 2 == len(recorder.of(HandlerFailed))


@pytest.mark.parametrize("message", [b"\xff", '{"no": "type"}'])
async def test_s7_2_a_dead_letter_gets_messages_that_cannot_be_decoded(
    autojump_clock, recorder, serving, message
):
    letters, calls = [], []
    bot = wsclient.Bot("ws://server.test", handler_errors=letters.append, observers=[recorder])
    bot.on("good")(calls.append)
    await serving(bot, message, {"type": "good"})
    await trio.sleep(1)

    [event] = recorder.of(MessageUndecoded)

    assert [
        FailedMessage(message=message, handler=None, subject="message undecoded", error=event.error)
    ] == letters
    assert [{"type": "good"}] == calls
    assert [] == recorder.of(HandlerFailed)


@pytest.mark.parametrize(
    ("message", "subject"), [('{"type": "bad"}', "bad"), ("not json", "message undecoded")]
)
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_s7_2_what_a_dead_letter_raises_is_told_and_goes_no_further(
    autojump_clock, recorder, serving, message, subject, kind
):
    mine = OSError("no room for the dead")

    def fail(failed):
        raise mine

    async def fail_later(failed):
        await trio.sleep(0.1)
        raise mine

    dead_letter = fail if kind == "sync" else fail_later
    bot = wsclient.Bot("ws://server.test", handler_errors=dead_letter, observers=[recorder])
    calls = []
    bot.on("good")(calls.append)

    @bot.on("bad")
    def bad(message):
        raise LookupError("the first")

    server = await serving(bot, message, {"type": "good"})
    await trio.sleep(1)

    assert (
        HandlerFailed(
            channel="ws://server.test",
            handler=dead_letter.__qualname__,
            subject=subject,
            error=mine,
        )
        == recorder.of(HandlerFailed)[-1]
    )
    assert [{"type": "good"}] == calls
    assert 1 == len(server.connections)


async def test_s7_2_stop_lets_a_dead_letter_finish(autojump_clock, recorder, network):
    letters = []

    async def keep(failed):
        await trio.sleep(3)
        letters.append(failed.subject)

    bot = wsclient.Bot("ws://server.test", handler_errors=keep, observers=[recorder])

    @bot.on("bad")
    def bad(message, context):
        context.bot.stop()
        raise LookupError("mine")

    async with FaultServer(network=network, handler=says({"type": "bad"})):
        await bot.serve()

    assert ["bad"] == letters
    assert 3 == trio.current_time()


@pytest.mark.parametrize("error", [LookupError("mine"), ExceptionGroup("g", [OSError()])])
@pytest.mark.parametrize("where", ["handler", "async handler", "timer", "async timer", "codec"])
async def test_s7_2_an_exception_can_end_the_bot_as_itself_and_at_once(
    autojump_clock, recorder, network, where, error
):
    class Refuse:
        encode = staticmethod(json.dumps)

        def decode(self, message):
            raise error

    bot = wsclient.Bot(
        "ws://server.test",
        codec=Refuse() if where == "codec" else None,
        handler_errors=wsclient.HandlerErrors.RAISE,
        retry=EVERY_SECOND,
        observers=[recorder],
    )

    def fail(*_):
        raise error

    async def fail_later(*_):
        await trio.sleep(0.5)
        raise error

    @bot.on("slow")
    async def slow(message):
        await trio.sleep(100)

    if "timer" in where:
        bot.every(10)(fail if where == "timer" else fail_later)
    else:
        bot.on("x")(fail if where == "handler" else fail_later)

    messages = {"type": "slow" if "timer" in where else "x"}
    async with FaultServer(network=network, handler=says(messages)) as server:
        with pytest.raises(type(error)) as caught:
            await bot.serve()

        assert 1 == len(server.connections)

    assert is_itself(error, caught.value)
    assert None is caught.value.__cause__ is caught.value.__context__
    # A handler at work is cancelled, too.
    assert {"timer": 10, "async timer": 10.5, "async handler": 0.5}.get(where, 0) == (
        trio.current_time()
    )
    # Whoever gets the exception can tell.
    assert [] == recorder.of(HandlerFailed) == recorder.of(MessageUndecoded)
    assert ChannelState.CLOSED is recorder.of(StateChanged)[-1].state
    with pytest.raises(RuntimeError, match="not serving"):
        _ = bot.channel


async def test_s7_2_an_exception_that_ends_the_bot_does_not_wait_for_the_outbox(
    autojump_clock, recorder, network
):
    bot = wsclient.Bot(
        "ws://server.test",
        handler_errors=wsclient.HandlerErrors.RAISE,
        retry=EVERY_SECOND,
        observers=[recorder],
    )
    receipts = []

    @bot.every(3)
    async def tick(context):
        receipts.append(await context.send("owed"))
        raise LookupError("mine")

    async with FaultServer([Fault.reset(after=2), REFUSE, REFUSE, NONE], network=network) as server:
        with pytest.raises(LookupError, match="mine"):
            await bot.serve()

    assert 3 == trio.current_time()
    assert [] == server.messages
    assert [Outcome.CANCELLED] == [receipt.outcome for receipt in receipts]


@pytest.mark.parametrize("error", [LookupError("mine"), ExceptionGroup("g", [OSError()])])
def test_s7_2_an_exception_that_ends_the_bot_leaves_run_as_itself(error):
    async def fail(message):
        raise error

    async def serve():
        # A bot that went on would lose its connection, and give up.
        async with FaultServer([Fault.reset(after=5)], handler=says({"type": "x"})) as server:
            urls.put(server.url)
            await server.wait_over(1)

    urls = queue.SimpleQueue()
    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    bot = wsclient.Bot(
        urls.get(timeout=20),
        handler_errors=wsclient.HandlerErrors.RAISE,
        retry=wsclient.RetryPolicy(stop=tenacity.stop_after_attempt(1)),
        observers=(),
    )
    bot.on("x")(fail)
    with pytest.raises(type(error)) as caught:
        bot.run()
    thread.join()

    assert is_itself(error, caught.value)


@pytest.mark.parametrize(
    ("message", "text", "size"),
    [
        ("not json", "not JSON: Expecting value", 8),
        (b"\xff", "not JSON: not valid UTF-8", 1),
        ("[1, 2]", "has no field 'type'", 6),
        ("null", "has no field 'type'", 4),
        ('{"no": "type"}', "has no field 'type'", 14),
        ('{"type": 1}', "has no field 'type'", 11),
        ('{"type": "größe", }', "not JSON", 21),
    ],
)
async def test_a_message_that_cannot_be_decoded_is_told_and_skipped(
    autojump_clock, bot, recorder, serving, message, text, size
):
    calls = []
    bot.on("good")(calls.append)
    await serving(bot, message, {"type": "good"})
    await trio.sleep(1)
    [event] = recorder.of(MessageUndecoded)

    assert text in str(event.error)
    assert size == event.size
    assert [{"type": "good"}] == calls
    assert 0 == bot.unhandled


async def test_messages_for_whose_type_there_is_no_handler_are_counted(
    autojump_clock, bot, recorder, serving
):
    await serving(bot, {"type": "a"}, {"type": "b"}, {"type": "a"})
    await trio.sleep(1)

    assert 3 == bot.unhandled
    assert [] == recorder.of(MessageUndecoded)


async def test_a_value_that_cannot_be_encoded_is_the_handlers_failure(
    autojump_clock, bot, recorder, serving
):
    @bot.on("x")
    async def handle(message, context):
        await context.send(object())

    await serving(bot, {"type": "x"})
    await trio.sleep(1)

    assert [wsclient.CodecError] == [type(event.error) for event in recorder.of(HandlerFailed)]


# --- hooks and timers ---------------------------------------------------------------------------


async def test_hooks_run_on_every_connection_in_order_before_anything_else(
    autojump_clock, bot, recorder, serving
):
    @bot.on_connect
    async def authenticate(connection):
        await trio.sleep(0.5)
        await connection.send_message("authenticate")

    @bot.on_connect
    async def subscribe(connection):
        await connection.send_message("subscribe")

    server = await serving(bot, faults=[Fault.reset(after_messages=3), NONE])
    await bot.send("one")
    await server.wait_over(1)
    await bot.send("two")
    await server.wait_messages(6)

    assert [["authenticate", "subscribe", '"one"'], ["authenticate", "subscribe", '"two"']] == [
        visit.messages for visit in server.connections
    ]


async def test_a_hook_that_raises_at_startup_ends_the_bot(autojump_clock, bot, network):
    @bot.on_connect
    async def subscribe(connection):
        raise LookupError("no such stream")

    async with FaultServer(network=network):
        with pytest.raises(wsclient.ChannelFailed, match="no such stream"):
            await bot.serve()


async def test_timers_tick_at_their_interval(autojump_clock, bot, serving):
    ticks = []

    @bot.every(10)
    def tick():
        ticks.append(trio.current_time())

    @bot.every(25)
    async def tick_with_context(context):
        ticks.append(("context", context.message, trio.current_time()))
        await context.send("ping")

    server = await serving(bot)
    await trio.sleep(55)

    assert [10, 20, ("context", None, 25), 30, 40, 50, ("context", None, 50)] == sorted(
        ticks, key=lambda tick: tick if isinstance(tick, float) else tick[2] + 0.1
    )
    assert ['"ping"'] * 2 == server.messages


async def test_a_timer_keeps_its_beat_though_its_calls_take_time(autojump_clock, bot, serving):
    began = []

    @bot.every(10)
    async def tick():
        began.append(trio.current_time())
        await trio.sleep(4)

    await serving(bot)
    await trio.sleep(45)

    assert [10, 20, 30, 40] == began


async def test_a_call_that_takes_longer_than_an_interval_delays_the_next(
    autojump_clock, bot, serving
):
    began = []

    @bot.every(10)
    async def tick():
        began.append(trio.current_time())
        await trio.sleep(25 if len(began) == 1 else 0)

    await serving(bot)
    await trio.sleep(60)

    # At once when it is over, and then on the new beat: nothing is made up for.
    assert [10, 35, 45, 55] == began


async def test_a_timer_that_raises_ticks_on(autojump_clock, bot, recorder, serving):
    @bot.every(10)
    def tick():
        raise LookupError("mine")

    await serving(bot)
    await trio.sleep(35)

    assert [("every 10 s", tick.__qualname__)] * 3 == [
        (event.subject, event.handler) for event in recorder.of(HandlerFailed)
    ]


async def test_timers_tick_during_an_outage_and_do_not_wait_for_handlers(
    autojump_clock, bot, serving
):
    ticks = []

    @bot.every(1)
    def tick():
        ticks.append(trio.current_time())

    @bot.on("x")
    async def slow(message):
        await trio.sleep(100)

    await serving(bot, {"type": "x"}, faults=[Fault.reset(after=2), REFUSE])
    await trio.sleep(9.5)

    assert list(range(1, 10)) == ticks


# --- connections that come and go ---------------------------------------------------------------


async def test_on_disconnect_is_told_of_each_connection_that_was_ready_but_not_of_the_end(
    autojump_clock, bot, recorder, network
):
    told = []

    @bot.on_disconnect
    async def gone(event, context, channel):
        told.append((type(event), event.epoch, context.subject, channel is bot.channel))

    story = [REFUSE, Fault.close(1012, after=5), Fault.reset(after=5), NONE]
    async with FaultServer(story, network=network), trio.open_nursery() as nursery:
        await nursery.start(bot.serve)
        await recorder.wait_for(ConnectionReady, count=3)
        bot.channel.reconnect("as a test")
        await recorder.wait_for(ConnectionReady, count=4)
        await trio.sleep(1)
        bot.stop()

    assert [
        (ConnectionLost, 1, "disconnect", True),
        (ConnectionLost, 2, "disconnect", True),
        (ConnectionLeft, 3, "disconnect", True),
    ] == told


async def test_on_disconnect_says_nothing_of_a_connection_that_was_never_ready(
    autojump_clock, bot, recorder, serving
):
    told, tries = [], []
    bot.on_disconnect(told.append)

    @bot.on_connect
    async def log_in(connection):
        tries.append(connection)
        await trio.sleep(2 if len(tries) == 2 else 0)

    await serving(bot, faults=[Fault.reset(after=3), Fault.reset(after=1), NONE])
    await recorder.wait_for(ConnectionReady, count=2)

    assert 3 == len(tries)
    assert [1] == [event.epoch for event in told]


async def test_a_hook_that_hangs_is_told_of_the_last_connections_only(
    autojump_clock, bot, recorder, network, monkeypatch
):
    monkeypatch.setattr(bot_module, "_DEPARTURES", 3)
    bot = wsclient.Bot("ws://server.test", retry=EVERY_SECOND, observers=[recorder])
    told = []

    @bot.on_disconnect
    async def gone(event):
        told.append(event.epoch)
        await trio.sleep(100)

    async with FaultServer([*[Fault.reset(after=1)] * 10, NONE], network=network) as server:
        async with trio.open_nursery() as nursery:
            await nursery.start(bot.serve)
            await recorder.wait_for(ConnectionReady, count=11)
            await trio.sleep(150)

            assert [1, 8] == told
            bot.stop()

        # The one at work is waited for, and the others are not begun.
        assert [1, 8] == told
        assert 11 == len(server.connections)


async def test_a_gap_is_told_between_the_messages_and_the_next_one_waits(
    autojump_clock, bot, recorder, serving
):
    calls = []

    @bot.on_gap
    async def fill(gap, channel):
        await trio.sleep(3)
        calls.append((gap.after, gap.before))

    bot.on("x")(lambda message: calls.append(message["n"]))
    messages = [{"type": "x", "n": n} for n in range(2)]
    await serving(bot, *messages, faults=[Fault.reset(after=1), NONE])
    await trio.sleep(10)

    assert [0, 1, (1, 2), 0, 1] == calls


async def test_a_gap_is_told_while_no_message_comes_and_an_overflow_is_not(
    autojump_clock, recorder, network
):
    limits = wsclient.Limits(inbox_messages=2, inbox_overflow=wsclient.OverflowPolicy.DROP_OLDEST)
    bot = wsclient.Bot("ws://server.test", retry=EVERY_SECOND, limits=limits, observers=[recorder])
    gaps, calls = [], []
    bot.on_gap(gaps.append)

    @bot.on("x")
    async def handle(message):
        calls.append(message["n"])
        await trio.sleep(1)

    async def feed(connection):
        for n in range(10):
            await connection.send(json.dumps({"type": "x", "n": n}))
            await trio.sleep(0.01)
        async for _ in connection:
            pass

    async with (
        FaultServer(
            [Fault.reset(after=60), Fault.reset(after=60), NONE], network=network, handler=feed
        ),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(bot.serve)
        await recorder.wait_for(ConnectionReady, count=3)
        await trio.sleep(30)
        bot.stop()

    assert [(1, 2), (2, 3)] == [(gap.after, gap.before) for gap in gaps]
    assert [0, 8, 9] * 3 == calls


@pytest.mark.parametrize("end", ["lost", "stopped"])
async def test_a_task_lives_as_long_as_its_connection(autojump_clock, bot, recorder, network, end):
    told = []

    @bot.while_connected
    async def beat(connection, context, channel):
        told.append(("began", context.subject, channel is context.channel))
        try:
            await trio.sleep_forever()
        finally:
            told.append(("ended", trio.current_time()))

    faults = [Fault.reset(after=5), NONE] if end == "lost" else [NONE]
    async with FaultServer(faults, network=network), trio.open_nursery() as nursery:
        await nursery.start(bot.serve)
        await trio.sleep(10)
        bot.stop()

    began = ("began", "while connected", True)

    assert {
        "lost": [began, ("ended", 5), began, ("ended", 10)],
        "stopped": [began, ("ended", 10)],
    }[end] == told


async def test_s7_2_a_task_that_raises_is_told_and_begins_anew_on_the_next_connection(
    autojump_clock, recorder, network, nursery
):
    letters, began = [], []
    bot = wsclient.Bot(
        "ws://server.test", retry=EVERY_SECOND, handler_errors=letters.append, observers=[recorder]
    )

    @bot.while_connected
    async def task(connection):
        began.append(trio.current_time())
        raise wsclient.ConnectionClosed(None) if len(began) == 1 else LookupError("mine")

    async with FaultServer([Fault.reset(after=5), NONE], network=network):
        await nursery.start(bot.serve)
        await recorder.wait_for(ConnectionReady, count=2)
        await trio.sleep(1)
        bot.stop()
        await recorder.wait_for(ChannelClosed)

    # The connection was there: whatever was closed, it was another.
    assert [wsclient.ConnectionClosed, LookupError] == [type(letter.error) for letter in letters]
    assert {(task.__qualname__, "while connected", None)} == {
        (letter.handler, letter.subject, letter.message) for letter in letters
    }
    assert 2 == len(began)


async def test_a_task_that_notices_first_that_its_connection_is_gone_has_not_failed(
    autojump_clock, bot, recorder, network
):
    noticed = []

    @bot.while_connected
    async def task(connection):
        with trio.CancelScope(shield=True):
            while connection.closed is None:  # noqa: ASYNC110  # It has no event for that.
                await trio.sleep(0.1)
        noticed.append(connection.closed.code)
        raise wsclient.ConnectionClosed(connection.closed)

    async with (
        FaultServer([Fault.reset(after=5), NONE], network=network),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(bot.serve)
        await recorder.wait_for(ConnectionReady, count=2)
        await bot.channel.aclose()

    assert [1006] == noticed[:1]
    assert [] == recorder.of(HandlerFailed)


@pytest.mark.parametrize("how", ["alone", "in a nursery"])
async def test_s7_2_a_task_that_fails_as_its_connection_ends_has_a_dead_letter(
    autojump_clock, recorder, network, how
):
    letters = []

    async def write(failed):
        await trio.sleep(1)
        letters.append(failed.error)

    bot = wsclient.Bot(
        "ws://server.test", retry=EVERY_SECOND, handler_errors=write, observers=[recorder]
    )
    began = []

    async def give_back():
        try:
            await trio.sleep_forever()
        finally:
            if len(began) == 1:
                raise LookupError("mine")

    @bot.while_connected
    async def task(connection):
        began.append(connection)
        if how == "alone":
            await give_back()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            nursery.start_soon(trio.sleep_forever)

    async with (
        FaultServer([Fault.reset(after=5), NONE], network=network),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(bot.serve)
        await recorder.wait_for(ConnectionReady, count=2)
        await trio.sleep(5)
        bot.stop()

    assert 2 == len(began)
    assert 1 == len(letters) == len(recorder.of(HandlerFailed))
    assert [LookupError] == [
        type(error) for error in getattr(letters[0], "exceptions", [letters[0]])
    ]


@pytest.mark.parametrize("error", [LookupError("mine"), KeyboardInterrupt()])
async def test_s7_2_a_task_that_fails_because_its_bot_stops_is_told(
    autojump_clock, bot, recorder, network, error
):
    async def give_back():
        try:
            await trio.sleep_forever()
        finally:
            raise error

    @bot.while_connected
    async def task(connection):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            nursery.start_soon(trio.sleep_forever)

    async def serve():
        await bot.serve()
        ended.append(True)

    ended = []
    is_told = isinstance(error, Exception)
    with (
        nullcontext() if is_told else pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True)
    ):
        async with FaultServer(network=network), trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await recorder.wait_for(ConnectionReady)
            await trio.testing.wait_all_tasks_blocked()
            bot.stop()

    assert is_told == bool(ended) == bool(recorder.of(HandlerFailed))


async def test_a_task_ends_with_its_channel_though_a_handler_is_at_work(
    autojump_clock, bot, network
):
    ends = []

    @bot.while_connected
    async def task(connection):
        try:
            await trio.sleep_forever()
        finally:
            ends.append(trio.current_time())

    @bot.on("x")
    async def close(message, channel):
        await channel.aclose()
        await trio.sleep(1)

    async with FaultServer(network=network, handler=says({"type": "x"})):
        await bot.serve()
    assert [0] == ends
    assert 1 == trio.current_time()


async def test_s7_2_a_channel_of_the_tasks_own_may_give_up(autojump_clock, bot, recorder, network):
    @bot.while_connected
    async def task(connection):
        raise wsclient.ChannelFailed("another", ())

    async with FaultServer(network=network), trio.open_nursery() as nursery:
        await nursery.start(bot.serve)
        await trio.sleep(5)
        bot.stop()
    assert 1 == bot.failed == len(recorder.of(HandlerFailed))


async def test_s7_2_a_task_can_end_the_bot(autojump_clock, network):
    bot = wsclient.Bot(
        "ws://server.test", handler_errors=wsclient.HandlerErrors.RAISE, observers=()
    )
    mine = LookupError("mine")

    @bot.while_connected
    async def task(connection):
        raise mine

    async with FaultServer(network=network):
        with pytest.raises(LookupError) as caught:
            await bot.serve()

    assert mine is caught.value


async def test_a_channel_that_gives_up_says_so_once_though_tasks_wait_for_it(
    autojump_clock, bot, network
):
    @bot.while_connected
    async def task(connection):
        pass

    async with FaultServer([REJECT_404], network=network):
        with pytest.raises(wsclient.ChannelFailed, match="HTTP 404"):
            await bot.serve()


async def test_s7_2_whoever_wants_errors_is_told_after_the_observers_in_order(
    autojump_clock, recorder, serving
):
    told = []
    bot = wsclient.Bot(
        "ws://server.test",
        handler_errors=lambda failed: told.append(("first", failed)),
        observers=[recorder],
    )

    @bot.on_error
    async def keep(failed, context):
        await trio.sleep(1)
        told.append((context.subject, failed, len(recorder.of(HandlerFailed))))

    @bot.on_error
    def fail(failed):
        raise OSError("no room")

    error = LookupError("mine")

    @bot.on("x")
    def handle(message):
        raise error

    await serving(bot, '{"type": "x"}', "no JSON")
    await trio.sleep(5)
    failed = FailedMessage(
        message='{"type": "x"}', handler=handle.__qualname__, subject="x", error=error
    )

    assert [("first", failed), ("x", failed, 1)] == told[:2]
    assert ["first", "message undecoded"] == [entry[0] for entry in told[2:]]
    assert ["no JSON"] * 2 == [entry[1].message for entry in told[2:]]
    # One handler, and twice who keeps the dead.
    assert [handle.__qualname__, fail.__qualname__, fail.__qualname__] == [
        event.handler for event in recorder.of(HandlerFailed)
    ]
    assert 4 == bot.failed


# --- serving and stopping -----------------------------------------------------------------------


async def test_a_bot_has_its_channel_while_it_serves(autojump_clock, bot, network, nursery):
    with pytest.raises(RuntimeError, match="not serving"):
        _ = bot.channel
    with pytest.raises(RuntimeError, match="not serving"):
        await bot.send("x")
    async with FaultServer(network=network):
        channel = await nursery.start(bot.serve)

        assert channel is bot.channel
        with pytest.raises(RuntimeError, match="serving already"):
            await bot.serve()
        bot.stop()
        await channel.wait_state(ChannelState.CLOSED)
        await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(RuntimeError, match="not serving"):
        _ = bot.channel


async def test_stop_ends_a_bot_that_waits(autojump_clock, bot, network):
    async with FaultServer(network=network) as server, trio.open_nursery() as nursery:
        await nursery.start(bot.serve)
        await bot.channel.wait_ready()
        await trio.sleep(5)
        bot.stop()
    # Out of the nursery: it returned.
    assert 5 == trio.current_time()
    assert 1000 == server.connections[0].close.code


async def test_stop_lets_a_handler_finish_and_what_it_sent_be_written(autojump_clock, bot, network):
    calls = []

    @bot.on("x")
    async def handle(message, context):
        await trio.sleep(3)
        await context.send("done")
        calls.append(message["n"])

    messages = [{"type": "x", "n": n} for n in range(3)]
    async with FaultServer(network=network, handler=says(*messages)) as server:
        async with trio.open_nursery() as nursery:
            await nursery.start(bot.serve)
            await trio.sleep(1)
            bot.stop()

        assert 3 == trio.current_time()
    # The one at work, and no other.
    assert [0] == calls
    assert ['"done"'] == server.messages


async def test_stop_leaves_what_was_received_and_not_taken(autojump_clock, bot, network):
    calls = []

    @bot.on_message
    async def handle(message: str):
        calls.append(message)
        if message == "0":
            await trio.sleep(1)  # So long that all others are there.
        if message == "70":
            bot.stop()

    messages = [str(number) for number in range(100)]
    async with (
        FaultServer(network=network, handler=says(*messages)),
        trio.open_nursery() as nursery,
    ):
        channel = await nursery.start(bot.serve)

    assert messages[:71] == calls
    assert 71 == channel.statistics().messages_received


async def test_a_stop_while_a_gap_is_told_takes_no_further_message(
    autojump_clock, bot, recorder, network
):
    calls = []

    @bot.on_gap
    async def fill(gap):
        bot.stop()
        await trio.sleep(2)
        calls.append("filled")

    bot.on_message(calls.append)
    story = [Fault.reset(after=1), NONE]
    async with FaultServer(story, network=network, handler=says("x")):
        await bot.serve()

    assert ["x", "filled"] == calls


async def test_stop_lets_a_timers_call_finish_too(autojump_clock, bot, network):
    calls = []

    @bot.every(1)
    async def tick(context):
        await trio.sleep(2)
        await context.send("done")
        calls.append(trio.current_time())

    @bot.every(1.2)
    def another():
        calls.append("another")

    async with FaultServer(network=network) as server:
        async with trio.open_nursery() as nursery:
            await nursery.start(bot.serve)
            await trio.sleep(1.1)
            bot.stop()

        assert 3 == trio.current_time()
    assert [3] == calls
    assert ['"done"'] == server.messages


async def test_a_handler_may_stop_its_bot(autojump_clock, bot, network):
    @bot.on("bye")
    def bye(message, context):
        context.bot.stop()

    async with FaultServer(network=network, handler=says({"type": "bye"})):
        await bot.serve()
    assert 0 == trio.current_time()


async def test_stop_writes_what_was_sent_during_an_outage(autojump_clock, bot, network):
    async with FaultServer([REFUSE, REFUSE, NONE], network=network) as server:
        async with trio.open_nursery() as nursery:
            await nursery.start(bot.serve)
            receipt = await bot.send("owed")
            bot.stop()

        assert 2 == trio.current_time()
    assert ['"owed"'] == server.messages
    assert Outcome.RECEIVED is receipt.outcome


async def test_a_bot_can_serve_again(autojump_clock, bot, network):
    calls = []

    @bot.on("x")
    def handle(message, context):
        calls.append(message)
        context.bot.stop()

    async with FaultServer(network=network, handler=says({"type": "x"})) as server:
        await bot.serve()
        await bot.serve()
    assert 2 == len(calls) == len(server.connections)


async def test_a_stop_that_comes_before_the_first_step_is_not_forgotten(
    autojump_clock, bot, network
):
    async with FaultServer(network=network) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bot.serve)
            bot.stop()

        assert 0 == trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(bot.serve)
            await server.wait_connections(1)
            bot.stop()


async def test_a_bot_that_still_writes_what_was_sent_serves(autojump_clock, bot, network):
    async with trio.open_nursery() as nursery:
        await nursery.start(bot.serve)
        await bot.send("owed")
        bot.stop()
        await trio.sleep(1)

        with pytest.raises(RuntimeError, match="serving already"):
            await bot.serve()
        bot.stop()
    async with FaultServer(network=network) as server, trio.open_nursery() as nursery:
        await nursery.start(bot.serve)
        # What has stopped the last time is over.
        await server.wait_connections(1)
        bot.stop()


async def test_a_bot_serves_already_while_its_outbox_is_opened(tmp_path):
    outbox = wsclient.SqliteOutbox(tmp_path / "outbox.db")
    async with FaultServer() as server, trio.open_nursery() as nursery:
        bot = wsclient.Bot(server.url, outbox=outbox, observers=())
        nursery.start_soon(bot.serve)
        await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(RuntimeError, match="serving already"):
            await bot.serve()
        with trio.fail_after(20):
            await server.wait_connections(1)
        bot.stop()


async def test_a_bot_whose_channel_is_closed_returns(autojump_clock, bot, network):
    async with FaultServer(network=network), trio.open_nursery() as nursery:
        channel = await nursery.start(bot.serve)
        await channel.wait_ready()
        await channel.aclose()
    assert 0 == trio.current_time()


async def test_cancelling_a_bot_ends_it_at_once(autojump_clock, bot, recorder, network):
    calls = []

    @bot.on("x")
    async def handle(message):
        await trio.sleep(100)
        calls.append(message)

    async with FaultServer(network=network, handler=says({"type": "x"})):
        with trio.move_on_after(5) as scope:
            await bot.serve()
    assert scope.cancelled_caught
    assert 5 == trio.current_time()
    assert [] == calls
    assert ChannelState.CLOSED is recorder.of(StateChanged)[-1].state


async def test_a_channel_that_gives_up_ends_its_bot(autojump_clock, bot, network):
    async with FaultServer([REJECT_404], network=network):
        with pytest.raises(wsclient.ChannelFailed, match="HTTP 404"):
            await bot.serve()
    with pytest.raises(RuntimeError, match="not serving"):
        _ = bot.channel


async def test_a_bot_rides_out_outages(autojump_clock, bot, recorder, network):
    numbers = itertools.count(1)

    async def feed(connection):
        while True:
            await connection.send(json.dumps({"type": "n", "n": next(numbers)}))
            await trio.sleep(1)

    received = []
    bot.on("n")(lambda message: received.append(message["n"]))
    story = [Fault.reset(after=5.5), REFUSE, Fault.close(1012, after=5.5), NONE]
    async with FaultServer(story, network=network, handler=feed), trio.open_nursery() as nursery:
        await nursery.start(bot.serve)
        await recorder.wait_for(ConnectionReady, count=3)
        await trio.sleep(5.5)
        bot.stop()

    assert sorted(set(received)) == received
    assert len(received) > 15


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, b"x", ["x"]])
def test_a_handler_is_registered_for_messages_that_can_be_told_from_others(bot, kind):
    with pytest.raises(TypeError, match=r"bot\.on needs to know which messages"):
        bot.on(kind)


@pytest.mark.parametrize("handler", [None, "x", lambda: None, lambda one, two: None])
def test_a_handler_that_cannot_be_called_is_refused_when_it_is_registered(bot, handler):
    with pytest.raises(TypeError, match=r"handler must be callable|must take one argument"):
        bot.on("x")(handler)


@pytest.mark.parametrize("seconds", [None, "1", True, lambda: None])
def test_an_interval_is_a_number(bot, seconds):
    with pytest.raises(TypeError, match=r"bot\.every needs seconds"):
        bot.every(seconds)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_interval_is_above_zero(bot, seconds):
    with pytest.raises(ValueError, match="above 0"):
        bot.every(seconds)


def test_a_timer_needs_no_argument(bot):
    with pytest.raises(TypeError, match="must take no argument"):
        bot.every(1)(lambda message: None)


@pytest.mark.parametrize("hook", [None, "hook", 1])
def test_a_hook_is_a_function(bot, hook):
    with pytest.raises(TypeError, match="a hook must be callable"):
        bot.on_connect(hook)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": 1}, "key must be str, not int"),
        ({"observers": 1}, "observers"),
        ({"observers": [1]}, "an observer must be callable"),
        ({"unknown": 1}, "unknown"),
        ({"handler_errors": None}, f"{RIGHT}, not NoneType"),
        ({"handler_errors": "raise"}, f"{RIGHT}, not str"),
        ({"handler_errors": wsclient.HandlerErrors}, f"{RIGHT}, not the whole enumeration"),
        ({"handler_errors": lambda: None}, f"{RIGHT}: <lambda>: too many positional"),
        ({"handler_errors": lambda one, two: None}, f"{RIGHT}: <lambda>: missing a required"),
    ],
)
def test_an_option_that_cannot_work_is_refused_when_the_bot_is_made(options, text):
    with pytest.raises(TypeError, match=text):
        wsclient.Bot("ws://server.test", **options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"url": "http://server.test"}, ValueError, "try ws://server.test"),
        ({"url": None}, TypeError, "URL must be str"),
        ({"url": "ws://x", "retry": 3}, TypeError, "retry must be RetryPolicy"),
        ({"url": "ws://x", "name": 3}, TypeError, "name must be str"),
        ({"url": "ws://x", "codec": 5}, TypeError, "codec must be an object with encode"),
        ({"url": "ws://x", "codec": wsclient.JsonCodec}, TypeError, "such as JsonCodec()"),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_bot_is_made(options, error, text):
    with pytest.raises(error, match=text):
        wsclient.Bot(**options)


# --- run(): a program, and signals --------------------------------------------------------------

PROGRAM = """
import sys
import trio
import wsclient

bot = wsclient.Bot(sys.argv[1])

@bot.on_connect
async def greet(connection):
    await connection.send_message("here")

@bot.on("work")
async def work(message, context):
    await context.send("working")
    await trio.sleep(message["seconds"])
    await context.send("done")

bot.run()
print("returned")
"""


async def start_program(nursery, url):
    """Start the program; gives the process, and a function that waits for its end."""
    ends, end = trio.open_memory_channel(1)

    async def run(task_status):
        completed = await trio.run_process(
            [sys.executable, "-W", "error", "-c", PROGRAM, url],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            task_status=task_status,
        )
        await ends.send(completed)

    return await nursery.start(run), end.receive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_program_without_a_traceback(nursery, number):
    async with FaultServer() as server:
        process, wait = await start_program(nursery, server.url)
        with trio.fail_after(20):
            await server.wait_messages(1)
            process.send_signal(number)
            completed = await wait()

    assert (0, b"returned\n", b"") == (
        completed.returncode,
        completed.stdout,
        completed.stderr,
    )
    assert 1000 == server.connections[0].close.code


async def test_a_signal_lets_the_handler_at_work_finish(nursery):
    work = {"type": "work", "seconds": 0.5}
    async with FaultServer(handler=says(work, work)) as server:
        process, wait = await start_program(nursery, server.url)
        with trio.fail_after(20):
            await server.wait_messages(2)
            process.send_signal(signal.SIGINT)
            completed = await wait()

    assert ["here", '"working"', '"done"'] == server.messages
    assert (0, b"returned\n", b"") == (
        completed.returncode,
        completed.stdout,
        completed.stderr,
    )


async def test_a_second_signal_does_not_wait_for_the_handler(nursery):
    async with FaultServer(handler=says({"type": "work", "seconds": 1000})) as server:
        process, wait = await start_program(nursery, server.url)
        with trio.fail_after(20):
            await server.wait_messages(2)
            process.send_signal(signal.SIGTERM)
            await trio.sleep(0.3)

            assert process.returncode is None
            process.send_signal(signal.SIGTERM)
            completed = await wait()

    assert ["here", '"working"'] == server.messages
    assert b"" == completed.stdout
    # As Ctrl-C ends any program of Python: 130 in a shell.
    assert -signal.SIGINT == completed.returncode
    assert b"KeyboardInterrupt" in completed.stderr


def test_a_second_signal_does_not_wait_for_what_was_sent():
    def signal_again(event):
        if isinstance(event, StateChanged) and event.state is ChannelState.DRAINING:
            signal.raise_signal(signal.SIGTERM)

    # Nobody is there, so that what is sent waits.
    bot = wsclient.Bot("ws://127.0.0.1:9", retry=EVERY_SECOND, observers=[signal_again])

    @bot.every(0.01)
    async def owe(context):
        await context.send("owed")
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        bot.run()


async def test_a_signal_during_an_outage_ends_a_program_at_once(nursery):
    async with FaultServer() as server:
        process, wait = await start_program(nursery, server.url)
        with trio.fail_after(20):
            await server.wait_messages(1)
            await server.stop()
            await trio.sleep(0.3)
            process.send_signal(signal.SIGINT)
            with trio.fail_after(2):
                completed = await wait()

    assert (0, b"returned\n", b"") == (
        completed.returncode,
        completed.stdout,
        completed.stderr,
    )


def test_a_program_whose_channel_gives_up_says_why():
    async def refuse():
        async with FaultServer([REJECT_404]) as server:
            return await trio.run_process(
                [sys.executable, "-c", PROGRAM, server.url],
                capture_stderr=True,
                stdout=subprocess.DEVNULL,
                check=False,
            )

    completed = trio.run(refuse)

    assert 1 == completed.returncode
    assert b"wsclient.errors.ChannelFailed: gave up on ws://127.0.0.1" in completed.stderr
    assert b"HTTP 404" in completed.stderr


async def test_a_bot_can_run_in_a_thread_that_gets_no_signals():
    async with FaultServer(handler=says({"type": "bye"})) as server:
        bot = wsclient.Bot(server.url, observers=[EventRecorder()])
        threads = []

        @bot.on("bye")
        def bye(message):
            threads.append(threading.current_thread())
            bot.stop()

        with trio.fail_after(20):
            await trio.to_thread.run_sync(bot.run)

    assert threads != [threading.main_thread()]
    assert 1 == len(threads)


async def test_a_bot_takes_functions_and_several_endpoints_as_a_channel_does(
    autojump_clock, network, nursery
):
    async def url():
        return "ws://server.test/from-a-function"

    async def headers():
        return {"X-Key": "1"}

    async def credentials(fresh):
        return "Bearer abc"

    bot = wsclient.Bot(
        ["ws://nowhere.test", url],
        headers=headers,
        credentials=credentials,
        startup_timeout=5,
        observers=(),
    )
    async with FaultServer(network=network) as server:
        channel = await nursery.start(bot.serve)
        await channel.wait_ready()
        [visit] = server.connections

        assert "/from-a-function" == visit.path
        assert (b"1", b"Bearer abc") == (
            dict(visit.headers)[b"x-key"],
            dict(visit.headers)[b"authorization"],
        )
        nursery.cancel_scope.cancel()


def test_a_bot_takes_every_option_of_a_channel_but_what_concerns_its_block():
    channels = set(inspect.signature(wsclient.open_channel).parameters)
    bots = set(inspect.signature(wsclient.Bot).parameters)

    # The block of a bot is its own: it has hooks instead of one, and waits for nobody.
    assert {"on_connect", "ready_timeout"} == channels - bots
    assert {"key", "codec", "handler_errors"} == bots - channels
