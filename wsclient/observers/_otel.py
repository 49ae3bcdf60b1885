"""Events → spans and instruments of OpenTelemetry.

A *connection* is a span from the attempt until it is lost, left or closed; an attempt that fails
is a short one.  An *outage* is a span from when messages ceased to flow until they flow again: the
attempts that it takes are its children, and a link leads to the connection that was lost.

A span knows its channel by name.  At most one attempt of a channel is under way at any time, and
connections have their epochs, so the two together find a span again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from wsclient import events
from wsclient._version import __version__
from wsclient.events import ChannelState, Event

from ._measures import MAX_VALUES, MEASURES, Counting, Kind, Measure, cause_of

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, SpanContext, TracerProvider

CONNECTION_SPAN: Final = "wsclient.connection"
OUTAGE_SPAN: Final = "wsclient.outage"

_PORTS: Final = {"ws": 80, "wss": 443}


class OpenTelemetryObserver:
    """Traces and counts what happens: ``pip install 'wsclient-trio[otel]'``.

    It uses OpenTelemetry's API alone; where spans and counts go is up to the SDK that the program
    sets up.
    One is enough for all channels of a program, if their names differ.

    Args:
        tracer_provider: What makes the spans; ``None`` is the global one.
        meter_provider: What makes the instruments; ``None`` is the global one.
        max_label_values: Values that an attribute of an instrument may have: channels, endpoints,
            causes.
            Those that come later are ``"other"``, so that no server can make it grow.

    Raises:
        ImportError: opentelemetry-api is not installed.
        TypeError, ValueError: An argument cannot be used.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        max_label_values: int = MAX_VALUES,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise ImportError(
                "OpenTelemetryObserver needs opentelemetry-api: pip install 'wsclient-trio[otel]'",
                name=error.name,
            ) from error
        self._trace = trace
        self._tracer = trace.get_tracer("wsclient", __version__, tracer_provider)
        meter = metrics.get_meter("wsclient", __version__, meter_provider)
        self._counting = Counting(max_label_values)
        self._instruments = {measure: _instrument(meter, measure) for measure in MEASURES}
        self._attempts: dict[str, Span] = {}
        self._connections: dict[tuple[str, int], Span] = {}
        self._outages: dict[str, Span] = {}
        # The connection that ended last, which an outage points to.
        self._ended: dict[str, SpanContext] = {}

    def __call__(self, event: Event) -> None:
        """Count ``event``, and begin or end the spans that it belongs to."""
        for measure, labels, amount in self._counting(event):
            instrument = self._instruments[measure]
            attributes = {instrument_attribute(name): value for name, value in labels.items()}
            if measure.kind is Kind.HISTOGRAM:
                instrument.record(amount, attributes)
            else:
                instrument.add(amount, attributes)
        self._follow(event)

    def _follow(self, event: Event) -> None:
        match event:
            case events.ConnectionAttempted():
                self._begin_attempt(event)
            case events.ConnectionFailed():
                if span := self._attempts.pop(event.channel, None):
                    span.set_attribute("error.type", cause_of(event))
                    self._fail(span, event.cause)
            case events.ConnectionOpened():
                if span := self._attempts.pop(event.channel, None):
                    span.set_attribute("wsclient.epoch", event.epoch)
                    span.add_event("opened")
                    self._connections[event.channel, event.epoch] = span
            case events.ConnectionReady():
                if span := self._connections.get((event.channel, event.epoch)):
                    span.add_event("ready")
                self._end_outage(event)
            case events.ConnectionLost():
                if span := self._end_connection(event):
                    span.set_attribute("error.type", cause_of(event))
                    self._fail(span, event.cause)
            case events.ConnectionLeft():
                if span := self._end_connection(event):
                    span.set_attribute("wsclient.left", event.reason)
                    span.end()
            case events.StateChanged(previous=ChannelState.READY, state=state) if state in (
                ChannelState.WAITING,
                ChannelState.CONNECTING,
            ):
                self._begin_outage(event)
            case events.GapDetected():
                if span := self._outages.get(event.channel):
                    span.add_event(
                        "gap",
                        {"wsclient.after": event.gap.after, "wsclient.before": event.gap.before},
                    )
            case events.ChannelClosed():
                self._end_all(event.channel, None)
            case events.ChannelGaveUp():
                self._end_all(event.channel, event.reason)

    # Connections.

    def _begin_attempt(self, event: events.ConnectionAttempted) -> None:
        # One that was given up in the meantime, because the connection beside it was lost.
        if abandoned := self._attempts.pop(event.channel, None):
            abandoned.end()
        outage = self._outages.get(event.channel)
        self._attempts[event.channel] = self._tracer.start_span(
            CONNECTION_SPAN,
            context=None if outage is None else self._trace.set_span_in_context(outage),
            kind=self._trace.SpanKind.CLIENT,
            attributes={
                "wsclient.channel": event.channel,
                "wsclient.attempt": event.attempt,
                **_server(event.endpoint),
            },
        )

    def _end_connection(self, event: events.ConnectionLost | events.ConnectionLeft) -> Span | None:
        span = self._connections.pop((event.channel, event.epoch), None)
        if span is not None:
            self._ended[event.channel] = span.get_span_context()
        return span

    # Outages.

    def _begin_outage(self, event: events.StateChanged) -> None:
        before = self._ended.get(event.channel)
        self._outages[event.channel] = self._tracer.start_span(
            OUTAGE_SPAN,
            attributes={"wsclient.channel": event.channel, "wsclient.cause": event.cause},
            links=[] if before is None else [self._trace.Link(before)],
        )

    def _end_outage(self, event: events.ConnectionReady) -> None:
        if span := self._outages.pop(event.channel, None):
            if event.outage is not None:
                span.set_attribute("wsclient.outage", event.outage)
            if event.outage_attempts is not None:
                span.set_attribute("wsclient.attempts", event.outage_attempts)
            span.end()

    # The end.

    def _end_all(self, channel: str, reason: str | None) -> None:
        """End what a channel leaves; of connections that we close, nobody tells."""
        self._ended.pop(channel, None)
        left = [key for key in self._connections if key[0] == channel]
        spans = [self._connections.pop(key) for key in left]
        spans += [
            span
            for begun in (self._attempts, self._outages)
            if (span := begun.pop(channel, None)) is not None
        ]
        for span in spans:
            if reason is None:
                span.end()
            else:
                self._fail(span, reason)

    def _fail(self, span: Span, cause: str) -> None:
        span.set_status(self._trace.StatusCode.ERROR, cause)
        span.end()


def instrument_name(measure: Measure) -> str:
    """What OpenTelemetry calls a measure."""
    return f"wsclient.{measure.name}"


def instrument_attribute(label: str) -> str:
    """What OpenTelemetry calls a label."""
    return f"wsclient.{label}"


def _instrument(meter: Any, measure: Measure) -> Any:
    name = instrument_name(measure)
    if measure.kind is Kind.COUNTER:
        return meter.create_counter(name, measure.unit, measure.help)
    if measure.kind is Kind.GAUGE:
        return meter.create_up_down_counter(name, measure.unit, measure.help)
    return meter.create_histogram(
        name, measure.unit, measure.help, explicit_bucket_boundaries_advisory=measure.buckets
    )


def _server(endpoint: str) -> Mapping[str, str | int]:
    """The endpoint, as OpenTelemetry's conventions call its parts."""
    parts = urlsplit(endpoint)
    attributes: dict[str, str | int] = {"wsclient.endpoint": endpoint}
    if parts.hostname:
        attributes["server.address"] = parts.hostname
        attributes["server.port"] = parts.port or _PORTS[parts.scheme]
        attributes["url.scheme"] = parts.scheme
    return attributes
