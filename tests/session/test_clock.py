"""``Retry-After``, in the forms that servers send (RFC 9110 §10.2.3, and one that is not in it)."""

from __future__ import annotations

import random

import pytest

from wsclient.session._clock import retry_after_seconds, wall_clock

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Seconds.
        (b"0", 0),
        (b"120", 120),
        (b" 120 ", 120),
        (b"1.5", 1.5),
        (b"999999999", 999_999_999),
        # Already past, or nonsense that means the same.
        (b"-0", 0),
        (b"-5", 0),
        (b"-1e300", 0),
        # A Unix time.
        (b"1700000060", 60),
        (b"1700000060.5", 60.5),
        (b"1699999999", 0),
        (b"1000000000", 0),
        # An HTTP date, in the three forms that RFC 9110 §5.6.7 knows.
        (b"Tue, 14 Nov 2023 22:14:20 GMT", 60),
        (b"Tuesday, 14-Nov-23 22:14:20 GMT", 60),
        (b"Tue Nov 14 22:14:20 2023", 60),
        (b"Tue, 14 Nov 2023 22:13:20 GMT", 0),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 0),
        # With another zone than GMT, which the RFC does not allow.
        (b"Tue, 14 Nov 2023 23:14:20 +0100", 60),
        (b"Tue, 14 Nov 2023 22:14:20 -0000", 60),
        # None of these.
        (b"", None),
        (b" ", None),
        (b"soon", None),
        (b"nan", None),
        (b"inf", None),
        (b"-inf", None),
        (b"1e400", None),
        (b"0x10", None),
        (b"1 2", None),
        (b"Tue, 99 Nov 2023 22:14:20 GMT", None),
        (b"Tue, 14 Nov 2023 25:14:20 GMT", None),
        (b"\xff\xfe\x00", None),
    ],
)
def test_s4_3_retry_after_is_read_in_every_form(value, expected):
    assert expected == retry_after_seconds(value, NOW)


def test_s4_3_whatever_a_server_sends_is_a_wait_or_nothing():
    alphabet = b"0123456789 :,.+-eEMonTueJanNovGMTxX\xff\x00"
    for _ in range(20_000):
        value = bytes(random.choices(alphabet, k=random.randrange(32)))
        seconds = retry_after_seconds(value, NOW)

        assert seconds is None or seconds >= 0, value


def test_the_wall_clock_gives_unix_time():
    assert wall_clock() > NOW
