"""``wsclient doctor``: what runs here, how a server is reached, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time

import attrs
import pytest
import trio

import wsclient
from wsclient.cli import _doctor, main
from wsclient.cli._doctor import Findings, examine, findings_lines, step_lines
from wsclient.cli._steps import Step
from wsclient.connection._socket import socket_options
from wsclient.session._clock import suspend_clock
from wsclient.testing import NONE, REJECT_404, SILENT_HANDSHAKE, FaultServer, echo

NAMES = [
    "wsclient",
    "frame codec",
    "Python",
    "trio",
    "wsproto",
    "platform",
    "TCP_USER_TIMEOUT",
    "keepalive",
    "boot-time clock",
    "python-socks",
    "rich",
]

GOOD = Findings(
    wsclient="1.2.3",
    compiled=True,
    python="CPython 3.13.1",
    trio="0.35.0",
    wsproto="1.3.2",
    platform="Linux 6.1 (x86_64)",
    tcp_user_timeout=True,
    tcp_keepalive=("TCP_KEEPIDLE", "TCP_KEEPINTVL"),
    boot_time_clock=True,
    python_socks="3.0",
    rich="15.0",
)


def found(lines, name):
    """What stands behind ``name``."""
    [line] = [line for line in lines if line.startswith(f"{name} ")]
    return line.removeprefix(name).strip()


async def test_each_finding_is_a_line_and_the_status_is_0(start):
    async with start("doctor") as program:
        status, out, err = await program.end()

    assert (0, []) == (status, err)
    assert NAMES == [line[: _doctor._WIDTH].rstrip() for line in out]
    assert wsclient.__version__ == found(out, "wsclient")
    assert importlib.metadata.version("wsproto") == found(out, "wsproto")
    assert wsclient.__compiled__ == (found(out, "frame codec") == "compiled")


async def test_with_json_it_is_one_object_on_one_line(start):
    async with start("doctor", "--json") as program:
        status, [line], err = await program.end()

    values = json.loads(line)

    assert (0, []) == (status, err)
    assert ["event", *attrs.fields_dict(Findings)] == list(values)
    assert {
        "event": "findings",
        "wsclient": wsclient.__version__,
        "compiled": wsclient.__compiled__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio": importlib.metadata.version("trio"),
    }.items() <= values.items()


def test_main_says_what_is_found(capsys):
    assert 0 == main(["doctor"])
    assert findings_lines(examine()) == capsys.readouterr().out.splitlines()


# --- what the platform has ----------------------------------------------------------------------


def options_set(**options):
    asked = wsclient.ConnectionOptions(tcp_keepalive=None, tcp_user_timeout=None)
    return {
        name
        for level, name, _ in socket_options(attrs.evolve(asked, **options))
        if level == trio.socket.IPPROTO_TCP
    }


@pytest.mark.parametrize("missing", ["", "TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPCNT"])
def test_socket_options_are_found_where_connections_find_them(monkeypatch, missing):
    monkeypatch.delattr(trio.socket, missing or "NONE", raising=False)
    findings = examine()
    numbers = {getattr(trio.socket, name) for name in findings.tcp_keepalive}

    assert bool(options_set(tcp_user_timeout=1)) is findings.tcp_user_timeout
    # Under both of its names, where a platform has both.
    assert options_set(tcp_keepalive=1) <= numbers
    assert bool(numbers) is bool(options_set(tcp_keepalive=1))
    assert missing not in findings.tcp_keepalive


@pytest.mark.parametrize("missing", ["", "CLOCK_BOOTTIME"])
def test_the_boot_time_clock_is_found_where_channels_find_it(monkeypatch, missing):
    monkeypatch.delattr(time, missing or "NONE", raising=False)

    assert (suspend_clock() is not None) is examine().boot_time_clock


# --- what is installed --------------------------------------------------------------------------

WITHOUT = (
    "import sys; sys.modules['rich'] = sys.modules['python_socks'] = None;"
    " from wsclient.cli import main; sys.exit(main(sys.argv[1:]))"
)


def run_without_extras(*arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == done.stderr
    return done.stdout


def test_without_the_optional_packages_it_says_how_to_get_them():
    lines = run_without_extras("doctor").splitlines()

    assert NAMES == [line[: _doctor._WIDTH].rstrip() for line in lines]
    for name, extra in {"rich": "cli", "python-socks": "proxy"}.items():
        assert found(lines, name).startswith("not installed; ")
        assert found(lines, name).endswith(f": pip install 'wsclient-trio[{extra}]'")


def test_without_the_optional_packages_they_are_null_in_json():
    values = json.loads(run_without_extras("doctor", "--json"))

    assert (None, None) == (values["python_socks"], values["rich"])


def test_what_is_installed_without_a_version_is_still_found(monkeypatch):
    def version(distribution):
        raise importlib.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    findings = examine()

    assert {"unknown version"} == {
        findings.trio,
        findings.wsproto,
        findings.rich,
        findings.python_socks,
    }


def test_it_loads_neither_what_it_looks_for_nor_the_test_kit_nor_the_picture():
    script = (
        "import sys, wsclient.cli as cli; cli.main(['doctor', '--json']);"
        " print([name for name in ('python_socks', 'wsclient.testing', 'wsclient.cli._picture')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.splitlines()[-1]


# --- what it says -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("frame codec", {}, "compiled"),
        ("TCP_USER_TIMEOUT", {}, "yes: "),
        ("TCP_USER_TIMEOUT", {"tcp_user_timeout": False}, "no: the heartbeat"),
        ("keepalive", {}, "yes: TCP_KEEPIDLE, TCP_KEEPINTVL"),
        ("keepalive", {"tcp_keepalive": ()}, "at the system's own times only"),
        ("boot-time clock", {}, "yes: "),
        ("boot-time clock", {"boot_time_clock": False}, "no: after a suspend"),
        ("rich", {}, "15.0"),
        ("python-socks", {}, "3.0"),
        ("platform", {"platform": "Odd\x1b[2J"}, "Odd\\x1b[2J"),
    ],
)
def test_a_line_says_what_a_finding_means(name, changes, text):
    assert found(findings_lines(attrs.evolve(GOOD, **changes)), name).startswith(text)


@pytest.mark.parametrize(
    ("implementation", "text"),
    [("cpython", "with a C compiler at hand: pip install"), ("pypy", "compiles by itself")],
)
def test_an_uncompiled_codec_comes_with_what_to_do(monkeypatch, implementation, text):
    monkeypatch.setattr(sys.implementation, "name", implementation)
    line = found(findings_lines(attrs.evolve(GOOD, compiled=False)), "frame codec")

    assert line.startswith("plain Python, ")
    assert text in line


# --- with a URL ---------------------------------------------------------------------------------


async def test_with_a_url_each_step_is_a_line_and_the_status_is_0(start):
    async with FaultServer(handler=echo) as server, start("doctor", server.url) as program:
        status, out, err = await program.end()

    assert (0, [], server.url) == (status, err, out[0])
    assert ["resolve", "connect", "upgrade", "ping", "close"] == [
        line.split()[0] for line in out[1:-2]
    ]
    assert all(re.match(r"\w+ +[\d.]+ m?s  \S", line) for line in out[1:-2])
    assert ["", "all is well"] == out[-2:]


async def test_a_failure_comes_with_what_a_channel_would_do_and_what_to_do(start):
    async with FaultServer([REJECT_404]) as server, start("doctor", server.url) as program:
        status, out, err = await program.end()

    assert (1, []) == (status, err)
    assert out[3].endswith("FAILED: the server refused the upgrade: HTTP 404")
    assert [
        "",
        "rule              HTTP status",
        "at startup        a channel gives up at once",
        "in steady state   a channel tries again, for 5 min 0 s, then gives up",
        "what to do        see that the URL's path is right",
    ] == out[4:]


@pytest.mark.parametrize("fault", [NONE, REJECT_404])
async def test_with_a_url_and_json_each_step_is_an_object(start, fault):
    async with (
        FaultServer([fault]) as server,
        start("doctor", server.url, "--json", "--pings", "2") as program,
    ):
        status, out, err = await program.end()

    *steps, last = map(json.loads, out)

    assert [] == err
    assert {"step"} == {step["event"] for step in steps}
    assert {"event": "diagnosis", "endpoint": server.url, "ok": status == 0}.items() <= last.items()
    if fault is NONE:
        assert ["resolve", "connect", "upgrade", "ping", "close"] == [s["name"] for s in steps]
        assert 2 == steps[3]["pings"]
        assert steps[4]["answered"]
    else:
        assert (1, False) == (status, steps[-1]["ok"])
        assert ("rejected", "HTTP status") == (last["kind"], last["rule"])
        assert "gives up at once" == last["startup"]


async def test_a_note_stands_below_its_step():
    step = Step(name="TLS", seconds=0.01, is_ok=True, text="TLSv1.3", notes=("odd\x1b[2J",))

    assert [
        "TLS          10.0 ms  TLSv1.3",
        "                      odd\\x1b[2J",
    ] == step_lines(step)


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
async def test_ctrl_c_ends_it_with_status_130_and_without_a_traceback(start):
    async with (
        FaultServer([SILENT_HANDSHAKE]) as server,
        start("doctor", server.url) as program,
    ):
        await program.out.wait_for("connect")
        program.process.send_signal(signal.SIGINT)
        status, _, err = await program.end()

    assert (130, []) == (status, err)


async def test_on_a_terminal_it_is_a_picture(open_terminal):
    pytest.importorskip("rich")
    async with (
        FaultServer([REJECT_404]) as server,
        open_terminal("doctor", server.url) as terminal,
    ):
        assert 1 == await terminal.end()

    assert "✓" in terminal.text
    assert "✗" in terminal.text
    assert "HTTP status" in terminal.text
    # The cursor is back.
    assert "\x1b[?25h" in terminal.text.rpartition("\x1b[?25l")[2]


@pytest.mark.parametrize("options", [["--plain"], []])
async def test_lines_are_for_whoever_asks_for_them_and_for_small_terminals(open_terminal, options):
    size = (24, 90) if options else (24, 50)
    async with (
        FaultServer() as server,
        open_terminal("doctor", server.url, *options, size=size) as terminal,
    ):
        assert 0 == await terminal.end()

    assert "all is well" in terminal.text
    assert "\x1b" not in terminal.text


async def test_without_rich_a_terminal_gets_lines_and_is_told(open_terminal):
    async with FaultServer() as server:
        command = [sys.executable, "-c", WITHOUT, "doctor", server.url]
        async with open_terminal(command=command) as terminal:
            assert 0 == await terminal.end()

    assert "all is well" in terminal.text
    assert "pip install 'wsclient-trio[cli]'" in terminal.text


def test_a_url_that_cannot_be_used_is_wrong_usage(capsys):
    assert 2 == main(["doctor", "http://u:canary@h/canary"])
    printed = capsys.readouterr().err

    assert "wsclient doctor: error: " in printed
    assert "canary" not in printed


# --- where it says it ---------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_an_output_that_takes_nothing_is_a_failure():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wsclient", "doctor"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert 1 == done.returncode
    assert b"wsclient: cannot write to stdout: " in done.stderr
