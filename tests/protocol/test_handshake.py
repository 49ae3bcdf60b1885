"""The opening handshake against every kind of server (RFC 6455 §4.1)."""

from __future__ import annotations

import pytest

from wsclient.errors import ConnectionRejected, HandshakeError, InvalidUpgrade
from wsclient.options import Compression
from wsclient.protocol import Accepted, ClientHandshake, Deflate, check_host, check_resource
from wsclient.protocol._handshake import MAX_BODY_SIZE, MAX_HEAD_SIZE, MAX_HEADERS
from wsclient.protocol._head import MAX_INTERIM_ANSWERS


@pytest.fixture
def start():
    """Starts a handshake; returns it and the request that it sent."""

    def start(**options):
        handshake = ClientHandshake("test.example", "/resource?query", **options)
        return handshake, handshake.send_request()

    return start


def byte_by_byte(handshake, data):
    for position, byte in enumerate(data):
        accepted = handshake.receive_data(bytes([byte]))
        if accepted is not None:
            # What is behind the head stays with the caller.
            assert b"" == accepted.trailing
            return Accepted(accepted.subprotocol, accepted.headers, data[position + 1 :])
    return None


FEEDS = pytest.mark.parametrize(
    "feed", [ClientHandshake.receive_data, byte_by_byte], ids=["whole", "bytes"]
)


# --- the request --------------------------------------------------------------------------------


def parse(request):
    line, *headers = request.removesuffix(b"\r\n\r\n").split(b"\r\n")
    return line, [tuple(header.split(b": ", 1)) for header in headers]


def test_the_request_is_what_the_rfc_asks_for_and_nothing_else(start):
    line, headers = parse(start()[1])

    assert b"GET /resource?query HTTP/1.1" == line
    assert [
        b"Host",
        b"Upgrade",
        b"Connection",
        b"Sec-WebSocket-Key",
        b"Sec-WebSocket-Version",
    ] == [name for name, _ in headers]
    values = dict(headers)
    assert (b"test.example", b"websocket", b"Upgrade", b"13") == (
        values[b"Host"],
        values[b"Upgrade"],
        values[b"Connection"],
        values[b"Sec-WebSocket-Version"],
    )
    assert 24 == len(values[b"Sec-WebSocket-Key"])


def test_every_request_has_a_key_of_its_own(start):
    assert 10 == len({dict(parse(start()[1])[1])[b"Sec-WebSocket-Key"] for _ in range(10)})


def test_subprotocols_are_offered_in_one_header(start):
    _, headers = parse(start(subprotocols=("v2.chat", "v1.chat"))[1])

    assert (b"Sec-WebSocket-Protocol", b"v2.chat, v1.chat") == headers[-1]


def test_extra_headers_come_last_in_their_order(start):
    extra = ((b"X-B", b"2"), (b"x-a", b"1"), (b"X-B", b"3"))
    _, headers = parse(start(headers=extra)[1])

    assert [*extra] == headers[-3:]


def test_a_host_header_of_the_callers_replaces_ours(start):
    _, headers = parse(start(headers=((b"host", b"other.example:8"),))[1])

    assert [b"other.example:8"] == [value for name, value in headers if name.lower() == b"host"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), [b"mine/1"]),
        (((b"X-A", b"1"),), [b"mine/1"]),
        (((b"X-A", b"1"), (b"USER-agent", b"mine/2")), [b"mine/2"]),
    ],
)
def test_a_user_agent_is_sent_once(start, headers, expected):
    _, sent = parse(start(headers=headers, user_agent="mine/1")[1])

    assert expected == [value for name, value in sent if name.lower() == b"user-agent"]


def test_the_limits_of_the_head_are_options(start, answer):
    handshake, request = start(max_head_size=40)
    with pytest.raises(InvalidUpgrade, match="exceeds 40 bytes"):
        handshake.receive_data(answer(request))
    handshake, request = start(max_headers=2)
    with pytest.raises(InvalidUpgrade, match="more than 2 headers"):
        handshake.receive_data(answer(request))
    handshake, request = start(max_head_size=2**20, max_headers=1000)
    many = [b"X-A: " + b"x" * 1000] * 500
    assert 500 == len(handshake.receive_data(answer(request, *many)).headers)
    # h11 has a bound of its own, which must not be met before ours: also for a refusal.
    handshake, _ = start(max_head_size=2**20, max_headers=1000)
    refusal = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n" + b"\r\n".join([*many, b"", b""])
    with pytest.raises(ConnectionRejected):
        handshake.receive_data(refusal)


def test_a_long_label_next_to_a_port_is_no_idna_error():
    host = "x" * 63 + ":65535"
    _, headers = parse(ClientHandshake(host, "/").send_request())

    assert (b"Host", host.encode()) == headers[0]


# --- accepted -----------------------------------------------------------------------------------


@FEEDS
def test_a_good_answer_is_accepted(start, answer, feed):
    handshake, request = start()

    assert Accepted(None, (), b"") == feed(handshake, answer(request))


@FEEDS
def test_frames_in_the_same_segment_are_kept(start, answer, frame, feed):
    handshake, request = start()
    frames = frame(1, b"first\r\n\r\n") + frame(2, b"second")

    assert frames == feed(handshake, answer(request) + frames).trailing


def test_an_answer_may_be_cut_anywhere(start, answer, frame):
    handshake, request = start()
    size = len(answer(request))
    for cut in range(1, size + 1):
        handshake, request = start()
        data = answer(request) + frame(1, b"first")

        first = handshake.receive_data(data[:cut])
        last = first or handshake.receive_data(data[cut:])

        assert (cut == size) is (first is not None)
        assert frame(1, b"first") == (last.trailing or data[cut:])


@FEEDS
def test_headers_keep_their_order_and_repeats_without_the_handshakes_own(start, answer, feed):
    handshake, request = start(subprotocols=("chat",))
    data = answer(
        request, b"X-Test: One", b"Set-Cookie: a", b"Sec-WebSocket-Protocol: chat", b"set-cookie: b"
    )

    assert ((b"x-test", b"One"), (b"set-cookie", b"a"), (b"set-cookie", b"b")) == feed(
        handshake, data
    ).headers


@FEEDS
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket", b"UPGRADE: WebSocket"),
        (b"Connection: Upgrade", b"connection: UPGRADE"),
        (b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
        (b"Connection: Upgrade", b"Connection: keep-alive\r\nConnection: Upgrade"),
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nConnection: keep-alive"),
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nConnection:"),
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nSec-WebSocket-Extensions:"),
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nSec-WebSocket-Extensions: "),
        (b"Connection: Upgrade", b"Connection:Upgrade"),
        (b"101 Switching Protocols", b"101 "),
        (b"101 Switching Protocols", b"101"),
        (b"101 Switching Protocols", b"101 Web Socket Protocol Handshake"),
        (b"\r\n", b"\n"),
    ],
)
def test_spellings_that_the_rfc_allows_are_accepted(start, answer, feed, old, new):
    handshake, request = start()
    data = answer(request)

    assert old in data
    assert feed(handshake, data.replace(old, new)) is not None


@FEEDS
@pytest.mark.parametrize("status", [b"102 Processing", b"103 Early Hints", b"199 Whatever"])
@pytest.mark.parametrize("times", [1, 3, MAX_INTERIM_ANSWERS])
def test_interim_answers_are_skipped(start, answer, frame, feed, status, times):
    handshake, request = start()
    interim = b"HTTP/1.1 " + status + b"\r\nLink: </style.css>; rel=preload\r\n\r\n"

    accepted = feed(handshake, interim * times + answer(request) + frame(1, b"x"))

    assert Accepted(None, (), frame(1, b"x")) == accepted


@FEEDS
def test_an_interim_answer_may_come_before_a_refusal(start, feed):
    handshake, _ = start()
    with pytest.raises(ConnectionRejected) as caught:
        feed(
            handshake,
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
        )

    assert (404, b"") == (caught.value.status_code, caught.value.body)


@FEEDS
def test_the_server_chooses_one_of_the_subprotocols(start, answer, feed):
    handshake, request = start(subprotocols=("v2.chat", "v1.chat"))

    assert (
        "v1.chat"
        == feed(handshake, answer(request, b"Sec-WebSocket-Protocol: v1.chat")).subprotocol
    )


# --- extensions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compression", "expected"),
    [
        (None, []),
        (Compression(), [b"permessage-deflate; client_max_window_bits"]),
        (
            Compression(server_no_context_takeover=True, client_max_window_bits=10),
            [b"permessage-deflate; server_no_context_takeover; client_max_window_bits=10"],
        ),
    ],
)
def test_compression_is_offered_where_it_is_wanted(start, compression, expected):
    _, headers = parse(start(compression=compression)[1])

    assert expected == [
        value for name, value in headers if name.lower() == b"sec-websocket-extensions"
    ]


@FEEDS
@pytest.mark.parametrize(
    ("header", "agreed"),
    [
        (b"permessage-deflate", {}),
        (b"permessage-deflate; server_no_context_takeover", {"server_no_context_takeover": True}),
        (b" permessage-deflate ;client_max_window_bits=10 ", {"client_max_window_bits": 10}),
        (b"permessage-deflate\r\nSec-WebSocket-Extensions:", {}),
    ],
)
def test_a_server_may_agree_to_compress(start, answer, header, agreed, feed):
    compression = Compression(level=1)
    handshake, request = start(compression=compression)
    extensions = b"Sec-WebSocket-Extensions: " + header
    accepted = handshake.receive_data(answer(request, extensions))

    assert Deflate(compression=compression, **agreed) == accepted.deflate
    assert () == accepted.headers


def test_a_server_need_not_agree_to_compress(start, answer):
    handshake, request = start(compression=Compression())

    assert handshake.receive_data(answer(request)).deflate is None


@FEEDS
@pytest.mark.parametrize(
    "headers",
    [
        (b"permessage-deflate; unknown",),
        (b"permessage-deflate; server_max_window_bits=7",),
        (b"permessage-deflate; client_max_window_bits",),
        (b"permessage-deflate, permessage-deflate",),
        (b"permessage-deflate", b"permessage-deflate"),
        (b"permessage-deflate", b"other"),
        (b"PERMESSAGE-DEFLATE",),
        (b"x-webkit-deflate-frame",),
    ],
)
def test_an_extension_that_was_not_offered_so_is_an_invalid_upgrade(start, answer, headers, feed):
    handshake, request = start(compression=Compression())
    lines = [b"Sec-WebSocket-Extensions: " + header for header in headers]
    with pytest.raises(InvalidUpgrade, match="not valid"):
        feed(handshake, answer(request, *lines))


# --- answers that break the rules ---------------------------------------------------------------


def replaced(old, new):
    def hostile(request, answer):
        assert old in answer(request)
        return answer(request).replace(old, new)

    return hostile


def with_headers(*headers):
    return lambda request, answer: answer(request, *headers)


def raw(data):
    return lambda request, answer: data


INVALID = {
    "HTTP/1.0": (replaced(b"HTTP/1.1", b"HTTP/1.0"), "another HTTP than 1.1"),
    "HTTP/1.2": (replaced(b"HTTP/1.1", b"HTTP/1.2"), "another HTTP than 1.1"),
    "HTTP/2": (replaced(b"HTTP/1.1", b"HTTP/2"), "not HTTP/1.1"),
    "no Upgrade": (replaced(b"Upgrade: websocket\r\n", b""), "not valid"),
    "another Upgrade": (replaced(b"websocket", b"h2c"), "not valid"),
    "no Connection": (replaced(b"Connection: Upgrade\r\n", b""), "not valid"),
    "Connection without Upgrade": (
        replaced(b"Connection: Upgrade", b"Connection: close"),
        "not valid",
    ),
    "no accept token": (replaced(b"Sec-WebSocket-Accept", b"X-Accept"), "not valid"),
    "a wrong accept token": (replaced(b"Accept: ", b"Accept: x"), "not valid"),
    "the accept token of an empty key": (
        raw(
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: Kfh9QIsMVZcl6xEPYxPHzW8SZ8w=\r\n\r\n"
        ),
        "not valid",
    ),
    "two accept tokens": (with_headers(b"Sec-WebSocket-Accept: x"), "repeats"),
    "two subprotocols": (
        with_headers(b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Protocol: chat"),
        "repeats",
    ),
    "a list of subprotocols": (with_headers(b"Sec-WebSocket-Protocol: chat, other"), "not valid"),
    "a subprotocol not offered": (with_headers(b"Sec-WebSocket-Protocol: other"), "not valid"),
    "a subprotocol in another case": (with_headers(b"Sec-WebSocket-Protocol: CHAT"), "not valid"),
    "an empty subprotocol": (with_headers(b"Sec-WebSocket-Protocol:"), "not valid"),
    "an extension not offered": (
        with_headers(b"Sec-WebSocket-Extensions: permessage-deflate"),
        "not valid",
    ),
    "a malformed extension": (with_headers(b'Sec-WebSocket-Extensions: ;;,"'), "not valid"),
    "an extension in a repeated header": (
        with_headers(b"Sec-WebSocket-Extensions: a", b"Sec-WebSocket-Extensions:"),
        "not valid",
    ),
    "a header that is not ASCII": (with_headers("X-Größe: 1".encode()), "not ASCII"),
    "a value that is not ASCII": (with_headers(b"X-A: \xff"), "not ASCII"),
    "a subprotocol that is not ASCII": (with_headers(b"Sec-WebSocket-Protocol: \xe9"), "not ASCII"),
    "a header without a colon": (with_headers(b"X-A"), "malformed header"),
    "a folded header": (with_headers(b"X-A: 1", b" 2"), "malformed header"),
    "a space before the colon": (with_headers(b"X-A : 1"), "malformed header"),
    "a bare CR": (with_headers(b"X-A: 1\r2"), "malformed header"),
    "NUL": (with_headers(b"X-A: 1\x002"), "not valid"),
    "an empty header name": (with_headers(b": 1"), "not valid"),
    "a status of two digits": (raw(b"HTTP/1.1 20 OK\r\n\r\n"), "status line"),
    "a status of four digits": (raw(b"HTTP/1.1 2000 OK\r\n\r\n"), "status line"),
    "a status of letters": (raw(b"HTTP/1.1 abc OK\r\n\r\n"), "status line"),
    "no status": (raw(b"HTTP/1.1\r\n\r\n"), "status line"),
    "status 099": (raw(b"HTTP/1.1 099 X\r\n\r\n"), "invalid status"),
    "garbage": (raw(b"\x15\x03\x01\x00\x02\x02\x16"), "not HTTP/1.1"),
    "SSH": (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "not HTTP/1.1"),
    "an empty line first": (raw(b"\r\n"), "not HTTP/1.1"),
    "a WebSocket frame": (raw(b"\x81\x01x"), "not HTTP/1.1"),
    "too many headers": (with_headers(*[b"X-A: 1"] * (MAX_HEADERS - 2)), "more than 128 headers"),
    "a head that is too large": (with_headers(b"X-A: " + b"x" * MAX_HEAD_SIZE), "exceeds 16 KiB"),
    "a line without an end": (raw(b"HTTP/1.1 101 " + b"x" * MAX_HEAD_SIZE), "exceeds 16 KiB"),
    "interim answers without an end": (
        raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MAX_INTERIM_ANSWERS + 1)),
        "too many interim answers",
    ),
    "a refusal that is not HTTP": (raw(b"HTTP/1.1 503 X\r\nno header\r\n\r\n"), "not valid"),
}


@FEEDS
@pytest.mark.parametrize("name", INVALID)
def test_an_answer_that_breaks_the_rules_is_an_invalid_upgrade(start, answer, feed, name):
    hostile, text = INVALID[name]
    handshake, request = start(subprotocols=("chat",))
    with pytest.raises(InvalidUpgrade, match=text) as caught:
        feed(handshake, hostile(request, answer))

    assert InvalidUpgrade is type(caught.value)
    assert str(caught.value).isprintable()


def test_as_many_headers_and_bytes_as_are_allowed_are_accepted(start, answer):
    handshake, request = start()
    assert handshake.receive_data(answer(request, *[b"X-A: 1"] * (MAX_HEADERS - 3))) is not None

    handshake, request = start()
    room = MAX_HEAD_SIZE - len(answer(request, b"X-A: "))
    assert handshake.receive_data(answer(request, b"X-A: " + b"x" * room)) is not None

    handshake, request = start()
    with pytest.raises(InvalidUpgrade, match="exceeds 16 KiB"):
        handshake.receive_data(answer(request, b"X-A: " + b"x" * (room + 1)))


# --- refused ------------------------------------------------------------------------------------

REFUSALS = {
    "no body": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, b""),
    "a body of a known length": (
        b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 5\r\n\r\nlater",
        503,
        b"later",
    ),
    "a chunked body": (
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\n2\r\ncd\r\n0\r\n\r\n",
        403,
        b"ab\ncd",
    ),
    "a status without a body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b""),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
        302,
        b"",
    ),
    "200": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    "401": (
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        401,
        b"",
    ),
    "HTTP/1.0": (b"HTTP/1.0 500 X\r\nContent-Length: 1\r\n\r\n!", 500, b"!"),
    "an unknown status": (b"HTTP/1.1 799 X\r\nContent-Length: 0\r\n\r\n", 799, b""),
    "headers that are not ASCII": (
        b"HTTP/1.1 503 X\r\nX-A: \xff\r\nContent-Length: 0\r\n\r\n",
        503,
        b"",
    ),
    "a body that is not text": (
        b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\n\xff\x00\r\n",
        500,
        b"\xff\x00\r\n",
    ),
    "100": (b"HTTP/1.1 100 Continue\r\n\r\n", 100, None),
}


@FEEDS
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_raised_once_its_answer_is_whole(start, feed, name):
    data, status, body = REFUSALS[name]
    handshake, _ = start()
    with pytest.raises(ConnectionRejected) as caught:
        feed(handshake, data)

    assert (status, body) == (caught.value.status_code, caught.value.body)


@FEEDS
def test_a_refusal_keeps_its_headers_in_lower_case_and_order(start, feed):
    handshake, _ = start()
    with pytest.raises(ConnectionRejected) as caught:
        feed(
            handshake,
            b"HTTP/1.1 429 X\r\nRetry-After: 3\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n",
        )

    assert (
        (b"retry-after", b"3"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"content-length", b"0"),
    ) == caught.value.headers


@pytest.mark.parametrize("size", [1000, MAX_BODY_SIZE + 100])
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 500 X\r\n\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nF4240\r\n",
    ],
    ids=["eof", "length", "chunked"],
)
def test_a_body_is_cut_off_at_64_kib(start, size, head):
    handshake, _ = start()
    handshake.receive_data(head)
    with pytest.raises(ConnectionRejected) as caught:
        for _ in range(0, MAX_BODY_SIZE + 100, size):
            handshake.receive_data(b"x" * size)

    assert (500, b"x" * MAX_BODY_SIZE) == (caught.value.status_code, caught.value.body)


def test_a_broken_body_does_not_hide_the_status(start):
    handshake, _ = start()
    with pytest.raises(ConnectionRejected) as caught:
        handshake.receive_data(
            b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nnot a chunk\r\n"
        )

    assert 503 == caught.value.status_code


# --- the end of the stream ----------------------------------------------------------------------


def test_eof_before_the_answer_is_a_handshake_error(start):
    handshake, _ = start()
    with pytest.raises(HandshakeError, match="before it answered") as caught:
        handshake.receive_eof()

    assert HandshakeError is type(caught.value)
    assert EOFError is type(caught.value.__cause__)


def test_eof_anywhere_inside_an_acceptance_is_a_handshake_error(start, answer):
    handshake, request = start()
    for cut in range(1, len(answer(request))):
        handshake, request = start()

        assert handshake.receive_data(answer(request)[:cut]) is None

        with pytest.raises(HandshakeError, match="inside its answer") as caught:
            handshake.receive_eof()

        assert HandshakeError is type(caught.value)


@pytest.mark.parametrize(
    "coding",
    [b"Content-Length: 10", b"Transfer-Encoding: chunked", b"Connection: close"],
)
def test_eof_inside_a_refusals_body_still_tells_the_status(start, coding):
    head = b"HTTP/1.1 503 Busy\r\n" + coding + b"\r\n\r\n"
    body = b"5\r\nlater" if b"chunked" in coding else b"later"
    for cut in range(1, len(head + body) + 1):
        handshake, _ = start()

        assert handshake.receive_data((head + body)[:cut]) is None

        with pytest.raises(HandshakeError) as caught:
            handshake.receive_eof()

        if cut < len(head):
            assert HandshakeError is type(caught.value)
        else:
            assert (ConnectionRejected, 503) == (type(caught.value), caught.value.status_code)
            assert caught.value.body == b"later"[: len(caught.value.body)]
    assert b"later" == caught.value.body


def test_eof_after_an_interim_answer_is_a_handshake_error(start):
    handshake, _ = start()

    assert handshake.receive_data(b"HTTP/1.1 103 Early Hints\r\n\r\n") is None

    with pytest.raises(HandshakeError, match="before it answered"):
        handshake.receive_eof()


# --- what may be asked for ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "resource", ["/", "/a/b", "/?", "/a?b=c&d", "/%20%C3%A9", "//x", "/a;b", "/~!$'()*+,@:"]
)
def test_a_resource_is_taken_as_it_is(resource):
    assert resource == check_resource(resource)


@pytest.mark.parametrize(
    ("resource", "error", "text"),
    [
        (None, TypeError, "resource must be str, not NoneType"),
        (b"/canary", TypeError, "resource must be str, not bytes"),
        ("", ValueError, "must start with '/'"),
        ("canary", ValueError, "must start with '/'"),
        ("http://h/canary", ValueError, "must start with '/'"),
        ("/canary\r\nX-A: 1", ValueError, "spaces or control characters"),
        ("/canary\n", ValueError, "spaces or control characters"),
        ("/canary\0", ValueError, "spaces or control characters"),
        ("/canary HTTP/1.1", ValueError, "spaces or control characters"),
        ("/canary\t", ValueError, "spaces or control characters"),
        ("/canary\x7f", ValueError, "spaces or control characters"),
        ("/canary-é", ValueError, "must be ASCII; percent-encode"),
        ("/canary#x", ValueError, "must not contain a fragment"),
    ],
)
def test_a_resource_that_cannot_be_asked_for_is_refused_and_not_quoted(resource, error, text):
    with pytest.raises(error, match=text) as caught:
        check_resource(resource)

    assert error is type(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("example.com", "example.com"),
        ("Example.COM", "Example.COM"),
        ("example.com.", "example.com."),
        ("localhost", "localhost"),
        ("my_host-1", "my_host-1"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]:8000", "[::1]:8000"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("example.com:8000", "example.com:8000"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("x" * 63 + ".example", "x" * 63 + ".example"),
        ("x" * 63 + ":8000", "x" * 63 + ":8000"),
        (".".join(["x" * 62] * 4), ".".join(["x" * 62] * 4)),
    ],
)
def test_a_host_is_a_name_or_an_address_in_ascii(host, ascii_host):
    assert ascii_host == check_host(host)


@pytest.mark.parametrize(
    ("host", "error", "text"),
    [
        (None, TypeError, "host must be str, not NoneType"),
        (b"h", TypeError, "host must be str, not bytes"),
        ("", ValueError, "must not be empty"),
        ("x" * 254, ValueError, "longer than 253"),
        ("x" * 100_000, ValueError, "longer than 253"),
        ("ü" * 254, ValueError, "longer than 253"),
        ("x" * 64, ValueError, "label that is empty or longer than 63"),
        ("a..b", ValueError, "label that is empty or longer than 63"),
        (".a", ValueError, "label that is empty or longer than 63"),
        (".", ValueError, "label that is empty or longer than 63"),
        ("ü" * 60 + ".example", ValueError, "internationalised name"),
        ("ü..example", ValueError, "internationalised name"),
        ("a b", ValueError, "spaces, control characters or URL delimiters"),
        ("a\r\nX-A: 1", ValueError, "spaces, control characters or URL delimiters"),
        ("a\0", ValueError, "spaces, control characters or URL delimiters"),
        ("a/b", ValueError, "spaces, control characters or URL delimiters"),
        ("user@a", ValueError, "spaces, control characters or URL delimiters"),
        ("a?b", ValueError, "spaces, control characters or URL delimiters"),
        ("a#b", ValueError, "spaces, control characters or URL delimiters"),
        ("a\\b", ValueError, "spaces, control characters or URL delimiters"),
        ("<a>", ValueError, "spaces, control characters or URL delimiters"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_host_that_names_no_server_is_refused(host, error, text):
    with pytest.raises(error, match=text) as caught:
        check_host(host)

    assert error is type(caught.value)
    assert len(str(caught.value)) < 200
