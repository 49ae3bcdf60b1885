"""``wsclient listen``, as a process, against servers that misbehave."""

from __future__ import annotations

import json
import os
import signal
import sys
from types import SimpleNamespace

import pytest

import wsclient
from wsclient.cli import main
from wsclient.cli._arguments import ListenArguments, parse
from wsclient.cli._listen import Voice, _observers, prepare
from wsclient.cli._printer import Printer
from wsclient.session._records import JournalFiles, JournalRecord, encode
from wsclient.testing import ACCEPT_THEN_CLOSE, NONE, REJECT_401, REJECT_404, Fault, FaultServer

CANARY = "canary"

posix = pytest.mark.skipif(os.name == "nt", reason="no such signals there")


def greet(*messages):
    async def handler(connection):
        for message in messages:
            await connection.send(message)
        async for _ in connection:
            pass

    return handler


async def flood(connection):
    while connection.is_open:
        await connection.send("x" * 100)


def has_traceback(lines):
    return any("Traceback" in line or "Exception" in line for line in lines)


async def test_messages_are_lines_of_stdout_and_the_story_is_on_stderr(start):
    messages = ["hello", "two\nlines", "\x1b[2J\x07\u202e", b"\x00\x01", ""]
    async with (
        FaultServer(handler=greet(*messages)) as server,
        start("listen", server.url) as program,
    ):
        for expected in (
            "hello",
            "two\\nlines",
            "\\x1b[2J\\x07\\u202e",
            "[binary, 2 bytes] 0001",
            "",
        ):
            assert expected == await program.out.line()

        assert f"* connecting to {server.url}" == await program.err.line()
        assert "* connected" == await program.err.line()


async def test_it_survives_a_restart_of_the_server(start):
    async with (
        FaultServer(handler=greet("hello")) as server,
        start("listen", server.url) as program,
    ):
        assert "hello" == await program.out.line()

        await server.stop(graceful=True)
        await program.err.wait_for("* lost after")
        await program.err.wait_for("* connecting again in")
        await program.err.wait_for("* attempt 2 failed")
        await server.start()

        await program.err.wait_for("may be missing")
        await program.err.wait_for("* connected again")
        assert "hello" == await program.out.line()


async def test_it_survives_deaths_of_every_kind(start):
    faults = [ACCEPT_THEN_CLOSE, Fault.reset(), Fault.reject(503), NONE]
    async with (
        FaultServer(faults, handler=greet("at last")) as server,
        start("listen", server.url) as program,
    ):
        assert "at last" == await program.out.line()


async def test_messages_are_sent_once_in_their_order(start):
    async with FaultServer([Fault.reset(after_messages=3), NONE]) as server:
        await server.stop()
        async with start("listen", server.url, "--send", "a", "--send", "b", "--send", "c") as it:
            await it.err.wait_for("attempt 1 failed")
            await server.start()
            await server.wait_messages(3)
            await it.err.wait_for("* connected again")
            await server.wait_connections(2)

        assert ["a", "b", "c"] == server.messages


async def test_headers_and_subprotocols_reach_the_server(start):
    async with FaultServer(subprotocols=["v1", "v2"]) as server:
        arguments = ["--header", "X-Room: 5", "-H", "X-Seat:7", "--subprotocol", "v2"]
        async with start("listen", server.url, *arguments) as program:
            await program.err.wait_for("* the server chose a subprotocol")
        visit = server.connections[0]

        assert (b"x-room", b"5") in visit.headers
        assert (b"x-seat", b"7") in visit.headers


# How it ends.


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.parametrize("options", [[], ["--json"]])
async def test_a_signal_closes_the_connection_and_ends_it(start, number, status, options):
    async with FaultServer(handler=greet("hello")) as server:
        async with start("listen", server.url, *options) as program:
            await program.out.wait_for("hello")
            program.process.send_signal(number)
            code, out, err = await program.end()
        visit = await server.wait_over(1)

    assert status == code
    assert not has_traceback(out + err)
    assert "closed" in (out if options else err)[-1]
    assert visit.close is not None
    assert 1000 == visit.close.code


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_a_signal_while_there_is_no_connection_tells_what_was_not_sent(start, number, status):
    async with FaultServer() as server:
        await server.stop()
        async with start("listen", server.url, "--send", "hello") as program:
            await program.err.wait_for("* connecting again in")
            program.process.send_signal(number)
            code, out, err = await program.end()

    assert status == code
    assert [] == out
    assert "* closed; 1 message never written" == err[-1]
    assert not has_traceback(err)


async def test_a_reader_that_has_seen_enough_ends_it_without_an_error(start):
    async with (
        FaultServer(handler=flood) as server,
        start("listen", server.url) as program,
    ):
        await program.out.line()
        await program.out.aclose()
        err = await program.err.rest()
        code = await program.process.wait()

    assert 0 == code
    assert ["* connected", "* closed"] == err[1:]


@posix
async def test_head_in_a_shell_gets_its_line_and_nothing_else(start):
    async with FaultServer(handler=flood) as server:
        script = f'"{sys.executable}" -m wsclient listen --quiet {server.url} | head -n 1'
        async with start(command=["sh", "-c", script]) as program:
            assert (0, ["x" * 100], []) == await program.end()


async def test_a_fatal_refusal_is_one_line_and_status_1(start):
    async with (
        FaultServer([REJECT_404]) as server,
        start("listen", server.url, "--quiet", "--send", "x") as program,
    ):
        code, out, err = await program.end()

    assert 1 == code
    assert [] == out
    assert 1 == len(err)
    assert err[0].startswith(f"wsclient: gave up on {server.url}: ")
    assert "HTTP 404" in err[0]


async def test_what_came_before_a_fatal_end_is_printed(start):
    faults = [Fault.close(3003, "no\x1b[2J", after=0.1)]
    async with (
        FaultServer(faults, handler=greet("hello")) as server,
        start("listen", server.url) as program,
    ):
        code, out, err = await program.end()

    assert 1 == code
    assert ["hello"] == out
    assert err[-1].startswith("wsclient: gave up")
    assert "\x1b" not in "".join(err)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["feed"], 'scheme must be "ws:" or "wss:"'),
        (["http://feed.example/"], "'http://feed.example/' is no WebSocket URL: try ws://feed."),
        (["127.0.0.1:8765"], "'127.0.0.1:8765' is no WebSocket URL: try ws://127.0.0.1:8765"),
        (["ws://"], "the URL has no host"),
        (["ws://feed.example:port/"], "URL is malformed"),
        (["ws://feed.example/ /"], "spaces or control characters"),
        (["ws://feed.example/", "--header", "X-A: \r\nX-B: 1"], "control characters"),
        (["ws://feed.example/", "--header", "X-A: é"], "must be ASCII"),
        (["ws://feed.example/", "--header", "Upgrade: h2c"], "is set by the handshake"),
        (["ws://feed.example/", "--subprotocol", "a b"], "not a subprotocol's name"),
        (["ws://feed.example/", "--subprotocol", "a", "--subprotocol", "a"], "offered twice"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_tried(arguments, complaint, capsys):
    assert 2 == main(["listen", *arguments])

    printed = capsys.readouterr()
    first, second = printed.err.splitlines()

    assert "" == printed.out
    assert first.startswith("wsclient listen: error: ")
    assert complaint in first
    assert "Try 'wsclient listen --help'." == second


# The journal.


async def test_what_is_received_is_kept_and_can_be_printed_again(start, tmp_path):
    file = str(tmp_path / "feed.journal")
    faults = [Fault.close(1012, "back soon", after=0.2), NONE]
    async with (
        FaultServer(faults, handler=greet("hello", b"\xff")) as server,
        start("listen", server.url, "--journal", file) as program,
    ):
        first = [await program.out.line() for _ in range(4)]
        program.process.terminate()
        status, out, _ = await program.end()
    async with start("listen", "--replay", file) as program:
        again = await program.end()

    assert 0 == status
    assert first == out
    assert (0, first) == again[:2]
    assert again[2][0].startswith("* messages of ")
    assert again[2][0].endswith("1012 SERVICE_RESTART 'back soon'")


@posix
async def test_a_journal_that_fails_is_told_even_if_quiet(start, tmp_path):
    """And the program goes on: it is beside the session."""
    file = str(tmp_path / "feed.journal")
    another = JournalFiles(file, 2**20, 4)  # Somebody else's, who has it open.
    another.write([encode(JournalRecord(time=1.0, epoch=1, item="hello"))], 1.0)
    async with (
        FaultServer(handler=greet("hello")) as server,
        start("listen", server.url, "--quiet", "--journal", file) as program,
    ):
        assert "hello" == await program.out.line()
        told = await program.err.line()
    another.close()

    assert told.startswith(f"* the journal is not written: {file}: another channel or program")


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("nowhere/feed.journal", "the journal cannot be written: "),
        ("", "the journal cannot be written: Is a directory"),
        ("other", "the file is no journal"),
    ],
)
def test_a_journal_that_cannot_be_written_is_told_before_anything_is_tried(
    tmp_path, capsys, place, complaint
):
    (tmp_path / "other").write_text("hello\n")

    assert 2 == main(["listen", "ws://h.test/", "--journal", str(tmp_path / place)])

    printed = capsys.readouterr()

    assert "" == printed.out
    assert complaint in printed.err


def test_a_journal_that_is_there_already_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr("wsclient.open_channel", lambda *_, **options: opened.append(options))
    for _ in range(2):
        prepare(parse(["listen", "ws://h/", "--journal", "feed.journal"]), Printer(None, None))
        files = JournalFiles("feed.journal", 2**20, 4)
        files.write([encode(JournalRecord(time=1.0, epoch=1, item="hello"))], 1.0)
        files.close()

    assert ["feed.journal"] * 2 == [options["journal"].path for options in opened]


def test_quiet_tells_of_the_journal_and_of_nothing_else(capsys):
    arguments = parse(["listen", "ws://h/", "--quiet", "--journal", "feed.journal"])
    told = []
    printer = SimpleNamespace(tell=told.append)
    [observer] = _observers(arguments, Voice(printer), printer)
    observer(wsclient.JournalFailed(channel="h", cause="the disk is full"))
    observer(wsclient.SuspendDetected(channel="h", duration=5.0))
    observer(wsclient.JournalRecovered(channel="h"))

    assert [
        "* the journal is not written: the disk is full",
        "* the journal is written again",
    ] == told


# Secrets.


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("faults", [[Fault.close(3003, after=0.1)], [REJECT_401]])
async def test_secrets_of_the_url_and_the_headers_are_never_printed(start, faults, options):
    async with FaultServer(faults, handler=greet("hello")) as server:
        url = f"ws://user:{CANARY}@{server.host}:{server.port}/{CANARY}?token={CANARY}"
        header = f"X-Token: {CANARY}"
        async with start("listen", url, "--header", header, *options) as program:
            code, out, err = await program.end()
        visit = server.connections[0]

    assert 1 == code
    assert visit.path == f"/{CANARY}?token={CANARY}"
    assert CANARY not in "\n".join(out + err)


@pytest.mark.parametrize(
    "arguments",
    [
        [f"ws://user:{CANARY}/@feed.example/"],
        [f"ws://user:{CANARY}#@feed.example/"],
        [f"ws://user:{CANARY}@feed.example:0/"],
        [f"http://user:{CANARY}@feed.example/"],
        [f"ws://feed.example/?{CANARY} "],
        [f"ws://feed.example/?{CANARY}é"],
        ["ws://feed.example/", "--header", f"X-Token: {CANARY}\n"],
        ["ws://feed.example/", "--header", f"X-Token: {CANARY}é"],
        ["ws://feed.example/", "--header", f"Upgrade: {CANARY}"],
    ],
)
def test_a_complaint_about_a_secret_does_not_tell_it(arguments, capsys):
    assert 2 == main(["listen", *arguments])
    assert CANARY not in "".join(capsys.readouterr())


# JSON.


async def test_json_is_one_object_a_line_with_gaps_in_their_place(start):
    faults = [Fault.close(1012, "back \u202e soon", after=0.2), NONE]
    async with (
        FaultServer(faults, handler=greet("hello\n", b"\xff")) as server,
        start("listen", server.url, "--json") as program,
    ):
        objects = []
        while [item["event"] for item in objects].count("message") < 4:
            line = await program.out.line()
            assert line.isascii()
            objects.append(json.loads(line))
        program.process.terminate()
        _, _, err = await program.end()

    names = [item["event"] for item in objects]
    told = [item for item in objects if item["event"] in ("message", "gap_detected")]

    assert [] == err
    assert [
        {"event": "message", "text": "hello\n"},
        {"event": "message", "base64": "/w=="},
    ] == told[:2]
    assert "gap_detected" == told[2]["event"]
    assert (1, 2) == (told[2]["gap"]["after"], told[2]["gap"]["before"])
    assert told[:2] == told[3:]
    assert 1 == names.count("gap_detected")
    assert {"connection_attempted", "connection_ready", "connection_lost"} <= set(names)
    lost = objects[names.index("connection_lost")]
    assert (1012, 1, server.url) == (lost["code"], lost["epoch"], lost["endpoint"])


async def test_quiet_json_is_messages_only(start):
    faults = [Fault.close(1012, after=0.1), NONE]
    async with (
        FaultServer(faults, handler=greet("hello")) as server,
        start("listen", server.url, "--json", "--quiet") as program,
    ):
        lines = [await program.out.line(), await program.out.line()]

    assert ['{"event": "message", "text": "hello"}'] * 2 == lines


def test_nothing_is_logged_twice(tmp_path, monkeypatch):
    """What is told by ourselves has no logging observer beside it."""
    observers = []

    def opened(*_, **options):
        observers.append(options["observers"])

    monkeypatch.setattr("wsclient.open_channel", opened)
    for quiet in (True, False):
        arguments = ListenArguments(
            url="ws://h/", messages=(), headers=(), subprotocols=(), json=False, quiet=quiet
        )
        prepare(arguments, Printer(None, None))

    assert [0, 1] == [len(given) for given in observers]
