"""What each attempt at a connection asks for: credentials, the URL, headers.

They are functions because they do not keep: tokens expire, URLs are good for one use.  So they are
asked at every attempt, within its deadline, in this order: what the credentials' function has
fetched may be used by the other two, and by the ``on_connect`` hook.

What is given may be a secret.  Nothing here prints it, and no error quotes it.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

import attrs

from wsclient.connection import Target, failure_in, find_proxy, mistake_in, parse_url
from wsclient.errors import ProviderError
from wsclient.options import ConnectionOptions, Headers

UrlProvider: TypeAlias = Callable[[], Awaitable[str]]
"""An async function that gives the URL for one attempt."""

HeadersProvider: TypeAlias = Callable[[], Awaitable[Headers]]
"""An async function that gives headers for one attempt."""


class CredentialsProvider(Protocol):
    """An async function that gives the ``Authorization`` header for one attempt."""

    def __call__(self, *, fresh: bool) -> Awaitable[str | None]:
        """Give the header's value, such as ``"Bearer …"``; ``None`` for no header.

        Args:
            fresh: The server has refused what was given last: fetch it anew.
        """
        ...


class Address:
    """One of the places that a channel may connect to.

    Attributes:
        endpoint: Scheme, host and port; of a function that was never asked, its name.
        target: What the URL asks for, where no function gives it.
    """

    def __init__(self, url: object, ssl_context: ssl.SSLContext | None) -> None:
        self._ssl_context = ssl_context
        self._provider: UrlProvider | None = None
        self.target: Target | None = None
        # First of all: a traceback with locals asks for the repr of what is made here.
        self.endpoint = "?"
        if callable(url):
            self._provider = url
            self.endpoint = f"{_name(url)}()"
        else:
            # What a program is given by hand is told what may be meant; what a function gave is not
            # shown.
            if mistake := mistake_in(url):
                raise ValueError(mistake)
            self.target = parse_url(url, ssl_context)
            self._url = str(url)
            self.endpoint = self.target.endpoint

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.endpoint}>"

    async def url(self, options: ConnectionOptions) -> str:
        """The URL for an attempt.

        Raises:
            ProviderError: Its function has failed.
        """
        if self._provider is None:
            return self._url
        given = await _ask("url", self._provider)
        try:
            target = parse_url(given, self._ssl_context)
            check_way(target, options)
        except (TypeError, ValueError, ImportError) as error:
            raise _unusable("url", error) from None
        self.endpoint = target.endpoint
        return str(given)


@attrs.frozen(repr=False)
class Request:
    """What one attempt goes by."""

    url: str
    headers: tuple[tuple[bytes, bytes], ...]


class Access:
    """The functions of one channel, asked once for each attempt.

    Attributes:
        must_be_fresh: Whether the credentials' function is to be told so; until it has given some.
    """

    def __init__(
        self,
        headers: HeadersProvider | None,
        credentials: CredentialsProvider | None,
        options: ConnectionOptions,
    ) -> None:
        self._headers = headers
        self._credentials = credentials
        self._options = options
        self.must_be_fresh = False

    async def ask(self, address: Address) -> Request:
        """Ask for all that an attempt at ``address`` needs.

        Raises:
            ProviderError: A function has failed.
        """
        authorization = None
        if self._credentials is not None:
            fresh = self.must_be_fresh
            authorization = await _ask("credentials", self._credentials, fresh=fresh)
            self.must_be_fresh = False
        url = await address.url(self._options)
        given: Any = ()
        if self._headers is not None:
            given = await _ask("headers", self._headers)
        headers = _checked("headers", given)
        if authorization is not None:
            better = _checked("credentials", [("Authorization", authorization)])
            headers = _merged(headers, better)
        return Request(url, _merged(self._options.extra_headers, headers))


def check_way(target: Target, options: ConnectionOptions) -> None:
    """Refuse a way to ``target`` that cannot be taken: a proxy of the environment's, say.

    Raises:
        ValueError, ImportError: The proxy cannot be used.
    """
    find_proxy(options, target.host, target.port, secure=target.ssl_context is not False)


async def _ask(what: str, provider: Callable[..., Awaitable[Any]], **given: Any) -> Any:
    try:
        result: object = provider(**given)
        if inspect.isawaitable(result):
            return await result
    except BaseException as raised:  # A user's function may raise anything.
        error = failure_in(raised)
        if error is None:
            raise
        # Its type, and not its text: that of an HTTP client's error quotes the URL, say.
        raise ProviderError(f"the {what} function raised {type(error).__name__}") from error
    raise ProviderError(f"the {what} function must be async: its call gave nothing to await")


def _checked(what: str, headers: Any) -> tuple[tuple[bytes, bytes], ...]:
    try:
        return ConnectionOptions(extra_headers=headers).extra_headers
    except (TypeError, ValueError) as error:
        raise _unusable(what, error) from None


def _unusable(what: str, error: Exception) -> ProviderError:
    # Our own checks, whose texts quote no secret.
    return ProviderError(f"what the {what} function gave cannot be used: {error}")


def _merged(
    headers: tuple[tuple[bytes, bytes], ...], better: tuple[tuple[bytes, bytes], ...]
) -> tuple[tuple[bytes, bytes], ...]:
    """Both, but of a name that both have only the better ones."""
    names = {name.lower() for name, _ in better}
    return (*(header for header in headers if header[0].lower() not in names), *better)


def _name(function: object) -> str:
    # Not its repr, which may hold anything: a partial's shows its arguments.
    return getattr(function, "__qualname__", None) or type(function).__qualname__
