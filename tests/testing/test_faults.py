"""What a client sees of each fault, and how faults are written and printed."""

import pytest
import trio

import wsclient.testing
from wsclient.connection import open_websocket_url
from wsclient.errors import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    InvalidUpgrade,
)
from wsclient.testing import (
    ACCEPT_THEN_CLOSE,
    ANSWER_200,
    BAD_ACCEPT,
    BAD_OPCODE,
    BAD_UTF8,
    DELAYED_HANDSHAKE,
    EOF_AFTER_OPEN,
    EOF_IN_HANDSHAKE,
    GARBAGE_ANSWER,
    HALF_FRAME,
    HALF_FRAME_THEN_SILENCE,
    MASKED_FRAME,
    MUTE_CLOSE,
    NEVER_READS,
    NONE,
    OVERSIZED,
    REFUSE,
    REJECT_401,
    REJECT_403,
    REJECT_404,
    REJECT_500,
    REJECT_503,
    RESET_AFTER_OPEN,
    RESET_ON_ACCEPT,
    SILENCE,
    SILENT_HANDSHAKE,
    Fault,
    FaultKind,
    FaultServer,
    echo,
)


async def fate(server, **options):
    """The end of a client that connects and listens, and stays until the server has seen it."""
    with trio.fail_after(10):
        async with open_websocket_url(server.url, **options) as connection:
            with pytest.raises(ConnectionClosed):
                await connection.get_message()
            await server.wait_over(1)
        return connection.closed.code


# Faults before the connection is open.


async def test_refusal_in_memory_is_refused_by_the_network(network, autojump_clock):
    async with FaultServer([REFUSE], network=network) as server:
        with pytest.raises(HandshakeError) as caught:
            await fate(server)

    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert [(0, False)] == [
        (visit.ended_at - visit.opened_at, visit.handshake_completed)
        for visit in server.connections
    ]


async def test_refusal_on_a_socket_is_a_reset():
    async with FaultServer([REFUSE]) as server:
        with pytest.raises(HandshakeError):
            await fate(server)

    assert [None] == [visit.path for visit in server.connections]


async def test_reset_on_accept_breaks_the_opening_handshake(serve):
    async with serve([RESET_ON_ACCEPT]) as server:
        with pytest.raises(HandshakeError, match="broke"):
            await fate(server)


async def test_silent_handshake_is_a_timeout(serve):
    async with serve([SILENT_HANDSHAKE]) as server:
        with pytest.raises(ConnectionTimeout):
            await fate(server, connect_timeout=0.2)

        await server.wait_over(1)


async def test_end_in_the_handshake_is_told_with_its_place(serve):
    async with serve([EOF_IN_HANDSHAKE]) as server:
        with pytest.raises(HandshakeError, match="inside its answer"):
            await fate(server)

        await server.wait_over(1)


@pytest.mark.parametrize(
    ("fault", "text"), [(GARBAGE_ANSWER, "not HTTP/1.1"), (BAD_ACCEPT, "accept token")]
)
async def test_answer_that_is_no_upgrade_is_invalid(serve, fault, text):
    async with serve([fault]) as server:
        with pytest.raises(InvalidUpgrade, match=text):
            await fate(server)

        visit = await server.wait_over(1)

    assert "/" == visit.path
    assert not visit.handshake_completed


@pytest.mark.parametrize(
    "fault", [ANSWER_200, REJECT_401, REJECT_403, REJECT_404, REJECT_500, REJECT_503]
)
async def test_rejection_comes_with_its_status(serve, fault):
    async with serve([fault]) as server:
        with pytest.raises(ConnectionRejected) as caught:
            await fate(server)

        await server.wait_over(1)

    assert (fault.status, fault.body) == (caught.value.status_code, caught.value.body)


async def test_rejection_comes_with_its_headers_and_body(serve):
    fault = Fault.reject(599, retry_after=30, headers={"X-Reason": "tired"}, body=b"later")
    async with serve([fault]) as server:
        with pytest.raises(ConnectionRejected) as caught:
            await fate(server)

    headers = dict(caught.value.headers)

    assert (599, b"later") == (caught.value.status_code, caught.value.body)
    assert (b"30", b"tired") == (headers[b"retry-after"], headers[b"x-reason"])


async def test_delayed_handshake_opens_late_and_in_good_health(network, autojump_clock):
    async with FaultServer([DELAYED_HANDSHAKE(3)], network=network, handler=echo) as server:
        with pytest.raises(ConnectionTimeout):
            await fate(server, connect_timeout=2.9)

        started = trio.current_time()
        async with open_websocket_url(server.url) as connection:
            assert 3 == pytest.approx(trio.current_time() - started)

            await connection.send_message("hello")

            assert "hello" == await connection.get_message()


# Faults of an open connection.


async def test_healthy_server_opens_answers_and_closes(serve):
    async with serve([NONE], handler=echo) as server:
        async with open_websocket_url(server.url) as connection:
            await connection.send_message("hello")
            await connection.ping(b"p")

            assert "hello" == await connection.get_message()

        visit = await server.wait_over(1)

    assert 1000 == connection.closed.code
    assert 1000 == visit.close.code


async def test_accept_then_close_is_a_normal_end(serve):
    async with serve([ACCEPT_THEN_CLOSE]) as server:
        assert 1000 == await fate(server)

        visit = await server.wait_over(1)

    assert 1000 == visit.close.code


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 3000, 4000])
async def test_close_comes_with_its_code_and_reason(serve, code):
    async with (
        serve([Fault.close(code, "because")]) as server,
        open_websocket_url(server.url) as connection,
    ):
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()

    assert (code, "because") == (caught.value.reason.code, caught.value.reason.reason)


async def test_close_without_a_code_is_1005(serve):
    async with serve([Fault.close(1005)]) as server:
        assert 1005 == await fate(server)


async def test_close_with_a_code_that_may_not_be_sent_is_a_violation(serve):
    async with serve([Fault.close(1006)]) as server:
        assert 1002 == await fate(server)


@pytest.mark.parametrize("fault", [RESET_AFTER_OPEN, EOF_AFTER_OPEN, HALF_FRAME])
async def test_connection_that_ends_without_a_close_frame_is_1006(serve, fault):
    async with serve([fault]) as server:
        assert 1006 == await fate(server)

        visit = await server.wait_over(1)

    assert visit.handshake_completed
    assert visit.close is None


@pytest.mark.parametrize("fault", [SILENCE, HALF_FRAME_THEN_SILENCE])
async def test_silence_hears_everything_and_answers_nothing(serve, fault):
    async with serve([fault], handler=echo) as server:
        with pytest.raises(DisconnectionTimeout):
            async with open_websocket_url(server.url, disconnect_timeout=0.2) as connection:
                await connection.send_message("hello")
                with trio.move_on_after(0.2) as scope:
                    await connection.ping()
                await connection.send_message("anybody?")

        visit = await server.wait_over(1)

    assert scope.cancelled_caught
    assert ["hello", "anybody?"] == server.messages
    assert 1 == len(visit.pings)
    assert 1000 == visit.close.code


async def test_never_reads_makes_the_client_wait(network, autojump_clock):
    async with FaultServer([NEVER_READS], network=network) as server:
        with pytest.raises(DisconnectionTimeout):
            async with open_websocket_url(server.url, disconnect_timeout=1) as connection:
                with trio.move_on_after(10) as scope:
                    for _ in range(3):
                        await connection.send_message(bytes(30_000))

        assert scope.cancelled_caught

    assert [] == server.messages
    assert [None] == [visit.close for visit in server.connections]


async def test_never_reads_makes_the_client_wait_on_a_socket():
    async with FaultServer([NEVER_READS]) as server:
        with pytest.raises(DisconnectionTimeout):
            async with open_websocket_url(server.url, disconnect_timeout=0.1) as connection:
                with trio.move_on_after(0.5) as scope:
                    while True:
                        await connection.send_message(bytes(2**20))

        assert scope.cancelled_caught


async def test_server_that_never_reads_can_still_speak(network, autojump_clock):
    async def feed(connection):
        await connection.send("news")
        await connection.wait_over()

    fault = NEVER_READS.later(after=5)
    async with FaultServer([fault], network=network, handler=feed) as server:
        with pytest.raises(DisconnectionTimeout):
            async with open_websocket_url(server.url, disconnect_timeout=1) as connection:
                assert "news" == await connection.get_message()

                await connection.ping()
                await trio.sleep(5)
                with trio.move_on_after(1) as scope:
                    await connection.ping()
                await server.broadcast("more")

                assert "more" == await connection.get_message()

    assert scope.cancelled_caught


async def test_slow_reads_read_at_their_speed(network, autojump_clock):
    async with (
        FaultServer([Fault.slow_reads(10_000)], network=network, handler=echo) as server,
        open_websocket_url(server.url) as connection,
    ):
        started = trio.current_time()
        await connection.send_message(bytes(100_000))
        received = await connection.get_message()

        assert 10 == pytest.approx(trio.current_time() - started, abs=0.1)

    assert bytes(100_000) == received


async def test_mute_close_works_until_it_should_close(serve):
    async with serve([MUTE_CLOSE], handler=echo) as server:
        with pytest.raises(DisconnectionTimeout):
            async with open_websocket_url(server.url, disconnect_timeout=0.2) as connection:
                await connection.send_message("hello")
                await connection.ping()

                assert "hello" == await connection.get_message()

        visit = await server.wait_over(1)

    assert 1000 == visit.close.code


async def test_mute_close_does_not_close_when_its_handler_returns(network, autojump_clock):
    async def greet(connection):
        await connection.send("hello")

    async with FaultServer([MUTE_CLOSE], network=network, handler=greet) as server:
        with pytest.raises(DisconnectionTimeout):
            async with open_websocket_url(server.url) as connection:
                assert "hello" == await connection.get_message()

                await trio.sleep(100)

                assert connection.closed is None


@pytest.mark.parametrize(
    ("fault", "code"), [(MASKED_FRAME, 1002), (BAD_OPCODE, 1002), (BAD_UTF8, 1007)]
)
async def test_violation_is_answered_with_its_close_code(serve, fault, code):
    async with serve([fault]) as server:
        assert code == await fate(server)

        visit = await server.wait_over(1)

    assert code == visit.close.code


async def test_oversized_message_is_refused_long_before_its_end(serve):
    async with serve([OVERSIZED]) as server:
        assert 1009 == await fate(server)

        visit = await server.wait_over(1)

    assert 1009 == visit.close.code


# When faults strike.


@pytest.mark.parametrize(
    "fault",
    [
        Fault.reset(after_messages=2),
        EOF_AFTER_OPEN.later(after_messages=2),
        HALF_FRAME.later(after_messages=2),
        Fault.close(1001, after_messages=2),
    ],
)
async def test_server_that_dies_after_messages_hears_exactly_these(serve, fault):
    async with serve([fault]) as server:
        async with open_websocket_url(server.url) as connection:
            with pytest.raises(ConnectionClosed):
                while True:
                    await connection.send_message("x")

        await server.wait_over(1)

    assert ["x", "x"] == server.messages
    assert connection.closed.code == (1001 if fault.kind is FaultKind.CLOSE else 1006)


async def test_messages_of_one_read_are_heard_up_to_the_fault(network, autojump_clock):
    async with (
        FaultServer([Fault.reset(after_messages=2)], network=network) as server,
        open_websocket_url(server.url) as connection,
        trio.open_nursery() as nursery,
    ):

        async def send(number):
            with pytest.raises(ConnectionClosed):
                await connection.send_message(str(number))
                await connection.ping()

        for number in range(5):
            nursery.start_soon(send, number)

    assert 2 == len(server.messages)


async def test_fault_strikes_after_its_time(network, autojump_clock):
    fault = Fault.reset(after_messages=1, after=7)
    async with FaultServer([fault], network=network, handler=echo) as server:
        async with open_websocket_url(server.url) as connection:
            await trio.sleep(100)
            started = trio.current_time()
            await connection.send_message("one")
            await trio.sleep(6.9)
            await connection.send_message("two")

            assert ["one", "two"] == [await connection.get_message() for _ in range(2)]

            with pytest.raises(ConnectionClosed):
                await connection.get_message()

            assert 7 == pytest.approx(trio.current_time() - started)

        visit = server.connections[0]

    assert started + 7 == visit.ended_at


async def test_silence_after_a_healthy_life(network, autojump_clock):
    async with (
        FaultServer([SILENCE.later(after=60)], network=network, handler=echo) as server,
        open_websocket_url(server.url, disconnect_timeout=0) as connection,
    ):
        await trio.sleep(59)
        await connection.ping()
        await trio.sleep(1)
        with trio.move_on_after(1000) as scope:
            await connection.ping()
        connection.abort()

    assert scope.cancelled_caught


async def test_client_that_leaves_early_is_not_struck(network, autojump_clock):
    fault = Fault.close(4000, after=60)
    async with FaultServer([fault], network=network) as server:
        started = trio.current_time()
        async with open_websocket_url(server.url) as connection:
            pass

        visit = await server.wait_over(1)

    assert (1000, 1000) == (connection.closed.code, visit.close.code)
    assert started == visit.ended_at


# Faults as values.


@pytest.mark.parametrize(
    ("expected", "fault"),
    [
        ("NONE", NONE),
        ("REJECT_503", REJECT_503),
        ("Fault.reject(503, retry_after=30)", Fault.reject(503, retry_after=30)),
        ("DELAYED_HANDSHAKE(3)", DELAYED_HANDSHAKE(3)),
        ("Fault.slow_reads(100)", Fault.slow_reads(100)),
        ("Fault.reset(after_messages=3, after=0.5)", Fault.reset(after_messages=3, after=0.5)),
        ("Fault.close(4000, 'bye', after=1)", Fault.close(4000, "bye", after=1)),
        ("SILENCE.later(after=60)", SILENCE.later(after=60)),
    ],
)
def test_fault_is_printed_as_it_is_written(expected, fault):
    assert expected == repr(fault)
    assert expected == str(fault)


def test_faults_are_equal_by_what_they_do():
    assert Fault.reset() == RESET_AFTER_OPEN
    assert Fault.reject(503) == REJECT_503
    assert Fault.close(1000) == ACCEPT_THEN_CLOSE
    assert 3 == len({Fault.reset(), RESET_AFTER_OPEN, SILENCE, EOF_AFTER_OPEN})


def test_every_constant_is_called_by_its_name():
    constants = {
        name: value for name, value in vars(wsclient.testing).items() if isinstance(value, Fault)
    }

    assert list(constants) == [str(fault) for fault in constants.values()]
    assert set(constants) <= set(wsclient.testing.__all__)


def test_every_kind_of_fault_has_a_name_to_get_it_by():
    faults = [value for value in vars(wsclient.testing).values() if isinstance(value, Fault)]
    faults += [DELAYED_HANDSHAKE(1), Fault.slow_reads(1)]

    assert set(FaultKind) == {fault.kind for fault in faults}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fault.reject(101),
        lambda: Fault.close(70_000),
        lambda: Fault.close(1000, "x" * 124),
        lambda: Fault.reset(after=-1),
        lambda: Fault.reset(after_messages=-1),
        lambda: Fault.slow_reads(0),
        lambda: Fault.delayed_handshake(float("nan")),
        lambda: REJECT_503.later(after=1),
        lambda: NONE.later(after=1),
    ],
)
def test_fault_that_cannot_be_is_refused(make):
    with pytest.raises(ValueError, match=r"."):
        make()
