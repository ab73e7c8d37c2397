"""Edges of event time and of what is kept, each a place where a wrong change of the code would go unseen."""

from __future__ import annotations

import asyncio
import itertools
import math
from datetime import timedelta
from typing import Any

import pytest

from streamflow import Checkpoint, EventTime, Skip, Source
from streamflow.connectors import Collect, Discard, QueueSource
from streamflow.operators import (
    Batch,
    Count,
    CountWindow,
    Deduplicate,
    Filter,
    Flatten,
    MapAsync,
    SessionWindow,
    SlidingWindow,
    Take,
    TumblingWindow,
    join,
    merge,
)
from streamflow.operators._grid import FixedGrid
from streamflow.testing import MemoryStore, VirtualClock
from tests.support import Chunked, Recorder, cut, restarts, run, stamped, virtual

SECOND = timedelta(seconds=1)


def unbounded(extract: Any = float, **options: Any) -> Any:
    return EventTime(extract, max_ahead=None, **options)


# An element that fails


def failing_time(element: tuple[str, float | None]) -> float:
    if element[1] is None:
        raise ValueError("no time")
    return element[1]


def first(element: Any) -> Any:
    return element[0]


LATE_AFTER_A_FAILURE = [("a", 0), ("a", 100), ("a", None), ("a", 1)]


@pytest.mark.parametrize("sizes", [[], [1] * 4], ids=["one chunk", "four chunks"])
@pytest.mark.parametrize("step", ["session", "dedup", "join"])
def test_what_came_before_an_element_that_fails_has_moved_the_watermark(step: str, sizes: list[int]) -> None:
    late: Any = Recorder()
    time: Any = EventTime(failing_time)
    chunks = cut(LATE_AFTER_A_FAILURE, sizes)
    if step == "join":
        left = Chunked(chunks, "left", times=[1.0 + number for number in range(len(chunks))])
        right = Chunked([[("z", 1000)]], "right", times=[0.0])
        stream: Any = join(left, right, on=(first, first), within=5, time=time, late=late)
    elif step == "session":
        stream = Chunked(chunks).via(SessionWindow(5 * SECOND, time=time, late=late))
    else:
        stream = Chunked(chunks).via(Deduplicate(first, 5, time=time, late=late))
    run(stream.to(Collect()), on_error=Skip())
    assert late.values == [("a", 1)]


# What is kept


@pytest.mark.parametrize(
    "options", [{}, {"time": unbounded(lambda element: element[1])}], ids=["clock", "event time"]
)
def test_what_is_forgotten_leaves_the_checkpoint_too(options: Any) -> None:
    store = MemoryStore()
    flow: Any = Deduplicate(first, 3, **options)
    source = Chunked([[(f"{n}", n) for n in range(9)], [("x", 900)]], times=[0.0, 20.0])
    run(source.via(flow).to(Discard()), checkpoint=Checkpoint(every=1, store=store))
    sizes = [len(table.entries) for snapshot in store.history for table in snapshot.tables.values()]
    assert max(sizes) >= 3 and sizes[-1] <= 1


STEPS: dict[str, Any] = {
    "tumbling": lambda: TumblingWindow(5 * SECOND, time=unbounded(), into=Count()),
    "sliding": lambda: SlidingWindow(5 * SECOND, SECOND, time=unbounded(), into=Count()),
    "revised": lambda: SlidingWindow(5 * SECOND, SECOND, time=unbounded(), lateness=3, into=Count()),
    "updates": lambda: TumblingWindow(5 * SECOND, time=unbounded(), emit="update", into=Count()),
    "session": lambda: SessionWindow(0.5 * SECOND, time=unbounded(), into=Count()),
    "late session": lambda: SessionWindow(0.5 * SECOND, time=unbounded(), lateness=3, into=Count()),
    "count": lambda: CountWindow(7, 2, into=Count()),
    "dedup": lambda: Deduplicate(lambda x: x, 3, time=unbounded()),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_a_checkpoint_holds_does_not_grow_with_the_stream(name: str) -> None:
    store = MemoryStore()
    source = Chunked([[n] for n in range(400)], times=[n * 0.1 for n in range(400)])
    run(source.via(STEPS[name]()).to(Discard()), checkpoint=Checkpoint(every=1, store=store))
    sizes = [
        sum(len(slot) + len(data or b"") for slot, data in table.entries.items())
        for snapshot in store.history
        for table in snapshot.tables.values()
    ]
    assert max(sizes) <= 3 * sizes[2]


def test_a_restart_knows_when_the_next_lonely_element_is_due() -> None:
    seen: list[Any] = []

    def build() -> Any:
        left = Chunked([["a"]], "left", times=[0.1])
        clock = Chunked([["t"]] * 2, "clock", times=[0.5, 60.0])
        right = Chunked([["x"]], "right", times=[50.0])
        sink = Recorder()
        joined: Any = join(left, right, on=(str, str), within=5, how="left", state=str)
        nothing: Any = clock.via(Filter(lambda _: False))
        return merge(joined.via(stamped(seen)), nothing).to(sink), sink, clock

    assert restarts(build, every=4.0) > 1
    assert {round(time) for time, (left, _) in seen if left} == {5, 1}


# Silence


@pytest.mark.parametrize("held_before", [False, True])
def test_a_mixture_is_not_idle_while_elements_of_it_are_on_their_way(held_before: bool) -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    silent: Any = Chunked([], "silent", ends=False)
    hold: Any = Batch(10, within=30)
    source: Any = QueueSource(queue)
    if held_before:
        both = merge(source.via(hold, name="held").via(Flatten()), silent)
        held = both.via(Batch(10, within=0.1)).via(Flatten(), name="flat")
        values, pause_at = [*range(9), 12, 10, 11, 13, 14], 12
    else:
        held = merge(source, silent).via(hold).via(Flatten())
        values, pause_at = [*range(9), 30, 31, 32, 33, 34, 35], None
    windows: Any = TumblingWindow(5 * SECOND, time=EventTime(lambda x: x, idle_after=SECOND))

    async def work() -> None:
        async with held.via(windows).to(Collect()).start(clock=VirtualClock()) as running:
            for value in values:
                queue.put_nowait(float(value))
                await asyncio.sleep(0.5 if value == pause_at else 0.01)
            await asyncio.sleep(100)
            assert sum(step.late for step in running.stats().steps.values()) == 0
            await running.stop()

    virtual(work())


def test_a_source_that_goes_on_is_idle_since_its_last_element() -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    seen: list[Any] = []
    window: Any = TumblingWindow(
        10 * SECOND, time=EventTime(lambda x: x, idle_after=4 * SECOND), into=Count()
    )

    async def work() -> None:
        pipeline = QueueSource(queue).via(window).via(stamped(seen)).to(Discard())
        async with pipeline.start(clock=VirtualClock()) as running:
            queue.put_nowait(1.0)
            await asyncio.sleep(3)
            queue.put_nowait(7.0)
            await asyncio.sleep(60)
            await running.stop()

    virtual(work())
    assert [round(time) for time, _ in seen] == [10]


def test_an_origin_that_ended_counts_for_how_far_time_has_come() -> None:
    seen: list[Any] = []
    window: Any = TumblingWindow(
        10 * SECOND, time=EventTime(lambda x: x, idle_after=4 * SECOND), into=Count()
    )
    both: Any = merge(Chunked([[1, 12]], "short"), Chunked([[3]], "quiet", ends=False))

    async def work() -> None:
        async with both.via(window).via(stamped(seen)).to(Discard()).start(clock=VirtualClock()) as running:
            await asyncio.sleep(60)
            await running.stop()

    virtual(work())
    assert [(round(time), each.start) for time, each in seen] == [(4, 0), (12, 10)]


# Panes and ends


@pytest.mark.parametrize("lateness", [0, 3])
def test_a_pane_that_changes_after_it_was_merged(lateness: int) -> None:
    times = [5, 15, 25, 31, 41, 51, 45, 61, 71]
    window: Any = SlidingWindow(
        30 * SECOND, 10 * SECOND, time=EventTime(lambda x: x), lateness=lateness, into=Count()
    )
    got = {each.start: each.value for each in run(Source(times).via(window).to(Collect()))}
    top, expected = -1, dict[float, int]()
    for time in times:
        for start in range(-20, 80, 10):
            if start <= time < start + 30 and start + 30 + lateness > top:
                expected[start] = expected.get(start, 0) + 1
        top = max(top, time)
    assert got == expected


def test_a_pane_begins_where_it_begins() -> None:
    """Also where the division that finds it is rounded to its neighbour."""
    grid = FixedGrid(timedelta(milliseconds=1), timedelta(0))
    for pane in range(907_966_141_000, 907_966_142_000):
        assert grid.locate(grid.start(pane)) == pane
        assert grid.locate(math.nextafter(grid.start(pane), 0)) == pane - 1


def test_a_side_ends_when_a_later_stage_has_enough() -> None:
    async def same(x: Any) -> Any:
        return x

    late: Any = Recorder()
    window: Any = TumblingWindow(10 * SECOND, time=unbounded(), into=Count(), late=late)
    numbers: Any = Source(lambda: (x - 30 * (x % 7 == 0) for x in itertools.count()))
    assert len(run(numbers.via(window).via(MapAsync(same)).via(Take(1)).to(Collect()))) == 1
