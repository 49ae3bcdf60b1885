r"""An interactive client: send, ping, close and receive from the keyboard, or from a pipe.

Messages are shown as they come, while you type.  With any server, for instance that of
``examples/server.py``, which echoes what it gets::

    python examples/interactive.py ws://127.0.0.1:8765/
    printf 'send hello\nreceive\n' | python examples/interactive.py ws://127.0.0.1:8765/

This is one connection, which does not come back: ``open_channel`` makes those that do.
Ctrl-D, or the end of the pipe, closes the connection; Ctrl-C leaves without ado.
"""

import argparse
import functools
import os
import sys

import trio

import wsclient

# Whoever reads us through a pipe wants each line at once.
say = functools.partial(print, flush=True)

HELP = """\
send TEXT            send a text message
ping [TEXT]          send a ping and wait for its pong
receive              wait for a message that no other `receive` has waited for
close [CODE] [TEXT]  close the connection; so does the end of the input
help                 show this"""


class Keyboard:
    """The lines of the standard input.

    They are read in a thread, because files, pipes and terminals cannot all be waited for; and
    with ``os.read``, which holds no lock of Python's that would trouble the interpreter's end.
    """

    def __init__(self) -> None:
        self._buffer = b""

    def __aiter__(self) -> "Keyboard":
        return self

    async def __anext__(self) -> str:
        while b"\n" not in self._buffer:
            # Abandoned on cancel: the thread may wait for a key that nobody presses.
            data = await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True)
            if not data and not self._buffer:
                raise StopAsyncIteration
            self._buffer += data or b"\n"  # The last line may have no end.
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").strip()


async def obey(
    connection: wsclient.WebSocketConnection, line: str, arrived: trio.Semaphore
) -> None:
    """Do what one line asks for."""
    command, _, rest = line.partition(" ")
    match command:
        case "":
            pass
        case "send":
            await connection.send_message(rest)
        case "ping":
            began = trio.current_time()
            with trio.move_on_after(10) as patience:
                await connection.ping(rest.encode() or None)
            took = f"{(trio.current_time() - began) * 1000:.1f} ms"
            say(f"no pong in {took}" if patience.cancelled_caught else f"pong after {took}")
        case "receive":
            await arrived.acquire()
        case "close":
            code, _, reason = rest.partition(" ")
            # Shielded, because `show_messages` ends us as soon as there will be no more messages.
            with trio.CancelScope(shield=True):
                await connection.aclose(int(code or 1000), reason or None)
        case _:
            say(HELP)


async def show_messages(
    connection: wsclient.WebSocketConnection, arrived: trio.Semaphore, scope: trio.CancelScope
) -> None:
    """Print every message, until there will be no more."""
    try:
        while True:
            # As Python writes it: a peer's control characters do not reach the terminal.
            say(f"< {await connection.get_message()!r}")
            arrived.release()
    except wsclient.ConnectionClosed:
        # Nothing can be sent any more: do not wait for the keyboard.
        scope.cancel()


async def talk(url: str) -> None:
    arrived = trio.Semaphore(0)
    async with wsclient.open_websocket_url(url, disconnect_timeout=5) as connection:
        say("connected; `help` helps")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_messages, connection, arrived, nursery.cancel_scope)
            async for line in Keyboard():
                try:
                    await obey(connection, line, arrived)
                except ValueError as error:
                    say(f"no: {error}")
                except wsclient.ConnectionClosed:
                    break
            nursery.cancel_scope.cancel()
    say(f"closed: {connection.closed}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Talk to a WebSocket server.")
    parser.add_argument("url", help="ws:// or wss://")
    url = parser.parse_args().url
    status = 0
    try:
        trio.run(talk, url)
    except* KeyboardInterrupt:
        say()
        status = 130
    except* (wsclient.WebSocketError, ValueError) as group:
        print(*group.exceptions, sep="\n", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
