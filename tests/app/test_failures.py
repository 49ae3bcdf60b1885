"""What a dead letter has to be."""

from __future__ import annotations

import functools

import pytest

import wsclient
from wsclient.app._failures import FailedMessage, dead_letter


@pytest.mark.parametrize(
    "function",
    [lambda failed: None, [].append, print, functools.partial(print, "failed"), str],
    ids=["lambda", "builtin", "print", "partial", "class"],
)
def test_whatever_can_be_called_with_one_argument_is_a_dead_letter(function):
    assert function is dead_letter(function).handler


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (None, "not NoneType"),
        ("raise", "not str"),
        (wsclient.HandlerErrors, "not the whole enumeration"),
        (lambda: None, "too many positional arguments"),
        (lambda one, two: None, "missing a required argument: 'two'"),
    ],
)
def test_what_cannot_is_refused_with_what_would_be_right(function, text):
    with pytest.raises(TypeError, match=f"handler_errors must be .*, or a function of.*{text}"):
        dead_letter(function)


def test_a_class_that_does_not_tell_how_it_is_called_is_taken_at_its_word():
    class Silent:
        __signature__ = None

        def __call__(self, failed):
            pass

    silent = Silent()

    assert silent is dead_letter(silent).handler


def test_a_failed_message_knows_no_place_unless_it_is_told():
    failed = FailedMessage(message="x", handler=None, subject="s", error=OSError())

    assert None is failed.path
