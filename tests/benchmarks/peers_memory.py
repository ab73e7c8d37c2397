"""Peers that work in memory: aiostream, bytewax and reactivex, at the settings their documentation advises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.benchmarks.work import (
    OUT_OF_ORDER_SECONDS,
    TASKS,
    WINDOW_SECONDS,
    Counts,
    Measured,
    even,
    events,
    expect,
    expected_counts,
    expected_products,
    expected_sum,
    increment,
    increment_later,
    require,
    timed,
    triple,
    two_streams,
)

BYTEWAX_BATCH = 1_000


def aiostream_map(n: int) -> Measured:
    """`map` as its users write it; given a plain function it runs synchronously."""
    pipe, stream = _aiostream()
    return _run_aiostream(
        "map", n, stream.range(n) | pipe.map(increment) | pipe.filter(even) | pipe.map(triple)
    )


def aiostream_smap(n: int) -> Measured:
    """`smap`, its synchronous variant by name."""
    pipe, stream = _aiostream()
    return _run_aiostream(
        "smap", n, stream.range(n) | pipe.smap(increment) | pipe.filter(even) | pipe.smap(triple)
    )


def aiostream_amap(n: int) -> Measured:
    """`map` with coroutine functions, one at a time: a task limit of 1 is its fastest here."""
    pipe, stream = _aiostream()

    async def increment_later(x: int) -> int:
        return increment(x)

    async def triple_later(x: int) -> int:
        return triple(x)

    xs = stream.range(n) | pipe.map(increment_later, task_limit=1) | pipe.filter(even)
    return _run_aiostream("amap", n, xs | pipe.map(triple_later, task_limit=1))


def aiostream_map_limited(n: int) -> Measured:
    """`map` with a coroutine function and up to 100 tasks, in order."""
    pipe, stream = _aiostream()
    xs = stream.iterate(range(n)) | pipe.map(increment_later, task_limit=TASKS)
    total, seconds = timed(lambda: asyncio.run(_add_up(xs)))
    expect("aiostream map(task_limit=100)", total, n * (n + 1) // 2)
    return Measured(seconds, n)


def bytewax_numbers(n: int) -> Measured:
    """`op.map`, `op.filter`, `op.map` and a sink that sums each batch."""
    require("bytewax", "bytewax.operators")
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.outputs import DynamicSink, StatelessSinkPartition
    from bytewax.testing import TestingSource, run_main

    total = 0

    class Adding(StatelessSinkPartition):  # type: ignore[misc]
        def write_batch(self, items: list[int]) -> None:
            nonlocal total
            total += sum(items)

    class Total(DynamicSink):  # type: ignore[misc]
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Adding:
            return Adding()

    flow = Dataflow("numbers")
    xs = op.input("in", flow, TestingSource(range(n), batch_size=BYTEWAX_BATCH))
    xs = op.map("increment", xs, increment)
    xs = op.filter("even", xs, even)
    xs = op.map("triple", xs, triple)
    op.output("out", xs, Total())
    _, seconds = timed(lambda: run_main(flow))
    expect("bytewax", total, expected_sum(n))
    return Measured(seconds, n)


def reactivex_numbers(n: int) -> Measured:
    """`ops.map`, `ops.filter`, `ops.map` and an observer that adds up."""
    require("reactivex")
    import reactivex
    from reactivex import operators as ops

    total = 0

    def add(x: int) -> None:
        nonlocal total
        total += x

    xs = reactivex.from_iterable(range(n)).pipe(ops.map(increment), ops.filter(even), ops.map(triple))
    _, seconds = timed(lambda: xs.subscribe(add))
    expect("reactivex", total, expected_sum(n))
    return Measured(seconds, n)


def bytewax_windows(n: int) -> Measured:
    """`fold_window` over an `EventClock` and a `TumblingWindower`; times converted beforehand."""
    require("bytewax", "bytewax.operators")
    import bytewax.operators as op
    import bytewax.operators.windowing as win
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, TestingSource, run_main

    data = [(key, datetime.fromtimestamp(at, UTC)) for key, at in events(n)]
    out: list[tuple[str, tuple[int, int]]] = []
    flow = Dataflow("windows")
    xs = op.input("in", flow, TestingSource(data, batch_size=BYTEWAX_BATCH))
    clock = win.EventClock(_itself, wait_for_system_duration=timedelta(seconds=OUT_OF_ORDER_SECONDS))
    windower = win.TumblingWindower(
        length=timedelta(seconds=WINDOW_SECONDS), align_to=datetime(1970, 1, 1, tzinfo=UTC)
    )
    windows = win.fold_window("count", xs, clock, windower, int, _count, _merge)
    op.output("out", windows.down, TestingSink(out))
    _, seconds = timed(lambda: run_main(flow))
    # A window's id counts windows since `align_to`.
    counts: Counts = {(key, number * WINDOW_SECONDS): count for key, (number, count) in out}
    expect("bytewax fold_window", counts, expected_counts(n))
    return Measured(seconds, n)


def bytewax_join(n: int) -> Measured:
    """`join_window` over tumbling windows; every pair of a window (it has no join by distance in time).

    Both sides have one clock there, so it has to wait for the side whose batch comes second.
    """
    require("bytewax", "bytewax.operators")
    import bytewax.operators as op
    import bytewax.operators.windowing as win
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, TestingSource, run_main

    sides = [[(key, datetime.fromtimestamp(at, UTC)) for key, at in side] for side in two_streams(n)]
    out: list[Any] = []
    flow = Dataflow("join")
    left, right = (
        op.input(name, flow, TestingSource(side, batch_size=min(BYTEWAX_BATCH, n // 20)))
        for name, side in zip(("left", "right"), sides, strict=True)
    )
    clock = win.EventClock(_itself, wait_for_system_duration=timedelta(seconds=WINDOW_SECONDS))
    windower = win.TumblingWindower(
        length=timedelta(seconds=WINDOW_SECONDS), align_to=datetime(1970, 1, 1, tzinfo=UTC)
    )
    joined = win.join_window("join", clock, windower, left, right, insert_mode="product", ordered=False)
    op.output("out", joined.down, TestingSink(out))
    _, seconds = timed(lambda: run_main(flow))
    expect("bytewax join_window", len(out), expected_products(n))
    return Measured(seconds, 2 * n)


def _aiostream() -> tuple[Any, Any]:
    """The modules `pipe` and `stream`. Their types want functions that also take `*args`; ours need not."""
    require("aiostream")
    from aiostream import pipe, stream

    return pipe, stream


def _run_aiostream(variant: str, n: int, xs: Any) -> Measured:
    """Run a stream and add up what it emits in an `async for`, its cheapest way to consume."""
    total, seconds = timed(lambda: asyncio.run(_add_up(xs)))
    expect(f"aiostream {variant}", total, expected_sum(n))
    return Measured(seconds, n)


async def _add_up(xs: Any) -> int:
    total = 0
    async with xs.stream() as running:
        elements: AsyncIterable[int] = running
        async for x in elements:
            total += x
    return total


def _itself(at: datetime) -> datetime:
    return at


def _count(count: int, _: datetime) -> int:
    return count + 1


def _merge(left: int, right: int) -> int:
    return left + right
