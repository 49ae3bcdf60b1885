"""A journal: everything that a channel receives is in it, and nothing waits for it."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import stat
import sys
import traceback

import pytest
import trio
import trio.testing

import wsclient
from wsclient import events
from wsclient.events import Gap, GapDetected, JournalFailed, JournalRecovered, Overflow
from wsclient.session import Journal, _open, _recording
from wsclient.session._recording import (
    LAST_WRITE,
    LINGER,
    MAX_WAITING,
    MIN_SIZE,
    RETRY_AFTER,
    Recorder,
)
from wsclient.session._records import JournalFiles, JournalRecord, encode
from wsclient.testing import EventRecorder, FaultServer, echo, memory_network

from .subscribing import PubSub

NOW = 1_700_000_000.0
GAP = Gap(after=1, before=2, since=NOW, until=NOW + 30, reason="closed")


class Disk:
    """Runs what waits for it at once, on virtual time; can hang, and be full."""

    def __init__(self, monkeypatch):
        self.answers = trio.Event()
        self.answers.set()
        self.error = None
        self.calls = 0
        real = os.write

        def write(file, data):
            if self.error is not None:
                raise self.error
            return real(file, data)

        monkeypatch.setattr(os, "write", write)

    async def run_sync(self, function, *args, abandon_on_cancel, limiter):
        assert abandon_on_cancel
        self.calls += 1
        async with limiter:
            await self.answers.wait()
        return function(*args)

    def fill(self):
        self.error = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "feed.journal"


@pytest.fixture
async def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.fixture
def recorder():
    return EventRecorder()


@pytest.fixture
async def recording(disk, recorder, nursery, autojump_clock):
    """Starts a recorder whose channel is the test."""

    # pytest-trio looks for a clock among a test's own arguments only.
    assert autojump_clock is trio.lowlevel.current_clock(), "the test must ask for autojump_clock"

    async def start(journal):
        made = Recorder(
            journal, "feed", now=lambda: NOW + trio.current_time(), run_sync=disk.run_sync
        )
        made.beside(recorder)
        made.ended = trio.Event()

        async def run():
            await made.run_beside(made.ended.wait)
            made.is_over.set()

        made.is_over = trio.Event()
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        return made

    return start


@pytest.fixture
def on_disk(monkeypatch, disk):
    """Channels of this test use the disk of the test."""
    monkeypatch.setattr(_open, "Recorder", functools.partial(Recorder, run_sync=disk.run_sync))


def items(path):
    return [record.item for record in Journal(path).records()]


def put(recorder, *messages):
    recorder.put(messages, len(messages), sum(len(message) for message in messages), 7)


# --- what it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ([7], {}, TypeError, "path must be str or os.PathLike, not int"),
        ([b"feed"], {}, TypeError, "path must be str or os.PathLike, not bytes"),
        ([""], {}, ValueError, "path must name a file"),
        (["a\0b"], {}, ValueError, "path must name a file"),
        (["\ud800"], {}, ValueError, "path must name a file"),
        (["feed"], {"max_size": 1.5}, TypeError, "max_size must be int, not float"),
        (["feed"], {"max_size": MIN_SIZE - 1}, ValueError, "max_size must be at least 4096"),
        (["feed"], {"files": True}, TypeError, "files must be int, not bool"),
        (["feed"], {"files": 0}, ValueError, "files must be at least 1, not 0"),
        (["feed"], {"redact": "x"}, TypeError, "redact must be a function, not str"),
    ],
)
def test_what_makes_no_journal_is_refused(arguments, options, error, text):
    with pytest.raises(error, match=text):
        Journal(*arguments, **options)


def test_a_path_may_be_of_any_kind_that_names_a_file(path):
    class Odd:
        def __fspath__(self):
            return b"feed"

    assert str(path) == Journal(path).path
    with pytest.raises(TypeError, match="path must be of str, not of bytes"):
        Journal(Odd())


def test_a_channel_takes_nothing_else_for_a_journal():
    with pytest.raises(TypeError, match="journal must be Journal, not str"):
        wsclient.open_channel("ws://server.test", journal="feed.journal")


# --- recording ----------------------------------------------------------------------------------


async def test_what_a_channel_receives_is_in_its_journal(autojump_clock, path, recorder, on_disk):
    async def serve(connection):
        await connection.send("first")
        await connection.send(b"\0\xff")
        await trio.sleep(60)
        await connection.close(1012)

    journal = Journal(path)
    with memory_network() as network:
        async with (
            FaultServer(network=network, handler=serve) as server,
            wsclient.open_channel(
                server.url, name="feed", journal=journal, observers=[recorder]
            ) as channel,
        ):
            await recorder.wait_for(events.ConnectionReady, count=2)
            await trio.sleep(1)
            received = [await anext(channel.items()) for _ in range(5)]
    records = list(journal.records())

    assert received == [record.item for record in records]
    assert ["first", b"\0\xff", recorder.of(GapDetected)[0].gap] == received[:3]
    assert [1, 1, 2, 2, 2] == [record.epoch for record in records]
    assert sorted(record.time for record in records) == [record.time for record in records]
    assert [] == recorder.of(JournalFailed)


async def test_without_a_journal_nothing_is_in_the_way(autojump_clock):
    with memory_network() as network:
        async with (
            FaultServer(network=network) as server,
            wsclient.open_channel(server.url, observers=(), ready_timeout=9) as channel,
        ):
            assert channel._inbox is channel._supervisor.connection._inbox


async def test_what_the_channel_keeps_to_itself_is_recorded_as_well(autojump_clock, path, on_disk):
    async def serve(connection):
        await connection.send("plain")
        await connection.send(await connection.receive())
        await connection.send("plain")
        await trio.sleep_forever()

    delivery = wsclient.DeliveryOptions(correlation=wsclient.JsonCorrelation())
    with memory_network() as network:
        async with (
            FaultServer(network=network, handler=serve) as server,
            wsclient.open_channel(
                server.url, journal=Journal(path), observers=(), delivery=delivery
            ) as channel,
        ):
            reply = await channel.request({"op": "balance"})
            await trio.sleep(1)

    assert {"op": "balance", "id": 1} == reply
    assert ["plain", '{"op": "balance", "id": 1}', "plain"] == items(path)


async def test_of_two_connections_each_message_has_its_own_epoch(autojump_clock, path, on_disk):
    async def serve(connection):
        for number in range(100):
            await connection.send(str(number))
            await trio.sleep(1)

    with memory_network() as network:
        async with (
            FaultServer(network=network, handler=serve) as server,
            wsclient.open_channel(
                server.url,
                journal=Journal(path),
                observers=(),
                dedupe=lambda message: message,
                redundancy=2,
            ),
        ):
            await trio.sleep(10.5)
    epochs = {}
    for record in Journal(path).records():
        epochs.setdefault(record.epoch, []).append(record.item)

    assert {1, 2} == set(epochs)
    assert list("0123456789") == epochs[1][:10]
    assert list("012345678") == epochs[2][:9]


async def test_what_goes_to_a_feed_is_recorded_as_well(autojump_clock, path, on_disk):
    """Also what comes on a second connection, before the first one has brought it."""

    async def serve(connection):
        asked = json.loads(await connection.receive())
        await connection.send(json.dumps({"op": "subscribed", "key": asked["key"]}))
        for number in range(100):
            await connection.send(json.dumps({"key": asked["key"], "n": number}))
            await trio.sleep(1)

    with memory_network() as network:
        async with (
            FaultServer(network=network, handler=serve) as server,
            wsclient.open_channel(
                server.url,
                journal=Journal(path),
                observers=(),
                protocol=PubSub(),
                dedupe=lambda message: message,
                redundancy=2,
            ) as channel,
            channel.subscribe("trades") as feed,
        ):
            values = [await feed.receive() for _ in range(10)]
    found = {}
    for record in Journal(path).records():
        found.setdefault(record.epoch, []).append(json.loads(record.item))

    assert list(range(10)) == values
    assert {1, 2} == set(found)
    for epoch in found:
        subscribed, *published = found[epoch]

        assert {"op": "subscribed", "key": "trades"} == subscribed
        assert list(range(8)) == [message["n"] for message in published][:8]


async def test_what_came_while_the_hook_failed_is_recorded(autojump_clock, path, on_disk):
    async def fail(connection):
        await trio.sleep(1)
        raise LookupError("the hook failed")

    async def serve(connection):
        await connection.send("early")
        await trio.sleep_forever()

    with memory_network() as network:
        async with FaultServer(network=network, handler=serve) as server:
            with pytest.raises(wsclient.ChannelFailed):
                async with wsclient.open_channel(
                    server.url, journal=Journal(path), observers=(), on_connect=fail
                ):
                    await trio.sleep_forever()

    assert ["early"] == items(path)


async def test_what_is_dropped_because_nobody_takes_it_was_received(autojump_clock, path, on_disk):
    async def serve(connection):
        for number in range(5):
            await connection.send(str(number))
        await trio.sleep_forever()

    limits = wsclient.Limits(inbox_messages=1, inbox_overflow=wsclient.OverflowPolicy.DROP_OLDEST)
    with memory_network() as network:
        async with (
            FaultServer(network=network, handler=serve) as server,
            wsclient.open_channel(
                server.url, journal=Journal(path), observers=(), limits=limits
            ) as channel,
        ):
            await trio.sleep(5)

            assert "4" == await channel.receive()

    assert list("01234") == items(path)


async def test_a_real_thread_writes_what_came_before_the_end(path):
    async with (
        FaultServer(handler=echo) as server,
        wsclient.open_channel(server.url, journal=Journal(path), observers=()) as channel,
    ):
        for number in range(100):
            await channel.send(str(number))
        for _ in range(100):
            await channel.receive()

    assert [str(number) for number in range(100)] == items(path)
    if sys.platform != "win32":
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)


async def test_a_channel_in_a_nursery_of_ones_own_records_until_that_is_cancelled(path):
    async with FaultServer(handler=echo) as server, trio.open_nursery() as nursery:
        channel = await wsclient.connect_channel(
            nursery, server.url, journal=Journal(path), observers=()
        )
        await channel.send("hello")
        await channel.receive()
        nursery.cancel_scope.cancel()

    assert ["hello"] == items(path)


async def test_a_bot_records_as_well(path):
    bot = wsclient.Bot("ws://server.test", journal=Journal(path))

    assert Journal(path) == bot._channel_options["journal"]


async def test_records_gather_before_they_are_written(autojump_clock, recording, disk, path):
    recorder = await recording(Journal(path))
    for number in range(10):
        put(recorder, str(number))
        await trio.sleep(LINGER / 100)
    await trio.sleep(LINGER)

    assert 1 == disk.calls
    assert [str(number) for number in range(10)] == items(path)
    await trio.sleep(3600)

    assert 1 == disk.calls


async def test_an_empty_batch_is_nothing(autojump_clock, recording, disk, path):
    recorder = await recording(Journal(path))
    put(recorder)
    await trio.sleep(1)

    assert 0 == disk.calls


async def test_a_gap_is_recorded_and_told_on(autojump_clock, recording, path):
    recorder = await recording(Journal(path))
    told = []
    event = GapDetected(channel="feed", gap=GAP)
    other = JournalRecovered(channel="feed")
    observe = recorder.beside(told.append)
    put(recorder, "before")
    observe(event)
    observe(other)
    put(recorder, "after")
    await trio.sleep(1)

    assert ["before", GAP, "after"] == items(path)
    assert [event, other] == told
    assert [7, 2, 7] == [record.epoch for record in Journal(path).records()]


# --- what should not be kept --------------------------------------------------------------------


async def test_what_is_redacted_never_reaches_the_disk(autojump_clock, recording, path):
    def redact(message):
        return None if message == "login" else message.replace("c4n4ry", "…")

    recorder = await recording(Journal(path, redact=redact))
    put(recorder, "login", "token c4n4ry", "plain")
    await trio.sleep(1)

    assert ["token …", "plain"] == items(path)
    assert b"c4n4ry" not in path.read_bytes()


async def test_what_was_to_be_redacted_is_not_in_the_traceback_either(
    autojump_clock, recording, recorder, path
):
    def redact(message):
        raise LookupError("mine")

    put(await recording(Journal(path, redact=redact)), "c4n4ry")
    await trio.sleep(1)
    [failed] = recorder.of(events.HandlerFailed)
    *_, last = traceback.walk_tb(failed.error.__traceback__)

    assert ("redact", {}) == (last[0].f_code.co_name, last[0].f_locals)


def look_up(message):
    try:
        return json.loads(message)["text"]
    except ValueError as error:
        raise LookupError("mine") from error


def look_up_quietly(message):
    try:
        return json.loads(message)["text"]
    except ValueError:
        raise LookupError("mine") from None


def look_up_all(message):
    try:
        return json.loads(message)["text"]
    except ValueError as error:
        raise ExceptionGroup("mine", [error]) from None


def read_bytes(message):
    return b"c4n4ry\xff".decode()


@pytest.mark.parametrize("redact", [look_up, look_up_quietly, look_up_all, read_bytes])
async def test_nor_is_it_in_what_has_led_to_the_error(
    autojump_clock, recording, recorder, path, redact
):
    put(await recording(Journal(path, redact=redact)), "c4n4ry")
    await trio.sleep(1)
    [failed] = recorder.of(events.HandlerFailed)
    seen = [failed.error, *getattr(failed.error, "exceptions", ())]
    seen += [error.__context__ for error in seen if error.__context__ is not None]
    variables = [
        frame.f_locals
        for error in seen
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_globals["__name__"] != "wsclient.session._recording"
    ]

    assert (redact is read_bytes) == (len(seen) == 1)
    assert "c4n4ry" not in repr([variables, seen])


async def test_what_cannot_be_redacted_is_not_written_and_told_once(
    autojump_clock, recording, recorder, path
):
    def redact(message):
        if message == "bad":
            raise LookupError("mine")
        return 7 if message == "odd" else message

    recording_ = await recording(Journal(path, redact=redact))
    put(recording_, "a", "bad", "odd", "b", "bad")
    await trio.sleep(1)
    put(recording_, "bad")
    await trio.sleep(1)

    assert ["a", Overflow(2), "b", Overflow(1), Overflow(1)] == items(path)
    [failed] = recorder.of(events.HandlerFailed)

    assert ("feed", "a message for the journal") == (failed.channel, failed.subject)
    assert failed.handler.endswith("redact")
    assert "mine" == str(failed.error)
    # And again, once it has worked.
    put(recording_, "c")
    await trio.sleep(1)
    put(recording_, "odd")
    await trio.sleep(1)

    assert ["mine", "redact must return str, bytes or None, not int"] == [
        str(failed.error) for failed in recorder.of(events.HandlerFailed)
    ]


# --- a disk that fails --------------------------------------------------------------------------


async def test_a_full_disk_is_told_once_and_stops_nothing(
    autojump_clock, recording, disk, recorder, path
):
    recording_ = await recording(Journal(path))
    put(recording_, "a")
    await trio.sleep(1)
    disk.fill()
    for text in "bcd":
        put(recording_, text)
        await trio.sleep(3 * RETRY_AFTER)

    assert [
        JournalFailed(channel="feed", cause=f"{path}: No space left on device")
    ] == recorder.events
    disk.error = None
    await trio.sleep(2 * RETRY_AFTER)

    assert JournalRecovered(channel="feed") == recorder.events[-1]
    assert 2 == len(recorder.events)
    # It was kept meanwhile.
    assert list("abcd") == items(path)


async def test_a_full_disk_is_told_once_also_when_it_costs_messages(
    autojump_clock, recording, disk, recorder, path, monkeypatch
):
    monkeypatch.setattr(_recording, "MAX_WAITING", 1000)
    recording_ = await recording(Journal(path))
    disk.fill()
    for _ in range(100):
        put(recording_, "x" * 100)
        await trio.sleep(RETRY_AFTER)

    assert ["JournalFailed"] == recorder.names()
    disk.error = None
    await trio.sleep(2 * RETRY_AFTER)

    assert ["JournalFailed", "JournalRecovered"] == recorder.names()
    assert ["x" * 100] * 6 + [Overflow(94)] == items(path)


async def test_a_folder_that_is_not_there_is_told_and_stops_nothing(
    autojump_clock, path, recorder, on_disk
):
    journal = Journal(path.parent / "nowhere" / "feed")
    with memory_network() as network:
        async with (
            FaultServer(network=network, handler=echo) as server,
            wsclient.open_channel(server.url, journal=journal, observers=[recorder]) as channel,
        ):
            await channel.send("hello")

            assert "hello" == await channel.receive()
            await recorder.wait_for(JournalFailed)
            await channel.send("hello")

            assert "hello" == await channel.receive()


async def test_what_a_slow_disk_cannot_take_is_missing_and_counted(
    autojump_clock, recording, disk, recorder, path
):
    recording_ = await recording(Journal(path, max_size=4 * MAX_WAITING))
    disk.answers = trio.Event()
    large = "x" * (MAX_WAITING // 4)
    for _ in range(3):
        put(recording_, large)
    await trio.sleep(1)
    for _ in range(4):
        put(recording_, large, "small")

    assert ["JournalFailed"] == recorder.names()
    assert "too slow" in recorder.events[0].cause
    disk.answers.set()
    await trio.sleep(1)
    put(recording_, "after")
    await trio.sleep(1)

    assert [large] * 3 + [Overflow(8), "after"] == items(path)
    assert ["JournalFailed", "JournalRecovered"] == recorder.names()


async def test_gaps_that_a_slow_disk_cannot_take_cost_no_memory_either(
    autojump_clock, recording, disk, recorder, path, monkeypatch
):
    monkeypatch.setattr(_recording, "MAX_WAITING", 1000)
    recording_ = await recording(Journal(path))
    observe = recording_.beside(recorder)
    disk.answers = trio.Event()
    for _ in range(1000):
        observe(GapDetected(channel="feed", gap=GAP))

    assert 16 == len(recording_._waiting)
    disk.answers.set()
    await trio.sleep(1)
    observe(GapDetected(channel="feed", gap=GAP))
    await trio.sleep(1)

    assert [*[GAP] * 15, Overflow(985), GAP] == items(path)


async def test_a_burst_that_is_too_large_is_not_punished_with_a_wait(
    autojump_clock, recording, recorder, path
):
    recording_ = await recording(Journal(path))
    put(recording_, "before")
    recording_.put(["x"], 1, MAX_WAITING, 7)
    await trio.sleep(2 * LINGER)

    assert ["before", Overflow(1)] == items(path)


async def test_a_disk_that_hangs_holds_up_the_end_for_half_a_second(
    autojump_clock, recording, disk, recorder, path
):
    recording_ = await recording(Journal(path))
    put(recording_, "a")
    disk.answers = trio.Event()
    await trio.sleep(1)
    began = trio.current_time()
    recording_.ended.set()
    await recording_.is_over.wait()

    assert pytest.approx(LAST_WRITE) == trio.current_time() - began
    assert "did not answer in time" in recorder.of(JournalFailed)[0].cause


async def test_a_message_larger_than_a_file_is_missing_and_counted(autojump_clock, recording, path):
    recorder = await recording(Journal(path, max_size=MIN_SIZE))
    put(recorder, "a", "x" * MIN_SIZE, "b")
    await trio.sleep(1)
    put(recorder, "c")
    await trio.sleep(1)

    assert ["a", Overflow(1), "b", "c"] == items(path)


async def test_the_last_message_of_all_is_missing_and_counted_as_well(
    autojump_clock, recording, path
):
    put(await recording(Journal(path, max_size=MIN_SIZE)), "a", "x" * MIN_SIZE)
    await trio.sleep(1)

    assert ["a", Overflow(1)] == items(path)


@pytest.mark.parametrize("redact", [functools.partial(int, base="x")])
async def test_a_function_without_a_name_may_fail_as_well(
    autojump_clock, recording, recorder, path, redact
):
    recording_ = await recording(Journal(path, redact=redact))
    put(recording_, "a")
    await trio.sleep(1)

    assert "partial" == recorder.of(events.HandlerFailed)[0].handler


# --- playing it again ---------------------------------------------------------------------------


@pytest.fixture
def recorded(path):
    """A journal of half a minute, of an hour ago."""
    files = JournalFiles(str(path), MIN_SIZE, 2)
    records = [
        JournalRecord(time=NOW, epoch=1, item="a"),
        JournalRecord(time=NOW + 2, epoch=1, item=b"b"),
        JournalRecord(time=NOW + 30, epoch=2, item=GAP),
        # The wall clock was set back.
        JournalRecord(time=NOW + 20, epoch=2, item="c"),
        JournalRecord(time=NOW + 32, epoch=2, item="d"),
    ]
    files.write([encode(record) for record in records], NOW)
    files.close()
    return Journal(path)


@pytest.mark.parametrize("speed", [1, 0.5, 60.0])
async def test_a_replay_takes_its_time_on_trios_clock(autojump_clock, recorded, speed):
    began = trio.current_time()
    played = [
        (item, (trio.current_time() - began) * speed) async for item in recorded.replay(speed=speed)
    ]

    assert ["a", b"b", GAP, "c", "d"] == [item for item, _ in played]
    assert pytest.approx([0, 2, 30, 30, 32]) == [seconds for _, seconds in played]


async def test_a_replay_loses_nothing_to_those_who_give_up_waiting(autojump_clock, recorded):
    replay = recorded.replay(speed=1)
    played = []
    while len(played) < 5:
        with trio.move_on_after(5):
            played.append(await anext(replay))

    assert ["a", b"b", GAP, "c", "d"] == played


async def test_a_replay_that_does_not_wait_lets_others_run(autojump_clock, recorded):
    replay = recorded.replay()
    for _ in range(5):
        with trio.testing.assert_checkpoints():
            await anext(replay)
    with trio.testing.assert_checkpoints(), pytest.raises(StopAsyncIteration):
        await anext(replay)

    assert 0 == trio.current_time()


@pytest.mark.parametrize(
    ("speed", "error"),
    [
        ("1", TypeError),
        (True, TypeError),
        (0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
    ],
)
def test_a_speed_that_is_none_is_refused(path, speed, error):
    with pytest.raises(error, match="speed must be"):
        Journal(path).replay(speed=speed)


async def test_what_is_not_there_cannot_be_played(path):
    with pytest.raises(FileNotFoundError):
        await anext(Journal(path).replay())
