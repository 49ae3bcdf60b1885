"""A nursery whose body is the user's and whose children are ours.

trio wraps whatever leaves a nursery in a group.  A user's exception should not change its shape
because we keep a task in the background, so this is the one place where groups are taken apart:

- one exception leaves as itself, with its own cause and context;
- next to an exception, cancellations do not count;
- a ``KeyboardInterrupt`` among several is raised, the group being its cause;
- of several, the body's is raised, and the others are added to its context;
- several without the body's leave as the group they are.
"""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn

import trio

_BOTH = (
    "Both internal and user exceptions encountered. This group contains the internal exception(s)"
)


class open_background_nursery:  # noqa: N801  # As trio.open_nursery().
    """Open a nursery; when the body ends, its children are cancelled.

    A class, since a generator takes a quarter of a KiB more for each connection.
    """

    __slots__ = ("_manager", "_nursery")

    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._nursery.cancel_scope.cancel()
        try:
            return bool(await self._manager.__aexit__(kind, error, traceback))
        except BaseExceptionGroup as group:
            raised = _choose(group, error)
            if raised is error:
                return False  # It leaves as if we were not there.
            _raise_as_it_was(raised)


def raise_alone(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise what is in ``group``, which comes from a nursery of somebody else's; by the same rules.

    Raises:
        BaseException: It.
    """
    _raise_as_it_was(_choose(group, None))


def failure_in(raised: BaseException) -> Exception | None:
    """What a user's function has failed with, also where tasks of its own were cancelled meanwhile.

    A nursery puts both into one group, which is no ``Exception``, and goes past whoever answers
    what the function raises.  The cancellation is not lost: it comes again with the next
    checkpoint.

    Returns:
        ``None`` if there is no failure, or none that is the user's to answer: a
        ``KeyboardInterrupt``, say.
    """
    if isinstance(raised, BaseExceptionGroup):
        raised = raised.split(trio.Cancelled)[1] or raised
    return raised if isinstance(raised, Exception) else None


def _raise_as_it_was(raised: BaseException) -> NoReturn:
    cause, context = raised.__cause__, raised.__context__
    suppressed = raised.__suppress_context__
    try:
        raise raised
    finally:
        # Raising inside `except` has made the group its context.
        raised.__cause__, raised.__context__ = cause, context
        raised.__suppress_context__ = suppressed
        del raised, cause, context


def _choose(
    group: BaseExceptionGroup[BaseException], body_error: BaseException | None
) -> BaseException:
    if len(group.exceptions) == 1:
        return group.exceptions[0]
    others = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
    if len(others) == 1:
        return others[0]
    if not others:
        return group.exceptions[0] if body_error is None else body_error
    if any(isinstance(error, KeyboardInterrupt) for error in others):
        interrupt = KeyboardInterrupt()
        interrupt.__cause__ = group
        return interrupt
    if body_error is None or body_error not in others:
        return group
    internal = [error for error in group.exceptions if error is not body_error]
    text = _BOTH
    if body_error.__context__ is not None and not body_error.__suppress_context__:
        internal.append(body_error.__context__)
        text += " and the context for the user exception"
    body_error.__context__ = BaseExceptionGroup(text + ".", internal)
    body_error.__suppress_context__ = False
    return body_error
