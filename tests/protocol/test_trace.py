"""What goes over the wire, for a person to read."""

from __future__ import annotations

import pytest

from wsclient.protocol import ClientProtocol, FrameTracer

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9

RECEIVED = {
    "← text, 5 bytes": lambda f: f(TEXT, b"hello"),
    "← binary, 0 bytes": lambda f: f(BINARY),
    "← binary, 126 bytes": lambda f: f(BINARY, b"x" * 126),
    "← text, 65536 bytes": lambda f: f(TEXT, b"x" * 65536),
    "← text, 4 bytes, to be continued": lambda f: f(TEXT, b"half", fin=False),
    "← continuation, 4 bytes": lambda f: f(0, b"rest"),
    "← text, 4 bytes, compressed": lambda f: f(TEXT, b"zzzz", rsv=4),
    "← ping, 2 bytes": lambda f: f(PING, b"hi"),
    "← close, 0 bytes": lambda f: f(CLOSE),
    "← close, 1 bytes": lambda f: f(CLOSE, b"x"),
    "← close, 5 bytes, 1001 GOING_AWAY": lambda f: f(CLOSE, b"\x03\xe9bye"),
    "← opcode 0x3, 0 bytes": lambda f: f(3),
    # A server must not mask; who looks for the fault wants to see the rest all the same.
    "← text, 3 bytes": lambda f: f(TEXT, b"abc", mask=b"1234"),
}


@pytest.mark.parametrize("text", RECEIVED)
@pytest.mark.parametrize("size", [1, 3, 2**20])
def test_each_frame_is_told_by_kind_and_size_however_it_is_sliced(frame, text, size):
    data = RECEIVED[text](frame) + frame(PING)
    tracer = FrameTracer(sent=False)
    told = [
        str(traced)
        for start in range(0, len(data), size)
        for traced in tracer.feed(data[start : start + size])
    ]

    assert [text, "← ping, 0 bytes"] == told


def test_what_we_send_is_read_through_its_mask():
    protocol = ClientProtocol(max_message_size=100)
    protocol.send_message("secret")
    protocol.send_part(b"a", is_first=True, is_last=False)
    protocol.send_close(4001, "secret")
    told = [str(traced) for traced in FrameTracer(sent=True).feed(protocol.outgoing)]

    assert [
        "→ text, 6 bytes",
        "→ binary, 1 bytes, to be continued",
        "→ close, 8 bytes, 4001 PRIVATE_RESERVED",
    ] == told


def test_no_frame_tells_what_it_carries(frame):
    data = frame(TEXT, b"secret") + frame(CLOSE, b"\x03\xe8secret")

    assert "secret" not in repr(list(FrameTracer(sent=False).feed(data)))
