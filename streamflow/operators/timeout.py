"""`Timeout`: a stream that falls silent is a failure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.errors import shorten
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy, seconds

T = TypeVar("T")


@frozen
class Timeout(Flow[T, T]):
    """Pass everything on, and fail when no element has come for ``after``.

    ::

        ──1──2────────────▶
         Timeout(after=3 s)
        ──1──2─────────╳

    The wait begins with the run (with each: time while it did not run does not count) and anew with each element, on
    the pipeline's clock. When it is over the error policy gets a `TimeoutError` without an element: with
    ``on_error=Fail()`` the pipeline fails; with ``on_error=Skip()`` it is counted and logged, and the wait begins
    anew. Elements that have come and that a slow consumer keeps from being read count as come. Inside `Keyed` each key
    that has been seen has its own wait.

    Emits each element. Completes with its input. Remembers which keys it has seen.

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([1, 2]).via(Timeout(timedelta(seconds=30))).to(Collect()).run())
    [1, 2]

    Raises `ConfigurationError` for a duration that is not positive. Source of the idea: Rx's ``timeout``.
    """

    after: timedelta | float
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        seconds(self.after, "Timeout's after")
        _check.policy(self.on_error, "Timeout")

    def transform(self) -> Transform:
        return _Waiting(seconds(self.after, "Timeout's after"))


class _Waiting(Logic[Any, Any]):
    """State of a key: that it has been seen. Its timer is the wait."""

    memory = False
    state_type = bool

    def __init__(self, after: float) -> None:
        self._after = after

    def on_start(self, scope: Scope) -> None:
        for key in scope.table.space() if scope.keyed else (None,):
            self._wait(scope, key)

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        seen, timers, when = scope.table.space(), scope.table.timers, scope.now + self._after
        for row in rows:
            key = row[0]
            if timers.get(key) != when:
                if scope.keyed and key not in seen:
                    scope.table.touch(key)
                    seen[key] = True
                self._wait(scope, key)
            yield row

    def on_timer(self, scope: Scope, key: Hashable) -> Iterable[tuple[Any, Any]]:
        if scope.table.timers.get(key) is None:  # else it was called again after the failure
            self._wait(scope, key)
            if not scope.has_unread():
                what = f" of the key {shorten(key)}" if scope.keyed else ""
                raise TimeoutError(f"no element{what} came for {self._after:g} s")
        yield from ()

    def on_end(self, scope: Scope) -> Iterable[tuple[Any, Any]]:
        for key in scope.table.space() if scope.keyed else (None,):
            scope.table.timers.clear(key)
        return ()

    def _wait(self, scope: Scope, key: Hashable) -> None:
        scope.table.timers.set(key, scope.now + self._after)
