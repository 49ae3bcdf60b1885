"""A small exchange, for ``examples/order_book.py``; it needs ``pip install websockets``.

It speaks JSON-RPC 2.0.  ``book`` gives the whole order book of a market; ``subscribe`` names a
subscription, and ``changed`` notifications bring it each change of the book, one number after the
other.  An amount of 0 takes a price out of the book.  With each change comes a checksum of the best
five prices of both sides, as real exchanges have it.  It forgets everything when it ends, and
begins another book::

    python examples/exchange.py
"""

import argparse
import asyncio  # noqa: TID251  The other side may run on what it likes.
import itertools
import json
import random
import sys
import time
import zlib
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class Market:
    """An order book that changes by chance, and who wants to know.

    Prices are in cents.
    """

    def __init__(self) -> None:
        self.sides = {"bids": dict[int, int](), "asks": dict[int, int]()}
        # Of the clock: so an exchange that was restarted has greater numbers than before.
        self.sequence = int(time.time() * 1000)
        self.subscribers: dict[str, ServerConnection] = {}
        for _ in range(100):
            self.change()

    def change(self) -> dict[str, Any]:
        """One more change of the book."""
        self.sequence += 1
        side = random.choice(["bids", "asks"])
        price = 10_000 + random.randint(1, 40) * (1 if side == "asks" else -1)
        amount = random.choice([0, random.randint(1, 50)])
        if amount:
            self.sides[side][price] = amount
        else:
            self.sides[side].pop(price, None)
        return {"sequence": self.sequence, side: [[price, amount]], "checksum": self.checksum()}

    def checksum(self) -> int:
        best = [*sorted(self.sides["bids"].items(), reverse=True)[:5]]
        best += sorted(self.sides["asks"].items())[:5]
        return zlib.crc32(json.dumps(best).encode())

    def book(self) -> dict[str, Any]:
        sides = {side: list(levels.items()) for side, levels in self.sides.items()}
        return {"sequence": self.sequence, "checksum": self.checksum(), **sides}


markets = {"BTC-EUR": Market(), "ETH-EUR": Market()}
names = (f"sub-{number}" for number in itertools.count(1))


async def trade(connection: ServerConnection) -> None:
    mine: list[str] = []
    try:
        async for message in connection:
            asked = json.loads(message)
            answer = {"jsonrpc": "2.0", "id": asked["id"]}
            match asked["method"], asked["params"]:
                case "book", [market] if market in markets:
                    answer["result"] = markets[market].book()
                case "subscribe", [market] if market in markets:
                    mine.append(answer.setdefault("result", next(names)))
                    # Only then are its changes told: the name comes first.
                    await connection.send(json.dumps(answer))
                    markets[market].subscribers[mine[-1]] = connection
                    continue
                case "unsubscribe", [name]:
                    answer["result"] = any(
                        market.subscribers.pop(name, None) for market in markets.values()
                    )
                case _:
                    answer["error"] = {"code": -32602, "message": "no such method, or market"}
            await connection.send(json.dumps(answer))
    except (ConnectionClosed, ValueError, KeyError, TypeError):
        pass  # It is gone, or speaks no JSON-RPC and has to go.
    finally:
        for market, name in itertools.product(markets.values(), mine):
            market.subscribers.pop(name, None)


async def move(pause: float) -> None:
    """Let every market change now and then."""
    while True:
        await asyncio.sleep(pause)
        for market in markets.values():
            change = market.change()
            for name, connection in list(market.subscribers.items()):
                params = {"subscription": name, "result": change}
                told = {"jsonrpc": "2.0", "method": "changed", "params": params}
                with suppress(ConnectionClosed):  # Whoever reads from it notices as well.
                    await connection.send(json.dumps(told))


async def main(port: int, pause: float) -> None:
    async with serve(trade, "127.0.0.1", port) as server:
        print(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/", flush=True)
        await move(pause)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An exchange, on the loopback.")
    parser.add_argument("--port", type=int, default=8765, help="0: the system chooses one")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two changes")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.port, arguments.pause))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"{parser.prog}: {error}")
