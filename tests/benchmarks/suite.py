"""Every row of the table: what is measured, against whom, and the bound.

`Ours` is what the product contributes. A module with these functions fits it; each checks its own result with
`expect`, as the peers' functions do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from streamflow.testing.server import NatsServer
from tests.benchmarks import baselines, peers_memory, peers_nats
from tests.benchmarks.jetstream import Topic, topic
from tests.benchmarks.latency import Relay, relay_latency
from tests.benchmarks.process import fresh_call, import_time, imported, resident_memory
from tests.benchmarks.table import (
    Bound,
    Row,
    compared_row,
    faster,
    header,
    lines,
    megabytes,
    within,
)
from tests.benchmarks.work import Absent, Measured, expect

MEMORY_SECONDS = 20.0
MEMORY_LIMIT = 30e6
CLOSE_ROUNDS = 7  # of rows whose bound is close to 1, where noise would decide
NOT_IMPORTED = {"nats", "google.protobuf", "opentelemetry"}


class Ours(Protocol):
    """The functions that `tests.benchmarks.ours` has."""

    def numbers(self, n: int) -> Measured:
        """`Source(range(n))` through `increment`, `even`, `triple` into `Sum()`, with default error handling."""
        ...

    def windows(self, n: int) -> Measured:
        """`events(n)` through a keyed event-time `TumblingWindow` into `Count()`; compare with `expected_counts`."""
        ...

    def interval_join(self, n: int) -> Measured:
        """`two_streams(n)` through an event-time `join` within `JOIN_SECONDS`; compare with `expected_pairs`."""
        ...

    def single_path(self, n: int) -> Measured:
        """`Source(range(n))` through `increment` into `Sum()`."""
        ...

    def diamond(self, n: int) -> Measured:
        """The same with `fan_out` and `merge` in between."""
        ...

    def source(self, topic: Topic, count: int) -> Measured:
        """`JetStreamSource` → `Map` → `Discard` over the first `count` messages, with explicit acknowledgements."""
        ...

    def sink(self, topic: Topic, count: int) -> Measured:
        """`count` messages of `BODY` into a `JetStreamSink` with message ids, until all are confirmed."""
        ...

    async def relay(self, source: Topic, target: Topic) -> None:
        """`JetStreamSource` → `Map` → `JetStreamSink`, bodies unchanged, until cancelled."""
        ...

    def memory_growth(self, seconds: float) -> int:
        """Bytes above the start after an endless source ran that long into a sink of 1 chunk per 10 ms."""
        ...


def report(ours: Ours, scale: float = 1.0) -> Iterator[str]:
    """The table, line by line, each row as soon as it is measured. `scale` shrinks the work, for a quick look."""
    yield from header()
    for row in rows(ours, scale):
        yield from lines(row)


def rows(ours: Ours, scale: float = 1.0) -> Iterator[Row]:
    """Measure row by row. Slow peers run on fewer elements: what counts is the time per element."""
    yield numbers(ours, _count(1_000_000, scale))
    yield windows(ours, _count(300_000, scale))
    yield interval_join(ours, _count(100_000, scale))
    yield diamond(ours, _count(1_000_000, scale))
    with NatsServer() as server:
        yield source(ours, server.url, _count(100_000, scale))
        yield sink(ours, server.url, _count(50_000, scale))
        yield relay(ours, server.url, _count(3_000, scale))
    yield memory(MEMORY_SECONDS * scale)
    yield imports()


def numbers(ours: Ours, n: int) -> Row:
    return compared_row(
        f"{n:,} ints: map → filter → map → sum, per element",
        [
            within(1.25, "plain loop"),
            faster(30, "aiostream map"),
            faster(30, "aiostream smap"),
            faster(2.5, "bytewax"),
            faster(3, "reactivex"),
        ],
        lambda: ours.numbers(n),
        {
            "plain loop": lambda: baselines.plain_loop(n),
            "aiostream map": lambda: peers_memory.aiostream_map(n // 10),
            "aiostream smap": lambda: peers_memory.aiostream_smap(n // 10),
            "aiostream map, coroutines": lambda: peers_memory.aiostream_amap(n // 100),
            "bytewax": lambda: peers_memory.bytewax_numbers(n),
            "reactivex": lambda: peers_memory.reactivex_numbers(n),
        },
        CLOSE_ROUNDS,
    )


def windows(ours: Ours, n: int) -> Row:
    return compared_row(
        f"{n:,} events, 1,000 keys: count per key and minute of event time, per event",
        [within(4, "dict loop"), faster(8, "bytewax fold_window")],
        lambda: ours.windows(n),
        {
            "dict loop": lambda: baselines.dict_loop(n),
            "bytewax fold_window": lambda: peers_memory.bytewax_windows(n),
        },
    )


def interval_join(ours: Ours, n: int) -> Row:
    return compared_row(
        f"2 × {n:,} events, 1,000 keys: pairs that are at most 5 s apart (bytewax: in one minute), per event",
        [within(4, "hand-written loop"), faster(5, "bytewax join_window")],
        lambda: ours.interval_join(n),
        {
            "hand-written loop": lambda: baselines.join_loop(n),
            "bytewax join_window": lambda: peers_memory.bytewax_join(n // 4),
        },
    )


def diamond(ours: Ours, n: int) -> Row:
    return compared_row(
        f"{n:,} ints: map → fan_out(2) → merge → sum, per element",
        [within(2.2, "single path")],
        lambda: ours.diamond(n),
        {"single path": lambda: ours.single_path(n)},
        CLOSE_ROUNDS,
    )


def source(ours: Ours, url: str, n: int) -> Row:
    with topic(url, n) as full:
        return compared_row(
            "JetStream source → map → discard, 100 bytes, each acknowledged, per message",
            [faster(3, "nats-py fetch(1000)"), faster(10, "FastStream pull")],
            lambda: ours.source(full, n),
            {
                "nats-py fetch(1000)": lambda: peers_nats.nats_fetch(full, n // 2),
                "FastStream pull": lambda: peers_nats.faststream_pull(full, n // 5),
                "FastStream pull, batches": lambda: peers_nats.faststream_batch(full, n // 5),
            },
        )


def sink(ours: Ours, url: str, n: int) -> Row:
    return compared_row(
        "JetStream sink, 100 bytes, message ids on (peer: without), per message",
        [faster(3.5, "nats-py publish_async")],
        lambda: _into_empty(url, partial(ours.sink, count=n)),
        {
            "nats-py publish_async": lambda: _into_empty(
                url, partial(peers_nats.nats_publish_async, count=n // 2)
            ),
        },
    )


def relay(ours: Ours, url: str, n: int) -> Row:
    def contestant(copy: Relay) -> Callable[[], Measured]:
        return lambda: relay_latency(url, copy, n)

    return compared_row(
        "JetStream → map → JetStream at 1,000 messages/s, median latency",
        [within(1.2, "nats-py fetch(1)")],
        contestant(ours.relay),
        {"nats-py fetch(1)": contestant(peers_nats.nats_relay)},
    )


def memory(seconds: float) -> Row:
    work = f"endless source into a sink of 1 chunk per 10 ms, {seconds:g} s: memory above start"
    text = f"≤ {megabytes(MEMORY_LIMIT)}"
    try:
        resident_memory()
    except Absent as reason:
        bounds, absent = [Bound(text, MEMORY_LIMIT, reason.name)], {reason.name: reason.reason}
        return Row(work, math.nan, bounds, absent=absent, show=megabytes)
    growth = fresh_call("tests.benchmarks.ours", "memory_growth", seconds)
    return Row(work, growth, [Bound(text, MEMORY_LIMIT)], show=megabytes)


def imports() -> Row:
    expect("loaded by import streamflow", imported("import streamflow") & NOT_IMPORTED, set())
    return compared_row(
        "import streamflow",
        [within(1.6, "import asyncio, attrs, msgspec")],
        lambda: import_time("import streamflow"),
        {"import asyncio, attrs, msgspec": lambda: import_time("import asyncio, attrs, msgspec")},
        CLOSE_ROUNDS,
    )


def _into_empty(url: str, measure: Callable[[Topic], Measured]) -> Measured:
    """A measurement that writes to a stream of its own."""
    with topic(url) as empty:
        return measure(empty)


def _count(full: int, scale: float) -> int:
    """The number of elements at this scale; in thousands, so that batches of peers come out even."""
    return max(1_000, int(full * scale) // 1_000 * 1_000)
