"""The files of a journal: what stands in them, how they are bounded, and how a torn one is read.

A record is a line of JSON, so that other programs can read it too: ``time`` (Unix time), ``epoch``,
and one of ``text``, ``base64``, ``gap`` and ``lost``.  Each file begins with a head, which says
that it is a journal.

- *Bounded.*  A file that would become too large is put aside: ``path`` becomes ``path.1``, that one
  ``path.2``, and the oldest is removed.  Of a record that is larger than a file may be, it is
  written that one is missing.
- *Torn.*  A process that dies while it writes leaves half a line at the end.  A reader ignores what
  has no end of line; a writer cuts it off before it goes on.
- *Never somebody else's.*  A file that does not begin as a journal does is neither cut nor written,
  and keeps its mode.
- *One writer.*  The file is locked for as long as it is open, where the system can (``flock``).
"""

from __future__ import annotations

import base64
import errno
import importlib.util
import itertools
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, Final

import attrs

from wsclient.events import Gap, Overflow

# Windows has none.
_fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

VERSION: Final = 1

_BEGINNING: Final = b'{"journal":%d,' % VERSION
_MODE: Final = 0o600
_BLOCK: Final = 65_536


@attrs.frozen(kw_only=True)
class JournalRecord:
    """What was received at one moment, or what is missing there."""

    time: float
    """When (Unix time, seconds)."""
    epoch: int
    """The connection that it came on, numbered from 1; of a gap, the one behind it."""
    item: str | bytes | Gap | Overflow
    """A message; a :class:`Gap`, also for the time between two runs of a program; or an
    :class:`Overflow` for messages that could not be recorded."""


@attrs.frozen
class Head:
    """The first line of a file, and what a writer begins with."""

    time: float
    is_opened: bool
    """Whether a writer began; a file that continues another one has a head as well."""


class NoJournal(OSError):
    """A file is not a journal."""


# --- lines ----------------------------------------------------------------------------------------


def encode_head(head: Head) -> bytes:
    """The line of a head."""
    return _line({"journal": VERSION, "time": round(head.time, 6), "opened": head.is_opened})


def encode(record: JournalRecord) -> bytes:
    """The line of a record."""
    values: dict[str, Any] = {"time": round(record.time, 6), "epoch": record.epoch}
    match record.item:
        case str() as text:
            values["text"] = text
        case bytes() as data:
            values["base64"] = base64.b64encode(data).decode("ascii")
        case Gap() as gap:
            values["gap"] = {
                name: _plain(value)
                for name, value in attrs.asdict(gap, recurse=False).items()
                if value is not None
            }
        case overflow:
            values["lost"] = overflow.messages
    return _line(values)


def decode(line: bytes) -> JournalRecord | Head:
    """What a line holds.

    Raises:
        ValueError: It is not a journal's.
    """
    try:
        values = json.loads(line)
        if "journal" in values:
            if values["journal"] != VERSION:
                raise ValueError(f"a journal of version {values['journal']}")
            return Head(_time(values), bool(values["opened"]))
        return JournalRecord(
            time=_time(values),
            epoch=int(values["epoch"]),
            item=_item(values),
        )
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("no line of a journal") from error


def _time(values: dict[str, Any]) -> float:
    time = float(values["time"])
    if not math.isfinite(time):
        raise ValueError("no time")
    return time


def _item(values: dict[str, Any]) -> str | bytes | Gap | Overflow:
    if "text" in values:
        return str(values["text"])
    if "base64" in values:
        return base64.b64decode(values["base64"], validate=True)
    if "gap" in values:
        return Gap(**values["gap"])
    return Overflow(int(values["lost"]))


def _plain(value: Any) -> Any:
    """A key or a position of the user's: what JSON has no word for becomes a text."""
    if isinstance(value, (str, float)):
        return value
    try:
        text = str(value)
    except Exception:  # A user's; or an int of thousands of digits, which a server has sent.
        return f"<{type(value).__name__}>"
    return value if isinstance(value, int) else text


def _line(values: dict[str, Any]) -> bytes:
    # ASCII: no terminal takes a message that is shown for a command.
    return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


# --- writing --------------------------------------------------------------------------------------


class JournalFiles:
    """Writes lines into files that are bounded together.

    Its methods wait for the disk, and are called in one thread at a time.
    What fails is raised as it is; the next call begins anew.

    Args:
        path: The file that is written.
        max_size: Bytes of each file.
        files: How many there are, at most.
    """

    def __init__(self, path: str, max_size: int, files: int) -> None:
        self._path = path
        self._max_size = max_size
        self._files = files
        self._file: int | None = None
        self._size = 0
        self._was_opened = False

    def write(self, lines: list[bytes], now: float) -> None:
        """Write ``lines``, and take each from the list that is in the file.

        Raises:
            OSError: Those that are still in the list were not written.
        """
        try:
            while lines:
                if self._file is None:
                    self._open(now)
                room = self._max_size - self._size
                count = _fitting(lines, room)
                if count:
                    self._append(lines, count)
                elif len(lines[0]) > self._max_size - len(encode_head(Head(now, False))):
                    lines[0] = _missing(lines[0])
                else:
                    self._rotate(now)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def _open(self, now: float) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        self._file = file = os.open(self._path, flags | getattr(os, "O_BINARY", 0), _MODE)
        _lock(file, self._path)
        status = os.fstat(file)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise _no_journal(self._path)
        if size:
            _check(file, self._path)
        # Not before: it may be somebody else's.
        if hasattr(os, "fchmod"):
            os.fchmod(file, _MODE)
        if size:
            size = _cut_torn_end(file, size)
        self._size = size
        if not self._was_opened:
            for number in _numbers(self._path, self._files):
                os.remove(_numbered(self._path, number))
            head = encode_head(Head(now, True))
            if self._size + len(head) > self._max_size:
                self._put_aside()
                self._open(now)
                return
            self._append([head], 1)
            self._was_opened = True
        elif not size:
            self._append([encode_head(Head(now, False))], 1)

    def _append(self, lines: list[bytes], count: int) -> None:
        assert self._file is not None
        data = memoryview(b"".join(lines[:count]))
        ends = 0
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        finally:
            self._size += written
            # A line that is torn is cut off when the file is opened again.
            done = 0
            while done < count and ends + len(lines[done]) <= written:
                ends += len(lines[done])
                done += 1
            del lines[:done]

    def _rotate(self, now: float) -> None:
        self._put_aside()
        self._open(now)

    def _put_aside(self) -> None:
        self.close()
        for number in range(self._files - 1, 0, -1):
            older = _numbered(self._path, number)
            newer = _numbered(self._path, number - 1)
            if os.path.exists(newer):
                os.replace(newer, older)
        if self._files == 1:
            os.remove(self._path)


def _missing(line: bytes) -> bytes:
    """What stands where a line has no room."""
    found = decode(line)
    assert isinstance(found, JournalRecord)
    return encode(attrs.evolve(found, item=Overflow(1)))


def _fitting(lines: list[bytes], room: int) -> int:
    """How many of the first lines have room."""
    for count, line in enumerate(lines):
        room -= len(line)
        if room < 0:
            return count
    return len(lines)


def _lock(file: int, path: str) -> None:
    if _fcntl is not None:
        try:
            _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(path) from None
        # Whoever had the lock may have let go of it to put the file aside, after we had opened it.
        if not _is_at(file, path):
            raise _busy(path)


def _busy(path: str) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "another channel or program writes to it", path)


def _is_at(file: int, path: str) -> bool:
    """Whether ``path`` still names the file."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _check(file: int, path: str) -> None:
    """Raise if a file with something in it does not begin as a journal does."""
    os.lseek(file, 0, os.SEEK_SET)
    data = os.read(file, 200)
    line, end, _ = data.partition(b"\n")
    is_torn = not end and (data.startswith(_BEGINNING) or _BEGINNING.startswith(data))
    if not _is_head(line) and not is_torn:
        raise _no_journal(path)


def _no_journal(path: str) -> NoJournal:
    return NoJournal(None, "the file is no journal, or one of a later version", path)


def _is_head(line: bytes) -> bool:
    try:
        return isinstance(decode(line), Head)
    except ValueError:
        return False


def _cut_torn_end(file: int, size: int) -> int:
    """Cut off what stands behind the last end of line; return what is left."""
    end = size
    while end:
        begin = max(0, end - _BLOCK)
        os.lseek(file, begin, os.SEEK_SET)
        last = os.read(file, end - begin).rfind(b"\n")
        if last >= 0:
            end = begin + last + 1
            break
        end = begin
    if end < size:
        os.ftruncate(file, end)
    return end


def _numbered(path: str, number: int) -> str:
    return f"{path}.{number}" if number else path


def _numbers(path: str, first: int) -> Iterator[int]:
    """The numbers, from ``first`` on, of the files that there are.

    One is missing among them while they are put aside, or where a process has died of that.
    """
    number, missing = first, 0
    while missing < 2:
        if os.path.exists(_numbered(path, number)):
            missing = 0
            yield number
        else:
            missing += 1
        number += 1


# --- reading --------------------------------------------------------------------------------------


def read_records(path: str) -> Iterator[JournalRecord]:
    """What the files of a journal hold, the oldest first; also while it is written.

    Raises:
        FileNotFoundError: There is none.
        ValueError: A file is no journal, or one of a later version.
        OSError: A file cannot be read.
    """
    with ExitStack() as opened:
        # The newest first: one that is put aside meanwhile is there twice, and not never.
        files: dict[int, BinaryIO] = {}
        for number in itertools.chain((0,), _numbers(path, 1)):
            try:
                file = opened.enter_context(open(_numbered(path, number), "rb"))
            except FileNotFoundError:
                continue  # It was put aside, and comes next.
            files.setdefault(os.fstat(file.fileno()).st_ino, file)
            try:
                _check(file.fileno(), file.name)
            except NoJournal as error:
                raise ValueError(f"{error.filename}: {error.strerror}") from None
            file.seek(0)
        if not files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        yield from _join(line for file in reversed(files.values()) for line in _lines(file))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    for line in file:
        if line.endswith(b"\n"):
            yield line


def _join(lines: Iterable[bytes]) -> Iterator[JournalRecord]:
    time, epoch, is_begun = 0.0, 0, False
    for line in lines:
        try:
            found = decode(line)
        except ValueError:
            # Damaged, by whatever: a line is a message, most likely.
            yield JournalRecord(time=time, epoch=epoch, item=Overflow(1))
            continue
        if isinstance(found, JournalRecord):
            yield found
            epoch, is_begun = found.epoch, True
        elif found.is_opened and is_begun:
            gap = Gap(
                after=epoch,
                before=1,
                since=time,
                until=found.time,
                reason="nothing was recorded: the journal was opened again",
            )
            yield JournalRecord(time=found.time, epoch=epoch, item=gap)
            epoch, is_begun = 0, False
        time = found.time
