"""Event time: each element is judged by the watermark before it, whatever the chunks, the origins and the branches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import EventTime, KeyedValue, Observer, Skip, StepError, Window
from streamflow.connectors import Collect
from streamflow.engine import step as step_module
from streamflow.engine.watermark import WatermarkTracker
from streamflow.operators import (
    Batch,
    Count,
    Filter,
    FlatMap,
    Keyed,
    Map,
    MapAsync,
    Take,
    Throttle,
    ToList,
    TumblingWindow,
    fan_out,
    merge,
    split,
)
from streamflow.testing import VirtualClock
from tests.support import Chunked, chain, cut, run, sizes, virtual

SIZE = 10
events = st.lists(st.tuples(st.integers(0, 2), st.integers(-30, 90)), max_size=40)
"""(key, event time), in any order."""


class Late(Observer):
    count = 0

    def late(self, step: str, count: int) -> None:
        self.count += count


def tumbling(
    lag: float = 5, *, into: Any = None, size: float = SIZE, time: Any = lambda event: event[1]
) -> Any:
    return TumblingWindow(
        timedelta(seconds=size),
        time=EventTime(time, out_of_order=timedelta(seconds=lag)),
        into=ToList() if into is None else into,
    )


def modelled(events: Iterable[tuple[int, float]], lag: float) -> tuple[list[Window[Any]], int]:
    """Windows and late elements, one element after the other."""
    watermark, late = -math.inf, 0
    windows: dict[float, list[Any]] = {}
    for event in events:
        start = event[1] - event[1] % SIZE
        if start + SIZE <= watermark:
            late += 1
            continue
        windows.setdefault(float(start), []).append(event)
        watermark = max(watermark, event[1] - lag)
    return [Window(start, start + SIZE, windows[start]) for start in sorted(windows)], late


@given(events, sizes, st.sampled_from([0, 5, 17]))
def test_windows_of_disordered_events_do_not_depend_on_chunks(
    events: list[tuple[int, int]], sizes: list[int], lag: int
) -> None:
    late = Late()
    expected, late_expected = modelled(events, lag)
    assert run(Chunked(cut(events, sizes)).via(tumbling(lag)).to(Collect()), observers=[late]) == expected
    assert late.count == late_expected


@given(events, sizes, st.sampled_from([0, 5]))
def test_keys_share_one_watermark(events: list[tuple[int, int]], sizes: list[int], lag: int) -> None:
    windows, _ = modelled(events, lag)
    expected = [
        KeyedValue(key, Window(w.start, w.end, mine))
        for w in windows
        for key in range(3)
        if (mine := [event for event in w.value if event[0] == key])
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module, "SLICE", -1.0)
        keyed: Any = Keyed(lambda event: event[0], Filter(lambda event: True).via(tumbling(lag)))
        result = run(Chunked(cut(events, sizes)).via(keyed).to(Collect()))
    assert sorted(result, key=by_key) == sorted(expected, key=by_key)
    assert [w.value.start for w in result] == sorted(w.value.start for w in result)


def by_key(keyed: Any) -> Any:
    return keyed.key, keyed.value.start


@given(events, sizes)
def test_an_element_whose_time_fails_is_dropped_and_moves_nothing(
    events: list[tuple[int, int]], sizes: list[int]
) -> None:
    def time(event: tuple[int, int]) -> float:
        return [1 / (event[1] % 7), event[1]][1]

    expected, _ = modelled([event for event in events if event[1] % 7], 5)
    assert (
        run(Chunked(cut(events, sizes)).via(tumbling(time=time)).to(Collect()), on_error=Skip()) == expected
    )


@pytest.mark.parametrize(
    "time",
    [None, "12:00", float("nan"), float("inf"), -float("inf"), datetime(2024, 1, 1), True, 1j],
    ids=repr,
)
def test_a_time_that_is_none_goes_to_the_policy(time: Any) -> None:
    flow = tumbling(time=lambda x: time if x == 2 else x, into=Count())
    source = Chunked([[1, 2], [3]])
    with pytest.raises(StepError, match=r"step 'TumblingWindow'.* on 2: .*event time"):
        run(source.via(flow).to(Collect()))
    assert run(source.via(flow).to(Collect()), on_error=Skip()) == [Window(0, 10, 2)]


def test_aware_datetimes_are_instants() -> None:
    source = Chunked([[datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)]])
    (window,) = run(source.via(tumbling(time=lambda t: t, into=Count())).to(Collect()))
    assert (window.start, window.end, window.start_at) == (0, 10, datetime(1970, 1, 1, tzinfo=UTC))


# Several origins


def timed(values: list[Any]) -> Any:
    """Append (clock time, element) to a list."""
    return lambda x: values.append((asyncio.get_running_loop().time(), x))


@given(st.lists(events, min_size=2, max_size=3), st.data())
def test_origins_that_each_are_in_order_lose_nothing_at_a_merge(lists: list[Any], data: Any) -> None:
    """A lagging origin makes no other late and is not late itself: the watermark is the minimum."""
    streams = []
    for number, events in enumerate(lists):
        events.sort(key=lambda event: event[1])
        chunks = cut(events, data.draw(sizes))
        gaps = data.draw(st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=1, max_size=3))
        times = [sum(gaps[i % len(gaps)] for i in range(n + 1)) for n in range(len(chunks))]
        streams.append(Chunked(chunks, f"origin {number}", times=times))
    late = Late()
    result = run(merge(*streams).via(tumbling(0)).to(Collect()), observers=[late])
    assert late.count == 0
    assert [w.start for w in result] == sorted(w.start for w in result)
    assert sorted(event for w in result for event in w.value) == sorted(
        event for events in lists for event in events
    )
    for events in lists:
        mine = [event for w in result for event in w.value if event in events]
        assert [event[1] for event in mine] == sorted(event[1] for event in mine) or len(lists) > 1


@given(st.sampled_from([0.0, 0.1]), sizes, st.booleans())
def test_a_slow_branch_of_a_diamond_loses_nothing(delay: float, sizes: list[int], batched: bool) -> None:
    """Each branch is in order: nothing is late, however far the one is behind the other."""

    async def slowly(x: int) -> int:
        await asyncio.sleep(delay)
        return x

    late = Late()
    odd, even = split(Chunked(cut(range(60), sizes)), lambda x: x % 2)
    held: Any = chain(Batch(7, within=5), FlatMap(list))
    joined = merge(odd.via(MapAsync(slowly, concurrency=2)), even.via(held) if batched else even)
    result = run(joined.via(tumbling(0, time=lambda x: x)).to(Collect()), observers=[late])
    assert late.count == 0
    assert [(w.start, sorted(w.value)) for w in result] == [
        (s, list(range(s, s + 10))) for s in range(0, 60, 10)
    ]


@given(sizes)
def test_a_diamond_within_a_diamond_loses_nothing(sizes: list[int]) -> None:
    async def slowly(x: int) -> int:
        await asyncio.sleep(0.1)
        return x

    late = Late()
    left, right = split(Chunked(cut(range(60), sizes)), lambda x: x % 2)
    inner = fan_out(left, 2)
    joined = merge(merge(inner[0].via(MapAsync(slowly)), inner[1]), right)
    result = run(joined.via(tumbling(0, time=lambda x: x, into=Count())).to(Collect()), observers=[late])
    assert late.count == 0
    assert [w.value for w in result] == [15] * 6


def test_a_branch_that_carries_nothing_holds_no_window_back() -> None:
    """The source is never caught up and the branch never has an element: its progress is enough."""
    busy = Chunked([[t] for t in range(40)], times=[float(t) for t in range(40)], ends=False)
    never, rest = split(busy, lambda x: x < 0)
    flow = tumbling(0, time=lambda x: x, into=Count())
    assert closes(never.via(Map(lambda x: x)), rest, flow=flow, until=35) == [
        (10.0, (0.0, 10)),
        (20.0, (10.0, 10)),
        (30.0, (20.0, 10)),
    ]


def test_a_diamond_is_quiet_when_all_its_branches_are() -> None:
    """The fast branch is caught up long before the slow one has sent what it has."""

    async def slowly(x: int) -> int:
        await asyncio.sleep(8.0)
        return x

    odd, even = split(Chunked([[1, 2, 3, 4, 11, 12]], ends=False), lambda x: x % 2)
    joined = merge(odd.via(MapAsync(slowly, concurrency=1)), even)
    flow = TumblingWindow(
        timedelta(seconds=10), time=EventTime(lambda x: x, out_of_order=timedelta(seconds=20))
    )
    assert closes(joined, flow=flow, until=100) == [(34.0, (0.0, [2, 4, 1, 3])), (42.0, (10.0, [12, 11]))]


@pytest.mark.parametrize("flow", [Batch(3), Batch(30, within=2)], ids=["full", "within"])
def test_a_batch_of_several_origins_has_a_watermark_of_its_own(flow: Any) -> None:
    left = Chunked([[1], [12], [25]], "left", times=[0.0, 1.0, 2.0])
    right = Chunked([[2], [13], [26]], "right", times=[0.0, 1.0, 2.0])
    batched = merge(left, right).via(flow).via(FlatMap(list))
    result = run(batched.via(tumbling(30, time=lambda x: x)).to(Collect()))
    assert [(w.start, sorted(w.value)) for w in result] == [(0, [1, 2]), (10, [12, 13]), (20, [25, 26])]


def closes(*streams: Any, flow: Any, until: float) -> list[tuple[float, Any]]:
    """When which window closes, of streams that never end; only what came by then."""
    seen: list[tuple[float, Any]] = []

    async def work() -> None:
        pipeline = merge(*streams).via(flow).via(Map(lambda w: (w.start, w.value))).via(Map(timed(seen)))
        async with pipeline.to(Collect()).start(clock=VirtualClock()) as running:
            await asyncio.sleep(until)
            await running.stop()

    virtual(work())
    return [(round(time, 3), window) for time, window in seen]


def test_an_origin_that_ended_holds_no_watermark_back() -> None:
    short = Chunked([[1, 2]], "short")
    long = Chunked([[1], [12], [25]], "long", times=[0.0, 1.0, 2.0], ends=False)
    flow = tumbling(0, time=lambda x: x, into=Count())
    assert closes(short, long, flow=flow, until=3) == [(1.0, (0.0, 3)), (2.0, (10.0, 1))]


def test_a_take_that_ended_holds_no_watermark_back() -> None:
    short = Chunked([[1, 2, 3]], "short", ends=False).via(Take(2))
    long = Chunked([[1], [12], [25]], "long", times=[0.0, 1.0, 2.0], ends=False)
    flow = tumbling(0, time=lambda x: x, into=Count())
    assert closes(short, long, flow=flow, until=3) == [(1.0, (0.0, 3)), (2.0, (10.0, 1))]


def test_an_earlier_window_that_ended_holds_no_watermark_back() -> None:
    first = tumbling(0, time=lambda x: x, into=Count())
    short = Chunked([[1, 2, 11]], "short").via(first).via(Map(lambda w: w.start))
    long = Chunked([[1], [12], [25]], "long", times=[0.0, 1.0, 2.0], ends=False)
    flow = tumbling(0, time=lambda x: x, into=Count())
    assert closes(short, long, flow=flow, until=3) == [(1.0, (0.0, 2)), (2.0, (10.0, 2))]


def test_a_silent_origin_holds_the_watermark_back_until_it_is_idle() -> None:
    silent = Chunked([[3]], "silent", ends=False)
    long = Chunked([[1], [12], [25]], "long", times=[0.0, 1.0, 2.0], ends=False)
    flow = TumblingWindow(
        timedelta(seconds=10), time=EventTime(lambda x: x, idle_after=timedelta(seconds=4)), into=Count()
    )
    assert closes(silent, long, flow=flow, until=5) == [(4.0, (0.0, 2)), (4.0, (10.0, 1))]


def test_an_origin_that_has_sent_nothing_and_is_not_known_to_be_quiet_holds_the_watermark_back() -> None:
    class Busy(Chunked):
        """Its reader never says that it is caught up."""

    busy = Busy([[1]], "busy", times=[50.0])
    long = Chunked([[1], [12], [25]], "long", times=[0.0, 1.0, 2.0], ends=False)
    flow = tumbling(0, time=lambda x: x, into=Count())
    assert closes(busy, long, flow=flow, until=40) == []


@given(lag=st.sampled_from([0, 3]), idle=st.sampled_from([1.0, 4.0]))
def test_the_last_window_of_a_quiet_stream_closes_with_the_clock(lag: int, idle: float) -> None:
    quiet = Chunked([[1], [7]], times=[0.0, 2.0], ends=False)
    flow = TumblingWindow(
        timedelta(seconds=10),
        time=EventTime(lambda x: x, out_of_order=timedelta(seconds=lag), idle_after=timedelta(seconds=idle)),
        into=Count(),
    )
    ((when, window),) = closes(quiet, flow=flow, until=60)
    assert window == (0.0, 2)
    assert when == pytest.approx(2.0 + idle + 3.0)


def test_a_later_window_starts_from_the_watermark_of_the_earlier_one() -> None:
    """The second window has an element only at the end of the first one's; it closes by the promise of the first."""
    source = Chunked([[1], [12], [55], [56]], times=[0.0, 1.0, 2.0, 3.0], ends=False)
    hourly = tumbling(0, time=lambda w: w.start, into=Count(), size=20)
    flow = tumbling(0, time=lambda x: x, into=Count()).via(hourly)
    assert closes(source, flow=flow, until=4) == [(2.0, (0.0, 2))]


@pytest.mark.parametrize("between", [Throttle(100, per=1), chain(Batch(1), FlatMap(list)), Map(lambda w: w)])
def test_a_watermark_passes_a_step_that_holds_nothing_at_this_moment(between: Any) -> None:
    source = Chunked([[1], [12], [55], [56]], times=[0.0, 1.0, 2.0, 3.0], ends=False)
    hourly = tumbling(0, time=lambda w: w.start, into=Count(), size=20)
    flow = tumbling(0, time=lambda x: x, into=Count()).via(between).via(hourly)
    assert closes(source, flow=flow, until=4) == [(2.0, (0.0, 2))]


def test_a_watermark_does_not_overtake_what_a_batch_holds() -> None:
    """The batch holds the windows of the first 20 s until the end; their hour must not close without them."""
    source = Chunked([[1], [12], [55], [56]], times=[0.0, 1.0, 2.0, 3.0])
    hourly = tumbling(0, time=lambda w: w.start, into=Count(), size=20)
    flow = tumbling(0, time=lambda x: x, into=Count()).via(Batch(10)).via(FlatMap(list)).via(hourly)
    late = Late()
    result = run(source.via(flow).to(Collect()), observers=[late])
    assert [(w.start, w.value) for w in result] == [(0.0, 2), (40.0, 1)]
    assert late.count == 0


# The tracker by itself


def tracker(*origins: str, lag: float = 5, meta: Any = None, ways: Any = None) -> WatermarkTracker:
    time: EventTime[Any] = EventTime(lambda x: x, out_of_order=timedelta(seconds=lag))
    return WatermarkTracker(dict.fromkeys(origins, time), {} if meta is None else meta, ways)


def test_the_watermark_is_the_minimum_and_never_goes_back() -> None:
    marks = tracker("a", "b")
    marks.saw("a", 100)
    assert marks.advance(0) is None
    marks.saw("b", 50)
    assert marks.advance(0) == 45
    marks.saw("b", 200)
    assert marks.advance(0) == 95
    marks.promise("b", math.inf)
    assert marks.advance(0) is None
    marks.saw("a", 150)
    assert (marks.advance(0), marks.current) == (145, 145)


def test_branches_of_one_origin_get_on_together() -> None:
    marks = tracker("a", "b", ways={"a": "s", "b": "s"})
    marks.saw("a", 100)
    marks.progress("a", 1)
    assert marks.advance(0) is None
    marks.progress("b", 1)
    assert marks.advance(0) == 95
    marks.saw("a", 300)
    marks.progress("a", 2)
    marks.saw("b", 110)
    assert marks.advance(0) == 105
    marks.progress("b", 3)
    assert marks.advance(0) == 295


def test_a_time_too_far_ahead_of_the_clock_moves_nothing() -> None:
    class Ahead(Observer):
        count = 0

        def ahead(self, step: str, count: int) -> None:
            self.count += count

    ahead, late = Ahead(), Late()
    source = Chunked([[1, 2], [3_700, 3, 4, 13]])
    result = run(source.via(tumbling(0, time=lambda x: x)).to(Collect()), observers=[ahead, late])
    assert [w.value for w in result] == [[1, 2, 3, 4], [13], [3_700]]
    assert (ahead.count, late.count) == (1, 0)


def test_a_restored_tracker_goes_on() -> None:
    meta: dict[str, Any] = {}
    marks = tracker("a", "b", meta=meta)
    marks.saw("a", 100)
    marks.saw("b", 80)
    marks.advance(0)
    again = tracker("a", "b", meta=dict(meta))
    assert again.current == 75
    again.saw("b", 300)
    assert again.advance(0) == 95


def test_fan_out_to_windows_of_different_time_is_independent() -> None:
    left, right = fan_out(Chunked([[1, 12, 3, 25]]), 2)
    strict, lax = tumbling(0, time=lambda x: x), tumbling(50, time=lambda x: x)
    result = run(merge(left.via(strict, "strict"), right.via(lax, "lax")).to(Collect()))
    values = sorted((w.start, w.value) for w in result)
    assert values == [(0, [1]), (0, [1, 3]), (10, [12]), (10, [12]), (20, [25]), (20, [25])]
