"""Sources and sinks. JetStream has a package of its own, `streamflow.connectors.jetstream`."""

from streamflow.connectors.file_sinks import CsvSink, JsonLinesSink, TextFileSink
from streamflow.connectors.files import CsvSource, JsonLinesSource, TextFileSource
from streamflow.connectors.memory import Collect, Discard, ForEach, Into, QueueSink, QueueSource
from streamflow.connectors.stdio import StdinSource, StdoutSink

__all__ = [
    "Collect",
    "CsvSink",
    "CsvSource",
    "Discard",
    "ForEach",
    "Into",
    "JsonLinesSink",
    "JsonLinesSource",
    "QueueSink",
    "QueueSource",
    "StdinSource",
    "StdoutSink",
    "TextFileSink",
    "TextFileSource",
]
