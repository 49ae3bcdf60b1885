"""How a stream is ended: from synchronous code, so that no cancellation comes in between."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

import trio

from ._network import MemoryStream


def transport_of(stream: trio.abc.Stream) -> trio.abc.Stream:
    """What a TLS stream runs over; any other stream itself."""
    return stream.transport_stream if isinstance(stream, trio.SSLStream) else stream


def hang_up(stream: trio.abc.Stream) -> None:
    """Close the stream: the other end receives what was sent, and then the end."""
    transport = transport_of(stream)
    if isinstance(transport, MemoryStream):
        transport.close()
    elif isinstance(transport, trio.SocketStream):
        transport.socket.close()


def reset(stream: trio.abc.Stream) -> None:
    """Reset the stream: what is on the way is lost."""
    transport = transport_of(stream)
    if isinstance(transport, MemoryStream):
        transport.reset()
    elif isinstance(transport, trio.SocketStream):
        # A close that lingers for zero seconds is a reset; Windows' fields are short.
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        with suppress(OSError):  # It is closed already.
            transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.socket.close()
