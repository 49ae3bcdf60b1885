"""A program for test_half_open.py: paths that die without a word, in a network of its own.

Started by ``unshare -rn``, so that the network it cuts is nobody else's.  The argument is what to
cut with: the path of ``nft``, or ``ip``, which takes the loopback down and so cuts both ways only.

Each way to be cut has a channel for everybody who may notice, and all are cut at once.
Prints for each of them how many seconds that took, what arrived after all, and what was told.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys

import trio

import wsclient
from wsclient.testing import EventRecorder, FaultServer

OPTIONS = {
    "heartbeat": {
        "heartbeat": wsclient.HeartbeatOptions(interval=1, timeout=1, jitter=0),
        "connection": wsclient.ConnectionOptions(tcp_user_timeout=None, tcp_keepalive=None),
    },
    "kernel": {
        "heartbeat": wsclient.HeartbeatOptions(interval=math.inf),
        "connection": wsclient.ConnectionOptions(tcp_user_timeout=1.5, tcp_keepalive=None),
    },
}

LOST = {"up": ["dport"], "down": ["sport"], "both": ["dport", "sport"]}
"""By the way that is cut, which packets are: those to the server's port, or those from it."""

LONGEST = 15.0
"""Seconds after which nobody will notice any more."""


async def live(
    way: str,
    who: str,
    cut: trio.Event,
    tell: trio.MemorySendChannel[dict[str, object]],
    *,
    task_status: trio.TaskStatus[int],
) -> None:
    """Live until the path is cut, and tell how that was noticed."""
    recorder = EventRecorder()
    received: list[str | bytes] = []

    async def receive(channel: wsclient.DurableChannel) -> None:
        async for message in channel:
            received.append(message)  # noqa: PERF401  # What came before the end is kept.

    async with (
        FaultServer() as server,
        wsclient.open_channel(server.url, observers=[recorder], **OPTIONS[who]) as channel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(receive, channel)
        await channel.wait_ready()
        await channel.send("before")
        await server.wait_messages(1)
        task_status.started(server.port)
        await cut.wait()
        cut_at = trio.current_time()
        # Something to be acknowledged: without it, the kernel has nothing to wait for.
        await channel.send("up")
        await server.broadcast("down")
        with trio.move_on_after(LONGEST):
            await recorder.wait_for(wsclient.ConnectionLost)
        tell.send_nowait(
            {
                "way": way,
                "who": who,
                "seconds": trio.current_time() - cut_at,
                "arrived": [*server.messages[1:], *received],
                "events": recorder.names(),
            }
        )
        # Whoever leaves well takes leave of somebody; nobody is there.
        await trio.sleep_forever()


def set_loopback(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def lose_packets(nft: str, paths: list[tuple[str, int]]) -> None:
    """Lose them where they arrive: a sender hears of what is dropped where it leaves."""
    rules = ["table inet half_open {", "chain arriving {", "type filter hook input priority 0;"]
    rules += [f"tcp {field} {port} drop;" for way, port in paths for field in LOST[way]]
    subprocess.run([nft, "-f", "-"], input="\n".join([*rules, "}", "}"]).encode(), check=True)


async def main(tool: str) -> None:
    set_loopback("up")
    cut = trio.Event()
    tell, told = trio.open_memory_channel[dict[str, object]](math.inf)
    async with trio.open_nursery() as nursery:
        paths = [
            (way, await nursery.start(live, way, who, cut, tell))
            for way in (["both"] if tool == "ip" else LOST)
            for who in OPTIONS
        ]
        if tool == "ip":
            set_loopback("down")
        else:
            lose_packets(tool, paths)
        cut.set()
        print(json.dumps([await told.receive() for _ in paths]))
        nursery.cancel_scope.cancel()


trio.run(main, sys.argv[1])
