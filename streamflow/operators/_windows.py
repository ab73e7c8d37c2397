"""What the windows have in common: their options, and how elements are put into panes and panes into windows.

Time is cut into panes; a window is a run of them. An element is added to its pane only, so that its cost does not
depend on how many windows it is in. Tumbling windows have one pane each.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Generic, Literal, TypedDict, TypeVar

from attrs import frozen

from streamflow.engine.transform import UNBOUNDED, Logic, Scope
from streamflow.errors import ConfigurationError
from streamflow.graph import Sink
from streamflow.message import Window
from streamflow.operators import _check
from streamflow.operators._grid import Grid
from streamflow.operators._panes import Panes, between
from streamflow.operators._time import epoch
from streamflow.operators.aggregators import Aggregator, check_aggregator
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime, seconds

T = TypeVar("T")

Emit = Literal["close", "update"]
Out = tuple[Any, Window[Any]]


class TimeOptions(TypedDict, Generic[T], total=False):
    """The arguments that all windows over time take."""

    time: EventTime[T] | ProcessingTime
    lateness: timedelta | float
    emit: Emit
    late: Sink[T, Any] | None
    on_error: ErrorPolicy | None


class GridOptions(TimeOptions[T], Generic[T], total=False):
    """Those of windows on a grid."""

    align: str | None
    offset: timedelta


@frozen
class WindowOptions:
    """The options that all windows over time have, checked."""

    time: EventTime[Any] | ProcessingTime
    into: Aggregator[Any, Any]
    lateness: float
    emit: Emit
    late: Sink[Any, Any] | None

    @property
    def revises(self) -> bool:
        """Whether a window may be emitted more than once."""
        return self.lateness > 0 or self.emit == "update"

    @property
    def sides(self) -> dict[str, Sink[Any, Any]]:
        """See `Flow.sides`."""
        return {} if self.late is None else {"late": self.late}


def whole_microseconds(duration: Any, what: str) -> timedelta:
    """A duration that windows can be made of; a number counts seconds."""
    size = timedelta(seconds=seconds(duration, what))
    if not size:
        raise ConfigurationError(f"{what} must be a microsecond or more, not {duration!r}")
    return size


def checked_options(
    what: str,
    time: Any,
    into: Any,
    lateness: timedelta | float,
    emit: str,
    late: Any,
    on_error: ErrorPolicy | None,
) -> WindowOptions:
    """Refuse options that make no sense; ``what`` names the window in errors."""
    check_aggregator(into, f"{what}'s into")
    _check.policy(on_error, what)
    if not isinstance(time, EventTime | ProcessingTime):
        raise ConfigurationError(
            f"{what}'s time must be EventTime(extract) or ProcessingTime(), not {time!r}"
        )
    allowed = seconds(lateness, f"{what}'s lateness", zero=True)
    if emit not in ("close", "update"):
        raise ConfigurationError(f"{what}'s emit must be 'close' or 'update', not {emit!r}")
    if late is not None and not isinstance(late, Sink):
        raise ConfigurationError(f"{what}'s late must be a sink such as Collect(), not {late!r}")
    if isinstance(time, ProcessingTime) and (allowed or late is not None):
        raise ConfigurationError(
            f"{what}: by processing time nothing is late; lateness= and late= need EventTime"
        )
    return WindowOptions(time, into, allowed, "update" if emit == "update" else "close", late)


def make_panes_logic(
    grid: Grid, panes_per_window: int, panes_per_step: int, options: WindowOptions
) -> Logic[Any, Any]:
    """The logic of windows that each are ``panes_per_window`` panes long and begin every ``panes_per_step``."""
    if options.revises:
        from streamflow.operators._revised import RevisedWindows

        return RevisedWindows(grid, panes_per_window, panes_per_step, options)
    return PaneWindows(grid, panes_per_window, panes_per_step, options)


class PaneWindows(Logic[Any, Any]):
    """Windows that are emitted once, when they close. The table has a namespace for each pane: key → accumulator.

    Window *w* begins with pane ``w * panes_per_step``. ``meta["next"]`` is the first that has not been emitted.
    """

    holds = UNBOUNDED

    def __init__(
        self, grid: Grid, panes_per_window: int, panes_per_step: int, options: WindowOptions
    ) -> None:
        self.grid = grid
        self.length = panes_per_window
        self.step = panes_per_step
        self.into = options.into
        self.time = options.time
        self.late = options.late
        self.lateness = options.lateness
        self.state_type = options.into.state
        self._extract: Callable[[Any], Any] | None = (
            options.time.extract if isinstance(options.time, EventTime) else None
        )
        self._panes = Panes(options.into.merge)
        self._order: list[int] = []
        """The panes that have elements, in order. Derived from the table."""
        self._closing = 0
        self._contents: Iterator[tuple[Any, Any]] = iter(())
        """What is still to be emitted of the window that closes; where a result failed, it goes on behind it."""
        self._next_end = math.inf

    @property
    def shape(self) -> str:
        into = type(self.into).__name__
        return f"{into} in windows of {self.length} panes every {self.step}, panes of {self.grid}"

    # Numbers of windows

    def first_of(self, pane: int) -> int:
        """The first window that a pane is in."""
        return -((self.length - 1 - pane) // self.step)

    def last_of(self, pane: int) -> int:
        return pane // self.step

    def start(self, window: int) -> float:
        return self.grid.start(window * self.step)

    def end(self, window: int) -> float:
        return self.grid.start(window * self.step + self.length)

    # Elements

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[Out]:
        table, grid = scope.table, self.grid
        initial, add = self.into.initial, self.into.add
        touch = table.touch if table.tracked else None
        now = scope.now
        extract = self._extract or (lambda _: now)
        # Windows that end at or before `closed` are over.
        view = scope.view()
        top, bound, closed, lag, ahead = view.top, view.bound, view.closed, view.lag, view.ahead
        low, high, last_end, pane = 0.0, -math.inf, math.inf, 0
        space: dict[Any, Any] = {}
        # Elements out of order come back to the same few panes again and again.
        known: dict[int, tuple[float, float, float, dict[Any, Any]]] = {}
        try:
            if closed >= self._next_end:
                yield from self.close(scope, closed)
            for key, value in rows:
                time: Any = extract(value)
                if time.__class__ is not float:
                    time = epoch(time)
                if not low <= time < high:
                    pane = grid.locate(time)
                    if pane in known:
                        low, high, last_end, space = known[pane]
                    else:
                        low, high = grid.start(pane), grid.start(pane + 1)
                        last_end = self.end(self.last_of(pane))
                        if last_end > closed:
                            space = self.open_pane(scope, pane, closed)
                            known[pane] = (low, high, last_end, space)
                if last_end <= closed:
                    scope.late(value)
                    continue
                if touch is not None:
                    touch(key, pane)
                space[key] = add(space[key] if key in space else initial(), value)
                if time > top:
                    if time > ahead:
                        scope.ahead += 1
                        continue
                    top = time
                    if top - lag > closed and bound > closed:
                        closed = min(bound, top - lag)
                        if closed >= self._next_end:
                            yield from self.close(scope, closed)
                            known.clear()
                            high = -math.inf
        finally:
            scope.saw(top)

    def open_pane(self, scope: Scope, pane: int, closed: float) -> dict[Any, Any]:
        """The states of a pane that elements are about to be added to."""
        space: dict[Any, Any] | None = scope.table.spaces.get(pane)
        self._panes.forget(pane)
        if space is not None:
            return space
        space = scope.table.space(pane)
        insort(self._order, pane)
        self._over(scope, closed)
        first = max(self.first_of(pane), scope.table.meta.get("next", self.first_of(pane)))
        self._next_end = min(self._next_end, self.end(first))
        return space

    def _over(self, scope: Scope, closed: float) -> None:
        """Windows that end at or before ``closed`` are over, also those that had no elements by then."""
        if math.isfinite(closed):
            first = self.first_of(self.grid.locate(closed))
            scope.table.meta["next"] = max(first, scope.table.meta.get("next", first))

    # Closing

    def close(self, scope: Scope, until: float) -> Iterator[Out]:
        """Emit the windows that end at or before ``until``, in order."""
        scope.closing = True
        while True:
            yield from self._emit(scope)
            window = self._next_window(scope)
            self._next_end = math.inf if window is None else self.end(window)
            if window is None or self._next_end > until:
                self._over(scope, until)
                scope.closing = False
                return
            scope.table.meta["next"] = window + 1
            self._closing = window
            self._contents = iter(self._taken(scope, window))

    def _emit(self, scope: Scope) -> Iterator[Out]:
        start, end, result = self.start(self._closing), self.end(self._closing), self.into.result
        for key, acc in self._contents:
            yield key, Window(start, end, result(acc))

    def _next_window(self, scope: Scope) -> int | None:
        """The first window that has elements and has not been emitted."""
        following: int | None = scope.table.meta.get("next")
        at = 0 if following is None else bisect_left(self._order, following * self.step)
        if at == len(self._order):
            return None
        first = self.first_of(self._order[at])
        return first if following is None else max(first, following)

    def _taken(self, scope: Scope, window: int) -> Iterable[tuple[Any, Any]]:
        """The accumulators of a window by key; panes that no later window needs are dropped."""
        table, first = scope.table, window * self.step
        if self.length == 1:
            contents: Iterable[tuple[Any, Any]] = table.drop(first).items()
        else:
            contents = self.contents(scope, window)
        self.drop_panes(scope, first + self.step)
        return contents

    def contents(self, scope: Scope, window: int) -> Iterable[tuple[Any, Any]]:
        """The accumulators of a window that has several panes, by key."""
        spaces, order = scope.table.spaces, self._order
        first, end = window * self.step, window * self.step + self.length
        try:
            return list(self._panes.of(spaces, order, first, end))
        except Exception:
            # A merge has failed, of one key and not of all: key by key, and behind one that fails it goes on.
            panes = [spaces[pane] for pane in between(order, first, end)]
            return map(
                partial(self._panes.of_key, panes), dict.fromkeys(key for pane in panes for key in pane)
            )

    def drop_panes(self, scope: Scope, before: int) -> None:
        """Forget the panes before this one."""
        gone = bisect_left(self._order, before)
        for pane in self._order[:gone]:
            scope.table.drop(pane)
        del self._order[:gone]

    def on_watermark(self, scope: Scope, time: float) -> Iterable[Out]:
        return self.close(scope, time)

    def next_close(self, scope: Scope) -> float | None:
        return self._next_end if self._next_end < math.inf else None

    def on_start(self, scope: Scope) -> None:
        self._order = sorted(pane for pane in scope.table.spaces if isinstance(pane, int))
        window = self._next_window(scope)
        self._next_end = math.inf if window is None else self.end(window)

    def on_end(self, scope: Scope) -> Iterable[Out]:
        return self.close(scope, math.inf)

    def promise(self, scope: Scope, watermark: float) -> float:
        """The start of the first window that may still be emitted: also who takes it for the time has nothing late."""
        return self.start(self.first_of(self.grid.locate(watermark - self.lateness)))
