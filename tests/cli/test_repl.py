"""``wsclient repl``: by hand on a terminal, line by line in a pipe."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from types import SimpleNamespace

import attrs
import pytest
import trio

import wsclient
from wsclient.cli import main
from wsclient.cli._printer import Printer
from wsclient.cli._repl import PlainVoice, Talk, _ping, _pipe, _reconnect, statistics_lines
from wsclient.testing import NONE, REJECT_404, SILENCE, Fault, FaultServer, echo, memory_network

CANARY = "canary"

posix = pytest.mark.skipif(os.name == "nt", reason="no such signals there")


# --- in a pipe ----------------------------------------------------------------------------------


@pytest.fixture
def pipe(start):
    """Runs the program with this input, and returns how it ended.

    The input ends after so many replies, lines that have ``reply`` in them: a server may answer a
    ping, which lets the program end, before it has answered the messages before it.
    """

    async def pipe(data, *arguments, replies=0, reply=""):
        async def feed():
            await program.process.stdin.send_all(data)
            if not replies:
                await program.process.stdin.aclose()

        async with (
            start("repl", *arguments, stdin=subprocess.PIPE) as program,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(feed)
            for _ in range(replies):
                await program.out.wait_for(reply)
            if replies:
                await program.process.stdin.aclose()
            return await program.end()

    return pipe


async def test_each_line_is_a_message_and_what_comes_is_lines(pipe):
    async with FaultServer(handler=echo) as server:
        data = "hello\n\n/quit\r\n größe \\x \n".encode()
        status, out, err = await pipe(data, server.url, replies=4)

    assert ["hello", "", "/quit", " größe \\x "] == server.messages == out
    assert 0 == status
    assert [f"* connecting to {server.url}", "* connected", "* closed"] == err


async def test_with_json_everything_is_objects_with_what_became_of_each_message(pipe):
    async with FaultServer(handler=echo) as server:
        status, out, err = await pipe(
            b"one\ntwo\n", server.url, "--json", replies=2, reply='"event": "message"'
        )

    objects = [json.loads(line) for line in out]
    receipts = [each for each in objects if each["event"] == "receipt"]

    assert (0, []) == (status, err)
    assert ["one", "two"] == [each["text"] for each in objects if each["event"] == "message"]
    assert {(1, "received"), (2, "received")} == {
        (each["message"], each["outcome"]) for each in receipts
    }
    assert all(0 <= each["seconds"] < 5 for each in receipts)
    assert "channel_closed" == objects[-1]["event"]


async def test_more_lines_than_the_outbox_holds_wait_for_room(pipe):
    async with FaultServer(handler=echo) as server:
        data = "".join(f"{number}\n" for number in range(5000)).encode()
        status, out, _ = await pipe(data, server.url, replies=5000)

    assert 0 == status
    assert [str(number) for number in range(5000)] == server.messages == out


async def test_what_is_not_utf_8_is_not_sent_and_fails(pipe):
    for options in ([], ["--json"]):
        async with FaultServer(handler=echo) as server:
            status, out, err = await pipe(b"one\n\xff\nthree\n", server.url, *options)

        assert (1, ["one", "three"]) == (status, server.messages)
        assert "line 2 is not sent: it is not valid UTF-8" in "".join(out if options else err)


async def test_the_end_of_the_input_rides_out_an_outage(pipe):
    async with FaultServer([Fault.reject(503), NONE]) as server:
        status, _, err = await pipe(b"hello\nlast", server.url)

    # The last line needs no end.
    assert (0, ["hello", "last"]) == (status, server.messages)
    assert any("HTTP 503" in line for line in err)


@pytest.mark.parametrize("options", [[], ["--json"]])
async def test_a_gap_is_told(start, options):
    async with (
        FaultServer([Fault.reset(after=0.1), NONE]) as server,
        start("repl", server.url, *options, stdin=subprocess.PIPE) as program,
    ):
        if options:
            assert "gap" in json.loads(await program.out.wait_for("gap_detected"))
        else:
            await program.err.wait_for("may be missing")
        await program.process.stdin.aclose()

        assert 0 == (await program.end())[0]


async def test_with_wait_it_listens_on_after_the_end_of_the_input(pipe):
    async def answer_late(connection):
        async for message in connection:
            await trio.sleep(0.5)
            await connection.send(f"late {message}")

    async with FaultServer(handler=answer_late) as server:
        status, out, _ = await pipe(b"hello\n", server.url, "--wait", "2")

    assert (0, ["late hello"]) == (status, out)


async def test_what_cannot_arrive_in_time_is_told_and_fails(pipe, monkeypatch):
    # A port where nobody listens.
    async with FaultServer() as server:
        url = server.url
    status, out, err = await pipe(b"one\ntwo\n", url)

    assert (1, []) == (status, out)
    assert ["* message 1: cancelled", "* message 2: cancelled"] == err[-2:]


async def test_a_channel_that_gives_up_ends_it_with_status_1(pipe):
    for options in ([], ["--json"]):
        async with FaultServer([REJECT_404]) as server:
            status, out, err = await pipe(b"hello\n", server.url, *options)

        assert 1 == status
        assert err[-1].startswith("wsclient: gave up on ")
        assert "message 1: cancelled" in "".join(err) or '"outcome": "cancelled"' in "".join(out)


async def test_lines_that_wait_for_room_end_with_the_channel(pipe):
    async with FaultServer([Fault.reject(503, retry_after=1), REJECT_404]) as server:
        status, _, err = await pipe(b"line\n" * 3000, server.url)

    assert 1 == status
    assert 1024 == sum("cancelled" in line for line in err)


async def test_a_channel_that_has_given_up_takes_no_more_lines(start):
    async with (
        FaultServer([REJECT_404]) as server,
        start("repl", server.url, stdin=subprocess.PIPE) as program,
    ):
        await program.err.wait_for("404")
        # It is open, and it ends all the same.
        assert 1 == (await program.end())[0]


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_a_signal_ends_it_at_once(start, number, status):
    async with (
        FaultServer(handler=echo) as server,
        start("repl", server.url, stdin=subprocess.PIPE) as program,
    ):
        await program.err.wait_for("connected")
        program.process.send_signal(number)
        code, out, err = await program.end()

    assert (status, [], "* closed") == (code, out, err[-1])


async def test_a_standard_input_that_is_closed_is_at_its_end(start):
    async with FaultServer() as server:
        script = (
            "import sys; sys.stdin = None;"
            " from wsclient.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", script, "repl", server.url]
        async with start(command=command) as program:
            assert 0 == (await program.end())[0]


async def test_a_standard_input_that_cannot_be_read_is_told_and_fails(talk, listener, monkeypatch):
    def fail(*_):
        raise OSError(21, "Is a directory")

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        patch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: 0))
        await _pipe(talk)

    assert ["the standard input cannot be read: Is a directory"] == listener.told
    assert not talk.is_well


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["http://feed.example/"], "wsclient repl: error: "),
        (["ws://feed.example/", "-H", f"Connection: {CANARY}"], "is set by the handshake"),
    ],
)
def test_what_cannot_be_used_is_wrong_usage(argv, text, capsys):
    assert 2 == main(["repl", *argv])
    printed = capsys.readouterr()

    assert text in printed.err
    assert CANARY not in printed.err


# --- on a terminal ------------------------------------------------------------------------------


class Shown:
    """What a terminal shows of what was written to it; knows what the program uses."""

    TOKEN = re.compile(r"\x1b\[(?P<number>[?\d;]*)(?P<final>[A-Za-z])|.", re.DOTALL)

    def __init__(self, width=80):
        self.width = width
        self.rows = [""]
        self.row = self.column = 0
        self.unknown = []

    def write(self, text):
        for found in self.TOKEN.finditer(text):
            if found["final"]:
                self.command(found["final"], found["number"])
            elif found[0] == "\r":
                self.column = 0
            elif found[0] == "\n":
                self.down()
            else:
                self.put(found[0])

    def command(self, final, number):
        row = self.rows[self.row]
        if final == "K":
            self.rows[self.row] = row[: self.column]
        elif final == "C":
            self.column = min(self.width - 1, self.column + int(number or 1))
        elif final == "H":
            self.row = self.column = 0
        elif final == "J":
            self.rows = [""] * len(self.rows)
        elif (final, number) not in {("h", "?2004"), ("l", "?2004")} and final != "m":
            self.unknown.append(final + number)

    def down(self):
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")

    def put(self, character):
        if self.column == self.width:
            self.down()
            self.column = 0
        row = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
        self.column += 1


def shown(terminal, width=80):
    screen = Shown(width)
    screen.write(terminal.text)
    assert [] == screen.unknown
    return [row.rstrip() for row in screen.rows]


async def wait_row(terminal, pattern, width=80):
    """Wait until some row is like this; the rows."""
    while not any(re.fullmatch(pattern, row) for row in shown(terminal, width)):
        assert await terminal.read(), f"no {pattern}: {shown(terminal)}"
    return shown(terminal, width)


async def test_what_is_typed_is_sent_and_told_what_became_of_it(open_terminal):
    async with (
        FaultServer(handler=echo) as server,
        open_terminal("repl", server.url) as terminal,
    ):
        await wait_row(terminal, "1>")
        terminal.type(b"helo\x02l\r")
        await wait_row(terminal, r"\* message 1: received after \S+ ms")
        # The server's answer may come before the proof that it has read the question, and after.
        rows = await wait_row(terminal, "< hello")
        terminal.type(b"//quit\r")
        await wait_row(terminal, r"\* message 2: received after \S+ ms")
        await wait_row(terminal, "< /quit")
        terminal.type(b"\x04")

        assert 0 == await terminal.end()

    assert ["hello", "/quit"] == server.messages
    assert f"* connecting to {server.url}" == rows[0]
    assert "* connected" == rows[1]
    assert "1> hello" == rows[2]
    assert "< hello" in rows
    assert "< /quit" in shown(terminal)
    assert "* closed" == shown(terminal)[-2]
    # Nothing is left of the line.
    assert "" == shown(terminal)[-1]


async def test_what_arrives_while_the_user_types_goes_between_and_not_into_it(open_terminal):
    more = trio.Event()

    async def flood(connection):
        await more.wait()
        for number in range(200):
            await connection.send(f"message number {number} of many")
            if number % 20 == 0:
                await trio.sleep(0.01)
        await trio.sleep_forever()

    async with (
        FaultServer(handler=flood) as server,
        open_terminal("repl", server.url) as terminal,
    ):
        await wait_row(terminal, "1>")
        more.set()
        text = "what I type while it floods, é 日本"
        for character in text:
            terminal.type(character.encode())
            await terminal.read()
        rows = await wait_row(terminal, "< message number 199 of many")
        while not rows[-1].startswith("1> ") or len(rows[-1]) < len(text) - 2:
            await terminal.read()
            rows = shown(terminal)
        terminal.type(b"\x15\x04")

        assert 0 == await terminal.end()

    assert [f"< message number {number} of many" for number in range(200)] == [
        row for row in rows if row.startswith("<")
    ]
    assert 2 + 200 + 1 == len(rows)


async def test_the_commands(open_terminal):
    async with (
        FaultServer(handler=echo) as server,
        open_terminal("repl", server.url, size=(24, 200)) as terminal,
    ):
        await wait_row(terminal, "1>", 200)
        terminal.type(b"/ping\r")
        await wait_row(terminal, r"pong after \S+ ms", 200)
        terminal.type(b"/ex\t\r")
        await wait_row(terminal, r".* has been READY for .*", 200)
        terminal.type(b"/stat\t\r")
        await wait_row(terminal, r"latency p95 .*", 200)
        terminal.type(b"/binary 00 fF\r")
        await wait_row(terminal, r"< \[binary, 2 bytes\] 00ff", 200)
        terminal.type(b"/binary 0\r")
        await wait_row(terminal, r"\* /binary takes pairs of hexadecimal digits.*", 200)
        terminal.type(b"/dance\r")
        await wait_row(terminal, r"\* no command /dance; /help tells which there are", 200)
        terminal.type(b"/help\r")
        await wait_row(terminal, r"/quit .*", 200)
        terminal.type(b"/reconnect because I say so\r")
        await wait_row(terminal, r"\* left after .* because I say so", 200)
        await wait_row(terminal, r"\* messages of .* may be missing", 200)
        await wait_row(terminal, r"\* connected again.*", 200)
        await wait_row(terminal, "2>", 200)
        terminal.type(b"\r/quit\r")

        assert 0 == await terminal.end()

    assert [b"\x00\xff"] == server.messages


async def test_while_there_is_no_connection_it_says_so_and_keeps_what_is_typed(open_terminal):
    async with (
        FaultServer([Fault.reset(after=0.2), NONE]) as server,
        open_terminal("repl", server.url, size=(24, 200)) as terminal,
    ):
        await wait_row(terminal, "1>", 200)
        await server.wait_connections(1)
        await server.stop()
        await wait_row(terminal, "1 waiting>", 200)
        terminal.type(b"/ping\r")
        await wait_row(terminal, r"\* no ping: there is no connection.*", 200)
        terminal.type(b"kept\r")
        await wait_row(terminal, r"2 (waiting|connecting)>", 200)
        # The waits grow meanwhile.
        await wait_row(terminal, r"\* attempt 4 failed.*", 200)
        await server.start()
        terminal.type(b"/reconnect\r")
        await wait_row(terminal, r"\* message 1: received after .*", 200)
        terminal.type(b"\x04")

        assert 0 == await terminal.end()

    assert ["kept"] == server.messages


async def test_a_message_that_may_be_lost_is_told_and_fails(open_terminal):
    async with (
        FaultServer([SILENCE, NONE]) as server,
        open_terminal("repl", server.url) as terminal,
    ):
        await wait_row(terminal, "1>")
        terminal.type(b"hello\r")
        await wait_row(terminal, "2>")
        terminal.type(b"/reconnect\r")
        await wait_row(terminal, r"\* message 1: lost: unknown.*")
        terminal.type(b"\x04")

        assert 1 == await terminal.end()


async def test_a_ping_that_is_lost_with_its_connection_is_told(open_terminal):
    async with (
        FaultServer([SILENCE, NONE]) as server,
        open_terminal("repl", server.url) as terminal,
    ):
        await wait_row(terminal, "1>")
        terminal.type(b"/ping\r")
        await wait_row(terminal, "1> /ping")
        terminal.type(b"/reconnect\r")
        await wait_row(terminal, r"\* the connection was lost before the pong")
        terminal.type(b"\x04")

        assert 0 == await terminal.end()


async def test_a_channel_that_gives_up_leaves_the_terminal_as_it_was(open_terminal):
    async with (
        FaultServer([REJECT_404]) as server,
        open_terminal("repl", server.url) as terminal,
    ):
        assert 1 == await terminal.end()

    assert any(row.startswith("wsclient: gave up on ") for row in shown(terminal))
    assert "\x1b[?2004l" in terminal.text


@posix
async def test_ctrl_c_ends_it_with_status_130_and_without_a_traceback(open_terminal):
    async with (
        FaultServer([SILENCE]) as server,
        open_terminal("repl", server.url) as terminal,
    ):
        await wait_row(terminal, "1>")
        terminal.type(b"hello\r")
        await wait_row(terminal, "2>")
        terminal.type(b"half a mess")
        await wait_row(terminal, "2> half a mess")
        terminal.type(b"\x03")

        assert 130 == await terminal.end()

    assert "Traceback" not in terminal.text
    assert "\x1b[?2004l" in terminal.text
    assert "* message 1: lost: unknown" in shown(terminal)
    assert "" == shown(terminal)[-1]


@posix
async def test_the_terminal_has_its_own_line_editing_back_at_the_end(open_terminal):
    # The same terminal, for a program after it.
    script = (
        "import subprocess, sys, termios;"
        " before = termios.tcgetattr(0);"
        " subprocess.run([sys.executable, '-m', 'wsclient', 'repl', sys.argv[1]]);"
        " print('same' if before == termios.tcgetattr(0) else 'other')"
    )
    async with FaultServer() as server:
        command = [sys.executable, "-c", script, server.url]
        async with open_terminal(command=command) as terminal:
            await wait_row(terminal, "1>")
            terminal.type(b"\x04")
            await terminal.end()

    assert "same" == shown(terminal)[-2]


@posix
async def test_a_new_size_and_a_continuation_draw_the_line_anew(open_terminal):
    async with (
        FaultServer() as server,
        open_terminal("repl", server.url) as terminal,
    ):
        await wait_row(terminal, "1>")
        terminal.type(b"typed")
        await wait_row(terminal, "1> typed")
        for number in (signal.SIGWINCH, signal.SIGCONT):
            drawn = terminal.text.count("1> typed")
            terminal.process.send_signal(number)
            while terminal.text.count("1> typed") == drawn:
                assert await terminal.read()
        terminal.type(b"\x0c")
        await terminal.wait_for("\x1b[2J")
        terminal.type(b"\x15\x04")

        assert 0 == await terminal.end()


async def test_a_history_is_kept_for_the_next_time_and_for_nobody_else(open_terminal, tmp_path):
    file = tmp_path / "history"
    async with FaultServer(handler=echo) as server:
        for keys in (b"\x1b[200~two\nlines\x1b[201~\r", b"\x1b[A\r"):
            async with open_terminal("repl", server.url, "--history", str(file)) as terminal:
                await wait_row(terminal, "1>")
                terminal.type(keys)
                await wait_row(terminal, r"\* message 1: received after .*")
                terminal.type(b"\x04")

                assert 0 == await terminal.end()

    assert ["two\nlines"] * 2 == server.messages
    assert ['"two\\nlines"'] == file.read_text().splitlines()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


async def test_a_history_that_cannot_be_kept_is_told_and_fails(open_terminal, tmp_path):
    file = tmp_path / "no folder" / "history"
    async with (
        FaultServer() as server,
        open_terminal("repl", server.url, "--history", str(file)) as terminal,
    ):
        await wait_row(terminal, "1>")
        terminal.type(b"\x04")

        assert 1 == await terminal.end()

    assert "* the history cannot be kept: No such file or directory" in shown(terminal)


async def test_a_history_that_cannot_be_read_is_told(open_terminal, tmp_path):
    file = tmp_path / "history"
    file.write_text("no JSON\n")
    async with open_terminal("repl", "ws://127.0.0.1:9/", "--history", str(file)) as terminal:
        assert 2 == await terminal.end()

    assert "the history cannot be read" in terminal.text


@pytest.mark.parametrize("options", [["--plain"], ["--json"], []])
async def test_without_line_editing_a_terminal_gives_lines(open_terminal, options):
    term = "xterm" if options else "dumb"
    async with (
        FaultServer(handler=echo) as server,
        open_terminal("repl", server.url, *options, term=term) as terminal,
    ):
        await terminal.wait_for("ready" if "--json" in options else "* connected")
        terminal.type(b"hello\n")
        await server.wait_messages(1)
        terminal.type(b"\x04")

        assert 0 == await terminal.end()

    assert "\x1b" not in terminal.text
    assert ["hello"] == server.messages


async def test_without_colours_there_are_none(open_terminal, monkeypatch):
    script = (
        "import os, sys; os.environ['NO_COLOR'] = '1';"
        " from wsclient.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    async with (
        FaultServer(handler=echo) as server,
        open_terminal(command=[sys.executable, "-c", script, "repl", server.url]) as terminal,
    ):
        await wait_row(terminal, "1>")
        terminal.type(b"hello\r")
        await wait_row(terminal, r"\* message 1: received after .*")
        terminal.type(b"\x04")

        assert 0 == await terminal.end()

    assert [] == re.findall(r"\x1b\[\d+m", terminal.text)


# --- pieces -------------------------------------------------------------------------------------


class FullAtFirst:
    """Something whose inbox is full when it is waited for at first, and not after that."""

    outcome = None

    def __init__(self):
        self.asked = 0

    async def wait(self):
        self.asked += 1
        if self.asked == 1:
            raise wsclient.InboxFull(5, 500)
        self.outcome = wsclient.Outcome.RECEIVED

    flush = wait


class Listener(PlainVoice):
    """Keeps what it is told, also as what answers commands."""

    def __init__(self):
        super().__init__(Printer(None, None))
        self.told = []

    def show(self, message):
        self.told.append(message)

    def complain(self, text):
        self.told.append(text)

    answer = complain


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def talk(listener):
    return Talk(listener, Printer(None, None))


async def test_while_nobody_reads_what_is_printed_the_rest_waits(talk, listener):
    talk.channel, receipt = FullAtFirst(), FullAtFirst()
    async with trio.open_nursery() as talk.nursery:
        await talk._flush()
        talk._follow(receipt)

    assert (2, 2, [], True) == (talk.channel.asked, receipt.asked, listener.told, talk.is_well)


async def test_an_outbox_that_is_full_is_told_and_fails(talk, listener):
    limits = wsclient.Limits(outbox_messages=1)
    async with wsclient.open_channel("ws://127.0.0.1:9/", limits=limits) as talk.channel:
        async with trio.open_nursery() as talk.nursery:
            talk.send_nowait("one")
            talk.send_nowait("two")
            talk.nursery.cancel_scope.cancel()
        await talk.channel.aclose()
    talk.settle_rest()

    assert [
        "not sent: the outbox is full, with 1 message",
        "message 1: cancelled",
    ] == listener.told
    assert not talk.is_well


async def test_a_ping_that_is_not_answered_is_given_up(talk, listener, autojump_clock):
    with memory_network() as network:
        async with (
            FaultServer([SILENCE], network=network) as server,
            wsclient.open_channel(server.url, ready_timeout=5) as talk.channel,
        ):
            await _ping(listener, talk)

    assert ["no pong within 10 s"] == listener.told


async def test_what_connects_already_is_not_told_to(talk, listener):
    async with wsclient.open_channel("ws://127.0.0.1:9/") as talk.channel:
        _reconnect("why", listener, talk)

    assert ["it is about to connect already"] == listener.told


async def test_messages_that_were_dropped_are_no_messages(talk, listener):
    class Dropping:
        name = "feed"

        async def items(self):
            yield wsclient.Overflow(5)
            yield "hello"

        def receive_nowait(self):
            raise trio.EndOfChannel

    talk.channel = Dropping()
    async with trio.open_nursery() as talk.nursery:
        await talk._receive()

    assert ["hello"] == listener.told


async def test_every_statistic_is_told_with_what_it_is():
    async with FaultServer() as server, wsclient.open_channel(server.url) as channel:
        await channel.send("hello")
        await channel.flush()
        lines = statistics_lines(channel.statistics())

    table = dict(re.fullmatch(r"(\S+(?: \S+)*) +(\S.*)", line).groups() for line in lines)

    assert len(attrs.fields(wsclient.ChannelStatistics)) == len(table)
    assert ("ready", "1 received") == (table["state"], table["outcomes"])
    assert re.fullmatch(r"\S+ ms|–", table["latency minimum"])


async def test_statistics_stand_in_one_column_beside_whatever_they_are_called():
    async with FaultServer() as server, wsclient.open_channel(server.url) as channel:
        lines = statistics_lines(channel.statistics())
    names = [field.name.replace("_", " ") for field in attrs.fields(wsclient.ChannelStatistics)]
    column = max(map(len, names)) + 2

    assert [f"{name:<{column}}" for name in names] == [line[:column] for line in lines]
    assert " " not in {line[column] for line in lines}
