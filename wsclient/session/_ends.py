"""The two ends of a channel, with the contract of trio's memory channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import trio
from trio.abc import ReceiveChannel, SendChannel

from wsclient._discretion import forget_locals

T = TypeVar("T")


class Handles:
    """How many clones of each end are open."""

    def __init__(self) -> None:
        self.senders = 0
        self.receivers = 0


class _Handle(ABC):
    """What both ends share: counting, being closed, and waking whoever waits then.

    Args:
        handles: Where the open ones are counted.
        statistics: Gives the counts of the channel.
    """

    def __init__(
        self, handles: Handles, statistics: Callable[[], trio.MemoryChannelStatistics]
    ) -> None:
        self._handles = handles
        self._statistics = statistics
        self._is_closed = False
        self._waits: set[trio.CancelScope] = set()
        self._count(+1)

    @abstractmethod
    def _count(self, change: int) -> None:
        """Add ``change`` to the open handles of this end."""

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this handle was closed")

    async def _while_open(self, wait: Callable[[], Awaitable[T]]) -> T:
        self._check_open()
        await trio.lowlevel.checkpoint()
        self._check_open()
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                return await wait()
            finally:
                self._waits.discard(scope)
        raise trio.ClosedResourceError("this handle was closed")

    def statistics(self) -> trio.MemoryChannelStatistics:
        """Counts of the channel: its inbox, its open handles, the tasks that wait."""
        return self._statistics()

    def close(self) -> None:
        """Close this handle; the channel and the other handles stay open."""
        if not self._is_closed:
            self._is_closed = True
            self._count(-1)
            for scope in self._waits:
                scope.cancel()

    async def aclose(self) -> None:
        """As :meth:`close`."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class DurableReceiveChannel(_Handle, ReceiveChannel[str | bytes]):
    """The receiving end of a channel: messages only, without the gaps between them.

    Clones share the messages: each goes to one of them.
    Closing one never ends the session.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[str | bytes]],
        receive_nowait: Callable[[], str | bytes],
        handles: Handles,
        statistics: Callable[[], trio.MemoryChannelStatistics],
    ) -> None:
        self._receive = receive
        self._receive_nowait = receive_nowait
        super().__init__(handles, statistics)

    def _count(self, change: int) -> None:
        self._handles.receivers += change

    async def receive(self) -> str | bytes:
        """Wait for the next message.

        Raises:
            trio.EndOfChannel: The channel is closed.
            ChannelFailed: The channel has given up, and everything received was taken.
            trio.ClosedResourceError: This handle was closed.
        """
        return await self._while_open(self._receive)

    def receive_nowait(self) -> str | bytes:
        """Take the next message if there is one.

        Raises:
            trio.WouldBlock: There is none.
            trio.EndOfChannel, ChannelFailed, trio.ClosedResourceError: As :meth:`receive`.
        """
        self._check_open()
        return self._receive_nowait()

    def clone(self) -> DurableReceiveChannel:
        """Another handle on the same messages."""
        self._check_open()
        return DurableReceiveChannel(
            self._receive, self._receive_nowait, self._handles, self._statistics
        )


class DurableSendChannel(_Handle, SendChannel[str | bytes]):
    """The sending end of a channel, for whoever needs no receipts.

    Closing one never ends the session.
    """

    def __init__(
        self,
        send: Callable[[str | bytes], Awaitable[object]],
        send_nowait: Callable[[str | bytes], object],
        handles: Handles,
        statistics: Callable[[], trio.MemoryChannelStatistics],
    ) -> None:
        self._send = send
        self._send_nowait = send_nowait
        super().__init__(handles, statistics)

    def _count(self, change: int) -> None:
        self._handles.senders += change

    async def send(self, value: str | bytes) -> None:
        """Let the channel accept a message, waiting for room; see ``DurableChannel.send``.

        Raises:
            trio.ClosedResourceError: This handle, or the channel, was closed.
            ChannelFailed: The channel has given up.
            TypeError: The message is neither ``str`` nor ``bytes``.
        """
        try:
            await self._while_open(lambda: self._send(value))
        except BaseException as error:
            forget_locals(error)
            raise

    def send_nowait(self, value: str | bytes) -> None:
        """Let the channel accept a message if there is room.

        Raises:
            trio.WouldBlock: There is none.
            trio.ClosedResourceError, ChannelFailed, TypeError: As :meth:`send`.
        """
        try:
            self._check_open()
            self._send_nowait(value)
        except BaseException as error:
            forget_locals(error)
            raise

    def clone(self) -> DurableSendChannel:
        """Another handle on the same channel."""
        self._check_open()
        return DurableSendChannel(self._send, self._send_nowait, self._handles, self._statistics)
