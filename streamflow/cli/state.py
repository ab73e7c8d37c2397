"""What `streamflow state` shows and does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from streamflow.errors import StateError
from streamflow.state.bucket import Bucket
from streamflow.state.checkpoints.saved import Saved, entries, reset, saved, saved_of

T = TypeVar("T")

Say = Callable[[str], None]


def show_pipelines(name: str, servers: str | None, say: Say) -> None:
    """One block for each pipeline in the bucket."""
    found = _with_bucket(name, servers, saved)
    if not found:
        say(f"bucket {name!r} has no checkpoints")
    for each in found:
        snapshot = each.snapshot
        ending = ", finished" if snapshot.finished else ""
        owner = f"at work: {each.owner}" if each.owner is not None else "not at work"
        say(f"{each.pipeline}: checkpoint {snapshot.number}{ending}, {owner}")
        for source, position in snapshot.positions.items():
            say(f"  source {source}: {_json(position)}")
        for step, table in snapshot.tables.items():
            size = sum(len(data or b"") for data in table.entries.values())
            say(
                f"  step {step}: {len(table.entries)} entries, {size} bytes ({snapshot.shapes.get(step, '')})"
            )


def show_entries(
    name: str, servers: str | None, pipeline: str, step: str | None, key: str | None, say: Say
) -> None:
    """One line of JSON for each entry of a step, or of all; only those of a key, as JSON or as text, if it is given."""
    found = _with_bucket(name, servers, lambda bucket: _required(bucket, pipeline))
    steps = found.snapshot.tables
    if step is not None and step not in steps:
        raise StateError(
            f"pipeline {pipeline!r} remembers nothing of step {step!r}: it has {', '.join(steps) or 'none'}"
        )
    for entry in entries(found.snapshot, step):
        if key is not None and key not in (entry.key, _json(entry.key)):
            continue
        shown = {"step": entry.step, "namespace": entry.namespace, "key": entry.key, "timer": entry.timer}
        say(_json({**shown, "state": entry.state}))


def reset_pipeline(name: str, servers: str | None, pipeline: str) -> None:
    _with_bucket(name, servers, lambda bucket: reset(bucket, pipeline))


async def _required(bucket: Bucket, pipeline: str) -> Saved:
    found = await saved_of(bucket, pipeline)
    if found is None:
        raise StateError(f"bucket {bucket.name!r} has no checkpoint of pipeline {pipeline!r}")
    return found


def _with_bucket(name: str, servers: str | None, work: Callable[[Bucket], Awaitable[T]]) -> T:
    from streamflow.state.jetstream import BucketSettings, open_bucket

    async def run() -> T:
        bucket = await open_bucket(BucketSettings(name), servers=servers, create=False)
        try:
            return await work(bucket)
        finally:
            await bucket.close()

    return asyncio.run(run())


def _json(value: Any) -> str:
    import msgspec

    text: bytes = msgspec.json.encode(value, enc_hook=repr)
    return text.decode()
