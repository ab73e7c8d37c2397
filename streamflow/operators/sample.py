"""`Sample`: the latest element, every so often."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.operators._latest import LatestLogic
from streamflow.policies import ErrorPolicy, seconds

T = TypeVar("T")


@frozen
class Sample(Flow[T, T]):
    """Emit the latest element of each period of ``every`` that had one, when the period ends.

    ::

        ──1─2───3──────────4───────▶
         Sample(every=2 s)
        ───────2───3──────────4────▶

    Periods are those of the pipeline's clock, aligned to the epoch as windows are: with a minute they end on the full
    minute, for all keys and in all processes, also after a restart. An element that comes just as a period ends
    belongs to the next. Superseded elements are dropped (and acknowledged) at once. Inside `Keyed` each key is sampled
    by itself. ``state`` is the type of the elements, for checkpoints.

    Emits at the end of a period. Completes with its input, after the element that is still held; a drain gives that
    one back to the source. Holds one element (per key).

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> latest = Source(range(100)).via(Sample(timedelta(minutes=10)))
    >>> asyncio.run(latest.to(Collect()).run())[-1]
    99

    Raises `ConfigurationError` for a duration that is not positive. Source of the idea: Rx's ``sample``.
    """

    every: timedelta | float
    state: Any = field(default=Any, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        seconds(self.every, "Sample's every")
        _check.policy(self.on_error, "Sample")

    def transform(self) -> Transform:
        return _Sampling(seconds(self.every, "Sample's every"), self.state)


class _Sampling(LatestLogic):
    def __init__(self, every: float, state_type: Any) -> None:
        super().__init__(state_type)
        self._every = every

    def due(self, now: float, before: float | None) -> float:
        if before is not None:
            return before
        end = (now // self._every + 1) * self._every
        return end if end > now else end + self._every
