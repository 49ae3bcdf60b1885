"""A schedule: what a server does, what befalls the path, and what the user does.

It is data, drawn from a seed, and printed at the head of a trace.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from enum import Enum
from typing import Final

import attrs

from wsclient.events import Delivery
from wsclient.options import OverflowPolicy

from . import _faults as faults
from ._disk import Failing
from ._faults import Fault
from ._proxy import BLACKOUT, CLEAR, HALF_OPEN_DOWN, HALF_OPEN_UP, REFUSING, Conditions, Way

CALM: Final = 150.0
"""Seconds of good weather within which everything settles: a dead path is noticed within 42, the
longest delay is 31, an attempt takes 10 at most, and so does an unfinished one of before."""

FLOOD: Final = 1500
"""Pings in a flood: more than a client should ever answer at once."""


class Leave(Enum):
    """How the user leaves the channel."""

    END = "the block ends"
    DRAIN = "drain"
    CLOSE = "aclose"
    ERROR = "an exception ends the block"
    CANCEL = "the block is cancelled"


class Act(Enum):
    """What the user does beside sending and receiving."""

    FLUSH = "flush"
    RETRY_NOW = "retry_now"
    RECONNECT = "reconnect"
    ROTATE = "rotate"


class Strike(Enum):
    """What happens at once to what is connected."""

    RESET = "the path is reset"
    HANG_UP = "the path is hung up"
    STOP = "the server stops"
    GOODBYE = "the server says goodbye and stops"
    START = "the server starts"
    FLOOD = "the server sends a flood of pings"


@attrs.frozen
class Change:
    """At some time the weather changes, or something strikes, or the user acts."""

    at: float
    what: Conditions | Strike | Act
    path: int = 0
    """Which of the paths to the server it befalls."""


@attrs.frozen(kw_only=True)
class Send:
    """A message that the user sends."""

    key: int
    sender: int
    pause: float
    """Seconds before it."""
    size: int
    """Bytes of padding."""
    binary: bool
    delivery: Delivery
    patience: float | None
    """Seconds after which the call is cancelled."""
    withdraw_after: float | None
    """Seconds after which the receipt is cancelled."""
    is_awaited: bool
    """Whether a task waits for its outcome."""
    ttl: float | None
    """Seconds for which it may wait; ``None`` is the caller's own deadline."""
    topic: str | None
    """What it has in common with those that it may replace."""
    asks: float | None
    """Seconds for which it waits for its reply; ``None``: it is no request."""
    is_idempotent: bool
    """Whether it may go again, as a request."""

    @property
    def is_repeatable(self) -> bool:
        """Whether it is a request that goes again as another message."""
        return self.asks is not None and self.is_idempotent


@attrs.frozen(kw_only=True)
class Say:
    """A message that the server sends: on every connection anew, or once on all of them."""

    pause: float
    size: int
    binary: bool


@attrs.frozen(kw_only=True)
class Promises:
    """What the channel promises for what it sends: see ``DeliveryOptions``."""

    fence: bool = True
    fence_every: int = 256
    fence_interval: float = 1.0
    overflow: OverflowPolicy = OverflowPolicy.BLOCK
    """What a full outbox does."""
    resend_unknown: bool = False
    max_attempts: float = math.inf
    rate: int | None = None
    """Messages a second."""


@attrs.frozen(kw_only=True)
class Overlap:
    """Two connections live at once; the server says the same on all of them."""

    redundancy: int = 1
    """As many paths lead to the server."""
    second_path: tuple[Conditions, ...] = (CLEAR,)
    """What the second one does to its first connection, the second, …"""
    rotate_every: float | None = None
    """Seconds."""


@attrs.frozen(kw_only=True)
class Spell:
    """For some time the disk is otherwise than usual."""

    at: float
    until: float
    latency: float | None
    """Seconds that a commit takes."""
    failing: Failing | None
    hangs: bool


class Cue(Enum):
    """What a process is killed at, once its time has come."""

    TIME = "that time"
    COMMIT = "a commit"
    HEARD = "a message that the server hears"


@attrs.frozen(kw_only=True)
class Ending:
    """A process ends before all is sent, and another goes on with what it finds on the disk."""

    at: float
    leave: Leave | None
    """How it leaves; ``None``: it is killed."""
    cue: Cue
    """What it is killed at; the others leave at their time."""
    after: float
    """Seconds from there to its death."""
    steps: int
    """Turns of the scheduler, beyond."""
    resets: bool
    """Whether its connections are reset; if not, they end as streams do."""
    brings_back: bool
    """Whether what a commit has left that failed comes back."""
    pause: float
    """Seconds until there is another."""


@attrs.frozen(kw_only=True)
class OnDisk:
    """The outbox is on a disk, and outlives the process that has it open."""

    latency: float
    """Seconds that a commit takes as long as all is well."""
    spells: tuple[Spell, ...]
    endings: tuple[Ending, ...]


@attrs.frozen(kw_only=True)
class Schedule:
    """All that happens in one run."""

    seed: int
    duration: float
    """Seconds for which things happen; then the weather is good."""
    faults: tuple[Fault, ...]
    """What the server does to its first connection, the second, …"""
    conditions: tuple[Conditions, ...]
    """What the path does to its first connection, the second, …"""
    changes: tuple[Change, ...]
    sends: tuple[Send, ...]
    says: tuple[Say, ...]
    promises: Promises
    ack_delay: float
    """Seconds that the server takes to acknowledge."""
    hangs_up: bool
    """Whether the server closes a connection when it has said all."""
    poison: int | None
    """The key of a message that the server cannot bear: then it closes with 1009."""
    topics: int
    """How many subscriptions are restored on every connection; 0 is no hook."""
    overlap: Overlap | None
    """Whether two connections may live at once."""
    buffer_size: int
    """Bytes that a stream holds."""
    outbox: int
    """Messages that the channel holds."""
    inbox: int
    drops: OverflowPolicy
    """What a full inbox does."""
    take_pause: float
    """Seconds that the user takes for each item received."""
    take_patience: float | None
    """Seconds after which a call that receives is cancelled, and made again."""
    heartbeat: float
    """Seconds between pings, and to wait for the answer."""
    leave: Leave
    leave_at: float | None
    """When the user leaves; ``None``: when all has settled."""
    is_flapping: bool
    """Whether the server never lets a connection live: then attempts are counted."""
    disk: OnDisk | None
    """Whether the outbox is on a disk."""

    @property
    def paths(self) -> list[tuple[Conditions, ...]]:
        """What each path to the server does."""
        if self.overlap is None or self.overlap.redundancy == 1:
            return [self.conditions]
        return [self.conditions, self.overlap.second_path]

    def lines(self) -> Iterable[str]:
        """The schedule, for people."""
        for field in attrs.fields(Schedule):
            value = getattr(self, field.name)
            if field.name in ("sends", "says"):
                yield f"  {field.name}:"
                yield from (f"    {each}" for each in value)
            else:
                yield f"  {field.name} = {value!r}"


_IN_THE_HANDSHAKE: Final = (
    faults.REFUSE,
    faults.RESET_ON_ACCEPT,
    faults.SILENT_HANDSHAKE,
    faults.EOF_IN_HANDSHAKE,
    faults.REJECT_500,
    faults.REJECT_503,
    Fault.reject(429, retry_after=3),
    Fault.delayed_handshake(4),
    Fault.delayed_handshake(60),
)
# Fatal at the first connection, where nothing would be left to see.
_LATER: Final = (faults.GARBAGE_ANSWER, faults.BAD_ACCEPT, faults.REJECT_403, faults.ANSWER_200)

_STRIKING: Final = (
    faults.RESET_AFTER_OPEN,
    faults.EOF_AFTER_OPEN,
    faults.SILENCE,
    faults.NEVER_READS,
    faults.HALF_FRAME,
    faults.HALF_FRAME_THEN_SILENCE,
    *(Fault.close(code) for code in (1000, 1001, 1005, 1011, 1012, 1013, 1014, 4000)),
    *(Fault.close(code) for code in (1002, 1003, 1007, 1008, 1009)),
    faults.MASKED_FRAME,
    faults.BAD_OPCODE,
    faults.BAD_UTF8,
)

# An inbox cannot tell its sender, and every other one blocks.
_DROPS: Final = (
    OverflowPolicy.BLOCK,
    OverflowPolicy.BLOCK,
    OverflowPolicy.DROP_OLDEST,
    OverflowPolicy.DROP_NEWEST,
    OverflowPolicy.CONFLATE,
)


def make_schedule(seed: int, messages: int) -> Schedule:
    """Draw a schedule.

    Args:
        seed: The same seed gives the same schedule.
        messages: How many messages the user sends, and the server too, at most.
    """
    rng = random.Random(seed)
    duration = rng.uniform(2, 90)
    is_flapping = rng.random() < 0.06
    has_flood = not is_flapping and rng.random() < 0.03
    heartbeat = rng.choice([20.0, 20.0, 20.0, 2.0])
    leave_at = None if rng.random() < 0.5 else rng.uniform(0, duration)
    story: tuple[Fault, ...] = (faults.NONE,)
    path: tuple[Conditions, ...] = (CLEAR,)
    changes: list[Change] = []
    inbox = rng.choice([4, 1024, 1024])
    take_pause = rng.choice([0.0, 0.0, 0.0, 0.3])
    overlap = None if is_flapping or has_flood else _overlap(rng)
    lags = overlap is not None and rng.random() < 0.5
    if is_flapping:
        duration, leave_at = 70.0, 70.0
        story = (rng.choice([faults.ACCEPT_THEN_CLOSE, faults.RESET_AFTER_OPEN]),)
    elif has_flood:
        at = rng.uniform(0, duration)
        changes = [
            Change(at, HALF_OPEN_UP),
            Change(at + 0.1, Strike.FLOOD),
            Change(at + 1, CLEAR),
        ]
        duration += 2
        leave_at = None
        heartbeat = 20.0
        # A client that reads slowly can answer each ping as it comes.
        inbox, take_pause = 1024, 0.0
    else:
        story = (*(_fault(rng, number) for number in range(rng.randint(0, 4))), faults.NONE)
        path = (*(_conditions(rng) for _ in range(rng.randint(0, 5))), CLEAR)
        changes = sorted(_changes(rng, duration, overlap), key=lambda change: change.at)
        if overlap is not None and lags:
            # What one connection still has to bring, the other one does not know of.
            duration = rng.uniform(2, 20)
            leave_at = None
            story = (faults.NONE,)
            path = (Conditions.both(latency=rng.uniform(0, 1)),)
            second_path = (Conditions.both(latency=rng.uniform(0, 0.2)),)
            overlap = attrs.evolve(overlap, second_path=second_path)
            changes = sorted(_resets(rng, duration, overlap), key=lambda change: change.at)
        if leave_at is not None and changes and rng.random() < 0.5:
            # Where it hurts.
            leave_at = rng.choice(changes).at + rng.choice([0.0, rng.uniform(0, 5)])
    return Schedule(
        seed=seed,
        duration=duration,
        faults=story,
        conditions=path,
        changes=tuple(changes),
        sends=tuple(_sends(rng, messages, duration)),
        says=tuple(_says(rng, messages, duration, steadily=lags)),
        promises=_promises(rng),
        # Later than the next rotation, it would be for a connection that has been left.
        ack_delay=rng.choice([0.0, 0.0, 0.5, 5.0] if overlap is None else [0.0, 0.5]),
        hangs_up=rng.random() < 0.1,
        poison=rng.randint(1, messages) if rng.random() < 0.05 else None,
        # One who hears a stream from its subscription on has asked for it before it is ready.
        topics=rng.choice([0, 0, 1, 3] if overlap is None else [1, 3]),
        overlap=overlap,
        # A server that holds back on one connection what it says on another says no one stream.
        buffer_size=rng.choice([512, 4096, 65536] if overlap is None else [2**20]),
        outbox=rng.choice([4, 1024, 1024]),
        inbox=inbox,
        drops=rng.choice(_DROPS),
        take_pause=take_pause,
        take_patience=rng.choice([None, None, None, 0.01, 0.7]),
        heartbeat=heartbeat,
        leave=rng.choice([Leave.END, Leave.END, *Leave]),
        leave_at=leave_at,
        is_flapping=is_flapping,
        disk=None if is_flapping or has_flood else _disk(rng, duration, leave_at),
    )


def _fault(rng: random.Random, number: int) -> Fault:
    kind = rng.random()
    if kind < 0.1:
        return faults.NONE
    if kind < 0.15:
        return Fault.slow_reads(rng.choice([5000.0, 50_000.0]))
    if kind < 0.4:
        return rng.choice(_IN_THE_HANDSHAKE)
    if kind < 0.45 and number:
        return rng.choice(_LATER)
    return rng.choice(_STRIKING).later(
        after_messages=rng.choice([0, rng.randint(0, 20)]),
        after=rng.choice([0.0, round(rng.uniform(0, 20), 3)]),
    )


def _way(rng: random.Random) -> Way:
    # More than a handshake has, and within what the messages amount to.
    cut_after = rng.choice([None, rng.randint(0, 600), rng.randint(200, 6000)])
    return Way(
        latency=rng.choice([0.0, 0.0, 0.05, 0.4]),
        bandwidth=rng.choice([None, None, None, 2000.0]),
        slice_size=rng.choice([None] * 8 + [13]),
        cut_after=cut_after,
        silent=rng.random() < 0.03,
    )


def _conditions(rng: random.Random) -> Conditions:
    if rng.random() < 0.08:
        return REFUSING
    return Conditions(up=_way(rng), down=_way(rng), cut=rng.choice(["reset", "end"]))


def _changes(rng: random.Random, duration: float, overlap: Overlap | None) -> Iterable[Change]:
    acts = list(Act)
    if overlap is None:
        acts.remove(Act.ROTATE)
    paths = 1 if overlap is None else overlap.redundancy
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        yield Change(rng.uniform(0, duration), rng.choice(acts))
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        at = rng.uniform(0, duration)
        path = rng.randrange(paths)
        match rng.randint(0, 5):
            case 0:
                yield Change(at, rng.choice([Strike.RESET, Strike.HANG_UP]), path)
            case 1:
                yield Change(at, rng.choice([Strike.STOP, Strike.GOODBYE]))
                yield Change(rng.uniform(at, duration), Strike.START)
            case 2:
                yield Change(at, _conditions(rng), path)
            case _:
                yield Change(at, rng.choice([BLACKOUT, HALF_OPEN_UP, HALF_OPEN_DOWN]), path)
                yield Change(rng.uniform(at, duration), CLEAR, path)


def _resets(rng: random.Random, duration: float, overlap: Overlap) -> Iterable[Change]:
    for _ in range(rng.randint(0, 6)):
        at = rng.uniform(0, duration)
        yield Change(at, Act.ROTATE)
        # About when there is a second connection, and what it does not bring is not here yet.
        at += rng.uniform(0, 1.5)
        yield Change(
            at, rng.choice([Strike.RESET, Strike.HANG_UP]), rng.randrange(overlap.redundancy)
        )


def _overlap(rng: random.Random) -> Overlap | None:
    if rng.random() < 0.7:
        return None
    return Overlap(
        redundancy=rng.choice([1, 2]),
        second_path=(*(_conditions(rng) for _ in range(rng.randint(0, 5))), CLEAR),
        # Each takes an attempt of the retry budget, which is for outages.
        rotate_every=rng.choice([None, rng.uniform(4, 10), rng.uniform(4, 60)]),
    )


def _pause(rng: random.Random, duration: float, messages: int) -> float:
    return rng.choice([0.0, rng.uniform(0, 2 * duration / messages)])


def _size(rng: random.Random) -> int:
    return rng.choice([0, 0, 0, rng.randint(0, 200), rng.randint(0, 5000)])


def _says(rng: random.Random, messages: int, duration: float, *, steadily: bool) -> Iterable[Say]:
    for _ in range(messages if steadily else rng.randint(0, messages)):
        pause = duration / messages if steadily else _pause(rng, duration, messages)
        yield Say(pause=pause, size=_size(rng), binary=rng.random() < 0.3)


def _promises(rng: random.Random) -> Promises:
    if rng.random() < 0.5:
        return Promises()
    return Promises(
        fence=rng.random() < 0.8,
        fence_every=rng.choice([1, 5, 256]),
        fence_interval=rng.choice([0.0, 1.0, 10.0]),
        overflow=rng.choice(list(OverflowPolicy)),
        resend_unknown=rng.random() < 0.2,
        max_attempts=rng.choice([math.inf, 1, 2]),
        rate=rng.choice([None, None, 10]),
    )


def _sends(rng: random.Random, messages: int, duration: float) -> Iterable[Send]:
    deliveries = rng.choice([list(Delivery), [Delivery.QUEUED], [rng.choice(list(Delivery))]])
    senders = rng.randint(1, 3)
    for key in range(1, messages + 1):
        yield Send(
            key=key,
            sender=rng.randint(1, senders),
            pause=_pause(rng, duration, max(1, messages // senders)),
            size=_size(rng),
            binary=rng.random() < 0.3,
            delivery=rng.choice(deliveries),
            patience=rng.choice([None] * 6 + [0.0, rng.uniform(0, 10)]),
            withdraw_after=rng.choice([None] * 9 + [0.0, rng.uniform(0, 10)]),
            is_awaited=rng.random() < 0.2,
            ttl=rng.choice([None, None, math.inf, math.inf, rng.uniform(0, 20)]),
            topic=rng.choice([None, "a", "b"]),
            asks=rng.choice([None] * 4 + [rng.uniform(0, 30)]),
            is_idempotent=rng.random() < 0.3,
        )


def _disk(rng: random.Random, duration: float, leave_at: float | None) -> OnDisk | None:
    if rng.random() < 0.7:
        return None
    latency = rng.choice([0.0, 0.002, 0.02, 0.2])
    until = duration if leave_at is None else leave_at
    spells = [_spell(rng, duration) for _ in range(rng.choice([0, 0, 1, 2]))]
    endings = [_ending(rng, until, latency) for _ in range(rng.choice([0, 1, 1, 2]))]
    return OnDisk(
        latency=latency,
        spells=tuple(sorted(spells, key=lambda spell: spell.at)),
        endings=tuple(sorted(endings, key=lambda ending: ending.at)),
    )


def _spell(rng: random.Random, duration: float) -> Spell:
    at = rng.uniform(0, duration)
    return Spell(
        at=at,
        until=rng.uniform(at, duration),
        latency=rng.choice([None, None, 0.6, 3.0]),
        failing=rng.choice([None, *Failing]),
        hangs=rng.random() < 0.2,
    )


def _ending(rng: random.Random, until: float, latency: float) -> Ending:
    return Ending(
        at=rng.uniform(0, until),
        leave=rng.choice([None, None, None, rng.choice(list(Leave))]),
        cue=rng.choice([Cue.TIME, Cue.COMMIT, Cue.HEARD]),
        after=rng.choice([0.0, latency * rng.random(), rng.uniform(0, 0.5)]),
        steps=rng.choice([0, rng.randint(0, 10)]),
        resets=rng.random() < 0.5,
        brings_back=rng.random() < 0.5,
        pause=rng.choice([0.0, rng.uniform(0, 5)]),
    )
