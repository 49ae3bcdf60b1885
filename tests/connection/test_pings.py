"""Pings on their way, and the pongs that answer them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wsclient.connection._pings import Pings, check_control_payload


def begin(pings, payload):
    """Register a ping that goes out at once."""
    ping = pings.register(payload)
    ping.begun()
    return ping


async def test_a_pong_answers_its_ping_and_every_earlier_one():
    pings = Pings()
    sent = [begin(pings, payload) for payload in (b"1", b"2", b"3")]
    pings.received(b"2")

    assert [True, True, False] == [ping.answered for ping in sent]
    assert [True, True, False] == [ping.resolved.is_set() for ping in sent]
    assert 1 == len(pings)


async def test_a_pong_answers_no_ping_that_was_written_after_its_own():
    pings = Pings()
    first, second = pings.register(b"1"), pings.register(b"2")
    second.begun()
    pings.received(b"2")

    assert (False, True) == (first.answered, second.answered)

    third = begin(pings, b"3")
    first.begun()
    pings.received(b"3")

    assert (False, True) == (first.answered, third.answered)
    pings.received(b"1")

    assert first.answered


async def test_a_pong_for_a_ping_that_is_not_on_its_way_is_ignored():
    pings = Pings()
    ping = pings.register(b"1")
    pings.received(b"1")

    assert not ping.answered
    assert pings.round_trips is None


async def test_who_began_a_ping_is_told_when_it_goes_and_when_it_is_answered():
    pings, heard = Pings(), []
    ping = pings.register(b"1")
    ping.on_begin = lambda: heard.append("begun")
    ping.on_answer = lambda: heard.append("answered")
    ping.begun()
    begin(pings, b"2")
    pings.received(b"2")

    assert ["begun", "answered"] == heard


async def test_a_pong_that_nobody_asked_for_is_ignored():
    pings = Pings()
    ping = begin(pings, b"1")
    pings.received(b"2")

    assert not ping.resolved.is_set()
    assert pings.round_trips is None


async def test_two_pings_in_flight_cannot_have_the_same_payload():
    pings = Pings()
    begin(pings, b"1")
    with pytest.raises(ValueError, match=r"^Payload value b'1' is already in flight\.$"):
        begin(pings, b"1")

    pings.received(b"1")
    begin(pings, b"1")


async def test_a_payload_may_be_empty_and_is_else_picked():
    pings = Pings()

    assert b"" == begin(pings, b"").payload
    assert 100 == len({pings.register(None).payload for _ in range(100)})


async def test_a_forgotten_ping_leaves_nothing_behind():
    pings = Pings()
    for _ in range(50):
        pings.forget(pings.register(None))

    assert 0 == len(pings)

    first = begin(pings, b"1")
    pings.forget(first)
    second = begin(pings, b"1")
    pings.forget(first)

    assert 1 == len(pings)
    pings.received(b"1")
    assert (False, True) == (first.answered, second.answered)


async def test_a_ping_whose_answer_someone_wants_to_hear_of_is_not_forgotten():
    pings, heard = Pings(), []
    ping = begin(pings, b"1")
    ping.on_answer = lambda: heard.append(True)
    pings.forget(ping)
    pings.received(b"1")

    assert [True] == heard
    assert 0 == len(pings)


async def test_giving_up_wakes_everyone_without_an_answer():
    pings = Pings()
    sent = [pings.register(None), pings.register(None)]
    pings.give_up()

    assert [True, True] == [ping.resolved.is_set() for ping in sent]
    assert [False, False] == [ping.answered for ping in sent]
    assert 0 == len(pings)


async def test_the_latency_is_that_of_the_last_pong(autojump_clock):
    pings = Pings()
    begin(pings, b"1")
    await trio.sleep(1)
    begin(pings, b"2")
    await trio.sleep(0.5)
    pings.received(b"2")

    assert pytest.approx(0.5) == pings.round_trips.last


async def test_a_round_trip_begins_when_its_ping_is_written(autojump_clock):
    pings = Pings()
    ping = begin(pings, b"1")
    await trio.sleep(5)
    ping.written()
    await trio.sleep(0.5)
    pings.received(b"1")
    begin(pings, b"2")
    await trio.sleep(1)
    pings.received(b"2")

    assert (0.5, 1) == (pings.round_trips.minimum, pings.round_trips.last)


@pytest.mark.parametrize(
    ("payload", "error", "text"),
    [
        ("1", TypeError, "payload must be bytes, not str"),
        (bytearray(b"1"), TypeError, "payload must be bytes, not bytearray"),
        (1, TypeError, "payload must be bytes, not int"),
        (b"x" * 126, ValueError, "^payload too long for control frame"),
    ],
)
async def test_a_payload_that_no_control_frame_can_carry_is_refused(payload, error, text):
    pings = Pings()
    with pytest.raises(error, match=text):
        check_control_payload(payload)
    with pytest.raises(error, match=text):
        begin(pings, payload)

    assert 0 == len(pings)


def test_a_payload_of_125_bytes_is_not_too_long():
    check_control_payload(b"x" * 125)
