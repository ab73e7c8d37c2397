"""Where steps meet: slow work in front of acknowledgements, ends that come from another stage, time that is held."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

import streamflow
from streamflow import Checkpoint, EventTime, Source, StepError
from streamflow.connectors import Collect, Discard, Into, QueueSource
from streamflow.operators import Aggregator, Batch, FlatMap, Flatten, Map, MapAsync, Take, TumblingWindow
from streamflow.testing import MemoryStore, VirtualClock
from tests.support import Acknowledging, run, virtual


async def slow(x: int) -> int:
    await asyncio.sleep(1)
    return x


def test_what_slow_work_has_done_is_acknowledged_before_the_rest_of_its_chunk() -> None:
    source = Acknowledging(100, [100], ends=False)

    async def work() -> None:
        pipeline = source.via(MapAsync(slow, concurrency=10)).to(Discard())
        async with pipeline.start(clock=VirtualClock()) as running:
            await asyncio.sleep(2.5)
            assert sorted(source.ledger.acked) == list(range(20))
            await running.stop()
        assert sorted(source.ledger.acked + source.ledger.returned) == list(range(100))

    virtual(work())


@pytest.mark.parametrize("merged", [False, True])
def test_an_endless_iterable_ends_when_a_later_stage_has_enough(merged: bool) -> None:
    endless = Source([1]).via(FlatMap(lambda _: count()))
    stream = streamflow.operators.merge(endless, Source[int]([])) if merged else endless.via(MapAsync(slow))
    assert run(stream.via(Take(5)).to(Collect())) == list(range(5))


def test_a_quiet_source_does_not_overtake_what_a_batch_holds() -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    time = EventTime[float](lambda t: t, idle_after=1)
    windows = TumblingWindow(timedelta(seconds=5), time=time)

    async def work() -> None:
        pipeline = (
            QueueSource(queue).via(Batch(10, within=30)).via(Flatten[float]()).via(windows).to(Collect())
        )
        async with pipeline.start(clock=VirtualClock()) as running:
            for value in [*range(9), 30, 31, 32, 33, 34, 35]:
                queue.put_nowait(float(value))
                await asyncio.sleep(0.01)
            await asyncio.sleep(100)
            queue.put_nowait(None)
            result = await running.wait()
            assert sum(stats.late for stats in running.stats().steps.values()) == 0
        assert [w.value for w in result] == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [30, 31, 32, 33, 34], [35]]

    virtual(work())


def test_durations_may_be_numbers() -> None:
    time = EventTime[float](lambda t: t, out_of_order=5, idle_after=5)
    pipeline = Source([1.0, 7.0, 3.0]).via(TumblingWindow(timedelta(seconds=2), time=time)).to(Collect())
    result = run(pipeline, checkpoint=Checkpoint(every=1, store=MemoryStore()))
    assert [w.value for w in result] == [[1.0], [3.0], [7.0]]


def test_an_element_that_cannot_be_sent_to_a_process_goes_to_the_policy() -> None:
    items: list[Any] = [1, lambda: 1, -2]
    pipeline = Source(items).via(Map(abs, executor="process", on_error=streamflow.Skip())).to(Collect())
    assert asyncio.run(pipeline.run()) == [1, 2]


class _Broken(Aggregator[Any, int]):
    def initial(self) -> int:
        return 0

    def add(self, acc: int, value: Any) -> int:
        return acc

    def result(self, acc: int) -> int:
        raise ZeroDivisionError("nothing to divide")


def test_a_result_that_fails_names_the_sink() -> None:
    with pytest.raises(
        streamflow.ConnectorError, match=r"pipeline 'p', step 'Into': ZeroDivisionError: nothing"
    ):
        run(Source([1]).to(Into(_Broken()), name="p"))


def test_a_slow_aggregator_lets_the_loop_go_on() -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def busy(x: int) -> int:
        return sum(range(20_000)) and x

    async def work() -> int:
        ticking = asyncio.create_task(tick())
        total = await Source(range(1000)).to(Into(streamflow.operators.Sum(busy))).run()
        ticking.cancel()
        return total

    assert asyncio.run(work()) == 499_500
    assert turns > 5


def test_an_unhashable_key_fails_its_element_only() -> None:
    source = Acknowledging(10, [10])
    key: Any = lambda x: [x] if x == 3 else x % 2  # noqa: E731
    keyed: Any = streamflow.operators.Keyed(key, Batch(2))
    with pytest.raises(StepError, match="unhashable"):
        run(source.via(keyed).to(Discard()))
    result = run(source.via(keyed).to(Collect()), on_error=streamflow.Skip())
    assert sorted(x for pair in result for x in pair.value) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert sorted(source.ledger.acked) == list(range(10))
