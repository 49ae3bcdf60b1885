"""One run of a schedule: the same each time, and judged from outside."""

import hashlib
import os
import subprocess
import sys

import attrs
import pytest
import trio

import wsclient
from wsclient.session._storage import Stored
from wsclient.testing import (
    CLEAR,
    NONE,
    SILENT_HANDSHAKE,
    Breach,
    Conditions,
    Fault,
    Way,
    _simulation,
)
from wsclient.testing._disk import Disk, Failing
from wsclient.testing._schedule import (
    Act,
    Change,
    Cue,
    Ending,
    Leave,
    OnDisk,
    Promises,
    Say,
    Spell,
    Strike,
    make_schedule,
)
from wsclient.testing._simulation import simulate

SEEDS = range(25)
MESSAGES = 20

PROGRAM = """\
import hashlib
from wsclient.testing._simulation import simulate

traces = "".join(simulate(seed, 20).trace for seed in range(25))
print(hashlib.sha256(traces.encode()).hexdigest())
"""


@pytest.fixture
def only(monkeypatch):
    """Lets one schedule be played, with some of it given."""

    def only(seed, **given):
        schedule = attrs.evolve(make_schedule(seed, MESSAGES), **{"disk": None} | given)
        monkeypatch.setattr(_simulation, "make_schedule", lambda seed, messages: schedule)
        return simulate(seed, MESSAGES)

    return only


def calm_sends(**given):
    """Messages that are sent at once, and what is given."""
    calm = {
        "delivery": wsclient.Delivery.QUEUED,
        "patience": None,
        "pause": 0.0,
        "withdraw_after": None,
        "ttl": None,
        "asks": None,
    }
    sends = make_schedule(1, MESSAGES).sends
    return tuple(attrs.evolve(send, **(calm | given)) for send in sends)


def test_s8_same_seed_gives_the_same_trace_byte_for_byte_in_another_process():
    traces = "".join(simulate(seed, MESSAGES).trace for seed in SEEDS)
    expected = hashlib.sha256(traces.encode()).hexdigest()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )

        assert expected == done.stdout.strip()


def test_runs_are_clean_and_tell_what_was_seen():
    runs = [simulate(seed, MESSAGES) for seed in SEEDS]

    assert [()] == list({run.breaches for run in runs})
    assert any(run.history.subscribed for run in runs)
    assert any(run.history.budget for run in runs)
    assert all(run.history.departures or "gets ChannelFailed" in run.trace for run in runs)
    assert 300 < sum(len(run.history.sent) for run in runs)
    assert 100 < sum(len(run.history.received) for run in runs)
    assert {"True", "False"} >= {
        line.rpartition(" ")[2]
        for run in runs
        for line in run.trace.splitlines()
        if "cancel() gives" in line
    }


def test_flood_of_pings_is_seen():
    seed = next(
        seed for seed in range(1000) if "a flood of pings" in str(make_schedule(seed, 1).changes)
    )
    run = simulate(seed, 5)
    sides = [side for side in run.history.server if side.pings]

    assert () == run.breaches
    assert [0 < side.pongs < side.pings for side in sides] == [True] * len(sides)
    assert "the server sends a flood of pings" in run.trace


@pytest.mark.parametrize("leave", Leave)
def test_every_way_to_leave_is_timed(only, leave):
    run = only(1, leave=leave, leave_at=1.0)

    (departure,) = run.history.departures
    assert leave.value in departure.state
    assert departure.drain == (5.0 if leave in (Leave.END, Leave.DRAIN) else 0.0)


def test_crash_is_a_breach(monkeypatch):
    async def crash(self, connection):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
            raise LookupError("a bug")

    monkeypatch.setattr(_simulation._Simulation, "_serve", crash)
    breaches = [breach for seed in SEEDS for breach in simulate(seed, 1).breaches]

    assert Breach("crash", "LookupError: a bug") in breaches


def test_exception_that_a_call_does_not_promise_is_a_breach(monkeypatch):
    async def send(self, *arguments, **options):
        raise LookupError("a surprise")

    monkeypatch.setattr(wsclient.DurableChannel, "send", send)
    breaches = simulate(1, 1).breaches

    assert Breach("surprise", "send() of message 1, QUEUED, raised LookupError('a surprise')") in [
        attrs.evolve(breach, text=_as_queued(breach.text)) for breach in breaches
    ]


def _as_queued(text):
    return text.replace("DIRECT", "QUEUED").replace("ACKED", "QUEUED")


def test_run_that_never_ends_is_a_breach(monkeypatch, only):
    monkeypatch.setattr(_simulation, "HORIZON", 10.0)
    run = only(1, leave_at=100.0)

    assert "I10: after 10 s a task was left behind" in map(str, run.breaches)


def test_run_that_never_rests_is_a_breach(monkeypatch):
    monkeypatch.setattr(_simulation, "RESTLESS", 50)

    assert "I10: a task that never rests was left behind" in map(str, simulate(1, 5).breaches)


def test_message_that_stays_open_is_a_breach(monkeypatch, only):
    monkeypatch.setattr(_simulation, "CALM", 0.0)
    run = only(
        1,
        sends=calm_sends(),
        faults=(SILENT_HANDSHAKE,),
        changes=(),
        duration=1.0,
        leave_at=None,
        leave=Leave.CLOSE,
    )

    assert "I10: message 1, open after 0 s of calm, was left behind" in map(str, run.breaches)


def test_task_that_is_left_is_a_breach(monkeypatch):
    use = _simulation._Simulation._use

    async def leave_a_task(self, *arguments):
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        await use(self, *arguments)

    monkeypatch.setattr(_simulation._Simulation, "_use", leave_a_task)

    assert ["I10: 1 tasks was left behind"] == list(map(str, simulate(1, 5).breaches))


def test_waiter_that_is_not_woken_is_a_breach(monkeypatch, only):
    async def wait(self):
        await trio.sleep_forever()

    monkeypatch.setattr(wsclient.Receipt, "wait", wait)
    run = only(1, sends=calm_sends(is_awaited=True))

    assert "I10: whoever waits for message 1 was left behind" in map(str, run.breaches)


def test_receipt_that_is_cancelled_and_perhaps_written_is_a_breach(monkeypatch, only):
    monkeypatch.setattr(wsclient.Receipt, "cancel", lambda self: True)
    run = only(
        1,
        sends=calm_sends(withdraw_after=10.0),
        faults=(NONE,),
        conditions=(CLEAR,),
        changes=(),
        leave_at=20.0,
    )

    assert "I10: message 1, cancelled and yet perhaps written, was left behind" in map(
        str, run.breaches
    )


def test_flush_that_returns_too_early_is_a_breach(monkeypatch, only):
    async def flush(self):
        await trio.lowlevel.checkpoint()

    def retry_now(self):
        raise trio.ClosedResourceError

    for method in (flush, retry_now):
        monkeypatch.setattr(wsclient.DurableChannel, method.__name__, method)
    for name in ("reconnect", "rotate"):
        monkeypatch.setattr(wsclient.DurableChannel, name, lambda self, reason: None)
    acts = (*Act, Strike.HANG_UP, Strike.STOP, Strike.START, Strike.GOODBYE)
    changes = tuple(Change(1.0 + number, act) for number, act in enumerate(acts))
    run = only(1, sends=calm_sends(), faults=(SILENT_HANDSHAKE,), changes=changes, leave_at=20.0)

    assert "I10: message 1, open after a flush, was left behind" in map(str, run.breaches)
    assert "calls reconnect()" in run.trace
    assert "retry_now() raises ClosedResourceError" in run.trace


def test_wait_that_raises_is_told(monkeypatch, only):
    async def wait(self):
        raise wsclient.WebSocketError

    monkeypatch.setattr(wsclient.Receipt, "wait", wait)
    run = only(1, sends=calm_sends(is_awaited=True), leave_at=1.0)

    assert "whoever waits for message 1 gets WebSocketError" in run.trace


def test_cancelled_direct_send_is_unknown(monkeypatch, only):
    async def send(self, *arguments, **options):
        await trio.sleep_forever()

    monkeypatch.setattr(wsclient.DurableChannel, "send", send)
    sends = calm_sends(delivery=wsclient.Delivery.DIRECT, patience=0.1)
    run = only(1, sends=sends, leave_at=10.0)

    assert {wsclient.Truth.UNKNOWN} == {message.truth for message in run.history.sent}


def test_send_that_raises_tells_the_truth_about_it(monkeypatch, only):
    async def send(self, *arguments, **options):
        raise wsclient.WebSocketError

    monkeypatch.setattr(wsclient.DurableChannel, "send", send)
    run = only(1, sends=calm_sends(), leave_at=1.0)

    assert {wsclient.Truth.CERTAINLY_NOT} == {message.truth for message in run.history.sent}
    assert MESSAGES == len(run.history.sent)


def test_requests_get_their_replies(only):
    run = only(
        7,
        sends=calm_sends(asks=30.0),
        faults=(NONE,),
        conditions=(CLEAR,),
        changes=(),
        overlap=None,
        is_flapping=False,
        leave_at=None,
        poison=None,
        hangs_up=False,
    )

    assert () == run.breaches
    assert "message 1 is replied to" in run.trace


def test_reply_to_another_request_is_a_surprise(monkeypatch, only):
    async def request(self, *arguments, **options):
        return {"to": 0}

    monkeypatch.setattr(wsclient.DurableChannel, "request", request)
    run = only(1, sends=calm_sends(asks=30.0), leave_at=1.0)

    assert "surprise" in {breach.invariant for breach in run.breaches}


def test_messages_that_an_inbox_conflates_are_told_where_they_are_missing(only):
    run = only(
        1,
        says=(Say(pause=0.0, size=0, binary=False),) * 20,
        faults=(NONE,),
        conditions=(CLEAR,),
        changes=(),
        inbox=4,
        drops=wsclient.OverflowPolicy.CONFLATE,
        take_pause=0.3,
        take_patience=None,
        leave_at=20.0,
    )
    overflows = [item for item in run.history.received if isinstance(item, wsclient.Overflow)]

    assert overflows
    assert f"receives {overflows[0].messages} dropped" in run.trace
    assert () == run.breaches


def test_confirmation_that_a_cut_off_hook_has_not_taken_may_be_received(only):
    run = only(
        61016,
        topics=3,
        faults=(Fault.close(4000, after_messages=3), NONE),
        conditions=(Conditions(down=Way(latency=0.05)), CLEAR),
        changes=(),
        buffer_size=65536,
        take_patience=None,
        leave_at=20.0,
    )

    assert """receives '{"topic": """ in run.trace
    assert () == run.breaches


def test_what_is_none_of_the_users_messages_stands_as_it_is():
    send = make_schedule(1, 1).sends[0]
    whole = f'{{"n": 1, "pad": "{"x" * send.size}"}}'

    class Visit:
        messages = (whole, '{"n": 1, "pad": "xy"}', "half", '{"topic": "a"}', b"[")

    assert [1, '{"n": 1, "pad": "xy"}', "half", b"["] == _simulation._keys(Visit, {1: send})


# The outbox on a disk.

CALM_DAY = {
    "faults": (NONE,),
    "conditions": (CLEAR,),
    "changes": (),
    "promises": Promises(),
    "overlap": None,
    "is_flapping": False,
    "poison": None,
    "hangs_up": False,
    "outbox": 1024,
    "duration": 20.0,
    "leave_at": None,
    "leave": Leave.CLOSE,
}


def on_disk(*endings, spells=()):
    return OnDisk(latency=0.02, spells=spells, endings=endings)


def ending(at, leave=None, **given):
    values = {
        "cue": Cue.TIME,
        "after": 0.0,
        "steps": 0,
        "resets": False,
        "brings_back": False,
        "pause": 0.0,
    }
    return Ending(at=at, leave=leave, **(values | given))


def heard(run):
    return [key for side in run.history.server for key in side.heard]


@pytest.mark.parametrize("cue", Cue)
@pytest.mark.parametrize("resets", [False, True])
def test_s1_9_process_that_is_killed_is_followed_by_one_that_goes_on(only, cue, resets):
    killed = [ending(at, cue=cue, resets=resets, steps=3, pause=1.0) for at in (0.5, 3.0)]
    run = only(
        1,
        **CALM_DAY,
        sends=calm_sends(delivery=wsclient.Delivery.ACKED, pause=0.5),
        disk=on_disk(*killed),
    )

    assert () == run.breaches, run.trace
    assert 2 == run.killed == run.trace.count("is killed")
    assert 3 == run.trace.count("epoch 1 is ready")
    assert {message.key for message in run.history.sent if message.accepted} <= set(heard(run))
    assert MESSAGES == len(run.history.sent)


def test_what_was_sent_directly_is_lost_with_its_process_and_nothing_else_is_known(only):
    run = only(
        1,
        **CALM_DAY | {"conditions": (Conditions.both(latency=0.3),)},
        sends=calm_sends(delivery=wsclient.Delivery.DIRECT, pause=1.0),
        disk=on_disk(ending(3.0, cue=Cue.HEARD)),
    )

    assert () == run.breaches, run.trace
    lost = [
        message
        for message in run.history.sent
        if message.outcomes == (wsclient.Outcome.LOST_UNKNOWN,)
    ]
    assert {wsclient.Truth.UNKNOWN} == {message.truth for message in lost}


def test_s1_9_what_is_accepted_offline_is_sent_by_the_process_that_follows(only):
    run = only(
        1,
        **CALM_DAY | {"faults": (SILENT_HANDSHAKE, NONE)},
        sends=calm_sends(),
        disk=on_disk(ending(5.0)),
    )

    assert () == run.breaches, run.trace
    assert f"finds {MESSAGES} messages on the disk" in run.trace
    assert [*range(1, MESSAGES + 1)] == sorted(heard(run))


@pytest.mark.parametrize("leave", Leave)
def test_s1_9_what_a_process_stores_as_it_leaves_is_sent_by_the_next(only, leave):
    run = only(
        1,
        **CALM_DAY | {"faults": (SILENT_HANDSHAKE, NONE)},
        sends=calm_sends(),
        disk=on_disk(ending(2.0, leave)),
    )

    assert () == run.breaches, run.trace
    assert 0 == run.killed
    assert "message 1 is stored" in run.trace
    assert [*range(1, MESSAGES + 1)] == sorted(heard(run))
    assert 2 == len(run.history.departures)


def test_who_leaves_before_the_process_would_end_is_followed_by_nobody(only):
    run = only(
        1,
        **CALM_DAY | {"leave_at": 1.0},
        sends=calm_sends(),
        disk=on_disk(ending(30.0, Leave.CLOSE), ending(40.0)),
    )

    assert () == run.breaches, run.trace
    assert 1 == len(run.history.departures)


def test_messages_whose_time_is_over_when_they_are_found_are_expired(only):
    run = only(
        1,
        **CALM_DAY | {"faults": (SILENT_HANDSHAKE, NONE)},
        sends=calm_sends(ttl=3.0),
        disk=on_disk(ending(2.0, pause=2.0)),
    )

    assert () == run.breaches, run.trace
    assert {(wsclient.Outcome.EXPIRED,)} == {message.outcomes for message in run.history.sent}
    assert [] == heard(run)


@pytest.mark.parametrize("failing", [Failing.PACKED, Failing.BROKEN])
def test_disk_that_cannot_be_opened_is_tried_until_it_can(only, failing):
    spell = Spell(at=0.0, until=2.5, latency=None, failing=failing, hangs=False)
    run = only(1, **CALM_DAY, sends=calm_sends(), disk=on_disk(spells=(spell,)))

    assert () == run.breaches, run.trace
    assert 3 == run.trace.count("cannot open the channel: Outbox")
    assert "the disk is well again" in run.trace
    assert MESSAGES == len(heard(run))


def test_disk_that_fails_is_told_to_who_sends(only):
    spells = [
        Spell(at=at, until=at + 1, latency=None, failing=failing, hangs=False)
        for at, failing in ((2.0, Failing.FULL), (4.0, Failing.BROKEN))
    ]
    run = only(
        1,
        **CALM_DAY,
        sends=calm_sends(pause=0.5, sender=1),
        disk=on_disk(ending(4.7, brings_back=True), spells=tuple(spells)),
    )

    assert () == run.breaches, run.trace
    assert "OutboxDiskFull" in run.trace
    assert "OutboxIOError" in run.trace


def test_disk_that_is_damaged_is_a_breach(monkeypatch, only):
    def commit(self, changes):
        raise wsclient.OutboxCorrupt("by a bug")

    monkeypatch.setattr(Disk, "commit", commit)
    run = only(1, **CALM_DAY, sends=calm_sends(), disk=on_disk())

    assert "crash: OutboxCorrupt: by a bug" in map(str, run.breaches)


def test_what_a_process_does_after_its_death_is_not_seen(only):
    run = only(
        1,
        **CALM_DAY | {"faults": (SILENT_HANDSHAKE, NONE), "changes": (Change(4.0, Act.FLUSH),)},
        sends=calm_sends(is_awaited=True, withdraw_after=3.0, asks=None),
        disk=on_disk(ending(3.0, pause=3.0)),
    )

    assert () == run.breaches, run.trace
    lines = run.trace.splitlines()
    dead = next(index for index, line in enumerate(lines) if "is killed" in line)
    born = next(index for index, line in enumerate(lines) if "on the disk" in line)

    assert ["is good" in line or " server " in line for line in lines[dead + 1 : born]] == [
        True
    ] * (born - dead - 1)


def test_requests_of_a_process_that_was_killed_may_be_replied_to_in_the_next(only):
    run = only(
        1,
        **CALM_DAY | {"faults": (SILENT_HANDSHAKE, NONE)},
        sends=calm_sends(asks=60.0, is_idempotent=False, pause=0.5),
        disk=on_disk(ending(4.0)),
    )

    assert () == run.breaches, run.trace
    assert "'s reply to 1\n" in run.trace


@pytest.fixture
async def world(nursery):
    """A simulation of which nothing has happened, and a disk."""
    schedule = attrs.evolve(
        make_schedule(1, MESSAGES), **CALM_DAY, sends=calm_sends(), disk=on_disk()
    )
    world = _simulation._Simulation(schedule)
    world.disk = Disk(0.0, nursery)
    return world


def put(world, key, *, id="a", attempts=0, expires_at=None, **tracked):
    """Have a message on the disk, if it has an id, and know of it."""
    send = attrs.evolve(world.sends[key], **tracked.pop("send", {}))
    if id is not None:
        world.disk.messages[id] = Stored(
            id=id,
            message=f'{{"n": {key}}}',
            delivery=send.delivery,
            attempts=attempts,
            expires_at=expires_at,
        )
    world.tracked[key] = _simulation._Tracked(send, **tracked)


def broken(world):
    return [breach.text for breach in world.broken]


DIRECT = {"delivery": wsclient.Delivery.DIRECT}
STORED = [wsclient.Outcome.STORED]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"is_accepted": True}, None),
        ({"is_accepted": True, "id": None}, "message 1 was accepted, and is not there"),
        ({"is_accepted": True, "id": None, "send": DIRECT}, None),
        ({"is_accepted": True, "outcomes": STORED}, None),
        (
            {"is_accepted": True, "outcomes": STORED, "id": None},
            "message 1 was accepted, and is not there",
        ),
        ({"id": None}, None),
        ({"is_refused": True}, "message 1 was not accepted, and is there"),
        ({"send": DIRECT}, "message 1 was not accepted, and is there"),
        (
            {"is_accepted": True, "outcomes": [wsclient.Outcome.RECEIVED]},
            "message 1 has its outcome, and is there still",
        ),
        ({"is_accepted": True, "outcomes": [wsclient.Outcome.RECEIVED], "commits": 5}, None),
        ({"send": {"asks": 1.0}}, "message 1 has its outcome, and is there still"),
        ({"send": {"asks": 1.0}, "is_cut": True}, None),
        (
            {"is_accepted": True, "told": wsclient.Truth.UNKNOWN},
            "message 1 was begun, and has no mark",
        ),
        ({"is_accepted": True, "told": wsclient.Truth.UNKNOWN, "attempts": 1}, None),
    ],
)
async def test_a_process_that_is_killed_leaves_what_it_promised_on_the_disk(
    autojump_clock, world, known, expected
):
    world.disk.commits = 7
    put(world, 1, **known)
    world.judge_death()

    assert [expected] * (expected is not None) == broken(world)


async def test_what_a_process_said_before_it_was_killed_was_true(autojump_clock, world):
    put(world, 1, is_accepted=True, is_proven=True)
    world.judge_death()

    assert ["1 is said to have arrived, and the server never read it"] == broken(world)


@pytest.mark.parametrize(
    ("known", "is_sound", "expected"),
    [
        ({"outcomes": STORED}, True, None),
        ({"outcomes": STORED, "id": None}, True, "is said to be stored, and is not there"),
        ({"outcomes": STORED, "id": None}, False, "is said to be stored, and is not there"),
        ({}, True, "is not said to be stored, and is there"),
        ({}, False, None),
        ({"told": wsclient.Truth.CERTAIN}, True, None),
    ],
)
async def test_a_process_that_leaves_stores_what_it_says(
    autojump_clock, world, known, is_sound, expected
):
    put(world, 1, **known)
    world.judge_departure(is_sound=is_sound)

    assert [f"message 1 {expected}"] * (expected is not None) == broken(world)


async def test_a_message_is_on_the_disk_once(autojump_clock, world):
    put(world, 1)
    put(world, 1, id="b")
    world.judge_departure(is_sound=False)

    assert ["message 1 is there twice"] == broken(world)


class Channel:
    """Has an outbox with nothing in it."""

    class _outbox:  # noqa: N801
        def entries():
            return []


@pytest.mark.parametrize(
    ("known", "outcome", "is_broken"),
    [
        ({"attempts": 1}, wsclient.Outcome.LOST_UNKNOWN, False),
        ({"expires_at": 0.0}, wsclient.Outcome.EXPIRED, False),
        ({"expires_at": 9.0}, None, True),
        ({}, None, True),
    ],
)
async def test_what_is_on_the_disk_is_found_or_its_outcome_is_known(
    autojump_clock, world, known, outcome, is_broken
):
    put(world, 1, **known)
    life = _simulation._Life(world, None)
    life.restored = attrs.evolve(life.restored, lost_unknown=1)
    world.take_over(life, Channel)

    assert [outcome] * (not is_broken) == world.tracked[1].outcomes
    assert ["message 1 is there, and was not found"] * is_broken == broken(world)


async def test_what_is_told_to_be_found_is_what_is_on_the_disk(autojump_clock, world):
    put(world, 1, attempts=1)
    world.take_over(_simulation._Life(world, None), Channel)

    (text,) = broken(world)
    assert text.startswith("1 messages are there, and told was OutboxRestored(")


async def test_message_that_comes_with_two_ids_is_a_surprise(autojump_clock, world):
    world.sends[2] = attrs.evolve(world.sends[2], asks=1.0, is_idempotent=True)
    for key in (1, 2):
        for id in ("a", "b"):
            world._note_id({"n": key, "id": id})

    assert ["message 1 came with two ids"] == world.surprises
