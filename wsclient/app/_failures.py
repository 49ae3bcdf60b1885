"""What becomes of what a bot's handlers raise, and of messages that cannot be decoded."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Any

import attrs

from ._routing import Route


class HandlerErrors(Enum):
    """What becomes of an exception that a bot's handler or timer raises.

    A message that cannot be decoded, or names no type, is treated the same way.
    """

    LOG = "log"
    """The observers are told (``HandlerFailed``, ``MessageUndecoded``), and the bot goes on."""
    RAISE = "raise"
    """It ends the bot: the channel is closed at once, and ``serve()`` or ``run()`` raises it.

    Whoever catches it there can tell, so the observers are not told as well, and neither is who
    was registered with ``@bot.on_error``.
    """


@attrs.frozen(kw_only=True)
class FailedMessage:
    """A message with which a bot's handler failed; or a timer or a hook that did."""

    message: str | bytes | None
    """As it came; ``None`` if it was no message that the handler was called for."""
    handler: str | None
    """The handler's qualified name; ``None`` if the message could not be decoded so far that one
    could be chosen."""
    subject: str
    """What the handler was called for: a message's type, or a timer (``"every 60 s"``).

    ``"message undecoded"`` if the message could not be decoded, or names no type.
    """
    error: Exception
    value: Any = None
    """What was published, if it was a subscription's handler that was called for it."""
    path: str | None = None
    """Where in the message the fault is, if it could not be decoded and that is known:
    ``"$.bids[3].price"``."""


def dead_letter(function: object) -> Route:
    """Look at how the function can be called that ``handler_errors`` was given.

    Raises:
        TypeError: It is no function of one :class:`FailedMessage`.
    """
    right = "HandlerErrors.LOG, HandlerErrors.RAISE, or a function of one FailedMessage"
    # The enumeration itself can be called, and what it was meant to say cannot be guessed.
    if not callable(function) or function is HandlerErrors:
        given = "the whole enumeration" if callable(function) else type(function).__name__
        raise TypeError(f"handler_errors must be {right}, not {given}")
    letter = Route(function)
    try:
        inspect.signature(function).bind(None)
    except ValueError:  # Some of the builtin functions do not tell.
        return letter
    except TypeError as error:
        raise TypeError(f"handler_errors must be {right}: {letter.name}: {error}") from None
    return letter
