"""Stream processing for Python services on NATS: pipelines of typed steps, with backpressure and JetStream.

``Source(…).via(…).to(…)`` describes a pipeline; ``await pipeline.run()`` runs it. Operators are in
`streamflow.operators`, sources and sinks in `streamflow.connectors`.
"""

from streamflow.app import App, run
from streamflow.clock import Clock, SystemClock
from streamflow.engine.observer import Observer, Stats
from streamflow.engine.runner import Running
from streamflow.errors import (
    CodecError,
    ConfigurationError,
    ConnectorError,
    GuaranteeError,
    PlanError,
    StateError,
    StepError,
    StreamflowError,
)
from streamflow.graph import Flow, Pipeline, Sink, Source, Stream
from streamflow.message import KeyedValue, Message, Window
from streamflow.policies import Checkpoint, ErrorPolicy, EventTime, Fail, ProcessingTime, Skip

__all__ = [
    "App",
    "Checkpoint",
    "Clock",
    "CodecError",
    "ConfigurationError",
    "ConnectorError",
    "ErrorPolicy",
    "EventTime",
    "Fail",
    "Flow",
    "GuaranteeError",
    "KeyedValue",
    "Message",
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
