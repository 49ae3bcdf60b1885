"""Annotations, written in whatever way, are found."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, Union

import pytest
from typing_extensions import TypeAliasType  # pydantic needs it

from wsclient.app._annotation import annotation_of, bare, members_of, name_of

if TYPE_CHECKING:
    from decimal import Decimal

Name = NewType("Name", str)
Nick = NewType("Nick", Name)


class Trade:
    pass


def on_trade(trade: Trade, context: Decimal) -> Decimal:
    pass


class Handlers:
    def __init__(self, trade: Trade) -> None:
        pass

    def __call__(self, trade: Trade) -> None:
        pass

    def method(self, trade: Trade) -> None:
        pass

    @classmethod
    def of_class(cls, trade: Trade) -> None:
        pass

    @staticmethod
    def static(trade: Trade) -> None:
        pass


@functools.wraps(on_trade)
def wrapper(*args):
    pass


@pytest.mark.parametrize(
    "handler",
    [
        on_trade,
        wrapper,
        functools.cache(on_trade),
        functools.partial(on_trade, context=None),
        functools.partial(functools.partial(Handlers(None).method)),
        Handlers,
        Handlers(None),
        Handlers(None).method,
        Handlers.of_class,
        Handlers.static,
    ],
    ids=lambda handler: getattr(handler, "__name__", type(handler).__name__),
)
def test_the_annotation_is_found_whatever_the_handler_is(handler):
    assert Trade is annotation_of(handler, "trade")


def test_without_an_annotation_it_may_be_anything():
    assert Any is annotation_of(lambda trade: None, "trade")


def test_what_annotated_adds_is_kept():
    def handler(trade: Annotated[Trade, "more"]) -> None:
        pass

    assert Annotated[Trade, "more"] == annotation_of(handler, "trade")


def test_other_annotations_need_not_be_there():
    assert Trade is annotation_of(on_trade, "trade")


def test_one_that_is_not_there_is_said_with_its_place():
    text = r"annotation 'Decimal' of on_trade's parameter 'context' .*: name 'Decimal' is not"

    with pytest.raises(TypeError, match=text):
        annotation_of(on_trade, "context")


def test_one_that_is_no_expression_is_said():
    def handler(trade) -> None:
        pass

    handler.__annotations__["trade"] = "no type"

    with pytest.raises(TypeError, match="cannot be resolved"):
        annotation_of(handler, "trade")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (inspect.Parameter.empty, Any),
        (None, type(None)),
        (Nick, str),
        (Trade, Trade),
        (Annotated[Name, 1], Annotated[Name, 1]),
    ],
    ids=str,
)
def test_other_names_for_a_type_are_the_type(annotation, expected):
    assert expected == bare(annotation)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Trade, (Trade,)),
        (Trade | int, (Trade, int)),
        (Union[Trade, Name], (Trade, str)),  # noqa: UP007
        (Optional[Trade], (Trade, type(None))),  # noqa: UP045
        (Annotated[Annotated[Trade, 1] | int, 2], (Trade, int)),
        (list[Trade | int], (list[Trade | int],)),
    ],
    ids=str,
)
def test_a_union_is_its_members(annotation, expected):
    assert expected == members_of(annotation)


def test_an_alias_is_what_it_stands_for():
    # What the `type` statement makes, which 3.11 does not have.
    other = TypeAliasType("other", int)
    either = TypeAliasType("either", Trade | other)

    assert (Trade, int) == members_of(either)


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (Trade, "Trade"),
        (Any, "Any"),
        (Trade | None, "Trade | None"),
        (Annotated[Name, 1], "str"),
        (dict[str, list[Trade]], "dict[str, list[Trade]]"),
        (Literal["a", 1], "Literal['a', 1]"),
    ],
    ids=str,
)
def test_types_have_names_for_people(annotation, name):
    assert name == name_of(annotation)
