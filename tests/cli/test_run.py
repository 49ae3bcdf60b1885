"""``wsclient run``: a bot from a module, and the same again when its source changes."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
import trio

import wsclient
from wsclient.cli import _run, main
from wsclient.cli._run import run_reloading
from wsclient.testing import REJECT_404, FaultServer

posix = pytest.mark.skipif(os.name == "nt", reason="no such signals there")

BOT = """
import sys
import trio
import wsclient

bot = wsclient.Bot({url!r}, observers=())

@bot.on_connect
async def say_hello(connection):
    await connection.send_message({word!r})

@bot.on("work")
async def work(message):
    await bot.send("begun")
    await trio.sleep(message["seconds"])
    await bot.send("done")

@bot.on("fail")
def fail(message):
    raise ZeroDivisionError("bang")

class Odd: pass
number = 5
"""


def write(folder, url, word="hello", name="bot_of_a_test.py"):
    (folder / name).write_text(BOT.format(url=url, word=word))


async def sent(server, number):
    """The server's message of this number, from 1 on."""
    await server.wait_messages(number)
    return server.messages[number - 1]


# --- one run ------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_bot_of_the_current_folder_runs_until_it_is_told_to_stop(start, tmp_path, number):
    async with FaultServer() as server:
        write(tmp_path, server.url)
        async with start("run", "bot_of_a_test:bot", cwd=tmp_path) as program:
            assert "hello" == await sent(server, 1)
            program.process.send_signal(number)

            assert (0, [], []) == await program.end()


@posix
async def test_the_first_signal_lets_a_handler_finish(start, tmp_path):
    async with FaultServer(handler=order_work("0.5")) as server:
        write(tmp_path, server.url)
        async with start("run", "bot_of_a_test", cwd=tmp_path) as program:
            assert '"begun"' == await sent(server, 2)
            program.process.send_signal(signal.SIGINT)

            assert (0, [], []) == await program.end()
    assert '"done"' == server.messages[2]


@posix
async def test_the_second_signal_ends_it_at_once_with_status_130(start, tmp_path):
    async with FaultServer(handler=order_work("60")) as server:
        write(tmp_path, server.url)
        async with start("run", "bot_of_a_test", cwd=tmp_path) as program:
            assert '"begun"' == await sent(server, 2)
            program.process.send_signal(signal.SIGINT)
            # Two of one kind that nobody has heard are one.
            program.process.send_signal(signal.SIGTERM)

            assert (130, [], []) == await program.end()


@posix
@pytest.mark.parametrize("arguments", [[], ["--reload"]])
async def test_a_program_that_runs_its_bot_itself_serves_once_and_obeys_one_signal(
    start, tmp_path, arguments
):
    async with FaultServer() as server:
        write(tmp_path, server.url)
        with (tmp_path / "bot_of_a_test.py").open("a") as file:
            file.write("\nbot.run()\n")
        async with start("run", "bot_of_a_test", *arguments, cwd=tmp_path) as program:
            assert "hello" == await sent(server, 1)
            program.process.send_signal(signal.SIGTERM)

            status, out, err = await program.end()
    assert (0, []) == (status, out)
    assert err == ["* bot_of_a_test runs its bot as it is imported: that was left out"]
    assert ["hello"] == server.messages


@posix
@pytest.mark.parametrize("has_log", [False, True])
async def test_what_becomes_of_the_connection_is_shown_unless_the_program_has_a_log(
    start, tmp_path, has_log
):
    own = "import logging; logging.basicConfig(format='own: %(message)s', level=logging.INFO)\n"
    async with FaultServer() as server:
        write(tmp_path, server.url)
        file = tmp_path / "bot_of_a_test.py"
        file.write_text(own * has_log + file.read_text().replace(", observers=()", ""))
        async with start("run", "bot_of_a_test", cwd=tmp_path) as program:
            assert "hello" == await sent(server, 1)
            program.process.send_signal(signal.SIGTERM)

            status, out, err = await program.end()
    assert (0, []) == (status, out)
    assert err[0].startswith("own: connection ready" if has_log else "INFO:wsclient.session:conn")
    assert len(err) == 2


def order_work(seconds):
    async def order(connection):
        await connection.send(f'{{"type": "work", "seconds": {seconds}}}')
        await trio.sleep_forever()

    return order


async def test_a_channel_that_gives_up_is_one_line_and_status_1(start, tmp_path):
    async with FaultServer([REJECT_404]) as server:
        write(tmp_path, server.url)
        async with start("run", "bot_of_a_test", cwd=tmp_path) as program:
            status, out, err = await program.end()

    assert (1, []) == (status, out)
    [line] = err
    assert line.startswith("wsclient: gave up on ws://127.0.0.1")
    assert "404" in line


async def test_what_a_bot_raises_is_a_traceback_and_status_1(start, tmp_path):
    async def order(connection):
        await connection.send('{"type": "fail"}')
        await trio.sleep_forever()

    async with FaultServer(handler=order) as server:
        write(tmp_path, server.url)
        file = tmp_path / "bot_of_a_test.py"
        raising = "observers=(), handler_errors=wsclient.HandlerErrors.RAISE"
        file.write_text(file.read_text().replace("observers=()", raising))
        async with start("run", "bot_of_a_test", cwd=tmp_path) as program:
            status, out, err = await program.end()

    assert (1, []) == (status, out)
    assert any('raise ZeroDivisionError("bang")' in line for line in err)
    assert "ZeroDivisionError: bang" == err[-1].strip()
    # Who has only passed it on is left out at the top.
    assert "bot_of_a_test.py" in err[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path, "ws://127.0.0.1:9/")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("not_there", "wsclient run: error: no module 'not_there'"),
        ("bot_of_a_test:bott", "wsclient run: error: bot_of_a_test has no 'bott'"),
        ("bot_of_a_test:number", "wsclient run: error: bot_of_a_test:number is no Bot: it is int"),
        ("bot_of_a_test:Odd", "bot_of_a_test:Odd is no Bot: it is the class Odd"),
    ],
)
def test_where_there_is_no_bot_it_is_said_and_ends_with_status_2(folder, capsys, place, sentence):
    assert 2 == main(["run", place])
    assert sentence in capsys.readouterr().err


def test_a_module_that_cannot_be_imported_is_a_traceback_and_status_1(folder, capsys):
    (folder / "broken_bot.py").write_text("1 / 0\n")

    assert 1 == main(["run", "broken_bot"])
    printed = capsys.readouterr().err

    assert printed.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "_run.py" not in printed


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (None, 0, ""),
        (KeyboardInterrupt(), 130, ""),
        (wsclient.ChannelFailed("gave up on h: no", ()), 1, "wsclient: gave up on h: no\n"),
        (ValueError("bang"), 1, "ValueError: bang\n"),
    ],
)
def test_how_the_bot_ends_is_the_status(folder, capsys, monkeypatch, error, status, text):
    def ended(self):
        if error is not None:
            raise error

    monkeypatch.setattr(wsclient.Bot, "run", ended)

    assert status == main(["run", "bot_of_a_test"])
    assert capsys.readouterr().err.endswith(text)


# --- again and again ----------------------------------------------------------------------------


@posix
async def test_with_reload_a_change_of_its_source_starts_it_anew_in_the_same_process(
    start, tmp_path
):
    async with FaultServer() as server:
        write(tmp_path, server.url, "first")
        async with start("run", "bot_of_a_test", "--reload", cwd=tmp_path) as program:
            assert "first" == await sent(server, 1)
            write(tmp_path, server.url, "the second")

            assert "the second" == await sent(server, 2)
            write(tmp_path, server.url, "and the third")

            assert "and the third" == await sent(server, 3)
            program.process.send_signal(signal.SIGINT)
            status, out, err = await program.end()

    assert (0, []) == (status, out)
    assert ["* bot_of_a_test.py has changed: starting anew"] * 2 == err
    # Each left as a bot does.
    assert [1000] * 3 == [visit.close.code for visit in server.connections]


@posix
async def test_with_reload_a_handler_finishes_before_a_change_is_followed(start, tmp_path):
    async with FaultServer(handler=order_work("1")) as server:
        write(tmp_path, server.url)
        async with start("run", "bot_of_a_test", "--reload", cwd=tmp_path) as program:
            assert '"begun"' == await sent(server, 2)
            write(tmp_path, server.url, "the second")
            await server.wait_messages(4)

            assert ['"done"', "the second"] == server.messages[2:4]
            program.process.send_signal(signal.SIGTERM)

            assert 0 == (await program.end())[0]


@posix
async def test_with_reload_what_cannot_be_imported_waits_for_the_next_change(start, tmp_path):
    async with FaultServer() as server:
        (tmp_path / "bot_of_a_test.py").write_text("def (:\n")
        async with start("run", "bot_of_a_test", "--reload", cwd=tmp_path) as program:
            assert "SyntaxError" in await program.err.wait_for("SyntaxError")
            await program.err.wait_for("* waiting for a change")
            write(tmp_path, server.url, "mended")

            assert "mended" == await sent(server, 1)
            (tmp_path / "bot_of_a_test.py").write_text("bot = 5\n")
            await program.err.wait_for("is no Bot: it is int")
            await program.err.wait_for("* waiting for a change")
            program.process.send_signal(signal.SIGINT)

            assert 130 == (await program.end())[0]


@posix
async def test_with_reload_a_bot_that_has_failed_waits_for_the_next_change(start, tmp_path):
    async with FaultServer([REJECT_404]) as server:
        write(tmp_path, server.url)
        async with start("run", "bot_of_a_test", "--reload", cwd=tmp_path) as program:
            await program.err.wait_for("404")
            await program.err.wait_for("* waiting for a change")
            program.process.send_signal(signal.SIGTERM)

            assert 0 == (await program.end())[0]


class Ended(Exception):
    """Instead of a process that is replaced."""


@pytest.fixture
def early(monkeypatch):
    """Signals that came while no bot listened for them."""
    early = []
    obey = _run._Reloading.obey

    def noted(self, *args):
        early.append(args)
        obey(self, *args)

    monkeypatch.setattr(_run._Reloading, "obey", noted)
    return early


@pytest.fixture
def serve(monkeypatch):
    """Lets a function be what the bot does."""
    return lambda run: monkeypatch.setattr(wsclient.Bot, "run", lambda self: run())


def test_a_change_while_the_bot_starts_is_followed_all_the_same(folder, capsys, early, serve):
    """The signal comes before the bot listens for it; it is sent again."""

    async def listen():
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                return

    def run():
        write(folder, "ws://127.0.0.1:9/", "changed")
        # Until the first signal has come, and nobody listened.  Not in runs of trio's: a signal
        # that comes as one ends finds the socket closed that it is to wake it by: that is told.
        while not early:
            time.sleep(0.01)
        trio.run(listen)

    serve(run)
    before = signal.getsignal(signal.SIGTERM)

    assert 7 == run_reloading("bot_of_a_test", lambda: 7)
    assert "bot_of_a_test.py has changed" in capsys.readouterr().err
    assert before == signal.getsignal(signal.SIGTERM)


def test_a_bot_that_ends_while_it_is_being_told_to_is_told_no_more(folder, early, serve):
    def run():
        write(folder, "ws://127.0.0.1:9/", "changed")
        while not early:
            time.sleep(0.01)

    serve(run)

    assert 7 == run_reloading("bot_of_a_test", lambda: 7)


def test_a_bot_that_has_failed_starts_anew_when_any_file_changes(folder, serve, capsys):
    def run():
        (folder / "not_loaded.py").touch()
        raise ValueError("bang")

    serve(run)

    assert 7 == run_reloading("bot_of_a_test", lambda: 7)
    assert "* not_loaded.py has changed: starting anew" in capsys.readouterr().err


def test_a_sigterm_while_nobody_listens_ends_it_with_status_0(folder, monkeypatch):
    monkeypatch.setattr(_run._Once, "_find", lambda self: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        run_reloading("bot_of_a_test", lambda: 7)

    assert 0 == caught.value.code


def test_the_process_that_starts_anew_is_the_same_command(monkeypatch, capsys):
    def execute(*arguments):
        raise Ended(*arguments)

    monkeypatch.setattr(os, "execv", execute)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "wsclient", "run", "bot"])
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(Ended) as caught:
        _run._replace_process()

    command = [sys.executable, "-X", "dev", "-m", "wsclient", "run", "bot"]

    assert (sys.executable, command) == caught.value.args


@posix
def test_a_bot_that_is_stopped_by_its_user_does_not_start_anew(folder, monkeypatch):
    monkeypatch.setattr(wsclient.Bot, "run", lambda self: None)

    assert 0 == run_reloading("bot_of_a_test", lambda: 7)
