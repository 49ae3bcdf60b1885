"""``wsclient listen``: what a server sends, and the story of the connection."""

from __future__ import annotations

import math
import os

import wsclient

from ._arguments import ListenArguments
from ._objects import event_object, json_line, message_object
from ._printer import Printer
from ._running import FAILED, OK, Command
from ._sentences import sentence_for
from ._text import escape, message_text


def prepare(arguments: ListenArguments, printer: Printer) -> Command:
    """Check what can be checked without a connection.

    Returns:
        What to run.

    Raises:
        TypeError, ValueError: The URL, a header, a subprotocol or the journal cannot be used.
    """
    assert arguments.url is not None
    voice = JsonVoice(printer) if arguments.json else Voice(printer)
    journal = None if arguments.journal is None else _writable(arguments.journal)
    opening = wsclient.open_channel(
        arguments.url,
        connection=wsclient.ConnectionOptions(
            subprotocols=arguments.subprotocols, extra_headers=arguments.headers
        ),
        # What may wait is bounded already, by what fits a command line.
        limits=wsclient.Limits(outbox_messages=math.inf, outbox_size=math.inf),
        journal=journal,
        observers=_observers(arguments, voice, printer),
    )

    async def listen() -> int:
        try:
            async with opening as channel:
                for message in arguments.messages:
                    channel.send_nowait(message)
                async for item in channel.items():
                    if isinstance(item, (str, bytes)):
                        voice.show(item)
                    elif isinstance(item, wsclient.Gap) and not arguments.quiet:
                        voice.show_gap(channel.name, item)
                    await printer.wait_room()
        except wsclient.ChannelFailed as failure:
            printer.tell(f"wsclient: {escape(str(failure))}")
            return FAILED
        return OK

    return listen


def _writable(path: str) -> wsclient.Journal:
    """The journal, if it looks as if it could be written.

    Raises:
        ValueError: It does not.
    """
    journal = wsclient.Journal(path)
    folder = os.path.dirname(path) or os.curdir
    try:
        next(journal.records(), None)
    except FileNotFoundError:
        if not os.access(folder, os.W_OK):
            raise ValueError(f"the journal cannot be written: {folder}") from None
    except OSError as error:
        raise ValueError(f"the journal cannot be written: {error.strerror}") from None
    return journal


def _observers(
    arguments: ListenArguments, voice: Voice, printer: Printer
) -> tuple[wsclient.Observer, ...]:
    if not arguments.quiet:
        return (voice.tell,)
    if arguments.journal is None:
        return ()
    journal_voice = Voice(printer)

    def tell(event: wsclient.Event) -> None:
        # Not the story, but what the user relies on.
        if isinstance(event, (wsclient.JournalFailed, wsclient.JournalRecovered)):
            journal_voice.tell(event)

    return (tell,)


class Voice:
    """Messages to the standard output, sentences to the standard error."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def show(self, message: str | bytes) -> None:
        self._printer.print(message_text(message))

    def show_gap(self, channel: str, gap: wsclient.Gap) -> None:
        """Nothing: it has been told when it was detected."""

    def tell(self, event: wsclient.Event) -> None:
        # That the channel gave up is the program's own last line.
        if not isinstance(event, wsclient.ChannelGaveUp) and (sentence := sentence_for(event)):
            self._printer.tell(f"* {sentence}")


class JsonVoice(Voice):
    """Everything to the standard output, as JSON."""

    def show(self, message: str | bytes) -> None:
        self._printer.print(json_line(message_object(message)))

    def show_gap(self, channel: str, gap: wsclient.Gap) -> None:
        event = wsclient.GapDetected(channel=channel, gap=gap)
        self._printer.print(json_line(event_object(event)))

    def tell(self, event: wsclient.Event) -> None:
        # A gap has its place between the messages, and messages before it may not be taken yet.
        if not isinstance(event, wsclient.GapDetected):
            self._printer.print(json_line(event_object(event)))
