"""Spans and counts of OpenTelemetry: as its SDK collects them."""

from __future__ import annotations

import builtins
import sys

import pytest
import trio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import wsclient
from wsclient import events
from wsclient.events import ChannelState, Gap, LossKind
from wsclient.observers import OpenTelemetryObserver
from wsclient.observers._measures import MEASURES
from wsclient.observers._otel import CONNECTION_SPAN, OUTAGE_SPAN, instrument_name
from wsclient.testing import (
    NONE,
    REJECT_404,
    REJECT_503,
    EventRecorder,
    Fault,
    FaultServer,
    memory_network,
)

PLACE = {"channel": "feed", "endpoint": "wss://server.test:8443", "attempt": 1}


class Collected:
    """What an observer has said."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.observe = OpenTelemetryObserver(self.provider, self.meters)

    def spans(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def metrics(self):
        found = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in found.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name):
        return {
            tuple(sorted(point.attributes.items())): point
            for point in self.metrics()[f"wsclient.{name}"].data.data_points
        }


@pytest.fixture
def collected():
    collected = Collected()
    yield collected
    collected.meters.shutdown()
    collected.provider.shutdown()


def changed(previous, state, cause="c"):
    return events.StateChanged(channel="feed", previous=previous, state=state, cause=cause)


def tell(observe, *happened):
    for event in happened:
        observe(event)


def attempted(**more):
    return events.ConnectionAttempted(**{**PLACE, **more})


def opened(epoch=1):
    return events.ConnectionOpened(**PLACE, epoch=epoch, duration=0.5, subprotocol=None)


def ready(epoch=1, **more):
    return events.ConnectionReady(**{**PLACE, "epoch": epoch, "outage": None, **more})


def lost(epoch=1):
    return events.ConnectionLost(
        **PLACE, epoch=epoch, cause="the end", code=1012, duration=9.0, ready=True
    )


async def test_a_rough_life_is_connections_and_outages(autojump_clock, collected):
    recorder = EventRecorder()
    story = [Fault.close(1012, after=60), REJECT_503, REJECT_503, NONE]
    with memory_network() as network:
        async with (
            FaultServer(story, network=network) as server,
            wsclient.open_channel(server.url, name="feed", observers=[recorder, collected.observe]),
        ):
            await recorder.wait_for(events.ConnectionReady, count=2)
            await trio.sleep(1)
    first, *failed, last = collected.spans(CONNECTION_SPAN)
    [outage] = collected.spans(OUTAGE_SPAN)
    second = recorder.of(events.ConnectionReady)[1]

    assert (SpanKind.CLIENT, StatusCode.ERROR) == (first.kind, first.status.status_code)
    assert {
        "wsclient.channel": "feed",
        "wsclient.endpoint": "ws://server.test",
        "server.address": "server.test",
        "server.port": 80,
        "url.scheme": "ws",
        "wsclient.attempt": 1,
        "wsclient.epoch": 1,
        "error.type": "closed_1012",
    } == dict(first.attributes)
    assert ["opened", "ready"] == [event.name for event in first.events]
    assert ["rejected_503"] * 2 == [span.attributes["error.type"] for span in failed]
    assert ["the server refused the upgrade: HTTP 503"] * 2 == [
        span.status.description for span in failed
    ]
    # The attempts of the outage are its children, and it points to what it began with.
    assert [outage.context.span_id] * 3 == [span.parent.span_id for span in (*failed, last)]
    assert [first.context.span_id] == [link.context.span_id for link in outage.links]
    assert None is first.parent
    assert StatusCode.UNSET is last.status.status_code
    assert {
        "wsclient.channel": "feed",
        "wsclient.cause": "the connection is closed: 1012 SERVICE_RESTART",
        "wsclient.attempts": 3,
        "wsclient.outage": second.outage,
    } == dict(outage.attributes)
    assert ["gap"] == [event.name for event in outage.events]


async def test_what_it_counts_is_counted(autojump_clock, collected):
    with memory_network() as network:
        async with (
            FaultServer([REJECT_503, NONE], network=network) as server,
            wsclient.open_channel(
                server.url, name="feed", observers=[collected.observe], ready_timeout=100
            ),
        ):
            pass
    here = ("wsclient.channel", "feed")
    at = ("wsclient.endpoint", "ws://server.test")
    cause = ("wsclient.cause", "rejected_503")

    assert 2 == collected.points("connection.attempts")[here, at].value
    assert 1 == collected.points("connection.failures")[cause, here, at].value
    assert 0 == collected.points("channels.ready")[here,].value
    assert 1 == collected.points("connection.time_to_ready")[here, at].count
    assert set(collected.metrics()) < {instrument_name(measure) for measure in MEASURES}
    assert "s" == collected.metrics()["wsclient.connection.time_to_ready"].unit


def test_a_connection_that_is_left_is_no_error(collected):
    left = events.ConnectionLeft(**PLACE, epoch=1, reason="too old", duration=9.0)
    tell(collected.observe, attempted(), opened(), ready(), left)
    [span] = collected.spans(CONNECTION_SPAN)

    assert StatusCode.UNSET is span.status.status_code
    assert "too old" == span.attributes["wsclient.left"]
    assert ("server.test", 8443) == (
        span.attributes["server.address"],
        span.attributes["server.port"],
    )


def test_an_attempt_that_was_abandoned_is_ended_by_the_next_one(collected):
    tell(collected.observe, attempted(), attempted(attempt=2), opened(), lost())

    assert [1, 2] == [
        span.attributes["wsclient.attempt"] for span in collected.spans(CONNECTION_SPAN)
    ]


def test_two_connections_of_a_channel_are_told_apart(collected):
    tell(collected.observe, attempted(), opened(1), ready(1), attempted(), opened(2))
    tell(collected.observe, lost(1), ready(2))
    [span] = collected.spans(CONNECTION_SPAN)

    assert 1 == span.attributes["wsclient.epoch"]
    tell(collected.observe, events.ChannelClosed(channel="feed", cancelled=0, lost_unknown=0))

    assert 2 == collected.spans(CONNECTION_SPAN)[1].attributes["wsclient.epoch"]
    assert [] == collected.spans(OUTAGE_SPAN)


def test_the_end_of_one_channel_ends_nothing_of_another(collected):
    tell(collected.observe, attempted(), opened(), attempted(channel="other"))
    tell(collected.observe, events.ChannelClosed(channel="other", cancelled=0, lost_unknown=0))

    assert ["other"] == [
        span.attributes["wsclient.channel"] for span in collected.spans(CONNECTION_SPAN)
    ]


async def test_the_failure_of_a_channel_ends_its_outage_as_an_error(autojump_clock, collected):
    story = [Fault.close(1001, after=60), *[REJECT_404] * 99]
    with memory_network() as network:
        async with FaultServer(story, network=network) as server:
            with pytest.raises(wsclient.ChannelFailed):
                async with wsclient.open_channel(server.url, observers=[collected.observe]):
                    await trio.sleep_forever()
    [outage] = collected.spans(OUTAGE_SPAN)

    assert StatusCode.ERROR is outage.status.status_code
    assert "fatal" in outage.status.description
    assert {} == collected.observe._attempts == collected.observe._connections
    assert {} == collected.observe._outages == collected.observe._ended


def test_an_outage_of_which_the_beginning_was_not_seen_does_no_harm(collected):
    gap = Gap(after=1, before=2, since=1.0, until=2.0, reason="r")
    tell(
        collected.observe,
        events.GapDetected(channel="feed", gap=gap),
        ready(),
        lost(),
        opened(),
        events.ConnectionFailed(**PLACE, cause="c", duration=1.0, kind=LossKind.SILENT),
        events.ConnectionLeft(**PLACE, epoch=1, reason="r", duration=9.0),
        changed(ChannelState.READY, ChannelState.CONNECTING),
        ready(2),
    )
    [outage] = collected.spans(OUTAGE_SPAN)

    assert () == tuple(outage.links)
    assert {"wsclient.channel", "wsclient.cause"} == set(outage.attributes)
    assert [] == collected.spans(CONNECTION_SPAN)


def test_an_endpoint_that_is_not_known_yet_has_no_address(collected):
    tell(collected.observe, attempted(endpoint="give_url()"), attempted())
    [span] = collected.spans(CONNECTION_SPAN)

    assert "give_url()" == span.attributes["wsclient.endpoint"]
    assert "server.address" not in span.attributes


def test_the_span_that_is_current_is_the_parent_of_a_first_attempt(collected):
    with trace.get_tracer("mine", tracer_provider=collected.provider).start_as_current_span("mine"):
        tell(collected.observe, attempted(), opened(), lost())

    [mine] = collected.spans("mine")
    [span] = collected.spans(CONNECTION_SPAN)

    assert mine.context.span_id == span.parent.span_id


def test_without_an_sdk_it_does_nothing():
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
    assert not isinstance(metrics.get_meter_provider(), MeterProvider)
    tell(OpenTelemetryObserver(), attempted(), opened(), ready(), lost())


def test_without_opentelemetry_it_is_said_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "opentelemetry":
            raise ImportError("no module", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "opentelemetry", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'wsclient-trio\[otel\]'$"):
        OpenTelemetryObserver()
