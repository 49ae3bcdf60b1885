"""Feed the protocol floor what nobody thought of, for as long as you like (``tox -e fuzz``).

The inputs and the checks are those of two test modules, which the normal test run tries briefly:
``tests/protocol/test_any_answer.py`` (the opening handshake) and ``test_differential.py`` (frames).
hypothesis makes structured inputs; atheris, where it installs, mutates bytes and watches which
lines they reach.  A failure prints its input and ends with status 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

PROTOCOL_TESTS: Final = Path(__file__).parents[1] / "protocol"
MODULES: Final = {"answers": "test_any_answer", "frames": "test_differential"}

MAX_SIZE: Final = 2**17
"""Bytes of one input of atheris: more than a handshake takes."""

SLOW: Final = 10
"""Seconds after which one input is a failure: work must not grow faster than its input."""

MEMORY: Final = 1024
"""MiB that all of it may take."""


def load(target: str) -> ModuleType:
    """The test module behind a target."""
    name = MODULES[target]
    spec = importlib.util.spec_from_file_location(name, PROTOCOL_TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def inflates(module: ModuleType) -> bool:
    """Whether the module's inputs may be compressed as well."""
    return hasattr(module, "make_protocol")


def use_hypothesis(target: str, seconds: float) -> None:
    """Run the module's properties again and again."""
    os.environ["WSCLIENT_EXAMPLES"] = "200"
    module = load(target)
    properties: list[Callable[[], None]] = [
        test
        for name, test in vars(module).items()
        if name.startswith("test_") and (inflates(module) or "compressed" not in name)
    ]
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        for test in properties:
            test()
        rounds += 1
    print(f"{target}: hypothesis found nothing in {rounds} rounds of {len(properties)} properties")


def use_atheris(target: str, seconds: float) -> None:
    """Mutate bytes; does not return, atheris ends the process."""
    import atheris

    with atheris.instrument_imports(include=["wsclient.protocol"]):
        import wsclient.protocol  # noqa: F401
    module = load(target)
    variants = [{}, {"deflate": True}] if inflates(module) else [{}]

    def check(data: bytes) -> None:
        for options in variants:
            module.check(data, list(data[:4]), **options)

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(module.SEEDS):
            Path(corpus, str(number)).write_bytes(seed)
        settings = {
            "max_total_time": int(seconds),
            "timeout": SLOW,
            "rss_limit_mb": MEMORY,
            "max_len": MAX_SIZE,
            "print_final_stats": 1,
            "verbosity": 0,
            # Where the input of a failure is written to.
            "artifact_prefix": f"{tempfile.gettempdir()}/wsclient-{target}-",
        }
        atheris.Setup(
            [sys.argv[0], *(f"-{name}={value}" for name, value in settings.items()), corpus], check
        )
        atheris.Fuzz()


METHODS: Final = {"hypothesis": use_hypothesis, "atheris": use_atheris}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=60, help="for each target and method")
    parser.add_argument("--target", choices=MODULES, help="only this one")
    parser.add_argument("--method", choices=METHODS, help="only this one")
    arguments = parser.parse_args()
    if arguments.target and arguments.method:
        METHODS[arguments.method](arguments.target, arguments.seconds)
        return
    methods = [arguments.method] if arguments.method else list(METHODS)
    if "atheris" in methods and importlib.util.find_spec("atheris") is None:
        methods.remove("atheris")
        print("atheris is skipped: it has no wheel for this interpreter")
    failed = False
    for target in [arguments.target] if arguments.target else MODULES:
        for method in methods:
            print(f"{target}: {method}, {arguments.seconds:g} s", flush=True)
            # A process of its own: atheris ends it, and instruments what it imports.
            command = [sys.executable, __file__, "--target", target, "--method", method]
            failed |= bool(
                subprocess.run([*command, "--seconds", str(arguments.seconds)]).returncode
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
