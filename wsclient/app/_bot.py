"""A bot: handlers for messages, and everything else taken care of.

Messages are handled in the order in which they come, one after the other.
A handler that raises does not touch the connection: by default the exception is told to the
observers, with what it was handling, and the next message is handled.
What else becomes of it is the user's choice: a dead letter, or the end of the bot.
"""

from __future__ import annotations

import inspect
import signal
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Sequence
from enum import Enum
from typing import Any, Final, TypeVar

import attrs
import trio

from wsclient import events
from wsclient.connection import WebSocketConnection, open_background_nursery
from wsclient.errors import CodecError
from wsclient.events import Observer
from wsclient.options import (
    ConnectionOptions,
    DeliveryOptions,
    HeartbeatOptions,
    Limits,
    RetryPolicy,
)
from wsclient.protocol import encoded_size
from wsclient.session import (
    ConnectHook,
    CredentialsProvider,
    DurableChannel,
    HeadersProvider,
    Journal,
    Observers,
    Receipt,
    SqliteOutbox,
    Url,
    call_hook,
    open_channel,
)

from ._codec import Codec, JsonCodec
from ._routing import Handler, Route, Routes, route

H = TypeVar("H", bound=Handler)
C = TypeVar("C", bound=ConnectHook)

# As the log calls the event.
_UNDECODED: Final = "message undecoded"


@attrs.frozen
class Context:
    """What a handler may want to know beside its message."""

    bot: Bot
    channel: DurableChannel
    message: str | bytes | None = None
    """The message as it came; ``None`` for a timer."""

    async def send(self, value: Any) -> Receipt:
        """Encode ``value`` and send it; see ``Bot.send``."""
        return await self.bot.send(value)


class HandlerErrors(Enum):
    """What becomes of an exception that a bot's handler or timer raises.

    A message that cannot be decoded, or names no type, is treated the same way.
    """

    LOG = "log"
    """The observers are told (``HandlerFailed``, ``MessageUndecoded``), and the bot goes on."""
    RAISE = "raise"
    """It ends the bot: the channel is closed at once, and ``serve()`` or ``run()`` raises it.

    Whoever catches it there can tell, so the observers are not told as well.
    """


@attrs.frozen(kw_only=True)
class FailedMessage:
    """A message with which a bot's handler failed; or a timer that did."""

    message: str | bytes | None
    """As it came; ``None`` for a timer."""
    handler: str | None
    """The handler's qualified name; ``None`` if the message could not be decoded."""
    subject: str
    """What the handler was called for: a message's type, or a timer (``"every 60 s"``).

    ``"message undecoded"`` if the message could not be decoded, or names no type.
    """
    error: Exception


class Bot:
    """Handlers for the messages of one channel.

    Args:
        url: As for ``open_channel``, and so are all that have the same names.
        key: The field that names a message's type.
        codec: What messages look like; JSON if not given.
        handler_errors: What becomes of what a handler or a timer raises: a
            :class:`HandlerErrors`, or a function, the dead letter.
            The function gets a :class:`FailedMessage` for each handler that failed, after the
            observers were told, and may be asynchronous; the next message waits for it, a timer's
            failure does not.
            What it raises itself is told as ``HandlerFailed``, and goes no further.
        name: As for ``open_channel``, and all that follow.
        ssl_context: …
        headers: …
        credentials: …
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

    Raises:
        TypeError, ValueError: An argument cannot be used.
    """

    def __init__(
        self,
        url: Url | Sequence[Url],
        *,
        key: str = "type",
        codec: Codec | None = None,
        handler_errors: HandlerErrors | Callable[[FailedMessage], object] = HandlerErrors.LOG,
        name: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        headers: HeadersProvider | None = None,
        credentials: CredentialsProvider | None = None,
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
    ) -> None:
        if not isinstance(key, str):
            raise TypeError(f"key must be str, not {type(key).__name__}")
        self._url = url
        self._key = key
        self._codec: Codec = JsonCodec() if codec is None else codec
        _check_codec(self._codec)
        self._is_raising = handler_errors is HandlerErrors.RAISE
        self._dead_letter = (
            None if isinstance(handler_errors, HandlerErrors) else _dead_letter(handler_errors)
        )
        self._observe = Observers(observers)
        self._channel_options: dict[str, Any] = {
            "name": name,
            "ssl_context": ssl_context,
            "headers": headers,
            "credentials": credentials,
            "connection": connection,
            "heartbeat": heartbeat,
            "retry": retry,
            "limits": limits,
            "delivery": delivery,
            "outbox": outbox,
            "journal": journal,
            "startup_timeout": startup_timeout,
            "dedupe": dedupe,
            "rotate_every": rotate_every,
            "redundancy": redundancy,
        }
        # Only to be told now, and not when it serves, what cannot be used.
        open_channel(url, observers=(), **self._channel_options)
        self._routes = Routes()
        self._connect_hooks: list[ConnectHook] = []
        self._timers: list[tuple[float, Route]] = []
        self._channel: DurableChannel | None = None
        self._receiving: trio.CancelScope | None = None
        self._is_stopping = False
        self._timers_at_work = 0
        self._timer_done = trio.lowlevel.ParkingLot()
        self.unhandled: int = 0
        """Messages for whose type there is no handler."""

    @property
    def channel(self) -> DurableChannel:
        """The channel, while the bot serves.

        Raises:
            RuntimeError: It does not.
        """
        if self._channel is None:
            raise RuntimeError("the bot is not serving: it has no channel")
        return self._channel

    # Registering.

    def on(self, kind: str) -> Callable[[H], H]:
        """Register a handler for messages of type ``kind``: ``@bot.on("trade")``.

        The handler gets the decoded message; if it has a parameter called ``context``, a
        :class:`Context`, too.
        It may be asynchronous or not.
        Several handlers of one type are called in the order of their registration.

        Raises:
            TypeError: ``kind`` is not ``str``, or the handler cannot be called so.
        """
        if not isinstance(kind, str):
            raise TypeError(
                f"bot.on needs a message's type, as in @bot.on('trade'), not {type(kind).__name__}"
            )

        def register(handler: H) -> H:
            self._routes.add(kind, handler)
            return handler

        return register

    def on_connect(self, hook: C) -> C:
        """Register a hook that gets the raw connection of every new connection, first of all.

        Authenticate and subscribe here.
        Several hooks run in the order of their registration.
        """
        if not callable(hook):
            raise TypeError(f"a hook must be callable, not {type(hook).__name__}")
        self._connect_hooks.append(hook)
        return hook

    def every(self, seconds: float) -> Callable[[H], H]:
        """Call a function every so many seconds while the bot serves: ``@bot.every(60)``.

        The first call comes after the first interval; a call that takes longer than an interval
        delays the next.

        Raises:
            TypeError: ``seconds`` is not a number, or the function needs arguments.
            ValueError: ``seconds`` is not above 0.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(
                f"bot.every needs seconds, as in @bot.every(60), not {type(seconds).__name__}"
            )
        if not seconds > 0:
            raise ValueError(f"bot.every needs seconds above 0, not {seconds!r}")

        def register(handler: H) -> H:
            self._timers.append((seconds, route(handler, takes=0)))
            return handler

        return register

    # Serving.

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; for programs that do nothing else.

        The first signal lets the handler at work finish and what was sent be written; the second
        ends the bot at once.

        Raises:
            ChannelFailed: The channel has given up.
            KeyboardInterrupt: A second signal came.
            Exception: What a handler raised, with ``HandlerErrors.RAISE``.
        """
        trio.run(self._serve_until_signal)

    async def serve(
        self, *, task_status: trio.TaskStatus[DurableChannel] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Connect, and handle messages until :meth:`stop`.

        ``channel = await nursery.start(bot.serve)`` waits until the bot has its channel.

        Raises:
            ChannelFailed: The channel has given up.
            Exception: What a handler raised, with ``HandlerErrors.RAISE``.
            RuntimeError: The bot serves already.
        """
        if self._channel is not None:
            raise RuntimeError("the bot is serving already")
        async with open_channel(
            self._url,
            on_connect=self._establish if self._connect_hooks else None,
            observers=(self._observe,),
            **self._channel_options,
        ) as channel:
            self._channel = channel
            try:
                async with open_background_nursery() as nursery:
                    for seconds, timer in self._timers:
                        nursery.start_soon(self._keep_time, seconds, timer)
                    task_status.started(channel)
                    await self._handle_messages(channel)
                    self._is_stopping = True
                    while self._timers_at_work:
                        await self._timer_done.park()
            finally:
                self._channel = None
                self._is_stopping = False

    def stop(self) -> None:
        """Let the handlers at work finish, what was sent be written, and :meth:`serve` return."""
        self._is_stopping = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def send(self, value: Any) -> Receipt:
        """Encode ``value`` and let the channel accept it.

        Raises:
            CodecError: It cannot be encoded.
            RuntimeError: The bot does not serve.
            trio.ClosedResourceError, ChannelFailed: As ``DurableChannel.send``.
        """
        return await self.channel.send(self._codec.encode(value))

    async def _serve_until_signal(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            await self.serve()  # Signals go to the main thread only.
            return
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                await self.serve()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            if self._is_stopping:
                raise KeyboardInterrupt
            self.stop()

    async def _establish(self, connection: WebSocketConnection) -> None:
        for hook in self._connect_hooks:
            await call_hook(hook, connection)

    async def _handle_messages(self, channel: DurableChannel) -> None:
        while not self._is_stopping:
            message: str | bytes | None = None
            # Only the waiting is cut short by stop(): a handler finishes what it has begun.
            with trio.CancelScope() as self._receiving:
                try:
                    message = await channel.receive()
                except trio.EndOfChannel:
                    return
            if message is not None:
                await self._handle(channel, message)

    async def _handle(self, channel: DurableChannel, message: str | bytes) -> None:
        context = Context(self, channel, message)
        try:
            value = self._codec.decode(message)
            kind = self._kind_of(value)
        except Exception as error:  # A codec of the user's may raise anything.
            if self._is_raising:
                raise
            self._observe(
                events.MessageUndecoded(
                    channel=channel.name, size=encoded_size(message), error=error
                )
            )
            await self._bury(context, handler=None, subject=_UNDECODED, error=error)
            return
        routes = self._routes.find(kind)
        self.unhandled += not routes
        for handler in routes:
            await self._call(handler, value, subject=kind, context=context)

    def _kind_of(self, value: Any) -> str:
        kind = value.get(self._key) if isinstance(value, dict) else None
        if not isinstance(kind, str):
            raise CodecError(f"the message has no field {self._key!r} that names its type")
        return kind

    async def _keep_time(self, seconds: float, timer: Route) -> None:
        context = Context(self, self.channel)
        due = trio.current_time()
        while True:
            due = max(due + seconds, trio.current_time())
            await trio.sleep_until(due)
            if self._is_stopping:
                return
            self._timers_at_work += 1
            try:
                await self._call(timer, subject=f"every {seconds:g} s", context=context)
            finally:
                self._timers_at_work -= 1
                self._timer_done.unpark_all()

    async def _call(self, handler: Route, *args: Any, subject: str, context: Context) -> None:
        try:
            await handler(*args, context=context)
        except Exception as error:  # A user's handler may raise anything.
            if self._is_raising:
                raise
            self._tell_failed(context, handler.name, subject, error)
            await self._bury(context, handler=handler.name, subject=subject, error=error)

    async def _bury(
        self, context: Context, *, handler: str | None, subject: str, error: Exception
    ) -> None:
        if self._dead_letter is None:
            return
        failed = FailedMessage(
            message=context.message, handler=handler, subject=subject, error=error
        )
        try:
            await self._dead_letter(failed, context=context)
        except Exception as another:  # The last resort has none of its own; the bot goes on.
            self._tell_failed(context, self._dead_letter.name, subject, another)

    def _tell_failed(self, context: Context, handler: str, subject: str, error: Exception) -> None:
        self._observe(
            events.HandlerFailed(
                channel=context.channel.name, handler=handler, subject=subject, error=error
            )
        )


def _check_codec(codec: object) -> None:
    methods = (getattr(codec, "encode", None), getattr(codec, "decode", None))
    if isinstance(codec, type) or not all(callable(method) for method in methods):
        raise TypeError("codec must be an object with encode() and decode(), such as JsonCodec()")


def _dead_letter(function: object) -> Route:
    right = "HandlerErrors.LOG, HandlerErrors.RAISE, or a function of one FailedMessage"
    # The enumeration itself can be called, and what it was meant to say cannot be guessed.
    if not callable(function) or function is HandlerErrors:
        given = "the whole enumeration" if callable(function) else type(function).__name__
        raise TypeError(f"handler_errors must be {right}, not {given}")
    letter = Route(function, wants_context=False)
    try:
        inspect.signature(function).bind(None)
    except ValueError:  # Some of the builtin functions do not tell.
        return letter
    except TypeError as error:
        raise TypeError(f"handler_errors must be {right}: {letter.name}: {error}") from None
    return letter
