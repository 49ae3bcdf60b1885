"""The blocks of an Ethereum node as they come, each exactly once, however often the node restarts.

A row for each block: what its gas cost at least, and how full it is.  It begins some blocks back,
and asks for what a restart or a lost connection has left out: the two are one and the same.
With a node of your own, such as ``npx @foundry-rs/anvil --block-time 1``::

    python examples/blocks.py ws://127.0.0.1:8545/ --last 20

Stop the node and start it again.  Ctrl-C ends the program.
"""

import argparse
import logging
import sys
from collections.abc import AsyncGenerator
from typing import Any

import trio

import wsclient

# Where a block stands, and whether another can be between two: so a gap is known from its numbers.
BLOCKS = wsclient.JsonRpc(
    position=lambda block: int(block["number"], 16),
    is_next=lambda before, after: bool(after == before + 1),
)


async def follow(url: str, last: int) -> None:
    async with wsclient.open_channel(url, protocol=BLOCKS) as channel:

        async def call(method: str, *parameters: object) -> Any:
            # A question does no harm if it is asked twice: it outlives its connection.
            asked = {"method": method, "params": parameters}
            return await channel.request(asked, idempotent=True)

        async def bring(gap: wsclient.Gap) -> AsyncGenerator[Any, None]:
            # Live blocks wait meanwhile; those that come twice are dropped by their numbers.
            number = gap.after_position + 1
            while block := await call("eth_getBlockByNumber", hex(number), False):
                yield block
                number += 1

        newest = int(await call("eth_blockNumber"), 16)
        after = max(newest - last, -1)
        async with channel.subscribe("newHeads", after=after, backfill=bring) as blocks:
            async for item in blocks.items():
                print(row(item), flush=True)


def row(item: Any) -> str:
    if isinstance(item, wsclient.Gap):
        # The node could not bring them; or its chain has taken blocks back, and goes on from there.
        return f"-- block {item.after_position}, then {item.before_position}: {item.reason}"
    number, used, limit, fee = (
        int(item[name], 16) for name in ("number", "gasUsed", "gasLimit", "baseFeePerGas")
    )
    full = used / limit
    return f"{number:>10,}  {fee / 1e9:8.3f} gwei  {full:4.0%}  {'#' * round(20 * full)}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow the blocks of an Ethereum node.")
    parser.add_argument("url", help="ws:// or wss://")
    parser.add_argument("--last", type=int, default=10, help="how many blocks back to begin")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        trio.run(follow, arguments.url, arguments.last)
    except KeyboardInterrupt:
        pass
    except (wsclient.WebSocketError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
