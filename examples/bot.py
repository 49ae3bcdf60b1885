"""A chat bot in several rooms, which rolls dice and reminds, and no reconnecting of your own.

It needs ``pip install 'wsclient-trio[msgspec]'``, and a chat: start ``examples/chat_server.py``,
then::

    python examples/bot.py ws://127.0.0.1:8765/ lobby games

Talk to it with ``wsclient repl ws://127.0.0.1:8765/``, or any other client::

    {"type": "join", "room": "games", "who": "ada"}
    {"type": "say", "room": "games", "text": "!roll 2d6"}
    {"type": "say", "room": "games", "text": "!remind 10 the tea is ready"}

Stop the chat and start it again: the bot joins anew, and what fell due meanwhile is said then.
Ctrl-C lets the handler at work finish and what was sent be written; a second one ends it at once.
"""

import argparse
import heapq
import json
import logging
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

import wsclient


@dataclass
class Said:
    room: str
    who: str
    text: str


def command(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["type"] == "said" and message["text"].split()[:1] == [name]


def say(room: str, text: str) -> dict[str, str]:
    return {"type": "say", "room": room, "text": text}


def make_bot(url: str, rooms: list[str]) -> wsclient.Bot:
    """A bot that has not begun to serve; a test makes its own, against its own server."""
    bot = wsclient.Bot(url, name="bot")

    @bot.on_connect
    async def join(connection: wsclient.WebSocketConnection) -> None:
        # First on the wire of every new connection, ahead of what is still to be said.
        for room in rooms:
            await connection.send_message(json.dumps({"type": "join", "room": room, "who": "bot"}))

    @bot.on_gap
    def missed(gap: wsclient.Gap) -> None:
        print(f"* away for {gap.until - gap.since:.1f} s", flush=True)

    @bot.on("said")
    def show(message: Said) -> None:
        print(f"[{message.room}] {message.who}: {message.text}", flush=True)

    bot.include(make_commands())
    return bot


def make_commands() -> wsclient.Router:
    """What the bot does when it is asked; another bot may include it as well."""
    router = wsclient.Router()
    reminders: list[tuple[float, str, str]] = []  # a heap, the one that is due first at its head

    @router.middleware
    async def explain(context: wsclient.Context, call_next: wsclient.CallNext) -> None:
        # Around every handler of this router, so that each may simply raise.
        try:
            await call_next()
        except (ValueError, IndexError):
            await context.send(say(context.value.room, "Try !roll 2d6, or !remind 10 tea"))

    @router.on(command("!roll"))
    async def roll(message: Said, reply: Any) -> None:
        count, sides = map(int, message.text.split()[1].split("d"))
        if not (1 <= count <= 20 and 2 <= sides <= 100):
            raise ValueError("who asks for a million dice gets none")
        eyes = [random.randint(1, sides) for _ in range(count)]
        await reply(say(message.room, f"{message.who} rolls {sum(eyes)}: {eyes}"))

    @router.on(command("!remind"))
    async def remember(message: Said, reply: Any) -> None:
        _, seconds, what = message.text.split(maxsplit=2)
        due = trio.current_time() + int(seconds)
        heapq.heappush(reminders, (due, message.room, f"{message.who}: {what}"))
        await reply(say(message.room, f"I keep {len(reminders)}"))

    @router.every(0.1)
    async def remind(context: wsclient.Context) -> None:
        # During an outage, too: the channel keeps what is said until there is a connection.
        while reminders and reminders[0][0] <= trio.current_time():
            _, room, text = heapq.heappop(reminders)
            await context.send(say(room, text))

    return router


def main() -> None:
    parser = argparse.ArgumentParser(description="A bot for a chat.")
    parser.add_argument("url", help="ws:// or wss://")
    parser.add_argument("room", nargs="*", default=["lobby"], help="rooms to join")
    arguments = parser.parse_args()
    # What happens to the connection goes to stderr: see the logger "wsclient.session".
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        make_bot(arguments.url, arguments.room).run()
    except (wsclient.WebSocketError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")
    print("bye", flush=True)


if __name__ == "__main__":
    main()
