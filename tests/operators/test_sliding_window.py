"""`SlidingWindow`, and `TumblingWindow` where it has the same options: as a plain model says, element by element."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError, EventTime, Observer, Pipeline, ProcessingTime, Skip, Source, Window
from streamflow.connectors import Collect
from streamflow.engine import checkpoint
from streamflow.operators import (
    Aggregator,
    Count,
    Keyed,
    SlidingWindow,
    Sum,
    ToList,
    TumblingWindow,
    merge,
)
from tests.operators.windows import (
    Counting,
    Event,
    PaneModel,
    by_the_clock,
    check,
    event_time,
    events,
    gaps,
    key_of,
    modes,
    results,
    seen_by,
    spans,
)
from tests.support import Chunked, Recorder, cut, restarts, run, sizes, stamped

DAY = timedelta(days=1)
steps = st.sampled_from([(10, 10), (20, 5), (30, 10), (7, 3), (10, 4)])
"""``size`` and ``every``; equal for tumbling windows."""


def windows(step: tuple[float, float], time: Any = None, **options: Any) -> Any:
    size, every = (timedelta(seconds=part) for part in step)
    if size == every:
        return TumblingWindow(size, time=time or ProcessingTime(), **options)
    return SlidingWindow(size, every, time=time or ProcessingTime(), **options)


@settings(max_examples=400)
@given(events, sizes, steps, st.sampled_from([0, 5, 17]), modes, st.sampled_from([0, 0, 3]))
def test_windows_of_disordered_events_do_not_depend_on_chunks(
    events: list[Event], sizes: list[int], step: Any, lag: int, mode: Any, offset: int
) -> None:
    emit, lateness = mode
    counting = Counting()
    window = windows(
        step,
        EventTime(event_time, out_of_order=lag),
        lateness=lateness,
        emit=emit,
        offset=timedelta(seconds=offset),
    )
    got = results(Chunked(cut(events, sizes)), window, counting)
    model = PaneModel(lag, lateness, emit, spans=spans(step[0], step[1], offset)).run(events)
    check(got, model.out)
    assert counting.late_count == len(model.late)


@given(gaps, steps, st.sampled_from(["close", "update"]))
def test_windows_by_the_clock_close_on_time(arrivals: Any, step: Any, emit: Any) -> None:
    events = by_the_clock(arrivals)
    seen: list[tuple[float, Any]] = []
    source = Chunked([[event] for event in events], times=[event[1] for event in events])
    got = results(source, windows(step, emit=emit).via(stamped(seen)))
    check(got, PaneModel(emit=emit, clock=True, spans=spans(*step)).run(events).out)
    for when, window in seen:
        if emit == "close" and when < events[-1][1]:
            assert when == pytest.approx(window.end)


@settings(max_examples=60)
@given(events, sizes, steps, modes, st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.3]), min_size=1, max_size=4))
def test_a_restart_from_any_checkpoint_changes_nothing(
    events: list[Event], sizes: list[int], step: Any, mode: Any, pauses: list[float]
) -> None:
    emit, lateness = mode
    chunks = cut(events, sizes)
    times = [sum(pauses[i % len(pauses)] for i in range(n + 1)) for n in range(len(chunks))]

    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        source, sink = Chunked(chunks, times=times), Recorder()
        time = EventTime(event_time, out_of_order=5, idle_after=DAY)
        into: Any = ToList(state=tuple[int, float, int])
        return (
            source.via(Keyed(key_of, windows(step, time, lateness=lateness, emit=emit, into=into))).to(sink),
            sink,
            source,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "CHECK_EVERY", 1)  # state changes while it is written
        restarts(build, order=in_order)


def in_order(emitted: list[Any]) -> list[Any]:
    """Which key is first in a window, and what is first in a list of panes, may differ."""
    return sorted((w.start, w.revision, key, sorted(w.value)) for key, w in emitted)


@given(events, sizes, steps, st.sampled_from([0, 9]))
def test_a_second_window_loses_nothing_by_start_and_by_end(
    events: list[Event], sizes: list[int], step: Any, lateness: int
) -> None:
    """Windows that are emitted again come in any order: then only what the first promises closes the second."""
    model = PaneModel(3, lateness, spans=spans(*step)).run(events)
    for bound in ("start", "end"):
        counting = Counting()
        bound_of: Any = attrgetter(f"value.{bound}")
        time: Any = EventTime(bound_of, out_of_order=10_000 if lateness else 0)
        first: Any = Keyed(key_of, windows(step, EventTime(event_time, out_of_order=3), lateness=lateness))
        second: Any = TumblingWindow(timedelta(seconds=10), time=time, into=ToList())
        got = run(
            Chunked(cut(events, sizes)).via(first, "first").via(second).to(Collect()),
            observers=[Only("second", counting)],
        )
        for window in got:
            expected = [w for _, w in model.out if window.start <= getattr(w, bound) < window.end]
            assert len(window.value) == len(expected)
        assert sum(len(w.value) for w in got) == len(model.out)


class Only(Observer):
    """Asks an observer about no step but the second window."""

    def __init__(self, step: str, counting: Counting) -> None:
        self.counting = counting

    def late(self, step: str, count: int) -> None:
        assert "first" in step, f"{step} had {count} late elements"


@given(st.lists(events, min_size=2, max_size=3), steps, st.data())
def test_origins_in_order_make_nothing_late(lists: list[list[Event]], step: Any, data: Any) -> None:
    streams = []
    for number, mine in enumerate(lists):
        mine.sort(key=event_time)
        chunks = cut(mine, data.draw(sizes))
        times = [0.5 * n * (number + 1) for n in range(len(chunks))]
        streams.append(Chunked(chunks, f"origin {number}", times=times))
    counting = Counting()
    got = results(merge(*streams), windows(step, EventTime(event_time)), counting)
    everything = sorted((e for es in lists for e in es), key=event_time)
    check(got, PaneModel(spans=spans(*step)).run(everything).out)
    assert counting.late_count == 0


def test_a_time_far_in_the_future_closes_nothing() -> None:
    counting = Counting()
    window: Any = windows((10, 5), EventTime(lambda t: t))
    got = run(Chunked([[1, 9_999, 2], [12]]).via(window).to(Collect()), observers=[counting])
    assert [(w.start, w.value) for w in got] == [
        (-5, [1, 2]),
        (0, [1, 2]),
        (5, [12]),
        (10, [12]),
        (9_990, [9_999]),
        (9_995, [9_999]),
    ]
    assert (counting.ahead_count, counting.late_count) == (1, 0)


class Odd(Aggregator[Any, int]):
    """Sums; fails to add 13, to merge with a sum of 100 and more, and to give the sum 7."""

    def initial(self) -> int:
        return 0

    def add(self, acc: int, value: Any) -> int:
        if value[2] == 13:
            raise ValueError("13")
        return acc + int(value[2])

    def merge(self, left: int, right: int) -> int:
        if left >= 100 or right >= 100:
            raise ValueError("too much")
        return left + right

    def result(self, acc: int) -> int:
        if acc == 7:
            raise ValueError("7")
        return acc


@pytest.mark.parametrize("options", [{}, {"lateness": 3}, {"emit": "update"}], ids=str)
@pytest.mark.parametrize("sizes", [[], [1] * 9, [3, 2]], ids=str)
def test_what_fails_is_dropped_alone(options: Any, sizes: list[int]) -> None:
    elements = [("a", 0, 1), ("a", 1, 13), ("b", 2, 7), ("c", 2, 2), ("a", 3, 4), ("a", 50, 8), ("b", 50, 7)]
    window = windows((10, 10), EventTime(event_time), into=Odd(), **options)
    keyed: Any = Keyed(key_of, window)
    got = run(Chunked(cut(elements, sizes)).via(keyed).to(Collect()), on_error=Skip())
    last = {(key, w.start): w.value for key, w in got}
    assert last == {("a", 0): 5, ("c", 0): 2, ("a", 50): 8}


def test_windows_that_do_not_merge_are_dropped_and_the_rest_is_right() -> None:
    """Those with 100 fail wherever its key has another element; its other windows and the other keys are right."""
    elements = [(key, t, 100 if (key, t) == (1, 12) else 1) for t in range(0, 60, 2) for key in range(3)]
    keyed: Any = Keyed(key_of, windows((8, 2), EventTime(event_time), into=Odd()))
    got = run(Chunked([elements]).via(keyed).to(Collect()), on_error=Skip())
    assert sorted((key, w.start, w.value) for key, w in got) == sorted(
        (key, start, len(range(max(start, 0), min(start + 8, 60), 2)))
        for key in range(3)
        for start in range(-6, 60, 2)
        if key != 1 or not start <= 12 < start + 8
    )


def test_the_last_windows_of_a_quiet_stream_close_with_the_clock() -> None:
    quiet = Chunked([[1], [7]], times=[0.0, 2.0], ends=False)
    time: Any = EventTime(lambda t: t, out_of_order=3, idle_after=timedelta(seconds=4))
    seen = seen_by(quiet.via(windows((10, 5), time, into=Count())), 60)
    # The watermark goes on from 7 when the source is idle, at 6.
    assert seen == [(6.0, Window(-5, 5, 1)), (9.0, Window(0, 10, 2)), (14.0, Window(5, 15, 1))]


def test_sums_do_not_depend_on_how_long_a_window_is_in_merges() -> None:
    """Each entry of a pane is merged a few times, however many windows it is in."""
    merges = 0

    class Counted(Sum[Any, int]):
        def merge(self, left: Any, right: Any) -> Any:
            nonlocal merges
            merges += 1
            return left + right

    for size in (10, 100, 1000):
        merges = 0
        window: Any = SlidingWindow(
            timedelta(seconds=size), timedelta(seconds=1), time=EventTime(lambda t: t), into=Counted()
        )
        got = run(Source(range(2000)).via(window).to(Collect()))
        assert [w.value for w in got] == [
            sum(range(max(0, e - size), min(e, 2000))) for e in range(1, 2000 + size)
        ]
        assert merges <= 3 * (2000 + size)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((5, 6), "must not be longer than its size"),
        ((0, 1), "SlidingWindow's size must be"),
        ((5, -1), "SlidingWindow's every must be"),
        ((5, "x"), "SlidingWindow's every must be"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        SlidingWindow(*arguments)


def test_options_are_checked() -> None:
    time = EventTime[Any](lambda x: x)
    wrong: dict[str, Any] = {
        "lateness must be": {"time": time, "lateness": -1},
        "emit must be": {"emit": "always"},
        "late must be a sink": {"time": time, "late": print},
        "into takes an aggregator": {"into": Sum},
        "nothing is late": {"time": ProcessingTime(), "lateness": 5},
        "on_error must be": {"on_error": Skip},
        "time must be": {"time": 5},
        "is no number of days": {"align": "Europe/Berlin"},
        "offset must be a timedelta": {"offset": 5},
    }
    for match, options in wrong.items():
        with pytest.raises(ConfigurationError, match=f"TumblingWindow.*{match}"):
            TumblingWindow(timedelta(hours=36), **options)
        with pytest.raises(ConfigurationError, match=f"SlidingWindow.*{match}"):
            SlidingWindow(timedelta(hours=72), timedelta(hours=36), **options)
    for window in (partial(TumblingWindow, DAY), partial(SlidingWindow, 2 * DAY, DAY)):
        with pytest.raises(ConfigurationError, match="there is no time zone 'Europe/Atlantis' here"):
            window(align="Europe/Atlantis")
