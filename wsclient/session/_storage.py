"""The outbox on disk: SQLite, in a way that a crash cannot undo.

What is promised is small: when :meth:`Storage.commit` has returned, its changes survive the end of
the process and of the machine; when it has raised, none of them took place.  (A commit whose
``fsync`` failed may be on the disk all the same.  The next one writes over it; a crash before that
brings it back.)  How:

- **A write-ahead log, ``synchronous=FULL``**: one commit is one ``fsync``, however many changes it
  holds (sqlite.org/wal.html).  A log that ends inside a commit ends before it.
- **One owner.**  ``locking_mode=EXCLUSIVE`` locks the file for as long as it is open.  It is the
  kernel's lock, so ``kill -9`` releases it; it counts between two channels of one process, too; and
  SQLite needs no shared memory and no ``-shm`` file for it.  The price: no other program can look
  into the file meanwhile.
- **Nobody else reads it**: the file is made with mode 0600, and SQLite gives its log the same.
- **A seal on each message.**  SQLite notices damage to its structure and not to what is in it, and
  a changed message must not be sent.  So each row has a checksum, to which its attempts are added,
  so that marking a message needs not read it.

Removed messages leave their room to later ones: the file is as large as the outbox once was, and a
removed message's bytes stay until they are written over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import attrs
import trio

from wsclient.errors import (
    OutboxCorrupt,
    OutboxDiskFull,
    OutboxError,
    OutboxIncompatible,
    OutboxIOError,
    OutboxLocked,
)
from wsclient.events import Delivery
from wsclient.options import file_path

from ._clock import WallClock, wall_clock

RunSync: TypeAlias = Callable[..., Awaitable[Any]]
"""``trio.to_thread.run_sync``, or what takes its place where time is virtual."""


@attrs.frozen(kw_only=True)
class Stored:
    """One message on disk."""

    id: str
    """Stable over restarts, and unique within the outbox."""
    message: str | bytes
    delivery: Delivery
    key: str | None = None
    """What it conflates by."""
    expires_at: float | None = None
    """Unix time in seconds; ``None`` for never."""
    attempts: int = 0
    """Writes that were begun, as far as they were marked."""

    @property
    def begun(self) -> bool:
        """Whether a byte of it may have been written."""
        return self.attempts > 0


@attrs.frozen
class Add:
    """A message was accepted."""

    stored: Stored


@attrs.frozen
class Mark:
    """A message is about to be written."""

    id: str


@attrs.frozen
class Unmark:
    """It was not written after all, though it was marked."""

    id: str


@attrs.frozen
class Remove:
    """A message has its outcome."""

    id: str


Change: TypeAlias = Add | Mark | Unmark | Remove


class Storage(Protocol):
    """Where an outbox keeps its messages.

    Its methods may wait for a disk, and are called in one thread at a time.
    """

    @property
    def run_sync(self) -> RunSync:
        """What calls them, so that nobody else waits."""
        ...

    @property
    def now(self) -> WallClock:
        """The clock of :attr:`Stored.expires_at`: one that the next process has, too."""
        ...

    def open(self) -> list[Stored]:
        """The messages that are there, in the order in which they were added.

        Raises:
            OutboxError: They cannot be had.
        """
        ...

    def commit(self, changes: Sequence[Change]) -> None:
        """Make changes, all or none, so that they survive a crash.

        Raises:
            OutboxError: None of them took place; after ``OutboxIOError`` a crash before the next
                commit may bring them back.
        """
        ...

    def close(self) -> None:
        """Let go of the disk; does nothing if there is nothing to let go of."""
        ...


@attrs.frozen
class SqliteOutbox:
    """Keeps a channel's outbox in a file, so that what was accepted survives a crash.

    One channel at a time has it: :class:`~wsclient.OutboxLocked` is raised to a second one, in
    whichever process.
    """

    path: str = attrs.field(converter=file_path)
    """The file; made with mode 0600 where there is none, in a folder that exists.

    It needs a file system of this machine: locks and ``fsync`` over a network promise less.
    """

    def storage(self) -> Storage:
        """What keeps the messages; opened by whoever asked."""
        return SqliteStorage(self.path)


_APPLICATION_ID: Final = 0x77736F62
"""Says whose file it is (PRAGMA application_id): "wsob"."""

_VERSION: Final = 1
"""The schema's (PRAGMA user_version)."""

# No column converts what it is given: what is sealed must come back as it was.
_SCHEMA: Final = """
CREATE TABLE message (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    is_text INTEGER NOT NULL,
    delivery TEXT NOT NULL,
    key TEXT,
    expires_at,
    payload BLOB NOT NULL,
    attempts INTEGER NOT NULL,
    seal INTEGER NOT NULL
)
"""
_ADD: Final = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_MARK: Final = "UPDATE message SET attempts = attempts + 1, seal = seal + 1 WHERE seq = ?"
_UNMARK: Final = "UPDATE message SET attempts = attempts - 1, seal = seal - 1 WHERE seq = ?"
_REMOVE: Final = "DELETE FROM message WHERE seq = ?"
_ALL: Final = "SELECT * FROM message ORDER BY seq"


class SqliteStorage:
    """The file of a :class:`SqliteOutbox`."""

    def __init__(self, path: str) -> None:
        self.run_sync: RunSync = trio.to_thread.run_sync
        self.now: WallClock = wall_clock
        self._path = os.path.realpath(path)
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._rows: dict[str, int] = {}
        """The numbers of the messages by their ids; the file needs no second index."""
        self._last = 0
        """The last number given."""

    def open(self) -> list[Stored]:
        """Lock the file, check it, and read what it holds; see :class:`Storage`."""
        with self._typed_errors():
            self._inode = _make(self._path)
            # `mode=rw`: only we make the file, with our mode.  The threads that use the connection
            # are many, one after the other.
            connection = sqlite3.connect(
                f"{Path(self._path).as_uri()}?mode=rw",
                uri=True,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                stored = self._prepare(connection)
                # Not before: it may be somebody else's.
                _make_private(self._path)
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        return stored

    def _prepare(self, connection: sqlite3.Connection) -> list[Stored]:
        # TEXT comes as bytes: SQLite does not promise that it is UTF-8.
        connection.text_factory = bytes

        def ask(pragma: str) -> Any:
            return connection.execute(f"PRAGMA {pragma}").fetchone()[0]

        # Before the first access, or there is shared memory.
        ask("locking_mode = EXCLUSIVE")
        is_new = self._is_new(connection, ask)
        if (mode := ask("journal_mode = WAL")) != b"wal":
            raise OutboxIOError(f"{self._path}: no write-ahead log is possible, only {mode!r}")
        connection.execute("PRAGMA synchronous = FULL")
        # macOS: `fsync` alone leaves the data in the disk's own cache.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        # Now rather than at the first message: a file that cannot be written.
        connection.execute("BEGIN IMMEDIATE")
        if is_new:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
        if (found := ask("quick_check(1)")) != b"ok":
            raise self._corrupt(found.decode(errors="replace"))
        self._rows, self._last = {}, 0
        stored = []
        for row in connection.execute(_ALL):
            try:
                message = _unsealed(row)
            except (TypeError, ValueError, AttributeError):
                message = None
            if message is None or message.id in self._rows:
                raise self._corrupt(f"message {row[0]} is not as it was written")
            self._last = self._rows[message.id] = row[0]
            stored.append(message)
        return stored

    def _is_new(self, connection: sqlite3.Connection, ask: Any) -> bool:
        """Whether the file is still empty; raises if it is no outbox, or one of a later version."""
        owner, version = ask("application_id"), ask("user_version")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (owner, version, tables) == (0, 0, 0):
            return True
        if owner != _APPLICATION_ID:
            raise OutboxIncompatible(f"{self._path}: this database is another program's")
        if version != _VERSION:
            raise OutboxIncompatible(
                f"{self._path}: this outbox is of version {version}, and {_VERSION} is known here"
            )
        return False

    def _corrupt(self, what: str) -> OutboxCorrupt:
        return OutboxCorrupt(f"{self._path}: the outbox is damaged: {what}")

    def commit(self, changes: Sequence[Change]) -> None:
        """One transaction, one ``fsync``; see :class:`Storage`.

        Raises:
            ValueError: A message is added twice.
            KeyError: A message is marked or removed that is not there.
        """
        with self._typed_errors():
            # A file that was deleted can be written for long, and is found by nobody.
            if os.stat(self._path).st_ino != self._inode:
                raise OutboxIOError(f"{self._path}: the file was replaced by another")
            try:
                self._transact(changes)
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_FULL:
                    raise
                # The log cannot grow.  What it holds may have room in the file, and then the log
                # begins anew in the room that it has.
                self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
                self._transact(changes)

    @property
    def _database(self) -> sqlite3.Connection:
        assert self._connection is not None, "the storage is not open"
        return self._connection

    def _transact(self, changes: Sequence[Change]) -> None:
        execute = self._database.execute
        added: dict[str, int] = {}
        removed = []
        execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                if isinstance(change, Add):
                    stored = change.stored
                    if stored.id in added or stored.id in self._rows:
                        raise ValueError(f"message {stored.id!r} is there already")
                    seq = added[stored.id] = self._last + len(added) + 1
                    execute(_ADD, _sealed(seq, stored))
                    continue
                seq = added.get(change.id) or self._rows[change.id]
                if isinstance(change, Mark):
                    execute(_MARK, (seq,))
                elif isinstance(change, Unmark):
                    execute(_UNMARK, (seq,))
                else:
                    execute(_REMOVE, (seq,))
                    removed.append(change.id)
            execute("COMMIT")
        except BaseException:
            # Some errors of SQLite have rolled it back already.
            if self._database.in_transaction:
                execute("ROLLBACK")
            raise
        self._last += len(added)
        self._rows |= added
        for id in removed:
            del self._rows[id]

    def close(self) -> None:
        """Move the log into the file and release the lock; see :class:`Storage`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._typed_errors():
                connection.close()

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind, what = _kind(_primary_code(error))
            raise kind(f"{self._path}: {what}: {error}") from error
        except OSError as error:
            kind, what = _kind(
                sqlite3.SQLITE_FULL
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else sqlite3.SQLITE_IOERR
            )
            raise kind(f"{self._path}: {what}: {error.strerror}") from error


def _make(path: str) -> int:
    """Make the file unless it is there, for its owner only; return its inode.

    It is never opened where it is there: closing it again would release the lock that another
    channel of this process has on it (POSIX).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    return os.stat(path).st_ino


def _make_private(path: str) -> None:
    """Let its owner alone read a file that was there."""
    for file in (path, f"{path}-wal"):
        with contextlib.suppress(FileNotFoundError):
            if os.stat(file).st_mode & 0o077:
                os.chmod(file, 0o600)


def _primary_code(error: sqlite3.Error) -> int:
    # The low byte is the primary code (sqlite.org/rescode.html).
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _kind(code: int) -> tuple[type[OutboxError], str]:
    match code:
        case sqlite3.SQLITE_FULL:
            return OutboxDiskFull, "the disk is full"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return OutboxLocked, "another channel or process has this outbox open"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return OutboxCorrupt, "the outbox is damaged"
        case _:
            return OutboxIOError, "the outbox cannot be used"


def _sealed(seq: int, stored: Stored) -> tuple[Any, ...]:
    """A message as a row."""
    is_text = isinstance(stored.message, str)
    payload = stored.message.encode() if isinstance(stored.message, str) else stored.message
    head = (seq, stored.id, is_text, stored.delivery.value, stored.key, stored.expires_at)
    seal = zlib.crc32(payload, zlib.crc32(repr(head).encode())) + stored.attempts
    return (*head, payload, stored.attempts, seal)


def _unsealed(row: tuple[Any, ...]) -> Stored | None:
    """A row as a message; ``None``, or what a wrong type or value raises, if it was changed."""
    seq, id, is_text, delivery, key, expires_at, payload, attempts, seal = row
    stored = Stored(
        id=id.decode(),
        message=payload.decode() if is_text else payload,
        delivery=Delivery(delivery.decode()),
        key=None if key is None else key.decode(),
        expires_at=expires_at,
        attempts=attempts,
    )
    return stored if _sealed(seq, stored)[-1] == seal else None
