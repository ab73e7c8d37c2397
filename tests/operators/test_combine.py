"""`Aggregate` and `Combine`: parts that fail together, states that are saved, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError, EventTime, Pipeline, Skip, Source
from streamflow.connectors import Into
from streamflow.operators import (
    Aggregate,
    Combine,
    Count,
    Keyed,
    Max,
    Mean,
    Min,
    Sum,
    ToList,
    TopK,
    TumblingWindow,
)
from tests.support import Chunked, Recorder, cut, restarts, run, sizes


def inverse(x: int) -> float:
    return 6 / x


@given(st.lists(st.integers(0, 3), max_size=12), sizes)
def test_an_element_that_one_cannot_add_is_added_to_none(values: list[int], sizes: list[int]) -> None:
    both: Any = Combine(n=Count(), all=ToList(), first=TopK(2, lambda x: -x), low=Min(inverse))
    good = [x for x in values if x]
    assert run(Chunked(cut(values, sizes)).to(Into(both)), on_error=Skip()) == {
        "n": len(good),
        "all": good,
        "first": sorted(good)[:2],
        "low": min(map(inverse, good), default=None),
    }


@given(st.lists(st.sampled_from([1, 2, "x", None]), max_size=12), sizes)
def test_nor_what_fails_without_a_function_of_the_users(values: list[Any], sizes: list[int]) -> None:
    both: Any = Combine(all=ToList(), sum=Sum(), mean=Mean(), n=Count())
    assert not both.calls_back
    result = run(Chunked(cut(values, sizes)).to(Into(both)), on_error=Skip())
    good = [x for x in values if isinstance(x, int)]
    assert (result["all"], result["sum"], result["n"]) == (good, sum(good), len(good))


def test_results_are_in_the_order_in_which_they_are_written() -> None:
    both: Any = Combine(z=ToList(), b=Count(), a=Sum())
    assert list(run(Source([1]).to(Into(both)))) == ["z", "b", "a"]
    assert both.state == Combine(a=Sum(), b=Count(), z=ToList()).state


def distinct() -> Any:
    def put(seen: set[int], x: int) -> set[int]:
        seen.add(x)
        return seen

    return Aggregate(set, put, lambda a, b: a | b, sorted)


SAVED: dict[str, Callable[[], Any]] = {
    "min": Min,
    "max by": lambda: Max(lambda x: -x),
    "top": lambda: TopK(2),
    "top by": lambda: TopK(2, lambda x: x % 5),
    "aggregate": lambda: Aggregate(0, lambda a, x: a + x, lambda a, b: a + b),
    "aggregate in place": distinct,
    "combine": lambda: Combine(n=Count(), all=ToList(), mean=Mean(), top=TopK(2), seen=distinct()),
}


@pytest.mark.parametrize("name", SAVED)
@settings(max_examples=5)
@given(
    cuts=st.lists(st.integers(1, 5), min_size=4, max_size=10),
    gap=st.sampled_from([0.3, 0.55, 1.25]),
    is_keyed=st.booleans(),
)
def test_windows_restart_with_their_state(name: str, cuts: list[int], gap: float, is_keyed: bool) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        chunks = cut(range(24), cuts)
        source = Chunked(chunks, times=[gap * number for number in range(len(chunks))])
        sink = Recorder()
        window: Any = TumblingWindow(
            timedelta(seconds=4),
            time=EventTime(lambda x: x, idle_after=timedelta(days=1)),
            into=SAVED[name](),
        )
        return source.via(Keyed(lambda x: x % 2, window) if is_keyed else window).to(sink), sink, source

    restarts(build, order=lambda results: sorted(results, key=repr))


ANY_AGGREGATE: Any = Aggregate
ANY_COMBINE: Any = Combine


async def coroutine(*args: Any) -> Any:
    return args


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: ANY_AGGREGATE(0, None, max), "Aggregate's add takes a function, not None"),
        (lambda: ANY_AGGREGATE(0, max, 3), "Aggregate's merge takes a function, not 3"),
        (lambda: ANY_AGGREGATE(0, max, max, 3), "Aggregate's result takes a function, not 3"),
        (lambda: ANY_AGGREGATE(0, coroutine, max), "Aggregate's add takes a plain function"),
        (lambda: Combine(), "at least one aggregator by name"),
        (lambda: ANY_COMBINE(n=Count), r"Combine's n takes an aggregator.*did you mean Count\(\.\.\.\)"),
        (lambda: ANY_COMBINE(n=len), "Combine's n takes an aggregator"),
    ],
)
def test_mistakes_are_refused_with_a_hint(mistake: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        mistake()
