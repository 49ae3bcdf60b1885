"""Who is called for what, worked out beforehand."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from wsclient.app import _plan
from wsclient.app._kinds import kinds_of
from wsclient.app._lanes import Lanes
from wsclient.app._plan import Plan
from wsclient.app._router import Router
from wsclient.app._work import Work


class Trade:
    pass


def plan_of(router, decoder=lambda annotation: annotation and (lambda _: annotation)):
    return Plan(
        router._walk(),
        decoder=decoder,
        kinds=lambda named_by: frozenset(kinds_of(named_by, key="type") or [named_by.__name__]),
        converter=lambda annotation: lambda value: (annotation, value),
        key="type",
        lanes=lambda registration: Lanes(registration.concurrency, Work()),
    )


def names(calls):
    return [call.name for call in calls]


def handler(name, annotation=None):
    def handle(message):
        pass

    handle.__qualname__ = name
    if annotation is not None:
        handle.__annotations__["message"] = annotation
    return handle


@pytest.fixture
def router():
    return Router()


def test_a_message_is_for_all_that_its_type_matches_in_order_of_registration(router):
    router.on("trade.new")(handler("exact"))
    router.on("trade.*")(handler("pattern"))
    router.on(lambda message: True)(handler("predicate"))
    router.on("*")(handler("all"))
    router.on("quote")(handler("quote"))
    router.on("trade.new")(handler("exact again"))
    plan = plan_of(router)

    assert ["exact", "pattern", "predicate", "all", "exact again"] == names(
        plan.find("trade.new").calls
    )
    assert ["pattern", "predicate", "all"] == names(plan.find("trade.old").calls)
    assert ["predicate", "all", "quote"] == names(plan.find("quote").calls)
    assert ["predicate"] == names(plan.others.calls)
    assert plan.find("trade.old") is plan.find("trade.old")


def test_without_a_pattern_a_type_that_nobody_names_is_for_predicates_alone(router):
    router.on("a")(handler("a"))
    router.on(lambda message: True)(handler("predicate"))
    plan = plan_of(router)

    assert ["predicate"] == names(plan.find("b").calls)
    assert plan.others is plan.find("c")


def test_a_type_of_python_names_types_of_messages(router):
    router.on(Trade)(handler("by type"))
    router.on(handler("by annotation", Trade))
    plan = plan_of(router)

    assert ["by type", "by annotation"] == names(plan.find("Trade").calls)
    assert [Trade, Trade] == [call.decode("m") for call in plan.find("Trade").calls]
    assert () == plan.find("Quote").calls


def test_a_peer_that_invents_types_fills_no_memory(router, monkeypatch):
    monkeypatch.setattr(_plan, "_REMEMBERED", 10)
    router.on("x")(handler("x"))
    router.on("*")(handler("all"))
    plan = plan_of(router)
    for number in range(100):
        assert ["all"] == names(plan.find(f"invented {number}").calls)
    assert ["all"] == names(plan.find("long" * 100).calls)

    assert 11 == len(plan._found)
    assert ["x", "all"] == names(plan.find("x").calls)


def test_a_long_type_is_not_remembered(router):
    router.on("*")(handler("all"))
    plan = plan_of(router)
    plan.find("x" * 128)
    plan.find("x" * 129)

    assert ["x" * 128] == list(plan._found)


# --- decoding -----------------------------------------------------------------------------------


class Buy(msgspec.Struct, tag_field="type", tag="buy"):
    pass


class Sell(msgspec.Struct, tag_field="type", tag="sell"):
    pass


class InAnArray(msgspec.Struct, tag="sell", array_like=True):
    pass


class ByAnotherField(msgspec.Struct, tag_field="op", tag="buy"):
    type: Literal["buy"]


def structs(router):
    return {struct.__name__: kind for struct, (kind, _) in plan_of(router).by_struct.items()}


def test_structs_that_name_their_types_are_decoded_at_once(router):
    router.on("buy")(handler("buy", Buy))
    router.on(handler("buy again", Buy))
    router.on(Sell)(handler("sell"))
    plan = plan_of(router)

    assert {"Buy": "buy", "Sell": "sell"} == structs(router)
    assert Buy | Sell == plan.straight_decode("m")
    assert ["buy", "buy again"] == names(plan.by_struct[Buy][1])


@pytest.mark.parametrize(
    ("messages", "annotation"),
    [
        ("*", Sell),
        (lambda message: True, Sell),
        ("sell", dict),
        ("sell", None),
        ("buy", Sell),
        ("buy", dict),
        ("sell", ByAnotherField),
        ("sell", InAnArray),
        ("sell", Buy | Sell),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_where_others_want_a_message_as_well_its_type_is_looked_at_first(
    router, messages, annotation
):
    router.on("buy")(handler("buy", Buy))
    router.on(messages)(handler("other", annotation))
    plan = plan_of(router)

    assert None is plan.straight_decode
    assert plan.is_typed


def test_structs_that_the_codec_does_not_take_together_are_decoded_one_by_one(router):
    def decoder(annotation):
        if annotation not in (Buy, Sell):
            raise TypeError("no way into a union")
        return lambda message: annotation

    router.on(Buy)(handler("buy"))
    router.on(Sell)(handler("sell"))
    plan = plan_of(router, decoder)

    assert None is plan.straight_decode
    assert plan.is_typed
    assert [Buy, Sell] == [plan.find(kind).calls[0].decode("m") for kind in ("buy", "sell")]


def test_a_struct_that_is_tagged_in_another_field_is_looked_at_first(router):
    router.on("buy")(handler("buy", ByAnotherField))

    assert None is plan_of(router).straight_decode


def test_a_plan_knows_who_takes_what_the_codec_gives(router):
    router.on("x")(handler("any", Any))
    router.on("x")(handler("none"))
    router.on("x")(handler("dict", dict[str, Any]))
    router.on("x")(handler("typed", Trade))
    found = plan_of(router).find("x")

    assert [(), (), (dict,), ()] == [call.plain for call in found.calls]
    assert [True, True, True, False] == [call.decode is None for call in found.calls]
    assert not found.is_typed


@pytest.mark.parametrize(
    ("annotation", "takes", "is_decoded"),
    [
        (None, {str, bytes}, False),
        (Any, {str, bytes}, False),
        (object, {str, bytes}, False),
        (str | bytes, {str, bytes}, False),
        (str, {str}, False),
        (bytes, {bytes}, False),
        (Trade, {str, bytes}, True),
    ],
)
def test_who_wants_every_message_says_in_which_form(router, annotation, takes, is_decoded):
    router.on_message(handler("all", annotation))
    (call,) = plan_of(router).every_message

    assert takes == call.takes
    assert is_decoded == (call.decode is not None)


def test_messages_are_sorted_where_somebody_wants_that_or_nobody_wants_anything(router):
    assert plan_of(router).is_sorting
    router.on_message(handler("all"))

    assert not plan_of(router).is_sorting
    router.on("x")(handler("x"))

    assert plan_of(router).is_sorting


def test_a_handler_that_asks_for_nothing_is_called_straight(router):
    plain = handler("plain")
    router.on("x")(plain)
    router.on("x")(lambda message, context: None)
    router.on("x", concurrency=2)(plain)
    first, second, third = plan_of(router).find("x").calls

    assert plain is first.straight
    assert None is first.lanes is second.straight is third.straight
    assert None is not third.lanes


async def test_middleware_is_around_the_handler_the_first_outermost(router):
    calls = []

    @router.middleware
    async def outer(context, call_next):
        calls.append(f"outer of {context}")
        calls.append(await call_next())

    inner_router = Router()
    router.include(inner_router, prefix="p.")

    @inner_router.on("x")
    async def handle(message):
        calls.append(message)
        return "result"

    @inner_router.middleware
    async def inner(context, call_next):
        calls.append("inner")
        return await call_next() + " passed on"

    @router.on_connect
    async def connect(connection):
        pass

    plan = plan_of(router)
    (call,) = plan.find("p.x").calls
    await call.around(("m",), "context")

    assert ["outer of context", "inner", "m", "result passed on"] == calls
    assert None is call.straight
    # A hook that is first on the wire has nothing around it.
    assert [None] == [call.around for call in plan.connect]


async def test_middleware_may_call_next_as_often_as_it_wants(router):
    calls = []

    @router.middleware
    async def twice(context, call_next):
        await call_next()
        await call_next()

    router.on("x")(calls.append)
    (call,) = plan_of(router).find("x").calls
    await call.around(("m",), None)

    assert ["m", "m"] == calls


def test_what_is_published_is_converted_to_what_its_handler_is_annotated_with():
    router = Router()

    @router.subscribe("trades")
    def plain(value): ...

    @router.subscribe("trades")
    def typed(value: Buy): ...

    as_it_is, converted = plan_of(router).subscriptions

    assert (as_it_is.decode, "trades") == (None, as_it_is.wanted.key)
    assert (Buy, 7) == converted.decode(7)
