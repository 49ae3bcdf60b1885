"""JSON on the wire: what other implementations refuse is refused here, with a clear text."""

from __future__ import annotations

import json
import math

import pytest

from wsclient.app import JsonCodec
from wsclient.errors import CodecError

CODEC = JsonCodec()


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
def test_values_become_short_json(value, message):
    assert message == CODEC.encode(value)
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
def test_what_is_not_json_is_not_encoded(value, text):
    with pytest.raises(CodecError, match=text) as caught:
        CODEC.encode(value)

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
def test_messages_become_values(message, value):
    assert value == CODEC.decode(message)


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
def test_what_is_not_json_is_not_decoded(message, text):
    with pytest.raises(CodecError, match=text) as caught:
        CODEC.decode(message)

    assert None is not caught.value.__cause__


@pytest.mark.parametrize("message", ['secret"', b'secret"', "[secret]", '{"a": secret}'])
def test_the_text_of_an_error_does_not_quote_the_message(message):
    with pytest.raises(CodecError) as caught:
        CODEC.decode(message)

    assert "secret" not in str(caught.value)


def test_whatever_is_encoded_is_decoded_to_the_same():
    value = {"type": "x", "list": [1, 2.5, None, True, "größe", {"": []}]}

    assert value == CODEC.decode(CODEC.encode(value))
    assert value == CODEC.decode(CODEC.encode(value).encode())
