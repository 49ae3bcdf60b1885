"""A type says which messages it is for, or it does not."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from wsclient.app._kinds import kinds_of

T = TypeVar("T")


class Kind(enum.Enum):
    TRADE = "trade"
    QUOTE = "quote"


class Tagged(msgspec.Struct, tag="trade"):
    price: float


class TaggedElsewhere(msgspec.Struct, tag_field="op", tag="trade"):
    type: Literal["never"]


class InAnArray(msgspec.Struct, tag="trade", array_like=True):
    """Its messages have no fields."""

    price: float


class InAnArrayUntagged(msgspec.Struct, array_like=True):
    type: Literal["trade"]


class TaggedByNumber(msgspec.Struct, tag=7):
    price: float


class Untagged(msgspec.Struct):
    type: Annotated[Literal["quote"], "more"]


class Renamed(msgspec.Struct, rename={"kind": "type"}):
    kind: Literal["renamed"]


class OfSeveral(msgspec.Struct, Generic[T]):
    type: Literal["bid", "ask"]
    value: T


class Model(pydantic.BaseModel):
    type: Literal["model"]


class AliasedModel(pydantic.BaseModel):
    kind: Literal["aliased"] = pydantic.Field(alias="type")
    op: Literal["not this"] = pydantic.Field(validation_alias="other")


@pydantic.dataclasses.dataclass
class ModelDataclass:
    type: Literal["model dataclass"]


@dataclass
class Data:
    type: Annotated[Literal["data"], "more"]
    price: float


@attrs.frozen
class Attrs:
    type: Literal[Kind.TRADE, Kind.QUOTE]


class Typed(TypedDict):
    type: NotRequired[Literal["typed"]]


class Vague(TypedDict):
    type: str


class Numbered(TypedDict):
    type: Literal[1]


class Half(TypedDict):
    type: Literal["half", 1]


@dataclass
class Nothing:
    price: float


@attrs.frozen
class NothingAttrs:
    price: float


@pytest.mark.parametrize(
    ("annotation", "kinds"),
    [
        (Tagged, ("trade",)),
        (Untagged, ("quote",)),
        (Renamed, ("renamed",)),
        (OfSeveral, ("bid", "ask")),
        (OfSeveral[int], ("bid", "ask")),
        (Model, ("model",)),
        (AliasedModel, ("aliased",)),
        (ModelDataclass, ("model dataclass",)),
        (Data, ("data",)),
        (Attrs, ("trade", "quote")),
        (Typed, ("typed",)),
        (Tagged | Model | Typed, ("trade", "model", "typed")),
        (Tagged | Attrs, ("trade", "quote")),
        (Tagged | None, ("trade",)),
        (Annotated[Data, "more"], ("data",)),
    ],
    ids=str,
)
def test_a_type_says_for_which_messages_it_is(annotation, kinds):
    assert kinds == kinds_of(annotation, key="type")


@pytest.mark.parametrize(
    "annotation",
    [
        TaggedByNumber,
        InAnArray,
        InAnArrayUntagged,
        Vague,
        Numbered,
        Half,
        Nothing,
        NothingAttrs,
        Tagged | Nothing,
        Tagged | dict,
        None,
        Any,
        str,
        dict,
        dict[str, Any],
        list[Tagged],
    ],
    ids=str,
)
def test_other_types_do_not_say(annotation):
    assert None is kinds_of(annotation, key="type")


def test_only_the_field_that_names_the_type_counts():
    assert None is kinds_of(Data, key="op")
    assert None is kinds_of(Model, key="op")
    assert None is kinds_of(AliasedModel, key="kind")
    assert None is kinds_of(AliasedModel, key="op")
    assert None is kinds_of(Untagged, key="op")
    assert ("not this",) == kinds_of(AliasedModel, key="other")
    assert ("trade",) == kinds_of(TaggedElsewhere, key="op")
    assert ("never",) == kinds_of(TaggedElsewhere, key="type")


def test_annotations_that_name_what_is_not_there_are_said():
    @dataclass
    class Broken:
        type: Nowhere  # noqa: F821

    class BrokenStruct(msgspec.Struct):
        type: Nowhere  # noqa: F821

    class BrokenModel(pydantic.BaseModel):
        type: Nowhere  # noqa: F821

    for broken in (Broken, BrokenStruct):
        with pytest.raises(TypeError, match=r"annotations in .*Broken.* 'Nowhere' is not defined"):
            kinds_of(broken, key="type")
    assert None is kinds_of(BrokenModel, key="type")
