"""A bot: handlers for messages, and everything else taken care of.

Messages are handled in the order in which they come, one after the other, unless a handler says
otherwise.
A handler that raises does not touch the connection: by default the exception is told to the
observers, with what it was handling, and the next message is handled.
What else becomes of it is the user's choice: a dead letter, or the end of the bot.

*What a message costs.*  The loop is that of ``async for message in channel``: a message is taken
when it is handled, and not before, so that whatever ends the loop leaves the others where they are.
Who is to be called is worked out when something is registered (``_plan.py``), and a handler that
asks for nothing but its message is called straight, without a coroutine, a context or a scope.
"""

from __future__ import annotations

import signal
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

import trio

from wsclient import events
from wsclient._discretion import forget_locals, forgetful
from wsclient.connection import WebSocketConnection, failure_in, open_background_nursery
from wsclient.errors import ChannelFailed, CodecError, SubscriptionFailed
from wsclient.events import (
    ChannelState,
    ConnectionLeft,
    ConnectionLost,
    Delivery,
    Event,
    Gap,
    Observer,
    Overflow,
)
from wsclient.options import (
    ConnectionOptions,
    DeliveryOptions,
    HeartbeatOptions,
    Limits,
    RetryPolicy,
    SubscriptionOptions,
)
from wsclient.protocol import encoded_size
from wsclient.session import (
    CredentialsProvider,
    DurableChannel,
    Feed,
    HeadersProvider,
    Journal,
    Observers,
    Protocol,
    Receipt,
    SqliteOutbox,
    Url,
    call_hook,
    follow,
    open_channel,
)

from ._annotation import name_of as type_name
from ._codec import Codec, JsonCodec
from ._context import Context
from ._failures import FailedMessage, HandlerErrors, dead_letter
from ._kinds import kinds_of
from ._lanes import Lanes
from ._plan import Call, Decode, Plan
from ._router import H, Registered, Registration, Role, Router
from ._routing import FOR_OTHERS, message_annotation, name_of, route
from ._runner import is_left
from ._typed import converter_for, decoder_for, kind_peeker
from ._work import Work

T = TypeVar("T")

Item: TypeAlias = str | bytes | Gap | Overflow

# As the log calls the event.
_UNDECODED: Final = "message undecoded"

_DEPARTURES: Final = 64
"""Connections that are no more and were not told yet; it takes a hook that hangs to need more."""


class Bot(Router):
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
        protocol: … It is the codec, too, if there is none.
        subscriptions: …

    Raises:
        TypeError, ValueError: An argument cannot be used.
    """

    _is_root: ClassVar[bool] = True

    @forgetful
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
        protocol: Protocol | None = None,
        subscriptions: SubscriptionOptions | None = None,
    ) -> None:
        if not isinstance(key, str):
            raise TypeError(f"key must be str, not {type(key).__name__}")
        self._url = url
        self._key = key
        self._codec: Codec = codec or protocol or JsonCodec()
        _check_codec(self._codec)
        self._is_raising = handler_errors is HandlerErrors.RAISE
        self._dead_letter = (
            None if isinstance(handler_errors, HandlerErrors) else dead_letter(handler_errors)
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
            "protocol": protocol,
            "subscriptions": subscriptions,
        }
        # Only to be told now, and not when it serves, what cannot be used.
        open_channel(url, observers=(), **self._channel_options)
        super().__init__()
        self._peek = kind_peeker(self._codec, key=key)
        self._work = Work()
        self._lanes: dict[Registration, Lanes] = {}
        self._plan = self._planned(())
        self._channel: DurableChannel | None = None
        self._receiving: set[trio.CancelScope] = set()
        self._is_serving = False
        self._is_stopping = False
        self._departures: deque[ConnectionLost | ConnectionLeft] = deque(maxlen=_DEPARTURES)
        self._departed = trio.lowlevel.ParkingLot()
        self.unhandled: int = 0
        """Messages for which there was no handler, and no default one."""
        self.failed: int = 0
        """Calls of handlers, timers and hooks that raised, and messages that could not be decoded:
        as often as the observers were told so."""

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

    def on_unhandled(self, handler: H) -> H:
        """Register a handler for messages that no :meth:`on` is for.

        It is called as those are; where there is none, such messages are counted
        (:attr:`unhandled`).

        Raises:
            TypeError: As :meth:`on`.
        """
        self._add(
            Registration(
                role=Role.UNHANDLED,
                route=route(handler, takes=1),
                annotation=message_annotation(handler),
            )
        )
        return handler

    def on_error(self, hook: H) -> H:
        """Register who is told what failed: a dead letter, as ``handler_errors`` may be one.

        It gets a :class:`FailedMessage` for each handler, timer or hook that failed, and each
        message that could not be decoded; and ``context`` or ``channel``, if it has a parameter of
        that name.
        It may be asynchronous or not; the next message waits for it.
        It is not called with ``HandlerErrors.RAISE``, and what it raises itself is told as
        ``HandlerFailed``, and goes no further.

        Raises:
            TypeError: The hook cannot be called so.
        """
        how = route(hook, takes=1, may_ask=FOR_OTHERS, what="a hook")
        self._add(Registration(role=Role.ERROR, route=how))
        return hook

    def _check(self, registration: Registration) -> None:
        if registration.wanted is not None and self._channel_options["protocol"] is None:
            raise TypeError(
                f"{registration.route.name}: a bot that subscribes needs to know how the service"
                " spells it: Bot(…, protocol=…)"
            )
        self._planned([Registered(registration, "", ())])

    def _changed(self) -> None:
        self._plan = self._planned(self._walk())

    def _planned(self, registered: Iterable[Registered]) -> Plan:
        return Plan(
            registered,
            decoder=self._decoder_for,
            kinds=self._kinds_of,
            converter=lambda annotation: converter_for(annotation, key=self._key),
            key=self._key,
            lanes=self._lanes_of,
        )

    def _decoder_for(self, annotation: Any) -> Decode:
        return decoder_for(annotation, self._codec, key=self._key)

    def _kinds_of(self, named_by: Any) -> frozenset[str]:
        kinds = kinds_of(named_by, key=self._key)
        if kinds is None:
            raise TypeError(
                f"{type_name(named_by)} does not say in its field {self._key!r} which messages it"
                " is for: give it a tag, or annotate that field with Literal['…']"
            )
        return frozenset(kinds)

    def _lanes_of(self, registration: Registration) -> Lanes:
        lanes = self._lanes.get(registration)
        if lanes is None:
            lanes = self._lanes[registration] = Lanes(registration.concurrency, self._work)
        return lanes

    # Serving.

    @forgetful
    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; for programs that do nothing else.

        The first signal is a :meth:`stop`: handlers at work finish, and what was sent is written.
        The second ends the bot at once.

        A program that ends with it has the exit code 0 after one signal, 1 (and a traceback) if it
        raised, and what the system makes of Ctrl-C after a second signal: 130 in a shell.

        In a program that ``wsclient run`` imports this does nothing: the command runs the bot.

        Raises:
            ChannelFailed: The channel has given up.
            KeyboardInterrupt: A second signal came.
            Exception: What a handler raised, with ``HandlerErrors.RAISE``.
        """
        if is_left(self):
            return
        trio.run(self._serve_until_signal)

    @forgetful
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
        if self._is_serving:
            raise RuntimeError("the bot is serving already")
        self._is_serving = True
        try:
            await self._serve(task_status)
        finally:
            # Not before what was sent is written: who stops us meanwhile does so once more.
            self._is_serving = False
            self._is_stopping = False
            self._departures.clear()

    def stop(self) -> None:
        """Let handlers at work finish, what was sent be written, and :meth:`serve` return.

        A handler is at work once it was called, and so is the message that waits for room in a
        concurrent handler, or for an earlier one of its key: whatever was taken from the channel is
        handled.
        What was received and not taken is not: it goes the way of messages that the server sends
        to a client that has just left.
        """
        self._is_stopping = True
        for scope in self._receiving:
            scope.cancel()

    async def send(
        self,
        value: Any,
        *,
        delivery: Delivery = Delivery.QUEUED,
        ttl: float | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Encode ``value`` and let the channel accept it.

        Args:
            value: What the codec takes.
            delivery: What is promised for it; as for :meth:`DurableChannel.send`, and so are the
                others.
            ttl: Seconds within which it must be written.
            key: What it has in common with older messages that it replaces.

        Raises:
            CodecError: It cannot be encoded.
            RuntimeError: The bot does not serve.
            trio.ClosedResourceError, ChannelFailed: As :meth:`DurableChannel.send`, and its others.
        """
        try:
            message = self._codec.encode(value)
        except BaseException as error:
            forget_locals(error)
            raise
        return await self.channel.send(message, delivery=delivery, ttl=ttl, key=key)

    async def _serve(self, task_status: trio.TaskStatus[DurableChannel]) -> None:
        plan = self._plan
        async with open_channel(
            self._url,
            on_connect=self._establish if plan.connect else None,
            observers=(self._notice,),
            **self._channel_options,
        ) as channel:
            self._channel = channel
            try:
                async with open_background_nursery() as nursery:
                    for timer in plan.timers:
                        nursery.start_soon(self._keep_time, timer)
                    for subscription in plan.subscriptions:
                        # One after the other, so that they are asked for in this order.
                        await nursery.start(self._keep_subscription, subscription)
                    for task in plan.connected:
                        nursery.start_soon(self._keep_connected, task)
                    nursery.start_soon(self._tell_departures)
                    task_status.started(channel)
                    await self._handle_messages(channel, nursery)
                    self._is_stopping = True
                    await self._work.wait_done()
            finally:
                self._channel = None

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

    # What is not a message.

    async def _establish(self, connection: WebSocketConnection) -> None:
        for hook in self._plan.connect:
            await call_hook(hook.route.handler, connection)

    def _notice(self, event: Event) -> None:
        self._observe(event)
        if isinstance(event, ConnectionLeft) or (isinstance(event, ConnectionLost) and event.ready):
            self._departures.append(event)
            self._departed.unpark_all()

    async def _tell_departures(self) -> None:
        while True:
            while self._departures and not self._is_stopping:
                event = self._departures.popleft()
                self._work.begin()
                try:
                    for hook in self._plan.disconnect:
                        await self._call(hook, event, subject="disconnect")
                finally:
                    self._work.end()
            await self._departed.park()

    async def _keep_time(self, timer: Call) -> None:
        subject = f"every {timer.seconds:g} s"
        due = trio.current_time()
        while True:
            due = max(due + timer.seconds, trio.current_time())
            await trio.sleep_until(due)
            if self._is_stopping:
                return
            self._work.begin()
            try:
                await self._call(timer, subject=subject)
            finally:
                self._work.end()

    async def _keep_connected(self, task: Call) -> None:
        channel = self.channel
        last: WebSocketConnection | None = None

        async def live(connection: WebSocketConnection) -> None:
            nonlocal last
            if connection is last:
                return  # It has raised on this one.
            last = connection
            context = Context(self, channel, None, connection, Role.CONNECTED.value, task.name)
            await task.route(connection, context=context)

        while True:
            try:
                await channel.while_connected(live)
                return
            except BaseException as raised:  # A user's task may raise anything.
                error = failure_in(raised)
                if error is None:
                    raise
                if channel.state is ChannelState.FAILED and isinstance(error, ChannelFailed):
                    return  # What the channel says in the end, it says to who receives.
                # Out here: in there, all that waits is cancelled as the connection ends.
                await self._failed(task.name, error, subject=Role.CONNECTED.value)

    async def _keep_subscription(
        self, call: Call, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        assert call.wanted is not None
        subject = f"subscription {call.wanted.key!r}"
        # What the channel says in the end, it says to who receives.
        with suppress(ChannelFailed):
            try:
                async with call.wanted.feed(self.channel) as feed:
                    task_status.started()
                    await self._handle_values(call, feed, subject)
            except SubscriptionFailed as error:
                await self._failed(call.name, error, subject=subject)

    async def _handle_values(self, call: Call, feed: Feed, subject: str) -> None:
        items = feed.items()
        while True:
            try:
                item = await self._receive(items.__anext__)
            except StopAsyncIteration:
                return
            self._work.begin()
            try:
                if isinstance(item, (Gap, Overflow)):
                    await self._between(item)
                else:
                    await self._handle_value(call, item, subject)
            finally:
                self._work.end()

    async def _handle_value(self, call: Call, item: Any, subject: str) -> None:
        value = item
        if call.decode is not None:
            try:
                value = call.decode(item)
            except Exception as error:  # A user's type may raise anything.
                await self._failed(call.name, error, subject=subject, value=item)
                return
        await self._call(call, value, subject=subject)

    async def _between(self, mark: Gap | Overflow) -> None:
        if isinstance(mark, Gap):
            for hook in self._plan.gaps:
                await self._call(hook, mark, subject="gap")

    # Messages.

    async def _receive(self, receive: Callable[[], Awaitable[T]]) -> T:
        # Only the waiting is cut short by stop(): a handler finishes what it has begun.
        if not self._is_stopping:
            with trio.CancelScope() as scope:
                self._receiving.add(scope)
                try:
                    return await receive()
                finally:
                    self._receiving.discard(scope)
        raise StopAsyncIteration

    async def _handle_messages(self, channel: DurableChannel, nursery: trio.Nursery) -> None:
        async for message in follow(channel, self._receive, self._between):
            plan = self._plan
            is_taken = False
            for call in plan.every_message:
                if type(message) not in call.takes:
                    continue
                is_taken = True
                if call.straight is None:
                    await self._hand(call, message, message, "message", nursery)
                    continue
                value: Any = message
                if call.decode is not None:
                    try:
                        value = call.decode(message)
                    except Exception as error:  # A codec of the user's may raise anything.
                        await self._undecoded(call.name, error, message)
                        continue
                try:
                    result = call.straight(value)
                    if result is not None and isawaitable(result):
                        await result
                except Exception as error:  # A user's handler may raise anything.
                    await self._failed(call.name, error, message=message, subject="message")
            if plan.straight_decode is not None:
                try:
                    value = plan.straight_decode(message)
                except Exception:
                    # It is for nobody, or not what it should be: that is told there.
                    await self._sort(plan, message, nursery)
                else:
                    kind, calls = plan.by_struct[type(value)]
                    for call in calls:
                        if call.straight is None:
                            await self._give(call, value, message, kind, nursery)
                            continue
                        try:
                            result = call.straight(value)
                            if result is not None and isawaitable(result):
                                await result
                        except Exception as error:  # A user's handler may raise anything.
                            await self._failed(call.name, error, message=message, subject=kind)
            elif plan.is_sorting:
                await self._sort(plan, message, nursery)
            elif not is_taken:
                self.unhandled += 1
            if self._is_stopping:
                return

    async def _sort(self, plan: Plan, message: str | bytes, nursery: trio.Nursery) -> None:
        """Call those whom a message is for."""
        found = None
        kind: Any = None
        value: Any = None
        if plan.is_typed and self._peek is not None:
            try:
                kind = self._peek(message).kind
            except Exception:  # A codec of the user's may raise anything.
                pass  # It is for it to say what is wrong with the whole message.
            else:
                found = plan.find(kind) if type(kind) is str else None
        if found is None or not found.is_typed:
            try:
                value = self._codec.decode(message)
                kind = value.get(self._key) if isinstance(value, dict) else None
                found = plan.find(kind) if isinstance(kind, str) else plan.others
            except Exception as error:  # A codec of the user's may raise anything.
                await self._undecoded(None, error, message)
                return
        is_handled = False
        for call in found.calls:
            if call.match.predicate is not None:
                try:
                    if not call.match.predicate(value):
                        continue
                except Exception as error:  # A user's function may raise anything.
                    name = name_of(call.match.predicate)
                    await self._failed(name, error, message=message, subject=_said(kind))
                    continue
            is_handled = True
            await self._hand(call, value, message, _said(kind), nursery)
        if is_handled:
            return
        if not isinstance(kind, str):
            text = f"the message has no field {self._key!r} that names its type"
            await self._undecoded(None, CodecError(text), message)
        elif plan.unhandled:
            for call in plan.unhandled:
                await self._hand(call, value, message, kind, nursery)
        else:
            self.unhandled += 1

    async def _hand(
        self, call: Call, value: Any, message: str | bytes, subject: str, nursery: trio.Nursery
    ) -> None:
        """Let one handler have a message, in the form that it wants."""
        if call.decode is not None:
            try:
                value = call.decode(message)
            except Exception as error:  # A codec of the user's may raise anything.
                await self._undecoded(call.name, error, message)
                return
        elif call.plain and not isinstance(value, call.plain):
            text = f"{call.name} does not take what is {type(value).__name__}"
            await self._undecoded(call.name, CodecError(text, "$"), message)
            return
        await self._give(call, value, message, subject, nursery)

    async def _give(
        self, call: Call, value: Any, message: str | bytes, subject: str, nursery: trio.Nursery
    ) -> None:
        """Call one handler: at once, or as soon as it has room."""
        if call.lanes is None:
            await self._call(call, value, message=message, subject=subject)
            return
        key: Hashable = None
        try:
            # Without an order, each is alone in its lane.
            key = object() if call.ordered_by is None else call.ordered_by(value)
            hash(key)
        except Exception as error:  # A user's function may raise anything.
            await self._failed(call.name, error, message=message, subject=subject)
            return
        job = partial(self._call, call, value, message=message, subject=subject)
        await call.lanes.put(key, job, nursery)

    async def _call(
        self, call: Call, *args: Any, subject: str, message: str | bytes | None = None
    ) -> None:
        try:
            if call.straight is not None:
                result = call.straight(*args)
            else:
                value = args[0] if args else None
                context = Context(self, self.channel, message, value, subject, call.name)
                if call.around is not None:
                    await call.around(args, context)
                    return
                result = call.route.start(args, context)
            if result is not None and isawaitable(result):
                await result
        except Exception as error:  # A user's handler may raise anything.
            value = args[0] if call.wanted is not None else None
            await self._failed(call.name, error, message=message, subject=subject, value=value)

    # What goes wrong.

    async def _failed(
        self,
        handler: str,
        error: Exception,
        *,
        subject: str,
        message: str | bytes | None = None,
        value: Any = None,
    ) -> None:
        """Do with an exception, which is being handled, what the user has chosen."""
        if self._is_raising:
            raise error
        self._tell_failed(handler, subject, error)
        await self._bury(
            FailedMessage(
                message=message,
                handler=handler,
                subject=subject,
                error=error,
                value=value,
                path=getattr(error, "path", None),
            )
        )

    async def _undecoded(self, handler: str | None, error: Exception, message: str | bytes) -> None:
        """Likewise, with a message that could not be decoded."""
        if self._is_raising:
            raise error
        self.failed += 1
        self._observe(
            events.MessageUndecoded(
                channel=self.channel.name, size=encoded_size(message), error=error
            )
        )
        await self._bury(
            FailedMessage(
                message=message,
                handler=handler,
                subject=_UNDECODED,
                error=error,
                path=getattr(error, "path", None),
            )
        )

    async def _bury(self, failed: FailedMessage) -> None:
        letters = [call.route for call in self._plan.errors]
        if self._dead_letter is not None:
            letters.insert(0, self._dead_letter)
        for letter in letters:
            context = Context(
                self, self.channel, failed.message, failed, failed.subject, letter.name
            )
            try:
                await letter(failed, context=context)
            except Exception as error:  # The last resort has none of its own; the bot goes on.
                self._tell_failed(letter.name, failed.subject, error)

    def _tell_failed(self, handler: str, subject: str, error: Exception) -> None:
        self.failed += 1
        self._observe(
            events.HandlerFailed(
                channel=self.channel.name, handler=handler, subject=subject, error=error
            )
        )


def _said(kind: object) -> str:
    return kind if isinstance(kind, str) else "message"


def _check_codec(codec: object) -> None:
    methods = (getattr(codec, "encode", None), getattr(codec, "decode", None))
    if isinstance(codec, type) or not all(callable(method) for method in methods):
        raise TypeError("codec must be an object with encode() and decode(), such as JsonCodec()")
