"""`split`: each element in one of two streams."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Pipeline, PlanError, Skip, Source, StepError
from streamflow.connectors import Collect, Discard
from streamflow.operators import split
from tests.support import Acknowledging, Chunked, Confirming, cut, run, sizes


def both(branches: Any) -> Any:
    return Pipeline(*(branch.to(Collect()) for branch in branches))


@given(st.lists(st.integers()), sizes)
def test_split_is_two_comprehensions(values: list[int], sizes: list[int]) -> None:
    pipeline = both(split(Chunked(cut(values, sizes)), lambda x: x % 3))
    assert run(pipeline) == ([x for x in values if x % 3], [x for x in values if not x % 3])
    assert run(pipeline) == ([x for x in values if x % 3], [x for x in values if not x % 3])


def inverse(x: int) -> float:
    return 1 / x


def test_a_failing_predicate_goes_to_the_policy() -> None:
    with pytest.raises(StepError, match="step 'split': failed on 0: ZeroDivisionError"):
        run(both(split(Source([1, 0, 2]), inverse)))
    assert run(both(split(Source([1, 0, 2]), inverse, on_error=Skip()))) == ([1, 2], [])
    assert run(both(split(Source([1, 0, 2]), inverse)), on_error=Skip()) == ([1, 2], [])


def test_messages_go_by_either_branch() -> None:
    source = Acknowledging(20, [4, 3, 5])
    odd, even = split(source, lambda x: x % 2)
    run(Pipeline(odd.to(Confirming(source, 0.1)), even.to(Confirming(source))))
    source.ledger.check()
    assert sorted(source.ledger.acked) == list(range(20))


def test_mistakes() -> None:
    wrong: Any = 3
    with pytest.raises(ConfigurationError, match="split takes a function, not 3"):
        split(Source([1]), wrong)
    with pytest.raises(ConfigurationError, match="split takes streams, not 3"):
        split(wrong, bool)
    with pytest.raises(ConfigurationError, match="split: on_error must be a policy"):
        split(Source([1]), bool, on_error=wrong)
    with pytest.raises(PlanError, match="the branch of the elements for which it is false leads to no sink"):
        run(split(Source([1]), bool)[0].to(Discard()))
