"""The order book of a market, kept up to date, however often the exchange is restarted.

A row for each change: its number, the best bid and the best ask.  It begins with the whole book,
and goes on with what is newer.  Behind a gap the whole book is taken again; what is not in it any
more is not missed.  The exchange's checksum shows that the book is the exchange's::

    python examples/exchange.py
    python examples/order_book.py ws://127.0.0.1:8765/ BTC-EUR

Stop the exchange and start it again.  Ctrl-C ends the program.
"""

import argparse
import json
import logging
import sys
import zlib
from operator import itemgetter
from typing import Any

import trio

import wsclient

CHANGES = wsclient.JsonRpc(
    subscribe_method="subscribe",
    unsubscribe_method="unsubscribe",
    notification_method="changed",
    # The numbers of changes, so that it is known what is in a book already, and what is missing.
    position=itemgetter("sequence"),
    is_next=lambda before, after: bool(after == before + 1),
)


class Book:
    """Bids and asks: amounts by price."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[int, int]] = {"bids": {}, "asks": {}}

    def apply(self, change: dict[str, Any]) -> None:
        """Take in a change, or a whole book in the place of this one.

        Raises:
            ValueError: The book is not the exchange's.
        """
        for side, levels in self.sides.items():
            if change.get("is_whole"):
                levels.clear()
            for price, amount in change.get(side, ()):
                if amount:
                    levels[price] = amount
                else:
                    levels.pop(price, None)
        if self.checksum() != change["checksum"]:
            raise ValueError(f"the book is wrong at {change['sequence']}")

    def checksum(self) -> int:
        best = sorted(self.sides["bids"].items(), reverse=True)[:5]
        best += sorted(self.sides["asks"].items())[:5]
        return zlib.crc32(json.dumps(best).encode())

    def row(self) -> str:
        bid = max(self.sides["bids"].items(), default=(0, 0))
        ask = min(self.sides["asks"].items(), default=(0, 0))
        return f"{bid[1]:>4} x {bid[0] / 100:8.2f} | {ask[0] / 100:8.2f} x {ask[1]}"


async def follow(url: str, market: str) -> None:
    book = Book()
    async with wsclient.open_channel(url, protocol=CHANGES) as channel:

        async def whole() -> wsclient.Snapshot:
            asked = {"method": "book", "params": [market]}
            # A question does no harm if it is asked twice: it outlives its connection.
            found = await channel.request(asked, idempotent=True)
            return wsclient.Snapshot({**found, "is_whole": True}, found["sequence"])

        async with channel.subscribe(market, snapshot=whole) as changes:
            async for item in changes.items():
                if isinstance(item, wsclient.Gap):
                    print(f"-- {item.reason}: the whole book is taken again", flush=True)
                else:
                    book.apply(item)
                    print(f"{item['sequence']} {book.row()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow the order book of a market.")
    parser.add_argument("url", help="ws:// or wss://")
    parser.add_argument("market", nargs="?", default="BTC-EUR", help="default: %(default)s")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        trio.run(follow, arguments.url, arguments.market)
    except KeyboardInterrupt:
        pass
    except (wsclient.WebSocketError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
