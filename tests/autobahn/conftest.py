"""The Autobahn test suite, unmodified: found or installed, and served.

It needs a Python 2.7: ``$PYTHON27``, ``python2.7`` on the path, or one of pyenv's.
The suite is installed once, into ``.autobahn`` beside the package.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import attrs
import pytest
import trio
import trustme

FOLDER: Final = ".autobahn"

BOOTSTRAP: Final = ["pip==20.3.4", "setuptools==44.0.0", "wheel==0.37.1"]
"""The last ones that run on Python 2.7."""

WHEELS: Final = [
    "Twisted==20.3.0",
    "zope.interface<6",
    "cryptography==3.3.2",
    "pyOpenSSL==19.1.0",
    "service_identity==18.1.0",
    "six",
    "jinja2==2.11.3",
    "MarkupSafe==1.1.1",
    "Werkzeug==1.0.1",
]
SOURCES: Final = [
    "txaio==2.1.0",
    "autobahn==0.10.9",
    "wsaccel==0.6.2",
    "unittest2==1.1.0",
    "traceback2",
    "linecache2",
    "argparse",
    "autobahntestsuite==25.10.1",
]
"""What is built here, without the dependencies that it names: those have left Python 2.7."""

PROGRAM: Final = Path(__file__).parent / "fuzzingserver.py"

STARTS_WITHIN: Final = 30.0
"""Seconds until the server listens."""


class NotAvailable(Exception):
    """The suite cannot be had here; the text says why."""


def find_python27() -> str:
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    candidates = [
        os.environ.get("PYTHON27"),
        shutil.which("python2.7"),
        *glob.glob(f"{pyenv}/versions/2.7.*/bin/python2.7"),
    ]
    for python in filter(None, candidates):
        # pyenv's shim is on the path even where it leads nowhere.
        try:
            check = subprocess.run([python, "-c", "import ssl, zlib"], capture_output=True)
        except OSError:
            continue
        if check.returncode == 0:
            return python
    raise NotAvailable(
        "the Autobahn test suite needs a Python 2.7: set PYTHON27, have python2.7 on the path,"
        " or let pyenv install one"
    )


def install(python27: str, folder: Path) -> None:
    """Install the suite and all that it needs into ``folder``, which appears when all is there."""

    def run(*command: str, path: Path | None = None) -> None:
        env = os.environ | {"PYTHONPATH": str(path or ""), "PYTHONWARNINGS": "ignore"}
        env.pop("PYTHONSAFEPATH", None)
        try:
            subprocess.run(
                command,
                env=env,
                check=True,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except subprocess.CalledProcessError as error:
            why = (error.stdout.strip().splitlines() or ["nothing was said"])[-1]
            raise NotAvailable(f"the Autobahn test suite could not be installed: {why}") from error

    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheels, site = Path(scratch, "wheels"), Path(scratch, "site")
        # Some Pythons come without pip; this one has one, which fetches the other's.
        run(
            *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels)),
            *("--python-version", "27", "--only-binary", ":all:", BOOTSTRAP[0]),
        )
        (pip,) = wheels.glob("pip-*.whl")
        into = ("install", "-q", "-t", str(site))
        run(python27, f"{pip}/pip", *into, *BOOTSTRAP)
        run(python27, "-m", "pip", *into, "--only-binary", ":all:", *WHEELS, path=site)
        # A namespace package, which only a true site-packages folder knows to be one.
        (site / "zope" / "__init__.py").touch()
        run(
            *(python27, "-m", "pip", *into, "--no-deps", "--no-build-isolation", *SOURCES),
            path=site,
        )
        site.rename(folder)


@attrs.frozen
class Server:
    """The suite's fuzzing server; every connection to it runs one case.

    Attributes:
        url: Where it listens, without a path.
        reports: The folder where it writes its reports.
    """

    url: str
    reports: Path


class Suite:
    """The suite, ready to be served."""

    def __init__(self, python27: str, site: Path, tls: Path) -> None:
        self._python27 = python27
        self._site = site
        self._tls = tls

    @asynccontextmanager
    async def serve(self, folder: Path, *, secure: bool = False) -> AsyncGenerator[Server, None]:
        """Serve all cases on a port of 127.0.0.1; reports and log go to ``folder``."""
        with socket.socket() as holder:
            # Bound, so that nobody else is given the port before the suite listens there.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            async with self._serve(holder.getsockname()[1], folder, secure=secure) as server:
                yield server

    @asynccontextmanager
    async def _serve(
        self, port: int, folder: Path, *, secure: bool
    ) -> AsyncGenerator[Server, None]:
        server = Server(f"{'wss' if secure else 'ws'}://127.0.0.1:{port}", folder)
        spec = {
            "url": server.url,
            "outdir": str(folder),
            "cases": ["*"],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        if secure:
            spec |= {"key": str(self._tls / "key.pem"), "cert": str(self._tls / "cert.pem")}
        spec_path, log_path = folder / "spec.json", folder / "log.txt"
        spec_path.write_text(json.dumps(spec))
        with log_path.open("wb") as log:
            process = await trio.lowlevel.open_process(
                [self._python27, "-u", str(PROGRAM), str(spec_path)],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(self._site), "PYTHONWARNINGS": "ignore"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            with trio.fail_after(STARTS_WITHIN):
                while not await listens(port):
                    assert process.returncode is None, log_path.read_text()
                    await trio.sleep(0.1)
            yield server
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()


async def listens(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """``folder``: a server's ``key.pem`` and ``cert.pem``; ``authority``: who signed it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    return SimpleNamespace(folder=folder, authority=authority)


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest, certificate: SimpleNamespace) -> Iterator[Suite]:
    """The suite; skips where it cannot be had."""
    site = request.config.rootpath / FOLDER / "site"
    try:
        python27 = find_python27()
        if not site.exists():
            install(python27, site)
    except NotAvailable as error:
        pytest.skip(str(error))
    return Suite(python27, site, certificate.folder)
