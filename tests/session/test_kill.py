"""``kill -9`` at any moment: what was acknowledged is in the outbox of the next process.

Ten times; ``WSCLIENT_KILLS=100`` says how often.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest

from wsclient.session._storage import SqliteOutbox

KILLS = int(os.environ.get("WSCLIENT_KILLS", "10"))

# Says each thing in one write, which a pipe takes whole or not at all:
# "?" before a message is added, "+" after, "*" after a mark, "-" before a removal.
PROGRAM = r"""
import functools, os, random, sys
import trio
from wsclient.events import Delivery
from wsclient.session._journal import Journal
from wsclient.session._storage import SqliteOutbox, Stored

def say(what, id):
    os.write(1, f"{what}{id}\n".encode())

async def send(journal, prefix):
    number = 0
    while True:
        id = f"{prefix}.{number}"
        number += 1
        stored = Stored(id=id, message=f"text of {id} " * 20, delivery=Delivery.QUEUED)
        say("?", id)
        with trio.CancelScope() as scope:
            if random.random() < 0.1:
                scope.deadline = trio.current_time() + random.random() / 1000
            await journal.add(stored)
        if scope.cancelled_caught:
            say("!", id)
            continue
        say("+", id)
        if random.random() < 0.5:
            journal.mark_soon([id], functools.partial(say, "*", id))
        if random.random() < 0.9:
            await trio.sleep(random.random() / 1000)
            say("-", id)
            journal.remove_soon(id)

async def main(path, turn):
    journal = Journal(SqliteOutbox(path).storage())
    say("=", "")
    restored = await journal.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for stored in restored[: len(restored) // 2]:
            say("-", stored.id)
            journal.remove_soon(stored.id)
        for sender in range(20):
            nursery.start_soon(send, journal, f"{turn}.{sender}")

trio.run(main, *sys.argv[1:])
"""


def run_and_kill(path, turn, delay):
    """Run the program, kill it ``delay`` seconds after it began; return what it said."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path, str(turn)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Nothing is read ahead here that `communicate` would miss.
        bufsize=0,
    ) as process:
        assert b"=\n" == process.stdout.readline(), process.stderr.read()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=delay)
            pytest.fail("the program ended by itself")
        process.kill()
        output, errors = process.communicate()
    assert b"" == errors, errors
    return output.decode().splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
@pytest.mark.timeout(60 + 10 * KILLS)
def test_s1_9_no_acknowledged_message_is_missing_after_kill_9(tmp_path):
    path = tmp_path / "outbox.db"
    asked, marks = set(), Counter()
    acknowledged, removed, withdrawn = set(), set(), set()
    slowest = 0.0
    for turn in range(KILLS):
        said = {"?": asked, "+": acknowledged, "-": removed, "!": withdrawn}
        for line in run_and_kill(path, turn, random.uniform(0, 0.5)):
            if line[0] == "*":
                marks[line[1:]] += 1
            else:
                said[line[0]].add(line[1:])
        storage = SqliteOutbox(path).storage()
        began = time.perf_counter()
        stored = storage.open()
        slowest = max(slowest, time.perf_counter() - began)
        storage.close()
        ids = [one.id for one in stored]
        found = set(ids)

        assert len(ids) == len(found)
        assert set() == acknowledged - removed - found
        assert set() == found - asked
        assert set() == found & withdrawn
        assert [] == [one.id for one in stored if one.attempts < marks[one.id]]
        assert [] == [one.id for one in stored if one.message != f"text of {one.id} " * 20]
        # In order of acceptance: each sender's one after the other.
        numbers = [tuple(map(int, re.findall(r"\d+", id))) for id in ids]
        for sender in {number[:2] for number in numbers}:
            order = [number for number in numbers if number[:2] == sender]

            assert sorted(order) == order
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()

        # What is gone stays gone.
        acknowledged &= found
    assert slowest < 1, slowest
    assert len(asked) > 10 * KILLS
    # For `pytest -s`.
    print(f"{KILLS} kills, {len(asked)} messages, slowest opening {slowest * 1000:.1f} ms")  # noqa: T201
