"""`split`, `fan_out` and `merge`: functions on streams, for graphs that are no line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from streamflow.engine.transform import Distribute, Merge
from streamflow.errors import ConfigurationError
from streamflow.graph import Step, Stream
from streamflow.operators import _check
from streamflow.policies import positive

T = TypeVar("T")


def split(stream: Stream[T], predicate: Callable[[T], object]) -> tuple[Stream[T], Stream[T]]:
    """Two streams: the elements for which the predicate is true, and the others. Both must lead to a sink.

    ::

        ──1──2──3──4──▶
          split(even)
        ─────2─────4──▶
        ──1─────3─────▶

    >>> import asyncio
    >>> from streamflow import Pipeline, Source
    >>> from streamflow.connectors import Collect
    >>> even, odd = split(Source(range(5)), lambda x: x % 2 == 0)
    >>> asyncio.run(Pipeline(even.to(Collect()), odd.to(Collect())).run())
    ([0, 2, 4], [1, 3])

    A branch that is slower than the other holds it back only as far as its channel is full.
    Source of the idea: go-streams' ``Split``.
    """
    _check.function(predicate, "split")

    def choose(value: Any) -> int:
        return 0 if predicate(value) else 1

    branches = ("elements for which the predicate is true", "elements for which it is false")
    step = Step(Distribute(2, lambda: choose, "split", branches), (_end(stream, "split"),))
    return Stream(step, 0), Stream(step, 1)


def fan_out(stream: Stream[T], n: int) -> tuple[Stream[T], ...]:
    """``n`` streams that each get every element. All must lead to a sink.

    ::

        ──1──2──▶
        fan_out(2)
        ──1──2──▶
        ──1──2──▶

    Using one stream twice does the same. Elements are shared, not copied: treat them as immutable.

    >>> import asyncio
    >>> from streamflow import Pipeline, Source
    >>> from streamflow.connectors import Collect, Into
    >>> from streamflow.operators import Count
    >>> left, right = fan_out(Source("abc"), 2)
    >>> asyncio.run(Pipeline(left.to(Collect()), right.to(Into(Count()))).run())
    (['a', 'b', 'c'], 3)

    Source of the idea: go-streams' ``FanOut``.
    """
    step = Step(Distribute(positive(n, "fan_out's n")), (_end(stream, "fan_out"),))
    return tuple(Stream(step, output) for output in range(n))


def merge(*streams: Stream[T]) -> Stream[T]:
    """One stream of the elements of several, as they come; it ends when all have ended.

    ::

        ──1─────2──▶
        ────a─b────▶
          merge()
        ──1─a─b─2──▶

    The order within each stream is kept. Checkpoint barriers align here, and the watermark is the minimum.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> sorted(asyncio.run(merge(Source([1, 3]), Source([2])).to(Collect()).run()))
    [1, 2, 3]

    Source of the idea: go-streams' ``Merge``.
    """
    if not streams:
        raise ConfigurationError("merge() needs at least one stream")
    return Stream(Step(Merge(), tuple(_end(stream, "merge") for stream in streams)))


def _end(stream: Stream[Any], what: str) -> tuple[Step, int]:
    if not isinstance(stream, Stream):
        raise ConfigurationError(f"{what} takes streams, not {stream!r}")
    return stream.end
