"""What a server may send, whatever its protocol: none of it may hurt."""

from __future__ import annotations

import pytest

HOSTILE = {
    "nothing": "",
    "no JSON": "hello",
    "half of it": '{"op": ',
    "a number": "7",
    "a huge number": "9" * 10_000,
    "null": "null",
    "a text": '"text"',
    "an array": "[]",
    "an array of objects": '[{"id": "s1", "result": "0x1"}]',
    "an empty object": "{}",
    "not a number": '{"id": NaN}',
    "deep arrays": "[" * 100_000,
    "deep objects": '{"params":' * 100_000,
    "deep and whole": "[" * 100_000 + "]" * 100_000,
    "bytes": b"\x00\x01\x02",
    "bytes that are no UTF-8": b'{"id": "\xff"}',
    "half a character": '{"id": "\\ud800"}',
    "a byte order mark": "\ufeff{}",
}


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def hostile(request):
    return request.param
