"""What a pipeline promises: the promises it cannot keep are refused, with the reason, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator

from streamflow.engine.channel import CAPACITY
from streamflow.engine.plan import BranchPlan, Plan, SinkPlan, SourcePlan, StagePlan
from streamflow.engine.tied import shared_sources
from streamflow.engine.transform import UNBOUNDED, Fragment, Transform
from streamflow.errors import GuaranteeError, PlanError
from streamflow.graph import Source, Step

_IN_FLIGHT = 2 * CAPACITY
"""Elements that the channel and the chunks of one stage may keep unacknowledged."""

_WAITING = 256
"""Elements that may wait in front of slow work, beside what it needs to be busy."""

_KEYS = 1000
"""Keys that hold elements at the same time, as a guess for the size of what a source may leave unacknowledged."""


def check(plan: Plan) -> None:
    """Refuse what this pipeline cannot keep, and note what its steps ask of each source and sink."""
    where = f"pipeline {plan.pipeline.name!r}"
    checkpoint = plan.checkpoint
    if plan.delivery == "exactly_once":
        _check_exactly_once(plan, where)
    _check_independence(plan, where)
    for source in (stage.source for stage in plan.stages if stage.source is not None):
        _check_source(plan, source, where)
    if checkpoint is not None:
        _check_state_names(plan, where)
    for sink in plan.sinks:
        sink.stable = _is_stable(sink.step, plan.transforms)


def _check_exactly_once(plan: Plan, where: str) -> None:
    """Everything that a crash could repeat has to be committed together."""
    if plan.checkpoint is None:
        raise GuaranteeError(
            f"{where}: delivery='exactly_once' commits outputs together with the place in the source: add "
            f"checkpoint=Checkpoint({plan.pipeline.name!r})"
        )
    for sink in plan.sinks:
        if not sink.sink.transactional:
            raise GuaranteeError(
                f"{where}, step {sink.name!r}: delivery='exactly_once' needs sinks whose outputs are committed with "
                f"the checkpoint, such as JetStreamSink; {type(sink.sink).__name__} delivers them at once. Use another "
                "sink, or delivery='at_least_once'"
            )
        sink.transactional = True


def _check_source(plan: Plan, source: SourcePlan, where: str) -> None:
    behind = list(dict.fromkeys(stage for stage, _ in reachable(plan, source)))
    logics = [logic for stage in behind for logic in stage.logics]
    acknowledges = source.source.acknowledges
    forgetful = [logic for logic in logics if logic.logic.memory]
    if acknowledges and plan.delivery == "at_least_once" and plan.checkpoint is None and forgetful:
        raise GuaranteeError(
            f"{where}, step {forgetful[0].state!r}: at_least_once needs its state saved, since messages of "
            f"{source.name!r} are acknowledged when it has absorbed them. Add checkpoint=Checkpoint("
            f"{plan.pipeline.name!r}), or accept the loss of state in a crash: delivery='best_effort'"
        )
    _check_traceable(plan, source, behind, where)
    holding = [logic for logic in logics if logic.logic.keeps_receipts]
    positions = any(_wants_positions(stage) for stage in behind)
    source.receipts = acknowledges and plan.checkpoint is None
    source.exclusive = acknowledges and plan.checkpoint is not None
    work = [stage.work[1] for stage in behind if stage.work is not None]
    source.lineage = source.receipts and bool(
        holding or positions or work or any(logic.logic.needs_lineage for logic in logics)
    )
    held = sum(
        int(logic.holds) * (_KEYS if logic.keyed else 1) for logic in logics if logic.holds < UNBOUNDED
    )
    held += sum(stage.queue.queue.size for stage in behind if stage.queue is not None)
    source.held = sum(int(logic.holds) for logic in holding)
    in_flight = sum(step.in_flight for step in work)
    source.in_flight = held + in_flight + _IN_FLIGHT * len(behind)
    if work:
        # Slow work: what waits in front of it is better left for other workers, and a drain has less to finish.
        source.pending = held + in_flight + _WAITING


def _check_traceable(plan: Plan, source: SourcePlan, behind: list[StagePlan], where: str) -> None:
    """What cannot tell where its outputs came from can neither acknowledge nor be checkpointed."""
    for name, work, _ in (stage.work for stage in behind if stage.work is not None):
        if work.traceable:
            continue
        if plan.checkpoint is not None:
            raise GuaranteeError(
                f"{where}, step {name!r}: it cannot be checkpointed, since nobody knows which elements it holds and "
                "which of its outputs belong before a barrier; leave out checkpoint="
            )
        if source.source.acknowledges and plan.delivery != "best_effort":
            raise GuaranteeError(
                f"{where}, step {name!r}: it does not tell which message an output came from, so messages of "
                f"{source.name!r} can only be acknowledged when it takes them, and what it holds is lost in a crash; "
                "accept that with delivery='best_effort'"
            )


def _wants_positions(stage: StagePlan) -> bool:
    return isinstance(stage.behind, SinkPlan) and bool(getattr(stage.behind.sink, "wants_positions", False))


def reachable(plan: Plan, source: SourcePlan) -> Iterator[tuple[StagePlan, int]]:
    """The stages that elements of a source come to, with the input that they come by."""
    pending = [(stage, 0) for stage in plan.stages if stage.source is source]
    seen: set[tuple[int, int]] = set()
    while pending:
        stage, port = pending.pop()
        if (id(stage), port) in seen:
            continue
        seen.add((id(stage), port))
        yield stage, port
        pending += [(side, 0) for side in stage.sides.values()]
        if isinstance(stage.behind, BranchPlan):
            pending += stage.behind.targets
        elif isinstance(stage.behind, tuple):
            pending.append(stage.behind)


def _is_stable(sink: Step, transforms: dict[Step, Transform]) -> bool:
    """Whether each output can be named by (source position, ordinal): one path of steps that do the same again."""
    step = sink
    while step.inputs:
        (step, _), *others = step.inputs
        if others:
            return False
        transform = transforms.get(step)
        if transform is not None and not (isinstance(transform, Fragment) and transform.deterministic):
            return False
    # A side output begins in the middle, with whatever was late.
    return isinstance(step.element, Source) and step.element.acknowledges


def _check_independence(plan: Plan, where: str) -> None:
    """A step that reads its inputs one after the other must not wait for itself."""
    steps = plan.pipeline.steps()
    names = {step: name for name, step in steps.items()}
    for logic in (logic for stage in plan.stages for logic in stage.logics if logic.logic.independent):
        shared = shared_sources(steps[logic.state], steps.values())
        for (first, second), sources in shared.items():
            common = " and ".join(sorted(repr(names[source]) for source in sources))
            raise PlanError(
                f"{where}, step {logic.state!r}: inputs {first + 1} and {second + 1} are branches of {common}, which "
                "would have to wait with the one and go on with the other; use merge(), or a source for each"
            )
        for first, others in enumerate(logic.tied):
            if len(others) > 1:
                raise PlanError(
                    f"{where}, step {logic.state!r}: inputs {first + 1} and {max(others) + 1} are also awaited by "
                    "another step that joins them, and the two would wait for each other; use merge() in one of them"
                )


def _check_state_names(plan: Plan, where: str) -> None:
    """Saved state finds its step by name: two steps of one class need names that do not depend on their order."""
    for name, step in plan.pipeline.steps().items():
        if (
            step.name is None
            and name != step.label
            and any(
                logic.state == name or logic.state.startswith(f"{name}/")
                for s in plan.stages
                for logic in s.logics
            )
        ):
            raise PlanError(
                f"{where}: {step.label} is used twice and its state is saved: give each a name, .via(…, name='…')"
            )
