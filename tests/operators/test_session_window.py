"""`SessionWindow`: as a plain model says, element by element, in every order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import (
    ConfigurationError,
    EventTime,
    Pipeline,
    ProcessingTime,
    Skip,
    Source,
    Window,
)
from streamflow.connectors import Collect
from streamflow.engine import checkpoint
from streamflow.operators import (
    Aggregator,
    Count,
    Keyed,
    Map,
    SessionWindow,
    Sum,
    ToList,
    TumblingWindow,
    merge,
)
from tests.operators.windows import (
    Counting,
    Event,
    SessionModel,
    by_the_clock,
    event_time,
    events,
    gaps,
    key_of,
    modes,
    numbered,
    results,
    seen_by,
)
from tests.support import Chunked, Recorder, cut, restarts, run, sizes, stamped


def sessions(gap: float, lag: float = 0, **options: Any) -> Any:
    return SessionWindow(timedelta(seconds=gap), time=EventTime(event_time, out_of_order=lag), **options)


@settings(max_examples=400)
@given(events, sizes, st.sampled_from([1, 5, 12]), st.sampled_from([0, 5, 17]), modes)
def test_sessions_of_disordered_events_do_not_depend_on_chunks(
    events: list[Event], sizes: list[int], gap: int, lag: int, mode: Any
) -> None:
    emit, lateness = mode
    counting = Counting()
    window = sessions(gap, lag, lateness=lateness, emit=emit)
    got = results(Chunked(cut(events, sizes)), window, counting)
    model = SessionModel(lag, lateness, emit, gap=gap).run(events)
    # In the very order, also of the elements.
    assert got == model.out
    assert counting.late_count == len(model.late)


@given(events, sizes)
def test_without_keys_all_elements_make_sessions_together(events: list[Event], sizes: list[int]) -> None:
    got = run(Chunked(cut(events, sizes)).via(sessions(5, 7)).to(Collect()))
    model = SessionModel(7, gap=5).run((0, time, number) for _, time, number in events)
    assert [(w.start, w.end, len(w.value)) for w in got] == [
        (w.start, w.end, len(w.value)) for _, w in model.out
    ]


@given(gaps, st.sampled_from([0.9, 2.5, 4]), st.sampled_from(["close", "update"]))
def test_sessions_by_the_clock_close_on_time(arrivals: Any, gap: float, emit: Any) -> None:
    events = by_the_clock(arrivals)
    seen: list[tuple[float, Any]] = []
    source = Chunked([[event] for event in events], times=[event[1] for event in events])
    window: Any = SessionWindow(timedelta(seconds=gap), emit=emit)
    got = results(source, window.via(stamped(seen)))
    model = SessionModel(emit=emit, clock=True, gap=gap).run(events)
    assert [(key, w.revision, w.value) for key, w in got] == [
        (key, w.revision, w.value) for key, w in model.out
    ]
    for when, w in seen:
        if emit == "close" and when < events[-1][1]:
            assert when == pytest.approx(w.end)


@given(events, st.integers(1, 12))
def test_in_order_and_out_of_order_the_sessions_are_the_same(events: list[Event], gap: int) -> None:
    ordered = sorted(events, key=event_time)
    got = results(Chunked([events]), sessions(gap, 200, into=Count()))
    expected = results(Chunked([ordered]), sessions(gap, 0, into=Count()))
    assert sorted(map(str, got)) == sorted(map(str, expected))


@given(events, sizes, st.integers(0, 9))
def test_a_window_after_it_loses_nothing_by_the_end_of_sessions(
    events: list[Event], sizes: list[int], lag: int
) -> None:
    counting = Counting()
    second: Any = TumblingWindow(
        timedelta(seconds=10), time=EventTime(lambda keyed: keyed.value.end), into=Count()
    )
    first: Any = Keyed(key_of, sessions(4, lag))
    stream: Any = Chunked(cut(sorted(events, key=event_time), sizes))
    got = run(stream.via(first).via(second).to(Collect()), observers=[counting])
    model = SessionModel(lag, gap=4).run(sorted(events, key=event_time))
    assert sum(w.value for w in got) == len(model.out)
    assert [w.start for w in got] == sorted({w.end // 10 * 10 for _, w in model.out})
    assert counting.late_count == 0


@given(events, sizes, st.integers(0, 9))
def test_a_window_after_it_loses_nothing_by_the_start_of_sessions(
    events: list[Event], sizes: list[int], lateness: int
) -> None:
    """Sessions come in the order of their ends: only what the first promises closes the second window."""
    counting = Counting()
    second: Any = TumblingWindow(
        timedelta(seconds=10),
        time=EventTime(lambda keyed: keyed.value.start, out_of_order=10_000),
        into=Count(),
    )
    first: Any = Keyed(key_of, sessions(4, lateness=lateness))
    stream: Any = Chunked(cut(sorted(events, key=event_time), sizes))
    got = run(stream.via(first).via(second).to(Collect()), observers=[counting])
    model = SessionModel(0, lateness, gap=4).run(sorted(events, key=event_time))
    assert sum(w.value for w in got) == len(model.out)
    assert counting.late_count == 0


def test_what_it_promises_lets_later_windows_close() -> None:
    """The second window closes when no session can begin in it any more, not at the end only."""
    seen: list[tuple[float, Any]] = []
    source = Chunked([[t] for t in (1, 2, 11, 30, 60)], times=[0.0, 1.0, 2.0, 3.0, 4.0])
    first: Any = SessionWindow(timedelta(seconds=5), time=EventTime(lambda t: t), into=Count())
    second: Any = TumblingWindow(timedelta(seconds=10), time=EventTime(lambda w: w.start), into=Count())
    run(source.via(first).via(second).via(stamped(seen)).to(Collect()))
    # The session of 30 is open until 60 comes, and may not be overtaken.
    assert [(when, w.start) for when, w in seen] == [(3.0, 0), (3.0, 10), (4.0, 30), (4.0, 60)]


@given(events, st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.3]), min_size=1, max_size=4), sizes, modes)
@settings(max_examples=60)
def test_a_restart_from_any_checkpoint_changes_nothing(
    events: list[Event], pauses: list[float], sizes: list[int], mode: Any
) -> None:
    emit, lateness = mode
    chunks = cut(events, sizes)
    times = [sum(pauses[i % len(pauses)] for i in range(n + 1)) for n in range(len(chunks))]

    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        source, sink = Chunked(chunks, times=times), Recorder()
        time: Any = EventTime(event_time, out_of_order=5, idle_after=timedelta(days=1))
        into: Any = ToList(state=tuple[int, float, int])
        window = SessionWindow(
            timedelta(seconds=5),
            time=time,
            lateness=lateness,
            emit=emit,
            into=into,
        )
        keyed: Any = Keyed(key_of, window)
        second: Any = TumblingWindow(
            timedelta(seconds=7),
            time=EventTime(lambda k: k.value.end, idle_after=timedelta(days=1)),
            into=Count(),
        )
        return source.via(keyed).via(second).to(sink), sink, source

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "CHECK_EVERY", 1)  # state changes while it is written
        restarts(build)


def test_sessions_by_the_clock_are_restored_with_their_timers() -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        source = Chunked([[1], [2], [3], [4], [5]], times=[0.1, 1.4, 2.9, 9.0, 9.5])
        sink = Recorder()
        return source.via(SessionWindow(timedelta(seconds=2))).via(Map(_value)).to(sink), sink, source

    assert restarts(build) > 5


def _value(window: Window[Any]) -> Any:
    return window.value


def test_it_promises_no_more_than_the_start_of_the_longest_session() -> None:
    counting = Counting()
    time: Any = EventTime(lambda w: w.start, out_of_order=10_000)
    second: Any = TumblingWindow(timedelta(seconds=10), time=time, into=Count())
    first: Any = SessionWindow(timedelta(seconds=5), time=EventTime(lambda t: t), into=Count())
    source = Chunked([[t] for t in [*range(0, 40, 3), 60]])
    got = run(source.via(first).via(second).to(Collect()), observers=[counting])
    assert [(w.start, w.value) for w in got] == [(0, 1), (60, 1)]
    assert counting.late_count == 0


def test_two_sessions_that_an_element_joins_go_on_from_the_larger_revision() -> None:
    late = sessions(5, lateness=100, into=Count())
    times = [0, 9, 30, 10, 9, 5, 50]
    got = run(Chunked([numbered((0, t) for t in times)]).via(late).to(Collect()))
    assert [(w.start, w.end, w.value, w.revision) for w in got] == [
        (0, 5, 1, 0),
        (9, 14, 1, 0),
        (9, 15, 2, 1),
        (9, 15, 3, 2),
        (0, 15, 5, 3),
        (30, 35, 1, 0),
        (50, 55, 1, 0),
    ]


def test_a_closed_session_that_is_open_again_is_emitted_when_it_closes() -> None:
    late = sessions(5, lateness=100, into=Count())
    # 16 is past the end of 10; with 14 the session ends at 19.
    got = run(
        Chunked([numbered((key, t) for key, t in [(0, 10), (1, 16), (0, 14), (1, 20), (0, 90)])])
        .via(Keyed(key_of, late))
        .to(Collect())
    )
    mine = [(w.start, w.end, w.value, w.revision) for key, w in got if key == 0]
    assert mine == [(10, 15, 1, 0), (10, 19, 2, 1), (90, 95, 1, 0)]


class Odd(Aggregator[Any, int]):
    """Sums; fails to add 13, to merge with a sum of 100 and more, and to give the sum 7."""

    def initial(self) -> list[int]:
        return [0]

    def add(self, acc: list[int], value: Any) -> list[int]:
        if value[0] == 13:
            raise ValueError("13")
        acc[0] += value[0]
        return acc

    def merge(self, left: list[int], right: list[int]) -> list[int]:
        if right[0] >= 100:
            raise ValueError("too much")
        return [left[0] + right[0]]

    def result(self, acc: list[int]) -> int:
        if acc[0] == 7:
            raise ValueError("7")
        return acc[0]


@pytest.mark.parametrize("sizes", [[], [1] * 9, [3, 2]])
def test_what_fails_is_dropped_alone(sizes: list[int]) -> None:
    """Elements are (key and number, time)."""
    window: Any = SessionWindow(timedelta(seconds=5), time=EventTime(lambda e: e[1]), into=Odd())
    keyed: Any = Keyed(lambda e: e[2], window)
    elements = [(1, 0, "a"), (13, 1, "a"), (7, 2, "b"), (2, 2, "c"), (4, 3, "a"), (8, 50, "a"), (7, 50, "b")]
    got = run(Chunked(cut(elements, sizes)).via(keyed).to(Collect()), on_error=Skip())
    assert [(k, w.start, w.end, w.value) for k, w in got] == [
        ("c", 2, 7, 2),
        ("a", 0, 8, 5),
        ("a", 50, 55, 8),
    ]


def test_a_failure_to_merge_leaves_both_sessions() -> None:
    time: Any = EventTime(lambda e: e[1], out_of_order=50)
    window: Any = SessionWindow(timedelta(seconds=5), time=time, into=Odd())
    source = Source([(1, 0), (100, 9), (5, 5), (2, 10)])
    got = run(source.via(window).to(Collect()), on_error=Skip())
    assert [(w.start, w.end) for w in got] == [(0, 5), (9, 15)]


def test_the_session_of_a_quiet_stream_closes_with_the_clock() -> None:
    quiet = Chunked([[1], [4]], times=[0.0, 2.0], ends=False)
    time: Any = EventTime(lambda t: t, out_of_order=3, idle_after=timedelta(seconds=4))
    window: Any = SessionWindow(timedelta(seconds=10), time=time, into=Count())
    # The watermark goes on from 4 when the source is idle, at 6.
    assert seen_by(quiet.via(window), 60) == [(16.0, Window(1, 14, 2))]


@given(st.lists(events, min_size=2, max_size=3), st.data())
def test_origins_in_order_make_nothing_late(lists: list[list[Event]], data: Any) -> None:
    streams = []
    for number, mine in enumerate(lists):
        mine.sort(key=event_time)
        chunks = cut(mine, data.draw(sizes))
        times = [0.5 * n * (number + 1) for n in range(len(chunks))]
        streams.append(Chunked(chunks, f"origin {number}", times=times))
    counting = Counting()
    got = results(merge(*streams), sessions(5), counting)
    expected = SessionModel(0, gap=5).run(sorted((e for es in lists for e in es), key=event_time))
    assert counting.late_count == 0
    assert sorted((k, w.start, w.end, len(w.value)) for k, w in got) == sorted(
        (k, w.start, w.end, len(w.value)) for k, w in expected.out
    )


def test_a_time_far_in_the_future_closes_nothing() -> None:
    counting = Counting()
    window: Any = SessionWindow(timedelta(seconds=5), time=EventTime(lambda t: t), into=ToList())
    got = run(Chunked([[1, 9_999, 2, 3], [20]]).via(window).to(Collect()), observers=[counting])
    assert [w.value for w in got] == [[1, 2, 3], [20], [9_999]]
    assert (counting.ahead_count, counting.late_count) == (1, 0)


@pytest.mark.parametrize("time", [None, float("nan"), float("inf"), -float("inf"), "x"], ids=repr)
def test_a_time_that_is_none_is_an_error_of_its_element(time: Any) -> None:
    window: Any = SessionWindow(timedelta(seconds=5), time=EventTime(lambda x: time if x == 2 else x))
    got = run(Source([1, 2, 3]).via(window).to(Collect()), on_error=Skip())
    assert got == [Window(1, 8, [1, 3])]


@pytest.mark.parametrize("gap", [0, -1, float("nan"), "5", None, True], ids=repr)
def test_a_gap_that_is_none_is_refused(gap: Any) -> None:
    with pytest.raises(ConfigurationError, match="SessionWindow's gap must be"):
        SessionWindow(gap)


def test_options_are_checked() -> None:
    gap, time = timedelta(seconds=1), EventTime[Any](lambda x: x)
    wrong: dict[str, Any] = {
        "lateness must be": {"time": time, "lateness": -1},
        "emit must be": {"emit": "always"},
        "late must be a sink": {"time": time, "late": print},
        "into takes an aggregator": {"into": Sum},
        "nothing is late": {"time": ProcessingTime(), "lateness": 5},
        "on_error must be": {"on_error": Skip},
        "time must be": {"time": 5},
    }
    for match, options in wrong.items():
        with pytest.raises(ConfigurationError, match=f"SessionWindow.*{match}"):
            SessionWindow(gap, **options)
