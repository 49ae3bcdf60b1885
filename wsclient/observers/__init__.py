"""Events become something else here: one sink a file, and the only place that logs."""

from ._otel import OpenTelemetryObserver
from ._prometheus import PrometheusObserver
from ._structlog import LoggingObserver
from ._systemd import SystemdObserver

__all__ = ["LoggingObserver", "OpenTelemetryObserver", "PrometheusObserver", "SystemdObserver"]
