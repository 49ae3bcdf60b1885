"""The protocols speak with the servers that they were made for, over one plain connection."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from typing import Any

import pytest
import trio

import wsclient
from wsclient.app.protocols import GraphqlTransportWs, JsonPubSub, JsonRpc
from wsclient.session import (
    Answer,
    Protocol,
    Published,
    Subscribed,
    SubscriptionEnded,
    Unsubscribed,
    Wish,
)

HEADS = Wish(key="newHeads", number=1)
NAMES = "abc"

BLOCKS = JsonRpc(
    position=lambda head: int(head["number"], 16),
    is_next=lambda before, after: after == before + 1,
)

pytestmark = pytest.mark.servers


class Talk:
    """A connection, and what its messages mean."""

    def __init__(self, protocol: Protocol, connection: wsclient.WebSocketConnection) -> None:
        self.protocol = protocol
        self.connection = connection

    async def subscribe(self, wish: Wish) -> None:
        await self.connection.send_message(self.protocol.subscribe(wish))

    async def unsubscribe(self, wish: Wish, token: Any = None) -> None:
        message = self.protocol.unsubscribe(wish, token)
        assert message is not None
        await self.connection.send_message(message)

    async def signal(self) -> Any:
        """The next signal; every message must be one."""
        with trio.fail_after(10):
            message = await self.connection.get_message()
        signal = self.protocol.recognise(message)
        assert signal is not None, message
        return signal

    async def signals(self, kind: type) -> Any:
        """The next signal of a kind; published values and pings may come before."""
        while not isinstance(found := await self.signal(), kind):
            assert isinstance(found, Published | Answer), found
        return found

    async def wait_closed(self) -> wsclient.CloseReason:
        with pytest.raises(wsclient.ConnectionClosed) as caught:
            while True:
                await self.signal()
        assert caught.value.reason is not None
        return caught.value.reason


@pytest.fixture
def talk_to(nursery: trio.Nursery):
    """Opens and establishes a connection of a protocol to a URL."""

    async def talk_to(protocol: Protocol, url: str) -> Talk:
        connection = await wsclient.connect_websocket_url(
            nursery, url, subprotocols=protocol.subprotocols
        )
        await protocol.establish(connection)
        return Talk(protocol, connection)

    return talk_to


# --- anvil ----------------------------------------------------------------------------------------


async def test_anvil_tells_of_each_block_that_is_mined(start_anvil: Any, talk_to: Any) -> None:
    anvil = await start_anvil()
    talk = await talk_to(BLOCKS, anvil.url)
    await talk.subscribe(HEADS)
    subscribed = await talk.signal()

    assert Subscribed(1, token=subscribed.token) == subscribed

    assert 5 == await anvil.mine(5)
    heads = [await talk.signal() for _ in range(5)]
    positions = [BLOCKS.position(head.value) for head in heads]

    assert {subscribed.token} == {head.tag for head in heads}
    assert [1, 2, 3, 4, 5] == positions
    assert all(BLOCKS.is_next(*pair) for pair in pairwise(positions))

    await talk.unsubscribe(HEADS, subscribed.token)

    assert Unsubscribed(1) == await talk.signal()


async def test_anvil_refuses_with_a_reason(start_anvil: Any, talk_to: Any) -> None:
    anvil = await start_anvil()
    talk = await talk_to(BLOCKS, anvil.url)
    await talk.subscribe(Wish(key="nothing that there is", number=2))
    ended = await talk.signal()

    assert (2, False) == (ended.tag, ended.may_retry)
    assert isinstance(ended.error, wsclient.JsonRpcError)
    assert -32602 == ended.error.code


async def test_anvil_knows_nothing_of_a_subscription_that_is_over(
    start_anvil: Any, talk_to: Any
) -> None:
    anvil = await start_anvil()
    talk = await talk_to(BLOCKS, anvil.url)
    await talk.subscribe(HEADS)
    token = (await talk.signal()).token
    for _ in range(2):
        await talk.unsubscribe(HEADS, token)

        assert Unsubscribed(1) == await talk.signal()


async def test_anvil_goes_on_with_its_chain(start_anvil: Any, talk_to: Any) -> None:
    anvil = await start_anvil()
    await anvil.mine(3)
    talk = await talk_to(BLOCKS, anvil.url)
    await talk.subscribe(HEADS)
    before = (await talk.signal()).token
    await anvil.restart(signal.SIGTERM)

    # It does not say goodbye.
    assert 1006 == (await talk.wait_closed()).code

    talk = await talk_to(BLOCKS, anvil.url)
    await talk.subscribe(HEADS)
    subscribed = await talk.signal()

    assert subscribed.token != before
    assert 4 == await anvil.mine()
    assert 4 == BLOCKS.position((await talk.signal()).value)


async def test_anvil_mines_by_itself(start_anvil: Any, talk_to: Any) -> None:
    talk = await talk_to(BLOCKS, (await start_anvil(block_time=1)).url)
    await talk.subscribe(HEADS)
    await talk.signal()
    positions = [BLOCKS.position((await talk.signal()).value) for _ in range(2)]

    assert BLOCKS.is_next(*positions)


# --- graphql-ws -----------------------------------------------------------------------------------

GRAPHQL = GraphqlTransportWs()


def count(name: str, number: int) -> Wish:
    return Wish(key=name, parameters=f"subscription {{ {name} }}", number=number)


COUNTS = [count(name, number) for number, name in enumerate(NAMES, 1)]


async def test_graphql_ws_counts_for_three_at_once(start_graphql: Any, talk_to: Any) -> None:
    server = await start_graphql()
    talk = await talk_to(GRAPHQL, server.url)
    for wish in COUNTS:
        await talk.subscribe(wish)
    published: dict[int, list[int]] = {1: [], 2: [], 3: []}
    while min(map(len, published.values())) < 5:
        signal = await talk.signal()
        ((_, number),) = signal.value["data"].items()
        published[signal.tag].append(number)

    assert all(sorted(set(numbers)) == numbers for numbers in published.values())
    await server.wait_wanted([{f"s{wish.number}": wish.parameters for wish in COUNTS}])

    # Nothing is said to this; and the id is free again.
    await talk.unsubscribe(COUNTS[0])
    await server.wait_wanted([{f"s{wish.number}": wish.parameters for wish in COUNTS[1:]}])


async def test_graphql_ws_ends_a_stream_with_an_error_or_without(
    start_graphql: Any, talk_to: Any
) -> None:
    server = await start_graphql()
    talk = await talk_to(GRAPHQL, server.url)
    for wish in COUNTS:
        await talk.subscribe(wish)
    await server.wait_wanted([{f"s{wish.number}": wish.parameters for wish in COUNTS}])
    await server.control(do="complete", name="a")
    ended = await talk.signals(SubscriptionEnded)

    assert SubscriptionEnded(1) == ended

    await server.control(do="fail", name="b")
    failed = await talk.signals(SubscriptionEnded)

    assert (2, False) == (failed.tag, failed.may_retry)
    assert "as told" == failed.error.error[0]["message"]

    # The third one goes on.
    assert 3 == (await talk.signals(Published)).tag


async def test_graphql_ws_refuses_with_a_reason(start_graphql: Any, talk_to: Any) -> None:
    talk = await talk_to(GRAPHQL, (await start_graphql()).url)
    await talk.subscribe(Wish(key="subscription { nothing }", number=1))
    failed = await talk.signal()

    assert 1 == failed.tag
    assert isinstance(failed.error, wsclient.ReplyError)


async def test_graphql_ws_ends_a_connection_for_a_query_that_cannot_be_parsed(
    start_graphql: Any, talk_to: Any
) -> None:
    talk = await talk_to(GRAPHQL, (await start_graphql()).url)
    await talk.subscribe(Wish(key="no GraphQL", number=1))
    reason = await talk.wait_closed()

    assert (4500, 'Syntax Error: Unexpected Name "no".') == (reason.code, reason.reason)


async def test_graphql_ws_pings_and_answers_pings(start_graphql: Any, talk_to: Any) -> None:
    server = await start_graphql()
    talk = await talk_to(GRAPHQL, server.url)
    await server.control(do="ping")

    assert Answer('{"type": "pong"}') == await talk.signal()

    await talk.connection.send_message(GRAPHQL.heartbeat.build())
    with trio.fail_after(10):
        assert GRAPHQL.heartbeat.match(await talk.connection.get_message())


async def test_graphql_ws_replies_to_queries(start_graphql: Any, talk_to: Any) -> None:
    talk = await talk_to(GRAPHQL, (await start_graphql()).url)
    ask = GRAPHQL.correlation
    replies = []
    for number, query in enumerate(["{ double(of: 21) }", "{ broken }", "{ nothing }"], 1):
        await talk.connection.send_message(ask.mark(query, number))
        replies.append(ask.recognise(await talk.connection.get_message()))
        if number < 3:
            assert Answer() == await talk.signal()

    assert {"data": {"double": 42}} == replies[0].value
    assert [None, "as asked", 'Cannot query field "nothing" on type "Query".'] == [
        reply.error and reply.error.error[0]["message"] for reply in replies
    ]


async def test_graphql_ws_closes_where_an_id_comes_twice(start_graphql: Any, talk_to: Any) -> None:
    talk = await talk_to(GRAPHQL, (await start_graphql()).url)
    await talk.subscribe(COUNTS[0])
    await talk.subscribe(COUNTS[0])

    assert 4409 == (await talk.wait_closed()).code


async def test_graphql_ws_forbids_whoever_has_no_token(start_graphql: Any, talk_to: Any) -> None:
    url = (await start_graphql(token="t")).url
    with pytest.raises(wsclient.ConnectionClosed, match="4403"):
        await talk_to(GRAPHQL, url)
    talk = await talk_to(GraphqlTransportWs(payload={"token": "t"}), url)
    await talk.subscribe(COUNTS[0])

    assert 1 == (await talk.signal()).tag


async def test_graphql_ws_does_not_speak_with_whoever_does_not_offer_its_protocol(
    start_graphql: Any, nursery: trio.Nursery
) -> None:
    connection = await wsclient.connect_websocket_url(nursery, (await start_graphql()).url)
    with pytest.raises(wsclient.ConnectionClosed, match="4406"):
        await connection.get_message()


@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGTERM, 1001), (signal.SIGKILL, 1006)], ids=["SIGTERM", "SIGKILL"]
)
async def test_graphql_ws_is_there_again_at_its_address(
    how: signal.Signals, code: int, start_graphql: Any, talk_to: Any
) -> None:
    server = await start_graphql()
    talk = await talk_to(GRAPHQL, server.url)
    await talk.subscribe(COUNTS[0])
    before = (await talk.signal()).value["data"]["a"]
    async with trio.open_nursery() as restarting:
        restarting.start_soon(server.restart, how)
        # Read meanwhile: a close frame stands behind what was published.
        reason = await talk.wait_closed()

    assert code == reason.code

    talk = await talk_to(GRAPHQL, server.url)
    await talk.subscribe(COUNTS[0])

    assert before < (await talk.signal()).value["data"]["a"]


# --- publish and subscribe ------------------------------------------------------------------------

PLAIN = JsonPubSub()
TRADES = Wish(key="trades", number=1)


async def test_a_hub_confirms_publishes_and_lets_go(start_pub_sub: Any, talk_to: Any) -> None:
    server = await start_pub_sub()
    talk = await talk_to(PLAIN, server.url)
    await talk.subscribe(TRADES)

    assert Subscribed("trades") == await talk.signal()
    assert [{"trades"}] == server.hub.subscribed

    server.hub.publish("trades", {"price": 5})

    assert Published("trades", {"price": 5}, position=1) == await talk.signal()

    await talk.unsubscribe(TRADES)

    assert Unsubscribed("trades") == await talk.signal()
    assert [set()] == server.hub.subscribed


@pytest.mark.parametrize(
    ("after", "missed"), [(0, [1, 2, 3, 4, 5]), (3, [4, 5]), (5, [])], ids=["all", "two", "none"]
)
async def test_a_hub_goes_on_behind_what_was_received(
    after: int, missed: list[int], start_pub_sub: Any, talk_to: Any
) -> None:
    server = await start_pub_sub()
    for number in range(5):
        server.hub.publish("trades", number)
    await server.restart()
    talk = await talk_to(PLAIN, server.url)
    await talk.subscribe(Wish(key="trades", number=1, after=after))

    assert Subscribed("trades", resumed=True) == await talk.signal()

    server.hub.publish("trades", "live")
    positions = [(await talk.signal()).position for _ in range(len(missed) + 1)]

    assert [*missed, 6] == positions


@pytest.mark.parametrize("after", [0, 1, 6], ids=["too old", "just too old", "not yet"])
async def test_a_hub_does_not_go_on_behind_what_it_does_not_know(
    after: int, start_pub_sub: Any, make_hub: Any, talk_to: Any
) -> None:
    server = await start_pub_sub(make_hub(history_size=3))
    for number in range(5):
        server.hub.publish("trades", number)
    talk = await talk_to(PLAIN, server.url)
    await talk.subscribe(Wish(key="trades", number=1, after=after))

    assert Subscribed("trades", resumed=False) == await talk.signal()

    server.hub.publish("trades", "live")

    assert 6 == (await talk.signal()).position


async def test_a_hub_refuses_ends_and_asks(start_pub_sub: Any, talk_to: Any) -> None:
    server = await start_pub_sub()
    talk = await talk_to(PLAIN, server.url)
    server.hub.refused["trades"] = {"error": "busy", "retry": True}
    await talk.subscribe(TRADES)
    refused = await talk.signal()

    assert ("trades", "busy", True) == (refused.tag, refused.error.error, refused.may_retry)

    server.hub.refused.clear()
    await talk.subscribe(TRADES)
    await talk.signal()
    server.hub.ping()
    server.hub.end("trades")

    assert Answer(json.dumps({"op": "pong"})) == await talk.signal()
    assert SubscriptionEnded("trades") == await talk.signal()
    assert [set()] == server.hub.subscribed


async def test_a_hub_that_dies_cuts_off_and_is_there_again(
    start_pub_sub: Any, talk_to: Any
) -> None:
    server = await start_pub_sub()
    talk = await talk_to(PLAIN, server.url)
    await talk.subscribe(TRADES)
    await talk.signal()
    await server.die()

    await talk.wait_closed()
    assert [] == server.hub.subscribed

    await server.start()
    talk = await talk_to(PLAIN, server.url)
    await talk.subscribe(TRADES)

    assert Subscribed("trades") == await talk.signal()
