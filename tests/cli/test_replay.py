"""``wsclient listen --replay``: what a journal holds, printed once more."""

from __future__ import annotations

import json
import os

import pytest
import trio

import wsclient
from wsclient.cli import main
from wsclient.cli._arguments import parse
from wsclient.cli._printer import Printer
from wsclient.cli._replay import prepare_replay
from wsclient.session._records import JournalFiles, JournalRecord, encode

GAP = wsclient.Gap(after=1, before=2, since=1002.0, until=1005.0, reason="'back \x1b soon'")
RECORDS = [
    JournalRecord(time=1000.0, epoch=1, item="hello\n"),
    JournalRecord(time=1002.0, epoch=1, item=b"\xff"),
    JournalRecord(time=1005.0, epoch=2, item=GAP),
    JournalRecord(time=1006.0, epoch=2, item=wsclient.Overflow(3)),
    JournalRecord(time=1006.0, epoch=2, item="again"),
]


@pytest.fixture
def journal(tmp_path):
    path = str(tmp_path / "feed.journal")
    files = JournalFiles(path, 2**20, 4)
    files.write([encode(record) for record in RECORDS], 999.0)
    files.close()
    return path


def replay(*arguments, capsys):
    status = main(["listen", "--replay", *arguments])
    printed = capsys.readouterr()
    return status, printed.out.splitlines(), printed.err.splitlines()


def test_messages_are_lines_and_what_is_missing_is_told(journal, capsys):
    assert (
        0,
        ["hello\\n", "[binary, 1 byte] ff", "again"],
        [
            "* messages of 3.00 s may be missing: 'back \\x1b soon'",
            "* 3 messages not recorded",
        ],
    ) == replay(journal, capsys=capsys)


def test_with_json_everything_is_in_its_place_with_its_time(journal, capsys):
    status, out, err = replay(journal, "--json", capsys=capsys)
    objects = [json.loads(line) for line in out]

    assert (0, []) == (status, err)
    assert all(line.isascii() for line in out)
    assert [
        {"event": "message", "text": "hello\n", "time": 1000.0, "epoch": 1},
        {"event": "message", "base64": "/w==", "time": 1002.0, "epoch": 1},
        {"event": "not_recorded", "messages": 3, "time": 1006.0, "epoch": 2},
        {"event": "message", "text": "again", "time": 1006.0, "epoch": 2},
    ] == [each for each in objects if each["event"] != "gap_detected"]
    gap = objects[2]

    assert ("gap_detected", 1005.0, 2) == (gap["event"], gap["time"], gap["epoch"])
    assert (1, 2, 1002.0, 1005.0) == tuple(
        gap["gap"][name] for name in ("after", "before", "since", "until")
    )
    assert "channel" not in gap


@pytest.mark.parametrize("style", [[], ["--json"]])
def test_quiet_is_messages_only(journal, capsys, style):
    status, out, err = replay(journal, "--quiet", *style, capsys=capsys)

    assert (0, 3, []) == (status, len(out), err)


async def test_speed_is_as_many_times_as_fast_as_it_came(autojump_clock, journal):
    arguments = parse(["listen", "--replay", journal, "--speed", "2"])
    began = trio.current_time()
    printer = Printer(None, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(printer.run)
        assert 0 == await prepare_replay(arguments, printer)()
        nursery.cancel_scope.cancel()

    assert 3 == trio.current_time() - began


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "other cannot be read: No such file or directory"),
        ("hello\n", "the file is no journal"),
    ],
)
def test_what_is_no_journal_is_told(tmp_path, capsys, content, complaint):
    path = tmp_path / "other"
    if content is not None:
        path.write_text(content)
    status, out, err = replay(str(path), capsys=capsys)

    assert (2, []) == (status, out)
    assert err[0].startswith("wsclient listen: error: ")
    assert complaint in err[0]


@pytest.mark.parametrize("style", [[], ["--json"]])
def test_a_journal_that_ends_inside_of_a_record_says_so(journal, capsys, style):
    whole = replay(journal, *style, capsys=capsys)
    with open(journal, "rb+") as file:
        file.truncate(os.path.getsize(journal) - 3)
    cut = replay(journal, *style, capsys=capsys)

    # The last record is "again".
    assert (
        0,
        whole[1][:-1],
        [*whole[2], "* the journal ends inside of a record"],
    ) == cut
    assert [] == replay(journal, "--quiet", *style, capsys=capsys)[2]


def test_a_journal_that_was_cut_in_its_first_record_says_so(tmp_path, capsys):
    path = tmp_path / "cut"
    files = JournalFiles(str(path), 2**20, 1)
    files.write([encode(RECORDS[0])], 1.0)
    files.close()
    path.write_bytes(path.read_bytes()[:-1])

    assert (0, [], ["* the journal ends inside of a record"]) == replay(str(path), capsys=capsys)


def test_a_journal_whose_file_is_just_put_aside_is_printed_all_the_same(journal, capsys):
    whole = replay(journal, capsys=capsys)
    os.replace(journal, f"{journal}.1")

    assert whole == replay(journal, capsys=capsys)


@pytest.mark.parametrize("lines", [[], [encode(RECORDS[0])]])
def test_a_journal_that_holds_nothing_says_so(tmp_path, capsys, lines):
    path = tmp_path / "empty"
    path.touch()
    if lines:  # A journal was begun, and nothing came.
        files = JournalFiles(str(path), 2**20, 1)
        files.write(lines, 1.0)
        files.close()
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])

    assert (0, [], ["* the journal holds nothing"]) == replay(str(path), capsys=capsys)
    assert (0, [], []) == replay(str(path), "--quiet", capsys=capsys)


def test_a_journal_that_cannot_be_read_on_fails(journal, capsys, monkeypatch):
    calls = []

    def records(self):
        calls.append(self)
        yield RECORDS[0]
        if len(calls) > 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(wsclient.Journal, "records", records)

    assert (
        1,
        ["hello\\n"],
        ["wsclient: the journal cannot be read on: Input/output error"],
    ) == replay(journal, capsys=capsys)


def test_a_journal_that_is_long_waits_for_whoever_reads_it(tmp_path):
    """Nothing is held in memory that was not printed yet."""
    path = str(tmp_path / "long")
    files = JournalFiles(path, 2**24, 1)
    files.write([encode(JournalRecord(time=1.0, epoch=1, item="x" * 1000))] * 500, 1.0)
    files.close()
    reader, writer = os.pipe()

    class Pipe:
        """A stream that is a pipe's end."""

        encoding = "utf-8"

        def flush(self):
            pass

        def fileno(self):
            return writer

    async def run():
        printer = Printer(Pipe(), None)
        command = prepare_replay(parse(["listen", "--replay", path]), printer)
        done = trio.Event()

        async def print_all():
            assert 0 == await command()
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            nursery.start_soon(print_all)
            await trio.testing.wait_all_tasks_blocked(0.05)

            assert not done.is_set()
            assert printer._size < 2**17

            lines = b""
            while lines.count(b"\n") < 500:
                lines += await trio.to_thread.run_sync(os.read, reader, 65536)
            await done.wait()
            nursery.cancel_scope.cancel()

    try:
        trio.run(run)
    finally:
        os.close(reader)
        os.close(writer)
