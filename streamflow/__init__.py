"""Stream processing for Python services on NATS: pipelines of typed steps, with backpressure and JetStream.

``Source(…).via(…).to(…)`` describes a pipeline; ``await pipeline.run()`` runs it. Operators are in
`streamflow.operators`, sources and sinks in `streamflow.connectors`.
"""

from typing import TYPE_CHECKING

from streamflow.errors import (
    CodecError,
    ConfigurationError,
    ConnectorError,
    DriftError,
    GuaranteeError,
    MissingKeyError,
    PlanError,
    StateError,
    StepError,
    StreamflowError,
)
from streamflow.graph import Flow, Pipeline, Sink, Source, Stream
from streamflow.message import KeyedValue, Message, Window
from streamflow.policies import Checkpoint, ErrorPolicy, EventTime, Fail, ProcessingTime, Skip

if TYPE_CHECKING:
    from streamflow.app import App, run
    from streamflow.clock import Clock, SystemClock
    from streamflow.engine.observer import Observer, Stats
    from streamflow.engine.runner import Running

_LATER = {
    "App": "streamflow.app",
    "Clock": "streamflow.clock",
    "Observer": "streamflow.engine.observer",
    "Running": "streamflow.engine.runner",
    "Stats": "streamflow.engine.observer",
    "SystemClock": "streamflow.clock",
    "run": "streamflow.app",
}
"""What describing a pipeline does not need is imported when it is first used."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value


__all__ = [
    "App",
    "Checkpoint",
    "Clock",
    "CodecError",
    "ConfigurationError",
    "ConnectorError",
    "DriftError",
    "ErrorPolicy",
    "EventTime",
    "Fail",
    "Flow",
    "GuaranteeError",
    "KeyedValue",
    "Message",
    "MissingKeyError",
    "Observer",
    "Pipeline",
    "PlanError",
    "ProcessingTime",
    "Running",
    "Sink",
    "Skip",
    "Source",
    "StateError",
    "Stats",
    "StepError",
    "Stream",
    "StreamflowError",
    "SystemClock",
    "Window",
    "run",
]
