"""`zip_latest`: the latest elements of several streams put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, Unpack, overload

from attrs import frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.graph import Flow, Stream
from streamflow.operators import _check
from streamflow.operators._streams import ZipOptions, ends, joined
from streamflow.policies import ErrorPolicy

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")


@overload
def zip_latest(
    f: Callable[[A, B], R],
    first: Stream[A],
    second: Stream[B],
    /,
    **options: Unpack[ZipOptions],
) -> Stream[R]: ...
@overload
def zip_latest(
    f: Callable[[A, B, C], R],
    first: Stream[A],
    second: Stream[B],
    third: Stream[C],
    /,
    **options: Unpack[ZipOptions],
) -> Stream[R]: ...
@overload
def zip_latest(
    f: Callable[[A, B, C, D], R],
    first: Stream[A],
    second: Stream[B],
    third: Stream[C],
    fourth: Stream[D],
    /,
    **options: Unpack[ZipOptions],
) -> Stream[R]: ...
@overload
def zip_latest(
    f: Callable[..., R],
    first: Stream[Any],
    second: Stream[Any],
    third: Stream[Any],
    fourth: Stream[Any],
    fifth: Stream[Any],
    /,
    *streams: Stream[Any],
    **options: Unpack[ZipOptions],
) -> Stream[R]: ...
def zip_latest(
    f: Callable[..., Any],
    /,
    *streams: Stream[Any],
    state: Any = Any,
    name: str | None = None,
    on_error: ErrorPolicy | None = None,
) -> Stream[Any]:
    """``f(a, b, …)`` of the latest elements of all streams, at each element that comes.

    ::

        ──1─────2──────────▶
        ─────10─────20─────▶
          zip_latest(add)
        ─────11─12──22─────▶

    Elements that come before every stream has had one are remembered, the latest of each, and emit nothing. An
    element on which ``f`` fails stays the latest of its stream. ``state`` is the type of the elements, for
    checkpoints; ``name`` identifies the step.

    Emits at each element, once every stream has had one. Completes when all have ended, or one without an element.
    Remembers the latest element of each stream.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> numbers = Source([1, 2])
    >>> asyncio.run(zip_latest(lambda a, b: (a, b), numbers, numbers).to(Collect()).run())[-1]
    (2, 2)

    Source of the idea: Akka Streams' ``ZipLatestWith``, RxJS' ``combineLatest``.
    """
    _check.function(f, "zip_latest")
    _check.policy(on_error, "zip_latest")
    inputs = ends(streams, "zip_latest", least=2)
    return joined(_ZipLatest(f, len(inputs), state, on_error), inputs, name)


@frozen
class _ZipLatest(Flow[Any, Any]):
    f: Callable[..., Any]
    inputs: int
    state: Any
    on_error: ErrorPolicy | None
    label = "zip_latest"

    def transform(self) -> Transform:
        return _LatestLogic(self.f, self.inputs, self.state)


class _LatestLogic(Logic[Any, Any]):
    """The table has the latest element of each input."""

    def __init__(self, f: Callable[..., Any], inputs: int, state: Any) -> None:
        self.inputs = inputs
        self.state_type = state
        self._f = f
        self._ended: set[int] = set()

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        f, port, ports = self._f, scope.port, range(self.inputs)
        latest = scope.table.space()
        scope.table.touch(port)
        for _, value in rows:
            latest[port] = value
            if len(latest) == self.inputs:
                yield port, f(*[latest[each] for each in ports])

    def on_port_end(self, scope: Scope, port: int) -> Iterable[tuple[Any, Any]]:
        self._ended.add(port)
        return ()

    def is_done(self, scope: Scope) -> bool:
        latest = scope.table.space()
        return any(port not in latest for port in self._ended)
