"""A transport that tells what goes over it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from wsclient.protocol import FrameTracer, Trace, TracedFrame

from ._transport import Transport


class TracingTransport(Transport):
    """Another transport, and someone who is told of each frame.

    Args:
        transport: Does the work, from the end of the opening handshake on.
        trace: Is told.
    """

    def __init__(self, transport: Transport, trace: Trace) -> None:
        self._transport = transport
        self._trace: Trace | None = trace
        self._received = FrameTracer(sent=False)
        self._sent = FrameTracer(sent=True)
        self.stream = transport.stream
        self.is_ssl = transport.is_ssl
        self.takes_at_once = transport.takes_at_once

    @property
    def is_torn(self) -> bool:  # type: ignore[override]
        return self._transport.is_torn

    def tell_received(self, data: bytes | bytearray) -> None:
        """Tell of what has come."""
        self._tell(self._received.feed(data))

    async def receive(self) -> tuple[bytes | bytearray, int]:
        data, size = await self._transport.receive()
        self.tell_received(data[:size])
        return data, size

    def send_nowait(self, data: bytearray, start: int) -> int:
        size = self._transport.send_nowait(data, start)
        self._tell(self._sent.feed(data[start : start + size]))
        return size

    async def send(self, data: bytearray, start: int) -> int:
        size = await self._transport.send(data, start)
        self._tell(self._sent.feed(data[start : start + size]))
        return size

    def _tell(self, frames: Iterable[TracedFrame]) -> None:
        for frame in frames:
            if self._trace is None:
                continue
            try:
                self._trace(frame)
            except Exception as error:  # Whoever looks on must not bring the connection down.
                self._trace = None
                warnings.warn(
                    f"tracing ends, since trace= has raised {error!r}", RuntimeWarning, stacklevel=2
                )
