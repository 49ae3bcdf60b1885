"""A WebSocket over a stream of your own: here a Unix socket whose bytes are counted.

Any ``trio.abc.Stream`` will do: a tunnel, a serial line, a pair of streams in memory.
With a server that listens on a Unix socket and echoes::

    python examples/custom_stream.py /run/service.sock hello
"""

import argparse
import sys

import trio

import wsclient


class CountingStream(trio.abc.Stream):
    """Another stream, and how many bytes went each way."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.sent = 0
        self.received = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)
        self.sent += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self.received += len(data)
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


async def main(path: str, message: str) -> None:
    stream = CountingStream(await trio.open_unix_socket(path))
    async with trio.open_nursery() as nursery:
        # From here on the stream belongs to the connection, which closes it on every way out.
        # The host is what the server reads in the Host header.
        connection = await wsclient.wrap_client_stream(nursery, stream, "localhost", "/")
        async with connection:
            await connection.send_message(message)
            print(await connection.get_message())
    print(f"{stream.sent} bytes sent, {stream.received} received")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Talk to a server behind a Unix socket.")
    parser.add_argument("path", help="where the server's socket is")
    parser.add_argument("message", nargs="?", default="hello")
    arguments = parser.parse_args()
    try:
        trio.run(main, arguments.path, arguments.message)
    except* (OSError, wsclient.WebSocketError) as group:
        sys.exit("\n".join(map(str, group.exceptions)))
