"""An open connection as a state machine: tables (RFC 6455 §5–7)."""

from __future__ import annotations

import math
import struct

import pytest

from wsclient.options import Compression
from wsclient.protocol import (
    ClientProtocol,
    CloseReceived,
    Deflate,
    MessagePart,
    PingReceived,
    PongReceived,
    ProtocolViolated,
    State,
)
from wsclient.protocol._codec import Decoder
from wsclient.protocol._machine import TRANSITIONS, Input, NotAllowed

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


@pytest.fixture
def protocol():
    return ClientProtocol(max_message_size=1000)


# --- the table ----------------------------------------------------------------------------------

# The whole table once more, as a reader of the RFC would fill it in; None: not allowed, or ignored.
EXPECTED = {
    # state:                OPEN            CLOSING        VIOLATED        ANSWERING     CLOSED
    Input.SEND_MESSAGE: (State.OPEN, None, State.VIOLATED, None, None),
    Input.SEND_PING: (State.OPEN, None, State.VIOLATED, None, None),
    Input.SEND_PONG: (State.OPEN, None, State.VIOLATED, None, None),
    Input.SEND_CLOSE: (State.CLOSING, None, State.CLOSED, State.CLOSED, None),
    Input.RECEIVE_MESSAGE: (State.OPEN, State.CLOSING, None, None, None),
    Input.RECEIVE_PING: (State.OPEN, State.CLOSING, None, None, None),
    Input.RECEIVE_PONG: (State.OPEN, State.CLOSING, None, None, None),
    Input.RECEIVE_CLOSE: (State.ANSWERING, State.CLOSED, None, None, None),
    Input.RECEIVE_VIOLATION: (State.VIOLATED, State.CLOSED, None, None, None),
    Input.RECEIVE_EOF: (State.CLOSED, State.CLOSED, State.CLOSED, State.CLOSED, None),
}
CELLS = [
    pytest.param(state, what, following, id=f"{state.name}-{what.name}")
    for what, row in EXPECTED.items()
    for state, following in zip(tuple(State), row, strict=True)
]


@pytest.fixture
def in_state(protocol, frame):
    """Brings the protocol into a state on the road that a connection takes."""

    def bring(state):
        if state in (State.CLOSING, State.CLOSED):
            protocol.send_close(1000, None)
        if state is State.VIOLATED:
            protocol.receive_data(frame(0xF))
        if state in (State.ANSWERING, State.CLOSED):
            protocol.receive_data(frame(CLOSE, close_payload(1000)))

        assert state is protocol.state
        return protocol

    return bring


@pytest.fixture
def happen(frame):
    """Lets something happen to a protocol; returns what it returns."""
    return {
        Input.SEND_MESSAGE: lambda protocol: protocol.send_message("x"),
        Input.SEND_PING: lambda protocol: protocol.send_ping(b"x"),
        Input.SEND_PONG: lambda protocol: protocol.send_pong(b"x"),
        Input.SEND_CLOSE: lambda protocol: protocol.send_close(1000, None),
        Input.RECEIVE_MESSAGE: lambda protocol: protocol.receive_data(frame(TEXT, b"x")),
        Input.RECEIVE_PING: lambda protocol: protocol.receive_data(frame(PING, b"x")),
        Input.RECEIVE_PONG: lambda protocol: protocol.receive_data(frame(PONG, b"x")),
        Input.RECEIVE_CLOSE: lambda protocol: protocol.receive_data(frame(CLOSE)),
        Input.RECEIVE_VIOLATION: lambda protocol: protocol.receive_data(frame(0xF)),
        Input.RECEIVE_EOF: lambda protocol: protocol.receive_eof(),
    }


def test_the_table_has_a_row_for_every_state_and_nothing_else():
    actual = {what: tuple(TRANSITIONS[state].get(what) for state in State) for what in Input}

    assert EXPECTED == actual
    assert set(State) == set(TRANSITIONS)


@pytest.mark.parametrize(("state", "what", "following"), CELLS)
def test_each_cell_of_the_table_holds(in_state, happen, state, what, following):
    protocol = in_state(state)
    protocol.outgoing.clear()
    allowed = protocol.allows(what)
    received = None

    if following is None and what.name.startswith("SEND"):
        with pytest.raises(NotAllowed, match=f"cannot {what.value}: .* {state.value}"):
            happen[what](protocol)
    else:
        received = happen[what](protocol)

    assert (following is not None) is allowed
    assert (following or state) is protocol.state
    if following is None:
        assert not received
        assert b"" == protocol.outgoing
    elif what.name.startswith("SEND"):
        assert protocol.outgoing
    elif what is not Input.RECEIVE_EOF:
        assert received


def test_eof_inside_a_message_closes(protocol, frame):
    protocol.receive_data(frame(TEXT, b"half a mess", fin=False))
    protocol.receive_eof()

    assert State.CLOSED is protocol.state


# --- what is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "opcode", "payload"),
    [
        ("", TEXT, b""),
        (b"", BINARY, b""),
        ("aé€🙂", TEXT, "aé€🙂".encode()),
        (b"\x00\xff", BINARY, b"\x00\xff"),
        ("x" * 125, TEXT, b"x" * 125),
        ("x" * 126, TEXT, b"x" * 126),
        (b"x" * 65535, BINARY, b"x" * 65535),
        (b"x" * 65536, BINARY, b"x" * 65536),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_a_message_is_sent_as_one_masked_frame(protocol, take_frame, message, opcode, payload):
    protocol.send_message(message)
    wire = protocol.outgoing

    assert (opcode, payload) == take_frame(wire)
    assert b"" == wire


def test_control_frames_carry_their_payload(protocol, take_frame):
    protocol.send_ping(b"p" * 125)
    protocol.send_pong(b"")
    wire = protocol.outgoing

    assert (PING, b"p" * 125) == take_frame(wire)
    assert (PONG, b"") == take_frame(wire)


def test_every_frame_has_a_mask_of_its_own(protocol):
    for _ in range(100):
        protocol.send_message(b"")
    wire = protocol.outgoing
    masks = {bytes(wire[start + 2 : start + 6]) for start in range(0, len(wire), 6)}

    assert len(masks) > 90


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, None, close_payload(1000)),
        (1000, "", close_payload(1000)),
        (4999, "bye", close_payload(4999, b"bye")),
        (1014, None, close_payload(1014)),
        # An empty close frame is answered with an empty one.
        (1005, None, b""),
        (1005, "lost on the way", b""),
        (1000, "x" * 123, close_payload(1000, b"x" * 123)),
        (1000, "x" * 124, close_payload(1000, b"x" * 123)),
        (1000, "x" * 122 + "é", close_payload(1000, b"x" * 122)),
        (1000, "🙂" * 40, close_payload(1000, "🙂".encode() * 30)),
    ],
)
def test_a_close_frame_carries_code_and_reason(protocol, take_frame, code, reason, payload):
    protocol.send_close(code, reason)
    wire = protocol.outgoing

    assert (CLOSE, payload) == take_frame(wire)


def test_the_payload_of_a_control_frame_may_be_of_a_subclass(protocol, take_frame):
    class Octets(bytes):
        pass

    protocol.send_ping(Octets(b"ping"))
    protocol.send_pong(Octets(b"pong"))

    assert [(PING, b"ping"), (PONG, b"pong")] == [take_frame(protocol.outgoing) for _ in range(2)]


@pytest.mark.parametrize(
    "end",
    [
        lambda protocol, frame: protocol.send_close(1000, None),
        lambda protocol, frame: protocol.receive_data(frame(CLOSE)),
    ],
    ids=["ours", "theirs"],
)
def test_a_burst_joins_while_there_is_room_and_no_close_frame(protocol, frame, end):
    assert not protocol.join_burst("no room yet")

    protocol.burst = 10

    assert protocol.join_burst("joins")

    end(protocol, frame)
    wire = bytes(protocol.outgoing)

    assert 0 == protocol.burst
    assert not protocol.join_burst("too late")

    protocol.burst = 10

    assert not protocol.join_burst("too late")
    assert wire == protocol.outgoing


def test_a_message_may_be_sent_in_parts(protocol):
    protocol.send_part("a", is_first=True, is_last=False)
    protocol.send_part("", is_first=False, is_last=True)
    wire = protocol.outgoing

    assert [(0x01, 0x81), (0x80, 0x80)] == [(wire[0], wire[1]), (wire[7], wire[8])]

    protocol.send_close(1000, None)
    with pytest.raises(NotAllowed):
        protocol.send_part("a", is_first=True, is_last=True)


def test_what_was_agreed_on_holds_for_both_ends(frame):
    deflate = Deflate(compression=Compression(threshold=2))
    protocol = ClientProtocol(max_message_size=1000, deflate=deflate)
    for message in (b"a", b"ab"):
        protocol.send_message(message)

    assert [0x82, 0xC2] == [protocol.outgoing[0], protocol.outgoing[7]]
    assert [b""] == protocol.receive_data(frame(BINARY, b"\0", rsv=4))


# --- what is received ---------------------------------------------------------------------------

# Each input and its facts; a tail follows unless the input has the last word.
UNDERSTOOD = {
    "text": (lambda f: f(TEXT, b"abc"), ["abc"]),
    "empty text": (lambda f: f(TEXT), [""]),
    "binary": (lambda f: f(BINARY, b"\x00\xff"), [b"\x00\xff"]),
    "empty binary": (lambda f: f(BINARY), [b""]),
    "125 bytes": (lambda f: f(BINARY, b"x" * 125), [b"x" * 125]),
    "126 bytes": (lambda f: f(BINARY, b"x" * 126), [b"x" * 126]),
    "1000 bytes": (lambda f: f(BINARY, b"x" * 1000), [b"x" * 1000]),
    "several messages": (
        lambda f: f(TEXT, b"a") + f(BINARY, b"b") + f(TEXT, b"c"),
        ["a", b"b", "c"],
    ),
    "a fragmented message": (
        lambda f: f(TEXT, b"a", fin=False) + f(CONT, b"b", fin=False) + f(CONT, b"c"),
        ["abc"],
    ),
    "empty fragments": (
        lambda f: f(BINARY, fin=False) + f(CONT, b"b", fin=False) + f(CONT),
        [b"b"],
    ),
    "a character split over fragments": (
        lambda f: f(TEXT, b"\xf0\x9f", fin=False) + f(CONT, b"\x99\x82"),
        ["🙂"],
    ),
    "control frames between fragments": (
        lambda f: (
            f(TEXT, b"a", fin=False) + f(PING, b"1") + f(CONT, b"b", fin=False) + f(PONG) + f(CONT)
        ),
        [PingReceived(b"1"), PongReceived(b""), "ab"],
    ),
    "ping": (lambda f: f(PING, b"1"), [PingReceived(b"1")]),
    "a ping of 125 bytes": (lambda f: f(PING, b"1" * 125), [PingReceived(b"1" * 125)]),
    "pong": (lambda f: f(PONG, b"1"), [PongReceived(b"1")]),
    "close": (lambda f: f(CLOSE, close_payload(1000)), [CloseReceived(1000, None)]),
    "close with a reason": (
        lambda f: f(CLOSE, close_payload(4000, "é".encode())),
        [CloseReceived(4000, "é")],
    ),
    "close without a code": (lambda f: f(CLOSE), [CloseReceived(1005, None)]),
    "close after a message": (
        lambda f: f(TEXT, b"last") + f(CLOSE, close_payload(1001)),
        ["last", CloseReceived(1001, None)],
    ),
    "close inside a message": (
        lambda f: f(TEXT, b"half", fin=False) + f(CLOSE, close_payload(1001)),
        [CloseReceived(1001, None)],
    ),
}

# Each violation, the code to close with and a word of the reason.
VIOLATIONS = {
    "a masked frame": (lambda f: f(TEXT, b"x", mask=b"abcd"), 1002, "masked"),
    "a masked control frame": (lambda f: f(PING, b"x", mask=b"abcd"), 1002, "masked"),
    "RSV1": (lambda f: f(TEXT, b"x", rsv=4), 1002, "Reserved bit"),
    "RSV2": (lambda f: f(TEXT, b"x", rsv=2), 1002, "Reserved bit"),
    "RSV3": (lambda f: f(TEXT, b"x", rsv=1), 1002, "Reserved bit"),
    "RSV1 on a control frame": (lambda f: f(PING, b"x", rsv=4), 1002, "Reserved bit"),
    **{
        f"opcode {opcode:#x}": (lambda f, opcode=opcode: f(opcode, b"x"), 1002, "opcode")
        for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)
    },
    "a fragmented ping": (lambda f: f(PING, b"x", fin=False), 1002, "fragment"),
    "a fragmented pong": (lambda f: f(PONG, b"x", fin=False), 1002, "fragment"),
    "a fragmented close": (lambda f: f(CLOSE, fin=False), 1002, "fragment"),
    "a continuation of nothing": (lambda f: f(CONT, b"x"), 1002, "CONTINUATION"),
    "a continuation after the end": (
        lambda f: f(TEXT, b"x") + f(CONT, b"x"),
        1002,
        "CONTINUATION",
    ),
    "a message inside a message": (
        lambda f: f(TEXT, b"x", fin=False) + f(TEXT, b"y"),
        1002,
        "CONTINUATION",
    ),
    "a ping of 126 bytes": (lambda f: f(PING, b"x" * 126), 1002, "> 125"),
    "a close of 126 bytes": (lambda f: f(CLOSE, close_payload(1000, b"x" * 124)), 1002, "> 125"),
    "125 in two bytes": (lambda f: f(TEXT, b"x" * 125, length_bytes=2), 1002, "length"),
    "0 in two bytes": (lambda f: f(TEXT, b"", length_bytes=2), 1002, "length"),
    "65535 in eight bytes": (
        lambda f: f(TEXT, length=65535, length_bytes=8),
        1002,
        "length",
    ),
    "a length of 2^63": (lambda f: f(TEXT, length=2**63, length_bytes=8), 1002, "MSB"),
    "invalid UTF-8": (lambda f: f(TEXT, b"\xff"), 1007, "utf-8"),
    "an encoded surrogate": (lambda f: f(TEXT, b"\xed\xa0\x80"), 1007, "utf-8"),
    "overlong UTF-8": (lambda f: f(TEXT, b"\xc0\xaf"), 1007, "utf-8"),
    "truncated UTF-8": (lambda f: f(TEXT, b"\xf0\x9f"), 1007, "utf-8"),
    "UTF-8 invalid in a later fragment": (
        lambda f: f(TEXT, b"\xf0\x9f", fin=False) + f(CONT, b"x"),
        1007,
        "utf-8",
    ),
    "a close of one byte": (lambda f: f(CLOSE, b"\x03"), 1002, "1 byte"),
    "a close with invalid UTF-8": (
        lambda f: f(CLOSE, close_payload(1000, b"\xff")),
        1007,
        "CLOSE reason",
    ),
    **{
        f"close code {code}": (lambda f, code=code: f(CLOSE, close_payload(code)), 1002, "CLOSE")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "one byte too many": (lambda f: f(BINARY, b"x" * 1001), 1009, "1000 bytes"),
    "a fragment too many": (
        lambda f: f(BINARY, b"x" * 1000, fin=False) + f(CONT, b"x", fin=False),
        1009,
        "1000 bytes",
    ),
}


def test_a_batch_tells_what_it_holds_and_whether_there_is_more(frame):
    protocol = ClientProtocol(max_message_size=2**20)
    data = frame(PING) + frame(BINARY, b"x" * 2**20) + frame(TEXT, b"a")

    assert 2 == len(protocol.receive_data(data))
    assert (2**20, 1, True) == (protocol.batch_size, protocol.batch_controls, protocol.has_more)
    assert ["a"] == protocol.receive_data(b"")
    assert (1, 0, False) == (protocol.batch_size, protocol.batch_controls, protocol.has_more)


def test_only_the_bytes_that_are_new_are_taken(protocol, frame):
    data = bytearray(frame(TEXT, b"new") + b"of the last read")

    assert ["new"] == protocol.receive_data(data, 5)


def test_parts_are_given_where_they_are_wanted(protocol, frame):
    assert not protocol.in_parts

    protocol.in_parts = True

    assert protocol.in_parts
    assert [MessagePart("a", False)] == protocol.receive_data(frame(TEXT, b"a", fin=False))


@pytest.mark.parametrize("state", State)
def test_a_long_message_has_its_place_while_messages_may_come(in_state, frame, state):
    protocol = in_state(State.OPEN)
    protocol._decoder = Decoder(2**20)
    size = 2**18
    begun = b"begun" * 1000
    protocol.receive_data(frame(BINARY, begun, length=size))
    # As if the state had come about while it waits, as that of our close frame can.
    protocol._state = state
    place = protocol.get_buffer()
    if Input.RECEIVE_MESSAGE not in TRANSITIONS[state]:
        assert place is None
        return
    rest = b"x" * (size - len(begun))
    place[:] = rest

    assert [begun + rest] == protocol.buffer_updated(len(rest))
    assert (size, 0, False) == (protocol.batch_size, protocol.batch_controls, protocol.has_more)
    assert protocol.get_buffer() is None
    assert state is protocol.state


def byte_by_byte(protocol, data):
    return [fact for byte in data for fact in protocol.receive_data(bytes([byte]))]


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_the_same_bytes_are_the_same_facts_however_they_are_cut(frame, name):
    make, facts = UNDERSTOOD[name]
    data = make(frame)

    assert facts == ClientProtocol(max_message_size=1000).receive_data(data)
    assert facts == byte_by_byte(ClientProtocol(max_message_size=1000), data)
    for cut in range(1, min(len(data), 200)):
        protocol = ClientProtocol(max_message_size=1000)

        assert facts == protocol.receive_data(data[:cut]) + protocol.receive_data(data[cut:])


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_a_tail_is_understood_unless_the_last_word_is_said(protocol, frame, name):
    make, facts = UNDERSTOOD[name]
    tail = [] if isinstance(facts[-1], CloseReceived) else [PingReceived(b"tail")]

    assert facts + tail == protocol.receive_data(make(frame) + frame(PING, b"tail"))


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize(
    "feed", [ClientProtocol.receive_data, byte_by_byte], ids=["whole", "bytes"]
)
def test_a_violation_is_a_fact_and_the_last(protocol, frame, name, feed):
    make, code, word = VIOLATIONS[name]
    *before, violation = feed(protocol, frame(TEXT, b"before") + make(frame) + frame(TEXT, b"no"))

    assert "before" == before[0]
    assert ProtocolViolated is type(violation)
    assert (code, True) == (violation.code, word in violation.reason)
    assert not any(isinstance(fact, (CloseReceived, ProtocolViolated)) for fact in before)
    assert State.VIOLATED is protocol.state
    assert [] == protocol.receive_data(frame(TEXT, b"nobody listens"))


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_answered_with_its_code_once(protocol, frame, take_frame, name):
    make, code, _ = VIOLATIONS[name]
    violation = protocol.receive_data(make(frame))[-1]
    protocol.send_close(violation.code, violation.reason)
    wire = protocol.outgoing
    opcode, payload = take_frame(wire)

    assert (CLOSE, code) == (opcode, int.from_bytes(payload[:2]))
    assert State.CLOSED is protocol.state
    with pytest.raises(NotAllowed):
        protocol.send_close(violation.code, violation.reason)


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_after_our_close_frame_ends_the_connection(protocol, frame, name):
    make, code, _ = VIOLATIONS[name]
    protocol.send_close(1000, None)

    assert code == protocol.receive_data(make(frame))[-1].code
    assert State.CLOSED is protocol.state


def test_two_violations_in_one_read_are_one_fact(protocol, frame):
    too_big = frame(BINARY, b"x" * 1001)
    facts = protocol.receive_data(too_big + too_big + frame(0xF))

    assert [1009] == [fact.code for fact in facts]


def test_messages_still_arrive_after_our_close_frame(protocol, frame):
    protocol.send_close(1000, None)

    assert ["late", PingReceived(b"")] == protocol.receive_data(frame(TEXT, b"late") + frame(PING))
    assert State.CLOSING is protocol.state


@pytest.mark.parametrize(
    ("code", "reason"), [(code, None) for code in (1000, 1001, 1003, 1007, 1011, 1013, 3000, 4999)]
)
def test_codes_that_a_peer_may_send_are_understood(protocol, frame, code, reason):
    facts = protocol.receive_data(frame(CLOSE, close_payload(code)))

    assert [CloseReceived(code, reason)] == facts


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "message"), [(TEXT, "x" * 100), (TEXT, "é" * 50), (BINARY, b"x" * 100)]
)
@pytest.mark.parametrize(
    "feed", [ClientProtocol.receive_data, byte_by_byte], ids=["whole", "bytes"]
)
def test_exactly_the_limit_passes_and_one_byte_more_is_1009(frame, opcode, message, feed):
    payload = message.encode() if isinstance(message, str) else message

    assert [message] == feed(ClientProtocol(max_message_size=100), frame(opcode, payload))

    facts = feed(ClientProtocol(max_message_size=100), frame(opcode, payload + b"x"))

    assert [ProtocolViolated(1009, "Exceeded maximum message size: 100 bytes")] == facts


def test_the_limit_counts_one_message_at_a_time(frame):
    protocol = ClientProtocol(max_message_size=100)
    data = frame(TEXT, b"x" * 60, fin=False) + frame(CONT, b"x" * 40) + frame(BINARY, b"y" * 100)

    assert ["x" * 100, b"y" * 100] == protocol.receive_data(data)


def test_a_huge_frame_is_refused_before_a_byte_of_it_came(frame):
    protocol = ClientProtocol(max_message_size=100)
    head = frame(BINARY, length=2**40)

    assert [1009] == [fact.code for fact in protocol.receive_data(head)]


def test_no_limit_is_no_limit(frame):
    protocol = ClientProtocol(max_message_size=math.inf)

    assert [b"x" * 2**21] == protocol.receive_data(frame(BINARY, b"x" * 2**21))
