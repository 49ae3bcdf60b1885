"""The same message over two connections is seen once."""

from __future__ import annotations

import pytest

from wsclient.session import _dedupe
from wsclient.session._dedupe import Dedupe


@pytest.fixture
def failures():
    return []


@pytest.fixture
def dedupe(failures):
    return Dedupe(lambda message: message or None, failures.append)


def test_a_message_with_a_key_that_came_before_is_repeated(dedupe):
    assert [False, False, True, True] == [dedupe.is_repeated(each) for each in "abab"]
    assert 2 == dedupe.repeated


def test_a_message_without_a_key_never_is(dedupe):
    assert [False, False] == [dedupe.is_repeated(""), dedupe.is_repeated("")]


def test_only_the_last_keys_are_remembered(dedupe, monkeypatch):
    monkeypatch.setattr(_dedupe, "WINDOW", 2)

    assert [False] * 4 == [dedupe.is_repeated(each) for each in "abca"]


def test_what_the_function_raises_is_told_and_drops_nothing(failures):
    def key_of(message):
        return [message] if message == "unhashable" else 1 / 0

    dedupe = Dedupe(key_of, failures.append)

    assert [False, False] == [dedupe.is_repeated("unhashable"), dedupe.is_repeated("other")]
    assert [TypeError, ZeroDivisionError] == [type(error) for error in failures]
