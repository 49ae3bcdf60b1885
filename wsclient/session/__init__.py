"""Floor 3: many connections as one channel."""

from ._acks import Ack, Acknowledgement, FunctionAcknowledgement, JsonAcknowledgement
from ._channel import ChannelStatistics, DurableChannel
from ._ends import DurableReceiveChannel, DurableSendChannel
from ._line import ConnectHook, call_hook
from ._observing import Observers
from ._open import connect_channel, open_channel
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
)
from ._receipt import Receipt
from ._storage import SqliteOutbox

__all__ = [
    "Ack",
    "Acknowledgement",
    "ChannelStatistics",
    "ConnectHook",
    "Decision",
    "DurableChannel",
    "DurableReceiveChannel",
    "DurableSendChannel",
    "Fatal",
    "FunctionAcknowledgement",
    "JsonAcknowledgement",
    "Loss",
    "LossKind",
    "NextEndpoint",
    "Observers",
    "Phase",
    "Receipt",
    "Retry",
    "RetryFreshAuth",
    "SqliteOutbox",
    "call_hook",
    "classify",
    "connect_channel",
    "open_channel",
]
