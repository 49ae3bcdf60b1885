"""What the server records."""

import trio

from wsclient.connection import open_websocket_url
from wsclient.testing import (
    NONE,
    REJECT_404,
    SILENCE,
    FaultServer,
    Heard,
    Visit,
)


async def test_server_records_what_it_hears(serve):
    async with serve(subprotocols=["chat"]) as server:
        before = trio.current_time()
        async with open_websocket_url(
            server.url + "/feed?x=1",
            subprotocols=["other", "chat"],
            extra_headers={"X-Token": "secret"},
        ) as connection:
            assert "chat" == connection.subprotocol

            await connection.send_message("text")
            await connection.send_message(b"binary")
            await connection.send_message("é" * 100_000)
            await connection.ping(b"p")
            await connection.pong(b"unasked")
            await connection.aclose(4000, "done")
        visit = await server.wait_over(1)

    assert ["text", b"binary", "é" * 100_000] == visit.messages == server.messages
    assert [b"p"] == [heard.payload for heard in visit.pings]
    assert [b"unasked"] == [heard.payload for heard in visit.pongs]
    assert before <= visit.opened_at <= visit.pings[0].at <= visit.ended_at
    assert (4000, "done") == (visit.close.code, visit.close.reason)
    assert ("/feed?x=1", "chat", True) == (
        visit.path,
        visit.subprotocol,
        visit.handshake_completed,
    )
    assert b"secret" == dict(visit.headers)[b"x-token"]
    assert b"other, chat" == dict(visit.headers)[b"sec-websocket-protocol"]
    assert visit.violation is None
    assert "secret" not in repr(visit)
    assert "x=1" not in repr(visit)


async def test_pings_are_recorded_with_their_times(network, autojump_clock):
    async with FaultServer([SILENCE], network=network) as server:
        started = trio.current_time()
        async with open_websocket_url(server.url) as connection:
            for payload in (b"1", b"2"):
                with trio.move_on_after(10):
                    await connection.ping(payload)
            connection.abort()

    assert [Heard(b"1", started), Heard(b"2", started + 10)] == server.connections[0].pings


async def test_messages_of_all_connections_are_in_one_order(network, autojump_clock):
    async with (
        FaultServer(network=network) as server,
        open_websocket_url(server.url) as first,
        open_websocket_url(server.url) as second,
    ):
        for number in range(6):
            await (first, second)[number % 2].send_message(str(number))
            await server.wait_messages(number + 1)

    assert ["0", "1", "2", "3", "4", "5"] == server.messages
    assert [["0", "2", "4"], ["1", "3", "5"]] == [visit.messages for visit in server.connections]


async def test_record_can_be_cleared_and_the_story_goes_on(network, autojump_clock, outcome):
    async with FaultServer([NONE, NONE, REJECT_404], network=network) as server:
        async with open_websocket_url(server.url) as connection:
            await connection.send_message("early")
            await outcome(server)
            await server.wait_messages(1)
            server.clear()

            assert [] == server.messages
            assert [1] == [visit.number for visit in server.connections]

        assert 404 == await outcome(server)


def test_visit_that_has_ended_is_over():
    visit = Visit(number=1, fault=NONE, opened_at=1.0)

    assert not visit.is_over

    visit.ended_at = 1.0

    assert visit.is_over
