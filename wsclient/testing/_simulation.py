"""One run of a schedule on virtual time, and what was seen of it.

The user has one channel, or several, one after the other: where the outbox is on a disk, a process
may end before its time, and be killed in any moment, and the next one goes on with what it finds.
What a process knew in its last moment is what counts: its tasks have to be ended here by cancelling
them, and what they do and say on their way out, nobody sees.
"""

from __future__ import annotations

import json
from collections import deque
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
from wsclient.session._storage import Stored

from ._connection import ServerConnection
from ._determinism import run_deterministic
from ._disk import Disk, DiskOutbox
from ._invariants import (
    INVARIANTS,
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
    Cue,
    Ending,
    Leave,
    Overlap,
    Promises,
    Schedule,
    Send,
    Spell,
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

REOPEN: Final = 1.0
"""Seconds after which a disk that could not be opened is tried again."""

PROMPT: Final = 0.05
"""Seconds that a commit may take where a process that leaves makes several within 0.4."""

OVERDUE: Final = 3
"""Commits that succeed once a message has its outcome, the last of which takes it off the disk: two
may have been made up before."""

CONFIRMED: Final = '{"topic": '
"""How the server's confirmation of a subscription begins."""

REPLY: Final = '{"reply": '
"""How the server's reply to a request begins."""

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
    killed: int
    """Processes that were killed."""


class _Trouble(Exception):
    """What ends a block."""


@attrs.define(eq=False)
class _Tracked:
    """A message that the user has tried to send."""

    send: Send
    process: int = 0
    """How many there were before the one that has sent it."""
    receipt: wsclient.Receipt | None = None
    """Of the process that lives."""
    is_accepted: bool = False
    """Whether there was ever a receipt."""
    accepted_at: float = 0.0
    outcomes: list[Outcome] = attrs.field(factory=list)
    told: Truth = Truth.CERTAINLY_NOT
    """What is claimed while there is no receipt."""
    is_proven: bool = False
    """Whether an earlier process was certain."""
    is_calling: bool = False
    """Whether the call that sends it lasts."""
    is_doubtful: bool = False
    """Whether it may have gone out before, as another message."""
    is_cut: bool = False
    """Whether it was cut off by the end of its process."""
    is_refused: bool = False
    """Whether that call has said that it was not accepted, and that no process will find it."""
    is_back: bool = False
    """Whether a crash has brought it back, though its sender knew it to be over."""
    commits: int = 0
    """How many commits had succeeded when it was noticed that nothing more becomes of it."""

    @property
    def truth(self) -> Truth:
        """What is claimed now."""
        if self.is_proven:
            return Truth.CERTAIN
        truth = self._claim
        return Truth.UNKNOWN if self.is_doubtful and truth is Truth.CERTAINLY_NOT else truth

    @property
    def _claim(self) -> Truth:
        """What is claimed of the message that was sent last."""
        return self.told if self.receipt is None else self.receipt.truth

    @property
    def is_open(self) -> bool:
        """Whether there is a receipt without an outcome."""
        return self.receipt is not None and self.receipt.outcome is None

    @property
    def is_left_alone(self) -> bool:
        """Whether nothing more is to become of it, and it is not to be kept."""
        if self.outcomes == [Outcome.STORED]:
            return False
        if self.is_accepted:
            return bool(self.outcomes)
        # Of what was asked, nobody has the receipt.
        return not self.is_cut and self.truth is Truth.CERTAINLY_NOT

    @property
    def is_begun(self) -> bool:
        """Whether a byte of it may have been written, and nothing has become of it."""
        return self.is_accepted and not self.outcomes and self.told is not Truth.CERTAINLY_NOT

    def tell(self, outcome: Outcome | None) -> bool:
        """Note what the receipt says now; whether that is new."""
        if outcome is None or (self.outcomes and self.outcomes[-1] is outcome):
            return False
        self.outcomes.append(outcome)
        return True

    def accept(self, receipt: wsclient.Receipt) -> None:
        """It has a receipt: of its first process, or of one that goes on with it."""
        self.note_before()
        self.receipt = receipt
        self.is_accepted = True
        self.outcomes = []

    def come_back(self, receipt: wsclient.Receipt) -> None:
        """A process has found it, and goes on with it."""
        has_outcome = bool(self.outcomes) and self.outcomes != [Outcome.STORED]
        has_raised = not self.is_accepted and not self.is_cut
        self.is_back = self.is_back or has_outcome or has_raised
        self.accept(receipt)

    def note_before(self) -> None:
        """What follows is of the message that is sent now; a request may have sent others."""
        self.is_doubtful = self.send.is_repeatable and self.truth is not Truth.CERTAINLY_NOT

    def buried(self) -> _Tracked:
        """What its process knew of it in the end."""
        outcomes = list(self.outcomes)
        told = Truth.UNKNOWN if self.is_calling else self._claim
        if self.is_open and self.send.delivery is wsclient.Delivery.DIRECT:
            # Nobody will know more.
            outcomes = [Outcome.LOST_UNKNOWN]
        return attrs.evolve(
            self,
            receipt=None,
            is_proven=self.is_proven or told is Truth.CERTAIN,
            told=told,
            is_calling=False,
            is_cut=self.is_cut or self.is_calling,
            outcomes=outcomes,
        )


@attrs.define
class _Seen:
    """What was seen in one process."""

    received: list[Hashable] = attrs.field(factory=list)
    departures: list[Departure] = attrs.field(factory=list)
    left: list[str] = attrs.field(factory=list)
    surprises: list[str] = attrs.field(factory=list)
    """What calls have raised that they do not say they raise."""
    subscribed: list[Subscribed] = attrs.field(factory=list)
    counted: dict[Outcome, int] | None = None
    accepted: int = 0


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
    breaches += simulation.judge(history)
    lines = [f"schedule {seed}:", *schedule.lines(), *simulation.trace]
    lines += [f"BROKEN {breach}" for breach in breaches]
    return Run(
        seed=seed,
        schedule=schedule,
        history=history,
        breaches=tuple(breaches),
        trace="\n".join(lines) + "\n",
        killed=simulation.killed,
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
        self.queues: dict[int, deque[Send]] = {}
        """What is still to be sent, by its sender."""
        for send in schedule.sends:
            self.queues.setdefault(send.sender, deque()).append(send)
        self.watch = _Restless()
        self.trace: list[str] = []
        self.tracked: dict[int, _Tracked] = {}
        """What was sent, in order, by its key."""
        self.seen: list[_Seen] = []
        """What each process has seen."""
        self.life: _Life | None = None
        """The process that lives."""
        self.disk: Disk | None = None
        self.proxies: list[FaultProxy] = []
        self.said: dict[int, list[Hashable]] = {}
        self.texts: dict[str, str] = {}
        """What the server said, whole, by its key."""
        self.due = 0
        """How much of a stream the server has said, to whoever hears it."""
        self.grown = trio.lowlevel.ParkingLot()
        self.topics: dict[int, set[str]] = {}
        self.flooded: dict[int, int] = {}
        """How many pongs had come on a connection before the flood."""
        self.heard = trio.lowlevel.ParkingLot()
        """Whoever waits here goes on when the server has heard a message."""
        self.ids: dict[int, str] = {}
        """What the server has known messages by, by their keys."""
        self.left: list[str] = []
        self.surprises: list[str] = []
        self.broken: list[Breach] = []
        """What was seen to be wrong while there was still more to come."""
        self.killed = 0
        self.attempts: list[float] = []
        self.ready_on = 0
        self.visits: list[Visit] = []

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
                    self.proxies = [
                        await stack.enter_async_context(
                            FaultProxy(server.url, path, host=f"path{number}.test", network=network)
                        )
                        for number, path in enumerate(self.schedule.paths)
                    ]
                    await self._use(server)
            if horizon.cancelled_caught:
                self.left.append(f"after {HORIZON:g} s a task")
            if self.watch.scope.cancelled_caught:
                self.left.append("a task that never rests")
            if tasks := trio.lowlevel.current_statistics().tasks_living - before:
                self.left.append(f"{tasks} tasks")
            for visit in self.visits:
                self.tell("server", f"{visit.number} heard {_keys(visit, self.sends)}")

    async def _use(self, server: FaultServer) -> None:
        async with trio.open_nursery() as weather:
            if self.schedule.overlap is not None:
                weather.start_soon(self._speak)
            weather.start_soon(self._change, server)
            if self.schedule.disk is not None:
                self.disk = Disk(self.schedule.disk.latency, weather)
                weather.start_soon(self._enchant, self.disk, self.schedule.disk.spells)
            endings = () if self.schedule.disk is None else self.schedule.disk.endings
            for ending in endings:
                if not await self._live(ending):
                    break
                await trio.sleep(ending.pause)
            else:
                await self._live(None)
            weather.cancel_scope.cancel()

    async def _live(self, ending: Ending | None) -> bool:
        """Let a process live; whether it ended before its time."""
        self.life = _Life(self, ending)
        try:
            await self.life.run()
        finally:
            self.life.bury()
        return self.life.is_followed

    # The weather.

    async def _change(self, server: FaultServer) -> None:
        for change in self.schedule.changes:
            await trio.sleep_until(change.at)
            what = change.what
            if isinstance(what, Act):
                self._life.act(what)
                continue
            self.tell("weather", what.value if isinstance(what, Strike) else repr(what))
            await self._strike(server, self.proxies[change.path], what)
            self._life.sample()
        await trio.sleep_until(self.schedule.duration)
        self.tell("weather", "is good from now on")
        for proxy in self.proxies:
            proxy.change(CLEAR)
        await server.start()

    @property
    def _life(self) -> _Life:
        assert self.life is not None
        return self.life

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

    async def _enchant(self, disk: Disk, spells: Sequence[Spell]) -> None:
        for spell in spells:
            await trio.sleep_until(spell.at)
            self.tell("weather", repr(spell))
            disk.change(latency=spell.latency, failing=spell.failing, hangs=spell.hangs)
            await trio.sleep_until(spell.until)
            self.tell("weather", "the disk is well again")
            disk.change()

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
                self.heard.unpark_all()
                content = json.loads(message)
                self._note_id(content)
                if "topic" in content:
                    topics.add(content["topic"])
                    # Whoever has the confirmation hears all that is said from then on.
                    begins_at = self.due
                    confirmation = json.dumps({"topic": content["topic"], "on": number})
                    await connection.send(confirmation)
                    if len(topics) == self.schedule.topics:
                        has_all.set()
                    continue
                if content["n"] == self.schedule.poison:
                    self.tell("server", f"{number} cannot bear message {content['n']}")
                    await connection.close(1009)
                    continue
                if "ask" in content:
                    nursery.start_soon(play, partial(answer, content["ask"], content["n"]))
                if "id" in content:
                    nursery.start_soon(play, partial(acknowledge, content["id"], content["n"]))

        async def answer(key: int, message: int) -> None:
            await trio.sleep(self.schedule.ack_delay)
            text = json.dumps({"reply": key, "to": message, "on": number})
            if self._is_orphaned(message):
                # It is nobody's, and received like any other message; but it is of no stream.
                if self.schedule.overlap is not None:
                    return
                name = _reply_name(text)
                self.texts[name] = text
                said.append(name)
            self.tell("server", f"{number} replies to {message}")
            await connection.send(text)

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

    # The disk.

    @property
    def commits(self) -> int:
        """How many commits have succeeded."""
        return 0 if self.disk is None else self.disk.commits

    @property
    def is_prompt(self) -> bool:
        """Whether a process that leaves has time enough for all that is to go to the disk."""
        disk = self.schedule.disk
        return (
            disk is not None
            and disk.latency <= PROMPT
            and self.disk is not None
            and self.disk.is_well
        )

    def outbox(self) -> DiskOutbox | None:
        return None if self.disk is None else DiskOutbox("outbox.db", disk=self.disk)

    def _found(self) -> dict[int, Stored]:
        """What is on the disk, by the keys of the messages."""
        assert self.disk is not None
        found: dict[int, Stored] = {}
        for stored in self.disk.messages.values():
            key = json.loads(stored.message)["n"]
            if key in found and not self.sends[key].is_repeatable:
                self._break(f"message {key} is there twice")
            found[key] = stored
        return found

    def _break(self, text: str) -> None:
        self.broken.append(Breach("disk", text))

    def judge_death(self) -> None:
        """A process was killed: what it had promised is on the disk, and what it said is true."""
        assert self.disk is not None
        found = self._found()
        for key, tracked in self.tracked.items():
            name = f"message {key}"
            stored = found.get(key)
            is_direct = tracked.send.delivery is wsclient.Delivery.DIRECT
            if stored is None:
                is_due = tracked.is_accepted and not tracked.outcomes and not is_direct
                if is_due or tracked.outcomes == [Outcome.STORED]:
                    self._break(f"{name} was accepted, and is not there")
            elif tracked.is_refused or is_direct:
                self._break(f"{name} was not accepted, and is there")
            elif tracked.is_left_alone and self.disk.commits - tracked.commits >= OVERDUE:
                self._break(f"{name} has its outcome, and is there still")
            elif not stored.begun and tracked.is_begun:
                self._break(f"{name} was begun, and has no mark")
        claims = History(
            sent=tuple(self._sent(tracked) for tracked in self.tracked.values()),
            server=tuple(self._side(visit) for visit in self.visits),
        )
        self.broken += check(claims, ["I2", "I3", "I4", "I6"])

    def judge_departure(self, *, is_sound: bool) -> None:
        """A process has left: what is ``STORED`` is on the disk, and nothing else."""
        if self.disk is None:
            return
        found = self._found()
        for key, tracked in self.tracked.items():
            is_stored = tracked.outcomes == [Outcome.STORED]
            if is_stored and key not in found:
                self._break(f"message {key} is said to be stored, and is not there")
            # A request has its reply, and its message perhaps no outcome.
            is_asked = not tracked.is_accepted and tracked.truth is not Truth.CERTAINLY_NOT
            if key in found and is_sound and self.is_prompt and not (is_stored or is_asked):
                self._break(f"message {key} is not said to be stored, and is there")

    def take_over(self, life: _Life, channel: wsclient.DurableChannel) -> None:
        """A process goes on with what it finds on the disk."""
        if self.disk is None:
            return
        # A user sees how many there are; that each becomes what it should, is for us to see.
        waiting = channel._outbox.entries()
        entries = {json.loads(entry.plain)["n"]: entry for entry in waiting}
        found = self._found()
        told = life.restored
        count = told.messages + told.lost_unknown + told.expired
        if told.messages != len(waiting) or count != len(self.disk.messages):
            self._break(f"{len(self.disk.messages)} messages are there, and told was {told}")
        for key, stored in found.items():
            tracked = self.tracked[key]
            if key in entries:
                tracked.come_back(entries[key].receipt)
                continue
            tracked.note_before()
            tracked.commits = self.disk.commits
            tracked.told = Truth.UNKNOWN if stored.begun else Truth.CERTAINLY_NOT
            if stored.begun and stored.delivery is not wsclient.Delivery.ACKED:
                tracked.outcomes = [Outcome.LOST_UNKNOWN]
            elif stored.expires_at is not None and stored.expires_at <= trio.current_time():
                tracked.outcomes = [Outcome.EXPIRED]
            else:
                self._break(f"message {key} is there, and was not found")

    def _is_orphaned(self, message: int) -> bool:
        """Whether the process is over that has sent it."""
        return self.tracked[message].process < len(self.seen)

    def _note_id(self, content: dict[str, Any]) -> None:
        """Each message has one id, whoever sends it, and however often; none but its own."""
        if "id" not in content or self.sends[content["n"]].is_repeatable:
            return
        if self.ids.setdefault(content["n"], content["id"]) != content["id"]:
            self.surprises.append(f"message {content['n']} came with two ids")

    # What was seen.

    def history(self) -> History:
        """Everything, as the invariants want it."""
        seen = self.seen
        last = seen[-1] if seen else _Seen()
        return History(
            sent=tuple(self._sent(tracked) for tracked in self.tracked.values()),
            received=tuple(item for each in seen for item in each.received),
            server=tuple(self._side(visit) for visit in self.visits),
            counted=last.counted,
            accepted=last.accepted,
            departures=tuple(departure for each in seen for departure in each.departures),
            left=(*(what for each in seen for what in each.left), *self.left),
            attempts=tuple(self.attempts),
            budget=FLAPPING if self.schedule.is_flapping else None,
            subscribed=tuple(ready for each in seen for ready in each.subscribed),
            pong_bound=PONG_BOUND,
            stream=self._stream(),
        )

    def judge(self, history: History) -> list[Breach]:
        """What is wrong."""
        surprises = [text for each in self.seen for text in each.surprises] + self.surprises
        breaches = [Breach("surprise", text) for text in surprises] + self.broken
        if len(self.seen) < 2:
            return breaches + check(history)
        # The gap between two processes is nobody's to tell.
        breaches += check(history, [name for name in INVARIANTS if name != "I8"])
        for each in self.seen:
            alone = attrs.evolve(
                history,
                sent=(),
                received=tuple(each.received),
                counted=each.counted,
                accepted=each.accepted,
            )
            breaches += check(alone, ["I1", "I8"])
        return breaches

    def _stream(self) -> tuple[str, ...] | None:
        return None if self.schedule.overlap is None else tuple(f"s.{n}" for n in range(self.due))

    def _sent(self, tracked: _Tracked) -> SentMessage:
        return SentMessage(
            key=tracked.send.key,
            delivery=tracked.send.delivery,
            accepted=tracked.is_accepted,
            outcomes=tuple(tracked.outcomes),
            truth=tracked.truth,
            sender=tracked.send.sender,
            may_repeat=self.schedule.promises.resend_unknown or tracked.send.is_repeatable,
            is_back=tracked.is_back,
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


class _Life:
    """A process of the user's: a channel, from its opening to its end.

    Args:
        world: What goes on around it.
        ending: How it ends before its time, if it does.
    """

    def __init__(self, world: _Simulation, ending: Ending | None) -> None:
        self.world = world
        self.schedule = world.schedule
        self.ending = ending
        self.is_followed = False
        """Whether it has ended before its time, and another goes on."""
        self.is_over = False
        self.seen = _Seen()
        self.channel: wsclient.DurableChannel | None = None
        self.restored = events.OutboxRestored(channel="", messages=0, lost_unknown=0, expired=0)
        self.waiting: dict[object, str] = {}
        """What the user's tasks wait for in calls on the channel."""
        self.settled = trio.lowlevel.ParkingLot()
        self.users: trio.Nursery
        self._attempts = world.attempts
        self._scope = trio.CancelScope()
        self._danger = trio.CancelScope()

    def tell(self, who: str, what: str) -> None:
        if not self.is_over:
            self.world.tell(who, what)

    async def run(self) -> None:
        """Live; until all is sent, or until it ends before its time."""
        with self._scope:
            async with trio.open_nursery() as self.users:
                if self.ending is not None and self.ending.leave is None:
                    self.users.start_soon(self._be_killed, self.ending)
                while True:
                    if await self._hold_channel():
                        break
                    await trio.sleep(REOPEN)
                self._danger.cancel()
                # Whoever waits in a call must have been told.
                await trio.sleep(WAKE)
                self.seen.left += self.waiting.values()
                self.waiting.clear()
                self.users.cancel_scope.cancel()
            self.sample()

    async def _be_killed(self, ending: Ending) -> None:
        with self._danger:
            await trio.sleep_until(ending.at)
            match ending.cue:
                case Cue.COMMIT:
                    assert self.world.disk is not None
                    await self.world.disk.stirred.park()
                case Cue.HEARD:
                    await self.world.heard.park()
            await trio.sleep(ending.after)
            for _ in range(ending.steps):
                await trio.lowlevel.checkpoint()
            self._die(ending)

    def _die(self, ending: Ending) -> None:
        self.is_followed = True
        self.sample()
        self.tell("user", "is killed")
        self.world.killed += 1
        self.bury()
        for proxy in self.world.proxies:
            if ending.resets:
                proxy.reset()
            else:
                proxy.hang_up()
        assert self.world.disk is not None
        self.world.disk.kill(brings_back=ending.brings_back)
        self.world.judge_death()
        self._scope.cancel()

    def bury(self) -> None:
        """It is over: keep what was seen, and what it knew."""
        if not self.is_over:
            self.is_over = True
            self.world.seen.append(self.seen)
            # What its tasks do on their way out is none of it.
            self.seen = _Seen()
            if self.is_followed:
                buried = {key: each.buried() for key, each in self.world.tracked.items()}
                self.world.tracked = buried

    async def _hold_channel(self) -> bool:
        """Open a channel, use it, and leave it; false if it cannot be opened."""
        schedule = self.schedule
        leaving_at = -1.0
        state = ""
        leave = schedule.leave
        is_sound = False
        block = trio.CancelScope()
        try:
            with block:
                async with wsclient.open_channel(
                    [proxy.url for proxy in self.world.proxies],
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
                    outbox=self.world.outbox(),
                    **_delivery_options(schedule.promises),
                    **_overlap_options(schedule.overlap),
                ) as channel:
                    self.channel = channel
                    self.world.take_over(self, channel)
                    for queue in self.world.queues.values():
                        self.users.start_soon(self._send_all, channel, queue)
                    self.users.start_soon(self._receive, channel)
                    leave = await self._wait_to_leave()
                    state = f"{channel.state.value}, {leave.value}"
                    self.tell("user", f"leaves: {leave.value}")
                    leaving_at = trio.current_time()
                    is_sound = self.world.is_prompt
                    match leave:
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
        except errors.OutboxError as error:
            if self.channel is not None:
                raise
            self.tell("user", f"cannot open the channel: {type(error).__name__}")
            return False
        await self._go_on_living()
        if leaving_at >= 0:
            drains = leave in (Leave.END, Leave.DRAIN)
            took = trio.current_time() - leaving_at
            self.tell("user", f"has left after {took:.6f} s")
            self.seen.departures.append(
                Departure(state=state, took=took, drain=DRAIN if drains else 0.0)
            )
        assert self.channel is not None
        assert self.channel.state.is_final, "an exit leaves the channel in a final state"
        statistics = self.channel.statistics()
        self.seen.counted = dict(statistics.outcomes)
        self.seen.accepted = statistics.messages_accepted
        self.sample()
        self.world.judge_departure(is_sound=is_sound)
        return True

    async def _wait_to_leave(self) -> Leave:
        ending = self.ending
        if ending is not None and ending.leave is not None:
            with trio.move_on_at(ending.at) as early:
                await self._wait_until_all_is_done()
            if early.cancelled_caught:
                self.is_followed = True
                return ending.leave
        else:
            await self._wait_until_all_is_done()
        return self.schedule.leave

    async def _wait_until_all_is_done(self) -> None:
        schedule = self.schedule
        if schedule.leave_at is not None:
            await trio.sleep_until(schedule.leave_at)
            return
        await trio.sleep_until(schedule.duration)
        with trio.move_on_after(CALM):
            while self._is_unsettled():
                await self.settled.park()
        for tracked in self.world.tracked.values():
            # One that was accepted later may have had to wait for room.
            is_late = tracked.accepted_at > schedule.duration
            if tracked.is_open and not is_late:
                self.seen.left.append(f"message {tracked.send.key}, open after {CALM:g} s of calm,")

    def _is_unsettled(self) -> bool:
        return any(self.world.queues.values()) or any(
            tracked.is_open for tracked in self.world.tracked.values()
        )

    async def _establish(self, connection: wsclient.WebSocketConnection) -> None:
        wanted = {f"topic {number}" for number in range(self.schedule.topics)}
        for topic in sorted(wanted):
            await connection.send_message(json.dumps({"topic": topic}))
        confirmed: set[str] = set()
        while confirmed != wanted:
            content = json.loads(await connection.get_message())
            confirmed.add(content["topic"])
            self.world.ready_on = content["on"]

    def _observe(self, event: events.Event) -> None:
        name = type(event).__name__
        match event:
            case events.StateChanged():
                self.tell("channel", f"is {event.state.value}: {event.cause}")
            case events.ConnectionAttempted():
                self._attempts.append(trio.current_time())
                self.tell("channel", f"attempt {event.attempt}")
            case events.ConnectionReady():
                self.tell("channel", f"epoch {event.epoch} is ready")
                if self.schedule.topics:
                    wanted = {f"topic {number}" for number in range(self.schedule.topics)}
                    number = self.world.ready_on
                    there = frozenset(self.world.topics[number])
                    self.seen.subscribed.append(
                        Subscribed(connection=number, wanted=frozenset(wanted), there=there)
                    )
            case events.ConnectionLost() | events.RetryScheduled():
                told = f"{event.cause}" if isinstance(event, events.ConnectionLost) else event.rule
                self.tell("channel", f"{name}: {told}")
            case events.OutboxRestored():
                self.restored = event
                self.tell("channel", f"finds {event.messages} messages on the disk")
            case events.GapDetected():
                self.tell("channel", f"gap from {event.gap.after} to {event.gap.before}")
            case _:
                self.tell("channel", name)
        self.sample()

    def sample(self) -> None:
        """Look at every receipt."""
        if self.is_over:
            return
        for tracked in self.world.tracked.values():
            receipt = tracked.receipt
            if receipt is not None and tracked.tell(receipt.outcome):
                assert receipt.outcome is not None
                tracked.commits = self.world.commits
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
            await self._go_on_living()

    async def _go_on_living(self) -> None:
        """What was woken as the process was killed does nothing more."""
        if self.is_over:
            await trio.sleep_forever()

    async def _send_all(self, channel: wsclient.DurableChannel, queue: deque[Send]) -> None:
        while queue:
            await trio.sleep(queue[0].pause)
            await self._go_on_living()
            if not await self._send(channel, queue.popleft()):
                return

    async def _send(self, channel: wsclient.DurableChannel, send: Send) -> bool:
        """Send one message; whether the channel takes more."""
        tracked = self.world.tracked[send.key] = _Tracked(
            send, process=len(self.world.seen), is_calling=True
        )
        try:
            return await self._send_as(channel, send, tracked)
        finally:
            tracked.is_calling = False
            tracked.commits = self.world.commits

    async def _send_as(
        self, channel: wsclient.DurableChannel, send: Send, tracked: _Tracked
    ) -> bool:
        content = {"n": send.key, "pad": "x" * send.size}
        text = json.dumps(content)
        message = text.encode() if send.binary else text
        name = f"message {send.key}"

        async def ask() -> None:
            assert send.asks is not None
            reply = await channel.request(
                content,
                timeout=send.asks,
                delivery=send.delivery,
                idempotent=send.is_idempotent,
            )
            tracked.told = Truth.CERTAIN
            self.tell("user", f"{name} is replied to")
            if reply["to"] != send.key:
                self.seen.surprises.append(
                    f"request() of {name} returned the reply to {reply['to']}"
                )

        with trio.CancelScope() as patience:
            if send.patience is not None:
                patience.deadline = trio.current_time() + send.patience
            try:
                if send.asks is not None:
                    await self._call(f"who asks {name}", ask)
                else:
                    receipt = await self._call(
                        f"the sender of {name}",
                        lambda: channel.send(message, **_send_options(send)),
                    )
                    tracked.accept(receipt)
            except trio.Cancelled:
                if send.asks is not None or send.delivery is wsclient.Delivery.DIRECT:
                    tracked.told = Truth.UNKNOWN  # Its first byte may have been written.
                tracked.is_refused = send.asks is None
                self.tell("user", f"{name}: cancelled")
                raise
            except (trio.ClosedResourceError, errors.ChannelFailed) as error:
                self.tell("user", f"{name}: {type(error).__name__}")
                tracked.is_refused = send.asks is None
                return False
            except errors.WebSocketError as error:
                is_open = isinstance(error, errors.InboxFull)
                unless_told = Truth.UNKNOWN if is_open else Truth.CERTAINLY_NOT
                tracked.told = getattr(error, "truth", unless_told)
                if getattr(error, "outcome", None) is Outcome.STORED:
                    tracked.outcomes = [Outcome.STORED]
                tracked.is_refused = send.asks is None and not isinstance(
                    error, errors.OutboxIOError
                )
                self.tell("user", f"{name}: {type(error).__name__}")
                return True
            except Exception as error:
                self.seen.surprises.append(
                    f"send() of {name}, {send.delivery.name}, raised {error!r}"
                )
                return True
        if tracked.receipt is not None:
            tracked.accepted_at = trio.current_time()
            self.tell("user", f"{name}, {send.delivery.name}, is accepted")
            if send.is_awaited:
                self.users.start_soon(self._await, tracked)
            if send.withdraw_after is not None:
                self.users.start_soon(self._withdraw, tracked, send.withdraw_after)
        self.sample()
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
            tracked.commits = self.world.commits
            self.tell("user", f"message {tracked.send.key} is {outcome.value}, as was waited for")

    async def _withdraw(self, tracked: _Tracked, after: float) -> None:
        assert tracked.receipt is not None
        await trio.sleep(after)
        await self._go_on_living()
        is_cancelled = tracked.receipt.cancel()
        self.tell("user", f"message {tracked.send.key}: cancel() gives {is_cancelled}")
        if is_cancelled and tracked.receipt.truth is not Truth.CERTAINLY_NOT:
            self.seen.left.append(f"message {tracked.send.key}, cancelled and yet perhaps written,")
        self.sample()

    def act(self, act: Act) -> None:
        """Let the user act, unless there is no channel."""
        if self.channel is not None and not self.is_over:
            self.users.start_soon(self._act, self.channel, act)

    async def _act(self, channel: wsclient.DurableChannel, act: Act) -> None:
        await self._go_on_living()
        method = getattr(channel, act.value)
        self.tell("user", f"calls {act.value}()")
        every = self.world.tracked.values()
        before = [tracked for tracked in every if tracked.receipt is not None]
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
            if tracked.is_open and tracked.truth is not Truth.CERTAIN:
                self.seen.left.append(f"message {tracked.send.key}, open after a flush,")

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
                self.seen.received.append(item)
                what = (
                    f"{item.messages} dropped"
                    if isinstance(item, Overflow)
                    else f"a gap from {item.after} to {item.before}"
                )
            else:
                text = item if isinstance(item, str) else item.decode("latin-1")
                key = text.partition(" ")[0]
                if text.startswith(REPLY):
                    key = _reply_name(text)
                # A message is known by its key only if it is whole.
                what = key if self.world.texts.get(key) == text else repr(text[:60])
                # What a hook that was cut off did not take comes here, as promised.
                if not text.startswith(CONFIRMED):
                    self.seen.received.append(what)
            self.tell("user", f"receives {what}")
            if self.schedule.take_pause:
                await trio.sleep(self.schedule.take_pause)


def _reply_name(text: str) -> str:
    content = json.loads(text)
    return f"{content['on']}'s reply to {content['to']}"


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
