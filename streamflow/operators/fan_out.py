"""`fan_out`: several streams that each have everything."""

from __future__ import annotations

from typing import TypeVar

from streamflow.engine.transform import Distribute
from streamflow.graph import Step, Stream
from streamflow.operators._streams import end
from streamflow.policies import positive

T = TypeVar("T")


def fan_out(stream: Stream[T], n: int) -> tuple[Stream[T], ...]:
    """``n`` streams that each get every element. All must lead to a sink.

    ::

        ──1──2──▶
        fan_out(2)
        ──1──2──▶
        ──1──2──▶

    Using one stream twice does the same. Elements are shared, not copied: treat them as immutable. A branch that is
    slower than the others holds them back only as far as its channel is full.

    Emits each element to all branches, at once. Completes with its input. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Pipeline, Source
    >>> from streamflow.connectors import Collect, Into
    >>> from streamflow.operators import Count
    >>> left, right = fan_out(Source("abc"), 2)
    >>> asyncio.run(Pipeline(left.to(Collect()), right.to(Into(Count()))).run())
    (['a', 'b', 'c'], 3)

    Source of the idea: go-streams' ``FanOut``.
    """
    step = Step(Distribute(positive(n, "fan_out's n")), (end(stream, "fan_out"),))
    return tuple(Stream(step, output) for output in range(n))
