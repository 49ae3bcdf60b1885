"""Floor 0: what can go wrong."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from wsclient import errors
from wsclient.codes import CloseReason
from wsclient.events import Outcome, Truth

TREE = {
    "WebSocketError": "Exception",
    "HandshakeError": "WebSocketError",
    "ConnectionTimeout": "HandshakeError",
    "DisconnectionTimeout": "HandshakeError",
    "ConnectionRejected": "HandshakeError",
    "InvalidUpgrade": "HandshakeError",
    "ProxyError": "HandshakeError",
    "ConnectionClosed": "WebSocketError",
    "HeartbeatTimeout": "WebSocketError",
    "ProviderError": "WebSocketError",
    "EstablishError": "WebSocketError",
    "ChannelFailed": "WebSocketError",
    "OutboxError": "WebSocketError",
    "OutboxCorrupt": "OutboxError",
    "OutboxDiskFull": "OutboxError",
    "OutboxIncompatible": "OutboxError",
    "OutboxIOError": "OutboxError",
    "OutboxLocked": "OutboxError",
    "DeliveryError": "WebSocketError",
    "NotConnected": "DeliveryError",
    "SendUnknown": "DeliveryError",
    "RequestLost": "DeliveryError",
    "RequestTimeout": "DeliveryError",
    "ReplyError": "WebSocketError",
    "JsonRpcError": "ReplyError",
    "SubscriptionFailed": "WebSocketError",
    "OutboxFull": "WebSocketError",
    "InboxFull": "WebSocketError",
    "CodecError": "WebSocketError",
}

EXAMPLES = [
    errors.WebSocketError("text"),
    errors.HandshakeError("text"),
    errors.ConnectionTimeout("text"),
    errors.DisconnectionTimeout("text"),
    errors.ConnectionRejected(503, ((b"retry-after", b"3"),), b"later"),
    errors.ConnectionRejected(100),
    errors.InvalidUpgrade("text"),
    errors.ProxyError("text"),
    errors.ProxyError("text", 407),
    errors.ConnectionClosed(CloseReason(1001, "deploy")),
    errors.ConnectionClosed(None),
    errors.HeartbeatTimeout("text"),
    errors.ProviderError("text"),
    errors.EstablishError("text"),
    errors.ChannelFailed("text", (ValueError("first"), ValueError("second"))),
    errors.OutboxError("text"),
    errors.OutboxCorrupt("text"),
    errors.OutboxDiskFull("text"),
    errors.OutboxIncompatible("text"),
    errors.OutboxIOError("text"),
    errors.OutboxLocked("text"),
    errors.DeliveryError(Outcome.EXPIRED, Truth.UNKNOWN),
    errors.NotConnected(None, Truth.CERTAINLY_NOT),
    errors.SendUnknown(Outcome.LOST_UNKNOWN, Truth.UNKNOWN),
    errors.RequestLost(Outcome.RECEIVED, Truth.CERTAIN),
    errors.RequestTimeout(None, Truth.UNKNOWN),
    errors.ReplyError({"why": "busy"}),
    errors.JsonRpcError(-32601, "no such method"),
    errors.SubscriptionFailed("trades", "text"),
    errors.OutboxFull(3, 12),
    errors.InboxFull(3, 12),
    errors.CodecError("text"),
    errors.CodecError("text", "$.price"),
]


def test_the_exceptions_are_the_tree_in_the_docstring():
    actual = {name: getattr(errors, name).__bases__[0].__name__ for name in errors.__all__}

    assert TREE == actual
    printed = re.findall(r"^    [│ ]*(?:[├└]── )?(\w+)  ", errors.__doc__, flags=re.MULTILINE)
    assert sorted(TREE) == sorted(printed)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_exceptions_survive_copy_and_pickle(error, duplicate):
    again = duplicate(error)

    assert type(error) is type(again)
    assert str(error) == str(again)
    assert repr(error) == repr(again)
    assert vars(error).keys() == vars(again).keys()
    for name in ("status_code", "headers", "body"):
        assert getattr(error, name, None) == getattr(again, name, None)
    assert getattr(error, "path", None) == getattr(again, "path", None)
    assert getattr(error, "reason", None) == getattr(again, "reason", None)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_exception_has_a_text(error):
    assert str(error)


@pytest.mark.parametrize(
    "make", [errors.ReplyError, lambda text: errors.JsonRpcError(-32000, text)]
)
def test_what_a_peer_says_cannot_be_taken_for_a_line_of_ours(make):
    assert "the peer refuses: größer" in str(make("größer"))
    assert r"the peer refuses: 'no\nERROR \x1b[31mforged'" in str(make("no\nERROR \x1b[31mforged"))


def test_a_codec_error_says_where():
    assert "no price" == str(errors.CodecError("no price"))
    assert "no price (at $.trades[0])" == str(errors.CodecError("no price", "$.trades[0]"))


def test_a_handshake_error_is_no_os_error():
    assert not issubclass(errors.HandshakeError, OSError)


def test_a_rejection_shows_its_status_and_never_headers_or_body():
    error = errors.ConnectionRejected(401, ((b"set-cookie", b"canary"),), b"canary")

    assert "ConnectionRejected<status_code=401>" == repr(error)
    assert "the server refused the upgrade: HTTP 401" == str(error)
    assert (401, ((b"set-cookie", b"canary"),), b"canary") == (
        error.status_code,
        error.headers,
        error.body,
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            errors.DeliveryError(Outcome.EXPIRED, Truth.CERTAINLY_NOT),
            "it is expired; the peer does certainly not have it",
        ),
        (
            errors.DeliveryError(None, Truth.UNKNOWN),
            "its outcome is open; the peer may or may not have it",
        ),
        (
            errors.NotConnected(None, Truth.CERTAINLY_NOT),
            "a message sent as DIRECT needs a connection that is ready, and there was none;"
            " the peer does certainly not have it",
        ),
        (
            errors.SendUnknown(Outcome.LOST_UNKNOWN, Truth.UNKNOWN),
            "the connection died while the message was being written;"
            " the peer may or may not have it",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failed_delivery_says_what_was_missing_and_what_is_known(error, text):
    assert text == str(error)


def test_a_closed_connection_says_why():
    error = errors.ConnectionClosed(CloseReason(1011, "oops"))

    assert "ConnectionClosed<CloseReason<code=1011, name=INTERNAL_ERROR, reason=oops>>" == repr(
        error
    )
    assert "the connection is closed: 1011 INTERNAL_ERROR 'oops'" == str(error)
    assert CloseReason(1011, "oops") == error.reason


def test_a_failed_channel_keeps_its_history_out_of_its_text():
    error = errors.ChannelFailed("gave up", (ValueError("first"),))

    assert "gave up" == str(error)
    assert "first" == str(error.history[0])
