"""What is refused before anything runs, with the reason and the line to add; and how a graph is cut into stages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamflow import Checkpoint, EventTime, GuaranteeError, Pipeline, PlanError, Source
from streamflow.connectors import Collect, Discard, Into
from streamflow.engine.plan import FusedPlan, Plan, make_plan
from streamflow.engine.promises import check
from streamflow.operators import (
    Batch,
    Count,
    Filter,
    FlatMap,
    Fold,
    Keyed,
    Map,
    MapAsync,
    PassThrough,
    Reduce,
    Skip,
    Take,
    Throttle,
    TumblingWindow,
    merge,
    split,
)
from streamflow.policies import Skip as SkipErrors
from streamflow.testing import MemoryStore
from tests.support import Acknowledging, run

FORGETFUL: dict[str, Any] = {
    "Fold": Fold(0, lambda n, x: n + x),
    "Reduce": Reduce(max),
    "TumblingWindow": TumblingWindow(timedelta(1), time=EventTime(lambda x: x)),
    "Keyed/Fold": Keyed(lambda x: x, Fold(0, lambda n, x: n + x)),
}
HARMLESS: list[Any] = [
    Map(abs),
    Filter(bool),
    FlatMap(range),
    Batch(2),
    Take(2),
    Skip(2),
    Throttle(9, per=1),
    Keyed(lambda x: x, Batch(2)),
    PassThrough(),
]


@pytest.mark.parametrize("step", FORGETFUL)
def test_memory_that_changes_results_needs_a_checkpoint_when_the_source_acknowledges(step: str) -> None:
    pipeline = Acknowledging(3).via(FORGETFUL[step]).to(Collect(), name="totals")
    with pytest.raises(
        GuaranteeError, match=rf"pipeline 'totals', step '{step}'.*checkpoint=Checkpoint.*best_effort"
    ):
        run(pipeline)
    run(pipeline, delivery="best_effort")
    run(Source(range(3)).via(FORGETFUL[step]).to(Collect()))


@pytest.mark.parametrize("flow", HARMLESS, ids=lambda flow: type(flow).__name__)
def test_bounded_holds_need_none(flow: Any) -> None:
    run(Acknowledging(3).via(flow).to(Discard()))


def test_a_forgetful_step_behind_another_source_is_no_matter() -> None:
    run(Pipeline(Acknowledging(3).to(Discard()), Source([1]).via(FORGETFUL["Fold"]).to(Discard())))
    with pytest.raises(GuaranteeError, match="step 'Fold'"):
        run(merge(Acknowledging(3), Source([1])).via(FORGETFUL["Fold"]).to(Discard()))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, r"add checkpoint=Checkpoint\('pipeline'\)"),
        (
            {"checkpoint": Checkpoint(store=MemoryStore())},
            "step 'Collect': delivery=.* Collect delivers",
        ),
    ],
)
def test_exactly_once_needs_a_checkpoint_and_transactional_sinks(options: Any, says: str) -> None:
    with pytest.raises(GuaranteeError, match=f"pipeline 'pipeline'.*{says}"):
        run(Source([1]).to(Collect()), delivery="exactly_once", **options)


def test_refusals_happen_before_anything_is_opened() -> None:
    source = Acknowledging(3)
    with pytest.raises(PlanError):
        source.via(FORGETFUL["Fold"]).to(Collect()).start()
    assert source.reader is None


def planned(pipeline: Pipeline[Any]) -> Plan:
    return make_plan(pipeline, delivery="at_least_once", checkpoint=None)


def fused(pipeline: Pipeline[Any]) -> list[list[str]]:
    return [
        step.names
        for stage in planned(pipeline).stages
        for step in stage.steps
        if isinstance(step, FusedPlan)
    ]


def test_runs_are_fused_until_a_policy_or_a_flat_map_or_memory() -> None:
    stream = Source([1]).via(Map(abs)).via(Filter(bool)).via(FlatMap(range)).via(Map(abs))
    assert fused(stream.to(Collect())) == [["Map", "Filter", "FlatMap"], ["Map-2"]]
    stream = (
        Source([1])
        .via(Map(abs))
        .via(Map(abs, on_error=SkipErrors()))
        .via(Map(abs))
        .via(Take(1))
        .via(Map(abs))
    )
    assert fused(stream.to(Collect())) == [["Map"], ["Map-2"], ["Map-3"], ["Map-4"]]


async def later(x: int) -> int:
    return x


def test_stages_begin_at_merges_branches_and_work() -> None:
    odd, even = split(Source([1]).via(Map(abs)), lambda x: x % 2)
    joined = merge(odd.via(MapAsync(later)), even)
    pipeline = joined.via(Map(abs)).to(Into(Count()))
    plan = planned(pipeline)
    assert [(stage.ports, stage.source is not None, stage.work is not None) for stage in plan.stages] == [
        (1, True, False),
        (1, False, True),
        (2, False, False),
    ]
    assert len(plan.sinks) == 1
    assert run(pipeline) == 1


def test_in_flight_grows_with_what_the_steps_hold() -> None:
    def in_flight(flow: Any) -> int:
        plan = planned(Acknowledging(1).via(flow).to(Discard()))
        check(plan)
        (source,) = (stage.source for stage in plan.stages if stage.source is not None)
        return source.in_flight

    assert in_flight(Batch(5000)) >= in_flight(Map(abs)) + 5000
    assert in_flight(MapAsync(later, concurrency=3000)) >= in_flight(Map(abs)) + 3000
