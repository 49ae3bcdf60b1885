"""``wsclient doctor``: what runs here and could run better, or how a server can be reached."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
import time
from typing import Final, Protocol

import attrs
import trio

import wsclient

from ._arguments import DoctorArguments
from ._diagnosis import Diagnosis, diagnose
from ._objects import json_line
from ._printer import Printer
from ._running import FAILED, OK, Command
from ._steps import Examination, Goal, Listener, Step, StepFailed, goal_from
from ._text import escape, milliseconds

# Without the cache, pip would take the wheel that it built last time.
_COMPILE: Final = (
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary wsclient-trio wsclient-trio"
)

# How often the kernel asks; each under its names on the platforms.
_KEEPALIVE: Final = ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT")

_WIDTH: Final = 18
"""Characters before what is found."""


@attrs.frozen(kw_only=True)
class Findings:
    """What runs here."""

    wsclient: str
    compiled: bool
    python: str
    trio: str
    wsproto: str
    platform: str
    tcp_user_timeout: bool
    tcp_keepalive: tuple[str, ...]
    """The options that say how often the kernel asks, by their names here."""
    boot_time_clock: bool
    python_socks: str | None
    """Its version; ``None`` where it is not installed."""
    rich: str | None
    """Likewise."""


def examine() -> Findings:
    """Look at what runs here; imports nothing that does not run anyway."""
    return Findings(
        wsclient=wsclient.__version__,
        compiled=wsclient.__compiled__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        trio=_version("trio"),
        wsproto=_version("wsproto"),
        platform=f"{platform.system()} {platform.release()} ({platform.machine()})",
        tcp_user_timeout=hasattr(trio.socket, "TCP_USER_TIMEOUT"),
        tcp_keepalive=tuple(name for name in _KEEPALIVE if hasattr(trio.socket, name)),
        boot_time_clock=hasattr(time, "CLOCK_BOOTTIME"),
        python_socks=_version_of_extra("python-socks", module="python_socks"),
        rich=_version_of_extra("rich", module="rich"),
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # Frozen into a program, say.
        return "unknown version"


def _version_of_extra(distribution: str, *, module: str) -> str | None:
    # As those look for it who use it: what is left of an uninstalled one does not count.
    return None if importlib.util.find_spec(module) is None else _version(distribution)


def findings_lines(findings: Findings) -> list[str]:
    """The findings for people, one a line, with what to do about them."""
    rows = {
        "wsclient": findings.wsclient,
        "frame codec": _frame_codec(findings),
        "Python": findings.python,
        "trio": findings.trio,
        "wsproto": findings.wsproto,
        "platform": findings.platform,
        "TCP_USER_TIMEOUT": (
            "yes: a dead path is noticed while bytes are on their way"
            if findings.tcp_user_timeout
            else "no: the heartbeat is what notices a dead path"
        ),
        "keepalive": (
            f"yes: {', '.join(findings.tcp_keepalive)}"
            if findings.tcp_keepalive
            else "at the system's own times only"
        ),
        "boot-time clock": (
            "yes: a suspend of the machine is noticed at once"
            if findings.boot_time_clock
            else "no: after a suspend of the machine, the heartbeat notices what was lost"
        ),
        "python-socks": findings.python_socks
        or "not installed; for SOCKS proxies: pip install 'wsclient-trio[proxy]'",
        "rich": findings.rich
        or "not installed; for the picture of `wsclient demo`: pip install 'wsclient-trio[cli]'",
    }
    return [f"{name:<{_WIDTH}}{escape(found)}" for name, found in rows.items()]


def _frame_codec(findings: Findings) -> str:
    if findings.compiled:
        return "compiled"
    if sys.implementation.name != "cpython":
        return "plain Python, which this interpreter compiles by itself"
    return f"plain Python, several times slower; with a C compiler at hand: {_COMPILE}"


def prepare_doctor(arguments: DoctorArguments, printer: Printer) -> Command:
    """What to run.

    Raises:
        TypeError, ValueError: The URL, a header or a subprotocol cannot be used.
    """
    if arguments.url is not None:
        goal = goal_from(arguments.url, arguments.headers, arguments.subprotocols)
        return _prepare_examination(goal, arguments, printer)

    async def doctor() -> int:
        findings = examine()
        if arguments.json:
            printer.print(json_line({"event": "findings", **attrs.asdict(findings)}))
        else:
            for line in findings_lines(findings):
                printer.print(line)
        # Here, and not only at the end, where a failure to write would be nobody's any more.
        await printer.wait_written()
        return OK

    return doctor


def _prepare_examination(goal: Goal, arguments: DoctorArguments, printer: Printer) -> Command:
    view = _view(goal, arguments, printer)

    async def doctor() -> int:
        examination = Examination(
            goal, pings=arguments.pings, timeout=arguments.timeout, listener=view
        )
        diagnosis: Diagnosis | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(view.run)
            try:
                await examination.run()
            except StepFailed as failure:
                diagnosis = diagnose(failure.error, step=failure.step, is_secure=goal.is_secure)
            nursery.cancel_scope.cancel()
        view.conclude(diagnosis)
        await printer.wait_written()
        return OK if diagnosis is None else FAILED

    return doctor


def _view(goal: Goal, arguments: DoctorArguments, printer: Printer) -> View:
    if arguments.json:
        return ObjectsOfSteps(goal, printer)
    if not arguments.plain and sys.stdout is not None and sys.stdout.isatty():
        try:
            from ._doctor_picture import open_picture
        except ImportError:
            printer.tell(
                "(With rich installed there are colours: pip install 'wsclient-trio[cli]')"
            )
        else:
            if picture := open_picture(goal):
                return picture
    return LinesOfSteps(goal, printer)


class View(Listener, Protocol):
    """Shows the steps, as they are made."""

    async def run(self) -> None:
        """Whatever takes time, until cancelled."""

    def conclude(self, diagnosis: Diagnosis | None) -> None:
        """All steps are made, or one has failed."""


class LinesOfSteps:
    """A line for each step, and more where there is more to say."""

    def __init__(self, goal: Goal, printer: Printer) -> None:
        self._printer = printer
        self._printer.print(goal.endpoint)

    def begin(self, name: str) -> None:
        """Nothing can be said yet."""

    def end(self, step: Step) -> None:
        """Say it."""
        for line in step_lines(step):
            self._printer.print(line)

    async def run(self) -> None:
        """Nothing takes time."""
        await trio.lowlevel.checkpoint()

    def conclude(self, diagnosis: Diagnosis | None) -> None:
        """Say what follows."""
        self._printer.print("")
        for title, text in conclusion_rows(diagnosis):
            self._printer.print(f"{title:<{_WIDTH}}{escape(text)}".rstrip())


class ObjectsOfSteps:
    """An object for each step, and one for what follows."""

    def __init__(self, goal: Goal, printer: Printer) -> None:
        self._goal = goal
        self._printer = printer

    def begin(self, name: str) -> None:
        """Nothing can be said yet."""

    def end(self, step: Step) -> None:
        """Print it."""
        values = {
            "event": "step",
            "name": step.name,
            "ok": step.is_ok,
            "seconds": round(step.seconds, 6),
            "text": step.text,
            "notes": step.notes,
        }
        self._printer.print(json_line({**values, **step.values}))

    async def run(self) -> None:
        """Nothing takes time."""
        await trio.lowlevel.checkpoint()

    def conclude(self, diagnosis: Diagnosis | None) -> None:
        """Print what follows."""
        values = {} if diagnosis is None else attrs.asdict(diagnosis)
        first = {"event": "diagnosis", "endpoint": self._goal.endpoint, "ok": diagnosis is None}
        self._printer.print(json_line({**first, **values}))


def step_lines(step: Step) -> list[str]:
    """A step for people: what was found, and below it what else there is."""
    first = f"{step.name:<10}{milliseconds(step.seconds):>10}  "
    texts = [step.text if step.is_ok else f"FAILED: {step.text}", *step.notes]
    return [
        (" " * len(first) if number else first) + escape(text) for number, text in enumerate(texts)
    ]


def conclusion_rows(diagnosis: Diagnosis | None) -> list[tuple[str, str]]:
    """What follows, each with what it is about."""
    if diagnosis is None:
        return [("all is well", "")]
    return [
        ("rule", diagnosis.rule),
        ("at startup", f"a channel {diagnosis.startup}"),
        ("in steady state", f"a channel {diagnosis.steady}"),
        ("what to do", diagnosis.advice),
    ]
