"""Builds the three modules that are worth compiling; all else stands in pyproject.toml.

Each is plain Python that runs as it is.  Where Cython and a C compiler are at hand they are
compiled; where something is missing the build succeeds all the same, and ``wsclient.__compiled__``
is false.  ``WSCLIENT_PURE=1`` leaves them as they are.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup

COMPILED = (
    "wsclient.protocol._codec",
    "wsclient.connection._batches",
    "wsclient.connection._cancellation",
)


def compiled_modules() -> list[Extension]:
    """The modules to compile; none where that is not wanted, or there is no Cython."""
    if os.environ.get("WSCLIENT_PURE", "0") not in ("", "0"):
        return []
    if sys.implementation.name != "cpython":  # Others compile Python themselves, and better.
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    extensions: list[Extension] = cythonize(
        [
            Extension(
                name,
                [name.replace(".", "/") + ".py"],
                # Wide loops, for masking, which MSVC makes unasked; and no megabytes for debuggers.
                extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-g0"],
            )
            for name in COMPILED
        ],
        # An annotation is for people and type checkers: C's types stand in the .pxd files.
        compiler_directives={"annotation_typing": False, "language_level": 3},
        build_dir="build/cython",
    )
    for extension in extensions:
        extension.optional = True  # Without a compiler the build goes on.
    return extensions


setup(ext_modules=compiled_modules())
