"""What many subscriptions on one channel cost: to restore, to change one, and in memory.

On virtual time and in memory, server included, so the times are of the processor and of both ends.
The second number of a row is what the server and the connection alone take: the same messages, sent
and confirmed by hand.

    python benchmarks/subscriptions.py
    python benchmarks/subscriptions.py --counts 1000 10000
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import tracemalloc

import wsclient
from wsclient.testing import FaultServer, memory_network, run_deterministic


class PubSub(wsclient.Protocol):
    """Keys on the wire as numbers."""

    def subscribe(self, wish: wsclient.Wish) -> str:
        return json.dumps({"op": "subscribe", "key": wish.key})

    def unsubscribe(self, wish: wsclient.Wish, token: object) -> str:
        return json.dumps({"op": "unsubscribe", "key": wish.key})

    def recognise(self, message: str | bytes) -> wsclient.Subscribed | wsclient.Unsubscribed | None:
        match json.loads(message):
            case {"op": "subscribed", "key": key}:
                return wsclient.Subscribed(key)
            case {"op": "unsubscribed", "key": key}:
                return wsclient.Unsubscribed(key)
        return None


async def serve(connection: wsclient.testing.ServerConnection) -> None:
    async for message in connection:
        asked = json.loads(message)
        await connection.send(json.dumps({"op": asked["op"] + "d", "key": asked["key"]}))


async def measure(count: int) -> dict[str, float]:
    with memory_network() as network:
        async with (
            FaultServer(handler=serve, network=network) as server,
            wsclient.open_channel(server.url, protocol=PubSub(), observers=[]) as channel,
        ):
            await channel.wait_ready()
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            feeds = [channel.subscribe(number) for number in range(count)]
            memory = (tracemalloc.get_traced_memory()[0] - before) / count
            tracemalloc.stop()
            for feed in feeds:
                await feed.__aenter__()
            for feed in feeds:
                await feed.wait_live()

            server.open_connections[0].reset()
            await channel.wait_state(wsclient.ChannelState.WAITING)
            began = time.process_time()
            await channel.wait_ready()
            restored = time.process_time() - began

            changes = 100
            began = time.process_time()
            for _ in range(changes):
                async with channel.subscribe("one more") as feed:
                    await feed.wait_live()
            changed = (time.process_time() - began) / changes
            for feed in feeds:
                feed.close()
    return {"memory": memory, "restored": restored, "changed": changed}


async def by_hand(count: int) -> float:
    """The same messages, without a channel."""
    with memory_network() as network:
        async with (
            FaultServer(handler=serve, network=network) as server,
            wsclient.open_websocket_url(server.url) as connection,
        ):
            began = time.process_time()
            for number in range(count):
                await connection.send_message(json.dumps({"op": "subscribe", "key": number}))
                if number >= 64:
                    await connection.get_message()
            for _ in range(min(64, count)):
                await connection.get_message()
            return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 10_000])
    print(f"{'subscriptions':>13} {'restored':>9} {'by hand':>9} {'one more':>9} {'a feed':>9}")
    for count in parser.parse_args().counts:
        figures = run_deterministic(1, lambda count=count: measure(count))
        alone = run_deterministic(1, lambda count=count: by_hand(count))
        print(
            f"{count:>13,} {figures['restored']:>7.3f} s {alone:>7.3f} s"
            f" {figures['changed'] * 1e3:>6.2f} ms {figures['memory']:>7.0f} B"
        )


if __name__ == "__main__":
    main()
