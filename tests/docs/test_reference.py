"""The reference has every public name, once, and no other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import wsclient
import wsclient.testing

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

# What makes a name appear on a page: Sphinx' autoclass and its kin, and `value` of docs/_ext.py.
DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|value):: (wsclient(?:\.testing)?)\.(\w+)$", re.MULTILINE)


def documented() -> Counter[tuple[str, str]]:
    pages = [page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md")]
    return Counter(found for page in pages for found in DIRECTIVE.findall(page))


@pytest.mark.parametrize("module", [wsclient, wsclient.testing], ids=lambda module: module.__name__)
def test_reference_has_every_public_name_and_no_other(module: ModuleType) -> None:
    names = {name for module_name, name in documented() if module_name == module.__name__}

    assert sorted(module.__all__) == sorted(names)


def test_reference_says_everything_once() -> None:
    assert [] == [name for name, count in documented().items() if count > 1]


def test_every_page_of_the_documentation_is_in_a_table_of_contents() -> None:
    for index in sorted(REFERENCE.parent.rglob("index.md")):
        text = index.read_text(encoding="utf-8")
        if ":glob:" in text or index.parent == REFERENCE.parent:
            continue
        pages = {page.stem for page in index.parent.glob("*.md")} - {"index"}

        assert pages <= set(text.split()), index
