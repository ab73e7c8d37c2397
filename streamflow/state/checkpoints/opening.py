"""Open the checkpoints of a pipeline for the one run that may write them."""

from __future__ import annotations

import os
import re
import secrets
import socket
from typing import TYPE_CHECKING

from streamflow.engine.checkpoint import of_pipeline
from streamflow.engine.connector import RunContext
from streamflow.state.bucket import Bucket, whole_seconds
from streamflow.state.checkpoints.lease import Lease
from streamflow.state.checkpoints.log import BucketLog
from streamflow.state.checkpoints.place import Place
from streamflow.state.keys import escape_token

if TYPE_CHECKING:
    from streamflow.policies import Checkpoint

_PARTITION = 0
_NOT_IN_A_NAME = re.compile(r"[^-_a-zA-Z0-9]")


async def open_log(checkpoint: Checkpoint, context: RunContext) -> BucketLog:
    """Wait until no other run has the pipeline, keep those before out, and load the last checkpoint."""
    bucket = await _bucket(checkpoint, context)
    prefix = f"{escape_token(context.pipeline)}.{_PARTITION}"
    owner = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    seconds = whole_seconds(checkpoint.lease, "Checkpoint's lease")
    assert seconds is not None
    lease = Lease(bucket, f"{prefix}.owner", owner, seconds, context.observer)
    await lease.take()
    context.spawn(_kept(lease, context.pipeline))
    place = Place(bucket, prefix, context.observer)
    log = BucketLog(bucket, prefix, owner, lease, place)
    await log.begin()
    if place.client is not None:
        context.spawn(place.forget())
    return log


async def _kept(lease: Lease, pipeline: str) -> None:
    with of_pipeline(pipeline):
        await lease.keep()


async def _bucket(checkpoint: Checkpoint, context: RunContext) -> Bucket:
    if checkpoint.bucket is not None and not isinstance(checkpoint.bucket, str):
        return checkpoint.bucket
    from streamflow._jetstream.session import client_for
    from streamflow.state.jetstream import BucketSettings, open_bucket

    name = checkpoint.bucket or _NOT_IN_A_NAME.sub("_", context.pipeline)
    client = await client_for(context, checkpoint.servers, checkpoint.connection)
    settings = BucketSettings(name, replicas=checkpoint.replicas, messages=True)
    bucket = await open_bucket(settings, connection=client)

    async def found() -> Bucket:
        return bucket

    async def close(bucket: Bucket) -> None:
        await bucket.close()

    return await context.resources.get(("checkpoints", name, id(client)), found, close)
