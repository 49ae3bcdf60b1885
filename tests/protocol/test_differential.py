"""The same facts as wsproto, from any bytes that a server can send, however they are sliced.

Structured inputs: sequences of right and wrong frames, then a few bytes of them changed.
What wsproto gets wrong is the list ``DIFFERENCES``.  ``tox -e fuzz`` runs the same checks for long.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest import mock

import attrs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from wsclient.options import Compression
from wsclient.protocol import (
    ClientProtocol,
    CloseReceived,
    Deflate,
    Fact,
    PingReceived,
    PongReceived,
    ProtocolViolated,
    _codec,
)

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CONTROL: Final = (CLOSE, PING, PONG)

LIMIT: Final = 2**16
"""``max_message_size`` here: what is generated stays below it, unless it is meant to exceed it."""

TAIL: Final = bytes(16)
"""Follows every input, so that no header is cut off by its end: who would notice a fault in half a
header, and who would not, is no difference."""

SETTINGS: Final = settings(
    max_examples=int(os.environ.get("WSCLIENT_EXAMPLES", "300")),
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# --- the two that are compared ------------------------------------------------------------------


def make_protocol(*, deflate: bool) -> ClientProtocol:
    """The one place that knows how a ``ClientProtocol`` is made."""
    agreed = Deflate(compression=Compression()) if deflate else None
    return ClientProtocol(max_message_size=LIMIT, deflate=agreed)


def facts_of(slices: list[bytes], *, deflate: bool = False, in_place: bool = False) -> list[Fact]:
    """What the slices amount to.

    ``in_place``: bytes go where the protocol wants them, and it wants those of any binary message,
    however short, of which a byte has come.
    """
    protocol = make_protocol(deflate=deflate)
    facts = []
    with mock.patch.multiple(_codec, MIN_TARGET_SIZE=1, MAX_PROMISE=2**30):
        for piece in slices:
            rest = piece
            while in_place and rest and (place := protocol.get_buffer()) is not None:
                size = min(len(place), len(rest))
                place[:size] = rest[:size]
                facts += protocol.buffer_updated(size)
                rest = rest[size:]
            facts += protocol.receive_data(rest)
            while protocol.has_more:
                facts += protocol.receive_data(b"")
    return [plain(fact) for fact in facts]


def plain(fact: Fact) -> Fact:
    """Without what two right implementations may say differently."""
    return attrs.evolve(fact, reason="") if isinstance(fact, ProtocolViolated) else fact


def facts_of_wsproto(data: bytes, *, deflate: bool = False) -> list[Fact]:
    """What wsproto makes of the whole input."""
    extensions = []
    if deflate:
        extension = PerMessageDeflate()
        extension.finalize("permessage-deflate")
        extensions.append(extension)
    connection = Connection(ConnectionType.CLIENT, extensions)
    connection.receive_data(data)
    facts: list[Fact] = []
    pieces: list[Any] = []
    for event in connection.events():
        match event:
            case TextMessage() | BytesMessage():
                pieces.append(event.data)
                if event.message_finished:
                    empty: Any = "" if isinstance(event, TextMessage) else b""
                    facts.append(empty.join(pieces))
                    pieces.clear()
            case Ping():
                facts.append(PingReceived(bytes(event.payload)))
            case Pong():
                facts.append(PongReceived(bytes(event.payload)))
            case CloseConnection():
                # A failure of wsproto's parser looks like a close frame, but for the state.
                if connection.state is ConnectionState.REMOTE_CLOSING:
                    facts.append(CloseReceived(int(event.code), event.reason or None))
                else:
                    facts.append(ProtocolViolated(int(event.code), ""))
                break
    return facts


# --- where wsproto is wrong ---------------------------------------------------------------------


@attrs.frozen
class Frame:
    """A frame's header, as it stands in an input.

    ``start`` is where it begins, ``message_size`` what its message has come to with it, inflated
    or not, ``within`` whether a message was begun before it, ``compressed`` whether that was,
    ``nested`` whether it begins another message within one that is compressed.
    """

    start: int
    opcode: int
    size: int
    payload: bytes
    message_size: int
    within: bool
    compressed: bool
    nested: bool


def frames_in(data: bytes) -> Iterator[Frame]:
    """The frames of an input, as far as they are frames; nothing is judged."""
    position, message_size, within, compressed = 0, 0, False, False
    while position + 2 <= len(data):
        start, first, second = position, data[position], data[position + 1]
        opcode, size, position = first & 15, second & 127, position + 2
        if extended := {126: 2, 127: 8}.get(size, 0):
            size = int.from_bytes(data[position : position + extended])
            position += extended
        nested = within and compressed and opcode in (TEXT, BINARY)
        if opcode not in CONTROL:
            if opcode != CONT:
                within, message_size, compressed = False, 0, bool(first & 0x40)
            message_size += size
        payload = data[position : position + size]
        yield Frame(start, opcode, size, payload, message_size, within, compressed, nested)
        if opcode not in CONTROL:
            within = not first & 0x80
        position += size


Difference = Callable[[bytes, Frame, list[Fact], bool], list[list[Fact]]]


def before(data: bytes, frame: Frame, deflate: bool) -> list[Fact] | None:
    """What wsproto makes of all that stands before a frame; ``None`` if it reads no further."""
    facts = facts_of_wsproto(data[: frame.start], deflate=deflate)
    return None if facts and isinstance(facts[-1], (CloseReceived, ProtocolViolated)) else facts


def no_limits(data: bytes, frame: Frame, wsproto: list[Fact], deflate: bool) -> list[list[Fact]]:
    """wsproto has no limits: here a header that announces too much is already a violation."""
    if frame.opcode in CONTROL or frame.message_size <= LIMIT:
        return []
    facts = before(data, frame, deflate)
    if facts is None:
        return []
    right = [[*facts, ProtocolViolated(1009, "")]]
    # Such a frame may break another rule, too; and what is compressed has a limit when inflated.
    if (wsproto and isinstance(wsproto[-1], ProtocolViolated)) or (deflate and frame.compressed):
        right.append(wsproto)
    return right


def no_1014(data: bytes, frame: Frame, wsproto: list[Fact], deflate: bool) -> list[list[Fact]]:
    """wsproto calls close code 1014 a violation; it was registered after RFC 6455 was written."""
    del wsproto
    if frame.opcode != CLOSE or frame.payload[:2] != struct.pack("!H", 1014):
        return []
    # With a code that wsproto knows: right, wrong for another reason, or never reached.
    known = bytearray(data)
    place = data.index(frame.payload, frame.start + 2)
    known[place : place + 2] = struct.pack("!H", 1000)
    facts = facts_of_wsproto(bytes(known), deflate=deflate)
    match facts:
        case [*earlier, CloseReceived(code=1000, reason=reason)]:
            return [[*earlier, CloseReceived(1014, reason)]]
    return [facts]


def inflates_first(
    data: bytes, frame: Frame, wsproto: list[Fact], deflate: bool
) -> list[list[Fact]]:
    """wsproto inflates a frame before it asks whether one of its kind may come."""
    del wsproto
    facts = before(data, frame, deflate) if deflate and frame.nested else None
    return [] if facts is None else [[*facts, ProtocolViolated(1002, "")]]


DIFFERENCES: Final[list[Difference]] = [inflates_first, no_limits, no_1014]
"""Each says what is right instead for an input with a certain frame; nothing if it does not apply.

With permessage-deflate there are three more, after which wsproto is no measure of what follows:
``forgets_compression``, ``inflates_too_much`` and ``stops_at_a_last_block``.
"""


def forgets_compression(data: bytes) -> bool:
    """wsproto forgets that a message is compressed when a control frame comes inside it."""
    return any(
        frame.opcode in CONTROL and frame.within and frame.compressed for frame in frames_in(data)
    )


def inflatable(data: bytes, frame: Frame) -> bytes:
    """A frame's payload, and what its sender has cut from the end of the message."""
    return frame.payload + (b"\0\0\xff\xff" if data[frame.start] & 0x80 else b"")


def inflates_too_much(data: bytes) -> bool:
    """wsproto inflates without a limit, also to what is wrong behind it."""
    inflater = zlib.decompressobj(-15)
    size = 0
    for frame in frames_in(data):
        if frame.opcode in CONTROL:
            continue
        if frame.opcode != CONT:
            size = 0
        if not frame.compressed:
            continue
        try:
            piece = inflater.decompress(
                inflater.unconsumed_tail + inflatable(data, frame), LIMIT + 1 - size
            )
        except zlib.error:
            return False
        size += len(piece)
        if size > LIMIT:
            return True
    return False


def stops_at_a_last_block(data: bytes) -> bool:
    """wsproto drops what follows a block that is marked as the last (RFC 7692 §7.2.3.4)."""
    inflater = zlib.decompressobj(-15)
    for frame in frames_in(data):
        if frame.opcode in CONTROL or not frame.compressed:
            continue
        try:
            inflater.decompress(inflatable(data, frame))
        except zlib.error:
            return False
        if inflater.eof:
            return True
    return False


# --- the checks ---------------------------------------------------------------------------------


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in cuts})
    return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]


def check(data: bytes, cuts: list[int], *, deflate: bool = False) -> None:
    """Every slicing gives the same facts, and these are wsproto's where wsproto is right."""
    data += TAIL
    whole = facts_of([data], deflate=deflate)
    cuttings = cut(data, cuts), [bytes([byte]) for byte in data]
    for slices, in_place in itertools.product(cuttings, (False, True)):
        sliced = facts_of(slices, deflate=deflate, in_place=in_place)
        assert whole == sliced, (slices, in_place, whole, sliced)

    wsproto = facts_of_wsproto(data, deflate=deflate)
    if deflate and (
        forgets_compression(data) or inflates_too_much(data) or stops_at_a_last_block(data)
    ):
        return
    differing = (
        right
        for frame in frames_in(data)
        for difference in DIFFERENCES
        if (right := difference(data, frame, wsproto, deflate))
    )
    # In the order of the input: the first one ends it.
    right = next(differing, [wsproto])
    assert whole in right, (data, whole, right)


# --- what a server may send ---------------------------------------------------------------------


def make_frame(
    opcode: int,
    payload: bytes = b"",
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
    length_bytes: int = 0,
    length: int | None = None,
) -> bytes:
    """One frame; the length has at least ``length_bytes`` (0, 2 or 8), or is a lie (``length``)."""
    said = len(payload) if length is None else length
    length_bytes = max(length_bytes, 0 if said < 126 else 2 if said < 2**16 else 8)
    head = bytes(
        [
            fin << 7 | rsv << 4 | opcode,
            (mask is not None) << 7 | {0: said, 2: 126, 8: 127}[length_bytes],
        ]
    )
    head += said.to_bytes(length_bytes) if length_bytes else b""
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ key for byte, key in zip(payload, itertools.cycle(mask)))


def deflated(payload: bytes, level: int = 9) -> bytes:
    compressor = zlib.compressobj(level, wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
        b"\0\0\xff\xff"
    )


rarely = st.sampled_from([False] * 9 + [True])
codes = st.sampled_from(
    [0, 999, 1000, 1001, 1004, 1005, 1006, 1011, 1014, 1015, 2999, 3000, 4999, 5000]
)
close_payloads = st.one_of(
    st.just(b""),
    st.binary(max_size=3),
    st.builds(
        lambda code, reason: struct.pack("!H", code) + reason,
        codes | st.integers(0, 2**16 - 1),
        st.text(max_size=30).map(str.encode) | st.binary(max_size=3),
    ),
)
pings = st.builds(make_frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))
closes = st.builds(make_frame, st.just(CLOSE), close_payloads)
texts = st.text(max_size=60).map(str.encode)
binaries = st.binary(max_size=20) | st.sampled_from([125, 126, 127, 300]).map(bytes)
no_texts = st.sampled_from(
    [b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xff", b"\xe2\x82"]
)
bombs = st.sampled_from([bytes(size) for size in (LIMIT - 1, LIMIT, LIMIT + 1, 2**20)])
any_frames = st.builds(
    make_frame,
    st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, PONG]) | st.integers(0, 15),
    texts | binaries | no_texts | close_payloads,
    fin=st.sampled_from([True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 0, 4]) | st.integers(0, 7),
    mask=st.none() | st.none() | st.none() | st.binary(min_size=4, max_size=4),
    length_bytes=st.sampled_from([0, 0, 0, 0, 2, 8]),
    length=st.none()
    | st.none()
    | st.none()
    | st.sampled_from(
        [0, 1, 125, 126, LIMIT - 1, LIMIT, LIMIT + 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
    ),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message in any number of fragments, with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    payload = draw(binaries if opcode == BINARY else texts)
    if draw(rarely):
        payload += draw(no_texts)
    compressed = draw(rarely)
    if compressed:
        payload = deflated(draw(bombs) if draw(rarely) else payload)
    cuts = draw(st.lists(st.integers(0, 200), max_size=5))
    fragments = cut(payload, cuts)
    sent = b""
    for number, fragment in enumerate(fragments):
        last = number == len(fragments) - 1
        sent += make_frame(
            CONT if number else opcode,
            fragment,
            fin=last,
            rsv=4 if compressed and not number else 0,
        )
        if not last and draw(rarely):
            sent += draw(pings)
    return sent


def change(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    changed = bytearray(data)
    for how, place, value in changes:
        if changed:
            at = place % len(changed)
            match how:
                case "set":
                    changed[at] = value
                case "flip":
                    changed[at] ^= 1 << value % 8
                case "insert":
                    changed.insert(at, value)
                case "delete":
                    del changed[at]
                case "end":
                    del changed[at:]
    return bytes(changed)


changes = st.lists(
    st.tuples(
        st.sampled_from(["set", "flip", "insert", "delete", "end"]),
        st.integers(0, 2**16),
        st.integers(0, 255),
    ),
    max_size=3,
)
conversations = st.builds(
    lambda parts, altered: change(b"".join(parts), altered),
    st.lists(
        # Mostly right: the first fault ends a conversation.
        st.one_of(*[messages()] * 8, *[pings] * 3, any_frames, closes),
        max_size=8,
    ),
    st.one_of(*[st.just([])] * 3, changes),
)
cuttings = st.lists(st.integers(0, 2**16), max_size=8)

SEEDS: Final = [
    b"",
    make_frame(TEXT, b"Hello"),
    make_frame(BINARY, bytes(1000)) + make_frame(PING) + make_frame(BINARY, b"short"),
    make_frame(BINARY, bytes(126)) + make_frame(BINARY, bytes(200), length_bytes=8),
    make_frame(TEXT, b"He", fin=False) + make_frame(PING, b"?") + make_frame(CONT, b"llo"),
    make_frame(TEXT, "κόσμε".encode()[:3], fin=False) + make_frame(CONT, "κόσμε".encode()[3:]),
    make_frame(TEXT, b"\xce\xba\xf4\x90\x80\x80", length=100),
    make_frame(TEXT, b"Hello", length_bytes=2),
    make_frame(TEXT, b"fine") + make_frame(TEXT, b"not fine", rsv=2) + make_frame(PING),
    make_frame(CONT, b"of nothing"),
    make_frame(TEXT, fin=False) + make_frame(TEXT),
    make_frame(TEXT, b"masked", mask=b"1234"),
    make_frame(BINARY, length=2**40),
    make_frame(BINARY, length=2**63),
    make_frame(BINARY, b"x", fin=False) + make_frame(CONT, length=LIMIT),
    make_frame(PING, bytes(126)),
    make_frame(PONG, fin=False),
    make_frame(3) + make_frame(11),
    make_frame(CLOSE) + make_frame(TEXT, b"too late"),
    make_frame(CLOSE, b"\x03"),
    *(
        make_frame(CLOSE, struct.pack("!H", code) + b"why")
        for code in (1000, 1005, 1014, 4999, 5000)
    ),
    make_frame(CLOSE, struct.pack("!H", 1000) + b"\xff"),
    make_frame(CLOSE, struct.pack("!H", 1014) + b"\xff"),
    make_frame(TEXT, deflated(b"Hello"), rsv=4),
    make_frame(TEXT, deflated(b"Hello")[:3], fin=False, rsv=4)
    + make_frame(PING)
    + make_frame(CONT, deflated(b"Hello")[3:]),
    make_frame(TEXT, b"\0", fin=False, rsv=4) + make_frame(TEXT, b"\x80\x02" * 9, fin=False),
    make_frame(BINARY, deflated(bytes(LIMIT + 1)), rsv=4),
    make_frame(TEXT, length=2**63 - 1, rsv=4),
    make_frame(BINARY, b"\xff\xff\xff", rsv=4),
]
"""Where both kinds of fuzzing begin."""


def with_seeds(test: Callable[..., None]) -> Callable[..., None]:
    for seed in SEEDS:
        test = example(seed, [1, 2, 3, len(seed) // 2])(test)
    return test


@SETTINGS
@with_seeds
@given(conversations, cuttings)
def test_frames_mean_what_they_mean_to_wsproto_however_they_are_sliced(data, cuts):
    check(data, cuts)


@SETTINGS
@with_seeds
@given(conversations, cuttings)
def test_compressed_frames_mean_what_they_mean_to_wsproto_however_they_are_sliced(data, cuts):
    check(data, cuts, deflate=True)  # pragma: no cover


@SETTINGS
@given(st.binary(max_size=200), cuttings)
def test_any_bytes_mean_what_they_mean_to_wsproto_however_they_are_sliced(data, cuts):
    check(data, cuts)
