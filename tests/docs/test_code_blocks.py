"""The code in the documentation and in the README: it compiles, and what is a program runs.

A block that is a program stands behind a comment with its name: ``<!-- program: hello.py -->``.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import attrs
import pytest
import trio

from wsclient.testing import FaultServer, Handler, ServerConnection, echo

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PLACEHOLDER = "ws://127.0.0.1:8765"

FENCE = re.compile(
    r"^(?:<!-- program: (?P<name>\S+) -->\n)?```python\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@attrs.frozen
class Block:
    page: str
    line: int
    name: str | None
    code: str


@cache
def blocks() -> tuple[Block, ...]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("code")) + 1
            found.append(Block(page.name, line, match["name"], match["code"]))
    return tuple(found)


def every_block() -> pytest.MarkDecorator:
    ids = [f"{block.page}:{block.line}" for block in blocks()]
    return pytest.mark.parametrize("block", blocks(), ids=ids)


def program(name: str) -> str:
    (code,) = [block.code for block in blocks() if block.name == name]
    return code


# --- every block --------------------------------------------------------------------------------


@every_block()
def test_block_compiles(block: Block) -> None:
    compile(block.code, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@every_block()
def test_block_names_what_there_is(block: Block) -> None:
    for module_name, name in re.findall(r"\b(wsclient(?:\.testing)?)\.(\w+)\b", block.code):
        if (module_name, name) != ("wsclient", "testing"):
            assert hasattr(importlib.import_module(module_name), name), name


# --- programs -----------------------------------------------------------------------------------

ECHOED = {
    "rotate.py": ['{"id": 1, "text": "hello"}'],
    "while_connected.py": ["still here"],
    "acked.py": ["<Receipt acknowledged>"],
    "acked_functions.py": ["True"],
    "application_ping.py": ["hello"],
    "classify.py": ["hello"],
    "hello.py": ["hello", "<Receipt written>"],
    "logging_stdlib.py": ["hello"],
    "observers.py": ["hello"],
    "policy.py": ["hello"],
    "own_codec.py": ["7"],
    "record.py": ["hello"],
    "redact.py": ['[\'{"token": "…"}\']'],
    "small.py": ["hello"],
    "refresh.py": ["hello"],
    "request.py": ["{'op': 'balance', 'id': 1}"],
    "typed.py": ["Trade(price=7.0, size=1.0)", "Quote(bid=6.5, ask=7.5)"],
}
PYTEST_FILES = (
    "test_bot.py",
    "test_outage.py",
    "test_socket.py",
    "test_thermostat.py",
    "test_ticker.py",
    "test_ticker_story.py",
)
MODULES = ("thermostat.py", "ticker.py")
FEEDS = ("blocks.py", "graphql.py", "quotes.py")
OTHERS = (
    "clock.py",
    "dice.py",
    "dice_bot.py",
    "log_in.py",
    "logging_structlog.py",
    "metrics.py",
    "play.py",
    "quotes_server.py",
    "replay.py",
    "server.py",
    "service.py",
    "subscribe.py",
    "tracing.py",
    "typed_errors.py",
)


def test_every_program_is_run() -> None:
    run = {*ECHOED, *FEEDS, *PYTEST_FILES, *MODULES, *OTHERS}

    assert run == {block.name for block in blocks() if block.name is not None}


async def run_program(name: str, code: str, folder: Path, *command: str) -> tuple[str, str]:
    """Run a program to its end; return what it wrote to stdout and stderr."""
    file = folder / name
    file.write_text(code, encoding="utf-8")
    done = await trio.run_process(
        [sys.executable, "-W", "error", *command, str(file)],
        cwd=folder,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    errors = done.stderr.decode()
    assert 0 == done.returncode, done.stdout.decode() + errors
    return done.stdout.decode(), errors


@pytest.mark.parametrize("name", ECHOED)
async def test_program_talks_to_a_server_that_echoes(name: str, tmp_path: Path) -> None:
    async with FaultServer(handler=echo) as server:
        code = program(name).replace(PLACEHOLDER, server.url)
        output, _ = await run_program(name, code, tmp_path)

    assert server.url in code
    assert ECHOED[name] == output.splitlines()


async def test_logging_with_the_standard_library_is_as_shown(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/set-up-logging.md").read_text(encoding="utf-8")
    async with FaultServer(handler=echo) as server:
        code = program("logging_stdlib.py").replace(PLACEHOLDER, server.url)
        _, errors = await run_program("program.py", code, tmp_path)

    shown = errors.replace(server.url, PLACEHOLDER).splitlines()
    # How long it took is another time every time.
    shown = [re.sub(r"duration=[\d.]+", "duration=0.003", line) for line in shown]
    assert 2 == len(shown)
    assert all(f"\n{line}\n" in page for line in shown), shown


async def test_logging_with_structlog_merges_the_context(tmp_path: Path) -> None:
    async with FaultServer(handler=echo) as server:
        code = program("logging_structlog.py").replace(PLACEHOLDER, server.url)
        output, errors = await run_program("program.py", code, tmp_path)

    entries = [line for line in output.splitlines() if line.startswith("{")]
    ready = [line for line in entries if '"event": "connection ready"' in line]
    assert 1 == len(ready)
    assert '"service": "quotes"' in ready[0]
    assert '"level": "info"' in ready[0]
    assert "hello" in output.splitlines()
    assert "" == errors


async def test_a_subscription_is_received(tmp_path: Path) -> None:
    async def publish(connection: ServerConnection) -> None:
        assert '{"op": "subscribe", "channel": "trades"}' == await connection.receive()
        for message in (
            '{"op": "subscribed", "channel": "trades"}',
            '{"channel": "trades", "seq": 1, "data": {"price": 7}}',
            '{"op": "ended", "channel": "trades"}',
        ):
            await connection.send(message)
        await connection.wait_over()

    async with FaultServer(handler=publish) as server:
        code = program("subscribe.py").replace(PLACEHOLDER, server.url)
        output, _ = await run_program("program.py", code, tmp_path)

    assert "{'price': 7}\n" == output


async def test_a_subscription_is_received_from_the_server_of_the_examples(
    tmp_path: Path,
) -> None:
    server = (ROOT / "examples/server.py").read_text(encoding="utf-8")
    server = server.replace("default=8765", "default=0")
    async with running("server.py", server, tmp_path) as (_, served):
        url = (await read_until(served, "/feed$")).split()[0].removesuffix("/feed")
        code = program("subscribe.py").replace(PLACEHOLDER, url)
        async with running("subscribe.py", code, tmp_path) as (_, output):
            await read_until(output, r"^\{'at': '\d\d:\d\d:\d\d'\}$", count=2)

    assert f"{url}/feed" in code


async def test_quotes_come_from_the_server_that_is_shown_and_a_gap_where_it_was_away(
    tmp_path: Path, take_port: Callable[[], int]
) -> None:
    port = str(take_port())
    server = program("quotes_server.py").replace("8765", port)
    code = program("quotes.py").replace("8765", port)
    async with running("quotes.py", code, tmp_path) as (_, output):
        async with running("quotes_server.py", server, tmp_path):
            await read_until(output, r"^1\.09$", count=2)
        # It numbers by the second: in so many, one is certainly missed.
        await trio.sleep(2.5)
        async with running("quotes_server.py", server, tmp_path):
            await read_until(output, r"^Gap\(.*after_position=\d+.*\)\n1\.09$")


async def test_what_is_wrong_with_a_message_is_as_shown(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/receive-typed-messages.md").read_text(encoding="utf-8")
    output, _ = await run_program("program.py", program("typed_errors.py"), tmp_path)

    assert f"```text\n{output}```" in page


async def test_metrics_are_scraped_while_the_program_runs(
    tmp_path: Path, take_port: Callable[[], int]
) -> None:
    address = f"http://127.0.0.1:{take_port()}/metrics"
    scraped: list[str] = []

    async def serve(connection: ServerConnection) -> None:
        message = await connection.receive()
        answer = await trio.to_thread.run_sync(urlopen, address)
        with answer:
            scraped.append(answer.read().decode())
        await connection.send(message)
        async for _ in connection:
            pass

    async with FaultServer(handler=serve) as server:
        code = program("metrics.py").replace(PLACEHOLDER, server.url)
        code = code.replace("9464", str(urlsplit(address).port))
        output, _ = await run_program("metrics.py", code, tmp_path)

    assert "hello" == output.strip()
    assert 'wsclient_channels_ready{channel="echo"} 1.0' in scraped[0].splitlines()
    assert 'wsclient_messages_accepted_total{channel="echo"} 1.0' in scraped[0].splitlines()


async def test_a_span_of_the_traced_connection_is_exported(tmp_path: Path) -> None:
    async with FaultServer(handler=echo) as server:
        code = program("tracing.py").replace(PLACEHOLDER, server.url)
        output, _ = await run_program("tracing.py", code, tmp_path)

    assert "hello" == output.splitlines()[0]
    assert '"name": "wsclient.connection"' in output


async def test_what_was_recorded_is_replayed(tmp_path: Path) -> None:
    async with FaultServer(handler=echo) as server:
        code = program("record.py").replace(PLACEHOLDER, server.url)
        await run_program("record.py", code, tmp_path)
    for name in ("replay.py", "play.py"):
        output, _ = await run_program(name, program(name), tmp_path)

        assert ["hello"] == output.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="uses signals and sockets of the Unix domain")
async def test_a_service_tells_systemd_how_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.send('{"type": "quote", "price": 7}')
        async for _ in connection:
            pass

    monkeypatch.chdir(tmp_path)
    told = ""
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as systemd:
        await systemd.bind("notify")
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        async with FaultServer(handler=serve) as server:
            code = program("service.py").replace(PLACEHOLDER, server.url)
            code = code.replace("every(10)", "every(0.01)")
            async with running("service.py", code, tmp_path) as (process, output):
                assert "7" == (await read_until(output, r"7$")).strip()
                while "WATCHDOG=1" not in told:
                    told += (await systemd.recv(65536)).decode() + "\n"
                process.send_signal(signal.SIGTERM)
                assert 0 == await process.wait()
                while "STATUS=" + server.url.rstrip("/") + ": closed" not in told:
                    told += (await systemd.recv(65536)).decode() + "\n"
    once = [line for line in told.splitlines() if not line.startswith(("STATUS=", "WATCHDOG="))]

    assert ["READY=1", "STOPPING=1"] == once


@pytest.mark.parametrize("name", PYTEST_FILES)
async def test_shown_tests_pass(name: str, tmp_path: Path) -> None:
    for module in MODULES:
        (tmp_path / module).write_text(program(module), encoding="utf-8")
    # Plugins that this project's own runs use would only get in the way.
    options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    output, _ = await run_program(name, program(name), tmp_path, *options)

    assert " passed" in output


async def test_shown_tests_fail_without_the_subscription_as_shown(tmp_path: Path) -> None:
    page = (ROOT / "docs/tutorial/test-your-bot.md").read_text(encoding="utf-8")
    (tmp_path / "thermostat.py").write_text(
        program("thermostat.py").replace("    @bot.on_connect\n", ""), encoding="utf-8"
    )
    (tmp_path / "test_thermostat.py").write_text(program("test_thermostat.py"), encoding="utf-8")
    done = await trio.run_process(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=tmp_path,
        capture_stdout=True,
        check=False,
    )
    output = done.stdout.decode()
    (shown,) = re.findall(r"^AssertionError: .*$", page, re.MULTILINE)

    assert 3 == output.count(f"| {shown}\n"), output
    assert "3 failed" in output


@asynccontextmanager
async def running(
    name: str, code: str, folder: Path, *command: str
) -> AsyncGenerator[tuple[trio.Process, trio.abc.ReceiveStream], None]:
    """A program that runs until the block ends, and its output."""
    (folder / name).write_text(code, encoding="utf-8")
    process = await trio.lowlevel.open_process(
        [sys.executable, "-u", *(command or [name])],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await trio.aclose_forcefully(process.stdout)


async def read_until(output: trio.abc.ReceiveStream, pattern: str, *, count: int = 1) -> str:
    received = ""
    while len(re.findall(pattern, received, re.MULTILINE)) < count:
        data = await output.receive_some()
        assert data, f"the program has ended after {received!r}"
        received += data.decode()
    return received


async def test_log_in_reads_no_further_than_it_must(tmp_path: Path) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.receive()
        await connection.send('{"login": "ok"}')
        await connection.receive()
        await connection.send("a trade")
        async for _ in connection:
            pass

    async with FaultServer(handler=serve) as server:
        code = program("log_in.py").replace(PLACEHOLDER, server.url)
        async with running("log_in.py", code, tmp_path) as (_, output):
            assert "a trade" == (await read_until(output, r"trade$")).strip()

    assert '{"op": "subscribe", "topic": "trades"}' == server.messages[1]


async def serve_blocks(connection: ServerConnection) -> None:
    called = json.loads(await connection.receive())
    assert ("eth_subscribe", ["newHeads"]) == (called["method"], called["params"])
    await connection.send(json.dumps({"jsonrpc": "2.0", "id": called["id"], "result": "0x1"}))
    params = {"subscription": "0x1", "result": {"number": "0x10", "hash": "0xabc"}}
    await connection.send(json.dumps({"method": "eth_subscription", "params": params}))
    await listen(connection)


async def serve_graphql(connection: ServerConnection) -> None:
    async for message in connection:
        said = json.loads(message)
        if said["type"] == "connection_init":
            assert {"authorization": "Bearer …"} == said["payload"]
            await connection.send('{"type": "connection_ack"}')
        elif said["type"] == "subscribe":
            is_query = said["id"].startswith("q")
            payload = {"data": {"price": 1.09 if is_query else 1.1}}
            await connection.send(
                json.dumps({"type": "next", "id": said["id"], "payload": payload})
            )
            if is_query:
                await connection.send(json.dumps({"type": "complete", "id": said["id"]}))


async def serve_quotes(connection: ServerConnection) -> None:
    assert {"op": "subscribe", "topic": "EUR"} == json.loads(await connection.receive())
    await connection.send('{"op": "ok", "topic": "EUR"}')
    for offset in (1, 3):
        await connection.send(json.dumps({"topic": "EUR", "offset": offset, "data": 1.09}))
    await listen(connection)


async def listen(connection: ServerConnection) -> None:
    async for _ in connection:
        pass


@pytest.mark.parametrize(
    ("name", "serve", "shown"),
    [
        ("blocks.py", serve_blocks, r"0x10 0xabc"),
        ("graphql.py", serve_graphql, r"\{'data': \{'price': 1\.09\}\}\n1\.1"),
        ("quotes.py", serve_quotes, r"1\.09\nGap\(.*after_position=1, before_position=3\)\n1\.09"),
    ],
    ids=FEEDS,
)
async def test_feeds_bring_what_is_published(
    name: str, serve: Handler, shown: str, tmp_path: Path
) -> None:
    async with FaultServer(handler=serve, subprotocols=["graphql-transport-ws"]) as server:
        code = program(name).replace(PLACEHOLDER, server.url)
        async with running(name, code, tmp_path) as (_, output):
            await read_until(output, rf"^{shown}$")


def test_readme_shows_the_bot_of_the_tutorial() -> None:
    in_readme = [block.code for block in blocks() if block.page == "README.md"]

    assert program("dice_bot.py") in in_readme
    assert program("dice_bot.py").count("\n") <= 32


def test_page_on_the_relay_shows_the_example() -> None:
    example = (ROOT / "examples/relay.py").read_text(encoding="utf-8")
    shown = [block.code for block in blocks() if block.page == "relay-without-loss.md"]

    assert 2 == len(shown)
    assert [] == [code for code in shown if code not in example]


@pytest.mark.skipif(sys.platform == "win32", reason="uses signals")
@pytest.mark.parametrize("name", ["dice.py", "dice_bot.py"])
async def test_tutorial_rolls_on_after_its_server_was_away_and_ends_without_a_word(
    name: str, tmp_path: Path, take_port: Callable[[], int]
) -> None:
    pytest.importorskip("websockets")
    port = take_port()
    server = program("server.py").replace("8765", str(port))
    # A second is long where others wait for it; and every roll a six.
    bot = program(name).replace("8765", str(port)).replace("every(1)", "every(0.1)")
    bot = bot.replace("randint(1, 6)", "randint(6, 6)")

    async with running(name, bot, tmp_path) as (process, output):
        async with running("server.py", server, tmp_path) as (serving, _):
            told = await read_until(output, "rolled 6$", count=2)
            serving.send_signal(signal.SIGINT)
            await serving.wait()
        async with running("server.py", server, tmp_path):
            again = await read_until(output, "missed" if name == "dice_bot.py" else "rolled")
            again += await read_until(output, "rolled 6$", count=5)
            process.send_signal(signal.SIGINT)

            assert 0 == await process.wait()

    assert (name == "dice_bot.py") == ("Hooray!" in told + again) == ("missed " in again)


@pytest.mark.skipif(sys.platform == "win32", reason="no process is replaced there")
async def test_tutorial_bot_starts_anew_when_it_is_saved(tmp_path: Path) -> None:
    command = ["-m", "wsclient", "run", "dice_bot", "--reload"]
    async with FaultServer(handler=echo) as server:
        bot = program("dice_bot.py").replace(PLACEHOLDER, server.url)
        bot = bot.replace("every(1)", "every(0.1)")
        async with running("dice_bot.py", bot, tmp_path, *command) as (process, output):
            await read_until(output, r"^rolled \d$")
            saved = bot.replace('"rolled"', '"saw a"')
            (tmp_path / "dice_bot.py").write_text(saved, encoding="utf-8")
            await read_until(output, r"^saw a \d$")
            process.send_signal(signal.SIGINT)

            assert 0 == await process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="uses signals")
@pytest.mark.parametrize(
    ("how", "closed"),
    [("SIGINT", "1001 GOING_AWAY"), ("SIGQUIT", "1006 ABNORMAL_CLOSURE")],
    ids=["Ctrl-C", "Ctrl-backslash"],
)
async def test_tutorial_survives_its_server(
    how: str, closed: str, tmp_path: Path, take_port: Callable[[], int]
) -> None:
    pytest.importorskip("websockets")
    port = take_port()
    server = program("server.py").replace("8765", str(port))
    clock = program("clock.py").replace("8765", str(port))
    time = r"^\d\d:\d\d:\d\d$"

    async with running("clock.py", clock, tmp_path) as (_, output):
        # The client first: it waits for its server.
        async with running("server.py", server, tmp_path) as (process, _):
            told = await read_until(output, time, count=2)
            process.send_signal(getattr(signal, how))
            told += await read_until(output, "waiting: .*closed.*$")
        async with running("server.py", server, tmp_path):
            again = await read_until(output, rf"gap: \d+\.\d s\n(?:.*\n)*?{time[1:]}")

    assert "    ready: the connection is established" in told.splitlines()
    assert f"    waiting: the connection is closed: {closed}" in told.splitlines()
    assert 1 == again.count("gap: ")
