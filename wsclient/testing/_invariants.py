"""What must hold of a channel, whatever happened to it: the promises as pure functions.

A :class:`History` is what was seen from outside: what the client sent and what its receipts said,
what it received, what each server connection heard and said.
Each invariant is a function of a history that gives a sentence for each breach, and needs neither a
clock nor a network; :func:`check` asks all of them.

A message is known by its *key*: anything hashable, unlike that of any other message of its side.
The message itself will do where all are different.
Where a server says one stream to all its connections, what it says has one key on all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import attrs

from wsclient.events import Delivery, Gap, Outcome, Overflow, Truth

EXIT: Final = 2.0
"""Seconds that leaving may take, beyond the time that was given for draining."""

_TOLERANCE: Final = 1e-6
"""Seconds: virtual time is added up in floating point."""


@attrs.frozen(kw_only=True)
class SentMessage:
    """A message that the client has tried to send."""

    key: Hashable
    delivery: Delivery
    """What was asked for."""
    accepted: bool
    """Whether there is a receipt; if not, the call was cancelled, or raised."""
    outcomes: tuple[Outcome, ...] = ()
    """What the receipt has said, one after the other, as far as it changed."""
    truth: Truth
    """What is claimed at the end: by the receipt, by the exception, or by the cancellation."""
    sender: Hashable = 0
    """Who sent it: the order is kept for each task that sends."""
    may_repeat: bool = False
    """Whether it may arrive twice although it is not ``ACKED``."""
    is_back: bool = False
    """Whether a crash has brought it back from a disk, though its sender knew it to be over.

    Then it has no place in the order."""


@attrs.frozen(kw_only=True)
class ServerSide:
    """One connection, as the server saw it."""

    number: int
    """Counts the server's connections."""
    heard: tuple[Hashable, ...] = ()
    """The keys of the messages that it has read, in order."""
    said: tuple[Hashable, ...] = ()
    """The keys of the messages that it began to send, in order."""
    violation: str | None = None
    """Which rule of the protocol the client broke, if it did."""
    pings: int = 0
    """Pings that were sent to the client in one go, while it could not answer."""
    pongs: int = 0
    """Pongs that came for them."""


@attrs.frozen(kw_only=True)
class Departure:
    """The client left."""

    state: str
    """Where the channel was, and how it was left."""
    took: float
    """Seconds."""
    drain: float = 0.0
    """Seconds that it was given to drain."""


@attrs.frozen(kw_only=True)
class Subscribed:
    """A connection became ready."""

    connection: int
    wanted: frozenset[Hashable]
    """What the client wants to be subscribed to."""
    there: frozenset[Hashable]
    """What the server has it subscribed to."""


@attrs.frozen(kw_only=True)
class Budget:
    """How often a client may try to connect."""

    attempts: int
    seconds: float
    """In any stretch of so many seconds."""


@attrs.frozen(kw_only=True)
class History:
    """What was seen of a channel, from its opening to its end."""

    sent: tuple[SentMessage, ...] = ()
    """What the client has tried to send, in order for each sender."""
    received: tuple[Hashable, ...] = ()
    """The keys of what the client received, and the ``Gap`` and ``Overflow`` items between."""
    server: tuple[ServerSide, ...] = ()
    """The server's connections, in order."""
    stream: tuple[Hashable, ...] | None = None
    """What the server says, in order, if each connection is told a stretch of the same; ``None``:
    each is told what no other is."""
    counted: Mapping[Outcome, int] | None = None
    """How many messages ended how, by the channel's own statistics; ``None``: not asked."""
    accepted: int = 0
    """How many messages were accepted, by the channel's own statistics: at least as many as there
    are receipts, since a call that raises gives none."""
    departures: tuple[Departure, ...] = ()
    left: tuple[str, ...] = ()
    """What was left behind at the end: tasks, waiters, descriptors."""
    attempts: tuple[float, ...] = ()
    """When the client tried to connect."""
    budget: Budget | None = None
    subscribed: tuple[Subscribed, ...] = ()
    pong_bound: int = 256
    """Pongs at most for pings that came while nothing could be written."""


@attrs.frozen
class Breach:
    """An invariant that does not hold."""

    invariant: str
    """Its name: ``I1`` to ``I13``."""
    text: str
    """What is wrong."""

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


Invariant: TypeAlias = Callable[[History], Iterator[str]]
"""Gives a sentence for each breach."""


def one_outcome(history: History) -> Iterator[str]:
    """I1: each accepted message has exactly one outcome, once."""
    for message in history.sent:
        if message.accepted and len(message.outcomes) != 1:
            told = " and then ".join(outcome.value for outcome in message.outcomes) or "none"
            yield f"{message.key} has not one outcome, but {told}"
    if history.counted is not None and sum(history.counted.values()) != history.accepted:
        counted = sum(history.counted.values())
        yield f"{history.accepted} messages were accepted, and {counted} outcomes were counted"


def certain_is_heard(history: History) -> Iterator[str]:
    """I2: what is said to be with the peer was read by the server."""
    heard = _heard(history)
    for message in history.sent:
        if message.truth is Truth.CERTAIN and not heard[message.key]:
            yield f"{message.key} is said to have arrived, and the server never read it"


def certainly_not_is_unheard(history: History) -> Iterator[str]:
    """I3: what is said never to have been written was not read by the server."""
    heard = _heard(history)
    for message in history.sent:
        if message.truth is Truth.CERTAINLY_NOT and heard[message.key]:
            yield f"{message.key} is said never to have been written, and the server read it"


def once_at_most(history: History) -> Iterator[str]:
    """I4: a message that is not ``ACKED`` is never read twice."""
    heard = _heard(history)
    for message in history.sent:
        may_repeat = message.may_repeat or message.delivery is Delivery.ACKED
        if heard[message.key] > 1 and not may_repeat:
            name = message.delivery.name
            yield f"{message.key} was sent as {name} and read {heard[message.key]} times"


def once_at_least(history: History) -> Iterator[str]:
    """I5: a message sent as ``ACKED`` is read at least once, or has another outcome."""
    heard = _heard(history)
    for message in history.sent:
        if message.accepted and message.delivery is Delivery.ACKED and not heard[message.key]:
            if Outcome.ACKED in message.outcomes:
                yield f"{message.key} is acknowledged, and the server never read it"
            elif not message.outcomes:
                yield f"{message.key} was to be acknowledged, and was forgotten"


def order_is_kept(history: History) -> Iterator[str]:
    """I6: messages are first read in the order in which each sender sent them."""
    first: dict[Hashable, int] = {}
    for connection in history.server:
        for key in connection.heard:
            first.setdefault(key, len(first))
    last: dict[Hashable, SentMessage] = {}
    for message in history.sent:
        if message.key in first and not message.is_back:
            before = last.get(message.sender)
            if before is not None and first[before.key] > first[message.key]:
                yield f"{message.key} was sent after {before.key} and read before it"
            else:
                last[message.sender] = message


def nothing_stale(history: History) -> Iterator[str]:
    """I7: once something of a connection was received, nothing of an earlier one is, or again.

    Of a stream that all connections are told, nothing is received twice, or after what is younger.
    """
    place = _places(history)
    newest = (-1, -1)
    for item in history.received:
        if item in place:
            if place[item] <= newest:
                what = "again" if place[item] == newest else "after what came later"
                whose = f"connection {place[item][0]}" if history.stream is None else "the stream"
                yield f"{item} of {whose} was received {what}"
            newest = max(newest, place[item])


def gaps_are_told(history: History) -> Iterator[str]:
    """I8: one gap for each discontinuity, and no other.

    Of a stream that all connections are told, nothing is missing unless a gap stands there; and a
    gap may stand where nothing is missing, since that cannot always be proven.
    """
    place = _places(history)
    before: tuple[int, int] | None = None
    gap: Gap | None = None  # The last one.
    gaps = dropped = 0  # Since the last message.
    for item in history.received:
        if isinstance(item, Overflow):
            dropped += item.messages
        elif isinstance(item, Gap):
            if gap is not None and item.after < gap.before:
                yield f"a gap from {item.after} to {item.before} follows one to {gap.before}"
            elif gaps and history.stream is None and gap and item.after != gap.before:
                yield f"a gap from {item.after} stands beside one to {gap.before}"
            gap = item
            gaps += 1
        elif item in place:
            here = place[item]
            if before is not None and here <= before:
                continue  # Stale: that is for I7.
            is_new = before is None or here[0] != before[0]
            missing = here[1] if is_new or before is None else here[1] - before[1] - 1
            if history.stream is not None:
                # What was said before the first one may have been before we came.
                is_untold = before is not None and not gaps and missing != dropped
            else:
                if is_new and before is not None and not gaps:
                    yield f"no gap stands between connections {before[0]} and {here[0]}"
                if not is_new and gaps:
                    yield f"a gap stands between messages of connection {here[0]}"
                is_untold = missing > dropped if is_new else not gaps and missing != dropped
            if is_untold:
                yield f"{missing} messages are missing before {item}, {dropped} are told of"
            before = here
            gaps = dropped = 0


def leaves_in_time(history: History) -> Iterator[str]:
    """I9: from every state, leaving takes two seconds at most beyond the drain."""
    for departure in history.departures:
        if departure.took > departure.drain + EXIT + _TOLERANCE:
            yield (
                f"leaving took {departure.took:.3f} s ({departure.state}),"
                f" with {departure.drain:g} s to drain"
            )


def nothing_left(history: History) -> Iterator[str]:
    """I10: nothing is left at the end, and what the peer may pile up is bounded."""
    for what in history.left:
        yield f"{what} was left behind"
    for connection in history.server:
        if connection.pongs > history.pong_bound:
            yield (
                f"{connection.pongs} pongs had piled up for {connection.pings} pings"
                f" on connection {connection.number}"
            )


def within_budget(history: History) -> Iterator[str]:
    """I11: a server sees no more attempts than the budget allows."""
    if history.budget is None:
        return
    allowed, seconds = history.budget.attempts, history.budget.seconds
    for index in range(len(history.attempts) - allowed):
        took = history.attempts[index + allowed] - history.attempts[index]
        if took < seconds - _TOLERANCE:
            yield f"{allowed + 1} attempts within {took:.3f} s; {allowed} in {seconds:g} s may be"
            return


def wanted_is_there(history: History) -> Iterator[str]:
    """I12: when a connection is ready, the server has what the client wants."""
    for ready in history.subscribed:
        if ready.wanted != ready.there:
            missing = sorted(map(str, ready.wanted - ready.there))
            unwanted = sorted(map(str, ready.there - ready.wanted))
            yield f"connection {ready.connection} is ready without {missing} and with {unwanted}"


def messages_are_whole(history: History) -> Iterator[str]:
    """I13: no message is split over two connections, in either direction."""
    ours = {message.key for message in history.sent}
    theirs = _places(history)
    for connection in history.server:
        if connection.violation is not None:
            yield f"connection {connection.number} broke the protocol: {connection.violation}"
        for key in connection.heard:
            if key not in ours:
                yield f"connection {connection.number} read {key!r}, which nobody sent"
    for item in history.received:
        if not isinstance(item, (Gap, Overflow)) and item not in theirs:
            yield f"{item!r} was received, which no connection sent"


INVARIANTS: Final[Mapping[str, Invariant]] = {
    "I1": one_outcome,
    "I2": certain_is_heard,
    "I3": certainly_not_is_unheard,
    "I4": once_at_most,
    "I5": once_at_least,
    "I6": order_is_kept,
    "I7": nothing_stale,
    "I8": gaps_are_told,
    "I9": leaves_in_time,
    "I10": nothing_left,
    "I11": within_budget,
    "I12": wanted_is_there,
    "I13": messages_are_whole,
}
"""All of them, by their names in what wsclient promises."""


def check(history: History, invariants: Iterable[str] = tuple(INVARIANTS)) -> list[Breach]:
    """Ask the invariants, or only some, whether they hold.

    Args:
        history: What was seen.
        invariants: The names of those to ask, such as ``["I2", "I4"]``.

    Returns:
        Every breach; nothing, if all is well.

    Raises:
        KeyError: There is no such invariant.
    """
    return [Breach(name, text) for name in invariants for text in INVARIANTS[name](history)]


def _heard(history: History) -> Counter[Hashable]:
    return Counter(key for connection in history.server for key in connection.heard)


def _places(history: History) -> dict[Hashable, tuple[int, int]]:
    """Which connection sent a message, and as which of its messages; a stream is like one."""
    if history.stream is not None:
        return {key: (0, index) for index, key in enumerate(history.stream)}
    return {
        key: (connection.number, index)
        for connection in history.server
        for index, key in enumerate(connection.said)
    }
