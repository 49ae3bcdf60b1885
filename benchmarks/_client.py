"""One measurement in a process of its own: reads a task (JSON, the first argument), prints JSON.

Runs in the environment of the library that it measures, so that it imports nothing at its top but
the standard library.
The clock runs from the first message after the warm-up to the last.
What a peer need not do for a message it does not do here: picows is given bytes that were encoded
before, and its listener asks for no frame's type.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import _wire as wire

ROOM = 2**25  # bytes of the largest message that any client shall take
PART = 1_000  # messages that a channel receives for each that it sends


@dataclass(frozen=True)
class Task:
    """What to measure, and with which client."""

    measure: str
    library: str
    url: str
    count: int
    warm_up: int
    size: int
    kind: str
    authority: str | None = None
    core: int | None = None

    @property
    def total(self) -> int:
        return self.warm_up + self.count

    @property
    def feed_url(self) -> str:
        return f"{self.url}/feed/{self.kind}/{self.total}/{self.size}"

    @property
    def talk_url(self) -> str:
        return f"{self.url}/talk/{self.kind}/{self.total}/{self.size}"

    @property
    def sink_url(self) -> str:
        return f"{self.url}/sink/{self.total}/{self.size}"

    @property
    def message(self) -> Any:
        return wire.binary(self.size) if self.kind == "binary" else wire.text(self.size)

    @property
    def data(self) -> bytes:
        return self.message if self.kind == "binary" else self.message.encode()

    @property
    def last(self) -> Any:
        if self.kind not in ("json", "deflate"):
            return self.message
        quotes = wire.quotes(2_000)
        return quotes[(self.total - 1) % len(quotes)]

    @property
    def tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.authority) if self.authority else None


class Meter:
    """Seconds, of this process and of the wall."""

    def start(self) -> None:
        self.cpu, self.wall = -time.process_time(), -time.perf_counter()

    def stop(self) -> None:
        self.cpu += time.process_time()
        self.wall += time.perf_counter()


meter = Meter()


def check(received: object, expected: object) -> None:
    if received != expected:
        raise SystemExit(f"received {received!r:.80} instead of {expected!r:.80}")


# --- what is the same for every client with async for ---------------------------------------------


async def take(messages: AsyncIterable[Any], count: int) -> Any:
    message = None
    async for message in messages:
        count -= 1
        if not count:
            return message
    raise SystemExit(f"{count} messages are missing")


async def take_all(messages: AsyncIterable[Any], task: Task) -> None:
    """Receive; the clock runs once the client is warm."""
    await take(messages, task.warm_up)
    meter.start()
    last = await take(messages, task.count)
    meter.stop()
    check(last, task.last)


async def send_all(
    send: Callable[[Any], Awaitable[Any]], receive: Callable[[], Awaitable[Any]], task: Task
) -> None:
    """Send; the clock stops when the server has told that it received everything."""
    message = task.message
    for _ in range(task.warm_up):
        await send(message)
    meter.start()
    for _ in range(task.count):
        await send(message)
    verdict = await receive()
    meter.stop()
    check(verdict, str(task.total))


async def echo_all(
    send: Callable[[Any], Awaitable[Any]], receive: Callable[[], Awaitable[Any]], task: Task
) -> None:
    message = task.message
    for number in range(task.total):
        if number == task.warm_up:
            meter.start()
        await send(message)
        answer = await receive()
    meter.stop()
    check(answer, message)


# --- clients on trio ------------------------------------------------------------------------------


def wsclient_connection(task: Task, url: str) -> AbstractAsyncContextManager[Any]:
    import wsclient

    options: dict[str, Any] = {"max_message_size": ROOM}
    if task.kind == "deflate":
        options["compression"] = True
    return wsclient.open_websocket_url(url, task.tls, **options)


@asynccontextmanager
async def wsclient_channel(task: Task, url: str) -> AsyncIterator[Any]:
    import wsclient

    options = wsclient.ConnectionOptions(max_message_size=ROOM)
    async with wsclient.open_channel(
        url, ssl_context=task.tls, observers=(), connection=options, ready_timeout=10
    ) as channel:
        yield channel


def websockets_connection(task: Task, url: str) -> AbstractAsyncContextManager[Any]:
    from websockets.trio.client import connect

    return connect(url, ssl=task.tls, compression=None, ping_interval=None, max_size=ROOM)


def trio_websocket_connection(task: Task, url: str) -> AbstractAsyncContextManager[Any]:
    import trio_websocket

    return trio_websocket.open_websocket_url(url, task.tls, max_message_size=ROOM)


@dataclass(frozen=True)
class Library:
    """How a client on trio connects, and what its methods are called."""

    connect: Callable[[Task, str], AbstractAsyncContextManager[Any]]
    send: str
    receive: str


async def until_closed(connection: Any) -> AsyncIterator[Any]:
    while True:
        yield await connection.get_message()


LIBRARIES = {
    "wsclient": Library(wsclient_connection, "send_message", "get_message"),
    "wsclient channel": Library(wsclient_channel, "send", "receive"),
    "websockets": Library(websockets_connection, "send", "recv"),
    "trio-websocket": Library(trio_websocket_connection, "send_message", "get_message"),
}


async def on_trio(task: Task) -> None:
    library = LIBRARIES[task.library]
    if task.measure == "feed":
        async with library.connect(task, task.feed_url) as connection:
            messages = connection if hasattr(connection, "__aiter__") else until_closed(connection)
            await take_all(messages, task)
        return
    url = task.sink_url if task.measure == "send" else f"{task.url}/echo"
    use = send_all if task.measure == "send" else echo_all
    async with library.connect(task, url) as connection:
        await use(getattr(connection, library.send), getattr(connection, library.receive), task)


async def talking_feed(task: Task) -> None:
    """Receive by a channel that sends now and then, so that fences are asked for and answered."""
    from wsclient import Outcome

    receipts = []

    async def take_parts(channel: Any, count: int) -> Any:
        while True:
            last = await take(channel, min(PART, count))
            receipts.append(await channel.send("heard"))
            count -= PART
            if count <= 0:
                return last

    async with wsclient_channel(task, task.talk_url) as channel:
        await take_parts(channel, task.warm_up)
        meter.start()
        last = await take_parts(channel, task.count)
        meter.stop()
    check(last, task.last)
    check({receipt.outcome for receipt in receipts}, {Outcome.RECEIVED})


async def bot_feed(task: Task) -> None:
    """Receive by a handler of a bot, which is of the kind that the library's name says."""
    import wsclient

    options = wsclient.ConnectionOptions(max_message_size=ROOM)
    bot = wsclient.Bot(task.feed_url, observers=(), connection=options)
    left = task.warm_up
    is_warm = False
    last: Any = None

    def turn(message: Any) -> None:
        nonlocal left, is_warm, last
        if is_warm:
            meter.stop()
            last = message
            bot.stop()
        else:
            is_warm = True
            left = task.count
            meter.start()

    def sync(message: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            turn(message)

    async def asynchronous(message: str) -> None:
        sync(message)

    kind = task.library.removeprefix("wsclient bot, ")
    if kind == "str":
        bot.on_message(sync)
    elif kind == "async str":
        bot.on_message(asynchronous)
    elif kind == "dict":
        sync.__annotations__["message"] = dict
        bot.on("trade")(sync)
    else:
        import msgspec

        fields = [("symbol", str), ("price", str), ("quantity", str), ("sequence", int)]
        trade = msgspec.defstruct("Trade", fields, tag_field="type", tag="trade")
        sync.__annotations__["message"] = trade
        if kind == "every typed":
            bot.on_message(sync)
        else:
            bot.on("trade")(sync)
    await bot.serve()
    if kind in ("str", "async str"):
        check(last, task.last)
    else:
        given = last if isinstance(last, dict) else msgspec.to_builtins(last)
        check(given, json.loads(task.last))


async def trio_idle(task: Task) -> None:
    import trio

    library = LIBRARIES[task.library]
    async with AsyncExitStack() as stack:
        for number in range(task.total):
            if number == task.warm_up:
                await trio.sleep(0.2)
                before = resident()
            await stack.enter_async_context(library.connect(task, f"{task.url}/idle"))
        await trio.sleep(0.2)
        leave({"bytes": (resident() - before) / task.count})


async def trio_many(task: Task, peers: int) -> None:
    import trio

    library = LIBRARIES[task.library]
    each = task.count // peers
    url = f"{task.url}/many/{peers}/{each}/{task.size}"
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(library.connect(task, url)) for _ in range(peers)
        ]
        meter.start()
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(take, connection, each)
        meter.stop()
        leave(result(each * peers))


# --- trio's streams, without WebSocket ------------------------------------------------------------


async def raw_stream(url: str) -> tuple[Any, bytes]:
    """A stream on which the opening handshake was done by hand, and what followed that."""
    import trio

    address, _, path = url.removeprefix("ws://").partition("/")
    host, _, port = address.partition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    await stream.send_all(wire.REQUEST % f"/{path}".encode())
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some(65536)
    return stream, bytes(received.partition(b"\r\n\r\n")[2])


async def raw_feed(task: Task) -> None:
    size = len(wire.frame(wire.BINARY, task.data))
    stream, trailing = await raw_stream(task.feed_url)
    left = size * task.warm_up - len(trailing)
    while left > 0:
        left -= len(await stream.receive_some(65536))
    meter.start()
    left += size * task.count
    while left > 0:
        left -= len(await stream.receive_some(65536))
    meter.stop()
    await stream.aclose()


async def raw_echo(task: Task) -> None:
    """Sends what a client would send, and reads as much as a client would have to read."""
    request = wire.masked_frame(wire.TEXT, task.data)
    size = len(wire.frame(wire.TEXT, task.data))
    stream, _ = await raw_stream(f"{task.url}/echo")
    for number in range(task.total):
        if number == task.warm_up:
            meter.start()
        await stream.send_all(request)
        left = size
        while left:
            left -= len(await stream.receive_some(65536))
    meter.stop()
    await stream.aclose()


# --- clients on uvloop ----------------------------------------------------------------------------


def picows_listener(kind: str, left: int, step: Callable[[], int]) -> Any:
    """A listener that counts ``left`` messages down and then asks for the next count."""
    from picows import WSListener

    class Listener(WSListener):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.left = left
            self.message: Any = None
            self.paused = False
            self.resumed = asyncio.Event()

        def pause_writing(self) -> None:
            self.paused = True
            self.resumed.clear()

        def resume_writing(self) -> None:
            self.paused = False
            self.resumed.set()

    class Texts(Listener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            self.message = frame.get_payload_as_utf8_text()
            self.left -= 1
            if not self.left:
                self.left = step()

    class Bytes(Listener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            self.message = frame.get_payload_as_bytes()
            self.left -= 1
            if not self.left:
                self.left = step()

    return Bytes() if kind == "binary" else Texts()


def finish(event: asyncio.Event) -> int:
    """The last step of a listener: there is no next count."""
    event.set()
    return 0


async def picows_connect(task: Task, url: str, listener: Any) -> Any:
    from picows import ws_connect

    transport, _ = await ws_connect(
        lambda: listener,
        url,
        ssl_context=task.tls,
        enable_auto_ping=False,
        max_frame_size=ROOM,
    )
    return transport


async def picows_feed(task: Task) -> None:
    done = asyncio.Event()

    def warm() -> int:
        meter.start()
        return task.count

    def finished() -> int:
        meter.stop()
        return finish(done)

    turns = iter((warm, finished))
    listener = picows_listener(task.kind, task.warm_up, lambda: next(turns)())
    transport = await picows_connect(task, task.feed_url, listener)
    await done.wait()
    check(listener.message, task.last)
    transport.disconnect()


async def picows_send(task: Task) -> None:
    from picows import WSMsgType

    kind = WSMsgType.BINARY if task.kind == "binary" else WSMsgType.TEXT
    data = task.data
    answered = asyncio.Event()
    listener = picows_listener("text", 1, lambda: finish(answered))
    transport = await picows_connect(task, task.sink_url, listener)
    for number in range(task.total):
        if number == task.warm_up:
            meter.start()
        transport.send(kind, data)
        if listener.paused:
            await listener.resumed.wait()
    await answered.wait()
    meter.stop()
    check(listener.message, str(task.total))
    transport.disconnect()


async def picows_many(task: Task, peers: int) -> None:
    each = task.count // peers
    url = f"{task.url}/many/{peers}/{each}/{task.size}"
    everything = asyncio.Event()
    listener = picows_listener("text", each * peers, lambda: finish(everything))
    for _ in range(peers):
        await picows_connect(task, url, listener)
    meter.start()
    await everything.wait()
    meter.stop()
    leave(result(each * peers))


async def aiohttp_feed(task: Task) -> None:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(task.feed_url, compress=15, max_msg_size=ROOM) as socket,
    ):
        if not socket.compress:
            raise SystemExit("nothing is compressed")
        await take(socket, task.warm_up)
        meter.start()
        last = await take(socket, task.count)
        meter.stop()
        check(last.data, task.last)


# --- which function measures what -----------------------------------------------------------------

FUNCTIONS: dict[tuple[str, str], Callable[[Task], Awaitable[None]]] = {
    ("feed", "wsclient channel, sending"): talking_feed,
    ("feed", "wsclient bot, str"): bot_feed,
    ("feed", "wsclient bot, async str"): bot_feed,
    ("feed", "wsclient bot, dict"): bot_feed,
    ("feed", "wsclient bot, typed"): bot_feed,
    ("feed", "wsclient bot, every typed"): bot_feed,
    ("feed", "raw trio"): raw_feed,
    ("echo", "raw trio"): raw_echo,
    ("feed", "picows"): picows_feed,
    ("send", "picows"): picows_send,
    ("feed", "aiohttp"): aiohttp_feed,
}


def function_for(task: Task) -> tuple[Callable[[Task], Awaitable[None]], bool]:
    """What measures the task, and whether it runs on uvloop."""
    on_uvloop = task.library in ("picows", "aiohttp")
    kind, _, number = task.measure.partition(" ")
    if kind == "idle":
        return trio_idle, False
    if kind == "many":
        many = picows_many if on_uvloop else trio_many
        return partial(many, peers=int(number)), on_uvloop
    return FUNCTIONS.get((kind, task.library), on_trio), on_uvloop


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def result(count: int) -> dict[str, float]:
    return {"cpu": meter.cpu / count, "wall": meter.wall / count}


def about(library: str) -> dict[str, str]:
    """What was measured: the versions, and for wsclient also whether it is compiled."""
    names = {
        "picows": ("picows", "uvloop"),
        "aiohttp": ("aiohttp", "uvloop"),
        "raw trio": ("trio",),
        "websockets": ("websockets", "trio"),
        "trio-websocket": ("trio-websocket", "trio"),
    }.get(library, ("wsclient-trio", "trio"))
    versions = {name: importlib.metadata.version(name) for name in names}
    if names[0] == "wsclient-trio":
        import wsclient

        compiled = getattr(wsclient, "__compiled__", False)
        versions["wsclient-trio"] += " (compiled)" if compiled else " (not compiled)"
        if "typed" in library:
            versions["msgspec"] = importlib.metadata.version("msgspec")
    return versions


def leave(answer: dict[str, Any]) -> NoReturn:
    """The measurement is over; to close thousands of connections is no part of it."""
    print(json.dumps({"versions": about(task.library), **answer}), flush=True)
    os._exit(0)


def main(task: Task) -> None:
    if task.core is not None:
        os.sched_setaffinity(0, {task.core})
    try:
        function, on_uvloop = function_for(task)
        if on_uvloop:
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(function(task))  # type: ignore[arg-type]
        else:
            import trio

            trio.run(function, task)
    except ImportError as error:
        print(json.dumps({"skipped": str(error)}))
        return
    leave(result(task.count))


if __name__ == "__main__":
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    task = Task(**json.loads(sys.argv[1]))
    main(task)
