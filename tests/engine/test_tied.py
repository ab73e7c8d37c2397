"""Which inputs cannot be held back alone, because what waits for them would wait for itself."""

from __future__ import annotations

from typing import Any

from streamflow import Source
from streamflow.connectors import Discard
from streamflow.engine.plan import make_plan
from streamflow.operators import Map, fan_out, merge, zip_latest, zip_with


def tied(stream: Any, step: str = "zip_with") -> list[set[int]]:
    plan = make_plan(stream.to(Discard()), delivery="at_least_once", checkpoint=None)
    (logic,) = [logic for stage in plan.stages for logic in stage.logics if logic.state == step]
    return [set(others) for others in logic.tied]


def named(name: str) -> Any:
    return Source([1], name=name)


def zipped(*streams: Any, name: str | None = None) -> Any:
    return zip_with(max, *streams, name=name)


def test_sources_of_their_own_are_free() -> None:
    assert tied(zipped(named("a"), named("b"), named("c"))) == [{0}, {1}, {2}]


def test_branches_of_one_source_are_tied_also_through_a_third() -> None:
    one, other = fan_out(named("a"), 2)
    assert tied(zipped(one, named("b"), other.via(Map(abs)))) == [{0, 2}, {1}, {0, 2}]
    a, b = named("a"), named("b")
    assert tied(zipped(a, merge(a, b), b, named("c"))) == [{0, 1, 2}, {0, 1, 2}, {0, 1, 2}, {3}]


def test_steps_before_and_behind_tie_nothing_that_was_free() -> None:
    inner = zipped(named("a"), named("b"), name="inner")
    outer = zipped(inner, named("c"), name="outer")
    assert tied(outer, "inner") == [{0}, {1}]
    assert tied(outer, "outer") == [{0}, {1}]


def test_two_steps_that_hold_back_the_same_sources_are_tied() -> None:
    a, b = named("a"), named("b")
    crossed = merge(zipped(a, b, name="one"), zipped(b, a, name="other"))
    assert tied(crossed, "one") == tied(crossed, "other") == [{0, 1}, {0, 1}]
    free = merge(zipped(a, b, name="one"), zip_latest(max, a, b))
    assert tied(free, "one") == [{0}, {1}]
