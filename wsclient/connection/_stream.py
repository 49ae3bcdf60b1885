"""Streams to connect over: a socket or a proxy's tunnel, and TLS over it."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio

from wsclient.errors import HandshakeError, ProxyError
from wsclient.options import SINGLE_CONNECTION, ConnectionOptions

from ._endpoint import origin
from ._proxy import Proxy, ask_for_tunnel, find_proxy
from ._socket import open_tcp, open_unix, reason
from ._tls import TlsTransport
from ._transport import SocketTransport, StreamTransport, Transport

_DEFAULTS: Final = ConnectionOptions(**SINGLE_CONNECTION)


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


async def open_transport(
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    options: ConnectionOptions = _DEFAULTS,
) -> Transport:
    """Open a way to ``host`` and ``port``: as ``options`` say, with TLS if asked for.

    Raises:
        HandshakeError: With the operating system's or TLS' error as its cause.
            :class:`ProxyError`: because of the proxy.
    """
    secure = ssl_context is not None
    endpoint = origin(host, port, secure=secure)
    try:
        proxy = find_proxy(options, host, port, secure=secure)
    except (ValueError, ImportError) as error:
        raise ProxyError(str(error)) from error
    at = (options.connect_host or host, options.connect_port or port)
    if proxy is not None:
        stream = await _open_tunnel(proxy, *at, options)
    else:
        try:
            if options.unix_socket is not None:
                stream = await open_unix(options.unix_socket)
            else:
                stream = await open_tcp(*at, options)
        except OSError as error:
            raise HandshakeError(f"cannot connect to {endpoint}: {reason(error)}") from error
    read_size = options.receive_buffer_size
    if ssl_context is not None:
        name = _certificate_name(options.server_hostname or host)
        if isinstance(stream, trio.SocketStream):
            async with _close_unless_secure(stream, endpoint, HandshakeError):
                transport = TlsTransport(stream, read_size, ssl_context, name)
            async with _close_unless_secure(transport.stream, endpoint, HandshakeError):
                await transport.do_handshake()
            return transport
        stream = await _start_tls(stream, ssl_context, name, endpoint, HandshakeError)
    if isinstance(stream, trio.SocketStream):
        return SocketTransport(stream, read_size)
    return StreamTransport(stream, read_size)


async def _open_tunnel(
    proxy: Proxy, host: str, port: int, options: ConnectionOptions
) -> trio.abc.Stream:
    try:
        stream = await open_tcp(proxy.host, proxy.port, options)
    except OSError as error:
        raise ProxyError(f"cannot connect to the proxy {proxy.name}: {reason(error)}") from error
    if proxy.scheme == "https":
        context = options.proxy_ssl_context or default_ssl_context()
        name = _certificate_name(proxy.host)
        stream = await _start_tls(stream, context, name, f"the proxy {proxy.name}", ProxyError)
    try:
        await ask_for_tunnel(stream, proxy, host, port, options)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _start_tls(
    stream: trio.abc.Stream,
    context: ssl.SSLContext,
    name: str,
    peer: str,
    error_type: type[HandshakeError],
) -> trio.abc.Stream:
    """TLS over any stream."""
    async with _close_unless_secure(stream, peer, error_type):
        # https_compatible: few servers wait for a close_notify, or send one.
        secured = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
        # Now, and not at the first read: a bad certificate is a failure to connect.
        await secured.do_handshake()
    return secured


def _certificate_name(host: str) -> str:
    # A certificate has neither the zone of an address (RFC 6874) nor the dot of the root.
    return host.partition("%")[0].removesuffix(".")


@asynccontextmanager
async def _close_unless_secure(
    stream: trio.abc.Stream, peer: str, error_type: type[HandshakeError]
) -> AsyncGenerator[None, None]:
    """Close ``stream`` if TLS with ``peer`` cannot be opened over it, and say why."""
    try:
        yield
    except (trio.BrokenResourceError, ssl.SSLError) as error:
        await trio.aclose_forcefully(stream)
        cause = error.__cause__ or error
        text = str(cause) or "the peer closed the connection"
        raise error_type(f"TLS with {peer} failed: {text}") from cause
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
