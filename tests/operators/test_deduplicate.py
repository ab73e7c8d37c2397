"""`Deduplicate`: each key once in a while, as a plain model says."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError, EventTime, ProcessingTime, Skip, StepError
from streamflow.connectors import Collect, Discard
from streamflow.engine.observer import StatsObserver
from streamflow.operators import Count, Deduplicate, Keyed, TumblingWindow
from streamflow.operators.deduplicate import _Memory
from streamflow.testing import VirtualClock
from tests.arrivals import arriving, gaps, times_of
from tests.support import Acknowledging, Chunked, Confirming, Recorder, cut, restarts, run, sizes, virtual

Event = tuple[str, int]
"""A key and an event time."""


def in_some_order(steps: list[tuple[str, int, int]]) -> list[Event]:
    """Time goes on in steps, and each element is up to so much behind."""
    time = 0
    events = []
    for key, step, behind in steps:
        time += step
        events.append((key, time - behind))
    return events


events = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.sampled_from([0, 0, 0, 1, 3, 6])), max_size=40
).map(in_some_order)


def by_clock(times: list[float], keys: list[Any], within: float) -> list[int]:
    last: dict[Any, float] = {}
    passed = []
    for number, (time, key) in enumerate(zip(times, keys, strict=True)):
        if key not in last or last[key] + within <= time:
            last[key] = time
            passed.append(number)
    return passed


def by_event(events: list[Event], within: float, out_of_order: float) -> tuple[list[Event], list[Event]]:
    """Remembers everything: what is forgotten must make no difference."""
    passed: list[Event] = []
    late: list[Event] = []
    top = -float("inf")
    for key, time in events:
        if time < top - out_of_order:
            late.append((key, time))
            continue
        top = max(top, time)
        if not any(other == key and abs(time - at) < within for other, at in passed):
            passed.append((key, time))
    return passed, late


def event_time(out_of_order: float = 0) -> EventTime[Any]:
    return EventTime(lambda event: event[1], out_of_order=out_of_order, max_ahead=None)


@given(gaps, sizes, st.sampled_from([0.5, 1.0, 3.25]))
def test_a_key_passes_again_when_its_time_is_over(gaps: list[float], cuts: list[int], within: float) -> None:
    times = times_of(gaps)
    keys = [number * 7 % 3 for number in range(len(times))]
    result = run(arriving(times, cuts).via(Deduplicate(lambda x: x * 7 % 3, within)).to(Collect()))
    assert result == by_clock(times, keys, within)


@given(st.lists(st.integers(0, 9)), sizes)
def test_without_a_time_a_key_passes_once(values: list[int], cuts: list[int]) -> None:
    result = run(Chunked(cut(values, cuts)).via(Deduplicate(lambda x: x % 5)).to(Collect()))
    assert [x % 5 for x in result] == list(dict.fromkeys(x % 5 for x in values))


@settings(max_examples=100)
@example([("a", 0), ("a", 6), ("a", 8)], [1, 1, 1], 5, 0)
@given(events, sizes, st.sampled_from([1, 5, 20]), st.sampled_from([0, 3, 10]))
def test_by_event_time_nothing_is_doubled_and_what_is_late_is_known(
    events: list[Event], cuts: list[int], within: int, out_of_order: int
) -> None:
    late = Recorder()
    stats = StatsObserver()
    flow = Deduplicate[Event](lambda e: e[0], within, time=event_time(out_of_order), late=late)
    result = run(Chunked(cut(events, cuts)).via(flow).to(Collect()), observers=[stats])
    assert (result, late.values) == by_event(events, within, out_of_order)
    assert stats.steps["Deduplicate"].late == len(late.values)


@given(events, sizes, st.sampled_from([0, 3]))
def test_inside_keyed_each_key_has_its_own_memory(
    events: list[Event], cuts: list[int], out_of_order: int
) -> None:
    flow = Deduplicate[Event](lambda e: e[1] % 4, 5, time=event_time(out_of_order))
    keyed: Any = Keyed(lambda e: e[0], flow)
    result = run(Chunked(cut(events, cuts)).via(keyed).to(Collect()))
    inner: list[Any] = [((key, time % 4), time) for key, time in events]
    passed: list[Any] = by_event(inner, 5, out_of_order)[0]
    assert result == [(key, (key, time)) for (key, _), time in passed]


TIMES: list[Any] = [ProcessingTime(), event_time(2)]


@pytest.mark.parametrize("time", TIMES, ids=["clock", "event"])
@pytest.mark.parametrize("keyed", [False, True])
@settings(max_examples=15)
@given(events=events, gaps=gaps, cuts=sizes)
def test_a_restart_remembers(
    time: Any, keyed: bool, events: list[Event], gaps: list[float], cuts: list[int]
) -> None:
    events = events[: len(gaps)]
    times = times_of(gaps[: len(events)])

    def build() -> tuple[Any, Recorder, Chunked]:
        source, sink = arriving(times, cuts, list(events)), Recorder()
        flow: Any = Deduplicate[Event](lambda e: e[0], 3, time=time)
        if keyed:
            flow = Keyed(lambda e: e[1] % 2, flow, ttl=2.2)
        return source.via(flow).to(sink), sink, source

    restarts(build)


@pytest.mark.parametrize("time", TIMES, ids=["clock", "event"])
@pytest.mark.parametrize("keyed", [False, True])
def test_what_is_over_is_forgotten_without_further_input(
    time: Any, keyed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[int]()
    delete = _Memory._delete

    def noting(self: Any, scope: Any, outer: Any, key: Any) -> None:
        delete(self, scope, outer, key)
        sizes.append(sum(map(len, scope.table.spaces.values())))

    monkeypatch.setattr(_Memory, "_delete", noting)
    flow: Any = Deduplicate[Event](lambda e: e[0], 3, time=time)
    if keyed:
        flow = Keyed(lambda e: e[1] % 5, flow)
    values = [(f"{number}", number % 10) for number in range(100)]
    source = Chunked([sorted(values, key=lambda e: e[1])], ends=False)

    async def work() -> None:
        async with source.via(flow).to(Discard()).start(clock=VirtualClock()):
            await asyncio.sleep(60)
            assert sizes[-1] == 0

    virtual(work())


def test_a_window_behind_it_closes_by_its_watermark() -> None:
    values = [("a", 1), ("a", 2), ("b", 3), ("c", 12), ("d", 25)]
    flow = Deduplicate[Event](lambda e: e[0], 5, time=event_time())
    window = TumblingWindow[Event, int](timedelta(seconds=10), time=event_time(), into=Count())
    result = run(Chunked([[value] for value in values]).via(flow).via(window).to(Collect()))
    assert [w.value for w in result] == [2, 1, 1]


@pytest.mark.parametrize("within", [None, 5])
def test_a_key_that_fails_or_cannot_be_a_key_is_the_failure_of_its_element(within: Any) -> None:
    key: Any = lambda x: [x] if x == 1 else 1 // (x - 2)  # noqa: E731 - not typed as a key
    flow = Deduplicate[int](key, within)
    assert run(Chunked([[0, 1, 2, 3]]).via(flow).to(Collect()), on_error=Skip()) == [0, 3]
    with pytest.raises(StepError, match=r"step 'Deduplicate': failed on 1: TypeError: unhashable"):
        run(Chunked([[0, 1, 2, 3]]).via(flow).to(Collect()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None, "1"])
def test_a_time_that_is_none_is_the_failure_of_its_element(bad: Any) -> None:
    values = [("a", 1), ("b", bad), ("a", 2)]
    flow = Deduplicate[Any](lambda e: e[0], 5, time=event_time())
    assert run(Chunked([values]).via(flow).to(Collect()), on_error=Skip()) == [("a", 1)]


def test_a_time_far_ahead_is_remembered_and_moves_no_watermark() -> None:
    stats = StatsObserver()
    flow = Deduplicate[Event](lambda e: e[0], 5, time=EventTime(lambda e: e[1], max_ahead=10))
    values = [("a", 1), ("b", 1000), ("b", 1001), ("a", 7)]
    assert run(Chunked([values]).via(flow).to(Collect()), observers=[stats]) == [
        values[0],
        values[1],
        values[3],
    ]
    assert (stats.steps["Deduplicate"].ahead, stats.steps["Deduplicate"].late) == (2, 0)


@given(sizes)
def test_duplicates_are_acknowledged_at_once(cuts: list[int]) -> None:
    source = Acknowledging(20, cuts)
    pipeline = source.via(Deduplicate(lambda x: x % 3, 5)).to(Confirming(source, 0.3))
    run(pipeline, delivery="best_effort")
    source.ledger.check(deliver=range(3))
    assert sorted(source.ledger.acked) == list(range(20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": 1}, "Deduplicate's key takes a function"),
        ({"within": 0}, "Deduplicate's within must be more than zero"),
        ({"time": 5}, "Deduplicate's time must be EventTime"),
        ({"within": None, "time": event_time()}, "Deduplicate with event time needs within="),
        ({"late": Collect()}, "late= needs EventTime"),
        ({"late": 1, "time": event_time()}, "late must be a sink"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Deduplicate(**{"key": len, "within": 1, **arguments})
