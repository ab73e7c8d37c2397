"""Aggregators: one by one, in parts or merged, the result is the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Skip, Source, StepError
from streamflow.connectors import Into
from streamflow.operators import Aggregator, Count, Mean, Sum, ToList
from tests.support import Chunked, cut, run, sizes

AGGREGATORS: dict[str, tuple[Any, Any]] = {
    "list": (ToList(), list),
    "count": (Count(), len),
    "sum": (Sum(), sum),
    "sum by": (Sum(lambda x: x * 2), lambda xs: sum(x * 2 for x in xs)),
    "mean": (Mean(), lambda xs: sum(xs) / len(xs)),
    "mean by": (Mean(lambda x: x * 2), lambda xs: 2 * sum(xs) / len(xs)),
}
numbers = st.lists(st.integers(-1000, 1000), min_size=1, max_size=30)


@pytest.mark.parametrize("name", AGGREGATORS)
@given(values=numbers, at=st.integers(0, 30), sizes=sizes)
def test_adding_merging_and_running_agree(name: str, values: list[int], at: int, sizes: list[int]) -> None:
    aggregator, model = AGGREGATORS[name]
    left, right = aggregator.initial(), aggregator.initial()
    for value in values[:at]:
        left = aggregator.add(left, value)
    right = aggregator.add_all(right, iter(values[at:]))
    assert aggregator.result(aggregator.merge(left, right)) == model(values)
    assert run(Chunked(cut(values, sizes)).to(Into(aggregator))) == model(values)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), sizes)
def test_floats_are_added_from_left_to_right_whatever_the_chunks(
    values: list[float], sizes: list[int]
) -> None:
    total: float = 0
    for value in values:
        total += value
    assert run(Chunked(cut(values, sizes)).to(Into(Sum()))) == total


@given(st.lists(st.sampled_from([1, 2, "x", None]), max_size=12), sizes, st.booleans())
def test_into_skips_what_does_not_add_and_adds_nothing_twice(
    values: list[Any], sizes: list[int], by: bool
) -> None:
    aggregator: Any = Sum(lambda x: x + 0) if by else Sum()
    result = run(Chunked(cut(values, sizes)).to(Into(aggregator)), on_error=Skip())
    assert result == sum(value for value in values if isinstance(value, int))


def test_into_names_what_does_not_add() -> None:
    adding: Any = Sum()
    with pytest.raises(StepError, match=r"step 'Into': failed on 'x': TypeError"):
        run(Source([1, "x"]).to(Into(adding)))


def test_an_empty_stream_has_a_sum_a_count_and_no_mean() -> None:
    assert run(Source([]).to(Into(Sum()))) == 0
    assert run(Source([]).to(Into(Count()))) == 0
    assert run(Source([]).to(Into(ToList()))) == []
    assert math.isnan(run(Source([]).to(Into(Mean()))))


def test_the_result_of_a_list_is_not_its_accumulator() -> None:
    acc = ToList[int]().add_all([], [1])
    result = ToList[int]().result(acc)
    result.append(2)
    assert acc == [1]


def test_an_aggregator_of_ones_own() -> None:
    class Product(Aggregator[int, int]):
        state = int

        def initial(self) -> int:
            return 1

        def add(self, acc: int, value: int) -> int:
            return acc * value

        def result(self, acc: int) -> int:
            return acc

    assert run(Source([2, 3, 4]).to(Into(Product()))) == math.factorial(4)
    with pytest.raises(NotImplementedError):
        Product().merge(1, 2)
