"""Opening channels."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias, TypeVar

import attrs
import trio

from wsclient._discretion import forgetful
from wsclient.connection import WebSocketConnection, open_background_nursery
from wsclient.errors import ChannelFailed, ConnectionTimeout
from wsclient.events import Observer
from wsclient.options import (
    ConnectionOptions,
    DeliveryOptions,
    HeartbeatOptions,
    Limits,
    OverflowPolicy,
    RetryPolicy,
    SubscriptionOptions,
)

from ._access import Address, CredentialsProvider, HeadersProvider, UrlProvider, check_way
from ._channel import DurableChannel
from ._line import ConnectHook, Settings, call_hook
from ._protocol import Protocol
from ._recording import Journal, Recorder
from ._storage import SqliteOutbox

Url: TypeAlias = str | UrlProvider
"""Where to connect to: a URL, or an async function that gives one for each attempt."""

_FIXED: Final = ": what stays the same goes into connection=ConnectionOptions(extra_headers=…)"


@forgetful
def open_channel(
    url: Url | Sequence[Url],
    *,
    ssl_context: ssl.SSLContext | None = None,
    headers: HeadersProvider | None = None,
    credentials: CredentialsProvider | None = None,
    on_connect: ConnectHook | None = None,
    name: str | None = None,
    connection: ConnectionOptions | None = None,
    heartbeat: HeartbeatOptions | None = None,
    retry: RetryPolicy | None = None,
    limits: Limits | None = None,
    delivery: DeliveryOptions | None = None,
    outbox: SqliteOutbox | None = None,
    journal: Journal | None = None,
    observers: Iterable[Observer] | None = None,
    ready_timeout: float | None = None,
    startup_timeout: float | None = None,
    dedupe: Callable[[str | bytes], Hashable] | None = None,
    rotate_every: float | None = None,
    redundancy: int = 1,
    protocol: Protocol | None = None,
    subscriptions: SubscriptionOptions | None = None,
) -> AbstractAsyncContextManager[DurableChannel]:
    """Open a channel for the length of an ``async with`` block.

    The block begins at once, while the channel still connects: sends are accepted from the start.
    When the block ends well, what was accepted is written (within 5 s) before the channel closes;
    when an exception ends it, the channel closes at once.

    Args:
        url: ``ws:`` or ``wss:``; a user and password become an ``Authorization`` header.
            Or an async function that gives one, asked at every attempt; or several of either, which
            are tried in turn.
        ssl_context: For ``wss``; ``None`` is the default context.
        headers: An async function that gives headers, asked at every attempt; they join
            ``ConnectionOptions.extra_headers``, and replace those of the same name.
        credentials: An async function that gives the value of the ``Authorization`` header, or
            ``None``.
            It is asked at every attempt, before the other functions, and called with ``fresh=True``
            once the server has refused what it gave last.
        on_connect: Called with the raw :class:`WebSocketConnection` of every new connection, before
            any other message is written: authenticate and subscribe here.
            Messages that it does not take go to the channel.
        name: How the channel is called in events and logs; the endpoint if not given.
        connection: How each connection is opened and limited.
        heartbeat: How a dead peer is noticed.
        retry: When to connect again.
        limits: How much may wait.
        delivery: What is promised for what is sent, and how it is kept.
        outbox: Keeps what was accepted on disk, so that it survives a crash; ``None`` keeps it in
            memory.
        journal: Records on disk what is received; ``None`` records nothing.
        observers: Told what happens; ``None`` logs it, ``()`` tells nobody.
        ready_timeout: Seconds to wait for the channel to be ready before the block begins;
            ``None`` does not wait.
        startup_timeout: Seconds within which the channel must have been ready once, else it gives
            up: for a host that never answers.
            ``None`` tries for ever.
        dedupe: Gives the key of a message, and ``None`` for one that has none.
            A message with a key that has come before (among the last 65,536) is dropped: it came
            over two connections.
            Called for each message, in the task that reads; it must not block.
        rotate_every: Seconds after which the connection is left for a new one (up to a tenth
            earlier, so that clients do not move in step), which is established and read before the
            old one is left: no interruption, and no gap.
            Each takes an attempt of the retry budget.
            Needs ``dedupe``.
        redundancy: How many connections there are at once: with 2, a second one is read all the
            time, to the next endpoint if there are several.
            The first arrival of a message wins, and there is a gap only where both missed
            something; what is sent goes over one of them.
            Needs ``dedupe``.
        protocol: How the service spells subscriptions, requests, its own heartbeat: for
            ``channel.subscribe``.
            Of what it says, the other options say it otherwise if they are given.
            A protocol whose values have positions is as good as ``dedupe`` for its subscriptions.
            Unless ``limits`` say otherwise, the oldest messages are dropped if so many come that
            belong to no subscription that they do not fit: who only takes from feeds must not be
            in the way of reading.
        subscriptions: How they are asked for.

    Raises:
        ChannelFailed: Out of the block: the channel has given up.
            The block is cancelled once everything received was taken, or after a second.
        ConnectionTimeout: The channel was not ready within ``ready_timeout``; its cause is the last
            failure.
        OutboxError: The ``outbox`` cannot be opened: the block does not begin.
        TypeError, ValueError: An argument cannot be used; raised by this call.
    """
    _seconds(ready_timeout, "ready_timeout")
    channel = _make(
        url,
        ssl_context,
        headers,
        credentials,
        on_connect,
        name,
        connection,
        heartbeat,
        retry,
        limits,
        delivery,
        outbox,
        journal,
        observers,
        startup_timeout,
        dedupe,
        rotate_every,
        redundancy,
        protocol,
        subscriptions,
    )
    return _open(channel, ready_timeout)


@asynccontextmanager
async def _open(
    channel: DurableChannel, ready_timeout: float | None
) -> AsyncGenerator[DurableChannel, None]:
    body = trio.CancelScope()
    await channel._outbox.load()
    async with open_background_nursery() as nursery:
        nursery.start_soon(channel._run, lambda _: body.cancel())
        try:
            with body:
                if ready_timeout is not None:
                    await _wait_ready(channel, ready_timeout)
                yield channel
        except BaseException as error:
            # In trouble: closed at once, and whoever is cancelled gets its time back.
            with trio.CancelScope(shield=True):
                await channel.aclose()
            if channel._supervisor.crash is None or error is not channel._supervisor.failure:
                raise
        if channel._supervisor.failure is None:
            await channel._leave_well()
        if channel._supervisor.failure is not None and channel._supervisor.crash is None:
            raise channel._supervisor.failure


async def _wait_ready(channel: DurableChannel, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await channel.wait_ready()
        return
    raise ConnectionTimeout(
        f"{channel.endpoint} was not ready within {seconds:g} s"
    ) from channel._supervisor.losses.last_error


@forgetful
async def connect_channel(
    nursery: trio.Nursery,
    url: Url | Sequence[Url],
    *,
    ssl_context: ssl.SSLContext | None = None,
    headers: HeadersProvider | None = None,
    credentials: CredentialsProvider | None = None,
    on_connect: ConnectHook | None = None,
    name: str | None = None,
    connection: ConnectionOptions | None = None,
    heartbeat: HeartbeatOptions | None = None,
    retry: RetryPolicy | None = None,
    limits: Limits | None = None,
    delivery: DeliveryOptions | None = None,
    outbox: SqliteOutbox | None = None,
    journal: Journal | None = None,
    observers: Iterable[Observer] | None = None,
    startup_timeout: float | None = None,
    dedupe: Callable[[str | bytes], Hashable] | None = None,
    rotate_every: float | None = None,
    redundancy: int = 1,
    protocol: Protocol | None = None,
    subscriptions: SubscriptionOptions | None = None,
) -> DurableChannel:
    """Open a channel whose session runs in a nursery of the caller's; return at once.

    Args:
        nursery: Where the session runs; its cancellation closes the channel.
        url: As for :func:`open_channel`, and all that follow.
        ssl_context: …
        headers: …
        credentials: …
        on_connect: …
        name: …
        connection: …
        heartbeat: …
        retry: …
        limits: …
        delivery: …
        outbox: …
        journal: …
        observers: …
        startup_timeout: …
        dedupe: …
        rotate_every: …
        redundancy: …
        protocol: …
        subscriptions: …

    Raises:
        ChannelFailed: Through the nursery: the channel has given up.
        OutboxError: The ``outbox`` cannot be opened.
        TypeError, ValueError: An argument cannot be used; raised by this call.

    Resource handling:
        The caller closes the channel: ``drain()`` if what was accepted is to be written, then
        ``aclose()``.
    """
    if not isinstance(nursery, trio.Nursery):
        raise TypeError(f"nursery must be trio.Nursery, not {type(nursery).__name__}")
    channel = _make(
        url,
        ssl_context,
        headers,
        credentials,
        on_connect,
        name,
        connection,
        heartbeat,
        retry,
        limits,
        delivery,
        outbox,
        journal,
        observers,
        startup_timeout,
        dedupe,
        rotate_every,
        redundancy,
        protocol,
        subscriptions,
    )
    # Before the session starts: cancelled here, there would be nobody to close it.
    await trio.lowlevel.checkpoint()
    await channel._outbox.load()
    try:
        nursery.start_soon(channel._run, _raise)
    except RuntimeError:  # It is closed.
        await channel._outbox.aclose()
        raise
    return channel


def _raise(failure: ChannelFailed) -> None:
    raise failure


def _make(
    url: Url | Sequence[Url],
    ssl_context: ssl.SSLContext | None,
    headers: HeadersProvider | None,
    credentials: CredentialsProvider | None,
    on_connect: ConnectHook | None,
    name: str | None,
    connection: ConnectionOptions | None,
    heartbeat: HeartbeatOptions | None,
    retry: RetryPolicy | None,
    limits: Limits | None,
    delivery: DeliveryOptions | None,
    outbox: SqliteOutbox | None,
    journal: Journal | None,
    observers: Iterable[Observer] | None,
    startup_timeout: float | None,
    dedupe: Callable[[str | bytes], Hashable] | None,
    rotate_every: float | None,
    redundancy: int,
    protocol: Protocol | None,
    subscriptions: SubscriptionOptions | None,
) -> DurableChannel:
    """Check every argument, and make a channel that does not run yet."""
    urls = url if isinstance(url, Sequence) and not isinstance(url, (str, bytes)) else [url]
    if not urls:
        raise ValueError("url must not be an empty sequence")
    addresses = tuple(Address(url, ssl_context) for url in urls)
    functions: list[tuple[object, str, str]] = [
        (headers, "headers", _FIXED),
        (credentials, "credentials", _FIXED),
        (on_connect, "on_connect", ""),
    ]
    for function, what, instead in functions:
        if function is not None and not callable(function):
            given = type(function).__name__
            raise TypeError(f"{what} must be an async function, not {given}{instead}")
    if dedupe is not None and not callable(dedupe):
        raise TypeError(f"dedupe must be a function, not {type(dedupe).__name__}")
    if isinstance(redundancy, bool) or not isinstance(redundancy, int):
        raise TypeError(f"redundancy must be 1 or 2, not {type(redundancy).__name__}")
    if redundancy not in (1, 2):
        raise ValueError(f"redundancy must be 1 or 2, not {redundancy!r}")
    if protocol is not None and not isinstance(protocol, Protocol):
        raise TypeError(
            f"protocol must be an object of a class that derives from wsclient.Protocol,"
            f" not {protocol!r}"
        )
    if subscriptions is not None and protocol is None:
        raise ValueError("subscriptions=… needs protocol=…, which says how the service spells them")
    overlaps = dedupe is not None or (protocol is not None and protocol.has_positions)
    age = _seconds(rotate_every, "rotate_every")
    if age == 0:
        raise ValueError("rotate_every must be more than 0")
    if not overlaps and (redundancy > 1 or rotate_every is not None):
        raise ValueError(
            "rotate_every and redundancy read two connections at once:"
            " say with dedupe=…, or by a protocol with positions, which of their messages are the"
            " same"
        )
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be str, not {type(name).__name__}")
    connection = _checked(connection, ConnectionOptions, "connection")
    heartbeat = _checked(heartbeat, HeartbeatOptions, "heartbeat")
    retry = _checked(retry, RetryPolicy, "retry")
    delivery = _checked(delivery, DeliveryOptions, "delivery")
    if protocol is not None:
        limits = _DROPPING if limits is None else limits
        connection, heartbeat, retry, delivery = _spoken(
            protocol, connection, heartbeat, retry, delivery
        )
        on_connect = _established(protocol, on_connect)
    if journal is not None and not isinstance(journal, Journal):
        raise TypeError(f"journal must be Journal, not {type(journal).__name__}")
    called = name or addresses[0].endpoint
    settings = Settings(
        name=called,
        addresses=addresses,
        ssl_context=ssl_context,
        headers=headers,
        credentials=credentials,
        on_connect=on_connect,
        startup_timeout=_seconds(startup_timeout, "startup_timeout"),
        overlaps=overlaps,
        redundancy=redundancy,
        rotate_every=age,
        recorder=None if journal is None else Recorder(journal, called),
        connection=connection,
        heartbeat=heartbeat,
        retry=retry,
    )
    if outbox is not None and not isinstance(outbox, SqliteOutbox):
        raise TypeError(f"outbox must be SqliteOutbox, not {type(outbox).__name__}")
    for address in addresses:
        # A proxy of the environment's that cannot be used is a mistake to tell at once.
        if address.target is not None:
            check_way(address.target, settings.connection)
    return DurableChannel(
        settings,
        _checked(limits, Limits, "limits"),
        delivery,
        dedupe,
        observers,
        None if outbox is None else outbox.storage(),
        protocol,
        _checked(subscriptions, SubscriptionOptions, "subscriptions"),
    )


def _spoken(
    protocol: Protocol,
    connection: ConnectionOptions,
    heartbeat: HeartbeatOptions,
    retry: RetryPolicy,
    delivery: DeliveryOptions,
) -> tuple[ConnectionOptions, HeartbeatOptions, RetryPolicy, DeliveryOptions]:
    """The options with what a protocol says, where they say nothing."""
    if not connection.subprotocols and protocol.subprotocols:
        connection = attrs.evolve(connection, subprotocols=tuple(protocol.subprotocols))
    if heartbeat.application is None and protocol.heartbeat is not None:
        heartbeat = attrs.evolve(heartbeat, application=protocol.heartbeat)
    if retry.classify is None:
        retry = attrs.evolve(retry, classify=protocol.classify)
    if delivery.correlation is None and protocol.correlation is not None:
        delivery = attrs.evolve(delivery, correlation=protocol.correlation)
    return connection, heartbeat, retry, delivery


def _established(protocol: Protocol, on_connect: ConnectHook | None) -> ConnectHook:
    async def establish(connection: WebSocketConnection) -> None:
        await protocol.establish(connection)
        if on_connect is not None:
            await call_hook(on_connect, connection)

    return establish


def _seconds(given: object, name: str) -> float:
    """A time limit, which may be none."""
    if given is None:
        return math.inf
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(given).__name__}")
    if not given >= 0:
        raise ValueError(f"{name} must be at least 0, not {given!r}")
    return given


_DROPPING: Final = Limits(inbox_overflow=OverflowPolicy.DROP_OLDEST)

T = TypeVar(
    "T",
    ConnectionOptions,
    HeartbeatOptions,
    RetryPolicy,
    Limits,
    DeliveryOptions,
    SubscriptionOptions,
)


def _checked(given: T | None, kind: type[T], name: str) -> T:
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise TypeError(f"{name} must be {kind.__name__}, not {type(given).__name__}")
    return given
