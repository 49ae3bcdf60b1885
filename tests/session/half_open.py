"""A program for test_half_open.py: a path that dies without a word, in a network of its own.

Started by ``unshare -rn``, so that the network it cuts is nobody else's.  The argument says what is
to notice: ``heartbeat`` or ``kernel``.  Prints how many seconds that took, and what was told.
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


def set_loopback(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


async def main(who: str) -> None:
    set_loopback("up")
    recorder = EventRecorder()
    async with (
        FaultServer() as server,
        wsclient.open_channel(server.url, observers=[recorder], **OPTIONS[who]) as channel,
    ):
        await channel.wait_ready()
        await channel.send("before")
        await server.wait_messages(1)
        set_loopback("down")
        cut_at = trio.current_time()
        # Something to be acknowledged: without it, the kernel has nothing to wait for.
        await channel.send("into the void")
        await recorder.wait_for(wsclient.ConnectionLost)
        print(json.dumps({"seconds": trio.current_time() - cut_at, "events": recorder.names()}))
        set_loopback("up")


trio.run(main, sys.argv[1])
