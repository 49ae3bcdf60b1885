"""``wsclient backoff``: when clients come back after an outage, and how many at once."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any, Final

import trio

import wsclient

from ._arguments import BackoffArguments
from ._importing import NotFoundError, failure_text, find
from ._objects import json_line
from ._printer import Printer
from ._running import FAILED, OK, Command
from ._text import count, escape_lines, seconds

MOMENT: Final = 0.05
"""Seconds: what a server feels as one moment."""

_DEFAULT: Final = "retry"
"""What is looked for in a module that is given without a name."""

_SHOWN: Final = 12
"""Waits of one client, in a line; whoever wants all looks at one client."""


def prepare_backoff(arguments: BackoffArguments, printer: Printer) -> Command:
    """Find the policy.

    Returns:
        What to run.

    Raises:
        NotFoundError: There is no such policy.
        BrokenError: Its module cannot be imported.
    """
    policy = _policy(arguments)
    rehearse = partial(
        wsclient.rehearse,
        policy,
        outage=arguments.outage,
        clients=arguments.clients,
        seed=arguments.seed,
    )

    async def backoff() -> int:
        try:
            # In a thread, so that Ctrl-C is heard; there is nothing that it could leave undone.
            rehearsal = await trio.to_thread.run_sync(rehearse, abandon_on_cancel=True)
        except Exception as error:
            # What the user's wait, stop or classify raised, or that its waits lead nowhere.
            printer.tell(f"wsclient: the policy fails: {escape_lines(failure_text(error))}")
            return FAILED
        for line in _lines(rehearsal, arguments, printer):
            printer.print(line)
        await printer.wait_written()
        return OK

    return backoff


def _policy(arguments: BackoffArguments) -> wsclient.RetryPolicy:
    if arguments.policy is None:
        wait = None if arguments.cap is None else wsclient.default_wait(arguments.cap)
        return wsclient.RetryPolicy(wait=wait)
    place = arguments.policy
    found = find(place, default=_DEFAULT)
    if isinstance(found, wsclient.RetryPolicy):
        return found
    if isinstance(found, type) or not callable(found):
        kind = "class" if isinstance(found, type) else type(found).__name__
        article = "an" if kind[0] in "AEIOUaeiou" else "a"
        name = place if ":" in place else f"{place}:{_DEFAULT}"
        raise NotFoundError(f"{name} is {article} {kind}, and neither a RetryPolicy nor a wait")
    return wsclient.RetryPolicy(wait=found)


def _lines(
    rehearsal: wsclient.Rehearsal, arguments: BackoffArguments, printer: Printer
) -> list[str]:
    if arguments.json:
        return [json_line(backoff_object(rehearsal, arguments.seed))]
    if not arguments.plain and sys.stdout is not None and sys.stdout.isatty():
        try:
            from ._backoff_picture import picture
        except ImportError:
            printer.tell(
                "(With rich installed this is a picture: pip install 'wsclient-trio[cli]')"
            )
        else:
            if drawn := picture(rehearsal, arguments.seed):
                return drawn
    return backoff_lines(rehearsal, arguments.seed)


def headline(rehearsal: wsclient.Rehearsal) -> str:
    """What it is about."""
    clients = count(rehearsal.clients, "client")
    return f"{clients}, and a server that is away for {seconds(rehearsal.outage)}"


def backoff_rows(rehearsal: wsclient.Rehearsal) -> list[tuple[str, str]]:
    """What there is to say, each with what it is about."""
    rows = [
        (
            "attempts",
            f"{len(rehearsal.attempts):,}; at most {rehearsal.busiest(MOMENT):,} in 50 ms,"
            f" {rehearsal.busiest(1):,} in 1 s",
        ),
        (
            "on its return",
            f"at most {count(rehearsal.busiest_back(MOMENT), 'connection')} in 50 ms,"
            f" {rehearsal.busiest_back(1):,} in 1 s",
        ),
        (
            "back",
            f"half {_after(rehearsal, 0.5)}, 99 % {_after(rehearsal, 0.99)},"
            f" all {_after(rehearsal, 1)}",
        ),
    ]
    if rehearsal.gave_up:
        rows.append(("gave up", count(rehearsal.gave_up, "client")))
    return rows


def _after(rehearsal: wsclient.Rehearsal, share: float) -> str:
    after = rehearsal.back_within(share)
    return f"after {seconds(after)}" if math.isfinite(after) else "never"


def backoff_lines(rehearsal: wsclient.Rehearsal, seed: int) -> list[str]:
    """The same as lines, with the waits of one client."""
    lines = [f"{headline(rehearsal)} (seed {seed})", ""]
    lines += [f"  {title:<14} {text}" for title, text in backoff_rows(rehearsal)]
    delays = rehearsal.delays(0)
    if rehearsal.clients == 1:
        lines += ["", "  attempt     waits for     comes at"]
        for number, (delay, time) in enumerate(
            zip(delays, rehearsal.attempts_of[0], strict=True), 1
        ):
            lines.append(f"  {number:>7}  {delay:>10.2f} s  {time:>9.2f} s")
        return lines
    shown = ", ".join(f"{delay:.2f}" for delay in delays[:_SHOWN])
    more = ", …" if len(delays) > _SHOWN else ""
    return [*lines, f"  {'one client':<14} waits for {shown}{more} s"]


def backoff_object(rehearsal: wsclient.Rehearsal, seed: int) -> dict[str, Any]:
    """The same for machines."""

    def finite(value: float) -> float | None:
        return round(value, 6) if math.isfinite(value) else None

    return {
        "event": "backoff",
        "clients": rehearsal.clients,
        "outage": rehearsal.outage,
        "seed": seed,
        "attempts": len(rehearsal.attempts),
        "attempts_in_50_ms": rehearsal.busiest(MOMENT),
        "attempts_in_1_s": rehearsal.busiest(1),
        "connections_in_50_ms": rehearsal.busiest_back(MOMENT),
        "connections_in_1_s": rehearsal.busiest_back(1),
        "back": len(rehearsal.back),
        "gave_up": rehearsal.gave_up,
        "half_back_after": finite(rehearsal.back_within(0.5)),
        "99_percent_back_after": finite(rehearsal.back_within(0.99)),
        "all_back_after": finite(rehearsal.back_within(1)),
        "delays_of_one": [round(delay, 6) for delay in rehearsal.delays(0)],
    }
