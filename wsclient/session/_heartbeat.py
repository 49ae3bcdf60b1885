"""Is the peer still there?

Liveness is bytes, not pongs.  A ping asks for a sign of life, and whatever comes after it is one: a
pong may queue behind a large message that is itself the best proof that the peer lives.

Nothing is judged while the reader waits for a slow consumer: what would prove the peer alive lies
unread in the socket, and the fault is ours.  When reading goes on, the peer gets its full time
again.  Nor is anything judged before the ping is written: it may wait behind a large message that
the peer takes slowly, and as long as it takes more of it, it lives.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from wsclient.connection import (
    Ping,
    WebSocketConnection,
    asked_at,
    forget_ping,
    start_ping,
    wait_reading,
)
from wsclient.errors import HeartbeatTimeout
from wsclient.options import HeartbeatOptions


async def watch(
    connection: WebSocketConnection,
    options: HeartbeatOptions,
    send_ping: Callable[[], Ping] | None = None,
) -> HeartbeatTimeout:
    """Ping the peer again and again, until it gives no sign of life in time.

    Args:
        connection: Whose peer.
        options: How often, and how long to wait.
        send_ping: Sends a ping; ``None`` sends a plain one.

    Returns:
        What to say about it.
    """
    await trio.sleep(_interval(options))
    while True:
        ping = start_ping(connection) if send_ping is None else send_ping()
        try:
            began = trio.current_time()
            deadline = began + options.timeout
            next_ping = began + _interval(options)
            await trio.sleep_until(min(deadline, next_ping))
            while connection.last_received < began:
                await trio.sleep_until(deadline)
                since = max(await wait_reading(connection), asked_at(connection, ping))
                deadline = max(deadline, since + options.timeout)
                if connection.last_received < began and trio.current_time() >= deadline:
                    return HeartbeatTimeout(
                        f"nothing came from the peer for {options.timeout:g} s after a ping"
                    )
            await trio.sleep_until(next_ping)
        finally:
            forget_ping(connection, ping)


def _interval(options: HeartbeatOptions) -> float:
    # The clients of a server that has come back should not ping in step.
    return options.interval * random.uniform(1 - options.jitter, 1 + options.jitter)
