"""The Autobahn test suite: 517 conversations with a client, and a verdict on each.

``$WSCLIENT_AUTOBAHN`` says how much of it: ``ci`` (the default) is what CI runs, ``all`` is every
case, and sections 1–10 once more over TLS.  One server and one client run all cases that were
selected, before the first test; each test reads its case's verdict.
"""

from __future__ import annotations

import json
import math
import os
import ssl
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

import wsclient

pytestmark = [
    pytest.mark.autobahn,
    pytest.mark.timeout(3600),
]

AGENT: Final = "wsclient"
GOOD: Final = {"OK", "INFORMATIONAL"}
MAX_MESSAGE_SIZE: Final = 16 * 2**20

# How many cases each section has: 1.1.1 to 1.1.8, 1.2.1 to 1.2.8, 2.1 to 2.11 …
SECTIONS: Final = (
    {"1.1": 8, "1.2": 8, "2": 11, "3": 7, "4.1": 5, "4.2": 5, "5": 20}
    | {"6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4, "6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4}
    | {"6.10": 3, "6.11": 5, "6.12": 8, "6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5}
    | {"6.18": 5, "6.19": 5, "6.20": 7, "6.21": 8, "6.22": 34, "6.23": 7}
    | {"7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2}
    | {"9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6, "10.1": 1}
    | {f"12.{number}": 18 for number in range(1, 6)}
    | {f"13.{number}": 18 for number in range(1, 8)}
)
CASES: Final = [
    f"{section}.{number}" for section, count in SECTIONS.items() for number in range(1, count + 1)
]


def main_section(case: str) -> int:
    return int(case.split(".")[0])


COMPRESSED: Final = [case for case in CASES if main_section(case) in (12, 13)]
"""Long conversations, mostly with permessage-deflate."""

PLAIN: Final = [case for case in CASES if case not in COMPRESSED]

SELECTIONS: Final = {
    "ci": [(case, "tcp") for case in [*PLAIN, *COMPRESSED[::10]]],
    "all": [(case, "tcp") for case in CASES] + [(case, "tls") for case in PLAIN],
}


# --- the client ---------------------------------------------------------------------------------


async def echo(url: str, ssl_context: ssl.SSLContext | None, **options: Any) -> None:
    """What a client does in every case: return each message as it came."""
    async with wsclient.open_websocket_url(
        url, ssl_context, max_message_size=MAX_MESSAGE_SIZE, max_fragments=math.inf, **options
    ) as connection:
        async for message in connection:
            await connection.send_message(message)


@attrs.frozen
class Verdict:
    """What the suite says of one case, and what the client raised that it should not have."""

    behavior: str = "MISSING"
    close_behavior: str = "MISSING"
    error: str | None = None
    explanation: str = ""


async def run_cases(
    cases: list[str], url: str, reports: Path, ssl_context: ssl.SSLContext | None
) -> dict[str, Verdict]:
    errors: dict[str, str] = {}

    async def run(case: str, limiter: trio.CapacityLimiter, seconds: float) -> None:
        # The offer has client_max_window_bits, which sections 13.3 to 13.7 ask for.
        options = {"compression": True} if case in COMPRESSED else {}
        async with limiter:
            try:
                with trio.fail_after(seconds):
                    case_url = f"{url}/runCase?casetuple={case}&agent={AGENT}"
                    await echo(case_url, ssl_context, **options)
            except wsclient.ConnectionClosed:
                pass  # With a code other than 1000, as many cases provoke it.
            except Exception as error:
                errors[case] = repr(error)

    # First what mostly waits, then what computes and would make the others late.
    for heavy, at_a_time, seconds in [(False, 16, 30), (True, 2, 600)]:
        limiter = trio.CapacityLimiter(at_a_time)
        async with trio.open_nursery() as nursery:
            for case in cases:
                if heavy is (main_section(case) >= 9):
                    nursery.start_soon(run, case, limiter, seconds)
    await echo(f"{url}/updateReports?agent={AGENT}", ssl_context)
    found = json.loads((reports / "index.json").read_text()).get(AGENT, {})
    return {
        case: read_verdict(reports, found[case], errors.get(case))
        if case in found
        else Verdict(error=errors.get(case))
        for case in cases
    }


def read_verdict(reports: Path, summary: dict[str, Any], error: str | None) -> Verdict:
    # The suite lets its reports hold bytes as they came.
    details = json.loads((reports / summary["reportfile"]).read_text(errors="replace"))
    return Verdict(
        summary["behavior"],
        summary["behaviorClose"],
        error,
        f"{details['result']} / {details['resultClose']} ({details['duration']} ms)",
    )


@pytest.fixture(scope="session")
def verdicts(request, suite, certificate, tmp_path_factory):
    """The verdicts of all cases that were selected, by case and transport."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate.authority.configure_trust(trusting)
    selected = [
        (item.callspec.params["case"], item.callspec.params["transport"])
        for item in request.session.items
        if "transport" in getattr(item, "fixturenames", ())
    ]

    async def run(transport: str, cases: list[str]) -> dict[str, Verdict]:
        secure = transport == "tls"
        folder = tmp_path_factory.mktemp(f"autobahn-{transport}")
        async with suite.serve(folder, secure=secure) as server:
            return await run_cases(cases, server.url, folder, trusting if secure else None)

    found = {}
    for transport in ("tcp", "tls"):
        if cases := [case for case, of in selected if of == transport]:
            for case, verdict in trio.run(run, transport, cases).items():
                found[case, transport] = verdict
    return found


# --- the verdicts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "transport"),
    [
        pytest.param(case, transport, id=case if transport == "tcp" else f"{case}-{transport}")
        for case, transport in SELECTIONS[os.environ.get("WSCLIENT_AUTOBAHN", "ci")]
    ],
)
def test_the_suite_finds_no_fault_in_case(verdicts, case, transport):
    verdict = verdicts[case, transport]
    assert verdict.error is None
    assert verdict.behavior in GOOD, verdict
    assert verdict.close_behavior in GOOD, verdict


async def test_the_suite_has_as_many_cases_as_are_listed_here(suite, tmp_path):
    async with (
        suite.serve(tmp_path) as server,
        wsclient.open_websocket_url(f"{server.url}/getCaseCount") as connection,
    ):
        count = int(await connection.get_message())

    assert len(CASES) == count
