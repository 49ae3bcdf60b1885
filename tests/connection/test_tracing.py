"""A connection whose frames someone looks at."""

from __future__ import annotations

import pytest
import trio

from wsclient import open_websocket

TEXT, PING, PONG, CLOSE = 1, 9, 10, 8


async def test_every_frame_is_told_and_no_content(connected, frame):
    told = []
    async with connected(trailing=frame(TEXT, b"early"), trace=told.append) as (connection, peer):
        assert "early" == await connection.get_message()
        await connection.send_message("secret")
        await peer.receive_frame()
        await peer.send_frame(PING, b"?")
        await peer.receive_frame()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer_close)
            await connection.aclose()

    assert [
        "← text, 5 bytes",
        "→ text, 6 bytes",
        "← ping, 1 bytes",
        "→ pong, 1 bytes",
        "→ close, 2 bytes, 1000 NORMAL_CLOSURE",
        "← close, 2 bytes, 1000 NORMAL_CLOSURE",
    ] == [str(traced) for traced in told]


@pytest.mark.parametrize("secure", [False, True])
async def test_a_socket_is_traced_as_well(server, tls, secure):
    told = []
    async with open_websocket(
        "localhost" if secure else server.host,
        server.tls_port if secure else server.port,
        "/echo",
        use_ssl=tls.client if secure else False,
        trace=told.append,
    ) as connection:
        for number in range(3):
            await connection.send_message(str(number))
        for number in range(3):
            assert str(number) == await connection.get_message()
        assert secure is connection.remote.is_ssl

    assert 3 == [str(traced) for traced in told].count("→ text, 1 bytes")
    assert 3 == [str(traced) for traced in told].count("← text, 1 bytes")
    assert "← close, 2 bytes, 1000 NORMAL_CLOSURE" == str(told[-1])


async def test_a_trace_that_raises_ends_the_tracing_and_nothing_else(connected):
    def trace(traced):
        raise LookupError("no room")

    async with connected(trace=trace) as (connection, peer):
        with pytest.warns(RuntimeWarning, match="tracing ends, since .*no room"):
            await connection.send_message("1")
        await connection.send_message("2")

        assert [(TEXT, b"1"), (TEXT, b"2")] == [await peer.receive_frame() for _ in range(2)]
