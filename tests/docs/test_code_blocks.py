"""The code in the documentation and in the README: it compiles, and what is a program runs.

A block that is a program stands behind a comment with its name: ``<!-- program: hello.py -->``.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import attrs
import pytest
import trio

from wsclient.testing import FaultServer, ServerConnection, echo

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
    "request.py": ["{'op': 'balance', 'id': 1}"],
    "typed.py": ["Trade(price=7.0, size=1.0)", "Quote(bid=6.5, ask=7.5)"],
}
PYTEST_FILES = ("test_bot.py", "test_outage.py", "test_socket.py", "test_thermostat.py")
MODULES = ("thermostat.py",)
OTHERS = (
    "clock.py",
    "dice.py",
    "dice_bot.py",
    "log_in.py",
    "logging_structlog.py",
    "server.py",
    "typed_errors.py",
)


def test_every_program_is_run() -> None:
    run = {*ECHOED, *PYTEST_FILES, *MODULES, *OTHERS}

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


async def test_what_is_wrong_with_a_message_is_as_shown(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/receive-typed-messages.md").read_text(encoding="utf-8")
    output, _ = await run_program("program.py", program("typed_errors.py"), tmp_path)

    assert f"```text\n{output}```" in page


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
    name: str, code: str, folder: Path
) -> AsyncGenerator[tuple[trio.Process, trio.abc.ReceiveStream], None]:
    """A program that runs until the block ends, and its output."""
    (folder / name).write_text(code, encoding="utf-8")
    process = await trio.lowlevel.open_process(
        [sys.executable, "-u", name],
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


def test_readme_shows_the_bot_of_the_tutorial() -> None:
    in_readme = [block.code for block in blocks() if block.page == "README.md"]

    assert program("dice_bot.py") in in_readme
    assert program("dice_bot.py").count("\n") <= 32


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
