"""What each attempt asks for: in which order, and what a function that fails looks like."""

from __future__ import annotations

import functools

import pytest
import trio

from wsclient.errors import ProviderError
from wsclient.options import ConnectionOptions
from wsclient.session._access import Access, Address

OPTIONS = ConnectionOptions(extra_headers={"X-Fixed": "1", "X-Both": "old", "Authorization": "old"})
HOME = Address("ws://home.test/path?key=secret", None)


async def ask(*, headers=None, credentials=None, address=HOME, options=OPTIONS):
    return await Access(headers, credentials, options).ask(address)


async def test_s4_5_without_functions_an_attempt_goes_by_what_was_given_once():
    request = await ask()

    assert "ws://home.test/path?key=secret" == request.url
    assert OPTIONS.extra_headers == request.headers


async def test_s4_5_headers_that_a_function_gives_replace_those_of_the_same_name():
    async def headers():
        return {"x-both": "new", "X-More": "2"}

    request = await ask(headers=headers)

    assert (
        (b"X-Fixed", b"1"),
        (b"Authorization", b"old"),
        (b"x-both", b"new"),
        (b"X-More", b"2"),
    ) == request.headers


async def test_s4_5_credentials_become_the_authorization_header_whatever_else_gives_one():
    async def headers():
        return {"authorization": "from headers"}

    async def credentials(fresh):
        return "Bearer abc"

    request = await ask(headers=headers, credentials=credentials)

    assert [(b"Authorization", b"Bearer abc")] == [
        (name, value) for name, value in request.headers if name.lower() == b"authorization"
    ]


async def test_s4_5_credentials_may_be_none():
    async def credentials(fresh):
        return None

    assert OPTIONS.extra_headers == (await ask(credentials=credentials)).headers


async def test_s4_5_credentials_are_asked_first_so_that_the_others_can_use_them():
    order = []

    async def credentials(fresh):
        order.append("credentials")

    async def url():
        order.append("url")
        return "ws://home.test"

    async def headers():
        order.append("headers")
        return ()

    await ask(headers=headers, credentials=credentials, address=Address(url, None))

    assert ["credentials", "url", "headers"] == order


async def test_s4_5_credentials_are_told_once_that_they_must_be_fresh():
    told = []

    async def credentials(*, fresh):
        told.append(fresh)
        if len(told) == 2:
            raise LookupError("not now")

    access = Access(None, credentials, OPTIONS)
    await access.ask(HOME)
    access.must_be_fresh = True
    with pytest.raises(ProviderError):
        await access.ask(HOME)
    # It has not given any yet.
    await access.ask(HOME)
    await access.ask(HOME)

    assert [False, True, True, False] == told


async def test_an_endpoint_is_named_as_soon_as_its_function_has_told_it():
    async def where():
        return "wss://user:secret@there.test/path?secret"

    address = Address(where, None)

    assert address.endpoint.endswith("where()")
    await address.url(OPTIONS)

    assert "wss://there.test" == address.endpoint
    assert "<Address wss://there.test>" == repr(address)


def test_an_address_that_cannot_be_made_can_be_printed():
    """A traceback with its variables asks for it."""
    with pytest.raises(ValueError, match="no WebSocket URL") as caught:
        Address("http://server.test/", None)
    made = caught.value.__traceback__.tb_next.tb_frame.f_locals["self"]

    assert "<Address ?>" == repr(made)


def test_a_function_is_named_without_what_it_holds():
    async def where(key):
        return "ws://home.test"

    assert "partial()" == Address(functools.partial(where, "secret"), None).endpoint


def provider(action):
    async def provide(**_):
        return action()

    return provide


def fail():
    raise LookupError("secret")


def nothing(**_):
    return "ws://home.test"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (provider(fail), "the url function raised LookupError"),
        (nothing, "the url function must be async: its call gave nothing to await"),
        (lambda _: None, "the url function raised TypeError"),
        (provider(lambda: 3), "what the url function gave cannot be used: URL must be str, not "),
        (provider(lambda: "http://secret/"), 'cannot be used: WebSocket URL scheme must be "ws:"'),
        (provider(lambda: "ws://secret:x"), "what the url function gave cannot be used: URL is ma"),
    ],
)
async def test_a_url_function_that_fails_is_told_without_what_it_said(function, text):
    with pytest.raises(ProviderError) as caught:
        await ask(address=Address(function, None))

    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"X-Key": "secret\r\n"}, "the value of header 'X-Key' must not contain control"),
        (3, "what the headers function gave cannot be used: extra_headers must be"),
        ({"Upgrade": "x"}, "header 'Upgrade' is set by the handshake"),
    ],
)
async def test_headers_that_cannot_be_used_are_told_without_their_values(given, text):
    with pytest.raises(ProviderError) as caught:
        await ask(headers=provider(lambda: given))

    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_credentials_that_cannot_be_used_are_told_without_their_value():
    with pytest.raises(ProviderError, match="what the credentials function gave cannot be used"):
        await ask(credentials=provider(lambda: 3))


async def test_s7_1_what_a_function_raised_is_the_cause():
    with pytest.raises(ProviderError) as caught:
        await ask(headers=provider(fail))

    assert (LookupError, "secret") == (
        type(caught.value.__cause__),
        caught.value.__cause__.args[0],
    )


async def test_s7_2_a_function_that_fails_while_it_is_cancelled_has_failed():
    async def give_back():
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("secret")

    async def headers():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            nursery.start_soon(trio.sleep_forever)

    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(ProviderError, match="the headers function raised ExceptionGroup"):
            await ask(headers=headers)


async def test_what_is_no_exception_passes():
    with trio.CancelScope() as scope:
        scope.cancel()
        await ask(headers=trio.lowlevel.checkpoint)

    assert scope.cancelled_caught


async def test_a_proxy_of_the_environments_that_cannot_be_used_is_told(monkeypatch):
    monkeypatch.setenv("all_proxy", "gopher://proxy.test")
    options = ConnectionOptions(proxy=True)
    with pytest.raises(ProviderError, match="what the url function gave cannot be used: "):
        await ask(address=Address(provider(lambda: "ws://there.test"), None), options=options)
