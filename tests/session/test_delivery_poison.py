"""Messages that a peer cannot bear (S1.6): tried one at a time, and put aside in the end."""

from __future__ import annotations

import pytest
import tenacity
import trio
import trio.testing

import wsclient
from wsclient.events import (
    ChannelState,
    DeadLetter,
    Delivery,
    HandlerFailed,
    MessageQuarantined,
    Outcome,
    Truth,
)
from wsclient.options import DeliveryOptions, RetryPolicy, SendRate
from wsclient.testing import NONE, Fault, FaultServer

SUSPICIOUS = [1003, 1007, 1009]


async def settle_down():
    await trio.testing.wait_all_tasks_blocked()


async def listen(heard):
    while await heard.listen():
        pass


async def send_all(channel, *messages):
    return [await channel.send(message, delivery=Delivery.ACKED) for message in messages]


async def hear_all(by_hand, count):
    """The next connection, when that many messages were heard on it."""
    heard = await by_hand.accept()
    await heard.hear(count)
    return heard


@pytest.mark.parametrize("code", SUSPICIOUS)
async def test_s1_6_suspects_go_one_at_a_time_and_the_last_one_in_flight_is_quarantined(
    autojump_clock, by_hand, nursery, said, recorder, code
):
    letters = []
    async with by_hand.open_channel(dead_letter=letters.append, observers=[recorder]) as channel:
        good, poison, behind = await send_all(channel, "good", "poison", "behind")
        first = await hear_all(by_hand, 3)
        await first.leave(code)
        await channel.wait_state(ChannelState.WAITING)
        newer = await channel.send("newer")
        second = await by_hand.accept()
        began = trio.current_time()
        # Alone, and with a fence behind it at once.
        await second.hear_pings(1)
        await settle_down()

        assert ["good"] == said(second.messages)
        await second.pong()
        await second.hear(2)
        nursery.start_soon(listen, second)
        await settle_down()

        assert (["good", "poison"], 2) == (said(second.messages), len(second.pings))
        assert began == trio.current_time()
        assert [] == letters
        await second.leave(code)

        assert Outcome.QUARANTINED is await poison.wait()
        assert Truth.UNKNOWN is poison.truth
        cause = "2 connections in a row ended with it in flight, the last one alone"

        assert [DeadLetter(message="poison", id=poison.id, attempts=2, cause=cause)] == letters
        told = [(e.id, e.attempts, e.cause) for e in recorder.of(MessageQuarantined)]

        assert [(poison.id, 2, cause)] == told
        third = await by_hand.accept()
        nursery.start_soon(third.serve)
        for receipt in (good, behind):
            await receipt.acked()
        await newer.received()

        # What was acquitted and what nobody had tried yet.
        assert ["good", "behind", "newer"] == said(third.messages)


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 4000, None])
async def test_s1_6_one_loss_of_another_kind_makes_nobody_a_suspect(
    autojump_clock, by_hand, nursery, said, code
):
    decide = RetryPolicy(wait=tenacity.wait_none(), classify=lambda *_: wsclient.Retry("always"))
    async with by_hand.open_channel(retry=decide) as channel:
        await send_all(channel, "one", "two")
        for _ in range(3):
            heard = await hear_all(by_hand, 2)

            assert ["one", "two"] == said(heard.messages)
            if code is None:
                heard.die()
            else:
                await heard.leave(code)
        # The third time is no chance.
        fourth = await hear_all(by_hand, 1)
        await settle_down()

        assert not await _says_more(fourth)
        nursery.start_soon(fourth.serve)
        await fourth.acknowledge(fourth.messages[0])


async def _says_more(heard):
    count = len(heard.messages)
    with trio.move_on_after(5):
        await listen(heard)
    return len(heard.messages) > count


async def test_s1_6_three_losses_in_a_row_make_a_suspect_and_a_fourth_a_dead_letter(
    autojump_clock, by_hand, nursery, said
):
    async with by_hand.open_channel() as channel:
        one, two = await send_all(channel, "one", "two")
        for _ in range(3):
            (await hear_all(by_hand, 2)).die()
        (await hear_all(by_hand, 1)).die()

        assert Outcome.QUARANTINED is await one.wait()
        last = await by_hand.accept()
        nursery.start_soon(last.serve)

        assert Outcome.ACKED is await two.wait()
        assert ["two"] == said(last.messages)


async def test_s1_6_losses_count_only_in_a_row(autojump_clock, by_hand, nursery, said):
    async with by_hand.open_channel() as channel:
        await send_all(channel, "one", "two")
        for _ in range(3):
            for _ in range(2):
                (await hear_all(by_hand, 2)).die()
            heard = await hear_all(by_hand, 2)
            await heard.hear_pings(1)
            await heard.pong()
            await settle_down()
            # It was read: this loss is not theirs.
            heard.die()
        heard = await hear_all(by_hand, 2)

        assert ["one", "two"] == said(heard.messages)
        for message in heard.messages:
            await heard.acknowledge(message)


async def test_s1_6_what_was_fenced_is_no_suspect(autojump_clock, by_hand, nursery, said):
    async with by_hand.open_channel() as channel:
        await send_all(channel, "one", "two")
        first = await hear_all(by_hand, 2)
        await first.hear_pings(1)
        await first.pong()
        await settle_down()
        suspect = await channel.send("suspect", delivery=Delivery.ACKED)
        await first.hear(3)
        await first.leave(1009)
        second = await hear_all(by_hand, 2)

        assert ["one", "two"] == said(second.messages)
        # With a proof for what was before it.
        nursery.start_soon(second.serve)
        for message in list(second.messages):
            await second.acknowledge(message)
        await suspect.acked()

        assert ["one", "two", "suspect"] == said(second.messages)


async def test_s1_6_queued_is_lost_and_not_quarantined(autojump_clock, by_hand, nursery, recorder):
    async with by_hand.open_channel(observers=[recorder]) as channel:
        for _ in range(2):
            receipt = await channel.send("queued")
            heard = await hear_all(by_hand, 1)
            await heard.leave(1009)

            assert Outcome.LOST_UNKNOWN is await receipt.wait()
        nursery.start_soon((await by_hand.accept()).serve)
    assert [] == recorder.of(MessageQuarantined)


async def test_s1_6_everything_newer_waits_for_the_trial_to_end(
    autojump_clock, by_hand, nursery, said
):
    async with by_hand.open_channel() as channel:
        (suspect,) = await send_all(channel, "suspect")
        await (await hear_all(by_hand, 1)).leave(1009)
        second = await hear_all(by_hand, 1)
        await channel.send("queued")
        direct = channel.send_nowait("direct", delivery=Delivery.DIRECT)

        assert not await _says_more(second)
        # The peer's word on it will do as well as a pong.
        await second.acknowledge(second.messages[0])
        await second.hear(3)

        assert ["suspect", "queued", "direct"] == said(second.messages)
        assert Outcome.ACKED is suspect.outcome
        nursery.start_soon(second.serve)
        await direct.received()


async def test_s1_6_our_own_leaving_quarantines_nothing(autojump_clock, by_hand, recorder):
    async with by_hand.open_channel(observers=[recorder]) as channel:
        (receipt,) = await send_all(channel, "suspect")
        for _ in range(4):
            last = await hear_all(by_hand, 1)
            if channel.epoch < 4:
                last.die()
        await channel.aclose()

        assert Outcome.LOST_UNKNOWN is receipt.outcome
    assert [] == recorder.of(MessageQuarantined)


# --- the hook ------------------------------------------------------------------------------------


async def quarantine_one(by_hand, channel):
    """Have a message quarantined; return its receipt."""
    (receipt,) = await send_all(channel, "poison")
    for _ in range(2):
        await (await hear_all(by_hand, 1)).leave(1009)

    assert Outcome.QUARANTINED is await receipt.wait()
    return receipt


async def test_s1_6_a_dead_letter_hook_that_raises_is_told_and_hurts_nobody(
    autojump_clock, by_hand, nursery, recorder
):
    def bury(letter):
        raise LookupError(letter.message)

    async with by_hand.open_channel(dead_letter=bury, observers=[recorder]) as channel:
        await quarantine_one(by_hand, channel)
        last = await by_hand.accept()
        nursery.start_soon(last.serve)
        await channel.send("last")

        assert await channel.flush() is True
        assert ["last"] == last.messages
    failed = recorder.of(HandlerFailed)

    assert ["dead letter"] == [event.subject for event in failed]
    assert failed[0].handler.endswith("bury")
    assert "poison" == failed[0].error.args[0]


async def test_s1_6_a_dead_letter_hook_may_send(autojump_clock, by_hand, nursery):
    async with by_hand.open_channel(
        dead_letter=lambda letter: channel.send_nowait(f"lost: {letter.message}")
    ) as channel:
        await quarantine_one(by_hand, channel)
        last = await by_hand.accept()

        assert ["lost: poison"] == await last.hear(1)
        nursery.start_soon(last.serve)


# --- where nothing is fenced ---------------------------------------------------------------------


async def test_s1_6_without_fences_the_suspects_go_one_at_a_time_too(
    autojump_clock, by_hand, nursery, said
):
    async with by_hand.open_channel(fence=False, fence_timeout=30) as channel:
        receipts = await send_all(channel, "acked", "borne", "poison")
        await (await hear_all(by_hand, 3)).leave(1009)
        second = await hear_all(by_hand, 1)

        assert not await _says_more(second)
        await second.acknowledge(second.messages[0])
        await second.hear(2)
        began = trio.current_time()
        await second.hear(3)

        # The connection has lived on with it for as long as a fence would have been waited for.
        assert 30 == trio.current_time() - began
        await second.leave(1009)

        assert Outcome.QUARANTINED is await receipts[2].wait()
        third = await by_hand.accept()
        nursery.start_soon(third.serve)

        assert [Outcome.ACKED] * 2 == [await receipt.wait() for receipt in receipts[:2]]
        assert ["borne"] == said(third.messages)


@pytest.mark.parametrize("rate", [None, SendRate(messages=1, seconds=0.1)])
async def test_s1_6_a_suspect_goes_as_soon_as_what_was_before_it_is_written(rate):
    """Over a socket: what is taken at once wakes no writer."""

    async def hook(connection):
        await trio.sleep(0.01)  # So that the writer is idle.

    story = [
        Fault.close(1009, after_messages=2),  # Both are suspects,
        Fault.reset(after_messages=2),  # the first is acquitted before the second goes,
        NONE,  # and here they go in one breath.
    ]
    options = DeliveryOptions(
        fence=False,
        fence_timeout=0.1,
        rate=rate,
        acknowledgement=wsclient.JsonAcknowledgement(),
    )
    async with (
        FaultServer(story) as server,
        wsclient.open_channel(
            server.url,
            on_connect=hook,
            retry=RetryPolicy(wait=tenacity.wait_none()),
            delivery=options,
            observers=(),
        ) as channel,
    ):
        await send_all(channel, '{"number": 1}', '{"number": 2}')
        with trio.fail_after(5):
            await server.wait_messages(6)

        assert [2, 2, 2] == [len(visit.messages) for visit in server.connections]
        await channel.aclose()
