"""Half-open paths: noticed in time, and never where the peer lives."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import wsclient
from wsclient.events import ConnectionLost, PeerStoppedReading
from wsclient.options import ConnectionOptions, HeartbeatOptions, Limits
from wsclient.testing import (
    BLACKOUT,
    HALF_OPEN_DOWN,
    HALF_OPEN_UP,
    NEVER_READS,
    NONE,
    FaultProxy,
    FaultServer,
)

PROGRAM = Path(__file__).parent / "half_open.py"

USER_TIMEOUT = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this platform has no TCP_USER_TIMEOUT"
)


# --- the path dies, in a network of our own -----------------------------------------------------

ARRIVED = {"up": ["down"], "down": ["up"], "both": []}
"""By the way that was cut, what of the messages sent both ways after that got through."""

A_CHAIN = "table inet half_open { chain arriving { type filter hook input priority 0; }; }"

each_way = pytest.mark.parametrize("way", ARRIVED)


@pytest.fixture(scope="module")
def notice():
    """Gives how it was noticed that a way was cut: by whom, which way.

    The program runs once, for all tests.
    """
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if unshare is None or ip is None:
        pytest.skip("needs unshare (util-linux) and ip (iproute2)")
    own_network = [unshare, "-rn"]
    refused = why_not([*own_network, ip, "link", "set", "lo", "up"])
    if refused:
        pytest.skip(f"no network namespace is allowed here: {refused}")
    # Debian has it where only root looks.
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    no_nft = "it is not installed" if nft is None else why_not([*own_network, nft, A_CHAIN])
    done = subprocess.run(
        [*own_network, sys.executable, PROGRAM, "ip" if no_nft else nft],
        capture_output=True,
        timeout=45,
    )
    assert 0 == done.returncode, done.stderr.decode()
    told = {(each["who"], each["way"]): each for each in json.loads(done.stdout)}

    def notice(who, way):
        if no_nft and way != "both":
            pytest.skip(f"cutting one way only needs nft (nftables): {no_nft}")
        return told[who, way]

    return notice


def why_not(command):
    """Why a command fails; ``None`` if it does not."""
    done = subprocess.run(command, capture_output=True)
    return done.stderr.decode().strip() or "it fails" if done.returncode else None


@each_way
def test_s5_1_the_heartbeat_notices_a_half_open_path_within_interval_and_timeout(notice, way):
    told = notice("heartbeat", way)

    assert ARRIVED[way] == told["arrived"]
    assert 1 < told["seconds"] < 2.5
    assert "PeerStoppedReading" not in told["events"]


@USER_TIMEOUT
@each_way
def test_s5_3_the_kernel_notices_a_half_open_path_within_tcp_user_timeout(notice, way):
    told = notice("kernel", way)

    assert ARRIVED[way] == told["arrived"]
    # Looked at when it would send again: up to twice the last pause later.
    assert 1.4 < told["seconds"] < 4
    assert "PeerStoppedReading" not in told["events"]


# --- through a proxy that forwards nothing ------------------------------------------------------


@pytest.mark.parametrize("cut_after", [0.0, 7.0, 19.9, 20.1])
@pytest.mark.parametrize(
    "silence", [HALF_OPEN_UP, HALF_OPEN_DOWN, BLACKOUT], ids=["up", "down", "both"]
)
async def test_s5_1_the_heartbeat_notices_a_silent_way_within_interval_and_timeout_of_a_cut(
    autojump_clock, network, recorder, silence, cut_after
):
    heartbeat = HeartbeatOptions(interval=20, timeout=20, jitter=0)
    async with (
        FaultServer(network=network) as server,
        FaultProxy(server.url, network=network) as proxy,
        wsclient.open_channel(proxy.url, heartbeat=heartbeat, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        await trio.sleep(cut_after)
        cut_at = trio.current_time()
        proxy.change(silence)
        await recorder.wait_for(ConnectionLost)

        assert 20 <= trio.current_time() - cut_at <= 40


# --- the peer lives -----------------------------------------------------------------------------


@USER_TIMEOUT
async def test_s5_3_a_live_peer_that_reads_nothing_is_cut_and_told_from_a_dead_path(recorder):
    options = ConnectionOptions(tcp_user_timeout=1.0, tcp_keepalive=None)
    async with (
        FaultServer([NEVER_READS, NONE]) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=HeartbeatOptions(interval=math.inf),
            connection=options,
            limits=Limits(outbox_size=2**26),
            observers=[recorder],
        ) as channel,
    ):
        await channel.wait_ready()
        await channel.send(bytes(2**25))  # More than any socket buffer grows to.
        began = trio.current_time()
        lost = await recorder.wait_for(ConnectionLost)

        assert 0.9 < trio.current_time() - began < 15
        assert 1006 == lost.code
    assert 1 == recorder.of(PeerStoppedReading)[0].epoch


async def test_s5_4_a_consumer_of_300_ms_a_message_never_makes_a_healthy_peer_dead(recorder):
    async def flood(connection):
        for number in range(10_000):
            await connection.send(f"{number:0100}")
        await trio.sleep_forever()

    async with (
        FaultServer(handler=flood) as server,
        wsclient.open_channel(
            server.url,
            heartbeat=HeartbeatOptions(interval=0.3, timeout=0.3),
            connection=ConnectionOptions(receive_buffer_size=1000, tcp_user_timeout=2.0),
            limits=Limits(inbox_messages=1),
            observers=[recorder],
        ) as channel,
    ):
        for number in range(15):
            assert f"{number:0100}" == await channel.receive()
            await trio.sleep(0.3)
    assert [] == recorder.of(ConnectionLost)


async def test_s5_4_ten_minutes_of_a_slow_consumer_do_not_make_a_healthy_peer_dead(
    autojump_clock, network, recorder
):
    async def flood(connection):
        for number in range(10_000):
            await connection.send(f"{number:0100}")
        await trio.sleep_forever()

    async with (
        FaultServer(network=network, handler=flood) as server,
        wsclient.open_channel(
            server.url,
            connection=ConnectionOptions(receive_buffer_size=64),
            limits=Limits(inbox_messages=1),
            observers=[recorder],
        ) as channel,
    ):
        for number in range(2000):
            assert f"{number:0100}" == await channel.receive()
            await trio.sleep(0.3)

        assert 600 <= trio.current_time()
    assert [] == recorder.of(ConnectionLost)
