"""A chat with rooms, for ``examples/bot.py``; it needs ``pip install websockets``.

It speaks JSON: ``{"type": "join", "room": …, "who": …}``, and then ``{"type": "say", "room": …,
"text": …}`` comes to everyone in the room as ``{"type": "said", "room": …, "who": …, "text": …}``.
It forgets everything when it ends, as servers do when they are deployed::

    python examples/chat_server.py
"""

import argparse
import asyncio  # noqa: TID251  The other side may run on what it likes.
import json
import sys
from collections import defaultdict
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

rooms: defaultdict[str, dict[ServerConnection, str]] = defaultdict(dict)


def tell(room: str, **message: Any) -> None:
    broadcast(rooms[room], json.dumps({"room": room} | message))


async def chat(connection: ServerConnection) -> None:
    try:
        async for message in connection:
            match json.loads(message):
                case {"type": "join", "room": str(room), "who": str(who)}:
                    rooms[room][connection] = who
                    tell(room, type="joined", who=who, present=[*rooms[room].values()])
                case {"type": "say", "room": str(room), "text": str(text)}:
                    if connection in rooms[room]:
                        tell(room, type="said", who=rooms[room][connection], text=text)
    except (ConnectionClosed, ValueError):
        pass  # It is gone, or speaks no JSON and has to go.
    finally:
        for room in [room for room, members in rooms.items() if connection in members]:
            tell(room, type="left", who=rooms[room].pop(connection))


async def main(port: int) -> None:
    async with serve(chat, "127.0.0.1", port) as server:
        print(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat, on the loopback.")
    parser.add_argument("--port", type=int, default=8765, help="0: the system chooses one")
    try:
        asyncio.run(main(parser.parse_args().port))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"{parser.prog}: {error}")
