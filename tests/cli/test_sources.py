"""Which source file has changed."""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest

from wsclient.cli._sources import Sources


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("bot.py", "shop/orders.py", "shop/notes.txt", ".hidden/a.py", "env/lib/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "env/pyvenv.cfg").touch()
    return tmp_path


@pytest.fixture
def load(folder, monkeypatch):
    def load(name):
        module = ModuleType(name)
        module.__file__ = str(folder / name)
        monkeypatch.setitem(sys.modules, f"loaded_by_a_test_{name}", module)

    return load


def change(file):
    file.write_text(file.read_text() + "y = 2\n")


@pytest.mark.parametrize("is_any", [False, True])
def test_nothing_has_changed_at_first(folder, load, is_any):
    load("bot.py")

    assert Sources(str(folder)).changed(is_any=is_any) is None


def test_a_file_whose_module_is_loaded_has_changed_once_it_is_saved(folder, load):
    sources = Sources(str(folder))
    load("shop/orders.py")
    change(folder / "shop/orders.py")

    assert os.path.join("shop", "orders.py") == sources.changed(is_any=False)


def test_the_same_length_at_another_time_is_a_change(folder, load):
    load("bot.py")
    sources = Sources(str(folder))
    os.utime(folder / "bot.py", ns=(1, 1))

    assert "bot.py" == sources.changed(is_any=False)


def test_other_files_count_only_if_any_does(folder, load):
    load("bot.py")
    sources = Sources(str(folder))
    change(folder / "shop/orders.py")

    assert sources.changed(is_any=False) is None
    assert os.path.join("shop", "orders.py") == sources.changed(is_any=True)


def test_a_new_file_counts_only_if_any_does(folder, load):
    sources = Sources(str(folder))
    (folder / "new.py").touch()
    load("new.py")

    assert "new.py" == sources.changed(is_any=True)
    # It was loaded as it is.
    assert sources.changed(is_any=False) is None
    change(folder / "new.py")

    assert "new.py" == sources.changed(is_any=False)


def test_a_file_that_is_being_replaced_has_not_changed_yet(folder, load):
    load("bot.py")
    sources = Sources(str(folder))
    (folder / "bot.py").rename(folder / "old")

    assert sources.changed(is_any=False) is None
    assert sources.changed(is_any=True) is None
    change(folder / "old")
    (folder / "old").rename(folder / "bot.py")

    assert "bot.py" == sources.changed(is_any=False)


@pytest.mark.parametrize("name", ["shop/notes.txt", ".hidden/a.py", "env/lib/b.py"])
def test_what_is_no_source_of_ones_own_does_not_count(folder, name):
    sources = Sources(str(folder))
    change(folder / name)

    assert sources.changed(is_any=True) is None
