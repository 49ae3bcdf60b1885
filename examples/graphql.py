"""GraphQL subscriptions over one connection, all of them back after each restart of the server.

Each is a query; its results come as lines of JSON, each behind the number of its query.  For
any server that speaks ``graphql-transport-ws``, which most of those that run GraphQL do::

    python examples/graphql.py wss://api.example/graphql 'subscription { price(of: "EUR") }'

A token, if the server wants one, is read from the environment: ``GRAPHQL_TOKEN``.
It ends when the server has come to the end of all subscriptions, or at Ctrl-C.
"""

import argparse
import json
import logging
import os
import sys

import trio

import wsclient


async def introduce() -> dict[str, str]:
    # Asked on every new connection: a token that has expired meanwhile can be fetched anew here.
    token = os.environ.get("GRAPHQL_TOKEN")
    return {"token": token} if token else {}


async def follow(channel: wsclient.DurableChannel, number: int, query: str) -> None:
    try:
        # What the subscription is called is our own affair; the query is what the server gets.
        async with channel.subscribe(number, query) as results:
            async for item in results.items():
                if isinstance(item, wsclient.Gap):
                    # GraphQL has no way to go on where it was: here, something may be missing.
                    print(number, f"-- away for {item.until - item.since:.1f} s", flush=True)
                else:
                    print(number, json.dumps(item), flush=True)
        print(number, "-- the end", flush=True)
    except wsclient.SubscriptionFailed as error:
        # That one is over, for a mistake in the query, say; the others go on.
        print(number, f"-- {error}", flush=True)


async def follow_all(url: str, queries: list[str]) -> None:
    protocol = wsclient.GraphqlTransportWs(payload=introduce)
    async with (
        wsclient.open_channel(url, protocol=protocol) as channel,
        trio.open_nursery() as nursery,
    ):
        for number, query in enumerate(queries, 1):
            nursery.start_soon(follow, channel, number, query)


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow GraphQL subscriptions.")
    parser.add_argument("url", help="ws:// or wss://")
    parser.add_argument("query", nargs="+", help="such as 'subscription { ticks }'")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        trio.run(follow_all, arguments.url, arguments.query)
    except* KeyboardInterrupt:
        pass
    except* (wsclient.WebSocketError, ValueError) as group:
        sys.exit("\n".join(map(str, group.exceptions)))


if __name__ == "__main__":
    main()
