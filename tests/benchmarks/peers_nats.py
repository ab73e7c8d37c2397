"""Peers that talk to JetStream: nats-py's own calls and FastStream, at the settings their documentation advises.

Each measurement has its own connection, consumer and event loop (asyncio's). The clock runs from the first request
to the last message: connecting and creating a consumer are not part of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from tests.benchmarks.jetstream import Topic, bucket, client, expect_acknowledged, expect_stored, new_durable
from tests.benchmarks.work import BODY, Measured, expect, require

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

FETCH = 1_000
FASTSTREAM_BATCH = 500
MAX_ACK_PENDING = 20_000
MAX_PENDING_PUBLISHES = 4_000


def nats_fetch(topic: Topic, count: int) -> Measured:
    """`fetch(1000)` in a loop, each message acknowledged; the first `count` messages of the stream."""
    return asyncio.run(_nats_fetch(topic, count))


def faststream_pull(topic: Topic, count: int) -> Measured:
    """A FastStream subscriber that pulls by 500 and acknowledges after its handler (its default)."""
    require("faststream", "faststream.nats")
    return asyncio.run(_faststream_pull(topic, count, batch=False))


def faststream_batch(topic: Topic, count: int) -> Measured:
    """The same with a handler that is given lists of messages: another way to write it, and faster."""
    require("faststream", "faststream.nats")
    return asyncio.run(_faststream_pull(topic, count, batch=True))


def nats_publish_async(topic: Topic, count: int) -> Measured:
    """`publish_async` with up to 4,000 publishes pending and no headers, until all are confirmed."""
    return asyncio.run(_nats_publish_async(topic, count))


def nats_locked_updates(url: str, updates: int) -> Measured:
    """`get` and `update` of one key under a lock, from as many tasks as there are updates."""

    async def work() -> float:
        async with bucket(url, ["k"]) as name, client(url) as (_, js):
            kv, lock = await js.key_value(name), asyncio.Lock()

            async def update() -> None:
                async with lock:
                    await _increment(kv, "k")

            start = time.perf_counter()
            await asyncio.gather(*(update() for _ in range(updates)))
            seconds = time.perf_counter() - start
            expect("value", (await kv.get("k")).value, b"%d" % updates)
        return seconds

    return Measured(asyncio.run(work()), updates)


def nats_gathered_updates(url: str, keys: int) -> Measured:
    """`get` and `update` of each key, all gathered."""
    names = [f"k{number}" for number in range(keys)]

    async def work() -> float:
        async with bucket(url, names) as name, client(url) as (_, js):
            kv = await js.key_value(name)
            start = time.perf_counter()
            await asyncio.gather(*(_increment(kv, key) for key in names))
            seconds = time.perf_counter() - start
            values = [(await kv.get(key)).value for key in names]
            expect("values", values, [b"1"] * keys)
        return seconds

    return Measured(asyncio.run(work()), keys)


async def _increment(kv: KeyValue, key: str) -> None:
    entry = await kv.get(key)
    assert entry.value is not None
    await kv.update(key, b"%d" % (int(entry.value) + 1), entry.revision)


async def nats_relay(source: Topic, target: Topic) -> None:
    """Copy message by message, until cancelled: `fetch(1)`, an awaited publish, then the acknowledgement."""
    from nats.errors import TimeoutError as NothingCame
    from nats.js.errors import FetchTimeoutError

    async with client(source.url) as (_, js):
        subscription = await js.pull_subscribe(source.subject, durable=new_durable(), stream=source.stream)
        while True:
            try:
                messages = await subscription.fetch(1)
            except (NothingCame, FetchTimeoutError):
                continue
            for message in messages:
                await js.publish(target.subject, message.data)
                await message.ack()


async def _nats_fetch(topic: Topic, count: int) -> Measured:
    from nats.js.api import ConsumerConfig

    durable, seen = new_durable(), 0
    async with client(topic.url) as (connection, js):
        subscription = await js.pull_subscribe(
            topic.subject,
            durable=durable,
            stream=topic.stream,
            config=ConsumerConfig(max_ack_pending=MAX_ACK_PENDING),
        )
        start = time.perf_counter()
        while seen < count:
            for message in await subscription.fetch(min(FETCH, count - seen)):
                seen += 1
                await message.ack()
        await connection.flush()
        seconds = time.perf_counter() - start
    await expect_acknowledged(topic, durable, count)
    return Measured(seconds, count)


async def _faststream_pull(topic: Topic, count: int, *, batch: bool) -> Measured:
    from faststream.nats import JStream, NatsBroker, PullSub
    from nats.js.api import ConsumerConfig

    durable, seen, done = new_durable(), 0, asyncio.Event()
    # Without argument injection and a log line per message, both of which it does by default, it is twice as fast.
    broker: Any = NatsBroker(topic.url, apply_types=False, logger=None)

    @broker.subscriber(  # type: ignore[untyped-decorator]
        topic.subject,
        stream=JStream(topic.stream, declare=False),
        durable=durable,
        config=ConsumerConfig(max_ack_pending=MAX_ACK_PENDING),
        pull_sub=PullSub(batch_size=FASTSTREAM_BATCH, batch=batch),
    )
    async def handle(body: Any) -> None:
        nonlocal seen
        seen += len(body) if batch else 1
        if seen == count:
            done.set()

    await broker.connect()
    start = time.perf_counter()
    await broker.start()
    await done.wait()
    seconds = time.perf_counter() - start
    await broker.stop()
    await expect_acknowledged(topic, durable, count)
    return Measured(seconds, count)


async def _nats_publish_async(topic: Topic, count: int) -> Measured:
    async with client(topic.url, publish_async_max_pending=MAX_PENDING_PUBLISHES) as (_, js):
        start = time.perf_counter()
        for _ in range(count):
            _ = await js.publish_async(topic.subject, BODY, wait_stall=30)
        await js.publish_async_completed()
        seconds = time.perf_counter() - start
    await expect_stored(topic, count)
    return Measured(seconds, count)
