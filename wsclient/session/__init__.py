"""Floor 3: many connections as one channel."""

from ._access import CredentialsProvider, HeadersProvider, UrlProvider
from ._acks import Ack, Acknowledgement, FunctionAcknowledgement, JsonAcknowledgement
from ._backoff import default_wait
from ._channel import ChannelStatistics, DurableChannel
from ._correlation import (
    Correlation,
    FunctionCorrelation,
    JsonCorrelation,
    JsonRpcCorrelation,
    Reply,
)
from ._ends import DurableReceiveChannel, DurableSendChannel
from ._explain import Explanation
from ._line import ConnectHook, call_hook
from ._observing import Observers
from ._open import Url, connect_channel, open_channel
from ._outages import Outage
from ._policy import (
    Decision,
    Fatal,
    Loss,
    LossKind,
    NextEndpoint,
    Phase,
    Retry,
    RetryFreshAuth,
    classify,
    loss_from,
)
from ._presets import PRESETS, CodeMeaning, Preset
from ._receipt import Receipt
from ._rehearsal import Rehearsal, rehearse
from ._storage import SqliteOutbox
from ._transitions import Transitions

__all__ = [
    "PRESETS",
    "Ack",
    "Acknowledgement",
    "ChannelStatistics",
    "CodeMeaning",
    "ConnectHook",
    "Correlation",
    "CredentialsProvider",
    "Decision",
    "DurableChannel",
    "DurableReceiveChannel",
    "DurableSendChannel",
    "Explanation",
    "Fatal",
    "FunctionAcknowledgement",
    "FunctionCorrelation",
    "HeadersProvider",
    "JsonAcknowledgement",
    "JsonCorrelation",
    "JsonRpcCorrelation",
    "Loss",
    "LossKind",
    "NextEndpoint",
    "Observers",
    "Outage",
    "Phase",
    "Preset",
    "Receipt",
    "Rehearsal",
    "Reply",
    "Retry",
    "RetryFreshAuth",
    "SqliteOutbox",
    "Transitions",
    "Url",
    "UrlProvider",
    "call_hook",
    "classify",
    "connect_channel",
    "default_wait",
    "loss_from",
    "open_channel",
    "rehearse",
]
