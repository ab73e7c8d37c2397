"""What go-streams' own tests say of its operators, asked of ours. docs/from-go-streams.md has the differences.

Inputs and results are those of the files that are named; times are in virtual seconds instead of milliseconds.
Operators that are added later belong to the section of their file.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamflow import ConfigurationError, EventTime, Pipeline, PlanError, Source
from streamflow.connectors import Collect
from streamflow.operators import (
    Batch,
    Filter,
    FlatMap,
    Flatten,
    Fold,
    Keyed,
    Map,
    MapAsync,
    PassThrough,
    Reduce,
    SlidingWindow,
    Throttle,
    TumblingWindow,
    fan_out,
    merge,
    split,
)
from tests.support import Chunked, run, stamped


def at(*arrivals: tuple[float, Any]) -> Chunked:
    """Elements that arrive one by one, each at its time."""
    return Chunked([[value] for _, value in arrivals], times=[time for time, _ in arrivals])


def windows(stream: Any) -> list[Any]:
    return [window.value for window in run(stream.to(Collect()))]


def with_stars(value: str) -> list[str]:
    return [f"{value}*", f"{value}**"]


def has_no_a(value: str) -> bool:
    return "a" not in value.lower()


# map_test.go, filter_test.go, flat_map_test.go, fold_test.go, reduce_test.go


def test_map() -> None:
    assert run(Source("abc").via(Map(str.upper)).to(Collect())) == ["A", "B", "C"]


@pytest.mark.parametrize("parallelism", [0, -1])
def test_no_parallelism_is_refused(parallelism: int) -> None:
    async def upper(value: str) -> str:
        return value.upper()

    with pytest.raises(ConfigurationError):
        MapAsync(upper, concurrency=parallelism)
    with pytest.raises(ConfigurationError):
        Map(str.upper, executor="thread", concurrency=parallelism)


def test_filter() -> None:
    assert run(Source([1, 2, 3, 4, 5]).via(Filter(lambda x: x % 2 != 0)).to(Collect())) == [1, 3, 5]


def test_flat_map() -> None:
    doubled = Source("abc").via(FlatMap(lambda x: [x, x.upper()]))
    assert run(doubled.to(Collect())) == ["a", "A", "b", "B", "c", "C"]


def test_fold() -> None:
    digits: Any = Fold("", lambda text, x: text + str(x))
    folded = run(Source([1, 2, 3, 4, 5]).via(digits).via(PassThrough()).to(Collect()))
    assert folded == ["1", "12", "123", "1234", "12345"]


def test_reduce() -> None:
    assert run(Source([1, 2, 3, 4, 5]).via(Reduce(lambda a, b: a + b)).to(Collect())) == [1, 3, 6, 10, 15]


# batch_test.go


def test_a_batch_is_full() -> None:
    source = at(*[(0.0, x) for x in "abcde"])
    assert run(source.via(Batch(2, within=100)).to(Collect())) == [["a", "b"], ["c", "d"], ["e"]]


def test_the_time_of_a_batch_is_up() -> None:
    source = at((20, "a"), (40, "b"), (60, "c"), (80, "d"), (100, "e"))
    assert run(source.via(Batch(3, within=10)).to(Collect())) == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_a_batch_is_full_or_its_time_is_up() -> None:
    source = at((10, "a"), (15, "b"), (20, "c"), (40, "d"), (110, "e"), (300, "f"))
    assert run(source.via(Batch(3, within=100)).to(Collect())) == [["a", "b", "c"], ["d", "e"], ["f"]]


def test_batches_one_after_the_other_count_from_their_first_element() -> None:
    """As there, but f comes 1 later: the time of [d e] is over 100 after d, there it was after c."""
    arrivals = [(0.0, "a"), (0.0, "b"), (50.0, "c"), (60.0, "d"), (140.0, "e"), (161.0, "f"), (175.0, "g")]
    arrivals += [(180.0, "h"), (185.0, "i"), (279.0, "j"), (400.0, "k"), (420.0, "l")]
    batches = run(at(*arrivals).via(Batch(3, within=100)).to(Collect()))
    assert batches == [["a", "b", "c"], ["d", "e"], ["f", "g", "h"], ["i", "j"], ["k", "l"]]


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Batch(0, within=1)


# keyed_test.go

elements = [next((d for d in (3, 7, 10) if number % d == 0), number) for number in range(30)]


def test_keyed_batches() -> None:
    batches = run(Source(elements).via(Keyed(lambda x: x, Batch(4, within=10))).to(Collect()))
    assert len(batches) == 20
    assert sum(sum(batch) for _, batch in batches) == 292
    assert all(set(batch) == {key} for key, batch in batches)


def test_keyed_with_several_operators() -> None:
    sums: Any = Batch[int](4, within=10).via(Map(sum))
    keyed: Any = Keyed(lambda x: x, sums)
    collected = Source(elements).via(keyed).via(TumblingWindow(timedelta(seconds=25)))
    assert [sum(value for _, value in window) for window in windows(collected)] == [292]


# throttler_test.go


def test_a_throttle_with_backpressure() -> None:
    seen: list[tuple[float, Any]] = []
    run(Source("abcdefg").via(Throttle(2, per=10)).via(stamped(seen)).to(Collect()))
    passed: dict[float, list[str]] = {}
    for time, value in seen:
        passed.setdefault(round(time), []).append(value)
    assert passed == {0: ["a", "b"], 10: ["c", "d"], 20: ["e", "f"], 30: ["g"]}


def test_a_throttle_that_discards() -> None:
    """There a buffer of one lets a third pass in the next period; here what comes above the rate is dropped."""
    assert run(Source("abcdefg").via(Throttle(2, per=20, mode="discard")).to(Collect())) == ["a", "b"]


# tumbling_window_test.go


def test_tumbling_windows() -> None:
    """There windows begin with the program, here at multiples of their size."""
    source = at(*[(15.0 * (number + 1), value) for number, value in enumerate("abcdefg")])
    collected = windows(source.via(TumblingWindow(timedelta(seconds=50))))
    assert collected == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


# sliding_window_test.go

SIZE, EVERY = timedelta(seconds=50), timedelta(seconds=20)

stamped_elements = [("a", 2), ("b", 17), ("c", 26), ("d", 35), ("f", 93), ("e", 77), ("g", 118), ("h", 140)]


def sliding(out_of_order: float) -> Any:
    time: EventTime[Any] = EventTime(lambda pair: pair[1], out_of_order=out_of_order)
    return SlidingWindow(SIZE, EVERY, time=time)


def test_sliding_windows_by_event_time() -> None:
    """Those of go-streams, and before them the two that the stream covers in part; and one more behind them: h, at 140,
    is at the beginning of the window from 140, which is in it here and not there."""
    collected = windows(Source(stamped_elements).via(sliding(20)))
    names = ["".join(sorted(value for value, _ in window)) for window in collected]
    assert names == ["a", "abc", "abcd", "cd", "e", "ef", "fg", "gh", "h", "h"]


def test_an_element_behind_all_open_windows_is_dropped() -> None:
    late = [*stamped_elements[:7], ("i", 10)]
    collected = windows(Source(late).via(sliding(20)))
    assert not any(value == "i" for window in collected for value, _ in window)


def test_an_empty_stream_has_no_windows() -> None:
    assert windows(Source([]).via(sliding(0))) == []


def test_an_interval_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        SlidingWindow(timedelta(seconds=10), timedelta(seconds=20))


# flow_test.go: the chain of several operators, and the functions on streams


def test_a_complex_flow() -> None:
    stream = (
        Source("abc")
        .via(Map(str.upper))
        .via(PassThrough())
        .via(FlatMap(with_stars))
        .via(TumblingWindow(timedelta(seconds=200)))
        .via(Map(lambda window: window.value))
        .via(Flatten[str]())
        .via(Throttle(10, per=200))
        .via(Filter(has_no_a))
    )
    assert run(stream.to(Collect())) == ["B*", "B**", "C*", "C**"]


def test_split_and_merge() -> None:
    without, others = split(Source("abc").via(Map(str.upper)), has_no_a)
    assert sorted(run(merge(without, others).to(Collect()))) == ["A", "B", "C"]
    parts = Pipeline(without.to(Collect()), others.to(Collect()))
    assert run(parts) == (["B", "C"], ["A"])


def test_a_branch_that_leads_nowhere_is_refused() -> None:
    without, _ = split(Source("abc"), has_no_a)
    with pytest.raises(PlanError, match="leads to no sink"):
        run(without.to(Collect()))


def test_fan_out_and_merge() -> None:
    branches = fan_out(Source("abc").via(Filter(has_no_a)).via(Map(str.upper)), 2)
    assert sorted(run(merge(*branches).to(Collect()))) == ["B", "B", "C", "C"]


def test_flatten() -> None:
    nested: list[list[int]] = [[1, 2, 3], [4, 5]]
    assert run(Source(nested).via(Flatten[int]()).to(Collect())) == [1, 2, 3, 4, 5]


# Still to come: session_window_test.go ([a b c] [d] [e]; [a … g] [h]), RoundRobin and ZipWith of flow_test.go.
