"""One run of a schedule: the same each time, and judged from outside."""

import hashlib
import os
import subprocess
import sys

import attrs
import pytest
import trio

import wsclient
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
from wsclient.testing._schedule import Act, Change, Leave, Say, Strike, make_schedule
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
        schedule = attrs.evolve(make_schedule(seed, MESSAGES), **given)
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
    monkeypatch.setattr(wsclient.DurableChannel, "reconnect", lambda self, reason: None)
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
