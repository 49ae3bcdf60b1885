"""A server process for the benchmarks: floods on ``/feed/COUNT/SIZE``, echoes elsewhere."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, serve


async def handler(websocket: ServerConnection) -> None:
    assert websocket.request is not None
    _, kind, *numbers = websocket.request.path.split("/")
    if kind == "feed":
        count, size = map(int, numbers)
        for _ in range(count):
            await websocket.send("x" * size)
    else:
        async for message in websocket:
            await websocket.send(message)


async def main() -> None:
    async with serve(handler, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
