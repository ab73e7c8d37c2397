"""`Throttle`: no more than so many elements in so much time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Literal, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy, positive, seconds

T = TypeVar("T")

_ROUNDING = 1e-9


@frozen
class Throttle(Flow[T, T]):
    """Let at most ``elements`` pass in any ``per``.

    ::

        ──1─2─3─4──────────▶
         Throttle(1, per=1 s)
        ──1───2───3───4────▶

    Elements pass at once while fewer than ``elements`` have passed in the last ``per`` (a sliding log, so the bound
    holds for every interval, not only for aligned ones). After that, ``mode="backpressure"`` (the default) holds what
    it has in hand and reads no further until there is room; ``mode="discard"`` drops. Inside `Keyed` each key has a
    bound of its own. ``state`` is the type of the elements, for checkpoints.

    Emits as the rate allows. Completes when its input has and what is held has passed. Holds the chunk in hand.

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> first = Source(range(100)).via(Throttle(3, per=timedelta(hours=1), mode="discard"))
    >>> asyncio.run(first.to(Collect()).run())
    [0, 1, 2]

    Source of the idea: go-streams' ``Throttler``.
    """

    elements: int
    per: timedelta | float
    mode: Literal["backpressure", "discard"] = "backpressure"
    state: Any = field(default=Any, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        positive(self.elements, "Throttle's elements")
        seconds(self.per, "Throttle's per")
        if self.mode not in ("backpressure", "discard"):
            raise ConfigurationError(
                f"Throttle's mode must be 'backpressure' or 'discard', not {self.mode!r}"
            )
        _check.policy(self.on_error, "Throttle")

    def transform(self) -> Transform:
        return _Throttling(
            self.elements, seconds(self.per, "Throttle's per"), self.mode == "discard", self.state
        )


class _Throttling(Logic[Any, Any]):
    """State of a key: (the times at which the last elements passed, the elements that wait)."""

    memory = False
    takes = "oldest"

    def __init__(self, elements: int, per: float, discard: bool, element_type: Any) -> None:
        self._elements = elements
        self._per = per
        self._discard = discard
        self.holds = 0 if discard else 1024
        self.state_type = tuple[list[float], list[element_type]]

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        states = scope.table.space()
        for key, value in rows:
            scope.table.touch(key)
            if key not in states:
                states[key] = ([], [])
            passed, waiting = states[key]
            if not waiting and self._has_room(passed, scope.now):
                passed.append(scope.now)
                yield key, value
            elif not self._discard:
                if not waiting:
                    scope.table.timers.set(key, passed[0] + self._per)
                    scope.table.meta["waiting"] = scope.table.meta.get("waiting", 0)
                waiting.append(value)
                scope.table.meta["waiting"] += 1

    def on_timer(self, scope: Scope, key: Hashable) -> Iterable[tuple[Any, Any]]:
        scope.table.touch(key)
        passed, waiting = scope.table.space()[key]
        while waiting and self._has_room(passed, scope.now):
            passed.append(scope.now)
            scope.table.meta["waiting"] -= 1
            yield key, waiting.pop(0)
        if waiting:
            scope.table.timers.set(key, passed[0] + self._per)

    def is_holding(self, scope: Scope) -> bool:
        return self.backlog(scope) > 0

    def backlog(self, scope: Scope) -> int:
        waiting: int = scope.table.meta.get("waiting", 0)
        return waiting

    def _has_room(self, passed: list[float], now: float) -> bool:
        while passed and passed[0] + self._per <= now + _ROUNDING:
            del passed[0]
        return len(passed) < self._elements
