"""What the product contributes to the table; see `tests.benchmarks.suite.Ours`."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import timedelta

from attrs import frozen

from streamflow import EventTime, Source
from streamflow.connectors import Collect, Discard, Into
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.graph import Sink
from streamflow.operators import Count, Filter, Keyed, Map, Sum, TumblingWindow, fan_out, join, merge
from tests.benchmarks.jetstream import Topic, client, expect_acknowledged, expect_stored, new_durable
from tests.benchmarks.process import resident_memory
from tests.benchmarks.work import (
    BODY,
    JOIN_SECONDS,
    OUT_OF_ORDER_SECONDS,
    WINDOW_SECONDS,
    Measured,
    even,
    events,
    expect,
    expected_counts,
    expected_pairs,
    expected_sum,
    increment,
    timed,
    triple,
    two_streams,
)


def numbers(n: int) -> Measured:
    pipeline = Source(range(n)).via(Map(increment)).via(Filter(even)).via(Map(triple)).to(Into(Sum()))
    result, seconds = timed(lambda: asyncio.run(pipeline.run()))
    expect("sum", result, expected_sum(n))
    return Measured(seconds, n)


def windows(n: int) -> Measured:
    data = events(n)
    time = EventTime[tuple[str, float]](lambda e: e[1], out_of_order=timedelta(seconds=OUT_OF_ORDER_SECONDS))
    window = TumblingWindow(timedelta(seconds=WINDOW_SECONDS), time=time, into=Count())
    pipeline = Source(data).via(Keyed(lambda e: e[0], window)).to(Collect())
    result, seconds = timed(lambda: asyncio.run(pipeline.run()))
    expect("counts", {(r.key, r.value.start): r.value.value for r in result}, expected_counts(n))
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
