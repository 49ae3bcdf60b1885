"""A connection is opened step by step, and what fails is what a channel would meet."""

from __future__ import annotations

import base64
import hashlib
import ssl
import struct
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

import wsclient
from wsclient.cli import _steps
from wsclient.cli._steps import Examination, StepFailed, describe_certificate, goal_from
from wsclient.testing import (
    ANSWER_200,
    BAD_ACCEPT,
    EOF_IN_HANDSHAKE,
    MUTE_CLOSE,
    REJECT_401,
    RESET_ON_ACCEPT,
    SILENCE,
    SILENT_HANDSHAKE,
    Fault,
    FaultServer,
    echo,
)

CANARY = "canary"


class Notes:
    """Keeps what it is told."""

    def __init__(self):
        self.begun = []
        self.steps = []

    def begin(self, name):
        self.begun.append(name)

    def end(self, step):
        self.steps.append(step)

    def __getitem__(self, name):
        [step] = [step for step in self.steps if step.name == name]
        return step


async def examine(url, headers=(), subprotocols=(), **options):
    notes = Notes()
    goal = goal_from(url, headers, subprotocols)
    options = {"pings": 3, "timeout": 5.0, **options}
    with trio.fail_after(20):
        try:
            await Examination(goal, listener=notes, **options).run()
        except StepFailed as failure:
            return notes, failure
    return notes, None


@pytest.fixture
def trusting(tls, monkeypatch):
    monkeypatch.setattr(ssl, "create_default_context", lambda: tls.client)


# --- all well -------------------------------------------------------------------------------------


async def test_each_step_is_told_with_its_time_and_what_was_found():
    async with FaultServer(handler=echo) as server:
        notes, failure = await examine(server.url)

    assert failure is None
    assert ["resolve", "connect", "upgrade", "ping", "close"] == notes.begun
    assert notes.begun == [step.name for step in notes.steps]
    assert all(step.is_ok and step.seconds >= 0 for step in notes.steps)
    assert "127.0.0.1" == notes["resolve"].text
    assert f"127.0.0.1, port {server.port}" == notes["connect"].text
    assert "no subprotocol; no compression" == notes["upgrade"].text
    assert "(median)" in notes["ping"].text
    values = notes["ping"].values
    assert 3 == values["pings"]
    assert 0 < values["min"] <= values["median"] <= values["max"] < 5
    assert "answered" == notes["close"].text
    assert 1000 == server.connections[0].close.code
    assert 3 == len(server.connections[0].pings)


async def test_over_tls_version_cipher_and_certificate_are_told(tls, trusting):
    async with FaultServer(ssl_context=tls.server, subprotocols=["chat"]) as server:
        notes, failure = await examine(server.url, subprotocols=["other", "chat"])

    assert failure is None
    assert ["resolve", "connect", "TLS", "upgrade", "ping", "close"] == notes.begun
    step = notes["TLS"]
    assert step.text == f"{step.values['version']}, {step.values['cipher']}"
    assert "TLSv1.3" == step.values["version"]
    assert ("localhost", "127.0.0.1") == step.values["certificate"]["names"]
    assert step.values["certificate"]["days"] > 30
    assert step.notes[0].startswith("certificate of localhost, 127.0.0.1, by ")
    assert "subprotocol 2 of the 2 offered; no compression" == notes["upgrade"].text


async def test_headers_and_the_credentials_of_the_url_are_sent():
    async with FaultServer() as server:
        url = f"ws://us%20er:pass@127.0.0.1:{server.port}/path?query=1"
        await examine(url, headers=[("X-Room", "5")])
        await examine(url, headers=[("authorization", "Bearer better")])

    first, second = server.connections
    basic = base64.b64encode(b"us er:pass")

    assert "/path?query=1" == first.path
    assert {(b"x-room", b"5"), (b"authorization", b"Basic " + basic)} <= set(first.headers)
    assert f"127.0.0.1:{server.port}".encode() == dict(first.headers)[b"host"]
    assert b"Bearer better" == dict(second.headers)[b"authorization"]


async def test_compression_that_is_agreed_on_and_the_servers_name_are_told():
    async def answer(stream):
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive_some()
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        await stream.send_all(
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Server: nginx/1\r\nX-Other: 1\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
            b"Sec-WebSocket-Accept: " + accept_token(key) + b"\r\n\r\n"
        )
        while await stream.receive_some():
            pass

    async with serve(answer) as port:
        notes, failure = await examine(
            f"ws://127.0.0.1:{port}/", subprotocols=["chat"], timeout=0.2
        )
    step = notes["upgrade"]

    assert (
        "no subprotocol of the 1 offered; permessage-deflate; server_no_context_takeover"
        == step.text
    )
    assert ("server: nginx/1",) == step.notes
    assert "ping" == failure.step


def accept_token(key):
    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key + guid).digest())


@asynccontextmanager
async def serve(handler):
    """Serve plain TCP in this way for the length of a block."""
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_messages_that_come_meanwhile_hold_nothing_up():
    async def flood(connection):
        for _ in range(500):
            await connection.send("x" * 10_000)
        await trio.sleep_forever()

    async with FaultServer(handler=flood) as server:
        notes, failure = await examine(server.url)

    assert failure is None
    assert notes["close"].values["messages"] > 0
    assert "came meanwhile" in notes["close"].notes[0]


async def test_a_server_that_says_no_goodbye_is_told_and_no_failure():
    async with FaultServer([MUTE_CLOSE]) as server:
        notes, failure = await examine(server.url)

    assert failure is None
    assert "not answered within 2 s" == notes["close"].text


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "step", "kind", "text"),
    [
        (REJECT_401, "upgrade", "rejected", "HTTP 401"),
        (ANSWER_200, "upgrade", "rejected", "HTTP 200"),
        (BAD_ACCEPT, "upgrade", "invalid upgrade", "not valid"),
        (SILENT_HANDSHAKE, "upgrade", "unreachable", "no answer within 0.3 s"),
        (EOF_IN_HANDSHAKE, "upgrade", "unreachable", "closed the connection"),
        (RESET_ON_ACCEPT, "upgrade", "unreachable", ""),
        (SILENCE, "ping", "silent", "no pong within 0.3 s, after 0 pongs"),
        (Fault.close(1008, "no"), "ping", "closed", "1008"),
    ],
)
async def test_a_failure_is_what_a_channel_would_get(fault, step, kind, text):
    async with FaultServer([fault]) as server:
        notes, failure = await examine(server.url, timeout=0.3)

    assert step == failure.step == notes.steps[-1].name
    assert not notes.steps[-1].is_ok
    assert kind == wsclient.loss_from(failure.error).kind.value
    assert text in notes.steps[-1].text


async def test_a_port_where_nobody_listens_is_a_failure_of_connect():
    async with FaultServer() as server:
        url = server.url
    notes, failure = await examine(url)

    assert ("connect", wsclient.LossKind.UNREACHABLE) == (
        failure.step,
        wsclient.loss_from(failure.error).kind,
    )
    assert notes["connect"].text.startswith("127.0.0.1: ")
    assert "refused" in notes["connect"].text


async def test_an_address_that_does_not_answer_is_told_beside_the_one_that_does(monkeypatch):
    async def two(host, port, **_):
        return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    opened = trio.open_tcp_stream
    outcomes = iter([OSError(None, "alas"), None])

    async def open_tcp_stream(address, port):
        if error := next(outcomes):
            raise error
        return await opened(address, port)

    async with FaultServer() as server:
        monkeypatch.setattr(trio.socket, "getaddrinfo", two)
        monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
        notes, failure = await examine(server.url)

    assert failure is None
    assert ("127.0.0.2: alas",) == notes["connect"].notes
    assert "127.0.0.2, 127.0.0.1" == notes["resolve"].text


async def test_names_and_addresses_that_take_too_long_are_told(monkeypatch):
    async def forever(*_, **__):
        await trio.sleep_forever()

    async with FaultServer() as server:
        with monkeypatch.context() as patch:
            patch.setattr(trio.socket, "getaddrinfo", forever)
            notes, failure = await examine(server.url, timeout=0.1)

        assert ("resolve", "no answer within 0.1 s") == (failure.step, notes["resolve"].text)
        with monkeypatch.context() as patch:
            patch.setattr(trio, "open_tcp_stream", forever)
            notes, failure = await examine(server.url, timeout=0.1)

    assert "connect" == failure.step
    assert "127.0.0.1: no answer within 0.1 s" == notes["connect"].text


async def test_a_name_that_there_is_not_is_told(monkeypatch):
    async def unknown(*_, **__):
        raise trio.socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", unknown)
    notes, failure = await examine("ws://no.example/")

    assert "resolve" == failure.step
    assert "the host's name cannot be resolved: Name or service not known" == notes["resolve"].text


async def test_a_certificate_that_is_not_to_be_trusted_is_told_as_such(tls, monkeypatch):
    monkeypatch.setattr(ssl, "create_default_context", lambda: tls.stranger)
    async with FaultServer(ssl_context=tls.server) as server:
        notes, failure = await examine(server.url)

    assert "TLS" == failure.step
    assert "the certificate is not to be trusted: " in notes["TLS"].text
    assert wsclient.LossKind.TLS_UNVERIFIED is wsclient.loss_from(failure.error).kind


async def test_a_port_that_speaks_no_tls_is_told(trusting):
    async def speak_http(stream):
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.receive_some()

    async with serve(speak_http) as port:
        notes, failure = await examine(f"wss://localhost:{port}/")

    assert "TLS" == failure.step
    assert notes["TLS"].text.startswith("TLS failed: ")
    assert wsclient.LossKind.TLS_FAILED is wsclient.loss_from(failure.error).kind


@pytest.mark.parametrize("manner", ["hangs up", "resets", "is silent"])
async def test_a_port_that_breaks_off_or_is_silent_in_tls_is_unreachable(trusting, manner):
    async def serve_badly(stream):
        await stream.receive_some()
        if manner == "is silent":
            await trio.sleep_forever()
        if manner == "resets":
            linger = struct.pack("ii", 1, 0)
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)

    async with serve(serve_badly) as port:
        _, failure = await examine(f"wss://localhost:{port}/", timeout=0.3)

    assert "TLS" == failure.step
    assert wsclient.LossKind.UNREACHABLE is wsclient.loss_from(failure.error).kind


async def test_two_failures_at_once_are_both_told(monkeypatch):
    async def fail(self, connection):
        raise ZeroDivisionError

    async with FaultServer() as server:
        monkeypatch.setattr(Examination, "_receive", fail)
        monkeypatch.setattr(Examination, "_ping", fail)
        with pytest.raises(ExceptionGroup):
            await examine(server.url)


# --- the goal -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "endpoint", "host", "resource"),
    [
        ("ws://h", "ws://h:80", "h", "/"),
        ("wss://h/a?b", "wss://h:443", "h", "/a?b"),
        ("ws://h:443/", "ws://h:443", "h:443", "/"),
        ("ws://[::1]:80/", "ws://[::1]:80", "[::1]", "/"),
        ("ws://münchen.example/", "ws://xn--mnchen-3ya.example:80", "xn--mnchen-3ya.example", "/"),
    ],
)
def test_a_url_is_taken_apart(url, endpoint, host, resource):
    goal = goal_from(url, (), ())

    assert (endpoint, host, resource) == (goal.endpoint, goal.host_header, goal.resource)


@pytest.mark.parametrize(
    ("url", "headers"),
    [("http://h/canary", ()), ("ws://h:canary/", ()), ("ws://h/", [("Connection", CANARY)])],
)
def test_what_cannot_be_used_is_refused_without_being_quoted(url, headers):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # The text is not this test's.
        goal_from(url, headers, ())

    assert CANARY not in str(caught.value)


def test_a_goal_does_not_show_its_secrets():
    goal = goal_from("wss://u:canary@h/canary?canary", [("X", CANARY)], ())

    assert CANARY not in repr(goal)


# --- the certificate ------------------------------------------------------------------------------

CERTIFICATE = {
    "subject": ((("countryName", "XX"),), (("commonName", "feed.example"),)),
    "issuer": ((("organizationName", "Some Authority"),),),
    "notAfter": "Jan 31 00:00:00 2030 GMT",
    "subjectAltName": tuple(("DNS", f"{letter}.example") for letter in "abcde"),
}
END = ssl.cert_time_to_seconds("Jan 31 00:00:00 2030 GMT")


def test_a_certificate_is_told_in_a_line():
    told = describe_certificate(CERTIFICATE, END - 100 * 86400)

    assert (
        "certificate of a.example, b.example, c.example and 2 more, by Some Authority,"
        " until Jan 31 00:00:00 2030 GMT"
    ) == told.text
    assert ((), 100, "feed.example") == (told.notes, told.days, told.subject)


def test_a_certificate_that_ends_soon_is_worth_a_word():
    told = describe_certificate({"notAfter": CERTIFICATE["notAfter"]}, END - 5.5 * 86400)

    assert ("the certificate expires in 5 days",) == told.notes
    assert told.text.startswith("certificate of nobody, by nobody, until ")


def test_the_steps_have_their_names():
    assert set(goal_from("wss://h/", (), ()).names) == set(_steps.NAMES)
    assert "TLS" not in goal_from("ws://h/", (), ()).names
