"""`Debounce`: the latest element, once the stream has calmed down."""

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
class Debounce(Flow[T, T]):
    """Emit the latest element once none has come for ``quiet``.

    ::

        ──1─2─3────────4──────▶
         Debounce(quiet=2 s)
        ──────────3────────4──▶

    ``quiet`` counts on the pipeline's clock and begins anew with each element: a stream that never pauses for so long
    emits nothing before its end. Superseded elements are dropped (and acknowledged) at once. Inside `Keyed` each key
    calms down by itself. ``state`` is the type of the elements, for checkpoints.

    Emits when ``quiet`` has passed. Completes with its input, after the element that is still held; a drain gives that
    one back to the source. Holds one element (per key).

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> latest = Source("typing").via(Debounce(timedelta(milliseconds=300)))
    >>> asyncio.run(latest.to(Collect()).run())
    ['g']

    Raises `ConfigurationError` for a duration that is not positive. Source of the idea: Rx's ``debounce``.
    """

    quiet: timedelta | float
    state: Any = field(default=Any, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        seconds(self.quiet, "Debounce's quiet")
        _check.policy(self.on_error, "Debounce")

    def transform(self) -> Transform:
        return _Debouncing(seconds(self.quiet, "Debounce's quiet"), self.state)


class _Debouncing(LatestLogic):
    def __init__(self, quiet: float, state_type: Any) -> None:
        super().__init__(state_type)
        self._quiet = quiet

    def due(self, now: float, before: float | None) -> float:
        return now + self._quiet
