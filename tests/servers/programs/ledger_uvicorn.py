"""The ledger behind uvicorn and wsproto; SIGTERM closes with 1012."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvicorn
from feed import wait_for_go
from ledger import Ledger


class Server(uvicorn.Server):
    """Says when it listens."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print("listening", flush=True)


async def main(port: int, folder: Path) -> None:
    await wait_for_go()
    ledger = Ledger(folder)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def read() -> str | bytes | None:
            event = await receive()
            return event.get("text") or event.get("bytes")

        assert scope["type"] == "websocket"
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await ledger.serve(
            f"{scope['path']}?{scope['query_string'].decode()}",
            read,
            lambda text: send({"type": "websocket.send", "text": text}),
        )

    config = uvicorn.Config(
        app,
        port=port,
        ws="wsproto",
        lifespan="off",
        log_level="critical",
        timeout_graceful_shutdown=2,
    )
    await Server(config).serve()


asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
