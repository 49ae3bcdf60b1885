"""What one connection draws, what is proven of it, and what becomes of the rest."""

from __future__ import annotations

import pytest

from wsclient.events import Delivery, Outcome, Truth
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
    return outbox.accept_nowait(outbox.offer(message, delivery))


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


# --- drawing ------------------------------------------------------------------------------------


async def test_whoever_asks_for_proofs_is_told_of_each_message_when_it_counts(outbox):
    accept_all(outbox, "ab")
    told = []
    tap = Tap(outbox)
    tap.begun = lambda: told.append(tap.drawn)
    pull_all(tap)

    assert [1, 2] == told


async def test_s1_4_where_the_rate_allows_none_no_message_is_drawn_and_none_lost(outbox):
    accept(outbox, "a")
    allowed, asked = [False, True], []

    def may_draw():
        asked.append(True)
        return allowed.pop(0)

    tap = Tap(outbox, may_draw=may_draw)

    assert None is tap.pull()
    assert (0, 1) == (tap.drawn, outbox.messages)
    assert "a" == tap.pull().message
    # No token is taken for a message that is not there.
    assert None is tap.pull()
    assert 2 == len(asked)


async def test_s1_4_no_token_is_taken_for_a_message_that_must_wait_for_its_trial(outbox):
    accept_all(outbox, "ab", ACKED)
    lose(outbox, 1009)
    asked = []
    tap = Tap(outbox, is_fenced=True, may_draw=lambda: asked.append(True) or True)
    pull_all(tap)

    assert tap.is_held
    assert [True] == asked


async def test_what_is_in_flight_is_what_was_drawn_and_has_no_outcome(outbox):
    receipts = accept_all(outbox, "abc", ACKED)
    tap = Tap(outbox, is_fenced=True)
    first, second = tap.pull(), tap.pull()

    assert [first, second] == tap.entries()
    outbox.acknowledge(receipts[0].id, accepted=True)

    assert [second] == tap.entries()


# --- fences -------------------------------------------------------------------------------------


async def test_s1_2_a_written_message_has_its_outcome_when_it_is_proven_to_be_read(outbox):
    receipts = accept_all(outbox, "abc")
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)

    assert [None] * 3 == outcomes(receipts)
    tap.read_up_to(2)

    assert [Outcome.RECEIVED, Outcome.RECEIVED, None] == outcomes(receipts)
    assert [Truth.CERTAIN, Truth.CERTAIN, Truth.UNKNOWN] == [each.truth for each in receipts]
    assert (3, 2) == (tap.drawn, tap.fenced)


async def test_s1_2_a_proof_that_comes_twice_or_late_says_nothing_new(outbox):
    receipts = accept_all(outbox, "abc")
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)
    tap.read_up_to(2)
    tap.read_up_to(1)
    tap.read_up_to(2)

    assert [Outcome.RECEIVED, Outcome.RECEIVED, None] == outcomes(receipts)
    tap.close()
    tap.read_up_to(3)

    assert Outcome.LOST_UNKNOWN is receipts[2].outcome
    assert {Outcome.RECEIVED: 2, Outcome.LOST_UNKNOWN: 1} == outbox.outcomes


async def test_s1_2_without_fences_a_message_is_written_and_no_more_is_known(outbox):
    queued, acked = accept(outbox, "a"), accept(outbox, "b", ACKED)
    pull_all(Tap(outbox, is_fenced=False))

    assert [Outcome.WRITTEN, None] == outcomes([queued, acked])
    assert [Truth.UNKNOWN, Truth.UNKNOWN] == [queued.truth, acked.truth]


async def test_s1_4_what_was_written_needs_room_only_if_it_may_go_again(outbox):
    accept(outbox, "queued")
    accept(outbox, "acked", ACKED)
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)

    assert (1, 5) == (outbox.messages, outbox.size)
    tap.read_up_to(2)

    # A fence is no acknowledgement.
    assert (1, 5) == (outbox.messages, outbox.size)


async def test_s1_2_a_fence_is_no_acknowledgement(outbox):
    receipt = accept(outbox, "a", ACKED)
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)
    tap.read_up_to(1)

    assert (None, Truth.CERTAIN) == (receipt.outcome, receipt.truth)
    await receipt.received()
    assert outbox.acknowledge(receipt.id, accepted=True)

    assert Outcome.ACKED is receipt.outcome


async def test_lifting_the_fences_lets_go_of_what_was_written_and_of_what_will_be(outbox):
    receipts = accept_all(outbox, "abcd")
    tap = Tap(outbox, is_fenced=True)
    for _ in range(2):
        tap.pull().written()
    tap.read_up_to(1)
    third = tap.pull()

    assert 1 == tap.lift_fence()
    assert [Outcome.RECEIVED, Outcome.WRITTEN, None, None] == outcomes(receipts)
    third.written()
    tap.pull().written()

    assert [Outcome.WRITTEN, Outcome.WRITTEN] == outcomes(receipts[2:])
    assert 0 == tap.lift_fence()


async def test_lifting_the_fences_where_more_is_proven_than_written_waits_for_nothing(outbox):
    # The pong may come before we are told that the last byte is gone.
    accept(outbox, "a")
    tap = Tap(outbox, is_fenced=True)
    entry = tap.pull()
    tap.read_up_to(1)

    assert 0 == tap.lift_fence()
    entry.written()

    assert {Outcome.RECEIVED: 1} == outbox.outcomes


@pytest.mark.parametrize("is_fenced", [False, True])
async def test_s1_7_an_early_acknowledgement_does_not_put_the_tap_out_of_step(outbox, is_fenced):
    early, queued, late = (
        accept(outbox, "early", ACKED),
        accept(outbox, "queued"),
        accept(outbox, "late", ACKED),
    )
    tap = Tap(outbox, is_fenced=is_fenced)
    entries = [tap.pull() for _ in range(3)]
    # The peer may read what we have not been told to be written.
    outbox.acknowledge(early.id, accepted=True)
    entries[0].written()

    assert [Outcome.ACKED, None, None] == outcomes([early, queued, late])
    entries[1].written()
    if is_fenced:
        tap.read_up_to(2)

    assert (Outcome.RECEIVED if is_fenced else Outcome.WRITTEN) is queued.outcome
    entries[2].written()

    assert None is late.outcome
    tap.close()

    assert ["late again"] == lose(outbox)


async def test_the_oldest_of_too_many_in_flight_are_taken_for_written(outbox, monkeypatch):
    monkeypatch.setattr("wsclient.session._tap.WINDOW", 2)
    receipts = accept_all(outbox, "abcd")
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)

    assert [Outcome.WRITTEN, Outcome.WRITTEN, None, None] == outcomes(receipts)
    assert 2 == tap.fenced
    # A proof counts from the first one.
    tap.read_up_to(3)

    assert [Outcome.WRITTEN, Outcome.WRITTEN, Outcome.RECEIVED, None] == outcomes(receipts)


async def test_an_acknowledgement_comes_for_the_oldest_of_too_many_too(outbox, monkeypatch):
    monkeypatch.setattr("wsclient.session._tap.WINDOW", 1)
    first, _ = accept_all(outbox, "ab", ACKED)
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)

    assert None is first.outcome
    assert outbox.acknowledge(first.id, accepted=True)


# --- the end of a connection --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("come", "delivery", "resend", "expected"),
    [
        ("accepted", DIRECT, False, Outcome.CANCELLED),
        ("accepted", QUEUED, False, "kept"),
        ("accepted", QUEUED, True, "kept"),
        ("accepted", ACKED, False, "kept"),
        ("in part", DIRECT, False, Outcome.LOST_UNKNOWN),
        ("in part", DIRECT, True, Outcome.LOST_UNKNOWN),
        ("in part", QUEUED, False, Outcome.LOST_UNKNOWN),
        ("in part", QUEUED, True, "kept"),
        ("in part", ACKED, False, "again"),
        ("written", DIRECT, False, Outcome.LOST_UNKNOWN),
        ("written", DIRECT, True, Outcome.LOST_UNKNOWN),
        ("written", QUEUED, False, Outcome.LOST_UNKNOWN),
        ("written", QUEUED, True, "kept"),
        ("written", ACKED, False, "again"),
        ("fenced", DIRECT, False, Outcome.RECEIVED),
        ("fenced", QUEUED, False, Outcome.RECEIVED),
        ("fenced", QUEUED, True, Outcome.RECEIVED),
        ("fenced", ACKED, False, "again"),
    ],
)
async def test_s1_7_what_becomes_of_a_message_when_its_connection_dies(
    come, delivery, resend, expected
):
    outbox = Outbox(Limits(), DeliveryOptions(acknowledgement=MARKS, resend_unknown=resend))
    receipt = accept(outbox, "message", delivery)
    tap = Tap(outbox, is_fenced=True)
    if come != "accepted":
        entry = tap.pull()
        if come != "in part":
            entry.written()
        if come == "fenced":
            tap.read_up_to(1)
    tap.close()

    if isinstance(expected, Outcome):
        assert expected is receipt.outcome
        assert [] == lose(outbox)
        assert (0, 0, 0) == (outbox.open, outbox.messages, outbox.size)
    else:
        assert None is receipt.outcome
        assert ["message again" if expected == "again" else "message"] == lose(outbox)


async def test_s1_7_what_goes_again_goes_in_its_order_and_before_all_that_is_newer(outbox):
    accept_all(outbox, "abcd", ACKED)
    tap = Tap(outbox, is_fenced=True)
    for _ in range(3):
        tap.pull().written()
    # One is proven to be read, and goes again all the same, and ahead.
    tap.read_up_to(1)
    tap.close()
    accept(outbox, "e", ACKED)

    assert ["a again", "b again", "c again", "d", "e"] == lose(outbox)


async def test_s1_7_what_has_its_outcome_keeps_it_when_the_connection_dies(outbox):
    acked, lost = accept_all(outbox, "ab", ACKED)
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)
    outbox.acknowledge(acked.id, accepted=True)
    tap.close(1009)
    tap.close(1009)

    assert [] == tap.entries()
    assert [Outcome.ACKED, None] == outcomes([acked, lost])
    assert ["b again"] == lose(outbox)
    assert {Outcome.ACKED: 1} == outbox.outcomes


# --- poison -------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("codes", [[1003], [1007], [1009], [None, 1006, 1001], [1001, 1009]])
async def test_s1_6_after_an_end_that_speaks_of_a_message_those_in_flight_go_one_at_a_time(
    outbox, codes, is_fenced
):
    accept_all(outbox, "ab", ACKED)
    lost = [lose(outbox, code, is_fenced=is_fenced) for code in codes]

    assert {2} == {len(drawn) for drawn in lost}
    assert ["a again"] == pull_all(Tap(outbox, is_fenced=is_fenced))


@pytest.mark.parametrize("is_fenced", [True, False])
@pytest.mark.parametrize("codes", [[1000], [1006], [None, None], [1002, 1011], [1008]])
async def test_s1_6_other_ends_are_nobodys_fault_but_for_the_third(outbox, codes, is_fenced):
    accept_all(outbox, "ab", ACKED)
    for code in codes:
        lose(outbox, code, is_fenced=is_fenced)

    assert ["a again", "b again"] == pull_all(Tap(outbox, is_fenced=is_fenced))


async def test_s1_6_losses_count_in_a_row_and_a_proof_ends_the_row(outbox):
    accept(outbox, "a", ACKED)
    lose(outbox)
    lose(outbox)
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)
    tap.read_up_to(1)
    tap.close()
    lose(outbox)
    lose(outbox)
    tap = Tap(outbox, is_fenced=True)

    assert ["a again"] == pull_all(tap)
    assert not tap.has_trial


@pytest.mark.parametrize("is_fenced", [True, False])
async def test_s1_6_what_the_peer_was_proven_to_have_read_is_no_suspect(outbox, is_fenced):
    accept_all(outbox, "ab", ACKED)
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)
    tap.read_up_to(1)
    if not is_fenced:
        tap.lift_fence()
    tap.close(1009)
    tap = Tap(outbox, is_fenced=is_fenced)

    # The second waits until it can go alone, if the first may be told to be read.
    assert ["a again", "b again"][: 1 if is_fenced else 2] == pull_all(tap)
    assert is_fenced is tap.is_held
    tap.read_up_to(1)
    pull_all(tap)

    assert tap.has_trial


async def test_s1_6_a_suspect_goes_alone_until_it_is_proven_to_be_read(poisoned):
    outbox, _ = poisoned(True)
    tap = Tap(outbox, is_fenced=True)

    assert ["a again"] == pull_all(tap)
    assert (True, True) == (tap.has_trial, tap.is_held)
    tap.read_up_to(1)

    assert not tap.has_trial
    assert ["b again"] == pull_all(tap)
    tap.read_up_to(2)

    assert ["c"] == pull_all(tap)
    assert (False, False) == (tap.has_trial, tap.is_held)


@pytest.mark.parametrize("is_fenced", [True, False])
@pytest.mark.parametrize("accepted", [True, False])
async def test_s1_6_a_suspect_goes_alone_until_the_peer_speaks_on_it(poisoned, is_fenced, accepted):
    outbox, receipts = poisoned(is_fenced)
    tap = Tap(outbox, is_fenced=is_fenced)
    pull_all(tap)

    assert tap.has_trial
    outbox.acknowledge(receipts[0].id, accepted=accepted)

    assert not tap.has_trial
    # Whoever speaks on a message has read it: no fence says more.
    assert ["b again"] == pull_all(tap)


async def test_s1_6_without_fences_a_connection_that_lives_on_acquits_what_is_on_trial(poisoned):
    outbox, _ = poisoned(False)
    tap = Tap(outbox, is_fenced=False)

    assert ["a again"] == pull_all(tap)
    tap.acquit()

    assert not tap.has_trial
    assert ["b again"] == pull_all(tap)
    tap.acquit()

    assert ["c"] == pull_all(tap)
    tap.acquit()
    tap.close()

    assert ["a again", "b again", "c again"] == lose(outbox, is_fenced=False)


async def test_s1_6_what_was_acquitted_begins_a_new_row_of_losses(outbox):
    accept(outbox, "a", ACKED)
    lose(outbox, 1009, is_fenced=False)
    tap = Tap(outbox, is_fenced=False)
    pull_all(tap)
    tap.acquit()
    tap.close()
    lose(outbox, is_fenced=False)
    tap = Tap(outbox, is_fenced=False)

    assert ["a again"] == pull_all(tap)
    assert not tap.has_trial


async def test_s1_6_one_connection_is_one_loss_also_for_what_it_wrote_in_part(outbox):
    accept(outbox, "a", ACKED)
    for _ in range(2):
        tap = Tap(outbox, is_fenced=False)
        tap.pull()
        tap.close()
    tap = Tap(outbox, is_fenced=False)

    assert ["a again"] == pull_all(tap)
    assert not tap.has_trial


@pytest.mark.parametrize("is_fenced", [True, False])
async def test_s1_6_a_suspect_that_was_acknowledged_is_not_put_aside(poisoned, is_fenced):
    outbox, receipts = poisoned(is_fenced)
    letters = []
    tap = Tap(outbox, is_fenced=is_fenced, quarantine=lambda *letter: letters.append(letter))
    entry = tap.pull()
    outbox.acknowledge(receipts[0].id, accepted=True)
    tap.close(1009)

    assert not entry.is_open
    assert [] == letters


async def test_s1_6_lifting_the_fences_acquits_what_is_on_trial(poisoned):
    outbox, _ = poisoned(True)
    tap = Tap(outbox, is_fenced=True)
    pull_all(tap)
    tap.lift_fence()

    assert not tap.has_trial
    assert ["b again"] == pull_all(tap)


@pytest.mark.parametrize("is_fenced", [True, False])
@pytest.mark.parametrize("code", [1003, 1007, 1009])
async def test_s1_6_the_one_that_is_in_flight_at_the_next_such_end_is_quarantined(
    poisoned, code, is_fenced
):
    outbox, receipts = poisoned(is_fenced)
    letters = []
    tap = Tap(
        outbox,
        is_fenced=is_fenced,
        quarantine=lambda entry, cause: letters.append((entry.plain, entry.receipt.outcome, cause)),
    )
    pull_all(tap)
    tap.close(code)

    cause = "2 connections in a row ended with it in flight, the last one alone"
    # Told before it has its outcome: then nobody has the message any more.
    assert [("a", None, cause)] == letters
    assert [Outcome.QUARANTINED, None, None] == outcomes(receipts)
    assert Truth.UNKNOWN is receipts[0].truth
    # The others are tried in turn.
    assert ["b again"] == lose(outbox, code, is_fenced=is_fenced)
    assert ["c"] == lose(outbox, is_fenced=is_fenced)
    assert [Outcome.QUARANTINED, Outcome.QUARANTINED, None] == outcomes(receipts)


@pytest.mark.parametrize("is_fenced", [True, False])
async def test_s1_6_after_three_losses_the_fourth_alone_is_enough(outbox, is_fenced):
    accept(outbox, "a", ACKED)
    for _ in range(4):
        assert {} == outbox.outcomes
        lose(outbox, 1006, is_fenced=is_fenced)

    assert {Outcome.QUARANTINED: 1} == outbox.outcomes


async def test_s1_6_a_trial_that_ends_with_any_loss_goes_on(poisoned):
    outbox, receipts = poisoned(True)

    assert ["a again"] == lose(outbox, 1006)
    assert [None] * 3 == outcomes(receipts)
    assert ["a again"] == lose(outbox, 1009)
    assert Outcome.QUARANTINED is receipts[0].outcome


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


async def test_s1_6_only_what_goes_again_can_be_poison(outbox):
    receipts = [accept(outbox, "direct", DIRECT), accept(outbox, "queued")]
    lose(outbox, 1009)

    assert [Outcome.LOST_UNKNOWN] * 2 == outcomes(receipts)
    accept(outbox, "next", ACKED)

    assert ["next"] == lose(outbox)


# --- a strategy that raises ---------------------------------------------------------------------


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
