"""Events become something else here: one sink a file, and the only place that logs."""

from ._structlog import LoggingObserver

__all__ = ["LoggingObserver"]
