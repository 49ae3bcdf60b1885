"""Finding what a user's own module holds: ``module:name``.

A module is imported as Python would import it from the current folder.  What is wrong with the
name is said in a sentence; what is wrong inside the module is the user's, and keeps its traceback,
without the frames of those who only imported it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any, Final

import trio

import wsclient
from wsclient.app._runner import leave_running

_OURS: Final = tuple(
    os.path.dirname(file) + os.sep
    for file in (wsclient.__file__, trio.__file__, importlib.__file__)
)

_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class NotFoundError(Exception):
    """The name leads nowhere; says why, in a sentence."""


class BrokenError(Exception):
    """The module cannot be imported; its text is the traceback of what it raised."""


def check_place(place: str) -> None:
    """See whether this may be a module's name, or that of something in a module.

    Raises:
        NotFoundError: It cannot be.
    """
    module_name, colon, name = place.partition(":")
    if "://" in place:
        # Not quoted: it may hold a password.
        raise NotFoundError("a module is expected, such as shop.orders:bot, and no URL")
    # Whoever types a file's name means its module.
    if os.sep in module_name or module_name.endswith(".py"):
        meant = module_name.removesuffix(".py").replace(os.sep, ".").strip(".")
        hint = f": try {meant}" if _DOTTED.fullmatch(meant) else ""
        raise NotFoundError(f"a module is expected, not a file{hint}")
    if not _DOTTED.fullmatch(module_name) or (colon and not _DOTTED.fullmatch(name)):
        raise NotFoundError("a module is expected, and a name in it, such as shop.orders:bot")


def find(place: str, *, default: str) -> Any:
    """Import a module, and return what it has under a name.

    The current folder is put first on ``sys.path``.

    Args:
        place: ``"module:name"``, or ``"module"`` alone, as :func:`check_place` lets pass.
        default: The name, where there is none.

    Raises:
        NotFoundError: There is no such module, or no such name in it.
        BrokenError: The module raised when it was imported.
    """
    module_name, colon, name = place.partition(":")
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
    value: Any = _import(module_name)
    path = (name if colon else default).split(".")
    for index, part in enumerate(path):
        try:
            value = getattr(value, part)
        except AttributeError:
            owner = ".".join([module_name, *path[:index]])
            hint = "" if colon else f"; name another one after a colon, as in {module_name}:name"
            raise NotFoundError(f"{owner} has no {part!r}{hint}") from None
    return value


def _import(name: str) -> Any:
    try:
        with leave_running() as left:
            module = importlib.import_module(name)
        if left:
            print(f"* {name} runs its bot as it is imported: that was left out", file=sys.stderr)
        return module
    except ModuleNotFoundError as error:
        # What the module itself misses is another matter.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise BrokenError(traceback_text(error)) from error
        owner, dot, missing = error.name.rpartition(".")
        where = (
            f": {owner} has no {missing}; a name in a module stands behind a colon: {owner}:bot"
            if dot and owner in sys.modules
            else ", neither in the current folder nor installed"
        )
        raise NotFoundError(f"no module {error.name!r}{where}") from None
    except (Exception, SystemExit) as error:
        raise BrokenError(traceback_text(error)) from error


def failure_text(error: BaseException) -> str:
    """What is to be said of an error: one of ours is a sentence, a user's is a traceback."""
    frames = list(traceback.walk_tb(error.__traceback__))
    raised_in = frames[-1][0].f_code.co_filename if frames else ""
    is_ours = isinstance(error, ValueError | TypeError) and raised_in.startswith(_OURS[0])
    return str(error) if is_ours else traceback_text(error)


def traceback_text(error: BaseException) -> str:
    """The traceback of what a user's code raised, from the user's first frame on."""
    frames = _users_part(error.__traceback__)
    if frames is None and not isinstance(error, SyntaxError):
        frames = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip("\n")


def _users_part(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith((*_OURS, "<frozen importlib")):
            return frames
        frames = frames.tb_next
    return None
