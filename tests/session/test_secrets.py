"""No sink shows a secret: canaries wherever secrets go in, and every sink at once.

What structlog's renderers and the standard library show is in ``tests/observers``.
"""

from __future__ import annotations

import functools
import json
import logging
import socket

import prometheus_client
import pytest
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
        self.observers = [
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


def check(sinks, log):
    shown = sinks.shown()
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
        async with FaultServer(STORIES[story], network=network, subprotocols=["chat"]):
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
    assert {"spans", "systemd", "events", "lines", "journal"} == found
    assert any(CANARY in record.getMessage() for record in log.records)
