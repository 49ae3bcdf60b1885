"""What systemd is told, by a real datagram socket."""

from __future__ import annotations

import os
import socket
import sys
import time

import pytest
import trio
import trio.testing

import wsclient
from wsclient import events
from wsclient.events import ChannelState
from wsclient.observers import SystemdObserver
from wsclient.testing import NONE, REJECT_503, EventRecorder, Fault, FaultServer, memory_network

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="needs sockets of the Unix domain"
)

ESTABLISHED = "the connection is established"


class Systemd:
    """The other end of the socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": address.replace("\0", "@")}

    def told(self):
        """Every line since the last call."""
        lines = []
        while True:
            try:
                lines += self.socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return lines

    def names(self):
        return [line.partition("=")[0] for line in self.told()]


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    # A socket's path is short.
    monkeypatch.chdir(tmp_path)
    systemd = Systemd(os.path.relpath(tmp_path / "notify"))
    systemd.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    yield systemd
    systemd.socket.close()


def changed(state, cause="because", channel="feed", previous=ChannelState.CONNECTING):
    return events.StateChanged(channel=channel, previous=previous, state=state, cause=cause)


def attempted(channel="feed"):
    return events.ConnectionAttempted(channel=channel, endpoint="ws://server.test", attempt=1)


async def test_a_life_is_told(autojump_clock, systemd):
    observe = SystemdObserver(environment=systemd.environment)
    recorder = EventRecorder()
    story = [REJECT_503, Fault.close(1012, "restart", after=60), NONE]
    with memory_network() as network:
        async with (
            FaultServer(story, network=network) as server,
            wsclient.open_channel(
                server.url, name="feed", observers=[observe, recorder]
            ) as channel,
        ):
            await recorder.wait_for(events.RetryScheduled)
            before = systemd.told()
            await channel.wait_ready()
            ready = systemd.told()
            await recorder.wait_for(events.ConnectionReady, count=2)
            later = systemd.told()
    end = systemd.told()

    assert ["STATUS=feed: waiting, because the server refused the upgrade: HTTP 503"] == before
    assert "READY=1" not in before
    assert ["READY=1", f"STATUS=feed: ready, because {ESTABLISHED}"] == ready[-2:]
    assert (
        "STATUS=feed: waiting, because the connection is closed: 1012 SERVICE_RESTART 'restart'"
        in later
    )
    # An outage is no other start.
    assert f"STATUS=feed: ready, because {ESTABLISHED}" == later[-1]
    assert "READY=1" not in later
    assert "STOPPING=1" == end[0]
    assert 1 == end.count("STOPPING=1")
    assert end[-1].startswith("STATUS=feed: closed")


def test_with_several_channels_the_service_is_ready_when_all_have_been(systemd):
    observe = SystemdObserver(environment=systemd.environment)
    observe(attempted("a"))
    observe(attempted("b"))
    observe(changed(ChannelState.READY, channel="a"))
    observe(changed(ChannelState.WAITING, "it broke", channel="a"))

    assert [
        "STATUS=a: ready, because because; b: connecting",
        "STATUS=a: waiting, because it broke; b: connecting",
    ] == systemd.told()
    observe(changed(ChannelState.READY, channel="b"))

    assert "READY=1" == systemd.told()[0]
    observe(changed(ChannelState.DRAINING, channel="a"))

    assert ["STATUS"] == systemd.names()
    observe(changed(ChannelState.CLOSED, channel="a"))
    observe(events.ChannelClosed(channel="a", cancelled=0, lost_unknown=0))
    observe(changed(ChannelState.FAILED, channel="b"))

    assert ["STATUS", "STOPPING", "STATUS"] == systemd.names()


def test_a_channel_that_has_ended_is_not_waited_for(systemd):
    observe = SystemdObserver(environment=systemd.environment)
    observe(attempted("a"))
    observe(attempted("b"))
    observe(changed(ChannelState.READY, channel="a"))
    observe(changed(ChannelState.FAILED, channel="b"))

    assert ["STATUS", "STATUS"] == systemd.names()
    observe(events.ChannelGaveUp(channel="b", reason="r", cancelled=0, lost_unknown=0))

    assert ["READY=1"] == systemd.told()


def test_a_service_whose_channels_have_all_ended_is_not_ready(systemd):
    observe = SystemdObserver(environment=systemd.environment)
    observe(attempted())
    observe(changed(ChannelState.FAILED))
    observe(events.ChannelGaveUp(channel="feed", reason="r", cancelled=0, lost_unknown=0))

    assert ["STOPPING", "STATUS"] == systemd.names()


def test_the_end_of_the_channels_need_not_be_that_of_the_service(systemd):
    observe = SystemdObserver(stopping=False, environment=systemd.environment)
    observe(changed(ChannelState.READY))
    observe(changed(ChannelState.DRAINING))
    observe(changed(ChannelState.CLOSED))

    assert ["READY", "STATUS", "STATUS", "STATUS"] == systemd.names()


def test_of_channels_that_have_ended_nothing_is_kept(systemd):
    observe = SystemdObserver(environment=systemd.environment)
    for number in range(1000):
        observe(changed(ChannelState.READY, channel=str(number)))
        observe(events.ChannelGaveUp(channel=str(number), reason="r", cancelled=0, lost_unknown=0))
        systemd.told()

    assert ({}, {}, set()) == (observe._states, observe._causes, observe._were_ready)


def test_what_a_peer_says_cannot_be_taken_for_a_line_of_ours(systemd):
    observe = SystemdObserver(environment=systemd.environment)
    observe(changed(ChannelState.WAITING, "closed: 'x\nSTOPPING=1\r\x1b[31m\0'" + "y" * 5000))
    [line] = systemd.told()

    assert line.startswith("STATUS=feed: waiting, because closed: 'x STOPPING=1  [31m 'yyy")
    assert len(line) < 1100


def test_other_events_tell_systemd_nothing(systemd):
    observe = SystemdObserver(environment=systemd.environment)
    observe(events.SuspendDetected(channel="feed", duration=1.0))
    observe(attempted())

    assert [] == systemd.told()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux'")
def test_an_abstract_socket_is_told_as_well():
    systemd = Systemd(f"\0wsclient-{os.getpid()}")
    try:
        SystemdObserver(environment=systemd.environment)(changed(ChannelState.READY))

        assert ["READY=1", "STATUS=feed: ready, because because"] == systemd.told()
    finally:
        systemd.socket.close()


async def test_without_systemd_nothing_happens(autojump_clock, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    observe = SystemdObserver()
    observe(changed(ChannelState.READY))
    observe.alive()
    with trio.testing.assert_checkpoints():
        await observe.keep_alive()

    assert (False, None) == (observe.is_active, observe.watchdog)


def test_the_environment_of_the_process_is_used(systemd, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.environment["NOTIFY_SOCKET"])
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    observe = SystemdObserver()

    assert (True, 30.0) == (observe.is_active, observe.watchdog)


async def test_the_watchdog_is_fed_twice_as_often_as_it_must(autojump_clock, systemd):
    observe = SystemdObserver(environment={**systemd.environment, "WATCHDOG_USEC": "30000000"})
    with trio.move_on_after(60.1):
        await observe.keep_alive()

    assert ["WATCHDOG=1"] * 5 == systemd.told()


async def test_a_loop_that_hangs_feeds_no_watchdog(systemd, nursery):
    observe = SystemdObserver(environment={**systemd.environment, "WATCHDOG_USEC": "20000"})
    nursery.start_soon(observe.keep_alive)
    await trio.lowlevel.wait_readable(systemd.socket)
    systemd.told()
    time.sleep(0.1)  # noqa: ASYNC251  # That is what it is about.

    assert [] == systemd.told()
    await trio.lowlevel.wait_readable(systemd.socket)

    assert "WATCHDOG=1" in systemd.told()


def test_a_timer_may_feed_it(systemd):
    observe = SystemdObserver(environment={**systemd.environment, "WATCHDOG_USEC": "20000"})
    observe.alive()
    # Which is not asked for.
    SystemdObserver(environment=systemd.environment).alive()

    assert ["WATCHDOG=1"] == systemd.told()


async def test_a_socket_that_is_gone_ends_nothing(autojump_clock, tmp_path):
    environment = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1000000"}
    observe = SystemdObserver(environment=environment)
    with trio.move_on_after(3) as scope:
        await observe.keep_alive()

    assert scope.cancelled_caught
    recorder = EventRecorder()
    with memory_network() as network:
        async with (
            FaultServer(network=network) as server,
            wsclient.open_channel(server.url, observers=[observe, recorder], ready_timeout=9),
        ):
            pass

    assert {"SystemdObserver"} == {failed.observer for failed in recorder.of(events.ObserverFailed)}


def test_a_watchdog_that_is_another_process_is_not_fed(systemd):
    more = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)}

    assert None is SystemdObserver(environment={**systemd.environment, **more}).watchdog


@pytest.mark.parametrize("usec", ["", "0", "-1", "1.5", "x"])
def test_a_watchdog_that_cannot_be_is_refused(systemd, usec):
    with pytest.raises(ValueError, match="WATCHDOG_USEC must be"):
        SystemdObserver(environment={**systemd.environment, "WATCHDOG_USEC": usec})


@pytest.mark.parametrize("address", ["relative", "@", "/", "vsock:2:1234"])
def test_a_socket_that_cannot_be_is_refused(address):
    with pytest.raises(ValueError, match="NOTIFY_SOCKET must be"):
        SystemdObserver(environment={"NOTIFY_SOCKET": address})
