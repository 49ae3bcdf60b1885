"""What the close codes of well-known services mean.

Codes from 4000 to 4999 mean what a service wants them to (RFC 6455 §7.4.2), so the rules retry
them.  Here stand only services that document theirs, and of these only codes that the document
lists; its address stands beside them.  Where it does not say whether to come back after a code, a
comment says why the preset does, or does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from wsclient.events import LossKind

from ._policy import (
    AT_THE_CAP,
    Decision,
    Fatal,
    Loss,
    NextEndpoint,
    Phase,
    Retry,
    RetryFreshAuth,
    classify,
)


@attrs.frozen
class CodeMeaning:
    """What one close code, or a range of them, means at a service."""

    codes: range
    meaning: str
    """In a few words."""
    decision: type[Retry | Fatal]
    delay: tuple[float, float] | None = None
    """As of :class:`Retry`."""


@attrs.frozen(kw_only=True)
class Preset:
    """What a service's close codes mean: a function for ``RetryPolicy.classify``.

    What it does not know is left to :func:`wsclient.classify`.
    """

    service: str
    source: str
    """Where the service documents its codes."""
    meanings: tuple[CodeMeaning, ...]

    def __call__(self, loss: Loss, phase: Phase) -> Decision:
        """Decide what ``loss`` means at this service."""
        meaning = self._meaning_of(loss)
        if meaning is None:
            return classify(loss, phase)
        reason = f"{self.service}: {loss.code} {meaning.meaning}"
        if issubclass(meaning.decision, Fatal):
            return Fatal(reason)
        if meaning.decision is RetryFreshAuth and loss.repeated > _patience(phase):
            return Fatal(f"{reason}, with fresh credentials, too")
        return meaning.decision(reason, meaning.delay)

    def _meaning_of(self, loss: Loss) -> CodeMeaning | None:
        if loss.kind is not LossKind.CLOSED:
            return None
        return next((row for row in self.meanings if loss.code in row.codes), None)


def _patience(phase: Phase) -> int:
    """How often fresh credentials are tried: as after 1008."""
    return 1 if phase is Phase.STARTUP else 2


def _code(
    number: int,
    meaning: str,
    decision: type[Retry | Fatal],
    *,
    to: int | None = None,
    delay: tuple[float, float] | None = None,
) -> CodeMeaning:
    return CodeMeaning(range(number, (to or number) + 1), meaning, decision, delay)


def _presets() -> Iterator[Preset]:
    yield Preset(
        service="discord",
        source="https://docs.discord.com/developers/topics/opcodes-and-status-codes",
        # "Gateway Close Event Codes": its column "Reconnect".  After 4007 and 4009 a new session is
        # to be begun, which is the hook's affair.
        meanings=(
            _code(4000, "unknown error", Retry),
            _code(4001, "unknown opcode", Retry),
            _code(4002, "decode error", Retry),
            _code(4003, "not authenticated", Retry),
            _code(4004, "authentication failed", Fatal),
            _code(4005, "already authenticated", Retry),
            _code(4007, "invalid seq", Retry),
            _code(4008, "rate limited", Retry),
            _code(4009, "session timed out", Retry),
            _code(4010, "invalid shard", Fatal),
            _code(4011, "sharding required", Fatal),
            _code(4012, "invalid API version", Fatal),
            _code(4013, "invalid intents", Fatal),
            _code(4014, "disallowed intents", Fatal),
        ),
    )
    yield Preset(
        service="graphql-transport-ws",
        source="https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md",
        # Its own client (graphql-ws, src/client.ts) comes back after 4403, since access may be
        # granted later, and after 4408; after the others it does not.  4403 and 4406 are not in
        # the protocol's text, but in the codes of that implementation (src/common.ts).
        meanings=(
            _code(4400, "invalid message", Fatal),
            _code(4401, "unauthorized: subscribed before the acknowledgement", Fatal),
            _code(4403, "forbidden", RetryFreshAuth),
            _code(4406, "subprotocol not acceptable", Fatal),
            _code(4408, "connection initialisation timeout", Retry),
            _code(4409, "subscriber already exists", Fatal),
            _code(4429, "too many initialisation requests", Fatal),
        ),
    )
    yield Preset(
        service="pusher",
        source="https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/",
        # "Connection closure": should not be re-established unchanged; should be after backing off,
        # for a second at least; should be immediately.
        meanings=(
            _code(4000, "not to be tried again unchanged", Fatal, to=4099),
            _code(4100, "to be tried again later", NextEndpoint, to=4199, delay=AT_THE_CAP),
            _code(4200, "to be tried again at once", Retry, to=4299),
        ),
    )
    yield Preset(
        service="centrifugo",
        source="https://centrifugal.dev/docs/server/codes",
        # Terminal are 3500–3999 and 4500–4999; after the others a client comes back.  3000–3499
        # are the server's own, and unlike those that are registered: 3003 does not mean forbidden.
        meanings=(
            _code(3000, "the server's own, to be tried again", Retry, to=3499),
            _code(3500, "terminal", Fatal, to=3999),
            _code(4000, "the application's own, to be tried again", Retry, to=4499),
            _code(4500, "terminal", Fatal, to=4999),
        ),
    )
    yield Preset(
        service="obs-websocket",
        source="https://github.com/obsproject/obs-websocket/blob/master/docs/generated/protocol.md",
        # "WebSocketCloseCode": 4011 says that a client must not come back by itself; of the others
        # those that a second time would end alike.
        meanings=(
            _code(4009, "authentication failed", Fatal),
            _code(4010, "unsupported RPC version", Fatal),
            _code(4011, "session invalidated: kicked out", Fatal),
            _code(4012, "unsupported feature", Fatal),
        ),
    )
    yield Preset(
        service="twitch-eventsub",
        source="https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#close-message",
        # It does not say when to come back.  4001 is fatal: who sends anything but pongs is
        # disconnected, and would be again.
        meanings=(
            _code(4000, "internal server error", Retry),
            _code(4001, "client sent inbound traffic", Fatal),
            _code(4002, "client failed ping-pong", Retry),
            _code(4003, "connection unused", Retry),
            _code(4004, "reconnect grace time expired", Retry),
            _code(4005, "network timeout", Retry),
            _code(4006, "network error", Retry),
            _code(4007, "invalid reconnect", Retry),
        ),
    )


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {preset.service: preset for preset in _presets()}
)
"""What the close codes of well-known services mean, by service:
``RetryPolicy(classify=PRESETS["discord"])``."""
