"""Telling observers: at once, in order, and without letting one of them do harm."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from wsclient._discretion import forget_locals
from wsclient.events import Event, Observer, ObserverFailed
from wsclient.observers import LoggingObserver


class Observers:
    """Tells each of ``observers`` every event."""

    def __init__(self, observers: Iterable[Observer] | None) -> None:
        if observers is not None and not isinstance(observers, Iterable):
            raise TypeError(
                f"observers must be an iterable of functions, such as [print],"
                f" not {type(observers).__name__}"
            )
        self._observers: tuple[Observer, ...] = (
            (LoggingObserver(),) if observers is None else tuple(observers)
        )
        for observer in self._observers:
            if not callable(observer):
                raise TypeError(f"an observer must be callable, not {type(observer).__name__}")
            if inspect.iscoroutinefunction(observer) or inspect.iscoroutinefunction(
                type(observer).__call__
            ):
                raise TypeError(
                    f"an observer must not be asynchronous: nobody would await {_name(observer)}"
                )

    def __call__(self, event: Event) -> None:
        # Observers print it, with its traceback and perhaps with the variables in there.
        forget_locals(getattr(event, "error", None))
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:  # Whatever it is, the session must not feel it.
                self._report(observer, event, error)

    def _report(self, failed: Observer, event: Event, error: Exception) -> None:
        if isinstance(event, ObserverFailed):
            return  # Reporting failed as well: there is nobody left to tell.
        forget_locals(error)
        report = ObserverFailed(channel=event.channel, observer=_name(failed), error=error)
        others = [observer for observer in self._observers if observer is not failed]
        for observer in others or [LoggingObserver()]:
            try:
                observer(report)
            except Exception as another:
                self._report(observer, report, another)


def _name(observer: Observer) -> str:
    # Not its repr, which may hold anything, and may raise.
    return getattr(observer, "__qualname__", None) or type(observer).__qualname__
