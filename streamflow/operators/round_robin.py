"""`round_robin`: elements dealt out to several streams in turn."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any, TypeVar

from streamflow.engine.transform import Distribute
from streamflow.graph import Step, Stream
from streamflow.operators._streams import end
from streamflow.policies import positive

T = TypeVar("T")


def round_robin(stream: Stream[T], n: int) -> tuple[Stream[T], ...]:
    """``n`` streams that get the elements in turn. All must lead to a sink.

    ::

        ──1──2──3──4──▶
        round_robin(2)
        ──1─────3─────▶
        ─────2─────4──▶

    Element *i* of a run goes to branch *i* mod ``n``, however far each branch is; a run that goes on from a
    checkpoint begins with the first branch again. The share of a branch that has ended, by a `Take`, goes unused.

    Emits each element to one branch, at once. Completes with its input. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Pipeline, Source
    >>> from streamflow.connectors import Collect
    >>> first, second = round_robin(Source(range(5)), 2)
    >>> asyncio.run(Pipeline(first.to(Collect()), second.to(Collect())).run())
    ([0, 2, 4], [1, 3])

    Source of the idea: go-streams' ``RoundRobin``.
    """
    positive(n, "round_robin's n")

    def chooser() -> Callable[[Any], int]:
        turns = cycle(range(n))
        return lambda _: next(turns)

    step = Step(Distribute(n, chooser, "round_robin"), (end(stream, "round_robin"),))
    return tuple(Stream(step, output) for output in range(n))
