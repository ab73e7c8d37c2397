"""Which inputs of a step hang together: holding one back would, sooner or later, hold back the other as well.

A step may leave an input unread for a while, `concat` and `zip_with` do. What is before that input then waits, up to
its sources, and so does whatever else those sources feed. If that is another input of the same step, directly or by
way of another step that waits in the same manner, nothing would move any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from streamflow.graph import Step


def tied_inputs(step: Step, steps: Iterable[Step], waiting: Collection[Step]) -> tuple[frozenset[int], ...]:
    """For each input of a step the inputs that hang together with it, itself included.

    ``steps`` are all steps of the graph, sources first; ``waiting`` those that may leave inputs unread.
    """
    reached = _sources(steps, without=step)
    groups: list[set[Step]] = [set(reached[source]) for source, _ in step.inputs]
    groups += (set(reached[other]) for other in waiting if other is not step)
    joined = _joined(groups)
    of_input = [
        next((group for group in joined if reached[source] & group), set()) for source, _ in step.inputs
    ]
    return tuple(
        frozenset(other for other, theirs in enumerate(of_input) if theirs is own) for own in of_input
    )


def shared_sources(step: Step, steps: Iterable[Step]) -> Mapping[tuple[int, int], frozenset[Step]]:
    """The pairs of inputs that have sources in common, and those."""
    reached = _sources(steps, without=step)
    ends = [reached[source] for source, _ in step.inputs]
    pairs = ((i, j) for j in range(len(ends)) for i in range(j))
    return {(i, j): common for i, j in pairs if (common := ends[i] & ends[j])}


def _sources(steps: Iterable[Step], *, without: Step) -> dict[Step, frozenset[Step]]:
    """The sources that come to each step by ways that do not lead through ``without``."""
    reached: dict[Step, frozenset[Step]] = {}
    for step in steps:
        if step is without:
            reached[step] = frozenset()
        elif not step.inputs:
            reached[step] = frozenset([step])
        else:
            reached[step] = frozenset[Step]().union(*(reached[source] for source, _ in step.inputs))
    return reached


def _joined(groups: Iterable[set[Step]]) -> list[set[Step]]:
    """Groups that have something in common become one."""
    joined: list[set[Step]] = []
    for group in groups:
        apart = [other for other in joined if not other & group]
        joined = [*apart, group.union(*(other for other in joined if other & group))]
    return joined
