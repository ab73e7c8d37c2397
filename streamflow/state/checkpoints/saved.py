"""What is in a bucket of checkpoints, for people: read, or reset, without running a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from streamflow.engine.checkpoint import Snapshot
from streamflow.engine.observer import Observer
from streamflow.engine.table import hashable
from streamflow.errors import StateError
from streamflow.state.bucket import Bucket, Write, apply, value_data
from streamflow.state.checkpoints.lease import Lease
from streamflow.state.checkpoints.log import BucketLog
from streamflow.state.checkpoints.place import Place
from streamflow.state.keys import escape_token, unescape_token


@frozen
class Saved:
    """The last checkpoint of a pipeline. ``owner`` is who works at this moment: <host>.<process id>.<random>."""

    pipeline: str
    snapshot: Snapshot
    owner: str | None


@frozen
class SavedEntry:
    """What a step remembers under a key. ``namespace`` is the pane of a window, or None."""

    step: str
    namespace: Any
    key: Any
    timer: float | None
    state: Any


async def saved(bucket: Bucket) -> list[Saved]:
    """All pipelines in a bucket."""
    names = []
    feed = bucket.feed("*.*.position")
    try:
        while not feed.caught_up:
            names += [record.name for record in await feed.next() or () if record.operation == "put"]
    finally:
        await feed.close()
    found = [await saved_of(bucket, unescape_token(name.split(".")[0])) for name in sorted(names)]
    return [each for each in found if each is not None]


async def saved_of(bucket: Bucket, pipeline: str) -> Saved | None:
    """One of them, None if it has no checkpoint there."""
    prefix = f"{escape_token(pipeline)}.0"
    quiet = Observer()
    lease = Lease(bucket, f"{prefix}.owner", "", 1, quiet)
    snapshot = await BucketLog(bucket, prefix, "", lease, Place(bucket, prefix, quiet)).look()
    if snapshot is None:
        return None
    owner = value_data(await bucket.get(f"{prefix}.owner"))
    return Saved(pipeline, snapshot, owner.decode() if owner is not None else None)


def entries(snapshot: Snapshot, step: str | None = None) -> Iterator[SavedEntry]:
    """What the steps remember, or one of them."""
    import msgspec

    decode = msgspec.msgpack.Decoder().decode
    for name, table in snapshot.tables.items():
        if step is not None and name != step:
            continue
        for slot, data in table.entries.items():
            namespace, key = hashable(decode(slot))
            assert data is not None
            timer, _, state = decode(data)
            yield SavedEntry(name, namespace, key, timer, state)


async def reset(bucket: Bucket, pipeline: str) -> None:
    """Forget a pipeline's checkpoints: its next run begins anew. Refused while a run owns them."""
    found = await saved_of(bucket, pipeline)
    if found is None:
        raise StateError(f"bucket {bucket.name!r} has no checkpoint of pipeline {pipeline!r}")
    prefix = f"{escape_token(pipeline)}.0"
    lease = Lease(bucket, f"{prefix}.owner", "reset", 10, Observer())
    try:
        async with asyncio.timeout(0.5):
            await lease.take()
    except TimeoutError:
        raise StateError(
            f"pipeline {pipeline!r} is at work ({found.owner}): stop it before its checkpoints are reset"
        ) from None
    try:
        # The record that counts comes first: without it the rest is nobody's.
        await apply(bucket, Write(f"{prefix}.position", operation="delete"))
        feed = bucket.feed(f"{prefix}.>", values=False)
        names = []
        try:
            while not feed.caught_up:
                names += [record.name for record in await feed.next() or () if record.operation == "put"]
        finally:
            await feed.close()
        for name in names:
            if name != f"{prefix}.owner":
                await apply(bucket, Write(name, operation="delete"))
    finally:
        await lease.give_back()
