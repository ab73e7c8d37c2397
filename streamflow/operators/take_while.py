"""`TakeWhile` and `DropWhile`: the elements before the first that is different, or all but those."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy

T = TypeVar("T")


@frozen
class TakeWhile(Flow[T, T]):
    """Pass elements on as long as the predicate is true; the first for which it is false ends the stream.

    ::

        ──1──2──3──1──▶
         TakeWhile(lambda x: x < 3)
        ──1──2──|

    With ``inclusive=True`` the element that ends the stream is passed on as well. The end goes both ways, as that of
    `Take` does: an endless source stops, only this branch ends, and messages that were read and not used go back to
    their source; the one that ends the stream, too, if it is not passed on. Inside `Keyed`: the elements of a key from
    the first such on are dropped, and the stream goes on.

    Emits while the predicate is true. Completes at the first element for which it is not, or with its input. Remembers
    that it is over (per key).

    >>> import asyncio
    >>> from itertools import count
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source(count).via(TakeWhile(lambda x: x < 3)).to(Collect()).run())
    [0, 1, 2]

    Source of the idea: `itertools.takewhile`; ``inclusive`` as in Pekko.
    """

    predicate: Callable[[T], object]
    inclusive: bool = field(default=False, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.predicate, "TakeWhile")
        _check.policy(self.on_error, "TakeWhile")

    def transform(self) -> Transform:
        return _TakingWhile(self.predicate, self.inclusive)


@frozen
class DropWhile(Flow[T, T]):
    """Drop elements as long as the predicate is true; pass on the first for which it is false and all that follow.

    ::

        ──1──2──3──1──▶
         DropWhile(lambda x: x < 3)
        ────────3──1──▶

    Inside `Keyed`: each key begins to pass by itself.

    Emits each element from the first on for which the predicate is false. Completes with its input. Remembers that it
    has begun to pass (per key).

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([1, 2, 3, 1]).via(DropWhile(lambda x: x < 3)).to(Collect()).run())
    [3, 1]

    Source of the idea: `itertools.dropwhile`.
    """

    predicate: Callable[[T], object]
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.predicate, "DropWhile")
        _check.policy(self.on_error, "DropWhile")

    def transform(self) -> Transform:
        return _DroppingWhile(self.predicate)


class _TakingWhile(Logic[Any, Any]):
    """A key is in the table when it is over."""

    # Forgotten, it would take more than before, and lose nothing.
    memory = False
    needs_lineage = True
    state_type = bool

    def __init__(self, predicate: Callable[[Any], object], inclusive: bool) -> None:
        self._predicate = predicate
        self._inclusive = inclusive

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        over, predicate = scope.table.space(), self._predicate
        for row in rows:
            key, value = row
            if key in over:
                continue
            if predicate(value):
                yield row
                continue
            scope.table.touch(key)
            over[key] = True
            if self._inclusive:
                yield row
            if not scope.keyed:
                # What follows stays untouched: it goes back to the source.
                scope.unused = not self._inclusive
                return

    def is_done(self, scope: Scope) -> bool:
        return not scope.keyed and None in scope.table.space()


class _DroppingWhile(Logic[Any, Any]):
    """A key is in the table when it passes. Forgotten, it would drop what it has passed on before: it has a memory."""

    state_type = bool

    def __init__(self, predicate: Callable[[Any], object]) -> None:
        self._predicate = predicate

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        passing, predicate = scope.table.space(), self._predicate
        for row in rows:
            key, value = row
            if key not in passing:
                if predicate(value):
                    continue
                scope.table.touch(key)
                passing[key] = True
            yield row
