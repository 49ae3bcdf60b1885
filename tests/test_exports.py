"""The public names, as a list that a reviewer reads."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import re
import sys
from pathlib import Path

import pytest

import wsclient
import wsclient.testing

CONNECTION = {
    "CloseReason",
    "ConnectionClosed",
    "ConnectionRejected",
    "ConnectionTimeout",
    "DisconnectionTimeout",
    "Endpoint",
    "HandshakeError",
    "WebSocketConnection",
    "connect_websocket",
    "connect_websocket_url",
    "open_websocket",
    "open_websocket_url",
    "wrap_client_stream",
}
WORDS = {
    "ApplicationPing",
    "ChannelFailed",
    "CloseCode",
    "CodecError",
    "Compression",
    "ConnectionOptions",
    "EstablishError",
    "Headers",
    "RetryBudget",
    "HeartbeatOptions",
    "HeartbeatTimeout",
    "InboxFull",
    "InvalidUpgrade",
    "Limits",
    "OutboxCorrupt",
    "OutboxDiskFull",
    "OutboxError",
    "OutboxIOError",
    "OutboxIncompatible",
    "OutboxLocked",
    "ProviderError",
    "OverflowPolicy",
    "ProxyError",
    "RetryPolicy",
    "WebSocketError",
}
SESSION = {
    "ChannelState",
    "ChannelStatistics",
    "Decision",
    "Delivery",
    "CodeMeaning",
    "CredentialsProvider",
    "DurableChannel",
    "Explanation",
    "HeadersProvider",
    "Journal",
    "JournalRecord",
    "PRESETS",
    "Preset",
    "Outage",
    "UrlProvider",
    "Fatal",
    "Gap",
    "Loss",
    "LossKind",
    "NextEndpoint",
    "Outcome",
    "Overflow",
    "Phase",
    "Receipt",
    "Rehearsal",
    "Retry",
    "RetryFreshAuth",
    "SqliteOutbox",
    "Truth",
    "classify",
    "connect_channel",
    "default_wait",
    "loss_from",
    "open_channel",
    "rehearse",
}
EVENTS = {
    "ChannelClosed",
    "ChannelGaveUp",
    "ConnectionAttempted",
    "ConnectionFailed",
    "ConnectionLeft",
    "ConnectionLost",
    "ConnectionOpened",
    "ConnectionReady",
    "Event",
    "GapDetected",
    "HandlerFailed",
    "InboxOverflowed",
    "JournalFailed",
    "JournalRecovered",
    "LocalStallDetected",
    "LoggingObserver",
    "MessageUndecoded",
    "Observer",
    "ObserverFailed",
    "OpenTelemetryObserver",
    "PeerStoppedReading",
    "PrometheusObserver",
    "RetryScheduled",
    "StateChanged",
    "SuspendDetected",
    "SystemdObserver",
    "TracedFrame",
    "Transitions",
}
REQUESTS = {
    "Correlation",
    "FunctionCorrelation",
    "JsonCorrelation",
    "JsonRpcCorrelation",
    "JsonRpcError",
    "Replies",
    "Reply",
    "ReplyError",
    "RequestLost",
    "RequestTimeout",
}
SUBSCRIPTIONS = {
    "Answer",
    "Feed",
    "FeedItems",
    "Protocol",
    "Published",
    "Signal",
    "Snapshot",
    "Subscribed",
    "SubscriptionEnded",
    "SubscriptionFailed",
    "SubscriptionOptions",
    "SubscriptionRefused",
    "SubscriptionsRestored",
    "Unsubscribed",
    "Wish",
}
APP = {
    "Ack",
    "Acknowledgement",
    "Bot",
    "CallNext",
    "Codec",
    "Context",
    "DeadLetter",
    "DeliveryError",
    "DeliveryOptions",
    "FailedMessage",
    "FencesLifted",
    "FunctionAcknowledgement",
    "HandlerErrors",
    "JsonAcknowledgement",
    "JsonCodec",
    "MessageQuarantined",
    "Middleware",
    "MsgpackCodec",
    "NotConnected",
    "OutboxFailed",
    "OutboxFull",
    "OutboxOverflowed",
    "OutboxRecovered",
    "OutboxRestored",
    "Router",
    "SendRate",
    "SendUnknown",
}
PROTOCOLS = {
    "Answer",
    "GraphqlTransportWs",
    "JsonPubSub",
    "JsonRpc",
    "Protocol",
    "Published",
    "Signal",
    "Subscribed",
    "SubscriptionEnded",
    "Unsubscribed",
    "Wish",
}


def test_the_public_names_are_these() -> None:
    names = CONNECTION | WORDS | SESSION | EVENTS | APP | REQUESTS | SUBSCRIPTIONS | PROTOCOLS

    assert names == set(wsclient.__all__)


@pytest.mark.parametrize("package", [wsclient, wsclient.testing])
def test_every_public_name_is_there_once_and_in_order(package: object) -> None:
    names = package.__all__

    assert sorted(set(names)) == sorted(names)
    assert [] == [name for name in names if not hasattr(package, name)]


@pytest.mark.parametrize("package", [wsclient, wsclient.testing])
def test_every_public_class_and_function_has_a_docstring(package: object) -> None:
    documented = [
        name
        for name in package.__all__
        if inspect.isclass(getattr(package, name)) or inspect.isroutine(getattr(package, name))
    ]

    assert [] == [name for name in documented if not inspect.getdoc(getattr(package, name))]


def test_the_version_is_the_distributions() -> None:
    assert importlib.metadata.version("wsclient-trio") == wsclient.__version__


def test_the_runtime_dependencies_are_exactly_five() -> None:
    required = importlib.metadata.requires("wsclient-trio") or []
    always = {re.split(r"[^\w-]", line)[0] for line in required if "extra" not in line}

    assert {"attrs", "structlog", "tenacity", "trio", "wsproto"} == always


def test_the_package_is_typed() -> None:
    assert (Path(wsclient.__file__).parent / "py.typed").exists()


@pytest.mark.skipif(
    "WSCLIENT_ON_WHEEL" not in os.environ, reason="only tox promises an installed wheel"
)
def test_the_tests_see_the_installed_wheel() -> None:
    assert Path(wsclient.__file__).is_relative_to(sys.prefix)
