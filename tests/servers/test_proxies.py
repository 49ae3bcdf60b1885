"""Proxies that this project did not write connect us, over real sockets."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import wsclient

PROGRAM = Path(__file__).parent / "programs" / "pproxy_server.py"

pytest.importorskip("pproxy", reason="pproxy is not installed")
pytest.importorskip("python_socks", reason="wsclient[proxy] is not installed")


@asynccontextmanager
async def program(*command: str) -> AsyncIterator[trio.Process]:
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.send_signal(signal.SIGKILL)
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


@asynccontextmanager
async def pproxy(*credentials: str) -> AsyncIterator[int]:
    async with program(sys.executable, str(PROGRAM), *credentials) as process:
        said = b""
        while b"\n" not in said:
            assert process.stdout is not None
            chunk = await process.stdout.receive_some()
            assert chunk, "pproxy did not start"
            said += chunk
        yield int(said.split()[-1])


async def echo_through(server, proxy, tls):
    for url, context in (
        (f"ws://127.0.0.1:{server.port}/echo", None),
        (f"wss://localhost:{server.tls_port}/echo", tls.client),
    ):
        async with wsclient.open_websocket_url(url, context, proxy=proxy) as connection:
            await connection.send_message("x" * 200_000)

            assert "x" * 200_000 == await connection.get_message()


# It does not know SOCKS4's extension for names, 4a.
@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5", "socks5h"])
async def test_pproxy_connects_us(server, tls, scheme):
    async with pproxy() as port:
        await echo_through(server, f"{scheme}://127.0.0.1:{port}", tls)


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_pproxy_takes_our_credentials_and_no_others(server, tls, scheme):
    async with pproxy("user:p@ss w") as port:
        # Those first: it remembers for a while whom it has once let in.
        for credentials in ("user:wrong@", ""):
            proxy = f"{scheme}://{credentials}127.0.0.1:{port}"
            with pytest.raises(wsclient.ProxyError) as caught:
                async with wsclient.open_websocket_url(
                    f"ws://127.0.0.1:{server.port}/echo", proxy=proxy, connect_timeout=10
                ):
                    pass

            assert f"{scheme}://127.0.0.1:{port}" in str(caught.value)
        await echo_through(server, f"{scheme}://user:p%40ss%20w@127.0.0.1:{port}", tls)


async def test_pproxy_of_the_environment_connects_us(server, tls, monkeypatch):
    async with pproxy() as port:
        for name in ("WS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv("all_proxy", f"socks5://127.0.0.1:{port}")
        await echo_through(server, True, tls)
        monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.0/8,localhost")
        await echo_through(server, True, tls)


MICROSOCKS = shutil.which("microsocks")
TINYPROXY = shutil.which("tinyproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


async def wait_listening(port: int) -> None:
    with trio.fail_after(10):
        while True:
            try:
                await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", port))
            except OSError:
                await trio.sleep(0.05)
            else:
                return


@pytest.mark.skipif(MICROSOCKS is None, reason="microsocks is not installed")
async def test_microsocks_connects_us(server, tls, take_port):
    port = take_port()
    options = ("-i", "127.0.0.1", "-p", str(port), "-u", "user", "-P", "pw")
    async with program(MICROSOCKS, *options):
        await wait_listening(port)
        await echo_through(server, f"socks5h://user:pw@127.0.0.1:{port}", tls)


@pytest.mark.skipif(TINYPROXY is None, reason="tinyproxy is not installed")
async def test_tinyproxy_connects_us(server, tls, tmp_path, take_port):
    port = take_port()
    configuration = tmp_path / "tinyproxy.conf"
    configuration.write_text(
        f"Port {port}\nListen 127.0.0.1\nBasicAuth user pw\nLogLevel Error\n", encoding="ascii"
    )
    async with program(TINYPROXY, "-d", "-c", str(configuration)):
        await wait_listening(port)
        await echo_through(server, f"http://user:pw@127.0.0.1:{port}", tls)
        with pytest.raises(wsclient.ProxyError, match="HTTP 407") as caught:
            async with wsclient.open_websocket_url(
                f"ws://127.0.0.1:{server.port}/echo", proxy=f"http://127.0.0.1:{port}"
            ):
                pass

        assert 407 == caught.value.status_code
