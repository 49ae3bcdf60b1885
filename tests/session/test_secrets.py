"""No sink shows a secret: canaries wherever secrets go in, and every sink at once.

Renderers show tracebacks with the variables in them, wherever they can.  What an exception shows
that reaches the user is in ``tests/test_tracebacks.py``, what a terminal shows in ``tests/cli``.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import socket

import prometheus_client
import pytest
import structlog
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import wsclient
from wsclient import events
from wsclient.cli._objects import event_object, json_line
from wsclient.session import _open
from wsclient.session._recording import Recorder
from wsclient.testing import (
    ANSWER_200,
    BAD_ACCEPT,
    GARBAGE_ANSWER,
    NONE,
    REFUSE,
    REJECT_503,
    RESET_AFTER_OPEN,
    EventRecorder,
    Fault,
    FaultServer,
    memory_network,
)

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="needs sockets of the Unix domain"
)

CANARY = "c4n4ry"
URL = f"ws://{CANARY}user:{CANARY}pass@server.test/{CANARY}path?{CANARY}key={CANARY}value"
PROXY = f"http://{CANARY}user:{CANARY}pass@proxy.test:3128"

RENDERERS = {
    "structlog, rich with variables": [structlog.dev.ConsoleRenderer(colors=False)],
    "structlog, plain": [
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    ],
    "structlog, JSON with variables": [
        structlog.processors.dict_tracebacks,
        structlog.processors.JSONRenderer(default=repr),
    ],
    "structlog, logfmt": [
        structlog.processors.format_exc_info,
        structlog.processors.LogfmtRenderer(),
    ],
}

STORIES = {
    "a rough life": [
        REFUSE,
        REJECT_503,
        Fault.reject(429, retry_after=1, headers={"Set-Cookie": f"session={CANARY}"}),
        RESET_AFTER_OPEN,
        Fault.close(1012, after=20),
        NONE,
    ],
    "refused": [Fault.reject(404, headers={"X-Echo": CANARY}, body=CANARY.encode())],
    "redirected": [Fault.reject(302, headers={"Location": f"wss://x.test/?{CANARY}"})],
    "no WebSocket server": [GARBAGE_ANSWER],
    "another page": [ANSWER_200],
    "wrong answer": [BAD_ACCEPT],
    "bad credentials": [Fault.reject(401, body=CANARY.encode())],
}


async def give_url():
    return URL


async def give_headers():
    return {"X-Session": CANARY}


async def give_credentials(*, fresh):
    return f"Bearer {CANARY}"


async def give_wrong_credentials(*, fresh):
    return f"Bearer {CANARY}\r\nX: y"


async def give_no_url():
    raise LookupError("no URL today")


async def log_in(connection):
    await connection.send_message(json.dumps({"token": CANARY}))


SOURCES = {
    "a fixed URL": {"url": URL},
    "functions": {"url": give_url, "headers": give_headers, "credentials": give_credentials},
    "a function that fails": {"url": [give_no_url, URL]},
    "credentials that cannot be sent": {"url": URL, "credentials": give_wrong_credentials},
    "several endpoints": {"url": [URL, give_url]},
    "a login": {"url": URL, "on_connect": log_in},
}


class Sinks:
    """Every sink that there is, and what they have shown."""

    def __init__(self, folder):
        self.registry = prometheus_client.CollectorRegistry(auto_describe=True)
        self.metrics = wsclient.PrometheusObserver(self.registry)
        self._spans = InMemorySpanExporter()
        self._tracers = TracerProvider()
        self._tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader])
        tracing = wsclient.OpenTelemetryObserver(self._tracers, self._meters)
        self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._systemd.bind(str(folder / "notify"))
        self._systemd.setblocking(False)
        systemd = wsclient.SystemdObserver(environment={"NOTIFY_SOCKET": str(folder / "notify")})
        self.recorder = EventRecorder()
        self._folder = folder
        self.journal = wsclient.Journal(folder / "journal")
        self._told = []
        self._out = {name: io.StringIO() for name in RENDERERS}
        logs = [
            wsclient.LoggingObserver(
                structlog.wrap_logger(structlog.PrintLogger(self._out[name]), processors)
            )
            for name, processors in RENDERERS.items()
        ]
        self.observers = [
            *logs,
            self.recorder,
            self.metrics,
            tracing,
            systemd,
            wsclient.LoggingObserver(),
            self._read_systemd,
        ]

    def _read_systemd(self, event):
        """Last of all: the socket has room for some datagrams only."""
        while True:
            try:
                self._told.append(self._systemd.recv(65536).decode())
            except BlockingIOError:
                return

    def shown(self):
        """By sink."""
        data = self._reader.get_metrics_data()
        journal = self._folder / "journal"
        return {
            "prometheus": prometheus_client.generate_latest(self.registry).decode(),
            "spans": "".join(span.to_json() for span in self._spans.get_finished_spans()),
            "metrics": data.to_json(),
            "systemd": "\n".join(self._told),
            "events": repr(self.recorder.events),
            "lines": "".join(json_line(event_object(event)) for event in self.recorder.events),
            "journal": journal.read_text() if journal.exists() else "",
            "objects": repr([*self.observers, self.journal]),
            **{name: out.getvalue() for name, out in self._out.items()},
        }

    def close(self):
        self._systemd.close()
        self._meters.shutdown()
        self._tracers.shutdown()


@pytest.fixture
def sinks(tmp_path):
    sinks = Sinks(tmp_path)
    yield sinks
    sinks.close()


@pytest.fixture(autouse=True)
def _disk(monkeypatch):
    """Virtual time flies while a thread writes."""

    async def run_sync(function, *args, abandon_on_cancel, limiter):
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(_open, "Recorder", functools.partial(Recorder, run_sync=run_sync))


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.DEBUG, logger="wsclient")
    return caplog


async def live(sinks, url, *, proxy=None, **functions):
    """One session, until it has failed or been ready twice."""
    options = wsclient.ConnectionOptions(
        subprotocols=["chat", f"{CANARY}-token"],
        extra_headers={"Authorization": f"Bearer {CANARY}", "X-Api-Key": CANARY},
        redirects=1,
        proxy=proxy,
    )
    try:
        async with wsclient.open_channel(
            url,
            **functions,
            connection=options,
            journal=sinks.journal,
            observers=sinks.observers,
            startup_timeout=600,
        ) as channel:
            sinks.metrics.watch(channel.name, channel.statistics)
            await sinks.recorder.wait_for(events.ConnectionReady, count=2)
            await (await channel.send(CANARY)).wait()
    except wsclient.WebSocketError:
        pass


def check(sinks, log, *, but=frozenset()):
    shown = {name: text for name, text in sinks.shown().items() if name not in but}
    shown["log"] = "\n".join(
        logging.Formatter().format(record) + repr(vars(record)) for record in log.records
    )

    assert [] == [name for name, text in shown.items() if CANARY in text]
    # And they have shown something.
    assert [] == [name for name, text in shown.items() if not text and name != "journal"]


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("source", SOURCES)
async def test_no_sink_shows_a_secret(autojump_clock, sinks, log, story, source):
    with memory_network() as network:
        # Many a server takes the first subprotocol that it is offered, and so tells a token again.
        async with FaultServer(
            STORIES[story], network=network, subprotocols=[f"{CANARY}-token", "chat"]
        ):
            await live(sinks, **SOURCES[source])

    check(sinks, log)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        f"HTTP/1.1 502 {CANARY}\r\nX: {CANARY}\r\n\r\n{CANARY}".encode(),
        f"{CANARY}\r\n\r\n".encode(),
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["nothing", "407", "502", "nonsense", "a tunnel to nowhere"],
)
async def test_no_sink_shows_a_secret_of_a_proxys(autojump_clock, sinks, log, answer):
    with memory_network() as network:
        proxy = network.listen("proxy.test", 3128)

        async def refuse():
            while True:
                async with await proxy.accept() as stream:
                    await stream.receive_some()
                    await stream.send_all(answer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            await live(sinks, URL, proxy=PROXY)
            nursery.cancel_scope.cancel()

    check(sinks, log)


async def test_no_sink_shows_a_secret_of_a_proxy_that_is_not_there(autojump_clock, sinks, log):
    with memory_network():
        await live(sinks, URL, proxy=PROXY)

    check(sinks, log)


async def test_the_canary_would_be_seen(autojump_clock, sinks, log):
    """A sink that showed one would be found: what a server says itself is in its journal."""

    async def serve(connection):
        await connection.send(CANARY)
        await connection.close(1001, CANARY)

    with memory_network() as network:
        async with FaultServer(network=network, handler=serve):
            await live(sinks, URL)
    found = {name for name, text in sinks.shown().items() if CANARY in text}

    # A close reason is for people to read.
    assert {"spans", "systemd", "events", "lines", "journal", *RENDERERS} == found
    assert any(CANARY in record.getMessage() for record in log.records)


# --- subscriptions, requests and bots -------------------------------------------------------------


async def be_a_service(connection):
    """Takes what is fit to be taken, and refuses the rest."""
    async for message in connection:
        asked = json.loads(message)
        channel = {"channel": asked.get("channel")}
        if asked.get("op") == "subscribe" and asked["channel"] == "good":
            await connection.send(json.dumps({"op": "subscribed", **channel}))
            await connection.send(json.dumps({**channel, "seq": 1, "data": {"type": "trade"}}))
        elif asked.get("op") == "subscribe":
            retry = asked["channel"] == "later"
            error = {"op": "error", **channel, "error": "no", "retry": retry}
            await connection.send(json.dumps(error))
        elif asked.get("method") == "hang up":
            await connection.close(1001)
        elif asked.get("method") == "login":
            error = {"code": -1, "message": "no"}
            await connection.send(json.dumps({"id": asked["id"], "error": error, "jsonrpc": "2.0"}))


class Spelling(wsclient.JsonPubSub):
    correlation = wsclient.JsonRpcCorrelation()


async def take(channel, key, parameters, **given):
    try:
        async with channel.subscribe(key, parameters, **given) as feed:
            await feed.receive()
            await trio.sleep_forever()
    except wsclient.SubscriptionFailed as failure:
        return repr(failure)


async def test_no_sink_shows_parameters_or_requests(autojump_clock, sinks, log):
    options = wsclient.ConnectionOptions(extra_headers={"Authorization": f"Bearer {CANARY}"})
    things = []

    async def backfill(gap):
        raise LookupError("no past")

    with memory_network() as network:
        async with (
            FaultServer([NONE, NONE], network=network, handler=be_a_service),
            wsclient.open_channel(
                URL, connection=options, protocol=Spelling(), observers=sinks.observers
            ) as channel,
            trio.open_nursery() as nursery,
        ):
            parameters = {"token": CANARY}
            nursery.start_soon(functools.partial(take, channel, "good", parameters, after=0))
            nursery.start_soon(functools.partial(take, channel, "good", parameters, after=5))
            nursery.start_soon(take, channel, "later", parameters)
            await take(channel, "bad", parameters)
            await take(channel, "worse", {"token": CANARY, "x": object()})
            feed = channel.subscribe("feed", parameters, backfill=backfill)
            wish = wsclient.Wish(key="k", parameters=parameters, number=1)
            for method in ("login", "hang up"):
                with pytest.raises(wsclient.WebSocketError):
                    await channel.request({"method": method, "params": [CANARY]}, timeout=5)
            await sinks.recorder.wait_for(events.ConnectionReady, count=2)
            receipt = await channel.send(json.dumps({"op": CANARY}))
            things += [channel, feed, wish, receipt, channel.explain(), channel.outages]
            things += [channel.statistics(), channel.send_channel, channel.receive_channel]
            nursery.cancel_scope.cancel()

    assert {"SubscriptionRefused", "ConnectionLost"} <= set(sinks.recorder.names())
    assert CANARY not in repr(things)
    check(sinks, log, but={"journal"})


async def test_no_sink_shows_a_message_that_a_bot_fails_at(autojump_clock, sinks, log):
    """Its own frames are shown with what they hold, so here they let go of it."""
    bot = wsclient.Bot(URL, observers=sinks.observers, protocol=Spelling())

    @bot.on("order")
    def fail(given, context):
        del given, context
        raise LookupError("mine")

    @bot.on("bid")
    async def fail_later(given, context):
        del given, context
        raise LookupError("mine")

    @bot.on("ask")
    def want_a_number(ask: int):
        raise AssertionError("it is none")

    @bot.subscribe("good", {"token": CANARY})
    def fail_at_a_value(given, context):
        del given, context
        raise LookupError("mine")

    @bot.every(1)
    def fail_in_time():
        raise LookupError("mine")

    @bot.on_error
    def fail_at_a_failure(given, context):
        del given, context
        raise LookupError("mine")

    async def serve(connection):
        for kind in ("order", "bid", "ask"):
            await connection.send(json.dumps({"type": kind, "token": CANARY}))
        await connection.send(f"not json: {CANARY}")
        await connection.send(json.dumps({"token": CANARY}))
        await be_a_service(connection)

    with memory_network() as network:
        async with FaultServer(network=network, handler=serve), trio.open_nursery() as nursery:
            await nursery.start(bot.serve)
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
    failed = [event.subject for event in sinks.recorder.of(events.HandlerFailed)]

    assert {"order", "bid", "every 1 s"} <= set(failed)
    assert {"MessageUndecoded"} <= set(sinks.recorder.names())
    assert CANARY not in repr([bot, bot.unhandled])
    check(sinks, log, but={"journal"})


@pytest.mark.parametrize("works", [True, False])
async def test_what_a_journal_redacts_is_nowhere(autojump_clock, sinks, log, tmp_path, works):
    def redact(message):
        if not works:
            raise LookupError("mine")
        return message.replace(CANARY, "…")

    async def serve(connection):
        await connection.send(f'{{"token": "{CANARY}"}}')
        await trio.sleep_forever()

    journal = wsclient.Journal(tmp_path / "redacted", redact=redact)
    with memory_network() as network:
        async with (
            FaultServer(network=network, handler=serve),
            wsclient.open_channel(URL, journal=journal, observers=sinks.observers) as channel,
        ):
            await channel.receive()
            await trio.sleep(1)
    told = [event.subject for event in sinks.recorder.of(events.HandlerFailed)]

    assert ([] if works else ["a message for the journal"]) == told
    assert CANARY not in (tmp_path / "redacted").read_text()
    assert CANARY not in repr(journal)
    check(sinks, log, but={"journal"})
