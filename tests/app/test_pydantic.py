"""Types through pydantic: what is decoded, what is refused, and in which words."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

import pydantic
import pydantic_core
import pytest

from wsclient.app import JsonCodec, _pydantic
from wsclient.errors import CodecError

SECRET = "canary-5e1f"
READ = JsonCodec().decode


class Trade(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    type: Literal["trade"]
    price: float = pydantic.Field(gt=0)
    tags: dict[str, int] = {}
    parts: list[Trade] = []
    name: str = ""

    @pydantic.field_validator("name")
    @classmethod
    def check_name(cls, name):
        if name == "value":
            raise ValueError(SECRET)
        if name == "custom":
            raise pydantic_core.PydanticCustomError("my_own", SECRET)
        assert name != "assertion", SECRET
        if name == "bug":
            raise KeyError("bug")
        return name


class Strict(pydantic.BaseModel, strict=True):
    when: datetime.date
    amount: int = pydantic.Field(alias="Amount")


class Quote(pydantic.BaseModel):
    type: Literal["quote"]


class Limit(pydantic.BaseModel):
    low: int


class Account(pydantic.BaseModel):
    limits: dict[str, Limit] = {}
    ids: dict[int, int] = {}
    size: int | list[int] = 0
    sizes: list[int] | str = ""
    inner: pydantic.Json = None


INTEGER = "Input should be a valid integer, unable to parse string as an integer"
MISFIT = "Input should be a valid integer"


Either = Annotated[Trade | Quote, pydantic.Field(discriminator="type")]


@pydantic.dataclasses.dataclass
class Data:
    price: int


class Nothing:
    """Of which pydantic knows nothing."""


class Broken(pydantic.BaseModel):
    price: Nowhere  # noqa: F821


def json(annotation):
    return _pydantic.json_decoder(annotation, READ)


def convert(annotation):
    """From JSON, too, for tests that both ways have in common."""
    native = _pydantic.converter(annotation)
    return lambda message: native(READ(message))


@pytest.mark.parametrize("way", [json, convert])
@pytest.mark.parametrize(
    ("annotation", "message", "expected"),
    [
        (Trade, '{"type": "trade", "price": 1}', Trade(type="trade", price=1)),
        (Data, b'{"price": 1}', Data(1)),
        (list[Data], '[{"price": 1}]', [Data(1)]),
        (Either, '{"type": "quote"}', Quote(type="quote")),
        (
            Trade,
            '{"type": "trade", "price": 1, "name": "NaN"}',
            Trade(type="trade", price=1, name="NaN"),
        ),
    ],
    ids=str,
)
def test_a_message_becomes_a_value_of_the_type(way, annotation, message, expected):
    assert expected == way(annotation)(message)


def test_a_strict_model_takes_from_json_what_json_has_no_form_for():
    strict = json(Strict)('{"when": "2024-01-02", "Amount": 1}')

    assert (datetime.date(2024, 1, 2), 1) == (strict.when, strict.amount)


@pytest.mark.parametrize("way", [json, convert])
@pytest.mark.parametrize(
    ("annotation", "message", "text", "path"),
    [
        (
            Trade,
            '{"type": "trade", "price": "SECRET"}',
            "Input should be a valid number, unable to parse string as a number",
            "$.price",
        ),
        (Trade, '{"type": "trade"}', "Field required", "$.price"),
        (Trade, '{"type": "SECRET", "price": 1}', "Input should be 'trade'", "$.type"),
        (Trade, '{"type": "trade", "price": -1}', "Input should be greater than 0", "$.price"),
        (Trade, '{"price": -1, "tags": 1}', "Field required, and 2 more", "$.type"),
        (
            Trade,
            '{"type": "trade", "price": 1, "parts": [{"type": "trade", "price": []}]}',
            "Input should be a valid number",
            "$.parts[0].price",
        ),
        (Trade, '{"type": "trade", "price": 1, "name": "value"}', "value error", "$.name"),
        (Trade, '{"type": "trade", "price": 1, "name": "assertion"}', "assertion error", "$.name"),
        (Trade, '{"type": "trade", "price": 1, "name": "custom"}', "my own", "$.name"),
        (Either, '{"type": "SECRET"}', "union tag invalid", "$"),
        (
            Trade,
            '{"type": "trade", "price": 1, "SECRET": 1}',
            "Extra inputs are not permitted",
            "$[...]",
        ),
        (Account, '{"limits": {"SECRET": {"low": "x"}}}', INTEGER, "$.limits[...].low"),
        (
            Account,
            '{"limits": {"SECRET\\n\\u001b[31m": {"low": "x"}}}',
            INTEGER,
            "$.limits[...].low",
        ),
        (Account, '{"limits": {"[int]": {"low": "x"}}}', INTEGER, "$.limits[...].low"),
        (Account, '{"ids": {"SECRET": 1}}', INTEGER, "$.ids[...][key]"),
        # Which member of the union it was not.
        (Account, '{"size": ["x"]}', f"{MISFIT}, and 1 more", "$.size.int"),
        (
            Account,
            '{"sizes": ["x"]}',
            f"{INTEGER}, and 1 more",
            "$.sizes.list[int][0]",
        ),
        (Account, '{"inner": "{SECRET"}', "json invalid", "$.inner"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_said_with_its_place_and_without_a_word_of_it(
    way, annotation, message, text, path
):
    decode = way(annotation)
    with pytest.raises(CodecError) as caught:
        decode(message.replace("SECRET", SECRET))

    assert (text, path) == (caught.value.args[0], caught.value.path)
    assert SECRET not in repr(caught.value)
    assert None is caught.value.__cause__
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ('{"price": 1', "not JSON: Expecting ',' delimiter"),
        ('{"price": NaN}', "not JSON: NaN is not JSON"),
        (b'{"price": -Infinity}', "not JSON: -Infinity is not JSON"),
        (b'{"price": "\xff"}', "not JSON: not valid UTF-8"),
        ('{"price": "\\ud83d"}', "not JSON"),
    ],
)
def test_what_is_not_json_is_said(message, text):
    with pytest.raises(CodecError, match=text) as caught:
        json(Trade)(message)

    assert None is caught.value.path


def test_a_bug_in_a_validator_stays_what_it_is():
    with pytest.raises(KeyError, match="bug"):
        json(Trade)('{"type": "trade", "price": 1, "name": "bug"}')


@pytest.mark.parametrize("maker", [json, _pydantic.converter])
@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Broken, "Broken cannot be decoded into: .*Nowhere"),
        (list[Broken], r"list\[Broken\] cannot be decoded into: .*Nowhere"),
        (Trade | complex | Nothing, "Trade .* cannot be decoded into: Unable to generate"),
    ],
    ids=str,
)
def test_a_type_that_cannot_be_decoded_into_is_refused_at_once(maker, annotation, text):
    with pytest.raises(TypeError, match=text):
        maker(annotation)


def test_a_value_becomes_what_json_knows_and_the_model_reads():
    strict = Strict(when=datetime.date(2024, 1, 2), Amount=1)

    assert {"when": "2024-01-02", "Amount": 1} == _pydantic.to_builtins(strict)
    assert {"price": 1} == _pydantic.to_builtins(Data(1))


def test_fields_are_found_by_their_names_in_a_message():
    assert int is _pydantic.field_type(Strict, "Amount")
    assert None is _pydantic.field_type(Strict, "amount")
    assert Literal["quote"] == _pydantic.field_type(Quote, "type")
