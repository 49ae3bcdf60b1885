"""The examples that need a server which is not ours, or one that dies often."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

DEATHS = 10
PORTION = 50
"""Messages that are written between two deaths, at least."""

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform == "win32", reason="uses signals"),
]

# --- blocks.py ------------------------------------------------------------------------------------


def number_of(row: str) -> int:
    return int(row.split()[0].replace(",", ""))


async def rows_until(program: Any, number: int) -> list[str]:
    """The lines of the output up to that of this block."""
    with trio.fail_after(20):
        rows = [await program.line()]
        while number_of(rows[-1]) != number:
            rows.append(await program.line())
        return rows


async def test_blocks_shows_each_once_however_the_node_restarts(
    start_anvil: Any, run_example: Any
) -> None:
    anvil = await start_anvil()
    await anvil.mine(5)
    async with run_example("blocks.py", anvil.url, "--last", "3") as program:
        rows = await rows_until(program, 5)
        for _ in range(3):
            await anvil.die(signal.SIGTERM)
            await anvil.start()
            # Before the program is back, most often: these it can only have by asking.
            rows += await rows_until(program, await anvil.mine(3))
        program.process.send_signal(signal.SIGINT)

        assert [] == await program.rest()

    assert list(range(3, 15)) == [number_of(row) for row in rows]
    assert all(re.fullmatch(r" +\d+ +\d+\.\d{3} gwei +0%", row) for row in rows), rows
    assert 0 == program.process.returncode
    assert "Traceback" not in program.errors


async def test_blocks_says_what_the_node_has_taken_back(
    start_anvil: Any, run_example: Any, tmp_path: Path
) -> None:
    anvil = await start_anvil()
    async with run_example("blocks.py", anvil.url) as program:
        await rows_until(program, 0)
        await anvil.mine(3)
        await rows_until(program, 3)
        # The chain of another node: it has none of these blocks.
        await anvil.die(signal.SIGKILL)
        (tmp_path / f"chain-{anvil.port}.json").unlink(missing_ok=True)
        await anvil.start()
        told = ""
        while not told.startswith("--"):
            await anvil.mine()
            with trio.move_on_after(0.5):
                told = await program.line()
        program.process.send_signal(signal.SIGINT)
        await program.rest()

    assert re.fullmatch(r"-- block 3, then [123]: (.*; )?the stream has gone back", told)


# --- graphql.py -----------------------------------------------------------------------------------


async def test_graphql_has_all_its_subscriptions_back_and_ends_with_the_last(
    start_graphql: Any, run_example: Any
) -> None:
    server = await start_graphql()
    queries = ["subscription { a }", "subscription { nothing }", "subscription { b }"]
    seen: dict[str, list[int]] = {"a": [], "b": []}
    told: list[str] = []

    async def read(program: Any, *, gaps: int) -> None:
        """Read on until each of the two has brought something behind so many gaps."""
        lacking = {"a", "b"}
        while lacking or sum("away" in line for line in told) < gaps:
            line = await program.line()
            _, _, result = line.partition(" ")
            if result.startswith("--"):
                told.append(line)
                continue
            ((name, number),) = json.loads(result)["data"].items()
            seen[name].append(number)
            if sum("away" in line for line in told) == gaps:
                lacking.discard(name)

    async with run_example("graphql.py", server.url, *queries) as program:
        await read(program, gaps=0)
        for restart in range(1, 4):
            await server.restart(signal.SIGKILL)
            await read(program, gaps=2 * restart)
        await server.control(do="complete", name="a")
        await server.control(do="fail", name="b")
        told += [line for line in await program.rest() if "--" in line]

    assert all(sorted(set(numbers)) == numbers for numbers in seen.values())
    (refused,) = [line for line in told if line.startswith("2 ")]
    assert "nothing" in refused
    assert "1 -- the end" in told
    assert any(line.startswith("3 -- ") and "as told" in line for line in told)
    assert 0 == program.process.returncode
    assert "Traceback" not in program.errors


async def test_graphql_gives_the_server_its_token(
    start_graphql: Any, run_example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_graphql(token="a secret of mine")
    monkeypatch.setenv("GRAPHQL_TOKEN", "a secret of mine")
    async with run_example("graphql.py", server.url, "subscription { a }") as program:
        assert (await program.line()).startswith('1 {"data": {"a": ')
        program.process.send_signal(signal.SIGINT)
        await program.rest()
    monkeypatch.delenv("GRAPHQL_TOKEN")
    async with run_example("graphql.py", server.url, "subscription { a }") as refused:
        assert [] == await refused.rest()

    assert (0, 1) == (program.process.returncode, refused.process.returncode)
    assert "4403" in refused.errors.splitlines()[-1]
    assert "Traceback" not in refused.errors
    assert "a secret of mine" not in program.errors + refused.errors


# --- relay.py -------------------------------------------------------------------------------------


def written(path: Path) -> int:
    """The last number in the database."""
    with suppress(sqlite3.OperationalError):  # There are no tables yet.
        with closing(sqlite3.connect(path)) as database:
            (last,) = database.execute("SELECT max(number) FROM messages").fetchone()
            return last or 0
    return 0


async def wait_written(program: Any, path: Path, number: int) -> None:
    with trio.fail_after(20):
        while written(path) < number:
            assert program.process.poll() is None, program.errors
            await trio.sleep(0.005)


async def test_relay_writes_every_number_once_though_both_sides_are_killed_ten_times(
    start_pub_sub: Any, make_hub: Any, run_example: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    hub = make_hub(history_size=1_000_000)
    server = await start_pub_sub(hub)
    path = tmp_path / "relay.db"
    publishing = trio.CancelScope()
    last = 0

    async def publish() -> None:
        nonlocal last
        with publishing:
            while True:
                # More at once than one write to the disk takes: some are on their way, always.
                for _ in range(5):
                    last = hub.publish("n", {"n": last + 1})
                await trio.sleep(0.005)

    async with trio.open_nursery() as deaths:
        deaths.start_soon(publish)
        for death in range(DEATHS):
            async with run_example("relay.py", server.url, "n", str(path)) as program:
                await wait_written(program, path, written(path) + PORTION)
                if death % 3 == 1:
                    # The server dies under the relay.
                    await server.restart()
                    await wait_written(program, path, written(path) + PORTION)
                if death % 3 == 2:
                    # Both are away together.
                    await server.die()
                program.process.kill()
                await program.process.wait()
            if death % 3 == 2:
                await server.start()
        publishing.cancel()
    async with run_example("relay.py", server.url, "n", str(path)) as program:
        await wait_written(program, path, last)
        program.process.send_signal(signal.SIGINT)

        assert [] == await program.rest()

    with closing(sqlite3.connect(path)) as database:
        messages = database.execute("SELECT number, value FROM messages ORDER BY rowid").fetchall()
        gaps = database.execute("SELECT * FROM gaps").fetchall()
        positions = database.execute("SELECT * FROM positions").fetchall()

    assert [(n, json.dumps({"n": n})) for n in range(1, last + 1)] == messages
    assert [] == gaps
    assert [("n", last)] == positions
    assert 0 == program.process.returncode
    nursery.cancel_scope.cancel()
