"""Virtual environments in a cache folder: the peers, and wsclient built from this working tree.

An environment is filled anew when what goes into it has changed: the peers' requirements (the
dependency group ``bench`` in ``pyproject.toml``), or a file of the package.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

# What `pip install` reads: the package, and what its metadata names.
SOURCES: Final = ("wsclient", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE*")

PEERS: Final = "peers"
COMPILED: Final = "compiled"
PURE: Final = "pure"


def default_cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "wsclient-benchmarks")


@dataclass
class Environments:
    """The interpreters of the environments, each made when it is first asked for.

    Attributes:
        cache: Where they are.
        say: Told what takes long.
        given: Interpreters that are there already, by environment; ``None`` is for all others.
    """

    cache: Path
    say: Callable[[str], None]
    given: dict[str | None, Path]

    def python(self, name: str) -> Path:
        """The interpreter of an environment."""
        if (given := self.given.get(name, self.given.get(None))) is not None:
            return given
        folder = self.cache / f"{name}-{sys.implementation.cache_tag}"
        wanted = self._fingerprint(name)
        stamp = folder / "made-of"
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if not stamp.exists() or stamp.read_text() != wanted:
            self.say(f"making the environment {name} in {folder}")
            stamp.unlink(missing_ok=True)
            if not python.exists():
                subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            self._fill(name, python)
            stamp.write_text(wanted)
        self.given[name] = python
        return python

    def certificate(self) -> Path:
        """A folder with ``server.pem``, ``server.key`` and ``client.pem``, its authority's."""
        folder = self.cache / "certificate"
        if not (folder / "client.pem").exists():
            folder.mkdir(parents=True, exist_ok=True)
            command = [self.python(PEERS), "-m", "trustme", "-q", "-d", folder, "-i", "127.0.0.1"]
            subprocess.run(command, check=True)
        return folder

    def _fill(self, name: str, python: Path) -> None:
        if name == PEERS:
            _pip(python, *requirements())
            return
        with tempfile.TemporaryDirectory() as copy:
            # Building leaves files behind, and the next build would take them for sources.
            for source in _sources():
                target = Path(copy, source.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            # With what decodes into types: bots are measured with it.
            _pip(python, f"{copy}[msgspec]", WSCLIENT_PURE="1" if name == PURE else "")

    def _fingerprint(self, name: str) -> str:
        digest = hashlib.sha256(f"{name} {sys.version} ".encode())
        if name == PEERS:
            digest.update(repr(requirements()).encode())
        else:
            for source in _sources():
                digest.update(str(source.relative_to(ROOT)).encode())
                digest.update(source.read_bytes())
        return digest.hexdigest()


def requirements() -> list[str]:
    """What the peers' environment holds."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[str] = settings["dependency-groups"]["bench"]
    return found


def _sources() -> list[Path]:
    made = (".pyc", ".so", ".pyd", ".c")  # by compilers, here or elsewhere
    found = [path for pattern in SOURCES for path in ROOT.glob(pattern)]
    files = [file for path in found for file in ([path] if path.is_file() else path.rglob("*"))]
    return sorted(file for file in files if file.is_file() and file.suffix not in made)


def _pip(python: Path, *requirements: str, **variables: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "WSCLIENT_PURE"}
    environment.update({name: value for name, value in variables.items() if value})
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *requirements], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stderr}")
