"""`Fold` and `Reduce`: every intermediate result, whatever the chunks."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamflow import KeyedValue, Skip, Source
from streamflow.connectors import Collect
from streamflow.operators import Fold, Keyed, Reduce
from tests.support import Chunked, cut, run, sizes

numbers = st.lists(st.integers(-9, 9), max_size=30)


@given(numbers, sizes)
def test_each_element_gives_the_result_so_far(values: list[int], sizes: list[int]) -> None:
    source = Chunked(cut(values, sizes))
    assert (
        run(source.via(Fold(5, lambda n, x: n * 2 - x)).to(Collect()))
        == list(accumulate(values, lambda n, x: n * 2 - x, initial=5))[1:]
    )
    assert run(source.via(Reduce(lambda n, x: n * 2 - x)).to(Collect())) == list(
        accumulate(values, lambda n, x: n * 2 - x)
    )


@given(numbers, sizes)
def test_an_element_that_fails_leaves_the_result_as_it_was(values: list[int], sizes: list[int]) -> None:
    def add(total: int, x: int) -> int:
        return total + x + 0 // (x % 3)

    good = [x for x in values if x % 3]
    result = run(Chunked(cut(values, sizes)).via(Fold(0, add)).to(Collect()), on_error=Skip())
    assert result == list(accumulate(good))


def test_a_mutable_initial_value_is_made_for_each_key() -> None:
    keyed: Any = Keyed(lambda x: x % 2, Fold(list, lambda seen, x: [*seen, x]))
    assert run(Source([1, 2, 3]).via(keyed).to(Collect())) == [
        KeyedValue(1, [1]),
        KeyedValue(0, [2]),
        KeyedValue(1, [1, 3]),
    ]


def test_none_is_a_value_to_reduce() -> None:
    assert run(Source([None, 1, 2]).via(Reduce(lambda a, b: b if a is None else a)).to(Collect())) == [
        None,
        1,
        1,
    ]
