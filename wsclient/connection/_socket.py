"""Sockets to connect over: TCP with its options, and Unix sockets."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeAlias

import trio

from wsclient.options import ConnectionOptions

from ._nursery import raise_alone

StreamOpener: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and a port; raises OSError."""

stream_opener: Final[trio.lowlevel.RunVar[StreamOpener | None]] = trio.lowlevel.RunVar(
    "wsclient.connection.stream_opener", default=None
)
"""What opens the streams of this trio run; ``None`` means TCP.

The test kit's in-memory network sets it, as ``trio.socket.set_custom_socket_factory`` would: the
code under test stays as it is.
"""

_KEEPALIVE_PROBES: Final = 3

# Each under its names on the platforms; a platform that has none of them goes without.
_IDLE: Final = ("TCP_KEEPIDLE", "TCP_KEEPALIVE")
_INTERVAL: Final = ("TCP_KEEPINTVL",)
_COUNT: Final = ("TCP_KEEPCNT",)
_USER_TIMEOUT: Final = ("TCP_USER_TIMEOUT",)


async def open_tcp(host: str, port: int, options: ConnectionOptions) -> trio.abc.Stream:
    """Open a stream to a host and a port: RFC 8305's Happy Eyeballs, socket options set.

    Raises:
        OSError: It cannot be opened; nothing is left open.
    """
    opener = stream_opener.get()
    if opener is not None:
        return await opener(host, port)
    try:
        stream = await trio.open_tcp_stream(
            host,
            port,
            happy_eyeballs_delay=options.happy_eyeballs_delay,
            local_address=options.local_address,
        )
    except BaseExceptionGroup as group:
        # It has a nursery of its own, out of which a Ctrl-C would come as a group, which is taken
        # for no Ctrl-C by whoever looks for one.
        raise_alone(group)
    try:
        for level, name, value in socket_options(options):
            stream.socket.setsockopt(level, name, value)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def open_unix(path: str) -> trio.abc.Stream:
    """Open a stream to a Unix socket.

    Raises:
        OSError: It cannot be opened.
    """
    try:
        return await trio.open_unix_socket(path)
    except RuntimeError as error:  # The platform has none.
        raise OSError(str(error)) from error


def socket_options(options: ConnectionOptions) -> Iterator[tuple[int, int, int]]:
    """Level, name and value of each socket option that ``options`` ask for."""
    tcp = trio.socket.IPPROTO_TCP
    if options.tcp_keepalive is not None:
        yield trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1
        for names, value in (
            (_IDLE, options.tcp_keepalive),
            (_INTERVAL, options.tcp_keepalive),
            (_COUNT, _KEEPALIVE_PROBES),
        ):
            yield from ((tcp, number, value) for number in _first_of(names))
    # A text is as long as the heartbeat takes: a channel has made a number of it.
    if options.tcp_user_timeout is not None and not isinstance(options.tcp_user_timeout, str):
        milliseconds = max(1, round(options.tcp_user_timeout * 1000))
        yield from ((tcp, number, milliseconds) for number in _first_of(_USER_TIMEOUT))


_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)

_AGES: Final = struct.Struct("=8x 36x I 8x I")
"""Of Linux' ``struct tcp_info``: how many milliseconds ago data was last sent, and an
acknowledgement came."""


def has_answered(sock: socket.socket) -> bool:
    """Whether the peer's system has answered since ours has last sent data.

    After a timeout that tells a peer whose program takes nothing (it answers that it has no room)
    from a path that is dead.  False where the platform does not say.
    """
    if _TCP_INFO is None:
        return False
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _AGES.size)
    except OSError:
        return False
    last_data_sent, last_ack = _AGES.unpack(info)
    return bool(last_ack < last_data_sent)


def _first_of(names: tuple[str, ...]) -> list[int]:
    """The number of the first of ``names`` that the platform has, if it has one."""
    return [getattr(trio.socket, name) for name in names if hasattr(trio.socket, name)][:1]


def reason(error: OSError) -> str:
    """What failed, without trio's "all attempts … failed" around it."""
    causes: tuple[BaseException | None, ...] = (error.__cause__,)
    if isinstance(error.__cause__, BaseExceptionGroup):
        causes = error.__cause__.exceptions
    texts = [_text(cause) for cause in causes if isinstance(cause, OSError)]
    return ", ".join(dict.fromkeys(texts)) or _text(error)


def _text(error: OSError) -> str:
    # trio puts the address into strerror; name lookup has numbers of its own, below zero.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
