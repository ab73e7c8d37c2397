"""`TumblingWindow` by the clock; event time is tested with the watermarks, in tests/engine/test_watermark.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamflow import EventTime, Skip, Source, Window
from streamflow.connectors import Collect
from streamflow.operators import Aggregator, Count, Mean, TumblingWindow
from tests.support import Chunked, run, stamped


@given(st.lists(st.sampled_from([0.0, 0.3, 1.1, 4.7]), max_size=20), st.sampled_from([1, 2.5]))
def test_windows_by_the_clock_are_aligned_and_close_on_time(gaps: list[float], size: float) -> None:
    times = [0.05 + sum(gaps[: n + 1]) for n in range(len(gaps))]
    seen: list[tuple[float, Any]] = []
    source = Chunked([[n] for n in range(len(times))], times=times)
    run(source.via(TumblingWindow(timedelta(seconds=size))).via(stamped(seen)).to(Collect()))
    windows: dict[float, list[int]] = {}
    for number, time in enumerate(times):
        windows.setdefault(time - time % size, []).append(number)
    # The last one is closed by the end of the stream.
    assert [(round(w.start, 3), w.value) for _, w in seen] == [(round(s, 3), v) for s, v in windows.items()]
    for when, window in seen[:-1]:
        assert abs(when - window.end) < 1e-6
    if seen:
        assert seen[-1][0] <= seen[-1][1].end


def test_windows_begin_on_the_hour() -> None:
    def at(hour: int, minute: int) -> datetime:
        return datetime(2024, 2, 29, hour, minute, tzinfo=UTC)

    hourly: Any = TumblingWindow(timedelta(hours=1), time=EventTime(lambda t: t), into=Count())
    windows = run(Source([at(9, 0), at(9, 59), at(10, 0)]).via(hourly).to(Collect()))
    assert [(w.start_at, w.end_at, w.value) for w in windows] == [
        (at(9, 0), at(10, 0), 2),
        (at(10, 0), at(11, 0), 1),
    ]


def test_an_element_that_does_not_add_is_skipped() -> None:
    window: Any = TumblingWindow(
        timedelta(seconds=10), time=EventTime(lambda x: x), into=Mean(lambda x: 6 / x)
    )
    assert run(Source([0, 1, 2]).via(window).to(Collect()), on_error=Skip()) == [Window(0, 10, 4.5)]


def test_a_result_that_fails_is_dropped_alone() -> None:
    class Odd(Aggregator[int, int]):
        def initial(self) -> int:
            return 0

        def add(self, acc: int, value: int) -> int:
            return acc + value

        def result(self, acc: int) -> int:
            return 10 // (acc - 13)

    window: Any = TumblingWindow(timedelta(seconds=10), time=EventTime(lambda x: x), into=Odd())
    result = run(Source([1, 13, 23]).via(window).to(Collect()), on_error=Skip())
    assert [(w.start, w.value) for w in result] == [(0, -1), (20, 1)]
