"""A client that meets one of the servers of ``_evil.py``; tells in JSON what came of it.

``python _victim.py LIBRARY MODE URL``, with the library's own interpreter; imports nothing at its
top but the standard library.

Outcomes: a close code (``"1009"``), the name of an error, ``delivered`` (a message came), ``open``
(the connection lives, and nobody asked more of it), ``closed`` (closing went well), ``stalled``
(nothing happened for 12 s); ``…, then hangs`` (it did not close within 12 s).
"""

from __future__ import annotations

import contextlib
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _evil import MODES, Mode

PATIENCE = 12.0  # seconds until a client counts as stalled; what others need is 10
CLOSE_TIMEOUT = 2.0  # seconds that each client waits for the answer to its close frame
NAP = 3.0  # seconds that the program of a "sleep" mode does nothing


class Skipped(Exception):
    """This client cannot do that."""


@dataclass(frozen=True)
class Library:
    """One client: how it connects and receives, and what its errors mean."""

    connect: Callable[[str], AbstractAsyncContextManager[Any]]
    receive: str
    close: str
    name_of: Callable[[BaseException], str]


def wsclient_library(mode: Mode) -> Library:
    import wsclient

    options: dict[str, Any] = {"disconnect_timeout": CLOSE_TIMEOUT, "connect_timeout": 10}
    options["compression"] = True

    def name_of(error: BaseException) -> str:
        match error:
            case wsclient.ConnectionClosed():
                return "no code" if error.reason is None else str(int(error.reason.code))
            case wsclient.DisconnectionTimeout() | wsclient.ConnectionTimeout():
                return type(error).__name__
            case wsclient.HandshakeError():
                return "HandshakeError"
        return type(error).__name__

    return Library(
        lambda url: wsclient.open_websocket_url(url, **options), "get_message", "aclose", name_of
    )


def websockets_library(mode: Mode) -> Library:
    from websockets import exceptions
    from websockets.trio.client import connect

    def name_of(error: BaseException) -> str:
        match error:
            case exceptions.ConnectionClosed():
                close = error.sent or error.rcvd
                return "no code" if close is None else str(int(close.code))
            case exceptions.InvalidHandshake():
                return "HandshakeError"
        return type(error).__name__

    return Library(
        lambda url: connect(url, close_timeout=CLOSE_TIMEOUT, ping_interval=None),
        "recv",
        "aclose",
        name_of,
    )


def trio_websocket_library(mode: Mode) -> Library:
    import trio_websocket

    if mode.compressed:
        raise Skipped("trio-websocket has no compression")

    def name_of(error: BaseException) -> str:
        match error:
            case trio_websocket.ConnectionClosed():
                return "no code" if error.reason is None else str(int(error.reason.code))
            case trio_websocket.DisconnectionTimeout():
                return "DisconnectionTimeout"
            case trio_websocket.HandshakeError():
                return "HandshakeError"
        return type(error).__name__

    return Library(
        lambda url: trio_websocket.open_websocket_url(
            url, disconnect_timeout=CLOSE_TIMEOUT, connect_timeout=10
        ),
        "get_message",
        "aclose",
        name_of,
    )


LIBRARIES = {
    "wsclient": wsclient_library,
    "websockets": websockets_library,
    "trio-websocket": trio_websocket_library,
}


def peak() -> int:
    """The most memory that this process ever had, in bytes, since :func:`forget_peak`."""
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins anew


def only(error: BaseException) -> BaseException:
    """What a group holds, if it holds one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def meet(library: Library, mode: Mode, url: str) -> str:
    """Do what the mode's program does; return the outcome, once the connection is closed."""
    import trio

    outcome = "stalled"
    with trio.move_on_after(PATIENCE) as patience:
        try:
            async with library.connect(url) as connection:
                if mode.app == "sleep":
                    await trio.sleep(NAP)
                if mode.app == "close":
                    await getattr(connection, library.close)()
                    outcome = "closed"
                elif mode.expected == ("open",):
                    outcome = "open"
                else:
                    try:
                        await getattr(connection, library.receive)()
                        outcome = "delivered"
                    except Exception as error:
                        outcome = library.name_of(error)
        except Exception as error:
            if outcome == "stalled":
                outcome = library.name_of(only(error))
    if patience.cancelled_caught and outcome != "stalled":
        outcome += ", then hangs"
    return outcome


async def warm_up(library: Library, url: str) -> None:
    """Let everything be loaded that a connection needs."""
    async with library.connect(url):
        pass


def main(library_name: str, mode_name: str, url: str) -> None:
    import trio

    mode = MODES[mode_name]
    try:
        library = LIBRARIES[library_name](mode)
    except (ImportError, Skipped) as error:
        print(json.dumps({"skipped": str(error)}))
        return
    trio.run(warm_up, library, f"{url}/harmless")
    gc.collect()
    forget_peak()
    before, cpu, wall = peak(), time.process_time(), time.perf_counter()
    outcome = trio.run(meet, library, mode, f"{url}/evil")
    told = {
        "outcome": outcome,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "peak": peak() - before,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
