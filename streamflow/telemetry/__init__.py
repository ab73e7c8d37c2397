"""What operators of a service see: logs through structlog. `LogObserver` turns a run's events into log lines."""

from __future__ import annotations

from streamflow.telemetry.logs import LogObserver

__all__ = ["LogObserver"]
