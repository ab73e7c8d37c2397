"""What a checkpoint costs by itself: commit and restore of entries of 100 bytes, beside plain ways to store them."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client

from streamflow._jetstream.publish import Publisher
from streamflow.engine.checkpoint import Snapshot, TableSnapshot
from streamflow.engine.observer import Observer
from streamflow.engine.table import CHECK_EVERY, StateTable
from streamflow.state.bucket import Bucket
from streamflow.state.checkpoints.lease import Lease
from streamflow.state.checkpoints.log import BucketLog
from streamflow.state.checkpoints.place import Place
from streamflow.state.jetstream import BucketSettings, open_bucket
from tests.benchmarks.jetstream import client
from tests.benchmarks.work import BODY, Measured, expect

_numbers = itertools.count()


@asynccontextmanager
async def _new_bucket(url: str) -> AsyncIterator[Bucket]:
    settings = BucketSettings(f"checkpoints{next(_numbers)}", messages=True)
    bucket = await open_bucket(settings, servers=url)
    try:
        yield bucket
    finally:
        await bucket.destroy()
        await bucket.close()


async def _log(bucket: Bucket) -> BucketLog:
    observer = Observer()
    lease = Lease(bucket, "p.0.owner", "bench", 5, observer)
    log = BucketLog(bucket, "p.0", "bench", lease, Place(bucket, "p.0", observer))
    await log.begin()
    return log


def _filled(entries: int) -> StateTable:
    table = StateTable("step", bytes, tracked=True)
    for key in range(entries):
        table.touch(key)
        table.space()[key] = BODY
    return table


async def _commit(log: BucketLog, table: StateTable, number: int) -> None:
    frozen = table.freeze()
    while not frozen.encode(CHECK_EVERY):
        await asyncio.sleep(0)
    await log.commit(Snapshot(number, tables={"step": TableSnapshot(frozen.entries, frozen.meta)}))


def commit(url: str, entries: int) -> Measured:
    """Freeze, encode and commit a table in which every entry has changed."""

    async def work() -> float:
        async with _new_bucket(url) as bucket:
            log, table = await _log(bucket), _filled(entries)
            start = time.perf_counter()
            await _commit(log, table, 1)
            seconds = time.perf_counter() - start
            expect("entries", await _restored(bucket), entries)
        return seconds

    return Measured(asyncio.run(work()), entries)


async def _restored(bucket: Bucket) -> int:
    last = (await _log(bucket)).last
    assert last is not None
    table = StateTable("step", bytes, tracked=True)
    entries = {slot: data for slot, data in last.tables["step"].entries.items() if data is not None}
    table.restore(entries, {})
    return len(table.space())


def restore(url: str, entries: int) -> Measured:
    """Become the owner, load the checkpoint and fill the table."""

    async def work() -> float:
        async with _new_bucket(url) as bucket:
            await _commit(await _log(bucket), _filled(entries), 1)
            start = time.perf_counter()
            restored = await _restored(bucket)
            seconds = time.perf_counter() - start
        expect("entries", restored, entries)
        return seconds

    return Measured(asyncio.run(work()), entries)


def bare_batch(url: str, entries: int) -> Measured:
    """The same entries as messages of one atomic batch, published by nats-py."""

    async def work() -> float:
        async with _new_bucket(url) as bucket, client(url) as (connection, _):
            batch = secrets.token_hex(8)
            start = time.perf_counter()
            for number in range(1, entries):
                headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                await connection.publish(f"$KV.{bucket.name}.k{number}", BODY, headers=headers)
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(entries), "Nats-Batch-Commit": "1"}
            answer = await connection.request(
                f"$KV.{bucket.name}.k{entries}", BODY, headers=headers, timeout=10
            )
            seconds = time.perf_counter() - start
        assert b'"error"' not in answer.data, answer.data
        return seconds

    return Measured(asyncio.run(work()), entries)


def pipelined_puts(url: str, entries: int) -> Measured:
    """The same entries under keys of their own, thousands under way at a time."""

    async def work() -> float:
        async with _new_bucket(url) as bucket, client(url) as (connection, _):
            start = time.perf_counter()
            await _put_all(connection, bucket.name, entries)
            return time.perf_counter() - start

    return Measured(asyncio.run(work()), entries)


async def _put_all(connection: Client, name: str, entries: int) -> None:
    publisher = await Publisher.open(
        connection,
        stream=f"KV_{name}",
        window=4096,
        timeout=30.0,
        on_confirm=lambda tokens: None,
        on_reject=lambda token, error: False,
    )
    await publisher.publish_many(
        (f"$KV.{name}.k{number}", BODY, None, None, None) for number in range(entries)
    )
    await publisher.flush()
    await publisher.aclose()


def watchall(url: str, entries: int) -> Measured:
    """nats-py's `watchall` over a bucket with these entries, until it has told them all."""

    async def work() -> float:
        async with _new_bucket(url) as bucket, client(url) as (connection, js):
            await _put_all(connection, bucket.name, entries)
            kv = await js.key_value(bucket.name)
            start = time.perf_counter()
            watcher, seen = await kv.watchall(), 0
            async for entry in watcher:
                if entry is None:
                    break
                seen += 1
            seconds = time.perf_counter() - start
            await watcher.stop()  # type: ignore[no-untyped-call]
        expect("entries", seen, entries)
        return seconds

    return Measured(asyncio.run(work()), entries)
