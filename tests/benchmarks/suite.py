"""Every row of the table: what is measured, against whom, and the bound.

`Ours` is what the product contributes. A module with these functions fits it; each checks its own result with
`expect`, as the peers' functions do.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from streamflow.policies import Delivery
from streamflow.testing.server import NatsServer
from tests.benchmarks import baselines, checkpoints, peers_memory, peers_nats
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
from tests.benchmarks.work import (
    KEYS,
    ORDER_KEYS,
    STEP_SECONDS,
    WINDOW_SECONDS,
    Absent,
    Measured,
    expect,
    order,
)

BATCH = 1_000  # not scaled: what the server takes as one
UPDATES = 1_000  # not scaled: what waits together is applied together
MEMORY_SECONDS = 20.0
MEMORY_LIMIT = 30e6
KEY_BYTES = 250
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

    def visits(self, n: int, keys: int, is_shuffled: bool) -> Measured:
        """`visits(…)` through a `Keyed(Fold)` that sums; `range(keys)` goes before, unmeasured: each key is live."""
        ...

    def key_memory(self, keys: int) -> float:
        """Bytes of memory for each key of a `Keyed(Fold)` whose states cost nothing themselves."""
        ...

    def map_async(self, n: int) -> Measured:
        """`Source(range(n))` through `MapAsync(increment_later, concurrency=TASKS)` into `Sum()`, in order."""
        ...

    def process_map(self, n: int) -> Measured:
        """`Source(range(n))` through `busy` on two processes into `Sum()`; the start of the processes counts."""
        ...

    def plain_map(self, n: int) -> Measured:
        """The same on one core, without an executor."""
        ...

    def sliding_windows(self, n: int) -> Measured:
        """`events(n, FEW_KEYS)` summed over a minute, each second; compare with `expected_sliding_counts`."""
        ...

    def tumbling_windows(self, n: int, size: float) -> Measured:
        """The same events through a `TumblingWindow` of this size."""
        ...

    def session_windows(self, n: int) -> Measured:
        """`events(n)` through a keyed `SessionWindow` into `Count()`; compare with `expected_sessions`."""

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

    def order_windows(self, topic: Topic, count: int, delivery: Delivery) -> Measured:
        """Orders (`order`) counted by customer and minute, into a new stream; at least once with a checkpoint."""
        ...

    def order_counts(self, topic: Topic, count: int, delivery: Delivery) -> Measured:
        """Orders counted by customer so far: a result for each."""
        ...

    def hot_key(self, url: str, updates: int) -> Measured:
        """So many tasks that each `update` the same key of an `ObjectStore` once, at the same time."""
        ...

    def many_keys(self, url: str, keys: int, known: bool) -> Measured:
        """One `update` of each of so many keys, all at the same time; ``known``: not the store's first of the key."""
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
    yield visits(ours, _count(1_000_000, scale))
    yield key_memory(_count(1_000_000, scale))
    yield coroutines(ours, _count(100_000, scale))
    yield processes(ours, _count(6_000, scale))
    yield sliding_windows(ours, _count(300_000, scale))
    yield session_windows(ours, _count(300_000, scale))
    yield interval_join(ours, _count(100_000, scale))
    yield diamond(ours, _count(1_000_000, scale))
    with NatsServer() as server:
        yield source(ours, server.url, _count(100_000, scale))
        yield sink(ours, server.url, _count(50_000, scale))
        yield order_windows(ours, server.url, _count(100_000, scale))
        yield order_counts(ours, server.url, _count(100_000, scale))
        yield commit(server.url, BATCH, "bare atomic batch", checkpoints.bare_batch)
        yield commit(server.url, _count(100_000, scale), "pipelined puts", checkpoints.pipelined_puts)
        yield restore(server.url, _count(100_000, scale))
        yield relay(ours, server.url, _count(3_000, scale))
        yield hot_key(ours, server.url)
        yield many_keys(ours, server.url)
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


def visits(ours: Ours, n: int) -> Row:
    """A dict that is larger than the processor's cache is slower in random order, whoever asks it: not in the bound."""
    return compared_row(
        f"Keyed(Fold) over {n:,} live int keys, each in turn, per element",
        [within(2, "1,000 keys")],
        lambda: ours.visits(n, n, False),
        {
            "1,000 keys": lambda: ours.visits(n, KEYS, False),
            "in random order": lambda: ours.visits(n, n, True),
            "1,000 keys, random order": lambda: ours.visits(n, KEYS, True),
            "dict loop, random order": lambda: baselines.visits_loop(n, n, True),
            "dict loop, 1,000, random order": lambda: baselines.visits_loop(n, KEYS, True),
        },
    )


def key_memory(keys: int) -> Row:
    work = f"Keyed(Fold) over {keys:,} live int keys: memory for each, key included, beside its state"
    bound = f"≤ {KEY_BYTES:g} bytes"
    return _fresh_memory(work, bound, KEY_BYTES, "key_memory", keys, show=_bytes)


def sliding_windows(ours: Ours, n: int) -> Row:
    """What it may cost that each event is in 60 windows. The bound is on the tumbling window that is emitted as often.

    The one of the same size is emitted a sixtieth as often: what is more than its time is mostly for the results.
    """
    often, seldom = "tumbling 1 s, as many results", "tumbling 60 s, 1/60 of them"
    return compared_row(
        f"{n:,} events, 100 keys: sum per key over 60 s, each second (sliding), per event",
        [within(2, often)],
        lambda: ours.sliding_windows(n),
        {
            often: lambda: ours.tumbling_windows(n, STEP_SECONDS),
            seldom: lambda: ours.tumbling_windows(n, WINDOW_SECONDS),
        },
    )


def session_windows(ours: Ours, n: int) -> Row:
    """The gap makes about as many sessions as there are windows of a minute."""
    return compared_row(
        f"{n:,} events, 1,000 keys: count per key and session, gap 7 s, per event",
        [within(2.5, "tumbling 60 s")],
        lambda: ours.session_windows(n),
        {
            "tumbling 60 s": lambda: ours.windows(n),
            "loop over sorted events": lambda: baselines.session_loop(n),
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


def coroutines(ours: Ours, n: int) -> Row:
    return compared_row(
        f"{n:,} ints: MapAsync(concurrency=100), trivial coroutines, per element",
        [faster(3, "aiostream map(task_limit=100)")],
        lambda: ours.map_async(n),
        {"aiostream map(task_limit=100)": lambda: peers_memory.aiostream_map_limited(n // 10)},
    )


def processes(ours: Ours, n: int) -> Row:
    def on_one_core() -> Measured:
        if (os.cpu_count() or 1) < 2:
            raise Absent("Map on one core", "this machine has one core, and two processes share it")
        return ours.plain_map(n)

    return compared_row(
        f"{n:,} ints: Map(executor='process') on two cores, 1 ms of work, per element",
        [faster(1.6, "Map on one core")],
        lambda: ours.process_map(n),
        {"Map on one core": on_one_core},
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


def order_windows(ours: Ours, url: str, n: int) -> Row:
    with topic(url, n, order(n)) as full:
        return compared_row(
            f"exactly once: JetStream → JSON → count per minute, {ORDER_KEYS:,} keys → JetStream, per message",
            [faster(1.2, "nats-py fetch(1000)"), within(1 / 0.7, "best effort")],
            lambda: ours.order_windows(full, n, "exactly_once"),
            {
                "nats-py fetch(1000)": lambda: peers_nats.nats_fetch(full, n // 2),
                "best effort": lambda: ours.order_windows(full, n, "best_effort"),
                "at least once": lambda: ours.order_windows(full, n, "at_least_once"),
            },
        )


def order_counts(ours: Ours, url: str, n: int) -> Row:
    with topic(url, n, order(n)) as full:
        return compared_row(
            f"exactly once: JetStream → JSON → Keyed(Fold), {ORDER_KEYS:,} keys → JetStream for each, per message",
            [within(2, "nats-py fetch(1000)")],
            lambda: ours.order_counts(full, n, "exactly_once"),
            {
                "nats-py fetch(1000)": lambda: peers_nats.nats_fetch(full, n // 2),
                "best effort": lambda: ours.order_counts(full, n, "best_effort"),
                "at least once": lambda: ours.order_counts(full, n, "at_least_once"),
            },
        )


def commit(url: str, n: int, name: str, peer: Callable[[str, int], Measured]) -> Row:
    return compared_row(
        f"commit of {n:,} changed entries of 100 bytes, per entry",
        [within(2.5, name)],
        lambda: checkpoints.commit(url, n),
        {name: lambda: peer(url, n)},
    )


def restore(url: str, n: int) -> Row:
    return compared_row(
        f"restore of {n:,} entries of 100 bytes, per entry",
        [within(2.5, "nats-py watchall")],
        lambda: checkpoints.restore(url, n),
        {"nats-py watchall": lambda: checkpoints.watchall(url, n)},
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


def hot_key(ours: Ours, url: str) -> Row:
    return compared_row(
        "ObjectStore: one update each from 1,000 tasks, of the same key, per update",
        [faster(20, "nats-py get, update, lock")],
        lambda: ours.hot_key(url, UPDATES),
        {"nats-py get, update, lock": lambda: peers_nats.nats_locked_updates(url, UPDATES // 4)},
    )


def many_keys(ours: Ours, url: str) -> Row:
    """The store remembers what it wrote last. For keys that are new to it, it has to read as the peer does."""
    return compared_row(
        "ObjectStore: one update each of 1,000 keys at the same time, per update",
        [faster(3, "nats-py get, update, gather")],
        lambda: ours.many_keys(url, UPDATES, True),
        {
            "nats-py get, update, gather": lambda: peers_nats.nats_gathered_updates(url, UPDATES),
            "streamflow, keys new to it": lambda: ours.many_keys(url, UPDATES, False),
        },
        CLOSE_ROUNDS,
    )


def memory(seconds: float) -> Row:
    work = f"endless source into a sink of 1 chunk per 10 ms, {seconds:g} s: memory above start"
    bound = f"≤ {megabytes(MEMORY_LIMIT)}"
    return _fresh_memory(work, bound, MEMORY_LIMIT, "memory_growth", seconds, show=megabytes)


def _fresh_memory(
    work: str, text: str, limit: float, function: str, argument: float, *, show: Callable[[float], str]
) -> Row:
    """A row of what a function of ours says about the memory of a fresh process."""
    try:
        resident_memory()
    except Absent as reason:
        bounds, absent = [Bound(text, limit, reason.name)], {reason.name: reason.reason}
        return Row(work, math.nan, bounds, absent=absent, show=show)
    figure = fresh_call("tests.benchmarks.ours", function, argument)
    return Row(work, figure, [Bound(text, limit)], show=show)


def _bytes(value: float) -> str:
    return f"{value:.0f} B"


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
