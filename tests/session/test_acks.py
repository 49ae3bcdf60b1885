"""How a message carries its id, and how the peer's acknowledgement is known."""

from __future__ import annotations

import json

import pytest

from wsclient.session._acks import Ack, JsonAcknowledgement

ID = "5f0c5f0c5f0c5f0c"


@pytest.mark.parametrize("message", [r'{"a": "\ud800"}', rb'{"a": "\ud800"}'])
def test_what_utf_8_cannot_say_stays_escaped(message):
    marked = JsonAcknowledgement().mark(message, ID, redelivered=False)

    assert {"a": "\ud800", "id": ID} == json.loads(marked)
    assert type(message) is type(marked)


@pytest.mark.parametrize("message", ['{"größe": "7"}', r'{"gr\u00f6\u00dfe": "7"}'])
@pytest.mark.parametrize("encode", [str, str.encode], ids=["text", "bytes"])
def test_a_fields_name_is_known_however_the_peer_writes_it(message, encode):
    assert Ack("7") == JsonAcknowledgement(ack_field="größe").recognise(encode(message))
