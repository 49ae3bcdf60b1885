"""The opening handshake, from the server's side."""

import pytest
import trio

from wsclient.testing import (
    FaultServer,
    memory_stream_pair,
)
from wsclient.testing._handshake import BadRequest, http_answer, read_request, with_wrong_accept


async def test_request_that_is_no_upgrade_is_refused_and_recorded(serve, open_stream):
    async with serve() as server:
        stream = await open_stream(server)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: server.test\r\n\r\n")
        answer = b""
        while data := await stream.receive_some():
            answer += data
        await stream.aclose()
        visit = await server.wait_over(1)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert "Upgrade" in visit.violation


@pytest.mark.parametrize("request_", [b"", b"GET / HT", b"\x16\x03\x01garbage\r\n\r\n"])
async def test_client_that_leaves_or_talks_nonsense_ends_its_own_connection_only(
    serve, request_, outcome, open_stream
):
    async with serve() as server:
        stream = await open_stream(server)
        await stream.send_all(request_)
        await stream.aclose()
        await server.wait_over(1)

        assert 1000 == await outcome(server)


async def test_endless_request_is_cut(network, autojump_clock):
    async with FaultServer(network=network):
        stream = await network.connect("server.test", 80)
        with trio.move_on_after(10), pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"x" * 1000)


REQUEST = (
    b"GET /x HTTP/1.1\r\nHost: server.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: one, two\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
)


async def receive_request(data):
    client, server = memory_stream_pair(buffer_size=100_000)
    await client.send_all(data)
    client.close()
    return await read_request(server)


async def test_request_is_read_with_all_its_headers():
    request = await receive_request(REQUEST + b"first frame")

    assert ("/x", ("one", "two"), b"first frame") == (
        request.path,
        request.subprotocols,
        request.trailing,
    )
    assert [(b"x-a", b"1"), (b"x-a", b"2")] == list(request.headers[-2:])
    assert b"server.test" == dict(request.headers)[b"host"]


async def test_subprotocol_is_the_first_of_ours_that_is_offered():
    request = await receive_request(REQUEST)

    assert ["two", "one", None, None] == [
        request.choose(ours) for ours in (["zero", "two", "one"], ["one", "two"], ["zero"], [])
    ]


async def test_acceptance_is_the_one_of_rfc_6455():
    request = await receive_request(REQUEST)
    answer = request.accept("one")

    # The example of RFC 6455 §1.3.
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer.replace(
        b"sec-websocket-accept", b"Sec-WebSocket-Accept"
    )


async def test_wrong_acceptance_differs_in_its_token_only():
    right = (await receive_request(REQUEST.replace(b"dGhl", b"dGhm"))).accept(None)
    wrong = with_wrong_accept(right)

    assert len(right) == len(wrong)
    assert right != wrong
    assert right.split(b"\r\n")[:3] == wrong.split(b"\r\n")[:3]


async def test_stream_that_ends_before_the_request_is_no_request():
    assert await receive_request(REQUEST[:-2]) is None


@pytest.mark.parametrize(
    "data",
    [
        REQUEST.replace(b"GET", b"POST"),
        REQUEST.replace(b"Version: 13", b"Version: 8"),
        REQUEST.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        REQUEST.replace(b"server.test", b"x" * 64 + b"\xff"),
        b"\x00\r\n\r\n",
        b"x" * 70_000,
    ],
)
async def test_what_is_no_upgrade_request_is_told_as_such(data):
    with pytest.raises(BadRequest):
        await receive_request(data)


@pytest.mark.parametrize(
    ("status", "line"),
    [(200, b"HTTP/1.1 200 OK\r\n"), (599, b"HTTP/1.1 599 Unheard Of\r\n")],
)
def test_answer_is_whole(status, line):
    answer = http_answer(status, [("X-A", "1")], b"body")

    assert answer.startswith(line)
    assert answer.endswith(b"\r\nX-A: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody")
