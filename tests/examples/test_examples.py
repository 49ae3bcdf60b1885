"""Each example is run as its user runs it: a process, its output, and a real server on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

import wsclient
from wsclient.testing import Fault, FaultProxy, FaultServer, ServerConnection, echo

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_example_is_run_by_a_test() -> None:
    # Those that need a node or a GraphQL server are run where these are.
    tests = "".join(
        path.read_text() for path in Path(__file__).parents[1].glob("*/test_examples.py")
    )
    untested = [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tests]

    assert [] == untested


# --- bot.py, chat_server.py ---------------------------------------------------------------------


class Member:
    """Somebody else in a room of the chat."""

    def __init__(self, room: str, connection: wsclient.WebSocketConnection) -> None:
        self._room = room
        self._connection = connection

    async def say(self, text: str) -> None:
        await self._send(type="say", room=self._room, text=text)

    async def join(self, who: str) -> None:
        await self._send(type="join", room=self._room, who=who)

    async def hear(self) -> str:
        """What the bot says next."""
        while (said := await self._receive())["type"] != "said" or said["who"] != "bot":
            pass
        text: str = said["text"]
        return text

    async def wait_present(self) -> None:
        """Wait until the bot is in the room."""
        while "bot" not in (await self._receive()).get("present", ()):
            pass

    async def wait_absent(self) -> None:
        """Wait until the bot has left the room."""
        while (await self._receive())["type"] != "left":
            pass

    async def _send(self, **message: str) -> None:
        await self._connection.send_message(json.dumps(message))

    async def _receive(self) -> dict[str, Any]:
        with trio.fail_after(20):
            message: dict[str, Any] = json.loads(await self._connection.get_message())
        assert self._room == message["room"]
        return message


@asynccontextmanager
async def member(url: str, room: str, who: str) -> AsyncGenerator[Member, None]:
    async with wsclient.open_websocket_url(url) as connection:
        found = Member(room, connection)
        await found.join(who)
        yield found


@pytest.fixture
def _chat_can_be_served() -> None:
    pytest.importorskip("websockets")
    pytest.importorskip("msgspec")


@pytest.mark.usefixtures("_chat_can_be_served")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_bot_is_back_in_its_rooms_with_its_reminders_after_the_chat_was_killed(
    run_example: Any, take_port: Callable[[], int]
) -> None:
    port = str(take_port())
    async with run_example("bot.py", f"ws://127.0.0.1:{port}/", "lobby", "games") as bot:
        async with run_example("chat_server.py", "--port", port) as chat:
            url = await chat.line()
            async with member(url, "games", "ada") as ada:
                await ada.wait_present()
                await ada.say("!roll 3d6")
                rolled = await ada.hear()
                await ada.say("!roll")
                hint = await ada.hear()
                await ada.say("!remind 0 now")
                kept = [await ada.hear(), await ada.hear()]
                await ada.say("!remind 3600 tea")
                kept.append(await ada.hear())
                chat.process.kill()
        async with run_example("chat_server.py", "--port", port) as chat:
            await chat.line()
            async with member(url, "games", "ada") as ada, member(url, "lobby", "eve") as eve:
                for each in (ada, eve):
                    await each.wait_present()
                await ada.say("!remind 1800 cake")
                kept.append(await ada.hear())
                await eve.say("!roll 1d2")
                rolled_in_lobby = await eve.hear()
            bot.process.send_signal(signal.SIGINT)
            shown = await bot.rest()
            chat.process.send_signal(signal.SIGINT)

    found = re.fullmatch(r"ada rolls (\d+): \[(\d), (\d), (\d)\]", rolled)
    assert found, rolled
    assert int(found[1]) == sum(map(int, found.groups()[1:]))
    assert "Try !roll 2d6, or !remind 10 tea" == hint
    assert ["I keep 1", "ada: now", "I keep 1", "I keep 2"] == kept
    assert re.fullmatch(r"eve rolls ([12]): \[\1\]", rolled_in_lobby)
    assert (0, 0) == (bot.process.returncode, chat.process.returncode)
    assert "[games] ada: !roll 3d6" in shown
    assert any(line.startswith("* away for ") for line in shown)
    assert "bye" == shown[-1]
    assert "Traceback" not in bot.errors + chat.errors


@pytest.mark.usefixtures("_chat_can_be_served")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_bot_says_once_what_fell_due_during_an_outage(run_example: Any) -> None:
    async with run_example("chat_server.py", "--port", "0") as chat:
        url = await chat.line()
        async with (
            FaultProxy(url) as proxy,
            run_example("bot.py", proxy.url, "games") as bot,
            member(url, "games", "ada") as ada,
        ):
            await ada.wait_present()
            await ada.say("!remind 1 tea")
            assert "I keep 1" == await ada.hear()
            due = trio.current_time() + 1
            await proxy.stop()
            await ada.wait_absent()
            await trio.sleep_until(due + 0.5)  # What is waited for is the clock itself.
            await proxy.start()
            await ada.wait_present()
            assert "ada: tea" == await ada.hear()
            await ada.say("!remind 3600 cake")
            assert "I keep 1" == await ada.hear()
            bot.process.send_signal(signal.SIGTERM)
            assert "bye" == (await bot.rest())[-1]
        chat.process.send_signal(signal.SIGINT)


async def test_bot_says_what_is_wrong_with_a_url(run_example: Any) -> None:
    async with run_example("bot.py", "http://127.0.0.1/") as program:
        assert [] == await program.rest()

    assert 1 == program.process.returncode
    told = "bot.py: 'http://127.0.0.1/' is no WebSocket URL: try ws://127.0.0.1/"

    assert told == program.errors.strip()


@pytest.mark.usefixtures("_chat_can_be_served")
@pytest.mark.parametrize("name", ["chat_server.py", "exchange.py", "server.py"])
async def test_servers_say_that_their_port_is_taken(run_example: Any, name: str) -> None:
    async with FaultServer() as server, run_example(name, "--port", str(server.port)) as program:
        assert [] == await program.rest()

    (said,) = program.errors.splitlines()
    assert 1 == program.process.returncode
    assert said.startswith(f"{name}: [Errno ")
    assert "in use" in said


# --- order_book.py, exchange.py -------------------------------------------------------------------


@pytest.mark.usefixtures("_chat_can_be_served")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_order_book_is_the_exchanges_at_every_change_however_often_that_is_killed(
    run_example: Any, take_port: Callable[[], int]
) -> None:
    port = str(take_port())
    shown: list[str] = []
    async with run_example("order_book.py", f"ws://127.0.0.1:{port}/", "ETH-EUR") as book:
        for _ in range(4):
            async with run_example("exchange.py", "--port", port, "--pause", "0.01") as exchange:
                await exchange.line()
                changes = 0
                while changes < 50:
                    shown.append(await book.line())
                    changes += not shown[-1].startswith("--")
                exchange.process.kill()
        book.process.send_signal(signal.SIGINT)
        shown += await book.rest()

    assert 0 == book.process.returncode
    assert "Traceback" not in book.errors
    # The whole book, and from there on each change: the checksum of each was right.
    numbers = [0 if row.startswith("--") else int(row.split()[0]) for row in shown]
    gaps = [index for index, number in enumerate(numbers) if not number]
    assert 3 == len(gaps)
    for first, last in zip([0, *(gap + 1 for gap in gaps)], [*gaps, len(numbers)], strict=True):
        life = numbers[first:last]
        assert list(range(life[0], life[0] + len(life))) == life


@pytest.mark.usefixtures("_chat_can_be_served")
async def test_order_book_says_that_there_is_no_such_market(run_example: Any) -> None:
    async with run_example("exchange.py", "--port", "0") as exchange:
        url = await exchange.line()
        async with run_example("order_book.py", url, "DOGE") as book:
            assert [] == await book.rest()
        exchange.process.kill()

    assert 1 == book.process.returncode
    told = "order_book.py: subscription 'DOGE': JsonRpcError: the peer refuses: no such method"
    assert told in book.errors


# --- feed.py, relay.py ----------------------------------------------------------------------------


class Numbers:
    """Confirms a subscription, and publishes two numbers on each connection: 1, 2; 3, 4; …"""

    def __init__(self, *, resumes: bool) -> None:
        self.asked: list[dict[str, Any]] = []
        self._resumes = resumes

    async def __call__(self, connection: ServerConnection) -> None:
        asked = json.loads(await connection.receive())
        self.asked.append(asked)
        # Who is not resumed has missed one.
        first = asked.get("after", 0) + (1 if self._resumes else 2)
        topic = asked["channel"]
        confirmation = {"op": "subscribed", "channel": topic, "resumed": self._resumes}
        await connection.send(json.dumps(confirmation))
        for number in (first, first + 1):
            await connection.send(json.dumps({"channel": topic, "seq": number, "data": "…"}))
        async for _ in connection:
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
@pytest.mark.parametrize("resumes", [True, False], ids=["resumed", "not resumed"])
async def test_feed_goes_on_where_it_was_or_shows_what_is_missing(
    run_example: Any, resumes: bool
) -> None:
    numbers = Numbers(resumes=resumes)
    async with (
        FaultServer(handler=numbers) as server,
        run_example("feed.py", f"{server.url}/feed", "quotes") as program,
    ):
        before = [await program.line() for _ in range(2)]
        await server.stop()
        await server.start()
        after = [await program.line() for _ in range(2 if resumes else 3)]
        program.process.send_signal(signal.SIGINT)

        assert [] == await program.rest()

    asked = {"op": "subscribe", "channel": "quotes"}
    if resumes:
        assert ["1 …", "2 …", "3 …", "4 …"] == before + after
        assert [asked, asked | {"after": 2}] == numbers.asked
    else:
        assert ["2 …", "3 …", "-- missed: 3 < … < 5", "5 …", "6 …"] == before + after
        assert [asked, asked | {"after": 3}] == numbers.asked
    assert 0 == program.process.returncode
    assert "Traceback" not in program.errors


@pytest.mark.parametrize(
    ("name", "arguments"), [("feed.py", ["nonsense"]), ("relay.py", ["nonsense", "relay.db"])]
)
async def test_feed_and_relay_end_when_the_server_does_not_know_the_topic(
    run_example: Any, name: str, arguments: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    async def refuse(connection: ServerConnection) -> None:
        asked = json.loads(await connection.receive())
        refusal = {"op": "error", "channel": asked["channel"], "error": "no such topic"}
        await connection.send(json.dumps(refusal))
        await connection.wait_over()

    monkeypatch.chdir(tmp_path)
    async with (
        FaultServer(handler=refuse) as server,
        run_example(name, server.url, *arguments) as program,
    ):
        assert [] == await program.rest()

    last = program.errors.splitlines()[-1]
    assert 1 == program.process.returncode
    assert last.startswith(f"{name}: ")
    assert "no such topic" in last
    assert "Traceback" not in program.errors


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_relay_writes_down_what_the_server_cannot_bring_and_does_so_once(
    run_example: Any, tmp_path: Path
) -> None:
    path = tmp_path / "relay.db"
    arrived: list[object] = []

    async def rows(query: str, count: int) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        with closing(sqlite3.connect(path)) as database:
            while len(found) < count:
                with suppress(sqlite3.OperationalError):  # There are no tables yet.
                    found = database.execute(query).fetchall()
                await trio.sleep(0.01)
        return found

    async def forget(connection: ServerConnection) -> None:
        arrived.append(json.loads(await connection.receive()).get("after"))
        await connection.send('{"op": "subscribed", "channel": "n", "resumed": false}')
        number = {1: 5, 2: 9, 3: 10}[connection.number]
        await connection.send(json.dumps({"channel": "n", "seq": number, "data": number}))
        await connection.wait_over()

    messages: list[tuple[Any, ...]] = []
    async with FaultServer(handler=forget) as server:
        for life in range(1, 4):
            async with run_example("relay.py", server.url, "n", str(path)) as program:
                messages = await rows("SELECT number, value FROM messages ORDER BY rowid", life)
                program.process.send_signal(signal.SIGINT)
    gaps = await rows("SELECT after, before FROM gaps ORDER BY rowid", 2)

    assert [(5, "5"), (9, "9"), (10, "10")] == messages
    assert [(0, 5), (5, 9)] == gaps
    assert [0, 5, 9] == arrived
    assert 0 == program.process.returncode


async def test_relay_says_what_is_wrong_with_its_database(run_example: Any, tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    path.write_text("a letter to my mother, which is no database" * 100)
    async with run_example("relay.py", "ws://127.0.0.1:1/", "n", str(path)) as program:
        assert [] == await program.rest()

    assert 1 == program.process.returncode
    assert "relay.py: file is not a database" == program.errors.strip()


# --- interactive.py -----------------------------------------------------------------------------


async def test_interactive_obeys_a_pipe(run_example: Any) -> None:
    async with (
        FaultServer(handler=echo) as server,
        run_example("interactive.py", server.url) as program,
    ):
        await program.type("send hello\nreceive\nping x\nclose 1005\nclose 4000 good night\n")
        output = await program.rest()

    took = re.compile(r"[\d.]+ ms")
    assert [
        "connected; `help` helps",
        "< 'hello'",
        "pong after some time",
        "no: close code 1005 cannot be sent: use 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 §7.4)",
        "closed: 4000 PRIVATE_RESERVED 'good night'",
    ] == [took.sub("some time", line) for line in output]
    assert (0, "") == (program.process.returncode, program.errors)
    assert ["hello"] == server.messages


async def test_interactive_closes_at_the_end_of_its_input(run_example: Any) -> None:
    async with (
        FaultServer(handler=echo) as server,
        run_example("interactive.py", server.url) as program,
    ):
        await program.type("send the last line has no end\nreceive")
        await program.end_input()
        output = await program.rest()

    assert ["< 'the last line has no end'", "closed: 1000 NORMAL_CLOSURE"] == output[1:]
    assert (0, "") == (program.process.returncode, program.errors)


async def test_interactive_ends_when_the_peer_closes(run_example: Any) -> None:
    fault = Fault.close(1001, "see you", after_messages=1)
    async with (
        FaultServer([fault]) as server,
        run_example("interactive.py", server.url) as program,
    ):
        await program.type("send hello\n")
        output = await program.rest()

    assert ["closed: 1001 GOING_AWAY 'see you'"] == output[1:]
    assert (0, "") == (program.process.returncode, program.errors)


async def test_interactive_says_why_it_cannot_connect(run_example: Any) -> None:
    async with run_example("interactive.py", "http://127.0.0.1/") as program:
        assert [] == await program.rest()

    assert 1 == program.process.returncode
    assert 'WebSocket URL scheme must be "ws:" or "wss:"' == program.errors.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' terminals")
@pytest.mark.parametrize(
    ("key", "end", "status"),
    [
        pytest.param(b"\x03", "", 130, id="Ctrl-C"),
        pytest.param(b"\x04", "closed: 1000 NORMAL_CLOSURE", 0, id="Ctrl-D"),
    ],
)
async def test_interactive_leaves_a_terminal_cleanly(
    make_program: Any, key: bytes, end: str, status: int
) -> None:
    master, slave = os.openpty()
    terminal = os.ttyname(slave)
    try:
        async with FaultServer(handler=echo) as server:
            # A session's leader without a terminal gets the first one that it opens.
            process = await trio.lowlevel.open_process(
                f"exec {sys.executable} -W error interactive.py {server.url} <{terminal}",
                shell=True,
                cwd=EXAMPLES,
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            program = make_program(process)
            try:
                assert "connected; `help` helps" == await program.line()
                os.write(master, b"send hello\n")
                assert "< 'hello'" == await program.line()
                os.write(master, key)

                assert [end] == await program.rest()
                await program.read_errors()
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                for stream in (process.stdout, process.stderr):
                    assert stream is not None
                    await trio.aclose_forcefully(stream)
    finally:
        os.close(master)
        os.close(slave)

    assert (status, "") == (process.returncode, program.errors)


# --- custom_nursery.py, custom_stream.py, server.py -------------------------------------------


async def test_custom_nursery_is_empty_in_the_end(run_example: Any) -> None:
    async with (
        FaultServer(handler=echo) as server,
        run_example("custom_nursery.py", server.url) as program,
    ):
        output = await program.rest()

    questions = [f"question {number}" for number in range(3)]
    assert ["one connection", *questions, "the nursery is empty"] == output
    assert (0, "") == (program.process.returncode, program.errors)
    assert [1000, 1000] == [visit.close.code for visit in server.connections if visit.close]


@pytest.mark.skipif(not hasattr(trio.socket, "AF_UNIX"), reason="needs Unix sockets")
async def test_custom_stream_counts_the_bytes_of_a_unix_socket(
    run_example: Any, tmp_path: Path
) -> None:
    # The test kit listens on TCP: this is the way there from a Unix socket.
    path = tmp_path / "service.sock"
    carried = {"up": 0, "down": 0}

    async def carry(source: trio.SocketStream, sink: trio.SocketStream, way: str) -> None:
        async for data in source:
            carried[way] += len(data)
            await sink.send_all(data)
        with suppress(trio.BrokenResourceError):
            await sink.send_eof()

    async with FaultServer(handler=echo) as server, trio.open_nursery() as nursery:

        async def relay() -> None:
            client, _ = await listener.accept()
            stream = trio.SocketStream(client)
            tcp = await trio.open_tcp_stream(server.host, server.port)
            async with stream, tcp, trio.open_nursery() as both:
                both.start_soon(carry, stream, tcp, "up")
                both.start_soon(carry, tcp, stream, "down")

        with trio.socket.socket(trio.socket.AF_UNIX) as listener:
            await listener.bind(str(path))
            listener.listen()
            nursery.start_soon(relay)
            async with run_example("custom_stream.py", str(path), "hello, socket") as program:
                output = await program.rest()

    counted = f"{carried['up']} bytes sent, {carried['down']} received"
    assert ["hello, socket", counted] == output
    assert (0, "") == (program.process.returncode, program.errors)
    assert (b"host", b"localhost") in server.connections[0].headers


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_server_serves_what_the_examples_ask_for(run_example: Any) -> None:
    async with run_example("server.py", "--port", "0") as program:
        feed, other = [await program.line() for _ in range(2)]
        async with wsclient.open_channel(other) as channel:
            await channel.send("hello")
            echoed = await channel.receive()
        async with run_example("feed.py", feed, "quotes") as follower:
            told = [await follower.line() for _ in range(2)]
            follower.process.send_signal(signal.SIGINT)
        # Whoever was away for less than ten seconds is told all.
        protocol = wsclient.JsonPubSub()
        async with wsclient.open_channel(feed, protocol=protocol) as channel:
            number = int(told[0].split()[0])
            async with channel.subscribe("quotes", after=number - 3, commit="before") as quotes:
                numbers = [(await quotes.receive(), quotes.position)[1] for _ in range(5)]
        program.process.send_signal(signal.SIGINT)

        assert [] == await program.rest()

    assert "hello" == echoed
    assert all(re.fullmatch(r"\d+ \{'at': '\d\d:\d\d:\d\d'\}", line) for line in told), told
    assert list(range(number - 2, number + 3)) == numbers
    assert [0, 0] == [each.process.returncode for each in (program, follower)]
