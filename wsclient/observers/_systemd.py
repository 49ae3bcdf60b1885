"""Events → what systemd wants to be told of a service (sd_notify).

One datagram to the socket that ``NOTIFY_SOCKET`` names, and no library: the protocol is lines of
``NAME=value`` (systemd's sd_notify(3)).  Where there is no such socket nothing happens, so the same
program runs anywhere.

It is a sink like the others, since all but one of its sentences are events.  The watchdog is not:
it says that *the loop lives*, and only a task of the loop can say that.  So a task sleeps on trio's
clock and says it; where the loop hangs, so does the task, and systemd restarts the service.  It
does not say that the channel is ready: an outage is ridden out, and no reason to begin anew.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

import trio

from wsclient import events
from wsclient.events import ChannelState, Event

_LEAVING: Final = (ChannelState.DRAINING, ChannelState.CLOSED, ChannelState.FAILED)

_USEC: Final = 1_000_000

_STATUS_SIZE: Final = 1000
"""Characters: more than a line of ``systemctl status`` shows."""


class SystemdObserver:
    """Tells systemd how the service is; does nothing where systemd does not ask for it.

    - ``READY=1`` once every channel that it knows has been ready (``Type=notify``);
    - ``STATUS=`` at each change of state, for ``systemctl status``;
    - ``STOPPING=1`` once every channel that it knows is leaving or has ended;
    - ``WATCHDOG=1`` by :meth:`keep_alive`, which is a task to start, or by :meth:`alive`.

    One is enough for all channels of a program, if their names differ, and has to be given to all
    of them.

    Args:
        stopping: Whether the end of the channels is the end of the service.
            systemd kills a service that said so and does not end (``TimeoutStopSec``); so this is
            to be false in a program that opens channels one after the other.
        environment: Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` stand; ``None``
            is the process' own.

    Raises:
        ValueError: What stands there cannot be used.
    """

    def __init__(
        self, *, stopping: bool = True, environment: Mapping[str, str] | None = None
    ) -> None:
        environment = os.environ if environment is None else environment
        self._stopping = stopping
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._states: dict[str, ChannelState] = {}
        self._causes: dict[str, str] = {}
        self._were_ready: set[str] = set()
        self._is_told_ready = False
        self._is_told_stopping = False
        self.watchdog: float | None = _watchdog(environment) if self.is_active else None
        """Seconds within which systemd wants a sign of life; ``None``: it wants none."""

    @property
    def is_active(self) -> bool:
        """Whether systemd wants to be told anything."""
        return self._address is not None

    def __call__(self, event: Event) -> None:
        """Tell of ``event`` what systemd wants to know.

        Raises:
            OSError: The socket took it not.
        """
        match event:
            case events.ConnectionAttempted(channel=channel):
                # Known before it changes its state for the first time.
                self._states.setdefault(channel, ChannelState.CONNECTING)
            case events.StateChanged():
                self._change(event)
            case events.ChannelClosed(channel=channel) | events.ChannelGaveUp(channel=channel):
                for known in (self._states, self._causes):
                    known.pop(channel, None)
                self._were_ready.discard(channel)
                # The others may have waited for it alone.
                if self._states and self._has_become_ready():
                    self._send("READY=1")

    def _change(self, event: events.StateChanged) -> None:
        self._states[event.channel] = event.state
        self._causes[event.channel] = event.cause
        if event.state is ChannelState.READY:
            self._were_ready.add(event.channel)
        lines = []
        if self._has_become_ready():
            lines.append("READY=1")
        is_leaving = all(state in _LEAVING for state in self._states.values())
        if self._stopping and is_leaving and not self._is_told_stopping:
            self._is_told_stopping = True
            lines.append("STOPPING=1")
        self._send(*lines, f"STATUS={self._status()}")

    def _has_become_ready(self) -> bool:
        """Whether every channel has been ready, and systemd is still to be told."""
        if self._is_told_ready or not self._were_ready >= self._states.keys():
            return False
        self._is_told_ready = True
        return True

    def alive(self) -> None:
        """Say once that the loop lives; for a timer: ``bot.every(10)(systemd.alive)``.

        Raises:
            OSError: The socket took it not.
        """
        if self.watchdog is not None:
            self._send("WATCHDOG=1")

    async def keep_alive(self) -> None:
        """Say that the loop lives, twice as often as systemd wants it, until cancelled.

        Give it to a nursery: ``nursery.start_soon(systemd.keep_alive)``.
        Returns at once where systemd wants no sign of life (``WatchdogSec`` is not set).
        """
        await trio.lowlevel.checkpoint()
        while self.watchdog is not None:
            with contextlib.suppress(OSError):  # The next one may be in time.
                self.alive()
            await trio.sleep(self.watchdog / 2)

    def _status(self) -> str:
        sentences = [
            f"{channel}: {state.value}"
            + (f", because {self._causes[channel]}" if channel in self._causes else "")
            for channel, state in self._states.items()
        ]
        # A peer's text among ours must not look like a line of ours.
        status = "; ".join(sentences)[:_STATUS_SIZE]
        return "".join(letter if letter.isprintable() else " " for letter in status)

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # An observer must not block; systemd reads within moments.
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)


def _address(given: str) -> str | None:
    if not given:
        return None
    if given[0] not in "/@" or len(given) == 1:
        raise ValueError(f"NOTIFY_SOCKET must be a path or an abstract socket, not {given!r}")
    # An abstract socket's name begins with a zero byte.
    return f"\0{given[1:]}" if given[0] == "@" else given


def _watchdog(environment: Mapping[str, str]) -> float | None:
    usec, pid = environment.get("WATCHDOG_USEC"), environment.get("WATCHDOG_PID")
    if usec is None or (pid is not None and pid != str(os.getpid())):
        return None  # It may be a parent's, of whom we have it.
    if not usec.isdecimal() or int(usec) == 0:
        raise ValueError(f"WATCHDOG_USEC must be a number of microseconds, not {usec!r}")
    return int(usec) / _USEC
