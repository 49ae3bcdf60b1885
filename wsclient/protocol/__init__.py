"""Floor 1: bytes in, facts out (RFC 6455) as pure computation: no I/O, no trio, no clock."""

from wsclient.options import check_host

from ._codec import BURST_SIZE, COMPILED, encoded_size
from ._deflate import Deflate
from ._events import (
    CloseReceived,
    Fact,
    MessagePart,
    PingReceived,
    PongReceived,
    ProtocolViolated,
    SendClose,
)
from ._handshake import Accepted, ClientHandshake, check_resource
from ._machine import ClientProtocol, State
from ._trace import FrameTracer, Trace, TracedFrame
from ._tunnel import TunnelHandshake

__all__ = [
    "BURST_SIZE",
    "COMPILED",
    "Accepted",
    "ClientHandshake",
    "ClientProtocol",
    "CloseReceived",
    "Deflate",
    "Fact",
    "FrameTracer",
    "MessagePart",
    "PingReceived",
    "PongReceived",
    "ProtocolViolated",
    "SendClose",
    "State",
    "Trace",
    "TracedFrame",
    "TunnelHandshake",
    "check_host",
    "check_resource",
    "encoded_size",
]
