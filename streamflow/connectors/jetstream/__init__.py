"""JetStream as source and sink."""

from streamflow.connectors.jetstream.publish import PublishError
from streamflow.connectors.jetstream.settings import StreamSettings
from streamflow.connectors.jetstream.sink import JetStreamSink
from streamflow.connectors.jetstream.source import JetStreamSource

__all__ = ["JetStreamSink", "JetStreamSource", "PublishError", "StreamSettings"]
