import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from wsclient.events import ConnectionAttempted, ConnectionEvent, ConnectionFailed, ConnectionReady
from wsclient.testing import EventRecorder


def attempted(attempt):
    return ConnectionAttempted(channel="c", endpoint="ws://server.test", attempt=attempt)


def failed(attempt):
    return ConnectionFailed(
        channel="c", endpoint="ws://server.test", attempt=attempt, cause="", duration=0.0
    )


def test_recorder_keeps_events_in_order_and_by_type():
    recorder = EventRecorder()
    for event in (attempted(1), failed(1), attempted(2)):
        recorder(event)

    assert [attempted(1), failed(1), attempted(2)] == recorder.events
    assert [attempted(1), attempted(2)] == recorder.of(ConnectionAttempted)
    assert [attempted(1), failed(1), attempted(2)] == recorder.of(ConnectionEvent)
    assert [] == recorder.of(ConnectionReady)
    assert ["ConnectionAttempted", "ConnectionFailed", "ConnectionAttempted"] == recorder.names()


def test_recorder_forgets_when_told():
    recorder = EventRecorder()
    recorder(attempted(1))
    recorder.clear()

    assert [] == recorder.events
    assert "<EventRecorder []>" == repr(recorder)


async def test_recorder_waits_for_so_many_events_of_a_type():
    recorder = EventRecorder()
    found = []

    async def wait():
        found.append(await recorder.wait_for(ConnectionAttempted, count=2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for event in (attempted(1), failed(1), failed(1)):
            recorder(event)
            await wait_all_tasks_blocked()

        assert [] == found

        recorder(attempted(2))

    assert [attempted(2)] == found


async def test_recorder_does_not_wait_for_what_has_happened():
    recorder = EventRecorder()
    recorder(attempted(1))
    recorder(attempted(2))
    with assert_checkpoints():
        assert attempted(1) == await recorder.wait_for(ConnectionAttempted)


async def test_recorder_wants_a_count_of_one_or_more():
    with pytest.raises(ValueError, match="count"):
        await EventRecorder().wait_for(ConnectionAttempted, count=0)
