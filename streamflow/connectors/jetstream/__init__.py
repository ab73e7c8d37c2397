"""JetStream as source, sink and table."""

from streamflow._jetstream.publish import PublishError
from streamflow._jetstream.settings import StreamSettings
from streamflow.connectors.jetstream.bucket_sink import KeyValueSink
from streamflow.connectors.jetstream.sink import JetStreamSink
from streamflow.connectors.jetstream.source import JetStreamSource
from streamflow.connectors.jetstream.table import KeyValueTable

__all__ = [
    "JetStreamSink",
    "JetStreamSource",
    "KeyValueSink",
    "KeyValueTable",
    "PublishError",
    "StreamSettings",
]
