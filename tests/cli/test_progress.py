"""What the demo has lived through is collected as it happens."""

from __future__ import annotations

import pytest
import trio

import wsclient
from wsclient.cli._progress import SLOTS, Passage, Progress

PLACE = {"channel": "feed", "endpoint": "ws://h", "attempt": 1}
GAP = wsclient.Gap(after=1, before=2, since=1.0, until=2.0, reason="1006")


def ready(outage):
    return wsclient.ConnectionReady(**PLACE, epoch=1, outage=outage)


@pytest.fixture
async def progress():
    passages = [Passage(number=n, title=f"{n}", sentence="dies") for n in (1, 2, 3)]
    return Progress(passages, seconds=10, feed_pause=0.02)


async def test_an_outage_belongs_to_the_faults_since_the_last_connection(progress, autojump_clock):
    progress.observe(ready(None))
    await trio.sleep(1)
    progress.strike(progress.passages[0])
    progress.observe(ready(0.5))
    await trio.sleep(1)
    progress.strike(progress.passages[1])

    first, second, third = progress.passages

    assert (1.0, 0.5) == (first.struck_at, first.outage)
    assert (2.0, None) == (second.struck_at, second.outage)
    assert (None, None) == (third.struck_at, third.outage)
    assert (2, 2) == (progress.struck, progress.connections)
    assert [0.5] == progress.outages


async def test_states_and_sentences_are_kept_with_their_time(progress, autojump_clock):
    await trio.sleep(1.5)
    state = wsclient.ChannelState.READY
    progress.observe(
        wsclient.StateChanged(channel="feed", previous=progress.state, state=state, cause="…")
    )
    progress.observe(ready(None))

    assert state is progress.state
    assert [(1.5, "connected")] == list(progress.log)


async def test_arrivals_are_counted_where_they_belong(progress, autojump_clock):
    progress.receive("1")
    progress.receive(GAP)
    await trio.sleep(5)
    progress.receive("4")

    assert {0: 1, SLOTS // 2: 1} == progress.arrivals
    assert (2, 2, 1) == (progress.feed.received, progress.feed.missed, progress.feed.gaps)


async def test_the_summary_settles_the_accounts(progress, autojump_clock):
    progress.receive("1")
    progress.fed = 1
    for outage in (3.0, 1.0, 2.5):
        progress.observe(ready(outage))
    await trio.sleep(7)
    summary = progress.summary([])

    assert (7.0, 3, (1.0, 2.5, 3.0)) == (summary.duration, summary.connections, summary.recovery)
    assert 0 == summary.report.unaccounted


async def test_without_an_outage_there_is_nothing_to_recover_from(progress):
    assert progress.summary([]).recovery is None


async def test_a_channel_that_gave_up_is_something_unaccounted_for(progress):
    progress.observe(
        wsclient.ChannelGaveUp(channel="feed", reason="gave up", cancelled=0, lost_unknown=0)
    )
    report = progress.summary([]).report

    assert 1 == report.unaccounted
    assert ["gave up"] == [finding.what for finding in report.findings]
