"""Whole lives of channels: cancelled at every step, and at the mercy of chance.

The invariants are those of the contract: one outcome for each receipt (I1), what was certainly not
sent was not heard (I3), nothing is heard twice (I4) or out of order (I6), nothing stale is received
(I7), each discontinuity is one gap (I8), leaving takes two seconds at most (I9), and no message is
split over two connections (I13).
"""

from __future__ import annotations

import itertools
import random

import pytest
import tenacity
import trio

import wsclient
from wsclient import testing
from wsclient.errors import ChannelFailed
from wsclient.events import (
    ChannelClosed,
    ChannelGaveUp,
    ChannelState,
    ConnectionReady,
    Gap,
    GapDetected,
    Outcome,
    StateChanged,
)
from wsclient.options import ConnectionOptions, HeartbeatOptions, Limits, RetryPolicy
from wsclient.testing import NONE, EventRecorder, Fault, FaultServer, echo, memory_network

HALF_A_SECOND = RetryPolicy(wait=tenacity.wait_fixed(0.5))


def check_sending(server, receipts):
    """``receipts`` by message, in the order in which they were accepted."""
    accepted = list(receipts)
    # Connection by connection: a server may still be reading an old one when the next has spoken.
    heard = [
        message for visit in server.connections for message in visit.messages if message in receipts
    ]
    outcomes = {message: receipt.outcome for message, receipt in receipts.items()}

    assert None not in outcomes.values(), "I1: each receipt has an outcome"
    certainly_not = {message for message in accepted if outcomes[message] is Outcome.CANCELLED}

    assert set() == certainly_not & set(heard), "I3: certainly not means not heard"
    assert len(set(heard)) == len(heard), "I4: nothing is heard twice"
    assert sorted(heard, key=accepted.index) == heard, "I6: in order"
    violations = [visit.violation for visit in server.connections]

    assert [None] * len(violations) == violations, "I13: no message is split"


def check_states(recorder, channel):
    changes = recorder.of(StateChanged)

    assert all(before.state is after.previous for before, after in itertools.pairwise(changes))
    assert channel.state.is_final
    assert 1 == len(recorder.of(ChannelClosed)) + len(recorder.of(ChannelGaveUp))


# --- cancelled at every step --------------------------------------------------------------------


async def hook(connection):
    await connection.send_message("subscribe")
    await connection.get_message()


def test_i9_a_life_can_be_cancelled_at_every_step(cancel_at_every_step):
    ends = set()

    async def scenario(cancellation):
        recorder, receipts, channels = EventRecorder(), {}, []
        with memory_network() as network:
            # The hook's message and two more: then the connection is cut.
            story = [testing.REFUSE, Fault.reset(after_messages=3), NONE]
            async with FaultServer(story, network=network, handler=echo) as server:
                with cancellation.scope:
                    async with wsclient.open_channel(
                        server.url, on_connect=hook, retry=HALF_A_SECOND, observers=[recorder]
                    ) as channel:
                        channels.append(channel)
                        receipts["early"] = await channel.send("early")
                        await channel.wait_ready()
                        receipts["one"] = await channel.send("one")
                        with trio.move_on_after(0.2):  # The cut may come first.
                            await channel.receive()
                        receipts["two"] = await channel.send("two")
                        await recorder.wait_for(ConnectionReady, count=2)
                        receipts["three"] = await channel.send("three")
                        await receipts["three"].wait()
                        async for message in channel:
                            if message == "three":
                                break
                        receipts["four"] = await channel.send("four")
                        await channel.drain()
                        await channel.aclose()
                    left_well_at = trio.current_time()
                if cancellation.at is not None:
                    assert trio.current_time() - cancellation.at <= 2
                # A cancellation in the last step may come too late to be felt.
                if not cancellation.scope.cancelled_caught:
                    assert left_well_at == trio.current_time()
                check_sending(server, receipts)
        for channel in channels:
            assert ChannelState.CLOSED is channel.state
            assert 0 == channel.statistics().outbox_messages
            check_states(recorder, channel)
        ends.add(tuple(receipt.outcome for receipt in receipts.values()))

    runs = cancel_at_every_step(scenario)

    assert runs > 150
    # It was cut short at every stage.
    assert len(ends) > 5


def test_i9_a_channel_in_a_nursery_can_be_cancelled_at_every_step(cancel_at_every_step):
    async def scenario(cancellation):
        recorder, receipts, channels = EventRecorder(), {}, []
        with memory_network() as network:
            story = [Fault.reset(after_messages=2), testing.MUTE_CLOSE]
            async with FaultServer(story, network=network, handler=echo) as server:
                with cancellation.scope:
                    async with trio.open_nursery() as nursery:
                        channel = await wsclient.connect_channel(
                            nursery, server.url, retry=HALF_A_SECOND, observers=[recorder]
                        )
                        channels.append(channel)
                        for number in range(4):
                            text = str(number)
                            receipts[text] = await channel.send(text)
                            await trio.sleep(0.3)
                        await channel.drain()
                        await channel.aclose()
                if cancellation.at is not None:
                    assert trio.current_time() - cancellation.at <= 2
                check_sending(server, receipts)
        for channel in channels:
            assert ChannelState.CLOSED is channel.state
            check_states(recorder, channel)

    assert cancel_at_every_step(scenario) > 60


def test_a_channel_can_be_closed_by_another_task_at_every_step(cancel_at_every_step):
    async def scenario(cancellation):
        recorder, receipts = EventRecorder(), {}
        with memory_network() as network:
            story = [testing.REFUSE, Fault.reset(after_messages=2), NONE]
            async with (
                FaultServer(story, network=network, handler=echo) as server,
                wsclient.open_channel(
                    server.url, on_connect=hook, retry=HALF_A_SECOND, observers=[recorder]
                ) as channel,
                trio.open_nursery() as nursery,
            ):

                @nursery.start_soon
                async def close():
                    with cancellation.scope:
                        await trio.sleep(3)
                    began = trio.current_time()
                    await channel.aclose()

                    assert trio.current_time() - began <= 2

                try:
                    for number in range(3):
                        receipts[str(number)] = await channel.send(str(number))
                        await channel.receive()
                except (trio.ClosedResourceError, trio.EndOfChannel):
                    pass
            check_sending(server, receipts)
            check_states(recorder, channel)

            assert ChannelState.CLOSED is channel.state

    assert cancel_at_every_step(scenario) > 50


def test_a_drain_can_be_cancelled_at_every_step(cancel_at_every_step):
    async def scenario(cancellation):
        receipts = {}
        with memory_network() as network:
            story = [testing.REFUSE, Fault.reset(after_messages=1), NONE]
            async with FaultServer(story, network=network) as server:
                async with wsclient.open_channel(
                    server.url, retry=HALF_A_SECOND, observers=()
                ) as channel:
                    for number in range(3):
                        receipts[str(number)] = await channel.send(str(number))
                    with cancellation.scope:
                        await channel.drain()
                    # Cancelling the wait takes nothing back: the block's end goes on with it.
                check_sending(server, receipts)

                assert Outcome.CANCELLED not in {receipt.outcome for receipt in receipts.values()}

    assert cancel_at_every_step(scenario) > 10


# --- at the mercy of chance ---------------------------------------------------------------------

FAULTS = [fault for fault in vars(testing).values() if isinstance(fault, Fault)]


def any_fault(chance):
    fault = chance.choice(
        [
            *FAULTS,
            testing.DELAYED_HANDSHAKE(chance.uniform(0, 12)),
            Fault.slow_reads(chance.choice([50, 1000])),
            Fault.reject(chance.choice([404, 429, 500, 503]), retry_after=chance.randrange(20)),
            *(Fault.close(code) for code in (1000, 1001, 1008, 1011, 1012, 1013, 4000)),
        ]
    )
    if fault.strikes and chance.random() < 0.8:
        return fault.later(
            after_messages=chance.choice([0, 0, 1, 2, 5]), after=chance.choice([0, 0.1, 1, 20])
        )
    return fault


class BodyFailed(Exception):
    pass


class Life:
    """One channel's life by chance."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.recorder = EventRecorder()
        self.receipts = {}
        self.items = []
        self.left_at = None
        self.channel = None

    async def speak(self, connection):
        """The server's side: a numbered feed on each connection."""
        for number in itertools.count():
            await connection.send(f"{connection.number} {number}")
            await trio.sleep(self.chance.choice([0, 0.1, 1, 7]) + 0.001)

    async def hook(self, connection):
        await connection.send_message("hello")
        await trio.sleep(self.chance.choice([0, 0.5, 5]))
        if self.chance.random() < 0.1:
            raise LookupError("the hook's own")

    async def send(self):
        for number in itertools.count():
            size = self.chance.choice([0, 10, 1000, 5000])
            message = f"{number} {'x' * size}"
            try:
                receipt = await self.channel.send(message)
            except (trio.ClosedResourceError, ChannelFailed):
                return
            self.receipts[message] = receipt
            if self.chance.random() < 0.1:
                with trio.move_on_after(self.chance.random()):
                    await receipt.wait()
            if self.chance.random() < 0.1:
                receipt.cancel()
            await trio.sleep(self.chance.choice([0.001, 0.01, 0.5, 5]))

    async def receive(self):
        try:
            async for item in self.channel.items():
                self.items.append(item)
                if self.chance.random() < 0.05:
                    await trio.sleep(self.chance.choice([1, 50]))
        except ChannelFailed:
            pass

    async def live(self, server):
        chance = self.chance
        policy = RetryPolicy(
            wait=chance.choice([None, tenacity.wait_none(), tenacity.wait_fixed(1)]),
            stable_after=chance.choice([0, 1, 15]),
            # Half of them never give up.
            classify=chance.choice([None, lambda loss, phase: wsclient.Retry("always")]),
        )
        async with wsclient.open_channel(
            server.url,
            on_connect=chance.choice([None, self.hook]),
            retry=policy,
            heartbeat=HeartbeatOptions(interval=chance.choice([1, 20]), timeout=5),
            connection=ConnectionOptions(connect_timeout=3, establish_timeout=4),
            limits=Limits(
                outbox_messages=chance.choice([1, 3, 1024]),
                outbox_size=chance.choice([100, 4 * 2**20]),
                inbox_messages=chance.choice([0, 3, 1024]),
            ),
            observers=[self.recorder],
        ) as self.channel:
            end = chance.choice(["well", "closing", "raising", "cancelling"])
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.send)
                    nursery.start_soon(self.receive)
                    await trio.sleep(chance.choice([0, 0.01, 3, 60, 300]))
                    if end == "closing":
                        self.left_at = trio.current_time()
                        await self.channel.aclose()
                    if end == "cancelling":
                        scope.cancel()
                    nursery.cancel_scope.cancel()
            self.left_at = self.left_at or trio.current_time()
            if end == "raising":
                raise BodyFailed

    async def run(self):
        chance = self.chance
        story = [any_fault(chance) for _ in range(chance.randrange(12))]
        with memory_network(buffer_size=chance.choice([1000, 64 * 1024])) as network:
            async with FaultServer([*story, NONE], network=network, handler=self.speak) as server:
                failure = None
                try:
                    await self.live(server)
                except ChannelFailed as error:
                    failure = error
                except BodyFailed:
                    pass
                self.check(server, failure)

    def check(self, server, failure):
        channel, recorder = self.channel, self.recorder
        check_sending(server, self.receipts)
        check_states(recorder, channel)
        if self.left_at is not None:
            is_draining = ChannelState.DRAINING in [
                change.state for change in recorder.of(StateChanged)
            ]

            assert trio.current_time() - self.left_at <= (7 if is_draining else 2), "I9"
        statistics = channel.statistics()

        assert (ChannelState.CLOSED if failure is None else ChannelState.FAILED) is channel.state
        assert statistics.messages_accepted == sum(statistics.outcomes.values()), "I1"
        assert statistics.messages_accepted >= len(self.receipts)
        assert 0 == statistics.outbox_messages == statistics.outbox_size
        self.check_items()

    def check_items(self):
        gaps = [event.gap for event in self.recorder.of(GapDetected)]
        epochs = [event.epoch for event in self.recorder.of(ConnectionReady)]

        # The gaps are a chain of the connections that were ready, and of those that were not but
        # said something before they were lost.
        chain = [gaps[0].after, *(gap.before for gap in gaps)] if gaps else epochs[:1]
        assert list(itertools.pairwise(chain)) == [(gap.after, gap.before) for gap in gaps], "I8"
        assert chain == sorted(set(chain))
        assert set(epochs) <= set(chain), "I8"
        last, after_gap, before = None, False, chain[0] if chain else 0
        for item in self.items:
            if isinstance(item, Gap):
                # Nothing between two gaps is left out.  (They are one, unless the first was read
                # before the second came.)
                assert before == item.after < item.before, "I8"
                after_gap, before = True, item.before
                continue
            connection, number = map(int, item.split())
            if after_gap or last is None:
                assert last is None or last[0] < connection, "I7: nothing stale"
                assert 0 == number, "a connection's messages begin with its first"
            else:
                assert (last[0], last[1] + 1) == (connection, number), "I8: no gap, no loss"
            last, after_gap = (connection, number), False


@pytest.mark.parametrize("seed", range(100))
def test_the_invariants_hold_whatever_chance_brings(run_on_virtual_time, seed):
    random.seed(seed)
    run_on_virtual_time(Life(seed).run)
