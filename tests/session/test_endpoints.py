"""Where to go next, of several endpoints."""

from __future__ import annotations

import pytest

from wsclient.session._access import Address
from wsclient.session._endpoints import Endpoints


@pytest.fixture
def endpoints():
    return Endpoints(Address(f"ws://{name}.test", None) for name in "abc")


def at(endpoints):
    return endpoints.current.endpoint.removeprefix("ws://").removesuffix(".test")


def test_s4_5_after_a_failure_comes_the_next_endpoint_until_all_were_tried(endpoints):
    visited = [at(endpoints)]
    while endpoints.advance(0):
        visited.append(at(endpoints))

    assert ["a", "b", "c"] == visited
    # The next round begins where it is due, with the next in turn.
    assert 5 == endpoints.advance_later(0, 5, 5)
    assert "a" == at(endpoints)
    assert endpoints.advance(5)
    assert "b" == at(endpoints)


def test_s4_4_an_endpoint_that_asks_to_be_left_alone_is_left_out_meanwhile(endpoints):
    endpoints.leave_alone(30)

    assert endpoints.advance(0)
    assert endpoints.advance(0)
    assert not endpoints.advance(0)
    # The others may be tried again, and it not yet.
    assert 5 == endpoints.advance_later(0, 5, 5)
    assert "b" == at(endpoints)
    assert endpoints.advance(5)
    assert not endpoints.advance(29)
    # It was not tried in this round: its time comes before the others'.
    assert 1 == endpoints.advance_later(29, 6, 6)
    assert "a" == at(endpoints)
    # Still the same round, which ends with it.
    assert not endpoints.advance(30)


def test_where_all_ask_for_it_the_first_that_may_be_tried_is_the_next(endpoints):
    for until in (50, 20, 40):
        endpoints.leave_alone(until)
        endpoints.advance(0)

    assert 20 == endpoints.advance_later(0, 5, 40)
    assert "b" == at(endpoints)


def test_the_same_endpoint_may_be_the_first_again(endpoints):
    while endpoints.advance(0):
        pass
    # Its own time is shorter than what the others have to wait for.
    assert 2 == endpoints.advance_later(0, 30, 2)
    assert "c" == at(endpoints)


def test_a_new_round_forgets_what_was_tried(endpoints):
    endpoints.advance(0)
    endpoints.advance(0)
    endpoints.begin_round()

    assert endpoints.advance(0)
    assert "a" == at(endpoints)


def test_a_single_endpoint_is_never_left():
    endpoints = Endpoints([Address("ws://a.test", None)])

    assert not endpoints.advance(0)
    assert 7 == endpoints.advance_later(3, 5, 7)
    assert "a" == at(endpoints)


def test_a_second_connection_goes_to_each_of_the_others_in_turn(endpoints):
    _, *others = endpoints.addresses

    assert [*others, *others] == [endpoints.beside(turn, 0)[0] for turn in range(4)]


def test_a_second_connection_goes_where_it_may_be_tried_first(endpoints):
    a, b, c = endpoints.addresses
    endpoints.leave_alone(20, b)

    assert (c, 0) == endpoints.beside(0, 10)
    assert (b, 0) == endpoints.beside(0, 20)
    endpoints.leave_alone(30, c)
    assert (a, 0) == endpoints.beside(0, 10)
    endpoints.leave_alone(40, a)
    assert (b, 10) == endpoints.beside(0, 10)
