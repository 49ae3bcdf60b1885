"""Opening connections: the five functions, compatible with trio-websocket's.

What each option means is said in ``ConnectionOptions``; the defaults here are trio-websocket's
(except ``receive_buffer_size``), and the system's for what ``SINGLE_CONNECTION`` lists.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Final, Unpack

import attrs
import trio

from wsclient._discretion import forgetful
from wsclient.errors import ConnectionRejected, ConnectionTimeout, HandshakeError
from wsclient.options import (
    CONNECT_TIMEOUT,
    DISCONNECT_TIMEOUT,
    MAX_MESSAGE_SIZE,
    MESSAGE_QUEUE_SIZE,
    ConnectionOptions,
    Headers,
    OpeningOptions,
    StreamOptions,
    check_host,
    connection_options,
    unbracketed,
)
from wsclient.protocol import Accepted, ClientHandshake, check_resource

from ._connection import WebSocketConnection
from ._endpoint import host_header, origin
from ._nursery import open_background_nursery
from ._redirect import Request, redirected
from ._stream import open_transport, ssl_context_for
from ._tracing import TracingTransport
from ._transport import StreamTransport, Transport
from ._url import Target, parse_url

_TURNS: Final = 20
"""Checkpoints; an exception takes one or two for each nursery that it leaves.  They take no time
that anybody would notice: some 10 µs each."""


@forgetful
def open_websocket(
    host: str,
    port: int,
    resource: str,
    *,
    use_ssl: bool | ssl.SSLContext,
    subprotocols: Iterable[str] | None = None,
    extra_headers: Headers | None = None,
    message_queue_size: float = MESSAGE_QUEUE_SIZE,
    max_message_size: float = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    disconnect_timeout: float = DISCONNECT_TIMEOUT,
    **more: Unpack[OpeningOptions],
) -> AbstractAsyncContextManager[WebSocketConnection]:
    """Open a connection for the length of an ``async with`` block, and close it at its end.

    Args:
        host: A name or an address.
        port: A TCP port.
        resource: Path and query, ASCII.
        use_ssl: Whether to use TLS; a context says how.
        subprotocols: See :class:`ConnectionOptions`, as for all that follow.
        extra_headers: …
        message_queue_size: Messages.
        max_message_size: Bytes.
        receive_buffer_size: Bytes.
        connect_timeout: Seconds for all of it; ``math.inf`` waits for ever.
        disconnect_timeout: Seconds at the end of the block; one second at most where an exception
            ends it.
        more: The other fields of :class:`ConnectionOptions`, except ``establish_timeout``.

    Raises:
        HandshakeError: The connection could not be opened; the text says what failed, and the
            cause is the error behind it, where there is one.
            :class:`ConnectionTimeout`: in time; :class:`ConnectionRejected`: because the server
            does not want it; :class:`DisconnectionTimeout`: it could not be closed in time.
        TypeError, ValueError: An argument cannot be used.
    """
    options = connection_options(
        more,
        OpeningOptions.__optional_keys__,
        subprotocols=subprotocols,
        extra_headers=extra_headers,
        message_queue_size=message_queue_size,
        max_message_size=max_message_size,
        receive_buffer_size=receive_buffer_size,
        connect_timeout=connect_timeout,
        disconnect_timeout=disconnect_timeout,
    )
    return _Block(host, port, resource, use_ssl, options)


class _Block:
    """What ``async with open_websocket(…)`` enters and leaves.

    A class, since a generator would keep 700 bytes more, and all that the connection was opened
    with, as long as that is open.
    """

    __slots__ = ("_background", "_connection", "_wanted")

    def __init__(
        self,
        host: str,
        port: int,
        resource: str,
        use_ssl: bool | ssl.SSLContext,
        options: ConnectionOptions,
    ) -> None:
        self._wanted = (host, port, resource, use_ssl, options)

    @forgetful
    async def __aenter__(self) -> WebSocketConnection:
        self._connection = await _connect_in_time(*self._wanted)
        del self._wanted
        self._background = open_background_nursery()
        nursery = await self._background.__aenter__()
        nursery.start_soon(self._connection._run)
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        stack = AsyncExitStack()
        stack.push_async_exit(self._background)
        stack.push_async_exit(self._connection)  # The inner one.
        return await stack.__aexit__(kind, error, traceback)


async def _connect_in_time(
    host: str,
    port: int,
    resource: str,
    use_ssl: bool | ssl.SSLContext,
    options: ConnectionOptions,
) -> WebSocketConnection:
    ssl_context = ssl_context_for(use_ssl)
    with trio.move_on_after(options.connect_timeout):
        return await connect(host, port, resource, ssl_context, options)
    where = origin(host, port, secure=ssl_context is not None)
    raise ConnectionTimeout(
        f"{where} was not connected within {options.connect_timeout:g} s"
    ) from trio.TooSlowError()


@forgetful
def open_websocket_url(
    url: str,
    ssl_context: ssl.SSLContext | None = None,
    *,
    subprotocols: Iterable[str] | None = None,
    extra_headers: Headers | None = None,
    message_queue_size: float = MESSAGE_QUEUE_SIZE,
    max_message_size: float = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    disconnect_timeout: float = DISCONNECT_TIMEOUT,
    **more: Unpack[OpeningOptions],
) -> AbstractAsyncContextManager[WebSocketConnection]:
    """Open a connection to a URL for the length of an ``async with`` block.

    Args:
        url: ``ws:`` or ``wss:``; a user and password become an ``Authorization`` header.
        ssl_context: For ``wss``; ``None`` is the default context.
        subprotocols: As for :func:`open_websocket`, and all that follow.
        extra_headers: …
        message_queue_size: Messages.
        max_message_size: Bytes.
        receive_buffer_size: Bytes.
        connect_timeout: Seconds.
        disconnect_timeout: Seconds.
        more: As for :func:`open_websocket`.

    Raises:
        ValueError: The URL cannot be used; raised by this call, before the block is entered.
        HandshakeError: As :func:`open_websocket`.
    """
    target = parse_url(url, ssl_context)
    return open_websocket(
        target.host,
        target.port,
        target.resource,
        use_ssl=target.ssl_context,
        subprotocols=subprotocols,
        extra_headers=_with_authorization(extra_headers, target),
        message_queue_size=message_queue_size,
        max_message_size=max_message_size,
        receive_buffer_size=receive_buffer_size,
        connect_timeout=connect_timeout,
        disconnect_timeout=disconnect_timeout,
        **more,
    )


@forgetful
async def connect_websocket(
    nursery: trio.Nursery,
    host: str,
    port: int,
    resource: str,
    *,
    use_ssl: bool | ssl.SSLContext,
    subprotocols: Iterable[str] | None = None,
    extra_headers: Headers | None = None,
    message_queue_size: float = MESSAGE_QUEUE_SIZE,
    max_message_size: float = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = None,
    **more: Unpack[OpeningOptions],
) -> WebSocketConnection:
    """Open a connection whose task runs in a nursery of the caller's.

    There is no time limit here: ``trio.fail_after`` sets one, and nothing is left behind.

    Args:
        nursery: Where the connection's task runs; its end closes the connection.
        host: As for :func:`open_websocket`, and all that follow.
        port: …
        resource: …
        use_ssl: …
        subprotocols: …
        extra_headers: …
        message_queue_size: Messages.
        max_message_size: Bytes.
        receive_buffer_size: Bytes.
        more: …

    Raises:
        HandshakeError: The connection could not be opened; raised here, not in the nursery.
        TypeError, ValueError: An argument cannot be used.

    Resource handling:
        The caller closes the connection with ``aclose()``.
    """
    options = connection_options(
        more,
        OpeningOptions.__optional_keys__,
        subprotocols=subprotocols,
        extra_headers=extra_headers,
        message_queue_size=message_queue_size,
        max_message_size=max_message_size,
        receive_buffer_size=receive_buffer_size,
        connect_timeout=math.inf,
        disconnect_timeout=DISCONNECT_TIMEOUT,
    )
    _check_nursery(nursery)
    connection = await connect(host, port, resource, ssl_context_for(use_ssl), options)
    return await _start(nursery, connection)


@forgetful
async def connect_websocket_url(
    nursery: trio.Nursery,
    url: str,
    ssl_context: ssl.SSLContext | None = None,
    *,
    subprotocols: Iterable[str] | None = None,
    extra_headers: Headers | None = None,
    message_queue_size: float = MESSAGE_QUEUE_SIZE,
    max_message_size: float = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = None,
    **more: Unpack[OpeningOptions],
) -> WebSocketConnection:
    """Open a connection to a URL whose task runs in a nursery of the caller's.

    Args:
        nursery: As for :func:`connect_websocket`.
        url: As for :func:`open_websocket_url`.
        ssl_context: …
        subprotocols: …
        extra_headers: …
        message_queue_size: Messages.
        max_message_size: Bytes.
        receive_buffer_size: Bytes.
        more: …

    Raises:
        HandshakeError: As :func:`connect_websocket`.
        TypeError, ValueError: An argument cannot be used.
    """
    target = parse_url(url, ssl_context)
    return await connect_websocket(
        nursery,
        target.host,
        target.port,
        target.resource,
        use_ssl=target.ssl_context,
        subprotocols=subprotocols,
        extra_headers=_with_authorization(extra_headers, target),
        message_queue_size=message_queue_size,
        max_message_size=max_message_size,
        receive_buffer_size=receive_buffer_size,
        **more,
    )


@forgetful
async def wrap_client_stream(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    host: str,
    resource: str,
    *,
    subprotocols: Iterable[str] | None = None,
    extra_headers: Headers | None = None,
    message_queue_size: float = MESSAGE_QUEUE_SIZE,
    max_message_size: float = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = None,
    **more: Unpack[StreamOptions],
) -> WebSocketConnection:
    """Open a connection over a stream that exists already: any ``trio.abc.Stream``.

    Args:
        nursery: As for :func:`connect_websocket`.
        stream: Belongs to the connection once the arguments are found good: closing that closes
            the stream, and so does a handshake that fails.
        host: The ``Host`` header.
        resource: As for :func:`open_websocket`, and all that follow.
        subprotocols: …
        extra_headers: …
        message_queue_size: Messages.
        max_message_size: Bytes.
        receive_buffer_size: Bytes.
        more: The other fields of :class:`ConnectionOptions` that concern the handshake.

    Raises:
        HandshakeError: As :func:`connect_websocket`.
        TypeError, ValueError: An argument cannot be used.
    """
    options = connection_options(
        more,
        StreamOptions.__optional_keys__,
        subprotocols=subprotocols,
        extra_headers=extra_headers,
        message_queue_size=message_queue_size,
        max_message_size=max_message_size,
        receive_buffer_size=receive_buffer_size,
        connect_timeout=math.inf,
        disconnect_timeout=DISCONNECT_TIMEOUT,
    )
    _check_nursery(nursery)
    if not isinstance(stream, trio.abc.Stream):
        raise TypeError(f"stream must be trio.abc.Stream, not {type(stream).__name__}")
    host, resource = check_host(host), check_resource(resource)
    # The stream may be in use elsewhere, too: only its interface is used.
    transport = StreamTransport(stream, options.receive_buffer_size)
    connection = await _upgrade(transport, host, resource, options, endpoint=f"ws://{host}")
    return await _start(nursery, connection)


async def connect(
    host: str,
    port: int,
    resource: str,
    ssl_context: ssl.SSLContext | None,
    options: ConnectionOptions,
) -> WebSocketConnection:
    """Open a stream and a connection over it, whose task does not run yet.

    Raises:
        HandshakeError: As :func:`connect_websocket`.
        TypeError, ValueError: An argument cannot be used.
    """
    host, resource = unbracketed(check_host(host)), check_resource(resource)
    _check_port(port)
    request = Request(host, port, resource, ssl_context, options.extra_headers)
    followed = 0
    while True:
        try:
            return await _connect(request, options)
        except ConnectionRejected as rejected:
            following = redirected(request, rejected, options, followed)
            if following is None:
                raise
            request = following
            followed += 1


async def _connect(request: Request, options: ConnectionOptions) -> WebSocketConnection:
    if request.headers is not options.extra_headers:  # After a redirect.
        options = attrs.evolve(options, extra_headers=request.headers)
    transport = await open_transport(request.host, request.port, request.ssl_context, options)
    host = host_header(request.host, request.port, secure=request.secure)
    return await _upgrade(transport, host, request.resource, options, endpoint=request.endpoint)


async def _upgrade(
    transport: Transport,
    host: str,
    resource: str,
    options: ConnectionOptions,
    *,
    endpoint: str,
) -> WebSocketConnection:
    """The opening handshake; closes the stream unless it succeeds."""
    stream = transport.stream
    try:
        handshake = ClientHandshake(
            host,
            resource,
            subprotocols=options.subprotocols,
            headers=options.extra_headers,
            compression=options.compression,
            user_agent=options.user_agent,
            max_head_size=options.max_head_size,
            max_headers=options.max_headers,
        )
        accepted: Accepted | None = None
        request = bytearray(handshake.send_request())
        sent = 0
        while sent < len(request):
            sent += await transport.send(request, sent)
        while accepted is None:
            data, size = await transport.receive()
            if size:
                accepted = handshake.receive_data(bytes(data[:size]))
            else:
                await _give_way()
                handshake.receive_eof()
        if options.trace is not None:
            transport = TracingTransport(transport, options.trace)
            transport.tell_received(accepted.trailing)
        return WebSocketConnection(transport, accepted, options, path=resource, endpoint=endpoint)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        await trio.aclose_forcefully(stream)
        raise HandshakeError(f"the connection to {endpoint} broke in the opening handshake") from (
            error.__cause__ or error
        )
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _give_way() -> None:
    """Let a server that runs beside us tell first why it hung up: our error is a consequence.

    Otherwise its error, on its way up through the nurseries of both, comes too late to be seen.
    """
    for _ in range(_TURNS):
        await trio.lowlevel.checkpoint()


async def _start(nursery: trio.Nursery, connection: WebSocketConnection) -> WebSocketConnection:
    try:
        nursery.start_soon(connection._run)
    except RuntimeError:  # The nursery was closed while we were connecting.
        await trio.aclose_forcefully(connection._stream)
        raise
    return connection


def _check_nursery(nursery: object) -> None:
    if not isinstance(nursery, trio.Nursery):
        raise TypeError(f"nursery must be trio.Nursery, not {type(nursery).__name__}")


def _check_port(port: object) -> None:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be int, not {type(port).__name__}")
    if not 0 <= port < 65536:  # Nobody listens on 0, and the system says so.
        raise ValueError(f"port must be between 0 and 65535, not {port}")


def _with_authorization(headers: Headers | None, target: Target) -> Headers | None:
    """The headers, and the URL's credentials unless the caller gives better ones."""
    if target.authorization is None:
        return headers
    given = ConnectionOptions(extra_headers=headers).extra_headers
    if any(name.lower() == b"authorization" for name, _ in given):
        return given
    return (*given, (b"Authorization", target.authorization))
