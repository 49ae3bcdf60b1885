"""The test kit: servers and networks that misbehave on purpose, in memory or on real sockets.

A test of a client that rides out an outage, on virtual time (``autojump_clock`` is pytest-trio's)::

    from wsclient.testing import NONE, REJECT_503, RESET_AFTER_OPEN, FaultServer, memory_network

    async def test_client_comes_back(autojump_clock):
        with memory_network() as network:
            story = [REJECT_503, RESET_AFTER_OPEN, NONE]
            async with FaultServer(story, network=network) as server:
                async with wsclient.open_channel(server.url) as channel:
                    await channel.send("hello")
                    await server.wait_messages(1)

        assert ["hello"] == server.messages

Without ``network`` the server listens on a real loopback socket; then use the real clock.
"""

from ._connection import Handler, ServerConnection
from ._determinism import run_deterministic
from ._faults import (
    ACCEPT_THEN_CLOSE,
    ANSWER_200,
    BAD_ACCEPT,
    BAD_OPCODE,
    BAD_UTF8,
    DELAYED_HANDSHAKE,
    EOF_AFTER_OPEN,
    EOF_IN_HANDSHAKE,
    GARBAGE_ANSWER,
    HALF_FRAME,
    HALF_FRAME_THEN_SILENCE,
    MASKED_FRAME,
    MUTE_CLOSE,
    NEVER_READS,
    NONE,
    OVERSIZED,
    REFUSE,
    REJECT_401,
    REJECT_403,
    REJECT_404,
    REJECT_500,
    REJECT_503,
    RESET_AFTER_OPEN,
    RESET_ON_ACCEPT,
    SILENCE,
    SILENT_HANDSHAKE,
    Fault,
    FaultKind,
)
from ._invariants import (
    Breach,
    Budget,
    Departure,
    History,
    SentMessage,
    ServerSide,
    Subscribed,
    check,
)
from ._network import (
    MemoryListener,
    MemoryNetwork,
    MemoryStream,
    memory_network,
    memory_stream_pair,
)
from ._proxy import (
    BLACKOUT,
    CLEAR,
    HALF_OPEN_DOWN,
    HALF_OPEN_UP,
    REFUSING,
    Conditions,
    FaultProxy,
    ProxiedConnection,
    Way,
)
from ._recorder import EventRecorder
from ._scripted import Line, ScriptedServer
from ._server import FaultServer, echo
from ._visits import Heard, Visit

__all__ = [
    "ACCEPT_THEN_CLOSE",
    "ANSWER_200",
    "BAD_ACCEPT",
    "BAD_OPCODE",
    "BAD_UTF8",
    "BLACKOUT",
    "CLEAR",
    "DELAYED_HANDSHAKE",
    "EOF_AFTER_OPEN",
    "EOF_IN_HANDSHAKE",
    "GARBAGE_ANSWER",
    "HALF_FRAME",
    "HALF_FRAME_THEN_SILENCE",
    "HALF_OPEN_DOWN",
    "HALF_OPEN_UP",
    "MASKED_FRAME",
    "MUTE_CLOSE",
    "NEVER_READS",
    "NONE",
    "OVERSIZED",
    "REFUSE",
    "REFUSING",
    "REJECT_401",
    "REJECT_403",
    "REJECT_404",
    "REJECT_500",
    "REJECT_503",
    "RESET_AFTER_OPEN",
    "RESET_ON_ACCEPT",
    "SILENCE",
    "SILENT_HANDSHAKE",
    "Breach",
    "Budget",
    "Conditions",
    "Departure",
    "EventRecorder",
    "Fault",
    "FaultKind",
    "FaultProxy",
    "FaultServer",
    "Handler",
    "Heard",
    "History",
    "Line",
    "MemoryListener",
    "MemoryNetwork",
    "MemoryStream",
    "ProxiedConnection",
    "ScriptedServer",
    "SentMessage",
    "ServerConnection",
    "ServerSide",
    "Subscribed",
    "Visit",
    "Way",
    "check",
    "echo",
    "memory_network",
    "memory_stream_pair",
    "run_deterministic",
]
