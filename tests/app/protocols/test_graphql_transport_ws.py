"""graphql-transport-ws: wishes in, messages out; messages in, signals out; and how it begins."""

from __future__ import annotations

import json

import pytest
import trio

import wsclient
from wsclient.app.protocols import GraphqlTransportWs
from wsclient.errors import CodecError, EstablishError, ProviderError, ReplyError
from wsclient.events import LossKind
from wsclient.session import (
    Answer,
    Fatal,
    Loss,
    Phase,
    Published,
    Reply,
    Retry,
    RetryFreshAuth,
    SubscriptionEnded,
    Wish,
    classify,
)
from wsclient.testing import FaultServer

GRAPHQL = GraphqlTransportWs()
PRICES = Wish(key="prices", parameters="subscription { price }", number=7)
ERRORS = [{"message": "boom", "locations": [{"line": 1, "column": 1}]}]


def recognise(content):
    return GRAPHQL.recognise(json.dumps(content))


# --- wishes in, messages out ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "payload"),
    [
        (PRICES, {"query": "subscription { price }"}),
        (Wish(key="subscription { price }", number=7), {"query": "subscription { price }"}),
        (
            Wish(key="x", parameters={"query": "…", "variables": {"of": "EUR"}}, number=7),
            {"query": "…", "variables": {"of": "EUR"}},
        ),
    ],
)
def test_a_wish_is_an_operation(wish, payload):
    operation = {"id": "s7", "type": "subscribe", "payload": payload}

    assert operation == json.loads(GRAPHQL.subscribe(wish))


def test_an_operation_is_left_by_its_id():
    assert {"id": "s7", "type": "complete"} == json.loads(GRAPHQL.unsubscribe(PRICES, None))


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (Wish(key=7, number=7), TypeError),
        (Wish(key="x", parameters=["subscription"], number=7), TypeError),
        (Wish(key="x", parameters={}, number=7), ValueError),
        (Wish(key="x", parameters={"query": None}, number=7), ValueError),
        (Wish(key="x", parameters={"query": "…", "variables": ...}, number=7), CodecError),
    ],
    ids=["int", "list", "empty", "no query", "no JSON"],
)
def test_what_is_no_operation_is_refused(wish, error):
    with pytest.raises(error):
        GRAPHQL.subscribe(wish)


# --- messages in, signals out ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "signal"),
    [
        (
            {"id": "s7", "type": "next", "payload": {"data": {"price": 5}}},
            Published(7, {"data": {"price": 5}}),
        ),
        # A part that failed does not end the stream.
        (
            {"id": "s7", "type": "next", "payload": {"data": None, "errors": ERRORS}},
            Published(7, {"data": None, "errors": ERRORS}),
        ),
        ({"id": "s7", "type": "complete"}, SubscriptionEnded(7)),
        ({"type": "ping"}, Answer('{"type": "pong"}')),
        ({"type": "ping", "payload": None}, Answer('{"type": "pong"}')),
        ({"type": "ping", "payload": "no object"}, Answer('{"type": "pong"}')),
        (
            {"type": "ping", "payload": {"at": 1}},
            Answer('{"type": "pong", "payload": {"at": 1}}'),
        ),
        # Unsolicited, "as a unidirectional heartbeat".
        ({"type": "pong"}, Answer()),
        ({"type": "pong", "payload": {"at": 1}}, Answer()),
        # Behind the reply to a query.
        ({"id": "q7", "type": "complete"}, Answer()),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_a_message_is_a_signal(content, signal):
    assert signal == recognise(content)


@pytest.mark.parametrize("errors", [ERRORS, [], None, "no list"])
def test_an_error_is_the_end(errors):
    ended = recognise({"id": "s7", "type": "error", "payload": errors})

    assert (7, False) == (ended.tag, ended.may_retry)
    assert isinstance(ended.error, ReplyError)
    assert errors == ended.error.error


@pytest.mark.parametrize(
    "content",
    [
        {"type": "connection_ack"},
        {"type": "next"},
        {"type": "next", "id": "s7"},
        {"type": "next", "id": "s7", "payload": None},
        {"type": "next", "id": "s7", "payload": [1]},
        {"type": "next", "id": "s0", "payload": {}},
        {"type": "next", "id": 7, "payload": {}},
        {"type": "next", "id": "q7", "payload": {}},
        {"type": "next", "id": ["s7"], "payload": {}},
        {"type": "next", "id": "s" + "9" * 5000, "payload": {}},
        {"type": "error", "id": "s7"},
        {"type": "complete"},
        {"type": "complete", "id": "q0"},
        {"type": "complete", "id": {"s7": 1}},
        {"type": ["next"], "id": "s7", "payload": {}},
        {"type": {"next": 1}, "id": "s7", "payload": {}},
        {"type": "data", "id": "s7", "payload": {}},
        {"id": "s7", "payload": {}},
    ],
    ids=lambda content: json.dumps(content)[:60],
)
def test_everything_else_is_not_ours(content):
    assert None is recognise(content)


def test_nothing_that_a_server_sends_hurts(hostile):
    assert None is GRAPHQL.recognise(hostile)
    assert None is GRAPHQL.correlation.recognise(hostile)
    assert not GRAPHQL.heartbeat.match(hostile)


@pytest.mark.parametrize("payload", ['{"at": 1e999}', '{"at": NaN}'])
def test_a_ping_is_answered_whatever_it_carries(payload):
    ping = f'{{"type": "ping", "payload": {payload}}}'

    assert Answer('{"type": "pong"}') == GraphqlTransportWs().recognise(ping)


def test_the_own_ping_is_answered_by_a_pong():
    ping = GRAPHQL.heartbeat.build()

    assert {"type": "ping"} == json.loads(ping)
    assert GRAPHQL.heartbeat.match('{"type": "pong"}')
    assert not GRAPHQL.heartbeat.match('{"type": "next", "payload": "pong"}')


def test_the_own_ping_can_be_turned_off():
    assert None is GraphqlTransportWs(heartbeat=None).heartbeat


def test_whoever_derives_from_it_may_say_otherwise():
    class Other(GraphqlTransportWs):
        subprotocols = ("graphql-transport-ws", "v2")
        correlation = wsclient.JsonCorrelation()

    assert ("graphql-transport-ws", "v2") == Other().subprotocols
    assert wsclient.JsonCorrelation() == Other().correlation


# --- queries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["{ price }", {"query": "{ price }"}], ids=["text", "object"])
def test_a_request_is_an_operation_too(message):
    operation = {"id": "q7", "type": "subscribe", "payload": {"query": "{ price }"}}

    assert operation == json.loads(GRAPHQL.correlation.mark(message, 7))


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        ({"data": {"price": 5}}, Reply(7, {"data": {"price": 5}})),
        ({"data": {"a": 1}, "errors": ERRORS}, Reply(7, {"data": {"a": 1}, "errors": ERRORS})),
        ({"data": None}, Reply(7, {"data": None})),
    ],
)
def test_its_only_result_is_the_reply(content, reply):
    message = json.dumps({"id": "q7", "type": "next", "payload": content})

    assert reply == GRAPHQL.correlation.recognise(message)


@pytest.mark.parametrize(
    "content",
    [
        {"type": "error", "payload": ERRORS},
        {"type": "next", "payload": {"errors": ERRORS}},
        {"type": "next", "payload": {"data": None, "errors": ERRORS}},
    ],
    ids=json.dumps,
)
def test_errors_without_data_are_a_refusal(content):
    reply = GRAPHQL.correlation.recognise(json.dumps({"id": "q7"} | content))

    assert 7 == reply.number
    assert ERRORS == reply.error.error


@pytest.mark.parametrize(
    "content",
    [
        {"id": "q7", "type": "complete"},
        {"id": "q7", "type": "next", "payload": None},
        {"id": "s7", "type": "next", "payload": {"data": 1}},
        {"id": 7, "type": "next", "payload": {"data": 1}},
    ],
    ids=json.dumps,
)
def test_nothing_else_is_a_reply(content):
    assert None is GRAPHQL.correlation.recognise(json.dumps(content))


# --- how it begins --------------------------------------------------------------------------------


@pytest.fixture
def begin(network):
    """Establishes a connection to a server that says this; returns the server."""

    async def begin(protocol, *says, subprotocols=("graphql-transport-ws",)):
        async def serve(connection):
            for message in says:
                await connection.send(message)
            async for _ in connection:
                pass

        async with (
            FaultServer(handler=serve, network=network, subprotocols=subprotocols) as server,
            wsclient.open_websocket_url(
                server.url, subprotocols=protocol.subprotocols
            ) as connection,
        ):
            await protocol.establish(connection)
        return [json.loads(message) for message in server.messages]

    return begin


ACK = '{"type": "connection_ack", "payload": {"hello": "there"}}'


async def test_it_begins_with_an_introduction(autojump_clock, begin):
    assert [{"type": "connection_init"}] == await begin(GRAPHQL, ACK)


async def give_token():
    await trio.sleep(1)
    return {"token": "t"}


@pytest.mark.parametrize(
    "payload",
    [{"token": "t"}, lambda: {"token": "t"}, give_token],
    ids=["mapping", "function", "async function"],
)
async def test_what_the_server_wants_to_know_is_said(payload, autojump_clock, begin):
    said = await begin(GraphqlTransportWs(payload=payload), ACK)

    assert [{"type": "connection_init", "payload": {"token": "t"}}] == said


async def test_a_function_may_give_nothing(autojump_clock, begin):
    said = await begin(GraphqlTransportWs(payload=lambda: None), ACK)

    assert [{"type": "connection_init"}] == said


async def test_a_function_is_asked_each_time(autojump_clock, begin):
    tokens = iter("ab")
    protocol = GraphqlTransportWs(payload=lambda: {"token": next(tokens)})

    said = [*await begin(protocol, ACK), *await begin(protocol, ACK)]

    assert ["a", "b"] == [message["payload"]["token"] for message in said]


async def test_pings_before_the_acknowledgement_are_answered(autojump_clock, begin):
    ping = '{"type": "ping", "payload": {"at": 1}}'
    said = await begin(GRAPHQL, '{"type": "pong"}', ping, ACK)

    assert {"type": "pong", "payload": {"at": 1}} in said


async def test_no_acknowledgement_is_a_failure_in_time(autojump_clock, begin):
    began = trio.current_time()

    with pytest.raises(EstablishError, match="no connection_ack came within 3 s"):
        await begin(GraphqlTransportWs(ack_timeout=3))
    assert 3 == trio.current_time() - began


async def test_a_ping_is_no_acknowledgement(autojump_clock, begin):
    with pytest.raises(EstablishError, match="no connection_ack came within 10 s"):
        await begin(GRAPHQL, '{"type": "ping"}')


async def test_another_beginning_is_a_failure(hostile, autojump_clock, begin):
    with pytest.raises(EstablishError, match="another message than connection_ack"):
        await begin(GRAPHQL, hostile)


@pytest.mark.parametrize("spoken", [(), ("graphql-ws",)], ids=["none", "the older one"])
async def test_a_server_that_speaks_another_protocol_is_not_spoken_to(
    spoken, autojump_clock, begin
):
    with pytest.raises(EstablishError, match="the server does not speak graphql-transport-ws"):
        await begin(GRAPHQL, ACK, subprotocols=spoken)


async def test_a_connection_that_is_closed_meanwhile_says_so(autojump_clock, network):
    async def forbid(connection):
        await connection.receive()
        await connection.close(4403, "Forbidden")

    async with (
        FaultServer(handler=forbid, network=network, subprotocols=GRAPHQL.subprotocols) as server,
        wsclient.open_websocket_url(server.url, subprotocols=GRAPHQL.subprotocols) as connection,
    ):
        with pytest.raises(wsclient.ConnectionClosed, match="4403"):
            await GRAPHQL.establish(connection)


def fail():
    raise RuntimeError("the canary's password")


@pytest.mark.parametrize("payload", [fail, lambda: "the canary's password"], ids=["raises", "text"])
async def test_a_function_that_fails_is_named_and_not_quoted(payload, autojump_clock, begin):
    with pytest.raises(ProviderError) as caught:
        await begin(GraphqlTransportWs(payload=payload), ACK)

    assert "the function for the payload" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_the_payload_is_never_shown():
    assert "canary" not in repr(GraphqlTransportWs(payload={"token": "canary"}))


# --- what close codes mean ------------------------------------------------------------------------


def decide(code, phase, repeated=1):
    error = wsclient.ConnectionClosed(wsclient.CloseReason(code))
    loss = Loss(kind=LossKind.CLOSED, error=error, code=code, repeated=repeated)
    return GRAPHQL.classify(loss, phase)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("code", [4400, 4401, 4402, 4404, 4406, 4409, 4429, 4498])
def test_a_clients_mistake_is_fatal(code, phase):
    decision = decide(code, phase)

    assert isinstance(decision, Fatal)
    assert str(code) in decision.reason


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 4000, 4399, 4408, 4499, 4500, 4504])
def test_what_may_pass_is_retried(code, phase):
    assert isinstance(decide(code, phase), Retry)


@pytest.mark.parametrize("phase", Phase)
def test_a_fault_that_does_not_pass_is_fatal(phase):
    # graphql-ws says so, too, of a query that cannot be parsed.
    decisions = [decide(4500, phase, repeated) for repeated in (1, 2, 3)]

    assert [Retry, Retry, Fatal] == [type(decision) for decision in decisions]
    assert "4500" in decisions[2].reason


def test_what_is_forbidden_is_tried_once_or_twice_with_fresh_credentials():
    decisions = [decide(4403, phase, repeated) for phase in Phase for repeated in (1, 2, 3)]

    assert [RetryFreshAuth, Fatal, Fatal, RetryFreshAuth, RetryFreshAuth, Fatal] == [
        type(decision) for decision in decisions
    ]


def test_other_losses_are_as_everywhere():
    loss = Loss(kind=LossKind.REJECTED, error=wsclient.ConnectionRejected(4404), status=4404)

    assert classify(loss, Phase.STEADY) == GRAPHQL.classify(loss, Phase.STEADY)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"payload": "token"}, TypeError),
        ({"ack_timeout": 0}, ValueError),
        ({"ack_timeout": "soon"}, TypeError),
        ({"heartbeat": 20}, TypeError),
    ],
)
def test_a_setting_that_cannot_work_is_refused(options, error):
    with pytest.raises(error):
        GraphqlTransportWs(**options)
