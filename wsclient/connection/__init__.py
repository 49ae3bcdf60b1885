"""Floor 2: one connection, from open to closed."""

from ._batches import MessageIterator
from ._connection import (
    Inbox,
    WebSocketConnection,
    asked_at,
    attach,
    detach,
    forget_ping,
    has_unread,
    is_deaf,
    progressed_at,
    round_trips,
    start_ping,
    take_untaken,
    wait_reading,
)
from ._endpoint import Endpoint
from ._mailbox import Mailbox
from ._nursery import failure_in, open_background_nursery
from ._open import (
    connect_websocket,
    connect_websocket_url,
    open_websocket,
    open_websocket_url,
    wrap_client_stream,
)
from ._pings import Ping
from ._proxy import find_proxy
from ._round_trips import RoundTrips
from ._socket import stream_opener
from ._url import Target, mistake_in, parse_url
from ._writer import Outgoing, Source

__all__ = [
    "Endpoint",
    "Inbox",
    "Mailbox",
    "MessageIterator",
    "Outgoing",
    "Ping",
    "RoundTrips",
    "Source",
    "Target",
    "WebSocketConnection",
    "asked_at",
    "attach",
    "connect_websocket",
    "connect_websocket_url",
    "detach",
    "failure_in",
    "find_proxy",
    "forget_ping",
    "has_unread",
    "is_deaf",
    "mistake_in",
    "open_background_nursery",
    "open_websocket",
    "open_websocket_url",
    "parse_url",
    "progressed_at",
    "round_trips",
    "start_ping",
    "stream_opener",
    "take_untaken",
    "wait_reading",
    "wrap_client_stream",
]
