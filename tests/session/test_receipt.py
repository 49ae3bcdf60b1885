"""What became of one message."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wsclient.events import Outcome, Truth
from wsclient.options import Limits
from wsclient.session._outbox import Outbox
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
