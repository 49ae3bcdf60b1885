"""What the protocols share: reading what a server sends, whatever it is."""

from __future__ import annotations

import pytest

from wsclient.app import JsonCodec
from wsclient.app.protocols._objects import name_number, read_number, read_object

DECODE = JsonCodec().decode


@pytest.mark.parametrize("number", [1, 7, 10, 2**32, 10**18])
def test_a_number_is_read_as_it_was_named(number):
    assert number == read_number(name_number("s", number), "s")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "s",
        "7",
        "u7",
        "S7",
        "ss7",
        "s0",
        "s07",
        "s-7",
        "s+7",
        "s7.0",
        "s 7",
        "s7 ",
        "s7\n",
        "s1_000",
        "s\N{ARABIC-INDIC DIGIT SEVEN}",
        "s" + "9" * 20,
        "s" + "9" * 10_000,
        7,
        None,
        True,
        ["s7"],
        {"s7": 1},
    ],
    ids=lambda name: repr(name)[:20].encode("unicode_escape").decode(),
)
def test_another_name_has_no_number(name):
    assert None is read_number(name, "s")


def test_an_object_is_read():
    assert {"a": [1]} == read_object(DECODE, '{"a": [1]}')
    assert {"a": [1]} == read_object(DECODE, b'{"a": [1]}')


def test_anything_is_read_as_an_object(hostile):
    assert isinstance(read_object(DECODE, hostile), dict)


@pytest.mark.parametrize("message", ["7", "[1]", '"a"', "null", "{", ""])
def test_what_is_no_object_is_an_empty_one(message):
    assert {} == read_object(DECODE, message)
