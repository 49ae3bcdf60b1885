"""Observers are told, never asked: none of them can do harm."""

from __future__ import annotations

import traceback

import pytest
import trio

import wsclient
from wsclient.events import (
    ChannelClosed,
    Event,
    HandlerFailed,
    ObserverFailed,
)
from wsclient.session import Observers
from wsclient.testing import EventRecorder, Fault, FaultServer

EVENT = ChannelClosed(channel="feed", cancelled=0, lost_unknown=0)

SECRET = "s3cret"


class Broken:
    """Raises at every event."""

    def __init__(self, error=None):
        self.error = error or LookupError("broken")
        self.calls = 0

    def __call__(self, event):
        self.calls += 1
        raise self.error


class Unprintable(Broken):
    def __repr__(self):
        raise RuntimeError("not even that")


def test_observers_are_told_at_once_and_in_order():
    told = []
    observe = Observers([lambda event: told.append(1), lambda event: told.append(2)])
    observe(EVENT)

    assert [1, 2] == told


def test_a_failing_observer_harms_nobody_and_is_reported_to_the_others():
    before, broken, after = EventRecorder(), Broken(), EventRecorder()
    Observers([before, broken, after])(EVENT)
    for recorder in (before, after):
        reports = recorder.of(ObserverFailed)

        assert [EVENT] == recorder.of(ChannelClosed)
        assert [("feed", broken.error)] == [(report.channel, report.error) for report in reports]
        assert "Broken" == reports[0].observer
    # It is not told of its own failure.
    assert 1 == broken.calls


def test_an_error_that_is_told_has_forgotten_what_our_frames_held():
    shown = []

    def look(event):
        told = traceback.TracebackException.from_exception(event.error, capture_locals=True)
        shown.append("".join(told.format()))

    module = {"__name__": "wsclient.somewhere"}
    exec("def call(handler, token):\n    handler()", module)
    try:
        # By a name: the traceback shows this line, too.
        module["call"](lambda: 1 / 0, SECRET)
    except ZeroDivisionError as error:
        event = HandlerFailed(channel="feed", handler="h", subject="s", error=error)
    Observers([look])(event)

    assert "in call" in shown[0]
    assert SECRET not in shown[0]


def test_several_failing_observers_are_each_reported_to_whoever_is_left():
    recorder, first, second = EventRecorder(), Broken(), Broken()
    Observers([first, recorder, second])(EVENT)

    assert {first.error, second.error} <= {report.error for report in recorder.of(ObserverFailed)}
    assert 1 == len(recorder.of(ChannelClosed))


def test_observers_that_all_fail_end_somewhere():
    Observers([Broken(), Broken(), Broken()])(EVENT)


def test_a_failing_observer_that_is_alone_is_logged(caplog):
    Observers([Broken()])(EVENT)
    [record] = caplog.records

    assert record.getMessage().startswith("observer failed channel='feed'")
    assert LookupError is record.exc_info[0]


@pytest.mark.parametrize(
    "error", [ValueError("x"), AssertionError(), ExceptionGroup("g", [OSError()])]
)
def test_any_exception_is_caught(error):
    recorder = EventRecorder()
    Observers([Broken(error), recorder])(EVENT)

    assert error is recorder.of(ObserverFailed)[0].error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_what_is_no_exception_is_not(error):
    with pytest.raises(type(error)):
        Observers([Broken(error)])(EVENT)


def test_an_observer_whose_name_cannot_be_printed_does_no_harm_either():
    recorder, broken = EventRecorder(), Unprintable()
    Observers([broken, recorder])(EVENT)

    assert [broken.error] == [report.error for report in recorder.of(ObserverFailed)]


def test_an_observer_that_fails_at_reports_only_is_not_reported_for_ever():
    def broken_at_reports(event):
        if isinstance(event, ObserverFailed):
            raise LookupError("again")

    recorder = EventRecorder()
    Observers([Broken(), broken_at_reports, recorder])(EVENT)

    assert len(recorder.of(ObserverFailed)) <= 2


def test_nobody_is_told_where_nobody_wants_to_know(caplog):
    Observers(())(EVENT)

    assert [] == caplog.records


def test_the_default_is_to_log(caplog):
    with caplog.at_level("DEBUG", logger="wsclient"):
        Observers(None)(EVENT)

    assert ["wsclient.session"] == [record.name for record in caplog.records]


async def test_a_channel_whose_observer_fails_at_everything_works_as_any_other(
    autojump_clock, network
):
    recorder = EventRecorder()
    async with (
        FaultServer(
            [Fault.reset(after_messages=1), wsclient.testing.NONE], network=network
        ) as server,
        wsclient.open_channel(server.url, observers=[Broken(), recorder]) as channel,
    ):
        await channel.send("one")
        await server.wait_over(1)
        await channel.send("two")
        await server.wait_messages(2)
    facts = [event for event in recorder.events if not isinstance(event, ObserverFailed)]

    assert len(facts) == len(recorder.of(ObserverFailed))
    assert ChannelClosed is type(facts[-1])


async def test_an_observer_may_use_the_channel(autojump_clock, network):
    async with FaultServer(network=network) as server:
        channels = []

        def observe(event: Event) -> None:
            for channel in channels:
                channel.statistics()
                if isinstance(event, wsclient.ConnectionReady):
                    channel.send_nowait("from the observer")

        async with wsclient.open_channel(server.url, observers=[observe]) as channel:
            channels.append(channel)

            assert ["from the observer"] == await server.wait_messages(1)


def test_a_bots_events_are_told_as_those_of_its_channel():
    recorder = EventRecorder()
    event = HandlerFailed(channel="bot", handler="h", subject="s", error=LookupError())
    Observers([recorder])(event)

    assert [event] == recorder.events


@pytest.mark.parametrize("given", [None, "log", 1])
def test_what_is_no_observer_is_refused(given):
    with pytest.raises(TypeError, match="an observer must be callable"):
        Observers([given])


def test_an_asynchronous_observer_is_refused():
    async def observe(event):
        await trio.lowlevel.checkpoint()

    with pytest.raises(TypeError, match="an observer must not be asynchronous"):
        Observers([observe])
