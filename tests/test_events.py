"""Floor 0: what happened, and the words for it."""

from __future__ import annotations

import inspect

import attrs
import pytest

from wsclient import events
from wsclient.events import ChannelState, Event, Gap

FACTS = [
    kind
    for name, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, (Event, Gap))
]


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.__name__)
def test_a_fact_is_a_frozen_value_that_is_spelled_out(kind):
    values = {field.name: field.name for field in attrs.fields(kind)}
    fact = kind(**values)

    assert kind(**values) == fact
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(fact, next(iter(values)), "another")
    with pytest.raises(TypeError):
        kind(*values.values())


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.__name__)
def test_a_fact_has_no_place_for_a_secret(kind):
    secrets = {"url", "resource", "path", "query", "headers", "message", "payload", "password"}

    assert set() == secrets & {field.name for field in attrs.fields(kind)}


@pytest.mark.parametrize(("subprotocol", "shown"), [("secret", "…"), (None, "None")])
def test_a_subprotocol_is_not_printed_since_it_may_be_a_token(subprotocol, shown):
    event = events.ConnectionOpened(
        channel="feed",
        endpoint="ws://h",
        attempt=1,
        epoch=1,
        duration=0.5,
        subprotocol=subprotocol,
    )

    assert subprotocol == event.subprotocol
    assert repr(event).endswith(f"subprotocol={shown})")


def test_every_event_names_its_channel():
    assert all("channel" in attrs.fields_dict(kind) for kind in FACTS if kind is not Gap)


def test_closed_and_failed_are_final_and_nothing_else_is():
    assert {ChannelState.CLOSED, ChannelState.FAILED} == {
        state for state in ChannelState if state.is_final
    }


def test_all_public_names_exist():
    assert all(hasattr(events, name) for name in events.__all__)
    assert len(events.__all__) == len(set(events.__all__))
