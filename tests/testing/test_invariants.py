"""Each invariant lets a good history pass, and names what is wrong with a bad one."""

import attrs
import pytest

from wsclient.events import Delivery, Gap, Outcome, Overflow, Truth
from wsclient.testing import (
    Breach,
    Budget,
    Departure,
    History,
    SentMessage,
    ServerSide,
    Subscribed,
    check,
)
from wsclient.testing._invariants import INVARIANTS

WRITTEN = (Outcome.WRITTEN,)


def sent(key, truth=Truth.UNKNOWN, **more):
    more = {"accepted": True, "delivery": Delivery.QUEUED, "outcomes": WRITTEN} | more
    return SentMessage(key=key, truth=truth, **more)


def gap(after, before):
    return Gap(after=after, before=before, since=0.0, until=1.0, reason="it was cut")


def sides(*heard, said=()):
    return tuple(
        ServerSide(
            number=number,
            heard=tuple(keys),
            said=tuple(said[number - 1]) if len(said) >= number else (),
        )
        for number, keys in enumerate(heard, 1)
    )


GOOD = History(
    sent=(
        sent(1, Truth.CERTAIN),
        sent(2),
        sent(3, Truth.CERTAINLY_NOT, outcomes=(Outcome.CANCELLED,)),
        sent(4, Truth.CERTAINLY_NOT, accepted=False, outcomes=()),
        sent(5, sender="another"),
        sent(6, may_repeat=True),
    ),
    server=(
        ServerSide(number=1, heard=(5, 1, 6), said=("1.0", "1.1"), pings=300, pongs=200),
        ServerSide(number=3, heard=(6,), said=("3.0", "3.1", "3.2")),
    ),
    received=("1.0", "1.1", gap(1, 2), gap(2, 3), "3.0", Overflow(1), "3.2", gap(3, 5)),
    counted={Outcome.WRITTEN: 4, Outcome.CANCELLED: 1},
    accepted=5,
    departures=(Departure(state="ready", took=6.9, drain=5), Departure(state="waiting", took=2)),
    attempts=(0.0, 1.0, 2.0, 10.0, 11.0, 12.0),
    budget=Budget(attempts=3, seconds=10),
    subscribed=(Subscribed(connection=1, wanted=frozenset("ab"), there=frozenset("ba")),),
)


def test_good_history_passes():
    assert [] == check(GOOD)
    assert [] == check(History())
    assert [f"I{number}" for number in range(1, 14)] == list(INVARIANTS)


@pytest.mark.parametrize(
    ("invariant", "history", "text"),
    [
        ("I1", {"sent": (sent(1, outcomes=()),)}, "1 has not one outcome, but none"),
        (
            "I1",
            {"sent": (sent(1, outcomes=(Outcome.WRITTEN, Outcome.LOST_UNKNOWN)),)},
            "1 has not one outcome, but written and then lost: unknown",
        ),
        (
            "I1",
            {"sent": (sent(1),), "counted": {Outcome.WRITTEN: 2}, "accepted": 1},
            "1 messages were accepted, and 2 outcomes were counted",
        ),
        (
            "I2",
            {"sent": (sent(1, Truth.CERTAIN),)},
            "1 is said to have arrived, and the server never read it",
        ),
        (
            "I3",
            {
                "sent": (sent(1, Truth.CERTAINLY_NOT, accepted=False, outcomes=()),),
                "server": sides([1]),
            },
            "1 is said never to have been written, and the server read it",
        ),
        (
            "I4",
            {"sent": (sent(1),), "server": sides([1], [1])},
            "1 was sent as QUEUED and read 2 times",
        ),
        (
            "I6",
            {"sent": (sent(1), sent(2), sent(3)), "server": sides([1, 3], [2])},
            "3 was sent after 2 and read before it",
        ),
        (
            "I7",
            {
                "server": sides([], [], said=(["a", "b"], ["c"])),
                "received": ("a", gap(1, 2), "c", "b"),
            },
            "b of connection 1 was received after what came later",
        ),
        (
            "I7",
            {"server": sides([], said=(["a", "b"],)), "received": ("a", "b", "b")},
            "b of connection 1 was received again",
        ),
        (
            "I8",
            {"server": sides([], [], said=("a", "b")), "received": ("a", "b")},
            "no gap stands between connections 1 and 2",
        ),
        (
            "I8",
            {"server": sides([], said=(["a", "b"],)), "received": ("a", gap(1, 2), "b")},
            "a gap stands between messages of connection 1",
        ),
        (
            "I8",
            {"received": (gap(1, 2), gap(1, 2))},
            "a gap from 1 to 2 follows one to 2",
        ),
        (
            "I8",
            {"received": (gap(1, 2), gap(3, 4))},
            "a gap from 3 stands beside one to 2",
        ),
        (
            "I8",
            {"server": sides([], said=(["a", "b"],)), "received": ("b",)},
            "1 messages are missing before b, 0 are told of",
        ),
        (
            "I8",
            {"server": sides([], said=(["a", "b", "c", "d"],)), "received": ("a", "d")},
            "2 messages are missing before d, 0 are told of",
        ),
        (
            "I8",
            {
                "server": sides([], said=(["a", "b", "c"],)),
                "received": ("a", Overflow(2), "c"),
            },
            "1 messages are missing before c, 2 are told of",
        ),
        (
            "I7",
            {"stream": ("a", "b"), "received": ("a", "b", "a")},
            "a of the stream was received after what came later",
        ),
        (
            "I7",
            {"stream": ("a", "b"), "received": ("a", "a")},
            "a of the stream was received again",
        ),
        (
            "I8",
            {"stream": ("a", "b", "c"), "received": ("a", "c")},
            "1 messages are missing before c, 0 are told of",
        ),
        (
            "I8",
            {"stream": ("a", "b", "c", "d"), "received": ("a", Overflow(1), "d")},
            "2 messages are missing before d, 1 are told of",
        ),
        (
            "I8",
            {"stream": ("a",), "received": (gap(1, 3), gap(2, 4))},
            "a gap from 2 to 4 follows one to 3",
        ),
        (
            "I9",
            {"departures": (Departure(state="waiting", took=7.5, drain=5),)},
            "leaving took 7.500 s (waiting), with 5 s to drain",
        ),
        ("I10", {"left": ("a task",)}, "a task was left behind"),
        (
            "I10",
            {"server": (ServerSide(number=2, pings=1000, pongs=257),)},
            "257 pongs had piled up for 1000 pings on connection 2",
        ),
        (
            "I11",
            {"attempts": (0, 5, 9.9), "budget": Budget(attempts=2, seconds=10)},
            "3 attempts within 9.900 s; 2 in 10 s may be",
        ),
        (
            "I12",
            {"subscribed": (Subscribed(connection=3, wanted={"b", "a"}, there={"b", "c"}),)},
            "connection 3 is ready without ['a'] and with ['c']",
        ),
        ("I13", {"server": sides([1])}, "connection 1 read 1, which nobody sent"),
        (
            "I13",
            {"server": (ServerSide(number=1, violation="not masked"),)},
            "connection 1 broke the protocol: not masked",
        ),
        ("I13", {"received": ("xy",)}, "'xy' was received, which no connection sent"),
    ],
)
def test_breach_is_found_by_its_invariant_and_no_other(invariant, history, text):
    breaches = check(History(**history))

    assert [Breach(invariant, text)] == breaches
    assert f"{invariant}: {text}" == str(breaches[0])
    assert [] == check(History(**history), set(INVARIANTS) - {invariant})


def test_acknowledged_messages_may_repeat_and_must_not_be_forgotten():
    again = sent(1, Truth.CERTAIN, delivery=Delivery.ACKED, outcomes=(Outcome.ACKED,))

    assert [] == check(History(sent=(again,), server=sides([1], [1])))
    assert ["I2", "I5"] == [breach.invariant for breach in check(History(sent=(again,)))]

    lost = attrs.evolve(again, truth=Truth.UNKNOWN, outcomes=(Outcome.LOST_UNKNOWN,))

    assert [] == check(History(sent=(lost,)))

    forgotten = attrs.evolve(lost, outcomes=())

    assert ["I1", "I5"] == [breach.invariant for breach in check(History(sent=(forgotten,)))]


def test_i6_what_a_crash_has_brought_back_has_no_place_in_the_order():
    late = attrs.evolve(sent(1), is_back=True)

    assert [] == check(History(sent=(late, sent(2)), server=sides([2], [1])), ["I6"])
