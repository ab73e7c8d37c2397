"""`zip_with`: as Python's `zip`, over streams that wait for each other, or cannot."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Checkpoint, ConfigurationError, DriftError, EventTime, Skip, Source, StepError
from streamflow.connectors import Collect, Discard, Into
from streamflow.engine.channel import CAPACITY
from streamflow.engine.chunk import CHUNK_SIZE
from streamflow.operators import (
    Batch,
    Count,
    Filter,
    Flatten,
    Inspect,
    Keyed,
    MapAsync,
    Take,
    TumblingWindow,
    fan_out,
    merge,
    zip_with,
)
from streamflow.operators.zip_with import DRIFT
from streamflow.testing import MemoryStore, VirtualClock
from tests.support import Acknowledging, Chunked, Recorder, cut, restarts, run, sizes, until, virtual


def together(*values: Any) -> tuple[Any, ...]:
    return values


lists = st.lists(st.tuples(st.integers(0, 12), sizes), min_size=2, max_size=4)
gaps = st.lists(st.sampled_from([0.0, 0.4, 1.3]), max_size=8)


def sources(lists: list[tuple[int, list[int]]]) -> list[Chunked]:
    return [
        Chunked(cut([f"{number}:{i}" for i in range(n)], sizes), f"s{number}")
        for number, (n, sizes) in enumerate(lists)
    ]


def zipped(lists: list[tuple[int, list[int]]]) -> list[tuple[str, ...]]:
    return [tuple(f"{number}:{i}" for number in range(len(lists))) for i in range(min(n for n, _ in lists))]


@given(lists)
def test_it_is_zip(lists: list[tuple[int, list[int]]]) -> None:
    pipeline = zip_with(together, *sources(lists)).to(Collect())
    assert run(pipeline) == zipped(lists)
    assert run(pipeline) == zipped(lists)


@given(lists)
def test_strict_is_strict(lists: list[tuple[int, list[int]]]) -> None:
    pipeline = zip_with(together, *sources(lists), strict=True).to(Collect())
    if len({n for n, _ in lists}) == 1:
        assert run(pipeline) == zipped(lists)
        return
    with pytest.raises(StepError, match="step 'zip_with'.* ValueError: input . is shorter than others"):
        run(pipeline)
    assert run(pipeline, on_error=Skip()) == zipped(lists)


@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20), sizes, sizes)
def test_a_failure_drops_one_of_each(
    lefts: list[int], rights: list[int], left_sizes: list[int], right_sizes: list[int]
) -> None:
    left, right = Chunked(cut(lefts, left_sizes), "left"), Chunked(cut(rights, right_sizes), "right")

    def divide(a: int, b: int) -> tuple[int, int]:
        return a // b * 0 + a, b

    pipeline = zip_with(divide, left, right, on_error=Skip()).to(Collect())
    assert run(pipeline) == [(a, b) for a, b in zip(lefts, rights, strict=False) if b]


def test_a_failure_names_the_step() -> None:
    with pytest.raises(StepError, match="pipeline 'p', step 'ratio': failed on 0: ZeroDivisionError"):
        run(
            zip_with(lambda a, b: a / b, Source([1, 2]), Source([0, 0]), name="ratio").to(Collect(), name="p")
        )


@given(gaps, gaps, st.booleans())
def test_a_restart_from_any_checkpoint_goes_on(left: list[float], right: list[float], branches: bool) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        a, b = (
            Chunked([[n] for n in range(len(own))], name, times=[sum(own[: n + 1]) for n in range(len(own))])
            for name, own in (("a", left), ("b", right))
        )
        other = a.via(Batch(3)).via(Flatten[Any]()) if branches else b
        clock, sink = Chunked([["tick"]], "clock", times=[9.5]), Recorder()
        both: Any = zip_with(lambda x, y: [x, y], a, other, state=int)
        return merge(both, clock.via(Filter(lambda _: False))).to(sink), sink, clock

    assert restarts(build, every=0.9) >= 9


@pytest.mark.parametrize("behind", [0, 1])
def test_a_source_of_its_own_waits_when_it_is_ahead(behind: int) -> None:
    read = count()

    async def work() -> None:
        streams: list[Any] = [Chunked([["a"], ["b"]], times=[1, 2], ends=False), Source(lambda: read)]
        if behind:
            streams.reverse()
        async with zip_with(together, *streams).to(Collect()).start(clock=VirtualClock()) as running:
            await asyncio.sleep(100)
            assert 2 <= next(read) <= CAPACITY + 4 * CHUNK_SIZE
            await running.stop()

    virtual(work())


def test_checkpoints_go_on_and_hold_back_the_source_that_is_ahead() -> None:
    store, read = MemoryStore(), count()

    async def work() -> None:
        waiting = Chunked([["a"]], ends=False)
        pipeline = zip_with(together, waiting, Source(lambda: read)).to(Collect())
        checkpoint = Checkpoint(every=1, store=store)
        async with pipeline.start(clock=VirtualClock(), checkpoint=checkpoint) as running:
            await asyncio.sleep(30.5)
            assert len(store.history) == 30
            assert next(read) <= 4 * CAPACITY
            await running.stop()

    virtual(work())


# Ends and receipts


@pytest.mark.parametrize("counts", [(9, 5), (5, 9), (0, 9), (7, 7)], ids=str)
@given(sizes, sizes)
def test_messages_without_a_partner_are_handed_back(
    counts: tuple[int, int], left_sizes: list[int], right_sizes: list[int]
) -> None:
    left = Acknowledging(counts[0], left_sizes, name="left")
    right = Acknowledging(counts[1], right_sizes, name="right")
    assert run(zip_with(together, left, right).to(Discard())) == min(counts)
    for source in (left, right):
        source.ledger.check(deliver=[])
        assert sorted(source.ledger.acked) == list(range(min(counts)))


@given(sizes, sizes)
def test_messages_count_whichever_source_completes_the_pair(
    acknowledged: list[int], plain: list[int]
) -> None:
    source = Acknowledging(20, acknowledged, name="left")
    other = Chunked(cut(range(20), plain), "right")
    assert run(zip_with(together, source, other).to(Discard())) == 20
    assert sorted(source.ledger.acked) == list(range(20))


def test_messages_on_which_f_fails_are_dropped_together() -> None:
    left, right = Acknowledging(9, [4, 1], name="left"), Acknowledging(9, [2], ends=False, name="right")
    seen: list[Any] = []

    async def work() -> None:
        pipeline = (
            zip_with(lambda a, b: (a, 6 // (b % 3)), left, right, on_error=Skip())
            .via(Inspect(seen.append))
            .to(Discard())
        )
        async with pipeline.start(clock=VirtualClock()):
            await until(lambda: len(right.ledger.acked) == 9)
            assert sorted(left.ledger.acked) == list(range(9))
            assert [a for a, _ in seen] == [1, 2, 4, 5, 7, 8]

    virtual(work())


def test_messages_of_a_pair_on_which_the_run_fails_come_again() -> None:
    left, right = Acknowledging(9, [4, 1], name="left"), Acknowledging(9, [2], name="right")
    with pytest.raises(StepError):
        run(zip_with(lambda a, b: 6 // (b - 4), left, right).to(Discard()))
    for source in (left, right):
        assert max(source.ledger.acked, default=0) < 4
        assert {4} <= {*source.ledger.returned, *source.ledger.given_back}


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_what_is_ahead_is_handed_back_by_a_drain(ending: str) -> None:
    left = Acknowledging(3, [3], ends=False, name="left")
    right = Acknowledging(20_000, [1000] * 20, ends=False, name="right")
    seen: list[Any] = []

    async def work() -> None:
        pipeline = zip_with(together, left, right).via(Inspect(seen.append)).to(Discard())
        async with pipeline.start(clock=VirtualClock()) as running:
            await until(lambda: len(seen) == 3)
            await asyncio.sleep(1)
            await getattr(running, ending)()
        for source in (left, right):
            source.ledger.check(deliver=[])
            assert sorted(source.ledger.acked) == [0, 1, 2]

    virtual(work())


def test_upstreams_are_told_of_the_end() -> None:
    assert run(zip_with(together, Source(count), Source([1, 2])).to(Collect())) == [(0, 1), (1, 2)]
    assert run(zip_with(together, Source([1, 2]), Source(count).via(Take(5))).to(Collect())) == [
        (1, 0),
        (2, 1),
    ]


# Branches of one source


async def slowly(x: int) -> int:
    await asyncio.sleep((x * 7 % 5) / 10)
    return x


@pytest.mark.parametrize(
    "checkpoint", [None, Checkpoint(every=1, store=MemoryStore())], ids=["", "checkpoint"]
)
def test_a_slow_branch_is_no_drift(checkpoint: Any) -> None:
    quick, slow = fan_out(Source(range(30_000)), 2)
    slow = slow.via(Batch(9_000)).via(Flatten[int]()).via(MapAsync(slowly, concurrency=1000))
    pipeline = zip_with(lambda a, b: a - b, quick, slow).via(Filter(bool)).to(Into(Count()))
    assert run(pipeline, checkpoint=checkpoint) == 0


def test_branches_that_drift_apart_fail_whatever_the_policy() -> None:
    everything, some = fan_out(Source(count), 2)
    pipeline = zip_with(together, everything, some.via(Filter(lambda x: x % 100 == 0)), name="pairs").to(
        Discard()
    )
    with pytest.raises(
        StepError, match=r"step 'pairs'.*DriftError: input 1 is \d+ elements ahead.*join\(\)"
    ) as e:
        run(pipeline, on_error=Skip())
    assert isinstance(e.value.cause, DriftError)


def test_a_drift_below_the_bound_is_none() -> None:
    everything, some = fan_out(Source(range(DRIFT)), 2)
    pipeline = zip_with(together, everything, some.via(Filter(lambda x: x % 100 == 0))).to(Into(Count()))
    assert run(pipeline) == DRIFT // 100 + 1


def test_two_zips_that_wait_for_each_other_do_not_block() -> None:
    a, b = Source(range(20_000)), Source(range(20_000))
    first = zip_with(together, a, b.via(Filter(lambda x: x > 15_000)))
    second = zip_with(together, a.via(Filter(lambda x: x > 15_000)), b)
    assert run(merge(first, second).to(Into(Count()))) == 2 * 4_999


def test_watermarks_go_through() -> None:
    time = EventTime[Any](lambda pair: pair[1])
    left, right = Chunked([[1, 2, 3, 4]], "left"), Chunked([[1, 2], [12], [25]], "right")
    window = Keyed(lambda pair: pair[0] % 2, TumblingWindow(timedelta(seconds=10), time=time, into=Count()))
    result = run(zip_with(together, left, right).via(window).to(Collect()))
    assert [(r.key, r.value.start) for r in result] == [(1, 0), (0, 0), (1, 10), (0, 20)]


def test_mistakes() -> None:
    wrong: Any = 3
    any_zip: Any = zip_with
    with pytest.raises(ConfigurationError, match=r"zip_with\(\) needs at least two streams"):
        any_zip(together, Source([1]))
    with pytest.raises(ConfigurationError, match="zip_with takes streams, not 3"):
        zip_with(together, Source([1]), wrong)
    with pytest.raises(ConfigurationError, match="zip_with takes a plain function"):
        any_zip(slowly, Source([1]), Source([2]))
    with pytest.raises(ConfigurationError, match="zip_with: on_error must be a policy"):
        zip_with(together, Source([1]), Source([2]), on_error=wrong)
