"""Buckets in JetStream: what is below `ObjectStore` when it is opened with a name."""

from streamflow.state.jetstream.bucket import JetStreamBucket
from streamflow.state.jetstream.opening import open_bucket
from streamflow.state.jetstream.settings import BucketSettings

__all__ = ["BucketSettings", "JetStreamBucket", "open_bucket"]
