"""A subscription that survives disconnects, and knows what it may have missed.

The hook subscribes on every new connection, and returns once the server has confirmed it.
Between the messages of two connections stands a ``Gap``: fill it from elsewhere, or live with it.
``examples/server.py`` has such a feed; start it, then::

    python examples/feed.py ws://127.0.0.1:8765/feed trades

Stop the server and start it again, and see what the channel tells.  Ctrl-C ends the program.
"""

import argparse
import json
import logging
from contextlib import suppress

import trio

import wsclient


async def follow(url: str, topic: str) -> None:
    async def subscribe(connection: wsclient.WebSocketConnection) -> None:
        await connection.send_message(json.dumps({"subscribe": topic}))
        answer = json.loads(await connection.get_message())
        if answer != {"subscribed": topic}:
            # At startup this ends the program; later it is another reason to try again.
            raise ValueError(f"the server does not let us subscribe to {topic!r}")

    async with wsclient.open_channel(url, on_connect=subscribe, name=topic) as channel:
        async for item in channel.items():
            if isinstance(item, wsclient.Gap):
                print(f"gap of {item.until - item.since:.1f} s: {item.reason}", flush=True)
            else:
                print(item, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow a topic of a feed.")
    parser.add_argument("url", help="ws:// or wss://")
    parser.add_argument("topic", nargs="?", default="trades")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    with suppress(KeyboardInterrupt):
        trio.run(follow, arguments.url, arguments.topic)


if __name__ == "__main__":
    main()
