"""`Filter`: keep what satisfies a predicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Fragment, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy

T = TypeVar("T")


@frozen
class Filter(Flow[T, T]):
    """Keep the elements for which ``predicate(x)`` is true, drop the rest.

    ::

        ──1──2──3──4──▶
          Filter(even)
        ─────2─────4──▶

    Emits when the predicate is true. Completes with its input. Holds nothing. A dropped message counts as processed:
    its source acknowledges it.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source(range(5)).via(Filter(lambda x: x % 2 == 0)).to(Collect()).run())
    [0, 2, 4]

    Source of the idea: go-streams' ``Filter``.
    """

    predicate: Callable[[T], object]
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.predicate, "Filter")
        _check.policy(self.on_error, "Filter")

    def transform(self) -> Transform:
        return Fragment("filter", self.predicate)
