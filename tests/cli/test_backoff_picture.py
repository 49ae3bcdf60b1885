"""The picture of an outage fits the terminal, and shows what is in the figures."""

from __future__ import annotations

import io

import pytest

import wsclient

rich_console = pytest.importorskip("rich.console")

from wsclient.cli import _backoff_picture  # noqa: E402  # It needs rich.
from wsclient.cli._backoff_picture import HEIGHT, draw  # noqa: E402


def rendered(rehearsal, width=80):
    console = rich_console.Console(file=io.StringIO(), width=width, height=24)
    console.print(draw(rehearsal, 1, width - 1))
    return console.file.getvalue().splitlines()


def lockstep(**options):
    return wsclient.rehearse(wsclient.RetryPolicy(wait=lambda _: 4.0), outage=10, **options)


@pytest.mark.parametrize("width", [61, 80, 101])
@pytest.mark.parametrize("outage", [0, 0.5, 60, 3600])
@pytest.mark.parametrize("clients", [1, 40])
def test_it_fits_the_terminal(width, outage, clients):
    lines = rendered(wsclient.rehearse(outage=outage, clients=clients, seed=1), width)

    assert max(map(len, lines)) < width
    assert len(lines) < 24


def test_attempts_stand_where_they_happen_and_as_high_as_they_are_many():
    lines = rendered(lockstep(clients=8))
    histogram = [line[18:79] for line in lines[2 : 2 + HEIGHT]]
    [columns] = {tuple(at for at, cell in enumerate(row) if cell != " ") for row in histogram}

    # All eight at 4, 8 and 12 seconds, of 12.
    assert 3 == len(columns)
    assert (4 / 12, 8 / 12) == pytest.approx((columns[0] / 61, columns[1] / 61), abs=0.02)
    assert lines[2].split()[0] == "8"


def test_the_share_of_the_connected_and_single_clients_are_below():
    lines = rendered(lockstep(clients=8))
    share = next(line for line in lines if line.strip().startswith("connected"))
    client = next(line for line in lines if line.strip().startswith("client 1"))

    assert share.rstrip().endswith("·█")
    assert (2, 1) == (client.count("✗"), client.count("✓"))
    assert client.rstrip().endswith("✓")


@pytest.mark.parametrize(
    ("outage", "marks"),
    [(10, "0 2 4 6 8 10"), (100, "0 20 40 60 80 100"), (600, "0 100 200 300 400 500 600")],
)
def test_ticks_are_round(outage, marks):
    rehearsal = wsclient.rehearse(
        wsclient.RetryPolicy(wait=lambda _: outage / 2), outage=outage, clients=2
    )
    ticks = next(line for line in rendered(rehearsal) if "seconds" in line)

    assert marks.split() == ticks.split()[1:]


def test_every_wait_of_one_client_is_a_bar():
    lines = rendered(lockstep())

    assert 3 == sum("4.00 s  █" in line for line in lines)
    assert not any("attempts in" in line for line in lines)


def test_many_waits_of_one_client_are_cut_short():
    rehearsal = wsclient.rehearse(wsclient.RetryPolicy(wait=lambda _: 1.0), outage=30)

    assert "and 18 more" in rendered(rehearsal)[-1]


def test_who_never_tries_is_drawn_all_the_same():
    policy = wsclient.RetryPolicy(classify=lambda *_: wsclient.Fatal("no"))
    lines = rendered(wsclient.rehearse(policy, outage=10, clients=4))

    assert "gave up  4 clients" in lines[-1]
    rendered(wsclient.rehearse(policy, outage=10))


@pytest.mark.parametrize(
    ("width", "encoding", "term", "is_shown"),
    [
        (80, "utf-8", "xterm", True),
        (50, "utf-8", "xterm", False),
        (80, "latin-1", "xterm", False),
        (80, "utf-8", "dumb", False),
    ],
)
def test_where_it_cannot_be_drawn_there_is_none(monkeypatch, width, encoding, term, is_shown):
    monkeypatch.setenv("TERM", term)
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = rich_console.Console(file=file, width=width, height=24, force_terminal=True)
    monkeypatch.setattr(_backoff_picture, "Console", lambda: console)
    lines = _backoff_picture.picture(lockstep(clients=8), 1)

    assert is_shown == (lines is not None)
    assert lines is None or any("client 1" in line for line in lines)
