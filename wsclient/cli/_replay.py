"""``wsclient listen --replay``: what a journal holds, at a pace or as fast as it can be read."""

from __future__ import annotations

import os
from contextlib import suppress

import trio

import wsclient

from ._arguments import ListenArguments
from ._objects import event_object, json_line, message_object
from ._printer import Printer
from ._running import FAILED, OK, Command
from ._sentences import sentence_for
from ._text import count, escape, message_text


def prepare_replay(arguments: ListenArguments, printer: Printer) -> Command:
    """Check whether there is a journal.

    Returns:
        What to run.

    Raises:
        ValueError: There is none, or it cannot be read.
    """
    assert arguments.replay is not None
    show = _show_object if arguments.json else _show_line
    journal = wsclient.Journal(arguments.replay)
    try:
        # What a generator says of its files, it says when it begins.
        next(journal.records(), None)
    except OSError as error:
        path = error.filename or arguments.replay
        raise ValueError(f"the journal {path} cannot be read: {error.strerror}") from None

    async def replay() -> int:
        began, first = trio.current_time(), None
        try:
            for record in journal.records():
                first = record.time if first is None else first
                # A wall clock that was set back is no reason to wait.
                await trio.sleep_until(began + (record.time - first) / arguments.speed)
                if isinstance(record.item, (str, bytes)) or not arguments.quiet:
                    show(record, printer)
                await printer.wait_room()
            ending = _ending(journal.path, is_empty=first is None)
        except OSError as error:
            printer.tell(f"wsclient: the journal cannot be read on: {error.strerror}")
            return FAILED
        if ending and not arguments.quiet:
            printer.tell(f"* {ending}")
        await printer.wait_written()
        return OK

    return replay


def _ending(path: str, *, is_empty: bool) -> str:
    """What is to be said of a journal's end; nothing where it is whole."""
    # Whoever writes to it may just have put its file aside, which was whole then.
    with suppress(FileNotFoundError), open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        # Each record is a line.
        if end and file.read(1) != b"\n":
            return "the journal ends inside of a record"
    return "the journal holds nothing" if is_empty else ""


def _show_line(record: wsclient.JournalRecord, printer: Printer) -> None:
    match record.item:
        case str() | bytes() as message:
            printer.print(message_text(message))
        case wsclient.Gap() as gap:
            told = sentence_for(wsclient.GapDetected(channel="", gap=gap))
            printer.tell(f"* {told}: {escape(gap.reason)}")
        case overflow:
            printer.tell(f"* {count(overflow.messages, 'message')} not recorded")


def _show_object(record: wsclient.JournalRecord, printer: Printer) -> None:
    match record.item:
        case str() | bytes() as message:
            values = message_object(message)
        case wsclient.Gap() as gap:
            values = event_object(wsclient.GapDetected(channel="", gap=gap))
            # A journal does not know what its channel was called.
            del values["channel"]
        case overflow:
            values = {"event": "not_recorded", "messages": overflow.messages}
    printer.print(json_line({**values, "time": record.time, "epoch": record.epoch}))
