"""Why is it not ready?  What a channel says about itself, as values and as sentences."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from wsclient.events import ChannelState

from ._policy import Phase


@attrs.frozen(kw_only=True)
class Explanation:
    """Where a channel is, why, and what comes next; ``str()`` makes sentences of it."""

    channel: str
    """The channel's name."""
    state: ChannelState
    cause: str
    """What has brought the channel into this state."""
    since: float
    """Seconds that it has been in this state."""
    phase: Phase
    """Whether it was ever ready."""
    endpoint: str
    """Where the connection is, or the next attempt goes: scheme, host and port."""
    endpoints: tuple[str, ...]
    """All places that it may connect to, in their order."""
    epoch: int
    """Connections so far, the present one included."""
    failures: int
    """Attempts and connections that have failed since the last stable connection."""
    next_attempt: float | None
    """Seconds until the next attempt, in ``WAITING``; else ``None``."""
    rule: str | None
    """Which rule decided what followed the last loss; ``None`` if there was none."""
    outcomes: tuple[str, ...]
    """How the last attempts and connections ended, oldest first: ten at most."""
    budget_left: float
    """Attempts that may begin now."""
    budget_attempts: float
    """Attempts that may begin within ``budget_seconds``."""
    budget_seconds: float
    budget_when_spent: Literal["wait", "fail"] = "wait"
    """What follows where no attempt is left."""
    outbox_trouble: str | None = None
    """Why what is sent cannot be kept on disk at present; ``None`` if it can."""

    def __str__(self) -> str:
        return " ".join(self._sentences())

    def _sentences(self) -> list[str]:
        state = self.state.name
        said = [f"{self.channel} has been {state} for {self.since:.1f} s: {self.cause}."]
        if self.state is ChannelState.READY:
            said.append(f"It is connected to {self.endpoint}, its connection number {self.epoch}.")
        elif self.phase is Phase.STARTUP:
            said.append("It has never been ready.")
        if self.next_attempt is not None:
            said.append(
                f"The next attempt comes in {self.next_attempt:.1f} s, at {self.endpoint};"
                " retry_now() makes it at once."
            )
        elif self.state in (ChannelState.CONNECTING, ChannelState.ESTABLISHING):
            said.append(f"An attempt at {self.endpoint} is under way.")
        if self.outbox_trouble is not None:
            said.append(f"What is sent cannot be kept: {self.outbox_trouble}.")
        if self.failures:
            said.append(f"Failures since the last stable connection: {self.failures}.")
        if self.rule is not None:
            said.append(f"The last loss fell under the rule {self.rule!r}.")
        if self.outcomes:
            said.append(f"The last of {len(self.outcomes)} endings kept: {self.outcomes[-1]}.")
        if len(self.endpoints) > 1:
            said.append(f"Endpoints: {', '.join(self.endpoints)}.")
        then = "waits" if self.budget_when_spent == "wait" else "gives up"
        if not self.state.is_final and math.isfinite(self.budget_attempts):
            said.append(
                f"At most {self.budget_attempts:g} attempts in {self.budget_seconds:g} s;"
                f" {self.budget_left:g} are left, then it {then}."
            )
        return said
