"""``wsclient backoff``: when clients come back, and how many at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

import pytest

import wsclient
from wsclient.cli import main
from wsclient.cli._backoff import backoff_lines, backoff_object

REHEARSAL = wsclient.rehearse(wsclient.RetryPolicy(wait=lambda _: 4.0), outage=10, clients=5)

MODULE = """
import tenacity
import wsclient

retry = wsclient.RetryPolicy(wait=tenacity.wait_fixed(2))
wait = tenacity.wait_fixed(3)
class Odd: pass
number = 5
def fails(state): return 1 / 0
def nowhere(state): return "soon"
impatient = wsclient.RetryPolicy(wait=wait, stop=tenacity.stop_after_attempt(2))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "settings_of_a_shop.py").write_text(MODULE)
    (tmp_path / "settings_of_another_shop.py").write_text("retry = {}\n")
    (tmp_path / "broken_settings.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


# --- what it says -------------------------------------------------------------------------------


def test_lines_say_how_many_at_once_and_when_they_are_back():
    assert [
        "5 clients, and a server that is away for 10.0 s (seed 7)",
        "",
        "  attempts       15; at most 5 in 50 ms, 5 in 1 s",
        "  on its return  at most 5 connections in 50 ms, 5 in 1 s",
        "  back           half after 2.00 s, 99 % after 2.00 s, all after 2.00 s",
        "  one client     waits for 4.00, 4.00, 4.00 s",
    ] == backoff_lines(REHEARSAL, 7)


def test_of_one_client_every_wait_is_a_line():
    one = wsclient.rehearse(wsclient.RetryPolicy(wait=lambda _: 4.0), outage=10)

    assert [
        "  attempt     waits for     comes at",
        "        1        4.00 s       4.00 s",
        "        2        4.00 s       8.00 s",
        "        3        4.00 s      12.00 s",
    ] == backoff_lines(one, 1)[-4:]


def test_many_waits_of_one_of_many_clients_are_cut_short():
    often = wsclient.rehearse(wsclient.RetryPolicy(wait=lambda _: 1.0), outage=30, clients=2)

    assert backoff_lines(often, 1)[-1].endswith(" 1.00, 1.00, … s")


def test_json_has_the_same_and_null_for_never():
    policy = wsclient.RetryPolicy(wait=lambda _: 4.0, stop=lambda state: state.attempt_number > 2)
    never = wsclient.rehearse(policy, outage=10, clients=5)

    assert {
        "event": "backoff",
        "clients": 5,
        "outage": 10,
        "seed": 7,
        "attempts": 15,
        "attempts_in_50_ms": 5,
        "attempts_in_1_s": 5,
        "connections_in_50_ms": 5,
        "connections_in_1_s": 5,
        "back": 5,
        "gave_up": 0,
        "half_back_after": 2,
        "99_percent_back_after": 2,
        "all_back_after": 2,
        "delays_of_one": [4, 4, 4],
    } == backoff_object(REHEARSAL, 7)
    told = backoff_object(never, 7)

    assert (0, 5, None) == (told["back"], told["gave_up"], told["all_back_after"])
    assert "  gave up        5 clients" in backoff_lines(never, 1)
    assert "half never, 99 % never, all never" in backoff_lines(never, 1)[4]


# --- the program --------------------------------------------------------------------------------


async def test_piped_it_is_the_same_lines_each_time(start):
    outputs = set()
    for _ in range(2):
        async with start("backoff", "--clients", "50") as program:
            status, out, err = await program.end()
            assert (0, []) == (status, err)
            outputs.add(tuple(out))

    [lines] = outputs

    assert lines == tuple(backoff_lines(wsclient.rehearse(outage=60, clients=50, seed=1), 1))


def test_cap_and_seed_change_the_default(capsys):
    argv = ["backoff", "--clients", "9", "--cap", "2", "--seed", "3", "--outage", "20", "--json"]

    assert 0 == main(argv)
    policy = wsclient.RetryPolicy(wait=wsclient.default_wait(2))
    expected = wsclient.rehearse(policy, outage=20, clients=9, seed=3)

    assert backoff_object(expected, 3) == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("place", "delay"), [("settings_of_a_shop", 2), ("settings_of_a_shop:wait", 3)]
)
def test_a_policy_or_a_wait_of_ones_own_is_taken(folder, capsys, place, delay):
    assert 0 == main(["backoff", place, "--json", "--outage", "5"])
    assert {delay} == set(json.loads(capsys.readouterr().out)["delays_of_one"])


def test_a_policy_that_gives_up_is_told(folder, capsys):
    assert 0 == main(["backoff", "settings_of_a_shop:impatient", "--clients", "7"])
    assert "gave up        7 clients" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "status", "text"),
    [
        ("nowhere_at_all", 2, "no module 'nowhere_at_all'"),
        ("settings_of_a_shop:other", 2, "has no 'other'"),
        ("settings_of_a_shop:number", 2, "_shop:number is an int, and neither a RetryPolicy nor"),
        ("settings_of_another_shop", 2, "settings_of_another_shop:retry is a dict, and neither"),
        ("settings_of_a_shop:Odd", 2, "_shop:Odd is a class, and neither a RetryPolicy nor"),
        ("broken_settings", 1, "ZeroDivisionError"),
        ("settings_of_a_shop:fails", 1, "ZeroDivisionError"),
        ("settings_of_a_shop:nowhere", 1, "the policy fails: RetryPolicy.wait must give seconds"),
    ],
)
def test_what_is_wrong_with_a_policy_is_told(folder, capsys, place, status, text):
    assert status == main(["backoff", place])
    printed = capsys.readouterr()

    assert text in printed.err
    assert "" == printed.out
    # One of ours is a sentence; the user's own has the user's frames only.
    assert "wsclient/cli" not in printed.err


def test_without_rich_a_terminal_gets_lines_and_is_told_how_to_get_a_picture(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "wsclient.cli._backoff_picture", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    assert 0 == main(["backoff", "--clients", "2"])
    printed = capsys.readouterr()

    assert printed.out.startswith("2 clients, ")
    assert "pip install 'wsclient-trio[cli]'" in printed.err


async def test_on_a_terminal_it_is_a_picture(open_terminal):
    pytest.importorskip("rich")
    async with open_terminal("backoff", "--clients", "100", size=(24, 90)) as terminal:
        assert 0 == await terminal.end()

    assert "wsclient backoff" in terminal.text
    assert "✗" in terminal.text
    assert "client 3" in terminal.text
    assert "99 % after" in terminal.text


@pytest.mark.parametrize("options", [["--plain"], []])
async def test_lines_are_for_whoever_asks_for_them_and_for_terminals_that_are_too_small(
    open_terminal, options
):
    size = (24, 90) if options else (24, 50)
    async with open_terminal("backoff", "--clients", "100", *options, size=size) as terminal:
        assert 0 == await terminal.end()

    assert "(seed 1)" in terminal.text
    assert "✗" not in terminal.text


def test_ctrl_c_ends_it(monkeypatch, capsys):
    # In the midst of the work, and not while a process that was started just now still begins.
    is_over = threading.Event()

    def interrupted(*_, **__):
        signal.raise_signal(signal.SIGINT)
        is_over.wait(10)

    monkeypatch.setattr(wsclient, "rehearse", interrupted)
    try:
        assert 130 == main(["backoff", "--clients", "100"])
    finally:
        is_over.set()
    assert ("", "") == capsys.readouterr()


def test_it_loads_no_test_kit():
    script = (
        "import sys, wsclient.cli as cli; cli.main(['backoff', '--clients', '1']);"
        " print('wsclient.testing' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    assert b"False" == done.stdout.split()[-1]
