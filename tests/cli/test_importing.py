"""What a user's own module holds is found, or it is said why not."""

from __future__ import annotations

import os
import sys
from functools import partial

import pytest

import wsclient
from wsclient.cli._importing import BrokenError, NotFoundError, check_place, failure_text, find

CANARY = "canary"

FILES = {
    "plain_bot_module.py": "bot = 1\nother = 2\nclass Shop: bot = 3\n",
    "package_with_bots/__init__.py": "",
    "package_with_bots/orders.py": "bot = 4\n",
    "misses_something.py": "import surely_not_installed_at_all\n",
    "misses_its_own.py": "import misses_its_own.more\n",
    "raises_at_once.py": "def fail():\n    raise ZeroDivisionError('bang')\nfail()\n",
    "bad_syntax_here.py": "def (:\n",
    "wants_to_leave.py": "import sys\nsys.exit(3)\n",
    "has_a_proxy.py": "def __getattr__(name):\n    raise ModuleNotFoundError('no name in it')\n",
    "raises_nameless.py": "raise ModuleNotFoundError('no name in it')\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("plain_bot_module", 1),
        ("plain_bot_module:bot", 1),
        ("plain_bot_module:other", 2),
        ("plain_bot_module:Shop.bot", 3),
        ("package_with_bots.orders", 4),
    ],
)
def test_a_name_in_a_module_of_the_current_folder_is_found(place, value):
    assert value == find(place, default="bot")


def test_the_current_folder_comes_first_and_once(folder):
    find("plain_bot_module", default="bot")
    find("plain_bot_module", default="bot")

    assert os.getcwd() == sys.path[0]
    assert 1 == sys.path.count(os.getcwd())


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("surely_not_there", "no module 'surely_not_there', neither in the current folder"),
        ("not_there.orders:bot", "no module 'not_there', neither in the current folder"),
        ("package_with_bots.more", ": package_with_bots has no more; a name in a"),
        ("plain_bot_module.more", ": plain_bot_module has no more; a name in a"),
        ("plain_bot_module:bott", "plain_bot_module has no 'bott'"),
        ("plain_bot_module:Shop.bott", "plain_bot_module.Shop has no 'bott'"),
        ("package_with_bots", "has no 'bot'; name another one after a colon, as in"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(place, sentence):
    with pytest.raises(NotFoundError) as caught:
        find(place, default="bot")

    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("plain_bot_module.py", "not a file: try plain_bot_module"),
        ("package_with_bots/orders.py:bot", "not a file: try package_with_bots.orders"),
        ("./1.py", "a module is expected, not a file"),
        ("plain_bot_module:", "a module is expected, and a name in it"),
        (":bot", "a module is expected, and a name in it"),
        ("", "a module is expected, and a name in it"),
        ("a b", "a module is expected, and a name in it"),
        (f"wss://user:{CANARY}@feed.example/", "and no URL"),
    ],
)
def test_what_can_be_no_module_is_told_in_a_sentence(place, sentence):
    with pytest.raises(NotFoundError) as caught:
        check_place(place)

    assert sentence in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("place", ["bot", "shop.orders:bot", "a:B.c", "größe:maß"])
def test_what_can_be_one_passes(place):
    check_place(place)


@pytest.mark.parametrize(
    ("place", "first", "last"),
    [
        ("misses_something", "misses_something.py", "No module named 'surely_not_installed"),
        ("raises_at_once", "raises_at_once.py", "ZeroDivisionError: bang"),
        ("bad_syntax_here", "bad_syntax_here.py", "SyntaxError: "),
        ("wants_to_leave", "wants_to_leave.py", "SystemExit: 3"),
        ("raises_nameless", "raises_nameless.py", "ModuleNotFoundError: no name in it"),
    ],
)
def test_what_a_module_raises_keeps_its_traceback_without_our_frames(place, first, last):
    with pytest.raises(BrokenError) as caught:
        find(place, default="bot")

    lines = str(caught.value).splitlines()

    assert first in next(line for line in lines if "File" in line)
    assert lines[-1].startswith(last) or last in lines[-1]
    assert "_importing.py" not in str(caught.value)


def test_a_module_that_takes_itself_for_a_package_is_broken():
    # It is not the user's argument that is wrong.
    with pytest.raises(BrokenError) as caught:
        find("misses_its_own", default="bot")

    assert "misses_its_own" in str(caught.value)


def test_one_of_our_own_errors_is_a_sentence_and_a_users_a_traceback():
    def users_own():
        raise ValueError("bang")

    texts = []
    for function in (partial(wsclient.rehearse, outage=-1), users_own):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # Both are.
            function()
        texts.append(failure_text(caught.value))

    assert "outage must be a number of seconds, not -1" == texts[0]
    assert texts[1].startswith("Traceback ")


def test_an_error_that_was_never_raised_is_told_all_the_same():
    assert "ValueError: bang" == failure_text(ValueError("bang"))
