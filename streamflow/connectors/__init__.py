"""Sources and sinks. JetStream has a package of its own, `streamflow.connectors.jetstream`."""

from streamflow.connectors.memory import Collect, Discard, ForEach, Into, QueueSink, QueueSource

__all__ = [
    "Collect",
    "Discard",
    "ForEach",
    "Into",
    "QueueSink",
    "QueueSource",
]
