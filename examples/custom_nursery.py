"""Connections and channels whose tasks run in a nursery of your own.

``open_websocket_url`` and ``open_channel`` bring their nursery with them and end with their block.
Where that does not fit (an object that holds a connection, a lifetime that is no block), their
siblings take your nursery, and leave the closing to you.  With any server that echoes, for instance
that of ``examples/server.py``::

    python examples/custom_nursery.py ws://127.0.0.1:8765/
"""

import argparse
import sys

import trio

import wsclient


class Echoes:
    """Asks a server that echoes, over one channel for as long as the nursery lives."""

    def __init__(self, channel: wsclient.DurableChannel) -> None:
        self._channel = channel

    @classmethod
    async def connect(cls, nursery: trio.Nursery, url: str) -> "Echoes":
        # Returns at once, while the channel still connects.
        return cls(await wsclient.connect_channel(nursery, url))

    async def ask(self, question: str) -> str | bytes:
        await self._channel.send(question)
        return await self._channel.receive()

    async def aclose(self) -> None:
        # Nobody does this for us here: what was accepted flows out, then the channel closes.
        await self._channel.drain(timeout=5)
        await self._channel.aclose()


async def main(url: str) -> None:
    async with trio.open_nursery() as nursery:
        # One connection.  What goes wrong in opening it is raised here, not in the nursery; there
        # is no time limit of its own.
        with trio.fail_after(10):
            connection = await wsclient.connect_websocket_url(nursery, url)
        await connection.send_message("one connection")
        print(await connection.get_message())
        await connection.aclose()

        # A channel.  If it gives up for good, ChannelFailed goes through the nursery.
        echoes = await Echoes.connect(nursery, url)
        for number in range(3):
            print(await echoes.ask(f"question {number}"))
        await echoes.aclose()
    print("the nursery is empty")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Use wsclient in a nursery of your own.")
    parser.add_argument("url", help="ws:// or wss://")
    try:
        trio.run(main, parser.parse_args().url)
    except* (wsclient.HandshakeError, wsclient.ChannelFailed, trio.TooSlowError) as group:
        sys.exit("\n".join(map(str, group.exceptions)))
