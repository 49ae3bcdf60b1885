"""What a loss means: try again, or give up?

One pure function decides, from a table.  It knows two phases: at *startup* (the channel was never
ready) a refusal is most likely a mistake in the program, which should fail fast and say so; in
*steady* state the same refusal is most likely a deployment's blip, which should be ridden out.

Only our own close is final: servers send 1000 and 1001 when they are being deployed.
"""

from __future__ import annotations

import math
import ssl
from enum import Enum
from typing import Final, TypeAlias

import attrs

from wsclient.errors import (
    ConnectionClosed,
    ConnectionRejected,
    EstablishError,
    HandshakeError,
    HeartbeatTimeout,
    InvalidUpgrade,
    ProviderError,
    ProxyError,
)
from wsclient.events import LossKind

from ._clock import retry_after_seconds, wall_clock


class Phase(Enum):
    """Whether the channel was ever ready."""

    STARTUP = "startup"
    STEADY = "steady"


@attrs.frozen(kw_only=True)
class Loss:
    """How a connection, or an attempt at one, ended."""

    kind: LossKind
    error: BaseException
    """What a caller would have got."""
    status: int | None = None
    """The HTTP status of a refusal."""
    code: int | None = None
    """The close code."""
    retry_after: float | None = None
    """Seconds that the server asked us to stay away."""
    repeated: int = 1
    """How often in a row, this time included, a loss fell under the same rule; counted anew after
    a stable connection.  Close codes that have no rule of their own are counted by code."""
    repeated_for: float = 0.0
    """Seconds since the first of them."""
    since_stable: int = 1
    """How often a loss fell under the same rule since the last stable connection, this time
    included, in a row or not."""


@attrs.frozen
class Retry:
    """Connect again: at the next endpoint if there are several, and this one was not stable."""

    reason: str
    """Which rule says so."""
    delay: tuple[float, float] | None = attrs.field(default=None)
    """Seconds, at least and at most, between which chance picks, until this endpoint is tried
    again; others may be tried meanwhile.  ``None``: as the backoff says."""

    @delay.validator
    def _check_delay(self, _: object, delay: object) -> None:
        match delay:
            case None:
                return
            case (int() | float() as low, int() | float() as high) if 0 <= low <= high < math.inf:
                return
        raise ValueError(f"delay must be two numbers of seconds, (least, most), not {delay!r}")


@attrs.frozen
class RetryFreshAuth(Retry):
    """Connect again at the same endpoint, with credentials that are asked for anew."""


@attrs.frozen
class NextEndpoint(Retry):
    """Connect again, elsewhere if there are several endpoints, also if this one was stable."""


@attrs.frozen
class Fatal:
    """Give up: retrying would not help."""

    reason: str
    """Which rule says so."""


Decision: TypeAlias = Retry | RetryFreshAuth | NextEndpoint | Fatal
"""What a policy decides: one of these."""


@attrs.frozen
class _Patience:
    """How long a rule retries before it gives up."""

    times: float = math.inf
    seconds: float = math.inf

    def is_over(self, loss: Loss) -> bool:
        return loss.repeated > self.times or loss.repeated_for > self.seconds


_ALWAYS: Final = _Patience()
_NEVER: Final = _Patience(times=0)
_FIVE_MINUTES: Final = _Patience(seconds=300)

AT_THE_CAP: Final = (15.25, 30.25)
"""Seconds: what the default wait comes to after many failures."""

_SECOND_RESTART: Final = (5.0, 30.0)
_RESTARTS: Final = 3
"""Since a stable connection: so many may be a rolling deployment.  More are a loop, and waiting
17.5 s on average would be more than 40 connections in ten minutes now and then."""


@attrs.frozen
class Rule:
    """One row of the table."""

    name: str
    startup: _Patience
    steady: _Patience
    decision: type[Retry] = Retry


RULES: Final[dict[str, Rule]] = {
    rule.name: rule
    for rule in (
        # The server, or the road to it, may be better soon.
        Rule("unreachable", _ALWAYS, _ALWAYS),
        Rule("no sign of life", _ALWAYS, _ALWAYS),
        # Somebody renews a certificate, or somebody listens in: worth a few looks, not many.
        Rule("TLS certificate not verified", _NEVER, _Patience(times=3)),
        Rule("TLS failed", _NEVER, _FIVE_MINUTES),
        Rule("HTTP 401", _Patience(times=1), _Patience(times=1), RetryFreshAuth),
        Rule("HTTP 3xx", _NEVER, _NEVER),
        Rule("HTTP 408, 425, 429 or 5xx", _ALWAYS, _ALWAYS),
        Rule("HTTP status", _NEVER, _FIVE_MINUTES),
        Rule("not a WebSocket server", _NEVER, _FIVE_MINUTES),
        Rule("function for URL, headers or credentials failed", _NEVER, _ALWAYS),
        Rule("not established", _NEVER, _ALWAYS),
        # Not fatal: 1000, 1001, 1006, 1011…: a deployment, or a cut line.
        Rule("close code", _ALWAYS, _ALWAYS),
        Rule("close 1012", _ALWAYS, _ALWAYS),
        Rule("close 1013", _ALWAYS, _ALWAYS, NextEndpoint),
        # One of us breaks the rules; a third time it is not chance.
        Rule("close 1002, 1003, 1007, 1009 or 1010", _Patience(times=2), _Patience(times=2)),
        Rule("close 1008 or 3000", _Patience(times=1), _Patience(times=2), RetryFreshAuth),
        Rule("close 3003", _NEVER, _NEVER),
    )
}


def rule_for(loss: Loss) -> Rule:
    """The row of the table that ``loss`` falls under."""
    match loss.kind:
        case LossKind.UNREACHABLE:
            name = "unreachable"
        case LossKind.SILENT:
            name = "no sign of life"
        case LossKind.TLS_UNVERIFIED:
            name = "TLS certificate not verified"
        case LossKind.TLS_FAILED:
            name = "TLS failed"
        case LossKind.INVALID_UPGRADE:
            name = "not a WebSocket server"
        case LossKind.NOT_PROVIDED:
            name = "function for URL, headers or credentials failed"
        case LossKind.NOT_ESTABLISHED:
            name = "not established"
        case LossKind.REJECTED:
            name = _rule_for_status(loss.status or 0)
        case LossKind.CLOSED:
            name = _rule_for_code(loss.code or 0)
    return RULES[name]


def counted_as(loss: Loss) -> str:
    """What is counted when ``loss`` is met again: its rule, or its code where that has no own."""
    name = rule_for(loss).name
    return f"{name} {loss.code}" if name == "close code" else name


def _rule_for_status(status: int) -> str:
    if status == 401:
        return "HTTP 401"
    if status in (408, 425, 429) or 500 <= status <= 599:
        return "HTTP 408, 425, 429 or 5xx"
    if 300 <= status <= 399:
        return "HTTP 3xx"
    if status == 200:
        return "not a WebSocket server"
    return "HTTP status"


def _rule_for_code(code: int) -> str:
    match code:
        case 1012:
            return "close 1012"
        case 1013:
            return "close 1013"
        case 1002 | 1003 | 1007 | 1009 | 1010:
            return "close 1002, 1003, 1007, 1009 or 1010"
        case 1008 | 3000:
            return "close 1008 or 3000"
        case 3003:
            return "close 3003"
    return "close code"


def classify(loss: Loss, phase: Phase) -> Decision:
    """Decide what ``loss`` means; the default of ``RetryPolicy.classify``.

    A function of one's own may decide some losses and leave the others to this one.
    """
    rule = rule_for(loss)
    patience = rule.startup if phase is Phase.STARTUP else rule.steady
    reason = rule.name
    if patience.is_over(loss):
        return Fatal(f"{reason}, {_patience_text(patience)} at {phase.value}: {loss.error}")
    delay: tuple[float, float] | None = None
    if rule.name == "close 1013":
        delay = AT_THE_CAP
    elif rule.name == "close 1012" and loss.since_stable > 1:
        delay = _SECOND_RESTART if loss.since_stable <= _RESTARTS else AT_THE_CAP
    return rule.decision(reason, delay)


def _patience_text(patience: _Patience) -> str:
    if patience.times == 0:
        return "fatal"
    if math.isfinite(patience.times):
        return f"fatal after {patience.times:g} {'retry' if patience.times == 1 else 'retries'}"
    return f"fatal after {patience.seconds:g} s"


def loss_from(error: BaseException, now: float | None = None) -> Loss:
    """Describe how an attempt or a connection ended, as ``RetryPolicy.classify`` gets it.

    For tests of a function of one's own, and for whoever opens single connections and wants to
    know what a channel would make of an error.

    Args:
        error: What a caller of ``open_websocket`` and its kin gets.
        now: Unix time, against which ``Retry-After`` dates are read; ``None`` is the present.
    """
    now = wall_clock() if now is None else now
    match error:
        case ConnectionRejected():
            return Loss(
                kind=LossKind.REJECTED,
                error=error,
                status=error.status_code,
                retry_after=_retry_after(error, now),
            )
        # A redirect that is not followed is the refusal that it came with.
        case HandshakeError(__cause__=ConnectionRejected() as cause):
            return Loss(kind=LossKind.REJECTED, error=error, status=cause.status_code)
        case ProxyError(status_code=int() as status):
            return Loss(kind=LossKind.REJECTED, error=error, status=status)
        case InvalidUpgrade():
            kind = LossKind.INVALID_UPGRADE
        case ConnectionClosed():
            code = error.reason.code if error.reason else None
            return Loss(kind=LossKind.CLOSED, error=error, code=code)
        case HeartbeatTimeout():
            kind = LossKind.SILENT
        case ProviderError():
            kind = LossKind.NOT_PROVIDED
        case EstablishError():
            kind = LossKind.NOT_ESTABLISHED
        case HandshakeError(__cause__=ssl.SSLCertVerificationError()):
            kind = LossKind.TLS_UNVERIFIED
        # A connection that was cut during TLS is a cut connection.
        case HandshakeError(__cause__=ssl.SSLError() as cause) if not isinstance(
            cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)
        ):
            kind = LossKind.TLS_FAILED
        case _:
            kind = LossKind.UNREACHABLE
    return Loss(kind=kind, error=error)


def _retry_after(error: ConnectionRejected, now: float) -> float | None:
    for name, value in error.headers:
        if name.lower() == b"retry-after":
            return retry_after_seconds(value, now)
    return None
