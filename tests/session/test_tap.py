"""What one connection draws, what is proven of it, and what becomes of the rest."""

from __future__ import annotations

import pytest

from wsclient.events import Delivery, Outcome
from wsclient.options import DeliveryOptions, Limits
from wsclient.session._acks import FunctionAcknowledgement
from wsclient.session._outbox import Outbox
from wsclient.session._tap import Tap

DIRECT, QUEUED, ACKED = Delivery.DIRECT, Delivery.QUEUED, Delivery.ACKED


def mark(message, key, redelivered):
    return f"{message} again" if redelivered else message


MARKS = FunctionAcknowledgement(mark, lambda _: None)


@pytest.fixture
def outbox():
    return Outbox(Limits(), DeliveryOptions(acknowledgement=MARKS))


def accept(outbox, message, delivery=QUEUED):
    return outbox.accept_nowait(outbox.offer(message, delivery, float("inf"), None)).receipt


def accept_all(outbox, messages, delivery=QUEUED):
    return [accept(outbox, message, delivery) for message in messages]


def pull_all(tap):
    """Draw all that may be drawn, and hand it over."""
    drawn = []
    while (entry := tap.pull()) is not None:
        drawn.append(entry.message)
        entry.written()
    return drawn


def outcomes(receipts):
    return [receipt.outcome for receipt in receipts]


def lose(outbox, code=None, *, is_fenced=True):
    """A connection that draws what it may, and is lost; return what it drew."""
    tap = Tap(outbox, is_fenced=is_fenced)
    drawn = pull_all(tap)
    tap.close(code)
    return drawn


@pytest.fixture
def poisoned():
    """Two messages in flight at an end that speaks of them, and one behind them."""

    def poisoned(is_fenced):
        outbox = Outbox(Limits(), DeliveryOptions(acknowledgement=MARKS, fence=is_fenced))
        receipts = accept_all(outbox, "ab", ACKED)
        lose(outbox, 1009, is_fenced=is_fenced)
        receipts.append(accept(outbox, "c", ACKED))
        return outbox, receipts

    return poisoned


@pytest.mark.parametrize("is_fenced", [True, False])
async def test_s1_6_our_leaving_speaks_of_no_message(outbox, is_fenced):
    receipt = accept(outbox, "a", ACKED)
    for _ in range(3):
        lose(outbox, is_fenced=is_fenced)
    tap = Tap(outbox, is_fenced=is_fenced)
    pull_all(tap)

    assert tap.has_trial
    tap.close(is_lost=False)
    outbox.settle()

    assert Outcome.LOST_UNKNOWN is receipt.outcome


def raising(on):
    """Marks every message once, and raises when some go again."""

    def mark(message, key, redelivered):
        if redelivered and message in on:
            raise RuntimeError("a secret")
        return message

    return Outbox(
        Limits(), DeliveryOptions(acknowledgement=FunctionAcknowledgement(mark, lambda _: None))
    )


async def test_s1_6_a_message_that_cannot_be_marked_again_is_quarantined_and_the_next_goes():
    outbox = raising(on="ab")
    receipts = accept_all(outbox, "abc", ACKED)
    lose(outbox)
    letters = []
    tap = Tap(
        outbox,
        is_fenced=True,
        quarantine=lambda entry, cause: letters.append((entry.plain, entry.attempts, cause)),
    )

    assert ["c"] == pull_all(tap)
    assert [Outcome.QUARANTINED, Outcome.QUARANTINED, None] == outcomes(receipts)
    cause = "marking it as redelivered raised RuntimeError"

    assert [("a", 1, cause), ("b", 1, cause)] == letters
    # They are out of step with nothing.
    assert 1 == tap.drawn
    assert (1, 1) == (outbox.messages, outbox.size)
    tap.close()

    assert ["c"] == lose(outbox)


async def test_s1_6_a_suspect_goes_alone_where_the_one_before_it_cannot_be_marked_again():
    outbox = raising(on="b")
    accept_all(outbox, "abc", ACKED)
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)
    tap.read_up_to(2)
    tap.close(1009)
    tap = Tap(outbox, is_fenced=True)

    assert ["a"] == pull_all(tap)
    tap.read_up_to(1)

    assert ["c"] == pull_all(tap)
    assert tap.has_trial
