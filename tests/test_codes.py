"""Floor 0: why a connection ends (RFC 6455 §7.4)."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest

from wsclient.codes import CloseCode, CloseReason, is_sendable

REGISTERED = {
    1000: "NORMAL_CLOSURE",
    1001: "GOING_AWAY",
    1002: "PROTOCOL_ERROR",
    1003: "UNSUPPORTED_DATA",
    1005: "NO_STATUS_RCVD",
    1006: "ABNORMAL_CLOSURE",
    1007: "INVALID_FRAME_PAYLOAD_DATA",
    1008: "POLICY_VIOLATION",
    1009: "MESSAGE_TOO_BIG",
    1010: "MANDATORY_EXT",
    1011: "INTERNAL_ERROR",
    1012: "SERVICE_RESTART",
    1013: "TRY_AGAIN_LATER",
    1014: "BAD_GATEWAY",
    1015: "TLS_HANDSHAKE_FAILED",
}


def test_every_registered_code_has_its_registered_name():
    actual = {int(code): code.name for code in CloseCode}

    assert REGISTERED == actual


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *REGISTERED.items(),
        (1004, "RFC_RESERVED"),
        (1016, "RFC_RESERVED"),
        (2999, "RFC_RESERVED"),
        (3000, "IANA_RESERVED"),
        (3999, "IANA_RESERVED"),
        (4000, "PRIVATE_RESERVED"),
        (4999, "PRIVATE_RESERVED"),
        (0, "INVALID_CODE"),
        (999, "INVALID_CODE"),
        (5000, "INVALID_CODE"),
        (65535, "INVALID_CODE"),
    ],
)
def test_a_code_without_a_name_is_named_after_its_range(code, name):
    assert name == CloseReason(code).name


@pytest.mark.parametrize(
    ("code", "sendable"),
    [
        (-1, False),
        (0, False),
        (999, False),
        (1000, True),
        (1003, True),
        (1004, False),
        (1005, False),
        (1006, False),
        (1007, True),
        (1014, True),
        (1015, False),
        (1016, False),
        (2999, False),
        (3000, True),
        (4999, True),
        (5000, False),
        (70000, False),
    ],
)
def test_only_codes_that_may_stand_in_a_close_frame_are_sendable(code, sendable):
    assert sendable is is_sendable(code)


def test_a_close_reason_shows_code_name_and_text():
    assert "CloseReason<code=1000, name=NORMAL_CLOSURE, reason=None>" == repr(CloseReason(1000))
    assert "CloseReason<code=4001, name=PRIVATE_RESERVED, reason=bye>" == repr(
        CloseReason(4001, "bye")
    )
    assert r"CloseReason<code=4001, name=PRIVATE_RESERVED, reason=\x1b[2J\r>" == repr(
        CloseReason(4001, "\x1b[2J\r")
    )


def test_the_peers_text_is_quoted_where_a_close_reason_becomes_a_sentence():
    assert "1000 NORMAL_CLOSURE" == str(CloseReason(1000))
    assert r"1008 POLICY_VIOLATION 'no\nmore'" == str(CloseReason(1008, "no\nmore"))


def test_an_empty_text_is_no_text():
    assert CloseReason(1000, None) == CloseReason(1000, "")
    assert CloseReason(1000, "").reason is None


def test_close_reasons_are_values():
    reason = CloseReason(1001, "deploy")

    assert CloseReason(1001, "deploy") == reason
    assert CloseReason(1001) != reason
    assert 1 == len({reason, CloseReason(1001, "deploy")})
    assert reason == copy.copy(reason)
    assert reason == pickle.loads(pickle.dumps(reason))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        reason.code = 1000
