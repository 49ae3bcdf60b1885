"""What listens at an address for the length of a block, and can be away for a while."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

import trio

from wsclient.connection import open_background_nursery

from ._doors import Attempt, Door, Listener

if TYPE_CHECKING:
    from types import TracebackType


class Listening(ABC):
    """Listens at a door, and serves whoever comes in.

    Resource handling:
        An ``async with`` block; at its end all connections are reset and all tasks end.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._listener: Listener | None = None
        self._nursery: trio.Nursery | None = None
        self._running: AbstractAsyncContextManager[None] | None = None

    @abstractmethod
    async def _welcome(self, attempt: Attempt, nursery: trio.Nursery) -> None:
        """Somebody wants to connect: refuse it, or serve it in the nursery."""

    @abstractmethod
    def _cut_all(self) -> None:
        """Reset all connections at once, and cancel what serves them."""

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError(f"a {type(self).__name__} can be entered once")
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._running is not None
        return await self._running.__aexit__(exc_type, exc_value, traceback)

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None, None]:
        await self._door.prepare()
        try:
            async with open_background_nursery() as self._nursery:
                try:
                    await self.start()
                    yield
                finally:
                    self._stop()
        finally:
            self._nursery = None
            self._door.give_up()

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._door.host

    @property
    def port(self) -> int:
        """On which port; 0 while the system has not chosen one."""
        return self._door.port

    async def start(self) -> None:
        """Listen (again), at the same address; does nothing if it listens.

        Raises:
            RuntimeError: The block is over or not yet entered.
        """
        if self._nursery is None:
            raise RuntimeError(f"a {type(self).__name__} runs inside its `async with` block only")
        await trio.lowlevel.checkpoint()
        if self._listener is None:
            self._listener = self._door.open()
            self._nursery.start_soon(self._accept, self._nursery, self._listener)

    async def stop(self) -> None:
        """Stop to listen, and reset all connections: an outage, until :meth:`start`."""
        self._stop()
        await trio.lowlevel.checkpoint()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _stop(self) -> None:
        self._stop_listening()
        self._cut_all()

    async def _accept(self, nursery: trio.Nursery, listener: Listener) -> None:
        with suppress(trio.ClosedResourceError):
            while True:
                attempt = await listener.wait_attempt()
                if listener.is_closed:
                    # It came in the last moment.
                    attempt.refuse()
                    return
                await self._welcome(attempt, nursery)
