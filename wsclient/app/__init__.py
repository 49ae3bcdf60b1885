"""Floor 4: what a user of a bot touches."""

from ._bot import Bot, Context, FailedMessage, HandlerErrors
from ._codec import Codec, JsonCodec, MsgpackCodec
from .protocols import GraphqlTransportWs, JsonPubSub, JsonRpc

__all__ = [
    "Bot",
    "Codec",
    "Context",
    "FailedMessage",
    "GraphqlTransportWs",
    "HandlerErrors",
    "JsonCodec",
    "JsonPubSub",
    "JsonRpc",
    "MsgpackCodec",
]
