"""No command shows a secret: canaries wherever one goes in, and every way to print and to fail."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from wsclient.cli import main
from wsclient.testing import (
    BAD_ACCEPT,
    GARBAGE_ANSWER,
    NONE,
    REJECT_503,
    RESET_AFTER_OPEN,
    Fault,
    FaultServer,
)

CANARY = "c4n4ry"
TOKEN = f"{CANARY}-token"  # As some services want it: for a subprotocol.

posix = pytest.mark.skipif(os.name == "nt", reason="no such terminals there")

GIVE_UP = Fault.close(3003, after=0.2)
STORIES = {
    "401, with what we said": [
        Fault.reject(401, headers={"X-Echo": CANARY}, body=CANARY.encode()),
    ]
    * 2,
    "a redirect": [Fault.reject(302, headers={"Location": f"wss://{CANARY}@x.test/?{CANARY}"})],
    "no WebSocket server": [GARBAGE_ANSWER],
    "wrong answer": [BAD_ACCEPT],
    "a rough life": [REJECT_503, RESET_AFTER_OPEN, GIVE_UP],
}
FAILURES = ["401, with what we said", "a redirect", "no WebSocket server", "wrong answer"]


def secret_url(server):
    return f"ws://{CANARY}user:{CANARY}pass@{server.host}:{server.port}/{CANARY}?key={CANARY}"


def secret_arguments(server):
    header = f"Authorization: Bearer {CANARY}"
    # The server takes the first one that it is offered.
    return [secret_url(server), "-H", header, "--subprotocol", TOKEN, "--subprotocol", "chat"]


@pytest.fixture
async def serve():
    """A server that takes any subprotocol, and tells it again."""

    def serve(faults):
        return FaultServer(faults, subprotocols=[TOKEN, "chat"])

    return serve


# --- what goes in, and how it is printed ----------------------------------------------------------


@pytest.mark.parametrize("style", [[], ["--json"]], ids=" ".join)
@pytest.mark.parametrize("story", ["401, with what we said", "a redirect", "a rough life"])
async def test_listening_shows_no_secret(start, serve, story, style):
    async with serve(STORIES[story]) as server:
        async with start("listen", *secret_arguments(server), "--send", CANARY, *style) as program:
            code, out, err = await program.end()
        visit = server.connections[0]

    assert 1 == code
    assert f"/{CANARY}?key={CANARY}" == visit.path
    assert [] != out + err
    assert CANARY not in "\n".join(out + err)


@pytest.mark.parametrize("style", [["--plain"], ["--json"]], ids=" ".join)
@pytest.mark.parametrize("story", [*FAILURES, "all is well"])
async def test_the_doctor_shows_no_secret(start, serve, story, style):
    async with serve(STORIES.get(story, [NONE])) as server:
        async with start("doctor", *secret_arguments(server), "--pings", "1", *style) as program:
            code, out, err = await program.end()

    assert (story != "all is well") == code
    assert any("upgrade" in line for line in out)
    assert CANARY not in "\n".join(out + err)
    if story == "all is well":
        told = json.loads(out[2]) if style == ["--json"] else out[3]

        assert (told["subprotocol"] == 1) if style == ["--json"] else "subprotocol 1 of" in told


async def test_the_doctor_shows_no_secret_where_nobody_is(start):
    url = f"ws://{CANARY}:{CANARY}@127.0.0.1:9/{CANARY}"
    async with start("doctor", url, "-H", f"X-Key: {CANARY}", "--json") as program:
        code, out, err = await program.end()

    assert 1 == code
    assert CANARY not in "\n".join(out + err)


@pytest.mark.parametrize("style", [["--plain"], ["--json"]], ids=" ".join)
@pytest.mark.parametrize("story", ["401, with what we said", "a rough life"])
async def test_a_conversation_shows_no_secret_of_its_opening(start, serve, story, style):
    async with serve(STORIES[story]) as server:
        async with start(
            "repl",
            *secret_arguments(server),
            "--wait",
            "20",
            *style,
            stdin=subprocess.PIPE,
        ) as program:
            await program.process.stdin.send_all(f"{CANARY}\n".encode())
            code, out, err = await program.end()

    assert 1 == code
    assert CANARY not in "\n".join(out + err)


@posix
@pytest.mark.parametrize("story", ["401, with what we said", "a rough life"])
@pytest.mark.parametrize("command", ["listen", "doctor", "repl"])
async def test_no_picture_shows_a_secret(open_terminal, serve, story, command):
    async with serve(STORIES[story]) as server:
        async with open_terminal(command, *secret_arguments(server)) as terminal:
            if command == "repl":
                for asked in (b"/explain\r", b"/statistics\r", b"/help\r"):
                    terminal.type(asked)
            code = await terminal.end()

    assert 1 == code
    assert len(terminal.text) > 50
    assert CANARY not in terminal.text


# --- a bot's module -------------------------------------------------------------------------------

BOT = """
import os
import wsclient

async def url():
    return os.environ["BOT_URL"]

async def credentials(fresh):
    return "Bearer " + os.environ["BOT_TOKEN"]

async def no_credentials(fresh):
    raise LookupError("the vault is shut")

options = wsclient.ConnectionOptions(
    extra_headers={"X-Key": os.environ["BOT_TOKEN"]},
    subprotocols=[os.environ["BOT_TOKEN"] + "-token"],
)
bot = wsclient.Bot(url, credentials=credentials, connection=options)
fixed = wsclient.Bot(os.environ["BOT_URL"], credentials=credentials, connection=options)
shut = wsclient.Bot(url, credentials=no_credentials, connection=options)
raising = wsclient.Bot(url, handler_errors=wsclient.HandlerErrors.RAISE)

@raising.on_connect
async def say_hello(connection):
    await raising.send({"token": os.environ["BOT_TOKEN"], "x": object()})
"""

LOGGED = """
import logging
import structlog
logging.basicConfig(level="DEBUG")
structlog.configure()  # To the standard output, with the variables that rich shows.
"""

BROKEN = """
import os
import wsclient
bot = wsclient.Bot(os.environ["BOT_URL"] + " ")
"""


@pytest.mark.parametrize("name", ["bot", "fixed", "shut", "raising"])
async def test_running_a_bot_shows_no_secret(start, serve, tmp_path, monkeypatch, name):
    (tmp_path / "secretive.py").write_text(LOGGED + BOT)
    monkeypatch.setenv("BOT_TOKEN", CANARY)
    async with serve([Fault.reject(401, body=CANARY.encode())] * 3) as server:
        monkeypatch.setenv("BOT_URL", secret_url(server))
        async with start("run", f"secretive:{name}", cwd=tmp_path) as program:
            code, out, err = await program.end()

    assert 1 == code
    assert "gave up" in "\n".join(err)
    assert "connection attempted" in "\n".join(out)
    assert CANARY not in "\n".join(out + err)


async def test_a_bot_that_raises_shows_no_secret(start, serve, tmp_path, monkeypatch):
    (tmp_path / "secretive.py").write_text(BOT)
    monkeypatch.setenv("BOT_TOKEN", CANARY)
    async with serve([NONE] * 3) as server:
        monkeypatch.setenv("BOT_URL", secret_url(server))
        async with start("run", "secretive:raising", cwd=tmp_path) as program:
            code, out, err = await program.end()

    assert 1 == code
    assert "CodecError" in "\n".join(err)
    assert CANARY not in "\n".join(out + err)


async def test_a_module_that_cannot_be_imported_shows_no_secret(start, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.setenv("BOT_URL", f"ws://u:{CANARY}@h/{CANARY}")
    for command in ("run", "backoff"):
        async with start(command, "broken:bot", cwd=tmp_path) as program:
            code, out, err = await program.end()

        assert 1 == code
        assert "ValueError: URL must not contain spaces" in "\n".join(err)
        assert CANARY not in "\n".join(out + err)


# --- wrong usage ----------------------------------------------------------------------------------

URL = f"ws://{CANARY}:{CANARY}@h.test/{CANARY}?{CANARY}"
WRONG = [
    [f"--token={CANARY}"],
    [f"--json={CANARY}"],
    [f"--plain={CANARY}"],
    [f"--quiet={CANARY}"],
    [f"--reload={CANARY}"],
    [f"--help={CANARY}"],
    # Where -H was meant.
    [f"-x{CANARY}"],
    [CANARY, CANARY, CANARY],
    ["--", CANARY, CANARY, CANARY],
    ["-H", CANARY],
    ["-H", f"Bearer {CANARY}: x"],
    ["-H", f"X-Key: {CANARY}\n"],
    [f"--header={CANARY}"],
    ["--subprotocol", f"Bearer {CANARY}"],
    ["--subprotocol", CANARY, "--subprotocol", CANARY],
    [f"--wait={CANARY}"],
    [f"--pings={CANARY}"],
    [f"--timeout={CANARY}"],
    [f"--seconds={CANARY}"],
    [f"--seed={CANARY}"],
    [f"--clients={CANARY}"],
    [f"--outage={CANARY}"],
    [f"--cap={CANARY}"],
]
FIRST = {"listen": [URL], "repl": [URL], "doctor": [URL], "run": ["m:b"]}


@pytest.mark.parametrize("command", ["listen", "repl", "run", "demo", "backoff", "doctor"])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: " ".join(wrong).replace(CANARY, "…"))
def test_wrong_usage_is_told_without_what_was_typed(command, wrong, capsys):
    assert 2 == main([command, *FIRST.get(command, []), *wrong])

    printed = capsys.readouterr()

    assert "" == printed.out
    assert printed.err.startswith(f"wsclient {command}: error: ")
    assert CANARY not in printed.err


@pytest.mark.parametrize("command", ["listen", "repl", "run", "demo", "backoff", "doctor"])
def test_a_header_that_is_taken_for_a_wish_for_help_is_not_shown(command, capsys):
    # From Python 3.13 on, argparse helps; before, it complains.
    assert main([command, *FIRST.get(command, []), f"-hAuthorization: {CANARY}"]) in (0, 2)
    assert CANARY not in "".join(capsys.readouterr())


@pytest.mark.parametrize("command", ["listen", "repl", "run", "demo", "backoff", "doctor"])
@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{CANARY}@h.test/",
        f"ws://u:{CANARY}/@h.test/",
        f"ws://u:{CANARY}@h.test:0/",
        f"ws://h.test/{CANARY} x",
        f"ws://h.test/{CANARY}é",
    ],
    ids=lambda url: url.replace(CANARY, "…"),
)
def test_a_url_that_cannot_be_used_is_not_shown(command, url, capsys):
    assert 2 == main([command, url])
    assert CANARY not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "argv",
    [[URL], [f"--token={CANARY}"], [f"-t{CANARY}"], [CANARY], ["--", URL], [f"--version={CANARY}"]],
    ids=lambda argv: " ".join(argv).replace(CANARY, "…"),
)
def test_what_is_no_command_is_not_shown(argv, capsys):
    assert 2 == main(argv)
    assert CANARY not in "".join(capsys.readouterr())
