"""Floor 3: many connections as one channel."""

from ._access import CredentialsProvider, HeadersProvider, UrlProvider
from ._acks import (
    Ack,
    Acknowledgement,
    FunctionAcknowledgement,
    JsonAcknowledgement,
    check_function,
    check_name,
)
from ._backoff import default_wait
from ._channel import ChannelStatistics, DurableChannel, follow
from ._correlation import (
    Correlation,
    FunctionCorrelation,
    JsonCorrelation,
    JsonRpcCorrelation,
    Reply,
)
from ._ends import DurableReceiveChannel, DurableSendChannel
from ._explain import Explanation
from ._feed import Backfill, Commit, Feed, FeedItems, Snapshot, TakeSnapshot, check_wish
from ._line import ConnectHook, call_hook
from ._observing import Observers
from ._open import Url, connect_channel, open_channel
from ._outages import Outage
from ._policy import (
    Decision,
    Fatal,
    Loss,
    NextEndpoint,
    Phase,
    Retry,
    RetryFreshAuth,
    classify,
    loss_from,
)
from ._presets import PRESETS, CodeMeaning, Preset
from ._protocol import (
    Answer,
    Protocol,
    Published,
    Signal,
    Subscribed,
    SubscriptionEnded,
    Unsubscribed,
    Wish,
)
from ._receipt import Receipt
from ._recording import Journal
from ._records import JournalRecord
from ._rehearsal import Rehearsal, rehearse
from ._requests import Replies
from ._storage import SqliteOutbox
from ._transitions import Transitions

__all__ = [
    "PRESETS",
    "Ack",
    "Acknowledgement",
    "Answer",
    "Backfill",
    "ChannelStatistics",
    "CodeMeaning",
    "Commit",
    "ConnectHook",
    "Correlation",
    "CredentialsProvider",
    "Decision",
    "DurableChannel",
    "DurableReceiveChannel",
    "DurableSendChannel",
    "Explanation",
    "Fatal",
    "Feed",
    "FeedItems",
    "FunctionAcknowledgement",
    "FunctionCorrelation",
    "HeadersProvider",
    "Journal",
    "JournalRecord",
    "JsonAcknowledgement",
    "JsonCorrelation",
    "JsonRpcCorrelation",
    "Loss",
    "NextEndpoint",
    "Observers",
    "Outage",
    "Phase",
    "Preset",
    "Protocol",
    "Published",
    "Receipt",
    "Rehearsal",
    "Replies",
    "Reply",
    "Retry",
    "RetryFreshAuth",
    "Signal",
    "Snapshot",
    "SqliteOutbox",
    "Subscribed",
    "SubscriptionEnded",
    "TakeSnapshot",
    "Transitions",
    "Unsubscribed",
    "Url",
    "UrlProvider",
    "Wish",
    "call_hook",
    "check_function",
    "check_name",
    "check_wish",
    "classify",
    "connect_channel",
    "default_wait",
    "follow",
    "loss_from",
    "open_channel",
    "rehearse",
]
