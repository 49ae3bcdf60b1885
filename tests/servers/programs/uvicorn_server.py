"""The feed behind uvicorn; SIGTERM closes with 1012."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvicorn
from feed import Feed, wait_for_go


class Server(uvicorn.Server):
    """Says when it listens."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print("listening", flush=True)


async def main(port: int, folder: Path) -> None:
    await wait_for_go()
    feed = Feed(folder)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        sending = asyncio.create_task(
            feed.send_to(lambda text: send({"type": "websocket.send", "text": text}))
        )
        try:
            while (event := await receive())["type"] == "websocket.receive":
                feed.hear(event["text"])
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    config = uvicorn.Config(
        app, port=port, lifespan="off", log_level="critical", timeout_graceful_shutdown=1
    )
    counting = asyncio.create_task(feed.run())
    await Server(config).serve()
    counting.cancel()


asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
