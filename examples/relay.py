"""A relay from a feed into a database: every message once, though both sides may die at any time.

A message and its position are written in one transaction, and a relay that starts goes on behind
the position that it finds.  So there is no instant at which one is there without the other: what
was not written is sent again, and what was written is not.  ``examples/server.py`` has such a
feed; start it, then::

    python examples/relay.py ws://127.0.0.1:8765/feed trades relay.db

Kill either of the two as you like, and start it again.  What the server itself cannot bring back
stands in the table ``gaps``.
"""

import argparse
import json
import logging
import sqlite3
import sys
from contextlib import closing

import trio

import wsclient

SCHEMA = """
CREATE TABLE IF NOT EXISTS positions (topic TEXT PRIMARY KEY, position INTEGER);
CREATE TABLE IF NOT EXISTS messages (topic, number INTEGER, value, PRIMARY KEY (topic, number));
CREATE TABLE IF NOT EXISTS gaps (topic, after, before, since, reason, PRIMARY KEY (topic, after));
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
"""
# With these two a transaction takes well under a millisecond, since it does not wait for the disk.
# A power cut may undo the last ones, rows and position together: they are received once more.


async def relay(url: str, topic: str, database: sqlite3.Connection) -> None:
    found = database.execute("SELECT position FROM positions WHERE topic = ?", [topic]).fetchone()
    # 0: from the beginning, or from as far back as the server goes.
    after = found[0] if found else 0
    async with (
        wsclient.open_channel(url, protocol=wsclient.JsonPubSub()) as channel,
        # "before": in the loop, feed.position is that of the message at hand.
        channel.subscribe(topic, after=after, commit="before") as feed,
    ):
        async for item in feed.items():
            with database:  # one transaction
                store(database, topic, item, feed.position)


def store(database: sqlite3.Connection, topic: str, item: object, position: int) -> None:
    if isinstance(item, wsclient.Gap):
        # Told again if we die before the next message, and perhaps longer then: the last is true.
        gap = (topic, item.after_position, item.before_position, item.since, item.reason)
        database.execute("REPLACE INTO gaps VALUES (?, ?, ?, ?, ?)", gap)
    else:
        # Not OR IGNORE: a message that came twice would be a bug, and is not hidden.
        row = (topic, position, json.dumps(item))
        database.execute("INSERT INTO messages VALUES (?, ?, ?)", row)
        database.execute("REPLACE INTO positions VALUES (?, ?)", (topic, position))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write what a feed publishes to a database.")
    parser.add_argument("url", help="ws:// or wss://")
    parser.add_argument("topic")
    parser.add_argument("database", help="a file, which is made if there is none")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        with closing(sqlite3.connect(arguments.database)) as database:
            database.executescript(SCHEMA)
            trio.run(relay, arguments.url, arguments.topic, database)
    except KeyboardInterrupt:
        pass
    except (wsclient.WebSocketError, ValueError, sqlite3.Error) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
