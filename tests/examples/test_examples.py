"""Each example is run as its user runs it: a process, its output, and a real server on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

import wsclient
from wsclient.testing import Fault, FaultServer, ServerConnection, echo

EXAMPLES = Path(__file__).parents[2] / "examples"


class Program:
    """An example that runs."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.errors = ""
        """What it wrote to stderr; whole once it has ended."""
        self._received = bytearray()

    async def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        while b"\n" not in self._received:
            data = await self.process.stdout.receive_some()
            assert data, f"the program has ended after {bytes(self._received)!r}:\n{self.errors}"
            self._received += data
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received[:] = rest
        return line.decode()

    async def rest(self) -> list[str]:
        """What is left of its output when it ends."""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self._received += data
        await self.process.wait()
        return bytes(self._received).decode().splitlines()

    async def type(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def end_input(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def read_errors(self) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.errors += data.decode()


Run = Callable[..., AbstractAsyncContextManager[Program]]


@pytest.fixture
def run() -> Run:
    """``async with run("bot.py", url) as program``; a warning in it is an error."""

    @asynccontextmanager
    async def run(name: str, *arguments: str) -> AsyncGenerator[Program, None]:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        program = Program(process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program.read_errors)
                try:
                    yield program
                    await process.wait()
                except BaseException:
                    process.kill()
                    nursery.cancel_scope.cancel()
                    raise
        finally:
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                await trio.aclose_forcefully(stream)

    return run


def test_every_example_is_run_by_a_test() -> None:
    tests = Path(__file__).read_text()
    untested = [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tests]

    assert [] == untested


# --- bot.py -------------------------------------------------------------------------------------


async def ada(connection: ServerConnection) -> None:
    """Comes, and asks; each time under another name."""
    who = f"ada {connection.number}"
    await connection.receive()
    await connection.send(json.dumps({"type": "joined", "who": who}))
    await connection.send(json.dumps({"type": "said", "who": who}))
    await connection.send(json.dumps({"type": "said", "who": who, "text": "!count"}))
    async for _ in connection:
        pass


def spoken(messages: list[str | bytes]) -> list[str]:
    """What the bot said, without its reminders."""
    said = [json.loads(message) for message in messages]
    texts = [message.get("text", message["type"]) for message in said]
    return [text for text in texts if text != "Ask me with !count"]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_bot_comes_back_after_an_outage_and_leaves_in_peace(run: Run) -> None:
    async with FaultServer(handler=ada) as server, run("bot.py", f"{server.url}/chat") as program:
        assert "* ada 1 is here" == await program.line()
        assert "ada 1: !count" == await program.line()
        while len(spoken(server.messages)) < 3:
            await server.wait_messages(len(server.messages) + 1)

        await server.stop()
        await server.start()

        assert (await program.line()).startswith("* away for ")
        assert "* ada 2 is here" == await program.line()
        assert "ada 2: !count" == await program.line()
        while len(spoken(server.messages)) < 6:
            await server.wait_messages(len(server.messages) + 1)
        program.process.send_signal(signal.SIGINT)

        assert ["bye"] == await program.rest()

    assert 0 == program.process.returncode
    assert ["join", "Welcome, ada 1!", "1 so far"] == spoken(server.messages)[:3]
    assert ["join", "Welcome, ada 2!", "2 so far"] == spoken(server.messages)[3:]
    # A message without a text makes its handler raise: told, and no more than that.
    assert 2 == program.errors.count("KeyError: 'text'")
    assert "WARNING connection lost" in program.errors


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM cannot be caught there")
async def test_bot_speaks_when_its_timer_is_due(run: Run) -> None:
    async with (
        FaultServer() as server,
        run("bot.py", f"{server.url}/chat", "--every", "0.1") as program,
    ):
        messages = await server.wait_messages(3)
        program.process.send_signal(signal.SIGTERM)

        assert ["bye"] == await program.rest()

    assert '{"type":"say","text":"Ask me with !count"}' == messages[1] == messages[2]


# --- feed.py ------------------------------------------------------------------------------------


async def count_on(connection: ServerConnection) -> None:
    """Confirms a subscription, and sends two messages."""
    topic = json.loads(await connection.receive())["subscribe"]
    await connection.send(json.dumps({"subscribed": topic}))
    for number in range(2):
        await connection.send(f"{topic}: {number} of connection {connection.number}")
    async for _ in connection:
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_feed_subscribes_anew_and_shows_the_gap(run: Run) -> None:
    async with (
        FaultServer(handler=count_on) as server,
        run("feed.py", f"{server.url}/feed", "quotes") as program,
    ):
        assert "quotes: 0 of connection 1" == await program.line()
        assert "quotes: 1 of connection 1" == await program.line()

        await server.stop()
        await server.start()

        gap = await program.line()
        assert re.fullmatch(r"gap of \d\.\d s: the connection is closed: 1006 .*", gap), gap
        assert "quotes: 0 of connection 2" == await program.line()
        assert "quotes: 1 of connection 2" == await program.line()
        program.process.send_signal(signal.SIGINT)

        assert [] == await program.rest()

    assert 0 == program.process.returncode
    assert 2 * ['{"subscribe": "quotes"}'] == server.messages
    assert "Traceback" not in program.errors


async def test_feed_ends_when_the_server_does_not_know_the_topic(run: Run) -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.receive()
        await connection.send('{"error": "no such topic"}')
        await connection.receive()

    async with (
        FaultServer(handler=refuse) as server,
        run("feed.py", server.url, "nonsense") as program,
    ):
        assert [] == await program.rest()

    assert 1 == program.process.returncode
    assert "ChannelFailed: gave up on ws://127.0.0.1" in program.errors
    assert "does not let us subscribe to 'nonsense'" in program.errors


# --- interactive.py -----------------------------------------------------------------------------


async def test_interactive_obeys_a_pipe(run: Run) -> None:
    async with (
        FaultServer(handler=echo) as server,
        run("interactive.py", server.url) as program,
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


async def test_interactive_closes_at_the_end_of_its_input(run: Run) -> None:
    async with (
        FaultServer(handler=echo) as server,
        run("interactive.py", server.url) as program,
    ):
        await program.type("send the last line has no end\nreceive")
        await program.end_input()
        output = await program.rest()

    assert ["< 'the last line has no end'", "closed: 1000 NORMAL_CLOSURE"] == output[1:]
    assert (0, "") == (program.process.returncode, program.errors)


async def test_interactive_ends_when_the_peer_closes(run: Run) -> None:
    fault = Fault.close(1001, "see you", after_messages=1)
    async with (
        FaultServer([fault]) as server,
        run("interactive.py", server.url) as program,
    ):
        await program.type("send hello\n")
        output = await program.rest()

    assert ["closed: 1001 GOING_AWAY 'see you'"] == output[1:]
    assert (0, "") == (program.process.returncode, program.errors)


async def test_interactive_says_why_it_cannot_connect(run: Run) -> None:
    async with run("interactive.py", "http://127.0.0.1/") as program:
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
async def test_interactive_leaves_a_terminal_cleanly(key: bytes, end: str, status: int) -> None:
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
            program = Program(process)
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


async def test_custom_nursery_is_empty_in_the_end(run: Run) -> None:
    async with (
        FaultServer(handler=echo) as server,
        run("custom_nursery.py", server.url) as program,
    ):
        output = await program.rest()

    questions = [f"question {number}" for number in range(3)]
    assert ["one connection", *questions, "the nursery is empty"] == output
    assert (0, "") == (program.process.returncode, program.errors)
    assert [1000, 1000] == [visit.close.code for visit in server.connections if visit.close]


@pytest.mark.skipif(not hasattr(trio.socket, "AF_UNIX"), reason="needs Unix sockets")
async def test_custom_stream_counts_the_bytes_of_a_unix_socket(run: Run, tmp_path: Path) -> None:
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
            async with run("custom_stream.py", str(path), "hello, socket") as program:
                output = await program.rest()

    counted = f"{carried['up']} bytes sent, {carried['down']} received"
    assert ["hello, socket", counted] == output
    assert (0, "") == (program.process.returncode, program.errors)
    assert (b"host", b"localhost") in server.connections[0].headers


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
async def test_server_serves_what_the_examples_ask_for(run: Run) -> None:
    async with run("server.py", "--port", "0") as program:
        chat, feed, other = [await program.line() for _ in range(3)]
        async with wsclient.open_channel(other) as channel:
            await channel.send("hello")
            echoed = await channel.receive()
        async with run("feed.py", feed, "quotes") as follower:
            quote = json.loads(await follower.line())
            follower.process.send_signal(signal.SIGINT)
        async with run("bot.py", chat) as bot:
            heard = [await bot.line() for _ in range(3)]
            bot.process.send_signal(signal.SIGINT)
        program.process.send_signal(signal.SIGINT)
        printed = await program.rest()

    assert "hello" == echoed
    assert "quotes" == quote["topic"]
    assert ["* ada is here", "ada: hello", "ada: !count"] == heard
    assert ["join", "Welcome, ada!"] == spoken(list(printed))[:2]
    assert [0, 0, 0] == [each.process.returncode for each in (program, follower, bot)]
