"""Diamonds: a stream that branches and comes together again loses, doubles and blocks nothing, however it is done."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import Checkpoint, EventTime, Pipeline, Stream
from streamflow.connectors import Discard
from streamflow.operators import (
    Batch,
    Filter,
    Flatten,
    Map,
    MapAsync,
    Take,
    fan_out,
    join,
    merge,
    partition,
    round_robin,
    route,
    split,
    zip_latest,
    zip_with,
)
from streamflow.testing import MemoryStore, VirtualClock
from tests.support import (
    Acknowledging,
    Chunked,
    Confirming,
    Recorder,
    chain,
    cut,
    restarts,
    run,
    sizes,
    virtual,
)


async def slowly(x: int) -> int:
    await asyncio.sleep((x * 7 % 5) / 10)
    return x


PATHS: dict[str, Any] = {
    "direct": Map(lambda x: x),
    "slow": MapAsync(slowly, concurrency=3),
    "unordered": MapAsync(slowly, concurrency=3, ordered=False),
    "batch": chain(Batch(7), Flatten()),
    "batch within": chain(Batch(100, within=0.7), Flatten()),
    "slow batch": chain(MapAsync(slowly, concurrency=2), Batch(4), Flatten(), MapAsync(slowly)),
}
paths = st.sampled_from(sorted(PATHS))
orderly = st.sampled_from(sorted(PATHS.keys() - {"unordered"}))
takes = st.sampled_from([None, 0, 1, 5])
checkpoints = st.sampled_from([None, 0.3, 1.0])


def options(every: float | None) -> dict[str, Any]:
    return {} if every is None else {"checkpoint": Checkpoint(every=every, store=MemoryStore())}


def path(stream: Stream[Any], name: str, take: int | None = None) -> Stream[Any]:
    if take is not None:
        stream = stream.via(Take(take), name=f"take {name} {id(stream)}")
    for flow in getattr(PATHS[name], "flows", [PATHS[name]]):
        stream = stream.via(flow, name=f"{type(flow).__name__} {name} {id(stream)}")
    return stream


def source(count: int, sizes: list[int], *, timed: bool) -> Chunked:
    chunks = cut(range(count), sizes)
    return Chunked(chunks, "source", times=[n * 0.25 for n in range(len(chunks))] if timed else None)


@given(st.integers(0, 40), sizes, paths, paths, takes, checkpoints, st.booleans())
def test_merge(
    count: int, sizes: list[int], left: str, right: str, take: int | None, every: float | None, timed: bool
) -> None:
    one, other = fan_out(source(count, sizes, timed=timed), 2)
    sink = Recorder()
    run(merge(path(one, left, take), path(other, right)).to(sink), **options(every))
    taken = range(count if take is None else min(take, count))
    assert Counter(sink.values) == Counter(range(count)) + Counter(taken)


@given(st.integers(0, 40), sizes, orderly, orderly, takes, checkpoints, st.booleans())
def test_zip(
    count: int, sizes: list[int], left: str, right: str, take: int | None, every: float | None, timed: bool
) -> None:
    one, other = fan_out(source(count, sizes, timed=timed), 2)
    sink = Recorder()
    pairs = zip_with(lambda a, b: (a, b), path(one, left, take), path(other, right))
    run(pairs.to(sink), **options(every))
    assert sink.values == [(n, n) for n in range(count if take is None else min(take, count))]


@given(st.integers(1, 40), sizes, orderly, orderly, checkpoints, st.booleans())
def test_zip_latest(
    count: int, sizes: list[int], left: str, right: str, every: float | None, timed: bool
) -> None:
    one, other = fan_out(source(count, sizes, timed=timed), 2)
    sink = Recorder()
    latest = zip_latest(lambda a, b: (a, b), path(one, left), path(other, right))
    run(latest.to(sink), **options(every))
    assert sink.values[-1] == (count - 1, count - 1)
    assert len(sink.values) <= 2 * count - 1
    steps = zip(sink.values, sink.values[1:], strict=False)
    assert all((b[0] - a[0], b[1] - a[1]) in ((0, 1), (1, 0)) for a, b in steps)


@given(st.integers(0, 40), sizes, paths, paths, takes, checkpoints, st.booleans())
def test_join(
    count: int, sizes: list[int], left: str, right: str, take: int | None, every: float | None, timed: bool
) -> None:
    """Elements out of order by what an unordered path makes of them find each other all the same."""
    one, other = fan_out(source(count, sizes, timed=timed), 2)
    sink = Recorder()
    time = EventTime[int](float, out_of_order=40)
    pairs = join(path(one, left, take), path(other, right), (str, str), timedelta(0), "outer", time=time)
    run(pairs.to(sink), **options(every))
    taken = count if take is None else min(take, count)
    assert sorted(sink.values, key=lambda pair: pair[1]) == [
        (n if n < taken else None, n) for n in range(count)
    ]


PARTINGS: dict[str, Any] = {
    "split": lambda stream: split(stream, lambda x: x % 3),
    "route": lambda stream: route(stream, lambda x: "abc"[x % 3], ["a", "b"], default="c").values(),
    "round_robin": lambda stream: round_robin(stream, 3),
    "partition": lambda stream: partition(stream, 3, lambda x: x),
}


@pytest.mark.parametrize("parting", PARTINGS)
@settings(max_examples=25)
@given(st.integers(0, 40), sizes, paths, paths, checkpoints)
def test_parts_come_together(
    parting: str, count: int, sizes: list[int], left: str, right: str, every: float | None
) -> None:
    first, *others = PARTINGS[parting](source(count, sizes, timed=False))
    sink = Recorder()
    run(merge(path(first, left), *(path(other, right) for other in others)).to(sink), **options(every))
    assert sorted(sink.values) == list(range(count))


JOININGS: dict[str, Any] = {
    "merge": merge,
    "zip_with": lambda a, b: zip_with(lambda x, y: [x, y], a, b, state=int).via(Flatten()),
    "join": lambda a, b: join(
        a, b, (str, str), 0, "outer", time=EventTime(float, out_of_order=40), state=int, name="join"
    ).via(Flatten()),
}


@pytest.mark.parametrize("joining", JOININGS)
@settings(max_examples=25)
@given(sizes, st.sampled_from([("direct", "slow"), ("batch", "direct"), ("slow batch", "batch")]))
def test_a_restart_from_any_checkpoint_goes_on(joining: str, sizes: list[int], ways: tuple[str, str]) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        origin, sink = source(20, [*sizes, 1, 3, 1, 2], timed=True), Recorder()
        one, other = (
            named(branch, way, side) for branch, way, side in zip(fan_out(origin, 2), ways, "lr", strict=True)
        )
        return JOININGS[joining](one, other).to(sink), sink, origin

    restarts(build, every=0.3, order=sorted)


def named(stream: Stream[Any], way: str, side: str) -> Stream[Any]:
    for number, flow in enumerate(getattr(PATHS[way], "flows", [PATHS[way]])):
        stream = stream.via(flow, name=f"{side}{number}")
    return stream


# Receipts


@pytest.mark.parametrize("joining", ["merge", "zip_with"])
@settings(max_examples=40)
@given(st.integers(0, 30), sizes, orderly, orderly, takes)
def test_messages_are_settled_once(
    joining: str, count: int, sizes: list[int], left: str, right: str, take: int | None
) -> None:
    messages = Acknowledging(count, sizes)
    one, other = fan_out(messages, 2)
    stream = JOININGS[joining](path(one, left, take), path(other, right))
    run(stream.to(Confirming(messages)))
    taken = count if take is None else min(take, count)
    delivered = count if joining == "merge" else taken
    messages.ledger.check(deliver=range(delivered))
    acked = sorted(messages.ledger.acked)
    # A batch cannot tell its messages apart: when a part of it finds no partner, all come again.
    assert acked == list(range(delivered)) or (
        joining == "zip_with" and "batch" in left + right and {*acked} <= {*range(delivered)}
    )


@pytest.mark.parametrize("joining", ["merge", "zip_with"])
@pytest.mark.parametrize("ending", ["drain", "stop"])
@settings(max_examples=25)
@given(sizes, orderly, orderly, st.floats(0.05, 3))
def test_a_drain_or_stop_hands_back_the_rest(
    joining: str, ending: str, sizes: list[int], left: str, right: str, after: float
) -> None:
    messages = Acknowledging(30, sizes, ends=False)

    async def work() -> None:
        one, other = fan_out(messages, 2)
        stream = JOININGS[joining](path(one, left), path(other, right))
        async with stream.to(Confirming(messages)).start(clock=VirtualClock()) as running:
            await asyncio.sleep(after)
            await getattr(running, ending)()

    virtual(work())
    messages.ledger.check()
    if ending == "drain":
        assert messages.ledger.returned == []


def test_messages_of_a_join_are_acknowledged() -> None:
    messages = Acknowledging(30, [4, 5])
    one, other = fan_out(messages, 2)
    time = EventTime[int](float, out_of_order=40)
    pairs = join(path(one, "slow"), other.via(Filter(lambda x: x % 2)), (str, str), 0, "left", time=time)
    assert run(pairs.to(Discard()), delivery="best_effort") == 30
    messages.ledger.check(deliver=[])
    assert sorted(messages.ledger.acked) == list(range(30))
