"""A program that is imported for its bot does not run it."""

from __future__ import annotations

import wsclient
from wsclient.app._runner import leave_running


def test_running_is_left_to_whoever_imports_the_bot():
    bot = wsclient.Bot("ws://nobody.test", observers=())

    with leave_running() as left:
        bot.run()

    assert [bot] == left


def test_it_is_left_to_nobody_behind_the_import(monkeypatch):
    run = []
    monkeypatch.setattr("trio.run", run.append)
    bot = wsclient.Bot("ws://nobody.test", observers=())
    with leave_running():
        pass

    bot.run()

    assert len(run) == 1
