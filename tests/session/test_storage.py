"""The outbox on disk: what a commit promises, and what becomes of it when the disk does not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap

import attrs
import pytest

from wsclient import errors
from wsclient.events import Delivery
from wsclient.session._storage import (
    _ADD,
    Add,
    Mark,
    Remove,
    SqliteOutbox,
    SqliteStorage,
    Stored,
    Unmark,
    _sealed,
)

ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


def message(id, text="hello", **more):
    return Stored(id=id, message=text, delivery=Delivery.QUEUED, **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out?box #1.db"


@pytest.fixture
def opened(path):
    """Opens the storage at ``path``, or at another; all are closed in the end."""
    with contextlib.ExitStack() as stack:

        def opened(at=path):
            storage = SqliteOutbox(at).storage()
            stack.callback(storage.close)
            return storage, storage.open()

        yield opened


def reopen(path):
    storage = SqliteStorage(str(path))
    try:
        return storage.open()
    finally:
        storage.close()


def ids(path):
    return [stored.id for stored in reopen(path)]


def python(code, *args, prefix=(), check=True):
    """Run a program in a process of its own; return what it printed as JSON."""
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


# --- what is kept -------------------------------------------------------------------------------


def test_what_was_committed_is_there_after_closing_in_order_of_acceptance(opened, path):
    stored = [
        message("a", "größe\0\U0001f600"),
        message("b", b"\x00\xff", key="k", expires_at=12.5),
        message("0", "", expires_at=7),
        message("c", b"", key="", attempts=3),
    ]
    storage, found = opened()
    storage.commit([Add(one) for one in stored[:2]])
    storage.commit([Add(one) for one in stored[2:]])
    storage.close()

    assert [] == found
    assert stored == reopen(path)


def test_types_of_messages_survive(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("t", "same")), Add(message("b", b"same"))])
    storage.close()

    assert ["same", b"same"] == [stored.message for stored in reopen(path)]


def test_s1_9_a_mark_is_kept_and_counted(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a")), Mark("a"), Add(message("b"))])
    storage.commit([Mark("a")])
    storage.close()

    assert [("a", 2, True), ("b", 0, False)] == [
        (stored.id, stored.attempts, stored.begun) for stored in reopen(path)
    ]


def test_s1_9_a_mark_can_be_taken_back(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a", attempts=1)), Add(message("b")), Mark("b"), Mark("b")])
    storage.commit([Unmark("a"), Unmark("b")])
    storage.close()

    assert [("a", 0, False), ("b", 1, True)] == [
        (stored.id, stored.attempts, stored.begun) for stored in reopen(path)
    ]


def test_what_was_removed_is_gone(opened, path):
    storage, _ = opened()
    storage.commit([Add(message(id)) for id in "abc"])
    storage.commit([Remove("b"), Add(message("d")), Remove("d")])
    storage.close()

    assert ["a", "c"] == ids(path)


def test_order_survives_a_restart_at_which_the_last_ones_were_removed(opened, path):
    storage, _ = opened()
    storage.commit([Add(message(id)) for id in "abc"])
    storage.commit([Remove("c"), Remove("a")])
    storage.close()
    storage, found = opened()
    storage.commit([Add(message("a"))])
    storage.close()

    assert ["b"] == [stored.id for stored in found]
    assert ["b", "a"] == ids(path)


def test_a_restored_message_can_be_marked_and_removed(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a")), Add(message("b"))])
    storage.close()
    storage, _ = opened()
    storage.commit([Mark("b"), Remove("a")])
    storage.close()

    assert [message("b", attempts=1)] == reopen(path)


@pytest.mark.parametrize(
    ("change", "error"),
    [(Add(message("a")), ValueError), (Mark("x"), KeyError), (Remove("x"), KeyError)],
)
def test_a_change_that_cannot_be_made_undoes_its_whole_commit(change, error, opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a"))])
    with pytest.raises(error):
        storage.commit([Remove("a"), Add(message("b")), change])
    # The storage goes on as if nothing had been asked.
    storage.commit([Mark("a"), Add(message("c"))])
    storage.close()

    assert ["a", "c"] == ids(path)


def test_an_id_is_accepted_once_within_a_commit(opened):
    storage, _ = opened()

    with pytest.raises(ValueError, match="'a' is there already"):
        storage.commit([Add(message("a")), Add(message("a"))])


def test_closing_twice_or_unopened_does_nothing(path):
    storage = SqliteStorage(str(path))
    storage.close()
    storage.open()
    storage.close()
    storage.close()

    assert ["out?box #1.db"] == [file.name for file in path.parent.iterdir()]


def test_a_storage_can_be_opened_again(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a"))])
    storage.close()

    assert [message("a")] == storage.open()
    storage.commit([Add(message("b"))])
    storage.close()

    assert ["a", "b"] == ids(path)


def test_removed_messages_leave_their_room_to_later_ones(opened, path):
    storage, _ = opened()
    for turn in range(50):
        storage.commit([Add(message(str(number), "x" * 1000)) for number in range(100)])
        storage.commit([Remove(str(number)) for number in range(100)])
        if turn == 1:
            storage.close()
            size = path.stat().st_size
            storage.open()
    storage.close()

    assert size * 1.1 >= path.stat().st_size


# --- the handle ---------------------------------------------------------------------------------


def test_a_path_may_be_a_string_or_a_path(tmp_path):
    assert SqliteOutbox(str(tmp_path / "a")) == SqliteOutbox(tmp_path / "a")


@pytest.mark.parametrize(
    ("given", "error"),
    [(None, TypeError), (3, TypeError), (b"a", TypeError), ("", ValueError), ("a\0b", ValueError)],
)
def test_a_path_that_cannot_be_is_refused_where_it_is_given(given, error):
    class OfBytes:
        def __fspath__(self):
            return given

    for path in (given, OfBytes()) if given == b"a" else (given,):
        with pytest.raises(error, match="path must"):
            SqliteOutbox(path)


# --- nobody else --------------------------------------------------------------------------------


@ON_POSIX
def test_s1_9_the_files_are_their_owners_alone_whatever_the_umask(opened, path, monkeypatch):
    # From their first moment: nothing is put right later.
    monkeypatch.setattr(os, "chmod", None)
    umask = os.umask(0)
    try:
        storage, _ = opened()
        storage.commit([Add(message("a"))])
    finally:
        os.umask(umask)
    modes = {
        file.name.removeprefix(path.name): stat.S_IMODE(file.stat().st_mode)
        for file in path.parent.iterdir()
    }

    assert {"": 0o600, "-wal": 0o600} == modes


@ON_POSIX
def test_a_file_that_others_can_read_is_made_private(opened, path):
    storage, _ = opened()
    storage.close()
    path.chmod(0o644)
    opened()

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


@ON_POSIX
@pytest.mark.parametrize("theirs", ["database", "file", "folder"])
def test_what_is_no_outbox_keeps_its_mode(path, theirs):
    # Of a folder without "x" nobody gets anything any more.
    if theirs == "database":
        other_database(path, "CREATE TABLE theirs (a)")
    elif theirs == "file":
        path.write_text("dear diary, " * 100)
    else:
        path.mkdir()
    path.chmod(0o755)
    with pytest.raises(errors.OutboxError):
        reopen(path)

    assert 0o755 == stat.S_IMODE(path.stat().st_mode)


@ON_POSIX
def test_a_link_is_followed_and_its_target_is_private(opened, tmp_path):
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    umask = os.umask(0)
    try:
        opened(link)
    finally:
        os.umask(umask)

    assert 0o600 == stat.S_IMODE(target.stat().st_mode)


def test_a_second_channel_of_this_process_is_told_at_once_and_the_first_goes_on(opened, path):
    storage, _ = opened()
    for _ in range(2):
        # Twice: the attempt itself must not release the first one's lock.
        with pytest.raises(errors.OutboxLocked, match="another channel or process"):
            opened()
    storage.commit([Add(message("a"))])
    storage.close()

    assert ["a"] == ids(path)


TRY_TO_OPEN = """
    import json, sys
    from wsclient.errors import OutboxError
    from wsclient.session._storage import SqliteOutbox
    storage = SqliteOutbox(sys.argv[1]).storage()
    try:
        print(json.dumps([stored.id for stored in storage.open()]))
        storage.close()
    except OutboxError as error:
        print(json.dumps(type(error).__name__))
"""


def test_a_second_process_is_told_at_once(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a"))])
    with contextlib.suppress(errors.OutboxLocked):
        opened()
    locked = python(TRY_TO_OPEN, path)
    storage.close()

    assert "OutboxLocked" == locked
    assert ["a"] == python(TRY_TO_OPEN, path)


def test_kill_9_releases_the_lock_and_keeps_what_was_committed(path):
    code = """
        import sys
        from wsclient.events import Delivery
        from wsclient.session._storage import Add, SqliteOutbox, Stored
        storage = SqliteOutbox(sys.argv[1]).storage()
        storage.open()
        storage.commit([Add(Stored(id="a", message="hello", delivery=Delivery.QUEUED))])
        print("committed", flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert "committed\n" == process.stdout.readline()
        with pytest.raises(errors.OutboxLocked):
            reopen(path)
        process.kill()

    assert [message("a")] == reopen(path)


# --- what is not an outbox, or no more ----------------------------------------------------------


def other_database(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE theirs (a)"],
        ["PRAGMA application_id = 7"],
        ["PRAGMA user_version = 1"],
        ["CREATE TABLE message (seq)", "PRAGMA user_version = 1"],
    ],
)
def test_a_database_of_another_program_is_refused_and_left_alone(statements, path):
    other_database(path, *statements)
    before = path.read_bytes()
    with pytest.raises(errors.OutboxIncompatible, match="another program's"):
        reopen(path)

    assert before == path.read_bytes()


def test_an_outbox_of_a_later_version_is_refused_and_left_alone(opened, path):
    storage, _ = opened()
    storage.close()
    other_database(path, "PRAGMA user_version = 2")
    with pytest.raises(errors.OutboxIncompatible, match="is of version 2, and 1 is known here"):
        reopen(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_text("dear diary, " * 100)
    with pytest.raises(errors.OutboxCorrupt, match=r"out\?box #1\.db: the outbox is damaged"):
        reopen(path)

    assert path.read_text() == "dear diary, " * 100


def test_an_empty_file_is_a_new_outbox(path):
    # Whoever made it was killed before anything was in it.
    path.touch()

    assert [] == reopen(path)


def test_a_database_without_content_is_a_new_outbox(path):
    other_database(path, "PRAGMA journal_mode = WAL")

    assert path.stat().st_size > 0
    assert [] == reopen(path)


@pytest.mark.parametrize("at", ["missing/folder/outbox.db", "."])
def test_a_file_that_cannot_be_made_is_an_io_error(at, tmp_path):
    with pytest.raises(errors.OutboxIOError, match="the outbox cannot be used"):
        reopen(tmp_path / at)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may write everything")
def test_a_file_that_cannot_be_written_is_told_at_opening(opened, path):
    storage, _ = opened()
    storage.close()
    path.chmod(0o400)
    with pytest.raises(errors.OutboxIOError):
        reopen(path)


def test_a_file_system_without_a_write_ahead_log_is_refused(path, monkeypatch):
    # SQLite answers with the mode that it kept.  A database in memory has no log.
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda _, **options: connect(":memory:", **options))
    with pytest.raises(errors.OutboxIOError, match="no write-ahead log is possible"):
        reopen(path)


@pytest.mark.parametrize(
    "change",
    [
        "payload = 'jello'",
        "payload = 5",
        "payload = x'ff'",
        "id = 'z'",
        "id = x'ff'",
        "id = 5",
        "is_text = 0",
        "delivery = 'direct?'",
        "key = 'k'",
        "expires_at = 5",
        "attempts = attempts + 1",
        "attempts = 'many'",
        "seal = seal + 1",
        "seq = 3",
        "id = 'a'",
    ],
)
def test_a_message_that_was_changed_on_disk_is_never_sent(change, opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a")), Add(message("b"))])
    storage.close()
    other_database(path, f"UPDATE message SET {change} WHERE seq = 2")
    with pytest.raises(errors.OutboxCorrupt, match=r"message \d is not as it was written"):
        reopen(path)


def test_a_copied_row_is_not_sent_again(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a"))])
    storage.close()
    connection = sqlite3.connect(path)
    connection.execute(_ADD, _sealed(2, message("a")))
    connection.commit()
    connection.close()
    with pytest.raises(errors.OutboxCorrupt, match="message 2"):
        reopen(path)


def test_damage_to_the_structure_is_noticed_at_opening(opened, path):
    storage, _ = opened()
    storage.commit([Add(message(str(number), "x" * 500)) for number in range(100)])
    storage.close()
    data = bytearray(path.read_bytes())
    # The number of cells of the last page (sqlite.org/fileformat.html §1.6).
    data[-4096 + 3 : -4096 + 5] = b"\0\1"
    path.write_bytes(data)
    with pytest.raises(errors.OutboxCorrupt, match="the outbox is damaged"):
        reopen(path)


def test_after_any_flipped_bit_there_is_a_typed_error_or_nothing_is_amiss(opened, path):
    storage, _ = opened()
    stored = [message(f"id-{number}", f"{number} " * 50, key="k") for number in range(40)]
    storage.commit([Add(one) for one in stored])
    storage.commit([Remove(one.id) for one in stored[:20]] + [Mark(stored[20].id)])
    storage.close()
    expected = [attrs.evolve(stored[20], attempts=1), *stored[21:]]
    data = path.read_bytes()
    chance = random.Random(1)
    # Every byte of the header, where each means something, and many others.
    places = [*range(100), *chance.sample(range(100, len(data)), 400)]
    noticed = 0
    for at in places:
        damaged = bytearray(data)
        damaged[at] ^= 1 << chance.randrange(8)
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(damaged)
        try:
            actual = reopen(path)
        except errors.OutboxError:
            noticed += 1
        else:
            assert expected == actual, at

    assert noticed > 100


def test_a_log_torn_anywhere_ends_at_a_commit(opened, path, tmp_path):
    storage, _ = opened()
    storage.commit([Add(message("0"))])
    sizes = {0: 0}
    log = path.with_name(f"{path.name}-wal")
    for number in range(1, 6):
        storage.commit([Add(message(f"{number}{half}", "x" * 3000)) for half in "ab"])
        sizes[number] = log.stat().st_size
    torn = tmp_path / "torn" / "outbox.db"
    torn.parent.mkdir()
    main, whole = path.read_bytes(), log.read_bytes()
    for size in range(0, len(whole) + 1, 997):
        torn.write_bytes(main)
        torn.with_name("outbox.db-wal").write_bytes(whole[:size])
        found = ids(torn)
        committed = max(number for number, needed in sizes.items() if needed <= size)
        expected = [f"{number}{half}" for number in range(1, committed + 1) for half in "ab"]

        # As many as fit, whole commits only: the first one's size is not known above.
        assert expected == [id for id in found if id != "0"]
        assert not expected or "0" in found


def test_a_log_with_garbage_behind_its_last_commit_is_read_up_to_it(opened, path, tmp_path):
    storage, _ = opened()
    storage.commit([Add(message("a"))])
    log = path.with_name(f"{path.name}-wal")
    copy = tmp_path / "copy.db"
    shutil.copyfile(path, copy)
    copy.with_name("copy.db-wal").write_bytes(log.read_bytes() + os.urandom(5000))

    assert ["a"] == ids(copy)


# --- the disk fails -----------------------------------------------------------------------------


def test_a_full_disk_is_told_and_keeps_what_it_has(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a"))])
    storage._connection.execute("PRAGMA max_page_count = 6").fetchone()
    with pytest.raises(errors.OutboxDiskFull, match="the disk is full"):
        storage.commit([Add(message("b", "x" * 100_000))])
    storage.commit([Mark("a"), Add(message("c"))])
    storage.close()

    assert [message("a", attempts=1), message("c")] == reopen(path)


SMALL_DISK = """
    import contextlib, json, sys
    from pathlib import Path
    from wsclient import errors
    from wsclient.events import Delivery
    from wsclient.session._storage import Add, Mark, Remove, SqliteOutbox, Stored

    disk = Path(sys.argv[1])
    ballast = disk / "ballast"
    storage = SqliteOutbox(disk / "outbox.db").storage()

    def message(id, size):
        return Stored(id=id, message="x" * size, delivery=Delivery.QUEUED)

    def fill_up():
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * 512)
"""


@pytest.fixture
def small_disk(tmp_path):
    """Runs a program on a disk of 1 MiB, which is gone with its process."""
    folder = tmp_path / "disk"
    folder.mkdir()
    # In a namespace of its own, where everybody may mount.
    mount = f'mount -t tmpfs -o size=1m tmpfs "{folder}" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a small disk")

    def small_disk(code):
        code = textwrap.dedent(SMALL_DISK) + textwrap.dedent(code)
        return python(code, folder, prefix=prefix)

    return small_disk


def test_a_disk_that_fills_up_loses_nothing_and_is_used_again_when_it_has_room(small_disk):
    kept, full, found = small_disk(
        """
        storage.open()
        kept, full = [], 0
        ballast.write_bytes(bytes(300_000))
        try:
            for number in range(1000):
                storage.commit([Add(message(str(number), 5000))])
                kept.append(str(number))
        except errors.OutboxDiskFull:
            fill_up()
        for _ in range(2):
            try:
                storage.commit([Remove("0"), Add(message("never", 50_000))])
            except errors.OutboxDiskFull:
                full += 1
        ballast.unlink()
        storage.commit([Remove("0"), Add(message("new", 5000))])
        storage.close()
        found = [stored.id for stored in storage.open()]
        print(json.dumps([kept, full, found]))
        """
    )

    assert len(kept) > 10
    assert 2 == full
    assert [*kept[1:], "new"] == found


def test_on_a_full_disk_the_room_that_the_outbox_has_is_used_on(small_disk):
    found = small_disk(
        """
        storage.open()
        storage.commit([Add(message("old", 50_000)), Add(message("waiting", 5))])
        storage.commit([Remove("old")])
        storage.close()
        storage.open()
        for number in range(100):
            if number == 5:
                # From here on, many times what the log holds.
                fill_up()
            storage.commit([Add(message(str(number), 5000))])
            storage.commit([Mark(str(number))])
            storage.commit([Remove(str(number))])
        storage.close()
        ballast.unlink()
        print(json.dumps([stored.id for stored in storage.open()]))
        """
    )

    assert ["waiting"] == found


def test_a_disk_that_is_full_at_opening_is_told(small_disk):
    told = small_disk(
        """
        fill_up()
        try:
            storage.open()
        except errors.OutboxError as error:
            print(json.dumps(type(error).__name__))
        """
    )

    assert "OutboxDiskFull" == told


def test_no_inode_for_the_file_is_a_full_disk(path, monkeypatch):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", no_room)
    with pytest.raises(errors.OutboxDiskFull):
        reopen(path)


@ON_POSIX
def test_a_write_that_the_system_refuses_is_an_io_error_and_undoes_its_commit(path):
    code = """
        import json, resource, sys
        from wsclient.errors import OutboxIOError
        from wsclient.events import Delivery
        from wsclient.session._storage import Add, SqliteOutbox, Stored
        storage = SqliteOutbox(sys.argv[1]).storage()
        storage.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        kept, failed = [], []
        for size in (100, 50_000, 300_000, 100):
            id = str(len(kept) + len(failed))
            try:
                message = Stored(id=id, message="x" * size, delivery=Delivery.QUEUED)
                storage.commit([Add(message)])
                kept.append(id)
            except OutboxIOError:
                failed.append(id)
        print(json.dumps([kept, failed]))
        storage.close()
    """
    kept, failed = python(code, path)

    assert (["0", "1", "3"], ["2"]) == (kept, failed)
    assert kept == ids(path)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
@ON_POSIX
def test_a_file_that_is_no_longer_there_keeps_no_more_messages(how, opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a"))])
    path.rename(path.with_name("moved"))
    if how == "replaced":
        path.touch()
    with pytest.raises(errors.OutboxIOError):
        storage.commit([Add(message("b"))])


def test_an_error_that_undoes_the_commit_itself_is_told_as_it_is(opened, path):
    storage, _ = opened()
    storage.commit([Add(message("a"))])
    # As after some errors of SQLite (sqlite.org/lang_transaction.html §3).
    storage._connection.execute(
        "CREATE TEMP TRIGGER undo BEFORE DELETE ON main.message BEGIN"
        " SELECT RAISE(ROLLBACK, 'undone'); END"
    )
    with pytest.raises(errors.OutboxIOError, match="undone"):
        storage.commit([Add(message("b")), Remove("a")])
    storage.close()

    assert ["a"] == ids(path)


# --- system calls -------------------------------------------------------------------------------

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="no strace")

COMMITS = """
    import json, sys
    from wsclient.errors import OutboxError
    from wsclient.events import Delivery
    from wsclient.session._storage import Add, SqliteOutbox, Stored
    storage = SqliteOutbox(sys.argv[1]).storage()
    storage.open()
    kept = []
    for batch in range(int(sys.argv[2])):
        ids = [f"{batch}.{number}" for number in range(int(sys.argv[3]))]
        try:
            storage.commit(
                [Add(Stored(id=id, message="hello", delivery=Delivery.QUEUED)) for id in ids]
            )
            kept += ids
        except OutboxError as error:
            kept.append(f"{type(error).__name__}")
    print(json.dumps(kept), flush=True)
    __import__("os").kill(__import__("os").getpid(), 9)
"""


def count_syncs(path, commits, changes):
    trace = path.parent / "trace"
    python(
        COMMITS,
        path,
        commits,
        changes,
        prefix=[STRACE, "-f", "-o", trace, "-e", "trace=fsync,fdatasync"],
        check=False,
    )
    return trace.read_text().count("sync(")


@needs_strace
def test_a_commit_is_one_sync_however_many_changes_it_holds(path, tmp_path):
    counts = []
    for commits, changes in [(0, 0), (10, 1), (10, 50)]:
        folder = tmp_path / f"{commits}x{changes}"
        folder.mkdir()
        counts.append(count_syncs(folder / "outbox.db", commits, changes))

    assert [10, 10] == [count - counts[0] for count in counts[1:]]


@needs_strace
def test_a_sync_that_fails_undoes_its_commit_and_the_next_one_counts(path):
    for_opening = count_syncs(path.with_name("first.db"), 0, 0)
    kept = python(
        COMMITS,
        path,
        5,
        2,
        prefix=[
            *(STRACE, "-f", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"),
            *("-e", f"inject=fdatasync,fsync:error=EIO:when={for_opening + 3}"),
        ],
        check=False,
    )

    assert ["0.0", "0.1", "1.0", "1.1", "OutboxIOError", "3.0", "3.1", "4.0", "4.1"] == kept
    assert [id for id in kept if id != "OutboxIOError"] == ids(path)
