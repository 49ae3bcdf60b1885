"""Asking an HTTP proxy for a tunnel (RFC 9110 §9.3.6), from the client's side."""

from __future__ import annotations

import base64

from wsclient.errors import InvalidUpgrade, ProxyError
from wsclient.options import MAX_HEAD_SIZE, MAX_HEADERS

from ._head import HeadReader


class TunnelHandshake:
    """One ``CONNECT``: send the request, feed the answer until the tunnel stands.

    Args:
        proxy: How the proxy is called in errors.
        authority: Host and port to connect to; IPv6 bracketed.
        credentials: ``user:password``, if the proxy wants some.
        user_agent: The ``User-Agent`` header; ``None`` sends none.
        max_head_size: Bytes of the answer's head.
        max_headers: Headers of the answer.
    """

    def __init__(
        self,
        proxy: str,
        authority: str,
        *,
        credentials: bytes | None = None,
        user_agent: str | None = None,
        max_head_size: int = MAX_HEAD_SIZE,
        max_headers: int = MAX_HEADERS,
    ) -> None:
        self._proxy = proxy
        self._authority = authority
        self._credentials = credentials
        self._user_agent = user_agent
        self._reader = HeadReader(
            f"the proxy {proxy}", max_size=max_head_size, max_headers=max_headers
        )

    def send_request(self) -> bytes:
        """The request for a tunnel."""
        authority = self._authority.encode("ascii")
        lines = [b"CONNECT " + authority + b" HTTP/1.1", b"Host: " + authority]
        if self._user_agent is not None:
            lines.append(b"User-Agent: " + self._user_agent.encode("ascii"))
        if self._credentials is not None:
            # RFC 7617; base 64 leaves no character that could end the line.
            lines.append(b"Proxy-Authorization: Basic " + base64.b64encode(self._credentials))
        return b"\r\n".join([*lines, b"", b""])

    def receive_data(self, data: bytes) -> bool:
        """Take what one read brought; return whether the tunnel stands.

        Raises:
            ProxyError: The proxy refuses, or its answer breaks the rules.
        """
        self._reader.receive_data(data)
        try:
            while (head := self._reader.take_head()) is not None:
                if head.status >= 200:
                    break
                self._reader.count_interim()
        except InvalidUpgrade as error:
            raise ProxyError(str(error)) from None
        if head is None:
            return False
        # Any 2xx (RFC 9110 §9.3.6), under any HTTP/1: some proxies speak 1.0.
        if head.status >= 300:
            # Not its reason phrase: that is a stranger's text.  Not its body: it is for browsers.
            raise ProxyError(
                f"the proxy {self._proxy} refused to connect: HTTP {head.status}", head.status
            )
        if self._reader.take_rest():
            # A server speaks when it is spoken to, and so far nobody has.
            raise ProxyError(f"the proxy {self._proxy} sent data behind its answer")
        return True

    def receive_eof(self) -> None:
        """Take the end of the stream.

        Raises:
            ProxyError: Always: the answer is not whole.
        """
        where = "inside its answer" if self._reader.is_inside else "before it answered"
        raise ProxyError(f"the proxy {self._proxy} closed the connection {where}") from EOFError(
            "end of stream in the proxy's handshake"
        )
