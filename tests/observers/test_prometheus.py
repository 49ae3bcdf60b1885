"""Metrics of prometheus-client: as its own exposition shows them."""

from __future__ import annotations

import builtins
import sys
import threading
from types import SimpleNamespace

import prometheus_client
import pytest
import trio

import wsclient
from wsclient import events
from wsclient.events import Outcome
from wsclient.observers import PrometheusObserver
from wsclient.observers._measures import MEASURES
from wsclient.observers._prometheus import READINGS, metric_name
from wsclient.testing import (
    NONE,
    REJECT_503,
    RESET_AFTER_OPEN,
    EventRecorder,
    Fault,
    FaultServer,
    echo,
    memory_network,
)

FEED = {"channel": "feed"}
SERVER = {"channel": "feed", "endpoint": "ws://server.test"}


@pytest.fixture
def registry():
    return prometheus_client.CollectorRegistry(auto_describe=True)


@pytest.fixture
def metrics(registry):
    return PrometheusObserver(registry)


def samples(registry):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


async def test_a_rough_life_is_counted(autojump_clock, registry, metrics):
    recorder = EventRecorder()
    story = [REJECT_503, Fault.close(1012, after=60), REJECT_503, RESET_AFTER_OPEN, NONE]
    with memory_network() as network:
        async with (
            FaultServer(story, network=network, handler=echo) as server,
            wsclient.open_channel(
                server.url, name="feed", observers=[recorder, metrics]
            ) as channel,
        ):
            await recorder.wait_for(events.ConnectionReady, count=3)
            await (await channel.send("hello")).wait()

            assert 1 == registry.get_sample_value("wsclient_channels_ready", FEED)
    outages = [ready.outage for ready in recorder.of(events.ConnectionReady) if ready.outage]

    assert {
        "wsclient_channels_ready": 0,
        "wsclient_outages_total": 2,
        "wsclient_outage_duration_seconds_count": len(outages),
        "wsclient_outage_duration_seconds_sum": pytest.approx(sum(outages)),
        "wsclient_gaps_total": 2,
    } == values(registry, FEED)
    assert {
        "wsclient_connection_attempts_total": 5,
        "wsclient_connections_total": 3,
        "wsclient_connection_time_to_ready_seconds_count": 3,
        "wsclient_connection_time_to_ready_seconds_sum": 0,
    } == values(registry, SERVER)
    assert {"wsclient_connection_failures_total": 2} == values(
        registry, {**SERVER, "cause": "rejected_503"}
    )
    assert {"wsclient_connection_losses_total": 1} == values(
        registry, {**SERVER, "cause": "closed_1012"}
    )
    assert {"wsclient_connection_losses_total": 1} == values(
        registry, {**SERVER, "cause": "closed_1006"}
    )
    assert {"wsclient_events_total": 1} == values(registry, {**FEED, "event": "ChannelClosed"})


def values(registry, labels):
    return {
        name: value for (name, *found), value in samples(registry).items() if dict(found) == labels
    }


async def test_a_channels_statistics_are_asked_for_at_each_scrape(
    autojump_clock, registry, metrics
):
    with memory_network() as network:
        async with (
            FaultServer(network=network, handler=echo) as server,
            wsclient.open_channel(server.url, name="feed", observers=[metrics]) as channel,
        ):
            metrics.watch(channel.name, channel.statistics)

            assert None is registry.get_sample_value("wsclient_receipts_total", FEED)
            for text in ("a", "bb", "ccc"):
                await (await channel.send(text)).wait()
            await channel.receive()
            await trio.sleep(60)
            found = samples(registry)
            statistics = channel.statistics()
    expected = {
        "wsclient_messages_accepted_total": 3,
        "wsclient_outbox_messages": 0,
        "wsclient_outbox_bytes": 0,
        "wsclient_messages_received_total": 1,
        "wsclient_inbox_messages": 2,
        "wsclient_inbox_bytes": 5,
        "wsclient_requests_waiting": 0,
    }

    assert expected == {name: found[name, ("channel", "feed")] for name in expected}
    assert {Outcome.RECEIVED: 3} == statistics.outcomes
    assert 3 == found["wsclient_receipts_total", ("channel", "feed"), ("outcome", "received")]
    assert {"dropped": 0, "repeated": 0, "stale": 0, "late_reply": 0} == {
        labels[1][1]: value
        for (name, *labels), value in found.items()
        if name == "wsclient_messages_skipped_total"
    }
    assert None is not statistics.latency
    assert {
        "last": statistics.latency,
        "smoothed": statistics.latency_smoothed,
        "minimum": statistics.latency_minimum,
        "p50": statistics.latency_p50,
        "p95": statistics.latency_p95,
        "p99": statistics.latency_p99,
    } == {
        labels[1][1]: value
        for (name, *labels), value in found.items()
        if name == "wsclient_round_trip_seconds"
    }


async def test_where_there_is_no_round_trip_no_value_is_made_up(autojump_clock, registry, metrics):
    with memory_network():
        async with wsclient.open_channel("ws://nobody.test", observers=()) as channel:
            metrics.watch(channel.name, channel.statistics)
            found = samples(registry)

    assert 0 == found["wsclient_messages_accepted_total", ("channel", "ws://nobody.test")]
    assert not any(name == "wsclient_round_trip_seconds" for name, *_ in found)


async def test_a_channel_that_is_watched_no_more_is_not_asked(registry, metrics):
    metrics.watch("feed", lambda: pytest.fail("it was asked"))
    metrics.unwatch("feed")
    metrics.unwatch("feed")

    assert not any(name.startswith("wsclient_inbox") for name, *_ in samples(registry))


async def test_a_scrape_from_a_thread_asks_on_trios_thread(registry, metrics):
    asked = []

    def statistics():
        asked.append(threading.get_ident())
        return EMPTY

    metrics.watch("feed", statistics)
    await trio.to_thread.run_sync(samples, registry)
    samples(registry)

    assert [threading.get_ident()] * 2 == asked


def test_a_scrape_after_the_end_of_trios_run_shows_the_last_counts(registry, metrics):
    async def main():
        metrics.watch("feed", lambda: EMPTY)

    trio.run(main)

    assert 7 == registry.get_sample_value("wsclient_messages_accepted_total", FEED)


def test_a_scrape_in_another_run_of_trio_asks_all_the_same(registry, metrics):
    async def main():
        metrics.watch("feed", lambda: EMPTY)

    async def scrape():
        return registry.get_sample_value("wsclient_messages_accepted_total", FEED)

    trio.run(main)

    assert 7 == trio.run(scrape)


def test_a_channel_may_be_watched_before_trio_runs(registry, metrics):
    metrics.watch("feed", lambda: EMPTY)

    assert 7 == registry.get_sample_value("wsclient_messages_accepted_total", FEED)


EMPTY = SimpleNamespace(
    **{field: None for reading in READINGS for field in reading.fields.values()}
    | {"outcomes": {}, "messages_accepted": 7}
)


def test_statistics_have_every_field_that_is_read():
    import attrs

    fields = {field.name for field in attrs.fields(wsclient.ChannelStatistics)}

    assert {field for reading in READINGS for field in reading.fields.values()} <= fields
    # What events count already, and what names a state rather than counts.
    assert {"state", "epoch", "attempts", "gaps"} == fields - {
        field for reading in READINGS for field in reading.fields.values()
    }


def test_prometheus_clients_own_registry_is_used_if_no_other_is_given():
    metrics = PrometheusObserver()
    try:
        metrics(events.OutboxRecovered(channel="feed"))
        shown = prometheus_client.generate_latest().decode()
    finally:
        for metric in [*metrics._metrics.values(), metrics._collector]:
            prometheus_client.REGISTRY.unregister(metric)

    assert 'wsclient_events_total{channel="feed",event="OutboxRecovered"} 1.0' in shown


def test_a_second_observer_in_one_registry_is_refused(registry, metrics):
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusObserver(registry)


def test_no_server_makes_a_label_grow(registry):
    metrics = PrometheusObserver(registry, max_label_values=3)
    for code in range(4000, 4100):
        metrics(
            events.ConnectionLost(
                channel="feed",
                endpoint=f"ws://server-{code}.test",
                attempt=1,
                epoch=1,
                cause="c",
                code=code,
                duration=1.0,
                ready=True,
            )
        )
    found = {
        tuple(dict(labels).values()): value
        for (name, *labels), value in samples(registry).items()
        if name == "wsclient_connection_losses_total"
    }

    assert 4 == len(found)
    assert 97 == found["other", "feed", "other"]


def test_every_metric_has_its_name_before_anything_has_happened(registry, metrics):
    shown = {
        line.split()[2]
        for line in prometheus_client.generate_latest(registry).decode().splitlines()
        if line.startswith("# TYPE")
    }
    names = {metric_name(measure) for measure in MEASURES} | {reading.name for reading in READINGS}

    assert names == {name.removesuffix("_total") for name in shown}


def test_without_prometheus_client_it_is_said_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "prometheus_client":
            raise ImportError("no module", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "prometheus_client")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'wsclient-trio\[metrics\]'$"):
        PrometheusObserver()
