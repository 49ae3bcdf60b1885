"""What leaves a block with a background task is what the user raised."""

from __future__ import annotations

import traceback

import pytest
import trio
import trio.testing

from wsclient.connection import failure_in, open_background_nursery


async def fail(error):
    await trio.lowlevel.checkpoint()
    raise error


async def fail_when_cancelled(error):
    try:
        await trio.sleep_forever()
    finally:
        raise error


async def test_the_end_of_the_block_cancels_the_children():
    async with open_background_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)

    assert nursery.cancel_scope.cancel_called


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()], ids=repr)
async def test_the_users_exception_keeps_its_identity_cause_and_context(error):
    cause, context = TypeError("cause"), LookupError("context")
    error.__context__ = context
    error.__cause__ = cause
    with pytest.raises(type(error)) as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error

    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is context
    assert error.__suppress_context__


async def test_a_suppressed_context_stays_suppressed():
    error = ValueError()
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # identity is what matters
        async with open_background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error from None

    assert caught.value is error
    assert (None, None, True) == (
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
    )


async def test_a_childs_exception_leaves_as_itself():
    error = ValueError("internal")
    error.__cause__ = TypeError("cause")
    with pytest.raises(ValueError, match="internal") as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail, error)
            await trio.sleep_forever()

    assert caught.value is error
    assert "cause" == str(error.__cause__)


async def test_an_exception_at_the_end_of_the_block_leaves_as_itself():
    error = ValueError("internal")
    with pytest.raises(ValueError, match="internal") as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled, error)
            await trio.testing.wait_all_tasks_blocked()

    assert caught.value is error


async def test_a_cancellation_is_the_users_own():
    seen = []
    with trio.CancelScope() as scope:
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as error:
                    seen.append(error)
                    raise
        except BaseException as error:
            seen.append(error)
            raise

    assert scope.cancelled_caught
    assert seen[0] is seen[1]


async def test_next_to_an_exception_cancellations_do_not_count():
    error = ValueError("internal")
    with pytest.raises(ValueError, match="internal") as caught, trio.CancelScope() as scope:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled, error)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()

    assert caught.value is error


async def test_of_several_the_users_is_raised_and_the_others_are_its_context():
    user, internal, context = ValueError("user"), RuntimeError("internal"), LookupError("context")
    user.__context__ = context
    with pytest.raises(ValueError, match="user") as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled, internal)
            await trio.testing.wait_all_tasks_blocked()
            raise user

    assert caught.value is user
    group = user.__context__
    assert (
        "Both internal and user exceptions encountered."
        " This group contains the internal exception(s)"
        " and the context for the user exception."
    ) == group.message
    assert (internal, context) == group.exceptions
    assert not user.__suppress_context__
    assert "internal" in "".join(traceback.format_exception(user))


async def test_a_suppressed_context_does_not_join_the_internal_exceptions():
    user, internal = ValueError("user"), RuntimeError("internal")
    with pytest.raises(ValueError, match="user") as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled, internal)
            await trio.testing.wait_all_tasks_blocked()
            raise user from None

    assert caught.value is user
    assert (
        "Both internal and user exceptions encountered."
        " This group contains the internal exception(s)."
    ) == user.__context__.message
    assert (internal,) == user.__context__.exceptions


@pytest.mark.parametrize("whose", ["user", "internal"])
async def test_an_interrupt_among_several_is_raised_as_an_interrupt(whose):
    errors = {"user": ValueError("user"), "internal": RuntimeError("internal")}
    errors[whose] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled, errors["internal"])
            await trio.testing.wait_all_tasks_blocked()
            raise errors["user"]

    assert set(errors.values()) == set(caught.value.__cause__.exceptions)


async def test_several_of_the_children_leave_as_a_group():
    errors = [RuntimeError("first"), RuntimeError("second")]
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_background_nursery() as nursery:
            for error in errors:
                nursery.start_soon(fail_when_cancelled, error)
            await trio.testing.wait_all_tasks_blocked()

    assert set(errors) == {
        error for error in caught.value.exceptions if not isinstance(error, trio.Cancelled)
    }


async def test_a_group_of_the_users_keeps_its_text_and_its_members():
    errors = ValueError(), TypeError()
    with pytest.raises(ExceptionGroup, match=r"^mine") as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ExceptionGroup("mine", errors)

    assert errors == caught.value.exceptions


async def test_a_failure_is_found_beside_the_cancellations_that_came_with_it():
    mine = LookupError("mine")
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled, mine)
                nursery.start_soon(trio.sleep_forever)
    found = failure_in(caught.value)

    assert not isinstance(caught.value, Exception)
    assert isinstance(found, ExceptionGroup)
    assert (mine,) == found.exceptions


def test_what_is_no_exception_is_not_the_users_to_answer():
    mine = LookupError("mine")

    assert mine is failure_in(mine)
    assert failure_in(KeyboardInterrupt()) is None
    assert failure_in(BaseExceptionGroup("both", [mine, KeyboardInterrupt()])) is None


async def test_cancellations_alone_are_no_failure():
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)

        assert failure_in(caught.value) is None
        raise caught.value
