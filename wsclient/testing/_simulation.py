"""One run of a schedule on virtual time, and what was seen of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

import wsclient
from wsclient import errors, events
from wsclient.events import Gap, Outcome, Overflow, Truth
from wsclient.options import HeartbeatOptions, Limits, OverflowPolicy

from ._connection import ServerConnection
from ._determinism import run_deterministic
from ._invariants import (
    Breach,
    Budget,
    Departure,
    History,
    SentMessage,
    ServerSide,
    Subscribed,
    check,
)
from ._network import memory_network
from ._proxy import CLEAR, Conditions, FaultProxy
from ._schedule import (
    CALM,
    FLOOD,
    Act,
    Leave,
    Overlap,
    Promises,
    Schedule,
    Send,
    Strike,
    make_schedule,
)
from ._server import FaultServer
from ._visits import Visit

WAKE: Final = 1.0
"""Seconds within which every call on a channel must have returned after its end."""

DRAIN: Final = 5.0
"""Seconds that a channel is given to drain."""

HORIZON: Final = 1000.0
"""Seconds after which nothing will come any more."""

RESTLESS: Final = 1_000_000
"""Turns of the scheduler after which a run is called a livelock: a hundred times as many as the
longest schedules take."""

PONG_BOUND: Final = 1000
"""Pongs of 131 bytes: 64 KiB in the writer's buffer and as much in that of the stream."""

CONFIRMED: Final = '{"topic": '
"""How the server's confirmation of a subscription begins."""

_CORRELATION: Final = wsclient.JsonCorrelation(id_field="ask", reply_field="reply")

FLAPPING: Final = Budget(attempts=11, seconds=60)
"""What the default delays allow at most, all drawn at their shortest: 0, 0.5, 0.75, 1.25 …"""


@attrs.frozen(kw_only=True)
class Run:
    """What came of a schedule."""

    seed: int
    schedule: Schedule
    history: History
    breaches: tuple[Breach, ...]
    trace: str
    """What happened, line by line; the same each time."""


class _Trouble(Exception):
    """What ends a block."""


@attrs.define(eq=False)
class _Tracked:
    """A message that the user has tried to send."""

    send: Send
    receipt: wsclient.Receipt | None = None
    accepted_at: float = 0.0
    outcomes: list[Outcome] = attrs.field(factory=list)
    truth: Truth = Truth.CERTAINLY_NOT
    """While there is no receipt."""

    def tell(self, outcome: Outcome | None) -> bool:
        """Note what the receipt says now; whether that is new."""
        if outcome is None or (self.outcomes and self.outcomes[-1] is outcome):
            return False
        self.outcomes.append(outcome)
        return True


def simulate(seed: int, messages: int = 50) -> Run:
    """Draw a schedule from a seed, run it, and judge what was seen.

    Args:
        seed: The same seed gives the same schedule, and the same trace, byte for byte.
        messages: How many messages each side sends, at most.
    """
    schedule = make_schedule(seed, messages)
    simulation = _Simulation(schedule)
    breaches: list[Breach] = []
    try:
        run_deterministic(seed, simulation.run, instruments=[simulation.watch])
    except Exception as error:
        breaches += [Breach("crash", text) for text in _texts(error)]
    history = simulation.history()
    breaches += [Breach("surprise", text) for text in simulation.surprises]
    breaches += check(history)
    lines = [f"schedule {seed}:", *schedule.lines(), *simulation.trace]
    lines += [f"BROKEN {breach}" for breach in breaches]
    return Run(
        seed=seed,
        schedule=schedule,
        history=history,
        breaches=tuple(breaches),
        trace="\n".join(lines) + "\n",
    )


def _texts(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [text for each in error.exceptions for text in _texts(each)]
    return [f"{type(error).__name__}: {error}"]


class _Restless(trio.abc.Instrument):
    """Ends a run in which time does not go on."""

    def __init__(self) -> None:
        self.turns = 0
        self.scope = trio.CancelScope()

    def before_io_wait(self, timeout: float) -> None:
        self.turns += 1
        if self.turns > RESTLESS:
            self.scope.cancel()


class _Simulation:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.sends = {send.key: send for send in schedule.sends}
        self.watch = _Restless()
        self.trace: list[str] = []
        self.tracked: list[_Tracked] = []
        self.received: list[Hashable] = []
        self.said: dict[int, list[Hashable]] = {}
        self.texts: dict[str, str] = {}
        """What the server said, whole, by its key."""
        self.due = 0
        """How much of a stream the server has said, to whoever hears it."""
        self.grown = trio.lowlevel.ParkingLot()
        self.topics: dict[int, set[str]] = {}
        self.flooded: dict[int, int] = {}
        """How many pongs had come on a connection before the flood."""
        self.departures: list[Departure] = []
        self.left: list[str] = []
        self.surprises: list[str] = []
        """What calls have raised that they do not say they raise."""
        self.attempts: list[float] = []
        self.subscribed: list[Subscribed] = []
        self.ready_on = 0
        self.counted: dict[Outcome, int] | None = None
        self.accepted = 0
        self.waiting: dict[object, str] = {}
        """What the user's tasks wait for in calls on the channel."""
        self.visits: list[Visit] = []
        self.settled = trio.lowlevel.ParkingLot()

    def tell(self, who: str, what: str) -> None:
        self.trace.append(f"{trio.current_time():11.6f}  {who:7} {what}")

    # What happens.

    async def run(self) -> None:
        with memory_network(buffer_size=self.schedule.buffer_size) as network:
            before = trio.lowlevel.current_statistics().tasks_living
            with trio.move_on_after(HORIZON) as horizon, self.watch.scope:
                async with (
                    FaultServer(
                        self.schedule.faults, handler=self._serve, network=network
                    ) as server,
                    AsyncExitStack() as stack,
                ):
                    self.visits = server.connections
                    proxies = [
                        await stack.enter_async_context(
                            FaultProxy(server.url, path, host=f"path{number}.test", network=network)
                        )
                        for number, path in enumerate(self.schedule.paths)
                    ]
                    await self._use(server, proxies)
            if horizon.cancelled_caught:
                self.left.append(f"after {HORIZON:g} s a task")
            if self.watch.scope.cancelled_caught:
                self.left.append("a task that never rests")
            self.left += self.waiting.values()
            if tasks := trio.lowlevel.current_statistics().tasks_living - before:
                self.left.append(f"{tasks} tasks")
            for visit in self.visits:
                self.tell("server", f"{visit.number} heard {_keys(visit, self.sends)}")

    async def _use(self, server: FaultServer, proxies: Sequence[FaultProxy]) -> None:
        async with trio.open_nursery() as users:
            async with trio.open_nursery() as weather:
                if self.schedule.overlap is not None:
                    weather.start_soon(self._speak)
                await self._hold_channel(server, proxies, users, weather)
                weather.cancel_scope.cancel()
            # Whoever waits in a call must have been told.
            await trio.sleep(WAKE)
            self.left += self.waiting.values()
            self.waiting.clear()
            users.cancel_scope.cancel()
        self._sample()

    async def _hold_channel(
        self,
        server: FaultServer,
        proxies: Sequence[FaultProxy],
        users: trio.Nursery,
        weather: trio.Nursery,
    ) -> None:
        schedule = self.schedule
        channel: wsclient.DurableChannel | None = None
        leaving_at = -1.0
        state = ""
        block = trio.CancelScope()
        try:
            with block:
                async with wsclient.open_channel(
                    [proxy.url for proxy in proxies],
                    on_connect=self._establish if schedule.topics else None,
                    heartbeat=HeartbeatOptions(
                        interval=schedule.heartbeat, timeout=schedule.heartbeat
                    ),
                    limits=Limits(
                        outbox_messages=schedule.outbox,
                        inbox_messages=schedule.inbox,
                        inbox_overflow=schedule.drops,
                        inbox_key=_topic if schedule.drops is OverflowPolicy.CONFLATE else None,
                    ),
                    observers=[self._observe],
                    **_delivery_options(schedule.promises),
                    **_overlap_options(schedule.overlap),
                ) as channel:
                    for sender in {send.sender: None for send in schedule.sends}:
                        users.start_soon(self._send_all, channel, sender, users)
                    users.start_soon(self._receive, channel)
                    weather.start_soon(self._change, server, proxies, channel, users)
                    await self._wait_to_leave()
                    state = f"{channel.state.value}, {schedule.leave.value}"
                    self.tell("user", f"leaves: {schedule.leave.value}")
                    leaving_at = trio.current_time()
                    match schedule.leave:
                        case Leave.DRAIN:
                            await channel.drain(DRAIN)
                        case Leave.CLOSE:
                            await channel.aclose()
                        case Leave.ERROR:
                            raise _Trouble
                        case Leave.CANCEL:
                            block.cancel()
                            await trio.sleep_forever()
        except _Trouble:
            pass
        except errors.ChannelFailed as error:
            self.tell("user", f"gets {type(error).__name__}")
        if leaving_at >= 0:
            drains = schedule.leave in (Leave.END, Leave.DRAIN)
            took = trio.current_time() - leaving_at
            self.tell("user", f"has left after {took:.6f} s")
            self.departures.append(
                Departure(state=state, took=took, drain=DRAIN if drains else 0.0)
            )
        assert channel is not None
        assert channel.state.is_final, "an exit leaves the channel in a final state"
        statistics = channel.statistics()
        self.counted = dict(statistics.outcomes)
        self.accepted = statistics.messages_accepted

    async def _wait_to_leave(self) -> None:
        schedule = self.schedule
        if schedule.leave_at is not None:
            await trio.sleep(schedule.leave_at)
            return
        await trio.sleep(schedule.duration)
        with trio.move_on_after(CALM):
            while self._is_unsettled():
                await self.settled.park()
        for tracked in self.tracked:
            # One that was accepted later may have had to wait for room.
            is_late = tracked.accepted_at > schedule.duration
            if tracked.receipt is not None and tracked.receipt.outcome is None and not is_late:
                self.left.append(f"message {tracked.send.key}, open after {CALM:g} s of calm,")

    def _is_unsettled(self) -> bool:
        return len(self.tracked) < len(self.schedule.sends) or any(
            tracked.receipt is not None and tracked.receipt.outcome is None
            for tracked in self.tracked
        )

    # The weather.

    async def _change(
        self,
        server: FaultServer,
        proxies: Sequence[FaultProxy],
        channel: wsclient.DurableChannel,
        users: trio.Nursery,
    ) -> None:
        for change in self.schedule.changes:
            await trio.sleep_until(change.at)
            what = change.what
            if isinstance(what, Act):
                users.start_soon(self._act, channel, what)
                continue
            self.tell("weather", what.value if isinstance(what, Strike) else repr(what))
            await self._strike(server, proxies[change.path], what)
            self._sample()
        await trio.sleep_until(self.schedule.duration)
        self.tell("weather", "is good from now on")
        for proxy in proxies:
            proxy.change(CLEAR)
        await server.start()

    async def _strike(
        self, server: FaultServer, proxy: FaultProxy, what: Conditions | Strike
    ) -> None:
        match what:
            case Strike.RESET:
                proxy.reset()
            case Strike.HANG_UP:
                proxy.hang_up()
            case Strike.STOP:
                await server.stop()
            case Strike.GOODBYE:
                await server.stop(graceful=True)
            case Strike.START:
                await server.start()
            case Strike.FLOOD:
                await self._flood(server)
            case _:
                proxy.change(what)

    async def _flood(self, server: FaultServer) -> None:
        for connection in server.open_connections:
            self.flooded[connection.number] = len(connection.visit.pongs)
            with suppress(trio.BrokenResourceError):
                for number in range(FLOOD):
                    await connection.ping(b"%0125d" % number)

    # The server.

    async def _speak(self) -> None:
        """Say a stream, as time goes by, to all connections at once."""
        for say in self.schedule.says:
            await trio.sleep(say.pause)
            self.due += 1
            self.grown.unpark_all()

    async def _wait_due(self, index: int) -> None:
        if self.schedule.overlap is None:
            await trio.sleep(self.schedule.says[index].pause)
        while self.schedule.overlap is not None and index >= self.due:
            await self.grown.park()

    async def _serve(self, connection: ServerConnection) -> None:
        number = connection.number
        self.tell("server", f"{number} is open")
        said = self.said[number] = []
        topics = self.topics[number] = set()
        has_all = trio.Event()
        begins_at = 0
        if not self.schedule.topics:
            has_all.set()

        async def feed() -> None:
            await has_all.wait()
            for index in range(begins_at, len(self.schedule.says)):
                await self._wait_due(index)
                say = self.schedule.says[index]
                key = f"{number}.{index}" if self.schedule.overlap is None else f"s.{index}"
                said.append(key)
                text = self.texts[key] = f"{key} " + "x" * say.size
                await connection.send(text.encode() if say.binary else text)
            self.tell("server", f"{number} has said all")
            if self.schedule.hangs_up and trio.current_time() < self.schedule.duration:
                await connection.close()

        async def listen() -> None:
            nonlocal begins_at
            async for message in connection:
                content = json.loads(message)
                if "topic" in content:
                    topics.add(content["topic"])
                    # Whoever has the confirmation hears all that is said from then on.
                    begins_at = self.due
                    confirmation = json.dumps({"topic": content["topic"], "on": number})
                    await connection.send(confirmation)
                    if len(topics) == self.schedule.topics:
                        has_all.set()
                elif content["n"] == self.schedule.poison:
                    self.tell("server", f"{number} cannot bear message {content['n']}")
                    await connection.close(1009)
                elif "ask" in content:
                    nursery.start_soon(play, partial(answer, content["ask"], content["n"]))
                elif "id" in content:
                    nursery.start_soon(play, partial(acknowledge, content["id"], content["n"]))

        async def answer(key: int, message: int) -> None:
            await trio.sleep(self.schedule.ack_delay)
            self.tell("server", f"{number} replies to {message}")
            await connection.send(json.dumps({"reply": key, "to": message}))

        async def acknowledge(key: str, message: int) -> None:
            await trio.sleep(self.schedule.ack_delay)
            self.tell("server", f"{number} acknowledges {message}")
            await connection.send(json.dumps({"ack": key}))

        async def play(part: Callable[[], Awaitable[None]]) -> None:
            # Each for itself: none must be cancelled in a write because another has met the end.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel):
                await part()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, feed)
            nursery.start_soon(play, listen)
        await connection.wait_over()

    # The user.

    async def _establish(self, connection: wsclient.WebSocketConnection) -> None:
        wanted = {f"topic {number}" for number in range(self.schedule.topics)}
        for topic in sorted(wanted):
            await connection.send_message(json.dumps({"topic": topic}))
        confirmed: set[str] = set()
        while confirmed != wanted:
            content = json.loads(await connection.get_message())
            confirmed.add(content["topic"])
            self.ready_on = content["on"]

    def _observe(self, event: events.Event) -> None:
        name = type(event).__name__
        match event:
            case events.StateChanged():
                self.tell("channel", f"is {event.state.value}: {event.cause}")
            case events.ConnectionAttempted():
                self.attempts.append(trio.current_time())
                self.tell("channel", f"attempt {event.attempt}")
            case events.ConnectionReady():
                self.tell("channel", f"epoch {event.epoch} is ready")
                if self.schedule.topics:
                    wanted = {f"topic {number}" for number in range(self.schedule.topics)}
                    there = frozenset(self.topics[self.ready_on])
                    self.subscribed.append(
                        Subscribed(connection=self.ready_on, wanted=frozenset(wanted), there=there)
                    )
            case events.ConnectionLost() | events.RetryScheduled():
                told = f"{event.cause}" if isinstance(event, events.ConnectionLost) else event.rule
                self.tell("channel", f"{name}: {told}")
            case events.GapDetected():
                self.tell("channel", f"gap from {event.gap.after} to {event.gap.before}")
            case _:
                self.tell("channel", name)
        self._sample()

    def _sample(self) -> None:
        """Look at every receipt."""
        for tracked in self.tracked:
            receipt = tracked.receipt
            if receipt is not None and tracked.tell(receipt.outcome):
                assert receipt.outcome is not None
                self.tell("user", f"message {tracked.send.key} is {receipt.outcome.value}")
        self.settled.unpark_all()

    async def _call(self, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call the channel, and note as long as it waits; a cancelled call waits no more."""
        token = object()
        self.waiting[token] = what
        try:
            return await call()
        finally:
            self.waiting.pop(token, None)

    async def _send_all(
        self, channel: wsclient.DurableChannel, sender: int, users: trio.Nursery
    ) -> None:
        for send in self.schedule.sends:
            if send.sender == sender:
                await trio.sleep(send.pause)
                if not await self._send(channel, send, users):
                    return

    async def _send(
        self, channel: wsclient.DurableChannel, send: Send, users: trio.Nursery
    ) -> bool:
        """Send one message; whether the channel takes more."""
        content = {"n": send.key, "pad": "x" * send.size}
        text = json.dumps(content)
        message = text.encode() if send.binary else text
        tracked = _Tracked(send)
        self.tracked.append(tracked)
        name = f"message {send.key}"

        async def ask() -> None:
            assert send.asks is not None
            reply = await channel.request(
                content,
                timeout=send.asks,
                delivery=send.delivery,
                idempotent=send.is_idempotent,
            )
            tracked.truth = Truth.CERTAIN
            self.tell("user", f"{name} is replied to")
            if reply["to"] != send.key:
                self.surprises.append(f"request() of {name} returned the reply to {reply['to']}")

        with trio.CancelScope() as patience:
            if send.patience is not None:
                patience.deadline = trio.current_time() + send.patience
            try:
                if send.asks is not None:
                    await self._call(f"who asks {name}", ask)
                else:
                    tracked.receipt = await self._call(
                        f"the sender of {name}",
                        lambda: channel.send(message, **_send_options(send)),
                    )
            except trio.Cancelled:
                if send.asks is not None or send.delivery is wsclient.Delivery.DIRECT:
                    tracked.truth = Truth.UNKNOWN  # Its first byte may have been written.
                self.tell("user", f"{name}: cancelled")
                raise
            except (trio.ClosedResourceError, errors.ChannelFailed) as error:
                self.tell("user", f"{name}: {type(error).__name__}")
                return False
            except errors.WebSocketError as error:
                is_open = isinstance(error, errors.InboxFull)
                unless_told = Truth.UNKNOWN if is_open else Truth.CERTAINLY_NOT
                tracked.truth = getattr(error, "truth", unless_told)
                self.tell("user", f"{name}: {type(error).__name__}")
                return True
            except Exception as error:
                self.surprises.append(f"send() of {name}, {send.delivery.name}, raised {error!r}")
                return True
        if tracked.receipt is not None:
            tracked.accepted_at = trio.current_time()
            self.tell("user", f"{name}, {send.delivery.name}, is accepted")
            if send.is_awaited:
                users.start_soon(self._await, tracked)
            if send.withdraw_after is not None:
                users.start_soon(self._withdraw, tracked, send.withdraw_after)
        self._sample()
        return True

    async def _await(self, tracked: _Tracked) -> None:
        assert tracked.receipt is not None
        name = f"whoever waits for message {tracked.send.key}"
        try:
            outcome = await self._call(name, tracked.receipt.wait)
        except errors.WebSocketError as error:
            self.tell("user", f"{name} gets {type(error).__name__}")
            return
        if tracked.tell(outcome):
            self.tell("user", f"message {tracked.send.key} is {outcome.value}, as was waited for")

    async def _withdraw(self, tracked: _Tracked, after: float) -> None:
        assert tracked.receipt is not None
        await trio.sleep(after)
        is_cancelled = tracked.receipt.cancel()
        self.tell("user", f"message {tracked.send.key}: cancel() gives {is_cancelled}")
        if is_cancelled and tracked.receipt.truth is not Truth.CERTAINLY_NOT:
            self.left.append(f"message {tracked.send.key}, cancelled and yet perhaps written,")
        self._sample()

    async def _act(self, channel: wsclient.DurableChannel, act: Act) -> None:
        method = getattr(channel, act.value)
        self.tell("user", f"calls {act.value}()")
        before = [tracked for tracked in self.tracked if tracked.receipt is not None]
        try:
            match act:
                case Act.FLUSH:
                    await self._call("whoever flushes", method)
                case Act.RECONNECT | Act.ROTATE:
                    method("the user wants a new one")
                case _:
                    method()
        except (trio.ClosedResourceError, errors.WebSocketError) as error:  # It has left.
            self.tell("user", f"{act.value}() raises {type(error).__name__}")
            return
        self.tell("user", f"{act.value}() returns")
        for tracked in before if act is Act.FLUSH else ():
            assert tracked.receipt is not None
            is_open = tracked.receipt.outcome is None
            if is_open and tracked.receipt.truth is not Truth.CERTAIN:
                self.left.append(f"message {tracked.send.key}, open after a flush,")

    async def _receive(self, channel: wsclient.DurableChannel) -> None:
        items = channel.items()
        while True:
            try:
                with trio.CancelScope() as patience:
                    if self.schedule.take_patience is not None:
                        patience.deadline = trio.current_time() + self.schedule.take_patience
                    item = await self._call("the receiver", items.__anext__)
                if patience.cancelled_caught:
                    await trio.sleep(0.5)
                    continue
            except (StopAsyncIteration, errors.ChannelFailed) as error:
                self.tell("user", f"receives no more: {type(error).__name__}")
                return
            if isinstance(item, (Gap, Overflow)):
                self.received.append(item)
                what = (
                    f"{item.messages} dropped"
                    if isinstance(item, Overflow)
                    else f"a gap from {item.after} to {item.before}"
                )
            else:
                text = item if isinstance(item, str) else item.decode("latin-1")
                key = text.partition(" ")[0]
                # A message is known by its key only if it is whole.
                what = key if self.texts.get(key) == text else repr(text[:60])
                # What a hook that was cut off did not take comes here, as promised.
                if not text.startswith(CONFIRMED):
                    self.received.append(what)
            self.tell("user", f"receives {what}")
            if self.schedule.take_pause:
                await trio.sleep(self.schedule.take_pause)

    # What was seen.

    def history(self) -> History:
        """Everything, as the invariants want it."""
        return History(
            sent=tuple(self._sent(tracked) for tracked in self.tracked),
            received=tuple(self.received),
            server=tuple(self._side(visit) for visit in self.visits),
            counted=self.counted,
            accepted=self.accepted,
            departures=tuple(self.departures),
            left=tuple(self.left),
            attempts=tuple(self.attempts),
            budget=FLAPPING if self.schedule.is_flapping else None,
            subscribed=tuple(self.subscribed),
            pong_bound=PONG_BOUND,
            stream=self._stream(),
        )

    def _stream(self) -> tuple[str, ...] | None:
        return None if self.schedule.overlap is None else tuple(f"s.{n}" for n in range(self.due))

    def _sent(self, tracked: _Tracked) -> SentMessage:
        receipt = tracked.receipt
        return SentMessage(
            key=tracked.send.key,
            delivery=tracked.send.delivery,
            accepted=receipt is not None,
            outcomes=tuple(tracked.outcomes),
            truth=tracked.truth if receipt is None else receipt.truth,
            sender=tracked.send.sender,
            may_repeat=self.schedule.promises.resend_unknown
            or (tracked.send.asks is not None and tracked.send.is_idempotent),
        )

    def _side(self, visit: Visit) -> ServerSide:
        number = visit.number
        is_flooded = number in self.flooded
        return ServerSide(
            number=number,
            heard=tuple(_keys(visit, self.sends)),
            said=tuple(self.said.get(number, ())),
            violation=visit.violation,
            pings=FLOOD if is_flooded else 0,
            pongs=len(visit.pongs) - self.flooded[number] if is_flooded else 0,
        )


def _topic(message: str | bytes) -> int:
    """What a message has in common with those that it may replace: nothing but its size."""
    return len(message) % 3


def _keys(visit: Visit, sends: Mapping[int, Send]) -> list[Hashable]:
    """What a connection heard of the user; a message that is none of the user's stands as it is."""
    found: list[Hashable] = []
    for message in visit.messages:
        try:
            content = json.loads(message)
        except ValueError:
            content = {}
        if "topic" not in content:
            send = sends.get(content.get("n"))
            is_whole = send is not None and content["pad"] == "x" * send.size
            found.append(content["n"] if is_whole else message[:60])
    return found


def _delivery_options(promises: Promises) -> dict[str, Any]:
    rate = None if promises.rate is None else wsclient.SendRate(messages=promises.rate)
    return {
        "delivery": wsclient.DeliveryOptions(
            acknowledgement=wsclient.JsonAcknowledgement(),
            correlation=_CORRELATION,
            fence=promises.fence,
            fence_every=promises.fence_every,
            fence_interval=promises.fence_interval,
            overflow=promises.overflow,
            resend_unknown=promises.resend_unknown,
            max_attempts=promises.max_attempts,
            rate=rate,
        )
    }


def _overlap_options(overlap: Overlap | None) -> dict[str, Any]:
    if overlap is None:
        return {}
    return {
        "redundancy": overlap.redundancy,
        "rotate_every": overlap.rotate_every,
        "dedupe": _stream_key,
    }


def _stream_key(message: str | bytes) -> str | None:
    text = message if isinstance(message, str) else message.decode("latin-1")
    return None if text.startswith(CONFIRMED) else text.partition(" ")[0]


def _send_options(send: Send) -> dict[str, Any]:
    return {"delivery": send.delivery, "ttl": send.ttl, "key": send.topic}
