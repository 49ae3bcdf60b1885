"""Compression: what is offered and agreed on, and the two ends of it (RFC 7692)."""

from __future__ import annotations

import random
import zlib

import pytest
import wsproto.connection
import wsproto.extensions
from wsproto.frame_protocol import Opcode, RsvBits

from wsclient.options import Compression
from wsclient.protocol._deflate import Deflate, Deflater, Inflater, InvalidDeflate, agree, offer

TAIL = b"\x00\x00\xff\xff"
CHANCE = random.Random(7692)
MESSAGES = [
    b"",
    b"x",
    b"the same again " * 50,
    b"the same again " * 50,
    CHANCE.randbytes(5000),
    bytes(200_000),
    b"the same again " * 50,
]

# --- what is offered ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "client_max_window_bits"),
        ({"client_max_window_bits": 10}, "client_max_window_bits=10"),
        (
            {"server_max_window_bits": 9},
            "server_max_window_bits=9; client_max_window_bits",
        ),
        (
            {"server_no_context_takeover": True},
            "server_no_context_takeover; client_max_window_bits",
        ),
        (
            {"client_no_context_takeover": True},
            "client_no_context_takeover; client_max_window_bits",
        ),
        (
            {
                "server_no_context_takeover": True,
                "client_no_context_takeover": True,
                "server_max_window_bits": 12,
                "client_max_window_bits": 15,
                "level": 9,
                "memory_level": 1,
                "threshold": 0,
            },
            "server_no_context_takeover; client_no_context_takeover;"
            " server_max_window_bits=12; client_max_window_bits=15",
        ),
    ],
)
def test_what_is_asked_for_is_offered_and_nothing_else(options, expected):
    assert expected == offer(Compression(**options))


# --- what is agreed on --------------------------------------------------------------------------

SERVER_NONE = {"server_no_context_takeover": True}
CLIENT_NONE = {"client_no_context_takeover": True}

ACCEPTED = [
    # offered, the answer's parameters, agreed: where it differs from 15 bits and contexts
    ({}, "", {}),
    ({}, " ", {}),
    ({}, "server_no_context_takeover", SERVER_NONE),
    ({}, "client_no_context_takeover", CLIENT_NONE),
    ({}, "server_no_context_takeover; client_no_context_takeover", SERVER_NONE | CLIENT_NONE),
    ({}, "client_no_context_takeover;server_no_context_takeover", SERVER_NONE | CLIENT_NONE),
    *(
        ({}, f"{name}={bits}", {name: bits})
        for name in ("server_max_window_bits", "client_max_window_bits")
        for bits in range(8, 16)
    ),
    ({}, 'server_max_window_bits="10"', {"server_max_window_bits": 10}),
    (
        {},
        " server_max_window_bits = 10 ; client_max_window_bits\t=\t9 ",
        {
            "server_max_window_bits": 10,
            "client_max_window_bits": 9,
        },
    ),
    (SERVER_NONE, "server_no_context_takeover", SERVER_NONE),
    # What we have offered to do is done, whether the server says so or not.
    (CLIENT_NONE, "", CLIENT_NONE),
    (CLIENT_NONE, "client_no_context_takeover", CLIENT_NONE),
    ({"client_max_window_bits": 10}, "", {"client_max_window_bits": 10}),
    ({"client_max_window_bits": 10}, "client_max_window_bits=10", {"client_max_window_bits": 10}),
    ({"client_max_window_bits": 10}, "client_max_window_bits=9", {"client_max_window_bits": 9}),
    ({"server_max_window_bits": 10}, "server_max_window_bits=10", {"server_max_window_bits": 10}),
    ({"server_max_window_bits": 10}, "server_max_window_bits=8", {"server_max_window_bits": 8}),
]


@pytest.mark.parametrize(("offered", "answer", "agreed"), ACCEPTED)
def test_an_answer_within_the_offer_is_agreed_on(offered, answer, agreed):
    compression = Compression(**offered)

    assert Deflate(compression=compression, **agreed) == agree(compression, answer)


BITS = "must be a number from 8 to 15"
REFUSED = [
    ({}, "unknown", "unknown parameter 'unknown'"),
    ({}, "unknown=1", "unknown parameter"),
    ({}, "compression", "unknown parameter 'compression'"),
    ({}, "Server_no_context_takeover", "unknown parameter"),
    ({}, "server_no_context_takeover; server_no_context_takeover", "repeated parameter"),
    ({}, "client_max_window_bits=9; client_max_window_bits=9", "repeated parameter"),
    ({}, "server_no_context_takeover=1", "has no value"),
    ({}, 'client_no_context_takeover="true"', "has no value"),
    *(
        ({}, f"{name}={value}", BITS)
        for name in ("server_max_window_bits", "client_max_window_bits")
        for value in ("7", "16", "0", "08", "015", "1e1", "x", "8x", "99999999999999999999")
    ),
    ({}, "server_max_window_bits", BITS),
    ({}, "client_max_window_bits", BITS),
    ({}, 'server_max_window_bits="09"', BITS),
    ({}, "server_max_window_bits=", "malformed parameter"),
    ({}, "server_max_window_bits=-9", "malformed parameter"),
    ({}, "server_max_window_bits=+9", "malformed parameter"),
    ({}, "server_max_window_bits=9.0", "malformed parameter"),
    ({}, 'server_max_window_bits="9', "malformed parameter"),
    ({}, 'server_max_window_bits=9"', "malformed parameter"),
    ({}, 'server_max_window_bits="9";x=', "malformed parameter"),
    ({}, "server_max_window_bits=9 9", "malformed parameter"),
    ({}, "=9", "malformed parameter"),
    ({}, "a b", "malformed parameter"),
    ({}, '"', "malformed parameter"),
    ({"server_max_window_bits": 10}, "server_max_window_bits=11", "more than was offered"),
    ({"client_max_window_bits": 10}, "client_max_window_bits=11", "more than was offered"),
    ({"server_max_window_bits": 10}, "", "did not agree to server_max_window_bits"),
    (SERVER_NONE, "", "did not agree to server_no_context_takeover"),
    (SERVER_NONE, "client_no_context_takeover", "did not agree to server_no_context_takeover"),
]


@pytest.mark.parametrize(("offered", "answer", "text"), REFUSED)
def test_an_answer_beyond_the_offer_is_refused(offered, answer, text):
    with pytest.raises(InvalidDeflate, match=text):
        agree(Compression(**offered), answer)


# --- the two ends -------------------------------------------------------------------------------


def inflate(inflater, data, max_size=2**20):
    """One message, in pieces of ``max_size`` bytes at most."""
    pieces = [inflater.inflate(data + TAIL, max_size)]
    while inflater.has_more:
        pieces.append(inflater.inflate(b"", max_size))
    inflater.end_message()

    assert all(len(piece) <= max_size for piece in pieces)
    return b"".join(pieces)


def agreed(**options):
    return Deflate(compression=Compression(threshold=0), **options)


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("no_context", [False, True])
def test_our_messages_are_what_was_agreed_on(bits, no_context):
    deflater = agreed(
        client_max_window_bits=bits, client_no_context_takeover=no_context
    ).make_deflater()
    theirs = zlib.decompressobj(-bits)
    for message in MESSAGES:
        data = deflater.deflate(message)
        if no_context:
            theirs = zlib.decompressobj(-bits)

        assert message == theirs.decompress(data + TAIL)


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("no_context", [False, True])
@pytest.mark.parametrize("max_size", [1, 100, 2**20])
def test_the_servers_messages_are_understood(bits, no_context, max_size):
    inflater = agreed(
        server_max_window_bits=bits, server_no_context_takeover=no_context
    ).make_inflater()
    theirs = zlib.compressobj(9, zlib.DEFLATED, -bits)
    for message in (message[:2000] for message in MESSAGES):
        if no_context:
            theirs = zlib.compressobj(9, zlib.DEFLATED, -bits)
        data = theirs.compress(message) + theirs.flush(zlib.Z_SYNC_FLUSH)

        assert message == inflate(inflater, data.removesuffix(TAIL), max_size)


def test_a_window_of_256_bytes_is_understood_but_not_written():
    deflate = agreed(server_max_window_bits=8, client_max_window_bits=8)

    assert deflate.make_deflater() is None

    # Two equal bytes, as a run that looks back by one.
    assert b"\0" * 100 == inflate(deflate.make_inflater(), b"\x62\x60\xa0\x3d\x00\x00")


@pytest.mark.parametrize("keeps_context", [True, False])
def test_a_message_may_refer_to_the_one_before_only_where_there_is_a_context(keeps_context):
    theirs = zlib.compressobj(9, zlib.DEFLATED, -15)
    message = CHANCE.randbytes(500)
    first, second = (
        (theirs.compress(message) + theirs.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
        for _ in range(2)
    )
    inflater = Inflater(15, keeps_context=keeps_context)

    assert message == inflate(inflater, first)
    if keeps_context:
        assert message == inflate(inflater, second)
    else:
        with pytest.raises(InvalidDeflate):
            inflate(inflater, second)


@pytest.mark.parametrize("server_none", [False, True])
@pytest.mark.parametrize("client_none", [False, True])
def test_it_works_with_an_extension_of_another_make(server_none, client_none):
    theirs = wsproto.extensions.PerMessageDeflate(
        client_no_context_takeover=client_none, server_no_context_takeover=server_none
    )
    compression = Compression(
        client_no_context_takeover=client_none, server_no_context_takeover=server_none, threshold=0
    )
    answer = theirs.accept("permessage-deflate; " + offer(compression))
    deflate = agree(compression, answer.partition(";")[2] if "deflate" in answer else answer)
    inflater, deflater = deflate.make_inflater(), deflate.make_deflater()
    server = wsproto.connection.Connection(
        wsproto.connection.ConnectionType.SERVER, extensions=[theirs]
    )

    assert server_none is deflate.server_no_context_takeover
    assert client_none is deflate.client_no_context_takeover
    for message in MESSAGES:
        rsv, data = theirs.frame_outbound(
            server._proto, Opcode.BINARY, RsvBits(False, False, False), message, True
        )

        assert rsv.rsv1
        assert message == inflate(inflater, data)

        data = deflater.deflate(message)
        theirs.frame_inbound_header(
            server._proto, Opcode.BINARY, RsvBits(True, False, False), len(data)
        )

        assert message == (
            theirs.frame_inbound_payload_data(server._proto, data)
            + theirs.frame_inbound_complete(server._proto, True)
        )


def test_a_context_makes_the_same_again_small():
    for no_context in (False, True):
        deflater = agreed(client_no_context_takeover=no_context).make_deflater()
        message = CHANCE.randbytes(1000)
        first, second = deflater.deflate(message), deflater.deflate(message)

        assert (len(second) > len(first) // 2) is no_context


def test_level_and_memory_are_options():
    words = [CHANCE.randbytes(9) for _ in range(200)]
    message = b"".join(CHANCE.choices(words, k=2000))
    stored = Deflater(15, Compression(level=0), keeps_context=True).deflate(message)
    fast = Deflater(15, Compression(level=1, memory_level=1), keeps_context=True).deflate(message)
    small = Deflater(15, Compression(level=9, memory_level=9), keeps_context=True).deflate(message)

    assert len(small) < len(fast) < len(message) < len(stored)


def test_an_empty_message_is_one_byte():
    assert b"\x00" == Deflater(15, Compression(), keeps_context=True).deflate(b"")


# --- bounds -------------------------------------------------------------------------------------


def deflated(message, *, is_final=False):
    compress = zlib.compressobj(9, zlib.DEFLATED, -15)
    if is_final:
        return compress.compress(message) + compress.flush()
    return (compress.compress(message) + compress.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def test_nothing_inflates_to_more_than_there_is_room_for():
    inflater = Inflater(15, keeps_context=True)
    data = deflated(bytes(10**6)) + TAIL

    assert 1000 == len(inflater.inflate(data, 1000))
    assert inflater.has_more
    assert 10 == len(inflater.inflate(b"", 10))
    assert 10**6 - 1010 == len(inflater.inflate(b"", 10**6))
    assert not inflater.has_more


def test_what_fills_the_room_exactly_may_have_more():
    inflater = Inflater(15, keeps_context=True)

    assert b"x" * 100 == inflater.inflate(deflated(b"x" * 100) + TAIL, 100)
    assert inflater.has_more
    assert b"" == inflater.inflate(b"", 100)
    assert not inflater.has_more


def test_what_waits_comes_before_what_follows():
    inflater = Inflater(15, keeps_context=True)
    first, second = bytes(100), b"second" * 20
    compress = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = [
        compress.compress(message) + compress.flush(zlib.Z_SYNC_FLUSH)
        for message in (first, second)
    ]

    assert first[:10] == inflater.inflate(data[0], 10)
    assert first[10:] + second == inflater.inflate(data[1], 1000)


# --- streams that end (RFC 7692 §7.2.3.4), and that are none ------------------------------------


@pytest.mark.parametrize("max_size", [1, 3, 9, 1000])
def test_a_block_that_is_marked_as_the_last_ends_no_message(max_size):
    inflater = Inflater(15, keeps_context=True)
    # The RFC's example has a byte behind the final block; two such blocks do no harm.
    for data, message in [
        (bytes.fromhex("f3 48 cd c9 c9 07 00 00"), b"Hello"),
        (deflated(b"one", is_final=True) + deflated(b" and two"), b"one and two"),
        (deflated(b"plain"), b"plain"),
    ]:
        assert message == inflate(inflater, data, max_size)


def test_a_final_block_may_end_with_the_read():
    inflater = Inflater(15, keeps_context=True)

    assert b"Hello" == inflater.inflate(bytes.fromhex("f3 48 cd c9 c9 07 00"), 1000)
    assert not inflater.has_more
    assert b", you" == inflater.inflate(deflated(b", you") + TAIL, 1000)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_message_that_ends_again_and_again_is_refused(is_whole):
    """Each end would cost a copy of what is left of the read."""
    inflater = Inflater(15, keeps_context=True)
    final = deflated(b"", is_final=True)

    assert b"" == inflater.inflate(final * 15, 1000)
    with pytest.raises(InvalidDeflate, match="ends again and again"):
        inflater.inflate(final * (17 if is_whole else 100_000), 1000)


@pytest.mark.parametrize(
    "data", [b"\xff" * 10, b"\x07", b"text, not compressed", b"\x00\x05\x00\x00\x00hello"], ids=repr
)
def test_what_is_not_deflates_format_is_refused(data):
    inflater = Inflater(15, keeps_context=True)
    with pytest.raises(InvalidDeflate, match="cannot be inflated") as caught:
        inflater.inflate(data, 1000)

    # What zlib says is in the text; its traceback would hold the message.
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "server_no_context_takeover",
        "server_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=9; client_max_window_bits=10",
    ],
)
def test_what_was_agreed_on_reads_as_a_header_has_it(answer):
    text = "permessage-deflate" + (f"; {answer}" if answer else "")

    assert text == str(agree(Compression(), answer))
