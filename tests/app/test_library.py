"""Which library is asked about a type; and what is said where it is not there."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Generic, NewType, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from wsclient.app import _library

T = TypeVar("T")


class Model(pydantic.BaseModel):
    pass


class Of(pydantic.BaseModel, Generic[T]):
    value: T


@pydantic.dataclasses.dataclass
class ModelData:
    pass


@dataclasses.dataclass
class Data:
    pass


@attrs.frozen
class Attrs:
    pass


class Struct(msgspec.Struct):
    pass


@pytest.mark.parametrize(
    "annotation",
    [
        Model,
        Of[int],
        ModelData,
        Model | Data,
        list[Model],
        dict[str, list[Model | None]],
        NewType("Name", Model),
        Annotated[int, pydantic.Field(gt=1)],
        Annotated[Data | Struct, pydantic.Field(discriminator="type")],
    ],
    ids=str,
)
def test_pydantic_is_asked_about_its_own(annotation):
    from wsclient.app import _pydantic

    assert _pydantic is _library.library_for(annotation)


@pytest.mark.parametrize(
    "annotation",
    [Data, Attrs, Struct, dict[str, int], Annotated[int, msgspec.Meta(gt=1)], int, Any],
    ids=str,
)
def test_msgspec_is_asked_about_all_others(annotation):
    from wsclient.app import _msgspec

    assert _msgspec is _library.library_for(annotation)


def test_without_msgspec_it_is_said_what_to_install(without):
    without("msgspec")

    with pytest.raises(TypeError) as caught:
        _library.library_for(list[Data])
    assert "to decode into list[Data] needs msgspec: pip install 'wsclient-trio[msgspec]'" == str(
        caught.value
    )


def test_without_msgspec_models_are_pydantics_as_ever(without):
    without("msgspec")

    assert "_pydantic" in _library.library_for(Model).__name__


@pytest.mark.parametrize(
    ("value", "is_typed"),
    [
        (Model(), True),
        (ModelData(), True),
        (Data(), True),
        (Attrs(), True),
        (Struct(), True),
        (Data, False),
        ({}, False),
        (b"", False),
        (object(), False),
    ],
    ids=repr,
)
def test_values_of_types_are_told_from_others(value, is_typed):
    assert is_typed is _library.is_typed(value)
