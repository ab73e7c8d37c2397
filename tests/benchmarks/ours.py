"""What the product contributes to the table; see `tests.benchmarks.suite.Ours`."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from attrs import frozen

from streamflow import Checkpoint, EventTime, Source, Window
from streamflow.codecs import Json
from streamflow.connectors import Collect, Discard, Into
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.graph import Flow, Sink
from streamflow.operators import (
    Count,
    Filter,
    Fold,
    Keyed,
    Map,
    MapAsync,
    SessionWindow,
    SlidingWindow,
    Sum,
    TumblingWindow,
    fan_out,
    join,
    merge,
)
from streamflow.policies import Delivery
from streamflow.state import ObjectStore
from streamflow.state.store import Opening
from tests.benchmarks import work
from tests.benchmarks.jetstream import (
    Topic,
    bucket,
    client,
    empty_bucket,
    expect_acknowledged,
    expect_stored,
    new_durable,
)
from tests.benchmarks.jetstream import topic as new_topic
from tests.benchmarks.process import resident_memory
from tests.benchmarks.work import (
    BODY,
    FEW_KEYS,
    GAP_SECONDS,
    JOIN_SECONDS,
    ORDER_KEYS,
    OUT_OF_ORDER_SECONDS,
    STEP_SECONDS,
    TASKS,
    WINDOW_SECONDS,
    Counts,
    Event,
    Measured,
    busy,
    counts,
    even,
    events,
    expect,
    expected_counts,
    expected_pairs,
    expected_sessions,
    expected_sliding_counts,
    expected_sum,
    increment,
    increment_later,
    one,
    timed,
    triple,
    two_streams,
)

R = TypeVar("R")


def numbers(n: int) -> Measured:
    pipeline = Source(range(n)).via(Map(increment)).via(Filter(even)).via(Map(triple)).to(Into(Sum()))
    result, seconds = timed(lambda: asyncio.run(pipeline.run()))
    expect("sum", result, expected_sum(n))
    return Measured(seconds, n)


def windows(n: int) -> Measured:
    window = TumblingWindow(timedelta(seconds=WINDOW_SECONDS), time=_time(), into=Count())
    return _windowed(events(n), window, expected_counts(n))


def sliding_windows(n: int) -> Measured:
    size, every = timedelta(seconds=WINDOW_SECONDS), timedelta(seconds=STEP_SECONDS)
    window = SlidingWindow(size, every, time=_time(), into=Sum(one))
    return _windowed(events(n, FEW_KEYS), window, expected_sliding_counts(n))


def tumbling_windows(n: int, size: float) -> Measured:
    data = events(n, FEW_KEYS)
    window = TumblingWindow(timedelta(seconds=size), time=_time(), into=Sum(one))
    return _windowed(data, window, counts(data, size))


def session_windows(n: int) -> Measured:
    window = SessionWindow(timedelta(seconds=GAP_SECONDS), time=_time(), into=Count())
    return _windowed(events(n), window, expected_sessions(n))


def _time() -> EventTime[Event]:
    return EventTime(lambda event: event[1], out_of_order=timedelta(seconds=OUT_OF_ORDER_SECONDS))


def _windowed(data: Sequence[Event], window: Flow[Event, Window[int]], expected: Counts) -> Measured:
    pipeline = Source(data).via(Keyed(lambda event: event[0], window)).to(Collect())
    result, seconds = timed(lambda: asyncio.run(pipeline.run()))
    expect("counts", {(r.key, r.value.start): r.value.value for r in result}, expected)
    return Measured(seconds, len(data))


def visits(n: int, keys: int, is_shuffled: bool) -> Measured:
    data = work.visits(n, keys, is_shuffled)
    start = 0.0

    def elements() -> Iterator[int]:
        nonlocal start
        yield from range(keys)
        start = time.perf_counter()
        yield from data

    summed = Keyed[int, int, int](_itself, Fold(0, lambda total, key: total + key))
    last = asyncio.run(Source(elements).via(summed).to(_Last()).run())
    seconds = time.perf_counter() - start
    expect("last visit", last, work.expected_visit(n, keys, is_shuffled))
    return Measured(seconds, n)


def key_memory(keys: int) -> float:
    before = after = 0

    def elements() -> Iterator[int]:
        nonlocal before, after
        before = resident_memory()
        yield from range(keys)
        after = resident_memory()

    # The state is 1, which Python has once: all the memory is what a key costs beside it.
    counted = Keyed[int, int, int](_itself, Fold(0, lambda count, key: count + 1))
    asyncio.run(Source(elements).via(counted).to(Discard()).run())
    return (after - before) / keys


def map_async(n: int) -> Measured:
    pipeline = Source(range(n)).via(MapAsync(increment_later, concurrency=TASKS)).to(Into(Sum()))
    result, seconds = timed(lambda: asyncio.run(pipeline.run()))
    expect("sum of MapAsync", result, n * (n + 1) // 2)
    return Measured(seconds, n)


def process_map(n: int) -> Measured:
    return _busy(n, Map(busy, executor="process", concurrency=2))


def plain_map(n: int) -> Measured:
    """The baseline of `process_map`: the same work on the core of the event loop."""
    return _busy(n, Map(busy))


def _busy(n: int, flow: Map[int, int]) -> Measured:
    result, seconds = timed(lambda: asyncio.run(Source(range(n)).via(flow).to(Into(Sum())).run()))
    expect("sum of busy", result, n * (n - 1) // 2)
    return Measured(seconds, n)


def interval_join(n: int) -> Measured:
    left, right = two_streams(n)
    time = EventTime[tuple[str, float]](lambda e: e[1], out_of_order=timedelta(seconds=OUT_OF_ORDER_SECONDS))
    on = (lambda e: e[0], lambda e: e[0])
    pairs = join(Source(left), Source(right), on, timedelta(seconds=JOIN_SECONDS), time=time)
    result, seconds = timed(lambda: asyncio.run(pairs.to(Collect()).run()))
    expect("pairs", len(result), expected_pairs(n))
    return Measured(seconds, 2 * n)


def single_path(n: int) -> Measured:
    result, seconds = timed(lambda: asyncio.run(Source(range(n)).via(Map(increment)).to(Into(Sum())).run()))
    expect("sum", result, n * (n + 1) // 2)
    return Measured(seconds, n)


def diamond(n: int) -> Measured:
    one, other = fan_out(Source(range(n)).via(Map(increment)), 2)
    pipeline = merge(one, other).to(Into(Sum()))
    result, seconds = timed(lambda: asyncio.run(pipeline.run()))
    expect("sum", result, n * (n + 1))
    return Measured(seconds, n)


def source(topic: Topic, count: int) -> Measured:
    durable = new_durable()

    async def read() -> float:
        async with client(topic.url) as (connection, _):
            start = time.perf_counter()
            messages = JetStreamSource(
                topic.stream, topic.subject, durable=durable, until=count, connection=connection
            )
            seen = await messages.via(Map(_same)).to(Discard()).run()
            seconds = time.perf_counter() - start
        expect("messages", seen, count)
        await expect_acknowledged(topic, durable, count)
        return seconds

    return Measured(asyncio.run(read()), count)


def sink(topic: Topic, count: int) -> Measured:
    async def write() -> float:
        async with client(topic.url) as (connection, _):
            start = time.perf_counter()
            output = JetStreamSink[bytes](topic.stream, topic.subject, connection=connection)
            confirmed = await Source(itertools.repeat(BODY, count)).to(output).run()
            seconds = time.perf_counter() - start
        expect("messages", confirmed, count)
        await expect_stored(topic, count)
        return seconds

    return Measured(asyncio.run(write()), count)


def hot_key(url: str, updates: int) -> Measured:
    async def work() -> float:
        async with bucket(url, ["k"]) as name, _store(url, name) as store:
            await store.read("k")
            start = time.perf_counter()
            await asyncio.gather(*(store.update("k", increment) for _ in range(updates)))
            seconds = time.perf_counter() - start
            expect("value", await store.read("k"), updates)
        return seconds

    return Measured(asyncio.run(work()), updates)


def many_keys(url: str, keys: int, known: bool) -> Measured:
    names = [f"k{number}" for number in range(keys)]

    async def work() -> float:
        async with bucket(url, names) as name, _store(url, name) as store:
            rounds = 2 if known else 1
            for _ in range(rounds):
                start = time.perf_counter()
                await asyncio.gather(*(store.update(key, increment) for key in names))
                seconds = time.perf_counter() - start
            async with store.watch() as watch:
                values = [entry.value for entry in (await watch.snapshot()).values()]
            expect("values", values, [rounds] * keys)
        return seconds

    return Measured(asyncio.run(work()), keys)


@frozen
class Order:
    customer: int
    at: float


def order_windows(topic: Topic, count: int, delivery: Delivery) -> Measured:
    at: EventTime[Order] = EventTime(lambda order: order.at, max_ahead=None)
    window = TumblingWindow(timedelta(seconds=WINDOW_SECONDS), time=at, into=Count())
    # Each customer has orders in each of the two minutes, if there are enough.
    customers = min(ORDER_KEYS, count // 2)
    return _orders(topic, count, Keyed(_customer, window), 2 * customers, delivery)


def order_counts(topic: Topic, count: int, delivery: Delivery) -> Measured:
    fold = Fold[Order, int](0, lambda total, order: total + 1, state=int)
    return _orders(topic, count, Keyed(_customer, fold), count, delivery)


def _customer(order: Order) -> int:
    return order.customer


def _orders(topic: Topic, count: int, flow: Flow[Order, Any], outputs: int, delivery: Delivery) -> Measured:
    async def work(out: Topic, bucket: str) -> float:
        source = JetStreamSource(
            topic.stream, topic.subject, until=count, codec=Json(Order), servers=topic.url
        )
        sink = JetStreamSink[Any](
            out.stream, out.subject, codec=Json(), create=StreamSettings(out.subject), servers=topic.url
        )
        checkpoint = None if delivery == "best_effort" else Checkpoint(bucket, servers=topic.url)
        start = time.perf_counter()
        await source.via(flow).to(sink).run(delivery=delivery, checkpoint=checkpoint)
        seconds = time.perf_counter() - start
        await expect_stored(out, outputs)
        return seconds

    with new_topic(topic.url) as out, empty_bucket(topic.url) as bucket:
        return Measured(asyncio.run(work(out, bucket)), count)


def _store(url: str, name: str) -> Opening[int]:
    return ObjectStore.open(name, codec=Json(int), initial=0, servers=url)


async def relay(source: Topic, target: Topic) -> None:
    messages = JetStreamSource(source.stream, source.subject, durable=new_durable(), servers=source.url)
    output = JetStreamSink[bytes](target.stream, target.subject, servers=target.url)
    await messages.via(Map(_same)).to(output).run()


def memory_growth(seconds: float) -> int:
    async def flood() -> int:
        before = resident_memory()
        endless = Source(itertools.count).via(Map(increment)).to(_Slow())
        async with endless.start() as running:
            await asyncio.sleep(seconds)
            grown = resident_memory() - before
            await running.stop()
        return grown

    return asyncio.run(flood())


def _same(body: bytes) -> bytes:
    return body


def _itself(key: int) -> int:
    return key


@frozen
class _Last(Sink[R, R]):
    """Keeps the last element, and nothing of those before it."""

    async def open(self, context: SinkContext) -> Writer[R]:
        return _LastWriter()


class _LastWriter(Writer[R]):
    def __init__(self) -> None:
        self._last: list[R] = []

    async def write(self, chunk: Chunk) -> None:
        self._last[:] = chunk.values[-1:]
        chunk.release()

    def result(self) -> R:
        return self._last[0]


@frozen
class _Slow(Sink[int, int]):
    """Takes one chunk in 10 ms."""

    async def open(self, context: SinkContext) -> Writer[int]:
        return _SlowWriter()


class _SlowWriter(Writer[int]):
    def __init__(self) -> None:
        self._chunks = itertools.count()

    async def write(self, chunk: Chunk) -> None:
        await asyncio.sleep(0.01)
        next(self._chunks)

    def result(self) -> int:
        return next(self._chunks)
