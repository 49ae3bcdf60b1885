"""What became of one message."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import trio
import trio.testing

from wsclient.errors import DeliveryError
from wsclient.events import Delivery, Outcome, Truth
from wsclient.options import Limits
from wsclient.session._outbox import Outbox
from wsclient.session._receipt import Progress, Receipt
from wsclient.session._tap import Tap


async def accept(outbox, message):
    return await outbox.accept(outbox.offer(message))


def accept_nowait(outbox, message):
    return outbox.accept_nowait(outbox.offer(message))


@pytest.fixture
def outbox():
    return Outbox(Limits())


async def test_a_receipt_is_open_until_the_message_has_an_outcome(outbox):
    receipt = accept_nowait(outbox, "a")

    assert None is receipt.outcome
    assert Truth.CERTAINLY_NOT is receipt.truth
    entry = Tap(outbox).pull()

    assert None is receipt.outcome
    assert Truth.UNKNOWN is receipt.truth
    entry.written()

    assert Outcome.WRITTEN is receipt.outcome
    assert Truth.UNKNOWN is receipt.truth


async def test_waiting_gives_the_outcome_to_everyone_who_waits(outbox, autojump_clock, nursery):
    receipt = accept_nowait(outbox, "a")
    seen = []

    async def wait():
        seen.append((await receipt.wait(), trio.current_time()))

    for _ in range(3):
        nursery.start_soon(wait)
    await trio.sleep(2)
    Tap(outbox).pull().written()
    await trio.testing.wait_all_tasks_blocked()

    assert [(Outcome.WRITTEN, 2.0)] * 3 == seen
    assert Outcome.WRITTEN is await receipt.wait()


async def test_cancelling_before_it_is_drawn_means_never_written(outbox):
    kept, taken_back = (
        accept_nowait(outbox, "kept"),
        accept_nowait(outbox, "taken back"),
    )

    assert taken_back.cancel()
    assert Outcome.CANCELLED is taken_back.outcome
    assert Truth.CERTAINLY_NOT is taken_back.truth
    tap = Tap(outbox)

    assert "kept" == tap.pull().message
    assert None is tap.pull()
    assert None is kept.outcome


async def test_cancelling_twice_is_as_true_as_once(outbox):
    receipt = accept_nowait(outbox, "a")

    assert [True, True] == [receipt.cancel(), receipt.cancel()]
    assert {Outcome.CANCELLED: 1} == outbox.outcomes


async def test_cancelling_what_is_being_written_says_no_and_changes_nothing(outbox):
    receipt = accept_nowait(outbox, "a")
    entry = Tap(outbox).pull()

    assert not receipt.cancel()
    assert None is receipt.outcome
    entry.written()

    assert not receipt.cancel()
    assert Outcome.WRITTEN is receipt.outcome


async def test_cancelling_what_was_lost_says_no(outbox):
    receipt = accept_nowait(outbox, "a")
    tap = Tap(outbox)
    tap.pull()
    tap.close()

    assert not receipt.cancel()
    assert Outcome.LOST_UNKNOWN is receipt.outcome


async def test_cancelling_what_the_channels_end_cancelled_says_yes(outbox):
    receipt = accept_nowait(outbox, "a")
    outbox.settle()

    assert receipt.cancel()


async def test_cancelling_wakes_whoever_waits_for_the_outcome(outbox, nursery):
    receipt = accept_nowait(outbox, "a")
    seen = []

    async def wait():
        seen.append(await receipt.wait())

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    receipt.cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert [Outcome.CANCELLED] == seen


async def test_waiting_can_be_cancelled(outbox, autojump_clock):
    receipt = accept_nowait(outbox, "a")
    with trio.move_on_after(1) as scope:
        await receipt.wait()

    assert scope.cancelled_caught
    assert None is receipt.outcome


async def test_a_receipt_prints_what_is_known(outbox):
    receipt = accept_nowait(outbox, "a secret")

    assert "<Receipt accepted>" == repr(receipt)
    entry = Tap(outbox).pull()

    assert "<Receipt begun>" == repr(receipt)
    entry.written()

    assert "<Receipt written>" == repr(receipt)


async def test_a_receipt_that_has_its_outcome_keeps_no_message_alive(outbox):
    receipt = accept_nowait(outbox, "a")
    Tap(outbox).pull().written()

    assert None is receipt._withdraw


# --- how far it has come ------------------------------------------------------------------------


def make(delivery=Delivery.QUEUED, key=None, **options):
    return Receipt(lambda: None, delivery, key, **options)


def test_progress_never_goes_back():
    receipt = make()
    seen = []
    for progress in (1, 0, 2, 1, 3, 1, 2, 0, 3):
        receipt._advance(Progress(progress))
        seen.append(int(receipt._progress))

    assert [1, 1, 2, 2, 3, 3, 3, 3, 3] == seen


# All that can be: nothing is read that was not begun, nothing dropped that was.
@pytest.mark.parametrize(
    ("progress", "outcome", "truth"),
    [
        (Progress.ACCEPTED, None, Truth.CERTAINLY_NOT),
        (Progress.ACCEPTED, Outcome.CANCELLED, Truth.CERTAINLY_NOT),
        (Progress.ACCEPTED, Outcome.DROPPED, Truth.CERTAINLY_NOT),
        (Progress.ACCEPTED, Outcome.EXPIRED, Truth.CERTAINLY_NOT),
        (Progress.BEGUN, None, Truth.UNKNOWN),
        (Progress.BEGUN, Outcome.LOST_UNKNOWN, Truth.UNKNOWN),
        (Progress.BEGUN, Outcome.EXPIRED, Truth.UNKNOWN),
        (Progress.BEGUN, Outcome.QUARANTINED, Truth.UNKNOWN),
        (Progress.BEGUN, Outcome.REJECTED, Truth.UNKNOWN),
        (Progress.BEGUN, Outcome.RECEIVED, Truth.CERTAIN),
        (Progress.BEGUN, Outcome.ACKED, Truth.CERTAIN),
        (Progress.WRITTEN, None, Truth.UNKNOWN),
        (Progress.WRITTEN, Outcome.WRITTEN, Truth.UNKNOWN),
        (Progress.WRITTEN, Outcome.LOST_UNKNOWN, Truth.UNKNOWN),
        (Progress.WRITTEN, Outcome.ACKED, Truth.CERTAIN),
        (Progress.FENCED, None, Truth.CERTAIN),
        (Progress.FENCED, Outcome.RECEIVED, Truth.CERTAIN),
        (Progress.FENCED, Outcome.ACKED, Truth.CERTAIN),
        (Progress.FENCED, Outcome.REJECTED, Truth.CERTAIN),
        (Progress.FENCED, Outcome.LOST_UNKNOWN, Truth.CERTAIN),
    ],
)
def test_s1_1_the_truth_follows_from_what_is_known(progress, outcome, truth):
    receipt = make()
    receipt._advance(progress)
    if outcome is not None:
        receipt._resolve(outcome)

    assert truth is receipt.truth


def test_i1_the_first_outcome_stands():
    receipt = make()

    assert [True, False] == [
        receipt._resolve(Outcome.RECEIVED),
        receipt._resolve(Outcome.LOST_UNKNOWN),
    ]
    assert Outcome.RECEIVED is receipt.outcome


def test_a_receipt_says_what_was_promised_and_by_which_id():
    acked, queued = make(Delivery.ACKED, "5f0c"), make()

    assert (Delivery.ACKED, "5f0c") == (acked.delivery, acked.id)
    assert (Delivery.QUEUED, None) == (queued.delivery, queued.id)


# --- waiting for what the peer says -------------------------------------------------------------


async def test_s1_2_received_returns_when_the_reading_is_proven_and_there_is_no_outcome_yet(
    autojump_clock, nursery
):
    receipt = make(Delivery.ACKED, "1")
    returned_at = []

    async def wait():
        await receipt.received()
        returned_at.append(trio.current_time())

    nursery.start_soon(wait)
    for progress in (Progress.BEGUN, Progress.WRITTEN, Progress.FENCED):
        await trio.sleep(1)
        receipt._advance(progress)
    await trio.sleep(1)

    assert [3] == returned_at
    assert None is receipt.outcome
    # Whoever comes later does not wait.
    await receipt.received()

    assert 4 == trio.current_time()


@pytest.mark.parametrize("outcome", [Outcome.RECEIVED, Outcome.ACKED])
async def test_s1_2_received_returns_with_an_outcome_that_proves_it(
    autojump_clock, nursery, outcome
):
    receipt = make()
    nursery.start_soon(receipt.received)
    await trio.sleep(1)
    receipt._resolve(outcome)
    await receipt.received()


@pytest.mark.parametrize(
    ("progress", "outcome"),
    [
        (Progress.ACCEPTED, Outcome.CANCELLED),
        (Progress.BEGUN, Outcome.LOST_UNKNOWN),
        (Progress.WRITTEN, Outcome.WRITTEN),
        (Progress.WRITTEN, Outcome.REJECTED),
    ],
)
async def test_received_raises_where_nothing_proves_it(autojump_clock, progress, outcome):
    receipt = make()
    raised = []

    async def wait():
        with pytest.raises(DeliveryError) as caught:
            await receipt.received()
        raised.append((caught.value.outcome, caught.value.truth))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        receipt._advance(progress)
        receipt._resolve(outcome)

    assert [(outcome, receipt.truth)] == raised


async def test_what_was_read_stays_read_whatever_comes_of_it():
    receipt = make(Delivery.ACKED, "1")
    receipt._advance(Progress.FENCED)
    receipt._resolve(Outcome.LOST_UNKNOWN)

    await receipt.received()


async def test_acked_waits_for_the_peers_word_and_no_fence_is_one(autojump_clock, nursery):
    receipt = make(Delivery.ACKED, "1")
    returned_at = []

    async def wait():
        await receipt.acked()
        returned_at.append(trio.current_time())

    nursery.start_soon(wait)
    await trio.sleep(1)
    receipt._advance(Progress.FENCED)
    await trio.sleep(1)
    receipt._resolve(Outcome.ACKED)
    await trio.testing.wait_all_tasks_blocked()

    assert [2] == returned_at


@pytest.mark.parametrize(
    "outcome", [Outcome.REJECTED, Outcome.EXPIRED, Outcome.QUARANTINED, Outcome.LOST_UNKNOWN]
)
async def test_acked_raises_with_any_other_outcome(outcome):
    receipt = make(Delivery.ACKED, "1")
    receipt._advance(Progress.FENCED)
    receipt._resolve(outcome)
    with pytest.raises(DeliveryError) as caught:
        await receipt.acked()

    assert (outcome, Truth.CERTAIN) == (caught.value.outcome, caught.value.truth)


@pytest.mark.parametrize("delivery", [Delivery.DIRECT, Delivery.QUEUED])
async def test_acked_waits_for_nothing_that_cannot_come(delivery):
    with pytest.raises(ValueError, match=r"await received\(\)"):
        await make(delivery).acked()


@pytest.mark.parametrize("wait", [Receipt.wait, Receipt.received, Receipt.acked])
async def test_s1_3_waiting_is_a_checkpoint_even_where_the_outcome_is_known(wait):
    receipt = make(Delivery.ACKED, "1")
    receipt._resolve(Outcome.ACKED)
    with trio.testing.assert_checkpoints():
        await wait(receipt)
    with trio.CancelScope() as scope:
        scope.cancel()
        await wait(receipt)

    assert scope.cancelled_caught


@pytest.mark.parametrize("wait", [Receipt.wait, Receipt.received, Receipt.acked])
async def test_s1_3_a_cancelled_wait_takes_nothing_back(autojump_clock, wait):
    receipt = make(Delivery.ACKED, "1")
    with trio.move_on_after(1) as scope:
        await wait(receipt)

    assert scope.cancelled_caught
    assert None is receipt.outcome
    receipt._resolve(Outcome.ACKED)
    await wait(receipt)


async def test_s2_6_who_waits_for_the_peers_word_lets_reading_go_on_and_nobody_else_does(
    autojump_clock, nursery
):
    steps = []

    @contextmanager
    def overrun():
        steps.append("waits")
        yield
        steps.append("done")

    receipt = make(wait_scope=overrun)
    nursery.start_soon(receipt.received)
    nursery.start_soon(receipt.wait)
    await trio.testing.wait_all_tasks_blocked()

    assert ["waits"] * 2 == steps
    receipt._advance(Progress.FENCED)
    await trio.testing.wait_all_tasks_blocked()

    assert ["waits", "waits", "done"] == steps
    receipt._resolve(Outcome.RECEIVED)
    await trio.testing.wait_all_tasks_blocked()
    # What is known needs no reading.
    await receipt.wait()

    assert ["waits", "waits", "done", "done"] == steps


def test_cancelling_asks_for_the_message_only_as_long_as_nothing_of_it_was_written():
    asked = []
    receipt = Receipt(lambda: asked.append(True))

    # Whoever was asked may refuse.
    assert not receipt.cancel()
    receipt._advance(Progress.BEGUN)

    assert not receipt.cancel()
    assert [True] == asked


def test_what_was_begun_once_and_then_cancelled_may_have_been_written():
    receipt = make()
    receipt._advance(Progress.BEGUN)
    receipt._resolve(Outcome.CANCELLED)

    assert not receipt.cancel()


def test_a_receipt_with_an_outcome_prints_that():
    receipt = make()
    receipt._advance(Progress.FENCED)

    assert "<Receipt fenced>" == repr(receipt)
    receipt._resolve(Outcome.ACKED)

    assert "<Receipt acknowledged>" == repr(receipt)
