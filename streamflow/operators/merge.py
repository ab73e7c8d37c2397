"""`merge`: several streams as one."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from streamflow.engine.transform import Merge
from streamflow.graph import Step, Stream
from streamflow.operators._streams import ends

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@overload
def merge(first: Stream[A], second: Stream[B], /) -> Stream[A | B]: ...
@overload
def merge(first: Stream[A], second: Stream[B], third: Stream[C], /) -> Stream[A | B | C]: ...
@overload
def merge(*streams: Stream[T]) -> Stream[T]: ...
def merge(*streams: Stream[Any]) -> Stream[Any]:
    """One stream of the elements of several, as they come; it ends when all have ended.

    ::

        ──1─────2──▶
        ────a─b────▶
          merge()
        ──1─a─b─2──▶

    The order within each stream is kept. Checkpoint barriers align here, and the watermark is the minimum.

    Emits each element at once. Completes when all inputs have. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> sorted(asyncio.run(merge(Source([1, 3]), Source([2])).to(Collect()).run()))
    [1, 2, 3]

    Source of the idea: go-streams' ``Merge``.
    """
    return Stream(Step(Merge(), ends(streams, "merge")))
