"""The ledger behind websockets' own server; SIGTERM closes with 1001."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from feed import wait_for_go
from ledger import Ledger
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


def process_request(connection: ServerConnection, request: Request) -> Response | None:
    """Answer a load balancer that asks how we are."""
    return connection.respond(200, "well\n") if request.path == "/health" else None


async def main(port: int, folder: Path) -> None:
    await wait_for_go()
    ledger = Ledger(folder)
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)

    async def handler(websocket: ServerConnection) -> None:
        async def read() -> str | bytes | None:
            try:
                return await websocket.recv()
            except ConnectionClosed:
                return None

        assert websocket.request is not None
        await ledger.serve(websocket.request.path, read, websocket.send)

    async with serve(handler, "127.0.0.1", port, process_request=process_request, close_timeout=1):
        print("listening", flush=True)
        await asked_to_stop.wait()


asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
