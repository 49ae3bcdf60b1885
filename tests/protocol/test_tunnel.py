"""Asking an HTTP proxy for a tunnel (RFC 9110 §9.3.6)."""

from __future__ import annotations

import pytest

from wsclient.errors import ProxyError
from wsclient.protocol import TunnelHandshake


@pytest.fixture
def start():
    def start(**options):
        handshake = TunnelHandshake("http://proxy.test:3128", "server.test:443", **options)
        return handshake, handshake.send_request()

    return start


def whole(handshake, data):
    return handshake.receive_data(data)


def byte_by_byte(handshake, data):
    stands = [handshake.receive_data(bytes([byte])) for byte in data]
    assert not any(stands[:-1])
    return stands[-1]


FEEDS = pytest.mark.parametrize("feed", [whole, byte_by_byte])


def test_the_request_names_the_server_and_nothing_else(start):
    assert (
        b"CONNECT server.test:443 HTTP/1.1\r\nHost: server.test:443\r\n\r\n"
        == start(user_agent=None)[1]
    )


def test_credentials_and_a_user_agent_are_headers(start):
    _, request = start(credentials="user:pä\r\nss".encode(), user_agent="test/1")

    assert (
        b"CONNECT server.test:443 HTTP/1.1\r\nHost: server.test:443\r\nUser-Agent: test/1\r\n"
        b"Proxy-Authorization: Basic dXNlcjpww6QNCnNz\r\n\r\n"
    ) == request


@FEEDS
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-agent: old\r\n\r\n",
        b"HTTP/1.1 204 \r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \xff\r\n\r\n",
    ],
)
def test_any_success_opens_the_tunnel(start, feed, answer):
    assert feed(start()[0], answer)


@FEEDS
@pytest.mark.parametrize("status", [300, 302, 401, 403, 407, 429, 500, 502, 503, 504, 799])
def test_any_other_answer_is_a_refusal_with_its_status(start, feed, status):
    with pytest.raises(ProxyError) as caught:
        feed(start()[0], b"HTTP/1.1 %d canary\r\nX: canary\r\n\r\n" % status)

    assert status == caught.value.status_code
    assert f"the proxy http://proxy.test:3128 refused to connect: HTTP {status}" == str(
        caught.value
    )


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0-x\r\n", "is not HTTP/1.1"),
        (b"\x05\x00", "is not HTTP/1.1"),
        (b"HTTP/1.1 \r\n\r\n", "no valid status line"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "exceeds 16 KiB"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n", "more than 128 headers"),
        (b"HTTP/1.1 103 X\r\n\r\n" * 20, "too many interim answers"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x81\x00", "sent data behind its answer"),
    ],
)
def test_an_answer_that_breaks_the_rules_is_no_tunnel(start, answer, text):
    with pytest.raises(ProxyError, match=text) as caught:
        start()[0].receive_data(answer)

    assert "the proxy http://proxy.test:3128" in str(caught.value)
    assert caught.value.status_code is None


def test_the_limits_are_options(start):
    with pytest.raises(ProxyError, match="exceeds 20 bytes"):
        start(max_head_size=20)[0].receive_data(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n")
    with pytest.raises(ProxyError, match="more than 0 headers"):
        start(max_headers=0)[0].receive_data(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "text"), [(b"", "before it answered"), (b"HTTP/1.1 2", "inside its answer")]
)
def test_the_end_of_the_stream_is_no_tunnel(start, answer, text):
    handshake, _ = start()
    handshake.receive_data(answer)
    with pytest.raises(ProxyError, match=text) as caught:
        handshake.receive_eof()

    assert isinstance(caught.value.__cause__, EOFError)
