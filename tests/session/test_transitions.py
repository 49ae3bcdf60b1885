"""Following a channel's state: every change, in order, for who takes its time."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest
import trio
import trio.testing

import wsclient
from wsclient.events import ChannelState, StateChanged
from wsclient.session._transitions import KEPT, Followers
from wsclient.testing import RESET_AFTER_OPEN, FaultServer


def change(number, state=ChannelState.CONNECTING):
    return StateChanged(channel="c", previous=state, state=state, cause=str(number))


@pytest.fixture
def followers():
    return Followers()


async def test_s3_each_change_is_followed_with_its_cause(autojump_clock, network):
    async with (
        FaultServer([RESET_AFTER_OPEN], network=network) as server,
        wsclient.open_channel(server.url, observers=()) as channel,
    ):
        transitions = channel.transitions()
        await channel.wait_state(ChannelState.WAITING)
        await channel.aclose()
        followed = [change async for change in transitions]

        assert [
            ChannelState.ESTABLISHING,
            ChannelState.READY,
            ChannelState.WAITING,
            ChannelState.CLOSED,
        ] == [change.state for change in followed]
        for one, next_one in itertools.pairwise(followed):
            assert one.state is next_one.previous
        assert "1006" in followed[2].cause
        # Once it is closed, nothing more comes.
        assert [] == [change async for change in channel.transitions()]


async def test_s3_of_too_many_the_oldest_are_dropped_and_counted(followers):
    transitions = followers.add(is_over=False)
    for number in range(KEPT + 3):
        followers.tell(change(number))
    followers.tell(change("last", ChannelState.CLOSED))
    followed = [change.cause async for change in transitions]

    assert [*map(str, range(4, KEPT + 3)), "last"] == followed
    assert 4 == transitions.dropped


async def test_who_waits_wakes_and_cancelling_loses_nothing(autojump_clock, followers):
    transitions = followers.add(is_over=False)
    with trio.move_on_after(1):
        await anext(transitions)
    followers.tell(change(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(transitions)

    assert "1" == (await anext(transitions)).cause
    async with trio.open_nursery() as nursery:

        async def follow():
            assert "2" == (await anext(transitions)).cause

        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        followers.tell(change(2))


async def test_several_follow_on_their_own(followers):
    one, another = followers.add(is_over=False), followers.add(is_over=False)
    followers.tell(change(1))

    assert "1" == (await anext(one)).cause
    followers.tell(change(2))
    assert ["1", "2"] == [(await anext(another)).cause for _ in range(2)]


def test_one_that_nobody_holds_is_forgotten(followers):
    gone = weakref.ref(followers.add(is_over=False))
    gc.collect()
    followers.tell(change(1))

    assert gone() is None
