"""Requests through a whole channel: the reply, or the truth about the request."""

from __future__ import annotations

import json
import math

import pytest
import trio
import trio.testing

import wsclient
from wsclient import (
    Delivery,
    DeliveryOptions,
    FunctionCorrelation,
    Gap,
    JsonCorrelation,
    JsonRpcCorrelation,
    JsonRpcError,
    Limits,
    Outcome,
    Reply,
    RequestLost,
    RequestTimeout,
    Truth,
)
from wsclient.errors import ChannelFailed, InboxFull, NotConnected
from wsclient.events import HandlerFailed
from wsclient.session import _requests
from wsclient.testing import Fault, FaultServer

ASK = {"op": "ask"}
JSON = JsonCorrelation()


@pytest.fixture
def open_channel(by_hand):
    """Opens a channel to the server that the test plays, with a correlation."""

    def open_channel(correlation=JSON, **options):
        return by_hand.open_channel(correlation=correlation, **options)

    return open_channel


class Asked:
    """A request in a task of its own, and what it gave."""

    def __init__(self, nursery, channel, message=ASK, **options):
        self.value = self.error = None
        self.is_over = trio.Event()
        self.scope = trio.CancelScope()
        nursery.start_soon(self._ask, channel, message, options)

    async def _ask(self, channel, message, options):
        with self.scope:
            try:
                self.value = await channel.request(message, **options)
            except (wsclient.WebSocketError, trio.ClosedResourceError) as error:
                self.error = error
        self.is_over.set()

    async def outcome(self):
        await self.is_over.wait()
        return self.value if self.error is None else self.error


async def settled():
    await trio.testing.wait_all_tasks_blocked()


async def reply(peer, number, **more):
    await peer.say(json.dumps({"id": number} | more))


# --- replies --------------------------------------------------------------------------------------


async def test_a_request_gets_its_reply_and_who_receives_does_not(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        peer = await by_hand.accept()
        asked = Asked(nursery, channel)

        assert [{"op": "ask", "id": 1}] == [json.loads(text) for text in await peer.hear(1)]
        assert 1 == channel.statistics().requests_waiting
        await peer.say("news")
        await reply(peer, 1, balance=7)
        await peer.say("more news")

        assert {"id": 1, "balance": 7} == await asked.outcome()
        assert ["news", "more news"] == [await channel.receive() for _ in range(2)]
        assert 0 == channel.statistics().requests_waiting
        nursery.start_soon(peer.serve)


async def test_replies_come_in_any_order(autojump_clock, by_hand, nursery, open_channel):
    async with open_channel() as channel:
        peer = await by_hand.accept()
        requests = []
        for _ in range(5):
            requests.append(Asked(nursery, channel))
            await settled()
        await peer.hear(5)
        for number in (4, 2, 5, 1, 3):
            await reply(peer, number)

        assert [1, 2, 3, 4, 5] == [(await asked.outcome())["id"] for asked in requests]
        nursery.start_soon(peer.serve)


async def test_a_refusal_is_raised(autojump_clock, by_hand, nursery, open_channel):
    async with open_channel(JsonRpcCorrelation()) as channel:
        peer = await by_hand.accept()
        asked = Asked(nursery, channel, {"method": "fly"})
        await peer.hear(1)
        await reply(peer, 1, error={"code": -32601, "message": "no such method"})
        error = await asked.outcome()

        assert isinstance(error, JsonRpcError)
        assert -32601 == error.code
        nursery.start_soon(peer.serve)


async def test_a_request_is_kept_while_there_is_no_connection(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        asked = Asked(nursery, channel)
        await settled()
        peer = await by_hand.accept()
        await peer.hear(1)
        await reply(peer, 1)

        assert {"id": 1} == await asked.outcome()
        nursery.start_soon(peer.serve)


async def test_what_replies_to_nothing_is_a_message(autojump_clock, by_hand, nursery, open_channel):
    async with open_channel() as channel:
        peer = await by_hand.accept()
        asked = Asked(nursery, channel)
        await peer.hear(1)
        for number in (0, 2, 1, 1):
            await reply(peer, number)
        await asked.outcome()

        assert [0, 2] == [json.loads(await channel.receive())["id"] for _ in range(2)]
        # A second reply is no message: a request that has gone again may be replied to twice.
        await settled()
        assert 1 == channel.statistics().replies_late
        with pytest.raises(trio.WouldBlock):
            channel.receive_nowait()
        nursery.start_soon(peer.serve)


async def test_s2_6_a_request_inside_of_the_loop_that_receives_gets_its_reply(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(limits=Limits(inbox_messages=2)) as channel:
        peer = await by_hand.accept()
        for number in range(10):
            await peer.say(f"news {number}")

        async def answer():
            await peer.hear(1)
            await reply(peer, 1)
            await peer.serve()

        nursery.start_soon(answer)
        assert "news 0" == await channel.receive()
        assert {"id": 1} == await channel.request(ASK)
        # In order, and none lost.
        assert [f"news {n}" for n in range(1, 10)] == [await channel.receive() for _ in range(9)]


async def test_s2_6_a_reply_that_cannot_be_read_is_told(
    autojump_clock, by_hand, nursery, open_channel
):
    limits = Limits(inbox_messages=1, inbox_overrun=100)
    async with open_channel(limits=limits) as channel:
        peer = await by_hand.accept()
        asked = Asked(nursery, channel)
        await peer.hear(1)
        for _ in range(20):
            await peer.say("x" * 50)

        assert isinstance(await asked.outcome(), InboxFull)
        await channel.aclose()


# --- in time --------------------------------------------------------------------------------------


async def test_a_reply_that_does_not_come_is_a_timeout_with_the_truth(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        peer = await by_hand.accept()
        asked = Asked(nursery, channel)
        nursery.start_soon(peer.serve)
        began = trio.current_time()
        error = await asked.outcome()

        assert isinstance(error, RequestTimeout)
        assert 30 == trio.current_time() - began
        # The pong of a fence has proven that.
        assert (Outcome.RECEIVED, Truth.CERTAIN) == (error.outcome, error.truth)
        assert "no reply came in time" in str(error)


async def test_a_reply_that_comes_as_the_time_is_over_is_given(
    autojump_clock, by_hand, nursery, open_channel
):
    async def accept_and_answer(entry):
        receipt = await accept(entry)
        assert channel._requests.answer(wsclient.Reply(1, "in time"), 7)
        autojump_clock.jump(5)
        return receipt

    async with open_channel() as channel:
        accept, channel._accept = channel._accept, accept_and_answer
        peer = await by_hand.accept()

        assert "in time" == await channel.request(ASK, timeout=5)
        nursery.start_soon(peer.serve)


async def test_a_request_that_nobody_waits_for_is_not_sent_after_the_outage(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        late = Asked(nursery, channel, timeout=2)
        cancelled = Asked(nursery, channel, timeout=math.inf)
        error = await late.outcome()

        assert isinstance(error, RequestTimeout)
        assert Truth.CERTAINLY_NOT is error.truth
        cancelled.scope.cancel()
        await cancelled.outcome()
        peer = await by_hand.accept()
        await channel.send("alone")

        assert ["alone"] == await peer.hear(1)
        nursery.start_soon(peer.serve)


async def test_a_late_reply_is_counted_and_goes_no_further(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        peer = await by_hand.accept()
        late = Asked(nursery, channel, timeout=1)
        cancelled = Asked(nursery, channel)
        await peer.hear(2)
        cancelled.scope.cancel()
        await late.outcome()
        for number in (2, 1):
            await reply(peer, number)
        await peer.say("news")

        assert "news" == await channel.receive()
        assert 2 == channel.statistics().replies_late
        nursery.start_soon(peer.serve)


async def test_only_so_many_requests_that_are_over_are_remembered(
    autojump_clock, by_hand, nursery, open_channel, monkeypatch
):
    monkeypatch.setattr(_requests, "REMEMBERED", 10)
    async with open_channel(fence=False) as channel:
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
        for _ in range(11):
            with trio.move_on_after(0.01):
                await channel.request(ASK)
        for number in (1, 2):
            await reply(peer, number)

        assert {"id": 1} == json.loads(await channel.receive())
        await settled()
        assert 1 == channel.statistics().replies_late


# --- lost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_read", "outcome", "truth"),
    [
        pytest.param(True, Outcome.RECEIVED, Truth.CERTAIN, id="read"),
        pytest.param(False, Outcome.LOST_UNKNOWN, Truth.UNKNOWN, id="unknown"),
    ],
)
async def test_s1_7_a_connection_that_dies_takes_the_reply_with_it_and_the_truth_is_told(
    autojump_clock, by_hand, nursery, open_channel, is_read, outcome, truth
):
    async with open_channel() as channel:
        peer = await by_hand.accept()
        asked = Asked(nursery, channel)
        await peer.hear(1)
        if is_read:
            await peer.hear_pings(1)
            await peer.pong()
            await settled()
        peer.die()
        error = await asked.outcome()

        assert isinstance(error, RequestLost)
        assert (outcome, truth) == (error.outcome, error.truth)
        second = await by_hand.accept()
        # Not again, of itself.
        await channel.send("next")
        assert ["next"] == await second.hear(1)
        nursery.start_soon(second.serve)


async def test_s1_7_an_idempotent_request_goes_again(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        asked = Asked(nursery, channel, idempotent=True)
        for is_read in (True, False):
            peer = await by_hand.accept()
            await peer.hear(1)
            if is_read:
                await peer.hear_pings(1)
                await peer.pong()
                await settled()
            peer.die()
        peer = await by_hand.accept()

        assert {"op": "ask", "id": 1} == json.loads((await peer.hear(1))[0])
        await reply(peer, 1, balance=7)
        assert {"id": 1, "balance": 7} == await asked.outcome()
        nursery.start_soon(peer.serve)


async def test_s1_7_the_truth_is_about_every_time_that_it_was_sent(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        asked = Asked(nursery, channel, idempotent=True)
        peer = await by_hand.accept()
        await peer.hear(1)
        by_hand.refuse()
        peer.die()
        error = await asked.outcome()

        # The second time it was not written, and the first time it may have been read.
        assert isinstance(error, RequestTimeout)
        assert Truth.UNKNOWN is error.truth
        await channel.aclose()


async def test_s1_7_what_goes_again_by_itself_waits_for_its_reply_on(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(resend_unknown=True) as channel:
        asked = Asked(nursery, channel)
        peer = await by_hand.accept()
        await peer.hear(1)
        peer.die()
        peer = await by_hand.accept()
        await peer.hear(1)
        await reply(peer, 1)

        assert {"id": 1} == await asked.outcome()
        nursery.start_soon(peer.serve)


async def test_s1_7_a_request_that_waits_to_be_written_waits_on_when_a_connection_dies(
    autojump_clock, by_hand, nursery, open_channel
):
    hook = trio.Event()

    async def on_connect(connection):
        if not hook.is_set():
            hook.set()
            await trio.sleep_forever()

    async with open_channel(on_connect=on_connect) as channel:
        asked = Asked(nursery, channel)
        peer = await by_hand.accept()
        await hook.wait()
        peer.die()
        peer = await by_hand.accept()
        await peer.hear(1)
        await reply(peer, 1)

        assert {"id": 1} == await asked.outcome()
        nursery.start_soon(peer.serve)


async def test_s2_5_a_reply_to_the_same_number_on_an_older_connection_is_none(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        first = await by_hand.accept()
        asked = Asked(nursery, channel, idempotent=True)
        await first.hear(1)
        channel.reconnect("for the test")
        second = await by_hand.accept()
        await second.hear(1)
        await reply(first, 1, of="the first")
        await settled()
        assert not asked.is_over.is_set()
        await reply(second, 1, of="the second")

        assert "the second" == (await asked.outcome())["of"]
        nursery.start_soon(second.serve)


async def test_s3_7_a_connection_that_is_left_is_given_a_second_to_reply(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        first = await by_hand.accept()
        in_time = Asked(nursery, channel)
        await settled()
        too_late = Asked(nursery, channel)
        await first.hear(2)
        await first.hear_pings(1)
        await first.pong()
        left_at = trio.current_time()
        channel.reconnect("for the test")
        await trio.sleep(0.5)
        await reply(first, 1)

        assert {"id": 1} == await in_time.outcome()
        assert isinstance(await too_late.outcome(), RequestLost)
        assert 1 == trio.current_time() - left_at
        second = await by_hand.accept()
        nursery.start_soon(second.serve)


async def test_s1_8_a_direct_request_needs_a_connection(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        with pytest.raises(NotConnected):
            await channel.request(ASK, delivery=Delivery.DIRECT)
        peer = await by_hand.accept()
        await channel.wait_ready()
        asked = Asked(nursery, channel, delivery=Delivery.DIRECT)
        await peer.hear(1)
        await reply(peer, 2)

        assert {"id": 2} == await asked.outcome()
        asked = Asked(nursery, channel, delivery=Delivery.DIRECT)
        await peer.hear(2)
        peer.die()
        assert isinstance(await asked.outcome(), RequestLost)
        nursery.start_soon((await by_hand.accept()).serve)


async def test_s1_7_a_direct_request_that_cannot_go_again_says_what_became_of_it(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        peer = await by_hand.accept()
        await channel.wait_ready()
        asked = Asked(nursery, channel, delivery=Delivery.DIRECT, idempotent=True)
        await peer.hear(1)
        peer.die()
        error = await asked.outcome()

        assert isinstance(error, RequestLost)
        assert Truth.UNKNOWN is error.truth
        assert isinstance(error.__cause__, NotConnected)
        nursery.start_soon((await by_hand.accept()).serve)


@pytest.mark.parametrize("is_written", [True, False])
async def test_s7_3_no_request_outlives_the_channel(
    autojump_clock, by_hand, nursery, open_channel, is_written
):
    async with open_channel() as channel:
        asked = Asked(nursery, channel)
        if is_written:
            peer = await by_hand.accept()
            await peer.hear(1)
        await settled()
        await channel.aclose()
        error = await asked.outcome()

    assert isinstance(error, RequestLost)
    assert (Truth.UNKNOWN if is_written else Truth.CERTAINLY_NOT) is error.truth


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_request_that_is_lost_with_its_channel_says_why_that_has_given_up(
    autojump_clock, network, nursery, is_stream
):
    caught = []

    async def ask(channel):
        try:
            if is_stream:
                async with channel.stream({"what": 1}, timeout=60) as replies:
                    await anext(replies)
            else:
                await channel.request({"what": 1}, timeout=60)
        except RequestLost as error:
            caught.append(error)

    delivery = DeliveryOptions(correlation=wsclient.JsonCorrelation())
    with pytest.raises(ChannelFailed) as failed:
        async with (
            FaultServer([Fault.close(3003, after=1)], network=network) as server,
            wsclient.open_channel(server.url, delivery=delivery, observers=[]) as channel,
        ):
            nursery.start_soon(ask, channel)
            await channel.receive()

    await settled()
    assert [failed.value] == [error.__cause__ for error in caught]


async def test_s7_3_an_idempotent_request_that_cannot_go_again_says_what_became_of_it(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        peer = await by_hand.accept()
        asked = Asked(nursery, channel, idempotent=True)
        await peer.hear(1)
        await channel.aclose()
        error = await asked.outcome()

    assert isinstance(error, RequestLost)
    assert Truth.UNKNOWN is error.truth
    assert isinstance(error.__cause__, trio.ClosedResourceError)


async def test_a_request_on_a_closed_channel_is_told_so(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        nursery.start_soon((await by_hand.accept()).serve)
    with pytest.raises(trio.ClosedResourceError):
        await channel.request(ASK)


async def test_s7_3_a_channel_that_fails_ends_its_requests(
    autojump_clock, by_hand, nursery, open_channel
):
    with pytest.raises(ChannelFailed):
        async with open_channel() as channel:
            peer = await by_hand.accept()
            asked = Asked(nursery, channel)
            await peer.hear(1)
            await peer.leave(3003)
            await trio.sleep_forever()

    assert isinstance(await asked.outcome(), RequestLost)


# --- at every step --------------------------------------------------------------------------------


def test_a_request_that_is_cancelled_at_any_step_leaves_nothing(cancel_at_every_step):
    async def scenario(cancellation):
        async with trio.open_nursery() as nursery:
            with wsclient.testing.memory_network() as network:
                async with (
                    wsclient.testing.FaultServer(network=network, handler=answer) as server,
                    wsclient.open_channel(
                        server.url, delivery=DeliveryOptions(correlation=JSON), observers=()
                    ) as channel,
                ):
                    with cancellation.scope:
                        assert {"id": 1} == await channel.request(ASK)
                    assert 0 == channel.statistics().requests_waiting
                    with trio.fail_after(5):
                        assert {"id": 2} == await channel.request(ASK)
                    # A late reply is no message.
                    with pytest.raises(trio.WouldBlock):
                        channel.receive_nowait()
            nursery.cancel_scope.cancel()

    async def answer(connection):
        async for message in connection:
            await connection.send(json.dumps({"id": json.loads(message)["id"]}))

    assert cancel_at_every_step(scenario) > 10


# --- mistakes -------------------------------------------------------------------------------------


async def test_a_channel_without_a_correlation_says_what_it_needs(autojump_clock, by_hand):
    async with by_hand.open_channel() as channel:
        with pytest.raises(ValueError, match=r"DeliveryOptions\(correlation=…\)"):
            await channel.request(ASK)
        await channel.aclose()


@pytest.mark.parametrize(
    ("message", "options", "error", "text"),
    [
        (ASK, {"timeout": "1"}, TypeError, "timeout must be seconds, not str"),
        (ASK, {"timeout": -1}, ValueError, "timeout must be at least 0 seconds, not -1"),
        ("no object", {}, ValueError, "a request must be a JSON object"),
        (ASK, {"delivery": "queued"}, TypeError, "delivery must be"),
    ],
)
async def test_a_mistake_is_told_at_the_call(
    autojump_clock, open_channel, message, options, error, text
):
    async with open_channel() as channel:
        with pytest.raises(error, match=text):
            await channel.request(message, **options)

        assert 0 == channel.statistics().requests_waiting
        await channel.aclose()


@pytest.mark.parametrize(
    "recognise", [lambda message: message["id"], lambda message: "1"], ids=["raises", "no reply"]
)
async def test_a_correlation_that_fails_is_told_of_and_the_message_goes_on(
    autojump_clock, by_hand, nursery, open_channel, recorder, recognise
):
    strategy = wsclient.FunctionCorrelation(JSON.mark, recognise)
    async with open_channel(strategy, observers=[recorder]) as channel:
        peer = await by_hand.accept()
        asked = Asked(nursery, channel, timeout=1)
        await peer.hear(1)
        await reply(peer, 1)

        assert {"id": 1} == json.loads(await channel.receive())
        (failed,) = recorder.of(HandlerFailed)
        assert ("FunctionCorrelation", "reply") == (failed.handler, failed.subject)
        assert isinstance(await asked.outcome(), RequestTimeout)
        nursery.start_soon(peer.serve)


async def test_the_gap_between_connections_is_none_of_a_requests_business(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel() as channel:
        asked = Asked(nursery, channel, idempotent=True)
        peer = await by_hand.accept()
        await peer.hear(1)
        peer.die()
        peer = await by_hand.accept()
        await peer.hear(1)
        await reply(peer, 1)
        await asked.outcome()

        assert isinstance(await anext(channel.items()), Gap)
        nursery.start_soon(peer.serve)


# --- many replies ---------------------------------------------------------------------------------

PAGES = JsonCorrelation(more_field="more", error_field="error")


async def test_a_stream_gives_every_reply_up_to_the_last(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(PAGES) as channel:
        peer = await by_hand.accept()
        async with channel.stream(ASK) as replies:
            await peer.hear(1)
            await peer.say("news")
            for page in (1, 2, 3):
                await reply(peer, 1, page=page, more=page < 3)

            assert [1, 2, 3] == [found["page"] async for found in replies]
        assert "news" == await channel.receive()
        assert 0 == channel.statistics().requests_waiting
        nursery.start_soon(peer.serve)


async def test_a_reply_may_say_no_more_than_that_it_is_the_last(
    autojump_clock, by_hand, nursery, open_channel
):
    def recognise(message):
        number, _, text = message.partition(" ")
        if not number.isdecimal():
            return None
        return Reply(int(number), text, is_last=not text, is_empty=not text)

    correlation = FunctionCorrelation(lambda message, number: f"{number} {message}", recognise)
    async with open_channel(correlation) as channel:
        peer = await by_hand.accept()
        async with channel.stream("what") as replies:
            await peer.hear(1)
            for text in ("1 one", "1 two", "1 "):
                await peer.say(text)

            assert ["one", "two"] == [found async for found in replies]
        nursery.start_soon(peer.serve)


async def test_a_refusal_ends_a_stream_behind_what_has_come(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(PAGES) as channel:
        peer = await by_hand.accept()
        async with channel.stream(ASK) as replies:
            await peer.hear(1)
            await reply(peer, 1, page=1, more=True)
            await reply(peer, 1, error="no more")

            assert 1 == (await anext(replies))["page"]
            with pytest.raises(wsclient.ReplyError, match="no more"):
                await anext(replies)
        nursery.start_soon(peer.serve)


async def test_s1_7_a_stream_whose_connection_is_lost_gives_what_has_come_and_the_truth(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(PAGES) as channel:
        peer = await by_hand.accept()
        async with channel.stream(ASK) as replies:
            await peer.hear(1)
            await reply(peer, 1, page=1, more=True)
            await settled()
            peer.die()

            assert 1 == (await anext(replies))["page"]
            with pytest.raises(RequestLost) as caught:
                await anext(replies)
        assert Truth.CERTAINLY_NOT is not caught.value.truth
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)


async def test_each_reply_of_a_stream_must_come_in_time(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(PAGES) as channel:
        peer = await by_hand.accept()
        async with channel.stream(ASK, timeout=5) as replies:
            await peer.hear(1)
            for page in (1, 2):
                await trio.sleep(4)
                await reply(peer, 1, page=page, more=True)
                assert page == (await anext(replies))["page"]
            began_at = trio.current_time()
            with pytest.raises(RequestTimeout):
                await anext(replies)

            assert 5 == trio.current_time() - began_at
        nursery.start_soon(peer.serve)


async def test_a_stream_that_is_left_early_drops_and_counts_what_still_comes(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(PAGES) as channel:
        peer = await by_hand.accept()
        async with channel.stream(ASK) as replies:
            await peer.hear(1)
            await reply(peer, 1, page=1, more=True)
            await anext(replies)
        await reply(peer, 1, page=2, more=False)
        await peer.say("news")

        assert "news" == await channel.receive()
        assert 1 == channel.statistics().replies_late
        with pytest.raises(RuntimeError, match="inside of their"):
            await anext(replies)
        with pytest.raises(RuntimeError, match="sent once"):
            await replies.__aenter__()
        nursery.start_soon(peer.serve)


async def test_replies_that_nobody_takes_stop_the_reading_and_are_not_lost(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(PAGES, limits=Limits(inbox_messages=5)) as channel:
        peer = await by_hand.accept()
        async with channel.stream(ASK) as replies:
            await peer.hear(1)
            for page in range(50):
                await reply(peer, 1, page=page, more=page < 49)
            await peer.say("news")
            with trio.move_on_after(60) as patience:
                await channel.receive()
            assert patience.cancelled_caught

            assert list(range(50)) == [found["page"] async for found in replies]
            assert "news" == await channel.receive()
        nursery.start_soon(peer.serve)


async def test_a_stream_that_cannot_be_asked_for_in_time_says_so(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(PAGES, limits=Limits(outbox_messages=1)) as channel:
        await channel.send("first")
        with pytest.raises(RequestTimeout) as caught:
            async with channel.stream(ASK, timeout=3):
                raise AssertionError("it was not sent")
        assert Truth.CERTAINLY_NOT is caught.value.truth
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)


async def test_taking_a_reply_can_be_cancelled_and_loses_nothing(
    autojump_clock, by_hand, nursery, open_channel
):
    async with open_channel(PAGES) as channel:
        peer = await by_hand.accept()
        async with channel.stream(ASK) as replies:
            await peer.hear(1)
            with trio.move_on_after(1):
                await anext(replies)
            await reply(peer, 1, page=1, more=False)

            assert [1] == [found["page"] async for found in replies]
        nursery.start_soon(peer.serve)


async def test_a_stream_needs_a_correlation(autojump_clock, by_hand, nursery, open_channel):
    async with open_channel(None) as channel:
        with pytest.raises(ValueError, match="needs to know which reply is whose"):
            channel.stream(ASK)
        peer = await by_hand.accept()
        nursery.start_soon(peer.serve)
