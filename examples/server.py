"""A server for the other examples: a chat, a feed, and an echo on every other path.

It is the test kit's, so there is nothing more to install::

    python examples/server.py

Stop it with Ctrl-C and start it again while an example runs: that is what wsclient is for.
"""

import argparse
import itertools
import json
import time
from contextlib import suppress

import trio

from wsclient.testing import FaultServer, ServerConnection, echo


async def feed(connection: ServerConnection) -> None:
    """Confirm a subscription, then tell the time: what was missed can be seen."""
    topic = json.loads(await connection.receive())["subscribe"]
    await connection.send(json.dumps({"subscribed": topic}))
    while True:
        await connection.send(json.dumps({"topic": topic, "at": time.strftime("%H:%M:%S")}))
        await trio.sleep(1)


async def chat(connection: ServerConnection) -> None:
    """Ada comes and talks; what the client says is printed."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_ada, connection)
        async for message in connection:
            print(message, flush=True)
        nursery.cancel_scope.cancel()


async def be_ada(connection: ServerConnection) -> None:
    await connection.send(json.dumps({"type": "joined", "who": "ada"}))
    for text in itertools.cycle(["hello", "!count", "how are you?"]):
        await connection.send(json.dumps({"type": "said", "who": "ada", "text": text}))
        await trio.sleep(2)


async def serve(connection: ServerConnection) -> None:
    handler = {"/feed": feed, "/chat": chat}.get(connection.path, echo)
    await handler(connection)


async def main(port: int) -> None:
    async with FaultServer(handler=serve, port=port) as server:
        for path in ("/chat", "/feed", "/"):
            print(f"{server.url}{path}", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server for the examples, on the loopback.")
    parser.add_argument("--port", type=int, default=8765, help="0: the system chooses one")
    with suppress(KeyboardInterrupt):
        trio.run(main, parser.parse_args().port)
