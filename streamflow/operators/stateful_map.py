"""`StatefulMap`: an output for each element, made with what is remembered of those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.operators._state import maker, type_of
from streamflow.policies import ErrorPolicy

T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S")


@frozen(init=False)
class StatefulMap(Flow[T, U]):
    """Replace each element by an output of ``f``, which also gets a state and returns the next one.

    ::

        ──3────5────4──▶
         StatefulMap(0, lambda last, x: (x, x - last))
        ──3────2────-1─▶

    ``f(state, x)`` returns ``(state, output)``; the first call gets ``initial``. Inside `Keyed` each key has a state of
    its own, and ``initial`` is shared: give a callable of no arguments when it is mutable, e.g. ``StatefulMap(list,
    …)``. ``f`` may change such a state in place and return it. For an element on which ``f`` fails, the state stays as
    it was.

    ``state`` is the type of the state, when it is saved in checkpoints and is not what ``initial`` is.

    Emits for each element. Completes with its input. Holds nothing, remembers one state (per key).

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> rise = StatefulMap(0, lambda last, x: (x, x - last))
    >>> asyncio.run(Source([3, 5, 4]).via(rise).to(Collect()).run())
    [3, 2, -1]

    Source of the idea: bytewax's ``stateful_map``.
    """

    initial: Any
    f: Callable[[Any, T], tuple[Any, U]]
    state: Any = field(kw_only=True)
    on_error: ErrorPolicy | None = field(kw_only=True)

    # Two, since a class is a callable and a value: for one parameter of both types pyright takes it for the value.
    @overload
    def __init__(
        self,
        initial: Callable[[], S],
        f: Callable[[S, T], tuple[S, U]],
        *,
        state: Any = ...,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        initial: S,
        f: Callable[[S, T], tuple[S, U]],
        *,
        state: Any = ...,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    def __init__(
        self,
        initial: Any,
        f: Callable[[Any, T], tuple[Any, U]],
        *,
        state: Any = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        _check.function(f, "StatefulMap")
        _check.policy(on_error, "StatefulMap")
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(initial, f, state=state, on_error=on_error)  # pyright: ignore[reportAttributeAccessIssue]

    def transform(self) -> Transform:
        state = type_of(self.initial) if self.state is None else self.state
        return _StatefulMapping(maker(self.initial), self.f, state)


class _StatefulMapping(Logic[Any, Any]):
    def __init__(
        self, make: Callable[[], Any], f: Callable[[Any, Any], tuple[Any, Any]], state_type: Any
    ) -> None:
        self._make = make
        self._f = f
        self.state_type = state_type

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        states, f, make = scope.table.space(), self._f, self._make
        touch = scope.table.touch if scope.table.tracked else None
        for key, value in rows:
            if touch is not None:
                touch(key)
            state, out = f(states[key] if key in states else make(), value)
            states[key] = state
            yield key, out
