"""What the tests of bots share: virtual time, a network in memory, libraries not there."""

from __future__ import annotations

import sys

import pytest
import trio

import wsclient.app
from wsclient.testing import EventRecorder, memory_network

A_DAY = 24 * 3600.0


async def _end_a_hang():
    # Virtual time flies: whoever waits for what never comes is found in no time.
    await trio.sleep(A_DAY)
    raise AssertionError("the test waits for something that does not come")


@pytest.fixture
async def network(autojump_clock, nursery):
    """An in-memory network, on virtual time."""
    # pytest-trio looks for a clock among a test's own arguments only.
    assert autojump_clock is trio.lowlevel.current_clock(), "the test must ask for autojump_clock"
    nursery.start_soon(_end_a_hang)
    with memory_network() as network:
        yield network


@pytest.fixture
def recorder():
    return EventRecorder()


@pytest.fixture
def without(monkeypatch):
    """Hides libraries, as where they are not installed: ``without("msgspec")``."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
            # The file that imports it is imported when it is needed: once more, then.
            monkeypatch.delitem(sys.modules, f"wsclient.app._{name}", raising=False)
            monkeypatch.delattr(wsclient.app, f"_{name}", raising=False)

    return hide
