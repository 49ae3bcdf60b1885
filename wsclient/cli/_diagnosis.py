"""What a channel would make of a failure, and what to do about it: pure computation."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import attrs

import wsclient

from ._text import seconds

_MANY: Final = 20
"""Repetitions after which a rule that counts them has long given up."""

_LONG: Final = 7 * 24 * 3600.0
"""Seconds; likewise."""


@attrs.frozen(kw_only=True)
class Diagnosis:
    """A failure, and what follows from it."""

    error: str
    kind: str
    """In which way it failed; a value of ``LossKind``."""
    rule: str
    """The rule that it falls under."""
    startup: str
    """What a channel that was never ready would do."""
    steady: str
    """What a channel that was ready before would do."""
    advice: str
    """What to do next."""


def diagnose(error: wsclient.WebSocketError, *, step: str, is_secure: bool) -> Diagnosis:
    """Say what a channel with the default policy would make of a failure.

    Args:
        error: What a channel would get.
        step: The one that failed.
        is_secure: Whether TLS was asked for.
    """
    loss = wsclient.loss_from(error)
    return Diagnosis(
        error=str(error),
        kind=loss.kind.value,
        rule=_rule(loss),
        startup=what_follows(loss, wsclient.Phase.STARTUP),
        steady=what_follows(loss, wsclient.Phase.STEADY),
        advice=advice_for(loss, step=step, is_secure=is_secure),
    )


def _rule(loss: wsclient.Loss) -> str:
    """The name of the rule; of one that is fatal at once, it stands before its reason."""
    for phase in (wsclient.Phase.STEADY, wsclient.Phase.STARTUP):
        decision = wsclient.classify(loss, phase)
        if isinstance(decision, wsclient.Retry):
            return decision.reason
    return decision.reason.partition(", fatal")[0]


def what_follows(loss: wsclient.Loss, phase: wsclient.Phase) -> str:
    """What ``classify`` decides, now and when it happens again, in words."""
    first = wsclient.classify(loss, phase)
    if isinstance(first, wsclient.Fatal):
        return "gives up at once"
    text = "tries again"
    if isinstance(first, wsclient.RetryFreshAuth):
        text += " with fresh credentials"
    elif isinstance(first, wsclient.NextEndpoint):
        text += " at the next endpoint"
    if first.delay is not None:
        text += f" after {first.delay[0]:g} to {first.delay[1]:g} s"
    if loss.retry_after is not None:
        text += f", not before {seconds(loss.retry_after)}, as the server asks"
    for repeated in range(2, _MANY):
        if _is_fatal(attrs.evolve(loss, repeated=repeated, since_stable=repeated), phase):
            times = {2: "once", 3: "twice"}.get(repeated, f"{repeated - 1} times")
            return f"{text}, {times}, then gives up"
    if _is_fatal(attrs.evolve(loss, repeated_for=_LONG), phase):
        return f"{text}, for {seconds(_patience(loss, phase))}, then gives up"
    return f"{text}, as long as it takes"


def _is_fatal(loss: wsclient.Loss, phase: wsclient.Phase) -> bool:
    return isinstance(wsclient.classify(loss, phase), wsclient.Fatal)


def _patience(loss: wsclient.Loss, phase: wsclient.Phase) -> float:
    """Seconds for which a loss is retried; to the second."""
    patient, fatal = 0.0, _LONG
    while fatal - patient > 0.5:
        middle = (patient + fatal) / 2
        if _is_fatal(attrs.evolve(loss, repeated_for=middle), phase):
            fatal = middle
        else:
            patient = middle
    return round(patient)


# --- what to do -----------------------------------------------------------------------------------

_BY_KIND: Final = {
    wsclient.LossKind.UNREACHABLE: (
        "see that the server runs and can be reached from here: its name, its port, a firewall,"
        " a proxy that is needed (doctor uses none)"
    ),
    wsclient.LossKind.TLS_UNVERIFIED: (
        "renew or mend the certificate; where its issuer is your own, let channels trust it:"
        " ssl_context=ssl.create_default_context(cafile=…), or SSL_CERT_FILE=… in the environment"
    ),
    wsclient.LossKind.TLS_FAILED: (
        "it may not speak TLS: try ws:// instead of wss://; or it speaks a version that is out of"
        " use"
    ),
    wsclient.LossKind.INVALID_UPGRADE: (
        "see that the URL is that of a WebSocket endpoint, and that no proxy before the server"
        " drops the Upgrade header"
    ),
    wsclient.LossKind.SILENT: (
        "if the server knows no pings, HeartbeatOptions(interval=math.inf) sends none, and a dead"
        " path is noticed later; otherwise see what holds it up"
    ),
    wsclient.LossKind.CLOSED: "look for the reason at the server: it has closed the connection",
}

_BY_STATUS: Final = {
    401: (
        "give credentials: user:password@ in the URL, a header (-H 'Authorization: …'), or in a"
        " program open_channel(…, credentials=…)"
    ),
    403: (
        "see that these credentials may do this; some servers want an Origin (-H 'Origin: …'), or"
        " refuse addresses"
    ),
    404: "see that the URL's path is right",
    407: "the proxy wants credentials: ConnectionOptions(proxy='http://user:password@…')",
    426: "the server wants another protocol or version; see its Upgrade header, and the URL",
    429: "there were too many attempts: leave it alone for a while, or ask for a higher limit",
}


def advice_for(loss: wsclient.Loss, *, step: str, is_secure: bool) -> str:
    """What to do next, in a sentence; arguments as for :func:`diagnose`."""
    if loss.status is not None:
        return _advice_for_status(loss.status, loss.error)
    if loss.kind is wsclient.LossKind.CLOSED and loss.code in (1008, 3000, 3003):
        return "see that the credentials are good, and may do this"
    is_plain = step == "upgrade" and not is_secure
    if loss.kind is wsclient.LossKind.UNREACHABLE and step == "TLS":
        return (
            "something listens there and does not answer; it may not speak TLS: try ws:// instead"
            " of wss://"
        )
    if loss.kind is wsclient.LossKind.UNREACHABLE and step == "upgrade":
        protocol = "WebSocket, without TLS" if is_plain else "WebSocket"
        return f"something listens there and does not answer: see whether it speaks {protocol}"
    if loss.kind is wsclient.LossKind.INVALID_UPGRADE and is_plain:
        return f"{_BY_KIND[loss.kind]}; if the port speaks TLS, the URL begins with wss://"
    return _BY_KIND[loss.kind]


def _advice_for_status(status: int, error: BaseException) -> str:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 300 <= status <= 399:
        where = _location(error)
        return (
            f"use the URL that it redirects to{f', at {where}' if where else ''};"
            " or ConnectionOptions(redirects=1) follows it"
        )
    if status >= 500:
        return "look at the server, and at the proxy before it: the failure is theirs"
    return (
        "see that the URL is that of a WebSocket endpoint, and that no proxy before the server"
        " drops the Upgrade header"
    )


def _location(error: Any) -> str:
    """Where a redirect leads: scheme, host and port, for the rest may be a secret."""
    rejected = error if isinstance(error, wsclient.ConnectionRejected) else error.__cause__
    for name, value in getattr(rejected, "headers", ()):
        if name == b"location":
            try:
                parts = urlsplit(value.decode("latin-1"))
            except ValueError:
                return ""
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""
    return ""
