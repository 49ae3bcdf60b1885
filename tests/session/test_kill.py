"""``kill -9`` at any moment: what was accepted is in the outbox of the next process.

Five times each, of the outbox alone and of a channel that sends to a server in another process;
``WSCLIENT_KILLS=100`` says how often.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest

from wsclient.events import Delivery
from wsclient.session._storage import SqliteOutbox

KILLS = int(os.environ.get("WSCLIENT_KILLS", "5"))

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


def run_and_kill(delay, *arguments):
    """Run a program, kill it ``delay`` seconds after it began; return what it said."""
    with subprocess.Popen(
        [sys.executable, "-c", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Nothing is read ahead here that `communicate` would miss.
        bufsize=0,
    ) as process:
        said = []
        while (line := process.stdout.readline()) != b"=\n":
            assert line, process.stderr.read()
            said.append(line)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=delay)
            pytest.fail("the program ended by itself")
        process.kill()
        output, errors = process.communicate()
    assert b"" == errors, errors
    return (b"".join(said) + output).decode().splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
@pytest.mark.timeout(60 + 10 * KILLS)
def test_s1_9_no_acknowledged_message_is_missing_after_kill_9(tmp_path):
    path = tmp_path / "outbox.db"
    asked, marks = set(), Counter()
    acknowledged, removed, withdrawn = set(), set(), set()
    slowest = 0.0
    for turn in range(KILLS):
        said = {"?": asked, "+": acknowledged, "-": removed, "!": withdrawn}
        for line in run_and_kill(random.uniform(0, 0.5), PROGRAM, path, turn):
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


# Acknowledges the messages that have an id; in the end writes down what its protocol has read,
# which may be more than a connection's handler saw before the connection ended.
SERVER = r"""
import json, pathlib, sys
import trio
from wsclient.testing import FaultServer

async def listen(connection):
    async for message in connection:
        if id := json.loads(message).get("id"):
            await connection.send(json.dumps({"ack": id}))

async def main(path):
    async with FaultServer(handler=listen) as server:
        print(server.url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        pathlib.Path(path).write_text("\n".join(server.messages))

trio.run(main, *sys.argv[1:])
"""

# Says "?" before a message is sent, "+" when it is accepted, "!" when it was cancelled, "*" when
# the peer has it for certain, ">" with what was found, and "=" when the channel is open.
SENDER = r"""
import json, os, random, sys
import trio
import wsclient

def say(what, text):
    os.write(1, f"{what}{text}\n".encode())

def found(event):
    if isinstance(event, wsclient.OutboxRestored):
        say(">", json.dumps([event.messages, event.lost_unknown]))

async def follow(receipt, name):
    if await receipt.wait() in (wsclient.Outcome.RECEIVED, wsclient.Outcome.ACKED):
        say("*", name)

async def send(nursery, channel, prefix):
    number = 0
    while True:
        name = f"{prefix}.{number}"
        number += 1
        delivery = random.choice([wsclient.Delivery.QUEUED, wsclient.Delivery.ACKED])
        say("?", f"{name} {delivery.value}")
        with trio.CancelScope() as scope:
            if random.random() < 0.1:
                scope.deadline = trio.current_time() + random.random() / 1000
            message = json.dumps({"name": name, "text": "x" * 200})
            receipt = await channel.send(message, delivery=delivery, ttl=float("inf"))
        if scope.cancelled_caught:
            say("!", name)
            continue
        say("+", name)
        nursery.start_soon(follow, receipt, name)
        await trio.sleep(random.random() / 100)

async def main(url, path, turn):
    async with wsclient.open_channel(
        url,
        outbox=wsclient.SqliteOutbox(path),
        observers=[found],
        delivery=wsclient.DeliveryOptions(
            acknowledgement=wsclient.JsonAcknowledgement(redelivered_field="again")
        ),
    ) as channel:
        say("=", "")
        if not turn:
            await channel.flush()
            return
        async with trio.open_nursery() as nursery:
            for sender in range(20):
                nursery.start_soon(send, nursery, channel, f"{turn}.{sender}")

trio.run(main, *sys.argv[1:])
"""


@contextlib.contextmanager
def a_server(log):
    """A server in a process of its own; gives its URL."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, log], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.communicate()


def look_into(path, copy):
    """What a crash has left: the messages, and the seconds that finding them took."""
    # In a copy: the next process shall find the file as it is.
    for end in ("", "-wal"):
        copy.with_name(copy.name + end).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(f"{path}{end}", f"{copy}{end}")
    storage = SqliteOutbox(copy).storage()
    began = time.perf_counter()
    stored = storage.open()
    seconds = time.perf_counter() - began
    storage.close()
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    return stored, seconds


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
@pytest.mark.timeout(60 + 10 * KILLS)
def test_s1_9_a_channel_that_is_killed_loses_and_repeats_nothing_that_it_promised(tmp_path):
    path, log = tmp_path / "outbox.db", tmp_path / "log"
    asked, said = {}, {"+": set(), "!": set(), "*": set()}
    unknown, lost_unknown, found_before, slowest = set(), 0, None, 0.0
    with a_server(log) as url:
        for turn in range(1, KILLS + 1):
            lines = run_and_kill(random.uniform(0.05, 0.5), SENDER, url, path, turn)
            for line in lines:
                if line[0] == "?":
                    name, delivery = line[1:].split()
                    asked[name] = Delivery(delivery)
                elif line[0] != ">":
                    said[line[0]].add(line[1:])
            # What the process has found is what the one before had left.
            told = [json.loads(line[1:]) for line in lines if line[0] == ">"]

            assert [] == told or [found_before] == told
            stored, seconds = look_into(path, tmp_path / "copy.db")
            slowest = max(slowest, seconds)
            marked = {
                json.loads(one.message)["name"]
                for one in stored
                if one.begun and one.delivery is Delivery.QUEUED
            }
            unknown |= marked
            found_before = [len(stored) - len(marked), len(marked)]
            lost_unknown += len(marked)
        subprocess.run([sys.executable, "-c", SENDER, url, path, ""], check=True)
        stored, _ = look_into(path, tmp_path / "copy.db")
    heard = [json.loads(line) for line in log.read_text().splitlines()]
    names = Counter(message["name"] for message in heard)
    first = list(dict.fromkeys(message["name"] for message in heard))

    assert [] == stored
    assert set() == set(names) - set(asked)
    # Accepted, and neither here nor told to be unknown.
    assert set() == said["+"] - set(names) - unknown
    assert [] == [name for name in said["+"] - set(names) if asked[name] is Delivery.ACKED]
    assert [] == [name for name in names if names[name] > 1 and asked[name] is Delivery.QUEUED]
    assert set() == said["*"] - set(names)
    assert set() == said["!"] & set(names)
    # What comes again says so.
    seen = set()
    for message in heard:
        assert message["name"] not in seen or message["again"]
        seen.add(message["name"])
    # In order of acceptance: each sender's one after the other.
    for sender in {name.rpartition(".")[0] for name in first}:
        numbers = [int(name.rpartition(".")[2]) for name in first if name.startswith(f"{sender}.")]

        assert sorted(numbers) == numbers
    assert slowest < 1, slowest
    assert len(said["+"]) > 10 * KILLS
    # For `pytest -s`.
    print(  # noqa: T201
        f"{KILLS} kills, {len(said['+'])} accepted, {len(said['*'])} certified,"
        f" {lost_unknown} told unknown ({len(unknown - set(names))} of them not heard),"
        f" {sum(names.values()) - len(names)} redelivered, slowest opening {slowest * 1000:.1f} ms"
    )
