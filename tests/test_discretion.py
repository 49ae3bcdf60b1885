"""What our frames held is forgotten before an error leaves us; what is the user's stays."""

from __future__ import annotations

import contextlib
import inspect
import json
import traceback

import attrs
import pytest
import trio

import wsclient
from wsclient._discretion import forget_all_locals, forget_locals, forgetful, made_forgetful

SECRET = "s3cret"


def ours(source, **names):
    """Functions that count as a module of ours."""
    module = {"__name__": "wsclient.somewhere", **names}
    exec(compile(source, "<somewhere>", "exec"), module)
    return module


def users(source, **names):
    module = {"__name__": "shop.orders", **names}
    exec(compile(source, "shop/orders.py", "exec"), module)
    return module


def caught(function, *args):
    try:
        function(*args)
    except BaseException as error:
        # Without this frame, which is at work.
        error.__traceback__ = error.__traceback__.tb_next
        return error
    raise AssertionError("nothing was raised")


def places(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def shown(error):
    """What a traceback with local variables shows."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_a_plain_function_of_ours_keeps_its_place_and_forgets_its_variables():
    module = ours("def refuse(token):\n    raise ValueError('no')")
    error = caught(module["refuse"], SECRET)

    assert SECRET in shown(error)

    forget_locals(error)

    assert SECRET not in shown(error)
    assert ["refuse"] == places(error)
    assert 2 == error.__traceback__.tb_lineno


@pytest.mark.parametrize(
    "source",
    [
        "async def refuse(token):\n    raise ValueError('no')",
        "def refuse(token):\n    yield\n    raise ValueError('no')",
        "async def refuse(token):\n    yield\n    raise ValueError('no')",
    ],
    ids=["coroutine", "generator", "asynchronous generator"],
)
def test_what_may_only_be_suspended_is_left_out(source):
    refuse = ours(source)["refuse"]

    def drive(token):
        made = refuse(token)
        if inspect.iscoroutine(made):
            made.send(None)
        elif inspect.isgenerator(made):
            list(made)
        else:
            with contextlib.suppress(StopIteration):
                made.__anext__().send(None)
            made.__anext__().send(None)

    error = caught(drive, SECRET)
    forget_locals(error)

    assert ["drive"] == places(error)


def test_a_coroutine_that_is_suspended_lives_on():
    """It caught an error, and waits; the error has gone on to somebody else."""
    kept = []
    module = ours(
        "async def catch(wait):\n"
        "    try:\n"
        "        raise ValueError('no')\n"
        "    except ValueError as error:\n"
        "        kept.append(error)\n"
        "    await wait()\n"
        "    return 'well'",
        kept=kept,
    )

    async def wait():
        await trio.lowlevel.checkpoint()
        forget_locals(kept[0])
        await trio.lowlevel.checkpoint()

    assert "well" == trio.run(module["catch"], wait)
    assert None is kept[0].__traceback__


def test_libraries_that_we_call_into_are_as_ours_and_those_that_call_us_are_not():
    module = ours("def encode(value):\n    json.dumps({'token': value})", json=json)
    error = caught(module["encode"], {SECRET})
    forget_locals(error)

    assert SECRET not in shown(error)
    assert "encode" == places(error)[0]
    assert "default" == places(error)[-1]

    async def fail(token):
        raise ValueError("no")

    error = caught(trio.run, fail, SECRET)
    before = places(error)
    forget_locals(error)

    assert before == places(error)
    assert SECRET in shown(error)


def test_a_users_frames_stay_whole_also_between_ours():
    their = users("def handle(message):\n    order = message\n    1 / 0")
    module = ours("def call(handler, token):\n    handler('an order')")
    error = caught(module["call"], their["handle"], SECRET)
    forget_locals(error)

    assert ["call", "handle"] == places(error)
    assert SECRET not in shown(error)
    assert "order = 'an order'" in shown(error)


def test_a_bug_of_ours_keeps_what_it_takes_to_find_it():
    module = ours("def work(token):\n    return token.missing")
    error = caught(module["work"], SECRET)
    forget_locals(error)

    assert SECRET in shown(error)


@pytest.mark.parametrize(
    "error",
    [
        wsclient.HandshakeError("no"),
        trio.ClosedResourceError("no"),
        OSError("no"),
        RuntimeError("no"),
        KeyboardInterrupt(),
        BaseExceptionGroup("no", [KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_we_mean_to_raise_forgets(error):
    module = ours("def work(token, error):\n    raise error")
    forget_locals(caught(module["work"], SECRET, error))

    assert SECRET not in shown(error)


def test_whatever_led_to_an_error_forgets_as_well():
    module = ours(
        "def first(token):\n"
        "    raise ValueError('first')\n"
        "def second(token):\n"
        "    try:\n"
        "        first(token)\n"
        "    except ValueError as error:\n"
        "        raise OSError('second') from error\n"
        "def third(token):\n"
        "    try:\n"
        "        second(token)\n"
        "    except OSError as error:\n"
        "        raise ExceptionGroup('both', [error, TypeError('third')])\n"
    )
    error = caught(module["third"], SECRET)

    assert 7 == shown(error).count(SECRET)

    forget_locals(error)

    assert SECRET not in shown(error)


def test_causes_that_go_in_circles_end():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    forget_locals(one)
    forget_locals(None)

    assert other is one.__cause__


def test_a_text_that_cannot_be_encoded_is_not_shown_and_the_place_in_it_is():
    module = ours("def encode(text):\n    return text.encode()")
    error = caught(module["encode"], SECRET + "\ud800!")
    text = str(error)
    forget_locals(error)

    assert SECRET not in repr(error) + shown(error)
    assert text == str(error)
    assert "'\\ud800' in position 6" in text


def test_bytes_that_cannot_be_decoded_are_not_shown_either():
    module = ours("def decode(data):\n    return data.decode()")
    error = caught(module["decode"], SECRET.encode() + b"\xff!")
    text = str(error)
    forget_locals(error)

    assert SECRET not in repr(error) + shown(error)
    assert text == str(error)


def test_a_users_text_that_cannot_be_encoded_is_the_users():
    their = users("def encode(text):\n    return text.encode()")
    error = caught(their["encode"], SECRET + "\ud800!")
    forget_locals(error)

    assert SECRET in repr(error)


def test_where_a_user_keeps_a_secret_the_users_frames_forget_as_well():
    def read(secret):
        return secret.decode()

    def keep(secret):
        try:
            read(secret)
        except ValueError as error:
            raise LookupError from error

    error = caught(keep, b"c4n4ry\xff")
    forget_all_locals(error)
    *_, kept = traceback.walk_tb(error.__traceback__)
    *_, asked = traceback.walk_tb(error.__cause__.__traceback__)

    assert ("keep", {}) == (kept[0].f_code.co_name, kept[0].f_locals)
    assert ("read", {}) == (asked[0].f_code.co_name, asked[0].f_locals)
    assert "c4n4ry" not in repr(error.__cause__)


def test_frames_at_work_are_left_out():
    module = ours(
        "def work(token):\n"
        "    try:\n"
        "        raise ValueError('no')\n"
        "    except ValueError as error:\n"
        "        forget_locals(error)\n"
        "        raise\n",
        forget_locals=forget_locals,
    )

    assert [] == places(caught(module["work"], SECRET))


def test_a_forgetful_function_is_what_it_was_and_forgets():
    module = ours("def refuse(token):\n    'Refuses.'\n    raise ValueError('no')")
    refuse = forgetful(module["refuse"])
    error = caught(refuse, SECRET)

    assert SECRET not in shown(error)
    assert ["refuse"] == places(error)
    assert ("refuse", "Refuses.") == (refuse.__name__, refuse.__doc__)
    assert ["token"] == list(inspect.signature(refuse).parameters)
    assert 3 == forgetful(lambda: 3)()


async def test_a_forgetful_coroutine_function_is_one_and_forgets():
    module = ours(
        "async def refuse(token):\n    raise ValueError('no')\nasync def answer():\n    return 3"
    )
    refuse = forgetful(module["refuse"])

    assert inspect.iscoroutinefunction(refuse)
    with pytest.raises(ValueError, match="no") as caught:
        await refuse(SECRET)
    assert [caught.value.__traceback__.tb_frame.f_code.co_name] == places(caught.value)
    assert 3 == await forgetful(module["answer"])()


def test_what_cannot_be_made_forgets_what_it_was_to_be_made_of():
    """Half made, it cannot even be printed; such a traceback could not be."""
    module = ours(
        "def refuse(thing, attribute, value):\n"
        "    raise ValueError('no')\n"
        "@attrs.frozen\n"
        "class Thing:\n"
        "    token: str\n"
        "    size: int = attrs.field(validator=refuse)\n",
        attrs=attrs,
    )
    thing = made_forgetful(module["Thing"])
    error = caught(thing, SECRET, 3)

    assert thing is module["Thing"]
    assert SECRET not in shown(error)
    assert ["token", "size"] == list(inspect.signature(thing).parameters)
