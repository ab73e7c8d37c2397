"""`concat`: one after the other, while the others wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Checkpoint, ConfigurationError, EventTime, PlanError, Source
from streamflow.connectors import Collect, Discard
from streamflow.engine.channel import CAPACITY
from streamflow.engine.chunk import CHUNK_SIZE
from streamflow.operators import (
    Count,
    Filter,
    Keyed,
    Map,
    MapAsync,
    PassThrough,
    Take,
    TumblingWindow,
    concat,
    fan_out,
    merge,
    zip_with,
)
from streamflow.testing import MemoryStore, VirtualClock
from tests.support import (
    Acknowledging,
    Chunked,
    Confirming,
    Recorder,
    cut,
    restarts,
    run,
    sizes,
    until,
    virtual,
)

lists = st.lists(st.tuples(st.integers(0, 12), sizes), min_size=1, max_size=4)


def sources(lists: list[tuple[int, list[int]]]) -> list[Chunked]:
    return [
        Chunked(cut([(number, i) for i in range(n)], sizes), f"s{number}")
        for number, (n, sizes) in enumerate(lists)
    ]


@given(lists)
def test_all_of_the_first_then_all_of_the_second(lists: list[tuple[int, list[int]]]) -> None:
    pipeline = concat(*sources(lists)).to(Collect())
    expected = [(number, i) for number, (n, _) in enumerate(lists) for i in range(n)]
    assert run(pipeline) == expected
    assert run(pipeline) == expected


@given(st.lists(st.lists(st.sampled_from([0.0, 0.4, 1.3]), max_size=6), min_size=3, max_size=3))
def test_a_restart_from_any_checkpoint_goes_on_in_order(gaps: list[list[float]]) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        made = [
            Chunked(
                [[(number, i)] for i in range(len(own))],
                f"s{number}",
                times=[sum(own[: i + 1]) for i in range(len(own))],
            )
            for number, own in enumerate(gaps)
        ]
        clock = Chunked([["tick"]], "clock", times=[9.5])
        sink = Recorder()
        last = concat(*made, state=tuple[int, int]).via(PassThrough())
        return merge(last, clock.via(Filter(lambda _: False))).to(sink), sink, clock

    assert restarts(build, every=0.9) >= 9


def test_later_inputs_are_not_read_before_their_turn() -> None:
    read = count()

    async def work() -> None:
        waiting = Chunked([["a"]], ends=False)
        async with concat(waiting, Source(lambda: read)).to(Collect()).start(clock=VirtualClock()) as running:
            await asyncio.sleep(100)
            assert next(read) <= CAPACITY + 2 * CHUNK_SIZE
            await running.stop()

    virtual(work())


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_what_waits_is_handed_back_by_a_drain(ending: str) -> None:
    first, second = Acknowledging(5, [5], ends=False, name="first"), Acknowledging(50, [9], name="second")
    sink = Confirming(first)

    async def work() -> None:
        async with concat(first, second).to(sink).start(clock=VirtualClock()) as running:
            await until(lambda: len(sink.values) == 5)
            await asyncio.sleep(1)
            await getattr(running, ending)()
        first.ledger.check()
        second.ledger.check(deliver=[])
        assert (sorted(first.ledger.acked), second.ledger.acked) == (list(range(5)), [])

    virtual(work())


def test_checkpoints_go_on_while_later_inputs_wait_and_hold_their_sources() -> None:
    store, read = MemoryStore(), count()

    async def work() -> None:
        waiting = Chunked([["a"]], ends=False)
        pipeline = concat(waiting, Source(lambda: read)).to(Collect())
        checkpoint = Checkpoint(every=1, store=store)
        async with pipeline.start(clock=VirtualClock(), checkpoint=checkpoint) as running:
            await asyncio.sleep(30.5)
            assert len(store.history) == 30
            assert next(read) <= 4 * CAPACITY
            await running.stop()

    virtual(work())


def test_messages_of_each_are_acknowledged() -> None:
    first, second = Acknowledging(9, [2, 4], name="first"), Acknowledging(7, [3], name="second")
    assert run(concat(first, second).to(Discard())) == 16
    assert sorted(first.ledger.acked) == list(range(9))
    assert sorted(second.ledger.acked) == list(range(7))


def test_a_take_behind_tells_all_sources() -> None:
    first, second = Acknowledging(9, [2, 4], name="first"), Acknowledging(7, [3], name="second")
    assert run(concat(first, second).via(Take(11)).to(Collect())) == [*range(9), 0, 1]
    assert sorted(first.ledger.acked) == list(range(9))
    assert sorted(second.ledger.acked) == [0, 1]
    assert sorted(second.ledger.given_back + second.ledger.returned) == [
        x for x in second.ledger.read if x > 1
    ]


def test_watermarks_of_all_inputs_go_through() -> None:
    time = EventTime[int](lambda t: t)
    early, late = Chunked([[1, 2, 12]], "early"), Chunked([[13, 14], [25]], "late")
    window = Keyed(lambda t: t % 2, TumblingWindow(timedelta(seconds=10), time=time, into=Count()))
    result = run(concat(early, late).via(window).to(Collect()))
    assert sorted((r.key, r.value.start, r.value.value) for r in result) == [
        (0, 0, 1),
        (0, 10, 2),
        (1, 0, 1),
        (1, 10, 1),
        (1, 20, 1),
    ]


async def later(x: int) -> int:
    return x


def branched() -> Any:
    left, right = fan_out(Source([1, 2], name="orders"), 2)
    return concat(left.via(MapAsync(later)), right.via(Map(abs)))


def windowed() -> Any:
    source = Source([1, 2], name="orders")
    windows = source.via(TumblingWindow(timedelta(1), time=EventTime(lambda x: x), into=Count()))
    return concat(merge(windows, Source([3])), source)


@pytest.mark.parametrize("stream", [branched, windowed])
def test_branches_of_one_source_are_refused(stream: Any) -> None:
    with pytest.raises(
        PlanError,
        match="pipeline 'p', step 'concat': inputs 1 and 2 are branches of 'orders', which would have to wait",
    ):
        run(stream().to(Collect(), name="p"))


def test_two_that_wait_for_each_other_are_refused() -> None:
    a, b = Source([1], name="a"), Source([2], name="b")
    crossed = merge(concat(a, b), zip_with(max, b, a))
    with pytest.raises(PlanError, match="step 'concat': inputs 1 and 2 are also awaited by another step"):
        run(crossed.to(Collect()))
    assert run(concat(concat(a, b), Source([3])).to(Collect())) == [1, 2, 3]
    assert run(concat(Source([0]), zip_with(max, a, b)).to(Collect())) == [0, 2]


def test_mistakes() -> None:
    wrong: Any = 3
    with pytest.raises(ConfigurationError, match=r"concat\(\) needs at least one stream"):
        concat()
    with pytest.raises(ConfigurationError, match="concat takes streams, not 3"):
        concat(Source([1]), wrong)
    with pytest.raises(ConfigurationError, match="the name of a step must be a text, not 3"):
        concat(Source([1]), Source([2]), name=wrong)
