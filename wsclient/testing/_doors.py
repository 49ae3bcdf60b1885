"""Where a server listens: in memory, or on a socket.

A door can be closed and opened again; between the two, its address stays taken, and whoever comes
is refused.
"""

from __future__ import annotations

import os
import socket
from typing import Final, Protocol

import trio

from ._network import MemoryListener, MemoryNetwork
from ._streams import reset

MEMORY_HOST: Final = "server.test"
"""Where a server on an in-memory network listens, unless told otherwise (RFC 6761 §6.2)."""

LOOPBACK: Final = "127.0.0.1"
"""Where a server with a real socket does."""


class Attempt(Protocol):
    """Somebody wants to connect."""

    def accept(self) -> trio.abc.Stream:
        """Let the client in."""

    def refuse(self) -> None:
        """Turn the client away."""


class Listener(Protocol):
    """An open door."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""

    async def wait_attempt(self) -> Attempt:
        """Wait for a client.

        Raises:
            trio.ClosedResourceError: The listener is closed.
        """

    def close(self) -> None:
        """Refuse whoever comes."""


class Door(Protocol):
    """An address at which to listen."""

    @property
    def host(self) -> str:
        """The name or address."""

    @property
    def port(self) -> int:
        """The port, once it is known."""

    async def prepare(self) -> None:
        """Take the address."""

    def open(self) -> Listener:
        """Listen."""

    def give_up(self) -> None:
        """Give the address back."""


class MemoryDoor:
    """A host's port on an in-memory network."""

    def __init__(self, network: MemoryNetwork, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._network = network

    async def prepare(self) -> None:
        """Let the name be known."""
        await trio.lowlevel.checkpoint()
        self._network.add_host(self.host)

    def open(self) -> MemoryListener:
        """Listen."""
        return self._network.listen(self.host, self.port)

    def give_up(self) -> None:
        """Nothing to do: the name stays known."""


class SocketDoor:
    """A TCP port.

    Args:
        host: A name or an address.
        port: A port; 0 lets the system choose one, once.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._family = socket.AF_INET
        self._address: tuple[object, ...] = ()
        self._bound: socket.socket | None = None

    async def prepare(self) -> None:
        """Take the address.

        Raises:
            OSError: It cannot be had.
        """
        found = await trio.socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        self._family, _, _, _, self._address = found[0]
        self._bind()

    def _bind(self) -> None:
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if os.name != "nt":
                # Connections that have ended keep the port for minutes otherwise.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(self._address)
        except BaseException:
            bound.close()
            raise
        self._bound = bound
        self._address = bound.getsockname()
        self.port = bound.getsockname()[1]

    def open(self) -> SocketListener:
        """Listen."""
        assert self._bound is not None
        bound, self._bound = self._bound, None
        bound.listen()
        return SocketListener(self, trio.SocketListener(trio.socket.from_stdlib_socket(bound)))

    def reserve(self) -> None:
        """Keep the port, bound but not listening.

        A free one could be given to somebody else, or to a client as its own end, which would then
        find itself connected to itself.
        """
        self._bind()

    def give_up(self) -> None:
        """Give the port back."""
        if self._bound is not None:
            self._bound.close()
            self._bound = None


class SocketListener:
    """A TCP port that listens."""

    def __init__(self, door: SocketDoor, listener: trio.SocketListener) -> None:
        self._door = door
        self._listener = listener
        self.is_closed = False

    async def wait_attempt(self) -> SocketAttempt:
        """Wait for a client.

        Raises:
            trio.ClosedResourceError: The listener is closed.
        """
        return SocketAttempt(await self._listener.accept())

    def close(self) -> None:
        """Refuse whoever comes."""
        self.is_closed = True
        self._listener.socket.close()
        self._door.reserve()


class SocketAttempt:
    """A connection that the kernel has accepted already."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    def accept(self) -> trio.SocketStream:
        """Let the client in."""
        return self._stream

    def refuse(self) -> None:
        """Reset the connection: the nearest thing to a refusal that is left."""
        reset(self._stream)


def door_at(
    network: MemoryNetwork | None,
    host: str | None,
    port: int | None,
    *,
    secure: bool,
    memory_host: str = MEMORY_HOST,
) -> Door:
    """The door at an address: in memory where there is a network, on a socket otherwise."""
    if network is None:
        return SocketDoor(host or LOOPBACK, port or 0)
    return MemoryDoor(network, host or memory_host, port or (443 if secure else 80))
