"""Which source files there are below a folder, and which of them has changed.

Files are asked for their times, again and again: this takes no package and works on every file
system, and those of one project are asked in a few milliseconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

_Stamp: TypeAlias = tuple[int, int]


class Sources:
    """The source files below a folder, as they were when this was made.

    Args:
        folder: An absolute path.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._seen: dict[str, _Stamp] = dict(_stamped(_python_files(folder)))

    def changed(self, *, is_any: bool) -> str | None:
        """The path of a file that is not as it was, or ``None``.

        Args:
            is_any: Of any file, a new one included; otherwise of a module that is loaded.
        """
        files = _python_files(self._folder) if is_any else self._loaded()
        for file, stamp in _stamped(files):
            if is_any and file not in self._seen:
                return os.path.relpath(file, self._folder)
            # One that was not there, or was looked for elsewhere, is as it is when it is loaded.
            if self._seen.setdefault(file, stamp) != stamp:
                return os.path.relpath(file, self._folder)
        return None

    def _loaded(self) -> Iterator[str]:
        inside = self._folder.rstrip(os.sep) + os.sep
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file.startswith(inside) and file.endswith(".py"):
                yield file


def _python_files(folder: str) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not (name in _SKIPPED or name.startswith("."))]
        yield from (os.path.join(where, name) for name in files if name.endswith(".py"))


def _stamped(files: Iterable[str]) -> Iterator[tuple[str, _Stamp]]:
    for file in files:
        try:
            found = os.stat(file)
        except OSError:
            # An editor that replaces a file: in a moment it is there again.
            continue
        yield file, (found.st_mtime_ns, found.st_size)
