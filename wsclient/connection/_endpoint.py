"""Where a connection ends: addresses of sockets, and names for people."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import trio


class Endpoint:
    """The address of one end of a TCP connection.

    Args:
        address: An IP address.
        port: A TCP port.
        is_ssl: Whether TLS is in use.
    """

    def __init__(self, address: str | int, port: int, is_ssl: bool) -> None:
        self.address: IPv4Address | IPv6Address = ip_address(address)
        self.port: int = port
        self.is_ssl: bool = is_ssl

    @property
    def url(self) -> str:
        """The endpoint as a URL; the scheme's default port is left out, IPv6 is bracketed."""
        return origin(str(self.address), self.port, secure=self.is_ssl)

    def __repr__(self) -> str:
        return f'Endpoint(address="{self.address}", port={self.port}, is_ssl={self.is_ssl})'


def host_header(host: str, port: int, *, secure: bool) -> str:
    """The ``Host`` header's value (RFC 9110 §7.2): IPv6 is bracketed, the default port left out."""
    return _bracketed(host) if port == (443 if secure else 80) else authority(host, port)


def authority(host: str, port: int) -> str:
    """Host and port; IPv6 is bracketed."""
    return f"{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    if ":" not in host or host.startswith("["):
        return host
    # A zone means something on this machine only, and goes no further (RFC 6874 §1).
    return f"[{host.partition('%')[0]}]"


def origin(host: str, port: int, *, secure: bool) -> str:
    """Scheme, host and port: how an endpoint is called in logs and errors.

    Never more of a URL: the path and the query are where services put their keys.
    """
    return f"{'wss' if secure else 'ws'}://{host_header(host, port, secure=secure)}"


def stream_endpoint(
    stream: trio.abc.Stream, *, local: bool, is_ssl: bool = False
) -> Endpoint | str:
    """One end of ``stream``: an :class:`Endpoint` for TCP, its description for anything else."""
    is_ssl = is_ssl or isinstance(stream, trio.SSLStream)
    transport = stream
    while isinstance(transport, trio.SSLStream):  # Twice, through a proxy with TLS.
        transport = transport.transport_stream
    if isinstance(transport, trio.SocketStream):
        socket = transport.socket
        if socket.family in (trio.socket.AF_INET, trio.socket.AF_INET6):
            address, port, *_ = socket.getsockname() if local else socket.getpeername()
            # An IPv6 address may come with its zone: fe80::1%eth0.
            return Endpoint(address.partition("%")[0], port, is_ssl)
    return repr(stream)
