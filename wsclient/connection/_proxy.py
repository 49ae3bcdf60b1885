"""Proxies: which one, and how it is asked to connect us.

An HTTP proxy is asked here.  A SOCKS proxy is asked by python-socks, over a stream that stays
ours: it is opened like any other, and closed by us whatever happens.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import attrs
import trio

from wsclient.errors import HandshakeError, ProxyError
from wsclient.options import PROXY_PORTS, ConnectionOptions, check_proxy, proxy_origin, unbracketed
from wsclient.protocol import TunnelHandshake

from ._endpoint import authority
from ._socket import reason


@attrs.frozen
class Proxy:
    """A proxy."""

    scheme: str
    host: str
    port: int
    username: str | None = attrs.field(repr=False)
    """As in the URL: percent-encoded."""
    password: str | None = attrs.field(repr=False)
    name: str
    """Scheme, host and port: safe to print."""


def parse_proxy(url: str) -> Proxy:
    """Take the URL of a proxy apart.

    Raises:
        ValueError: It cannot be used.
        ImportError: It needs a package that is not installed.
    """
    parts = urlsplit(check_proxy(url))
    assert parts.hostname is not None
    return Proxy(
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port or PROXY_PORTS[parts.scheme],
        username=parts.username or None,
        password=parts.password or None,
        name=proxy_origin(url),
    )


def find_proxy(options: ConnectionOptions, host: str, port: int, *, secure: bool) -> Proxy | None:
    """The proxy that ``options`` ask for, or that the environment does if they leave it to it.

    Raises:
        ValueError: What the environment names cannot be used.
        ImportError: It needs a package that is not installed.
    """
    if isinstance(options.proxy, str):
        return parse_proxy(options.proxy)
    return _from_environment(host, port, secure=secure) if options.proxy else None


def _from_environment(host: str, port: int, *, secure: bool) -> Proxy | None:
    # Here, because few need it, and it brings all of http.client along.
    from urllib.request import getproxies, getproxies_environment, proxy_bypass

    proxies = getproxies_environment()
    if proxies:
        # urllib's own knows neither networks nor ports.
        bypassed = is_bypassed(host, port, proxies.get("no", ""))
    else:
        # macOS and Windows have settings, which list what is left out in their own way.
        proxies = getproxies()
        bypassed = bool(proxies) and bool(proxy_bypass(host))
    if bypassed:
        return None
    for name in ("wss" if secure else "ws", "socks", "all", "https", "http"):
        url = proxies.get(name)
        if not url:
            continue
        try:
            return parse_proxy(url if "://" in url else f"http://{url}")
        except (ValueError, ImportError) as error:
            raise type(error)(f"{name}_proxy in the environment: {error}") from None
    return None


def is_bypassed(host: str, port: int, no_proxy: str) -> bool:
    """Whether ``no_proxy`` lists ``host``.

    It lists, between commas: ``*``, names (with all that is below them, with or without a dot in
    front), addresses and networks (``10.0.0.0/8``), each with a port or without.
    """
    return any(
        _matches(entry, host, port) for entry in no_proxy.lower().split(",") if entry.strip()
    )


def _matches(entry: str, host: str, port: int) -> bool:
    name, listed_port = _split_port(entry.strip())
    if listed_port is not None and listed_port != str(port):
        return False
    if name == "*":
        return True
    address = _address(host)
    if address is not None:
        network = _network(name)
        return network is not None and address in network
    name = name.removeprefix("*").strip(".")
    host = host.lower().rstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _split_port(entry: str) -> tuple[str, str | None]:
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, rest.removeprefix(":") or None
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, None  # Several colons are an address of IPv6.


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


async def ask_for_tunnel(
    stream: trio.abc.Stream, proxy: Proxy, host: str, port: int, options: ConnectionOptions
) -> None:
    """Have ``proxy``, at the other end of ``stream``, connect us to ``host`` and ``port``.

    The stream is left open, whatever happens.

    Raises:
        ProxyError: It does not.
        HandshakeError: A name that the proxy cannot look up (SOCKS4) cannot be looked up here.
    """
    try:
        if proxy.scheme.startswith("socks"):
            await _ask_socks(stream, proxy, host, port)
        else:
            await _ask_http(stream, proxy, host, port, options)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise ProxyError(f"the connection to the proxy {proxy.name} broke") from (
            error.__cause__ or error
        )


async def _ask_http(
    stream: trio.abc.Stream, proxy: Proxy, host: str, port: int, options: ConnectionOptions
) -> None:
    credentials: bytes | None = None
    if proxy.username or proxy.password:
        user, password = (unquote_to_bytes(part or "") for part in (proxy.username, proxy.password))
        credentials = user + b":" + password
    handshake = TunnelHandshake(
        proxy.name,
        authority(host, port),
        credentials=credentials,
        user_agent=options.user_agent,
        max_head_size=options.max_head_size,
        max_headers=options.max_headers,
    )
    await stream.send_all(handshake.send_request())
    while True:
        data = bytes(await stream.receive_some())
        if not data:
            handshake.receive_eof()
        elif handshake.receive_data(data):
            return


async def _ask_socks(stream: trio.abc.Stream, proxy: Proxy, host: str, port: int) -> None:
    import python_socks
    from python_socks.async_.trio import v2

    opened = _OpenedStream(stream)
    instead: Any = opened
    socks = v2.Proxy(
        python_socks.ProxyType.SOCKS4
        if proxy.scheme.startswith("socks4")
        else python_socks.ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        unquote(proxy.username or ""),
        unquote(proxy.password or ""),
        # socks5:// leaves names to the proxy, too: asking our own resolver would tell it where
        # we go, which is what many use a SOCKS proxy to avoid.
        rdns=proxy.scheme != "socks4",
        # Instead of a connection that python-socks would open.
        forward=instead,
    )
    try:
        # The deadline is our caller's.
        await socks.connect(unbracketed(host).partition("%")[0], port, timeout=math.inf)
    except python_socks.ProxyError as error:
        raise ProxyError(
            f"the proxy {proxy.name} refused to connect: {error}",
            _socks_status(bytes(opened.received), error.error_code),
        ) from error
    except EOFError as error:
        raise ProxyError(
            f"the proxy {proxy.name} closed the connection before it connected us"
        ) from error
    except OSError as error:
        raise HandshakeError(f"cannot look up {host}: {reason(error)}") from error
    except ValueError as error:
        raise ProxyError(f"the proxy {proxy.name} sent an answer that cannot be read") from error


def _socks_status(received: bytes, code: int | None) -> int | None:
    """The HTTP status that means the same as a refusal by a SOCKS proxy."""
    # RFC 1928 §3, RFC 1929 §2: still at the method, or at the password.
    if received[:1] == b"\x05" and len(received) <= 4 and received[1:2] != b"\x00":
        return 407
    # SOCKS4's "no identd" and "another user"; SOCKS5's "not allowed by ruleset".
    return {0x5C: 407, 0x5D: 407, 0x02: 403}.get(code or 0)


class _OpenedStream:
    """A stream as python-socks uses one, and in the place of the proxy that it would come from."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.received = bytearray()

    async def connect(self, dest_host: str, dest_port: int) -> Any:
        await trio.lowlevel.checkpoint()
        return self

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = await self._stream.receive_some(size - len(data))
            if not more:
                raise EOFError("end of stream in the proxy's handshake")
            data += more
            self.received += more
        return bytes(data)

    async def close(self) -> None:
        """Nothing: whoever has opened it closes it."""
        await trio.lowlevel.checkpoint()
