"""The facts that received bytes amount to."""

from __future__ import annotations

import attrs
import pytest
import wsproto.events

from wsclient.protocol import (
    CloseReceived,
    PingReceived,
    PongReceived,
    ProtocolViolated,
    SendClose,
)

FACTS = [
    PingReceived(b"1"),
    PongReceived(b"1"),
    CloseReceived(1000, None),
    ProtocolViolated(1002, "why"),
]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_a_fact_is_a_frozen_value(fact):
    assert attrs.evolve(fact) == fact
    assert attrs.evolve(fact) is not fact
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(fact, attrs.fields(type(fact))[0].name, b"2")


def test_a_close_frame_on_its_way_out_is_one_of_wsprotos_events():
    event = SendClose(1001, "bye")

    assert isinstance(event, wsproto.events.CloseConnection)
    assert (1001, "bye") == (event.code, event.reason)


def test_a_ping_is_no_pong():
    assert PingReceived(b"1") != PongReceived(b"1")
