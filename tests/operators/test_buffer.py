"""`Buffer`: so many elements between a producer and a consumer, and a say in what happens to more."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import Checkpoint, ConfigurationError, Skip, Source, StepError
from streamflow.connectors import Collect, ForEach
from streamflow.engine.observer import StatsObserver
from streamflow.operators import Buffer, Keyed, Map, MapAsync, Take, Throttle, fan_out, merge
from streamflow.operators.buffer import _OVERFLOWS
from streamflow.testing import MemoryStore, VirtualClock
from tests.arrivals import arriving, gaps, times_of
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

overflows = st.sampled_from(_OVERFLOWS)
dropping = ["drop_oldest", "drop_newest", "fail"]


class Slow(Recorder):
    """A sink that takes a while for each chunk, and notes what it gets and when."""

    def __init__(self, takes: float) -> None:
        super().__init__()
        self.takes = takes

    async def open(self, context: Any) -> Any:
        writer: Any = await super().open(context)
        write = writer.write

        async def slowly(chunk: Any) -> None:
            await write(chunk)
            await asyncio.sleep(self.takes)

        writer.write = slowly
        return writer


def model(times: list[float], size: int, overflow: str, takes: float) -> list[int]:
    """A consumer that takes all there is of one time, or what waits, and is busy for a while."""
    out: list[int] = []
    waiting: deque[int] = deque()
    free = 0.0
    for time in dict.fromkeys(times):
        while waiting and free < time:
            # It takes what has waited as it came: one element at a time.
            out.append(waiting.popleft())
            free += takes
        came = [number for number, t in enumerate(times) if t == time]
        if free <= time:
            out += came
            free = time + takes
            continue
        for number in came:
            if len(waiting) < size:
                waiting.append(number)
            elif overflow == "drop_oldest":
                waiting.popleft()
                waiting.append(number)
    return [*out, *waiting]


@pytest.mark.parametrize("overflow", dropping)
@given(
    gaps=st.lists(st.sampled_from([0.25, 0.5, 1.0, 3.0]), max_size=30),
    size=st.integers(1, 4),
    takes=st.sampled_from([0.3137, 0.7137, 1.9137]),
)
def test_what_finds_no_room_is_dropped_as_told(
    overflow: Any, gaps: list[float], size: int, takes: float
) -> None:
    times = times_of(gaps)
    stats = StatsObserver()
    pipeline = arriving(times).via(Buffer(size, overflow)).to(Slow(takes))
    result = run(pipeline, on_error=Skip(), observers=[stats])
    assert result == model(times, size, overflow, takes)
    step = stats.steps["Buffer"]
    lost = step.failed if overflow == "fail" else step.dropped
    assert (step.received, step.emitted, lost) == (len(times), len(result), len(times) - len(result))


@pytest.mark.parametrize("overflow", dropping)
@given(gaps=gaps, cuts=sizes, size=st.integers(1, 6))
def test_the_cut_into_chunks_makes_no_difference_to_a_consumer_that_takes_one_at_a_time(
    overflow: Any, gaps: list[float], cuts: list[int], size: int
) -> None:
    times = times_of(gaps)

    async def work(x: int) -> int:
        await asyncio.sleep(0.7)
        return x

    flow = chain(Buffer(size, overflow), MapAsync(work, concurrency=1))
    whole, parts = (run(arriving(times, c).via(flow).to(Collect()), on_error=Skip()) for c in (None, cuts))
    assert parts == whole


@given(gaps, sizes, st.integers(1, 6), st.sampled_from([0.3, 1.9]))
def test_with_backpressure_nothing_is_lost(
    gaps: list[float], cuts: list[int], size: int, takes: float
) -> None:
    times = times_of(gaps)
    stats = StatsObserver()
    result = run(arriving(times, cuts).via(Buffer(size)).to(Slow(takes)), observers=[stats])
    assert result == list(range(len(times)))
    assert (stats.steps["Buffer"].emitted, stats.steps["Buffer"].dropped) == (len(times), 0)


@pytest.mark.parametrize("overflow", _OVERFLOWS)
@given(cuts=sizes, size=st.integers(1, 6), delay=st.sampled_from([0.0, 0.3]))
def test_what_is_dropped_is_acknowledged_and_nothing_else_before_its_delivery(
    overflow: Any, cuts: list[int], size: int, delay: float
) -> None:
    source = Acknowledging(30, cuts)
    stats = StatsObserver()
    delivered = run(
        source.via(Buffer(size, overflow)).to(Confirming(source, delay)), on_error=Skip(), observers=[stats]
    )
    source.ledger.check(deliver=delivered)
    assert sorted(source.ledger.acked) == list(range(30))
    assert delivered == sorted(delivered)
    if overflow == "backpressure":
        assert delivered == list(range(30))


@pytest.mark.parametrize("overflow", _OVERFLOWS)
@given(cuts=sizes, at=st.floats(0.05, 3), ending=st.sampled_from(["drain", "stop"]))
def test_drain_and_stop_settle_everything(overflow: Any, cuts: list[int], at: float, ending: str) -> None:
    source = Acknowledging(30, cuts, ends=False)
    sink = Confirming(source, 0.2)

    async def work() -> None:
        pipeline = source.via(Buffer(3, overflow)).to(sink)
        async with pipeline.start(clock=VirtualClock(), on_error=Skip()) as running:
            await asyncio.sleep(at)
            await getattr(running, ending)()

    virtual(work())
    source.ledger.check(deliver=sink.values)
    if ending == "drain":
        assert source.ledger.returned == []


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_the_end_of_what_is_behind_hands_back_what_waits(overflow: Any) -> None:
    source = Acknowledging(30, [10, 10])
    flow = chain(Buffer(5, overflow), Take(2))
    assert run(source.via(flow).to(Confirming(source, 0.2))) == [0, 1]
    source.ledger.check(deliver=[0, 1])
    assert len(source.ledger.given_back) + len(source.ledger.acked) + len(source.ledger.returned) == 30


def test_fail_names_the_step_and_the_first_element_without_room() -> None:
    pipeline = arriving([0, 1, 2, 3]).via(Buffer(2, "fail"), name="jam").to(Slow(10))
    with pytest.raises(StepError, match=r"step 'jam': failed on 3: BufferError: the buffer of 2 elements is"):
        run(pipeline)


def test_the_policy_of_a_buffer_decides_about_each_element_without_room() -> None:
    stats = StatsObserver()
    pipeline = arriving([0, 1, 1, 1, 1]).via(Buffer(2, "fail", on_error=Skip())).to(Slow(10))
    assert run(pipeline, observers=[stats]) == [0, 1, 2]
    assert stats.steps["Buffer"].failed == 2


@pytest.mark.parametrize("overflow", _OVERFLOWS)
@pytest.mark.parametrize("concurrency", [1, 3])
def test_work_behind_a_buffer_takes_no_more_than_it_works_on(overflow: Any, concurrency: int) -> None:
    taken: list[int] = []

    async def work(x: int) -> int:
        taken.append(x)
        await asyncio.sleep(10)
        return x

    source = arriving([0.0] * 20 + [1.0] * 20, [7] * 6)
    flow = chain(Buffer(5, overflow), MapAsync(work, concurrency=concurrency))
    stats = StatsObserver()
    result = run(source.via(flow).to(Collect()), on_error=Skip(), observers=[stats])
    expected = {
        "backpressure": list(range(40)),
        "drop_oldest": [*range(concurrency), *range(35, 40)],
        "drop_newest": [*range(concurrency + 5)],
        "fail": [*range(concurrency + 5)],
    }
    assert result == taken == expected[overflow]


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [("backpressure", list(range(12))), ("drop_oldest", [0, 3, 9, 10, 11]), ("drop_newest", [0, 1, 2, 3, 6])],
)
def test_a_throttle_behind_a_buffer_leaves_in_it_what_waits(overflow: Any, expected: list[int]) -> None:
    # One passes and one is in hand; three of the others stay.
    flow = chain(Buffer(3, overflow), Throttle(1, per=1))
    assert run(arriving([0.0] * 6 + [0.5] * 6).via(flow).to(Collect())) == expected


@given(gaps, sizes, st.integers(1, 6))
def test_a_restart_loses_and_doubles_nothing(gaps: list[float], cuts: list[int], size: int) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        source, sink = arriving(times_of(gaps), cuts), Recorder()
        flow = chain(Buffer(size), Throttle(2, per=1.5, state=int), Buffer(size))
        return source.via(flow).to(sink), sink, source

    restarts(build)


@pytest.mark.parametrize("overflow", _OVERFLOWS)
@settings(max_examples=20)
@given(gaps=gaps, cuts=sizes)
def test_barriers_pass_and_what_they_cut_off_was_delivered(
    overflow: Any, gaps: list[float], cuts: list[int]
) -> None:
    store = MemoryStore()
    sink = Slow(0.7)
    source = arriving(times_of(gaps), cuts)
    delivered = run(
        source.via(Buffer(2, overflow)).to(sink), on_error=Skip(), checkpoint=Checkpoint(every=1, store=store)
    )
    for snapshot, mark in zip(store.history, sink.marks, strict=False):
        read = sum(map(len, source.chunks[: snapshot.positions["Chunked"]]))
        assert [x < read for x in delivered] == [True] * mark + [False] * (len(delivered) - mark)
    assert store.history[-1].finished


def test_two_in_a_row_and_in_branches() -> None:
    left, right = fan_out(Chunked(cut(range(50), [7] * 5)), 2)
    both = merge(left.via(Buffer(3)).via(Buffer(1)), right.via(Map(lambda x: -x)).via(Buffer(2)))
    assert sorted(run(both.to(Collect()))) == sorted([*range(50), *(-x for x in range(50))])


def test_a_second_run_begins_with_an_empty_buffer() -> None:
    pipeline = Source([1, 2, 3]).via(Buffer(1)).to(Collect())
    assert run(pipeline) == run(pipeline) == [1, 2, 3]


def test_a_failure_behind_it_ends_the_run() -> None:
    seen: list[int] = []
    pipeline = (
        Chunked([[0], [1], [2], [3]]).via(Buffer(1)).via(Map(lambda x: 1 // (x - 2))).to(ForEach(seen.append))
    )
    with pytest.raises(StepError, match="failed on 2"):
        run(pipeline)
    assert seen == [-1, -1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "Buffer's size must be 1 or more"),
        ((1.5,), "Buffer's size must be a whole number"),
        ((1, "drop"), "Buffer's overflow must be one of 'backpressure', 'drop_oldest'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Buffer(*arguments)


def test_not_inside_keyed() -> None:
    with pytest.raises(ConfigurationError, match="Buffer cannot run inside Keyed"):
        Keyed(lambda x: x, Buffer(1))
