"""`CountWindow`: so many elements each, whenever they come."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar, overload

from attrs import define, field, frozen

from streamflow.engine.transform import UNBOUNDED, Logic, Scope, Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.message import Window
from streamflow.operators import _check
from streamflow.operators.aggregators import Aggregator, ToList, check_aggregator
from streamflow.policies import ErrorPolicy, positive

T = TypeVar("T")
A = TypeVar("A")
Out = tuple[Any, Window[Any]]


@frozen(init=False)
class CountWindow(Flow[T, Window[A]]):
    """Emit a `Window` of ``n`` elements every ``every`` elements; by default ``every`` is ``n``.

    ::

        ──1──2──3──4──5─────────▶
         CountWindow(3, every=2, into=Sum())
        ────────6────────12─────▶

    The windows begin with elements 0, ``every``, 2 ``every`` … of the stream. ``start`` and ``end`` of a window count
    elements: the window has those from ``start`` to before ``end = start + n``. An element that fails is not counted.
    ``into`` is an aggregator, by default `ToList`; where windows overlap it must be able to `merge`, since elements
    are aggregated once, in panes: the cost per element does not grow with ``n / every``. Inside `Keyed` each key is
    counted for itself.

    Emits when a window has its ``n`` elements. Completes with its input, after emitting the windows that have some of
    theirs (``end`` is where they would have ended); a drain does not emit them. Holds an accumulator for each
    pane of a window: one for ``every`` elements, two if ``every`` does not divide ``n``; and as many once more.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> windows = asyncio.run(Source("abcd").via(CountWindow(3)).to(Collect()).run())
    >>> [(w.start, w.end, w.value) for w in windows]
    [(0.0, 3.0, ['a', 'b', 'c']), (3.0, 6.0, ['d'])]

    Raises `ConfigurationError` if ``every`` is more than ``n``: elements would be in no window. Source of the idea:
    Flink's ``countWindow``; panes as in Krishnamurthy et al., "On-the-fly sharing for streamed aggregation" (2006).
    """

    n: int
    every: int
    into: Aggregator[T, A] = field(kw_only=True)
    on_error: ErrorPolicy | None = field(kw_only=True)

    @overload
    def __init__(
        self: CountWindow[T, list[T]], n: int, every: int | None = ..., *, on_error: ErrorPolicy | None = ...
    ) -> None: ...
    @overload
    def __init__(
        self,
        n: int,
        every: int | None = ...,
        *,
        into: Aggregator[T, A],
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    def __init__(
        self,
        n: int,
        every: int | None = None,
        *,
        into: Aggregator[T, Any] | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        positive(n, "CountWindow's n")
        every = n if every is None else positive(every, "CountWindow's every")
        if every > n:
            raise ConfigurationError(
                f"CountWindow's every ({every}) must not be more than its n ({n}): elements would be in no window"
            )
        aggregator: Aggregator[T, Any] = ToList() if into is None else into
        check_aggregator(aggregator, "CountWindow's into")
        _check.policy(on_error, "CountWindow")
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            n, every, into=aggregator, on_error=on_error
        )

    def transform(self) -> Transform:
        return _CountWindows(self.n, self.every, self.into)


@define
class _Counted(Generic[A]):
    """What is known of one key. Its open windows are made of ``panes[gone:]``."""

    count: int
    """Elements so far."""
    start: int
    """Where the first open window begins."""
    panes: list[A]
    gone: int
    is_growing: bool
    """Whether the next element goes into the last pane."""


class _CountWindows(Logic[Any, Any]):
    """A pane ends where a window begins and where one ends, so that a window is a run of whole panes."""

    holds = UNBOUNDED

    def __init__(self, n: int, every: int, into: Aggregator[Any, Any]) -> None:
        self._n = n
        self._every = every
        self._into = into
        self._panes_per_step = 1 if n % every == 0 else 2
        self.state_type = _Counted[into.state]  # type: ignore[name-defined]
        self._runs: dict[Hashable, _Runs] = {}

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[Out]:
        table, n, every = scope.table, self._n, self._every
        cut = n % every
        initial, add = self._into.initial, self._into.add
        space: dict[Any, _Counted[Any]] = table.space()
        for key, value in rows:
            table.touch(key)
            state = space.get(key)
            if state is None:
                state = space[key] = _Counted(0, 0, [], 0, False)
            if state.is_growing:
                state.panes[-1] = add(state.panes[-1], value)
            else:
                state.panes.append(add(initial(), value))
                state.is_growing = True
            state.count += 1
            rest = state.count % every
            if rest == 0 or rest == cut:
                state.is_growing = False
                if state.count == state.start + n:
                    yield key, self._taken(key, state)

    def _taken(self, key: Hashable, state: _Counted[Any]) -> Window[Any]:
        """The first open window, which is open no longer."""
        start, gone = state.start, state.gone
        state.start += self._every
        state.gone = min(gone + self._panes_per_step, len(state.panes))
        acc = self._contents(key, state, gone)
        return Window(float(start), float(start + self._n), self._into.result(acc))

    def _contents(self, key: Hashable, state: _Counted[Any], gone: int) -> Any:
        """The accumulator of ``panes[gone:]``; those that have left are removed, many at a time."""
        # Should merging fail, the runs are made anew for the next window.
        runs = self._runs.pop(key, None)
        if len(state.panes) - gone == 1:
            acc = state.panes[gone]
            is_used_up = True
        else:
            runs = runs or _Runs(self._into.merge)
            acc = runs.of(state.panes, gone)
            is_used_up = runs.leave(self._panes_per_step)
            self._runs[key] = runs
        if is_used_up:
            del state.panes[: state.gone]
            state.gone = 0
        return acc

    def on_end(self, scope: Scope) -> Iterable[Out]:
        for key, state in scope.table.space().items():
            while state.start < state.count:
                scope.table.touch(key)
                yield key, self._taken(key, state)

    def is_holding(self, scope: Scope) -> bool:
        return any(state.start < state.count for state in scope.table.space().values())


class _Runs:
    """The panes of a window in two runs, as in `_panes.Panes`, for one key. Derived from the panes, and not saved."""

    def __init__(self, merge: Callable[[Any, Any], Any]) -> None:
        self._merge = merge
        self._old: list[Any] = []
        """The older run from its last pane on, from the last but one on, …, all of it."""
        self._young: Any = None
        self._middle = 0
        """Where in the list of panes the younger run begins."""
        self._end = 0
        """Where it ends."""

    def of(self, panes: list[Any], start: int) -> Any:
        """The accumulator of ``panes[start:]``."""
        merge = self._merge
        if not self._old:
            self._turn(panes, start)
        for pane in panes[self._end :]:
            self._young = pane if self._end == self._middle else merge(self._young, pane)
            self._end += 1
        return self._old[-1] if self._end == self._middle else merge(self._old[-1], self._young)

    def _turn(self, panes: list[Any], start: int) -> None:
        """Make everything the older run."""
        self._old = [panes[-1]]
        for pane in reversed(panes[start:-1]):
            self._old.append(self._merge(pane, self._old[-1]))
        self._middle = self._end = len(panes)

    def leave(self, number: int) -> bool:
        """The oldest panes leave; whether that was all of the older run."""
        del self._old[-number:]
        return not self._old
