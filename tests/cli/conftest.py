"""Running the program as a process, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

TIMEOUT = 30  # seconds in which whatever a test waits for has happened


class Reader:
    """The lines of a pipe."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = b""
        self.seen: list[str] = []

    async def line(self) -> str | None:
        """The next line; ``None`` at the end."""
        while b"\n" not in self._buffer:
            data = await self._stream.receive_some()
            if not data:
                assert b"" == self._buffer, "the last line has no end"
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        self.seen.append(line.decode())
        return self.seen[-1]

    async def wait_for(self, text: str) -> str:
        """The next line that contains ``text``."""
        while (line := await self.line()) is not None:
            if text in line:
                return line
        raise AssertionError(f"no line with {text!r} came: {self.seen}")

    async def rest(self) -> list[str]:
        """All lines, those that were read before included."""
        while await self.line() is not None:
            pass
        return self.seen

    async def aclose(self) -> None:
        await self._stream.aclose()


class Program:
    """``python -m wsclient …``, running."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self.out = Reader(process.stdout)
        self.err = Reader(process.stderr)

    async def end(self) -> tuple[int, list[str], list[str]]:
        """Wait for its end; the exit status and everything that it printed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.out.rest)
            nursery.start_soon(self.err.rest)
        return await self.process.wait(), self.out.seen, self.err.seen


def make_command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "wsclient", *arguments]


def make_environment(**changes: str) -> dict[str, str]:
    environment = {**os.environ, **changes}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        if name not in changes:
            environment.pop(name, None)
    return environment


Start = Callable[..., AbstractAsyncContextManager[Program]]


@pytest.fixture
def start() -> Start:
    """Runs the program for the length of a block: ``async with start("listen", url) as …``."""

    @asynccontextmanager
    async def start(
        *arguments: str, command: list[str] | None = None, **options: Any
    ) -> AsyncGenerator[Program, None]:
        process = await trio.lowlevel.open_process(
            command or make_command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=make_environment(),
            **options,
        )
        program = Program(process)
        try:
            with trio.fail_after(TIMEOUT):
                yield program
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await program.out.aclose()
                await program.err.aclose()

    return start


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, process: trio.Process, master: int) -> None:
        self.process = process
        self._master = master
        self.text = ""

    async def read(self) -> bool:
        """Read on; false at the end."""
        await trio.lowlevel.wait_readable(self._master)
        try:
            data = os.read(self._master, 65536)
        except OSError:  # How Linux says that nobody has the terminal open any more.
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    async def wait_for(self, text: str) -> None:
        while text not in self.text:
            assert await self.read(), f"no {text!r} came: {self.text!r}"

    async def end(self) -> int:
        while await self.read():
            pass
        return await self.process.wait()

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)


OpenTerminal = Callable[..., AbstractAsyncContextManager[Terminal]]


@pytest.fixture
def open_terminal() -> OpenTerminal:
    """Runs the program on a pseudo-terminal for the length of a block."""
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    import fcntl
    import struct
    import termios

    # So that Ctrl-C reaches it.  Not with preexec_fn, since other threads may be running here.
    become_foreground = [
        sys.executable,
        "-c",
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        " os.execv(sys.argv[1], sys.argv[1:])",
    ]

    @asynccontextmanager
    async def open_terminal(
        *arguments: str,
        command: list[str] | None = None,
        size: tuple[int, int] = (24, 80),
        term: str = "xterm-256color",
    ) -> AsyncGenerator[Terminal, None]:
        master, slave = pty.openpty()
        try:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            try:
                process = await trio.lowlevel.open_process(
                    [*become_foreground, *(command or make_command(*arguments))],
                    stdin=slave,
                    stdout=slave,
                    stderr=slave,
                    env=make_environment(TERM=term, PYTHONIOENCODING="utf-8"),
                    start_new_session=True,
                )
            finally:
                os.close(slave)
            try:
                with trio.fail_after(TIMEOUT):
                    yield Terminal(process, master)
            finally:
                with trio.CancelScope(shield=True):
                    if process.returncode is None:
                        process.kill()
                    await process.wait()
        finally:
            os.close(master)

    return open_terminal
