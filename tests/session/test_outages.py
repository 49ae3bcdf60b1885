"""The times between two lives: what is kept of them."""

from __future__ import annotations

from collections import Counter

import pytest

from wsclient.events import Gap, Outcome
from wsclient.session._outages import CAUSES, KEPT, Outage, Outages

GAP = Gap(after=1, before=2, since=100.0, until=130.0, reason="closed")


@pytest.fixture
def outcomes():
    return Counter()


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def outages(outcomes, clock):
    outages = Outages(lambda: outcomes, lambda: outcomes[Outcome.CANCELLED], lambda: clock[0])
    outages.end()
    return outages


def test_s3_4_an_outage_has_its_times_causes_attempts_losses_and_gaps(outages, outcomes, clock):
    outcomes.update({Outcome.WRITTEN: 5, Outcome.CANCELLED: 1})
    # The connection's last step.
    outcomes[Outcome.LOST_UNKNOWN] += 2
    outages.begin(95.0, "closed")
    outages.add_attempt()
    outages.add_failure("refused")
    outcomes[Outcome.CANCELLED] += 3

    assert (
        Outage(
            since=95.0,
            until=None,
            causes=("closed", "refused"),
            attempts=1,
            lost_unknown=2,
            unsent=3,
            gaps=(),
        ),
    ) == outages()
    assert None is outages()[0].duration
    outages.add_attempt()
    outages.add_gap(GAP)
    clock[0] = 130.0
    outages.end()
    outcomes[Outcome.LOST_UNKNOWN] += 1

    assert (
        Outage(
            since=95.0,
            until=130.0,
            causes=("closed", "refused"),
            attempts=2,
            lost_unknown=2,
            unsent=3,
            gaps=(GAP,),
        ),
    ) == outages()
    assert 35.0 == outages()[0].duration
    outages.begin(140.0, "closed")

    # What was lost before this connection was ready is another outage's.
    assert (1, 0) == (outages()[1].lost_unknown, outages()[1].unsent)


def test_s3_4_before_the_first_connection_there_is_no_outage(outages):
    outages.add_attempt()
    outages.add_failure("refused")
    outages.add_gap(GAP)
    outages.end()

    assert () == outages()


def test_s3_4_only_so_many_are_kept(outages):
    for number in range(KEPT + 5):
        outages.begin(float(number), "closed")
        outages.end()
    outages.begin(1000.0, "closed")

    assert KEPT == len(outages())
    assert [6.0, 1000.0] == [outages()[0].since, outages()[-1].since]


def test_s3_4_of_many_causes_the_first_and_the_newest_are_kept(outages):
    outages.begin(0.0, "closed")
    for number in range(50):
        outages.add_failure(str(number))

    assert ("closed", *map(str, range(51 - CAUSES, 50))) == outages()[0].causes
    assert CAUSES == len(outages()[0].causes)
