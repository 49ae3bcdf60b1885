"""How a message carries its id, and how the peer's acknowledgement is known."""

from __future__ import annotations

import json

import pytest

from wsclient.session._acks import Ack, FunctionAcknowledgement, JsonAcknowledgement

ID = "5f0c5f0c5f0c5f0c"


# --- messages that carry their id ---------------------------------------------------------------


def test_s1_the_id_goes_into_a_field_of_the_object_and_the_rest_of_it_stays():
    marked = JsonAcknowledgement().mark('{"op": "buy", "of": [1, null]}', ID, redelivered=False)

    assert {"op": "buy", "of": [1, None], "id": ID} == json.loads(marked)


def test_the_field_may_have_any_name():
    marked = JsonAcknowledgement(id_field="nonce").mark("{}", ID, redelivered=False)

    assert {"nonce": ID} == json.loads(marked)


def test_text_stays_text_and_bytes_stay_bytes():
    strategy = JsonAcknowledgement()

    assert '{"a": "größe", "id": "7"}' == strategy.mark('{"a": "größe"}', "7", redelivered=False)
    assert '{"a": "größe", "id": "7"}'.encode() == strategy.mark(
        '{"a": "größe"}'.encode(), "7", redelivered=False
    )


@pytest.mark.parametrize(
    ("field", "redelivered", "expected"),
    [
        (None, False, {"id": ID}),
        (None, True, {"id": ID}),
        ("again", False, {"id": ID}),
        ("again", True, {"id": ID, "again": True}),
    ],
)
def test_s1_only_what_goes_again_is_marked_as_redelivered_and_only_where_a_field_is_named(
    field, redelivered, expected
):
    strategy = JsonAcknowledgement(redelivered_field=field)

    assert expected == json.loads(strategy.mark("{}", ID, redelivered=redelivered))


@pytest.mark.parametrize(
    "message",
    ["", "buy", "[1]", "7", '"text"', "null", "{", b"\xff", b"{", "[" * 100_000],
    ids=lambda message: repr(message[:20]),
)
def test_a_message_that_cannot_carry_an_id_is_refused(message):
    with pytest.raises(ValueError, match="must be a JSON object, to carry its id"):
        JsonAcknowledgement().mark(message, ID, redelivered=False)


@pytest.mark.parametrize("redelivered", [False, True])
@pytest.mark.parametrize("field", ["id", "again"])
def test_a_field_that_is_there_already_is_not_replaced(field, redelivered):
    # At the first time, when there is somebody to tell.
    strategy = JsonAcknowledgement(redelivered_field="again")
    with pytest.raises(ValueError, match=f"must not have the field '{field}' already"):
        strategy.mark(json.dumps({field: 7}), ID, redelivered=redelivered)


@pytest.mark.parametrize("message", [r'{"a": "\ud800"}', rb'{"a": "\ud800"}'])
def test_what_utf_8_cannot_say_stays_escaped(message):
    marked = JsonAcknowledgement().mark(message, ID, redelivered=False)

    assert {"a": "\ud800", "id": ID} == json.loads(marked)
    assert type(message) is type(marked)


# --- acknowledgements ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", ['{"ack": "7"}', b'{"ack": "7"}', '{ "at":1,\n"ack"\t: "7" }', '{"ack": "\\u0037"}']
)
def test_an_object_that_names_an_id_in_the_field_acknowledges_it(message):
    assert Ack("7") == JsonAcknowledgement().recognise(message)


@pytest.mark.parametrize(
    "message",
    [
        "",
        b"",
        "ack",
        b"\xff",
        '"ack"',
        '["ack"]',
        '{"ack"',
        b'{"ack": "\xff"}',
        '{"ack": 7}',
        '{"ack": null}',
        '{"of": "ack"}',
        '{"of": {"ack": "7"}}',
        '{"nack": "7"}',
        '{"ack": %s}' % ("[" * 100_000),
    ],
    ids=lambda message: repr(message[:20]),
)
def test_everything_else_is_a_message(message):
    assert None is JsonAcknowledgement().recognise(message)


def test_what_is_nested_too_deeply_to_be_read_is_no_acknowledgement():
    deep = '{"ack": ' + "[" * 100_000

    assert None is JsonAcknowledgement().recognise(deep)
    with pytest.raises(ValueError, match="must be a JSON object"):
        JsonAcknowledgement().mark(deep, ID, redelivered=False)


def test_s1_1_a_refusal_has_a_field_of_its_own():
    strategy = JsonAcknowledgement(ack_field="yes", nack_field="no")

    assert Ack("7", True) == strategy.recognise('{"yes": "7"}')
    assert Ack("7", False) == strategy.recognise('{"no": "7"}')
    assert Ack("7", False) == strategy.recognise(b'{"no": "7", "why": "yes"}')
    assert None is strategy.recognise('{"ack": "7"}')


@pytest.mark.parametrize("message", ['{"größe": "7"}', r'{"gr\u00f6\u00dfe": "7"}'])
@pytest.mark.parametrize("encode", [str, str.encode], ids=["text", "bytes"])
def test_a_fields_name_is_known_however_the_peer_writes_it(message, encode):
    assert Ack("7") == JsonAcknowledgement(ack_field="größe").recognise(encode(message))


@pytest.mark.parametrize("name", ["id_field", "ack_field", "nack_field", "redelivered_field"])
def test_the_name_of_a_field_is_a_text(name):
    with pytest.raises(TypeError, match=f"^{name} must be str, not int$"):
        JsonAcknowledgement(**{name: 7})
    with pytest.raises(ValueError, match=f"^{name} must not be empty$"):
        JsonAcknowledgement(**{name: ""})


def test_fields_that_must_be_told_apart_differ():
    with pytest.raises(ValueError, match="nack_field and ack_field must differ"):
        JsonAcknowledgement(nack_field="ack")
    with pytest.raises(ValueError, match="redelivered_field and id_field must differ"):
        JsonAcknowledgement(redelivered_field="id")


# --- functions ----------------------------------------------------------------------------------


def test_two_functions_are_a_strategy():
    asked = []

    def mark(message, key, redelivered):
        asked.append(redelivered)
        return f"{key} {message}"

    strategy = FunctionAcknowledgement(mark, lambda message: Ack(message, accepted=False))

    assert "7 a" == strategy.mark("a", "7", redelivered=True)
    assert "7 a" == strategy.mark("a", "7", redelivered=False)
    assert [True, False] == asked
    assert Ack("7", False) == strategy.recognise("7")


@pytest.mark.parametrize("name", ["mark_with", "recognise_with"])
def test_what_is_no_function_is_refused(name):
    with pytest.raises(TypeError, match=f"^{name} must be callable, not str$"):
        FunctionAcknowledgement(**{"mark_with": max, "recognise_with": max, name: "x"})
