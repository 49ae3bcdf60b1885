"""A subscription that survives disconnects, and knows what it has missed.

Each message has a number.  On a new connection the feed goes on behind the last one, if the server
still can; where it cannot, a ``Gap`` stands between the messages that are there.
``examples/server.py`` has such a feed, which remembers ten seconds; start it, then::

    python examples/feed.py ws://127.0.0.1:8765/feed trades

Stop the server and start it again, at once or later, and see what is missing.
Ctrl-C ends the program.
"""

import argparse
import logging
import sys

import trio

import wsclient


async def follow(url: str, topic: str) -> None:
    async with (
        # How the service spells it is the protocol's business; yours may have other names.
        wsclient.open_channel(url, protocol=wsclient.JsonPubSub(), name=topic) as channel,
        # "before": in the loop, feed.position is that of the message at hand.
        channel.subscribe(topic, commit="before") as feed,
    ):
        # `async for message in feed` would pass over the gaps.
        async for item in feed.items():
            if isinstance(item, wsclient.Gap):
                print(f"-- missed: {item.after_position} < … < {item.before_position}", flush=True)
            else:
                print(feed.position, item, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow a topic of a feed.")
    parser.add_argument("url", help="ws:// or wss://")
    parser.add_argument("topic", nargs="?", default="trades")
    arguments = parser.parse_args()
    # What happens to the connection goes to stderr: see the logger "wsclient.session".
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        trio.run(follow, arguments.url, arguments.topic)
    except KeyboardInterrupt:
        pass
    except (wsclient.WebSocketError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
