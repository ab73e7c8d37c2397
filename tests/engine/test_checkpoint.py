"""Checkpoints: a restart from any of them gives, with what came before its barrier, the uninterrupted result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import Checkpoint, EventTime, Pipeline, PlanError, Skip, Source, StateError, StreamflowError
from streamflow.connectors import Collect, Discard
from streamflow.engine.checkpoint import Snapshot
from streamflow.operators import (
    Aggregator,
    Batch,
    Count,
    Filter,
    FlatMap,
    Fold,
    Keyed,
    Map,
    MapAsync,
    Mean,
    Reduce,
    Sum,
    Take,
    Throttle,
    ToList,
    TumblingWindow,
    fan_out,
    merge,
    split,
)
from streamflow.operators import Skip as SkipFirst
from streamflow.testing import MemoryStore, VirtualClock
from tests.support import Chunked, Recorder, chain, cut, restarts, run, sizes, times_for, virtual

COUNT = 24


def disordered(x: int) -> float:
    """An event time that goes forward with disorder: some elements come late."""
    return x + (x * 7 % 5) - 2


def window(into: Aggregator[Any, Any]) -> Any:
    return TumblingWindow(
        timedelta(seconds=4),
        time=EventTime(disordered, out_of_order=timedelta(seconds=1), idle_after=timedelta(days=1)),
        into=into,
    )


def by_clock(into: Aggregator[Any, Any], seconds: float = 1.7) -> Any:
    return TumblingWindow(timedelta(seconds=seconds), into=into)


def later(window: Any) -> float:
    return float(window.end)


AGGREGATORS: dict[str, Any] = {
    "list": ToList,
    "count": Count,
    "sum": Sum,
    "sum by": lambda: Sum(lambda x: x * 2),
    "mean": Mean,
    "mean by": lambda: Mean(lambda x: x / 2),
}


def made(operator: Callable[[Any], Any], make: Callable[[], Any]) -> Any:
    return operator(make())


STEPS: dict[str, Callable[[], Any]] = {
    "fold": lambda: Fold(0, lambda total, x: total + x),
    "fold to a list": lambda: Fold(list, lambda seen, x: [*seen, x]),
    "reduce": lambda: Reduce(lambda total, x: total + x),
    "take": lambda: Take(13),
    "take none": lambda: Take(0),
    "take all": lambda: Take(COUNT),
    "skip": lambda: SkipFirst(7),
    "batch": lambda: Batch(5),
    "batch within": lambda: Batch(5, within=1.3),
    "throttle": lambda: Throttle(2, per=1.1),
    "discard": lambda: Throttle(2, per=1.1, mode="discard"),
    **{f"window {name}": partial(made, window, make) for name, make in AGGREGATORS.items()},
    **{f"clock window {name}": partial(made, by_clock, make) for name, make in AGGREGATORS.items()},
}
KEYED = {
    f"keyed {name}": partial(made, partial(Keyed, lambda x: x % 3), make) for name, make in STEPS.items()
}
CHAINS: dict[str, Callable[[], Any]] = {
    "fold, batch": lambda: Fold(0, lambda total, x: total + x).via(Batch(4)),
    "skip, take": lambda: SkipFirst(3).via(Take(11)),
    "throttle, batch": lambda: Throttle(2, per=1.1).via(Batch(3, within=0.9)),
    "batch, throttle": lambda: Batch(3, within=0.9).via(Throttle(1, per=1.1)),
    "take, throttle": lambda: Take(13).via(Throttle(1, per=0.7)),
    "throttle, take": lambda: Throttle(1, per=0.7).via(Take(13)),
    "throttle, throttle": lambda: Throttle(3, per=1.3).via(Map(lambda x: x)).via(Throttle(1, per=0.7)),
    "take, batch within": lambda: Take(13).via(Batch(50, within=3)),
    "window, window": lambda: window(ToList()).via(
        TumblingWindow(
            timedelta(seconds=12),
            time=EventTime(lambda w: w.start, idle_after=timedelta(days=1)),
            into=Count(),
        )
    ),
    "window, clock window": lambda: window(Count()).via(by_clock(Count(), 3.1)),
    "clock window, fold": lambda: by_clock(Count()).via(Fold(0, lambda n, w: n + w.value)),
    "keyed chain": lambda: Keyed(
        lambda x: x % 2, SkipFirst(2).via(Fold(0, lambda n, x: n + x)).via(Batch(3))
    ),
    "keyed windows": lambda: Keyed(lambda x: x % 2, Filter(lambda x: x % 5).via(window(ToList()))).via(
        Keyed(lambda keyed: keyed.key, Fold(0, lambda n, keyed: n + len(keyed.value.value)))
    ),
    "keyed twice": lambda: Keyed(lambda x: x % 4, Fold(0, lambda n, x: n + x)).via(
        Keyed(lambda keyed: keyed.key % 2, Fold(0, lambda n, keyed: n + keyed.value))
    ),
    "flat map, take": lambda: FlatMap(lambda x: [x] * (x % 3)).via(Take(17)),
}

ALL: dict[str, Callable[[], Any]] = {**STEPS, **KEYED, **CHAINS}


def builder(
    make: Callable[[], Any], cuts: list[int], gaps: list[float]
) -> Callable[[], tuple[Pipeline[list[Any]], Recorder, Chunked]]:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        chunks = cut(range(COUNT), cuts)
        source = Chunked(chunks, times=times_for(chunks, gaps))
        sink = Recorder()
        stream: Any = source
        for number, part in enumerate(getattr(made := make(), "flows", (made,))):
            stream = stream.via(part, name=f"step {number}")
        return stream.to(sink), sink, source

    return build


gaps = st.lists(st.sampled_from([0.0, 0.3, 0.55, 1.25, 2.6]), min_size=1, max_size=4).filter(any)


@pytest.mark.parametrize("step", ALL)
@settings(max_examples=8)
@given(cuts=st.lists(st.integers(1, 5), min_size=4, max_size=10), gaps=gaps)
def test_a_restart_from_every_checkpoint_gives_the_uninterrupted_result(
    step: str, cuts: list[int], gaps: list[float]
) -> None:
    # Keys have no order among each other; each has its results in order.
    restarts(builder(ALL[step], cuts, gaps), order=by_key if "keyed" in step else list)


def by_key(results: list[Any]) -> list[Any]:
    return sorted(results, key=lambda keyed: keyed[0])


@pytest.mark.parametrize(
    "flow",
    [
        Throttle(2, per=1.1),
        chain(Fold(0, lambda n, x: n + x), Throttle(1, per=0.3), Batch(4)),
        chain(Batch(4), Throttle(1, per=0.9)),
        chain(Keyed(lambda x: x % 3, Throttle(1, per=0.4)), Map(lambda keyed: keyed.value)),
        chain(Throttle(1, per=0.7), Take(13), Batch(3, within=1.6)),
    ],
    ids=["throttle", "fold", "batch", "keyed", "take"],
)
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 5), min_size=4, max_size=10))
def test_a_source_that_never_waits_restarts_exactly(flow: Any, cuts: list[int]) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        source, sink = Chunked(cut(range(COUNT), cuts)), Recorder()
        return source.via(flow).to(sink), sink, source

    # Timers of several keys at the same moment have no order.
    assert restarts(build, order=as_multiset) > 1


def test_there_are_checkpoints_in_the_middle() -> None:
    assert restarts(builder(STEPS["window list"], [3] * 8, [1.0])) > 5


# Barriers in graphs


def as_multiset(results: list[Any]) -> list[Any]:
    return sorted(results, key=repr)


async def slowly(x: int) -> int:
    await asyncio.sleep(0.3 + (x * 7 % 5) / 5)
    return x


@pytest.mark.parametrize("is_ordered", [True, False], ids=["ordered", "unordered"])
@settings(max_examples=10)
@given(cuts=sizes, concurrency=st.integers(1, 5), gaps=gaps)
def test_a_diamond_with_a_slow_branch_restarts_exactly(
    is_ordered: bool, cuts: list[int], concurrency: int, gaps: list[float]
) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        chunks = cut(range(COUNT), cuts)
        source, sink = Chunked(chunks, times=times_for(chunks, gaps)), Recorder()
        left, right, third = fan_out(source, 3)
        slow = left.via(MapAsync(slowly, concurrency=concurrency, ordered=is_ordered)).via(
            Map(lambda x: ("slow", x))
        )
        fast = right.via(Filter(lambda x: x % 2)).via(Map(lambda x: ("fast", x)))
        taken = third.via(Take(9)).via(Map(lambda x: ("taken", x)))
        joined = merge(slow, fast, taken).via(Keyed(lambda pair: pair[0], Fold(0, lambda n, x: n + 1)))
        return joined.to(sink), sink, source

    assert restarts(build, order=as_multiset) > 0


@settings(max_examples=10)
@given(cuts=sizes, others=sizes, gaps=gaps)
def test_several_sources_restart_exactly(cuts: list[int], others: list[int], gaps: list[float]) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        chunks = cut(range(COUNT), cuts)
        source, sink = Chunked(chunks, "long", times=times_for(chunks, gaps)), Recorder()
        short = Chunked(cut(range(100, 107), others), "short")
        odd, even = split(short.via(MapAsync(slowly, concurrency=2)), lambda x: x % 2)
        joined = merge(source, odd, even.via(Batch(2)).via(FlatMap(list)))
        return joined.via(Keyed(lambda x: x % 3, Fold(0, lambda n, x: n + 1))).to(sink), sink, source

    assert restarts(build, order=as_multiset) > 0


@given(cuts=sizes, every=st.sampled_from([0.65, 0.9, 1.0]))
@settings(max_examples=15)
def test_a_timer_that_is_due_between_a_barrier_and_its_commit_is_in_the_checkpoint(
    cuts: list[int], every: float
) -> None:
    """The barrier waits behind slow work while the batch's time is up: what is saved is the batch with its timer."""

    async def very_slowly(x: Any) -> Any:
        await asyncio.sleep(2.5)
        return x

    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        chunks = cut(range(COUNT), cuts)
        source, sink = Chunked(chunks, times=times_for(chunks, [1.25])), Recorder()
        return source.via(Batch(50, within=1.0)).via(MapAsync(very_slowly)).to(sink), sink, source

    restarts(build, every=every)


async def commits_within(pipeline: Pipeline[Any], seconds: float, checkpoints: int) -> None:
    store = MemoryStore()
    checkpoint = Checkpoint(every=timedelta(seconds=1), store=store)
    async with pipeline.start(checkpoint=checkpoint, clock=VirtualClock()) as running:
        await asyncio.sleep(seconds)
        assert len(store.history) >= checkpoints
        await running.stop()


@pytest.mark.parametrize(
    "flow",
    [
        Batch(1_000),
        Batch(1_000, within=3600),
        window(Count()),
        by_clock(Count(), 86_400),
        Throttle(1, per=3600),
        Throttle(1, per=3600).via(MapAsync(slowly)).via(Throttle(1, per=7200)),
        Take(3).via(Batch(10, within=3600)),
    ],
    ids=["batch", "batch within", "window", "clock window", "throttle", "throttles", "take"],
)
@pytest.mark.parametrize("ends", [True, False], ids=["ended source", "endless source"])
def test_no_barrier_waits_for_a_batch_a_window_or_a_throttle(flow: Any, ends: bool) -> None:
    source = Chunked(cut(range(60), [7, 20, 13]), ends=ends)
    other = Chunked([[1]], "other", ends=False)
    stream: Any = source
    for number, part in enumerate(getattr(flow, "flows", (flow,))):
        stream = stream.via(part, name=f"step {number}")
    virtual(commits_within(merge(stream, other).to(Discard()), 10, 8))


def test_an_ended_input_and_a_detached_branch_hold_no_barrier_back() -> None:
    left, right = fan_out(Chunked([[i] for i in range(100)], times=[i / 10 for i in range(100)]), 2)
    joined = merge(left.via(Take(2)), right.via(MapAsync(slowly)), Source([1, 2]))
    virtual(commits_within(joined.to(Discard()), 9, 4))


# What is saved


def test_what_changes_behind_a_barrier_does_not_reach_its_checkpoint() -> None:
    """The barrier waits in a slow step while lists and windows in front of it grow on."""

    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        chunks = [[x] for x in range(COUNT)]
        source, sink = Chunked(chunks, times=times_for(chunks, [0.3])), Recorder()
        stream = source.via(window(ToList()), name="first").via(FlatMap(lambda w: w.value))
        return stream.via(Batch(3)).via(MapAsync(slow_list)).to(sink), sink, source

    async def slow_list(xs: list[int]) -> list[int]:
        await asyncio.sleep(1.4)
        return xs

    assert restarts(build, every=0.5) > 3


class Commits(MemoryStore):
    """A store that keeps the changes themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Snapshot] = []

    async def commit(self, pipeline: str, change: Snapshot) -> None:
        self.changes.append(change)


def test_a_commit_has_only_what_changed_and_names_what_is_gone() -> None:
    store = Commits()
    source = Chunked([[1, 2], [1], [9]], times=[0.0, 1.2, 5.5])
    keyed: Any = Keyed(lambda x: x, Batch(2))
    run(source.via(keyed, name="k").to(Discard()), checkpoint=Checkpoint(store=store))
    changed = [
        {slot: data is None for slot, data in commit.tables["k/Batch"].entries.items()}
        for commit in store.changes
    ]
    assert len(changed) == 6
    assert list(changed[0].values()) == [False, False]
    assert list(changed[1].values()) == [True]
    assert changed[2] == changed[3] == changed[4] == {}
    assert list(changed[-1].values()) == [True, True]
    assert [commit.finished for commit in store.changes] == [False] * 5 + [True]


def test_a_drained_run_goes_on_where_it_was() -> None:
    store = MemoryStore()
    flow: Any = Fold(0, lambda n, x: n + x)

    async def first() -> Any:
        pipeline = Chunked([[1, 2], [3]], ends=False).via(flow).via(Batch(2)).to(Collect())
        async with pipeline.start(checkpoint=Checkpoint(store=store), clock=VirtualClock()) as running:
            await asyncio.sleep(0.5)
            await running.drain()
            return await running.wait()

    assert virtual(first()) == [[1, 3]]
    assert not store.history[-1].finished
    again = Chunked([[1, 2], [3], [4, 5]]).via(flow).via(Batch(2)).to(Collect())
    assert run(again, checkpoint=Checkpoint(store=store)) == [[6, 10], [15]]
    assert store.history[-1].finished
    assert run(again, checkpoint=Checkpoint(store=store)) == []


def test_a_failed_or_stopped_run_commits_nothing_at_its_end() -> None:
    store = MemoryStore()
    with pytest.raises(StreamflowError):
        run(Source([1, 0]).via(Map(lambda x: 1 / x)).to(Collect()), checkpoint=Checkpoint(store=store))
    assert store.history == []


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (lambda n: (n,), "comes back as"),
        (lambda n: {n}, "comes back as"),
        (lambda n: Point(n), "cannot be saved"),
        (lambda n: 2**70 + n, "cannot be saved"),
        (lambda n: object, "cannot be saved"),
        (lambda n: {1: {2: (n,)}}, "comes back as"),
        (lambda n: UUID(int=n), "comes back as"),
        (lambda n: complex(n), "cannot be saved"),
        (lambda n: "\ud800", "cannot be saved"),
    ],
)
@pytest.mark.parametrize("policy", [None, Skip()], ids=["fail", "skip"])
def test_a_state_that_does_not_come_back_as_it_was_is_refused_by_the_steps_name(
    state: Any, why: str, policy: Any
) -> None:
    flow: Any = Fold(0, lambda _, n: state(n))
    pipeline = Chunked([[1], [2]], times=[0.0, 2.0]).via(flow, name="odd").to(Discard())
    with pytest.raises(StreamflowError, match=why) as caught:
        run(pipeline, checkpoint=Checkpoint(store=MemoryStore()), on_error=policy)
    assert "'odd'" in str(caught.value)


def test_a_state_that_cannot_be_saved_is_never_skipped_while_elements_come() -> None:
    """The barrier waits in a slow step; the next element makes the step save its state, and that must not be lost."""
    flow: Any = Fold(0, lambda _, n: (n,))
    pipeline = Chunked([[1], [2]], times=[0.0, 1.5]).via(flow, name="odd").via(MapAsync(slow)).to(Discard())
    with pytest.raises(StreamflowError, match="comes back as"):
        run(pipeline, checkpoint=Checkpoint(store=MemoryStore()), on_error=Skip())


async def slow(x: Any) -> Any:
    await asyncio.sleep(5)
    return x


def test_not_a_number_is_a_state_like_any_other() -> None:
    source = Chunked([[1.0], [float("nan")], [2.0]], times=[0.0, 1.5, 3.0])
    assert len(run(source.via(Batch(3)).to(Collect()), checkpoint=Checkpoint(store=MemoryStore()))) == 1


@pytest.mark.parametrize("key", [1, -5, 2.5, "a", b"a", None, True, (1, "a", (2, None))], ids=repr)
def test_keys_come_back_as_they_were(key: Any) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        source, sink = Chunked([[1], [2], [3]], times=[0.0, 1.5, 3.0]), Recorder()
        return source.via(Keyed(lambda x: key, Fold(0, lambda n, x: n + x))).to(sink), sink, source

    assert restarts(build) > 1


@pytest.mark.parametrize(
    "key", [UUID(int=1), frozenset([1]), timedelta(1), (1, UUID(int=1)), 2**70], ids=repr
)
def test_a_key_that_would_come_back_as_another_is_refused(key: Any) -> None:
    pipeline = Chunked([[1], [2]], times=[0.0, 1.5]).via(Keyed(lambda x: key, Fold(0, lambda n, x: n + x)))
    with pytest.raises(StateError, match=r"step 'Keyed/Fold': the key .* cannot be saved"):
        run(pipeline.to(Discard()), checkpoint=Checkpoint(store=MemoryStore()))


def test_saved_state_of_another_type_is_refused_at_the_start() -> None:
    store = MemoryStore()
    first: Any = Fold(0, lambda n, x: "text")
    run(Source([1]).via(first, name="step").to(Discard()), checkpoint=Checkpoint(store=store))
    second: Any = Fold(0, lambda n, x: n + x, state=int)
    with pytest.raises(StateError, match=r"pipeline 'pipeline', step 'step': saved state does not decode"):
        run(Source([1, 2]).via(second, name="step").to(Discard()), checkpoint=Checkpoint(store=store))


def test_two_unnamed_steps_of_a_class_are_refused_when_their_state_is_saved() -> None:
    twice = Source([1]).via(Batch(2)).via(Batch(2)).to(Discard())
    with pytest.raises(PlanError, match=r"Batch is used twice .* name="):
        run(twice, checkpoint=Checkpoint(store=MemoryStore()))
    run(twice)


def test_a_store_that_fails_fails_the_pipeline() -> None:
    class Broken(Commits):
        async def commit(self, pipeline: str, change: Snapshot) -> None:
            raise OSError("disk full")

    pipeline = Chunked([[1], [2]], times=[0.0, 5.0], ends=False).via(Batch(3)).to(Discard())
    with pytest.raises(OSError, match="disk full"):
        run(pipeline, checkpoint=Checkpoint(store=Broken()))


@pytest.mark.parametrize("is_async", [True, False], ids=["async source", "sync source"])
@pytest.mark.parametrize("before", [Map(abs), MapAsync(slowly)], ids=["direct", "stages"])
def test_barriers_do_not_make_a_throttles_backlog_grow_for_ever(is_async: bool, before: Any) -> None:
    """Each barrier pushes what is in front of it into the throttle; then the source must not fill the gap."""
    produced = 0

    def endless() -> Iterator[int]:
        nonlocal produced
        while True:
            produced += 1
            yield produced

    async def endless_async() -> AsyncIterator[int]:
        for number in endless():
            yield number

    async def work() -> None:
        source: Source[int] = Source(endless_async if is_async else endless)
        checkpoint = Checkpoint(every=timedelta(seconds=1), store=MemoryStore())
        pipeline = source.via(before).via(Throttle(1, per=1)).to(Discard())
        async with pipeline.start(checkpoint=checkpoint, clock=VirtualClock()) as running:
            await asyncio.sleep(20)
            in_flight = produced
            await asyncio.sleep(40)
            assert produced <= in_flight + 1024
            await running.stop()

    virtual(work())
