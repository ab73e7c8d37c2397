"""Whether saved state fits to the pipeline that wants to go on with it."""

from __future__ import annotations

from attrs import evolve

from streamflow.engine.checkpoint import Snapshot
from streamflow.engine.plan import Plan
from streamflow.errors import StateError


def fitting(plan: Plan, saved: Snapshot, *, allow_dropped: bool = False) -> Snapshot:
    """What this pipeline can go on with. Steps that are new begin with nothing.

    Raises `StateError` with the difference if something would be dropped, unless that is allowed.
    """
    shapes = plan.shapes
    dropped = {
        step: f"step {step!r}, which remembers ({saved.shapes[step]}), "
        + (f"is ({shapes[step]}) now" if step in shapes else "is no longer there")
        for step in saved.shapes
        if step in saved.tables and shapes.get(step) != saved.shapes[step]
    }
    sources = {stage.source.name for stage in plan.stages if stage.source is not None}
    lost = [f"source {step!r} is no longer there" for step in saved.positions if step not in sources]
    if (dropped or lost) and not allow_dropped:
        raise StateError(
            f"checkpoint {saved.number} does not fit to this pipeline: {'; '.join([*dropped.values(), *lost])}; give a "
            "changed step another name, or go on without its state: Checkpoint(…, allow_dropped_state=True)"
        )
    return evolve(saved, tables={step: table for step, table in saved.tables.items() if step not in dropped})
