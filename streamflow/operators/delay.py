"""`Delay`: everything, a while later."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.operators._fifo import Fifo
from streamflow.policies import ErrorPolicy, positive, seconds

T = TypeVar("T")


@frozen
class Delay(Flow[T, T]):
    """Let each element leave ``by`` after it came.

    ::

        ──1─2─────3────────────▶
         Delay(by=2 s)
        ─────────1─2─────3─────▶

    ``by`` counts on the pipeline's clock. While it holds ``hold`` elements (of all keys together; default 10,000) it
    reads no further than the chunk in hand, so that more than ``hold`` in ``by`` is backpressure: those behind come
    in, and leave, later. ``state`` is the type of the elements, for checkpoints.

    Emits each element when its time has come, in order. Completes when its input has and everything has left. Holds
    ``hold`` elements; a drain gives them back to the source.

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source(range(3)).via(Delay(timedelta(milliseconds=5))).to(Collect()).run())
    [0, 1, 2]

    Raises `ConfigurationError` for a duration or a bound that is not positive. Source of the idea: Pekko's ``delay``.
    """

    by: timedelta | float
    hold: int = 10_000
    state: Any = field(default=Any, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        seconds(self.by, "Delay's by")
        positive(self.hold, "Delay's hold")
        _check.policy(self.on_error, "Delay")

    def transform(self) -> Transform:
        return _Delaying(seconds(self.by, "Delay's by"), self.hold, self.state)


class _Delaying(Logic[Any, Any]):
    """State of a key: the elements with the times at which they leave. The timer is that of the first."""

    memory = False
    takes = "oldest"

    def __init__(self, by: float, hold: int, element_type: Any) -> None:
        self._by = by
        self._hold = hold
        self.holds = hold
        self.state_type = Fifo[tuple[float, element_type]]

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        lines, when = scope.table.space(), scope.now + self._by
        for key, value in rows:
            scope.table.touch(key)
            line = lines.get(key)
            if line is None:
                line = lines[key] = Fifo()
                scope.table.timers.set(key, when)
            line.append((when, value))
            self._count(scope, 1)
        yield from ()

    def on_timer(self, scope: Scope, key: Hashable) -> Iterable[tuple[Any, Any]]:
        lines = scope.table.space()
        scope.table.touch(key)
        line = lines[key]
        while line and line.first[0] <= scope.now:
            self._count(scope, -1)
            yield key, line.popleft()[1]
        if line:
            scope.table.timers.set(key, line.first[0])
        else:
            del lines[key]

    def pending(self, scope: Scope) -> int:
        held: int = scope.table.meta.get("held", 0)
        return held

    def backlog(self, scope: Scope) -> int:
        return max(0, self.pending(scope) - self._hold + 1)

    def _count(self, scope: Scope, change: int) -> None:
        scope.table.meta["held"] = self.pending(scope) + change
