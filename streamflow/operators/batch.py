"""`Batch`: several elements as one list."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy, positive, seconds

T = TypeVar("T")


@frozen
class Batch(Flow[T, list[T]]):
    """Collect ``size`` elements into a list; with ``within``, also emit a shorter one so long after its first element.

    ::

        ──1──2──3──────────4───────────▶
            Batch(2, within=1 s)
        ─────[1, 2]───[3]────────[4]───▶

    ``within`` counts on the pipeline's clock and starts with the first element of each batch. The elements of a batch
    stay unacknowledged until the batch is delivered. Inside `Keyed` each key has a batch of its own.
    ``state`` is the type of the elements, for checkpoints.

    Emits when a batch is full or its time is up. Completes with its input, after the last, shorter batch.
    Holds up to ``size - 1`` elements (per key); a drain gives them back to the source.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source(range(5)).via(Batch(2)).to(Collect()).run())
    [[0, 1], [2, 3], [4]]

    Source of the idea: go-streams' ``Batch``.
    """

    size: int
    within: timedelta | float | None = None
    state: Any = field(default=Any, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        positive(self.size, "Batch's size")
        if self.within is not None:
            seconds(self.within, "Batch's within")
        _check.policy(self.on_error, "Batch")

    def transform(self) -> Transform:
        within = None if self.within is None else seconds(self.within, "Batch's within")
        return _Batching(self.size, within, list[self.state])  # type: ignore[name-defined]


class _Batching(Logic[Any, Any]):
    memory = False

    def __init__(self, size: int, within: float | None, state_type: Any) -> None:
        self._size = size
        self._within = within
        self.holds = size
        self.state_type = state_type

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, list[T]]]:
        table, size = scope.table, self._size
        held = table.space()
        for key, value in rows:
            table.touch(key)
            batch = held.get(key)
            if batch is None:
                batch = held[key] = []
                if self._within is not None:
                    table.timers.set(key, scope.now + self._within)
            batch.append(value)
            if len(batch) >= size:
                yield key, self._release(scope, key)

    def on_timer(self, scope: Scope, key: Hashable) -> Iterable[tuple[Any, list[Any]]]:
        if key in scope.table.space():
            yield key, self._release(scope, key)

    def on_end(self, scope: Scope) -> Iterable[tuple[Any, list[Any]]]:
        for key in list(scope.table.space()):
            yield key, self._release(scope, key)

    def _release(self, scope: Scope, key: Hashable) -> list[Any]:
        scope.table.touch(key)
        scope.table.timers.clear(key)
        batch: list[Any] = scope.table.space().pop(key)
        return batch
