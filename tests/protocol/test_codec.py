"""Frames: bytes in and facts out, messages in and bytes out (RFC 6455 §5, RFC 7692 §6–7)."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import random
import sys
import tracemalloc
import warnings
import zlib

import pytest

import wsclient
from wsclient.options import Compression
from wsclient.protocol import (
    CloseReceived,
    MessagePart,
    PingReceived,
    PongReceived,
    ProtocolViolated,
    _codec,
    encoded_size,
)
from wsclient.protocol._codec import (
    BATCH_SIZE,
    BURST_SIZE,
    COMPILED,
    FRAME_OVERHEAD,
    MAX_PROMISE,
    MAX_TARGET_SIZE,
    MESSAGE_OVERHEAD,
    MIN_TARGET_SIZE,
    PART_SIZE,
    Decoder,
    Encoder,
    _mask,
    _masked,
)
from wsclient.protocol._deflate import Deflater, Inflater

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LIMIT = 2**20
RSV1 = 4


def inflater(*, keeps_context=True):
    return Inflater(15, keeps_context=keeps_context)


def make_decoder(max_message_size=LIMIT, *, compressed=False, in_parts=False, **limits):
    decoder = Decoder(max_message_size, inflater=inflater() if compressed else None, **limits)
    decoder.in_parts = in_parts
    return decoder


def receive(decoder, data):
    """All facts of ``data``, in as many batches as they take."""
    facts = decoder.receive(data, len(data))
    while decoder.has_more:
        facts += decoder.receive(b"", 0)
    return facts


def in_pieces(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def receive_in_pieces(decoder, data, size):
    facts = []
    for start in range(0, len(data), size):
        facts += receive(decoder, data[start : start + size])
        if facts and isinstance(facts[-1], (CloseReceived, ProtocolViolated)):
            break
    return facts


def joined(facts):
    """The facts, with the parts of each message put together."""
    whole = []
    parts = []
    for fact in facts:
        if not isinstance(fact, MessagePart):
            whole.append(fact)
            continue
        assert bool(fact.data) is not fact.is_last, "all parts but the last hold something"
        parts.append(fact.data)
        if fact.is_last:
            whole.append(type(fact.data)().join(parts))
            parts.clear()
    return whole


class Server:
    """Writes frames as a server does, compressed ones too."""

    def __init__(self, frame, *, keeps_context=True):
        self.frame = frame
        self.zlib = zlib.compressobj(6, zlib.DEFLATED, -15)
        self.flush = zlib.Z_SYNC_FLUSH if keeps_context else zlib.Z_FULL_FLUSH

    def deflate(self, payload):
        return (self.zlib.compress(payload) + self.zlib.flush(self.flush))[:-4]

    def compressed(self, opcode, payload, *sizes, between=b""):
        """A compressed message, in fragments whose payloads have ``sizes``, and the rest."""
        return self.fragments(opcode, self.deflate(payload), *sizes, rsv=RSV1, between=between)

    def fragments(self, opcode, payload, *sizes, rsv=0, between=b""):
        frames = []
        for size in sizes:
            frames.append(self.frame(opcode, payload[:size], fin=False, rsv=rsv))
            payload = payload[size:]
            opcode, rsv = CONT, 0
        return between.join([*frames, self.frame(opcode, payload, rsv=rsv)])


@pytest.fixture
def peer(frame):
    return Server(frame)


# --- the same bytes are the same facts ----------------------------------------------------------


def random_text(chance, size):
    return "".join(chance.choices("ab c\né€🙂\0", k=size))


def random_conversation(chance, peer, *, compressed):
    """Frames in all their forms, and what they amount to."""
    data, facts = b"", []
    large = chance.randint(1, 4)
    for index in range(chance.randint(4, 12)):
        size = (
            chance.randint(0, 70_000)
            if index == large
            else chance.choice([0, 1, 2, 125, 126, 127, 1000])
        )
        opcode = chance.choice([TEXT, BINARY])
        message = random_text(chance, size) if opcode == TEXT else chance.randbytes(size)
        payload = message.encode() if opcode == TEXT else message
        sizes = [chance.randint(0, 20) for _ in range(chance.choice([0, 0, 0, 1, 4]))]
        controls = [
            chance.choice([PingReceived, PongReceived])(
                chance.randbytes(chance.choice([0, 3, 125]))
            )
            for _ in range(chance.choice([0, 0, 1, 2]))
        ]
        between = b"".join(
            peer.frame(PING if isinstance(fact, PingReceived) else PONG, fact.payload)
            for fact in controls
        )
        write = peer.compressed if compressed and chance.random() < 0.7 else peer.fragments
        data += write(opcode, payload, *sizes, between=between)
        facts += [*controls * len(sizes), message]
    return data, facts


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("seed", range(15))
def test_whole_in_pieces_and_in_parts_the_same_is_understood(frame, seed, compressed):
    chance = random.Random(seed)
    data, facts = random_conversation(chance, Server(frame), compressed=compressed)

    assert facts == receive(make_decoder(compressed=compressed), data)
    assert facts == receive(make_decoder(compressed=compressed), bytearray(data))
    for size in (chance.randint(1, 5), 126, 1000, chance.randint(1, len(data))):
        decoder = make_decoder(compressed=compressed)

        assert facts == receive_in_pieces(decoder, data, size)

        decoder = make_decoder(compressed=compressed, in_parts=True)

        assert facts == joined(receive_in_pieces(decoder, data, size))


@pytest.mark.parametrize("seed", range(10))
def test_parts_may_be_wanted_and_not_wanted_at_any_time(frame, seed):
    chance = random.Random(seed)
    data, facts = random_conversation(chance, Server(frame), compressed=True)
    decoder = make_decoder(compressed=True)
    received = []
    for piece in in_pieces(data, chance.choice([1, 5, 300])):
        decoder.in_parts = chance.random() < 0.5
        received += receive(decoder, piece)

    assert facts == joined(received)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536, 65537])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_fast_way_and_the_slow_one_agree_at_every_form_of_a_length(frame, opcode, size):
    data = frame(opcode, b"x" * size)
    message = "x" * size if opcode == TEXT else b"x" * size
    for cut in {*range(min(len(data), 12)), len(data) - 1}:
        decoder = make_decoder()

        assert [] == receive(decoder, data[:cut])
        assert [message] == receive(decoder, data[cut:])

    assert [message] == receive(make_decoder(), data)


def test_only_the_bytes_that_are_new_are_looked_at(frame):
    data = bytearray(frame(TEXT, b"new") + frame(TEXT, b"of the last read"))
    decoder = make_decoder()

    assert ["new"] == decoder.receive(data, 5)
    assert [] == decoder.receive(data, 1)
    assert ["new"] == decoder.receive(data[1:], 4)


def test_what_was_understood_does_not_change_with_the_buffer(frame):
    data = bytearray(frame(TEXT, b"text") + frame(BINARY, b"binary") + frame(PING, b"ping"))
    facts = make_decoder().receive(data, len(data))
    data[:] = b"\xff" * len(data)

    assert ["text", b"binary", PingReceived(b"ping")] == facts


# --- the batch ----------------------------------------------------------------------------------


def test_a_batch_ends_with_the_message_that_fills_it(frame):
    decoder = make_decoder()
    data = frame(BINARY, b"x" * 2**18) * 10
    facts = decoder.receive(data, len(data))

    assert [b"x" * 2**18] * 4 == facts
    assert (4 * 2**18, 0, True) == (decoder.size, decoder.controls, decoder.has_more)

    facts = decoder.receive(b"", 0)

    assert (4, True) == (len(facts), decoder.has_more)

    facts = decoder.receive(b"", 0)

    assert (2, 2 * 2**18, False) == (len(facts), decoder.size, decoder.has_more)


@pytest.mark.parametrize("make", [lambda f: f(BINARY), lambda f: f(PING)], ids=["empty", "ping"])
def test_a_fact_of_nothing_is_not_for_nothing(frame, make):
    decoder = make_decoder()
    data = make(frame) * 20_000
    facts = decoder.receive(data, len(data))

    assert (BATCH_SIZE // MESSAGE_OVERHEAD, True) == (len(facts), decoder.has_more)
    assert 20_000 - len(facts) == len(decoder.receive(b"", 0))


@pytest.mark.parametrize("compressed", [False, True])
def test_frames_that_take_long_fill_a_batch_too(frame, compressed):
    first = frame(TEXT, b"\0" * compressed, fin=False, rsv=RSV1 * compressed)
    message = first + frame(CONT, fin=False) * 2 + frame(CONT)
    full = BATCH_SIZE // (MESSAGE_OVERHEAD + 4 * FRAME_OVERHEAD)
    for count in range(full - 2, full + 3):
        decoder = make_decoder(compressed=compressed)
        data = message * count
        facts = decoder.receive(data, len(data))

        assert (min(count, full), count > full) == (len(facts), decoder.has_more)
        # Nothing is left to wait for what follows, wherever the batch has ended.
        assert [""] * (count - len(facts)) == decoder.receive(b"", 0)
        assert ["x"] == decoder.receive(frame(TEXT, b"x"), 3)


def test_more_may_come_while_a_batch_waits(frame):
    decoder = make_decoder()
    data = frame(BINARY, b"x" * LIMIT) + frame(TEXT, b"a")
    decoder.receive(data, len(data))
    more = frame(TEXT, b"b") + frame(TEXT, b"c")[:2]

    assert ["a", "b"] == decoder.receive(more, len(more))
    assert not decoder.has_more
    assert ["c"] == decoder.receive(b"c", 1)


def test_a_batch_that_ends_with_the_read_has_no_more(frame):
    decoder = make_decoder()
    data = frame(BINARY, b"x" * LIMIT)
    decoder.receive(data, len(data))

    assert not decoder.has_more


def test_the_size_of_a_batch_is_that_of_its_messages_and_parts(frame):
    peer = Server(frame, keeps_context=False)
    text = "é€🙂" * 1000
    size = len(text.encode())
    for in_parts, step in itertools.product((False, True), (1000, 10**6)):
        for data in (frame(TEXT, text.encode()), peer.compressed(TEXT, text.encode())):
            decoder = make_decoder(compressed=True, in_parts=in_parts)
            received = 0
            for piece in in_pieces(data, step):
                decoder.receive(piece, len(piece))
                received += decoder.size

            assert size == received


def test_controls_are_counted(frame):
    decoder = make_decoder()
    data = frame(PING) + frame(TEXT, b"a") + frame(PONG) + frame(CLOSE)
    decoder.receive(data, len(data))

    assert (3, 1) == (decoder.controls, decoder.size)

    decoder = make_decoder()
    decoder.receive(frame(0xF), 2)

    assert 1 == decoder.controls


def test_a_compressed_message_in_parts_waits_where_the_batch_is_full(frame, peer):
    data = peer.compressed(BINARY, b"x" * 3 * 2**20, 1000) + frame(TEXT, b"after")
    decoder = make_decoder(1000, compressed=True, in_parts=True)
    sizes = []
    facts = decoder.receive(data, len(data))
    sizes.append(decoder.size)
    while decoder.has_more:
        facts += decoder.receive(b"", 0)
        sizes.append(decoder.size)

    assert [b"x" * 3 * 2**20, "after"] == joined(facts)
    assert max(len(fact.data) for fact in facts if isinstance(fact, MessagePart)) <= PART_SIZE
    assert max(sizes) <= BATCH_SIZE + PART_SIZE
    assert len(sizes) >= 3


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_a_frame_that_still_inflates_waits_for_its_rest(peer, size):
    """The frame's end may come while its beginning fills batch after batch."""
    data = peer.compressed(BINARY, bytes(5 * 2**20))
    decoder = make_decoder(compressed=True, in_parts=True)
    facts = []
    for piece in in_pieces(data, size):
        facts += decoder.receive(piece, len(piece))
        if decoder.has_more:
            facts += decoder.receive(b"", 0)
    while decoder.has_more:
        facts += decoder.receive(b"", 0)

    assert [bytes(5 * 2**20)] == joined(facts)


# --- control frames, and what breaks the rules ---------------------------------------------------


def close(code, reason=b""):
    return code.to_bytes(2, "big") + reason


CONTROLS = {
    "ping": (lambda f: f(PING, b"1"), PingReceived(b"1")),
    "pong": (lambda f: f(PONG, b"1" * 125), PongReceived(b"1" * 125)),
    "an empty close frame": (lambda f: f(CLOSE), CloseReceived(1005, None)),
    "a code": (lambda f: f(CLOSE, close(1000)), CloseReceived(1000, None)),
    "a reason": (lambda f: f(CLOSE, close(4999, "é".encode())), CloseReceived(4999, "é")),
    "one byte of a code": (
        lambda f: f(CLOSE, b"\x03"),
        ProtocolViolated(1002, "CLOSE with a payload of 1 byte"),
    ),
    "no code to send": (
        lambda f: f(CLOSE, close(1005)),
        ProtocolViolated(1002, "CLOSE with the invalid code 1005"),
    ),
    "no UTF-8": (
        lambda f: f(CLOSE, close(1000, b"\xff")),
        ProtocolViolated(1007, "CLOSE reason that is not UTF-8"),
    ),
    "an opcode": (lambda f: f(0x3), ProtocolViolated(1002, "Invalid opcode 0x3")),
    "a mask": (
        lambda f: f(TEXT, b"x", mask=b"abcd"),
        ProtocolViolated(1002, "A server's frames must not be masked"),
    ),
    "a fragmented ping": (
        lambda f: f(PING, fin=False),
        ProtocolViolated(1002, "A control frame must be no fragment"),
    ),
    "a long ping": (
        lambda f: f(PING, b"x" * 126),
        ProtocolViolated(1002, "A control frame with payload > 125"),
    ),
    "125 in two bytes": (
        lambda f: f(TEXT, b"x" * 125, length_bytes=2),
        ProtocolViolated(1002, "Payload length not in its shortest form"),
    ),
    "65535 in eight bytes": (
        lambda f: f(TEXT, length=65535, length_bytes=8),
        ProtocolViolated(1002, "Payload length not in its shortest form"),
    ),
    "the rest of nothing": (
        lambda f: f(CONT, b"x"),
        ProtocolViolated(1002, "CONTINUATION of no message"),
    ),
    "a message in a message": (
        lambda f: f(TEXT, fin=False) + f(TEXT, b"x"),
        ProtocolViolated(1002, "Expected CONTINUATION of a message"),
    ),
}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("name", CONTROLS)
def test_each_frame_has_its_fact_and_what_came_before_it_stands(frame, name, size):
    make, fact = CONTROLS[name]
    facts = receive_in_pieces(make_decoder(), frame(TEXT, b"before") + make(frame), size)

    assert ["before", fact] == facts


def test_nothing_follows_a_close_frame(frame):
    data = frame(CLOSE) + frame(TEXT, b"nobody listens")
    decoder = make_decoder()

    assert [CloseReceived(1005, None)] == decoder.receive(data, len(data))
    assert not decoder.has_more


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("length", [LIMIT + 1, 2**32, 2**40, 2**62, 2**63 - 1])
def test_a_declared_length_is_refused_before_a_byte_of_it_came(frame, opcode, length):
    decoder = make_decoder()
    header = frame(opcode, length=length)

    assert [] == receive(decoder, header[:-1])
    assert [ProtocolViolated(1009, f"Exceeded maximum message size: {LIMIT} bytes")] == receive(
        decoder, header[-1:]
    )


@pytest.mark.parametrize("length", [2**63, 2**64 - 1])
@pytest.mark.parametrize("opcode", [TEXT, CONT])
def test_a_length_with_its_highest_bit_set_is_a_violation(frame, opcode, length):
    decoder = make_decoder(math.inf)
    receive(decoder, frame(TEXT, fin=False) if opcode == CONT else b"")
    [violation] = receive(decoder, frame(opcode, length=length))

    assert (1002, True) == (violation.code, "MSB" in violation.reason)


@pytest.mark.parametrize("length", [2**63 - 1, 2**63 - 5, 2**63 - 100])
@pytest.mark.parametrize("rsv", [0, RSV1])
def test_the_longest_length_that_there_is_is_one(frame, length, rsv):
    decoder = make_decoder(math.inf, compressed=True, in_parts=True)
    block = b"\x00\x05\x00\xfa\xff" if rsv else b""  # of five bytes, as they are
    data = frame(BINARY, block + b"begun", length=length, rsv=rsv)

    assert [MessagePart(b"begun", False)] == receive(decoder, data)


def test_a_long_message_takes_no_memory_before_it_comes(frame):
    decoder = make_decoder(math.inf)
    header = frame(BINARY, length=2**62)
    tracemalloc.start()
    try:
        assert [] == receive(decoder, header)
        assert [] == receive(decoder, b"x" * 1000)
        assert decoder.get_buffer() is None
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 1000, 10**6])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not(frame, opcode, size):
    peer = Server(frame, keeps_context=False)
    for write in (peer.fragments, peer.compressed):
        for sizes in ((), (3,), (0, 40, 0)):
            for excess in (0, 1):
                data = write(opcode, b"x" * (500 + excess), *sizes)
                facts = receive_in_pieces(make_decoder(500, compressed=True), data, size)
                if excess:
                    assert [ProtocolViolated(1009, "Exceeded maximum message size: 500 bytes")] == (
                        facts
                    )
                else:
                    assert [500] == [len(message) for message in facts]


def test_the_limit_holds_for_each_message_anew_also_with_a_context(peer):
    decoder = make_decoder(500, compressed=True)
    data = b"".join(peer.compressed(BINARY, b"x" * 500, 2) for _ in range(5))

    assert [b"x" * 500] * 5 == receive(decoder, data)
    assert [1009] == [fact.code for fact in receive(decoder, peer.compressed(BINARY, b"x" * 501))]


@pytest.mark.parametrize("limit", [math.inf, 2**63 - 1, 2**70])
def test_no_limit_is_no_limit(peer, limit):
    decoder = make_decoder(limit, max_frame_size=limit, max_fragments=limit, compressed=True)
    for write in (peer.fragments, peer.compressed):
        assert [b"x" * 2**21] == receive(decoder, write(BINARY, b"x" * 2**21, 500))


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("opcode", [TEXT, CONT])
def test_a_frame_larger_than_the_limit_of_frames_is_refused_at_its_header(frame, opcode, in_parts):
    before = frame(BINARY, b"x", fin=False) if opcode == CONT else b""
    for length, data in ((100, b"x" * 100), (101, b""), (2**40, b"")):
        decoder = make_decoder(max_frame_size=100, in_parts=in_parts)
        facts = receive(decoder, before + frame(opcode, data, length=length))
        if length > 100:
            assert ProtocolViolated(1009, "Exceeded maximum frame size: 100 bytes") == facts[-1]
        else:
            assert 1 == len(joined(facts))


def test_what_is_compressed_counts_as_it_comes_for_the_limit_of_frames(peer):
    decoder = make_decoder(max_frame_size=100, compressed=True)

    assert [b"x" * 10_000] == receive(decoder, peer.compressed(BINARY, b"x" * 10_000))
    assert [1009] == [
        fact.code for fact in receive(decoder, peer.compressed(BINARY, os.urandom(101)))
    ]


@pytest.mark.parametrize("payload", [b"", b"x"])
@pytest.mark.parametrize("in_parts", [False, True])
def test_a_message_of_too_many_fragments_is_refused_even_if_they_are_empty(
    frame, payload, in_parts
):
    for count in (10, 11):
        decoder = make_decoder(max_fragments=10, in_parts=in_parts)
        data = frame(BINARY, payload, fin=False) + frame(CONT, payload, fin=False) * (count - 2)
        facts = receive(decoder, data + frame(CONT, payload))
        if count == 11:
            assert ProtocolViolated(1009, "Exceeded maximum number of fragments: 10") == facts[-1]
        else:
            assert [payload * 10] == joined(facts)
            # And anew for the next message.
            assert [payload * 10] == joined(receive(decoder, data + frame(CONT, payload)))


# --- who agreed on what -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "compressed", "is_understood"),
    [
        (lambda f: f(BINARY, b"\x02\x00", rsv=RSV1), True, True),
        (lambda f: f(BINARY, b"\x02\x00", rsv=RSV1), False, False),
        (lambda f: f(BINARY, b"\x02\x00", rsv=RSV1 | 2), True, False),
        (lambda f: f(BINARY, b"\x02\x00", rsv=2), True, False),
        (lambda f: f(BINARY, b"\x02\x00", rsv=1), True, False),
        (lambda f: f(PING, rsv=RSV1), True, False),
        (lambda f: f(BINARY, b"\x02", fin=False, rsv=RSV1) + f(CONT, b"\x00"), True, True),
        (
            lambda f: f(BINARY, b"\x02", fin=False, rsv=RSV1) + f(CONT, b"\x00", rsv=RSV1),
            True,
            False,
        ),
    ],
)
def test_reserved_bits_are_for_what_was_agreed_on(frame, make, compressed, is_understood):
    facts = receive(make_decoder(compressed=compressed), make(frame))
    expected = (
        [b""]
        if is_understood
        else [ProtocolViolated(1002, "Reserved bit set that nobody agreed on")]
    )

    assert expected == facts


@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_control_frames_go_between_compressed_fragments_and_leave_them_alone(frame, peer, size):
    between = frame(PING, b"1") + frame(PONG, b"2")
    data = peer.compressed(TEXT, b"hello " * 100, 0, 2, 3, between=between)
    controls = [PingReceived(b"1"), PongReceived(b"2")]

    assert [*controls * 4, "hello " * 100] == receive_in_pieces(
        make_decoder(compressed=True), between + data, size
    )


def test_what_is_not_compressed_goes_between_what_is(frame, peer):
    decoder = make_decoder(compressed=True)
    data = peer.compressed(TEXT, b"one two") + frame(TEXT, b"plain") + peer.compressed(TEXT, b"one")

    assert ["one two", "plain", "one"] == receive(decoder, data)


def test_without_a_context_each_message_stands_for_itself(frame):
    peer = Server(frame, keeps_context=False)
    messages = [b"the same again"] * 3
    decoder = Decoder(LIMIT, inflater=inflater(keeps_context=False))
    data = b"".join(peer.compressed(BINARY, message, 3) for message in messages)

    assert messages == receive(decoder, data)

    # A message that refers to the one before has nothing to refer to.
    peer = Server(frame)
    [*_, last] = receive(
        Decoder(LIMIT, inflater=inflater(keeps_context=False)),
        b"".join(peer.compressed(BINARY, b"0123456789abcdef" * 2) for _ in range(2)),
    )

    assert 1007 == last.code


@pytest.mark.parametrize("size", [1, 10**6])
def test_what_cannot_be_inflated_is_1007(frame, size):
    facts = receive_in_pieces(
        make_decoder(compressed=True), frame(TEXT, b"\xff" * 20, rsv=RSV1), size
    )

    assert [(1007, True)] == [(fact.code, "cannot be inflated" in fact.reason) for fact in facts]


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3x", b"\xed\xa0\x80", b"\xf4\x90"])
def test_invalid_text_fails_at_its_first_wrong_byte(frame, bad, in_parts):
    """Wherever frames and reads end (RFC 6455 §8.1)."""
    start, rest = "é🙂".encode(), 1000
    for data in (
        frame(TEXT, start + bad, length=len(start + bad) + rest),
        frame(TEXT, start + bad[:1], fin=False) + frame(CONT, bad[1:], length=rest),
    ):
        decoder = make_decoder(in_parts=in_parts)
        facts = receive_in_pieces(decoder, data, 1)

        assert [1007] == [fact.code for fact in facts if isinstance(fact, ProtocolViolated)]


def test_invalid_text_fails_in_the_middle_of_a_compressed_frame(frame):
    stored = b"\x00\x0a\x00\xf5\xffab\xff"  # A block of ten bytes, of which three came.
    decoder = make_decoder(compressed=True)

    assert [1007] == [
        fact.code for fact in receive(decoder, frame(TEXT, stored, rsv=RSV1, length=100))
    ]


@pytest.mark.parametrize("size", [1, 2, 10**6])
@pytest.mark.parametrize("in_parts", [False, True])
def test_text_that_ends_within_a_character_is_1007(frame, peer, in_parts, size):
    for data in (
        frame(TEXT, b"ab\xf0\x9f"),
        frame(TEXT, b"ab", fin=False) + frame(CONT, b"\xf0\x9f"),
        peer.compressed(TEXT, b"ab\xf0\x9f"),
    ):
        facts = receive_in_pieces(make_decoder(compressed=True, in_parts=in_parts), data, size)

        assert [1007] == [fact.code for fact in facts if isinstance(fact, ProtocolViolated)]


def test_binary_messages_are_not_looked_at(frame):
    data = frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xed\xa0\x80")

    assert [b"\xff\xed\xa0\x80"] == receive_in_pieces(make_decoder(), data, 1)


# --- parts --------------------------------------------------------------------------------------


def test_a_message_that_is_whole_in_one_read_is_not_cut(frame):
    decoder = make_decoder(in_parts=True)

    assert ["whole", b"x" * 10_000] == receive(
        decoder, frame(TEXT, b"whole") + frame(BINARY, b"x" * 10_000)
    )


def test_parts_come_as_they_are_read_and_know_no_limit(frame):
    decoder = make_decoder(10, in_parts=True)
    data = frame(BINARY, b"abcdefghijkl") + frame(TEXT, b"\xc3\xa9", fin=False) + frame(CONT, b"!")

    assert [MessagePart(b"abc", False)] == receive(decoder, data[:5])
    assert [MessagePart(b"def", False)] == receive(decoder, data[5:8])
    # A character is given when it is whole.
    assert [MessagePart(b"ghijkl", False), MessagePart(b"", True)] == receive(decoder, data[8:17])
    assert [
        MessagePart("é", False),
        MessagePart("!", False),
        MessagePart("", True),
    ] == receive(decoder, data[17:])


def test_what_was_collected_is_the_first_part_once_parts_are_wanted(frame):
    decoder = make_decoder(10)

    assert [] == receive(decoder, frame(TEXT, b"ab\xf0\x9f", fin=False))

    decoder.in_parts = True

    assert [] == receive(decoder, frame(PING)[:1])
    assert [PingReceived(b"")] == receive(decoder, frame(PING)[1:])
    assert [MessagePart("ab", False)] == receive(decoder, frame(CONT, b"\x99", fin=False))

    # A message that goes in parts goes on so.
    decoder.in_parts = False

    assert [MessagePart("🙂" + "x" * 20, False)] == receive(
        decoder, frame(CONT, b"\x82" + b"x" * 20, fin=False)
    )
    assert [MessagePart("", True), "whole"] == receive(decoder, frame(CONT) + frame(TEXT, b"whole"))
    assert [1009] == [fact.code for fact in receive(decoder, frame(TEXT, b"x" * 11))]


def test_an_end_without_a_byte_leaves_what_was_collected_whole(frame):
    decoder = make_decoder()
    receive(decoder, frame(TEXT, b"collected", fin=False))
    decoder.in_parts = True

    assert ["collected"] == receive(decoder, frame(CONT))


@pytest.mark.parametrize("switch_at", range(5))
def test_a_character_may_be_cut_where_parts_begin_to_be_wanted(frame, switch_at):
    """Nothing of another message gets in, although the buffer has held one."""
    receive(make_decoder(), frame(BINARY, b"old ", fin=False) + frame(CONT, b"x" * 100))
    for wanted in ([False] * switch_at + [True] * 9, [True] * switch_at + [False] * 9):
        decoder = make_decoder()
        facts = []
        for byte, decoder.in_parts in zip("🙂é".encode(), wanted, strict=False):
            opcode = TEXT if byte == 0xF0 else CONT
            facts += receive(decoder, frame(opcode, bytes([byte]), fin=False))
        facts += receive(decoder, frame(CONT))

        assert ["🙂é"] == joined(facts)


def test_a_message_of_nothing_is_whole_also_in_parts(frame, peer):
    decoder = make_decoder(in_parts=True, compressed=True)

    assert ["", b"", ""] == receive_in_pieces(
        decoder, frame(TEXT) + peer.compressed(BINARY, b"", 0) + peer.fragments(TEXT, b"", 0, 0), 1
    )


# --- a long message is read where it stays ------------------------------------------------------

LONG = MIN_TARGET_SIZE + 10_000
BEGUN = LONG // MAX_PROMISE
"""Bytes of it that are enough to believe in the rest."""


def fill(decoder, data):
    """Put as much of ``data`` where the decoder wants it as goes there; what is left of it."""
    facts = []
    while data and (buffer := decoder.get_buffer()) is not None:
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        facts += decoder.buffer_updated(size)
        data = data[size:]
    return facts, data


def receive_anyhow(decoder, pieces, chance):
    """The facts of the pieces: each is put where it belongs, if that is known, or just given."""
    facts = []
    for piece in pieces:
        rest = piece
        if chance.random() < 0.7:
            filled, rest = fill(decoder, piece)
            facts += filled
        facts += receive(decoder, rest)
    return facts


@pytest.mark.parametrize("seed", range(15))
def test_however_bytes_come_in_they_mean_the_same(frame, seed, monkeypatch):
    chance = random.Random(seed)
    size = chance.randint(LONG, 3 * LONG)
    if seed % 3:
        # All binary messages are long ones.
        monkeypatch.setattr(_codec, "MIN_TARGET_SIZE", 1)
        monkeypatch.setattr(_codec, "MAX_PROMISE", 2**30)
        size = chance.randint(1, 3000)
    data, facts = random_conversation(chance, Server(frame), compressed=seed % 2 == 1)
    long = chance.randbytes(size)
    data += frame(BINARY, long) + frame(PING, b"after")
    facts += [long, PingReceived(b"after")]
    for size in (
        chance.choice([1, 3, 126]) if seed % 3 else 500,
        1000,
        chance.randint(1, len(data)),
    ):
        decoder = make_decoder(compressed=True)

        assert facts == receive_anyhow(decoder, in_pieces(data, size), chance)

        received = []
        for piece in in_pieces(data, size):
            decoder.in_parts = chance.random() < 0.2
            received += receive_anyhow(decoder, [piece], chance)

        assert facts == joined(received)


def test_a_place_is_given_for_what_is_missing_of_a_long_message_alone(frame):
    message = os.urandom(LONG)
    data = frame(PING) + frame(BINARY, message)
    start = BEGUN + 100
    decoder = make_decoder()

    assert [PingReceived(b"")] == receive(decoder, data[:start])

    place = decoder.get_buffer()

    assert len(data) - start == len(place)
    assert (1, "B", False) == (place.ndim, place.format, place.readonly)
    assert place is decoder.get_buffer()

    place[:4] = data[start : start + 4]

    assert [] == decoder.buffer_updated(4)
    assert (0, 0, False) == (decoder.size, decoder.controls, decoder.has_more)

    place = decoder.get_buffer()

    assert len(data) - start - 4 == len(place)

    place[:] = data[start + 4 :]

    assert [message] == decoder.buffer_updated(len(place))
    assert (LONG, 0, False) == (decoder.size, decoder.controls, decoder.has_more)
    assert decoder.get_buffer() is None
    assert ["next"] == receive(decoder, frame(TEXT, b"next"))


LONG_FRAMES = {
    "between messages": (lambda f: f(BINARY, b"x" * LONG), None),
    "a header": (lambda f: begun(f, LONG, 0), None),
    "hardly begun": (lambda f: begun(f, MAX_PROMISE * 3000 + 3000, 2999), None),
    "begun": (lambda f: begun(f, MAX_PROMISE * 3000 + 3000, 3000), True),
    "the shortest": (lambda f: begun(f, MIN_TARGET_SIZE + BEGUN), True),
    "too short": (lambda f: begun(f, MIN_TARGET_SIZE + BEGUN - 1), None),
    "nearly here": (lambda f: begun(f, LONG, LONG - 1000), None),
    "the longest": (lambda f: begun(f, MAX_TARGET_SIZE, 2**19), True),
    "too long": (lambda f: begun(f, MAX_TARGET_SIZE + 1, 2**19), None),
    "endless": (lambda f: begun(f, 2**63 - 1, 2**19), None),
    "half a header": (lambda f: begun(f, LONG)[:9], None),
    "text": (lambda f: begun(f, LONG, opcode=TEXT), None),
    "compressed": (lambda f: f(BINARY, deflated(2 * BEGUN), length=LONG, rsv=RSV1), None),
    "the first of many": (lambda f: begun(f, LONG, fin=False), None),
    "the last of many": (lambda f: f(BINARY, b"x", fin=False) + begun(f, LONG, opcode=CONT), None),
    "behind a full batch": (lambda f: f(BINARY, b"x" * BATCH_SIZE) + begun(f, LONG), None),
}


def begun(frame, length, size=BEGUN, opcode=BINARY, **options):
    """A frame of which ``size`` bytes have come."""
    return frame(opcode, b"x" * size, length=length, **options)


def deflated(size):
    """Some of a compressed message, of so many bytes, and no shorter itself."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(os.urandom(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize("name", LONG_FRAMES)
def test_only_a_long_binary_message_of_one_frame_has_a_place(frame, name):
    make, has_place = LONG_FRAMES[name]
    decoder = make_decoder(math.inf, compressed=True)
    data = make(frame)

    assert not any(isinstance(fact, ProtocolViolated) for fact in decoder.receive(data, len(data)))
    assert has_place == (True if decoder.get_buffer() is not None else None)


def test_nobody_is_given_memory_for_a_promise(frame):
    """A thousand peers that send a header each, and then little."""

    def act():
        for piece in begun(frame, MAX_TARGET_SIZE, 0), b"x", b"x" * 100:
            for decoder in decoders:
                receive(decoder, piece)
                decoder.get_buffer()

    decoders = [make_decoder(MAX_TARGET_SIZE) for _ in range(1000)]

    assert peak_memory(act) < 1000 * 1000


@pytest.mark.parametrize("limits", [{"max_message_size": LONG - 1}, {"max_frame_size": LONG - 1}])
def test_what_is_too_large_has_no_place(frame, limits):
    decoder = make_decoder(**limits)

    assert [1009] == [fact.code for fact in receive(decoder, frame(BINARY, length=LONG))]
    assert decoder.get_buffer() is None


def test_bytes_that_are_just_given_go_to_the_place_as_well(frame):
    message = os.urandom(LONG)
    data = frame(BINARY, message)
    for cuts in ((4000, len(data)), (10, 4000, 5000, len(data)), (4000, len(data) - 1, len(data))):
        decoder = make_decoder()
        start, facts = 0, []
        for cut in cuts:
            facts += receive(decoder, data[start:cut])
            decoder.get_buffer()
            start = cut

        assert [message] == facts
        assert decoder.get_buffer() is None
        assert [b"next"] == receive(decoder, frame(BINARY, b"next"))


def test_a_place_is_forgotten_with_its_message(frame):
    decoder = make_decoder()
    for byte in b"ab":
        message = bytes([byte]) * LONG
        receive(decoder, frame(BINARY, message[:BEGUN], length=LONG))

        assert ([message], b"") == fill(decoder, message[BEGUN:])
        assert [message] == receive(decoder, frame(BINARY, message))


@pytest.mark.parametrize("filled", [0, 1, 1000, LONG - BEGUN - 1, LONG - BEGUN])
def test_parts_may_be_wanted_while_a_place_is_filled(frame, filled):
    message = os.urandom(LONG)
    decoder = make_decoder()
    receive(decoder, frame(BINARY, message[:BEGUN], length=LONG))
    decoder.get_buffer()[: filled // 2] = message[BEGUN : BEGUN + filled // 2]
    decoder.buffer_updated(filled // 2)
    start = BEGUN + filled // 2
    place = decoder.get_buffer()
    size = min(filled - filled // 2, len(place))
    place[:size] = message[start : start + size]
    decoder.in_parts = True
    facts = decoder.buffer_updated(size)

    assert facts[0] == MessagePart(message[: start + size], False)
    assert start + size == decoder.size
    assert decoder.get_buffer() is None

    facts += receive(decoder, message[start + size :] + frame(TEXT, b"after"))

    assert [message, "after"] == joined(facts)


@pytest.mark.parametrize("goes_on", [True, False])
def test_parts_may_be_wanted_while_a_place_waits(frame, goes_on):
    message = os.urandom(LONG)
    decoder = make_decoder()
    receive(decoder, frame(BINARY, message[:BEGUN], length=LONG))
    place = decoder.get_buffer()
    decoder.in_parts = True

    assert decoder.get_buffer() is None

    decoder.in_parts = goes_on
    if not goes_on:
        assert place is decoder.get_buffer()

    facts = receive(decoder, message[BEGUN:])

    assert [message] == joined(facts)
    assert goes_on == isinstance(facts[0], MessagePart)
    with pytest.raises(ValueError, match="released"):
        place[0] = 0


def test_a_part_that_ends_its_message_is_what_came_and_no_more(frame):
    """Of a place that is not filled nothing is given, whatever was there."""
    decoder = make_decoder()
    size = BEGUN + 10
    receive(decoder, begun(frame, LONG))
    decoder.get_buffer()
    receive(decoder, b"x" * 10)
    decoder.in_parts = True

    assert [
        MessagePart(b"x" * size, False),
        MessagePart(b"y" * (LONG - size), False),
        MessagePart(b"", True),
    ] == receive(decoder, b"y" * (LONG - size))


def test_who_keeps_a_place_cannot_write_into_what_was_received(frame):
    message = b"x" * LONG
    decoder = make_decoder()
    receive(decoder, begun(frame, LONG))
    first = decoder.get_buffer()
    first[:10] = b"x" * 10
    decoder.buffer_updated(10)
    second = decoder.get_buffer()
    second[:] = b"x" * len(second)
    [received] = decoder.buffer_updated(len(second))
    for place in (first, second):
        with pytest.raises(ValueError, match="released"):
            place[0] = 0

    assert message == received
    assert hash(message) == hash(received)
    assert bytes is type(received)


def test_a_place_outlives_the_decoder(frame):
    """Whoever is still writing there writes into memory that is nobody else's."""
    decoder = make_decoder()
    receive(decoder, begun(frame, LONG))
    with decoder.get_buffer()[:] as kept:
        del decoder
        others = [bytes(LONG) for _ in range(100)]
        kept[:] = b"x" * len(kept)

        assert [bytes(LONG)] * 100 == others
        assert b"x" * len(kept) == kept


# --- memory -------------------------------------------------------------------------------------


def peak_memory(act):
    """Bytes that were in use at once beyond those before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        act()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_messages_that_are_collected_at_the_same_time_are_not_mixed_up(frame):
    chance = random.Random(0)
    messages = {
        index: [chance.randbytes(chance.choice([1, 10, 5000])) * 10 for _ in range(30)]
        for index in range(3)
    }
    decoders = {index: make_decoder() for index in messages}
    waiting = {
        index: in_pieces(
            b"".join(
                frame(BINARY, message[:7], fin=False) + frame(CONT, message[7:])
                for message in messages[index]
            ),
            chance.choice([11, 700, 20_000]),
        )
        for index in messages
    }
    received = {index: [] for index in messages}
    while any(waiting.values()):
        index = chance.choice([index for index in waiting if waiting[index]])
        received[index] += receive(decoders[index], waiting[index].pop(0))

    assert messages == received


def test_a_message_of_pieces_of_one_byte_takes_its_own_size(frame):
    size = 20_000
    decoder = make_decoder(max_fragments=math.inf)

    def act():
        receive(decoder, frame(BINARY, b"x", fin=False))
        for _ in range(size):
            receive(decoder, continuation)

    continuation = frame(CONT, b"x", fin=False)

    assert peak_memory(act) < 2 * size
    assert [b"x" * (size + 1)] == receive(decoder, frame(CONT))


@pytest.mark.parametrize("size", [2**20, MAX_TARGET_SIZE])
def test_a_long_message_is_in_memory_once(frame, size):
    """Or twice, while a package that is not compiled copies it."""

    def act():
        received.extend(receive(decoder, start))
        place = decoder.get_buffer()
        received.extend(decoder.buffer_updated(len(place)))

    start = begun(frame, size, size // MAX_PROMISE)
    decoder, received = make_decoder(size), []

    beside = size // MAX_PROMISE + 10_000  # What had come before.

    assert peak_memory(act) < size * (1 if COMPILED else 2) + beside
    assert [size] == [len(message) for message in received]


def test_a_very_large_message_leaves_no_buffer_behind(frame):
    size = 6 * 2**20
    decoder = make_decoder(size)
    data = frame(BINARY, bytes(size))
    [message] = receive_in_pieces(decoder, data, 2**20)

    assert bytes(size) == message
    assert sum(map(len, _codec._scratch)) <= 4 * 2**20


def zeros(size):
    """A compressed message that inflates to ``size`` zeros."""
    # Blocks that do not refer to one another, repeated.
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return block * (size // 2**20) + b"\x02\x00"


@pytest.mark.parametrize("read_size", [1, 1000, 64 * 1024, 256 * 1024, 2**30])
@pytest.mark.parametrize("fragment_size", [100, 2**30])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [2**28, 2**30])
def test_a_bomb_is_1009_and_takes_little_memory(frame, size, opcode, fragment_size, read_size):
    payloads = in_pieces(zeros(size), fragment_size)
    data = b"".join(
        frame(CONT if index else opcode, payload, fin=False, rsv=0 if index else RSV1)
        for index, payload in enumerate(payloads)
    )
    decoder = make_decoder(compressed=True)
    facts = []

    def act():
        facts.extend(receive_in_pieces(decoder, data, read_size))

    # What one read brings is the transport's; here it is a copy of the whole.
    assert peak_memory(act) < 4 * 2**20 + min(read_size, len(data)) * 2
    assert [1009] == [fact.code for fact in facts]


def test_a_bomb_behind_good_messages_of_the_same_context_is_1009(frame, peer):
    decoder = make_decoder(compressed=True)
    receive(decoder, peer.compressed(TEXT, b"good") * 1)
    data = peer.compressed(BINARY, bytes(2**24))
    facts = []

    assert peak_memory(lambda: facts.extend(receive(decoder, data))) < 4 * 2**20
    assert [1009] == [fact.code for fact in facts]


def test_a_bomb_in_parts_is_given_in_batches(frame):
    payload = zeros(2**26)
    decoder = make_decoder(compressed=True, in_parts=True)
    received = []

    def act():
        data = frame(BINARY, payload, rsv=RSV1)
        facts = decoder.receive(data, len(data))
        received.append(decoder.size)
        while decoder.has_more:
            facts = decoder.receive(b"", 0)
            received.append(decoder.size)
        assert facts[-1].is_last

    assert peak_memory(act) < 4 * 2**20
    assert 2**26 == sum(received)


# --- what is sent -------------------------------------------------------------------------------


@pytest.fixture
def take(take_frame):
    """The frames of a buffer."""

    def take(buffer):
        frames = []
        while buffer:
            frames.append(take_frame(buffer))
        return frames

    return take


HEADERS = [
    (0, "82 80"),
    (1, "82 81"),
    (125, "82 fd"),
    (126, "82 fe 00 7e"),
    (65535, "82 fe ff ff"),
    (65536, "82 ff 00 00 00 00 00 01 00 00"),
    (2**20, "82 ff 00 00 00 00 00 10 00 00"),
]


@pytest.mark.parametrize(("size", "header"), HEADERS)
def test_a_length_is_written_in_its_shortest_form(take, size, header):
    buffer = bytearray()
    Encoder(buffer).message(b"x" * size)
    expected = bytes.fromhex(header)

    assert expected == buffer[: len(expected)]
    assert len(expected) + 4 + size == len(buffer)
    assert [(BINARY, b"x" * size)] == take(buffer)


def test_frames_are_written_behind_one_another(take):
    buffer = bytearray()
    encoder = Encoder(buffer)
    encoder.message("é")
    encoder.message(b"\xff")
    encoder.frame(0x80 | PING, b"ping")
    encoder.message("")

    assert [(TEXT, "é".encode()), (BINARY, b"\xff"), (PING, b"ping"), (TEXT, b"")] == take(buffer)


class Text(str):
    __slots__ = ()


class Octets(bytes):
    __slots__ = ()


@pytest.mark.parametrize(
    "write",
    [
        Encoder.message,
        lambda encoder, part: encoder.part(part, is_first=True, is_last=True),
    ],
    ids=["message", "part"],
)
@pytest.mark.parametrize("message", [Text("é" * 200), Octets(b"x" * 200)], ids=["str", "bytes"])
@pytest.mark.parametrize("compression", [None, Compression(threshold=0)])
def test_a_subclass_of_str_or_bytes_is_written_as_what_it_is(take, write, message, compression):
    deflater = compression and Deflater(15, compression, keeps_context=True)
    buffer = bytearray()
    write(Encoder(buffer, deflater), message)
    is_text = isinstance(message, str)

    assert (TEXT if is_text else BINARY) == buffer[0] & 0x0F
    if not buffer[0] & 0x40:
        assert [message.encode() if is_text else message] == [
            payload for _, payload in take(buffer)
        ]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 100, 125])
def test_a_short_frame_is_written_in_one_go_where_it_stands(take_frame, size):
    payload = random.Random(size).randbytes(size)
    buffer = bytearray(b"before" + bytes(6 + size))
    _codec._write_short(buffer, 6, 0x80 | BINARY, payload, b"\x01\x80\xff\x00")
    frame = buffer[6:]

    assert b"before" == buffer[:6]
    assert (BINARY, payload) == take_frame(frame)


def test_a_burst_is_as_long_as_it_may_be(take):
    buffer = bytearray()
    encoder = Encoder(buffer)

    assert not encoder.join("no burst")

    encoder.burst = 2

    assert [True, True, False] == [encoder.join(text) for text in ("a", "b", "c")]
    assert [(TEXT, b"a"), (TEXT, b"b")] == take(buffer)


def test_nothing_joins_a_full_buffer(take):
    buffer = bytearray()
    encoder = Encoder(buffer)
    encoder.burst = 10
    # The message that fills it may go beyond it.
    large = "x" * (BURST_SIZE + 1)

    assert [True, True, False] == [encoder.join(text) for text in ("a", large, "b")]
    assert [(TEXT, b"a"), (TEXT, large.encode())] == take(buffer)


def test_what_is_no_message_joins_nothing():
    buffer = bytearray()
    encoder = Encoder(buffer)
    encoder.burst = 10

    assert [False] * 3 == [encoder.join(other) for other in (3, None, bytearray(b"x"))]
    assert b"" == buffer
    assert 10 == encoder.burst


def test_what_is_to_be_compressed_joins_no_burst():
    buffer = bytearray()
    encoder = Encoder(buffer, Deflater(15, Compression(threshold=100), keeps_context=True))
    encoder.burst = 10

    assert [True, False, False] == [encoder.join(b"x" * size) for size in (99, 100, 2**20)]
    assert 9 == encoder.burst


@pytest.mark.parametrize("deflater", [None, Deflater(15, Compression(), keeps_context=True)])
def test_text_that_cannot_be_encoded_leaves_the_buffer_as_it_was(deflater):
    buffer = bytearray(b"whole frames")
    encoder = Encoder(buffer, deflater)
    encoder.burst = 100
    for write, size in ((encoder.message, 1000), (encoder.join, 100)):
        with pytest.raises(UnicodeEncodeError):
            write("x" * size + "\ud800")
    with pytest.raises(UnicodeEncodeError):
        encoder.part("\ud800", is_first=True, is_last=False)

    assert b"whole frames" == buffer


def test_only_what_reaches_the_threshold_is_compressed():
    for size, first in ((99, 0x82), (100, 0xC2)):
        buffer = bytearray()
        deflater = Deflater(15, Compression(threshold=100), keeps_context=True)
        Encoder(buffer, deflater).message(b"x" * size)

        assert first == buffer[0]


@pytest.mark.parametrize("keeps_context", [True, False])
def test_what_is_compressed_can_be_inflated(take_frame, keeps_context):
    deflater = Deflater(15, Compression(threshold=0), keeps_context=keeps_context)
    buffer = bytearray()
    encoder = Encoder(buffer, deflater)
    decoder = Inflater(15, keeps_context=keeps_context)
    for message in ("", "é" * 1000, b"", b"x" * 100_000, os.urandom(1000)):
        encoder.message(message)

        assert 0x40 == buffer[0] & 0x70

        buffer[0] ^= 0x40
        opcode, payload = take_frame(buffer)
        expected = message.encode() if isinstance(message, str) else message

        assert (TEXT if isinstance(message, str) else BINARY) == opcode
        assert expected == decoder.inflate(payload + b"\x00\x00\xff\xff", 2**20)

        decoder.end_message()


@pytest.mark.parametrize(
    ("part", "is_first", "is_last", "first", "payload"),
    [
        ("é", True, False, 0x01, "é".encode()),
        (b"x", True, False, 0x02, b"x"),
        ("é", False, False, 0x00, "é".encode()),
        (b"x", False, False, 0x00, b"x"),
        ("", False, True, 0x80, b""),
        ("é", True, True, 0x81, "é".encode()),
        (b"", True, True, 0x82, b""),
    ],
)
@pytest.mark.parametrize("compression", [None, Compression(threshold=0)])
def test_a_part_is_a_frame_and_never_compressed(
    take_frame, part, is_first, is_last, first, payload, compression
):
    deflater = compression and Deflater(15, compression, keeps_context=True)
    buffer = bytearray()
    Encoder(buffer, deflater).part(part, is_first=is_first, is_last=is_last)

    assert first == buffer[0]

    buffer[0] = 0x80 | TEXT

    assert (TEXT, payload) == take_frame(buffer)


# --- masks --------------------------------------------------------------------------------------


class Masks:
    """The masks of one connection."""

    def __init__(self, make_encoder=Encoder):
        self.buffer = bytearray()
        self.encoder = make_encoder(self.buffer)

    def take(self, count):
        for _ in range(count):
            self.encoder.message(b"")
        masks = [bytes(self.buffer[start + 2 : start + 6]) for start in range(0, count * 6, 6)]
        self.buffer.clear()
        return masks


def test_ten_thousand_frames_have_masks_of_their_own():
    # Of 2^32, two of 10,000 are equal about once in 86 runs; three pairs, practically never.
    assert len(set(Masks().take(10_000))) > 10_000 - 3


def test_two_connections_have_masks_of_their_own():
    assert not set(Masks().take(100)) & set(Masks().take(100))


def test_masks_do_not_come_from_a_generator_that_can_be_seeded():
    random.seed(1)
    first = Masks().take(100)
    random.seed(1)

    assert first != Masks().take(100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_this_process_uses_other_masks_than_its_parent():
    masks = Masks()
    masks.take(1)
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        # Of the threads that other tests have left; the child does nothing that needs them.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.write(sending, b"".join(masks.take(20)))
        os._exit(0)
    os.close(sending)
    os.waitpid(pid, 0)
    with open(receiving, "rb") as file:
        of_child = set(in_pieces(file.read(), 4))

    assert 20 == len(of_child)
    assert not of_child & set(masks.take(20))


def test_a_fork_is_noticed_before_the_next_mask(monkeypatch):
    numbers = itertools.count()
    monkeypatch.setattr(os, "urandom", lambda size: bytes([next(numbers)]) * size)
    masks = Masks()

    assert [b"\0" * 4] == masks.take(1)

    _codec._count_fork()

    # What was fetched before the fork is not used up.
    assert [b"\1" * 4] * 64 + [b"\2" * 4] == masks.take(65)


@pytest.mark.skipif(COMPILED, reason="a compiled module has one name")
def test_a_system_without_forks_is_none_to_be_noticed(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    spec = importlib.util.spec_from_file_location("wsclient.protocol._windows", _codec.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert 10 == len(set(Masks(module.Encoder).take(10)))


def test_a_payload_is_masked_with_its_key_at_any_place_and_of_any_size():
    chance = random.Random(0)
    for size in (*range(300), 4096, 100_001):
        key, payload = chance.randbytes(4), chance.randbytes(size)
        before, after = chance.randbytes(chance.randint(0, 20)), chance.randbytes(3)
        expected = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
        buffer = bytearray(before + bytes(size) + after)
        _mask(buffer, len(before), payload, key)

        assert before + expected + after == buffer
        assert expected == _masked(payload, key)


def test_text_that_cannot_be_encoded_does_not_join():
    buffer = bytearray()
    encoder = Encoder(buffer)
    encoder.burst = 10
    with pytest.raises(UnicodeEncodeError):
        encoder.join("x\ud800")

    assert b"" == buffer
    assert 10 == encoder.burst


# --- and else -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "size"), [("", 0), ("abc", 3), ("é€🙂", 9), (b"", 0), (b"\xff" * 3, 3)]
)
def test_the_size_of_a_message_is_that_of_its_payload(message, size):
    assert size == encoded_size(message)


def test_the_package_tells_whether_it_was_compiled():
    assert COMPILED is wsclient.__compiled__
    assert COMPILED is not _codec.__file__.endswith(".py")
    assert sys.maxsize > 2**40
