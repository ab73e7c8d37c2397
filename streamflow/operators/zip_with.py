"""`zip_with`: elements of several streams put together one by one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar, Unpack, overload

from attrs import frozen

from streamflow.engine.channel import CAPACITY
from streamflow.engine.chunk import CHUNK_SIZE
from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.errors import DriftError
from streamflow.graph import Flow, Stream
from streamflow.operators import _check
from streamflow.operators._streams import ZipOptions, ends, joined
from streamflow.policies import ErrorPolicy

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")

DRIFT = 16 * CAPACITY
"""Elements that one branch of a source may be ahead of another: more than the channels of a path will hold."""


@overload
def zip_with(
    f: Callable[[A, B], R],
    first: Stream[A],
    second: Stream[B],
    /,
    *,
    strict: bool = ...,
    **options: Unpack[ZipOptions],
) -> Stream[R]: ...
@overload
def zip_with(
    f: Callable[[A, B, C], R],
    first: Stream[A],
    second: Stream[B],
    third: Stream[C],
    /,
    *,
    strict: bool = ...,
    **options: Unpack[ZipOptions],
) -> Stream[R]: ...
@overload
def zip_with(
    f: Callable[[A, B, C, D], R],
    first: Stream[A],
    second: Stream[B],
    third: Stream[C],
    fourth: Stream[D],
    /,
    *,
    strict: bool = ...,
    **options: Unpack[ZipOptions],
) -> Stream[R]: ...
@overload
def zip_with(
    f: Callable[..., R],
    first: Stream[Any],
    second: Stream[Any],
    third: Stream[Any],
    fourth: Stream[Any],
    fifth: Stream[Any],
    /,
    *streams: Stream[Any],
    strict: bool = ...,
    **options: Unpack[ZipOptions],
) -> Stream[R]: ...
def zip_with(
    f: Callable[..., Any],
    /,
    *streams: Stream[Any],
    strict: bool = False,
    state: Any = Any,
    name: str | None = None,
    on_error: ErrorPolicy | None = None,
) -> Stream[Any]:
    """``f(a, b, …)`` of the first elements of all streams, then of the second ones, and so on.

    ::

        ──1─────2──────3──▶
        ─────10─────20────▶
          zip_with(add)
        ─────11─────22────▶

    It ends with the shortest stream: the others are told to stop, and messages that found no partner are handed back.
    With ``strict=True`` it is an error if one ends before the others, as with Python's ``zip``. If ``f`` fails and the
    error policy goes on, its elements are gone from all streams.

    A stream that is ahead waits, if it has sources of its own. Branches of one source cannot wait for each other:
    they are read as they come, and may be 131,072 elements apart; then the run fails, whatever the policy.
    ``state`` is the type of the elements, for checkpoints; ``name`` identifies the step.

    Emits when all have an element. Completes when one has ended and its elements are used up. Holds what is ahead.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(zip_with(lambda a, b: a + b, Source([1, 2, 3]), Source([10, 20])).to(Collect()).run())
    [11, 22]

    Raises `DriftError` while it runs, when branches of one source are too far apart. Source of the idea: Akka
    Streams' ``ZipWith``, Python's ``zip``.
    """
    _check.function(f, "zip_with")
    _check.policy(on_error, "zip_with")
    inputs = ends(streams, "zip_with", least=2)
    return joined(_ZipWith(f, len(inputs), strict, state, on_error), inputs, name)


@frozen
class _ZipWith(Flow[Any, Any]):
    f: Callable[..., Any]
    inputs: int
    strict: bool
    state: Any
    on_error: ErrorPolicy | None
    label = "zip_with"

    def transform(self) -> Transform:
        return _ZipLogic(self.f, self.inputs, self.strict, self.state)


class _ZipLogic(Logic[Any, Any]):
    """The table has for each input a list of what waits for the others; at least one is empty between two calls."""

    memory = False
    holds = CHUNK_SIZE
    drift = DRIFT
    takes = "each"

    def __init__(self, f: Callable[..., Any], inputs: int, strict: bool, state: Any) -> None:
        self.inputs = inputs
        self.state_type = list[state]
        self._f = f
        self._strict = strict
        self._ended: set[int] = set()
        self._uneven = False
        self._calling = False

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        table, port, f = scope.table, scope.port, self._f
        waiting = table.space()
        for each in range(self.inputs):
            table.touch(each)
        others = [waiting.get(each, []) for each in range(self.inputs) if each != port]
        matched = min(map(len, others))
        columns: list[Any] = [iter(other) for other in others]
        columns.insert(port, map(itemgetter(1), islice(rows, matched)))
        used = 0
        self._calling = True
        try:
            # No column is longer than the rows that are taken: `zip` takes from those before it first.
            for values in zip(*columns, strict=False):
                used += 1
                yield port, f(*values)
            self._calling = False
        finally:
            self._drop_used(waiting, port, used)
        ahead = [value for _, value in rows]
        if ahead:
            waiting.setdefault(port, []).extend(ahead)
            self._check_drift(scope)
            self._check_lengths(scope)

    def _drop_used(self, waiting: dict[Hashable, Any], port: int, used: int) -> None:
        for each in [each for each in waiting if each != port]:
            del waiting[each][:used]
            if not waiting[each]:
                del waiting[each]

    def _check_drift(self, scope: Scope) -> None:
        port = scope.port
        ahead = len(scope.table.space()[port])
        if ahead > DRIFT and len(scope.tied[port]) > 1:
            raise DriftError(
                f"input {port + 1} is {ahead} elements ahead, and cannot wait, since the input that it is ahead of is "
                "fed by the same source: branches that drop or add elements do not fit together one by one; "
                "join() them by a key, or take them from sources of their own"
            )

    def _check_lengths(self, scope: Scope) -> None:
        """Whether ``strict=True`` is broken: said once, then it is over."""
        waiting = scope.table.space()
        short = [port for port in sorted(self._ended) if port not in waiting]
        if self._strict and not self._uneven and short and waiting:
            self._uneven = True
            raise ValueError(f"input {short[0] + 1} is shorter than others")

    def on_absorbed(self, scope: Scope) -> None:
        if self._calling:
            self._calling = False
            for port in range(self.inputs):
                scope.drop(port)

    def on_port_end(self, scope: Scope, port: int) -> Iterator[tuple[Any, Any]]:
        self._ended.add(port)
        self._check_lengths(scope)
        yield from ()

    def is_done(self, scope: Scope) -> bool:
        if self._strict:
            return self._uneven
        waiting = scope.table.space()
        return any(port not in waiting for port in self._ended)

    def wants(self, scope: Scope, port: int) -> bool:
        waiting = scope.table.space()
        return any(each not in waiting for each in scope.tied[port])

    def awaits(self, scope: Scope, port: int) -> bool:
        return port not in scope.table.space()

    def held(self, scope: Scope, port: int) -> int:
        return 0 if len(scope.tied[port]) > 1 else len(scope.table.space().get(port, ()))
