"""Policies: what is absorbed, which one counts, and a policy of one's own."""

from __future__ import annotations

import pytest
from attrs import define, field

from streamflow import ErrorPolicy, Fail, Observer, Skip, Source, StepError
from streamflow.connectors import Collect, ForEach
from streamflow.operators import Filter, Keyed, Map
from tests.support import run


def fails(x: int) -> float:
    return 1 / x


def test_fail_and_skip_are_policies() -> None:
    error = StepError(pipeline="p", step="s", cause=ValueError("no"))
    assert not Fail().absorbs(error)
    assert Skip().absorbs(error)
    assert isinstance(Fail(), ErrorPolicy) and isinstance(Skip(), ErrorPolicy)


def test_the_policy_of_a_step_counts_before_that_of_the_pipeline() -> None:
    stream = Source([1, 0, 2])
    assert run(stream.via(Map(fails, on_error=Skip())).to(Collect())) == [1.0, 0.5]
    with pytest.raises(StepError):
        run(stream.via(Map(fails, on_error=Fail())).to(Collect()), on_error=Skip())
    with pytest.raises(StepError):
        run(stream.via(Map(lambda x: x, on_error=Skip())).via(Map(fails)).to(Collect()))


def test_inside_keyed_the_inner_policy_counts_then_that_of_keyed() -> None:
    stream = Source([1, 0, 2])
    assert len(run(stream.via(Keyed(lambda x: x, Map(fails), on_error=Skip())).to(Collect()))) == 2
    assert len(run(stream.via(Keyed(lambda x: x, Map(fails, on_error=Skip()))).to(Collect()))) == 2
    with pytest.raises(StepError):
        run(stream.via(Keyed(lambda x: x, Map(fails, on_error=Fail()), on_error=Skip())).to(Collect()))


@define
class Few:
    """Absorbs so many."""

    left: int
    seen: list[StepError] = field(factory=list)

    def absorbs(self, error: StepError) -> bool:
        self.seen.append(error)
        self.left -= 1
        return self.left >= 0


def test_a_policy_of_ones_own_decides_about_each_element() -> None:
    few = Few(2)
    assert run(Source([0, 1, 0, 2]).via(Map(fails)).to(Collect()), on_error=few) == [1.0, 0.5]
    assert [error.element for error in few.seen] == [0, 0]
    with pytest.raises(StepError):
        run(Source([0, 0, 0]).via(Map(fails)).to(Collect()), on_error=Few(2))


def test_every_failure_is_told_once_to_observers() -> None:
    told: list[tuple[str, bool]] = []

    class Listener(Observer):
        def failed(self, error: StepError, absorbed: bool) -> None:
            told.append((error.step, absorbed))

    stream = Source([1, 0]).via(Map(lambda x: x)).via(Filter(fails), name="filter")
    run(stream.to(ForEach(fails)), on_error=Skip(), observers=[Listener()])
    assert told == [("filter", True)]
    told.clear()
    with pytest.raises(StepError):
        run(stream.to(Collect()), observers=[Listener()])
    assert told == [("filter", False)]
