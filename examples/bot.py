"""A long-running bot: handlers for messages, a timer, and no reconnecting of your own.

It joins a room, answers ``!count``, greets whoever comes, and says every minute that it is there.
The server speaks JSON objects that name their type: ``{"type": "said", "who": …, "text": …}``.
``examples/server.py`` is such a server; start it, then::

    python examples/bot.py ws://127.0.0.1:8765/chat

Stop the server and start it again: the bot comes back by itself, and joins anew.
Ctrl-C lets the handler at work finish and what was sent be written; a second one ends it at once.
"""

import argparse
import logging
from typing import Any

import wsclient


def make_bot(url: str, *, seconds: float = 60.0) -> wsclient.Bot:
    """A bot that has not begun to serve; a test makes its own, against its own server."""
    bot = wsclient.Bot(url, name="bot")

    @bot.on_connect
    async def join(connection: wsclient.WebSocketConnection) -> None:
        # First on the wire of every new connection: authenticate and subscribe here.
        await connection.send_message('{"type": "join", "room": "lobby"}')

    @bot.on_gap
    def missed(gap: wsclient.Gap) -> None:
        # In its place between the messages: what was fetched here would come in order.
        print(f"* away for {gap.until - gap.since:.1f} s", flush=True)

    @bot.on("joined")
    async def greet(message: dict[str, Any], reply: Any) -> None:
        print(f"* {message['who']} is here", flush=True)
        await reply({"type": "say", "text": f"Welcome, {message['who']}!"})

    @bot.on("said")
    def show(message: dict[str, Any]) -> None:
        # A message without these fields raises; that is logged, and the bot goes on.
        print(f"{message['who']}: {message['text']}", flush=True)

    @bot.every(seconds)
    async def remind(context: wsclient.Context) -> None:
        await context.send({"type": "say", "text": "Ask me with !count"})

    bot.include(make_commands())
    return bot


def make_commands() -> wsclient.Router:
    """What the bot does when it is asked; another bot may include it as well."""
    router = wsclient.Router()
    heard = 0

    @router.middleware
    async def only_commands(context: wsclient.Context, call_next: wsclient.CallNext) -> None:
        nonlocal heard
        text = context.value.get("text", "")
        heard += bool(text)
        if text.startswith("!"):
            await call_next()

    @router.on("said")
    async def answer(message: dict[str, Any], reply: Any) -> None:
        if message["text"] == "!count":
            await reply({"type": "say", "text": f"{heard} so far"})

    return router


def main() -> None:
    parser = argparse.ArgumentParser(description="A bot for a chat.")
    parser.add_argument("url", help="ws:// or wss://")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between reminders")
    arguments = parser.parse_args()
    # What happens to the connection goes to stderr: see the logger "wsclient.session".
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    make_bot(arguments.url, seconds=arguments.every).run()
    print("bye", flush=True)


if __name__ == "__main__":
    main()
