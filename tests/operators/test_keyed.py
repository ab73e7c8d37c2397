"""`Keyed`: each key has a flow of its own, whatever its neighbours do and however the input is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import KeyedValue, Skip, Source, StepError
from streamflow.connectors import Collect
from streamflow.engine import step as step_module
from streamflow.operators import Batch, Filter, FlatMap, Fold, Keyed, Map, Reduce, Take, Throttle
from streamflow.operators import Skip as SkipFirst
from tests.support import Acknowledging, Chunked, Confirming, Recorder, chain, cut, run, sizes

FLOWS: dict[str, Any] = {
    "map": Map(lambda x: -x),
    "filter": Filter(lambda x: x % 2),
    "flat_map": FlatMap(lambda x: [x] * (x % 3)),
    "fold": Fold(0, lambda total, x: total + x),
    "reduce": Reduce(max),
    "take": Take(3),
    "skip": SkipFirst(2),
    "batch": Batch(3),
    "failing": Map(lambda x: 1 // (x % 5)),
    "failing fold": Fold(0, lambda total, x: total + 1 // (x % 5)),
    "chain": chain(Filter(lambda x: x % 3), Fold(0, lambda n, x: n + x), FlatMap(lambda n: [n, n]), Batch(3)),
    "late filter": chain(SkipFirst(1), Map(lambda x: x * 2), Filter(lambda x: x % 4), Take(2)),
    "folds": chain(Fold(0, lambda n, x: n + x), Fold(0, lambda n, x: n + x), Batch(2)),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("slices", [False, True])
@settings(max_examples=20)
@given(values=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=30), sizes=sizes)
def test_each_key_gets_what_its_elements_alone_give(
    flow: str, slices: bool, values: list[tuple[str, int]], sizes: list[int]
) -> None:
    keyed: Any = Keyed(lambda pair: pair[0], chain(Map(lambda pair: pair[1]), FLOWS[flow]))
    with pytest.MonkeyPatch.context() as patch:
        if slices:
            patch.setattr(step_module, "SLICE", -1.0)
        result = run(Chunked(cut(values, sizes)).via(keyed).to(Collect()), on_error=Skip())
    for key in "abc":
        alone = [x for k, x in values if k == key]
        expected = run(Chunked([alone]).via(FLOWS[flow]).to(Collect()), on_error=Skip())
        assert [value for k, value in result if k == key] == expected
    assert all(isinstance(pair, KeyedValue) for pair in result)


def test_under_fail_what_came_before_a_failing_key_is_delivered() -> None:
    sink = Recorder()
    keyed: Any = Keyed(lambda x: 0 // (x - 3) + x, chain(Map(lambda x: x), Reduce(max)))
    with pytest.raises(StepError, match=r"step 'Keyed': failed on 3: ZeroDivisionError"):
        run(Source(range(5)).via(keyed).to(sink))
    assert [value for _, value in sink.values] == [0, 1, 2]


@pytest.mark.parametrize("flow", [Fold(0, lambda n, x: n + 1), Batch(2), Throttle(9, per=1), Take(2)])
def test_an_unhashable_key_is_the_failure_of_its_element(flow: Any) -> None:
    keyed: Any = Keyed(lambda x: [x] if x == 2 else x % 2, flow)
    with pytest.raises(StepError, match=r"step 'Keyed.*failed on 2: TypeError: unhashable"):
        run(Source(range(5)).via(keyed).to(Collect()))
    source = Acknowledging(6, [4])
    result = run(source.via(keyed).to(Confirming(source)), on_error=Skip(), delivery="best_effort")
    assert {key for key, _ in result} == {0, 1}
    source.ledger.check(deliver=())
    assert sorted(source.ledger.acked) == list(range(6))


def test_inner_steps_are_named_in_errors() -> None:
    keyed: Any = Keyed(lambda x: x, chain(Map(lambda x: x), Fold(0, lambda n, x: 1 // x)))
    with pytest.raises(StepError, match=r"step 'totals/Fold': failed on 0"):
        run(Source([0]).via(keyed, name="totals").to(Collect()))
