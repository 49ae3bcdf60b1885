"""What a handler may want to know beside its message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from wsclient._discretion import forget_locals
from wsclient.events import Delivery
from wsclient.session import DurableChannel, Receipt

if TYPE_CHECKING:
    from ._bot import Bot


@attrs.frozen
class Context:
    """What a handler may want to know beside its message; it gets one that asks for ``context``."""

    bot: Bot
    channel: DurableChannel
    message: str | bytes | None = None
    """The message as it came; ``None`` for what is called for no message: a timer, a gap."""
    value: Any = None
    """What the handler is called with: the decoded message, a gap; ``None`` for a timer."""
    subject: str = ""
    """What the handler is called for: a message's type, ``"every 60 s"``, ``"gap"``."""
    handler: str = ""
    """The handler's qualified name: for middleware, which is around all of them."""

    async def send(
        self,
        value: Any,
        *,
        delivery: Delivery = Delivery.QUEUED,
        ttl: float | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Encode ``value`` and send it; see :meth:`Bot.send`.

        A handler that asks for ``reply`` gets this.
        """
        try:
            return await self.bot.send(value, delivery=delivery, ttl=ttl, key=key)
        except BaseException as error:
            forget_locals(error)
            raise
