"""Aggregators: one by one, in parts or merged, the result is the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from datetime import timedelta
from fractions import Fraction
from functools import reduce
from itertools import count
from operator import xor
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import EventTime, Skip, Source, StepError
from streamflow.connectors import Collect, Into
from streamflow.operators import (
    Aggregate,
    Aggregator,
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
from tests.support import Chunked, cut, run, sizes


def top(values: Iterable[Any], k: int, by: Any = None) -> list[Any]:
    return sorted(values, key=by, reverse=True)[:k]


def rank(x: int) -> int:
    """Many elements have the same."""
    return x % 7


def count_distinct() -> Any:
    return Aggregate(set[int], lambda seen, x: seen | {x}, lambda a, b: a | b, len, state=set[int])


def in_place() -> Any:
    def put(counts: dict[int, int], x: int) -> dict[int, int]:
        counts[x] = counts.get(x, 0) + 1
        return counts

    def both(a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
        return {x: a.get(x, 0) + b.get(x, 0) for x in {**a, **b}}

    return Aggregate(dict, put, both, dict, state=dict[int, int])


AGGREGATORS: dict[str, tuple[Any, Any]] = {
    "list": (ToList(), list),
    "count": (Count(), len),
    "sum": (Sum(), sum),
    "sum by": (Sum(lambda x: x * 2), lambda xs: sum(x * 2 for x in xs)),
    "sum of fractions": (Sum(lambda x: Fraction(x, 7)), lambda xs: Fraction(sum(xs), 7)),
    "mean": (Mean(), lambda xs: sum(xs) / len(xs)),
    "mean by": (Mean(lambda x: x * 2), lambda xs: 2 * sum(xs) / len(xs)),
    "min": (Min(), min),
    "min by": (Min(rank), lambda xs: min(map(rank, xs))),
    "max": (Max(), max),
    "max by": (Max(rank), lambda xs: max(map(rank, xs))),
    "top 1": (TopK(1), lambda xs: top(xs, 1)),
    "top 4": (TopK(4), lambda xs: top(xs, 4)),
    "top 1 by": (TopK(1, rank), lambda xs: top(xs, 1, rank)),
    "top 4 by": (TopK(4, rank), lambda xs: top(xs, 4, rank)),
    "aggregate": (Aggregate(0, lambda a, x: a ^ x, lambda a, b: a ^ b), lambda xs: reduce(xor, xs)),
    "aggregate of sets": (count_distinct(), lambda xs: len(set(xs))),
    "aggregate in place": (in_place(), Counter),
    "combine": (
        Combine(n=Count(), all=ToList(), top=TopK(2, rank), low=Min(), mean=Mean()),
        lambda xs: {
            "n": len(xs),
            "all": xs,
            "top": top(xs, 2, rank),
            "low": min(xs),
            "mean": sum(xs) / len(xs),
        },
    ),
    "combine combined": (
        Combine(a=Combine(n=Count(), sum=Sum()), b=in_place()),
        lambda xs: {"a": {"n": len(xs), "sum": sum(xs)}, "b": Counter(xs)},
    ),
}
numbers = st.lists(st.integers(-1000, 1000), min_size=1, max_size=30)
each = pytest.mark.parametrize("name", AGGREGATORS)


@each
@given(values=numbers, at=st.integers(0, 30), sizes=sizes)
def test_adding_merging_and_running_agree(name: str, values: list[int], at: int, sizes: list[int]) -> None:
    aggregator, model = AGGREGATORS[name]
    left, right = aggregator.initial(), aggregator.initial()
    for value in values[:at]:
        left = aggregator.add(left, value)
    right = aggregator.add_all(right, iter(values[at:]))
    assert aggregator.result(aggregator.merge(left, right)) == model(values)
    assert run(Chunked(cut(values, sizes)).to(Into(aggregator))) == model(values)


@each
@given(parts=st.lists(st.lists(st.integers(-20, 20), max_size=5), min_size=1, max_size=6).filter(any))
def test_however_parts_are_merged_the_result_is_that_of_all(name: str, parts: list[list[int]]) -> None:
    aggregator, model = AGGREGATORS[name]
    accs = [aggregator.add_all(aggregator.initial(), part) for part in parts]
    expected = model([value for part in parts for value in part])
    assert aggregator.result(reduce(aggregator.merge, accs)) == expected
    from_the_right = reduce(lambda right, left: aggregator.merge(left, right), reversed(accs))
    assert aggregator.result(from_the_right) == expected


@each
@given(left=st.lists(st.integers(-20, 20), max_size=8), right=st.lists(st.integers(-20, 20), max_size=8))
def test_merging_changes_neither_part_nor_does_what_is_added_later(
    name: str, left: list[int], right: list[int]
) -> None:
    aggregator, _ = AGGREGATORS[name]
    accs = [aggregator.add_all(aggregator.initial(), part) for part in (left, right)]
    before = deepcopy(accs)
    merged = aggregator.merge(*accs)
    for value in (21, -21, 0):
        merged = aggregator.add(merged, value)
    aggregator.add_all(merged, [22, -22])
    assert accs == before
    result = aggregator.result(accs[0]) if left else None
    aggregator.merge(*accs)
    assert not left or aggregator.result(accs[0]) == result


@each
@given(values=st.lists(st.integers(-1000, 1000), max_size=12))
def test_the_state_comes_back_as_it_was(name: str, values: list[int]) -> None:
    aggregator, _ = AGGREGATORS[name]
    if name == "sum of fractions":
        return  # no state that MessagePack could hold
    acc = aggregator.add_all(aggregator.initial(), values)
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(acc), type=aggregator.state)
    assert back == acc
    assert type(back) is type(acc)


@each
@settings(max_examples=20)
@given(values=numbers, sizes=sizes, is_keyed=st.booleans())
def test_a_window_has_the_result_of_its_elements(
    name: str, values: list[int], sizes: list[int], is_keyed: bool
) -> None:
    aggregator, model = AGGREGATORS[name]
    second = count()
    window: Any = TumblingWindow(
        timedelta(seconds=5), time=EventTime(lambda x: next(second)), into=aggregator
    )
    keyed: Any = Keyed(lambda x: x % 2 if is_keyed else 0, window)
    result = run(Chunked(cut(values, sizes)).via(keyed).to(Collect()))
    expected: dict[Any, list[int]] = {}
    for at, value in enumerate(values):
        expected.setdefault((value % 2 if is_keyed else 0, at - at % 5), []).append(value)
    assert {(key, window.start): window.value for key, window in result} == {
        slot: model(part) for slot, part in expected.items()
    }


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), sizes)
def test_floats_are_added_from_left_to_right_whatever_the_chunks(
    values: list[float], sizes: list[int]
) -> None:
    total: float = 0
    for value in values:
        total += value
    assert run(Chunked(cut(values, sizes)).to(Into(Sum()))) == total


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=5), max_size=4))
def test_floats_from_an_iterator_are_added_as_those_of_a_list(parts: list[list[float]]) -> None:
    adding: list[Any] = [Sum(), Mean(), Sum(float), Mean(float)]
    for aggregator in adding:
        of_lists = of_iterators = one_by_one = aggregator.initial()
        for part in parts:
            of_lists = aggregator.add_all(of_lists, part)
            of_iterators = aggregator.add_all(of_iterators, iter(part))
            one_by_one = reduce(aggregator.add, part, one_by_one)
        assert of_lists == of_iterators == one_by_one


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
    assert math.isnan(run(Source([]).to(Into(Mean(float)))))


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
