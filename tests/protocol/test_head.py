"""The heads of answers: bounded, whoever sends them, and cheap to find."""

from __future__ import annotations

import time

import pytest

from wsclient.errors import InvalidUpgrade
from wsclient.protocol._head import MAX_INTERIM_ANSWERS, Head, HeadReader, head_lines

HEAD = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"


def read(data, **options):
    reader = HeadReader("the proxy", **options)
    reader.receive_data(data)
    return reader.take_head(), reader


def test_a_head_is_cut_off_wherever_its_reads_end():
    for cut in range(1, len(HEAD) + 1):
        head, reader = read(HEAD[:cut])
        if cut < len(HEAD):
            assert head is None
            assert reader.is_inside
            reader.receive_data(HEAD[cut:] + b"rest")
            head = reader.take_head()
            assert b"rest" == reader.take_rest()

        assert Head(200, b"1.1", HEAD) == head
        assert not reader.is_inside
        assert b"" == reader.take_rest()


def test_one_head_follows_another():
    head, reader = read(HEAD + HEAD.replace(b"200 OK", b"103"))

    assert (200, 103, None) == (head.status, reader.take_head().status, reader.take_head())


def test_lines_may_end_without_a_carriage_return():
    head, _ = read(HEAD.replace(b"\r", b""))

    assert [b"HTTP/1.1 200 OK", b"X-A: 1"] == head_lines(head.data)


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        (b"SSH-2.0", {}, "^the proxy's answer is not HTTP/1.1$"),
        (b"HTTP/1.1 2 OK\r\n\r\n", {}, "^the proxy's answer has no valid status line$"),
        (b"HTTP/1.1 099 X\r\n\r\n", {}, "^the proxy answered with the invalid status b'099'$"),
        (HEAD, {"max_size": len(HEAD) - 1}, "^the head of the proxy's answer exceeds 26 bytes$"),
        (HEAD[:-1], {"max_size": 2}, "exceeds 2 bytes"),
        (b"HTTP/1.1 " + b"x" * 2048, {"max_size": 2048}, "exceeds 2 KiB"),
        (HEAD, {"max_headers": 0}, "^the proxy's answer has more than 0 headers$"),
    ],
)
def test_a_head_that_is_none_or_too_large_is_refused(data, options, text):
    with pytest.raises(InvalidUpgrade, match=text):
        read(data, **options)


def test_a_head_may_be_as_large_as_is_allowed():
    head, _ = read(HEAD, max_size=len(HEAD), max_headers=1)

    assert HEAD == head.data


def test_interim_answers_have_an_end():
    reader = HeadReader("the server")
    for _ in range(MAX_INTERIM_ANSWERS):
        reader.count_interim()
    with pytest.raises(InvalidUpgrade, match="too many interim answers"):
        reader.count_interim()


@pytest.mark.parametrize("filling", [b"x", b"\r", b"\n ", b"\r\n:", b"a:b\r\n"])
def test_finding_the_end_costs_no_more_than_the_bytes(filling):
    def cost(size):
        data = b"HTTP/1.1 200 " + filling * (size // len(filling))
        best = float("inf")
        for _ in range(5):
            reader = HeadReader("the server", max_size=2**20, max_headers=2**20)
            start = time.process_time()
            for position in range(0, len(data), 100):
                reader.receive_data(data[position : position + 100])
                assert reader.take_head() is None
            best = min(best, time.process_time() - start)
        return best

    # Four times as much, and not sixteen times as long.
    assert cost(256 * 1024) < 8 * cost(64 * 1024)
