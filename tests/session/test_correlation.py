"""How requests are numbered, and replies known: the strategies alone."""

from __future__ import annotations

import json
import math

import pytest

import wsclient
from wsclient import (
    Correlation,
    FunctionCorrelation,
    JsonCorrelation,
    JsonRpcCorrelation,
    JsonRpcError,
    Reply,
    ReplyError,
)

JSON = JsonCorrelation()
RPC = JsonRpcCorrelation()


@pytest.mark.parametrize("message", [{"op": "balance"}, '{"op": "balance"}', b'{"op": "balance"}'])
def test_a_request_carries_its_number(message):
    assert {"op": "balance", "id": 3} == json.loads(JSON.mark(message, 3))


def test_what_was_given_is_left_as_it_is():
    message = {"op": "balance"}
    JSON.mark(message, 3)

    assert {"op": "balance"} == message


@pytest.mark.parametrize(
    "message",
    ["[1]", "no JSON", b"\xff", [1], 7, None, "[" * 100_000],
    ids=lambda message: repr(message)[:20],
)
@pytest.mark.parametrize("strategy", [JSON, RPC])
def test_what_is_no_object_cannot_be_numbered(strategy, message):
    with pytest.raises(ValueError, match="a request must be a JSON object"):
        strategy.mark(message, 3)


@pytest.mark.parametrize("strategy", [JSON, RPC])
def test_what_json_does_not_know_is_not_asked(strategy):
    with pytest.raises(ValueError, match="not JSON compliant"):
        strategy.mark({"method": "buy", "params": [math.nan]}, 3)


def test_a_number_of_ones_own_is_refused_rather_than_replaced():
    with pytest.raises(ValueError, match="must not have the field 'id' already"):
        JSON.mark({"op": "balance", "id": 7}, 3)
    with pytest.raises(ValueError, match="must not have the field 'id' already"):
        RPC.mark({"method": "sum", "id": 7}, 3)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: JsonCorrelation(id_field=7), TypeError),
        (lambda: JsonCorrelation(reply_field=""), ValueError),
        (lambda: JsonCorrelation(error_field=b"error"), TypeError),
        (lambda: FunctionCorrelation("mark", print), TypeError),
        (lambda: FunctionCorrelation(print, None), TypeError),
    ],
)
def test_what_a_strategy_is_made_of_is_checked(make, error):
    with pytest.raises(error, match="must"):
        make()


@pytest.mark.parametrize("message", ['{"id": 3, "balance": 7}', b'{"id": 3, "balance": 7}'])
def test_a_reply_is_the_object_that_carries_the_number(message):
    assert Reply(3, {"id": 3, "balance": 7}) == JSON.recognise(message)


@pytest.mark.parametrize(
    "message",
    [
        '{"balance": 7}',
        '{"id": "3"}',
        '{"id": true}',
        '{"id": 3.0}',
        '{"id": null}',
        '["id", 3]',
        '"id"',
        '{"id": 3',
        b'\xff{"id": 3}',
        "",
        '{"id": %s}' % ("[" * 100_000),
    ],
    ids=lambda message: repr(message[:20]),
)
@pytest.mark.parametrize("strategy", [JSON, RPC])
def test_what_carries_no_number_is_no_reply(strategy, message):
    assert strategy.recognise(message) is None


def test_fields_and_the_kind_of_number_can_be_chosen():
    strategy = JsonCorrelation(id_field="rid", reply_field="to", number_type=str)

    assert {"rid": "12"} == json.loads(strategy.mark({}, 12))
    assert Reply(12, {"to": "12"}) == strategy.recognise('{"to": "12"}')
    for message in ('{"to": 12}', '{"to": "twelve"}', '{"rid": "12"}'):
        assert strategy.recognise(message) is None
    with pytest.raises(ValueError, match="number_type"):
        JsonCorrelation(number_type=float)


@pytest.mark.parametrize(
    "number", ["012", "+12", " 12 ", "12\n", "-0", "1_2", "\u0661\u0662", "9" * 5000]
)
def test_a_text_that_only_reads_like_a_number_is_the_peers_own(number):
    message = json.dumps({"id": number})

    assert JsonCorrelation(number_type=str).recognise(message) is None


@pytest.mark.parametrize("strategy", [JSON, RPC], ids=["json", "json-rpc"])
def test_what_is_not_json_is_not_sent(strategy):
    for amount in (float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="not JSON"):
            strategy.mark({"method": "pay", "amount": amount}, 1)
    for message in ('{"method": "pay", "amount": NaN}', "[" * 100_000):
        with pytest.raises(ValueError, match="JSON"):
            strategy.mark(message, 1)


@pytest.mark.parametrize("strategy", [JSON, RPC], ids=["json", "json-rpc"])
def test_what_is_nested_too_deeply_to_be_read_is_no_reply(strategy):
    assert strategy.recognise('{"id": 1, "result": ' + "[" * 100_000) is None


def test_a_refusal_is_known_by_its_field():
    strategy = JsonCorrelation(error_field="error")
    reply = strategy.recognise('{"id": 1, "error": "no funds"}')

    assert (1, "no funds") == (reply.number, reply.error.error)
    assert isinstance(reply.error, ReplyError)
    assert "no funds" in str(reply.error)
    assert strategy.recognise('{"id": 1, "error": null}').error is None


def test_json_rpc_makes_request_objects():
    expected = {"jsonrpc": "2.0", "method": "sum", "params": [1, 2], "id": 4}

    assert expected == json.loads(RPC.mark({"method": "sum", "params": [1, 2]}, 4))
    with pytest.raises(ValueError, match='must name its "method"'):
        RPC.mark({"params": []}, 4)


def test_json_rpc_gives_the_result_or_raises_the_error():
    assert Reply(4, 3) == RPC.recognise('{"jsonrpc": "2.0", "result": 3, "id": 4}')
    assert Reply(4, None) == RPC.recognise('{"jsonrpc": "2.0", "result": null, "id": 4}')
    error = RPC.recognise(
        '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "no such method"}, "id": 4}'
    ).error

    assert isinstance(error, JsonRpcError)
    assert (-32601, "no such method", None) == (error.code, error.message, error.data)
    assert "no such method (-32601)" in str(error)
    more = RPC.recognise('{"id": 4, "error": {"code": 1, "message": "x", "data": [1]}}').error
    assert [1] == more.data


def test_json_rpc_bears_servers_that_take_it_lightly():
    # Both fields, one of them null; an error that is no object.
    assert Reply(4, 3) == RPC.recognise('{"result": 3, "error": null, "id": 4}')
    assert "busy" == RPC.recognise('{"error": "busy", "id": 4}').error.error


def test_json_rpc_takes_neither_notifications_nor_the_peers_own_requests_for_replies():
    assert RPC.recognise('{"method": "tick", "params": {"id": 4}}') is None
    assert RPC.recognise('{"method": "ping", "id": 4}') is None


def test_functions_make_a_strategy():
    strategy: Correlation = FunctionCorrelation(
        lambda message, number: f"{number} {message}",
        lambda message: Reply(int(message.split()[0]), message),
    )

    assert "7 hello" == strategy.mark("hello", 7)
    assert Reply(7, "7 world") == strategy.recognise("7 world")


def test_what_a_reply_is_made_of_is_checked():
    with pytest.raises(TypeError, match="number"):
        Reply("1")
    with pytest.raises(TypeError, match="error"):
        Reply(1, error="no")


def test_a_strategy_must_have_its_methods():
    with pytest.raises(TypeError, match="correlation must have the methods mark and recognise"):
        wsclient.DeliveryOptions(correlation=object())
