"""What a service's protocol says to a channel, and what is so if it says nothing."""

from __future__ import annotations

import json

import pytest

import wsclient
from wsclient import (
    ApplicationPing,
    ConnectionOptions,
    Decision,
    DeliveryOptions,
    Fatal,
    HeartbeatOptions,
    JsonCorrelation,
    JsonRpcCorrelation,
    Limits,
    OverflowPolicy,
    Protocol,
    RetryPolicy,
)
from wsclient.errors import ChannelFailed, CodecError, ConnectionClosed
from wsclient.events import ConnectionOpened, LossKind
from wsclient.session._policy import Loss, Phase
from wsclient.testing import ScriptedServer

from .subscribing import Positioned, PubSub


def test_the_parameters_of_a_wish_are_not_printed():
    wish = wsclient.Wish(key="trades", parameters={"token": "s3cret"}, number=1)

    assert "s3cret" not in repr(wish)


class Whole(PubSub):
    """A service that has an opinion on everything."""

    subprotocols = ("feed.v1",)
    correlation = JsonCorrelation()
    heartbeat = ApplicationPing(build=lambda: '{"op": "ping"}', interval=3)

    async def establish(self, connection):
        await connection.send_message('{"op": "login"}')
        assert await connection.get_message() == '{"op": "welcome"}'

    def classify(self, loss, phase) -> Decision:
        return Fatal("this service said so")


@pytest.fixture
async def server(network):
    async with ScriptedServer(network=network, subprotocols=["feed.v1"]) as server:
        yield server


async def welcome(server):
    await server.expect({"op": "login"})
    await server.send({"op": "welcome"})


async def test_a_protocol_greets_the_service_before_the_users_hook(
    autojump_clock, server, recorder
):
    async def on_connect(connection):
        await connection.send_message("hello")

    async with wsclient.open_channel(
        server.url, protocol=Whole(), on_connect=on_connect, observers=[recorder]
    ) as channel:
        await welcome(server)
        await server.expect("hello")
        await channel.wait_ready()
    assert recorder.of(ConnectionOpened)[0].subprotocol == "feed.v1"


async def test_a_protocol_brings_the_heartbeat_of_the_service(autojump_clock, server):
    async with wsclient.open_channel(server.url, protocol=Whole(), observers=[]):
        await welcome(server)

        await server.expect({"op": "ping"})


async def test_a_protocol_brings_the_correlation_of_the_service(autojump_clock, server, nursery):
    async with wsclient.open_channel(server.url, protocol=Whole(), observers=[]) as channel:
        await welcome(server)

        async def answer():
            await server.expect({"op": "ask", "id": 1})
            await server.send({"id": 1, "value": 7})

        nursery.start_soon(answer)
        assert {"id": 1, "value": 7} == await channel.request({"op": "ask"})


async def test_a_protocol_says_what_a_loss_means(autojump_clock, server):
    with pytest.raises(ChannelFailed, match="this service said so"):
        async with wsclient.open_channel(server.url, protocol=Whole(), observers=[]) as channel:
            await welcome(server)
            await channel.wait_ready()
            await server.close(1001)
            await channel.receive()


async def test_what_the_options_say_goes_before_what_a_protocol_says(autojump_clock, server):
    ping = ApplicationPing(build=lambda: "mine", interval=3)
    correlation = JsonRpcCorrelation()
    async with wsclient.open_channel(
        server.url,
        protocol=Whole(),
        observers=[],
        connection=ConnectionOptions(subprotocols=["other"]),
        heartbeat=HeartbeatOptions(application=ping),
        delivery=DeliveryOptions(correlation=correlation),
        retry=RetryPolicy(classify=wsclient.classify),
        limits=Limits(inbox_messages=7),
    ) as channel:
        settings = channel._settings

        assert ("other",) == tuple(settings.connection.subprotocols)
        assert ping is settings.heartbeat.application
        assert wsclient.classify is settings.retry.classify
        assert correlation is channel._outbox.options.correlation
        assert channel._limits.inbox_overflow is OverflowPolicy.BLOCK


def test_a_protocol_that_says_nothing_is_json_without_subscriptions():
    protocol = Protocol()
    loss = Loss(kind=LossKind.CLOSED, error=ConnectionClosed(None), code=1001)

    assert {"a": 1} == protocol.decode(protocol.encode({"a": 1}))
    assert protocol.recognise("{}") is None
    assert protocol.unsubscribe(None, None) is None
    assert protocol.position(7) is None
    assert protocol.is_next(1, 2) is None
    assert wsclient.classify(loss, Phase.STEADY) == protocol.classify(loss, Phase.STEADY)
    assert not protocol.has_positions
    assert Positioned().has_positions


@pytest.mark.parametrize("value", [float("nan"), object(), {1: object()}])
def test_a_value_that_is_no_json_is_said(value):
    with pytest.raises(CodecError, match="cannot be encoded as JSON"):
        Protocol().encode(value)


@pytest.mark.parametrize("message", ["{", b"\xff", "[" * 100_000])
def test_a_message_that_is_no_json_is_said_and_not_quoted(message):
    with pytest.raises(CodecError, match="not JSON: ") as caught:
        Protocol().decode(message)
    assert "[[" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"protocol": PubSub}, TypeError, "an object of a class that derives from"),
        ({"protocol": json}, TypeError, "an object of a class that derives from"),
        (
            {"subscriptions": wsclient.SubscriptionOptions()},
            ValueError,
            "subscriptions=… needs protocol=…",
        ),
        ({"protocol": PubSub(), "subscriptions": 7}, TypeError, "must be SubscriptionOptions"),
        ({"protocol": PubSub(), "redundancy": 2}, ValueError, "a protocol with positions"),
    ],
)
def test_a_protocol_that_cannot_be_used_is_said_at_once(options, error, text):
    with pytest.raises(error, match=text):
        wsclient.open_channel("ws://server.test", **options)
