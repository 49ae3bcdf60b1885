"""JSON-RPC 2.0 with subscriptions: wishes in, messages out; messages in, signals out."""

from __future__ import annotations

import json

import pytest

import wsclient
from wsclient.app.protocols import JsonRpc
from wsclient.errors import CodecError, JsonRpcError, ReplyError
from wsclient.session import Published, Subscribed, SubscriptionEnded, Unsubscribed, Wish

ETH = JsonRpc()
HEADS = Wish(key="newHeads", number=7)
LOGS = ["logs", {"address": "0xabc"}]


def recognise(content, protocol=ETH):
    return protocol.recognise(json.dumps(content))


def token_of(name, protocol=ETH):
    return recognise({"id": "s7", "result": name}, protocol).token


# --- wishes in, messages out ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "parameters"),
    [
        (HEADS, ["newHeads"]),
        (Wish(key="transfers", parameters=LOGS, number=7), LOGS),
        (Wish(key="transfers", parameters=tuple(LOGS), number=7), LOGS),
        (Wish(key="by name", parameters={"kind": "heads"}, number=7), {"kind": "heads"}),
        (Wish(key="nothing to say", parameters=[], number=7), []),
        # It cannot resume, so the position does not matter.
        (Wish(key="newHeads", number=7, after=41), ["newHeads"]),
    ],
)
def test_a_wish_is_a_call(wish, parameters):
    call = {"jsonrpc": "2.0", "id": "s7", "method": "eth_subscribe", "params": parameters}

    assert call == json.loads(ETH.subscribe(wish))


@pytest.mark.parametrize("parameters", ["newHeads", 7, {1, 2}, b"bytes"], ids=repr)
def test_parameters_must_be_an_array_or_an_object(parameters):
    with pytest.raises(TypeError, match="a list or a mapping, not"):
        ETH.subscribe(Wish(key="x", parameters=parameters, number=1))


def test_what_is_not_json_cannot_be_asked_for():
    with pytest.raises(CodecError):
        ETH.subscribe(Wish(key=object(), number=1))


def test_ids_of_subscriptions_are_no_ids_of_requests():
    request = ETH.correlation.mark({"method": "eth_blockNumber"}, 7)
    call = ETH.subscribe(HEADS)

    assert 7 == json.loads(request)["id"]
    assert None is ETH.recognise('{"id": 7, "result": "0x1"}')
    assert None is ETH.correlation.recognise('{"id": "s7", "result": "0x1"}')
    assert "s7" == json.loads(call)["id"]


@pytest.mark.parametrize("name", ["0x9cef", "", "7", 7, 0, -1, 2**70])
def test_a_subscription_is_left_by_the_name_that_the_server_gave_it(name):
    call = {"jsonrpc": "2.0", "id": "u7", "method": "eth_unsubscribe", "params": [name]}

    assert call == json.loads(ETH.unsubscribe(HEADS, token_of(name)))


def test_a_subscription_without_a_name_cannot_be_left():
    assert None is ETH.unsubscribe(HEADS, None)


def test_a_server_may_have_no_method_to_unsubscribe():
    assert None is JsonRpc(unsubscribe_method=None).unsubscribe(HEADS, token_of("0x9cef"))


def test_methods_have_the_names_that_one_gives():
    solana = JsonRpc(
        subscribe_method="slotSubscribe",
        unsubscribe_method="slotUnsubscribe",
        notification_method="slotNotification",
    )
    note = {"method": "slotNotification", "params": {"subscription": 0, "result": 5}}

    assert "slotSubscribe" == json.loads(solana.subscribe(HEADS))["method"]
    assert "slotUnsubscribe" == json.loads(solana.unsubscribe(HEADS, token_of(0)))["method"]
    assert Published(token_of(0), 5) == recognise(note, solana)
    assert None is recognise(note)


# --- messages in, signals out ---------------------------------------------------------------------


def test_a_result_is_a_confirmation_with_a_name():
    assert Subscribed(7, token=token_of("0x9cef")) == recognise({"id": "s7", "result": "0x9cef"})


def test_a_name_is_no_number_and_no_key():
    # Some servers count their subscriptions.
    tokens = {token_of(7), token_of("7"), token_of("newHeads"), 7, "7", "newHeads"}

    assert 6 == len(tokens)


@pytest.mark.parametrize("result", [None, True, 1.5, ["0x1"], {"id": "0x1"}], ids=repr)
def test_a_subscription_that_has_no_name_is_over(result):
    ended = recognise({"id": "s7", "result": result})

    assert (7, False) == (ended.tag, ended.may_retry)
    assert isinstance(ended.error, CodecError)


@pytest.mark.parametrize("value", [{"number": "0x10"}, "0xhash", None, False, [], 7], ids=repr)
def test_a_notification_is_published(value):
    params = {"subscription": "0x9cef", "result": value}
    note = {"jsonrpc": "2.0", "method": "eth_subscription", "params": params}

    assert Published(token_of("0x9cef"), value) == recognise(note)


@pytest.mark.parametrize("result", [True, False, None])
def test_any_result_of_unsubscribing_is_the_end(result):
    # false: anvil does not know the subscription (any more).
    assert Unsubscribed(7) == recognise({"id": "u7", "result": result})


@pytest.mark.parametrize(
    ("code", "may_retry"),
    [
        (-32700, False),
        (-32600, False),
        (-32601, False),
        (-32602, False),
        (-32603, True),
        (-32000, False),
        (-32002, True),
        (-32005, True),
        (429, False),
        (10**30, False),
    ],
)
@pytest.mark.parametrize("name", ["s7", "u7"])
def test_an_error_is_the_end(name, code, may_retry):
    error = {"code": code, "message": "limit exceeded", "data": [1]}
    ended = recognise({"jsonrpc": "2.0", "id": name, "error": error, "result": None})

    assert (7, may_retry) == (ended.tag, ended.may_retry)
    assert isinstance(ended.error, JsonRpcError)
    assert (code, "limit exceeded", [1]) == (
        ended.error.code,
        ended.error.message,
        ended.error.data,
    )


@pytest.mark.parametrize("error", ["no", 7, {}, {"code": "7", "message": "m"}, [1]], ids=repr)
def test_an_error_of_another_form_is_the_end_too(error):
    ended = recognise({"id": "s7", "error": error})

    assert (7, False) == (ended.tag, ended.may_retry)
    assert error == ended.error.error


def test_codes_that_pass_are_a_choice():
    patient = JsonRpc(retry_codes=[-32000])

    assert recognise({"id": "s7", "error": {"code": -32000, "message": "m"}}, patient).may_retry
    assert not recognise({"id": "s7", "error": {"code": -32005, "message": "m"}}, patient).may_retry


def test_a_server_may_end_a_subscription_by_a_notification():
    # As jsonrpsee does.
    params = {"subscription": "0x9cef", "error": "the node is syncing"}
    ended = recognise({"method": "eth_subscription", "params": params})

    assert token_of("0x9cef") == ended.tag
    assert isinstance(ended.error, ReplyError)
    assert isinstance(ended, SubscriptionEnded)


@pytest.mark.parametrize(
    "content",
    [
        # Replies to requests.
        {"id": 7, "result": "0x1"},
        {"id": "7", "result": "0x1"},
        {"id": None, "error": {"code": -32600, "message": "Invalid request"}},
        # Requests of the server's, and other notifications.
        {"id": "s7", "method": "ask", "result": "0x1"},
        {"method": "other", "params": {"subscription": "0x9cef", "result": 1}},
        {"method": ["eth_subscription"], "params": {"subscription": "0x9cef", "result": 1}},
        # Neither this nor that.
        {"id": "s7"},
        {"id": "u7"},
        {"id": "s7", "error": None},
        {"id": "s0", "result": "0x1"},
        {"id": "s" + "9" * 5000, "result": "0x1"},
        {"id": ["s7"], "result": "0x1"},
        {"method": "eth_subscription"},
        {"method": "eth_subscription", "params": None},
        {"method": "eth_subscription", "params": ["0x9cef", 1]},
        {"method": "eth_subscription", "params": {"result": 1}},
        {"method": "eth_subscription", "params": {"subscription": "0x9cef"}},
        {"method": "eth_subscription", "params": {"subscription": None, "result": 1}},
        {"method": "eth_subscription", "params": {"subscription": True, "result": 1}},
        {"method": "eth_subscription", "params": {"subscription": 1.0, "result": 1}},
        {"method": "eth_subscription", "params": {"subscription": ["0x9cef"], "result": 1}},
        {"method": "eth_subscription", "params": {"subscription": {"a": 1}, "result": 1}},
    ],
    ids=lambda content: json.dumps(content)[:60],
)
def test_everything_else_is_not_ours(content):
    assert None is recognise(content)


def test_nothing_that_a_server_sends_hurts(hostile):
    assert None is ETH.recognise(hostile)


# --- positions ------------------------------------------------------------------------------------


def test_positions_and_their_order_are_as_the_functions_say():
    blocks = JsonRpc(
        position=lambda head: int(head["number"], 16),
        is_next=lambda before, after: after == before + 1,
    )

    assert blocks.has_positions
    assert 16 == blocks.position({"number": "0x10"})
    assert blocks.is_next(16, 17)
    assert not blocks.is_next(16, 18)


def test_without_them_there_are_none():
    assert not ETH.has_positions
    assert None is ETH.position({"number": "0x10"})
    assert None is ETH.is_next(16, 17)


# --- what cannot work is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"subscribe_method": ""}, ValueError),
        ({"subscribe_method": None}, TypeError),
        ({"unsubscribe_method": ""}, ValueError),
        ({"notification_method": b"eth_subscription"}, TypeError),
        ({"position": "number"}, TypeError),
        ({"is_next": True}, TypeError),
        ({"retry_codes": -32000}, TypeError),
    ],
)
def test_a_setting_that_cannot_work_is_refused(options, error):
    with pytest.raises(error):
        JsonRpc(**options)


def test_replies_to_requests_are_known_by_their_numbers():
    assert wsclient.JsonRpcCorrelation() == ETH.correlation
