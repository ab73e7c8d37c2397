"""`concat`: one stream after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, overload

from attrs import frozen

from streamflow.engine.channel import CAPACITY
from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.graph import Flow, Stream
from streamflow.operators._streams import ends, joined

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@overload
def concat(
    first: Stream[A], second: Stream[B], /, *, state: Any = ..., name: str | None = ...
) -> Stream[A | B]: ...
@overload
def concat(
    first: Stream[A], second: Stream[B], third: Stream[C], /, *, state: Any = ..., name: str | None = ...
) -> Stream[A | B | C]: ...
@overload
def concat(*streams: Stream[T], state: Any = ..., name: str | None = ...) -> Stream[T]: ...
def concat(*streams: Stream[Any], state: Any = Any, name: str | None = None) -> Stream[Any]:
    """All of the first stream, then all of the second, and so on.

    ::

        ──1──2──|
        ────a───────b──|
          concat()
        ──1──2──a───b──|

    A later stream is not read before its turn: its source waits. The streams must come from different sources, since
    a source cannot wait and go on at once. ``state`` is the type of the elements, for checkpoints; ``name``
    identifies the step.

    Emits each element at once. Completes with the last stream. Holds what comes early: with a checkpoint up to a
    channel's worth, so that barriers pass.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(concat(Source([1, 2]), Source([3])).to(Collect()).run())
    [1, 2, 3]

    Raises `PlanError` when it is run, if a source leads to two of the streams. Source of the idea: Akka Streams'
    ``Concat``.
    """
    inputs = ends(streams, "concat")
    return streams[0] if len(inputs) == 1 else joined(_Concat(len(inputs), state), inputs, name)


@frozen
class _Concat(Flow[Any, Any]):
    inputs: int
    state: Any
    label = "concat"

    def transform(self) -> Transform:
        return _ConcatLogic(self.inputs, self.state)


class _ConcatLogic(Logic[Any, Any]):
    """The table has for each input a list of what came before its turn. Which ones have ended is not saved: after a
    restart their sources say so again."""

    memory = False
    holds = CAPACITY
    takes = "oldest"
    independent = True

    def __init__(self, inputs: int, state: Any) -> None:
        self.inputs = inputs
        self.state_type = list[state]
        self._current = 0
        self._ended: set[int] = set()

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        if scope.port == self._current:
            yield from rows
        else:
            scope.table.touch(scope.port)
            scope.table.space().setdefault(scope.port, []).extend(value for _, value in rows)

    def on_port_end(self, scope: Scope, port: int) -> Iterator[tuple[Any, Any]]:
        self._ended.add(port)
        while self._current in self._ended:
            self._current += 1
            scope.table.touch(self._current)
            for value in scope.table.space().pop(self._current, ()):
                yield self._current, value

    def wants(self, scope: Scope, port: int) -> bool:
        return port == self._current

    def awaits(self, scope: Scope, port: int) -> bool:
        return port == self._current

    def held(self, scope: Scope, port: int) -> int:
        return len(scope.table.space().get(port, ()))
