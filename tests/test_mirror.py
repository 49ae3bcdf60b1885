"""tests/ mirrors wsclient/: whoever changes a module knows where its tests are."""

from __future__ import annotations

from pathlib import Path

import wsclient

PACKAGE = Path(wsclient.__file__).parent
TESTS = Path(__file__).parent


def test_every_module_has_a_test_module_of_its_own() -> None:
    modules = [
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    mirrors = {module: module.parent / f"test_{module.stem.lstrip('_')}.py" for module in modules}

    assert len(modules) > 20
    assert [] == sorted(str(at) for at in mirrors.values() if not (TESTS / at).exists())
