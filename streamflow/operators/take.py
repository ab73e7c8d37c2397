"""`Take` and `Skip`: the first elements, or all but those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy, positive

T = TypeVar("T")


@frozen
class Take(Flow[T, T]):
    """Pass the first ``n`` elements on, then end the stream.

    ::

        ──1──2──3──4──▶
            Take(2)
        ──1──2|

    The end goes both ways: downstream completes, and upstream is told that nothing more is wanted, so that an endless
    source stops. Only this branch ends; siblings of a `fan_out` go on. Messages that were read and not used go back
    to their source. Inside `Keyed`: the first ``n`` of each key, and the stream goes on.

    Emits each of the first ``n``. Completes after the ``n``-th, at once for ``Take(0)``. Remembers a count (per key).

    >>> import asyncio
    >>> from itertools import count
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source(count).via(Take(3)).to(Collect()).run())
    [0, 1, 2]
    """

    n: int
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        positive(self.n, "Take's n", least=0)
        _check.policy(self.on_error, "Take")

    def transform(self) -> Transform:
        return _Taking(self.n)


@frozen
class Skip(Flow[T, T]):
    """Drop the first ``n`` elements, pass the rest on.

    ::

        ──1──2──3──4──▶
            Skip(2)
        ────────3──4──▶

    Inside `Keyed`: drops the first ``n`` of each key. Not to be confused with the error policy
    `streamflow.Skip`.

    Emits each element after the ``n``-th. Completes with its input. Remembers a count (per key).

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source(range(5)).via(Skip(3)).to(Collect()).run())
    [3, 4]
    """

    n: int
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        positive(self.n, "Skip's n", least=0)
        _check.policy(self.on_error, "Skip")

    def transform(self) -> Transform:
        return _Skipping(self.n)


class _Counting(Logic[Any, Any]):
    """What both remember: how many elements of a key were counted, up to ``n``."""

    memory = False
    state_type = int

    def __init__(self, n: int) -> None:
        self.n = n

    def count(self, scope: Scope, key: Any) -> int:
        """Count one more; the number of elements before it, at most ``n``."""
        counts = scope.table.space()
        seen: int = counts.get(key, 0)
        if seen < self.n:
            scope.table.touch(key)
            counts[key] = seen + 1
        return seen


class _Taking(_Counting):
    needs_lineage = True

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        for row in rows:
            if self.count(scope, row[0]) < self.n:
                yield row
            if self.is_done(scope):
                # What follows stays untouched: it goes back to the source.
                return

    def is_done(self, scope: Scope) -> bool:
        return not scope.keyed and scope.table.space().get(None, 0) >= self.n


class _Skipping(_Counting):
    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        for row in rows:
            if self.count(scope, row[0]) >= self.n:
                yield row
