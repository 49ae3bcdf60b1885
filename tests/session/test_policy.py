"""What a loss means: every row of the table, at startup and in steady state."""

from __future__ import annotations

import copy
import pickle
import socket
import ssl

import pytest
import trio

from wsclient.codes import CloseReason
from wsclient.errors import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    EstablishError,
    HandshakeError,
    HeartbeatTimeout,
    InvalidUpgrade,
    ProviderError,
    ProxyError,
)
from wsclient.events import LossKind
from wsclient.session._policy import (
    RULES,
    Fatal,
    Loss,
    NextEndpoint,
    Phase,
    Retry,
    RetryFreshAuth,
    classify,
    loss_from,
    rule_for,
)

NOW = 1_700_000_000.0
STARTUP, STEADY = Phase.STARTUP, Phase.STEADY

ERROR = HandshakeError("what happened")


def status(number):
    return Loss(kind=LossKind.REJECTED, error=ERROR, status=number)


def code(number):
    return Loss(kind=LossKind.CLOSED, error=ERROR, code=number)


def kind(kind):
    return Loss(kind=kind, error=ERROR)


# What is decided, as a text: "retry", "fatal", "retry 3×", "retry 300 s", "fresh auth 1×".
# A limit is followed by "fatal".  The rows are those of semantics S4.4, in its order.
TABLE = [
    ([kind(LossKind.UNREACHABLE)], "retry", "retry"),
    ([kind(LossKind.TLS_UNVERIFIED)], "fatal", "retry 3×"),
    ([kind(LossKind.TLS_FAILED)], "fatal", "retry 300 s"),
    ([status(401)], "fresh auth 1×", "fresh auth 1×"),
    ([status(number) for number in (400, 403, 404, 405, 407, 410, 426)], "fatal", "retry 300 s"),
    ([status(number) for number in (300, 301, 302, 303, 307, 308, 399)], "fatal", "fatal"),
    (
        [status(number) for number in (408, 425, 429, 500, 502, 503, 504, 529, 599)],
        "retry",
        "retry",
    ),
    ([status(200), kind(LossKind.INVALID_UPGRADE)], "fatal", "retry 300 s"),
    # "Any other status: as 400."
    (
        [status(number) for number in (100, 102, 204, 206, 402, 418, 451, 499, 600, 999)],
        "fatal",
        "retry 300 s",
    ),
    ([code(number) for number in (1000, 1001, 1005, 1006, 1011, 1014)], "retry", "retry"),
    ([code(1012)], "retry", "retry"),
    ([code(1013)], "next endpoint", "next endpoint"),
    ([code(number) for number in (1002, 1003, 1007, 1009, 1010)], "retry 2×", "retry 2×"),
    ([code(number) for number in (1008, 3000)], "fresh auth 1×", "fresh auth 2×"),
    ([code(3003)], "fatal", "fatal"),
    # "4000–4999, any other code."
    (
        [code(number) for number in (0, 999, 1004, 1015, 1016, 2999, 3001, 3999, 4000, 4999, 5000)],
        "retry",
        "retry",
    ),
    ([kind(LossKind.SILENT)], "retry", "retry"),
    # What a user's function raises: startup fails fast, a steady channel rides it out.
    ([kind(LossKind.NOT_PROVIDED)], "fatal", "retry"),
    # S3.6.
    ([kind(LossKind.NOT_ESTABLISHED)], "fatal", "retry"),
]
CELLS = [
    pytest.param(loss, phase, decision, id=f"{loss.kind.value} {loss.status or loss.code} {phase}")
    for losses, startup, steady in TABLE
    for loss in losses
    for phase, decision in ((STARTUP, startup), (STEADY, steady))
]
DECISIONS = {"retry": Retry, "fresh auth": RetryFreshAuth, "next endpoint": NextEndpoint}


def evolved(loss, repeated, repeated_for, since_stable=None):
    return Loss(
        kind=loss.kind,
        error=loss.error,
        status=loss.status,
        code=loss.code,
        repeated=repeated,
        repeated_for=repeated_for,
        since_stable=repeated if since_stable is None else since_stable,
    )


@pytest.mark.parametrize(("loss", "phase", "decision"), CELLS)
def test_s4_4_every_row_of_the_table_holds(loss, phase, decision):
    def decide(repeated, repeated_for):
        return type(classify(evolved(loss, repeated, repeated_for), phase))

    if decision == "fatal":
        assert Fatal is decide(1, 0.0)
        return
    name, _, limit = decision.rpartition(" ") if decision[-1] in "×s" else (decision, "", "")
    if decision.endswith(" s"):
        name = decision.removesuffix(" 300 s")

        assert DECISIONS[name] is decide(1, 0.0)
        assert DECISIONS[name] is decide(1000, 300.0)
        assert Fatal is decide(2, 300.001)
    elif limit:
        times = int(limit.removesuffix("×"))

        assert [DECISIONS[name]] * times == [decide(count + 1, 1e6) for count in range(times)]
        assert Fatal is decide(times + 1, 0.0)
        assert Fatal is decide(times + 2, 0.0)
    else:
        assert DECISIONS[name] is decide(1, 0.0)
        assert DECISIONS[name] is decide(10_000, 1e9)


def test_s4_4_the_table_has_every_kind_of_loss():
    assert set(LossKind) == {loss.kind for losses, *_ in TABLE for loss in losses}
    assert set(RULES) == {rule_for(loss).name for losses, *_ in TABLE for loss in losses}


@pytest.mark.parametrize("phase", Phase)
def test_s4_4_a_first_1012_waits_as_any_other_and_a_second_longer(phase):
    first = classify(code(1012), phase)
    second = classify(evolved(code(1012), 2, 1.0), phase)

    assert None is first.delay
    assert (5.0, 30.0) == second.delay


@pytest.mark.parametrize("phase", Phase)
def test_s4_4_a_second_1012_before_a_stable_connection_need_not_follow_the_first(phase):
    # The server was down in between, as servers are that restart.
    again = classify(evolved(code(1012), 1, 0.0, since_stable=2), phase)

    assert (5.0, 30.0) == again.delay


@pytest.mark.parametrize("phase", Phase)
def test_s4_4_a_1012_that_never_ends_waits_at_the_cap(phase):
    fourth = classify(evolved(code(1012), 4, 60.0), phase)
    hundredth = classify(evolved(code(1012), 100, 2000.0), phase)

    assert (15.25, 30.25) == fourth.delay == hundredth.delay


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("repeated", [1, 2, 50])
def test_s4_4_after_1013_the_wait_is_at_the_cap_from_the_first_time_on(phase, repeated):
    decision = classify(evolved(code(1013), repeated, 0.0), phase)

    assert NextEndpoint is type(decision)
    assert (15.25, 30.25) == decision.delay


@pytest.mark.parametrize(
    ("loss", "phase", "text"),
    [
        (status(404), STARTUP, "HTTP status, fatal at startup: what happened"),
        (
            evolved(status(404), 9, 301.0),
            STEADY,
            "HTTP status, fatal after 300 s at steady: what happened",
        ),
        (
            evolved(code(1008), 2, 0.0),
            STARTUP,
            "close 1008 or 3000, fatal after 1 retry at startup: what happened",
        ),
        (
            evolved(code(1008), 3, 0.0),
            STEADY,
            "close 1008 or 3000, fatal after 2 retries at steady: what happened",
        ),
    ],
)
def test_a_fatal_decision_says_by_which_rule_and_why(loss, phase, text):
    assert text == classify(loss, phase).reason


@pytest.mark.parametrize(("loss", "phase", "decision"), CELLS)
def test_a_retry_says_by_which_rule(loss, phase, decision):
    decided = classify(loss, phase)

    assert decided.reason.startswith(rule_for(loss).name)


def test_decisions_are_values_that_can_be_compared():
    assert Retry("a", (1, 2)) == Retry("a", (1, 2))
    assert Retry("a") != RetryFreshAuth("a")
    assert isinstance(RetryFreshAuth("a"), Retry)
    assert isinstance(NextEndpoint("a"), Retry)


# --- from an error to a loss --------------------------------------------------------------------


def caused(cause, kind=HandshakeError):
    error = kind("cannot connect")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (caused(socket.gaierror(-2, "Name or service not known")), LossKind.UNREACHABLE),
        (caused(ConnectionRefusedError(111, "refused")), LossKind.UNREACHABLE),
        (caused(ConnectionResetError(104, "reset")), LossKind.UNREACHABLE),
        (caused(OSError(113, "no route to host")), LossKind.UNREACHABLE),
        (caused(trio.BrokenResourceError()), LossKind.UNREACHABLE),
        (caused(None), LossKind.UNREACHABLE),
        (caused(trio.TooSlowError(), ConnectionTimeout), LossKind.UNREACHABLE),
        (caused(ssl.SSLCertVerificationError(1, "self-signed")), LossKind.TLS_UNVERIFIED),
        (caused(ssl.CertificateError(1, "other name")), LossKind.TLS_UNVERIFIED),
        (caused(ssl.SSLError(1, "wrong version number")), LossKind.TLS_FAILED),
        # A connection that was cut during TLS is a cut connection.
        (caused(ssl.SSLEOFError(8, "EOF")), LossKind.UNREACHABLE),
        (caused(ssl.SSLZeroReturnError(6, "closed")), LossKind.UNREACHABLE),
        (InvalidUpgrade("no Upgrade header"), LossKind.INVALID_UPGRADE),
        (ProxyError("the proxy answered nonsense"), LossKind.UNREACHABLE),
        (caused(ConnectionRefusedError(111, "refused"), ProxyError), LossKind.UNREACHABLE),
        (caused(ssl.SSLCertVerificationError(1, "x"), ProxyError), LossKind.TLS_UNVERIFIED),
        (HeartbeatTimeout("silent"), LossKind.SILENT),
        (EstablishError("the hook was late"), LossKind.NOT_ESTABLISHED),
        (ProviderError("the url function raised KeyError"), LossKind.NOT_PROVIDED),
    ],
)
def test_an_error_is_told_apart_by_its_kind_and_its_cause(error, expected):
    loss = loss_from(error, NOW)

    assert Loss(kind=expected, error=error) == loss


@pytest.mark.parametrize("number", [1000, 1006, 1012, 4321])
def test_a_closed_connection_is_told_by_its_code(number):
    error = ConnectionClosed(CloseReason(number, "because"))

    assert Loss(kind=LossKind.CLOSED, error=error, code=number) == loss_from(error, NOW)


@pytest.mark.parametrize(
    ("status", "rule"),
    [
        (407, "HTTP status"),
        (403, "HTTP status"),
        (302, "HTTP 3xx"),
        (502, "HTTP 408, 425, 429 or 5xx"),
        (503, "HTTP 408, 425, 429 or 5xx"),
    ],
)
def test_a_refusal_by_the_proxy_is_a_refusal(status, rule):
    error = ProxyError("the proxy refused", status)
    loss = loss_from(error, NOW)

    assert Loss(kind=LossKind.REJECTED, error=error, status=status) == loss
    assert rule == rule_for(loss).name


def test_a_redirect_that_is_not_followed_is_the_refusal_that_it_came_with():
    error = caused(ConnectionRejected(302, ((b"location", b"/"),)))
    loss = loss_from(error, NOW)

    assert Loss(kind=LossKind.REJECTED, error=error, status=302) == loss
    assert isinstance(classify(loss, Phase.STEADY), Fatal)


def test_a_connection_that_was_never_open_has_no_code():
    error = ConnectionClosed(None)

    assert Loss(kind=LossKind.CLOSED, error=error) == loss_from(error, NOW)
    assert "close code" == rule_for(loss_from(error, NOW)).name


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), None),
        (((b"retry-after", b"120"),), 120.0),
        (((b"Retry-After", b"120"),), 120.0),
        (((b"server", b"x"), (b"retry-after", b"Tue, 14 Nov 2023 22:14:20 GMT")), 60.0),
        (((b"retry-after", b"1700000060"),), 60.0),
        (((b"retry-after", b"soon"),), None),
        # The first one counts.
        (((b"retry-after", b"1"), (b"retry-after", b"2")), 1.0),
    ],
)
@pytest.mark.parametrize("number", [429, 503, 403])
def test_s4_3_a_refusal_is_told_by_its_status_and_what_it_asks(number, headers, expected):
    error = ConnectionRejected(number, headers)
    loss = loss_from(error, NOW)

    assert (LossKind.REJECTED, number, expected) == (loss.kind, loss.status, loss.retry_after)
    assert error is loss.error


def test_what_was_described_can_be_copied_and_pickled():
    loss = loss_from(ConnectionRejected(503, ((b"retry-after", b"5"),)), NOW)

    assert loss.retry_after == copy.deepcopy(loss).retry_after
    assert loss.status == pickle.loads(pickle.dumps(loss)).status


def test_without_a_time_a_date_is_read_against_the_present():
    error = ConnectionRejected(503, ((b"retry-after", b"Wed, 01 Jan 3000 00:00:00 GMT"),))

    assert loss_from(error).retry_after > 0
    assert loss_from(error, NOW).retry_after != loss_from(error).retry_after
