"""Never run: what users may write, as mypy and pyright should read it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, assert_type

import attrs
import tenacity
import trio

import wsclient
from wsclient.testing import EventRecorder, FaultServer, memory_network


async def one_connection() -> None:
    context = ssl.create_default_context()
    async with wsclient.open_websocket_url("wss://example.com", context) as connection:
        assert_type(connection, wsclient.WebSocketConnection)
        await connection.send_message("text")
        await connection.send_message(b"bytes")
        assert_type(await connection.get_message(), str | bytes)
        assert_type(connection.closed, wsclient.CloseReason | None)
        assert_type(connection.remote, wsclient.Endpoint | str)
        async for message in connection:
            assert_type(message, str | bytes)
    async with wsclient.open_websocket("example.com", 443, "/", use_ssl=True):
        pass
    async with wsclient.open_websocket_url(
        "wss://example.com",
        proxy="socks5h://user:password@proxy.example:1080",
        redirects=3,
        user_agent=None,
        tcp_user_timeout=30,
    ):
        pass
    async with wsclient.open_websocket_url("ws://example.com", colour="red"):  # type: ignore[call-arg]
        pass


async def in_a_nursery(stream: trio.abc.Stream) -> None:
    async with trio.open_nursery() as nursery:
        wrapped = await wsclient.wrap_client_stream(
            nursery, stream, "example.com", "/", user_agent="mine/1"
        )
        assert_type(wrapped, wsclient.WebSocketConnection)
        channel = await wsclient.connect_channel(nursery, "ws://example.com")
        assert_type(channel, wsclient.DurableChannel)


async def subscribe(connection: wsclient.WebSocketConnection) -> None:
    await connection.send_message("subscribe")


def decide(loss: wsclient.Loss, phase: wsclient.Phase) -> wsclient.Decision:
    if loss.code == 4001:
        return wsclient.Fatal("the account is closed")
    return wsclient.classify(loss, phase)


async def one_channel() -> None:
    recorder = EventRecorder()
    async with wsclient.open_channel(
        "wss://example.com/feed",
        on_connect=subscribe,
        connection=wsclient.ConnectionOptions(extra_headers={"Authorization": "Bearer …"}),
        heartbeat=wsclient.HeartbeatOptions(interval=10, timeout=5),
        retry=wsclient.RetryPolicy(
            wait=tenacity.wait_random_exponential(max=30) + tenacity.wait_random(0, 1),
            stop=tenacity.stop_after_attempt(10),
            classify=decide,
        ),
        limits=wsclient.Limits(outbox_messages=10),
        outbox=wsclient.SqliteOutbox("outbox.db"),
        observers=[recorder, print],
    ) as channel:
        receipt = await channel.send("hello")
        assert_type(receipt, wsclient.Receipt)
        assert_type(await receipt.wait(), wsclient.Outcome)
        assert_type(await channel.receive(), str | bytes)
        assert_type(await channel.receive_many(), list[str | bytes])
        async for item in channel.items():
            assert_type(item, str | bytes | wsclient.Gap | wsclient.Overflow)
        receiving: trio.abc.ReceiveChannel[str | bytes] = channel.receive_channel.clone()
        sending: trio.abc.SendChannel[str | bytes] = channel.send_channel
        await sending.send(await receiving.receive())
        assert_type(channel.state, wsclient.ChannelState)


assert_type(wsclient.SqliteOutbox(Path("outbox.db")).path, str)


def redact(message: str | bytes) -> str | None:
    return message if isinstance(message, str) else None


async def watched(journal: wsclient.Journal) -> None:
    metrics = wsclient.PrometheusObserver()
    systemd = wsclient.SystemdObserver()
    async with (
        wsclient.open_channel(
            "wss://example.com/feed",
            journal=wsclient.Journal("feed", redact=redact),
            observers=[
                metrics,
                systemd,
                wsclient.OpenTelemetryObserver(),
                wsclient.LoggingObserver(),
            ],
        ) as channel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(systemd.keep_alive)
        metrics.watch(channel.name, channel.statistics)
    async for item in journal.replay(speed=2):
        assert_type(item, str | bytes | wsclient.Gap | wsclient.Overflow)
    for record in journal.records():
        assert_type(record.time, float)


async def give_url() -> str:
    return "wss://example.com/feed?ticket=1"


async def give_headers() -> dict[str, str]:
    return {"X-Session": "1"}


async def give_credentials(fresh: bool) -> str | None:
    return "Bearer new" if fresh else None


async def one_channel_of_several_endpoints() -> None:
    budget = wsclient.RetryBudget(attempts=30, seconds=60, when_spent="fail")
    async with wsclient.open_channel(
        ["wss://example.com/feed", give_url],
        headers=give_headers,
        credentials=give_credentials,
        retry=wsclient.RetryPolicy(budget=budget, classify=wsclient.PRESETS["discord"]),
        startup_timeout=60,
    ) as channel:
        assert_type(channel.retry_now(), bool)
        assert_type(channel.reconnect("because"), bool)
        assert_type(channel.explain(), wsclient.Explanation)
        assert_type(channel.outages, tuple[wsclient.Outage, ...])


async def ask() -> None:
    correlation: wsclient.Correlation = wsclient.JsonCorrelation(number_type=str)
    delivery = wsclient.DeliveryOptions(correlation=correlation)
    async with wsclient.open_channel("wss://example.com/rpc", delivery=delivery) as channel:
        assert_type(await channel.request({"op": "balance"}, timeout=5, idempotent=True), Any)


bot = wsclient.Bot("wss://example.com/bot", key="op")


@bot.on("trade")
async def trade(message: dict[str, Any], context: wsclient.Context) -> None:
    await context.send({"op": "thanks"})


@bot.on("quote")
def quote(message: dict[str, Any]) -> int:
    return len(message)


# Decorators leave what they decorate as it is.
assert_type(quote({}), int)


@attrs.frozen
class Trade:
    price: float
    type: Literal["trade"] = "trade"


@bot.on
async def typed(message: Trade, reply: Callable[..., Awaitable[wsclient.Receipt]]) -> None:
    assert_type(await reply({"op": "thanks"}), wsclient.Receipt)


@bot.on(Trade)
def typed_too(message: Trade) -> float:
    return message.price


def is_urgent(message: dict[str, object]) -> bool:
    return message.get("urgent") is True


@bot.on(is_urgent)
def urgent(message: dict[str, Any]) -> int:
    return 1


@bot.on("trade.*", concurrency=10, ordered_by=lambda message: message["symbol"])
async def several(message: dict[str, Any]) -> None: ...


@bot.on_message
def every(message: str) -> int:
    return len(message)


@bot.on_unhandled
def rest(message: Any) -> None: ...


@bot.on_gap
async def missed(gap: wsclient.Gap, channel: wsclient.DurableChannel) -> None: ...


@bot.on_disconnect
def gone(event: wsclient.ConnectionLost | wsclient.ConnectionLeft) -> None: ...


@bot.while_connected
async def beat(connection: wsclient.WebSocketConnection) -> None: ...


@bot.on_error
def failed(failed: wsclient.FailedMessage) -> None:
    assert_type(failed.path, str | None)


router = wsclient.Router()


@router.middleware
async def around(context: wsclient.Context, call_next: wsclient.CallNext) -> None:
    assert_type(context.message, str | bytes | None)
    assert_type(context.subject, str)
    await call_next()


bot.include(router, prefix="room.")
assert_type(typed_too(Trade(1.0)), float)
assert_type(urgent({}), int)
assert_type(every(""), int)
bot.on(1)  # type: ignore[call-overload]
bot.include(bot.channel)  # type: ignore[arg-type]


@bot.on_connect
async def log_in(connection: wsclient.WebSocketConnection) -> None:
    await connection.send_message("…")


@bot.every(60)
async def report() -> None:
    assert_type(await bot.send({"op": "report"}), wsclient.Receipt)


async def keep(failed: wsclient.FailedMessage) -> None:
    assert_type(failed.message, str | bytes | None)
    assert_type(failed.handler, str | None)
    assert_type(failed.subject, str)
    assert_type(failed.error, Exception)


letters: list[wsclient.FailedMessage] = []
wsclient.Bot("wss://example.com/bot", handler_errors=keep)
wsclient.Bot("wss://example.com/bot", handler_errors=letters.append)
wsclient.Bot("wss://example.com/bot", handler_errors=wsclient.HandlerErrors.RAISE)
wsclient.Bot("wss://example.com/bot", handler_errors="raise")  # type: ignore[arg-type]


async def with_the_kit() -> None:
    with memory_network() as network:
        async with FaultServer(network=network) as server:
            assert_type(server.url, str)
            heard: Sequence[str | bytes] = server.messages
            assert_type(len(heard), int)
