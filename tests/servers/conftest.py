"""Servers that this project did not write, as processes; each life of a server is one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest
import trio

import wsclient
from wsclient.testing import History, SentMessage, ServerSide, check

PROGRAMS = Path(__file__).parent / "programs"


class ServerProcess:
    """One life of a server; everything is imported before it is told to listen."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def listen(self) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(b"go\n")
        await self._wait_for(b"listening")

    async def wait_loaded(self) -> None:
        await self._wait_for(b"loaded")

    async def _wait_for(self, line: bytes) -> None:
        assert self._process.stdout is not None
        said = b""
        while line not in said:
            chunk = await self._process.stdout.receive_some()
            assert chunk, f"the server ended before it said {line!r}"
            said += chunk

    async def die(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        with trio.move_on_after(3):  # A server that is asked politely may take its time.
            await self._process.wait()
            return
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def _server_process(
    program: str, port: int, folder: Path
) -> AsyncGenerator[ServerProcess, None]:
    process = await trio.lowlevel.open_process(
        [sys.executable, str(PROGRAMS / program), str(port), str(folder)],
        # The programs share modules that lie beside them.
        env=os.environ | {"PYTHONPATH": str(PROGRAMS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    server = ServerProcess(process)
    try:
        await server.wait_loaded()
        yield server
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()


@attrs.frozen
class Backend:
    """A server at one address, whose lives follow one another."""

    program: str
    port: int
    folder: Path
    _processes: AsyncExitStack
    _lives: list[ServerProcess] = attrs.Factory(list)

    async def load(self) -> None:
        """Start the next life; it does not listen yet."""
        process = _server_process(self.program, self.port, self.folder)
        self._lives.append(await self._processes.enter_async_context(process))

    async def listen(self) -> None:
        """Let the newest life listen."""
        await self._lives[-1].listen()

    async def die(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the oldest life."""
        await self._lives.pop(0).die(how)


@pytest.fixture
async def start_backend(
    take_port: Callable[[], int], tmp_path: Path
) -> AsyncGenerator[Callable[[str], object], None]:
    """Starts a server that listens on a port of its own, and logs into ``tmp_path``."""
    async with AsyncExitStack() as processes:

        async def start(program: str) -> Backend:
            backend = Backend(program, take_port(), tmp_path, processes)
            await backend.load()
            await backend.listen()
            return backend

        yield start


Sent: TypeAlias = tuple[wsclient.Delivery, wsclient.Receipt | wsclient.DeliveryError]
"""How a message was to be delivered, and what the channel says of it."""

JUDGED = ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I13")
"""The invariants that are about what was sent and received."""


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., list[str]]:
    """Says where what one channel claims, once it is closed, is not what the ledger says.

    The number of a message is its place in ``sent``.
    """

    def judge(
        name: str,
        sent: Sequence[Sent],
        received: Sequence[str | wsclient.Gap],
        statistics: wsclient.ChannelStatistics,
        judged: Sequence[str] = JUDGED,
    ) -> list[str]:
        history = History(
            sent=tuple(_as_sent(str(number), *each) for number, each in enumerate(sent)),
            received=tuple(received),
            server=_read_ledger(tmp_path, name),
            counted=statistics.outcomes,
            accepted=statistics.messages_accepted,
        )
        return [f"{name}: {breach}" for breach in check(history, judged)]

    return judge


def _as_sent(
    key: str, delivery: wsclient.Delivery, said: wsclient.Receipt | wsclient.DeliveryError
) -> SentMessage:
    return SentMessage(
        key=key,
        delivery=delivery,
        accepted=isinstance(said, wsclient.Receipt),
        outcomes=() if said.outcome is None else (said.outcome,),
        truth=said.truth,
    )


def _read_ledger(folder: Path, name: str) -> tuple[ServerSide, ...]:
    """The connections of a channel, in their order, as the servers have seen them."""
    heard: defaultdict[int, list[str]] = defaultdict(list)
    said: defaultdict[int, list[str]] = defaultdict(list)
    for line in (folder / "ledger").read_text().splitlines():
        channel, number, what, key, *_ = line.split()
        if channel == name:
            (heard if what == "heard" else said)[int(number)].append(key)
    return tuple(
        ServerSide(number=number, heard=tuple(heard[number]), said=tuple(said[number]))
        for number in sorted({*heard, *said})
    )


@pytest.fixture
def show(
    record_property: Callable[[str, object], None],
) -> Callable[[str, Mapping[str, object]], None]:
    """Records figures (``--junit-xml``), and prints them (``-s``)."""

    def show(title: str, figures: Mapping[str, object]) -> None:
        print(f"\n{title}")
        for name, figure in figures.items():
            record_property(name, figure)
            print(f"  {name}: {figure}")

    return show
