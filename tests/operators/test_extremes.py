"""`Min`, `Max` and `TopK`: what compares oddly, ties, bounds, and what `Into` makes of failures."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Skip, Source, StepError
from streamflow.connectors import Into
from streamflow.operators import Combine, Max, Min, TopK
from tests.support import Chunked, cut, run, sizes

AGGREGATORS: dict[str, Any] = {
    "min": Min(),
    "min by": Min(lambda x: x),
    "max": Max(),
    "max by": Max(lambda x: x),
    "top": TopK(3),
    "top by": TopK(3, lambda x: x),
}
each = pytest.mark.parametrize("name", AGGREGATORS)
some = st.one_of(st.just(math.nan), st.integers(-5, 5), st.floats(-5, 5))


@each
@given(parts=st.lists(st.lists(some, max_size=4), min_size=1, max_size=5))
def test_nan_is_left_out_however_the_elements_are_cut(name: str, parts: list[list[float]]) -> None:
    aggregator = AGGREGATORS[name]
    merged = reduce(aggregator.merge, [aggregator.add_all(aggregator.initial(), part) for part in parts])
    one_by_one = reduce(aggregator.add, [x for part in parts for x in part], aggregator.initial())
    numbers = [x for part in parts for x in part if x == x]
    expected: Any = {
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
        "top": sorted(numbers, reverse=True)[:3],
    }[name.split()[0]]
    assert aggregator.result(merged) == aggregator.result(one_by_one) == expected


@pytest.mark.parametrize(("aggregator", "nothing"), [(Min(), None), (Max(), None), (TopK(2), [])])
def test_nothing_has_no_extreme(aggregator: Any, nothing: Any) -> None:
    assert run(Source([]).to(Into(aggregator))) == nothing
    assert run(Source([math.nan]).to(Into(aggregator))) == nothing


@given(st.lists(st.tuples(st.integers(0, 3), st.integers()), min_size=1, max_size=20), st.integers(0, 20))
def test_of_equal_ones_the_first_counts(pairs: list[tuple[int, int]], at: int) -> None:
    class Card(tuple[int, int]):
        """Ordered by the first of the pair alone."""

        def __lt__(self, other: Any) -> bool:
            return bool(self[0] < other[0])

        def __gt__(self, other: Any) -> bool:
            return bool(self[0] > other[0])

    cards = [Card(pair) for pair in pairs]
    low: Any
    for low, expected in ((Min(), min(cards)), (Max(), max(cards))):
        parts = [low.add_all(low.initial(), part) for part in (cards[:at], cards[at:])]
        assert low.merge(*parts) is expected
        assert reduce(low.add, cards, low.initial()) is expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers()), max_size=20), st.integers(1, 25), sizes)
def test_the_largest_come_first_and_equal_ones_in_the_order_of_arrival(
    pairs: list[tuple[int, int]], k: int, sizes: list[int]
) -> None:
    largest: Any = TopK(k, lambda pair: pair[0])
    expected = sorted(pairs, key=lambda pair: -pair[0])[:k]
    assert run(Chunked(cut(pairs, sizes)).to(Into(largest))) == expected
    acc = largest.initial()
    for pair in pairs:
        acc = largest.add(acc, pair)
        assert len(acc) <= k, "no more than the largest are remembered"


def test_the_list_that_was_emitted_does_not_change() -> None:
    largest: Any = TopK(2)
    acc = largest.add_all([], [1, 2])
    result = largest.result(acc)
    result.append("x")
    assert largest.result(acc) == [2, 1]


@each
@given(values=st.lists(st.sampled_from([1, 2, 3, "x"]), max_size=12), sizes=sizes)
def test_into_skips_what_does_not_compare(name: str, values: list[Any], sizes: list[int]) -> None:
    """Whichever kind comes first makes the other fail."""
    kept = [x for x in values if isinstance(x, type(values[0]))]
    aggregator = AGGREGATORS[name]
    expected = aggregator.result(aggregator.add_all(aggregator.initial(), kept))
    assert run(Chunked(cut(values, sizes)).to(Into(aggregator)), on_error=Skip()) == expected


def test_into_names_what_does_not_compare() -> None:
    least: Any = Min()
    with pytest.raises(StepError, match=r"step 'Into': failed on 'x': TypeError"):
        run(Source([1, "x"]).to(Into(least)))


ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize(
    "aggregator", [Min(state=UUID), Max(state=UUID), TopK(2, state=UUID), Combine(m=Max(state=UUID))]
)
@pytest.mark.parametrize("values", [[], [ONE], [ONE, TWO]])
def test_a_state_of_a_given_type_comes_back(aggregator: Any, values: list[UUID]) -> None:
    acc = aggregator.add_all(aggregator.initial(), values)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(acc), type=aggregator.state) == acc


@pytest.mark.parametrize("k", [0, -1, 1.0, True, None, "3"])
def test_k_is_a_whole_number_from_one(k: Any) -> None:
    with pytest.raises(ConfigurationError, match="TopK's k must be"):
        TopK(k)


@pytest.mark.parametrize("make", [Min, Max, lambda by: TopK(1, by)], ids=["Min", "Max", "TopK"])
def test_by_is_a_function(make: Any) -> None:
    async def coroutine(x: Any) -> Any:
        return x

    with pytest.raises(ConfigurationError, match=r"(Min|Max|TopK) takes a function, not 3"):
        make(3)
    with pytest.raises(ConfigurationError, match="takes a plain function"):
        make(coroutine)
