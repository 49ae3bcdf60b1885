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

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

_BOTH = (
    "Both internal and user exceptions encountered. This group contains the internal exception(s)"
)


@asynccontextmanager
async def open_background_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery; when the body ends, its children are cancelled."""
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                body_error = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raised = _choose(group, body_error)
        cause, context = raised.__cause__, raised.__context__
        suppressed = raised.__suppress_context__
        try:
            raise raised
        finally:
            # Raising inside `except` has made the group its context.
            raised.__cause__, raised.__context__ = cause, context
            raised.__suppress_context__ = suppressed
            del raised, cause, context, body_error


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
