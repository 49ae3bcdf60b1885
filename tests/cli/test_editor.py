"""A line editor: keys in, lines out, and one row of the terminal."""

from __future__ import annotations

import re

import pytest

from wsclient.cli._editor import HISTORY, Editor, Key

UP, DOWN, RIGHT, LEFT = b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D"


def typed(*keys, history=(), **options):
    editor = Editor(history, **options)
    happened = [each for data in keys for each in editor.feed(data)]
    return editor, happened


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "text", "cursor"),
    [
        (b"hello", "hello", 5),
        ("größe 日本 🙂".encode(), "größe 日本 🙂", 10),
        (b"ab" + LEFT + b"x", "axb", 2),
        (b"ab" + LEFT * 5 + RIGHT + b"x", "axb", 2),
        (b"ab" + RIGHT + b"x", "abx", 3),
        (b"bc\x01a", "abc", 1),
        (b"bc\x01a\x05d", "abcd", 4),
        (b"bc\x1b[Ha\x1b[Fd", "abcd", 4),
        (b"bc\x1bOHa\x1bOFd", "abcd", 4),
        (b"bc\x1b[1~a\x1b[4~d", "abcd", 4),
        (b"abc\x02\x02x\x06y", "axbyc", 4),
        (b"abc\x7f\x08d", "ad", 2),
        (b"\x7fa", "a", 1),
        (b"abc\x01\x1b[3~", "bc", 0),
        (b"abc\x01\x04", "bc", 0),
        (b"abc\x04", "abc", 3),
        (b"one two three\x17", "one two ", 8),
        (b"one two \x17", "one ", 4),
        (b"one two\x1b\x7f", "one ", 4),
        (b"one two\x1bb\x0b", "one ", 4),
        (b"one two\x1b[1;5D\x1b[1;5D!", "!one two", 1),
        (b"one two\x01\x1bf!", "one! two", 4),
        (b"one two\x01\x1b[1;5C\x1b[1;5C!", "one two!", 8),
        (b"one two\x1bb\x15", "two", 0),
        (b"one two\x17\x01\x19", "twoone ", 3),
        (b"a\x00\x1b[99~\x1b[M\x1bx\x16b", "ab", 2),
        (b"a\x1b[" + b"1;" * 10 + b"Rb", "ab", 2),
        (b"\x1b[200~{\r\n1\r}\n\x1b[201~", "{\n1\n}\n", 6),
    ],
)
def test_keys_do_what_they_do_everywhere(keys, text, cursor):
    editor, happened = typed(keys)

    assert (text, cursor, []) == (editor.text, editor.cursor, happened)


@pytest.mark.parametrize(
    "keys",
    [b"a\x1b[D\x1b[1;5Cb\x1bf", "日\x1b[3~".encode(), b"x\x1b[200~a\rb\x1b[201~\r", b"\xff\x1bOH"],
)
def test_what_comes_in_pieces_is_the_same(keys):
    whole, happened = typed(keys)
    pieces, happened_too = typed(*(bytes([byte]) for byte in keys))

    assert (whole.text, whole.cursor, happened) == (pieces.text, pieces.cursor, happened_too)


def test_a_sequence_that_never_ends_is_given_up():
    editor, _ = typed(b"a\x1b[" + b"1;" * 40, b"b")

    assert "ab" == editor.text


def test_enter_gives_the_line_and_begins_a_new_one():
    editor, happened = typed(b"one\rtwo\nth", b"ree")

    assert (["one", "two"], "three") == (happened, editor.text)


def test_what_is_pasted_is_one_line_however_many_it_has():
    _, happened = typed(b"\x1b[200~a\nb\x1b[201~\r")

    assert ["a\nb"] == happened


def test_ctrl_d_ends_only_an_empty_line_and_ctrl_l_clears():
    _, happened = typed(b"\x0ca\x01\x04\x04")

    assert [Key.CLEAR, Key.END] == happened


# --- history ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (UP, "two"),
        (UP + UP, "one"),
        (UP * 9, "one"),
        (b"\x10\x10\x0e", "two"),
        (b"draft" + UP + UP + DOWN * 2, "draft"),
        (b"draft" + DOWN, "draft"),
        (b"draft" + UP + b"!" + DOWN, "draft"),
        (UP + b"!", "two!"),
    ],
)
def test_the_arrows_go_through_what_was_entered(keys, text):
    editor, _ = typed(keys, history=["one", "two"])

    assert text == editor.text


def test_what_is_entered_joins_the_history_once():
    editor, _ = typed(b"a\ra\r\rb\r", history=["one"])

    assert ["one", "a", "b"] == editor.history
    assert "b" == typed(b"", history=editor.history)[0].history[-1]


def test_the_history_is_bounded():
    editor, _ = typed(b"new\r", history=[str(number) for number in range(2 * HISTORY)])

    assert (HISTORY, "new") == (len(editor.history), editor.history[-1])


# --- completion ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "text"),
    [(b"/r\t", "/reconnect "), (b"/p\t", "/pi"), (b"/x\t", "/x"), (b"a\t", "a")],
)
def test_tab_completes_as_far_as_it_can_be_known(keys, text):
    words = ("/reconnect", "/ping", "/pie")
    editor, _ = typed(keys, complete=lambda text: [word for word in words if word.startswith(text)])

    assert text == editor.text


# --- the row ------------------------------------------------------------------------------------


def row(keys, width, prompt="> "):
    """What the row shows, and the cursor's column."""
    drawn = typed(keys)[0].row(prompt, width)
    found = re.fullmatch(r"\r\x1b\[K(?P<shown>.*)\r(\x1b\[(?P<column>\d+)C)?", drawn)
    return found["shown"], int(found["column"] or 0)


@pytest.mark.parametrize(
    ("keys", "width", "shown", "column"),
    [
        (b"", 20, "> ", 2),
        (b"hello", 20, "> hello", 7),
        (b"hello" + LEFT * 2, 20, "> hello", 5),
        (b"a\x1b[200~\n\t\x1b[201~b", 20, "> a\\n\\tb", 8),
        # One column of the ten is left for the cursor, and one stays empty.
        (b"0123456789", 10, "> 456789", 8),
        (b"0123456789" + LEFT * 10, 10, "> 0123456", 2),
        (b"0123456789" + LEFT * 2, 10, "> 2345678", 8),
        ("日本語日本".encode(), 10, "> 語日本", 8),
        ("日本語日本\x01".encode(), 10, "> 日本語", 2),
        ("e\u0301a".encode(), 10, "> e\u0301a", 4),
        (b"abc", 3, "> ", 2),
        (b"abc", 1, "> ", 2),
    ],
)
def test_the_row_shows_the_text_around_the_cursor(keys, width, shown, column):
    assert (shown, column) == row(keys, width)


def test_without_a_prompt_the_cursor_may_stand_at_the_edge():
    assert ("", 0) == row(b"", 10, prompt="")
