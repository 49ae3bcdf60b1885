"""Half-open paths over real sockets: noticed in time, and never where the peer lives."""

from __future__ import annotations

import json
import math
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
from wsclient.testing import NEVER_READS, NONE, FaultServer

PROGRAM = Path(__file__).parent / "half_open.py"

USER_TIMEOUT = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this platform has no TCP_USER_TIMEOUT"
)


@pytest.fixture(scope="module")
def own_network():
    """What starts a program in a network of its own."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if unshare is None or ip is None:
        pytest.skip("needs unshare (util-linux) and ip (iproute2)")
    command = [unshare, "-rn"]
    done = subprocess.run([*command, ip, "link", "set", "lo", "up"], capture_output=True)
    if done.returncode:
        pytest.skip(f"no network namespace is allowed here: {done.stderr.decode().strip()}")
    return command


def run(own_network, who):
    done = subprocess.run(
        [*own_network, sys.executable, PROGRAM, who], capture_output=True, timeout=45
    )
    assert 0 == done.returncode, done.stderr.decode()
    return json.loads(done.stdout)


def test_s5_1_the_heartbeat_notices_a_dead_path_within_interval_and_timeout(own_network):
    told = run(own_network, "heartbeat")

    assert 1 < told["seconds"] < 2.5
    assert "PeerStoppedReading" not in told["events"]


@USER_TIMEOUT
def test_s5_3_the_kernel_notices_a_dead_path_within_tcp_user_timeout(own_network):
    told = run(own_network, "kernel")

    # Looked at when it would send again: up to twice the last pause later.
    assert 1.4 < told["seconds"] < 4
    assert "PeerStoppedReading" not in told["events"]


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
