"""The outbox on disk, through a channel: accepted, marked, written, removed, and found again."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import time

import attrs
import pytest
import tenacity
import trio
import trio.testing

import wsclient
from wsclient import errors
from wsclient.events import (
    ChannelClosed,
    ChannelState,
    Delivery,
    OutboxFailed,
    OutboxRecovered,
    OutboxRestored,
    Outcome,
    Truth,
)
from wsclient.options import DeliveryOptions, Limits, OverflowPolicy, RetryPolicy
from wsclient.session._disk_outbox import AHEAD, DiskOutbox
from wsclient.session._storage import Add, Mark, Remove, SqliteOutbox, Stored, Unmark
from wsclient.session._tap import Tap
from wsclient.testing import (
    MUTE_CLOSE,
    NEVER_READS,
    NONE,
    REFUSE,
    SILENCE,
    SILENT_HANDSHAKE,
    FaultServer,
    memory_network,
)

AT_ONCE = RetryPolicy(wait=tenacity.wait_none())
EVERY_TENTH = RetryPolicy(wait=tenacity.wait_fixed(0.1), budget=None)
OFFLINE = RetryPolicy(wait=tenacity.wait_fixed(3600))
JSON = DeliveryOptions(
    acknowledgement=wsclient.JsonAcknowledgement(redelivered_field="again"),
)
settled = trio.testing.wait_all_tasks_blocked


class Disk:
    """A storage in memory, and what stands for its thread: it can hang, and it can fail."""

    def __init__(self):
        self.messages = {}
        """What is on it, by id, in order."""
        self.commits = []
        self.failures = []
        """What the next commits raise."""
        self.broken = None
        """What every commit raises."""
        self.opening = None
        """What opening raises."""
        self.is_open = False
        self.now = time.time
        self._answers = trio.Event()
        self._answers.set()

    def hang(self):
        self._answers = trio.Event()

    def answer(self):
        self._answers.set()

    async def run_sync(self, function, *args, abandon_on_cancel, limiter):
        async with limiter:
            await self._answers.wait()
        return function(*args)

    def open(self):
        if self.opening is not None:
            raise self.opening
        self.is_open = True
        return list(self.messages.values())

    def commit(self, changes):
        failure = self.failures.pop(0) if self.failures else self.broken
        if failure is not None:
            raise failure
        for change in changes:
            match change:
                case Add(stored):
                    assert stored.id not in self.messages
                    self.messages[stored.id] = stored
                case Mark(id) | Unmark(id):
                    stored = self.messages[id]
                    step = 1 if isinstance(change, Mark) else -1
                    self.messages[id] = attrs.evolve(stored, attempts=stored.attempts + step)
                case Remove(id):
                    del self.messages[id]
        self.commits.append(tuple(changes))

    def close(self):
        self.is_open = False

    @property
    def texts(self):
        return [stored.message for stored in self.messages.values()]

    @property
    def marked(self):
        return [stored.message for stored in self.messages.values() if stored.begun]

    def crash(self):
        """What the next process finds."""
        after = Disk()
        after.messages = dict(self.messages)
        return after

    def put(self, text, **more):
        id = f"id-{len(self.messages)}"
        values = {"delivery": Delivery.QUEUED, **more}
        self.messages[id] = Stored(id=id, message=text, **values)


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def use(monkeypatch):
    """Makes channels keep their messages on a disk."""

    def use(disk):
        monkeypatch.setattr(SqliteOutbox, "storage", lambda _: disk)
        return SqliteOutbox("outbox.db")

    return use


@pytest.fixture
def open_channel(use, recorder):
    def open_channel(url, disk, **options):
        options = {"retry": AT_ONCE, "observers": (recorder,), **options}
        return wsclient.open_channel(url, outbox=use(disk), **options)

    return open_channel


@pytest.fixture
def nowhere(network):
    """A server that takes no connection."""

    @contextlib.asynccontextmanager
    async def nowhere():
        async with FaultServer([REFUSE], network=network) as server:
            yield server

    return nowhere


def _make_outbox(disk, options=None, *, told=lambda *_: None, **limits):
    return DiskOutbox(
        disk,
        Limits(**limits),
        options or DeliveryOptions(),
        overflowed=told,
        restored=told,
        troubled=told,
        wake=told,
    )


class Call:
    """A call in a task of its own."""

    def __init__(self, nursery, function, *args, **options):
        self.scope = trio.CancelScope()
        self.result = None
        self.error = None
        self.is_done = False
        nursery.start_soon(self._run, functools.partial(function, *args, **options))

    async def _run(self, function):
        with self.scope:
            try:
                self.result = await function()
            except Exception as error:
                self.error = error
        self.is_done = True


# --- accepting ----------------------------------------------------------------------------------


async def test_s1_9_send_returns_when_the_message_is_on_the_disk_and_it_is_written_after(
    autojump_clock, network, disk, open_channel, nursery
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        disk.hang()
        call = Call(nursery, channel.send, "hello")
        await trio.sleep(5)

        assert (False, [], []) == (call.is_done, disk.texts, server.messages)
        disk.answer()
        await server.wait_messages(1)

        assert Outcome.RECEIVED is await call.result.wait()
    assert {} == disk.messages


async def test_s1_9_a_message_for_a_waiting_connection_is_accepted_and_marked_in_one_commit(
    autojump_clock, network, disk, open_channel
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        await settled()
        await channel.send("hello")
        await server.wait_messages(1)

        assert 1 == len(disk.commits)
        assert ["hello"] == disk.marked


async def test_s1_3_a_send_cancelled_before_its_commit_begins_is_never_sent(
    autojump_clock, network, disk, open_channel, nursery
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        disk.hang()
        first = Call(nursery, channel.send, "first")
        await settled()
        second = Call(nursery, channel.send, "second")
        await settled()
        second.scope.cancel()
        await settled()

        assert (True, None) == (second.is_done, second.result)
        assert 1 == channel.statistics().messages_accepted
        disk.answer()
        await channel.send("third")
        await channel.flush()
    assert ["first", "third"] == server.messages
    assert {Outcome.RECEIVED: 2} == channel.statistics().outcomes
    assert first.result is not None


async def test_s1_3_a_send_cancelled_during_its_commit_is_accepted(
    autojump_clock, network, disk, open_channel, nursery
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        disk.hang()
        call = Call(nursery, channel.send, "hello")
        await settled()
        call.scope.cancel()
        await settled()

        assert not call.is_done
        disk.answer()
        await server.wait_messages(1)

        assert call.result is not None


async def test_a_send_that_is_cancelled_while_the_disk_hangs_is_not_accepted_and_removed(
    autojump_clock, network, disk, open_channel, nursery
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        disk.hang()
        call = Call(nursery, channel.send, "hello")
        await settled()
        call.scope.cancel()
        await trio.sleep(2)

        assert isinstance(call.error, errors.OutboxIOError)
        assert 0 == channel.statistics().messages_accepted
        disk.answer()
        await trio.sleep(1)

        assert {} == disk.messages
    assert [] == server.messages


async def test_s1_9_order_on_disk_is_the_order_of_sending_also_of_those_who_wait_for_room(
    autojump_clock, network, disk, open_channel, nursery
):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        open_channel(server.url, disk, retry=OFFLINE, limits=Limits(outbox_messages=2)) as channel,
    ):
        for number in range(20):
            Call(nursery, channel.send, str(number))
            await settled()
        assert ["0", "1"] == disk.texts
        channel.retry_now()
        await server.wait_messages(20)
        await channel.flush()
    added = [
        change.stored.message
        for commit in disk.commits
        for change in commit
        if isinstance(change, Add)
    ]

    assert [str(number) for number in range(20)] == added == server.messages


async def test_s1_8_what_is_sent_directly_is_never_on_the_disk(
    autojump_clock, network, disk, open_channel
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        await channel.send("now", delivery=Delivery.DIRECT)
        channel.send_nowait("now, too", delivery=Delivery.DIRECT)
        await server.wait_messages(2)
    assert [] == disk.commits


async def test_a_direct_message_waits_behind_what_waits_for_the_disk(
    autojump_clock, network, disk, open_channel, nursery
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        disk.hang()
        channel.send_nowait("first")
        Call(nursery, channel.send, "second", delivery=Delivery.DIRECT)
        await trio.sleep(1)

        assert [] == server.messages
        disk.answer()
        await server.wait_messages(2)
    assert ["first", "second"] == server.messages


async def test_send_nowait_does_not_wait_for_the_disk_and_its_message_does(
    autojump_clock, network, disk, open_channel
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        disk.hang()
        receipt = channel.send_nowait("hello")
        await trio.sleep(1)

        assert ([], [], None) == (disk.texts, server.messages, receipt.outcome)
        disk.answer()

        assert Outcome.RECEIVED is await receipt.wait()


async def test_what_was_dropped_at_once_is_not_on_the_disk(
    autojump_clock, nowhere, disk, open_channel
):
    options = DeliveryOptions(overflow=OverflowPolicy.DROP_NEWEST)
    async with (
        nowhere() as server,
        open_channel(
            server.url, disk, retry=OFFLINE, delivery=options, limits=Limits(outbox_messages=1)
        ) as channel,
    ):
        await channel.send("kept")
        receipts = [await channel.send("dropped"), channel.send_nowait("dropped")]
        await channel.aclose()

    assert [Outcome.DROPPED] * 2 == [receipt.outcome for receipt in receipts]
    assert ["kept"] == disk.texts


@pytest.mark.parametrize("policy", [OverflowPolicy.DROP_OLDEST, OverflowPolicy.CONFLATE])
async def test_what_makes_room_leaves_the_disk_in_the_commit_that_brings_the_new(
    policy, autojump_clock, nowhere, disk, open_channel
):
    async with (
        nowhere() as server,
        open_channel(
            server.url,
            disk,
            retry=OFFLINE,
            delivery=DeliveryOptions(overflow=policy),
            limits=Limits(outbox_messages=1),
        ) as channel,
    ):
        old = await channel.send("old", key="k")
        await channel.send("new", key="k")

        assert Outcome.DROPPED is old.outcome
        await channel.aclose()
    adding, replacing = disk.commits

    assert [Add] == [type(change) for change in adding]
    assert {Add, Remove} == {type(change) for change in replacing}
    assert ["new"] == disk.texts


async def test_a_message_dropped_on_its_way_to_the_disk_does_not_stay_there(
    autojump_clock, nowhere, disk, open_channel
):
    options = DeliveryOptions(overflow=OverflowPolicy.CONFLATE)
    async with (
        nowhere() as server,
        open_channel(server.url, disk, retry=OFFLINE, delivery=options) as channel,
    ):
        disk.hang()
        receipts = [channel.send_nowait(text, key="k") for text in ("old", "new")]
        disk.answer()
        await trio.sleep(1)

        assert [Outcome.DROPPED, None] == [receipt.outcome for receipt in receipts]
        assert ["new"] == disk.texts
        await channel.aclose()


async def test_a_message_that_is_taken_back_leaves_the_disk_at_once(
    autojump_clock, nowhere, disk, open_channel
):
    async with nowhere() as server, open_channel(server.url, disk, retry=OFFLINE) as channel:
        receipt = await channel.send("an order")

        assert receipt.cancel()
        before = trio.current_time()
        await settled()

        assert (before, {}) == (trio.current_time(), disk.messages)
        await channel.aclose()


# --- marks --------------------------------------------------------------------------------------


async def test_s1_9_nothing_is_written_before_its_mark_is_on_the_disk(
    autojump_clock, network, disk, open_channel
):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        open_channel(server.url, disk, retry=OFFLINE) as channel,
    ):
        for number in range(10):
            await channel.send(str(number))
        disk.hang()
        channel.retry_now()
        await channel.wait_ready()
        await trio.sleep(5)

        assert ([], []) == (disk.marked, server.messages)
        disk.answer()
        await server.wait_messages(10)
    assert 10 == len(disk.commits[10])
    assert {Mark} == {type(change) for change in disk.commits[10]}


async def test_s1_9_marks_are_a_batch_ahead_of_the_writes_and_no_more(
    autojump_clock, network, disk, open_channel
):
    limits = Limits(outbox_messages=math.inf, outbox_size=math.inf)
    async with (
        FaultServer([REFUSE, NEVER_READS], network=network) as server,
        open_channel(server.url, disk, retry=OFFLINE, limits=limits) as channel,
    ):
        receipts = [channel.send_nowait("x" * 50_000) for _ in range(4 * AHEAD)]
        await settled()
        channel.retry_now()
        await channel.wait_ready()
        await settled()
        begun = [receipt for receipt in receipts if receipt.truth is Truth.UNKNOWN]

        assert 0 < len(begun) < 2 * AHEAD
        assert len(begun) <= len(disk.marked) <= len(begun) + AHEAD
        more = [channel.send_nowait("y") for _ in range(10)]
        await settled()

        assert "y" not in disk.marked
        await channel.aclose()
    # Taken back from those that were not written.
    assert {Outcome.STORED} == {receipt.outcome for receipt in more}
    assert {Outcome.LOST_UNKNOWN} == {receipt.outcome for receipt in begun}
    assert [] == disk.marked
    assert 4 * AHEAD + 10 - len(begun) == len(disk.messages)


async def test_a_mark_that_fails_holds_the_messages_up_and_nothing_else(
    autojump_clock, network, disk, open_channel, recorder
):
    async def handler(connection):
        await connection.send("news")
        async for _ in connection:
            pass

    async with (
        FaultServer([REFUSE, NONE], network=network, handler=handler) as server,
        open_channel(server.url, disk, retry=OFFLINE) as channel,
    ):
        receipt = await channel.send("hello")
        disk.broken = errors.OutboxIOError("it broke")
        channel.retry_now()

        assert "news" == await channel.receive()
        await trio.sleep(60)

        assert ChannelState.READY is channel.state
        assert [] == server.messages
        disk.broken = None

        assert Outcome.RECEIVED is await receipt.wait()
    assert ["it broke"] == [str(event.error) for event in recorder.of(OutboxFailed)]
    assert 1 == len(recorder.of(OutboxRecovered))


async def test_a_message_written_again_is_counted_on_the_disk(
    autojump_clock, network, disk, open_channel
):
    async with (
        FaultServer(network=network, handler=_drop_after_one) as server,
        open_channel(server.url, disk, delivery=JSON) as channel,
    ):
        await channel.send("{}", delivery=Delivery.ACKED)
        await server.wait_messages(3)
        await settled()
        (stored,) = disk.messages.values()

        assert stored.attempts >= 3
        await channel.aclose()


async def _drop_after_one(connection):
    await connection.receive()
    connection.reset()


# --- from one process to the next ---------------------------------------------------------------


async def test_s1_9_what_was_left_is_sent_in_order_before_anything_new(
    autojump_clock, network, nowhere, disk, open_channel, recorder
):
    async with nowhere() as server, open_channel(server.url, disk, retry=OFFLINE) as channel:
        receipts = [await channel.send(str(number)) for number in range(300)]
        await channel.aclose()

        assert {(Outcome.STORED, Truth.CERTAINLY_NOT)} == {
            (receipt.outcome, receipt.truth) for receipt in receipts
        }
    assert [300] == [event.stored for event in recorder.of(ChannelClosed)]
    assert not disk.is_open
    async with (
        FaultServer(network=network, host="second.test") as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.send("new")
        assert await channel.flush()

    assert [*map(str, range(300)), "new"] == server.messages
    assert [(300, 0, 0)] == [
        (event.messages, event.lost_unknown, event.expired) for event in recorder.of(OutboxRestored)
    ]
    assert {} == disk.messages
    assert 301 == channel.statistics().messages_accepted


async def test_an_empty_outbox_tells_nothing(autojump_clock, network, disk, open_channel, recorder):
    async with FaultServer(network=network) as server, open_channel(server.url, disk):
        pass
    assert [] == recorder.of(OutboxRestored)


async def test_s1_9_after_a_crash_what_was_marked_is_lost_unknown_and_never_repeated(
    autojump_clock, network, disk, open_channel, recorder
):
    disk.put("may have been written", attempts=1)
    disk.put("was not")
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.flush()

        assert {Outcome.LOST_UNKNOWN: 1, Outcome.RECEIVED: 1} == channel.statistics().outcomes
    assert ["was not"] == server.messages
    assert [(1, 1, 0)] == [
        (event.messages, event.lost_unknown, event.expired) for event in recorder.of(OutboxRestored)
    ]
    assert {} == disk.messages


async def test_s1_7_with_resend_unknown_what_was_marked_goes_again(
    autojump_clock, network, disk, open_channel
):
    disk.put("may have been written", attempts=1)
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk, delivery=DeliveryOptions(resend_unknown=True)) as channel,
    ):
        await channel.flush()

        assert {Outcome.RECEIVED: 1} == channel.statistics().outcomes
    assert ["may have been written"] == server.messages


async def test_s1_9_whenever_a_crash_comes_the_disk_has_what_is_open_and_marks_what_was_begun(
    autojump_clock, network, open_channel, nursery
):
    accepted = {}
    checks = 0

    class Watched(Disk):
        def commit(self, changes):
            nonlocal checks
            checks += 1
            unmarked = set(self.texts) - set(self.marked)
            for text, receipt in accepted.items():
                if receipt.outcome is None:
                    assert text in self.texts
                    assert text not in unmarked or receipt.truth is Truth.CERTAINLY_NOT
            assert set() == unmarked & set(server.messages)
            super().commit(changes)

    async def drop_some(connection):
        for _ in range(7):
            await connection.receive()
        connection.reset()

    async def send(channel, sender):
        for number in range(20):
            text = f"{sender}.{number}"
            accepted[text] = await channel.send(text)
            await trio.sleep(0.01 + sender / 1000)

    async with (
        FaultServer(network=network, handler=drop_some) as server,
        open_channel(server.url, Watched(), retry=EVERY_TENTH) as channel,
    ):
        async with trio.open_nursery() as senders:
            for sender in range(10):
                senders.start_soon(send, channel, sender)
        await channel.flush()

    assert 200 == len(accepted)
    assert len(set(server.messages)) == len(server.messages) > 20
    assert checks > 50


def test_s1_9_wherever_a_channel_is_stopped_the_next_one_sends_what_was_stored_and_no_more(
    use, cancel_at_every_step
):
    """Stop the first process at each of its steps, and let a second one go on."""

    async def scenario(cancellation):
        disk = Disk()
        accepted = []
        with memory_network() as network:
            async with FaultServer(network=network, handler=_drop_after_one) as server:
                with cancellation.scope:
                    async with wsclient.open_channel(
                        server.url, outbox=use(disk), retry=AT_ONCE, observers=()
                    ) as channel:
                        accepted.extend([await channel.send(str(n)) for n in range(3)])
                        with trio.move_on_after(1):
                            await channel.flush()
                first = list(server.messages)
                after = disk.crash()
                left = [one.message for one in after.messages.values() if not one.begun]
                async with wsclient.open_channel(
                    server.url, outbox=use(after), retry=AT_ONCE, observers=()
                ) as channel:
                    await channel.flush()
                    with trio.move_on_after(1):
                        await server.wait_messages(len(first) + len(left))
                both = server.messages
        assert len(set(both)) == len(both)
        stored = [
            str(number)
            for number, receipt in enumerate(accepted)
            if receipt.outcome is Outcome.STORED
        ]

        assert set(stored) <= set(left)
        assert [] == [text for text in left if text in first]

    assert cancel_at_every_step(scenario) > 20


async def test_s1_9_acked_messages_stay_until_they_are_acknowledged_and_go_again(
    autojump_clock, network, disk, open_channel
):
    async with FaultServer(network=network) as server:
        async with open_channel(server.url, disk, delivery=JSON) as channel:
            receipt = await channel.send('{"order": 1}', delivery=Delivery.ACKED)
            await receipt.received()
            await channel.aclose()

        assert (Outcome.STORED, Truth.CERTAIN) == (receipt.outcome, receipt.truth)
        crashed = disk.crash()
        async with open_channel(server.url, crashed, delivery=JSON) as channel:
            await server.wait_messages(2)
            await channel.aclose()
    first, second = map(json.loads, server.messages)

    assert {"order": 1, "id": receipt.id} == first
    assert {"order": 1, "id": receipt.id, "again": True} == second


async def test_s1_9_an_acked_message_that_was_never_written_is_not_marked_as_redelivered(
    autojump_clock, network, nowhere, disk, open_channel
):
    async with (
        nowhere() as server,
        open_channel(server.url, disk, delivery=JSON, retry=OFFLINE) as channel,
    ):
        receipt = await channel.send("{}", delivery=Delivery.ACKED)
        await channel.aclose()

    async def acknowledge(connection):
        async for message in connection:
            await connection.send(json.dumps({"ack": json.loads(message)["id"]}))

    async with (
        FaultServer(network=network, host="second.test", handler=acknowledge) as server,
        open_channel(server.url, disk, delivery=JSON) as channel,
    ):
        await channel.flush()

        assert {Outcome.ACKED: 1} == channel.statistics().outcomes
    assert [{"id": receipt.id}] == [json.loads(message) for message in server.messages]
    assert {} == disk.messages


async def test_a_late_acknowledgement_saves_a_stored_message_from_going_again(
    autojump_clock, disk, use
):
    use(disk)
    disk.put("{}", delivery=Delivery.ACKED, attempts=1)
    outbox = _make_outbox(disk, JSON)
    await outbox.load()

    assert outbox.acknowledge("id-0", accepted=True)
    assert Tap(outbox).pull() is None
    await outbox.aclose()
    assert {} == disk.messages


async def test_acked_messages_without_a_strategy_are_refused_and_left_alone(
    autojump_clock, network, disk, open_channel
):
    disk.put("marked", attempts=1)
    disk.put("{}", delivery=Delivery.ACKED)
    async with FaultServer(network=network) as server:
        with pytest.raises(ValueError, match="acknowledgement"):
            async with open_channel(server.url, disk):
                pytest.fail("the block must not begin")

    assert ["marked", "{}"] == disk.texts
    assert not disk.is_open


async def test_s1_5_a_ttl_goes_on_by_the_wall_clock_from_one_process_to_the_next(
    autojump_clock, disk, use
):
    use(disk)
    disk.now = lambda: 1000.0
    disk.put("over", expires_at=999.0)
    disk.put("soon over", expires_at=1010.0)
    disk.put("for ever")
    told = []
    outbox = _make_outbox(disk, told=lambda *what: told.append(what))
    async with trio.open_nursery() as nursery:
        await outbox.load()
        nursery.start_soon(outbox.run)
        await outbox.accept(outbox.offer("new", expires_at=trio.current_time() + 7))

        assert (2, 0, 1) == told[0]
        assert 1007.0 == list(disk.messages.values())[-1].expires_at
        await trio.sleep(9)

        assert {Outcome.EXPIRED: 2} == outbox.outcomes
        await trio.sleep(2)

        assert {Outcome.EXPIRED: 3} == outbox.outcomes
        await outbox.aclose()
        nursery.cancel_scope.cancel()
    assert ["for ever"] == disk.texts


async def test_s1_4_what_was_found_counts_towards_the_bounds(
    autojump_clock, nowhere, disk, open_channel
):
    for number in range(5):
        disk.put(str(number))
    async with (
        nowhere() as server,
        open_channel(server.url, disk, retry=OFFLINE, limits=Limits(outbox_messages=5)) as channel,
    ):
        with pytest.raises(trio.WouldBlock):
            channel.send_nowait("one too many")
        assert 5 == channel.statistics().outbox_messages
        await channel.aclose()


async def test_a_key_goes_on_to_replace_after_a_restart(
    autojump_clock, nowhere, disk, open_channel
):
    disk.put("old", key="k")
    options = DeliveryOptions(overflow=OverflowPolicy.CONFLATE)
    async with (
        nowhere() as server,
        open_channel(server.url, disk, retry=OFFLINE, delivery=options) as channel,
    ):
        await channel.send("new", key="k")
        await channel.aclose()
    assert ["new"] == disk.texts


# --- leaving ------------------------------------------------------------------------------------


async def test_s1_9_what_is_in_flight_at_the_end_is_lost_unknown_and_not_found_again(
    autojump_clock, network, disk, open_channel
):
    async with (
        FaultServer([SILENCE], network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        receipt = await channel.send("hello")
        await settled()
        await channel.aclose()
    assert (Outcome.LOST_UNKNOWN, Truth.UNKNOWN) == (receipt.outcome, receipt.truth)
    assert {} == disk.messages


async def test_with_resend_unknown_what_is_in_flight_at_the_end_is_stored(
    autojump_clock, network, disk, open_channel
):
    options = DeliveryOptions(resend_unknown=True)
    async with (
        FaultServer([SILENCE], network=network) as server,
        open_channel(server.url, disk, delivery=options) as channel,
    ):
        await channel.wait_ready()
        receipt = await channel.send("hello")
        await settled()
        await channel.aclose()
    assert (Outcome.STORED, Truth.UNKNOWN) == (receipt.outcome, receipt.truth)
    assert ["hello"] == disk.marked


async def test_drain_says_that_what_is_stored_has_not_arrived(
    autojump_clock, nowhere, disk, open_channel
):
    async with nowhere() as server, open_channel(server.url, disk, retry=OFFLINE) as channel:
        await channel.send("hello")

        assert not await channel.drain(1)
    assert ["hello"] == disk.texts


async def test_what_send_nowait_gave_last_is_stored_at_the_end_and_not_as_marked(
    autojump_clock, network, disk, open_channel, nursery
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        await settled()
        disk.hang()
        receipts = [channel.send_nowait("on its way")]
        await settled()
        receipts.append(channel.send_nowait("waiting"))
        closing = Call(nursery, channel.aclose)
        await trio.sleep(0.1)
        disk.answer()
        await settled()

        assert closing.is_done
        assert [(Outcome.STORED, Truth.CERTAINLY_NOT)] * 2 == [
            (receipt.outcome, receipt.truth) for receipt in receipts
        ]
        assert ["on its way", "waiting"] == disk.texts
        assert [] == disk.marked
    assert [] == server.messages


async def test_s3_3_a_disk_that_hangs_does_not_hold_up_leaving_and_the_truth_is_told(
    autojump_clock, network, disk, open_channel, nursery
):
    limits = Limits(outbox_messages=math.inf, outbox_size=math.inf)
    async with (
        FaultServer([REFUSE, NEVER_READS], network=network) as server,
        open_channel(server.url, disk, limits=limits, retry=OFFLINE) as channel,
    ):
        receipts = [await channel.send("x" * 2**20) for _ in range(20)]
        channel.retry_now()
        await channel.wait_ready()
        await settled()
        begun = [receipt for receipt in receipts if receipt.truth is Truth.UNKNOWN]
        disk.hang()
        waiting = Call(nursery, channel.send, "waiting")
        receipts.append(channel.send_nowait("unawaited"))
        await settled()
        began = trio.current_time()
        await channel.aclose()

        assert trio.current_time() - began <= 2
    await settled()
    assert 0 < len(begun) < 20 == len(disk.marked)
    # The marks are on the disk, and could not be taken back.
    assert {(Outcome.LOST_UNKNOWN, Truth.UNKNOWN)} == {
        (receipt.outcome, receipt.truth) for receipt in receipts
    }
    assert isinstance(waiting.error, errors.OutboxIOError)


@pytest.mark.parametrize("by", ["cancel", "raise"])
async def test_s3_3_a_disk_that_hangs_does_not_hold_up_whoever_leaves_in_trouble(
    by, autojump_clock, network, disk, open_channel
):
    async with FaultServer([MUTE_CLOSE], network=network) as server:
        began = None
        with trio.CancelScope() as scope, contextlib.suppress(KeyError):
            async with open_channel(server.url, disk) as channel:
                await channel.wait_ready()
                disk.hang()
                channel.send_nowait("hello")
                await settled()
                began = trio.current_time()
                if by == "raise":
                    raise KeyError
                scope.cancel()
                await trio.lowlevel.checkpoint_if_cancelled()

        assert trio.current_time() - began <= 2
        assert ChannelState.CLOSED is channel.state


async def test_s3_3_a_sender_that_waits_for_a_hung_disk_does_not_hold_up_leaving_for_more(
    autojump_clock, network, disk, open_channel
):
    async with FaultServer([MUTE_CLOSE], network=network) as server:
        with trio.CancelScope() as scope:
            async with open_channel(server.url, disk) as channel:
                await channel.wait_ready()
                disk.hang()
                scope.deadline = trio.current_time() + 10
                with pytest.raises(errors.OutboxIOError):
                    await channel.send("hello")
                await trio.sleep_forever()

        assert trio.current_time() - scope.deadline <= 2


async def test_a_sender_that_waits_for_the_disk_is_told_why_the_channel_ended(
    autojump_clock, network, disk, open_channel, nursery
):
    async with FaultServer([SILENT_HANDSHAKE], network=network) as server:
        with pytest.raises(errors.ChannelFailed) as failed:
            async with open_channel(
                server.url, disk, retry=RetryPolicy(stop=tenacity.stop_after_attempt(1))
            ) as channel:
                disk.hang()
                first = Call(nursery, channel.send, "first")
                await settled()
                second = Call(nursery, channel.send, "second")
                await trio.sleep_forever()
    await settled()
    assert isinstance(first.error, errors.OutboxIOError)
    assert failed.value is second.error


# --- a disk that fails --------------------------------------------------------------------------


async def test_s1_9_a_full_disk_is_told_to_who_sends_and_the_next_message_is_tried(
    autojump_clock, network, disk, open_channel, recorder
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        disk.failures = [errors.OutboxDiskFull("full"), errors.OutboxDiskFull("full")]
        for _ in range(2):
            with pytest.raises(errors.OutboxDiskFull):
                await channel.send("lost")
        statistics = channel.statistics()

        assert "What is sent cannot be kept: full." in str(channel.explain())

        assert (0, 0, {}) == (
            statistics.messages_accepted,
            statistics.outbox_messages,
            statistics.outcomes,
        )
        await channel.send("kept")
        await channel.flush()

        assert channel.explain().outbox_trouble is None
    assert ["kept"] == server.messages
    assert 1 == len(recorder.of(OutboxFailed))
    assert 1 == len(recorder.of(OutboxRecovered))


@pytest.mark.parametrize(
    ("error", "outcome", "truth"),
    [
        (errors.OutboxDiskFull("full"), Outcome.DROPPED, Truth.CERTAINLY_NOT),
        (errors.OutboxIOError("broken"), Outcome.LOST_UNKNOWN, Truth.UNKNOWN),
    ],
)
async def test_what_send_nowait_gave_and_the_disk_refused_has_that_outcome(
    error, outcome, truth, autojump_clock, network, disk, open_channel
):
    async with (
        FaultServer(network=network) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        disk.failures = [error]
        receipt = channel.send_nowait("hello")

        assert outcome is await receipt.wait()
        assert truth is receipt.truth
    assert [] == server.messages


async def test_s1_9_damage_ends_the_channel_and_is_told_to_everybody(
    autojump_clock, network, disk, open_channel, nursery
):
    ended = []
    async with FaultServer(network=network) as server:
        with pytest.raises(errors.OutboxCorrupt, match="damaged"):
            async with open_channel(server.url, disk) as channel:
                await channel.wait_ready()
                disk.broken = errors.OutboxCorrupt("damaged")
                receiving = Call(nursery, channel.receive)
                with pytest.raises(errors.OutboxCorrupt):
                    await channel.send("hello")
                try:
                    channel.send_nowait("after")
                except Exception as error:
                    ended.append(error)
                await trio.sleep_forever()
    await settled()
    assert ChannelState.FAILED is channel.state
    assert isinstance(receiving.error, errors.ChannelFailed)
    assert isinstance(receiving.error.__cause__, errors.OutboxCorrupt)
    assert isinstance(ended[0], (errors.ChannelFailed, errors.OutboxCorrupt))
    assert 0 == channel.statistics().messages_accepted


async def test_a_journal_that_takes_nothing_more_refuses_at_once(autojump_clock, disk, use):
    use(disk)
    outbox = _make_outbox(disk)
    await outbox.load()
    disk.broken = errors.OutboxCorrupt("damaged")
    async with trio.open_nursery() as nursery:
        running = Call(nursery, outbox.run)
        with pytest.raises(errors.OutboxCorrupt):
            await outbox.accept(outbox.offer("a"))
        await settled()

        assert isinstance(running.error, errors.OutboxCorrupt)
        with pytest.raises(errors.OutboxCorrupt):
            await outbox.accept(outbox.offer("b"))
        with pytest.raises(errors.OutboxCorrupt):
            outbox.accept_nowait(outbox.offer("c"))
        assert (0, 0, {}) == (outbox.accepted, outbox.open, outbox.outcomes)
    await outbox.aclose()


async def test_a_sender_let_in_as_the_disk_takes_nothing_more_is_told(autojump_clock, disk, use):
    use(disk)
    outbox = _make_outbox(disk, outbox_messages=1)
    await outbox.load()
    async with trio.open_nursery() as nursery:
        running = Call(nursery, outbox.run)
        first = await outbox.accept(outbox.offer("a"))
        waiting = [Call(nursery, outbox.accept, outbox.offer("b")) for _ in range(500)]
        await settled()
        running.scope.cancel()
        await settled()
        first.cancel()
        await settled()

        assert {trio.ClosedResourceError} == {type(call.error) for call in waiting}
        assert {Outcome.CANCELLED: 1} == outbox.outcomes
    await outbox.aclose()
    assert {} == disk.messages


@pytest.mark.parametrize(
    "error",
    [
        errors.OutboxCorrupt("x"),
        errors.OutboxDiskFull("x"),
        errors.OutboxIncompatible("x"),
        errors.OutboxIOError("x"),
        errors.OutboxLocked("x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("how", ["open", "connect"])
async def test_s1_9_an_outbox_that_cannot_be_opened_is_told_to_who_opens_the_channel(
    error, how, autojump_clock, network, disk, use, nursery
):
    disk.opening = error
    async with FaultServer(network=network) as server:
        with pytest.raises(type(error)):
            if how == "connect":
                await wsclient.connect_channel(nursery, server.url, outbox=use(disk), observers=())
            async with wsclient.open_channel(server.url, outbox=use(disk), observers=()):
                pytest.fail("the block must not begin")

    assert [] == server.connections


async def test_opening_a_slow_outbox_can_be_cancelled(autojump_clock, network, disk, open_channel):
    disk.hang()
    async with FaultServer(network=network) as server:
        began = trio.current_time()
        with trio.move_on_after(1) as scope:
            async with open_channel(server.url, disk):
                pytest.fail("the block must not begin")

        assert scope.cancelled_caught
        assert trio.current_time() - began <= 2


async def test_a_slow_disk_holds_up_neither_receiving_nor_heartbeats(
    autojump_clock, network, disk, open_channel
):
    async def chatter(connection):
        for number in range(300):
            await connection.send(str(number))
            await trio.sleep(1)

    async with (
        FaultServer(network=network, handler=chatter) as server,
        open_channel(server.url, disk) as channel,
    ):
        await channel.wait_ready()
        disk.hang()
        channel.send_nowait("hello")
        received = [await channel.receive() for _ in range(200)]

        assert [str(number) for number in range(200)] == received
        assert 1 == channel.epoch
        disk.answer()
        await server.wait_messages(1)


async def test_what_no_longer_takes_its_id_is_put_aside(autojump_clock, disk, use):
    def mark(message, id, again):
        if again:
            raise ValueError("no")
        return message

    use(disk)
    outbox = _make_outbox(
        disk,
        DeliveryOptions(
            acknowledgement=wsclient.FunctionAcknowledgement(mark, lambda message: None)
        ),
    )
    await outbox.load()
    async with trio.open_nursery() as nursery:
        running = Call(nursery, outbox.run)
        await outbox.accept(outbox.offer("a", Delivery.ACKED))
        tap = Tap(outbox)
        tap.pull()
        await settled()
        tap.pull()
        tap.close()

        assert Tap(outbox).pull() is None
        assert {Outcome.QUARANTINED: 1} == outbox.outcomes
        await outbox.aclose()
        running.scope.cancel()
    assert {} == disk.messages


async def test_what_is_not_on_the_disk_at_the_end_is_cancelled(autojump_clock, disk, use):
    use(disk)
    outbox = _make_outbox(disk)
    await outbox.load()
    receipt = outbox.accept_nowait(outbox.offer("now", Delivery.DIRECT))
    await outbox.aclose()
    outbox.settle()

    assert Outcome.CANCELLED is receipt.outcome


# --- arguments, and files -----------------------------------------------------------------------


async def test_what_is_no_outbox_is_refused_where_it_is_given():
    with pytest.raises(TypeError, match="outbox must be SqliteOutbox, not str"):
        wsclient.open_channel("ws://example.com", outbox="outbox.db")
    with pytest.raises(TypeError, match="outbox must be SqliteOutbox, not str"):
        wsclient.Bot("ws://example.com", outbox="outbox.db")


async def test_a_nursery_that_is_closed_leaves_the_file_to_the_next_channel(tmp_path):
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with trio.open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError):
        await wsclient.connect_channel(nursery, "ws://127.0.0.1:1", outbox=outbox, observers=())
    storage = outbox.storage()

    assert [] == storage.open()
    storage.close()


async def test_s1_9_a_second_channel_on_a_file_is_told_at_once_and_the_first_goes_on(tmp_path):
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with (
        FaultServer() as server,
        wsclient.open_channel(server.url, outbox=outbox, observers=()) as channel,
    ):
        with pytest.raises(errors.OutboxLocked):
            async with wsclient.open_channel(server.url, outbox=outbox, observers=()):
                pytest.fail("the block must not begin")
        receipt = await channel.send("hello")

        assert Outcome.RECEIVED is await receipt.wait()


async def test_many_senders_share_the_commits_of_a_channels_file(tmp_path):
    outbox = SqliteOutbox(tmp_path / "outbox.db")

    async def send(channel, sender):
        for number in range(20):
            await channel.send(f"{sender}.{number}")

    async with (
        FaultServer() as server,
        wsclient.open_channel(server.url, outbox=outbox, observers=()) as channel,
    ):
        await channel.wait_ready()
        async with trio.open_nursery() as nursery:
            for sender in range(50):
                nursery.start_soon(send, channel, sender)
        await channel.flush()
        commits = channel._outbox._journal.commits
    storage = outbox.storage()

    assert 1000 == len(set(server.messages)) == len(server.messages)
    assert commits < 500
    assert [] == storage.open()
    storage.close()


async def test_a_bot_keeps_its_messages_where_it_is_told(tmp_path):
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with FaultServer([REFUSE]) as server, trio.open_nursery() as nursery:
        bot = wsclient.Bot(server.url, outbox=outbox, observers=())
        await nursery.start(bot.serve)
        await bot.send({"type": "hello"})
        nursery.cancel_scope.cancel()
    storage = outbox.storage()

    assert [{"type": "hello"}] == [json.loads(stored.message) for stored in storage.open()]
    storage.close()
    gc.collect()


async def test_a_tap_draws_what_is_on_the_disk_and_marked_in_order(autojump_clock, disk, use):
    use(disk)
    outbox = _make_outbox(disk)
    await outbox.load()
    async with trio.open_nursery() as nursery:
        running = Call(nursery, outbox.run)
        for text in "abc":
            await outbox.accept(outbox.offer(text))
        tap = Tap(outbox)

        assert tap.pull() is None
        await settled()
        drawn = [tap.pull().message for _ in "abc"]

        assert list("abc") == drawn == disk.marked
        assert tap.pull() is None
        tap.close()
        await outbox.aclose()
        running.scope.cancel()
    assert {} == disk.messages


async def test_after_one_that_was_refused_each_message_still_goes_again_in_its_place(
    autojump_clock, disk, use
):
    use(disk)
    outbox = _make_outbox(disk, JSON)
    await outbox.load()
    async with trio.open_nursery() as nursery:
        running = Call(nursery, outbox.run)
        disk.hang()
        disk.failures = [errors.OutboxDiskFull("full")]
        refused = Call(nursery, outbox.accept, outbox.offer('{"n": 0}', Delivery.ACKED))
        await settled()
        Call(nursery, outbox.accept, outbox.offer('{"n": 1}', Delivery.ACKED))
        await settled()
        disk.answer()
        await settled()
        await outbox.accept(outbox.offer('{"n": 2}', Delivery.ACKED))
        drawn = []
        for _ in range(2):
            tap = Tap(outbox)
            tap.pull()
            await settled()
            while entry := tap.pull():
                drawn.append(json.loads(entry.message)["n"])
            tap.close()

        assert isinstance(refused.error, errors.OutboxDiskFull)
        assert [1, 2, 2] == drawn
        await outbox.aclose()
        running.scope.cancel()


async def test_once_it_is_closed_nothing_is_drawn(autojump_clock, disk, use):
    use(disk)
    outbox = _make_outbox(disk)
    await outbox.load()
    async with trio.open_nursery() as nursery:
        running = Call(nursery, outbox.run)
        tap = Tap(outbox)
        tap.pull()
        receipt = await outbox.accept(outbox.offer("hello"))
        await outbox.aclose()

        assert tap.pull() is None
        outbox.settle()
        running.scope.cancel()
    assert Outcome.STORED is receipt.outcome


async def test_what_is_accepted_between_connections_is_not_marked(autojump_clock, disk, use):
    use(disk)
    outbox = _make_outbox(disk)
    await outbox.load()
    async with trio.open_nursery() as nursery:
        running = Call(nursery, outbox.run)
        tap = Tap(outbox)

        assert tap.pull() is None
        tap.close()
        await outbox.accept(outbox.offer("hello"))

        assert [] == disk.marked
        await outbox.aclose()
        running.scope.cancel()


async def test_who_closes_second_waits_as_long_as_the_first(autojump_clock, disk, use):
    use(disk)
    outbox = _make_outbox(disk)
    await outbox.load()
    async with trio.open_nursery() as nursery:
        running = Call(nursery, outbox.run)
        outbox.accept_nowait(outbox.offer("hello"))
        disk.hang()
        await settled()
        closing = [Call(nursery, outbox.aclose) for _ in range(2)]
        await settled()

        assert [False, False] == [call.is_done for call in closing]
        disk.answer()
        await settled()

        assert [True, True] == [call.is_done for call in closing]
        running.scope.cancel()
    assert ["hello"] == disk.texts


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_what_has_its_outcome_is_not_marked_where_it_still_stands_in_the_queue(
    autojump_clock, disk, use, is_cancelled
):
    use(disk)
    outbox = _make_outbox(disk)
    async with trio.open_nursery() as nursery:
        await outbox.load()
        nursery.start_soon(outbox.run)
        await outbox.accept(outbox.offer("first"))
        receipt = await outbox.accept(outbox.offer("second", expires_at=trio.current_time() + 1))
        if is_cancelled:
            receipt.cancel()
        await trio.sleep(2)

        assert ["first"] == disk.texts
        tap = Tap(outbox)
        tap.pull()
        await trio.sleep(2)

        assert ["first"] == disk.marked
        await outbox.aclose()
        nursery.cancel_scope.cancel()


async def test_a_reply_to_what_an_earlier_process_asked_is_not_for_who_asks_now(
    autojump_clock, network, disk, open_channel, nowhere, nursery
):
    async def reply(connection):
        async for message in connection:
            asked = json.loads(message)
            await connection.send(json.dumps({"id": asked["id"], "to": asked["op"]}))

    delivery = DeliveryOptions(correlation=wsclient.JsonCorrelation())
    async with (
        nowhere() as server,
        open_channel(server.url, disk, delivery=delivery, retry=OFFLINE) as channel,
    ):
        Call(nursery, channel.request, {"op": "earlier"})
        await settled()
        after = disk.crash()
        await channel.aclose()
    async with (
        FaultServer(handler=reply, network=network) as server,
        open_channel(server.url, after, delivery=delivery) as channel,
    ):
        reply_to_ours = await channel.request({"op": "ours"})
        earlier, ours = map(json.loads, server.messages)

        assert ("earlier", "ours") == (earlier["op"], ours["op"])
        assert earlier["id"] != ours["id"]
        assert "ours" == reply_to_ours["to"]
        assert "earlier" == json.loads(await channel.receive())["to"], "nobody waits for it"
        await channel.aclose()
