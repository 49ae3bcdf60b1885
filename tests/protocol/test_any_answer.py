"""Whatever a server answers, in whatever pieces: an acceptance or a HandshakeError.

``tox -e fuzz`` runs the same check for long.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wsclient.errors import ConnectionRejected, HandshakeError
from wsclient.protocol import Accepted, ClientHandshake

ACCEPT: Final = b"@accept@"
"""Stands in an answer for what only the request tells."""

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

SETTINGS: Final = settings(
    max_examples=int(os.environ.get("WSCLIENT_EXAMPLES", "150")),
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def make_handshake() -> ClientHandshake:
    """The one place that knows how a ``ClientHandshake`` is made."""
    return ClientHandshake("test.example", "/", subprotocols=("chat", "superchat"))


def outcome(answer: bytes, slice_it: Callable[[bytes], list[bytes]]) -> str:
    """What a handshake comes to: all that its caller can see."""
    handshake = make_handshake()
    request = handshake.send_request()
    (key,) = (
        line.partition(b": ")[2]
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    pieces = iter(slice_it(answer.replace(ACCEPT, accept)))
    # Each handshake has a key of its own, which a server may quote anywhere.
    return repr(come_to(handshake, pieces)).replace(accept.decode(), ACCEPT.decode())


def come_to(handshake: ClientHandshake, pieces: Iterator[bytes]) -> tuple[object, ...]:
    try:
        for piece in pieces:
            if (accepted := handshake.receive_data(piece)) is not None:
                assert isinstance(accepted, Accepted)
                trailing = accepted.trailing + b"".join(pieces)
                return "accepted", accepted.subprotocol, accepted.headers, trailing
        handshake.receive_eof()
    except ConnectionRejected as error:
        return "rejected", error.status_code, error.headers, error.body
    except HandshakeError as error:
        # Which of several faults the text names may depend on what has come by then.
        return "failed", type(error)
    raise AssertionError("the end of the stream ended nothing")


def check(answer: bytes, cuts: list[int]) -> None:
    """Every slicing comes to the same."""

    def cut(data: bytes) -> list[bytes]:
        places = sorted({place % (len(data) + 1) for place in cuts})
        return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)]) if a < b]

    def cut_small(data: bytes) -> list[bytes]:
        size = 1 + len(data) // 4096
        return [data[place : place + size] for place in range(0, len(data), size)]

    whole = outcome(answer, lambda data: [data] if data else [])
    for slice_it in cut, cut_small:
        sliced = outcome(answer, slice_it)
        assert whole == sliced, (answer, slice_it(answer), whole, sliced)


# --- what a server may answer -------------------------------------------------------------------


def make_answer(status: bytes, headers: list[bytes], body: bytes = b"") -> bytes:
    return b"\r\n".join([status, *headers, b"", b""]) + body


GOOD: Final = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT]
SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols"
CHUNKED: Final = b"Transfer-Encoding: chunked"

status_lines = st.sampled_from(
    [
        *(SWITCHING, SWITCHING, SWITCHING, b"HTTP/1.1 101", b"HTTP/1.0 101 No", b"HTTP/1.1 099 No"),
        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 204 Empty", b"HTTP/1.1 301 Moved", b"HTTP/1.0 403 No"),
        *(
            b"HTTP/1.1 503 Later",
            b"HTTP/1.1 999 What",
            b"HTTP/2 200",
            b"HTTP/1.1 42 No",
            b"ICY 200 OK",
        ),
    ]
)
interim_answers = st.sampled_from(
    [make_answer(b"HTTP/1.1 %d Wait" % status, [b"Link: x"]) for status in (100, 102, 103, 199)]
)
names = st.sampled_from(
    [
        *(b"Upgrade", b"Connection", b"Sec-WebSocket-Accept", b"Sec-WebSocket-Protocol"),
        *(b"Sec-WebSocket-Extensions", b"Content-Length", b"Transfer-Encoding", b"Set-Cookie"),
        *(b"X-Text", b"", b" Folded", b"sec-websocket-accept"),
    ]
)
values = st.one_of(
    st.sampled_from(
        [
            *(
                b"websocket",
                b"WebSocket",
                b"Upgrade",
                b"keep-alive, Upgrade",
                b"chat",
                b"other",
                ACCEPT,
            ),
            *(
                b"permessage-deflate",
                b"permessage-deflate; client_max_window_bits",
                b"chunked",
                b"0",
            ),
            *(
                b"permessage-deflate; client_max_window_bits=8; x",
                b"5",
                b"5, 5",
                b"-1",
                b"99999999999",
            ),
        ]
    ),
    st.binary(max_size=10),
    st.just(b"x" * 5000),
)
headers = st.builds(lambda name, colon, value: name + colon + value, names, st.just(b": "), values)
bodies = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [
            b"5\r\nhello\r\n0\r\n\r\n",
            b"5;extension\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
            b"5\r\nhello\r\nffffffffffffffff\r\n",
            b"5\r\nhello\r\nno chunk",
            b"\x81\x05Hello",
        ]
    ),
)


def change(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    changed = bytearray(data)
    for how, place, value in changes:
        if changed:
            at = place % len(changed)
            match how:
                case "set":
                    changed[at] = value
                case "insert":
                    changed.insert(at, value)
                case "delete":
                    del changed[at]
                case "end":
                    del changed[at:]
    return bytes(changed)


changes = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "end"]),
        st.integers(0, 2**16),
        st.sampled_from(b"\r\n :,;\0\t\x80x") | st.integers(0, 255),
    ),
    max_size=3,
)
answers = st.builds(
    lambda interim, status, good, more, body, changes: change(
        b"".join(interim) + make_answer(status, [*good, *more], body), changes
    ),
    st.lists(interim_answers, max_size=3) | st.builds(lambda one: [one] * 17, interim_answers),
    status_lines,
    st.sampled_from([GOOD, GOOD, GOOD[:2], [CHUNKED], [b"Content-Length: 5"], []]),
    st.lists(headers, max_size=4),
    bodies,
    st.one_of(st.just([]), st.just([]), changes),
)
cuttings = st.lists(st.integers(0, 2**16), max_size=8)

SEEDS: Final = [
    b"",
    make_answer(SWITCHING, GOOD),
    make_answer(SWITCHING, GOOD, b"\x81\x05Hello"),
    make_answer(SWITCHING, [*GOOD, b"Sec-WebSocket-Protocol: chat", b"X-Text: \xe9"]),
    make_answer(SWITCHING, [*GOOD, b"Sec-WebSocket-Protocol: chat", b"Set-Cookie: a=b"]),
    make_answer(SWITCHING, [*GOOD, b"Sec-WebSocket-Extensions: permessage-deflate"]),
    make_answer(SWITCHING, [*GOOD[1:], b"Upgrade: h2c", b"Upgrade: websocket"]),
    make_answer(b"HTTP/1.1 103 Early Hints", [b"Link: x"]) + make_answer(SWITCHING, GOOD),
    make_answer(b"HTTP/1.0 101 No", GOOD),
    make_answer(b"HTTP/1.1 403 No", [b"Content-Length: 5"], b"hello, and more"),
    make_answer(b"HTTP/1.1 503 Later", [CHUNKED], b"5\r\nhello\r\n0\r\n\r\n"),
    make_answer(b"HTTP/1.0 403 No", [b"Content-Length: 5"], b"hello, and more"),
    make_answer(b"HTTP/1.1 503 Later", [CHUNKED], b"5\r\nhello\r\nno chunk"),
    make_answer(b"HTTP/1.1 503 Later", [CHUNKED], b"10001\r\n" + b"x" * 65537 + b"\r\n0\r\n\r\n"),
    make_answer(b"HTTP/1.0 200 OK", [], b"until the end"),
    make_answer(SWITCHING, [b"X-Text: " + b"x" * 2**14]),
    make_answer(SWITCHING, [b"X-Text: x"] * 129),
    make_answer(b"HTTP/1.1 102 Wait", []) * 17,
    b"SSH-2.0-OpenSSH_9.9\r\n",
    zlib.compress(b"no text"),
]
"""Where both kinds of fuzzing begin."""


def with_seeds(test: Callable[..., None]) -> Callable[..., None]:
    for seed in SEEDS:
        test = example(seed, [1, 2, 3, len(seed) // 2])(test)
    return test


@SETTINGS
@with_seeds
@given(answers, cuttings)
def test_an_answer_comes_to_the_same_however_it_is_sliced(answer, cuts):
    check(answer, cuts)


@SETTINGS
@given(st.binary(max_size=100), cuttings)
def test_no_bytes_come_to_anything_but_an_answer_or_a_handshake_error(answer, cuts):
    check(answer, cuts)
