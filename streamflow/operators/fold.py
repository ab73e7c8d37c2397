"""`Fold` and `Reduce`: a running result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.operators._state import type_of
from streamflow.policies import ErrorPolicy

T = TypeVar("T")
A = TypeVar("A")


@frozen(init=False)
class Fold(Flow[T, A]):
    """Combine each element with the result so far, and emit every new result.

    ::

        ──1────2────3──▶
         Fold(0, add)
        ──1────3────6──▶

    ``f(result, x)`` returns the next result; the first call gets ``initial``. It must return a new value rather than
    change the old one, which has been emitted. Inside `Keyed` each key has a result of its own, and ``initial`` is
    shared: give a callable of no arguments when it is mutable, e.g. ``Fold(list[float], …)``.

    ``state`` is the type of the result, when it is saved in checkpoints and is not what ``initial`` is.

    Emits for each element. Completes with its input. Holds nothing, remembers one result (per key).

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([1, 2, 3]).via(Fold(0, lambda total, x: total + x)).to(Collect()).run())
    [1, 3, 6]

    Source of the idea: go-streams' ``Fold``.
    """

    initial: A | Callable[[], A]
    f: Callable[[A, T], A]
    state: Any = field(kw_only=True)
    on_error: ErrorPolicy | None = field(kw_only=True)

    # Two, since a class is a callable and a value: for one parameter of both types pyright takes it for the value.
    @overload
    def __init__(
        self,
        initial: Callable[[], A],
        f: Callable[[A, T], A],
        *,
        state: Any = ...,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self, initial: A, f: Callable[[A, T], A], *, state: Any = ..., on_error: ErrorPolicy | None = ...
    ) -> None: ...
    def __init__(
        self,
        initial: A | Callable[[], A],
        f: Callable[[A, T], A],
        *,
        state: Any = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        _check.function(f, "Fold")
        _check.policy(on_error, "Fold")
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(initial, f, state=state, on_error=on_error)  # pyright: ignore[reportAttributeAccessIssue]

    def transform(self) -> Transform:
        initial: Any = self.initial
        state = type_of(initial) if self.state is None else self.state
        return _Folding(initial if callable(initial) else None, initial, self.f, state)


@frozen
class Reduce(Flow[T, T]):
    """Combine each element with the result so far; the first element is the first result.

    ::

        ──3────1────2──▶
         Reduce(min)
        ──3────1────1──▶

    ``state`` is the type of the elements, for checkpoints.

    Emits for each element. Completes with its input. Holds nothing, remembers one result (per key).

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([3, 1, 2]).via(Reduce(min)).to(Collect()).run())
    [3, 1, 1]

    Source of the idea: go-streams' ``Reduce``.
    """

    f: Callable[[T, T], T]
    state: Any = field(default=Any, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.f, "Reduce")
        _check.policy(self.on_error, "Reduce")

    def transform(self) -> Transform:
        return _Folding(None, _MISSING, self.f, self.state)


_MISSING: Any = object()


class _Folding(Logic[Any, Any]):
    """The one logic of both: without an initial value the first element is the result."""

    def __init__(
        self, make: Callable[[], Any] | None, initial: Any, f: Callable[[Any, Any], Any], state_type: Any
    ) -> None:
        self._make = make
        self._initial = initial
        self._f = f
        self.state_type = state_type

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        states, f = scope.table.space(), self._f
        touch = scope.table.touch if scope.table.tracked else None
        for key, value in rows:
            if touch is not None:
                touch(key)
            state = states.get(key, _MISSING)
            if state is _MISSING:
                state = self._initial if self._make is None else self._make()
            state = value if state is _MISSING else f(state, value)
            states[key] = state
            yield key, state
