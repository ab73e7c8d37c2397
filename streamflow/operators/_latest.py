"""What `Debounce` and `Sample` have in common: they keep the latest element until its time has come."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeVar

from streamflow.engine.transform import Logic, Scope

T = TypeVar("T")


class LatestLogic(Logic[Any, Any]):
    """State of a key: its latest element; the timer says when it is emitted. One that is superseded is given up."""

    memory = False
    holds = 1
    takes = "oldest"

    def __init__(self, state_type: Any) -> None:
        self.state_type = state_type

    @abstractmethod
    def due(self, now: float, before: float | None) -> float:
        """When an element that comes now is emitted; ``before``: when the one that it supersedes would have been."""

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        latest, timers, now = scope.table.space(), scope.table.timers, scope.now
        for key, value in rows:
            before = timers.get(key)
            scope.table.touch(key)
            if before is not None and before <= now:
                # It is due, and the timer just comes later than this element.
                yield key, self._taken(scope, key)
                before = None
            elif before is not None:
                scope.drop(key)
            latest[key] = value
            when = self.due(now, before)
            if when != before:
                timers.set(key, when)

    def on_timer(self, scope: Scope, key: Hashable) -> Iterable[tuple[Any, Any]]:
        if key in scope.table.space():
            yield key, self._taken(scope, key)

    def on_end(self, scope: Scope) -> Iterable[tuple[Any, Any]]:
        for key in list(scope.table.space()):
            yield key, self._taken(scope, key)

    def _taken(self, scope: Scope, key: Hashable) -> Any:
        scope.table.touch(key)
        scope.table.timers.clear(key)
        return scope.table.space().pop(key)
