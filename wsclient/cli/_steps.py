"""Opening a connection step by step, to see which of them fails, and what each takes.

It is what a channel does, in slow motion: one thing after the other, and each with a time limit of
its own.  A channel tries several addresses beside one another; here they come in turn.
"""

from __future__ import annotations

import base64
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

import attrs
import trio

import wsclient

from ._text import count, milliseconds

NAMES: Final = ("resolve", "connect", "TLS", "upgrade", "ping", "close")
"""The steps, in order; TLS for ``wss:`` only."""

FAREWELL: Final = 2.0
"""Seconds in which a server should answer a close frame."""

_SOON: Final = 30
"""Days: a certificate that ends within them is worth a word."""

_NAMES: Final = 3
"""Of a certificate, in a line."""

_ADDRESSES: Final = 8


@attrs.frozen(kw_only=True)
class Step:
    """One step that was made."""

    name: str
    """One of :data:`NAMES`."""
    seconds: float
    is_ok: bool
    text: str
    """What was found, in a line."""
    notes: tuple[str, ...] = ()
    """What else is worth a word, each a line."""
    values: dict[str, Any] = attrs.field(factory=dict)
    """The same for machines."""


@attrs.frozen(kw_only=True)
class Goal:
    """What to connect to."""

    host: str
    """ASCII; IPv6 without brackets."""
    port: int
    resource: str = attrs.field(repr=False)
    is_secure: bool
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    subprotocols: tuple[str, ...]

    @property
    def endpoint(self) -> str:
        """Scheme, host and port: safe to print."""
        return f"{'wss' if self.is_secure else 'ws'}://{self._bracketed}:{self.port}"

    @property
    def host_header(self) -> str:
        """The ``Host`` header (RFC 6455 §4.1): with the port where it is not the usual one."""
        usual = 443 if self.is_secure else 80
        return self._bracketed if self.port == usual else f"{self._bracketed}:{self.port}"

    @property
    def names(self) -> tuple[str, ...]:
        """The steps there are."""
        return tuple(name for name in NAMES if name != "TLS" or self.is_secure)

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def goal_from(url: str, headers: Iterable[tuple[str, str]], subprotocols: Iterable[str]) -> Goal:
    """Take a URL apart.

    Raises:
        ValueError: The URL, a header or a subprotocol cannot be used; no text quotes the URL.
    """
    headers, subprotocols = tuple(headers), tuple(subprotocols)
    options = wsclient.ConnectionOptions(subprotocols=subprotocols, extra_headers=headers)
    # What cannot be used is refused as it is everywhere.
    wsclient.open_channel(url, connection=options, observers=())
    parts = urlsplit(url)
    assert parts.hostname is not None
    host = parts.hostname
    is_secure = parts.scheme == "wss"
    has_credentials = any(name.lower() == "authorization" for name, _ in headers)
    if (parts.username or parts.password) and not has_credentials:
        user, password = (unquote_to_bytes(part or "") for part in (parts.username, parts.password))
        basic = base64.b64encode(user + b":" + password).decode("ascii")
        headers = (*headers, ("Authorization", f"Basic {basic}"))
    return Goal(
        host=host if host.isascii() else host.encode("idna").decode("ascii"),
        port=parts.port or (443 if is_secure else 80),
        resource=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        is_secure=is_secure,
        headers=headers,
        subprotocols=subprotocols,
    )


class Listener(Protocol):
    """Told of the steps, as they are made."""

    def begin(self, name: str) -> None:
        """A step begins."""

    def end(self, step: Step) -> None:
        """It is over."""


class StepFailed(Exception):
    """A step has failed.

    Args:
        step: Its name.
        error: What a channel would have got.
    """

    def __init__(self, step: str, error: wsclient.WebSocketError) -> None:
        super().__init__(step, error)
        self.step = step
        self.error = error


class Examination:
    """Opens one connection, asks it, and closes it.

    Args:
        goal: What to connect to.
        pings: How many to send.
        timeout: Seconds for each step, and for each ping.
        listener: Told of it.
    """

    def __init__(self, goal: Goal, *, pings: int, timeout: float, listener: Listener) -> None:
        self._goal = goal
        self._pings = pings
        self._timeout = timeout
        self._listener = listener
        self._messages = 0

    async def run(self) -> None:
        """Make the steps.

        Raises:
            StepFailed: One has failed; the listener has been told.
        """
        addresses = await self._resolve()
        stream: trio.abc.Stream = await self._connect(addresses)
        try:
            if self._goal.is_secure:
                stream = await self._secure(stream)
            async with trio.open_nursery() as nursery:
                try:
                    connection = await self._upgrade(nursery, stream)
                    nursery.start_soon(self._receive, connection)
                    await self._ping(connection)
                    await self._close(connection)
                finally:
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            # It has a nursery of its own, and what fails in it is one thing.
            raise group.exceptions[0] from group.exceptions[0].__cause__
        finally:
            await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[_Found]:
        """One step: its time, its limit, and what it fails with."""
        self._listener.begin(name)
        began = trio.current_time()
        found = _Found()
        error: wsclient.WebSocketError | None = None
        try:
            yield found
        except wsclient.WebSocketError as raised:
            error = raised
        step = Step(
            name=name,
            seconds=trio.current_time() - began,
            is_ok=error is None,
            text=found.text if error is None else str(error),
            notes=tuple(found.notes),
            values=found.values,
        )
        self._listener.end(step)
        if error is not None:
            raise StepFailed(name, error) from error

    def _late(self) -> wsclient.ConnectionTimeout:
        return wsclient.ConnectionTimeout(f"no answer within {self._timeout:g} s")

    async def _resolve(self) -> list[str]:
        async with self._step("resolve") as found:
            with trio.move_on_after(self._timeout) as patience:
                try:
                    entries = await trio.socket.getaddrinfo(
                        self._goal.host, self._goal.port, type=trio.socket.SOCK_STREAM
                    )
                except OSError as error:
                    text = f"the host's name cannot be resolved: {error.strerror}"
                    raise _handshake_error(text, error) from error
            if patience.cancelled_caught:
                raise self._late()
            # In the system's order, each once.
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
            found.text = ", ".join(addresses)
            found.values = {"addresses": addresses}
        return addresses

    async def _connect(self, addresses: list[str]) -> trio.SocketStream:
        async with self._step("connect") as found:
            failures: list[str] = []
            stream = None
            for address in addresses[:_ADDRESSES]:
                try:
                    with trio.move_on_after(self._timeout):
                        stream = await trio.open_tcp_stream(address, self._goal.port)
                        break
                    failures.append(f"{address}: no answer within {self._timeout:g} s")
                except OSError as error:
                    failures.append(f"{address}: {_reason(error)}")
            found.values = {"failures": failures}
            if stream is None:
                raise _handshake_error("; ".join(failures), None)
            found.notes = failures
            # The last one that was tried; the socket does not know any more after a reset.
            found.text = f"{address}, port {self._goal.port}"
            found.values |= {"address": address, "port": self._goal.port}
        return stream

    async def _secure(self, stream: trio.abc.Stream) -> trio.SSLStream[Any]:
        async with self._step("TLS") as found:
            context = ssl.create_default_context()
            secured = trio.SSLStream(
                stream, context, server_hostname=self._goal.host, https_compatible=True
            )
            try:
                with trio.move_on_after(self._timeout) as patience:
                    await secured.do_handshake()
            except trio.BrokenResourceError as error:
                cause = error.__cause__ or error
                raise _handshake_error(_tls_reason(cause), cause) from cause
            if patience.cancelled_caught:
                raise self._late()
            certificate = describe_certificate(secured.getpeercert() or {}, time.time())
            cipher = secured.cipher()
            version = secured.version()
            found.text = f"{version}, {cipher[0]}"
            found.notes = [certificate.text, *certificate.notes]
            found.values = {
                "version": version,
                "cipher": cipher[0],
                "certificate": attrs.asdict(certificate),
            }
        return secured

    async def _upgrade(
        self, nursery: trio.Nursery, stream: trio.abc.Stream
    ) -> wsclient.WebSocketConnection:
        goal = self._goal
        async with self._step("upgrade") as found:
            with trio.move_on_after(self._timeout) as patience:
                connection = await wsclient.wrap_client_stream(
                    nursery,
                    stream,
                    goal.host_header,
                    goal.resource,
                    subprotocols=goal.subprotocols,
                    extra_headers=goal.headers,
                    compression=True,
                )
            if patience.cancelled_caught:
                raise self._late()
            # By their numbers: some services take a token for one.
            offered, chosen = len(goal.subprotocols), None
            if connection.subprotocol is not None:
                chosen = goal.subprotocols.index(connection.subprotocol) + 1
            found.text = f"subprotocol {chosen}" if chosen else "no subprotocol"
            if offered:
                found.text += f" of the {offered} offered"
            found.text += f"; {', '.join(connection.extensions) or 'no compression'}"
            for name, value in connection.handshake_headers:
                if name in (b"server", b"via", b"x-powered-by"):
                    found.notes.append(f"{name.decode()}: {value.decode('latin-1')}")
            found.values = {"subprotocol": chosen, "extensions": list(connection.extensions)}
        return connection

    async def _receive(self, connection: wsclient.WebSocketConnection) -> None:
        """Take what the server says: pongs come behind it."""
        try:
            while True:
                await connection.get_message()
                self._messages += 1
        except (wsclient.ConnectionClosed, trio.ClosedResourceError, trio.EndOfChannel):
            pass  # Whoever waits for a pong is told as well.

    async def _ping(self, connection: wsclient.WebSocketConnection) -> None:
        async with self._step("ping") as found:
            trips: list[float] = []
            for _ in range(self._pings):
                began = trio.current_time()
                with trio.move_on_after(self._timeout) as patience:
                    await connection.ping()
                if patience.cancelled_caught:
                    raise wsclient.HeartbeatTimeout(
                        f"no pong within {self._timeout:g} s, after {count(len(trips), 'pong')}"
                    )
                trips.append(trio.current_time() - began)
            low, middle, high = min(trips), statistics.median(trips), max(trips)
            found.text = (
                f"{milliseconds(low)} (min), {milliseconds(middle)} (median),"
                f" {milliseconds(high)} (max) of {len(trips)}"
            )
            found.values = {
                "pings": len(trips),
                "min": round(low, 6),
                "median": round(middle, 6),
                "max": round(high, 6),
            }

    async def _close(self, connection: wsclient.WebSocketConnection) -> None:
        async with self._step("close") as found:
            with trio.move_on_after(FAREWELL) as patience:
                await connection.aclose()
            is_answered = not patience.cancelled_caught
            found.text = "answered" if is_answered else f"not answered within {FAREWELL:g} s"
            if self._messages:
                found.notes.append(f"{count(self._messages, 'message')} came meanwhile")
            found.values = {"answered": is_answered, "messages": self._messages}


@attrs.define
class _Found:
    """What a step has found so far."""

    text: str = ""
    notes: list[str] = attrs.field(factory=list)
    values: dict[str, Any] = attrs.field(factory=dict)


def _handshake_error(text: str, cause: BaseException | None) -> wsclient.HandshakeError:
    error = wsclient.HandshakeError(text)
    error.__cause__ = cause
    return error


def _reason(error: OSError) -> str:
    """Why an address could not be reached; trio gives a group of reasons, here of one."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    return found.strerror or str(found)


def _tls_reason(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not to be trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}"
    return "the connection broke in the TLS handshake"


# --- the certificate ------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Certificate:
    """Whose it is, and for how long."""

    subject: str
    names: tuple[str, ...]
    """For which it holds."""
    issuer: str
    expires: str
    """When, as the certificate has it."""
    days: int
    """Until then; negative after it."""

    @property
    def text(self) -> str:
        """The same in a line."""
        names, more = self.names[:_NAMES], len(self.names) - _NAMES
        shown = ", ".join(names) + (f" and {more} more" if more > 0 else "")
        return f"certificate of {shown or self.subject}, by {self.issuer}, until {self.expires}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth a word."""
        is_near = self.days < _SOON
        return (f"the certificate expires in {count(self.days, 'day')}",) if is_near else ()


def describe_certificate(given: Any, now: float) -> Certificate:
    """Describe a certificate as Python's ``ssl`` module gives it.

    Args:
        given: Its dictionary.
        now: Unix time.
    """
    subject = _name(given.get("subject", ()))
    names = tuple(value for _, value in given.get("subjectAltName", ()))
    issuer = _name(given.get("issuer", ()))
    expires = given["notAfter"]
    days = int((ssl.cert_time_to_seconds(expires) - now) // (24 * 3600))
    return Certificate(
        subject=subject,
        names=names,
        issuer=issuer,
        expires=expires,
        days=days,
    )


def _name(parts: Iterable[Iterable[tuple[str, str]]]) -> str:
    """The most telling of a distinguished name's parts."""
    values = {key: value for part in parts for key, value in part}
    for key in ("commonName", "organizationName", "organizationalUnitName"):
        if key in values:
            return values[key]
    return "nobody"
