"""``wsclient doctor``: what runs here, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time

import attrs
import pytest
import trio

import wsclient
from wsclient.cli import _doctor, main
from wsclient.cli._doctor import Findings, examine, findings_lines
from wsclient.connection._socket import socket_options
from wsclient.session._clock import suspend_clock

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
