"""Streams to connect over: TCP, and TLS over it."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from wsclient.errors import HandshakeError

from ._endpoint import origin

StreamOpener: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and a port; raises OSError."""

stream_opener: Final[trio.lowlevel.RunVar[StreamOpener | None]] = trio.lowlevel.RunVar(
    "wsclient.connection.stream_opener", default=None
)
"""What opens the streams of this trio run; ``None`` means TCP.

The test kit's in-memory network sets it, as ``trio.socket.set_custom_socket_factory`` would: the
code under test stays as it is.
"""


@functools.cache
def default_ssl_context() -> ssl.SSLContext:
    """The context for ``wss`` where none is given; kept, because making one takes some 60 ms."""
    return ssl.create_default_context()


def ssl_context_for(use_ssl: object) -> ssl.SSLContext | None:
    """The context that ``use_ssl`` stands for; ``None`` for a plain connection.

    Raises:
        TypeError: It is neither a bool nor a context.
    """
    if use_ssl is False:
        return None
    if use_ssl is True:
        return default_ssl_context()
    if isinstance(use_ssl, ssl.SSLContext):
        return use_ssl
    raise TypeError("`use_ssl` argument must be bool or ssl.SSLContext")


async def open_stream(host: str, port: int, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    """Open a stream to ``host`` and ``port``: TCP (RFC 8305's Happy Eyeballs), TLS if asked for.

    Raises:
        HandshakeError: With the operating system's or TLS' error as its cause.
    """
    endpoint = origin(host, port, secure=ssl_context is not None)
    stream: trio.abc.Stream
    try:
        stream = await (stream_opener.get() or trio.open_tcp_stream)(host, port)
    except OSError as error:
        raise HandshakeError(f"cannot connect to {endpoint}: {_reason(error)}") from error
    if ssl_context is None:
        return stream
    try:
        # https_compatible: few servers wait for a close_notify, or send one.
        stream = trio.SSLStream(stream, ssl_context, server_hostname=host, https_compatible=True)
        # Now, and not at the first read: a bad certificate is a failure to connect.
        await stream.do_handshake()
    except (trio.BrokenResourceError, ssl.SSLError) as error:
        await trio.aclose_forcefully(stream)
        cause = error.__cause__ or error
        text = str(cause) or "the peer closed the connection"
        raise HandshakeError(f"TLS with {endpoint} failed: {text}") from cause
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _reason(error: OSError) -> str:
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
