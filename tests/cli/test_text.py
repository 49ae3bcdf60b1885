"""What a peer sends is one harmless line."""

from __future__ import annotations

import unicodedata

import pytest

from wsclient.cli._text import count, escape, escape_lines, message_text, milliseconds, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain text, with spaces", "plain text, with spaces"),
        ("line\nend", "line\\nend"),
        ("carriage\rreturn", "carriage\\rreturn"),
        ("a\ttab", "a\\ttab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x00\x7f", "\\x00\\x7f"),
        ("\x9b31m is CSI, too", "\\x9b31m is CSI, too"),
        ("\x85", "\\x85"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066isolate\u2069", "\\u2066isolate\\u2069"),
        ("\u200e\u200f\u061c", "\\u200e\\u200f\\u061c"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ufeffbom", "\\ufeffbom"),
        ("\U000e0041 is an invisible tag", "\\U000e0041 is an invisible tag"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_move_the_cursor_or_deceive_the_eye_is_escaped(text, expected):
    assert expected == escape(text)


@pytest.mark.parametrize(
    "text",
    [
        "é ü ß",
        "日本語",
        "\u0645\u06cc\u200c\u062e",
        "👩\u200d🚀",
        "a\u00a0b",
        '{"a": "b\\n\\"c\\""}',
    ],
)
def test_languages_emoji_and_json_pass_unharmed(text):
    assert text == escape(text)


def test_no_control_character_of_any_kind_passes():
    everything = "".join(map(chr, range(0x110000)))

    assert {"Cc", "Zl", "Zp", "Cs"}.isdisjoint(map(unicodedata.category, escape(everything)))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("text", "text"),
        ("two\nlines", "two\\nlines"),
        (b"hi", "[binary, 2 bytes] 6869"),
        (b"\x00", "[binary, 1 byte] 00"),
        (b"", "[binary, 0 bytes]"),
        (bytes(1024), "[binary, 1,024 bytes] " + "00" * 1024),
    ],
)
def test_a_message_is_one_line_and_a_binary_one_is_marked(message, expected):
    assert expected == message_text(message)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0.0, "0.00 s"),
        (1.234, "1.23 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_durations_are_as_precise_as_people_need_them(duration, expected):
    assert expected == seconds(duration)


def test_counts_have_a_plural():
    assert ["0 faults", "1 fault", "2 faults", "1,000 faults"] == [
        count(number, "fault") for number in (0, 1, 2, 1000)
    ]


def test_lines_stay_lines():
    assert "a\n  \\x1b[2Jb\n" == escape_lines("a\n  \x1b[2Jb\n")


@pytest.mark.parametrize(
    ("duration", "expected"), [(0.00042, "0.4 ms"), (0.9994, "999.4 ms"), (1.5, "1.50 s")]
)
def test_short_durations_are_milliseconds(duration, expected):
    assert expected == milliseconds(duration)
