"""pproxy: HTTP, SOCKS4 and SOCKS5 on one port, which it prints; with credentials if given."""

from __future__ import annotations

import asyncio
import sys

import pproxy


async def main() -> None:
    credentials = f"#{sys.argv[1]}" if len(sys.argv) > 1 else ""
    server = pproxy.Server(f"http+socks4+socks5://127.0.0.1:0/{credentials}")
    listening = await server.start_server(
        {"rserver": [pproxy.Connection("direct://")], "verbose": lambda text: None}
    )
    print(f"listening on {listening.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
