"""A server's frames, read by wsproto."""

import pytest
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from wsclient.testing import _frames


def read(data):
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events()), client.state


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_messages_of_all_lengths_are_one_frame_each(size):
    text, binary = "é" * (size // 2) + "x" * (size % 2), bytes(size)

    expected = [
        (TextMessage, text.encode(), True),
        (BytesMessage, binary, True),
    ]
    events, _ = read(_frames.encode_message(text) + _frames.encode_message(binary))

    assert expected == [
        (
            type(event),
            event.data.encode() if isinstance(event.data, str) else bytes(event.data),
            event.message_finished,
        )
        for event in events
    ]


def test_control_frames_carry_their_payload():
    events, _ = read(
        _frames.encode_control(_frames.PING, b"x" * 125) + _frames.encode_control(_frames.PONG, b"")
    )

    assert [Ping(payload=b"x" * 125), Pong(payload=b"")] == events


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "bye"), (4999, "é" * 61), (1005, "")]
)
def test_close_frames_carry_their_code_and_reason(code, reason):
    events, state = read(_frames.encode_close(code, reason))

    assert [(code, reason)] == [(event.code, event.reason or "") for event in events]
    assert ConnectionState.REMOTE_CLOSING == state


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_frames.MASKED_FRAME, 1002),
        (_frames.BAD_OPCODE, 1002),
        (_frames.BAD_UTF8, 1007),
        (_frames.encode_close(1006, ""), 1002),
    ],
)
def test_violations_are_violations(data, code):
    events, state = read(data)

    assert [(CloseConnection, code)] == [(type(event), event.code) for event in events]
    assert ConnectionState.OPEN == state


def test_half_a_frame_is_not_a_message():
    events, _ = read(_frames.HALF_FRAME)

    assert [False] == [event.message_finished for event in events]
