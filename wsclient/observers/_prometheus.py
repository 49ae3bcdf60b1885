"""Events and statistics → metrics of prometheus-client.

Events are counted as they come.  What a channel counts itself (its outbox and inbox, its receipts,
its round trips) is asked for at each scrape.  A scrape comes from a thread of the exporter's, and a
channel is not thread-safe: so the question is asked on the channel's own thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import trio

from wsclient.events import Event

from ._measures import MAX_VALUES, MEASURES, Counting, Kind, Measure

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

Statistics: TypeAlias = Callable[[], Any]
"""A channel's ``statistics``."""


@attrs.frozen
class Reading:
    """A metric that is made of a channel's statistics at each scrape."""

    name: str
    """Without what the exposition adds to a counter's."""
    kind: Kind
    fields: dict[str, str]
    """The fields of the statistics, by the value of the second label; or one, by nothing."""
    help: str
    label: str | None = None
    """The second label, beside ``channel``."""


def _plain(name: str, kind: Kind, field: str, help: str) -> Reading:
    return Reading(name, kind, {"": field}, help)


READINGS: Final = (
    _plain(
        "wsclient_messages_accepted",
        Kind.COUNTER,
        "messages_accepted",
        "Messages that were accepted to be sent.",
    ),
    Reading(
        "wsclient_receipts",
        Kind.COUNTER,
        {"": "outcomes"},
        "Messages that have their outcome.",
        "outcome",
    ),
    _plain(
        "wsclient_outbox_messages",
        Kind.GAUGE,
        "outbox_messages",
        "Messages accepted and without an outcome.",
    ),
    _plain("wsclient_outbox_bytes", Kind.GAUGE, "outbox_size", "Bytes of them."),
    _plain(
        "wsclient_messages_received",
        Kind.COUNTER,
        "messages_received",
        "Messages that were taken from the channel.",
    ),
    Reading(
        "wsclient_messages_skipped",
        Kind.COUNTER,
        {
            "dropped": "messages_dropped",
            "repeated": "messages_repeated",
            "stale": "messages_stale",
            "late_reply": "replies_late",
        },
        "Messages that came and that nobody got: no room, known already, of a connection that had"
        " been left, a reply that nobody waited for any more.",
        "reason",
    ),
    _plain(
        "wsclient_inbox_messages",
        Kind.GAUGE,
        "inbox_messages",
        "Messages received and not taken, gaps and overflows included.",
    ),
    _plain("wsclient_inbox_bytes", Kind.GAUGE, "inbox_size", "Bytes of them."),
    _plain(
        "wsclient_requests_waiting",
        Kind.GAUGE,
        "requests_waiting",
        "Requests whose reply is waited for.",
    ),
    Reading(
        "wsclient_subscriptions",
        Kind.GAUGE,
        {"wanted": "subscriptions_wanted", "live": "subscriptions_live"},
        "Subscriptions that are wanted, and those that the server has.",
        "state",
    ),
    Reading(
        "wsclient_round_trip_seconds",
        Kind.GAUGE,
        {
            "last": "latency",
            "smoothed": "latency_smoothed",
            "minimum": "latency_minimum",
            "p50": "latency_p50",
            "p95": "latency_p95",
            "p99": "latency_p99",
        },
        "Round trips of pings on the present connection; nothing where there is none.",
        "which",
    ),
)
"""What is asked for at each scrape, in the order in which a table shows it."""


class PrometheusObserver:
    """Counts what happens, for prometheus-client: ``pip install 'wsclient-trio[metrics]'``.

    One is enough for all channels of a program: each metric has the label ``channel``, the
    channel's name.

    Args:
        registry: Where the metrics are registered; ``None`` is prometheus-client's own.
        max_label_values: Values that a label may have: channels, endpoints, causes.
            Those that come later are ``"other"``, so that no server can make a label grow.

    Raises:
        ImportError: prometheus-client is not installed.
        ValueError: The registry has such metrics already, or an argument cannot be used.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        max_label_values: int = MAX_VALUES,
    ) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise ImportError(
                "PrometheusObserver needs prometheus-client: pip install 'wsclient-trio[metrics]'",
                name=error.name,
            ) from error
        self._counting = Counting(max_label_values)
        self._sources: dict[str, tuple[Statistics, trio.lowlevel.TrioToken | None]] = {}
        registry = prometheus_client.REGISTRY if registry is None else registry
        make: dict[Kind, Callable[[Measure], Any]] = {
            Kind.COUNTER: lambda measure: prometheus_client.Counter(
                metric_name(measure), measure.help, measure.labels, registry=registry
            ),
            Kind.GAUGE: lambda measure: prometheus_client.Gauge(
                metric_name(measure), measure.help, measure.labels, registry=registry
            ),
            Kind.HISTOGRAM: lambda measure: prometheus_client.Histogram(
                metric_name(measure),
                measure.help,
                measure.labels,
                buckets=measure.buckets,
                registry=registry,
            ),
        }
        self._metrics = {measure: make[measure.kind](measure) for measure in MEASURES}
        self._collector = _Collector(self._collect)
        registry.register(self._collector)

    def __call__(self, event: Event) -> None:
        """Count ``event``."""
        for measure, labels, amount in self._counting(event):
            metric = self._metrics[measure].labels(**labels)
            if measure.kind is Kind.HISTOGRAM:
                metric.observe(amount)
            else:
                metric.inc(amount)

    def watch(self, channel: str, statistics: Statistics) -> None:
        """Ask a channel for its statistics at each scrape, until :meth:`unwatch`.

        To be called on trio's thread: ``metrics.watch(channel.name, channel.statistics)``.
        Another channel of the same name takes the place of the first.

        Args:
            channel: The channel's name.
            statistics: Its ``statistics``.
        """
        try:
            token = trio.lowlevel.current_trio_token()
        except RuntimeError:
            token = None  # Nothing runs yet, so there is nothing to meet.
        self._sources[channel] = (statistics, token)

    def unwatch(self, channel: str) -> None:
        """Ask the channel of this name no more; nothing happens if it was not asked."""
        self._sources.pop(channel, None)

    def _collect(self) -> Iterator[Metric]:
        from prometheus_client import core

        found = [
            (channel, _ask(statistics, token))
            for channel, (statistics, token) in list(self._sources.items())
        ]
        for reading in READINGS:
            family = (
                core.CounterMetricFamily if reading.kind is Kind.COUNTER else core.GaugeMetricFamily
            )
            labels = ["channel"] if reading.label is None else ["channel", reading.label]
            metric = family(reading.name, reading.help, labels=labels)
            for channel, statistics in found:
                for label, value in _read(reading, statistics):
                    metric.add_metric([channel, label][: len(labels)], value)
            yield metric


class _Collector:
    """What the registry asks at each scrape, and, before the first, for the names alone."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()


def metric_name(measure: Measure) -> str:
    """What Prometheus calls a measure; a counter's name gets ``_total`` when it is shown."""
    name = f"wsclient_{measure.name.replace('.', '_')}"
    return f"{name}_seconds" if measure.unit == "s" else name


def _read(reading: Reading, statistics: Any) -> Iterator[tuple[str, float]]:
    for label, field in reading.fields.items():
        value = getattr(statistics, field)
        if field == "outcomes":
            yield from ((outcome.name.lower(), count) for outcome, count in value.items())
        elif value is not None:
            yield label, value


def _ask(statistics: Statistics, token: trio.lowlevel.TrioToken | None) -> Any:
    """Ask on the channel's thread; it waits until trio's loop comes by."""
    if token is None or trio.lowlevel.in_trio_run():
        return statistics()
    try:
        return trio.from_thread.run_sync(statistics, trio_token=token)
    except trio.RunFinishedError:
        return statistics()  # Nothing runs any more, so there is nothing to meet.
