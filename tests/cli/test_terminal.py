"""A terminal lets every key through, and is then as it was before."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys

import pytest
import trio

from wsclient.cli._terminal import Terminal, open_terminal

pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
termios = pytest.importorskip("termios")


@pytest.fixture
def ends():
    master, slave = pty.openpty()
    yield master, slave
    for descriptor in (master, slave):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def on_terminal(ends, monkeypatch):
    """Lets a block have the terminal as its input and output; pytest has its own before."""

    @contextlib.contextmanager
    def on_terminal():
        with (
            open(ends[1], closefd=False) as stdin,
            open(ends[1], "w", closefd=False, encoding="utf-8") as stdout,
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stdin", stdin)
            patch.setattr(sys, "stdout", stdout)
            patch.setenv("TERM", "xterm")
            yield patch

    return on_terminal


async def test_keys_come_one_by_one_and_unechoed(ends):
    master, slave = ends
    terminal = Terminal(slave)
    before = termios.tcgetattr(slave)
    with terminal.keys_come_at_once():
        os.write(master, b"a")

        assert b"a" == await terminal.keys()
        os.write(slave, b"b")

        assert b"b" == os.read(master, 10)
    assert before == termios.tcgetattr(slave)


async def test_a_terminal_that_can_be_read_no_more_has_no_more_keys(ends, monkeypatch):
    def fail(*_):
        raise OSError("as for a process in the background")

    os.write(ends[0], b"\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        terminal = Terminal(ends[1])

        assert b"" == await terminal.keys()


async def test_a_terminal_that_is_gone_has_no_more_keys(ends):
    master, slave = ends
    terminal = Terminal(slave)
    with terminal.keys_come_at_once():
        os.close(master)

        assert b"" == await terminal.keys()


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
async def test_after_a_stop_keys_come_at_once_again(ends):
    _, slave = ends
    terminal = Terminal(slave)
    drawn = trio.Event()
    before = termios.tcgetattr(slave)
    async with trio.open_nursery() as nursery:
        with terminal.keys_come_at_once():
            at_once = termios.tcgetattr(slave)
            nursery.start_soon(terminal.watch, drawn.set)
            await trio.testing.wait_all_tasks_blocked()
            # As a shell does meanwhile.
            termios.tcsetattr(slave, termios.TCSANOW, before)
            os.kill(os.getpid(), signal.SIGCONT)
            await drawn.wait()

            assert at_once == termios.tcgetattr(slave)
            nursery.cancel_scope.cancel()


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
async def test_a_new_size_is_drawn(ends):
    drawn = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Terminal(ends[1]).watch, drawn.set)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGWINCH)
        await drawn.wait()
        nursery.cancel_scope.cancel()


def test_a_terminal_for_input_and_output_is_found(on_terminal):
    with on_terminal():
        terminal = open_terminal()

    assert terminal is not None
    assert terminal.width > 0


@pytest.mark.parametrize("colours", [True, False])
def test_colours_are_left_out_for_whoever_wants_none(ends, monkeypatch, colours):
    monkeypatch.setenv("NO_COLOR", "" if colours else "1")

    assert colours == Terminal(ends[1]).has_colours


def memory(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda patch: patch.setenv("TERM", "dumb"),
        lambda patch: patch.delenv("TERM"),
        lambda patch: patch.setattr(sys, "platform", "win32"),
        lambda patch: patch.setattr(sys, "stdin", None),
        lambda patch: patch.setattr(sys, "stdout", None),
        lambda patch: patch.setattr(sys, "stdin", memory("utf-8")),
        lambda patch: patch.setattr(sys, "stdout", memory("utf-8")),
        lambda patch: patch.setattr(sys, "stdout", memory("latin-1")),
    ],
    ids=["dumb", "no TERM", "Windows", "no stdin", "no stdout", "in", "out", "latin-1"],
)
def test_where_a_line_cannot_be_edited_there_is_none(on_terminal, spoil):
    with on_terminal() as patch:
        spoil(patch)
        terminal = open_terminal()

    assert terminal is None
