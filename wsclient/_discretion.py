"""Tracebacks that show no secret: what our frames held is forgotten before an error leaves us.

Texts are easy: none of ours quotes a URL, a header's value or a message.  But a traceback holds the
frames that an error came through, and whoever prints local variables with it (structlog and rich
do) prints what we were called with.  So where an error leaves us,

- a frame of ours that belongs to a plain function is emptied: the place stays, the variables go;
- one of a coroutine or a generator is left out, since nothing tells whether it is over, and to
  empty one that is merely suspended would end it.

What counts as ours is our own modules, and the libraries that we call into, for as long as we are
in them.  A user's frames are the user's: a handler's, a hook's, a token provider's.

A bug of ours keeps everything: an error of a type that we never mean to raise, such as
``AttributeError``, from a frame of ours.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from traceback import clear_frames
from types import FrameType, TracebackType
from typing import Any, Final, TypeVar, cast

_US: Final = "wsclient"
_TEST_KIT: Final = "wsclient.testing"

_CALLED: Final = sys.stdlib_module_names | {
    "attr",
    "attrs",
    "msgspec",
    "outcome",
    "pydantic",
    "python_socks",
    "tenacity",
    "trio",
    "wsproto",
}
"""Packages whose frames below ours hold what we gave them."""

_GENERATED: Final = "<attrs generated"

_MEANT: Final = (
    ImportError,
    KeyboardInterrupt,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    BaseExceptionGroup,
)
"""What we raise beside our own errors and trio's."""

_RESUMABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type[Any])


def forget_locals(error: BaseException | None) -> None:
    """Take what our frames held from the traceback of ``error``, and from all that led to it."""
    for found in _chain(error):
        frames, is_ours = _sorted(found.__traceback__)
        if not is_ours or _is_meant(found):
            found.__traceback__ = _emptied(frames)
        if is_ours and isinstance(found, UnicodeEncodeError | UnicodeDecodeError):
            _mask(found)


def forget_all_locals(error: BaseException) -> None:
    """Take what any frame held, a user's as well, and the texts that could not be converted.

    For a function of the user's that is there to keep a secret.
    """
    for found in _chain(error):
        clear_frames(found.__traceback__)
        if isinstance(found, UnicodeEncodeError | UnicodeDecodeError):
            _mask(found)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and all that has led to it; each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        waiting += (found.__cause__, found.__context__)
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions
        yield found


def _sorted(traceback: TracebackType | None) -> tuple[list[tuple[TracebackType, bool]], bool]:
    """Each entry, and whether it is ours; and whether the last one is."""
    entries = []
    is_ours = False
    while traceback is not None:
        is_ours = _belongs_to_us(traceback.tb_frame, is_ours)
        entries.append((traceback, is_ours))
        traceback = traceback.tb_next
    return entries, is_ours


def _belongs_to_us(frame: FrameType, was_ours: bool) -> bool:
    if frame.f_code.co_filename.startswith(_GENERATED):
        return was_ours or f"{_US}." in frame.f_code.co_filename
    name = str(frame.f_globals.get("__name__"))
    package = name.partition(".")[0]
    if package == _US:
        return not name.startswith(_TEST_KIT)
    return was_ours and package in _CALLED


def _mask(error: UnicodeEncodeError | UnicodeDecodeError) -> None:
    """Take from it the text that it was about, but for the characters that it is about."""
    begin, end = error.start, error.end
    shown = error.object[begin:end]
    error.object = "?" * begin + shown if isinstance(shown, str) else b"?" * begin + shown
    # What its repr shows.
    error.args = (error.encoding, error.object, begin, end, error.reason)


def _is_meant(error: BaseException) -> bool:
    """Whether it says something to the caller; else it is a bug."""
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, _MEANT) or (module in (_US, "trio") and isinstance(error, Exception))


def _emptied(entries: list[tuple[TracebackType, bool]]) -> TracebackType | None:
    traceback: TracebackType | None = None
    for entry, is_ours in reversed(entries):
        if not is_ours or _empty(entry.tb_frame):
            traceback = TracebackType(traceback, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return traceback


def _empty(frame: FrameType) -> bool:
    """Let a frame forget its variables; whether it could."""
    if frame.f_code.co_flags & _RESUMABLE:
        return False
    try:
        frame.clear()
    except RuntimeError:  # It is at work: it is where this is called.
        return False
    return True


def forgetful(function: F) -> F:
    """Let a function forget its frames when it raises; for those that are given secrets.

    Where time matters, the same is written out: an ``except`` costs nothing, a call does.
    """
    # A bare `raise` adds no frame: what is called with secrets here does not show itself.
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def call(*args: Any, **given: Any) -> Any:
            try:
                return await function(*args, **given)
            except BaseException as error:
                forget_locals(error)
                raise

    else:

        @wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            try:
                return function(*args, **given)
            except BaseException as error:
                forget_locals(error)
                raise

    return cast("F", call)


def made_forgetful(kind: C) -> C:
    """The same for what makes an object of a class."""
    kind.__init__ = forgetful(kind.__init__)
    return kind
