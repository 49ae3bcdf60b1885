"""A journal's files: what is in them, how they are bounded, and how a torn one is read."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsclient.events import Gap, Overflow
from wsclient.session import _records
from wsclient.session._records import (
    Head,
    JournalFiles,
    JournalRecord,
    NoJournal,
    decode,
    encode,
    encode_head,
    read_records,
)

GAP = Gap(after=1, before=2, since=100.0, until=130.5, reason="closed: 'bye'\n")
LIMIT = 4096


def record(item, time=100.0, epoch=1, **more):
    return JournalRecord(time=time, epoch=epoch, item=item, **more)


def lines(*items, **more):
    return [encode(record(item, **more)) for item in items]


def items(path):
    return [found.item for found in read_records(str(path))]


def write(path, *batches, max_size=LIMIT, files=3, now=100.0):
    """Write, and let go."""
    writer = JournalFiles(str(path), max_size, files)
    try:
        for batch in batches:
            writer.write(list(batch), now)
    finally:
        writer.close()


# --- lines --------------------------------------------------------------------------------------


@given(
    st.text() | st.binary() | st.builds(Overflow, st.integers(1)) | st.just(GAP),
    st.integers(0),
)
def test_what_is_written_is_read(item, epoch):
    written = record(item, time=1_700_000_000.123457, epoch=epoch)
    line = encode(written)

    assert written == decode(line)
    assert 1 == line.count(b"\n")
    # No terminal takes it for a command.
    assert all(32 <= byte < 127 for byte in line[:-1])


def test_a_line_is_json_that_other_programs_read():
    assert {"time": 100.0, "epoch": 1, "text": "größe"} == json.loads(encode(record("größe")))
    assert {"time": 100.0, "epoch": 1, "base64": "AP8="} == json.loads(encode(record(b"\0\xff")))


def test_keys_and_positions_of_the_users_are_written_as_text():
    gap = attrs.evolve(GAP, subscription=("trades", 7), after_position=5, before_position=object)
    found = decode(encode(record(gap))).item

    assert ("('trades', 7)", 5, "<class 'object'>") == (
        found.subscription,
        found.after_position,
        found.before_position,
    )


class Unspeakable:
    def __str__(self):
        raise RuntimeError("mine")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(Unspeakable(), "<Unspeakable>"), (16**5000, "<int>"), (True, True)],
    ids=["mine", "huge", "bool"],
)
def test_what_has_no_text_is_written_all_the_same(value, shown):
    # A position may be what a server says: int(head["number"], 16).
    gap = attrs.evolve(GAP, subscription=value, after_position=value)

    found = decode(encode(record(gap))).item

    assert (shown, shown) == (found.subscription, found.after_position)


def test_of_a_users_key_only_what_it_shows_itself_is_written():
    @attrs.frozen
    class Account:
        number: int
        token: str = attrs.field(repr=False)

    line = encode(record(attrs.evolve(GAP, subscription=Account(7, "c4n4ry"))))

    assert b"Account(number=7)" in line
    assert b"c4n4ry" not in line


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"time": 1, "epoch": 1}',
        b'{"time": 1, "epoch": "x", "text": ""}',
        b'{"time": 1, "epoch": 1, "base64": "!"}',
        b'{"time": 1, "epoch": 1, "gap": {"after": 1}}',
        b'{"journal": 2, "time": 1, "opened": true}',
        b'{"journal": 1}',
        b"\xff\xfe",
        b'{"time": 1, "epoch": 1e999, "text": ""}',
        b'{"time": 1, "epoch": 1, "lost": 1e999}',
        b'{"time": 1e999, "epoch": 1, "text": ""}',
        b'{"time": NaN, "epoch": 1, "text": ""}',
        b'{"time": ' + b"9" * 400 + b', "epoch": 1, "text": ""}',
        b'{"journal": 1, "time": NaN, "opened": true}',
        b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:60]),
)
def test_what_is_no_line_of_a_journal_is_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011  # json's own among them.
        decode(line)


def test_a_head_is_read_as_it_was_written():
    assert Head(7.5, True) == decode(encode_head(Head(7.5, True)))


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="has no modes")
def test_nobody_else_reads_a_journal(tmp_path):
    path = tmp_path / "feed"
    path.touch(0o644)
    write(path, lines("a" * 3000), lines("b" * 3000))

    assert [0o600] * 2 == [stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()]


def test_all_files_together_are_bounded(tmp_path):
    path = tmp_path / "feed"
    texts = [f"{number:04} " + "x" * 300 for number in range(200)]
    write(path, *([line] for line in lines(*texts)))
    names = sorted(file.name for file in tmp_path.iterdir())

    assert ["feed", "feed.1", "feed.2"] == names
    assert all(LIMIT * 0.8 < file.stat().st_size <= LIMIT for file in tmp_path.glob("feed.*"))
    # The newest, all of them, in their order.
    kept = items(path)

    assert texts[-len(kept) :] == kept
    assert 20 < len(kept) < 40


def test_one_file_begins_anew_when_it_is_full(tmp_path):
    path = tmp_path / "feed"
    write(path, *([line] for line in lines(*"abcdefg", *["x" * 2000] * 3)), files=1)

    assert ["feed"] == [file.name for file in tmp_path.iterdir()]
    assert ["x" * 2000] == items(path)


def test_a_batch_is_spread_over_as_many_files_as_it_needs(tmp_path):
    path = tmp_path / "feed"
    texts = [str(number) * 1500 for number in range(5)]
    write(path, lines(*texts))

    assert texts == items(path)


def test_what_is_larger_than_a_file_is_missing_where_it_would_stand(tmp_path):
    path = tmp_path / "feed"
    huge = encode(record("x" * LIMIT, time=200.0, epoch=2))
    write(path, [*lines("a"), huge, *lines("b"), huge])

    assert ["a", Overflow(1), "b", Overflow(1)] == items(path)
    assert record(Overflow(1), time=200.0, epoch=2) == [*read_records(str(path))][-1]


def test_files_beyond_the_number_that_is_wanted_are_removed(tmp_path):
    path = tmp_path / "feed"
    texts = [str(number) * 3500 for number in range(5)]
    write(path, *([line] for line in lines(*texts)), files=5)
    write(path, lines("new"), files=2)

    assert ["feed", "feed.1"] == sorted(file.name for file in tmp_path.iterdir())


def test_a_second_writer_goes_on_where_the_first_one_ended(tmp_path):
    path = tmp_path / "feed"
    write(path, lines("a", time=100.0, epoch=7), now=99.0)
    write(path, lines("b", time=160.0), now=159.0)
    gap = Gap(
        after=7,
        before=1,
        since=100.0,
        until=159.0,
        reason="nothing was recorded: the journal was opened again",
    )

    assert ["a", gap, "b"] == items(path)


def test_where_nothing_was_recorded_there_is_no_gap(tmp_path):
    path = tmp_path / "feed"
    for _ in range(3):
        write(path, [], lines("a") if _ == 2 else [])

    assert ["a"] == items(path)


def test_a_head_that_has_no_room_begins_a_file(tmp_path):
    path = tmp_path / "feed"
    head = len(encode_head(Head(100.0, True)))
    fitting = "x" * (LIMIT - head - len(encode(record(""))))
    write(path, lines(fitting))

    assert LIMIT == path.stat().st_size
    write(path, lines("b"))
    first, gap, second = items(path)

    assert (fitting, Gap, "b") == (first, type(gap), second)


@pytest.mark.parametrize("content", [b"mine\n", b"\nmine", b"mine", b'{"journal":2,"time":1}\n'])
def test_a_file_that_is_no_journal_is_neither_written_nor_cut(tmp_path, content):
    path = tmp_path / "feed"
    path.write_bytes(content)
    path.chmod(0o644)
    mode = path.stat().st_mode
    with pytest.raises(NoJournal, match="no journal"):
        write(path, lines("a"))

    assert mode == path.stat().st_mode
    with pytest.raises(ValueError, match="no journal"):
        items(path)

    assert content == path.read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes in its file system")
def test_what_is_no_file_is_left_as_it_is(tmp_path):
    # As root, /dev/null would be nobody else's from then on.
    path = tmp_path / "feed"
    os.mkfifo(path, 0o644)
    mode = path.stat().st_mode
    with pytest.raises(NoJournal, match="no journal"):
        write(path, lines("a"))

    assert mode == path.stat().st_mode


@pytest.mark.skipif(_records._fcntl is None, reason="needs flock")
def test_a_second_writer_is_refused_while_the_first_one_writes(tmp_path):
    path = tmp_path / "feed"
    first = JournalFiles(str(path), LIMIT, 3)
    first.write(lines("a"), 100.0)
    with pytest.raises(BlockingIOError, match="another channel or program"):
        write(path, lines("b"))
    first.close()
    first.close()
    write(path, lines("c"))

    assert ["a", "c"] == [item for item in items(path) if isinstance(item, str)]


@pytest.mark.skipif(_records._fcntl is None, reason="needs flock")
@pytest.mark.parametrize("begins_anew", [False, True])
def test_a_second_writer_is_refused_while_the_first_one_puts_its_file_aside(
    tmp_path, monkeypatch, begins_anew
):
    path = tmp_path / "feed"
    write(path, lines("a"))
    real = _records._fcntl.flock

    def flock(file, operation):
        # Between the opening and the lock, which the first one has let go of.
        monkeypatch.setattr(_records._fcntl, "flock", real)
        os.replace(path, tmp_path / "feed.1")
        if begins_anew:
            write(path, lines("b"))
        real(file, operation)

    monkeypatch.setattr(_records._fcntl, "flock", flock)
    with pytest.raises(BlockingIOError, match="another channel or program"):
        write(path, lines("c"))
    write(path, lines("d"))

    found = [item for item in items(path) if isinstance(item, str)]
    assert (["a", "b", "d"] if begins_anew else ["a", "d"]) == found


def test_where_there_are_no_locks_and_no_modes_it_writes_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(_records, "_fcntl", None)
    monkeypatch.delattr(os, "fchmod", raising=False)
    write(tmp_path / "feed", lines("a"))

    assert ["a"] == items(tmp_path / "feed")


@pytest.mark.parametrize("room", [0, 1, 10, 80, 130])
def test_after_a_full_disk_it_goes_on_without_a_loss(tmp_path, monkeypatch, room):
    path = tmp_path / "feed"
    writer = JournalFiles(str(path), LIMIT, 3)
    writer.write(lines("a"), 100.0)
    left = [room]
    real = os.write

    def full(file, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(file, data[: left[0]])
        left[0] -= written
        return written

    waiting = lines("b", "c", "d", "e")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                writer.write(waiting, 100.0)
    # Half a line is there, and no reader minds it.
    assert list("abcde")[: 5 - len(waiting)] == items(path)
    writer.write(waiting, 100.0)
    writer.close()

    assert list("abcde") == items(path)


# --- reading ------------------------------------------------------------------------------------


def test_a_file_that_is_cut_anywhere_gives_what_was_whole(tmp_path):
    path = tmp_path / "feed"
    write(path, lines("a", b"bb", GAP, "d"))
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)

        assert ["a", b"bb", GAP, "d"][: max(0, complete - 1)] == items(path), cut


def test_a_writer_cuts_off_a_torn_end_of_any_length(tmp_path):
    path = tmp_path / "feed"
    write(path, lines("a"))
    whole = path.read_bytes()
    for torn in (b"{", b"x" * 70_000, b'{"time":1,"epoch":1,"text":"'):
        path.write_bytes(whole + torn)
        write(path, lines("b"), max_size=10**6)

        assert ["a", "b"] == [item for item in items(path) if isinstance(item, str)]
        assert whole + encode_head(Head(100.0, True)) + lines("b")[0] == path.read_bytes()


def test_a_head_that_is_torn_is_written_anew(tmp_path):
    path = tmp_path / "feed"
    for torn in (b"{", b'{"journal":1,"ti'):
        path.write_bytes(torn)
        write(path, lines("a"))

        assert ["a"] == items(path)


def test_a_line_that_was_damaged_is_told(tmp_path):
    path = tmp_path / "feed"
    write(path, lines("a", "b", "c"))
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"b'))

    assert ["a", Overflow(1), "c"] == items(path)
    assert [100.0] * 3 == [found.time for found in read_records(str(path))]


def test_a_journal_is_read_while_it_is_put_aside(tmp_path, monkeypatch):
    path = tmp_path / "feed"
    writer = JournalFiles(str(path), LIMIT, 5)
    texts = [str(number) * 3500 for number in range(3)]
    for line in lines(*texts):
        writer.write([line], 100.0)
    real = _records._numbers

    def rotating(path, first):
        # Between the newest and the next one.
        writer.write(lines("x" * 3500), 100.0)
        yield from real(path, first)

    monkeypatch.setattr(_records, "_numbers", rotating)
    found = items(path)
    writer.close()

    assert texts == found


def test_a_journal_is_read_whole_at_every_step_of_putting_it_aside(tmp_path, monkeypatch):
    # Also where a process has died at that step.
    path = tmp_path / "feed"
    texts = [str(number) * 3500 for number in range(3)]
    write(path, *[[line] for line in lines(*texts)], files=5)
    real = os.replace
    found = []

    def replace(old, new):
        real(old, new)
        found.append([item for item in items(path) if isinstance(item, str)])

    monkeypatch.setattr(os, "replace", replace)
    write(path, lines("x" * 3500), files=5)

    assert [texts] * 3 == found


def test_a_file_that_is_put_aside_just_as_it_is_opened_is_read(tmp_path, monkeypatch):
    path = tmp_path / "feed"
    texts = [str(number) * 3500 for number in range(2)]
    write(path, *[[line] for line in lines(*texts)])

    def exists(name, real=os.path.exists):
        found = real(name)
        if found and name.endswith(".1"):
            os.replace(name, f"{path}.2")
        return found

    monkeypatch.setattr(os.path, "exists", exists)

    assert texts == items(path)


def test_where_there_is_no_journal_there_is_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        items(tmp_path / "feed")
