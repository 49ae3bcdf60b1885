"""How fast messages may be sent: a bucket of tokens that fills again with time."""

from __future__ import annotations

import math
from typing import Final

from wsclient.options import SendRate

_ROUNDING: Final = 1e-6
"""Of a token: what a clock's last digit amounts to, lest a message wait for a time that is now."""


class Bucket:
    """Tokens for messages, of which a share is kept for what keeps the connection alive.

    Args:
        rate: How many, and in how long.
    """

    def __init__(self, rate: SendRate) -> None:
        self._size = float(rate.messages)
        self._per_second = rate.messages / rate.seconds
        # However small the bucket is: a full one has a token for a message.
        self._reserve = min(rate.reserve * rate.messages, rate.messages - 1)
        self._tokens = self._size
        self._filled_at = -math.inf
        # What pings may still take while a message waits.
        self._for_pings = math.inf

    def take(self, now: float) -> bool:
        """Take a token for a message, if there is one beyond the reserve."""
        self._fill(now)
        if self._tokens - self._reserve < 1 - _ROUNDING:
            self._for_pings = min(self._for_pings, self._size)
            return False
        self._tokens -= 1
        self._for_pings = math.inf
        return True

    def spend(self, now: float) -> None:
        """Take a token for a ping, in any case; what is missing delays the messages after it.

        A message that waits is delayed by a period at most: where pings alone use up the rate, it
        would never go.
        """
        self._fill(now)
        if self._for_pings > 0:
            self._tokens = max(self._tokens - 1, -self._size)
            self._for_pings -= 1

    def free_at(self, now: float) -> float:
        """When the next message may go, if nothing is sent until then."""
        self._fill(now)
        missing = self._reserve + 1 - self._tokens
        return now + max(0.0, missing) / self._per_second

    def _fill(self, now: float) -> None:
        filled = self._tokens + (now - self._filled_at) * self._per_second
        self._tokens = min(self._size, filled)
        self._filled_at = now
