"""Feeds at the mercy of chance: a service with every bad habit, and what its feeds still promise.

For each feed, every published value from its first one on is received once and in order, or lies
inside of a gap that stands where it is missing (S6.2); there is no gap where nothing is missing and
the positions prove it (I8); what is wanted is what the server has once there is peace (I12);
leaving takes two seconds (I9), and nothing is left (I10).

A seed says everything: ``WSCLIENT_FEED_SEEDS=7`` plays one again, ``1000-2000`` a thousand others.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
from collections import deque
from contextlib import suppress

import pytest
import trio

import wsclient
from wsclient import (
    ChannelState,
    Gap,
    HeartbeatOptions,
    Limits,
    Overflow,
    OverflowPolicy,
    Published,
    RetryBudget,
    RetryPolicy,
    SendRate,
    Snapshot,
    SubscriptionOptions,
)
from wsclient.errors import ChannelFailed, SubscriptionFailed
from wsclient.testing import EventRecorder, _frames, memory_network, run_deterministic

from .subscribing import PubSub

pytestmark = pytest.mark.once

KEYS = "abc"
PEACE = 200
"""Seconds in which everything must be well again: the longest pauses are thirty."""


class Numbered(PubSub):
    """A value is the pair of its place in the truth, which the client knows nothing of, and its
    position."""

    def recognise(self, message):
        signal = super().recognise(message)
        return Published(signal.tag, tuple(signal.value)) if type(signal) is Published else signal

    def position(self, value):
        return value[1]


class Consecutive(Numbered):
    def is_next(self, before, after):
        return after == before + 1


class Stream:
    """What was published under one key: ``log`` has all positions, in order."""

    def __init__(self, key):
        self.key = key
        self.log = []
        self.begins_at = 0
        """Where in the log the present count begins."""
        self.ends = []
        """How long the log was whenever the stream was ended for good."""

    @property
    def head(self):
        return self.log[-1] if len(self.log) > self.begins_at else 0

    def add(self, step=1):
        self.log.append(self.head + step)
        return self.value(len(self.log) - 1)

    def value(self, index):
        return (index, self.log[index])

    def behind(self, position, depth):
        """The values behind a position that are remembered, and whether these are all."""
        present = [self.value(index) for index in range(self.begins_at, len(self.log))]
        known = present[-depth:]
        wanted = [value for value in known if value[1] > position]
        is_all = position <= self.head and (
            known == present or (bool(known) and known[0][1] <= position + 1)
        )
        return wanted, is_all

    def restart(self):
        self.begins_at = len(self.log)


class Link:
    """One connection, on the server's side: all goes out in one order, pongs too."""

    def __init__(self, service, stream, number):
        self.service = service
        self.chance = service.chance
        self.number = number
        self.peer = service.make_peer(stream)
        self.subscribed = set()
        self.locks = {key: trio.Lock() for key in KEYS}
        self.out = deque()
        self.has_out = trio.Event()
        self.is_over = False
        self.latency = self.chance.choice([0, 0, 0.01, 0.5, 3])
        self.bytes_left = math.inf
        if not service.is_calm and self.chance.random() < 0.5:
            self.bytes_left = self.chance.randrange(100, 4000)

    def say(self, message):
        self.put(_frames.encode_message(json.dumps(message)))

    def put(self, data):
        self.out.append((trio.current_time() + self.latency, data))
        self.has_out.set()

    async def send(self):
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                while self.out:
                    due, data = self.out.popleft()
                    await trio.sleep_until(due)
                    await self.peer.send(data[: int(min(len(data), self.bytes_left))])
                    self.bytes_left -= len(data)
                    if self.bytes_left <= 0:
                        self.cut()
                self.has_out = trio.Event()
                await self.has_out.wait()

    def cut(self):
        self.peer.stream.reset()

    async def serve(self):
        async with trio.open_nursery() as nursery:
            # The client may go at any time, inside of a frame as well.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
                if not self.service.is_calm:
                    await trio.sleep(self.chance.choice([0, 0, 0.1, 4]))
                await self.peer.accept()
                nursery.start_soon(self.send)
                while (frame := await self.peer.receive_frame()) is not None:
                    opcode, payload = frame
                    if opcode == 0x9:
                        if self.service.answers_pings:
                            self.put(_frames.encode_control(_frames.PONG, payload))
                    elif opcode == 0x8:
                        self.is_over = True
                        self.subscribed.clear()
                        self.put(_frames.encode_control(_frames.CLOSE, payload))
                        await trio.sleep(self.latency + 0.1)
                        break
                    elif payload != b"hello":
                        nursery.start_soon(self.heed, json.loads(payload))
            nursery.cancel_scope.cancel()
        self.is_over = True
        self.subscribed.clear()
        await self.peer.stream.aclose()

    async def heed(self, message):
        key = message["key"]
        async with self.locks[key]:
            if message["op"] == "unsubscribe":
                self.subscribed.discard(key)
                if self.service.confirms_ends:
                    self.say({"op": "unsubscribed", "key": key})
                return
            fate, chance = 1.0, self.chance
            if not self.service.is_calm:
                fate = chance.random()
                await trio.sleep(chance.choice([0, 0, 0, 0.1, 2, 6]))
            if fate < 0.1:
                self.say({"op": "refused", "key": key, "why": "not now", "later": True})
            elif fate > 0.12:
                self.take(key, message["after"])

    def take(self, key, after):
        service = self.service
        replay, resumed = [], False
        may_resume = after is not None and service.resumes and key not in self.subscribed
        if may_resume and self.chance.random() < 0.8:
            replay, resumed = service.streams[key].behind(
                after - service.repeats_last, service.depth
            )
            if not resumed:
                replay = []
        confirmation = {"op": "subscribed", "key": key, "resumed": resumed}
        is_early = self.chance.random() < 0.2
        if not is_early:
            self.say(confirmation)
        for value in replay:
            self.say({"key": key, "n": value})
        self.subscribed.add(key)
        if is_early:
            self.say(confirmation)


class Service:
    def __init__(self, chance, make_peer, *, consecutive):
        self.chance = chance
        self.make_peer = make_peer
        self.consecutive = consecutive
        self.is_calm = False
        self.streams = {key: Stream(key) for key in KEYS}
        self.links = []
        self.resumes = chance.random() < 0.5
        self.repeats_last = self.resumes and chance.random() < 0.3
        self.depth = chance.choice([3, 10, 100])
        self.answers_pings = chance.random() < 0.9
        self.confirms_ends = chance.random() < 0.8
        self.forgets = chance.random() < 0.3
        self.ends_for_good = chance.random() < 0.3
        self.pace = chance.choice([0.2, 1, 5])

    @property
    def open_links(self):
        return [link for link in self.links if not link.is_over]

    async def listen(self, listener):
        async with trio.open_nursery() as nursery:
            while True:
                attempt = await listener.wait_attempt()
                if not self.is_calm and self.chance.random() < 0.15:
                    attempt.refuse()
                    continue
                link = Link(self, attempt.accept(), len(self.links))
                self.links.append(link)
                nursery.start_soon(link.serve)

    async def publish(self):
        chance = self.chance
        while True:
            await trio.sleep(self.pace * chance.choice([0.01, 1, 2]))
            for _ in range(chance.choice([1, 1, 1, 3, 8])):
                self.publish_one(chance.choice(KEYS))

    def publish_one(self, key):
        is_odd = self.consecutive and not self.is_calm and self.chance.random() < 0.03
        value = self.streams[key].add(2 if is_odd and self.chance.random() < 0.5 else 1)
        for link in self.open_links:
            if key in link.subscribed and not (is_odd and self.chance.random() < 0.5):
                link.say({"key": key, "n": value})

    async def err(self):
        """All that can go wrong by itself."""
        chance = self.chance
        while True:
            await trio.sleep(chance.choice([0.1, 3, 20, 60]))
            if self.is_calm:
                continue
            links = self.open_links
            mishap = chance.choice(["cut", "cut", "leave", "end", "end", "good", "forget"])
            if mishap == "forget" and self.forgets:
                for stream in self.streams.values():
                    stream.restart()
                for link in links:
                    link.cut()
            elif mishap == "cut" and links:
                chance.choice(links).cut()
            elif mishap == "leave" and links:
                chance.choice(links).put(_frames.encode_close(chance.choice([1001, 1012]), ""))
            elif mishap == "end" and links:
                link, key = chance.choice(links), chance.choice(KEYS)
                if key in link.subscribed:
                    link.subscribed.discard(key)
                    link.say({"op": "refused", "key": key, "why": "ended", "later": True})
            elif mishap == "good" and self.ends_for_good:
                key = chance.choice(KEYS)
                self.streams[key].ends.append(len(self.streams[key].log))
                for link in links:
                    if key in link.subscribed:
                        link.subscribed.discard(key)
                        link.say({"op": "refused", "key": key})


class Taker:
    """One feed, and what came out of it."""

    def __init__(self, world, number):
        chance = self.chance = world.chance
        self.world = world
        self.number = number
        self.key = chance.choice(KEYS)
        self.stream = world.service.streams[self.key]
        self.items = []
        self.after = None
        self.ended = None
        self.is_open = False
        self.feed = None
        self.kind = chance.choice(["plain", "plain", "backfill", "generator", "snapshot", "both"])
        self.laziness = chance.choice([0, 0, 0, 0.3, 2])
        self.drops = False

    def __repr__(self):
        return f"<{self.kind} {self.number} of {self.key}>"

    def options(self):
        options = {"priority": self.chance.choice([0, 0, 5])}
        if self.kind in ("backfill", "both"):
            options["backfill"] = self.past
        if self.kind == "generator":
            options["backfill"] = self.past_one_by_one
        if self.kind in ("snapshot", "both"):
            options["snapshot"] = self.snapshot
        size = self.chance.choice([None, None, 1, 3, 20])
        if size is not None:
            policy = self.chance.choice(
                [OverflowPolicy.BLOCK, OverflowPolicy.DROP_OLDEST, OverflowPolicy.DROP_NEWEST]
            )
            options["limits"] = Limits(inbox_messages=size, inbox_overflow=policy)
        if self.world.positions[self.key] is not None and self.chance.random() < 0.3:
            self.after = self.world.positions[self.key]
            options["after"] = self.after[1]
        return options

    async def mishap(self):
        """Most hooks are well; some are slow, hang or fail."""
        if self.world.service.is_calm:
            return
        fate = self.chance.random()
        if fate < 0.15:
            raise LookupError("the hook's own")
        await trio.sleep(math.inf if fate < 0.25 else self.chance.choice([0, 0, 0.1, 2]))

    def remembered(self, gap):
        values, is_all = self.stream.behind(gap.after_position, self.world.depth)
        if not is_all and not self.world.consecutive:
            # Positions that only grow do not show it.
            raise LookupError("too long ago")
        if gap.before_position is not None and self.world.minds_before:
            values = [value for value in values if value[1] < gap.before_position]
        return values

    async def past(self, gap):
        await self.mishap()
        values = self.remembered(gap)
        await self.mishap()
        return values

    async def past_one_by_one(self, gap):
        await self.mishap()
        for value in self.remembered(gap):
            yield value
            if self.chance.random() < 0.3:
                await self.mishap()

    async def snapshot(self):
        await self.mishap()
        log = self.stream.log
        # A replica may be a little behind; positions that only grow would not show it.
        is_behind = self.world.consecutive and not self.world.service.is_calm
        behind = self.chance.choice([0, 0, 0, 1, 2]) if is_behind else 0
        index = max(len(log) - 1 - behind, self.stream.begins_at)
        if index >= len(log):
            return Snapshot((index - 1, 0, "empty"), 0)
        await self.mishap()
        return Snapshot((*self.stream.value(index), "snapshot"), log[index])

    async def run(self):
        seconds = self.chance.choice([0, 0.5, 10, 100, 1000])
        with trio.move_on_after(seconds):
            await self.live()

    async def live(self):
        self.feed = self.world.channel.subscribe(self.key, **self.options())
        async with self.feed:
            self.is_open = True
            try:
                await self.take()
            finally:
                self.is_open = False
                if self.feed.position is not None:
                    last = [item for item in self.items if isinstance(item, tuple)]
                    for item in last:
                        if item[1] == self.feed.position:
                            self.world.positions[self.key] = item

    async def take(self):
        chance = self.chance
        try:
            async for item in self.feed.items():
                self.items.append(item)
                if self.laziness and not self.world.service.is_calm:
                    await trio.sleep(chance.choice([0, 0, self.laziness, 10 * self.laziness]))
                    if chance.random() < 0.05:
                        with suppress(wsclient.InboxFull, trio.ClosedResourceError, ChannelFailed):
                            receipt = await self.world.channel.send("hello")
                            with trio.move_on_after(chance.choice([0.1, 20])):
                                await receipt.wait()
            self.ended = "end"
        except (SubscriptionFailed, ChannelFailed) as error:
            self.ended = repr(error)

    # What is promised.

    def check(self):
        log, last, told, has_restarted = self.stream.log, None, False, False
        if self.after is not None:
            last = self.after[0]
        for place, item in enumerate(self.items):
            where = f"{self} at {place}: {self.items[max(0, place - 4) : place + 2]}"
            if isinstance(item, Overflow):
                told = True
                continue
            if isinstance(item, Gap):
                self.check_gap(item, place, where)
                told = True
                continue
            index, position, *is_snapshot = item
            if is_snapshot:
                last, told = index, False
                # Then something of the old count may still be on its way.
                has_restarted = self.stream.begins_at > 0
                continue
            assert position == log[index]
            # A count that was begun anew may be brought from the past before it comes live.
            is_anew = has_restarted or (told and self.stream.begins_at > 0)
            if last is not None and not is_anew:
                assert index > last, f"twice, or out of order: {where}"
            if last is not None and not has_restarted and not told:
                # A count that was begun anew and has overtaken the last one shows nothing.
                hides = self.begins_anew(last, index) and position > log[last]
                assert index == last + 1 or hides, f"missing, and not told: {where}"
            last, told, has_restarted = index, False, False
        return last, told

    def begins_anew(self, first, last):
        """Whether the count has begun anew in between."""
        log = self.stream.log
        return any(log[i] <= log[i - 1] for i in range(max(first, 0) + 1, last + 1))

    def check_gap(self, gap, place, where):
        around = [
            self.items[place - 1] if place else None,
            *self.items[place + 1 : place + 2],
            None,
        ]
        if any(isinstance(beside, Overflow) for beside in around):
            return  # Where values were dropped, what is told of them is told together.
        before, after = (beside if isinstance(beside, tuple) else None for beside in around[:2])
        assert gap.subscription == self.key
        if before is not None:
            assert gap.after_position == before[1], f"the gap begins elsewhere: {where}"
        elif place == 0 and self.after is not None:
            assert gap.after_position == self.after[1], f"the gap begins elsewhere: {where}"
        if after is not None and gap.before_position is not None:
            assert gap.before_position == after[1] or len(after) == 3, (
                f"the gap ends elsewhere: {where}"
            )
        if before is None and place == 0 and self.after is None and self.kind == "plain":
            # Nothing was received before it, but something may have been published.
            return
        if before is not None and after is not None and len(after) == 2:
            is_proven = self.world.service.consecutive and after[1] == before[1] + 1

            assert not is_proven, f"a gap where nothing is missing: {where}"

    def check_up_to_date(self):
        last, told = self.check()
        # Asked to go on behind a position of the old count, a service that has one of the new does.
        hides = self.stream.begins_at > 0 and self.world.service.resumes
        if self.items and not told and not hides:
            assert last == len(self.stream.log) - 1, (
                f"{self} got {last} of {len(self.stream.log) - 1}: {self.items[-5:]}"
            )


class World:
    """A channel's whole life, and the service's."""

    def __init__(self, seed, make_peer):
        chance = self.chance = random.Random(seed)
        self.consecutive = chance.random() < 0.6
        self.service = Service(chance, make_peer, consecutive=self.consecutive)
        self.takers = []
        self.positions = dict.fromkeys(KEYS)
        self.depth = chance.choice([5, 1000, 1000])
        self.minds_before = chance.random() < 0.5
        self.recorder = EventRecorder()
        self.channel = None
        self.wants_takers = True

    async def come_and_go(self, nursery):
        for number in itertools.count():
            if self.wants_takers:
                taker = Taker(self, number)
                self.takers.append(taker)
                nursery.start_soon(taker.run)
            await trio.sleep(self.chance.choice([0, 0, 5, 40]))
            if number > 12:
                return

    def open_channel(self):
        chance = self.chance
        overlap = chance.choice([{}, {}, {"rotate_every": 30}, {"redundancy": 2}])
        if overlap and chance.random() < 0.2:
            overlap = {"rotate_every": 40, "redundancy": 2}
        return wsclient.open_channel(
            "ws://chance.test",
            protocol=(Consecutive if self.consecutive else Numbered)(),
            observers=[self.recorder],
            retry=RetryPolicy(
                budget=RetryBudget(attempts=100_000),
                classify=lambda loss, phase: wsclient.Retry("always"),
                stable_after=chance.choice([0, 15]),
            ),
            heartbeat=HeartbeatOptions(interval=20 if self.service.answers_pings else math.inf),
            subscriptions=SubscriptionOptions(
                timeout=chance.choice([3, 15]),
                in_flight=chance.choice([1, 2, 64]),
                rate=chance.choice([None, None, SendRate(messages=2, reserve=0)]),
                hook_timeout=5,
            ),
            **overlap,
        )

    async def run(self):
        chance = self.chance
        with memory_network(buffer_size=chance.choice([300, 64 * 1024])) as network:
            listener = network.listen("chance.test", 80)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.service.listen, listener)
                nursery.start_soon(self.service.publish)
                nursery.start_soon(self.service.err)
                left_at = await self.live()

                assert trio.current_time() - left_at <= 2, "I9"
                nursery.cancel_scope.cancel()
        for taker in self.takers:
            taker.check()
        self.check_nothing_left()

    async def live(self):
        chance = self.chance
        async with self.open_channel() as self.channel:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.come_and_go, nursery)
                await trio.sleep(chance.choice([1, 30, 200]))
                await self.have_peace()
                self.service.is_calm, self.wants_takers = False, True
                await trio.sleep(chance.choice([0, 1, 30, 100]))
                if chance.random() < 0.5:
                    await self.have_peace()
                end = chance.choice(["leave", "close"])
                left_at = trio.current_time()
                if end == "close":
                    await self.channel.aclose()
                    await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await self.channel.aclose()
        return left_at

    async def have_peace(self):
        self.service.is_calm, self.wants_takers = True, False
        for link in self.service.open_links:
            link.bytes_left = math.inf
        await trio.sleep(PEACE)
        # One more of everything, behind which nothing comes for a while.
        pace, self.service.pace = self.service.pace, 10_000
        await trio.sleep(3 * 5)
        for key in KEYS:
            self.service.publish_one(key)
        await trio.sleep(10)
        await self.channel.wait_ready()
        wanted = {taker.key for taker in self.takers if taker.is_open and not taker.ended}
        live = [taker for taker in self.takers if taker.is_open and not taker.ended]

        assert {subscription.key for subscription in self.channel._subscriptions} == wanted
        # Of a second connection that waits for the first one's pong nothing is promised yet.
        second = self.channel._supervisor._standby.line
        waits = second is None or (second.enrolment and second.enrolment._room is not None)
        links = self.service.open_links[: 1 if waits else 2]
        assert links
        for link in links:
            assert wanted == link.subscribed, f"I12: connection {link.number}"
        for taker in live:
            assert taker.feed.is_live
            taker.check_up_to_date()
        self.service.pace = pace

    def check_nothing_left(self):
        subscriptions = self.channel._subscriptions

        assert ChannelState.CLOSED is self.channel.state
        assert [] == list(subscriptions)
        assert [] == list(subscriptions._enrolments)
        assert [] == [feed for feed in subscriptions._joining if feed._joins]


def seeds():
    text = os.environ.get("WSCLIENT_FEED_SEEDS", "0-100")
    first, _, end = text.partition("-")
    return range(int(first), int(end) if end else int(first) + 1)


@pytest.mark.parametrize("seed", seeds())
def test_s6_2_every_value_comes_once_and_in_order_or_lies_in_a_gap(make_peer, seed):
    run_deterministic(seed, World(seed, make_peer).run)
