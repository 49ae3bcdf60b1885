"""Events → structured log entries.

A library prints nothing by itself, and an unconfigured structlog does print.  So:

- where the user has configured structlog, its logger ``wsclient.session`` is used as it is;
- where not, entries go to the standard library's logger of that name, with their values in the
  text and as the record's attributes; it has a ``NullHandler``, so that only the user's handlers
  are heard.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from enum import Enum
from typing import Any, Final

import attrs
import structlog

from wsclient import events
from wsclient.events import Event

_LOGGER: Final = "wsclient.session"

logging.getLogger("wsclient").addHandler(logging.NullHandler())

# An hour in which nothing happens logs nothing; a connection that is lost and comes back logs three
# lines at levels that are shown by default elsewhere; steps between are for whoever debugs.
_LEVELS: Final[dict[type[Event], str]] = {
    events.StateChanged: "debug",
    events.ConnectionAttempted: "debug",
    events.ConnectionOpened: "debug",
    events.ConnectionReady: "info",
    events.ConnectionLeft: "info",
    events.RetryScheduled: "info",
    events.ChannelClosed: "info",
    events.SuspendDetected: "info",
    events.OutboxRestored: "info",
    events.SubscriptionsRestored: "info",
    events.OutboxRecovered: "info",
    events.JournalRecovered: "info",
    events.ConnectionFailed: "warning",
    events.ConnectionLost: "warning",
    events.PeerStoppedReading: "warning",
    events.LocalStallDetected: "warning",
    events.GapDetected: "warning",
    events.FencesLifted: "warning",
    events.InboxOverflowed: "warning",
    events.OutboxOverflowed: "warning",
    events.MessageUndecoded: "warning",
    events.SubscriptionRefused: "warning",
    events.OutboxFailed: "error",
    events.JournalFailed: "error",
    events.MessageQuarantined: "error",
    events.ObserverFailed: "error",
    events.HandlerFailed: "error",
    events.ChannelGaveUp: "error",
}

_RECORDS_OWN: Final = frozenset({*vars(logging.makeLogRecord({})), "asctime", "message"})

_NAMES: Final = {
    kind: "".join(
        " " + letter.lower() if letter.isupper() else letter for letter in kind.__name__
    ).strip()
    for kind in _LEVELS
}


class LoggingObserver:
    """Logs each event once: what happened, with the channel, the epoch, the endpoint, the attempt.

    Args:
        logger: A structlog logger.  ``None``: the user's own, if structlog is configured, and the
            standard library's logger ``wsclient.session`` if not.
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = logger
        # Why the last attempt of a channel failed.
        self._causes: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Log ``event``."""
        kind = type(event)
        logger = self._logger or _default_logger()
        log = getattr(logger, "debug" if self._is_known(event) else _LEVELS.get(kind, "info"))
        log(_NAMES.get(kind, kind.__name__), **_values(event))

    def _is_known(self, event: Event) -> bool:
        """Whether it only says once more that a server is still not there.

        Of attempts that fail for the same reason the first is shown, the second, the fourth, and so
        on: a day without the server is a dozen entries, and not thousands.
        """
        if isinstance(event, events.ConnectionFailed):
            is_new = self._causes.get(event.channel) != event.cause
            self._causes[event.channel] = event.cause
            return not is_new and not _is_power_of_two(event.attempt)
        if isinstance(event, events.RetryScheduled):
            return event.channel in self._causes and not _is_power_of_two(event.attempt)
        if isinstance(event, events.ConnectionReady | events.ChannelClosed | events.ChannelGaveUp):
            self._causes.pop(event.channel, None)
        return False


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def _values(event: Event | events.Gap) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in attrs.fields_dict(type(event)).items():
        value = getattr(event, name)
        if callable(field.repr) and value is not None:
            # What it does not show itself is not shown here.
            values[name] = field.repr(value)
        elif isinstance(value, BaseException):
            # Its text and traceback, where the user's configuration prints them.
            values["exc_info"] = value
        elif isinstance(value, events.Gap):
            values.update(_values(value))
        elif isinstance(value, Enum):
            values[name] = value.value
        elif value is not None:
            values[name] = round(value, 3) if isinstance(value, float) else value
    return values


def _render_for_stdlib(
    _: object, __: str, entry: MutableMapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    exc_info = entry.pop("exc_info", None)
    # Quoted: a close reason is the peer's text, and must not look like a line of ours.
    values = "".join(f" {name}={value!r}" for name, value in entry.items() if name != "event")
    event = entry.pop("event")
    # A context variable may be called as a record's own attribute, which logging refuses.
    extra = {name: value for name, value in entry.items() if name not in _RECORDS_OWN}
    return ("%s%s", event, values), {"extra": extra, "exc_info": exc_info}


def _default_logger() -> Any:
    if structlog.is_configured():
        return structlog.get_logger(_LOGGER)
    return structlog.wrap_logger(
        logging.getLogger(_LOGGER),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _render_for_stdlib,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
