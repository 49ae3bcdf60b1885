"""What reaches a user shows no secret, not even with the local variables of its traceback.

Each case is something that goes wrong where a secret was given; what is shown of it is everything
that a traceback with local variables shows, but for the frames of the test itself, which is the
user here.
"""

from __future__ import annotations

import json
import traceback

import pytest
import trio

import wsclient
from wsclient.testing import (
    ANSWER_200,
    BAD_ACCEPT,
    GARBAGE_ANSWER,
    REFUSE,
    REJECT_503,
    RESET_AFTER_OPEN,
    SILENT_HANDSHAKE,
    Fault,
    FaultServer,
    memory_network,
)

CANARY = "c4n4ry"
URL = f"ws://{CANARY}user:{CANARY}pass@server.test/{CANARY}path?{CANARY}key={CANARY}value"
HEADERS = {"Authorization": f"Bearer {CANARY}"}
PROXY = f"http://{CANARY}user:{CANARY}pass@proxy.test:3128"
PARAMETERS = {"token": CANARY}
CALL = {"method": "login", "params": [CANARY]}
UNENCODABLE = {"method": "login", "params": [CANARY, object()]}


def whole(error, seen):
    """An error, and all that belongs to it."""
    if not isinstance(error, BaseException) or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    others = [error.__cause__, None if error.__suppress_context__ else error.__context__]
    others += [*getattr(error, "exceptions", ()), *getattr(error, "history", ())]
    for other in others:
        yield from whole(other, seen)


def leaks(error):
    """Where a secret is shown."""
    found = []
    for part in whole(error, set()):
        found += [repr(part) for text in (str(part), repr(part)) if CANARY in text]
        shown = traceback.TracebackException.from_exception(part, capture_locals=True)
        for frame in shown.stack:
            names = [name for name, text in (frame.locals or {}).items() if CANARY in text]
            if names and frame.filename != __file__:
                found.append((frame.filename, frame.name, names))
    return found


async def raised(case):
    with trio.fail_after(3600):
        try:
            await case()
        except BaseException as error:
            return error
    raise AssertionError("nothing was raised")


def test_a_leak_would_be_found(monkeypatch):
    module = {"__name__": "wsclient.somewhere"}
    exec("def leak(token):\n    raise LookupError('no')", module)
    with pytest.raises(LookupError) as caught:
        module["leak"](CANARY)

    assert [("<string>", "leak", ["token"])] == leaks(caught.value)


# --- arguments that cannot be used ----------------------------------------------------------------

ARGUMENTS = {
    "a URL of another scheme": lambda: wsclient.open_channel(f"http://{CANARY}@x/{CANARY}"),
    "a URL with a space": lambda: wsclient.open_channel(f"ws://x/{CANARY} {CANARY}"),
    "a URL whose password has a slash": lambda: wsclient.open_channel(f"ws://u:{CANARY}/@x/"),
    "a URL that is not ASCII": lambda: wsclient.open_channel(f"ws://x/{CANARY}é"),
    "a good URL, and something else": lambda: wsclient.open_channel(URL, redundancy=2),
    "several URLs": lambda: wsclient.open_channel([URL, f"http://x/{CANARY}"]),
    "headers that are no function": lambda: wsclient.open_channel(URL, headers=HEADERS),
    "credentials that are no function": lambda: wsclient.open_channel(URL, credentials=CANARY),
    "a bot's URL": lambda: wsclient.Bot(f"http://{CANARY}@x/{CANARY}"),
    "a bot's other options": lambda: wsclient.Bot(URL, redundancy=2),
    "a connection's URL": lambda: wsclient.open_websocket_url(f"http://{CANARY}@x/{CANARY}"),
    "a connection's headers": lambda: wsclient.open_websocket_url(
        URL, extra_headers={"X": f"{CANARY}\n"}
    ),
    "a connection's option": lambda: wsclient.open_websocket_url(
        URL, extra_headers=HEADERS, connect_timeout=-1
    ),
    "an option beside the headers": lambda: wsclient.ConnectionOptions(
        extra_headers=HEADERS, connect_timeout=-1
    ),
    "a header's value": lambda: wsclient.ConnectionOptions(extra_headers={"X": f"{CANARY}\n"}),
    "a header's value that is not ASCII": lambda: wsclient.ConnectionOptions(
        extra_headers={"X": f"{CANARY}é"}
    ),
    "a value in place of the name": lambda: wsclient.ConnectionOptions(
        extra_headers={f"Bearer {CANARY}": 5}
    ),
    "headers that are a text": lambda: wsclient.ConnectionOptions(extra_headers=CANARY),
    "headers that are no pairs": lambda: wsclient.ConnectionOptions(extra_headers=[(CANARY,)]),
    "a subprotocol": lambda: wsclient.ConnectionOptions(subprotocols=[f"Bearer {CANARY}"]),
    "a subprotocol, twice": lambda: wsclient.ConnectionOptions(subprotocols=[CANARY, CANARY]),
    "subprotocols that are a text": lambda: wsclient.ConnectionOptions(subprotocols=CANARY),
    "a proxy's scheme": lambda: wsclient.ConnectionOptions(proxy=f"foo://u:{CANARY}@x"),
    "a proxy's port": lambda: wsclient.ConnectionOptions(proxy=f"http://u:p@x:{CANARY}"),
    "a proxy with a space": lambda: wsclient.ConnectionOptions(proxy=f"http://u:{CANARY} @x"),
    "an option beside a proxy": lambda: wsclient.ConnectionOptions(proxy=PROXY, redirects=-1),
    "a payload": lambda: wsclient.GraphqlTransportWs(payload=CANARY),
    "an option beside a payload": lambda: wsclient.GraphqlTransportWs(
        payload=PARAMETERS, ack_timeout=-1
    ),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_an_argument_that_cannot_be_used_is_not_shown(case):
    with pytest.raises((TypeError, ValueError)) as caught:
        ARGUMENTS[case]()

    assert [] == leaks(caught.value)


async def test_arguments_that_cannot_be_used_in_a_nursery_are_not_shown():
    async with trio.open_nursery() as nursery:
        for function, given in (
            (wsclient.connect_channel, {"redundancy": 2}),
            (wsclient.connect_websocket_url, {"ssl_context": 3}),
        ):
            with pytest.raises((TypeError, ValueError)) as caught:
                await function(nursery, URL, **given)

            assert [] == leaks(caught.value)


# --- one connection -------------------------------------------------------------------------------

STORIES = {
    "nobody is there": [REFUSE],
    "503": [REJECT_503],
    "401, with what we said": [Fault.reject(401, headers={"X": CANARY}, body=CANARY.encode())],
    "a redirect": [Fault.reject(302, headers={"Location": f"wss://x.test/?{CANARY}"})],
    "a redirect to nowhere": [Fault.reject(302, headers={"Location": f"ftp://x/{CANARY}"})],
    "no WebSocket server": [GARBAGE_ANSWER],
    "another page": [ANSWER_200],
    "wrong answer": [BAD_ACCEPT],
    "silence": [SILENT_HANDSHAKE],
    "cut off": [RESET_AFTER_OPEN],
}


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("opened", ["by a block", "in a nursery", "over a stream"])
async def test_a_connection_that_fails_shows_nothing(autojump_clock, story, opened):
    async def converse(connection):
        await connection.send_message(CANARY)
        await connection.get_message()
        await connection.send_message(CANARY)

    async def connect():
        given = {"extra_headers": HEADERS, "subprotocols": ["chat", f"{CANARY}-token"]}
        if opened == "by a block":
            async with wsclient.open_websocket_url(URL, redirects=1, **given) as connection:
                await converse(connection)
            return
        async with trio.open_nursery() as nursery:
            with trio.fail_after(30):
                if opened == "in a nursery":
                    connection = await wsclient.connect_websocket_url(nursery, URL, **given)
                else:
                    stream = await trio.open_tcp_stream("server.test", 80)
                    connection = await wsclient.wrap_client_stream(
                        nursery, stream, "server.test", f"/{CANARY}", **given
                    )
            await converse(connection)

    with memory_network() as network:
        async with FaultServer(STORIES[story], network=network):
            error = await raised(connect)

    assert [] == leaks(error)


async def test_a_proxy_that_fails_shows_nothing(autojump_clock):
    async def connect():
        async with wsclient.open_websocket_url(URL, proxy=PROXY):
            pass

    with memory_network():
        error = await raised(connect)

    assert isinstance(error, wsclient.ProxyError)
    assert [] == leaks(error)


# --- a channel ------------------------------------------------------------------------------------


async def be_silent(connection):
    await trio.sleep_forever()


async def refuse(connection):
    async for message in connection:
        error = {"code": -1, "message": "no"}
        reply = {"jsonrpc": "2.0", "id": json.loads(message)["id"], "error": error}
        await connection.send(json.dumps(reply))


async def hang_up(connection):
    async for _ in connection:
        await connection.close(4000)


GIVE_UP = wsclient.RetryPolicy(classify=lambda loss, phase: wsclient.Fatal("no"))


async def ask(channel, call=CALL, **given):
    await channel.request(call, timeout=5, **given)


async def stream(channel):
    async with channel.stream(CALL, timeout=5) as replies:
        async for _ in replies:
            pass


async def stream_what_cannot_be_sent(channel):
    async with channel.stream(UNENCODABLE):
        pass


async def ask_when_closed(channel):
    await channel.aclose()
    await ask(channel)


async def send_when_closed(channel):
    await channel.aclose()
    await channel.send(CANARY)


async def send_nowait_when_closed(channel):
    await channel.aclose()
    channel.send_nowait(CANARY)


async def send_by_an_end_when_closed(channel):
    await channel.aclose()
    await channel.send_channel.send(CANARY)


async def send_too_much(channel):
    while True:
        channel.send_nowait(CANARY)


async def send_too_much_by_an_end(channel):
    while True:
        channel.send_channel.send_nowait(CANARY)


async def subscribe(channel, parameters=PARAMETERS):
    async with channel.subscribe("trades", parameters) as feed:
        async for _ in feed:
            pass


async def subscribe_in_two_ways(channel):
    async with channel.subscribe("trades", {"token": f"{CANARY}2"}):
        await subscribe(channel)


async def subscribe_when_closed(channel):
    await channel.aclose()
    await subscribe(channel)


async def subscribe_wrongly(channel):
    channel.subscribe("trades", PARAMETERS, commit="never")


class FailingProtocol(wsclient.Protocol):
    def subscribe(self, wish):
        raise LookupError("mine")


async def hook_that_fails(connection):
    await connection.send_message(CANARY)
    raise LookupError("mine")


async def hook_that_sends_what_is_no_message(connection):
    await connection.send_message([CANARY])


async def hook_whose_connection_is_closed(connection):
    await connection.send_message(CANARY)
    await connection.get_message()


async def give_bad_credentials(fresh):
    return f"Bearer {CANARY}\n"


async def give_credentials(fresh):
    return f"Bearer {CANARY}"


async def give_bad_headers():
    return {"X": f"{CANARY}\n"}


async def give_bad_url():
    return f"http://{CANARY}/"


async def fail_to_give(**_):
    raise LookupError("mine")


RPC = {"protocol": wsclient.JsonRpc()}
PUBSUB = {"protocol": wsclient.JsonPubSub()}
TINY = {"limits": wsclient.Limits(outbox_messages=2)}


async def wait(channel):
    await trio.sleep_forever()


# What is done with the channel, how it is opened, and what its server does.
CHANNELS = {
    "a request without a reply": (ask, RPC, {"handler": be_silent}),
    "a request that is refused": (ask, RPC, {"handler": refuse}),
    "a request that is lost": (ask, RPC, {"handler": hang_up}),
    "a request, and the channel gives up": (ask, {**RPC, "retry": GIVE_UP}, {"handler": hang_up}),
    "a request that cannot be sent": (lambda channel: ask(channel, UNENCODABLE), RPC, {}),
    "a request that cannot be numbered": (lambda channel: ask(channel, CANARY), RPC, {}),
    "a request without a correlation": (ask, {}, {}),
    "a request, closed": (ask_when_closed, RPC, {}),
    "a stream without replies": (stream, RPC, {"handler": be_silent}),
    "a stream that cannot be sent": (stream_what_cannot_be_sent, RPC, {}),
    "a message, closed": (send_when_closed, {}, {}),
    "a message at once, closed": (send_nowait_when_closed, {}, {}),
    "a message by one end, closed": (send_by_an_end_when_closed, {}, {}),
    "a message without a connection": (
        lambda channel: channel.send(CANARY, delivery=wsclient.Delivery.DIRECT),
        {},
        {"faults": [REFUSE] * 9},
    ),
    "a message without acknowledgements": (
        lambda channel: channel.send(CANARY, delivery=wsclient.Delivery.ACKED),
        {},
        {},
    ),
    "what is no message": (lambda channel: channel.send([CANARY]), {}, {}),
    "a message that is no Unicode": (lambda channel: channel.send(f"{CANARY}\ud800"), {}, {}),
    "too many messages": (send_too_much, TINY, {"faults": [REFUSE] * 9}),
    "too many messages by one end": (send_too_much_by_an_end, TINY, {"faults": [REFUSE] * 9}),
    "a subscription that is refused": (subscribe, RPC, {"handler": refuse}),
    "a subscription that cannot be sent": (
        lambda channel: subscribe(channel, {"token": CANARY, "x": object()}),
        PUBSUB,
        {},
    ),
    "a subscription in two ways": (subscribe_in_two_ways, PUBSUB, {}),
    "a subscription, closed": (subscribe_when_closed, PUBSUB, {}),
    "a subscription with a wrong argument": (subscribe_wrongly, PUBSUB, {}),
    "a subscription without a protocol": (subscribe, {}, {}),
    "a subscription that its protocol fails at": (subscribe, {"protocol": FailingProtocol()}, {}),
    "a hook that fails": (wait, {"on_connect": hook_that_fails}, {}),
    "a hook's message": (wait, {"on_connect": hook_that_sends_what_is_no_message}, {}),
    "a hook's connection": (
        wait,
        {"on_connect": hook_whose_connection_is_closed},
        {"faults": [Fault.close(1008, after=0)] * 5},
    ),
    "credentials that cannot be used": (wait, {"credentials": give_bad_credentials}, {}),
    "credentials that are refused": (
        wait,
        {"credentials": give_credentials},
        {"faults": [Fault.reject(401)] * 5},
    ),
    "no credentials": (wait, {"credentials": fail_to_give}, {}),
    "headers that cannot be used": (wait, {"headers": give_bad_headers}, {}),
    "no headers": (wait, {"headers": fail_to_give}, {}),
    "never ready": (wait, {"ready_timeout": 5}, {"faults": [REFUSE] * 50}),
}


@pytest.mark.parametrize("case", CHANNELS)
async def test_what_goes_wrong_with_a_channel_shows_nothing(autojump_clock, case):
    do, options, server = CHANNELS[case]
    connection = wsclient.ConnectionOptions(extra_headers=HEADERS)
    faults = server.get("faults", ())

    async def use():
        with memory_network() as network:
            async with (
                FaultServer(faults, network=network, handler=server.get("handler")),
                wsclient.open_channel(
                    URL, connection=connection, observers=(), **options
                ) as channel,
            ):
                await do(channel)

    assert [] == leaks(await raised(use))


async def test_a_url_that_a_function_gives_and_cannot_be_used_is_not_shown(autojump_clock):
    async def use():
        with memory_network():
            async with wsclient.open_channel(give_bad_url, observers=()):
                await trio.sleep_forever()

    assert [] == leaks(await raised(use))


# --- the first message of a protocol --------------------------------------------------------------


def fail():
    raise LookupError("mine")


async def say_something_else(connection):
    await connection.send('{"type": "surprise"}')
    await trio.sleep_forever()


PAYLOADS = {
    "no answer": (PARAMETERS, be_silent),
    "another answer": (PARAMETERS, say_something_else),
    "a function that fails": (fail, be_silent),
    "a function that gives a text": (lambda: CANARY, be_silent),
    "what cannot be sent": ({"token": CANARY, "x": object()}, be_silent),
}


@pytest.mark.parametrize("case", PAYLOADS)
async def test_a_payload_that_is_not_taken_is_not_shown(autojump_clock, case):
    payload, handler = PAYLOADS[case]
    protocol = wsclient.GraphqlTransportWs(payload=payload)

    async def use():
        with memory_network() as network:
            async with (
                FaultServer(
                    network=network, handler=handler, subprotocols=["graphql-transport-ws"]
                ),
                wsclient.open_channel(URL, protocol=protocol, observers=()),
            ):
                await trio.sleep_forever()

    error = await raised(use)

    assert isinstance(error, wsclient.ChannelFailed)
    assert [] == leaks(error)
    assert CANARY not in repr(protocol)


# --- a bot ----------------------------------------------------------------------------------------


def fail_plainly(order):
    raise LookupError("mine")


async def fail_with_context(order, context):
    raise LookupError("mine")


async def reply_what_cannot_be_sent(order, reply):
    await reply({"token": CANARY, "x": object()})


async def reply_and_wonder(order, reply):
    try:
        await reply({"token": CANARY, "x": object()})
    except wsclient.CodecError as error:
        found = leaks(error)
        raise LookupError(f"{len(found)} leaks") from None


def want_another_type(order: int):
    raise AssertionError("it is none")


@pytest.mark.parametrize(
    "handler",
    [
        fail_plainly,
        fail_with_context,
        reply_what_cannot_be_sent,
        reply_and_wonder,
        want_another_type,
    ],
    ids=lambda handler: handler.__name__,
)
async def test_what_ends_a_bot_shows_no_message(autojump_clock, handler):
    async def serve(connection):
        await connection.send(json.dumps({"type": "order", "token": CANARY}))
        await trio.sleep_forever()

    bot = wsclient.Bot(URL, observers=(), handler_errors=wsclient.HandlerErrors.RAISE)
    bot.on("order")(handler)
    with memory_network() as network:
        async with FaultServer(network=network, handler=serve):
            error = await raised(bot.serve)

    assert [] == leaks(error)
    if handler is reply_and_wonder:
        assert "0 leaks" == str(error)
    elif handler is not want_another_type:
        # The user's own frame is there, and whole.
        frames = list(traceback.walk_tb(error.__traceback__))

        assert handler.__name__ in [frame.f_code.co_name for frame, _ in frames]
        assert any("order" in frame.f_locals for frame, _ in frames)
