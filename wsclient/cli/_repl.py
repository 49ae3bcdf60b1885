"""``wsclient repl``: send and receive by hand.

On a terminal there is a line that is edited, and above it what happens.  Both are drawn by whoever
has something to say, each time as one piece: clear the row, say it, draw the row again.  So what
arrives while the user types goes between, and never into, what is typed.

Without a terminal each line of the standard input is a message, whatever it begins with; its end
lets everything arrive, and ends the program.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Final, Protocol, TypeAlias

import attrs
import trio

import wsclient

from ._arguments import ReplArguments
from ._editor import CLEAR_ROW, Editor, Key
from ._listen import JsonVoice, Voice
from ._objects import json_line
from ._printer import Printer
from ._running import FAILED, OK, Command
from ._sentences import sentence_for
from ._terminal import Terminal, open_terminal
from ._text import count, escape, message_text, milliseconds

DRAIN: Final = 5.0
"""Seconds that messages have to arrive in, at the end; as ``drain()`` gives them."""

PONG: Final = 10.0
"""Seconds that a pong is waited for."""

_WELL: Final = frozenset(
    {wsclient.Outcome.RECEIVED, wsclient.Outcome.ACKED, wsclient.Outcome.WRITTEN}
)

_HELP: Final = {
    "/ping": "send a ping, and tell how long its pong takes",
    "/reconnect [WHY]": "leave this connection for a new one; or do not wait for the next attempt",
    "/explain": "tell where the channel is, why, and what comes next",
    "/statistics": "tell what has been counted",
    "/binary HEX": "send bytes, such as /binary 00 ff",
    "/help": "tell this",
    "/quit": "let everything arrive, and end; so does Ctrl-D",
    "//TEXT": "send a message that begins with a slash",
}


class _Voice(Protocol):
    """Says what happens."""

    def show(self, message: str | bytes) -> None:
        """A message came."""

    def show_gap(self, channel: str, gap: wsclient.Gap) -> None:
        """Messages may be missing here."""

    def tell(self, event: wsclient.Event) -> None:
        """Something happened to the channel."""

    def settle(self, number: int, outcome: wsclient.Outcome, duration: float | None) -> None:
        """What became of a message, and how long it took."""

    def complain(self, text: str) -> None:
        """Something of the user's cannot be done."""


class PlainVoice(Voice):
    """Messages to the standard output, the rest to the standard error."""

    def settle(self, number: int, outcome: wsclient.Outcome, duration: float | None) -> None:
        # Of a thousand lines that are piped, those are told that went wrong.
        if outcome not in _WELL:
            self.complain(f"message {number}: {outcome.value}")

    def complain(self, text: str) -> None:
        self._printer.tell(f"* {escape(text)}")


class ObjectVoice(JsonVoice):
    """Everything to the standard output, as JSON."""

    def settle(self, number: int, outcome: wsclient.Outcome, duration: float | None) -> None:
        values = {
            "event": "receipt",
            "message": number,
            "outcome": outcome.value,
            "seconds": None if duration is None else round(duration, 6),
        }
        self._printer.print(json_line(values))

    def complain(self, text: str) -> None:
        self._printer.print(json_line({"event": "complaint", "text": text}))


class Screen:
    """A line that is edited, and what happens above it.

    Args:
        terminal: Where.
        printer: Writes to it.
        editor: Knows what has been typed.
    """

    def __init__(self, terminal: Terminal, printer: Printer, editor: Editor) -> None:
        self._terminal = terminal
        self._printer = printer
        self._editor = editor
        self._state = wsclient.ChannelState.CONNECTING
        self._is_open = False
        self.number = 1
        """Of the next message."""

    @property
    def prompt(self) -> str:
        """What stands before the line: the next message's number, and why it would wait."""
        if self._state is wsclient.ChannelState.READY:
            return f"{self.number}> "
        return f"{self.number} {self._state.value}> "

    def open(self) -> None:
        """Show the line."""
        self._is_open = True
        self._printer.draw(self._terminal.begin)
        self.redraw()

    def close(self) -> None:
        """Take it away."""
        self._is_open = False
        self._printer.draw(self._terminal.end + CLEAR_ROW)

    def redraw(self) -> None:
        """Draw the line as it is now."""
        self._printer.draw(self._row())

    def clear(self) -> None:
        """Show nothing but the line."""
        self._printer.draw("\x1b[H\x1b[2J" + self._row())

    def commit(self, text: str) -> None:
        """A line was entered: it stays, and a new one begins below."""
        self._write(self.prompt + escape(text))

    def _row(self) -> str:
        return self._editor.row(self.prompt, self._terminal.width) if self._is_open else ""

    def _write(self, line: str) -> None:
        self._printer.draw(f"{CLEAR_ROW}{line}{os.linesep}{self._row()}")

    def _paint(self, colour: int, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[m" if self._terminal.has_colours else text

    def answer(self, text: str) -> None:
        """Answer to a command."""
        self._write(escape(text))

    def show(self, message: str | bytes) -> None:
        self._write(self._paint(32, "< ") + message_text(message))

    def show_gap(self, channel: str, gap: wsclient.Gap) -> None:
        """It has been told when it was detected."""

    def tell(self, event: wsclient.Event) -> None:
        if isinstance(event, wsclient.StateChanged):
            self._state = event.state
            self.redraw()
        elif not isinstance(event, wsclient.ChannelGaveUp) and (sentence := sentence_for(event)):
            self._write(self._paint(2, f"* {sentence}"))

    def settle(self, number: int, outcome: wsclient.Outcome, duration: float | None) -> None:
        text = f"* message {number}: {outcome.value}"
        if duration is not None:
            text += f" after {milliseconds(duration)}"
        self._write(self._paint(2 if outcome in _WELL else 31, text))

    def complain(self, text: str) -> None:
        self._write(self._paint(31, f"* {escape(text)}"))


def prepare_repl(arguments: ReplArguments, printer: Printer) -> Command:
    """Check what can be checked without a connection.

    Returns:
        What to run.

    Raises:
        TypeError, ValueError: The URL, a header or a subprotocol cannot be used, or the history
            cannot be read.
    """
    terminal = None if arguments.json or arguments.plain else open_terminal()
    voice: _Voice
    way: Way
    if terminal is not None:
        history = _read_history(arguments.history)
        editor = Editor(history, _completions)
        voice = screen = Screen(terminal, printer, editor)
        way = partial(_type, terminal, screen, editor)
    else:
        voice = ObjectVoice(printer) if arguments.json else PlainVoice(printer)
        way = _pipe
    opening = wsclient.open_channel(
        arguments.url,
        connection=wsclient.ConnectionOptions(
            subprotocols=arguments.subprotocols, extra_headers=arguments.headers
        ),
        # Who types wants to know at once what became of it; a pipe asks once, at its end.
        delivery=None if terminal is None else wsclient.DeliveryOptions(fence_interval=0),
        observers=(voice.tell,),
    )

    async def repl() -> int:
        talk = Talk(voice, printer)
        try:
            with nullcontext() if terminal is None else terminal.keys_come_at_once():
                try:
                    async with opening as channel:
                        await talk.run(channel, way, arguments.wait)
                finally:
                    if terminal is not None:
                        screen.close()
                        try:
                            _keep_history(arguments.history, editor.history)
                        except OSError as error:
                            talk.refuse(f"the history cannot be kept: {error.strerror}")
                    talk.settle_rest()
        except wsclient.ChannelFailed as failure:
            printer.tell(f"wsclient: {escape(str(failure))}")
            return FAILED
        return OK if talk.is_well else FAILED

    return repl


class Talk:
    """A conversation over one channel.

    Args:
        voice: Told of it.
        printer: Says when there is room for more.
    """

    def __init__(self, voice: _Voice, printer: Printer) -> None:
        self.voice = voice
        self._printer = printer
        self._open: dict[int, wsclient.Receipt] = {}
        self._outcomes: Counter[wsclient.Outcome] = Counter()
        self._sent = 0
        self._refused = 0
        self._receiving = trio.CancelScope()
        self.channel: wsclient.DurableChannel
        self.nursery: trio.Nursery

    @property
    def is_well(self) -> bool:
        """Whether everything that was to be sent was sent, and nothing is known to be lost."""
        return not self._refused and _WELL.issuperset(self._outcomes)

    async def run(self, channel: wsclient.DurableChannel, way: Way, wait: float) -> None:
        """Talk until the user has had enough; then let everything arrive.

        Args:
            channel: With whom.
            way: Brings what is to be sent.
            wait: Seconds to listen on, at the end.
        """
        self.channel = channel
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            nursery.start_soon(self._receive)
            # Whose end it is: the channel raises why, out of its own block.
            try:
                await way(self)
                with trio.move_on_after(DRAIN):
                    await self._flush()
                await trio.sleep(wait)
                if self._open:
                    # It had its time; leaving well would give it that time once more.
                    await channel.aclose()
            except (wsclient.ChannelFailed, trio.ClosedResourceError):
                await trio.sleep_forever()
            self._receiving.cancel()

    async def _receive(self) -> None:
        try:
            with self._receiving:
                async for item in self.channel.items():
                    if isinstance(item, (str, bytes)):
                        self.voice.show(item)
                    elif isinstance(item, wsclient.Gap):
                        self.voice.show_gap(self.channel.name, item)
                    await self._printer.wait_room()
            # What has come is shown, too.
            while True:
                self.voice.show(self.channel.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel, wsclient.ChannelFailed):
            self.nursery.cancel_scope.cancel()

    async def _flush(self) -> None:
        while True:
            try:
                await self.channel.flush()
            except wsclient.InboxFull:
                # Nobody reads what is printed: what it waits for has to wait, too.
                await self._printer.wait_written()
            else:
                return

    async def send(self, message: str | bytes) -> None:
        """Send a message, once there is room for it.

        Raises:
            ChannelFailed, trio.ClosedResourceError: The channel has ended.
        """
        self._follow(await self.channel.send(message))

    def send_nowait(self, message: str | bytes) -> None:
        """Send a message, or complain."""
        try:
            receipt = self.channel.send_nowait(message)
        except trio.WouldBlock:
            self.refuse(f"not sent: the outbox is full, with {count(len(self._open), 'message')}")
        else:
            self._follow(receipt)

    def refuse(self, text: str) -> None:
        """Something is not sent, and why."""
        self._refused += 1
        self.voice.complain(text)

    def _follow(self, receipt: wsclient.Receipt) -> None:
        self._sent += 1
        self._open[self._sent] = receipt
        self.nursery.start_soon(self._tell_outcome, self._sent, receipt)

    async def _tell_outcome(self, number: int, receipt: wsclient.Receipt) -> None:
        began = trio.current_time()
        while receipt.outcome is None:
            try:
                await receipt.wait()
            except wsclient.InboxFull:  # As above.
                await self._printer.wait_written()
        self._settle(number, receipt.outcome, trio.current_time() - began)

    def _settle(
        self, number: int, outcome: wsclient.Outcome, duration: float | None = None
    ) -> None:
        del self._open[number]
        self._outcomes[outcome] += 1
        self.voice.settle(number, outcome, duration)

    def settle_rest(self) -> None:
        """The channel has ended: tell of the messages that it ended with."""
        ended = [(number, receipt.outcome) for number, receipt in self._open.items()]
        for number, outcome in ended:
            assert outcome is not None
            self._settle(number, outcome)


Way: TypeAlias = Callable[[Talk], Awaitable[None]]
"""How messages come: typed, or line by line."""


# --- line by line ---------------------------------------------------------------------------------


async def _pipe(talk: Talk) -> None:
    number = 0
    try:
        async for line in _lines():
            number += 1
            try:
                text = line.decode()
            except UnicodeDecodeError:
                talk.refuse(f"line {number} is not sent: it is not valid UTF-8")
            else:
                await talk.send(text)
    except OSError as error:
        talk.refuse(f"the standard input cannot be read: {error.strerror or error}")


async def _lines() -> AsyncIterator[bytes]:
    """The lines of the standard input, without their ends."""
    if sys.stdin is None:
        return
    descriptor = sys.stdin.fileno()
    rest = b""
    # In a thread, and past Python's buffer: one that is stuck there can be left behind.
    while data := await trio.to_thread.run_sync(os.read, descriptor, 65536, abandon_on_cancel=True):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest


# --- typed ----------------------------------------------------------------------------------------


async def _type(terminal: Terminal, screen: Screen, editor: Editor, talk: Talk) -> None:
    screen.open()
    talk.nursery.start_soon(terminal.watch, screen.redraw)
    while keys := await terminal.keys():
        for happened in editor.feed(keys):
            if happened is Key.END:
                return
            if isinstance(happened, Key):
                screen.clear()
            elif happened:
                screen.commit(happened)
                if not _enter(happened, screen, talk):
                    return
        screen.redraw()


def _enter(text: str, screen: Screen, talk: Talk) -> bool:
    """Do what a line asks for; false if it is the last one."""
    if not text.startswith("/") or text.startswith("//"):
        _send(text.removeprefix("/"), screen, talk)
        return True
    command, _, rest = text.partition(" ")
    match command:
        case "/quit":
            return False
        case "/ping":
            talk.nursery.start_soon(_ping, screen, talk)
        case "/reconnect":
            _reconnect(rest.strip() or "asked for by hand", screen, talk)
        case "/explain":
            screen.answer(str(talk.channel.explain()))
        case "/statistics":
            for line in statistics_lines(talk.channel.statistics()):
                screen.answer(line)
        case "/binary":
            try:
                data = bytes.fromhex(rest)
            except ValueError:
                screen.complain("/binary takes pairs of hexadecimal digits, such as 00 ff")
            else:
                _send(data, screen, talk)
        case "/help":
            for name, text in _HELP.items():
                screen.answer(f"{name:<18}{text}")
        case _:
            screen.complain(f"no command {command}; /help tells which there are")
    return True


def _send(message: str | bytes, screen: Screen, talk: Talk) -> None:
    talk.send_nowait(message)
    screen.number += 1


async def _ping(screen: Screen, talk: Talk) -> None:
    if talk.channel.state is not wsclient.ChannelState.READY:
        screen.complain("no ping: there is no connection; /explain tells why")
        return
    try:
        with trio.move_on_after(PONG) as patience:
            async with talk.channel.connection() as connection:
                began = trio.current_time()
                await connection.ping()
                screen.answer(f"pong after {milliseconds(trio.current_time() - began)}")
    except wsclient.ConnectionClosed:
        screen.complain("the connection was lost before the pong")
    if patience.cancelled_caught:
        screen.complain(f"no pong within {PONG:g} s")


def _reconnect(reason: str, screen: Screen, talk: Talk) -> None:
    if not (talk.channel.reconnect(reason) or talk.channel.retry_now()):
        screen.complain("it is about to connect already")


def statistics_lines(statistics: wsclient.ChannelStatistics) -> list[str]:
    """What has been counted, one a line."""
    lines = []
    width = max(len(field.name) for field in attrs.fields(wsclient.ChannelStatistics)) + 2
    for field in attrs.fields(wsclient.ChannelStatistics):
        value = getattr(statistics, field.name)
        if field.name == "outcomes":
            text = ", ".join(f"{number:,} {outcome.value}" for outcome, number in value.items())
        elif field.name == "state":
            text = value.value
        elif field.name.startswith("latency"):
            text = "" if value is None else milliseconds(value)
        else:
            text = f"{value:,}"
        lines.append(f"{field.name.replace('_', ' '):<{width}}{text or '–'}")
    return lines


def _completions(text: str) -> list[str]:
    commands = (name.split()[0] for name in _HELP if not name.startswith("//"))
    return [command for command in commands if text and command.startswith(text)]


# --- the history ----------------------------------------------------------------------------------


def _read_history(file: str | None) -> list[str]:
    """Lines that were entered before.

    Raises:
        ValueError: They cannot be read.
    """
    if file is None or not os.path.exists(file):
        return []
    try:
        with open(file, encoding="utf-8") as lines:
            return [str(json.loads(line)) for line in lines]
    except (OSError, ValueError) as error:
        raise ValueError(f"the history cannot be read: {error}") from None


def _keep_history(file: str | None, lines: list[str]) -> None:
    if file is None:
        return

    # What was sent may be nobody else's business.
    def private(path: str, flags: int) -> int:
        return os.open(path, flags, mode=0o600)

    with open(file, "w", encoding="utf-8", opener=private) as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
