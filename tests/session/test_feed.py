"""What a feed gives: each value once and in order, and what is missing where it is missing."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

import wsclient
from wsclient import (
    ChannelState,
    Gap,
    Limits,
    Overflow,
    OverflowPolicy,
    Published,
    Subscribed,
    SubscriptionOptions,
)
from wsclient.errors import ChannelFailed, ReplyError, SubscriptionFailed
from wsclient.events import GapDetected, HandlerFailed, InboxOverflowed
from wsclient.session._feed import Snapshot, check_wish
from wsclient.testing import ScriptedServer

from .subscribing import (
    Growing,
    Positioned,
    PubSub,
    confirm,
    cut,
    cut_and_confirm,
    publish,
    say,
    settle,
    take,
)


@pytest.fixture
async def server(network):
    async with ScriptedServer(network=network) as server:
        yield server


@pytest.fixture
def open_channel(server, recorder):
    def open_channel(protocol=None, **options):
        options.setdefault("observers", [recorder])
        return wsclient.open_channel(server.url, protocol=protocol or Positioned(), **options)

    return open_channel


class Past:
    """A ``backfill`` that the test lets go on, and what it was asked for."""

    def __init__(self, *values):
        self.values = list(values)
        self.asked = []
        self.may_go_on = trio.Event()

    async def __call__(self, gap):
        self.asked.append((gap.after_position, gap.subscription))
        await self.may_go_on.wait()
        return self.values


async def test_s6_2_what_was_missed_is_brought_and_live_values_wait_meanwhile(
    autojump_clock, server, open_channel, recorder
):
    past = Past(2, 3, 4)
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        # Both have the fourth: the stream was read first, and the past second.
        await publish(server, 4, 5)
        await settle()
        assert await take(feed, 1) == [1]
        with trio.move_on_after(1) as patience:
            await feed.receive()
        assert patience.cancelled_caught

        past.may_go_on.set()

        assert await take(feed, 4) == [2, 3, 4, 5]
        assert past.asked == [(1, "a")]
    assert recorder.of(HandlerFailed) == []


async def test_a_backfill_may_be_an_async_generator(autojump_clock, server, open_channel):
    closed = []

    async def past(gap):
        try:
            for n in range(gap.after_position + 1, 5):
                await trio.sleep(1)
                yield n
        finally:
            closed.append(gap.after_position)

    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await publish(server, 5)

        assert await take(feed, 5) == [1, 2, 3, 4, 5]
    assert closed == [1]


async def test_what_a_backfill_leaves_out_is_a_gap(autojump_clock, server, open_channel):
    past = Past(2, 3)
    past.may_go_on.set()
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await settle()
        await publish(server, 9)

        *brought, gap, last = await take(feed, 5)
        assert (brought, last) == ([1, 2, 3], 9)
        assert (gap.after_position, gap.before_position) == (3, 9)


async def test_where_positions_only_grow_a_backfill_is_believed(
    autojump_clock, server, open_channel
):
    past = Past(2, 3)
    past.may_go_on.set()
    async with open_channel(Growing()) as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await publish(server, 9)

        assert await take(feed, 4) == [1, 2, 3, 9]


@pytest.mark.parametrize("failure", ["raises", "is late"])
async def test_a_backfill_that_fails_leaves_a_gap_and_is_told(
    autojump_clock, server, open_channel, recorder, failure
):
    async def past(gap):
        if failure == "raises":
            raise LookupError("no such history")
        await trio.sleep_forever()

    options = SubscriptionOptions(hook_timeout=3)
    async with (
        open_channel(subscriptions=options) as channel,
        channel.subscribe("a", backfill=past) as feed,
    ):
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await publish(server, 5)

        one, gap, five = await take(feed, 3)
        assert (one, gap.after_position, gap.before_position, five) == (1, 1, 5, 5)
    told = recorder.of(HandlerFailed)[0]
    assert told.subject == "backfill"
    assert type(told.error) is (LookupError if failure == "raises" else trio.TooSlowError)


@pytest.mark.parametrize("hook", ["backfill", "snapshot"])
async def test_s7_2_a_hook_that_fails_as_it_is_cut_off_is_told_and_the_channel_lives(
    autojump_clock, server, open_channel, recorder, hook
):
    calls = []

    async def give_back():
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("mine")

    async def bring(*_):
        calls.append(trio.current_time())
        if len(calls) == 1:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(give_back)
                nursery.start_soon(trio.sleep_forever)
        return Snapshot("all", 6) if hook == "snapshot" else [5, 6]

    async with open_channel() as channel, channel.subscribe("a", **{hook: bring}) as feed:
        await confirm(server)
        await publish(server, 1)
        for number in (4, 7):
            await cut(server, channel)
            await confirm(server)
            await channel.wait_ready()
            await publish(server, number)
        with trio.fail_after(60):
            while await feed.receive() != 7:
                pass

    assert 2 <= len(calls)
    (told,) = recorder.of(HandlerFailed)
    assert (hook, [LookupError]) == (told.subject, [type(each) for each in told.error.exceptions])


async def test_a_backfill_that_is_cut_off_begins_anew_on_the_next_connection(
    autojump_clock, server, open_channel
):
    past = Past(2, 3, 4, 5, 6)
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 4)
        await cut(server, channel)
        await confirm(server)
        await publish(server, 7)
        past.may_go_on.set()

        assert await take(feed, 7) == [1, 2, 3, 4, 5, 6, 7]
        assert past.asked == [(1, "a"), (1, "a")]


async def test_what_was_received_before_a_second_cut_is_not_lost_where_nothing_is_brought(
    autojump_clock, server, open_channel
):
    async def past(gap):
        if gap.before < 3:
            await trio.sleep_forever()
        raise LookupError("no such history")

    async with open_channel(Growing()) as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 4)
        await cut(server, channel)
        await confirm(server)
        await publish(server, 7)

        one, first, four, second, seven = await take(feed, 5)
        assert (one, four, seven) == (1, 4, 7)
        assert (first.after_position, first.before_position) == (1, 4)
        assert (second.after_position, second.before_position) == (4, 7)


async def test_positions_that_are_left_out_are_brought_too(autojump_clock, server, open_channel):
    past = Past(2, 3)
    past.may_go_on.set()
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1, 4)

        assert await take(feed, 4) == [1, 2, 3, 4]
        assert past.asked == [(1, "a")]


async def test_another_process_gets_what_it_missed(autojump_clock, server, open_channel):
    past = Past(42, 43)
    past.may_go_on.set()
    async with open_channel() as channel:
        async with channel.subscribe("a", after=41, backfill=past) as feed:
            await confirm(server)
            await publish(server, 44)

            assert await take(feed, 3) == [42, 43, 44]


async def test_a_slow_taker_makes_a_backfill_wait_and_not_fail(
    autojump_clock, server, open_channel, recorder
):
    past = Past(*range(2, 200))
    past.may_go_on.set()
    async with open_channel(subscriptions=SubscriptionOptions(hook_timeout=2)) as channel:
        async with channel.subscribe("a", backfill=past, limits=Limits(inbox_messages=5)) as feed:
            await confirm(server)
            await publish(server, 1)
            await cut(server, channel)
            await confirm(server)
            for n in range(1, 200):
                assert await feed.receive() == n
                await trio.sleep(1)
    assert recorder.of(HandlerFailed) == []


async def test_no_more_of_the_past_is_asked_for_than_is_taken_and_its_generator_is_closed(
    autojump_clock, server, open_channel
):
    given, closed = [], []

    async def past(gap):
        try:
            for n in range(gap.after_position + 1, 100):
                given.append(n)
                yield n
        finally:
            closed.append(gap.after_position)

    async with open_channel() as channel:
        limits = Limits(inbox_messages=5)
        async with channel.subscribe("a", after=0, backfill=past, limits=limits) as feed:
            await confirm(server)
            await channel.wait_ready()
            await settle()
            assert 5 <= len(given) <= 7
            assert await feed.receive() == 1
        await settle()

        assert closed == [0]


async def test_what_the_past_brings_twice_is_counted(autojump_clock, server, open_channel):
    past = Past(1, 2, 2, 3)
    past.may_go_on.set()
    async with open_channel() as channel:
        async with channel.subscribe("a", after=1, backfill=past) as feed:
            await confirm(server)

            assert [2, 3] == await take(feed, 2)
            assert feed.repeated == 2


async def test_a_feed_that_is_left_ends_its_backfill(autojump_clock, server, open_channel):
    past = Past()
    ended = []

    async def watched(gap):
        try:
            await past(gap)
        finally:
            ended.append(trio.current_time())

    async with open_channel() as channel:
        async with channel.subscribe("a", after=3, backfill=watched):
            await confirm(server)
            await channel.wait_ready()
            await settle()
            assert past.asked
        await settle()

        assert len(ended) == 1


async def test_a_position_may_stand_beside_a_value_that_is_brought(
    autojump_clock, server, open_channel
):
    class Beside(PubSub):
        def recognise(self, message):
            signal = super().recognise(message)
            if isinstance(signal, Published):
                return Published(signal.tag, f"no. {signal.value}", position=signal.value)
            return signal

        def is_next(self, before, after):
            return after == before + 1

    past = Past(*(Published("a", f"no. {n}", position=n) for n in (2, 3)))
    past.may_go_on.set()
    async with open_channel(Beside()) as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await publish(server, 3, 4)

        assert await take(feed, 4) == ["no. 1", "no. 2", "no. 3", "no. 4"]


async def test_a_confirmation_that_says_where_the_stream_stands_can_remove_a_doubt(
    autojump_clock, server, open_channel
):
    class Standing(Growing):
        def recognise(self, message):
            signal = super().recognise(message)
            if isinstance(signal, Subscribed):
                return Subscribed(signal.tag, position=1)
            return signal

    async with open_channel(Standing()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        assert channel.is_resumed
        await publish(server, 5)

        assert await take(feed, 2) == [1, 5]


# Snapshots.


async def test_behind_a_stream_that_has_gone_back_a_new_snapshot_is_taken_and_nothing_is_brought(
    autojump_clock, server, open_channel
):
    past = Past()
    async with open_channel() as channel:
        async with channel.subscribe("a", backfill=past, snapshot=snapshots(5, 1)) as feed:
            await confirm(server)
            await settle()
            await publish(server, 6, 2)

            state, six, gap, again, two = await take(feed, 5)
            assert (state, six, again, two) == ("state at 5", 6, "state at 1", 2)
            assert "gone back" in gap.reason
            assert past.asked == []


def snapshots(*given):
    """A ``snapshot`` that gives one after the other."""
    queue = list(given)

    async def snapshot():
        await trio.lowlevel.checkpoint()
        position = queue.pop(0)
        if isinstance(position, Exception):
            raise position
        return Snapshot(f"state at {position}", position)

    return snapshot


async def test_what_waits_for_a_snapshot_is_dropped_as_the_user_has_chosen(
    autojump_clock, server, open_channel
):
    limits = Limits(
        inbox_messages=4, inbox_overflow=OverflowPolicy.CONFLATE, inbox_key=lambda value: value % 3
    )
    taken = []

    async def snapshot():
        taken.append(None)
        await trio.sleep(5)
        return Snapshot(35, 35)

    async with open_channel(Growing()) as channel:
        async with channel.subscribe("a", snapshot=snapshot, limits=limits) as feed:
            await confirm(server)
            await channel.wait_ready()
            await publish(server, *range(6, 39))

            assert [35, Overflow(30), 36, 37, 38] == await take(feed, 5)
    assert len(taken) == 1


async def test_s6_2_a_snapshot_comes_first_and_then_what_is_newer(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a", snapshot=snapshots(5)) as feed:
        await confirm(server)
        await publish(server, 4, 5, 6)

        assert await take(feed, 2) == ["state at 5", 6]


async def test_a_snapshot_that_is_too_old_is_taken_again(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        async with channel.subscribe("a", snapshot=snapshots(5, 7)) as feed:
            await server.expect(lambda message: '"subscribe"' in message)
            # Before the confirmation, so that it is there before the first snapshot.
            await publish(server, 7, 8)
            await server.send({"op": "subscribed", "key": "a"})

            began_at = trio.current_time()
            assert await take(feed, 2) == ["state at 7", 8]
            # The service has time for it.
            assert trio.current_time() > began_at


async def test_a_gap_that_comes_between_two_snapshots_is_made_irrelevant_by_the_second(
    autojump_clock, server, open_channel
):
    retry = wsclient.RetryPolicy(
        wait=lambda state: 10 if "too old" in str(state.outcome.exception()) else 1
    )
    async with open_channel(retry=retry) as channel:
        async with channel.subscribe("a", snapshot=snapshots(1, 9)) as feed:
            await server.expect(lambda message: '"subscribe"' in message)
            await publish(server, 5)
            await server.send({"op": "subscribed", "key": "a"})
            await channel.wait_ready()
            await settle()
            await ended(server, channel)
            await publish(server, 10)

            assert await take(feed, 2) == ["state at 9", 10]


async def test_snapshots_that_stay_too_old_are_told_as_a_gap(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        async with channel.subscribe("a", snapshot=snapshots(*[5] * 5)) as feed:
            await server.expect(lambda message: '"subscribe"' in message)
            await publish(server, 8)
            await server.send({"op": "subscribed", "key": "a"})

            state, gap, live = await take(feed, 3)
            assert (state, gap.after_position, live) == ("state at 5", 5, 8)


async def test_a_snapshot_that_fails_is_taken_again_and_nothing_goes_before_it(
    autojump_clock, server, open_channel, recorder
):
    take_one = snapshots(LookupError("not now"), LookupError("not now"), 5)
    async with open_channel() as channel, channel.subscribe("a", snapshot=take_one) as feed:
        await confirm(server)
        await publish(server, 6)

        began_at = trio.current_time()
        assert await take(feed, 2) == ["state at 5", 6]
        assert trio.current_time() > began_at
    assert ["snapshot", "snapshot"] == [event.subject for event in recorder.of(HandlerFailed)]


async def test_behind_a_gap_a_new_snapshot_is_taken(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        async with channel.subscribe("a", snapshot=snapshots(1, 9)) as feed:
            await confirm(server)
            await settle()
            await cut(server, channel)
            await confirm(server)
            await publish(server, 10)

            first, gap, second, live = await take(feed, 4)
            assert (first, second, live) == ("state at 1", "state at 9", 10)
            assert isinstance(gap, Gap)


async def test_a_snapshot_takes_the_place_of_a_backfill_that_fails(
    autojump_clock, server, open_channel
):
    async def past(gap):
        raise LookupError("too long ago")

    async with open_channel() as channel:
        async with channel.subscribe("a", backfill=past, snapshot=snapshots(1, 9)) as feed:
            await confirm(server)
            await settle()
            await cut(server, channel)
            await confirm(server)
            await publish(server, 10)

            first, _gap, second, live = await take(feed, 4)
            assert (first, second, live) == ("state at 1", "state at 9", 10)


async def test_a_server_that_goes_on_where_it_was_needs_no_snapshot(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a", snapshot=snapshots(1)) as feed:
        await confirm(server)
        await settle()
        await cut(server, channel)
        await confirm(server, resumed=True)
        await publish(server, 2)

        assert await take(feed, 2) == ["state at 1", 2]


async def test_what_waits_for_a_snapshot_is_bounded_and_older_than_it(
    autojump_clock, server, open_channel
):
    may_go_on = trio.Event()

    async def snapshot():
        await may_go_on.wait()
        return Snapshot("state", 199)

    async with (
        open_channel() as channel,
        channel.subscribe("a", snapshot=snapshot, limits=Limits(inbox_messages=10)) as feed,
    ):
        await confirm(server)
        await publish(server, *range(200))
        await settle()
        may_go_on.set()
        await settle()
        await publish(server, 200)

        items = [item for item in await take(feed, 3) if not isinstance(item, Overflow)]
        assert items[:2] == ["state", 200]


@pytest.mark.parametrize("protocol", [PubSub, Positioned])
async def test_a_snapshot_may_have_no_position(
    autojump_clock, server, open_channel, recorder, protocol
):
    async def snapshot():
        await trio.lowlevel.checkpoint()
        return Snapshot("state")

    async with open_channel(protocol()) as channel:
        async with channel.subscribe("a", snapshot=snapshot) as feed:
            await confirm(server)
            await publish(server, 1)

            assert await take(feed, 2) == ["state", 1]
    assert recorder.of(HandlerFailed) == []


async def test_what_is_no_snapshot_is_said(autojump_clock, server, open_channel, recorder):
    given = [7, Snapshot("state", 1)]

    async def snapshot():
        await trio.lowlevel.checkpoint()
        return given.pop(0)

    async with open_channel() as channel, channel.subscribe("a", snapshot=snapshot) as feed:
        await confirm(server)

        assert await feed.receive() == "state"
    assert "snapshot must give Snapshot, not int" in str(recorder.of(HandlerFailed)[0].error)


async def test_positions_without_an_order_are_told_and_their_values_received(
    autojump_clock, server, open_channel, recorder
):
    class Mixed(PubSub):
        def position(self, value):
            return value

    async with open_channel(Mixed()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await server.send({"key": "a", "n": 1})
        await server.send({"key": "a", "n": "two"})

        assert await take(feed, 2) == [1, "two"]
    assert type(recorder.of(HandlerFailed)[0].error) is TypeError


# What was broken once.


async def test_a_feed_that_is_left_while_live_values_wait_for_its_backfill_lets_reading_go_on(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        limits = Limits(inbox_messages=2)
        async with channel.subscribe("a", after=1, backfill=Past(), limits=limits) as feed:
            await confirm(server)
            await channel.wait_ready()
            await publish(server, *range(5, 50))
            await settle()
            assert feed.is_live
        await server.send("next")

        with trio.fail_after(60):
            assert await channel.receive() == "next"


async def ended(server, channel):
    """Let the server end the subscription for a while, and take it again: a gap."""
    await server.send({"op": "refused", "key": "a", "why": "busy", "later": True})
    await confirm(server)
    await settle()


async def test_gaps_that_wait_for_a_backfill_are_told_however_many_there_are(
    autojump_clock, server, open_channel
):
    past = Past()
    async with open_channel() as channel, channel.subscribe("a", after=1, backfill=past) as feed:
        await confirm(server)
        await channel.wait_ready()
        await settle()
        # One is gathered, and one more comes.
        for _ in range(2):
            await ended(server, channel)
            await cut(server, channel)
            await confirm(server)
            await channel.wait_ready()
            await settle()
        past.may_go_on.set()
        await publish(server, 9)

        gap, nine = await take(feed, 2)
        assert (gap.after_position, gap.before_position, nine) == (1, 9, 9)


async def test_an_overflow_stands_behind_the_values_that_another_join_holds(
    autojump_clock, server, open_channel
):
    limits = Limits(inbox_messages=2, inbox_overflow=wsclient.OverflowPolicy.DROP_NEWEST)
    past = Past()
    async with (
        open_channel() as channel,
        channel.subscribe("a", after=1, backfill=past, limits=limits) as feed,
    ):
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 2, 5, 6, 7)
        await settle()
        past.may_go_on.set()
        await settle()

        items = await take(feed, 4)
        assert (items[0], items[2]) == (2, 5)
        assert [type(items[1]), type(items[3])] == [Gap, Overflow]


async def test_what_waits_for_a_backfill_makes_reading_wait_and_is_not_dropped(
    autojump_clock, server, open_channel
):
    past = Past(2)
    limits = Limits(inbox_messages=10)
    async with open_channel() as channel:
        async with channel.subscribe("a", backfill=past, limits=limits) as feed:
            await confirm(server)
            await publish(server, 1)
            await cut(server, channel)
            await confirm(server)
            await publish(server, *range(3, 200))
            await settle()
            past.may_go_on.set()

            assert list(range(1, 200)) == await take(feed, 199)


async def test_what_a_backfill_has_not_brought_is_not_asked_for_again_at_once(
    autojump_clock, server, open_channel
):
    past = Past(2)
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        # The second is brought by both.
        await publish(server, 2, 5)
        await settle()
        past.may_go_on.set()

        one, two, gap, five = await take(feed, 4)
        assert (one, two, five) == (1, 2, 5)
        assert (gap.after_position, gap.before_position) == (2, 5)
    assert past.asked == [(1, "a")]


async def test_a_service_that_counts_anew_behind_what_waits_is_told_and_nothing_dropped(
    autojump_clock, server, open_channel
):
    past = Past()
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 4)
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 5, 6)
        await cut(server, channel)
        await confirm(server, resumed=True)
        # It repeats one, and counts anew behind the next.
        await publish(server, 6, 7, 5)
        await settle()
        past.may_go_on.set()

        *values, gap, again = await take(feed, 6)
        assert (values, again) == ([4, 5, 6, 7], 5)
        assert (gap.after_position, gap.before_position) == (7, 5)
        assert feed.repeated == 1


async def test_what_has_no_position_is_no_repetition_of_what_waits(
    autojump_clock, server, open_channel, recorder
):
    class Sparse(Positioned):
        def position(self, value):
            return value or None

    past = Past(2)
    async with open_channel(Sparse()) as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 3)
        await cut(server, channel)
        await confirm(server, resumed=True)
        await publish(server, 0, 3, 4)
        await settle()
        past.may_go_on.set()

        assert [1, 2, 3, 0, 4] == await take(feed, 5)
        assert feed.repeated == 1
    assert recorder.of(HandlerFailed) == []


async def test_s6_2_what_a_backfill_leaves_out_in_its_midst_is_a_gap_there(
    autojump_clock, server, open_channel, recorder
):
    # A history that goes back so far and no further, as most do.
    past = Past(7, 8)
    past.may_go_on.set()
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await publish(server, 9)

        one, gap, *rest = await take(feed, 5)
        assert (one, rest) == (1, [7, 8, 9])
        assert (gap.after_position, gap.before_position) == (1, 7)
    assert gap in [event.gap for event in recorder.of(wsclient.GapDetected)]


class PastAt:
    """A history that a ``backfill`` reads as its gap says, up to ``before_position`` too."""

    def __init__(self, *, fails_first=False):
        self.asked = []
        self.may_go_on = trio.Event()

    async def __call__(self, gap):
        self.asked.append((gap.after_position, gap.before_position))
        await self.may_go_on.wait()
        return range(gap.after_position + 1, gap.before_position or 10)


async def test_s6_2_a_backfill_that_is_begun_anew_behind_another_loss_is_asked_for_that_one_too(
    autojump_clock, server, open_channel
):
    past = PastAt()

    class Sparse(Growing):
        def is_next(self, before, after):
            # A step of one proves something, and a greater one nothing but the first.
            return False if (before, after) == (1, 4) else None

    async with open_channel(Sparse()) as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1, 4)
        await channel.wait_ready()
        await settle()
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 10)
        await settle()
        past.may_go_on.set()

        assert await take(feed, 10) == list(range(1, 11))
        assert past.asked == [(1, 4), (1, None)]


async def test_s6_2_a_backfill_that_is_begun_anew_is_asked_for_what_is_missing_still(
    autojump_clock, server, open_channel
):
    asked = []

    async def past(gap):
        asked.append(gap.after_position)
        for n in range(gap.after_position + 1, 5):
            yield n
            if n == 3 and len(asked) == 1:
                await trio.sleep_forever()

    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        await cut(server, channel)
        await confirm(server)
        await publish(server, 5)

        assert await take(feed, 5) == [1, 2, 3, 4, 5]
        assert asked == [1, 3]


async def test_s6_2_the_server_is_asked_to_go_on_behind_what_waits_for_a_backfill(
    autojump_clock, server, open_channel
):
    past = Past(2, 3)
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 4, 5)
        await cut(server, channel)
        await server.expect({"op": "subscribe", "key": "a", "after": 5}, within=60)
        await server.send({"op": "subscribed", "key": "a", "resumed": True})
        # Some begin with the last one itself.
        await publish(server, 5, 6)
        past.may_go_on.set()

        assert await take(feed, 6) == [1, 2, 3, 4, 5, 6]
        assert feed.repeated == 1


async def test_what_a_backfill_has_brought_does_not_come_again_behind_a_loss_meanwhile(
    autojump_clock, server, open_channel
):
    past = Past(2, 3, 4, 5)
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await settle()
        await ended(server, channel)
        # The past is asked for after these were published, and before they come.
        await publish(server, 4, 5, 6)
        await settle()
        past.may_go_on.set()

        assert await take(feed, 6) == [1, 2, 3, 4, 5, 6]
    assert [after for after, _ in past.asked] == [1, 5]


async def test_behind_a_loss_meanwhile_a_backfill_that_has_failed_is_asked_again(
    autojump_clock, server, open_channel
):
    may_go_on = trio.Event()
    asked = []

    async def past(gap):
        asked.append(gap.after_position)
        await may_go_on.wait()
        if len(asked) == 1:
            raise LookupError("not now")
        return [2, 3, 4]

    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        await confirm(server)
        await settle()
        await ended(server, channel)
        await publish(server, 5)
        await settle()
        may_go_on.set()

        assert await take(feed, 5) == [1, 2, 3, 4, 5]
    assert asked == [1, 1]


async def test_a_gap_that_comes_while_a_snapshot_is_taken_is_behind_it_and_takes_another(
    autojump_clock, server, open_channel
):
    may_go_on = trio.Event()
    positions = [5, 9]

    async def snapshot():
        position = positions.pop(0)
        if position == 5:
            await may_go_on.wait()
        return Snapshot(f"state at {position}", position)

    async with (
        open_channel(Growing()) as channel,
        channel.subscribe("a", snapshot=snapshot) as feed,
    ):
        await confirm(server)
        await channel.wait_ready()
        await settle()
        await ended(server, channel)
        await publish(server, 10)
        await settle()
        may_go_on.set()

        first, gap, second, ten = await take(feed, 4)
        assert (first, second, ten) == ("state at 5", "state at 9", 10)
        assert gap.after_position == 5


async def test_a_gap_that_is_older_than_the_snapshot_is_made_irrelevant_by_it_too(
    autojump_clock, server, open_channel, recorder
):
    may_fail = trio.Event()
    asked = []

    async def past(gap):
        asked.append(gap.after_position)
        await may_fail.wait()
        if len(asked) == 1:
            raise LookupError("too long ago")
        return []

    async with open_channel() as channel:
        async with channel.subscribe("a", backfill=past, snapshot=snapshots(0, 9)) as feed:
            await confirm(server)
            await publish(server, 1)
            await cut(server, channel)
            await confirm(server)
            await publish(server, 4)
            await settle()
            # While the past is asked for, in vain, there is another loss.
            await ended(server, channel)
            await publish(server, 8, 9, 10)
            await settle()
            may_fail.set()

            state, one, gap, second, ten = await take(feed, 5)
            assert (state, one, second, ten) == ("state at 0", 1, "state at 9", 10)
            assert gap.after_position == 1
    assert asked == [1]
    assert ["backfill"] == [event.subject for event in recorder.of(HandlerFailed)]


async def test_behind_a_gap_that_comes_while_a_snapshot_is_taken_the_past_is_not_asked_for(
    autojump_clock, server, open_channel
):
    may_go_on = trio.Event()
    given = snapshots(0, 9, 9)
    asked = []

    async def snapshot():
        if asked:
            await may_go_on.wait()
        return await given()

    async def past(gap):
        asked.append(gap.after_position)
        raise LookupError("too long ago")

    async with open_channel() as channel:
        async with channel.subscribe("a", backfill=past, snapshot=snapshot) as feed:
            await confirm(server)
            await settle()
            await cut(server, channel)
            await confirm(server)
            await settle()
            await ended(server, channel)
            await publish(server, 8, 9, 10)
            await settle()
            may_go_on.set()
            first, gap, second, later_gap, third, ten = await take(feed, 6)
            assert (first, second) == ("state at 0", "state at 9")
            assert (third, ten) == ("state at 9", 10)
            assert (gap.after_position, later_gap.after_position) == (0, 9)
    assert asked == [0]


async def test_behind_every_gap_among_what_waits_for_a_snapshot_another_one_is_taken(
    autojump_clock, server, open_channel
):
    may_go_on = trio.Event()
    given = snapshots(5, 8)

    async def snapshot():
        await may_go_on.wait()
        return await given()

    async with open_channel() as channel, channel.subscribe("a", snapshot=snapshot) as feed:
        await confirm(server)
        await publish(server, 6, 9)
        await settle()
        may_go_on.set()

        first, six, gap, second, nine = await take(feed, 5)
        assert (first, six, second, nine) == ("state at 5", 6, "state at 8", 9)
        assert (gap.after_position, gap.before_position) == (6, 9)


async def test_a_snapshot_whose_position_has_no_order_is_told_and_not_the_channels_death(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel() as channel, channel.subscribe("a", snapshot=snapshots("x")) as feed:
        await server.expect(lambda message: '"subscribe"' in message)
        await publish(server, 1)
        await server.send({"op": "subscribed", "key": "a"})

        assert await take(feed, 2) == ["state at x", 1]
    assert type(recorder.of(HandlerFailed)[0].error) is TypeError


async def test_what_waits_may_have_no_position_and_no_order(
    autojump_clock, server, open_channel, recorder
):
    class Mixed(PubSub):
        def position(self, value):
            return None if value == "none" else value

    past = Past()
    async with open_channel(Mixed()) as channel, channel.subscribe("a", after=1, backfill=past):
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 2)
        await cut(server, channel)
        await confirm(server, resumed=True)
        await channel.wait_ready()
        await publish(server, "none", "two")
        await settle()

    assert ["a position"] == [event.subject for event in recorder.of(HandlerFailed)]


async def test_a_feed_that_is_left_before_its_join_has_begun_asks_for_nothing(
    autojump_clock, server, open_channel
):
    past = Past()
    async with open_channel() as channel:
        async with channel.subscribe("a", after=1, backfill=past) as feed:
            await confirm(server)
            await channel.wait_ready()
            feed.close()
            await feed._join()
            await settle()

        assert channel.state is ChannelState.READY
    assert len(past.asked) <= 1


async def test_a_service_that_counts_anew_while_the_past_is_asked_for_is_told_although_it_resumes(
    autojump_clock, server, open_channel
):
    past = Past()
    async with open_channel() as channel, channel.subscribe("a", backfill=past) as feed:
        await confirm(server)
        await publish(server, 100)
        await cut(server, channel)
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 1, 2)
        await cut(server, channel)
        # It goes on behind the second value, which it repeats.
        await confirm(server, resumed=True)
        await publish(server, 2, 3)
        await settle()
        past.may_go_on.set()

        told = await take(feed, 5)
        assert [100, 1, 2, 3] == [item for item in told if not isinstance(item, Gap)]
        assert (told[1].after_position, told[1].before_position) == (100, 1)
        assert feed.repeated == 1


# Positions.


async def test_s6_2_where_the_server_cannot_go_on_a_gap_stands_between_the_positions(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel(Positioned()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1, 2)
        await cut_and_confirm(server, channel)
        await publish(server, 7)

        items = feed.items()
        assert [1, 2] == [await anext(items), await anext(items)]
        gap = await anext(items)
        assert (gap.after_position, gap.before_position, gap.subscription) == (2, 7, "a")
        assert await anext(items) == 7
        assert not channel.is_resumed
    assert gap in [event.gap for event in recorder.of(GapDetected)]


async def test_s6_2_no_gap_where_the_next_position_proves_that_nothing_is_missing(
    autojump_clock, server, open_channel
):
    async with open_channel(Positioned()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)
        await cut_and_confirm(server, channel)
        await publish(server, 2)

        items = feed.items()
        assert [1, 2] == [await anext(items), await anext(items)]


async def test_positions_that_are_left_out_on_one_connection_are_a_gap(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel(Positioned()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1, 4)

        items = feed.items()
        assert await anext(items) == 1
        gap = await anext(items)
        assert (gap.after, gap.before, gap.after_position, gap.before_position) == (1, 1, 1, 4)
        assert await anext(items) == 4


async def test_a_stream_that_has_gone_back_is_told_and_nothing_of_it_is_dropped(
    autojump_clock, server, open_channel
):
    async with open_channel(Positioned()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 100)
        await cut_and_confirm(server, channel)
        await publish(server, 1, 2)

        items = feed.items()
        assert await anext(items) == 100
        assert "has gone back" in (await anext(items)).reason
        assert [1, 2] == [await anext(items), await anext(items)]


async def test_s2_4_a_position_moves_only_after_the_value_was_handled(
    autojump_clock, server, open_channel
):
    async with open_channel(Positioned()) as channel:
        with pytest.raises(RuntimeError, match="in the handler"):
            async with channel.subscribe("a") as feed:
                await confirm(server)
                await publish(server, 1, 2)
                async for value in feed:
                    if value == 2:
                        raise RuntimeError("in the handler")

        assert feed.position == 1


async def test_s2_4_a_block_that_ends_well_has_handled_its_last_value(
    autojump_clock, server, open_channel
):
    async with open_channel(Positioned()) as channel:
        async with channel.subscribe("a") as feed:
            await confirm(server)
            await publish(server, 1, 2)
            async for value in feed:
                if value == 2:
                    break

        assert feed.position == 2


async def test_s2_4_committed_before_a_position_moves_with_its_value(
    autojump_clock, server, open_channel
):
    async with open_channel(Positioned()) as channel:
        async with channel.subscribe("a", after=0, commit="before") as feed:
            assert feed.position == 0
            await confirm(server, resumed=True)
            await publish(server, 1)
            await feed.receive()

            assert feed.position == 1


# Taking, and the ends.


async def test_a_feed_that_nobody_takes_from_stops_the_reading_and_loses_nothing(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        async with channel.subscribe("a", limits=Limits(inbox_messages=10)) as feed:
            await confirm(server)
            await publish(server, *range(200))
            await server.send("last")
            with trio.move_on_after(100) as patience:
                await channel.receive()
            assert patience.cancelled_caught

            assert list(range(200)) == [await feed.receive() for _ in range(200)]
            assert await channel.receive() == "last"


async def test_a_feed_that_may_drop_stops_nobody(autojump_clock, server, open_channel, recorder):
    limits = Limits(inbox_messages=10, inbox_overflow=OverflowPolicy.DROP_OLDEST)
    async with open_channel() as channel, channel.subscribe("a", limits=limits) as feed:
        await confirm(server)
        await publish(server, *range(200))
        await server.send("last")
        assert await channel.receive() == "last"

        items = feed.items()
        assert await anext(items) == Overflow(190)
        assert [await anext(items) for _ in range(10)] == list(range(190, 200))
    assert recorder.of(InboxOverflowed)


async def test_a_feed_can_keep_the_newest_value_of_each_key(autojump_clock, server, open_channel):
    limits = Limits(
        inbox_messages=4, inbox_overflow=OverflowPolicy.CONFLATE, inbox_key=lambda value: value % 3
    )
    async with open_channel() as channel, channel.subscribe("a", limits=limits) as feed:
        await confirm(server)
        await publish(server, *range(30))
        await server.send("last")
        assert await channel.receive() == "last"

        waiting = []
        while 29 not in waiting:
            waiting.append(await feed.receive())
        assert len(waiting) <= 4
        assert {27, 28, 29} <= set(waiting)


async def test_who_only_takes_from_feeds_is_not_in_the_way_of_reading(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        for number in range(3000):
            await server.send(f'{{"nobody wants": {number}}}')
        await publish(server, 1)

        assert await feed.receive() == 1
        assert channel.statistics().messages_dropped > 1000


async def test_s2_6_a_receipt_can_be_awaited_inside_of_a_feeds_loop(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        async with channel.subscribe("a", limits=Limits(inbox_messages=2)) as feed:
            await confirm(server)
            await publish(server, *range(50))
            await feed.receive()
            receipt = await channel.send("question")

            assert await receipt.wait() is wsclient.Outcome.RECEIVED


async def test_a_feed_that_is_left_while_it_is_full_lets_reading_go_on(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        async with channel.subscribe("a", limits=Limits(inbox_messages=2)):
            await confirm(server)
            await publish(server, *range(50))
            await settle()
        await server.send("next")

        assert await channel.receive() == "next"


async def test_taking_can_be_cancelled_and_loses_nothing(autojump_clock, server, open_channel):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        with trio.move_on_after(1):
            await feed.receive()
        await publish(server, 1)

        assert await feed.receive() == 1


async def test_s2_7_a_channel_that_gave_up_gives_what_was_received_and_then_its_failure(
    autojump_clock, server, open_channel
):
    caught = []
    with pytest.raises(ChannelFailed) as failed:
        async with open_channel() as channel, channel.subscribe("a") as feed:
            await confirm(server)
            await channel.wait_ready()
            await publish(server, 1)
            await server.close(3003)
            try:
                caught.append(await feed.receive())
                await feed.receive()
            except ChannelFailed as error:
                caught.append(error)
                raise

    assert [1, failed.value] == caught


async def test_s7_3_no_taker_of_a_feed_survives_its_end(autojump_clock, server, open_channel):
    over = []

    async def take(feed):
        over.append([value async for value in feed])

    async with trio.open_nursery() as nursery, open_channel() as channel:
        async with channel.subscribe("a") as feed:
            nursery.start_soon(take, feed)
            nursery.start_soon(take, feed)
            await settle()
        await settle()

        assert over == [[], []]


async def test_a_feed_is_used_inside_of_its_block(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        feed = channel.subscribe("a")
        with pytest.raises(RuntimeError, match="inside of its `async with`"):
            await feed.receive()
        async with feed:
            pass
        with pytest.raises(trio.EndOfChannel):
            await feed.receive()
        with pytest.raises(RuntimeError, match="entered once"):
            async with feed:
                pass
        await channel.aclose()
        with pytest.raises(trio.ClosedResourceError):
            async with channel.subscribe("a"):
                pass


async def test_a_position_stays_where_it_is_while_nothing_with_a_position_comes(
    autojump_clock, server, open_channel
):
    class Sparse(PubSub):
        def position(self, value):
            return value or None

    async with open_channel(Sparse()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 7, 0)
        assert [7, 0] == await take(feed, 2)
        for _ in range(2):
            with trio.move_on_after(1):
                await feed.receive()

            assert feed.position == 7


async def test_what_waits_in_a_feed_that_is_left_is_dropped(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        async with channel.subscribe("a") as feed:
            await confirm(server)
            await publish(server, 1, 2)
            await settle()
        with pytest.raises(trio.EndOfChannel):
            await feed.receive()


async def test_a_feed_that_was_left_before_the_channel_gave_up_is_no_part_of_its_failure(
    autojump_clock, server, open_channel
):
    with pytest.raises(ChannelFailed):
        async with open_channel() as channel:
            async with channel.subscribe("a") as feed:
                await confirm(server)
                await channel.wait_ready()
            await server.close(3003)
            await channel.receive()
    with pytest.raises(trio.EndOfChannel):
        await feed.receive()
    with pytest.raises(trio.ClosedResourceError):
        await feed.wait_live()


async def test_a_feed_is_entered_once_at_a_time_too(autojump_clock, server, open_channel):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        with pytest.raises(RuntimeError, match="entered once"):
            async with feed:
                pass
        await confirm(server)
        await publish(server, 1)

        assert await feed.receive() == 1


async def test_entering_and_waiting_are_checkpoints(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        feed = channel.subscribe("a")
        with trio.testing.assert_checkpoints():
            await feed.__aenter__()
        await confirm(server)
        await feed.wait_live()
        with trio.testing.assert_checkpoints():
            await feed.wait_live()
        feed.close()


async def test_waiting_for_what_is_not_there_yet(autojump_clock, server, open_channel):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        with trio.move_on_after(1) as patience:
            await feed.wait_live()
        assert patience.cancelled_caught

        await confirm(server)
        await feed.wait_live()
        assert feed.is_live


async def test_waiting_for_what_the_server_does_not_take_ends_with_its_reason(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel:
        with pytest.raises(SubscriptionFailed, match="no such stream") as failed:
            async with channel.subscribe("a") as feed:
                await server.expect(lambda message: '"subscribe"' in message)
                await server.send({"op": "refused", "key": "a", "why": "no such stream"})
                await feed.wait_live()
    assert isinstance(failed.value.__cause__, ReplyError)


async def test_waiting_for_a_feed_that_was_left_ends(autojump_clock, server, open_channel):
    async with open_channel() as channel:
        async with channel.subscribe("a") as feed:
            pass
        with pytest.raises(trio.ClosedResourceError, match="the feed is over"):
            await feed.wait_live()


async def test_a_feed_to_which_nothing_is_brought_waits_for_no_other(
    autojump_clock, server, open_channel
):
    async with (
        open_channel() as channel,
        channel.subscribe("a") as feed,
        channel.subscribe("b") as other,
    ):
        await confirm(server, "a")
        await publish(server, 1)
        assert await take(feed, 1) == [1]
        await confirm(server, "b")
        await channel.wait_ready()
        await cut(server, channel)
        await confirm(server, "a")
        await publish(server, 5)

        gap, five = await take(feed, 2)
        assert (gap.after_position, five) == (1, 5)
        assert not other.is_live


async def test_values_and_gaps_end_with_their_stream(autojump_clock, server, open_channel):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1, 3)
        await server.send({"op": "refused", "key": "a"})

        one, gap, three = [item async for item in feed.items()]
        assert (one, gap.after_position, gap.before_position, three) == (1, 1, 3, 3)


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_s6_2_a_stream_that_ends_behind_a_loss_tells_what_may_be_missing_before_its_end(
    autojump_clock, server, open_channel, recorder, is_confirmed
):
    async with open_channel() as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)
        await cut(server, channel)
        if is_confirmed:
            await confirm(server)
        else:
            await server.expect(lambda message: '"subscribe"' in message)
        await server.send({"op": "refused", "key": "a"})

        one, gap = [item async for item in feed.items()]
        assert (one, gap.after, gap.before, gap.after_position, gap.before_position) == (
            1,
            1,
            2,
            1,
            None,
        )
    assert gap in [event.gap for event in recorder.of(GapDetected)]


async def test_a_channel_that_is_closed_behind_a_loss_tells_nothing_more(
    autojump_clock, server, open_channel, recorder
):
    async with open_channel() as channel, channel.subscribe("a"):
        await confirm(server)
        await publish(server, 1)
        await cut_and_confirm(server, channel)
        told = len(recorder.of(GapDetected))
        await channel.aclose()

    assert told == len(recorder.of(GapDetected))


async def test_gaps_that_still_wait_at_the_end_of_a_stream_are_told_before_it(
    autojump_clock, server, open_channel
):
    async with open_channel() as channel, channel.subscribe("a", backfill=Past()) as feed:
        await confirm(server)
        await publish(server, 1, 3)
        await settle()
        await ended(server, channel)
        await publish(server, 7)
        await server.send({"op": "refused", "key": "a"})

        told = [item async for item in feed.items()]
        assert [1, 3, 7] == [item for item in told if not isinstance(item, Gap)]
        assert [(1, 3), (3, 7)] == [
            (gap.after_position, gap.before_position) for gap in told if isinstance(gap, Gap)
        ]


@pytest.mark.parametrize("end", ["refused", "closed"])
async def test_another_feed_may_be_left_by_an_observer_while_one_tells_its_end(
    autojump_clock, server, open_channel, end
):
    past, left = Past(), []

    def leave(event):
        if isinstance(event, GapDetected):
            left.append(event.gap.after_position)
            second.close()

    async with (
        open_channel(observers=[leave]) as channel,
        channel.subscribe("a", backfill=past) as first,
        channel.subscribe("a") as second,
    ):
        await confirm(server)
        await publish(server, 1)
        assert (await first.receive(), await second.receive()) == (1, 1)
        await cut_and_confirm(server, channel)
        await publish(server, 7)
        await settle()
        left.clear()
        second = channel.subscribe("a", after=7)
        async with second:
            if end == "closed":
                await channel.aclose()
            else:
                await server.send({"op": "refused", "key": "a"})
                await settle()

            assert left == [1]
            assert [] == [value async for value in second]


async def test_a_first_snapshot_that_is_cut_off_is_taken_again_though_the_server_goes_on(
    autojump_clock, server, open_channel
):
    may_go_on, taken = trio.Event(), []

    async def snapshot():
        taken.append(trio.current_time())
        await may_go_on.wait()
        return Snapshot("state at 5", 5)

    async with open_channel() as channel, channel.subscribe("a", snapshot=snapshot) as feed:
        await confirm(server)
        await channel.wait_ready()
        await publish(server, 6)
        await cut(server, channel)
        await confirm(server, resumed=True)
        await publish(server, 7)
        await settle()
        may_go_on.set()

        assert ["state at 5", 6, 7] == await take(feed, 3)
    assert len(taken) == 2


# Streams without positions.


async def test_a_stream_without_positions_tells_a_loss_at_once(
    autojump_clock, server, open_channel
):
    async with open_channel(PubSub()) as channel, channel.subscribe("a") as feed:
        await confirm(server)
        await publish(server, 1)
        await cut_and_confirm(server, channel)
        one, gap = await take(feed, 2)
        assert (one, gap.after, gap.before, gap.after_position) == (1, 1, 2, None)
        await publish(server, 2, 3)
        await cut_and_confirm(server, channel)

        two, three, gap = await take(feed, 3)
        assert (two, three, gap.after, gap.before, gap.after_position) == (2, 3, 2, 3, None)


# Two connections, of which each says its part when the test lets it.


async def both(two, nursery):
    """Two connections; for what is subscribed to only then, nobody waits for the first's pong."""
    heards = [await two.by_hand.accept() for _ in range(2)]
    for heard in heards:
        nursery.start_soon(two._listen, heard)
    await two.cover(heards[0])
    return heards


async def confirm_on(*heards):
    await settle()
    for heard in heards:
        await heard.say('{"op": "subscribed", "key": "a"}')
        await settle()


async def test_s6_3_a_second_connection_that_is_ahead_hides_nothing_that_the_first_has_to_bring(
    autojump_clock, two, nursery
):
    async with two.open(Growing(), redundancy=2) as channel:
        first, second = await both(two, nursery)
        async with channel.subscribe("a") as feed:
            await confirm_on(first, second)
            await say(first, 1)
            await say(second, 3)
            await say(first, 2, 3)
            # They have met.
            await say(second, 4)

            items = feed.items()
            assert [1, 2, 3, 4] == [await anext(items) for _ in range(4)]


@pytest.mark.parametrize("was_ahead", [False, True])
async def test_s6_3_where_the_one_is_lost_that_was_behind_a_gap_is_told(
    autojump_clock, two, nursery, was_ahead
):
    async with two.open(Growing(), redundancy=2) as channel:
        first, second = await both(two, nursery)
        async with channel.subscribe("a") as feed:
            await confirm_on(first, second)
            await say(first, 1)
            if was_ahead:
                await say(second, 3)
            first.die()
            await settle()
            await say(second, 4)

            items = feed.items()
            assert await anext(items) == 1
            gap = await anext(items)
            assert (gap.after_position, gap.before_position) == (1, 4)
            assert gap.reason == "the connection was lost that was to bring what is between"
            assert await anext(items) == 4
            # It has met the stream by that.
            await say(second, 5)
            assert await anext(items) == 5


async def test_s6_3_where_it_was_lost_a_third_connection_has_not_met_the_stream_either(
    autojump_clock, two, nursery
):
    async with two.open(Growing(), redundancy=2) as channel:
        first, second = await both(two, nursery)
        async with channel.subscribe("a") as feed:
            await confirm_on(first, second)
            await say(first, 1)
            await say(second, 3)
            first.die()
            third = await two.accept(nursery)
            await two.cover(second)
            await say(third, 4)

            one, gap, four = await take(feed, 3)
            assert (one, gap.after_position, gap.before_position, four) == (1, 1, 4, 4)


async def late(two, nursery):
    """Two connections behind a loss, of which the second has the stream for a shorter time."""
    first = await two.accept(nursery)
    second = await two.accept(nursery, confirm=False)
    await second.say('{"op": "refused", "key": "a", "why": "busy", "later": true}')
    await two.cover(first)
    await trio.sleep(2)
    await second.say('{"op": "subscribed", "key": "a"}')
    await settle()
    return first, second


async def test_s6_3_behind_a_loss_the_stream_begins_with_the_connection_that_brings_it_first(
    autojump_clock, two, nursery
):
    async with two.open(Growing(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        await say(first, 1)
        for heard in (first, second):
            heard.die()
        third, fourth = await late(two, nursery)
        await say(fourth, 7)
        # What is between will come over that one.
        await say(third, 9)
        await say(fourth, 8, 9)

        one, gap, *more = await take(feed, 5)
        assert (one, gap.after_position, gap.before_position) == (1, 1, 7)
        assert more == [7, 8, 9]


async def test_s6_3_a_service_that_counts_anew_is_heard_from_the_one_that_came_later(
    autojump_clock, two, nursery
):
    async with two.open(Growing(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        await say(first, 100)
        for heard in (first, second):
            heard.die()
        third, fourth = await late(two, nursery)
        await say(third, 101)
        await say(fourth, 1, 2)

        *_, gap, one, two_ = await take(feed, 6)
        assert ("gone back" in gap.reason, one, two_) == (True, 1, 2)


async def test_s6_3_what_is_next_is_let_in_from_whichever_brings_it(autojump_clock, two, nursery):
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first, second = await late(two, nursery)
        await say(first, 1)
        await say(second, 2, 4)

        one, two_, gap, four = await take(feed, 4)
        assert (one, two_, gap.after_position, four) == (1, 2, 2, 4)


async def test_s6_3_the_first_value_of_a_feed_may_come_over_either(autojump_clock, two, nursery):
    async with two.open(Growing(), redundancy=2) as channel, channel.subscribe("a"):
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        async with channel.subscribe("a") as feed:
            await say(second, 5)
            # It is ahead of the other one, which goes on where the second one was before.
            await say(first, 7)
            await say(second, 6, 7)
            await say(first, 8)
            # What comes over both is known as that.
            await say(second, 8, 9)

            assert [5, 6, 7, 8, 9] == await take(feed, 5)


async def test_a_service_that_counts_anew_is_heard_over_two_connections_too(
    autojump_clock, two, nursery
):
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a") as feed:
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        await say(first, 100)
        first.die()
        second.die()
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        await say(second, 1)
        await say(first, 1, 2)

        items = feed.items()
        assert await anext(items) == 100
        assert "gone back" in (await anext(items)).reason
        assert [1, 2] == [await anext(items), await anext(items)]


async def test_what_both_connections_bring_may_wait_for_a_backfill_over_an_outage(
    autojump_clock, two, nursery
):
    may_go_on = trio.Event()

    async def past(gap):
        await may_go_on.wait()
        return [2]

    async with (
        two.open(Positioned(), redundancy=2) as channel,
        channel.subscribe("a", backfill=past) as feed,
    ):
        first = await two.accept(nursery)
        await say(first, 1)
        second = await two.accept(nursery)
        await two.cover(first)
        await say(first, 3, 4)
        await say(second, 3, 4)
        first.die()
        second.die()
        third = await two.by_hand.accept()
        await third.hear(1)
        await third.say('{"op": "subscribed", "key": "a", "resumed": true}')
        await say(third, 5)
        may_go_on.set()

        items = feed.items()
        assert [1, 2, 3, 4, 5] == [await anext(items) for _ in range(5)]


@pytest.mark.parametrize("is_lost", [False, True])
async def test_s6_3_what_is_ahead_is_not_let_in_by_waiting_for_a_backfill(
    autojump_clock, two, nursery, is_lost
):
    past = Past(2)
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a"):
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        # It is with both, and nobody knows where they are.
        async with channel.subscribe("a", backfill=past) as feed:
            await say(first, 1, 3)
            await say(second, 6)
            if is_lost:
                second.die()
                await settle()
            past.may_go_on.set()
            await settle()
            await say(first, 4, 5, 6)

            assert [1, 2, 3, 4, 5, 6] == await take(feed, 6)
            assert past.asked == [(1, "a")]


async def test_s6_2_the_server_is_asked_to_go_on_behind_what_waits_and_not_behind_what_is_ahead(
    autojump_clock, two, nursery
):
    class Sparse(Positioned):
        def position(self, value):
            return value or None

    past = Past(2)
    async with two.open(Sparse(), redundancy=2) as channel, channel.subscribe("a"):
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        async with channel.subscribe("a", backfill=past) as feed:
            await say(first, 1, 3, 0)
            await say(second, 6)
            for heard in (first, second):
                heard.die()
            third = await two.by_hand.accept()
            await third.hear(1)

            assert json.loads(third.messages[0])["after"] == 3
            await third.say('{"op": "subscribed", "key": "a", "resumed": true}')
            past.may_go_on.set()
            await say(third, 4)
            assert [1, 2, 3, 0, 4] == await take(feed, 5)


async def test_what_waits_may_come_again_and_what_is_missing_behind_it_is_asked_for(
    autojump_clock, server, open_channel
):
    class Repeating(Positioned):
        repeats = True

    past = Past(6, 7, 8)
    async with open_channel(Repeating()) as channel:
        async with channel.subscribe("a", backfill=past) as feed:
            await confirm(server)
            await publish(server, 1)
            await cut(server, channel)
            await confirm(server)
            await publish(server, 5, 5, 9)
            await settle()
            past.values, later = [], past.values
            past.may_go_on.set()
            await settle()
            past.values = later

            told = await take(feed, 3)
            assert (told[0], told[2]) == (1, 5)
    assert [(1, "a"), (5, "a")] == past.asked


async def test_s6_3_where_the_second_is_lost_that_repeated_what_waits_nothing_is_missing(
    autojump_clock, two, nursery
):
    past = Past(2)
    async with two.open(Positioned(), redundancy=2) as channel, channel.subscribe("a"):
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        async with channel.subscribe("a", backfill=past) as feed:
            await say(first, 1, 3)
            await say(second, 3)
            second.die()
            await settle()
            past.may_go_on.set()
            await say(first, 4)

            assert [1, 2, 3, 4] == await take(feed, 4)
            assert feed.repeated == 1


async def test_s6_3_a_value_without_a_position_is_let_in_from_either(autojump_clock, two, nursery):
    class Sparse(PubSub):
        def position(self, value):
            return value or None

    async with two.open(Sparse(), redundancy=2) as channel, channel.subscribe("a"):
        first = await two.accept(nursery)
        second = await two.accept(nursery)
        await two.cover(first)
        async with channel.subscribe("a") as feed:
            await say(first, 1, 0)
            await say(second, 0)

            assert [1, 0, 0] == await take(feed, 3)


@pytest.mark.parametrize(
    ("argument", "error", "text"),
    [
        ({"key": []}, TypeError, "key must be hashable, not list"),
        ({"priority": "high"}, TypeError, "priority must be a number, not str"),
        ({"priority": True}, TypeError, "priority must be a number, not bool"),
        ({"backfill": 7}, TypeError, "backfill must be an async function, not int"),
        ({"snapshot": 7}, TypeError, "snapshot must be an async function, not int"),
        ({"commit": "never"}, ValueError, 'commit must be "after" or "before"'),
        ({"limits": 7}, TypeError, "limits must be Limits, not int"),
    ],
)
def test_what_no_feed_can_be_made_of_is_said(argument, error, text):
    right = {
        "key": "trades",
        "priority": 0,
        "backfill": None,
        "snapshot": print,
        "commit": "after",
        "limits": None,
    }
    check_wish(**right)
    with pytest.raises(error, match=text):
        check_wish(**right | argument)
