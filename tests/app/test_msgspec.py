"""Types through msgspec: what is decoded, what is refused, and in which words."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from wsclient.app import JsonCodec, _msgspec
from wsclient.errors import CodecError

SECRET = "canary-5e1f"


class Side(enum.Enum):
    BUY = "buy"


class Trade(msgspec.Struct, tag="trade", forbid_unknown_fields=True):
    price: float
    side: Side = Side.BUY
    tags: dict[str, int] = {}
    parts: list[Trade] = []
    small: Annotated[int, msgspec.Meta(lt=10)] = 1
    name: Annotated[str, msgspec.Meta(pattern="^a")] = "a"
    when: datetime.datetime | None = None
    raw: bytes = b""


class Quote(msgspec.Struct, tag="quote"):
    bid: Literal["low", "high"]


@dataclass
class Checked:
    price: int

    def __post_init__(self):
        if self.price > 9:
            raise ValueError(f"{self.price} {SECRET}")


@attrs.frozen
class Validated:
    price: int = attrs.field(validator=attrs.validators.lt(10))
    more: str = ""


class Typed(TypedDict):
    price: NotRequired[int]


class Model(pydantic.BaseModel):
    price: int


@dataclass
class Holder:
    model: Model


@dataclass
class Tree:
    children: list[Tree]


READ = JsonCodec().decode


def JSON(annotation):  # noqa: N802
    return _msgspec.json_decoder(annotation, READ)


MSGPACK = _msgspec.msgpack_decoder
WAYS = {
    "json": lambda annotation, value: JSON(annotation)(msgspec.json.encode(value)),
    "msgpack": lambda annotation, value: MSGPACK(annotation)(msgspec.msgpack.encode(value)),
    "convert": lambda annotation, value: _msgspec.converter(annotation)(value),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (Trade, {"type": "trade", "price": 1}, Trade(1.0)),
        (Trade | Quote, {"type": "quote", "bid": "low"}, Quote("low")),
        (Checked, {"price": 1, "unknown": 2}, Checked(1)),
        (Validated, {"price": 1}, Validated(1)),
        (Typed, {"price": 1}, {"price": 1}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (list[Checked], [{"price": 1}], [Checked(1)]),
        (Checked | None, None, None),
        (Tree, {"children": [{"children": []}]}, Tree([Tree([])])),
        (int, 3, 3),
    ],
    ids=str,
)
def test_a_message_becomes_a_value_of_the_type(way, annotation, value, expected):
    assert expected == way(annotation, value)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("annotation", "value", "text", "path"),
    [
        (Trade, {"type": "trade", "price": SECRET}, "Expected `float`, got `str`", "$.price"),
        (Trade, {"type": "trade"}, "Object missing required field `price`", "$"),
        (Trade, {"type": SECRET}, "Invalid value", "$.type"),
        (Trade | Quote, {"type": SECRET}, "Invalid value", "$.type"),
        (Trade, {"price": 1.0, "side": SECRET}, "Invalid enum value", "$.side"),
        (Trade, {"price": 1.0, SECRET: 1}, "Object contains unknown field", "$"),
        (Trade, {"price": 1.0, "tags": {SECRET: ""}}, "Expected `int`, got `str`", "$.tags[...]"),
        (
            Trade,
            {"price": 1.0, "parts": [{"price": True}]},
            "Expected `float`, got `bool`",
            "$.parts[0].price",
        ),
        (Trade, {"price": 1.0, "small": 11}, "Expected `int` <= 9", "$.small"),
        (Trade, {"price": 1.0, "name": SECRET}, "Expected `str` matching regex '^a'", "$.name"),
        (Trade, {"price": 1.0, "when": SECRET}, "Invalid RFC3339 encoded datetime", "$.when"),
        (Quote, {"type": "quote", "bid": f"a - at `$.{SECRET}`"}, "Invalid enum value", "$.bid"),
        (Checked, {"price": 10}, "refused by the type's own check: ValueError", "$"),
        (list[Checked], [{"price": 10}], "refused by the type's own check: ValueError", "$[0]"),
        (list[Validated], [{"price": 10}], "refused by the type's own check: ValueError", "$[0]"),
        (Typed, {"price": SECRET}, "Expected `int`, got `str`", "$.price"),
        (dict[int, int], {SECRET: 1}, "Expected `int`, got `str`", "$"),
        (Typed, [SECRET], "Expected `object`, got `array`", "$"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_said_with_its_place_and_without_a_word_of_it(
    way, annotation, value, text, path
):
    with pytest.raises(CodecError) as caught:
        way(annotation, value)

    assert (text, path) == (caught.value.args[0], caught.value.path)
    assert SECRET not in repr(caught.value)
    assert None is caught.value.__cause__
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ('{"price": 1', "not JSON: Expecting ',' delimiter"),
        (f'{{"price": {SECRET}', "not JSON: Expecting value"),
        ('{"price": NaN}', "not JSON: NaN is not JSON"),
        (b"\xff", "not JSON: not valid UTF-8"),
        (b'{"more": "\xff"}', "not JSON: not valid UTF-8"),
        ('{"unknown": ' + "[" * 100_000, "not JSON: "),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_not_json_is_said(message, text):
    with pytest.raises(CodecError, match=text) as caught:
        JSON(Validated)(message)

    assert None is caught.value.path
    assert SECRET not in str(caught.value)


def test_what_is_nested_too_deeply_is_said():
    with pytest.raises(CodecError, match="nested too deeply"):
        JSON(Tree)('{"children": [' * 100_000)
    with pytest.raises(CodecError, match="nested too deeply"):
        MSGPACK(Tree)(b"\x81\xa8children\x91" * 100_000)


@pytest.mark.parametrize("name", ["more", "unknown"])
def test_half_of_a_surrogate_pair_is_the_text_that_it_is_without_a_type(name):
    message = f'{{"price": 1, "{name}": "\\ud83d"}}'

    assert READ(message).get("more", "") == JSON(Validated)(message).more


def test_text_that_cannot_be_looked_at_is_refused():
    with pytest.raises(CodecError, match="not valid UTF-8"):
        JSON(Trade)('{"type": "trade", "price": 1, "when": "\\ud83d"}')


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("text", "not MessagePack: a text message"),
        (b"", "not MessagePack: Input data was truncated"),
        (b"\xc1", "not MessagePack: MessagePack data is malformed: invalid opcode"),
        (b"\x81\xa4more\xa1\xff", "(Invalid|not valid) UTF-8"),
    ],
)
def test_what_is_not_messagepack_is_said(message, text):
    with pytest.raises(CodecError, match=text):
        MSGPACK(Validated)(message)


def test_a_bug_in_a_types_own_check_stays_what_it_is():
    @dataclass
    class Buggy:
        price: int

        def __post_init__(self):
            raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        JSON(Buggy)('{"price": 1}')


@dataclass
class Elsewhere:
    price: Nowhere  # noqa: F821


@pytest.mark.parametrize("maker", [JSON, MSGPACK, _msgspec.converter])
@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (complex, "complex cannot be decoded into: msgspec does not know complex"),
        (dict[str, Holder], r"dict\[str, Holder\] cannot .*: msgspec does not know Model"),
        (Checked | Typed, r"Checked \| Typed cannot .*: Type unions may not contain more than one"),
        (Literal[1.5], "Literal.* cannot be decoded into: Literal may only contain"),
        (Elsewhere, "the annotations in Elsewhere cannot be resolved: name 'Nowhere' is not"),
        (Annotated[int, msgspec.Meta(pattern="a")], "int cannot be decoded into: Can only set"),
    ],
    ids=str,
)
def test_a_type_that_cannot_be_decoded_into_is_refused_at_once(maker, annotation, text):
    with pytest.raises(TypeError, match=text):
        maker(annotation)


@pytest.mark.parametrize(
    ("value", "builtin"),
    [
        (Trade(1.0, raw=b"x"), {"type": "trade", "price": 1.0, "side": "buy", "raw": "eA=="}),
        (Checked(1), {"price": 1}),
        (Validated(1), {"price": 1, "more": ""}),
        (Holder(Model(price=1)), {"model": {"price": 1}}),
        ({datetime.date(2024, 1, 1): 1}, {"2024-01-01": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_becomes_what_json_knows(value, builtin):
    assert builtin.items() <= _msgspec.to_builtins(value).items()


def test_a_value_of_which_nobody_knows_the_form_is_refused():
    @dataclass
    class Strange:
        value: Any

    for value in (object(), Strange(object())):
        with pytest.raises(TypeError, match="an object of type object has no form in a message"):
            _msgspec.to_builtins(value)


def test_a_type_is_read_without_the_rest():
    kind = JSON(_msgspec.kind_struct("the type"))

    assert "trade" == kind('{"the type": "trade", "price": 1}').kind
    assert None is kind("{}").kind


def test_fields_are_found_by_their_names_in_a_message():
    class Renamed(msgspec.Struct, rename="camel"):
        the_type: int

    assert int is _msgspec.field_type(Renamed, "theType")
    assert None is _msgspec.field_type(Renamed, "the_type")
