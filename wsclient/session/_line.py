"""One connection's life: opened, established, watched until it is lost, and closed.

A line knows its own connection, endpoint, attempt and epoch, and nothing of the channel's state or
of its other lines.  So two can live at once: whoever holds them opens the second one in a task
beside the first, decides which of them feeds the inbox and draws from the outbox, and closes either
when it likes.
"""

from __future__ import annotations

import inspect
import math
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

import attrs
import trio

from wsclient import events
from wsclient._discretion import forget_locals
from wsclient.codes import CloseCode, CloseReason
from wsclient.connection import (
    Ping,
    WebSocketConnection,
    connect_websocket_url,
    failure_in,
    is_deaf,
    open_background_nursery,
)
from wsclient.errors import (
    ConnectionClosed,
    ConnectionTimeout,
    DisconnectionTimeout,
    EstablishError,
    HandshakeError,
    HeartbeatTimeout,
    ProviderError,
    WebSocketError,
)
from wsclient.events import Event, LossKind
from wsclient.options import (
    ConnectionOptions,
    HeartbeatOptions,
    RetryPolicy,
    opening_options,
    with_user_timeout,
)

from ._access import Access, Address, CredentialsProvider, HeadersProvider, Request
from ._enrolment import Enrolment
from ._inbox import Inbox, Way
from ._liveness import Liveness
from ._policy import loss_from
from ._recording import Recorder

ConnectHook: TypeAlias = Callable[[WebSocketConnection], Awaitable[object]]

LAST_WORD: Final = 1.0
"""Seconds that closing may wait for the peer, so that leaving takes two at most."""


@attrs.frozen(kw_only=True)
class Settings:
    """What a channel's lines, and its supervisor, work by."""

    name: str
    addresses: tuple[Address, ...]
    """Where to connect to, in the order in which they are tried."""
    ssl_context: ssl.SSLContext | None
    headers: HeadersProvider | None
    credentials: CredentialsProvider | None
    on_connect: ConnectHook | None
    startup_timeout: float
    """Seconds until the channel must have been ready once."""
    overlaps: bool = False
    """Whether two connections may live at once: repeated messages are known."""
    redundancy: int = 1
    """How many connections live at once, if it can be."""
    rotate_every: float = math.inf
    """Seconds after which a connection is left for a younger one."""
    recorder: Recorder | None = None
    """What records the messages that come."""
    connection: ConnectionOptions
    heartbeat: HeartbeatOptions
    retry: RetryPolicy


class Line:
    """A connection that is open; :func:`open_line` makes it.

    Attributes:
        address: What it was opened to.
        connection: The connection.
        epoch: Its number among the channel's connections.
        opened_at: When it was opened (trio's clock, seconds).
        left: Why it was left for another one; ``None`` if it was not.
        liveness: What watches over it, once it is ready.
        enrolment: What its server has of the channel's subscriptions, if that has some.
        is_ready: Whether messages flow over it, for the channel.
    """

    def __init__(
        self,
        settings: Settings,
        address: Address,
        connection: WebSocketConnection,
        place: dict[str, Any],
        epoch: int,
        observe: Callable[[Event], None],
        duration: float,
    ) -> None:
        self._settings = settings
        self.address: Final = address
        self._place = place
        self._observe = observe
        self._duration = duration
        self.opened_at: Final = trio.current_time()
        self._watching = trio.CancelScope()
        self._tied: set[trio.CancelScope] = set()
        self.is_ready = False
        self.left: str | None = None
        self.connection: Final = connection
        self.epoch: Final = epoch
        self.liveness: Liveness | None = None
        self.enrolment: Enrolment | None = None

    def way_into(self, inbox: Inbox) -> Way:
        """Where it shall put its messages so that its subscriptions are heard of."""
        return self.recorded(inbox if self.enrolment is None else self.enrolment.way_into(inbox))

    def recorded(self, way: Way) -> Way:
        """Where it shall put its messages, on their way into ``way``, so that they are recorded."""
        recorder = self._settings.recorder
        return way if recorder is None else recorder.way_into(way, self.epoch)

    @property
    def close_reason(self) -> CloseReason:
        """Why messages flow over it no more; where it is we who close it, that may be yet to come.

        Then it is what the peer is told, and why.
        """
        if self.left is not None:
            return CloseReason(CloseCode.GOING_AWAY, self.left)
        return self.connection.closed or CloseReason(CloseCode.NORMAL_CLOSURE)

    def tell_opened(self) -> None:
        """Tell the observers that the opening handshake succeeded."""
        self._observe(
            events.ConnectionOpened(
                **self._place,
                epoch=self.epoch,
                duration=self._duration,
                subprotocol=self.connection.subprotocol,
            )
        )

    async def establish(self) -> BaseException | None:
        """Run the hook; return what went wrong."""
        hook = self._settings.on_connect
        timeout = self._settings.connection.establish_timeout
        failed: EstablishError | None = None
        if hook is not None:
            try:
                async with open_background_nursery() as nursery:
                    nursery.start_soon(cancel_when_closed, self.connection, nursery.cancel_scope)
                    with trio.move_on_after(timeout) as deadline:
                        await call_hook(hook, self.connection)
                if deadline.cancelled_caught:
                    failed = EstablishError(f"the on_connect hook took longer than {timeout:g} s")
            except EstablishError as raised:
                failed = raised
            except BaseException as raised:  # A user's hook may raise anything.
                error = failure_in(raised)
                if error is None:
                    raise
                failed = EstablishError(
                    f"the on_connect hook raised {type(error).__name__}: {error}"
                )
                failed.__cause__ = error
        forget_locals(failed)
        if self.connection.closed is not None:
            # Whatever the hook made of it, this is what happened.
            return ConnectionClosed(self.connection.closed)
        self._duration += trio.current_time() - self.opened_at
        return failed

    def tell_ready(
        self, outage: float | None, attempts: int | None = None, *, resumed: bool | None
    ) -> None:
        """Messages flow, after an outage of so many seconds and attempts: tell the observers."""
        self.is_ready = True
        self._observe(
            events.ConnectionReady(
                **self._place,
                epoch=self.epoch,
                outage=outage,
                resumed=resumed,
                outage_attempts=attempts,
                duration=self._duration,
            )
        )

    def watch_over(
        self,
        send_ping: Callable[[], Ping] | None = None,
        spend: Callable[[], object] = lambda: None,
    ) -> Liveness:
        """Begin to watch over the connection, which is ready; :meth:`watch` goes on.

        Args:
            send_ping: Sends a protocol ping; ``None`` sends a plain one.
            spend: Told that a ping of the application's goes out.
        """
        self.liveness = Liveness(
            self.connection,
            self._settings.heartbeat,
            place={**self._place, "epoch": self.epoch},
            observe=self._observe,
            send_ping=send_ping,
            spend=spend,
        )
        return self.liveness

    async def watch(self) -> BaseException | None:
        """Wait until the connection is lost, asking for signs of life.

        Returns:
            How it was lost; ``None`` if it was left.
        """
        silence: list[HeartbeatTimeout] = []
        liveness = self.liveness or self.watch_over()

        async def watch() -> None:
            silence.append(await liveness.run())
            # A dead path is not worth a close frame.
            self.connection.abort()

        # Of one that takes over, this is not the first.
        with trio.CancelScope() as self._watching:
            if self.left is not None:
                self._watching.cancel()
            async with open_background_nursery() as nursery:
                nursery.start_soon(watch)
                if self.enrolment is not None:
                    nursery.start_soon(self.enrolment.run)
                await self.connection.wait_closed()
        if self.left is not None:
            return None
        if silence:
            return silence[0]
        if is_deaf(self.connection):
            liveness.tell_deaf()
        return ConnectionClosed(self.connection.closed)

    @contextmanager
    def life(self) -> Iterator[trio.CancelScope]:
        """A block that is cancelled when messages flow over this connection no more."""
        with trio.CancelScope() as scope:
            self._tied.add(scope)
            try:
                yield scope
            finally:
                self._tied.discard(scope)

    def release(self) -> None:
        """Messages flow over it no more."""
        self.is_ready = False
        while self._tied:
            self._tied.pop().cancel()

    def leave(self, reason: str) -> None:
        """End :meth:`watch`: the connection is good, and another one is wanted."""
        self.left = reason
        self._watching.cancel()

    def tell_lost(self, cause: str, code: int | None, kind: LossKind = LossKind.CLOSED) -> None:
        """Tell the observers that the connection was lost, and whether messages had flowed."""
        self._observe(
            events.ConnectionLost(
                **self._place,
                epoch=self.epoch,
                cause=cause,
                code=code,
                duration=trio.current_time() - self.opened_at,
                ready=self.liveness is not None,
                kind=kind,
            )
        )

    def tell_left(self) -> None:
        """Tell the observers that the connection was left."""
        self._observe(
            events.ConnectionLeft(
                **self._place,
                epoch=self.epoch,
                reason=self.left or "",
                duration=trio.current_time() - self.opened_at,
            )
        )

    async def close(self) -> None:
        """Close the connection, whether it is lost or not: within a second."""
        # We leave the connection, and not the service.
        code = CloseCode.NORMAL_CLOSURE if self.left is None else CloseCode.GOING_AWAY
        # Shielded, since it is bounded: the peer is told even when we are cancelled.
        seconds = min(LAST_WORD, self._settings.connection.disconnect_timeout)
        with trio.move_on_after(seconds, shield=True):
            with suppress(DisconnectionTimeout):
                await self.connection.aclose(code)


async def open_line(
    nursery: trio.Nursery,
    settings: Settings,
    address: Address,
    access: Access,
    *,
    attempt: int,
    epochs: Iterator[int],
    queue_size: float,
    observe: Callable[[Event], None],
) -> Line | WebSocketError:
    """Attempt a connection; tell the observers that it is attempted, and if it fails.

    Args:
        nursery: Where the connection's task runs.
        settings: How to connect.
        address: To what.
        access: Asked for what the attempt needs.
        attempt: What the observers are told of the attempt: its number.
        epochs: Gives the connection its number.
        queue_size: Messages that may wait in it until it is attached.
        observe: Told what happens.

    Returns:
        The line, or why there is none.
    """
    began = trio.current_time()
    # One deadline for all of it.
    deadline = began + settings.connection.connect_timeout
    request = await _ask(settings, address, access, deadline)
    # Not before: a URL that a function gives says only now where it leads.
    place: dict[str, Any] = {
        "channel": settings.name,
        "endpoint": address.endpoint,
        "attempt": attempt,
    }
    observe(events.ConnectionAttempted(**place))
    connection: WebSocketConnection | WebSocketError
    if isinstance(request, WebSocketError):
        connection = request
    else:
        connection = await _connect(
            nursery, settings, request, address.endpoint, deadline, queue_size
        )
    duration = trio.current_time() - began
    if isinstance(connection, WebSocketError):
        loss = loss_from(connection, 0.0)
        observe(
            events.ConnectionFailed(
                **place,
                cause=str(connection),
                duration=duration,
                kind=loss.kind,
                status=loss.status,
            )
        )
        return connection
    return Line(settings, address, connection, place, next(epochs), observe, duration)


async def _ask(
    settings: Settings, address: Address, access: Access, deadline: float
) -> Request | WebSocketError:
    """Ask for what an attempt needs, or return why there is none."""
    with trio.move_on_at(deadline):
        try:
            return await access.ask(address)
        except ProviderError as error:
            _forget_frames(error)
            return error
    return ConnectionTimeout(
        f"what is needed to connect to {address.endpoint} was not given within"
        f" {settings.connection.connect_timeout:g} s"
    )


async def _connect(
    nursery: trio.Nursery,
    settings: Settings,
    request: Request,
    endpoint: str,
    deadline: float,
    queue_size: float,
) -> WebSocketConnection | HandshakeError:
    """Connect, or return why not."""
    options = with_user_timeout(settings.connection, settings.heartbeat)
    with trio.move_on_at(deadline):
        try:
            return await connect_websocket_url(
                nursery,
                request.url,
                settings.ssl_context,
                subprotocols=options.subprotocols,
                extra_headers=request.headers,
                # A server may say much before the hook is done.
                message_queue_size=queue_size,
                max_message_size=options.max_message_size,
                receive_buffer_size=options.receive_buffer_size,
                **opening_options(options),
            )
        except HandshakeError as error:
            _forget_frames(error)
            return error
    return ConnectionTimeout(f"{endpoint} was not connected within {options.connect_timeout:g} s")


async def call_hook(hook: ConnectHook, connection: WebSocketConnection) -> None:
    """Call an ``on_connect`` hook.

    Raises:
        TypeError: It is not asynchronous.
        BaseException: What it raises.
    """
    result: object = hook(connection)
    if not inspect.isawaitable(result):
        raise TypeError("on_connect must be an async function: its call gave nothing to await")
    await result


async def cancel_when_closed(connection: WebSocketConnection, scope: trio.CancelScope) -> None:
    """Cancel ``scope`` once the connection is closed, from whichever side."""
    await connection.wait_closed()
    scope.cancel()


def _forget_frames(error: BaseException | None) -> None:
    """Take the tracebacks from ``error`` and from what caused it.

    More than :func:`forget_locals` does, since the session keeps these errors: an emptied frame
    still holds those that it was called from.
    The frames of an attempt hold the URL and the headers, and tracebacks that show locals (rich's
    and structlog's do) would print them wherever a failure is logged.
    What a user's function has raised keeps its own.
    """
    while error is not None:
        error.__traceback__ = None
        is_users = isinstance(error, ProviderError) and error.__cause__ is not None
        error = None if is_users else error.__cause__ or error.__context__
