"""What a channel makes of a failure is what it does, and there is something to do about each."""

from __future__ import annotations

import ssl

import pytest

import wsclient
from wsclient import LossKind, Phase
from wsclient.cli._diagnosis import advice_for, diagnose, what_follows
from wsclient.session._policy import RULES

CANARY = "canary"


def loss(kind, **values):
    return wsclient.Loss(kind=kind, error=Exception("why"), **values)


def closed(code):
    return loss(LossKind.CLOSED, code=code)


def rejected(status, **values):
    return loss(LossKind.REJECTED, status=status, **values)


@pytest.mark.parametrize(
    ("of", "startup", "steady"),
    [
        (
            loss(LossKind.UNREACHABLE),
            "tries again, as long as it takes",
            "tries again, as long as it takes",
        ),
        (
            loss(LossKind.TLS_UNVERIFIED),
            "gives up at once",
            "tries again, 3 times, then gives up",
        ),
        (
            rejected(404),
            "gives up at once",
            "tries again, for 5 min 0 s, then gives up",
        ),
        (
            rejected(401),
            "tries again with fresh credentials, once, then gives up",
            "tries again with fresh credentials, once, then gives up",
        ),
        (rejected(302), "gives up at once", "gives up at once"),
        (
            rejected(503, retry_after=7.0),
            "tries again, not before 7.00 s, as the server asks, as long as it takes",
            "tries again, not before 7.00 s, as the server asks, as long as it takes",
        ),
        (
            closed(1013),
            "tries again at the next endpoint after 15.25 to 30.25 s, as long as it takes",
            "tries again at the next endpoint after 15.25 to 30.25 s, as long as it takes",
        ),
        (
            closed(1002),
            "tries again, twice, then gives up",
            "tries again, twice, then gives up",
        ),
    ],
)
def test_what_follows_is_told_for_both_phases(of, startup, steady):
    assert (startup, steady) == (what_follows(of, Phase.STARTUP), what_follows(of, Phase.STEADY))


EVERY = [
    *(loss(kind) for kind in LossKind if kind not in (LossKind.REJECTED, LossKind.CLOSED)),
    *(rejected(status) for status in range(100, 600) if status != 101),
    *(closed(code) for code in range(1000, 5000)),
]


@pytest.mark.parametrize("phase", Phase)
def test_whatever_is_fatal_at_once_and_nothing_else_gives_up_at_once(phase):
    told = {
        (isinstance(wsclient.classify(of, phase), wsclient.Fatal), text == "gives up at once")
        for of in EVERY
        for text in [what_follows(of, phase)]
    }

    assert {(True, True), (False, False)} == told


ERRORS = [
    (wsclient.HandshakeError("refused"), "unreachable"),
    (wsclient.ConnectionRejected(404), "HTTP status"),
    (wsclient.ConnectionRejected(302), "HTTP 3xx"),
    (wsclient.ConnectionRejected(503), "HTTP 408, 425, 429 or 5xx"),
    (wsclient.InvalidUpgrade("no"), "not a WebSocket server"),
    (wsclient.HeartbeatTimeout("silent"), "no sign of life"),
    (wsclient.ConnectionClosed(wsclient.CloseReason(3003, None)), "close 3003"),
    (wsclient.ConnectionClosed(wsclient.CloseReason(1008, None)), "close 1008 or 3000"),
]


@pytest.mark.parametrize(("error", "rule"), ERRORS, ids=[rule for _, rule in ERRORS])
def test_the_rule_is_named_as_the_policy_names_it(error, rule):
    diagnosis = diagnose(error, step="upgrade", is_secure=True)

    assert rule in RULES
    assert (rule, str(error)) == (diagnosis.rule, diagnosis.error)


def test_a_certificate_is_told_from_other_trouble_with_tls():
    kinds = []
    for cause in (ssl.SSLCertVerificationError("no"), ssl.SSLError("no")):
        error = wsclient.HandshakeError("TLS")
        error.__cause__ = cause
        kinds.append(diagnose(error, step="TLS", is_secure=True).kind)

    assert ["TLS certificate not verified", "TLS failed"] == kinds


# --- what to do ---------------------------------------------------------------------------------


def test_there_is_something_to_do_about_whatever_a_step_can_meet():
    never = (LossKind.NOT_PROVIDED, LossKind.NOT_ESTABLISHED)  # A doctor has no functions.
    for of in EVERY:
        if of.kind not in never:
            assert len(advice_for(of, step="upgrade", is_secure=True)) > 20


@pytest.mark.parametrize(
    ("of", "step", "is_secure", "text"),
    [
        (loss(LossKind.UNREACHABLE), "connect", True, "see that the server runs"),
        (loss(LossKind.UNREACHABLE), "TLS", True, "it may not speak TLS: try ws://"),
        (loss(LossKind.TLS_FAILED), "TLS", True, "it may not speak TLS: try ws://"),
        (loss(LossKind.UNREACHABLE), "upgrade", True, "whether it speaks WebSocket"),
        (loss(LossKind.UNREACHABLE), "upgrade", False, "WebSocket, without TLS"),
        (loss(LossKind.INVALID_UPGRADE), "upgrade", False, "the URL begins with wss://"),
        (loss(LossKind.INVALID_UPGRADE), "upgrade", True, "drops the Upgrade header"),
        (closed(1008), "ping", True, "see that the credentials are good"),
        (closed(1011), "ping", True, "look for the reason at the server"),
        (rejected(401), "upgrade", True, "give credentials"),
        (rejected(400), "upgrade", True, "drops the Upgrade header"),
        (rejected(503), "upgrade", True, "look at the server"),
    ],
)
def test_the_advice_is_for_what_has_happened(of, step, is_secure, text):
    assert text in advice_for(of, step=step, is_secure=is_secure)


@pytest.mark.parametrize(
    ("location", "text"),
    [
        (b"https://u:canary@other.example:8443/canary?canary", "at https://other.example:8443;"),
        (b"/elsewhere/canary", "use the URL that it redirects to;"),
        (b"https://[canary/", "use the URL that it redirects to;"),
        (None, "use the URL that it redirects to;"),
    ],
)
@pytest.mark.parametrize("is_caused", [False, True])
def test_a_redirect_is_told_as_far_as_it_can_be_no_secret(location, text, is_caused):
    headers = ((b"server", b"x"),) if location is None else ((b"location", location),)
    error = wsclient.ConnectionRejected(302, headers)
    if is_caused:
        cause, error = error, wsclient.HandshakeError("too many redirects")
        error.__cause__ = cause
    advice = diagnose(error, step="upgrade", is_secure=True).advice

    assert text in advice
    assert CANARY not in advice
