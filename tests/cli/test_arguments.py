"""What can be asked for, and how mistakes are answered."""

from __future__ import annotations

import sys

import attrs
import pytest

import wsclient
from wsclient.cli._arguments import (
    BackoffArguments,
    DemoArguments,
    DoctorArguments,
    ListenArguments,
    ReplArguments,
    RunArguments,
    complain,
    parse,
)

URL = "wss://feed.example/ws"
CANARY = "canary"


def test_listening_needs_a_url_only():
    assert ListenArguments(
        url=URL, messages=(), headers=(), subprotocols=(), json=False, quiet=False
    ) == parse(["listen", URL])


def test_listening_takes_messages_headers_and_subprotocols_in_their_order():
    argv = ["listen", "--send", "a", URL, "--send", "", "-H", "X-A: 1", "--header=X-B:2:3"]
    argv += ["--subprotocol", "v2", "--subprotocol", "v1", "--json", "--quiet"]

    assert ListenArguments(
        url=URL,
        messages=("a", ""),
        headers=(("X-A", "1"), ("X-B", "2:3")),
        subprotocols=("v2", "v1"),
        json=True,
        quiet=True,
    ) == parse(argv)


def test_listening_keeps_a_journal_and_replays_one():
    default = ListenArguments(
        url=URL, messages=(), headers=(), subprotocols=(), json=False, quiet=False
    )

    assert attrs.evolve(default, journal="file") == parse(["listen", URL, "--journal", "file"])
    assert attrs.evolve(default, url=None, replay="file") == parse(["listen", "--replay", "file"])
    assert attrs.evolve(default, url=None, replay="file", speed=60) == parse(
        ["listen", "--replay", "file", "--speed", "60"]
    )


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "a URL is expected, or --replay FILE"),
        (["--replay", "f", URL], "--replay connects to nobody"),
        (["--replay", "f", "--send", "x"], "--replay connects to nobody"),
        (["--replay", "f", "-H", "X-A: 1"], "--replay connects to nobody"),
        (["--replay", "f", "--subprotocol", "a"], "--replay connects to nobody"),
        (["--replay", "f", "--journal", "g"], "--replay connects to nobody"),
        ([URL, "--speed", "2"], "--speed is for --replay"),
        (["--replay", "f", "--speed", "0"], "a number from 0.001"),
    ],
)
def test_what_goes_with_a_replay_and_what_does_not(argv, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["listen", *argv])

    assert 2 == ended.value.code
    assert complaint in capsys.readouterr().err


def test_the_demo_takes_fifteen_seconds_unless_told_otherwise():
    assert DemoArguments(seconds=15, seed=None, json=False, plain=False) == parse(["demo"])
    assert DemoArguments(seconds=4.5, seed=7, json=True, plain=True) == parse(
        ["demo", "--seconds", "4.5", "--seed", "7", "--json", "--plain"]
    )


def test_talking_needs_a_url_only():
    default = ReplArguments(
        url=URL, headers=(), subprotocols=(), history=None, wait=0, json=False, plain=False
    )
    argv = ["repl", URL, "--history", "file", "--wait", "2.5", "--json", "--plain"]

    assert default == parse(["repl", URL])
    assert ReplArguments(
        url=URL,
        headers=(("X-A", "1"),),
        subprotocols=("v2", "v1"),
        history="file",
        wait=2.5,
        json=True,
        plain=True,
    ) == parse([*argv, "-H", "X-A:1", "--subprotocol", "v2", "--subprotocol", "v1"])


def test_a_bot_runs_without_reloading_unless_told_otherwise():
    assert RunArguments(bot="shop.orders:bot", reload=False) == parse(["run", "shop.orders:bot"])
    assert RunArguments(bot="shop", reload=True) == parse(["run", "--reload", "shop"])


def test_where_no_process_can_be_replaced_nothing_is_reloaded(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit):
        parse(["run", "shop", "--reload"])

    assert "--reload replaces the process" in capsys.readouterr().err


def test_a_backoff_is_the_defaults_of_a_thousand_clients_unless_told_otherwise():
    default = BackoffArguments(
        policy=None, clients=1000, outage=60, cap=None, seed=1, json=False, plain=False
    )
    argv = ["backoff", "--clients", "5", "--outage", "0.5", "--cap", "4", "--seed", "-2"]

    assert default == parse(["backoff"])
    assert attrs.evolve(default, policy="shop:retry") == parse(["backoff", "shop:retry"])
    assert BackoffArguments(
        policy=None, clients=5, outage=0.5, cap=4, seed=-2, json=True, plain=True
    ) == parse([*argv, "--json", "--plain"])


def test_the_doctor_needs_nothing_and_takes_a_url():
    nothing = DoctorArguments(
        url=None, headers=(), subprotocols=(), pings=5, timeout=10, json=False, plain=False
    )
    argv = ["doctor", URL, "-H", "X-A:1", "--subprotocol", "v1", "--pings", "2", "--timeout", "3"]

    assert nothing == parse(["doctor"])
    assert attrs.evolve(nothing, json=True) == parse(["doctor", "--json"])
    assert DoctorArguments(
        url=URL,
        headers=(("X-A", "1"),),
        subprotocols=("v1",),
        pings=2,
        timeout=3,
        json=False,
        plain=True,
    ) == parse([*argv, "--plain"])


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["listen"], "a URL is expected, or --replay FILE"),
        (["listen", URL, URL], "too many arguments"),
        (["listen", URL, "--bogus"], "unknown option --bogus"),
        (["listen", URL, "--js"], "unknown option --js"),
        (["listen", URL, "-x"], "unknown option -x"),
        (["listen", URL, "--send"], "expected one argument"),
        (["listen", URL, "--send", "\udc80"], "not valid Unicode"),
        (["listen", URL, "--header", "X-A"], "a header is NAME:VALUE"),
        (["listen", URL, "--header", ": 1"], "a header is NAME:VALUE"),
        (["listen", URL, "--header", "X A: 1"], "a header is NAME:VALUE"),
        (["demo", "--seconds", "soon"], "a number from 1 to 3600"),
        (["demo", "--seconds", "0.5"], "a number from 1 to 3600"),
        (["demo", "--seconds", "nan"], "a number from 1 to 3600"),
        (["demo", "--seconds", "inf"], "a number from 1 to 3600"),
        (["demo", "--seed", "x"], "a whole number"),
        (["demo", URL], "too many arguments"),
        (["backoff", "--clients", "0"], "a whole number from 1 to 100000"),
        (["backoff", "--clients", "1.5"], "a whole number from 1 to 100000"),
        (["backoff", "--clients", "9" * 5000], "a whole number from 1 to 100000"),
        (["backoff", "--outage", "-1"], "a number from 0 to 86400"),
        (["backoff", "--cap", "0"], "a number from 0.001 to 86400"),
        (["backoff", "shop:retry", "--cap", "5"], "--cap belongs to the default waits"),
        (["backoff", "shop", "retry"], "too many arguments"),
        (["repl"], "the following arguments are required: URL"),
        (["repl", URL, "--wait", "-1"], "a number from 0 to 86400"),
        (["run"], "the following arguments are required: MODULE:NAME"),
        (["run", "bot.py"], "not a file: try bot"),
        (["run", URL], "and no URL"),
        (["run", "bot", "bot"], "too many arguments"),
        (["doctor", URL, URL], "too many arguments"),
        (["doctor", URL, "--bogus"], "unknown option --bogus"),
        (["doctor", URL, "--pings", "0"], "a whole number from 1 to 1000"),
        (["doctor", URL, "--timeout", "0"], "a number from 0.001 to 3600"),
        (["doctor", "-H", "X-A:1"], "for a URL, and there is none"),
        (["doctor", "--subprotocol", "v1"], "for a URL, and there is none"),
        ([URL], "`wsclient listen URL` listens to it"),
        (
            ["dance"],
            "unknown command 'dance'; there are listen, repl, run, demo, backoff and doctor",
        ),
        (["lissten", URL], "unknown command 'lissten': did you mean listen?"),
        (["DOCTOR"], "unknown command 'DOCTOR': did you mean doctor?"),
        (["feed.example"], "unknown command; there are listen, repl, run"),
        (["--bogus", "listen", URL], "unknown option --bogus"),
        ([], "usage: wsclient"),
    ],
)
def test_wrong_usage_is_told_clearly_and_ends_with_status_2(argv, complaint, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(argv)

    printed = capsys.readouterr()

    assert 2 == caught.value.code
    assert complaint in printed.err
    assert "" == printed.out


@pytest.mark.parametrize(
    "argv",
    [
        [f"wss://user:{CANARY}@feed.example/"],
        [f"user:{CANARY}@feed.example"],
        [f"listen-{CANARY}"],
        [CANARY * 3],
        ["--bogus", f"wss://user:{CANARY}@feed.example/"],
        ["listen", URL, f"wss://user:{CANARY}@feed.example/"],
        ["listen", URL, f"--token={CANARY}"],
        ["listen", URL, f"-x{CANARY}"],
        ["listen", URL, "--header", CANARY],
        ["listen", URL, "--header", f"Bearer {CANARY}: x"],
        ["listen", URL, "--hedaer", f"Authorization: {CANARY}"],
        ["listen", "--header", f"Authorization: {CANARY}"],
        ["demo", f"wss://user:{CANARY}@feed.example/"],
        ["demo", "--seconds", CANARY],
        ["run", f"wss://user:{CANARY}@feed.example/"],
        ["backoff", f"wss://user:{CANARY}@feed.example/"],
        ["backoff", "--clients", CANARY],
        ["backoff", "--cap", CANARY],
        ["doctor", URL, f"wss://user:{CANARY}@feed.example/"],
        ["doctor", "-H", f"Authorization: {CANARY}"],
    ],
)
def test_a_complaint_never_quotes_what_could_be_a_secret(argv, capsys):
    with pytest.raises(SystemExit):
        parse(argv)

    assert CANARY not in "".join(capsys.readouterr())


def test_arguments_do_not_show_url_and_headers():
    for command in ("listen", "repl", "doctor"):
        argv = [command, f"wss://u:{CANARY}@h/", "--header", f"Authorization: {CANARY}"]

        assert CANARY not in repr(parse(argv))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--help"], ["listen", "demo", "doctor", "--version"]),
        (["listen", "--help"], ["--send", "--header", "--json", "Exit status", "130", "base64"]),
        (["demo", "--help"], ["--seconds", "--seed", "--plain", "--json", "Exit status"]),
        (["repl", "--help"], ["--history", "--wait", "--header", "/ping", "Exit status", "130"]),
        (["run", "--help"], ["MODULE:NAME", "--reload", "Exit status"]),
        (["backoff", "--help"], ["--clients", "--outage", "--cap", "MODULE:NAME", "Exit status"]),
        (["doctor", "--help"], ["--json", "frame codec", "--pings", "upgrade", "Exit status"]),
        (["--version"], [wsclient.__version__]),
    ],
)
def test_help_and_version_go_to_the_standard_output(argv, words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(argv)

    printed = capsys.readouterr()

    assert 0 == caught.value.code
    assert [] == [word for word in words if word not in printed.out]
    assert "" == printed.err


def test_a_complaint_is_safe_to_print(capsys):
    assert 2 == complain("listen", "no\x1b[2J")
    assert "wsclient listen: error: no\\x1b[2J\n" in capsys.readouterr().err
