"""Servers that this project did not write, as processes; each life of a server is one process."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
import trio
import trio_websocket

import wsclient
from wsclient.testing import History, SentMessage, ServerSide, check

PROGRAMS = Path(__file__).parent / "programs"
NPM = Path(__file__).parent / "npm"


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
    command: Sequence[str], env: Mapping[str, str]
) -> AsyncGenerator[ServerProcess, None]:
    process = await trio.lowlevel.open_process(
        command, env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
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

    port: int
    _command: Sequence[str]
    _env: Mapping[str, str]
    _processes: AsyncExitStack
    _lives: list[ServerProcess] = attrs.Factory(list)

    async def load(self) -> None:
        """Start the next life; it does not listen yet."""
        process = _server_process(self._command, self._env)
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
            port = take_port()
            command = [sys.executable, str(PROGRAMS / program), str(port), str(tmp_path)]
            # The programs share modules that lie beside them.
            backend = Backend(port, command, {"PYTHONPATH": str(PROGRAMS)}, processes)
            await backend.load()
            await backend.listen()
            return backend

        yield start


# --- servers from npm -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """The packages of ``npm/package-lock.json``, installed once into ``.servers``."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not on the path")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"the servers need Node 20, and this is {version.strip()}")
    lock = (NPM / "package-lock.json").read_bytes()
    # Another list of packages is another folder.
    folder = Path(__file__).parents[2] / ".servers" / hashlib.sha256(lock).hexdigest()[:12]
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(NPM / name, scratch)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=scratch,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode:
                pytest.skip(f"npm could not install the servers: {done.stdout.strip()[-500:]}")
            # Another process may have been faster.
            with suppress(OSError):
                Path(scratch, "node_modules").rename(folder)
    return folder


@attrs.frozen
class GraphqlServer:
    """graphql-ws' own server, whose lives follow one another at one address."""

    backend: Backend

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.backend.port}/graphql"

    async def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        await self.backend.load()
        await self.backend.die(how)
        await self.backend.listen()

    async def control(self, **told: object) -> list[dict[str, str]]:
        """Tell it what to do; return what each connection has subscribed to, by its ids."""
        url = f"ws://127.0.0.1:{self.backend.port}/control"
        async with wsclient.open_websocket_url(url) as connection:
            await connection.send_message(json.dumps(told))
            wanted: list[dict[str, str]] = json.loads(await connection.get_message())
            return wanted

    async def wait_wanted(self, wanted: list[dict[str, str]]) -> None:
        """Wait until that is what its connections have subscribed to."""
        while await self.control() != wanted:  # noqa: ASYNC110  It is another process's affair.
            await trio.sleep(0.01)


@pytest.fixture
async def start_graphql(
    npm_packages: Path, take_port: Callable[[], int]
) -> AsyncGenerator[Callable[..., object], None]:
    """Starts graphql-ws' server on a port of its own; ``npm/graphql_server.cjs`` says what it does.

    With a ``token`` whoever does not bring it is forbidden.
    """
    async with AsyncExitStack() as processes:

        async def start(token: str | None = None) -> GraphqlServer:
            port = take_port()
            command = ["node", str(NPM / "graphql_server.cjs"), str(port)]
            command += [token] if token is not None else []
            backend = Backend(port, command, {"NODE_PATH": str(npm_packages)}, processes)
            await backend.load()
            await backend.listen()
            return GraphqlServer(backend)

        yield start


@attrs.define
class Anvil:
    """An Ethereum node with a chain of its own, which goes on in the node's next life.

    After SIGTERM it goes on where it was; after SIGKILL, where it was within the last second or so.
    """

    port: int
    _command: Sequence[str]
    _nursery: trio.Nursery
    _process: trio.Process | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        self._process = await self._nursery.start(self._live)

    async def _live(self, task_status: trio.TaskStatus[trio.Process]) -> None:
        process = await trio.lowlevel.open_process(self._command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            said = b""
            while b"Listening on" not in said:
                chunk = await process.stdout.receive_some()
                assert chunk, f"anvil ended: {said.decode()}"
                said += chunk
            task_status.started(process)
            # It stands still when nobody reads what it says.
            async for _ in process.stdout:
                pass
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                await process.stdout.aclose()

    async def die(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        await self._process.wait()

    async def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        await self.die(how)
        await self.start()

    async def mine(self, count: int = 1) -> int:
        """Mine blocks; return the number of the last one."""
        correlation = wsclient.JsonRpcCorrelation()
        async with wsclient.open_websocket_url(self.url) as connection:

            async def ask(number: int, method: str, *params: object) -> Any:
                asked = {"method": method, "params": params}
                await connection.send_message(correlation.mark(asked, number))
                reply = correlation.recognise(await connection.get_message())
                assert reply is not None
                assert reply.error is None
                return reply.value

            await ask(1, "anvil_mine", hex(count))
            return int(await ask(2, "eth_blockNumber"), 16)


@pytest.fixture(scope="session")
def anvil_program(npm_packages: Path) -> Path:
    """The package for this machine has it; its script in JavaScript would only start it."""
    found = sorted(npm_packages.glob("@foundry-rs/anvil-*/bin/anvil*"))
    if not found:
        pytest.skip("there is no anvil for this machine")
    return found[0]


@pytest.fixture
async def start_anvil(
    anvil_program: Path, take_port: Callable[[], int], tmp_path: Path, nursery: trio.Nursery
) -> Callable[..., object]:
    """Starts anvil on a port of its own.

    It mines when it is told to (``await anvil.mine()``), or every ``block_time`` seconds.
    """

    async def start(block_time: int | None = None) -> Anvil:
        port = take_port()
        mining = ["--no-mining"] if block_time is None else ["--block-time", str(block_time)]
        state = ["--state", str(tmp_path / f"chain-{port}.json"), "--state-interval", "1"]
        anvil = Anvil(port, [str(anvil_program), "--port", str(port), *mining, *state], nursery)
        await anvil.start()
        return anvil

    return start


# --- a server of our own, for a protocol that everybody makes up ----------------------------------


@attrs.define(eq=False)
class Hub:
    """Publish and subscribe in plain JSON, as ``JsonPubSub`` has it by default.

    It knows nothing of WebSockets: :meth:`serve` takes two functions.

    Attributes:
        subscribed: The channels of each open connection, in the order in which these came.
        refused: What is not taken: the answer beside ``op`` and ``channel``.
        heard: All messages.
    """

    history_size: int = 100
    subscribed: list[set[str]] = attrs.Factory(list)
    refused: dict[str, dict[str, object]] = attrs.Factory(dict)
    heard: list[str] = attrs.Factory(list)
    _numbers: Counter[str] = attrs.Factory(Counter)
    _history: dict[str, deque[str]] = attrs.Factory(dict)
    _outlets: dict[int, trio.MemorySendChannel[str]] = attrs.Factory(dict)

    def publish(self, channel: str, data: object) -> int:
        """Send to whoever has subscribed; return the number."""
        self._numbers[channel] += 1
        number = self._numbers[channel]
        message = json.dumps({"channel": channel, "seq": number, "data": data})
        self._history.setdefault(channel, deque(maxlen=self.history_size)).append(message)
        self._say(channel, message)
        return number

    def end(self, channel: str, **why: object) -> None:
        """End a stream; with ``error=…`` it is an error, and ``retry=True`` may be said as well."""
        self._say(
            channel, json.dumps({"op": "error" if why else "ended", "channel": channel} | why)
        )
        for channels in self.subscribed:
            channels.discard(channel)

    def ping(self) -> None:
        """Ask every connection whether it is there."""
        for outlet in self._outlets.values():
            outlet.send_nowait('{"op": "ping"}')

    def forget(self) -> None:
        """Forget what was published: nobody can resume."""
        self._history.clear()

    def _say(self, channel: str, message: str) -> None:
        for channels in self.subscribed:
            if channel in channels:
                self._outlets[id(channels)].send_nowait(message)

    async def serve(
        self,
        receive: Callable[[], Awaitable[str | bytes]],
        send: Callable[[str], Awaitable[object]],
    ) -> None:
        """Serve one connection, until one of the functions raises."""
        outlet, waiting = trio.open_memory_channel[str](math.inf)
        channels: set[str] = set()
        self.subscribed.append(channels)
        self._outlets[id(channels)] = outlet
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear, receive, channels, outlet)
                async for message in waiting:
                    await send(message)
        finally:
            # By identity: two empty sets are equal.
            self.subscribed[:] = [each for each in self.subscribed if each is not channels]
            del self._outlets[id(channels)]

    async def _hear(
        self,
        receive: Callable[[], Awaitable[str | bytes]],
        channels: set[str],
        outlet: trio.MemorySendChannel[str],
    ) -> None:
        while True:
            message = await receive()
            assert isinstance(message, str)
            self.heard.append(message)
            for answer in self._answers(channels, json.loads(message)):
                outlet.send_nowait(answer)

    def _answers(self, channels: set[str], said: dict[str, Any]) -> Iterator[str]:
        channel = said.get("channel", "")
        match said["op"]:
            case "subscribe" if channel in self.refused:
                yield json.dumps({"op": "error", "channel": channel} | self.refused[channel])
            case "subscribe":
                channels.add(channel)
                missed = self._missed(channel, said.get("after"))
                confirmation = {"op": "subscribed", "channel": channel}
                yield json.dumps(confirmation | {"resumed": missed is not None})
                yield from missed or ()
            case "unsubscribe":
                channels.discard(channel)
                yield json.dumps({"op": "unsubscribed", "channel": channel})

    def _missed(self, channel: str, after: int | None) -> list[str] | None:
        """What was published behind ``after``; ``None`` if that is not known any more."""
        last = self._numbers[channel]
        if after is None or after > last:
            return None
        history = self._history.get(channel, ())
        return (
            list(history)[len(history) - (last - after) :] if last - after <= len(history) else None
        )


@attrs.define
class PubSubServer:
    """A hub behind trio-websocket's server, at one address."""

    hub: Hub
    port: int
    _nursery: trio.Nursery
    _life: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _dead: trio.Event = attrs.Factory(trio.Event)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        await self._nursery.start(self._listen)

    async def _listen(self, task_status: trio.TaskStatus[None]) -> None:
        self._dead = trio.Event()
        try:
            with trio.CancelScope() as self._life:
                async with trio.open_nursery() as nursery:
                    await nursery.start(
                        trio_websocket.serve_websocket, self._serve, "127.0.0.1", self.port, None
                    )
                    task_status.started()
        finally:
            self._dead.set()

    async def _serve(self, request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        try:
            await self.hub.serve(connection.get_message, connection.send_message)
        except* trio_websocket.ConnectionClosed:
            pass

    async def die(self) -> None:
        """Cut all connections off, and listen no more."""
        self._life.cancel()
        await self._dead.wait()

    async def restart(self) -> None:
        await self.die()
        await self.start()


@pytest.fixture
def make_hub() -> type[Hub]:
    return Hub


@pytest.fixture
async def start_pub_sub(
    take_port: Callable[[], int], nursery: trio.Nursery
) -> Callable[..., object]:
    """Starts a hub's server on a port of its own, in this process: ``server.hub`` can be read."""

    async def start(hub: Hub | None = None) -> PubSubServer:
        server = PubSubServer(hub or Hub(), take_port(), nursery)
        await server.start()
        return server

    return start


# --- what is judged -------------------------------------------------------------------------------

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
