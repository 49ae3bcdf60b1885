"""Floor 4: what a user of a bot touches."""

from ._bot import Bot
from ._codec import Codec, JsonCodec, MsgpackCodec
from ._context import Context
from ._failures import FailedMessage, HandlerErrors
from ._router import CallNext, Middleware, Router
from .protocols import GraphqlTransportWs, JsonPubSub, JsonRpc

__all__ = [
    "Bot",
    "CallNext",
    "Codec",
    "Context",
    "FailedMessage",
    "GraphqlTransportWs",
    "HandlerErrors",
    "JsonCodec",
    "JsonPubSub",
    "JsonRpc",
    "Middleware",
    "MsgpackCodec",
    "Router",
]
