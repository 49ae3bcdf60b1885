"""Pieces of messages become messages, within a limit."""

from __future__ import annotations

import math

import pytest

from wsclient.protocol import encoded_size
from wsclient.protocol._assembler import Assembler, MessageTooBig


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("", 0),
        (b"", 0),
        ("abc", 3),
        (b"abc", 3),
        (b"\xff\xff", 2),
        ("é", 2),
        ("€", 3),
        ("🙂", 4),
        ("aé€🙂", 10),
    ],
)
def test_the_size_of_text_is_that_of_its_encoding(message, size):
    assert size == encoded_size(message)


@pytest.mark.parametrize(
    ("empty", "pieces", "message"),
    [
        ("", ["whole"], "whole"),
        (b"", [b"whole"], b"whole"),
        ("", [""], ""),
        (b"", [b""], b""),
        ("", ["a", "b", "c"], "abc"),
        (b"", [b"a", b"b", b"c"], b"abc"),
        ("", ["", "a", "", "b", ""], "ab"),
        (b"", [b"", b""], b""),
    ],
)
def test_pieces_become_one_message_at_the_last(empty, pieces, message):
    assembler = Assembler(empty, math.inf)
    results = [
        assembler.add(piece, finished=number == len(pieces))
        for number, piece in enumerate(pieces, start=1)
    ]

    assert [*[None] * (len(pieces) - 1), message] == results


def test_a_message_starts_afresh_after_the_one_before():
    assembler = Assembler("", 4)
    results = [
        assembler.add("ab", finished=False),
        assembler.add("cd", finished=True),
        assembler.add("efgh", finished=True),
        assembler.add("i", finished=False),
        assembler.add("", finished=True),
    ]

    assert [None, "abcd", "efgh", None, "i"] == results


@pytest.mark.parametrize(
    ("empty", "pieces"),
    [
        ("", ["x" * 10]),
        (b"", [b"x" * 10]),
        ("", ["é" * 5]),
        ("", ["x" * 4, "é" * 3]),
        (b"", [b"x"] * 10),
    ],
)
def test_a_message_as_large_as_the_limit_passes_and_one_byte_more_does_not(empty, pieces):
    def assemble(limit):
        assembler = Assembler(empty, limit)
        for piece in pieces[:-1]:
            assembler.add(piece, finished=False)
        return assembler.add(pieces[-1], finished=True)

    assert empty.join(pieces) == assemble(10)
    with pytest.raises(MessageTooBig):
        assemble(9)


def test_a_message_is_refused_before_its_end():
    assembler = Assembler(b"", 10)
    assembler.add(b"x" * 10, finished=False)
    with pytest.raises(MessageTooBig):
        assembler.add(b"x", finished=False)


def test_a_limit_of_nothing_lets_empty_messages_pass():
    assert Assembler("", 0).add("", finished=True) == ""
    with pytest.raises(MessageTooBig):
        Assembler("", 0).add("x", finished=True)


def test_empty_pieces_without_an_end_are_not_kept():
    assembler = Assembler("", 10)
    for _ in range(1000):
        assembler.add("", finished=False)

    assert [] == assembler._pieces
    assert "end" == assembler.add("end", finished=True)
