"""What is on the wire.

JSON that other implementations refuse is refused here, with a clear text, and all is the same with
msgspec and without.
"""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import dataclass
from typing import Any

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsclient.app import JsonCodec, MsgpackCodec
from wsclient.errors import CodecError

CODEC = JsonCodec()


@pytest.fixture(params=["with msgspec", "without msgspec"])
def codec(request, without):
    if request.param == "without msgspec":
        without("msgspec")
    return JsonCodec()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (1.5, "1.5"),
        ("größe \N{PILE OF POO}", '"größe \N{PILE OF POO}"'),
        ([], "[]"),
        ({}, "{}"),
        ({"type": "trade", "price": [1, 2.5]}, '{"type":"trade","price":[1,2.5]}'),
        ((1, 2), "[1,2]"),
        ({1: 2}, '{"1":2}'),
        ("\x00\n", '"\\u0000\\n"'),
    ],
)
def test_values_become_short_json(codec, value, message):
    assert message == codec.encode(value)
    assert json.loads(message) == json.loads(json.dumps(value))


def cycle():
    value = []
    value.append(value)
    return value


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "cannot be encoded as JSON: Out of range float values"),
        (math.inf, "cannot be encoded as JSON: Out of range float values"),
        ({"x": -math.inf}, "cannot be encoded as JSON: Out of range float values"),
        (b"bytes", "cannot be encoded as JSON: Object of type bytes"),
        (object(), "cannot be encoded as JSON: Object of type object"),
        ({1, 2}, "cannot be encoded as JSON: Object of type set"),
        ({(1, 2): 3}, "cannot be encoded as JSON: keys must be"),
        ("\ud800", "cannot be encoded as JSON: not valid UTF-8"),
        ({"\udfff": 1}, "cannot be encoded as JSON: not valid UTF-8"),
        (cycle(), "cannot be encoded as JSON: Circular reference"),
        (deep(), "cannot be encoded as JSON: nested too deeply"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "",
)
def test_what_is_not_json_is_not_encoded(codec, value, text):
    with pytest.raises(CodecError, match=text) as caught:
        codec.encode(value)

    assert None is not caught.value.__cause__


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("null", None),
        (' {"type": "trade"} ', {"type": "trade"}),
        (b'{"type": "gr\xc3\xb6\xc3\x9fe"}', {"type": "größe"}),
        ("1e3", 1000.0),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_messages_become_values(codec, message, value):
    assert value == codec.decode(message)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("", "not JSON: Expecting value: line 1 column 1"),
        (b"", "not JSON: "),
        ("{", "not JSON: Expecting property name"),
        ("hello", "not JSON: Expecting value"),
        ('{"a": 1} trailing', "not JSON: Extra data: line 1 column 10"),
        ("NaN", "not JSON: NaN is not JSON"),
        ('{"x": Infinity}', "not JSON: Infinity is not JSON"),
        ("[-Infinity]", "not JSON: -Infinity is not JSON"),
        (b"\xff\xfe\xfd", "not JSON: not valid UTF-8"),
        (b'"\xc3\x28"', "not JSON: not valid UTF-8"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        ("1" * 10_000, "not JSON: Exceeds the limit"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_not_json_is_not_decoded(codec, message, text):
    with pytest.raises(CodecError, match=text) as caught:
        codec.decode(message)

    assert None is not caught.value.__cause__


@pytest.mark.parametrize("message", ['secret"', b'secret"', "[secret]", '{"a": secret}'])
def test_the_text_of_an_error_does_not_quote_the_message(codec, message):
    with pytest.raises(CodecError) as caught:
        codec.decode(message)

    assert "secret" not in str(caught.value)


def test_whatever_is_encoded_is_decoded_to_the_same(codec):
    value = {"type": "x", "list": [1, 2.5, None, True, "größe", {"": []}]}

    assert value == codec.decode(codec.encode(value))
    assert value == codec.decode(codec.encode(value).encode())


# --- the same with msgspec and without ------------------------------------------------------------

DOUBTFUL = st.sampled_from(
    [
        "-0",
        "-0.0",
        "1e400",
        "1e-400",
        "0.1",
        "1.7976931348623157e308",
        "5e-324",
        "123456789012345678901234567890",
        "18446744073709551616",
        "-9223372036854775809",
        "1" * 4301,
        '"\\ud83d"',
        '"\\ud83d\\ude00"',
        '"\\ude00\\ud83d"',
        '"\\u0000\\/"',
        '"\x00"',
        "NaN",
        "-Infinity",
        "01",
        "1.",
        "+1",
        " \t\r\n1",
        "\x0b1",
        "\ufeff1",
        '{"a": 1, "a": 2}',
        "[1,]",
        "trues",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
TEXTS = (
    JSON.map(json.dumps)
    | JSON.map(lambda value: json.dumps(value, ensure_ascii=False))
    | DOUBTFUL
    | st.lists(DOUBTFUL).map(lambda parts: f"[{','.join(parts)}]")
    | st.text()
)


def outcome(codec: JsonCodec, message: str | bytes) -> tuple[str, str]:
    try:
        # What it looks like: NaN is not itself, 1 is True and 1.0.
        return "value", repr(codec.decode(message))
    except CodecError as error:
        return "error", str(error)


@given(TEXTS | st.binary())
def test_messages_mean_the_same_with_msgspec_and_without(message):
    plain = JsonCodec()
    plain._read = None
    messages = [message]
    if isinstance(message, str) and message.isascii():
        messages.append(message.encode())

    for each in messages:
        assert outcome(plain, each) == outcome(CODEC, each)


def test_msgspec_reads_where_it_is_installed(without):
    codec = JsonCodec()
    assert None is not codec._read
    codec._read = str.upper
    assert "X" == codec.decode("x")
    without("msgspec")
    assert None is JsonCodec()._read


# --- values of types ------------------------------------------------------------------------------


class Struct(msgspec.Struct, tag="struct"):
    when: datetime.date
    price: float = 0.5


@dataclass
class Data:
    value: Any = None


@attrs.frozen
class Attrs:
    value: Any = None


class Model(pydantic.BaseModel):
    when: datetime.date = pydantic.Field(alias="the day")


DAY = datetime.date(2024, 1, 2)
TYPED = [
    (Struct(DAY), {"type": "struct", "when": "2024-01-02", "price": 0.5}),
    (Data([Attrs(1)]), {"value": [{"value": 1}]}),
    (Attrs({"x": Data()}), {"value": {"x": {"value": None}}}),
    ({"x": [Struct(DAY)]}, {"x": [{"type": "struct", "when": "2024-01-02", "price": 0.5}]}),
    (Model(**{"the day": DAY}), {"the day": "2024-01-02"}),
    (Data(Model(**{"the day": DAY})), {"value": {"the day": "2024-01-02"}}),
]


@pytest.mark.parametrize(("value", "builtin"), TYPED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("codec", [CODEC, MsgpackCodec()], ids=lambda codec: type(codec).__name__)
def test_values_of_types_are_encoded(codec, value, builtin):
    assert builtin == codec.decode(codec.encode(value))


@pytest.mark.parametrize("value", [Struct(DAY), Data([1]), Attrs({"x": 1.5})], ids=repr)
@pytest.mark.parametrize("codec", [CODEC, MsgpackCodec()], ids=lambda codec: type(codec).__name__)
def test_what_is_encoded_is_decoded_into_the_same_type(codec, value):
    assert value == codec.decoder(type(value))(codec.encode(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Data(math.nan), "Out of range float values"),
        (Data("\ud800"), "not valid UTF-8"),
        (Data(object()), "an object of type object has no form in a message"),
        (Data({1, Data}), "has no form in a message"),
        (datetime.date(2024, 1, 2), "Object of type date is not JSON serializable"),
        (Data, "Object of type type is not JSON serializable"),
    ],
    ids=repr,
)
def test_values_of_types_are_as_strictly_looked_at(value, text):
    with pytest.raises(CodecError, match=f"cannot be encoded as JSON: .*{text}"):
        CODEC.encode(value)


def test_without_msgspec_a_value_of_a_type_says_what_to_install(codec, without):
    without("msgspec")

    with pytest.raises(CodecError, match=r"Data needs msgspec: pip install .wsclient-trio\[msgsp"):
        codec.encode(Data())


def test_without_msgspec_models_are_encoded_all_the_same(without):
    without("msgspec")

    assert '{"the day":"2024-01-02"}' == JsonCodec().encode(Model(**{"the day": DAY}))


# --- MessagePack ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"type": "trade", "price": [1, 2.5]},
        b"bytes",
        {1: "größe"},
        math.inf,
        datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    ],
    ids=repr,
)
def test_messagepack_is_binary_and_knows_more(value):
    message = MsgpackCodec().encode(value)

    assert bytes is type(message)
    assert value == MsgpackCodec().decode(message)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 << 64, "can't serialize ints"),
        ("\ud800", "not valid UTF-8"),
        (object(), "an object of type object has no form in a message"),
        (cycle(), "nested too deeply"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_in_messagepack_is_not_encoded(value, text):
    with pytest.raises(CodecError, match=f"cannot be encoded as MessagePack: {text}"):
        MsgpackCodec().encode(value)


@pytest.mark.parametrize("decode", [MsgpackCodec().decode, MsgpackCodec().decoder(Data)])
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("text", "not MessagePack: a text message"),
        (b"", "not MessagePack: Input data was truncated"),
        (b"\xc1", "not MessagePack: MessagePack data is malformed"),
        (b"\x81\xa5value\xa1\xff", "(Invalid|not valid) UTF-8"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_not_messagepack_is_not_decoded(decode, message, text):
    with pytest.raises(CodecError, match=text):
        decode(message)


def test_messagepack_that_is_nested_too_deeply_is_not_decoded():
    with pytest.raises(CodecError, match="nested too deeply"):
        MsgpackCodec().decode(b"\x91" * 100_000)


def test_messagepack_leaves_models_to_what_it_decodes():
    assert None is MsgpackCodec().decoder(Model)


def test_without_msgspec_messagepack_says_what_to_install(without):
    without("msgspec")

    with pytest.raises(TypeError, match=r"MsgpackCodec needs msgspec: pip install .wsclient-trio"):
        MsgpackCodec()
