"""The feed behind websockets' own server; SIGTERM closes with 1001."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from feed import Feed, wait_for_go
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def main(port: int, folder: Path) -> None:
    await wait_for_go()
    feed = Feed(folder)
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)

    async def handler(websocket: ServerConnection) -> None:
        sending = asyncio.create_task(feed.send_to(websocket.send))
        try:
            async for message in websocket:
                feed.hear(str(message))
        except ConnectionClosed:
            pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async with serve(handler, "127.0.0.1", port):
        counting = asyncio.create_task(feed.run())
        print("listening", flush=True)
        await asked_to_stop.wait()
        counting.cancel()


asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
