"""A channel's states: the table, cell by cell, and who waits for a state."""

from __future__ import annotations

import pytest
import trio

from wsclient.events import ChannelState
from wsclient.session._states import TRANSITIONS, States, Step

# S3.1: what follows which state (rows) by which step (columns); a dot is a bug.
TABLE = """
             OPENED        ESTABLISHED  LOST       MOVED       WAITED      LEFT      CLOSED  GAVE_UP
CONNECTING   ESTABLISHING  .            WAITING    .           .           DRAINING  CLOSED  FAILED
ESTABLISHING .             READY        WAITING    .           .           DRAINING  CLOSED  FAILED
READY        .             READY        WAITING    CONNECTING  .           DRAINING  CLOSED  FAILED
WAITING      .             .            .          .           CONNECTING  DRAINING  CLOSED  FAILED
DRAINING     DRAINING      DRAINING     DRAINING   DRAINING    DRAINING    .         CLOSED  FAILED
CLOSED       .             .            .          .           .           .         .       .
FAILED       .             .            .          .           .           .         .       .
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [
    (ChannelState[row[0]], Step[step], None if cell == "." else ChannelState[cell])
    for row in ROWS
    for step, cell in zip(HEAD, row[1:], strict=True)
]


class Changes(list):
    """What the states' owner was told."""

    def __call__(self, *change):
        self.append(change)


@pytest.fixture
def changes():
    return Changes()


@pytest.fixture
def states(changes):
    return States(changes)


def test_the_table_has_every_state_and_every_step():
    assert set(ChannelState) == {state for state, _, _ in CELLS}
    assert set(ChannelState) == set(TRANSITIONS)
    assert set(Step) == {step for _, step, _ in CELLS}


@pytest.mark.parametrize(("state", "step", "following"), CELLS)
def test_s3_1_every_step_leads_where_the_table_says(states, changes, state, step, following):
    states.state = state
    if following is None:
        with pytest.raises(RuntimeError, match="no transition"):
            states.advance(step, "cause")
    else:
        states.advance(step, "cause")

    assert (following or state) is states.state
    told = [] if following in (None, state) else [(state, following, "cause")]

    assert told == changes


def test_a_change_without_a_cause_is_told_with_its_step(states, changes):
    states.advance(Step.OPENED)

    assert [
        (ChannelState.CONNECTING, ChannelState.ESTABLISHING, "the connection is open")
    ] == changes


def test_s3_1_only_ready_and_final_states_are_not_ended_by_a_timer(states):
    # Whatever lasts has a step that its timer takes; DRAINING is ended by whoever drains.
    timers = {
        ChannelState.CONNECTING: Step.LOST,
        ChannelState.ESTABLISHING: Step.LOST,
        ChannelState.WAITING: Step.WAITED,
        ChannelState.DRAINING: Step.CLOSED,
    }

    assert set(timers) == {
        state for state in ChannelState if not state.is_final and state is not ChannelState.READY
    }
    assert all(step in TRANSITIONS[state] for state, step in timers.items())


# --- waiting for a state ------------------------------------------------------------------------


async def test_the_present_state_ends_a_wait_at_once(states, autojump_clock):
    assert ChannelState.CONNECTING is await states.wait_for(ChannelState.CONNECTING)
    assert 0 == trio.current_time()


async def test_a_wait_ends_when_the_state_is_entered(states, autojump_clock, nursery):
    seen = []

    async def wait():
        state = await states.wait_for(ChannelState.READY, ChannelState.WAITING)
        seen.append((state, trio.current_time()))

    nursery.start_soon(wait)
    await trio.sleep(1)
    states.advance(Step.OPENED)
    await trio.sleep(1)

    assert [] == seen
    states.advance(Step.ESTABLISHED)
    await trio.testing.wait_all_tasks_blocked()

    assert [(ChannelState.READY, 2.0)] == seen


async def test_a_state_that_was_left_before_the_waiter_ran_was_seen_all_the_same(
    states, autojump_clock, nursery
):
    seen = []

    async def wait():
        seen.append(await states.wait_for(ChannelState.READY))

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    for step in (Step.OPENED, Step.ESTABLISHED, Step.LOST, Step.WAITED):
        states.advance(step)
    await trio.testing.wait_all_tasks_blocked()

    assert [ChannelState.READY] == seen
    assert ChannelState.CONNECTING is states.state


async def test_a_state_that_came_and_went_in_the_first_checkpoint_of_a_wait_was_seen(
    changes, autojump_clock
):
    seen = []

    async def wait(states, began):
        began.append(True)
        with trio.move_on_after(1):
            seen.append(await states.wait_for(ChannelState.READY))

    for _ in range(20):  # Who runs first in a step of the scheduler is chance.
        states, began = States(changes), []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, states, began)
            while not began:
                await trio.lowlevel.cancel_shielded_checkpoint()
            for step in (Step.OPENED, Step.ESTABLISHED, Step.LOST):
                states.advance(step)

    assert [ChannelState.READY] * 20 == seen


async def test_the_first_of_several_states_ends_the_wait(states, nursery):
    seen = []

    async def wait():
        seen.append(await states.wait_for(ChannelState.READY, ChannelState.ESTABLISHING))

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    states.advance(Step.OPENED)
    states.advance(Step.ESTABLISHED)
    await trio.testing.wait_all_tasks_blocked()

    assert [ChannelState.ESTABLISHING] == seen


@pytest.mark.parametrize(
    ("step", "final"), [(Step.CLOSED, ChannelState.CLOSED), (Step.GAVE_UP, ChannelState.FAILED)]
)
async def test_s7_3_no_waiter_survives_a_final_state(states, nursery, step, final):
    seen = []

    async def wait(state):
        seen.append(await states.wait_for(state))

    waited_for = [state for state in ChannelState if state is not ChannelState.CONNECTING]
    for state in waited_for:
        nursery.start_soon(wait, state)
    await trio.testing.wait_all_tasks_blocked()
    states.advance(step)
    await trio.testing.wait_all_tasks_blocked()

    assert [final] * len(waited_for) == seen
    assert final is await states.wait_for(ChannelState.READY)
    assert [] == states._waiters


async def test_a_cancelled_wait_leaves_nothing_behind(states, autojump_clock):
    with trio.move_on_after(1):
        await states.wait_for(ChannelState.READY)

    assert [] == states._waiters
    with trio.CancelScope() as scope:
        scope.cancel()
        await states.wait_for(ChannelState.CONNECTING)

    assert scope.cancelled_caught
    assert [] == states._waiters
