"""A bad network between a client and a server."""

import functools

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import wsclient
from wsclient.connection import open_websocket_url
from wsclient.errors import ConnectionClosed, HandshakeError
from wsclient.testing import (
    BLACKOUT,
    CLEAR,
    HALF_OPEN_DOWN,
    HALF_OPEN_UP,
    NONE,
    REFUSE,
    REFUSING,
    Conditions,
    EventRecorder,
    FaultProxy,
    FaultServer,
    Way,
    echo,
    memory_network,
)


@pytest.fixture(params=["memory", "socket"])
async def proxied(request):
    """Makes servers and proxies to them; a test that uses it runs in memory and on sockets."""
    if request.param == "socket":
        yield FaultServer, FaultProxy
        return
    with memory_network() as network:
        yield (
            functools.partial(FaultServer, network=network),
            functools.partial(FaultProxy, network=network),
        )


@pytest.fixture
async def pipe(network):
    """A raw client and a raw server on the two sides of a proxy, on virtual time."""

    class Pipe:
        def __init__(self, conditions=()):
            self.listener = network.listen("server.test", 80)
            self.proxy = FaultProxy("ws://server.test", conditions, network=network)

        async def __aenter__(self):
            await self.proxy.__aenter__()
            async with trio.open_nursery() as nursery:

                async def accept():
                    self.server = await self.listener.accept()

                nursery.start_soon(accept)
                self.client = await network.connect("proxy.test", 80)
            (self.connection,) = self.proxy.connections
            return self

        async def __aexit__(self, *error):
            await self.proxy.__aexit__(*error)
            self.listener.close()

    return Pipe


async def read(stream, count):
    data = b""
    while len(data) < count:
        some = await stream.receive_some(count - len(data))
        if not some:
            break
        data += some
    return data


# --- what is let through ------------------------------------------------------------------------


async def test_everything_goes_through_and_is_counted(proxied):
    serve, make_proxy = proxied
    async with serve(handler=echo) as server, make_proxy(server.url) as proxy:
        async with open_websocket_url(proxy.url + "a?b=c") as connection:
            await connection.send_message("x" * 100_000)
            answer = await connection.get_message()
            (through,) = proxy.connections

            assert "open" in repr(through)
            assert not through.is_over

        (visit,) = server.connections

    assert "x" * 100_000 == answer
    assert "/a?b=c" == visit.path
    assert 1000 == visit.close.code
    assert 100_000 < proxy.bytes_up == through.bytes_up
    assert 100_000 < proxy.bytes_down == through.bytes_down
    assert through.is_over
    assert 0 == proxy.refused
    assert "1 over" in repr(through)


async def test_url_is_the_targets_with_the_proxys_address(network, autojump_clock):
    async with FaultProxy("ws://server.test:81/feed?a=b", network=network) as proxy:
        assert "ws://proxy.test/feed?a=b" == proxy.url
        assert "<FaultProxy ws://proxy.test/feed?a=b to ws://server.test:81>" == repr(proxy)
    async with FaultProxy("wss://server.test", network=network, host="h.test", port=9) as proxy:
        assert "wss://h.test:9/" == proxy.url


async def test_tls_goes_through(network, autojump_clock, tls):
    async with (
        FaultServer(
            handler=echo, network=network, host="localhost", ssl_context=tls.server
        ) as server,
        FaultProxy(server.url, network=network, host="localhost", port=444) as proxy,
        open_websocket_url(proxy.url, ssl_context=tls.client) as connection,
    ):
        await connection.send_message("secret")

        assert "secret" == await connection.get_message()


async def test_connections_get_their_conditions_in_order_and_the_last_repeats(
    network, autojump_clock, outcome
):
    story = [REFUSING, CLEAR, Conditions(up=Way(cut_after=0))]
    async with (
        FaultServer(network=network) as server,
        FaultProxy(server.url, story, network=network) as proxy,
    ):
        outcomes = [await outcome(proxy) for _ in range(4)]
        last = await proxy.wait_connections(4)

    assert [None, 1000, None, None] == outcomes
    assert [*story, story[-1]] == [through.conditions for through in proxy.connections]
    assert [True, False, False, False] == [through.refused for through in proxy.connections]
    assert 1 == proxy.refused
    assert 4 == last.number
    assert "refused" in repr(proxy.connections[0])


@pytest.mark.parametrize("story", [["CLEAR"], [None]])
def test_proxy_wants_conditions_and_nothing_else(story):
    with pytest.raises(TypeError, match="Conditions"):
        FaultProxy("ws://server.test", story)


# --- slow and narrow ----------------------------------------------------------------------------


async def test_latency_is_there_both_ways_and_nothing_is_lost_to_it(pipe, autojump_clock):
    conditions = Conditions(up=Way(latency=0.25), down=Way(latency=2))
    async with pipe(conditions) as at:
        assert 2.25 == trio.current_time(), "a round trip opens it"

        await at.client.send_all(b"first")
        await trio.sleep(0.1)
        await at.client.send_all(b"second")

        assert b"first" == await read(at.server, 5)
        assert 2.5 == trio.current_time()
        assert b"second" == await read(at.server, 6)
        assert 2.6 == pytest.approx(trio.current_time())

        await at.server.send_all(b"back")

        assert b"back" == await read(at.client, 4)
        assert 4.6 == pytest.approx(trio.current_time())


async def test_latency_does_not_bound_how_much_is_on_the_way(pipe, autojump_clock):
    async with pipe(Conditions.both(latency=1)) as at:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.client.send_all, bytes(500_000))
            received = await read(at.server, 500_000)

    assert 500_000 == len(received)
    assert 1 == pytest.approx(trio.current_time() - began)


async def test_bandwidth_bounds_how_fast_it_goes(pipe, autojump_clock):
    async with pipe(Conditions.both(bandwidth=1000)) as at:
        await at.client.send_all(bytes(5000))
        await read(at.server, 2500)

        assert 2.5 == pytest.approx(trio.current_time())

        at.connection.change(CLEAR)
        await read(at.server, 2500)

        assert 2.6 == pytest.approx(trio.current_time(), abs=0.11)


async def test_sender_waits_when_too_much_is_on_the_way(pipe, autojump_clock):
    async with pipe(Conditions.both(latency=100)) as at:
        with trio.move_on_after(50) as patience:
            await at.client.send_all(bytes(2 * 2**20))

    assert patience.cancelled_caught


async def test_slices_arrive_one_by_one(pipe, autojump_clock):
    async with pipe(Conditions.both(slice_size=3)) as at:
        await at.client.send_all(b"abcdefgh")
        pieces = [await at.server.receive_some() for _ in range(3)]

    assert [b"abc", b"def", b"gh"] == pieces


async def test_websocket_survives_being_sliced_into_bytes(proxied):
    serve, make_proxy = proxied
    async with (
        serve(handler=echo) as server,
        make_proxy(server.url, Conditions.both(slice_size=1)) as proxy,
        open_websocket_url(proxy.url) as connection,
    ):
        await connection.send_message("hello" * 30)

        assert "hello" * 30 == await connection.get_message()


# --- cut ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["reset", "end"])
@pytest.mark.parametrize("count", [0, 1, 4])
async def test_exactly_so_many_bytes_arrive_before_a_cut(pipe, autojump_clock, cut, count):
    async with pipe(Conditions(up=Way(cut_after=count), cut=cut)) as at:
        with_broken = pytest.raises(trio.BrokenResourceError)
        if count:
            await at.client.send_all(b"0123456789")
        received = await read(at.server, count)
        if cut == "end":
            assert b"" == await at.client.receive_some()
            assert b"" == await at.server.receive_some()
        else:
            with with_broken:
                await at.client.receive_some()
            with with_broken:
                await at.server.receive_some()

    assert b"0123456789"[:count] == received
    assert count == at.connection.bytes_up
    assert at.connection.is_over


async def test_cut_downwards_counts_what_comes_down(proxied):
    serve, make_proxy = proxied
    recorder = EventRecorder()

    async def greet(connection):
        await connection.send("x" * 1000)
        await connection.wait_over()

    async with serve(handler=greet) as server:
        story = [Conditions(down=Way(cut_after=500)), CLEAR]
        async with (
            make_proxy(server.url, story) as proxy,
            wsclient.open_channel(proxy.url, observers=[recorder]) as channel,
        ):
            assert "x" * 1000 == await channel.receive()

    (lost,) = recorder.of(wsclient.ConnectionLost)

    assert 1006 == lost.code
    assert 500 == proxy.connections[0].bytes_down
    assert 2 == channel.epoch


async def test_cut_waits_a_second_at_most_for_a_receiver_that_does_not_receive(
    pipe, autojump_clock
):
    async with pipe(Conditions(up=Way(cut_after=4))) as at:
        await at.client.send_all(b"0123")
        with pytest.raises(trio.BrokenResourceError):
            await at.client.receive_some()

        assert 1 == trio.current_time()


async def test_cut_can_be_ordered_while_it_runs(pipe, autojump_clock):
    async with pipe() as at:
        await at.client.send_all(b"0123")
        await read(at.server, 4)
        at.proxy.change(Conditions(up=Way(cut_after=6)))
        await at.client.send_all(b"456789")

        assert b"45" == await read(at.server, 2)
        with pytest.raises(trio.BrokenResourceError):
            await at.server.receive_some()


async def test_reset_and_hang_up_strike_all_that_is_there(proxied):
    serve, make_proxy = proxied
    async with serve() as server, make_proxy(server.url) as proxy:
        for strike in (proxy.reset, proxy.hang_up):
            async with open_websocket_url(proxy.url) as connection:
                await server.wait_connections(1)
                strike()
                with pytest.raises(ConnectionClosed):
                    await connection.get_message()
                strike()

    assert [True, True] == [through.is_over for through in proxy.connections]


# --- silent -------------------------------------------------------------------------------------


async def test_silence_keeps_the_connection_and_what_waits_goes_on_after_it(pipe, autojump_clock):
    async with pipe() as at:
        at.connection.change(BLACKOUT)
        await at.client.send_all(b"a")
        await at.server.send_all(b"b")
        with trio.move_on_after(1000) as patience:
            await at.server.receive_some()

        assert patience.cancelled_caught
        assert not at.connection.is_over

        at.connection.change(CLEAR)

        assert b"a" == await at.server.receive_some()
        assert b"b" == await at.client.receive_some()


@pytest.mark.parametrize("end", ["aclose", "reset"])
async def test_silent_way_does_not_tell_that_an_end_has_gone(pipe, autojump_clock, end):
    async with pipe() as at:
        at.connection.change(HALF_OPEN_UP)
        await at.client.send_all(b"last words")
        if end == "aclose":
            await at.client.aclose()
        else:
            at.client.reset()
        # The other way is open, and there is nobody.
        await at.server.send_all(b"hello?")
        with trio.move_on_after(1000) as patience:
            await at.server.receive_some()

        assert patience.cancelled_caught

        at.connection.change(CLEAR)
        with pytest.raises(trio.BrokenResourceError):
            while await at.server.receive_some():
                pass
            # An end only: the answer finds nobody.
            await at.server.send_all(b"hello?")
            await at.server.receive_some()


async def test_half_open_way_lets_through_what_goes_the_other_way(pipe, autojump_clock):
    async with pipe() as at:
        at.connection.change(HALF_OPEN_DOWN)
        await at.client.send_all(b"up")
        await at.server.send_all(b"down")

        assert b"up" == await at.server.receive_some()
        with trio.move_on_after(10) as patience:
            await at.client.receive_some()
        assert patience.cancelled_caught


@pytest.mark.parametrize("silence", [HALF_OPEN_UP, HALF_OPEN_DOWN, BLACKOUT])
async def test_channel_notices_a_silent_path_and_comes_back(network, autojump_clock, silence):
    recorder = EventRecorder()
    async with (
        FaultServer(network=network) as server,
        FaultProxy(server.url, network=network) as proxy,
        wsclient.open_channel(proxy.url, observers=[recorder]) as channel,
    ):
        await channel.wait_ready()
        proxy.change(silence)
        lost = await recorder.wait_for(wsclient.ConnectionLost)
        proxy.change(CLEAR)
        await recorder.wait_for(wsclient.ConnectionReady, count=2)
        # The first one is over by now, and past changing.
        proxy.change(HALF_OPEN_UP)

    assert [CLEAR, HALF_OPEN_UP] == [through.conditions for through in proxy.connections]
    assert lost.duration <= 42


async def test_nobody_connects_through_silence(network, autojump_clock):
    async with (
        FaultServer(network=network) as server,
        FaultProxy(server.url, BLACKOUT, network=network) as proxy,
    ):
        with pytest.raises(HandshakeError):
            async with open_websocket_url(proxy.url, connect_timeout=5):
                pass

        assert [] == server.connections


# --- ends ---------------------------------------------------------------------------------------


async def test_end_of_one_stream_leaves_the_other_way_open(pipe, autojump_clock):
    async with pipe() as at:
        await at.client.send_eof()

        assert b"" == await at.server.receive_some()

        await at.server.send_all(b"goodbye")

        assert b"goodbye" == await read(at.client, 7)

        await at.server.send_eof()

        assert b"" == await at.client.receive_some()
        await wait_all_tasks_blocked()
        assert at.connection.is_over


async def test_reset_goes_through(pipe, autojump_clock):
    async with pipe() as at:
        at.server.reset()
        with pytest.raises(trio.BrokenResourceError):
            await at.client.receive_some()


async def test_server_that_refuses_makes_the_proxy_refuse(network, autojump_clock, outcome):
    async with (
        FaultServer([REFUSE, NONE], network=network) as server,
        FaultProxy(server.url, network=network) as proxy,
    ):
        assert [None, 1000] == [await outcome(proxy) for _ in range(2)]
        assert 1 == proxy.refused


async def test_proxy_can_be_away_for_a_while(proxied, outcome):
    serve, make_proxy = proxied
    async with serve() as server, make_proxy(server.url) as proxy:
        async with open_websocket_url(proxy.url) as connection:
            await proxy.stop()
            with pytest.raises(ConnectionClosed):
                await connection.get_message()

        assert await outcome(proxy) is None

        await proxy.start()

        assert 1000 == await outcome(proxy)


async def test_end_of_the_block_ends_attempts_that_still_wait(network, autojump_clock):
    async with (
        trio.open_nursery() as nursery,
        FaultProxy("ws://server.test", BLACKOUT, network=network) as proxy,
    ):

        async def connect():
            with pytest.raises(ConnectionRefusedError):
                await network.connect(proxy.host, proxy.port)

        nursery.start_soon(connect)
        through = await proxy.wait_connections(1)
        await wait_all_tasks_blocked()

    assert through.is_over
    assert not through.refused


# --- as data ------------------------------------------------------------------------------------


def test_conditions_are_printed_as_they_are_written():
    assert "Conditions()" == repr(CLEAR)
    assert "Conditions(up=Way(silent=True))" == repr(HALF_OPEN_UP)
    cut = Conditions(down=Way(latency=0.5, cut_after=3), cut="end")
    assert "Conditions(down=Way(latency=0.5, cut_after=3), cut='end')" == repr(cut)
    assert cut == eval(repr(cut))


@pytest.mark.parametrize(
    "wrong",
    [{"latency": -1}, {"bandwidth": 0}, {"slice_size": 0}, {"cut_after": -1}],
)
def test_way_refuses_numbers_that_mean_nothing(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Way(**wrong)


def test_conditions_refuse_an_unknown_cut():
    with pytest.raises(ValueError, match="cut"):
        Conditions(cut="gently")
