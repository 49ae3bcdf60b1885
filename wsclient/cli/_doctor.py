"""``wsclient doctor``: what runs here, and what could run better."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
import time
from typing import Final

import attrs
import trio

import wsclient

from ._arguments import DoctorArguments
from ._objects import json_line
from ._printer import Printer
from ._running import OK, Command
from ._text import escape

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
    """What to run."""

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
